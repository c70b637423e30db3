//! Model checks the protocol: explores every interleaving of some writers of one secret.
//!
//! Writers pause between any two steps, crash, and restart with the same write. A put may land
//! after its sender's timeout. A list comes in two pages, read one after the other, and may be
//! stale. A person may put a value or delete all versions at any moment. The model checks the
//! pointer after each step and the outcome of each operation. In each reached state it also
//! checks the result of a new reader and a new writer.

use std::collections::{HashMap, HashSet, VecDeque};

use super::*;

mod world;

use world::World;

/// The parameters of one exploration.
#[derive(Clone, Copy, Debug)]
struct Plan {
    writers: u8,
    readers: u8,
    /// How often a person puts a value.
    reseeds: u8,
    /// How often a person purges all versions.
    wipes: u8,
    /// How often a writer crashes or times out.
    deaths: u8,
    /// How many crashed writers restart with the same write.
    returns: u8,
    /// Whether a list may be staler than a read of the newest version.
    lag: bool,
    /// Whether the pointer exists at the start.
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
    reason = "the number of states; visible with --nocapture"
)]
fn explore(plan: Plan) {
    let first = World::new(plan);
    let mut numbers = HashMap::from([(first.clone(), 0_usize)]);
    let mut parents: Vec<Vec<usize>> = vec![vec![]];
    let mut ends = vec![];
    let mut bare_worlds = HashSet::new();
    let mut queue = VecDeque::from([(first, 0)]);
    while let Some((world, number)) = queue.pop_front() {
        let bare = world.without_actors();
        if bare_worlds.insert(bare.clone()) {
            bare.check_newcomers();
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
    let mut can_end = vec![false; states];
    while let Some(number) = ends.pop() {
        if !std::mem::replace(&mut can_end[number], true) {
            ends.extend(&parents[number]);
        }
    }
    assert!(can_end.iter().all(|&ok| ok), "an operation never ends");
    eprintln!("{states} states: {plan:?}");
}
