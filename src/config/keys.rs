//! The one table of every setting: path, type, default, and what this version can do with it.
//!
//! File, environment, flags, `config show` and the reload all read it; nothing here checks a value. The code names
//! a setting by its [`Key`] or reads it by its [`Setting`], which knows the type of its value: a mistyped name,
//! or a value taken for another type, does not compile.
#![forbid(unsafe_code)]

use std::marker::PhantomData;

use super::setting_types::{
    ByteSize, Choice, OptionalChoice, Switch, Text, TextList, TimeSpan, WholeNumber,
};
use super::settings::{DnsMode, HalfCloseChoice, LogFormat};
use crate::labels::{LabelValue as _, PolicyMode, closed_list};

/// What a value of a setting looks like where it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A string, in the file in quotes.
    Text,
    /// A list of strings; one comma-separated string in the environment and in flags.
    List,
    /// A list that may be one comma-separated string in the file too.
    ListOrText,
    /// `true` or `false`, in the file without quotes.
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

closed_list! {
    /// `upstream.kind` as it is written.
    UpstreamChoice {
        /// What the other settings lead to.
        Auto = "auto",
        /// Through tailscaled's SOCKS5 port.
        Tailscaled = "tailscaled",
        /// Through tailscaled's LocalAPI socket, with no SOCKS5 port at all.
        LocalApi = "localapi",
        /// Through any SOCKS5 server, whose address `upstream.socks5` gives.
        Socks5 = "socks5",
        /// Dial from this host.
        Direct = "direct",
    }
}

closed_list! {
    /// `upstream.outside_tailnet` as it is written.
    OutsideChoice {
        /// Addresses that no peer and no subnet route covers are dialled.
        Allow = "allow",
        /// Those addresses are refused before anything is dialled.
        Refuse = "refuse",
    }
}

closed_list! {
    /// `tailnet.manage` as it is written.
    ManageChoice {
        /// Managed when there is a key.
        Auto = "auto",
        /// A tailscaled is started.
        True = "true",
        /// The one at `tailnet.socket` is used.
        False = "false",
    }
}

closed_list! {
    /// A setting that names where to listen.
    ListenerKey {
        /// The one proxy port.
        Proxy = "listen.proxy",
        /// The further listeners with `IP_TRANSPARENT`, for connections that TPROXY leads here.
        Tproxy = "listen.tproxy",
        /// The listener for metrics, health and the API.
        Admin = "listen.admin",
        /// The DNS server for clients, UDP and TCP.
        Dns = "listen.dns",
        /// A static forward; only the file has them, and no [`Key`].
        Forward = "forward.listen",
    }
}

impl ListenerKey {
    /// The setting in the table; `None` for a static forward.
    pub const fn key(self) -> Option<Key> {
        match self {
            Self::Proxy => Some(Key::ListenProxy),
            Self::Tproxy => Some(Key::ListenTproxy),
            Self::Admin => Some(Key::ListenAdmin),
            Self::Dns => Some(Key::ListenDns),
            Self::Forward => None,
        }
    }
}

/// A setting with the type of its value.
#[derive(Debug)]
pub(crate) struct Setting<T> {
    key: Key,
    value: PhantomData<fn() -> T>,
}

impl<T> Setting<T> {
    const fn of(key: Key) -> Self {
        Self { key, value: PhantomData }
    }
}

impl<T> Clone for Setting<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Setting<T> {}

impl<T> From<Setting<T>> for Key {
    fn from(setting: Setting<T>) -> Self {
        setting.key
    }
}

/// Prints the setting's path, such as `policy.mode`.
impl<T> std::fmt::Display for Setting<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.key.path())
    }
}

impl Key {
    /// `policy` of `policy.mode`; empty at the top.
    pub(crate) fn section(self) -> &'static str {
        self.path().split_once('.').map_or("", |(section, _)| section)
    }

    /// The last part of the path: `mode` of `policy.mode`.
    pub(crate) fn name(self) -> &'static str {
        self.path().rsplit_once('.').map_or(self.path(), |(_, name)| name)
    }

    /// The environment variable for it: `TAILRACE_POLICY_MODE` of `policy.mode`.
    pub(crate) fn variable(self) -> String {
        format!("TAILRACE_{}", self.path().replace('.', "_").to_ascii_uppercase())
    }

    /// The setting with this path.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.path() == path)
    }

    /// The setting that this environment variable stands for.
    pub(crate) fn of_variable(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.variable() == name)
    }
}

/// Declares every setting: the name of its [`Setting`], its [`Key`], the type of its value; its path, how a value
/// is written, and the default as it would be written in the environment.
macro_rules! settings {
    ($($setting:ident $key:ident: $value:ty = $path:literal, $kind:expr, $default:literal;)+) => {
        /// A setting, in the order of `config.toml`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Key {
            $(
                #[doc = concat!("`", $path, "`")]
                $key,
            )+
        }

        impl Key {
            /// Every setting, in the order of `config.toml`.
            pub const ALL: [Self; [$(Self::$key),+].len()] = [$(Self::$key),+];

            /// `section.name`, or the bare name at the top.
            pub const fn path(self) -> &'static str {
                match self {
                    $(Self::$key => $path,)+
                }
            }

            pub(crate) const fn kind(self) -> Kind {
                match self {
                    $(Self::$key => $kind,)+
                }
            }

            /// As it would be written in the environment.
            pub(crate) const fn default(self) -> &'static str {
                match self {
                    $(Self::$key => $default,)+
                }
            }
        }

        $(pub(super) const $setting: Setting<$value> = Setting::of(Key::$key);)+
    };
}

