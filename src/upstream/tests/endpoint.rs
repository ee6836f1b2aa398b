//! Where the upstream is may change while it runs.
#![forbid(unsafe_code)]

use super::*;

#[tokio::test]
async fn u1_nowhere_is_down_at_once() {
    for kind in [Kind::Tailscaled, Kind::LocalApi, Kind::Socks5] {
        let upstream = Upstream::new(UpstreamSettings { kind, ..settings() });
        assert!(ask(&upstream).await.unwrap_err().is_down());
        assert!(upstream.probe().await.unwrap_err().is_down());
        assert_eq!((upstream.is_up(), upstream.endpoint()), (false, None));
    }
}

#[tokio::test]
async fn another_place_empties_the_pool_and_fills_it_there() {
    let (old, new) =
        (server(&[5, 0], Then::Silence).await, server(&[5, 0], Then::Say(GOOD.to_vec())).await);
    let settings = UpstreamSettings { kind: Kind::Tailscaled, pool: 3, ..settings() };
    let upstream = socks5(old.address, settings);
    let keeper = tokio::spawn(Arc::clone(&upstream).keep_pool());
    until("the pool is full", || upstream.pool_counts() == (3, 0)).await;
    upstream.set_endpoint(Some(Endpoint::Port(old.address)));
    assert_eq!(upstream.pool_counts(), (3, 0), "the same place changes nothing");
    upstream.set_endpoint(None);
    assert_eq!((upstream.is_up(), upstream.pool_counts()), (false, (0, 0)));
    until("what was held is closed", || old.gone.load(Relaxed) == 3).await;
    upstream.set_endpoint(Some(Endpoint::Port(new.address)));
    until("the pool is full again", || upstream.pool_counts() == (3, 0)).await;
    assert!(upstream.is_up());
    assert_eq!(upstream.endpoint(), Some(Endpoint::Port(new.address)));
    ask(&upstream).await.unwrap();
    assert_eq!((old.requests.load(Relaxed), new.requests.load(Relaxed)), (0, 1));
    keeper.abort();
}

#[tokio::test]
async fn the_bound_may_change_while_it_runs() {
    let server = server(&[5, 0], Then::Say(GOOD.to_vec())).await;
    let upstream = socks5(server.address, settings());
    let _first = ask(&upstream).await.unwrap();
    upstream.set_limit(Some(1));
    assert_eq!(ask(&upstream).await.unwrap_err().outcome(), Outcome::Overloaded);
    upstream.set_limit(Some(2));
    assert!(ask(&upstream).await.is_ok());
    assert!(upstream.probe().await.is_ok(), "a probe is beside the bound");
}

#[tokio::test]
async fn t3_a_probe_tells_greeting_silence_and_nobody() {
    let good = server(&[5, 0], Then::Silence).await;
    let upstream = socks5(good.address, settings());
    upstream.probe().await.unwrap();
    assert!(upstream.is_up());
    let silent = server(b"", Then::Silence).await;
    let hurried = UpstreamSettings { local_timeout: Duration::from_millis(100), ..settings() };
    let upstream = socks5(silent.address, hurried);
    let error = upstream.probe().await.unwrap_err();
    assert!(matches!(error, UpstreamError::LocalTimeout { .. }), "{error}");
    until("the probe is closed", || silent.gone.load(Relaxed) == 1).await;
    upstream.set_endpoint(Some(Endpoint::Port(port_nobody_listens_on())));
    assert!(upstream.probe().await.unwrap_err().is_down());
    assert!(
        Upstream::new(UpstreamSettings { kind: Kind::Direct, ..settings() }).probe().await.is_ok()
    );
}

#[tokio::test]
async fn a_refusal_without_a_reason_says_for_which_address_and_after_how_long() {
    let server = server(&[5, 0], Then::Say(vec![5, 1])).await;
    let upstream = socks5(server.address, settings());
    let address: SocketAddr = "192.0.2.1:80".parse().unwrap();
    let error = upstream.connect_to(ConnectGoal::Addresses(&[address])).await.unwrap_err();
    let UpstreamError::Failed { rep: 1, address: Some(said), after, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(said, address);
    assert!(after < Duration::from_secs(4), "{after:?}");
}
