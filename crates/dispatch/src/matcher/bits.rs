//! A growing set of small numbers, one bit each.

const WORD_BITS: usize = u64::BITS as usize;

/// A set of small numbers. 10,000 of them take 1.2 KiB, and two sets are compared 64 at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Add `number`.
    pub fn insert(&mut self, number: usize) {
        let word = number / WORD_BITS;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= mask(number);
    }

    /// Take `number` out, if it is in.
    pub fn remove(&mut self, number: usize) {
        if let Some(word) = self.words.get_mut(number / WORD_BITS) {
            *word &= !mask(number);
        }
    }

    /// Whether `number` is in.
    pub fn contains(&self, number: usize) -> bool {
        let word = self.words.get(number / WORD_BITS);
        word.is_some_and(|word| word & mask(number) != 0)
    }

    /// How many are in.
    pub fn len(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Whether a number is in both sets.
    pub fn meets(&self, other: &Self) -> bool {
        let mut words = self.words.iter().zip(&other.words);
        words.any(|(one, two)| one & two != 0)
    }

    /// How many are in both sets.
    pub fn common_len(&self, other: &Self) -> usize {
        let words = self.words.iter().zip(&other.words);
        words
            .map(|(one, two)| (one & two).count_ones() as usize)
            .sum()
    }

    /// The numbers in both sets: ascending from `start`, then from zero up to it.
    pub fn common_from(&self, other: &Self, start: usize) -> impl Iterator<Item = usize> {
        let end = self.words.len().min(other.words.len()) * WORD_BITS;
        let start = start.min(end);
        self.common(other, start, end)
            .chain(self.common(other, 0, start))
    }

    fn common(&self, other: &Self, start: usize, end: usize) -> impl Iterator<Item = usize> {
        let word_at = move |index: usize| self.words[index] & other.words[index];
        (start / WORD_BITS..end.div_ceil(WORD_BITS))
            .flat_map(move |index| ones(word_at(index)).map(move |bit| index * WORD_BITS + bit))
            .filter(move |number| (start..end).contains(number))
    }
}

fn mask(number: usize) -> u64 {
    1 << (number % WORD_BITS)
}

/// The positions of the ones in `word`, ascending.
fn ones(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let position = word.trailing_zeros() as usize;
        // The lowest one goes; zero has none.
        (word != 0).then(|| {
            word &= word - 1;
            position
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn bits(numbers: &BTreeSet<usize>) -> Bits {
        let mut bits = Bits::default();
        for number in numbers {
            bits.insert(*number);
        }
        bits
    }

    fn numbers() -> impl Strategy<Value = BTreeSet<usize>> {
        prop::collection::btree_set(0_usize..300, 0..60)
    }

    proptest! {
        #[test]
        fn it_is_a_set(inserted in numbers(), removed in numbers()) {
            let mut set = bits(&inserted);
            for number in &removed {
                set.remove(*number);
            }
            let left: BTreeSet<_> = inserted.difference(&removed).copied().collect();
            prop_assert_eq!(set.len(), left.len());
            for number in 0..310 {
                prop_assert_eq!(set.contains(number), left.contains(&number));
            }
        }

        #[test]
        fn common_numbers_come_round_from_the_start(one in numbers(), two in numbers(), start in 0_usize..400) {
            let common: Vec<usize> = one.intersection(&two).copied().collect();
            let (late, early): (Vec<usize>, Vec<usize>) = common.iter().partition(|number| **number >= start);
            let (one, two) = (bits(&one), bits(&two));
            let found: Vec<_> = one.common_from(&two, start).collect();
            prop_assert_eq!(found, [late, early].concat());
            prop_assert_eq!(one.common_len(&two), common.len());
            prop_assert_eq!(one.meets(&two), !common.is_empty());
        }
    }
}
