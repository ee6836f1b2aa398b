//! The admin room.
#![forbid(unsafe_code)]
