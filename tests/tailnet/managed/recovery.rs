//! tailscaled dies or hangs under load: clients learn of it, and the tailnet comes back.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::case::Case;
use crate::client::{self, End};
use crate::control::SANDBOX;
use crate::curl::{Curl, Inbound};
use crate::gateway::Gateway;
use crate::managed::{Kind, node, refused_with, tailscaled};
use crate::process::wait_for;
use crate::tailnet::Tailnet;

/// Streams under way when it happens.
const STREAMS: usize = 20;
/// A reset is there within a second; a second is judged at five times its value.
const SOON: Duration = Duration::from_secs(5);
/// Three probes are 5 s apart.
const TWO_PAUSES: Duration = Duration::from_secs(10);

pub fn cases() -> Vec<Case> {
    let case = Case::new;
    vec![
        case("t1_killed_tailscaled_comes_back", |t| Kind::both(|kind| killed(t, kind))),
        case("t3_stopped_tailscaled_is_replaced", |t| Kind::both(|kind| stopped(t, kind))),
    ]
}

fn killed(tailnet: &Tailnet, kind: Kind) {
    let gateway = kind.start(tailnet, "killed");
    let streams = streams(tailnet, &gateway);
    let started = Instant::now();
    signal(tailscaled(&gateway), Signal::KILL);
    all_reset(&streams);
    assert!(started.elapsed() < SOON, "the last reset came after {:?}", started.elapsed());
    let answer = Curl::new(&gateway, Inbound::Connect, "svc", "/hello").run(tailnet);
    refused_with(Inbound::Connect, &answer, (503, 1));
    comes_back(tailnet, &gateway, "signal");
    gateway.stop();
}

/// A stopped process is not dead: its streams stand until the watch gives it up.
fn stopped(tailnet: &Tailnet, kind: Kind) {
    let gateway = kind.start(tailnet, "stopped");
    let streams = streams(tailnet, &gateway);
    let (before, started) = (tailscaled(&gateway), Instant::now());
    signal(before, Signal::STOP);
    all_reset(&streams);
    let gave_up = started.elapsed();
    assert!(gave_up > TWO_PAUSES, "given up after {gave_up:?}, three probes take longer");
    assert!(gave_up < Duration::from_secs(40), "it was given up after {gave_up:?}");
    comes_back(tailnet, &gateway, "hang");
    gateway.stop();
}

fn signal(process: Pid, signal: Signal) {
    kill_process(process, signal).expect("a signal to the managed tailscaled");
}

/// To a host behind the subnet route: of connections to itself the service's tailscaled (1.98.9) keeps
/// the local ports, those of a killed node for long, and refuses a new one that the kernel gives a port
/// of theirs ("could not register TCP mapping").
fn streams(tailnet: &Tailnet, gateway: &Gateway) -> Vec<TcpStream> {
    let open = || client::dripping(&gateway.proxy, "behind.corp.example").expect("a live stream");
    tailnet.sandboxed.enter(|| (0..STREAMS).map(|_| open()).collect())
}

/// Nobody is told that a cut stream was whole.
fn all_reset(streams: &[TcpStream]) {
    let ends: Vec<End> = streams.iter().map(client::end).collect();
    assert_eq!(ends, [End::Rst; STREAMS]);
}

/// The same node, and the same answers; the cut streams are written down as such.
fn comes_back(tailnet: &Tailnet, gateway: &Gateway, cause: &str) {
    gateway.wait(tailnet);
    let answer =
        Curl::new(gateway, Inbound::Forward, "grafana.corp.example", "/hello").run(tailnet);
    assert_eq!((answer.exit, answer.status), (0, 200), "{answer:?}");
    let series = format!("tailrace_tailscaled_restarts_total{{cause=\"{cause}\"}}");
    assert_eq!(gateway.metric(tailnet, &series), 1, "{series}");
    let lines = gateway.access();
    let reset = lines.iter().filter(|line| line["outcome"] == "upstream_rst").count();
    assert_eq!(reset, STREAMS, "{lines:?}");
    let name = node(&gateway.launch.name);
    let is_online = |n: &crate::nodes::Node| n.name == name && n.online;
    let node = wait_for("the node, online", || tailnet.control.nodes().into_iter().find(is_online));
    assert_eq!(node.tags, [SANDBOX], "{node:?}");
}
