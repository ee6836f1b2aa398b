//! Chapter P: what clients say, byte by byte. Each malformed head gets its exact answer, and not a
//! byte of it reaches the upstream.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

#[path = "parse/everyday.rs"]
mod everyday;
#[path = "parse/forward.rs"]
mod forward;
#[path = "parse/heads.rs"]
mod heads;
#[path = "parse/long_heads.rs"]
mod long_heads;
#[path = "parse/socks.rs"]
mod socks;
#[path = "parse/splits.rs"]
mod splits;
