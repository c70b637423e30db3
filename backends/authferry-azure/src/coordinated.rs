//! The secret under a coordinator: does what the protocol's machine asks for.

use std::{collections::HashMap, time::Duration};

use authferry_core::{CasError, Secret, Stamp, Stored, Version};
use tokio::time::sleep;

use crate::{
    classify::{self, Unwritten},
    protocol::{Ask, End, Goal, Item, Mark, Newest, Pointer, Reply, Turn},
    record::{READ, WRITE},
    tags,
    trouble::Trouble,
    wire::{Blob, Kept, Listed, Replaced, Tags, Vault},
};

/// A secret, and the blob that says which version of it counts.
pub(crate) struct Coordinated {
    pub(crate) vault: Vault,
    pub(crate) name: String,
    pub(crate) pointer: Blob,
    /// The blob's address, as the tags of each version name it.
    pub(crate) coordinator: String,
}

/// The pauses grow up to this one.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How often an intent is seen before it is taken for that of a dead writer: some ten seconds.
const PATIENCE: u8 = 23;

/// Why a turn came to no end.
pub(crate) struct Halt {
    trouble: Trouble,
    /// Whether the value may be there.
    sent: bool,
}

impl Coordinated {
    pub(crate) async fn read(&self) -> Result<Option<Stored>, Trouble> {
        let mut hands = Hands::new(self, None);
        let end = hands.turn(Goal::Read).await.map_err(|halt| halt.trouble)?;
        let version = match end {
            End::Read(Some(version)) => version,
            End::Read(None) => return Ok(None),
            End::Disabled => return Err(Trouble::Disabled),
            End::Unseen | End::Written(_) | End::Conflict | End::Refused => {
                return Err(Trouble::Behind);
            }
        };
        let kept = match hands.seen.remove(&version) {
            Some(kept) => kept,
            None => self.get(&version).await?.ok_or(Trouble::Behind)?,
        };
        Ok(Some(Stored {
            version: Version::new(&kept.version),
            stamp: tags::stamp_of(&kept.value, &kept.tags),
            secret: kept.value,
        }))
    }

    pub(crate) async fn swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, Unswapped> {
        let goal = Goal::Swap {
            expected: expected.map(|version| version.as_str().to_owned()),
            mark: tags::mark_of(new, stamp),
        };
        let mut hands = Hands::new(self, Some((new, stamp)));
        let end = match hands.turn(goal).await {
            Ok(end) => end,
            Err(Halt { trouble, sent }) if sent => return Err(Unswapped::Unknown(trouble)),
            Err(Halt { trouble, .. }) => return Err(Unswapped::Refused(trouble)),
        };
        match end {
            End::Written(version) => Ok(Version::new(&version)),
            End::Conflict | End::Read(_) => Err(Unswapped::Conflict),
            End::Refused => Err(Unswapped::Refused(
                hands.refused.unwrap_or(Trouble::Unintelligible),
            )),
            End::Unseen if hands.sent => Err(Unswapped::Unknown(Trouble::Behind)),
            End::Unseen => Err(Unswapped::Refused(Trouble::Behind)),
            End::Disabled => Err(Unswapped::Refused(Trouble::Disabled)),
        }
    }

    async fn get(&self, version: &str) -> Result<Option<Kept>, Trouble> {
        let found = self.vault.get(&self.name, Some(version)).await;
        found.map_err(|failure| classify::of_vault(failure, GET))
    }

    fn mark(&self, tags: &Tags) -> Option<Mark> {
        tags::mark(tags, &self.coordinator)
    }
}

/// What is known after a swap that did not succeed.
pub(crate) enum Unswapped {
    Conflict,
    Refused(Trouble),
    Unknown(Trouble),
}

impl Unswapped {
    pub(crate) fn told(
        self,
        error: impl FnOnce(Trouble) -> authferry_core::StoreError,
    ) -> CasError {
        match self {
            Self::Conflict => CasError::Conflict,
            Self::Refused(trouble) => CasError::Refused(error(trouble)),
            Self::Unknown(trouble) => CasError::Ambiguous(error(trouble)),
        }
    }
}

/// The right that a look takes.
const GET: &str = "get secrets from the vault";

/// The right that a list takes.
const LIST: &str = "list secrets in the vault";

/// The hands of one turn, and what went through them.
struct Hands<'a> {
    place: &'a Coordinated,
    new: Option<(&'a Secret, &'a Stamp)>,
    /// The values that were seen, by their versions.
    seen: HashMap<String, Kept>,
    newest: Option<String>,
    pauses: u32,
    /// Whether a put was sent that may have been done.
    sent: bool,
    /// Why the put was refused.
    refused: Option<Trouble>,
}

impl<'a> Hands<'a> {
    fn new(place: &'a Coordinated, new: Option<(&'a Secret, &'a Stamp)>) -> Self {
        Self {
            place,
            new,
            seen: HashMap::new(),
            newest: None,
            pauses: 0,
            sent: false,
            refused: None,
        }
    }

    async fn turn(&mut self, goal: Goal) -> Result<End, Halt> {
        let (mut turn, mut ask) = Turn::new(goal, PATIENCE);
        loop {
            if let Ask::End(end) = ask {
                return Ok(end);
            }
            let reply = self.does(ask).await.map_err(|trouble| Halt {
                trouble,
                sent: self.sent,
            })?;
            ask = turn.step(reply);
        }
    }

