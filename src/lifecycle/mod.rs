//! The lifecycle room.
#![forbid(unsafe_code)]

pub mod cut;
pub mod ready;
