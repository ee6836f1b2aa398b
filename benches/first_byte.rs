//! `make bench`: what the look at a tunnel's first bytes costs: connect, SOCKS5, the first bytes there and back.
//!
//! Gateways of every mode in turn, in one run; `off` does not look. The quickest of fifteen rounds.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::time::Instant;

use tailrace_rig::{Gateway, Inbound, Origin};

const ROUNDS: usize = 15;
const CONNECTIONS: u32 = 100;
const MODES: [&str; 3] = ["off", "log", "enforce"];
const HELLO: &[u8] = include_bytes!("../tests/hellos/curl.bin");

fn main() {
    if std::env::args().nth(1).as_deref() != Some("--bench") {
        return; // `cargo test` only asks whether it starts
    }
    let origin = Origin::echo();
    let target = origin.address().to_string();
    let gateways = MODES.map(|mode| {
        Gateway::start(|s| {
            s.direct()
                .set("policy.mode", mode)
                .set("policy.allowed_host_suffixes", vec!["corp.example"])
                .set("policy.allowed_nets", vec!["127.0.0.0/8"])
                .set("policy.require_sni", true)
                .set("log.access", false);
        })
    });
    println!("| first bytes | mode | µs | to off |\n|---|---|---|---|");
    for (name, bytes) in [("curl's ClientHello", HELLO), ("no TLS, 64 bytes", &[7; 64])] {
        let mut figures = [f64::INFINITY; MODES.len()];
        for round in 0..ROUNDS {
            for turn in 0..MODES.len() {
                let at = (turn + round) % MODES.len();
                figures[at] = figures[at].min(once(&gateways[at], &target, bytes));
            }
        }
        for (mode, figure) in MODES.iter().zip(figures) {
            println!("| {name} | {mode} | {figure:.1} | {:.3} |", figure / figures[0]);
        }
    }
}

/// Microseconds per connection.
fn once(gateway: &Gateway, target: &str, bytes: &[u8]) -> f64 {
    let began = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut wire = gateway.open(Inbound::Socks5, target);
        wire.send(bytes);
        wire.expect(bytes);
    }
    began.elapsed().as_secs_f64() * 1e6 / f64::from(CONNECTIONS)
}
