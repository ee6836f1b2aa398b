//! The effective settings with where each came from, no secret among them.
#![forbid(unsafe_code)]

use super::byte_size;
use super::config_problem::Origin;
use super::keys::Key;
use super::raw_config::{Entry, Item, RawConfig, RawValue};
use super::settings::Config;
use crate::secret::without_credentials;
use crate::target::Forward;

/// One setting as `config show` prints it.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The setting that is shown.
    pub key: Key,
    /// The value; as TOML it is `value.to_string()`.
    pub value: toml::Value,
    /// Where it was written.
    pub origin: Origin,
}

/// Every setting, in the order of `config.toml`, with what its default came to.
pub fn shown(written: &RawConfig, config: &Config) -> Vec<Shown> {
    let one = |entry: &Entry| Shown {
        key: entry.key,
        value: effective(entry.key, config).unwrap_or_else(|| value(&entry.raw)),
        origin: entry.origin.clone(),
    };
    written.entries().iter().map(one).collect()
}

/// Every `[[forward]]`, and where it was written.
pub fn shown_forwards<'a>(
    written: &'a RawConfig,
    config: &'a Config,
) -> impl Iterator<Item = (&'a Forward, &'a Origin)> {
    // All that is written is sound once there is a `Config`.
    config.forwards.iter().zip(written.forwards.iter().map(|forward| &forward.origin))
}

/// Settings whose meaning differs from what is written.
fn effective(key: Key, config: &Config) -> Option<toml::Value> {
    let word = match key {
        Key::RunDir => return Some(config.run_dir.to_string_lossy().into_owned().into()),
        Key::UpstreamKind => config.upstream.kind.label(),
        Key::TailnetManage => {
            return Some(config.tailnet.as_ref().is_some_and(|tailnet| tailnet.manage).into());
        }
        Key::TailnetSocket => {
            let socket = config.tailnet.as_ref().map(|tailnet| tailnet.socket.to_string_lossy());
            return Some(socket.unwrap_or_default().into_owned().into());
        }
        Key::DnsMode => config.dns.mode.label(),
        _ => return None,
    };
    Some(word.into())
}

fn value(raw: &RawValue) -> toml::Value {
    match raw {
        RawValue::Text(text) => without_credentials(text).into_owned().into(),
        RawValue::List(items) => {
            let shown = |item: &Item| without_credentials(&item.text).into_owned();
            items.iter().map(shown).collect::<Vec<_>>().into()
        }
        RawValue::Switch(on) => (*on).into(),
        RawValue::Number(number) => (*number).into(),
        RawValue::Duration(duration) => spelled(*duration).into(),
        RawValue::Size(bytes) => byte_size::spell_size(*bytes).into(),
    }
}

/// A duration in its largest whole unit.
fn spelled(duration: std::time::Duration) -> String {
    let millis = duration.as_millis();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let whole = units.iter().find(|(_, unit)| millis.is_multiple_of(*unit) && millis > 0);
    match whole {
        Some((name, unit)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a9_no_secret_is_shown() {
        let shown = |text: &str| value(&RawValue::Text(text.to_owned()));
        assert_eq!(shown("http://u:p@proxy:3128/x"), "http://[redacted]@proxy:3128/x".into());
        assert_eq!(shown("/run/key"), "/run/key".into());
        let item = Item { text: "u:p@proxy:1".to_owned(), origin: Origin::Default };
        assert_eq!(value(&RawValue::List(vec![item])), vec!["[redacted]@proxy:1"].into());
    }

    #[test]
    fn durations_are_spelled_in_their_largest_whole_unit() {
        let spell = |millis| spelled(Duration::from_millis(millis));
        assert_eq!([spell(200), spell(7000), spell(3_600_000)], ["200ms", "7s", "1h"]);
    }
}
