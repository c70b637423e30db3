//! A compare-and-swap on top of Key Vault, which has none: a blob names the current version.
//!
//! Key Vault only appends. Its newest version is the last one that arrived, even from a writer
//! that was suspended for an hour. So a small blob, the *pointer*, names the current version.
//! Writers replace the pointer with a compare-and-swap (`If-Match`). A write takes these steps,
//! and [`Operation`] is the state machine for them:
//!
//! 1. Read the pointer, then the newest version. If they agree, skip the list.
//! 2. Swap the *intent* into the pointer. One of any number of writers wins.
//! 3. Put the value, with the write mark of the intent.
//! 4. List the versions until the new one appears. A version without a write mark that the
//!    pointer does not know was put by a person: it becomes the current one.
//! 5. Otherwise make the new version the current one, in the pointer.
//!
//! A client that finds an intent whose value exists runs steps 4 and 5 for a writer that may be
//! dead. A writer that finds an intent without a value watches the pointer for a while, by its
//! local clock, and then replaces the intent. The protocol never compares two clocks; a clock
//! decides only how long this takes. A writer that resumes after its intent was replaced may
//! still put its value. The pointer does not name that write mark, so the value never becomes
//! current.
//!
//! A list may be stale, and a long list comes in pages, so it is not a snapshot: it may contain a
//! version that was put during the listing and lack an older one. The set of versions older than
//! some version is complete only in a list of one page that contains that version, or in a list
//! that started after another list had shown that version.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The content of the pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Pointer {
    /// The current version.
    pub(crate) current: Option<PointerEntry>,
    /// The only write that may replace the current version.
    pub(crate) intent: Option<WriteMark>,
    /// The earlier current versions, latest first.
    pub(crate) past: Vec<PointerEntry>,
    /// The known versions without a write mark.
    pub(crate) known: BTreeSet<String>,
}

/// A version that is or was the current one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct PointerEntry {
    pub(crate) version: String,
    /// `None` for a version that a person put.
    pub(crate) mark: Option<WriteMark>,
}

/// Identifies one write and its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct WriteMark {
    pub(crate) id: String,
    pub(crate) sha256: String,
}

/// How many earlier versions the pointer keeps. If more than that many later writes became current
/// before a writer reads the pointer again, the writer gets a conflict although its write landed.
const MAX_PAST: usize = 16;

/// A version as a list or a read shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct VersionItem {
    pub(crate) version: String,
    /// The creation time in seconds, by a server's clock.
    pub(crate) created: i64,
    pub(crate) enabled: bool,
    /// The write that put this version, under this pointer.
    pub(crate) mark: Option<WriteMark>,
}

impl VersionItem {
    fn entry(&self) -> PointerEntry {
        PointerEntry {
            version: self.version.clone(),
            mark: self.mark.clone(),
        }
    }
}

/// The newest version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Newest {
    /// The secret has no version.
    Nothing,
    /// The newest version is disabled, so it cannot be read.
    Disabled,
    This(VersionItem),
}

/// What the caller wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProtocolGoal {
    Read,
    Swap {
        expected: Option<String>,
        mark: WriteMark,
    },
}

/// The next action of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProtocolAction {
    /// Read the pointer.
    Pointer,
    /// Read the newest version.
    Newest,
    /// List all versions.
    List,
    /// Check whether this version exists.
    Find(String),
    /// Replace the pointer if it is unchanged since the last read.
    Replace(Option<String>, Pointer),
    /// Put the value, with its write mark.
    Put,
    /// Wait, with backoff.
    Pause,
    End(ProtocolOutcome),
}

/// The outcome of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProtocolOutcome {
    /// This version is the current one.
    Read(Option<String>),
    /// The write created this version, and it became current.
    Written(String),
    /// The write did not become current, whether or not its value exists.
    Conflict,
    /// The vault refused the put, and the intent is withdrawn.
    Refused,
    /// The value was put, but no list shows it yet.
    Unseen,
    /// There is no pointer, and the newest version is disabled.
    Disabled,
}

