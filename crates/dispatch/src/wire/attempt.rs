//! Which attempt a message is about.

use std::ops::Range;

use super::field::{self, Fields};
use crate::error::InvalidInput;

const JOB_ID: u32 = 1;
const FENCE: u32 = 2;
const TOKEN: u32 = 3;

/// An `AttemptRef`: the claim that an attempt runs under, and the secret of that claim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The job.
    pub job_id: i64,
    /// The number of the claim, among those of its job.
    pub fence: i64,
    /// The secret.
    pub token: i64,
}

impl Attempt {
    /// The attempt that is encoded at that place.
    ///
    /// # Errors
    /// What is there is no message.
    pub fn read(message: &[u8], place: Range<usize>) -> Result<Self, InvalidInput> {
        let mut attempt = Self::default();
        let mut fields = Fields::new(message, place);
        while let Some((number, value)) = fields.read_next()? {
            let part = match number {
                JOB_ID => &mut attempt.job_id,
                FENCE => &mut attempt.fence,
                TOKEN => &mut attempt.token,
                _ => continue,
            };
            *part = value.number().unwrap_or(*part);
        }
        Ok(attempt)
    }

    /// Append this attempt as the field of a message.
    pub fn put(&self, message: &mut Vec<u8>, field: u32) {
        let mut encoded = Vec::with_capacity(24);
        field::put_number(&mut encoded, JOB_ID, self.job_id);
        field::put_number(&mut encoded, FENCE, self.fence);
        field::put_number(&mut encoded, TOKEN, self.token);
        field::put_message(message, field, &encoded);
    }
}
