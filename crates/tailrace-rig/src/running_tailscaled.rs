//! A tailscaled that no gateway manages, and LocalAPI spoken by hand.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;

use super::wait::PATIENCE;

/// A fake the test started itself. Ends when dropped.
pub struct RunningTailscaled {
    pub(super) child: Child,
    /// Its LocalAPI socket.
    pub socket: PathBuf,
    /// Its SOCKS5 port.
    pub socks: SocketAddr,
}

impl Drop for RunningTailscaled {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One LocalAPI exchange as HTTP/1.0, so that the answer ends with the connection.
#[track_caller]
pub fn localapi(socket: &Path, method: &str, name: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let answer = localapi_raw(
        socket,
        &format!(
            "{method} /localapi/v0/{name} HTTP/1.0\r\nHost: local-tailscaled.sock\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ),
    );
    let (head, body) = answer.split_once("\r\n\r\n").expect("rig: an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("rig: a status");
    (status, body.to_owned())
}

/// Sends these bytes and reads to the end.
#[track_caller]
pub fn localapi_raw(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("rig: LocalAPI");
    stream.set_read_timeout(Some(PATIENCE)).expect("rig: timeout");
    stream.write_all(request.as_bytes()).expect("rig: LocalAPI");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("rig: LocalAPI");
    String::from_utf8_lossy(&answer).into_owned()
}
