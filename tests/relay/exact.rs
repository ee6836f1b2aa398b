//! Every byte once, in order, and soon.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use super::{Dice, MODES, Mode, SECOND, noise, read_to_fin, send_in_chunks, tunnel};
use tailrace_rig::wait::{PATIENCE, bound, eventually, pause, timed};
use tailrace_rig::{ConnectionEnd, Gateway, Inbound, Origin, RawConnection, sha256};

const MIB: usize = 1 << 20;

#[test]
fn c1_every_size_both_ways_at_once_in_random_chunks() {
    let sizes = [0, 1, 4_095, 4_096, 65_535, 65_536, 65_537, MIB + 1];
    for mode in MODES {
        let mut gateway = mode.gateway();
        for (i, size) in sizes.into_iter().enumerate() {
            let (up, down) = (noise(i as u64, size), noise(100 + i as u64, sizes[7 - i]));
            let origin = Origin::both_ways(down.clone());
            let wire = tunnel(&gateway, origin.address());
            let got = mode.while_moving(&mut gateway, || {
                std::thread::scope(|scope| {
                    scope.spawn(|| send_in_chunks(&wire, &up, 7));
                    read_to_fin(&wire)
                })
            });
            assert_eq!(sha256(&got), sha256(&down), "{mode:?} down {}", down.len());
            assert_eq!(origin.only_visit().sha256(), sha256(&up), "{mode:?} up {size}");
        }
        gateway.settle_and_check(8);
        for (i, line) in gateway.access_lines().iter().enumerate() {
            assert_eq!(line["outcome"], "fin_fin", "{line}");
            assert_eq!(line["bytes_up"], sizes[i], "c15 {line}");
            assert_eq!(line["bytes_down"], sizes[7 - i], "c15 {line}");
        }
    }
}

/// 200 MiB: one block again and again, each with its number in front.
fn blocks() -> impl Iterator<Item = Vec<u8>> {
    let block = noise(3, MIB);
    (0..200_u64).map(move |i| {
        let mut block = block.clone();
        block[..8].copy_from_slice(&i.to_le_bytes());
        block
    })
}

fn expect_blocks(mut from: impl std::io::Read) {
    let mut got = vec![0; MIB];
    for (i, block) in blocks().enumerate() {
        from.read_exact(&mut got).unwrap();
        assert!(got == block, "block {i} differs");
    }
}

#[test]
fn c1_two_hundred_mebibytes_both_ways_at_once() {
    for mode in MODES {
        let origin = Origin::start(|guest| {
            let mut out = guest.stream.try_clone().unwrap();
            let sender = std::thread::spawn(move || {
                blocks().for_each(|block| out.write_all(&block).unwrap());
            });
            expect_blocks(&guest.stream);
            sender.join().unwrap();
            guest.fin();
            guest.read_to_end();
        });
        let mut gateway = mode.gateway();
        let wire = tunnel(&gateway, origin.address());
        mode.while_moving(&mut gateway, || {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut out = wire.tcp();
                    blocks().for_each(|block| out.write_all(&block).unwrap());
                    wire.twin().fin();
                });
                expect_blocks(wire.tcp());
                assert_eq!(read_to_fin(&wire), b"");
            });
        });
        let line = &gateway.wait_for_access(1)[0];
        assert_eq!(line["outcome"], "fin_fin", "{line}");
        assert_eq!(line["bytes_up"], 200 * MIB, "{line}");
        assert_eq!(line["bytes_down"], 200 * MIB, "{line}");
    }
}

#[test]
fn c2_m1_small_segments_before_a_stalled_reader_arrive_without_a_stall() {
    let limit = bound(Duration::from_millis(100)).as_millis();
    for mode in [Mode::Copy, Mode::Splice] {
        // Best of three: the kernel may drop a small segment and wait for its own timer. A wedge of
        // ours would not end at all.
        let tries: Vec<u128> = (0..3).map(|_| segments_to_a_stalled_reader(mode)).collect();
        assert!(tries.iter().any(|took| *took <= limit), "{mode:?}: {tries:?} ms");
    }
}

