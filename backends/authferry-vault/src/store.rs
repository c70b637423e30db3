//! The store itself: the contract on one side, the servers on the other.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use authferry_core::{
    Beside, CasError, Claims, Guarantees, Reads, Secret, SecretStore, Stamp, StoreError, Stored,
    Swap, Version,
};
use secrecy::SecretString;
use tokio::time::sleep;

use crate::{
    address::Address,
    classify::{self, Place, Token, Unwritten},
    fields::{self, Held},
    session::Session,
    settings::{Misfit, Settings},
    trouble::Trouble,
    wire::{Engine, Failure, PAUSES, Point, Wire},
};

/// A login in a secret of Vault or OpenBao. See the [crate] for what it promises.
pub struct VaultStore {
    place: VaultPlace,
    claims: Beside<VaultPlace>,
}

/// Opens the store at `address`. Makes no request: whatever is wrong there is told by the
/// first read or swap. Those need a tokio runtime with time and I/O.
///
/// [`Misfit`] when the settings name no server that can be spoken to.
pub fn open(address: Address, settings: Settings) -> Result<VaultStore, Misfit> {
    let wire = Arc::new(Wire::new(&settings)?);
    let session = Arc::new(Session::new(Arc::clone(&wire), &address, settings));
    let place = |address| VaultPlace {
        address,
        wire: Arc::clone(&wire),
        session: Arc::clone(&session),
        known: AtomicBool::new(false),
        newest: Mutex::new(None),
    };
    Ok(VaultStore {
        claims: Beside(place(address.of_claim())),
        place: place(address),
    })
}

impl fmt::Display for VaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

impl fmt::Debug for VaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultStore({self})")
    }
}

#[async_trait]
impl SecretStore for VaultStore {
    fn guarantees(&self) -> Guarantees {
        self.place.guarantees()
    }

    fn notes(&self) -> Vec<String> {
        vec![
            "a rotation makes two versions of the secret, and two or more of the claim's secret \
             beside it: `max_versions` is how far back the server keeps them (10 unless set)"
                .to_owned(),
            "a login that another one replaces is kept in the rescue folder first, unless \
             `max_versions` can be read and is 2 or more"
                .to_owned(),
            "a standby server may answer a read late: a swap on what it showed is then a \
             conflict, and never overwrites"
                .to_owned(),
        ]
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        self.place.read().await
    }

    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        self.place.compare_and_swap(expected, new, stamp).await
    }

    async fn keeps_history(&self) -> bool {
        self.place.keeps_history().await
    }

    fn claims(&self) -> Option<&dyn Claims> {
        Some(&self.claims)
    }

    async fn close(&self) {
        self.place.close().await;
    }
}

/// One secret. The login is in one, and its claim in another.
struct VaultPlace {
    address: Address,
    wire: Arc<Wire>,
    session: Arc<Session>,
    /// Whether the mount is known to be what it must be.
    known: AtomicBool,
    /// The newest version that was seen or written here. A look that shows an older one was
    /// answered by a server that lags behind.
    newest: Mutex<Option<Point>>,
}

/// The longest value. Servers on raft take no entry of 1 MiB, and each quotation mark of an
/// auth file takes two bytes there.
pub(crate) const MAX_LEN: usize = 512 * 1024;

/// How many versions a server keeps of a secret unless it is configured.
const DEFAULT_MAX_VERSIONS: u64 = 10;

impl VaultPlace {
    /// Looks at what the secret holds, at another server and once more where the answer is
    /// older than what is known here.
    ///
    /// A secret that is gone may have been deleted, with all that was known of it: that is
    /// believed in the end.
    async fn look(&self) -> Result<Held, Trouble> {
        let mut pauses = PAUSES.iter();
        loop {
            let held = self.look_once().await?;
            let newest = self.newest();
            let behind = match (&held.at, &newest) {
                (Some(at), Some(newest)) => at.is_before(newest),
                (None, newest) => newest.is_some(),
                (Some(_), None) => false,
            };
            if !behind {
                if let Some(at) = &held.at {
                    self.remember(at.clone());
                }
                return Ok(held);
            }
            match pauses.next() {
                Some(pause) => {
                    self.wire.turn_to_another();
                    sleep(*pause).await;
                }
                None if held.at.is_none() => return Ok(held),
                None => return Err(Trouble::Behind),
            }
        }
    }

    async fn look_once(&self) -> Result<Held, Trouble> {
        let (mount, path) = (&*self.address.mount, &*self.address.path);
        let mut again = true;
        loop {
            let token = self.session.token().await?;
            let failure = match self.wire.read(&token, mount, path).await {
                Ok(found) => {
                    if found.is_none() {
                        self.know_engine(&token).await?;
                    }
                    return Held::new(found, &self.address.field);
                }
                Err(failure) => failure,
            };
            if let Failure::Unintelligible = failure {
                self.know_engine(&token).await?;
            }
            if self.is_forgotten(&failure, &token).await? && again {
                again = false;
                continue;
            }
            return Err(classify::of_read(failure, &self.place()));
        }
    }

