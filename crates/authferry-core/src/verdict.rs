//! What a read of the store or of the auth file found, and why a command did not start.

use crate::{Family, Generation, Stamp, Version, WriteId};

/// What the store holds, without secrets: the input of every decision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// The version that a swap can expect.
    pub version: Version,
    /// The generation; `None` when the value is not a usable login.
    pub generation: Option<Generation>,
    /// The id of the write that created this value, if the store keeps stamps.
    pub id: Option<WriteId>,
    /// Number of generations in this family so far.
    pub count: u64,
    /// The family in the value's stamp; `None` without a stamp.
    pub family: Option<Family>,
    /// Whether a rotation of this family changed the session hints.
    pub volatile_hints: bool,
}

impl Held {
    /// Combines a value's version, its generation and its stamp.
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

/// What a read of the auth file found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// No file.
    Missing,
    /// A file without a usable login.
    AuthFileError,
    /// A login.
    Usable(Generation),
}

/// Why a command was not started. The auth file was not changed. The store may hold a copy that
/// authferry adopted before the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The store is empty.
    NothingStored,
    /// What the store holds is not a usable login.
    UnusableStored,
    /// The file on disk is not a usable login. It may be a damaged newer login.
    UnusableFile,
    /// The file on disk belongs to another account.
    OtherAccount,
    /// The file on disk is of an unknown family and may be later than the store's login. It may
    /// be a person's own login.
    UnknownFamily,
    /// The store holds no login, but this machine has copies.
    OnlyCopies,
    /// A copy on this machine belongs to another store address. It is of the family of the
    /// store's login and may be later.
    CopyElsewhere,
    /// The store refused the read.
    Unreadable,
    /// A copy on this machine takes precedence, and the store refused the write of that copy.
    Unwritable,
    /// The store did not answer before the timeout.
    OutOfTime,
    /// The auth file could not be written.
    NotPlaced,
    /// Another process changed the file while authferry read the store.
    ConcurrentWrite,
    /// A login that was about to be replaced or set aside could not be backed up.
    NotKept,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fingerprint, Origin};

    #[test]
    fn held_takes_the_family_from_the_stamp() {
        let stamp = Stamp {
            id: WriteId {
                nonce: 1,
                number: 1,
            },
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
