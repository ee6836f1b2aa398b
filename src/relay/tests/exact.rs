//! Every byte once and in order, in each mode.
#![forbid(unsafe_code)]

use super::*;
use crate::labels::SpliceFallback;
use crate::relay::RelayEnd;

async fn both_ways(mode: Mode, up: Vec<u8>, down: Vec<u8>) -> RelaySummary {
    let bench = mode.bench().start().await;
    let (client_read, client_write) = bench.client.into_split();
    let (origin_read, origin_write) = bench.origin.into_split();
    let (sent_up, sent_down) = (sha(&up), sha(&down));
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
    soon("the relay", bench.relay).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_every_size_in_random_chunks_both_ways_in_every_mode() {
    let sizes = [0, 1, 4_095, 4_096, 65_535, 65_536, 65_537, (1 << 20) + 1, 9 << 20];
    for mode in MODES {
        for (i, size) in sizes.into_iter().enumerate() {
            let (up, down) = (noise(i as u64 + 1, size), noise(i as u64 + 99, sizes[8 - i]));
            let want = (up.len() as u64, down.len() as u64);
            let relayed = both_ways(mode, up, down).await;
            assert_eq!((relayed.up, relayed.down), want, "c15 {mode:?} {size}");
            assert_eq!((relayed.lost, relayed.ended), (0, RelayEnd::FinFin), "{mode:?} {size}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_takes_a_pipe_and_gives_it_back_empty() {
    let bench = Mode::Splice.bench().start().await;
    let (mut client, mut origin) = (bench.client, bench.origin);
    let bytes = noise(5, 4 << 20);
    let sent = sha(&bytes);
    let writer = tokio::spawn(async move {
        client.write_all(&bytes).await.unwrap();
        client
    });
    let mut got = vec![0; 4 << 20];
    let mut seen = 0;
    for piece in got.chunks_mut(64 << 10) {
        soon("a piece", origin.read_exact(piece)).await.unwrap();
        seen = seen.max(bench.pipes.in_use());
    }
    assert_eq!(sha(&got), sent);
    assert!(seen > 0, "no pipe was taken for 4 MiB");
    let given_back = async {
        while bench.pipes.in_use() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the pipe to go back while the connection lives", given_back).await;
    let _client = writer.await.unwrap();
    assert!(!bench.relay.is_finished());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c2_m1_hundred_byte_segments_beyond_the_pipe_slots_do_not_stall() {
    for mode in MODES {
        // With buffers this small the kernel itself now and then drops a segment and waits for its
        // retransmission timer: best of three. A wedge of ours would stall each of them for ever.
        let mut longest = Duration::MAX;
        for _ in 0..3 {
            longest = longest.min(longest_stall(mode).await);
            if longest < Duration::from_millis(500) {
                break;
            }
        }
        assert!(longest < Duration::from_millis(500), "{mode:?}: stalled {longest:?}");
    }
}

/// The longest the reader waits for the next bytes after everything between was full.
async fn longest_stall(mode: Mode) -> Duration {
    let bench = Choice { buffers: Some(32_768), ..mode.bench() }.start().await;
    let (mut client, mut origin) = (bench.client, bench.origin);
    let (warmed, when_warm) = tokio::sync::oneshot::channel();
    let writer = tokio::spawn(async move {
        client.write_all(&noise(3, 256 << 10)).await.unwrap(); // from here on it splices
        when_warm.await.unwrap();
        let mut sent = 0;
        let segment = async {
            while client.write_all(&[b'x'; 100]).await.is_ok() {
                sent += 1
            }
        };
        let _full = tokio::time::timeout(Duration::from_millis(300), segment).await;
        (client, sent)
    });
    let mut warm = vec![0; 256 << 10];
    soon("the warm-up", origin.read_exact(&mut warm)).await.unwrap();
    assert_eq!(sha(&warm), sha(&noise(3, 256 << 10)));
    warmed.send(()).unwrap();
    // The reader is stalled until everything between is full.
    let (client, sent) = writer.await.unwrap();
    assert!(sent > 17, "{sent} segments");
    drop(client);
    let (mut got, mut buffer, mut longest) = (0, vec![0; 50_000], Duration::ZERO);
    loop {
        let began = std::time::Instant::now();
        match soon("the rest", origin.read(&mut buffer)).await.unwrap() {
            0 => break,
            n => got += n,
        }
        longest = longest.max(began.elapsed());
    }
    assert!(got / 100 >= sent, "{mode:?}: {got} bytes of {sent} segments");
    longest
}

/// 20 pieces, an urgent byte within each; each mark is passed before the next is sent, for the
/// kernel makes an urgent byte overtaken by another an ordinary one (tcp(7)).
fn send_with_urgent_bytes(client: std::net::TcpStream, bytes: Vec<u8>) {
    use std::io::{Read, Write};
    client.set_nonblocking(false).unwrap();
    let socket = socket2::SockRef::from(&client);
    socket.send_out_of_band(b"!").unwrap();
    for piece in bytes.chunks(bytes.len() / 20) {
        let (head, tail) = piece.split_at(piece.len() / 2);
        (&client).write_all(head).unwrap();
        socket.send_out_of_band(b"!").unwrap();
        (&client).write_all(tail).unwrap();
        (&client).read_exact(&mut [0]).unwrap();
    }
    socket.send_out_of_band(b"!").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!((&client).read(&mut [0]).unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c3_m6_urgent_bytes_anywhere_lose_nothing_in_band() {
    for mode in MODES {
        let bench = mode.bench().start().await;
        let mut origin = bench.origin;
        let client = bench.client.into_std().unwrap();
        let writer =
            tokio::task::spawn_blocking(|| send_with_urgent_bytes(client, noise(77, 20 << 17)));
        let mut got = vec![0; 20 << 17];
        for piece in got.chunks_mut(1 << 17) {
            soon("the piece", origin.read_exact(piece)).await.unwrap();
            origin.write_all(b".").await.unwrap();
        }
        assert_eq!(sha(&got), sha(&noise(77, 20 << 17)), "{mode:?}");
        assert_eq!(soon("FIN", origin.read(&mut [0])).await.unwrap(), 0);
        drop(origin);
        if mode == Mode::Splice {
            assert!(
                bench.pipes.fallback_count(SpliceFallback::Urgent) > 0,
                "an urgent byte was met"
            );
        }
        soon("the writer", writer).await.unwrap();
    }
}

#[tokio::test]
async fn c20_m7_ten_thousand_one_byte_round_trips() {
    let bench = Mode::Splice.bench().start().await;
    let (mut client, mut origin) = (bench.client, bench.origin);
    let echo = tokio::spawn(async move {
        let mut byte = [0];
        while origin.read(&mut byte).await.unwrap() == 1 {
            origin.write_all(&byte).await.unwrap();
        }
    });
    for i in 0..10_000_u32 {
        let (sent, mut got) = ([i as u8], [0]);
        client.write_all(&sent).await.unwrap();
        soon("an echo", client.read_exact(&mut got)).await.unwrap();
        assert_eq!(sent, got);
    }
    client.shutdown().await.unwrap();
    soon("the echo's end", echo).await.unwrap();
    let relayed = soon("the relay", bench.relay).await.unwrap();
    assert_eq!((relayed.up, relayed.down, relayed.ended), (10_000, 10_000, RelayEnd::FinFin));
}

#[tokio::test]
async fn early_bytes_go_first_and_once() {
    let choice = Choice {
        early_up: Bytes::from_static(b"early up, "),
        early_down: Bytes::from_static(b"early down, "),
        ..Choice::default()
    };
    let bench = choice.start().await;
    let (mut client, mut origin) = (bench.client, bench.origin);
    client.write_all(b"late up").await.unwrap();
    origin.write_all(b"late down").await.unwrap();
    client.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
    assert_eq!(soon("up", read_all(&mut origin)).await.unwrap(), b"early up, late up");
    assert_eq!(soon("down", read_all(&mut client)).await.unwrap(), b"early down, late down");
    let relayed = soon("the relay", bench.relay).await.unwrap();
    assert_eq!((relayed.up, relayed.down), (17, 21));
}

#[tokio::test]
async fn c16_splice_switched_off_is_counted_and_copies() {
    let bench = Mode::Copy.bench().start().await;
    let (client, mut origin) = (bench.client, bench.origin);
    let writer = tokio::spawn(write_in_chunks(client, noise(9, 1 << 20), 4));
    let got = soon("a copy", read_all(&mut origin)).await.unwrap();
    assert_eq!(sha(&got), sha(&noise(9, 1 << 20)));
    writer.await.unwrap();
    assert_eq!(bench.pipes.fallback_count(SpliceFallback::Off), 1, "once a direction");
    assert_eq!(bench.pipes.in_use(), 0);
}
