//! Stage two: what the settings mean. Every impossible value and combination is refused here.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::config_problem::{Origin, Problem, Problems, quoted};
use super::environment::ProcessEnvironment;
use super::keys::{self, Key, OutsideChoice, UpstreamChoice};
use super::log_filter::LogFilter;
use super::raw_config::RawConfig;
use super::settings::{
    Config, DnsMode, Limits, Listen, Log, LogTo, Record, Relay, Transparent, Upstream, UpstreamKind,
};
use super::{check_policy, check_tailnet};
use crate::target::Forward;

/// Settings that hold together.
#[derive(Debug, Clone)]
pub struct CheckedConfig {
    /// What the gateway is run with: every value typed, every default filled in.
    pub config: Config,
    /// Sentences the operator should read: allowed, but perhaps not what was meant.
    pub notices: Vec<String>,
}

/// What a command needs to find a running gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayLocation {
    /// The folder of `gateway.json`, which a running gateway writes.
    pub run_dir: PathBuf,
    /// As set: a port may be 0.
    pub proxy: Vec<SocketAddr>,
    /// As set: the port may be 0.
    pub admin: SocketAddr,
    /// As set: ports may be 0.
    pub forwards: Vec<Forward>,
    /// As set: the port may be 0.
    pub dns: Option<SocketAddr>,
}

/// The work in hand: what is written, and what was found wrong with it so far.
pub(super) struct ConfigCheck<'a> {
    pub(super) written: &'a RawConfig,
    pub(super) problems: Vec<Problem>,
}

/// Says what the settings mean.
///
/// # Errors
/// Everything that is wrong with them, those of stage one included.
pub fn check_config(
    written: &RawConfig,
    env: &ProcessEnvironment,
) -> Result<CheckedConfig, Problems> {
    let mut check = ConfigCheck { written, problems: written.problems.clone() };
    let run_dir = check.run_dir(env);
    let listen = check.check_listen();
    let forwards = check.check_forwards();
    let draft = check_tailnet::draft_tailnet(&check, env);
    let upstream = check.check_upstream(&draft);
    let kind = upstream.as_ref().map(|upstream| upstream.kind);
    let tailnet = kind.and_then(|kind| {
        check_tailnet::check_tailnet(&mut check, draft, kind, env, &run_dir, listen.as_ref())
    });
    let dns = check.check_dns(kind);
    let policy = check_policy::check_policy(&mut check);
    let listeners = listen.as_ref().map(|listen| check.all_listeners(listen, &forwards));
    let listeners = listeners.unwrap_or_default();
    check.check_synthetic_overlap(&dns, &policy, &listeners);
    let log = check.check_log();
    if let Some(upstream) = &upstream {
        check.check_clashes(&listeners, upstream.kind);
    }
    let problems = check.take_problems();
    match (listen, upstream) {
        (Some(listen), Some(upstream)) if problems.is_empty() => {
            let config = Config {
                run_dir,
                listen,
                forwards: forwards.into_iter().map(|(forward, _)| forward).collect(),
                transparent: Transparent {
                    server_first: written.get(keys::TRANSPARENT_SERVER_FIRST),
                },
                upstream,
                tailnet,
                dns,
                policy,
                limits: read_limits(written),
                relay: Relay { splice: written.get(keys::RELAY_SPLICE) },
                record: Record { process: written.get(keys::RECORD_PROCESS) },
                log,
            };
            let notices = collect_notices(&config);
            Ok(CheckedConfig { config, notices })
        }
        _ => Err(Problems(problems)),
    }
}

/// The part of the settings that tells where a gateway is; other settings' meanings do not count.
///
/// # Errors
/// What is wrong with the writing, or with this part.
pub fn gateway_location(
    written: &RawConfig,
    env: &ProcessEnvironment,
) -> Result<GatewayLocation, Problems> {
    let mut check = ConfigCheck { written, problems: written.problems.clone() };
    let run_dir = check.run_dir(env);
    let listen = check.check_listen();
    let forwards = check.check_forwards().into_iter().map(|(forward, _)| forward).collect();
    match (listen, check.take_problems()) {
        (Some(Listen { proxy, admin, dns, .. }), problems) if problems.is_empty() => {
            Ok(GatewayLocation { run_dir, proxy, admin, forwards, dns })
        }
        (_, problems) => Err(Problems(problems)),
    }
}

