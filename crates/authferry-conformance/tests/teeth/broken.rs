//! A store with a selected bug.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use authferry_core::{
    CasError, ErrorKind, Guarantees, Leases, Secret, SecretStore, Stamp, StoreError, Stored, Swap,
    Version, WriteId,
};

/// A bug in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    IgnoresExpectation,
    ChecksThenWrites,
    NamesVersionsByContent,
    RenamesVersionsOnRead,
    DropsStamps,
    KeepsStampsAfterWritesByHand,
    KeepsStampsOfTheSameBytes,
    ForgetsFamilies,
    ForgetsHints,
    TruncatesCounts,
    SkipsIdenticalBytes,
    WritesDuplicatesAgain,
    ComparesIdsOnly,
    WritesInTwoSteps,
    RestartsVersions,
    ReadsInTwoSteps,
    ReadsAreStale,
    ReadsEmptyPlaceAsValue,
    NormalizesNewlines,
    TruncatesTheLongest,
    TruncatesTheTooLong,
    DeclaresLess,
    ReportsConflictsAsAmbiguous,
    ReportsRefusalsAsAmbiguous,
    PrintsLogins,
    PrintsLoginsInErrors,
}

/// A wrapper with a bug around a correct store.
pub(crate) struct Broken {
    pub(crate) bug: Bug,
    pub(crate) declared: Guarantees,
    pub(crate) inner: Box<dyn SecretStore>,
    pub(crate) notes: Notes,
}

/// The shared state of a broken store's handles.
pub(crate) type Notes = Arc<Mutex<HashMap<String, Note>>>;

/// The state of one place.
#[derive(Default)]
pub(crate) struct Note {
    stamp: Option<Stamp>,
    sent: HashSet<WriteId>,
    shown: Option<Stored>,
    named: Vec<Version>,
    text: String,
    reads: u64,
}

impl Broken {
    fn with_note<T>(&self, act: impl FnOnce(&mut Note) -> T) -> T {
        let mut notes: MutexGuard<'_, _> =
            self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        act(notes.entry(self.inner.to_string()).or_default())
    }

    async fn current(&self) -> Result<Option<Stored>, CasError> {
        self.inner.read().await.map_err(CasError::Refused)
    }

    /// Overwrites the current value.
    async fn overwrite(&self, new: &Secret, stamp: &Stamp) -> Result<Version, CasError> {
        loop {
            let current = self.current().await?.map(|stored| stored.version);
            let swap = self.inner.compare_and_swap(current.as_ref(), new, stamp);
            match swap.await {
                Err(CasError::Conflict) => {}
                settled => return settled,
            }
        }
    }

    /// Returns the value before the latest write, on the first read.
    fn late(&self, now: Option<Stored>) -> Option<Stored> {
        let copy = now.as_ref().map(duplicate);
        let before = self.with_note(|note| std::mem::replace(&mut note.shown, copy));
        let same = before.as_ref().map(|s| &s.version) == now.as_ref().map(|s| &s.version);
        if same { now } else { before }
    }

    /// Restarts the version numbers after the place was emptied.
    fn restarted(&self, version: Version) -> Version {
        self.with_note(|note| {
            let known = note.named.iter().position(|named| *named == version);
            let number = known.unwrap_or_else(|| {
                note.named.push(version);
                note.named.len() - 1
            });
            Version::new(&number.to_string())
        })
    }

