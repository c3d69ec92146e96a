//! The way of hints from Postgres to Redis: encoded into outbox rows, drained into pushes.
//!
//! ```text
//! entry (22 bytes, big-endian)   id i64 | lane i32 | priority i16 | due_ms i64 (0: claimable now)
//! ```
//!
//! A row of the outbox is entries one after the other. SQL writes the same bytes with
//! `int8send(id) || int4send(lane) || int2send(priority) || int8send(due_ms)`.

use crate::error::InvalidInput;
use crate::hint::{self, DUE_MAX_MS, Hint, PRIORITY_MAX};

/// Width of one entry of an outbox row.
pub const ENTRY_BYTES: usize = 22;

/// The columns of a batch of hints; all have the same length.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// The jobs.
    pub ids: &'a [i64],
    /// The lane of each.
    pub lanes: &'a [i64],
    /// The priority of each, 0 to 9.
    pub priorities: &'a [i64],
    /// When each is due, in Unix ms; 0 if it is now.
    pub due_ms: &'a [i64],
}

/// What one call of the push script stores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Push {
    /// Packed hints by lane, within a lane by score, then id.
    pub ready: Vec<u8>,
    /// Packed delayed hints by due time.
    pub delayed: Vec<u8>,
    /// The lanes of `ready`, each once, ascending.
    pub lanes: Vec<u32>,
}

/// A hint and when it is due.
#[derive(Debug, Clone, Copy)]
struct Entry {
    hint: Hint,
    due_ms: i64,
}

/// Encode a batch into the `entries` of one outbox row.
///
/// # Errors
/// Columns of different lengths; a value that an entry cannot hold, by column and index.
pub fn encode(columns: Columns<'_>) -> Result<Vec<u8>, InvalidInput> {
    let Columns {
        ids,
        lanes,
        priorities,
        due_ms,
    } = columns;
    let count = ids.len();
    for (name, length) in [
        ("lanes", lanes.len()),
        ("priorities", priorities.len()),
        ("due_ms", due_ms.len()),
    ] {
        if length != count {
            return Err(InvalidInput::new(format!(
                "{name}: {length} values, but ids has {count}"
            )));
        }
    }
    let mut entries = Vec::with_capacity(count * ENTRY_BYTES);
    for index in 0..count {
        in_range("ids", index, ids[index], i64::MAX)?;
        in_range("lanes", index, lanes[index], i64::from(i32::MAX))?;
        in_range("priorities", index, priorities[index], PRIORITY_MAX.into())?;
        in_range("due_ms", index, due_ms[index], DUE_MAX_MS)?;
        entries.extend_from_slice(&ids[index].to_be_bytes());
        entries.extend_from_slice(&(lanes[index] as i32).to_be_bytes());
        entries.extend_from_slice(&(priorities[index] as i16).to_be_bytes());
        entries.extend_from_slice(&due_ms[index].to_be_bytes());
    }
    Ok(entries)
}

/// Plan the pushes of whole outbox rows, oldest row first, at most `max_hints` hints each.
///
/// Each job appears once: what a later row (or a later entry of a row) says of it holds. It is
/// delayed if it is due after `now_ms`, else ready. Ready hints come before delayed ones.
///
/// # Errors
/// A malformed row, by its index; `max_hints` of zero.
pub fn drain<Row: AsRef<[u8]>>(
    rows: &[Row],
    now_ms: i64,
    max_hints: usize,
) -> Result<Vec<Push>, InvalidInput> {
    let bytes: usize = rows.iter().map(|row| row.as_ref().len()).sum();
    let mut entries = Vec::with_capacity(bytes / ENTRY_BYTES);
    for (index, row) in rows.iter().enumerate() {
        read_row(index, row.as_ref(), &mut entries)?;
    }
    plan(entries, now_ms, max_hints)
}

/// Plan the pushes of hints that go back to their lanes, as `drain` does; all are ready.
///
/// # Errors
/// A malformed hint, by its index; `max_hints` of zero.
pub fn regroup(hints: &[u8], max_hints: usize) -> Result<Vec<Push>, InvalidInput> {
    let ready = |hint| Entry { hint, due_ms: 0 };
    let entries = hint::read_all(hints)?.into_iter().map(ready).collect();
    plan(entries, 0, max_hints)
}

/// The jobs of packed hints, in their order.
///
/// # Errors
/// A malformed hint, by its index.
pub fn ids(hints: &[u8]) -> Result<Vec<i64>, InvalidInput> {
    let hints = hint::read_all(hints)?;
    Ok(hints.into_iter().map(|hint| hint.id).collect())
}

fn in_range(name: &str, index: usize, value: i64, max: i64) -> Result<(), InvalidInput> {
    if (0..=max).contains(&value) {
        return Ok(());
    }
    Err(InvalidInput::new(format!(
        "{name}[{index}]: {value} must be from 0 to {max}"
    )))
}

fn read_row(index: usize, row: &[u8], entries: &mut Vec<Entry>) -> Result<(), InvalidInput> {
    if row.len() % ENTRY_BYTES != 0 {
        return Err(InvalidInput::new(format!(
            "rows[{index}]: {} bytes, must be a multiple of {ENTRY_BYTES}",
            row.len()
        )));
    }
    for (number, bytes) in row.chunks_exact(ENTRY_BYTES).enumerate() {
        let entry = read_entry(bytes).map_err(|problem| {
            InvalidInput::new(format!("rows[{index}], entry {number}: {problem}"))
        })?;
        entries.push(entry);
    }
    Ok(())
}

