//! Log lines as JSON: one flat object per line, with the fields of the event and of the spans around it.

use landfall_queue::WorkerIdentity;
use serde_json::{Map, Value};
use std::{
    error::Error,
    fmt::{self, Debug},
};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormattedFields,
        format::{FormatEvent, JsonFields, Writer},
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// Fields that the `log` crate's bridge adds.
const LOG_PREFIX: &str = "log.";

/// The format. Each line also names the process: host, process id and version.
#[derive(Debug)]
pub(super) struct JsonLines {
    host: String,
    pid: u32,
}

impl JsonLines {
    pub(super) fn new() -> Self {
        Self {
            host: WorkerIdentity::new("", 1).host,
            pid: std::process::id(),
        }
    }
}

impl<S> FormatEvent<S, JsonFields> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = EventFields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let mut line = Line::default();
        line.add("timestamp", timestamp.into());
        line.add("level", metadata.level().as_str().into());
        line.add("message", fields.message.into());
        let target = fields.target.as_deref().unwrap_or(metadata.target());
        line.add("target", target.into());
        for (name, value) in fields.others {
            line.add(&name, value);
        }
        // From the innermost span outwards: the field of an inner one counts.
        let scope = context.event_scope();
        for span in scope.into_iter().flatten() {
            let extensions = span.extensions();
            let recorded = extensions.get::<FormattedFields<JsonFields>>();
            let recorded = recorded.and_then(|recorded| {
                serde_json::from_str::<Map<String, Value>>(&recorded.fields).ok()
            });
            for (name, value) in recorded.into_iter().flatten() {
                line.add(&name, value);
            }
        }
        line.add("host", self.host.as_str().into());
        line.add("pid", self.pid.into());
        line.add("version", env!("CARGO_PKG_VERSION").into());
        writeln!(writer, "{}", line.text())
    }
}

/// The members of one line, in order.
#[derive(Debug, Default)]
struct Line(Vec<(String, Value)>);

impl Line {
    /// Adds a member, unless there is one of this name.
    fn add(&mut self, name: &str, value: Value) {
        if self.0.iter().all(|(known, _)| known != name) {
            self.0.push((name.to_owned(), value));
        }
    }

    fn text(&self) -> String {
        let members = self.0.iter().map(|(name, value)| {
            let name = Value::from(name.as_str());
            format!("{name}:{value}")
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }
}

#[derive(Debug, Default)]
struct EventFields {
    message: String,
    target: Option<String>,
    others: Vec<(String, Value)>,
}

impl EventFields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), &value) {
            ("message", Value::String(text)) => self.message.clone_from(text),
            ("log.target", Value::String(text)) => self.target = Some(text.clone()),
            (name, _) if name.starts_with(LOG_PREFIX) => {}
            (name, _) => self.others.push((name.to_owned(), value)),
        }
    }
}

impl Visit for EventFields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    /// The error and what caused it, without repeating what an error says of its cause itself.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        self.add(field, text.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, format!("{value:?}").into());
    }
}
