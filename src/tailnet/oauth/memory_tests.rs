//! K8: after an exchange the process's memory holds neither secret nor token nor key.
//!
//! The three are written here with every byte changed, and compared so: the test itself holds none.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::unix::fs::FileExt;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zeroize::Zeroize;

use super::*;

const MASK: u8 = 0x15;
/// `*CANARY-OF-THE-…` under the mask; the first byte is rare, which makes the search quick.
const CANARIES: [&[u8]; 3] = [
    &masked(b"*CANARY-OF-THE-SECRET"),
    &masked(b"*CANARY-OF-THE-TOKEN!"),
    &masked(b"*CANARY-OF-THE-KEY-!!"),
];

const fn masked<const N: usize>(plain: &[u8; N]) -> [u8; N] {
    let mut masked = *plain;
    let mut at = 0;
    while at < N {
        masked[at] ^= MASK;
        at += 1;
    }
    masked
}

/// A text with the canary in it, zeroed when dropped.
fn with(before: &str, canary: &[u8], behind: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(1_024));
    text.push_str(before);
    text.extend(canary.iter().map(|byte| char::from(byte ^ MASK)));
    text.push_str(behind);
    text
}

/// How often a canary lies in this process's writable memory.
fn found(canary: &[u8]) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let memory = File::open("/proc/self/mem").unwrap();
    let mut buffer = vec![0_u8; 1 << 20];
    let own = buffer.as_ptr() as u64..buffer.as_ptr() as u64 + buffer.len() as u64;
    let mut count = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
        let mut at = from;
        while at < to {
            if own.contains(&at) {
                at = own.end; // what was copied there to be looked at
                continue;
            }
            let end = to.min(if at < own.start { own.start } else { u64::MAX });
            let length = buffer.len().min((end - at) as usize);
            let read = memory.read_at(&mut buffer[..length], at).unwrap_or(0);
            count += memchr::memchr_iter(canary[0] ^ MASK, &buffer[..read])
                .filter(|found| {
                    let here = buffer.get(*found..found + canary.len()).unwrap_or_default();
                    !here.is_empty() && here.iter().zip(canary).all(|(a, b)| a ^ MASK == *b)
                })
                .count();
            buffer.as_mut_slice().zeroize();
            at += if end - at > length as u64 { length - canary.len() + 1 } else { length } as u64;
        }
    }
    count
}

async fn answer(listener: &TcpListener, body: Zeroizing<String>) {
    let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
    let mut request = Zeroizing::new(vec![0; 8_192]);
    let mut filled = 0;
    while !request[..filled].ends_with(b"}") && !request[..filled].ends_with(b"%21") {
        filled += stream.read(&mut request[filled..]).await.unwrap();
    }
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn k8_nothing_of_an_exchange_stays_in_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("!?baseURL=http://{}", listener.local_addr().unwrap());
    let secret = Secret::new(&with(PREFIX, CANARIES[0], &base)).unwrap();
    let tags = ["tag:x".to_owned()];
    let api = async {
        answer(&listener, with(r#"{"access_token":""#, CANARIES[1], r#""}"#)).await;
        answer(&listener, with(r#"{"key":"tskey-auth-"#, CANARIES[2], r#""}"#)).await;
    };
    let (key, ()) = tokio::join!(exchange_secret(&secret, &tags, None), api);
    let key = key.unwrap();
    assert_eq!((found(CANARIES[0]), found(CANARIES[1]), found(CANARIES[2])), (1, 0, 1));
    drop((secret, key));
    assert_eq!(CANARIES.map(found), [0, 0, 0]);
}
