//! How fast this machine starts commands when nothing else is asked of it: the limit that what runs
//! jobs is measured against.

use std::ffi::OsString;
use std::io;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Starts `argv` and waits for its end, again and again on `threads` bare threads; returns how many
/// ended a second.
///
/// Nothing is captured, supervised or timed out. The standard library then uses `posix_spawn`, the
/// fastest way there is. How a command ends does not matter.
///
/// # Errors
///
/// The first command that could not be started; `InvalidInput` if there is none to start.
///
/// # Panics
///
/// Never: the threads do not.
pub fn spawn_limit(argv: &[OsString], threads: usize, duration: Duration) -> io::Result<f64> {
    let began = Instant::now();
    let counts: Vec<io::Result<u64>> = thread::scope(|scope| {
        let spawners: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| spawn_until(argv, began + duration)))
            .collect();
        spawners
            .into_iter()
            .map(|each| each.join().expect("a spawner does not panic"))
            .collect()
    });
    let elapsed = began.elapsed();
    let count = counts.into_iter().sum::<io::Result<u64>>()?;
    Ok(count as f64 / elapsed.as_secs_f64())
}

/// Returns how many commands ended before `deadline`, the last of them shortly after it.
fn spawn_until(argv: &[OsString], deadline: Instant) -> io::Result<u64> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "argv is empty"))?;
    let mut count = 0;
    while Instant::now() < deadline {
        Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(argv: &[&str]) -> Vec<OsString> {
        argv.iter().map(OsString::from).collect()
    }

    #[test]
    fn commands_are_counted_however_they_end() {
        let rate = spawn_limit(
            &words(&["sh", "-c", "exit 3"]),
            2,
            Duration::from_millis(50),
        );

        assert!(rate.unwrap() > 0.0);
    }

    #[test]
    fn a_command_that_is_not_there_is_an_error() {
        let rate = spawn_limit(&words(&["/does/not/exist"]), 2, Duration::from_millis(50));

        assert_eq!(rate.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn no_command_is_an_error() {
        let rate = spawn_limit(&[], 1, Duration::from_millis(50));

        assert_eq!(rate.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
