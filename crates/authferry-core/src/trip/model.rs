//! Walks through every order in which things can happen to one or two trips.
//!
//! The store's swap may land, land with its reply lost, land late, be lost, be throttled
//! or be denied; a read may fail for a while or for good; a rescue may fail; the deadline
//! may pass at any moment at which the driver may send it; a person may reseed. After
//! each step the store is checked, at each end the outcome is, and from every state that
//! was reached some end must still be reachable.

use alloc::{vec, vec::Vec};
use std::collections::{HashMap, VecDeque};

use super::*;
use crate::Policy;

mod world;

use world::World;

/// What is to be explored.
#[derive(Debug)]
struct Plan {
    runners: u8,
    rotations: u8,
    reseeds: u8,
    /// How often the value gets a new version and stays the same: touched, or put back from
    /// a copy.
    touches: u8,
    policy: Policy,
    history: bool,
    /// Whether the file may be gone or useless when the command ends.
    spoils: bool,
    /// Whether the home already holds a generation that never reached the store.
    leftover: bool,
}

const ONE: Plan = Plan {
    runners: 1,
    rotations: 2,
    reseeds: 0,
    touches: 0,
    policy: Policy::Newest,
    history: false,
    spoils: true,
    leftover: false,
};

const TWO: Plan = Plan {
    runners: 2,
    rotations: 1,
    spoils: false,
    ..ONE
};

#[test]
fn one_runner_two_rotations() {
    explore(&ONE);
}

#[test]
fn one_runner_one_rotation_and_a_reseed() {
    for policy in [Policy::Newest, Policy::Theirs] {
        explore(&Plan {
            rotations: 1,
            reseeds: 1,
            policy,
            ..ONE
        });
    }
}

#[test]
fn one_runner_that_finds_a_newer_file_and_a_reseed() {
    explore(&Plan {
        rotations: 1,
        reseeds: 1,
        leftover: true,
        ..ONE
    });
}

#[test]
fn one_runner_one_rotation_and_a_value_that_is_touched_or_put_back() {
    for policy in [Policy::Newest, Policy::Theirs] {
        explore(&Plan {
            rotations: 1,
            touches: 2,
            policy,
            ..ONE
        });
    }
}

#[test]
fn two_runners_one_rotation_each_newest() {
    explore(&TWO);
}

#[test]
fn two_runners_one_rotation_each_newest_on_a_store_with_history() {
    explore(&Plan {
        history: true,
        ..TWO
    });
}

#[test]
fn two_runners_one_rotation_each_theirs() {
    explore(&Plan {
        policy: Policy::Theirs,
        ..TWO
    });
}

#[expect(
    clippy::print_stderr,
    reason = "how much was explored; seen with --nocapture"
)]
fn explore(plan: &Plan) {
    let first = World::new(plan);
    let mut numbers = HashMap::from([(first.clone(), 0_usize)]);
    let mut parents: Vec<Vec<usize>> = vec![vec![]];
    let mut ends = vec![];
    let mut queue = VecDeque::from([(first, 0)]);
    while let Some((world, number)) = queue.pop_front() {
        let next = world.next(plan);
        if world.runners.iter().all(|r| r.outcome.is_some()) {
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
        if !core::mem::replace(&mut reaches_an_end[number], true) {
            ends.extend(&parents[number]);
        }
    }
    assert!(
        reaches_an_end.iter().all(|&ok| ok),
        "some state leads to no end"
    );
    std::eprintln!("{states} states: {plan:?}");
}
