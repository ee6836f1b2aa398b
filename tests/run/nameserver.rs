//! A nameserver that gives every A question one address, in the place of the gateway's DNS port.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tailrace_rig::Gateway;

/// A header, the root's name, type and class: what is shorter asks nothing.
const SHORTEST: usize = 17;

/// The server. Its threads end with the test's process.
pub(crate) struct Nameserver {
    asked: Arc<AtomicUsize>,
}

impl Nameserver {
    /// Answers with `address`, on UDP and TCP, and is published as `gateway`'s own.
    pub(crate) fn of(gateway: &Gateway, address: Ipv4Addr) -> Nameserver {
        let (socket, listener) = both();
        let asked = Arc::new(AtomicUsize::new(0));
        publish(gateway, socket.local_addr().unwrap());
        let count = asked.clone();
        std::thread::spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((n, from)) = socket.recv_from(&mut packet) {
                if n < SHORTEST {
                    continue;
                }
                count.fetch_add(1, Ordering::SeqCst);
                socket.send_to(&answer(&packet[..n], address), from).unwrap();
            }
        });
        let count = asked.clone();
        std::thread::spawn(move || {
            while let Ok((mut client, _)) = listener.accept() {
                let mut length = [0; 2];
                if client.read_exact(&mut length).is_err() {
                    continue; // it asks nothing
                }
                let mut packet = vec![0; u16::from_be_bytes(length).into()];
                client.read_exact(&mut packet).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answer(&packet, address);
                let length = (answer.len() as u16).to_be_bytes();
                client.write_all(&[&length[..], &answer].concat()).unwrap();
            }
        });
        Nameserver { asked }
    }

    /// Questions so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// One port for both.
fn both() -> (UdpSocket, TcpListener) {
    for _ in 0..50 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()) {
            return (socket, listener);
        }
    }
    panic!("no port is free for both");
}

fn publish(gateway: &Gateway, dns: SocketAddr) {
    let file = gateway.dir().join("run/gateway.json");
    let mut told: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    told["dns"] = dns.to_string().into();
    std::fs::write(file, told.to_string()).unwrap();
}

/// RFC 1035 section 4.1: the question again, and one record for type A.
fn answer(question: &[u8], address: Ipv4Addr) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let a = question[end - 4..end - 2] == [0, 1];
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(a), 0, 0, 0, 0]);
    answer.extend(&question[12..end]);
    if a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}
