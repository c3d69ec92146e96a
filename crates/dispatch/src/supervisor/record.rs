//! The end of a command as it stands in the spool and travels to the daemon, with the caller's tag.

use crate::codec::{Decoder, Encoder, Malformed};
use crate::executor::{Ending, Exit, Failure};

/// The first byte of a record: a later version may write others.
const VERSION: u8 = 2;

/// The end of a command, as the daemon reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What the daemon gave along with the command.
    pub tag: Vec<u8>,
    /// Why it ended: the name of a `Reason`.
    pub reason: String,
    /// How its main process ended.
    pub ending: Option<Ending>,
    /// Why it never ran, or why its ending is not known.
    pub failure: Option<Failed>,
    /// Whether KILL was needed.
    pub killed: bool,
    /// Whether it ran longer than it may.
    pub timed_out: bool,
    /// How many descendants got KILL, and how many of its processes stay.
    pub others: [u32; 2],
    /// What was kept of its standard output and error, and how much came.
    pub outputs: [(Vec<u8>, u64); 2],
    /// When it was executed, in microseconds of Unix time; 0: never.
    pub started_at_us: u64,
    /// Wall, user and system time in microseconds, peak memory in kB.
    pub usage: [u64; 4],
}

/// What failed: the step, the error of the system, a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// See `Failure::stage`.
    pub stage: String,
    /// The error of the system.
    pub errno: i32,
    /// For people.
    pub error: String,
}

/// Writes the end of a command.
pub(super) fn encode(tag: &[u8], exit: &Exit) -> Vec<u8> {
    let mut record = Encoder::default();
    record.byte(VERSION);
    record.bytes(tag);
    record.bytes(exit.reason.name().as_bytes());
    record.option(exit.ending, |record, ending| {
        let (by_signal, number) = match ending {
            Ending::Code(code) => (false, code),
            Ending::Signal(signal) => (true, signal),
        };
        record.flag(by_signal);
        record.signed(number);
    });
    record.option(exit.failure.as_ref(), put_failure);
    record.flag(exit.killed);
    record.flag(exit.timed_out);
    record.int(exit.killed_processes);
    record.int(exit.left_processes);
    for output in [&exit.stdout, &exit.stderr] {
        record.bytes(&output.bytes);
        record.long(output.total);
    }
    record.long(exit.started_at_us);
    for used in [
        exit.wall_us,
        exit.usage.user_us,
        exit.usage.system_us,
        exit.usage.max_rss_kb.max(exit.usage.max_tree_kb),
    ] {
        record.long(used);
    }
    record.finish()
}

/// Reads what was encoded. What a later version of it appended is passed over.
///
/// # Errors
/// It is no record, or one of another version.
pub fn decode(record: &[u8]) -> Result<Ended, Malformed> {
    let mut record = Decoder::new(record);
    if record.byte()? != VERSION {
        return Err(Malformed);
    }
    Ok(Ended {
        tag: record.bytes()?.to_vec(),
        reason: record.text()?,
        ending: record.option(ending)?,
        failure: record.option(failure)?,
        killed: record.flag()?,
        timed_out: record.flag()?,
        others: [record.int()?, record.int()?],
        outputs: [output(&mut record)?, output(&mut record)?],
        started_at_us: record.long()?,
        usage: [
            record.long()?,
            record.long()?,
            record.long()?,
            record.long()?,
        ],
    })
}

/// Only the tag of a record.
pub(super) fn tag_of(record: &[u8]) -> Result<Vec<u8>, Malformed> {
    decode(record).map(|ended| ended.tag)
}

fn put_failure(record: &mut Encoder, failure: &Failure) {
    record.bytes(failure.stage.as_bytes());
    record.signed(failure.errno);
    record.bytes(failure.error.as_bytes());
}

fn ending(record: &mut Decoder<'_>) -> Result<Ending, Malformed> {
    Ok(if record.flag()? {
        Ending::Signal(record.signed()?)
    } else {
        Ending::Code(record.signed()?)
    })
}

fn failure(record: &mut Decoder<'_>) -> Result<Failed, Malformed> {
    Ok(Failed {
        stage: record.text()?,
        errno: record.signed()?,
        error: record.text()?,
    })
}

fn output(record: &mut Decoder<'_>) -> Result<(Vec<u8>, u64), Malformed> {
    Ok((record.bytes()?.to_vec(), record.long()?))
}
