//! Places in a vault: our stand-in for Key Vault, Microsoft's Azurite for the blobs, and Microsoft's
//! client for manual changes.

use std::{
    path::PathBuf,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;
use authferry_azure::{Application, Credential, Settings};
use authferry_conformance::{Fixture, Refusal};
use authferry_core::{ErrorKind, Guarantees, Reads, SecretStore, Swap};
use authferry_http::{Net, Roots};
use rig::{ADMIN, Account, Azurite, KeyVault, PythonClient, Right, TENANT};
use serde_json::json;

/// A vault with a secret for each place.
pub(crate) struct Secrets {
    scene: LazyLock<Scene, fn() -> Scene>,
}

/// The servers, and the client of a person.
struct Scene {
    vault: KeyVault,
    azurite: Arc<Azurite>,
    container: String,
    person: Mutex<PythonClient>,
}

/// The rights of an account that reads secrets and may write the pointer.
const READ_SECRETS: [&str; 3] = [
    "Microsoft.KeyVault/vaults/secrets/getSecret/action",
    "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
    "Microsoft.Storage/*",
];

/// The minimum time until a deleted name can be used again.
const DELETION_DELAY: Duration = Duration::from_millis(20);

impl Secrets {
    pub(crate) fn new() -> Self {
        Self {
            // The servers start in their own runtime.
            scene: LazyLock::new(|| thread::spawn(Scene::new).join().expect("a scene")),
        }
    }

    fn open(&self, place: &str) -> Box<dyn SecretStore> {
        let (client, secret) = ADMIN;
        self.scene.open(place, client, secret)
    }
}

impl Scene {
    fn new() -> Self {
        let azurite = Arc::new(Azurite::start());
        let vault = KeyVault::with_blobs(&azurite);
        vault.rules(|rules| rules.delete_delay = DELETION_DELAY);
        Self {
            person: Mutex::new(PythonClient::of(&vault)),
            container: azurite.container(),
            azurite,
            vault,
        }
    }

    fn person(&self) -> MutexGuard<'_, PythonClient> {
        self.person.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, place: &str, client: &str, secret: &str) -> Box<dyn SecretStore> {
        let host = self.vault.host();
        let blob = format!("blob://{host}/devstoreaccount1/{}/{place}", self.container);
        let address = format!("azure-kv://{host}/{place}?coordinator={blob}");
        self.open_at(&address, client, secret)
    }

    fn open_at(&self, address: &str, client: &str, secret: &str) -> Box<dyn SecretStore> {
        let settings = Settings {
            net: Net {
                roots: Roots {
                    file: Some(PathBuf::from(self.vault.authority())),
                    ..Roots::default()
                },
                ..Net::default()
            },
            authority: Some(self.vault.url()),
            credential: Credential::Secret {
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

impl Scene {
    /// Sets up each way in which a vault refuses access.
    fn refusals(&self, login: &[u8]) -> Vec<Refusal> {
        // More than one case calls this.
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let number = CALLS.fetch_add(1, Ordering::Relaxed);
        let text = str::from_utf8(login).expect("text");
        let place = format!("refusing-{number}");
        self.person().set(&place, text);
        let account_store = |name: &str, rights: &[&str]| {
            let id = format!("{name}-{number}");
            let account = Account {
                secrets: vec!["made-up-secret".to_owned()],
                rights: rights.iter().copied().map(Right::to).collect(),
                ..Account::default()
            };
            self.vault.account(&id, account);
            self.open(&place, &id, "made-up-secret")
        };
        let refusal = |name, store, on_read, on_swap| Refusal {
            name,
            place: place.clone(),
            store,
            on_read,
            on_swap,
        };
        let denied = ErrorKind::PermissionDenied;
        let unknown = ErrorKind::Unauthenticated;
        vec![
            refusal(
                "no right",
                account_store("no-rights", &[]),
                Some(denied),
                denied,
            ),
            refusal(
                "a right to read",
                account_store("reader", &READ_SECRETS),
                None,
                denied,
            ),
            refusal(
                "another secret of the application",
                self.open(&place, ADMIN.0, "made-up"),
                Some(unknown),
                unknown,
            ),
            refusal(
                "an unknown application",
                self.open(&place, "unknown", "made-up"),
                Some(unknown),
                unknown,
            ),
            self.disabled(number, text),
            self.deleted(number, text),
            self.without_a_container(number, text),
        ]
    }

    fn disabled(&self, number: u32, login: &str) -> Refusal {
        let place = format!("disabled-{number}");
        let mut person = self.person();
        person.set(&place, login);
        let off = json!({"op": "update", "name": place, "enabled": false});
        person.ask(&off).expect("a right to everything");
        drop(person);
        let (client, secret) = ADMIN;
        Refusal {
            name: "a disabled version",
            store: self.open(&place, client, secret),
            // A manual read would be refused as well.
            place: format!("no-read-{number}"),
            on_read: Some(ErrorKind::PermissionDenied),
            on_swap: ErrorKind::PermissionDenied,
        }
    }

    fn deleted(&self, number: u32, login: &str) -> Refusal {
        let place = format!("deleted-{number}");
        let mut person = self.person();
        person.set(&place, login);
        let delete = json!({"op": "delete", "name": place});
        person.ask(&delete).expect("a right to everything");
        drop(person);
        let (client, secret) = ADMIN;
        Refusal {
            name: "a deleted name that can be recovered",
            store: self.open(&place, client, secret),
            place,
            on_read: None,
            on_swap: ErrorKind::NotFound,
        }
    }

    fn without_a_container(&self, number: u32, login: &str) -> Refusal {
        let place = format!("uncontained-{number}");
        self.person().set(&place, login);
        let (client, secret) = ADMIN;
        let blob = format!("{}/devstoreaccount1/missing/{place}", self.vault.host());
        let address = format!(
            "azure-kv://{}/{place}?coordinator=blob://{blob}",
            self.vault.host()
        );
        Refusal {
            name: "a missing container",
            store: self.open_at(&address, client, secret),
            place,
            on_read: Some(ErrorKind::NotFound),
            on_swap: ErrorKind::NotFound,
        }
    }
}

#[async_trait]
impl Fixture for Secrets {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            swap: Swap::Atomic,
            stamps: true,
            reads: Reads::Eventual,
            history: true,
            max_len: 25 * 1024,
        }
    }

    fn leases(&self) -> bool {
        true
    }

    async fn open(&self, place: &str) -> Box<dyn SecretStore> {
        self.open(place)
    }

    async fn put_by_hand(&self, place: &str, login: &[u8]) {
        let text = str::from_utf8(login).expect("text");
        self.scene.person().set(place, text);
    }

    async fn put_lease_by_hand(&self, place: &str, text: &[u8]) {
        let azurite = Arc::clone(&self.scene.azurite);
        let blob = format!("{}/{place}-lease", self.scene.container);
        let text = text.to_vec();
        let put = thread::spawn(move || azurite.put_blob(&blob, text));
        put.join().expect("a blob");
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
        // The name is not free immediately.
        thread::sleep(2 * DELETION_DELAY);
    }

    async fn refusals(&self, login: &[u8]) -> Vec<Refusal> {
        self.scene.refusals(login)
    }
}
