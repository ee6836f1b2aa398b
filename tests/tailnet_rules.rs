//! The rules a gateway with a tailscaled of its own keeps: readiness (A10), own addresses and loops
//! (B13, B14), names (B21), reloads (B24), ports (B25), and nothing forwarded unless Running.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tailrace_rig::fake_tailnet::script::{Login, Start, State};
use tailrace_rig::managed_gateway::{find, text};
use tailrace_rig::wait::{PATIENCE, assert_within, eventually, timed};
use tailrace_rig::{
    ConnectionEnd, FakeTailnet, Gateway, HttpOrigin, HttpReply, Inbound, Origin, RawConnection,
    Setup, fetch, skip,
};

const DB: &str = "db:5432";
const SECOND: Duration = Duration::from_secs(1);
const MODES: [&str; 3] = ["off", "log", "enforce"];

fn tailnet_with(origin: std::net::SocketAddr) -> FakeTailnet {
    let tailnet = FakeTailnet::new();
    tailnet.place("100.64.0.1", origin);
    tailnet
}

#[track_caller]
fn busy(gateway: &Gateway, inbound: Inbound) -> RawConnection {
    let mut wire = gateway.open(inbound, DB);
    wire.send("hello");
    wire.expect("hello");
    wire
}

#[test]
fn a10_not_ready_is_not_dead() {
    let tailnet = FakeTailnet::with(|s| s.login = Login::Never);
    let mut gateway = Gateway::start(|s| {
        s.managed(&tailnet);
    });
    let alive = |g: &Gateway| assert_eq!(g.admin_get("/healthz").status(), 200);
    gateway.wait_not_ready("starting", PATIENCE);
    alive(&gateway);
    let pending = gateway.admin_get("/readyz").json();
    assert!(pending["pending"].as_array().is_some_and(|p| !p.is_empty()), "{pending}");
    tailnet.login(Login::Runs(Duration::ZERO));
    gateway.wait_ready();
    tailnet.login(Login::Never);
    for (state, error) in [
        (State::NeedsLogin, "needs_login"),
        (State::Stopped, "stopped"),
        (State::NeedsMachineAuth, "needs_approval"),
    ] {
        tailnet.become_state(state);
        gateway.wait_not_ready(error, PATIENCE);
        assert_eq!(gateway.tailnet_state(), error);
        alive(&gateway);
        tailnet.become_state(State::Running);
        gateway.wait_ready();
    }
    tailnet.change(|s| s.start = Start::Never);
    tailnet.kill(Signal::KILL);
    eventually("not ready", PATIENCE, || gateway.not_ready().is_some());
    alive(&gateway);
}

#[test]
fn b13_this_nodes_own_addresses_and_names_are_denied_in_every_mode() {
    // Through tailscaled they lead to this host's loopback: the fake would connect.
    let victim = Origin::echo();
    let port = victim.address().port();
    for sealed in [false, true] {
        for mode in MODES {
            let tailnet = FakeTailnet::with(|s| {
                s.node.name = Some("gw".to_owned());
                s.dns["ExtraRecords"] = serde_json::json!([
                    {"Name": "me.corp.example", "Type": "A", "Value": "100.64.0.9"}]);
            });
            let mut gateway = tailnet.gateway(|s| {
                s.set("policy.mode", mode)
                    .set("policy.allowed_host_suffixes", vec!["ts.net", "example", "gw"]);
                s.set("policy.allowed_nets", vec!["0.0.0.0/0", "::/0"]).allow_loopback();
                s.set("upstream.kind", if sealed { "localapi" } else { "tailscaled" });
            });
            let hosts = [
                "100.64.0.9",
                "[fd7a:115c:a1e0::9]",
                "gw.lab.ts.net",
                "gw",
                "me.corp.example",
                "127.0.0.1",
                "[::1]",
                "localhost",
            ];
            for host in hosts {
                let target = format!("{host}:{port}");
                gateway.assert_refused(Inbound::Socks5, &target, "denied");
                gateway.assert_refused(Inbound::Connect, &target, "denied");
            }
            assert_eq!(tailnet.asked(), [""; 0], "{mode}");
            gateway.settle_and_check(2 * hosts.len() as u64);
        }
    }
    assert!(victim.visits().is_empty());
}

#[test]
fn b14_own_ports_on_any_own_name_are_loops() {
    for mode in MODES {
        let tailnet = FakeTailnet::with(|s| s.node.name = Some("gw".to_owned()));
        let gateway = tailnet.gateway(|s| {
            s.set("policy.mode", mode).set("policy.allowed_host_suffixes", vec!["ts.net"]);
            s.set("upstream.kind", "tailscaled").allow_loopback();
        });
        let internal = tailnet.socks_port().unwrap().port();
        for port in [gateway.proxy().port(), gateway.admin().port(), internal] {
            for host in ["127.0.0.1", "localhost", "100.64.0.9", "gw.lab.ts.net"] {
                gateway.assert_refused(Inbound::Socks5, &format!("{host}:{port}"), "loop");
                gateway.assert_refused(Inbound::Connect, &format!("{host}:{port}"), "loop");
            }
        }
        assert_eq!(tailnet.asked(), [""; 0], "{mode}");
    }
}

