//! P23 and P26 to P29: requests forwarded one by one.

use std::net::SocketAddr;

use tailrace_rig::wait::{PATIENCE, eventually};
use tailrace_rig::{
    AfterReply, Answer, ConnectionEnd, FakeUpstream, Gateway, HttpAnswer, HttpOrigin, HttpReply,
    Inbound, Origin, RawConnection, UpstreamReply, assert_http_refused, assert_says,
};

fn get(target: &str, fields: &str) -> String {
    let host = target.split('/').next().unwrap_or_default();
    format!("GET http://{target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST http://h/ HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n{body}")
}

/// `h` leads to `origin`.
fn before(origin: &HttpOrigin) -> (FakeUpstream, Gateway) {
    let fake = FakeUpstream::with("h", origin.address());
    let gateway = Gateway::chained(&fake);
    (fake, gateway)
}

/// Sends a request and reads its answer on the same connection.
#[track_caller]
fn exchange(wire: &mut RawConnection, request: impl AsRef<[u8]>) -> HttpAnswer {
    wire.send(request);
    wire.read_answer()
}

#[test]
fn p26_each_pipelined_request_is_judged_and_earlier_answers_are_whole() {
    let origin = HttpOrigin::ok("first");
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address()).enforce(&["corp.example"]);
    });
    let mut wire = gateway.dial();
    let both = [get("db.corp.example/", ""), get("evil.example/", ""), get("db.corp.example/", "")];
    wire.send(both.concat());
    assert_eq!(wire.read_answer().body, b"first");
    assert_says(&Answer::Http(wire.read_answer()), "denied");
    wire.expect_end(ConnectionEnd::Fin);
    gateway.settle_with(&fake, 2, 1);
    let outcomes: Vec<_> = gateway.access_lines().iter().map(|l| l["outcome"].clone()).collect();
    assert_eq!(outcomes, ["ok", "denied"]);
    assert_ne!(gateway.access_lines()[0]["id"], gateway.access_lines()[1]["id"]);
}

#[test]
fn p26_requests_to_one_target_share_an_upstream_connection_and_others_do_not() {
    let origin = HttpOrigin::ok("x");
    let other = HttpOrigin::ok("y");
    let (fake, mut gateway) = before(&origin);
    fake.map("other", other.address());
    let mut wire = gateway.dial();
    for (target, body) in [("h/1", b"x"), ("h/2", b"x"), ("other/3", b"y"), ("h/4", b"x")] {
        assert_eq!(exchange(&mut wire, get(target, "")).body, body, "{target}");
    }
    drop(wire);
    gateway.settle_with(&fake, 4, 3);
    let connections: Vec<_> = origin.requests().iter().map(|r| r.connection).collect();
    assert_eq!(connections, [0, 0, 1]);
}

#[test]
fn p26_an_upstream_that_closed_between_requests_is_replaced() {
    let origin = HttpOrigin::start(|_| match HttpReply::ok("x") {
        HttpReply::Keep(bytes) => HttpReply::Close(bytes),
        other => other,
    });
    let (_fake, mut gateway) = before(&origin);
    let mut wire = gateway.dial();
    for _ in 0..5 {
        assert_eq!(exchange(&mut wire, get("h/", "")).body, b"x");
    }
    drop(wire);
    gateway.settle_and_check(5);
    assert_eq!(gateway.count("ok"), 5);
}

#[test]
fn p26_a_request_with_a_body_is_not_sent_to_an_upstream_that_has_closed() {
    let origin = HttpOrigin::start(|_| match HttpReply::ok("x") {
        HttpReply::Keep(bytes) => HttpReply::Close(bytes),
        other => other,
    });
    let (fake, mut gateway) = before(&origin);
    let mut wire = gateway.dial();
    for _ in 0..5 {
        assert_eq!(exchange(&mut wire, post("Content-Length: 5", "hello")).status(), 200);
        // The client rests between its requests; the origin's FIN comes meanwhile.
        eventually("the origin's FIN is there", PATIENCE, || heard_a_fin_from(fake.address()) > 0);
    }
    drop(wire);
    gateway.settle_and_check(5);
    assert_eq!(gateway.count("ok"), 5);
}

