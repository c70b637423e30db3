//! A store with a selected bug in its leases.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use authferry_conformance::MemoryStore;
use authferry_core::{
    CLOCK_SKEW, CasError, Guarantees, Lease, LeaseError, LeaseRequest, LeaseStatus, Leases, Origin,
    RecordState, Secret, SecretStore, Stamp, StoreBackedLeases, StoreError, Stored, Version,
    WriteId,
};

use crate::broken::{Broken, Bug, Notes};

/// A bug in the leases of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseBug {
    None,
    AreMissing,
    GrantWhatIsHeld,
    TakeOverAtExpiry,
    NeverTakeOver,
    KeepWhatIsReleased,
    RenewLostLeases,
    ReleaseOthersLeases,
    ForgetRenewals,
    ForgetNotes,
    ShowReleasedAsHeld,
    RefuseRepeatedAcquire,
    RegrantRepeatedAcquire,
    RefuseRepeatedRenewal,
    RefuseRepeatedRelease,
    NeverExpire,
    ExpireWhatIsRenewed,
    RefuseForeignRecords,
    TakeOverForeignRecords,
    CheckThenWrite,
    ReadsAreStale,
    WriteOverTheLogin,
    ReleaseOnLoginWrite,
    PrintLogins,
}

/// A wrapper with buggy leases around a correct store.
pub(crate) struct BrokenLeases {
    pub(crate) bug: LeaseBug,
    pub(crate) declared: Guarantees,
    pub(crate) inner: Box<dyn SecretStore>,
    pub(crate) notes: LeaseNotes,
    pub(crate) store_notes: Notes,
}

/// The shared state of the handles.
pub(crate) type LeaseNotes = Arc<Mutex<HashMap<String, LeaseNote>>>;

/// The state of the leases of one place.
#[derive(Default)]
pub(crate) struct LeaseNote {
    /// The last lease that was granted.
    granted: Option<Lease>,
    released: bool,
    login: String,
    /// The separate store in which some bugs keep the leases.
    own: Option<MemoryStore>,
}

impl LeaseNote {
    /// Returns the separate store in which some bugs keep the leases.
    fn own(&mut self, place: &str) -> MemoryStore {
        let name = format!("{place}, leases");
        let own = self.own.get_or_insert_with(|| MemoryStore::new(&name));
        own.clone()
    }

    /// Writes a record into the separate store by hand.
    pub(crate) fn put_by_hand(&mut self, place: &str, text: &[u8]) {
        self.own(place).put_by_hand(text);
    }
}

impl BrokenLeases {
    fn with_note<T>(&self, act: impl FnOnce(&mut LeaseNote) -> T) -> T {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        act(notes.entry(self.to_string()).or_default())
    }

    fn inner_leases(&self) -> &dyn Leases {
        self.inner.leases().expect("the leases of the reference")
    }

    /// Returns leases on a broken store, for the bugs that such a store causes.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a bug shows in few places")]
    fn own(&self) -> Option<StoreBackedLeases<Broken>> {
        let bug = match self.bug {
            LeaseBug::CheckThenWrite => Bug::ChecksThenWrites,
            LeaseBug::ReadsAreStale => Bug::ReadsAreStale,
            _ => return None,
        };
        let store = self.with_note(|note| note.own(&self.to_string()));
        Some(StoreBackedLeases(Broken {
            bug,
            declared: self.declared,
            inner: Box::new(store),
            notes: Arc::clone(&self.store_notes),
        }))
    }

    fn granted(&self) -> Option<Lease> {
        self.with_note(|note| note.granted.clone())
    }

    async fn is_foreign(&self) -> bool {
        let status = self.inner_leases().look().await;
        status
            .ok()
            .flatten()
            .is_some_and(|status| status.is_foreign)
    }

    /// Returns the state of the record of another holder.
    async fn state(&self, request: &LeaseRequest) -> Option<RecordState> {
        let request = LeaseRequest {
            expired: None,
            ..request.clone()
        };
        match self.inner_leases().acquire(&request).await {
            Err(LeaseError::Held { state, .. }) => Some(state),
            Ok(_) | Err(LeaseError::Lost | LeaseError::Store(_)) => None,
        }
    }

    async fn write_over_the_login(&self) {
        let current = self.inner.read().await.expect("a read");
        let base = current.as_ref().map(|stored| &stored.version);
        let text = Secret::new(b"held".to_vec());
        let stamp = Stamp {
            id: WriteId {
                nonce: 7,
                number: 7,
            },
            count: 7,
            origin: Origin::Rotation,
            family: authferry_core::Family(authferry_core::Fingerprint::new([5; 8])),
            volatile_hints: false,
            writer: "a lease".into(),
        };
        // Ignore a conflict with another client, and a store that refuses writes.
        self.inner.compare_and_swap(base, &text, &stamp).await.ok();
    }
}

impl fmt::Display for BrokenLeases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Debug for BrokenLeases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokenLeases({:?})", self.inner)
    }
}

