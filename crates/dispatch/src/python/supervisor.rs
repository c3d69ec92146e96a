//! `supervise`, and the daemon's end of it: `Supervisor`, what it is given (`Command`) and what it
//! tells (`Exit`, `Live`, `Gone`).
//!
//! No thread of either ever touches the interpreter, but for the one hook that tests use.

use std::collections::HashMap;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::executor::{self, Bounds, Ending, KEY_END, Limits, Settings, User, Window};
use crate::supervisor::client::Client;
use crate::supervisor::message::{Attach, Held, PROTOCOL, ToDaemon, ToSupervisor};
use crate::supervisor::record::{self, Ended};
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

/// What is to be run.
#[pyclass(frozen, module = "orqestra._dispatch")]
pub struct Command(Arc<executor::Command>, Vec<u8>);

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
                } => {
                    let data = PyBytes::new(py, &data).unbind();
                    list.append(Live {
                        key,
                        stream,
                        offset,
                        data,
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
    fn of(py: Python<'_>, key: u64, ended: Ended) -> Self {
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

/// A command has ended, and how is not known any more.
#[pyclass(frozen, get_all, module = "orqestra._dispatch")]
pub struct Gone {
    key: u64,
}

/// The kernel does not end these commands.
#[pyclass(frozen, get_all, module = "orqestra._dispatch")]
pub struct Stuck {
    keys: Vec<u64>,
}

/// Processes that belong to none that can be told.
#[pyclass(frozen, get_all, module = "orqestra._dispatch")]
pub struct Strays {
    pids: Vec<u32>,
}

/// Takes over a connected socket.
#[expect(unsafe_code, reason = "descriptors come from Python as numbers")]
fn socket(descriptor: RawFd) -> UnixStream {
    // SAFETY: whoever passes the number has given the descriptor up (`socket.detach`).
    unsafe { UnixStream::from_raw_fd(descriptor) }
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
