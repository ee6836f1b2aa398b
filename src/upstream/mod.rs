//! The upstream room.
#![forbid(unsafe_code)]
