//! Callers from accept to line: found, lost, late, and too many.
#![forbid(unsafe_code)]

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::*;
use crate::config::{Log, LogFormat, LogTo};
use crate::outcome::Outcome;
use crate::record::{Telemetry, log};

const PATIENCE: Duration = Duration::from_secs(20);

struct RecordSetup {
    telemetry: Arc<Telemetry>,
    folder: tempfile::TempDir,
    writer: log::AccessWriter,
}

fn record_setup(format: LogFormat) -> RecordSetup {
    let folder = tempfile::tempdir().unwrap();
    let to = LogTo::File(folder.path().join("log"));
    let settings = Log { format, to, ..Log::default() };
    let (access, writer) = log::open_log(&settings).unwrap();
    let telemetry = Telemetry::new(access);
    telemetry.name_callers().unwrap();
    RecordSetup { telemetry, folder, writer }
}

impl RecordSetup {
    /// The log when all is over.
    fn log(self) -> String {
        self.telemetry.release_held_lines();
        assert!(self.writer.close_with(&self.telemetry.counters(), PATIENCE));
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

pub(super) fn pair() -> (TcpListener, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener, client)
}

fn wait_until(what: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !what() {
        assert!(Instant::now() < until, "it never came to pass");
        std::thread::yield_now();
    }
}

#[test]
fn a_line_hears_of_a_caller_that_is_found_after_its_end() {
    let setup = record_setup(LogFormat::Json);
    let (listener, client) = pair();
    let server = listener.local_addr().unwrap();
    // It ends before anybody can have looked.
    setup.telemetry.begin_connection(client.local_addr().unwrap(), server).finish(Outcome::Denied);
    let written = setup.folder.path().join("log");
    wait_until(|| File::open(&written).unwrap().metadata().unwrap().len() != 0);
    let log = setup.log();
    let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(line["process"]["pid"], std::process::id(), "{line}");
    let exe = std::env::current_exe().unwrap();
    assert_eq!(line["process"]["name"], exe.file_name().unwrap().to_str().unwrap());
    assert_eq!(line["outcome"], "denied", "{line}");
}

#[test]
fn a_line_for_people_names_the_caller_at_its_end() {
    let setup = record_setup(LogFormat::Text);
    let (listener, client) = pair();
    let server = listener.local_addr().unwrap();
    let mut connection = setup.telemetry.begin_connection(client.local_addr().unwrap(), server);
    wait_until(|| setup.telemetry.connection_rows()[0].process.is_some());
    connection.begin_target().finish(Outcome::Ok);
    drop(connection);
    let gone = ([127, 0, 0, 1], 1).into();
    setup.telemetry.begin_connection(gone, server).finish(Outcome::HeadTimeout);
    let log = setup.log();
    let mut lines = log.lines();
    let named = lines.next().unwrap();
    assert!(named.ends_with(&format!(" pid={}", std::process::id())), "{named}");
    assert!(named.contains(" process="), "{named}");
    let unknown = lines.next().unwrap();
    assert!(unknown.contains("head_timeout") && !unknown.contains("process="), "{unknown}");
}

#[test]
fn a_flood_is_bounded_and_each_of_its_lines_comes_once() {
    let setup = record_setup(LogFormat::Json);
    let (listener, client) = pair();
    let server = listener.local_addr().unwrap();
    for _ in 0..10_000 {
        setup.telemetry.begin_connection(client.local_addr().unwrap(), server).finish(Outcome::Ok);
        let callers = setup.telemetry.callers().unwrap();
        assert!(callers.shared.lock().queue.len() <= MOST_QUEUED);
    }
    let log = setup.log();
    assert_eq!(log.lines().filter(|line| line.contains("\"outcome\":\"ok\"")).count(), 10_000);
}

#[test]
fn who_is_put_off_is_found_later() {
    let (listener, client) = pair();
    let server = listener.local_addr().unwrap();
    let telemetry = Telemetry::new(log::AccessLog::without_output());
    let now = Instant::now();
    let mut seeker = LookupThread {
        shared: Arc::new(LookupQueue {
            state: Mutex::default(),
            work: Condvar::new(),
            over: Condvar::new(),
        }),
        log: log::AccessLog::without_output(),
        looker: Arc::new(Mutex::new(SearchContext::new(now).unwrap())),
        later: Vec::new(),
        pace: Duration::ZERO,
        ended: now,
    };
    let connection = telemetry.begin_connection(client.local_addr().unwrap(), server);
    let item = || QueuedLookup { entry: Arc::clone(connection.entry()), server, tries: 0 };
    connection.entry().caller.begin_lookup();
    seeker.put_off(vec![item()], Duration::ZERO);
    assert_eq!(telemetry.connection_rows()[0].process, None);
    let batch = seeker.next().unwrap();
    assert_eq!((batch.len(), seeker.later.len()), (1, 0));
    seeker.look_up_batch(batch);
    assert_eq!(telemetry.connection_rows()[0].process.as_ref().unwrap().pid, std::process::id());
    // Who has left is not looked at again.
    seeker.put_off(vec![item()], Duration::ZERO);
    connection.finish(Outcome::Ok);
    assert_eq!(seeker.next().unwrap().len(), 0);
}
