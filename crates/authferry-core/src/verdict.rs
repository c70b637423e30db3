//! What a look at the store and at the file says: plain functions over what was seen.

use crate::{Family, Generation, Stamp, Version, WriteId};

/// What the store holds, as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// The version a swap may expect.
    pub version: Version,
    /// The generation; `None` when the value is not a usable login.
    pub generation: Option<Generation>,
    /// Which write put it there, if the store can tell.
    pub id: Option<WriteId>,
    /// How many generations this family has had.
    pub count: u64,
    /// The family that its stamp names; `None` without a stamp.
    pub family: Option<Family>,
    /// Whether session hints were seen to change in a rotation of this family.
    pub volatile_hints: bool,
}

impl Held {
    /// Returns what decisions need of a value and of its stamp.
    #[must_use]
    pub fn new(version: Version, generation: Option<Generation>, stamp: Option<&Stamp>) -> Self {
        Self {
            version,
            generation,
            id: stamp.map(|s| s.id),
            count: stamp.map_or(1, |s| s.count),
            family: stamp.map(|s| s.family),
            volatile_hints: stamp.is_some_and(|s| s.volatile_hints),
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
    /// The file on disk is of an unknown family, and perhaps later than the store's: it may be
    /// a person's own login.
    UnknownFamily,
    /// The store holds no login, and there are copies on this machine.
    OnlyCopies,
    /// A copy on this machine was kept for another address, is of the family of the store's
    /// login, and perhaps later.
    CopyElsewhere,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fingerprint, Origin};

    #[test]
    fn a_stamp_tells_the_family_and_a_value_without_one_has_none_that_is_known() {
        let stamp = Stamp {
            id: WriteId { trip: 1, number: 1 },
            count: 2,
            origin: Origin::Rotation,
            family: Family(Fingerprint::new([7; 8])),
            volatile_hints: true,
            writer: "a job".into(),
        };
        let held = |stamp| Held::new(Version::new("1"), None, stamp);
        let stamped = held(Some(&stamp));
        assert_eq!(stamped.family, Some(stamp.family));
        assert!(stamped.volatile_hints);
        assert_eq!((held(None).family, held(None).count), (None, 1));
    }
}
