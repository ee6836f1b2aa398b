//! A SOCKS5 upstream that says yes to thousands of tunnels and holds them, one descriptor each and
//! no thread each.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::client;
use super::server::{readable, spawn};
use super::socks_script::reply;
use super::wait::PATIENCE;

/// The upstream. Its tunnels end when it is dropped.
pub struct IdleTunnels {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    held: Arc<Mutex<Vec<TcpStream>>>,
}

impl IdleTunnels {
    /// Starts it; requests by IPv4 address only.
    pub fn start() -> IdleTunnels {
        let listener = TcpListener::bind("127.0.0.1:0").expect("rig: no port");
        let address = listener.local_addr().expect("rig: address");
        let (stop, held) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let holder = IdleTunnels { address, stop: Arc::clone(&stop), held: Arc::clone(&held) };
        spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if !readable(&listener, Duration::from_millis(20)) {
                    continue;
                }
                let Ok((stream, _)) = listener.accept() else { continue };
                if let Some(stream) = admit(stream) {
                    held.lock().unwrap().push(stream);
                }
            }
        });
        holder
    }

    /// Its SOCKS5 address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tunnels made so far.
    pub fn held(&self) -> usize {
        self.held.lock().unwrap().len()
    }

    /// Ends every tunnel, by FIN.
    pub fn release(&self) {
        self.held.lock().unwrap().clear();
    }
}

impl Drop for IdleTunnels {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.release();
    }
}

/// UpstreamGreeting and request, whole or in pieces; `None` if the client is gone.
fn admit(mut stream: TcpStream) -> Option<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.read_exact(&mut [0; 3]).ok()?;
    stream.write_all(&[5, 0]).ok()?;
    stream.read_exact(&mut [0; 10]).ok()?;
    stream.write_all(&reply(0)).ok()?;
    Some(stream)
}

/// A SOCKS5 tunnel to 192.0.2.7:80 through `proxy`, one descriptor; the REP when it is refused.
pub fn tunnel(proxy: SocketAddr) -> Result<TcpStream, u8> {
    ask(TcpStream::connect(proxy).expect("rig: connect"))
}

/// The same over a connection that is already there.
pub fn ask(mut stream: TcpStream) -> Result<TcpStream, u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("rig: timeout");
    let request = [&[5, 1, 0][..], &client::socks5_request("192.0.2.7", 80)].concat();
    stream.write_all(&request).expect("rig: request");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer[..4]).expect("rig: method and reply");
    assert_eq!(answer[..3], [5, 0, 5], "rig: {answer:?}");
    if answer[3] != 0 {
        return Err(answer[3]);
    }
    stream.read_exact(&mut answer[4..]).expect("rig: the rest of the reply");
    Ok(stream)
}

/// Raises this process's own descriptor limit as far as it goes; returns it.
pub fn descriptors() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
