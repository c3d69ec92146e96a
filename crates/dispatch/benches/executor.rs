//! Commands a second that do nothing, without and with a control group for each: in turns, because
//! machines get slower and faster meanwhile. The reaper runs on the main thread, as in its own process.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use orqestra_dispatch::executor::{Bounds, Command, Executor, Settings, usable_cgroup};

const COMMANDS: u64 = 4000;
const AT_ONCE: usize = 64;
const ROUNDS: usize = 7;

fn main() {
    // The test runner asks with this whether it is a test; it is none.
    if std::env::args().any(|word| word == "--list" || word == "--test") {
        return;
    }
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        rates[0].push(rate(None));
        let (groups, _lock) = usable_cgroup("bench").expect("control groups can be made here");
        rates[1].push(rate(Some(groups)));
    }
    for (name, rates) in ["without groups", "with groups"].iter().zip(&mut rates) {
        rates.sort_unstable();
        println!("{name}: {} a second ({rates:?})", rates[ROUNDS / 2]);
    }
}

/// Commands a second.
fn rate(cgroup: Option<PathBuf>) -> u64 {
    let bounds = Bounds {
        head_bytes: 1024,
        tail_bytes: 1024,
    };
    let settings = Settings {
        spawners: 2,
        bounds,
        drain: Duration::from_secs(2),
        cgroup,
    };
    let (executor, reaper) = Executor::prepare(settings).expect("threads and descriptors");
    let work = thread::spawn(move || {
        let start = Instant::now();
        let (mut next, mut ended) = (0, 0);
        while ended < COMMANDS {
            let free = AT_ONCE - executor.running();
            let batch = (next..COMMANDS).take(free).map(command);
            let batch: Vec<_> = batch.collect();
            next += batch.len() as u64;
            executor.start(&batch).expect("free keys");
            readable(executor.fileno());
            ended += executor.reports(true).exits.len() as u64;
        }
        COMMANDS * 1000 / start.elapsed().as_millis() as u64
    });
    reaper.run();
    work.join().expect("no panic")
}

fn command(key: u64) -> Arc<Command> {
    Arc::new(Command {
        key,
        argv: vec![b"/bin/true".to_vec()],
        ..Command::default()
    })
}

fn readable(descriptor: i32) {
    let mut event = libc::pollfd {
        fd: descriptor,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry, which outlives the call.
    unsafe { libc::poll(&raw mut event, 1, 1000) };
}
