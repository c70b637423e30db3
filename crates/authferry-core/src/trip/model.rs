//! Explores every order in which things can happen to the jobs of one or two machines.
//!
//! The store's swap may land, land with its reply lost, land late, be lost, be throttled or be
//! denied; a read may fail or be stale; a rescue may fail; a deadline may pass; a job may be
//! killed between any two steps. A person may seed another login, put one into the store by
//! hand, restore a backup, roll the store back, or empty it; a third party may rotate the head;
//! a job may end while a Codex that it left alone may still write the auth file; a Codex that
//! authferry did not start may use the home at any moment, spend the login and write late; a
//! watch may stay after a command, write through, and leave or be killed; a second job may begin
//! before the first has persisted, or the persist may never come;
//! stamps, files and receipts may be lost; a cache may bring back an old auth file. The clocks
//! say what they want. No event is exempt from a property, and no write from a check.
//!
//! After each step the store and the homes are checked, at each end the outcome is, and from
//! every state that was reached some end must still be reachable. States are known by their
//! hash of 64 bits, and a step of a trip is made once (`machines.rs`).

use alloc::{string::String, vec, vec::Vec};
use core::hash::{Hash, Hasher};
use std::time::Instant;

use crate::Policy;

mod checks;
mod logins;
mod machines;
mod world;

use logins::Clock;
use machines::{Fold, Machines, Map};
use world::{Budget, World};

/// What is to be explored.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one thing that may be so"
)]
struct Plan {
    homes: u8,
    /// How many jobs use each home, one after the other.
    jobs: u8,
    budget: Budget,
    policy: Policy,
    history: bool,
    /// Whether the file may be gone or torn when the command ends.
    spoils: bool,
    /// Whether the provider takes a refresh token twice.
    lenient: bool,
    /// Whether each job is a restore, a command and a persist.
    apart: bool,
    /// Whether the login is taken away at the end of a job.
    takes_away: bool,
    /// What the clocks may say of a generation that is born.
    clocks: &'static [Clock],
    /// Whether they may contradict the order of birth for sure.
    clocks_lie: bool,
    /// Whose logins a person may put into the store.
    persons: &'static [u8],
}

/// Which login a file or a record holds.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Missing,
    Torn,
    /// One that the store held: 0, 1 or 2.
    Line(u8),
    /// One that was rotated from it and never reached the store.
    After(u8),
    /// Of the same person, logged in afresh.
    Own,
    /// Another person's of the same workspace.
    Hers,
}

/// What a home holds at first.
#[derive(Clone, Debug)]
struct Slot {
    file: Choice,
    /// The entry of the store that the receipt names.
    receipt: Option<u8>,
    /// Logins in the rescue folder, with the entries that their records name.
    records: Vec<(Choice, Option<u8>)>,
    rotation: Option<(Choice, u8)>,
}

/// What there is at first.
#[derive(Clone, Debug)]
struct Setup {
    /// What the clocks say of the second and the third generation, and of what follows it.
    clocks: [Clock; 2],
    /// Whether the head has its stamp.
    stamped: bool,
    /// Whether receipts and records know the ancestors of their base.
    knows_ancestors: bool,
    /// Whether the provider refused the head.
    refused: bool,
    slots: Vec<Slot>,
}

const EMPTY: Slot = Slot {
    file: Choice::Missing,
    receipt: None,
    records: vec![],
    rotation: None,
};

const SOUND: Setup = Setup {
    clocks: [Clock::Later; 2],
    stamped: true,
    knows_ancestors: true,
    refused: false,
    slots: vec![],
};

const NONE: Budget = Budget {
    rotations: 0,
    reseeds: 0,
    keep_alives: 0,
    by_hand: 0,
    backs: 0,
    touches: 0,
    empties: 0,
    old_files: 0,
    lefts: 0,
    foreigners: 0,
    watches: 0,
    forgets: 0,
    kills: 0,
    stale_reads: 0,
    faults: 0,
};

const ONE: Plan = Plan {
    homes: 1,
    jobs: 1,
    budget: NONE,
    policy: Policy::Newest,
    history: false,
    spoils: false,
    lenient: false,
    apart: false,
    takes_away: false,
    clocks: &[Clock::Later],
    clocks_lie: false,
    persons: &[0],
};

const TWO: Plan = Plan { homes: 2, ..ONE };

const ANY_CLOCK: &[Clock] = &[Clock::Later, Clock::Close, Clock::Back, Clock::Opaque];
const UNCLEAR: &[Clock] = &[Clock::Later, Clock::Close, Clock::Opaque];

