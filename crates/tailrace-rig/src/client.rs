//! Clients of every inbound, byte exact, with typed answers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::http::HttpAnswer;
use super::raw_connection::RawConnection;
use super::transcript;

/// A way to ask the proxy port for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// SOCKS4: IPv4 addresses only.
    Socks4,
    /// SOCKS4a: names (an address is sent as text).
    Socks4a,
    /// SOCKS5 without a user name.
    Socks5,
    /// HTTP CONNECT.
    Connect,
    /// HTTP forward: `GET http://target/`.
    Forward,
}

impl Inbound {
    /// All five.
    pub const ALL: [Inbound; 5] =
        [Inbound::Socks4, Inbound::Socks4a, Inbound::Socks5, Inbound::Connect, Inbound::Forward];
    /// Those that take a name.
    pub const NAMED: [Inbound; 4] =
        [Inbound::Socks4a, Inbound::Socks5, Inbound::Connect, Inbound::Forward];
    /// Those that give a tunnel.
    pub const TUNNELS: [Inbound; 4] =
        [Inbound::Socks4, Inbound::Socks4a, Inbound::Socks5, Inbound::Connect];
    /// Tunnels that take a name.
    pub const NAMED_TUNNELS: [Inbound; 3] = [Inbound::Socks4a, Inbound::Socks5, Inbound::Connect];

    /// The `inbound` of log and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Inbound::Socks4 | Inbound::Socks4a => "socks4",
            Inbound::Socks5 => "socks5",
            Inbound::Connect => "connect",
            Inbound::Forward => "http",
        }
    }
}

/// A SOCKS5 reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socks5Reply {
    /// The REP field.
    pub rep: u8,
    /// The ATYP of the bound address.
    pub atyp: u8,
    /// The whole reply.
    pub raw: Vec<u8>,
}

/// What the proxy said to a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Eight bytes.
    Socks4(Vec<u8>),
    /// A reply.
    Socks5(Socks5Reply),
    /// A head, and for anything but a tunnel's 200 its body.
    Http(HttpAnswer),
}

impl Answer {
    /// SOCKS4 CD, SOCKS5 REP or the HTTP status.
    pub fn code(&self) -> u16 {
        match self {
            Answer::Socks4(raw) => raw[1].into(),
            Answer::Socks5(reply) => reply.rep.into(),
            Answer::Http(answer) => answer.status(),
        }
    }

    /// Whether it says success.
    pub fn is_ok(&self) -> bool {
        match self {
            Answer::Socks4(raw) => raw[..2] == [0, 0x5a],
            Answer::Socks5(reply) => reply.rep == 0,
            Answer::Http(answer) => answer.status() == 200,
        }
    }

    /// The HTTP answer; panics with SOCKS.
    #[track_caller]
    pub fn http(&self) -> &HttpAnswer {
        match self {
            Answer::Http(answer) => answer,
            other => panic!("not HTTP: {other:?}"),
        }
    }
}

/// Splits `host:port`, the host as it is written (IPv6 in brackets).
#[track_caller]
pub fn split(target: &str) -> (&str, u16) {
    let (host, port) =
        target.rsplit_once(':').unwrap_or_else(|| panic!("target {target:?} has no port"));
    (host, port.parse().unwrap_or_else(|_| panic!("target {target:?} has no port")))
}

/// A SOCKS5 request by address where `host` is one (IPv6 with or without brackets), else by name.
pub fn socks5_request(host: &str, port: u16) -> Vec<u8> {
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => [&[5, 1, 0, 1][..], &ip.octets(), &port.to_be_bytes()].concat(),
        Ok(IpAddr::V6(ip)) => [&[5, 1, 0, 4][..], &ip.octets(), &port.to_be_bytes()].concat(),
        Err(_) => socks5_named(host.as_bytes(), port),
    }
}

/// A SOCKS5 request by name (ATYP 03), whatever the bytes are.
pub fn socks5_named(name: &[u8], port: u16) -> Vec<u8> {
    [&[5, 1, 0, 3, name.len() as u8][..], name, &port.to_be_bytes()].concat()
}

/// A SOCKS4 request.
pub fn socks4_request(ip: Ipv4Addr, port: u16, user: &[u8]) -> Vec<u8> {
    [&[4, 1][..], &port.to_be_bytes(), &ip.octets(), user, &[0]].concat()
}

