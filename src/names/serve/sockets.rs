//! The DNS server's sockets: datagrams by hickory's server, connections by our own accept loop.
//!
//! hickory's accept loop is not used: it spins when descriptors run out, ends for good with the first
//! ECONNABORTED, and bounds no clients.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use futures_util::StreamExt as _;
use hickory_server::Server;
use hickory_server::net::runtime::TokioTime;
use hickory_server::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_server::net::tcp::TcpStream;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler as _, ResponseHandle, TimeoutStream};

use super::Handler;
use crate::sys::Stream;

/// A connection without a question for so long is closed (RFC 7766 section 6.2.3: a few seconds).
const IDLE: Duration = Duration::from_secs(10);
/// Answers that wait for a slow reader of one connection.
const WAITING: usize = 32;

/// Answers datagrams until `stop` ends. The socket is bound and non-blocking.
///
/// # Errors
/// epoll does not take the socket, or the socket broke.
pub async fn udp(
    socket: UdpSocket,
    handler: Handler,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut server = Server::new(handler);
    server.register_socket(tokio::net::UdpSocket::from_std(socket)?);
    tokio::select! {
        biased;
        () = stop => Ok(()),
        ended = server.block_until_done() => ended.map_err(io::Error::other),
    }
}

/// Answers one client, a question after the other, until it leaves or falls silent.
pub async fn tcp(stream: Stream, peer: SocketAddr, handler: Handler) {
    let socket = AsyncIoTokioAsStd(stream);
    let (stream, answers) = TcpStream::from_stream_with_buffer_size(socket, peer, WAITING);
    let mut questions = TimeoutStream::new(stream, IDLE);
    while let Some(Ok(message)) = questions.next().await {
        let (bytes, peer) = message.into_parts();
        // What is no DNS ends the connection; so does an answer that somebody sends here.
        let Ok(request) = Request::from_bytes(bytes, peer, Protocol::Tcp) else { return };
        if request.metadata.message_type != hickory_server::proto::op::MessageType::Query {
            return;
        }
        let answer = ResponseHandle::new(peer, answers.clone(), Protocol::Tcp);
        handler.handle_request::<_, TokioTime>(&request, answer).await;
    }
}
