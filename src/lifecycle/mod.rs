//! The lifecycle room.
#![forbid(unsafe_code)]