/// How many sockets connected to this address have heard its FIN and not yet sent their own (proc(5),
/// `net/tcp`: `CLOSE_WAIT` is 08).
fn heard_a_fin_from(address: SocketAddr) -> usize {
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(2).is_some_and(|to| to.ends_with(&port)) && row.get(3) == Some(&"08"))
        .count()
}

#[test]
fn p29_bytes_that_came_with_the_upstreams_reply_answer_one_request_only() {
    let early = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly";
    let fake = FakeUpstream::start();
    let reply = [&tailrace_rig::socks_script::reply(0)[..], early].concat();
    fake.answer(UpstreamReply::Bytes(reply, AfterReply::Hold));
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address()).set("limits.idle_timeout", "1s");
    });
    let mut wire = gateway.dial();
    assert_eq!(exchange(&mut wire, get("h/1", "")).body, b"early");
    wire.send(get("h/2", ""));
    let (bytes, _) = wire.rest();
    assert!(!bytes.ends_with(b"early"), "the same bytes answer again");
    gateway.settle_with(&fake, 2, 1);
}

#[test]
fn p26_expect_and_interim_answers_are_relayed() {
    let origin = HttpOrigin::with_interim(
        |head| {
            let hints = head.get("x-hints").is_some();
            hints.then(|| b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".to_vec())
        },
        |request| HttpReply::ok(&String::from_utf8_lossy(&request.body)),
    );
    let (fake, mut gateway) = before(&origin);
    let mut wire = gateway.dial();
    wire.send(post("Expect: 100-continue\r\nContent-Length: 5", ""));
    assert_eq!(wire.read_head().start, "HTTP/1.1 100 Continue");
    assert_eq!(exchange(&mut wire, "hello").body, b"hello");
    wire.send(get("h/", "X-Hints: 1\r\n"));
    let hints = wire.read_head();
    assert_eq!((hints.status(), hints.get("link")), (103, Some("</a>")));
    assert_eq!(wire.read_answer().status(), 200);
    drop(wire);
    gateway.settle_with(&fake, 2, 1);
    assert_eq!(origin.requests()[0].head.get("expect"), Some("100-continue"));
}

#[test]
fn p26_an_answer_that_refuses_the_body_arrives_whole() {
    let origin = Origin::start(|guest| {
        while !guest_has_head(guest) {}
        guest.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge");
        guest.read_to_end();
    });
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let mut wire = gateway.dial();
    wire.send(post("Content-Length: 1000000", "the first bytes"));
    let answer = wire.read_answer();
    assert_eq!((answer.status(), &answer.body[..]), (413, &b"large"[..]));
    assert_eq!(answer.head.get("connection"), Some("close"));
    wire.expect_end(ConnectionEnd::Fin);
    drop(wire);
    gateway.settle_with(&fake, 1, 1);
    assert_eq!(gateway.outcome(1), "ok");
}

/// Reads on until a blank line has come.
fn guest_has_head(guest: &mut tailrace_rig::origin::OriginConnection) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && guest.read(&mut byte) == 1 {
        head.push(byte[0]);
    }
    true
}

#[test]
fn p23_chunks_and_trailers_go_both_ways() {
    let origin = HttpOrigin::start(|_| {
        HttpReply::Keep(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
              3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\n\r\n"
                .to_vec(),
        )
    });
    let (fake, mut gateway) = before(&origin);
    let mut wire = gateway.dial();
    let body = "5;ext=1\r\nhello\r\n06\r\n world\r\n0\r\nX-T: 1\r\nContent-Length: 9\r\nHost: evil\r\n\
                Authorization: Basic eDp5\r\n\r\n";
    wire.send(post("Transfer-Encoding: chunked", body));
    let head = wire.read_head();
    assert_eq!(head.get("transfer-encoding"), Some("chunked"));
    wire.expect("3\r\nabc\r\na\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n");
    assert_eq!(exchange(&mut wire, get("h/", "")).body, b"abc0123456789");
    drop(wire);
    gateway.settle_with(&fake, 2, 1);
    let sent = String::from_utf8(origin.requests()[0].body.clone()).unwrap();
    assert_eq!(sent, "5\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n");
}

