//! What is looked for in a tunnel's first bytes: TLS for a server that policy does not allow
//! (docs/requirements.md, B17), and on a redirected connection requests that only a proxy should get (B19).
//!
//! The target stays what it is; here the tunnel goes on or ends.
#![forbid(unsafe_code)]

use super::decision::{PermittedTarget, write_verdict};
use super::read_request::TunnelRequest;
use super::{GatewayState, Refusal};
use crate::inbound::Kind;
use crate::inbound::client_hello::{self, ClientHello, ServerName};
use crate::inbound::sniff::{self, SniffedProtocol};
use crate::policy::{self, Mode, RequestedServer, Verdict};
use crate::record::TargetRecord;
use crate::relay::{InspectionVerdict, StreamInspector};
use crate::target::Target;

/// Looks for a server name in a tunnel's first bytes, until those have been seen.
pub(super) struct SniInspector {
    target: Target,
    redirected: bool,
    /// Policy wants to know what TLS asks for.
    judges_names: bool,
}

/// What the first bytes say.
pub(super) enum SniVerdict {
    /// Nothing yet: more bytes tell.
    More,
    /// Nothing wrong, whatever follows.
    Clear,
    /// Something that ends the tunnel.
    Refused(Refusal),
}

impl SniInspector {
    /// Looks at what has come already: what may not pass is not even dialled for. None where nothing is looked for, or
    /// nothing more needs to be.
    pub(super) fn inspect_early(
        gateway_state: &GatewayState,
        record: &mut TargetRecord,
        request: &TunnelRequest,
        permitted: &PermittedTarget,
    ) -> Result<Option<Self>, Refusal> {
        let redirected = request.kind == Kind::Transparent;
        let judges_names = gateway_state.policy.load().mode() != Mode::Off;
        // A name that redirected the connection was the target's own and has been judged.
        if request.named.is_some() || !(redirected || judges_names) {
            return Ok(None);
        }
        let inspector = Self { target: permitted.admitted.get().clone(), redirected, judges_names };
        let verdict = match &request.sniffed {
            // It had its time: nothing more comes to judge by.
            Some(said) => inspector.judge_first_bytes(gateway_state, record, said, true),
            None => inspector.inspect(gateway_state, record, &request.early, false),
        };
        match verdict {
            SniVerdict::More => {
                tracing::debug!("first bytes are inspected in the relay");
                Ok(Some(inspector))
            }
            SniVerdict::Clear => Ok(None),
            SniVerdict::Refused(refusal) => Err(refusal),
        }
    }

    /// Reads and judges all that the client has said so far; with `over` it says nothing more, or not in time.
    fn inspect(
        &self,
        gateway_state: &GatewayState,
        record: &mut TargetRecord,
        bytes: &[u8],
        over: bool,
    ) -> SniVerdict {
        self.judge_first_bytes(gateway_state, record, &self.parse_first_bytes(bytes), over)
    }

    fn parse_first_bytes(&self, bytes: &[u8]) -> SniffedProtocol {
        if self.redirected {
            return sniff::sniff(bytes);
        }
        match client_hello::parse_client_hello(bytes) {
            ClientHello::Incomplete if bytes.is_empty() => SniffedProtocol::Incomplete,
            ClientHello::Incomplete => SniffedProtocol::IncompleteHello,
            ClientHello::Tls(name) => SniffedProtocol::Tls(name),
            ClientHello::NotTls => SniffedProtocol::Opaque,
        }
    }

    fn judge_first_bytes(
        &self,
        gateway_state: &GatewayState,
        record: &mut TargetRecord,
        said: &SniffedProtocol,
        over: bool,
    ) -> SniVerdict {
        match said {
            SniffedProtocol::IncompleteHello | SniffedProtocol::Tls(_) if !self.judges_names => {
                SniVerdict::Clear
            }
            SniffedProtocol::Incomplete | SniffedProtocol::IncompleteHello if !over => {
                SniVerdict::More
            }
            SniffedProtocol::IncompleteHello => {
                let unreadable = ServerName::Unreadable("the ClientHello never became whole");
                self.judge_name(gateway_state, record, &unreadable)
            }
            SniffedProtocol::Tls(name) => self.judge_name(gateway_state, record, name),
            SniffedProtocol::ForProxy => SniVerdict::Refused(Refusal::for_proxy()),
            SniffedProtocol::Incomplete | SniffedProtocol::Http(_) | SniffedProtocol::Opaque => {
                SniVerdict::Clear
            }
        }
    }

    fn judge_name(
        &self,
        gateway_state: &GatewayState,
        record: &mut TargetRecord,
        name: &ServerName,
    ) -> SniVerdict {
        let requested = match name {
            ServerName::Host(host) => RequestedServer::Host(host),
            ServerName::Absent => RequestedServer::Nobody,
            ServerName::Unreadable(why) => RequestedServer::Unreadable(why),
        };
        let snapshot = gateway_state.decision_snapshot();
        let decided =
            policy::decide_server_name(&self.target, requested, &snapshot.decision_context());
        let Some(decided) = decided.filter(|decided| decided.verdict != Verdict::Allow) else {
            return SniVerdict::Clear;
        };
        let refusal = (decided.verdict == Verdict::Deny).then(|| {
            let rule = decided.rule.as_deref().unwrap_or_default();
            Refusal::sni_mismatch(&self.target, rule)
        });
        write_verdict(record, decided);
        refusal.map_or(SniVerdict::Clear, SniVerdict::Refused)
    }
}

/// The inspector as the relay calls it.
pub(super) struct RelayInspector<'a> {
    inspector: SniInspector,
    gateway_state: &'a GatewayState,
    record: &'a mut TargetRecord,
    /// Why the relay is to end.
    pub(super) refusal: Option<Box<Refusal>>,
}

impl<'a> RelayInspector<'a> {
    pub(super) fn new(
        inspector: SniInspector,
        gateway_state: &'a GatewayState,
        record: &'a mut TargetRecord,
    ) -> Self {
        Self { inspector, gateway_state, record, refusal: None }
    }
}

impl StreamInspector for RelayInspector<'_> {
    fn inspect(&mut self, bytes: &[u8], over: bool) -> InspectionVerdict {
        match self.inspector.inspect(self.gateway_state, self.record, bytes, over) {
            SniVerdict::More => InspectionVerdict::More,
            SniVerdict::Clear => InspectionVerdict::Pass,
            SniVerdict::Refused(refusal) => {
                self.refusal = Some(Box::new(refusal));
                InspectionVerdict::Refuse
            }
        }
    }
}
