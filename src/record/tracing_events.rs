//! What the gateway says of itself through `tracing`: each event is one line, with the fields of the spans it is in.
//!
//! A connection's span has the id of its access line, so one id finds everything that was written of it.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::escape;
use super::json_object::JsonObject;
use super::log::AccessLog;

/// Writes events into a log, as far as its filter lets them.
pub(super) struct TracingEvents {
    log: AccessLog,
}

impl TracingEvents {
    pub(super) fn new(log: AccessLog) -> Self {
        Self { log }
    }

    fn is_enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.log.current_filter().is_enabled(metadata.target(), *metadata.level())
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TracingEvents {
    /// Asked once for each place in the source, and again after a reload: what is not written costs nothing.
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.is_enabled(metadata) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.is_enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.log.current_filter().most())
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = EventFields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<EventFields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = EventLine::of(event);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<EventFields>() {
                line.spans.extend(fields.others.iter().cloned());
            }
        }
        self.log.write_line(|out, json| line.write_line(out, json));
    }
}

/// One event with all that its line says.
struct EventLine {
    level: Level,
    /// The module, for those who follow the source: from `debug` on.
    module: Option<&'static str>,
    own: EventFields,
    /// The fields of the spans around it, from the innermost out.
    spans: Vec<(&'static str, FieldValue)>,
}

/// The fields of one event or span; the message apart.
#[derive(Default)]
struct EventFields {
    message: String,
    others: Vec<(&'static str, FieldValue)>,
}

#[derive(Clone)]
enum FieldValue {
    Text(String),
    /// A number or a truth value, as JSON has it.
    Bare(String),
}

impl EventLine {
    fn of(event: &Event<'_>) -> Self {
        let (metadata, mut own) = (event.metadata(), EventFields::default());
        event.record(&mut own);
        let level = *metadata.level();
        let module = (level >= Level::DEBUG).then(|| metadata.target());
        Self { level, module, own, spans: Vec::new() }
    }

    /// Each field once: what the event says itself counts before what is around it.
    fn all_fields(&self) -> impl Iterator<Item = (&'static str, &FieldValue)> {
        let own = &self.own.others;
        let is_new = move |name: &str| own.iter().all(|(known, _)| *known != name);
        let around = self.spans.iter().filter(move |(name, _)| is_new(name));
        own.iter().chain(around).map(|(name, value)| (*name, value))
    }

    fn write_line(&self, out: &mut Vec<u8>, json: bool) {
        let now = jiff::Timestamp::now();
        match json {
            true => self.write_json(out, now),
            false => self.write_text(out, now),
        }
        out.push(b'\n');
    }

    fn write_json(&self, out: &mut Vec<u8>, now: jiff::Timestamp) {
        let mut object = JsonObject::open(out);
        object.add_time("ts", now);
        object.add_text("level", Some(&self.level.as_str().to_ascii_lowercase()));
        object.add_text("message", Some(&self.own.message));
        if let Some(module) = self.module {
            object.add_text("module", Some(module));
        }
        for (name, value) in self.all_fields() {
            match value {
                FieldValue::Text(text) => object.add_text(name, Some(text)),
                FieldValue::Bare(bare) => object.add_raw(name, bare),
            }
        }
        object.close();
    }

