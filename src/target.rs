//! Where a client wants to go: a canonical host and a port.
//!
//! The only place that parses hosts, so that policy, resolver, log and dial all judge the very same
//! thing. It touches no socket and asks no question.
#![forbid(unsafe_code)]

mod carried_v4;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::carried_v4::carried_v4;

/// Longest host name in bytes, without the trailing dot (RFC 1035 section 3.1: 255 on the wire).
const MAX_NAME: usize = 253;
/// Longest label in bytes (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// A name or an address, in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name, which some resolver has to find.
    Name(Name),
    /// An address; IPv4-mapped IPv6 is held as IPv4.
    Address(IpAddr),
}

/// A DNS name: ASCII, lower case, whole labels of 1 to 63 bytes, no trailing dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// A host and a port: what a client asks for. Written as `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Target {
    /// The host in canonical form.
    pub host: Host,
    /// The TCP port, never 0.
    pub port: NonZeroU16,
}

/// A static forward: whoever connects to `listen` is led to `target`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Where it listens; in settings port 0 lets the kernel pick.
    pub listen: SocketAddr,
    /// Where it leads: judged, and looked up anew, for each connection.
    pub target: Target,
}

/// Why a text is not a host, or not a host and port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// There is no host before the port, or at all.
    #[error("the host is empty: give a name or an address")]
    Empty,
    /// A byte that no host name has.
    #[error("host {host} holds a character other than letters, digits, '.', '_' and '-': check it")]
    Character {
        /// The text as it was given, escaped.
        host: String,
    },
    /// A label of 0 or more than 63 bytes, or more than 253 bytes in all.
    #[error("host {host} has an empty or over-long label, or is longer than 253 bytes: check it")]
    Length {
        /// The text as it was given, escaped.
        host: String,
    },
    /// It ends like an address but is not one: `127.1`, `0x7f.1`, `2130706433`.
    #[error("host {host} looks like an IPv4 address but is not four decimal numbers: write it out")]
    Number {
        /// The text as it was given, escaped.
        host: String,
    },
    /// An `xn--` label that is no valid A-label (RFC 5891 section 4.4).
    #[error("host {host} has an xn-- label that decodes to no international name: check it")]
    ALabel {
        /// The text as it was given, escaped.
        host: String,
    },
    /// No port, port 0 or a port that is not 1 to 65535 in plain decimal.
    #[error("port {port} is not a number from 1 to 65535 in plain decimal: write host:port")]
    Port {
        /// The text, escaped; empty when there was none.
        port: String,
    },
    /// Brackets that do not hold an IPv6 address, or an IPv6 address without them.
    #[error("{host} is not an IPv6 address in brackets: write [address]:port, without a zone")]
    Brackets {
        /// The text as it was given, escaped.
        host: String,
    },
}

impl HostError {
    /// The text that is no host, escaped; none where it was the port's fault.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Empty | Self::Port { .. } => None,
            Self::Character { host }
            | Self::Length { host }
            | Self::Number { host }
            | Self::ALabel { host }
            | Self::Brackets { host } => Some(host),
        }
    }
}

impl Host {
    /// Reads a host as clients send it: a name, an IPv4 or a bare IPv6 address.
    ///
    /// An address in text is an address (B12), never a name; percent signs, zones, userinfo and
    /// anything not ASCII are refused (B4-B10).
    ///
    /// # Errors
    /// [`HostError`], naming the text in escaped form.
    pub fn parse(text: &[u8]) -> Result<Self, HostError> {
        if let Some(address) = std::str::from_utf8(text).ok().and_then(|t| IpAddr::from_str(t).ok())
        {
            return Ok(Self::from(address));
        }
        Name::parse(text).map(Self::Name)
    }

    /// Reads a host as [`Host::parse`] does, and an IPv6 address in brackets: SOCKS clients that split a URL hand
    /// its host on as it stands.
    ///
    /// # Errors
    /// [`HostError`], naming the text in escaped form.
    pub fn parse_bracketed(text: &[u8]) -> Result<Self, HostError> {
        match text {
            [b'[', inner @ .., b']'] => parse_ipv6(inner)
                .map(|address| Self::from(IpAddr::V6(address)))
                .ok_or_else(|| HostError::Brackets { host: escape_host(text) }),
            _ => Self::parse(text),
        }
    }

