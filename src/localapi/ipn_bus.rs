//! The IPN bus: what tailscaled says as it happens, a line of JSON for each (ipn/localapi, `watch-ipn-bus`).
#![forbid(unsafe_code)]

use tokio::net::UnixStream;

use super::{LocalApiError, MAX_ANSWER, messages, of_http};
use crate::http_client::HttpResponse;

/// What is kept allocated between lines, in bytes.
const LASTING: usize = 64 * 1024;
const PATH: &str = "watch-ipn-bus";

/// A bus that is open.
pub(crate) struct IpnBus {
    response: HttpResponse<UnixStream>,
    /// What has come and is no whole line yet.
    pending: Vec<u8>,
}

impl IpnBus {
    pub(super) fn new(response: HttpResponse<UnixStream>) -> Self {
        Self { response, pending: Vec::new() }
    }

    /// The next thing said; none when tailscaled closed the bus. Lines that cannot be understood are passed over.
    /// Dropping the future loses nothing.
    pub(crate) async fn next(
        &mut self,
    ) -> Result<Option<messages::BusNotification>, LocalApiError> {
        let mut searched = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.pending[searched..]) {
                let end = searched + at;
                let notify = serde_json::from_slice(&self.pending[..end]);
                self.pending.drain(..=end);
                self.pending.shrink_to(LASTING); // a netmap of megabytes has been here
                searched = 0;
                match notify {
                    Ok(notify) => return Ok(Some(notify)),
                    Err(error) => tracing::debug!(%error, "a line of the bus is not understood"),
                }
                continue;
            }
            searched = self.pending.len();
            let more = self.response.read_body(&mut self.pending, MAX_ANSWER).await;
            if !more.map_err(|error| of_http(PATH, error))? {
                return Ok(None);
            }
        }
    }
}
