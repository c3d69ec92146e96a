//! The pipes of a command: their numbers in the poll, and what was read from them.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;

use super::capture::{Bounds, Capture, Output};
use super::report::{Outbox, Stream};
use crate::sys::poll::Poll;

/// The size of the buffer that pipes are read into: that of a pipe. Larger pipes gain nothing here.
pub const SCRATCH_BYTES: usize = 64 * 1024;
/// Reads of one stream in a row, enough to empty the largest pipe; then the others have their turn.
const READS: usize = 16;
/// A read that brings as much is part of a flood, if more was written already than can be kept.
const FLOOD_BYTES: usize = 4096;

/// What a descriptor of a command stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The end of its main process.
    Process,
    /// Output.
    Output(Stream),
}

impl Source {
    /// The number under which it is watched.
    pub fn number(self, key: u64) -> u64 {
        let low = match self {
            Self::Process => 0,
            Self::Output(stream) => stream as u64,
        };
        key << 2 | low
    }

    /// The key and source behind a number.
    pub fn of(number: u64) -> (u64, Self) {
        let source = match number & 3 {
            0 => Self::Process,
            1 => Self::Output(Stream::Stdout),
            _ => Self::Output(Stream::Stderr),
        };
        (number >> 2, source)
    }
}

/// One output stream of a command.
pub struct Reading {
    stream: Stream,
    /// None: at its end.
    pipe: Option<File>,
    capture: Capture,
}

impl Reading {
    /// A stream of which nothing has been read.
    pub fn new(stream: Stream, pipe: File, bounds: Bounds) -> Self {
        Self {
            stream,
            pipe: Some(pipe),
            capture: Capture::new(bounds),
        }
    }

    /// Watches its pipe.
    pub fn watch(&self, key: u64, poll: &Poll) -> io::Result<()> {
        self.pipe.as_ref().map_or(Ok(()), |pipe| {
            poll.add(pipe.as_raw_fd(), Source::Output(self.stream).number(key))
        })
    }

    /// Tells what is still kept from this offset on.
    pub fn follow(&self, key: u64, offset: u64, outbox: &Outbox) {
        if self.capture.total() > offset {
            outbox.live(key, self.stream, self.capture.kept_from(offset));
        }
    }

    /// Reads what it has, or the first part of it. Returns whether a flood was read.
    pub fn read(
        &mut self,
        key: u64,
        scratch: &mut [u8],
        poll: &Poll,
        followers: Option<&Outbox>,
    ) -> bool {
        let mut is_flood = false;
        for _ in 0..READS {
            let is_full = self.capture.is_full();
            match self.take(key, scratch, followers) {
                Ok(count) if count > 0 => is_flood |= is_full && count >= FLOOD_BYTES,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    self.close(poll);
                    break;
                }
            }
        }
        is_flood
    }

    /// Reads once; nothing if it is at its end.
    fn take(
        &mut self,
        key: u64,
        scratch: &mut [u8],
        followers: Option<&Outbox>,
    ) -> io::Result<usize> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(0);
        };
        // Of a flood nearly all is thrown away again: it is not worth a second copy.
        if followers.is_none() && self.capture.is_full() {
            let count = pipe.read(self.capture.oldest_mut())?;
            self.capture.written(count);
            return Ok(count);
        }
        let count = pipe.read(scratch)?;
        let data = &scratch[..count];
        if data.is_empty() {
            return Ok(0);
        }
        if let Some(outbox) = followers {
            let piece = (self.capture.total(), data);
            outbox.live(key, self.stream, std::iter::once(piece));
        }
        self.capture.push(data);
        Ok(count)
    }

    /// Whether it is at its end.
    pub fn is_at_end(&self) -> bool {
        self.pipe.is_none()
    }

    /// What was kept.
    pub fn finish(self) -> Output {
        self.capture.finish()
    }

    /// Lets go of its pipe.
    pub fn close(&mut self, poll: &Poll) {
        if let Some(pipe) = self.pipe.take() {
            poll.remove(pipe.as_raw_fd());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::sys::descriptors;

    const BOUNDS: Bounds = Bounds {
        head_bytes: FLOOD_BYTES,
        tail_bytes: 4 * FLOOD_BYTES,
    };

    #[test]
    fn much_at_a_time_is_a_flood_once_no_more_can_be_kept() -> io::Result<()> {
        let (reader, writer) = descriptors::pipe()?;
        let (mut writer, poll) = (File::from(writer), Poll::new()?);
        let mut reading = Reading::new(Stream::Stdout, reader, BOUNDS);
        reading.watch(1, &poll)?;
        let mut scratch = vec![0; 8 * FLOOD_BYTES];
        let mut floods = |bytes| {
            writer.write_all(&vec![7; bytes])?;
            Ok::<_, io::Error>(reading.read(1, &mut scratch, &poll, None))
        };

        assert!(!floods(5 * FLOOD_BYTES - 1)?, "all of it is kept");
        assert!(!floods(FLOOD_BYTES)?, "there was room when it was read");
        assert!(floods(FLOOD_BYTES)?);
        assert!(!floods(FLOOD_BYTES - 1)?, "it is little");
        assert!(floods(2 * FLOOD_BYTES)?);
        Ok(())
    }
}
