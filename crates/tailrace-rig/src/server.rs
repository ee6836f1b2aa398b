//! The accept loop every scripted server of the rig stands on.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::raw_connection;

/// A listener on 127.0.0.1 whose connections each get a thread. Stops when dropped.
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    streams: Arc<Mutex<HashMap<usize, TcpStream>>>,
}

impl Server {
    /// Serves each connection by `serve`, on a port the kernel picks.
    pub fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
        Server::on("127.0.0.1:0".parse().unwrap(), serve)
    }

    /// The same on a given address.
    pub fn on(address: SocketAddr, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind(address)
            .unwrap_or_else(|e| panic!("rig: cannot listen on {address}: {e}"));
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let streams = Arc::new(Mutex::new(HashMap::new()));
        let (halt, kept) = (stop.clone(), streams.clone());
        let serve = Arc::new(serve);
        spawn(move || {
            let mut number = 0;
            while !halt.load(Ordering::Relaxed) {
                if !readable(&listener, Duration::from_millis(20)) {
                    continue;
                }
                let Ok((stream, _)) = listener.accept() else { continue };
                let _ = stream.set_nodelay(true);
                number += 1;
                if let Ok(twin) = stream.try_clone() {
                    kept.lock().unwrap().insert(number, twin);
                }
                let (serve, kept) = (serve.clone(), kept.clone());
                spawn(move || {
                    serve(stream);
                    // The last descriptor goes here, so what `serve` left unsaid becomes FIN now.
                    kept.lock().unwrap().remove(&number);
                });
            }
        });
        Server { address, stop, streams }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection it has.
    pub fn reset_all(&self) {
        for stream in self.streams.lock().unwrap().values() {
            raw_connection::abort(stream);
        }
    }

    /// Closes the listening port; established connections stay.
    pub fn stop_listening(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let gone =
            || TcpStream::connect_timeout(&self.address, Duration::from_millis(200)).is_err();
        super::wait::eventually("the rig's listener is closed", Duration::from_secs(2), gone);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.reset_all();
    }
}

/// A small-stacked thread; the rig may need thousands.
pub fn spawn(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .name("rig".into())
        .stack_size(256 * 1024)
        .spawn(work)
        .expect("rig: no thread");
}

/// Whether `fd` has something to accept or read within `limit`.
pub fn readable(fd: &impl AsFd, limit: Duration) -> bool {
    happens(fd, PollFlags::IN, limit)
}

/// Blocks until the peer has closed or reset, reading nothing, or until `limit` has passed.
pub fn peer_left(fd: &impl AsFd, limit: Duration) -> bool {
    happens(fd, PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR, limit)
}

fn happens(fd: &impl AsFd, what: PollFlags, limit: Duration) -> bool {
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    let mut fds = [PollFd::new(fd, what)];
    poll(&mut fds, Some(&limit)).unwrap_or(0) > 0
}

/// An address where nobody listens and nobody else can: bound, never listening.
pub struct ClosedPort(socket2::Socket);

impl ClosedPort {
    /// Takes a port from the kernel.
    pub fn new() -> ClosedPort {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        ClosedPort(socket)
    }

    /// The refusing address.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }
}

/// A listener whose accept queue is full: further SYNs are dropped.
pub struct FullBacklog {
    listener: socket2::Socket,
    _queue: Vec<socket2::Socket>,
}

impl FullBacklog {
    /// Listens with the smallest queue and fills it until a connect no longer completes.
    pub fn new() -> FullBacklog {
        let listener =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        for _ in 0..8 {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            let full = socket.connect_timeout(&address, Duration::from_millis(100)).is_err();
            queue.push(socket);
            if full {
                return FullBacklog { listener, _queue: queue };
            }
        }
        panic!("rig: the accept queue takes more than 8 connections");
    }

    /// The address that swallows SYNs.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap().as_socket().unwrap()
    }
}
