//! What the kernel says to addresses and of them, wrapped and unwrapped: the same probe towards loopback
//! by itself and towards a far host under `run` has to print the same.

use std::net::{Ipv6Addr, TcpListener};
use std::process::Command;

use super::nameserver::Nameserver;
use super::programs::Program;
use super::{FAR, FAR_V6, Stage, text};
use tailrace_rig::{FakeUpstream, Gateway, Origin, skip};

/// What stands before `tailrace` on each rung, and the programs that it carries.
fn rungs() -> Option<[(Vec<&'static str>, Vec<Program>); 3]> {
    let deny = Program::Deny.path()?.to_str().unwrap();
    let (dynamic, both) =
        (vec![Program::Addresses], vec![Program::Addresses, Program::AddressesMusl]);
    Some([
        (vec![], both.clone()),
        (vec![deny, "pidfd_getfd", "1", "--"], both),
        (vec![deny, "seccomp", "22", "--"], dynamic),
    ])
}

/// Listens on `[::1]` and on the same port of 127.0.0.1, so that IPv4-mapped finds it too; nobody needs
/// to accept.
fn both() -> Option<[TcpListener; 2]> {
    for _ in 0..50 {
        let six = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).ok()?;
        let port = six.local_addr().unwrap().port();
        if let Ok(four) = TcpListener::bind(("127.0.0.1", port)) {
            for listener in [&four, &six] {
                rustix::net::listen(listener, 1024).unwrap();
            }
            return Some([four, six]);
        }
    }
    panic!("no port is free for both");
}

/// The lines of a probe by itself, towards loopback.
fn by_itself(program: Program, way: &str, port: u16) -> Option<String> {
    let port = port.to_string();
    let words = [way, "127.0.0.1", "::1", &port, &port];
    let output = Command::new(program.path()?).args(words).output().unwrap();
    let said = text(&output.stdout);
    assert!(said.ends_with("ok\n"), "{way} by itself: {output:?}");
    Some(said)
}

/// Compares line by line, so that a failure names the line.
#[track_caller]
fn same(wrapped: &str, by_itself: &str, what: &str) {
    let differing: Vec<_> =
        wrapped.lines().zip(by_itself.lines()).filter(|(one, other)| one != other).collect();
    assert!(differing.is_empty(), "{what}: wrapped and by itself: {differing:#?}");
    assert_eq!(wrapped.lines().count(), by_itself.lines().count(), "{what}");
}

/// A gateway whose far hosts are the loopback addresses, by the port asked for.
fn stage() -> Stage {
    let origin = Origin::echo();
    let fake = FakeUpstream::with(FAR, ([127, 0, 0, 1], 0).into());
    fake.map(FAR_V6, (Ipv6Addr::LOCALHOST, 0).into());
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address());
    });
    Stage { origin, fake, gateway }
}

impl Stage {
    /// The lines of a probe on one rung, towards the far host.
    fn addresses(&mut self, before: &[&str], program: Program, way: &str, port: u16) -> String {
        let path = program.path().unwrap().to_str().unwrap();
        let port = port.to_string();
        let output = self.command(before, &["--", path, way, FAR, FAR_V6, &port, &port]).output();
        text(&output.unwrap().stdout)
    }
}

/// Without the lines about what a rung cannot know that replaces sockets: their options, and whether they
/// listen (docs/run.md).
fn known(said: &str, before: &[&str]) -> String {
    let replaces = before.get(1) == Some(&"pidfd_getfd");
    let about_options = |line: &str| {
        line.contains("6only mapped")
            || line.contains("udp6only inet ")
            || line.starts_with("a listener ")
            || line.starts_with("mapped after a refusal")
            || line.starts_with("for IPv6 alone")
    };
    let lines = said.lines().filter(|line| !(replaces && about_options(line)));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn b27_connect_refuses_what_the_kernel_refuses() {
    let Some(listeners) = both() else { return skip("needs ::1") };
    let port = listeners[0].local_addr().unwrap().port();
    let mut stage = stage();
    let Some(rungs) = rungs() else { return };
    for (before, programs) in rungs {
        for program in programs {
            let Some(expected) = by_itself(program, "connects", port) else { return };
            let said = stage.addresses(&before, program, "connects", port);
            let what = format!("{before:?} {program:?}");
            same(&known(&said, &before), &known(&expected, &before), &what);
        }
    }
}

#[test]
fn b27_getpeername_is_the_kernel_s_with_the_address_that_was_asked_for() {
    let Some(listeners) = both() else { return skip("needs ::1") };
    let port = listeners[0].local_addr().unwrap().port();
    let mut stage = stage();
    let Some(rungs) = rungs() else { return };
    for (before, programs) in rungs {
        for program in programs {
            let Some(expected) = by_itself(program, "names", port) else { return };
            let said = stage.addresses(&before, program, "names", port);
            same(&said, &expected, &format!("{before:?} {program:?}"));
        }
    }
}

#[test]
fn b27_getpeername_of_a_reset_connection_is_the_kernel_s() {
    let origin = Origin::reset_after_reading(1);
    let fake = FakeUpstream::with(FAR, origin.address());
    let gateway = Gateway::start(|s| {
        s.upstream(fake.address());
    });
    let mut stage = Stage { origin, fake, gateway };
    let Some(rungs) = rungs() else { return };
    for (before, programs) in rungs {
        for program in programs {
            let said = stage.addresses(&before, program, "reset", 80);
            let refused = format!("reset 128 tells 128 errno {}\nwrote 0\nok\n", libc::ENOTCONN);
            assert_eq!(said, refused, "{before:?} {program:?}");
        }
    }
}

#[test]
fn b27_a_nameserver_s_socket_says_the_nameserver_that_was_asked() {
    let mut stage = Stage::new();
    let _nameserver = Nameserver::of(&stage.gateway, FAR.parse().unwrap());
    let Some(rungs) = rungs() else { return };
    for (before, programs) in rungs {
        if before.get(1) == Some(&"seccomp") {
            continue; // the shim leaves datagrams alone
        }
        for program in programs {
            let said = stage.addresses(&before, program, "nameservers", 53);
            assert!(said.ends_with("ok\n"), "{before:?} {program:?}: {said}");
        }
    }
}

#[test]
fn b27_questions_are_refused_as_the_kernel_refuses_them() {
    let mut stage = Stage::new();
    let _nameserver = Nameserver::of(&stage.gateway, FAR.parse().unwrap());
    let Some(rungs) = rungs() else { return };
    for (before, programs) in rungs {
        if before.get(1) == Some(&"seccomp") {
            continue; // the shim leaves datagrams alone
        }
        for program in programs {
            let Some(expected) = by_itself(program, "questions", 53) else { return };
            let said = stage.addresses(&before, program, "questions", 53);
            let what = format!("{before:?} {program:?}");
            same(&known(&said, &before), &known(&expected, &before), &what);
        }
    }
}
