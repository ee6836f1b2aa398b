//! The order of judgement: loops, then forbidden networks, then the allow-lists by mode.
#![forbid(unsafe_code)]

use std::net::IpAddr;

use ipnet::IpNet;

use super::lists::{Globs, PolicyError, Suffixes, net_holding, net_holding_any_form};
use super::local_addresses::LocalAddresses;
use super::suffix::Suffix;
use super::verdict::{Address, Admitted, Mode, PolicyVerdict, Refused, Verdict};
use crate::target::{Host, Name, Target};

/// The rules as written.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What the allow-lists do.
    pub mode: Mode,
    /// Allowed names, by suffix.
    pub suffixes: Vec<Suffix>,
    /// Allowed names, by glob.
    pub globs: Vec<String>,
    /// Allowed addresses, for targets given as addresses.
    pub nets: Vec<IpNet>,
    /// Addresses refused in every mode.
    pub deny_nets: Vec<IpNet>,
    /// TLS has to name its server.
    pub require_sni: bool,
}

/// The rules of the settings, compiled for one look-up per question.
#[derive(Debug)]
pub struct Policy {
    mode: Mode,
    suffixes: Suffixes,
    globs: Globs,
    nets: Vec<IpNet>,
    deny_nets: Vec<IpNet>,
    require_sni: bool,
}

