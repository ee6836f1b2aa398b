//! P24: how long a head may be, both ways, and what is left of a long one.

use crate::lenient_http::{UPGRADES, attach, get};
use tailrace_rig::{
    Answer, ConnectionEnd, FakeUpstream, Gateway, HttpOrigin, HttpReply, Origin, assert_says,
};

/// A head of exactly so many bytes, or with so many fields.
fn filled(line: &str, bytes: usize) -> String {
    let bare = format!("{line}X: \r\n\r\n");
    format!("{line}X: {}\r\n\r\n", "x".repeat(bytes - bare.len()))
}

fn crowded(line: &str, fields: usize) -> String {
    format!("{line}{}\r\n", "X: y\r\n".repeat(fields - line.matches(':').count().min(1)))
}

#[test]
fn p24_long_heads_pass_both_ways() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n";
    let origin = HttpOrigin::start(move |request| {
        HttpReply::Keep(match request.head.start.as_str() {
            "GET /bytes HTTP/1.1" => filled(answer, 64 << 10).into(),
            "GET /more-bytes HTTP/1.1" => filled(answer, (64 << 10) + 1).into(),
            "GET /fields HTTP/1.1" => crowded(answer, 256).into(),
            "GET /more-fields HTTP/1.1" => crowded(answer, 257).into(),
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
        })
    });
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::chained(&fake);
    let line = "GET http://h/ HTTP/1.1\r\nHost: h\r\n";
    let mut wire = gateway.dial();
    for request in [filled(line, 64 << 10), crowded(line, 256), filled(line, 40 << 10)] {
        wire.send(&request);
        assert_eq!(wire.read_answer().body, b"ok");
        let sent = origin.requests().last().unwrap().head.raw.clone();
        assert_eq!(sent.len(), request.len() - "http://h".len());
    }
    for (path, size) in [("bytes", 64 << 10), ("fields", crowded(answer, 256).len())] {
        wire.send(get(&format!("http://h/{path}"), ""));
        assert_eq!(wire.read_head().raw.len(), size);
    }
    for path in ["more-bytes", "more-fields"] {
        let mut wire = gateway.dial();
        wire.send(get(&format!("http://h/{path}"), ""));
        assert_says(&Answer::Http(wire.read_answer()), "upstream_protocol");
    }
    drop(wire);
    gateway.settle_with(&fake, 7, 3);
}

#[test]
fn p24_the_longest_head_is_a_setting_that_a_reload_changes() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n";
    let origin = HttpOrigin::start(move |request| {
        let size = request.head.get("x-size").map(|size| size.parse().unwrap());
        HttpReply::Keep(filled(answer, size.unwrap_or(100)).into())
    });
    let fake = FakeUpstream::with("h", origin.address());
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address()).set("limits.max_head", "2KiB");
    });
    let line = "GET http://h/ HTTP/1.1\r\nHost: h\r\n";
    let outcomes = |gateway: &Gateway, most: usize| {
        let mut wire = gateway.dial();
        wire.send(filled(line, most));
        assert_eq!(wire.read_answer().status(), 200);
        wire.send(filled(line, most + 1));
        assert_says(&Answer::Http(wire.read_answer()), "head_too_large");
        wire.expect_end(ConnectionEnd::Fin);
        let mut wire = gateway.dial();
        wire.send(filled("CONNECT h:80 HTTP/1.1\r\n", most + 1));
        assert_says(&Answer::Http(wire.read_answer()), "head_too_large");
        let mut wire = gateway.dial();
        wire.send(get("http://h/", &format!("X-Size: {most}\r\n")));
        assert_eq!(wire.read_answer().status(), 200);
        wire.send(get("http://h/", &format!("X-Size: {}\r\n", most + 1)));
        assert_says(&Answer::Http(wire.read_answer()), "upstream_protocol");
    };
    outcomes(&gateway, 2 << 10);
    gateway.setup().set("limits.max_head", "100KiB");
    gateway.reload();
    gateway.wait_for_reloads("ok", 1);
    outcomes(&gateway, 100 << 10);
    gateway.settle_and_check(10);
    assert_eq!(gateway.count("head_too_large"), 4);
}

#[test]
fn p24_long_heads_leave_nothing_behind() {
    const CLIENTS: usize = 40;
    let long = filled("HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n", 60 << 10);
    let answer = filled("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", 60 << 10);
    let origin = HttpOrigin::start(move |request| match request.head.get("upgrade") {
        Some(_) => HttpReply::Upgrade(long.clone().into()),
        None => HttpReply::Keep(answer.clone().into()),
    });
    let echo = Origin::echo();
    let fake = FakeUpstream::with("h", origin.address());
    fake.map("echo", echo.address());
    let mut gateway = Gateway::chained(&fake);
    let heads = [
        ("at rest", "GET http://h/ HTTP/1.1\r\nHost: h\r\n".to_owned(), 200),
        ("upgraded", attach(UPGRADES[0].0, "").replace("\r\n\r\n", "\r\n"), 101),
        ("tunnels", "CONNECT echo:1 HTTP/1.1\r\n".to_owned(), 200),
    ];
    let mut asked = 0;
    for (what, head, status) in heads {
        let one = |gateway: &Gateway| {
            let mut wire = gateway.dial();
            wire.send(filled(&head, 60 << 10));
            assert_eq!(wire.read_head().status(), status);
            wire
        };
        let mut kept: Vec<_> = (0..10).map(|_| one(&gateway)).collect();
        let before = gateway.rss();
        kept.extend((0..CLIENTS).map(|_| one(&gateway)));
        let each = gateway.rss().saturating_sub(before) / CLIENTS as u64;
        println!("{what}: {each} bytes each");
        assert!(each < 24 << 10, "{what}: {each} bytes each");
        asked += kept.len();
        drop(kept);
    }
    gateway.settle_with(&fake, asked as u64, asked);
}
