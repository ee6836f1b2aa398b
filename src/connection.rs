//! What happens to one connection, top to bottom: read this file first.
//!
//! [`serve`] walks a client from accept to its last line in the log; `carry.rs` takes one target
//! from policy to an open way out. Rooms do the work, this file carries values between them and
//! decides nothing that a module could decide.
#![forbid(unsafe_code)]

mod dns_answer_map;
mod dns_responder;
mod first_head;
mod forward;
mod open_upstream;
mod refusal;
mod sni_inspector;
mod synthetic_addresses;
mod tailnet_gate;
mod transparent;
mod tunnel;
mod watch_client;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};

use self::first_head::{read_head, turn_away};
use self::open_upstream::permit;
use self::sni_inspector::RelayInspector;
use self::transparent::transparent;
use self::tunnel::{Caller, Early, Tunnel};
use crate::dns::DnsResolver;
use crate::inbound::{self, Kind, Read, Reply, Request};
use crate::labels::{ErrorDetail, HostFrom, Route, UpstreamKind};
use crate::lifecycle::drain::Guard;
use crate::listener::{Accepted, Permit};
use crate::outcome::Outcome;
use crate::policy::{LocalAddresses, Policy};
use crate::record::{Connection, Record, Stage, Telemetry};
use crate::relay::{self, Ended, HalfClose, PipePool};
use crate::sys::Stream;
use crate::target::{Host, Target};
use crate::upstream::Upstream;

pub use self::dns_answer_map::DnsAnswerMap;
pub use self::dns_responder::DnsResponder;
pub use self::refusal::Refusal;
pub(crate) use self::refusal::fault_of_name;
pub use self::synthetic_addresses::SyntheticAddresses;
pub use self::tailnet_gate::{HalfClosePolicy, TailnetGate};

/// What every connection shares. Parts that a reload changes are swapped whole.
pub struct GatewayState {
    /// Log, metrics, live table.
    pub telemetry: Arc<Telemetry>,
    /// The rules.
    pub policy: ArcSwap<Policy>,
    /// What belongs to this host; refreshed while the gateway runs.
    pub own: ArcSwap<LocalAddresses>,
    /// The resolver.
    pub names: ArcSwap<DnsResolver>,
    /// The way out.
    pub upstream: Arc<Upstream>,
    /// `upstream.kind`, for the log.
    pub upstream_kind: UpstreamKind,
    /// The `route` of the log where it is always the same: `direct`, or none with `socks5`.
    pub route: Option<Route>,
    /// Addresses our DNS server gave lately.
    pub dns_answers: DnsAnswerMap,
    /// Addresses it lends to names, where that is set.
    pub synthetic: ArcSwapOption<SyntheticAddresses>,
    /// What is known of the tailnet, with the kinds that lead into one.
    pub tailnet_gate: Option<TailnetGate>,
    /// What a client's FIN does.
    pub half_close: HalfClosePolicy,
    /// Pipes for splicing.
    pub pipes: Arc<PipePool>,
    /// Deadlines.
    pub limits: ArcSwap<Limits>,
}

/// The deadlines of a connection.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For one whole request head.
    pub head_timeout: Duration,
    /// Most bytes of a request's or an answer's head.
    pub max_head: usize,
    /// Between requests of an HTTP forward connection.
    pub keepalive_idle: Duration,
    /// Silence after which a redirected client is taken to wait for the server.
    pub server_first: Duration,
    /// What the relay needs to know.
    pub relay: relay::Settings,
}

impl GatewayState {
    /// What a client's FIN does now: a tailscaled that is new enough keeps half-closed connections.
    fn half_close(&self) -> HalfClose {
        let state = self.tailnet_gate.as_ref().map(TailnetGate::now);
        self.half_close.with(state.as_ref().and_then(|state| state.version.as_ref()))
    }

