//! How the disk of the spool does, and what it is not asked while it does not answer.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use hashbrown::HashSet;

/// Until a disk that has not made a record durable counts as one that does not answer.
const SILENCE: Duration = Duration::from_secs(5);

/// Its health, from what the spool tells and from what it does not.
#[derive(Default)]
pub struct Disk {
    health: String,
    trouble: bool,
    silent: bool,
    /// Records that were handed over, oldest first, each with the time.
    waiting: VecDeque<(u64, Instant)>,
    undurable: HashSet<u64>,
    unneeded: Unneeded,
}

/// Records that need not stand in the spool any more.
#[derive(Default)]
pub struct Unneeded {
    /// These can go.
    pub deleted: Vec<u64>,
    /// Somebody may want to look at these.
    pub set_aside: Vec<u64>,
}

impl Disk {
    /// A sentence on what is wrong; empty: nothing.
    pub fn health(&self) -> &str {
        &self.health
    }

    /// Whether ends have to be told before they are durable.
    pub fn is_ill(&self) -> bool {
        self.trouble || self.silent
    }

    /// Notes records that the spool was given.
    pub fn appended(&mut self, keys: impl Iterator<Item = u64>) {
        let now = Instant::now();
        for key in keys {
            self.undurable.insert(key);
            self.waiting.push_back((key, now));
        }
    }

    /// Notes records that can go.
    pub fn delete(&mut self, keys: Vec<u64>) {
        self.unneeded.deleted.extend(keys);
    }

    /// Notes records that somebody may want to look at.
    pub fn set_aside(&mut self, keys: Vec<u64>) {
        self.unneeded.set_aside.extend(keys);
    }

    /// The records that the spool can be told of now: none while the disk is silent, since of what is
    /// not written any more no sync would tell that it answers again.
    pub fn take_unneeded(&mut self) -> Unneeded {
        if self.silent {
            return Unneeded::default();
        }
        let unneeded = std::mem::take(&mut self.unneeded);
        for key in unneeded.deleted.iter().chain(&unneeded.set_aside) {
            self.undurable.remove(key);
        }
        unneeded
    }

    /// Notes what the spool told.
    pub fn told(&mut self, synced: &[u64], trouble: Option<i32>) {
        for key in synced {
            self.undurable.remove(key);
        }
        self.trouble = trouble.is_some();
        if self.trouble || !synced.is_empty() {
            self.silent = false;
        }
        if let Some(errno) = trouble {
            self.health = format!("spool: {}", io::Error::from_raw_os_error(errno));
        }
        self.look();
    }

    /// Looks at the time. Returns whether ends have to be told before they are durable.
    pub fn look(&mut self) -> bool {
        while let Some((key, since)) = self.waiting.front() {
            if self.undurable.contains(key) {
                self.silent |= !self.trouble && since.elapsed() >= SILENCE;
                break;
            }
            self.waiting.pop_front();
        }
        if self.silent {
            "spool: the disk does not answer".clone_into(&mut self.health);
        } else if !self.trouble {
            self.health.clear();
        }
        self.is_ill()
    }
}
