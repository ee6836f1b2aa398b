//! The bus's streams: a queue for each watcher, and what becomes of it when the watcher lags.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hyper::body::{Body, Frame};

/// A watcher's queue (ipnlocal/local.go).
const LENGTH: usize = 128;

#[derive(Default)]
struct Queue {
    lines: VecDeque<Bytes>,
    /// Nothing will follow.
    closed: bool,
    /// Nobody reads any more.
    left: bool,
    reader: Option<Waker>,
}

/// The sending side: closes the stream when dropped.
pub(super) struct Watcher {
    pub mask: u64,
    queue: Arc<Mutex<Queue>>,
}

/// The stream as a body: a line as soon as it is there.
pub(super) struct Bus(Arc<Mutex<Queue>>);

/// A watcher with this mask, and its stream.
pub(super) fn open(mask: u64) -> (Watcher, Bus) {
    let queue = Arc::new(Mutex::new(Queue::default()));
    (Watcher { mask, queue: Arc::clone(&queue) }, Bus(queue))
}

impl Watcher {
    /// Queues a line; false when nobody reads any more, or when the watcher lagged and its stream ends with
    /// `last`. Without one, what does not fit is dropped without a word.
    pub(super) fn tell(&self, line: Bytes, last: Option<Bytes>) -> bool {
        let mut queue = self.look();
        let goes_on = match (queue.lines.len() < LENGTH, last) {
            (true, _) => {
                queue.lines.push_back(line);
                true
            }
            (false, None) => true,
            (false, Some(last)) => {
                queue.lines.clear();
                queue.lines.push_back(last);
                queue.closed = true;
                false
            }
        };
        queue.wake();
        goes_on && !queue.left
    }

    fn look(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut queue = self.look();
        queue.closed = true;
        queue.wake();
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.0.lock().unwrap().left = true;
    }
}

impl Queue {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Body for Bus {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut queue = self.0.lock().unwrap();
        if let Some(line) = queue.lines.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(line))));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        queue.reader = Some(context.waker().clone());
        Poll::Pending
    }
}
