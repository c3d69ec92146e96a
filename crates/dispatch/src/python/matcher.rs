//! The classes `Matcher`, `Demand` and `Assignment`.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::matcher;

/// Matches hints to sessions. It keeps the GIL: a call about 1000 jobs takes some tens of
/// microseconds, and one thread has it to itself.
#[pyclass(module = "orqestra._dispatch")]
pub struct Matcher {
    inner: matcher::Matcher,
}

/// What one profile could take now.
#[pyclass(frozen, get_all, module = "orqestra._dispatch")]
pub struct Demand {
    profile: u32,
    budget: usize,
    lanes: Py<PyBytes>,
}

/// Who gets what.
#[pyclass(frozen, get_all, module = "orqestra._dispatch")]
pub struct Assignment {
    ids: Py<PyList>,
    sessions: Py<PyList>,
    lanes: Py<PyList>,
    leftover: Py<PyBytes>,
}

#[pymethods]
impl Matcher {
    #[new]
    #[pyo3(signature = (*, pack = false))]
    fn new(pack: bool) -> Self {
        Self {
            inner: matcher::Matcher::new(pack),
        }
    }

    fn set_lane(&mut self, lane: i32, queue: &str, requires: Vec<String>) -> PyResult<()> {
        Ok(self.inner.set_lane(lane, queue, requires)?)
    }

    fn open_session(
        &mut self,
        session: i64,
        slots: u32,
        queues: Vec<String>,
        labels: Vec<String>,
    ) -> PyResult<()> {
        Ok(self.inner.open_session(session, slots, queues, labels)?)
    }

    fn close_session(&mut self, session: i64) {
        self.inner.close_session(session);
    }

    fn set_slots(&mut self, session: i64, slots: u32) {
        self.inner.set_slots(session, slots);
    }

    fn hold(&mut self, session: i64, n: u32) {
        self.inner.hold(session, n);
    }

    fn finished(&mut self, sessions: Vec<i64>, now_ms: i64) {
        self.inner.finished(&sessions, now_ms);
    }

    fn release(&mut self, sessions: Vec<i64>) {
        self.inner.release(&sessions);
    }

    fn wake(&mut self, lanes: Vec<i32>) -> Vec<i32> {
        self.inner.wake(&lanes)
    }

    #[pyo3(signature = (*, filled = false))]
    fn suspect_all(&mut self, filled: bool) {
        self.inner.suspect_all(filled);
    }

    fn found_empty(&mut self, lanes: Vec<i32>) {
        self.inner.found_empty(&lanes);
    }

    fn found_partial(&mut self, lanes: Vec<i32>) {
        self.inner.found_partial(&lanes);
    }

    fn direct(
        &mut self,
        py: Python<'_>,
        lane: i32,
        count: usize,
        now_ms: i64,
    ) -> PyResult<Py<PyList>> {
        let sessions = self.inner.direct(lane, count, now_ms);
        Ok(PyList::new(py, sessions)?.unbind())
    }

    fn room(&mut self, lane: i32, now_ms: i64) -> (usize, usize, usize, u64) {
        let room = self.inner.room(lane, now_ms);
        (room.free, room.outstanding, room.lately, room.assigned)
    }

    #[pyo3(signature = (now_ms, max_lanes = 64, max_hints = 1000))]
    fn demand(
        &mut self,
        py: Python<'_>,
        now_ms: i64,
        max_lanes: usize,
        max_hints: usize,
    ) -> Vec<Demand> {
        let demands = self.inner.demand(now_ms, max_lanes, max_hints);
        let shell = |demand: matcher::Demand| Demand {
            profile: demand.profile,
            budget: demand.budget,
            lanes: PyBytes::new(py, demand.lanes.as_bytes()).unbind(),
        };
        demands.into_iter().map(shell).collect()
    }

    fn assign(&mut self, py: Python<'_>, profile: u32, hints: &[u8]) -> PyResult<Assignment> {
        let assigned = self.inner.assign(profile, hints)?;
        Ok(Assignment {
            ids: PyList::new(py, assigned.ids)?.unbind(),
            sessions: PyList::new(py, assigned.sessions)?.unbind(),
            lanes: PyList::new(py, assigned.lanes)?.unbind(),
            leftover: PyBytes::new(py, &hints[assigned.leftover_from..]).unbind(),
        })
    }

    fn has_credit(&self) -> bool {
        self.inner.has_credit()
    }

    fn free(&self, session: i64) -> u32 {
        self.inner.free(session)
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.inner.stats();
        let counts = PyDict::new(py);
        counts.set_item("sessions", stats.sessions)?;
        counts.set_item("profiles", stats.profiles)?;
        counts.set_item("lanes", stats.lanes)?;
        counts.set_item("suspects", stats.suspects)?;
        counts.set_item("credits", stats.credits)?;
        Ok(counts)
    }
}
