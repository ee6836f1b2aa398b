//! P1, P4 to P16: SOCKS.

use std::time::Duration;

use tailrace_rig::client::{socks4_request, socks4a_request, socks5_named, socks5_request};
use tailrace_rig::transcript::escape;
use tailrace_rig::wait::pause;
use tailrace_rig::{
    ConnectionEnd, FakeUpstream, Gateway, Inbound, Origin, RawConnection, assert_raw_refused,
    assert_says,
};

/// The gateway refuses each request as `bad_request` in every policy mode that has a list.
#[track_caller]
fn all_bad(requests: &[(Inbound, Vec<u8>)]) {
    for mode in ["log", "enforce"] {
        let fake = FakeUpstream::start();
        let mut gateway = Gateway::start(|s| {
            s.upstream(fake.address()).enforce(&["corp.example"]).set("policy.mode", mode);
        });
        for (inbound, request) in requests {
            assert_raw_refused(gateway.proxy(), *inbound, request, "bad_request");
        }
        gateway.settle_with(&fake, requests.len() as u64, 0);
        assert_eq!(gateway.count("bad_request"), requests.len() as u64);
    }
}

/// Sends the greeting and whatever follows it; the rest of the connection is exactly `said`.
#[track_caller]
fn says(gateway: &Gateway, sent: &[u8], said: &[u8]) {
    let mut wire = gateway.dial();
    wire.send(sent);
    let (bytes, end) = wire.rest();
    assert_eq!(escape(&bytes), escape(said), "to {}", escape(sent));
    assert_eq!(end, ConnectionEnd::Fin);
}

#[test]
fn p1_first_byte_alone_then_one_byte_at_a_time() {
    let origin = Origin::send("hello");
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let rest = Duration::from_millis(50);
    let dialogues: [(&str, Vec<u8>, &[u8], usize); 3] = [
        ("socks4", socks4a_request(b"h", 80, b""), b"\x00\x5a\0\0\0\0\0\0", 8),
        (
            "connect",
            b"CONNECT h:80 HTTP/1.1\r\n\r\n".to_vec(),
            b"HTTP/1.1 200 Connection established\r\n\r\n",
            39,
        ),
        ("socks5", [&[5, 1, 0][..], &socks5_named(b"h", 80)].concat(), b"\x05\0\x05\0\0\x01", 12),
    ];
    for (inbound, request, answer, length) in &dialogues {
        let mut wire = gateway.dial();
        wire.send_slowly(request, 1, rest);
        // A client that ends before its target is there has gone.
        let bytes = wire.read_n(length + "hello".len());
        wire.fin();
        wire.expect_end(ConnectionEnd::Fin);
        assert!(bytes.starts_with(answer), "{inbound}: {}", escape(&bytes));
        assert!(bytes.ends_with(b"hello"), "{inbound}: {}", escape(&bytes));
    }
    gateway.settle_with(&fake, 3, 3);
    for (line, (inbound, ..)) in gateway.access_lines().iter().zip(&dialogues) {
        assert_eq!(line["inbound"], *inbound, "{line}");
    }
}

#[test]
fn p2_silence_is_closed_without_a_byte_and_a_started_http_head_gets_408() {
    let fake = FakeUpstream::start();
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address()).set("limits.head_timeout", "300ms");
    });
    for started in [&b""[..], b"\x05", b"\x05\x01"] {
        says(&gateway, started, b"");
    }
    // Where a protocol is agreed on, it has words for "no".
    says(&gateway, b"\x04\x01\x00", b"\x00\x5b\0\0\0\0\0\0");
    for negotiated in [&b"\x05\x01\x00"[..], b"\x05\x01\x00\x05\x01\x00"] {
        says(&gateway, negotiated, b"\x05\x00\x05\x01\x00\x01\0\0\0\0\0\0");
    }
    says(&gateway, b"\x05\x01\x02\x01\x02me", b"\x05\x02");
    let mut wire = gateway.dial();
    wire.send("GET http://h/ HTTP/1.1\r\nHo");
    assert_says(&tailrace_rig::Answer::Http(wire.read_answer()), "head_timeout");
    wire.expect_end(ConnectionEnd::Fin);
    // One total deadline: bytes that trickle in do not move it.
    let mut wire = gateway.dial();
    let mut twin = wire.twin();
    let slow = std::thread::spawn(move || {
        for byte in b"GET http://h/ HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
            if twin.try_send([*byte]).is_err() {
                return;
            }
            pause(Duration::from_millis(30));
        }
    });
    assert_says(&tailrace_rig::Answer::Http(wire.read_answer()), "head_timeout");
    drop(wire);
    slow.join().unwrap();
    gateway.settle_with(&fake, 9, 0);
    assert_eq!(gateway.count("head_timeout"), 9);
    let heard =
        |label: &str| gateway.access_lines().iter().filter(|line| line["inbound"] == label).count();
    assert_eq!((heard("unknown"), heard("socks5"), heard("socks4"), heard("http")), (1, 5, 1, 2));
}

