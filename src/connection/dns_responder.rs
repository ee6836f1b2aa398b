//! What happens to one DNS question: policy first, then the tailnet's state, then names; and of what is
//! found only the addresses that a connection could be dialled to.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::GatewayState;
use super::names_behind_addresses::AnsweredClient;
use crate::dns::serve::{
    AnswerSource, ClientQuestion, DnsReply, ExtendedError, ExtendedErrorCode, QuestionKind,
};
use crate::dns::{DnsRecords, IpFamily, NameError, QueryKind, reverse};
use crate::expiring_cache::ExpiringCache;
use crate::labels::{DnsResult, DnsRoute};
use crate::policy::{
    self, Admitted, AskedName, KnownNames as _, NameDecision, SyntheticUse, Verdict,
};
use crate::target::Name;

/// How long loopback may be remembered as `localhost`, and that nothing is known of a name but that it is.
const LOCALHOST: Duration = Duration::from_secs(300);
/// Names whose verdict was written down lately: a program that asks again and again is one line.
const SAID: usize = 1024;
/// How long it is not said again.
const QUIET: Duration = Duration::from_secs(60);

/// Answers with what this gateway knows.
#[derive(Clone)]
pub struct DnsResponder {
    gateway_state: Arc<GatewayState>,
    said: Arc<ExpiringCache<(Name, Verdict), ()>>,
}

impl DnsResponder {
    /// Speaks for this gateway.
    pub fn new(gateway_state: Arc<GatewayState>) -> Self {
        Self { gateway_state, said: Arc::new(ExpiringCache::new(SAID)) }
    }
}

impl AnswerSource for DnsResponder {
    fn answer(&self, question: ClientQuestion) -> BoxFuture<'static, DnsReply> {
        let responder = self.clone();
        async move { responder.reply(question).await.unwrap_or_else(|reply| reply) }.boxed()
    }
}

impl DnsResponder {
    /// An `Err` is the reply too: one that ends it early.
    async fn reply(
        &self,
        ClientQuestion { name, wanted, client }: ClientQuestion,
    ) -> Result<DnsReply, DnsReply> {
        if name.is_localhost() {
            return Ok(loopback_reply(wanted));
        }
        let reversed = reverse::address_of(&name);
        if let Some(reply) = reversed.and_then(|address| reverse_of_loopback(address, wanted)) {
            return Ok(reply);
        }
        let down = self.refuse_while_down();
        // Whether the tailnet has a bare name, and a name for an address, is known once it is up.
        if name.is_bare() || reversed.is_some() {
            down.clone()?;
        }
        if let (Some(address), QuestionKind::Of(QueryKind::Ptr)) = (reversed, wanted) {
            return self.answer_pointer(&name, address, client).await;
        }
        let mut decision = self.decide(AskedName::Records(&name));
        let whole = decision.whole.take();
        let admitted = self.admit_question(decision, client, &name)?;
        down?;
        let kind = match wanted {
            QuestionKind::Other => return Ok(DnsReply::NOTHING),
            QuestionKind::Any => return Ok(reply_to_any()),
            QuestionKind::Alias => QueryKind::Addresses(IpFamily::V4),
            QuestionKind::Of(kind) => kind,
        };
        if let QueryKind::Addresses(family) = kind
            && wanted != QuestionKind::Alias
            && self.has_synthetic_address(admitted.get())
        {
            return self.answer_synthetic(&admitted, family, whole).await;
        }
        let records = self.look_up(&admitted, kind).await?;
        Ok(self.tell_records(client, &admitted, whole, records))
    }

    /// While the tailnet is down nobody is asked (docs/requirements.md, D9).
    fn refuse_while_down(&self) -> Result<(), DnsReply> {
        let state = self.gateway_state.tailnet_gate.as_ref().map(|tailnet_gate| tailnet_gate.now());
        match state.filter(|state| !state.is_running()) {
            Some(state) => Err(DnsReply::Failed(Some(ExtendedError::new(
                ExtendedErrorCode::NotReady,
                state.fault_sentence(),
            )))),
            None => Ok(()),
        }
    }

