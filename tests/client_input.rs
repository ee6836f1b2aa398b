//! Chapter P: what clients say, byte by byte. Each malformed head gets its exact answer, and not a
//! byte of it reaches the upstream.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

#[path = "client_input/forward.rs"]
mod forward;
#[path = "client_input/http_heads.rs"]
mod http_heads;
#[path = "client_input/lenient_http.rs"]
mod lenient_http;
#[path = "client_input/long_heads.rs"]
mod long_heads;
#[path = "client_input/socks.rs"]
mod socks;
#[path = "client_input/split_reads.rs"]
mod split_reads;
