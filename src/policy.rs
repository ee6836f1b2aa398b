//! May it? Pure judgement: no socket, no question to anybody, no clock.
//!
//! A host is judged before any DNS question leaves, each address before it is dialled. The answer
//! is an [`Admitted`] value that only this module can make.
#![forbid(unsafe_code)]

mod decide;
mod judge;
mod lists;
mod local_addresses;
pub mod suffix;
mod verdict;

pub use self::decide::{
    AddressDecision, AddressDecisions, AskedName, AskedTarget, Decision, DecisionContext,
    FirstBytesUse, KnownNames, NameDecision, NamedBy, NothingKnown, RouteTable, SyntheticUse,
    TargetSource, decide, decide_address, decide_addresses, decide_question, decide_server_name,
};
pub use self::judge::{Policy, RequestedServer, Rules};
pub use self::lists::PolicyError;
pub use self::local_addresses::LocalAddresses;
pub use self::suffix::{Suffix, SuffixError};
pub use self::verdict::{Address, Admitted, Mode, PolicyVerdict, Refused, Verdict};
