//! What a command and all its processes may use.

use orqestra_dispatch::executor::{Command, Limits, Reason};

use crate::harness::{Harness, said, shell};

pub fn commands_are_ended_before_us_when_memory_is_short(harness: &mut Harness) {
    let exit = harness.run(shell("cat /proc/self/oom_score_adj"));
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").expect("a number");
    let own: i32 = own.trim().parse().expect("a number");
    assert_eq!(said(&exit), own.max(500).to_string());
}

pub fn who_is_refused_a_process_has_reached_a_limit(harness: &mut Harness) {
    let limited = |script: &str| Command {
        limits: Limits {
            processes: Some(8),
            ..Limits::default()
        },
        ..shell(script)
    };
    // Given: one that fails because of it, one that goes on, and one that fails by itself.
    let many = "for n in 0 1 2 3 4 5 6 7 8 9; do sleep 600 & done";
    for (script, expected) in [
        (format!("{many}; exit 3"), Reason::ResourceLimit),
        (format!("({many}) 2>/dev/null; exit 0"), Reason::Exited),
        ("exit 3".into(), Reason::Exited),
    ] {
        // When, then
        let exit = harness.run(limited(&script));
        assert_eq!(exit.reason, expected, "{exit:?}");
        assert!(exit.killed_processes <= 8, "{exit:?}");
    }
}
