//! Stage two: what the settings mean. Every impossible value and combination is refused here.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::problem::{Origin, Problem, Problems, quoted};
use super::raw_config::RawConfig;
use super::settings::{
    Config, DnsMode, HalfClose, Limits, Listen, Log, LogFormat, LogTo, Record, Relay, Transparent,
    Upstream, UpstreamKind,
};
use super::{check_policy, check_tailnet};
use crate::target::Forward;

/// Settings that hold together.
#[derive(Debug, Clone)]
pub struct Checked {
    /// For the gateway.
    pub config: Config,
    /// Sentences the operator should read: allowed, but perhaps not what was meant.
    pub notices: Vec<String>,
}

/// What a command needs to find a running gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    /// Folder of `gateway.json`.
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
pub(super) struct Check<'a> {
    pub(super) written: &'a RawConfig,
    pub(super) problems: Vec<Problem>,
}

/// Says what the settings mean.
///
/// # Errors
/// Everything that is wrong with them, those of stage one included.
pub fn check(written: &RawConfig, env: &Environment) -> Result<Checked, Problems> {
    let mut check = Check { written, problems: written.problems.clone() };
    let run_dir = check.run_dir(env);
    let listen = check.listen();
    let forwards = check.forwards();
    let draft = check_tailnet::draft(&check, env);
    let upstream = check.upstream(&draft);
    let kind = upstream.as_ref().map(|upstream| upstream.kind);
    let tailnet = kind.and_then(|kind| {
        check_tailnet::tailnet(&mut check, draft, kind, env, &run_dir, listen.as_ref())
    });
    let dns = check.dns(kind);
    let policy = check_policy::policy(&mut check);
    let listeners = listen.as_ref().map(|listen| check.listeners(listen, &forwards));
    let listeners = listeners.unwrap_or_default();
    check.lending(&dns, &policy, &listeners);
    let log = check.log();
    if let Some(upstream) = &upstream {
        check.clashes(&listeners, upstream.kind);
    }
    let problems = check.sorted();
    match (listen, upstream) {
        (Some(listen), Some(upstream)) if problems.is_empty() => {
            let config = Config {
                run_dir,
                listen,
                forwards: forwards.into_iter().map(|(forward, _)| forward).collect(),
                transparent: Transparent {
                    server_first: written.duration("transparent.server_first"),
                },
                upstream,
                tailnet,
                dns,
                policy,
                limits: limits(written),
                relay: Relay { splice: written.switch("relay.splice") },
                record: Record { process: written.switch("record.process") },
                log,
            };
            let notices = notices(&config);
            Ok(Checked { config, notices })
        }
        _ => Err(Problems(problems)),
    }
}

/// The part of the settings that tells where a gateway is; other settings' meanings do not count.
///
/// # Errors
/// What is wrong with the writing, or with this part.
pub fn whereabouts(written: &RawConfig, env: &Environment) -> Result<Whereabouts, Problems> {
    let mut check = Check { written, problems: written.problems.clone() };
    let run_dir = check.run_dir(env);
    let listen = check.listen();
    let forwards = check.forwards().into_iter().map(|(forward, _)| forward).collect();
    match (listen, check.sorted()) {
        (Some(Listen { proxy, admin, dns, .. }), problems) if problems.is_empty() => {
            Ok(Whereabouts { run_dir, proxy, admin, forwards, dns })
        }
        (_, problems) => Err(Problems(problems)),
    }
}