/// A SOCKS4a request.
pub fn socks4a_request(name: &[u8], port: u16, user: &[u8]) -> Vec<u8> {
    [&socks4_request(Ipv4Addr::new(0, 0, 0, 1), port, user)[..], name, &[0]].concat()
}

/// The bytes that ask for `target` over this inbound; for SOCKS5 after the greeting.
#[track_caller]
pub fn request(inbound: Inbound, target: &str) -> Vec<u8> {
    let (host, port) = split(target);
    match inbound {
        Inbound::Socks4 => {
            socks4_request(host.parse().expect("SOCKS4 takes an IPv4 address"), port, b"")
        }
        Inbound::Socks4a => socks4a_request(host.as_bytes(), port, b""),
        Inbound::Socks5 => socks5_request(host, port),
        Inbound::Connect => {
            format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes()
        }
        Inbound::Forward => {
            format!("GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes()
        }
    }
}

/// Connects, asks for `target`, and reads the answer.
#[track_caller]
pub fn ask(proxy: SocketAddr, inbound: Inbound, target: &str) -> (RawConnection, Answer) {
    ask_raw(proxy, inbound, &request(inbound, target))
}

/// The same with a request of the caller's making.
#[track_caller]
pub fn ask_raw(proxy: SocketAddr, inbound: Inbound, request: &[u8]) -> (RawConnection, Answer) {
    let mut wire = RawConnection::dial(proxy);
    transcript::line(format!("asking by {inbound:?}"));
    if inbound == Inbound::Socks5 {
        wire.greet();
    }
    wire.send(request);
    let answer = wire.answer(inbound);
    (wire, answer)
}

/// A tunnel to `target`; panics unless the proxy says success.
#[track_caller]
pub fn open(proxy: SocketAddr, inbound: Inbound, target: &str) -> RawConnection {
    let (wire, answer) = ask(proxy, inbound, target);
    assert!(answer.is_ok(), "{inbound:?} to {target}: {answer:?}");
    wire
}

/// `GET /` of `target` over any inbound: through the tunnel, or as an absolute-form request.
#[track_caller]
pub fn fetch(proxy: SocketAddr, inbound: Inbound, target: &str) -> HttpAnswer {
    if inbound == Inbound::Forward {
        return ask(proxy, inbound, target).1.http().clone();
    }
    let mut wire = open(proxy, inbound, target);
    wire.send(format!("GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"));
    wire.read_answer()
}

impl RawConnection {
    /// SOCKS5 greeting without authentication, and its answer.
    #[track_caller]
    pub fn greet(&mut self) {
        self.send([5, 1, 0]);
        self.expect([5, 0]);
    }

    /// Reads the answer of this inbound. A tunnel's 200 has no body.
    #[track_caller]
    pub fn answer(&mut self, inbound: Inbound) -> Answer {
        match inbound {
            Inbound::Socks4 | Inbound::Socks4a => Answer::Socks4(self.read_n(8)),
            Inbound::Socks5 => Answer::Socks5(self.socks5_reply()),
            Inbound::Forward => Answer::Http(self.read_answer()),
            Inbound::Connect => Answer::Http(self.connect_answer()),
        }
    }

    /// Reads one SOCKS5 reply, not a byte more.
    #[track_caller]
    pub fn socks5_reply(&mut self) -> Socks5Reply {
        let mut raw = self.read_n(5);
        let left = match raw[3] {
            1 => 5,
            3 => usize::from(raw[4]) + 2,
            4 => 17,
            other => panic!("a reply with ATYP {other}: {}", transcript::escape(&raw)),
        };
        raw.extend(self.read_n(left));
        Socks5Reply { rep: raw[1], atyp: raw[3], raw }
    }

    /// Reads the answer to CONNECT: the head alone with 200, else the whole response.
    #[track_caller]
    pub fn connect_answer(&mut self) -> HttpAnswer {
        let head = self.read_head();
        if head.status() == 200 {
            return HttpAnswer { head, body: Vec::new() };
        }
        let length = head.get("content-length").and_then(|l| l.parse().ok());
        let body = match length {
            Some(n) => self.read_n(n),
            None => self.rest().0,
        };
        HttpAnswer { head, body }
    }
}
