//! What a command and all its processes may use.

use orqestra_dispatch::executor::{Command, Ending, Limits, Reason};

use crate::harness::{Harness, dies, said, shell};

pub fn commands_are_ended_before_us_when_memory_is_short(harness: &mut Harness) {
    let exit = harness.run(shell("cat /proc/self/oom_score_adj"));
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").expect("a number");
    let own: i32 = own.trim().parse().expect("a number");
    assert_eq!(said(&exit), own.max(500).to_string());
}

/// A function of the shell: one process fills so many megabytes, and keeps them.
const FILL: &str = "fill() { head -c $1M /dev/zero | tail -c $1M | { sleep 600; }; }";
const MEMORY: u64 = 64 << 20;

fn with_memory(script: &str) -> Command {
    Command {
        limits: Limits {
            memory_bytes: Some(MEMORY),
            ..Limits::default()
        },
        ..shell(&format!("{FILL}; {script}"))
    }
}

pub fn who_takes_too_much_memory_ends_with_all_of_his_processes(harness: &mut Harness) {
    // Given: a process that has little itself, and one that takes all there is.
    let exit = harness.run(with_memory("sleep 600 & echo $!; fill 200"));
    // Then
    assert_eq!(exit.reason, Reason::Oom, "{exit:?}");
    assert_eq!(exit.ending, Some(Ending::Signal(libc::SIGKILL)), "{exit:?}");
    assert!(dies(&said(&exit)), "{exit:?}");
}

pub fn memory_is_counted_for_all_processes_together(harness: &mut Harness) {
    // Given: each by itself has less than the limit.
    let exit = harness.run(with_memory("fill 40 & fill 40 & wait"));
    assert_eq!(exit.reason, Reason::Oom, "{exit:?}");
    // The group that has been killed is nobody else's.
    let exit = harness.run(with_memory("exit 0"));
    assert_eq!(exit.reason, Reason::Exited, "{exit:?}");
}

pub fn a_kill_by_somebody_else_is_not_for_want_of_memory(harness: &mut Harness) {
    let exit = harness.run(with_memory("kill -9 $$"));
    assert_eq!(exit.reason, Reason::Signalled, "{exit:?}");
}

pub fn the_peak_of_all_processes_is_told(harness: &mut Harness) {
    let exit = harness.run(with_memory("head -c 40M /dev/zero | tail -c 40M | wc -c"));
    assert_eq!(said(&exit), (40 << 20).to_string());
    let peak = exit.usage.max_tree_kb;
    assert!(
        (40 << 10..=MEMORY / 1024).contains(&peak),
        "{peak} kB: {exit:?}"
    );
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
