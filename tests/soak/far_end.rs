//! The far side of an exchange: it does what the client's order says, and tells what it got.

use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use tailrace_rig::raw_connection::abort;

/// Most bytes one way.
pub(crate) const MOST: usize = 3 << 20;

/// What both sides know: an exchange's bytes are a part of it.
pub(crate) fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        let mut dice = super::Dice::new(3, 3);
        (0..MOST / 4).flat_map(|_| dice.next().to_le_bytes()).collect()
    })
}

/// The order at the head of an exchange, 25 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) up: usize,
    pub(crate) down: usize,
    /// Where in [`noise`] either way's bytes begin.
    pub(crate) from: usize,
    /// The far end resets once it has sent half.
    pub(crate) reset: bool,
}

impl Order {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let numbers = [self.up, self.down, self.from].map(|n| (n as u64).to_be_bytes());
        [numbers.concat(), vec![self.reset.into()]].concat()
    }

    fn read(stream: &mut TcpStream) -> std::io::Result<Order> {
        let mut bytes = [0; 25];
        stream.read_exact(&mut bytes)?;
        let number = |n: usize| {
            let number = bytes[8 * n..].first_chunk().map_or(0, |b| u64::from_be_bytes(*b));
            number as usize
        };
        Ok(Order { up: number(0), down: number(1), from: number(2), reset: bytes[24] == 1 })
    }

    /// The bytes of a way that is `length` long.
    pub(crate) fn part(&self, length: usize) -> &'static [u8] {
        &noise()[self.from..self.from + length]
    }
}

/// One connection.
pub(crate) fn serve(mut stream: TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
    let _ = stream.set_write_timeout(Some(Duration::from_secs(60)));
    let Ok(order) = Order::read(&mut stream) else { return };
    let Ok(mut out) = stream.try_clone() else { return };
    if order.reset {
        let _ = out.write_all(order.part(order.down / 2));
        return abort(&stream);
    }
    let sender = std::thread::spawn(move || out.write_all(order.part(order.down)));
    let digest = swallow(&mut stream, order.up);
    let sent = sender.join().is_ok_and(|sent| sent.is_ok());
    if let (Some(digest), true) = (digest, sent) {
        let _ = stream.write_all(&digest);
        let _ = stream.read(&mut [0]); // the client ends first, or both do
    }
}

/// The sum of the next `left` bytes, if they came.
fn swallow(stream: &mut TcpStream, mut left: usize) -> Option<Vec<u8>> {
    let (mut digest, mut chunk) = (Sha256::new(), vec![0; 64 << 10]);
    while left > 0 {
        let most = left.min(chunk.len());
        match stream.read(&mut chunk[..most]) {
            Ok(n @ 1..) => {
                digest.update(&chunk[..n]);
                left -= n;
            }
            _ => return None,
        }
    }
    Some(digest.finalize().to_vec())
}
