//! Through LocalAPI: tailscaled dials, and the connection to its socket becomes the stream.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use bytes::Bytes;

use super::connection_slots::UpstreamSlot;
use super::endpoint::EndpointState;
use super::handshake::{DialOutcome, HandshakeError, UpstreamHandshake};
use super::{Upstream, UpstreamConnection, UpstreamError};

impl Upstream {
    /// Has tailscaled dial. It gives up on silent targets later than anybody waits, and does so at
    /// once when we hang up.
    pub(super) async fn by_localapi(
        &self,
        point: &EndpointState,
        address: Option<SocketAddr>,
        request: &[u8],
    ) -> Result<UpstreamConnection, UpstreamError> {
        let slot = self.slots.take_slot()?;
        let stream = self.dial_upstream(point).await?;
        let mut talk = UpstreamHandshake::new(&stream, &point.endpoint);
        talk.send_bytes(request).await.map_err(HandshakeError::into_error)?;
        let dialled = talk.read_dial_answer(address).await;
        let dialled = dialled.map_err(HandshakeError::into_error)?;
        point.health.note_alive();
        match dialled {
            DialOutcome::Through(early) => {
                Ok(UpstreamConnection { stream, early, reported: None, address, slot })
            }
            DialOutcome::Outside => {
                drop(stream);
                self.dial_outside(address, slot).await
            }
        }
    }

    /// Dials from this host what tailscaled says is not the tailnet's: the very address that was
    /// admitted, whatever tailscaled would dial.
    async fn dial_outside(
        &self,
        address: Option<SocketAddr>,
        slot: UpstreamSlot,
    ) -> Result<UpstreamConnection, UpstreamError> {
        match address {
            Some(address) if self.settings.outside => {
                let stream = self.dial_far(address).await?;
                let (early, reported) = (Bytes::new(), stream.local_addr().ok());
                Ok(UpstreamConnection { stream, early, reported, address: Some(address), slot })
            }
            _ => Err(UpstreamError::Outside { address }),
        }
    }
}
