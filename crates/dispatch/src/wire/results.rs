//! `Results` as a server reads them.

use std::ops::Range;

use hashbrown::HashSet;

use super::acks;
use super::attempt::Attempt;
use super::ended::{EXITED, INLINE_BYTES};
use super::field::{Fields, Value};
use super::only_field;
use crate::error::InvalidInput;

/// Of `WorkerMessage`.
const RESULTS_MESSAGE: u32 = 5;
/// Of `Results`.
const RESULTS: u32 = 1;

/// One result of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// Of which attempt.
    pub attempt: Attempt,
    /// Where in the message the whole `Result` is.
    pub place: Range<usize>,
    /// `None`: it needs a closer look.
    pub success: Option<Success>,
}

/// A plain success: exit code 0, all output in it, nothing killed or left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Success {
    /// Where in the message its output is.
    pub stdout: Range<usize>,
    /// As `stdout`.
    pub stderr: Range<usize>,
    /// Wall, user and system time in microseconds, peak memory in kB.
    pub usage: [i64; 4],
}

/// The results of a `WorkerMessage`; `None` if it is another one.
///
/// # Errors
/// It is no message.
pub fn read(message: &[u8]) -> Result<Option<Vec<Reported>>, InvalidInput> {
    let Some(place) = only_field(message, RESULTS_MESSAGE)? else {
        return Ok(None);
    };
    let mut reported = Vec::new();
    let mut fields = Fields::new(message, place);
    while let Some((number, value)) = fields.read_next()? {
        if let (RESULTS, Some(place)) = (number, value.bytes()) {
            reported.push(read_result(message, place)?);
        }
    }
    Ok(Some(reported))
}

/// A `Result` as far as a plain success has it.
#[derive(Debug, Default)]
struct Seen {
    attempt: Attempt,
    ok: bool,
    reason: Range<usize>,
    exit_code: Option<i64>,
    success: Success,
    totals: [i64; 2],
    /// Something that a plain success does not have.
    special: bool,
}

fn read_result(message: &[u8], place: Range<usize>) -> Result<Reported, InvalidInput> {
    let mut seen = Seen::default();
    let mut fields = Fields::new(message, place.clone());
    while let Some((number, value)) = fields.read_next()? {
        match value {
            Value::Number(number_value) => see_number(&mut seen, number, number_value as i64),
            Value::Bytes(place) => see_bytes(&mut seen, message, number, place)?,
            Value::Other => {}
        }
    }
    Ok(Reported {
        attempt: seen.attempt,
        place,
        success: plain(message, seen),
    })
}

fn see_number(seen: &mut Seen, field: u32, value: i64) {
    match field {
        2 => seen.ok = value != 0,
        4 => seen.exit_code = Some(value),
        9 | 10 => seen.totals[field as usize - 9] = value,
        13..=16 => seen.success.usage[field as usize - 13] = value,
        // a signal, a cut, something stored ahead, processes that were killed or left
        5 | 11 | 17..=20 => seen.special |= field == 5 || value != 0,
        _ => {}
    }
}

fn see_bytes(
    seen: &mut Seen,
    message: &[u8],
    field: u32,
    place: Range<usize>,
) -> Result<(), InvalidInput> {
    match field {
        1 => seen.attempt = Attempt::read(message, place)?,
        3 => seen.reason = place,
        // what went wrong
        6 => seen.special |= !place.is_empty(),
        7 => seen.success.stdout = place,
        8 => seen.success.stderr = place,
        _ => {}
    }
    Ok(())
}

fn plain(message: &[u8], seen: Seen) -> Option<Success> {
    let outputs = [&seen.success.stdout, &seen.success.stderr];
    let is_whole = outputs.iter().zip(seen.totals).all(|(place, total)| {
        place.len() <= INLINE_BYTES
            && usize::try_from(total).is_ok_and(|total| total == place.len())
    });
    let is_plain = seen.ok
        && !seen.special
        && &message[seen.reason] == EXITED.as_bytes()
        && seen.exit_code == Some(0)
        && seen.success.usage.iter().all(|used| *used >= 0);
    (is_plain && is_whole).then_some(seen.success)
}

/// Plain successes of many messages, for one statement: one of each job.
#[derive(Debug)]
pub struct Successes {
    /// Those that the statement is given: the number of the message, and of the result in it.
    pub rows: Vec<(usize, usize)>,
    /// Further ones of a job that is among them, in the same form.
    pub again: Vec<(usize, usize)>,
}

impl Successes {
    /// Gather the plain successes of messages, in their order.
    pub fn of<'a>(messages: impl IntoIterator<Item = &'a [Reported]>) -> Self {
        let mut seen = HashSet::new();
        let (mut rows, mut again) = (Vec::new(), Vec::new());
        for (message, reported) in messages.into_iter().enumerate() {
            for (index, result) in reported.iter().enumerate() {
                if result.success.is_some() {
                    let is_first = seen.insert(result.attempt.job_id);
                    (if is_first { &mut rows } else { &mut again }).push((message, index));
                }
            }
        }
        Self { rows, again }
    }
}

/// Append that these results are accepted, to the answers for their session.
pub fn accept<'a>(acks: &mut Vec<u8>, attempts: impl IntoIterator<Item = &'a Attempt>) {
    for attempt in attempts {
        acks::put(acks, attempt, acks::ACCEPTED);
    }
}
