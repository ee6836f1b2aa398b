//! The gateway's log: what it says of itself through `tracing`, and the access lines, in one stream.
//!
//! Both are formatted here, in text or JSON, and handed to a thread that may drop them.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write as _};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing_subscriber::layer::SubscriberExt as _;

use super::access_log::{AccessLine, process_json, process_text};
use super::json_object::JsonObject;
use super::log_writer::LogSink;
use super::process_lookup::Process;
use super::tracing_events::TracingEvents;
use crate::api::Counters;
use crate::config::{self, LogFilter, LogFormat, LogTo};
use crate::outcome;

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be opened for appending.
    #[error("log.to: cannot append to {}: {source}; set log.to to stderr, stdout or a path that can be written", path.display())]
    Open {
        /// The path that `log.to` gives.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No descriptor or no thread to be had.
    #[error("log: cannot start the log writer: {0}; raise the limit on descriptors or threads")]
    Start(#[from] io::Error),
}

/// Takes lines; never waits.
#[derive(Clone)]
pub struct AccessLog {
    shared: Arc<LogState>,
}

/// Owns the end of the log: the last line and the flush.
pub struct AccessWriter {
    shared: Arc<LogState>,
}

struct LogState {
    sink: Option<Arc<LogSink>>,
    json: AtomicBool,
    access: AtomicBool,
    filter: ArcSwap<LogFilter>,
}

/// Opens the log.
///
/// # Errors
/// The file cannot be opened, or no thread can be started.
pub fn open_log(settings: &config::Log) -> Result<(AccessLog, AccessWriter), LogError> {
    let (file, terminal) = open_output(&settings.to)?;
    let shared = Arc::new(LogState::new(Some(LogSink::start_writer(file)?)));
    shared.apply_settings(settings, terminal);
    Ok((AccessLog { shared: Arc::clone(&shared) }, AccessWriter { shared }))
}

/// Makes `tracing` events of the whole process, and a panic's message, go to this log. The first
/// log stays.
pub fn install_subscriber(log: &AccessLog) {
    // A panic ends one task; its one line must not break the stream of JSON lines.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    let subscriber = tracing_subscriber::registry().with(TracingEvents::new(log.clone()));
    let _first_stays = tracing::subscriber::set_global_default(subscriber);
}

fn open_output(to: &LogTo) -> Result<(File, bool), LogError> {
    let own = |fd: &dyn AsFd| -> io::Result<File> { Ok(fd.as_fd().try_clone_to_owned()?.into()) };
    match to {
        LogTo::Stderr => Ok((own(&io::stderr())?, io::stderr().is_terminal())),
        LogTo::Stdout => Ok((own(&io::stdout())?, io::stdout().is_terminal())),
        LogTo::File(path) => {
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
            let file = file.map_err(|source| LogError::Open { path: path.clone(), source })?;
            let terminal = file.is_terminal();
            Ok((file, terminal))
        }
    }
}

impl AccessLog {
    /// A log that keeps nothing, for parts run without one.
    pub fn without_output() -> Self {
        Self { shared: Arc::new(LogState::new(None)) }
    }

    /// Takes over changed settings and opens the file again, as after a rotation. On an error the
    /// old log goes on.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn reload(&self, settings: &config::Log) -> Result<(), LogError> {
        let (file, terminal) = open_output(&settings.to)?;
        if let Some(sink) = &self.shared.sink {
            sink.redirect_to(file);
        }
        self.shared.apply_settings(settings, terminal);
        Ok(())
    }

    /// What is written now.
    pub(super) fn current_filter(&self) -> arc_swap::Guard<Arc<LogFilter>> {
        self.shared.filter.load()
    }

    /// Writes one line, formatted in a buffer of this thread's; `true`: as JSON.
    pub(super) fn write_line(&self, format: impl FnOnce(&mut Vec<u8>, bool)) {
        self.shared.write_line(format);
    }

    /// Lines lost since the start.
    pub fn dropped_lines(&self) -> u64 {
        self.shared.sink.as_ref().map_or(0, |sink| sink.dropped_lines())
    }

    /// Whether an access line of this level is to be written at all.
    pub(super) fn wants_level(&self, level: outcome::Level) -> bool {
        let level = match level {
            outcome::Level::Info => tracing::Level::INFO,
            outcome::Level::Warn => tracing::Level::WARN,
            outcome::Level::Error => tracing::Level::ERROR,
        };
        self.shared.sink.is_some()
            && self.shared.access.load(Ordering::Relaxed)
            && self.shared.filter.load().writes_access(level)
    }

    pub(super) fn write_access_line(&self, line: &AccessLine<'_>) {
        self.shared.write_line(|out, json| _ = format_line(line, out, json));
    }

    /// Formats a line now, to be written by [`Self::release`]; `None`: this log keeps nothing.
    pub(super) fn hold_line(&self, line: &AccessLine<'_>) -> Option<HeldLine> {
        self.shared.sink.as_ref()?;
        let json = self.shared.json.load(Ordering::Relaxed);
        Some(with_scratch(|out| {
            let process = format_line(line, out, json);
            HeldLine { text: out.as_slice().into(), json, process }
        }))
    }

    /// Writes a line that was held back, with the client's process.
    pub(super) fn release_line(&self, held: HeldLine, process: Option<&Process>) {
        let fill = if held.json { process_json } else { process_text };
        self.shared.write_line(|out, _| {
            out.extend(&held.text[..held.process.start]);
            fill(out, process);
            out.extend(&held.text[held.process.end..]);
        });
    }
}

