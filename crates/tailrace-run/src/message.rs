//! Messages as they lie in a program's memory: `struct msghdr`, `struct mmsghdr`, `struct iovec`
//! (recvmsg(2)), of 64-bit programs.
#![forbid(unsafe_code)]

use rustix::io::Errno;

use super::suspended_call::{CallError, SuspendedCall};

/// `sizeof(struct msghdr)`, and of `struct mmsghdr`, which adds a length.
const HEADER: usize = 56;
pub(super) const HEADER_WITH_LENGTH: u64 = 64;
/// Offsets of the fields that are written, in `struct msghdr`.
const NAME_LENGTH: u64 = 8;
const CONTROL_LENGTH: u64 = 40;
const FLAGS: u64 = 48;
/// `IOV_MAX` (limits.h): the kernel takes no more pieces.
const MOST_PIECES: u64 = 1024;
/// More than any datagram holds.
pub(super) const MOST_BYTES: usize = 64 * 1024;

/// A `struct msghdr` in the program's memory.
#[derive(Debug)]
pub(super) struct MessageHeader {
    at: u64,
    /// Where the address is, 0 for none.
    pub(super) name: u64,
    /// The room for it, or its length.
    pub(super) name_length: u32,
    pieces: Vec<(u64, usize)>,
}

impl MessageHeader {
    /// Reads the header at `at` and where its pieces are. `EMSGSIZE` stands for too many of them.
    pub(super) fn read_header(caller: &SuspendedCall<'_>, at: u64) -> Result<Self, CallError> {
        let bytes = caller.read_memory(at, HEADER)?;
        let [name, name_length, vector, count] =
            [0, 8, 16, 24].map(|offset| read_word(&bytes, offset));
        if count > MOST_PIECES {
            return Err(CallError::Unreadable);
        }
        // At most 16 KiB, by the check above.
        let vector = caller.read_memory(vector, count as usize * 16)?;
        let pieces = vector.chunks_exact(16).map(|piece| {
            let length = usize::try_from(read_word(piece, 8)).unwrap_or(MOST_BYTES);
            (read_word(piece, 0), length.min(MOST_BYTES))
        });
        Ok(Self { at, name, name_length: name_length as u32, pieces: pieces.collect() })
    }

    /// The bytes to be sent, gathered from the pieces.
    pub(super) fn read_message(&self, caller: &SuspendedCall<'_>) -> Result<Vec<u8>, CallError> {
        let mut all = Vec::new();
        for (address, length) in &self.pieces {
            let length = (*length).min(MOST_BYTES - all.len());
            all.extend(caller.read_memory(*address, length)?);
        }
        Ok(all)
    }

    /// The room for a message, in bytes.
    pub(super) fn total_room(&self) -> usize {
        self.pieces.iter().map(|(_, length)| length).sum::<usize>().min(MOST_BYTES)
    }

    /// Puts a received message where it belongs.
    ///
    /// # Errors
    /// `EFAULT` where the program's memory is not there.
    pub(super) fn write_message(
        &self,
        caller: &SuspendedCall<'_>,
        mut bytes: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        for (address, length) in &self.pieces {
            let (piece, rest) = bytes.split_at((*length).min(bytes.len()));
            caller.write_memory(*address, piece)?;
            bytes = rest;
        }
        caller.write_memory(self.at + CONTROL_LENGTH, &0_u64.to_ne_bytes())?;
        caller.write_memory(self.at + FLAGS, &flags.to_ne_bytes())
    }

    /// Puts the address it came from where it belongs, and its length.
    ///
    /// # Errors
    /// `EFAULT` where the program's memory is not there.
    pub(super) fn write_source(
        &self,
        caller: &SuspendedCall<'_>,
        source: &[u8],
    ) -> Result<(), Errno> {
        write_address(caller, self.name, self.name_length, self.at + NAME_LENGTH, source)
    }
}

/// Puts an address into `room` bytes at `name`, and its whole length at `length`, as the kernel does it
/// (`move_addr_to_user`, net/socket.c): what does not fit is cut off, and the length says so.
///
/// # Errors
/// `EINVAL` for less than no room, `EFAULT`.
pub(super) fn write_address(
    caller: &SuspendedCall<'_>,
    name: u64,
    room: u32,
    length: u64,
    address: &[u8],
) -> Result<(), Errno> {
    let room = usize::try_from(room.cast_signed()).map_err(|_| Errno::INVAL)?;
    caller.write_memory(name, &address[..address.len().min(room)])?;
    caller.write_memory(length, &(address.len() as u32).to_ne_bytes())
}

/// Eight bytes of a structure that was read whole.
fn read_word(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_ne_bytes(word)
}
