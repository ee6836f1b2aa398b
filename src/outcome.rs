//! How a connection can end, and the one table of what each end looks like on every wire.
//!
//! The closed list of docs/requirements.md, Outcomes. Nothing else in the crate chooses a reply byte, an HTTP
//! status, a `Proxy-Status` token or a log level.
#![forbid(unsafe_code)]

use serde::Serialize;

/// How a target asked for (or a connection that asked for none) ended. Exactly one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// An HTTP forward exchange was completed.
    Ok,
    /// A tunnel ended by FIN from both sides.
    FinFin,
    /// The client ended the relay by a reset.
    ClientRst,
    /// The upstream ended the relay by a reset.
    UpstreamRst,
    /// Nothing moved either way for `limits.idle_timeout`.
    Idle,
    /// Half closed, then silent for `limits.half_close_timeout`.
    HalfCloseIdle,
    /// Cut at the end of the drain.
    Drained,
    /// The client left during its head, the DNS question or the dial.
    ClientGone,
    /// Input that breaks its protocol, or a host no rule could judge safely.
    BadRequest,
    /// A request head over `limits.max_head` or 256 fields.
    HeadTooLarge,
    /// No whole request head within `limits.head_timeout`.
    HeadTimeout,
    /// A SOCKS command other than CONNECT.
    UnsupportedCmd,
    /// A SOCKS5 address type other than 01, 03, 04.
    UnsupportedAtyp,
    /// A SOCKS5 client that offers neither "none" nor "user name".
    NoAuthMethod,
    /// Policy refused the target, or one of its addresses.
    Denied,
    /// The TLS server name contradicts the target.
    SniMismatch,
    /// The target is this gateway itself.
    Loop,
    /// The name could not be resolved.
    DnsError,
    /// No nameserver answered in time.
    DnsTimeout,
    /// The far side refused the connection.
    Refused,
    /// No way to the far side; the reason picks SOCKS5 reply 03 or 04.
    Unreachable(Unreachable),
    /// The upstream could not connect and did not say why.
    UpstreamFailed,
    /// No answer from the far side in time.
    ConnectTimeout,
    /// The upstream broke its protocol.
    UpstreamProtocol,
    /// A bug of ours.
    Internal,
    /// The upstream itself cannot be reached.
    UpstreamDown,
    /// A limit on connections is reached.
    Overloaded,
    /// The gateway is shutting down.
    Draining,
}

/// Why there is no way to the far side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unreachable {
    /// No route to that network (SOCKS5 reply 03).
    NoRoute,
    /// The host is known but not there (SOCKS5 reply 04).
    Host,
}

/// Log level of an outcome's access line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// An everyday end, nobody need look.
    Info,
    /// Somebody should look at settings or tailnet.
    Warn,
    /// Something is broken, here or upstream.
    Error,
}

/// One row of the table: an outcome on every wire. `None`: nothing is said there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The `outcome` of the access log and of the metric.
    pub label: &'static str,
    /// SOCKS5 REP field (RFC 1928 section 6).
    pub socks5: Option<u8>,
    /// The CD field of a SOCKS4 reply.
    pub socks4: Option<u8>,
    /// The status code over HTTP.
    pub http: Option<u16>,
    /// `Proxy-Status` error token (RFC 9209 section 2.3).
    pub token: Option<&'static str>,
    /// Level of the access line.
    pub level: Level,
}

impl Outcome {
    /// Every outcome, once per label and reply.
    pub const ALL: [Outcome; 29] = [
        Outcome::Ok,
        Outcome::FinFin,
        Outcome::ClientRst,
        Outcome::UpstreamRst,
        Outcome::Idle,
        Outcome::HalfCloseIdle,
        Outcome::Drained,
        Outcome::ClientGone,
        Outcome::BadRequest,
        Outcome::HeadTooLarge,
        Outcome::HeadTimeout,
        Outcome::UnsupportedCmd,
        Outcome::UnsupportedAtyp,
        Outcome::NoAuthMethod,
        Outcome::Denied,
        Outcome::SniMismatch,
        Outcome::Loop,
        Outcome::DnsError,
        Outcome::DnsTimeout,
        Outcome::Refused,
        Outcome::Unreachable(Unreachable::NoRoute),
        Outcome::Unreachable(Unreachable::Host),
        Outcome::UpstreamFailed,
        Outcome::ConnectTimeout,
        Outcome::UpstreamProtocol,
        Outcome::Internal,
        Outcome::UpstreamDown,
        Outcome::Overloaded,
        Outcome::Draining,
    ];

