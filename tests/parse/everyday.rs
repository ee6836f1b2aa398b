//! P13 to P28 and B6 where clients and origins are sloppier than the RFCs: what everybody else reads is read
//! here, means what a strict reader says, and is written anew.

use std::time::Duration;

use tailrace_rig::client::{socks4a_request, socks5_named};
use tailrace_rig::wait::pause;
use tailrace_rig::{
    Answer, ClosedPort, ConnectionEnd, FakeUpstream, Gateway, HttpOrigin, HttpReply, Inbound,
    Origin, assert_raw_refused, assert_says,
};

/// An origin that answers each request by its first line and body.
fn telling() -> HttpOrigin {
    HttpOrigin::start(|request| {
        let body = String::from_utf8_lossy(&request.body);
        HttpReply::ok(&format!("{}|{body}", request.head.start))
    })
}

pub(crate) fn get(url: &str, fields: &str) -> String {
    format!("GET {url} HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
}

/// What the origin was sent for this request.
#[track_caller]
fn sent_for(gateway: &Gateway, origin: &HttpOrigin, request: impl AsRef<[u8]>) -> Vec<u8> {
    let mut wire = gateway.dial();
    wire.send(request);
    assert_eq!(wire.read_answer().status(), 200);
    origin.requests().last().unwrap().head.raw.clone()
}

#[test]
fn p21_empty_lines_before_any_request_are_skipped() {
    let origin = telling();
    let echo = Origin::echo();
    let fake = FakeUpstream::with("h", origin.address());
    fake.map("echo", echo.address());
    let mut gateway = Gateway::chained(&fake);
    for lines in 1..=4 {
        let empty = "\r\n".repeat(lines);
        let mut wire = gateway.dial();
        wire.send(format!("{empty}{}", get("http://h/1", "")));
        assert_eq!(wire.read_answer().body, b"GET /1 HTTP/1.1|");
        wire.send(format!(
            "{empty}POST http://h/2 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab"
        ));
        assert_eq!(wire.read_answer().body, b"POST /2 HTTP/1.1|ab");
        let mut tunnel = gateway.dial();
        tunnel.send(format!("{empty}CONNECT echo:1 HTTP/1.1\r\n\r\n\r\nx"));
        tunnel.expect("HTTP/1.1 200 Connection established\r\n\r\n\r\nx");
    }
    gateway.settle_with(&fake, 12, 8);
    assert!(gateway.access_lines().iter().all(|line| line["inbound"] != "unknown"));
}

#[test]
fn p21_a_stray_line_end_behind_a_body_has_no_answer() {
    let origin = telling();
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address()).set("limits.head_timeout", "200ms");
    });
    let mut wire = gateway.dial();
    for turn in 0..3 {
        let chunked = "POST http://h/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        let length = "POST http://h/ HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab\r\n";
        wire.send(if turn == 1 { format!("{chunked}0\r\n\r\n\r\n\r\n") } else { length.into() });
        assert_eq!(wire.read_answer().status(), 200);
        // It is no request that began and never came.
        pause(Duration::from_millis(500));
    }
    wire.send("\r");
    pause(Duration::from_millis(500));
    wire.send(format!("\n{}", get("http://h/next", "")));
    assert_eq!(wire.read_answer().body, b"GET /next HTTP/1.1|");
    // What does begin behind it is held to its time.
    wire.send("\r\nG");
    assert_says(&Answer::Http(wire.read_answer()), "head_timeout");
    wire.expect_end(ConnectionEnd::Fin);
    gateway.settle_with(&fake, 5, 1);
    assert_eq!(gateway.count("ok"), 4);
}

#[test]
fn p2_p21_a_client_that_sends_empty_lines_alone_rests() {
    let origin = telling();
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address())
            .set("limits.head_timeout", "300ms")
            .set("limits.keepalive_idle", "300ms");
    });
    // Nobody can tell yet what it speaks.
    for silence in ["\r\n", "\r\n\r\n\r"] {
        let mut wire = gateway.dial();
        wire.send(silence);
        wire.expect_end(ConnectionEnd::Fin);
    }
    let mut wire = gateway.dial();
    wire.send(get("http://h/", ""));
    assert_eq!(wire.read_answer().status(), 200);
    wire.send("\r\n");
    wire.expect_end(ConnectionEnd::Fin);
    // SOCKS has none.
    let mut wire = gateway.dial();
    wire.send(b"\r\n\x05\x01\x00");
    wire.expect_end(ConnectionEnd::Fin);
    gateway.settle_with(&fake, 4, 1);
    assert_eq!((gateway.count("head_timeout"), gateway.count("bad_request")), (2, 1));
}

