//! Jobs of a submit of which some were stored as running: what runs is sent as if it had been claimed.

use std::collections::HashMap;

use super::assign::{Columns, Step, same_length};
use super::attempt::Attempt;
use crate::error::InvalidInput;

/// Jobs of a submit as columns, of which those with a session were stored as running.
#[derive(Debug, Default)]
pub struct Matched<Bytes> {
    /// The jobs.
    pub ids: Vec<Option<i64>>,
    /// The session of each that runs.
    pub sessions: Vec<Option<i64>>,
    /// The kind of each, from 1.
    pub kind_of: Vec<usize>,
    /// The payloads.
    pub payloads: Vec<Bytes>,
    /// The token of all that run on a session.
    pub tokens: HashMap<i64, i64>,
    /// The fence of all that run.
    pub fence: i64,
    /// The kinds.
    pub kinds: Vec<MatchedKind>,
}

/// What jobs of a submit have in common.
#[derive(Debug, Clone, Default)]
pub struct MatchedKind {
    /// As in `Columns`.
    pub type_name: String,
    /// As in `Columns`.
    pub timeout_ms: i64,
    /// As in `Columns`.
    pub grace_ms: i64,
    /// What it knows of its run. A step is the only job of its kind.
    pub step: Option<Step>,
}

impl<Bytes> Matched<Bytes> {
    /// What runs, as a claim would have answered it.
    ///
    /// # Errors
    /// Columns of different lengths, a kind that is none, a session without a token, a job without an id.
    pub fn running(self) -> Result<Columns<Bytes>, InvalidInput> {
        let count = self.ids.len();
        for (name, length) in [
            ("sessions", self.sessions.len()),
            ("kind_of", self.kind_of.len()),
            ("payloads", self.payloads.len()),
        ] {
            same_length(name, length, count)?;
        }
        let mut running = Columns {
            sessions: Vec::new(),
            attempts: Vec::new(),
            types: Vec::new(),
            payloads: Vec::new(),
            counted: Vec::new(),
            timeouts_ms: Vec::new(),
            graces_ms: Vec::new(),
            steps: Vec::new(),
        };
        let has_steps = self.kinds.iter().any(|kind| kind.step.is_some());
        let places = self.ids.iter().zip(&self.sessions).zip(&self.kind_of);
        for (place, (((id, session), number), payload)) in places.zip(self.payloads).enumerate() {
            let Some(session) = session else {
                continue;
            };
            let kind = number.checked_sub(1).and_then(|at| self.kinds.get(at));
            let (Some(kind), Some(token), Some(job_id)) = (kind, self.tokens.get(session), id)
            else {
                return Err(InvalidInput::new(format!(
                    "jobs[{place}]: runs without a kind, a token or an id"
                )));
            };
            running.sessions.push(*session);
            running.attempts.push(Attempt {
                job_id: *job_id,
                fence: self.fence,
                token: *token,
            });
            running.types.push(kind.type_name.clone());
            running.payloads.push(payload);
            running.counted.push(0);
            running.timeouts_ms.push(kind.timeout_ms);
            running.graces_ms.push(kind.grace_ms);
            if has_steps {
                running.steps.push(kind.step.clone());
            }
        }
        Ok(running)
    }
}
