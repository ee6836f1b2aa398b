//! Steps 6 and 7 of a tunnel: its client is told that it is open, then bytes go both ways until either side ends it.
#![forbid(unsafe_code)]

use bytes::Bytes;

use super::read_request::TunnelRequest;
use super::sni_inspector::{RelayInspector, SniInspector};
use super::{GatewayState, refuse_client};
use crate::inbound::ReplyProtocol;
use crate::lifecycle::connection_cut::CutReason;
use crate::outcome::Outcome;
use crate::record::{Stage, TargetRecord};
use crate::relay::{self, RelayEnd, RelaySummary};
use crate::sys::Stream;
use crate::upstream::{UpstreamConnection, UpstreamSlot};

/// A tunnel whose client knows that it is open.
pub(super) struct Tunnel {
    record: TargetRecord,
    upstream: Stream,
    slot: UpstreamSlot,
    early: EarlyBytes,
    inspector: Option<SniInspector>,
}

/// What either side has said before the relay began.
struct EarlyBytes {
    up: Bytes,
    down: Bytes,
}

impl Tunnel {
    pub(super) fn new(
        record: TargetRecord,
        connected: UpstreamConnection,
        early_up: Bytes,
        inspector: Option<SniInspector>,
    ) -> Box<Self> {
        let UpstreamConnection { stream: upstream, early: down, slot, .. } = connected;
        let early = EarlyBytes { up: early_up, down };
        Box::new(Self { record, upstream, slot, early, inspector })
    }

    /// Its parts, the box gone: what is moved out of one in place keeps it to the end of the scope.
    #[expect(clippy::boxed_local, reason = "the box ends here, not where its parts live on")]
    fn into_parts(
        self: Box<Self>,
    ) -> (TargetRecord, Stream, UpstreamSlot, EarlyBytes, Option<SniInspector>) {
        let Self { record, upstream, slot, early, inspector } = *self;
        (record, upstream, slot, early, inspector)
    }
}

/// Tells the client that the far side is there; none: it has left.
pub(super) async fn reply_success(
    client: &Stream,
    mut record: TargetRecord,
    request: TunnelRequest,
    connected: UpstreamConnection,
    inspector: Option<SniInspector>,
) -> Option<Box<Tunnel>> {
    record.set_stage(Stage::Reply);
    let said = request.reply.success_bytes(connected.reported);
    if client.write_all(&said).await.is_err() {
        record.finish(Outcome::ClientGone);
        return None;
    }
    tracing::debug!(bytes = said.len(), "replied");
    Some(Tunnel::new(record, connected, request.early, inspector))
}

/// Relays bytes both ways, then writes the access line.
pub(super) async fn relay_tunnel(
    gateway_state: &GatewayState,
    client: &Stream,
    tunnel: Box<Tunnel>,
) {
    let (mut record, upstream, slot, EarlyBytes { up, down }, inspector) = tunnel.into_parts();
    record.set_stage(Stage::Relay);
    let limits = gateway_state.limits.load_full();
    let live = record.live_connection();
    let mut inspector =
        inspector.map(|inspector| RelayInspector::new(inspector, gateway_state, &mut record));
    let relayed = relay::relay_streams(
        client,
        &upstream,
        up,
        down,
        inspector.as_mut().map(|inspector| inspector as &mut dyn relay::StreamInspector),
        gateway_state.half_close(),
        &limits.relay,
        &gateway_state.pipes,
        live.meter(),
        live.cut(),
    )
    .await;
    let refusal = inspector.and_then(|inspector| inspector.refusal);
    drop((upstream, slot));
    log_relayed(relayed);
    record.add_lost_bytes(relayed.lost);
    match refusal {
        // Words would look like the far side's where it has spoken.
        Some(refusal) => {
            let reply =
                if relayed.down > 0 { ReplyProtocol::Opaque } else { ReplyProtocol::InPlace };
            Box::pin(refuse_client(client, record, reply, *refusal)).await;
        }
        None => record.finish(outcome_of_relay(relayed.ended)),
    }
}

/// By value: a future keeps what a macro once borrowed.
fn log_relayed(RelaySummary { up, down, lost, ended }: RelaySummary) {
    tracing::debug!(up, down, lost, outcome = outcome_of_relay(ended).label(), "relay ended");
}

/// The outcome of a target whose relay ended so.
pub(super) fn outcome_of_relay(ended: RelayEnd) -> Outcome {
    match ended {
        RelayEnd::FinFin => Outcome::FinFin,
        RelayEnd::ClientRst => Outcome::ClientRst,
        RelayEnd::UpstreamRst => Outcome::UpstreamRst,
        RelayEnd::Idle => Outcome::Idle,
        RelayEnd::HalfCloseIdle => Outcome::HalfCloseIdle,
        RelayEnd::Refused => Outcome::SniMismatch,
        RelayEnd::Cut(CutReason::Drained) => Outcome::Drained,
        RelayEnd::Cut(CutReason::Denied) => Outcome::Denied,
    }
}
