//! Names: who resolves them, and which synthetic addresses stand for them.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::check::ConfigCheck;
use super::check_listen::NamedListener;
use super::config_problem::quoted;
use super::keys::{self, Setting};
use super::setting_types::Text;
use super::settings::{Dns, DnsMode, Policy, UpstreamKind};

const SYNTHETIC: Setting<Text> = keys::DNS_SYNTHETIC;
/// Prefixes of a range of use for synthetic addresses: some names at least, and not half the Internet.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=28;
/// Networks whose addresses mean something by themselves, and what they are.
const TAKEN: [(&str, &str); 5] = [
    ("0.0.0.0/8", "this host"),
    ("100.64.0.0/10", "the tailnet's own addresses"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local addresses"),
    ("224.0.0.0/3", "multicast and reserved addresses"),
];

impl ConfigCheck<'_> {
    pub(super) fn check_dns(&mut self, kind: Option<UpstreamKind>) -> Dns {
        use UpstreamKind::{Direct, LocalApi, Socks5, Tailscaled};
        let w = self.written;
        let mode = match (w.get(keys::DNS_MODE), kind) {
            (Some(DnsMode::System), _) | (_, Some(Direct)) => DnsMode::System,
            (Some(DnsMode::Upstream), _) | (_, Some(Socks5(_))) => DnsMode::Upstream,
            (_, Some(Tailscaled(_) | LocalApi) | None) => DnsMode::Tailnet,
        };
        let wants_tailnet = w.get(keys::DNS_MODE) == Some(DnsMode::Tailnet);
        if wants_tailnet && matches!(kind, Some(Direct | Socks5(_))) {
            let what = "dns.mode = \"tailnet\" needs upstream.kind tailscaled or localapi, which \
                        know the tailnet's names: leave it out, or use \"upstream\" or \"system\"";
            self.add_problem(w.origin(keys::DNS_MODE), what);
        }
        Dns {
            mode,
            timeout: w.get(keys::DNS_TIMEOUT),
            cache_entries: w.get(keys::DNS_CACHE_ENTRIES),
            synthetic: self.check_synthetic(mode),
        }
    }

    fn check_synthetic(&mut self, mode: DnsMode) -> Option<Ipv4Net> {
        let text = self.written.get(SYNTHETIC);
        if text.is_empty() {
            return None;
        }
        let origin = self.written.origin(SYNTHETIC);
        let range = text.parse::<Ipv4Net>().ok().filter(|net| PREFIXES.contains(&net.prefix_len()));
        let Some(net) = range else {
            let what = format!(
                "{SYNTHETIC} wants an IPv4 network of /{} to /{} such as 198.18.0.0/15, not {}",
                PREFIXES.start(),
                PREFIXES.end(),
                quoted(text)
            );
            self.add_problem(origin, what);
            return None;
        };
        if net.addr() != net.network() {
            let what = format!("{SYNTHETIC}: did you mean {}?", net.trunc());
            self.add_problem(origin.clone(), what);
        }
        if mode != DnsMode::Tailnet {
            let what = format!(
                "{SYNTHETIC} gives addresses to names of the tailnet, which dns.mode = \"tailnet\" \
                 alone knows: leave it out"
            );
            self.add_problem(origin, what);
        }
        Some(net)
    }

    /// A synthetic address must mean nothing else.
    pub(super) fn check_synthetic_overlap(
        &mut self,
        dns: &Dns,
        policy: &Policy,
        listeners: &[NamedListener],
    ) {
        let Some(net) = dns.synthetic else { return };
        let overlaps = |other: &IpNet| match other {
            IpNet::V4(v4) => net.contains(v4) || v4.contains(&net),
            IpNet::V6(_) => false,
        };
        let taken = TAKEN.iter().find(|(text, _)| text.parse().is_ok_and(|other| overlaps(&other)));
        let denied = policy.deny_nets.iter().find(|other| overlaps(other));
        let mut addresses = listeners.iter().map(|listener| listener.address);
        let listens = addresses.find(|own| matches!(own.ip(), IpAddr::V4(v4) if net.contains(&v4)));
        let why = match (taken, denied, listens) {
            (Some((text, what)), _, _) => format!("{text}, {what}"),
            (None, Some(denied), _) => {
                format!(
                    "{denied} of policy.deny_nets, so that no synthetic address would ever be carried"
                )
            }
            (None, None, Some(listener)) => format!("the listener {listener}"),
            (None, None, None) => return,
        };
        let what =
            format!("{SYNTHETIC} {net} overlaps {why}: choose another, such as 198.18.0.0/15");
        self.add_problem(self.written.origin(SYNTHETIC), what);
    }
}
