//! Symptom, cause and fix, wherever the gateway said them.
#![forbid(unsafe_code)]

use serde_json::Value;

use crate::tailnet::explain;

pub(super) use crate::tailnet::explain::{
    HOST, HOST_ALONE, KEY, NAME, NO_GATEWAY, NOT_STARTED, UPSTREAM,
};

/// What is wrong with a link, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) symptom: String,
    pub(super) cause: String,
    pub(super) fix: String,
}

impl Advice {
    /// The `fault` of an answer, if there is one.
    pub(super) fn of_fault(fault: &Value) -> Option<Self> {
        let part = |name: &str| fault[name].as_str().map(str::to_owned);
        Some(Self { symptom: part("symptom")?, cause: part("cause")?, fix: part("fix")? })
    }

    /// A refusal's sentence, `cause: fix`.
    pub(super) fn of_sentence(symptom: &str, sentence: &str) -> Self {
        let (cause, fix) =
            sentence.rsplit_once(": ").unwrap_or((sentence, "see `tailrace status`"));
        Self { symptom: symptom.to_owned(), cause: cause.to_owned(), fix: fix.to_owned() }
    }
}

impl From<explain::FaultAdvice> for Advice {
    fn from(advice: explain::FaultAdvice) -> Self {
        Self { symptom: advice.symptom.to_owned(), cause: advice.cause, fix: advice.fix }
    }
}
