//! The world behind the gateway: a SOCKS5 upstream, the names it knows, and two services.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Documentation networks (RFC 5737, RFC 3849): addresses that lead nowhere else.
pub(super) const NETS: [&str; 2] = ["203.0.113.0/24", "2001:db8::/32"];
/// Bytes the bulk service sends.
pub(super) const BULK: u64 = 256 << 20;

/// The upstream and its services while they run, each on a loopback port that the kernel picked.
pub(super) struct DemoWorld {
    upstream: SocketAddr,
    asked: Arc<AtomicU64>,
}

#[derive(Clone, Copy)]
struct DemoServices {
    echo: SocketAddr,
    web: SocketAddr,
}

impl DemoWorld {
    pub(super) async fn start() -> io::Result<Self> {
        let services = DemoServices { echo: serve(echo).await?, web: serve(web).await? };
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        let upstream = serve(move |client| socks(client, services, Arc::clone(&count))).await?;
        Ok(Self { upstream, asked })
    }

    pub(super) fn upstream(&self) -> SocketAddr {
        self.upstream
    }

    /// Requests the upstream has seen.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn serve<F, R>(handle: F) -> io::Result<SocketAddr>
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(handle(client));
        }
    });
    Ok(address)
}

async fn echo(mut client: TcpStream) -> io::Result<()> {
    let (mut read, mut write) = client.split();
    tokio::io::copy(&mut read, &mut write).await?;
    write.shutdown().await
}

/// Enough of HTTP for requests this program sends itself.
async fn web(mut client: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let head = match until(&mut client, &mut buffer, b"\r\n\r\n").await? {
            Some(head) => String::from_utf8_lossy(&head).into_owned(),
            None => return Ok(()),
        };
        if head.starts_with("GET /bulk ") {
            return bulk(client).await;
        }
        let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            until(&mut client, &mut buffer, b"0\r\n\r\n").await?.unwrap_or_default()
        } else {
            head.lines().next().unwrap_or_default().as_bytes().to_vec()
        };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        client.write_all(&[answer.as_bytes(), &body].concat()).await?;
    }
}

async fn bulk(mut client: TcpStream) -> io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BULK}\r\nConnection: close\r\n\r\n");
    client.write_all(head.as_bytes()).await?;
    let piece = vec![0x5a; 256 << 10];
    for _ in 0..BULK / piece.len() as u64 {
        client.write_all(&piece).await?;
    }
    client.shutdown().await
}

/// Takes everything up to and with `end`; nothing at a clean end.
async fn until(
    client: &mut TcpStream,
    buffer: &mut Vec<u8>,
    end: &[u8],
) -> io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(at) = buffer.windows(end.len()).position(|window| window == end) {
            let rest = buffer.split_off(at + end.len());
            return Ok(Some(std::mem::replace(buffer, rest)));
        }
        if client.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// A SOCKS5 server that knows the demonstration's names (RFC 1928).
async fn socks(
    mut client: TcpStream,
    services: DemoServices,
    asked: Arc<AtomicU64>,
) -> io::Result<()> {
    client.read_exact(&mut [0; 3]).await?;
    client.write_all(&[5, 0]).await?;
    let mut start = [0; 4];
    client.read_exact(&mut start).await?;
    let mut host = vec![
        0;
        match start[3] {
            1 => 4,
            4 => 16,
            _ => usize::from(client.read_u8().await?),
        }
    ];
    client.read_exact(&mut host).await?;
    let port = client.read_u16().await?;
    asked.fetch_add(1, Ordering::Relaxed);
    let known = start[3] != 3 || host.ends_with(b".corp.demo");
    let reply = |code: u8| [5, code, 0, 1, 0, 0, 0, 0, 0, 0];
    let service = match (known, port) {
        (true, 5432) => services.echo,
        (true, 80) => services.web,
        (true, 9) => return client.write_all(&reply(5)).await,
        _ => return client.write_all(&reply(4)).await,
    };
    let mut far = TcpStream::connect(service).await?;
    client.write_all(&reply(0)).await?;
    tokio::io::copy_bidirectional(&mut client, &mut far).await.map(drop)
}
