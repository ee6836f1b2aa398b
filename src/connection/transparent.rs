//! A connection that came by address: netfilter sent it here, and only the kernel knows where it was going.
//!
//! Policy knows names, so one is looked for: first among our own DNS answers, else in what the client says.
//! A name is a claim. It is judged, resolved and what it resolves to is dialled, never the address on the
//! strength of the name (docs/requirements.md, B18).
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::BytesMut;

use super::open_upstream::{Permitted, permit, qualify_when_ready};
use super::tunnel::{Caller, Opened, Tunnel};
use super::{GatewayState, Refusal, refuse};
use crate::inbound::client_hello::ServerName;
use crate::inbound::sniff::{self, Said};
use crate::inbound::{Kind, Reply};
use crate::labels::HostFrom;
use crate::lifecycle::drain::{Guard, Phase};
use crate::outcome::Outcome;
use crate::policy::{Admitted, Decision, Refused, Verdict};
use crate::record::{Connection, Record};
use crate::relay::GATE_TIME;
use crate::sys::Stream;
use crate::target::{Host, Name, Target};

/// Bytes asked of the kernel at once: more than most ClientHellos have.
const ROOM: usize = 4096;

/// Ports whose servers speak first, while clients wait for them (IANA Service Name and Transport Protocol
/// Port Number Registry).
const SERVER_FIRST: [u16; 20] = [
    13,   // daytime, RFC 867
    17,   // qotd, RFC 865
    21,   // ftp, RFC 959 section 5.4
    22,   // ssh, RFC 4253 section 4.2
    23,   // telnet, RFC 854
    25,   // smtp, RFC 5321 section 3.1
    109,  // pop2, RFC 937
    110,  // pop3, RFC 1939 section 4
    119,  // nntp, RFC 3977 section 5.1
    143,  // imap, RFC 9051 section 3.3
    220,  // imap3, RFC 1203
    433,  // nnsp, RFC 3977 section 5.1
    587,  // submission, RFC 6409
    873,  // rsync, "@RSYNCD:"
    2628, // dict, RFC 2229 section 3.1
    3306, // mysql, the initial handshake
    3690, // svn, the greeting of svnserve
    4190, // sieve, RFC 5804 section 1.8
    5900, // rfb (VNC), RFC 6143 section 7.1.1
    6600, // mpd, "OK MPD" (registered as mshvlm)
];

/// Takes it from accept to an open tunnel, or to its last line in the log.
pub(super) async fn transparent(
    gateway_state: &GatewayState,
    stream: &Stream,
    connection: &mut Connection,
    to: SocketAddr,
    full: bool,
    drain: &Guard,
) -> Option<Box<Tunnel>> {
    connection.set_inbound(Kind::Transparent);
    let mut record = connection.record();
    let Some(port) = NonZeroU16::new(to.port()) else {
        stream.reset_on_close();
        record.finish(Outcome::BadRequest);
        return None;
    };
    let address = Target { host: Host::from(to.ip()), port };
    record.target(&address, HostFrom::None);
    let mut early = BytesMut::new();
    let heard = match patience(gateway_state, &record, &address).filter(|_| !full) {
        Some(patience) => listen(stream, &mut early, patience, drain).await,
        None => FirstBytes::Nothing,
    };
    let heard_out = !matches!(heard, FirstBytes::Nothing);
    let reply = match heard {
        FirstBytes::Said(Said::Http(_) | Said::ForProxy) => Reply::InPlace,
        _ => Reply::Opaque,
    };
    let (kind, early) = (Kind::Transparent, early.freeze());
    let caller =
        Caller { gateway_state, stream, kind, reply, early, heard: heard_out, full, drain };
    match heard {
        FirstBytes::End(outcome) => {
            stream.reset_on_close();
            record.finish(outcome);
            None
        }
        FirstBytes::Said(Said::ForProxy) => {
            refuse(stream, record, reply, Refusal::for_proxy()).await;
            None
        }
        FirstBytes::Said(Said::Tls(ServerName::Host(Host::Name(name)))) => {
            caller.by_name(record, address, name, HostFrom::Sni).await
        }
        FirstBytes::Said(Said::Http(Some(Host::Name(name)))) => {
            caller.by_name(record, address, name, HostFrom::HttpHost).await
        }
        FirstBytes::Said(_) | FirstBytes::Nothing => {
            let permitted = permit(gateway_state, stream, &mut record, caller.ask(&address)).await;
            caller.lead(record, permitted).await
        }
    }
}

