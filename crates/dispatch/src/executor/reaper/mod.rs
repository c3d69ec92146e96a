//! The reaper: the one thread that owns the running commands. It reads their output, ends them and
//! reports them, and reaps what it has adopted.
//!
//! Here is what it hears; `endings` is how commands end.

mod endings;

use std::collections::BTreeSet;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::executor::backlog::{Backlog, Withdrawal};
use crate::executor::capture::Bounds;
use crate::executor::cgroup::{Group, Groups};
use crate::executor::directory::{Cleaner, Directories, Directory};
use crate::executor::job::Job;
use crate::executor::lookout::Lookout;
use crate::executor::mailbox::{Mailbox, Message};
use crate::executor::pages::Pages;
use crate::executor::reading::{SCRATCH_BYTES, Source};
use crate::executor::report::{Exit, Failure, Notes, Outbox, Reason};
use crate::executor::spawn::{self, Launched};
use crate::sys::own::Turns;
use crate::sys::poll::Poll;
use crate::sys::process;

use endings::Task;

/// The number of the mailbox in the poll; no command has it.
const MAILBOX: u64 = u64::MAX;
/// How often adopted children are looked at while nothing else happens: so long a zombie may stay.
const ADOPTED_EVERY: Duration = Duration::from_secs(1);
/// After so long without more of it, a flood of output is over. With 1 ms each wait costs more than a read, in a
/// virtual machine: longer than a tick of the kernel, then, for which no timer has to be set in the hardware.
const CALM: Duration = Duration::from_millis(20);

/// Owns the running commands; made by `Executor::prepare`.
pub struct Reaper {
    backlog: Arc<Backlog>,
    mailbox: Arc<Mailbox>,
    outbox: Arc<Outbox>,
    ways: Ways,
    poll: Poll,
    jobs: HashMap<u64, Job>,
    /// One entry for each job whose ladder has a deadline.
    deadlines: BTreeSet<(Instant, u64)>,
    /// What was asked of commands that are in the hands of a spawner.
    early: HashMap<u64, Early>,
    ended: Vec<Exit>,
    scratch: Pages,
    /// Whether a flood of output was read in the last round.
    flooded: bool,
    stopping: bool,
    lookout: Lookout,
    /// What is to be done to the processes of commands at the end of this round.
    due: Vec<(u64, Task)>,
    /// What is to be told besides ends.
    notes: Notes,
    cleaner: Cleaner,
}

/// How it works.
pub(super) struct Ways {
    /// What is kept of each output stream.
    pub bounds: Bounds,
    /// How long pipes are read after a main process has ended.
    pub drain: Duration,
    /// The groups of commands.
    pub groups: Option<Arc<Groups>>,
    /// Their directories.
    pub directories: Arc<Directories>,
    /// Whether orphans come to us, on the main thread.
    pub adopting: bool,
}

#[derive(Default)]
struct Early {
    signal: Option<Signal>,
    follow: Option<[u64; 2]>,
}

/// The stronger is the greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Signal {
    Cancel,
    Kill,
}

impl Reaper {
    /// A reaper that has not begun.
    pub(super) fn new(
        backlog: &Arc<Backlog>,
        mailbox: &Arc<Mailbox>,
        outbox: &Arc<Outbox>,
        ways: Ways,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.add(mailbox.raw(), MAILBOX)?;
        Ok(Self {
            backlog: Arc::clone(backlog),
            mailbox: Arc::clone(mailbox),
            outbox: Arc::clone(outbox),
            lookout: Lookout::new(ways.adopting),
            ways,
            poll,
            jobs: HashMap::new(),
            deadlines: BTreeSet::new(),
            early: HashMap::new(),
            ended: Vec::new(),
            scratch: Pages::zeroed(SCRATCH_BYTES),
            flooded: false,
            stopping: false,
            due: Vec::new(),
            notes: Notes::default(),
            cleaner: Cleaner::start()?,
        })
    }

    /// Works on the calling thread, with all signals blocked in it, until the executor was stopped and
    /// the last command has ended; then ends the spawners.
    ///
    /// # Panics
    /// It was made by `Executor::prepare`, and this is not the main thread.
    pub fn run(mut self) {
        assert!(
            !self.ways.adopting || process::is_main_thread(),
            "orphans come to the main thread, so the reaper has to run there"
        );
        process::block_signals();
        let mut turns = Turns::new();
        let mut ready = Vec::new();
        while !self.is_finished() {
            // Who writes without end goes on while we wait for our turn: what he writes is read in fewer and larger
            // parts, and he is not interrupted for each.
            let flooded = mem::take(&mut self.flooded);
            turns.give_way(flooded);
            self.poll.wait(self.patience(flooded), &mut ready);
            let mut woken = false;
            for number in ready.drain(..) {
                match number {
                    MAILBOX => woken = true,
                    number => self.serve(number),
                }
            }
            // Only now: in `ready`, a key means the command that had it when the wait ended.
            if woken {
                for message in self.mailbox.take() {
                    self.obey(message);
                }
            }
            self.expire();
            self.conclude();
            self.report();
            if self.lookout.has_adopted() && self.backlog.is_empty() {
                self.lookout.clear();
            }
        }
        self.ways.directories.remove_free();
    }