fn empty(homes: usize) -> Vec<Setup> {
    vec![Setup {
        slots: vec![EMPTY; homes],
        ..SOUND
    }]
}

#[test]
fn one_runner_two_rotations() {
    explore(
        &Plan {
            spoils: true,
            budget: Budget {
                rotations: 2,
                faults: 2,
                stale_reads: 1,
                ..NONE
            },
            clocks: ANY_CLOCK,
            clocks_lie: true,
            ..ONE
        },
        empty(1),
    );
}

#[test]
fn one_runner_one_rotation_and_a_reseed_that_a_third_party_rotates() {
    for policy in [Policy::Newest, Policy::Theirs] {
        explore(
            &Plan {
                policy,
                budget: Budget {
                    rotations: 1,
                    reseeds: 1,
                    keep_alives: 1,
                    faults: 1,
                    stale_reads: 1,
                    ..NONE
                },
                clocks: &[Clock::Later, Clock::Back, Clock::Opaque],
                clocks_lie: true,
                persons: &[0, 1],
                ..ONE
            },
            empty(1),
        );
    }
}

#[test]
fn one_runner_one_rotation_and_a_value_that_is_touched_or_put_back() {
    for policy in [Policy::Newest, Policy::Theirs] {
        explore(
            &Plan {
                policy,
                budget: Budget {
                    rotations: 1,
                    touches: 1,
                    backs: 1,
                    by_hand: 1,
                    faults: 1,
                    ..NONE
                },
                clocks: UNCLEAR,
                ..ONE
            },
            empty(1),
        );
    }
}

#[test]
fn every_home_that_a_job_can_find() {
    explore(
        &Plan {
            budget: Budget {
                rotations: 1,
                faults: 1,
                ..NONE
            },
            clocks_lie: true,
            ..ONE
        },
        homes(),
    );
}

#[test]
fn every_home_that_a_job_can_find_while_people_change_the_store() {
    let one = [
        Budget { reseeds: 1, ..NONE },
        Budget {
            keep_alives: 1,
            ..NONE
        },
        Budget { backs: 1, ..NONE },
        Budget { touches: 1, ..NONE },
        Budget { empties: 1, ..NONE },
    ];
    let all = [
        Budget {
            reseeds: 1,
            keep_alives: 1,
            ..NONE
        },
        Budget {
            reseeds: 1,
            backs: 1,
            ..NONE
        },
        Budget {
            keep_alives: 1,
            touches: 1,
            ..NONE
        },
        Budget {
            backs: 1,
            touches: 1,
            ..NONE
        },
        Budget { empties: 1, ..NONE },
    ];
    let budgets = if is_all() { &all[..] } else { &one };
    for &budget in budgets {
        let plan = Plan {
            budget,
            clocks_lie: true,
            ..ONE
        };
        explore(&plan, homes());
    }
}

#[test]
fn two_jobs_in_one_home_that_are_killed_at_any_step() {
    for apart in [false, true] {
        explore(
            &Plan {
                jobs: 3,
                apart,
                budget: Budget {
                    rotations: 2,
                    kills: 2,
                    keep_alives: 1,
                    ..NONE
                },
                clocks: UNCLEAR,
                ..ONE
            },
            empty(1),
        );
    }
}

/// Our own time limit ends while a Codex may still write: nothing is said to be settled, and what
/// it writes is adopted by the next job.
#[test]
fn two_jobs_in_one_home_where_a_codex_is_left_alone() {
    for apart in [false, true] {
        explore(
            &Plan {
                jobs: 2,
                apart,
                budget: Budget {
                    rotations: 1,
                    lefts: 1,
                    kills: 1,
                    keep_alives: 1,
                    faults: 1,
                    ..NONE
                },
                clocks: UNCLEAR,
                ..ONE
            },
            empty(1),
        );
    }
}

/// A Codex of another process spends the login and writes late: while a job begins, waits for the
/// store, or persists, and after that has taken the login away.
#[test]
fn two_jobs_in_one_home_that_a_foreign_codex_uses() {
    for apart in [false, true] {
        for budget in [
            Budget {
                rotations: 1,
                kills: 1,
                faults: 1,
                ..NONE
            },
            Budget {
                rotations: 1,
                reseeds: 1,
                faults: u8::from(is_all()),
                ..NONE
            },
            Budget {
                keep_alives: 1,
                kills: 1,
                watches: 1,
                ..NONE
            },
            Budget {
                foreigners: 1 + u8::from(is_all()),
                reseeds: 1,
                watches: 1,
                ..NONE
            },
        ] {
            explore(
                &Plan {
                    jobs: 2,
                    apart,
                    takes_away: true,
                    budget: Budget {
                        foreigners: budget.foreigners.max(1),
                        ..budget
                    },
                    clocks: UNCLEAR,
                    ..ONE
                },
                empty(1),
            );
        }
    }
}