/// The result of an action. Any other result, such as an error, aborts the operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProtocolReply {
    /// The pointer with its `ETag`.
    Pointer(Option<(String, Pointer)>),
    Newest(Newest),
    /// All versions, and whether they came in one page.
    List(Vec<VersionItem>, bool),
    Found(bool),
    /// The pointer was replaced, and this is its new `ETag`.
    Replaced(String),
    /// The pointer has changed.
    Changed,
    /// The caller has no right to write the pointer.
    Denied,
    /// The put created this version.
    Put(String),
    /// The put certainly created no version.
    Refused,
    Paused,
}

/// The state machine of one read or one swap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Operation {
    goal: ProtocolGoal,
    /// How often the operation reads the same intent before it replaces it, and how often it
    /// repeats a list that lacks the new version.
    max_attempts: u8,
    awaiting: Awaiting,
    etag: Option<String>,
    pointer: Pointer,
    newest: Option<Newest>,
    /// Whether the newest version was read after the list.
    newest_is_later: bool,
    list: Option<Vec<VersionItem>>,
    /// Whether the list is a snapshot: it came in one page.
    is_snapshot: bool,
    /// The versions in earlier lists.
    shown: BTreeSet<String>,
    /// The version that our put created.
    ours: Option<String>,
    /// Whether the vault refused the put.
    refused: bool,
    /// The `ETag` of the watched pointer, and how often it was read.
    watched: Option<(String, u8)>,
    /// How often a list lacked the new version.
    unseen: u8,
}

/// What the next reply is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Awaiting {
    State,
    Find,
    /// A swap of the pointer that sets the current version.
    Promote(Pointer),
    Intend(Pointer),
    Put,
    Withdraw,
    /// A delay before the next read of the pointer.
    Recheck,
    /// A delay before the next list.
    Relist,
}

impl Operation {
    pub(crate) fn new(goal: ProtocolGoal, max_attempts: u8) -> (Self, ProtocolAction) {
        let operation = Self {
            goal,
            max_attempts,
            awaiting: Awaiting::State,
            etag: None,
            pointer: Pointer::default(),
            newest: None,
            newest_is_later: false,
            list: None,
            is_snapshot: false,
            shown: BTreeSet::new(),
            ours: None,
            refused: false,
            watched: None,
            unseen: 0,
        };
        (operation, ProtocolAction::Pointer)
    }

    pub(crate) fn step(&mut self, reply: ProtocolReply) -> ProtocolAction {
        match (
            std::mem::replace(&mut self.awaiting, Awaiting::State),
            reply,
        ) {
            (Awaiting::State, ProtocolReply::Pointer(found)) => self.store_pointer(found),
            (Awaiting::State, ProtocolReply::Newest(newest)) => {
                self.newest = Some(newest);
                self.newest_is_later = self.list.is_some();
                self.decide()
            }
            (Awaiting::State, ProtocolReply::List(list, is_snapshot)) => {
                self.list = Some(list);
                self.is_snapshot = is_snapshot;
                self.newest_is_later = false;
                self.decide()
            }
            (Awaiting::Find, ProtocolReply::Found(exists)) => {
                let current = self.pointer.current.clone().filter(|_| exists);
                self.settled(current)
            }
            // A caller without write access gets the version that the next writer will promote.
            (Awaiting::Promote(pointer), ProtocolReply::Denied) => ProtocolAction::End(
                ProtocolOutcome::Read(pointer.current.map(|entry| entry.version)),
            ),
            (Awaiting::Promote(pointer), ProtocolReply::Replaced(etag)) => {
                self.set_pointer(etag, pointer);
                self.settled(self.pointer.current.clone())
            }
            (Awaiting::Intend(pointer), ProtocolReply::Replaced(etag)) => {
                self.set_pointer(etag, pointer);
                self.put()
            }
            (
                // After `Withdraw`: an earlier attempt may have created the value, and another
                // client finished the write.
                Awaiting::Promote(_) | Awaiting::Intend(_) | Awaiting::Withdraw,
                ProtocolReply::Changed,
            )
            | (Awaiting::Recheck, ProtocolReply::Paused) => self.start_over(),
            (Awaiting::Put, ProtocolReply::Put(version)) => {
                self.ours = Some(version);
                self.relist()
            }
            (Awaiting::Put, ProtocolReply::Refused) => {
                self.refused = true;
                self.withdraw()
            }
            (Awaiting::Withdraw, ProtocolReply::Replaced(_) | ProtocolReply::Denied) => {
                ProtocolAction::End(ProtocolOutcome::Refused)
            }
            (Awaiting::Relist, ProtocolReply::Paused) => self.relist(),
            (awaiting, reply) => unreachable!("unexpected {reply:?} for {awaiting:?}"),
        }
    }

