//! A store whose claims have a bug of one's choice.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use authferry_conformance::MemoryStore;
use authferry_core::{
    Beside, Bid, CLOCK_SKEW, CasError, Claim, ClaimError, Claims, Guarantees, Origin, RecordState,
    Secret, SecretStore, Stamp, Standing, StoreError, Stored, Version, WriteId,
};

use crate::broken::{Broken, Bug, Notes};

/// What is wrong with the claims of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimBug {
    None,
    AreMissing,
    GrantWhatIsHeld,
    TakeOverAtTheEnd,
    NeverTakeOver,
    KeepWhatIsReleased,
    LetLosersRenew,
    LetLosersRelease,
    ForgetRenewals,
    ForgetNotes,
    ShowReleasedAsHeld,
    RefuseABidAskedAgain,
    GrantABidAskedAgain,
    RefuseARenewalAskedAgain,
    RefuseAReleaseAskedAgain,
    NeverExpire,
    ExpireWhatIsRenewed,
    RefuseForeignRecords,
    TakeOverForeignRecords,
    CheckThenWrite,
    ReadLate,
    WriteOverTheLogin,
    GoWithTheLogin,
    PrintLogins,
}

/// A store whose claims have a bug, around one without any.
pub(crate) struct BrokenClaims {
    pub(crate) bug: ClaimBug,
    pub(crate) declared: Guarantees,
    pub(crate) inner: Box<dyn SecretStore>,
    pub(crate) notes: ClaimNotes,
    pub(crate) store_notes: Notes,
}

/// What the handles have in common.
pub(crate) type ClaimNotes = Arc<Mutex<HashMap<String, ClaimNote>>>;

/// What was noted about the claims of one place.
#[derive(Default)]
pub(crate) struct ClaimNote {
    /// The state of the claim that was answered last.
    granted: Option<Claim>,
    released: bool,
    login: String,
    /// Where some bugs keep the claims instead.
    own: Option<MemoryStore>,
}

impl ClaimNote {
    /// Where some bugs keep the claims instead.
    fn own(&mut self, place: &str) -> MemoryStore {
        let name = format!("{place}, claims");
        let own = self.own.get_or_insert_with(|| MemoryStore::new(&name));
        own.clone()
    }

    /// Puts a record there by hand.
    pub(crate) fn put_by_hand(&mut self, place: &str, text: &[u8]) {
        self.own(place).put_by_hand(text);
    }
}

impl BrokenClaims {
    fn with_note<T>(&self, act: impl FnOnce(&mut ClaimNote) -> T) -> T {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        act(notes.entry(self.to_string()).or_default())
    }

    fn behind(&self) -> &dyn Claims {
        self.inner.claims().expect("the claims of the reference")
    }

    /// Returns claims beside a store that is broken itself, for the bugs that come of that.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a bug shows in few places")]
    fn own(&self) -> Option<Beside<Broken>> {
        let bug = match self.bug {
            ClaimBug::CheckThenWrite => Bug::ChecksThenWrites,
            ClaimBug::ReadLate => Bug::ReadsLate,
            _ => return None,
        };
        let store = self.with_note(|note| note.own(&self.to_string()));
        Some(Beside(Broken {
            bug,
            declared: self.declared,
            inner: Box::new(store),
            notes: Arc::clone(&self.store_notes),
        }))
    }

    fn granted(&self) -> Option<Claim> {
        self.with_note(|note| note.granted.clone())
    }

    async fn is_foreign(&self) -> bool {
        let standing = self.behind().look().await;
        standing
            .ok()
            .flatten()
            .is_some_and(|standing| standing.is_foreign)
    }

    /// Returns the state of the record of another holder.
    async fn state(&self, bid: &Bid) -> Option<RecordState> {
        let bid = Bid {
            expired: None,
            ..bid.clone()
        };
        match self.behind().acquire(&bid).await {
            Err(ClaimError::Held { state, .. }) => Some(state),
            Ok(_) | Err(ClaimError::Lost | ClaimError::Store(_)) => None,
        }
    }

    async fn write_over_the_login(&self) {
        let there = self.inner.read().await.expect("it can be read");
        let base = there.as_ref().map(|stored| &stored.version);
        let text = Secret::new(b"held".to_vec());
        let stamp = Stamp {
            id: WriteId { trip: 7, number: 7 },
            count: 7,
            origin: Origin::Rotation,
            family: authferry_core::Family(authferry_core::Fingerprint::new([5; 8])),
            volatile_hints: false,
            writer: "a claim".into(),
        };
        // Where others do the same, or may not write, one scribble less is there.
        self.inner.compare_and_swap(base, &text, &stamp).await.ok();
    }
}

impl fmt::Display for BrokenClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Debug for BrokenClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokenClaims({:?})", self.inner)
    }
}

