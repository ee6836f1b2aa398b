//! HTTP forward: one client connection, one target, verdict and record per request.
//!
//! An upstream connection is kept for the next request to the same target; policy is asked again
//! for each (P26).
#![forbid(unsafe_code)]

use super::open_upstream::{Ask, admit, effective_target, open_upstream};
use super::tunnel::Tunnel;
use super::{GatewayState, Refusal};
use crate::inbound::http_forward::{
    ByteCounter, Exchange, ExchangeSockets, ForwardRequest, Session,
};
use crate::inbound::{self, Failed, Reply};
use crate::labels::{ErrorDetail, HostFrom};
use crate::lifecycle::drain::{Guard, Phase};
use crate::outcome::Outcome;
use crate::record::{Connection, Record, Stage};
use crate::relay::Meter;
use crate::sys::Stream;
use crate::target::Target;
use crate::upstream::Connected;

/// An upstream connection between two requests.
struct IdleUpstream {
    target: Target,
    connected: Connected,
}

impl IdleUpstream {
    /// Neither closed nor speaking out of turn: a request with a body cannot be sent twice.
    fn rests(&self) -> bool {
        let seen = self.connected.stream.try_peek(&mut [0]);
        seen.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// What one request left behind.
enum AfterRequest {
    /// The client may ask again, perhaps over the same upstream connection.
    Next(Option<IdleUpstream>),
    /// Nothing more comes on this connection.
    End,
}

/// Serves request after request until one side has had enough.
pub(super) async fn serve(
    gateway_state: &GatewayState,
    client: &Stream,
    connection: &mut Connection,
    mut session: Session,
    full: bool,
    drain: &Guard,
) {
    let mut kept = None;
    loop {
        let request = match next(gateway_state, client, &mut session, drain).await {
            NextStep::Request(request) => *request,
            NextStep::Closed => return,
            NextStep::Bad(failed) => return super::turn_away(client, connection, failed).await,
        };
        let line = ForwardContext { gateway_state, client, full, drain };
        match line.request(connection.record(), &mut session, request, kept.take()).await {
            AfterRequest::Next(idle) => kept = idle,
            AfterRequest::End => return,
        }
        if drain.phase() >= Phase::Draining {
            return;
        }
    }
}

enum NextStep {
    Request(Box<ForwardRequest>),
    Closed,
    Bad(Failed),
}

/// The next request head: an idle connection ends with the drain, a started head is heard out.
async fn next(
    gateway_state: &GatewayState,
    client: &Stream,
    session: &mut Session,
    drain: &Guard,
) -> NextStep {
    let (idle, head, max_head) = {
        let limits = gateway_state.limits.load();
        (limits.keepalive_idle, limits.head_timeout, limits.max_head)
    };
    if !session.started() {
        let begun = tokio::select! {
            biased;
            begun = session.begin(client, idle) => begun,
            () = drain.reached(Phase::Draining) => false,
        };
        if !begun {
            return NextStep::Closed;
        }
    }
    tokio::select! {
        biased;
        read = session.next(client, head, max_head) => match read {
            Ok(request) => NextStep::Request(Box::new(request)),
            Err(failed) => NextStep::Bad(failed),
        },
        () = drain.reached(Phase::Forced) => NextStep::Closed,
    }
}

/// The record's meter, as the exchange counts.
struct MeteredCounter<'a>(&'a Meter);

impl ByteCounter for MeteredCounter<'_> {
    fn up(&self, bytes: u64) {
        self.0.add_up(bytes);
    }

    fn down(&self, bytes: u64) {
        self.0.add_down(bytes);
    }
}

/// What every request of one client connection shares.
struct ForwardContext<'a> {
    gateway_state: &'a GatewayState,
    client: &'a Stream,
    full: bool,
    drain: &'a Guard,
}

