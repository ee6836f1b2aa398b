//! Both directions in one task: turns, half-close, silence, resets, and the end.
#![forbid(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep};

use super::direction::{DirectionIo, DirectionStop, InspectionEnd, RelayDirection};
use super::{
    HalfClose, INSPECTION_TIME, Meter, PipePool, RelayEnd, RelaySettings, RelaySummary,
    StreamInspector,
};
use crate::lifecycle::connection_cut::Cut;
use crate::sys::{self, Exiting, Stream};

/// After this long without a byte a pipe goes back, and blocked sockets are watched for a reset:
/// two of these are under the 100 ms in which a reset must be passed on. Not for every half-closed one: a
/// timer sooner than the runtime's next costs a wake-up of the runtime itself.
const TICK: Duration = Duration::from_millis(40);

/// Between two looks at a client whose FIN is held back: has it left for good meanwhile?
const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a client may take what an upstream sent before its reset: a reset drops unsent bytes.
const LAST_BYTES_TIME: Duration = Duration::from_secs(1);

/// What stays the same for a relay's life.
pub(super) struct RelayContext<'a> {
    pub(super) client: &'a Stream,
    pub(super) upstream: &'a Stream,
    pub(super) half_close: HalfClose,
    pub(super) settings: &'a RelaySettings,
    /// The process behind this very upstream connection; later ones have nothing to do with it.
    pub(super) process: Option<Arc<Exiting>>,
    pub(super) pipes: &'a Arc<PipePool>,
    pub(super) meter: &'a Meter,
}

impl RelayContext<'_> {
    fn up(&self) -> DirectionIo<'_> {
        DirectionIo { prompt: true, ..self.direction(self.client, self.upstream, &self.meter.up) }
    }

    fn down(&self) -> DirectionIo<'_> {
        self.direction(self.upstream, self.client, &self.meter.down)
    }

    fn direction<'s>(
        &'s self,
        from: &'s Stream,
        to: &'s Stream,
        counter: &'s AtomicU64,
    ) -> DirectionIo<'s> {
        let splice = self.settings.splice.load(Ordering::Relaxed);
        DirectionIo { from, to, pipes: self.pipes, counter, splice, prompt: false }
    }
}

/// A relay under way.
pub(super) struct RelayDriver<'a, 'g> {
    context: RelayContext<'a>,
    up: RelayDirection,
    down: RelayDirection,
    inspector: Option<&'g mut dyn StreamInspector>,
    inspection_over: Option<Instant>, // when the inspector has to do with what it has seen
    upstream_fin_sent: bool,          // our FIN went to the upstream
    client_fin_sent: bool,            // our FIN went to the client
    quiet: bool,                      // a whole tick passed without a byte
    last: Instant,                    // when a byte last moved
    next_client_check: Option<Instant>, // when to look next whether the client of a held-back FIN is there
}

enum DriverEvent {
    Yield,
    End(RelayEnd),
}

impl<'a, 'g> RelayDriver<'a, 'g> {
    pub(super) fn new(
        context: RelayContext<'a>,
        early_up: Bytes,
        early_down: Bytes,
        inspector: Option<&'g mut dyn StreamInspector>,
    ) -> Self {
        Self {
            inspector,
            inspection_over: None,
            context,
            up: RelayDirection::new(early_up),
            down: RelayDirection::new(early_down),
            upstream_fin_sent: false,
            client_fin_sent: false,
            quiet: false,
            last: Instant::now(),
            next_client_check: None,
        }
    }

    pub(super) async fn run(&mut self, cut: &Cut) -> RelaySummary {
        let ended = self.until_end(cut).await;
        if ended == RelayEnd::UpstreamRst {
            Box::pin(self.deliver_last_bytes()).await;
        }
        self.finish_with(ended)
    }

