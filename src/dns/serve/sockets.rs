//! The DNS server's sockets. Datagrams and connections are ours, as every accept loop here: hickory's server
//! spins when descriptors run out, ends for good with the first ECONNABORTED, bounds no clients and makes a
//! task of each datagram, an answer from memory too.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use hickory_net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_net::tcp::TcpStream;
use hickory_net::xfer::DnsStreamHandle as _;
use hickory_proto::op::SerialMessage;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{MessageTransport, QuestionHandler};
use crate::sys::Stream;

/// A connection without a question for so long is closed (RFC 7766 section 6.2.3: a few seconds).
const IDLE: Duration = Duration::from_secs(10);
/// Questions of one connection under way at once (RFC 7766 section 6.2.1.1); the next one waits unread.
const PIPELINE: usize = 16;
/// Answers that wait for a slow reader of one connection.
const WAITING: usize = 32;
/// Datagrams read before other tasks get their turn.
const BATCH: usize = 64;
/// A question in a datagram: more than anybody's, with every option.
const QUESTION: usize = 4096;
/// After a failure that does not pass by itself, a full memory for one.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers datagrams until `stop` ends. The socket is bound and non-blocking.
///
/// # Errors
/// epoll does not take the socket.
pub async fn serve_udp(
    socket: UdpSocket,
    handler: QuestionHandler,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let socket = Arc::new(tokio::net::UdpSocket::from_std(socket)?);
    let mut waiting = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            Some(_) = waiting.join_next(), if !waiting.is_empty() => {}
            ready = socket.readable() => {
                if let Err(error) = ready.and_then(|()| read_batch(&socket, &handler, &mut waiting)) {
                    tracing::debug!(%error, "a DNS datagram could not be read");
                    tokio::time::sleep(PAUSE).await;
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Reads what is there. What is known is answered at once, the rest gets a task of its own.
fn read_batch(
    socket: &Arc<tokio::net::UdpSocket>,
    handler: &QuestionHandler,
    waiting: &mut JoinSet<()>,
) -> io::Result<()> {
    let mut bytes = [0; QUESTION];
    for _ in 0..BATCH {
        let (length, peer) = match socket.try_recv_from(&mut bytes) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // What an answer of before met: nobody listens there any more.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        if peer.port() == 0 {
            continue;
        }
        let mut answer =
            Box::pin(handler.answer_message(&bytes[..length], peer, MessageTransport::Datagram));
        match (&mut answer).now_or_never() {
            Some(answer) => send_answer(socket, answer, peer),
            None => {
                let socket = Arc::clone(socket);
                waiting.spawn(async move { send_answer(&socket, answer.await, peer) });
            }
        }
    }
    Ok(())
}

/// A datagram for which there is no room is lost, as on any network: who asked asks again.
fn send_answer(socket: &tokio::net::UdpSocket, answer: Option<Vec<u8>>, peer: SocketAddr) {
    let sent = answer.map(|bytes| socket.try_send_to(&bytes, peer));
    if let Some(Err(error)) = sent {
        tracing::debug!(%error, "a DNS answer could not be sent");
    }
}

/// Answers one client, several questions at a time and each when its answer is there, until it leaves or
/// falls silent.
pub async fn serve_tcp(stream: Stream, peer: SocketAddr, handler: QuestionHandler) {
    let socket = AsyncIoTokioAsStd(stream);
    let (mut questions, mut answers) =
        TcpStream::from_stream_with_buffer_size(socket, peer, WAITING);
    let mut under_way = FuturesUnordered::new();
    let mut idle = pin!(tokio::time::sleep(IDLE));
    loop {
        tokio::select! {
            biased;
            Some(answer) = under_way.next(), if !under_way.is_empty() => {
                // What is no question ends the connection.
                let Some(bytes): Option<Vec<u8>> = answer else { return };
                if answers.send(SerialMessage::new(bytes, peer)).is_err() {
                    return;
                }
            }
            message = questions.next(), if under_way.len() < PIPELINE => {
                let Some(Ok(message)) = message else { return };
                under_way.push(handler.answer_message(message.bytes(), peer, MessageTransport::Stream));
            }
            () = &mut idle, if under_way.is_empty() => return,
        }
        idle.as_mut().reset(Instant::now() + IDLE);
    }
}
