//! HTTP forward: one client connection, one target, verdict and record per request.
//!
//! An upstream connection is kept for the next request to the same target; policy is asked again
//! for each (P26).
#![forbid(unsafe_code)]

use super::decision::decide_target;
use super::open_upstream::open_upstream;
use super::read_request::{describe_forward, turn_away};
use super::tunnel::{Tunnel, outcome_of_relay};
use super::{ClientContext, Refusal};
use crate::inbound::http_forward::{
    ByteCounter, ExchangeSockets, ForwardExchange, ForwardRequest, ForwardSession,
};
use crate::inbound::{self, InboundFailure, ReplyProtocol};
use crate::lifecycle::drain::Phase;
use crate::outcome::Outcome;
use crate::policy::AskedTarget;
use crate::record::{Stage, TargetRecord};
use crate::relay::{Meter, RelayEnd};
use crate::target::Target;
use crate::upstream::UpstreamConnection;

/// An upstream connection between two requests.
struct IdleUpstream {
    target: Target,
    connected: UpstreamConnection,
}

impl IdleUpstream {
    /// Neither closed nor speaking out of turn: a request with a body cannot be sent twice.
    fn is_reusable(&self) -> bool {
        let seen = self.connected.stream.try_peek(&mut [0]);
        seen.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// What one request left behind.
enum AfterRequest {
    /// The client may ask again, perhaps over the same upstream connection.
    Next(Option<IdleUpstream>),
    /// Nothing more comes on this connection but what a tunnel carries, if the request was upgraded to one.
    End(Option<Box<Tunnel>>),
}

/// Serves request after request until one side has had enough, or a request becomes a tunnel.
pub(super) async fn serve_requests(
    client: &mut ClientContext<'_>,
    mut session: ForwardSession,
) -> Option<Box<Tunnel>> {
    // A request's body may follow at once: its client's FIN is no good-bye.
    client.sent_early = true;
    let mut kept = None;
    loop {
        let request = match next_request(client, &mut session).await {
            NextRequest::Request(request) => *request,
            NextRequest::Closed => return None,
            NextRequest::Bad(failed) => {
                turn_away(client.stream, client.connection, failed).await;
                return None;
            }
        };
        let record = client.connection.begin_target();
        match client.serve_request(record, &mut session, request, kept.take()).await {
            AfterRequest::Next(idle) => kept = idle,
            AfterRequest::End(tunnel) => return tunnel,
        }
        if client.drain.phase() >= Phase::Draining {
            return None;
        }
    }
}

enum NextRequest {
    Request(Box<ForwardRequest>),
    Closed,
    Bad(InboundFailure),
}

/// The next request head: an idle connection ends with the drain, a started head is heard out.
async fn next_request(client: &ClientContext<'_>, session: &mut ForwardSession) -> NextRequest {
    let (idle, head, max_head) = {
        let limits = client.gateway_state.limits.load();
        (limits.keepalive_idle, limits.head_timeout, limits.max_head)
    };
    if !session.has_request_bytes() {
        let begun = tokio::select! {
            biased;
            begun = session.wait_for_request(client.stream, idle) => begun,
            () = client.drain.reached(Phase::Draining) => false,
        };
        if !begun {
            return NextRequest::Closed;
        }
    }
    tokio::select! {
        biased;
        read = session.read_request(client.stream, head, max_head) => match read {
            Ok(request) => NextRequest::Request(Box::new(request)),
            Err(failed) => NextRequest::Bad(failed),
        },
        () = client.drain.reached(Phase::Forced) => NextRequest::Closed,
    }
}

/// The record's meter, as the exchange counts.
struct MeteredCounter<'a>(&'a Meter);

impl ByteCounter for MeteredCounter<'_> {
    fn count_up(&self, bytes: u64) {
        self.0.add_up(bytes);
    }

    fn count_down(&self, bytes: u64) {
        self.0.add_down(bytes);
    }
}