#[test]
fn b21_a_bare_name_of_the_tailnet_is_judged_and_logged_whole() {
    let origin = HttpOrigin::start(|_| HttpReply::ok("fine"));
    let tailnet = tailnet_with(origin.address());
    let mut gateway = tailnet.gateway(|s| {
        s.enforce(&[".lab.ts.net"]);
    });
    for inbound in Inbound::NAMED {
        assert_eq!(fetch(gateway.proxy(), inbound, "db:80").body, b"fine");
        assert_eq!(fetch(gateway.proxy(), inbound, "DB:80").body, b"fine");
        gateway.assert_refused(inbound, "nobody:80", "denied");
    }
    let lines = gateway.wait_for_access(12);
    for line in &lines {
        let (host, outcome) = (line["host"].as_str().unwrap(), &line["outcome"]);
        match host {
            "db.lab.ts.net" => assert_ne!(outcome, "denied", "{line}"),
            "nobody" => assert_eq!(outcome, "denied", "{line}"),
            other => panic!("{other} in {line}"),
        }
    }
    // Once the netmap has the name, it is that one's.
    tailnet.change(|s| {
        let mut peer = s.peers[0].clone();
        peer.name = "nobody".to_owned();
        peer.addresses = vec!["100.64.0.3".parse().unwrap()];
        s.peers.push(peer);
        s.places.insert("100.64.0.3".to_owned(), origin.address());
    });
    eventually("the new peer is known", PATIENCE, || {
        gateway.ask(Inbound::Socks5, "nobody:80").1.is_ok()
    });
    assert!(gateway.alive());
}

#[test]
fn b24_a_reload_that_denies_cuts_live_tunnels_into_the_tailnet() {
    for kind in ["tailscaled", "localapi"] {
        let origin = Origin::echo();
        let tailnet = tailnet_with(origin.address());
        let mut gateway = tailnet.gateway(|s| {
            s.enforce(&["lab.ts.net"]).set("upstream.kind", kind);
        });
        let mut wires: Vec<RawConnection> =
            Inbound::NAMED_TUNNELS.iter().map(|inbound| busy(&gateway, *inbound)).collect();
        gateway.setup().enforce(&["other.example"]);
        gateway.reload();
        let (_, took) =
            timed(|| wires.iter_mut().for_each(|wire| wire.expect_end(ConnectionEnd::Reset)));
        assert_within("cutting what is refused now", took, SECOND);
        gateway.assert_refused(Inbound::Socks5, DB, "denied");
        let lines = gateway.wait_for_access(4);
        assert!(lines.iter().all(|l| l["outcome"] == "denied"), "{kind}: {lines:?}");
        assert_eq!((tailnet.starts().len(), tailnet.running()), (1, 1), "tailscaled runs on");
    }
}

/// How many TCP sockets a process listens on (proc(5), `net/tcp` state 0A); none where its descriptors
/// are closed to its own user, as a managed tailscaled's are to all but root.
fn listening(pid: u32) -> Option<usize> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd"));
    if links.is_err() && !rustix::process::geteuid().is_root() {
        return None;
    }
    let links = links.unwrap().flatten();
    let own: Vec<String> = links
        .filter_map(|l| std::fs::read_link(l.path()).ok())
        .filter_map(|t| {
            Some(t.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned())
        })
        .collect();
    let tables = ["tcp", "tcp6"].map(|t| std::fs::read_to_string(format!("/proc/{pid}/net/{t}")));
    let rows = tables.into_iter().flatten().collect::<String>();
    let rows = rows.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
    let of_its = |r: &Vec<&str>| r.get(9).is_some_and(|i| own.iter().any(|o| o == i));
    Some(rows.filter(|r| r.get(3) == Some(&"0A") && of_its(r)).count())
}

#[test]
fn b25_sealed_tailscaled_owns_no_tcp_listener_and_carries_all_the_same() {
    // The default when managed and enforcing, and when asked for.
    let changes: [fn(&mut Setup); 2] = [
        |s| {
            s.enforce(&["lab.ts.net"]);
        },
        |s| {
            s.sealed();
        },
    ];
    for change in changes {
        let origin = Origin::echo();
        let tailnet = tailnet_with(origin.address());
        let mut gateway = tailnet.gateway(change);
        Inbound::NAMED_TUNNELS.iter().for_each(|inbound| drop(busy(&gateway, *inbound)));
        let started = tailnet.wait_start(1);
        assert!(started.process.argv.iter().all(|a| !a.contains("socks5")), "{started:?}");
        assert_eq!(tailnet.socks_port(), None);
        assert_eq!(listening(started.pid).unwrap_or(0), 0);
        assert_eq!((tailnet.socks().len(), tailnet.dials().len()), (0, 3));
        let status = gateway.status();
        assert_eq!(status["upstream"]["kind"], "localapi");
        assert_ne!(find(&status, "internal_port_exposed"), Some(&true.into()), "{status}");
        gateway.settle_and_check(3);
    }
}

