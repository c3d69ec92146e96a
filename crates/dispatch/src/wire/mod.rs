//! Messages of the hot path between bytes and columns, without an object for each job.
//!
//! The messages are those of `proto/orqestra/v1`; whatever is rare in them is left as bytes to the
//! generated Python classes, which are also the oracle of the tests. In the order in which a job meets
//! them: [`jobs`] reads what is submitted, [`matched`] is what of it runs at once, [`assign`] is written
//! by a server and read by a worker, [`ended`] is what that says of most commands, [`owed`] keeps its
//! results until they are acknowledged, [`results`] reads them at the server, and [`acks`] are its answer. [`attempt`] names an
//! attempt in all of them, and `field` is the encoding.

pub mod acks;
pub mod assign;
pub mod attempt;
pub mod ended;
mod field;
pub mod jobs;
pub mod matched;
pub mod owed;
pub mod results;

use std::ops::Range;

use self::field::{Fields, Value};
use crate::error::InvalidInput;

/// The place of the one field of a message that holds nothing else; `None` if there is another.
fn only_field(message: &[u8], field: u32) -> Result<Option<Range<usize>>, InvalidInput> {
    let mut fields = Fields::new(message, 0..message.len());
    match (fields.read_next()?, fields.at() == message.len()) {
        (Some((number, Value::Bytes(place))), true) if number == field => Ok(Some(place)),
        _ => Ok(None),
    }
}
