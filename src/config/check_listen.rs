//! Where the gateway listens: addresses, who may reach them, and which of them cannot go together.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::check::ConfigCheck;
use super::check_policy;
use super::config_problem::{Origin, quoted};
use super::keys::{self, Key, ListenerKey, Setting};
use super::raw_config::RawForward;
use super::setting_types::TextList;
use super::settings::{Listen, UpstreamKind};
use crate::target::{Forward, Host, Target};

/// A listener as set, and where that was written.
pub(super) struct NamedListener {
    key: ListenerKey,
    pub(super) address: SocketAddr,
    origin: Origin,
}

impl ConfigCheck<'_> {
    pub(super) fn check_listen(&mut self) -> Option<Listen> {
        let (proxy, tproxy) = (self.check_proxy(), self.check_addresses(keys::LISTEN_TPROXY));
        let origin = self.written.origin(keys::LISTEN_ADMIN);
        let admin =
            self.parse_address(ListenerKey::Admin, self.written.get(keys::LISTEN_ADMIN), &origin)?;
        self.require_loopback(admin, &origin);
        let (admin_hosts, dns) = (self.admin_hosts(), self.dns_listener());
        let allow_remote = self.written.get(keys::LISTEN_ALLOW_REMOTE);
        Some(Listen { proxy, tproxy, admin, admin_hosts, dns, allow_remote })
    }

    fn dns_listener(&mut self) -> Option<SocketAddr> {
        let text = self.written.get(keys::LISTEN_DNS);
        if text.is_empty() {
            return None;
        }
        let origin = self.written.origin(keys::LISTEN_DNS);
        let address = self.parse_address(ListenerKey::Dns, text, &origin)?;
        self.require_loopback(address, &origin);
        Some(address)
    }

    /// A list of listeners, no address twice.
    fn check_addresses(&mut self, setting: Setting<TextList>) -> Vec<SocketAddr> {
        let mut all: Vec<SocketAddr> = Vec::new();
        for item in self.written.get(setting) {
            let Some(address) = self.parse_address(setting, &item.text, &item.origin) else {
                continue;
            };
            self.require_loopback(address, &item.origin);
            if all.contains(&address) && address.port() != 0 {
                self.add_problem(item.origin.clone(), format!("{setting} has {address} twice"));
            }
            all.push(address);
        }
        all
    }

    fn check_proxy(&mut self) -> Vec<SocketAddr> {
        let proxy = self.check_addresses(keys::LISTEN_PROXY);
        if self.written.get(keys::LISTEN_PROXY).is_empty() && !self.is_broken(keys::LISTEN_PROXY) {
            let what = "listen.proxy is empty: give at least one address";
            self.add_problem(self.written.origin(keys::LISTEN_PROXY), what);
        }
        proxy
    }

    fn admin_hosts(&mut self) -> Vec<String> {
        let mut hosts = Vec::new();
        for item in self.written.get(keys::LISTEN_ADMIN_HOSTS) {
            let bare = item.text.trim_matches(['[', ']']);
            match Host::parse(bare.as_bytes()) {
                Ok(host) => hosts.push(host.to_string()),
                Err(why) => {
                    self.add_problem(item.origin.clone(), {
                        let why = check_policy::host_error_reason(&why);
                        format!("listen.admin_hosts: {} is no host: {why}", quoted(&item.text))
                    });
                }
            }
        }
        hosts
    }

    /// Each sound `[[forward]]`, and where its listener was written.
    pub(super) fn check_forwards(&mut self) -> Vec<(Forward, Origin)> {
        let written = self.written;
        written.forwards.iter().filter_map(|forward| self.check_forward(forward)).collect()
    }

    fn check_forward(&mut self, written: &RawForward) -> Option<(Forward, Origin)> {
        for (name, item) in [("listen", &written.listen), ("target", &written.target)] {
            if item.is_none() && !written.broken {
                self.add_problem(
                    written.origin.clone(),
                    format!("[[forward]] has no {name}: give one"),
                );
            }
        }
        let listen = written.listen.as_ref().and_then(|item| {
            let address = self.parse_address(ListenerKey::Forward, &item.text, &item.origin)?;
            self.require_loopback(address, &item.origin);
            Some((address, item.origin.clone()))
        });
        let target = written.target.as_ref().and_then(|item| {
            let target = Target::parse_authority(item.text.as_bytes(), None);
            let why = match target {
                Ok(target) => return Some(target),
                Err(why) => check_policy::host_error_reason(&why),
            };
            let what = format!(
                "forward.target wants a host and a port such as db.corp.example:5432, not {}: {why}",
                quoted(&item.text)
            );
            self.add_problem(item.origin.clone(), what);
            None
        });
        let ((listen, origin), target) = listen.zip(target)?;
        Some((Forward { listen, target }, origin))
    }

    pub(super) fn parse_address(
        &mut self,
        setting: impl fmt::Display,
        text: &str,
        origin: &Origin,
    ) -> Option<SocketAddr> {
        if let Ok(address) = text.parse() {
            return Some(address);
        }
        let what = format!(
            "{setting} wants an address and a port such as 127.0.0.1:1055 or [::1]:1055, not {}",
            quoted(text)
        );
        self.add_problem(origin.clone(), what);
        None
    }

    /// F7: a listener beyond loopback is asked for twice.
    fn require_loopback(&mut self, address: SocketAddr, origin: &Origin) {
        let remote = self.written.get(keys::LISTEN_ALLOW_REMOTE)
            || self.is_broken(keys::LISTEN_ALLOW_REMOTE);
        if !remote && !address.ip().to_canonical().is_loopback() {
            let what = format!(
                "{address} is not loopback: others could use the gateway; set \
                 listen.allow_remote = true if that is wanted"
            );
            self.add_problem(origin.clone(), what);
        }
    }

    /// F10: ports that cannot be bound together, or would lead the gateway to itself.
    pub(super) fn check_clashes(&mut self, all: &[NamedListener], kind: UpstreamKind) {
        for (at, one) in all.iter().enumerate() {
            let before = all[..at].iter().find(|other| one.clashes_with(other));
            if let Some(other) = before {
                let (one, origin) = (one.to_string(), written_origin(&one.origin, &other.origin));
                self.add_problem(origin, format!("{one} has the port of {other}: give it its own"));
            }
        }
        let (UpstreamKind::Socks5(server) | UpstreamKind::Tailscaled(Some(server))) = kind else {
            return;
        };
        // Another host may use the same port number.
        let here = |ours: IpAddr| server.ip().to_canonical().is_loopback() || server.ip() == ours;
        let ours =
            all.iter().find(|ours| ours.address.port() == server.port() && here(ours.address.ip()));
        if let Some(ours) = ours {
            let what =
                format!("upstream.socks5 {server} has the port of {ours}: that is this gateway");
            let origin = written_origin(&self.written.origin(keys::UPSTREAM_SOCKS5), &ours.origin);
            self.add_problem(origin, what);
        }
    }

    /// Every listener, in the order of the settings.
    pub(super) fn all_listeners(
        &self,
        listen: &Listen,
        forwards: &[(Forward, Origin)],
    ) -> Vec<NamedListener> {
        let of = |key, setting: Key, address| {
            let origin = self.written.origin(setting);
            NamedListener { key, address, origin }
        };
        let proxy = |address: &SocketAddr| of(ListenerKey::Proxy, Key::ListenProxy, *address);
        let tproxy = |address: &SocketAddr| of(ListenerKey::Tproxy, Key::ListenTproxy, *address);
        let forward = |(forward, origin): &(Forward, Origin)| NamedListener {
            key: ListenerKey::Forward,
            address: forward.listen,
            origin: origin.clone(),
        };
        let mut all: Vec<NamedListener> = listen.proxy.iter().map(proxy).collect();
        all.extend(listen.tproxy.iter().map(tproxy));
        all.push(of(ListenerKey::Admin, Key::ListenAdmin, listen.admin));
        all.extend(listen.dns.map(|address| of(ListenerKey::Dns, Key::ListenDns, address)));
        all.extend(forwards.iter().map(forward));
        all
    }
}

/// Of two places, the one that is not a default.
fn written_origin(one: &Origin, other: &Origin) -> Origin {
    if *one == Origin::Default { other.clone() } else { one.clone() }
}

impl NamedListener {
    /// Port 0 is a port the kernel picks. A list's own addresses were compared already.
    fn clashes_with(&self, other: &NamedListener) -> bool {
        let (one, two) = (self.address, other.address);
        if one.port() == 0 || one.port() != two.port() {
            return false;
        }
        use ListenerKey::{Admin, Proxy, Tproxy};
        match (self.key, other.key) {
            (Proxy, Proxy) | (Tproxy, Tproxy) => false,
            // Whoever mixes them up is never meant: one port, one purpose.
            (Admin, Proxy | Tproxy) | (Tproxy, Proxy) => true,
            // Servers of one kind are often told apart by address, as 127.0.0.2 and 127.0.0.3.
            _ => one.ip() == two.ip() || one.ip().is_unspecified() || two.ip().is_unspecified(),
        }
    }
}

impl fmt::Display for NamedListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.address)
    }
}
