//! What a look at the store and at the file says: plain functions over what was seen.

use core::cmp::Ordering;

use crate::{Generation, Guarantees, Origin, Stamp, Version, WriteId};

/// What the store holds, as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// The version a swap may expect.
    pub version: Version,
    /// The generation; `None` when the value is not a usable login.
    pub generation: Option<Generation>,
    /// Which write put it there, if the store can tell.
    pub id: Option<WriteId>,
    /// How many generations this login has had.
    pub count: u64,
    /// Whether a person put it there, by `seed` or by the store's own tools.
    pub reseed: bool,
}

impl Held {
    /// Reads a stamp in the light of what its store promises: where stamps are kept, a
    /// value without one was put there by hand.
    #[must_use]
    pub fn new(
        version: Version,
        generation: Option<Generation>,
        stamp: Option<&Stamp>,
        guarantees: Guarantees,
    ) -> Self {
        Self {
            version,
            generation,
            id: stamp.map(|s| s.id),
            count: stamp.map_or(1, |s| s.count),
            reseed: stamp.map_or(guarantees.stamps, |s| s.origin == Origin::Seed),
        }
    }
}

/// What a look at the auth file found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// No file.
    Missing,
    /// A file that carries no login that could be kept.
    Unusable,
    /// A login.
    Usable(Generation),
}

/// Why a command was not started. Neither the store nor the file was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The store holds nothing yet.
    NothingStored,
    /// What the store holds is not a usable login.
    UnusableStored,
    /// The file on disk is not a usable login, and could not be told from a damaged newer one.
    UnusableFile,
    /// The file on disk belongs to another account.
    OtherAccount,
    /// The file on disk differs from the store's, and nothing tells which is newer.
    Undecided,
    /// The store refused to be read.
    Unreadable,
    /// The file on disk is newer, and the store refused to take it.
    Unwritable,
    /// The store did not answer in time.
    OutOfTime,
    /// The file could not be placed.
    NotPlaced,
    /// The file changed while the store was read.
    Overtaken,
    /// What was to be replaced could not be kept first.
    NotKept,
}

/// How a trip begins: the table *What restore does*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The file already carries what the store holds.
    Keep,
    /// The file is to be written from the store.
    Place,
    /// The same, once the login that is there is kept elsewhere.
    Yield,
    /// The file is newer: an earlier persist was lost, so the store comes first.
    Adopt(Generation),
    /// Nothing is to be touched.
    Refuse(Refusal),
}

/// Judges the file on disk against the store before anything is touched.
///
/// `derived`: the file is known to descend from the very version that the store holds;
/// otherwise the time of issue tells whether it is newer. `replace` lets go of a file that
/// is unusable, foreign or undecided.
pub(crate) fn start(seen: &Seen, held: Option<&Held>, derived: bool, replace: bool) -> Start {
    let Some(held) = held else {
        return Start::Refuse(Refusal::NothingStored);
    };
    let Some(theirs) = &held.generation else {
        return Start::Refuse(Refusal::UnusableStored);
    };
    let ours = match seen {
        Seen::Missing => return Start::Place,
        Seen::Unusable if replace => return Start::Place,
        Seen::Unusable => return Start::Refuse(Refusal::UnusableFile),
        Seen::Usable(ours) => ours,
    };
    if ours.fingerprint == theirs.fingerprint {
        return Start::Keep;
    }
    let newer = ours.issued.compare(&theirs.issued);
    match newer {
        _ if ours.account != theirs.account && replace => Start::Yield,
        _ if ours.account != theirs.account => Start::Refuse(Refusal::OtherAccount),
        _ if derived => Start::Adopt(ours.clone()),
        Some(Ordering::Greater) => Start::Adopt(ours.clone()),
        Some(Ordering::Less | Ordering::Equal) => Start::Place,
        None if replace => Start::Yield,
        None => Start::Refuse(Refusal::Undecided),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Account, Fingerprint, Issued};

    fn generation(n: u8, account: &str, iat: Option<i64>) -> Generation {
        Generation {
            fingerprint: Fingerprint::new([n; 8]),
            account: Account::new(account),
            issued: Issued {
                iat,
                ..Issued::default()
            },
        }
    }

    fn held(generation: Option<Generation>) -> Held {
        Held {
            version: Version::new("1"),
            generation,
            id: None,
            count: 1,
            reseed: false,
        }
    }

    #[test]
    fn restore_follows_its_table() {
        let stored = held(Some(generation(1, "a", Some(10))));
        let newer = generation(2, "a", Some(11));
        let refuse = Start::Refuse;
        let rows = [
            // file on disk, as is, with --replace
            (Seen::Missing, Start::Place, Start::Place),
            (Seen::Unusable, refuse(Refusal::UnusableFile), Start::Place),
            (
                Seen::Usable(generation(1, "a", Some(10))),
                Start::Keep,
                Start::Keep,
            ),
            (
                Seen::Usable(generation(2, "a", Some(9))),
                Start::Place,
                Start::Place,
            ),
            (
                Seen::Usable(newer.clone()),
                Start::Adopt(newer.clone()),
                Start::Adopt(newer),
            ),
            (
                Seen::Usable(generation(2, "b", Some(11))),
                refuse(Refusal::OtherAccount),
                Start::Yield,
            ),
            (
                Seen::Usable(generation(2, "a", None)),
                refuse(Refusal::Undecided),
                Start::Yield,
            ),
        ];
        for (seen, plain, replacing) in rows {
            assert_eq!(start(&seen, Some(&stored), false, false), plain, "{seen:?}");
            assert_eq!(
                start(&seen, Some(&stored), false, true),
                replacing,
                "{seen:?} --replace"
            );
        }
    }

    #[test]
    fn a_file_that_descends_from_the_store_is_newer_whatever_the_clocks_say() {
        let stored = held(Some(generation(1, "a", Some(10))));
        for iat in [None, Some(9), Some(11)] {
            let ours = generation(2, "a", iat);
            let found = start(&Seen::Usable(ours.clone()), Some(&stored), true, false);
            assert_eq!(found, Start::Adopt(ours));
        }
    }

    #[test]
    fn a_store_without_a_login_starts_nothing_whatever_is_on_disk() {
        for seen in [
            Seen::Missing,
            Seen::Unusable,
            Seen::Usable(generation(2, "a", Some(11))),
        ] {
            for replace in [false, true] {
                assert_eq!(
                    start(&seen, None, false, replace),
                    Start::Refuse(Refusal::NothingStored)
                );
                assert_eq!(
                    start(&seen, Some(&held(None)), false, replace),
                    Start::Refuse(Refusal::UnusableStored)
                );
            }
        }
    }

    #[test]
    fn a_value_without_a_stamp_is_a_reseed_only_where_stamps_are_kept() {
        let guarantees = |stamps| Guarantees {
            swap: crate::Swap::Atomic,
            stamps,
            reads: crate::Reads::Strong,
            history: true,
            max_len: 1,
        };
        let reseed = |stamp: Option<&Stamp>, stamps| {
            Held::new(Version::new("1"), None, stamp, guarantees(stamps)).reseed
        };
        let stamp = |origin| Stamp {
            id: WriteId { trip: 1, number: 1 },
            count: 2,
            origin,
            writer: "a job".into(),
        };
        assert!(reseed(None, true));
        assert!(!reseed(None, false));
        assert!(reseed(Some(&stamp(Origin::Seed)), true));
        assert!(!reseed(Some(&stamp(Origin::Rotation)), true));
    }
}
