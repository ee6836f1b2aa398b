//! The fake tailscaled's lines: SOCKS5 bytes, and what follows a reply.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::fake_upstream::{Shared, UpstreamReply, hold};
use super::raw_connection;
use super::server::spawn;
use super::wait::pause;

/// What the fake does after its reply bytes.
#[derive(Clone)]
pub enum AfterReply {
    /// FIN.
    Close,
    /// RST.
    Reset,
    /// Keeps the connection and reads nothing.
    Hold,
    /// Sends back what it gets, until FIN.
    Echo,
    /// Relays to this origin.
    Relay(SocketAddr),
    /// Anything else.
    Run(Arc<dyn Fn(&mut TcpStream) + Send + Sync>),
}

/// Whether a relay of the fake keeps a half-closed connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum HalfClose {
    /// FIN is passed on, the other direction lives (tailscaled from 1.104.0 on).
    Keep,
    /// The first end of either direction closes both (`return <-errc`, older ones).
    Kill,
}

/// One SOCKS request the fake read.
#[derive(Clone, Debug)]
pub struct Request {
    /// Number of the connection, from 0.
    pub connection: usize,
    /// The request, byte for byte.
    pub raw: Vec<u8>,
    /// Name or address asked for.
    pub host: String,
    /// Port asked for.
    pub port: u16,
    /// 1, 3 or 4.
    pub atyp: u8,
    /// The greeting and the request came with one read.
    pub one_segment: bool,
    /// When it was read.
    pub at: Instant,
}

/// A reply with this REP and bound address 0.0.0.0:0.
pub fn reply(rep: u8) -> Vec<u8> {
    vec![5, rep, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// A reply whose bound address is a name.
pub fn reply_with_name(rep: u8, name: &str, port: u16) -> Vec<u8> {
    let mut bytes = vec![5, rep, 0, 3, name.len() as u8];
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes
}

/// A reply whose bound address is an IPv6 one.
pub fn reply_with_v6(rep: u8, address: Ipv6Addr, port: u16) -> Vec<u8> {
    let mut bytes = vec![5, rep, 0, 4];
    bytes.extend_from_slice(&address.octets());
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes
}

/// Length of the request these bytes begin with, once they tell.
pub(super) fn request_len(bytes: &[u8]) -> Option<usize> {
    match *bytes.get(3)? {
        1 => Some(10),
        4 => Some(22),
        3 => Some(7 + *bytes.get(4)? as usize),
        _ => Some(bytes.len()),
    }
}

/// Host and port of a whole request.
pub(super) fn request_target(bytes: &[u8]) -> Option<(String, u16)> {
    let (host, port) = bytes.get(4..)?.split_at_checked(request_len(bytes)?.checked_sub(6)?)?;
    let host = match bytes[3] {
        1 => IpAddr::from(<[u8; 4]>::try_from(host).ok()?).to_string(),
        4 => IpAddr::from(<[u8; 16]>::try_from(host).ok()?).to_string(),
        3 => super::transcript::escape(&host[1..]),
        _ => return None,
    };
    Some((host, u16::from_be_bytes(port.try_into().ok()?)))
}

pub(super) fn say(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)
}

/// Each byte in a segment of its own: Nagle is off, and the pause lets the reader see it alone.
pub(super) fn dribble(stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        say(stream, &[*byte])?;
        pause(Duration::from_millis(5));
    }
    Ok(())
}

pub(super) fn play(
    stream: &mut TcpStream,
    request: &Request,
    early: Vec<u8>,
    answer: UpstreamReply,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    match answer {
        UpstreamReply::Connect => connect(stream, request, early, shared),
        UpstreamReply::Rep(rep) => {
            say(stream, &reply(rep))?;
            follow(stream, early, AfterReply::Close, shared)
        }
        UpstreamReply::Bytes(bytes, then) => {
            say(stream, &bytes)?;
            follow(stream, early, then, shared)
        }
        UpstreamReply::Dribble(bytes, then) => {
            dribble(stream, &bytes)?;
            follow(stream, early, then, shared)
        }
        UpstreamReply::Silent => {
            hold(stream);
            Ok(())
        }
        UpstreamReply::Reset => {
            raw_connection::abort(stream);
            Ok(())
        }
        UpstreamReply::Close => Ok(()),
        UpstreamReply::Late(by, answer) => {
            if super::server::peer_left(stream, by) {
                return Ok(());
            }
            play(stream, request, early, *answer, shared)
        }
    }
}

