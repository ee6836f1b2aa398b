//! An inspector holds up the client's first bytes, and nothing else.
#![forbid(unsafe_code)]

use std::sync::Mutex;

use super::*;
use crate::relay::{INSPECTION_TIME, RelayEnd};

/// How many bytes an inspector was shown, and whether that was all there will be; in order.
type Shown = Arc<Mutex<Vec<(usize, bool)>>>;

/// Passes once it has seen `enough` bytes.
fn passing_after(enough: usize) -> (Option<Script>, Shown) {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&shown);
    let script = move |bytes: &[u8], over| {
        seen.lock().unwrap().push((bytes.len(), over));
        if bytes.len() < enough { InspectionVerdict::More } else { InspectionVerdict::Pass }
    };
    (Some(Script(Box::new(script))), shown)
}

fn refusing() -> Option<Script> {
    Some(Script(Box::new(|_, _| InspectionVerdict::Refuse)))
}

#[tokio::test]
async fn what_was_held_goes_on_first_and_once() {
    for mode in MODES {
        for early in [&b""[..], b"ab"] {
            let (inspector, shown) = passing_after(4);
            let early_up = Bytes::from_static(early);
            let bench = Choice { inspector, early_up, ..mode.bench() }.start().await;
            let (mut client, mut origin) = (bench.client, bench.origin);
            let bytes = noise(1, 300_000);
            for byte in &bytes[early.len()..3] {
                client.write_all(&[*byte]).await.unwrap();
                origin.write_all(b"!").await.unwrap();
                soon("the other way", client.read_exact(&mut [0])).await.unwrap();
            }
            let mut byte = [0];
            let waits = tokio::time::timeout(Duration::from_millis(50), origin.read(&mut byte));
            assert!(waits.await.is_err(), "nothing has gone on: {:?}", shown.lock().unwrap());
            let rest = bytes[3..].to_vec();
            let writer = tokio::spawn(async move {
                client.write_all(&rest).await.unwrap();
                client.shutdown().await.unwrap();
                client
            });
            let got = soon("all of it", read_all(&mut origin)).await.unwrap();
            let sent = [early, &bytes[early.len()..]].concat();
            assert_eq!(sha(&got), sha(&sent), "{mode:?}");
            drop((origin, soon("the writer", writer).await.unwrap()));
            let relayed = soon("the relay", bench.relay).await.unwrap();
            assert_eq!((relayed.ended, relayed.up), (RelayEnd::FinFin, 300_000));
            let shown = shown.lock().unwrap();
            assert!(shown.iter().filter(|(bytes, _)| *bytes >= 4).count() == 1, "{shown:?}");
        }
    }
}

#[tokio::test]
async fn the_server_may_speak_first_and_end_before_the_client_has_said_a_byte() {
    let (inspector, shown) = passing_after(1);
    let bench = Choice { inspector, ..Choice::default() }.start().await;
    let (mut client, mut origin) = (bench.client, bench.origin);
    origin.write_all(b"220 ready").await.unwrap();
    origin.shutdown().await.unwrap();
    assert_eq!(soon("the greeting", read_all(&mut client)).await.unwrap(), b"220 ready");
    client.write_all(b"QUIT").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(soon("the word", read_all(&mut origin)).await.unwrap(), b"QUIT");
    assert_eq!(soon("the relay", bench.relay).await.unwrap().ended, RelayEnd::FinFin);
    assert_eq!(*shown.lock().unwrap(), [(4, false)]);
}

#[tokio::test]
async fn a_fin_passes_what_an_inspector_wanted_more_of() {
    for sent in [&b""[..], b"abc"] {
        let (inspector, shown) = passing_after(9);
        let bench = Choice { inspector, ..Choice::default() }.start().await;
        let (mut client, mut origin) = (bench.client, bench.origin);
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(soon("what came", read_all(&mut origin)).await.unwrap(), sent);
        drop(origin);
        assert_eq!(soon("the relay", bench.relay).await.unwrap().ended, RelayEnd::FinFin);
        assert_eq!(shown.lock().unwrap().last(), Some(&(sent.len(), true)));
    }
}

#[tokio::test]
async fn an_inspection_has_three_seconds_from_the_first_byte_on() {
    let (inspector, shown) = passing_after(9);
    let bench = Choice { inspector, ..Choice::default() }.start().await;
    let (mut client, mut origin) = (bench.client, bench.origin);
    client.write_all(b"ab").await.unwrap();
    let began = std::time::Instant::now();
    soon("what came", origin.read_exact(&mut [0; 2])).await.unwrap();
    assert!((INSPECTION_TIME.mul_f64(0.9)..INSPECTION_TIME * 2).contains(&began.elapsed()));
    assert_eq!(*shown.lock().unwrap(), [(2, false), (2, true)]);
    client.write_all(b"cd").await.unwrap();
    soon("the rest", origin.read_exact(&mut [0; 2])).await.unwrap();
}

#[tokio::test]
async fn a_refusing_inspector_lets_nothing_through_and_leaves_the_client_to_be_told() {
    for early in [&b""[..], b"early"] {
        let early_up = Bytes::from_static(early);
        let bench = Choice { inspector: refusing(), early_up, ..Choice::default() }.start().await;
        let (mut client, mut origin) = (bench.client, bench.origin);
        client.write_all(b"bad").await.unwrap();
        let (got, end) = soon("the origin's end", read_until_end(&mut origin)).await;
        assert!(got.is_empty() && was_reset(&end), "{got:?} {end:?}");
        let relayed = soon("the relay", bench.relay).await.unwrap();
        assert_eq!((relayed.ended, relayed.up, relayed.lost), (RelayEnd::Refused, 0, 0));
    }
}
