//! Keeps records on disk from the moment they are told to be there until they are deleted.
//!
//! Records are opaque bytes with a key each. They are appended to segment files in groups, each
//! made durable by one sync on a thread of its own; deletions are written when there is time, since
//! to forget one costs whoever asked for it no more than to delete the record again. Read it in this
//! order:
//!
//! - `crc`, `frame`: how records stand in a segment, and what can be read of one that was damaged.
//! - `folder`: the files.
//! - `ledger`: which segment holds which records, and which are needed no more.
//! - `queue`: what passes between the callers and the thread.
//! - `writer`: the thread.
//!
//! A process may die between any two system calls, and the machine too: what was told to be durable
//! is read by the next `open`, a record that was cut off is not, and nothing that was never a record
//! ever is. Whoever opens a spool must have its directory for himself. A moment after everything was
//! deleted its files are zeros.
#![deny(unsafe_code)]

use std::io::{self, Read};
use std::os::fd::RawFd;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hashbrown::HashMap;

mod crc;
mod folder;
mod frame;
mod ledger;
mod queue;
mod writer;

pub use frame::PAYLOAD_BYTES_MAX;
pub use queue::{Reading, Record, Told};

use folder::Folder;
use frame::Entry;
use ledger::{Ledger, Place};
use queue::{Queue, Tidings};
use writer::{Beginning, Writer};

/// How long what was set aside is kept.
const ASIDE_AGE: Duration = Duration::from_secs(24 * 3600);
/// How long `close` waits for a disk that does not answer.
const CLOSE: Duration = Duration::from_secs(2);

/// What an earlier process left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Its records that were not deleted, oldest first.
    pub records: Vec<Record>,
    /// Segments whose end was cut off in the middle of a record; it was removed.
    pub torn: usize,
    /// Places at which bytes in the middle of a segment are not what was written.
    pub damaged: usize,
}

/// An open spool. Every method but `close` returns at once.
pub struct Spool {
    queue: Arc<Queue>,
    tidings: Arc<Tidings>,
    thread: Mutex<Option<Running>>,
}

/// The thread, and what is cut off when it ends.
struct Running {
    thread: JoinHandle<()>,
    alive: Receiver<()>,
}

impl Spool {
    /// Opens or makes the spool in a directory; segments are begun up to this size.
    ///
    /// # Errors
    /// The directory can't be used.
    pub fn open(directory: &Path, segment_bytes: u64) -> io::Result<(Self, Recovered)> {
        let folder = Folder::open(directory)?;
        let aside = folder.forget_aside(ASIDE_AGE)?;
        let (ledger, recovered, last_number) = load(&folder)?;
        let beginning = Beginning {
            folder,
            ledger,
            segment_bytes,
            last_number,
            aside,
        };
        let queue = Arc::new(Queue::default());
        let tidings = Arc::new(Tidings::new()?);
        let writer = Writer::new(beginning, &queue, &tidings);
        let told = Arc::clone(&tidings);
        let (held, alive) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("spool".into()).spawn(move || {
            let _held = held;
            // Whoever waits for a record must get to know that none will be written any more.
            if panic::catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
                told.trouble(libc::EIO);
            }
        })?;
        let thread = Mutex::new(Some(Running { thread, alive }));
        let spool = Self {
            queue,
            tidings,
            thread,
        };
        Ok((spool, recovered))
    }

    /// A descriptor that is readable while `take` has something new; valid as long as the spool
    /// lives.
    #[must_use]
    pub fn fileno(&self) -> RawFd {
        self.tidings.fileno()
    }

    /// Takes records to be written. No key is used twice.
    pub fn append(&self, records: Vec<Record>) {
        self.queue.add(|work| work.append.extend(records));
    }

    /// Takes keys whose records are not wanted any more, whether they are durable yet or not.
    pub fn delete(&self, keys: &[u64]) {
        self.queue.add(|work| work.delete.extend(keys));
    }

    /// Deletes a durable record, and keeps what it said for a day where nobody reads it.
    pub fn set_aside(&self, key: u64) {
        self.queue.add(|work| work.set_aside.push(key));
    }

    /// Asks for what a durable record says; `take` brings it.
    pub fn read(&self, key: u64) {
        self.queue.add(|work| work.read.push(key));
    }

    /// Takes what has become durable or was read since the last call, and why nothing does.
    #[must_use]
    pub fn take(&self) -> Told {
        self.tidings.take()
    }

    /// Writes what waits and ends the thread. What is appended after it is never written. If the
    /// disk does not answer for two seconds the thread is left to it: nobody may open the directory
    /// while this process lives.
    pub fn close(&self) {
        self.queue.add(|work| work.close = true);
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = thread.take()
            && running.alive.recv_timeout(CLOSE) != Err(RecvTimeoutError::Timeout)
        {
            let _ = running.thread.join();
        }
    }
}

impl Drop for Spool {
    /// Ends the thread without waiting for it.
    fn drop(&mut self) {
        self.queue.add(|work| work.close = true);
    }
}

/// Reads all segments, and cuts off what is not whole at their ends.
fn load(folder: &Folder) -> io::Result<(Ledger, Recovered, u64)> {
    let mut ledger = Ledger::default();
    let mut recovered = Recovered::default();
    let mut payloads = HashMap::new();
    let mut last_number = 0;
    for name in folder.segments()? {
        let mut file = folder.segment(name)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let reading = frame::read(name.salt, &bytes);
        recovered.damaged += reading.gaps;
        if bytes[reading.end..].iter().any(|byte| *byte != 0) {
            recovered.torn += 1;
            file.set_len(reading.end as u64)?;
            file.sync_all()?;
        }
        last_number = name.number;
        ledger.grow(name, reading.end as u64);
        for (offset, entry) in reading.entries {
            match entry {
                Entry::Record(key, payload) => {
                    let place = Place {
                        segment: name,
                        offset: offset as u64,
                        bytes: (frame::HEADER_BYTES + payload.len()) as u64,
                    };
                    ledger.insert(key, place);
                    payloads.insert(key, (place, payload.to_vec()));
                }
                Entry::Deleted(keys) => {
                    for key in keys {
                        ledger.remove(key);
                        payloads.remove(&key);
                    }
                }
            }
        }
    }
    let mut records: Vec<_> = payloads.into_iter().collect();
    records.sort_unstable_by_key(|(_, (place, _))| (place.segment, place.offset));
    let records = records.into_iter();
    recovered.records = records.map(|(key, (_, payload))| (key, payload)).collect();
    for name in ledger.take_dead(None) {
        folder.remove(name);
    }
    Ok((ledger, recovered, last_number))
}
