//! Executes the protocol's actions for a secret and its coordinator.

use std::{collections::HashMap, time::Duration};

use authferry_core::{CasError, Secret, Stamp, Stored, Version};
use tokio::time::sleep;

use crate::{
    azure_error::AzureError,
    classify::{self, PutFailure},
    protocol::{
        Newest, Operation, Pointer, ProtocolAction, ProtocolGoal, ProtocolOutcome, ProtocolReply,
        VersionItem, WriteMark,
    },
    record::{READ, WRITE},
    tags,
    wire::{Blob, BlobSwap, KeyVault, ListedVersion, SecretVersion, Tags},
};

/// A secret, and the blob that names its current version.
pub(crate) struct Coordinated {
    pub(crate) vault: KeyVault,
    pub(crate) name: String,
    pub(crate) pointer: Blob,
    /// The blob's address, as in the tags of each version.
    pub(crate) coordinator: String,
}

/// The upper limit of the backoff.
const MAX_DELAY: Duration = Duration::from_millis(500);

/// How often an intent is read before its writer counts as dead: some ten seconds.
const MAX_ATTEMPTS: u8 = 23;

/// Why an operation was aborted.
pub(crate) struct OperationError {
    cause: AzureError,
    /// Whether the put may have created the value.
    may_have_put: bool,
}

impl Coordinated {
    pub(crate) async fn read(&self) -> Result<Option<Stored>, AzureError> {
        let mut executor = Executor::new(self, None);
        let outcome = executor.run(ProtocolGoal::Read).await;
        let version = match outcome.map_err(|error| error.cause)? {
            ProtocolOutcome::Read(Some(version)) => version,
            ProtocolOutcome::Read(None) => return Ok(None),
            ProtocolOutcome::Disabled => return Err(AzureError::Disabled),
            ProtocolOutcome::Unseen
            | ProtocolOutcome::Written(_)
            | ProtocolOutcome::Conflict
            | ProtocolOutcome::Refused => {
                return Err(AzureError::StaleRead);
            }
        };
        let found = match executor.seen.remove(&version) {
            Some(found) => found,
            None => self.get(&version).await?.ok_or(AzureError::StaleRead)?,
        };
        Ok(Some(Stored {
            version: Version::new(&found.version),
            stamp: tags::stamp_of(&found.value, &found.tags),
            secret: found.value,
        }))
    }

    pub(crate) async fn swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, SwapError> {
        let goal = ProtocolGoal::Swap {
            expected: expected.map(|version| version.as_str().to_owned()),
            mark: tags::mark_of(new, stamp),
        };
        let mut executor = Executor::new(self, Some((new, stamp)));
        let outcome = match executor.run(goal).await {
            Ok(outcome) => outcome,
            Err(error) if error.may_have_put => return Err(SwapError::Unknown(error.cause)),
            Err(error) => return Err(SwapError::Refused(error.cause)),
        };
        match outcome {
            ProtocolOutcome::Written(version) => Ok(Version::new(&version)),
            ProtocolOutcome::Conflict | ProtocolOutcome::Read(_) => Err(SwapError::Conflict),
            ProtocolOutcome::Refused => Err(SwapError::Refused(
                executor.refused.unwrap_or(AzureError::Unintelligible),
            )),
            ProtocolOutcome::Unseen if executor.may_have_put => {
                Err(SwapError::Unknown(AzureError::StaleRead))
            }
            ProtocolOutcome::Unseen => Err(SwapError::Refused(AzureError::StaleRead)),
            ProtocolOutcome::Disabled => Err(SwapError::Refused(AzureError::Disabled)),
        }
    }

    async fn get(&self, version: &str) -> Result<Option<SecretVersion>, AzureError> {
        let found = self.vault.get(&self.name, Some(version)).await;
        found.map_err(|failure| classify::vault_error(failure, GET))
    }

    fn mark(&self, tags: &Tags) -> Option<WriteMark> {
        tags::mark(tags, &self.coordinator)
    }
}

/// The result of a swap that did not succeed.
pub(crate) enum SwapError {
    Conflict,
    Refused(AzureError),
    Unknown(AzureError),
}

impl SwapError {
    pub(crate) fn into_cas_error(
        self,
        error: impl FnOnce(AzureError) -> authferry_core::StoreError,
    ) -> CasError {
        match self {
            Self::Conflict => CasError::Conflict,
            Self::Refused(cause) => CasError::Refused(error(cause)),
            Self::Unknown(cause) => CasError::Ambiguous(error(cause)),
        }
    }
}

/// The right that a read needs.
const GET: &str = "get secrets from the vault";

/// The right that a list needs.
const LIST: &str = "list secrets in the vault";

/// Executes the actions of one operation and collects their results.
struct Executor<'a> {
    place: &'a Coordinated,
    new: Option<(&'a Secret, &'a Stamp)>,
    /// The values read so far, by version.
    seen: HashMap<String, SecretVersion>,
    newest: Option<String>,
    delays: u32,
    /// Whether a put was sent that may have created the value.
    may_have_put: bool,
    /// Why the vault refused the put.
    refused: Option<AzureError>,
}

impl<'a> Executor<'a> {
    fn new(place: &'a Coordinated, new: Option<(&'a Secret, &'a Stamp)>) -> Self {
        Self {
            place,
            new,
            seen: HashMap::new(),
            newest: None,
            delays: 0,
            may_have_put: false,
            refused: None,
        }
    }

    async fn run(&mut self, goal: ProtocolGoal) -> Result<ProtocolOutcome, OperationError> {
        let (mut operation, mut action) = Operation::new(goal, MAX_ATTEMPTS);
        loop {
            if let ProtocolAction::End(outcome) = action {
                return Ok(outcome);
            }
            let reply = self.execute(action).await.map_err(|cause| OperationError {
                cause,
                may_have_put: self.may_have_put,
            })?;
            action = operation.step(reply);
        }
    }

