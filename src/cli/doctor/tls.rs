//! Whether a port speaks TLS: one ClientHello, and the first bytes of what comes back.
#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::target::Host;

/// Silence after which a port is taken to wait for something else.
const SILENCE: Duration = Duration::from_millis(500);
/// A handshake record (RFC 8446 section 5.1), and the major version every TLS writes there.
const HANDSHAKE: [u8; 2] = [0x16, 0x03];
/// A ServerHello (RFC 8446 section 4), behind a record's head of five bytes: an echo sends ours back.
const SERVER_HELLO: u8 = 2;

/// Says hello, and whether it was answered by TLS. A far side that spoke first does not.
pub(super) fn spoken(mut stream: TcpStream, early: &[u8], host: &Host) -> bool {
    if !early.is_empty() || stream.write_all(&client_hello(host)).is_err() {
        return false;
    }
    let deadline = Instant::now() + SILENCE;
    let mut said = Vec::new();
    while said.len() < 6 {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut byte = [0];
        // A limit of zero would be none at all.
        let limited = stream.set_read_timeout(Some(left.max(Duration::from_millis(1))));
        match limited.and_then(|()| stream.read(&mut byte)) {
            Ok(1) if !left.is_zero() => said.push(byte[0]),
            _ => return false,
        }
    }
    said.starts_with(&HANDSHAKE) && said[5] == SERVER_HELLO
}

/// A ClientHello for TLS 1.3 and 1.2 (RFC 8446 section 4.1.2) with the host as server name. No key is
/// shared yet: a server of 1.3 asks for one, which is answer enough.
fn client_hello(host: &Host) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = host.name() {
        let entry = [&[0][..], &sized(name.as_str().as_bytes())].concat();
        extensions.extend(extension(0, &sized(&entry))); // server_name (RFC 6066 section 3)
    }
    // supported_groups: x25519, secp256r1, secp384r1; signature_algorithms: ECDSA, RSA-PSS, RSA.
    extensions.extend(extension(10, &sized(&[0, 0x1d, 0, 0x17, 0, 0x18])));
    let algorithms = [4, 3, 5, 3, 8, 4, 8, 5, 8, 6, 4, 1, 5, 1, 8, 7];
    extensions.extend(extension(13, &sized(&algorithms)));
    extensions.extend(extension(43, &[4, 3, 4, 3, 3])); // supported_versions: 1.3, 1.2
    extensions.extend(extension(51, &sized(&[]))); // key_share: none
    let ciphers = [
        0x13, 1, 0x13, 2, 0x13, 3, // the three of TLS 1.3
        0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30, 0, 0x9c, 0, 0x9d, 0, 0x2f,
    ];
    let mut body = vec![3, 3];
    body.extend(b"tailrace doctor: is this TLS? 01"); // random, of 32 bytes
    body.push(0); // no session
    body.extend(sized(&ciphers));
    body.extend([1, 0]); // no compression
    body.extend(sized(&extensions));
    // client_hello, and its length in three bytes.
    let message = [&[1, 0][..], &sized(&body)].concat();
    [&[HANDSHAKE[0], 3, 1][..], &sized(&message)].concat()
}

fn extension(number: u16, content: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &sized(content)].concat()
}

/// The bytes behind their number, of two bytes. A name, the longest thing here, has at most 253.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What `spoken` says of a server that answers `answer`, and what it was told.
    fn asked(answer: &'static [u8]) -> (bool, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = std::thread::spawn(move || {
            let (mut served, _) = listener.accept().unwrap();
            let mut hello = vec![0; 5];
            served.read_exact(&mut hello).unwrap();
            let length = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
            hello.resize(5 + length, 0);
            served.read_exact(&mut hello[5..]).unwrap();
            served.write_all(answer).unwrap();
            // Held open until the other side has made up its mind.
            let _gone = served.read(&mut [0]);
            hello
        });
        let spoken = spoken(stream, b"", &Host::parse(b"db.corp.example").unwrap());
        (spoken, server.join().unwrap())
    }

    #[test]
    fn the_first_bytes_decide_and_silence_is_no_fault() {
        let (tls, hello) = asked(&[0x16, 3, 3, 0, 90, 2, 0, 0, 86]);
        assert!(tls);
        assert!(hello.windows(15).any(|part| part == b"db.corp.example"), "the server's name");
        for other in
            [&[0x15, 3, 3, 0, 2, 2, 40][..], b"HTTP/1.1 400", &[0x16, 3, 1, 0, 90, 1], &[0x16], &[]]
        {
            assert!(!asked(other).0, "{other:?}");
        }
    }
}