impl ClientContext<'_> {
    async fn serve_request(
        &self,
        mut record: TargetRecord,
        session: &mut ForwardSession,
        request: ForwardRequest,
        kept: Option<IdleUpstream>,
    ) -> AfterRequest {
        describe_forward(&mut record, &request);
        let opened = self.reuse_or_open(&mut record, &request.target, kept).await;
        let (mut connected, mut reused) = match opened {
            Ok(opened) => opened,
            Err(refusal) => return self.refuse_request(record, refusal).await,
        };
        loop {
            record.set_stage(Stage::Relay);
            let exchange = self.run_exchange(&record, session, &request, &connected).await;
            if !(exchange.stale && reused) {
                // A tunnel may follow, which need not keep the head.
                let ForwardRequest { target, head, .. } = request;
                drop(head);
                return self.end_request(record, session, target, connected, exchange).await;
            }
            // The kept connection had been closed meanwhile and nothing was answered: once more.
            reused = false;
            connected = match self.reuse_or_open(&mut record, &request.target, None).await {
                Ok((connected, _)) => connected,
                Err(refusal) => return self.refuse_request(record, refusal).await,
            };
        }
    }

    /// The kept connection when it leads to this target, else a new one, and whether it was kept. Each request is
    /// decided about anew.
    async fn reuse_or_open(
        &self,
        record: &mut TargetRecord,
        target: &Target,
        kept: Option<IdleUpstream>,
    ) -> Result<(UpstreamConnection, bool), Refusal> {
        let asked = AskedTarget { target, client: None, named: None };
        let permitted = decide_target(self, record, asked).await?;
        match kept {
            Some(kept) if kept.target == *target && !self.over_limit && kept.is_reusable() => {
                record.set_upstream(self.gateway_state.upstream_kind);
                record.set_route(self.gateway_state.route_to(kept.connected.address));
                record.mark_connected();
                let address = kept.connected.address.map(tracing::field::display);
                tracing::debug!(address, "upstream connection reused");
                Ok((kept.connected, true))
            }
            _ => Ok((open_upstream(self, record, permitted).await?, false)),
        }
    }

    async fn run_exchange(
        &self,
        record: &TargetRecord,
        session: &mut ForwardSession,
        request: &ForwardRequest,
        connected: &UpstreamConnection,
    ) -> ForwardExchange {
        let limits = self.gateway_state.limits.load_full();
        let (idle, process) = (limits.relay.idle, limits.relay.upstream_process.load_full());
        let upstream_process = process.as_deref();
        let way = ExchangeSockets {
            client: self.stream,
            upstream: &connected.stream,
            idle,
            max_head: limits.max_head,
            upstream_process,
        };
        let early = connected.early.clone();
        let live = record.live_connection();
        let counts = MeteredCounter(live.meter());
        let exchange = session.carry_exchange(way, early, request, &counts);
        tokio::select! {
            biased;
            exchange = Box::pin(exchange) => exchange,
            reason = live.cut().wait() => {
                self.stream.reset_on_close();
                connected.stream.reset_on_close();
                ForwardExchange::closing(outcome_of_relay(RelayEnd::Cut(reason)))
            }
        }
    }

    async fn end_request(
        &self,
        record: TargetRecord,
        session: &mut ForwardSession,
        target: Target,
        mut connected: UpstreamConnection,
        exchange: ForwardExchange,
    ) -> AfterRequest {
        if let Some((early_up, early_down)) = exchange.upgraded {
            connected.early = early_down;
            return AfterRequest::End(Some(Tunnel::new(record, connected, early_up, None)));
        }
        match &exchange.message {
            Some(message) => self.say_and_finish(record, exchange.outcome, message).await,
            None => record.finish(exchange.outcome),
        }
        if !exchange.client_reusable {
            // Only a whole answer ends politely: after a FIN half a one would look whole.
            if exchange.outcome == Outcome::Ok {
                session.close_client(self.stream).await;
            }
            return AfterRequest::End(None);
        }
        // They were the beginning of this answer, and are not that of the next.
        connected.early.clear();
        AfterRequest::Next(exchange.upstream_reusable.then_some(IdleUpstream { target, connected }))
    }

    async fn refuse_request(&self, mut record: TargetRecord, refusal: Refusal) -> AfterRequest {
        if refusal.outcome == Outcome::ClientGone {
            record.set_stage(Stage::Reply);
            record.finish(refusal.outcome);
        } else {
            self.say_and_finish(record, refusal.outcome, &refusal.message).await;
        }
        AfterRequest::End(None)
    }

    /// The last words. The line is written before them, so that no client can hold it up.
    async fn say_and_finish(&self, mut record: TargetRecord, outcome: Outcome, message: &str) {
        record.set_stage(Stage::Reply);
        let said = ReplyProtocol::Http.failure_bytes(outcome, message, record.id());
        record.finish(outcome);
        inbound::reply::say_and_close(self.stream, &said).await;
    }
}
