//! Chapter A: abuse of the admin listener and of the metrics.
//!
//! A10 needs a tailscaled and is in `tailnet_rules.rs`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tailrace_rig::wait::{PATIENCE, assert_within, eventually, eventually_some, pause, timed};
use tailrace_rig::{
    ConnectionEnd, FakeUpstream, Gateway, HttpAnswer, Inbound, Origin, RawConnection, Setup, client,
};

const NAME: &str = "db.corp.example:80";
const PATHS: [&str; 5] =
    ["/metrics", "/healthz", "/readyz", "/api/v1/status", "/api/v1/connections"];

fn chained() -> (Origin, FakeUpstream, Gateway) {
    let origin = Origin::echo();
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let gateway = Gateway::chained(&fake);
    (origin, fake, gateway)
}

/// What the admin listener answers to these bytes.
#[track_caller]
fn raw(gateway: &Gateway, bytes: impl AsRef<[u8]>) -> HttpAnswer {
    let mut wire = RawConnection::dial(gateway.admin());
    wire.send(bytes);
    wire.read_answer()
}

#[track_caller]
fn status(gateway: &Gateway, method: &str, path: &str, fields: &str) -> u16 {
    raw(gateway, format!("{method} {path} HTTP/1.1\r\n{fields}\r\n")).status()
}

#[test]
fn a1_only_our_own_hosts_and_no_web_page() {
    let (_origin, fake, _) = chained();
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address()).set("listen.admin_hosts", vec!["metrics.internal"]);
    });
    let port = gateway.admin().port();
    for path in PATHS {
        for host in ["127.0.0.1", "localhost", "[::1]", "metrics.internal", "LocalHost"] {
            for host in [host.to_owned(), format!("{host}:{port}")] {
                assert_ne!(
                    status(&gateway, "GET", path, &format!("Host: {host}\r\n")),
                    403,
                    "{host}"
                );
            }
        }
        for fields in [
            "Host: evil.com\r\n",
            "Host: localhost.evil.com\r\n",
            "Host: 192.0.2.1\r\n",
            "",
            "Host: localhost\r\nHost: localhost\r\n",
            "Host: localhost\r\nOrigin: http://localhost\r\n",
            "Host: localhost\r\nReferer: http://localhost/\r\n",
            "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
        ] {
            assert_eq!(status(&gateway, "GET", path, fields), 403, "{path} {fields:?}");
        }
    }
}

#[test]
fn a1_no_answer_lets_other_origins_read() {
    let (_origin, _fake, gateway) = chained();
    for path in PATHS {
        for fields in ["Host: localhost\r\n", "Host: localhost\r\nOrigin: http://evil.com\r\n"] {
            let answer = raw(&gateway, format!("GET {path} HTTP/1.1\r\n{fields}\r\n"));
            let head = String::from_utf8_lossy(&answer.head.raw).to_ascii_lowercase();
            assert!(!head.contains("access-control-"), "{head}");
        }
    }
}

#[test]
fn a2_every_other_method_is_405_and_changes_nothing() {
    let (_origin, _fake, mut gateway) = chained();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "SHUTDOWN"] {
        for path in PATHS.iter().chain(&["/quit", "/debug/pprof"]) {
            assert_eq!(
                status(&gateway, method, path, "Host: localhost\r\n"),
                405,
                "{method} {path}"
            );
        }
    }
    let mut head = RawConnection::dial(gateway.admin());
    head.send("HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(head.read_head().status(), 200);
    head.expect_end(ConnectionEnd::Fin);
    assert!(gateway.alive());
    assert_eq!(gateway.admin_get("/readyz").status(), 200);
}

#[test]
fn a3_the_admin_port_is_a_loop_through_the_proxy() {
    let (_origin, fake, mut gateway) = chained();
    let admin = gateway.admin();
    for inbound in Inbound::ALL {
        gateway.assert_refused(inbound, &admin.to_string(), "loop");
    }
    for inbound in Inbound::NAMED {
        gateway.assert_refused(inbound, &format!("localhost:{}", admin.port()), "loop");
    }
    gateway.settle_with(&fake, 9, 0);
}

