//! What is looked for in a tunnel's first bytes: TLS for a server that policy does not allow
//! (docs/requirements.md, B17), and on a redirected connection requests that only a proxy should get (B19).
//!
//! The target stays what it is; here the tunnel goes on or ends.
#![forbid(unsafe_code)]

use super::{House, Refusal};
use crate::inbound::Kind;
use crate::inbound::first_bytes::{self, Said};
use crate::inbound::hello::{self, Hello, ServerName};
use crate::policy::{Asked, Mode, Verdict};
use crate::record::Record;
use crate::relay::{Gate, Look};
use crate::target::Target;

/// A tunnel's lookout, for as long as its first bytes have not been seen.
pub(super) struct Lookout {
    target: Target,
    redirected: bool,
    /// Policy wants to know what TLS asks for.
    names: bool,
}

/// What a lookout makes of it.
pub(super) enum Sight {
    /// More bytes tell.
    More,
    /// Nothing wrong, whatever follows.
    Clear,
    /// This.
    Refused(Refusal),
}

impl Lookout {
    /// None where nothing is looked for.
    pub(super) fn for_tunnel(house: &House, kind: Kind, target: &Target) -> Option<Self> {
        let redirected = kind == Kind::Transparent;
        let names = house.policy.load().mode() != Mode::Off;
        let lookout = || Self { target: target.clone(), redirected, names };
        (redirected || names).then(lookout)
    }

    /// Judges all that the client has said so far; with `over` it says nothing more, or not in time.
    pub(super) fn judge(
        &self,
        house: &House,
        record: &mut Record,
        bytes: &[u8],
        over: bool,
    ) -> Sight {
        match self.said(bytes) {
            Said::Incomplete if !over => Sight::More,
            // A ClientHello that never becomes whole.
            Said::Incomplete if hello::read(bytes) == Hello::Incomplete && !bytes.is_empty() => {
                self.tls(
                    house,
                    record,
                    &ServerName::Unreadable("the ClientHello never became whole"),
                )
            }
            Said::Tls(name) => self.tls(house, record, &name),
            Said::ForProxy => Sight::Refused(Refusal::for_proxy()),
            Said::Incomplete | Said::Http(_) | Said::Opaque => Sight::Clear,
        }
    }

    fn said(&self, bytes: &[u8]) -> Said {
        match hello::read(bytes) {
            Hello::Incomplete | Hello::Tls(_) if !self.names && !bytes.is_empty() => Said::Opaque,
            Hello::Incomplete => Said::Incomplete,
            Hello::Tls(name) => Said::Tls(name),
            Hello::NotTls if self.redirected => first_bytes::read(bytes),
            Hello::NotTls => Said::Opaque,
        }
    }

    fn tls(&self, house: &House, record: &mut Record, name: &ServerName) -> Sight {
        let policy = house.policy.load();
        let host = match name {
            // The server's own address says no more than nothing.
            ServerName::Host(host) if host.name().is_none() && *host == self.target.host => None,
            ServerName::Host(host) => {
                Some(house.qualified(Target { host: host.clone(), port: self.target.port }))
            }
            ServerName::Absent | ServerName::Unreadable(_) => None,
        };
        let asked = match (name, &host) {
            (ServerName::Unreadable(why), _) => Asked::Unreadable(why),
            (_, Some(asked)) if asked.host == self.target.host => return Sight::Clear,
            (_, Some(asked)) => Asked::Host(&asked.host),
            (_, None) => Asked::Nobody,
        };
        let decision = policy.judge_server(asked);
        if decision.verdict == Verdict::Allow {
            return Sight::Clear;
        }
        let rule = decision.rule.clone().unwrap_or_default();
        record.verdict(decision.mode.label(), decision.verdict.label(), decision.rule);
        match decision.verdict {
            Verdict::Deny => Sight::Refused(Refusal::sni_mismatch(&self.target, &rule)),
            Verdict::Allow | Verdict::WouldDeny => Sight::Clear,
        }
    }
}

/// A lookout at the relay's gate.
pub(super) struct AtGate<'a> {
    lookout: Lookout,
    house: &'a House,
    record: &'a mut Record,
    /// Why the gate stayed shut.
    pub(super) found: Option<Box<Refusal>>,
}

impl<'a> AtGate<'a> {
    pub(super) fn new(lookout: Lookout, house: &'a House, record: &'a mut Record) -> Self {
        Self { lookout, house, record, found: None }
    }
}

impl Gate for AtGate<'_> {
    fn look(&mut self, bytes: &[u8], over: bool) -> Look {
        match self.lookout.judge(self.house, self.record, bytes, over) {
            Sight::More => Look::More,
            Sight::Clear => Look::Pass,
            Sight::Refused(refusal) => {
                self.found = Some(Box::new(refusal));
                Look::Refuse
            }
        }
    }
}
