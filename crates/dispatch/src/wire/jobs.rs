//! `JobSpec`s from a client to a server: what jobs have in common is encoded and read once.
//!
//! Jobs that are submitted together mostly differ in payload and key only. All else of a `JobSpec` is its
//! *shape*: the bytes of its other fields as they were sent. Whoever knows a shape need not look at it
//! again; a shape that is encoded in two ways is two shapes, which costs a look and nothing else.

use std::ops::Range;

use hashbrown::HashMap;

use super::field::{self, Fields, Value};
use crate::error::InvalidInput;

/// Of `SubmitStreamRequest`.
const NUMBER: u32 = 1;
/// Of `JobSpec`.
const PAYLOAD: u32 = 2;
const IDEMPOTENCY_KEY: u32 = 12;

/// The jobs of a request.
#[derive(Debug, Default)]
pub struct Jobs {
    /// The number of the request, where it has one.
    pub number: u64,
    /// `JobSpec`s without payload and key, each different.
    pub shapes: Vec<Vec<u8>>,
    /// The jobs, in order.
    pub rows: Vec<Row>,
}

/// What a job has of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which of the shapes it has.
    pub shape: usize,
    /// Where in the request its payload is; empty: it has none.
    pub payload: Range<usize>,
    /// Where its key is; empty: it has none.
    pub key: Range<usize>,
}

/// Read a request whose field `jobs` holds the jobs.
///
/// # Errors
/// It is no message, or a key is no text.
pub fn read(request: &[u8], jobs: u32) -> Result<Jobs, InvalidInput> {
    let mut read = Jobs::default();
    let mut known = HashMap::new();
    let mut fields = Fields::new(request, 0..request.len());
    while let Some((field, value)) = fields.read_next()? {
        match value {
            Value::Bytes(place) if field == jobs => {
                let (shape, row) = read_job(request, place)?;
                let shape = *known.entry(shape).or_insert_with_key(|shape: &Vec<u8>| {
                    read.shapes.push(shape.clone());
                    read.shapes.len() - 1
                });
                read.rows.push(Row { shape, ..row });
            }
            Value::Number(number) if field == NUMBER => read.number = number,
            _ => {}
        }
    }
    Ok(read)
}

impl Jobs {
    /// The first job of each different shape and payload: to check these is to check all.
    #[must_use]
    pub fn different(&self, request: &[u8]) -> Vec<usize> {
        let mut seen = hashbrown::HashSet::new();
        let rows = self.rows.iter().enumerate();
        rows.filter(|(_, row)| seen.insert((row.shape, &request[row.payload.clone()])))
            .map(|(index, _)| index)
            .collect()
    }

    /// The first job whose key is too long or holds a control character.
    #[must_use]
    pub fn bad_key(&self, request: &[u8], most_chars: usize) -> Option<usize> {
        self.rows.iter().position(|row| {
            let key = &request[row.key.clone()];
            let chars = key.iter().filter(|byte| (**byte as i8) >= -0x40).count();
            chars > most_chars || key.iter().any(u8::is_ascii_control)
        })
    }
}

/// Append a `JobSpec` to a request, in its field `jobs`.
pub fn put(request: &mut Vec<u8>, jobs: u32, shape: &[u8], payload: &[u8], key: &str) {
    let mut own = Vec::with_capacity(payload.len() + key.len() + 16);
    field::put_bytes(&mut own, PAYLOAD, payload);
    field::put_bytes(&mut own, IDEMPOTENCY_KEY, key.as_bytes());
    field::put_length(request, jobs, shape.len() + own.len());
    request.extend_from_slice(shape);
    request.extend_from_slice(&own);
}

fn read_job(request: &[u8], place: Range<usize>) -> Result<(Vec<u8>, Row), InvalidInput> {
    let mut row = Row {
        shape: 0,
        payload: 0..0,
        key: 0..0,
    };
    let mut shape = Vec::new();
    let mut fields = Fields::new(request, place);
    let mut begin = fields.at();
    while let Some((number, value)) = fields.read_next()? {
        match (number, value.bytes()) {
            (PAYLOAD, Some(payload)) => row.payload = payload,
            (IDEMPOTENCY_KEY, Some(key)) => row.key = key,
            _ => shape.extend_from_slice(&request[begin..fields.at()]),
        }
        begin = fields.at();
    }
    if std::str::from_utf8(&request[row.key.clone()]).is_err() {
        return Err(InvalidInput::new("idempotency_key: no UTF-8"));
    }
    Ok((shape, row))
}
