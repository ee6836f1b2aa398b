//! Two nameservers: the one inside the tailnet that knows the internal domains, and a public one
//! that knows nothing and writes down who asks it what.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record};

use crate::control::{NAMES, SVC, SVC_V6};
use crate::tailnet::BEHIND_ROUTE;

/// Seconds an answer may be remembered.
const TTL: u32 = 60;

/// What a nameserver says of a name.
enum Said {
    Data(RData),
    /// There is no such name.
    Nothing,
    /// Not a word.
    Silence,
}

type Zone = fn(&str) -> Said;

/// A running nameserver, over UDP and TCP.
pub struct Nameserver {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Nameserver {
    /// The one of `corp.example`, `late.example` and `silent.example`; call it in its namespace.
    pub fn internal() -> Nameserver {
        Nameserver::start(&["127.0.0.1", NAMES], internal)
    }

    /// The one every machine outside asks; call it in its namespace.
    pub fn public(address: &str) -> Nameserver {
        Nameserver::start(&[address], |_| Said::Nothing)
    }

    fn start(addresses: &[&str], zone: Zone) -> Nameserver {
        let asked = Arc::new(Mutex::new(Vec::new()));
        for address in addresses {
            listen(&format!("{address}:53"), zone, &asked);
        }
        Nameserver { asked }
    }

    /// The questions so far, as `udp grafana.corp.example A`.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic here").clone()
    }
}

fn listen(at: &str, zone: Zone, asked: &Arc<Mutex<Vec<String>>>) {
    let datagrams = UdpSocket::bind(at).expect("the nameserver's UDP port");
    let streams = TcpListener::bind(at).expect("the nameserver's TCP port");
    let seen = Arc::clone(asked);
    thread::spawn(move || over_udp(&datagrams, zone, &seen));
    let asked = Arc::clone(asked);
    thread::spawn(move || {
        for stream in streams.incoming().flatten() {
            let seen = Arc::clone(&asked);
            thread::spawn(move || over_tcp(stream, zone, &seen));
        }
    });
}

/// The internal zone. `many` is a domain of names without number.
fn internal(name: &str) -> Said {
    let v4 = |text: &str| Said::Data(RData::A(A(text.parse::<Ipv4Addr>().expect("an address"))));
    match name {
        "grafana.corp.example" | "grafana.late.example" => v4(SVC),
        "behind.corp.example" => v4(BEHIND_ROUTE),
        "unrouted.corp.example" => v4(crate::tailnet::UNROUTED),
        "wiki.corp.example" => {
            let target = Name::from_ascii("grafana.corp.example.").expect("a name");
            Said::Data(RData::CNAME(CNAME(target)))
        }
        "six.corp.example" => {
            Said::Data(RData::AAAA(AAAA(SVC_V6.parse::<Ipv6Addr>().expect("an address"))))
        }
        name if crate::clients::NAMES.contains(&name) => v4(SVC),
        name if name.ends_with(".many.corp.example") => v4(SVC),
        name if name.ends_with("silent.example") => Said::Silence,
        _ => Said::Nothing,
    }
}

fn over_udp(socket: &UdpSocket, zone: Zone, asked: &Mutex<Vec<String>>) {
    let mut block = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut block) {
        if let Some(reply) = reply(&block[..length], zone, "udp", asked) {
            let _ = socket.send_to(&reply, from);
        }
    }
}

/// Each message has its length before it (RFC 1035, 4.2.2). The answers to A and AAAA follow each
/// other at once, as nameservers send them.
fn over_tcp(mut stream: TcpStream, zone: Zone, asked: &Mutex<Vec<String>>) {
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut query).is_err() {
            return;
        }
        if let Some(reply) = reply(&query, zone, "tcp", asked) {
            let length = u16::try_from(reply.len()).expect("a short reply");
            if stream.write_all(&[&length.to_be_bytes()[..], &reply].concat()).is_err() {
                return;
            }
        }
    }
}

fn reply(query: &[u8], zone: Zone, over: &str, asked: &Mutex<Vec<String>>) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?.clone();
    let name = question.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let kind = question.query_type();
    asked.lock().expect("no panic here").push(format!("{over} {name} {kind}"));
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.authoritative = true;
    reply.add_query(question.clone());
    let (mut owner, mut said) = (question.name().clone(), zone(&name));
    if let Said::Data(RData::CNAME(target)) = &said {
        reply.add_answer(Record::from_rdata(owner, TTL, RData::CNAME(target.clone())));
        owner = target.0.clone();
        said = zone(owner.to_ascii().trim_end_matches('.'));
    }
    match said {
        Said::Silence => return None,
        Said::Nothing => reply.metadata.response_code = ResponseCode::NXDomain,
        Said::Data(data) if data.record_type() == kind => {
            reply.add_answer(Record::from_rdata(owner, TTL, data));
        }
        Said::Data(_) => {} // the name is there, with other records
    }
    reply.to_vec().ok()
}
