//! Places in a vault: the stand-in for Key Vault, beside Microsoft's own Azurite for the blobs
//! and Microsoft's own client for what people do.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use authferry_azure::{Application, Login, Settings};
use authferry_conformance::{Fixture, Refusal};
use authferry_core::{ErrorKind, Guarantees, Reads, SecretStore, Swap};
use authferry_http::{Net, Roots};
use rig::{ADMIN, Azurite, KeyVault, PythonClient, TENANT};
use serde_json::json;

/// A vault with a secret for each place.
pub(crate) struct Secrets {
    scene: LazyLock<Scene, fn() -> Scene>,
    coordinated: bool,
}

/// The servers, and who plays a person.
struct Scene {
    vault: KeyVault,
    azurite: String,
    container: String,
    person: Mutex<PythonClient>,
}

/// How long it takes until a name can be used again, at the least.
const DELETION: Duration = Duration::from_millis(20);

/// How long it is waited for at the most.
const PATIENCE: Duration = Duration::from_secs(30);

impl Secrets {
    /// With a blob that says which version counts.
    pub(crate) fn coordinated() -> Self {
        Self {
            scene: LazyLock::new(Scene::new),
            coordinated: true,
        }
    }

    fn open(&self, place: &str) -> Box<dyn SecretStore> {
        let (client, secret) = ADMIN;
        self.scene.open(self.coordinated, place, client, secret)
    }
}

impl Scene {
    fn new() -> Self {
        let azurite = Arc::new(Azurite::start());
        let vault = KeyVault::beside(&azurite);
        vault.rules(|rules| rules.delete_delay = DELETION);
        Self {
            person: Mutex::new(PythonClient::of(&vault)),
            container: azurite.container(),
            azurite: azurite.url(),
            vault,
        }
    }

    fn person(&self) -> MutexGuard<'_, PythonClient> {
        self.person.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(
        &self,
        coordinated: bool,
        place: &str,
        client: &str,
        secret: &str,
    ) -> Box<dyn SecretStore> {
        let host = self.vault.host();
        let coordinator = if coordinated {
            format!("blob://{host}/devstoreaccount1/{}/{place}", self.container)
        } else {
            "none".to_owned()
        };
        let address = format!("azure-kv://{host}/{place}?coordinator={coordinator}");
        let settings = Settings {
            net: Net {
                roots: Roots {
                    file: Some(PathBuf::from(self.vault.authority())),
                    ..Roots::default()
                },
                ..Net::default()
            },
            authority: Some(self.vault.url()),
            login: Login::Secret {
                application: Application {
                    tenant: Some(TENANT.to_owned()),
                    client: Some(client.to_owned()),
                },
                secret: Some(secret.into()),
            },
        };
        let address = address.parse().expect("an address");
        Box::new(authferry_azure::open(address, settings).expect("settings"))
    }
}

#[async_trait]
impl Fixture for Secrets {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            swap: if self.coordinated {
                Swap::Atomic
            } else {
                Swap::CheckThenWrite
            },
            stamps: true,
            reads: Reads::Eventual,
            history: true,
            max_len: 25 * 1024,
        }
    }

    fn claims(&self) -> bool {
        true
    }

    async fn open(&self, place: &str) -> Box<dyn SecretStore> {
        self.open(place)
    }

    async fn put_by_hand(&self, place: &str, login: &[u8]) {
        let text = str::from_utf8(login).expect("text");
        self.scene.person().set(place, text);
    }

    async fn look_by_hand(&self, place: &str) -> Option<Vec<u8>> {
        self.scene.person().get(place).map(String::into_bytes)
    }

    async fn empty(&self, place: &str) {
        let mut person = self.scene.person();
        for op in ["delete", "purge"] {
            let done = person.ask(&json!({"op": op, "name": place}));
            done.unwrap_or_else(|no| panic!("{op}: {no:?}"));
        }
        // The name is not free at once.
        thread::sleep(2 * DELETION);
    }

    async fn refusals(&self, login: &[u8]) -> Vec<Refusal> {
        vec![]
    }
}