    async fn until_end(&mut self, cut: &Cut) -> RelayEnd {
        let mut timer = std::pin::pin!(tokio::time::sleep_until(self.next_timer()));
        loop {
            let poll = |cx: &mut Context<'_>| self.poll_end(cx, timer.as_mut(), cut);
            match std::future::poll_fn(poll).await {
                DriverEvent::End(ended) => return ended,
                // Not a mere wake-up: the runtime looks at its sockets before it comes back.
                DriverEvent::Yield => tokio::task::yield_now().await,
            }
        }
    }

    fn poll_end(
        &mut self,
        cx: &mut Context<'_>,
        timer: Pin<&mut Sleep>,
        cut: &Cut,
    ) -> Poll<DriverEvent> {
        if let Poll::Ready(reason) = cut.poll_wait(cx) {
            return Poll::Ready(DriverEvent::End(RelayEnd::Cut(reason)));
        }
        let event = self.drive_directions(cx).or_else(|| self.poll_silence(cx, timer));
        event.map_or(Poll::Pending, Poll::Ready)
    }

    /// Each direction's share of work.
    fn drive_directions(&mut self, cx: &mut Context<'_>) -> Option<DriverEvent> {
        let before = self.progress_mark();
        let up = match self.inspect_client_bytes(cx) {
            InspectionEnd::Passed => self.up.pump_bytes(cx, &self.context.up()),
            InspectionEnd::Waiting(turn) => turn,
            InspectionEnd::Refused => return Some(DriverEvent::End(RelayEnd::Refused)),
        };
        let down = self.down.pump_bytes(cx, &self.context.down());
        // Failures first: a socket's error is told once, and whoever asks next reads a clean FIN.
        let killed = || {
            (self.down.at_eof() && !before.3 && self.upstream_is_killed())
                .then_some(RelayEnd::UpstreamRst)
        };
        if let Some(ended) = first_broken(up, down).or_else(killed).or_else(|| self.pass_fins()) {
            return Some(DriverEvent::End(ended));
        }
        if self.up.is_done() && self.down.is_done() {
            return Some(DriverEvent::End(RelayEnd::FinFin));
        }
        if self.progress_mark() != before {
            self.last = Instant::now();
            self.quiet = false;
        }
        if up == DirectionStop::Spent || down == DirectionStop::Spent {
            return Some(DriverEvent::Yield);
        }
        self.watch_for_resets(cx, up, down).map(DriverEvent::End)
    }

    /// Has the client's first bytes inspected, where there is an inspector; its time runs from the first of them on.
    fn inspect_client_bytes(&mut self, cx: &mut Context<'_>) -> InspectionEnd {
        let Some(inspector) = self.inspector.as_deref_mut() else { return InspectionEnd::Passed };
        let over = self.inspection_over.is_some_and(|over| over <= Instant::now());
        let end = self.up.inspect_first_bytes(cx, &self.context.up(), inspector, over);
        match end {
            InspectionEnd::Waiting(_)
                if self.inspection_over.is_none() && self.up.backlog() > 0 =>
            {
                self.inspection_over = Some(Instant::now() + INSPECTION_TIME);
            }
            InspectionEnd::Waiting(_) => {}
            InspectionEnd::Passed | InspectionEnd::Refused => {
                (self.inspector, self.inspection_over) = (None, None)
            }
        }
        end
    }

    /// Changes with every byte taken in or given out, and with a FIN.
    fn progress_mark(&self) -> (u64, usize, bool, bool) {
        let moved = self.up.bytes_moved() + self.down.bytes_moved();
        (moved, self.up.backlog() + self.down.backlog(), self.up.at_eof(), self.down.at_eof())
    }