    /// This outcome's row of the table in docs/requirements.md.
    #[rustfmt::skip]
    pub const fn row(self) -> Row {
        use Level::{Error, Info, Warn};
        match self {
            Outcome::Ok => spoken_row("ok", Some(0x00), Some(0x5a), Some(200), None, Info),
            Outcome::FinFin => quiet_row("fin_fin"),
            Outcome::ClientRst => quiet_row("client_rst"),
            Outcome::UpstreamRst => quiet_row("upstream_rst"),
            Outcome::Idle => quiet_row("idle"),
            Outcome::HalfCloseIdle => quiet_row("half_close_idle"),
            Outcome::Drained => quiet_row("drained"),
            Outcome::ClientGone => quiet_row("client_gone"),
            Outcome::BadRequest => failure_row("bad_request", 0x01, 400, "http_request_error", Info),
            Outcome::HeadTooLarge => failure_row("head_too_large", 0x01, 431, "http_request_error", Info),
            Outcome::HeadTimeout => failure_row("head_timeout", 0x01, 408, "http_request_error", Info),
            Outcome::UnsupportedCmd => spoken_row("unsupported_cmd", Some(0x07), Some(0x5b), None, None, Info),
            Outcome::UnsupportedAtyp => spoken_row("unsupported_atyp", Some(0x08), Some(0x5b), None, None, Info),
            // `05 FF` is a method reply, not a REP: socks5.rs says it.
            Outcome::NoAuthMethod => spoken_row("no_auth_method", None, Some(0x5b), None, None, Info),
            Outcome::Denied => failure_row("denied", 0x02, 403, "http_request_denied", Warn),
            Outcome::SniMismatch => spoken_row("sni_mismatch", None, None, None, Some("http_request_denied"), Warn),
            Outcome::Loop => failure_row("loop", 0x02, 508, "proxy_loop_detected", Warn),
            Outcome::DnsError => failure_row("dns_error", 0x04, 502, "dns_error", Info),
            Outcome::DnsTimeout => failure_row("dns_timeout", 0x04, 504, "dns_timeout", Info),
            Outcome::Refused => failure_row("refused", 0x05, 502, "connection_refused", Info),
            Outcome::Unreachable(Unreachable::NoRoute) => failure_row("unreachable", 0x03, 502, "destination_ip_unroutable", Info),
            Outcome::Unreachable(Unreachable::Host) => failure_row("unreachable", 0x04, 502, "destination_ip_unroutable", Info),
            Outcome::UpstreamFailed => failure_row("upstream_failed", 0x01, 502, "destination_unavailable", Info),
            Outcome::ConnectTimeout => failure_row("connect_timeout", 0x06, 504, "connection_timeout", Info),
            Outcome::UpstreamProtocol => failure_row("upstream_protocol", 0x01, 502, "proxy_internal_error", Error),
            Outcome::Internal => failure_row("internal", 0x01, 500, "proxy_internal_error", Error),
            Outcome::UpstreamDown => failure_row("upstream_down", 0x01, 503, "destination_unavailable", Warn),
            Outcome::Overloaded => failure_row("overloaded", 0x01, 503, "connection_limit_reached", Warn),
            Outcome::Draining => failure_row("draining", 0x01, 503, "destination_unavailable", Warn),
        }
    }

    /// The name in the log and the metric.
    pub const fn label(self) -> &'static str {
        self.row().label
    }

    /// The outcome with this name; of two with one name the first.
    pub fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.label() == label)
    }

    /// Seconds for `Retry-After`, where trying again soon makes sense.
    pub const fn retry_after(self) -> Option<u32> {
        match self.row().http {
            Some(503) => Some(1),
            _ => None,
        }
    }
}

const fn spoken_row(
    label: &'static str,
    socks5: Option<u8>,
    socks4: Option<u8>,
    http: Option<u16>,
    token: Option<&'static str>,
    level: Level,
) -> Row {
    Row { label, socks5, socks4, http, token, level }
}

const fn failure_row(
    label: &'static str,
    rep: u8,
    http: u16,
    token: &'static str,
    level: Level,
) -> Row {
    spoken_row(label, Some(rep), Some(0x5b), Some(http), Some(token), level)
}

const fn quiet_row(label: &'static str) -> Row {
    spoken_row(label, None, None, None, None, Level::Info)
}
