//! Protobuf as it is on the wire: a message is a run of fields, each a tag and a value.
//!
//! Only what our own messages need. Fields that nobody asks for are passed over, as protobuf has it, and
//! messages of one kind that stand one after the other are one message.
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

use std::ops::Range;

use crate::error::InvalidInput;

const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED_32: u32 = 5;
const TYPE_BITS: u32 = 3;
/// A field of 64 bits takes at most ten bytes of seven.
const VARINT_BYTES: usize = 10;

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A whole number, as it was encoded: a negative one is its two's complement.
    Number(u64),
    /// Where in the message the bytes of a string, of bytes or of another message are.
    Bytes(Range<usize>),
    /// Of a type that none of our fields has.
    Other,
}

impl Value {
    /// The number of an int32, int64 or bool; `None` if it is none.
    pub fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number as i64),
            _ => None,
        }
    }

    /// The place of bytes; `None` if it is something else.
    pub fn bytes(&self) -> Option<Range<usize>> {
        match self {
            Self::Bytes(place) => Some(place.clone()),
            _ => None,
        }
    }
}

/// The fields of a message, which is a part of `bytes`.
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    /// The fields of the message at `place`.
    pub fn new(bytes: &'a [u8], place: Range<usize>) -> Self {
        Self {
            bytes,
            at: place.start,
            end: place.end,
        }
    }

    /// Where the next field begins.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next field: its number and value.
    ///
    /// # Errors
    /// What is there is no field.
    pub fn read_next(&mut self) -> Result<Option<(u32, Value)>, InvalidInput> {
        if self.at == self.end {
            return Ok(None);
        }
        let begin = self.at;
        let field = self.field();
        field
            .map(Some)
            .ok_or_else(|| InvalidInput::new(format!("byte {begin}: no field of a message")))
    }

    fn field(&mut self) -> Option<(u32, Value)> {
        let tag = u32::try_from(self.varint()?).ok()?;
        let number = tag >> TYPE_BITS;
        let value = match tag & ((1 << TYPE_BITS) - 1) {
            VARINT => Value::Number(self.varint()?),
            FIXED_64 => self.skip(8)?,
            LENGTH => {
                let length = usize::try_from(self.varint()?).ok()?;
                let begin = self.at;
                self.skip(length)?;
                Value::Bytes(begin..self.at)
            }
            FIXED_32 => self.skip(4)?,
            _ => return None,
        };
        (number > 0).then_some((number, value))
    }

    fn skip(&mut self, length: usize) -> Option<Value> {
        let end = self.at.checked_add(length)?;
        if end > self.end {
            return None;
        }
        self.at = end;
        Some(Value::Other)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for index in 0..VARINT_BYTES {
            let byte = *self.bytes[..self.end].get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

/// Append a whole number, unless it is 0, which is what a missing field says.
pub fn put_number(message: &mut Vec<u8>, field: u32, value: i64) {
    if value != 0 {
        put_given_number(message, field, value);
    }
}

/// Append a whole number of an `optional` field, which is there even if it is 0.
pub fn put_given_number(message: &mut Vec<u8>, field: u32, value: i64) {
    put_varint(message, u64::from(field << TYPE_BITS | VARINT));
    put_varint(message, value as u64);
}

/// Append bytes, unless there are none.
pub fn put_bytes(message: &mut Vec<u8>, field: u32, value: &[u8]) {
    if !value.is_empty() {
        put_message(message, field, value);
    }
}

/// Append a message that is encoded already; an empty one is there too.
pub fn put_message(message: &mut Vec<u8>, field: u32, encoded: &[u8]) {
    put_length(message, field, encoded.len());
    message.extend_from_slice(encoded);
}

/// Append what stands before bytes of that length.
pub fn put_length(message: &mut Vec<u8>, field: u32, length: usize) {
    put_varint(message, u64::from(field << TYPE_BITS | LENGTH));
    put_varint(message, length as u64);
}

fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u32, Value)>, InvalidInput> {
        let mut fields = Fields::new(bytes, 0..bytes.len());
        let mut found = Vec::new();
        while let Some(field) = fields.read_next()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut message = Vec::new();
        put_number(&mut message, 1, -1);
        put_number(&mut message, 2, 0);
        put_given_number(&mut message, 3, 0);
        put_bytes(&mut message, 4, b"");
        put_bytes(&mut message, 5, b"abc");
        put_number(&mut message, 6, i64::MAX);
        let found = all(&message).expect("what we write is a message");
        assert_eq!(
            found,
            [
                (1, Value::Number(u64::MAX)),
                (3, Value::Number(0)),
                (5, Value::Bytes(15..18)),
                (6, Value::Number(i64::MAX as u64)),
            ]
        );
        assert_eq!(found[0].1.number(), Some(-1));
    }

    #[test]
    fn what_is_cut_off_or_no_field_is_refused() {
        for bytes in [
            b"\x08".as_slice(),
            b"\x0a\x05abc",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x09\x00",
            b"\x0d\x00",
            b"\x0b",
            b"\x00\x00",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert!(all(bytes).is_err(), "{bytes:?}");
        }
    }
}
