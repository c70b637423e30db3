//! Places in a vault: the stand-in for Key Vault, beside Microsoft's own Azurite for the blobs
//! and Microsoft's own client for what people do.

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
use authferry_azure::{Application, Login, Settings};
use authferry_conformance::{Fixture, Refusal};
use authferry_core::{ErrorKind, Guarantees, Reads, SecretStore, Swap};
use authferry_http::{Net, Roots};
use rig::{ADMIN, Account, Azurite, KeyVault, PythonClient, Right, TENANT};
use serde_json::json;

/// A vault with a secret for each place.
pub(crate) struct Secrets {
    scene: LazyLock<Scene, fn() -> Scene>,
}

/// The servers, and who plays a person.
struct Scene {
    vault: KeyVault,
    azurite: Arc<Azurite>,
    container: String,
    person: Mutex<PythonClient>,
}

/// What somebody may who only looks, and would let others agree with the coordinator.
const LOOK: [&str; 3] = [
    "Microsoft.KeyVault/vaults/secrets/getSecret/action",
    "Microsoft.KeyVault/vaults/secrets/readMetadata/action",
    "Microsoft.Storage/*",
];

/// How long it takes until a name can be used again, at the least.
const DELETION: Duration = Duration::from_millis(20);

impl Secrets {
    pub(crate) fn new() -> Self {
        Self {
            // The servers are set up by a runtime of their own.
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
        let vault = KeyVault::beside(&azurite);
        vault.rules(|rules| rules.delete_delay = DELETION);
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

impl Scene {
    /// Makes each way in which a vault turns somebody away.
    fn refusals(&self, login: &[u8]) -> Vec<Refusal> {
        // More than one case asks for them.
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let number = ASKED.fetch_add(1, Ordering::Relaxed);
        let text = str::from_utf8(login).expect("text");
        let place = format!("refusing-{number}");
        self.person().set(&place, text);
        let somebody = |name: &str, rights: &[&str]| {
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
            refusal("no right", somebody("nobody", &[]), Some(denied), denied),
            refusal("a right to look", somebody("reader", &LOOK), None, denied),
            refusal(
                "another secret of the application",
                self.open(&place, ADMIN.0, "made-up"),
                Some(unknown),
                unknown,
            ),
            refusal(
                "an unknown application",
                self.open(&place, "nobody-at-all", "made-up"),
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
            name: "a version that is disabled",
            store: self.open(&place, client, secret),
            // A look by hand would be told the same.
            place: format!("no-look-{number}"),
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
            name: "a name that is kept for its recovery",
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
            name: "a container that is missing",
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

    async fn put_claim_by_hand(&self, place: &str, text: &[u8]) {
        let azurite = Arc::clone(&self.scene.azurite);
        let blob = format!("{}/{place}-claim", self.scene.container);
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
        // The name is not free at once.
        thread::sleep(2 * DELETION);
    }

    async fn refusals(&self, login: &[u8]) -> Vec<Refusal> {
        self.scene.refusals(login)
    }
}
