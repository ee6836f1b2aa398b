//! This host's resolver: the hosts file, then `getaddrinfo(3)`, on tokio's blocking threads,
//! bounded and coalesced.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};

use super::{NameError, hosts};
use crate::target::Name;

/// Questions under way at once (reliability.md D10); the rest wait.
const IN_FLIGHT: usize = 64;

type Answer = Result<Vec<IpAddr>, NameError>;
type Question = Arc<OnceCell<Answer>>;

#[derive(Debug)]
pub(super) struct System {
    timeout: Duration,
    in_flight: Arc<Semaphore>,
    asked: Mutex<HashMap<Name, Question>>,
}

impl System {
    pub(super) fn new(timeout: Duration) -> Self {
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        Self { timeout, in_flight, asked: Mutex::default() }
    }

    /// Asks once, however many want to know at the same time.
    pub(super) async fn addresses(&self, name: &Name) -> Answer {
        let asking = Asking::join(self, name);
        asking.question.get_or_init(|| self.ask(name)).await.clone()
    }

    fn questions(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Question>> {
        // A panic between the map's operations cannot leave it half changed.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, name: &Name) -> Answer {
        let late = || NameError::Timeout { name: name.clone(), after: self.timeout };
        let answer = tokio::time::timeout(self.timeout, self.look_up(name));
        answer.await.unwrap_or_else(|_| Err(late()))
    }

    async fn look_up(&self, name: &Name) -> Answer {
        let failed = |why: String| NameError::Failed { name: name.clone(), why };
        let permit = Arc::clone(&self.in_flight).acquire_owned().await;
        let permit = permit.map_err(|closed| failed(closed.to_string()))?;
        let asked = name.clone();
        let looked_up = tokio::spawn(async move {
            // The permit stays with the question: a blocking thread cannot be called back.
            let _permit = permit;
            find(asked).await
        });
        match looked_up.await {
            Ok(Ok(found)) => distinct(name, found.into_iter()),
            Ok(Err(error)) if not_found(&error) => Err(NameError::NotFound { name: name.clone() }),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// One who waits for an answer. The last to go, answered or not, takes the question away.
struct Asking<'a> {
    system: &'a System,
    name: &'a Name,
    question: Question,
}

impl<'a> Asking<'a> {
    fn join(system: &'a System, name: &'a Name) -> Self {
        let question = Arc::clone(system.questions().entry(name.clone()).or_default());
        Self { system, name, question }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut questions = self.system.questions();
        let Some(held) = questions.get(self.name) else { return };
        // Answered: who comes now asks anew. Not answered: held by the map and us means only us.
        let last = held.initialized() || Arc::strong_count(held) == 2;
        if last && Arc::ptr_eq(held, &self.question) {
            questions.remove(self.name);
        }
    }
}

/// The hosts file, then the resolver; a bare name is the resolver's alone, which reads both.
async fn find(name: Name) -> io::Result<Vec<IpAddr>> {
    if name.as_str().contains('.') {
        let asked = name.clone();
        let read = tokio::task::spawn_blocking(move || hosts::read(Path::new(hosts::PATH), &asked));
        let known = read.await.map_err(io::Error::other)??;
        if !known.is_empty() {
            return Ok(known);
        }
    }
    #[allow(clippy::disallowed_methods, reason = "the one place names are asked")]
    let found = tokio::net::lookup_host((question(&name), 0)).await?;
    Ok(found.map(|address: SocketAddr| address.ip()).collect())
}

/// A dotted name is asked as it stands: the trailing dot keeps search domains away (D8).
fn question(name: &Name) -> String {
    let text = name.as_str();
    if text.contains('.') { format!("{text}.") } else { text.to_owned() }
}

fn distinct(name: &Name, found: impl Iterator<Item = IpAddr>) -> Answer {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in found.map(|ip| ip.to_canonical()) {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    if addresses.is_empty() {
        return Err(NameError::NotFound { name: name.clone() });
    }
    Ok(addresses)
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
        assert_eq!(question(&name("db.corp.example")), "db.corp.example.");
        assert_eq!(question(&name("db")), "db");
    }

    #[tokio::test]
    async fn localhost_is_found_and_nothing_stays_behind() {
        let system = System::new(Duration::from_secs(3));
        let name = name("localhost");
        let (first, second) = tokio::join!(system.addresses(&name), system.addresses(&name));
        assert_eq!(first, second);
        assert!(first.unwrap().iter().all(IpAddr::is_loopback));
        assert!(system.questions().is_empty());
    }

    /// One poll, as a client that then vanishes gives it.
    async fn polled_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        tokio::select! {
            biased;
            answer = future => Some(answer),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn r17_who_leaves_before_the_answer_leaves_nothing_behind() {
        let system = System::new(Duration::from_secs(3));
        let all = Arc::clone(&system.in_flight).acquire_many_owned(64).await.unwrap();
        let name = name("localhost");
        let mut first = Box::pin(system.addresses(&name));
        let mut second = Box::pin(system.addresses(&name));
        assert!(polled_once(first.as_mut()).await.is_none());
        assert!(polled_once(second.as_mut()).await.is_none());
        drop(first);
        assert_eq!(system.questions().len(), 1);
        drop(all);
        assert!(second.await.is_ok());
        let _all = Arc::clone(&system.in_flight).acquire_many_owned(64).await.unwrap();
        let mut left = Box::pin(system.addresses(&name));
        assert!(polled_once(left.as_mut()).await.is_none());
        drop(left);
        assert!(system.questions().is_empty());
    }

    #[tokio::test]
    async fn d3_no_answer_in_time_is_a_timeout() {
        let after = Duration::from_millis(20);
        let system = System::new(after);
        let _all = Arc::clone(&system.in_flight).acquire_many_owned(64).await.unwrap();
        let name = name("db.corp.example");
        let late = NameError::Timeout { name: name.clone(), after };
        assert_eq!(system.addresses(&name).await, Err(late));
        assert!(system.questions().is_empty());
    }
}
