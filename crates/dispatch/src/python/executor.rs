//! `Command`, `Executor` and what it reports: `Exit`, `Live`.
//!
//! The threads of the executor never touch the interpreter. Its locks are held for moments by
//! threads that want nothing from Python; still they are only taken with the GIL given up.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::executor::{self, Bounds, Ending, KEY_END, Reports, Settings, StartError};

/// More threads than this start nothing faster.
const SPAWNERS_MAX: usize = 64;
/// No stream keeps more.
const KEPT_BYTES_MAX: usize = 1 << 30;

/// What is to be run.
#[pyclass(frozen, module = "orqestra._dispatch")]
pub struct Command(Arc<executor::Command>);

#[pymethods]
impl Command {
    #[new]
    #[pyo3(signature = (*, key, argv, env, cwd=None, stdin=None, timeout_ms=0, grace_ms=5000))]
    fn new(
        key: u64,
        argv: Vec<Bound<'_, PyBytes>>,
        env: Vec<(Bound<'_, PyBytes>, Bound<'_, PyBytes>)>,
        cwd: Option<Bound<'_, PyBytes>>,
        stdin: Option<Bound<'_, PyBytes>>,
        timeout_ms: u64,
        grace_ms: u64,
    ) -> PyResult<Self> {
        if key >= KEY_END {
            return Err(PyValueError::new_err(format!(
                "key: {key} is not below 2 ** 62"
            )));
        }
        Ok(Self(Arc::new(executor::Command {
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
            ..executor::Command::default()
        })))
    }

    #[getter]
    fn key(&self) -> u64 {
        self.0.key
    }
}

/// Runs commands.
#[pyclass(frozen, module = "orqestra._dispatch")]
pub struct Executor(executor::Executor);

#[pymethods]
impl Executor {
    #[new]
    #[pyo3(signature = (*, spawners=2, head_bytes=262_144, tail_bytes=786_432, drain_ms=2000))]
    fn new(
        py: Python<'_>,
        spawners: usize,
        head_bytes: usize,
        tail_bytes: usize,
        drain_ms: u64,
    ) -> PyResult<Self> {
        within("spawners", spawners, 1, SPAWNERS_MAX)?;
        within("head_bytes", head_bytes, 0, KEPT_BYTES_MAX)?;
        within("tail_bytes", tail_bytes, 0, KEPT_BYTES_MAX)?;
        let bounds = Bounds {
            head_bytes,
            tail_bytes,
        };
        let settings = Settings {
            spawners,
            bounds,
            drain: Duration::from_millis(drain_ms),
            cgroup: None,
        };
        Ok(Self(py.detach(|| executor::Executor::new(settings))?))
    }

    fn fileno(&self) -> RawFd {
        self.0.fileno()
    }

    fn start(&self, py: Python<'_>, commands: Vec<Bound<'_, Command>>) -> PyResult<()> {
        let shared = |command: &Bound<'_, Command>| Arc::clone(&command.get().0);
        let commands: Vec<_> = commands.iter().map(shared).collect();
        Ok(py.detach(|| self.0.start(&commands))?)
    }

    fn cancel(&self, py: Python<'_>, keys: Vec<u64>) {
        py.detach(|| self.0.cancel(keys));
    }

    fn kill(&self, py: Python<'_>, keys: Vec<u64>) {
        py.detach(|| self.0.kill(keys));
    }

    fn follow(&self, py: Python<'_>, key: u64, from_offset_stdout: u64, from_offset_stderr: u64) {
        py.detach(|| self.0.follow(key, from_offset_stdout, from_offset_stderr));
    }

    fn unfollow(&self, py: Python<'_>, key: u64) {
        py.detach(|| self.0.unfollow(key));
    }

    fn reports<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let Reports { live, exits, .. } = py.detach(|| self.0.reports());
        let list = PyList::empty(py);
        for piece in live {
            list.append(Live::of(py, &piece))?;
        }
        for exit in exits {
            list.append(Exit::of(py, exit))?;
        }
        Ok(list)
    }

    fn running(&self, py: Python<'_>) -> usize {
        py.detach(|| self.0.running())
    }

    fn stop(&self, py: Python<'_>, kill: bool) {
        py.detach(|| self.0.stop(kill));
    }
}

impl From<StartError> for PyErr {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Stopped => PyRuntimeError::new_err("the executor is stopped"),
            StartError::Key(key) => PyValueError::new_err(format!(
                "key: {key} belongs to a command that has not ended"
            )),
        }
    }
}

/// The end of a command.
#[expect(clippy::struct_field_names, reason = "named as in Python")]
#[pyclass(frozen, get_all, module = "orqestra._dispatch")]
pub struct Exit {
    key: u64,
    reason: &'static str,
    exit_code: Option<i32>,
    signal: Option<i32>,
    error: Option<String>,
    errno: Option<i32>,
    stage: Option<&'static str>,
    killed: bool,
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
    fn of(py: Python<'_>, exit: executor::Exit) -> Self {
        let (exit_code, signal) = match exit.ending {
            Some(Ending::Code(code)) => (Some(code), None),
            Some(Ending::Signal(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        Self {
            key: exit.key,
            reason: exit.reason.name(),
            exit_code,
            signal,
            errno: exit.failure.as_ref().map(|failure| failure.errno),
            stage: exit.failure.as_ref().map(|failure| failure.stage),
            error: exit.failure.map(|failure| failure.error),
            killed: exit.killed,
            stdout: PyBytes::new(py, &exit.stdout.bytes).unbind(),
            stderr: PyBytes::new(py, &exit.stderr.bytes).unbind(),
            stdout_bytes: exit.stdout.total,
            stderr_bytes: exit.stderr.total,
            truncated: exit.stdout.is_truncated() || exit.stderr.is_truncated(),
            started_at_us: exit.started_at_us,
            wall_us: exit.wall_us,
            user_us: exit.usage.user_us,
            system_us: exit.usage.system_us,
            max_rss_kb: exit.usage.max_rss_kb,
        }
    }
}

#[pymethods]
impl Exit {
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
    key: u64,
    stream: u8,
    offset: u64,
    data: Py<PyBytes>,
}

impl Live {
    fn of(py: Python<'_>, live: &executor::Live) -> Self {
        let data = PyBytes::new(py, &live.data).unbind();
        Self {
            key: live.key,
            stream: live.stream as u8,
            offset: live.offset,
            data,
        }
    }
}

#[pymethods]
impl Live {
    fn __repr__(&self, py: Python<'_>) -> String {
        let Self {
            key,
            stream,
            offset,
            data,
        } = self;
        format!(
            "Live({key}, stream {stream}, offset {offset}, {} bytes)",
            data.as_bytes(py).len()
        )
    }
}

fn owned(bytes: &Bound<'_, PyBytes>) -> Vec<u8> {
    bytes.as_bytes().to_vec()
}

fn within(name: &str, value: usize, least: usize, most: usize) -> PyResult<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "{name}: {value} is not within {least} to {most}"
    )))
}
