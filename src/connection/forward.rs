//! HTTP forward: one client connection, one target, verdict and record per request.
//!
//! An upstream connection is kept for the next request to the same target; policy is asked again for each, about the
//! address that the connection leads to, too (docs/requirements.md, P26).
#![forbid(unsafe_code)]

use super::decision::{PermittedTarget, decide_target};
use super::open_upstream::open_upstream;
use super::read_request::{describe_forward, turn_away};
use super::tunnel::{Tunnel, outcome_of_relay};
use super::{ClientContext, Refusal};
use crate::inbound::http_forward::{
    ByteCounter, ExchangeSockets, ForwardExchange, ForwardRequest, ForwardSession,
};
use crate::inbound::{self, InboundFailure, ReplyProtocol};
use crate::labels::ResolvedBy;
use crate::lifecycle::drain::Phase;
use crate::outcome::Outcome;
use crate::policy::{self, AskedTarget};
use crate::record::{Stage, TargetRecord};
use crate::relay::{Meter, RelayEnd};
use crate::target::Target;
use crate::upstream::UpstreamConnection;

/// An upstream connection, and what it leads to.
struct RequestUpstream {
    /// The target as it was meant when the connection was opened: what a request means may change.
    effective_target: Target,
    /// How its address was found.
    resolved_by: Option<ResolvedBy>,
    connected: UpstreamConnection,
    /// It has carried a request before.
    is_reused: bool,
}

impl RequestUpstream {
    /// Neither closed nor speaking out of turn: a request with a body cannot be sent twice.
    fn is_reusable(&self) -> bool {
        let seen = self.connected.stream.try_peek(&mut [0]);
        seen.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// What one request left behind.
enum AfterRequest {
    /// The client may ask again, perhaps over the same upstream connection.
    Next(Option<RequestUpstream>),
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
        kept: Option<RequestUpstream>,
    ) -> AfterRequest {
        describe_forward(&mut record, &request);
        let opened = self.reuse_or_open(&mut record, &request.target, kept).await;
        let mut upstream = match opened {
            Ok(opened) => opened,
            Err(refusal) => return self.refuse_request(record, refusal).await,
        };
        loop {
            record.set_stage(Stage::Relay);
            let exchange = self.run_exchange(&record, session, &request, &upstream.connected).await;
            if !(exchange.stale && upstream.is_reused) {
                // A tunnel may follow, which need not keep the head.
                drop(request.head);
                return self.end_request(record, session, upstream, exchange).await;
            }
            // The kept connection had been closed meanwhile and nothing was answered: once more.
            upstream = match self.reuse_or_open(&mut record, &request.target, None).await {
                Ok(opened) => opened,
                Err(refusal) => return self.refuse_request(record, refusal).await,
            };
        }
    }

    /// The kept connection when it leads where this request may go, else a new one. Each request is decided about
    /// anew, and so is the address that a kept connection leads to.
    async fn reuse_or_open(
        &self,
        record: &mut TargetRecord,
        target: &Target,
        kept: Option<RequestUpstream>,
    ) -> Result<RequestUpstream, Refusal> {
        let asked = AskedTarget { target, client: None, named: None };
        let permitted = decide_target(self, record, asked).await?;
        if let Some(kept) = kept.filter(|kept| self.may_reuse(kept, &permitted)) {
            let address = kept.connected.address;
            record.set_upstream(self.gateway_state.upstream_kind);
            if let Some(by) = kept.resolved_by {
                record.set_resolved(by, address);
            }
            record.set_route(self.gateway_state.route_to(address));
            record.mark_connected();
            tracing::debug!(
                address = address.map(tracing::field::display),
                "upstream connection reused"
            );
            return Ok(RequestUpstream { is_reused: true, ..kept });
        }
        let effective_target = permitted.admitted.get().clone();
        let connected = open_upstream(self, record, permitted).await?;
        let resolved_by = record.resolved_by();
        Ok(RequestUpstream { effective_target, resolved_by, connected, is_reused: false })
    }

    /// Whether a kept connection leads to the very target that is permitted now, by an address that may be dialled
    /// now, while the tailnet carries anything at all. Where it does not, a new one is tried, which says why.
    fn may_reuse(&self, kept: &RequestUpstream, permitted: &PermittedTarget) -> bool {
        let tailnet_gate = self.gateway_state.tailnet_gate.as_ref();
        let carries = tailnet_gate.is_none_or(|tailnet_gate| tailnet_gate.now().is_running());
        if !carries || self.over_limit || kept.effective_target != *permitted.admitted.get() {
            return false;
        }
        let may_be_dialled = kept.connected.address.is_none_or(|address| {
            let snapshot = self.gateway_state.decision_snapshot();
            let context = snapshot.decision_context();
            policy::decide_address(&permitted.admitted, address.ip(), &context).permission.is_ok()
        });
        may_be_dialled && kept.is_reusable()
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
        mut upstream: RequestUpstream,
        exchange: ForwardExchange,
    ) -> AfterRequest {
        if let Some((early_up, early_down)) = exchange.upgraded {
            upstream.connected.early = early_down;
            return AfterRequest::End(Some(Tunnel::new(
                record,
                upstream.connected,
                early_up,
                None,
            )));
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
        upstream.connected.early.clear();
        AfterRequest::Next(exchange.upstream_reusable.then_some(upstream))
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
