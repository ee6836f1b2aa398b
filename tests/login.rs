//! Cases T5 and T6: logging in, every way it fails, and what ends a node's stay.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tailrace_rig::echo_tailnet::{DB, busy, down_at_once, echoing, sentence};
use tailrace_rig::fake_tailnet::script::{Login, Order, State};
use tailrace_rig::managed_gateway::{find, text};
use tailrace_rig::wait::{PATIENCE, assert_within, eventually, pause};
use tailrace_rig::{FakeTailnet, Gateway, Inbound};

const SECOND: Duration = Duration::from_secs(1);

/// A login refused with these words: told at once and once, with what to do.
fn refused_for(said: &str, sentence_has: &[&str]) {
    let tailnet = FakeTailnet::new();
    let said = said.replace("KEY", &tailnet.key());
    tailnet.login(Login::Refused(said));
    let mut gateway = Gateway::start(|s| {
        s.managed(&tailnet);
    });
    gateway.wait_not_ready("auth_failed", PATIENCE);
    assert_eq!(gateway.tailnet_state(), "auth_failed");
    let told = sentence(&gateway);
    assert!(sentence_has.iter().all(|part| told.contains(part)), "{told}");
    down_at_once(&gateway);
    eventually("nobody asks any more", PATIENCE, || {
        tailnet.writes().contains(&"disconnect-control".to_owned())
    });
    let asked = tailnet.logins().len();
    pause(SECOND);
    assert_eq!((tailnet.logins().len(), tailnet.starts().len()), (asked, 1), "no loop");
    tailnet.assert_secret(&mut gateway);
    let key = tailnet.new_key();
    tailnet.change(|s| {
        s.keys.insert(key, Login::Runs(Duration::ZERO));
    });
    gateway.signal(Signal::HUP);
    gateway.wait_ready();
    assert_eq!((tailnet.starts().len(), tailnet.running()), (1, 1), "no restart");
    tailnet.assert_secret(&mut gateway);
}

#[test]
fn t5_an_unknown_key_is_told_at_once_and_a_new_one_taken() {
    refused_for(
        "invalid key: API key KEY does not exist",
        &["the key is invalid", "make a new one"],
    );
}

#[test]
fn t5_an_expired_key_is_told_at_once_and_a_new_one_taken() {
    refused_for("authkey expired", &["the key has expired"]);
}

#[test]
fn t5_a_used_up_key_is_told_at_once_and_a_new_one_taken() {
    refused_for(
        "invalid key: API key KEY not valid",
        &["the key is used up", "restarts need a reusable key"],
    );
}

#[test]
fn t5_tags_not_permitted_are_told_at_once_and_a_new_key_taken() {
    refused_for("requested tags [tag:x] are invalid or not permitted", &["tags are not permitted"]);
}

#[test]
fn t5_a_rate_limit_is_told_with_its_wait_and_tried_again() {
    let limited = "node registration rate limited; will retry after 17s";
    let tailnet = FakeTailnet::with(|s| s.login = Login::Refused(limited.to_owned()));
    let mut gateway = Gateway::start(|s| {
        s.managed(&tailnet);
    });
    gateway.wait_not_ready("rate_limited", PATIENCE);
    assert_eq!(gateway.tailnet_state(), "rate_limited");
    let told = sentence(&gateway);
    assert!(told.contains("17s"), "{told}");
    tailnet.login(Login::Runs(Duration::ZERO));
    gateway.wait_ready();
    assert_eq!(tailnet.starts().len(), 1);
    assert!(!tailnet.writes().contains(&"disconnect-control".to_owned()), "tailscaled tries on");
}

/// A login that neither works nor is refused: named, and over by itself once it works.
fn waits_in(state: &str, login: Login, sentence_has: &str) {
    let (_origin, tailnet) = echoing();
    tailnet.login(login);
    let mut gateway = Gateway::start(|s| {
        s.managed(&tailnet).set("tailnet.ready_wait", "1s");
    });
    let told = || {
        gateway.not_ready().as_deref() == Some(state) && sentence(&gateway).contains(sentence_has)
    };
    eventually(&format!("{state}, saying {sentence_has}"), 30 * SECOND, told);
    gateway.assert_refused(Inbound::Socks5, DB, "upstream_down");
    assert!(tailnet.asked().is_empty(), "nothing is forwarded unless Running");
    tailnet.login(Login::Runs(Duration::ZERO));
    gateway.wait_ready_within(20 * SECOND);
    busy(&gateway);
    assert_eq!(tailnet.starts().len(), 1);
}

#[test]
fn t5_a_control_server_out_of_reach_is_named() {
    let said = "Get \"https://control.example/key\": dial tcp 192.0.2.1:443: i/o timeout";
    waits_in("unreachable", Login::Unreachable(said.to_owned()), "i/o timeout");
}

