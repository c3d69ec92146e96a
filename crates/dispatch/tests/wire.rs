//! What one end writes the other reads. All of it is compared with protobuf in `tests/property/test_wire_*.py`.

use orqestra_dispatch::wire::assign::{self, Claimed, Columns, Step};
use orqestra_dispatch::wire::attempt::Attempt;
use orqestra_dispatch::wire::owed::{Acknowledged, Owed};
use orqestra_dispatch::wire::results::{self, Successes};
use orqestra_dispatch::wire::{acks, jobs};
use proptest::collection::vec;
use proptest::prelude::*;

const STALE: i64 = 3;

prop_compose! {
    fn attempt()(job_id: i64, fence: i64, token: i64) -> Attempt {
        Attempt { job_id, fence, token }
    }
}

/// Few, so that the same one comes up again.
fn few() -> impl Strategy<Value = Attempt> {
    (1..5_i64, 1..3_i64).prop_map(|(job_id, fence)| Attempt {
        job_id,
        fence,
        token: 9,
    })
}

fn claimed(attempts: &[Attempt], noops: &[bool]) -> Claimed<Vec<u8>> {
    let columns = Columns {
        sessions: vec![7; attempts.len()],
        attempts: attempts.to_vec(),
        types: noops
            .iter()
            .map(|is_noop| if *is_noop { "noop" } else { "shell" }.into())
            .collect(),
        payloads: vec![b"{}".to_vec(); attempts.len()],
        counted: vec![0; attempts.len()],
        timeouts_ms: vec![0; attempts.len()],
        graces_ms: vec![5000; attempts.len()],
        steps: vec![],
    };
    Claimed::new(columns).expect("all columns have one entry for each job")
}

proptest! {
    #[test]
    fn what_is_claimed_is_assigned(jobs in vec((attempt(), any::<bool>()), 0..20), most_jobs in 1..6_usize) {
        let (attempts, noops): (Vec<_>, Vec<_>) = jobs.iter().copied().unzip();
        let (mut assigned, mut others) = (Vec::new(), 0);

        for jobs in claimed(&attempts, &noops).encode(7, |_| b"", (most_jobs, 1000)) {
            let read = assign::read(&assign::message(3, &jobs), true)
                .expect("what we write is a message")
                .expect("and it assigns");
            prop_assert_eq!(read.number, 3);
            prop_assert!(read.noops.len() + read.others.len() <= most_jobs);
            others += read.others.len();
            assigned.extend(read.noops);
        }

        let expected: Vec<_> = jobs.iter().filter(|job| job.1).map(|job| job.0).collect();
        prop_assert_eq!(&assigned, &expected);
        prop_assert_eq!(others, jobs.len() - expected.len());
    }

    #[test]
    fn noops_are_plain_successes_until_they_are_acknowledged(attempts in vec(few(), 0..12), most in 1..5_usize) {
        let mut owed = Owed::default();
        owed.add_noops(&attempts, 5);
        let expected: Vec<_> = owed.attempts().collect();
        let mut told = Vec::new();

        while let Some(message) = owed.take(most, 1 << 20) {
            let reported = results::read(&message)
                .expect("what we write is a message")
                .expect("and it reports");
            prop_assert!(reported.iter().all(|result| result.success.is_some()));
            let successes = Successes::of([reported.as_slice()]);
            prop_assert_eq!(successes.rows.len() + successes.again.len(), reported.len());
            told.extend(reported.into_iter().map(|result| result.attempt));
        }
        prop_assert_eq!(&told, &expected);

        let mut part = Vec::new();
        results::accept(&mut part, &told);
        prop_assert_eq!(owed.acknowledge(&acks::message(&[part])), Ok(Some(vec![])));
        prop_assert!(owed.is_empty());
    }

    #[test]
    fn what_was_not_taken_is_told_even_of_noops(attempts in vec(few(), 0..6), stranger in attempt()) {
        let mut owed = Owed::default();
        owed.add_noops(&attempts, 5);
        let first: Vec<_> = owed.attempts().collect();
        let (mut part, mut expected) = (Vec::new(), Vec::new());
        for attempt in first.iter().chain([&stranger]) {
            acks::put(&mut part, attempt, STALE);
            let was_owed = owed.contains(attempt);
            expected.push(Acknowledged { attempt: *attempt, verdict: STALE, was_owed });
        }

        prop_assert_eq!(owed.acknowledge(&acks::message(&[part])), Ok(Some(expected)));
    }

    #[test]
    fn bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..60), field in 1..4_u32) {
        let (inside, assigned) = (acks::message(&[&bytes]), assign::message(1, &bytes));
        for message in [&bytes, &inside, &assigned] {
            let _ = results::read(message);
            let _ = assign::read(message, true);
            let _ = acks::read(message);
            let _ = jobs::read(message, field);
        }
    }
}

#[test]
fn columns_of_different_lengths_are_refused() {
    let columns = Columns::<Vec<u8>> {
        attempts: vec![Attempt::default()],
        steps: vec![Some(Step::default())],
        ..Columns::default()
    };
    let error = Claimed::new(columns).expect_err("one job, and no session for it");
    assert!(
        error.to_string().contains("sessions: 0 values for 1 jobs"),
        "{error}"
    );
}
