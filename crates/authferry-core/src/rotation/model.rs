//! Walks through every order in which things can happen to two rotations of one login.
//!
//! Each has a real `Trip` in it. Either may crash at any step, and its Codex with it, or leave a
//! Codex alone that may have spent the token, with a supervisor, without one, or with one that is
//! killed too; the store may fail a look, a bid, a swap or a release, lose the answer to each, or
//! refuse it for good; a claim ends when its holder is gone, or is too slow to renew it. The provider
//! takes a token once.

use alloc::{vec, vec::Vec};
use core::hash::{Hash, Hasher};
use std::collections::HashMap;
use std::hash::DefaultHasher;
use std::string::String;

use super::*;

mod world;

use world::World;

/// What is to be explored.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one thing that may happen"
)]
struct Plan {
    claims: bool,
    /// Whether a claim may end while its holder is at work.
    slow: bool,
    crashes: bool,
    /// Whether the store may refuse something for good.
    refusals: bool,
    deadlines: bool,
    /// Whether a look may show what was there before.
    stale: bool,
    /// Whether the store takes claims, and no login.
    closed: bool,
    /// Whether a rotation of before was killed after Codex wrote: both find its private home.
    unfinished: bool,
    alone: Alone,
}

/// What becomes of a Codex whose rotation ends before it does: by its own time limit, or by a
/// crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alone {
    /// There is none: it is waited for, and a crash is one of the machine.
    Never,
    /// A supervisor watches it, renews the claim, and persists what it writes. The two
    /// rotations may be on two machines.
    Watched,
    /// No process watches it: the watch was killed as well. Both rotations are on its machine, where
    /// they find its private home.
    Unwatched,
    /// A supervisor watches it, and is killed as well at any moment. Both rotations are on its
    /// machine.
    WatchIsKilled,
}

impl Alone {
    /// Whether both rotations are on the machine of the Codex that is left alone.
    fn is_one_machine(self) -> bool {
        match self {
            Alone::Unwatched | Alone::WatchIsKilled => true,
            Alone::Never | Alone::Watched => false,
        }
    }
}

const SOUND: Plan = Plan {
    claims: true,
    slow: false,
    crashes: false,
    refusals: false,
    deadlines: true,
    stale: false,
    closed: false,
    unfinished: false,
    alone: Alone::Never,
};

/// What was found in a world that came to all its ends.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Ways to lose a login, by name.
    losses: Vec<&'static str>,
}

#[test]
fn while_claims_hold_a_token_is_spent_once_and_no_login_is_lost() {
    let found = explore(SOUND).expect("a sound world");
    assert_eq!(found.losses, Vec::<&str>::new());
}

#[test]
fn a_crash_between_the_spend_and_the_swap_is_the_only_loss() {
    let crashes = Plan {
        crashes: true,
        ..SOUND
    };
    let found = explore(crashes).expect("a sound world");
    assert_eq!(
        found.losses,
        ["a crash after the spend and before the swap"]
    );
}

/// A standby may go on showing the login that the last holder of the claim has spent.
#[test]
fn a_look_that_shows_what_was_there_before_spends_nothing() {
    let stale = Plan {
        stale: true,
        ..SOUND
    };
    let found = explore(stale).expect("a sound world");
    assert_eq!(found.losses, Vec::<&str>::new());
}

#[test]
fn a_store_that_gives_a_claim_and_takes_no_login_costs_nothing() {
    let closed = Plan {
        refusals: true,
        closed: true,
        ..SOUND
    };
    let found = explore(closed).expect("a sound world");
    assert_eq!(found.losses, Vec::<&str>::new());
}

/// The token in the store is spent, and the live login is in a private home of this machine.
#[test]
fn a_rotation_that_was_killed_after_the_write_is_adopted_before_anything_is_spent() {
    for stale in [false, true] {
        let unfinished = Plan {
            unfinished: true,
            crashes: true,
            stale,
            ..SOUND
        };
        let found = explore(unfinished).expect("a sound world");
        assert_eq!(found.losses, Vec::<&str>::new());
    }
}

/// Codex has spent the token, and the rotation ends before it writes the new login.
#[test]
fn a_codex_that_is_left_alone_loses_no_login_and_no_token_is_spent_twice() {
    for (alone, stale) in [
        (Alone::Watched, false),
        (Alone::Watched, true),
        (Alone::Unwatched, false),
        (Alone::Unwatched, true),
        (Alone::WatchIsKilled, false),
        (Alone::WatchIsKilled, true),
    ] {
        let left = Plan {
            alone,
            crashes: true,
            stale,
            ..SOUND
        };
        let found = explore(left).expect("a sound world");
        assert_eq!(found.losses, Vec::<&str>::new(), "{alone:?} {stale}");
    }
}

/// What the store did not take then lies in a rescue file, or in the only copy.
#[test]
fn a_store_that_takes_no_login_any_more_costs_a_rescue() {
    let refusals = Plan {
        refusals: true,
        ..SOUND
    };
    let found = explore(refusals).expect("a sound world");
    assert_eq!(found.losses, ["a store that refuses the swap"]);
}

/// Every way to an end that the others rest on is there without a limit on the time.
#[test]
fn nobody_waits_for_ever_not_even_for_one_who_crashed() {
    let patient = Plan {
        crashes: true,
        deadlines: false,
        ..SOUND
    };
    explore(patient).expect("an end from every state");
}

#[test]
fn without_a_claim_a_token_is_spent_twice() {
    let unclaimed = Plan {
        claims: false,
        ..SOUND
    };
    let why = explore(unclaimed).expect_err("two that spend one token");
    assert!(why.contains("a token was spent twice"), "{why}");
}

#[test]
fn a_claim_that_ends_under_its_holder_protects_nothing() {
    let slow = Plan {
        slow: true,
        ..SOUND
    };
    let why = explore(slow).expect_err("two that spend one token");
    assert!(why.contains("a token was spent twice"), "{why}");
}

/// Returns what was found, or the first state in which something does not hold.
#[expect(
    clippy::print_stderr,
    reason = "how much was explored; seen with --nocapture"
)]
fn explore(plan: Plan) -> Result<Found, String> {
    let first = World::new(plan);
    let hash = |world: &World| {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        hasher.finish()
    };
    // A state is known by its hash: some 10^5 of them do not meet in 64 bits.
    let mut numbers = HashMap::from([(hash(&first), 0_usize)]);
    let mut parents: Vec<Vec<usize>> = vec![vec![]];
    let mut ends = vec![];
    let mut found = Found::default();
    let mut queue = vec![(first, 0)];
    while let Some((world, number)) = queue.pop() {
        world.check()?;
        let next = world.next(plan);
        if world.is_over() {
            ends.push(number);
            for loss in world.losses()? {
                if !found.losses.contains(&loss) {
                    found.losses.push(loss);
                }
            }
        } else if next.is_empty() {
            return Err(alloc::format!("stuck: {world:#?}"));
        }
        for world in next {
            let fresh = numbers.len();
            let number_of_next = *numbers.entry(hash(&world)).or_insert(fresh);
            if number_of_next == fresh {
                parents.push(vec![]);
                queue.push((world, fresh));
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
    if !reaches_an_end.iter().all(|&ok| ok) {
        return Err("somebody waits for ever".into());
    }
    std::eprintln!("{states} states: {plan:?}");
    Ok(found)
}
