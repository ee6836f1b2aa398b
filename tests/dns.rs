//! Chapter D and cases B21 to B23: names, seen from outside. The gateway manages the fake
//! tailscaled, whose netmap leads split domains to a scripted nameserver inside the tailnet.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[path = "dns/addresses.rs"]
mod addresses;
#[path = "dns/failures.rs"]
mod failures;
#[path = "dns/hostile.rs"]
mod hostile;
#[path = "dns/lab.rs"]
mod lab;
#[path = "dns/leaks.rs"]
mod leaks;
#[path = "dns/many.rs"]
mod many;
#[path = "dns/policy.rs"]
mod policy;
#[path = "dns/remembered.rs"]
mod remembered;
#[path = "dns/routes.rs"]
mod routes;
#[path = "dns/system.rs"]
mod system;