    /// Whose an address is: that of a synthetic address, a node's, or what split DNS says. A name that is
    /// told must be one this client may hear of.
    async fn answer_pointer(
        &self,
        name: &Name,
        address: IpAddr,
        client: IpAddr,
    ) -> Result<DnsReply, DnsReply> {
        let known = {
            let snapshot = self.gateway_state.decision_snapshot();
            match snapshot.synthetic_use(address) {
                SyntheticUse::Assigned(name) => Some(name),
                _ => self.gateway_state.resolver.load().find_pointer(address),
            }
        };
        let records = match known {
            Some(known) => {
                let decision = self.decide(AskedName::Mention(&known));
                let told = self.admit_question(decision, client, &known)?;
                self.gateway_state.telemetry.record_dns(
                    DnsRoute::Magicdns,
                    DnsResult::Ok,
                    Duration::ZERO,
                );
                DnsRecords::of_pointer(told.get())
            }
            None => {
                let decision = self.decide(AskedName::Reverse { reverse: name, address });
                let admitted = self.admit_question(decision, client, name)?;
                self.look_up(&admitted, QueryKind::Ptr).await?
            }
        };
        Ok(DnsReply::of_records(None, records))
    }

    fn decide(&self, asked: AskedName<'_>) -> NameDecision {
        policy::decide_question(asked, &self.gateway_state.decision_snapshot().decision_context())
    }

    /// May it be asked? A name that may not is asked of nobody.
    fn admit_question(
        &self,
        decision: NameDecision,
        client: IpAddr,
        name: &Name,
    ) -> Result<Admitted<Name>, DnsReply> {
        let gateway_state = &self.gateway_state;
        let NameDecision { policy, permission, .. } = decision;
        let (mode, verdict) = (policy.mode, policy.verdict);
        gateway_state.telemetry.count_decision(mode, verdict);
        let rule = policy.rule.as_deref().unwrap_or_default();
        tracing::debug!(%name, %client, %mode, %verdict, rule, "DNS question decided");
        if policy.verdict != Verdict::Allow && self.is_new_verdict(name, verdict) {
            tracing::info!(%name, %client, %mode, %verdict, rule, "a DNS question that policy does not allow");
        }
        permission.map_err(|_| {
            let by = gateway_state.resolver.load().plan(name).by;
            if let Some(route) = by.dns_route() {
                gateway_state.telemetry.record_dns(route, DnsResult::Refused, Duration::ZERO);
            }
            DnsReply::Refused(ExtendedError::new(
                ExtendedErrorCode::Blocked,
                format!("refused by policy: {rule}"),
            ))
        })
    }

    fn is_new_verdict(&self, name: &Name, verdict: Verdict) -> bool {
        let (line, now) = ((name.clone(), verdict), Instant::now());
        let news = self.said.get(&line, now).is_none();
        if news {
            self.said.insert(line, (), QUIET, now);
        }
        news
    }

    async fn look_up(
        &self,
        name: &Admitted<Name>,
        kind: QueryKind,
    ) -> Result<DnsRecords, DnsReply> {
        let gateway_state = &self.gateway_state;
        let (names, asked) = (gateway_state.resolver.load_full(), Instant::now());
        let listeners = gateway_state.local_addresses.load().listeners.clone();
        let addresses = matches!(kind, QueryKind::Addresses(_));
        if addresses && names.asks_itself(name.get(), &listeners).await {
            let why = "this host's resolver asks listen.dns, which asks it";
            tracing::debug!(name = %name.get(), why);
            return Err(DnsReply::Failed(Some(ExtendedError::new(
                ExtendedErrorCode::NoReachableAuthority,
                why,
            ))));
        }
        match names.resolve_records(name, kind, &listeners).await {
            Ok(Some(records)) => {
                gateway_state.telemetry.record_dns(records.by, DnsResult::Ok, asked.elapsed());
                Ok(records)
            }
            Ok(None) => {
                let why = "names are passed on to the upstream here (dns.mode = \"upstream\")";
                Err(DnsReply::Failed(Some(ExtendedError::new(
                    ExtendedErrorCode::NoReachableAuthority,
                    why,
                ))))
            }
            Err(error) => {
                gateway_state.telemetry.record_dns(error.route(), error.result(), asked.elapsed());
                Err(match error {
                    NameError::NotFound { .. } => DnsReply::NoSuchName,
                    other => {
                        let why = ExtendedError::new(
                            ExtendedErrorCode::NoReachableAuthority,
                            other.to_string(),
                        );
                        DnsReply::Failed(Some(why))
                    }
                })
            }
        }
    }

