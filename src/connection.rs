//! What happens to one connection, top to bottom: read this file first.
//!
//! `serve` names the steps in their order: what the client wants is read, its target decided about, an upstream
//! opened, the client answered, bytes relayed and one line written. The modules do the work; the files below carry
//! values between them and decide nothing that a module could decide. `docs/architecture.md` lists the files that one
//! connection passes.
#![forbid(unsafe_code)]

mod decision;
mod dns_responder;
mod forward;
mod names_behind_addresses;
mod open_upstream;
mod read_request;
mod refusal;
mod sni_inspector;
mod tailnet_gate;
mod transparent;
mod tunnel;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::io::Interest;
use tracing::Instrument as _;

use self::decision::decide_target;
use self::open_upstream::open_upstream;
use self::read_request::{ClientRequest, ImplicitTarget, read_request};
use self::sni_inspector::SniInspector;
use self::tunnel::{Tunnel, relay_tunnel, reply_success};
use crate::dns::DnsResolver;
use crate::inbound::{self, ReplyProtocol};
use crate::labels::{Route, UpstreamKind};
use crate::lifecycle::drain::Guard;
use crate::listener::{Accepted, Permit};
use crate::outcome::Outcome;
use crate::policy::{LocalAddresses, Policy};
use crate::record::{ConnectionRecord, Stage, TargetRecord, Telemetry};
use crate::relay::{self, HalfClose, PipePool};
use crate::sys::Stream;
use crate::upstream::Upstream;

pub use self::dns_responder::DnsResponder;
pub use self::names_behind_addresses::{DnsAnswerMap, SyntheticAddresses};
pub use self::refusal::Refusal;
pub(crate) use self::refusal::{fault_of_name, fault_of_refusal};
pub use self::tailnet_gate::{HalfClosePolicy, TailnetGate};

/// What every connection shares. Parts that a reload changes are swapped whole.
pub struct GatewayState {
    /// Log, metrics and the table of live connections.
    pub telemetry: Arc<Telemetry>,
    /// The rules in force.
    pub policy: ArcSwap<Policy>,
    /// What belongs to this host; refreshed while the gateway runs.
    pub local_addresses: ArcSwap<LocalAddresses>,
    /// Who says where a name is.
    pub resolver: ArcSwap<DnsResolver>,
    /// The way out of this gateway.
    pub upstream: Arc<Upstream>,
    /// `upstream.kind`, for the log.
    pub upstream_kind: UpstreamKind,
    /// The route where it is always the same, as with kind `direct`.
    pub fixed_route: Option<Route>,
    /// Addresses that our DNS server gave lately, and for which names.
    pub dns_answers: DnsAnswerMap,
    /// Addresses that stand for names (`dns.synthetic`), where that is set.
    pub synthetic_addresses: ArcSwapOption<SyntheticAddresses>,
    /// What is known of the tailnet, with the kinds that lead into one.
    pub tailnet_gate: Option<TailnetGate>,
    /// What becomes of a client's FIN.
    pub half_close: HalfClosePolicy,
    /// Pipes for splicing, shared by all relays.
    pub pipes: Arc<PipePool>,
    /// Deadlines and sizes that the settings give every connection.
    pub limits: ArcSwap<ConnectionLimits>,
}

/// Deadlines and sizes of a connection.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// For one whole request head.
    pub head_timeout: Duration,
    /// Most bytes of a request's or an answer's head.
    pub max_head: usize,
    /// Between requests of an HTTP forward connection.
    pub keepalive_idle: Duration,
    /// Silence after which a redirected client is taken to wait for the server.
    pub server_first: Duration,
    /// What the relay needs to know.
    pub relay: relay::RelaySettings,
}

impl GatewayState {
    /// What a client's FIN does now: a tailscaled that is new enough keeps half-closed connections.
    fn half_close(&self) -> HalfClose {
        let state = self.tailnet_gate.as_ref().map(TailnetGate::now);
        self.half_close.half_close_for(state.as_ref().and_then(|state| state.version.as_ref()))
    }
}

/// One client connection, as every step of its way needs it.
struct ClientContext<'a> {
    gateway_state: &'a GatewayState,
    stream: &'a Stream,
    connection: &'a mut ConnectionRecord,
    /// It is over a limit, and is told so once it has said what it wants.
    over_limit: bool,
    /// It has sent bytes for the far side already: its FIN is then a half-close.
    sent_early: bool,
    drain: &'a Guard,
}

/// Serves one client in a task of its own. Where the log wants it, what is said of the connection is said in a span
/// that carries the id of its access line; where not, nothing is kept for it.
pub fn spawn_connection(gateway_state: Arc<GatewayState>, accepted: Accepted, drain: Guard) {
    let server = accepted.original_dst.unwrap_or(accepted.local);
    let connection = gateway_state.telemetry.begin_connection(accepted.peer, server);
    let span = tracing::debug_span!("connection", id = %connection.id());
    span.in_scope(|| {
        let Accepted { peer, local, original_dst, .. } = &accepted;
        let original_dst = original_dst.map(tracing::field::display);
        tracing::debug!(client = %peer, listener = %local, original_dst, "accepted");
    });
    let serving = serve(gateway_state, accepted, connection, drain);
    // A panic ends this task only: the record's guard writes its line on the way out.
    drop(match span.is_disabled() {
        true => tokio::spawn(serving),
        false => tokio::spawn(serving.instrument(span)),
    });
}

