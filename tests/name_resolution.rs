//! Chapter D and cases B21 to B23: names, seen from outside. The gateway manages the fake
//! tailscaled, whose netmap leads split domains to a scripted nameserver inside the tailnet.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[path = "name_resolution/address_choice.rs"]
mod address_choice;
#[path = "name_resolution/caching.rs"]
mod caching;
#[path = "name_resolution/concurrent_questions.rs"]
mod concurrent_questions;
#[path = "name_resolution/failures.rs"]
mod failures;
#[path = "name_resolution/fixture.rs"]
mod fixture;
#[path = "name_resolution/hostile.rs"]
mod hostile;
#[path = "name_resolution/leaks.rs"]
mod leaks;
#[path = "name_resolution/policy.rs"]
mod policy;
#[path = "name_resolution/routes.rs"]
mod routes;
#[path = "name_resolution/system.rs"]
mod system;
