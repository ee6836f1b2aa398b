//! The story of one connection, top to bottom: read this file first.
//!
//! [`serve`] walks a client from accept to its last line in the log; `carry` takes one target
//! from policy to an open way out. Rooms do the work, this file carries values between them and
//! decides nothing a room could decide.
#![forbid(unsafe_code)]

mod answered;
mod forward;
mod inside;
mod question;
mod refusal;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};

use crate::inbound::{self, Failed, Kind, Read, Reply, Request};
use crate::lifecycle::drain::{Guard, Phase};
use crate::listener::{Accepted, Permit};
use crate::names::{Names, Resolved};
use crate::outcome::Outcome;
use crate::policy::{Address, Admitted, Own, Policy};
use crate::record::{Book, Connection, Record, Stage};
use crate::relay::{self, Ended, HalfClose, PipePool};
use crate::sys::Stream;
use crate::tailnet::Fault;
use crate::target::{Host, Target};
use crate::upstream::{Connected, Destination, Upstream, UpstreamError};

pub use self::answered::Answered;
pub use self::inside::{Inside, Shield};
pub use self::question::Desk;
pub use self::refusal::Refusal;
pub(crate) use self::refusal::fault_of_name;

/// What every connection shares. Parts that a reload changes are swapped whole.
pub struct House {
    /// Log, metrics, live table.
    pub book: Arc<Book>,
    /// The rules.
    pub policy: ArcSwap<Policy>,
    /// What belongs to this host; refreshed while the gateway runs.
    pub own: ArcSwap<Own>,
    /// The resolver.
    pub names: ArcSwap<Names>,
    /// The way out.
    pub upstream: Arc<Upstream>,
    /// `upstream.kind`, for the log.
    pub upstream_kind: &'static str,
    /// The `route` of the log where it is always the same: `direct`, or none with `socks5`.
    pub route: Option<&'static str>,
    /// Addresses our DNS server gave lately.
    pub answered: Answered,
    /// What is known of the tailnet, with the kinds that lead into one.
    pub inside: Option<Inside>,
    /// What a client's FIN does.
    pub half_close: Shield,
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
    /// Between requests of an HTTP forward connection.
    pub keepalive_idle: Duration,
    /// What the relay needs to know.
    pub relay: relay::Settings,
}

impl House {
    /// What a client's FIN does now: a tailscaled that is new enough keeps half-closed connections.
    fn half_close(&self) -> HalfClose {
        let state = self.inside.as_ref().map(Inside::now);
        self.half_close.with(state.as_ref().and_then(|state| state.version.as_ref()))
    }

