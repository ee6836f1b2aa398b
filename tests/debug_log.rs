//! The debug log of one failing connection is what docs/debugging.md shows, one id finds all of it, and `log.level`
//! says whether it is written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use tailrace_rig::wait::{PATIENCE, eventually};
use tailrace_rig::{FakeTailnet, FakeUpstream, Gateway, HttpOrigin, Inbound, Setup};

/// The page, whose first block of output is a log.
const PAGE: &str = include_str!("../docs/debugging.md");
/// What the example sets.
const LEVEL: &str = "info,tailrace::connection=debug";

/// A line without what differs from run to run: its time, its id, ports and durations.
fn normal(line: &str) -> String {
    let (_time, line) = line.split_once(' ').unwrap();
    let word = |word: &str| match word.split_once('=') {
        Some((key @ ("id" | "client" | "listener" | "ms"), _)) => format!("{key}=…"),
        _ => word.to_owned(),
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// The lines of the page's first block that begins with a time.
fn shown() -> Vec<String> {
    let block = PAGE.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    block.lines().map(normal).collect()
}

/// Every line with the id that the last line of the log about a connection carries.
fn lines_of_last(gateway: &Gateway, last: &str) -> Vec<String> {
    let has_ended = |log: &str| log.lines().any(|line| line.contains(last));
    eventually("the access line", PATIENCE, || has_ended(&gateway.log()));
    let log = gateway.log();
    let line = log.lines().rfind(|line| line.contains(last)).unwrap();
    let id = line.split(' ').find(|word| word.starts_with("id=")).unwrap();
    log.lines().filter(|line| line.contains(id)).map(normal).collect()
}

#[test]
fn the_log_of_a_failing_connection_is_the_one_of_the_page() {
    let tailnet = FakeTailnet::with(|s| {
        s.dns["ExtraRecords"] = serde_json::json!([
            {"Name": "grafana.corp.example", "Type": "A", "Value": "10.60.0.7"}]);
    });
    let gateway = tailnet.gateway(|s| {
        s.set("log.level", LEVEL).set("log.format", "text");
        s.set("upstream.outside_tailnet", "refuse").set("record.process", false);
        s.set("policy.mode", "enforce").set("policy.allowed_host_suffixes", vec!["corp.example"]);
    });
    let target = "grafana.corp.example:443";
    gateway.assert_refused(Inbound::Socks5, target, "unreachable");
    let lines = lines_of_last(&gateway, "INFO  socks5 grafana.corp.example:443");
    assert_eq!(lines, shown(), "{}", gateway.log());
}

#[test]
fn each_request_of_a_connection_is_followed_by_the_id_of_its_own_line() {
    let origin = HttpOrigin::ok("hi");
    let fake = FakeUpstream::with("db.corp.example", origin.address());
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address()).set("log.level", LEVEL);
    });
    let mut wire = gateway.dial();
    for _ in 0..2 {
        wire.send("GET http://db.corp.example/ HTTP/1.1\r\nHost: db.corp.example\r\n\r\n");
        assert_eq!(wire.read_answer().status(), 200);
    }
    wire.send("GET http://db.corp.example/ HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n");
    assert_eq!(wire.read_answer().status(), 400);
    let access = gateway.wait_for_access(3);
    let last = |message: &str| {
        let lines = gateway.log_lines().into_iter().rev();
        lines.into_iter().find(|line| line["message"] == message)
    };
    eventually("the connection is closed", PATIENCE, || last("closed").is_some());
    for message in ["no request", "closed"] {
        assert_eq!(last(message).unwrap()["id"], access[2]["id"], "{message}");
    }
    let decided = |line: &serde_json::Value| line["message"] == "effective target";
    let decided: Vec<_> = gateway.log_lines().into_iter().filter(decided).collect();
    assert_eq!(decided.len(), 2, "{decided:?}");
    for (decided, access) in decided.iter().zip(&access) {
        assert_eq!(decided["id"], access["id"]);
    }
    assert_ne!(access[0]["id"], access[1]["id"]);
}

/// Whether the debug log of a connection that is refused now is written, all of which is there once its access line is.
#[track_caller]
fn writes_debug_log(gateway: &Gateway, connections: usize) -> bool {
    gateway.assert_refused(Inbound::Socks5, "evil.example:443", "denied");
    let access = gateway.wait_for_access(connections).pop().unwrap();
    let of_it = |line: &serde_json::Value| line["id"] == access["id"] && line["level"] == "debug";
    gateway.log_lines().iter().any(of_it)
}

/// A gateway whose file says `level`.
fn leveled(level: &str, change: impl FnOnce(&mut Setup)) -> Gateway {
    Gateway::start(|s| {
        s.direct().enforce(&["corp.example"]).set("log.level", level);
        change(s);
    })
}

#[test]
fn log_level_counts_by_module_as_the_file_has_it() {
    assert!(writes_debug_log(&leveled(LEVEL, |_| {}), 1));
    let of_another_module = leveled("info,tailrace::dns=debug", |_| {});
    assert!(!writes_debug_log(&of_another_module, 1));
}

#[test]
fn log_level_counts_by_variable_over_the_file_and_by_flag_over_both() {
    let variable = "TAILRACE_LOG_LEVEL";
    let by_variable = leveled("info", |s| {
        s.env(variable, LEVEL);
    });
    assert!(writes_debug_log(&by_variable, 1), "the variable over the file");
    let by_flag = leveled("debug", |s| {
        s.env(variable, "debug").argument("--set").argument("log.level=info");
    });
    assert!(!writes_debug_log(&by_flag, 1), "the flag over both");
    let by_flag = leveled("info", |s| {
        s.env(variable, "info").argument("--set").argument(&format!("log.level={LEVEL}"));
    });
    assert!(writes_debug_log(&by_flag, 1), "the flag over both");
}

#[test]
fn s7_log_level_changes_at_sighup() {
    let mut gateway = leveled("info", |_| {});
    let reload = |gateway: &mut Gateway, level: &str, result: &str, count: u64| {
        gateway.setup().set("log.level", level);
        gateway.reload();
        gateway.wait_for_reloads(result, count);
    };
    assert!(!writes_debug_log(&gateway, 1));
    reload(&mut gateway, LEVEL, "ok", 1);
    assert!(writes_debug_log(&gateway, 2));
    reload(&mut gateway, "inof", "error", 1);
    assert!(writes_debug_log(&gateway, 3), "what is no level changes nothing");
    reload(&mut gateway, "info", "ok", 2);
    assert!(!writes_debug_log(&gateway, 4));
}