    async fn execute(&mut self, action: ProtocolAction) -> Result<ProtocolReply, AzureError> {
        let place = self.place;
        Ok(match action {
            ProtocolAction::Pointer => {
                let found = place.pointer.get().await;
                let found = found.map_err(|failure| classify::blob_error(failure, READ))?;
                let read = |(etag, bytes): (String, Vec<u8>)| {
                    let pointer = serde_json::from_slice(&bytes);
                    Ok((etag, pointer.map_err(|_| AzureError::BadBlob)?))
                };
                ProtocolReply::Pointer(found.map(read).transpose()?)
            }
            ProtocolAction::Newest => ProtocolReply::Newest(self.read().await?),
            ProtocolAction::List => {
                let list = place.vault.list(&place.name).await;
                let (list, is_snapshot) =
                    list.map_err(|failure| classify::vault_error(failure, LIST))?;
                ProtocolReply::List(self.items(list).await?, is_snapshot)
            }
            ProtocolAction::Find(version) => {
                let found = place.get(&version).await?;
                ProtocolReply::Found(found.map(|it| self.seen.insert(version, it)).is_some())
            }
            ProtocolAction::Replace(etag, pointer) => {
                self.replace(etag.as_deref(), &pointer).await?
            }
            ProtocolAction::Put => self.put().await?,
            ProtocolAction::Pause => {
                let delay = Duration::from_millis(50) * 2_u32.pow(self.delays.min(4));
                self.delays += 1;
                sleep(delay.min(MAX_DELAY)).await;
                ProtocolReply::Paused
            }
            ProtocolAction::End(_) => unreachable!("the operation has ended"),
        })
    }

    async fn read(&mut self) -> Result<Newest, AzureError> {
        let found = self.place.vault.get(&self.place.name, None).await;
        let found = match found.map_err(|failure| classify::vault_error(failure, GET)) {
            Ok(found) => found,
            Err(AzureError::Disabled) => return Ok(Newest::Disabled),
            Err(error) => return Err(error),
        };
        let Some(found) = found else {
            return Ok(Newest::Nothing);
        };
        let matches = tags::match_value(&found.value, &found.tags);
        let item = VersionItem {
            version: found.version.clone(),
            created: found.created,
            enabled: true,
            mark: self.place.mark(&found.tags).filter(|_| matches),
        };
        self.newest = Some(found.version.clone());
        self.seen.insert(found.version.clone(), found);
        Ok(Newest::This(item))
    }

    /// Converts a list for the state machine. A person may have copied the tags of a version to
    /// another value. So for a write mark that occurs twice, this reads the values.
    async fn items(&mut self, list: Vec<ListedVersion>) -> Result<Vec<VersionItem>, AzureError> {
        let mut counts: HashMap<WriteMark, usize> = HashMap::new();
        for mark in list.iter().filter_map(|it| self.place.mark(&it.tags)) {
            *counts.entry(mark).or_default() += 1;
        }
        let mut items = Vec::new();
        for listed in list {
            let mut mark = self.place.mark(&listed.tags);
            let is_unique = mark.as_ref().is_none_or(|mark| counts[mark] == 1);
            let is_seen = self.seen.contains_key(&listed.version);
            if listed.enabled
                && !is_unique
                && !is_seen
                && let Some(found) = self.place.get(&listed.version).await?
            {
                self.seen.insert(listed.version.clone(), found);
            }
            if let Some(found) = self.seen.get(&listed.version) {
                mark = mark.filter(|_| tags::match_value(&found.value, &found.tags));
            }
            items.push(VersionItem {
                version: listed.version,
                created: listed.created,
                enabled: listed.enabled,
                mark,
            });
        }
        Ok(items)
    }

    async fn replace(
        &self,
        etag: Option<&str>,
        pointer: &Pointer,
    ) -> Result<ProtocolReply, AzureError> {
        let bytes = serde_json::to_vec(pointer).expect("only strings and numbers");
        match self.place.pointer.replace(etag, bytes).await {
            Ok(BlobSwap::Replaced(etag)) => Ok(ProtocolReply::Replaced(etag)),
            Ok(BlobSwap::Changed) => Ok(ProtocolReply::Changed),
            Err(failure) => match classify::blob_error(failure, WRITE) {
                error if self.new.is_none() && classify::is_denied(&error) => {
                    Ok(ProtocolReply::Denied)
                }
                error => Err(error),
            },
        }
    }

    async fn put(&mut self) -> Result<ProtocolReply, AzureError> {
        let (new, stamp) = self.new.expect("only a swap puts a value");
        let value = str::from_utf8(new.expose()).map_err(|_| AzureError::NotUtf8)?;
        let before = self
            .newest
            .as_ref()
            .and_then(|newest| self.seen.get(newest));
        let none = Tags::new();
        let tags = tags::for_write(
            new,
            stamp,
            &self.place.coordinator,
            before.map_or(&none, |found| &found.tags),
        );
        let content_type = before.and_then(|found| found.content_type.clone());
        let put = self
            .place
            .vault
            .put(&self.place.name, value, tags, content_type);
        // Set before the await: a caller may drop this future midway.
        self.may_have_put = true;
        match put.await.map_err(classify::put_error) {
            Ok(version) => Ok(ProtocolReply::Put(version)),
            Err(PutFailure::Refused(cause)) => {
                self.may_have_put = false;
                self.refused = Some(cause);
                Ok(ProtocolReply::Refused)
            }
            Err(PutFailure::Unknown(cause)) => Err(cause),
        }
    }
}