    /// Writes the next state of what was looked at. Sent a second time only after a clear no
    /// to the token itself.
    async fn write(&self, held: Held, new: &Secret, stamp: &Stamp) -> Result<Version, Unwritten> {
        let (mount, path) = (&*self.address.mount, &*self.address.path);
        let number = held.number();
        let data = held.next(&self.address.field, new, stamp);
        let data = data.map_err(Unwritten::Refused)?;
        let mut again = true;
        loop {
            let token = self.session.token().await.map_err(Unwritten::Refused)?;
            let reply = self.wire.write(&token, mount, path, data.clone(), number);
            let failure = match reply.await {
                Ok(at) => {
                    let version = fields::version(&at);
                    self.remember(at);
                    return Ok(version);
                }
                Err(failure) => failure,
            };
            let forgotten = self.is_forgotten(&failure, &token).await;
            if forgotten.map_err(Unwritten::Refused)? && again {
                again = false;
                continue;
            }
            return Err(classify::of_write(failure, &self.place()));
        }
    }

    /// Finds out what a no is about. Returns whether the token was the matter, and another
    /// one can be had.
    async fn is_forgotten(&self, failure: &Failure, token: &SecretString) -> Result<bool, Trouble> {
        let Some(answer) = classify::is_denied(failure) else {
            return Ok(false);
        };
        let state = if classify::is_bad_token(answer) {
            Token::Bad
        } else {
            classify::of_look_up(&self.wire.look_up(token).await)
        };
        match state {
            Token::Good => Ok(false),
            Token::Bad if self.session.forget(token).await => Ok(true),
            Token::Bad => Err(Trouble::BadToken),
        }
    }

    /// Tells a mount that only looks empty: a store of version 1 would take a write, and
    /// compare nothing.
    async fn know_engine(&self, token: &SecretString) -> Result<(), Trouble> {
        if self.known.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mount = || self.address.mount.clone();
        match self.wire.engine(token, &self.address.mount).await {
            Ok(Engine::KeyValue2) => {
                self.known.store(true, Ordering::Relaxed);
                Ok(())
            }
            Ok(Engine::KeyValue1) => Err(Trouble::OldMount(mount())),
            Ok(Engine::Another) => Err(Trouble::AnotherEngine(mount())),
            // Not everybody may know.
            Err(_) => Ok(()),
        }
    }

    /// Returns whether the server was seen to keep more than one version of the secret. Not
    /// everybody may see that.
    ///
    /// The secret's own setting counts, else that of its mount.
    async fn keeps_history(&self) -> bool {
        let (mount, path) = (&*self.address.mount, &*self.address.path);
        let Ok(token) = self.session.token().await else {
            return false;
        };
        let own = format!("{mount}/metadata/{path}");
        let versions = match self.wire.max_versions(&token, &own).await {
            Ok(0) => {
                let of_the_mount = format!("{mount}/config");
                match self.wire.max_versions(&token, &of_the_mount).await {
                    Ok(0) => DEFAULT_MAX_VERSIONS,
                    Ok(versions) => versions,
                    Err(_) => return false,
                }
            }
            Ok(versions) => versions,
            Err(_) => return false,
        };
        versions > 1
    }

    fn newest(&self) -> Option<Point> {
        let newest = self.newest.lock();
        newest.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, at: Point) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if !newest.as_ref().is_some_and(|newest| at.is_before(newest)) {
            *newest = Some(at);
        }
    }

    fn place(&self) -> Place<'_> {
        Place {
            mount: &self.address.mount,
            path: &self.address.path,
        }
    }

    fn error(&self, operation: &'static str, trouble: Trouble) -> StoreError {
        StoreError {
            kind: trouble.kind(),
            operation,
            store: self.to_string(),
            source: Some(Box::new(trouble)),
        }
    }
}

impl fmt::Display for VaultPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for VaultPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultPlace({self})")
    }
}

#[async_trait]
impl SecretStore for VaultPlace {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            swap: Swap::Atomic,
            stamps: true,
            // A standby answers reads by itself, and may lag behind the leader.
            reads: Reads::Eventual,
            // `max_versions` may be 1.
            history: false,
            max_len: MAX_LEN,
        }
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        let held = self.look().await;
        held.map(|held| held.stored)
            .map_err(|trouble| self.error("read", trouble))
    }

    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        let refused = |trouble| CasError::Refused(self.error("write", trouble));
        let len = new.expose().len();
        if len > MAX_LEN {
            return Err(refused(Trouble::TooLong { len, max: MAX_LEN }));
        }
        // Another process may have seen it, and left word.
        if let Some(at) = expected.and_then(fields::point) {
            self.remember(at);
        }
        // The number is compared by the server; that it still stands for what was expected,
        // and what else is in the secret, has to be seen.
        let held = self.look().await.map_err(refused)?;
        if let Some(landed) = held.written_by(new, stamp) {
            return Ok(landed.clone());
        }
        if held.version() != expected {
            return Err(CasError::Conflict);
        }
        self.write(held, new, stamp)
            .await
            .map_err(|unwritten| match unwritten {
                Unwritten::Conflict => CasError::Conflict,
                Unwritten::Refused(trouble) => refused(trouble),
                Unwritten::Unknown(trouble) => CasError::Ambiguous(self.error("write", trouble)),
            })
    }

    async fn close(&self) {
        self.session.close().await;
    }
}

#[cfg(test)]
mod tests;
