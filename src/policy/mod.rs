//! The policy room.
#![forbid(unsafe_code)]
