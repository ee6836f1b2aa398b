//! The files that one connection passes are those that docs/architecture.md lists, and what the debug log says of it
//! carries the id of its access line.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use super::{Case, Protocol, Settings, ask_and_connect};

/// The page, and where on it the list is.
const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/architecture.md"));
const HEADING: &str = "## The walk of one connection\n";

/// What was said of connections: by which module, and with which id.
#[derive(Default, Clone)]
struct Said(Arc<Mutex<Vec<(String, String)>>>);

/// A span's `id`.
struct SpanId(String);

impl Visit for SpanId {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "id" {
            self.0 = format!("{value:?}");
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Said {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut span_id = SpanId(String::new());
        attributes.record(&mut span_id);
        context.span(id).unwrap().extensions_mut().insert(span_id);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(span) = context.event_span(event).filter(|span| span.name() == "connection")
        else {
            return;
        };
        let id = span.extensions().get::<SpanId>().unwrap().0.clone();
        let module = event.metadata().module_path().unwrap().to_owned();
        self.0.lock().unwrap().push((module, id));
    }
}

/// A tunnel by SOCKS5 to a name behind a split-DNS route.
fn tunnel() -> Case {
    let settings = Settings {
        mode: "log",
        suffixes: vec!["corp.example"],
        nets: Vec::new(),
        deny_nets: vec!["127.0.0.0/8"],
        outside_tailnet: "refuse",
        dns_mode: "tailnet",
        synthetic: false,
    };
    Case {
        settings,
        running: true,
        service: vec!["100.64.0.1"],
        online: true,
        routed: true,
        answers: Some(vec!["10.50.0.7"]),
        asked: "db.corp.example:443",
        protocol: Protocol::Socks5,
    }
}

/// The files of `connection/`, each as often as the connection came there from another one.
fn walked(said: &[(String, String)]) -> Vec<String> {
    let of_connection = |(module, _): &(String, String)| {
        let path = module.split("::").skip(1).collect::<Vec<_>>().join("/");
        path.starts_with("connection").then(|| format!("{path}.rs"))
    };
    let mut files: Vec<_> = said.iter().filter_map(of_connection).collect();
    files.dedup();
    files
}

/// The first file that each item of the list names.
fn listed() -> Vec<String> {
    let (_, section) = PAGE.split_once(HEADING).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let items = section.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    items.map(|item| item.split('`').nth(1).unwrap().to_owned()).collect()
}

#[test]
fn the_walk_of_one_connection_is_the_one_of_the_page() {
    let said = Said::default();
    let subscriber = tracing_subscriber::registry().with(said.clone());
    // While there is but one, tracing-core lets the first thread that comes to a place in the source say for all
    // whether it is of interest (`Dispatchers::rebuilder`), and other tests' threads have no subscriber.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let (_, line) =
        tracing::subscriber::with_default(subscriber, || ask_and_connect(&tunnel(), async |_| ()));
    assert_eq!(line["outcome"], "fin_fin", "{line}");
    let said = said.0.lock().unwrap();
    assert!(said.iter().all(|(_, id)| line["id"] == id.as_str()), "{said:?}, {line}");
    assert_eq!(walked(&said), listed());
    let mut files = listed();
    files.sort();
    files.dedup();
    assert!(files.len() <= 8, "{files:?}");
}
