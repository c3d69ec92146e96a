//! The class `Jobs`.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::wire::jobs::{self, Row};

/// The jobs of one request.
#[pyclass(frozen, module = "orqestra._dispatch")]
pub struct Jobs {
    request: Py<PyBytes>,
    inner: jobs::Jobs,
}

impl Jobs {
    pub fn read(request: Bound<'_, PyBytes>, field: u32) -> PyResult<Self> {
        let inner = jobs::read(request.as_bytes(), field)?;
        Ok(Self {
            request: request.unbind(),
            inner,
        })
    }

    fn payload<'py>(&self, py: Python<'py>, row: &Row) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.request.as_bytes(py)[row.payload.clone()])
    }
}

#[pymethods]
impl Jobs {
    fn __len__(&self) -> usize {
        self.inner.rows.len()
    }

    #[getter]
    fn number(&self) -> u64 {
        self.inner.number
    }

    #[getter]
    fn shapes<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        let shapes = self.inner.shapes.iter();
        shapes.map(|shape| PyBytes::new(py, shape)).collect()
    }

    #[getter]
    fn shape_of<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.inner.rows.iter().map(|row| row.shape))
    }

    #[getter]
    fn payloads<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let payload = |row| self.payload(py, row);
        PyList::new(py, self.inner.rows.iter().map(payload))
    }

    #[getter]
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let request = self.request.as_bytes(py);
        if self.inner.rows.iter().all(|row| row.key.is_empty()) {
            return Ok(PyList::empty(py));
        }
        let key = |row: &Row| {
            let text = std::str::from_utf8(&request[row.key.clone()]).unwrap_or_default();
            (!text.is_empty()).then(|| PyString::new(py, text))
        };
        PyList::new(py, self.inner.rows.iter().map(key).collect::<Vec<_>>())
    }

    fn different<'py>(&self, py: Python<'py>) -> Vec<(usize, usize, Bound<'py, PyBytes>)> {
        let indexes = self.inner.different(self.request.as_bytes(py)).into_iter();
        let job = |index: usize| {
            let row = &self.inner.rows[index];
            (index, row.shape, self.payload(py, row))
        };
        indexes.map(job).collect()
    }

    fn bad_key(&self, py: Python<'_>, most_chars: usize) -> Option<usize> {
        self.inner.bad_key(self.request.as_bytes(py), most_chars)
    }
}