/// Serves one client from accept to end.
fn serve(
    gateway_state: Arc<GatewayState>,
    accepted: Accepted,
    mut connection: ConnectionRecord,
    drain: Guard,
) -> impl Future<Output = ()> + Send {
    // Taken apart before the future is made: that would keep the whole of it beside its parts.
    let Accepted { stream, original_dst, leads_to, permit, .. } = accepted;
    let implicit = ImplicitTarget::new(leads_to, original_dst).map(Box::new);
    async move {
        if permit.may_answer() {
            let client = ClientContext {
                gateway_state: &gateway_state,
                stream: &stream,
                connection: &mut connection,
                over_limit: matches!(permit, Permit::Reject(_)),
                sent_early: false,
                drain: &drain,
            };
            // Boxed, as all that is over when bytes flow: an idle connection keeps what it needs then.
            if let Some(tunnel) = Box::pin(open_tunnel(client, implicit)).await {
                Box::pin(relay_tunnel(&gateway_state, &stream, tunnel)).await;
            }
        } else {
            connection.begin_target().finish(Outcome::Overloaded);
        }
        tracing::debug!("closed");
        drop((connection, stream, permit)); // its place is free when its socket is
    }
}

/// From what the client wants to an open tunnel, if it wants one and gets it.
async fn open_tunnel(
    mut client: ClientContext<'_>,
    implicit: Option<Box<ImplicitTarget>>,
) -> Option<Box<Tunnel>> {
    let (mut record, request) = match read_request(&mut client, implicit).await? {
        ClientRequest::Tunnel(record, request) => (record, request),
        ClientRequest::Forward(session) => {
            return Box::pin(forward::serve_requests(&mut client, *session)).await;
        }
    };
    let opened = async {
        let permitted = decide_target(&client, &mut record, request.asked_target()).await?;
        let inspector =
            SniInspector::inspect_early(client.gateway_state, &mut record, &request, &permitted)?;
        let connected = open_upstream(&client, &mut record, permitted).await?;
        Ok((connected, inspector))
    };
    match opened.await {
        Ok((connected, inspector)) => {
            reply_success(client.stream, record, request, connected, inspector).await
        }
        Err(refusal) => {
            refuse_client(client.stream, record, request.reply, refusal).await;
            None
        }
    }
}

/// Says no in the client's own protocol, and ends the record.
async fn refuse_client(
    stream: &Stream,
    mut record: TargetRecord,
    reply: ReplyProtocol,
    refusal: Refusal,
) {
    record.set_stage(Stage::Reply);
    let said = reply.failure_bytes(refusal.outcome, &refusal.message, record.id());
    tracing::debug!(outcome = refusal.outcome.label(), why = refusal.message, "refused");
    record.finish(refusal.outcome);
    if reply == ReplyProtocol::Opaque || refusal.outcome == Outcome::SniMismatch {
        stream.reset_on_close();
    } else if refusal.outcome != Outcome::ClientGone {
        Box::pin(inbound::reply::say_and_close(stream, &said)).await;
    }
}

impl ClientContext<'_> {
    /// Ends when the client is gone while its far side is being found: a reset, or a FIN from a client that never sent
    /// a byte for the far side. It takes no byte from the client: what that sends early stays in its socket.
    async fn wait_until_gone(&self) {
        if !self.sent_early && silent_until_gone(self.stream).await {
            return;
        }
        // Data lies unread (back-pressure, P20) or was sent early: only a reset tells now.
        if self.stream.readiness().ready(Interest::ERROR).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// True when the client left in silence, false when it sent a byte.
async fn silent_until_gone(client: &Stream) -> bool {
    loop {
        let Ok(mut guard) = client.readiness().readable().await else {
            return true;
        };
        match client.try_peek(&mut [0]) {
            Ok(0) => return true,
            Ok(_) => return false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function with these arguments returns.
    fn size<A, B, C, F: Future>(_function: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// The same of a function with one argument more.
    fn size_of_four<A, B, C, D, F: Future>(_function: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// A connection's task lives as long as the connection, idle or not, and so does the relay it holds
    /// boxed: this is what they keep.
    #[test]
    fn the_task_of_a_connection_stays_small() {
        let sizes = [("task", size_of_four(serve), 144), ("relay", size(relay_tunnel), 736)];
        for (what, size, most) in sizes {
            assert!(
                size <= most,
                "{what}: {size} bytes, at most {most}: box what is used for a moment"
            );
        }
    }
}
