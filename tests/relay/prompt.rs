//! A client with Nagle's algorithm on has its next piece wait for our acknowledgement.

use std::time::Duration;

use crate::{Mode, tunnel};
use tailrace_rig::wait::timed;
use tailrace_rig::{Gateway, Origin};

/// The least a kernel has an acknowledgement wait for an answer to travel with (Linux, `TCP_DELACK_MIN`).
const DELAYED: Duration = Duration::from_millis(40);

/// As TLS 1.3 goes: a hello is answered, the end of the handshake is not, a request is.
fn server() -> Origin {
    Origin::start(|guest| {
        guest.read_n(5);
        guest.send(b"hello");
        guest.read_n(8);
        guest.read_n(7);
        guest.send(b"answer");
        guest.read_to_end();
    })
}

/// From the end of the handshake to the answer.
fn asked(gateway: &Gateway, origin: &Origin) -> Duration {
    let mut wire = tunnel(gateway, origin.address());
    wire.tcp().set_nodelay(false).unwrap();
    wire.send("hello");
    wire.expect("hello");
    timed(|| {
        wire.send("finished");
        wire.send("request");
        wire.expect("answer");
    })
    .1
}

/// The quickest of twenty: a busy machine makes some of them slow, a delayed acknowledgement all.
fn quickest(ask: impl Fn() -> Duration) -> Duration {
    (0..20).map(|_| ask()).min().unwrap()
}

#[test]
fn a_request_right_behind_a_handshake_is_not_held_back() {
    let origin = server();
    let gateway = Mode::Splice.gateway();
    let took = quickest(|| asked(&gateway, &origin));
    assert!(took < DELAYED / 2, "{took:?}"); // timers end a tick early, too
}