    /// The `route` of the log.
    fn route_to(&self, address: Option<SocketAddr>) -> Option<&'static str> {
        let inside = self.inside.as_ref().zip(address);
        self.route.or_else(|| inside.map(|(inside, address)| inside.route(address.ip())))
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

/// How long a client over the limit may take to say what it wants before it is turned away.
const OVERFLOW_HEAD: Duration = Duration::from_secs(1);

/// Serves one client from accept to end.
pub async fn serve(house: Arc<House>, accepted: Accepted, drain: Guard) {
    let Accepted { stream, peer, original_dst, leads_to, permit, .. } = accepted;
    let mut connection = house.book.connection(peer);
    if !permit.may_answer() {
        return connection.record().finish(Outcome::Overloaded);
    }
    let full = matches!(permit, Permit::Overflow(_));
    match (leads_to, original_dst) {
        (Some(target), _) => {
            connection.kind(Kind::Forward.label());
            let request = Request::unspoken(Kind::Forward, Target::clone(&target));
            tunnel(&house, stream, connection, request, full, &drain).await;
        }
        (None, Some(to)) => transparent(&house, stream, connection, to, full, &drain).await,
        (None, None) => match read_head(&house, &stream, full, &drain).await {
            Ok(Read::Tunnel(request)) => {
                connection.kind(request.kind.label());
                tunnel(&house, stream, connection, *request, full, &drain).await;
            }
            Ok(Read::Forward(session)) => {
                connection.kind(Kind::Http.label());
                forward::serve(&house, stream, connection, *session, full, &drain).await;
            }
            Err(failed) => turn_away(&stream, connection, failed).await,
        },
    }
    drop(permit);
}

/// Reads the first request head under one deadline; nothing read is ever lost.
async fn read_head(
    house: &House,
    stream: &Stream,
    full: bool,
    drain: &Guard,
) -> Result<Read, Failed> {
    let late = if full { Outcome::Overloaded } else { Outcome::HeadTimeout };
    let limit = if full { OVERFLOW_HEAD } else { house.limits.load().head_timeout };
    let mut buffer = BytesMut::new();
    let deadline = tokio::time::sleep(limit);
    tokio::pin!(deadline);
    tokio::select! {
        biased;
        _ = stream.readiness().readable() => {}
        () = &mut deadline => return Err(Failed::unread(&buffer, late)),
        // A client that has said nothing yet is in the middle of nothing.
        () = drain.reached(Phase::Draining) => {
            return Err(Failed::unread(&buffer, Outcome::Draining));
        }
    }
    let over = tokio::select! {
        biased;
        read = inbound::read(stream, &mut buffer) => return read,
        () = &mut deadline => late,
        () = drain.reached(Phase::Forced) => Outcome::Draining,
    };
    Err(Failed::unread(&buffer, over))
}

/// Ends a connection whose head asked for nothing we could carry.
async fn turn_away(stream: &Stream, mut connection: Connection, failed: Failed) {
    connection.kind(failed.kind.label());
    let mut record = connection.record();
    if let Some(asked) = &failed.asked {
        record.asked(asked);
    }
    let reply = failed.words(record.id());
    record.stage(Stage::Reply);
    // The story is over before the last words: a client that lingers must not hold up its line.
    record.finish(failed.outcome);
    inbound::reply::say_and_close(stream, &reply).await;
}

/// A connection that came by address: nothing is read before the far side is there, because it may
/// be the one to speak first.
async fn transparent(
    house: &House,
    stream: Stream,
    mut connection: Connection,
    to: SocketAddr,
    full: bool,
    drain: &Guard,
) {
    connection.kind(Kind::Transparent.label());
    match std::num::NonZeroU16::new(to.port()) {
        Some(port) => {
            let target = Target { host: Host::from(to.ip()), port };
            let request = Request::unspoken(Kind::Transparent, target);
            tunnel(house, stream, connection, request, full, drain).await;
        }
        None => {
            stream.reset_on_close();
            connection.record().finish(Outcome::BadRequest);
        }
    }
}

/// SOCKS, CONNECT, redirected connections and static forwards: one target, then bytes both ways.
async fn tunnel(
    house: &House,
    stream: Stream,
    mut connection: Connection,
    request: Request,
    full: bool,
    drain: &Guard,
) {
    let mut record = connection.record();
    describe(&mut record, &request);
    let ask = Ask { target: &request.target, early: !request.early.is_empty(), full, drain };
    match carry(house, &stream, &mut record, ask).await {
        Ok(connected) => {
            record.stage(Stage::Reply);
            let said = request.reply.success(connected.reported);
            if stream.write_all(&said).await.is_err() {
                return record.finish(Outcome::ClientGone);
            }
            splice(house, &stream, connected, record, request.early).await;
        }
        Err(refusal) => refuse(&stream, record, request.reply, refusal).await,
    }
}

/// A static forward's name counts as the client's: with the listener it chose what that stands for, and
/// nothing was guessed from its bytes. `none` is for targets that nobody named.
fn describe(record: &mut Record, request: &Request) {
    let from = if request.kind == Kind::Transparent { "none" } else { "client" };
    record.target(&request.target, from);
    if let Some(label) = &request.label {
        record.label(label.as_str());
    }
    if request.host_mismatch {
        record.error_word("host_mismatch");
    }
}

/// Says no, in the client's own protocol, and ends the record.
async fn refuse(stream: &Stream, mut record: Record, reply: Reply, refusal: Refusal) {
    record.stage(Stage::Reply);
    let said = reply.failure(refusal.outcome, &refusal.message, record.id());
    record.finish(refusal.outcome);
    if reply == Reply::Opaque {
        stream.reset_on_close();
    } else if refusal.outcome != Outcome::ClientGone {
        inbound::reply::say_and_close(stream, &said).await;
    }
}

/// What [`carry`] is asked.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) target: &'a Target,
    /// The client has already sent bytes for the far side: its FIN is then a half-close.
    pub(crate) early: bool,
    /// The client is over a limit: it is told so once its target is known.
    pub(crate) full: bool,
    pub(crate) drain: &'a Guard,
}