#[async_trait]
impl SecretStore for BrokenLeases {
    fn guarantees(&self) -> Guarantees {
        self.declared
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        self.inner.read().await
    }

    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        let text = String::from_utf8_lossy(new.expose()).into_owned();
        self.with_note(|note| note.login = text);
        if let (LeaseBug::ReleaseOnLoginWrite, Some(lease)) = (self.bug, self.granted()) {
            self.inner_leases().release(&lease).await.ok();
        }
        self.inner.compare_and_swap(expected, new, stamp).await
    }

    fn leases(&self) -> Option<&dyn Leases> {
        (self.bug != LeaseBug::AreMissing).then_some(self)
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a bug shows in few places")]
#[async_trait]
impl Leases for BrokenLeases {
    async fn acquire(&self, request: &LeaseRequest) -> Result<Lease, LeaseError> {
        if let Some(own) = self.own() {
            return own.acquire(request).await;
        }
        let mut request = request.clone();
        let again = self
            .granted()
            .filter(|lease| lease.holder == request.holder);
        match (self.bug, again) {
            (LeaseBug::TakeOverAtExpiry, _) => request.now += CLOCK_SKEW,
            (LeaseBug::NeverTakeOver, _) => request.now = 0,
            (LeaseBug::WriteOverTheLogin, _) => self.write_over_the_login().await,
            (LeaseBug::RegrantRepeatedAcquire, Some(lease)) => {
                self.inner_leases().release(&lease).await.ok();
            }
            (LeaseBug::RefuseRepeatedAcquire, Some(Lease { owner, until, .. })) => {
                let state = RecordState::new(Version::new("0"), b"");
                return Err(LeaseError::Held {
                    owner,
                    until,
                    state,
                });
            }
            (LeaseBug::NeverExpire, _) => request.expired = None,
            (LeaseBug::ExpireWhatIsRenewed, _) if request.expired.is_some() => {
                request.expired = self.state(&request).await;
            }
            (LeaseBug::RefuseForeignRecords, _) if self.is_foreign().await => {
                return Err(LeaseError::Lost);
            }
            (LeaseBug::TakeOverForeignRecords, _) if self.is_foreign().await => {
                request.expired = self.state(&request).await;
            }
            _ => {}
        }
        let mut answer = self.inner_leases().acquire(&request).await;
        match (self.bug, &mut answer, self.granted()) {
            (LeaseBug::GrantWhatIsHeld, Err(_), Some(lease)) => {
                answer = Ok(Lease {
                    owner: request.owner,
                    holder: request.holder,
                    until: request.until,
                    ..lease
                });
            }
            (LeaseBug::ForgetNotes, Ok(lease), _) => lease.note = None,
            (LeaseBug::PrintLogins, Err(LeaseError::Held { owner, .. }), _) => {
                *owner = self.with_note(|note| note.login.clone());
            }
            _ => {}
        }
        self.with_note(|note| note.granted = answer.as_ref().ok().cloned().or(note.granted.take()));
        answer
    }

    async fn renew(&self, lease: &Lease, until: u64) -> Result<Lease, LeaseError> {
        if let Some(own) = self.own() {
            return own.renew(lease, until).await;
        }
        let granted = self.granted();
        let stale = granted.is_some_and(|granted| granted.version != lease.version);
        let unsaved = Lease {
            until,
            ..lease.clone()
        };
        let answer = match self.bug {
            LeaseBug::ForgetRenewals => Ok(unsaved),
            LeaseBug::RefuseRepeatedRenewal if stale => Err(LeaseError::Lost),
            _ => match (self.bug, self.inner_leases().renew(lease, until).await) {
                (LeaseBug::RenewLostLeases, Err(LeaseError::Lost)) => Ok(unsaved),
                (_, answer) => answer,
            },
        };
        self.with_note(|note| note.granted = answer.as_ref().ok().cloned().or(note.granted.take()));
        answer
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        if let Some(own) = self.own() {
            return own.release(lease).await;
        }
        let again = self.with_note(|note| std::mem::replace(&mut note.released, true));
        match self.bug {
            LeaseBug::KeepWhatIsReleased => return Ok(()),
            LeaseBug::RefuseRepeatedRelease if again => return Err(LeaseError::Lost),
            _ => {}
        }
        let answer = self.inner_leases().release(lease).await;
        if let (LeaseBug::ReleaseOthersLeases, Err(_), Some(theirs)) =
            (self.bug, &answer, self.granted())
        {
            self.inner_leases().release(&theirs).await.ok();
        }
        answer
    }

    async fn look(&self) -> Result<Option<LeaseStatus>, LeaseError> {
        if let Some(own) = self.own() {
            return own.look().await;
        }
        let status = self.inner_leases().look().await?;
        Ok(status.map(|it| match self.bug {
            LeaseBug::ShowReleasedAsHeld => LeaseStatus {
                until: it.until.or(Some(0)),
                ..it
            },
            _ => it,
        }))
    }
}
