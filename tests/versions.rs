//! Chapter V: which tailscaled it is. `status` is the floor, the bus makes it quicker; names, reasons,
//! doctor and readiness are the same with both, on the versions that are known and on one that is not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tailrace_rig::fake_tailnet::script::{Answer, Bus, Login, Order, Peer, Script, State};
use tailrace_rig::running_tailscaled::{RunningTailscaled, localapi};
use tailrace_rig::wait::{PATIENCE, assert_within, eventually, pause, timed};
use tailrace_rig::{FakeTailnet, Gateway, Inbound, Origin, Setup};

const OLD: &str = "1.98.9-ERR-BuildInfo";
const NEW: &str = "1.102.3-ERR-BuildInfo";
/// Nobody knows it yet.
const UNKNOWN: &str = "1.150.0-t0123abcd-gfedcba98";
const SECOND: Duration = Duration::from_secs(1);
/// What `unreachable` waits for.
const SILENCE: Duration = Duration::from_secs(2);
const WATCH: &str = "watch-ipn-bus";
/// SOCKS5's reply to a name nobody knows.
const DNS_ERROR: u16 = 4;

/// A gateway and its tailscaled, which it manages or finds.
struct Case {
    gateway: Gateway,
    tailnet: FakeTailnet,
    /// The found one; it ends with this value.
    there: Option<RunningTailscaled>,
    origin: Origin,
    name: String,
}

impl Case {
    /// Ready, in a tailnet that begins so.
    #[track_caller]
    fn new(name: &str, managed: bool, change: impl FnOnce(&mut Script)) -> Case {
        let origin = Origin::echo();
        let tailnet = FakeTailnet::with(|s| {
            change(s);
            s.places.insert("100.64.0.1".to_owned(), origin.address());
            s.places.insert("100.64.0.7".to_owned(), origin.address());
            s.answers.insert("100.64.0.1:81".to_owned(), Answer::Refused);
        });
        let there = (!managed).then(|| tailnet.run());
        let gateway = match &there {
            None => tailnet.gateway(within),
            Some(there) => {
                let mut gateway = Gateway::start(|s| {
                    s.unmanaged(there);
                    s.sealed();
                    within(s);
                });
                gateway.wait_ready();
                gateway
            }
        };
        let name = format!("{name}, {}", if managed { "managed" } else { "found" });
        Case { gateway, tailnet, there, origin, name }
    }

