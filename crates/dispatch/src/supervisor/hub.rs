//! The hub: the one thread that knows daemon, executor and spool, and carries what each has to say to
//! the others.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::door::Door;
use super::gathering::Gathering;
use super::holdings::{Holdings, Next};
use super::keep::Keep;
use super::line::Line;
use super::link::Link;
use super::message::{Attach, Attached, PROTOCOL, ToDaemon, ToSupervisor};
use super::record;
use super::vigil::{Due, Vigil};
use super::{Begun, Reached};
use crate::executor::{Command, Executor, Exit, Reports};
use crate::spool::Reading;
use crate::sys::poll::Poll;

const LISTENER: u64 = 0;
const LINE: u64 = 1;
const EXECUTOR: u64 = 2;
const SPOOL: u64 = 3;
const NEWCOMER: u64 = 4;

/// From one look at the time to the next, while there is something to look for.
const TICK: Duration = Duration::from_millis(250);
/// What the thread owns.
pub struct Hub {
    executor: Executor,
    keep: Keep,
    holdings: Holdings,
    reached: Reached,
    introduction: Attached,
    poll: Poll,
    door: Door,
    link: Link,
    vigil: Vigil,
    gathering: Gathering,
    stopping: bool,
    live_stays: bool,
}

impl Hub {
    /// Ready to `run`; `line`: the daemon that started us.
    pub fn new(begun: Begun, executor: Executor) -> io::Result<Self> {
        let Begun {
            spool,
            recovered,
            mut introduction,
            listener,
            line,
            reached,
            orphan_timeout,
        } = begun;
        let (holdings, unreadable) = Holdings::recovered(recovered);
        introduction.damaged += unreadable.len() as u32;
        for key in unreadable {
            spool.set_aside(key);
        }
        let poll = Poll::new()?;
        let door = Door::new(listener, &poll, LISTENER, NEWCOMER)?;
        poll.add(executor.fileno(), EXECUTOR)?;
        let keep = Keep::new(spool);
        poll.add(keep.fileno(), SPOOL)?;
        let mut hub = Self {
            executor,
            keep,
            holdings,
            reached,
            introduction,
            poll,
            door,
            link: Link::new(LINE),
            vigil: Vigil::new(orphan_timeout),
            gathering: Gathering::default(),
            stopping: false,
            live_stays: false,
        };
        line.map_or(Ok(()), |line| hub.connected(line))?;
        Ok(hub)
    }

    /// Works until the daemon says that it is over, or nobody comes any more.
    pub fn run(mut self) {
        let mut ready = Vec::new();
        while !self.is_over() {
            self.poll.wait(self.patience(), &mut ready);
            for number in ready.drain(..) {
                match number {
                    LISTENER => self.door.accept(&self.poll),
                    NEWCOMER => self.greet(),
                    LINE => self.read_line(),
                    EXECUTOR => self.gather(),
                    _ => self.read_spool(),
                }
            }
            self.gathered();
            self.tick();
            self.tell();
            if !self.link.flush(&self.poll) {
                self.hung_up();
            }
            if self.live_stays && self.link.has_room() {
                self.read_executor();
            }
        }
        self.executor.stop(true);
        self.keep.close();
    }

    fn patience(&self) -> Option<Duration> {
        let waits = self.link.is_down()
            || self.stopping
            || self.holdings.undurable() > 0
            || self.keep.is_behind();
        let left = self.gathering.left(Instant::now());
        left.or(waits.then_some(TICK))
    }

    fn is_over(&self) -> bool {
        if self.holdings.running() > 0 {
            return false;
        }
        let settled = self.holdings.undurable() == 0;
        if self.stopping && self.link.is_down() {
            return settled || self.keep.is_ill();
        }
        self.vigil.is_over(settled)
    }

    /// Whoever introduces itself is the daemon now: it holds the worker's lock.
    fn greet(&mut self) {
        if let Some((line, attach)) = self.door.introduced(&self.poll) {
            // Without a place in the poll nobody would hear it; it comes again.
            if self.connected(line).is_ok() {
                self.attach(&attach);
                self.read_line();
            }
        }
    }

    fn connected(&mut self, line: Line) -> io::Result<()> {
        self.vigil.begins();
        self.link.connect(line, &self.poll)?;
        self.vigil.ends();
        Ok(())
    }

    fn hung_up(&mut self) {
        self.link.hang_up(&self.poll);
        self.vigil.begins();
    }

    fn read_line(&mut self) {
        let (messages, goes_on) = self.link.read();
        let mut commands = Vec::new();
        for message in messages {
            self.obey(message, &mut commands);
        }
        self.start(&commands);
        if !goes_on {
            self.hung_up();
        }
    }

    fn obey(&mut self, message: ToSupervisor, commands: &mut Vec<Arc<Command>>) {
        match message {
            ToSupervisor::Attach(attach) => self.attach(&attach),
            _ if !self.link.attached => {}
            ToSupervisor::Start { command, tag } => {
                if self.holdings.start(command.key, tag) {
                    commands.push(command);
                }
            }
            other => {
                // What was asked for before must have been begun when something is said of it.
                self.start(&std::mem::take(commands));
                self.obey_rest(other);
            }
        }
    }