    fn start_over(&mut self) -> ProtocolAction {
        self.relist();
        self.newest = None;
        ProtocolAction::Pointer
    }

    fn store_pointer(&mut self, found: Option<(String, Pointer)>) -> ProtocolAction {
        (self.etag, self.pointer) = match found {
            Some((etag, pointer)) => (Some(etag), pointer),
            None => (None, Pointer::default()),
        };
        let seen = match &self.watched {
            Some((etag, seen)) if self.etag.as_ref() == Some(etag) => *seen,
            Some(_) | None => 0,
        };
        self.watched = self.etag.clone().map(|etag| (etag, seen));
        ProtocolAction::Newest
    }

    /// Returns the next action: an end or a write if the pointer, the newest version and the list
    /// suffice for the decision, else another read.
    fn decide(&mut self) -> ProtocolAction {
        let newest = self.newest.clone().expect("requested first");
        if newest == Newest::Nothing && (self.list.is_none() || self.newest_is_later) {
            return match self.pointer.intent.clone() {
                Some(intent) => self.pending(&intent, None),
                None => self.settled(None),
            };
        }
        if self.etag.is_none() {
            return self.without_a_pointer(newest);
        }
        let of_newest = match &newest {
            Newest::This(item) => Some(item),
            Newest::Nothing | Newest::Disabled => None,
        };
        let current = self.pointer.current.clone();
        if let (Some(item), Some(current)) = (of_newest, &current)
            && item.version == current.version
            && self.list.is_none()
        {
            return match self.pointer.intent.clone() {
                Some(intent) => self.pending(&intent, Some(current.clone())),
                None => self.settled(Some(current.clone())),
            };
        }
        let intent = self.pointer.intent.clone();
        let Some(list) = self.list.clone() else {
            return ProtocolAction::List;
        };
        let mut by_hand: Vec<_> = list.iter().filter(|it| self.is_unknown(it)).collect();
        if let Some(item) = of_newest.filter(|it| self.newest_is_later && self.is_unknown(it)) {
            by_hand.push(item);
        }
        if !by_hand.is_empty() {
            if !self.newest_is_later {
                return ProtocolAction::Newest;
            }
            let pointer = self.pointer.adopt(&by_hand, of_newest);
            let current = pointer.current.as_ref().map(|it| it.version.clone());
            let first = self.require_older(current.as_ref());
            return first.unwrap_or_else(|| self.promote(pointer));
        }
        let Some(intent) = intent else {
            let current = current.as_ref();
            return match current.filter(|c| !list.iter().any(|it| it.version == c.version)) {
                Some(unlisted) => {
                    self.awaiting = Awaiting::Find;
                    ProtocolAction::Find(unlisted.version.clone())
                }
                None => self.settled(current.cloned()),
            };
        };
        let landed = list.iter().find(|it| it.mark.as_ref() == Some(&intent));
        match landed {
            Some(item) => {
                let first = self.require_older(Some(&item.version));
                first.unwrap_or_else(|| self.promote(self.pointer.with_current(item.entry())))
            }
            None => self.pending(&intent, current),
        }
    }

