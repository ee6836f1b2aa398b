//! This host's resolver: the hosts file, then `getaddrinfo(3)`, on tokio's blocking threads,
//! bounded and coalesced.
//!
//! An /etc/resolv.conf that is replaced counts from the next question on (docs/requirements.md, D11):
//! glibc looks at the file's inode and times for each (since 2.26), musl reads it for each. What it
//! answers carries no time to live and is not remembered.
#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::query_coalescer::QueryCoalescer;
use super::{NameError, hosts};
use crate::labels::DnsRoute;
use crate::target::Name;

/// Questions under way at once (docs/requirements.md, D10); the rest wait.
const IN_FLIGHT: usize = 64;
/// The metric's `route`, and who was asked.
const ROUTE: DnsRoute = DnsRoute::System;
const ASKED: &str = "this host's resolver";

/// Where libc reads whom to ask, always at this port (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;

pub(super) type AddressAnswer = Result<Vec<IpAddr>, NameError>;

pub(super) struct SystemResolver {
    timeout: Duration,
    in_flight: Arc<Semaphore>,
    questions: QueryCoalescer<Name, AddressAnswer>,
}

impl SystemResolver {
    pub(super) fn new(timeout: Duration) -> Self {
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        Self { timeout, in_flight, questions: QueryCoalescer::default() }
    }

    /// Asks once, however many want to know at the same time.
    pub(super) async fn lookup_addresses(&self, name: &Name) -> AddressAnswer {
        self.questions.ask_once(name, || self.make_question(name.clone())).await
    }

    /// Whether a DNS client that asks one of `listeners` for `name` may be our own resolver, which was
    /// told to ask there: the question would wait for itself.
    pub(super) async fn asks_itself(&self, name: &Name, listeners: &[SocketAddr]) -> bool {
        self.questions.is_asked(name) && names_one_of(&resolv_conf().await, listeners)
    }

    /// Who is asked for what getaddrinfo(3) does not ask for; none of `listeners`, which are ourselves.
    pub(super) async fn other_resolvers(&self, listeners: &[SocketAddr]) -> Vec<SocketAddr> {
        resolvers_but_us(&resolv_conf().await, listeners)
    }

    fn make_question(&self, name: Name) -> impl Future<Output = AddressAnswer> + Send + 'static {
        let (after, in_flight) = (self.timeout, Arc::clone(&self.in_flight));
        async move {
            let answer = tokio::time::timeout(after, look_up(&name, in_flight)).await;
            answer.unwrap_or_else(|_| {
                Err(NameError::Timeout { name, route: ROUTE, asked: ASKED.to_owned(), after })
            })
        }
    }
}

