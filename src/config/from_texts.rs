//! Settings written as single texts: environment variables and flags.
#![forbid(unsafe_code)]

use super::config_problem::{Origin, quoted};
use super::environment::ProcessEnvironment;
use super::keys::{self, Key};
use super::raw_config::{RawConfig, typed, unknown};
use crate::secret::without_credentials;

/// Names the descriptor over which `up` hands itself the key of `TS_AUTHKEY` (docs/requirements.md, K8).
pub const KEY_FD: &str = "TAILRACE_KEY_FD";

/// Variables of ours that are no settings.
const OURS: [&str; 9] = [
    "TAILRACE_CONFIG",
    "TAILRACE_ID",
    "TAILRACE_SSH_PROXY_COMMAND",
    KEY_FD,
    "TAILRACE_BIN",
    "TAILRACE_CACHE",
    "TAILRACE_FAKE",
    "TAILRACE_REQUIRE_ALL",
    "TAILRACE_SKIP_LOG",
];

/// One setting given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingFlag {
    /// As typed, for messages: `--set policy.mode=enforce`; credentials in the value are left out.
    pub shown: String,
    /// The path of the setting, such as `policy.mode`; it may name none.
    pub path: String,
    /// The value as it was typed, such as `enforce`; nothing has judged it yet.
    pub value: String,
}

impl SettingFlag {
    /// `--set KEY=VALUE`. Without `=` the value is missing, which the check will say.
    pub fn from_assignment(text: &str) -> Self {
        let (path, value) = text.split_once('=').unwrap_or((text, ""));
        let sign = if text.contains('=') { "=" } else { "" };
        let (shown_path, shown_value) = (without_credentials(path), without_credentials(value));
        Self {
            shown: format!("--set {shown_path}{sign}{shown_value}"),
            path: path.trim().to_owned(),
            value: value.to_owned(),
        }
    }

    /// A flag of its own for one setting: `--policy enforce`.
    pub fn named(flag: &str, path: &str, value: &str) -> Self {
        let shown = format!("{flag} {}", without_credentials(value));
        Self { shown, path: path.to_owned(), value: value.to_owned() }
    }
}

/// Lays the environment over what is written.
pub(super) fn environment(env: &ProcessEnvironment, written: &mut RawConfig) {
    for (name, value) in env.iter().filter(|(name, _)| name.starts_with("TAILRACE_")) {
        let origin = Origin::Environment(name.to_owned());
        let key = Key::of_variable(name);
        match (key, value.to_str()) {
            (Some(key), Some(value)) => put(key, value, origin, written),
            (Some(_), None) => written.fail(origin, "the value is not UTF-8"),
            (None, _) if OURS.contains(&name) || is_service_link(name) => {}
            (None, _) => {
                let near = keys::nearest_variable(name);
                written.fail(origin, format!("unknown variable: did you mean {near}?"));
            }
        }
    }
}

/// Kubernetes sets these in every pod next to a Service called `tailrace`; they are no settings.
fn is_service_link(name: &str) -> bool {
    let rest = name.strip_prefix("TAILRACE_").unwrap_or("");
    rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_")
}

/// Lays the flags over what is written.
pub(super) fn flags(flags: &[SettingFlag], written: &mut RawConfig) {
    for flag in flags {
        let origin = Origin::Flag(flag.shown.clone());
        if flag.shown.starts_with("--set ") && !flag.shown.contains('=') {
            written.fail(origin, "write KEY=VALUE");
            continue;
        }
        match Key::of_path(&flag.path) {
            Some(key) => put(key, &flag.value, origin, written),
            None => written.fail(origin, unknown(&flag.path)),
        }
    }
}

fn put(key: Key, value: &str, origin: Origin, written: &mut RawConfig) {
    if crate::secret::find_key(value).is_some() {
        let what =
            format!("{} holds a literal key: put it in a file of its own", quoted(key.path()));
        return written.fail(origin, what);
    }
    written.put(key, typed(key.kind(), value, &origin), origin);
}
