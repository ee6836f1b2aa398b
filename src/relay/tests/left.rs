//! C6: a FIN is held back for a client that waits for its answer, not for one that has left.
#![forbid(unsafe_code)]

use super::*;
use crate::relay::RelayEnd;

fn deferring() -> Choice {
    Choice { half_close: HalfClose::Defer, ..Choice::default() }
}

#[tokio::test]
async fn c6_a_client_that_closes_has_its_fin_passed_on_at_once() {
    for _ in 0..50 {
        let bench = deferring().start().await;
        let (mut client, mut origin) = (bench.client, bench.origin);
        client.write_all(b"bye").await.unwrap();
        let began = std::time::Instant::now();
        drop(client);
        assert_eq!(soon("all and FIN", read_all(&mut origin)).await.unwrap(), b"bye");
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        drop(origin);
        assert_eq!(soon("the relay", bench.relay).await.unwrap().ended, RelayEnd::FinFin);
    }
}

#[tokio::test]
async fn c6_a_half_closed_client_that_closes_later_is_noticed() {
    let bench = deferring().start().await;
    let (mut client, mut origin) = (bench.client, bench.origin);
    client.shutdown().await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(1_300), origin.read(&mut [0])).await;
    assert!(early.is_err(), "it still waits for its answer: {early:?}");
    origin.write_all(b"ans").await.unwrap();
    soon("the answer", client.read_exact(&mut [0; 3])).await.unwrap();
    drop(client);
    assert_eq!(soon("FIN", origin.read(&mut [0])).await.unwrap(), 0);
    drop(origin);
    assert_eq!(soon("the relay", bench.relay).await.unwrap().ended, RelayEnd::FinFin);
}

#[tokio::test]
async fn looking_after_a_held_back_fin_disturbs_no_download() {
    let bench = deferring().start().await;
    let (mut client, mut origin) = (bench.client, bench.origin);
    client.shutdown().await.unwrap();
    let writer = tokio::spawn(async move {
        for _ in 0..30 {
            origin.write_all(&[7; 100_000]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await; // across the second look
        }
    });
    let got = soon("the download", read_all(&mut client)).await.unwrap();
    assert_eq!(got.len(), 3_000_000);
    writer.await.unwrap();
    assert_eq!(soon("the relay", bench.relay).await.unwrap().ended, RelayEnd::FinFin);
}
