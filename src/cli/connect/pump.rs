//! Bytes between standard input and output and a tunnel, each direction by itself.
//!
//! Plain blocking reads and writes on two threads: standard input and output belong to others too, so
//! their flags are left as they are, and one that is non-blocking is waited for.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

/// Bytes taken at a time: a pipe's worth (pipe(7)).
const PIECE: usize = 64 << 10;

/// Why a direction did not end well.
#[derive(Debug, thiserror::Error)]
pub(super) enum DirectionError {
    /// Standard input cannot be read.
    #[error("standard input cannot be read: {0}")]
    Input(#[source] io::Error),
    /// Standard output takes no more.
    #[error("standard output takes no more: {0}")]
    Output(#[source] io::Error),
    /// The tunnel was cut.
    #[error("the connection was cut: {0}; the gateway's access line says by whom")]
    Cut(#[source] io::Error),
}

/// The tunnel, seen from both directions.
struct TunnelState {
    stream: TcpStream,
    /// Standard input has come to its end; set before the other side can learn of it.
    ended: AtomicBool,
}

/// Carries both directions to their ends. `early` is what the far side has said already. After an
/// error the other direction may still wait for standard input: the process is to end then.
///
/// # Errors
/// [`DirectionError`], when a direction ended in any other way than by its end.
pub(super) fn run(stream: TcpStream, early: &[u8]) -> Result<(), DirectionError> {
    let tunnel = Arc::new(TunnelState { stream, ended: AtomicBool::new(false) });
    let (tell, told) = channel();
    let shared = Arc::clone(&tunnel);
    let up = std::thread::Builder::new().name("up".to_owned());
    let _detached = up.spawn(move || shared.up(&tell)).map_err(DirectionError::Input)?;
    let down = tunnel.down(early);
    let ended = down.and_then(|()| tunnel.wait_for_up(&told));
    match (ended, told.try_recv()) {
        // What broke first is the cause.
        (Err(_), Ok(Err(first))) => Err(first),
        (Err(broken), _) => {
            tunnel.abort();
            Err(broken)
        }
        (Ok(()), _) => Ok(()),
    }
}

impl TunnelState {
    /// Standard input to the far side, then its end.
    fn up(&self, tell: &Sender<Result<(), DirectionError>>) {
        let carried = self.carry_up();
        let good = carried.is_ok();
        // Nobody listens only when the process is about to end.
        let _told = tell.send(carried);
        if good {
            self.ended.store(true, Ordering::SeqCst);
            // It fails only when the connection is gone, which the other direction sees.
            let _seen = self.stream.shutdown(Shutdown::Write);
        } else {
            self.abort();
        }
    }

    fn carry_up(&self) -> Result<(), DirectionError> {
        let (input, mut buffer) = (io::stdin(), vec![0; PIECE]);
        loop {
            let length = patiently(&input, PollFlags::IN, || rustix::io::read(&input, &mut buffer));
            match length.map_err(DirectionError::Input)? {
                0 => return Ok(()),
                length => {
                    (&self.stream).write_all(&buffer[..length]).map_err(DirectionError::Cut)?
                }
            }
        }
    }

    /// The far side to standard output, then its end.
    fn down(&self, early: &[u8]) -> Result<(), DirectionError> {
        write_output(early).map_err(DirectionError::Output)?;
        let mut buffer = vec![0; PIECE];
        loop {
            match (&self.stream).read(&mut buffer) {
                Ok(0) => return close_output().map_err(DirectionError::Output),
                Ok(length) => write_output(&buffer[..length]).map_err(DirectionError::Output)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(DirectionError::Cut(error)),
            }
        }
    }

    /// The far side has ended; what is still sent to it may go on, but not into a connection that was
    /// cut since.
    fn wait_for_up(
        &self,
        told: &Receiver<Result<(), DirectionError>>,
    ) -> Result<(), DirectionError> {
        // Without events: until both directions are shut, or the connection is reset (poll(2)).
        let mut hung_up = [PollFd::new(&self.stream, PollFlags::empty())];
        loop {
            match poll(&mut hung_up, None) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(DirectionError::Cut(error.into())),
                Ok(_) => break,
            }
        }
        match self.stream.take_error() {
            Ok(None) if self.ended.load(Ordering::SeqCst) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(DirectionError::Cut(error)),
            Ok(None) => told.recv().unwrap_or_else(|_| Err(DirectionError::Cut(lost()))),
        }
    }

    /// A reset, so that nobody takes for whole what was cut (`connect(2)` to `AF_UNSPEC`).
    fn abort(&self) {
        let _gone_already = rustix::net::connect_unspec(&self.stream);
    }
}

fn lost() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// Writes all of it to standard output, past the buffer that looks for line ends.
fn write_output(mut bytes: &[u8]) -> io::Result<()> {
    let output = io::stdout();
    while !bytes.is_empty() {
        let length = patiently(&output, PollFlags::OUT, || rustix::io::write(&output, bytes))?;
        bytes = &bytes[length..];
    }
    Ok(())
}

/// The reader of standard output learns that this was all, while input may go on.
fn close_output() -> io::Result<()> {
    let (input, output) = (fstat(io::stdin())?, fstat(io::stdout())?);
    let same = (input.st_dev, input.st_ino) == (output.st_dev, output.st_ino);
    if same && FileType::from_raw_mode(output.st_mode) == FileType::Socket {
        // One socket for both, as socat's EXEC gives: another descriptor keeps it open.
        let _left_already = rustix::net::shutdown(io::stdout(), rustix::net::Shutdown::Write);
    }
    let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(nowhere)?)
}

/// Does it again after signals, and once a descriptor that others made non-blocking is ready.
fn patiently(
    fd: &impl AsFd,
    ready: PollFlags,
    mut act: impl FnMut() -> Result<usize, Errno>,
) -> io::Result<usize> {
    loop {
        match act() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                // Whatever ends the wait, the next try says it.
                let _ready = poll(&mut [PollFd::new(fd, ready)], None);
            }
            done => return Ok(done?),
        }
    }
}
