//! The relay over a Unix socket, as with LocalAPI: the same bytes, and ends as such sockets have
//! them. There a reset is what closing with unread bytes looks like to the peer.
#![forbid(unsafe_code)]

use tokio::net::UnixStream;

use super::*;
use crate::lifecycle::cut::CutReason;
use crate::relay::RelayEnd;

fn unix() -> (UnixStream, Stream) {
    let (origin, ours) = std::os::unix::net::UnixStream::pair().unwrap();
    for socket in [&origin, &ours] {
        socket.set_nonblocking(true).unwrap();
    }
    (UnixStream::from_std(origin).unwrap(), Stream::new(ours.into()).unwrap())
}

async fn bench(choice: Choice) -> Bench<UnixStream> {
    choice.start_to(unix()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_sizes_both_ways_in_every_mode() {
    let sizes = [0, 1, 4_096, 65_537, (1 << 20) + 1, 9 << 20];
    for mode in MODES {
        for (i, size) in sizes.into_iter().enumerate() {
            let (up, down) = (noise(i as u64 + 1, size), noise(i as u64 + 99, sizes[5 - i]));
            let (sent_up, sent_down) = (sha(&up), sha(&down));
            let bench = bench(mode.bench()).await;
            let (client_read, client_write) = bench.client.into_split();
            let (origin_read, origin_write) = bench.origin.into_split();
            let all = async {
                tokio::join!(
                    write_in_chunks(client_write, up, 11),
                    write_in_chunks(origin_write, down, 23),
                    read_all(origin_read),
                    read_all(client_read),
                )
            };
            let ((), (), got_up, got_down) = soon("both ways", all).await;
            assert_eq!(sha(&got_up.unwrap()), sent_up, "{mode:?} up");
            assert_eq!(sha(&got_down.unwrap()), sent_down, "{mode:?} down");
            let relayed = soon("the relay", bench.relay).await.unwrap();
            assert_eq!((relayed.lost, relayed.ended), (0, RelayEnd::FinFin), "{mode:?} {size}");
            assert_eq!((relayed.up, relayed.down), (size as u64, sizes[5 - i] as u64));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_is_spliced() {
    let bench = bench(Mode::Splice.bench()).await;
    let (client, mut origin) = (bench.client, bench.origin);
    let writer = tokio::spawn(write_in_chunks(client, noise(5, 4 << 20), 1));
    let (mut piece, mut seen) = (vec![0; 64 << 10], 0);
    for _ in 0..64 {
        soon("a piece", origin.read_exact(&mut piece)).await.unwrap();
        seen = seen.max(bench.pipes.in_use());
    }
    assert!(seen > 0, "no pipe was taken for 4 MiB");
    writer.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_the_answer_comes_after_the_clients_fin() {
    for mode in MODES {
        let bench = bench(mode.bench()).await;
        let (mut client, mut origin) = (bench.client, bench.origin);
        client.write_all(b"GET").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(soon("the question", read_all(&mut origin)).await.unwrap(), b"GET");
        let answer = tokio::spawn(write_in_chunks(origin, noise(2, 1 << 20), 3));
        let got = soon("the answer", read_all(&mut client)).await.unwrap();
        assert_eq!(sha(&got), sha(&noise(2, 1 << 20)), "{mode:?}");
        answer.await.unwrap();
        assert_eq!(soon("the relay", bench.relay).await.unwrap().ended, RelayEnd::FinFin);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_in_good_order_is_a_fin_and_the_tail_arrives() {
    for mode in MODES {
        let bench = bench(Choice { buffers: Some(32_768), ..mode.bench() }).await;
        let (mut client, origin) = (bench.client, bench.origin);
        let writer = tokio::spawn(async move {
            let mut origin = origin;
            origin.write_all(&noise(31, 1 << 20)).await.unwrap();
            drop(origin); // both ways at once, as tailscaled does
        });
        let mut head = vec![0; 300_000];
        soon("the head", client.read_exact(&mut head)).await.unwrap();
        let (tail, end) = soon("the tail", read_until_end(&mut client)).await;
        end.unwrap();
        head.extend_from_slice(&tail);
        assert_eq!(sha(&head), sha(&noise(31, 1 << 20)), "{mode:?}");
        writer.await.unwrap();
        drop(client);
        let relayed = soon("the relay", bench.relay).await.unwrap();
        assert_eq!((relayed.ended, relayed.lost), (RelayEnd::FinFin, 0), "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c9_a_close_with_unread_bytes_is_a_reset_after_what_was_sent() {
    for mode in MODES {
        let bench = bench(mode.bench()).await;
        let (mut client, mut origin) = (bench.client, bench.origin);
        client.write_all(b"never read").await.unwrap();
        let bytes = noise(12, 700 << 10);
        origin.write_all(&bytes).await.unwrap();
        let passed_on = async {
            while bench.meter.down() < 700 << 10 || bench.meter.up() < 10 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        soon("the bytes to be passed on", passed_on).await;
        drop(origin);
        let (got, end) = soon("the end", read_until_end(&mut client)).await;
        assert!(was_reset(&end), "{mode:?} {end:?}");
        assert_eq!(sha(&got), sha(&bytes), "{mode:?}");
        assert_eq!(soon("the relay", bench.relay).await.unwrap().ended, RelayEnd::UpstreamRst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c10_an_upstream_gone_during_an_upload_is_a_reset() {
    for round in 0..60 {
        let bench = bench(MODES[round % 3].bench()).await;
        let (mut client, mut origin) = (bench.client, bench.origin);
        let (mut reads, mut writes) = client.split();
        let upload = async { while writes.write_all(&[1; 30_000]).await.is_ok() {} };
        let gone = async move {
            let mut some = vec![0; 1 + round * 9_000];
            origin.read_exact(&mut some).await.unwrap();
            origin.write_all(b"and bye").await.unwrap();
        };
        let ((), (), _the_kernel_tells_reader_or_writer) =
            soon("the end", async { tokio::join!(upload, gone, read_until_end(&mut reads)) }).await;
        let relayed = soon("the relay", bench.relay).await.unwrap();
        assert_eq!(relayed.ended, RelayEnd::UpstreamRst, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_a_clients_reset_ends_both_and_counts_what_was_lost() {
    for mode in MODES {
        let bench = bench(Choice { buffers: Some(16_384), ..mode.bench() }).await;
        let (mut client, mut origin) = (bench.client, bench.origin);
        let stuffed = async { while client.write(&[7; 65_536]).await.is_ok() {} };
        let _full = tokio::time::timeout(Duration::from_millis(300), stuffed).await;
        reset(client);
        let relayed = soon("the relay", bench.relay).await.unwrap();
        assert_eq!(relayed.ended, RelayEnd::ClientRst, "{mode:?}");
        let (got, _end) = soon("the end", read_until_end(&mut origin)).await;
        assert_eq!(relayed.up, got.len() as u64, "{mode:?}: a Unix socket loses nothing it took");
    }
}

#[tokio::test]
async fn silence_and_cuts_end_it_as_ever() {
    let bench = bench(Choice { idle: Duration::from_millis(200), ..Choice::default() }).await;
    assert_eq!(soon("the relay", bench.relay).await.unwrap().ended, RelayEnd::Idle);
    let bench = self::bench(Mode::Splice.bench()).await;
    let (mut client, mut origin) = (bench.client, bench.origin);
    bench.cut.cut(CutReason::Drained);
    let ended = soon("the relay", bench.relay).await.unwrap().ended;
    assert_eq!(ended, RelayEnd::Cut(CutReason::Drained));
    assert!(was_reset(&soon("the end", read_until_end(&mut client)).await.1));
    assert_eq!(soon("the end", origin.read(&mut [0])).await.unwrap(), 0);
}