    /// What the client hears of it. An address that no mode would dial is left out: the client could dial
    /// it itself, past this gateway, and a name of somebody else's would lead it to its own loopback
    /// (docs/requirements.md, B13, B22).
    fn tell_records(
        &self,
        client: IpAddr,
        name: &Admitted<Name>,
        whole: Option<Name>,
        mut records: DnsRecords,
    ) -> DnsReply {
        let gateway_state = &self.gateway_state;
        let (policy, local_addresses) =
            (gateway_state.policy.load(), gateway_state.local_addresses.load());
        records.addresses.retain(|ip| policy.may_tell(&local_addresses, *ip));
        gateway_state.dns_answers.remember(
            AnsweredClient::new(&local_addresses, client),
            name.get(),
            &records.addresses,
        );
        DnsReply::of_records(whole, records)
    }

    /// Whether the name gets a synthetic address: names inside the tailnet do. Others have addresses that are
    /// theirs wherever they are asked for.
    fn has_synthetic_address(&self, name: &Name) -> bool {
        self.gateway_state.synthetic_addresses.load().is_some()
            && matches!(
                self.gateway_state.resolver.load().plan(name).by.dns_route(),
                Some(DnsRoute::Magicdns | DnsRoute::Split)
            )
    }

    /// A synthetic address, if a connection to the name could be dialled anywhere. They are IPv4 alone.
    async fn answer_synthetic(
        &self,
        name: &Admitted<Name>,
        family: IpFamily,
        whole: Option<Name>,
    ) -> Result<DnsReply, DnsReply> {
        let gateway_state = &self.gateway_state;
        let mut left = None;
        for family in [IpFamily::V4, IpFamily::V6] {
            let records = self.look_up(name, QueryKind::Addresses(family)).await?;
            let (policy, local_addresses) =
                (gateway_state.policy.load(), gateway_state.local_addresses.load());
            if records.addresses.iter().any(|ip| policy.may_tell(&local_addresses, *ip)) {
                left = Some(records.left);
                break;
            }
        }
        let (Some(left), IpFamily::V4) = (left, family) else { return Ok(DnsReply::NOTHING) };
        let synthetic = gateway_state.synthetic_addresses.load();
        let address =
            synthetic.as_ref().and_then(|synthetic| synthetic.assign(name.get(), Instant::now()));
        let Some(address) = address else {
            let why = "every address of dns.synthetic was used within the last hour: give it more";
            tracing::warn!(name = %name.get(), "{why}");
            return Err(DnsReply::Failed(Some(ExtendedError::new(
                ExtendedErrorCode::NotReady,
                why,
            ))));
        };
        Ok(DnsReply::address_data(whole, address.into(), left))
    }
}

fn loopback_reply(wanted: QuestionKind) -> DnsReply {
    let address: IpAddr = match wanted {
        QuestionKind::Of(QueryKind::Addresses(IpFamily::V6)) => Ipv6Addr::LOCALHOST.into(),
        QuestionKind::Of(QueryKind::Addresses(IpFamily::V4 | IpFamily::Both)) => {
            Ipv4Addr::LOCALHOST.into()
        }
        QuestionKind::Any => return reply_to_any(),
        QuestionKind::Of(_) | QuestionKind::Alias | QuestionKind::Other => {
            return DnsReply::NOTHING;
        }
    };
    DnsReply::address_data(None, address, LOCALHOST)
}

/// Loopback's name, which nobody else is asked for (RFC 6303 section 4.2).
fn reverse_of_loopback(address: IpAddr, wanted: QuestionKind) -> Option<DnsReply> {
    let name = Name::parse(b"localhost").ok().filter(|_| address.is_loopback())?;
    if wanted != QuestionKind::Of(QueryKind::Ptr) {
        return Some(DnsReply::NOTHING);
    }
    Some(DnsReply::of_records(
        None,
        DnsRecords { left: LOCALHOST, ..DnsRecords::of_pointer(&name) },
    ))
}

/// The one record that stands for all there are.
fn reply_to_any() -> DnsReply {
    DnsReply::nothing_for(LOCALHOST)
}
