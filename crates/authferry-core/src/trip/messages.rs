//! What goes into the machine and what comes out of it.

use alloc::vec::Vec;
use core::time::Duration;

use crate::copies::Origins;
use crate::order::{self, Order};
use crate::policy::Policy;
use crate::verdict::{Held, Refusal, Seen};
use crate::{Family, Fingerprint, Generation, Version, WriteId, copies};

/// What a trip is to do, fixed before it starts.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is said or known by itself"
)]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// How far the trip goes.
    pub goal: Goal,
    /// Whose generation stays current after a conflict.
    pub policy: Policy,
    /// The first half of each of the trip's write ids: drawn at random, once.
    pub trip: u64,
    /// Whether the store itself keeps what is replaced; otherwise it is rescued first.
    pub history: bool,
    /// Whether restore may replace a file that is unusable, of another identity or of an
    /// unknown family: it is set aside.
    pub replace: bool,
    /// Generations that the provider refused.
    pub refused: Vec<Fingerprint>,
    /// Whether persist may write a login of another account than was restored.
    pub allow_account_change: bool,
    /// Whether this is the private home of a rotation. Only Codex's refresh writes there, so every
    /// login in it descends from the base, whatever the clocks and session hints say.
    pub is_rotation: bool,
}

/// How far a trip goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Goal {
    /// Adopt a copy that counts, and place nothing.
    Settle,
    /// Place the login, then stop: a later trip persists.
    Restore,
    /// Place the login, run the command, persist.
    Run,
}

/// The generation in the store that the one on disk descends from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Base {
    /// The version that the next swap expects.
    pub version: Version,
    /// What the store holds at that version.
    pub generation: Generation,
    /// How many generations the family has had.
    pub count: u64,
    /// The family that it belongs to.
    pub family: Family,
    /// Earlier generations of the family, oldest first: the last [`Base::ANCESTORS`].
    pub ancestors: Vec<Fingerprint>,
    /// Whether session hints were seen to change in a rotation of this family.
    pub volatile_hints: bool,
    /// Generations of other families that the home had, or a receipt there knew, when a login
    /// of this family was placed there: the last [`Base::UNRELATED`]. A cache may bring one back,
    /// and a receipt speaks of whatever file is there.
    pub unrelated: Vec<Fingerprint>,
}

impl Base {
    /// How many known ancestors are kept.
    pub const ANCESTORS: usize = 32;
    /// How many generations of other families are kept: two lines of ancestors.
    pub const UNRELATED: usize = 64;

    /// Returns what a store holds as a base, with what a receipt or record knows of it.
    ///
    /// Without a stamp the head is of the family that knows its version or its fingerprint;
    /// of none that is known, a person put it there, and a new family begins with it.
    #[must_use]
    pub fn of_head(held: &Held, generation: &Generation, known: Option<&Base>) -> Self {
        let known = known.filter(|known| copies::is_family_of(held, generation, known));
        let own = || Family(generation.fingerprint);
        let family = held.family.or(known.map(|known| known.family));
        let mut ancestors = known.map_or_else(Vec::new, |known| known.ancestors.clone());
        if let Some(known) = known {
            let is_ancestor = |it: &Fingerprint| *it == generation.fingerprint;
            if let Some(place) = ancestors.iter().position(is_ancestor) {
                ancestors.truncate(place);
            } else if known.generation.fingerprint != generation.fingerprint {
                if copies::is_ahead(held, generation, known) {
                    // An older file that a job took for a rotation does not descend from it.
                    if is_later(generation, &known.generation) {
                        let known = known.generation.fingerprint;
                        push(&mut ancestors, known, Self::ANCESTORS);
                    }
                } else {
                    // The store went back: what descends from the head is no ancestor of it.
                    ancestors.clear();
                }
            }
        }
        let unstamped = known.filter(|_| held.family.is_none());
        let behind = unstamped.map(|known| known.ancestors.len().saturating_sub(ancestors.len()));
        let mut unrelated = known.map_or_else(Vec::new, |known| known.unrelated.clone());
        unrelated.retain(|it| *it != generation.fingerprint);
        let count = unstamped.zip(behind).map(|(known, behind)| {
            let behind = u64::try_from(behind).unwrap_or(u64::MAX);
            known.count.saturating_sub(behind).max(1)
        });
        Self {
            version: held.version.clone(),
            generation: generation.clone(),
            // A value that lost its stamp still is what it was.
            count: count.unwrap_or(held.count),
            family: family.unwrap_or_else(own),
            ancestors,
            volatile_hints: held.volatile_hints || known.is_some_and(|known| known.volatile_hints),
            unrelated,
        }
    }

    /// Returns this base with the generations that were on disk after it, oldest first, as known
    /// ancestors of what follows them.
    #[must_use]
    pub(crate) fn with_past(&self, past: &[Fingerprint]) -> Self {
        let mut base = self.clone();
        let is_known =
            |it: &Fingerprint| *it == self.generation.fingerprint || self.ancestors.contains(it);
        if past.iter().all(is_known) {
            return base;
        }
        // They come after the base, and the line goes by its first mention of each.
        let line = [&self.generation.fingerprint].into_iter().chain(past);
        for it in line {
            if !base.ancestors.contains(it) {
                push(&mut base.ancestors, *it, Self::ANCESTORS);
            }
        }
        base
    }

    /// Notes a generation of another family.
    pub(crate) fn note_unrelated(&mut self, generation: Fingerprint) {
        if generation != self.generation.fingerprint && !self.unrelated.contains(&generation) {
            push(&mut self.unrelated, generation, Self::UNRELATED);
        }
    }

