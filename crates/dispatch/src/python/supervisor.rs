//! `supervise`, and the daemon's end of it: `Supervisor`.
//!
//! No thread of either ever touches the interpreter, but for the one hook that tests use.

use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use super::command::Command;
use super::reports::{Exit, Gone, Live, Strays, Stuck};
use crate::executor::{Bounds, Settings, Window};
use crate::supervisor::client::Client;
use crate::supervisor::message::{Attach, Held, PROTOCOL, ToDaemon, ToSupervisor};
use crate::supervisor::record;
use crate::supervisor::{self, Config, Reached};

/// More threads than this start nothing faster.
const SPAWNERS_MAX: usize = 64;
/// No stream keeps more.
const KEPT_BYTES_MAX: usize = 1 << 30;

/// Be the supervisor of a worker's folder.
#[expect(
    clippy::too_many_arguments,
    reason = "keyword arguments of one call from Python"
)]
#[pyfunction]
#[pyo3(signature = (directory, *, daemon, version, incarnation, orphan_ms, spawners=2, head_bytes=262_144,
                    tail_bytes=786_432, drain_ms=2000, segment_bytes=8_388_608, reached=None))]
pub fn supervise(
    py: Python<'_>,
    directory: PathBuf,
    daemon: Option<RawFd>,
    version: String,
    incarnation: String,
    orphan_ms: u64,
    spawners: usize,
    head_bytes: usize,
    tail_bytes: usize,
    drain_ms: u64,
    segment_bytes: u64,
    reached: Option<Py<PyAny>>,
) -> PyResult<()> {
    within("spawners", spawners, 1, SPAWNERS_MAX)?;
    within("head_bytes", head_bytes, 0, KEPT_BYTES_MAX)?;
    within("tail_bytes", tail_bytes, 0, KEPT_BYTES_MAX)?;
    let bounds = Bounds {
        head_bytes,
        tail_bytes,
    };
    let config = Config {
        directory,
        daemon: daemon.map(socket),
        version,
        incarnation,
        orphan_timeout: Duration::from_millis(orphan_ms),
        segment_bytes,
        settings: Settings {
            spawners,
            bounds,
            drain: Duration::from_millis(drain_ms),
            cgroup: None,
        },
        reached: hook(reached),
    };
    Ok(py.detach(|| supervisor::run(config))?)
}

/// What tests hang into the supervisor.
fn hook(reached: Option<Py<PyAny>>) -> Reached {
    let Some(call) = reached else {
        return Arc::new(|_| {});
    };
    Arc::new(move |point| {
        Python::attach(|py| {
            if let Err(error) = call.call1(py, (point,)) {
                error.print(py);
            }
        });
    })
}

/// The daemon's end of the line to a supervisor.
#[pyclass(frozen, module = "orqestra._dispatch")]
pub struct Supervisor {
    client: Client,
    health: Mutex<String>,
}

#[pymethods]
impl Supervisor {
    #[new]
    #[pyo3(signature = (socket_fd, *, version, orphan_ms))]
    fn new(py: Python<'_>, socket_fd: RawFd, version: String, orphan_ms: u64) -> PyResult<Self> {
        let attach = Attach {
            protocol: PROTOCOL,
            version,
            orphan_timeout: Duration::from_millis(orphan_ms),
        };
        let client = py.detach(|| Client::attach(socket(socket_fd), attach))?;
        let health = Mutex::default();
        Ok(Self { client, health })
    }

    #[classattr]
    #[expect(non_snake_case, reason = "a constant of the class")]
    fn PROTOCOL() -> u32 {
        PROTOCOL
    }

    #[getter]
    fn protocol(&self) -> u32 {
        self.client.attached.protocol
    }

    #[getter]
    fn version(&self) -> &str {
        &self.client.attached.version
    }

    #[getter]
    fn incarnation(&self) -> &str {
        &self.client.attached.incarnation
    }

    #[getter]
    fn pid(&self) -> u32 {
        self.client.attached.pid
    }

    #[getter]
    fn torn(&self) -> u32 {
        self.client.attached.torn
    }

    #[getter]
    fn damaged(&self) -> u32 {
        self.client.attached.damaged
    }

