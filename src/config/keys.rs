//! The one table of every setting: path, type, default, and what this version can do with it.
//!
//! File, environment, flags, `config show` and the reload all read it; nothing here checks a value.
#![forbid(unsafe_code)]

/// What a value of a setting looks like where it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A string.
    Text,
    /// A list of strings; one comma-separated string in the environment and in flags.
    List,
    /// A list that may be one comma-separated string in the file too.
    ListOrText,
    /// `true` or `false`.
    Switch,
    /// `true`, `false` or `"auto"`.
    SwitchOrAuto,
    /// A whole number within these bounds, both included.
    Number(i64, i64),
    /// A duration above zero.
    Duration,
    /// A duration that may be zero.
    DurationOrZero,
    /// A number of bytes within these bounds, both included.
    Size(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
}

/// One setting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// `section.name`, or the bare name at the top.
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    /// As it would be written in the environment.
    pub(crate) default: &'static str,
}

impl Key {
    /// `policy` of `policy.mode`; empty at the top.
    pub(crate) fn section(&self) -> &'static str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }

    /// `mode` of `policy.mode`.
    pub(crate) fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// `TAILRACE_POLICY_MODE` of `policy.mode`.
    pub(crate) fn variable(&self) -> String {
        format!("TAILRACE_{}", self.path.replace('.', "_").to_ascii_uppercase())
    }
}

const fn key(path: &'static str, kind: Kind, default: &'static str) -> Key {
    Key { path, kind, default }
}

/// Words of `upstream.kind`.
const KINDS: &[&str] = &["auto", "tailscaled", "localapi", "socks5", "direct"];

use Kind::{
    Duration, DurationOrZero, List, ListOrText, Number, Size, Switch, SwitchOrAuto, Text, Word,
};

/// The biggest number of connections anybody may ask for.
const CONNECTIONS: i64 = 10_000_000;

/// Smaller heads are no browser's; larger ones are no server's, and each is held whole while it is read.
const HEAD: Kind = Size(1 << 10, 1 << 20);

/// Every setting, in the order of `config.toml`.
pub(crate) static KEYS: &[Key] = &[
    key("run_dir", Text, ""),
    key("listen.proxy", List, "127.0.0.1:1055,[::1]:1055"),
    key("listen.tproxy", List, ""),
    key("listen.admin", Text, "127.0.0.1:9155"),
    key("listen.admin_hosts", List, ""),
    key("listen.dns", Text, ""),
    key("listen.allow_remote", Switch, "false"),
    key("transparent.server_first", Duration, "200ms"),
    key("upstream.kind", Word(KINDS), "auto"),
    key("upstream.socks5", Text, ""),
    key("upstream.outside_tailnet", Word(&["allow", "refuse"]), "allow"),
    key("upstream.connect_timeout", Duration, "7s"),
    key("upstream.local_timeout", Duration, "2s"),
    key("upstream.half_close", Word(&["auto", "propagate", "defer"]), "auto"),
    key("upstream.max_connections", Number(0, CONNECTIONS), "0"),
    key("upstream.pool", Number(0, 1024), "8"),
    key("upstream.mark", Number(0, u32::MAX as i64), "0"),
    key("tailnet.manage", SwitchOrAuto, "auto"),
    key("tailnet.tailscaled", Text, "tailscaled"),
    key("tailnet.socket", Text, ""),
    key("tailnet.auth_key_file", Text, ""),
    key("tailnet.hostname", Text, "autoheal-{id}"),
    key("tailnet.tags", List, ""),
    key("tailnet.login_server", Text, ""),
    key("tailnet.control_proxy", Text, ""),
    key("tailnet.accept_routes", Switch, "true"),
    key("tailnet.tailnet", Text, ""),
    key("tailnet.state", Text, "memory"),
    key("tailnet.ready_wait", Duration, "20s"),
    key("tailnet.start_jitter", DurationOrZero, "0s"),
    key("dns.mode", Word(&["tailnet", "upstream", "system"]), ""),
    key("dns.timeout", Duration, "3s"),
    key("dns.cache_entries", Number(0, CONNECTIONS), "10000"),
    key("dns.synthetic", Text, ""),
    key("policy.mode", Word(&["off", "log", "enforce"]), "log"),
    key("policy.allowed_host_suffixes", ListOrText, ""),
    key("policy.allowed_hosts", List, ""),
    key("policy.allowed_nets", List, ""),
    key(
        "policy.deny_nets",
        List,
        "0.0.0.0/8,127.0.0.0/8,169.254.0.0/16,100.100.100.200/32,224.0.0.0/4,240.0.0.0/4,\
         ::/128,::1/128,fe80::/10,fd00:ec2::254/128,ff00::/8",
    ),
    key("policy.require_sni", Switch, "false"),
    key("limits.max_connections", Number(1, CONNECTIONS), "8192"),
    key("limits.per_client", Number(0, CONNECTIONS), "0"),
    key("limits.max_head", HEAD, "64KiB"),
    key("limits.head_timeout", Duration, "10s"),
    key("limits.keepalive_idle", Duration, "60s"),
    key("limits.idle_timeout", Duration, "1h"),
    key("limits.half_close_timeout", Duration, "60s"),
    key("limits.drain_timeout", Duration, "4s"),
    key("relay.splice", Switch, "true"),
    key("record.process", Switch, "true"),
    key("log.level", Word(&["error", "warn", "info", "debug", "trace"]), "info"),
    key("log.format", Word(&["auto", "text", "json"]), "auto"),
    key("log.to", Text, "stderr"),
    key("log.access", Switch, "true"),
];

