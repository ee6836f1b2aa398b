//! The closed lists of words that access lines, metric labels and API answers are made of.
//!
//! A fact is one of these values from where it is found to where it is written; its word is known here
//! alone. No series is ever named by a host, an address or an error text, because no such value has a label.
#![forbid(unsafe_code)]

mod closed_list;
mod connection_facts;
mod gateway_facts;
mod per_label;
mod resolved_by;

pub use self::closed_list::LabelValue;
pub(crate) use self::closed_list::{ValueVisitor, closed_list};
pub use self::connection_facts::{
    Direction, DnsResult, DnsRoute, ErrorDetail, HalfClose, HostFrom, Inbound, PolicyMode, Route,
    Stage, UpstreamKind, Verdict,
};
pub use self::gateway_facts::{
    AcceptErrno, ChainLink, LogStream, NodeIdentity, PoolState, ReadinessPart, ReloadResult,
    RestartCause, SpliceFallback, Symptom, TailnetPhase,
};
pub use self::per_label::PerLabel;
pub use self::resolved_by::ResolvedBy;

#[cfg(test)]
mod tests {
    use std::fmt;

    use serde::{Deserialize, Serialize};

    use super::*;

    fn reads_back<L: LabelValue + Serialize + for<'de> Deserialize<'de> + fmt::Debug>() {
        for (at, value) in L::ALL.iter().copied().enumerate() {
            assert_eq!(value.index(), at, "{value:?}");
            let json = serde_json::to_string(&value).unwrap();
            assert_eq!(json, format!("\"{}\"", value.label()));
            assert_eq!(serde_json::from_str::<L>(&json).unwrap(), value);
            let twice = L::ALL.iter().filter(|other| other.label() == value.label()).count();
            assert_eq!(twice, 1, "{value:?}");
        }
    }

    #[test]
    fn every_word_reads_back_as_its_value() {
        reads_back::<Inbound>();
        reads_back::<HostFrom>();
        reads_back::<Route>();
        reads_back::<PolicyMode>();
        reads_back::<Verdict>();
        reads_back::<DnsRoute>();
        reads_back::<TailnetPhase>();
        reads_back::<AcceptErrno>();
        for by in [ResolvedBy::Literal, ResolvedBy::Upstream, DnsRoute::Split.into()] {
            let json = serde_json::to_string(&by).unwrap();
            assert_eq!(serde_json::from_str::<ResolvedBy>(&json).unwrap(), by);
        }
    }

    #[test]
    fn a4_a_word_that_is_not_of_the_list_is_no_value() {
        for word in ["\"Socks5\"", "\"\"", "\"a\\\"} 1\\nfake_metric 1\"", "1"] {
            assert!(serde_json::from_str::<Inbound>(word).is_err(), "{word}");
        }
        let error = serde_json::from_str::<Verdict>("\"maybe\"").unwrap_err().to_string();
        assert!(error.contains("one of allow, would_deny, deny"), "{error}");
    }

    #[test]
    fn each_label_has_its_own_place() {
        let mut counts = PerLabel::<Direction, u32>::from_fn(|_| 0);
        counts[Direction::Down] += 2;
        let counts: Vec<_> = counts.iter().map(|(label, count)| (label, *count)).collect();
        assert_eq!(counts, [(Direction::Up, 0), (Direction::Down, 2)]);
    }
}
