//! What getaddrinfo(3) does not ask for, asked of this host's own resolvers by their addresses: datagrams
//! first, as libc does, and a connection for what is cut short.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::cache::QueryKind;
use super::domain::ResolverDomain;
use super::name_lookup;
use super::server::NameserverContext;
use super::{DnsRecords, NameError, reverse};
use crate::labels::DnsRoute;
use crate::target::Name;

const ROUTE: DnsRoute = DnsRoute::System;
const ASKED: &str = "this host's resolver";

impl NameserverContext {
    /// This host's resolvers as resolv.conf(5) names them now.
    pub(super) async fn own_resolvers(
        self: &Arc<Self>,
        name: &Name,
        listeners: &[SocketAddr],
    ) -> Result<ResolverDomain, NameError> {
        let resolvers = self.system.other_resolvers(listeners).await;
        if resolvers.is_empty() {
            let why = "/etc/resolv.conf names no nameserver but this gateway".to_owned();
            return Err(all_failed(name, why));
        }
        Ok(ResolverDomain::of_system(&resolvers, self))
    }

    /// Asks them, and remembers nothing: they do.
    pub(super) async fn ask_own_resolvers(
        self: &Arc<Self>,
        name: &Name,
        kind: QueryKind,
        listeners: &[SocketAddr],
    ) -> Result<DnsRecords, NameError> {
        let nobody =
            || NameError::NotFound { name: name.clone(), route: ROUTE, asked: ASKED.to_owned() };
        if reverse::is_reserved(name) {
            return Err(nobody());
        }
        let domain = self.own_resolvers(name, listeners).await?;
        let hosts = HashMap::new();
        let looking = name_lookup::look_up(&domain, &hosts, name, kind);
        match tokio::time::timeout(self.timeout, looking).await {
            Ok(Ok((Some(found), life))) => {
                Ok(DnsRecords::of_lookup(found, life.unwrap_or_default(), ROUTE))
            }
            Ok(Ok((None, _))) => Err(nobody()),
            Ok(Err(all)) => Err(all_failed(name, all.0)),
            Err(_) => {
                let asked = domain.nameserver_labels().join(", ");
                let (name, after) = (name.clone(), self.timeout);
                Err(NameError::Timeout { name, route: ROUTE, asked, after })
            }
        }
    }
}

fn all_failed(name: &Name, why: String) -> NameError {
    NameError::Failed { name: name.clone(), route: ROUTE, asked: ASKED.to_owned(), why }
}
