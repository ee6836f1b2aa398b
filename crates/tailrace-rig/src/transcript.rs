//! What a test said and heard on its sockets, printed when it fails.

use std::cell::RefCell;
use std::fmt::Write as _;

/// Bytes shown of one send or read.
const SHOWN: usize = 256;
/// Lines kept per test thread.
const LINES: usize = 200;

thread_local! {
    static TAPE: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Notes bytes that went (`->`) or came (`<-`) on the connection called `name`.
pub fn note(name: &str, arrow: &str, bytes: &[u8]) {
    let shown = escape(&bytes[..bytes.len().min(SHOWN)]);
    let more = if bytes.len() > SHOWN { " …" } else { "" };
    line(format!("{name} {arrow} {} bytes: {shown}{more}", bytes.len()));
}

/// Notes an event.
pub fn line(text: String) {
    TAPE.with_borrow_mut(|tape| {
        if tape.len() < LINES {
            tape.push(text);
        }
    });
}

/// Everything noted on this thread.
pub fn read() -> String {
    TAPE.with_borrow(|tape| tape.join("\n"))
}

/// Printable ASCII as it is, everything else as `\xNN`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        match byte {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b' '..=b'~' => text.push(byte as char),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text
}
