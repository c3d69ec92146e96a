//! How commands end, and what is said of it.

use std::time::Duration;

use orqestra_dispatch::executor::{Command, Ending, Reason};

use crate::harness::{DRAIN, Harness, dies, said, shell};

#[test]
fn exit_codes_and_signals_are_told_apart() {
    let mut harness = Harness::new();
    let code = harness.run(shell("exit 3"));
    assert_eq!(
        (code.reason, code.ending),
        (Reason::Exited, Some(Ending::Code(3)))
    );
    let signal = harness.run(shell("kill -SEGV $$"));
    assert_eq!(
        (signal.reason, signal.ending),
        (Reason::Signalled, Some(Ending::Signal(11)))
    );
}

#[test]
fn times_and_memory_are_measured() {
    let exit = Harness::new().run(shell(
        "x=$(head -c 200M /dev/zero | tail -c 190M | wc -c); sleep 0.1",
    ));
    assert!(exit.wall_us >= 100_000);
    assert!(exit.usage.user_us + exit.usage.system_us > 0);
    assert!(exit.usage.max_rss_kb > 150_000, "{:?}", exit.usage);
    assert!(exit.started_at_us > 1_700_000_000_000_000);
}

#[test]
fn memory_that_only_its_parent_had_is_not_told() {
    let mut harness = Harness::new();
    for _ in 0..100 {
        assert_eq!(harness.run(shell("true")).usage.max_rss_kb, 0);
    }
}

#[test]
fn a_timeout_terminates_the_whole_group() {
    let timeout = Some(Duration::from_millis(200));
    let exit = Harness::new().run(Command {
        timeout,
        ..shell("sleep 60 & echo $!; wait")
    });
    assert_eq!(
        (exit.reason, exit.ending),
        (Reason::Timeout, Some(Ending::Signal(15)))
    );
    assert!(!exit.killed);
    assert!(dies(&said(&exit)));
}

#[test]
fn who_ignores_term_is_killed_after_the_grace() {
    let (timeout, grace) = (Some(Duration::from_millis(100)), Duration::from_millis(200));
    let script = shell("trap '' TERM; while :; do sleep 1; done");
    let exit = Harness::new().run(Command {
        timeout,
        grace,
        ..script
    });
    assert_eq!(
        (exit.reason, exit.ending),
        (Reason::KilledAfterGrace, Some(Ending::Signal(9)))
    );
    assert!(exit.killed);
    assert!(
        (300_000..1_300_000).contains(&exit.wall_us),
        "{}",
        exit.wall_us
    );
}

#[test]
fn a_command_that_obeys_says_how_it_ended() {
    let mut harness = Harness::new();
    harness.start(shell(
        "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.02; done",
    ));
    harness.see(1, b"ready\n");
    harness.executor.cancel(vec![1]);
    let exit = harness.exit();
    assert_eq!(
        (exit.reason, exit.ending),
        (Reason::Cancelled, Some(Ending::Code(7)))
    );
    assert_eq!(
        (exit.killed, &exit.stdout.bytes[..]),
        (false, &b"ready\nbye\n"[..])
    );
}

#[test]
fn the_rest_of_the_group_keeps_its_grace_when_the_leader_obeys_at_once() {
    let mut harness = Harness::new();
    let member =
        "trap 'sleep 0.6; echo cleaned; exit' TERM; echo ready; while :; do sleep 0.02; done";
    // Longer than the drain: it is the grace that counts.
    harness.start(shell(&format!("sh -c \"{member}\"; true")));
    harness.see(1, b"ready\n");
    harness.executor.cancel(vec![1]);
    let exit = harness.exit();
    assert_eq!((exit.reason, exit.killed), (Reason::Cancelled, false));
    assert_eq!(exit.stdout.bytes, b"ready\ncleaned\n");
}

#[test]
fn a_child_that_outlives_its_shell_holds_nothing() {
    let mut harness = Harness::new();
    let start = std::time::Instant::now();
    let exit = harness.run(shell("sleep 600 & echo $!"));
    assert!((DRAIN..DRAIN + Duration::from_secs(2)).contains(&start.elapsed()));
    assert_eq!(
        (exit.reason, exit.ending),
        (Reason::Exited, Some(Ending::Code(0)))
    );
    assert!(
        exit.wall_us < 250_000,
        "the drain is not part of its time: {}",
        exit.wall_us
    );
    assert!(dies(&said(&exit)));
}

#[test]
fn a_child_without_its_pipes_dies_with_the_shell() {
    let exit = Harness::new().run(shell("sleep 600 >/dev/null 2>&1 & echo $!"));
    assert!(dies(&said(&exit)));
}

#[test]
fn what_the_group_writes_within_the_drain_counts() {
    let exit = Harness::new().run(shell("(sleep 0.1; echo late) & echo early"));
    assert_eq!(exit.stdout.bytes, b"early\nlate\n");
}

#[test]
fn who_leaves_the_session_holds_no_slot() {
    let exit = Harness::new().run(shell("setsid sleep 60 & echo $!"));
    assert_eq!(exit.ending, Some(Ending::Code(0)));
    let escaped = said(&exit).parse().expect("a number");
    // SAFETY: takes two integers; the process was made by this test.
    unsafe { libc::kill(escaped, libc::SIGKILL) };
}

#[test]
fn cancel_and_natural_end_race_to_exactly_one_report() {
    let mut harness = Harness::new();
    let count = 300;
    for key in 0..count {
        harness.start(Command {
            key,
            ..shell("exit 0")
        });
        harness
            .executor
            .cancel((0..=key).filter(|other| other % 3 == key % 3).collect());
    }
    harness.until(|harness| harness.exits.len() as u64 == count);
    let mut keys: Vec<u64> = harness.exits.iter().map(|exit| exit.key).collect();
    keys.sort_unstable();
    assert!(keys.into_iter().eq(0..count));
    for exit in &harness.exits {
        match (exit.reason, exit.ending) {
            (Reason::Cancelled, None) => assert_eq!(exit.started_at_us, 0),
            (Reason::Exited, Some(Ending::Code(0)))
            | (Reason::Cancelled, Some(Ending::Signal(15) | Ending::Code(0))) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(harness.executor.running(), 0);
}
