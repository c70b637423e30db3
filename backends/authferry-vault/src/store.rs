//! Implements the store contract on top of the requests.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use authferry_core::{
    CasError, Guarantees, Leases, Reads, Secret, SecretStore, Stamp, StoreBackedLeases, StoreError,
    Stored, Swap, Version,
};
use secrecy::SecretString;
use tokio::time::sleep;

use crate::{
    address::Address,
    classify::{self, PathPart, TokenState, Unwritten},
    fields::{self, SecretFields},
    session::Session,
    settings::{ConfigError, Settings},
    vault_error::VaultError,
    wire::{Engine, RETRY_DELAYS, VaultFailure, VersionId, Wire},
};

/// A login in a secret of Vault or OpenBao. The [crate] documentation lists the guarantees.
pub struct VaultStore {
    place: VaultPlace,
    leases: StoreBackedLeases<VaultPlace>,
}

/// Opens the store at `address`. Makes no request: the first read or swap reports any error of
/// the server. Reads and swaps need a tokio runtime with time and I/O.
///
/// Returns [`ConfigError`] if the settings name no usable server.
///
/// # Examples
///
/// ```
/// use authferry_http::Net;
/// use authferry_vault::{ConfigError, Settings};
///
/// let settings = Settings {
///     servers: None,
///     namespace: None,
///     net: Net::default(),
///     token: None,
///     token_file: None,
///     role_id: None,
///     secret_id: None,
///     job_token: None,
/// };
/// let error = authferry_vault::open("vault://secret/ci/codex".parse()?, settings);
/// assert!(matches!(error, Err(ConfigError::NoServer)));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn open(address: Address, settings: Settings) -> Result<VaultStore, ConfigError> {
    let wire = Arc::new(Wire::new(&settings)?);
    let session = Arc::new(Session::new(Arc::clone(&wire), &address, settings));
    let place = |address| VaultPlace {
        address,
        wire: Arc::clone(&wire),
        session: Arc::clone(&session),
        is_kv2: AtomicBool::new(false),
        newest: Mutex::new(None),
    };
    Ok(VaultStore {
        leases: StoreBackedLeases(place(address.of_lease())),
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
            "a rotation creates two versions of the secret, and two or more of the lease's secret; \
             the server keeps the last `max_versions` (10 unless set)"
                .to_owned(),
            "authferry saves a login in the rescue folder before it overwrites it, unless it can \
             read `max_versions` and that is 2 or more"
                .to_owned(),
            "a standby server may return a stale read; a swap based on a stale read is a \
             conflict and overwrites nothing"
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

    fn leases(&self) -> Option<&dyn Leases> {
        Some(&self.leases)
    }

    async fn close(&self) {
        self.place.close().await;
    }
}

/// One secret. The login and its lease each have one.
struct VaultPlace {
    address: Address,
    wire: Arc<Wire>,
    session: Arc<Session>,
    /// Whether the mount is known to be a KV version 2 engine.
    is_kv2: AtomicBool,
    /// The newest version that this process has read or written. A read that returns an older
    /// one is stale: a lagging server answered it.
    newest: Mutex<Option<VersionId>>,
}

/// The longest value in bytes. Servers on Raft reject an entry of 1 MiB, and each quotation
/// mark of an auth file takes two bytes in an entry.
pub(crate) const MAX_LEN: usize = 512 * 1024;

/// How many versions of a secret a server keeps by default.
const DEFAULT_MAX_VERSIONS: u64 = 10;

impl VaultPlace {
    /// Reads the secret. Retries a stale read on another server.
    ///
    /// A missing secret may have been deleted with its metadata. After the last retry the
    /// method accepts that.
    async fn read_fresh(&self) -> Result<SecretFields, VaultError> {
        let mut delays = RETRY_DELAYS.iter();
        loop {
            let held = self.read_once().await?;
            let newest = self.newest();
            let is_stale = match (&held.id, &newest) {
                (Some(id), Some(newest)) => id.is_before(newest),
                (None, newest) => newest.is_some(),
                (Some(_), None) => false,
            };
            if !is_stale {
                if let Some(id) = &held.id {
                    self.remember(id.clone());
                }
                return Ok(held);
            }
            match delays.next() {
                Some(delay) => {
                    self.wire.use_next_server();
                    sleep(*delay).await;
                }
                None if held.id.is_none() => return Ok(held),
                None => return Err(VaultError::StaleRead),
            }
        }
    }

    async fn read_once(&self) -> Result<SecretFields, VaultError> {
        let (mount, path) = (&*self.address.mount, &*self.address.path);
        let mut again = true;
        loop {
            let token = self.session.token().await?;
            let failure = match self.wire.read(&token, mount, path).await {
                Ok(found) => {
                    if found.is_none() {
                        self.check_engine(&token).await?;
                    }
                    return SecretFields::new(found, &self.address.field);
                }
                Err(failure) => failure,
            };
            if let VaultFailure::Unintelligible = failure {
                self.check_engine(&token).await?;
            }
            if self.can_renew_token(&failure, &token).await? && again {
                again = false;
                continue;
            }
            return Err(classify::read_error(failure, &self.place()));
        }
    }

    /// Writes the next version of the secret. Sends the write a second time only if the server
    /// rejected the token itself.
    async fn write(
        &self,
        held: SecretFields,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, Unwritten> {
        let (mount, path) = (&*self.address.mount, &*self.address.path);
        let number = held.number();
        let data = held.next(&self.address.field, new, stamp);
        let data = data.map_err(Unwritten::Refused)?;
        let mut again = true;
        loop {
            let token = self.session.token().await.map_err(Unwritten::Refused)?;
            let reply = self.wire.write(&token, mount, path, data.clone(), number);
            let failure = match reply.await {
                Ok(id) => {
                    let version = fields::version(&id);
                    self.remember(id);
                    return Ok(version);
                }
                Err(failure) => failure,
            };
            let can_retry = self.can_renew_token(&failure, &token).await;
            if can_retry.map_err(Unwritten::Refused)? && again {
                again = false;
                continue;
            }
            return Err(classify::write_error(failure, &self.place()));
        }
    }

    /// Finds the cause of a 403. Returns whether the token was the cause and the session can get
    /// another one.
    async fn can_renew_token(
        &self,
        failure: &VaultFailure,
        token: &SecretString,
    ) -> Result<bool, VaultError> {
        let Some(answer) = classify::denial(failure) else {
            return Ok(false);
        };
        let state = if classify::is_bad_token(answer) {
            TokenState::Unknown
        } else {
            classify::token_state(&self.wire.look_up(token).await)
        };
        match state {
            TokenState::Known => Ok(false),
            TokenState::Unknown if self.session.forget(token).await => Ok(true),
            TokenState::Unknown => Err(VaultError::BadToken),
        }
    }

    /// Checks the engine at the mount. A KV version 1 engine answers a missing secret as
    /// version 2 does, and would accept a write without comparing anything.
    async fn check_engine(&self, token: &SecretString) -> Result<(), VaultError> {
        if self.is_kv2.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mount = || self.address.mount.clone();
        match self.wire.engine(token, &self.address.mount).await {
            Ok(Engine::KeyValue2) => {
                self.is_kv2.store(true, Ordering::Relaxed);
                Ok(())
            }
            Ok(Engine::KeyValue1) => Err(VaultError::OldMount(mount())),
            Ok(Engine::Another) => Err(VaultError::AnotherEngine(mount())),
            // The token may lack the right to read the mount's kind.
            Err(_) => Ok(()),
        }
    }

    /// Returns whether the server is known to keep more than one version of the secret. A token
    /// without the right to read the setting gets `false`.
    ///
    /// The secret's setting overrides that of its mount.
    async fn keeps_history(&self) -> bool {
        let (mount, path) = (&*self.address.mount, &*self.address.path);
        let Ok(token) = self.session.token().await else {
            return false;
        };
        let metadata = format!("{mount}/metadata/{path}");
        let versions = match self.wire.max_versions(&token, &metadata).await {
            Ok(0) => {
                let mount_config = format!("{mount}/config");
                match self.wire.max_versions(&token, &mount_config).await {
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

    fn newest(&self) -> Option<VersionId> {
        let newest = self.newest.lock();
        newest.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, id: VersionId) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if !newest.as_ref().is_some_and(|newest| id.is_before(newest)) {
            *newest = Some(id);
        }
    }

    fn place(&self) -> PathPart<'_> {
        PathPart {
            mount: &self.address.mount,
            path: &self.address.path,
        }
    }

    fn error(&self, operation: &'static str, cause: VaultError) -> StoreError {
        StoreError {
            kind: cause.kind(),
            operation,
            store: self.to_string(),
            source: Some(Box::new(cause)),
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
            // A standby answers reads itself and may lag behind the leader.
            reads: Reads::Eventual,
            // `max_versions` may be 1.
            history: false,
            max_len: MAX_LEN,
        }
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        let held = self.read_fresh().await;
        held.map(|held| held.stored)
            .map_err(|cause| self.error("read", cause))
    }

    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        let refused = |cause| CasError::Refused(self.error("write", cause));
        let len = new.expose().len();
        if len > MAX_LEN {
            return Err(refused(VaultError::TooLong { len, max: MAX_LEN }));
        }
        // Another process, such as `restore`, may have read this version: any older read is stale.
        if let Some(id) = expected.and_then(fields::parse_version) {
            self.remember(id);
        }
        // The server compares only the number. This read checks that the number still stands for
        // the expected version, and fetches the secret's other fields.
        let held = self.read_fresh().await.map_err(refused)?;
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
                Unwritten::Refused(cause) => refused(cause),
                Unwritten::Unknown(cause) => CasError::Ambiguous(self.error("write", cause)),
            })
    }

    async fn close(&self) {
        self.session.close().await;
    }
}

#[cfg(test)]
mod tests;
