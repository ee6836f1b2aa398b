//! tailscaled's own log: lines on stderr with the time Go's log package puts before them.

use std::io::Write as _;
use std::time::Duration;

use super::control::Control;
use super::script::Event;

/// Writes one line.
pub(super) fn log(text: &str) {
    let now = jiff::Timestamp::now().strftime("%Y/%m/%d %H:%M:%S");
    write(format!("{now} {text}\n").as_bytes());
}

/// Writes one line and ends, as `log.Fatalf` does.
pub(super) fn fatal(text: &str) -> ! {
    log(text);
    std::process::exit(1);
}

/// One write; blocks on a full pipe, as the real one does.
fn write(bytes: &[u8]) {
    let _ = std::io::stderr().write_all(bytes);
}

/// Writes the pieces so far apart, on a thread of its own.
pub(super) fn say(pieces: Vec<Vec<u8>>, apart: Duration) {
    std::thread::spawn(move || {
        for (n, piece) in pieces.into_iter().enumerate() {
            if n > 0 {
                std::thread::park_timeout(apart);
            }
            write(&piece);
        }
    });
}

/// Writes the line over and over at full speed and tells how far it has come.
pub(super) fn flood(line: &str, bytes: u64, control: Control) {
    const BLOCK: usize = 64 << 10;
    let line = format!("{line}\n");
    let block = line.repeat((BLOCK / line.len()).max(1)).into_bytes();
    std::thread::spawn(move || {
        let mut written = 0;
        while written < bytes {
            write(&block);
            written += block.len() as u64;
            control.tell(&Event::Flooded(written));
        }
    });
}