    /// The `route` of the log.
    fn route_to(&self, address: Option<SocketAddr>) -> Option<Route> {
        let tailnet_gate = self.tailnet_gate.as_ref().zip(address);
        self.route.or_else(|| {
            tailnet_gate.map(|(tailnet_gate, address)| tailnet_gate.route(address.ip()))
        })
    }

    /// The target as it is judged and written down: a bare name that the tailnet has is made whole
    /// (B21).
    pub(crate) fn qualified(&self, target: Target) -> Target {
        let whole = target.host.name().and_then(|name| self.names.load().qualify(name));
        match whole {
            Some(name) => Target { host: Host::Name(name), port: target.port },
            None => target,
        }
    }
}

/// Serves one client from accept to end.
pub fn serve(
    gateway_state: Arc<GatewayState>,
    accepted: Accepted,
    drain: Guard,
) -> impl Future<Output = ()> + Send {
    // Taken apart before the future is made: that would keep the whole of it beside its parts.
    let Accepted { stream, peer, local, original_dst, leads_to, permit } = accepted;
    let mut connection = gateway_state.telemetry.connection(peer, original_dst.unwrap_or(local));
    let implicit = ImplicitTarget::by(leads_to, original_dst).map(Box::new);
    async move {
        if permit.may_answer() {
            let full = matches!(permit, Permit::Reject(_));
            // Boxed, as all that is over when bytes flow: an idle connection keeps what it needs then.
            let way =
                Box::pin(way(&gateway_state, &stream, &mut connection, implicit, full, &drain))
                    .await;
            if let Some(tunnel) = way {
                Box::pin(splice(&gateway_state, &stream, tunnel)).await;
            }
        } else {
            connection.record().finish(Outcome::Overloaded);
        }
        drop((connection, stream, permit)); // its place is free when its socket is
    }
}

/// What stands for the target of a client that need not say it.
enum ImplicitTarget {
    /// The listener: a static forward.
    Listener(Arc<Target>),
    /// netfilter: where it was going.
    Redirected(SocketAddr),
}

impl ImplicitTarget {
    fn by(listener: Option<Arc<Target>>, original_dst: Option<SocketAddr>) -> Option<Self> {
        listener.map(Self::Listener).or(original_dst.map(Self::Redirected))
    }
}

/// Steps 1 to 5: from what the client wants to an open tunnel, if it wants one and gets it.
async fn way(
    gateway_state: &GatewayState,
    stream: &Stream,
    connection: &mut Connection,
    implicit: Option<Box<ImplicitTarget>>,
    full: bool,
    drain: &Guard,
) -> Option<Box<Tunnel>> {
    match implicit.map(|implicit| *implicit) {
        Some(ImplicitTarget::Listener(target)) => {
            let request = Request::unspoken(Target::clone(&target));
            tunnel(gateway_state, stream, connection, request, full, drain).await
        }
        Some(ImplicitTarget::Redirected(to)) => {
            transparent(gateway_state, stream, connection, to, full, drain).await
        }
        None => asked(gateway_state, stream, connection, full, drain).await,
    }
}

/// A client that says what it wants: SOCKS and CONNECT want a tunnel, forward requests are served here.
async fn asked(
    gateway_state: &GatewayState,
    stream: &Stream,
    connection: &mut Connection,
    full: bool,
    drain: &Guard,
) -> Option<Box<Tunnel>> {
    match read_head(gateway_state, stream, full, drain).await {
        Ok(Read::Tunnel(request)) => {
            return tunnel(gateway_state, stream, connection, *request, full, drain).await;
        }
        Ok(Read::Forward(session)) => {
            connection.set_inbound(Kind::Http);
            Box::pin(forward::serve(gateway_state, stream, connection, *session, full, drain))
                .await;
        }
        Err(failed) => Box::pin(turn_away(stream, connection, failed)).await,
    }
    None
}

