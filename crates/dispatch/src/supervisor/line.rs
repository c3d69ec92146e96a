//! A connected socket on which frames come and go, without ever waiting.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use super::message::{FRAME_BYTES_MAX, LENGTH_BYTES};
use crate::codec::Malformed;

const READ_BYTES: usize = 64 * 1024;
/// What is kept of a buffer that has become large once.
const KEPT_BYTES: usize = 1 << 20;

/// One end of it.
pub struct Line {
    socket: UnixStream,
    incoming: Vec<u8>,
    /// Of `incoming`, so much was taken.
    taken: usize,
    outgoing: Vec<u8>,
    /// Of `outgoing`, so much was written.
    written: usize,
}

impl Line {
    /// Over this socket.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            incoming: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
            written: 0,
        })
    }

    /// The number of its descriptor.
    pub fn raw(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Reads what is there. False: the other end is gone, and nothing more will come.
    pub fn fill(&mut self) -> bool {
        self.fill_up_to(READ_BYTES)
    }

    /// Reads what is there of the next frame, and leaves what follows where a poll sees it.
    pub fn fill_frame(&mut self) -> bool {
        let rest = &self.incoming[self.taken..];
        let whole = match rest.first_chunk::<LENGTH_BYTES>() {
            Some(length) => LENGTH_BYTES + u32::from_le_bytes(*length) as usize,
            None => LENGTH_BYTES,
        };
        let missing = whole.saturating_sub(rest.len());
        missing == 0 || self.fill_up_to(missing.min(READ_BYTES))
    }

    fn fill_up_to(&mut self, most: usize) -> bool {
        self.incoming.drain(..std::mem::take(&mut self.taken));
        self.incoming.shrink_to(KEPT_BYTES);
        loop {
            let length = self.incoming.len();
            self.incoming.resize(length + most, 0);
            let result = self.socket.read(&mut self.incoming[length..]);
            self.incoming
                .truncate(length + result.as_ref().copied().unwrap_or(0));
            match result {
                Ok(0) => return false,
                // Not full: that was all. Else the others have their turn, and more is told of.
                Ok(_) => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// The next whole frame without its length, if there is one.
    pub fn next(&mut self) -> Result<Option<&[u8]>, Malformed> {
        let rest = &self.incoming[self.taken..];
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(Malformed);
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.taken += LENGTH_BYTES + length;
        Ok(Some(&self.incoming[self.taken - length..self.taken]))
    }

    /// Puts a frame behind those that wait to be written.
    pub fn put(&mut self, frame: &[u8]) {
        self.outgoing.extend_from_slice(frame);
    }

    /// How many bytes wait to be written.
    pub fn backlog(&self) -> usize {
        self.outgoing.len() - self.written
    }

    /// Writes what can be written now. False: the other end is gone.
    pub fn flush(&mut self) -> bool {
        while self.backlog() > 0 {
            match self.socket.write(&self.outgoing[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.outgoing.drain(..std::mem::take(&mut self.written));
                    return true;
                }
                Err(_) => return false,
            }
        }
        self.outgoing.clear();
        self.outgoing.shrink_to(KEPT_BYTES);
        self.written = 0;
        true
    }

    /// Writes nothing more; the other end reads what was written, and then the end.
    pub fn hang_up(&mut self) {
        // It fails only if there is no other end any more.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Drops what waits to be written: nobody will read it.
    pub fn discard(&mut self) {
        self.outgoing.clear();
        self.written = 0;
    }
}
