//! Who comes when, and who gets how much. The only two rules of fairness in the matcher; profiles,
//! queues and lanes all follow them.

/// 2^64 divided by the golden ratio. Its multiples fill the circle evenly, whatever their stride
/// (a Weyl sequence), so no fixed pattern of calls can keep one candidate from ever being first.
const GOLDEN_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Picks some of the candidates around a circle, so that each comes as often as any other and is as
/// often the first.
#[derive(Debug, Default)]
pub struct Rotation {
    next: usize,
    calls: u64,
}

impl Rotation {
    /// Pick at most `limit` candidates and go on behind the last of them the next time.
    ///
    /// `circle(start)` has to name the candidates in ascending order from `start`, then the others.
    pub fn pick<Circle>(&mut self, limit: usize, circle: impl FnOnce(usize) -> Circle) -> Vec<usize>
    where
        Circle: Iterator<Item = usize>,
    {
        let mut picked: Vec<usize> = circle(self.next).take(limit).collect();
        if let Some(last) = picked.last() {
            self.next = last + 1;
            let first = self.first_of(picked.len());
            picked.rotate_left(first);
        }
        picked
    }

    fn first_of(&mut self, count: usize) -> usize {
        self.calls = self.calls.wrapping_add(1);
        let point = u128::from(self.calls.wrapping_mul(GOLDEN_STEP));
        ((point * count as u128) >> 64) as usize
    }
}

/// Share `total` among wants, one by one in their order, until all is given or all have what they
/// want: nobody gets more than another who still wants, but for one.
#[must_use]
pub fn fair_shares(wants: &[usize], total: usize) -> Vec<usize> {
    let mut shares = vec![0; wants.len()];
    let mut left = total;
    let mut open: Vec<usize> = (0..wants.len()).filter(|place| wants[*place] > 0).collect();
    while left > 0 && !open.is_empty() {
        let each = (left / open.len()).max(1);
        for &place in &open {
            let share = each.min(wants[place] - shares[place]).min(left);
            shares[place] += share;
            left -= share;
        }
        open.retain(|place| shares[*place] < wants[*place]);
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn circle(candidates: &[usize], start: usize) -> Vec<usize> {
        let (late, early): (Vec<usize>, Vec<usize>) =
            candidates.iter().partition(|each| **each >= start);
        [late, early].concat()
    }

    /// Deal the cards one by one.
    fn dealt(wants: &[usize], total: usize) -> Vec<usize> {
        let mut shares = vec![0; wants.len()];
        let mut left = total;
        while left > 0 && shares.iter().zip(wants).any(|(share, want)| share < want) {
            for (share, want) in shares.iter_mut().zip(wants) {
                if *share < *want && left > 0 {
                    *share += 1;
                    left -= 1;
                }
            }
        }
        shares
    }

    proptest! {
        #[test]
        fn shares_are_dealt_like_cards(
            wants in prop::collection::vec(0_usize..40, 0..12),
            total in 0_usize..200,
        ) {
            prop_assert_eq!(fair_shares(&wants, total), dealt(&wants, total));
        }

        #[test]
        fn every_candidate_comes_and_leads(
            count in 1_usize..40,
            limit in 1_usize..40,
            gap in 1_usize..5,
        ) {
            let candidates: Vec<usize> = (0..count).map(|number| number * gap).collect();
            let mut rotation = Rotation::default();
            let mut seen = vec![0_usize; count];
            let mut led = vec![0_usize; count];
            let calls = 200 * count;
            for _ in 0..calls {
                let picked = rotation.pick(limit, |start| circle(&candidates, start).into_iter());
                led[picked[0] / gap] += 1;
                for number in &picked {
                    seen[number / gap] += 1;
                }
            }
            // Each is seen as often as any other to within one round, and leads at least half as
            // often as it would by chance.
            let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
            prop_assert!(most - least <= 1, "seen {:?}", seen);
            prop_assert!(*led.iter().min().unwrap() >= calls / count / 2, "led {:?}", led);
        }
    }
}
