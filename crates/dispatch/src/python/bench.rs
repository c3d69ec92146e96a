//! `spawn_limit`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::bench;

/// More threads than this measure nothing else.
const THREADS_MAX: usize = 64;
/// Long enough for any measure, and no argument for the clock to overflow.
const SECONDS_MAX: f64 = 600.0;

/// How many commands a second bare threads start and see end.
#[pyfunction]
pub fn spawn_limit(
    py: Python<'_>,
    argv: Vec<Vec<u8>>,
    threads: usize,
    seconds: f64,
) -> PyResult<f64> {
    if !(1..=THREADS_MAX).contains(&threads) {
        return Err(PyValueError::new_err(format!(
            "threads: {threads}, 1 to {THREADS_MAX} are allowed"
        )));
    }
    if !(seconds > 0.0 && seconds <= SECONDS_MAX) {
        return Err(PyValueError::new_err(format!(
            "seconds: {seconds}, more than 0 and up to {SECONDS_MAX} are allowed"
        )));
    }
    let argv: Vec<OsString> = argv.into_iter().map(OsString::from_vec).collect();
    let duration = Duration::from_secs_f64(seconds);
    Ok(py.detach(|| bench::spawn_limit(&argv, threads, duration))?)
}
