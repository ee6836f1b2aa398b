//! A relay in front of tailscaled's SOCKS5 port that writes down every request passing through.
//!
//! The gateway keeps greeted connections in a pool: bytes past the three of a greeting are a request.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::tailnet::{Tailnet, UPSTREAM};

/// Counts what reaches tailscaled.
pub struct Counter {
    /// Where to point `upstream.socks5`.
    pub address: String,
    requests: Arc<Mutex<Vec<String>>>,
    clients: Arc<Mutex<Vec<TcpStream>>>,
    stopped: Arc<AtomicBool>,
    accepting: thread::JoinHandle<()>,
}

impl Counter {
    /// Listens in the sandbox's namespace.
    pub fn start(tailnet: &Tailnet) -> Counter {
        tailnet.sandboxed.enter(|| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("the counter's port");
            let address = listener.local_addr().expect("the counter's port").to_string();
            let requests = Arc::new(Mutex::new(Vec::new()));
            let clients = Arc::new(Mutex::new(Vec::new()));
            let stopped = Arc::new(AtomicBool::new(false));
            let (seen, known, end) = (requests.clone(), clients.clone(), stopped.clone());
            let accepting = thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    if end.load(Ordering::Acquire) {
                        return;
                    }
                    known.lock().expect("no panic here").push(client.try_clone().expect("dup"));
                    let seen = Arc::clone(&seen);
                    thread::spawn(move || pass(client, &seen));
                }
            });
            Counter { address, requests, clients, stopped, accepting }
        })
    }

    /// Closes the port and every connection, as a tailscaled that ends.
    pub fn stop(self, tailnet: &Tailnet) {
        self.stopped.store(true, Ordering::Release);
        let _wakes_it = tailnet.sandboxed.enter(|| TcpStream::connect(&self.address));
        self.accepting.join().expect("no panic here");
        for client in self.clients.lock().expect("no panic here").iter() {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// The targets asked for so far, readable.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic here").clone()
    }
}

fn pass(client: TcpStream, seen: &Mutex<Vec<String>>) {
    let Ok(upstream) = TcpStream::connect(UPSTREAM) else { return };
    let (mut down_from, mut down_to) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
    let down = thread::spawn(move || {
        let _ = std::io::copy(&mut down_from, &mut down_to);
        let _ = down_to.shutdown(Shutdown::Write);
    });
    up(client, upstream, seen);
    let _ = down.join();
}

/// Client to tailscaled; the first bytes after the greeting are noted before they are passed on.
fn up(mut client: TcpStream, mut upstream: TcpStream, seen: &Mutex<Vec<String>>) {
    let (mut so_far, mut noted) = (Vec::new(), false);
    let mut block = vec![0; 64 << 10];
    while let Ok(n @ 1..) = client.read(&mut block) {
        if !noted {
            so_far.extend_from_slice(&block[..n]);
            if so_far.len() > 3 {
                noted = true;
                seen.lock().expect("no panic here").push(so_far[3..].escape_ascii().to_string());
            }
        }
        if upstream.write_all(&block[..n]).is_err() {
            break;
        }
    }
    let _ = upstream.shutdown(Shutdown::Write);
}