impl ConfigCheck<'_> {
    pub(super) fn add_problem(&mut self, origin: Origin, what: impl Into<String>) {
        self.problems.push(Problem { origin, what: what.into() });
    }

    fn take_problems(&mut self) -> Vec<Problem> {
        self.problems.sort();
        self.problems.dedup();
        std::mem::take(&mut self.problems)
    }

    /// Was something written for this setting that could not be read?
    pub(super) fn is_broken(&self, key: impl Into<Key>) -> bool {
        self.written.entry(key).broken
    }

    fn run_dir(&mut self, env: &ProcessEnvironment) -> PathBuf {
        let text = self.written.get(keys::RUN_DIR);
        if text.is_empty() {
            return default_run_dir(env.get("XDG_RUNTIME_DIR"));
        }
        if !Path::new(text).is_absolute() {
            let what = format!("run_dir wants an absolute path, not {}", quoted(text));
            self.add_problem(self.written.origin(keys::RUN_DIR), what);
        }
        text.into()
    }

    fn check_upstream(&mut self, draft: &check_tailnet::TailnetDraft) -> Option<Upstream> {
        let w = self.written;
        let kind = self.upstream_kind(draft)?;
        Some(Upstream {
            kind,
            connect_timeout: w.get(keys::UPSTREAM_CONNECT_TIMEOUT),
            local_timeout: w.get(keys::UPSTREAM_LOCAL_TIMEOUT),
            half_close: w.get(keys::UPSTREAM_HALF_CLOSE),
            max_connections: Some(w.get(keys::UPSTREAM_MAX_CONNECTIONS)).filter(|most| *most != 0),
            pool: w.get(keys::UPSTREAM_POOL),
            mark: Some(w.get(keys::UPSTREAM_MARK)).filter(|mark| *mark != 0),
            outside_tailnet: w.get(keys::UPSTREAM_OUTSIDE_TAILNET) == OutsideChoice::Allow,
        })
    }

    /// `auto` is `socks5` only where a port is all there is to go by.
    fn upstream_kind(&mut self, draft: &check_tailnet::TailnetDraft) -> Option<UpstreamKind> {
        let w = self.written;
        let (kind, server) = (w.get(keys::UPSTREAM_KIND), w.get(keys::UPSTREAM_SOCKS5));
        let port = match server.is_empty() {
            true => None,
            false => Some(self.socks5_address(server)?),
        };
        if self.is_broken(keys::UPSTREAM_KIND) || self.is_broken(keys::UPSTREAM_SOCKS5) {
            return None;
        }
        match (kind, port) {
            (UpstreamChoice::Direct, _) => Some(UpstreamKind::Direct),
            (UpstreamChoice::LocalApi, _) => Some(UpstreamKind::LocalApi),
            (UpstreamChoice::Socks5, Some(port)) => Some(UpstreamKind::Socks5(port)),
            (UpstreamChoice::Socks5, None) => {
                let what =
                    "upstream.kind = \"socks5\" needs upstream.socks5, such as 127.0.0.1:1080";
                self.add_problem(w.origin(keys::UPSTREAM_KIND), what);
                None
            }
            (UpstreamChoice::Tailscaled, None) if !draft.manage => {
                let what = "upstream.kind = \"tailscaled\" without a key needs upstream.socks5, the \
                            port tailscaled was started with: set it, or use kind \"localapi\"";
                self.add_problem(w.origin(keys::UPSTREAM_KIND), what);
                None
            }
            (UpstreamChoice::Tailscaled, port) => Some(UpstreamKind::Tailscaled(port)),
            (UpstreamChoice::Auto, Some(port)) if !draft.tailscaled => {
                Some(UpstreamKind::Socks5(port))
            }
            (UpstreamChoice::Auto, None) if !draft.manage => Some(UpstreamKind::LocalApi),
            (UpstreamChoice::Auto, _) if draft.manage && draft.enforce => {
                Some(UpstreamKind::LocalApi)
            }
            (UpstreamChoice::Auto, port) => Some(UpstreamKind::Tailscaled(port)),
        }
    }

    fn socks5_address(&mut self, text: &str) -> Option<SocketAddr> {
        let origin = self.written.origin(keys::UPSTREAM_SOCKS5);
        let address = self.parse_address(keys::UPSTREAM_SOCKS5, text, &origin)?;
        if address.port() == 0 || address.ip().is_unspecified() {
            let what = format!("upstream.socks5 = {address} is no place to connect to");
            self.add_problem(origin, what);
            return None;
        }
        Some(address)
    }

    fn check_log(&mut self) -> Log {
        let w = self.written;
        let to = match w.get(keys::LOG_TO) {
            "stderr" => LogTo::Stderr,
            "stdout" => LogTo::Stdout,
            path => {
                if !path.contains('/') && !self.is_broken(keys::LOG_TO) {
                    let what = format!(
                        "log.to wants stderr, stdout or a path with a / in it, not {}",
                        quoted(path)
                    );
                    self.add_problem(w.origin(keys::LOG_TO), what);
                }
                LogTo::File(path.into())
            }
        };
        Log {
            filter: self.log_filter(),
            format: w.get(keys::LOG_FORMAT),
            to,
            access: w.get(keys::LOG_ACCESS),
        }
    }
}

