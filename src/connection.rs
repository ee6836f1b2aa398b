//! connection.
#![forbid(unsafe_code)]
