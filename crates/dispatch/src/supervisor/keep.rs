//! The spool, and what it is asked when: see `disk`.

use std::os::fd::RawFd;

use super::disk::Disk;
use crate::spool::{Record, Spool, Told};

/// Where ends are kept.
pub struct Keep {
    spool: Spool,
    disk: Disk,
    unread: Vec<u64>,
}

impl Keep {
    /// In this spool.
    pub fn new(spool: Spool) -> Self {
        Self {
            spool,
            disk: Disk::default(),
            unread: Vec::new(),
        }
    }

    /// A descriptor that is readable while `take` has something new.
    pub fn fileno(&self) -> RawFd {
        self.spool.fileno()
    }

    /// A sentence on what is wrong with the disk; empty: nothing.
    pub fn health(&self) -> &str {
        self.disk.health()
    }

    /// Whether ends have to be told before they are durable.
    pub fn is_ill(&self) -> bool {
        self.disk.is_ill()
    }

    /// Whether something could not be read, and is to be tried again.
    pub fn is_behind(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Keeps these.
    pub fn append(&mut self, records: Vec<Record>) {
        self.disk.appended(records.iter().map(|(key, _)| *key));
        self.spool.append(records);
    }

    /// These need not be kept any more.
    pub fn delete(&mut self, keys: Vec<u64>) {
        self.disk.delete(keys);
    }

    /// Nor these, but somebody may want to look at them.
    pub fn set_aside(&mut self, keys: Vec<u64>) {
        self.disk.set_aside(keys);
    }

    /// Asks for what is kept under this key; `take` brings it.
    pub fn read(&self, key: u64) {
        self.spool.read(key);
    }

    /// The same, a little later: it could not be read now.
    pub fn read_later(&mut self, key: u64) {
        self.unread.push(key);
    }

    /// Takes what the spool tells.
    pub fn take(&mut self) -> Told {
        let told = self.spool.take();
        self.disk.told(&told.synced, told.trouble);
        told
    }

    /// Hands over what has waited for its time. Returns whether ends have to be told before they are
    /// durable.
    pub fn look(&mut self) -> bool {
        let is_ill = self.disk.look();
        let unneeded = self.disk.take_unneeded();
        if !unneeded.deleted.is_empty() {
            self.spool.delete(&unneeded.deleted);
        }
        for key in unneeded.set_aside {
            self.spool.set_aside(key);
        }
        for key in std::mem::take(&mut self.unread) {
            self.spool.read(key);
        }
        is_ill
    }

    /// Writes what waits, and ends.
    pub fn close(&self) {
        self.spool.close();
    }
}
