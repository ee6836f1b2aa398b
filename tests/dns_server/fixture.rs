//! What the tests share: a nameserver inside the tailnet, and one question by either way.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, PTR, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use tailrace_rig::fake_tailnet::script::Script;
use tailrace_rig::wait::PATIENCE;
use tailrace_rig::{FakeTailnet, Origin};

/// A nameserver of the tailnet: DNS over TCP, questions written down.
pub(crate) struct Nameserver {
    pub(crate) origin: Origin,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Nameserver {
    /// `addresses` of every name, 60 s to live; `alias.…` is an alias of `end.corp.example`; there is
    /// no `none.…`. Every name has a TXT, an SRV, an MX and a PTR record too.
    pub(crate) fn start(addresses: &[&str]) -> Nameserver {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let seen = Arc::clone(&asked);
        let origin = Origin::start(move |guest| {
            while let Some(question) = next(&mut guest.stream) {
                let name = question.queries[0].name().to_ascii().to_ascii_lowercase();
                seen.lock().unwrap().push(name.trim_end_matches('.').to_owned());
                guest.send(&framed(&answer(&question, &addresses)));
            }
        });
        Nameserver { origin, asked }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// A message as a connection carries it.
pub(crate) fn framed(message: &Message) -> Vec<u8> {
    let bytes = message.to_vec().unwrap();
    [&(bytes.len() as u16).to_be_bytes(), &bytes[..]].concat()
}

/// The next message of a connection.
pub(crate) fn next(stream: &mut TcpStream) -> Option<Message> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes).ok()?;
    Message::from_vec(&bytes).ok()
}

/// What a question is answered: as [`Nameserver::start`] says.
pub(crate) fn answer(question: &Message, addresses: &[IpAddr]) -> Message {
    let mut answer = question.clone();
    answer.metadata.message_type = MessageType::Response;
    let query = &question.queries[0];
    let mut owner = query.name().clone();
    let text = owner.to_ascii().to_ascii_lowercase();
    if text.starts_with("none.") {
        answer.metadata.response_code = ResponseCode::NXDomain;
        return answer;
    }
    if text.starts_with("alias.") {
        let end = Name::from_ascii("end.corp.example.").unwrap();
        answer.add_answer(Record::from_rdata(owner, 60, RData::CNAME(CNAME(end.clone()))));
        owner = end;
    }
    if let Some(data) = other(query.query_type()) {
        answer.add_answer(Record::from_rdata(owner.clone(), 60, data));
    }
    for address in addresses {
        let data = match address {
            IpAddr::V4(v4) => RData::A(A(*v4)),
            IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
        };
        if data.record_type() == query.query_type() {
            answer.add_answer(Record::from_rdata(owner.clone(), 60, data));
        }
    }
    answer
}

fn other(kind: RecordType) -> Option<RData> {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    Some(match kind {
        RecordType::TXT => RData::TXT(TXT::new(vec!["v=1 all".to_owned()])),
        RecordType::SRV => RData::SRV(SRV::new(1, 2, 5432, name("db.corp.example."))),
        RecordType::MX => RData::MX(MX::new(10, name("mail.corp.example."))),
        RecordType::PTR => RData::PTR(PTR(name("web.corp.example."))),
        _ => return None,
    })
}

/// A tailnet whose `corp.example` is known to this nameserver, inside.
pub(crate) fn tailnet(nameserver: &Nameserver) -> FakeTailnet {
    tailnet_with(nameserver, |_| ())
}

/// The same, changed.
pub(crate) fn tailnet_with(
    nameserver: &Nameserver,
    change: impl FnOnce(&mut Script),
) -> FakeTailnet {
    let tailnet = FakeTailnet::with(|s| {
        s.dns["Routes"]["corp.example"] = serde_json::json!([{"Addr": "100.64.0.1"}]);
        change(s);
    });
    tailnet.place("100.64.0.1:53", nameserver.origin.address());
    tailnet
}

pub(crate) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

#[track_caller]
pub(crate) fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let asked = query(name, kind);
    let answer = ask_raw("127.0.0.1:0", server, &asked.to_vec().unwrap());
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!((answer.metadata.id, &answer.queries), (asked.metadata.id, &asked.queries));
    answer
}

/// Asks as a client that speaks EDNS: the code, and the Extended DNS Error (RFC 8914) as number and sentence.
#[track_caller]
pub(crate) fn why(server: SocketAddr, name: &str, kind: RecordType) -> (ResponseCode, u16, String) {
    let mut asked = query(name, kind);
    asked.set_edns(Edns::new());
    let answer = ask_raw("127.0.0.1:0", server, &asked.to_vec().unwrap());
    let answer = Message::from_vec(&answer).unwrap();
    let edns = answer.edns.as_ref().unwrap();
    let option = edns.options().as_ref().iter().find_map(|(_, option)| match option {
        EdnsOption::Unknown(15, data) => Some(data.clone()),
        _ => None,
    });
    let data = option.unwrap_or_else(|| vec![0, 0]);
    let text = String::from_utf8(data[2..].to_vec()).unwrap();
    (code(&answer), u16::from_be_bytes([data[0], data[1]]), text)
}

/// These bytes from this address, and what comes back.
#[track_caller]
pub(crate) fn ask_raw(from: &str, server: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let client = UdpSocket::bind(from).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(bytes, server).unwrap();
    let mut answer = vec![0; 1500];
    let length = client.recv(&mut answer).unwrap();
    answer.truncate(length);
    answer
}

#[track_caller]
pub(crate) fn ask_by_tcp(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&framed(&query(name, kind))).unwrap();
    next(&mut stream).unwrap()
}

/// Names, types and values, without their lives.
pub(crate) fn shown(answer: &Message) -> Vec<String> {
    let one = |r: &Record| format!("{} {} {}", r.name, r.record_type(), r.data);
    answer.answers.iter().map(one).collect()
}

pub(crate) fn code(answer: &Message) -> ResponseCode {
    answer.metadata.response_code
}
