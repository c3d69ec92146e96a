//! Which lanes there are, and which of them may have something.

use std::fmt::Write;

use hashbrown::HashMap;

use super::bits::Bits;
use crate::error::InvalidInput;

/// All lanes, by queue. A lane is a queue plus the labels it requires, and never changes.
#[derive(Debug, Default)]
pub struct Lanes {
    queues: Vec<Queue>,
    queue_of_name: HashMap<String, usize>,
    place_of_lane: HashMap<i32, Place>,
    /// What the take that is under way asks.
    asked: Vec<(i32, Place)>,
}

/// The lanes of one queue. A lane is the bit of its index in `lanes`.
#[derive(Debug, Default)]
pub struct Queue {
    /// The lanes, in the order in which they were made known.
    pub lanes: Vec<Lane>,
    /// The lanes that may have something.
    pub suspects: Bits,
    /// The lanes that were woken after they were last asked.
    woken: Bits,
    /// The lanes that got something after they were last found empty, as far as we were told.
    pub filled: Bits,
    /// The lanes of which Postgres held more than Redis when they were last asked.
    pub partial: Bits,
}

/// A lane of some queue.
#[derive(Debug)]
pub struct Lane {
    /// Its id in Postgres.
    pub id: i32,
    /// The labels a session must have to serve it, sorted, each once.
    pub requires: Vec<String>,
}

/// Where a lane stands.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Index of its queue.
    pub queue: usize,
    /// Index of the lane in its queue.
    pub bit: usize,
}

impl Lanes {
    /// Make a lane known; a new one may have something. `None` if it was known already.
    ///
    /// # Errors
    /// The lane is known with another queue or other labels.
    pub fn add(
        &mut self,
        id: i32,
        queue_name: &str,
        requires: Vec<String>,
    ) -> Result<Option<Place>, InvalidInput> {
        let index = self.queue(queue_name);
        if let Some(known) = self.place_of_lane.get(&id) {
            let lane = &self.queues[known.queue].lanes[known.bit];
            if known.queue == index && lane.requires == requires {
                return Ok(None);
            }
            return Err(InvalidInput::new(format!(
                "lane: {id} is known with another queue or other labels than {queue_name:?} {requires:?}"
            )));
        }
        let queue = &mut self.queues[index];
        let place = Place {
            queue: index,
            bit: queue.lanes.len(),
        };
        queue.lanes.push(Lane { id, requires });
        queue.wake(place.bit);
        self.place_of_lane.insert(id, place);
        Ok(Some(place))
    }

    /// The index of the queue of that name, which is made if need be.
    pub fn queue(&mut self, name: &str) -> usize {
        if let Some(index) = self.queue_of_name.get(name) {
            return *index;
        }
        let index = self.queues.len();
        self.queues.push(Queue::default());
        self.queue_of_name.insert(name.to_owned(), index);
        index
    }

    /// The queue with that index.
    pub fn at(&self, index: usize) -> &Queue {
        &self.queues[index]
    }

    /// These lanes may have something. Returns those that are not known.
    pub fn wake(&mut self, lanes: &[i32]) -> Vec<i32> {
        let mut unknown = Vec::new();
        for lane in lanes {
            match self.place_of_lane.get(lane) {
                Some(place) => self.queues[place.queue].wake(place.bit),
                None => unknown.push(*lane),
            }
        }
        unknown
    }

    /// Every lane may have something, `filled` or not.
    pub fn suspect_all(&mut self, filled: bool) {
        for queue in &mut self.queues {
            for bit in 0..queue.lanes.len() {
                queue.suspect(bit);
                if filled {
                    queue.filled.insert(bit);
                }
            }
        }
    }

    /// A take begins: until it tells what it found, nothing is known of the lanes that `ask` names from here on.
    pub fn begin_asking(&mut self) {
        self.asked.clear();
    }

    /// These lanes had nothing when they were last asked. One that was woken since stays a suspect.
    ///
    /// Those that the take asked besides had something, woken or not.
    pub fn found_empty(&mut self, lanes: &[i32]) {
        for lane in lanes {
            if let Some(place) = self.place_of_lane.get(lane) {
                let queue = &mut self.queues[place.queue];
                if !queue.woken.contains(place.bit) {
                    queue.suspects.remove(place.bit);
                    queue.filled.remove(place.bit);
                }
            }
        }
        for (lane, place) in self.asked.drain(..) {
            if !lanes.contains(&lane) {
                self.queues[place.queue].filled.insert(place.bit);
            }
        }
    }

    /// Postgres holds more of these lanes than Redis. That holds until they are woken.
    pub fn found_partial(&mut self, lanes: &[i32]) {
        for lane in lanes {
            if let Some(place) = self.place_of_lane.get(lane) {
                let queue = &mut self.queues[place.queue];
                if !queue.woken.contains(place.bit) {
                    queue.partial.insert(place.bit);
                }
            }
        }
    }

    /// Where a lane stands.
    pub fn place(&self, lane: i32) -> Option<Place> {
        self.place_of_lane.get(&lane).copied()
    }

    /// Append the ids of lanes that are asked now, in decimal, with commas between.
    pub fn ask(&mut self, index: usize, bits: &[usize], text: &mut String) {
        let queue = &mut self.queues[index];
        for (number, bit) in bits.iter().enumerate() {
            let id = queue.lanes[*bit].id;
            queue.woken.remove(*bit);
            let place = Place {
                queue: index,
                bit: *bit,
            };
            self.asked.push((id, place));
            let comma = if number == 0 { "" } else { "," };
            write!(text, "{comma}{id}").expect("a String takes any text");
        }
    }

    /// How many lanes are known.
    pub fn len(&self) -> usize {
        self.place_of_lane.len()
    }

    /// How many lanes may have something.
    pub fn suspects(&self) -> usize {
        self.queues.iter().map(|queue| queue.suspects.len()).sum()
    }
}

impl Queue {
    fn wake(&mut self, bit: usize) {
        self.suspect(bit);
        self.filled.insert(bit);
        self.partial.remove(bit);
    }

    fn suspect(&mut self, bit: usize) {
        self.suspects.insert(bit);
        self.woken.insert(bit);
    }
}
