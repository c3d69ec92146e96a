//! The class `Owed`.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::assign::Assigned;
use super::{Ref, from_ref, to_ref};
use crate::wire::owed;

/// The results that a worker owes.
#[pyclass(module = "orqestra._dispatch")]
#[derive(Default)]
pub struct Owed {
    inner: owed::Owed,
}

#[pymethods]
impl Owed {
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

    fn attempts(&self) -> Vec<Ref> {
        self.inner
            .attempts()
            .map(|attempt| to_ref(&attempt))
            .collect()
    }

    #[pyo3(signature = (attempt, result, *, held_back = false))]
    fn add(&mut self, attempt: Ref, result: Vec<u8>, held_back: bool) {
        self.inner.add(from_ref(attempt), result, held_back);
    }

    fn add_noops(&mut self, assigned: &Assigned, now_us: i64) {
        self.inner.add_noops(&assigned.noops, now_us);
    }

    fn release(&mut self, attempt: Ref) {
        self.inner.release(&from_ref(attempt));
    }

    fn take<'py>(
        &mut self,
        py: Python<'py>,
        most_jobs: usize,
        most_bytes: usize,
    ) -> Option<Bound<'py, PyBytes>> {
        let message = self.inner.take(most_jobs, most_bytes)?;
        Some(PyBytes::new(py, &message))
    }

    fn offer_again(&mut self) {
        self.inner.offer_again();
    }

    fn remove(&mut self, attempt: Ref) -> bool {
        self.inner.remove(&from_ref(attempt))
    }

    fn acknowledge(&mut self, message: &[u8]) -> PyResult<Option<Vec<(Ref, i64, bool)>>> {
        let to_tell = self.inner.acknowledge(message)?;
        let tell = |each: owed::Acknowledged| (to_ref(&each.attempt), each.verdict, each.was_owed);
        Ok(to_tell.map(|all| all.into_iter().map(tell).collect()))
    }
}