/// Takes one target from policy to an open way out, or to the reason why there is none.
pub(crate) async fn carry(
    house: &House,
    client: &Stream,
    record: &mut Record,
    ask: Ask<'_>,
) -> Result<Connected, Refusal> {
    let asked_at = tokio::time::Instant::now();
    let target = whole(house, client, record, ask, asked_at).await?;
    let admitted = admit(house, record, &target)?;
    if ask.full {
        return Err(Refusal::overloaded());
    }
    if ask.drain.phase() >= Phase::Draining {
        return Err(Refusal::draining());
    }
    let cut = Arc::clone(record.cut());
    let connected = tokio::select! {
        biased;
        connected = way_out(house, record, admitted, asked_at) => connected?,
        () = watch::client_gone(client, ask.early) => return Err(Refusal::client_gone()),
        _ = cut.wait() => return Err(Refusal::draining()),
    };
    record.connected();
    Ok(connected)
}

/// The target as it is judged. Whether the tailnet has a bare name is known once it is up: during the
/// first login that is waited for.
async fn whole(
    house: &House,
    client: &Stream,
    record: &mut Record,
    ask: Ask<'_>,
    asked_at: tokio::time::Instant,
) -> Result<Target, Refusal> {
    if let (Some(inside), true) = (&house.inside, ask.target.is_bare()) {
        tokio::select! {
            biased;
            _up_or_not = inside.pass(asked_at) => {}
            () = watch::client_gone(client, ask.early) => return Err(Refusal::client_gone()),
            () = ask.drain.reached(Phase::Draining) => return Err(Refusal::draining()),
        }
    }
    Ok(settled(house, record, ask.target))
}

/// The target as it is judged and written down, by what is known now.
fn settled(house: &House, record: &mut Record, asked: &Target) -> Target {
    if let Some(named) = house.by_our_answer(record.client().ip(), asked) {
        record.target(&named, "dns");
        return named;
    }
    let target = house.qualified(asked.clone());
    if target != *asked {
        record.whole(&target);
    }
    target
}

/// Step 3: may it? Every decision is recorded, whatever it is.
pub(crate) fn admit(
    house: &House,
    record: &mut Record,
    target: &Target,
) -> Result<Admitted<Target>, Refusal> {
    record.stage(Stage::Policy);
    let (policy, own) = (house.policy.load(), house.own.load());
    let (decision, judged) = policy.judge_host(&own, target);
    let refusal = |refused| Refusal::policy(refused, target, decision.rule.as_deref());
    let judged = judged.map_err(refusal);
    record.verdict(decision.mode.label(), decision.verdict.label(), decision.rule);
    judged
}

/// Steps 4 and 5: where is it, and the way there. Nothing is asked and nothing dialled unless the
/// tailnet is up: tailscaled would dial from this host's own network.
async fn way_out(
    house: &House,
    record: &mut Record,
    admitted: Admitted<Target>,
    asked_at: tokio::time::Instant,
) -> Result<Connected, Refusal> {
    record.stage(Stage::Dns);
    record.upstream(house.upstream_kind);
    if let Some(inside) = &house.inside {
        inside.pass(asked_at).await.map_err(|fault| refused_by(record, &fault))?;
    }
    let destination = locate(house, record, admitted).await?;
    record.stage(Stage::Dial);
    let asked = destination.first();
    record.route(house.route_to(asked));
    if let (Some(inside), Some(address)) = (&house.inside, asked) {
        inside.meet(address.ip()).await;
    }
    let begun = Instant::now();
    let connected = match house.upstream.connect(destination).await {
        Ok(connected) => connected,
        Err(error) => return Err(not_connected(house, record, error, asked, begun.elapsed())),
    };
    if let Some(address) = connected.address {
        record.dialled(address);
        record.route(house.route_to(Some(address)));
    }
    Ok(connected)
}

