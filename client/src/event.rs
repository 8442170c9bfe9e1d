//! `landfall event`: events, their deliveries, and replays.

use super::{
    api::ApiClient,
    listing::{self, ListExtent},
    output::{Table, cell, fields, print_text, time},
};
use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use serde_json::{Map, Value};
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// List events, newest first.
    List(EventListArgs),
    /// Show an event with its deliveries and their attempts.
    Show {
        /// The event's id.
        id: Uuid,
        /// Print the server's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Deliver an event again, with the same id.
    Redeliver {
        /// The event's id.
        id: Uuid,
        /// Deliver only to this endpoint.
        #[arg(long, value_name = "ID")]
        webhook: Option<Uuid>,
        /// Print the server's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Deliver the events of a time range to an endpoint again.
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
pub struct EventListArgs {
    /// Only events with this status.
    #[arg(long, value_parser = ["pending", "delivered", "failed"])]
    status: Option<String>,
    /// Only events of this type, such as `file.stored`.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only events about the file or batch of this id.
    #[arg(long, value_name = "ID")]
    aggregate: Option<Uuid>,
    #[command(flatten)]
    extent: ListExtent,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The endpoint's id.
    #[arg(value_name = "WEBHOOK")]
    webhook: Uuid,
    /// Start of the range: an RFC 3339 time, a date (UTC), or how long ago, such as `2h`.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    since: DateTime<Utc>,
    /// End of the range (now by default).
    #[arg(long, value_name = "TIME", value_parser = instant)]
    until: Option<DateTime<Utc>>,
    /// Only deliveries with this status.
    #[arg(long, value_parser = ["pending", "delivered", "failed"])]
    status: Option<String>,
    /// Print the server's JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(api: &ApiClient, command: EventCommand) -> anyhow::Result<()> {
    match command {
        EventCommand::List(args) => list(api, args).await,
        EventCommand::Show { id, json } => {
            let reply = api.call(api.get(&["events", &id.to_string()])).await?;
            print_text(&if json {
                reply.text
            } else {
                describe(&reply.json()?)
            })?;
            Ok(())
        }
        EventCommand::Redeliver { id, webhook, json } => redeliver(api, id, webhook, json).await,
        EventCommand::Replay(args) => replay(api, args).await,
    }
}

async fn list(api: &ApiClient, args: EventListArgs) -> anyhow::Result<()> {
    let filters = [
        ("status", args.status),
        ("event_type", args.event_type),
        ("aggregate_id", args.aggregate.map(|id| id.to_string())),
    ];
    listing::show(
        api,
        &["events"],
        &filters,
        &args.extent,
        &["ID", "STATUS", "CREATED", "TYPE", "ABOUT"],
        |event| {
            vec![
                cell(&event["id"]),
                cell(&event["status"]),
                time(&event["created_at"]),
                cell(&event["event_type"]),
                about(event),
            ]
        },
    )
    .await
}

async fn redeliver(
    api: &ApiClient,
    id: Uuid,
    webhook: Option<Uuid>,
    json: bool,
) -> anyhow::Result<()> {
    let mut body = Map::new();
    if let Some(webhook) = webhook {
        body.insert("webhook_id".to_owned(), webhook.to_string().into());
    }
    let reply = api
        .call(
            api.post(&["events", &id.to_string(), "redeliver"])
                .json(&body),
        )
        .await?;
    if json {
        print_text(&reply.text)?;
    } else {
        print_text(&format!(
            "event {id} is being redelivered; see `landfall event show {id}`"
        ))?;
    }
    Ok(())
}

async fn replay(api: &ApiClient, args: ReplayArgs) -> anyhow::Result<()> {
    let mut body = Map::new();
    let times = [("since", Some(args.since)), ("until", args.until)];
    for (name, time) in times {
        if let Some(time) = time {
            let text = time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            body.insert(name.to_owned(), text.into());
        }
    }
    if let Some(status) = args.status {
        body.insert("status".to_owned(), status.into());
    }
    let reply = api
        .call(
            api.post(&["webhooks", &args.webhook.to_string(), "replay"])
                .json(&body),
        )
        .await?;
    if args.json {
        print_text(&reply.text)?;
    } else {
        let replayed: Value = reply.json()?;
        print_text(&format!(
            "deliveries enqueued: {}",
            cell(&replayed["count"])
        ))?;
    }
    Ok(())
}

fn about(event: &Value) -> String {
    format!(
        "{} {}",
        cell(&event["aggregate_type"]),
        cell(&event["aggregate_id"])
    )
}

fn describe(event: &Value) -> String {
    let mut text = fields(&[
        ("id", cell(&event["id"])),
        ("type", cell(&event["event_type"])),
        ("status", cell(&event["status"])),
        ("about", about(event)),
        ("key", cell(&event["idempotency_key"])),
        ("created", time(&event["created_at"])),
        ("delivered", time(&event["delivered_at"])),
        ("payload", cell(&event["payload"])),
    ]);
    for delivery in event["deliveries"].as_array().into_iter().flatten() {
        text.push('\n');
        text.push_str(&describe_delivery(delivery));
    }
    text
}

fn describe_delivery(delivery: &Value) -> String {
    let mut text = fields(&[
        ("delivery", cell(&delivery["id"])),
        ("webhook", cell(&delivery["webhook_id"])),
        ("status", cell(&delivery["status"])),
        ("attempts", cell(&delivery["attempt_count"])),
        ("next attempt", time(&delivery["next_attempt_at"])),
        ("delivered", time(&delivery["delivered_at"])),
        ("last error", cell(&delivery["last_error"])),
    ]);
    let mut attempts = Table::new(&["  AT", "ANSWER", "MS", "ERROR"]);
    for attempt in delivery["attempts"].as_array().into_iter().flatten() {
        attempts.row(vec![
            format!("  {}", time(&attempt["at"])),
            cell(&attempt["status_code"]),
            cell(&attempt["duration_ms"]),
            cell(&attempt["error"]),
        ]);
    }
    text.push_str(&attempts.take());
    text
}

/// Parses a time: RFC 3339, a date (midnight UTC), or a duration before now.
fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(date.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    humantime::parse_duration(text)
        .ok()
        .and_then(|ago| Utc::now().checked_sub_signed(chrono::TimeDelta::from_std(ago).ok()?))
        .ok_or_else(|| {
            "write a time as 2026-11-24T12:00:00Z, 2026-11-24, or how long ago: 30m, 2h, 7d"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_dates_or_ago() {
        let written = |text| {
            instant(text)
                .unwrap()
                .to_rfc3339_opts(SecondsFormat::AutoSi, true)
        };
        assert_eq!(written("2026-11-24T12:00:00+02:00"), "2026-11-24T10:00:00Z");
        assert_eq!(written("2026-11-24"), "2026-11-24T00:00:00Z");
        let ago = Utc::now() - instant("2h").unwrap();
        assert!((119..=121).contains(&ago.num_minutes()), "{ago}");
        for bad in ["", "yesterday", "2026-13-01", "99999999999999y"] {
            assert!(instant(bad).is_err(), "{bad}");
        }
    }
}
