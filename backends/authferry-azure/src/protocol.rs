//! How a swap goes through where Key Vault has none: a blob says which version counts.
//!
//! Key Vault only appends, and its newest version is whatever came last, also from a writer
//! that was stopped for an hour. So what counts is said by a small blob, the *pointer*, which
//! is replaced under the condition that it is still the one that was read. A write takes
//! these steps, and [`Turn`] is the machine that takes them:
//!
//! 1. Look: read the pointer, then the newest version. If they agree, nothing else matters.
//! 2. Write the *intent* into the pointer, which one of any number of writers can do.
//! 3. Put the value, with the mark of the same write.
//! 4. List the versions, until the own one is among them. A version that bears no mark of ours
//!    and that the pointer does not know was put there by hand: it becomes the current one.
//! 5. Otherwise make the own version the current one, in the pointer.
//!
//! Whoever looks and finds an intent whose value is there takes step 4 and 5 for a writer that
//! may be dead. A writer that finds an intent without a value watches the pointer for a
//! while, by its own clock, and then replaces the intent. No clock is compared with another
//! one's, and none decides anything but how long that takes: a writer that wakes up after its
//! intent was replaced may still put its value, which then bears a mark that the pointer
//! does not name, and counts for nothing.
//!
//! A list may lag behind, and a long one comes in pages, so it is no picture of one moment: what
//! was put while it was read may be in it while something older is not. Everything that is
//! older than some version is known only from a list of one page that shows that version, or
//! from one that was begun after another list had shown it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What the pointer says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Pointer {
    /// The version that counts.
    pub(crate) current: Option<Entry>,
    /// Who is about to replace it, and nobody else.
    pub(crate) intent: Option<Mark>,
    /// What counted before, the latest first.
    pub(crate) past: Vec<Entry>,
    /// The versions without a mark of ours that were seen.
    pub(crate) known: BTreeSet<String>,
}

/// A version that counts or counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) version: String,
    /// `None` for one that was put there by hand.
    pub(crate) mark: Option<Mark>,
}

/// Names one write and its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) id: String,
    pub(crate) sha256: String,
}

/// How many entries are kept of what counted before. A writer that was slower than so many
/// others is told of a conflict, although it had been first.
const PAST: usize = 16;

/// A version as a list or a look shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Item {
    pub(crate) version: String,
    /// Whole seconds by the clock of some server there.
    pub(crate) created: i64,
    pub(crate) enabled: bool,
    /// The write that put it there under this very pointer.
    pub(crate) mark: Option<Mark>,
}

impl Item {
    fn entry(&self) -> Entry {
        Entry {
            version: self.version.clone(),
            mark: self.mark.clone(),
        }
    }
}

/// The newest version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Newest {
    /// There is no version.
    Nothing,
    /// There is one, and it is shown to nobody.
    Disabled,
    This(Item),
}

/// What somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Goal {
    Read,
    Swap {
        expected: Option<String>,
        mark: Mark,
    },
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    /// Read the pointer.
    Pointer,
    /// Look at the newest version.
    Newest,
    /// List all versions.
    List,
    /// Look whether this version is there.
    Find(String),
    /// Replace the pointer, if it is still what was read last.
    Replace(Option<String>, Pointer),
    /// Put the value, with its mark.
    Put,
    /// Let some time pass: what is waited for takes longer each time.
    Pause,
    End(End),
}

/// How a turn ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// This version counts.
    Read(Option<String>),
    /// This version is the write.
    Written(String),
    /// The write counts for nothing, whether or not its value is there.
    Conflict,
    /// The put was refused, and the intent is withdrawn.
    Refused,
    /// The value was put, and no list shows it yet.
    Unseen,
    /// Nothing says what counts, and the newest version is disabled.
    Disabled,
}

/// What came of what was asked for. Whatever else comes, a failure above all, is the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    /// The pointer, with the name of its state.
    Pointer(Option<(String, Pointer)>),
    Newest(Newest),
    /// All versions, and whether they came on one page.
    List(Vec<Item>, bool),
    Found(bool),
    /// It was replaced, and its state has this name now.
    Replaced(String),
    /// It is not what it was.
    Moved,
    /// This caller may not write to it.
    Denied,
    /// The value is this version.
    Put(String),
    /// It certainly is none.
    Refused,
    Paused,
}

