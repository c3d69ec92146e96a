//! What the supervisor holds: each command from its start until the daemon says that its end may be
//! forgotten. Pure accounting.
//!
//! An end is told once it is durable, or cannot be: before, a result could be sent that the next
//! daemon does not know of. Its record leaves memory when the disk has it and the daemon was told;
//! one that nobody comes to read waits on the disk alone.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::message::Held;
use super::record;
use crate::spool::Record;

/// So much is kept in memory for a daemon that reads slowly; more is read from the disk again.
const RECORD_BYTES_MAX: usize = 16 << 20;

enum State {
    /// `stuck`: it was sent KILL, and the kernel does not end it.
    Running {
        stuck: bool,
    },
    Ended(End),
}

struct End {
    /// None: it is on the disk.
    record: Option<Vec<u8>>,
    /// Whether the spool was asked to keep it.
    spooled: bool,
    durable: bool,
    /// Whether it waits to be told or was told to the daemon that is attached.
    offered: bool,
}

struct Entry {
    tag: Vec<u8>,
    state: State,
}

/// What is to be told next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// This end, with its record.
    Tell(u64, Vec<u8>),
    /// This end, whose record has to be read first.
    Read(u64),
}

/// All that was taken and not forgotten.
#[derive(Default)]
pub struct Holdings {
    entries: HashMap<u64, Entry>,
    untold: VecDeque<u64>,
    running: usize,
    undurable: usize,
    record_bytes: usize,
}

impl Holdings {
    /// Takes over a command; false if its key is in use.
    pub fn start(&mut self, key: u64, tag: Vec<u8>) -> bool {
        let state = State::Running { stuck: false };
        let is_new = self.entries.try_insert(key, Entry { tag, state }).is_ok();
        self.running += usize::from(is_new);
        is_new
    }

    /// The ends that the spool has kept from an earlier process, and the keys of records that say none.
    pub fn recovered(records: Vec<Record>) -> (Self, Vec<u64>) {
        let (mut holdings, mut unreadable) = (Self::default(), Vec::new());
        for (key, record) in records {
            match record::tag_of(&record) {
                Ok(tag) => holdings.recover(key, tag),
                Err(_) => unreadable.push(key),
            }
        }
        (holdings, unreadable)
    }

    /// Takes over an end that the spool has kept from an earlier process.
    fn recover(&mut self, key: u64, tag: Vec<u8>) {
        let state = State::Ended(End {
            record: None,
            spooled: true,
            durable: true,
            offered: false,
        });
        // The first of one key counts.
        let _ = self.entries.try_insert(key, Entry { tag, state });
    }

    /// The tag of a command.
    pub fn tag(&self, key: u64) -> &[u8] {
        self.entries.get(&key).map_or(&[], |entry| &entry.tag)
    }

