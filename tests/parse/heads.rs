//! P17 to P25: HTTP heads and CONNECT.

use tailrace_rig::{
    ConnectionEnd, FakeUpstream, Gateway, HttpOrigin, Inbound, Latch, Origin, UpstreamReply,
    assert_http_refused, assert_says,
};

/// Each request gets the refusal of `outcome`; the upstream hears of none.
#[track_caller]
fn all_refused(requests: &[String], outcome: &str) {
    let fake = FakeUpstream::start();
    let mut gateway = Gateway::chained(&fake);
    for request in requests {
        assert_http_refused(gateway.proxy(), request.as_bytes(), outcome);
    }
    gateway.settle_with(&fake, requests.len() as u64, 0);
    assert_eq!(gateway.count(outcome), requests.len() as u64);
}

/// A request whose head has these fields besides `Host`.
fn with(fields: &str) -> String {
    format!("POST http://h/ HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n")
}

#[test]
fn p17_host_and_authority() {
    let mut requests = vec![
        "GET http://h/ HTTP/1.1\r\n\r\n".to_owned(),
        "POST http://h/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "GET http://h/ HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n".to_owned(),
        "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\nHost: h:443\r\n\r\n".to_owned(),
    ];
    let targets =
        ["h", "/", "*", "http://h/", "h:99999", "h:+80", "h:080x", "[::1", "::1", "h:", ":80"];
    for target in targets {
        requests.push(format!("CONNECT {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
    }
    all_refused(&requests, "bad_request");
}

#[test]
fn p17_p18_connect_needs_no_host_and_http_1_0_is_fine() {
    let origin = Origin::send("hello");
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    for head in ["CONNECT h:443 HTTP/1.1\r\n\r\n", "CONNECT h:443 HTTP/1.0\r\n\r\n"] {
        let mut wire = gateway.dial();
        wire.send(head);
        wire.expect("HTTP/1.1 200 Connection established\r\n\r\nhello");
        wire.fin();
        wire.expect_end(ConnectionEnd::Fin);
    }
    gateway.settle_with(&fake, 2, 2);
}

#[test]
fn p19_connect_with_a_body_is_refused() {
    let fields = [
        "Content-Length: 5",
        "Content-Length: 0\r\nContent-Length: 0",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked",
    ];
    let head = |field| format!("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\nhello");
    all_refused(&fields.map(head), "bad_request");
}

#[test]
fn p19_early_bytes_wait_for_success_and_are_sent_first() {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let mut wire = gateway.dial();
    wire.send("CONNECT h:443 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    wire.expect("HTTP/1.1 200 Connection established\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    wire.fin();
    wire.expect_end(ConnectionEnd::Fin);
    assert_eq!(origin.only_visit().received, b"GET / HTTP/1.1\r\n\r\n");
    // On failure they are dropped, not taken for another request.
    fake.answer_for("gone", UpstreamReply::Rep(5));
    let mut wire = gateway.dial();
    wire.send("CONNECT gone:443 HTTP/1.1\r\n\r\nGET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_says(&wire.answer(Inbound::Connect), "refused");
    wire.expect_end(ConnectionEnd::Fin);
    gateway.settle_with(&fake, 2, 2);
}

#[test]
fn p20_early_bytes_push_back_on_the_client() {
    let gate = Latch::new();
    let held = gate.clone();
    let slow = Origin::start(move |guest| {
        held.wait();
        guest.read_to_end();
    });
    let fake = FakeUpstream::with("h", slow.address());
    fake.answer_for(
        "h",
        UpstreamReply::Late(std::time::Duration::from_secs(2), Box::new(UpstreamReply::Connect)),
    );
    let mut gateway = Gateway::chained(&fake);
    let before = gateway.rss();
    let mut wire = gateway.dial();
    let payload: Vec<u8> = (0..8 << 20).map(|i: u32| (i / 7) as u8).collect();
    let sent = tailrace_rig::sha256(&payload);
    let mut twin = wire.twin();
    let writer = std::thread::spawn(move || {
        twin.send("CONNECT h:443 HTTP/1.1\r\n\r\n");
        twin.send(&payload);
        twin.fin();
    });
    // While the upstream thinks, the sender is stopped by full socket buffers, and nothing is hoarded.
    tailrace_rig::wait::pause(std::time::Duration::from_millis(500));
    assert!(!writer.is_finished(), "8 MiB were taken before the target was connected");
    let grown = gateway.rss().saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes more in memory");
    gate.open();
    wire.expect("HTTP/1.1 200 Connection established\r\n\r\n");
    writer.join().unwrap();
    wire.expect_end(ConnectionEnd::Fin);
    assert_eq!(slow.only_visit().sha256(), sent);
    gateway.settle_with(&fake, 1, 1);
}

#[test]
fn p21_malformed_heads() {
    let heads = [
        "GET http://h/ HTTP/1.1\nHost: h\n\n",
        "GET http://h/ HTTP/1.1\r\nHost: h\n\r\n",
        "GET http://h/ HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
        "GET http://h/ HTTP/1.1\r\nHost : h\r\n\r\n",
        "GET http://h/ HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n",
        "GET http://h/ HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
        "GET http://h/ HTTP/1.1\r\nHost: h\r\nX: a\x07b\r\n\r\n",
        "GET http://h/ HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
        "GET http://h/ HTTP/1.1\r\nHost: h\r\nX\r\n\r\n",
        "GET http://h/ HTTP/1.32\r\nHost: h\r\n\r\n",
        "GET  http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http://h/ http/1.1\r\nHost: h\r\n\r\n",
        "GET http://h/\r\nHost: h\r\n\r\n",
        "\nGET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\rGET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\n\r\n\r\n\r\n\r\nGET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\n\r\n\r\n\r\n\r\nCONNECT h:443 HTTP/1.1\r\n\r\n",
        "CONNECT h:443 HTTP/1.1\r\nHost : h\r\n\r\n",
    ];
    all_refused(&heads.map(str::to_owned), "bad_request");
}

#[test]
fn p22_framing_that_could_be_read_twice() {
    let fields = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: +5",
        "Content-Length: 0x5",
        "Content-Length: 5,5",
        "Content-Length:",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ];
    let mut requests: Vec<String> = fields.iter().map(|f| with(f) + "0\r\n\r\n").collect();
    requests.push(with("Transfer-Encoding: chunked").replace("HTTP/1.1", "HTTP/1.0"));
    all_refused(&requests, "bad_request");
}

#[test]
fn p23_chunked_bodies_that_are_none() {
    let origin = HttpOrigin::ok("never");
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let bodies = [
        "0_2e\r\n".to_owned(),
        "11111111111111111\r\n".to_owned(),
        "-1\r\n".to_owned(),
        "5\nhello\r\n".to_owned(),
        "5\r\nhello\n".to_owned(),
        "5\r\nhello!\r\n".to_owned(),
        format!("5;{}\r\nhello\r\n", "x".repeat(253)),
        format!("5;{}\r\nhello\r\n", "x".repeat(5 * 1024)),
        format!("1;{}\r\nx\r\n", "x".repeat(200)).repeat(30),
        "0\r\nX : y\r\n\r\n".to_owned(),
    ];
    let before = gateway.cpu_time();
    for body in &bodies {
        let request = with("Transfer-Encoding: chunked") + body;
        assert_http_refused(gateway.proxy(), request.as_bytes(), "bad_request");
    }
    gateway.settle_and_check(bodies.len() as u64);
    assert!(gateway.cpu_time() - before < std::time::Duration::from_millis(500), "CPU stays flat");
    assert!(origin.requests().is_empty(), "no origin saw a whole request");
}

#[test]
fn p24_large_heads() {
    let fields = "A: b\r\n".repeat(257);
    let long = "a".repeat(64 * 1024);
    all_refused(
        &[
            format!("GET http://h/ HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "a".repeat(65 * 1024)),
            format!("GET http://h/ HTTP/1.1\r\n{fields}\r\n"),
            format!("GET http://h/{long} HTTP/1.1\r\nHost: h\r\n\r\n"),
            format!("CONNECT h:443 HTTP/1.1\r\n{fields}\r\n"),
        ],
        "head_too_large",
    );
}

#[test]
fn p25_http2_is_refused_at_once() {
    all_refused(&["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()], "bad_request");
}
