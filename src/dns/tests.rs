//! `dns.mode = "tailnet"` against scripted nameservers over real sockets.
#![forbid(unsafe_code)]

mod answers;
mod failures;
mod hostile;
mod https;
mod kinds;
mod many;
mod netmap;
mod records;
mod scripted_nameserver;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::https::TrustStore;
use super::routes::TailnetResolver;
use super::server::NameserverContext;
use super::system::SystemResolver;
use super::{NameError, NameserverAddress, Resolution, TailnetZone};
use crate::labels::DnsRoute;
use crate::target::Name;
use scripted_nameserver::{Standin, Tunnel};

/// Long enough never to be reached by a test that is not about it.
const PATIENT: Duration = Duration::from_secs(30);

fn name(text: &str) -> Name {
    Name::parse(text.as_bytes()).unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A nameserver inside the tailnet, 100.64.0.`n`.
fn inside(n: u8) -> NameserverAddress {
    NameserverAddress::Address(SocketAddr::from(([100, 64, 0, n], 53)))
}

/// A tailnet `lab.ts.net` with one node, whose `corp.example` is known to 100.64.0.1 and up.
fn zone(nameservers: usize) -> TailnetZone {
    let nameservers = (1..=nameservers).map(|n| inside(u8::try_from(n).unwrap())).collect();
    TailnetZone {
        suffix: Some(name("lab.ts.net")),
        hosts: [(name("grafana.lab.ts.net"), ips(&["100.64.0.9", "fd7a:115c:a1e0::9"]))].into(),
        pointers: [([100, 64, 0, 9].into(), name("grafana.lab.ts.net"))].into(),
        routes: vec![(name("corp.example"), nameservers)],
        global: Vec::new(),
    }
}

/// A resolver, and the zone it looks at.
struct Lab {
    zone: Arc<ArcSwap<TailnetZone>>,
    tailnet: Arc<TailnetResolver>,
}

impl Lab {
    /// The stand-ins are 100.64.0.1 and up, and know `corp.example`.
    fn new(standins: &[&Standin]) -> Self {
        Self::of(zone(standins.len()), standins, PATIENT)
    }

    fn of(zone: TailnetZone, standins: &[&Standin], timeout: Duration) -> Self {
        let numbered = (1u8..).zip(standins);
        let tunnel = numbered.map(|(n, s)| (IpAddr::from([100, 64, 0, n]), s.address)).collect();
        Self::trusting(zone, Tunnel(tunnel), timeout, TrustStore::default())
    }

    fn trusting(zone: TailnetZone, tunnel: Tunnel, timeout: Duration, trust: TrustStore) -> Self {
        let system = SystemResolver::new(timeout);
        let outside =
            NameserverContext { way: Some(Arc::new(tunnel)), system, trust, timeout, mark: None };
        let zone = Arc::new(ArcSwap::from_pointee(zone));
        let tailnet = TailnetResolver::new(Arc::clone(&zone), Arc::new(outside), 100);
        Self { zone, tailnet: Arc::new(tailnet) }
    }

    async fn ask(&self, text: &str) -> Result<(Vec<IpAddr>, DnsRoute), NameError> {
        match self.tailnet.resolve(&name(text)).await? {
            Resolution::Addresses { addresses, by } => Ok((addresses, by.dns_route().unwrap())),
            Resolution::Passed(_) => unreachable!("this mode passes nothing on"),
        }
    }
}

/// A whole answer.
fn found(texts: &[&str], by: DnsRoute) -> Result<(Vec<IpAddr>, DnsRoute), NameError> {
    Ok((ips(texts), by))
}