/// One look or one swap, from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Turn {
    goal: Goal,
    /// How often one and the same intent is looked at before it is replaced, and how often a
    /// list is asked for a version that it must show.
    patience: u8,
    asked: Asked,
    etag: Option<String>,
    pointer: Pointer,
    newest: Option<Newest>,
    /// Whether the newest version was looked at after the list.
    newest_is_later: bool,
    list: Option<Vec<Item>>,
    /// Whether the list is a picture of one moment.
    whole: bool,
    /// The versions that lists before this one have shown.
    shown: BTreeSet<String>,
    /// The version that our own value is.
    ours: Option<String>,
    /// Whether the put was refused.
    refused: bool,
    /// The state of the pointer that is waited to pass, and how often it was seen.
    watched: Option<(String, u8)>,
    /// How often a list did not show what was put.
    unseen: u8,
}

/// What a reply is the reply to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Asked {
    Look,
    Find,
    /// The pointer was to name what counts.
    Settle(Pointer),
    Intend(Pointer),
    Put,
    Withdraw,
    /// A pause before the pointer is read again.
    Rest,
    /// A pause before the list is.
    Relist,
}

impl Turn {
    pub(crate) fn new(goal: Goal, patience: u8) -> (Self, Ask) {
        let turn = Self {
            goal,
            patience,
            asked: Asked::Look,
            etag: None,
            pointer: Pointer::default(),
            newest: None,
            newest_is_later: false,
            list: None,
            whole: false,
            shown: BTreeSet::new(),
            ours: None,
            refused: false,
            watched: None,
            unseen: 0,
        };
        (turn, Ask::Pointer)
    }

    pub(crate) fn step(&mut self, reply: Reply) -> Ask {
        match (std::mem::replace(&mut self.asked, Asked::Look), reply) {
            (Asked::Look, Reply::Pointer(found)) => self.has_pointer(found),
            (Asked::Look, Reply::Newest(newest)) => {
                self.newest = Some(newest);
                self.newest_is_later = self.list.is_some();
                self.judge()
            }
            (Asked::Look, Reply::List(list, whole)) => {
                self.list = Some(list);
                self.whole = whole;
                self.newest_is_later = false;
                self.judge()
            }
            (Asked::Find, Reply::Found(there)) => {
                let current = self.pointer.current.clone().filter(|_| there);
                self.settled(current)
            }
            // Whoever may only look is told what the next writer will make of it.
            (Asked::Settle(pointer), Reply::Denied) => {
                Ask::End(End::Read(pointer.current.map(|entry| entry.version)))
            }
            (Asked::Settle(pointer), Reply::Replaced(etag)) => {
                self.holds(etag, pointer);
                self.settled(self.pointer.current.clone())
            }
            (Asked::Intend(pointer), Reply::Replaced(etag)) => {
                self.holds(etag, pointer);
                self.put()
            }
            (Asked::Settle(_) | Asked::Intend(_), Reply::Moved) | (Asked::Rest, Reply::Paused) => {
                self.start_over()
            }
            (Asked::Put, Reply::Put(version)) => {
                self.ours = Some(version);
                self.relist()
            }
            (Asked::Put, Reply::Refused) => {
                self.refused = true;
                self.withdraw()
            }
            // An earlier attempt may have landed, and somebody has finished it.
            (Asked::Withdraw, Reply::Moved) => self.start_over(),
            (Asked::Withdraw, Reply::Replaced(_) | Reply::Denied) => Ask::End(End::Refused),
            (Asked::Relist, Reply::Paused) => self.relist(),
            (asked, reply) => unreachable!("{reply:?} is no reply to {asked:?}"),
        }
    }

    fn start_over(&mut self) -> Ask {
        self.relist();
        self.newest = None;
        Ask::Pointer
    }

