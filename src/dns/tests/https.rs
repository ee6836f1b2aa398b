//! DNS over HTTPS against a local stand-in with a certificate of its own.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hickory_proto::op::Message;
use hyper::http::{Response, StatusCode};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;

use super::scripted_nameserver::{Tunnel, addresses, until};
use super::{Lab, NameserverAddress, PATIENT, TrustStore, found, name, zone};
use crate::labels::{DnsResult, DnsRoute};

/// A DoH server for `doh.example`; what it takes for a root.
async fn standin() -> (SocketAddr, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(["doh.example".to_owned()]).unwrap();
    let certificate = CertificateDer::from(made.cert.der().to_vec());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(answer(request, respond));
                }
            });
        }
    });
    (address, roots)
}

async fn answer(
    request: hyper::http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) {
    let right = request.uri().path() == "/dns-query" && request.uri().host() == Some("doh.example");
    let (mut body, mut question) = (request.into_body(), BytesMut::new());
    while let Some(Ok(part)) = body.data().await {
        question.extend_from_slice(&part);
    }
    let status = if right { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let response = Response::builder().status(status);
    let response = response.header("content-type", "application/dns-message").body(()).unwrap();
    let question = Message::from_vec(&question).unwrap();
    let said = addresses(&question, &["192.0.2.1", "2001:db8::1"]).to_vec().unwrap();
    respond.send_response(response, false).unwrap().send_data(said.into(), true).unwrap();
}

fn doh(at: SocketAddr, path: &str, trust: TrustStore, bootstrap: [u8; 4]) -> Lab {
    let mut zone = zone(0);
    let url = format!("https://doh.example:{}{path}", at.port());
    zone.global = vec![NameserverAddress::Https { url, bootstrap: vec![bootstrap.into()] }];
    let tunnel = Tunnel([([100, 64, 0, 1].into(), at)].into());
    Lab::trusting(zone, tunnel, PATIENT, trust)
}

#[tokio::test]
async fn https_nameservers_are_asked_directly_and_through_the_tailnet() {
    let (at, roots) = standin().await;
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    for bootstrap in [[127, 0, 0, 1], [100, 64, 0, 1]] {
        let lab = doh(at, "/dns-query", TrustStore::with_roots(roots.clone()), bootstrap);
        let both = found(&["192.0.2.1", "2001:db8::1"], DnsRoute::Global);
        assert_eq!(lab.ask("www.example").await, both);
        let plan = lab.tailnet.plan(&name("www.example"));
        assert_eq!(plan.nameservers, [format!("https://doh.example:{}", at.port())]);
        drop(lab);
        until("end of tasks", || alive() <= before).await;
    }
}

#[tokio::test]
async fn a_stranger_and_a_wrong_path_are_errors() {
    let (at, roots) = standin().await;
    let untrusted =
        doh(at, "/dns-query", TrustStore::with_roots(RootCertStore::empty()), [127, 0, 0, 1]);
    let error = untrusted.ask("www.example").await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let elsewhere = doh(at, "/elsewhere", TrustStore::with_roots(roots), [127, 0, 0, 1]);
    let error = elsewhere.ask("www.example").await.unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
    assert_eq!((error.result(), error.route()), (DnsResult::Error, DnsRoute::Global));
}
