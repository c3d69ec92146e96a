//! Descriptors: every one is closed on exec and numbered above the standard three.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

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

/// A directory in `parent`, held only to find things by. Refuses links, and what is mounted there.
pub fn subdirectory(parent: &File, name: &OsStr) -> io::Result<File> {
    let name = CString::new(name.as_bytes())?;
    // SAFETY: zero is what each field is when it is not used.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    how.flags = flags as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV;
    // SAFETY: name and instructions outlive the call, which returns a new descriptor that nobody else
    // owns.
    let raw = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            parent.as_raw_fd(),
            name.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    Ok(File::from(own(checked(raw as libc::c_int)?)?))
}

/// Where an entry of a directory has its length, and its name.
const ENTRY_LENGTH: usize = 16;
const ENTRY_NAME: usize = 19;

/// Whether a directory that was just opened is empty. Unlike `read_dir` without 32 KiB of memory, which
/// counts where it is asked for each command.
pub fn is_empty_directory(directory: &File) -> bool {
    // Aligned as entries are, with room for the longest.
    let mut words = [0_u64; 64];
    loop {
        // SAFETY: the buffer outlives the call that fills it.
        let filled = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                directory.as_raw_fd(),
                words.as_mut_ptr(),
                size_of_val(&words),
            )
        };
        match usize::try_from(filled) {
            Ok(0) => return true,
            Ok(filled) => {
                let mut bytes = [0; 512];
                for (to, from) in bytes.chunks_exact_mut(8).zip(words) {
                    to.copy_from_slice(&from.to_ne_bytes());
                }
                if !are_dots(&bytes[..filled]) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
}

/// Whether these entries are those that every directory has.
fn are_dots(mut entries: &[u8]) -> bool {
    while let Some(length) = entries.get(ENTRY_LENGTH..ENTRY_LENGTH + 2) {
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let Some((entry, rest)) = entries.split_at_checked(length) else {
            return false;
        };
        let name = entry.get(ENTRY_NAME..).unwrap_or_default();
        if !(name.starts_with(b".\0") || name.starts_with(b"..\0")) {
            return false;
        }
        entries = rest;
    }
    entries.is_empty()
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
