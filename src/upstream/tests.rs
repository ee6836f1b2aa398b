//! This module against real sockets: a SOCKS5 server that follows a script, byte by byte.
#![forbid(unsafe_code)]

mod endpoint;
mod localapi;
mod pool;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::*;
use crate::outcome::Outcome;

const DEADLINE: Duration = Duration::from_secs(10);
const GOOD: &[u8] = &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0];

/// What the server does with a request, after its greeting.
#[derive(Clone)]
enum Then {
    /// Sends this, then keeps the connection open.
    Say(Vec<u8>),
    /// Sends this, then closes.
    SayAndClose(Vec<u8>),
    /// Sends this one byte at a time.
    Drip(Vec<u8>),
    /// Says nothing.
    Silence,
    /// Resets.
    Reset,
}

struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    /// Connections whose other end is gone.
    gone: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn server(greeting: &'static [u8], then: Then) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counters: [Arc<AtomicUsize>; 3] = Default::default();
    let [connections, requests, gone] = counters.clone();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counters[0].fetch_add(1, Relaxed);
            let (counters, then) = (counters.clone(), then.clone());
            tokio::spawn(async move {
                let _client_gone = serve(stream, greeting, then, &counters).await;
                counters[2].fetch_add(1, Relaxed);
            });
        }
    });
    Server { address, connections, requests, gone, task }
}

async fn serve(
    mut stream: TcpStream,
    greeting: &[u8],
    then: Then,
    counters: &[Arc<AtomicUsize>; 3],
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.read_exact(&mut [0; 3]).await?;
    stream.write_all(greeting).await?;
    let mut head = [0; 5];
    stream.read_exact(&mut head).await?;
    let rest = match head[3] {
        1 => 5,
        3 => usize::from(head[4]) + 2,
        _ => 17,
    };
    stream.read_exact(&mut vec![0; rest]).await?;
    counters[1].fetch_add(1, Relaxed);
    match then {
        Then::Say(bytes) => stream.write_all(&bytes).await?,
        Then::SayAndClose(bytes) => return stream.write_all(&bytes).await,
        Then::Drip(bytes) => {
            for byte in bytes {
                stream.write_all(&[byte]).await?;
                tokio::task::yield_now().await;
            }
        }
        Then::Silence => {}
        Then::Reset => {
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
            return Ok(());
        }
    }
    while stream.read(&mut [0; 64]).await? > 0 {}
    Ok(())
}

fn settings() -> UpstreamSettings {
    UpstreamSettings {
        kind: Kind::Socks5,
        connect_timeout: Duration::from_secs(7),
        local_timeout: Duration::from_secs(2),
        pool: 0,
        max_connections: None,
        mark: None,
        outside: false,
    }
}

/// The way out through the SOCKS5 server at `address`.
fn socks5(address: SocketAddr, settings: UpstreamSettings) -> Arc<Upstream> {
    let upstream = Upstream::new(settings);
    upstream.set_endpoint(Some(Endpoint::Port(address)));
    upstream
}

fn target(text: &str) -> Target {
    Target::parse_authority(text.as_bytes(), None).unwrap()
}

async fn ask(upstream: &Upstream) -> Result<UpstreamConnection, UpstreamError> {
    upstream.connect_to(ConnectGoal::Target(&target("db.corp.example:5432"))).await
}

async fn ask_once(
    greeting: &'static [u8],
    then: Then,
) -> Result<UpstreamConnection, UpstreamError> {
    let server = server(greeting, then).await;
    ask(&socks5(server.address, settings())).await
}

async fn outcome(greeting: &'static [u8], then: Then) -> Outcome {
    ask_once(greeting, then).await.unwrap_err().outcome()
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(DEADLINE, wait).await.is_ok(), "not within {DEADLINE:?}: {what}");
}

fn port_nobody_listens_on() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn u1_a_closed_port_is_down_at_once() {
    let upstream = socks5(port_nobody_listens_on(), settings());
    let begun = Instant::now();
    let error = ask(&upstream).await.unwrap_err();
    assert!(error.is_down(), "{error}");
    assert!(begun.elapsed() < Duration::from_millis(250));
    assert!(!upstream.is_up());
}

