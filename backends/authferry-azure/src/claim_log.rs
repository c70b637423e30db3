//! Claims in Key Vault alone: a log of bids, and a wait before one counts.
//!
//! The bids are the versions of a secret of their own, and all there is to say of one is in
//! its tags. Who wants the claim appends a bid in the next *epoch* and waits. Of all bids in
//! one epoch the first counts, by the vault's own time and then by name. The wait must be longer
//! than a bid needs to be listed everywhere, and nothing that Microsoft documents says how long
//! that is: it makes two winners unlikely, and no more than that. A renewal and a release
//! change the tags of the bid, which makes no version.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use authferry_core::{Bid, CLOCK_SKEW, Claim, ClaimError, Claims, Standing, StoreError, Version};
use tokio::time::sleep;

use crate::{
    alone::pause,
    classify::{self, Unwritten},
    coordinated::LIST,
    trouble::Trouble,
    wire::{Failure, Listed, Tags, Vault},
};

/// The claims of one secret.
pub(crate) struct ClaimLog {
    pub(crate) vault: Arc<Vault>,
    /// The secret of the claims.
    pub(crate) name: String,
    /// How it is called in errors.
    pub(crate) address: String,
    /// How long a bid waits before it counts.
    pub(crate) wait: Duration,
}

const EPOCH: &str = "authferry-epoch";
const HOLDER: &str = "authferry-holder";
const OWNER: &str = "authferry-owner";
const UNTIL: &str = "authferry-until";
const NOTE: &str = "authferry-note-";

const RELEASED: &str = "released";

/// How long the value of a tag can be, and how many there is room for beside the others.
const MAX_VALUE: usize = 256;
const MAX_NOTES: usize = 10;

/// What the versions hold: everything is in the tags.
const VALUE: &str = "-";

/// How often a busy vault is asked, and a list for what it must show.
const TRIES: u32 = 40;

/// A bid, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    epoch: u64,
    created: i64,
    version: String,
    holder: u64,
    owner: String,
    /// `None` once it is released.
    until: Option<u64>,
    note: Option<String>,
}

#[async_trait]
impl Claims for ClaimLog {
    async fn acquire(&self, bid: &Bid) -> Result<Claim, ClaimError> {
        let found = first_of_last_epoch(&self.list().await?);
        if let Some(found) = &found {
            if found.holder == bid.holder && found.until.is_some_and(|until| until > bid.now) {
                // An attempt whose answer was lost, and which may not have waited.
                return self.counts(bid, found.clone(), None).await;
            }
            found.must_be_over(bid)?;
        }
        let mut entry = Entry {
            epoch: found.as_ref().map_or(0, |it| it.epoch).saturating_add(1),
            created: 0,
            version: String::new(),
            holder: bid.holder,
            owner: bid.owner.clone(),
            until: Some(bid.until),
            note: found.as_ref().and_then(|it| it.note.clone()),
        };
        entry.version = self.append(&entry).await?;
        self.counts(bid, entry, found).await
    }

    async fn renew(&self, claim: &Claim, until: u64) -> Result<Claim, ClaimError> {
        let found = self.ours(claim).await?;
        if found.until.is_none() {
            return Err(ClaimError::Lost);
        }
        self.change(claim, &found, Some(until)).await?;
        // Whoever wanted it meanwhile may have seen it ended.
        self.ours(claim).await?;
        Ok(Claim {
            until,
            ..claim.clone()
        })
    }

    async fn release(&self, claim: &Claim) -> Result<(), ClaimError> {
        let found = self.ours(claim).await?;
        if found.until.is_none() {
            return Ok(());
        }
        self.change(claim, &found, None).await
    }

    async fn look(&self) -> Result<Option<Standing>, ClaimError> {
        let found = first_of_last_epoch(&self.list().await?);
        Ok(found.map(|entry| Standing {
            owner: entry.owner,
            until: entry.until,
            note: entry.note,
        }))
    }
}

impl ClaimLog {
    /// Waits until a bid of ours counts, if it does. `before` is what the last epoch before it
    /// has decided.
    async fn counts(
        &self,
        bid: &Bid,
        ours: Entry,
        before: Option<Entry>,
    ) -> Result<Claim, ClaimError> {
        sleep(self.wait).await;
        for tries in 0..TRIES {
            let list = self.list().await?;
            match judge(&list, &ours.version, before.as_ref(), bid) {
                Verdict::Unlisted => sleep(pause(tries)).await,
                Verdict::Counts(first) => return Ok(first.claim(bid.until)),
                Verdict::Second(held) => return Err(held),
                Verdict::Renewed(held) => {
                    self.give_up(&ours).await;
                    return Err(held);
                }
            }
        }
        Err(self.error(Trouble::Behind))
    }

    /// Returns the entry of a claim that is still ours.
    async fn ours(&self, claim: &Claim) -> Result<Entry, ClaimError> {
        let first = first_of_last_epoch(&self.list().await?);
        first
            .filter(|it| it.version == claim.version.as_str())
            .ok_or(ClaimError::Lost)
    }

    async fn change(
        &self,
        claim: &Claim,
        found: &Entry,
        until: Option<u64>,
    ) -> Result<(), ClaimError> {
        let entry = Entry {
            until,
            note: claim.note.clone(),
            ..found.clone()
        };
        let tags = entry.tags();
        for tries in 0..TRIES {
            let done = self.vault.retag(&self.name, &entry.version, &tags).await;
            match done.map_err(of_change) {
                Err(Trouble::Busy) => sleep(pause(tries)).await,
                done => return done.map_err(|trouble| self.error(trouble)),
            }
        }
        Err(self.error(Trouble::Busy))
    }

