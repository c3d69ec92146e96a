//! `Command`: what a supervisor is given.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::executor::{self, KEY_END, Limits, User};

/// What is to be run.
#[pyclass(frozen, module = "orqestra._dispatch")]
pub struct Command(pub(super) Arc<executor::Command>, pub(super) Vec<u8>);

#[pymethods]
impl Command {
    #[expect(
        clippy::too_many_arguments,
        reason = "keyword arguments of one call from Python"
    )]
    #[new]
    #[pyo3(signature = (*, key, argv, env, cwd=None, stdin=None, timeout_ms=0, grace_ms=5000, tag=None,
                        directory=None, previous_output=None, limits=None, user=None,
                        allow_background=false))]
    fn new(
        key: u64,
        argv: Vec<Bound<'_, PyBytes>>,
        env: Vec<(Bound<'_, PyBytes>, Bound<'_, PyBytes>)>,
        cwd: Option<Bound<'_, PyBytes>>,
        stdin: Option<Bound<'_, PyBytes>>,
        timeout_ms: u64,
        grace_ms: u64,
        tag: Option<Bound<'_, PyBytes>>,
        directory: Option<Bound<'_, PyBytes>>,
        previous_output: Option<Bound<'_, PyBytes>>,
        limits: Option<HashMap<String, u64>>,
        user: Option<(u32, u32, Vec<u32>)>,
        allow_background: bool,
    ) -> PyResult<Self> {
        if key >= KEY_END {
            return Err(PyValueError::new_err(format!(
                "key: {key} is not below 2 ** 62"
            )));
        }
        let command = Arc::new(executor::Command {
            key,
            argv: argv.iter().map(owned).collect(),
            env: env
                .iter()
                .map(|(name, value)| (owned(name), owned(value)))
                .collect(),
            cwd: cwd.as_ref().map(owned),
            stdin: stdin.as_ref().map(owned),
            timeout: (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms)),
            grace: Duration::from_millis(grace_ms),
            directory: directory.as_ref().map(owned),
            previous_output: previous_output.as_ref().map(owned),
            limits: limits_of(limits.unwrap_or_default())?,
            user: user.map(|(uid, gid, groups)| User { uid, gid, groups }),
            allow_background,
        });
        let tag = tag.as_ref().map(owned).unwrap_or_default();
        Ok(Self(command, tag))
    }

    #[getter]
    fn key(&self) -> u64 {
        self.0.key
    }
}

/// Limits by their names in Python.
fn limits_of(named: HashMap<String, u64>) -> PyResult<Limits> {
    let mut limits = Limits::default();
    for (name, value) in named {
        match name.as_str() {
            "nice" => limits.nice = Some(value.min(19) as i32),
            "open_files" => limits.open_files = Some(value),
            "file_bytes" => limits.file_bytes = Some(value),
            "cpu_seconds" => limits.cpu_seconds = Some(value),
            "address_space_bytes" => limits.address_space_bytes = Some(value),
            "memory_bytes" => limits.memory_bytes = Some(value),
            "processes" => limits.processes = Some(value),
            _ => return Err(PyValueError::new_err(format!("limits: {name:?} is none"))),
        }
    }
    Ok(limits)
}

fn owned(bytes: &Bound<'_, PyBytes>) -> Vec<u8> {
    bytes.as_bytes().to_vec()
}
