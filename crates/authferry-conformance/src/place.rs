//! A new place, as a case uses it.

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

/// How long a store with [`Reads::Eventual`] may return stale reads.
pub(crate) const STALE_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The delay between two reads of such a store.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A place that no other case uses.
pub(crate) struct Place {
    fixture: Arc<dyn Fixture>,
    name: String,
    writes: AtomicU64,
}

impl Place {
    pub(crate) fn new(fixture: Arc<dyn Fixture>, case: &str) -> Self {
        // Another process may run cases on the same server.
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

    pub(crate) fn leases(&self) -> bool {
        self.fixture.leases()
    }

    pub(crate) async fn open(&self) -> Box<dyn SecretStore> {
        self.fixture.open(&self.name).await
    }

    pub(crate) async fn put_by_hand(&self, login: &[u8]) {
        self.fixture.put_by_hand(&self.name, login).await;
    }

    pub(crate) async fn put_lease_by_hand(&self, text: &str) {
        self.fixture
            .put_lease_by_hand(&self.name, text.as_bytes())
            .await;
    }

    pub(crate) async fn look_by_hand(&self) -> Option<Vec<u8>> {
        self.fixture.look_by_hand(&self.name).await
    }

    pub(crate) async fn empty(&self) {
        self.fixture.empty(&self.name).await;
    }

    /// Returns the stamp of the next write.
    pub(crate) fn stamp(&self) -> Stamp {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        Stamp {
            // The leading zero must be preserved too.
            id: WriteId {
                nonce: 0x0123_4567_89ab_cdef,
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

    /// Reads through a new handle, expects `login` with `stamp`, and returns the version.
    pub(crate) async fn expect_value(
        &self,
        login: &[u8],
        stamp: Option<&Stamp>,
    ) -> Result<Version, Failure> {
        self.expect_one_of(&[(login, stamp)]).await
    }

    /// Like [`expect_value`](Self::expect_value), if any of several writes may be the last one.
    pub(crate) async fn expect_one_of(
        &self,
        writes: &[(&[u8], Option<&Stamp>)],
    ) -> Result<Version, Failure> {
        let stamps = self.guarantees().stamps;
        let same_bytes = |stored: &Stored, login: &[u8]| stored.secret.expose() == login;
        let same_stamp = |stored: &Stored, stamp: Option<&Stamp>| {
            stored.stamp == stamp.filter(|_| stamps).map(|stamp| self.as_stored(stamp))
        };
        let stored = self
            .read_until(|stored| {
                stored.as_ref().is_some_and(|stored| {
                    writes.iter().any(|(login, stamp)| {
                        same_bytes(stored, login) && same_stamp(stored, *stamp)
                    })
                })
            })
            .await?;
        let Some(stored) = stored else {
            return Err(Failure::new("a read found no value"));
        };
        let Some((_, stamp)) = writes.iter().find(|(login, _)| same_bytes(&stored, login)) else {
            return Err(Failure::new(format!(
                "a read returned other bytes than were written: {:?}",
                stored.secret
            )));
        };
        ensure!(
            same_stamp(&stored, *stamp),
            "a read returned another stamp: {:?} instead of {stamp:?}",
            stored.stamp
        );
        Ok(stored.version)
    }

    /// Returns the stamp that a read should return.
    fn as_stored(&self, stamp: &Stamp) -> Stamp {
        let mut stamp = stamp.clone();
        if !self.fixture.writers() {
            stamp.writer.clear();
        }
        stamp
    }

    /// Reads through a new handle, and expects no value.
    pub(crate) async fn expect_empty(&self) -> Result<(), Failure> {
        let stored = self.read_until(Option::is_none).await?;
        ensure!(
            stored.is_none(),
            "a read returned {stored:?} from an empty place"
        );
        Ok(())
    }

    /// Reads once. If reads may be stale, retries until the result is expected or the timeout ends.
    async fn read_until(
        &self,
        is_expected: impl Fn(&Option<Stored>) -> bool,
    ) -> Result<Option<Stored>, Failure> {
        let store = self.open().await;
        let deadline = Instant::now() + STALE_READ_TIMEOUT;
        loop {
            let stored = store.read().await?;
            match self.guarantees().reads {
                Reads::Eventual if !is_expected(&stored) && Instant::now() < deadline => {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                Reads::Eventual | Reads::Strong => return Ok(stored),
            }
        }
    }
}

/// Returns an auth file with fake tokens, different for each number.
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

/// Expects that a swap returned [`CasError::Conflict`].
pub(crate) fn expect_conflict(
    answer: &Result<Version, CasError>,
    what: &str,
) -> Result<(), Failure> {
    ensure!(
        matches!(answer, Err(CasError::Conflict)),
        "{what} must conflict, and returned {answer:?}"
    );
    Ok(())
}

/// Expects that a swap returned [`CasError::Refused`] with `kind`.
pub(crate) fn expect_refused(
    answer: &Result<Version, CasError>,
    kind: ErrorKind,
    what: &str,
) -> Result<(), Failure> {
    ensure!(
        matches!(answer, Err(CasError::Refused(error)) if error.kind == kind),
        "{what} must be refused ({kind:?}), and returned {answer:?}"
    );
    Ok(())
}
