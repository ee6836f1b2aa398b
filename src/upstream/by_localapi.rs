//! Through LocalAPI: tailscaled dials, and the connection to its socket becomes the stream.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use bytes::Bytes;

use super::endpoint::EndpointState;
use super::exchange::{Broken, Dialled, Handshake};
use super::slots::UpstreamSlot;
use super::{Connected, Upstream, UpstreamError};

impl Upstream {
    /// Has tailscaled dial. It gives up on silent targets later than anybody waits, and does so at
    /// once when we hang up.
    pub(super) async fn by_localapi(
        &self,
        point: &EndpointState,
        address: Option<SocketAddr>,
        request: &[u8],
    ) -> Result<Connected, UpstreamError> {
        let slot = self.slots.take()?;
        let stream = self.dial_upstream(point).await?;
        let mut talk = Handshake::new(&stream, &point.endpoint);
        talk.send(request).await.map_err(Broken::into_error)?;
        let dialled = talk.dialled(address).await;
        let dialled = dialled.map_err(Broken::into_error)?;
        point.health.alive();
        match dialled {
            Dialled::Through(early) => {
                Ok(Connected { stream, early, reported: None, address, slot })
            }
            Dialled::Outside => {
                drop(stream);
                self.outside(address, slot).await
            }
        }
    }

    /// Dials from this host what tailscaled says is not the tailnet's: the very address that was
    /// admitted, whatever tailscaled would dial.
    async fn outside(
        &self,
        address: Option<SocketAddr>,
        slot: UpstreamSlot,
    ) -> Result<Connected, UpstreamError> {
        match address {
            Some(address) if self.settings.outside => {
                let stream = self.dial_far(address).await?;
                let (early, reported) = (Bytes::new(), stream.local_addr().ok());
                Ok(Connected { stream, early, reported, address: Some(address), slot })
            }
            _ => Err(UpstreamError::Outside { address }),
        }
    }
}