/// A watch writes through between the commands, and leaves or is killed at any moment.
#[test]
fn two_jobs_in_one_home_with_a_watch_that_stays() {
    for takes_away in [false, true] {
        explore(
            &Plan {
                jobs: 2,
                apart: true,
                takes_away,
                budget: Budget {
                    rotations: 2,
                    watches: 1,
                    faults: 1,
                    reseeds: u8::from(is_all()),
                    ..NONE
                },
                clocks: UNCLEAR,
                ..ONE
            },
            empty(1),
        );
    }
}

#[test]
fn two_jobs_in_one_home_where_old_files_come_back() {
    for apart in [false, true] {
        old_files(apart, &[Clock::Later, Clock::Close], Clock::Later);
        old_files(apart, &[Clock::Opaque], Clock::Opaque);
    }
}

fn old_files(apart: bool, clocks: &'static [Clock], before: Clock) {
    let plan = Plan {
        jobs: 2,
        apart,
        budget: Budget {
            rotations: 1,
            // With opaque tokens alone a second one can hide a rotation that was seen.
            old_files: if is_all() && before != Clock::Opaque {
                2
            } else {
                1
            },
            forgets: 1,
            reseeds: 1,
            ..NONE
        },
        clocks,
        ..ONE
    };
    let setup = Setup {
        clocks: [before; 2],
        slots: vec![EMPTY],
        ..SOUND
    };
    explore(&plan, vec![setup]);
}

/// Whether the larger worlds are asked for.
fn is_all() -> bool {
    std::env::var_os("AUTHFERRY_TEST_ALL").is_some()
}

#[test]
fn two_jobs_in_one_home_and_a_store_that_is_emptied() {
    explore(
        &Plan {
            jobs: 2,
            spoils: true,
            budget: Budget {
                rotations: 2,
                empties: 1,
                backs: 1,
                kills: 1,
                faults: u8::from(is_all()),
                ..NONE
            },
            ..ONE
        },
        empty(1),
    );
}

#[test]
fn two_runners_one_rotation_each_newest() {
    two(&TWO);
}

#[test]
fn two_runners_one_rotation_each_newest_on_a_store_with_history() {
    two(&Plan {
        history: true,
        ..TWO
    });
}

#[test]
fn two_runners_one_rotation_each_theirs() {
    two(&Plan {
        policy: Policy::Theirs,
        ..TWO
    });
}

/// Both may rotate one generation: the provider is lenient.
fn two(plan: &Plan) {
    explore(
        &Plan {
            lenient: true,
            budget: Budget {
                rotations: 2,
                faults: 2,
                ..NONE
            },
            clocks: UNCLEAR,
            ..*plan
        },
        empty(2),
    );
}

#[test]
fn two_runners_and_a_reseed_that_a_third_party_rotates() {
    explore(
        &Plan {
            lenient: true,
            budget: Budget {
                rotations: 2,
                reseeds: 1,
                keep_alives: 1,
                faults: u8::from(is_all()),
                ..NONE
            },
            clocks: if is_all() {
                &[Clock::Later, Clock::Opaque]
            } else {
                &[Clock::Later]
            },
            ..TWO
        },
        empty(2),
    );
}

