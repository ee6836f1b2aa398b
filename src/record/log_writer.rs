//! Where log lines go: a bounded buffer and one thread that writes it out.
//!
//! Writers of lines never wait: a full disk, a closed pipe or a stalled reader costs lines, which
//! are counted, and nothing else (R12).
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of lines that may wait for their reader, about 16,000 lines.
const ROOM: usize = 8 << 20;
/// A buffer larger than this is given back after a burst.
const KEEP: usize = 128 << 10;
/// Between two writes: the first line after a rest is written at once, and those that follow gather. Whoever
/// waits is woken by the writer of a line, which costs it more than the line does.
const GATHER: Duration = Duration::from_millis(40);
/// Between two attempts at a file that takes nothing at the moment.
const RETRY: Duration = Duration::from_millis(10);

/// The lines that wait to be written, shared by those who log and the thread that writes.
pub(super) struct LogSink {
    state: Mutex<SinkState>,
    /// Wakes the writing thread: a line waits, or the end has come.
    work: Condvar,
    /// Tells [`LogSink::close`] that all lines are written.
    done: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct SinkState {
    pending: Vec<u8>,
    lines: u64,
    next: Option<File>,
    waiting: bool,
    closing: bool,
    closed: bool,
}

impl LogSink {
    /// Starts the thread that writes to `out`.
    pub(super) fn start_writer(out: File) -> std::io::Result<Arc<Self>> {
        let sink = Arc::new(Self {
            state: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            dropped: AtomicU64::new(0),
        });
        let writer = Arc::clone(&sink);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run_writer(out))?;
        Ok(sink)
    }

    /// Takes one line, which ends in LF, or drops it.
    pub(super) fn append_line(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.closed || state.pending.len() + line.len() > ROOM {
            drop(state);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.pending.extend_from_slice(line);
        state.lines += 1;
        if state.waiting {
            state.waiting = false;
            self.work.notify_one();
        }
    }

    /// Lines lost since the start.
    pub(super) fn dropped_lines(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Later lines go to `out`.
    pub(super) fn redirect_to(&self, out: File) {
        self.lock().next = Some(out);
    }

    /// Writes what waits and ends the thread; false when that took longer than `limit`.
    pub(super) fn close(&self, limit: Duration) -> bool {
        let mut state = self.lock();
        state.closing = true;
        self.work.notify_one();
        let closed = self.done.wait_timeout_while(state, limit, |state| !state.closed);
        let (mut state, timeout) = closed.unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        !timeout.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, SinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run_writer(&self, out: File) {
        let mut out = LogOutput { file: out, torn: false };
        let mut batch = Vec::new();
        while let Some(lines) = self.take_batch(&mut batch, &mut out) {
            let lost = out.write_lines(&batch);
            if lost != 0 {
                self.dropped.fetch_add(lost.min(lines), Ordering::Relaxed);
            }
            batch.clear();
            batch.shrink_to(KEEP);
            self.rest_between_batches();
        }
        self.lock().closed = true;
        self.done.notify_all();
    }

    /// Lets lines gather, unless the end has come.
    fn rest_between_batches(&self) {
        let rested = self.work.wait_timeout_while(self.lock(), GATHER, |state| !state.closing);
        drop(rested.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits for lines and takes them all; `None` at the end.
    fn take_batch(&self, batch: &mut Vec<u8>, out: &mut LogOutput) -> Option<u64> {
        let mut state = self.lock();
        while state.pending.is_empty() && !state.closing {
            state.waiting = true;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting = false;
        if let Some(file) = state.next.take() {
            *out = LogOutput { file, torn: false };
        }
        std::mem::swap(&mut state.pending, batch);
        let lines = std::mem::take(&mut state.lines);
        (!batch.is_empty()).then_some(lines)
    }
}

/// The file, and whether its last line was cut off by an error.
struct LogOutput {
    file: File,
    torn: bool,
}

impl LogOutput {
    /// Writes whole lines; returns how many of them did not get out whole.
    fn write_lines(&mut self, mut lines: &[u8]) -> u64 {
        if self.torn && self.file.write_all(b"\n").is_ok() {
            self.torn = false;
        }
        while !lines.is_empty() {
            match self.file.write(lines) {
                Ok(n) => {
                    self.torn = n != 0 && lines[n - 1] != b'\n';
                    lines = &lines[n..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Somebody made the shared terminal or pipe non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::park_timeout(RETRY);
                }
                Err(_) => return lines.iter().filter(|byte| **byte == b'\n').count() as u64,
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    fn pipe() -> (File, File) {
        let (read, write): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
        (File::from(read), File::from(write))
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (mut read, write) = pipe();
        let sink = LogSink::start_writer(write).unwrap();
        for n in 0..1000 {
            sink.append_line(format!("{n}\n").as_bytes());
        }
        assert!(sink.close(Duration::from_secs(10)));
        drop(sink);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert!(text.lines().enumerate().all(|(n, line)| line == n.to_string()));
        assert_eq!(text.lines().count(), 1000);
    }

    #[test]
    fn r12_a_stalled_reader_costs_lines_and_no_time() {
        let (read, write) = pipe();
        let sink = LogSink::start_writer(write).unwrap();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        // Queue and writer hold at most `ROOM` each, the pipe a little: the rest has to go.
        for _ in 0..(4 * ROOM / line.len()) {
            sink.append_line(&line);
        }
        assert!(sink.dropped_lines() >= (ROOM / line.len()) as u64, "{}", sink.dropped_lines());
        assert!(!sink.close(Duration::from_millis(20)), "nobody reads");
        drop(read);
    }

    #[test]
    fn r12_a_closed_reader_is_counted() {
        let (read, write) = pipe();
        drop(read);
        let sink = LogSink::start_writer(write).unwrap();
        sink.append_line(b"one\n");
        sink.append_line(b"two\n");
        assert!(sink.close(Duration::from_secs(10)));
        assert_eq!(sink.dropped_lines(), 2);
    }
}
