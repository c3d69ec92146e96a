//! The namespace `outbox` and the class `Push`.

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::beside;
use crate::hint::HINT_BYTES;
use crate::outbox::{self, Columns, ENTRY_BYTES};

/// A namespace: only static methods, no instances.
#[pyclass(frozen, name = "outbox", module = "orqestra._dispatch")]
pub struct Outbox;

/// What one call of the push script stores.
#[pyclass(frozen, get_all, module = "orqestra._dispatch")]
pub struct Push {
    ready: Py<PyBytes>,
    delayed: Py<PyBytes>,
    lanes: Vec<u32>,
}

#[pymethods]
impl Outbox {
    #[staticmethod]
    fn encode(
        py: Python<'_>,
        ids: Vec<i64>,
        lanes: Vec<i64>,
        priorities: Vec<i64>,
        due_ms: Vec<i64>,
    ) -> PyResult<Py<PyBytes>> {
        let columns = Columns {
            ids: &ids,
            lanes: &lanes,
            priorities: &priorities,
            due_ms: &due_ms,
        };
        let entries = beside(py, ids.len(), || outbox::encode(columns))?;
        Ok(PyBytes::new(py, &entries).unbind())
    }

    #[staticmethod]
    #[pyo3(signature = (rows, now_ms, max_hints = 1000))]
    fn drain(
        py: Python<'_>,
        rows: Vec<PyBackedBytes>,
        now_ms: i64,
        max_hints: usize,
    ) -> PyResult<Vec<Push>> {
        let entries = rows.iter().map(|row| row.len()).sum::<usize>() / ENTRY_BYTES;
        let pushes = beside(py, entries, || outbox::drain(&rows, now_ms, max_hints))?;
        Ok(pushes.into_iter().map(|push| Push::new(py, push)).collect())
    }

    #[staticmethod]
    #[pyo3(signature = (hints, max_hints = 1000))]
    fn regroup(py: Python<'_>, hints: &[u8], max_hints: usize) -> PyResult<Vec<Push>> {
        let count = hints.len() / HINT_BYTES;
        let pushes = beside(py, count, || outbox::regroup(hints, max_hints))?;
        Ok(pushes.into_iter().map(|push| Push::new(py, push)).collect())
    }

    #[staticmethod]
    fn ids(py: Python<'_>, hints: &[u8]) -> PyResult<Vec<i64>> {
        Ok(beside(py, hints.len() / HINT_BYTES, || outbox::ids(hints))?)
    }
}

impl Push {
    fn new(py: Python<'_>, push: outbox::Push) -> Self {
        Self {
            ready: PyBytes::new(py, &push.ready).unbind(),
            delayed: PyBytes::new(py, &push.delayed).unbind(),
            lanes: push.lanes,
        }
    }
}
