//! A tailnet whose `db` echoes, and how a test sees that a gateway carries there or does not.

use std::time::Duration;

use super::wait::{assert_within, timed};
use super::{FakeTailnet, Gateway, Inbound, Origin, RawConnection};

/// Where the echo is.
pub const DB: &str = "db:5432";
/// What "at once" is, before it is widened by [`super::wait::bound`].
pub const FAST: Duration = Duration::from_millis(100);

/// A tailnet whose `db` echoes.
pub fn echoing() -> (Origin, FakeTailnet) {
    let origin = Origin::echo();
    let tailnet = FakeTailnet::new();
    tailnet.place("100.64.0.1", origin.address());
    (origin, tailnet)
}

/// A tunnel that has carried something.
#[track_caller]
pub fn busy(gateway: &Gateway) -> RawConnection {
    let mut wire = gateway.open(Inbound::Socks5, DB);
    wire.send("hello");
    wire.expect("hello");
    wire
}

/// Every named inbound is told at once that there is no way into the tailnet.
#[track_caller]
pub fn down_at_once(gateway: &Gateway) {
    for inbound in Inbound::NAMED {
        let (_, took) = timed(|| gateway.assert_refused(inbound, DB, "upstream_down"));
        assert_within("upstream_down", took, FAST);
    }
}

/// The sentence clients and `/readyz` are given.
pub fn sentence(gateway: &Gateway) -> String {
    let answer = gateway.admin_get("/readyz").json();
    answer["message"].as_str().unwrap_or_default().to_owned()
}