    async fn give_up(&self, ours: &Entry) {
        let entry = Entry {
            until: None,
            ..ours.clone()
        };
        // If this fails it ends by itself.
        drop(
            self.vault
                .retag(&self.name, &entry.version, &entry.tags())
                .await,
        );
    }

    /// Appends a bid, and returns its version.
    async fn append(&self, entry: &Entry) -> Result<String, ClaimError> {
        for tries in 0..TRIES {
            let put = self.vault.put(&self.name, VALUE, entry.tags(), None).await;
            let trouble = match put.map_err(classify::of_put) {
                Ok(listed) => return Ok(listed.version),
                Err(Unwritten::Refused(trouble) | Unwritten::Unknown(trouble)) => trouble,
            };
            if !matches!(trouble, Trouble::Busy) {
                return Err(self.error(trouble));
            }
            sleep(pause(tries)).await;
            // It may be there all the same, and if another one is, this one comes too late.
            let list = self.list().await?;
            let mut same = list.iter().filter(|it| it.epoch >= entry.epoch);
            if let Some(it) = same.clone().find(|it| it.holder == entry.holder) {
                return Ok(it.version.clone());
            }
            if let Some(it) = same.next() {
                return Err(it.held());
            }
        }
        Err(self.error(Trouble::Busy))
    }

    async fn list(&self) -> Result<Vec<Entry>, ClaimError> {
        let list = self.vault.list(&self.name).await;
        let (list, _) = list.map_err(|failure| self.error(classify::of_vault(failure, LIST)))?;
        Ok(list.iter().filter_map(Entry::of).collect())
    }

    fn error(&self, trouble: Trouble) -> ClaimError {
        ClaimError::Store(StoreError {
            kind: trouble.kind(),
            operation: "change the claim in",
            store: self.address.clone(),
            source: Some(Box::new(trouble)),
        })
    }
}

fn of_change(failure: Failure) -> Trouble {
    classify::of_vault(failure, "update secrets in the vault")
}

/// What a list says of a bid that has waited.
enum Verdict {
    /// The list does not show it, and so it may not show others either.
    Unlisted,
    /// It is the first one.
    Counts(Entry),
    /// Another one was first.
    Second(ClaimError),
    /// The holder before it came back just in time.
    Renewed(ClaimError),
}

/// Decides on the bid that is the version `ours`. `before` is what the last epoch before it
/// has decided.
fn judge(list: &[Entry], ours: &str, before: Option<&Entry>, bid: &Bid) -> Verdict {
    let is_listed = list.iter().any(|it| it.version == ours);
    let Some(first) = first_of_last_epoch(list).filter(|_| is_listed) else {
        return Verdict::Unlisted;
    };
    if first.version != ours {
        return Verdict::Second(first.held());
    }
    let renewed = before.and_then(|before| list.iter().find(|it| it.version == before.version));
    match renewed.map(|renewed| renewed.must_be_over(bid)) {
        Some(Err(held)) => Verdict::Renewed(held),
        Some(Ok(())) | None => Verdict::Counts(first),
    }
}

/// Returns the bid that counts.
fn first_of_last_epoch(list: &[Entry]) -> Option<Entry> {
    let epoch = list.iter().map(|it| it.epoch).max()?;
    let bids = list.iter().filter(|it| it.epoch == epoch);
    bids.min_by_key(|it| (it.created, &it.version)).cloned()
}

impl Entry {
    fn of(listed: &Listed) -> Option<Self> {
        let tag = |name: &str| listed.tags.get(name);
        let until = tag(UNTIL)?;
        let notes: Vec<_> = (0..MAX_NOTES)
            .map_while(|n| tag(&format!("{NOTE}{n}")).cloned())
            .collect();
        Some(Self {
            epoch: tag(EPOCH)?.parse().ok()?,
            created: listed.created,
            version: listed.version.clone(),
            holder: u64::from_str_radix(tag(HOLDER)?, 16).ok()?,
            owner: tag(OWNER)?.clone(),
            until: match until.as_str() {
                RELEASED => None,
                seconds => Some(seconds.parse().ok()?),
            },
            note: (!notes.is_empty()).then(|| notes.concat()),
        })
    }

    fn tags(&self) -> Tags {
        let until = self
            .until
            .map_or_else(|| RELEASED.to_owned(), |until| until.to_string());
        let mut tags = Tags::from([
            (EPOCH.to_owned(), self.epoch.to_string()),
            (HOLDER.to_owned(), format!("{:016x}", self.holder)),
            (
                OWNER.to_owned(),
                self.owner.chars().take(MAX_VALUE).collect(),
            ),
            (UNTIL.to_owned(), until),
        ]);
        let note: Vec<_> = self.note.iter().flat_map(|note| note.chars()).collect();
        for (n, part) in note.chunks(MAX_VALUE).take(MAX_NOTES).enumerate() {
            tags.insert(format!("{NOTE}{n}"), part.iter().collect());
        }
        tags
    }

    fn must_be_over(&self, bid: &Bid) -> Result<(), ClaimError> {
        match self.until {
            Some(until)
                if self.holder != bid.holder && until.saturating_add(CLOCK_SKEW) > bid.now =>
            {
                Err(self.held())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn held(&self) -> ClaimError {
        ClaimError::Held {
            owner: self.owner.clone(),
            until: self.until.unwrap_or_default(),
        }
    }

    fn claim(self, until: u64) -> Claim {
        Claim {
            owner: self.owner,
            holder: self.holder,
            fence: self.epoch,
            until: self.until.unwrap_or(until),
            version: Version::new(&self.version),
            note: self.note,
        }
    }
}

#[cfg(test)]
pub(crate) mod odds;
