//! The inbound room.
#![forbid(unsafe_code)]
