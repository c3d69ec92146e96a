//! Between the callers and the thread that writes: what is to be done, and what is done.

use std::io;
use std::os::fd::RawFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::sys::descriptors::Event;

/// How long deletions wait for a record to be written with.
const LINGER: Duration = Duration::from_millis(100);

/// A record and its key.
pub type Record = (u64, Vec<u8>);

/// What is to be done, in this order.
#[derive(Debug, Default)]
pub struct Work {
    /// Write these.
    pub append: Vec<Record>,
    /// Read these.
    pub read: Vec<u64>,
    /// Set these aside, then delete them.
    pub set_aside: Vec<u64>,
    /// Delete these.
    pub delete: Vec<u64>,
    /// And then end.
    pub close: bool,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.can_wait() && self.delete.is_empty()
    }

    /// Whether only deletions are to be done, which have time.
    fn can_wait(&self) -> bool {
        self.append.is_empty() && self.read.is_empty() && self.set_aside.is_empty() && !self.close
    }
}

/// What waits for the thread.
#[derive(Default)]
pub struct Queue {
    work: Mutex<Work>,
    changed: Condvar,
}

impl Queue {
    /// Adds to what is to be done.
    pub fn add(&self, add: impl FnOnce(&mut Work)) {
        let mut work = self.lock();
        let was_empty = work.is_empty();
        add(&mut work);
        // Whoever waits for deletions to gather need not know of each.
        let wakes = was_empty || !work.can_wait();
        drop(work);
        if wakes {
            self.changed.notify_one();
        }
    }

    /// Takes all that waits as soon as there is something. Nothing waits for more to come, but
    /// deletions, and those not for long.
    pub fn take(&self) -> Work {
        let mut work = self.lock();
        while work.is_empty() {
            work = self.wait(work, None);
        }
        self.take_by(work, Instant::now() + LINGER)
    }

    /// Takes what has come when this time is over, or the end is wished for.
    pub fn take_after(&self, pause: Duration) -> Work {
        let until = Instant::now() + pause;
        let mut work = self.lock();
        while !work.close && Instant::now() < until {
            work = self.wait(work, Some(until));
        }
        std::mem::take(&mut *work)
    }

    fn take_by<'a>(&'a self, mut work: MutexGuard<'a, Work>, until: Instant) -> Work {
        while work.can_wait() && Instant::now() < until {
            work = self.wait(work, Some(until));
        }
        std::mem::take(&mut *work)
    }

    fn wait<'a>(&self, work: MutexGuard<'a, Work>, until: Option<Instant>) -> MutexGuard<'a, Work> {
        let Some(until) = until else {
            let woken = self.changed.wait(work);
            return woken.unwrap_or_else(PoisonError::into_inner);
        };
        let left = until.saturating_duration_since(Instant::now());
        let woken = self.changed.wait_timeout(work, left);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of the wish to read a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// What it says.
    Found(Vec<u8>),
    /// What stands in its place is no record.
    Gone,
    /// It could not be read now, and may well be there: no descriptor was free, say.
    NotNow,
}

/// What is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The records that are durable since the last time.
    pub synced: Vec<u64>,
    /// The records that were to be read.
    pub read: Vec<(u64, Reading)>,
    /// Why nothing can be written now; None: all is well.
    pub trouble: Option<i32>,
}

/// What waits for the callers.
pub struct Tidings {
    told: Mutex<Told>,
    event: Event,
}

impl Tidings {
    /// Nothing yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            told: Mutex::default(),
            event: Event::new()?,
        })
    }

    /// Tells that records are durable, and so that all is well.
    pub fn synced(&self, keys: impl IntoIterator<Item = u64>) {
        let mut told = self.lock();
        told.trouble = None;
        told.synced.extend(keys);
        // Whoever wakes by it would wait for the lock.
        drop(told);
        self.event.set();
    }

    /// Tells what a record says.
    pub fn read(&self, key: u64, reading: Reading) {
        self.lock().read.push((key, reading));
        self.event.set();
    }

    /// Tells that nothing can be written.
    pub fn trouble(&self, errno: i32) {
        let mut told = self.lock();
        if told.trouble != Some(errno) {
            told.trouble = Some(errno);
            self.event.set();
        }
    }

    /// Takes what is new; the descriptor is not readable until there is more.
    pub fn take(&self) -> Told {
        let mut told = self.lock();
        self.event.clear();
        Told {
            synced: std::mem::take(&mut told.synced),
            read: std::mem::take(&mut told.read),
            trouble: told.trouble,
        }
    }

    /// A descriptor that is readable while something is new.
    pub fn fileno(&self) -> RawFd {
        self.event.raw()
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
