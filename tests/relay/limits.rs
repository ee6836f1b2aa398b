//! What the relay costs others: memory, CPU, pipes, a fair share, and nobody else's bytes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{MODES, Mode, SECOND, noise, read_to_fin, stuff, tunnel};
use tailrace_rig::wait::{bound, eventually, pause, timed};
use tailrace_rig::{ConnectionEnd, Gateway, Latch, Origin, RawConnection, sha256};

const MIB: usize = 1 << 20;

/// Sends without end until its peer has gone.
fn endless(seed: u64) -> Origin {
    let block = noise(seed, MIB);
    Origin::start(move |guest| while guest.send(&block) {})
}

#[test]
fn m2_a_stalled_reader_costs_no_cpu() {
    for mode in [Mode::Copy, Mode::Splice] {
        let origin = endless(1);
        let gateway = mode.gateway();
        let mut wire = tunnel(&gateway, origin.address());
        wire.read_n(MIB);
        pause(SECOND); // until everything between is full
        let before = gateway.cpu_time();
        pause(5 * SECOND);
        let used = gateway.cpu_time() - before;
        assert!(used < Duration::from_millis(50), "{mode:?}: {used:?} in 5 s");
    }
}

#[test]
fn m8_pipes_are_taken_by_bulk_and_given_back_when_idle() {
    let origin = Origin::sink();
    let mut gateway = Mode::Splice.gateway();
    let before = gateway.fds_of("pipe:");
    let mut wires: Vec<RawConnection> =
        (0..4).map(|_| tunnel(&gateway, origin.address())).collect();
    let mut seen = 0;
    for _ in 0..40 {
        wires.iter_mut().for_each(|wire| wire.send(noise(1, 256 << 10)));
        seen = seen.max(gateway.fds_of("pipe:"));
    }
    assert!(seen > before, "no pipe while 40 MiB went by");
    eventually("no pipe once they are idle", bound(2 * SECOND), || {
        gateway.fds_of("pipe:") == before
    });
    assert_eq!(gateway.metrics().value("tailrace_pipes_in_use", &[]), 0.0);
    drop(wires);
    gateway.settle_and_check(4);
}

#[test]
fn m9_nobody_sees_the_bytes_of_an_aborted_transfer() {
    let canary = endless(666);
    let clean = noise(1, 300 << 10);
    let origin = Origin::send(clean.clone());
    let mut gateway = Mode::Splice.gateway();
    for round in 0..100 {
        let aborted: Vec<RawConnection> =
            (0..9).map(|_| tunnel(&gateway, canary.address())).collect();
        for mut wire in aborted {
            wire.read_n(100_000 + round);
            wire.reset();
        }
        let wire = tunnel(&gateway, origin.address());
        assert!(read_to_fin(&wire) == clean, "round {round}: not the bytes that were sent");
    }
    gateway.settle_and_check(1_000);
}

#[test]
fn m12_a_drain_that_cuts_a_transfer_counts_only_what_arrived() {
    for mode in MODES {
        let origin = endless(5);
        let mut gateway = mode.gateway_with(|s| {
            s.set("limits.drain_timeout", "300ms");
        });
        let mut wire = tunnel(&gateway, origin.address());
        let mut received = wire.read_n(2 * MIB).len() as u64;
        gateway.signal(Signal::TERM);
        let (mut buffer, mut pauses) = (vec![0; 30_000], 0);
        let reset = loop {
            match wire.tcp().read(&mut buffer) {
                Ok(0) => break false,
                Ok(n) => received += n as u64,
                Err(_) => break true,
            }
            pauses += 1;
            if pauses % 8 == 0 {
                pause(Duration::from_millis(5));
            }
        };
        assert!(reset, "{mode:?}: a cut transfer must not look complete");
        gateway.wait_exit(bound(5 * SECOND));
        let line = &gateway.access_lines()[0];
        assert_eq!(line["outcome"], "drained", "{line}");
        let counted = line["bytes_down"].as_u64().unwrap();
        assert!(counted <= received, "{mode:?}: {received} arrived, {line}");
        assert!(received - counted < 8 * MIB as u64, "{mode:?}: {received} arrived, {line}");
    }
}

/// `n` tunnels at once, each downloading the same bytes; returns how long it took.
fn download_many(gateway: &Gateway, n: usize, bytes: &[u8]) -> Duration {
    let gate = Latch::new();
    let (go, body) = (gate.clone(), bytes.to_vec());
    let origin = Origin::start(move |guest| {
        go.wait();
        guest.send(&body);
        guest.fin();
        guest.read_to_end();
    });
    let wires: Vec<RawConnection> = (0..n).map(|_| tunnel(gateway, origin.address())).collect();
    gate.open();
    let streams: Vec<&TcpStream> = wires.iter().map(RawConnection::tcp).collect();
    timed(|| read_in_turn(&streams, bytes)).1
}

