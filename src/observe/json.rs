//! One flat JSON object a line: `ts`, `level`, `target`, `msg`, then the fields
//! of the event and of the spans around it.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, Scope};

/// Formats events as flat JSON; spans must be formatted as JSON objects.
pub(super) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = span_fields(ctx);
        event.record(&mut Fields(&mut fields));
        let message = fields.remove("message").unwrap_or_default();
        let mut now = String::new();
        SystemTime.format_time(&mut Writer::new(&mut now))?;

        let metadata = event.metadata();
        let level = metadata.level().as_str();
        let target = Value::from(metadata.target());
        write!(
            line,
            r#"{{"ts":"{}","level":"{level}","target":{target},"msg":{message}"#,
            now.trim_end()
        )?;
        for (name, value) in &fields {
            write!(line, ",{}:{value}", Value::from(name.as_str()))?;
        }
        writeln!(line, "}}")
    }
}

/// Collects the fields of the spans around an event; inner ones win.
fn span_fields<S, N>(ctx: &FmtContext<'_, S, N>) -> Map<String, Value>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    let mut fields = Map::new();
    let spans = ctx.event_scope().into_iter().flat_map(Scope::from_root);
    for span in spans {
        let extensions = span.extensions();
        if let Some(text) = extensions.get::<FormattedFields<N>>()
            && let Ok(Value::Object(map)) = serde_json::from_str(text)
        {
            fields.extend(map);
        }
    }
    fields
}

/// Takes an event's fields over into a JSON object.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    /// Durations in milliseconds come as `u128`.
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.insert(field, u64::try_from(value).unwrap_or(u64::MAX));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tracing_subscriber::fmt::format::JsonFields;

    use super::*;
    use crate::observe::{JobFinished, Outcome};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Runs `act` with JSON logging; returns its lines.
    fn logged(act: impl FnOnce()) -> Vec<String> {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(JsonFields::new())
            .event_format(JsonLine)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, act);
        let bytes = sink.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_is_one_flat_object_with_the_fields_of_its_spans() {
        let lines = logged(|| {
            let _attempt = tracing::info_span!("attempt", job = 7_i64, queue = "q").entered();
            let _inner = tracing::info_span!("inner", queue = "inner").entered();
            tracing::info!(n = 3_u64, rate = 0.5, "said \"so\"\nand so");
        });
        let [line] = lines.as_slice() else {
            panic!("{lines:?}")
        };
        assert!(line.starts_with(r#"{"ts":"20"#), "{line}");
        let mut object: Map<String, Value> = serde_json::from_str(line).unwrap();
        assert!(object.remove("ts").is_some());
        let expected = serde_json::json!({
            "level": "INFO", "target": "ingestd::observe::json::tests",
            "msg": "said \"so\"\nand so", "job": 7, "queue": "inner", "n": 3, "rate": 0.5,
        });
        assert_eq!(Value::Object(object), expected);
    }

    #[test]
    fn a_failed_attempt_is_one_line_and_a_success_none() {
        let finished = |outcome, error| JobFinished {
            queue: "json_lines",
            kind: "t.lines",
            outcome,
            duration: Duration::from_millis(12),
            waited: Duration::ZERO,
            age: Duration::from_secs(1),
            attempt: 2,
            job: 41,
            error,
        };
        let lines = logged(|| {
            finished(Outcome::Success, None).emit();
            finished(Outcome::Retry, Some("no answer")).emit();
        });
        let [line] = lines.as_slice() else {
            panic!("{lines:?}")
        };
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["job"], 41);
        assert_eq!(line["error"], "no answer");
        assert_eq!(line["duration_ms"], 12);
    }
}
