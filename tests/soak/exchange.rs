//! One client: asks over any inbound, carries bytes both ways at once, and ends in one of many ways.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::far_end::{MOST, Order};
use super::{Dice, Shared};
use tailrace_rig::raw_connection::abort;
use tailrace_rig::wait::pause;
use tailrace_rig::{Inbound, client};

const TARGET: &str = "db:5432";
const PATIENCE: Duration = Duration::from_secs(30);

/// How a client ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Everything is carried and compared.
    Whole,
    /// The same, with FIN as soon as the last byte is sent.
    Fin,
    /// The far end resets in the middle.
    FarReset,
    /// The client resets after so many bytes down.
    Reset(usize),
    /// The client resets before it has asked, or in the middle of asking.
    Early,
    /// A target that some of the policies refuse.
    Foreign,
}

fn ending(dice: &mut Dice, down: usize) -> Ending {
    match dice.up_to(16) {
        0..=6 => Ending::Whole,
        7..=9 => Ending::Fin,
        10 | 11 => Ending::FarReset,
        12 | 13 => Ending::Reset(dice.up_to(down as u64 + 1) as usize),
        14 => Ending::Early,
        _ => Ending::Foreign,
    }
}

/// Mostly small, sometimes a few MiB.
fn size(dice: &mut Dice) -> usize {
    let most = [1, 200, 5_000, 70_000, 300_000, MOST as u64][dice.up_to(6) as usize];
    dice.up_to(most + 1) as usize
}

/// One exchange from connect to end. A failure is one only if tailscaled was there all along.
pub(crate) fn one(proxy: SocketAddr, shared: &Shared, dice: &mut Dice, seed: u64) {
    let (up, down) = (size(dice), size(dice));
    let ending = ending(dice, down);
    let from = dice.up_to(MOST as u64) as usize;
    let order = Order { up, down, from, reset: ending == Ending::FarReset };
    let before = shared.shaken.load(Ordering::SeqCst);
    let stream = TcpStream::connect(proxy).unwrap();
    shared.asked.fetch_add(1, Ordering::Relaxed);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    match exchange(stream, dice, order, ending) {
        Ok(true) => {
            shared.whole.fetch_add(1, Ordering::Relaxed);
            shared.bytes.fetch_add((up + down) as u64, Ordering::Relaxed);
        }
        Ok(false) => {}
        Err(error) => {
            let after = shared.shaken.load(Ordering::SeqCst);
            let disturbed = before % 2 == 1 || before != after;
            assert!(disturbed, "SOAK_SEED={seed} {ending:?} {order:?}: {error}");
            shared.cut.fetch_add(1, Ordering::Relaxed);
            pause(Duration::from_millis(20));
        }
    }
}

/// Whether everything was carried and compared; wrong bytes are a panic, whatever happened.
fn exchange(
    mut stream: TcpStream,
    dice: &mut Dice,
    order: Order,
    ending: Ending,
) -> io::Result<bool> {
    let inbound = [Inbound::Socks5, Inbound::Socks4a, Inbound::Connect][dice.up_to(3) as usize];
    match ending {
        Ending::Early => {
            let asked = request(inbound, TARGET);
            let part = dice.up_to(asked.len() as u64) as usize;
            let _ = stream.write_all(&asked[..part]);
            abort(&stream);
            return Ok(false);
        }
        Ending::Foreign => {
            // Refused by some policies, unknown to the tailnet in any case.
            stream.write_all(&request(inbound, "evil.example:80"))?;
            let _ = stream.read_to_end(&mut Vec::new());
            return Ok(false);
        }
        _ => open(&mut stream, inbound)?,
    }
    stream.write_all(&order.bytes())?;
    let (mut out, mut pauses) = (stream.try_clone()?, Dice::new(dice.next(), 1));
    let fin = ending == Ending::Fin;
    let sender = std::thread::spawn(move || send(&mut out, order, &mut pauses, fin));
    let most = if let Ending::Reset(most) = ending { most } else { order.down };
    let got = receive(&mut stream, order, most, dice);
    if matches!(ending, Ending::Reset(_) | Ending::FarReset) {
        abort(&stream);
        let _ = sender.join();
        return Ok(false); // what came was compared; the rest was reset, as ordered
    }
    let got = got.and_then(|()| {
        let mut digest = [0; 32];
        stream.read_exact(&mut digest).map(|()| digest)
    });
    if got.is_err() {
        abort(&stream);
    }
    sender.join().map_err(|_| io::Error::other("the sender panicked"))??;
    assert_eq!(got?[..], Sha256::digest(order.part(order.up))[..], "what went up: {order:?}");
    Ok(true)
}

fn request(inbound: Inbound, target: &str) -> Vec<u8> {
    let greeting: &[u8] = if inbound == Inbound::Socks5 { &[5, 1, 0] } else { &[] };
    [greeting, &client::request(inbound, target)].concat()
}

/// Asks for the far end.
fn open(stream: &mut TcpStream, inbound: Inbound) -> io::Result<()> {
    stream.write_all(&request(inbound, TARGET))?;
    let mut answer = [0; 12];
    let yes = match inbound {
        Inbound::Socks5 => {
            stream.read_exact(&mut answer)?;
            answer[..4] == [5, 0, 5, 0]
        }
        Inbound::Socks4a => {
            stream.read_exact(&mut answer[..8])?;
            answer[1] == 0x5a
        }
        _ => {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut answer[..1])?;
                head.push(answer[0]);
            }
            head.starts_with(b"HTTP/1.1 200 ")
        }
    };
    if yes { Ok(()) } else { Err(io::Error::other(format!("{inbound:?} refused: {answer:?}"))) }
}

/// Sends in pieces, with pauses between some of them.
fn send(out: &mut TcpStream, order: Order, dice: &mut Dice, fin: bool) -> io::Result<()> {
    let mut rest = order.part(order.up);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(1 + dice.up_to(150_000) as usize));
        out.write_all(piece)?;
        rest = after;
        rest_now_and_then(dice);
    }
    if fin { out.shutdown(Shutdown::Write) } else { Ok(()) }
}

/// Reads `most` bytes of the way down and compares each.
fn receive(stream: &mut TcpStream, order: Order, most: usize, dice: &mut Dice) -> io::Result<()> {
    let (expected, mut have) = (order.part(order.down), 0);
    let (mut digest, mut chunk) = (Sha256::new(), vec![0; 64 << 10]);
    while have < most {
        let room = (most - have).min(chunk.len());
        let n = stream.read(&mut chunk[..room])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        assert!(chunk[..n] == expected[have..have + n], "wrong bytes after {have}: {order:?}");
        digest.update(&chunk[..n]);
        have += n;
        rest_now_and_then(dice);
    }
    assert_eq!(digest.finalize(), Sha256::digest(&expected[..most]), "what came down: {order:?}");
    Ok(())
}

fn rest_now_and_then(dice: &mut Dice) {
    if dice.up_to(40) == 0 {
        pause(Duration::from_millis(dice.up_to(60)));
    }
}
