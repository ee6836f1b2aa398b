//! Bytes both ways, with tailscaled's two habits at the end of one direction.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, copy_bidirectional, split};
use tokio::net::TcpStream;

use super::script::Answer;

/// Where a dial ends up.
pub(super) enum Dialled {
    /// At a real place.
    Origin(TcpStream),
    /// At the fake itself.
    Echo,
    /// Nowhere.
    Failed(String),
}

/// What happens to a dial; never ends where nobody answers.
pub(super) async fn dial(to: SocketAddr, answer: Answer, place: Option<SocketAddr>) -> Dialled {
    let mut answer = answer;
    while let Answer::Late(after, then) = answer {
        tokio::time::sleep(after).await;
        answer = *then;
    }
    match answer {
        Answer::Echo => Dialled::Echo,
        Answer::Words(words) => Dialled::Failed(words),
        Answer::Refused => Dialled::Failed(refused(to)),
        Answer::Connect => match TcpStream::connect(place.unwrap_or(to)).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                Dialled::Origin(stream)
            }
            Err(_) => Dialled::Failed(refused(to)),
        },
        Answer::Silent | Answer::Hang | Answer::Late(..) => std::future::pending().await,
    }
}

/// Netstack's words (gonet.DialContextTCP).
fn refused(to: SocketAddr) -> String {
    format!("dial failure: connect tcp {to}: connection was refused")
}

/// Carries bytes until both directions have ended, or, without `keep`, the first.
pub(super) async fn relay(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    to: Dialled,
    keep: bool,
) -> std::io::Result<()> {
    match to {
        Dialled::Failed(_) => Ok(()),
        Dialled::Echo => {
            let (mut from, mut back) = split(client);
            copy(&mut from, &mut back).await?;
            back.shutdown().await
        }
        Dialled::Origin(mut origin) if keep => {
            copy_bidirectional(&mut client, &mut origin).await.map(|_| ())
        }
        Dialled::Origin(mut origin) => {
            let (mut from, mut back) = split(client);
            let (mut reply, mut request) = origin.split();
            // `return <-errc`: both sockets go with the first direction that ends.
            tokio::select! {
                up = copy(&mut from, &mut request) => up,
                down = copy(&mut reply, &mut back) => down,
            }
            .map(|_| ())
        }
    }
}