#[test]
fn p23_a_chunked_upload_of_many_sizes_arrives_exactly() {
    let origin = HttpOrigin::ok("done");
    let (_fake, mut gateway) = before(&origin);
    let mut wire = gateway.dial();
    let mut wanted = Vec::new();
    wire.send(post("Transfer-Encoding: chunked", ""));
    for size in [1usize, 2, 255, 256, 4095, 4096, 65_535, 65_536, 65_537, 300_000] {
        let data: Vec<u8> = (0..size).map(|i| (i * 31 + size) as u8).collect();
        let chunk = [format!("{size:x}\r\n").as_bytes(), &data, b"\r\n"].concat();
        wire.send(&chunk);
        wanted.extend(chunk);
    }
    wanted.extend(b"0\r\n\r\n");
    assert_eq!(exchange(&mut wire, "0\r\n\r\n").body, b"done");
    drop(wire);
    gateway.settle_and_check(1);
    assert!(origin.requests()[0].body == wanted, "the body differs");
}

#[test]
fn p27_hop_by_hop_fields_stay_here() {
    let origin = HttpOrigin::start(|_| {
        HttpReply::Keep(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
              Keep-Alive: timeout=5\r\nX-End: 2\r\n\r\nx"
                .to_vec(),
        )
    });
    let (fake, mut gateway) = before(&origin);
    let mut wire = gateway.dial();
    let fields = "Connection: x-a, keep-alive\r\nX-A: 1\r\nX-B: 2\r\nProxy-Connection: keep-alive\r\n\
                  Proxy-Authorization: Basic d29yazpzZWNyZXQ=\r\nTE: trailers\r\nKeep-Alive: 5\r\n\
                  Upgrade: h2c\r\n";
    let answer = exchange(&mut wire, get("h/p?q=1", fields));
    assert_eq!((answer.head.get("x-hop"), answer.head.get("keep-alive")), (None, None));
    assert_eq!(answer.head.get("x-end"), Some("2"));
    let raw = String::from_utf8(origin.requests()[0].head.raw.clone()).unwrap();
    assert_eq!(raw, "GET /p?q=1 HTTP/1.1\r\nHost: h\r\nX-B: 2\r\n\r\n");
    drop(wire);
    for named in ["host", "content-length", "Transfer-Encoding"] {
        let request = get("h/", &format!("Connection: {named}\r\n"));
        assert_http_refused(gateway.proxy(), request.as_bytes(), "bad_request");
    }
    gateway.settle_with(&fake, 4, 1);
    assert_eq!(gateway.access_lines()[0]["label"], "work");
    assert!(!gateway.log().contains("secret"));
}

const UPGRADE: &str =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn p28_websocket_is_a_relay_after_a_101() {
    let origin = HttpOrigin::start(|_| {
        HttpReply::Upgrade(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi"
                .to_vec(),
        )
    });
    let (fake, mut gateway) = before(&origin);
    let mut wire = gateway.dial();
    wire.send(get("h/", UPGRADE));
    let head = wire.read_head();
    assert_eq!((head.status(), head.get("upgrade")), (101, Some("websocket")));
    assert_eq!(head.get("connection"), Some("Upgrade"));
    wire.expect("hi");
    wire.send("GET /smuggled HTTP/1.1\r\n\r\n");
    wire.expect("GET /smuggled HTTP/1.1\r\n\r\n");
    wire.fin();
    wire.expect_end(ConnectionEnd::Fin);
    gateway.settle_with(&fake, 1, 1);
    assert_eq!(gateway.outcome(1), "fin_fin");
}

