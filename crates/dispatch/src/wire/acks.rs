//! `ResultAcks`: what became of results, from a server to a worker.

use std::ops::Range;

use super::attempt::Attempt;
use super::field::{self, Fields};
use super::only_field;
use crate::error::InvalidInput;

/// Of `ServerMessage`.
const RESULT_ACKS: u32 = 4;
/// Of `ResultAcks`.
const ACKS: u32 = 1;
/// Of `Ack`.
const ATTEMPT: u32 = 1;
const VERDICT: u32 = 2;
/// `VERDICT_ACCEPTED`: the result is stored.
pub const ACCEPTED: i64 = 1;
/// `VERDICT_DUPLICATE`: it had been stored before.
pub const DUPLICATE: i64 = 2;

/// Append one answer to those of a `ResultAcks`.
pub fn put(acks: &mut Vec<u8>, attempt: &Attempt, verdict: i64) {
    let mut ack = Vec::with_capacity(32);
    attempt.put(&mut ack, ATTEMPT);
    field::put_number(&mut ack, VERDICT, verdict);
    field::put_message(acks, ACKS, &ack);
}

/// The `ServerMessage` with all these answers.
#[must_use]
pub fn message(parts: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.as_ref().len()).sum();
    let mut message = Vec::with_capacity(length + 8);
    field::put_length(&mut message, RESULT_ACKS, length);
    for part in parts {
        message.extend_from_slice(part.as_ref());
    }
    message
}

/// The answers of a `ServerMessage`: attempts and verdicts. `None` if it is another one.
///
/// # Errors
/// It is no message.
pub fn read(message: &[u8]) -> Result<Option<Vec<(Attempt, i64)>>, InvalidInput> {
    let Some(place) = only_field(message, RESULT_ACKS)? else {
        return Ok(None);
    };
    let mut fields = Fields::new(message, place);
    let mut acks = Vec::new();
    while let Some((number, value)) = fields.read_next()? {
        if let (ACKS, Some(place)) = (number, value.bytes()) {
            acks.push(read_one(message, place)?);
        }
    }
    Ok(Some(acks))
}

fn read_one(message: &[u8], place: Range<usize>) -> Result<(Attempt, i64), InvalidInput> {
    let mut fields = Fields::new(message, place);
    let mut ack = (Attempt::default(), 0);
    while let Some((number, value)) = fields.read_next()? {
        match (number, value.bytes()) {
            (ATTEMPT, Some(place)) => ack.0 = Attempt::read(message, place)?,
            (VERDICT, None) => ack.1 = value.number().unwrap_or(ack.1),
            _ => {}
        }
    }
    Ok(ack)
}