/// Milliseconds from the reader's resumption to the end, everything compared.
fn segments_to_a_stalled_reader(mode: Mode) -> u128 {
    let gate = tailrace_rig::Latch::new();
    let stall = gate.clone();
    let origin = Origin::start(move |guest| {
        guest.read_n(MIB); // by now the direction splices
        guest.send(b".");
        stall.wait();
        let began = Instant::now();
        guest.read_to_end();
        let took = u32::try_from(began.elapsed().as_millis()).unwrap();
        guest.send(&took.to_be_bytes());
        guest.fin();
    });
    let gateway = mode.gateway();
    let mut wire = tunnel(&gateway, origin.address());
    wire.send(noise(1, MIB));
    wire.expect(".");
    let segments = noise(2, 400_000);
    segments.chunks(100).for_each(|segment| wire.tcp().write_all(segment).unwrap());
    wire.fin();
    gate.open();
    let took = u32::from_be_bytes(wire.read_n(4).try_into().unwrap());
    let whole = [noise(1, MIB), segments].concat();
    assert_eq!(origin.only_visit().sha256(), sha256(&whole), "{mode:?}");
    u128::from(took)
}

#[test]
fn c3_m6_urgent_bytes_at_start_middle_and_end_lose_nothing_and_cost_nothing() {
    for mode in [Mode::Copy, Mode::Splice] {
        let origin = Origin::start(|guest| {
            while guest.read_n(128 << 10) && guest.send(b".") {}
            guest.fin();
        });
        let mut gateway = mode.gateway();
        let mut wire = tunnel(&gateway, origin.address());
        let before = gateway.cpu_time();
        wire.urgent(b'!');
        // Each mark is passed before the next is sent: tcp(7) makes an overtaken one ordinary.
        for i in 0..20 {
            let piece = noise(i, 128 << 10);
            wire.send(&piece[..50_000]);
            wire.urgent(b'!');
            wire.send(&piece[50_000..]);
            wire.expect(".");
        }
        wire.urgent(b'!');
        wire.fin();
        wire.expect_end(ConnectionEnd::Fin);
        let used = gateway.cpu_time() - before;
        assert!(used <= bound(Duration::from_millis(50)), "{mode:?}: {used:?}");
        let whole: Vec<u8> = (0..20).flat_map(|i| noise(i, 128 << 10)).collect();
        assert_eq!(origin.only_visit().sha256(), sha256(&whole), "{mode:?}");
        if mode == Mode::Splice {
            let metrics = gateway.metrics();
            let urgent = [("cause", "urgent")];
            assert!(metrics.value("tailrace_splice_fallback_total", &urgent) > 0.0);
        }
        gateway.settle_and_check(1);
    }
}

#[test]
fn c14_m7_the_last_fifty_bytes_of_a_bulky_stream_are_not_held_back() {
    for mode in [Mode::Copy, Mode::Splice] {
        let gateway = mode.gateway();
        let origin = Origin::echo();
        let wire = tunnel(&gateway, origin.address());
        let bulk = noise(1, 512 << 10);
        std::thread::scope(|scope| {
            scope.spawn(|| wire.tcp().write_all(&bulk).unwrap());
            let mut back = vec![0; bulk.len()];
            wire.tcp().read_exact(&mut back).unwrap();
            assert!(back == bulk, "{mode:?}");
        });
        let best = (0..3).map(|_| percentile_99(&wire)).min().unwrap();
        assert!(best < bound(Duration::from_millis(5)), "{mode:?}: p99 {best:?}");
    }
}

fn percentile_99(wire: &RawConnection) -> Duration {
    let mut wire = wire.twin();
    let round = || {
        timed(|| {
            wire.send([5; 50]);
            wire.expect([5; 50]);
        })
        .1
    };
    let mut took: Vec<Duration> = std::iter::repeat_with(round).take(100).collect();
    took.sort();
    took[98]
}

#[test]
fn c15_a_live_connection_shows_what_its_receiver_got() {
    let origin = Origin::sink();
    let gateway = Mode::Splice.gateway();
    let mut wire = tunnel(&gateway, origin.address());
    wire.send(noise(1, 3 * MIB));
    eventually("the live table tells 3 MiB", 5 * SECOND, || {
        let body = gateway.admin_get("/api/v1/connections").body;
        let live: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let text = live.to_string();
        text.contains(&format!("\"bytes_up\":{}", 3 * MIB))
    });
}