fn connect(
    stream: &mut TcpStream,
    request: &Request,
    early: Vec<u8>,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    let mapped = shared.origins.lock().unwrap().get(&request.host).copied();
    let mapped = mapped.map(|to| match to.port() {
        0 => SocketAddr::new(to.ip(), request.port),
        _ => to,
    });
    let literal = request.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, request.port));
    let origin =
        mapped.or(literal).map(|to| TcpStream::connect_timeout(&to, Duration::from_secs(5)));
    let Some(Ok(origin)) = origin else {
        return say(stream, &reply(1));
    };
    let bound = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), origin.local_addr()?.port());
    let mut bytes = reply(0);
    bytes[4..8].copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
    bytes[8..10].copy_from_slice(&bound.port().to_be_bytes());
    say(stream, &bytes)?;
    relay(stream, origin, &early, shared)
}

fn follow(
    stream: &mut TcpStream,
    early: Vec<u8>,
    then: AfterReply,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    match then {
        AfterReply::Close => {
            // A close with unread bytes would be a reset: say FIN, then read what is left.
            stream.shutdown(Shutdown::Write)?;
            drain(stream)
        }
        AfterReply::Reset => {
            raw_connection::abort(stream);
            Ok(())
        }
        AfterReply::Hold => {
            hold(stream);
            Ok(())
        }
        AfterReply::Echo => {
            say(stream, &early)?;
            let twin = stream.try_clone()?;
            io::copy(&mut &twin, stream)?;
            stream.shutdown(Shutdown::Write)
        }
        AfterReply::Relay(origin) => relay(stream, TcpStream::connect(origin)?, &early, shared),
        AfterReply::Run(act) => {
            act(stream);
            Ok(())
        }
    }
}

fn drain(mut stream: &TcpStream) -> io::Result<()> {
    let mut chunk = [0; 4096];
    while stream.read(&mut chunk)? > 0 {}
    Ok(())
}

fn relay(
    client: &TcpStream,
    origin: TcpStream,
    early: &[u8],
    shared: &Arc<Shared>,
) -> io::Result<()> {
    let _ = origin.set_nodelay(true);
    say(&origin, early)?;
    let rule = *shared.half_close.lock().unwrap();
    let (ended, wait) = mpsc::channel();
    for (from, to) in
        [(client.try_clone()?, origin.try_clone()?), (origin.try_clone()?, client.try_clone()?)]
    {
        let ended = ended.clone();
        spawn(move || {
            let _ = ended.send(one_way(&from, &to, rule));
        });
    }
    let first = wait.recv().unwrap_or(Ok(()));
    if rule == HalfClose::Kill {
        let _ = client.shutdown(Shutdown::Both);
        let _ = origin.shutdown(Shutdown::Both);
    }
    let second = wait.recv().unwrap_or(Ok(()));
    first.and(second)
}

/// Copies until FIN and passes it on (unless the relay is to die of it); a reset becomes a reset.
fn one_way(mut from: &TcpStream, mut to: &TcpStream, rule: HalfClose) -> io::Result<()> {
    let mut chunk = vec![0; 65_536];
    loop {
        match from.read(&mut chunk) {
            Ok(0) if rule == HalfClose::Kill => return Ok(()),
            Ok(0) => return to.shutdown(Shutdown::Write),
            Ok(n) => {
                if let Err(error) = to.write_all(&chunk[..n]) {
                    raw_connection::abort(from);
                    return Err(error);
                }
            }
            Err(error) => {
                raw_connection::abort(to);
                return Err(error);
            }
        }
    }
}