#[test]
fn p3_tls_on_the_proxy_port_is_closed_without_a_byte() {
    let fake = FakeUpstream::start();
    let mut gateway = Gateway::chained(&fake);
    says(&gateway, b"\x16\x03\x01\x00\x10", b"");
    says(&gateway, b"\x00", b"");
    gateway.settle_with(&fake, 2, 0);
    assert_eq!(gateway.count("bad_request"), 2);
    assert!(gateway.access_lines().iter().all(|line| line["inbound"] == "unknown"));
}

#[test]
fn p4_zero_methods_get_05_ff() {
    let fake = FakeUpstream::start();
    let mut gateway = Gateway::chained(&fake);
    says(&gateway, b"\x05\x00", b"\x05\xff");
    says(&gateway, b"\x05\x01\x01", b"\x05\xff");
    gateway.settle_with(&fake, 2, 0);
    assert_eq!(gateway.count("no_auth_method"), 2);
}

#[test]
fn p5_a_user_name_is_a_label_and_passwords_are_skipped() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let cases: [(&[u8], &[u8], &str); 4] = [
        (b"\x05\x01\x02", b"\x01\x10investigation-42\x06secret", "investigation-42"),
        (b"\x05\x03\x00\x01\x02", b"\x01\x04work\x00", "work"),
        (b"\x05\x02\x02\x00", b"\x01\x0ctskey-auth-x\x01x", "redacted"),
        (b"\x05\x01\x02", b"\x01\x03a b\x01x", "redacted"),
    ];
    for (greeting, credentials, _) in cases {
        let mut wire = gateway.dial();
        wire.send(greeting);
        wire.expect([5, 2]);
        wire.send(credentials);
        wire.expect([1, 0]);
        wire.send(socks5_named(b"h", 80));
        assert_eq!(wire.socks5_reply().rep, 0);
        wire.send("x");
        wire.expect("x");
    }
    gateway.settle_with(&fake, 4, 4);
    let log = gateway.log();
    assert!(!log.contains("secret") && !log.contains("tskey-"), "{log}");
    for (line, (_, _, label)) in gateway.wait_for_access(4).iter().zip(cases) {
        assert_eq!(line["label"], label, "{line}");
    }
    // Wrong version, empty user name.
    for bad in [&b"\x05\x01u\x00"[..], b"\x01\x00\x00"] {
        says(&gateway, &[b"\x05\x01\x02", bad].concat(), b"\x05\x02\x01\x01");
    }
    gateway.settle_with(&fake, 6, 4);
}

#[test]
fn p6_all_methods_but_user_name_choose_none() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let mut wire = gateway.dial();
    // 255 methods: every value but 02.
    let methods: Vec<u8> = (0..=255).filter(|method| *method != 2).collect();
    wire.send([&[5, 255][..], &methods].concat());
    wire.expect([5, 0]);
    wire.send(socks5_named(b"h", 80));
    assert_eq!(wire.socks5_reply().rep, 0);
    drop(wire);
    gateway.settle_with(&fake, 1, 1);
}

#[test]
fn p7_greeting_request_and_payload_in_one_segment() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let mut wire = gateway.dial();
    wire.send([&[5, 1, 0][..], &socks5_named(b"h", 80), b"payload"].concat());
    wire.expect([5, 0]);
    assert_eq!(wire.socks5_reply().rep, 0);
    wire.expect("payload");
    wire.send("more");
    wire.expect("more");
    wire.fin();
    wire.expect_end(ConnectionEnd::Fin);
    gateway.settle_with(&fake, 1, 1);
    assert_eq!(origin.only_visit().received, b"payloadmore");
}

