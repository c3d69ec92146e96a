//! What the executor tells: how commands ended, and what they write meanwhile.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use super::capture::Output;
use crate::sys::descriptors::Event;
use crate::sys::process::{Ending, Usage};

/// Live output crosses in pieces of at most this many bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// Why a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// By itself, with an exit code.
    Exited,
    /// By a signal that we did not send.
    Signalled,
    /// It ran longer than it may.
    Timeout,
    /// It was asked for.
    Cancelled,
    /// It ran longer than it may or was to end, had TERM, and was still there when its grace was over.
    KilledAfterGrace,
    /// It used more memory than it may.
    Oom,
    /// It used more processor time than it may, or wrote a larger file.
    ResourceLimit,
    /// It never ran.
    SpawnFailed,
}

impl Reason {
    /// Its name outside.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Signalled => "signalled",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::KilledAfterGrace => "killed_after_grace",
            Self::Oom => "oom",
            Self::ResourceLimit => "resource_limit",
            Self::SpawnFailed => "spawn_failed",
        }
    }
}

/// What failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step that failed: `command`, `directory`, `stdin`, `pipe`, `fork`, `setup`, `user`, `cwd`,
    /// `limit`, `exec` or `watch`; `reap` for a command that ran.
    pub stage: &'static str,
    /// The error of the system.
    pub errno: i32,
    /// A sentence for people.
    pub error: String,
}

/// The end of a command. There is exactly one for each that was taken.
#[derive(Debug)]
pub struct Exit {
    /// Which command.
    pub key: u64,
    /// Why it ended.
    pub reason: Reason,
    /// How its main process ended; None where it never ran, or where somebody else reaped it.
    pub ending: Option<Ending>,
    /// Why it never ran, or why its ending is not known.
    pub failure: Option<Failure>,
    /// Whether it was to end, and KILL was needed for that.
    pub killed: bool,
    /// Whether it was to end because it ran longer than it may.
    pub timed_out: bool,
    /// How many descendants got KILL, with the main process or after it.
    pub killed_processes: u32,
    /// How many of its processes stay: because they may, or because they can't be ended.
    pub left_processes: u32,
    /// What it wrote to its standard output.
    pub stdout: Output,
    /// What it wrote to its standard error.
    pub stderr: Output,
    /// When it was executed, in microseconds of Unix time; 0: never.
    pub started_at_us: u64,
    /// From then to the end of its main process.
    pub wall_us: u64,
    /// What it used.
    pub usage: Usage,
}

impl Exit {
    /// The end of a command that never ran.
    pub(super) fn unstarted(key: u64, reason: Reason, failure: Option<Failure>) -> Self {
        Self {
            key,
            reason,
            ending: None,
            failure,
            killed: false,
            timed_out: false,
            killed_processes: 0,
            left_processes: 0,
            stdout: Output::default(),
            stderr: Output::default(),
            started_at_us: 0,
            wall_us: 0,
            usage: Usage::default(),
        }
    }
}

/// One of the two streams of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// A piece of output of a command that is followed.
#[derive(Debug, PartialEq, Eq)]
pub struct Live {
    /// Which command.
    pub key: u64,
    /// Which of its streams.
    pub stream: Stream,
    /// Where in the stream it begins.
    pub offset: u64,
    /// The bytes.
    pub data: Vec<u8>,
    /// How many bytes the stream had when this was taken.
    pub total: u64,
}

/// All that waited.
#[derive(Debug)]
pub struct Reports {
    /// Pieces of live output, in order for each stream. A gap between offsets: the reader was too
    /// slow.
    pub live: Vec<Live>,
    /// Whether there is more of it, which was not taken.
    pub live_stays: bool,
    /// Ends. Live output of the same commands comes before them.
    pub exits: Vec<Exit>,
    /// Commands that the kernel did not end within 5 s of their KILL, each told once. They go on, and
    /// keep their places, until it does.
    pub stuck: Vec<u64>,
    /// Processes of which can't be told which command they come from, each told once. They get KILL
    /// when no command runs.
    pub strays: Vec<i32>,
}

/// What is told besides ends and output: see `Reports`.
#[derive(Debug, Default)]
pub struct Notes {
    /// Commands.
    pub stuck: Vec<u64>,
    /// Processes.
    pub strays: Vec<i32>,
}

/// What waits to be told. The reaper puts in, anybody takes out.
pub struct Outbox {
    waiting: Mutex<Waiting>,
    event: Event,
    live_bytes: usize,
}

#[derive(Default)]
struct Waiting {
    streams: HashMap<(u64, Stream), Pieces>,
    exits: Vec<Exit>,
    notes: Notes,
}

