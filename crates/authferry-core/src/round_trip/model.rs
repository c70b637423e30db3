//! Explores every order of events of the jobs on one or two machines.
//!
//! Store and disk: a swap may land, land with its answer lost, land late, be lost, be throttled or
//! be denied. A read may fail or be stale. A rescue may fail. A deadline may pass. A job may be
//! killed between any two steps.
//!
//! People and third parties: a person may seed another login, write one into the store by hand,
//! restore a backup, roll the store back, or empty it. A third party may rotate the head.
//!
//! Processes: a job may end while an orphaned Codex may still write the auth file. A Codex that
//! authferry did not start may use the home at any moment, spend the login and write late. A watch
//! may stay after a command, write through, and leave or be killed. A second job may start before
//! the first has persisted, or the persist may never run.
//!
//! Files: stamps, files and receipts may be lost. A cache may bring back an old auth file. Clocks
//! may be wrong. Every event is subject to every property, and every write is checked.
//!
//! Each step checks the store and the homes, and each end checks the outcome. From every state some
//! end must be reachable. A 64-bit hash identifies a state, and each step of a round trip is
//! computed once (`machines.rs`).

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

/// What to explore.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one condition")]
struct Plan {
    homes: u8,
    /// How many jobs use each home, one after the other.
    jobs: u8,
    budget: Budget,
    policy: Policy,
    history: bool,
    /// Whether the file may be missing or torn when the command ends.
    spoils_file: bool,
    /// Whether the provider accepts a refresh token twice.
    allows_reuse: bool,
    /// Whether each job is a restore, a command and a persist.
    is_split: bool,
    /// Whether the job removes the login from the home at its end.
    removes_login: bool,
    /// The possible clock readings of a new generation.
    clocks: &'static [Clock],
    /// Whether the clocks may clearly contradict the order of creation.
    clocks_lie: bool,
    /// The persons whose logins may be put into the store.
    persons: &'static [u8],
}

/// The login in a file or a record.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Missing,
    Torn,
    /// One that the store held: 0, 1 or 2.
    Line(u8),
    /// One that was rotated from it but never reached the store.
    After(u8),
    /// Of the same person, from another session.
    Own,
    /// Another person's of the same workspace.
    OtherPerson,
}

/// The initial content of a home.
#[derive(Clone, Debug)]
struct Slot {
    file: Choice,
    /// The store's entry that the receipt names.
    receipt: Option<u8>,
    /// Logins in the rescue folder, with the entries that their records name.
    records: Vec<(Choice, Option<u8>)>,
    rotation: Option<(Choice, u8)>,
}

