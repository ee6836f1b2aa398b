//! T1: the upstream's process is killed, and the kernel says FIN in its name.
#![forbid(unsafe_code)]

use std::process::{Child, Command, Stdio};

use super::*;
use crate::relay::RelayEnd;

/// A process that holds the upstream's end of a connection, and ours.
fn held_by_a_process(unix: bool) -> (Child, Stream) {
    let (theirs, ours): (OwnedFd, OwnedFd) = if unix {
        let (theirs, ours) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (theirs.into(), ours.into())
    } else {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ours = listener.accept().unwrap().0;
        ours.set_nonblocking(true).unwrap();
        (theirs.into(), ours.into())
    };
    // It echoes, and has nothing unread when it is killed.
    let out = theirs.try_clone().unwrap();
    let child = Command::new("cat").stdin(Stdio::from(theirs)).stdout(Stdio::from(out)).spawn();
    (child.unwrap(), Stream::new(ours).unwrap())
}

async fn kill(watched: bool, unix: bool) -> (Vec<u8>, std::io::Result<()>, RelayEnd) {
    let (mut process, theirs) = held_by_a_process(unix);
    let upstream_process = watched.then(|| Exiting::of(process.id()).unwrap());
    let bench = Choice { upstream_process, ..Choice::default() }.start_to(((), theirs)).await;
    let mut client = bench.client;
    client.write_all(b"half an ans").await.unwrap();
    let passed_on = async {
        while bench.meter.down() < 11 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon("the echo", passed_on).await;
    // Its end may be known to others before this relay has read the FIN.
    bench.upstream_process.store(None);
    process.kill().unwrap();
    let (got, end) = soon("the end", read_until_end(&mut client)).await;
    drop(client);
    let ended = soon("the relay", bench.relay).await.unwrap().ended;
    process.wait().unwrap();
    (got, end, ended)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t1_a_killed_upstream_is_a_reset_after_its_last_bytes() {
    for round in 0..40 {
        let (got, end, ended) = kill(true, round % 2 == 0).await;
        assert_eq!(got, b"half an ans", "round {round}");
        assert!(was_reset(&end), "round {round}: {end:?}");
        assert_eq!(ended, RelayEnd::UpstreamRst, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_nobody_watches_ends_by_fin() {
    let (_, end, ended) = kill(false, false).await;
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(ended, RelayEnd::FinFin);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_in_good_order_is_none_of_the_process() {
    let bench = Choice {
        upstream_process: Some(Exiting::of(std::process::id()).unwrap()),
        ..Choice::default()
    };
    let bench = bench.start().await;
    drop(bench.origin);
    let (_, end) = soon("the end", read_until_end(&mut { bench.client })).await;
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(soon("the relay", bench.relay).await.unwrap().ended, RelayEnd::FinFin);
}
