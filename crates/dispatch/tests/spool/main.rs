//! A spool and its files: what is there after an end at any moment, and how much there is.

mod scratch;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use orqestra_dispatch::spool::{Recovered, Spool, Told};
use proptest::prelude::*;

use scratch::{
    SEGMENT_BYTES, Scratch, content_of, files, is_readable, keys, record, synced, told, until,
};

#[test]
fn what_was_told_to_be_durable_is_found_by_the_next() {
    let scratch = Scratch::new();
    let (spool, recovered) = scratch.open();
    assert_eq!(recovered, Recovered::default());
    spool.append((1..=100).map(record).collect());
    assert_eq!(synced(&spool, 100), (1..=100).collect::<Vec<_>>());
    spool.delete(&(1..=50).collect::<Vec<_>>());
    spool.append(vec![record(101)]);
    synced(&spool, 1);

    // As after a kill: nobody has closed it.
    let recovered = scratch.recovered();

    assert_eq!(
        recovered.records,
        (51..=101).map(record).collect::<Vec<_>>()
    );
    assert_eq!((recovered.torn, recovered.damaged), (0, 0));
    assert_eq!(keys(&scratch.recovered()), (51..=101).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_of_what_was_deleted() {
    let scratch = Scratch::new();
    let (spool, _) = scratch.open();
    spool.append(vec![record(1), record(2)]);
    synced(&spool, 2);
    assert!(scratch.content() > 0);
    spool.delete(&[1, 2, 3]);
    until(|| scratch.content() == 0);
    spool.append(vec![record(4)]);
    assert_eq!(synced(&spool, 1), [4]);
    assert!(scratch.content() > 0);
    spool.delete(&[4]);
    spool.close();

    assert_eq!(scratch.segments(), Vec::<PathBuf>::new());
}

#[test]
fn a_record_that_is_deleted_before_it_is_durable_is_gone() {
    let scratch = Scratch::new();
    let (spool, _) = scratch.open();
    for key in 0..1000 {
        spool.append(vec![record(key)]);
        spool.delete(&[key]);
    }
    spool.close();

    assert_eq!(scratch.recovered(), Recovered::default());
}

#[test]
fn wherever_the_file_is_cut_all_before_is_there_and_nothing_else() {
    let scratch = Scratch::new();
    let (spool, _) = scratch.open();
    spool.append((1..=4).map(record).collect());
    spool.close();
    let [segment] = &scratch.segments()[..] else {
        panic!("one segment")
    };
    let whole = content_of(segment);
    let frame = whole.len() / 4;
    for cut in 0..whole.len() {
        fs::write(segment, &whole[..cut]).expect("a torn segment");
        let recovered = scratch.recovered();
        assert_eq!(
            keys(&recovered),
            (1..=(cut / frame) as u64).collect::<Vec<_>>()
        );
        assert_eq!(recovered.torn, usize::from(cut % frame > 0));
        assert_eq!(recovered.damaged, 0);
        // It is told once.
        assert_eq!(scratch.recovered().torn, 0);
    }
}

#[test]
fn whatever_byte_is_changed_only_its_record_is_missing() {
    let scratch = Scratch::new();
    let (spool, _) = scratch.open();
    spool.append((1..=4).map(record).collect());
    spool.close();
    let segment = scratch.segments().remove(0);
    let whole = content_of(&segment);
    for place in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[place] = !damaged[place];
        fs::write(&segment, &damaged).expect("a damaged segment");
        let hit = (place * 4 / whole.len()) as u64 + 1;
        let recovered = scratch.recovered();
        let left: Vec<_> = (1..=4).filter(|key| *key != hit).map(record).collect();
        assert_eq!(recovered.records, left);
        assert_eq!(recovered.torn + recovered.damaged, 1);
    }
}

#[test]
fn what_a_crash_between_two_calls_leaves_does_no_harm() {
    let scratch = Scratch::new();
    let (spool, _) = scratch.open();
    spool.append(vec![record(1)]);
    spool.close();
    let directory = scratch.spool();
    fs::write(directory.join("00000000000000ff-00c0ffee.spool"), b"").expect("a segment just made");
    fs::write(directory.join("notes"), b"not ours").expect("a stranger");

    let (spool, recovered) = scratch.open();
    assert_eq!(recovered.records, [record(1)]);
    spool.append(vec![record(2)]);
    synced(&spool, 1);
    spool.close();

    assert_eq!(keys(&scratch.recovered()), [1, 2]);
    assert!(directory.join("notes").exists());
}

#[test]
fn segments_are_removed_while_it_is_used() {
    let scratch = Scratch::new();
    let (spool, _) = scratch.open_with(4096);
    for key in 0..1000 {
        spool.append(vec![(key, vec![7; 1000])]);
        synced(&spool, 1);
        spool.delete(&[key]);
        assert!(scratch.bytes() < 4 * 4096, "at {key}");
    }
}

#[test]
fn one_record_that_stays_does_not_keep_all_that_follows() {
    let scratch = Scratch::new();
    let (spool, _) = scratch.open_with(4096);
    spool.append(vec![record(0)]);
    synced(&spool, 1);
    for key in 1..1000 {
        spool.append(vec![(key, vec![7; 1000])]);
        until(|| told(&spool).synced.contains(&key));
        spool.delete(&[key]);
        assert!(scratch.bytes() < 6 * 4096, "at {key}");
    }
    spool.close();

    assert_eq!(scratch.recovered().records, [record(0)]);
}

#[test]
fn a_record_may_be_larger_than_a_segment() {
    let scratch = Scratch::new();
    let (spool, _) = scratch.open_with(4096);
    let large: Vec<_> = (1..=3).map(|key| (key, vec![key as u8; 10_000])).collect();
    spool.append(large.clone());
    spool.close();

    assert_eq!(scratch.recovered().records, large);
    assert_eq!(scratch.segments().len(), 3);
}

#[test]
fn what_is_set_aside_is_kept_for_a_day() {
    let scratch = Scratch::new();
    let (spool, _) = scratch.open();
    spool.append(vec![record(1), record(2)]);
    synced(&spool, 2);
    spool.set_aside(1);
    spool.close();
    assert_eq!(keys(&scratch.recovered()), [2]);
    let [kept] = &files(&scratch.spool().join("aside"))[..] else {
        panic!("one file")
    };
    assert_eq!(fs::read(kept).expect("a record"), record(1).1);

    let yesterday = SystemTime::now() - Duration::from_secs(25 * 3600);
    let file = fs::File::options().write(true).open(kept).expect("a file");
    file.set_modified(yesterday).expect("an older file");
    scratch.recovered();

    assert!(!kept.exists());
}

#[test]
fn trouble_is_told_and_ends_by_itself() {
    let scratch = Scratch::new();
    let (spool, _) = scratch.open();
    spool.append(vec![record(1)]);
    synced(&spool, 1);
    // A new segment is begun for a record that has no room in the first: its directory is away.
    let away = scratch.0.join("away");
    fs::rename(scratch.spool(), &away).expect("moved");
    spool.append(vec![(2, vec![7; SEGMENT_BYTES as usize]), record(3)]);
    assert_eq!(told(&spool).trouble, Some(libc::ENOENT));
    spool.delete(&[2]);

    fs::rename(&away, scratch.spool()).expect("moved back");
    let told = told(&spool);

    assert_eq!((told.trouble, told.synced), (None, vec![3]));
    spool.close();
    assert_eq!(keys(&scratch.recovered()), [1, 3]);
}

#[test]
fn the_descriptor_is_quiet_when_nothing_is_new() {
    let scratch = Scratch::new();
    let (spool, _) = scratch.open();
    assert!(!is_readable(&spool, Duration::ZERO));
    spool.append(vec![(u64::MAX, Vec::new())]);
    assert_eq!(synced(&spool, 1), [u64::MAX]);

    assert!(!is_readable(&spool, Duration::ZERO));
    assert_eq!(spool.take(), Told::default());
}

#[test]
fn a_directory_that_cannot_be_used_is_an_error() {
    let scratch = Scratch::new();
    fs::write(scratch.0.join("file"), b"").expect("a file");
    let below = scratch.0.join("file").join("spool");

    let error = Spool::open(&below, SEGMENT_BYTES).err().expect("no spool");

    assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Delete(usize),
    SetAside(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3000_usize).prop_map(Step::Append),
        3 => any::<usize>().prop_map(Step::Delete),
        1 => any::<usize>().prop_map(Step::SetAside),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Beside a plain map.
    #[test]
    fn it_holds_what_was_appended_and_not_deleted(steps in prop::collection::vec(step(), 1..60)) {
        let scratch = Scratch::new();
        let (mut spool, _) = scratch.open_with(4096);
        let mut model = BTreeMap::new();
        for (key, step) in (1..).zip(steps) {
            let any_of = |at: usize| model.keys().nth(at % model.len().max(1)).copied();
            match step {
                Step::Append(bytes) => {
                    let payload = vec![key as u8; bytes];
                    spool.append(vec![(key, payload.clone())]);
                    model.insert(key, payload);
                }
                Step::Delete(at) => if let Some(key) = any_of(at) {
                    spool.delete(&[key]);
                    model.remove(&key);
                },
                Step::SetAside(at) => if let Some(key) = any_of(at) {
                    spool.set_aside(key);
                    model.remove(&key);
                },
                Step::Restart => {
                    spool.close();
                    let (next, recovered) = scratch.open_with(4096);
                    spool = next;
                    let records = recovered.records.into_iter().collect::<BTreeMap<_, _>>();
                    prop_assert_eq!(&records, &model);
                }
            }
        }
        spool.close();
        let wanted: usize = model.values().map(|payload| payload.len() + 21).sum();
        prop_assert!(scratch.bytes() <= 2 * (wanted as u64 + 4096) + 2 * 4096);
        let records = scratch.recovered().records.into_iter().collect::<BTreeMap<_, _>>();
        prop_assert_eq!(records, model);
    }
}
