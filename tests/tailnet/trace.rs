//! Everything that leaves the sandbox's namespace by its one wire, frame by frame.
//!
//! A packet socket hears loopback too; the wire's frames are told by their sender's MAC address. The
//! interface's own counter says whether every frame was heard.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{
    Timeout, set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_timeout,
};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use crate::namespace::Namespace;

/// The sandbox's end of its wire.
pub const WIRE: &str = "near";
/// ETH_P_ALL of linux/if_ether.h, in network byte order.
const EVERY_PROTOCOL: u16 = 0x0003_u16.to_be();
/// Room for a burst, in bytes.
const ROOM: usize = 32 << 20;

/// A recording under way.
pub struct Trace {
    end: Arc<AtomicBool>,
    recording: JoinHandle<Vec<Vec<u8>>>,
    sent_before: usize,
}

/// What was sent.
pub struct Frames(Vec<Vec<u8>>);

impl Trace {
    pub fn start(sandboxed: &Namespace) -> Trace {
        let mac = mac(&sandboxed.must("ip", &["-o", "link", "show", "dev", WIRE]));
        let protocol = NonZeroU32::new(EVERY_PROTOCOL.into()).map(Protocol::from_raw);
        let (socket, sent_before) = sandboxed.enter(|| {
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, protocol);
            (socket.expect("a packet socket (CAP_NET_RAW)"), packets_sent())
        });
        if set_socket_recv_buffer_size_force(&socket, ROOM).is_err() {
            let _as_much_as_there_is = set_socket_recv_buffer_size(&socket, ROOM);
        }
        let tick = Some(Duration::from_millis(50));
        set_socket_timeout(&socket, Timeout::Recv, tick).expect("SO_RCVTIMEO");
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let recording = std::thread::spawn(move || record(&socket, mac, &ended));
        Trace { end, recording, sent_before }
    }

    /// Ends the recording; a frame that was sent and not heard would make it worthless.
    pub fn stop(self, sandboxed: &Namespace) -> Frames {
        let sent = sandboxed.enter(packets_sent) - self.sent_before;
        self.end.store(true, Ordering::Release);
        let frames = self.recording.join().expect("the recording");
        assert!(frames.len() >= sent, "{sent} frames were sent, {} were heard", frames.len());
        Frames(frames)
    }
}

impl Frames {
    /// Whom the sandbox sent anything to, but for what the kernel needs to find its neighbours.
    pub fn receivers(&self) -> BTreeSet<String> {
        self.0.iter().filter_map(|frame| receiver(frame)).collect()
    }

    /// Frames that hold one of these names as DNS writes it or as text, readable by anybody.
    pub fn naming(&self, names: &[&str]) -> Vec<String> {
        let spellings: Vec<Vec<u8>> = names.iter().flat_map(|name| spellings(name)).collect();
        let names_one = |frame: &&Vec<u8>| {
            let frame = frame.to_ascii_lowercase();
            spellings.iter().any(|s| frame.windows(s.len()).any(|window| window == s))
        };
        self.0.iter().filter(names_one).map(|frame| frame.escape_ascii().to_string()).collect()
    }
}

fn record(socket: &OwnedFd, mac: [u8; 6], end: &AtomicBool) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut block = vec![0; 128 << 10];
    loop {
        // Asked before the wait: what was sent before the end is still taken.
        let last = end.load(Ordering::Acquire);
        match recv(socket, &mut block[..], RecvFlags::empty()) {
            Ok((length, _)) if block[6..12] == mac => frames.push(block[..length].to_vec()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if last => return frames,
            Err(Errno::AGAIN) => {}
            Err(error) => panic!("the packet socket: {error}"),
        }
    }
}

/// Where a frame goes: `10.99.0.1`, or `arp 10.99.0.7` for a question about an address.
fn receiver(frame: &[u8]) -> Option<String> {
    let packet = &frame[14..];
    match &frame[12..14] {
        [0x08, 0x00] => Some(Ipv4Addr::from(field::<4>(packet, 16)).to_string()),
        [0x86, 0xdd] if is_neighbour_discovery(packet) => None,
        [0x86, 0xdd] => Some(Ipv6Addr::from(field::<16>(packet, 24)).to_string()),
        [0x08, 0x06] => Some(format!("arp {}", IpAddr::from(field::<4>(packet, 24)))),
        kind => Some(format!("ethertype {}", kind.escape_ascii())),
    }
}

/// ICMPv6 133 to 136 and 143, which may follow a hop-by-hop header: the kernel's own.
fn is_neighbour_discovery(packet: &[u8]) -> bool {
    let (next, kind) = (packet[6], if packet[6] == 0 { packet[48] } else { packet[40] });
    let is_icmp = next == 58 || (next == 0 && packet[40] == 58);
    is_icmp && matches!(kind, 133..=136 | 143)
}

fn field<const N: usize>(packet: &[u8], at: usize) -> [u8; N] {
    packet[at..at + N].try_into().expect("N bytes")
}

/// Length-prefixed labels (RFC 1035, 3.1), and plain text.
fn spellings(name: &str) -> [Vec<u8>; 2] {
    let label = |label: &str| {
        let length = u8::try_from(label.len()).expect("a label");
        [&[length], label.as_bytes()].concat()
    };
    [name.split('.').flat_map(label).collect(), name.as_bytes().to_vec()]
}

/// The address in `ip -o link show`: `… link/ether 8e:…:1f brd …`.
fn mac(shown: &str) -> [u8; 6] {
    let mut words = shown.split_whitespace().skip_while(|word| *word != "link/ether");
    let text = words.nth(1).expect("a MAC address");
    let bytes: Vec<u8> = text.split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
    bytes.try_into().expect("six bytes")
}

/// What the wire's own counter says (proc_net_dev(5): the tenth number).
fn packets_sent() -> usize {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").expect("/proc");
    let line = table.lines().find_map(|line| line.trim().strip_prefix("near:")).expect("the wire");
    line.split_whitespace().nth(9).and_then(|n| n.parse().ok()).expect("a counter")
}
