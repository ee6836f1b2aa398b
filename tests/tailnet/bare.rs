//! The bare proxy of `benches/bare`: what any proxy before tailscaled costs that shakes hands.

use std::process::Command;

use crate::process::{Process, must, wait_for};
use crate::source::source;
use crate::tailnet::{Tailnet, UPSTREAM};

/// Builds and starts it in the sandbox's namespace, before tailscaled's SOCKS5 port; its address.
pub fn proxy(tailnet: &Tailnet) -> (Process, String) {
    let (from, to) = (source("benches/bare/proxy.c"), tailnet.dir.path().join("bare-proxy"));
    must("cc", &["-O2", "-o", &to.to_string_lossy(), &from.to_string_lossy()]);
    let mut command = Command::new(to);
    command.args(UPSTREAM.rsplit(':').next());
    let log = tailnet.dir.path().join("bare-proxy.log");
    let process = tailnet.sandboxed.enter(|| Process::start("the bare proxy", &mut command, &log));
    let port = wait_for("its port", || process.log().trim().parse::<u16>().ok());
    (process, format!("127.0.0.1:{port}"))
}
