//! With the kinds `direct` and `socks5` there is no tailnet: no sentence anywhere speaks of one, or sends
//! anybody to its admin console.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use tailrace_rig::system_nameserver::Record;
use tailrace_rig::{
    ClosedPort, FakeUpstream, FullBacklog, Gateway, Inbound, Setup, SystemNameserver,
    UpstreamReply, ask, netns,
};

/// What belongs to a tailnet, in lower case.
const WORDS: [&str; 10] = [
    "tailnet",
    "tailscale",
    "admin console",
    "subnet route",
    "acl",
    "autoheal",
    "derp",
    "magicdns",
    "this node",
    "joined",
];

/// Asks for every target by each way that says why it is refused, and reads what was said.
#[track_caller]
fn says_nothing_of_a_tailnet(gateway: &mut Gateway, targets: &[&str]) {
    for target in targets {
        let answer = ask(gateway.proxy(), Inbound::Connect, target);
        spoken(&format!("the answer for {target}"), &format!("{answer:?}"));
        let answer = ask(gateway.proxy(), Inbound::Forward, target);
        spoken(&format!("the forwarded answer for {target}"), &format!("{answer:?}"));
        for command in ["doctor", "explain"] {
            let config = gateway.setup().config();
            let mut command = gateway.setup().command(&[command, target]);
            let output = command.arg("--config").arg(config).output().unwrap();
            let said = [&output.stdout[..], &output.stderr].concat();
            spoken(&format!("{command:?}"), &String::from_utf8_lossy(&said));
        }
    }
    let ready = gateway.admin_get("/readyz");
    spoken("/readyz", &format!("{ready:?}"));
    spoken("the log", &gateway.log());
}

#[track_caller]
fn spoken(by: &str, said: &str) {
    let lower = said.to_lowercase();
    // "oracle" and the like are none of it.
    let is_word = |at: usize, word: &str| {
        let around = [lower[..at].chars().last(), lower[at + word.len()..].chars().next()];
        word.len() > 4 || around.into_iter().flatten().all(|c| !c.is_alphanumeric())
    };
    let found =
        WORDS.iter().find(|word| lower.match_indices(**word).any(|(at, _)| is_word(at, word)));
    assert_eq!(found, None, "{by}: {said}");
}

fn started(change: impl FnOnce(&mut Setup)) -> Gateway {
    Gateway::start(|s| {
        s.set("log.level", "debug").set("upstream.connect_timeout", "300ms");
        s.set("dns.timeout", "300ms").allow_loopback();
        change(s);
    })
}

#[test]
fn kind_direct_speaks_of_no_tailnet() {
    netns::inside(|| {
        let (closed, full) = (ClosedPort::new(), FullBacklog::new());
        let [refused, silent] = [closed.address().to_string(), full.address().to_string()];
        let targets = [
            refused.as_str(),
            &silent,
            "203.0.113.9:80", // no route in here
            "169.254.169.254:80",
            "localhost:1",
        ];
        let mut gateway = started(|s| {
            s.direct();
        });
        let own = gateway.proxy().to_string();
        says_nothing_of_a_tailnet(&mut gateway, &[&targets[..], &[own.as_str()]].concat());
    });
}

#[test]
fn names_nobody_knows_speak_of_no_tailnet() {
    netns::inside(|| {
        let _dns = SystemNameserver::take_over(std::iter::empty::<Record>());
        let mut gateway = started(|s| {
            s.direct();
        });
        says_nothing_of_a_tailnet(&mut gateway, &["nosuch.corp.example:80", "bare:80"]);
        let fake = FakeUpstream::start();
        let mut gateway = started(|s| {
            s.upstream(fake.address()).set("dns.mode", "system");
        });
        says_nothing_of_a_tailnet(&mut gateway, &["nosuch.corp.example:80", "bare:80"]);
    });
}

#[test]
fn a_silent_resolver_speaks_of_no_tailnet() {
    netns::inside(|| {
        let _dns = SystemNameserver::silent();
        let mut gateway = started(|s| {
            s.direct();
        });
        says_nothing_of_a_tailnet(&mut gateway, &["silent.corp.example:80"]);
    });
}

#[test]
fn kind_socks5_speaks_of_no_tailnet() {
    let fake = FakeUpstream::start();
    let answers = [
        ("one", UpstreamReply::Rep(1)),
        ("two", UpstreamReply::Rep(2)),
        ("three", UpstreamReply::Rep(3)),
        ("four", UpstreamReply::Rep(4)),
        ("five", UpstreamReply::Rep(5)),
        ("six", UpstreamReply::Rep(6)),
        ("silent", UpstreamReply::Silent),
        ("closed", UpstreamReply::Close),
        ("reset", UpstreamReply::Reset),
    ];
    let hosts: Vec<String> =
        answers.iter().map(|(host, _)| format!("{host}.corp.example:80")).collect();
    for (host, answer) in answers {
        fake.answer_for(&format!("{host}.corp.example"), answer);
    }
    let mut gateway = started(|s| {
        s.upstream(fake.address()).enforce(&["corp.example"]);
    });
    let mut targets: Vec<&str> = hosts.iter().map(String::as_str).collect();
    targets.extend(["denied.example:80", "192.0.2.1:80"]);
    says_nothing_of_a_tailnet(&mut gateway, &targets);
    let gone = ClosedPort::new();
    let mut gateway = started(|s| {
        s.upstream(gone.address());
    });
    says_nothing_of_a_tailnet(&mut gateway, &["a.corp.example:80"]);
}

#[test]
fn where_no_gateway_runs_doctor_speaks_of_no_tailnet() {
    let closed = [ClosedPort::new(), ClosedPort::new()];
    let mut setup = Setup::new();
    setup.direct().set("listen.proxy", vec![closed[0].address().to_string()]);
    setup.set("listen.admin", closed[1].address().to_string());
    let config = setup.write();
    for command in ["doctor", "explain", "status", "wait"] {
        let mut run = setup.command(&[command]);
        if command == "explain" {
            run.arg("a.example");
        }
        if command == "wait" {
            run.args(["--timeout", "0s"]);
        }
        let output = run.arg("--config").arg(&config).output().unwrap();
        let said = [&output.stdout[..], &output.stderr].concat();
        assert!(!said.is_empty() && !output.status.success(), "{command}: {output:?}");
        spoken(command, &String::from_utf8_lossy(&said));
    }
}