#[test]
fn t5_a_node_that_waits_for_approval_says_so() {
    waits_in("needs_approval", Login::NeedsApproval, "approval");
}

#[test]
fn t5_a_node_without_a_relay_says_so() {
    let said = "Tailscale could not connect to any relay server.";
    waits_in("unreachable", Login::NoRelay(said.to_owned()), "relay");
}

#[test]
fn t6_a_node_whose_key_ends_stops_carrying_and_comes_back() {
    let (_origin, tailnet) = echoing();
    let mut gateway = tailnet.gateway(|_| ());
    busy(&gateway);
    tailnet.login(Login::Never);
    tailnet.become_state(State::NeedsLogin);
    let start = Instant::now();
    gateway.wait_not_ready("needs_login", PATIENCE);
    assert_within("/readyz", start.elapsed(), 5 * SECOND);
    assert_eq!(gateway.tailnet_state(), "needs_login");
    assert_eq!(gateway.admin_get("/healthz").status(), 200);
    down_at_once(&gateway);
    tailnet.login(Login::Runs(Duration::ZERO));
    tailnet.become_state(State::Running);
    gateway.wait_ready();
    busy(&gateway);
    assert!(tailnet.socks().iter().all(|asked| asked.running), "{:?}", tailnet.socks());
    assert_eq!(tailnet.starts().len(), 1);
}

#[test]
fn t6_a_change_the_bus_lost_is_found() {
    let (_origin, tailnet) = echoing();
    let gateway = tailnet.gateway(|_| ());
    tailnet.change(|s| s.mute_bus = true);
    tailnet.become_state(State::Stopped);
    gateway.wait_not_ready("stopped", 60 * SECOND);
}

#[test]
fn the_login_is_what_the_settings_ask_for() {
    let tailnet = FakeTailnet::new();
    let gateway = tailnet.gateway(|s| {
        s.set("tailnet.hostname", "autoheal-{id}").env("TAILRACE_ID", "inv42");
        s.set("tailnet.tags", vec!["tag:sandbox"]);
        s.set("tailnet.login_server", "https://control.example");
    });
    assert_eq!(tailnet.writes(), ["check-prefs", "start", "login-interactive"]);
    let body = &tailnet.start_bodies()[0];
    assert_eq!(body["AuthKey"], tailnet.key());
    let prefs = &body["UpdatePrefs"];
    for (name, value) in [
        ("ControlURL", "https://control.example".into()),
        ("Hostname", "autoheal-inv42".into()),
        ("AdvertiseTags", serde_json::json!(["tag:sandbox"])),
        ("WantRunning", true.into()),
        ("RouteAll", true.into()),
        ("CorpDNS", true.into()),
        ("ShieldsUp", true.into()),
    ] {
        assert_eq!(prefs[name], value, "{name}");
    }
    assert_ne!(prefs["LoggedOut"], true, "what is left out is false");
    let argv = tailnet.wait_start(1).process.argv;
    for flag in ["--tun=userspace-networking", "--no-logs-no-support"] {
        assert!(argv.contains(&flag.to_owned()), "{argv:?}");
    }
    let state = argv.iter().find_map(|argument| argument.strip_prefix("--state=")).unwrap();
    assert!(state.starts_with("/proc/self/fd/"), "a folder without a path: {argv:?}");
    assert_eq!(find(&gateway.status(), "name"), Some(&"autoheal-inv42.lab.ts.net".into()));
    tailnet.order(Order::EndBus);
    let mut gateway = gateway;
    gateway.wait_ready();
    assert_eq!(tailnet.starts().len(), 1, "a bus that ended is followed again");
}

#[test]
fn tags_that_are_not_set_are_not_sent() {
    let tailnet = FakeTailnet::new();
    let _gateway = tailnet.gateway(|_| ());
    let tags = tailnet.start_bodies()[0]["UpdatePrefs"]["AdvertiseTags"].clone();
    assert!(tags.is_null() || tags == serde_json::json!([]), "{tags}");
    let host = tailnet.start_bodies()[0]["UpdatePrefs"]["Hostname"].as_str().unwrap().to_owned();
    assert!(host.starts_with("autoheal-") && host.len() == "autoheal-".len() + 8, "{host}");
}

#[test]
fn refused_preferences_are_told_and_not_started_with() {
    let tailnet = FakeTailnet::with(|s| s.refuse_prefs = Some("tag \"x\" is invalid".to_owned()));
    let gateway = Gateway::start(|s| {
        s.managed(&tailnet);
    });
    eventually("it says so", PATIENCE, || {
        let answer = gateway.admin_get("/readyz");
        answer.status() == 503 && text(&answer.json(), "tag \"x\" is invalid").is_some()
    });
    assert!(!tailnet.writes().contains(&"start".to_owned()), "{:?}", tailnet.writes());
}
