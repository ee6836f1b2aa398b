//! Step 2: what a client wants, read from its first bytes, from the listener it came in by, or from where netfilter
//! found it going; and the end of a client that says it badly.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{ClientContext, transparent};
use crate::inbound::http_forward::{ForwardRequest, ForwardSession};
use crate::inbound::sniff::SniffedProtocol;
use crate::inbound::{
    self, InboundFailure, InboundRequest, Kind, Label, ReplyProtocol, RequestedTunnel,
};
use crate::labels::{ErrorDetail, HostFrom};
use crate::lifecycle::drain::Phase;
use crate::outcome::Outcome;
use crate::policy::{AskedTarget, NamedBy};
use crate::record::{ConnectionRecord, Stage, TargetRecord};
use crate::sys::Stream;
use crate::target::{Name, Target};

/// How long a client over the limit may take to say what it wants before it is turned away.
const OVER_LIMIT_TIMEOUT: Duration = Duration::from_secs(1);

/// What stands for the target of a client that need not say it.
pub(super) enum ImplicitTarget {
    /// The listener: a static forward.
    Listener(Arc<Target>),
    /// netfilter: where it was going.
    Redirected(SocketAddr),
}

impl ImplicitTarget {
    pub(super) fn new(
        listener: Option<Arc<Target>>,
        original_dst: Option<SocketAddr>,
    ) -> Option<Self> {
        listener.map(Self::Listener).or(original_dst.map(Self::Redirected))
    }
}

/// What a client wants.
pub(super) enum ClientRequest {
    /// One tunnel, and the record of its target.
    Tunnel(TargetRecord, TunnelRequest),
    /// HTTP requests to forward, one after another, each with a record of its own.
    Forward(Box<ForwardSession>),
}

/// A tunnel that a client wants.
pub(super) struct TunnelRequest {
    /// Where to: as the client said it, or where it was going.
    pub(super) target: Target,
    pub(super) kind: Kind,
    /// In which words the client is answered.
    pub(super) reply: ReplyProtocol,
    /// What the client has sent for the far side.
    pub(super) early: Bytes,
    /// The meaning of `early`, where it has been read for one already and the client had its time to say more.
    pub(super) sniffed: Option<SniffedProtocol>,
    /// The server that a redirected client names in `early`.
    pub(super) named: Option<(Name, NamedBy)>,
}

impl TunnelRequest {
    /// As the decision about it takes it.
    pub(super) fn asked_target(&self) -> AskedTarget<'_> {
        let named = self.named.as_ref().map(|(name, by)| (name, *by));
        AskedTarget { target: &self.target, client: None, named }
    }
}

/// Reads what the client wants; none: its connection has ended.
pub(super) async fn read_request(
    client: &mut ClientContext<'_>,
    implicit: Option<Box<ImplicitTarget>>,
) -> Option<ClientRequest> {
    let request = match implicit.map(|implicit| *implicit) {
        Some(ImplicitTarget::Listener(target)) => {
            RequestedTunnel::of_static_forward(Target::clone(&target))
        }
        Some(ImplicitTarget::Redirected(to)) => {
            return transparent::read_request(client, to).await;
        }
        None => match read_head(client).await {
            Ok(InboundRequest::Tunnel(request)) => *request,
            Ok(InboundRequest::Forward(session)) => {
                client.connection.set_inbound(Kind::Http);
                return Some(ClientRequest::Forward(session));
            }
            Err(failed) => {
                Box::pin(turn_away(client.stream, client.connection, failed)).await;
                return None;
            }
        },
    };
    client.connection.set_inbound(request.kind);
    let mut record = client.connection.begin_target();
    describe_target(&mut record, &request.target, request.label.as_ref(), request.host_mismatch);
    let RequestedTunnel { kind, target, early, reply, .. } = request;
    tracing::debug!(inbound = kind.label(), %target, early = early.len(), "request");
    client.sent_early = !early.is_empty();
    let request = TunnelRequest { target, kind, reply, early, sniffed: None, named: None };
    Some(ClientRequest::Tunnel(record, request))
}

/// Reads the first request head under one deadline; nothing read is ever lost.
async fn read_head(client: &ClientContext<'_>) -> Result<InboundRequest, InboundFailure> {
    let ClientContext { gateway_state, stream, over_limit, drain, .. } = client;
    let late = if *over_limit { Outcome::Overloaded } else { Outcome::HeadTimeout };
    let (head_timeout, max_head) = {
        let limits = gateway_state.limits.load();
        (limits.head_timeout, limits.max_head)
    };
    let limit = if *over_limit { OVER_LIMIT_TIMEOUT } else { head_timeout };
    let mut buffer = BytesMut::new();
    let deadline = tokio::time::sleep(limit);
    tokio::pin!(deadline);
    tokio::select! {
        biased;
        _ = stream.readiness().readable() => {}
        () = &mut deadline => return Err(InboundFailure::of_incomplete_head(&buffer, late)),
        // A client that has said nothing yet is in the middle of nothing.
        () = drain.reached(Phase::Draining) => {
            return Err(InboundFailure::of_incomplete_head(&buffer, Outcome::Draining));
        }
    }
    let over = {
        let read = std::pin::pin!(inbound::read_request(stream, &mut buffer, max_head));
        tokio::select! {
            biased;
            read = read => return read,
            () = &mut deadline => late,
            () = drain.reached(Phase::Forced) => Outcome::Draining,
        }
    };
    Err(InboundFailure::of_incomplete_head(&buffer, over))
}

/// Writes down what is asked for. A static forward's name counts as the client's: with the listener it chose what
/// that stands for, and nothing was guessed from its bytes.
fn describe_target(
    record: &mut TargetRecord,
    target: &Target,
    label: Option<&Label>,
    host_mismatch: bool,
) {
    record.set_target(target, HostFrom::Client);
    if let Some(label) = label {
        record.set_label(label.as_str());
    }
    if host_mismatch {
        record.set_error_detail(ErrorDetail::HostMismatch);
    }
}

/// The same of a request of HTTP forward.
pub(super) fn describe_forward(record: &mut TargetRecord, request: &ForwardRequest) {
    follow_record(record);
    tracing::debug!(target = %request.target, "request");
    describe_target(record, &request.target, request.label.as_ref(), request.host_mismatch);
}

/// Each request of a connection has an access line of its own; what is said from now on is said of this one.
fn follow_record(record: &TargetRecord) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        tracing::Span::current().record("id", record.id());
    }
}

/// Ends a connection whose head asked for nothing we could carry.
pub(super) async fn turn_away(
    stream: &Stream,
    connection: &mut ConnectionRecord,
    failed: InboundFailure,
) {
    connection.set_inbound(failed.kind);
    let mut record = connection.begin_target();
    follow_record(&record);
    if let Some(asked) = &failed.asked {
        record.set_asked_text(asked);
    }
    let (outcome, why) = (failed.outcome.label(), &failed.message);
    tracing::debug!(outcome, why, "no request");
    let reply = failed.reply_bytes(record.id());
    record.set_stage(Stage::Reply);
    // The record ends before the last words: a client that lingers must not hold up its line.
    record.finish(failed.outcome);
    Box::pin(inbound::reply::say_and_close(stream, &reply)).await;
}
