//! `tailrace nft`: the ruleset it prints, as nft takes it and as connections find it
//! (docs/requirements.md, B28), and what `tailrace doctor` says of one that is not whole.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::net::{SocketAddr, TcpListener};
use std::process::Output;

use rustix::process::{Gid, Uid};
use serde_json::Value;
use tailrace_rig::wait::{PATIENCE, eventually};
use tailrace_rig::{
    ConnectionEnd, FakeUpstream, Gateway, Origin, RawConnection, Setup, netns, skip,
};

const TARGET: &str = "203.0.113.9:8080";
const TARGET6: &str = "[2001:db8:9::9]:8080";
const NETS: [&str; 2] = ["203.0.113.0/24", "2001:db8:9::/48"];
/// Nobody's uid here.
const SOMEBODY: &str = "12345";

/// What `tailrace nft` says with the settings of this gateway.
#[track_caller]
fn nft(setup: &Setup, arguments: &[&str], code: i32) -> Output {
    let config = setup.write();
    let config = config.to_string_lossy().into_owned();
    let output = setup.run(&[&["nft", "--config", &config], arguments].concat());
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    output
}

#[track_caller]
fn rules(setup: &Setup, arguments: &[&str]) -> String {
    String::from_utf8(nft(setup, arguments, 0).stdout).unwrap()
}

fn listening(addresses: &[&str]) -> Setup {
    let mut setup = Setup::new();
    setup.direct().set("listen.proxy", addresses.to_vec());
    setup
}

#[test]
fn nft_says_what_is_missing() {
    let both = listening(&["127.0.0.1:1055", "[::1]:1055"]);
    nft(&both, &[], 64);
    nft(&both, &["--uid", "4294967295"], 64);
    nft(&both, &["--uid", "root"], 64);
    assert!(nft(&both, &["--uid", "0"], 0).stderr.is_empty());
    assert_eq!(rules(&both, &["--undo"]), rules(&both, &["--undo", "--uid", "7"]));
    let said =
        |setup: &Setup, code| String::from_utf8(nft(setup, &["--uid", "7"], code).stderr).unwrap();
    let v4 = said(&listening(&["127.0.0.1:1055"]), 0);
    assert!(v4.contains("IPv6 connections will be refused"), "{v4}");
    let unknown = said(&listening(&["127.0.0.1:0"]), 69);
    assert!(unknown.contains("start it first"), "{unknown}");
    let mut remote = listening(&["192.0.2.7:1055"]);
    remote.set("listen.allow_remote", true);
    assert!(said(&remote, 78).contains("listen.proxy"));
}

#[test]
fn nft_rules_are_whole_and_leave_nothing_behind() {
    netns::inside(|| {
        netns::nft("table ip other {\n chain c {\n }\n}\n");
        let before = netns::ruleset();
        for addresses in [["127.0.0.1:1055", "[::1]:1055"], ["127.0.0.1:1055", "[::1]:1056"]] {
            let setup = listening(&addresses);
            let (load, undo) = (rules(&setup, &["--uid", "1234"]), rules(&setup, &["--undo"]));
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("rules");
            std::fs::write(&file, &load).unwrap();
            netns::must("nft", &["--check", "--file", &file.to_string_lossy()]);
            assert_eq!(netns::ruleset(), before, "only checked");
            netns::nft(&load);
            let loaded = netns::ruleset();
            netns::nft(&load);
            assert_eq!(netns::ruleset(), loaded, "a second time changes nothing");
            assert!(loaded.contains("skuid 1234 return") && loaded.contains(":1055"), "{loaded}");
            for _ in 0..2 {
                netns::nft(&undo);
                assert_eq!(netns::ruleset(), before);
            }
        }
    });
}

/// Echoing origins at both targets, which are addresses of this namespace.
fn origins() -> [Origin; 2] {
    netns::add_address("203.0.113.9/32");
    netns::add_address("2001:db8:9::9/128");
    [TARGET, TARGET6].map(|target| Origin::echo_on(target.parse().unwrap()))
}

/// A gateway on loopback of both families that dials by itself.
fn direct(change: impl FnOnce(&mut Setup)) -> Gateway {
    let port = TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap().port();
    Gateway::start(|s| {
        s.direct()
            .set("listen.proxy", vec![format!("127.0.0.1:{port}"), format!("[::1]:{port}")])
            .set("policy.mode", "enforce")
            .set("policy.allowed_nets", NETS.to_vec());
        change(s);
    })
}

#[track_caller]
fn echoes(target: &str) {
    let mut wire = RawConnection::dial(target.parse().unwrap());
    wire.send("hello");
    wire.expect("hello");
    wire.fin();
    wire.expect_end(ConnectionEnd::Fin);
}

