//! The nameservers of one domain, and one question put to them.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hickory_proto::op::Query;
use tokio::sync::Semaphore;

use super::answer::{AnswerRecords, ServerFault};
use super::server::{NameserverClient, NameserverContext, label};
use super::{NameserverAddress, TailnetZone};
use crate::labels::DnsRoute;
use crate::target::Name;

/// Names asked for at once (docs/requirements.md, D10); the rest wait. Each domain counts its own, so that
/// a dead nameserver holds up nobody else's names.
const IN_FLIGHT: usize = 64;
/// A server silent for so long is not left, but the next one is asked too.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct ResolverDomain {
    /// The domain; none: everything else.
    pub(super) suffix: Option<Name>,
    route: DnsRoute,
    pub(super) permits: Semaphore,
    servers: Vec<Arc<NameserverClient>>,
    /// Nameservers that are not asked, as written.
    skipped: Vec<String>,
}

/// Everybody failed: what each of them said.
pub(super) struct AllFailed(pub(super) String);

impl ResolverDomain {
    pub(super) fn new(
        suffix: Option<&Name>,
        nameservers: &[NameserverAddress],
        zone: &TailnetZone,
        outside: &Arc<NameserverContext>,
    ) -> Self {
        let (mut servers, mut skipped) = (Vec::new(), Vec::new());
        for nameserver in nameservers {
            match NameserverClient::new(nameserver, zone, outside) {
                Some(server) => servers.push(server),
                None => skipped.push(label(nameserver)),
            }
        }
        let route = if suffix.is_some() { DnsRoute::Split } else { DnsRoute::Global };
        let (suffix, permits) = (suffix.cloned(), Semaphore::new(IN_FLIGHT));
        Self { suffix, route, permits, servers, skipped }
    }

    /// This host's resolvers, asked by ourselves.
    pub(super) fn of_system(resolvers: &[SocketAddr], outside: &Arc<NameserverContext>) -> Self {
        let servers =
            resolvers.iter().map(|to| NameserverClient::of_system(*to, outside)).collect();
        let permits = Semaphore::new(IN_FLIGHT);
        Self { suffix: None, route: DnsRoute::System, permits, servers, skipped: Vec::new() }
    }

    /// Nobody is named: what is known is all there is.
    pub(super) fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.skipped.is_empty()
    }

    pub(super) fn can_be_asked(&self) -> bool {
        !self.servers.is_empty()
    }

    pub(super) fn route(&self) -> DnsRoute {
        self.route
    }

    pub(super) fn nameserver_labels(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.label().to_owned()).collect()
    }

    pub(super) fn skipped_labels(&self) -> &[String] {
        &self.skipped
    }

    /// Asks one server after the other, each once, until one knows (docs/requirements.md, D2).
    pub(super) async fn ask_in_turn(&self, query: &Query) -> Result<AnswerRecords, AllFailed> {
        let mut left = self.servers.iter().map(|server| async move {
            server.ask_nameserver(query).await.map_err(|trouble| (server.label(), trouble))
        });
        let mut asked: FuturesUnordered<_> = left.next().into_iter().collect();
        let mut failed = Vec::new();
        loop {
            let patience = tokio::time::sleep(PATIENCE);
            let result = tokio::select! {
                biased;
                result = asked.next() => result,
                () = patience, if left.len() > 0 => {
                    asked.extend(left.next());
                    continue;
                }
            };
            match result {
                Some(Ok(told)) => return Ok(told),
                Some(Err((server, trouble))) => failed.push(trouble_of(server, &trouble)),
                None => return Err(AllFailed(failed.join("; "))),
            }
            asked.extend(left.next());
        }
    }
}

fn trouble_of(server: &str, trouble: &ServerFault) -> String {
    match trouble {
        ServerFault::Code(code) => format!("{server} says {code}"),
        other => format!("{server}: {other}"),
    }
}
