//! A fake DNS server for one test in a namespace of its own: scripted answers, counted questions.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use super::netns;
use super::server::spawn;

/// A, AAAA and CNAME of RFC 1035 and RFC 3596.
const A: u16 = 1;
const CNAME: u16 = 5;

/// Answers every A question with the next scripted record set; AAAA and the rest get none.
pub struct Dns {
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

impl Dns {
    /// Serves 127.0.0.1:53 of this namespace and makes it the resolver of every process in it.
    /// The last record is given again when the script is used up.
    #[track_caller]
    pub fn take_over(records: impl IntoIterator<Item = Record>) -> Dns {
        let socket = here();
        let questions = Arc::new(Mutex::new(Vec::new()));
        let (seen, mut script) = (questions.clone(), records.into_iter().collect::<VecDeque<_>>());
        spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((n, from)) = socket.recv_from(&mut packet) {
                answer(&socket, &packet[..n], from, &mut script, &seen);
            }
        });
        Dns { questions }
    }

    /// The same, but it never answers.
    #[track_caller]
    pub fn silent() -> Dns {
        let socket = here();
        let questions = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&questions);
        spawn(move || {
            let mut packet = [0; 1500];
            while let Ok(n) = socket.recv(&mut packet) {
                let asked = question(&packet[..n]).map(|(name, kind, _)| (name, kind));
                seen.lock().unwrap().extend(asked);
            }
        });
        Dns { questions }
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

/// Port 53 of this namespace, made the resolver of every process in it.
#[track_caller]
fn here() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:53").expect("rig: port 53 of the namespace");
    let resolv = std::env::temp_dir().join(format!("tailrace-resolv-{}", std::process::id()));
    std::fs::write(&resolv, "nameserver 127.0.0.1\noptions timeout:1 attempts:2\n")
        .expect("rig: resolv.conf");
    netns::must("mount", &["--bind", &resolv.to_string_lossy(), "/etc/resolv.conf"]);
    let _ = std::fs::remove_file(&resolv);
    socket
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
fn question(packet: &[u8]) -> Option<(String, u16, usize)> {
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
    let asked = vec![0xc0, 12];
    let Some(alias) = record.alias else {
        return vec![resource(&asked, A, &record.address.octets())];
    };
    let mut name: Vec<u8> =
        alias.split('.').flat_map(|l| [&[l.len() as u8], l.as_bytes()].concat()).collect();
    name.push(0);
    vec![resource(&asked, CNAME, &name), resource(&name, A, &record.address.octets())]
}

fn resource(name: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let kind = kind.to_be_bytes();
    [name, &kind, &[0, 1, 0, 0, 0, 0], &(data.len() as u16).to_be_bytes(), data].concat()
}
