//! The names room.
#![forbid(unsafe_code)]
