//! The thread that writes. While one sync is under way the next group gathers in the queue.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use super::folder::{Folder, Name};
use super::frame::{self, Entry, HEADER_BYTES};
use super::ledger::{Ledger, Place};
use super::queue::{Queue, Reading, Record, Tidings, Work};

/// After a failure, until the next attempt.
const RETRY: Duration = Duration::from_secs(1);
/// A segment in which nothing is wanted is emptied from this size on, even while more is coming.
const RETIRE_BYTES: u64 = ZEROS_BYTES / 2;
/// What a segment begins with, as zeros on the disk: to write over them changes no length and no
/// place, and syncs in a third of the time that growing a file takes.
const ZEROS_BYTES: u64 = 1 << 20;
/// What is kept of the memory in which groups are put together.
const BUFFER_BYTES: usize = 1 << 20;
/// Nobody looks at more.
const ASIDE_FILES: usize = 1000;

/// The segment that is written on.
struct Active {
    name: Name,
    file: File,
    bytes: u64,
}

/// Owns the folder.
pub struct Writer {
    folder: Folder,
    ledger: Ledger,
    queue: Arc<Queue>,
    tidings: Arc<Tidings>,
    segment_bytes: u64,
    last_number: u64,
    aside: usize,
    state: State,
}

#[derive(Default)]
struct State {
    active: Option<Active>,
    pending: VecDeque<Record>,
    deleted: Vec<u64>,
    buffer: Vec<u8>,
}

/// What `Writer` begins with.
pub struct Beginning {
    /// Where it writes.
    pub folder: Folder,
    /// What is there.
    pub ledger: Ledger,
    /// Segments are begun up to this size.
    pub segment_bytes: u64,
    /// Of the newest segment.
    pub last_number: u64,
    /// How many records were set aside.
    pub aside: usize,
}

impl Writer {
    /// Ready to `run`.
    pub fn new(beginning: Beginning, queue: &Arc<Queue>, tidings: &Arc<Tidings>) -> Self {
        let Beginning {
            folder,
            ledger,
            segment_bytes,
            last_number,
            aside,
        } = beginning;
        Self {
            folder,
            ledger,
            queue: Arc::clone(queue),
            tidings: Arc::clone(tidings),
            segment_bytes,
            last_number,
            aside,
            state: State::default(),
        }
    }

    /// Writes what comes until the end is wished for; tries once more then.
    pub fn run(mut self) {
        let mut failed = false;
        loop {
            let work = if failed {
                self.queue.take_after(RETRY)
            } else {
                self.queue.take()
            };
            let close = work.close;
            self.accept(work);
            let done = self.work_off(failed);
            failed = done.is_err();
            if let Err(error) = done {
                self.seal();
                self.remove_dead();
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                self.tidings.trouble(errno);
            }
            if close {
                break;
            }
        }
        self.seal();
        self.remove_dead();
    }

    /// Notes what is to be written and what is not wanted any more.
    fn accept(&mut self, work: Work) {
        self.state.pending.extend(work.append);
        for key in work.read {
            self.tidings.read(key, self.reading(key));
        }
        let mut unwanted: HashSet<u64> = work.delete.into_iter().collect();
        for key in work.set_aside {
            if self.aside < ASIDE_FILES {
                match self.read_back(key) {
                    Ok(Some(payload)) => {
                        self.folder.set_aside(key, &payload);
                        self.aside += 1;
                    }
                    Ok(None) => {}
                    // The next process finds the record once more.
                    Err(_) => continue,
                }
            }
            unwanted.insert(key);
        }
        if !unwanted.is_empty() && !self.state.pending.is_empty() {
            self.state
                .pending
                .retain(|(key, _)| !unwanted.contains(key));
        }
        for key in unwanted {
            if self.ledger.remove(key) {
                self.state.deleted.push(key);
            }
        }
    }

    /// Writes all that waits, and makes room.
    fn work_off(&mut self, after_failure: bool) -> io::Result<()> {
        self.remove_dead();
        if after_failure && self.state.pending.is_empty() {
            // Nothing waits, but somebody wants to know whether something could be written.
            self.make_room()?;
            self.tidings.synced([]);
        }
        self.write_pending()?;
        let active = self.state.active.as_ref().map(|active| active.name);
        let moving = self.ledger.to_move(active, self.segment_bytes);
        for (key, _) in moving {
            match self.read_back(key) {
                Ok(Some(payload)) => self.state.pending.push_back((key, payload)),
                // The disk has lost it. It is still with the caller, or was never asked for.
                Ok(None) => _ = self.ledger.remove(key),
                // It may well be there: no descriptor is free, say. Its segment stays.
                Err(_) => {}
            }
        }
        self.write_pending()?;
        self.remove_dead();
        Ok(())
    }

    fn write_pending(&mut self) -> io::Result<()> {
        while !self.state.pending.is_empty() || !self.state.deleted.is_empty() {
            self.write_group()?;
        }
        Ok(())
    }

