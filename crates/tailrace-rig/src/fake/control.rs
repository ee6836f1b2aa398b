//! The line to the rig: events out, orders in.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::script::{Event, Numbered, Order, Process, Script};

/// The socket the rig listens on, in the folder the program was called in.
const SOCKET: &str = "control.sock";

/// The sending side.
#[derive(Clone)]
pub(super) struct Control(Arc<Mutex<UnixStream>>);

impl Control {
    /// Tells the rig of this start and waits for its script. Without a rig there is nothing to do.
    pub(super) fn connect() -> (Control, Script, mpsc::UnboundedReceiver<Numbered>) {
        let process = process();
        let path = folder().join(SOCKET);
        let stream = UnixStream::connect(&path)
            .unwrap_or_else(|e| panic!("fake tailscaled: no rig at {}: {e}", path.display()));
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        let control = Control(Arc::new(Mutex::new(stream)));
        control.tell(&Event::Started(process));
        let first = read(&mut lines).expect("fake tailscaled: the rig sends a script");
        let Order::Script(script) = first.order else { panic!("fake tailscaled: no script") };
        control.tell(&Event::Done(first.number));
        let (orders, inbox) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            while let Some(order) = read(&mut lines) {
                let _ = orders.send(order);
            }
            // The test is over: nobody may be left behind.
            std::process::exit(1);
        });
        (control, *script, inbox)
    }

    /// Sends an event; a rig that is gone is no matter.
    pub(super) fn tell(&self, event: &Event) {
        let mut line = serde_json::to_vec(event).unwrap();
        line.push(b'\n');
        let _ = self.0.lock().unwrap().write_all(&line);
    }
}

fn read(lines: &mut impl BufRead) -> Option<Numbered> {
    let mut line = String::new();
    match lines.read_line(&mut line) {
        Ok(n) if n > 0 => Some(serde_json::from_str(&line).expect("fake tailscaled: an order")),
        _ => None,
    }
}

/// The folder of the name this program was called by: the rig puts a link to it beside its socket.
pub(super) fn folder() -> PathBuf {
    let called = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    if let Some(folder) = called.parent().filter(|f| !f.as_os_str().is_empty()) {
        return folder.to_owned();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    folders.find(|f| f.join(&called).exists()).unwrap_or_else(|| Path::new(".").to_owned())
}

fn process() -> Process {
    let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
    let links = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let targets = links.filter_map(|l| std::fs::read_link(l.path()).ok());
    Process {
        argv: std::env::args_os().map(text).collect(),
        environ: std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
        group: rustix::process::getpgrp().as_raw_nonzero().get(),
        open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .current
            .unwrap_or(u64::MAX),
        descriptors: targets.map(|t| t.to_string_lossy().into_owned()).collect(),
    }
}
