//! The server name that a TLS client asks for, from its ClientHello. Parses only.
//!
//! Records: RFC 8446 section 5.1; the message: section 4.1.2; the name: RFC 6066 section 3. Whatever some
//! server might take for a ClientHello and this parser cannot read is [`ServerName::Unreadable`], never
//! "no TLS": what two parsers read differently is a way past the policy. An encrypted ClientHello is left
//! alone: its outer name counts as any other.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use crate::target::Host;

/// Most bytes, record headers included, within which a ClientHello must be whole.
pub const MAX_HELLO: usize = 16 * 1024;

/// What a record and a handshake message begin with.
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What the first bytes of a client are, as far as TLS goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientHello {
    /// The beginning of TLS, or of what may be it; more bytes tell.
    Incomplete,
    /// Something else.
    NotTls,
    /// TLS, with this name.
    Tls(ServerName),
}

/// What a TLS client says of the server it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// Nothing.
    Absent,
    /// This host. RFC 6066 allows names alone; some clients send an address all the same.
    Host(Host),
    /// Nobody knows, and why: a broken or over-long ClientHello, or a name that is no host's.
    Unreadable(&'static str),
}

/// A ClientHello that cannot be read, and why.
type HelloFault = &'static str;

const TOO_LONG: HelloFault = "the ClientHello is longer than 16 KiB";

/// Reads the ClientHello at the front of `bytes`, over as many records as it takes.
pub fn parse_client_hello(bytes: &[u8]) -> ClientHello {
    if let Some(hello) = parse_sslv2(bytes) {
        return hello;
    }
    let seen = &bytes[..bytes.len().min(MAX_HELLO)];
    match join_message(seen) {
        Ok(Some((message, length))) => {
            let body = &message[MESSAGE_HEADER..length];
            ClientHello::Tls(server_name(body).unwrap_or_else(ServerName::Unreadable))
        }
        Ok(None) if seen.len() == MAX_HELLO => ClientHello::Tls(ServerName::Unreadable(TOO_LONG)),
        Ok(None) => ClientHello::Incomplete,
        Err(HelloStop::NotTls) => ClientHello::NotTls,
        Err(HelloStop::Unreadable(why)) => ClientHello::Tls(ServerName::Unreadable(why)),
    }
}

/// Why there is no ClientHello to read.
enum HelloStop {
    NotTls,
    Unreadable(HelloFault),
}

/// A handshake message joined from its fragments, and its length, header included.
type JoinedMessage<'a> = (Cow<'a, [u8]>, usize);

/// The ClientHello; `None` while more is needed.
fn join_message(bytes: &[u8]) -> Result<Option<JoinedMessage<'_>>, HelloStop> {
    let mut at = 0;
    let mut joined: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    loop {
        let Some(record) = read_record(&bytes[at..], !joined.is_empty())? else { return Ok(None) };
        match record.fragment {
            fragment if joined.is_empty() => joined = Cow::Borrowed(fragment),
            fragment => joined.to_mut().extend_from_slice(fragment),
        }
        if let Some(length) = message_length(&joined)?.filter(|length| joined.len() >= *length) {
            return Ok(Some((joined, length)));
        }
        if !record.whole {
            return Ok(None);
        }
        at += RECORD_HEADER + record.fragment.len();
    }
}

/// What has come of one handshake record.
struct PartialRecord<'a> {
    fragment: &'a [u8],
    whole: bool,
}

/// Reads the record at the front; `begun`: a ClientHello has begun in one before.
fn read_record(bytes: &[u8], begun: bool) -> Result<Option<PartialRecord<'_>>, HelloStop> {
    let other = || match begun {
        true => HelloStop::Unreadable("something else comes between the parts of the ClientHello"),
        false => HelloStop::NotTls,
    };
    match bytes {
        [] => return Ok(None),
        [HANDSHAKE] => return Ok(None),
        [CHANGE_CIPHER_SPEC | ALERT, ..] if !begun => return read_early_record(bytes),
        // The minor version of a first record counts nowhere.
        [HANDSHAKE, 3, ..] => {}
        _ => return Err(other()),
    }
    let &[_, _, _, high, low, ref rest @ ..] = bytes else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let fragment = &rest[..rest.len().min(length)];
    Ok(Some(PartialRecord { fragment, whole: rest.len() >= length }))
}

/// A record that belongs after a ClientHello and that lenient servers step over before one.
fn read_early_record(bytes: &[u8]) -> Result<Option<PartialRecord<'_>>, HelloStop> {
    let shape: [Option<u8>; 6] = match bytes[0] {
        ALERT => [None, Some(3), None, Some(0), Some(2), None],
        _ => [None, Some(3), None, Some(0), Some(1), Some(1)],
    };
    let fits = shape.iter().zip(bytes).all(|(want, got)| want.is_none_or(|want| want == *got));
    match fits {
        false => Err(HelloStop::NotTls),
        true if bytes.len() < shape.len() => Ok(None),
        true => Err(HelloStop::Unreadable("TLS begins with another record than a ClientHello's")),
    }
}