/// The biggest number of connections anybody may ask for.
const CONNECTIONS: i64 = 10_000_000;

/// Smaller heads are no browser's; larger ones are no server's, and each is held whole while it is read.
const HEAD: Kind = Kind::Size(1 << 10, 1 << 20);

settings! {
    RUN_DIR RunDir: Text = "run_dir", Kind::Text, "";
    LISTEN_PROXY ListenProxy: TextList = "listen.proxy", Kind::List, "127.0.0.1:1055,[::1]:1055";
    LISTEN_TPROXY ListenTproxy: TextList = "listen.tproxy", Kind::List, "";
    LISTEN_ADMIN ListenAdmin: Text = "listen.admin", Kind::Text, "127.0.0.1:9155";
    LISTEN_ADMIN_HOSTS ListenAdminHosts: TextList = "listen.admin_hosts", Kind::List, "";
    LISTEN_DNS ListenDns: Text = "listen.dns", Kind::Text, "";
    LISTEN_ALLOW_REMOTE ListenAllowRemote: Switch = "listen.allow_remote", Kind::Switch, "false";
    TRANSPARENT_SERVER_FIRST TransparentServerFirst: TimeSpan = "transparent.server_first", Kind::Duration, "200ms";
    UPSTREAM_KIND UpstreamKind: Choice<UpstreamChoice> = "upstream.kind", Kind::Word(UpstreamChoice::WORDS), "auto";
    UPSTREAM_SOCKS5 UpstreamSocks5: Text = "upstream.socks5", Kind::Text, "";
    UPSTREAM_OUTSIDE_TAILNET UpstreamOutsideTailnet: Choice<OutsideChoice> = "upstream.outside_tailnet", Kind::Word(OutsideChoice::WORDS), "allow";
    UPSTREAM_CONNECT_TIMEOUT UpstreamConnectTimeout: TimeSpan = "upstream.connect_timeout", Kind::Duration, "7s";
    UPSTREAM_LOCAL_TIMEOUT UpstreamLocalTimeout: TimeSpan = "upstream.local_timeout", Kind::Duration, "2s";
    UPSTREAM_HALF_CLOSE UpstreamHalfClose: Choice<HalfCloseChoice> = "upstream.half_close", Kind::Word(HalfCloseChoice::WORDS), "auto";
    UPSTREAM_MAX_CONNECTIONS UpstreamMaxConnections: WholeNumber = "upstream.max_connections", Kind::Number(0, CONNECTIONS), "0";
    UPSTREAM_POOL UpstreamPool: WholeNumber = "upstream.pool", Kind::Number(0, 1024), "8";
    UPSTREAM_MARK UpstreamMark: WholeNumber = "upstream.mark", Kind::Number(0, u32::MAX as i64), "0";
    TAILNET_MANAGE TailnetManage: Choice<ManageChoice> = "tailnet.manage", Kind::SwitchOrAuto, "auto";
    TAILNET_TAILSCALED TailnetTailscaled: Text = "tailnet.tailscaled", Kind::Text, "tailscaled";
    TAILNET_SOCKET TailnetSocket: Text = "tailnet.socket", Kind::Text, "";
    TAILNET_AUTH_KEY_FILE TailnetAuthKeyFile: Text = "tailnet.auth_key_file", Kind::Text, "";
    TAILNET_HOSTNAME TailnetHostname: Text = "tailnet.hostname", Kind::Text, "autoheal-{id}";
    TAILNET_TAGS TailnetTags: TextList = "tailnet.tags", Kind::List, "";
    TAILNET_LOGIN_SERVER TailnetLoginServer: Text = "tailnet.login_server", Kind::Text, "";
    TAILNET_CONTROL_PROXY TailnetControlProxy: Text = "tailnet.control_proxy", Kind::Text, "";
    TAILNET_ACCEPT_ROUTES TailnetAcceptRoutes: Switch = "tailnet.accept_routes", Kind::Switch, "true";
    TAILNET_TAILNET TailnetTailnet: Text = "tailnet.tailnet", Kind::Text, "";
    TAILNET_STATE TailnetState: Text = "tailnet.state", Kind::Text, "memory";
    TAILNET_READY_WAIT TailnetReadyWait: TimeSpan = "tailnet.ready_wait", Kind::Duration, "20s";
    TAILNET_START_JITTER TailnetStartJitter: TimeSpan = "tailnet.start_jitter", Kind::DurationOrZero, "0s";
    DNS_MODE DnsMode: OptionalChoice<DnsMode> = "dns.mode", Kind::Word(DnsMode::WORDS), "";
    DNS_TIMEOUT DnsTimeout: TimeSpan = "dns.timeout", Kind::Duration, "3s";
    DNS_CACHE_ENTRIES DnsCacheEntries: WholeNumber = "dns.cache_entries", Kind::Number(0, CONNECTIONS), "10000";
    DNS_SYNTHETIC DnsSynthetic: Text = "dns.synthetic", Kind::Text, "";
    POLICY_MODE PolicyMode: Choice<PolicyMode> = "policy.mode", Kind::Word(PolicyMode::WORDS), "log";
    POLICY_ALLOWED_HOST_SUFFIXES PolicyAllowedHostSuffixes: TextList = "policy.allowed_host_suffixes", Kind::ListOrText, "";
    POLICY_ALLOWED_HOSTS PolicyAllowedHosts: TextList = "policy.allowed_hosts", Kind::List, "";
    POLICY_ALLOWED_NETS PolicyAllowedNets: TextList = "policy.allowed_nets", Kind::List, "";
    POLICY_DENY_NETS PolicyDenyNets: TextList = "policy.deny_nets", Kind::List, "0.0.0.0/8,127.0.0.0/8,169.254.0.0/16,100.100.100.200/32,168.63.129.16/32,192.0.0.192/32,224.0.0.0/4,240.0.0.0/4,\
         ::/128,::1/128,fe80::/10,fd00:ec2::254/128,fd00:ec2::23/128,fd20:ce::254/128,ff00::/8";
    POLICY_REQUIRE_SNI PolicyRequireSni: Switch = "policy.require_sni", Kind::Switch, "false";
    LIMITS_MAX_CONNECTIONS LimitsMaxConnections: WholeNumber = "limits.max_connections", Kind::Number(1, CONNECTIONS), "8192";
    LIMITS_PER_CLIENT LimitsPerClient: WholeNumber = "limits.per_client", Kind::Number(0, CONNECTIONS), "0";
    LIMITS_MAX_HEAD LimitsMaxHead: ByteSize = "limits.max_head", HEAD, "64KiB";
    LIMITS_HEAD_TIMEOUT LimitsHeadTimeout: TimeSpan = "limits.head_timeout", Kind::Duration, "10s";
    LIMITS_KEEPALIVE_IDLE LimitsKeepaliveIdle: TimeSpan = "limits.keepalive_idle", Kind::Duration, "60s";
    LIMITS_IDLE_TIMEOUT LimitsIdleTimeout: TimeSpan = "limits.idle_timeout", Kind::Duration, "1h";
    LIMITS_HALF_CLOSE_TIMEOUT LimitsHalfCloseTimeout: TimeSpan = "limits.half_close_timeout", Kind::Duration, "60s";
    LIMITS_DRAIN_TIMEOUT LimitsDrainTimeout: TimeSpan = "limits.drain_timeout", Kind::Duration, "4s";
    RELAY_SPLICE RelaySplice: Switch = "relay.splice", Kind::Switch, "true";
    RECORD_PROCESS RecordProcess: Switch = "record.process", Kind::Switch, "true";
    LOG_LEVEL LogLevel: Text = "log.level", Kind::Text, "info";
    LOG_FORMAT LogFormat: Choice<LogFormat> = "log.format", Kind::Word(LogFormat::WORDS), "auto";
    LOG_TO LogTo: Text = "log.to", Kind::Text, "stderr";
    LOG_ACCESS LogAccess: Switch = "log.access", Kind::Switch, "true";
}

