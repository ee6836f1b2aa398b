//! The test rig: the built gateway, a fake tailscaled that misbehaves on demand, origins, clients.
//!
//! Blocking sockets and plain threads. A test reads like this:
//!
//! ```text
//! use tailrace_rig::*;
//!
//! #[test]
//! fn it_echoes_over_every_tunnel() {
//!     let origin = Origin::echo();
//!     let fake = FakeUpstream::with("db.corp.example", origin.address());
//!     let mut gateway = Gateway::start(|s| { s.upstream(fake.address()).enforce(&["corp.example"]); });
//!     for inbound in Inbound::NAMED_TUNNELS {
//!         let mut wire = gateway.open(inbound, "db.corp.example:5432");
//!         wire.send("hello");
//!         wire.expect("hello");
//!         wire.fin();
//!         wire.expect_end(ConnectionEnd::Fin);
//!     }
//!     gateway.settle_with(&fake, 3, 3); // I1-I6: 3 targets, 3 requests at the upstream
//! }
//! ```
//!
//! - [`Gateway`] / [`Setup`]: settings by path (`s.set("limits.head_timeout", "1s")`), shortcuts
//!   `upstream`, `direct`, `enforce`, `allow_loopback`, `nofile`, `raw`; `Setup::fail` and
//!   `Setup::run` for commands that end. On the gateway: `proxy`, `admin`, `signal`, `reload`,
//!   `wait_exit`, `access_lines`, `wait_for_access`, `outcome`, `metrics`, `admin_get`, `fd_count`,
//!   `fds_of`, `cpu_time`, `rss`, `tasks`, `settle_and_check`, `settle_with`, `assert_refused`.
//! - [`FakeUpstream`]: `map(host, origin)`, `greet(UpstreamGreeting)`, `answer(UpstreamReply)`, `answer_for(host, …)`,
//!   `answer_in_turn([…])`, `half_close(HalfClose)`; it counts `connections`, `greetings`,
//!   `requests` (raw bytes), `open`. [`IdleTunnels`] holds thousands of idle tunnels. [`ClosedPort`]
//!   refuses, [`FullBacklog`] swallows SYNs.
//! - [`FakeTailnet`]: a tailnet whose tailscaled the gateway starts itself (`s.managed(&tailnet)`): a
//!   fake process that speaks SOCKS5 and LocalAPI, scripted and watched from the test.
//! - [`Nameserver`]: DNS over TCP by script, for where the tailnet's split routes lead.
//! - [`Origin`]: `echo`, `send`, `send_after_eof`, `send_then_reset`, `send_and_reset_at`,
//!   `reset_after_reading`, `slow_reader`, `never_reader`, `sink`, `both_ways`, or
//!   `start(|guest| …)`; `visits()` tell bytes, count, SHA-256 and end. [`HttpOrigin`] answers
//!   requests and keeps them raw.
//! - [`RawConnection`]: one connection: `send`, `send_slowly`, `urgent`, `fin`, `reset`, `read_n`, `expect`,
//!   `rest`, `expect_end`, `read_head`, `read_answer`, `greet`, `socks5_reply`.
//! - `ask`, `ask_raw`, `open`, `fetch`: one request over any [`Inbound`]; `assert_says`,
//!   `assert_raw_refused`, `assert_http_refused`: the exact refusal of an outcome.
//! - `netns::inside(|| …)`: the rest of the test in a network namespace of its own.
//! - `skip(why)`: names a test that cannot run here. `wait::eventually`, `wait::bound`.
//!
//! The programs under test are found where cargo built them, beside the running test program ([`built`]).
#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    clippy::missing_errors_doc,
    clippy::new_without_default,
    reason = "only tests use it, and a broken rig should fail loudly"
)]

pub mod answers;
pub mod built;
pub mod cgroup;
pub mod client;
pub mod echo_tailnet;
pub mod fake;
pub mod fake_tailnet;
pub mod fake_upstream;
pub mod gateway;
pub mod http;
pub mod http_origin;
pub mod idle_tunnels;
pub mod ipn_bus;
pub mod key_search;
pub mod managed_gateway;
pub mod metrics;
pub mod nameserver;
pub mod netns;
pub mod origin;
pub mod probes;
pub mod raw_connection;
pub mod resource_use;
pub mod running_tailscaled;
pub mod server;
pub mod setup;
pub mod socks_script;
pub mod source;
pub mod system_nameserver;
pub mod transcript;
pub mod wait;

pub use answers::{assert_http_refused, assert_raw_refused, assert_says};
pub use client::{Answer, Inbound, Socks5Reply, ask, ask_raw, fetch, open};
pub use fake_tailnet::FakeTailnet;
pub use fake_upstream::{FakeUpstream, UpstreamGreeting, UpstreamReply};
pub use gateway::{Gateway, accepts};
pub use http::{HttpAnswer, HttpHead};
pub use http_origin::{HttpOrigin, HttpReply, HttpRequest};
pub use idle_tunnels::IdleTunnels;
pub use metrics::Metrics;
pub use nameserver::Nameserver;
pub use origin::{ConnectionRecord, Latch, Origin, sha256};
pub use raw_connection::{ConnectionEnd, RawConnection};
pub use server::{ClosedPort, FullBacklog};
pub use setup::Setup;
pub use socks_script::{AfterReply, HalfClose};
pub use source::source;
pub use system_nameserver::SystemNameserver;

use std::io::Write as _;

/// Says that the running test cannot run here and why; with `TAILRACE_REQUIRE_ALL=1` that fails.
///
/// Use it as `return skip("…")`. The line also goes to the file `TAILRACE_SKIP_LOG`, if set.
#[track_caller]
pub fn skip(why: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {why}\n", thread.name().unwrap_or("?"));
    assert!(std::env::var("TAILRACE_REQUIRE_ALL").as_deref() != Ok("1"), "{line}");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("TAILRACE_SKIP_LOG") {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(path);
        let _ = log.and_then(|mut log| log.write_all(line.as_bytes()));
    }
}
