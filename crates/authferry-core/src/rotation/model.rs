//! Explores every order of events of two rotations of one login.
//!
//! Each rotation contains a real `RoundTrip`. It may crash at any step together with its Codex. It
//! may also orphan a Codex that may have spent the token: with a supervisor, without one, or with
//! one that is killed too. The store may fail a read, a lease request, a swap or a release, lose
//! the answer, or refuse permanently. A lease expires when its holder is gone or renews too late.
//! The provider accepts a token once.

use alloc::{vec, vec::Vec};
use core::hash::{Hash, Hasher};
use std::collections::HashMap;
use std::hash::DefaultHasher;
use std::string::String;

use super::*;

mod world;

use world::RotationWorld;

/// What to explore.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one kind of event")]
struct RotationPlan {
    leases: bool,
    /// Whether a lease may expire while its holder still runs.
    slow: bool,
    crashes: bool,
    /// Whether the store may refuse a request permanently.
    refusals: bool,
    deadlines: bool,
    /// Whether a read may be stale.
    stale: bool,
    /// Whether the store grants leases but refuses logins.
    closed: bool,
    /// Whether an earlier rotation was killed after Codex wrote: both find its private home.
    unfinished: bool,
    orphan: Orphan,
}

/// What happens to a Codex that outlives its rotation, after a timeout or a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Orphan {
    /// There is none: the rotation waits for its Codex, and a crash is a crash of the machine.
    Never,
    /// A supervisor watches it, renews the lease, and persists the login that it writes. The two
    /// rotations may run on two machines.
    Watched,
    /// No process watches it: the supervisor was killed as well. Both rotations run on its machine
    /// and find its private home.
    Unwatched,
    /// A supervisor watches it and may be killed at any moment. Both rotations run on its machine.
    WatchIsKilled,
}

impl Orphan {
    /// Whether both rotations run on the machine of the orphaned Codex.
    fn is_one_machine(self) -> bool {
        match self {
            Orphan::Unwatched | Orphan::WatchIsKilled => true,
            Orphan::Never | Orphan::Watched => false,
        }
    }
}

const SOUND: RotationPlan = RotationPlan {
    leases: true,
    slow: false,
    crashes: false,
    refusals: false,
    deadlines: true,
    stale: false,
    closed: false,
    unfinished: false,
    orphan: Orphan::Never,
};

/// The result of exploring a world to all its ends.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    /// The ways in which a login was lost, by name.
    losses: Vec<&'static str>,
}

#[test]
fn under_a_lease_a_token_is_spent_once_and_no_login_is_lost() {
    let findings = explore(SOUND).expect("a sound world");
    assert_eq!(findings.losses, Vec::<&str>::new());
}

#[test]
fn a_crash_between_the_spend_and_the_swap_is_the_only_loss() {
    let crashes = RotationPlan {
        crashes: true,
        ..SOUND
    };
    let findings = explore(crashes).expect("a sound world");
    assert_eq!(
        findings.losses,
        ["a crash after the spend and before the swap"]
    );
}

/// A replica may still return the login that the last lease holder has spent.
#[test]
fn a_stale_read_spends_no_token() {
    let stale = RotationPlan {
        stale: true,
        ..SOUND
    };
    let findings = explore(stale).expect("a sound world");
    assert_eq!(findings.losses, Vec::<&str>::new());
}

#[test]
fn a_store_that_grants_a_lease_and_refuses_the_login_loses_no_login() {
    let closed = RotationPlan {
        refusals: true,
        closed: true,
        ..SOUND
    };
    let findings = explore(closed).expect("a sound world");
    assert_eq!(findings.losses, Vec::<&str>::new());
}

/// The token in the store is spent, and the live login is in a private home of this machine.
#[test]
fn a_rotation_killed_after_the_write_is_adopted_before_a_token_is_spent() {
    for stale in [false, true] {
        let unfinished = RotationPlan {
            unfinished: true,
            crashes: true,
            stale,
            ..SOUND
        };
        let findings = explore(unfinished).expect("a sound world");
        assert_eq!(findings.losses, Vec::<&str>::new());
    }
}

/// Codex has spent the token, and the rotation ends before it writes the new login.
#[test]
fn an_orphaned_codex_loses_no_login_and_spends_no_token_twice() {
    for (orphan, stale) in [
        (Orphan::Watched, false),
        (Orphan::Watched, true),
        (Orphan::Unwatched, false),
        (Orphan::Unwatched, true),
        (Orphan::WatchIsKilled, false),
        (Orphan::WatchIsKilled, true),
    ] {
        let left = RotationPlan {
            orphan,
            crashes: true,
            stale,
            ..SOUND
        };
        let findings = explore(left).expect("a sound world");
        assert_eq!(findings.losses, Vec::<&str>::new(), "{orphan:?} {stale}");
    }
}

/// The login that the store refused is then in a rescue file or in the only copy.
#[test]
fn a_store_that_refuses_the_swap_is_the_only_loss() {
    let refusals = RotationPlan {
        refusals: true,
        ..SOUND
    };
    let findings = explore(refusals).expect("a sound world");
    assert_eq!(findings.losses, ["a store that refuses the swap"]);
}

/// Without deadlines, every state still reaches an end, even after a crash.
#[test]
fn every_rotation_ends_without_a_deadline() {
    let patient = RotationPlan {
        crashes: true,
        deadlines: false,
        ..SOUND
    };
    explore(patient).expect("an end from every state");
}

#[test]
fn without_a_lease_a_token_is_spent_twice() {
    let unclaimed = RotationPlan {
        leases: false,
        ..SOUND
    };
    let why = explore(unclaimed).expect_err("two that spend one token");
    assert!(why.contains("a token was spent twice"), "{why}");
}

#[test]
fn a_lease_that_expires_during_a_rotation_lets_a_token_be_spent_twice() {
    let slow = RotationPlan {
        slow: true,
        ..SOUND
    };
    let why = explore(slow).expect_err("two that spend one token");
    assert!(why.contains("a token was spent twice"), "{why}");
}

/// Returns the findings, or the first state that violates a property.
#[expect(
    clippy::print_stderr,
    reason = "the size of the model; shown with --nocapture"
)]
fn explore(plan: RotationPlan) -> Result<Findings, String> {
    let first = RotationWorld::new(plan);
    let hash = |world: &RotationWorld| {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        hasher.finish()
    };
    // A state is identified by its hash: some 10^5 states do not collide in 64 bits.
    let mut numbers = HashMap::from([(hash(&first), 0_usize)]);
    let mut parents: Vec<Vec<usize>> = vec![vec![]];
    let mut ends = vec![];
    let mut findings = Findings::default();
    let mut queue = vec![(first, 0)];
    while let Some((world, number)) = queue.pop() {
        world.check()?;
        let next = world.next(plan);
        if world.is_over() {
            ends.push(number);
            for loss in world.losses()? {
                if !findings.losses.contains(&loss) {
                    findings.losses.push(loss);
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
        return Err("a rotation waits forever".into());
    }
    std::eprintln!("{states} states: {plan:?}");
    Ok(findings)
}