    #[getter]
    fn held<'py>(&self, py: Python<'py>) -> Vec<(u64, Bound<'py, PyBytes>, bool)> {
        let held = self.client.attached.held.iter();
        held.map(|Held { key, tag, ended }| (*key, PyBytes::new(py, tag), *ended))
            .collect()
    }

    #[getter]
    fn health(&self) -> String {
        self.last_health().clone()
    }

    #[getter]
    fn closed(&self) -> bool {
        self.client.is_closed()
    }

    fn fileno(&self) -> RawFd {
        self.client.fileno()
    }

    fn start(&self, py: Python<'_>, commands: Vec<Bound<'_, Command>>) {
        let starts = commands.iter().map(|command| {
            let Command(command, tag) = command.get();
            let (command, tag) = (Arc::clone(command), tag.clone());
            ToSupervisor::Start { command, tag }
        });
        let starts: Vec<_> = starts.collect();
        py.detach(|| self.client.say(starts));
    }

    fn bound(&self, py: Python<'_>, running: usize, until_us: u64) {
        self.say(py, ToSupervisor::Window(Window { running, until_us }));
    }

    fn withdraw(&self, py: Python<'_>, keys: Vec<u64>) {
        self.say(py, ToSupervisor::Withdraw(keys));
    }

    fn cancel(&self, py: Python<'_>, keys: Vec<u64>) {
        self.say(py, ToSupervisor::Cancel(keys));
    }

    fn kill(&self, py: Python<'_>, keys: Vec<u64>) {
        self.say(py, ToSupervisor::Kill(keys));
    }

    fn follow(&self, py: Python<'_>, key: u64, from_offset_stdout: u64, from_offset_stderr: u64) {
        let offsets = [from_offset_stdout, from_offset_stderr];
        self.say(py, ToSupervisor::Follow(key, offsets));
    }

    fn unfollow(&self, py: Python<'_>, key: u64) {
        self.say(py, ToSupervisor::Unfollow(key));
    }

    fn forget(&self, py: Python<'_>, keys: Vec<u64>) {
        self.say(py, ToSupervisor::Forget(keys));
    }

    fn set_aside(&self, py: Python<'_>, keys: Vec<u64>) {
        self.say(py, ToSupervisor::SetAside(keys));
    }

    fn stop(&self, py: Python<'_>) {
        self.say(py, ToSupervisor::Stop);
    }

    fn hang_up(&self, py: Python<'_>) {
        py.detach(|| self.client.hang_up());
    }

    fn reports<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let said = py.detach(|| self.client.read());
        let list = PyList::empty(py);
        for message in said {
            match message {
                ToDaemon::Exit { key, record } => match record::decode(&record) {
                    Ok(ended) => list.append(Exit::of(py, key, ended))?,
                    Err(_) => list.append(Gone { key })?,
                },
                ToDaemon::Live {
                    key,
                    stream,
                    offset,
                    data,
                    total,
                } => {
                    let data = PyBytes::new(py, &data).unbind();
                    list.append(Live {
                        key,
                        stream,
                        offset,
                        data,
                        total,
                    })?;
                }
                ToDaemon::Gone(key) => list.append(Gone { key })?,
                ToDaemon::Health(health) => *self.last_health() = health,
                ToDaemon::Stuck(keys) => list.append(Stuck { keys })?,
                ToDaemon::Strays(pids) => list.append(Strays { pids })?,
                ToDaemon::Attached(_) => {}
            }
        }
        Ok(list)
    }
}

impl Supervisor {
    fn say(&self, py: Python<'_>, message: ToSupervisor) {
        py.detach(|| self.client.say([message]));
    }

    fn last_health(&self) -> MutexGuard<'_, String> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes over a connected socket.
#[expect(unsafe_code, reason = "descriptors come from Python as numbers")]
fn socket(descriptor: RawFd) -> UnixStream {
    // SAFETY: whoever passes the number has given the descriptor up (`socket.detach`).
    unsafe { UnixStream::from_raw_fd(descriptor) }
}

fn within(name: &str, value: usize, least: usize, most: usize) -> PyResult<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "{name}: {value} is not within {least} to {most}"
    )))
}
