//! The classes `Claimed` and `Attempts` of a server, and `Assigned` of a worker.

use std::collections::HashMap;

use hashbrown::HashSet;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList};

use super::results::Results;
use super::{Ref, from_ref, to_ref};
use crate::wire::assign::{self, Columns, Step, same_length};
use crate::wire::attempt::Attempt;
use crate::wire::matched::{Matched, MatchedKind};

/// Claimed jobs by session.
#[pyclass(module = "orqestra._dispatch")]
pub struct Claimed {
    inner: assign::Claimed<PyBackedBytes>,
}

#[pymethods]
impl Claimed {
    /// From columns by name, as the row of a query is.
    #[new]
    fn new(columns: Bound<'_, PyAny>) -> PyResult<Self> {
        let column = |name: &str| columns.get_item(name);
        let ids: Vec<i64> = column("ids")?.extract()?;
        let fences: Vec<i64> = column("fences")?.extract()?;
        let tokens: Vec<i64> = column("tokens")?.extract()?;
        for (name, length) in [("fences", fences.len()), ("tokens", tokens.len())] {
            same_length(name, length, ids.len())?;
        }
        let names = ids.into_iter().zip(fences).zip(tokens);
        let read = Columns {
            sessions: column("session_ids")?.extract()?,
            attempts: names
                .map(|((id, fence), token)| from_ref((id, fence, token)))
                .collect(),
            types: column("types")?.extract()?,
            payloads: column("payloads")?.extract()?,
            counted: column("attempts")?.extract()?,
            timeouts_ms: column("timeouts_ms")?.extract()?,
            graces_ms: column("graces_ms")?.extract()?,
            steps: steps(&columns)?,
        };
        Ok(Self {
            inner: assign::Claimed::new(read)?,
        })
    }

    /// From columns of what was submitted.
    #[staticmethod]
    fn direct(columns: Bound<'_, PyAny>) -> PyResult<Self> {
        let column = |name: &str| columns.get_item(name);
        let types: Vec<String> = column("types")?.extract()?;
        let timeouts_ms: Vec<i64> = column("timeouts_ms")?.extract()?;
        let graces_ms: Vec<i64> = column("graces_ms")?.extract()?;
        for (name, length) in [
            ("timeouts_ms", timeouts_ms.len()),
            ("graces_ms", graces_ms.len()),
        ] {
            same_length(name, length, types.len())?;
        }
        let mut steps = steps(&columns)?;
        if steps.is_empty() {
            steps.resize(types.len(), None);
        }
        same_length("run_ids", steps.len(), types.len())?;
        let kinds = types.into_iter().zip(timeouts_ms).zip(graces_ms).zip(steps);
        let matched = Matched {
            ids: column("ids")?.extract()?,
            sessions: column("session_ids")?.extract()?,
            kind_of: column("kind_of")?.extract()?,
            payloads: column("payloads")?.extract::<Vec<PyBackedBytes>>()?,
            tokens: column("tokens")?.extract()?,
            fence: column("fence")?.extract()?,
            kinds: kinds
                .map(|(((type_name, timeout_ms), grace_ms), step)| MatchedKind {
                    type_name,
                    timeout_ms,
                    grace_ms,
                    step,
                })
                .collect(),
        };
        Ok(Self {
            inner: assign::Claimed::new(matched.running()?)?,
        })
    }

    fn arrange(&mut self, ids: Vec<i64>) {
        self.inner.arrange(&ids);
    }

    fn __len__(&self) -> usize {
        self.inner.all().len()
    }

