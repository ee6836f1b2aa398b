//! `make bench`: what `tailrace run` costs a program, per call, beside the same program without it.
//!
//! The far end is a fake SOCKS5 server of the tests' rig. The quickest of nine rounds, each
//! measure in turn.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "../tests/run/nameserver.rs"]
mod nameserver;
#[path = "../tests/run/programs.rs"]
#[allow(dead_code, reason = "one of them is measured")]
mod programs;
use nameserver::Nameserver;
use programs::Program;
use tailrace_rig::{FakeUpstream, Gateway, Origin};

const FAR: &str = "198.51.100.7";
const ROUNDS: usize = 9;

/// What is measured: the probe's words, and whether it runs under `run`.
type Measure<'a> = (&'a str, &'a [&'a str], bool);

fn main() {
    if std::env::args().nth(1).as_deref() != Some("--bench") {
        return; // `cargo test` only asks whether it starts
    }
    let Some(probe) = Program::Probe.path() else { return };
    let origin = Origin::echo();
    let fake = FakeUpstream::with(FAR, origin.address());
    let mut gateway = Gateway::start(|s| {
        s.upstream(fake.address());
    });
    let (near, proxy) = (origin.address().port().to_string(), gateway.proxy().port().to_string());
    let all: [Measure<'_>; 10] = [
        ("connect and a word, loopback", &["connections", "127.0.0.1", &near], false),
        ("the same, wrapped", &["connections", "127.0.0.1", &near], true),
        ("connect and a word, the program speaks SOCKS5", &["proxied", "127.0.0.1", &proxy], false),
        ("the same, wrapped instead", &["connections", FAR, "80"], true),
        ("send, recv, write, read", &["bytes", "x"], false),
        ("the same, wrapped", &["bytes", "x"], true),
        ("sendmsg, recvmsg", &["messages", "x"], false),
        ("the same, wrapped", &["messages", "x"], true),
        ("getpeername of a pair", &["peers", "x"], false),
        ("the same, wrapped", &["peers", "x"], true),
    ];
    let mut figures = vec![Vec::new(); all.len()];
    for _ in 0..ROUNDS {
        for ((_, words, wrapped), figures) in all.iter().zip(&mut figures) {
            figures.push(once(&mut gateway, probe, words, *wrapped));
        }
    }
    println!("| call | µs |\n|---|---|");
    for ((name, ..), figures) in all.iter().zip(figures) {
        println!("| {name} | {:.2} |", quickest(figures));
    }
    let nameserver = Nameserver::of(&gateway, std::net::Ipv4Addr::LOCALHOST);
    let figures = (0..ROUNDS).map(|_| once(&mut gateway, probe, &["messages", "x"], true));
    println!("| the same, wrapped, names redirected | {:.2} |", quickest(figures.collect()));
    assert_eq!(nameserver.asked(), 0);
}

/// The round least disturbed by others on this machine.
fn quickest(figures: Vec<f64>) -> f64 {
    figures.into_iter().fold(f64::INFINITY, f64::min)
}

fn once(gateway: &mut Gateway, probe: &std::path::Path, words: &[&str], wrapped: bool) -> f64 {
    let config = gateway.setup().config();
    let mut command = gateway.setup().command(&["run", "--config"]);
    command.arg(config).arg(probe);
    if !wrapped {
        command = std::process::Command::new(probe);
    }
    let output = command.args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let figure = said.lines().find_map(|line| line.strip_prefix("us "));
    figure.and_then(|us| us.parse().ok()).unwrap_or_else(|| panic!("{words:?}: {output:?}"))
}