    /// Notes the end of a command. With `spooled` it is told once `durable` says so, else at once.
    pub fn ended(&mut self, key: u64, record: Vec<u8>, spooled: bool) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        self.running -= usize::from(matches!(entry.state, State::Running { .. }));
        self.undurable += usize::from(spooled);
        self.record_bytes += record.len();
        entry.state = State::Ended(End {
            record: Some(record),
            spooled,
            durable: false,
            offered: false,
        });
        if !spooled {
            self.offer(key);
        }
    }

    /// The disk has the record of this end. `attached`: somebody is there to be told.
    pub fn durable(&mut self, key: u64, attached: bool) {
        let Some(end) = self.end(key) else { return };
        if end.durable {
            return;
        }
        end.durable = true;
        self.undurable -= 1;
        if !attached || self.record_bytes > RECORD_BYTES_MAX {
            self.drop_record(key);
        }
        self.offer(key);
    }

    /// Offers all ends, durable or not: the disk does not take them.
    pub fn offer_undurable(&mut self) {
        let late = self.entries.iter().filter_map(|(key, entry)| {
            matches!(&entry.state, State::Ended(end) if !end.durable && !end.offered)
                .then_some(*key)
        });
        let mut late: Vec<u64> = late.collect();
        late.sort_unstable();
        for key in late {
            self.offer(key);
        }
    }

    /// What a daemon that has just come is told: everything, and then every end once more.
    pub fn attach(&mut self) -> Vec<Held> {
        let mut held: Vec<Held> = self
            .entries
            .iter()
            .map(|(key, entry)| Held {
                key: *key,
                tag: entry.tag.clone(),
                ended: matches!(entry.state, State::Ended(_)),
            })
            .collect();
        held.sort_unstable_by_key(|held| held.key);
        self.untold.clear();
        for Held { key, .. } in held.iter().filter(|held| held.ended) {
            if let Some(end) = self.end(*key) {
                end.offered = false;
                if end.durable || !end.spooled {
                    self.offer(*key);
                }
            }
        }
        held
    }

    /// What is to be told next, if anything.
    pub fn next(&mut self) -> Option<Next> {
        loop {
            let key = self.untold.pop_front()?;
            let Some(end) = self.end(key) else {
                continue;
            };
            return Some(match (&mut end.record, end.durable) {
                (None, _) => Next::Read(key),
                (Some(record), false) => Next::Tell(key, record.clone()),
                (record @ Some(_), true) => {
                    let record = record.take().unwrap_or_default();
                    self.record_bytes -= record.len();
                    Next::Tell(key, record)
                }
            });
        }
    }

    /// Forgets these ends. Returns those that the spool was asked to keep.
    pub fn forget(&mut self, keys: &[u64]) -> Vec<u64> {
        let mut spooled = Vec::new();
        for &key in keys {
            if self.end(key).is_none() {
                continue;
            }
            self.drop_record(key);
            if let Some(State::Ended(end)) = self.entries.remove(&key).map(|entry| entry.state)
                && end.spooled
            {
                self.undurable -= usize::from(!end.durable);
                spooled.push(key);
            }
        }
        spooled
    }

    /// Whether this end is still wanted.
    pub fn is_ended(&self, key: u64) -> bool {
        matches!(self.entries.get(&key), Some(entry) if matches!(entry.state, State::Ended(_)))
    }

    /// How many commands have not ended.
    pub fn running(&self) -> usize {
        self.running
    }

    /// How many ends the spool was asked to keep and has not made durable.
    pub fn undurable(&self) -> usize {
        self.undurable
    }

    /// The commands that have not ended.
    pub fn running_keys(&self) -> Vec<u64> {
        self.keys(|state| matches!(state, State::Running { .. }))
    }

    /// Notes commands that the kernel does not end.
    pub fn note_stuck(&mut self, keys: &[u64]) {
        for key in keys {
            let entry = self.entries.get_mut(key);
            if let Some(State::Running { stuck }) = entry.map(|entry| &mut entry.state) {
                *stuck = true;
            }
        }
    }

    /// The commands that the kernel still has not ended.
    pub fn stuck_keys(&self) -> Vec<u64> {
        self.keys(|state| matches!(state, State::Running { stuck: true }))
    }

    fn keys(&self, wanted: impl Fn(&State) -> bool) -> Vec<u64> {
        let found = self
            .entries
            .iter()
            .filter(|(_, entry)| wanted(&entry.state));
        found.map(|(key, _)| *key).collect()
    }

    fn end(&mut self, key: u64) -> Option<&mut End> {
        match &mut self.entries.get_mut(&key)?.state {
            State::Ended(end) => Some(end),
            State::Running { .. } => None,
        }
    }

    fn offer(&mut self, key: u64) {
        if let Some(end) = self.end(key)
            && !std::mem::replace(&mut end.offered, true)
        {
            self.untold.push_back(key);
        }
    }

    fn drop_record(&mut self, key: u64) {
        let record = self.end(key).and_then(|end| end.record.take());
        self.record_bytes -= record.map_or(0, |record| record.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_once_it_is_durable_and_once_only() {
        let mut holdings = Holdings::default();
        assert!(holdings.start(1, b"tag".to_vec()));
        assert!(!holdings.start(1, Vec::new()), "a key is used once");
        holdings.ended(1, b"record".to_vec(), true);
        assert_eq!(holdings.next(), None);

        holdings.durable(1, true);
        assert_eq!(holdings.next(), Some(Next::Tell(1, b"record".to_vec())));
        assert_eq!(holdings.next(), None);
        assert_eq!(holdings.forget(&[1, 2]), [1]);
        assert_eq!(holdings.attach(), []);
    }

    #[test]
    fn the_next_daemon_is_told_again_from_the_disk() {
        let mut holdings = Holdings::default();
        holdings.start(1, b"a".to_vec());
        holdings.start(2, b"b".to_vec());
        holdings.ended(1, b"record".to_vec(), true);
        holdings.durable(1, false);

        let held = holdings.attach();
        assert_eq!(
            held.iter()
                .map(|held| (held.key, held.ended))
                .collect::<Vec<_>>(),
            [(1, true), (2, false)]
        );
        assert_eq!(holdings.next(), Some(Next::Read(1)));
        assert_eq!(holdings.next(), None);
    }

    #[test]
    fn what_the_disk_does_not_take_is_told_from_memory_and_kept_there() {
        let mut holdings = Holdings::default();
        holdings.start(1, Vec::new());
        holdings.ended(1, b"record".to_vec(), true);
        holdings.offer_undurable();
        assert_eq!(holdings.next(), Some(Next::Tell(1, b"record".to_vec())));

        holdings.attach();
        assert_eq!(holdings.next(), None, "it may still become durable");
        holdings.offer_undurable();
        assert_eq!(holdings.next(), Some(Next::Tell(1, b"record".to_vec())));
        holdings.durable(1, true);
        assert_eq!(holdings.undurable(), 0);
    }

    #[test]
    fn what_is_stuck_is_so_until_its_end() {
        let mut holdings = Holdings::default();
        holdings.start(1, Vec::new());
        holdings.start(2, Vec::new());
        holdings.note_stuck(&[2, 3]);
        assert_eq!(holdings.stuck_keys(), [2]);

        holdings.ended(2, b"record".to_vec(), true);
        holdings.note_stuck(&[2]);
        assert_eq!(holdings.stuck_keys(), [] as [u64; 0]);
        assert!(holdings.is_ended(2));
    }

    #[test]
    fn what_never_ran_is_told_at_once_and_leaves_no_record() {
        let mut holdings = Holdings::default();
        holdings.start(1, Vec::new());
        holdings.ended(1, b"record".to_vec(), false);
        assert_eq!(holdings.next(), Some(Next::Tell(1, b"record".to_vec())));
        assert_eq!(holdings.forget(&[1]), [] as [u64; 0]);
        assert_eq!((holdings.running(), holdings.undurable()), (0, 0));
    }
}
