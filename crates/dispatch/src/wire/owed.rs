//! `Results` that a worker owes: each is kept until it is acknowledged, and sent again on a new stream.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;

use super::acks;
use super::attempt::Attempt;
use super::field;
use crate::error::InvalidInput;

/// Of `WorkerMessage`.
const RESULTS_MESSAGE: u32 = 5;
/// Of `Results`.
const RESULTS: u32 = 1;
/// Of `Result`.
const ATTEMPT: u32 = 1;
const OK: u32 = 2;
const REASON: u32 = 3;
const EXIT_CODE: u32 = 4;
const STARTED_AT_US: u32 = 12;
const EXITED: &[u8] = b"exited";
/// About what the result of a job takes that had nothing to do.
const NOTHING_DONE_BYTES: usize = 56;

/// All that a worker owes, in the order in which it came to be owed.
#[derive(Debug, Default)]
pub struct Owed {
    numbers: HashMap<Attempt, u64>,
    results: BTreeMap<u64, Owing>,
    /// What is to be sent on this stream, oldest first; some may be gone already.
    ready: VecDeque<u64>,
    last: u64,
}

#[derive(Debug)]
struct Owing {
    attempt: Attempt,
    /// Encoded.
    result: Vec<u8>,
    /// Whether something has to be stored before it is sent.
    held_back: bool,
    /// Nobody but us has to know that it was acknowledged.
    is_noop: bool,
}

/// An acknowledgement that others have to know of.
#[derive(Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Of which attempt.
    pub attempt: Attempt,
    /// What became of its result.
    pub verdict: i64,
    /// Whether it was owed.
    pub was_owed: bool,
}

impl Owed {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.results.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.results.is_empty()
    }

    /// Whether the result of that attempt is owed.
    #[must_use]
    pub fn contains(&self, attempt: &Attempt) -> bool {
        self.numbers.contains_key(attempt)
    }

    /// The attempts, in order.
    pub fn attempts(&self) -> impl Iterator<Item = Attempt> {
        self.results.values().map(|owing| owing.attempt)
    }

    /// Owe a result, in place of an older one of that attempt. `held_back`: it is not sent before `release`.
    pub fn add(&mut self, attempt: Attempt, result: Vec<u8>, held_back: bool) {
        self.put(Owing {
            attempt,
            result,
            held_back,
            is_noop: false,
        });
    }

    /// Owe the results of jobs that had nothing to do, begun and ended at that time.
    /// Attempts that are owed already are passed over.
    pub fn add_noops(&mut self, attempts: &[Attempt], now_us: i64) {
        for attempt in attempts {
            if !self.contains(attempt) {
                self.put(Owing {
                    attempt: *attempt,
                    result: nothing_done(attempt, now_us),
                    held_back: false,
                    is_noop: true,
                });
            }
        }
    }

    /// What had to be stored first is stored.
    pub fn release(&mut self, attempt: &Attempt) {
        if let Some(number) = self.numbers.get(attempt) {
            let owing = self.results.get_mut(number);
            if owing.is_some_and(|owing| std::mem::take(&mut owing.held_back)) {
                self.ready.push_back(*number);
            }
        }
    }

    /// The next results to send, as a `WorkerMessage` of at most so many and, unless it is one alone, so
    /// many bytes; `None` if all that may be sent is under way.
    pub fn take(&mut self, most_jobs: usize, most_bytes: usize) -> Option<Vec<u8>> {
        let (mut results, mut jobs) = (Vec::new(), 0);
        while let Some(number) = self.ready.front() {
            if let Some(owing) = self.results.get(number) {
                let full = jobs == most_jobs || results.len() + owing.result.len() > most_bytes;
                if jobs > 0 && full {
                    break;
                }
                field::put_message(&mut results, RESULTS, &owing.result);
                jobs += 1;
            }
            self.ready.pop_front();
        }
        (jobs > 0).then(|| {
            let mut message = Vec::with_capacity(results.len() + 8);
            field::put_message(&mut message, RESULTS_MESSAGE, &results);
            message
        })
    }

    /// Begin a new stream: all that may be sent is to be sent, again or not.
    pub fn offer_again(&mut self) {
        let ready = self.results.iter().filter(|(_, owing)| !owing.held_back);
        self.ready = ready.map(|(number, _)| *number).collect();
    }

    /// Owe the result of that attempt no longer. Whether it was owed.
    pub fn remove(&mut self, attempt: &Attempt) -> bool {
        let number = self.numbers.remove(attempt);
        number
            .and_then(|number| self.results.remove(&number))
            .is_some()
    }

    /// Owe nothing that a `ResultAcks` answers. Returns the answers that others have to know of: to
    /// results of commands, and those that say that a result was not taken. `None`: another message.
    ///
    /// # Errors
    /// It is no message.
    pub fn acknowledge(
        &mut self,
        message: &[u8],
    ) -> Result<Option<Vec<Acknowledged>>, InvalidInput> {
        let Some(acks) = acks::read(message)? else {
            return Ok(None);
        };
        let mut to_tell = Vec::new();
        for (attempt, verdict) in acks {
            let number = self.numbers.remove(&attempt);
            let owing = number.and_then(|number| self.results.remove(&number));
            let expected = matches!(verdict, acks::ACCEPTED | acks::DUPLICATE);
            if !expected || owing.as_ref().is_none_or(|owing| !owing.is_noop) {
                to_tell.push(Acknowledged {
                    attempt,
                    verdict,
                    was_owed: owing.is_some(),
                });
            }
        }
        Ok(Some(to_tell))
    }

    fn put(&mut self, owing: Owing) {
        self.remove(&owing.attempt);
        self.last += 1;
        self.numbers.insert(owing.attempt, self.last);
        if !owing.held_back {
            self.ready.push_back(self.last);
        }
        self.results.insert(self.last, owing);
    }
}

fn nothing_done(attempt: &Attempt, now_us: i64) -> Vec<u8> {
    let mut result = Vec::with_capacity(NOTHING_DONE_BYTES);
    attempt.put(&mut result, ATTEMPT);
    field::put_number(&mut result, OK, 1);
    field::put_bytes(&mut result, REASON, EXITED);
    field::put_given_number(&mut result, EXIT_CODE, 0);
    field::put_number(&mut result, STARTED_AT_US, now_us);
    result
}
