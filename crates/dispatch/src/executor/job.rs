//! One running command: its main process, its pipes, what it wrote and where it stands.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::time::Instant;

use hashbrown::HashSet;

use super::capture::{Bounds, Capture};
use super::census::Process;
use super::directory::Directory;
use super::kinship::Mark;
use super::ladder::{Ladder, Stop};
use super::limits::Limits;
use super::lookout::{Identity, Trace};
use super::report::{Exit, Failure, Outbox, Reason, Stream};
use super::spawn::{Launched, Running};
use crate::sys::child::Child;
use crate::sys::poll::Poll;
use crate::sys::process::{self, Ending, Usage};

/// The size of the buffer that pipes are read into: that of a pipe. Larger pipes gain nothing here.
pub const SCRATCH_BYTES: usize = 64 * 1024;
/// Reads of one stream in a row, enough to empty the largest pipe; then the others have their turn.
const READS: usize = 16;

/// So many processes that are to be killed are stopped first.
const CROWD: usize = 16;

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

/// A command from exec to its report.
pub struct Job {
    /// Where it stands.
    pub ladder: Ladder,
    /// Its private directory, to be removed when it has ended.
    pub directory: Option<Directory>,
    /// What its environment holds.
    pub mark: Option<Mark>,
    key: u64,
    limits: Limits,
    allow_background: bool,
    /// Descendants that were sent KILL.
    killed: HashSet<Identity>,
    child: Child,
    outputs: [Reading; 2],
    followed: bool,
    started: Instant,
    started_at_us: u64,
    ended: Option<Instant>,
}

struct Reading {
    stream: Stream,
    /// None: at its end.
    pipe: Option<File>,
    capture: Capture,
}

impl Job {
    /// Takes over a command that was just started.
    pub fn new(launched: Launched, bounds: Bounds) -> Self {
        let Launched {
            command,
            directory,
            running,
        } = launched;
        let Running {
            child,
            stdout,
            stderr,
            started,
            started_at_us,
        } = running;
        let reading = |stream, pipe| Reading {
            stream,
            pipe: Some(pipe),
            capture: Capture::new(bounds),
        };
        Self {
            ladder: Ladder::new(started, command.timeout, command.grace),
            directory,
            mark: Mark::given(&command.env),
            key: command.key,
            limits: command.limits,
            allow_background: command.allow_background,
            killed: HashSet::new(),
            child,
            outputs: [
                reading(Stream::Stdout, stdout),
                reading(Stream::Stderr, stderr),
            ],
            followed: false,
            started,
            started_at_us,
            ended: None,
        }
    }

    /// Watches all its descriptors.
    pub fn watch(&self, poll: &Poll) -> std::io::Result<()> {
        poll.add(
            self.child.process.as_raw_fd(),
            Source::Process.number(self.key),
        )?;
        for output in &self.outputs {
            if let Some(pipe) = &output.pipe {
                poll.add(
                    pipe.as_raw_fd(),
                    Source::Output(output.stream).number(self.key),
                )?;
            }
        }
        Ok(())
    }

    /// Begins to give live output, with what is still kept from these offsets on.
    pub fn follow(&mut self, offsets: [u64; 2], outbox: &Outbox) {
        self.followed = true;
        for (output, offset) in self.outputs.iter().zip(offsets) {
            if output.capture.total() > offset {
                outbox.live(self.key, output.stream, output.capture.kept_from(offset));
            }
        }
    }

    /// Ends the live output.
    pub fn unfollow(&mut self) {
        self.followed = false;
    }

    /// Reads what one stream has, or the first part of it.
    pub fn read(&mut self, stream: Stream, scratch: &mut [u8], poll: &Poll, outbox: &Outbox) {
        let followers = self.followed.then_some(outbox);
        let [stdout, stderr] = &mut self.outputs;
        let output = if stream == Stream::Stdout {
            stdout
        } else {
            stderr
        };
        output.read(self.key, scratch, poll, followers);
    }

    /// Whether both streams are at their end.
    pub fn is_drained(&self) -> bool {
        self.outputs.iter().all(|output| output.pipe.is_none())
    }

    /// Whether the main process has ended, as the kernel sees it now.
    pub fn has_ended(&self) -> bool {
        process::has_ended(&self.child.process)
    }

    /// Notes the end of the main process, once.
    pub fn main_ended(&mut self, now: Instant, poll: &Poll) {
        self.ended.get_or_insert(now);
        poll.remove(self.child.process.as_raw_fd());
    }

    /// Sends `signal` to the whole group. The main process is part of it and can't leave it, being
    /// the leader of its session; a second signal to it alone would make programs believe that they
    /// were asked twice.
    ///
    /// The main process is reaped by `finish` alone, and until then, even as a zombie, it keeps its
    /// number, which is also the group's, from being given to somebody else. A part of this process
    /// that we don't know could have reaped it, though.
    pub fn signal(&self, signal: libc::c_int) {
        if process::is_held(&self.child.process) {
            process::signal_group(self.child.pid, signal);
        }
    }