    fn obey_rest(&mut self, message: ToSupervisor) {
        match message {
            ToSupervisor::Window(window) => self.executor.open(window),
            ToSupervisor::Withdraw(keys) => self.executor.withdraw(keys),
            ToSupervisor::Cancel(keys) => self.executor.cancel(keys),
            ToSupervisor::Kill(keys) => self.executor.kill(keys),
            ToSupervisor::Follow(key, [stdout, stderr]) => {
                self.executor.follow(key, stdout, stderr);
            }
            ToSupervisor::Unfollow(key) => self.executor.unfollow(key),
            ToSupervisor::Forget(keys) => {
                let spooled = self.holdings.forget(&keys);
                self.keep.delete(spooled);
            }
            ToSupervisor::SetAside(keys) => {
                let spooled = self.holdings.forget(&keys);
                self.keep.set_aside(spooled);
            }
            ToSupervisor::Stop => {
                self.stopping = true;
                // A disk that is slow must not be why the server never learns of what is known here.
                self.holdings.offer_undurable();
            }
            ToSupervisor::Attach(_) | ToSupervisor::Start { .. } => {}
        }
    }

    fn start(&self, commands: &[Arc<Command>]) {
        if !commands.is_empty() {
            // It refuses keys in use, which the holdings let nobody use, and all once it is stopped.
            let _ = self.executor.start(commands);
        }
    }

    fn attach(&mut self, attach: &Attach) {
        let mut introduction = self.introduction.clone();
        introduction.held = self.holdings.attach();
        self.link.put(&ToDaemon::Attached(introduction));
        // It reads our protocol in the answer, and leaves.
        self.link.attached = attach.protocol == PROTOCOL;
        self.vigil.allow(attach.orphan_timeout);
        // Its predecessor was told; what is not over concerns this one.
        self.link.note(self.holdings.stuck_keys(), Vec::new());
        if self.keep.is_ill() {
            self.holdings.offer_undurable();
        }
    }

    /// Takes what the executor tells: at once, or together with what follows closely.
    fn gather(&mut self) {
        if self.gathering.begin(Instant::now()) {
            self.read_executor();
        } else {
            self.poll.remove(self.executor.fileno());
        }
    }

    fn gathered(&mut self) {
        // Whoever follows output does not wait for it.
        let pays = || self.executor.has_waiting() && !self.executor.has_live();
        if self.gathering.is_over(Instant::now(), pays) {
            self.read_executor();
            // It was there before: nothing can be missing for it.
            let _ = self.poll.add(self.executor.fileno(), EXECUTOR);
        }
    }

    fn read_executor(&mut self) {
        // What the daemon can't take now stays where the newest is kept, and the oldest is dropped.
        let Reports {
            live,
            live_stays,
            exits,
            stuck,
            strays,
        } = self
            .executor
            .reports(self.link.has_room() || !self.link.attached);
        self.live_stays = live_stays;
        self.holdings.note_stuck(&stuck);
        self.link.note(stuck, strays);
        for piece in live {
            self.link.put(&ToDaemon::live(piece));
        }
        let mut records = Vec::new();
        for exit in exits {
            self.ended(exit, &mut records);
        }
        if !records.is_empty() {
            (self.reached)("worker.exited_before_spool_fsync");
            self.gathering.took_ends(Instant::now());
            self.keep.append(records);
        }
    }

    fn ended(&mut self, exit: Exit, records: &mut Vec<(u64, Vec<u8>)>) {
        let (key, ran) = (exit.key, exit.started_at_us > 0);
        let record = record::encode(self.holdings.tag(key), &exit);
        drop(exit);
        if ran {
            records.push((key, record.clone()));
        }
        self.holdings.ended(key, record, ran);
        if ran && self.keep.is_ill() {
            self.holdings.offer_undurable();
        }
    }

    fn read_spool(&mut self) {
        let told = self.keep.take();
        if !told.synced.is_empty() {
            (self.reached)("spool.after_fsync_before_send");
        }
        for key in &told.synced {
            self.holdings.durable(*key, self.link.attached);
        }
        for (key, reading) in told.read {
            self.was_read(key, reading);
        }
    }

    fn was_read(&mut self, key: u64, reading: Reading) {
        if !self.link.attached || !self.holdings.is_ended(key) {
            return;
        }
        match reading {
            Reading::Found(record) => self.link.put(&ToDaemon::Exit { key, record }),
            Reading::NotNow => self.keep.read_later(key),
            Reading::Gone => {
                self.holdings.forget(&[key]);
                self.link.put(&ToDaemon::Gone(key));
            }
        }
    }

    /// What is due by the clock.
    fn tick(&mut self) {
        if self.keep.look() {
            self.holdings.offer_undurable();
        }
        match self.vigil.due() {
            Due::Nothing => {}
            Due::Terminate => self.executor.cancel(self.holdings.running_keys()),
            Due::Kill => self.executor.kill(self.holdings.running_keys()),
        }
    }

    /// Tells the daemon what it can take.
    fn tell(&mut self) {
        if !self.link.attached {
            return;
        }
        self.link.tell_health(self.keep.health());
        while self.link.has_room() {
            match self.holdings.next() {
                Some(Next::Tell(key, record)) => self.link.put(&ToDaemon::Exit { key, record }),
                Some(Next::Read(key)) => self.keep.read(key),
                None => break,
            }
        }
    }
}
