//! The reaper: the one thread that owns the running commands. It reads their output, ends them and
//! reports them, and reaps what it has adopted.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::backlog::{Backlog, Withdrawal};
use super::capture::Bounds;
use super::directory::{Cleaner, Directory};
use super::job::{Job, SCRATCH_BYTES, Source};
use super::ladder::{Action, Ladder};
use super::mailbox::{Mailbox, Message};
use super::report::{Exit, Failure, Outbox, Reason, Stream};
use super::spawn::{self, Launched};
use crate::sys::poll::Poll;
use crate::sys::process;

/// The number of the mailbox in the poll; no command has it.
const MAILBOX: u64 = u64::MAX;
/// How often adopted children are looked at while nothing else happens: so long a zombie may stay.
const ADOPTED_EVERY: Duration = Duration::from_secs(1);

/// Owns the running commands; made by `Executor::prepare`.
pub struct Reaper {
    backlog: Arc<Backlog>,
    mailbox: Arc<Mailbox>,
    outbox: Arc<Outbox>,
    bounds: Bounds,
    drain: Duration,
    poll: Poll,
    jobs: HashMap<u64, Job>,
    /// One entry for each job whose ladder has a deadline.
    deadlines: BTreeSet<(Instant, u64)>,
    /// What was asked of commands that are in the hands of a spawner.
    early: HashMap<u64, Early>,
    ended: Vec<Exit>,
    scratch: Vec<u8>,
    stopping: bool,
    /// Whether adopted children live.
    adopted: bool,
    cleaner: Cleaner,
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
        bounds: Bounds,
        drain: Duration,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.add(mailbox.raw(), MAILBOX)?;
        Ok(Self {
            backlog: Arc::clone(backlog),
            mailbox: Arc::clone(mailbox),
            outbox: Arc::clone(outbox),
            bounds,
            drain,
            poll,
            jobs: HashMap::new(),
            deadlines: BTreeSet::new(),
            early: HashMap::new(),
            ended: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            stopping: false,
            adopted: false,
            cleaner: Cleaner::start()?,
        })
    }

    /// Works on the calling thread, with all signals blocked in it, until the executor was stopped and
    /// the last command has ended; then ends the spawners.
    pub fn run(mut self) {
        process::block_signals();
        let mut ready = Vec::new();
        while !self.is_finished() {
            self.poll.wait(self.patience(), &mut ready);
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
            self.adopted = process::reap_adopted();
            self.report();
        }
    }

    /// How long there is nothing to do if nothing happens. None: for ever.
    fn patience(&self) -> Option<Duration> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let deadline = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Commands that run may leave orphans at any time.
        let watchful = self.adopted || !self.jobs.is_empty();
        let watch = watchful.then_some(ADOPTED_EVERY);
        [deadline, watch].into_iter().flatten().min()
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
                job.read(stream, &mut self.scratch, &self.poll, &self.outbox);
                self.finish_if_drained(key);
            }
        }
    }

    fn obey(&mut self, message: Message) {
        match message {
            Message::Launched(launched) => self.admit(*launched),
            Message::Refused(key, failure) => self.refuse(key, failure),
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
        self.backlog.launched(key);
        let early = self.early.remove(&key).unwrap_or_default();
        let mut job = Job::new(launched, self.bounds);
        if let Err(error) = job.watch(&self.poll) {
            job.abandon(&self.poll);
            self.clean(job.directory.take());
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
        self.backlog.launched(key);
        self.early.remove(&key);
        self.ended
            .push(Exit::unstarted(key, Reason::SpawnFailed, Some(failure)));
    }

    /// Cancels or kills a command, wherever it is.
    fn end(&mut self, key: u64, signal: Signal) {
        if !self.jobs.contains_key(&key) {
            match self.backlog.withdraw(key) {
                Withdrawal::Withdrawn => {
                    self.early.remove(&key);
                    self.ended
                        .push(Exit::unstarted(key, Reason::Cancelled, None));
                }
                Withdrawal::Launching => {
                    let early = self.early.entry(key).or_default();
                    early.signal = early.signal.max(Some(signal));
                }
                Withdrawal::Other => {}
            }
            return;
        }
        self.climb(key, |ladder, now| match signal {
            Signal::Cancel => ladder.cancel(now),
            Signal::Kill => ladder.kill(),
        });
    }

    fn follow(&mut self, key: u64, offsets: [u64; 2]) {
        if let Some(job) = self.jobs.get_mut(&key) {
            job.follow(offsets, &self.outbox);
        } else if self.backlog.is_pending(key) {
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
            let launching = self.backlog.launching();
            let all: Vec<u64> = self.jobs.keys().copied().chain(launching).collect();
            for key in all {
                self.end(key, Signal::Kill);
            }
        }
    }

    /// Serves the deadlines that are over.
    fn expire(&mut self) {
        let now = Instant::now();
        while let Some(&(deadline, key)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.climb(key, Ladder::expire);
        }
    }

    /// Lets the ladder of a job decide, and does what it says.
    fn climb(&mut self, key: u64, decide: impl FnOnce(&mut Ladder, Instant) -> Action) {
        let Some(job) = self.jobs.get_mut(&key) else {
            return;
        };
        let now = Instant::now();
        // Nobody is cancelled who has ended by himself and only was not noticed yet. This also makes
        // sure that the number of the group is still his.
        if !job.ladder.is_draining() && job.has_ended() {
            self.main_ended(key);
            return;
        }
        let before = job.ladder.deadline();
        let action = decide(&mut job.ladder, now);
        let after = job.ladder.deadline();
        match action {
            Action::Wait => {}
            Action::Terminate => job.signal(libc::SIGTERM),
            Action::Kill => job.signal(libc::SIGKILL),
            Action::Finish => return self.finish(key),
        }
        self.reschedule(key, before, after);
    }

    fn main_ended(&mut self, key: u64) {
        let Some(job) = self.jobs.get_mut(&key) else {
            return;
        };
        let now = Instant::now();
        let before = job.ladder.deadline();
        job.main_ended(now, &self.poll);
        job.ladder.main_ended(now, self.drain);
        let after = job.ladder.deadline();
        self.reschedule(key, before, after);
        self.read_all(key);
        self.finish_if_drained(key);
    }

    fn read_all(&mut self, key: u64) {
        let Some(job) = self.jobs.get_mut(&key) else {
            return;
        };
        for stream in [Stream::Stdout, Stream::Stderr] {
            job.read(stream, &mut self.scratch, &self.poll, &self.outbox);
        }
    }

    fn finish_if_drained(&mut self, key: u64) {
        if self
            .jobs
            .get(&key)
            .is_some_and(|job| job.ladder.is_draining() && job.is_drained())
        {
            self.finish(key);
        }
    }

    fn finish(&mut self, key: u64) {
        // What is in the pipes by now still counts: one round of reads empties them.
        self.read_all(key);
        let Some(mut job) = self.jobs.remove(&key) else {
            return;
        };
        self.reschedule(key, job.ladder.deadline(), None);
        let directory = job.directory.take();
        self.ended.push(job.finish(&self.poll));
        self.clean(directory);
    }

    /// Removes the directory of a command, at once if it is empty.
    fn clean(&self, directory: Option<Directory>) {
        if let Some(Err(path)) = directory.map(Directory::discard) {
            self.cleaner.remove(path);
        }
    }

    fn reschedule(&mut self, key: u64, before: Option<Instant>, after: Option<Instant>) {
        if before != after {
            before.map(|deadline| self.deadlines.remove(&(deadline, key)));
            self.deadlines.extend(after.map(|deadline| (deadline, key)));
        }
    }

    /// Hands over what has ended in this round.
    fn report(&mut self) {
        if !self.ended.is_empty() {
            self.backlog.forget(self.ended.iter().map(|exit| exit.key));
            self.outbox.exits(&mut self.ended);
        }
    }
}

impl Drop for Reaper {
    /// Ends the spawners: nobody takes what they start any more.
    fn drop(&mut self) {
        self.backlog.close();
    }
}
