//! T1 over HTTP forward: an answer that ends with its connection is not whole when the upstream's
//! process was killed.
#![forbid(unsafe_code)]

use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use bytes::Bytes;

use super::*;
use crate::sys::Exiting;

struct Uncounted;

impl ByteCounter for Uncounted {
    fn count_up(&self, _bytes: u64) {}
    fn count_down(&self, _bytes: u64) {}
}

fn stream(socket: UnixStream) -> Stream {
    socket.set_nonblocking(true).unwrap();
    Stream::new(socket.into()).unwrap()
}

/// How an exchange ends whose upstream is killed after the beginning of its answer.
async fn killed(watched: bool) -> Outcome {
    let (theirs, ours) = UnixStream::pair().unwrap();
    let (input, output) = (theirs.try_clone().unwrap(), theirs);
    // It reads the request whole before it answers, for unread bytes would make its end a reset.
    let script = r"while read -r line && [ ${#line} -gt 1 ]; do :; done
        printf 'HTTP/1.1 200 OK\r\n\r\nhalf'; exec sleep 60";
    let mut process = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(input)))
        .stdout(Stdio::from(std::os::fd::OwnedFd::from(output)))
        .spawn()
        .unwrap();
    let watch = watched.then(|| Exiting::of(process.id()).unwrap());
    let (near, client) = UnixStream::pair().unwrap();
    let (near, client, upstream) = (stream(near), stream(client), stream(ours));

    let head = b"GET http://db.corp.example/ HTTP/1.1\r\nHost: db.corp.example\r\n\r\n";
    let Ok(Parsed::Whole { value, .. }) =
        head::parse_head(head, MessageKind::Request, head::DEFAULT_MAX_HEAD)
    else {
        panic!()
    };
    let mut session = ForwardSession::new(value, BytesMut::new());
    let limit = Duration::from_secs(20);
    let request = session.read_request(&client, limit, head::DEFAULT_MAX_HEAD).await.unwrap();
    let way = ExchangeSockets {
        client: &client,
        upstream: &upstream,
        idle: limit,
        max_head: head::DEFAULT_MAX_HEAD,
        upstream_process: watch.as_ref(),
    };
    let killer = async {
        let mut seen = BytesMut::new();
        while !seen.ends_with(b"half") {
            near.read_more(&mut seen, 1_024).await.unwrap();
        }
        process.kill().unwrap();
    };
    let exchange = session.carry_exchange(way, Bytes::new(), &request, &Uncounted);
    let (exchange, ()) = tokio::join!(exchange, killer);
    process.wait().unwrap();
    exchange.outcome
}

#[tokio::test]
async fn t1_a_killed_upstream_ends_no_answer() {
    for _ in 0..10 {
        assert_eq!(killed(true).await, Outcome::UpstreamRst);
    }
    assert_eq!(killed(false).await, Outcome::Ok, "of somebody else's process nothing is known");
}