    /// Returns what follows when a write on top of this base has landed. `descends`: what was
    /// written was made from this base, which is spent then.
    #[must_use]
    pub(crate) fn followed_by(&self, write: &Write, version: Version, descends: bool) -> Self {
        let mut ancestors = self.ancestors.clone();
        let mut unrelated = self.unrelated.clone();
        if write.family != self.family {
            ancestors.clear();
            unrelated.clear();
        } else if descends && write.generation.fingerprint != self.generation.fingerprint {
            push(&mut ancestors, self.generation.fingerprint, Self::ANCESTORS);
        }
        Self {
            version,
            generation: write.generation.clone(),
            count: write.count,
            family: write.family,
            ancestors,
            volatile_hints: write.volatile_hints,
            unrelated,
        }
    }
}

fn is_later(ours: &Generation, theirs: &Generation) -> bool {
    order::by_times(&ours.issued, &theirs.issued) == Order::Later
}

fn push(list: &mut Vec<Fingerprint>, latest: Fingerprint, most: usize) {
    if list.len() >= most {
        list.remove(0);
    }
    list.push(latest);
}

/// What the machine asks for. Each but `Run` and `Finish` is answered by one event.
#[expect(clippy::large_enum_variant, reason = "made a few times for each job")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Read the store; answered by [`Event::Read`].
    Read,
    /// Write this generation, read from the store or found in a copy, to the auth file;
    /// answered by [`Event::Placed`].
    Place(Fingerprint),
    /// Start the command and report on the file: [`Event::Changed`], then [`Event::Exited`] or
    /// [`Event::Left`].
    Run,
    /// Swap a generation in; answered by [`Event::Swapped`].
    Swap(Write),
    /// Let some time pass; answered by [`Event::Woke`], unless the machine moved on.
    Wait(Duration),
    /// Keep something that the store will not hold; answered by [`Event::Rescued`].
    Rescue(Keep),
    /// The trip is over.
    Finish(Outcome),
}

/// One intended write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    /// The same on every attempt at this write.
    pub id: WriteId,
    /// The version it is to replace.
    pub expected: Version,
    /// The generation to be written.
    pub generation: Generation,
    /// How many generations the family will have had.
    pub count: u64,
    /// The family that it belongs to.
    pub family: Family,
    /// Whether session hints were seen to change in a rotation of this family.
    pub volatile_hints: bool,
}

/// What a rescue is to keep.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Keep {
    /// Copies that were found on this machine.
    Copies(Vec<SetAside>),
    /// Everything of ours that the store lacks: the newest generation seen on disk, and
    /// what the last look at the file found, if that is something else.
    Ours,
    /// The generation that was read from the store last, and is about to be replaced.
    Theirs,
    /// The same, in the rescue folder even if the store keeps it: nothing tells that what
    /// replaces it is later, so it is tried if the provider rejects that.
    TheirsInRescue,
}

/// A copy that is kept elsewhere before it is replaced or removed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetAside {
    /// Its number, in the order in which the copies were given.
    pub copy: usize,
    /// What the decision knew of it: its record says no more. `None` if a receipt did not
    /// speak of it.
    pub origins: Option<Origins>,
}

/// What happened in the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The store was read.
    Read(Result<Option<Held>, Trouble>),
    /// The auth file was written, or was not.
    Placed(Placing),
    /// A new valid generation is on disk while the command runs.
    Changed(Generation),
    /// The command and all its descendants are gone; this is the last look at the file.
    Exited(Seen),
    /// The command has ended and our timeout is over, but a Codex that may have spent the refresh
    /// token is still running and may still write the file. This is the last read of it.
    Left(Seen),
    /// A swap was answered, or was not.
    Swapped(Reply),
    /// The wait is over.
    Woke,
    /// The time for talking to the store is over. Means something only while the store is
    /// waited for, and never while the command runs.
    Deadline,
    /// The rescue succeeded (`true`) or failed.
    Rescued(bool),
}

/// What became of a file that was to be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placing {
    /// It is there.
    Done,
    /// What was there changed since it was judged, and is still there.
    Overtaken,
    /// It could not be written.
    Failed,
}

/// What is known after a swap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Written, under this version.
    Landed(Version),
    /// Not written: the store moved.
    Conflict,
    /// Unknown.
    Ambiguous,
    /// Not written.
    Refused(Trouble),
}

/// Whether asking again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// It may pass.
    Transient,
    /// It will not pass by itself.
    Permanent,
}

/// How a trip ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing was touched and no command ran.
    Refused(Refusal),
    /// The login is in place, as far as [`Goal::Restore`] goes.
    Restored,
    /// The login did not change.
    Unchanged,
    /// The newest generation is current in the store.
    Persisted {
        /// Generations of others, issued earlier, that it replaced. Each can be had from
        /// the store's history or from the rescue.
        buried: Vec<Fingerprint>,
    },
    /// What was seen on disk is current in the store; but a Codex runs on that may have spent the
    /// refresh token. What it writes stays in the home, with the receipt, for the next job.
    Unsettled,
    /// Somebody else's generation stays current.
    Superseded {
        /// Theirs.
        by: Fingerprint,
        /// Whether ours was kept.
        rescued: bool,
    },
    /// The newest generation is not in the store, as far as is known.
    Stranded {
        /// Why.
        cause: Cause,
        /// Whether it was kept elsewhere.
        rescued: bool,
    },
}

/// Why a generation did not reach the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The store refused it, or could not be reached in time.
    Store,
    /// The store was emptied meanwhile.
    Emptied,
    /// The store holds another account's login now, or something that is no login.
    Stranger,
    /// The file belongs to another account than was restored.
    OtherAccount,
    /// The file carries a generation that was issued before the one in the store.
    Older,
    /// What the store holds could not be kept first, and ours is not surely later.
    NotKept,
    /// The file carries no login any more.
    Unusable,
    /// The file is gone.
    Missing,
}
