//! The listener's thread: few connections at a time, one request and ten seconds each.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::request_origin::Hosts;
use super::{View, routes};

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 16;
/// From accept to the end of the answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a request head; beyond it the answer is 431.
const HEAD: usize = 16 << 10;
/// How often [`View::tick`] is called; live byte counters are promised every 5 s.
const TICK: Duration = Duration::from_secs(4);
/// Rest after a failed accept, most likely for want of descriptors.
const REST: Duration = Duration::from_millis(100);
/// What is still taken from a client after its answer, so that closing does not reset it.
const LINGER: (u64, Duration) = (2 << 20, Duration::from_secs(1));

/// Serves `view` on `listener`, from a thread of its own, until the process ends.
///
/// # Errors
/// No thread, no epoll instance, or a listener that cannot be polled.
pub fn serve(
    listener: TcpListener,
    admin_hosts: Vec<String>,
    view: Arc<dyn View>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let hosts = Arc::new(Hosts { further: admin_hosts });
    let serve = move || runtime.block_on(run(listener, hosts, view));
    std::thread::Builder::new().name("admin".to_owned()).spawn(serve)?;
    Ok(())
}

async fn run(listener: tokio::net::TcpListener, hosts: Arc<Hosts>, view: Arc<dyn View>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::spawn(tick(Arc::clone(&view)));
    // The semaphore is never closed.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(REST).await;
            continue;
        };
        let (hosts, view) = (Arc::clone(&hosts), Arc::clone(&view));
        tokio::spawn(async move {
            let _in_time = tokio::time::timeout(DEADLINE, exchange(stream, hosts, view)).await;
            drop(permit);
        });
    }
}

async fn tick(view: Arc<dyn View>) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        view.tick();
    }
}

/// One request, one answer, FIN.
async fn exchange(stream: TcpStream, hosts: Arc<Hosts>, view: Arc<dyn View>) {
    let Ok(local) = stream.local_addr() else { return };
    let service = service_fn(|request| {
        let (hosts, view) = (Arc::clone(&hosts), Arc::clone(&view));
        // Pinned: the connection is polled by hand below.
        Box::pin(async move {
            Ok::<_, Infallible>(respond(&hosts, view.as_ref(), &request, local.ip()).await)
        })
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).half_close(true).max_buf_size(HEAD).max_headers(100);
    let mut connection = http.serve_connection(TokioIo::new(stream), service);
    // An error is the client's: its answer, 400 or 431, is written all the same.
    let _ended = poll_fn(|cx| Pin::new(&mut connection).poll_without_shutdown(cx)).await;
    linger(connection.into_parts().io.into_inner()).await;
}

async fn respond(
    hosts: &Hosts,
    view: &dyn View,
    request: &Request<Incoming>,
    local: IpAddr,
) -> routes::Answer {
    if hosts.admit(request.headers(), request.uri(), local) {
        routes::answer(view, request.method(), request.uri()).await
    } else {
        routes::forbidden()
    }
}

/// Closes so that the answer arrives even while the client still sends.
async fn linger(mut stream: TcpStream) {
    let _gone = stream.shutdown().await;
    let (bytes, time) = LINGER;
    let mut rest = stream.take(bytes);
    let mut scratch = [0; 4096];
    let drain = async { while matches!(rest.read(&mut scratch).await, Ok(1..)) {} };
    let _enough = tokio::time::timeout(time, drain).await;
}
