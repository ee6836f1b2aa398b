//! The SOCKS5 port (net/socks5): one reply for every failure, 5 s for a dial, and the end of the
//! whole process when there is no descriptor left to accept with.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::backend::Backend;
use super::dialect::Dialect;
use super::relay::{self, Dialled, dial};
use super::route::Way;
use super::script::{Answer, Asked, Event, State};
use super::stderr::{fatal, log};

/// For resolving and connecting together (socks5.go).
const LIMIT: Duration = Duration::from_secs(5);

/// Serves for ever.
pub(super) async fn serve(listener: TcpListener, backend: Arc<Backend>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => fatal(&format!("SOCKS5 server exited: accept tcp: accept4: {error}")),
        };
        let (backend, open) = (Arc::clone(&backend), Arc::clone(&open));
        tokio::spawn(async move {
            let count = |now: usize| backend.tell(&Event::Open(now));
            count(open.fetch_add(1, Ordering::SeqCst) + 1);
            if let Err(error) = converse(stream, &backend).await {
                log(&format!("socks5: client connection failed: {error}"));
            }
            count(open.fetch_sub(1, Ordering::SeqCst) - 1);
        });
    }
}

async fn converse(mut stream: TcpStream, backend: &Backend) -> io::Result<()> {
    let _ = stream.set_nodelay(true);
    if stream.read_u8().await? != 5 {
        return stream.write_all(&[5, 0xff]).await;
    }
    let mut methods = vec![0; stream.read_u8().await?.into()];
    stream.read_exact(&mut methods).await?;
    if !methods.contains(&0) {
        return stream.write_all(&[5, 0xff]).await;
    }
    stream.write_all(&[5, 0]).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let Some(host) = host(&mut stream, head[3]).await? else {
        return stream.write_all(&reply(1)).await;
    };
    let port = stream.read_u16().await?;
    if head[1] != 1 {
        return stream.write_all(&reply(7)).await;
    }
    let running = backend.look().state == State::Running;
    backend.tell(&Event::Socks(Asked { host: host.clone(), port, running }));
    connect(stream, backend, &host, port).await
}

async fn host(stream: &mut TcpStream, kind: u8) -> io::Result<Option<String>> {
    Ok(match kind {
        1 => Some(std::net::Ipv4Addr::from(stream.read_u32().await?).to_string()),
        4 => Some(std::net::Ipv6Addr::from(stream.read_u128().await?).to_string()),
        3 => {
            let mut name = vec![0; stream.read_u8().await?.into()];
            stream.read_exact(&mut name).await?;
            Some(String::from_utf8_lossy(&name).into_owned())
        }
        _ => None,
    })
}

async fn connect(
    mut stream: TcpStream,
    backend: &Backend,
    host: &str,
    port: u16,
) -> io::Result<()> {
    let dialled = match backend.way(host, port) {
        Way::NoSuchName => Dialled::Failed("no such host".to_owned()),
        Way::Outside { to, place } => within(dial(to, Answer::Connect, place)).await,
        Way::Tailnet { to, answer: Answer::Hang, place } => dial(to, Answer::Hang, place).await,
        Way::Tailnet { to, answer, place } => within(dial(to, answer, place)).await,
    };
    if let Dialled::Failed(words) = dialled {
        stream.write_all(&reply(1)).await?;
        return Err(io::Error::other(words));
    }
    stream.write_all(&reply(0)).await?;
    let keep = Dialect::of(&backend.look().script.version).keeps_half_close();
    let _ = relay::relay(stream, dialled, keep).await;
    Ok(())
}

async fn within(dialling: impl Future<Output = Dialled>) -> Dialled {
    let late = |_| Dialled::Failed("context deadline exceeded".to_owned());
    tokio::time::timeout(LIMIT, dialling).await.unwrap_or_else(late)
}

/// With this REP and 0.0.0.0:0 as bound address.
fn reply(rep: u8) -> [u8; 10] {
    [5, rep, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// The address a `:0` was given.
pub(super) fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().unwrap()
}