#[test]
fn p28_a_200_to_an_upgrade_keeps_http_framing() {
    let origin = HttpOrigin::ok("plain");
    let (fake, mut gateway) = before(&origin);
    let mut wire = gateway.dial();
    // The second request must be judged, not tunnelled to the origin that said 200.
    wire.send(get("h/", UPGRADE) + &get("127.0.0.1:1/", ""));
    assert_eq!(wire.read_answer().body, b"plain");
    assert_says(&Answer::Http(wire.read_answer()), "denied");
    wire.expect_end(ConnectionEnd::Fin);
    gateway.settle_with(&fake, 2, 1);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn p29_responses_that_are_none_become_502() {
    let bad = [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "200 OK\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 1\n\nx",
        "HTTP/1.1 200 OK\r\n X: y\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    ];
    let origin = HttpOrigin::start(move |request| {
        let number: usize = request.head.get("x-case").unwrap().parse().unwrap();
        HttpReply::Keep(bad[number].as_bytes().to_vec())
    });
    let (fake, mut gateway) = before(&origin);
    for (number, response) in bad.iter().enumerate() {
        let mut wire = gateway.dial();
        let answer = exchange(&mut wire, get("h/", &format!("X-Case: {number}\r\n")));
        assert_eq!(answer.status(), 502, "{response:?}");
        assert_says(&Answer::Http(answer), "upstream_protocol");
        wire.expect_end(ConnectionEnd::Fin);
    }
    gateway.settle_with(&fake, bad.len() as u64, bad.len());
    assert!(origin.visits().iter().all(|visit| visit.end.is_some()), "no origin is used again");
}

#[test]
fn p29_half_an_answer_never_looks_whole() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    let bad_chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n";
    for response in [half, bad_chunk] {
        let origin = HttpOrigin::start(move |_| HttpReply::Close(response.into()));
        let (fake, mut gateway) = before(&origin);
        let mut wire = gateway.dial();
        wire.send(get("h/", ""));
        let (bytes, end) = wire.rest();
        assert!(bytes.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", bytes.escape_ascii());
        assert_eq!(end, ConnectionEnd::Reset, "{response:?}");
        drop(wire);
        gateway.settle_with(&fake, 1, 1);
        assert_ne!(gateway.outcome(1), "ok");
    }
}

#[test]
fn p28_answers_without_a_body_leave_the_connection_in_step() {
    let origin = HttpOrigin::start(|request| match request.head.start.as_str() {
        start if start.starts_with("HEAD") => {
            HttpReply::Keep(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec())
        }
        start if start.contains("/204") => {
            HttpReply::Keep(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())
        }
        start if start.contains("/304") => {
            HttpReply::Keep(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n".to_vec())
        }
        _ => HttpReply::ok("body"),
    });
    let (fake, mut gateway) = before(&origin);
    let mut wire = gateway.dial();
    wire.send("HEAD http://h/ HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(wire.read_head().get("content-length"), Some("5"));
    assert_eq!(exchange(&mut wire, get("h/204", "")).status(), 204);
    assert_eq!(exchange(&mut wire, get("h/304", "")).status(), 304);
    assert_eq!(exchange(&mut wire, get("h/", "")).body, b"body");
    drop(wire);
    gateway.settle_with(&fake, 4, 1);
}

#[test]
fn p29_an_answer_framed_by_the_end_of_its_connection_ends_the_clients_too() {
    let origin =
        HttpOrigin::start(|_| HttpReply::Close(b"HTTP/1.1 200 OK\r\n\r\nall of it".into()));
    let (fake, mut gateway) = before(&origin);
    let mut wire = gateway.dial();
    let answer = exchange(&mut wire, get("h/", ""));
    assert_eq!(answer.body, b"all of it");
    assert_eq!(answer.head.get("connection"), Some("close"));
    drop(wire);
    gateway.settle_with(&fake, 1, 1);
}

#[test]
fn p18_an_http_1_0_client_is_answered_plainly_and_closed() {
    let origin = HttpOrigin::with_interim(
        |_| Some(b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec()),
        |_| {
            HttpReply::Keep(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                    .to_vec(),
            )
        },
    );
    let (fake, mut gateway) = before(&origin);
    let mut wire = gateway.dial();
    wire.send("GET http://h/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let head = wire.read_head();
    assert_eq!(head.status(), 200);
    assert_eq!((head.get("transfer-encoding"), head.get("connection")), (None, Some("close")));
    wire.expect("abc");
    wire.expect_end(ConnectionEnd::Fin);
    gateway.settle_with(&fake, 1, 1);
}

#[test]
fn p2_a_keep_alive_connection_that_stays_silent_is_closed() {
    let origin = HttpOrigin::ok("x");
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address()).set("limits.keepalive_idle", "300ms");
    });
    let (mut wire, answer) = gateway.ask(Inbound::Forward, "h:80");
    assert!(answer.is_ok());
    wire.expect_end(ConnectionEnd::Fin);
    // A second head that starts and stalls is timed out with words.
    gateway.setup().set("limits.keepalive_idle", "60s").set("limits.head_timeout", "300ms");
    gateway.reload();
    let (mut wire, answer) = gateway.ask(Inbound::Forward, "h:80");
    assert!(answer.is_ok());
    wire.send("GET http");
    assert_says(&Answer::Http(wire.read_answer()), "head_timeout");
    wire.expect_end(ConnectionEnd::Fin);
    gateway.settle_with(&fake, 3, 2);
}
