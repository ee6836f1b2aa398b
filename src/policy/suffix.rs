//! Allowed name suffixes: how they are written and what they mean.
//!
//! `.corp.example` is every name below `corp.example`; `corp.example` is that name and every name
//! below. Matching is on whole labels.
#![forbid(unsafe_code)]

use std::fmt;

use crate::target::{HostError, Name};

/// A suffix of names that are allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Suffix {
    /// The canonical name, without the leading dot.
    pub name: Name,
    /// The name itself is allowed too.
    pub apex: bool,
}

/// Why a text is no suffix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SuffixError {
    /// Nothing is left once dots and stars are taken away.
    #[error("suffix {text:?} names no domain: write it like .corp.example")]
    Empty {
        /// The suffix as written.
        text: String,
    },
    /// An address: those go to `allowed_nets`.
    #[error("suffix {text:?} is an address: put it in policy.allowed_nets as {text}/32")]
    Address {
        /// The suffix as written.
        text: String,
    },
    /// Not a host name.
    #[error("suffix {text:?} would never match: {source}")]
    Name {
        /// The suffix as written.
        text: String,
        /// What is wrong with it.
        source: HostError,
    },
}

impl Suffix {
    /// Reads one suffix; `*.x` is read as `.x`.
    ///
    /// # Errors
    /// [`SuffixError`]: a suffix that could never match is an error, not a rule.
    pub fn parse(text: &str) -> Result<Self, SuffixError> {
        let text = text.trim();
        let shown = || text.to_owned();
        let below = text.strip_prefix("*.").or_else(|| text.strip_prefix('.'));
        let bare = below.unwrap_or(text);
        if bare.trim_matches(['.', '*']).is_empty() {
            return Err(SuffixError::Empty { text: shown() });
        }
        if bare.parse::<std::net::IpAddr>().is_ok() {
            return Err(SuffixError::Address { text: shown() });
        }
        let name = Name::parse(bare.as_bytes())
            .map_err(|source| SuffixError::Name { text: shown(), source })?;
        Ok(Self { name, apex: below.is_none() })
    }

    /// Reads the product's comma-separated field; blank items are dropped.
    ///
    /// # Errors
    /// The first item that is no suffix.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, SuffixError> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(Self::parse).collect()
    }
}

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.apex { "" } else { "." };
        write!(f, "{dot}{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f4_what_could_never_match_is_refused() {
        let long = format!("{}.example", "a.".repeat(123));
        for bad in
            [".", "*", "*.", "a..b", "a b", "ünïcode", "1.2.3.4", "http://x", "a.*.b", "", &long]
        {
            assert!(Suffix::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn b3_the_leading_dot_leaves_the_apex_out() {
        let list = Suffix::parse_list(" .Internal.example.com, ts.net.,, *.corp.example ").unwrap();
        let shown: Vec<String> = list.iter().map(Suffix::to_string).collect();
        assert_eq!(shown, [".internal.example.com", "ts.net", ".corp.example"]);
    }
}
