//! `Spool`. Its thread never touches the interpreter.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::spool::{self, PAYLOAD_BYTES_MAX, Record, Told};

/// Records on disk.
#[pyclass(frozen, module = "orqestra._dispatch")]
pub struct Spool {
    open: spool::Spool,
    recovered: Mutex<Vec<Record>>,
    #[pyo3(get)]
    torn: usize,
    #[pyo3(get)]
    damaged: usize,
}

#[pymethods]
impl Spool {
    #[new]
    #[pyo3(signature = (directory, *, segment_bytes=8_388_608))]
    fn new(py: Python<'_>, directory: PathBuf, segment_bytes: u64) -> PyResult<Self> {
        let (open, recovered) = py.detach(|| spool::Spool::open(&directory, segment_bytes))?;
        Ok(Self {
            open,
            recovered: Mutex::new(recovered.records),
            torn: recovered.torn,
            damaged: recovered.damaged,
        })
    }

    fn recovered(&self, py: Python<'_>) -> Vec<(u64, Py<PyBytes>)> {
        let mut records = self
            .recovered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let records = std::mem::take(&mut *records).into_iter();
        records
            .map(|(key, payload)| (key, PyBytes::new(py, &payload).unbind()))
            .collect()
    }

    fn fileno(&self) -> RawFd {
        self.open.fileno()
    }

    fn append(&self, records: Vec<(u64, Bound<'_, PyBytes>)>) -> PyResult<()> {
        let too_long = |(_, payload): &&(u64, Bound<'_, PyBytes>)| {
            payload.as_bytes().len() > PAYLOAD_BYTES_MAX
        };
        if let Some((key, payload)) = records.iter().find(too_long) {
            let bytes = payload.as_bytes().len();
            return Err(PyValueError::new_err(format!(
                "records: that of key {key} has {bytes} bytes, allowed are {PAYLOAD_BYTES_MAX}"
            )));
        }
        let records = records.into_iter();
        let owned = records.map(|(key, payload)| (key, payload.as_bytes().to_vec()));
        self.open.append(owned.collect());
        Ok(())
    }

    fn delete(&self, keys: Vec<u64>) {
        self.open.delete(&keys);
    }

    fn set_aside(&self, key: u64) {
        self.open.set_aside(key);
    }

    fn take(&self) -> (Vec<u64>, Option<i32>) {
        let Told { synced, trouble } = self.open.take();
        (synced, trouble)
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.open.close());
    }
}