    #[getter]
    fn ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.inner.all().iter().map(|attempt| attempt.job_id))
    }

    #[getter]
    fn session_ids(&self) -> Vec<i64> {
        self.inner.sessions()
    }

    #[getter]
    fn previous_ids(&self) -> Vec<i64> {
        self.inner.previous()
    }

    fn attempts(&self, session_id: i64) -> Vec<Ref> {
        let attempts = self.inner.attempts(session_id);
        attempts.map(|attempt| to_ref(&attempt)).collect()
    }

    fn refused(&self, ids: Vec<i64>, session_ids: Vec<i64>) -> (Vec<i64>, Vec<i64>) {
        let claimed: HashSet<i64> = self.inner.all().iter().map(|each| each.job_id).collect();
        let wanted = ids.into_iter().zip(session_ids);
        wanted.filter(|(id, _)| !claimed.contains(id)).unzip()
    }

    fn encode<'py>(
        &self,
        py: Python<'py>,
        session_id: i64,
        previous: HashMap<i64, PyBackedBytes>,
        most_jobs: usize,
        most_bytes: usize,
    ) -> Vec<Bound<'py, PyBytes>> {
        let output = |job| previous.get(&job).map_or(b"".as_slice(), |bytes| bytes);
        let messages = self
            .inner
            .encode(session_id, output, (most_jobs, most_bytes));
        messages
            .iter()
            .map(|message| PyBytes::new(py, message))
            .collect()
    }
}

/// The steps of runs among claimed jobs; empty where there are none.
fn steps(columns: &Bound<'_, PyAny>) -> PyResult<Vec<Option<Step>>> {
    let run_ids: Option<Vec<Option<i64>>> = columns.get_item("run_ids")?.extract()?;
    let Some(run_ids) = run_ids else {
        return Ok(Vec::new());
    };
    let keys: Vec<Option<String>> = columns.get_item("step_keys")?.extract()?;
    let previous: Vec<Option<i64>> = columns.get_item("previous_ids")?.extract()?;
    for (name, length) in [("step_keys", keys.len()), ("previous_ids", previous.len())] {
        same_length(name, length, run_ids.len())?;
    }
    let rows = run_ids.into_iter().zip(keys).zip(previous);
    let step = |((run_id, key), previous): ((Option<i64>, Option<String>), Option<i64>)| {
        run_id.map(|run_id| Step {
            run_id,
            key: key.unwrap_or_default(),
            previous,
        })
    };
    Ok(rows.map(step).collect())
}

/// A set of attempts.
#[pyclass(module = "orqestra._dispatch")]
#[derive(Default)]
pub struct Attempts {
    inner: HashSet<Attempt>,
}

#[pymethods]
impl Attempts {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn __len__(&self) -> usize {
        self.inner.len()
    }

    fn __contains__(&self, attempt: Ref) -> bool {
        self.inner.contains(&from_ref(attempt))
    }

    fn all(&self) -> Vec<Ref> {
        self.inner.iter().map(to_ref).collect()
    }

    fn add(&mut self, attempts: Vec<Ref>) {
        self.inner.extend(attempts.into_iter().map(from_ref));
    }

    fn add_claimed(&mut self, claimed: &Claimed, session_id: i64) {
        self.inner.extend(claimed.inner.attempts(session_id));
    }

    fn remove(&mut self, attempts: Vec<Ref>) -> usize {
        let mut removed = |attempt: &Ref| self.inner.remove(&from_ref(*attempt));
        attempts.iter().filter(|attempt| removed(attempt)).count()
    }

    fn remove_reported(&mut self, results: &Results) -> usize {
        let mut removed = |attempt: &Attempt| self.inner.remove(attempt);
        results
            .attempts_iter()
            .filter(|attempt| removed(attempt))
            .count()
    }
}

/// What a worker is assigned by one message.
#[pyclass(frozen, module = "orqestra._dispatch")]
pub struct Assigned {
    #[pyo3(get)]
    number: i64,
    #[pyo3(get)]
    others: Vec<Py<PyBytes>>,
    pub noops: Vec<Attempt>,
}

#[pymethods]
impl Assigned {
    #[getter]
    fn noops(&self) -> Vec<Ref> {
        self.noops.iter().map(to_ref).collect()
    }

    #[getter]
    fn noop_count(&self) -> usize {
        self.noops.len()
    }
}

impl Assigned {
    pub fn read(py: Python<'_>, message: &[u8], apart: bool) -> PyResult<Option<Self>> {
        let Some(read) = assign::read(message, apart)? else {
            return Ok(None);
        };
        let others = read.others.into_iter();
        Ok(Some(Self {
            number: read.number,
            others: others
                .map(|place| PyBytes::new(py, &message[place]).unbind())
                .collect(),
            noops: read.noops,
        }))
    }
}