    /// By what its processes are found.
    pub fn trace(&self) -> Trace<'_> {
        Trace {
            key: self.key,
            leader: self.child.pid,
            mark: self.mark.as_ref(),
        }
    }

    /// Whether what is left of it when its main process has ended stays.
    pub fn may_leave(&self) -> bool {
        self.allow_background && self.ladder.stop().is_none()
    }

    /// TERM to those of its processes that have left the group, which has it already.
    pub fn terminate(&self, members: &[Process]) {
        let outside = members
            .iter()
            .filter(|member| member.group != self.child.pid);
        for member in outside {
            member.signal(libc::SIGTERM);
        }
    }

    /// KILL to all its processes.
    pub fn kill(&mut self, members: &[Process]) {
        let leader = self.child.pid;
        let others = members.iter().filter(|member| member.pid != leader);
        if members.len() > CROWD {
            // Many may be getting more: whoever stands still does not.
            self.signal(libc::SIGSTOP);
            others.clone().for_each(|member| {
                member.signal(libc::SIGSTOP);
            });
        }
        for member in others {
            if member.signal(libc::SIGKILL) {
                self.killed.insert((member.pid, member.start));
            }
        }
        self.signal(libc::SIGKILL);
    }

    /// The report of a command whose main process has ended, and of which so many processes are left.
    /// The order matters: KILL for the group while the zombie of its leader still holds the number (see
    /// `signal`), and only then the reaping.
    pub fn finish(mut self, poll: &Poll, left: u32) -> Exit {
        self.close(poll);
        if !self.may_leave() {
            self.signal(libc::SIGKILL);
        }
        let reaped = process::reap(&self.child.process);
        let (ending, usage) = reaped.unzip();
        let usage = usage.unwrap_or_default();
        let reason = self.reason(ending, usage);
        let stop = self.ladder.stop();
        let [stdout, stderr] = self.outputs.map(|output| output.capture.finish());
        let ended = self.ended.unwrap_or_else(Instant::now);
        Exit {
            key: self.key,
            reason,
            ending,
            failure: reaped.is_none().then(stolen),
            killed: self.ladder.killed() || (stop.is_some() && !self.killed.is_empty()),
            timed_out: stop == Some(Stop::Timeout),
            killed_processes: self.killed.len() as u32,
            left_processes: left,
            stdout,
            stderr,
            started_at_us: self.started_at_us,
            wall_us: ended.saturating_duration_since(self.started).as_micros() as u64,
            usage,
        }
    }

    /// Lets go of its pipes: nobody reads them any more.
    pub fn close(&mut self, poll: &Poll) {
        self.outputs
            .iter_mut()
            .for_each(|output| output.close(poll));
    }

    fn reason(&self, ending: Option<Ending>, usage: Usage) -> Reason {
        let by_kill = ending == Some(Ending::Signal(libc::SIGKILL));
        match (self.ladder.stop(), ending) {
            (Some(_), _) if by_kill && self.ladder.outlasted() => Reason::KilledAfterGrace,
            (Some(Stop::Timeout), _) => Reason::Timeout,
            (Some(Stop::Cancel), _) => Reason::Cancelled,
            (None, Some(ending)) if self.limits.ended(ending, usage) => Reason::ResourceLimit,
            (None, Some(Ending::Signal(_))) => Reason::Signalled,
            (None, Some(Ending::Code(_)) | None) => Reason::Exited,
        }
    }

    /// Ends a command that can't be watched.
    pub fn abandon(&mut self, poll: &Poll) {
        poll.remove(self.child.process.as_raw_fd());
        self.close(poll);
        self.signal(libc::SIGKILL);
        process::reap_dying(&self.child.process);
    }
}

/// Some other part of this process has reaped the main process, or ignores SIGCHLD.
fn stolen() -> Failure {
    let error = "how it ended is unknown: something else in this process reaped it".into();
    Failure {
        stage: "reap",
        errno: libc::ECHILD,
        error,
    }
}

impl Reading {
    fn read(&mut self, key: u64, scratch: &mut [u8], poll: &Poll, followers: Option<&Outbox>) {
        for _ in 0..READS {
            let Some(pipe) = &mut self.pipe else { return };
            let count = match pipe.read(scratch) {
                Ok(0) => return self.close(poll),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return self.close(poll),
            };
            let data = &scratch[..count];
            if let Some(outbox) = followers {
                outbox.live(
                    key,
                    self.stream,
                    std::iter::once((self.capture.total(), data)),
                );
            }
            self.capture.push(data);
        }
    }

    fn close(&mut self, poll: &Poll) {
        if let Some(pipe) = self.pipe.take() {
            poll.remove(pipe.as_raw_fd());
        }
    }
}
