//! The namespace `backoff`.

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;

use super::beside;
use crate::backoff::{Columns, Jitter};
use crate::error::InvalidInput;

/// A namespace: only static methods, no instances.
#[pyclass(frozen, name = "backoff", module = "orqestra._dispatch")]
pub struct Backoff;

#[pymethods]
impl Backoff {
    #[staticmethod]
    fn ceilings(
        py: Python<'_>,
        base_ms: Vec<i64>,
        factor: Vec<f64>,
        cap_ms: Vec<i64>,
        attempts: Vec<i64>,
    ) -> PyResult<Vec<i64>> {
        let columns = columns(&base_ms, &factor, &cap_ms, &attempts);
        Ok(beside(py, base_ms.len(), || columns.ceilings())?)
    }

    #[staticmethod]
    fn delays(
        py: Python<'_>,
        base_ms: Vec<i64>,
        factor: Vec<f64>,
        cap_ms: Vec<i64>,
        attempts: Vec<i64>,
        jitters: Vec<PyBackedStr>,
        seeds: Vec<i64>,
    ) -> PyResult<Vec<i64>> {
        let columns = columns(&base_ms, &factor, &cap_ms, &attempts);
        let jitters = jitters_of(&jitters)?;
        Ok(beside(py, base_ms.len(), || {
            columns.delays(&jitters, &seeds)
        })?)
    }
}

fn jitters_of(words: &[PyBackedStr]) -> Result<Vec<Jitter>, InvalidInput> {
    let of_row = |(row, word): (usize, &PyBackedStr)| {
        Jitter::parse(word).map_err(|problem| InvalidInput::new(format!("row {row}: {problem}")))
    };
    words.iter().enumerate().map(of_row).collect()
}

fn columns<'a>(
    base_ms: &'a [i64],
    factors: &'a [f64],
    cap_ms: &'a [i64],
    attempts: &'a [i64],
) -> Columns<'a> {
    Columns {
        base_ms,
        factors,
        cap_ms,
        attempts,
    }
}
