//! What `[tailnet]` means: whose tailscaled, which key, and under which name it joins.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::check::ConfigCheck;
use super::config_problem::quoted;
use super::environment::ProcessEnvironment;
use super::from_texts::KEY_FD;
use super::keys::{self, ManageChoice, Setting, UpstreamChoice};
use super::setting_types::Text;
use super::settings::{KeySource, Listen, NodeState, PolicyMode, Tailnet, UpstreamKind};

/// Where tailscaled puts its socket by itself (tailscale.com/paths, Linux).
const DEFAULT_SOCKET: &str = "/var/run/tailscale/tailscaled.sock";
/// The socket of a managed tailscaled, in the run directory.
const SOCKET: &str = "tailscaled.sock";
/// Longest path of a Unix socket (`sun_path` of unix(7), with its end).
const MAX_SOCKET: usize = 107;
/// The credential's name (systemd.exec(5), `LoadCredential=`).
const CREDENTIAL: &str = "tailrace.authkey";

/// What the upstream's kind hangs on.
pub(super) struct TailnetDraft {
    /// The gateway is to start a tailscaled itself (`tailnet.manage`).
    pub(super) manage: bool,
    insisted: bool,
    /// There is a key, or a socket was named: a tailscaled is meant.
    pub(super) tailscaled: bool,
    /// The policy is enforced.
    pub(super) enforce: bool,
    key: Option<KeySource>,
}

/// The first look: whether there is a key, and who starts tailscaled.
pub(super) fn draft_tailnet(check: &ConfigCheck<'_>, env: &ProcessEnvironment) -> TailnetDraft {
    let w = check.written;
    let key = key_source(w.get(keys::TAILNET_AUTH_KEY_FILE), env);
    let elsewhere =
        matches!(w.get(keys::UPSTREAM_KIND), UpstreamChoice::Socks5 | UpstreamChoice::Direct);
    let (manage, insisted) = match w.get(keys::TAILNET_MANAGE) {
        ManageChoice::True => (true, true),
        ManageChoice::False => (false, false),
        ManageChoice::Auto => (key.is_some() && !elsewhere, false),
    };
    TailnetDraft {
        manage,
        insisted,
        tailscaled: key.is_some() || insisted || !w.get(keys::TAILNET_SOCKET).is_empty(),
        enforce: w.get(keys::POLICY_MODE) == PolicyMode::Enforce,
        key,
    }
}

/// The setting, then `TS_AUTHKEY`, then `TS_AUTHKEY_FILE`, then the systemd credential.
fn key_source(file: &str, env: &ProcessEnvironment) -> Option<KeySource> {
    if !file.is_empty() {
        return Some(KeySource::File(file.into()));
    }
    if env.get("TS_AUTHKEY").is_some() || env.get(KEY_FD).is_some() {
        return Some(KeySource::Environment);
    }
    if let Some(file) = env.get("TS_AUTHKEY_FILE") {
        return Some(KeySource::File(file.into()));
    }
    let credential = env.get("CREDENTIALS_DIRECTORY").map(|dir| Path::new(dir).join(CREDENTIAL));
    credential.filter(|path| path.exists()).map(KeySource::File)
}

/// The second look, once the kind is known; nothing with the kinds that have no tailscaled.
pub(super) fn check_tailnet(
    check: &mut ConfigCheck<'_>,
    draft: TailnetDraft,
    kind: UpstreamKind,
    env: &ProcessEnvironment,
    run_dir: &Path,
    listen: Option<&Listen>,
) -> Option<Tailnet> {
    let w = check.written;
    if !matches!(kind, UpstreamKind::Tailscaled(_) | UpstreamKind::LocalApi) {
        if draft.insisted {
            let what = "tailnet.manage = true starts a tailscaled, which upstream.kind socks5 and \
                        direct do not use: leave one of them out";
            check.add_problem(w.origin(keys::TAILNET_MANAGE), what);
        }
        return None;
    }
    if draft.insisted && draft.key.is_none() && !check.is_broken(keys::TAILNET_AUTH_KEY_FILE) {
        let what = "tailnet.manage = true needs a key: set TS_AUTHKEY, TS_AUTHKEY_FILE or \
                    tailnet.auth_key_file";
        check.add_problem(w.origin(keys::TAILNET_MANAGE), what);
    }
    let tags = check_tags(check);
    needs_tags(check, &tags, env);
    Some(Tailnet {
        manage: draft.manage,
        insisted: draft.insisted,
        tailscaled: w.get(keys::TAILNET_TAILSCALED).into(),
        socket: socket_path(check, draft.manage, run_dir),
        key: draft.key,
        hostname: check_hostname(check, env),
        id: env.get("TAILRACE_ID").map(str::to_owned),
        tags,
        login_server: check_url(check, keys::TAILNET_LOGIN_SERVER),
        environment: tailscaled_environment(check, env, listen),
        accept_routes: w.get(keys::TAILNET_ACCEPT_ROUTES),
        tailnet: w.get(keys::TAILNET_TAILNET).to_owned(),
        ready_wait: w.get(keys::TAILNET_READY_WAIT),
        start_jitter: w.get(keys::TAILNET_START_JITTER),
        state: node_state(check),
    })
}

