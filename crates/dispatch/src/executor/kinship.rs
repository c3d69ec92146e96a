//! Which processes belong to which command.
//!
//! Decides from a census and what it is told; reads nothing but the environments it asks for.

use hashbrown::HashMap;

use super::census::{Census, Process};

/// The variables that mark the processes of a command, if it has both.
const MARKS: [&[u8]; 2] = [b"ORQESTRA_JOB_ID", b"ORQESTRA_FENCE"];

/// What the environment of a command's processes holds: the values of both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mark([Vec<u8>; 2]);

impl Mark {
    /// The mark in the environment that is given to a command.
    pub fn given(environment: &[(Vec<u8>, Vec<u8>)]) -> Option<Self> {
        let find = |wanted: &[u8]| {
            let found = environment.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.clone())
        };
        Some(Self([find(MARKS[0])?, find(MARKS[1])?]))
    }

    /// The mark in the environment of a process.
    fn worn(environment: &[u8]) -> Option<Self> {
        let find = |wanted: &[u8]| {
            let mut variables = environment.split(|&byte| byte == 0);
            variables
                .find_map(|variable| variable.strip_prefix(wanted)?.strip_prefix(b"="))
                .map(<[u8]>::to_vec)
        };
        Some(Self([find(MARKS[0])?, find(MARKS[1])?]))
    }
}

/// By what the processes of one command are known.
#[derive(Debug, Default)]
pub struct Claim<'a> {
    /// These, and whoever descends from them.
    pub roots: Vec<i32>,
    /// Whoever is in these sessions.
    pub sessions: Vec<i32>,
    /// Whoever has this in its environment.
    pub mark: Option<&'a Mark>,
    /// Nobody older, in ticks since boot.
    pub since: u64,
}

/// What is known of those around.
pub struct Surroundings<'a> {
    /// All processes.
    pub census: &'a Census,
    /// Our own number.
    pub own: i32,
    /// Whether orphans come to us, so that nobody is of interest who doesn't descend from us.
    pub adopting: bool,
    /// Whether a child of ours is adopted, and not known as a stray.
    pub unclaimed: &'a dyn Fn(&Process) -> bool,
    /// Gives the environment of a process.
    pub environment: &'a dyn Fn(&Process) -> Vec<u8>,
}

/// Whose processes are whose.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kin {
    /// Those of each claim that live, the roots included.
    pub of: Vec<Vec<Process>>,
    /// Adopted ones of which can't be told whose they are.
    pub strays: Vec<Process>,
}

/// Tells for each claim which processes are its own.
pub fn assign(claims: &[Claim<'_>], around: &Surroundings<'_>) -> Kin {
    let marks = claims.iter().enumerate();
    let marks = marks.filter_map(|(index, claim)| Some((claim.mark?, index)));
    let mut search = Search {
        claims,
        around,
        roots: index(claims, |claim| &claim.roots),
        sessions: index(claims, |claim| &claim.sessions),
        marks: marks.collect(),
        found: HashMap::new(),
    };
    let mut kin = Kin {
        of: vec![Vec::new(); claims.len()],
        strays: Vec::new(),
    };
    for process in around.census.all().filter(|process| process.lives) {
        match search.find(process).claim {
            Some(claim) => kin.of[claim].push(*process),
            None if process.parent == around.own && (around.unclaimed)(process) => {
                kin.strays.push(*process);
            }
            None => {}
        }
    }
    kin
}

struct Search<'a> {
    claims: &'a [Claim<'a>],
    around: &'a Surroundings<'a>,
    roots: HashMap<i32, usize>,
    sessions: HashMap<i32, usize>,
    marks: HashMap<&'a Mark, usize>,
    found: HashMap<i32, Found>,
}

#[derive(Clone, Copy)]
struct Found {
    claim: Option<usize>,
    /// Whether it descends from us.
    ours: bool,
}

impl Search<'_> {
    /// The claim that a process falls under: as a root, by its session, with its parent, by its mark, or
    /// because nobody else can have it.
    fn find(&mut self, process: &Process) -> Found {
        // A line of ancestors can be long: no recursion.
        let mut line = Vec::new();
        let mut next = Some(process);
        let mut above = Found {
            claim: None,
            ours: false,
        };
        while let Some(ancestor) = next {
            if let Some(&found) = self.found.get(&ancestor.pid) {
                above = found;
                break;
            }
            line.push(ancestor);
            if ancestor.pid == self.around.own {
                break;
            }
            next = self.around.census.get(ancestor.parent);
        }
        for ancestor in line.into_iter().rev() {
            above = self.decide(ancestor, above);
            self.found.insert(ancestor.pid, above);
        }
        above
    }

    fn decide(&self, process: &Process, parent: Found) -> Found {
        let own = process.pid == self.around.own;
        let ours = own || parent.ours;
        if own || (self.around.adopting && !ours) {
            return Found { claim: None, ours };
        }
        let claim = self.roots.get(&process.pid);
        let claim = claim.or_else(|| self.sessions.get(&process.session));
        let claim = claim.copied().or(parent.claim);
        let claim = claim.or_else(|| self.marked(process));
        Found {
            claim: claim.or_else(|| self.only_possible(process)),
            ours,
        }
    }

    fn marked(&self, process: &Process) -> Option<usize> {
        if self.marks.is_empty() {
            return None;
        }
        let mark = Mark::worn(&(self.around.environment)(process))?;
        self.marks.get(&mark).copied()
    }

    fn only_possible(&self, process: &Process) -> Option<usize> {
        if process.parent != self.around.own || !(self.around.unclaimed)(process) {
            return None;
        }
        let claims = self.claims.iter().enumerate();
        let mut possible = claims.filter(|(_, claim)| claim.since <= process.start);
        let (index, _) = possible.next()?;
        possible.next().is_none().then_some(index)
    }
}

