//! The executor in a process of its own, with the reaper on the main thread: orphans come back to it.
//!
//! Without the usual test harness, which would run this on another thread.

#[path = "../executor/harness.rs"]
#[allow(dead_code, reason = "shared with the tests that need no main thread")]
mod harness;
mod orphans;

use std::process::exit;
use std::thread;

use harness::Harness;
use orqestra_dispatch::executor::Executor;

/// A test and its name. Each leaves no command running.
type Case = (&'static str, fn(&mut Harness));

const CASES: &[Case] = &[(
    "a_thousand_double_forks_leave_no_zombie",
    orphans::a_thousand_double_forks_leave_no_zombie,
)];

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let (executor, reaper) =
        Executor::prepare(harness::settings()).expect("threads and descriptors");
    let cases = thread::spawn(move || {
        // Dropped at the end, also by a failed assertion, and with it the reaper ends.
        let mut harness = Harness::with(executor);
        for (name, case) in CASES {
            if wanted.is_empty() || wanted.iter().any(|word| name.contains(word)) {
                case(&mut harness);
                println!("test {name} ... ok");
            }
        }
    });
    reaper.run();
    if cases.join().is_err() {
        exit(101);
    }
}