/// The initial state.
#[derive(Clone, Debug)]
struct Setup {
    /// The clock readings of the second and the third generation, and of the next.
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
    manual_writes: 0,
    rollbacks: 0,
    touches: 0,
    deletions: 0,
    old_files: 0,
    orphans: 0,
    foreigners: 0,
    watches: 0,
    lost_receipts: 0,
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
    spoils_file: false,
    allows_reuse: false,
    is_split: false,
    removes_login: false,
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
            spoils_file: true,
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
fn one_runner_one_rotation_and_a_rotated_reseed() {
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
fn one_runner_one_rotation_and_a_value_that_is_touched_or_rolled_back() {
    for policy in [Policy::Newest, Policy::Theirs] {
        explore(
            &Plan {
                policy,
                budget: Budget {
                    rotations: 1,
                    touches: 1,
                    rollbacks: 1,
                    manual_writes: 1,
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
        Budget {
            rollbacks: 1,
            ..NONE
        },
        Budget { touches: 1, ..NONE },
        Budget {
            deletions: 1,
            ..NONE
        },
    ];
    let all = [
        Budget {
            reseeds: 1,
            keep_alives: 1,
            ..NONE
        },
        Budget {
            reseeds: 1,
            rollbacks: 1,
            ..NONE
        },
        Budget {
            keep_alives: 1,
            touches: 1,
            ..NONE
        },
        Budget {
            rollbacks: 1,
            touches: 1,
            ..NONE
        },
        Budget {
            deletions: 1,
            ..NONE
        },
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
    for is_split in [false, true] {
        explore(
            &Plan {
                jobs: 3,
                is_split,
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

/// Our own timeout passes while a Codex may still write: the outcome is unsettled, and the next job
/// adopts the login that the Codex writes.
#[test]
fn two_jobs_in_one_home_with_an_orphaned_codex() {
    for is_split in [false, true] {
        explore(
            &Plan {
                jobs: 2,
                is_split,
                budget: Budget {
                    rotations: 1,
                    orphans: 1,
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

/// A Codex of another process spends the login and writes late: while a job starts, waits for the
/// store or persists, or after the job has removed the login.
#[test]
fn two_jobs_in_one_home_that_a_foreign_codex_uses() {
    for is_split in [false, true] {
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
                    is_split,
                    removes_login: true,
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
    for removes_login in [false, true] {
        explore(
            &Plan {
                jobs: 2,
                is_split: true,
                removes_login,
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
    for is_split in [false, true] {
        old_files(is_split, &[Clock::Later, Clock::Close], Clock::Later);
        old_files(is_split, &[Clock::Opaque], Clock::Opaque);
    }
}

fn old_files(is_split: bool, clocks: &'static [Clock], before: Clock) {
    let plan = Plan {
        jobs: 2,
        is_split,
        budget: Budget {
            rotations: 1,
            // With only opaque tokens a second one can hide a rotation that was seen.
            old_files: if is_all() && before != Clock::Opaque {
                2
            } else {
                1
            },
            lost_receipts: 1,
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

/// Whether to explore the larger worlds.
fn is_all() -> bool {
    std::env::var_os("AUTHFERRY_TEST_ALL").is_some()
}

#[test]
fn two_jobs_in_one_home_and_a_store_that_is_emptied() {
    explore(
        &Plan {
            jobs: 2,
            spoils_file: true,
            budget: Budget {
                rotations: 2,
                deletions: 1,
                rollbacks: 1,
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

/// Both may rotate the same generation: the provider accepts a token twice.
fn two(plan: &Plan) {
    explore(
        &Plan {
            allows_reuse: true,
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
fn two_runners_and_a_rotated_reseed() {
    explore(
        &Plan {
            allows_reuse: true,
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

/// The records and the interrupted rotation of a home.
type OtherCopies = (&'static [(Choice, Option<u8>)], Option<(Choice, u8)>);

/// Every home: a file with or without a receipt, with other copies, a head with or without its
/// stamp, and any clocks.
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
        Choice::OtherPerson,
    ];
    let others: [OtherCopies; 7] = [
        (&[], None),
        (&[(Choice::After(2), Some(2))], None),
        (&[(Choice::Line(1), Some(0))], None),
        (&[(Choice::Own, None), (Choice::OtherPerson, None)], None),
        (&[(Choice::OtherPerson, Some(2))], None),
        (&[], Some((Choice::After(2), 2))),
        (&[(Choice::After(1), Some(1))], Some((Choice::After(2), 2))),
    ];
    for file in files {
        for receipt in [None, Some(0), Some(1), Some(2)] {
            for (records, rotation) in others {
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

/// The states explored so far.
#[derive(Default)]
struct Explored {
    numbers: Map<u64, u32>,
    /// The event and the state from which each state was first reached.
    reached: Vec<(&'static str, u32)>,
    stack: Vec<(World, u32)>,
    /// Edges from a state to a predecessor.
    back: Vec<(u32, u32)>,
}

impl Explored {
    /// Adds a state; returns its number.
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

    /// The events that led to a state.
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
    reason = "the size of the model; shown with --nocapture"
)]
fn explore(plan: &Plan, setups: Vec<Setup>) {
    let begun = Instant::now();
    let mut machines = Machines::default();
    let mut explored = Explored::default();
    let mut ends = vec![];
    let mut next = vec![];
    for setup in setups {
        let world = World::new(&setup, plan, &mut machines);
        explored.admit("start", u32::MAX, world);
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
        panic!("no end is reachable after: {}", explored.story(state, ""));
    }
    let (round_trips, steps) = machines.size();
    std::eprintln!(
        "{states} states, {round_trips} round trips, {steps} steps, {:?}: {plan:?}",
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
