//! What is held, beside a plain map of it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::holdings::{Holdings, Next};

#[derive(Clone, Debug)]
enum Step {
    Start,
    End { spooled: bool },
    Durable,
    Forget,
    Attach,
    Trouble,
    Next,
}

fn step() -> impl Strategy<Value = (Step, usize)> {
    let step = prop_oneof![
        4 => Just(Step::Start),
        4 => any::<bool>().prop_map(|spooled| Step::End { spooled }),
        4 => Just(Step::Durable),
        1 => Just(Step::Forget),
        1 => Just(Step::Attach),
        1 => Just(Step::Trouble),
        4 => Just(Step::Next),
    ];
    (step, any::<usize>())
}

/// What is known of a command: whether it has ended, is to be kept, durable, may be told, was told.
#[expect(
    clippy::struct_excessive_bools,
    reason = "they vary independently, as what happens does"
)]
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    ended: bool,
    spooled: bool,
    durable: bool,
    due: bool,
    told: bool,
}

proptest! {
    /// Beside a plain map: all that is due is told once to each daemon, and nothing else is.
    #[test]
    fn each_daemon_is_told_every_end_once(steps in prop::collection::vec(step(), 1..80)) {
        let mut holdings = Holdings::default();
        let mut model: BTreeMap<u64, Known> = BTreeMap::new();
        for (number, (step, at)) in (1..).zip(steps) {
            let pick = |wanted: fn(&Known) -> bool| {
                let keys = model.iter().filter(|(_, known)| wanted(known)).map(|(key, _)| *key);
                let keys: Vec<u64> = keys.collect();
                (!keys.is_empty()).then(|| keys[at % keys.len()])
            };
            match step {
                Step::Start => {
                    prop_assert!(holdings.start(number, Vec::new()));
                    model.insert(number, Known::default());
                }
                Step::End { spooled } => if let Some(key) = pick(|known| !known.ended) {
                    holdings.ended(key, key.to_le_bytes().to_vec(), spooled);
                    let known = Known { ended: true, spooled, due: !spooled, ..Known::default() };
                    model.insert(key, known);
                },
                Step::Durable => if let Some(key) = pick(|known| known.ended && known.spooled) {
                    holdings.durable(key, at % 2 == 0);
                    let known = model.get_mut(&key).expect("known");
                    (known.durable, known.due) = (true, true);
                },
                Step::Forget => if let Some(key) = pick(|_| true) {
                    let known = model[&key];
                    let spooled = holdings.forget(&[key]);
                    prop_assert_eq!(spooled, if known.ended && known.spooled { vec![key] } else { vec![] });
                    if known.ended {
                        model.remove(&key);
                    }
                },
                Step::Attach => {
                    let held = holdings.attach();
                    let held: Vec<_> = held.iter().map(|held| (held.key, held.ended)).collect();
                    let expected: Vec<_> = model.iter().map(|(key, known)| (*key, known.ended)).collect();
                    prop_assert_eq!(held, expected);
                    for known in model.values_mut() {
                        known.told = false;
                        known.due = known.ended && (known.durable || !known.spooled);
                    }
                }
                Step::Trouble => {
                    holdings.offer_undurable();
                    for known in model.values_mut().filter(|known| known.ended) {
                        known.due = true;
                    }
                }
                Step::Next => match holdings.next() {
                    Some(Next::Tell(key, _) | Next::Read(key)) => {
                        let known = model.get_mut(&key).expect("held");
                        prop_assert!(known.due && !known.told, "{}: {:?}", key, known);
                        known.told = true;
                    }
                    None => prop_assert!(model.values().all(|known| !known.due || known.told)),
                },
            }
            let count = |wanted: fn(&Known) -> bool| model.values().filter(|known| wanted(known)).count();
            prop_assert_eq!(holdings.running(), count(|known| !known.ended));
            let undurable = count(|known| known.ended && known.spooled && !known.durable);
            prop_assert_eq!(holdings.undurable(), undurable);
        }
    }
}
