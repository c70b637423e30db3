//! Whether two that write over one version find each other, in the same vaults and the same
//! time as the odds of the claims.

use authferry_core::{Origin, Secret, Stamp, WriteId};

use super::Fork;
use crate::{
    claim_log::odds::{Chance, NATURES, Nature, ROUNDS, SPREAD, clocks, stamp},
    tags,
    wire::{Kept, Listed, Tags},
};

const WRITERS: u64 = 3;

/// What is listed once stays listed: so whoever comes last there sees all others.
#[test]
fn a_fork_is_always_noticed_and_all_agree_what_counts() {
    let before = Kept {
        version: "0".repeat(32),
        value: Secret::new(b"before".to_vec()),
        tags: Tags::new(),
        created: -1,
        content_type: None,
    };
    let tags: Vec<_> = (0..WRITERS)
        .map(|number| tags_of(number, &before))
        .collect();
    for nature in NATURES {
        for round in 0..ROUNDS {
            let written = write(nature, u64::from(round), &tags);
            let seen_by_last = written.iter().map(|(seen, _)| *seen).max().expect("some");
            let mut noticed = 0;
            for (seen, _) in &written {
                let list = list(&written, *seen);
                let fork = Fork::of(&list, Some(&before));
                if !fork.is_none() {
                    noticed += 1;
                }
                if *seen == seen_by_last {
                    let mut all: Vec<_> = list.iter().map(|it| (it.created, &it.version)).collect();
                    all.sort();
                    assert_eq!(fork.counts(), *all[0].1, "the first one");
                    assert_eq!(list.len(), written.len(), "all are readable");
                }
            }
            assert!(noticed > 0, "round {round}");
        }
    }
}

/// The proof that one alone is taken for no fork.
#[test]
fn one_writer_makes_no_fork() {
    let before = Kept {
        version: "0".repeat(32),
        value: Secret::new(b"before".to_vec()),
        tags: Tags::new(),
        created: -1,
        content_type: None,
    };
    let written = write(NATURES[0], 1, &[tags_of(1, &before)]);
    let list = list(&written, written[0].0);
    assert!(Fork::of(&list, Some(&before)).is_none());
}

/// When each writer is shown its version, and that.
fn write(nature: Nature, round: u64, tags: &[Tags]) -> Vec<(u64, Listed)> {
    let mut chance = Chance(round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let clocks = clocks(nature, &mut chance);
    let written = tags.iter().map(|tags| {
        let now = chance.below(SPREAD);
        let listed = Listed {
            version: format!("{:032x}", chance.next()),
            tags: tags.clone(),
            created: stamp(now, &clocks, &mut chance),
            enabled: true,
        };
        let visible = now + nature.delay(&mut chance) + chance.below(nature.lag + 1);
        (visible, listed)
    });
    written.collect()
}

fn list(written: &[(u64, Listed)], now: u64) -> Vec<Listed> {
    let visible = written.iter().filter(|(visible, _)| *visible <= now);
    visible.map(|(_, listed)| listed.clone()).collect()
}

fn tags_of(number: u64, before: &Kept) -> Tags {
    let new = Secret::new(format!("login {number}").into_bytes());
    let stamp = Stamp {
        id: WriteId {
            trip: number,
            number: 1,
        },
        count: 2,
        origin: Origin::Rotation,
        family: authferry_core::Family(authferry_core::Fingerprint::new([5; 8])),
        volatile_hints: false,
        writer: "https://ci.example/1".to_owned(),
    };
    tags::of_write(&new, &stamp, Some(&before.version), None, &before.tags)
}
