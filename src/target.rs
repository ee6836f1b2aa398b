//! target.
#![forbid(unsafe_code)]
