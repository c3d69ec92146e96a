//! What commands write.

use std::time::Duration;

use orqestra_dispatch::executor::{Command, Ending, Stream};

use crate::harness::{BOUNDS, Harness, command, shell};

#[test]
fn streams_are_apart_and_byte_exact() {
    let exit = Harness::new().run(shell(r"printf 'a\0\377b'; printf 'c\0\376' >&2"));
    assert_eq!(exit.stdout.bytes, b"a\0\xffb");
    assert_eq!(exit.stderr.bytes, b"c\0\xfe");
}

#[test]
fn beyond_the_bounds_head_tail_and_total_are_exact() {
    let exit = Harness::new().run(shell("seq 1 400000"));
    let all: Vec<u8> = (1..=400_000)
        .flat_map(|line| format!("{line}\n").into_bytes())
        .collect();
    let kept = [
        &all[..BOUNDS.head_bytes],
        &all[all.len() - BOUNDS.tail_bytes..],
    ]
    .concat();
    assert_eq!(exit.stdout.total, all.len() as u64);
    assert!(exit.stdout.is_truncated() && !exit.stderr.is_truncated());
    assert!(exit.stdout.bytes == kept);
}

#[test]
fn two_hundred_megabytes_leave_no_trace_in_memory() {
    let mut harness = Harness::new();
    let before = resident_kb();
    let script = "(head -c 100M /dev/zero >&2) & head -c 100M /dev/zero; wait";
    let exit = harness.run(shell(script));
    assert_eq!(
        (exit.stdout.total, exit.stderr.total),
        (100 << 20, 100 << 20)
    );
    // Other tests of this process run meanwhile.
    assert!(
        resident_kb() < before + 40_000,
        "{before} kB before, {} kB after",
        resident_kb()
    );
}

#[test]
fn a_closed_stream_is_an_end_and_not_an_error() {
    let exit = Harness::new().run(shell("exec >&-; echo still >&2; echo lost; exit 4"));
    assert_eq!(exit.ending, Some(Ending::Code(4)));
    assert!(exit.stdout.bytes.is_empty() && exit.stderr.bytes.starts_with(b"still\n"));
}

#[test]
fn a_broken_pipe_ends_a_command_as_in_a_shell() {
    let exit = Harness::new().run(command(&[
        "bash",
        "-c",
        "yes | head -1; echo ${PIPESTATUS[*]}",
    ]));
    assert_eq!(exit.stdout.bytes, b"y\n141 0\n");
}

#[test]
fn who_is_followed_is_heard_before_the_end() {
    let mut harness = Harness::new();
    harness.start(shell(
        "echo one; echo two >&2; while ! read line; do sleep 0.02; done",
    ));
    harness.executor.follow(1, 0, 0);
    harness.until(|harness| harness.live.len() >= 2);
    let mut heard: Vec<_> = harness.live.drain(..).collect();
    heard.sort_by_key(|live| live.stream as u8);
    assert!(harness.exits.is_empty());
    assert_eq!(
        (heard[0].stream, heard[0].offset, &heard[0].data[..]),
        (Stream::Stdout, 0, &b"one\n"[..])
    );
    assert_eq!(
        (heard[1].stream, heard[1].offset, &heard[1].data[..]),
        (Stream::Stderr, 0, &b"two\n"[..])
    );
    harness.executor.kill(vec![1]);
    harness.exit();
}

#[test]
fn a_late_follower_gets_what_is_kept_from_his_offset_on() {
    let mut harness = Harness::new();
    harness.start(shell("printf 0123456789; exec sleep 60"));
    harness.see(1, b"0123456789");
    harness.executor.unfollow(1);
    harness.live.clear();
    harness.executor.follow(1, 6, 0);
    harness.until(|harness| !harness.live.is_empty());
    assert_eq!(
        (harness.live[0].offset, &harness.live[0].data[..]),
        (6, &b"6789"[..])
    );
    harness.executor.kill(vec![1]);
    harness.exit();
}

#[test]
fn a_follower_who_does_not_listen_costs_bounded_memory() {
    let mut harness = Harness::new();
    let written = std::env::temp_dir().join(format!("orqestra-written-{}", std::process::id()));
    let script = format!(
        "head -c 50M /dev/zero; touch '{}'; exec sleep 60",
        written.display()
    );
    harness.start(Command {
        grace: Duration::ZERO,
        ..shell(&script)
    });
    harness.executor.follow(1, 0, 0);
    // Not a single report is taken until the command has written everything.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !written.exists() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::remove_file(&written).expect("the marker of this test");
    let reports = harness.executor.reports(true);
    let held: usize = reports.live.iter().map(|live| live.data.len()).sum();
    assert!(
        held <= 3 * (BOUNDS.head_bytes + BOUNDS.tail_bytes),
        "{held} bytes were held"
    );
    harness.executor.cancel(vec![1]);
    assert_eq!(harness.exit().stdout.total, 50 << 20);
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("resident memory");
    line.split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .expect("a number")
}
