//! The spool without descriptors to spare. Alone in its process: the limit holds for all of it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use orqestra_dispatch::spool::{Reading, Spool};

const SEGMENT_BYTES: u64 = 4096;

#[test]
fn a_record_that_cannot_be_read_now_is_not_forgotten() {
    // Given: segments, the oldest of which could go if its one record were moved.
    let name = format!("orqestra-spool-exhaustion-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    let kept = b"keep".repeat(50);
    let (spool, _) = Spool::open(&directory, SEGMENT_BYTES).expect("a spool");
    write(&spool, 1, kept.clone());
    let mut key = 2;
    while segments(&directory) < 3 {
        write(&spool, key, vec![0; 200]);
        spool.delete(&[key]);
        key += 1;
    }

    // When: there is no descriptor to read it.
    let before = limit_descriptors(3);
    for key in key..key + 6 {
        write(&spool, key, vec![0; 300]);
        spool.delete(&[key]);
    }
    spool.read(1);
    let reading = until(|| spool.take().read.pop());
    spool.set_aside(1);
    spool.close();
    limit_descriptors(before);

    // Then: that is what is told, and it is lost neither by being moved nor by being set aside.
    assert_eq!(reading, (1, Reading::NotNow));
    let (spool, recovered) = Spool::open(&directory, SEGMENT_BYTES).expect("a spool");
    assert!(recovered.records.contains(&(1, kept)));
    spool.close();
    fs::remove_dir_all(&directory).expect("removed");
}

/// Makes a record durable.
fn write(spool: &Spool, key: u64, record: Vec<u8>) {
    spool.append(vec![(key, record)]);
    until(|| {
        let told = spool.take();
        assert_eq!(told.trouble, None);
        told.synced.contains(&key).then_some(())
    });
}

fn segments(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").path());
    names
        .filter(|path| path.extension().is_some_and(|end| end == "spool"))
        .count()
}

fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "it never came to that");
        std::thread::yield_now();
    }
}

/// Sets how many descriptors there may be; returns how many it were.
fn limit_descriptors(count: libc::rlim_t) -> libc::rlim_t {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit outlives both calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        let before = std::mem::replace(&mut limit.rlim_cur, count);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
        before
    }
}
