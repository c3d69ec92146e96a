//! How long a failed attempt waits for the next: exponential, capped, with jitter.
//!
//! The ceiling after the failure of attempt `n` is `min(cap, base * factor^(n - 1))`; the delay is a
//! uniform integer from zero to it with full jitter, from half of it with equal jitter, both ends
//! included (Marc Brooker, "Exponential Backoff And Jitter", 2015), and the ceiling itself without any.
//! A delay is a function of its seed, so that a decision can be repeated.

use crate::error::InvalidInput;

/// How the ceiling grows. One row of the columns that Postgres holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// The ceiling after the first failure, in milliseconds; not negative.
    pub base_ms: i64,
    /// What each further failure multiplies it by; at least 1.
    pub factor: f64,
    /// What it never exceeds, in milliseconds; not negative.
    pub cap_ms: i64,
}

/// How much of a delay is left to chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// All of it.
    Full,
    /// Its second half.
    Equal,
    /// Nothing.
    None,
}

impl Jitter {
    /// The jitter of a word: `full`, `equal` or `none`.
    ///
    /// # Errors
    /// Any other word.
    pub fn parse(word: &str) -> Result<Self, InvalidInput> {
        match word {
            "full" => Ok(Self::Full),
            "equal" => Ok(Self::Equal),
            "none" => Ok(Self::None),
            other => Err(InvalidInput::new(format!(
                "jitter: {other:?} is not one of full, equal and none"
            ))),
        }
    }

    /// The shortest delay below a ceiling.
    const fn floor(self, ceiling_ms: i64) -> i64 {
        match self {
            Self::Full => 0,
            Self::Equal => ceiling_ms / 2,
            Self::None => ceiling_ms,
        }
    }
}

impl Policy {
    /// The longest delay after attempt number `attempt` (the first is 1) failed, in milliseconds.
    ///
    /// # Errors
    /// A value outside what the fields allow, by name.
    pub fn ceiling(&self, attempt: i64) -> Result<i64, InvalidInput> {
        self.check(attempt)?;
        // Infinity is past every cap; zero times infinity would be no number.
        let raw = self.base_ms as f64 * self.factor.powf((attempt - 1) as f64);
        if self.base_ms == 0 {
            Ok(0)
        } else if raw >= self.cap_ms as f64 {
            Ok(self.cap_ms)
        } else {
            Ok((raw as i64).min(self.cap_ms))
        }
    }

    /// The delay after attempt number `attempt` failed, in milliseconds: the same for the same seed.
    ///
    /// # Errors
    /// As `ceiling`.
    pub fn delay(&self, attempt: i64, jitter: Jitter, seed: i64) -> Result<i64, InvalidInput> {
        let ceiling = self.ceiling(attempt)?;
        let floor = jitter.floor(ceiling);
        let choices = (ceiling - floor) as u128 + 1;
        // The high half of the product is uniform to within one part in 2^64 / choices.
        Ok(floor + ((u128::from(splitmix64(seed as u64)) * choices) >> 64) as i64)
    }

    fn check(&self, attempt: i64) -> Result<(), InvalidInput> {
        let Self {
            base_ms,
            factor,
            cap_ms,
        } = *self;
        let problem = if base_ms < 0 {
            format!("base_ms: {base_ms} must be 0 or more")
        } else if factor.is_nan() || factor < 1.0 {
            format!("factor: {factor} must be 1 or more")
        } else if cap_ms < 0 {
            format!("cap_ms: {cap_ms} must be 0 or more")
        } else if attempt < 1 {
            format!("attempt: {attempt} must be 1 or more")
        } else {
            return Ok(());
        };
        Err(InvalidInput::new(problem))
    }
}

/// A batch of failed attempts, as columns of the same length.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// `Policy::base_ms` of each.
    pub base_ms: &'a [i64],
    /// `Policy::factor` of each.
    pub factors: &'a [f64],
    /// `Policy::cap_ms` of each.
    pub cap_ms: &'a [i64],
    /// The number of the attempt that failed; the first is 1.
    pub attempts: &'a [i64],
}