impl ForwardContext<'_> {
    async fn request(
        &self,
        mut record: Record,
        session: &mut Session,
        request: ForwardRequest,
        kept: Option<IdleUpstream>,
    ) -> AfterRequest {
        describe(&mut record, &request);
        let (mut connected, mut reused) = match self.way(&mut record, &request.target, kept).await {
            Ok(way) => way,
            Err(refusal) => return self.refuse(record, refusal).await,
        };
        loop {
            record.stage(Stage::Relay);
            let exchange = self.exchange(&record, session, &request, &connected).await;
            if !(exchange.stale && reused) {
                // A tunnel may follow, which need not keep the head.
                let ForwardRequest { target, head, .. } = request;
                drop(head);
                return self.end(record, session, target, connected, exchange).await;
            }
            // The kept connection had been closed meanwhile and nothing was answered: once more.
            reused = false;
            connected = match self.fresh(&mut record, &request.target).await {
                Ok(connected) => connected,
                Err(refusal) => return self.refuse(record, refusal).await,
            };
        }
    }

    /// The kept connection when it leads to this target, else a new one. Policy first, always.
    async fn way(
        &self,
        record: &mut Record,
        target: &Target,
        kept: Option<IdleUpstream>,
    ) -> Result<(Connected, bool), Refusal> {
        match kept {
            Some(kept) if kept.target == *target && !self.full && kept.rests() => {
                let target = effective_target(self.gateway_state, record, target);
                admit(self.gateway_state, record, &target)?;
                record.upstream(self.gateway_state.upstream_kind);
                record.route(self.gateway_state.route_to(kept.connected.address));
                record.connected();
                Ok((kept.connected, true))
            }
            _ => Ok((self.fresh(record, target).await?, false)),
        }
    }

    async fn fresh(&self, record: &mut Record, target: &Target) -> Result<Connected, Refusal> {
        // A request's body may follow at once: its client's FIN is no good-bye.
        let ask = Ask { target, early: true, full: self.full, drain: self.drain };
        open_upstream(self.gateway_state, self.client, record, ask).await
    }

    async fn exchange(
        &self,
        record: &Record,
        session: &mut Session,
        request: &ForwardRequest,
        connected: &Connected,
    ) -> Exchange {
        let limits = self.gateway_state.limits.load_full();
        let (idle, process) = (limits.relay.idle, limits.relay.upstream_process.load_full());
        let upstream_process = process.as_deref();
        let way = ExchangeSockets {
            client: self.client,
            upstream: &connected.stream,
            idle,
            max_head: limits.max_head,
            upstream_process,
        };
        let early = connected.early.clone();
        let live = record.live();
        let counts = MeteredCounter(live.meter());
        let exchange = session.exchange(way, early, request, &counts);
        tokio::select! {
            biased;
            exchange = Box::pin(exchange) => exchange,
            reason = live.cut().wait() => {
                self.client.reset_on_close();
                connected.stream.reset_on_close();
                Exchange::ended(super::ending(crate::relay::Ended::Cut(reason)))
            }
        }
    }

    async fn end(
        &self,
        record: Record,
        session: &mut Session,
        target: Target,
        mut connected: Connected,
        exchange: Exchange,
    ) -> AfterRequest {
        if let Some((early_up, early_down)) = exchange.upgraded {
            connected.early = early_down;
            let tunnel = Tunnel::new(record, connected, early_up, None);
            Box::pin(super::splice(self.gateway_state, self.client, tunnel)).await;
            return AfterRequest::End;
        }
        match &exchange.message {
            Some(message) => self.say(record, exchange.outcome, message).await,
            None => record.finish(exchange.outcome),
        }
        if !exchange.client_reusable {
            // Only a whole answer ends politely: after a FIN half a one would look whole.
            if exchange.outcome == Outcome::Ok {
                session.close(self.client).await;
            }
            return AfterRequest::End;
        }
        // They were the beginning of this answer, and are not that of the next.
        connected.early.clear();
        AfterRequest::Next(exchange.upstream_reusable.then_some(IdleUpstream { target, connected }))
    }

    async fn refuse(&self, mut record: Record, refusal: Refusal) -> AfterRequest {
        if refusal.outcome == Outcome::ClientGone {
            record.stage(Stage::Reply);
            record.finish(refusal.outcome);
        } else {
            self.say(record, refusal.outcome, &refusal.message).await;
        }
        AfterRequest::End
    }

    /// The last words. The line is written before them, so that no client can hold it up.
    async fn say(&self, mut record: Record, outcome: Outcome, message: &str) {
        record.stage(Stage::Reply);
        let said = Reply::Http.failure(outcome, message, record.id());
        record.finish(outcome);
        inbound::reply::say_and_close(self.client, &said).await;
    }
}

fn describe(record: &mut Record, request: &ForwardRequest) {
    record.target(&request.target, HostFrom::Client);
    if let Some(label) = &request.label {
        record.label(label.as_str());
    }
    if request.host_mismatch {
        record.error_word(ErrorDetail::HostMismatch);
    }
}
