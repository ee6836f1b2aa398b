//! Notices a client that leaves while its far side is being found.
//!
//! It takes no byte from the client: what the client sends early stays in its socket.
#![forbid(unsafe_code)]

use std::io;

use tokio::io::Interest;

use crate::sys::Stream;

/// Ends when the client is gone: a reset, or a FIN from a client that never sent a byte for the far
/// side. With `early` bytes in hand a FIN is only a half-close, and this waits for a reset.
pub(super) async fn client_gone(client: &Stream, early: bool) {
    if !early && silent_until_gone(client).await {
        return;
    }
    // Data lies unread (back-pressure, P20) or was sent early: only a reset tells now.
    if client.readiness().ready(Interest::ERROR).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// True when the client left in silence, false when it sent a byte.
async fn silent_until_gone(client: &Stream) -> bool {
    loop {
        let Ok(mut guard) = client.readiness().readable().await else {
            return true;
        };
        match client.try_peek(&mut [0]) {
            Ok(0) => return true,
            Ok(_) => return false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}
