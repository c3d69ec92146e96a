//! The `Result` of a command that has ended by itself and written little: what most are.

use super::attempt::Attempt;
use super::field;

/// Of `Result`.
const ATTEMPT: u32 = 1;
const OK: u32 = 2;
const REASON: u32 = 3;
const EXIT_CODE: u32 = 4;
const STDOUT: u32 = 7;
const STDERR: u32 = 8;
const STDOUT_BYTES: u32 = 9;
const STDERR_BYTES: u32 = 10;
const STARTED_AT_US: u32 = 12;
const WALL_US: u32 = 13;
const KILLED_PROCESSES: u32 = 19;
const LEFT_PROCESSES: u32 = 20;
/// About what a result takes besides its output.
const RESULT_BYTES: usize = 96;

/// The reason of a command that has ended by itself.
pub const EXITED: &str = "exited";
/// What of a stream may travel in a result.
pub const INLINE_BYTES: usize = 8 * 1024;

/// How it ended. Of `outputs`, stdout and stderr, nothing is missing.
#[derive(Debug, Clone, Default)]
pub struct Ended<'a> {
    /// Its exit code.
    pub code: i32,
    /// What it wrote.
    pub outputs: [&'a [u8]; 2],
    /// When it was executed, in microseconds of Unix time.
    pub started_at_us: u64,
    /// Wall, user and system time in microseconds, peak memory in kB.
    pub usage: [u64; 4],
    /// Descendants that were killed, and those that were left.
    pub others: [u32; 2],
}

impl Ended<'_> {
    /// The result of that attempt; None if its output does not fit in.
    #[must_use]
    pub fn result(&self, attempt: &Attempt) -> Option<Vec<u8>> {
        let [stdout, stderr] = self.outputs;
        if stdout.len().max(stderr.len()) > INLINE_BYTES {
            return None;
        }
        let mut result = Vec::with_capacity(RESULT_BYTES + stdout.len() + stderr.len());
        attempt.put(&mut result, ATTEMPT);
        field::put_number(&mut result, OK, i64::from(self.code == 0));
        field::put_bytes(&mut result, REASON, EXITED.as_bytes());
        field::put_given_number(&mut result, EXIT_CODE, i64::from(self.code));
        field::put_bytes(&mut result, STDOUT, stdout);
        field::put_bytes(&mut result, STDERR, stderr);
        field::put_number(&mut result, STDOUT_BYTES, stdout.len() as i64);
        field::put_number(&mut result, STDERR_BYTES, stderr.len() as i64);
        field::put_number(&mut result, STARTED_AT_US, self.started_at_us as i64);
        for (field, used) in (WALL_US..).zip(self.usage) {
            field::put_number(&mut result, field, used as i64);
        }
        let [killed, left] = self.others;
        field::put_number(&mut result, KILLED_PROCESSES, i64::from(killed));
        field::put_number(&mut result, LEFT_PROCESSES, i64::from(left));
        Some(result)
    }
}
