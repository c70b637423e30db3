//! The store: the secret, and the claim beside it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use authferry_core::{
    Beside, CasError, Claims, Guarantees, Reads, Secret, SecretStore, Stamp, StoreError, Stored,
    Swap, Version,
};

use crate::{
    address::Address,
    coordinated::Coordinated,
    credential,
    record::Record,
    settings::{Misfit, Settings},
    trouble::Trouble,
    wire::{Blob, Vault, transport},
};

/// A login in Azure Key Vault.
pub struct AzureStore {
    address: Address,
    secret: Coordinated,
    claims: Beside<Record>,
}

/// The longest value that a secret has room for.
const MAX_LEN: usize = 25 * 1024;

/// Opens the store at an address. Nothing is asked of it yet. Needs a runtime with time and
/// I/O.
///
/// [`Misfit`] when the settings name nobody to log in as, or no server that can be spoken to.
pub fn open(address: Address, settings: Settings) -> Result<AzureStore, Misfit> {
    let authority = settings.authority()?;
    let blob = &address.coordinator;
    let servers = [address.vault(), authority.clone(), blob.url()];
    let client = settings.net.client(&servers)?;
    let shared = transport(client, &servers);
    let credential = credential::of(settings.login, &authority, &shared, &settings.net)?;
    let misfit = |_| Misfit::BadApplication;
    let open = |url| Blob::new(url, &shared, Arc::clone(&credential)).map_err(misfit);
    let claim = blob.claim();
    Ok(AzureStore {
        secret: Coordinated {
            vault: Vault::new(&address.vault(), &shared, Arc::clone(&credential))
                .map_err(misfit)?,
            name: address.name.clone(),
            pointer: open(blob.url())?,
            coordinator: blob.to_string(),
        },
        claims: Beside(Record {
            blob: open(claim.url())?,
            address: claim,
        }),
        address,
    })
}

impl AzureStore {
    fn error(&self, operation: &'static str, trouble: Trouble) -> StoreError {
        StoreError {
            kind: trouble.kind(),
            operation,
            store: self.to_string(),
            source: Some(Box::new(trouble)),
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
            // Nothing is promised of how soon a value put by hand is seen everywhere.
            reads: Reads::Eventual,
            history: true,
            max_len: MAX_LEN,
        }
    }

    fn notes(&self) -> Vec<String> {
        [
            "the blob says which version counts, and not the vault: what `az keyvault secret \
             show` gives is another one for as long as a write is under way, and after one that \
             came too late",
            "a rotation makes two versions of the secret, which is written over itself first to \
             see that it can be, and none for the claim, which is a blob beside the first one",
            "old versions stay until the secret is purged; above 500 of them the vault makes no \
             backup of it",
        ]
        .map(str::to_owned)
        .into()
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        let found = self.secret.read().await;
        found.map_err(|trouble| self.error("read", trouble))
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
        if str::from_utf8(new.expose()).is_err() {
            return Err(refused(Trouble::NotUtf8));
        }
        let swapped = self.secret.swap(expected, new, stamp).await;
        swapped.map_err(|unswapped| unswapped.told(|trouble| self.error("write", trouble)))
    }

    fn claims(&self) -> Option<&dyn Claims> {
        Some(&self.claims)
    }
}
