//! Descriptors: every one is closed on exec and numbered above the standard three.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::checked;

/// A counter to wake a thread, or an asyncio loop, with.
pub struct Event(File);

impl Event {
    /// A new counter at zero.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes two integers and returns a new descriptor that nobody else owns.
        let raw = checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        Ok(Self(File::from(own(raw)?)))
    }

    /// Makes the descriptor readable.
    pub fn set(&self) {
        // Fails only when the counter would overflow: then it is readable anyway.
        let _ = (&self.0).write(&1_u64.to_ne_bytes());
    }

    /// Makes the descriptor unreadable until the next `set`.
    pub fn clear(&self) {
        // Fails only when it was not set.
        let _ = (&self.0).read(&mut [0; 8]);
    }

    /// The number of the descriptor, valid as long as this value lives.
    pub fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A pipe: the end to read, which never waits, and the end to write, which does.
pub fn pipe() -> io::Result<(File, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: pipe2 writes two new descriptors, which nobody else owns, into the array.
    checked(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let (reader, writer) = (own(ends[0]), own(ends[1]));
    let (reader, writer) = (reader?, writer?);
    // SAFETY: F_SETFL takes an integer. The flag belongs to this end alone.
    checked(unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    Ok((File::from(reader), writer))
}

/// A file in memory that holds `content`, to be read from its beginning.
pub fn memory_file(content: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string; memfd_create returns a new descriptor that nobody else owns.
    let raw = checked(unsafe { libc::memfd_create(c"stdin".as_ptr(), libc::MFD_CLOEXEC) })?;
    let file = File::from(own(raw)?);
    std::os::unix::fs::FileExt::write_all_at(&file, content, 0)?;
    Ok(OwnedFd::from(file))
}

/// The empty input.
pub fn null() -> io::Result<OwnedFd> {
    let file = OwnedFd::from(File::open("/dev/null")?);
    above_standard(file)
}

/// Takes a new descriptor into ownership.
fn own(raw: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: callers pass what a system call has just returned as new.
    above_standard(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Moves a descriptor out of 0, 1 and 2, where it lands in a daemon that closed its own: the child
/// puts its standard three there and must not overwrite their sources.
fn above_standard(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    if descriptor.as_raw_fd() > libc::STDERR_FILENO {
        return Ok(descriptor);
    }
    // SAFETY: F_DUPFD_CLOEXEC takes an integer and returns a new descriptor that nobody else owns.
    let raw = checked(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: as said.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