/// SOCKS, CONNECT and static forwards: one target.
async fn tunnel(
    gateway_state: &GatewayState,
    stream: &Stream,
    connection: &mut Connection,
    request: Request,
    full: bool,
    drain: &Guard,
) -> Option<Box<Tunnel>> {
    connection.set_inbound(request.kind);
    let mut record = connection.record();
    describe(&mut record, &request);
    let Request { kind, target, early, reply, .. } = request;
    let caller = Caller { gateway_state, stream, kind, reply, early, heard: false, full, drain };
    let permitted = permit(gateway_state, stream, &mut record, caller.ask(&target)).await;
    caller.lead(record, permitted).await
}

/// A static forward's name counts as the client's: with the listener it chose what that stands for, and
/// nothing was guessed from its bytes.
fn describe(record: &mut Record, request: &Request) {
    record.target(&request.target, HostFrom::Client);
    if let Some(label) = &request.label {
        record.label(label.as_str());
    }
    if request.host_mismatch {
        record.error_word(ErrorDetail::HostMismatch);
    }
}

/// Says no, in the client's own protocol, and ends the record.
async fn refuse(stream: &Stream, mut record: Record, reply: Reply, refusal: Refusal) {
    record.stage(Stage::Reply);
    let said = reply.failure(refusal.outcome, &refusal.message, record.id());
    record.finish(refusal.outcome);
    if reply == Reply::Opaque || refusal.outcome == Outcome::SniMismatch {
        stream.reset_on_close();
    } else if refusal.outcome != Outcome::ClientGone {
        Box::pin(inbound::reply::say_and_close(stream, &said)).await;
    }
}

/// Steps 6 and 7: bytes both ways until either side ends it, then the access line.
async fn splice(gateway_state: &GatewayState, client: &Stream, tunnel: Box<Tunnel>) {
    let (mut record, upstream, slot, Early { up, down }, inspector) = tunnel.parts();
    record.stage(Stage::Relay);
    let limits = gateway_state.limits.load_full();
    let live = record.live();
    let mut gate =
        inspector.map(|inspector| RelayInspector::new(inspector, gateway_state, &mut record));
    let relayed = relay::run(
        client,
        &upstream,
        up,
        down,
        gate.as_mut().map(|gate| gate as &mut dyn relay::Inspector),
        gateway_state.half_close(),
        &limits.relay,
        &gateway_state.pipes,
        live.meter(),
        live.cut(),
    )
    .await;
    let refusal = gate.and_then(|gate| gate.found);
    drop((upstream, slot));
    record.lost(relayed.lost);
    match refusal {
        // Words would look like the far side's where it has spoken.
        Some(refusal) => {
            let reply = if relayed.down > 0 { Reply::Opaque } else { Reply::InPlace };
            Box::pin(refuse(client, record, reply, *refusal)).await;
        }
        None => record.finish(ending(relayed.ended)),
    }
}

fn ending(ended: Ended) -> Outcome {
    use crate::lifecycle::cut::CutReason;
    match ended {
        Ended::FinFin => Outcome::FinFin,
        Ended::ClientRst => Outcome::ClientRst,
        Ended::UpstreamRst => Outcome::UpstreamRst,
        Ended::Idle => Outcome::Idle,
        Ended::HalfCloseIdle => Outcome::HalfCloseIdle,
        Ended::Refused => Outcome::SniMismatch,
        Ended::Cut(CutReason::Drained) => Outcome::Drained,
        Ended::Cut(CutReason::Denied) => Outcome::Denied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function with these arguments returns.
    fn size<A, B, C, F: Future>(_function: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// A connection's task lives as long as the connection, idle or not, and so does the relay it holds
    /// boxed: this is what they keep.
    #[test]
    fn the_task_of_a_connection_stays_small() {
        let sizes = [("task", size(serve), 144), ("relay", size(splice), 736)];
        for (what, size, most) in sizes {
            assert!(
                size <= most,
                "{what}: {size} bytes, at most {most}: box what is used for a moment"
            );
        }
    }
}
