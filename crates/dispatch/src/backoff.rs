//! How long a failed attempt waits for the next: exponential, capped, with full jitter.
//!
//! The ceiling after the failure of attempt `n` is `min(cap, base * factor^(n - 1))`; the delay is a
//! uniform integer from zero to it, both included ("full jitter": Marc Brooker, "Exponential Backoff
//! And Jitter", 2015). A delay is a function of its seed, so that a decision can be repeated.

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
    pub fn delay(&self, attempt: i64, seed: i64) -> Result<i64, InvalidInput> {
        let choices = self.ceiling(attempt)? as u128 + 1;
        // The high half of the product is uniform to within one part in 2^64 / choices.
        Ok(((u128::from(splitmix64(seed as u64)) * choices) >> 64) as i64)
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

    /// The delay of each, in milliseconds, from its seed.
    ///
    /// # Errors
    /// As `ceilings`.
    pub fn delays(self, seeds: &[i64]) -> Result<Vec<i64>, InvalidInput> {
        self.same_length("seeds", seeds.len())?;
        self.each(|row, policy, attempt| policy.delay(attempt, seeds[row]))
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
        assert!(widest.delay(i64::MAX, -1).unwrap() >= 0);
        let nothing = Policy {
            base_ms: 0,
            ..widest
        };
        assert_eq!(nothing.ceiling(i64::MAX), Ok(0));
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
