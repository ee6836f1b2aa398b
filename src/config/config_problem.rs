//! Where a value was written, and what is wrong with it: one line each, safe to print.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::secret::{redacted, without_credentials};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A place in the settings file; line and column count from 1, columns in characters.
    File {
        /// As it was given.
        path: Arc<Path>,
        /// The line, counted from 1.
        line: usize,
        /// The column in characters, counted from 1.
        column: usize,
    },
    /// The environment variable of this name.
    Environment(String),
    /// The flag as it was typed, `--set policy.mode=enforce`, but for credentials in its value.
    Flag(String),
    /// Nobody wrote it: the built-in default holds.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => {
                write!(f, "{}:{line}:{column}", plain(&path.to_string_lossy()))
            }
            Self::Environment(name) => write!(f, "environment {}", plain(name)),
            Self::Flag(text) => write!(f, "flag {}", plain(text)),
            Self::Default => write!(f, "default"),
        }
    }
}

/// One thing wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where that was written; of a file that cannot be read, its first line.
    pub origin: Origin,
    /// What, and what to do about it.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "config: {}: {}", self.origin, self.what)
    }
}

/// Everything wrong with the settings; prints one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.lines().join("\n"))]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// One line each, without line ends.
    pub fn lines(&self) -> Vec<String> {
        self.0.iter().map(Problem::to_string).collect()
    }
}

/// Longest piece of somebody's input shown in a message, in characters.
const SHOWN: usize = 120;

/// A value in quotes: control characters escaped, cut at a bound, and never a tailnet key or the user and password of
/// a URL.
pub(crate) fn quoted(value: &str) -> String {
    format!("\"{}\"", plain(&without_credentials(value)))
}

/// Other text, safe to print, a tailnet key never shown. Only printable ASCII passes, so no terminal can be steered by it.
pub(crate) fn plain(value: &str) -> String {
    let mut text = String::new();
    for c in redacted(value).chars().take(SHOWN) {
        match c {
            '"' => text.push('"'),
            ' '..='~' => text.push(c),
            c if c.is_control() || !c.is_alphanumeric() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    if value.chars().nth(SHOWN).is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_safe_to_print() {
        assert_eq!(plain("a\nb\u{1b}[2J\u{202e}ü"), "a\\nb\\u{1b}[2J\\u{202e}ü");
        assert_eq!(plain(&"x".repeat(500)).chars().count(), SHOWN + 1);
    }

    #[test]
    fn a_quoted_value_has_no_credentials() {
        assert_eq!(quoted("socks9://u:secretpw@h:1"), "\"socks9://[redacted]@h:1\"");
        assert_eq!(quoted("u:secretpw@h:1"), "\"[redacted]@h:1\"");
        assert_eq!(quoted("x tskey-auth-CANARY"), "\"x [redacted]\"");
        let long = format!("http://u:{}@h", "p".repeat(500));
        assert_eq!(quoted(&long), "\"http://[redacted]@h\"");
    }
}