#[test]
fn a4_distinct_hosts_methods_and_labels_make_no_series() {
    let fake = FakeUpstream::start();
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address()).enforce(&["corp.example"]);
    });
    let names = |g: &Gateway| -> BTreeSet<String> {
        g.metrics().series().iter().map(|(name, labels, _)| format!("{name}{labels:?}")).collect()
    };
    let before = names(&gateway);
    let proxy = gateway.proxy();
    std::thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || (0..2500).for_each(|n| strange_request(proxy, part * 2500 + n)));
        }
    });
    eventually("all are counted", PATIENCE, || {
        gateway.metrics().value("tailrace_connections_total", &[]) as u64 == 10_000
    });
    assert_eq!(names(&gateway), before);
    assert!(gateway.alive());
}

/// The `n`th of many requests, each with a host, a method or a user name of its own.
fn strange_request(proxy: std::net::SocketAddr, n: u32) {
    let mut wire = RawConnection::dial(proxy);
    match n % 3 {
        0 => wire.send(format!(
            "GET http://h{n}.evil.example/ HTTP/1.1\r\nHost: h{n}.evil.example\r\n\r\n"
        )),
        1 => wire.send(format!("M{n} http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n")),
        _ => {
            let user = format!("user-{n}");
            wire.send(client::socks4a_request(
                format!("h{n}.evil.example").as_bytes(),
                443,
                user.as_bytes(),
            ));
        }
    }
    wire.rest();
}

#[test]
fn a5_a_host_that_looks_like_an_exposition_breaks_none() {
    let (_origin, fake, mut gateway) = chained();
    let host = "a\"} 1\nfake_metric 1";
    for n in 0..2 {
        let mut wire = gateway.dial();
        if n == 0 {
            wire.send(client::socks4a_request(host.as_bytes(), 443, b""));
        } else {
            wire.send(format!("CONNECT {host}:443 HTTP/1.1\r\n\r\n"));
        }
        wire.rest();
    }
    gateway.settle_with(&fake, 2, 0);
    // The rig's parser panics at a line that is none of the format.
    let metrics = gateway.metrics();
    assert!(!metrics.has("fake_metric"));
    assert_types(&String::from_utf8(gateway.admin_get("/metrics").body).unwrap());
}

/// Each family is introduced once, by HELP and TYPE, before its series; each series is there once.
#[track_caller]
fn assert_types(text: &str) {
    let (mut families, mut series) = (BTreeSet::new(), BTreeSet::new());
    let mut family = "";
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(families.insert(name), "twice: {line}");
            family = name;
        } else if !line.starts_with('#') {
            assert!(line.starts_with(family), "{line} under {family}");
            assert!(series.insert(line.rsplit_once(' ').unwrap().0), "twice: {line}");
        }
    }
    assert!(families.len() > 20, "{families:?}");
}

#[test]
fn a6_the_log_is_one_safe_line_whatever_the_client_sends() {
    let (_origin, _fake, gateway) = chained();
    let hosts = ["x\n{\"level\":\"info\"}", "\u{1b}[2J", "\u{202e}gpj.example", &"\\".repeat(255)];
    for (n, host) in hosts.iter().enumerate() {
        let mut wire = gateway.dial();
        wire.greet();
        wire.send(client::socks5_named(host.as_bytes(), 443));
        assert_eq!(wire.socks5_reply().rep, 1, "{host:?}");
        wire.expect_end(ConnectionEnd::Fin);
        let lines = gateway.wait_for_access(n + 1);
        assert_eq!((lines.len(), &lines[n]["outcome"]), (n + 1, &"bad_request".into()));
        let shown = host.as_bytes().escape_ascii().to_string();
        assert_eq!(lines[n]["host"].as_str(), Some(shown.as_str()), "the host, escaped");
    }
    let log = std::fs::read(gateway.log_path()).unwrap();
    assert!(log.iter().all(|b| (b' '..=b'~').contains(b) || *b == b'\n'), "printable ASCII only");
    let widest = gateway.access_lines().iter().map(widest_field).max();
    assert!(widest <= Some(1024), "{widest:?}");
}

