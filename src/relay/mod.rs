//! The relay room.
#![forbid(unsafe_code)]
