//! A place for a spool, and waiting for what it tells.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use orqestra_dispatch::spool::{Record, Recovered, Spool, Told};

pub const SEGMENT_BYTES: u64 = 8 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// A place for a spool, gone after the test.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("orqestra-spool-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    pub fn spool(&self) -> PathBuf {
        self.0.join("spool")
    }

    pub fn open(&self) -> (Spool, Recovered) {
        self.open_with(SEGMENT_BYTES)
    }

    pub fn open_with(&self, segment_bytes: u64) -> (Spool, Recovered) {
        Spool::open(&self.spool(), segment_bytes).expect("a spool")
    }

    /// What a new process finds.
    pub fn recovered(&self) -> Recovered {
        let (spool, recovered) = self.open();
        spool.close();
        recovered
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Vec<PathBuf> {
        files(&self.spool())
    }

    /// How many bytes of what stands in the segments are not zero.
    pub fn content(&self) -> usize {
        let count = |path: &PathBuf| {
            let bytes = fs::read(path).unwrap_or_default();
            bytes.iter().filter(|byte| **byte != 0).count()
        };
        self.segments().iter().map(count).sum()
    }

    pub fn bytes(&self) -> u64 {
        let size = |path: &PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
        self.segments().iter().map(size).sum()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removed");
    }
}

pub fn files(directory: &PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = paths.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// The frames of a segment, without the zeros behind them.
pub fn content_of(segment: &PathBuf) -> Vec<u8> {
    let mut bytes = fs::read(segment).expect("a segment");
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

pub fn record(key: u64) -> Record {
    (key, format!("record {key}").into_bytes())
}

pub fn keys(recovered: &Recovered) -> Vec<u64> {
    recovered.records.iter().map(|(key, _)| *key).collect()
}

/// What is told next.
pub fn told(spool: &Spool) -> Told {
    assert!(is_readable(spool, PATIENCE), "nothing was told");
    spool.take()
}

/// Whether something is new, or will be.
pub fn is_readable(spool: &Spool, patience: Duration) -> bool {
    let mut event = libc::pollfd {
        fd: spool.fileno(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid entry.
    let ready = unsafe { libc::poll(&raw mut event, 1, patience.as_millis() as libc::c_int) };
    ready == 1
}

/// Waits until so many records are durable.
pub fn synced(spool: &Spool, count: usize) -> Vec<u64> {
    let mut keys = Vec::new();
    while keys.len() < count {
        let told = told(spool);
        assert_eq!(told.trouble, None);
        keys.extend(told.synced);
    }
    keys
}

pub fn until(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "it never came to that");
        std::thread::yield_now();
    }
}