    fn write_text(&self, out: &mut Vec<u8>, now: jiff::Timestamp) {
        // Writing to a vector cannot fail. Control characters of the message are escaped.
        let _ = write!(out, "{now:.3} {:5} ", self.level.as_str());
        if let Some(module) = self.module {
            let _ = write!(out, "{module}: ");
        }
        out.extend(self.own.message.chars().flat_map(escape_unprintable));
        for (name, value) in self.all_fields() {
            let _ = write!(out, " {name}=");
            match value {
                FieldValue::Text(text) => escape::write_word(out, text),
                FieldValue::Bare(bare) => out.extend(bare.bytes()),
            }
        }
    }
}

fn escape_unprintable(c: char) -> Vec<u8> {
    if (' '..='~').contains(&c) {
        vec![c as u8]
    } else {
        c.escape_default().collect::<String>().into()
    }
}

impl EventFields {
    fn set_field(&mut self, field: &Field, value: FieldValue) {
        match (field.name(), value) {
            ("message", FieldValue::Text(text)) => self.message = text,
            (name, value) => match self.others.iter_mut().find(|(known, _)| *known == name) {
                Some((_, before)) => *before = value,
                None => self.others.push((name, value)),
            },
        }
    }
}

impl Visit for EventFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set_field(field, FieldValue::Text(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set_field(field, FieldValue::Text(value.to_owned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set_field(field, FieldValue::Bare(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set_field(field, FieldValue::Bare(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set_field(field, FieldValue::Bare(value.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::api::Counters;
    use crate::config::{Log, LogFilter, LogFormat, LogTo};
    use crate::record::log;

    /// What is written under `level` while `act` runs, but for the last line.
    fn written(
        level: &str,
        format: LogFormat,
        act: impl FnOnce(&AccessLog, &LogTo),
    ) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let settings = Log {
            filter: LogFilter::parse(level).unwrap(),
            format,
            to: LogTo::File(path.clone()),
            access: true,
        };
        let (log, writer) = log::open_log(&settings).unwrap();
        let subscriber = tracing_subscriber::registry().with(TracingEvents::new(log.clone()));
        tracing::subscriber::with_default(subscriber, || act(&log, &settings.to));
        assert!(writer.close_with(&Counters::default(), Duration::from_secs(10)));
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        assert!(lines.pop().unwrap().contains("totals"));
        lines
    }

    #[test]
    fn only_the_module_of_a_directive_says_more() {
        let act = |_: &AccessLog, _: &LogTo| {
            tracing::debug!(target: "tailrace::connection::tunnel", "seen");
            tracing::trace!(target: "tailrace::connection", "too much");
            tracing::debug!(target: "tailrace::dns", "another module");
            tracing::info!(target: "tailrace::dns", "usual");
            tracing::info!(target: "hyper", "a library");
        };
        let lines = written("info,tailrace::connection=debug", LogFormat::Json, act);
        let said: Vec<serde_json::Value> =
            lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let messages: Vec<_> = said.iter().map(|line| line["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["seen", "usual"]);
        assert_eq!(said[0]["module"], "tailrace::connection::tunnel");
        assert_eq!(said[1].get("module"), None);
    }

    #[test]
    fn a_line_has_the_fields_of_the_spans_around_it() {
        let act = |_: &AccessLog, _: &LogTo| {
            let connection = tracing::debug_span!("connection", id = "0a1b", port = 5432_u64);
            let _outer = connection.enter();
            let _inner = tracing::debug_span!("dns", name = "a\nb").entered();
            connection.record("port", 80_u64);
            tracing::debug!(port = "its own", "asked");
        };
        let lines = written("debug", LogFormat::Json, act);
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((&line["id"], &line["name"]), (&"0a1b".into(), &"a\nb".into()));
        assert_eq!(line["port"], "its own");
        let lines = written("debug", LogFormat::Text, act);
        let wanted = "tailrace::record::tracing_events::tests: asked port=\"its own\" name=\"a\\nb\" id=0a1b";
        assert!(lines[0].ends_with(wanted), "{lines:?}");
    }

    #[test]
    fn s7_a_reload_changes_what_is_written() {
        let act = |log: &AccessLog, to: &LogTo| {
            let reload = |filter: LogFilter| {
                log.reload(&Log { filter, to: to.clone(), ..Log::default() }).unwrap();
            };
            let say = |when: &str| tracing::debug!(target: "tailrace::dns", "{when}");
            say("before");
            reload(LogFilter::parse("debug").unwrap());
            say("between");
            reload(LogFilter::default());
            say("after");
        };
        let lines = written("info", LogFormat::Json, act);
        assert!(lines.len() == 1 && lines[0].contains("between"), "{lines:?}");
    }
}
