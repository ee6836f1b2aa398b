//! How relays end: FIN, half-close, reset, silence, cut.
#![forbid(unsafe_code)]

use super::*;
use crate::lifecycle::cut::CutReason;
use crate::relay::RelayEnd;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_the_answer_comes_after_the_clients_fin() {
    for mode in MODES {
        let bench = mode.bench().start().await;
        let (client_read, client_write) = bench.client.into_split();
        let mut origin = bench.origin;
        let writer = tokio::spawn(write_in_chunks(client_write, noise(1, 8 << 20), 2));
        let answer = tokio::spawn(async move {
            let got = read_all(&mut origin).await.unwrap();
            origin.write_all(&noise(2, 1 << 20)).await.unwrap();
            got.len()
        });
        let got = soon("the answer", read_all(client_read)).await.unwrap();
        assert_eq!(sha(&got), sha(&noise(2, 1 << 20)), "{mode:?}");
        assert_eq!(answer.await.unwrap(), 8 << 20);
        writer.await.unwrap();
        assert_eq!(soon("the relay", bench.relay).await.unwrap().ended, RelayEnd::FinFin);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_the_upload_goes_on_after_the_upstreams_fin() {
    for mode in MODES {
        let bench = mode.bench().start().await;
        let (mut client, mut origin) = (bench.client, bench.origin);
        origin.shutdown().await.unwrap();
        assert_eq!(soon("FIN", client.read(&mut [0; 8])).await.unwrap(), 0);
        let writer = tokio::spawn(write_in_chunks(client, noise(6, 16 << 20), 8));
        let got = soon("the upload", read_all(&mut origin)).await.unwrap();
        assert_eq!(sha(&got), sha(&noise(6, 16 << 20)), "{mode:?}");
        writer.await.unwrap();
        assert_eq!(soon("the relay", bench.relay).await.unwrap().ended, RelayEnd::FinFin);
    }
}

#[tokio::test]
async fn a_deferred_fin_waits_for_the_upstreams_end() {
    let bench = Choice { half_close: HalfClose::Defer, ..Choice::default() }.start().await;
    let (mut client, mut origin) = (bench.client, bench.origin);
    client.write_all(b"GET").await.unwrap();
    client.shutdown().await.unwrap();
    let mut request = [0; 3];
    soon("the request", origin.read_exact(&mut request)).await.unwrap();
    let early_fin = tokio::time::timeout(Duration::from_millis(100), origin.read(&mut [0])).await;
    assert!(early_fin.is_err(), "the FIN was passed on: {early_fin:?}");
    origin.write_all(b"answer").await.unwrap();
    origin.shutdown().await.unwrap();
    assert_eq!(soon("the answer", read_all(&mut client)).await.unwrap(), b"answer");
    assert_eq!(soon("FIN at last", origin.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(soon("the relay", bench.relay).await.unwrap().ended, RelayEnd::FinFin);
}

#[tokio::test]
async fn c7_both_fins_at_once() {
    let bench = Mode::Splice.bench().start().await;
    let (mut client, mut origin) = (bench.client, bench.origin);
    client.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
    let relayed = soon("the relay", bench.relay).await.unwrap();
    assert_eq!((relayed.ended, relayed.lost), (RelayEnd::FinFin, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_a_clients_reset_reaches_a_stalled_upstream_and_what_lay_between_is_lost() {
    for mode in MODES {
        let bench = Choice { buffers: Some(16_384), ..mode.bench() }.start().await;
        let (mut client, mut origin) = (bench.client, bench.origin);
        let stuffed = async { while client.write(&[7; 65_536]).await.is_ok() {} };
        let _full = tokio::time::timeout(Duration::from_millis(300), stuffed).await;
        let began = std::time::Instant::now();
        reset(client);
        let relayed = soon("the relay", bench.relay).await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(500), "{mode:?} {:?}", began.elapsed());
        assert_eq!(relayed.ended, RelayEnd::ClientRst, "{mode:?}");
        assert!(relayed.lost > 0, "{mode:?}");
        let (got, end) = soon("the end", read_until_end(&mut origin)).await;
        assert!(was_reset(&end), "{mode:?} {end:?}");
        let got = got.len() as u64;
        assert!(relayed.up <= got, "{mode:?}: {got} arrived, {} counted", relayed.up);
        assert!(relayed.up + relayed.lost >= got, "{mode:?}: {got} arrived, {relayed:?}");
    }
}

/// One download ended by a reset while the other direction is under way, so that either may be the
/// one to hear of it. The client itself only reads by then: its kernel too tells an error once.
async fn reset_while_uploading(mode: Mode, seed: u64) {
    let bench = mode.bench().start().await;
    let (mut client, mut origin) = (bench.client, bench.origin);
    soon("the upload to be on its way", client.write_all(&vec![1; 2 << 20])).await.unwrap();
    let answer = noise(seed, 700 << 10);
    let sender = tokio::spawn(async move {
        let mut state = seed;
        let mut upload = vec![0; next(&mut state) as usize % (2 << 20)];
        origin.read_exact(&mut upload).await.unwrap();
        origin.write_all(&answer).await.unwrap();
        tokio::time::sleep(Duration::from_micros(next(&mut state) % 400)).await;
        reset(origin);
        answer
    });
    let (got, end) = soon("the end", read_until_end(&mut client)).await;
    assert!(was_reset(&end), "seed {seed} {mode:?}: {} bytes, {end:?}", got.len());
    assert!(sender.await.unwrap().starts_with(&got), "seed {seed} {mode:?}");
    assert_eq!(soon("the relay", bench.relay).await.unwrap().ended, RelayEnd::UpstreamRst);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c9_c10_m5_an_upstreams_reset_stays_a_reset_five_hundred_times() {
    for round in 0..500 {
        reset_while_uploading(MODES[round % 3], round as u64 + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c9_what_was_read_before_the_reset_arrives() {
    for mode in MODES {
        let bench = mode.bench().start().await;
        let (mut client, mut origin) = (bench.client, bench.origin);
        let bytes = noise(12, 700 << 10);
        origin.write_all(&bytes).await.unwrap();
        let passed_on = async {
            while bench.meter.down() < 700 << 10 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        soon("the bytes to be passed on", passed_on).await;
        reset(origin);
        let (got, end) = soon("the end", read_until_end(&mut client)).await;
        assert!(was_reset(&end), "{mode:?} {end:?}");
        assert_eq!(sha(&got), sha(&bytes), "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c11_m3_the_tail_arrives_after_a_pause() {
    for mode in MODES {
        let bench = Choice { buffers: Some(32_768), ..mode.bench() }.start().await;
        let (mut client, origin) = (bench.client, bench.origin);
        let writer = tokio::spawn(write_in_chunks(origin, noise(31, 1 << 20), 3));
        let mut head = vec![0; 500_000];
        soon("the head", client.read_exact(&mut head)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await; // the reader's pause
        let (tail, end) = soon("the tail", read_until_end(&mut client)).await;
        end.unwrap();
        head.extend_from_slice(&tail);
        assert_eq!(sha(&head), sha(&noise(31, 1 << 20)), "{mode:?}");
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn c12_half_closed_then_silent_ends_after_the_linger() {
    let choice = Choice { linger: Duration::from_millis(200), ..Choice::default() };
    let bench = choice.start().await;
    let (mut client, mut origin) = (bench.client, bench.origin);
    client.shutdown().await.unwrap();
    let began = std::time::Instant::now();
    let relayed = soon("the relay", bench.relay).await.unwrap();
    assert_eq!(relayed.ended, RelayEnd::HalfCloseIdle);
    assert!(began.elapsed() >= Duration::from_millis(190), "{:?}", began.elapsed());
    assert_eq!(soon("FIN", origin.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(soon("FIN", client.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn c13_silence_ends_by_fin_and_a_byte_in_time_keeps_it() {
    let bench = Choice { idle: Duration::from_millis(400), ..Choice::default() }.start().await;
    let (mut client, mut origin) = (bench.client, bench.origin);
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.write_all(b".").await.unwrap();
        soon("the byte", origin.read_exact(&mut [0])).await.unwrap();
    }
    let began = std::time::Instant::now();
    let relayed = soon("the relay", bench.relay).await.unwrap();
    assert_eq!((relayed.ended, relayed.up), (RelayEnd::Idle, 4));
    assert!(began.elapsed() >= Duration::from_millis(390), "{:?}", began.elapsed());
    assert_eq!(soon("FIN", client.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(soon("FIN", origin.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_reset_after_a_half_close_is_noticed_without_traffic() {
    let bench = Mode::Splice.bench().start().await;
    let (mut client, mut origin) = (bench.client, bench.origin);
    client.shutdown().await.unwrap();
    assert_eq!(soon("FIN", origin.read(&mut [0])).await.unwrap(), 0);
    reset(client);
    assert_eq!(soon("the relay", bench.relay).await.unwrap().ended, RelayEnd::ClientRst);
    let told = async {
        // After a FIN the kernel keeps answering reads with 0: the error is asked for.
        while origin.take_error().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the upstream to be reset too", told).await;
}

#[tokio::test]
async fn a_cut_resets_both_ways_with_its_reason() {
    for reason in [CutReason::Drained, CutReason::Denied] {
        let bench = Mode::Splice.bench().start().await;
        let (mut client, mut origin) = (bench.client, bench.origin);
        bench.cut.cut(reason);
        assert_eq!(soon("the relay", bench.relay).await.unwrap().ended, RelayEnd::Cut(reason));
        assert!(was_reset(&soon("the end", read_until_end(&mut client)).await.1));
        assert!(was_reset(&soon("the end", read_until_end(&mut origin)).await.1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m12_cut_at_random_points_counts_what_arrived() {
    let mut state = 7;
    for round in 0..60 {
        let bench = Choice { buffers: Some(16_384), ..MODES[round % 3].bench() }.start().await;
        let (client, mut origin) = (bench.client, bench.origin);
        let writer = tokio::spawn(async move {
            let mut client = client;
            while client.write_all(&[9; 30_000]).await.is_ok() {}
        });
        let wait = Duration::from_micros(next(&mut state) % 20_000);
        let cut = bench.cut;
        let cutter = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            cut.cut(CutReason::Drained);
        });
        let mut received = 0;
        let mut buffer = vec![0; 9_000];
        while let Ok(n @ 1..) = origin.read(&mut buffer).await {
            received += n as u64;
            if next(&mut state).is_multiple_of(8) {
                tokio::time::sleep(Duration::from_millis(1)).await; // a stalling reader
            }
        }
        cutter.await.unwrap();
        let relayed = soon("the relay", bench.relay).await.unwrap();
        assert!(relayed.up <= received, "round {round}: {received} arrived, {relayed:?}");
        assert!(relayed.up + relayed.lost >= received, "round {round}: {received}, {relayed:?}");
        assert_eq!(relayed.ended, RelayEnd::Cut(CutReason::Drained));
        soon("the writer", writer).await.unwrap();
    }
}