    /// Returns the real version of a restarted number.
    fn resolved(&self, name: &Version) -> Version {
        let number: Option<usize> = name.as_str().parse().ok();
        self.with_note(|note| {
            number
                .and_then(|number| note.named.get(number))
                .unwrap_or(name)
                .clone()
        })
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.with_note(|note| note.text.clone());
        let shown = (self.bug == Bug::PrintsLogins).then_some(text);
        write!(f, "Broken({}, {shown:?})", self.inner)
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a bug shows in few places")]
#[async_trait]
impl SecretStore for Broken {
    fn guarantees(&self) -> Guarantees {
        let mut declared = self.declared;
        if self.bug == Bug::DeclaresLess {
            declared.swap = Swap::CheckThenWrite;
        }
        declared
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        let mut stored = self.inner.read().await?;
        match (self.bug, &mut stored) {
            (Bug::NamesVersionsByContent, Some(stored)) => {
                stored.version = named_by_content(&stored.secret);
            }
            (Bug::RenamesVersionsOnRead, Some(stored)) => {
                let reads = self.with_note(|note| {
                    note.reads += 1;
                    note.reads
                });
                stored.version = Version::new(&format!("{}.{reads}", stored.version));
            }
            (Bug::RestartsVersions, Some(stored)) => {
                stored.version = self.restarted(stored.version.clone());
            }
            (Bug::RestartsVersions, None) => self.with_note(|note| note.named.clear()),
            (Bug::DropsStamps, Some(stored)) => stored.stamp = None,
            (Bug::KeepsStampsAfterWritesByHand, Some(stored)) => {
                let known = self.with_note(|note| note.stamp.clone());
                stored.stamp = stored.stamp.take().or(known);
            }
            (Bug::KeepsStampsOfTheSameBytes, Some(stored)) => {
                let text = String::from_utf8_lossy(stored.secret.expose()).into_owned();
                let known = self.with_note(|note| note.stamp.clone().filter(|_| note.text == text));
                stored.stamp = stored.stamp.take().or(known);
            }
            (Bug::ForgetsFamilies, Some(Stored { stamp: Some(s), .. })) => {
                s.family = authferry_core::Family(authferry_core::Fingerprint::new([5; 8]));
            }
            (Bug::ForgetsHints, Some(Stored { stamp: Some(s), .. })) => s.volatile_hints = false,
            (Bug::TruncatesCounts, Some(Stored { stamp: Some(s), .. })) => s.count %= 1_000_000_000,
            (Bug::WritesDuplicatesAgain, Some(Stored { stamp: Some(s), .. })) => {
                s.id.nonce &= !SECOND_ATTEMPT;
            }
            (Bug::ReadsInTwoSteps, Some(first)) => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if let Some(second) = self.inner.read().await? {
                    first.stamp = second.stamp;
                }
            }
            (Bug::ReadsAreStale, _) => stored = self.late(stored),
            (Bug::ReadsEmptyPlaceAsValue, None) => {
                stored = Some(Stored {
                    secret: Secret::new(Vec::new()),
                    version: Version::new("0"),
                    stamp: None,
                });
            }
            _ => {}
        }
        Ok(stored)
    }

    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        let bytes = new.expose();
        let text = String::from_utf8_lossy(bytes).into_owned();
        let max_len = self.inner.guarantees().max_len;
        self.with_note(|note| {
            note.text.clone_from(&text);
            note.stamp = Some(stamp.clone());
        });
        let repeated = self.with_note(|note| !note.sent.insert(stamp.id));
        let mut again = stamp.clone();
        again.id.nonce |= SECOND_ATTEMPT;

        let pass = |expected, new| self.inner.compare_and_swap(expected, new, stamp);
        let answer = match self.bug {
            Bug::IgnoresExpectation => self.overwrite(new, stamp).await,
            Bug::ChecksThenWrites => {
                let current = self.current().await?.map(|stored| stored.version);
                if current.as_ref() != expected {
                    return Err(CasError::Conflict);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
                self.overwrite(new, stamp).await
            }
            Bug::NamesVersionsByContent => {
                let current = self.current().await?;
                let name = current.as_ref().map(|s| named_by_content(&s.secret));
                if name.as_ref() != expected {
                    return Err(CasError::Conflict);
                }
                let current = current.map(|stored| stored.version);
                let answer = pass(current.as_ref(), new).await;
                answer.map(|_| named_by_content(new))
            }
            Bug::RenamesVersionsOnRead => {
                let name = expected.and_then(|version| version.as_str().split('.').next());
                pass(name.map(Version::new).as_ref(), new).await
            }
            Bug::RestartsVersions => {
                let expected = expected.map(|name| self.resolved(name));
                let answer = pass(expected.as_ref(), new).await;
                answer.map(|version| self.restarted(version))
            }
            Bug::SkipsIdenticalBytes => {
                let current = self.current().await?;
                let same = current.filter(|stored| stored.secret.expose() == bytes);
                match same.map(|stored| stored.version) {
                    Some(version) if Some(&version) == expected => Ok(version),
                    Some(_) | None => pass(expected, new).await,
                }
            }
            Bug::WritesDuplicatesAgain if repeated => self.overwrite(new, &again).await,
            Bug::ComparesIdsOnly if repeated => {
                let current = self.current().await?.map(|stored| stored.version);
                current.ok_or(CasError::Conflict)
            }
            Bug::WritesInTwoSteps => {
                let half = Secret::new(bytes[..bytes.len() / 2].to_vec());
                let half = self.inner.compare_and_swap(expected, &half, &again).await?;
                tokio::time::sleep(Duration::from_millis(1)).await;
                pass(Some(&half), new).await
            }
            Bug::NormalizesNewlines => {
                let mended = Secret::new(text.replace("\r\n", "\n").into_bytes());
                pass(expected, &mended).await
            }
            Bug::TruncatesTheLongest if bytes.len() == max_len => {
                pass(expected, &Secret::new(bytes[1..].to_vec())).await
            }
            Bug::TruncatesTheTooLong if bytes.len() > max_len => {
                pass(expected, &Secret::new(bytes[..max_len].to_vec())).await
            }
            _ => pass(expected, new).await,
        };
        match (self.bug, answer) {
            (Bug::ReportsConflictsAsAmbiguous, Err(CasError::Conflict)) => {
                Err(CasError::Ambiguous(StoreError {
                    kind: ErrorKind::Unexpected,
                    operation: "write",
                    store: self.to_string(),
                    source: None,
                }))
            }
            (Bug::ReportsRefusalsAsAmbiguous, Err(CasError::Refused(error))) => {
                Err(CasError::Ambiguous(error))
            }
            (Bug::PrintsLoginsInErrors, Err(CasError::Refused(mut error))) => {
                error.source = Some(text.into());
                Err(CasError::Refused(error))
            }
            (_, answer) => answer,
        }
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.inner.leases()
    }
}

/// A bit that marks the id of a second attempt.
const SECOND_ATTEMPT: u64 = 1 << 63;

fn named_by_content(secret: &Secret) -> Version {
    let mut hasher = DefaultHasher::new();
    secret.expose().hash(&mut hasher);
    Version::new(&hasher.finish().to_string())
}

fn duplicate(stored: &Stored) -> Stored {
    Stored {
        secret: stored.secret.duplicate(),
        version: stored.version.clone(),
        stamp: stored.stamp.clone(),
    }
}