    /// A FIN follows the last byte before it, unless it is to be held back.
    fn pass_fins(&mut self) -> Option<RelayEnd> {
        let (client, upstream) = (self.context.client, self.context.upstream);
        if self.up.is_done() && !self.upstream_fin_sent && !self.holds_fin() {
            if !self.client_fin_sent && is_dead(client) {
                return Some(RelayEnd::ClientRst);
            }
            self.upstream_fin_sent = true;
            if upstream.shutdown_write().is_err() {
                return Some(RelayEnd::UpstreamRst);
            }
        }
        if self.down.is_done() && !self.client_fin_sent {
            if !self.upstream_fin_sent && is_dead(upstream) {
                return Some(RelayEnd::UpstreamRst);
            }
            self.client_fin_sent = true;
            if client.shutdown_write().is_err() {
                return Some(RelayEnd::ClientRst);
            }
        }
        None
    }

    /// Whether the client's FIN waits: not for the answer to somebody who has left for good.
    fn holds_fin(&mut self) -> bool {
        if self.context.half_close == HalfClose::Propagate || self.down.at_eof() {
            return false;
        }
        let now = Instant::now();
        if self.next_client_check.is_some_and(|check| now < check) {
            return true;
        }
        // The very FIN of a close may be seen before the close is through.
        self.next_client_check =
            Some(now + if self.next_client_check.is_none() { TICK } else { CLIENT_CHECK_INTERVAL });
        !sys::peer_left(self.context.client)
    }

    /// Whether the FIN just read is that of a process being killed.
    fn upstream_is_killed(&self) -> bool {
        self.context.process.as_ref().is_some_and(|process| process.exiting())
    }

    /// Notices a reset of a socket nobody reads at the moment: its FIN was read, or its other side is
    /// full and a tick has passed.
    fn watch_for_resets(
        &self,
        cx: &mut Context<'_>,
        up: DirectionStop,
        down: DirectionStop,
    ) -> Option<RelayEnd> {
        if !self.quiet && !self.half_closed() {
            return None;
        }
        let client_free = up != DirectionStop::Dry && down != DirectionStop::Blocked;
        if client_free && !(self.up.at_eof() && self.client_fin_sent) {
            let reset = poll_reset(self.context.client, cx);
            return reset.then_some(RelayEnd::ClientRst);
        }
        let upstream_free = down != DirectionStop::Dry && up != DirectionStop::Blocked;
        if upstream_free && !(self.down.at_eof() && self.upstream_fin_sent) {
            let reset = poll_reset(self.context.upstream, cx);
            return reset.then_some(RelayEnd::UpstreamRst);
        }
        None
    }

    fn half_closed(&self) -> bool {
        self.up.at_eof() || self.down.at_eof()
    }

    fn silence_limit(&self) -> (Duration, RelayEnd) {
        match self.half_closed() {
            true => (self.context.settings.half_close_timeout, RelayEnd::HalfCloseIdle),
            false => (self.context.settings.idle, RelayEnd::Idle),
        }
    }

    /// When to look at the clock next.
    fn next_timer(&self) -> Instant {
        let limit = self.silence_limit().0;
        let busy = self.up.holds_bytes() || self.down.holds_bytes();
        let alarm = match busy && !self.quiet {
            true => self.last + limit.min(TICK),
            false => self.last + limit,
        };
        let check = self.next_client_check.filter(|_| !self.upstream_fin_sent);
        [check, self.inspection_over].into_iter().flatten().fold(alarm, Instant::min)
    }

    fn poll_silence(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
    ) -> Option<DriverEvent> {
        loop {
            let alarm = self.next_timer();
            if alarm < timer.deadline() {
                timer.as_mut().reset(alarm);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return None;
            }
            let silence = Instant::now() - self.last;
            let (limit, ended) = self.silence_limit();
            if silence >= limit {
                return Some(DriverEvent::End(ended));
            }
            let alarm = self.next_timer();
            if alarm > timer.deadline() {
                timer.as_mut().reset(alarm); // bytes moved meanwhile
            } else {
                if silence >= TICK {
                    self.quiet = true;
                    self.up.release_pipe();
                    self.down.release_pipe();
                }
                timer.as_mut().reset(self.next_timer());
                return Some(DriverEvent::Yield); // one more turn, to begin watching, or to look
            }
        }
    }

