//! The proof on a real tailnet: tailscaled and headscale as people run them, in two network
//! namespaces of this machine, and curl reaching private services through the built gateway.
//!
//! Every case runs on every pinned version of tailscaled, whose label its name begins with; both sides of
//! the tailnet are of that version, and one tailnet serves every case of it. For each version the program
//! runs itself again as the first process of a PID namespace, so whatever happens nothing that it started
//! outlives it. It must not know how the gateway works inside: it starts `tailrace up` and looks at what
//! clients, origin and log see.
//!
//! `cargo test --release --test tailnet -- --figures` measures instead, and judges nothing; a version's
//! label beside it leaves the others out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and talks by printing"
)]
#![allow(unreachable_pub, reason = "a program of its own: nothing outside to reach from")]

mod bare;
mod beside;
mod bulk;
mod case;
mod client;
#[path = "../clients/mod.rs"]
mod clients;
mod control;
mod counter;
mod curl;
mod faults;
mod gateway;
mod keys;
mod localapi;
mod managed;
mod nameserver;
mod namespace;
mod nodes;
mod origin;
mod policy;
mod process;
mod reach;
mod real;
mod redirected;
mod sockets;
mod stage;
mod tailnet;
mod trace;
mod version;
mod versions;

use tailrace_rig::{probes, source, wait};

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let figures = arguments.iter().any(|argument| argument == "--figures");
    let groups = [
        reach::cases(),
        bulk::cases(),
        policy::cases(),
        faults::cases(),
        real::cases(),
        clients::cases(),
        redirected::cases(),
        managed::cases(),
    ];
    let cases = groups.concat();
    if let Some(programs) = stage::inside() {
        if figures {
            return measure(&programs);
        }
        let chosen = case::Chosen::from_arguments(&cases, &[programs.version], &arguments);
        let code = case::run_all(&chosen, &programs);
        clients::table::write(programs.version);
        return code;
    }
    if figures {
        return match stage::ready() {
            Ok(folder) => versions::in_turn(&versions::asked_for(&arguments), &folder),
            Err(why) => {
                eprintln!("no figures: {why}");
                std::process::ExitCode::FAILURE
            }
        };
    }
    let chosen = case::Chosen::from_arguments(&cases, version::Version::all(), &arguments);
    if chosen.only_list {
        return case::list(&chosen);
    }
    match stage::ready() {
        Ok(folder) if !chosen.cases.is_empty() => versions::run(&chosen.versions(), &folder),
        Ok(_) => case::skip_all(&chosen, ""),
        Err(why) => case::skip_all(&chosen, &why),
    }
}

/// What the gateway costs beside tailscaled alone, on this version.
fn measure(programs: &stage::Programs) -> std::process::ExitCode {
    println!("== tailscaled {}", programs.version.label());
    let http = format!("--outbound-http-proxy-listen={}", tailnet::HTTP_PROXY);
    let tailnet = tailnet::Tailnet::start(programs, &[&http]);
    beside::print(&tailnet);
    managed::figures::print(&tailnet)
}
