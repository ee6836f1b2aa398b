//! The pool: bounds, clean pipes only, nothing kept while idle; and the size of a relay.
#![forbid(unsafe_code)]

use super::*;
use crate::labels::SpliceFallback;
use crate::relay::pipe_pool::PipeLease;

#[test]
fn a_relay_is_small_while_idle() {
    fn size<F: Future>(_: impl FnOnce() -> F) -> usize {
        std::mem::size_of::<F>()
    }
    let relay = size(|| async {
        let (_, client) = pair(None).await;
        let (_, upstream) = pair(None).await;
        let settings = RelaySettings {
            idle: Duration::ZERO,
            half_close_timeout: Duration::ZERO,
            splice: Arc::default(),
            upstream_process: Arc::default(),
        };
        let (pool, meter, cut) = (PipePool::new(0, 0), Meter::default(), Cut::new());
        let run = super::super::relay_streams(
            &client,
            &upstream,
            Bytes::new(),
            Bytes::new(),
            None,
            HalfClose::Defer,
            &settings,
            &pool,
            &meter,
            &cut,
        );
        assert!(std::mem::size_of_val(&run) <= 1_024, "{} bytes", std::mem::size_of_val(&run));
        run.await
    });
    assert!(relay > 0);
}

async fn filled(pool: &Arc<PipePool>, bytes: &[u8]) -> PipeLease {
    let (mut peer, ours) = pair(None).await;
    peer.write_all(bytes).await.unwrap();
    ours.readiness().readable().await.unwrap().retain_ready();
    let mut lease = pool.take().unwrap();
    assert_eq!(lease.fill_from(&ours).unwrap(), bytes.len());
    lease
}

#[tokio::test]
async fn m9_a_pipe_with_bytes_in_it_is_never_used_again() {
    let pool = PipePool::new(2, 0);
    for round in 0..1_000 {
        let canary = format!("canary {round}");
        drop(filled(&pool, canary.as_bytes()).await);
        let next = pool.take().unwrap();
        assert_eq!((next.len(), next.really_in_it()), (0, 0), "round {round}");
    }
    assert_eq!(pool.in_use(), 0);
}

#[tokio::test]
async fn a_clean_pipe_is_used_again_and_closed_when_nobody_wants_it() {
    let pool = PipePool::new(1, 1);
    drop(pool.take().unwrap());
    let lease = pool.take().unwrap();
    assert_eq!(pool.in_use(), 1);
    assert!(pool.take().is_none(), "the bound holds");
    drop(lease);
    let closed = async {
        while pool.open_now() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the idle pipe to be closed", closed).await;
    assert!(pool.take().is_some(), "and a new one can be had");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r4_no_pipe_to_be_had_means_copy_and_a_count() {
    let choice = Choice { pipes: PipePool::new(0, 0), ..Choice::default() };
    let bench = choice.start().await;
    let (client, mut origin) = (bench.client, bench.origin);
    let writer = tokio::spawn(write_in_chunks(client, noise(8, 2 << 20), 5));
    let got = soon("the bytes", read_all(&mut origin)).await.unwrap();
    assert_eq!(sha(&got), sha(&noise(8, 2 << 20)));
    writer.await.unwrap();
    assert_eq!(bench.pipes.fallback_count(SpliceFallback::Pipe), 1, "once a direction");
}

#[tokio::test]
async fn bytes_come_back_out_of_a_pipe_whose_sink_refuses_it() {
    let pool = PipePool::new(1, 0);
    let mut lease = filled(&pool, b"not lost").await;
    assert_eq!(lease.take_bytes().unwrap(), b"not lost");
    assert_eq!(lease.len(), 0);
}
