//! A hint says "this job may be claimable", and travels as fixed-width ASCII between Postgres, Redis
//! and the matcher.
//!
//! ```text
//! hint (25 bytes)      lane as 8 hex digits | score, one digit | id as 16 hex digits
//! delayed (38 bytes)   due time in Unix ms, 13 decimal digits | hint
//! ```
//!
//! Hex digits are lower case, so that hints sort as bytes by lane, then score, then id: the order in
//! which they are claimed. The score is `9 - priority`, because priority 9 comes first.

use crate::error::InvalidInput;

/// Width of a packed hint.
pub const HINT_BYTES: usize = 25;
/// Width of the due time in front of a delayed hint.
pub const DUE_BYTES: usize = 13;
/// The highest priority; it has score 0.
pub const PRIORITY_MAX: u8 = 9;
/// The last due time that has 13 digits: the year 2286.
pub const DUE_MAX_MS: i64 = 9_999_999_999_999;

const LANE_DIGITS: usize = 8;
const HEX: &[u8; 16] = b"0123456789abcdef";
const NOT_HEX: u8 = 0xff;
const VALUE_OF_DIGIT: [u8; 256] = values_of_digits();

/// One job that may be claimable, and where it queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hint {
    /// A queue plus the labels it requires. At most `i32::MAX`, as in Postgres.
    pub lane: u32,
    /// `9 - priority`.
    pub score: u8,
    /// The job, never negative.
    pub id: i64,
}

impl Hint {
    /// Append the 25 bytes of this hint.
    pub fn write(&self, packed: &mut Vec<u8>) {
        let mut bytes = [b'0'; HINT_BYTES];
        write_hex(&mut bytes[..LANE_DIGITS], u64::from(self.lane));
        bytes[LANE_DIGITS] = b'0' + self.score;
        write_hex(&mut bytes[LANE_DIGITS + 1..], self.id as u64);
        packed.extend_from_slice(&bytes);
    }

    /// Append the 38 bytes of this hint with its due time, which has to be in `0..=DUE_MAX_MS`.
    pub fn write_delayed(&self, due_ms: i64, packed: &mut Vec<u8>) {
        let mut digits = [b'0'; DUE_BYTES];
        let mut rest = due_ms;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        packed.extend_from_slice(&digits);
        self.write(packed);
    }

    /// Read 25 bytes; `None` if they are no hint.
    fn read(bytes: &[u8]) -> Option<Self> {
        let lane = read_hex(&bytes[..LANE_DIGITS])?;
        let score = bytes[LANE_DIGITS].wrapping_sub(b'0');
        let id = read_hex(&bytes[LANE_DIGITS + 1..])?;
        if score > PRIORITY_MAX || i32::try_from(lane).is_err() {
            return None;
        }
        Some(Self {
            lane: lane as u32,
            score,
            id: i64::try_from(id).ok()?,
        })
    }
}

/// Read hints that stand one after the other, in their order.
///
/// # Errors
/// Any one that is malformed, by its number.
pub fn read_all(packed: &[u8]) -> Result<Vec<Hint>, InvalidInput> {
    if packed.len() % HINT_BYTES != 0 {
        return Err(InvalidInput::new(format!(
            "hints: {} bytes, must be a multiple of {HINT_BYTES}",
            packed.len()
        )));
    }
    packed
        .chunks_exact(HINT_BYTES)
        .enumerate()
        .map(|(index, bytes)| {
            Hint::read(bytes).ok_or_else(|| {
                InvalidInput::new(format!(
                    "hints[{index}]: {:?} is not a lane in 8 hex digits, a score digit and an id in 16",
                    String::from_utf8_lossy(bytes)
                ))
            })
        })
        .collect()
}

fn write_hex(digits: &mut [u8], value: u64) {
    let mut rest = value;
    for digit in digits.iter_mut().rev() {
        *digit = HEX[(rest & 0xf) as usize];
        rest >>= 4;
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut seen = 0;
    for &digit in digits {
        let digit = VALUE_OF_DIGIT[digit as usize];
        seen |= digit;
        value = value << 4 | u64::from(digit & 0xf);
    }
    (seen <= 0xf).then_some(value)
}

const fn values_of_digits() -> [u8; 256] {
    let mut values = [NOT_HEX; 256];
    let mut digit = 0;
    while digit < HEX.len() {
        values[HEX[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_its_lane_score_and_id() {
        let hint = Hint {
            lane: 12,
            score: 5,
            id: 0xabc,
        };
        let mut packed = Vec::new();
        hint.write(&mut packed);
        assert_eq!(packed, b"0000000c50000000000000abc");
        assert_eq!(read_all(&packed), Ok(vec![hint]));
    }

    #[test]
    fn a_delayed_hint_begins_with_its_due_time() {
        let hint = Hint {
            lane: 1,
            score: 0,
            id: 1,
        };
        let mut packed = Vec::new();
        hint.write_delayed(1_700_000_000_123, &mut packed);
        assert_eq!(packed, b"17000000001230000000100000000000000001");
        assert_eq!(packed.len(), DUE_BYTES + HINT_BYTES);
    }

    #[test]
    fn what_is_no_hint_is_refused_by_its_number() {
        for (packed, why) in [
            (b"abc".as_slice(), "3 bytes"),
            (b"0000000C50000000000000abc", "hints[0]"),
            (b"0000000c:0000000000000abc", "hints[0]"),
            (b"8000000050000000000000abc", "hints[0]"),
            (b"0000000c58000000000000abc", "hints[0]"),
            (
                b"0000000c50000000000000abc0000000c5000000000000 abc",
                "hints[1]",
            ),
        ] {
            let message = read_all(packed).unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
        }
    }
}