#[test]
fn b6_credentials_of_a_url_become_the_field_that_says_the_same() {
    let origin = telling();
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let cases = [
        ("user:canary", "Authorization: Basic dXNlcjpjYW5hcnk=\r\n"),
        ("canary", "Authorization: Basic Y2FuYXJ5Og==\r\n"),
        (":canary", "Authorization: Basic OmNhbmFyeQ==\r\n"),
        ("%63anary:a%40b", "Authorization: Basic Y2FuYXJ5OmFAYg==\r\n"),
        ("u:%0d%0aX-Canary:%00", "Authorization: Basic dToNClgtQ2FuYXJ5OgA=\r\n"),
        ("canary%zz", "Authorization: Basic Y2FuYXJ5JXp6Og==\r\n"),
        ("", ""),
    ];
    for (userinfo, field) in cases {
        let raw = sent_for(&gateway, &origin, get(&format!("http://{userinfo}@h/p"), "A: b\r\n"));
        let wanted = format!("GET /p HTTP/1.1\r\nHost: h\r\n{field}A: b\r\n\r\n");
        assert_eq!(String::from_utf8_lossy(&raw), wanted, "{userinfo}");
    }
    // The request's own wins, and what Proxy-Authorization says is for us.
    let fields = "Authorization: Bearer own\r\nProxy-Authorization: Basic d29yazpj\r\n";
    let raw = sent_for(&gateway, &origin, get("http://user:canary@h/p", fields));
    let wanted = "GET /p HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer own\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&raw), wanted);
    gateway.settle_with(&fake, 8, 8);
    assert!(gateway.access_lines().iter().all(|line| line["host"] == "h"));
    assert_eq!(gateway.access_lines()[7]["label"], "work");
}

#[test]
fn b6_credentials_of_a_url_are_never_logged_and_never_told() {
    let fake = FakeUpstream::start();
    let gone = ClosedPort::new();
    fake.map("h", gone.address());
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address()).enforce(&["h"]).set("log.level", "trace");
    });
    let requests = [
        get("http://u:canary@h/", ""),
        get("http://canary@denied.example/", ""),
        get("http://u:canary@h:0/", ""),
        get("http://u:canary@h\\/", ""),
        get("ftp://u:canary@h/", ""),
        get("https://u:canary@h/", ""),
        "GET http://u:canary@h/ HTTP/1.32\r\n\r\n".to_owned(),
        "GET http://u:canary@h/ HTTP/1.1\r\n\r\n".to_owned(),
        "CONNECT u:canary@h:443 HTTP/1.32\r\n\r\n".to_owned(),
    ];
    for request in &requests {
        let mut wire = gateway.dial();
        wire.send(request);
        let (said, _) = wire.rest();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.starts_with("HTTP/1.1 ") && !said.starts_with("HTTP/1.1 200"), "{said}");
        assert!(!said.contains("canary"), "{request}\n{said}");
    }
    gateway.settle_and_check(requests.len() as u64);
    assert!(!gateway.log().contains("canary"), "{}", gateway.log());
}