/// The length of the message, header included, once that has come.
fn message_length(joined: &[u8]) -> Result<Option<usize>, HelloStop> {
    match *joined {
        [] => Ok(None),
        [CLIENT_HELLO, a, b, c, ..] => {
            let length = u32::from_be_bytes([0, a, b, c]) as usize + MESSAGE_HEADER;
            match length > MAX_HELLO {
                true => Err(HelloStop::Unreadable(TOO_LONG)),
                false => Ok(Some(length)),
            }
        }
        [CLIENT_HELLO, ..] => Ok(None),
        // No server takes another message for a beginning.
        _ => Err(HelloStop::NotTls),
    }
}

/// The name in a ClientHello's body.
fn server_name(body: &[u8]) -> Result<ServerName, HelloFault> {
    let mut reader = FieldReader(body);
    reader.take_bytes(2 + 32)?; // legacy_version, random
    if reader.take_vector(1)?.len() > 32 {
        return Err("the ClientHello's session id is too long");
    }
    reader.take_vector(2)?; // cipher_suites
    reader.take_vector(1)?; // legacy_compression_methods
    if reader.0.is_empty() {
        return Ok(ServerName::Absent);
    }
    let mut extensions = FieldReader(reader.take_vector(2)?);
    if !reader.0.is_empty() {
        return Err("the ClientHello does not end where its extensions do");
    }
    let mut name = None;
    while !extensions.0.is_empty() {
        let (kind, data) = (extensions.take_number(2)?, extensions.take_vector(2)?);
        if kind == usize::from(SERVER_NAME) && name.replace(data).is_some() {
            return Err("the ClientHello has two server_name extensions");
        }
    }
    name.map_or(Ok(ServerName::Absent), one_host)
}

/// The one host of a server_name extension. A second entry, or one of another type, has no meaning yet.
fn one_host(extension: &[u8]) -> Result<ServerName, HelloFault> {
    const BROKEN: HelloFault = "the server_name extension does not hold one host name";
    let mut extension = FieldReader(extension);
    let mut list = FieldReader(extension.take_vector(2).map_err(|_| BROKEN)?);
    let kind = list.take_number(1).map_err(|_| BROKEN)?;
    let name = list.take_vector(2).map_err(|_| BROKEN)?;
    if kind != usize::from(HOST_NAME) || !list.0.is_empty() || !extension.0.is_empty() {
        return Err(BROKEN);
    }
    Host::parse(name).map(ServerName::Host).map_err(|_| "the server name is no host name")
}

/// The ClientHello that SSLv2 framed and that OpenSSL still takes (RFC 5246 appendix E.2). It has no
/// extensions.
fn parse_sslv2(bytes: &[u8]) -> Option<ClientHello> {
    bytes.first().filter(|byte| (0x80..=0xc0).contains(*byte))?; // at most 16 KiB
    let (kind, major) = (bytes.get(2), bytes.get(3));
    if kind.is_some_and(|kind| *kind != CLIENT_HELLO) || major.is_some_and(|major| *major != 3) {
        return Some(ClientHello::NotTls);
    }
    let &[high, low, _, _, _, a, b, c, d, e, f, ..] = bytes else {
        return Some(ClientHello::Incomplete);
    };
    let pair = |high, low| usize::from(u16::from_be_bytes([high, low]));
    let (ciphers, session, challenge) = (pair(a, b), pair(c, d), pair(e, f));
    let adds_up = 9 + ciphers + session + challenge == pair(high & 0x7f, low);
    match adds_up && ciphers > 0 && ciphers % 3 == 0 {
        true => Some(ClientHello::Tls(ServerName::Absent)),
        false => Some(ClientHello::NotTls),
    }
}

/// Steps over a message's fields.
struct FieldReader<'a>(&'a [u8]);

impl<'a> FieldReader<'a> {
    fn take_bytes(&mut self, n: usize) -> Result<&'a [u8], HelloFault> {
        let (taken, rest) =
            self.0.split_at_checked(n).ok_or("the ClientHello ends within a field")?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number of so many bytes.
    fn take_number(&mut self, bytes: usize) -> Result<usize, HelloFault> {
        Ok(self.take_bytes(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A vector whose length is a number of so many bytes.
    fn take_vector(&mut self, bytes: usize) -> Result<&'a [u8], HelloFault> {
        let length = self.take_number(bytes)?;
        self.take_bytes(length)
    }
}

#[cfg(test)]
#[path = "client_hello_tests.rs"]
mod tests;