    /// Without a pointer, the newest version is the current one.
    fn without_a_pointer(&mut self, newest: Newest) -> ProtocolAction {
        let Newest::This(item) = newest else {
            return ProtocolAction::End(ProtocolOutcome::Disabled);
        };
        let is_wanted = match &self.goal {
            ProtocolGoal::Read => false,
            ProtocolGoal::Swap { expected, .. } => expected.as_ref() == Some(&item.version),
        };
        if is_wanted && self.list.is_none() {
            // The list separates existing versions from later ones.
            return ProtocolAction::List;
        }
        if is_wanted && !self.newest_is_later {
            // The list may contain a version newer than `newest`, which no later read would detect.
            return ProtocolAction::Newest;
        }
        if is_wanted && let Some(action) = self.require_older(Some(&item.version)) {
            return action;
        }
        self.settled(Some(item.entry()))
    }

    /// Handles an intent without a value.
    fn pending(&mut self, intent: &WriteMark, current: Option<PointerEntry>) -> ProtocolAction {
        let (expected, mark) = match &self.goal {
            ProtocolGoal::Read => {
                return ProtocolAction::End(ProtocolOutcome::Read(
                    current.map(|entry| entry.version),
                ));
            }
            ProtocolGoal::Swap { expected, mark } => (expected, mark),
        };
        if mark == intent && self.ours.is_some() {
            return self.list_later();
        }
        if current.as_ref().map(|entry| &entry.version) != expected.as_ref() {
            return self.lost();
        }
        if mark == intent {
            return self.put();
        }
        // The list may be stale: the value exists if the newest version is that of the intent.
        let value_exists = matches!(&self.newest, Some(Newest::This(item))
            if item.mark.as_ref() == Some(intent));
        if let Some((_, seen)) = &mut self.watched
            && (value_exists || *seen < self.max_attempts)
        {
            *seen = seen.saturating_add(1);
            self.awaiting = Awaiting::Recheck;
            return ProtocolAction::Pause;
        }
        if self.list.is_none() && self.newest != Some(Newest::Nothing) {
            return ProtocolAction::List;
        }
        self.intend(current)
    }

    /// Handles a known current version while no write is in progress.
    fn settled(&mut self, current: Option<PointerEntry>) -> ProtocolAction {
        let version = current.as_ref().map(|entry| entry.version.clone());
        let (expected, mark) = match &self.goal {
            ProtocolGoal::Read => return ProtocolAction::End(ProtocolOutcome::Read(version)),
            ProtocolGoal::Swap { expected, mark } => (expected, mark),
        };
        if let Some(entry) = current.as_ref().filter(|it| it.mark.as_ref() == Some(mark)) {
            return ProtocolAction::End(ProtocolOutcome::Written(entry.version.clone()));
        }
        if version != *expected {
            return self.lost();
        }
        self.intend(current)
    }

    /// Ends a swap that finds another version current. Our version may have been current before.
    fn lost(&self) -> ProtocolAction {
        let ProtocolGoal::Swap { mark, .. } = &self.goal else {
            unreachable!("only a swap can be lost");
        };
        let mut past = self.pointer.past.iter();
        let was_ours = past.find(|entry| entry.mark.as_ref() == Some(mark));
        ProtocolAction::End(was_ours.map_or(ProtocolOutcome::Conflict, |entry| {
            ProtocolOutcome::Written(entry.version.clone())
        }))
    }

