//! Through a SOCKS5 server: over a greeted connection where there is one.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use tokio::time::Instant;

use super::endpoint::EndpointState;
use super::exchange::{Answer, Broken, Handshake};
use super::pool::Greeted;
use super::slots::UpstreamSlot;
use super::{Connected, Upstream, UpstreamError};
use crate::sys::Stream;

impl Upstream {
    /// Asks over a pooled connection, and over a fresh one if there is none or it turns out dead.
    pub(super) async fn by_socks5(
        &self,
        point: &EndpointState,
        address: Option<SocketAddr>,
        request: &[u8],
    ) -> Result<Connected, UpstreamError> {
        let pooled = self.pooled(point);
        let slot = match pooled {
            None => self.slots.take()?,
            Some(Greeted { stream, slot, answered, .. }) => {
                match ask(&stream, point, answered, address, request).await {
                    Ok(answer) => return Ok(connected(stream, answer, address, slot)),
                    Err(Broken::Said(error)) => return Err(error),
                    Err(Broken::Silent(_it_was_dead)) => slot,
                }
            }
        };
        let stream = self.dial_upstream(point).await?;
        let asked = greet_and_ask(&stream, point, address, request).await;
        let answer = asked.map_err(Broken::into_error)?;
        Ok(connected(stream, answer, address, slot))
    }

    fn pooled(&self, point: &EndpointState) -> Option<Greeted> {
        if self.pool_size() == 0 {
            return None;
        }
        point.pool.take(Instant::now(), &point.health)
    }
}

async fn ask(
    stream: &Stream,
    point: &EndpointState,
    answered: bool,
    address: Option<SocketAddr>,
    request: &[u8],
) -> Result<Answer, Broken> {
    let mut talk = Handshake::new(stream, &point.endpoint);
    talk.send(request).await?;
    if !answered {
        talk.method().await?;
    }
    talk.reply(address).await
}

async fn greet_and_ask(
    stream: &Stream,
    point: &EndpointState,
    address: Option<SocketAddr>,
    request: &[u8],
) -> Result<Answer, Broken> {
    let mut talk = Handshake::new(stream, &point.endpoint);
    talk.greet(request).await?;
    talk.method().await?;
    point.health.alive();
    talk.reply(address).await
}

fn connected(
    stream: Stream,
    answer: Answer,
    address: Option<SocketAddr>,
    slot: UpstreamSlot,
) -> Connected {
    let Answer { reported, early } = answer;
    Connected { stream, early, reported, address, slot }
}
