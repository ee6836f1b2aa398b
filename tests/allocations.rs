//! Allocations of the gateway per connection, by a counting allocator: memory taken and given back is
//! time on every connection's way.
//!
//! The gateway runs in this process, on the one thread whose allocations are counted; clients and
//! upstream have threads of their own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use tailrace::config::{Config, HalfCloseChoice, LogFormat, LogTo, UpstreamKind};
use tailrace::gateway::{Gateway, StartupResources};
use tailrace::record::{Telemetry, log};

/// Connections counted; what happens once in a while shares out among them.
const COUNTED: usize = 400;

/// A SOCKS5 server that is itself the far end: it sends back what it gets.
fn far_end() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || drop(echo(stream)));
        }
    });
    address
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.read_exact(&mut [0; 3])?;
    stream.write_all(&[5, 0])?;
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    stream.read_exact(&mut vec![0; usize::from(head[4]) + 2])?;
    stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80])?;
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

fn by_socks5(proxy: SocketAddr) {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.write_all(&[5, 1, 0]).unwrap();
    stream.read_exact(&mut [0; 2]).unwrap();
    stream.write_all(b"\x05\x01\0\x03\x0fdb.corp.example\0\x50").unwrap();
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[1], 0);
    one_byte(stream);
}

fn by_connect(proxy: SocketAddr) {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream
        .write_all(b"CONNECT db.corp.example:80 HTTP/1.1\r\nHost: db.corp.example:80\r\n\r\n")
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
    one_byte(stream);
}

/// There, back, and both ends.
fn one_byte(mut stream: TcpStream) {
    stream.write_all(b".").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

/// As a user has it, JSON lines to a file and all; only the names are left to the upstream.
fn settings(folder: &std::path::Path, naming: bool) -> Config {
    let mut config = Config::with_upstream(UpstreamKind::Socks5(far_end()), folder.join("run"));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    (config.listen.proxy, config.listen.admin) = (vec![any], any);
    config.upstream.half_close = HalfCloseChoice::Propagate;
    config.log.format = LogFormat::Json;
    config.log.to = LogTo::File(folder.join("log"));
    config.record.process = naming;
    config
}

/// Allocations, and bytes allocated, per connection of that kind.
fn per_connection(client: fn(SocketAddr), naming: bool) -> (f64, f64) {
    let folder = tempfile::tempdir().unwrap();
    let config = settings(folder.path(), naming);
    let (lines, writer) = log::open_log(&config.log).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let start = Gateway::start(config, Telemetry::new(lines), StartupResources::default());
    let mut gateway = runtime.block_on(start).unwrap();
    let proxy = gateway.proxy()[0];
    let carry = |count: usize| {
        let (done, all) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            (0..count).for_each(|_| client(proxy));
            done.send(()).unwrap();
        });
        runtime.block_on(all).unwrap();
    };
    carry(100); // what is made once is there
    let counted = allocation_counter::measure(|| carry(COUNTED));
    runtime.block_on(gateway.stop(std::future::ready(())));
    drop(writer);
    let each = |all: u64| all as f64 / COUNTED as f64;
    (each(counted.count_total), each(counted.bytes_total))
}

#[test]
fn a_connection_allocates_no_more_than_it_did() {
    // What was counted, and a little room. Whoever lowers a figure lowers its limit. With callers named it
    // depends on how the machine is: whom a glance finds, and how many lines, 500 bytes each, wait for a search.
    let socks5 = by_socks5 as fn(SocketAddr);
    let limits = [
        ("SOCKS5", socks5, false, 23.0, 11_200.0),
        ("CONNECT", by_connect, false, 25.0, 11_500.0),
        ("SOCKS5, callers named", socks5, true, 40.0, 12_400.0),
        ("CONNECT, callers named", by_connect, true, 42.0, 12_700.0),
    ];
    let mut over = Vec::new();
    for (name, client, naming, most, most_bytes) in limits {
        let (count, bytes) = per_connection(client, naming);
        println!("{name}: {count:.1} allocations, {bytes:.0} bytes");
        if count > most || bytes > most_bytes {
            over.push(format!(
                "{name}: {count:.1} (at most {most}), {bytes:.0} bytes ({most_bytes})"
            ));
        }
    }
    assert!(over.is_empty(), "allocations per connection: {}", over.join("; "));
}
