//! The far end: a SOCKS5 server that is itself the target, and the same without SOCKS.
//!
//! The first byte decides: 05 is a greeting, answered and followed by a request for anything, after
//! which the order comes; else it is the order itself. `D` and 8 bytes: send so many. `U` and 8
//! bytes: read so many, then answer one byte. `E`: send back what comes.

use std::io::Write as _;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CHUNK: usize = 256 << 10;

/// Serves until it is killed; the port goes to standard output.
pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    crate::room::raise_descriptors();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        std::io::stdout().flush().unwrap();
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(async move {
                    let _whoever_left = serve(stream).await;
                });
            }
        }
    });
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut order = stream.read_u8().await?;
    if order == 5 {
        order = handshake(&mut stream).await?;
    }
    match order {
        b'D' => {
            let n = stream.read_u64().await?;
            send(&mut stream, n).await?;
            stream.read_u8().await.map(drop) // the client has it all
        }
        b'U' => {
            let n = stream.read_u64().await?;
            swallow(&mut stream, n).await?;
            stream.write_all(b".").await
        }
        _ => echo(&mut stream).await,
    }
}

/// Greeting and request; returns the order behind them.
async fn handshake(stream: &mut TcpStream) -> std::io::Result<u8> {
    let mut methods = vec![0; stream.read_u8().await?.into()];
    stream.read_exact(&mut methods).await?;
    stream.write_all(&[5, 0]).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let length = match head[3] {
        1 => 4,
        4 => 16,
        _ => stream.read_u8().await?.into(),
    };
    let mut address = vec![0; length + 2];
    stream.read_exact(&mut address).await?;
    stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80]).await?;
    stream.read_u8().await
}

async fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut bytes = vec![0; 4 << 10];
    loop {
        match stream.read(&mut bytes).await? {
            0 => return Ok(()),
            n => stream.write_all(&bytes[..n]).await?,
        }
    }
}

/// Sends so many bytes.
pub(crate) async fn send(stream: &mut TcpStream, mut left: u64) -> std::io::Result<()> {
    let bytes = vec![7; CHUNK];
    while left > 0 {
        let n = left.min(CHUNK as u64);
        stream.write_all(&bytes[..n as usize]).await?;
        left -= n;
    }
    Ok(())
}

/// Reads so many bytes.
pub(crate) async fn swallow(stream: &mut TcpStream, mut left: u64) -> std::io::Result<()> {
    let mut bytes = vec![0; CHUNK];
    while left > 0 {
        match stream.read(&mut bytes).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => left -= n as u64,
        }
    }
    Ok(())
}
