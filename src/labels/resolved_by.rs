//! Who found the addresses of a target: a DNS route, or nobody had to.
#![forbid(unsafe_code)]

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::DnsRoute;

/// Who found the addresses of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResolvedBy {
    /// The target is an address.
    Literal,
    /// The name was passed on, and the upstream finds out.
    Upstream,
    /// A DNS question by this route.
    Dns(DnsRoute),
}

impl ResolvedBy {
    /// The word of the access line's `resolved_by`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Literal => "literal",
            Self::Upstream => "upstream",
            Self::Dns(route) => route.label(),
        }
    }

    /// The DNS route, where a name was asked.
    pub const fn dns_route(self) -> Option<DnsRoute> {
        match self {
            Self::Literal | Self::Upstream => None,
            Self::Dns(route) => Some(route),
        }
    }
}

impl From<DnsRoute> for ResolvedBy {
    fn from(route: DnsRoute) -> Self {
        Self::Dns(route)
    }
}

impl fmt::Display for ResolvedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

impl Serialize for ResolvedBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}

impl<'de> Deserialize<'de> for ResolvedBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let words = [Self::Literal, Self::Upstream].into_iter();
        let mut all = words.chain(DnsRoute::ALL.map(Self::Dns));
        let unknown = || de::Error::invalid_value(de::Unexpected::Str(&word), &"a DNS route");
        all.find(|value| value.label() == word).ok_or_else(unknown)
    }
}
