//! The config room.
#![forbid(unsafe_code)]