impl Outbox {
    /// Holds back up to `live_bytes` of live output for each stream.
    pub fn new(live_bytes: usize) -> io::Result<Self> {
        Ok(Self {
            waiting: Mutex::default(),
            event: Event::new()?,
            live_bytes,
        })
    }

    /// A descriptor that is readable while something waits.
    pub fn fileno(&self) -> RawFd {
        self.event.raw()
    }

    /// Puts ends in; leaves `exits` empty.
    pub fn exits(&self, exits: &mut Vec<Exit>) {
        let mut waiting = self.lock();
        waiting.exits.append(exits);
        // Whoever wakes by it would wait for the lock.
        drop(waiting);
        self.event.set();
    }

    /// Puts notes in; leaves `notes` empty.
    pub fn notes(&self, notes: &mut Notes) {
        let Notes { stuck, strays } = notes;
        if stuck.is_empty() && strays.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        waiting.notes.stuck.append(stuck);
        waiting.notes.strays.append(strays);
        self.event.set();
    }

    /// Puts live output in; the oldest gives way if too much of the stream waits.
    pub fn live<'a>(
        &self,
        key: u64,
        stream: Stream,
        pieces: impl Iterator<Item = (u64, &'a [u8])>,
    ) {
        let mut waiting = self.lock();
        let kept = waiting.streams.entry((key, stream)).or_default();
        for (offset, data) in pieces {
            kept.push(offset, data, self.live_bytes);
        }
        self.event.set();
    }

    /// Drops the live output of a command.
    pub fn unfollow(&self, key: u64) {
        let mut waiting = self.lock();
        for stream in [Stream::Stdout, Stream::Stderr] {
            waiting.streams.remove(&(key, stream));
        }
    }

    /// Whether live output waits.
    pub fn has_live(&self) -> bool {
        !self.lock().streams.is_empty()
    }

    /// Takes all that waits; without `live` the live output stays, and is told of no more before there is
    /// something new. The descriptor is not readable after it until then.
    pub fn take(&self, live: bool) -> Reports {
        let (mut waiting, live_stays) = {
            let mut waiting = self.lock();
            self.event.clear();
            let mut taken = std::mem::take(&mut *waiting);
            if !live {
                std::mem::swap(&mut waiting.streams, &mut taken.streams);
            }
            let live_stays = !waiting.streams.is_empty();
            (taken, live_stays)
        };
        let streams = std::mem::take(&mut waiting.streams).into_iter();
        let live = streams.flat_map(|((key, stream), pieces)| {
            let last = pieces.queue.back();
            let total = last.map_or(0, |(offset, data)| offset + data.len() as u64);
            let queue = pieces.queue.into_iter();
            queue.map(move |(offset, data)| Live {
                key,
                stream,
                offset,
                data,
                total,
            })
        });
        Reports {
            live: live.collect(),
            live_stays,
            exits: waiting.exits,
            stuck: waiting.notes.stuck,
            strays: waiting.notes.strays,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The live output of one stream that waits: (offset, bytes), oldest first.
#[derive(Default)]
struct Pieces {
    queue: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
}

impl Pieces {
    fn push(&mut self, mut offset: u64, mut data: &[u8], limit: usize) {
        self.bytes += data.len();
        while !data.is_empty() {
            let continues = |(start, last): &(u64, Vec<u8>)| {
                *start + last.len() as u64 == offset && last.len() < PIECE_BYTES
            };
            if !self.queue.back().is_some_and(continues) {
                self.queue.push_back((offset, Vec::new()));
            }
            let Some((_, last)) = self.queue.back_mut() else {
                return;
            };
            let (now, later) = data.split_at(data.len().min(PIECE_BYTES - last.len()));
            last.extend_from_slice(now);
            offset += now.len() as u64;
            data = later;
        }
        while self.bytes > limit && self.queue.len() > 1 {
            self.bytes -= self
                .queue
                .pop_front()
                .map_or(0, |(_, dropped)| dropped.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_loses_the_oldest_and_can_tell() {
        let outbox = Outbox::new(2 * PIECE_BYTES).expect("an event");
        for offset in 0..300_u64 {
            outbox.live(
                7,
                Stream::Stdout,
                std::iter::once((offset * 1000, &[offset as u8; 1000][..])),
            );
        }
        let live = outbox.take(true).live;
        let held: usize = live.iter().map(|piece| piece.data.len()).sum();
        assert!(held <= 2 * PIECE_BYTES);
        assert!(live.iter().all(|piece| piece.data.len() <= PIECE_BYTES));
        assert!(
            live.windows(2)
                .all(|pair| pair[0].offset + pair[0].data.len() as u64 == pair[1].offset)
        );
        let last = live.last().expect("the newest is kept");
        assert_eq!(last.offset + last.data.len() as u64, 300_000);
    }
}
