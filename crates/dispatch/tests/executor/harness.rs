//! An executor, and the reports it has given.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orqestra_dispatch::executor::{Bounds, Command, Executor, Exit, Live, Settings};

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const DRAIN: Duration = Duration::from_millis(300);
pub const BOUNDS: Bounds = Bounds {
    head_bytes: 256 * 1024,
    tail_bytes: 768 * 1024,
};

/// Runs commands and keeps what was reported.
pub struct Harness {
    pub executor: Executor,
    pub exits: Vec<Exit>,
    pub live: Vec<Live>,
    pub stuck: Vec<u64>,
    pub strays: Vec<i32>,
}

impl Harness {
    pub fn new() -> Self {
        Self::with(Executor::new(settings()).expect("threads and descriptors"))
    }

    pub fn with(executor: Executor) -> Self {
        Self {
            executor,
            exits: Vec::new(),
            live: Vec::new(),
            stuck: Vec::new(),
            strays: Vec::new(),
        }
    }

    pub fn start(&self, command: Command) {
        self.executor
            .start(&[Arc::new(command)])
            .expect("a free key");
    }

    /// Runs one command to its end.
    pub fn run(&mut self, command: Command) -> Exit {
        self.start(command);
        self.exit()
    }

    /// The next end.
    pub fn exit(&mut self) -> Exit {
        self.until(|harness| !harness.exits.is_empty());
        self.exits.remove(0)
    }

    /// Takes reports until `done`.
    pub fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "no report in time");
            readable(
                self.executor.fileno(),
                deadline.saturating_duration_since(Instant::now()),
            );
            let reports = self.executor.reports(true);
            self.live.extend(reports.live);
            self.exits.extend(reports.exits);
            self.stuck.extend(reports.stuck);
            self.strays.extend(reports.strays);
        }
    }

    /// Follows a command and waits until its standard output begins with `expected`.
    pub fn see(&mut self, key: u64, expected: &[u8]) {
        self.executor.follow(key, 0, 0);
        self.until(|harness| {
            let seen: Vec<u8> = harness
                .live
                .iter()
                .filter(|live| live.key == key)
                .flat_map(|live| live.data.clone())
                .collect();
            seen.starts_with(expected)
        });
    }
}

pub fn settings() -> Settings {
    Settings {
        spawners: 2,
        bounds: BOUNDS,
        drain: DRAIN,
        cgroup: None,
    }
}

/// A command with a plain PATH and no limits.
pub fn command(argv: &[&str]) -> Command {
    Command {
        key: 1,
        argv: argv.iter().map(|word| word.as_bytes().to_vec()).collect(),
        env: vec![(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())],
        grace: Duration::from_secs(10),
        ..Command::default()
    }
}

/// The same, for the shell.
pub fn shell(script: &str) -> Command {
    command(&["sh", "-c", script])
}

/// Whether a process is gone, or only a zombie; waits for that a while.
pub fn dies(pid: &str) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if !lives(pid) {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// Whether a process is there and no zombie.
pub fn lives(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// What a command wrote, without the last line end.
pub fn said(exit: &Exit) -> String {
    String::from_utf8_lossy(&exit.stdout.bytes)
        .trim()
        .to_owned()
}

fn readable(descriptor: RawFd, patience: Duration) {
    let mut event = libc::pollfd {
        fd: descriptor,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry, which outlives the call.
    unsafe { libc::poll(&raw mut event, 1, patience.as_millis() as libc::c_int) };
}
