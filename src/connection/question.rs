//! The story of one DNS question: policy first, then the tailnet's state, then names; and of what is
//! found only the addresses that a connection could be dialled to.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::House;
use super::answered::Asker;
use crate::names::serve::{Answers, Question, Reply, Wanted};
use crate::names::{Family, NameError, Records};
use crate::policy::Admitted;
use crate::target::Name;

/// How long loopback may be remembered as `localhost`.
const LOCALHOST: Duration = Duration::from_secs(300);

/// Answers with what this house knows.
pub struct Desk(pub Arc<House>);

impl Answers for Desk {
    fn answer(&self, question: Question) -> BoxFuture<'static, Reply> {
        let house = Arc::clone(&self.0);
        async move { answer(&house, question).await }.boxed()
    }
}

async fn answer(house: &House, Question { name, wanted, client }: Question) -> Reply {
    if is_localhost(&name) {
        return loopback(wanted);
    }
    let inside = house.inside.as_ref();
    let down = inside.is_some_and(|inside| !inside.now().is_running());
    // Whether the tailnet has a bare name is known once it is up.
    if down && !name.as_str().contains('.') {
        return Reply::Failed;
    }
    let whole = house.names.load().qualify(&name);
    let admitted = match admit(house, whole.as_ref().unwrap_or(&name)) {
        Some(admitted) => admitted,
        None => return Reply::NoSuchName,
    };
    let family = match wanted {
        _ if down => return Reply::Failed,
        Wanted::Other => return Reply::NOTHING,
        Wanted::Alias => Family::V4,
        Wanted::Addresses(family) => family,
    };
    match look_up(house, &admitted, family).await {
        Ok(Some(records)) => heard(house, (client, &admitted), whole, records),
        Ok(None) => Reply::Failed,
        Err(NameError::NotFound { .. }) => Reply::NoSuchName,
        Err(_) => Reply::Failed,
    }
}

/// May it be asked? A name that may not is asked of nobody.
fn admit(house: &House, name: &Name) -> Option<Admitted<Name>> {
    let (policy, own) = (house.policy.load(), house.own.load());
    let (decision, judged) = policy.judge_name(&own, name);
    house.book.decision(decision.mode.label(), decision.verdict.label());
    if judged.is_err() {
        let rule = decision.rule.as_deref().unwrap_or_default();
        tracing::debug!(%name, rule, "a DNS question was refused");
        let route = house.names.load().plan(name).route;
        if route != "upstream" {
            house.book.dns(route, "refused", Duration::ZERO);
        }
    }
    judged.ok()
}

async fn look_up(
    house: &House,
    name: &Admitted<Name>,
    family: Family,
) -> Result<Option<Records>, NameError> {
    let (names, asked) = (house.names.load_full(), Instant::now());
    let listeners = house.own.load().listeners.clone();
    if names.asks_itself(name.get(), &listeners).await {
        tracing::debug!(name = %name.get(), "this host's resolver asks listen.dns, which asks it");
        return Ok(None);
    }
    let found = names.records(name, family).await;
    match &found {
        Ok(Some(records)) => house.book.dns(records.by, "ok", asked.elapsed()),
        Ok(None) => {}
        Err(error) => house.book.dns(error.route(), error.result(), asked.elapsed()),
    }
    found
}

/// What the client hears of it. An address that no mode would dial is left out: the client could dial
/// it itself, past this gateway, and a name of somebody else's would lead it to its own loopback
/// (reliability.md B13, B22).
fn heard(
    house: &House,
    (client, name): (IpAddr, &Admitted<Name>),
    whole: Option<Name>,
    records: Records,
) -> Reply {
    let (policy, own) = (house.policy.load(), house.own.load());
    let Records { aliases, mut addresses, left, .. } = records;
    addresses.retain(|ip| policy.may_hear_of(&own, *ip));
    house.answered.remember(Asker::new(&own, client), name.get(), &addresses);
    Reply::Records { whole, aliases, addresses, left }
}

/// This name is whoever asks for it (RFC 6761 section 6.3).
fn is_localhost(name: &Name) -> bool {
    name.as_str() == "localhost" || name.as_str().ends_with(".localhost")
}

fn loopback(wanted: Wanted) -> Reply {
    let address: IpAddr = match wanted {
        Wanted::Addresses(Family::V6) => Ipv6Addr::LOCALHOST.into(),
        Wanted::Addresses(Family::V4 | Family::Both) => Ipv4Addr::LOCALHOST.into(),
        Wanted::Alias | Wanted::Other => return Reply::NOTHING,
    };
    let (aliases, addresses) = (Vec::new(), vec![address]);
    Reply::Records { whole: None, aliases, addresses, left: LOCALHOST }
}
