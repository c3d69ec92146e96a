//! The hub: the one thread that knows daemon, executor and spool, and carries what each has to say to
//! the others.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::door::Door;
use super::holdings::{Holdings, Next};
use super::line::Line;
use super::message::{Attach, Attached, PROTOCOL, ToDaemon, ToSupervisor};
use super::record;
use super::{Begun, Reached};
use crate::executor::{Command, Executor, Exit, Reports};
use crate::spool::{Reading, Spool};
use crate::sys::poll::Poll;

const LISTENER: u64 = 0;
const LINE: u64 = 1;
const EXECUTOR: u64 = 2;
const SPOOL: u64 = 3;
const NEWCOMER: u64 = 4;

/// So much may wait to be read by the daemon; then ends wait here, and live output is dropped.
const LINE_BYTES_MAX: usize = 4 << 20;
/// From one look at the time to the next, while there is something to look for.
const TICK: Duration = Duration::from_millis(250);
/// Ends that come faster than this are taken together, so that they share a sync, a message to the
/// server, a commit. The first after a pause is taken at once.
const GATHER: Duration = Duration::from_millis(10);
/// How long a supervisor without daemon and without commands waits for the next daemon.
const IDLE: Duration = Duration::from_secs(5);
/// Between TERM and KILL for commands that nobody came for, whatever their own grace.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);

/// What the thread owns.
pub struct Hub {
    executor: Executor,
    spool: Spool,
    disk: Disk,
    holdings: Holdings,
    reached: Reached,
    introduction: Attached,
    poll: Poll,
    door: Door,
    line: Option<Line>,
    /// Whether the daemon at the other end has introduced itself.
    attached: bool,
    /// Whether the poll tells when the line can be written.
    awaits_room: bool,
    orphan_timeout: Duration,
    alone_since: Option<Instant>,
    orphans: Orphans,
    stopping: bool,
    /// While ends come fast: when the next are taken.
    gathering_until: Option<Instant>,
    last_ends: Option<Instant>,
    unread: Vec<u64>,
    told_health: String,
}

/// How far the end of commands that nobody came for has gone.
#[derive(PartialEq, Eq)]
enum Orphans {
    Tolerated,
    Terminated,
    Killed,
}

