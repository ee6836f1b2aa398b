//! R16 and mistake 10: wherever the bytes of a dialogue are cut, none is lost, doubled or reordered.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tailrace_rig::client::{socks4a_request, socks5_named};
use tailrace_rig::transcript::escape;
use tailrace_rig::wait::pause;
use tailrace_rig::{FakeUpstream, Gateway, HttpOrigin, HttpReply, Origin, RawConnection};

/// Positions that are tried.
const SPLITS: usize = 600;
/// Connections that wait for their second half at the same time.
const BATCH: usize = 50;
/// The client's pause between the halves: the gateway has read the first one by then.
const PAUSE: Duration = Duration::from_millis(20);

/// Sends `dialogue` on a connection per split position and compares all that comes back.
#[track_caller]
fn every_split(gateway: &Gateway, dialogue: &[u8], answer: &[u8]) {
    assert!(dialogue.len() > SPLITS);
    let positions: Vec<usize> = (1..=SPLITS).collect();
    for batch in positions.chunks(BATCH) {
        let mut wires: Vec<(usize, RawConnection)> =
            batch.iter().map(|at| (*at, gateway.dial())).collect();
        for (at, wire) in &mut wires {
            wire.send(&dialogue[..*at]);
        }
        pause(PAUSE);
        for (at, wire) in &mut wires {
            wire.send(&dialogue[*at..]);
            wire.fin();
        }
        for (at, wire) in &mut wires {
            let (bytes, _) = wire.rest();
            assert!(matches(&bytes, answer), "split at {at}: {}", escape(&bytes));
        }
    }
}

/// Stands for a byte of the address a SOCKS5 reply tells, whatever it is.
const ANY: u8 = 0xee;

fn matches(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.len() == wanted.len() && bytes.iter().zip(wanted).all(|(b, w)| b == w || *w == ANY)
}

/// Bytes no two of which can be swapped unnoticed.
fn payload() -> Vec<u8> {
    (0..SPLITS).flat_map(|i| format!("{i},").into_bytes()).collect()
}

fn tunnel(head: &[u8], answer: &[u8]) {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let payload = payload();
    every_split(&gateway, &[head, &payload].concat(), &[answer, &payload].concat());
    gateway.settle_with(&fake, SPLITS as u64, SPLITS);
}

#[test]
fn r16_m10_socks5_at_every_split() {
    let head = [&[5, 1, 0][..], &socks5_named(b"h", 80)].concat();
    tunnel(&head, b"\x05\0\x05\0\0\x01\xee\xee\xee\xee\xee\xee");
}

#[test]
fn r16_m10_socks5_with_a_user_name_at_every_split() {
    let head = [&b"\x05\x01\x02\x01\x02me\x06secret"[..], &socks5_named(b"h", 80)].concat();
    tunnel(&head, b"\x05\x02\x01\0\x05\0\0\x01\xee\xee\xee\xee\xee\xee");
}

#[test]
fn r16_m10_socks4a_at_every_split() {
    tunnel(&socks4a_request(b"h", 80, b"me"), b"\0\x5a\0\0\0\0\0\0");
}

#[test]
fn r16_m10_connect_at_every_split() {
    let head = b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\nUser-Agent: split\r\n\r\n";
    tunnel(head, b"HTTP/1.1 200 Connection established\r\n\r\n");
}

#[test]
fn r16_m10_connect_behind_empty_lines_at_every_split() {
    let head = b"\r\n\r\n\r\n\r\nCONNECT h:80 HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    tunnel(head, b"HTTP/1.1 200 Connection established\r\n\r\n");
}

#[test]
fn r16_m10_forward_at_every_split() {
    forward_at_every_split("");
}

#[test]
fn r16_m10_forward_with_empty_lines_between_at_every_split() {
    forward_at_every_split("\r\n\r\n");
}

fn forward_at_every_split(between: &str) {
    let origin = HttpOrigin::start(|request| {
        HttpReply::ok(&format!("{} {}", request.head.start, escape(&request.body)))
    });
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let body = "x".repeat(400);
    let dialogue = format!(
        "{between}POST http://h/1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-T: 1\r\n\r\n\
         {between}POST http://h/2 HTTP/1.1\r\nHost: h\r\nContent-Length: 400\r\n\r\n{body}\
         {between}GET http://h/3 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    );
    let chunks = escape(b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n");
    let answer = |text: String, close: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{close}\r\n{text}", text.len())
    };
    let answers = [
        answer(format!("POST /1 HTTP/1.1 {chunks}"), ""),
        answer(format!("POST /2 HTTP/1.1 {body}"), ""),
        answer("GET /3 HTTP/1.1 ".into(), "Connection: close\r\n"),
    ];
    every_split(&gateway, dialogue.as_bytes(), answers.concat().as_bytes());
    gateway.settle_and_check(3 * SPLITS as u64);
    assert_eq!(gateway.count("ok"), 3 * SPLITS as u64);
}

#[test]
fn m10_u9_the_upstreams_reply_at_every_split() {
    let name = [&b"\x05\0\0\x03\x20"[..], &[b'n'; 32], &[0, 80]].concat();
    let all = [name, payload()].concat();
    let said = all.clone();
    let turn = AtomicUsize::new(0);
    let upstream = Origin::start(move |guest| {
        if !(guest.read_n(3) && guest.send(&[5, 0]) && guest.read_n(8)) {
            return;
        }
        let at = turn.fetch_add(1, Ordering::SeqCst) % SPLITS + 1;
        guest.send(&said[..at]);
        pause(PAUSE);
        guest.send(&said[at..]);
        guest.fin();
        guest.read_to_end();
    });
    let mut gateway = Gateway::start(|s| {
        s.upstream(upstream.address());
    });
    let request = [&[5, 1, 0][..], &socks5_named(b"h", 80)].concat();
    let wanted = payload();
    for _ in 0..SPLITS / BATCH {
        let mut wires: Vec<RawConnection> = (0..BATCH).map(|_| gateway.dial()).collect();
        for wire in &mut wires {
            wire.send(&request);
        }
        for wire in &mut wires {
            wire.expect([5, 0]);
            assert_eq!(wire.socks5_reply().rep, 0);
            wire.fin();
            let (bytes, _) = wire.rest();
            assert!(bytes == wanted, "{}", escape(&bytes));
        }
    }
    gateway.settle_and_check(SPLITS as u64);
}
