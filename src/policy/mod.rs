//! May it? Pure judgement: no socket, no question to anybody, no clock.
//!
//! A host is judged before any DNS question leaves, each address before it is dialled. The answer
//! is an [`Admitted`] value that only this module can make.
#![forbid(unsafe_code)]

mod judge;
mod lists;
mod local_addresses;
pub mod suffix;
mod verdict;

pub use self::judge::{Asked, Policy, Rules};
pub use self::lists::PolicyError;
pub use self::local_addresses::LocalAddresses;
pub use self::suffix::{Suffix, SuffixError};
pub use self::verdict::{Address, Admitted, Decision, Mode, Refused, Verdict};