fn read_entry(bytes: &[u8]) -> Result<Entry, String> {
    let id = i64::from_be_bytes(field(bytes, 0));
    let lane = i32::from_be_bytes(field(bytes, 8));
    let priority = i16::from_be_bytes(field(bytes, 12));
    let due_ms = i64::from_be_bytes(field(bytes, 14));
    if id < 0 {
        return Err(format!("id {id} must be 0 or more"));
    }
    if lane < 0 {
        return Err(format!("lane {lane} must be 0 or more"));
    }
    let max = i16::from(PRIORITY_MAX);
    if !(0..=max).contains(&priority) {
        return Err(format!("priority {priority} must be from 0 to {max}"));
    }
    if due_ms > DUE_MAX_MS {
        return Err(format!("due_ms {due_ms} must be at most {DUE_MAX_MS}"));
    }
    let hint = Hint {
        lane: lane as u32,
        score: (max - priority) as u8,
        id,
    };
    Ok(Entry { hint, due_ms })
}

fn field<const WIDTH: usize>(bytes: &[u8], offset: usize) -> [u8; WIDTH] {
    let mut field = [0; WIDTH];
    field.copy_from_slice(&bytes[offset..offset + WIDTH]);
    field
}

fn plan(mut entries: Vec<Entry>, now_ms: i64, max_hints: usize) -> Result<Vec<Push>, InvalidInput> {
    if max_hints == 0 {
        return Err(InvalidInput::new("max_hints: 0 must be 1 or more"));
    }
    keep_latest(&mut entries);
    let (mut delayed, mut ready): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.due_ms > now_ms);
    // Both sorts are stable and find the entries in order of their ids.
    ready.sort_by_key(|entry| (entry.hint.lane, entry.hint.score));
    delayed.sort_by_key(|entry| entry.due_ms);

    let mut pushes = Vec::new();
    let (mut ready, mut delayed) = (ready.as_slice(), delayed.as_slice());
    while !ready.is_empty() || !delayed.is_empty() {
        let (ready_now, ready_later) = ready.split_at(ready.len().min(max_hints));
        let room = max_hints - ready_now.len();
        let (delayed_now, delayed_later) = delayed.split_at(delayed.len().min(room));
        pushes.push(pack(ready_now, delayed_now));
        (ready, delayed) = (ready_later, delayed_later);
    }
    Ok(pushes)
}

/// Sort by id and keep the last of each.
fn keep_latest(entries: &mut Vec<Entry>) {
    // Stable: the latest of an id is the last of its run. Ids mostly come in ascending runs already,
    // which this sort merges in near linear time.
    entries.sort_by_key(|entry| entry.hint.id);
    entries.dedup_by(|later, kept| {
        let same = later.hint.id == kept.hint.id;
        if same {
            *kept = *later;
        }
        same
    });
}

fn pack(ready: &[Entry], delayed: &[Entry]) -> Push {
    let mut push = Push {
        ready: Vec::with_capacity(ready.len() * hint::HINT_BYTES),
        delayed: Vec::with_capacity(delayed.len() * (hint::DUE_BYTES + hint::HINT_BYTES)),
        lanes: Vec::new(),
    };
    for entry in ready {
        entry.hint.write(&mut push.ready);
        if push.lanes.last() != Some(&entry.hint.lane) {
            push.lanes.push(entry.hint.lane);
        }
    }
    for entry in delayed {
        entry.hint.write_delayed(entry.due_ms, &mut push.delayed);
    }
    push
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(entries: &[(i64, i64, i64, i64)]) -> Vec<u8> {
        let column = |pick: fn(&(i64, i64, i64, i64)) -> i64| entries.iter().map(pick).collect();
        let (ids, lanes): (Vec<_>, Vec<_>) = (column(|entry| entry.0), column(|entry| entry.1));
        let (priorities, due_ms): (Vec<_>, Vec<_>) =
            (column(|entry| entry.2), column(|entry| entry.3));
        encode(Columns {
            ids: &ids,
            lanes: &lanes,
            priorities: &priorities,
            due_ms: &due_ms,
        })
        .unwrap()
    }

    #[test]
    fn an_entry_is_what_sql_sends() {
        let expected = [
            0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3, 0, 4, 0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0x7b,
        ];
        assert_eq!(row(&[(258, 3, 4, 1_700_000_000_123)]), expected);
    }

    #[test]
    fn hints_are_grouped_and_the_latest_of_a_job_holds() {
        let now_ms = 1_700_000_000_000;
        let rows = [
            row(&[(2, 7, 9, 0), (1, 7, 9, 0), (3, 1, 0, now_ms)]),
            row(&[(2, 7, 4, 0), (4, 7, 9, now_ms + 1), (5, 7, 9, 0)]),
        ];
        let pushes = drain(&rows, now_ms, 1000).unwrap();
        let ready = [
            "0000000190000000000000003",
            "0000000700000000000000001",
            "0000000700000000000000005",
            "0000000750000000000000002",
        ];
        assert_eq!(pushes.len(), 1);
        assert_eq!(pushes[0].ready, ready.concat().as_bytes());
        assert_eq!(pushes[0].delayed, b"17000000000010000000700000000000000004");
        assert_eq!(pushes[0].lanes, [1, 7]);
        assert_eq!(regroup(&pushes[0].ready, 2).unwrap().len(), 2);
    }

    #[test]
    fn malformed_rows_are_named() {
        let mut bad = row(&[(1, 1, 1, 0), (2, 1, 1, 0)]);
        bad[ENTRY_BYTES + 13] = 10;
        for (rows, why) in [
            ([row(&[]), vec![0; 21]], "rows[1]: 21 bytes"),
            ([row(&[]), bad], "rows[1], entry 1: priority 10"),
        ] {
            let message = drain(&rows, 0, 1000).unwrap_err().to_string();
            assert!(message.starts_with(why), "{message}");
        }
    }
}
