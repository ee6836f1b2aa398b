//! The relay alone over loopback: 64 MiB by copy and by splice, and a round trip.
#![allow(clippy::unwrap_used, missing_docs)]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tailrace::lifecycle::connection_cut::Cut;
use tailrace::relay::{HalfClose, Meter, PipePool, RelaySettings};
use tailrace::sys::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BULK: usize = 64 << 20;

async fn pair() -> (TcpStream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (peer, ours) = tokio::join!(TcpStream::connect(address), listener.accept());
    let fd: OwnedFd = ours.unwrap().0.into_std().unwrap().into();
    tailrace::sys::tune(&fd).unwrap();
    let peer = peer.unwrap();
    peer.set_nodelay(true).unwrap();
    (peer, Stream::new(fd).unwrap())
}

/// A relay between two peers, in a task of its own.
async fn relay(splice: bool) -> (TcpStream, TcpStream) {
    let ((client, ours), (origin, theirs)) = (pair().await, pair().await);
    let settings = RelaySettings {
        idle: Duration::from_secs(60),
        half_close_timeout: Duration::from_secs(60),
        splice: Arc::new(AtomicBool::new(splice)),
        upstream_process: Arc::default(),
    };
    tokio::spawn(async move {
        let (pipes, meter, cut) = (PipePool::new(4, 4), Meter::default(), Cut::new());
        let (up, down) = (Bytes::new(), Bytes::new());
        let rule = HalfClose::Propagate;
        tailrace::relay::relay_streams(
            &ours, &theirs, up, down, None, rule, &settings, &pipes, &meter, &cut,
        )
        .await
    });
    (client, origin)
}

async fn bulk(client: &mut TcpStream, origin: &mut TcpStream) {
    let send = async {
        let bytes = vec![7; 256 << 10];
        for _ in 0..BULK / bytes.len() {
            client.write_all(&bytes).await.unwrap();
        }
    };
    let receive = async {
        let (mut bytes, mut left) = (vec![0; 256 << 10], BULK);
        while left > 0 {
            left -= origin.read(&mut bytes).await.unwrap();
        }
    };
    tokio::join!(send, receive);
}

async fn round_trip(client: &mut TcpStream, origin: &mut TcpStream) {
    let mut bytes = [1; 64];
    client.write_all(&bytes).await.unwrap();
    origin.read_exact(&mut bytes).await.unwrap();
    origin.write_all(&bytes).await.unwrap();
    client.read_exact(&mut bytes).await.unwrap();
}

fn relays(c: &mut Criterion) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    let mut group = c.benchmark_group("relay");
    group.sample_size(10).throughput(Throughput::Bytes(BULK as u64));
    for (name, splice) in [("64 MiB by copy", false), ("64 MiB by splice", true)] {
        let (mut client, mut origin) = runtime.block_on(relay(splice));
        group.bench_function(name, |b| {
            b.iter(|| runtime.block_on(bulk(&mut client, &mut origin)));
        });
    }
    group.finish();
    let (mut client, mut origin) = runtime.block_on(relay(true));
    c.bench_function("relay, 64-byte round trip", |b| {
        b.iter(|| runtime.block_on(round_trip(&mut client, &mut origin)));
    });
}

criterion_group!(benches, relays);
criterion_main!(benches);
