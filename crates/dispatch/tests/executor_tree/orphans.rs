//! Processes that outlive their parents.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orqestra_dispatch::executor::Command;

use crate::harness::{Harness, shell};

pub fn ten_thousand_double_forks_leave_no_zombie(harness: &mut Harness) {
    // Given: commands each of which has a hundred grandchildren, whose parents end before them.
    let script =
        "for n in 0 1 2 3 4 5 6 7 8 9; do (for m in 0 1 2 3 4 5 6 7 8 9; do : & done); done";
    for portion in 0..10 {
        let commands: Vec<_> = (0..10)
            .map(|number| {
                Arc::new(Command {
                    key: portion * 10 + number,
                    ..shell(script)
                })
            })
            .collect();
        // When
        harness.executor.start(&commands).expect("free keys");
        harness.until(|harness| harness.exits.len() == 10);
        harness.exits.clear();
    }
    // Then
    all_are_gone();
}

/// Waits until this process has no children, not even zombies: within a second or two.
pub fn all_are_gone() {
    let deadline = Instant::now() + Duration::from_secs(5);
    while children() != 0 {
        assert!(Instant::now() < deadline, "{} children left", children());
        std::thread::yield_now();
    }
}

/// How many children, zombies included, this process has.
fn children() -> usize {
    let own = format!(" {} ", std::process::id());
    let stats = std::fs::read_dir("/proc").expect("a list").flatten();
    stats
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| {
            let parent = stat.rsplit_once(") ").map(|(_, rest)| &rest[1..]);
            parent.is_some_and(|rest| rest.starts_with(&own))
        })
        .count()
}