#[tokio::test]
async fn u2_a_full_backlog_is_a_timeout_of_its_own() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let _fills_it: Vec<_> = (0..2).map(|_| tokio::spawn(TcpStream::connect(address))).collect();
    sleep(Duration::from_millis(100)).await;
    let local_timeout = Duration::from_millis(200);
    let upstream = socks5(address, UpstreamSettings { local_timeout, ..settings() });
    let error = ask(&upstream).await.unwrap_err();
    assert!(matches!(error, UpstreamError::LocalTimeout { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::ConnectTimeout);
}

#[tokio::test]
async fn u3_u4_silence_is_a_timeout_and_the_socket_is_closed() {
    for greeting in [&b""[..], &[5, 0]] {
        let server = server(greeting, Then::Silence).await;
        let connect_timeout = Duration::from_millis(100);
        let upstream = socks5(server.address, UpstreamSettings { connect_timeout, ..settings() });
        let error = ask(&upstream).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Timeout { .. }), "{error}");
        until("the late connection is closed", || server.gone.load(Relaxed) == 1).await;
    }
}

#[tokio::test]
async fn u5_a_reset_after_the_request_is_failed() {
    assert_eq!(outcome(&[5, 0], Then::Reset).await, Outcome::UpstreamFailed);
    assert_eq!(outcome(&[5, 0], Then::SayAndClose(vec![])).await, Outcome::UpstreamFailed);
    assert_eq!(outcome(&[5, 0], Then::SayAndClose(vec![5, 0, 0])).await, Outcome::UpstreamFailed);
}

#[tokio::test]
async fn u6_a_reply_in_single_bytes_is_fine() {
    let connected = ask_once(&[5, 0], Then::Drip(GOOD.to_vec())).await.unwrap();
    assert_eq!((connected.reported, connected.early.len()), (None, 0));
}