impl Columns<'_> {
    /// The ceiling of each, in milliseconds.
    ///
    /// # Errors
    /// Columns of different lengths; a value that is not allowed, by its index.
    pub fn ceilings(self) -> Result<Vec<i64>, InvalidInput> {
        self.each(|_, policy, attempt| policy.ceiling(attempt))
    }

    /// The delay of each, in milliseconds, as its jitter leaves it to its seed.
    ///
    /// # Errors
    /// As `ceilings`.
    pub fn delays(self, jitters: &[Jitter], seeds: &[i64]) -> Result<Vec<i64>, InvalidInput> {
        self.same_length("jitters", jitters.len())?;
        self.same_length("seeds", seeds.len())?;
        self.each(|row, policy, attempt| policy.delay(attempt, jitters[row], seeds[row]))
    }

    fn each(
        self,
        decide: impl Fn(usize, Policy, i64) -> Result<i64, InvalidInput>,
    ) -> Result<Vec<i64>, InvalidInput> {
        self.same_length("factor", self.factors.len())?;
        self.same_length("cap_ms", self.cap_ms.len())?;
        self.same_length("attempts", self.attempts.len())?;
        let decide_row = |row: usize| {
            let policy = Policy {
                base_ms: self.base_ms[row],
                factor: self.factors[row],
                cap_ms: self.cap_ms[row],
            };
            decide(row, policy, self.attempts[row])
                .map_err(|problem| InvalidInput::new(format!("row {row}: {problem}")))
        };
        (0..self.base_ms.len()).map(decide_row).collect()
    }

    fn same_length(self, name: &str, length: usize) -> Result<(), InvalidInput> {
        let count = self.base_ms.len();
        if length == count {
            return Ok(());
        }
        Err(InvalidInput::new(format!(
            "{name}: {length} values, but base_ms has {count}"
        )))
    }
}

/// The next number of the generator `SplitMix64` after state `seed` (Steele, Lea and Flood, 2014).
/// Seeds that lie close together give numbers that do not.
#[must_use]
pub const fn splitmix64(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        base_ms: 1000,
        factor: 2.0,
        cap_ms: 300_000,
    };

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let ceilings: Vec<_> = (1..=10).map(|attempt| POLICY.ceiling(attempt)).collect();
        let expected = [1, 2, 4, 8, 16, 32, 64, 128, 256, 300];
        assert_eq!(ceilings, expected.map(|seconds| Ok(seconds * 1000)));
    }

    #[test]
    fn splitmix64_is_the_published_generator() {
        // The first outputs for seed 0, whose state grows by the golden gamma.
        assert_eq!(splitmix64(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(splitmix64(0x9e37_79b9_7f4a_7c15), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn nothing_overflows() {
        let widest = Policy {
            base_ms: i64::MAX,
            factor: f64::INFINITY,
            cap_ms: i64::MAX,
        };
        assert_eq!(widest.ceiling(i64::MAX), Ok(i64::MAX));
        for jitter in [Jitter::Full, Jitter::Equal, Jitter::None] {
            assert!(widest.delay(i64::MAX, jitter, -1).unwrap() >= jitter.floor(i64::MAX));
        }
        let nothing = Policy {
            base_ms: 0,
            ..widest
        };
        assert_eq!(nothing.ceiling(i64::MAX), Ok(0));
    }

    #[test]
    fn jitter_leaves_all_of_a_delay_its_half_or_nothing_to_chance() {
        let odd = Policy {
            base_ms: 9,
            ..POLICY
        };
        let delays = |jitter| {
            let drawn = (0..1000).map(|seed| odd.delay(1, jitter, seed).unwrap());
            drawn.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(delays(Jitter::Full), (0..=9).collect());
        assert_eq!(delays(Jitter::Equal), (4..=9).collect());
        assert_eq!(delays(Jitter::None), [9].into());
    }

    #[test]
    fn a_jitter_has_a_word_of_its_own() {
        assert_eq!(Jitter::parse("equal"), Ok(Jitter::Equal));
        let problem = Jitter::parse("some").unwrap_err().to_string();
        assert_eq!(
            problem,
            "jitter: \"some\" is not one of full, equal and none"
        );
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let cases = [
            (
                Policy {
                    base_ms: -1,
                    ..POLICY
                },
                1,
                "base_ms: -1",
            ),
            (
                Policy {
                    factor: 0.5,
                    ..POLICY
                },
                1,
                "factor: 0.5",
            ),
            (
                Policy {
                    factor: f64::NAN,
                    ..POLICY
                },
                1,
                "factor: NaN",
            ),
            (
                Policy {
                    cap_ms: -5,
                    ..POLICY
                },
                1,
                "cap_ms: -5",
            ),
            (POLICY, 0, "attempt: 0"),
        ];
        for (policy, attempt, why) in cases {
            let message = policy.ceiling(attempt).unwrap_err().to_string();
            assert!(message.starts_with(why), "{message}");
        }
    }
}
