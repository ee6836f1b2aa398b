//! What commands say that carry or run something besides: a reader that has left costs the words and
//! nothing else. (A command that only tells is ended by it: `SIGPIPE`, as of `cat`.)
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::{self, Write as _};

/// A line on standard output.
pub(super) fn out(line: impl Display) {
    let _nobody_reads = writeln!(io::stdout(), "{line}");
}

/// A line on standard error.
pub(super) fn error(line: impl Display) {
    let _nobody_reads = writeln!(io::stderr(), "{line}");
}

/// The line a terminal is on, in the place of what stands there.
pub(super) fn progress(line: impl Display) {
    let mut terminal = io::stderr();
    let written = write!(terminal, "\r\x1b[K{line}");
    let _nobody_reads = written.and_then(|()| terminal.flush());
}
