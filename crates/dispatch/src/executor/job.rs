//! One running command: its main process, its pipes, what it wrote and where it stands.

use std::os::fd::AsRawFd;
use std::time::Instant;

use hashbrown::HashSet;

use super::capture::Bounds;
use super::census::Process;
use super::cgroup::Group;
use super::directory::Directory;
use super::kinship::Mark;
use super::ladder::{Ladder, Stop};
use super::limits::Limits;
use super::lookout::{Identity, Trace};
use super::reading::{Reading, Source};
use super::report::{Exit, Failure, Outbox, Reason, Stream};
use super::spawn::{Launched, Running};
use crate::sys::child::Child;
use crate::sys::poll::Poll;
use crate::sys::process::{self, Ending, Usage};

/// So many processes that are to be killed are stopped first.
const CROWD: usize = 16;

/// A command from exec to its report.
pub struct Job {
    /// Where it stands.
    pub ladder: Ladder,
    /// Its private directory, to be removed when it has ended.
    pub directory: Option<Directory>,
    /// Its group, if it has one.
    pub group: Option<Group>,
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

impl Job {
    /// Takes over a command that was just started.
    pub fn new(launched: Launched, bounds: Bounds) -> Self {
        let Launched {
            command,
            directory,
            group,
            running,
        } = launched;
        let Running {
            child,
            stdout,
            stderr,
            started,
            started_at_us,
        } = running;
        Self {
            ladder: Ladder::new(started, command.timeout, command.grace),
            directory,
            group,
            mark: Mark::given(&command.env),
            key: command.key,
            limits: command.limits,
            allow_background: command.allow_background,
            killed: HashSet::new(),
            child,
            outputs: [
                Reading::new(Stream::Stdout, stdout, bounds),
                Reading::new(Stream::Stderr, stderr, bounds),
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
        let mut outputs = self.outputs.iter();
        outputs.try_for_each(|output| output.watch(self.key, poll))
    }

    /// Begins to give live output, with what is still kept from these offsets on.
    pub fn follow(&mut self, offsets: [u64; 2], outbox: &Outbox) {
        self.followed = true;
        for (output, offset) in self.outputs.iter().zip(offsets) {
            output.follow(self.key, offset, outbox);
        }
    }

    /// Ends the live output.
    pub fn unfollow(&mut self) {
        self.followed = false;
    }

    /// Reads what one stream has, or the first part of it. Returns whether a flood was read.
    pub fn read(
        &mut self,
        stream: Stream,
        scratch: &mut [u8],
        poll: &Poll,
        outbox: &Outbox,
    ) -> bool {
        let followers = self.followed.then_some(outbox);
        let [stdout, stderr] = &mut self.outputs;
        let output = if stream == Stream::Stdout {
            stdout
        } else {
            stderr
        };
        output.read(self.key, scratch, poll, followers)
    }

    /// Whether both streams are at their end.
    pub fn is_drained(&self) -> bool {
        self.outputs.iter().all(Reading::is_at_end)
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
        if let Some(group) = &mut self.group {
            group.kill();
        }
    }

    /// The report of a command whose main process has ended, and of which so many processes are left.
    /// The order matters: KILL for the group while the zombie of its leader still holds the number (see
    /// `signal`), and only then the reaping.
    /// Gives its group back, too. `alone`: there is nobody left whom it could reach.
    pub fn finish(mut self, poll: &Poll, left: u32, alone: bool) -> (Exit, Option<Group>) {
        self.close(poll);
        if !alone && !self.may_leave() {
            self.signal(libc::SIGKILL);
        }
        let reaped = process::reap(&self.child.process);
        let (ending, usage) = reaped.unzip();
        let mut usage = usage.unwrap_or_default();
        usage.max_tree_kb = self.group.as_ref().map_or(0, Group::peak_kb);
        let reason = self.reason(ending, usage);
        let stop = self.ladder.stop();
        let [stdout, stderr] = self.outputs.map(Reading::finish);
        let ended = self.ended.unwrap_or_else(Instant::now);
        let exit = Exit {
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
        };
        (exit, self.group)
    }

    /// Lets go of its pipes: nobody reads them any more.
    pub fn close(&mut self, poll: &Poll) {
        self.outputs
            .iter_mut()
            .for_each(|output| output.close(poll));
    }

    /// Whether it was refused processes, and failed.
    fn was_refused_processes(&self, ending: Ending) -> bool {
        let group = self.group.as_ref();
        ending != Ending::Code(0) && group.is_some_and(Group::had_too_many)
    }

    fn was_short_of_memory(&self) -> bool {
        let group = self.group.as_ref();
        group.is_some_and(Group::was_short_of_memory)
    }

    fn reason(&self, ending: Option<Ending>, usage: Usage) -> Reason {
        let by_kill = ending == Some(Ending::Signal(libc::SIGKILL));
        match (self.ladder.stop(), ending) {
            (Some(_), _) if by_kill && self.ladder.outlasted() => Reason::KilledAfterGrace,
            (Some(Stop::Timeout), _) => Reason::Timeout,
            (Some(Stop::Cancel), _) => Reason::Cancelled,
            _ if self.was_short_of_memory() => Reason::Oom,
            (None, Some(ending))
                if self.limits.ended(ending, usage) || self.was_refused_processes(ending) =>
            {
                Reason::ResourceLimit
            }
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
