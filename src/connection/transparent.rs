//! A connection that came by address: netfilter sent it here, and only the kernel knows where it was going.
//!
//! Policy knows names, so one is looked for: first among our own DNS answers, else in what the client says.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::BytesMut;

use super::read_request::{ClientRequest, TunnelRequest};
use super::{ClientContext, Refusal, decision, refuse_client};
use crate::inbound::client_hello::ServerName;
use crate::inbound::sniff::{self, SniffedProtocol};
use crate::inbound::{Kind, ReplyProtocol};
use crate::labels::HostFrom;
use crate::lifecycle::drain::{Guard, Phase};
use crate::outcome::Outcome;
use crate::policy::{self, AskedTarget, FirstBytesUse, NamedBy};
use crate::record::TargetRecord;
use crate::relay::INSPECTION_TIME;
use crate::sys::Stream;
use crate::target::{Host, Name, Target};

/// Bytes asked of the kernel at once: more than most ClientHellos have.
const READ_SIZE: usize = 4096;

/// Ports whose servers speak first, while clients wait for them (IANA Service Name and Transport Protocol
/// Port Number Registry).
const SERVER_FIRST_PORTS: [u16; 20] = [
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

/// Reads what the client says where that could name its server; none: its connection has ended.
pub(super) async fn read_request(
    client: &mut ClientContext<'_>,
    going_to: SocketAddr,
) -> Option<ClientRequest> {
    client.connection.set_inbound(Kind::Transparent);
    let mut record = client.connection.begin_target();
    let Some(port) = NonZeroU16::new(going_to.port()) else {
        client.stream.reset_on_close();
        record.finish(Outcome::BadRequest);
        return None;
    };
    let target = Target { host: Host::from(going_to.ip()), port };
    record.set_target(&target, HostFrom::None);
    let mut early = BytesMut::new();
    let first_bytes = match sniff_timeout(client, &record, &target).filter(|_| !client.over_limit) {
        Some(timeout) => sniff(client.stream, &mut early, timeout, client.drain).await,
        None => FirstBytes::Nothing,
    };
    tracing::debug!(going_to = %target, ?first_bytes, "redirected");
    let (kind, early) = (Kind::Transparent, early.freeze());
    client.sent_early = !early.is_empty();
    let reply = match &first_bytes {
        FirstBytes::Said(SniffedProtocol::Http(_) | SniffedProtocol::ForProxy) => {
            ReplyProtocol::InPlace
        }
        _ => ReplyProtocol::Opaque,
    };
    let sniffed = match first_bytes {
        FirstBytes::Nothing => None,
        FirstBytes::Said(SniffedProtocol::ForProxy) => {
            refuse_client(client.stream, record, reply, Refusal::for_proxy()).await;
            return None;
        }
        FirstBytes::Said(said) => Some(said),
        FirstBytes::Ended(outcome) => {
            client.stream.reset_on_close();
            record.finish(outcome);
            return None;
        }
    };
    let named = sniffed.as_ref().and_then(name_in);
    if let Some((name, by)) = &named {
        let named = Target { host: Host::Name(name.clone()), port };
        record.set_target(&named, decision::host_from(*by));
    }
    let request = TunnelRequest { target, kind, reply, early, sniffed, named };
    Some(ClientRequest::Tunnel(record, request))
}

/// The server that the client's first bytes name.
fn name_in(said: &SniffedProtocol) -> Option<(Name, NamedBy)> {
    match said {
        SniffedProtocol::Tls(ServerName::Host(Host::Name(name))) => {
            Some((name.clone(), NamedBy::Sni))
        }
        SniffedProtocol::Http(Some(Host::Name(name))) => Some((name.clone(), NamedBy::HttpHost)),
        _ => None,
    }
}

/// How long the client's first byte is waited for; none: nothing that it says could change anything, or its server
/// speaks first.
fn sniff_timeout(
    client: &ClientContext<'_>,
    record: &TargetRecord,
    target: &Target,
) -> Option<Duration> {
    if SERVER_FIRST_PORTS.contains(&target.port.get()) {
        return None;
    }
    let asked = AskedTarget { target, client: Some(record.client().ip()), named: None };
    let snapshot = client.gateway_state.decision_snapshot();
    let context = snapshot.decision_context();
    let server_first = client.gateway_state.limits.load().server_first;
    match policy::decide(&asked, &context).use_of_first_bytes(&context) {
        FirstBytesUse::Nothing => None,
        FirstBytesUse::MayName => Some(server_first).filter(|timeout| !timeout.is_zero()),
        // A slow client is worth waiting for: nothing is dialled meanwhile.
        FirstBytesUse::MustName => Some(server_first.max(INSPECTION_TIME)),
    }
}

/// What came of listening.
#[derive(Debug)]
enum FirstBytes {
    /// No byte in time.
    Nothing,
    /// Bytes that mean this, or that never got a meaning in time.
    Said(SniffedProtocol),
    /// The client is gone, or we are.
    Ended(Outcome),
}

/// Takes what the client says until it has a meaning; what was taken is in `early`, once and in order.
async fn sniff(
    client: &Stream,
    early: &mut BytesMut,
    timeout: Duration,
    drain: &Guard,
) -> FirstBytes {
    let deadline = tokio::time::sleep(timeout);
    tokio::pin!(deadline);
    let mut said = SniffedProtocol::Incomplete;
    loop {
        let first = early.is_empty();
        let more = tokio::select! {
            biased;
            read = client.read_more(early, READ_SIZE) => read,
            () = &mut deadline => break,
            () = drain.reached(Phase::Draining), if first => return FirstBytes::Ended(Outcome::Draining),
            () = drain.reached(Phase::Forced) => return FirstBytes::Ended(Outcome::Draining),
        };
        match more {
            Ok(0) if first => return FirstBytes::Ended(Outcome::ClientGone),
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => return FirstBytes::Ended(Outcome::ClientGone),
        }
        if first {
            deadline.as_mut().reset(tokio::time::Instant::now() + INSPECTION_TIME);
        }
        said = sniff::sniff(early);
        if !matches!(said, SniffedProtocol::Incomplete | SniffedProtocol::IncompleteHello) {
            return FirstBytes::Said(said);
        }
    }
    match early.is_empty() {
        true => FirstBytes::Nothing,
        false => FirstBytes::Said(said),
    }
}
