//! The namespace `wire`, and the classes of what it reads.

mod assign;
mod job_specs;
mod owed;
mod results;

use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::PyBytes;

pub use self::assign::{Assigned, Attempts, Claimed};
pub use self::job_specs::Jobs;
pub use self::owed::Owed;
pub use self::results::{Results, Successes};
use crate::wire::attempt::Attempt;
use crate::wire::{acks, assign as pure_assign, jobs};

/// A namespace: only static methods, no instances.
#[pyclass(frozen, name = "wire", module = "orqestra._dispatch")]
pub struct Wire;

/// An attempt as Python has it: job, fence, token.
pub(super) type Ref = (i64, i64, i64);

fn to_ref(attempt: &Attempt) -> Ref {
    (attempt.job_id, attempt.fence, attempt.token)
}

pub(super) fn from_ref((job_id, fence, token): Ref) -> Attempt {
    Attempt {
        job_id,
        fence,
        token,
    }
}

#[pymethods]
impl Wire {
    #[staticmethod]
    #[pyo3(signature = (session_id, message, at_most = 1000))]
    fn results(
        py: Python<'_>,
        session_id: i64,
        message: Bound<'_, PyBytes>,
        at_most: usize,
    ) -> PyResult<Option<Vec<Results>>> {
        Results::read(py, session_id, message, at_most)
    }

    #[staticmethod]
    fn result_acks(py: Python<'_>, parts: Vec<PyBackedBytes>) -> Bound<'_, PyBytes> {
        PyBytes::new(py, &acks::message(&parts))
    }

    #[staticmethod]
    fn assign<'py>(py: Python<'py>, number: i64, jobs: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &pure_assign::message(number, jobs))
    }

    #[staticmethod]
    #[pyo3(signature = (message, *, apart))]
    fn assigned(py: Python<'_>, message: &[u8], apart: bool) -> PyResult<Option<Assigned>> {
        Assigned::read(py, message, apart)
    }

    #[staticmethod]
    fn job_specs(
        py: Python<'_>,
        field: u32,
        shapes: Vec<PyBackedBytes>,
        payloads: Vec<PyBackedBytes>,
        keys: Vec<Option<PyBackedStr>>,
    ) -> Bound<'_, PyBytes> {
        let bytes = payloads
            .iter()
            .zip(&shapes)
            .map(|(payload, shape)| payload.len() + shape.len());
        let mut request = Vec::with_capacity(bytes.sum::<usize>() + 16 * shapes.len());
        for ((shape, payload), key) in shapes.iter().zip(&payloads).zip(&keys) {
            jobs::put(
                &mut request,
                field,
                shape,
                payload,
                key.as_deref().unwrap_or_default(),
            );
        }
        PyBytes::new(py, &request)
    }

    #[staticmethod]
    fn jobs(request: Bound<'_, PyBytes>, field: u32) -> PyResult<Jobs> {
        Jobs::read(request, field)
    }
}