#[async_trait]
impl SecretStore for BrokenClaims {
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
        if let (ClaimBug::GoWithTheLogin, Some(claim)) = (self.bug, self.granted()) {
            self.behind().release(&claim).await.ok();
        }
        self.inner.compare_and_swap(expected, new, stamp).await
    }

    fn claims(&self) -> Option<&dyn Claims> {
        (self.bug != ClaimBug::AreMissing).then_some(self)
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a bug shows in few places")]
#[async_trait]
impl Claims for BrokenClaims {
    async fn acquire(&self, bid: &Bid) -> Result<Claim, ClaimError> {
        if let Some(own) = self.own() {
            return own.acquire(bid).await;
        }
        let mut bid = bid.clone();
        let again = self.granted().filter(|claim| claim.holder == bid.holder);
        match (self.bug, again) {
            (ClaimBug::TakeOverAtTheEnd, _) => bid.now += CLOCK_SKEW,
            (ClaimBug::NeverTakeOver, _) => bid.now = 0,
            (ClaimBug::WriteOverTheLogin, _) => self.write_over_the_login().await,
            (ClaimBug::GrantABidAskedAgain, Some(claim)) => {
                self.behind().release(&claim).await.ok();
            }
            (ClaimBug::RefuseABidAskedAgain, Some(Claim { owner, until, .. })) => {
                let state = RecordState::new(Version::new("0"), b"");
                return Err(ClaimError::Held {
                    owner,
                    until,
                    state,
                });
            }
            (ClaimBug::NeverExpire, _) => bid.expired = None,
            (ClaimBug::ExpireWhatIsRenewed, _) if bid.expired.is_some() => {
                bid.expired = self.state(&bid).await;
            }
            (ClaimBug::RefuseForeignRecords, _) if self.is_foreign().await => {
                return Err(ClaimError::Lost);
            }
            (ClaimBug::TakeOverForeignRecords, _) if self.is_foreign().await => {
                bid.expired = self.state(&bid).await;
            }
            _ => {}
        }
        let mut answer = self.behind().acquire(&bid).await;
        match (self.bug, &mut answer, self.granted()) {
            (ClaimBug::GrantWhatIsHeld, Err(_), Some(claim)) => {
                answer = Ok(Claim {
                    owner: bid.owner,
                    holder: bid.holder,
                    until: bid.until,
                    ..claim
                });
            }
            (ClaimBug::ForgetNotes, Ok(claim), _) => claim.note = None,
            (ClaimBug::PrintLogins, Err(ClaimError::Held { owner, .. }), _) => {
                *owner = self.with_note(|note| note.login.clone());
            }
            _ => {}
        }
        self.with_note(|note| note.granted = answer.as_ref().ok().cloned().or(note.granted.take()));
        answer
    }

    async fn renew(&self, claim: &Claim, until: u64) -> Result<Claim, ClaimError> {
        if let Some(own) = self.own() {
            return own.renew(claim, until).await;
        }
        let granted = self.granted();
        let stale = granted.is_some_and(|granted| granted.version != claim.version);
        let pretended = Claim {
            until,
            ..claim.clone()
        };
        let answer = match self.bug {
            ClaimBug::ForgetRenewals => Ok(pretended),
            ClaimBug::RefuseARenewalAskedAgain if stale => Err(ClaimError::Lost),
            _ => match (self.bug, self.behind().renew(claim, until).await) {
                (ClaimBug::LetLosersRenew, Err(ClaimError::Lost)) => Ok(pretended),
                (_, answer) => answer,
            },
        };
        self.with_note(|note| note.granted = answer.as_ref().ok().cloned().or(note.granted.take()));
        answer
    }

    async fn release(&self, claim: &Claim) -> Result<(), ClaimError> {
        if let Some(own) = self.own() {
            return own.release(claim).await;
        }
        let again = self.with_note(|note| std::mem::replace(&mut note.released, true));
        match self.bug {
            ClaimBug::KeepWhatIsReleased => return Ok(()),
            ClaimBug::RefuseAReleaseAskedAgain if again => return Err(ClaimError::Lost),
            _ => {}
        }
        let answer = self.behind().release(claim).await;
        if let (ClaimBug::LetLosersRelease, Err(_), Some(theirs)) =
            (self.bug, &answer, self.granted())
        {
            self.behind().release(&theirs).await.ok();
        }
        answer
    }

    async fn look(&self) -> Result<Option<Standing>, ClaimError> {
        if let Some(own) = self.own() {
            return own.look().await;
        }
        let standing = self.behind().look().await?;
        Ok(standing.map(|it| match self.bug {
            ClaimBug::ShowReleasedAsHeld => Standing {
                until: it.until.or(Some(0)),
                ..it
            },
            _ => it,
        }))
    }
}
