//! The user name of a request as a label of the work ("investigation-42"). It authenticates nobody.
#![forbid(unsafe_code)]

/// Longest label in bytes.
const MAX: usize = 64;
/// How the tokens people paste by mistake begin.
const TOKENS: [&str; 5] = ["tskey-", "ghp_", "glpat-", "sk-", "xox"];

/// A label that is safe to write down: plain, or `redacted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label(Box<str>);

impl Label {
    /// Takes a user name; anything but `[A-Za-z0-9._:-]{1,64}`, and what begins like a known
    /// token, becomes `redacted`. An empty one is none.
    pub fn new(user: &[u8]) -> Option<Self> {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
        let text = match std::str::from_utf8(user) {
            _ if user.is_empty() => return None,
            Ok(text) if text.len() <= MAX && user.iter().all(plain) => text,
            _ => return Some(Self("redacted".into())),
        };
        let token = TOKENS.iter().any(|token| text.to_ascii_lowercase().starts_with(token));
        Some(Self(if token { "redacted".into() } else { text.into() }))
    }

    /// What may be logged: 1 to 64 bytes of `[A-Za-z0-9._:-]`, or the word `redacted`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_labels_are_written() {
        let label = |text: &str| Label::new(text.as_bytes()).map(|l| l.as_str().to_owned());
        assert_eq!(label("investigation-42").as_deref(), Some("investigation-42"));
        assert_eq!(label(""), None);
        let long = "a".repeat(65);
        for secret in ["tskey-auth-x", "GHP_abc", "xoxb-1", "a b", "a\n", "ü", &long] {
            assert_eq!(label(secret).as_deref(), Some("redacted"), "{secret}");
        }
    }
}