    /// How long there is nothing to do if nothing happens; a flood is to be over by then. None: for ever.
    fn patience(&self, flooded: bool) -> Option<Duration> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let deadline = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Commands that run may leave orphans at any time.
        let lookout = &self.lookout;
        let watchful = lookout.has_adopted() || lookout.has_left() || !self.jobs.is_empty();
        let watch = watchful.then_some(ADOPTED_EVERY);
        let calm = flooded.then_some(CALM);
        [deadline, watch, calm].into_iter().flatten().min()
    }

    fn is_finished(&self) -> bool {
        self.stopping && self.backlog.is_empty()
    }

    /// A descriptor of a command is ready.
    fn serve(&mut self, number: u64) {
        let (key, source) = Source::of(number);
        let Some(job) = self.jobs.get_mut(&key) else {
            return;
        };
        match source {
            Source::Process => self.main_ended(key),
            Source::Output(stream) => {
                self.flooded |= job.read(stream, &mut self.scratch, &self.poll, &self.outbox);
                self.sweep_if_drained(key);
            }
        }
    }

    fn obey(&mut self, message: Message) {
        match message {
            Message::Launched(launched) => self.admit(*launched),
            Message::Refused(key, failure) => self.refuse(key, failure),
            Message::Withdraw(keys) => keys.into_iter().for_each(|key| self.withdraw(key)),
            Message::Cancel(keys) => keys
                .into_iter()
                .for_each(|key| self.end(key, Signal::Cancel)),
            Message::Kill(keys) => keys.into_iter().for_each(|key| self.end(key, Signal::Kill)),
            Message::Follow(key, offsets) => self.follow(key, offsets),
            Message::Unfollow(key) => self.unfollow(key),
            Message::Stop(kill) => self.stop(kill),
        }
    }

    fn admit(&mut self, launched: Launched) {
        let key = launched.command.key;
        let early = self.early.remove(&key).unwrap_or_default();
        let mut job = Job::new(launched, self.ways.bounds);
        if let Err(error) = job.watch(&self.poll) {
            job.abandon(&self.poll);
            self.clean(job.directory.take(), false);
            self.give_back(job.group.take(), false);
            let failure = spawn::refused("watch", "cannot watch its process", &error);
            self.ended
                .push(Exit::unstarted(key, Reason::SpawnFailed, Some(failure)));
            return;
        }
        self.deadlines
            .extend(job.ladder.deadline().map(|deadline| (deadline, key)));
        self.jobs.insert(key, job);
        if let Some(offsets) = early.follow {
            self.follow(key, offsets);
        }
        if let Some(signal) = early.signal {
            self.end(key, signal);
        }
    }

    fn refuse(&mut self, key: u64, failure: Failure) {
        self.ended
            .push(Exit::unstarted(key, Reason::SpawnFailed, Some(failure)));
    }

    /// Cancels or kills a command, wherever it is.
    fn end(&mut self, key: u64, signal: Signal) {
        if !self.jobs.contains_key(&key) {
            match self.backlog.withdraw(key) {
                Withdrawal::Withdrawn => self.withdrawn(key),
                Withdrawal::Begun => {
                    let early = self.early.entry(key).or_default();
                    early.signal = early.signal.max(Some(signal));
                }
                Withdrawal::Unknown => {}
            }
            return;
        }
        self.climb(key, |ladder, now| match signal {
            Signal::Cancel => ladder.cancel(now),
            Signal::Kill => ladder.kill(now),
        });
    }

    fn withdraw(&mut self, key: u64) {
        if self.backlog.withdraw(key) == Withdrawal::Withdrawn {
            self.withdrawn(key);
        }
    }

    fn withdrawn(&mut self, key: u64) {
        self.ended
            .push(Exit::unstarted(key, Reason::Cancelled, None));
    }

    fn follow(&mut self, key: u64, offsets: [u64; 2]) {
        if let Some(job) = self.jobs.get_mut(&key) {
            job.follow(offsets, &self.outbox);
        } else if self.backlog.holds(key) {
            self.early.entry(key).or_default().follow = Some(offsets);
        }
    }

    fn unfollow(&mut self, key: u64) {
        if let Some(job) = self.jobs.get_mut(&key) {
            job.unfollow();
        } else if let Some(early) = self.early.get_mut(&key) {
            early.follow = None;
        }
        self.outbox.unfollow(key);
    }

    fn stop(&mut self, kill: bool) {
        self.stopping = true;
        self.backlog
            .waiting()
            .into_iter()
            .for_each(|key| self.end(key, Signal::Cancel));
        if kill {
            for key in self.backlog.begun() {
                self.end(key, Signal::Kill);
            }
        }
    }

    /// Takes the group of a command back.
    fn give_back(&self, group: Option<Group>, is_empty: bool) {
        if let (Some(groups), Some(group)) = (&self.ways.groups, group) {
            groups.give_back(group, is_empty);
        }
    }

    /// Takes the directory of a command back. One that somebody may still use is nobody else's.
    fn clean(&self, directory: Option<Directory>, is_left: bool) {
        let Some(directory) = directory else { return };
        if is_left {
            self.cleaner.remove(directory.path().to_owned());
        } else if let Err(path) = self.ways.directories.give_back(directory) {
            self.cleaner.remove(path);
        }
    }

    /// Hands over what has ended in this round.
    fn report(&mut self) {
        if !self.ended.is_empty() {
            for exit in &self.ended {
                self.early.remove(&exit.key);
            }
            self.backlog.forget(self.ended.iter().map(|exit| exit.key));
            self.outbox.exits(&mut self.ended);
        }
        self.outbox.notes(&mut self.notes);
    }
}

impl Drop for Reaper {
    /// Ends the spawners: nobody takes what they start any more.
    fn drop(&mut self) {
        self.backlog.close();
        if let Some(groups) = &self.ways.groups {
            for group in self.lookout.take_left().filter_map(|left| left.group) {
                groups.give_back(group, false);
            }
            groups.remove();
        }
    }
}