/// The upstream's own words, or the real cause behind them.
fn not_connected(
    house: &House,
    record: &mut Record,
    error: UpstreamError,
    asked: Option<SocketAddr>,
    took: Duration,
) -> Refusal {
    let fault = house.inside.as_ref().and_then(|inside| inside.reason(&error, asked, took));
    match fault {
        Some(fault) => refused_by(record, &fault),
        None => error.into(),
    }
}

fn refused_by(record: &mut Record, fault: &Fault) -> Refusal {
    if let Some(word) = fault.word() {
        record.error_word(word);
    }
    Refusal::from(fault)
}

/// Step 4: the admitted host's addresses, each judged again before it may be dialled.
async fn locate(
    house: &House,
    record: &mut Record,
    admitted: Admitted<Target>,
) -> Result<Destination, Refusal> {
    let names = house.names.load_full();
    let asked = Instant::now();
    let resolved = names.resolve(&admitted).await;
    let (addresses, by) = match resolved {
        Ok(Resolved::Passed(admitted)) => {
            record.resolved("upstream", None);
            return Ok(Destination::Name(admitted));
        }
        Ok(Resolved::Addresses { addresses, by }) => {
            if by != "literal" {
                house.book.dns(by, "ok", asked.elapsed());
            }
            (addresses, by)
        }
        Err(error) => {
            house.book.dns(error.route(), error.result(), asked.elapsed());
            record.resolved(error.route(), None);
            return Err(error.into());
        }
    };
    let port = admitted.get().port.get();
    let first = addresses.first().map(|ip| SocketAddr::new(*ip, port));
    record.resolved(by, first);
    let judged = judge_answers(house, record, &admitted, &addresses)?;
    let Some(inside) = &house.inside else { return Ok(Destination::Addresses(judged)) };
    let kept = inside.inside_only(judged, |address| address.get().ip);
    kept.map(Destination::Addresses).map_err(|fault| refused_by(record, &fault))
}

/// Keeps the addresses that may be dialled; none left is the refusal of the last one.
fn judge_answers(
    house: &House,
    record: &mut Record,
    admitted: &Admitted<Target>,
    addresses: &[std::net::IpAddr],
) -> Result<Vec<Admitted<Address>>, Refusal> {
    let (policy, own) = (house.policy.load(), house.own.load());
    let mut refused = None;
    let mut kept = Vec::with_capacity(addresses.len());
    for ip in addresses {
        let (decision, judged) = policy.judge_address(&own, admitted, *ip);
        match judged {
            Ok(address) => kept.push(address),
            Err(why) => refused = Some((decision, why)),
        }
    }
    match refused {
        Some((decision, why)) if kept.is_empty() => {
            let rule = decision.rule;
            let refusal = Refusal::policy(why, admitted.get(), rule.as_deref());
            record.verdict(decision.mode.label(), decision.verdict.label(), rule);
            Err(refusal)
        }
        _ => Ok(kept),
    }
}

/// Steps 6 and 7: bytes both ways until one end of the story, then the last line.
pub(crate) async fn splice(
    house: &House,
    client: &Stream,
    connected: Connected,
    mut record: Record,
    early_up: Bytes,
) {
    record.stage(Stage::Relay);
    let Connected { stream: upstream, early, slot, .. } = connected;
    let limits = house.limits.load_full();
    let (meter, cut) = (Arc::clone(record.meter()), Arc::clone(record.cut()));
    let relayed = relay::run(
        client,
        &upstream,
        early_up,
        early,
        house.half_close(),
        &limits.relay,
        &house.pipes,
        &meter,
        &cut,
    );
    let relayed = Box::pin(relayed).await;
    drop((upstream, slot));
    record.lost(relayed.lost);
    record.finish(ending(relayed.ended));
}

fn ending(ended: Ended) -> Outcome {
    use crate::lifecycle::cut::CutReason;
    match ended {
        Ended::FinFin => Outcome::FinFin,
        Ended::ClientRst => Outcome::ClientRst,
        Ended::UpstreamRst => Outcome::UpstreamRst,
        Ended::Idle => Outcome::Idle,
        Ended::HalfCloseIdle => Outcome::HalfCloseIdle,
        Ended::Cut(CutReason::Drained) => Outcome::Drained,
        Ended::Cut(CutReason::Denied) => Outcome::Denied,
    }
}
