//! Chapter C: bytes through the built gateway, exact, in copy, splice and mixed mode; the twelve
//! mistakes of splice relays (`m1` to `m12`); and R4, R8, R9, R13, where the relay is the subject.
//!
//! C6 is about tailscaled's version and belongs to the tailnet's tests. The same cases run against
//! the relay alone in `src/relay/tests/`, where its inside can be seen.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

#[path = "relay/ends.rs"]
mod ends;
#[path = "relay/exact.rs"]
mod exact;
#[path = "relay/limits.rs"]
mod limits;
#[path = "relay/prompt.rs"]
mod prompt;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use tailrace_rig::wait::{PATIENCE, pause};
use tailrace_rig::{Gateway, Inbound, RawConnection, Setup};

const SECOND: Duration = Duration::from_secs(1);

/// How the gateway moves bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Copy,
    Splice,
    /// Switched by SIGHUP while bytes move (C16).
    Mixed,
}

const MODES: [Mode; 3] = [Mode::Copy, Mode::Splice, Mode::Mixed];

impl Mode {
    /// A gateway that dials loopback itself, so that nothing but the relay lies between.
    #[track_caller]
    fn gateway(self) -> Gateway {
        self.gateway_with(|_| {})
    }

    #[track_caller]
    fn gateway_with(self, change: impl FnOnce(&mut Setup)) -> Gateway {
        Gateway::start(|s| {
            s.direct().set("relay.splice", self != Mode::Copy);
            change(s);
        })
    }

    /// Runs `act`; in mixed mode the switch is thrown meanwhile, by reload.
    fn while_moving<T: Send>(self, gateway: &mut Gateway, act: impl FnOnce() -> T + Send) -> T {
        if self != Mode::Mixed {
            return act();
        }
        std::thread::scope(|scope| {
            let work = scope.spawn(act);
            let mut on = true;
            while !work.is_finished() {
                on = !on;
                gateway.setup().set("relay.splice", on);
                gateway.reload();
                pause(Duration::from_millis(10));
            }
            work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// A tunnel to an origin by its address.
#[track_caller]
fn tunnel(gateway: &Gateway, to: SocketAddr) -> RawConnection {
    gateway.open(Inbound::Socks5, &to.to_string())
}

/// xorshift64: the same numbers for the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn up_to(&mut self, n: u64) -> usize {
        usize::try_from(self.next() % n).unwrap()
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice(seed.wrapping_mul(2) + 1);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&dice.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Sends in random chunks of 1 to 70,000 bytes, then FIN.
fn send_in_chunks(wire: &RawConnection, bytes: &[u8], seed: u64) {
    let (mut rest, mut dice) = (bytes, Dice(seed.wrapping_mul(2) + 1));
    while !rest.is_empty() {
        let n = (dice.up_to(70_000) + 1).min(rest.len());
        wire.tcp().write_all(&rest[..n]).unwrap();
        rest = &rest[n..];
    }
    wire.tcp().shutdown(Shutdown::Write).unwrap();
}

fn read_to_fin(wire: &RawConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire.tcp().set_read_timeout(Some(2 * PATIENCE)).unwrap();
    wire.tcp().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Writes until the connection has taken nothing for 300 ms; returns the bytes it took.
fn stuff(wire: &RawConnection) -> u64 {
    wire.tcp().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let (mut taken, chunk) = (0, vec![7; 65_536]);
    while let Ok(n @ 1..) = wire.tcp().write(&chunk) {
        taken += n as u64;
    }
    taken
}