    /// Writes what goes into one segment, and tells of it when it is durable.
    fn write_group(&mut self) -> io::Result<()> {
        self.make_room()?;
        let segment_bytes = self.segment_bytes;
        let State {
            active,
            pending,
            deleted,
            buffer,
        } = &mut self.state;
        let active = active.as_mut().expect("room was made");
        buffer.clear();
        let salt = active.name.salt;
        if !deleted.is_empty() {
            frame::put_deleted(buffer, salt, active.bytes, deleted);
        }
        let mut places = Vec::new();
        for (key, payload) in &*pending {
            let offset = active.bytes + buffer.len() as u64;
            let bytes = (HEADER_BYTES + payload.len()) as u64;
            if !places.is_empty() && offset + bytes > segment_bytes {
                break;
            }
            frame::put_record(buffer, salt, offset, *key, payload);
            let segment = active.name;
            let place = Place {
                segment,
                offset,
                bytes,
            };
            places.push((*key, place));
        }
        active.file.write_all_at(buffer, active.bytes)?;
        if !places.is_empty() {
            active.file.sync_data()?;
        }
        active.bytes += buffer.len() as u64;
        self.ledger.grow(active.name, buffer.len() as u64);
        deleted.clear();
        pending.drain(..places.len());
        buffer.shrink_to(BUFFER_BYTES);
        for (key, place) in &places {
            self.ledger.insert(*key, *place);
        }
        self.tidings.synced(places.into_iter().map(|(key, _)| key));
        Ok(())
    }

    /// Leaves a segment that has room for at least one record.
    fn make_room(&mut self) -> io::Result<()> {
        let next = self.state.pending.front();
        let next = next.map_or(0, |(_, payload)| (HEADER_BYTES + payload.len()) as u64);
        let active = self.state.active.as_ref();
        if active.is_some_and(|it| it.bytes > 0 && it.bytes + next > self.segment_bytes) {
            self.seal();
        }
        if self.state.active.is_some() {
            return Ok(());
        }
        let name = Name::after(self.last_number);
        let file = self.folder.create(name)?;
        self.last_number = name.number;
        self.ledger.grow(name, 0);
        let bytes = 0;
        let active = self.state.active.insert(Active { name, file, bytes });
        let zeros = vec![0; self.segment_bytes.min(ZEROS_BYTES) as usize];
        active.file.write_all_at(&zeros, 0)?;
        active.file.sync_data()?;
        self.folder.sync()
    }

    /// Writes on this segment no more, and cuts off what it has beyond its good end. Also after a
    /// failure: a sync that failed may have dropped pages, and a second one would not tell.
    fn seal(&mut self) {
        if let Some(active) = self.state.active.take() {
            let _ = active.file.set_len(active.bytes);
            // Else each attempt would leave one behind the oldest record.
            if active.bytes == 0 {
                self.ledger.forget(active.name);
                self.folder.remove(active.name);
            }
        }
    }

    fn reading(&self, key: u64) -> Reading {
        let pending = &mut self.state.pending.iter();
        if let Some((_, payload)) = pending.find(|(waiting, _)| *waiting == key) {
            return Reading::Found(payload.clone());
        }
        match self.read_back(key) {
            Ok(Some(payload)) => Reading::Found(payload),
            Ok(None) => Reading::Gone,
            Err(_) => Reading::NotNow,
        }
    }

    /// What a record says; None: what stands in its place is no record. An error says nothing
    /// about the record.
    fn read_back(&self, key: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(place) = self.ledger.place(key) else {
            return Ok(None);
        };
        let mut bytes = vec![0; place.bytes as usize];
        let file = self.folder.segment(place.segment)?;
        match file.read_exact_at(&mut bytes, place.offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            done => done?,
        }
        Ok(
            match frame::read_frame(place.segment.salt, place.offset, &bytes) {
                Some((Entry::Record(_, payload), _)) => Some(payload.to_vec()),
                Some((Entry::Deleted(_), _)) | None => None,
            },
        )
    }

    /// Removes the segments that nobody needs, and empties the one that is written on if nothing in
    /// it is wanted: what was deleted there needs not be said.
    fn remove_dead(&mut self) {
        let active = self.state.active.as_ref().map(|active| active.name);
        for name in self.ledger.take_dead(active) {
            self.folder.remove(name);
        }
        if self.ledger.len() > 0 {
            return;
        }
        let idle = self.state.pending.is_empty();
        match &mut self.state.active {
            // Files left over may say it again, but nothing is lost by that.
            None => self.state.deleted.clear(),
            Some(active) if idle || active.bytes >= RETIRE_BYTES => {
                if active.bytes > 0 && empty(&active.file, active.bytes).is_ok() {
                    active.bytes = 0;
                    self.ledger.empty(active.name);
                }
                self.state.deleted.clear();
            }
            Some(_) => {}
        }
    }
}

/// Makes a file of so many bytes one of zeros, without a sync: if that is lost, what was deleted is
/// there once more, and somebody deletes it again.
fn empty(file: &File, bytes: u64) -> io::Result<()> {
    if bytes > ZEROS_BYTES {
        file.set_len(ZEROS_BYTES)?;
    }
    file.write_all_at(&vec![0; bytes.min(ZEROS_BYTES) as usize], 0)
}