#[tokio::test]
async fn u7_a_short_refusal_is_not_waited_out() {
    let begun = Instant::now();
    for short in [&[5, 1][..], &[5, 1, 0, 0]] {
        let said = outcome(&[5, 0], Then::Say(short.to_vec())).await;
        assert_eq!(said, Outcome::UpstreamFailed);
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn u8_garbage_is_a_protocol_error() {
    let say = |bytes: &[u8]| Then::Say(bytes.to_vec());
    for then in [say(b"\x04\x5a"), say(b"HTTP/1.1 400 Bad\r\n"), say(&[5, 0, 0, 9]), say(&[5, 9])] {
        assert_eq!(outcome(&[5, 0], then).await, Outcome::UpstreamProtocol);
    }
    for greeting in [&b"SSH-2.0-x\r\n"[..], &[5, 0xff], &[5, 2]] {
        assert_eq!(outcome(greeting, Then::Silence).await, Outcome::UpstreamProtocol);
    }
}

#[tokio::test]
async fn u9_early_bytes_in_the_same_segment_are_kept() {
    let reply = b"\x05\x00\x00\x03\x04name\x00\x50first bytes";
    let connected = ask_once(&[5, 0], Then::Say(reply.to_vec())).await.unwrap();
    assert_eq!(&connected.early[..], b"first bytes");
    assert_eq!(connected.reported, None);
    let mut reply = vec![5, 0, 0, 4];
    reply.extend(std::net::Ipv6Addr::LOCALHOST.octets());
    reply.extend([0, 80]);
    let connected = ask_once(&[5, 0], Then::Say(reply)).await.unwrap();
    assert_eq!(connected.reported, Some("[::1]:80".parse().unwrap()));
}

#[tokio::test]
async fn u14_dropping_the_future_closes_the_connection() {
    let server = server(&[5, 0], Then::Silence).await;
    let upstream = socks5(server.address, settings());
    let asking = tokio::spawn(async move { drop(ask(&upstream).await) });
    until("the request is there", || server.requests.load(Relaxed) == 1).await;
    asking.abort();
    until("the connection is closed", || server.gone.load(Relaxed) == 1).await;
}

#[tokio::test]
async fn the_pool_is_filled_used_and_filled_again() {
    let server = server(&[5, 0], Then::Say(GOOD.to_vec())).await;
    let upstream = socks5(server.address, UpstreamSettings { pool: 3, ..settings() });
    let keeper = tokio::spawn(Arc::clone(&upstream).keep_pool());
    until("the pool is full", || upstream.pool_counts() == (3, 0)).await;
    assert!(upstream.is_up());
    let _connected = ask(&upstream).await.unwrap();
    until("the pool is full again", || upstream.pool_counts() == (3, 0)).await;
    // Counted where they are accepted, which may be later.
    until("another one came", || server.connections.load(Relaxed) >= 4).await;
    assert_eq!(server.requests.load(Relaxed), 1);
    assert_eq!(server.connections.load(Relaxed), 4, "the request used a pooled one");
    keeper.abort();
}

#[tokio::test]
async fn a_pooled_connection_that_dies_is_retried_once_on_a_fresh_one() {
    let server = server(&[5, 0], Then::Reset).await;
    let upstream = socks5(server.address, UpstreamSettings { pool: 1, ..settings() });
    let keeper = tokio::spawn(Arc::clone(&upstream).keep_pool());
    until("the pool is full", || upstream.pool_counts().0 == 1).await;
    keeper.abort();
    let error = ask(&upstream).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::UpstreamFailed, "{error}");
    assert_eq!(server.requests.load(Relaxed), 2, "the pooled one and one retry");
}

#[tokio::test]
async fn u1_a_dead_upstream_is_noticed_and_not_stormed() {
    let server = server(&[5, 0], Then::Silence).await;
    let upstream = socks5(server.address, UpstreamSettings { pool: 8, ..settings() });
    let keeper = tokio::spawn(Arc::clone(&upstream).keep_pool());
    until("the pool is full", || upstream.pool_counts().0 == 8).await;
    let point = upstream.current_endpoint().unwrap();
    point.pool.take_live(Instant::now(), &point.health).unwrap();
    let address = server.address;
    server.task.abort();
    until("it is known to be down", || !upstream.is_up()).await;
    let listener = TcpListener::bind(address).await;
    if let Ok(listener) = listener {
        let _one_probe = timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
        let second = timeout(Duration::from_millis(300), listener.accept()).await;
        assert!(second.is_err(), "one at a time while it is not known to be up");
    }
    keeper.abort();
}

#[tokio::test]
async fn without_a_pool_one_probe_tells_that_it_is_up() {
    let server = server(&[5, 0], Then::Silence).await;
    let upstream = socks5(server.address, settings());
    let keeper = tokio::spawn(Arc::clone(&upstream).keep_pool());
    until("it is up", || upstream.is_up()).await;
    until("the probe is closed", || server.gone.load(Relaxed) == 1).await;
    assert_eq!((server.connections.load(Relaxed), upstream.pool_counts().0), (1, 0));
    keeper.abort();
}

#[tokio::test]
async fn the_bound_on_connections_counts_until_the_slot_is_dropped() {
    let server = server(&[5, 0], Then::Say(GOOD.to_vec())).await;
    let bounded = UpstreamSettings { max_connections: Some(1), ..settings() };
    let upstream = socks5(server.address, bounded);
    let first = ask(&upstream).await.unwrap();
    assert_eq!(ask(&upstream).await.unwrap_err().outcome(), Outcome::Overloaded);
    drop(first);
    assert!(ask(&upstream).await.is_ok());
}

#[tokio::test]
async fn direct_dials_the_first_address_that_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = listener.local_addr().unwrap();
    let upstream = Upstream::new(UpstreamSettings { kind: Kind::Direct, ..settings() });
    let list = [port_nobody_listens_on(), good];
    let connected = upstream.connect_to(ConnectGoal::Addresses(&list)).await.unwrap();
    assert_eq!(connected.address, Some(good));
    assert_eq!(connected.reported, connected.stream.local_addr().ok());
    let refused = upstream.connect_to(ConnectGoal::Addresses(&list[..1])).await.unwrap_err();
    assert_eq!(refused.outcome(), Outcome::Refused);
    let name = upstream.connect_to(ConnectGoal::Target(&target("name.example:80"))).await;
    assert!(matches!(name, Err(UpstreamError::NoAddress)));
    assert!(upstream.is_up());
}
