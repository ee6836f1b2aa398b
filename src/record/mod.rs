//! The record room.
#![forbid(unsafe_code)]
