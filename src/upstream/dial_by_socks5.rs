//! Through a SOCKS5 server: over a greeted connection where there is one.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use tokio::time::Instant;

use super::connection_slots::UpstreamSlot;
use super::endpoint::EndpointState;
use super::handshake::{ConnectAnswer, HandshakeError, UpstreamHandshake};
use super::pool::GreetedConnection;
use super::{Upstream, UpstreamConnection, UpstreamError};
use crate::sys::Stream;

impl Upstream {
    /// Asks over a pooled connection, and over a fresh one if there is none or it turns out dead.
    pub(super) async fn by_socks5(
        &self,
        point: &EndpointState,
        address: Option<SocketAddr>,
        request: &[u8],
    ) -> Result<UpstreamConnection, UpstreamError> {
        let pooled = self.take_pooled(point);
        let slot = match pooled {
            None => self.slots.take_slot()?,
            Some(GreetedConnection { stream, slot, answered, .. }) => {
                match ask_pooled(&stream, point, answered, address, request).await {
                    Ok(answer) => return Ok(into_connected(stream, answer, address, slot)),
                    Err(HandshakeError::Said(error)) => return Err(error),
                    Err(HandshakeError::Silent(_it_was_dead)) => slot,
                }
            }
        };
        let stream = self.dial_upstream(point).await?;
        let asked = greet_and_ask(&stream, point, address, request).await;
        let answer = asked.map_err(HandshakeError::into_error)?;
        Ok(into_connected(stream, answer, address, slot))
    }

    fn take_pooled(&self, point: &EndpointState) -> Option<GreetedConnection> {
        if self.pool_size() == 0 {
            return None;
        }
        point.pool.take_live(Instant::now(), &point.health)
    }
}

async fn ask_pooled(
    stream: &Stream,
    point: &EndpointState,
    answered: bool,
    address: Option<SocketAddr>,
    request: &[u8],
) -> Result<ConnectAnswer, HandshakeError> {
    let mut talk = UpstreamHandshake::new(stream, &point.endpoint);
    talk.send_bytes(request).await?;
    if !answered {
        talk.read_method().await?;
    }
    talk.read_reply(address).await
}

async fn greet_and_ask(
    stream: &Stream,
    point: &EndpointState,
    address: Option<SocketAddr>,
    request: &[u8],
) -> Result<ConnectAnswer, HandshakeError> {
    let mut talk = UpstreamHandshake::new(stream, &point.endpoint);
    talk.send_greeting(request).await?;
    talk.read_method().await?;
    point.health.note_alive();
    talk.read_reply(address).await
}

fn into_connected(
    stream: Stream,
    answer: ConnectAnswer,
    address: Option<SocketAddr>,
    slot: UpstreamSlot,
) -> UpstreamConnection {
    let ConnectAnswer { reported, early } = answer;
    UpstreamConnection { stream, early, reported, address, slot }
}