#[test]
fn b6_paths_and_queries_are_passed_on_as_they_are() {
    let origin = telling();
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let cases: [(&[u8], &[u8]); 8] = [
        (b"http://h/a\\b", b"/a\\b"),
        (b"http://h/\\\\x\\..", b"/\\\\x\\.."),
        (b"http://h/?q=a\\b", b"/?q=a\\b"),
        ("http://h/caf\u{e9}?\u{20ac}".as_bytes(), "/caf\u{e9}?\u{20ac}".as_bytes()),
        (b"http://h/\x80\xff?\xfe", b"/\x80\xff?\xfe"),
        (b"http://h/a#b", b"/a"),
        (b"http://h/a?b#c#d", b"/a?b"),
        (b"http://h#/a", b"/"),
    ];
    for (url, path) in cases {
        let request = [b"GET ", url, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
        let raw = sent_for(&gateway, &origin, request);
        let wanted = [b"GET ", path, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
        assert_eq!(raw.escape_ascii().to_string(), wanted.escape_ascii().to_string());
    }
    gateway.settle_with(&fake, 8, 8);
}

#[test]
fn p21_p22_p23_answers_are_read_as_others_read_them_and_written_anew() {
    let answers = [
        ("X-A : 1\r\nContent-Length\t : 2\r\n\r\nok", "X-A: 1\r\nContent-Length: 2\r\n\r\nok"),
        ("Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", "Content-Length: 2\r\n\r\nok"),
        ("Content-Length: 2, 2\r\n\r\nok", "Content-Length: 2\r\n\r\nok"),
        (
            "Transfer-Encoding : chunked\r\n\r\n1 \r\no\r\n1\t ;a=b \r\nk\r\n0 \r\nX-Sum : 1\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\nX-Sum: 1\r\n\r\n",
        ),
    ];
    let origin = HttpOrigin::start(move |request| {
        let number: usize = request.head.get("x-case").unwrap().parse().unwrap();
        HttpReply::Keep(format!("HTTP/1.1 200 OK\r\n{}", answers[number].0).into())
    });
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let mut wire = gateway.dial();
    for (number, (_, wanted)) in answers.iter().enumerate() {
        wire.send(get("http://h/", &format!("X-Case: {number}\r\n")));
        wire.expect(format!("HTTP/1.1 200 OK\r\n{wanted}"));
    }
    drop(wire);
    gateway.settle_with(&fake, 4, 1);
}

#[test]
fn p23_a_requests_blanks_behind_a_chunks_size_stay_here() {
    let origin = telling();
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let mut wire = gateway.dial();
    let head = "POST http://h/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    wire.send(format!("{head}5 \r\nhello\r\n1\t;a=b\r\n!\r\n0   \r\nX: y\r\n\r\n"));
    assert_eq!(wire.read_answer().status(), 200);
    drop(wire);
    gateway.settle_with(&fake, 1, 1);
    assert_eq!(origin.requests()[0].body, b"5\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n");
}

#[test]
fn p17_p19_connects_that_everyday_clients_send() {
    let origin = Origin::send("hello");
    let fake = FakeUpstream::with("h", origin.address());
    fake.map("2001:db8::7", origin.address());
    let mut gateway = Gateway::chained(&fake);
    for head in [
        "CONNECT h:443 HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "CONNECT h:443 HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
        "CONNECT 2001:db8::7:443 HTTP/1.0\r\n\r\n",
        "CONNECT 2001:db8::7:443 HTTP/1.1\r\nHost: 2001:db8::7:443\r\n\r\n",
        "CONNECT [2001:db8::7]:443 HTTP/1.1\r\nHost: [2001:db8::7]:443\r\n\r\n",
    ] {
        let mut wire = gateway.dial();
        wire.send(head);
        wire.expect("HTTP/1.1 200 Connection established\r\n\r\nhello");
        wire.fin();
        wire.expect_end(ConnectionEnd::Fin);
    }
    gateway.settle_with(&fake, 5, 5);
    for line in &gateway.access_lines()[2..] {
        assert_eq!((&line["host"], &line["port"]), (&"2001:db8::7".into(), &443.into()));
        assert!(line["error"].is_null(), "{line}");
    }
    // It is judged as what it is: this host.
    gateway.assert_refused(Inbound::Connect, "::1:443", "denied");
}

#[test]
fn p13_a_name_in_brackets_is_an_ipv6_address() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("2001:db8::7", origin.address());
    let mut gateway = Gateway::chained(&fake);
    for name in [&b"[2001:db8::7]"[..], b"2001:db8::7", b"[2001:DB8:0::7]"] {
        let mut wire = gateway.dial();
        wire.greet();
        wire.send(socks5_named(name, 80));
        assert_eq!(wire.socks5_reply().rep, 0);
        let mut wire = gateway.dial();
        wire.send(socks4a_request(name, 80, b""));
        assert!(wire.answer(Inbound::Socks4a).is_ok());
    }
    gateway.settle_with(&fake, 6, 6);
    assert!(fake.requests().iter().all(|request| request.atyp == 4), "passed on as an address");
    for (name, outcome) in [
        (&b"[::1]"[..], "denied"),
        (b"[::ffff:127.0.0.1]", "denied"),
        (b"[127.0.0.1]", "bad_request"),
        (b"[db.corp.example]", "bad_request"),
        (b"[2001:db8::7", "bad_request"),
        (b"[2001:db8::7]:80", "bad_request"),
        (b"[fe80::1%1]", "bad_request"),
    ] {
        let (five, four) = (socks5_named(name, 80), socks4a_request(name, 80, b""));
        assert_raw_refused(gateway.proxy(), Inbound::Socks5, &five, outcome);
        assert_raw_refused(gateway.proxy(), Inbound::Socks4a, &four, outcome);
    }
    gateway.settle_with(&fake, 20, 6);
}

/// docker attach and kubectl exec by SPDY.
pub(crate) const UPGRADES: [(&str, &str); 2] = [
    ("Content-Type: text/plain\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n", "tcp"),
    ("Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n", "SPDY/3.1"),
];

pub(crate) fn attach(fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST http://h/exec HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
    )
}