/// The server that a tunnel's TLS asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestedServer<'a> {
    /// This name or address, by SNI.
    Host(&'a Host),
    /// No server: the ClientHello has no SNI.
    Nobody,
    /// Nobody can tell, and why.
    Unreadable(&'a str),
}

type Judged<T> = (PolicyVerdict, Result<Admitted<T>, Refused>);

impl Policy {
    /// Compiles the rules.
    ///
    /// # Errors
    /// [`PolicyError`] for a glob that is none.
    pub fn new(rules: Rules) -> Result<Self, PolicyError> {
        Ok(Self {
            mode: rules.mode,
            suffixes: Suffixes::new(rules.suffixes),
            globs: Globs::new(rules.globs)?,
            nets: rules.nets,
            deny_nets: rules.deny_nets,
            require_sni: rules.require_sni,
        })
    }

    /// What the allow-lists do.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Judges a target as the client gave it, before any question about it leaves this host.
    pub fn judge_target(
        &self,
        local_addresses: &LocalAddresses,
        target: &Target,
    ) -> Judged<Target> {
        if let Some(rule) = local_addresses.loop_rule(target) {
            return self.refused_by(Refused::Loop, rule.to_owned());
        }
        match self.forbidding_rule(local_addresses, &target.host) {
            Some(rule) => self.refused_by(Refused::Denied, rule),
            None => self.ask_lists(&target.host, target),
        }
    }

    /// Judges one address of an admitted host: only loops, own addresses and `deny_nets` can refuse it.
    pub fn judge_address(
        &self,
        local_addresses: &LocalAddresses,
        host: &Admitted<Target>,
        ip: IpAddr,
    ) -> Judged<Address> {
        let port = host.get().port;
        let ip = ip.to_canonical();
        self.judge_dial(local_addresses, Address { ip, port })
    }

    /// Judges a name that a DNS client asks for: as a target's, but that no port of ours is meant.
    pub fn judge_name(&self, local_addresses: &LocalAddresses, name: &Name) -> Judged<Name> {
        let host = Host::Name(name.clone());
        match self.forbidding_rule(local_addresses, &host) {
            Some(rule) => self.refused_by(Refused::Denied, rule),
            None => self.ask_lists(&host, name),
        }
    }

    /// Judges the server that TLS asks for within an allowed tunnel (B17): by the allow-lists, as a
    /// target. Whether the tunnel goes on is the verdict's affair.
    pub fn judge_server(&self, requested: RequestedServer<'_>) -> PolicyVerdict {
        let rule = match requested {
            RequestedServer::Host(host) => {
                let (mut decision, _) = self.ask_lists(host, &());
                decision.rule = decision.rule.map(|rule| format!("server name {host}: {rule}"));
                return decision;
            }
            RequestedServer::Nobody if self.require_sni => {
                "require_sni: TLS without a server name".to_owned()
            }
            RequestedServer::Unreadable(why) if !self.is_unrestricted() || self.require_sni => {
                why.to_owned()
            }
            RequestedServer::Nobody | RequestedServer::Unreadable(_) => {
                return PolicyVerdict { mode: self.mode, verdict: Verdict::Allow, rule: None };
            }
        };
        let verdict = match self.mode {
            Mode::Off => Verdict::Allow,
            Mode::Log => Verdict::WouldDeny,
            Mode::Enforce => Verdict::Deny,
        };
        PolicyVerdict { mode: self.mode, verdict, rule: Some(rule) }
    }

    /// Whether a connection to an address could be allowed by a name that it turns out to have.
    pub fn allows_by_name(&self) -> bool {
        self.mode != Mode::Enforce || !(self.suffixes.is_empty() && self.globs.is_empty())
    }

    /// Judges a name that a DNS client is told without being led there, that of an address (PTR): by the
    /// lists alone.
    pub fn judge_mention(&self, name: &Name) -> Judged<Name> {
        self.ask_lists(&Host::Name(name.clone()), name)
    }

    /// Judges the reverse name of `address` (PTR): as that address, or by the lists of names.
    pub fn judge_reverse(
        &self,
        local_addresses: &LocalAddresses,
        reverse: &Name,
        address: IpAddr,
    ) -> Judged<Name> {
        let host = Host::Address(address.to_canonical());
        if let Some(rule) = self.forbidding_rule(local_addresses, &host) {
            return self.refused_by(Refused::Denied, rule);
        }
        match self.ask_lists(&host, reverse) {
            judged @ (PolicyVerdict { verdict: Verdict::Allow, .. }, _) => judged,
            _ => self.ask_lists(&Host::Name(reverse.clone()), reverse),
        }
    }

    /// Whether a DNS client may hear of an address: not of one that no mode would dial.
    pub fn may_tell(&self, local_addresses: &LocalAddresses, ip: IpAddr) -> bool {
        self.forbidding_rule(local_addresses, &Host::Address(ip.to_canonical())).is_none()
    }

    /// Judges a nameserver of the tailnet, whose address no client asked for: the same rules.
    pub fn judge_nameserver(
        &self,
        local_addresses: &LocalAddresses,
        server: Address,
    ) -> Judged<Address> {
        self.judge_dial(local_addresses, server)
    }

    fn judge_dial(
        &self,
        local_addresses: &LocalAddresses,
        Address { ip, port }: Address,
    ) -> Judged<Address> {
        let host = Host::Address(ip);
        if let Some(rule) = local_addresses.loop_rule(&Target { host: host.clone(), port }) {
            return self.refused_by(Refused::Loop, rule.to_owned());
        }
        match self.forbidding_rule(local_addresses, &host) {
            Some(rule) => self.refused_by(Refused::Denied, rule),
            None => {
                let decision =
                    PolicyVerdict { mode: self.mode, verdict: Verdict::Allow, rule: None };
                (decision, Ok(Admitted::new(Address { ip, port })))
            }
        }
    }

    /// What no mode allows.
    fn forbidding_rule(&self, local_addresses: &LocalAddresses, host: &Host) -> Option<String> {
        let net = host.address().and_then(|ip| net_holding_any_form(&self.deny_nets, ip));
        let net = net.map(|net| format!("deny_net {net}"));
        net.or_else(|| local_addresses.own_host_rule(host).map(str::to_owned))
    }

    fn ask_lists<T: Clone>(&self, host: &Host, asked: &T) -> Judged<T> {
        let rule = match host {
            Host::Name(name) => {
                self.suffixes.allowing_suffix(name).or_else(|| self.globs.allowing_glob(name))
            }
            Host::Address(ip) => net_holding(&self.nets, *ip).map(|net| format!("net {net}")),
        };
        let admit = |verdict, rule| {
            let decision = PolicyVerdict { mode: self.mode, verdict, rule };
            (decision, Ok(Admitted::new(asked.clone())))
        };
        match (self.mode, rule) {
            (Mode::Off, rule) | (Mode::Log | Mode::Enforce, rule @ Some(_)) => {
                admit(Verdict::Allow, rule)
            }
            (Mode::Log, None) if self.is_unrestricted() => admit(Verdict::Allow, None),
            (Mode::Log, None) => admit(Verdict::WouldDeny, Some(self.missing_rule(host))),
            (Mode::Enforce, None) => self.refused_by(Refused::Denied, self.missing_rule(host)),
        }
    }

    fn is_unrestricted(&self) -> bool {
        self.suffixes.is_empty() && self.globs.is_empty() && self.nets.is_empty()
    }

    /// Why no rule allows it, with what would.
    fn missing_rule(&self, host: &Host) -> String {
        match host {
            Host::Address(_) if self.nets.is_empty() => {
                "no allowed_nets: give the name, not its address (use socks5h)".to_owned()
            }
            Host::Address(_) => "no allowed_net holds it".to_owned(),
            Host::Name(_) => "no allowed suffix or glob".to_owned(),
        }
    }

    fn refused_by<T>(&self, refused: Refused, rule: String) -> Judged<T> {
        let decision = PolicyVerdict { mode: self.mode, verdict: Verdict::Deny, rule: Some(rule) };
        (decision, Err(refused))
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
