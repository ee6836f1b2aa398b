//! Happy eyeballs (RFC 8305): several addresses, the first to answer wins.
#![forbid(unsafe_code)]

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::UpstreamError;

/// Head start of an address over the next (RFC 8305 section 8), unless there are so many that the
/// last ones would not be tried in time.
const STAGGER: Duration = Duration::from_millis(250);

type DialAttempt<'a, T> = Pin<Box<dyn Future<Output = Result<T, UpstreamError>> + Send + 'a>>;

/// Attempts the addresses one after the other, each 250 ms after the one before or at once when
/// that one failed; the first success drops the others. The last of many begins no later than after
/// three quarters of `limit` (docs/requirements.md, D6).
///
/// # Errors
/// The most telling failure of all; [`UpstreamError::NoAddress`] when there is nothing to attempt.
pub(super) async fn race_addresses<'a, T, F, Fut>(
    addresses: &[SocketAddr],
    limit: Duration,
    attempt: F,
) -> Result<T, UpstreamError>
where
    F: Fn(SocketAddr) -> Fut,
    Fut: Future<Output = Result<T, UpstreamError>> + Send + 'a,
{
    if let [only] = addresses {
        return attempt(*only).await;
    }
    let number = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let stagger = STAGGER.min(limit * 3 / 4 / number);
    let mut waiting = interleave_families(addresses).into_iter();
    let mut running: Vec<DialAttempt<'a, T>> = Vec::new();
    let mut failure = UpstreamError::NoAddress;
    loop {
        match waiting.next() {
            Some(address) => running.push(Box::pin(attempt(address))),
            None if running.is_empty() => return Err(failure),
            None => {}
        }
        let head_start = async {
            match waiting.len() {
                0 => std::future::pending().await,
                _ => tokio::time::sleep(stagger).await,
            }
        };
        let ended = tokio::select! {
            ended = poll_fn(|cx| poll_first(&mut running, cx)) => ended,
            () = head_start => continue,
        };
        match ended {
            Err(error) if error.is_final() => return Err(error),
            Err(error) if rank_of(&error) >= rank_of(&failure) => failure = error,
            Err(_less_telling) => {}
            won => return won,
        }
    }
}

/// Polls all; the first that ended is taken out.
fn poll_first<T>(
    running: &mut Vec<DialAttempt<'_, T>>,
    cx: &mut Context<'_>,
) -> Poll<Result<T, UpstreamError>> {
    for at in 0..running.len() {
        if let Poll::Ready(result) = running[at].as_mut().poll(cx) {
            drop(running.swap_remove(at));
            return Poll::Ready(result);
        }
    }
    Poll::Pending
}

/// Families in turn, the resolver's first one first (RFC 8305 section 4).
fn interleave_families(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.iter().partition(|address| address.is_ipv6() == first_is_v6);
    let longest = first.len().max(second.len());
    (0..longest).flat_map(|at| [first.get(at), second.get(at)]).flatten().copied().collect()
}

/// An upstream that says no without a reason, but sooner than this, has heard from the far side:
/// tailscaled waits 5 s for silent ones (net/socks5/socks5.go).
const PROMPT: Duration = Duration::from_secs(4);

/// An answer from the host says more than silence, and silence more than a routing table.
fn rank_of(error: &UpstreamError) -> u8 {
    match error {
        UpstreamError::NoAddress => 0,
        UpstreamError::NoRoute | UpstreamError::Outside { .. } | UpstreamError::Dial { .. } => 1,
        UpstreamError::HostUnreachable => 2,
        UpstreamError::Failed { after, .. } if *after < PROMPT => 4,
        UpstreamError::Refused => 5,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(7);

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_take_turns() {
        let list = ["[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "192.0.2.1:1"].map(at);
        assert_eq!(interleave_families(&list), [list[0], list[3], list[1], list[2]]);
        assert_eq!(interleave_families(&[]), []);
    }

    #[tokio::test]
    async fn d6_a_dead_first_address_costs_the_stagger_only() {
        let begun = Instant::now();
        let list = ["192.0.2.1:1", "192.0.2.2:1"].map(at);
        let won = race_addresses(&list, LIMIT, |address| async move {
            if address == at("192.0.2.1:1") {
                sleep(Duration::from_secs(60)).await;
            }
            Ok(address)
        });
        assert_eq!(won.await.unwrap(), list[1]);
        assert!((STAGGER..STAGGER * 8).contains(&begun.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn d6_the_last_of_many_is_tried_in_time() {
        let begun = Instant::now();
        let list: Vec<_> = (1..=64).map(|last| at(&format!("192.0.2.{last}:1"))).collect();
        let won = race_addresses(&list, LIMIT, |address| async move {
            if address != at("192.0.2.64:1") {
                std::future::pending::<()>().await;
            }
            Ok(address)
        });
        assert_eq!(won.await.unwrap(), list[63]);
        assert!(begun.elapsed() < LIMIT * 3 / 4, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_failure_starts_the_next_at_once_and_the_most_telling_one_is_told() {
        let begun = Instant::now();
        let list = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"].map(at);
        let lost = race_addresses(&list, LIMIT, |address| async move {
            match address.ip().to_string().as_str() {
                "192.0.2.2" => Err::<(), _>(UpstreamError::Refused),
                _ => Err(UpstreamError::NoRoute),
            }
        });
        assert!(matches!(lost.await, Err(UpstreamError::Refused)));
        assert!(begun.elapsed() < STAGGER);
    }

    #[test]
    fn a_prompt_no_says_more_than_a_late_one() {
        let failed = |seconds| UpstreamError::Failed {
            rep: 1,
            words: None,
            address: None,
            after: Duration::from_secs(seconds),
        };
        let rising = [
            UpstreamError::NoAddress,
            UpstreamError::Outside { address: None },
            UpstreamError::HostUnreachable,
            failed(5),
            failed(0),
            UpstreamError::Refused,
        ];
        assert!(rising.is_sorted_by_key(rank_of));
        assert!(rank_of(&failed(5)) < rank_of(&failed(0)));
    }

    #[tokio::test]
    async fn nothing_to_attempt_is_said() {
        let lost = race_addresses(&[], LIMIT, |_| async { Ok(()) }).await;
        assert!(matches!(lost, Err(UpstreamError::NoAddress)));
    }
}
