//! What is looked for in a tunnel's first bytes: TLS for a server that policy does not allow
//! (docs/requirements.md, B17), and on a redirected connection requests that only a proxy should get (B19).
//!
//! The target stays what it is; here the tunnel goes on or ends.
#![forbid(unsafe_code)]

use super::{GatewayState, Refusal};
use crate::inbound::Kind;
use crate::inbound::client_hello::{self, Hello, ServerName};
use crate::inbound::sniff::{self, Said};
use crate::policy::{Asked, Mode, Verdict};
use crate::record::Record;
use crate::relay::{Inspection, Inspector};
use crate::target::Target;

/// Looks for a server name in a tunnel's first bytes, until those have been seen.
pub(super) struct SniInspector {
    target: Target,
    redirected: bool,
    /// Policy wants to know what TLS asks for.
    names: bool,
}

/// What the first bytes say.
pub(super) enum SniVerdict {
    /// More bytes tell.
    More,
    /// Nothing wrong, whatever follows.
    Clear,
    /// This.
    Refused(Refusal),
}

impl SniInspector {
    /// None where nothing is looked for.
    pub(super) fn for_tunnel(
        gateway_state: &GatewayState,
        kind: Kind,
        target: &Target,
    ) -> Option<Self> {
        let redirected = kind == Kind::Transparent;
        let names = gateway_state.policy.load().mode() != Mode::Off;
        let inspector = || Self { target: target.clone(), redirected, names };
        (redirected || names).then(inspector)
    }

    /// Judges all that the client has said so far; with `over` it says nothing more, or not in time.
    pub(super) fn judge(
        &self,
        gateway_state: &GatewayState,
        record: &mut Record,
        bytes: &[u8],
        over: bool,
    ) -> SniVerdict {
        match self.said(bytes) {
            Said::Incomplete if !over => SniVerdict::More,
            // A ClientHello that never becomes whole.
            Said::Incomplete
                if client_hello::read(bytes) == Hello::Incomplete && !bytes.is_empty() =>
            {
                self.tls(
                    gateway_state,
                    record,
                    &ServerName::Unreadable("the ClientHello never became whole"),
                )
            }
            Said::Tls(name) => self.tls(gateway_state, record, &name),
            Said::ForProxy => SniVerdict::Refused(Refusal::for_proxy()),
            Said::Incomplete | Said::Http(_) | Said::Opaque => SniVerdict::Clear,
        }
    }

    fn said(&self, bytes: &[u8]) -> Said {
        match client_hello::read(bytes) {
            Hello::Incomplete | Hello::Tls(_) if !self.names && !bytes.is_empty() => Said::Opaque,
            Hello::Incomplete => Said::Incomplete,
            Hello::Tls(name) => Said::Tls(name),
            Hello::NotTls if self.redirected => sniff::read(bytes),
            Hello::NotTls => Said::Opaque,
        }
    }

    fn tls(
        &self,
        gateway_state: &GatewayState,
        record: &mut Record,
        name: &ServerName,
    ) -> SniVerdict {
        let policy = gateway_state.policy.load();
        let host = match name {
            // The server's own address says no more than nothing.
            ServerName::Host(host) if host.name().is_none() && *host == self.target.host => None,
            ServerName::Host(host) => {
                Some(gateway_state.qualified(Target { host: host.clone(), port: self.target.port }))
            }
            ServerName::Absent | ServerName::Unreadable(_) => None,
        };
        let asked = match (name, &host) {
            (ServerName::Unreadable(why), _) => Asked::Unreadable(why),
            (_, Some(asked)) if asked.host == self.target.host => return SniVerdict::Clear,
            (_, Some(asked)) => Asked::Host(&asked.host),
            (_, None) => Asked::Nobody,
        };
        let decision = policy.judge_server(asked);
        if decision.verdict == Verdict::Allow {
            return SniVerdict::Clear;
        }
        let rule = decision.rule.clone().unwrap_or_default();
        record.verdict(decision.mode, decision.verdict, decision.rule);
        match decision.verdict {
            Verdict::Deny => SniVerdict::Refused(Refusal::sni_mismatch(&self.target, &rule)),
            Verdict::Allow | Verdict::WouldDeny => SniVerdict::Clear,
        }
    }
}

/// The inspector as the relay calls it.
pub(super) struct RelayInspector<'a> {
    inspector: SniInspector,
    gateway_state: &'a GatewayState,
    record: &'a mut Record,
    /// Why the gate stayed shut.
    pub(super) found: Option<Box<Refusal>>,
}

impl<'a> RelayInspector<'a> {
    pub(super) fn new(
        inspector: SniInspector,
        gateway_state: &'a GatewayState,
        record: &'a mut Record,
    ) -> Self {
        Self { inspector, gateway_state, record, found: None }
    }
}

impl Inspector for RelayInspector<'_> {
    fn look(&mut self, bytes: &[u8], over: bool) -> Inspection {
        match self.inspector.judge(self.gateway_state, self.record, bytes, over) {
            SniVerdict::More => Inspection::More,
            SniVerdict::Clear => Inspection::Pass,
            SniVerdict::Refused(refusal) => {
                self.found = Some(Box::new(refusal));
                Inspection::Refuse
            }
        }
    }
}