/// A line as it will be written, but for the client's process.
pub(super) struct HeldLine {
    text: Box<[u8]>,
    json: bool,
    process: Range<usize>,
}

/// A buffer of this thread's, empty.
fn with_scratch<T>(fill: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    thread_local!(static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        fill(scratch)
    })
}

fn format_line(line: &AccessLine<'_>, out: &mut Vec<u8>, json: bool) -> Range<usize> {
    let now = jiff::Timestamp::now();
    if json { line.write_json(out, now) } else { line.write_text(out, now) }
}

impl AccessWriter {
    /// Writes `totals` as the last line and flushes; false when the reader did not take all of it
    /// within `limit`. Later lines are dropped.
    pub fn close_with(&self, totals: &Counters, limit: Duration) -> bool {
        self.shared.write_line(|out, json| last_line(out, json, totals));
        self.shared.sink.as_ref().is_none_or(|sink| sink.close(limit))
    }
}

impl LogState {
    fn new(sink: Option<Arc<LogSink>>) -> Self {
        let filter = ArcSwap::from_pointee(LogFilter::default());
        Self { sink, json: AtomicBool::new(true), access: AtomicBool::new(true), filter }
    }

    fn apply_settings(&self, settings: &config::Log, terminal: bool) {
        let json = match settings.format {
            LogFormat::Auto => !terminal,
            LogFormat::Text => false,
            LogFormat::Json => true,
        };
        self.json.store(json, Ordering::Relaxed);
        self.access.store(settings.access, Ordering::Relaxed);
        self.filter.store(Arc::new(settings.filter.clone()));
        // Which events and spans are written is asked once for each place in the source, until now.
        tracing::callsite::rebuild_interest_cache();
    }

    /// Formats a line in a buffer of this thread's and hands it on.
    fn write_line(&self, format: impl FnOnce(&mut Vec<u8>, bool)) {
        let Some(sink) = &self.sink else { return };
        with_scratch(|out| {
            format(out, self.json.load(Ordering::Relaxed));
            sink.append_line(out);
        });
    }
}

fn last_line(out: &mut Vec<u8>, json: bool, totals: &Counters) {
    let now = jiff::Timestamp::now();
    let sums = serde_json::to_vec(totals).unwrap_or_default();
    if json {
        let mut object = JsonObject::open(out);
        object.add_time("ts", now);
        object.add_text("level", Some("info"));
        object.add_text("message", Some("totals"));
        object.add_raw("totals", sums);
        object.close();
    } else {
        // Writing to a vector cannot fail.
        let _ = write!(out, "{now:.3} INFO  totals ");
        out.extend(sums);
    }
    out.push(b'\n');
}