/// Does it as nobody, who made every socket of it then.
fn by_nobody(work: impl FnOnce() + Send) {
    let inside = || {
        let (user, group) = (Uid::from_raw(65534), Gid::from_raw(65534));
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        work();
    };
    let done = std::thread::scope(|scope| scope.spawn(inside).join());
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn b28_nft_leads_both_families_and_exempts_a_uid() {
    netns::inside(|| {
        if !netns::can_be_nobody() {
            return skip("needs two users: to be root outside, and setpriv");
        }
        let origins = origins();
        let near = Origin::echo();
        let mut gateway = direct(|_| ());
        let uid = rustix::process::geteuid().as_raw().to_string();
        netns::nft(&rules(gateway.setup(), &["--uid", &uid]));
        // Its own dials are let go: a loop would never get there.
        by_nobody(|| [TARGET, TARGET6].iter().for_each(|target| echoes(target)));
        gateway.settle_and_check(2);
        for (line, host) in gateway.access_lines().iter().zip(["203.0.113.9", "2001:db8:9::9"]) {
            assert_eq!((&line["inbound"], &line["host"]), (&"transparent".into(), &host.into()));
        }
        // Loopback and the exempt user go their own ways.
        by_nobody(|| echoes(&near.address().to_string()));
        echoes(TARGET);
        echoes(TARGET6);
        for origin in &origins {
            eventually("both visits", PATIENCE, || origin.visits().len() == 2);
        }
        gateway.settle_and_check(2);
        netns::nft(&rules(gateway.setup(), &["--undo"]));
        by_nobody(|| echoes(TARGET6));
        gateway.settle_and_check(2);
    });
}

#[test]
fn b28_nft_with_a_mark_instead_of_a_uid() {
    netns::inside(|| {
        let origins = origins();
        let mut gateway = direct(|s| {
            s.set("upstream.mark", 77);
        });
        // As docs/transparent.md has it.
        let by_uid = rules(gateway.setup(), &["--uid", SOMEBODY]);
        let by_mark = by_uid.replace("meta skuid 12345 return", "meta mark 77 return");
        assert_ne!(by_uid, by_mark);
        netns::nft(&by_mark);
        echoes(TARGET);
        echoes(TARGET6);
        gateway.settle_and_check(2);
        for origin in &origins {
            eventually("one visit", PATIENCE, || origin.visits().len() == 1);
        }
    });
}

/// The `redirect` link of `tailrace doctor`, whether it holds, and what it says.
fn redirect(gateway: &mut Gateway, code: i32) -> Option<(bool, String)> {
    let config = gateway.setup().config();
    let output = gateway.setup().run(&["doctor", "--json", "--config", &config.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let links: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(links[0]["detail"].as_str().unwrap().contains("UDP is not carried"), "{links:?}");
    let link = links.iter().find(|link| link["name"] == "redirect")?;
    let (held, broken) = (&link["detail"], &link["advice"]["symptom"]);
    Some((link["ok"] == true, broken.as_str().or(held.as_str()).unwrap().to_owned()))
}

#[test]
fn b28_doctor_finds_the_family_without_rules() {
    netns::inside(|| {
        netns::add_route("0.0.0.0/0");
        netns::add_route("::/0");
        let fake = FakeUpstream::start();
        let mut gateway = direct(|s| {
            s.upstream(fake.address());
        });
        assert_eq!(redirect(&mut gateway, 0), None, "nothing is redirected");
        let whole = rules(gateway.setup(), &["--uid", SOMEBODY]);
        netns::nft(&whole);
        assert_eq!(redirect(&mut gateway, 0), None, "no connection was redirected so far");
        drop(std::net::TcpStream::connect(TARGET).unwrap());
        eventually("a redirected connection", PATIENCE, || gateway.access_lines().len() == 1);
        let (held, said) = redirect(&mut gateway, 0).unwrap();
        assert!(held && said.starts_with("IPv4 is led here, IPv6 is led here"), "{said}");
        let (v4, v6) = ("meta nfproto ipv4 meta l4proto tcp", "meta nfproto ipv6 meta l4proto tcp");
        for (rule, passes) in [(v4, "IPv6"), (v6, "IPv4")] {
            netns::nft(&whole.replace("meta l4proto tcp", rule));
            let said = redirect(&mut gateway, 1).unwrap();
            assert_eq!(said, (false, format!("{passes} connections pass the gateway by")));
        }
        // Led to loopback, where nobody listens for that family: refused is no bypass.
        let v4_alone: SocketAddr = gateway.proxy();
        let rule = format!("redirect to :{}", v4_alone.port());
        netns::nft(&whole.replace(
            &format!("meta l4proto tcp {rule}"),
            &format!("{v4} {rule}\n\t\t{v6} redirect to :1"),
        ));
        let (held, said) = redirect(&mut gateway, 0).unwrap();
        assert!(held && said.starts_with("IPv4 is led here, IPv6 is refused"), "{said}");
        netns::must("ip", &["-6", "route", "del", "default"]);
        let (held, said) = redirect(&mut gateway, 0).unwrap();
        assert!(held && said.starts_with("IPv4 is led here, IPv6 has no route"), "{said}");
        assert_eq!(fake.requests().len(), 0, "policy refuses the addresses that are tried");
    });
}

#[test]
fn nft_with_the_documented_chain_keeps_udp_from_leaving() {
    netns::inside(|| {
        netns::add_route(NETS[0]);
        let page = include_str!("../docs/transparent.md");
        let from = page.find("  \tchain datagrams {").unwrap();
        let chain = page[from..].split("  ```").next().unwrap();
        let setup = listening(&["127.0.0.1:1055", "[::1]:1055"]);
        let whole = rules(&setup, &["--uid", "990"]);
        netns::nft(&format!("{}{chain}}}\n", whole.strip_suffix("}\n").unwrap()));
        let socket = std::net::UdpSocket::bind("10.99.0.1:0").unwrap();
        let error = socket.send_to(b"?", "203.0.113.9:443").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        let near = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(near.send_to(b"?", near.local_addr().unwrap()).is_ok());
        netns::nft(&rules(&setup, &["--undo"]));
        assert_eq!(netns::ruleset(), "");
    });
}

#[test]
fn nft_rules_are_those_of_the_documentation() {
    let printed = rules(&listening(&["127.0.0.1:1055", "[::1]:1055"]), &["--uid", "990"]);
    let page = include_str!("../docs/transparent.md");
    assert!(page.contains(&printed), "docs/transparent.md has not:\n{printed}");
    let undo = rules(&listening(&["127.0.0.1:1055"]), &["--undo"]);
    assert!(printed.starts_with(&undo), "{printed}");
}