#[test]
fn p8_p9_commands_and_address_types_we_do_not_serve() {
    let fake = FakeUpstream::start();
    let mut gateway = Gateway::chained(&fake);
    let end = b"\x00\x01\0\0\0\0\0\0";
    for command in [0x02, 0x03, 0x00, 0xff] {
        let request = [&[5, command, 0, 1][..], &[10, 0, 0, 1, 0, 80]].concat();
        let said = [&[5, 0, 5, 7][..], end].concat();
        says(&gateway, &[&[5, 1, 0][..], &request].concat(), &said);
    }
    for atyp in [0x02, 0x05] {
        let request = [&[5, 1, 0, atyp][..], &[10, 0, 0, 1, 0, 80]].concat();
        let said = [&[5, 0, 5, 8][..], end].concat();
        says(&gateway, &[&[5, 1, 0][..], &request].concat(), &said);
    }
    says(&gateway, b"\x04\x02\x00\x50\x0a\0\0\x01\0", b"\x00\x5b\0\0\0\0\0\0");
    gateway.settle_with(&fake, 7, 0);
    assert_eq!(gateway.count("unsupported_cmd"), 5);
    assert_eq!(gateway.count("unsupported_atyp"), 2);
}

#[test]
fn p10_p12_p16_what_is_tolerated() {
    let origin = Origin::echo();
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    let fake = FakeUpstream::with("h", origin.address());
    fake.map(&longest, origin.address());
    let mut gateway = Gateway::chained(&fake);
    let mut reserved = socks5_named(b"h", 80);
    reserved[2] = 0x7f;
    for request in [reserved, socks5_named(longest.as_bytes(), 80)] {
        let mut wire = gateway.dial();
        wire.greet();
        wire.send(request);
        assert_eq!(wire.socks5_reply().rep, 0);
    }
    for user in [&b""[..], &[b'u'; 255]] {
        let mut wire = gateway.dial();
        wire.send(socks4a_request(b"h", 80, user));
        assert!(wire.answer(Inbound::Socks4a).is_ok());
    }
    gateway.settle_with(&fake, 4, 4);
    let lines = gateway.access_lines();
    let labels: Vec<_> = lines.iter().filter_map(|line| line["label"].as_str()).collect();
    assert_eq!(labels, ["redacted"], "of the one who named a user");
}

#[test]
fn p11_p12_p13_names_that_are_none() {
    let long = "a".repeat(64);
    let too_long = format!("{}.example", "a.".repeat(123));
    let mut names: Vec<Vec<u8>> = vec![b"".to_vec(), long.into(), too_long.into()];
    for byte in [0u8, b'\r', b'\n', b' ', b'/', b'@', b':', b'%', 0x80, 0xff] {
        names.push([&b"evil"[..], &[byte], b".corp.example"].concat());
    }
    let requests: Vec<_> =
        names.iter().map(|name| (Inbound::Socks5, socks5_named(name, 80))).collect();
    all_bad(&requests);
}

#[test]
fn p13_a_bad_name_is_escaped_in_the_log() {
    let fake = FakeUpstream::start();
    let mut gateway = Gateway::chained(&fake);
    let name = b"x\r\n{\"level\":\"info\"}\x1b[2J";
    assert_raw_refused(gateway.proxy(), Inbound::Socks5, &socks5_named(name, 80), "bad_request");
    gateway.settle_with(&fake, 1, 0);
    let log = gateway.log();
    assert!(log.lines().all(|line| line.starts_with('{') && !line.contains('\x1b')), "{log}");
}

#[test]
fn p14_p15_ports_and_texts_that_are_none() {
    let endless = [&b"\x04\x01\x00\x50\x0a\0\0\x01"[..], &[b'u'; 600]].concat();
    let endless_name = [&b"\x04\x01\x00\x50\0\0\0\x01\0"[..], &[b'n'; 600]].concat();
    all_bad(&[
        (Inbound::Socks5, socks5_request("192.0.2.1", 0)),
        (Inbound::Socks5, socks5_named(b"h", 0)),
        (Inbound::Socks4, socks4_request([192, 0, 2, 1].into(), 0, b"")),
        (Inbound::Socks4a, socks4a_request(b"", 80, b"")),
        (Inbound::Socks4, endless),
        (Inbound::Socks4a, endless_name),
        (Inbound::Connect, b"CONNECT h:0 HTTP/1.1\r\n\r\n".to_vec()),
        (Inbound::Forward, b"GET http://h:0/ HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
    ]);
}

#[test]
fn p1_a_client_that_leaves_in_its_head_is_client_gone() {
    let fake = FakeUpstream::start();
    let mut gateway = Gateway::chained(&fake);
    for part in [&b"\x05"[..], b"\x05\x01\x00\x05\x01", b"\x04\x01", b"GET http", b"CONNECT h:8"] {
        let mut wire: RawConnection = gateway.dial();
        wire.send(part);
        wire.fin();
        let _said = wire.rest();
    }
    gateway.settle_with(&fake, 5, 0);
    assert_eq!(gateway.count("client_gone"), 5);
}
