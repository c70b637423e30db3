//! The store, and the choice between its two ways.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use authferry_core::{
    Beside, CasError, Claims, Guarantees, Reads, Secret, SecretStore, Stamp, StoreError, Stored,
    Swap, Version,
};

use crate::{
    address::{Address, Coordinator},
    alone::Alone,
    claim_log::ClaimLog,
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
    way: Way,
}

enum Way {
    /// A blob says which version counts.
    Coordinated {
        secret: Box<Coordinated>,
        claims: Box<Beside<Record>>,
    },
    /// The newest one does.
    Alone { secret: Alone, claims: ClaimLog },
}

/// The longest value that a secret has room for.
const MAX_LEN: usize = 25 * 1024;

/// Opens the store at an address. Nothing is asked of it yet. Needs a runtime with time and
/// I/O.
///
/// [`Misfit`] when the settings name nobody to log in as, or no server that can be spoken to.
pub fn open(address: Address, settings: Settings) -> Result<AzureStore, Misfit> {
    let authority = settings.authority()?;
    let mut servers = vec![address.vault(), authority.clone()];
    if let Coordinator::Blob(blob) = &address.coordinator {
        servers.push(blob.url());
    }
    let client = settings.net.client(&servers)?;
    let shared = transport(client, &servers);
    let credential = credential::of(settings.login, &authority, &shared, &settings.net)?;
    let misfit = |_| Misfit::BadApplication;
    let vault = Vault::new(&address.vault(), &shared, Arc::clone(&credential)).map_err(misfit)?;
    let way = match &address.coordinator {
        Coordinator::Blob(blob) => {
            let open = |url| Blob::new(url, &shared, Arc::clone(&credential)).map_err(misfit);
            let claim = blob.claim();
            Way::Coordinated {
                secret: Box::new(Coordinated {
                    vault,
                    name: address.name.clone(),
                    pointer: open(blob.url())?,
                    coordinator: blob.to_string(),
                }),
                claims: Box::new(Beside(Record {
                    blob: open(claim.url())?,
                    address: claim,
                })),
            }
        }
        Coordinator::None => {
            let vault = Arc::new(vault);
            let claims = ClaimLog {
                vault: Arc::clone(&vault),
                name: address.claim(),
                address: address.to_string(),
                wait: settings.commit_wait,
            };
            let name = address.name.clone();
            Way::Alone {
                secret: Alone { vault, name },
                claims,
            }
        }
    };
    Ok(AzureStore { address, way })
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
            swap: match &self.way {
                Way::Coordinated { .. } => Swap::Atomic,
                Way::Alone { .. } => Swap::CheckThenWrite,
            },
            stamps: true,
            // Nothing is promised of how soon a value put by hand is seen everywhere.
            reads: Reads::Eventual,
            history: true,
            max_len: MAX_LEN,
        }
    }

    fn notes(&self) -> Vec<String> {
        let (per_way, cost) = match &self.way {
            Way::Coordinated { .. } => (
                "the blob says which version counts, and not the vault: what `az keyvault secret \
                 show` gives is another one for as long as a write is under way, and after one \
                 that came too late",
                "a rotation makes two versions of the secret, which is written over itself first to \
                 see that it can be, and none for the claim, which is a blob beside the first one",
            ),
            Way::Alone { .. } => (
                "without a coordinator all is best effort: the claim keeps two jobs apart only as \
                 long as the vault lists a bid within the five seconds that each one waits, and \
                 two that write at once fork the login, of which nothing is lost",
                "a rotation makes two versions of the secret, which is written over itself first to \
                 see that it can be, and one of the claim's secret beside it",
            ),
        };
        vec![
            per_way.to_owned(),
            cost.to_owned(),
            "old versions stay until the secret is purged; above 500 of them the vault makes no \
             backup of it"
                .to_owned(),
        ]
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        let found = match &self.way {
            Way::Coordinated { secret, .. } => secret.read().await,
            Way::Alone { secret, .. } => secret.read().await,
        };
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
        let swapped = match &self.way {
            Way::Coordinated { secret, .. } => secret.swap(expected, new, stamp).await,
            Way::Alone { secret, .. } => secret.swap(expected, new, stamp).await,
        };
        swapped.map_err(|unswapped| unswapped.told(|trouble| self.error("write", trouble)))
    }

    fn claims(&self) -> Option<&dyn Claims> {
        match &self.way {
            Way::Coordinated { claims, .. } => Some(&**claims),
            Way::Alone { claims, .. } => Some(claims),
        }
    }
}
