//! Symptom, cause and fix, where a command words them itself.
#![forbid(unsafe_code)]

use crate::api::FaultAnswer;
use crate::labels::Symptom;

/// Splits a refusal's sentence, `cause: fix`.
pub(super) fn of_sentence(symptom: Symptom, sentence: &str) -> FaultAnswer {
    let (cause, fix) = sentence.rsplit_once(": ").unwrap_or((sentence, "see `tailrace status`"));
    FaultAnswer { symptom, cause: cause.to_owned(), fix: fix.to_owned() }
}
