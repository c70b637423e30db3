//! The store: the secret and its lease.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use authferry_core::{
    CasError, Guarantees, Leases, Reads, Secret, SecretStore, Stamp, StoreBackedLeases, StoreError,
    Stored, Swap, Version,
};

use crate::{
    address::Address,
    azure_error::AzureError,
    coordinated::Coordinated,
    credential,
    record::LeaseBlob,
    settings::{ConfigError, Settings},
    wire::{Blob, KeyVault, transport},
};

/// A login in Azure Key Vault. The [crate] documentation lists the guarantees.
pub struct AzureStore {
    address: Address,
    secret: Coordinated,
    leases: StoreBackedLeases<LeaseBlob>,
}

/// The longest value of a secret in bytes.
const MAX_LEN: usize = 25 * 1024;

/// Opens the store at `address`. Makes no request. Needs a tokio runtime with time and I/O.
///
/// Returns [`ConfigError`] if the settings name no usable credential or no usable server.
///
/// # Examples
///
/// ```
/// use authferry_azure::{Credential, Settings};
/// use authferry_http::Net;
///
/// let settings = Settings {
///     net: Net::default(),
///     authority: None,
///     credential: Credential::Cli { tenant: None },
/// };
/// let address = "azure-kv://acme/codex?coordinator=blob://acmelocks/logins/codex";
/// let store = authferry_azure::open(address.parse()?, settings)?;
/// assert_eq!(store.to_string(), address);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn open(address: Address, settings: Settings) -> Result<AzureStore, ConfigError> {
    let authority = settings.authority()?;
    let blob = &address.coordinator;
    let servers = [address.vault(), authority.clone(), blob.url()];
    let client = settings.net.client(&servers)?;
    let shared = transport(client, &servers);
    let credential = credential::build(settings.credential, &authority, &shared, &settings.net)?;
    let invalid = |_| ConfigError::BadApplication;
    let open = |url| Blob::new(url, &shared, Arc::clone(&credential)).map_err(invalid);
    let lease = blob.lease();
    Ok(AzureStore {
        secret: Coordinated {
            vault: KeyVault::new(&address.vault(), &shared, Arc::clone(&credential))
                .map_err(invalid)?,
            name: address.name.clone(),
            pointer: open(blob.url())?,
            coordinator: blob.to_string(),
        },
        leases: StoreBackedLeases(LeaseBlob {
            blob: open(lease.url())?,
            address: lease,
        }),
        address,
    })
}

impl AzureStore {
    fn error(&self, operation: &'static str, cause: AzureError) -> StoreError {
        StoreError {
            kind: cause.kind(),
            operation,
            store: self.to_string(),
            source: Some(Box::new(cause)),
        }
    }
}

impl fmt::Display for AzureStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl fmt::Debug for AzureStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AzureStore({self})")
    }
}

#[async_trait]
impl SecretStore for AzureStore {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            swap: Swap::Atomic,
            stamps: true,
            // Microsoft documents no bound for when all reads show a value that a person put.
            reads: Reads::Eventual,
            history: true,
            max_len: MAX_LEN,
        }
    }

    fn notes(&self) -> Vec<String> {
        [
            "the coordinator's blob names the current version, not the vault: `az keyvault secret \
             show` shows another one during a write, and after a write that arrived too late",
            "a rotation creates two versions of the secret, because authferry first rewrites the \
             login to check write access; the lease is a second blob and creates none",
            "old versions stay until the secret is purged; above 500 versions the vault refuses to \
             back the secret up",
        ]
        .map(str::to_owned)
        .into()
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        let found = self.secret.read().await;
        found.map_err(|cause| self.error("read", cause))
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
            return Err(refused(AzureError::TooLong { len, max: MAX_LEN }));
        }
        if str::from_utf8(new.expose()).is_err() {
            return Err(refused(AzureError::NotUtf8));
        }
        let swapped = self.secret.swap(expected, new, stamp).await;
        swapped.map_err(|error| error.into_cas_error(|cause| self.error("write", cause)))
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(&self.leases)
    }
}
