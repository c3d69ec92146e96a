//! `Assign`: claimed jobs on their way to a worker.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::attempt::Attempt;
use super::field::{self, Fields};
use super::only_field;
use crate::error::InvalidInput;

/// Of `ServerMessage`.
const ASSIGN: u32 = 3;
/// Of `Assign`.
const NUMBER: u32 = 1;
const JOBS: u32 = 2;
/// Of `Assignment`.
const ATTEMPT: u32 = 1;
const TYPE: u32 = 2;
const PAYLOAD: u32 = 3;
const ATTEMPT_NUMBER: u32 = 4;
const TIMEOUT_MS: u32 = 5;
const GRACE_MS: u32 = 6;
const RUN_ID: u32 = 7;
const STEP: u32 = 8;
const HAS_PREVIOUS_OUTPUT: u32 = 9;
const PREVIOUS_OUTPUT: u32 = 10;
/// The type of jobs that a worker ends without doing anything.
const NOOP: &[u8] = b"noop";
/// About what an assignment takes besides its payload.
const ASSIGNMENT_BYTES: usize = 64;

/// Claimed jobs as columns, an entry of each for a job. `steps` are empty, or hold one for each job.
#[derive(Debug, Clone, Default)]
pub struct Columns<Bytes> {
    /// The session that each was claimed for.
    pub sessions: Vec<i64>,
    /// What names the attempt.
    pub attempts: Vec<Attempt>,
    /// The types.
    pub types: Vec<String>,
    /// The payloads.
    pub payloads: Vec<Bytes>,
    /// How many attempts were counted before.
    pub counted: Vec<i64>,
    /// 0: none.
    pub timeouts_ms: Vec<i64>,
    /// Between TERM and KILL.
    pub graces_ms: Vec<i64>,
    /// What those jobs have that are steps of a run.
    pub steps: Vec<Option<Step>>,
}

/// What a step of a run knows besides.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// The run.
    pub run_id: i64,
    /// Its key in the run.
    pub key: String,
    /// The step before it, whose output it is given.
    pub previous: Option<i64>,
}

/// Claimed jobs by session.
#[derive(Debug)]
pub struct Claimed<Bytes> {
    columns: Columns<Bytes>,
    by_session: BTreeMap<i64, Vec<usize>>,
}

impl<Bytes: AsRef<[u8]>> Claimed<Bytes> {
    /// Sort claimed jobs by session.
    ///
    /// # Errors
    /// Columns of different lengths.
    pub fn new(columns: Columns<Bytes>) -> Result<Self, InvalidInput> {
        let count = columns.attempts.len();
        let steps = columns.steps.len();
        for (name, length) in [
            ("sessions", columns.sessions.len()),
            ("types", columns.types.len()),
            ("payloads", columns.payloads.len()),
            ("counted", columns.counted.len()),
            ("timeouts_ms", columns.timeouts_ms.len()),
            ("graces_ms", columns.graces_ms.len()),
            ("steps", if steps == 0 { count } else { steps }),
        ] {
            same_length(name, length, count)?;
        }
        let mut by_session: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (index, session) in columns.sessions.iter().enumerate() {
            by_session.entry(*session).or_default().push(index);
        }
        Ok(Self {
            columns,
            by_session,
        })
    }

    /// Have the jobs of each session sent in this order, those that are not named last.
    pub fn arrange(&mut self, ids: &[i64]) {
        let attempts = &self.columns.attempts;
        let is_by_id = |jobs: &Vec<usize>| jobs.is_sorted_by_key(|job| attempts[*job].job_id);
        if ids.is_sorted() && self.by_session.values().all(is_by_id) {
            // As nearly always: all of one priority.
            return;
        }
        let ranks: HashMap<i64, usize> =
            ids.iter().zip(0..).map(|(id, rank)| (*id, rank)).collect();
        let rank = |job: &usize| {
            ranks
                .get(&attempts[*job].job_id)
                .copied()
                .unwrap_or(usize::MAX)
        };
        for jobs in self.by_session.values_mut() {
            jobs.sort_by_key(rank);
        }
    }

    /// All attempts.
    #[must_use]
    pub fn all(&self) -> &[Attempt] {
        &self.columns.attempts
    }

    /// The sessions that jobs were claimed for, each once.
    #[must_use]
    pub fn sessions(&self) -> Vec<i64> {
        self.by_session.keys().copied().collect()
    }

    /// What was claimed for a session.
    pub fn attempts(&self, session: i64) -> impl Iterator<Item = Attempt> {
        let jobs = self.by_session.get(&session).into_iter().flatten();
        jobs.map(|job| self.columns.attempts[*job])
    }

    /// The jobs whose output is given to others.
    #[must_use]
    pub fn previous(&self) -> Vec<i64> {
        let steps = self.columns.steps.iter().flatten();
        steps.filter_map(|step| step.previous).collect()
    }

