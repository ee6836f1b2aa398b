//! Connections that are opened and greeted, and whose answer nobody waits for.
#![forbid(unsafe_code)]

use super::*;

/// A way out whose server is known to be up, with a pool that is kept.
fn known_up(address: SocketAddr, settings: UpstreamSettings) -> (Arc<Upstream>, JoinHandle<()>) {
    let upstream = socks5(address, settings);
    upstream.current_endpoint().unwrap().health.note_alive();
    let keeper = tokio::spawn(Arc::clone(&upstream).keep_pool());
    (upstream, keeper)
}

#[tokio::test]
async fn u3_a_server_that_stops_answering_greetings_is_down() {
    let silent = server(b"", Then::Silence).await;
    let hurried =
        UpstreamSettings { pool: 3, local_timeout: Duration::from_millis(100), ..settings() };
    let (upstream, keeper) = known_up(silent.address, hurried);
    until("three are open", || upstream.pool_counts().0 == 3).await;
    until("it is known to be down", || !upstream.is_up()).await;
    until("they are closed", || silent.gone.load(Relaxed) >= 3).await;
    keeper.abort();
}

#[tokio::test]
async fn u5_a_server_that_closes_instead_of_answering_is_down_and_not_stormed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let closing = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
            count.fetch_add(1, Relaxed);
        }
    });
    let (upstream, keeper) = known_up(address, UpstreamSettings { pool: 8, ..settings() });
    until("it is known to be down", || !upstream.is_up()).await;
    let before = accepted.load(Relaxed);
    sleep(Duration::from_millis(300)).await;
    let more = accepted.load(Relaxed) - before;
    assert!(
        before <= 9 && more <= 3,
        "{before} at first, then {more}: one at a time, 100 ms apart"
    );
    keeper.abort();
    closing.abort();
}

#[tokio::test]
async fn a_bad_answer_is_noticed_at_the_next_look() {
    let server = server(&[5, 0xff], Then::Silence).await;
    let (upstream, keeper) = known_up(server.address, UpstreamSettings { pool: 1, ..settings() });
    until("one is open", || upstream.pool_counts().0 == 1).await;
    keeper.abort();
    let point = upstream.current_endpoint().unwrap();
    let look = || point.pool.close_stale(Instant::now(), DEADLINE, &point.health);
    until("it is known to be down", || (look(), !upstream.is_up()).1).await;
    assert_eq!(upstream.pool_counts().0, 0);
    assert_eq!(ask(&upstream).await.unwrap_err().outcome(), Outcome::UpstreamProtocol);
}

#[tokio::test]
async fn a_connection_is_of_use_before_its_greeting_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let late = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = socks5::request(&target("db.corp.example:5432"));
        let mut all = vec![0; socks5::GREETING.len() + request.len()];
        stream.read_exact(&mut all).await.unwrap();
        assert_eq!(all, [&socks5::GREETING[..], &request].concat());
        stream.write_all(&[&[5, 0], GOOD, b"early"].concat()).await.unwrap();
        stream
    });
    let (upstream, keeper) = known_up(address, UpstreamSettings { pool: 1, ..settings() });
    until("one is open", || upstream.pool_counts().0 == 1).await;
    keeper.abort();
    let connected = ask(&upstream).await.unwrap();
    assert_eq!(&connected.early[..], b"early");
    drop(late.await.unwrap());
}
