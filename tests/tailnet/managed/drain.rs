//! The end: a transfer is given its time, then the node leaves the tailnet.

use std::time::Instant;

use crate::case::Case;
use crate::client::{self, End};
use crate::managed::{Kind, node};
use crate::tailnet::Tailnet;

/// `limits.drain_timeout`, in seconds.
const DRAIN: u64 = 2;

pub fn cases() -> Vec<Case> {
    vec![Case::new("s3_node_leaves_within_drain_and_5_s_when_busy", |t| {
        Kind::both(|kind| busy(t, kind));
    })]
}

fn busy(tailnet: &Tailnet, kind: Kind) {
    let gateway = kind
        .launch(tailnet, &format!("busy-{}", kind.label()))
        .set("TAILRACE_LIMITS_DRAIN_TIMEOUT", format!("{DRAIN}s"))
        .up(tailnet);
    gateway.wait(tailnet);
    let name = node(&gateway.launch.name);
    let stream = tailnet.sandboxed.enter(|| client::dripping(&gateway.proxy, "svc"));
    let stream = stream.expect("a live stream");
    let started = Instant::now();
    gateway.begin_to_stop();
    let ended = client::end(&stream);
    let drained = started.elapsed();
    assert_eq!(ended, End::Rst, "after {drained:?}");
    assert!(drained.as_secs() >= DRAIN, "the stream was cut after {drained:?}");
    tailnet.control.until_gone(&name);
    let took = started.elapsed();
    assert!(took.as_secs() < DRAIN + 5, "the node left after {took:?}");
    let line = gateway.access_after(0);
    assert_eq!(line["outcome"], "drained", "{line}");
    gateway.ended();
}
