//! How far a target has come.
#![forbid(unsafe_code)]

/// How far a target has come, or had when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// The client is saying what it wants.
    Head,
    /// Policy is asked.
    Policy,
    /// The name is being resolved.
    Dns,
    /// The far side is being connected.
    Dial,
    /// The client is being answered.
    Reply,
    /// Bytes flow.
    Relay,
    /// One side is done; the other is given time.
    Linger,
}

/// Names in the log and the API, in the order of [`Stage`].
const LABELS: [&str; 7] = ["head", "policy", "dns", "dial", "reply", "relay", "linger"];

impl Stage {
    /// The name in the log and the API.
    pub fn label(self) -> &'static str {
        label_of(self as u8)
    }
}

/// The name of a stage kept as a number.
pub(super) fn label_of(stage: u8) -> &'static str {
    LABELS[usize::from(stage).min(LABELS.len() - 1)]
}