    fn has_pointer(&mut self, found: Option<(String, Pointer)>) -> Ask {
        (self.etag, self.pointer) = match found {
            Some((etag, pointer)) => (Some(etag), pointer),
            None => (None, Pointer::default()),
        };
        let seen = match &self.watched {
            Some((etag, seen)) if self.etag.as_ref() == Some(etag) => *seen,
            Some(_) | None => 0,
        };
        self.watched = self.etag.clone().map(|etag| (etag, seen));
        Ask::Newest
    }

    /// Decides by what has been seen so far, or asks for more.
    fn judge(&mut self) -> Ask {
        let newest = self.newest.clone().expect("asked for first");
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
            return Ask::List;
        };
        let mut by_hand: Vec<_> = list.iter().filter(|it| self.is_unknown(it)).collect();
        if let Some(item) = of_newest.filter(|it| self.newest_is_later && self.is_unknown(it)) {
            by_hand.push(item);
        }
        if !by_hand.is_empty() {
            if !self.newest_is_later {
                return Ask::Newest;
            }
            let pointer = self.pointer.adopts(&by_hand, of_newest);
            let counting = pointer.current.as_ref().map(|it| it.version.clone());
            let first = self.all_before(counting.as_ref());
            return first.unwrap_or_else(|| self.settle(pointer));
        }
        let Some(intent) = intent else {
            let current = current.as_ref();
            return match current.filter(|c| !list.iter().any(|it| it.version == c.version)) {
                Some(unlisted) => {
                    self.asked = Asked::Find;
                    Ask::Find(unlisted.version.clone())
                }
                None => self.settled(current.cloned()),
            };
        };
        let landed = list.iter().find(|it| it.mark.as_ref() == Some(&intent));
        match landed {
            Some(item) => {
                let first = self.all_before(Some(&item.version));
                first.unwrap_or_else(|| self.settle(self.pointer.moves_to(item.entry())))
            }
            None => self.pending(&intent, current),
        }
    }

    /// Nobody has written here through a pointer: the newest version counts.
    fn without_a_pointer(&mut self, newest: Newest) -> Ask {
        let Newest::This(item) = newest else {
            return Ask::End(End::Disabled);
        };
        let is_wanted = match &self.goal {
            Goal::Read => false,
            Goal::Swap { expected, .. } => expected.as_ref() == Some(&item.version),
        };
        if is_wanted && self.list.is_none() {
            // What is there already must be told from what comes.
            return Ask::List;
        }
        if is_wanted && !self.newest_is_later {
            // The list may show what came after that, and it would never be seen again.
            return Ask::Newest;
        }
        if is_wanted && let Some(ask) = self.all_before(Some(&item.version)) {
            return ask;
        }
        self.settled(Some(item.entry()))
    }

    /// An intent, and no value of it.
    fn pending(&mut self, intent: &Mark, current: Option<Entry>) -> Ask {
        let (expected, mark) = match &self.goal {
            Goal::Read => return Ask::End(End::Read(current.map(|entry| entry.version))),
            Goal::Swap { expected, mark } => (expected, mark),
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
        // A list may lag behind, and then the value that a look shows is there.
        let is_there = matches!(&self.newest, Some(Newest::This(item))
            if item.mark.as_ref() == Some(intent));
        if let Some((_, seen)) = &mut self.watched
            && (is_there || *seen < self.patience)
        {
            *seen = seen.saturating_add(1);
            self.asked = Asked::Rest;
            return Ask::Pause;
        }
        if self.list.is_none() && self.newest != Some(Newest::Nothing) {
            return Ask::List;
        }
        self.intend(current)
    }

    /// What counts is known, and nobody is about to replace it.
    fn settled(&mut self, current: Option<Entry>) -> Ask {
        let version = current.as_ref().map(|entry| entry.version.clone());
        let (expected, mark) = match &self.goal {
            Goal::Read => return Ask::End(End::Read(version)),
            Goal::Swap { expected, mark } => (expected, mark),
        };
        if let Some(entry) = current.as_ref().filter(|it| it.mark.as_ref() == Some(mark)) {
            return Ask::End(End::Written(entry.version.clone()));
        }
        if version != *expected {
            return self.lost();
        }
        self.intend(current)
    }

    /// Something else counts. It may have been ours before that.
    fn lost(&self) -> Ask {
        let Goal::Swap { mark, .. } = &self.goal else {
            unreachable!("only a swap can be lost");
        };
        let mut past = self.pointer.past.iter();
        let was_ours = past.find(|entry| entry.mark.as_ref() == Some(mark));
        Ask::End(was_ours.map_or(End::Conflict, |entry| End::Written(entry.version.clone())))
    }

    fn intend(&mut self, current: Option<Entry>) -> Ask {
        let Goal::Swap { mark, .. } = &self.goal else {
            unreachable!("only a swap intends something");
        };
        if self.refused {
            return Ask::End(End::Refused);
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
        if let Some(Entry {
            version,
            mark: None,
        }) = &pointer.current
        {
            pointer.known.insert(version.clone());
        }
        // A value of ours may be there from an attempt before this one.
        let mut list = self.list.iter().flatten();
        if let Some(item) = list.find(|it| it.mark.as_ref() == Some(mark)) {
            self.ours = Some(item.version.clone());
        }
        self.asked = Asked::Intend(pointer.clone());
        Ask::Replace(self.etag.clone(), pointer)
    }

    fn settle(&mut self, pointer: Pointer) -> Ask {
        self.asked = Asked::Settle(pointer.clone());
        Ask::Replace(self.etag.clone(), pointer)
    }

    /// The intent is ours.
    fn put(&mut self) -> Ask {
        if self.ours.is_some() {
            return self.relist();
        }
        if self.refused {
            return self.withdraw();
        }
        self.asked = Asked::Put;
        Ask::Put
    }

    fn withdraw(&mut self) -> Ask {
        self.asked = Asked::Withdraw;
        let pointer = Pointer {
            intent: None,
            ..self.pointer.clone()
        };
        Ask::Replace(self.etag.clone(), pointer)
    }

    /// Returns what is to be done first, unless the list shows all that is older than a version.
    fn all_before(&mut self, version: Option<&String>) -> Option<Ask> {
        let mut listed = self.list.iter().flatten();
        if !listed.any(|item| Some(&item.version) == version) {
            return Some(self.list_later());
        }
        if self.whole || version.is_some_and(|version| self.shown.contains(version)) {
            return None;
        }
        Some(self.relist())
    }

    fn list_later(&mut self) -> Ask {
        if self.unseen == self.patience {
            return Ask::End(End::Unseen);
        }
        self.unseen += 1;
        self.asked = Asked::Relist;
        Ask::Pause
    }

    fn relist(&mut self) -> Ask {
        let list = self.list.take().into_iter().flatten();
        self.shown.extend(list.map(|item| item.version));
        Ask::List
    }

    fn holds(&mut self, etag: String, pointer: Pointer) {
        self.etag = Some(etag);
        self.pointer = pointer;
    }

    /// Whether neither a mark nor the pointer explains a version.
    fn is_unknown(&self, item: &Item) -> bool {
        item.enabled && item.mark.is_none() && !self.pointer.known.contains(&item.version)
    }
}

impl Pointer {
    /// Returns the pointer once another version counts.
    fn moves_to(&self, entry: Entry) -> Self {
        let past = self.current.iter().chain(&self.past).take(PAST);
        Self {
            past: past.cloned().collect(),
            current: Some(entry),
            intent: None,
            known: self.known.clone(),
        }
    }

    /// Returns the pointer once the last of the versions that were put by hand counts. None of
    /// them is a surprise any more.
    fn adopts(&self, by_hand: &[&Item], newest: Option<&Item>) -> Self {
        let is_newest = |item: &Item| newest.is_some_and(|it| it.version == item.version);
        let last = by_hand
            .iter()
            .max_by_key(|item| (is_newest(item), item.created, &item.version))
            .expect("at least one");
        let mut pointer = self.moves_to(last.entry());
        let seen = by_hand.iter().map(|item| item.version.clone());
        pointer.known.extend(seen);
        pointer
    }
}

#[cfg(test)]
mod model;