/// Reads a piece from each in turn, so that all of them move at the same time.
fn read_in_turn(streams: &[&TcpStream], bytes: &[u8]) {
    let piece = 64 << 10;
    let mut buffer = vec![0; piece];
    for (at, want) in bytes.chunks(piece).enumerate() {
        for (i, stream) in streams.iter().enumerate() {
            let mut stream: &TcpStream = stream;
            stream.read_exact(&mut buffer[..want.len()]).unwrap();
            assert!(buffer[..want.len()] == *want, "stream {i} piece {at} differs");
        }
    }
}

#[test]
fn r4_more_bulk_than_pipes_falls_back_to_copy_and_stays_exact() {
    let bytes = noise(3, 512 << 10);
    let n = 1_100;
    let copy = download_many(&Mode::Copy.gateway(), n, &bytes);
    let mut gateway = Mode::Splice.gateway();
    let splice = download_many(&gateway, n, &bytes);
    let no_pipe = [("cause", "pipe")];
    assert!(gateway.metrics().value("tailrace_splice_fallback_total", &no_pipe) > 0.0);
    assert!(splice < 2 * copy + SECOND, "splice mode {splice:?}, copy mode {copy:?}");
    gateway.settle_and_check(n as u64);
}

#[test]
fn r4_few_descriptors_leave_no_pipe_and_lose_no_byte() {
    let bytes = noise(3, MIB);
    let gateway = Mode::Splice.gateway_with(|s| {
        s.nofile(64);
    });
    download_many(&gateway, 12, &bytes);
    let no_pipe = [("cause", "pipe")];
    assert!(gateway.metrics().value("tailrace_splice_fallback_total", &no_pipe) > 0.0);
}

/// Memory stays flat while a transfer is stalled, and another one is not slowed down by it.
fn stalled_beside_a_busy_one(gateway: &Gateway, stall: impl FnOnce() -> u64) {
    let before = gateway.rss();
    let taken = stall();
    assert!(taken < 64 * MIB as u64, "{taken} bytes were taken for nobody");
    let grown = gateway.rss().saturating_sub(before);
    assert!(grown < 4 * MIB as u64, "{grown} bytes more of memory");
    let bytes = noise(2, 16 * MIB);
    let origin = Origin::send(bytes.clone());
    let began = Instant::now();
    let got = read_to_fin(&tunnel(gateway, origin.address()));
    assert_eq!(sha256(&got), sha256(&bytes));
    assert!(began.elapsed() < 10 * SECOND, "16 MiB took {:?}", began.elapsed());
}

#[test]
fn r8_a_slow_reader_is_not_buffered_for() {
    for mode in [Mode::Copy, Mode::Splice] {
        let origin = endless(1);
        let gateway = mode.gateway();
        let mut wire = tunnel(&gateway, origin.address());
        stalled_beside_a_busy_one(&gateway, || {
            for _ in 0..20 {
                wire.read_n(10_000);
                pause(Duration::from_millis(50));
            }
            0
        });
    }
}

#[test]
fn r9_an_upstream_that_never_reads_is_not_buffered_for() {
    for mode in [Mode::Copy, Mode::Splice] {
        let origin = Origin::never_reader();
        let gateway = mode.gateway();
        let wire = tunnel(&gateway, origin.address());
        stalled_beside_a_busy_one(&gateway, || stuff(&wire));
    }
}

#[test]
fn r13_m11_one_fast_flow_leaves_a_hundred_conversations_their_share() {
    let (fast, echo) = (endless(1), Origin::echo());
    let gateway = Mode::Splice.gateway_with(|_| {});
    let bulk = tunnel(&gateway, fast.address());
    let twin = bulk.twin();
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; MIB];
        while let Ok(1..) = twin.tcp().read(&mut buffer) {}
    });
    let wires: Vec<RawConnection> = (0..100).map(|_| tunnel(&gateway, echo.address())).collect();
    let best = (0..3).map(|_| p99_of_all(&wires)).min().unwrap();
    assert!(best < bound(Duration::from_millis(20)), "p99 {best:?}");
    bulk.reset();
    reader.join().unwrap();
}

fn p99_of_all(wires: &[RawConnection]) -> Duration {
    let round = |wire: &RawConnection| {
        let mut stream = wire.tcp();
        timed(|| {
            stream.write_all(&[1; 64]).unwrap();
            stream.read_exact(&mut [0; 64]).unwrap();
        })
        .1
    };
    let mut took: Vec<Duration> = (0..5).flat_map(|_| wires.iter().map(round)).collect();
    took.sort();
    took[took.len() * 99 / 100]
}

#[test]
fn the_end_of_one_is_no_end_of_another() {
    let origin = Origin::echo();
    let mut gateway = Mode::Splice.gateway();
    let mut stays = tunnel(&gateway, origin.address());
    for _ in 0..20 {
        let mut goes = tunnel(&gateway, origin.address());
        goes.send("bye");
        goes.expect("bye");
        goes.reset();
    }
    stays.send("here");
    stays.expect("here");
    stays.fin();
    stays.expect_end(ConnectionEnd::Fin);
    gateway.settle_and_check(21);
}
