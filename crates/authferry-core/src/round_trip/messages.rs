//! The inputs and outputs of the round-trip machine.

use alloc::vec::Vec;
use core::time::Duration;

use crate::copies::Origins;
use crate::order::{self, Order};
use crate::policy::Policy;
use crate::verdict::{Held, Refusal, Seen};
use crate::{Family, Fingerprint, Generation, Version, WriteId, copies};

/// The settings of a round trip, fixed before it starts.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an independent setting"
)]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// How far the round trip goes.
    pub goal: Goal,
    /// Whose generation stays current after a conflict.
    pub policy: Policy,
    /// The first half of this round trip's write ids, and the jitter of its backoff: random.
    pub nonce: u64,
    /// Whether the store keeps a replaced generation. Otherwise it is rescued first.
    pub history: bool,
    /// Whether restore may replace an auth file that is unusable, of another identity or of an
    /// unknown family. The file is backed up first.
    pub replace: bool,
    /// Generations that the provider refused.
    pub refused: Vec<Fingerprint>,
    /// Whether persist may write a login of another account than the restored one.
    pub allow_account_change: bool,
    /// Whether this is the private home of a rotation. Only Codex's own refresh writes there, so
    /// every login in it descends from the base, regardless of clocks and session hints.
    pub is_rotation: bool,
}

/// How far a round trip goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Goal {
    /// Adopt a copy that wins against the head; do not write the auth file.
    Settle,
    /// Write the auth file, then stop: a later round trip persists.
    Restore,
    /// Write the auth file, run the command, persist.
    Run,
}

/// The generation in the store that the one on disk descends from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Base {
    /// The version that the next swap expects.
    pub version: Version,
    /// What the store holds at that version.
    pub generation: Generation,
    /// Number of generations in the family so far.
    pub count: u64,
    /// The family of the generation.
    pub family: Family,
    /// Earlier generations of the family, oldest first: the last [`Base::ANCESTORS`].
    pub ancestors: Vec<Fingerprint>,
    /// Whether a rotation of this family changed the session hints.
    pub volatile_hints: bool,
    /// Generations of other families that were in the home, or in its receipt, when restore
    /// placed a login of this family there: the last [`Base::UNRELATED`]. A cache may bring one
    /// back, and a receipt applies to any file in the home.
    pub unrelated: Vec<Fingerprint>,
}

impl Base {
    /// The maximum number of ancestors.
    pub const ANCESTORS: usize = 32;
    /// The maximum number of generations of other families: two lists of ancestors.
    pub const UNRELATED: usize = 64;

    /// Builds a base from the head, with the history from a receipt or record (`known`).
    ///
    /// A head without a stamp belongs to the family of the receipt that names its version or
    /// fingerprint. Without such a receipt a person put the head there, and it starts a family.
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
                    // A job may have mistaken an older file for a rotation. Such a head does not
                    // descend from the known one.
                    if is_later(generation, &known.generation) {
                        let known = known.generation.fingerprint;
                        push(&mut ancestors, known, Self::ANCESTORS);
                    }
                } else {
                    // The store was rolled back: a descendant of the head is no ancestor of it.
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
            // A value that lost its stamp keeps its count.
            count: count.unwrap_or(held.count),
            family: family.unwrap_or_else(own),
            ancestors,
            volatile_hints: held.volatile_hints || known.is_some_and(|known| known.volatile_hints),
            unrelated,
        }
    }

    /// Returns this base with `past`, the generations on disk after it, oldest first, appended to
    /// its ancestors.
    #[must_use]
    pub(crate) fn with_past(&self, past: &[Fingerprint]) -> Self {
        let mut base = self.clone();
        let is_known =
            |it: &Fingerprint| *it == self.generation.fingerprint || self.ancestors.contains(it);
        if past.iter().all(is_known) {
            return base;
        }
        // The past follows the base; each generation keeps its first position.
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

    /// Returns the next base after a write over this base has landed. `descends`: the written
    /// login descends from this base, whose refresh token is spent.
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

/// What the caller must do next. The caller answers each effect except `Run` and `Finish` with one
/// event.
#[expect(clippy::large_enum_variant, reason = "made a few times for each job")]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Read the store; answered by [`Event::Read`].
    Read,
    /// Write this generation, from the store or from a copy, to the auth file; answered by
    /// [`Event::Placed`].
    Place(Fingerprint),
    /// Start the command and report changes of the auth file: [`Event::Changed`], then
    /// [`Event::Exited`] or [`Event::CodexRunning`].
    Run,
    /// Swap a generation into the store; answered by [`Event::Swapped`].
    Swap(Write),
    /// Wait this long; answered by [`Event::Waited`], unless another event comes first.
    Wait(Duration),
    /// Back up a login that the store does not hold; answered by [`Event::Rescued`].
    Rescue(Keep),
    /// The round trip is over.
    Finish(Outcome),
}

