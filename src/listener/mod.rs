//! The listener room.
#![forbid(unsafe_code)]