/// Keys of one `[[forward]]`, both text.
pub(crate) const FORWARD: [&str; 2] = ["listen", "target"];

/// The setting at `path`.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Is `name` a table of settings?
pub(crate) fn is_section(name: &str) -> bool {
    !name.is_empty() && KEYS.iter().any(|key| key.section() == name)
}

/// The setting or table whose path is nearest to one that does not exist.
///
/// A right name in the wrong table counts as one slip, so `limits.connect_timeout` leads to
/// `upstream.connect_timeout`.
pub(crate) fn nearest(path: &str) -> &'static str {
    let last = path.rsplit('.').next().unwrap_or(path);
    let far = |key: &&Key| {
        let whole = strsim::damerau_levenshtein(path, key.path);
        whole.min(strsim::damerau_levenshtein(last, key.name()) + 1)
    };
    let table = |key: &&Key| strsim::damerau_levenshtein(path, key.section());
    let by_key = KEYS.iter().min_by_key(far);
    let by_table = KEYS.iter().filter(|key| !key.section().is_empty()).min_by_key(table);
    match (by_key, by_table) {
        (Some(key), Some(in_table)) if far(&key) <= table(&in_table) => key.path,
        (_, Some(in_table)) => in_table.section(),
        (key, None) => key.map_or("", |key| key.path),
    }
}

/// The variable whose name is nearest to one that does not exist.
pub(crate) fn nearest_variable(name: &str) -> String {
    let far = |variable: &String| strsim::damerau_levenshtein(name, variable);
    KEYS.iter().map(Key::variable).min_by_key(far).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_key_survives_slips_of_letter_and_table() {
        assert_eq!(nearest("policy.mdoe"), "policy.mode");
        assert_eq!(nearest("limits.connect_timeout"), "upstream.connect_timeout");
        assert_eq!(nearest("polcy"), "policy");
        assert_eq!(nearest("run-dir"), "run_dir");
        assert_eq!(nearest_variable("TAILRACE_POLICY_MODES"), "TAILRACE_POLICY_MODE");
    }

    #[test]
    fn paths_and_variables_are_unique() {
        let mut seen: Vec<String> = KEYS.iter().map(Key::variable).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), KEYS.len());
    }
}