/// One intended write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    /// The same on every retry of this write.
    pub id: WriteId,
    /// The version that the swap expects.
    pub expected: Version,
    /// The generation to write.
    pub generation: Generation,
    /// Number of generations in the family after the write.
    pub count: u64,
    /// The family of the generation.
    pub family: Family,
    /// Whether a rotation of this family changed the session hints.
    pub volatile_hints: bool,
}

/// What a rescue must back up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Keep {
    /// Copies that were found on this machine.
    Copies(Vec<SetAside>),
    /// Our logins that the store lacks: the newest generation seen on disk, and the login in the
    /// last read of the file, if it differs.
    Ours,
    /// The generation last read from the store, before ours overwrites it.
    Theirs,
    /// Like [`Theirs`](Self::Theirs), but in the rescue even if the store has history. Ours may not
    /// be later, so authferry tries theirs again if the provider rejects ours.
    TheirsInRescue,
}

/// A copy that is backed up before it is replaced or removed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetAside {
    /// The index of the copy.
    pub copy: usize,
    /// The origins that the decision used: the record must not claim more. `None` if the decision
    /// used no receipt or record.
    pub origins: Option<Origins>,
}

/// The answer to an effect, a change of the auth file, or a deadline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The store was read, or the read failed.
    Read(Result<Option<Held>, Retryable>),
    /// The result of writing the auth file.
    Placed(Placing),
    /// A new valid generation is on disk while the command runs.
    Changed(Generation),
    /// The command and its process tree have exited. This is the last read of the file.
    Exited(Seen),
    /// The command has ended and our timeout is over, but a Codex that may have spent the refresh
    /// token is still running and may still write the file. This is our last read of the file.
    CodexRunning(Seen),
    /// The result of a swap.
    Swapped(Reply),
    /// The wait is over.
    Waited,
    /// The store timeout passed. Ignored while the command runs, and while no store request or
    /// backoff is pending.
    Deadline,
    /// The rescue succeeded (`true`) or failed.
    Rescued(bool),
}

/// The result of writing the auth file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placing {
    /// The file was written.
    Done,
    /// Another process changed the file since the decision. That file was not overwritten.
    ConcurrentWrite,
    /// The write failed.
    Failed,
}

/// The result of a swap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Written, as this version.
    Landed(Version),
    /// Not written: the store no longer held the expected version.
    Conflict,
    /// Unknown whether written.
    Ambiguous,
    /// Not written: the store refused, or the request was never sent.
    Refused(Retryable),
}

/// Whether a retry may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retryable {
    /// The failure is transient.
    Yes,
    /// The failure is permanent.
    No,
}

/// The outcome of a round trip.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// No command ran, and the auth file is unchanged. The store may hold a copy that was adopted
    /// before the refusal.
    Refused(Refusal),
    /// The login is in place: [`Goal::Settle`] or [`Goal::Restore`] is reached.
    Restored,
    /// The login did not change.
    Unchanged,
    /// The newest generation is current in the store.
    Persisted {
        /// Earlier generations of other writers that ours overwrote. Each is in the store's history
        /// or in the rescue.
        overwritten: Vec<Fingerprint>,
    },
    /// The newest login seen on disk is current in the store, but a Codex still runs and may have
    /// spent the refresh token. The login that it writes stays in the home, with the receipt, for
    /// the next job.
    Unsettled,
    /// Another writer's generation stays current.
    Superseded {
        /// Their generation.
        by: Fingerprint,
        /// Whether ours was rescued.
        rescued: bool,
    },
    /// The newest generation is not in the store, as far as the machine knows.
    NotPersisted {
        /// Why.
        cause: Cause,
        /// Whether that generation was rescued.
        rescued: bool,
    },
}

/// Why a generation did not reach the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The store refused the write, or did not answer before the timeout.
    Store,
    /// The store was emptied during the round trip.
    Emptied,
    /// The store now holds a login of another account, or no usable login.
    ForeignLogin,
    /// The file belongs to another account than the restored one.
    OtherAccount,
    /// The file holds a generation that is older than the one in the store.
    Older,
    /// The store's login could not be backed up, and ours is not surely later.
    NotKept,
    /// The file no longer holds a usable login.
    AuthFileError,
    /// The file is gone.
    Missing,
}
