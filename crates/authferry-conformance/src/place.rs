//! One fresh place, as the cases see it.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use authferry_core::{
    CasError, ErrorKind, Guarantees, Origin, Reads, Secret, SecretStore, Stamp, Stored, Version,
    WriteId,
};

use crate::{
    Fixture,
    cases::{Failure, ensure},
};

/// How long a store with [`Reads::Eventual`] may take to show a write.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often such a store is looked at meanwhile.
pub(crate) const PACE: Duration = Duration::from_millis(20);

/// A place that nobody used before.
pub(crate) struct Place {
    fixture: Arc<dyn Fixture>,
    name: String,
    writes: AtomicU64,
}

impl Place {
    pub(crate) fn new(fixture: Arc<dyn Fixture>, case: &str) -> Self {
        // Another process may run other cases on the same server.
        static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(()));
        static PLACES: AtomicU64 = AtomicU64::new(0);
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let subject = case.split("::").next().unwrap_or_default();
        Self {
            fixture,
            name: format!("{subject}-{:08x}-{number}", *PROCESS >> 32),
            writes: AtomicU64::new(0),
        }
    }

    pub(crate) fn fixture(&self) -> &dyn Fixture {
        &*self.fixture
    }

    pub(crate) fn guarantees(&self) -> Guarantees {
        self.fixture.guarantees()
    }

    pub(crate) fn claims(&self) -> bool {
        self.fixture.claims()
    }

    pub(crate) async fn open(&self) -> Box<dyn SecretStore> {
        self.fixture.open(&self.name).await
    }

    pub(crate) async fn put_by_hand(&self, login: &[u8]) {
        self.fixture.put_by_hand(&self.name, login).await;
    }

    pub(crate) async fn put_claim_by_hand(&self, text: &str) {
        self.fixture
            .put_claim_by_hand(&self.name, text.as_bytes())
            .await;
    }

    pub(crate) async fn look_by_hand(&self) -> Option<Vec<u8>> {
        self.fixture.look_by_hand(&self.name).await
    }

    pub(crate) async fn empty(&self) {
        self.fixture.empty(&self.name).await;
    }

    /// Returns the stamp of one more write that is intended here.
    pub(crate) fn stamp(&self) -> Stamp {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        Stamp {
            // The leading zero must come back too.
            id: WriteId {
                trip: 0x0123_4567_89ab_cdef,
                number,
            },
            count: number + 1,
            origin: if number == 0 {
                Origin::Seed
            } else {
                Origin::Rotation
            },
            family: authferry_core::Family(authferry_core::Fingerprint::new([5; 8])),
            volatile_hints: number % 2 == 1,
            writer: format!("https://ci.example/acme/app/runs/{number}?attempt=1"),
        }
    }

    /// Creates the first value, and returns its version.
    pub(crate) async fn seed(&self, login: &[u8]) -> Result<Version, Failure> {
        let store = self.open().await;
        Ok(store
            .compare_and_swap(None, &secret(login), &self.stamp())
            .await?)
    }

    /// Looks through a handle of its own and returns the version of what is there,
    /// which must be `login` with `stamp`.
    pub(crate) async fn shows(
        &self,
        login: &[u8],
        stamp: Option<&Stamp>,
    ) -> Result<Version, Failure> {
        self.shows_one_of(&[(login, stamp)]).await
    }

    /// As [`shows`](Self::shows), where several writes may have come last.
    pub(crate) async fn shows_one_of(
        &self,
        writes: &[(&[u8], Option<&Stamp>)],
    ) -> Result<Version, Failure> {
        let stamps = self.guarantees().stamps;
        let same_bytes = |stored: &Stored, login: &[u8]| stored.secret.expose() == login;
        let same_stamp = |stored: &Stored, stamp: Option<&Stamp>| {
            stored.stamp == stamp.filter(|_| stamps).map(|stamp| self.as_kept(stamp))
        };
        let stored = self
            .look(|stored| {
                stored.as_ref().is_some_and(|stored| {
                    writes.iter().any(|(login, stamp)| {
                        same_bytes(stored, login) && same_stamp(stored, *stamp)
                    })
                })
            })
            .await?;
        let Some(stored) = stored else {
            return Err(Failure::new("there is nothing where a value was to be"));
        };
        let Some((_, stamp)) = writes.iter().find(|(login, _)| same_bytes(&stored, login)) else {
            return Err(Failure::new(format!(
                "other bytes came back than were written: {:?}",
                stored.secret
            )));
        };
        ensure!(
            same_stamp(&stored, *stamp),
            "another stamp came back: {:?} instead of {stamp:?}",
            stored.stamp
        );
        Ok(stored.version)
    }

    /// Returns what a stamp comes back as.
    fn as_kept(&self, stamp: &Stamp) -> Stamp {
        let mut stamp = stamp.clone();
        if !self.fixture.writers() {
            stamp.writer.clear();
        }
        stamp
    }

    /// Looks through a handle of its own: there must be nothing.
    pub(crate) async fn shows_nothing(&self) -> Result<(), Failure> {
        let stored = self.look(Option::is_none).await?;
        ensure!(
            stored.is_none(),
            "there is {stored:?} where nothing was to be"
        );
        Ok(())
    }

    /// Reads once, or, where a read may lag, until it is as wanted or patience ends.
    async fn look(
        &self,
        as_wanted: impl Fn(&Option<Stored>) -> bool,
    ) -> Result<Option<Stored>, Failure> {
        let store = self.open().await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stored = store.read().await?;
            match self.guarantees().reads {
                Reads::Eventual if !as_wanted(&stored) && Instant::now() < deadline => {
                    tokio::time::sleep(PACE).await;
                }
                Reads::Eventual | Reads::Strong => return Ok(stored),
            }
        }
    }
}

/// Returns an auth file with made-up tokens, another one for each number.
pub(crate) fn login(number: u64) -> Vec<u8> {
    format!(
        "{{\n  \"auth_mode\": \"chatgpt\",\n  \"tokens\": {{\n    \
         \"access_token\": \"made-up-access-{number}\",\n    \
         \"refresh_token\": \"made-up-refresh-{number}\"\n  }}\n}}\n"
    )
    .into_bytes()
}

pub(crate) fn secret(login: &[u8]) -> Secret {
    Secret::new(login.to_vec())
}

/// Requires that a swap was told [`CasError::Conflict`].
pub(crate) fn conflicts(answer: &Result<Version, CasError>, what: &str) -> Result<(), Failure> {
    ensure!(
        matches!(answer, Err(CasError::Conflict)),
        "{what} must conflict, and was answered {answer:?}"
    );
    Ok(())
}

/// Requires that a swap was told [`CasError::Refused`] with `kind`.
pub(crate) fn refused(
    answer: &Result<Version, CasError>,
    kind: ErrorKind,
    what: &str,
) -> Result<(), Failure> {
    ensure!(
        matches!(answer, Err(CasError::Refused(error)) if error.kind == kind),
        "{what} must be refused ({kind:?}), and was answered {answer:?}"
    );
    Ok(())
}