#[test]
fn c19_through_the_gateway_chained_to_itself_twice() {
    let down = noise(4, 2 * MIB);
    let origin = Origin::both_ways(down.clone());
    let last = Mode::Splice.gateway();
    let chain = |to: std::net::SocketAddr| {
        Gateway::start(|s| {
            s.upstream(to).allow_loopback();
        })
    };
    let middle = chain(last.proxy());
    let first = chain(middle.proxy());
    let wire = tunnel(&first, origin.address());
    let up = noise(5, 3 * MIB);
    let got = std::thread::scope(|scope| {
        scope.spawn(|| send_in_chunks(&wire, &up, 9));
        read_to_fin(&wire)
    });
    assert_eq!(sha256(&got), sha256(&down));
    assert_eq!(origin.only_visit().sha256(), sha256(&up));
    for gateway in [&first, &middle, &last] {
        // Each but the first also sees its neighbour's health probes.
        gateway.wait_for_line(|line| line["outcome"] == "fin_fin");
    }
}

#[test]
fn c20_ten_thousand_one_byte_round_trips() {
    for mode in [Mode::Copy, Mode::Splice] {
        let origin = Origin::echo();
        let gateway = mode.gateway();
        let wire = tunnel(&gateway, origin.address());
        for i in 0..10_000_u32 {
            let (sent, mut got) = ([i as u8], [0]);
            wire.tcp().write_all(&sent).unwrap();
            wire.tcp().read_exact(&mut got).unwrap();
            assert_eq!(sent, got, "{mode:?} round {i}");
        }
        drop(wire);
        let line = &gateway.wait_for_access(1)[0];
        assert_eq!((&line["bytes_up"], &line["bytes_down"]), (&10_000.into(), &10_000.into()));
    }
}

/// Request and payload in one stream of bytes, cut in two at every place.
fn every_split(inbound: Inbound, request: &[u8], answer: usize) {
    let origin = Origin::echo();
    let gateway = Mode::Splice.gateway();
    let target = origin.address().to_string();
    let payload = noise(8, 600 - request.len() - target.len());
    let request = match inbound {
        Inbound::Socks5 => [request, &tailrace_rig::client::request(inbound, &target)].concat(),
        _ => tailrace_rig::client::request(inbound, &target),
    };
    let whole = [request, payload.clone()].concat();
    for at in 1..whole.len() {
        let mut wire = gateway.dial();
        wire.send(&whole[..at]);
        if at % 50 == 0 {
            pause(Duration::from_millis(1)); // else the kernel may join the two
        }
        wire.send(&whole[at..]);
        wire.read_n(answer);
        wire.expect(&payload);
    }
}

#[test]
fn m10_payload_behind_the_request_arrives_once_however_it_is_cut() {
    every_split(Inbound::Socks5, &[5, 1, 0], 2 + 10);
    every_split(Inbound::Socks4, &[], 8);
    every_split(Inbound::Connect, &[], "HTTP/1.1 200 Connection established\r\n\r\n".len());
}

#[test]
fn mixed_sizes_echoed_with_random_pauses() {
    for mode in MODES {
        let origin = Origin::echo();
        let mut gateway = mode.gateway();
        let wire = tunnel(&gateway, origin.address());
        mode.while_moving(&mut gateway, || {
            let mut dice = Dice(99);
            for round in 0..60 {
                let bytes = noise(round, 1 << dice.up_to(20));
                std::thread::scope(|scope| {
                    scope.spawn(|| wire.tcp().write_all(&bytes).unwrap());
                    let mut back = vec![0; bytes.len()];
                    wire.tcp().set_read_timeout(Some(PATIENCE)).unwrap();
                    wire.tcp().read_exact(&mut back).unwrap();
                    assert!(back == bytes, "{mode:?} round {round}");
                });
                pause(Duration::from_millis(dice.up_to(60) as u64 / 20 * 20));
            }
        });
    }
}
