//! One question for all who want to know the same thing at the same time.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

type SharedQuery<A> = Shared<BoxFuture<'static, A>>;

/// Questions under way, each driven by those who wait for it.
pub(super) struct QueryCoalescer<K, A>(Mutex<HashMap<K, SharedQuery<A>>>);

impl<K, A> Default for QueryCoalescer<K, A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, A: Clone + Send + Sync> QueryCoalescer<K, A> {
    /// The answer to the question about `key` that is under way; `question` starts it when none is.
    pub(super) async fn ask_once<F>(&self, key: &K, question: impl FnOnce() -> F) -> A
    where
        F: Future<Output = A> + Send + 'static,
    {
        let mut asking = self.join_query(key, || question().boxed().shared());
        let answer = asking.question.clone().await;
        asking.answered = true;
        answer
    }

    fn join_query<'a>(
        &'a self,
        key: &'a K,
        question: impl FnOnce() -> SharedQuery<A>,
    ) -> QueryWaiter<'a, K, A> {
        let question = self.under_way().entry(key.clone()).or_insert_with(question).clone();
        QueryWaiter { questions: self, key, question, answered: false }
    }

    /// Whether the question about `key` is under way.
    pub(super) fn is_asked(&self, key: &K) -> bool {
        self.under_way().contains_key(key)
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<K, SharedQuery<A>>> {
        // A panic between the map's operations cannot leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are under way.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.under_way().len()
    }
}

/// One who waits for an answer. The last to go, answered or not, takes the question away.
struct QueryWaiter<'a, K: Clone + Eq + Hash, A: Clone + Send + Sync> {
    questions: &'a QueryCoalescer<K, A>,
    key: &'a K,
    question: SharedQuery<A>,
    answered: bool,
}

impl<K: Clone + Eq + Hash, A: Clone + Send + Sync> Drop for QueryWaiter<'_, K, A> {
    fn drop(&mut self) {
        let mut under_way = self.questions.under_way();
        let Some(held) = under_way.get(self.key) else { return };
        // Answered: who comes now asks anew. Not answered: held by the map and us means only us.
        let last = self.answered || held.strong_count() == Some(2);
        if last && held.ptr_eq(&self.question) {
            under_way.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::target::Name;

    fn name() -> Name {
        Name::parse(b"db.corp.example").unwrap()
    }

    #[tokio::test]
    async fn d10_a_thousand_askers_are_one_question() {
        let (questions, asked) = (QueryCoalescer::default(), AtomicUsize::new(0));
        let (name, gate) = (name(), Arc::new(tokio::sync::Semaphore::new(0)));
        let ask = || {
            questions.ask_once(&name, || {
                let gate = Arc::clone(&gate);
                let number = asked.fetch_add(1, Ordering::Relaxed);
                async move { gate.acquire().await.map(|_| number).map_err(drop) }
            })
        };
        let all = futures_util::future::join_all((0..1000).map(|_| ask()));
        let (answers, ()) = tokio::join!(all, async { gate.add_permits(1) });
        assert!(answers.iter().all(|answer| *answer == Ok(0)));
        assert_eq!(questions.len(), 0);
        assert_eq!(ask().await, Ok(1), "who comes later asks anew");
    }

    #[tokio::test]
    async fn r17_who_leaves_before_the_answer_leaves_nothing_behind() {
        let (questions, name) = (QueryCoalescer::<Name, ()>::default(), name());
        let alive = Arc::new(());
        let question = || {
            let alive = Arc::clone(&alive);
            async move {
                pending::<()>().await;
                drop(alive);
            }
        };
        let mut first = Box::pin(questions.ask_once(&name, question));
        let mut second = Box::pin(questions.ask_once(&name, || ready(())));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none(), "it joins the first one's question");
        drop(first);
        assert_eq!((questions.len(), Arc::strong_count(&alive)), (1, 2));
        drop(second);
        assert_eq!((questions.len(), Arc::strong_count(&alive)), (0, 1));
    }

    #[tokio::test]
    async fn r17_a_question_that_panics_takes_only_its_askers_down() {
        #[allow(clippy::panic, reason = "the case itself")]
        async fn gone() {
            panic!("as a bug would")
        }
        let questions = Arc::new(QueryCoalescer::<Name, ()>::default());
        let asker = Arc::clone(&questions);
        let task = tokio::spawn(async move { asker.ask_once(&name(), gone).await });
        assert!(task.await.is_err());
        assert_eq!(questions.len(), 0);
        questions.ask_once(&name(), || ready(())).await;
    }
}
