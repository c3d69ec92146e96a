//! The sessions that look alike from the outside: same queues, same labels.

use std::collections::VecDeque;

use super::bits::Bits;
use super::fairness::{Rotation, fair_shares};
use super::lanes::{Lane, Lanes, Place};

/// What makes sessions alike. Both lists are sorted and name each value once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kind {
    /// The queues that these sessions serve.
    pub queues: Vec<String>,
    /// The labels (`key=value`) that they have.
    pub labels: Vec<String>,
}

/// All sessions of one kind.
#[derive(Debug)]
pub struct Profile {
    /// What its sessions have in common.
    pub kind: Kind,
    /// How many sessions it has.
    pub sessions: usize,
    /// The credits of its sessions together.
    pub credits: usize,
    /// How many jobs its sessions have that have not ended.
    pub outstanding: usize,
    /// How many jobs its sessions finished within the window.
    pub finished_lately: usize,
    /// Its sessions that have credit, the next to be served first. One whose credit went since is
    /// dropped when its turn comes.
    pub line: VecDeque<i64>,
    views: Vec<View>,
    turn: Rotation,
}

/// What a profile sees of one queue.
#[derive(Debug)]
struct View {
    queue: usize,
    serves: Bits,
    turn: Rotation,
}

impl Profile {
    /// A profile without sessions, which serves what it may of `lanes`.
    pub fn new(kind: Kind, lanes: &mut Lanes) -> Self {
        let mut views = Vec::with_capacity(kind.queues.len());
        for name in &kind.queues {
            let queue = lanes.queue(name);
            let mut serves = Bits::default();
            for (bit, lane) in lanes.at(queue).lanes.iter().enumerate() {
                if kind.has_labels_of(lane) {
                    serves.insert(bit);
                }
            }
            views.push(View {
                queue,
                serves,
                turn: Rotation::default(),
            });
        }
        Self {
            kind,
            sessions: 0,
            credits: 0,
            outstanding: 0,
            finished_lately: 0,
            line: VecDeque::new(),
            views,
            turn: Rotation::default(),
        }
    }

    /// Serve this new lane too, if it may.
    pub fn meet(&mut self, place: Place, lane: &Lane) {
        let view = self.views.iter_mut().find(|view| view.queue == place.queue);
        if let Some(view) = view {
            if self.kind.has_labels_of(lane) {
                view.serves.insert(place.bit);
            }
        }
    }

    /// Whether it has credit and a lane that may have something.
    pub fn wants(&self, lanes: &Lanes) -> bool {
        self.credits > 0 && self.views.iter().any(|view| view.is_hungry(lanes))
    }

    /// Whether it serves that lane.
    pub fn serves(&self, place: Place) -> bool {
        let mut views = self.views.iter();
        views.any(|view| view.queue == place.queue && view.serves.contains(place.bit))
    }

    /// Whether nothing waits for it: every lane that it serves was found empty and not woken since.
    pub fn is_clear(&self, lanes: &Lanes) -> bool {
        self.views.iter().all(|view| view.is_clear(lanes))
    }

    /// How many of its lanes may have something.
    pub fn suspects(&self, lanes: &Lanes) -> usize {
        self.views.iter().map(|view| view.suspects(lanes)).sum()
    }

    /// Choose at most `limit` lanes to ask: commas between the lanes of a queue, semicolons between
    /// queues. Queues share the limit fairly.
    pub fn ask(&mut self, limit: usize, lanes: &mut Lanes) -> String {
        let views = &mut self.views;
        let chosen = self.turn.pick(limit, |start| {
            let start = start.min(views.len());
            let circle = (start..views.len()).chain(0..start);
            circle.filter(|index| views[*index].is_hungry(lanes))
        });
        let wants: Vec<usize> = chosen
            .iter()
            .map(|index| views[*index].suspects(lanes))
            .collect();
        let mut text = String::new();
        for (index, share) in chosen.into_iter().zip(fair_shares(&wants, limit)) {
            if !text.is_empty() {
                text.push(';');
            }
            views[index].ask(share, lanes, &mut text);
        }
        text
    }
}

impl Kind {
    fn has_labels_of(&self, lane: &Lane) -> bool {
        let mut required = lane.requires.iter();
        required.all(|label| self.labels.binary_search(label).is_ok())
    }
}

impl View {
    fn is_hungry(&self, lanes: &Lanes) -> bool {
        self.serves.meets(&lanes.at(self.queue).suspects)
    }

    fn is_clear(&self, lanes: &Lanes) -> bool {
        let queue = lanes.at(self.queue);
        !self.serves.meets(&queue.filled) && !self.serves.meets(&queue.partial)
    }

    fn suspects(&self, lanes: &Lanes) -> usize {
        self.serves.common_len(&lanes.at(self.queue).suspects)
    }

    fn ask(&mut self, limit: usize, lanes: &mut Lanes, text: &mut String) {
        let suspects = &lanes.at(self.queue).suspects;
        let chosen = self
            .turn
            .pick(limit, |start| self.serves.common_from(suspects, start));
        lanes.ask(self.queue, &chosen, text);
    }
}
