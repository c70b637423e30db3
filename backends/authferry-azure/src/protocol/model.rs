//! Walks through every order in which things can happen to some writers of one secret.
//!
//! Writers stop for any time between any two steps, die, and come back with the same write.
//! A put may land after its sender has given up on it. A list comes in two pages, read one
//! after the other, and may lag behind. A person may put a value or delete all of them at any
//! moment. After each step the pointer is checked, at each end the outcome is, and in each
//! state that was reached it is checked what somebody would find who comes then.

use std::collections::{HashMap, HashSet, VecDeque};

use super::*;

mod world;

use world::World;

/// What is to be explored.
#[derive(Clone, Copy, Debug)]
struct Plan {
    writers: u8,
    readers: u8,
    /// How often a person puts a value.
    reseeds: u8,
    /// How often a person deletes all versions for good.
    wipes: u8,
    /// How often a writer dies, or gives up on what it asked for.
    deaths: u8,
    /// How many of the dead come back with the same write.
    returns: u8,
    /// Whether a list may show less than a look at the newest version.
    lag: bool,
    /// Whether there is a pointer already.
    pointer: bool,
}

const TWO: Plan = Plan {
    writers: 2,
    readers: 0,
    reseeds: 0,
    wipes: 0,
    deaths: 0,
    returns: 0,
    lag: false,
    pointer: true,
};

#[test]
fn two_writers_of_which_one_dies_and_comes_back() {
    explore(Plan {
        deaths: 1,
        returns: 1,
        ..TWO
    });
}

#[test]
fn two_writers_that_die() {
    explore(Plan { deaths: 2, ..TWO });
}

#[test]
fn two_writers_and_a_reseed() {
    for pointer in [false, true] {
        explore(Plan {
            reseeds: 1,
            pointer,
            ..TWO
        });
    }
}

#[test]
fn a_writer_that_dies_and_two_reseeds() {
    for pointer in [false, true] {
        explore(Plan {
            writers: 1,
            reseeds: 2,
            deaths: 1,
            returns: 1,
            pointer,
            ..TWO
        });
    }
}

#[test]
fn a_writer_a_reader_and_a_reseed() {
    explore(Plan {
        writers: 1,
        readers: 1,
        reseeds: 1,
        deaths: 1,
        ..TWO
    });
}

#[test]
fn a_writer_and_a_reader_whose_lists_lag() {
    explore(Plan {
        writers: 1,
        readers: 1,
        deaths: 1,
        lag: true,
        ..TWO
    });
}

#[test]
fn a_writer_whose_lists_lag_and_a_reseed() {
    explore(Plan {
        writers: 1,
        reseeds: 1,
        deaths: 1,
        lag: true,
        ..TWO
    });
}

#[test]
fn a_writer_that_dies_a_reseed_and_everything_deleted() {
    explore(Plan {
        writers: 1,
        reseeds: 1,
        wipes: 1,
        deaths: 1,
        returns: 1,
        ..TWO
    });
}

#[expect(
    clippy::print_stderr,
    reason = "how much was explored; seen with --nocapture"
)]
fn explore(plan: Plan) {
    let first = World::new(plan);
    let mut numbers = HashMap::from([(first.clone(), 0_usize)]);
    let mut parents: Vec<Vec<usize>> = vec![vec![]];
    let mut ends = vec![];
    let mut places = HashSet::new();
    let mut queue = VecDeque::from([(first, 0)]);
    while let Some((world, number)) = queue.pop_front() {
        let bare = world.without_actors();
        if places.insert(bare.clone()) {
            bare.check_who_comes_now();
        }
        let next = world.next();
        if world.is_over() {
            ends.push(number);
        } else {
            assert!(!next.is_empty(), "stuck: {world:#?}");
        }
        for world in next {
            let fresh = numbers.len();
            let number_of_next = *numbers.entry(world.clone()).or_insert(fresh);
            if number_of_next == fresh {
                parents.push(vec![]);
                queue.push_back((world, fresh));
            }
            parents[number_of_next].push(number);
        }
    }
    let states = numbers.len();
    let mut reaches_an_end = vec![false; states];
    while let Some(number) = ends.pop() {
        if !std::mem::replace(&mut reaches_an_end[number], true) {
            ends.extend(&parents[number]);
        }
    }
    assert!(
        reaches_an_end.iter().all(|&ok| ok),
        "somebody waits for ever"
    );
    eprintln!("{states} states: {plan:?}");
}
