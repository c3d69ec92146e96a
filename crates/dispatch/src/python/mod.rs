//! `orqestra._dispatch`: shells around the pure modules. They turn columns and bytes into slices and
//! back, and hold no logic. `python/orqestra/_dispatch.pyi` is their documentation.

#![expect(
    clippy::needless_pass_by_value,
    reason = "PyO3 makes a new value of each argument and hands it over"
)]

mod backoff;
mod bench;
#[cfg(target_os = "linux")]
mod command;
mod matcher;
mod outbox;
#[cfg(target_os = "linux")]
mod reports;
#[cfg(target_os = "linux")]
mod supervisor;
mod wire;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::InvalidInput;

/// From this many rows on, work takes more than about 10 us, and other threads may run meanwhile.
/// Below, giving up the GIL and getting it back costs more than it gives.
const DETACH_ROWS: usize = 200;

#[pymodule]
mod _dispatch {
    #[pymodule_export]
    use super::backoff::Backoff;
    #[pymodule_export]
    use super::bench::spawn_limit;
    #[cfg(target_os = "linux")]
    #[pymodule_export]
    use super::command::Command;
    #[pymodule_export]
    use super::matcher::{Assignment, Demand, Matcher};
    #[pymodule_export]
    use super::outbox::{Outbox, Push};
    #[cfg(target_os = "linux")]
    #[pymodule_export]
    use super::reports::{Exit, Gone, Live, Strays, Stuck};
    #[cfg(target_os = "linux")]
    #[pymodule_export]
    use super::supervisor::{Supervisor, supervise};
    #[pymodule_export]
    use super::wire::{Assigned, Attempts, Claimed, Jobs, Owed, Results, Successes, Wire};
}

impl From<InvalidInput> for PyErr {
    fn from(refused: InvalidInput) -> Self {
        PyValueError::new_err(refused.to_string())
    }
}

/// Do work that needs no interpreter, beside other Python threads if it is long.
fn beside<T: Send>(py: Python<'_>, rows: usize, work: impl FnOnce() -> T + Send) -> T {
    if rows < DETACH_ROWS {
        work()
    } else {
        py.detach(work)
    }
}
