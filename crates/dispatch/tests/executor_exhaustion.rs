//! The executor without descriptors to spare. Alone in its process: the limit holds for all of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orqestra_dispatch::executor::{Bounds, Command, Ending, Executor, Reason, Settings};

#[test]
fn commands_without_descriptors_are_reported_and_the_rest_goes_on() {
    // Given: room for a handful of commands.
    let bounds = Bounds {
        head_bytes: 1024,
        tail_bytes: 1024,
    };
    let settings = Settings {
        spawners: 2,
        bounds,
        drain: Duration::from_millis(100),
        cgroup: None,
    };
    let executor = Executor::new(settings).expect("threads and descriptors");
    limit_descriptors(32);

    // When: many more are started.
    let command = |key, word: &str| {
        let argv = [b"sleep".to_vec(), word.into()].to_vec();
        let env = vec![(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())];
        let grace = Duration::from_secs(1);
        Arc::new(Command {
            key,
            argv,
            env,
            grace,
            ..Command::default()
        })
    };
    let commands: Vec<_> = (0..40).map(|key| command(key, "60")).collect();
    executor.start(&commands).expect("free keys");
    let refused = take(&executor, 30);

    // Then: those that found none say so, and the others run.
    for exit in &refused {
        assert_eq!(exit.reason, Reason::SpawnFailed);
        let failure = exit.failure.as_ref().expect("a failure");
        assert_eq!(failure.errno, libc::EMFILE, "{}", failure.error);
        assert!(matches!(failure.stage, "pipe" | "fork"));
    }
    executor.kill((0..40).collect());
    let killed = take(&executor, 40 - refused.len());
    assert!(
        killed
            .iter()
            .any(|exit| exit.ending == Some(Ending::Signal(9)))
    );

    // And nothing was leaked: a command finds descriptors again.
    executor.start(&[command(99, "0")]).expect("a free key");
    assert_eq!(take(&executor, 1)[0].ending, Some(Ending::Code(0)));
}

/// The next `count` ends or more.
fn take(executor: &Executor, count: usize) -> Vec<orqestra_dispatch::executor::Exit> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut exits = Vec::new();
    while exits.len() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} reports in time",
            exits.len()
        );
        exits.extend(executor.reports(true).exits);
        std::thread::yield_now();
    }
    exits
}

fn limit_descriptors(count: libc::rlim_t) {
    let limit = libc::rlimit {
        rlim_cur: count,
        rlim_max: count,
    };
    // SAFETY: the limit outlives the call.
    assert_eq!(
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) },
        0
    );
}