    fn intend(&mut self, current: Option<PointerEntry>) -> ProtocolAction {
        let ProtocolGoal::Swap { mark, .. } = &self.goal else {
            unreachable!("only a swap has an intent");
        };
        if self.refused {
            return ProtocolAction::End(ProtocolOutcome::Refused);
        }
        let mut pointer = Pointer {
            current,
            intent: Some(mark.clone()),
            ..self.pointer.clone()
        };
        if self.etag.is_none() {
            let list = self.list.iter().flatten();
            let by_hand = list.filter(|item| item.mark.is_none());
            pointer.known.extend(by_hand.map(|it| it.version.clone()));
        }
        if let Some(PointerEntry {
            version,
            mark: None,
        }) = &pointer.current
        {
            pointer.known.insert(version.clone());
        }
        // An earlier attempt of this write may have created the value.
        let mut list = self.list.iter().flatten();
        if let Some(item) = list.find(|it| it.mark.as_ref() == Some(mark)) {
            self.ours = Some(item.version.clone());
        }
        self.awaiting = Awaiting::Intend(pointer.clone());
        ProtocolAction::Replace(self.etag.clone(), pointer)
    }

    fn promote(&mut self, pointer: Pointer) -> ProtocolAction {
        self.awaiting = Awaiting::Promote(pointer.clone());
        ProtocolAction::Replace(self.etag.clone(), pointer)
    }

    /// Puts the value: the intent is ours.
    fn put(&mut self) -> ProtocolAction {
        if self.ours.is_some() {
            return self.relist();
        }
        if self.refused {
            return self.withdraw();
        }
        self.awaiting = Awaiting::Put;
        ProtocolAction::Put
    }

    fn withdraw(&mut self) -> ProtocolAction {
        self.awaiting = Awaiting::Withdraw;
        let pointer = Pointer {
            intent: None,
            ..self.pointer.clone()
        };
        ProtocolAction::Replace(self.etag.clone(), pointer)
    }

    /// Returns the action that completes the list, unless the list already shows all versions older
    /// than `version`.
    fn require_older(&mut self, version: Option<&String>) -> Option<ProtocolAction> {
        let mut listed = self.list.iter().flatten();
        if !listed.any(|item| Some(&item.version) == version) {
            return Some(self.list_later());
        }
        if self.is_snapshot || version.is_some_and(|version| self.shown.contains(version)) {
            return None;
        }
        Some(self.relist())
    }

    fn list_later(&mut self) -> ProtocolAction {
        if self.unseen == self.max_attempts {
            return ProtocolAction::End(ProtocolOutcome::Unseen);
        }
        self.unseen += 1;
        self.awaiting = Awaiting::Relist;
        ProtocolAction::Pause
    }

    fn relist(&mut self) -> ProtocolAction {
        let list = self.list.take().into_iter().flatten();
        self.shown.extend(list.map(|item| item.version));
        ProtocolAction::List
    }

    fn set_pointer(&mut self, etag: String, pointer: Pointer) {
        self.etag = Some(etag);
        self.pointer = pointer;
    }

    /// Returns whether neither a write mark nor the pointer explains a version.
    fn is_unknown(&self, item: &VersionItem) -> bool {
        item.enabled && item.mark.is_none() && !self.pointer.known.contains(&item.version)
    }
}

impl Pointer {
    /// Returns the pointer with another current version.
    fn with_current(&self, entry: PointerEntry) -> Self {
        let past = self.current.iter().chain(&self.past).take(MAX_PAST);
        Self {
            past: past.cloned().collect(),
            current: Some(entry),
            intent: None,
            known: self.known.clone(),
        }
    }

    /// Returns the pointer with the last of a person's versions as the current one. The new pointer
    /// knows all of them.
    fn adopt(&self, by_hand: &[&VersionItem], newest: Option<&VersionItem>) -> Self {
        let is_newest = |item: &VersionItem| newest.is_some_and(|it| it.version == item.version);
        let last = by_hand
            .iter()
            .max_by_key(|item| (is_newest(item), item.created, &item.version))
            .expect("at least one");
        let mut pointer = self.with_current(last.entry());
        let seen = by_hand.iter().map(|item| item.version.clone());
        pointer.known.extend(seen);
        pointer
    }
}

#[cfg(test)]
mod model;
