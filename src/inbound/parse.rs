//! What every parser here answers: whole, more is needed, or bad.
#![forbid(unsafe_code)]

use crate::outcome::Outcome;
use crate::target::HostError;

/// A parser's good answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<T> {
    /// More bytes may make it whole.
    Incomplete,
    /// A whole message at the front.
    Whole {
        /// What it says.
        value: T,
        /// Its bytes.
        used: usize,
    },
}

/// Input that can never become whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// The outcome that names the reply.
    pub outcome: Outcome,
    /// The sentence for the client.
    pub message: String,
    /// What was sent in place of a host, escaped.
    pub asked: Option<String>,
}

impl ParseError {
    pub(super) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into(), asked: None }
    }

    /// [`Outcome::BadRequest`] with its sentence.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Outcome::BadRequest, message)
    }
}

impl From<HostError> for ParseError {
    fn from(error: HostError) -> Self {
        let asked = error.host().map(str::to_owned);
        Self { asked, ..Self::bad_request(error.to_string()) }
    }
}