    /// The jobs of a session as the `jobs` of messages, each of at most so many and about so many bytes.
    /// `output` is that of an earlier step.
    pub fn encode<'a>(
        &self,
        session: i64,
        output: impl Fn(i64) -> &'a [u8],
        (most_jobs, most_bytes): (usize, usize),
    ) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        let (mut message, mut jobs, mut bytes) = (Vec::new(), 0, 0);
        for job in self.by_session.get(&session).into_iter().flatten() {
            let previous = self.step(*job).and_then(|step| step.previous);
            let previous = previous.map(&output);
            let weight =
                self.columns.payloads[*job].as_ref().len() + previous.map_or(0, <[u8]>::len);
            if jobs == most_jobs || jobs > 0 && bytes + weight > most_bytes {
                messages.push(std::mem::take(&mut message));
                (jobs, bytes) = (0, 0);
            }
            field::put_message(&mut message, JOBS, &self.assignment(*job, previous));
            (jobs, bytes) = (jobs + 1, bytes + weight);
        }
        messages.push(message);
        messages
    }

    fn step(&self, job: usize) -> Option<&Step> {
        self.columns.steps.get(job)?.as_ref()
    }

    fn assignment(&self, job: usize, previous: Option<&[u8]>) -> Vec<u8> {
        let columns = &self.columns;
        let payload = columns.payloads[job].as_ref();
        let mut assignment = Vec::with_capacity(payload.len() + ASSIGNMENT_BYTES);
        columns.attempts[job].put(&mut assignment, ATTEMPT);
        field::put_bytes(&mut assignment, TYPE, columns.types[job].as_bytes());
        field::put_bytes(&mut assignment, PAYLOAD, payload);
        field::put_number(&mut assignment, ATTEMPT_NUMBER, columns.counted[job] + 1);
        field::put_number(&mut assignment, TIMEOUT_MS, columns.timeouts_ms[job]);
        field::put_number(&mut assignment, GRACE_MS, columns.graces_ms[job]);
        if let Some(step) = self.step(job) {
            field::put_number(&mut assignment, RUN_ID, step.run_id);
            field::put_bytes(&mut assignment, STEP, step.key.as_bytes());
        }
        if let Some(previous) = previous {
            field::put_number(&mut assignment, HAS_PREVIOUS_OUTPUT, 1);
            field::put_bytes(&mut assignment, PREVIOUS_OUTPUT, previous);
        }
        assignment
    }
}

/// Check that a column has a value for each job.
///
/// # Errors
/// It has not.
pub fn same_length(name: &str, length: usize, count: usize) -> Result<(), InvalidInput> {
    if length == count {
        return Ok(());
    }
    Err(InvalidInput::new(format!(
        "{name}: {length} values for {count} jobs"
    )))
}

/// The `ServerMessage` of one `Assign` with jobs that are encoded already.
#[must_use]
pub fn message(number: i64, jobs: &[u8]) -> Vec<u8> {
    let mut assign = Vec::with_capacity(jobs.len() + 12);
    field::put_number(&mut assign, NUMBER, number);
    assign.extend_from_slice(jobs);
    let mut message = Vec::with_capacity(assign.len() + 8);
    field::put_message(&mut message, ASSIGN, &assign);
    message
}

/// What a worker is assigned by one message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// What the worker acknowledges.
    pub number: i64,
    /// Jobs of which there is nothing to do.
    pub noops: Vec<Attempt>,
    /// Where in the message the other `Assignment`s are.
    pub others: Vec<Range<usize>>,
}

/// What a `ServerMessage` assigns; `None` if it is another one. Without `apart`, all are among the others.
///
/// # Errors
/// It is no message.
pub fn read(message: &[u8], apart: bool) -> Result<Option<Assigned>, InvalidInput> {
    let Some(place) = only_field(message, ASSIGN)? else {
        return Ok(None);
    };
    let mut assigned = Assigned::default();
    let mut fields = Fields::new(message, place);
    while let Some((number, value)) = fields.read_next()? {
        match (number, value.bytes()) {
            (NUMBER, None) => assigned.number = value.number().unwrap_or_default(),
            (JOBS, Some(job)) => match read_noop(message, job.clone())?.filter(|_| apart) {
                Some(attempt) => assigned.noops.push(attempt),
                None => assigned.others.push(job),
            },
            _ => {}
        }
    }
    Ok(Some(assigned))
}

fn read_noop(message: &[u8], place: Range<usize>) -> Result<Option<Attempt>, InvalidInput> {
    let (mut attempt, mut is_noop) = (Attempt::default(), false);
    let mut fields = Fields::new(message, place);
    while let Some((number, value)) = fields.read_next()? {
        match (number, value.bytes()) {
            (ATTEMPT, Some(place)) => attempt = Attempt::read(message, place)?,
            (TYPE, Some(place)) => is_noop = &message[place] == NOOP,
            _ => {}
        }
    }
    Ok(is_noop.then_some(attempt))
}