impl ConfigCheck<'_> {
    fn log_filter(&mut self) -> LogFilter {
        let text = self.written.get(keys::LOG_LEVEL);
        LogFilter::parse(text).unwrap_or_else(|why| {
            self.add_problem(self.written.origin(keys::LOG_LEVEL), format!("log.level {why}"));
            LogFilter::default()
        })
    }
}

/// `$XDG_RUNTIME_DIR/tailrace`, else `/run/tailrace` where `/run` is writable, else
/// `/tmp/tailrace-<uid>`.
fn default_run_dir(xdg_runtime_dir: Option<&str>) -> PathBuf {
    if let Some(dir) = xdg_runtime_dir.map(Path::new).filter(|dir| dir.is_absolute()) {
        return dir.join("tailrace");
    }
    if rustix::fs::access("/run", rustix::fs::Access::WRITE_OK).is_ok() {
        return "/run/tailrace".into();
    }
    format!("/tmp/tailrace-{}", rustix::process::geteuid().as_raw()).into()
}

fn read_limits(w: &RawConfig) -> Limits {
    Limits {
        max_connections: w.get(keys::LIMITS_MAX_CONNECTIONS),
        per_client: w.get(keys::LIMITS_PER_CLIENT),
        max_head: usize::try_from(w.get(keys::LIMITS_MAX_HEAD)).unwrap_or(usize::MAX),
        head_timeout: w.get(keys::LIMITS_HEAD_TIMEOUT),
        keepalive_idle: w.get(keys::LIMITS_KEEPALIVE_IDLE),
        idle_timeout: w.get(keys::LIMITS_IDLE_TIMEOUT),
        half_close_timeout: w.get(keys::LIMITS_HALF_CLOSE_TIMEOUT),
        drain_timeout: w.get(keys::LIMITS_DRAIN_TIMEOUT),
    }
}

fn collect_notices(config: &Config) -> Vec<String> {
    let mut notices = Vec::new();
    if config.dns.mode == DnsMode::Upstream {
        notices.push(
            "dns.mode = \"upstream\": names are resolved by the upstream, so policy.allowed_nets \
             and policy.deny_nets judge only targets given as addresses"
                .to_owned(),
        );
    }
    notices
}