    /// The same tailnet, managed and found, at once: most of it is waiting.
    fn both(name: &str, change: impl Fn(&mut Script) + Sync, prove: impl Fn(&Case) + Sync) {
        let (change, prove) = (&change, &prove);
        std::thread::scope(|scope| {
            let proofs = [true, false]
                .map(|managed| scope.spawn(move || prove(&Case::new(name, managed, change))));
            for proof in proofs {
                if let Err(panic) = proof.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
    }

    /// The masks asked for up to now.
    fn masks(&self) -> Vec<u64> {
        let calls = self.tailnet.calls().into_iter();
        let masks = calls.filter_map(|call| {
            call.name.strip_prefix(WATCH)?.strip_prefix("?mask=").map(|mask| mask.parse().unwrap())
        });
        masks.collect()
    }

    /// How it learns what changes: `bus`, or `polling`.
    fn news(&self) -> String {
        let status = self.gateway.status();
        let news = tailrace_rig::managed_gateway::find(&status, "news");
        news.and_then(|news| news["by"].as_str()).unwrap_or_default().to_owned()
    }

    #[track_caller]
    fn hears_by(&self, way: &str) {
        eventually(&format!("{}: news by {way}", self.name), PATIENCE, || self.news() == way);
    }

    fn echoes(&self, target: &str) -> bool {
        let (mut wire, answer) = self.gateway.ask(Inbound::Socks5, target);
        if !answer.is_ok() {
            return false;
        }
        wire.send("ping");
        wire.expect("ping");
        true
    }

    fn is_unknown(&self, target: &str) -> bool {
        self.gateway.ask(Inbound::Socks5, target).1.code() == DNS_ERROR
    }

    /// Names, reasons, readiness and doctor.
    #[track_caller]
    fn works(&self) {
        let gateway = &self.gateway;
        assert_eq!(gateway.not_ready(), None, "{}", self.name);
        assert!(self.echoes("db:5432") && self.echoes("db.lab.ts.net:5432"), "{}", self.name);
        gateway.assert_refused(Inbound::Connect, "100.64.0.1:81", "refused");
        gateway.assert_refused(Inbound::Connect, "nobody.lab.ts.net:80", "dns_error");
        self.takes_a_peer_in_and_out();
        self.doctor_knows();
        assert_eq!(gateway.tailnet_state(), "running", "{}", self.name);
    }

    /// V3: a name is there a second after its node, and gone a second after it.
    #[track_caller]
    fn takes_a_peer_in_and_out(&self) {
        let what = format!("{}: a new peer's name", self.name);
        assert!(self.is_unknown("comer:5432"), "{what} is known before");
        self.tailnet.change(|s| s.peers.push(comer()));
        let ((), took) = timed(|| eventually(&what, PATIENCE, || self.echoes("comer:5432")));
        assert_within(&what, took, SECOND);
        self.tailnet.change(|s| drop(s.peers.pop()));
        let what = format!("{}: a name without its peer", self.name);
        let ((), took) = timed(|| eventually(&what, PATIENCE, || self.is_unknown("comer:5432")));
        assert_within(&what, took, SECOND);
    }

    /// The version, and what follows from it.
    #[track_caller]
    fn doctor_knows(&self) {
        let said = self.gateway_says(&["doctor", "db:5432"]);
        for words in [&self.version()[..], "half-close", "bus"] {
            assert!(said.contains(words), "{}: no {words:?} in doctor's {said}", self.name);
        }
        assert!(said.lines().all(|line| line.starts_with("ok ")), "{}: {said}", self.name);
    }

    fn version(&self) -> String {
        let status = self.gateway.status();
        let version = tailrace_rig::managed_gateway::find(&status["tailnet"], "version").unwrap();
        version.as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn gateway_says(&self, arguments: &[&str]) -> String {
        let mut command = std::process::Command::new(tailrace_rig::setup::binary());
        command.env_clear().args(arguments);
        command.arg("--config").arg(self.gateway.dir().join("config.toml"));
        let output = tailrace_rig::setup::run(command);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Log lines, not of a connection, that speak of the bus.
    fn lines_of_the_bus(&self) -> Vec<Value> {
        let lines = self.gateway.log_lines().into_iter();
        let of_bus = |line: &Value| {
            line.get("bytes_up").is_none() && line.to_string().to_lowercase().contains("bus")
        };
        lines.filter(of_bus).collect()
    }
}

/// A peer's address that is nobody's any more leads nowhere.
fn within(setup: &mut Setup) {
    setup.set("upstream.outside_tailnet", "refuse");
}

fn comer() -> Peer {
    Peer {
        name: "comer".to_owned(),
        addresses: vec!["100.64.0.7".parse().unwrap()],
        routes: Vec::new(),
        online: true,
    }
}

/// As the control server of whole netmaps sends them, and as one of changes does.
const NETMAPS: [bool; 2] = [true, false];

#[test]
fn v2_a_refused_mask_is_followed_by_a_smaller_one() {
    // Bits that such a tailscaled takes; those of 1.98 and of 1.102, some of them, one, none.
    let takes = [0x1fff, 0x7_ffff, 1 << 1 | 1 << 7 | 1 << 12, 1 << 1 | 1 << 7, 1 << 1, 0];
    for bits in takes {
        let change = |s: &mut Script| (s.version, s.bus) = (NEW.to_owned(), Bus::Takes(bits));
        Case::both(&format!("bits {bits:#x}"), change, |case| {
            case.hears_by("bus");
            case.works();
            let masks = case.masks();
            let taken = masks.iter().position(|mask| mask & !bits == 0);
            let taken = taken.unwrap_or_else(|| panic!("{}: {masks:?}", case.name));
            let smaller = |pair: &[u64]| pair[1] & !pair[0] == 0 && pair[0] != pair[1];
            assert!(masks[..=taken].windows(2).all(smaller), "{}: {masks:?}", case.name);
        });
    }
}

#[test]
fn v2_without_any_bus_status_every_second_does() {
    for (status, words) in [(400, "no such mask"), (404, "404 page not found"), (501, "gone")] {
        let refused = Bus::Refused(status, words.to_owned());
        let change = |s: &mut Script| (s.version, s.bus) = (NEW.to_owned(), refused.clone());
        Case::both(&format!("a bus that answers {status}"), change, |case| {
            case.hears_by("polling");
            case.works();
            case.tailnet.become_state(State::Stopped);
            let stopped = || case.gateway.not_ready().as_deref() == Some("stopped");
            let ((), took) = timed(|| eventually("stopped is noticed", PATIENCE, stopped));
            assert_within(&format!("{}: stopped", case.name), took, SECOND);
            case.tailnet.become_state(State::Running);
            let ready = || case.gateway.not_ready().is_none();
            let ((), took) = timed(|| eventually("running is noticed", PATIENCE, ready));
            assert_within(&format!("{}: running", case.name), took, SECOND);
            // It is asked every second, not as fast as it answers.
            let before = case.tailnet.calls().len();
            pause(3 * SECOND);
            let asked = case.tailnet.calls().len() - before;
            assert!(asked < 40, "{}: {asked} calls in 3 s", case.name);
        });
    }
}

#[test]
fn v2_a_bus_that_never_answers_holds_nothing_up() {
    let change = |s: &mut Script| (s.version, s.bus) = (NEW.to_owned(), Bus::Silent);
    Case::both("a silent bus", change, |case| {
        case.works();
        case.hears_by("polling");
        case.tailnet.become_state(State::Stopped);
        eventually("stopped is noticed", PATIENCE, || {
            case.gateway.not_ready().as_deref() == Some("stopped")
        });
    });
}

#[test]
fn v2_without_any_bus_a_login_ends_as_it_does_with_one() {
    let said = "authkey expired";
    let ends = [
        (Login::Refused(said.to_owned()), "auth_failed"),
        (Login::NeedsApproval, "needs_approval"),
        (Login::Browse("https://login.example/a/1".to_owned()), "auth_failed"),
        (Login::Unreachable("dial tcp: refused".to_owned()), "unreachable"),
    ];
    for (login, error) in ends {
        let tailnet = FakeTailnet::with(|s| {
            s.login = login.clone();
            s.version = NEW.to_owned();
            s.bus = Bus::Refused(400, "no such mask".to_owned());
        });
        let gateway = Gateway::start(|s| {
            s.managed(&tailnet);
        });
        gateway.wait_not_ready(error, 3 * PATIENCE);
        tailnet.login(Login::Runs(Duration::ZERO));
        if error == "auth_failed" {
            // Its control client was told to stop: another key is another try.
            tailnet.new_key();
            gateway.signal(Signal::HUP);
        }
        eventually(&format!("ready after {login:?}"), 3 * PATIENCE, || {
            gateway.not_ready().is_none()
        });
    }
}

#[test]
fn v3_a_new_peer_is_known_within_a_second_on_both() {
    for (version, whole) in [OLD, NEW, UNKNOWN].into_iter().flat_map(|v| NETMAPS.map(|w| (v, w))) {
        let change = |s: &mut Script| (s.version, s.whole_netmaps) = (version.to_owned(), whole);
        Case::both(&format!("{version}, whole netmaps {whole}"), change, |case| {
            case.hears_by("bus");
            // Beside a bus that tells of peers nobody reads them every second: the news came by it.
            case.takes_a_peer_in_and_out();
            let all = case.tailnet.calls();
            let before = all.iter().filter(|call| call.name == "status").count();
            pause(3 * SECOND);
            let all = case.tailnet.calls();
            let after = all.iter().filter(|call| call.name == "status").count();
            assert!(after - before <= 1, "{}: peers were read {} times", case.name, after - before);
        });
    }
}

/// Watches readiness until `done`; how often it was away.
fn flaps(gateway: &Gateway, mut done: impl FnMut() -> bool) -> usize {
    let (limit, mut away) = (Instant::now() + 3 * PATIENCE, 0);
    while !done() {
        assert!(Instant::now() < limit, "waited in vain");
        away += usize::from(gateway.not_ready().is_some());
    }
    away
}

#[test]
fn v4_a_bus_that_closes_is_opened_again_at_once() {
    for version in [OLD, NEW] {
        let change = |s: &mut Script| s.version = version.to_owned();
        Case::both(version, change, |case| {
            case.hears_by("bus");
            for _ in 0..5 {
                let before = case.masks().len();
                case.tailnet.order(Order::EndBus);
                let opened = || case.masks().len() > before;
                let (away, took) = timed(|| flaps(&case.gateway, opened));
                assert_eq!(away, 0, "{}: readiness flapped", case.name);
                assert_within(&format!("{}: opening it again", case.name), took, SECOND / 2);
            }
            case.works();
        });
    }
}

#[test]
fn v4_a_bus_that_closes_over_and_over_costs_neither_readiness_nor_news() {
    let change = |s: &mut Script| {
        s.version = NEW.to_owned();
        s.bus = Bus::Closes(Duration::from_millis(20));
    };
    Case::both("a bus of 20 ms", change, |case| {
        let (before, end) = (case.masks().len(), Instant::now() + 3 * SECOND);
        assert_eq!(flaps(&case.gateway, || Instant::now() > end), 0, "{}", case.name);
        let opened = case.masks().len() - before;
        assert!((3..200).contains(&opened), "{}: opened {opened} times in 3 s", case.name);
        case.takes_a_peer_in_and_out();
    });
}

#[test]
fn v4_a_watcher_that_lagged_goes_on_as_if_it_had_not() {
    for version in [OLD, NEW] {
        let change = |s: &mut Script| s.version = version.to_owned();
        Case::both(version, change, |case| {
            case.hears_by("bus");
            let opened = case.masks().len();
            case.gateway.signal(Signal::STOP);
            let socket = match &case.there {
                Some(there) => there.socket.clone(),
                None => socket_of(&case.tailnet),
            };
            for n in 0..1500 {
                let prefs = format!(r#"{{"OperatorUser":"u{n}","OperatorUserSet":true}}"#);
                assert_eq!(localapi(&socket, "PATCH", "prefs", &prefs).0, 200);
            }
            case.gateway.signal(Signal::CONT);
            let closed = || case.masks().len() > opened;
            if version == NEW {
                assert_eq!(flaps(&case.gateway, closed), 0, "{}: readiness flapped", case.name);
            }
            case.works();
            let said = case.gateway.log();
            assert!(!said.contains("fell behind"), "{}: that is no news: {said}", case.name);
        });
    }
}

/// What 1.102 says before it closes on a watcher that lags is no refusal of the key.
#[test]
fn v4_a_watcher_that_lagged_during_a_login_logs_in_all_the_same() {
    let tailnet = FakeTailnet::with(|s| (s.version, s.login) = (NEW.to_owned(), Login::Never));
    let gateway = Gateway::start(|s| {
        s.managed(&tailnet);
    });
    eventually("the login is under way", PATIENCE, || !tailnet.logins().is_empty());
    let watched = || tailnet.calls().iter().filter(|call| call.name.starts_with(WATCH)).count();
    let before = watched();
    tailnet.order(Order::Error("IPN bus consumer fell behind; closing watch".to_owned()));
    tailnet.order(Order::EndBus);
    eventually("it is opened again", PATIENCE, || watched() > before);
    assert_eq!(gateway.not_ready().as_deref(), Some("starting"));
    tailnet.login(Login::Runs(Duration::ZERO));
    eventually("ready", PATIENCE, || gateway.not_ready().is_none());
    assert!(!tailnet.writes().contains(&"disconnect-control".to_owned()), "{:?}", tailnet.writes());
}

/// Where the managed one listens, as its command line says.
fn socket_of(tailnet: &FakeTailnet) -> std::path::PathBuf {
    let argv = tailnet.starts().pop().unwrap().process.argv;
    argv.iter().find_map(|flag| flag.strip_prefix("--socket=")).unwrap().into()
}

/// Somebody else's tailscaled is gone: that is `unreachable` after two seconds of it.
#[test]
fn v4_unreachable_is_said_after_two_seconds_of_silence() {
    for (version, bus) in [(OLD, true), (NEW, true), (NEW, false)] {
        let case = Case::new(&format!("{version}, bus {bus}"), false, |s| {
            s.version = version.to_owned();
            if !bus {
                s.bus = Bus::Refused(404, "404 page not found".to_owned());
            }
        });
        case.hears_by(if bus { "bus" } else { "polling" });
        let began = Instant::now();
        case.tailnet.kill(Signal::KILL);
        case.gateway.wait_not_ready("unreachable", PATIENCE);
        let after = began.elapsed();
        // What it last said may be almost a second old where it is asked every second.
        let least = if bus { SILENCE } else { SILENCE - SECOND };
        assert!(after >= least - SECOND / 10, "{}: said after {after:?}", case.name);
        let there = case.tailnet.run();
        eventually("ready again", PATIENCE, || case.gateway.not_ready().is_none());
        assert!(case.echoes("db:5432"), "{}", case.name);
        drop(there);
    }
}

#[test]
fn v5_an_unknown_newer_version_works_on_status_alone() {
    let refused = |status, words: &str| Bus::Refused(status, words.to_owned());
    let buses = BTreeMap::from([
        ("no mask is taken", refused(400, "unsupported IPN bus subscription bits")),
        ("there is none", refused(404, "404 page not found")),
    ]);
    for (name, bus) in buses {
        let change = |s: &mut Script| {
            (s.version, s.strange, s.bus) = (UNKNOWN.to_owned(), true, bus.clone());
        };
        Case::both(name, change, |case| {
            case.hears_by("polling");
            case.works();
            assert_eq!(case.version(), UNKNOWN, "{}", case.name);
            let lines = case.lines_of_the_bus();
            assert_eq!(lines.len(), 1, "{}: one line says so: {lines:?}", case.name);
        });
    }
}

/// With a bus, too, what it says that nobody knows is passed over.
#[test]
fn v5_an_unknown_newer_version_works_with_its_bus() {
    let change = |s: &mut Script| (s.version, s.strange) = (UNKNOWN.to_owned(), true);
    Case::both("strange lines", change, |case| {
        case.hears_by("bus");
        case.works();
    });
}

/// Names of peers are in `status`; what only `dns-config` tells is not to be had then.
#[test]
fn v5_a_found_one_without_the_calls_that_are_not_stable_still_carries() {
    let case = Case::new("status and dialling alone", false, |s| {
        s.version = UNKNOWN.to_owned();
        s.strange = true;
        s.lacks = [WATCH, "dns-config", "ping"].map(str::to_owned).into();
    });
    case.hears_by("polling");
    assert!(case.echoes("db:5432") && case.echoes("100.64.0.1:5432"));
    case.takes_a_peer_in_and_out();
    case.doctor_knows();
    case.gateway.assert_refused(Inbound::Connect, "100.64.0.1:81", "refused");
}

#[test]
fn v6_a_half_close_goes_by_the_version() {
    for (version, reaches) in [(OLD, false), (NEW, false), ("1.104.7", true), (UNKNOWN, true)] {
        let case = Case::new(version, true, |s| s.version = version.to_owned());
        let rule =
            tailrace_rig::managed_gateway::find(&case.gateway.status(), "half_close").cloned();
        let rule = rule.and_then(|rule| rule.as_str().map(str::to_owned)).unwrap();
        assert_eq!(rule == "propagate", reaches, "{version}: {rule}");
        let mut wire = case.gateway.open(Inbound::Socks5, "db:5432");
        wire.send("upload");
        wire.fin();
        let whole = || case.origin.visits().iter().any(|visit| visit.received == b"upload");
        eventually(&format!("{version}: all is there"), PATIENCE, whole);
        wire.expect("upload");
    }
}