impl Check<'_> {
    pub(super) fn fail(&mut self, origin: Origin, what: impl Into<String>) {
        self.problems.push(Problem { origin, what: what.into() });
    }

    fn sorted(&mut self) -> Vec<Problem> {
        self.problems.sort();
        self.problems.dedup();
        std::mem::take(&mut self.problems)
    }

    /// Was something written for this setting that could not be read?
    pub(super) fn broken(&self, path: &str) -> bool {
        self.written.entry(path).is_some_and(|entry| entry.broken)
    }

    fn run_dir(&mut self, env: &Environment) -> PathBuf {
        let text = self.written.text("run_dir");
        if text.is_empty() {
            return default_run_dir(env.get("XDG_RUNTIME_DIR"));
        }
        if !Path::new(text).is_absolute() {
            let what = format!("run_dir wants an absolute path, not {}", quoted(text));
            self.fail(self.written.origin("run_dir"), what);
        }
        text.into()
    }

    fn upstream(&mut self, draft: &check_tailnet::Draft) -> Option<Upstream> {
        let w = self.written;
        let kind = self.kind(draft)?;
        Some(Upstream {
            kind,
            connect_timeout: w.duration("upstream.connect_timeout"),
            local_timeout: w.duration("upstream.local_timeout"),
            half_close: match w.text("upstream.half_close") {
                "propagate" => HalfClose::Propagate,
                "defer" => HalfClose::Defer,
                _ => HalfClose::Auto,
            },
            max_connections: Some(w.number("upstream.max_connections")).filter(|most| *most != 0),
            pool: w.number("upstream.pool"),
            mark: Some(w.number("upstream.mark")).filter(|mark| *mark != 0),
            outside_tailnet: w.text("upstream.outside_tailnet") != "refuse",
        })
    }

    /// `auto` is `socks5` only where a port is all there is to go by.
    fn kind(&mut self, draft: &check_tailnet::Draft) -> Option<UpstreamKind> {
        let w = self.written;
        let (kind, server) = (w.text("upstream.kind"), w.text("upstream.socks5"));
        let port = match server.is_empty() {
            true => None,
            false => Some(self.socks5(server)?),
        };
        if self.broken("upstream.kind") || self.broken("upstream.socks5") {
            return None;
        }
        match (kind, port) {
            ("direct", _) => Some(UpstreamKind::Direct),
            ("localapi", _) => Some(UpstreamKind::LocalApi),
            ("socks5", Some(port)) => Some(UpstreamKind::Socks5(port)),
            ("socks5", None) => {
                let what =
                    "upstream.kind = \"socks5\" needs upstream.socks5, such as 127.0.0.1:1080";
                self.fail(w.origin("upstream.kind"), what);
                None
            }
            ("tailscaled", None) if !draft.manage => {
                let what = "upstream.kind = \"tailscaled\" without a key needs upstream.socks5, the \
                            port tailscaled was started with: set it, or use kind \"localapi\"";
                self.fail(w.origin("upstream.kind"), what);
                None
            }
            ("tailscaled", port) => Some(UpstreamKind::Tailscaled(port)),
            (_auto, Some(port)) if !draft.tailscaled => Some(UpstreamKind::Socks5(port)),
            (_auto, None) if !draft.manage => Some(UpstreamKind::LocalApi),
            (_auto, _) if draft.manage && draft.enforce => Some(UpstreamKind::LocalApi),
            (_auto, port) => Some(UpstreamKind::Tailscaled(port)),
        }
    }

    fn socks5(&mut self, text: &str) -> Option<SocketAddr> {
        let origin = self.written.origin("upstream.socks5");
        let address = self.address("upstream.socks5", text, &origin)?;
        if address.port() == 0 || address.ip().is_unspecified() {
            let what = format!("upstream.socks5 = {address} is no place to connect to");
            self.fail(origin, what);
            return None;
        }
        Some(address)
    }

    fn log(&mut self) -> Log {
        let w = self.written;
        let to = match w.text("log.to") {
            "stderr" => LogTo::Stderr,
            "stdout" => LogTo::Stdout,
            path => {
                if !path.contains('/') && !self.broken("log.to") {
                    let what = format!(
                        "log.to wants stderr, stdout or a path with a / in it, not {}",
                        quoted(path)
                    );
                    self.fail(w.origin("log.to"), what);
                }
                LogTo::File(path.into())
            }
        };
        Log {
            level: w.text("log.level").parse().unwrap_or(tracing::Level::INFO),
            format: match w.text("log.format") {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => LogFormat::Auto,
            },
            to,
            access: w.switch("log.access"),
        }
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

fn limits(w: &RawConfig) -> Limits {
    Limits {
        max_connections: w.number("limits.max_connections"),
        per_client: w.number("limits.per_client"),
        max_head: usize::try_from(w.size("limits.max_head")).unwrap_or(usize::MAX),
        head_timeout: w.duration("limits.head_timeout"),
        keepalive_idle: w.duration("limits.keepalive_idle"),
        idle_timeout: w.duration("limits.idle_timeout"),
        half_close_timeout: w.duration("limits.half_close_timeout"),
        drain_timeout: w.duration("limits.drain_timeout"),
    }
}

fn notices(config: &Config) -> Vec<String> {
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
