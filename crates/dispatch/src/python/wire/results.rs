//! The classes `Results` and `Successes`.

use std::collections::BTreeMap;
use std::ops::Range;

use hashbrown::HashSet;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::{Ref, to_ref};
use crate::wire::attempt::Attempt;
use crate::wire::results::{self, Reported};

/// Results that came in one message of one session.
#[pyclass(frozen, module = "orqestra._dispatch")]
pub struct Results {
    #[pyo3(get)]
    session_id: i64,
    message: Py<PyBytes>,
    reported: Vec<Reported>,
}

impl Results {
    pub fn read(
        py: Python<'_>,
        session_id: i64,
        message: Bound<'_, PyBytes>,
        at_most: usize,
    ) -> PyResult<Option<Vec<Self>>> {
        let Some(reported) = results::read(message.as_bytes())? else {
            return Ok(None);
        };
        let message = message.unbind();
        let part = |part: &[Reported]| Self {
            session_id,
            message: message.clone_ref(py),
            reported: part.to_vec(),
        };
        Ok(Some(reported.chunks(at_most.max(1)).map(part).collect()))
    }

    pub fn attempts_iter(&self) -> impl Iterator<Item = &Attempt> {
        self.reported.iter().map(|result| &result.attempt)
    }

    fn part<'py>(&self, py: Python<'py>, place: &Range<usize>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.message.as_bytes(py)[place.clone()])
    }

    fn success<'py>(&self, py: Python<'py>, result: &Reported) -> Success<'py> {
        let success = result.success.clone().unwrap_or_default();
        let attempt = to_ref(&result.attempt);
        let stdout = self.part(py, &success.stdout);
        let stderr = self.part(py, &success.stderr);
        (self.session_id, attempt, stdout, stderr, success.usage)
    }
}

#[pymethods]
impl Results {
    fn __len__(&self) -> usize {
        self.reported.len()
    }

    fn attempts(&self) -> Vec<Ref> {
        self.attempts_iter().map(to_ref).collect()
    }

    fn others<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        let others = self
            .reported
            .iter()
            .filter(|result| result.success.is_none());
        others.map(|result| self.part(py, &result.place)).collect()
    }
}

/// Plain successes of many messages, for one statement.
#[pyclass(frozen, module = "orqestra._dispatch")]
pub struct Successes {
    messages: Vec<Py<Results>>,
    inner: results::Successes,
}

/// A success: session, attempt, stdout, stderr, usage.
type Success<'py> = (i64, Ref, Bound<'py, PyBytes>, Bound<'py, PyBytes>, [i64; 4]);

#[pymethods]
impl Successes {
    #[new]
    fn new(messages: Vec<Py<Results>>) -> Self {
        let reported = messages.iter().map(|each| each.get().reported.as_slice());
        let inner = results::Successes::of(reported);
        Self { messages, inner }
    }

    fn __len__(&self) -> usize {
        self.inner.rows.len()
    }

    /// By the names of the statement; a column of which every value is nothing is empty.
    fn columns<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let columns = PyDict::new(py);
        let numbers = |pick: fn(&Results, &Reported) -> i64| {
            PyList::new(
                py,
                self.rows().map(|(message, result)| pick(message, result)),
            )
        };
        columns.set_item("session_ids", numbers(|message, _| message.session_id)?)?;
        columns.set_item("ids", numbers(|_, result| result.attempt.job_id)?)?;
        columns.set_item("fences", numbers(|_, result| result.attempt.fence)?)?;
        columns.set_item("tokens", numbers(|_, result| result.attempt.token)?)?;
        columns.set_item("stdouts", self.outputs(py, |success| &success.stdout)?)?;
        columns.set_item("stderrs", self.outputs(py, |success| &success.stderr)?)?;
        for (index, name) in ["wall_us", "user_us", "system_us", "max_rss_kb"]
            .into_iter()
            .enumerate()
        {
            let used =
                |result: &Reported| result.success.as_ref().map_or(0, |each| each.usage[index]);
            let is_empty = self.rows().all(|(_, result)| used(result) == 0);
            let values = self.rows().map(|(_, result)| used(result));
            let values = if is_empty {
                Vec::new()
            } else {
                values.collect()
            };
            columns.set_item(name, values)?;
        }
        Ok(columns)
    }

    /// What is told of those that the statement has done, by session; and what it has not.
    fn settle<'py>(
        &self,
        py: Python<'py>,
        done: Vec<i64>,
    ) -> (Vec<(i64, Bound<'py, PyBytes>)>, Vec<Success<'py>>) {
        let done: HashSet<i64> = done.into_iter().collect();
        let (mut accepted, mut missed) = (BTreeMap::<i64, Vec<u8>>::new(), Vec::new());
        for (message, result) in self.rows() {
            if done.contains(&result.attempt.job_id) {
                let acks = accepted.entry(message.session_id).or_default();
                results::accept(acks, [&result.attempt]);
            } else {
                missed.push(message.success(py, result));
            }
        }
        let again = self.inner.again.iter().map(|place| self.at(place));
        missed.extend(again.map(|(message, result)| message.success(py, result)));
        let acks = accepted.into_iter();
        (
            acks.map(|(session, acks)| (session, PyBytes::new(py, &acks)))
                .collect(),
            missed,
        )
    }
}

impl Successes {
    fn at(&self, place: &(usize, usize)) -> (&Results, &Reported) {
        let message = self.messages[place.0].get();
        (message, &message.reported[place.1])
    }

    fn rows(&self) -> impl Iterator<Item = (&Results, &Reported)> {
        self.inner.rows.iter().map(|place| self.at(place))
    }

    fn outputs<'py>(
        &self,
        py: Python<'py>,
        pick: fn(&results::Success) -> &Range<usize>,
    ) -> PyResult<Bound<'py, PyList>> {
        let place = |result: &Reported| {
            result
                .success
                .as_ref()
                .map_or(0..0, |each| pick(each).clone())
        };
        if self.rows().all(|(_, result)| place(result).is_empty()) {
            return Ok(PyList::empty(py));
        }
        let output = |(message, result): (&Results, &Reported)| message.part(py, &place(result));
        PyList::new(py, self.rows().map(output).collect::<Vec<_>>())
    }
}