/// Keys of one `[[forward]]`, both text.
pub(crate) const FORWARD: [&str; 2] = ["listen", "target"];

/// Is `name` a table of settings?
pub(crate) fn is_section(name: &str) -> bool {
    !name.is_empty() && Key::ALL.into_iter().any(|key| key.section() == name)
}

/// The setting or table whose path is nearest to one that does not exist.
///
/// A right name in the wrong table counts as one slip, so `limits.connect_timeout` leads to
/// `upstream.connect_timeout`.
pub(crate) fn nearest(path: &str) -> &'static str {
    let last = path.rsplit('.').next().unwrap_or(path);
    let far = |key: &Key| {
        let whole = strsim::damerau_levenshtein(path, key.path());
        whole.min(strsim::damerau_levenshtein(last, key.name()) + 1)
    };
    let table = |key: &Key| strsim::damerau_levenshtein(path, key.section());
    let by_key = Key::ALL.into_iter().min_by_key(far);
    let by_table = Key::ALL.into_iter().filter(|key| !key.section().is_empty()).min_by_key(table);
    match (by_key, by_table) {
        (Some(key), Some(in_table)) if far(&key) <= table(&in_table) => key.path(),
        (_, Some(in_table)) => in_table.section(),
        (key, None) => key.map_or("", Key::path),
    }
}

/// The variable whose name is nearest to one that does not exist.
pub(crate) fn nearest_variable(name: &str) -> String {
    let far = |variable: &String| strsim::damerau_levenshtein(name, variable);
    Key::ALL.into_iter().map(Key::variable).min_by_key(far).unwrap_or_default()
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
        let mut seen: Vec<String> = Key::ALL.into_iter().map(Key::variable).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), Key::ALL.len());
    }
}