/// The records and the unfinished rotation of a home.
type Beside = (&'static [(Choice, Option<u8>)], Option<(Choice, u8)>);

/// Every home: a file, with or without a receipt, beside copies, under a head that has its stamp
/// or lost it, and clocks that say what they want.
fn homes() -> Vec<Setup> {
    let mut setups = vec![];
    let files = [
        Choice::Missing,
        Choice::Torn,
        Choice::Line(0),
        Choice::Line(1),
        Choice::Line(2),
        Choice::After(1),
        Choice::After(2),
        Choice::Own,
        Choice::Hers,
    ];
    let beside: [Beside; 7] = [
        (&[], None),
        (&[(Choice::After(2), Some(2))], None),
        (&[(Choice::Line(1), Some(0))], None),
        (&[(Choice::Own, None), (Choice::Hers, None)], None),
        (&[(Choice::Hers, Some(2))], None),
        (&[], Some((Choice::After(2), 2))),
        (&[(Choice::After(1), Some(1))], Some((Choice::After(2), 2))),
    ];
    for file in files {
        for receipt in [None, Some(0), Some(1), Some(2)] {
            for (records, rotation) in beside {
                let slot = Slot {
                    file,
                    receipt,
                    records: records.to_vec(),
                    rotation,
                };
                for &second in ANY_CLOCK {
                    for [stamped, knows_ancestors, refused] in [
                        [true, true, false],
                        [false, true, false],
                        [true, false, false],
                        [true, true, true],
                    ] {
                        setups.push(Setup {
                            clocks: [Clock::Later, second],
                            stamped,
                            knows_ancestors,
                            refused,
                            slots: vec![slot.clone()],
                        });
                    }
                }
            }
        }
    }
    setups
}

/// What was explored so far.
#[derive(Default)]
struct Explored {
    numbers: Map<u64, u32>,
    /// By which event, and from which state, each state was reached first.
    reached: Vec<(&'static str, u32)>,
    stack: Vec<(World, u32)>,
    /// From a state, to one that it follows.
    back: Vec<(u32, u32)>,
}

impl Explored {
    /// Takes a state in; returns its number.
    fn admit(&mut self, label: &'static str, from: u32, mut world: World) -> u32 {
        let over = world.is_over();
        if over {
            world.check_over();
        }
        if let Some(broken) = world.broken {
            let story = self.story(from, label);
            panic!("{broken}: {story}\n{world:#?}");
        }
        let mut hasher = Fold::default();
        world.hash(&mut hasher);
        let fresh = u32::try_from(self.reached.len()).expect("fewer states");
        let number = *self.numbers.entry(hasher.finish()).or_insert(fresh);
        if number == fresh {
            self.reached.push((label, from));
            self.stack.push((world, number));
        }
        number
    }

    /// How a state was reached.
    fn story(&self, mut from: u32, last: &'static str) -> String {
        let mut labels = vec![last];
        while let Some(&(label, before)) = self.reached.get(from as usize) {
            labels.push(label);
            from = before;
        }
        labels.reverse();
        labels.join("; ")
    }
}

#[expect(
    clippy::print_stderr,
    reason = "how much was explored; seen with --nocapture"
)]
fn explore(plan: &Plan, setups: Vec<Setup>) {
    let begun = Instant::now();
    let mut machines = Machines::default();
    let mut explored = Explored::default();
    let mut ends = vec![];
    let mut next = vec![];
    for setup in setups {
        let world = World::new(&setup, plan, &mut machines);
        explored.admit("at first", u32::MAX, world);
        while let Some((world, number)) = explored.stack.pop() {
            world.next(plan, &mut machines, &mut next);
            if world.is_over() {
                ends.push(number);
            } else if next.is_empty() {
                panic!("stuck: {}\n{world:#?}", explored.story(number, ""));
            }
            for (label, world) in next.drain(..) {
                let to = explored.admit(label, number, world);
                explored.back.push((to, number));
            }
        }
    }
    let states = explored.reached.len();
    let lost = without_an_end(states, &explored.back, ends);
    if let Some(state) = lost {
        panic!("no end is reached after: {}", explored.story(state, ""));
    }
    let (trips, steps) = machines.size();
    std::eprintln!(
        "{states} states, {trips} trips, {steps} steps, {:?}: {plan:?}",
        begun.elapsed()
    );
}

/// Returns a state from which no end can be reached.
fn without_an_end(states: usize, back: &[(u32, u32)], mut ends: Vec<u32>) -> Option<u32> {
    let mut first = vec![0_usize; states + 1];
    for (to, _) in back {
        first[*to as usize + 1] += 1;
    }
    for at in 1..=states {
        first[at] += first[at - 1];
    }
    let mut place = first.clone();
    let mut from = vec![0_u32; back.len()];
    for (to, number) in back {
        from[place[*to as usize]] = *number;
        place[*to as usize] += 1;
    }
    let mut reaches = vec![false; states];
    while let Some(number) = ends.pop() {
        let at = number as usize;
        if !core::mem::replace(&mut reaches[at], true) {
            ends.extend(&from[first[at]..first[at + 1]]);
        }
    }
    let lost = reaches.iter().position(|reached| !reached);
    lost.map(|it| u32::try_from(it).expect("a number"))
}