    /// The upstream was reset: what it sent before is delivered, within a bound.
    async fn deliver_last_bytes(&mut self) {
        let _late_bytes_are_counted_lost =
            tokio::time::timeout(LAST_BYTES_TIME, self.deliver_rest()).await;
    }

    async fn deliver_rest(&mut self) {
        loop {
            let turn =
                std::future::poll_fn(|cx| match self.down.pump_bytes(cx, &self.context.down()) {
                    DirectionStop::Blocked => Poll::Pending,
                    turn => Poll::Ready(turn),
                });
            match turn.await {
                DirectionStop::Spent => tokio::task::yield_now().await,
                DirectionStop::SinkBroken => return,
                _nothing_left => break,
            }
        }
        while sys::unacked(self.context.client).is_ok_and(|n| n > 0) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Ends both sockets as the end asks and draws the balance.
    fn finish_with(&self, ended: RelayEnd) -> RelaySummary {
        let (client, upstream) = (self.context.client, self.context.upstream);
        let refused = ended == RelayEnd::Refused;
        let reset = matches!(ended, RelayEnd::ClientRst | RelayEnd::UpstreamRst | RelayEnd::Cut(_));
        let late_up = close_sockets(
            upstream,
            reset || refused || self.up.backlog() > 0,
            self.upstream_fin_sent,
        );
        let late_down = match refused {
            true => 0,
            false => close_sockets(client, reset || self.down.backlog() > 0, self.client_fin_sent),
        };
        let backlog = self.up.backlog() + self.down.backlog();
        let lost = backlog as u64 + late_up + late_down;
        self.context.pipes.count_lost(lost);
        self.context.meter.take_back(late_up, late_down);
        RelaySummary {
            up: self.up.bytes_moved().saturating_sub(late_up),
            down: self.down.bytes_moved().saturating_sub(late_down),
            lost,
            ended,
        }
    }
}

/// Closes by reset or by FIN, which may be on its way already; returns the bytes a reset may throw away:
/// all that the peer has not acknowledged, for a sent segment may have been dropped too.
fn close_sockets(socket: &Stream, reset: bool, told: bool) -> u64 {
    if reset {
        socket.reset_on_close();
        return sys::unacked(socket).unwrap_or(0) as u64;
    }
    if !told {
        let _gone = socket.shutdown_write();
    }
    0
}

/// Whether a socket that read as ended was reset: splice out swallows the error when it has moved
/// something before, and the next read is a clean 0. A connection that got a mere FIN has a peer.
/// (A Unix socket always has: there the rest of what was to be sent tells.)
fn is_dead(socket: &Stream) -> bool {
    !socket.has_peer()
}

/// Which side a failed direction accuses.
fn first_broken(up: DirectionStop, down: DirectionStop) -> Option<RelayEnd> {
    match (up, down) {
        (DirectionStop::SourceBroken, _) | (_, DirectionStop::SinkBroken) => {
            Some(RelayEnd::ClientRst)
        }
        (DirectionStop::SinkBroken, _) | (_, DirectionStop::SourceBroken) => {
            Some(RelayEnd::UpstreamRst)
        }
        _ => None,
    }
}

/// Whether a socket nobody waits on was reset. Its write readiness is used up as the signal: who
/// writes to it tries first and does not rely on that flag.
fn poll_reset(socket: &Stream, cx: &mut Context<'_>) -> bool {
    loop {
        match socket.readiness().poll_write_ready(cx) {
            Poll::Pending => return false,
            Poll::Ready(Err(_)) => return true,
            // A reset closes both ways, and so do two FINs: no reset comes after those.
            Poll::Ready(Ok(guard)) if guard.ready().is_write_closed() => {
                return socket.take_error().is_err();
            }
            Poll::Ready(Ok(mut guard)) => guard.clear_ready(),
        }
    }
}
