//! What a supervisor tells: `Exit`, `Live`, `Gone`, `Stuck` and `Strays`.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::wire::{Ref, from_ref};
use crate::executor::Ending;
use crate::supervisor::record::Ended;
use crate::wire::ended;

/// The end of a command.
#[expect(clippy::struct_field_names, reason = "named as in Python")]
#[pyclass(frozen, get_all, module = "orqestra._dispatch")]
pub struct Exit {
    key: u64,
    tag: Py<PyBytes>,
    reason: String,
    exit_code: Option<i32>,
    signal: Option<i32>,
    error: Option<String>,
    errno: Option<i32>,
    stage: Option<String>,
    killed: bool,
    timed_out: bool,
    killed_processes: u32,
    left_processes: u32,
    stdout: Py<PyBytes>,
    stderr: Py<PyBytes>,
    stdout_bytes: u64,
    stderr_bytes: u64,
    truncated: bool,
    started_at_us: u64,
    wall_us: u64,
    user_us: u64,
    system_us: u64,
    max_rss_kb: u64,
}

impl Exit {
    pub(super) fn of(py: Python<'_>, key: u64, ended: Ended) -> Self {
        let (exit_code, signal) = match ended.ending {
            Some(Ending::Code(code)) => (Some(code), None),
            Some(Ending::Signal(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        let [(stdout, stdout_bytes), (stderr, stderr_bytes)] = ended.outputs;
        let [wall_us, user_us, system_us, max_rss_kb] = ended.usage;
        let failed = ended.failure;
        Self {
            key,
            tag: PyBytes::new(py, &ended.tag).unbind(),
            reason: ended.reason,
            exit_code,
            signal,
            errno: failed.as_ref().map(|failed| failed.errno),
            stage: failed.as_ref().map(|failed| failed.stage.clone()),
            error: failed.map(|failed| failed.error),
            killed: ended.killed,
            timed_out: ended.timed_out,
            killed_processes: ended.others[0],
            left_processes: ended.others[1],
            truncated: stdout_bytes > stdout.len() as u64 || stderr_bytes > stderr.len() as u64,
            stdout: PyBytes::new(py, &stdout).unbind(),
            stderr: PyBytes::new(py, &stderr).unbind(),
            stdout_bytes,
            stderr_bytes,
            started_at_us: ended.started_at_us,
            wall_us,
            user_us,
            system_us,
            max_rss_kb,
        }
    }
}

#[pymethods]
impl Exit {
    /// See `wire::ended`.
    fn result<'py>(&self, py: Python<'py>, attempt: Ref) -> Option<Bound<'py, PyBytes>> {
        let by_itself = self.reason == ended::EXITED && self.stage.is_none() && !self.truncated;
        let ended = ended::Ended {
            code: self.exit_code.filter(|_| by_itself)?,
            outputs: [self.stdout.as_bytes(py), self.stderr.as_bytes(py)],
            started_at_us: self.started_at_us,
            usage: [self.wall_us, self.user_us, self.system_us, self.max_rss_kb],
            others: [self.killed_processes, self.left_processes],
        };
        let result = ended.result(&from_ref(attempt))?;
        Some(PyBytes::new(py, &result))
    }

    fn __repr__(&self) -> String {
        let Self {
            key,
            reason,
            exit_code,
            signal,
            error,
            ..
        } = self;
        format!("Exit({key}, {reason}, code {exit_code:?}, signal {signal:?}, {error:?})")
    }
}

/// A piece of output of a command that is followed.
#[pyclass(frozen, get_all, module = "orqestra._dispatch")]
pub struct Live {
    pub(super) key: u64,
    pub(super) stream: u8,
    pub(super) offset: u64,
    pub(super) data: Py<PyBytes>,
    pub(super) total: u64,
}

#[pymethods]
impl Live {
    fn __repr__(&self, py: Python<'_>) -> String {
        let Self {
            key,
            stream,
            offset,
            data,
            ..
        } = self;
        format!(
            "Live({key}, stream {stream}, offset {offset}, {} bytes)",
            data.as_bytes(py).len()
        )
    }
}

/// A command has ended, and how is not known any more.
#[pyclass(frozen, get_all, module = "orqestra._dispatch")]
pub struct Gone {
    pub(super) key: u64,
}

/// The kernel does not end these commands.
#[pyclass(frozen, get_all, module = "orqestra._dispatch")]
pub struct Stuck {
    pub(super) keys: Vec<u64>,
}

/// Processes that belong to none that can be told.
#[pyclass(frozen, get_all, module = "orqestra._dispatch")]
pub struct Strays {
    pub(super) pids: Vec<u32>,
}
