//! The pipe of systems without splice(2): there is none, and the relay copies.

use std::io;

use super::Stream;

/// Cannot be made here.
#[derive(Debug)]
pub enum Pipe {}

impl Pipe {
    /// Always refuses.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn open() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Never called: there is no pipe.
    ///
    /// # Errors
    /// None.
    pub fn grow(&mut self, _size: usize) -> io::Result<()> {
        match *self {}
    }

    /// Never called: there is no pipe.
    pub fn size(&self) -> usize {
        match *self {}
    }

    /// Never called: there is no pipe.
    ///
    /// # Errors
    /// None.
    pub fn len(&self) -> io::Result<u64> {
        match *self {}
    }

    /// Never called: there is no pipe.
    ///
    /// # Errors
    /// None.
    pub fn is_empty(&self) -> io::Result<bool> {
        match *self {}
    }

    /// Never called: there is no pipe.
    ///
    /// # Errors
    /// None.
    pub fn fill(&self, _from: &Stream) -> io::Result<usize> {
        match *self {}
    }

    /// Never called: there is no pipe.
    ///
    /// # Errors
    /// None.
    pub fn drain(&self, _to: &Stream, _len: usize) -> io::Result<usize> {
        match *self {}
    }

    /// Never called: there is no pipe.
    ///
    /// # Errors
    /// None.
    pub fn read(&self, _buf: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }
}