fn index(
    claims: &[Claim<'_>],
    numbers: impl for<'a> Fn(&'a Claim<'_>) -> &'a [i32],
) -> HashMap<i32, usize> {
    let claims = claims.iter().enumerate();
    claims
        .flat_map(|(index, claim)| numbers(claim).iter().map(move |number| (*number, index)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: i32 = 10;

    fn process(pid: i32, parent: i32, session: i32, start: u64) -> Process {
        Process {
            pid,
            parent,
            group: session,
            session,
            start,
            lives: true,
        }
    }

    fn mark(leader: i32) -> Mark {
        let variable = |name: &[u8]| (name.to_vec(), leader.to_string().into_bytes());
        Mark::given(&[variable(MARKS[1]), variable(MARKS[0])]).expect("both are there")
    }

    fn command(leader: i32, since: u64, mark: &Mark) -> Claim<'_> {
        Claim {
            roots: vec![leader],
            sessions: vec![leader],
            mark: Some(mark),
            since,
        }
    }

    /// The numbers of those that fall under each claim, and of the strays.
    fn assigned(processes: &[Process], claims: &[Claim<'_>]) -> (Vec<Vec<i32>>, Vec<i32>) {
        let environment = |process: &Process| match process.pid {
            // Marked as the command that 20 leads.
            60..70 => b"A=1\0ORQESTRA_JOB_ID=20\0ORQESTRA_FENCE=20\0".to_vec(),
            // Half a mark is none.
            70..80 => b"ORQESTRA_JOB_ID=20\0ORQESTRA_FENCE=200\0".to_vec(),
            _ => Vec::new(),
        };
        let around = Surroundings {
            census: &processes.iter().copied().collect(),
            own: OWN,
            adopting: true,
            unclaimed: &|process| process.pid >= 60,
            environment: &environment,
        };
        let numbers = |processes: Vec<Process>| {
            let mut numbers: Vec<i32> = processes.iter().map(|process| process.pid).collect();
            numbers.sort_unstable();
            numbers
        };
        let kin = assign(claims, &around);
        (
            kin.of.into_iter().map(numbers).collect(),
            numbers(kin.strays),
        )
    }

    #[test]
    fn descent_session_and_mark_each_are_enough() {
        let processes = [
            process(OWN, 1, 1, 1),
            process(20, OWN, 20, 5),
            process(30, OWN, 30, 6),
            process(21, 20, 21, 7),
            process(22, 21, 22, 8),
            process(41, OWN, 30, 9),
            process(60, OWN, 60, 9),
            process(81, 60, 81, 9),
            // Not ours, whatever it says.
            process(61, 1, 61, 9),
        ];
        let (of, strays) = assigned(
            &processes,
            &[command(20, 5, &mark(20)), command(30, 6, &mark(30))],
        );
        assert_eq!(of, [vec![20, 21, 22, 60, 81], vec![30, 41]]);
        assert_eq!(strays, [0_i32; 0]);
    }

    #[test]
    fn whose_nobody_knows_is_his_who_alone_can_have_him() {
        let marks = [mark(20), mark(30)];
        let claims = [command(20, 5, &marks[0]), command(30, 8, &marks[1])];
        let processes = [
            process(OWN, 1, 1, 1),
            process(20, OWN, 20, 5),
            process(30, OWN, 30, 8),
            process(70, OWN, 70, 7),
            process(82, 70, 82, 9),
            process(71, OWN, 71, 9),
            process(72, OWN, 72, 3),
            // A command that a spawner is starting.
            process(50, OWN, 50, 9),
        ];
        let (of, strays) = assigned(&processes, &claims);
        assert_eq!(of, [vec![20, 70, 82], vec![30]]);
        assert_eq!(strays, [71, 72]);
    }

    #[test]
    fn a_long_line_of_ancestors_needs_no_stack() {
        let mut processes = vec![process(OWN, 1, 1, 1), process(20, OWN, 20, 5)];
        processes.push(process(1000, 20, 1000, 5));
        processes.extend((1001..20_000).map(|pid| process(pid, pid - 1, pid, 5)));
        let (of, _) = assigned(&processes, &[command(20, 5, &mark(20))]);
        assert_eq!(of[0].len(), processes.len() - 1);
    }
}
