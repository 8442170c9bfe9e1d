//! `landfall webhook edit`.

use super::{
    api::ApiClient,
    webhook::{parse_header, print_webhook},
};
use clap::{ArgGroup, Args};
use serde_json::{Map, Value, json};
use url::Url;
use uuid::Uuid;

#[derive(Debug, Args)]
#[command(group(
    ArgGroup::new("changes")
        .required(true)
        .multiple(true)
        .args(["endpoint", "events", "all_events", "description", "headers", "no_headers"])
))]
pub struct WebhookEditArgs {
    /// The endpoint's id.
    id: Uuid,
    /// URL that deliveries are posted to, pending ones too.
    #[arg(long, value_name = "URL")]
    endpoint: Option<Url>,
    /// Deliver only events of this type; can be repeated.
    #[arg(long = "event", value_name = "TYPE", conflicts_with = "all_events")]
    events: Vec<String>,
    /// Deliver events of all types.
    #[arg(long)]
    all_events: bool,
    /// What the endpoint is for.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Header to send with every request, as in `Authorization: Bearer …`; can be repeated. Replaces all headers.
    #[arg(
        long = "header",
        value_name = "NAME: VALUE",
        value_parser = parse_header,
        conflicts_with = "no_headers"
    )]
    headers: Vec<(String, String)>,
    /// Remove all headers.
    #[arg(long)]
    no_headers: bool,
    /// Print the server's JSON.
    #[arg(long)]
    json: bool,
}

impl WebhookEditArgs {
    fn patch(&self) -> Value {
        let mut patch = Map::new();
        if let Some(url) = &self.endpoint {
            patch.insert("url".to_owned(), url.as_str().into());
        }
        if self.all_events || !self.events.is_empty() {
            patch.insert("event_types".to_owned(), json!(self.events));
        }
        if let Some(description) = &self.description {
            patch.insert("description".to_owned(), description.as_str().into());
        }
        if self.no_headers || !self.headers.is_empty() {
            let headers: Map<String, Value> = self
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), value.as_str().into()))
                .collect();
            patch.insert("headers".to_owned(), headers.into());
        }
        patch.into()
    }
}

pub(super) async fn run(api: &ApiClient, args: WebhookEditArgs) -> anyhow::Result<()> {
    let request = api.patch(&["webhooks", &args.id.to_string()]);
    print_webhook(&api.call(request.json(&args.patch())).await?, args.json)
}