/// One of two words, or the absolute path of a folder.
fn node_state(check: &mut ConfigCheck<'_>) -> NodeState {
    let text = check.written.get(keys::TAILNET_STATE);
    match text {
        "memory" => NodeState::Memory,
        "ephemeral" => NodeState::Ephemeral,
        folder if Path::new(folder).is_absolute() => NodeState::Folder(folder.into()),
        other => {
            let what = format!(
                "tailnet.state wants \"memory\", \"ephemeral\" or the absolute path of a folder, not {}",
                quoted(other)
            );
            check.add_problem(check.written.origin(keys::TAILNET_STATE), what);
            NodeState::Ephemeral
        }
    }
}

fn socket_path(check: &mut ConfigCheck<'_>, manage: bool, run_dir: &Path) -> PathBuf {
    let text = check.written.get(keys::TAILNET_SOCKET);
    let origin = check.written.origin(keys::TAILNET_SOCKET);
    let path: PathBuf = match text {
        "" if manage => run_dir.join(SOCKET),
        "" => DEFAULT_SOCKET.into(),
        text => text.into(),
    };
    if !path.is_absolute() && !text.is_empty() {
        let what = format!("tailnet.socket wants an absolute path, not {}", quoted(text));
        check.add_problem(origin, what);
    } else if path.as_os_str().len() > MAX_SOCKET {
        let what = format!(
            "the socket {} has a longer path than the {MAX_SOCKET} bytes a Unix socket may have: set \
             run_dir to a shorter folder",
            quoted(&path.to_string_lossy())
        );
        check.add_problem(origin, what);
    }
    path
}

/// A DNS label, as the control server wants it, once `{id}` is filled in.
fn check_hostname(check: &mut ConfigCheck<'_>, env: &ProcessEnvironment) -> String {
    let text = check.written.get(keys::TAILNET_HOSTNAME);
    // Eight characters stand for the ones that will be drawn.
    let id = env.get("TAILRACE_ID").unwrap_or("00000000");
    let name = text.replace("{id}", id);
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let label = (1..=63).contains(&name.len())
        && name.bytes().all(fine)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !label && !check.is_broken(keys::TAILNET_HOSTNAME) {
        let what = format!(
            "tailnet.hostname {} with id {} is no host name: use letters, digits and '-', at most 63",
            quoted(text),
            quoted(id)
        );
        check.add_problem(check.written.origin(keys::TAILNET_HOSTNAME), what);
    }
    text.to_owned()
}

/// Each with its `tag:` (tailcfg.CheckTag: a letter, then letters, digits and dashes).
fn check_tags(check: &mut ConfigCheck<'_>) -> Vec<String> {
    let mut tags = Vec::new();
    for item in check.written.get(keys::TAILNET_TAGS) {
        let bare = item.text.strip_prefix("tag:").unwrap_or(&item.text);
        let fine = bare.starts_with(|c: char| c.is_ascii_alphabetic())
            && bare.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !fine {
            let what = format!(
                "tailnet.tags: {} is no tag: write it like tag:autoheal-sandbox",
                quoted(&item.text)
            );
            check.add_problem(item.origin.clone(), what);
        }
        tags.push(format!("tag:{bare}"));
    }
    tags
}

/// An OAuth secret makes keys, and such a key has to carry tags. Only one in the environment can be
/// seen here; one in a file is told apart when it is read.
fn needs_tags(check: &mut ConfigCheck<'_>, tags: &[String], env: &ProcessEnvironment) {
    let client = env.get("TS_AUTHKEY").is_some_and(|key| key.starts_with("tskey-client-"));
    if client && tags.is_empty() && !check.is_broken(keys::TAILNET_TAGS) {
        let what =
            "an OAuth secret (tskey-client-) needs tailnet.tags: name the tags its keys may carry";
        check.add_problem(check.written.origin(keys::TAILNET_TAGS), what);
    }
}

fn check_url(check: &mut ConfigCheck<'_>, setting: Setting<Text>) -> Option<String> {
    let text = check.written.get(setting);
    if text.is_empty() {
        return None;
    }
    let parsed = text.parse::<hyper::Uri>().ok();
    let fine = parsed.is_some_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()
    });
    if !fine {
        let what = format!(
            "{setting} wants a URL such as https://control.example.com, not {}",
            quoted(text)
        );
        check.add_problem(check.written.origin(setting), what);
    }
    Some(text.to_owned())
}

/// What a managed tailscaled gets of our environment: its way to control and DERP.
fn tailscaled_environment(
    check: &mut ConfigCheck<'_>,
    env: &ProcessEnvironment,
    listen: Option<&Listen>,
) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    let inherited = || env.get("HTTPS_PROXY").or_else(|| env.get("https_proxy")).map(str::to_owned);
    let asked = check_url(check, keys::TAILNET_CONTROL_PROXY);
    let ours = |proxy: &String| listen.is_some_and(|listen| leads_to(proxy, &listen.proxy));
    if let Some(proxy) = asked.or_else(inherited).filter(|proxy| !ours(proxy)) {
        all.push(("HTTPS_PROXY", proxy));
        let without = env.get("NO_PROXY").or_else(|| env.get("no_proxy"));
        all.extend(without.map(|hosts| ("NO_PROXY", hosts.to_owned())));
    }
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        all.extend(env.get(name).map(|value| (name, value.to_owned())));
    }
    all
}

/// Whether a proxy's URL is one of our listeners: tailscaled would ask us for the way to us.
fn leads_to(proxy: &str, listeners: &[SocketAddr]) -> bool {
    let Ok(url) = proxy.parse::<hyper::Uri>() else { return false };
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    here && listeners.iter().any(|listener| Some(listener.port()) == url.port_u16())
}