async fn look_up(name: &Name, in_flight: Arc<Semaphore>) -> AddressAnswer {
    let failed = |why: String| NameError::Failed {
        name: name.clone(),
        route: ROUTE,
        asked: ASKED.to_owned(),
        why,
    };
    let permit = in_flight.acquire_owned().await;
    let permit = permit.map_err(|closed| failed(closed.to_string()))?;
    let asked = name.clone();
    let looked_up = tokio::spawn(async move {
        // The permit stays with the question: a blocking thread cannot be called back.
        let _permit = permit;
        find_addresses(asked).await
    });
    match looked_up.await {
        Ok(Ok(found)) => without_duplicates(name, found.into_iter()),
        Ok(Err(error)) if not_found(&error) => Err(no_address(name)),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// The hosts file, then the resolver; a bare name is the resolver's alone, which reads both.
async fn find_addresses(name: Name) -> io::Result<Vec<IpAddr>> {
    if name.as_str().contains('.') {
        let asked = name.clone();
        let read = tokio::task::spawn_blocking(move || {
            hosts::read_addresses(Path::new(hosts::PATH), &asked)
        });
        let known = read.await.map_err(io::Error::other)??;
        if !known.is_empty() {
            return Ok(known);
        }
    }
    #[allow(clippy::disallowed_methods, reason = "the one place names are asked")]
    let found = tokio::net::lookup_host((absolute_name(&name), 0)).await?;
    Ok(found.map(|address: SocketAddr| address.ip()).collect())
}

/// Whether a resolv.conf(5) names one of these as a nameserver.
fn names_one_of(file: &str, listeners: &[SocketAddr]) -> bool {
    parse_nameservers(file).any(|ip| is_ours(ip, listeners))
}

/// Whether a question to `ip` would come to one of `listeners`.
fn is_ours(ip: IpAddr, listeners: &[SocketAddr]) -> bool {
    let at_dns = listeners.iter().filter(|own| own.port() == DNS_PORT);
    at_dns
        .map(|own| own.ip().to_canonical())
        .any(|own| own == ip || (own.is_unspecified() && ip.is_loopback()))
}

fn parse_nameservers(file: &str) -> impl Iterator<Item = IpAddr> {
    let words = file.lines().map(|line| line.split_ascii_whitespace());
    let servers =
        words.filter_map(|mut words| (words.next()? == "nameserver").then(|| words.next()));
    servers.flatten().filter_map(|text| text.parse().ok())
}

/// This host's resolvers but for ourselves, as libc takes them: the first three (MAXNS of <resolv.h>).
fn resolvers_but_us(file: &str, listeners: &[SocketAddr]) -> Vec<SocketAddr> {
    let named = parse_nameservers(file).filter(|ip| !is_ours(*ip, listeners));
    named.take(3).map(|ip| SocketAddr::new(ip, DNS_PORT)).collect()
}

async fn resolv_conf() -> String {
    let read = || std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

/// A dotted name is asked as it stands: the trailing dot keeps search domains away (D8).
fn absolute_name(name: &Name) -> String {
    let text = name.as_str();
    if text.contains('.') { format!("{text}.") } else { text.to_owned() }
}

fn without_duplicates(name: &Name, found: impl Iterator<Item = IpAddr>) -> AddressAnswer {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in found.map(|ip| ip.to_canonical()) {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    if addresses.is_empty() {
        return Err(no_address(name));
    }
    Ok(addresses)
}

fn no_address(name: &Name) -> NameError {
    NameError::NotFound { name: name.clone(), route: ROUTE, asked: ASKED.to_owned() }
}

/// std turns getaddrinfo's code into text only: glibc's and musl's words for "no such name".
fn not_found(error: &io::Error) -> bool {
    const WORDS: [&str; 4] = [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
        "Name has no usable address",
    ];
    let text = error.to_string();
    WORDS.iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn d8_search_domains_stay_away_from_dotted_names() {
        assert_eq!(absolute_name(&name("db.corp.example")), "db.corp.example.");
        assert_eq!(absolute_name(&name("db")), "db");
    }

    #[test]
    fn our_own_dns_server_is_known_in_resolv_conf() {
        let ours: Vec<SocketAddr> =
            ["127.0.0.1:1055", "127.0.0.1:53"].map(|at| at.parse().unwrap()).into();
        let file = "# nameserver 10.0.0.1\nsearch x\nnameserver\nnameserver ::1\n";
        assert!(!names_one_of(file, &ours));
        assert!(names_one_of(&format!("{file}nameserver\t127.0.0.1\n"), &ours));
        assert!(!names_one_of("nameserver 127.0.0.1\n", &ours[..1]));
        assert!(names_one_of("nameserver 127.0.0.53\n", &["0.0.0.0:53".parse().unwrap()]));
        let others = resolvers_but_us("nameserver 127.0.0.1\nnameserver 10.0.0.1\n", &ours);
        assert_eq!(others, ["10.0.0.1:53".parse().unwrap()]);
    }

    #[tokio::test]
    async fn localhost_is_found_and_nothing_stays_behind() {
        let system = SystemResolver::new(Duration::from_secs(3));
        let name = name("localhost");
        let (first, second) =
            tokio::join!(system.lookup_addresses(&name), system.lookup_addresses(&name));
        assert_eq!(first, second);
        assert!(first.unwrap().iter().all(IpAddr::is_loopback));
        assert_eq!(system.questions.len(), 0);
    }

    #[tokio::test]
    async fn d3_no_answer_in_time_is_a_timeout() {
        let after = Duration::from_millis(20);
        let system = SystemResolver::new(after);
        let _all = Arc::clone(&system.in_flight).acquire_many_owned(64).await.unwrap();
        let name = name("db.corp.example");
        let asked = ASKED.to_owned();
        let late = NameError::Timeout { name: name.clone(), route: ROUTE, asked, after };
        assert_eq!(system.lookup_addresses(&name).await, Err(late));
        assert_eq!(system.questions.len(), 0);
    }
}