#[test]
fn p28_any_protocol_is_relayed_after_its_101() {
    let origin = HttpOrigin::start(|request| {
        let protocol = request.head.get("upgrade").unwrap_or_default();
        let head =
            format!("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
        HttpReply::Upgrade((head + "hi").into())
    });
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    for (fields, protocol) in UPGRADES {
        let mut wire = gateway.dial();
        wire.send(attach(fields, ""));
        let head = wire.read_head();
        assert_eq!((head.status(), head.all("upgrade")), (101, vec![protocol]));
        assert_eq!(head.get("connection"), Some("Upgrade"));
        wire.expect("hi");
        wire.send("\r\nGET /smuggled HTTP/1.1\r\n\r\n");
        wire.expect("\r\nGET /smuggled HTTP/1.1\r\n\r\n");
        wire.fin();
        wire.expect_end(ConnectionEnd::Fin);
    }
    gateway.settle_with(&fake, 2, 2);
    assert_eq!(gateway.count("fin_fin"), 2);
}

#[test]
fn p28_without_a_101_an_upgrade_changes_nothing() {
    let origin = telling();
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    for (fields, _) in UPGRADES {
        let mut wire = gateway.dial();
        wire.send(attach(fields, "") + &get("http://127.0.0.1:1/", ""));
        assert_eq!(wire.read_answer().body, b"POST /exec HTTP/1.1|");
        assert_says(&Answer::Http(wire.read_answer()), "denied");
        wire.expect_end(ConnectionEnd::Fin);
    }
    gateway.settle_with(&fake, 4, 2);
}

#[test]
fn p27_what_may_not_be_switched_to_is_not_asked_of_the_origin() {
    let origin = HttpOrigin::start(|request| match request.head.get("x-switch") {
        Some(protocol) => {
            let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ";
            HttpReply::Keep(format!("{head}{protocol}\r\n\r\n").into())
        }
        None => HttpReply::ok("plain"),
    });
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let removed = [
        attach("Connection: Upgrade\r\nUpgrade: tcp\r\n", "{\"Tty\":true}"),
        attach("Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\nUpgrade: h2c\r\n", ""),
        attach("Connection: Upgrade\r\nUpgrade: tcp, H2C\r\n", ""),
        attach("Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n", ""),
        attach("Upgrade: tcp\r\n", ""),
    ];
    for request in &removed {
        let raw = sent_for(&gateway, &origin, request);
        let raw = String::from_utf8(raw).unwrap();
        assert!(!raw.contains("pgrade") && !raw.contains("Connection"), "{raw}");
    }
    // And nothing else is switched to than was asked for.
    for switched in ["h2c", "tcp, h2c", "SPDY/3.1"] {
        let mut wire = gateway.dial();
        wire.send(attach(&format!("{}X-Switch: {switched}\r\n", UPGRADES[0].0), ""));
        assert_says(&Answer::Http(wire.read_answer()), "upstream_protocol");
        wire.expect_end(ConnectionEnd::Fin);
    }
    gateway.settle_with(&fake, 8, 8);
}