#[test]
fn b25_an_open_internal_port_is_always_said() {
    for mode in MODES {
        let tailnet = FakeTailnet::new();
        let gateway = tailnet.gateway(|s| {
            s.set("upstream.kind", "tailscaled").set("policy.mode", mode);
            s.set("policy.allowed_host_suffixes", vec!["ts.net"]);
        });
        let status = gateway.status();
        assert_eq!(find(&status, "internal_port_exposed"), Some(&true.into()), "{status}");
        gateway.wait_for_log(|line| {
            find(line, "internal_port_exposed") == Some(&true.into())
                || text(line, "internal_port_exposed=true").is_some()
        });
        assert_eq!(listening(tailnet.pid()).unwrap_or(1), 1);
    }
}

#[test]
fn b25_another_user_cannot_open_tailscaleds_socket() {
    if !rustix::process::geteuid().is_root() {
        return skip("needs root to become another user");
    }
    let tailnet = FakeTailnet::new();
    let mut gateway = tailnet.gateway(|s| {
        s.sealed();
    });
    let dir = gateway.dir().to_owned();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&dir, open).unwrap();
    let socket = gateway.setup().run_dir().join("tailscaled.sock");
    let connect = |user: &str| {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        command.args(["curl", "-sS", "--max-time", "5", "--unix-socket"]).arg(&socket);
        let output = command.arg("http://local-tailscaled.sock/localapi/v0/status").output();
        let output = output.unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (opened, said) = connect("0");
    assert!(opened, "its own user can: {said}");
    assert!(!connect("65534").0, "nobody else can");
}

#[test]
fn nothing_is_forwarded_before_running_after_it_or_in_between() {
    for kind in ["tailscaled", "localapi"] {
        let origin = Origin::echo();
        let tailnet = FakeTailnet::with(|s| s.login = Login::Never);
        tailnet.place("100.64.0.1", origin.address());
        let mut gateway = Gateway::start(|s| {
            s.managed(&tailnet).set("upstream.kind", kind).set("tailnet.ready_wait", "1s");
            s.set("upstream.pool", 8);
        });
        let refused = |gateway: &Gateway| {
            for target in [DB, "100.64.0.1:5432", "192.0.2.7:80"] {
                gateway.assert_refused(Inbound::Socks5, target, "upstream_down");
            }
        };
        refused(&gateway);
        tailnet.login(Login::Runs(Duration::ZERO));
        gateway.wait_ready();
        drop(busy(&gateway, Inbound::Socks5));
        for state in [State::Stopped, State::NeedsLogin, State::Starting] {
            tailnet.login(Login::Never);
            tailnet.become_state(state);
            eventually("not ready", PATIENCE, || gateway.not_ready().is_some());
            refused(&gateway);
            tailnet.become_state(State::Running);
            gateway.wait_ready();
        }
        assert_eq!(tailnet.asked().len(), 1, "{kind}: {:?}", tailnet.asked());
    }
}

#[test]
fn a_tailscaled_that_is_there_already_is_used_and_left_alone() {
    let origin = Origin::echo();
    let tailnet = tailnet_with(origin.address());
    let there = tailnet.run();
    let before = tailnet.writes();
    let mut gateway = Gateway::start(|s| {
        s.unmanaged(&there);
    });
    gateway.wait_ready();
    drop(busy(&gateway, Inbound::Connect));
    assert_eq!((tailnet.socks().len(), tailnet.dials().len()), (1, 0));
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait_exit(PATIENCE).code(), Some(0));
    assert_eq!((tailnet.running(), tailnet.logouts(), tailnet.writes()), (1, 0, before));
    let mut sealed = Gateway::start(|s| {
        s.unmanaged(&there).unset("upstream.socks5");
    });
    sealed.wait_ready();
    drop(busy(&sealed, Inbound::Socks5));
    assert_eq!((tailnet.socks().len(), tailnet.dials().len()), (1, 1), "no port known: localapi");
    let pid = Pid::from_raw(tailnet.pid() as i32).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    sealed.wait_not_ready("unreachable", PATIENCE);
    sealed.assert_refused(Inbound::Socks5, DB, "upstream_down");
    drop(there);
    let _again = tailnet.run();
    sealed.wait_ready();
    drop(busy(&sealed, Inbound::Socks5));
}