    async fn does(&mut self, ask: Ask) -> Result<Reply, Trouble> {
        let place = self.place;
        Ok(match ask {
            Ask::Pointer => {
                let found = place.pointer.get().await;
                let found = found.map_err(|why| classify::of_blob(why, READ))?;
                let read = |(etag, bytes): (String, Vec<u8>)| {
                    let pointer = serde_json::from_slice(&bytes);
                    Ok((etag, pointer.map_err(|_| Trouble::BadBlob)?))
                };
                Reply::Pointer(found.map(read).transpose()?)
            }
            Ask::Newest => Reply::Newest(self.looks().await?),
            Ask::List => {
                let list = place.vault.list(&place.name).await;
                let (list, whole) = list.map_err(|why| classify::of_vault(why, LIST))?;
                Reply::List(self.items(list).await?, whole)
            }
            Ask::Find(version) => {
                let found = place.get(&version).await?;
                Reply::Found(found.map(|kept| self.seen.insert(version, kept)).is_some())
            }
            Ask::Replace(etag, pointer) => self.replaces(etag.as_deref(), &pointer).await?,
            Ask::Put => self.puts().await?,
            Ask::Pause => {
                let pause = Duration::from_millis(50) * 2_u32.pow(self.pauses.min(4));
                self.pauses += 1;
                sleep(pause.min(LONGEST_PAUSE)).await;
                Reply::Paused
            }
            Ask::End(_) => unreachable!("nothing is to be done at the end"),
        })
    }

    async fn looks(&mut self) -> Result<Newest, Trouble> {
        let found = self.place.vault.get(&self.place.name, None).await;
        let found = match found.map_err(|why| classify::of_vault(why, GET)) {
            Ok(found) => found,
            Err(Trouble::Disabled) => return Ok(Newest::Disabled),
            Err(trouble) => return Err(trouble),
        };
        let Some(kept) = found else {
            return Ok(Newest::Nothing);
        };
        let is_of_value = tags::is_of(&kept.value, &kept.tags);
        let item = Item {
            version: kept.version.clone(),
            created: kept.created,
            enabled: true,
            mark: self.place.mark(&kept.tags).filter(|_| is_of_value),
        };
        self.newest = Some(kept.version.clone());
        self.seen.insert(kept.version.clone(), kept);
        Ok(Newest::This(item))
    }

    /// Returns a list as the machine knows it. A mark that comes twice may have been copied
    /// along with the tags, to another value: then the values are looked at.
    async fn items(&mut self, list: Vec<Listed>) -> Result<Vec<Item>, Trouble> {
        let mut times: HashMap<Mark, usize> = HashMap::new();
        for mark in list.iter().filter_map(|it| self.place.mark(&it.tags)) {
            *times.entry(mark).or_default() += 1;
        }
        let mut items = Vec::new();
        for listed in list {
            let mut mark = self.place.mark(&listed.tags);
            let is_alone = mark.as_ref().is_none_or(|mark| times[mark] == 1);
            let is_seen = self.seen.contains_key(&listed.version);
            if listed.enabled
                && !is_alone
                && !is_seen
                && let Some(kept) = self.place.get(&listed.version).await?
            {
                self.seen.insert(listed.version.clone(), kept);
            }
            if let Some(kept) = self.seen.get(&listed.version) {
                mark = mark.filter(|_| tags::is_of(&kept.value, &kept.tags));
            }
            items.push(Item {
                version: listed.version,
                created: listed.created,
                enabled: listed.enabled,
                mark,
            });
        }
        Ok(items)
    }

    async fn replaces(&self, etag: Option<&str>, pointer: &Pointer) -> Result<Reply, Trouble> {
        let bytes = serde_json::to_vec(pointer).expect("texts and numbers alone");
        match self.place.pointer.replace(etag, bytes).await {
            Ok(Replaced::As(etag)) => Ok(Reply::Replaced(etag)),
            Ok(Replaced::Moved) => Ok(Reply::Moved),
            Err(failure) => match classify::of_blob(failure, WRITE) {
                trouble if self.new.is_none() && classify::is_denied(&trouble) => Ok(Reply::Denied),
                trouble => Err(trouble),
            },
        }
    }

    async fn puts(&mut self) -> Result<Reply, Trouble> {
        let (new, stamp) = self.new.expect("only who has a value puts one");
        let value = str::from_utf8(new.expose()).map_err(|_| Trouble::NotUtf8)?;
        let before = self
            .newest
            .as_ref()
            .and_then(|newest| self.seen.get(newest));
        let none = Tags::new();
        let tags = tags::of_write(
            new,
            stamp,
            &self.place.coordinator,
            before.map_or(&none, |kept| &kept.tags),
        );
        let kind = before.and_then(|kept| kept.content_type.clone());
        let put = self.place.vault.put(&self.place.name, value, tags, kind);
        // Whoever drops this in the middle does not know either.
        self.sent = true;
        match put.await.map_err(classify::of_put) {
            Ok(version) => Ok(Reply::Put(version)),
            Err(Unwritten::Refused(trouble)) => {
                self.sent = false;
                self.refused = Some(trouble);
                Ok(Reply::Refused)
            }
            Err(Unwritten::Unknown(trouble)) => Err(trouble),
        }
    }
}
