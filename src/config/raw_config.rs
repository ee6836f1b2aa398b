//! Stage one: every setting with its type and the place it was written, nothing judged yet.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::byte_size;
use super::config_problem::{Origin, Problem, quoted};
use super::duration;
use super::environment::ProcessEnvironment;
use super::from_texts::SettingFlag;
use super::keys::{self, Key, Kind, Setting};
use super::nearest_word::suggestion;
use super::setting_types::ValueType;
use super::{from_file, from_texts};

/// A value of the right type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RawValue {
    Text(String),
    List(Vec<Item>),
    Switch(bool),
    Number(i64),
    Duration(Duration),
    /// A size in bytes, whatever unit it was written in.
    Size(u64),
}

/// One item of a list, with its own place.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// Two items are the same when they say the same, wherever they stand.
impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Item {}

/// One setting as it stands after all layers.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) raw: RawValue,
    pub(super) origin: Origin,
    /// A value was written that could not be read, so nothing may be concluded from `raw`.
    pub(super) broken: bool,
}

/// One `[[forward]]` as written; what is missing or of the wrong type is none.
#[derive(Debug, Clone)]
pub(super) struct RawForward {
    /// Where the table starts.
    pub(super) origin: Origin,
    pub(super) listen: Option<Item>,
    pub(super) target: Option<Item>,
    /// Something in it could not be read: nothing may be called missing.
    pub(super) broken: bool,
}

/// All settings as written, and what was wrong with the writing.
#[derive(Debug, Clone)]
pub struct RawConfig {
    entries: Vec<Entry>,
    /// Each `[[forward]]`; only the file has them.
    pub(super) forwards: Vec<RawForward>,
    pub(super) problems: Vec<Problem>,
}

/// Reads the layers, later ones over earlier ones: defaults, file (path and text), environment,
/// flags. Never fails and touches nothing: what is wrong is kept for `check`.
pub fn parse(
    file: Option<(&Path, &str)>,
    env: &ProcessEnvironment,
    flags: &[SettingFlag],
) -> RawConfig {
    let mut written = RawConfig::defaults();
    if let Some((path, text)) = file {
        from_file::read_file_text(path, text, &mut written);
    }
    from_texts::environment(env, &mut written);
    from_texts::flags(flags, &mut written);
    written
}

impl RawConfig {
    fn defaults() -> Self {
        let entry =
            |key: Key| Entry { key, raw: default_of(key), origin: Origin::Default, broken: false };
        Self {
            entries: Key::ALL.into_iter().map(entry).collect(),
            forwards: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Notes what is wrong with the value written at `origin`, and goes on.
    pub(super) fn fail(&mut self, origin: Origin, what: impl Into<String>) {
        self.problems.push(Problem { origin, what: what.into() });
    }

    /// Lays a value over what was there, or notes what is wrong with it.
    pub(super) fn put(&mut self, key: Key, read: Result<RawValue, String>, origin: Origin) {
        let entry = &mut self.entries[key as usize];
        match read {
            Ok(raw) => (entry.raw, entry.origin) = (raw, origin),
            Err(what) => {
                entry.broken = true;
                self.fail(origin, format!("{} {what}", key.path()));
            }
        }
    }

    /// What the file says is unknown, so no setting left at its default may be blamed.
    pub(super) fn doubt(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.broken = true);
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn entry(&self, key: impl Into<Key>) -> &Entry {
        // One entry for each key, in the keys' order.
        &self.entries[key.into() as usize]
    }

    /// Where a setting was written.
    pub fn origin(&self, key: impl Into<Key>) -> Origin {
        self.entry(key).origin.clone()
    }

    /// The value of a setting, as its type has it.
    pub(super) fn get<T: ValueType>(&self, setting: Setting<T>) -> T::Read<'_> {
        T::read(&self.entry(setting).raw)
    }

    /// Where the `[[forward]]` that listens on `address` was written.
    pub fn forward_at(&self, address: SocketAddr) -> Option<Origin> {
        let listens = self.forwards.iter().filter_map(|forward| forward.listen.as_ref());
        let at = |item: &&Item| item.text.parse() == Ok(address);
        listens.into_iter().find(at).map(|item| item.origin.clone())
    }
}

/// A key's default, read by the same reader as everything else.
pub(super) fn default_of(key: Key) -> RawValue {
    // `dns.mode` has no word for its default, which depends on the upstream: it stays empty text.
    typed(key.kind(), key.default(), &Origin::Default)
        .unwrap_or_else(|_| RawValue::Text(String::new()))
}

/// Reads a text by its kind: how environment, flags and defaults are written.
pub(super) fn typed(kind: Kind, text: &str, origin: &Origin) -> Result<RawValue, String> {
    let wrong = |wants: &str| format!("wants {wants}, not {}", quoted(text));
    match kind {
        Kind::Text => Ok(RawValue::Text(text.trim().to_owned())),
        Kind::List | Kind::ListOrText => Ok(RawValue::List(split(text, origin))),
        Kind::Switch => {
            text.trim().parse().map(RawValue::Switch).map_err(|_| wrong("true or false"))
        }
        Kind::SwitchOrAuto => word(&["auto", "true", "false"], text),
        Kind::Word(words) => word(words, text),
        Kind::Number(least, most) => {
            let number = text.trim().parse::<i128>();
            number.map_err(|_| wrong("a whole number")).and_then(|n| within(n, least, most))
        }
        Kind::Duration | Kind::DurationOrZero => timed(kind, text),
        Kind::Size(least, most) => sized(text, least, most),
    }
}

/// A number of bytes within bounds.
pub(super) fn sized(text: &str, least: u64, most: u64) -> Result<RawValue, String> {
    match byte_size::parse_size(text).map_err(|why| format!("{} {why}", quoted(text)))? {
        bytes if (least..=most).contains(&bytes) => Ok(RawValue::Size(bytes)),
        _ => Err(format!(
            "wants a size from {} to {}, not {}",
            byte_size::spell_size(least),
            byte_size::spell_size(most),
            quoted(text)
        )),
    }
}

/// A duration, above zero unless its kind lets it be zero.
pub(super) fn timed(kind: Kind, text: &str) -> Result<RawValue, String> {
    let parsed = duration::parse_duration(text).map_err(|why| format!("{} {why}", quoted(text)))?;
    if parsed.is_zero() && kind == Kind::Duration {
        return Err(format!("{} is zero: it would always be over at once", quoted(text)));
    }
    Ok(RawValue::Duration(parsed))
}

/// One of these words.
pub(super) fn word(words: &[&str], text: &str) -> Result<RawValue, String> {
    let text = text.trim();
    if words.contains(&text) {
        return Ok(RawValue::Text(text.to_owned()));
    }
    let (list, meant) = (words.join(", "), suggestion(text, words));
    Err(format!("wants one of {list}, not {}{meant}", quoted(text)))
}

/// A number within bounds.
pub(super) fn within(number: i128, least: i64, most: i64) -> Result<RawValue, String> {
    match i64::try_from(number) {
        Ok(fits) if (least..=most).contains(&fits) => Ok(RawValue::Number(fits)),
        _ => Err(format!("wants a number from {least} to {most}, not {number}")),
    }
}

/// Comma-separated items; blank ones are dropped.
pub(super) fn split(text: &str, origin: &Origin) -> Vec<Item> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| Item { text: item.to_owned(), origin: origin.clone() }).collect()
}

/// The sentence for a key nobody knows.
pub(super) fn unknown(path: &str) -> String {
    format!("unknown key {}: did you mean {}?", quoted(path), keys::nearest(path))
}
