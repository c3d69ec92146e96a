//! Which segment holds which records, and which segments nobody needs. Pure.
//!
//! Segments go oldest first. A frame that says "deleted" is about records of its own or an older
//! segment; as long as those are there, so is it.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::folder::Name;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// In which segment.
    pub segment: Name,
    /// Where its frame begins.
    pub offset: u64,
    /// How long its frame is.
    pub bytes: u64,
}

#[derive(Default)]
struct Content {
    bytes: u64,
    records: usize,
}

/// The live records and all segments.
#[derive(Default)]
pub struct Ledger {
    places: HashMap<u64, Place>,
    segments: BTreeMap<Name, Content>,
    bytes: u64,
    live_bytes: u64,
}

impl Ledger {
    /// Notes that a segment has grown by so much; makes it known.
    pub fn grow(&mut self, segment: Name, bytes: u64) {
        self.segments.entry(segment).or_default().bytes += bytes;
        self.bytes += bytes;
    }

    /// Forgets a segment in which nothing was written.
    pub fn forget(&mut self, segment: Name) {
        self.segments.remove(&segment);
    }

    /// Notes that a known segment, in which nothing is wanted, is empty now.
    pub fn empty(&mut self, segment: Name) {
        let content = self.segments.entry(segment).or_default();
        self.bytes -= std::mem::take(&mut content.bytes);
    }

    /// Notes a record of a known segment. If it had another place, it has left that.
    pub fn insert(&mut self, key: u64, place: Place) {
        self.remove(key);
        self.places.insert(key, place);
        self.live_bytes += place.bytes;
        self.segments.entry(place.segment).or_default().records += 1;
    }

    /// Forgets a record; whether it was known.
    pub fn remove(&mut self, key: u64) -> bool {
        let Some(place) = self.places.remove(&key) else {
            return false;
        };
        self.live_bytes -= place.bytes;
        self.segments.entry(place.segment).or_default().records -= 1;
        true
    }

    /// Where a record is.
    pub fn place(&self, key: u64) -> Option<Place> {
        self.places.get(&key).copied()
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Forgets and returns the oldest segments, up to the first that has a record or is `active`.
    pub fn take_dead(&mut self, active: Option<Name>) -> Vec<Name> {
        let mut dead = Vec::new();
        while let Some(entry) = self.segments.first_entry() {
            if entry.get().records > 0 || Some(*entry.key()) == active {
                break;
            }
            let (name, content) = entry.remove_entry();
            self.bytes -= content.bytes;
            dead.push(name);
        }
        dead
    }

    /// The records to be moved so that the oldest segment can go: if less than half of all that is
    /// stored, and of two segments more, is wanted.
    pub fn to_move(&self, active: Option<Name>, segment_bytes: u64) -> Vec<(u64, Place)> {
        let Some((oldest, _)) = self.segments.first_key_value() else {
            return Vec::new();
        };
        if Some(*oldest) == active || self.bytes <= 2 * (self.live_bytes + segment_bytes) {
            return Vec::new();
        }
        let records = self.places.iter().map(|(key, place)| (*key, *place));
        let mut records: Vec<_> = records.filter(|(_, at)| at.segment == *oldest).collect();
        records.sort_unstable_by_key(|(_, place)| place.offset);
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u64) -> Name {
        Name { number, salt: 9 }
    }

    fn put(ledger: &mut Ledger, segment: u64, key: u64, bytes: u64) {
        ledger.grow(name(segment), bytes);
        ledger.insert(
            key,
            Place {
                segment: name(segment),
                offset: key,
                bytes,
            },
        );
    }

    #[test]
    fn segments_go_oldest_first_once_nothing_in_them_is_wanted() {
        let mut ledger = Ledger::default();
        put(&mut ledger, 1, 10, 5);
        put(&mut ledger, 2, 20, 5);
        put(&mut ledger, 3, 30, 5);

        assert!(ledger.remove(20));
        assert!(!ledger.remove(20));
        assert_eq!(ledger.take_dead(None), []);
        ledger.remove(10);
        assert_eq!(ledger.take_dead(None), [name(1), name(2)]);
        ledger.remove(30);
        assert_eq!(ledger.take_dead(Some(name(3))), []);
        assert_eq!(ledger.take_dead(None), [name(3)]);
        assert_eq!((ledger.bytes, ledger.live_bytes, ledger.len()), (0, 0, 0));
    }

    #[test]
    fn one_record_that_stays_does_not_hold_everything_after_it() {
        let mut ledger = Ledger::default();
        put(&mut ledger, 1, 1, 10);
        for key in 2..6 {
            put(&mut ledger, key, key, 10);
            ledger.remove(key);
        }
        assert_eq!(ledger.to_move(Some(name(5)), 15), []);
        assert_eq!(ledger.to_move(Some(name(1)), 5), []);

        let moved = ledger.to_move(Some(name(5)), 10);

        assert_eq!(moved.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [1]);
        put(&mut ledger, 5, 1, 10);
        assert_eq!(ledger.take_dead(Some(name(5))), [1, 2, 3, 4].map(name));
    }
}
