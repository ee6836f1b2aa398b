//! HTTP forward: where an answer ends that has no length of its own.

use std::io::Read as _;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use super::NAME;
use tailrace_rig::socks_script::reply;
use tailrace_rig::{
    AfterReply, ConnectionEnd, FakeUpstream, Gateway, Inbound, Latch, Origin, UpstreamReply,
    client, raw_connection,
};

/// Half an answer must not look whole, least of all one that ends with its connection.
#[test]
fn forward_answer_cut_short_is_a_reset_and_never_a_fin() {
    for field in ["Content-Length: 9", "Connection: close"] {
        let (half, came) = (format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\nhalf"), Latch::new());
        let origin = Origin::send_and_reset_at(half.clone(), &came);
        let fake = FakeUpstream::with("db.corp.example", origin.address());
        let mut gateway = Gateway::chained(&fake);
        let mut wire = gateway.dial();
        wire.send(client::request(Inbound::Forward, NAME));
        wire.expect(half);
        came.open();
        wire.expect_end(ConnectionEnd::Reset);
        gateway.settle_with(&fake, 1, 1);
        assert_eq!(gateway.outcome(1), "upstream_rst");
    }
}

/// The request is sent into a connection that was reset, and takes the news from who reads the answer.
#[test]
fn forward_answer_cut_short_before_the_request_was_sent_is_a_reset_too() {
    let half = [reply(0), b"HTTP/1.1 200 OK\r\n\r\nhalf".to_vec()].concat();
    let fake = FakeUpstream::start();
    fake.answer(UpstreamReply::Bytes(half, AfterReply::Reset));
    let mut gateway = Gateway::chained(&fake);
    for n in 1..=20 {
        let mut wire = gateway.dial();
        wire.send(client::request(Inbound::Forward, NAME));
        let (bytes, end) = wire.rest();
        assert_eq!(end, ConnectionEnd::Reset, "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(gateway.outcome(n), "upstream_rst");
    }
    gateway.settle_with(&fake, 20, 20);
}

/// Its connection breaks under the rest of the request, but its end came before.
#[test]
fn forward_answer_that_ended_before_the_reset_is_whole() {
    let answer = [reply(0), b"HTTP/1.1 413 Too Much\r\n\r\nno".to_vec()].concat();
    let end = |stream: &mut TcpStream| {
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read(&mut [0]);
        raw_connection::abort(stream);
    };
    let fake = FakeUpstream::start();
    fake.answer(UpstreamReply::Bytes(answer, AfterReply::Run(Arc::new(end))));
    let mut gateway = Gateway::chained(&fake);
    for n in 1..=20 {
        let mut wire = gateway.dial();
        let length = 4 << 20;
        wire.send(format!(
            "POST http://{NAME}/ HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {length}\r\n\r\n"
        ));
        let mut sender = wire.twin();
        let body = std::thread::spawn(move || sender.try_send(vec![7; length]));
        let (bytes, end) = wire.rest();
        assert!(bytes.ends_with(b"\r\n\r\nno"), "{}", String::from_utf8_lossy(&bytes));
        assert_eq!((end, &*gateway.outcome(n)), (ConnectionEnd::Fin, "ok"));
        drop((body.join(), wire));
    }
    gateway.settle_with(&fake, 20, 20);
}
