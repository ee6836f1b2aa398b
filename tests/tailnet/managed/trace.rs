//! What leaves the sandbox: nothing but what goes to the control server and, encrypted, to peers.

use std::collections::BTreeSet;

use crate::case::Case;
use crate::control::ADDRESS;
use crate::curl::{Curl, Inbound};
use crate::managed::{BY_NAME, Kind};
use crate::tailnet::{Tailnet, UNROUTED, UPSTREAM};
use crate::trace::Trace;

/// Every internal name ends so.
const INTERNAL: [&str; 3] = ["corp.example", "silent.example", "lab.ts.net"];

pub fn cases() -> Vec<Case> {
    vec![Case::new("nothing_leaves_but_to_the_control_server", trace)]
}

/// With a default route, so that whatever strays does leave. It also shows tailscaled a router, which
/// it would ask for ports if that were not switched off.
fn trace(tailnet: &Tailnet) {
    let route = ["route", "add", "default", "via", ADDRESS];
    tailnet.sandboxed.must("ip", &route);
    let traced = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        nothing_strays(tailnet);
        strays_are_seen(tailnet);
    }));
    tailnet.sandboxed.must("ip", &["route", "del", "default"]);
    if let Err(panic) = traced {
        std::panic::resume_unwind(panic);
    }
}

/// From the start of a gateway to its end, whatever it is asked for.
fn nothing_strays(tailnet: &Tailnet) {
    let public = tailnet.public.asked().len();
    let trace = Trace::start(&tailnet.sandboxed);
    Kind::both(|kind| {
        let launch = kind.launch(tailnet, &format!("traced-{}", kind.label()));
        let gateway = launch.set("TAILRACE_UPSTREAM_OUTSIDE_TAILNET", "refuse").up(tailnet);
        gateway.wait(tailnet);
        let ask = |inbound, host| Curl::new(&gateway, inbound, host, "/hello").run(tailnet);
        for inbound in BY_NAME {
            for host in ["grafana.corp.example", "grafana.lab.ts.net", "behind.corp.example"] {
                let answer = ask(inbound, host);
                assert_eq!(
                    (answer.exit, answer.status),
                    (0, 200),
                    "{inbound:?} {host}: {answer:?}"
                );
            }
        }
        let wrong = ["nobody.corp.example", "nobody.lab.ts.net", "x.silent.example", UNROUTED];
        for host in wrong.into_iter().chain(["unrouted.corp.example"]) {
            let status = if host == "x.silent.example" { 504 } else { 502 };
            let answer = ask(Inbound::Forward, host);
            assert_eq!((answer.exit, answer.status), (0, status), "{host}: {answer:?}");
        }
        gateway.launch.ask(tailnet, &["doctor", "nobody.corp.example:8080"]);
        gateway.stop();
    });
    let frames = trace.stop(&tailnet.sandboxed);
    let expected = BTreeSet::from([ADDRESS.to_owned()]);
    let mut receivers = frames.receivers();
    receivers.remove(&format!("arp {ADDRESS}"));
    assert_eq!(receivers, expected, "bytes left for somebody else");
    assert_eq!(frames.naming(&INTERNAL), Vec::<String>::new(), "internal names were readable");
    assert_eq!(tailnet.public.asked()[public..], [""; 0], "somebody outside was asked");
}

/// tailscaled by itself gives names away and dials strangers: a trace that shows neither is none.
fn strays_are_seen(tailnet: &Tailnet) {
    let trace = Trace::start(&tailnet.sandboxed);
    for host in ["stray.corp.example", UNROUTED] {
        let url = format!("http://{host}:8080/hello");
        let curl = Curl::through(UPSTREAM, Inbound::Socks5Name, &url).with(&["--max-time", "2"]);
        let answer = curl.run(tailnet);
        assert_ne!(answer.exit, 0, "{answer:?}");
    }
    let frames = trace.stop(&tailnet.sandboxed);
    assert!(!frames.naming(&["stray.corp.example"]).is_empty(), "the question was not seen");
    let seen = frames.receivers();
    assert!(seen.contains(UNROUTED) && seen.contains(ADDRESS), "{seen:?}");
}