/// The longest text in an access line, as it is escaped there.
fn widest_field(line: &serde_json::Value) -> usize {
    let escaped = |value: &serde_json::Value| serde_json::to_string(value).unwrap().len() - 2;
    line.as_object().unwrap().values().filter(|v| v.is_string()).map(escaped).max().unwrap()
}

#[test]
fn a6_a_label_that_is_none_is_redacted() {
    let (_origin, _fake, gateway) = chained();
    for (n, (user, label)) in [
        ("investigation-42", "investigation-42"),
        ("tskey-auth-CANARY", "redacted"),
        ("two words", "redacted"),
        ("x\u{1b}[2J", "redacted"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut wire = gateway.dial();
        wire.send(client::socks4a_request(b"db.corp.example", 80, user.as_bytes()));
        wire.read_n(8);
        wire.fin();
        wire.rest();
        assert_eq!(gateway.wait_for_access(n + 1)[n]["label"], label, "{user:?}");
    }
    assert!(!gateway.log().contains("CANARY"));
}

#[test]
fn a7_slow_readers_and_many_scrapes_do_not_touch_the_data_path() {
    let (_origin, _fake, gateway) = chained();
    let mut wire = gateway.open(Inbound::Socks5, NAME);
    let quiet = slowest_but_one(&mut wire);
    let slow: Vec<TcpStream> = (0..8).map(|_| stalled_scrape(&gateway)).collect();
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| assert_eq!(gateway.admin_get("/metrics").status(), 200));
        }
        let best = (0..3).map(|_| slowest_but_one(&mut wire)).min().unwrap();
        assert_within("a round trip beside 100 scrapes", best, quiet + Duration::from_millis(20));
    });
    drop(slow);
}

/// A client that asks for the metrics and reads none of them.
fn stalled_scrape(gateway: &Gateway) -> TcpStream {
    let wire = RawConnection::dial(gateway.admin());
    tailrace_rig::raw_connection::small_buffers(wire.tcp(), 1024);
    let mut stream = wire.tcp().try_clone().unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream
}

/// The 99th percentile of 100 round trips.
fn slowest_but_one(wire: &mut RawConnection) -> Duration {
    let round = |wire: &mut RawConnection| {
        timed(|| {
            wire.send(b"x");
            wire.expect(b"x");
        })
        .1
    };
    let mut rounds: Vec<Duration> = (0..100).map(|_| round(wire)).collect();
    rounds.sort();
    rounds[98]
}

#[test]
fn a7_sixteen_connections_ten_seconds_each() {
    let (_origin, _fake, gateway) = chained();
    // Those it has now may go at any time: a question that was answered, a look at the upstream.
    let before = gateway.fds();
    let new = |fd: &&String| fd.starts_with("socket:") && !before.contains(fd);
    let served = || gateway.fds().iter().filter(new).count();
    let start = Instant::now();
    let mut silent: Vec<RawConnection> =
        (0..24).map(|_| RawConnection::dial(gateway.admin())).collect();
    eventually("16 are served", PATIENCE, || served() == 16);
    pause(Duration::from_millis(200));
    assert_eq!(served(), 16, "and not one more");
    let (said, end) = silent[0].rest_within(Duration::from_secs(12));
    assert_eq!((said.len(), end), (0, ConnectionEnd::Fin));
    let took = start.elapsed();
    assert!((9..12).contains(&took.as_secs()), "cut after {took:?}");
    drop(silent);
    assert_eq!(gateway.admin_get("/healthz").status(), 200);
}