    /// The address, when the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name(_) => None,
        }
    }

    /// The name, when the host is one.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::Name(name) => Some(name),
            Self::Address(_) => None,
        }
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Name {
    /// Reads a DNS name: folds case, drops one trailing dot, checks every label.
    ///
    /// # Errors
    /// [`HostError`], naming the text in escaped form.
    pub fn parse(text: &[u8]) -> Result<Self, HostError> {
        let bare = text.strip_suffix(b".").unwrap_or(text);
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !text.iter().all(allowed) {
            return Err(HostError::Character { host: escape_host(text) });
        }
        let short = |label: &[u8]| (1..=MAX_LABEL).contains(&label.len());
        if bare.len() > MAX_NAME || !bare.split(|b| *b == b'.').all(short) {
            return Err(HostError::Length { host: escape_host(text) });
        }
        if ends_in_number(bare) {
            return Err(HostError::Number { host: escape_host(text) });
        }
        let name: String = bare.iter().map(|b| char::from(b.to_ascii_lowercase())).collect();
        if !name.split('.').all(true_label) {
            return Err(HostError::ALabel { host: escape_host(text) });
        }
        Ok(Self(name.into()))
    }

    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is of one label, which a tailnet may know as a longer name.
    pub fn is_bare(&self) -> bool {
        !self.0.contains('.')
    }

    /// Whether it is `localhost` or below it: for whoever asks, that is their own host (RFC 6761 section 6.3).
    pub fn is_localhost(&self) -> bool {
        let text = self.as_str();
        text == "localhost" || text.ends_with(".localhost")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Target {
    /// Reads a target as a person types it: a host with or without a port, an IPv6 address with or
    /// without brackets.
    ///
    /// # Errors
    /// [`HostError`], as [`Target::parse_authority`].
    pub fn parse_typed(text: &str, default_port: NonZeroU16) -> Result<Self, HostError> {
        match text.parse::<IpAddr>() {
            Ok(ip) => Ok(Self { host: ip.into(), port: default_port }),
            Err(_) => Self::parse_authority(text.as_bytes(), Some(default_port)),
        }
    }

    /// Reads `host:port` or `[v6]:port`; without a port, `default_port` counts where there is one.
    ///
    /// # Errors
    /// [`HostError`], also for port 0 and for a port with a sign or a leading zero.
    pub fn parse_authority(
        text: &[u8],
        default_port: Option<NonZeroU16>,
    ) -> Result<Self, HostError> {
        let (host, port) = split_authority(text)?;
        let port = match (port, default_port) {
            (Some(port), _) => parse_port(port)?,
            (None, Some(port)) => port,
            (None, None) => return Err(HostError::Port { port: String::new() }),
        };
        Ok(Self { host, port })
    }

    /// Reads the target of a CONNECT: an authority with its port, also of an IPv6 address without brackets, as
    /// `openssl s_client -proxy`, Python's http.client before 3.12 and PySocks write it. The last colon then
    /// parts the port, which a CONNECT always has (RFC 9110 section 9.3.6): there is no other reading.
    ///
    /// # Errors
    /// [`HostError`], as [`Target::parse_authority`].
    pub fn parse_connect(text: &[u8]) -> Result<Self, HostError> {
        let parts = memchr::memrchr(b':', text).map(|colon| (&text[..colon], &text[colon + 1..]));
        match parts.and_then(|(host, port)| Some((parse_ipv6(host)?, port))) {
            Some((address, port)) => {
                Ok(Self { host: IpAddr::V6(address).into(), port: parse_port(port)? })
            }
            None => Self::parse_authority(text, None),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl TryFrom<String> for Target {
    type Error = HostError;

    fn try_from(text: String) -> Result<Self, HostError> {
        Self::parse_authority(text.as_bytes(), None)
    }
}

/// The IPv6 address that stands in brackets, or should.
fn parse_ipv6(text: &[u8]) -> Option<Ipv6Addr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn split_authority(text: &[u8]) -> Result<(Host, Option<&[u8]>), HostError> {
    let brackets = || HostError::Brackets { host: escape_host(text) };
    if let Some(rest) = text.strip_prefix(b"[") {
        let end = rest.iter().position(|b| *b == b']').ok_or_else(brackets)?;
        let address = parse_ipv6(&rest[..end]).ok_or_else(brackets)?;
        let port = match &rest[end + 1..] {
            [] => None,
            [b':', port @ ..] => Some(port),
            _ => return Err(brackets()),
        };
        return Ok((Host::from(IpAddr::V6(address)), port));
    }
    let mut parts = text.splitn(3, |b| *b == b':');
    let (host, port) = (parts.next().unwrap_or_default(), parts.next());
    if parts.next().is_some() {
        return Err(brackets());
    }
    Ok((Host::parse(host)?, port))
}

/// Reads a port: 1 to 65535, digits only, no leading zero.
///
/// # Errors
/// [`HostError::Port`] with the text.
pub fn parse_port(text: &[u8]) -> Result<NonZeroU16, HostError> {
    let plain = matches!(text, [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit));
    std::str::from_utf8(text)
        .ok()
        .filter(|_| plain)
        .and_then(|port| port.parse().ok())
        .ok_or_else(|| HostError::Port { port: escape_port(text) })
}

/// The "ends in a number" check of the URL standard: such a host must be an address, or nothing.
fn ends_in_number(name: &[u8]) -> bool {
    let last = name.rsplit(|b| *b == b'.').next().unwrap_or(name);
    let hex = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
    last.iter().all(u8::is_ascii_digit)
        || matches!(last, [b'0', b'x' | b'X', digits @ ..] if hex(digits))
}

/// Whether a label is plain, or an A-label that stands for a real international one.
fn true_label(label: &str) -> bool {
    if !label.starts_with("xn--") {
        return true;
    }
    match idna::domain_to_unicode(label) {
        (unicode, Ok(())) => {
            !unicode.is_ascii() && idna::domain_to_ascii(&unicode).is_ok_and(|back| back == label)
        }
        (_, Err(_)) => false,
    }
}

/// For a message or the log: what stands before an `@` may be a password (RFC 3986 section 3.2.1) and is hidden.
fn escape_host(text: &[u8]) -> String {
    /// Enough to recognise it, short enough for one log line.
    const SHOWN: usize = 300;
    let (hidden, text) = match memchr::memrchr(b'@', text) {
        Some(at) => ("[hidden]", &text[at..]),
        None => ("", text),
    };
    format!("{hidden}{}", text[..text.len().min(SHOWN)].escape_ascii())
}

/// The same of what stands for a port. Of `user:password/@host` that is the password: only what a person may have
/// meant as a number is shown.
fn escape_port(text: &[u8]) -> String {
    let numeric = |b: &u8| b.is_ascii_hexdigit() || matches!(b, b'+' | b'-' | b'.' | b'x' | b'X');
    let meant = text.first().is_none_or(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-'));
    match meant && text.len() <= 20 && text.iter().all(numeric) {
        true => escape_host(text),
        false => "[hidden]".to_owned(),
    }
}

#[cfg(test)]
mod tests;