impl Hub {
    /// Ready to `run`; `line` is the daemon that started this process.
    pub fn new(begun: Begun, executor: Executor) -> io::Result<Self> {
        let Begun {
            spool,
            recovered,
            introduction,
            listener,
            line,
            reached,
            orphan_timeout,
        } = begun;
        let mut holdings = Holdings::default();
        let mut introduction = introduction;
        for (key, payload) in recovered {
            if let Ok(tag) = record::tag_of(&payload) {
                holdings.recover(key, tag);
            } else {
                introduction.damaged += 1;
                spool.set_aside(key);
            }
        }
        let poll = Poll::new()?;
        let door = Door::new(listener, &poll, LISTENER, NEWCOMER)?;
        poll.add(executor.fileno(), EXECUTOR)?;
        poll.add(spool.fileno(), SPOOL)?;
        let mut hub = Self {
            executor,
            spool,
            disk: Disk::default(),
            holdings,
            reached,
            introduction,
            poll,
            door,
            line: None,
            attached: false,
            awaits_room: false,
            orphan_timeout,
            alone_since: Some(Instant::now()),
            orphans: Orphans::Tolerated,
            stopping: false,
            gathering_until: None,
            last_ends: None,
            unread: Vec::new(),
            told_health: String::new(),
        };
        if let Some(line) = line {
            hub.connected(line)?;
        }
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
            self.flush();
        }
        self.executor.stop(true);
        self.spool.close();
    }

    fn patience(&self) -> Option<Duration> {
        let waits = self.line.is_none()
            || self.stopping
            || self.holdings.undurable() > 0
            || !self.unread.is_empty();
        let gathering = self
            .gathering_until
            .map(|until| until.saturating_duration_since(Instant::now()));
        gathering.or(waits.then_some(TICK))
    }

    fn is_over(&self) -> bool {
        if self.holdings.running() > 0 {
            return false;
        }
        let settled = self.holdings.undurable() == 0;
        match self.alone_since {
            Some(_) if self.stopping => settled || self.disk.is_ill(),
            // What a sick disk does not take is only here: somebody may still come for it.
            Some(since) if !settled => since.elapsed() >= self.orphan_timeout + ORPHAN_GRACE,
            Some(since) => since.elapsed() >= IDLE.min(self.orphan_timeout),
            None => false,
        }
    }

    /// Whoever introduces itself is the daemon now: it holds the worker's lock.
    fn greet(&mut self) {
        if let Some((line, attach)) = self.door.introduced(&self.poll) {
            self.hung_up();
            // Without a place in the poll nobody would hear it; it comes again.
            if self.connected(line).is_ok() {
                self.attach(&attach);
                self.read_line();
            }
        }
    }

    fn connected(&mut self, line: Line) -> io::Result<()> {
        self.poll.add(line.raw(), LINE)?;
        self.line = Some(line);
        self.alone_since = None;
        Ok(())
    }

    fn hung_up(&mut self) {
        if let Some(line) = self.line.take() {
            self.poll.remove(line.raw());
            self.attached = false;
            self.awaits_room = false;
            self.alone_since = Some(Instant::now());
        }
    }

    fn read_line(&mut self) {
        let Some(line) = &mut self.line else { return };
        let alive = line.fill();
        let mut messages = Vec::new();
        let understood = loop {
            match line.next() {
                Ok(None) => break true,
                Ok(Some(body)) => match ToSupervisor::decode(body) {
                    Ok(message) => messages.push(message),
                    Err(_) => break false,
                },
                Err(_) => break false,
            }
        };
        let mut commands = Vec::new();
        for message in messages {
            self.obey(message, &mut commands);
        }
        self.start(commands);
        if !alive || !understood {
            self.hung_up();
        }
    }

    fn obey(&mut self, message: ToSupervisor, commands: &mut Vec<Arc<Command>>) {
        match message {
            ToSupervisor::Attach(attach) => self.attach(&attach),
            _ if !self.attached => {}
            ToSupervisor::Start { command, tag } => {
                if self.holdings.start(command.key, tag) {
                    commands.push(command);
                }
            }
            other => {
                // What was asked for before must have been begun when something is said of it.
                self.start(std::mem::take(commands));
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
                self.disk.delete(spooled);
            }
            ToSupervisor::SetAside(keys) => {
                let spooled = self.holdings.forget(&keys);
                self.disk.set_aside(spooled);
            }
            ToSupervisor::Stop => {
                self.stopping = true;
                // A disk that is slow must not be why the server never learns of what is known here.
                self.holdings.offer_undurable();
            }
            ToSupervisor::Attach(_) | ToSupervisor::Start { .. } => {}
        }
    }

    fn start(&mut self, commands: Vec<Arc<Command>>) {
        if !commands.is_empty() && self.executor.start(&commands).is_err() {
            // Only if it is stopped, which this thread does last of all.
            for command in commands {
                let exit = Exit::refused(command.key);
                self.ended(exit, &mut Vec::new());
            }
        }
    }

    fn attach(&mut self, attach: &Attach) {
        self.introduction.held = self.holdings.attach();
        self.put(&ToDaemon::Attached(self.introduction.clone()));
        self.introduction.held = Vec::new();
        // It reads our protocol in the answer, and leaves.
        self.attached = attach.protocol == PROTOCOL;
        self.orphan_timeout = attach.orphan_timeout;
        self.told_health.clear();
        if self.disk.is_ill() {
            self.holdings.offer_undurable();
        }
    }

    /// Takes what the executor tells: at once, or with all that comes in the rest of `GATHER` after
    /// the ends before.
    fn gather(&mut self) {
        let now = Instant::now();
        match self.last_ends.map(|last| last + GATHER) {
            Some(next) if now < next => {
                self.poll.remove(self.executor.fileno());
                self.gathering_until = Some(next);
            }
            _ => self.read_executor(),
        }
    }

    fn gathered(&mut self) {
        if self
            .gathering_until
            .is_some_and(|until| Instant::now() >= until)
        {
            self.gathering_until = None;
            self.read_executor();
            // It was there before: nothing can be missing for it.
            let _ = self.poll.add(self.executor.fileno(), EXECUTOR);
        }
    }

    fn read_executor(&mut self) {
        let Reports {
            live,
            exits,
            stuck,
            strays,
        } = self.executor.reports();
        if !stuck.is_empty() {
            self.put(&ToDaemon::Stuck(stuck));
        }
        if !strays.is_empty() {
            let strays = strays.into_iter().map(|pid| pid as u32);
            self.put(&ToDaemon::Strays(strays.collect()));
        }
        for piece in live {
            let room = self
                .line
                .as_ref()
                .is_some_and(|line| line.backlog() < LINE_BYTES_MAX);
            if room && self.attached {
                self.put(&ToDaemon::live(
                    piece.key,
                    piece.stream,
                    piece.offset,
                    piece.data,
                ));
            }
        }
        let mut records = Vec::new();
        for exit in exits {
            self.ended(exit, &mut records);
        }
        if !records.is_empty() {
            (self.reached)("worker.exited_before_spool_fsync");
            self.last_ends = Some(Instant::now());
            self.disk.appended(records.iter().map(|(key, _)| *key));
            self.spool.append(records);
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
        if ran && self.disk.is_ill() {
            self.holdings.offer_undurable();
        }
    }

    fn read_spool(&mut self) {
        let told = self.spool.take();
        if !told.synced.is_empty() {
            (self.reached)("spool.after_fsync_before_send");
        }
        for key in &told.synced {
            self.holdings.durable(*key, self.attached);
        }
        self.disk.told(&told.synced, told.trouble);
        for (key, reading) in told.read {
            self.was_read(key, reading);
        }
    }

    fn was_read(&mut self, key: u64, reading: Reading) {
        if !self.attached || !self.holdings.is_ended(key) {
            return;
        }
        match reading {
            Reading::Found(record) => self.put(&ToDaemon::Exit { key, record }),
            Reading::NotNow => self.unread.push(key),
            Reading::Gone => {
                self.holdings.forget(&[key]);
                self.put(&ToDaemon::Gone(key));
            }
        }
    }

    /// What is due by the clock.
    fn tick(&mut self) {
        if self.disk.look() {
            self.holdings.offer_undurable();
        }
        let unneeded = self.disk.take_unneeded();
        if !unneeded.deleted.is_empty() {
            self.spool.delete(&unneeded.deleted);
        }
        for key in unneeded.set_aside {
            self.spool.set_aside(key);
        }
        for key in std::mem::take(&mut self.unread) {
            self.spool.read(key);
        }
        let Some(since) = self.alone_since else {
            // Those that were told to end do; the next are judged anew.
            self.orphans = Orphans::Tolerated;
            return;
        };
        if self.orphans == Orphans::Tolerated && since.elapsed() >= self.orphan_timeout {
            self.orphans = Orphans::Terminated;
            self.executor.cancel(self.holdings.running_keys());
        }
        if self.orphans == Orphans::Terminated
            && since.elapsed() >= self.orphan_timeout + ORPHAN_GRACE
        {
            self.orphans = Orphans::Killed;
            self.executor.kill(self.holdings.running_keys());
        }
    }

    /// Tells the daemon what it can take.
    fn tell(&mut self) {
        if !self.attached {
            return;
        }
        if self.disk.health() != self.told_health {
            self.disk.health().clone_into(&mut self.told_health);
            self.put(&ToDaemon::Health(self.told_health.clone()));
        }
        while self
            .line
            .as_ref()
            .is_some_and(|line| line.backlog() < LINE_BYTES_MAX)
        {
            match self.holdings.next() {
                Some(Next::Tell(key, record)) => self.put(&ToDaemon::Exit { key, record }),
                Some(Next::Read(key)) => self.spool.read(key),
                None => break,
            }
        }
    }

    fn put(&mut self, message: &ToDaemon) {
        if let Some(line) = &mut self.line {
            line.put(&message.encode());
        }
    }

    fn flush(&mut self) {
        let Some(line) = &mut self.line else { return };
        if !line.flush() {
            return self.hung_up();
        }
        let awaits_room = line.backlog() > 0;
        if awaits_room != self.awaits_room {
            self.poll.await_room(line.raw(), LINE, awaits_room);
            self.awaits_room = awaits_room;
        }
    }
}
