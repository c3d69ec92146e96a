//! What is kept of one output stream: its head, its tail, and the exact count of what came.

use super::pages::Pages;

/// Bounds of what is kept per stream.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The first bytes, up to so many.
    pub head_bytes: usize,
    /// The last bytes, up to so many, of what comes after the head.
    pub tail_bytes: usize,
}

/// The kept bytes of a stream that has ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Head and tail, joined.
    pub bytes: Vec<u8>,
    /// How many came in all; more than `bytes` where the middle is missing.
    pub total: u64,
}

impl Output {
    /// Whether the middle is missing.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.total > self.bytes.len() as u64
    }
}

/// Grows with the output up to its bounds.
pub struct Capture {
    bounds: Bounds,
    head: Vec<u8>,
    /// A ring once it is full: the oldest byte is at `oldest`. Pipes are read into it.
    tail: Pages,
    oldest: usize,
    total: u64,
}

impl Capture {
    /// Nothing captured, nothing allocated.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            head: Vec::new(),
            tail: Pages::default(),
            oldest: 0,
            total: 0,
        }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (head, rest) =
            bytes.split_at(bytes.len().min(self.bounds.head_bytes - self.head.len()));
        append(&mut self.head, head, self.bounds.head_bytes);
        // Of more than a whole tail, only the end can stay.
        let rest = &rest[rest.len().saturating_sub(self.bounds.tail_bytes)..];
        let (fill, rest) = rest.split_at(rest.len().min(self.bounds.tail_bytes - self.tail.len()));
        self.fill(fill);
        self.overwrite(rest);
    }

    /// Whether as much is kept as may be, so that whatever comes replaces the oldest bytes of the tail.
    pub fn is_full(&self) -> bool {
        !self.tail.is_empty() && self.tail.len() == self.bounds.tail_bytes
    }

    /// The oldest bytes of a full tail, up to the end of the ring: what comes next can be written there at once.
    pub fn oldest_mut(&mut self) -> &mut [u8] {
        &mut self.tail[self.oldest..]
    }

    /// The next bytes of the stream, so many, were written to the beginning of `oldest_mut`.
    pub fn written(&mut self, count: usize) {
        self.total += count as u64;
        self.oldest = (self.oldest + count) % self.tail.len();
    }

    /// How many bytes have come.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// What is kept from `offset` on: pieces with their offsets, in order. Where they don't meet,
    /// bytes were dropped.
    pub fn kept_from(&self, offset: u64) -> impl Iterator<Item = (u64, &[u8])> {
        let (newer, older) = self.tail.split_at(self.oldest);
        let tail_offset = self.total - self.tail.len() as u64;
        let pieces = [
            (0, &self.head[..]),
            (tail_offset, older),
            (tail_offset + older.len() as u64, newer),
        ];
        pieces.into_iter().filter_map(move |(start, piece)| {
            let skipped = offset.saturating_sub(start);
            let kept = piece.get(usize::try_from(skipped).ok()?..)?;
            (!kept.is_empty()).then_some((start + skipped, kept))
        })
    }

    /// Joins head and tail.
    pub fn finish(mut self) -> Output {
        self.tail.rotate_left(self.oldest);
        let mut bytes = self.head;
        bytes.reserve_exact(self.tail.len());
        bytes.extend_from_slice(&self.tail);
        Output {
            bytes,
            total: self.total,
        }
    }

    /// Appends to a tail that is not full. It has all its memory at once: the kernel gives no page before it is used.
    fn fill(&mut self, bytes: &[u8]) {
        if self.tail.is_empty() && !bytes.is_empty() {
            self.tail = Pages::with_capacity(self.bounds.tail_bytes);
        }
        self.tail.append(bytes);
    }

    /// Replaces the oldest bytes of a full tail.
    fn overwrite(&mut self, bytes: &[u8]) {
        let (to_end, from_start) = bytes.split_at(bytes.len().min(self.tail.len() - self.oldest));
        self.tail[self.oldest..self.oldest + to_end.len()].copy_from_slice(to_end);
        self.tail[..from_start.len()].copy_from_slice(from_start);
        if !bytes.is_empty() {
            self.oldest = (self.oldest + bytes.len()) % self.tail.len();
        }
    }
}

/// Appends with doubling that stops at `limit`.
fn append(buffer: &mut Vec<u8>, bytes: &[u8], limit: usize) {
    let needed = buffer.len() + bytes.len();
    if needed > buffer.capacity() {
        let capacity = needed.max(buffer.capacity() * 2).min(limit);
        buffer.reserve_exact(capacity - buffer.len());
    }
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the obvious: remember everything, cut at the end.
        #[test]
        fn keeps_exactly_head_and_tail(
            head_bytes in 0_usize..20,
            tail_bytes in 0_usize..20,
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..12),
            offset in 0_u64..200,
        ) {
            let mut capture = Capture::new(Bounds { head_bytes, tail_bytes });
            for piece in &pieces {
                if capture.is_full() && piece.len() <= capture.oldest_mut().len() {
                    capture.oldest_mut()[..piece.len()].copy_from_slice(piece);
                    capture.written(piece.len());
                } else {
                    capture.push(piece);
                }
            }
            let all = pieces.concat();
            let head = &all[..all.len().min(head_bytes)];
            let tail = &all[all.len().saturating_sub(tail_bytes).max(head.len())..];

            let tail_offset = all.len() - tail.len();
            let held = |at: usize| at < head.len() || at >= tail_offset;
            let kept = |at: &usize| held(*at) && *at as u64 >= offset;
            let expected = (0..all.len()).filter(kept).map(|at| (at as u64, all[at]));
            let found = capture.kept_from(offset);
            let found = found.flat_map(|(start, piece)| (start..).zip(piece.iter().copied()));
            prop_assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());

            let output = capture.finish();
            prop_assert_eq!(output.total, all.len() as u64);
            prop_assert_eq!(output.bytes, [head, tail].concat());
        }
    }

    #[test]
    fn never_allocates_more_than_its_bounds() {
        let bounds = Bounds {
            head_bytes: 100,
            tail_bytes: 300,
        };
        let mut capture = Capture::new(bounds);
        for _ in 0..1000 {
            capture.push(&[7; 33]);
        }
        assert_eq!(
            (capture.head.capacity(), capture.tail.capacity()),
            (100, 300)
        );
    }
}
