//! The secret without a coordinator: a look before the write, and a look for forks after it.
//!
//! Nothing here keeps two writers apart but the claim. If two write over one version all the
//! same, each finds the other by the version that both name as their parent. Both values stay,
//! and the one that was first by the vault's own time counts: whoever comes second puts it
//! once more, as a copy under its first name, to be the newest again. The same is done
//! for a value that a person put just before a write.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use authferry_core::{Secret, Stamp, Stored, Version};
use tokio::time::sleep;

use crate::{
    classify::{self, Unwritten},
    coordinated::{GET, LIST, Unswapped},
    tags,
    trouble::Trouble,
    wire::{Kept, Listed, Tags, Vault},
};

/// A secret whose newest version counts.
pub(crate) struct Alone {
    pub(crate) vault: Arc<Vault>,
    pub(crate) name: String,
}

/// How often a busy vault is asked, and a list for what it must show.
const TRIES: u32 = 40;

impl Alone {
    pub(crate) async fn read(&self) -> Result<Option<Stored>, Trouble> {
        let kept = self.newest().await?;
        Ok(kept.map(|kept| Stored {
            version: Version::new(original(&kept)),
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
        let value = str::from_utf8(new.expose());
        let value = value.map_err(|_| Unswapped::Refused(Trouble::NotUtf8))?;
        let expected = expected.map(Version::as_str);
        let mut tries = 0;
        loop {
            let before = self.newest().await.map_err(Unswapped::Refused)?;
            if let Some(kept) = &before
                && tags::stamp_of(&kept.value, &kept.tags).is_some_and(|it| it.id == stamp.id)
                && kept.value.expose() == new.expose()
            {
                return Ok(Version::new(original(kept)));
            }
            if before.as_ref().map(original) != expected {
                return Err(Unswapped::Conflict);
            }
            let none = Tags::new();
            let beside = before.as_ref().map_or(&none, |kept| &kept.tags);
            let tags = tags::of_write(new, stamp, expected, None, beside);
            let kind = before.as_ref().and_then(|kept| kept.content_type.clone());
            let put = self.vault.put(&self.name, value, tags, kind).await;
            match put.map_err(classify::of_put) {
                Ok(ours) => {
                    let settled = self.settle(&ours, before.as_ref()).await;
                    return if settled.map_err(Unswapped::Unknown)? {
                        Ok(Version::new(&ours.version))
                    } else {
                        Err(Unswapped::Conflict)
                    };
                }
                // Somebody else is at it, or an earlier request of ours still is.
                Err(Unwritten::Unknown(Trouble::Busy)) if tries < TRIES => {
                    tries += 1;
                    sleep(pause(tries)).await;
                }
                Err(Unwritten::Refused(trouble)) => return Err(Unswapped::Refused(trouble)),
                Err(Unwritten::Unknown(trouble)) => return Err(Unswapped::Unknown(trouble)),
            }
        }
    }

    /// Looks who else wrote over the same version, and sees to it that what counts of all that
    /// is the newest. Returns whether that is ours.
    async fn settle(&self, ours: &Listed, before: Option<&Kept>) -> Result<bool, Trouble> {
        for tries in 0..TRIES {
            let list = self.vault.list(&self.name).await;
            let (list, _) = list.map_err(|failure| classify::of_vault(failure, LIST))?;
            if !list.iter().any(|it| it.version == ours.version) {
                // What it does not show of ours it may not show of others either.
                sleep(pause(tries)).await;
                continue;
            }
            let fork = Fork::of(&list, before);
            let counts = fork.counts();
            if fork.is_none() {
                return Ok(true);
            }
            let Some(newest) = self.newest().await? else {
                return Ok(false);
            };
            let is_ours = counts == ours.version;
            if original(&newest) == counts || !fork.has(original(&newest)) {
                return Ok(is_ours);
            }
            let found = self.vault.get(&self.name, Some(&counts)).await;
            let found = found.map_err(|failure| classify::of_vault(failure, GET))?;
            let Some(kept) = found else {
                return Ok(is_ours);
            };
            let copy = tags::of_copy(&counts, &kept.tags);
            let text = str::from_utf8(kept.value.expose()).map_err(|_| Trouble::NotUtf8)?;
            let kind = kept.content_type.clone();
            match self.vault.put(&self.name, text, copy, kind).await {
                Ok(_) => {}
                Err(failure) => match classify::of_put(failure) {
                    Unwritten::Unknown(Trouble::Busy) => sleep(pause(tries)).await,
                    Unwritten::Refused(trouble) | Unwritten::Unknown(trouble) => {
                        return Err(trouble);
                    }
                },
            }
        }
        Err(Trouble::Behind)
    }

    async fn newest(&self) -> Result<Option<Kept>, Trouble> {
        let found = self.vault.get(&self.name, None).await;
        found.map_err(|failure| classify::of_vault(failure, GET))
    }
}

/// Everything that was written over one version: by us, by others like us, and by people.
struct Fork {
    /// When and what, without copies.
    writes: BTreeSet<(i64, String)>,
    by_hand: BTreeSet<(i64, String)>,
}

impl Fork {
    /// Finds it in a list. `before` is the version that was written over.
    fn of(list: &[Listed], before: Option<&Kept>) -> Self {
        let parent = before.map(original);
        let named: BTreeSet<_> = list
            .iter()
            .filter_map(|it| tags::parent(&it.tags))
            .collect();
        let mut fork = Self {
            writes: BTreeSet::new(),
            by_hand: BTreeSet::new(),
        };
        for it in list.iter().filter(|it| it.enabled) {
            if tags::original(&it.version, &it.tags) != it.version {
                continue;
            }
            let key = (it.created, it.version.clone());
            if tags::mark(&it.tags, None).is_some() {
                if tags::parent(&it.tags) == parent {
                    fork.writes.insert(key);
                }
            } else if before.is_none_or(|before| it.created > before.created)
                && Some(&*it.version) != parent
                && !named.contains(&*it.version)
            {
                fork.by_hand.insert(key);
            }
        }
        fork
    }

    fn is_none(&self) -> bool {
        self.writes.len() == 1 && self.by_hand.is_empty()
    }

    fn has(&self, version: &str) -> bool {
        let mut all = self.writes.iter().chain(&self.by_hand);
        all.any(|(_, it)| it == version)
    }

    /// What a person put last counts, or else what was written first.
    fn counts(&self) -> String {
        let counts = self.by_hand.last().or_else(|| self.writes.first());
        counts
            .map(|(_, version)| version.clone())
            .unwrap_or_default()
    }
}

fn original(kept: &Kept) -> &str {
    tags::original(&kept.version, &kept.tags)
}

/// Returns a pause that is not the same for all who wait.
pub(crate) fn pause(tries: u32) -> Duration {
    let by_chance = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos() % 50);
    Duration::from_millis(u64::from(20 * tries.min(20) + by_chance))
}

#[cfg(test)]
mod forks;
