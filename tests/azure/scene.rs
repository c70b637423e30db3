//! A separate vault for each test, and the stores on it.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
    thread,
    time::Duration,
};

use authferry_azure::{Application, AzureStore, Credential, Settings};
use authferry_core::{CasError, Origin, Secret, SecretStore, Stamp, Version, WriteId};
use authferry_http::{Net, Roots};
use rig::{
    ADMIN, Account, Azurite, Call, KeyVault, KeyVaultFault, KeyVaultHold as Hold, Op, PythonClient,
    Right, TENANT,
};
use serde_json::json;
use tokio::task::spawn_blocking;

/// The one secret of each vault.
pub(crate) const NAME: &str = "codex";

/// Timeout for a request to be held.
pub(crate) const HOLD_TIMEOUT: Duration = Duration::from_mins(1);

pub(crate) struct Scene {
    pub(crate) vault: KeyVault,
    container: String,
}

/// The result of a swap.
pub(crate) type SwapResult = Result<Version, CasError>;

static AZURITE: LazyLock<Arc<Azurite>> = LazyLock::new(|| {
    // Azurite starts in its own runtime.
    let azurite = thread::spawn(|| Arc::new(Azurite::start()));
    azurite.join().expect("Azurite")
});

impl Scene {
    pub(crate) fn new() -> Self {
        let container = thread::spawn(|| AZURITE.container());
        Self {
            vault: KeyVault::with_blobs(&AZURITE),
            container: container.join().expect("a container"),
        }
    }

    pub(crate) fn store(&self) -> AzureStore {
        self.store_of(ADMIN.0)
    }

    /// Opens a store for an account, so that its requests can be distinguished.
    pub(crate) fn store_of(&self, client: &str) -> AzureStore {
        self.store_of_rights(client, &["Microsoft.KeyVault/*", "Microsoft.Storage/*"])
    }

    /// Opens a store for an account with these rights.
    pub(crate) fn store_of_rights(&self, client: &str, rights: &[&str]) -> AzureStore {
        self.add_account(client, rights);
        let host = self.vault.host();
        let blob = format!("blob://{host}/devstoreaccount1/{}/codex", self.container);
        let address = format!("azure-kv://{host}/{NAME}?coordinator={blob}");
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
                secret: Some(ADMIN.1.into()),
            },
        };
        authferry_azure::open(address.parse().expect("an address"), settings).expect("settings")
    }

    /// Returns the client of a person, with a separate account.
    pub(crate) fn person(&self) -> PythonClient {
        self.add_account("person", &["Microsoft.KeyVault/*"]);
        let who = json!({"client": "person", "secret": ADMIN.1});
        PythonClient::start(&self.vault, &who, 0)
    }

    fn add_account(&self, client: &str, rights: &[&str]) {
        let account = Account {
            secrets: vec![ADMIN.1.to_owned()],
            rights: rights.iter().copied().map(Right::to).collect(),
            ..Account::default()
        };
        self.vault.account(client, account);
    }

    /// Makes the next request of a kind fail.
    pub(crate) fn fail_next(&self, op: Op, fault: KeyVaultFault) {
        self.vault.fail(move |call| call.op == op, fault);
    }

    /// Returns the values in the vault, oldest first.
    pub(crate) fn values(&self) -> Vec<String> {
        let versions = self.vault.versions(NAME).into_iter();
        versions.map(|version| version.value).collect()
    }

    /// Returns the requests since, except for sign-ins.
    pub(crate) fn requests(&self) -> Vec<(Op, u16)> {
        let calls = self.vault.calls().into_iter();
        calls
            .map(|(call, status)| (call.op, status))
            .filter(|(op, _)| *op != Op::SignIn)
            .collect()
    }
}

/// The stamp of one write.
pub(crate) fn stamp(number: u64) -> Stamp {
    Stamp {
        id: WriteId { nonce: 7, number },
        count: number,
        origin: Origin::Rotation,
        family: authferry_core::Family(authferry_core::Fingerprint::new([5; 8])),
        volatile_hints: false,
        writer: format!("https://ci.example/{number}"),
    }
}

pub(crate) fn value(number: u64) -> String {
    format!("{{\"made-up\":{number}}}")
}

/// Overwrites a version with the value of a number.
pub(crate) async fn swap(
    store: &AzureStore,
    expected: Option<&Version>,
    number: u64,
) -> SwapResult {
    let new = Secret::new(value(number).into_bytes());
    store.compare_and_swap(expected, &new, &stamp(number)).await
}

/// Reads the text, its version, and the number of its write.
pub(crate) async fn read(store: &AzureStore) -> Option<(String, Version, Option<u64>)> {
    let stored = store.read().await.expect("a reachable store")?;
    let text = String::from_utf8(stored.secret.expose().to_vec()).expect("text");
    Some((text, stored.version, stored.stamp.map(|it| it.id.number)))
}

/// Asserts that the write of a number is current, and returns its version.
pub(crate) async fn assert_current(store: &AzureStore, number: u64) -> Version {
    let (text, version, by) = read(store).await.expect("a value");
    assert_eq!((text, by), (value(number), Some(number)));
    version
}

/// Asserts that the text of a person is current, and returns its version.
pub(crate) async fn assert_manual(store: &AzureStore, text: &str) -> Version {
    let (found, version, by) = read(store).await.expect("a value");
    assert_eq!((&*found, by), (text, None));
    version
}

#[track_caller]
pub(crate) fn assert_ambiguous(result: &SwapResult) {
    assert!(matches!(result, Err(CasError::Ambiguous(_))), "{result:?}");
}

#[track_caller]
pub(crate) fn assert_refused(result: &SwapResult) {
    assert!(matches!(result, Err(CasError::Refused(_))), "{result:?}");
}

#[track_caller]
pub(crate) fn assert_conflict(result: &SwapResult) {
    assert!(matches!(result, Err(CasError::Conflict)), "{result:?}");
}

/// Returns a predicate for the puts of an account.
pub(crate) fn put_of(client: &'static str) -> impl Fn(&Call) -> bool + Send + 'static {
    move |call| call.op == Op::SetSecret && call.caller.as_deref() == Some(client)
}

/// Waits until a request is held, without blocking the runtime.
pub(crate) async fn wait_until_held(hold: Hold) -> Hold {
    let waiting = spawn_blocking(move || {
        hold.wait_until_held(HOLD_TIMEOUT);
        hold
    });
    waiting.await.expect("a held request")
}