#[test]
fn a7_a_head_of_a_megabyte_is_431() {
    let (_origin, _fake, mut gateway) = chained();
    let before = gateway.rss();
    let head =
        format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    for _ in 0..20 {
        let mut stream = TcpStream::connect(gateway.admin()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    assert!(gateway.rss() < before + (4 << 20), "{} -> {}", before, gateway.rss());
    gateway.settle_and_check(0);
}

#[test]
fn a8_other_paths_are_404() {
    let (_origin, _fake, gateway) = chained();
    let long = format!("/{}", "a".repeat(15_000));
    for path in [
        "/",
        "/../",
        "/../metrics",
        "//",
        "//metrics",
        "/metrics/",
        "/%2e",
        "/%6detrics",
        "/api/v1",
        &long,
    ] {
        assert_eq!(status(&gateway, "GET", path, "Host: localhost\r\n"), 404, "{path}");
    }
}

#[test]
fn a9_no_secret_and_no_version_where_none_belongs() {
    let (_origin, _fake, mut gateway) = chained();
    let mut wire = gateway.dial();
    wire.send(
        "GET http://db.corp.example/p?token=CANARY1 HTTP/1.1\r\nHost: db.corp.example\r\n\
         Proxy-Authorization: Basic dXNlcjpDQU5BUlky\r\nCookie: CANARY3\r\n\r\n",
    );
    wire.fin();
    wire.rest();
    let mut tunnel = gateway.open(Inbound::Socks5, NAME);
    let version = env!("CARGO_PKG_VERSION");
    for path in PATHS {
        let answer = gateway.admin_get(path);
        let text = String::from_utf8_lossy(&[answer.head.raw, answer.body].concat()).into_owned();
        for secret in ["CANARY", "dXNlcjpDQU5BUlky"] {
            assert!(!text.contains(secret), "{path}: {text}");
        }
        if path == "/healthz" || path == "/readyz" {
            assert!(!text.contains(version), "{path}: {text}");
        }
    }
    assert_eq!(gateway.admin_get("/api/v1/status").json()["version"], version);
    let config = gateway.setup().config().to_string_lossy().into_owned();
    let shown = gateway.setup().run(&["config", "show", "--config", &config]);
    assert!(shown.status.success(), "{shown:?}");
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("CANARY"));
    tunnel.fin();
    tunnel.rest();
    assert!(!gateway.log().contains("CANARY"), "the log");
}

#[test]
fn status_and_connections_show_what_runs() {
    let (_origin, fake, gateway) = chained();
    let mut wire = gateway.open(Inbound::Socks5, NAME);
    wire.send("hello");
    wire.expect("hello");
    // A byte is counted just after the receiver's socket took it.
    let row = eventually_some("the row of the tunnel", PATIENCE, || {
        Some(gateway.admin_get("/api/v1/connections").json()[0].clone())
            .filter(|row| row["bytes_down"] == 5)
    });
    for (key, value) in [
        ("inbound", serde_json::Value::from("socks5")),
        ("host", "db.corp.example".into()),
        ("verdict", "allow".into()),
        ("stage", "relay".into()),
        ("bytes_up", 5.into()),
        ("bytes_down", 5.into()),
    ] {
        assert_eq!(row[key], value, "{key}: {row}");
    }
    let relayed = |direction| {
        let labels = [("inbound", "socks5"), ("direction", direction)];
        gateway.metrics().value("tailrace_relayed_bytes_total", &labels)
    };
    assert_eq!((relayed("up"), relayed("down")), (5.0, 5.0), "counted while it is live (C15)");
    let status = gateway.admin_get("/api/v1/status").json();
    assert_eq!(status["pid"], gateway.pid(), "{status}");
    assert_eq!(status["listeners"]["proxy"][0], gateway.proxy().to_string(), "{status}");
    assert_eq!(status["listeners"]["admin"], gateway.admin().to_string(), "{status}");
    assert_eq!(status["upstream"]["kind"], "socks5", "{status}");
    assert_eq!(status["upstream"]["address"], fake.address().to_string(), "{status}");
    assert_eq!(status["policy"]["mode"], "log", "{status}");
    wire.fin();
    wire.expect_end(ConnectionEnd::Fin);
    let line = gateway.wait_for_access(1)[0].clone();
    assert_eq!(line["id"], row["id"], "the access line has the id the live table showed");
}

#[test]
fn a_remote_admin_listener_answers_on_its_own_address() {
    tailrace_rig::netns::inside(|| {
        tailrace_rig::netns::add_address("10.99.7.1/32");
        let fake = FakeUpstream::start();
        let mut setup = Setup::new();
        setup
            .upstream(fake.address())
            .set("listen.admin", "10.99.7.1:0")
            .set("listen.allow_remote", true);
        let gateway = setup.start();
        assert_eq!(gateway.admin_get("/healthz").status(), 200);
        assert_eq!(status(&gateway, "GET", "/healthz", "Host: 10.99.7.2\r\n"), 403);
    });
}
