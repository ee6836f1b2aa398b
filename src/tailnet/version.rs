//! tailscaled's version, as far as its behaviour hangs on it.
#![forbid(unsafe_code)]

use std::fmt;

/// Characters of a version that are kept.
const LONGEST: usize = 64;

/// `1.98.9-ERR-BuildInfo` is 1.98.9: what follows the three numbers does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailscaledVersion {
    said: String,
    numbers: Option<(u32, u32, u32)>,
}

impl TailscaledVersion {
    /// Reads what tailscaled says; a text that is no version is kept and counts as old.
    pub fn parse(said: &str) -> Self {
        Self { said: said.chars().take(LONGEST).collect(), numbers: parse_numbers(said) }
    }

    /// Whether this is what was read from `said`.
    pub(super) fn was_read_from(&self, said: &str) -> bool {
        said.chars().take(LONGEST).eq(self.said.chars())
    }

    /// Whether its SOCKS5 port passes a FIN on without cutting the answer (tailscale/tailscale#21359,
    /// since 1.104.0).
    pub fn keeps_half_close(&self) -> bool {
        self.numbers.is_some_and(|numbers| numbers >= (1, 104, 0))
    }
}

fn parse_numbers(said: &str) -> Option<(u32, u32, u32)> {
    let mut parts = said.trim().trim_start_matches('v').splitn(3, '.');
    let (major, minor, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((major.parse().ok()?, minor.parse().ok()?, rest[..end].parse().ok()?))
}

impl fmt::Display for TailscaledVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c6_new_from_1_104_0_on_whatever_the_suffix() {
        for new in ["1.104.0", "1.104.0-t0123", "v1.105.2", "2.0.0", "1.104.0-ERR-BuildInfo"] {
            assert!(TailscaledVersion::parse(new).keeps_half_close(), "{new}");
        }
        for old in ["1.98.9-ERR-BuildInfo", "1.103.99", "1.104", "", "unknown", "1.x.0"] {
            assert!(!TailscaledVersion::parse(old).keeps_half_close(), "{old}");
        }
    }
}
