//! [`Stream`] for libraries that speak over any byte stream (`tokio::io`).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stream;

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.readiness().poll_read_ready(cx))?;
            let room = buf.initialize_unfilled();
            let read = guard.try_io(|fd| {
                let read = retry_on_intr(|| rustix::net::recv(fd, &mut *room, RecvFlags::empty()))?;
                Ok(read.0)
            });
            if let Ok(read) = read {
                return Poll::Ready(read.map(|read| buf.advance(read)));
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.readiness().poll_write_ready(cx))?;
            let sent = guard.try_io(|fd| {
                Ok(retry_on_intr(|| {
                    let mut nothing = SendAncillaryBuffer::default();
                    rustix::net::sendmsg(fd, bufs, &mut nothing, SendFlags::NOSIGNAL)
                })?)
            });
            if let Ok(sent) = sent {
                return Poll::Ready(sent);
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn more_than_the_buffers_hold_comes_through_whole() {
        const MUCH: usize = 8 * 1024 * 1024;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(crate::dial(address, None), listener.accept());
        let (mut near, (mut far, _)) = (near.unwrap(), far.unwrap());
        let sent: Vec<u8> = (0..MUCH).map(|n| (n % 251) as u8).collect();
        let echo = tokio::spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            far.write_all(&got).await.unwrap();
        });
        near.write_all(&sent).await.unwrap();
        near.shutdown().await.unwrap();
        let mut got = Vec::new();
        near.read_to_end(&mut got).await.unwrap();
        echo.await.unwrap();
        assert!(got == sent, "{} bytes of {MUCH}", got.len());
    }
}