/// How long the client's first byte is waited for; `None`: nothing that it says could change anything, or
/// its server speaks first.
fn patience(gateway_state: &GatewayState, record: &Record, address: &Target) -> Option<Duration> {
    // A synthetic address is its name's or nobody's, whatever the client says.
    let synthetic = address.host.address().is_some_and(|ip| gateway_state.is_synthetic(ip));
    let named =
        || synthetic || gateway_state.target_by_dns_answer(record.client().ip(), address).is_some();
    if SERVER_FIRST.contains(&address.port.get()) || named() {
        return None;
    }
    let server_first = gateway_state.limits.load().server_first;
    let (policy, own) = (gateway_state.policy.load(), gateway_state.own.load());
    let by_name = address.host.address().is_some_and(|ip| policy.may_hear_of(&own, ip));
    match policy.judge_host(&own, address).1 {
        Ok(_) => Some(server_first).filter(|patience| !patience.is_zero()),
        // Only a name can help, and a slow client is worth waiting for: nothing is dialled meanwhile.
        Err(Refused::Denied) if by_name && policy.hears_names() => {
            Some(server_first.max(GATE_TIME))
        }
        Err(_) => None,
    }
}

/// What came of listening.
enum FirstBytes {
    /// No byte in time.
    Nothing,
    Said(Said),
    /// The client is gone, or we are.
    End(Outcome),
}

/// Takes what the client says until it has a meaning; what was taken is in `early`, once and in order.
async fn listen(
    client: &Stream,
    early: &mut BytesMut,
    patience: Duration,
    drain: &Guard,
) -> FirstBytes {
    let deadline = tokio::time::sleep(patience);
    tokio::pin!(deadline);
    loop {
        let first = early.is_empty();
        let more = tokio::select! {
            biased;
            read = client.read_more(early, ROOM) => read,
            () = &mut deadline => break,
            () = drain.reached(Phase::Draining), if first => return FirstBytes::End(Outcome::Draining),
            () = drain.reached(Phase::Forced) => return FirstBytes::End(Outcome::Draining),
        };
        match more {
            Ok(0) if first => return FirstBytes::End(Outcome::ClientGone),
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => return FirstBytes::End(Outcome::ClientGone),
        }
        if first {
            deadline.as_mut().reset(tokio::time::Instant::now() + GATE_TIME);
        }
        match sniff::read(early) {
            Said::Incomplete => {}
            said => return FirstBytes::Said(said),
        }
    }
    match early.is_empty() {
        true => FirstBytes::Nothing,
        false => FirstBytes::Said(Said::Incomplete),
    }
}

type TransparentVerdict = (Decision, Result<Admitted<Target>, Refused>);

impl Caller<'_> {
    /// A client that named its server itself.
    async fn by_name(
        self,
        mut record: Record,
        address: Target,
        name: Name,
        from: HostFrom,
    ) -> Option<Box<Tunnel>> {
        let named = Target { host: Host::Name(name), port: address.port };
        record.target(&named, from);
        let asked_at = tokio::time::Instant::now();
        let ask = self.ask(&named);
        let opened =
            match qualify_when_ready(self.gateway_state, self.stream, &mut record, ask, asked_at)
                .await
            {
                Ok(named) => self.open_by_name(&mut record, &address, &named, asked_at).await,
                Err(refusal) => Err(refusal),
            };
        self.conclude(record, opened).await
    }

    async fn open_by_name(
        &self,
        record: &mut Record,
        address: &Target,
        named: &Target,
        asked_at: tokio::time::Instant,
    ) -> Result<Opened, Refusal> {
        let chosen = address.host.address();
        let permitted = |admitted| Permitted { admitted, chosen, asked_at };
        let ((decision, judged), (of_address, by_itself)) = self.judge(named, address);
        let (verdict, rule) = (decision.verdict, decision.rule.clone());
        decided(record, decision);
        let admitted = match judged {
            Ok(admitted) => admitted,
            Err(refused) => return Err(self.refusal(refused, rule, named, by_itself.is_ok())),
        };
        if let (Verdict::WouldDeny, Ok(by_itself)) = (verdict, &by_itself) {
            // Written down, and carried to where it was going.
            return self.open(record, permitted(by_itself.clone())).await;
        }
        match (self.open(record, permitted(admitted)).await, by_itself) {
            // Nobody knows the name, and the address needs none.
            (Err(refusal), Ok(by_itself)) if refusal.is_of_dns() => {
                record.target(address, HostFrom::None);
                decided(record, of_address);
                self.open(record, permitted(by_itself)).await
            }
            (opened, _) => opened,
        }
    }

    /// TLS for a name that is not allowed, at an address that is (B17), or simply no.
    fn refusal(
        &self,
        refused: Refused,
        rule: Option<String>,
        named: &Target,
        address_allowed: bool,
    ) -> Refusal {
        let rule = rule.as_deref();
        match (refused, self.reply) {
            (Refused::Denied, Reply::Opaque) if address_allowed => {
                Refusal::sni_mismatch(named, rule.unwrap_or_default())
            }
            _ => Refusal::policy(refused, named, rule),
        }
    }

    /// What policy says of the name, and of the address had nothing been said.
    fn judge(&self, named: &Target, address: &Target) -> (TransparentVerdict, TransparentVerdict) {
        let (policy, own) = (self.gateway_state.policy.load(), self.gateway_state.own.load());
        (policy.judge_host(&own, named), policy.judge_host(&own, address))
    }
}

fn decided(record: &mut Record, decision: Decision) {
    record.verdict(decision.mode, decision.verdict, decision.rule);
}
