//! This host's resolver: `getaddrinfo(3)` on tokio's blocking threads, bounded and coalesced.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};

use super::NameError;
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
        let question = Arc::clone(self.questions().entry(name.clone()).or_default());
        let answer = question.get_or_init(|| self.ask(name)).await.clone();
        let mut questions = self.questions();
        if questions.get(name).is_some_and(|held| Arc::ptr_eq(held, &question)) {
            questions.remove(name);
        }
        answer
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
        let question = question(name);
        let looked_up = tokio::spawn(async move {
            // The permit stays with the question: a blocking thread cannot be called back.
            let _permit = permit;
            #[allow(clippy::disallowed_methods, reason = "the one place names are asked")]
            tokio::net::lookup_host((question, 0)).await.map(Vec::from_iter)
        });
        match looked_up.await {
            Ok(Ok(found)) => distinct(name, found.into_iter().map(|address| address.ip())),
            Ok(Err(error)) if not_found(&error) => Err(NameError::NotFound { name: name.clone() }),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }
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
}
