//! A fake DNS server for one test in a namespace of its own: scripted answers, counted questions.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use super::netns;
use super::server::spawn;

/// Types of RFC 1035 and RFC 3596.
pub(super) const A: u16 = 1;
pub(super) const CNAME: u16 = 5;
pub(super) const SOA: u16 = 6;
pub(super) const AAAA: u16 = 28;

/// What `resolv.conf` says where the test does not care.
const CONF: &str = "nameserver 127.0.0.1\noptions timeout:1 attempts:2\n";

/// Answers every A question with the next scripted record set; AAAA and the rest get none.
pub struct SystemNameserver {
    questions: Arc<Mutex<Vec<(String, u16)>>>,
}

/// One answer: an optional alias, then the address.
#[derive(Clone)]
pub struct Record {
    /// The asked name is an alias of this one.
    pub alias: Option<&'static str>,
    /// The address.
    pub address: Ipv4Addr,
}

impl SystemNameserver {
    /// Serves 127.0.0.1:53 of this namespace and makes it the resolver of every process in it.
    /// The last record is given again when the script is used up.
    #[track_caller]
    pub fn take_over(records: impl IntoIterator<Item = Record>) -> SystemNameserver {
        SystemNameserver::take_over_with(CONF, records)
    }

    /// The same with a `resolv.conf` of the caller's.
    #[track_caller]
    pub fn take_over_with(
        conf: &str,
        records: impl IntoIterator<Item = Record>,
    ) -> SystemNameserver {
        resolve_by(conf);
        SystemNameserver::at(Ipv4Addr::LOCALHOST, records)
    }

    /// Serves port 53 of this address; who asks it is somebody else's affair.
    #[track_caller]
    pub fn at(address: Ipv4Addr, records: impl IntoIterator<Item = Record>) -> SystemNameserver {
        let socket = listen(address);
        let questions = Arc::new(Mutex::new(Vec::new()));
        let (seen, mut script) = (questions.clone(), records.into_iter().collect::<VecDeque<_>>());
        spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((n, from)) = socket.recv_from(&mut packet) {
                answer(&socket, &packet[..n], from, &mut script, &seen);
            }
        });
        SystemNameserver { questions }
    }

    /// Takes over, but never answers.
    #[track_caller]
    pub fn silent() -> SystemNameserver {
        SystemNameserver::listening(|_, _| ())
    }

    /// Takes over, and says of every answer that it is too long for a datagram (TC).
    #[track_caller]
    pub fn truncating() -> SystemNameserver {
        SystemNameserver::listening(|socket, (packet, from)| {
            let Some((_, _, end)) = question(packet) else { return };
            let head = [&packet[..2], &[0x83, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
            let _ = socket.send_to(&[&head, &packet[12..end]].concat(), from);
        })
    }

    #[track_caller]
    fn listening(
        reply: impl Fn(&UdpSocket, (&[u8], SocketAddr)) + Send + 'static,
    ) -> SystemNameserver {
        resolve_by(CONF);
        let socket = listen(Ipv4Addr::LOCALHOST);
        let questions = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&questions);
        spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((n, from)) = socket.recv_from(&mut packet) {
                let asked = question(&packet[..n]).map(|(name, kind, _)| (name, kind));
                seen.lock().unwrap().extend(asked);
                reply(&socket, (&packet[..n], from));
            }
        });
        SystemNameserver { questions }
    }

    /// Names and types asked so far.
    pub fn questions(&self) -> Vec<(String, u16)> {
        self.questions.lock().unwrap().clone()
    }

    /// How many A questions there were for `name`.
    pub fn asked(&self, name: &str) -> usize {
        self.questions().iter().filter(|(n, kind)| n == name && *kind == A).count()
    }
}

/// Makes this the resolver of every process in this namespace.
#[track_caller]
pub fn resolve_by(conf: &str) {
    let resolv = std::env::temp_dir().join(format!("tailrace-resolv-{}", std::process::id()));
    std::fs::write(&resolv, conf).expect("rig: resolv.conf");
    netns::must("mount", &["--bind", &resolv.to_string_lossy(), "/etc/resolv.conf"]);
    let _ = std::fs::remove_file(&resolv);
}

/// Port 53 of this namespace.
#[track_caller]
fn listen(address: Ipv4Addr) -> UdpSocket {
    UdpSocket::bind((address, 53)).expect("rig: port 53 of the namespace")
}

fn answer(
    socket: &UdpSocket,
    packet: &[u8],
    from: SocketAddr,
    script: &mut VecDeque<Record>,
    seen: &Mutex<Vec<(String, u16)>>,
) {
    let Some((name, kind, end)) = question(packet) else { return };
    seen.lock().unwrap().push((name, kind));
    let record = (kind == A)
        .then(|| if script.len() > 1 { script.pop_front() } else { script.front().cloned() });
    let records = record.flatten().map(|r| sections(&r)).unwrap_or_default();
    let mut reply = packet[..2].to_vec();
    reply.extend_from_slice(&[0x81, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    reply.extend_from_slice(&packet[12..end]);
    reply.extend(records.concat());
    let _ = socket.send_to(&reply, from);
}

/// Name, type and the end of the question section.
pub(super) fn question(packet: &[u8]) -> Option<(String, u16, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?);
    Some((labels.join("."), kind, at + 4))
}

/// The resource records, time to live 0: nobody may keep them.
fn sections(record: &Record) -> Vec<Vec<u8>> {
    let (asked, address) = (vec![0xc0, 12], record.address.octets());
    let Some(alias) = record.alias else {
        return vec![resource(&asked, A, 0, &address)];
    };
    let name = encode(alias);
    vec![resource(&asked, CNAME, 0, &name), resource(&name, A, 0, &address)]
}

/// A name as labels.
pub(super) fn encode(name: &str) -> Vec<u8> {
    let label = |l: &str| [&[l.len() as u8], l.as_bytes()].concat();
    let mut bytes: Vec<u8> = name.split('.').flat_map(label).collect();
    bytes.push(0);
    bytes
}

/// A record of class IN.
pub(super) fn resource(name: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let (kind, ttl, length) = (kind.to_be_bytes(), ttl.to_be_bytes(), data.len() as u16);
    [name, &kind, &[0, 1], &ttl, &length.to_be_bytes(), data].concat()
}
