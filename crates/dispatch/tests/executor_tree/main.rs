//! The executor in a process of its own, with the reaper on the main thread: orphans come back to it.
//!
//! Without the usual test harness, which would run this on another thread.

mod bounds;
#[path = "../executor/harness.rs"]
#[expect(dead_code, reason = "shared with the tests that need no main thread")]
mod harness;
mod leftovers;
mod namespace;
mod orphans;
mod staying;
mod stops;

use std::path::Path;
use std::process::exit;
use std::thread;

use harness::Harness;
use orqestra_dispatch::executor::{Executor, Settings, usable_cgroup};

/// A test and its name. Each leaves no command running.
type Case = (&'static str, fn(&mut Harness));

macro_rules! cases {
    ($($module:ident::$case:ident),* $(,)?) => {
        &[$((concat!(stringify!($module), "::", stringify!($case)), $module::$case)),*]
    };
}

const CASES: &[Case] = cases![
    orphans::ten_thousand_double_forks_leave_no_zombie,
    leftovers::a_background_child_is_killed_and_counted,
    leftovers::who_leaves_the_session_is_found,
    leftovers::who_has_forked_twice_is_found,
    leftovers::nohup_does_not_help,
    leftovers::who_has_cleared_his_environment_is_found_if_he_can_be_of_one_command_only,
    leftovers::the_daemons_of_others_are_left_alone,
    leftovers::what_may_stay_stays_and_is_counted,
    staying::what_stays_keeps_its_directory_until_it_ends,
    staying::who_stays_may_leave_somebody_himself,
    leftovers::what_may_stay_is_killed_with_a_command_that_is_cancelled,
    leftovers::a_fork_bomb_has_an_end,
    stops::term_reaches_who_left_the_group,
    stops::who_outlasts_his_grace_outside_the_group_is_killed,
    stops::the_grace_is_over_when_nobody_is_left,
    stops::kill_reaches_all_at_once,
    bounds::commands_are_ended_before_us_when_memory_is_short,
];

/// In a group, nobody is lost sight of.
const WITHOUT_GROUPS: &[Case] = cases![leftovers::a_stray_is_told_and_dies_with_the_last_command];

/// Where the kernel counts the processes of a group.
const COUNTED: &[Case] = cases![bounds::who_is_refused_a_process_has_reached_a_limit];

/// Where it counts their memory.
const MEASURED: &[Case] = cases![
    bounds::who_takes_too_much_memory_ends_with_all_of_his_processes,
    bounds::memory_is_counted_for_all_processes_together,
    bounds::a_kill_by_somebody_else_is_not_for_want_of_memory,
];

/// Where it tells the most they had, from Linux 5.19 on.
const WITH_PEAK: &[Case] = cases![bounds::the_peak_of_all_processes_is_told];

/// In a namespace of their own, in which they say which number the next process gets.
const IN_NAMESPACE: &[Case] = cases![
    namespace::the_number_of_a_command_that_has_ended_may_be_a_strangers,
    namespace::the_number_of_who_stayed_may_be_a_strangers,
    namespace::the_number_of_who_ended_in_his_grace_may_be_a_strangers,
];

fn main() {
    let is_alone = namespace::outside().is_some();
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    run(None, is_alone, &wanted);
    // The same where the system lets us make control groups.
    let groups = usable_cgroup(&format!("test-{}", namespace::unique()));
    println!("with groups: {groups:?}");
    demand(groups.as_ref().map(|(directory, _)| directory.as_path()));
    if let Some((directory, _lock)) = groups {
        run(Some(&directory), is_alone, &wanted);
        assert!(!directory.exists(), "{} is left", directory.display());
    }
    if !is_alone {
        namespace::enter();
    }
    std::fs::remove_dir(leftovers::place()).expect("no directory of a command is left");
}

/// Fails unless the groups have all files that `ORQESTRA_TEST_GROUPS` names, with spaces between: on a machine that is
/// known to have them (`cgroup.kill pids.max memory.max`), no case should be left out unnoticed.
fn demand(groups: Option<&Path>) {
    let demanded = std::env::var("ORQESTRA_TEST_GROUPS").unwrap_or_default();
    for file in demanded.split_whitespace() {
        let is_there = groups.is_some_and(|groups| groups.join(file).exists());
        assert!(is_there, "the groups here have no {file}");
    }
}

/// Those that are run with this group, or without one.
fn cases(cgroup: Option<&Path>, is_alone: bool) -> Vec<Case> {
    let has = |file: &str| cgroup.is_some_and(|group| group.join(file).exists());
    let if_there = |file: &str, cases: &'static [Case]| if has(file) { cases } else { &[] };
    let lonely = if cgroup.is_none() {
        WITHOUT_GROUPS
    } else {
        &[]
    };
    let all = [
        CASES,
        lonely,
        if_there("pids.max", COUNTED),
        if_there("memory.max", MEASURED),
        if_there("memory.peak", WITH_PEAK),
    ];
    let chosen: &[&[Case]] = if is_alone { &[IN_NAMESPACE] } else { &all };
    chosen.concat()
}

fn run(cgroup: Option<&Path>, is_alone: bool, wanted: &[String]) {
    let settings = Settings {
        cgroup: cgroup.map(Path::to_path_buf),
        ..harness::settings()
    };
    let (executor, reaper) = Executor::prepare(settings).expect("threads and descriptors");
    let (wanted, chosen) = (wanted.to_vec(), cases(cgroup, is_alone));
    let cases = thread::spawn(move || {
        // Dropped at the end, also by a failed assertion, and with it the reaper ends.
        let mut harness = Harness::with(executor);
        for (name, case) in chosen {
            if wanted.is_empty() || wanted.iter().any(|word| name.contains(word)) {
                println!("test {name}");
                case(&mut harness);
                harness.live.clear();
                orphans::all_are_gone();
            }
        }
    });
    reaper.run();
    if cases.join().is_err() {
        exit(101);
    }
}
