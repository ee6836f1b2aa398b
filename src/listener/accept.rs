//! The accept loop: a place first, then a client.
#![forbid(unsafe_code)]

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::accept_errors::{self, AcceptFailures};
use super::{Accepted, Bound, Limits, Permit};
use crate::labels::AcceptErrno;
use crate::sys::{self, Listener, Stream};
use crate::target::Target;

/// Clients accepted in a row before other tasks of this worker get their turn.
const TURN: u32 = 16;

/// Accepts until `stop` ends; the listening socket is closed when the future ends or is dropped.
///
/// `own` are all the addresses we listen on: a client that asked for one of them came directly.
/// `on_error` gets the errno of each failed accept, `handle` each client. Must be called inside a
/// runtime: all the descriptors it holds are open when it returns.
pub fn accept_loop(
    bound: Bound,
    limits: Arc<Limits>,
    own: Vec<SocketAddr>,
    on_error: impl Fn(AcceptErrno),
    mut handle: impl FnMut(Accepted),
    stop: impl Future,
) -> impl Future<Output = ()> {
    let acceptor = Acceptor::new(bound, limits, own);
    async move {
        let Some(mut acceptor) = acceptor else { return };
        let run = async {
            loop {
                acceptor.turn(&on_error, &mut handle).await;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = stop => {}
            () = run => {}
        }
    }
}

struct Acceptor {
    listener: Listener,
    limits: Arc<Limits>,
    own: Vec<SocketAddr>,
    leads_to: Option<Arc<Target>>,
    transparent: bool,
    /// Where every client comes in, if that is one address: it need not be asked for.
    at: Option<SocketAddr>,
    trouble: AcceptFailures,
    /// A descriptor to give up when there is none left, so that one client can be told.
    spare: Option<OwnedFd>,
}

impl Acceptor {
    fn new(bound: Bound, limits: Arc<Limits>, own: Vec<SocketAddr>) -> Option<Self> {
        let Bound { socket, address, leads_to, transparent, .. } = bound;
        let listener = Listener::new(socket)
            .inspect_err(|error| {
                tracing::error!(%address, %error, "epoll takes no listener: nothing is accepted there");
            })
            .ok()?;
        let at = (!transparent && !address.ip().is_unspecified()).then_some(address);
        let (trouble, spare) = (AcceptFailures::new(), spare());
        Some(Self { listener, limits, own, leads_to, transparent, at, trouble, spare })
    }

    /// Accepts a few clients.
    async fn turn(&mut self, on_error: &impl Fn(AcceptErrno), handle: &mut impl FnMut(Accepted)) {
        for _ in 0..TURN {
            match self.next().await {
                Ok(accepted) => {
                    self.trouble.over();
                    handle(accepted);
                }
                Err(error) => {
                    on_error(accept_errors::label(&error));
                    self.trouble.say(&error, Instant::now());
                    if accept_errors::out_of_descriptors(&error) {
                        self.tell_one().await.into_iter().for_each(&mut *handle);
                    }
                    if let Some(pause) = self.trouble.pause(&error) {
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
    }

    /// Waits for a client, then for a place, then accepts: an idle listener holds no place.
    async fn next(&self) -> io::Result<Accepted> {
        loop {
            self.listener.somebody().await?;
            let permit = self.limits.take().await;
            match self.listener.accept().await {
                Ok((socket, peer)) => return self.welcome(socket, peer, permit),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives up the spare descriptor for one client, who is to be told that there is no room.
    async fn tell_one(&mut self) -> Option<Accepted> {
        self.spare = self.spare.take().or_else(spare);
        drop(self.spare.take()?);
        let (socket, peer) = self.listener.accept().await.ok()?;
        let permit = self.limits.take().await.without_room();
        self.welcome(socket, peer, permit).ok()
    }

    fn welcome(&self, socket: OwnedFd, peer: SocketAddr, permit: Permit) -> io::Result<Accepted> {
        let stream = Stream::new(socket)?;
        let local = match self.at {
            Some(address) => address,
            None => stream.local_addr()?,
        };
        let original_dst = self.original_dst(&stream, local);
        let permit = permit.of_client(peer, original_dst.unwrap_or(local));
        let leads_to = self.leads_to.clone();
        Ok(Accepted { stream, peer, local, original_dst, leads_to, permit })
    }
}

impl Acceptor {
    /// TPROXY leaves the destination in place, REDIRECT is asked for it.
    fn original_dst(&self, stream: &Stream, local: SocketAddr) -> Option<SocketAddr> {
        let intercepted = self.transparent.then(|| sys::intercepted(local, &self.own)).flatten();
        intercepted.or_else(|| sys::redirected(sys::original_dst(stream, local), local, &self.own))
    }
}

fn spare() -> Option<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use tokio::sync::{mpsc, oneshot};
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    struct Running {
        address: SocketAddr,
        clients: mpsc::UnboundedReceiver<Accepted>,
        stop: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<()>,
    }

    fn run(limits: Arc<Limits>) -> Running {
        let bound = Bound::new(([127, 0, 0, 1], 0).into()).unwrap();
        let address = bound.address();
        let (send, clients) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(accept_loop(
            bound,
            limits,
            vec![address],
            |_errno| {},
            move |accepted| send.send(accepted).unwrap(),
            stopped,
        ));
        Running { address, clients, stop, task }
    }

    impl Running {
        async fn client(&mut self) -> Accepted {
            timeout(DEADLINE, self.clients.recv()).await.unwrap().unwrap()
        }
    }

    #[tokio::test]
    async fn clients_come_in_with_their_addresses_and_directly() {
        let mut running = run(Limits::new(10, 0));
        let client = TcpStream::connect(running.address).unwrap();
        let accepted = running.client().await;
        assert_eq!(accepted.peer, client.local_addr().unwrap());
        assert_eq!(accepted.local, running.address);
        assert_eq!(accepted.original_dst, None);
        assert!(matches!(accepted.permit, Permit::Serve(_)));
    }

    #[tokio::test]
    async fn s2_the_port_is_free_once_stopped() {
        let running = run(Limits::new(10, 0));
        running.stop.send(()).unwrap();
        timeout(DEADLINE, running.task).await.unwrap().unwrap();
        let error = TcpStream::connect(running.address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn over_max_connections_is_overflow_until_one_leaves() {
        let mut running = run(Limits::new(1, 0));
        let _clients: Vec<_> =
            (0..3).map(|_| TcpStream::connect(running.address).unwrap()).collect();
        let first = running.client().await;
        let second = running.client().await;
        assert!(matches!(first.permit, Permit::Serve(_)));
        assert!(matches!(second.permit, Permit::Reject(_)));
        assert!(matches!(running.client().await.permit, Permit::Reject(_)));
        drop(first);
        let _fourth = TcpStream::connect(running.address).unwrap();
        assert!(matches!(running.client().await.permit, Permit::Serve(_)));
    }

    #[tokio::test]
    async fn r6_loopback_clients_are_counted_by_user() {
        let mut running = run(Limits::new(10, 1));
        let _clients: Vec<_> =
            (0..2).map(|_| TcpStream::connect(running.address).unwrap()).collect();
        let first = running.client().await;
        assert!(matches!(first.permit, Permit::Serve(_)));
        assert!(matches!(running.client().await.permit, Permit::Reject(_)));
    }

    #[tokio::test]
    async fn two_hundred_at_once_all_come_in() {
        let mut running = run(Limits::new(2000, 0));
        let address = running.address;
        let connecting = tokio::task::spawn_blocking(move || {
            (0..200).map(|_| TcpStream::connect(address).unwrap()).collect::<Vec<_>>()
        });
        let mut held = Vec::new();
        for _ in 0..200 {
            held.push(running.client().await);
        }
        assert!(held.iter().all(|accepted| matches!(accepted.permit, Permit::Serve(_))));
        assert_eq!(connecting.await.unwrap().len(), 200);
    }
}
