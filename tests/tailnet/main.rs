//! The proof on a real tailnet: tailscaled and headscale as people run them, in two network
//! namespaces of this machine, and curl reaching private services through the built gateway.
//!
//! One tailnet serves every case. The program runs itself again as the first process of a PID
//! namespace, so whatever happens nothing that it started outlives it. It must not know how the
//! gateway works inside: it starts `tailrace up` and looks at what clients, origin and log see.
//!
//! `cargo test --release --test tailnet -- --figures` measures instead, and judges nothing.
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
mod redirected;
mod sockets;
#[path = "../rig/source.rs"]
mod source;
mod stage;
mod tailnet;
mod trace;
#[path = "../rig/wait.rs"]
#[allow(dead_code, reason = "the rig has more use for it")]
mod wait;

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--figures") {
        return match stage::enter() {
            Ok(programs) => {
                let http = format!("--outbound-http-proxy-listen={}", tailnet::HTTP_PROXY);
                let tailnet = tailnet::Tailnet::start(&programs, &[&http]);
                beside::print(&tailnet);
                managed::figures::print(&tailnet)
            }
            Err(why) => {
                eprintln!("no figures: {why}");
                std::process::ExitCode::FAILURE
            }
        };
    }
    let groups = [
        reach::cases(),
        bulk::cases(),
        policy::cases(),
        faults::cases(),
        clients::cases(),
        redirected::cases(),
        managed::cases(),
    ];
    let chosen = case::Chosen::from_arguments(&groups.concat(), arguments.into_iter());
    if chosen.only_list {
        return case::list(&chosen);
    }
    match stage::enter() {
        Ok(programs) => {
            let code = case::run_all(&chosen, &programs);
            clients::table::write();
            code
        }
        Err(why) => case::skip_all(&chosen, &why),
    }
}
