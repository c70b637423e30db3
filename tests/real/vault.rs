//! Places on OpenBao.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use async_trait::async_trait;
use authferry_conformance::{Fixture, Refusal};
use authferry_core::{Guarantees, Reads, SecretStore, Swap};
use authferry_http::{Net, Roots};
use authferry_vault::Settings;
use rig::OpenBao;
use serde_json::json;

use crate::refusals;

/// The default field.
const FIELD: &str = "auth_json";

/// The rights of a store's token: only what the contract needs.
const RIGHTS: &str = r#"
path "+/data/*" { capabilities = ["create", "read", "update"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
"#;

/// A mount of a server, with one secret for each place.
pub(crate) struct Places {
    server: LazyLock<Server, fn() -> Server>,
    mount: &'static str,
    emptied_by: EmptiedBy,
}

/// A server, and a token with few rights.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) openbao: Arc<OpenBao>,
    token: String,
}

/// How a person empties a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EmptiedBy {
    /// With `kv delete`: the version can be recovered, and its number stays.
    Delete,
    /// With `kv destroy`: the version cannot be recovered, and its number stays.
    Destroy,
    /// With `kv metadata delete`: version numbers restart, so that numbers repeat.
    MetadataDelete,
}

impl Places {
    /// A development server.
    pub(crate) fn on_dev() -> Self {
        Self {
            server: LazyLock::new(|| Server::with_rights(OpenBao::dev())),
            mount: "secret",
            emptied_by: EmptiedBy::Delete,
        }
    }

    /// A server with TLS and Raft.
    pub(crate) fn on_raft() -> Self {
        Self {
            server: LazyLock::new(|| RAFT.clone()),
            mount: "secret",
            emptied_by: EmptiedBy::MetadataDelete,
        }
    }

    /// The same server, in a mount that requires compare-and-swap and keeps two versions.
    pub(crate) fn on_strict() -> Self {
        Self {
            server: LazyLock::new(|| {
                let admin = RAFT.openbao.admin();
                admin.mount_kv("strict", 2);
                let strict = json!({"cas_required": true, "max_versions": 2});
                admin.write("strict/config", &strict);
                RAFT.clone()
            }),
            mount: "strict",
            emptied_by: EmptiedBy::Destroy,
        }
    }

    fn current(&self, place: &str) -> Option<u64> {
        let path = format!("{}/metadata/{place}", self.mount);
        let metadata = self.server.openbao.admin().read(&path)?;
        metadata["data"]["current_version"].as_u64()
    }
}

static RAFT: LazyLock<Server> = LazyLock::new(|| Server::with_rights(OpenBao::raft()));

impl Server {
    fn with_rights(openbao: OpenBao) -> Self {
        let admin = openbao.admin();
        admin.policy("rights", RIGHTS);
        let token = admin.token(&json!({"policies": ["rights"], "no_default_policy": true}));
        Self {
            openbao: Arc::new(openbao),
            token,
        }
    }

    /// The settings of a store with few rights.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            servers: Some(self.openbao.address()),
            net: net(self.openbao.authority()),
            token: Some(self.token.clone().into()),
            ..Settings::default()
        }
    }
}

#[async_trait]
impl Fixture for Places {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            swap: Swap::Atomic,
            stamps: true,
            reads: Reads::Eventual,
            history: false,
            max_len: 512 * 1024,
        }
    }

    fn leases(&self) -> bool {
        true
    }

    async fn open(&self, place: &str) -> Box<dyn SecretStore> {
        open(&format!("{}/{place}", self.mount), self.server.settings())
    }

    async fn put_by_hand(&self, place: &str, login: &[u8]) {
        // A person passes the version if the mount requires compare-and-swap.
        let condition = (self.mount == "strict").then(|| self.current(place).unwrap_or_default());
        let server = &self.server.openbao;
        server.put_by_hand(self.mount, place, FIELD, login, condition);
    }

    async fn put_lease_by_hand(&self, place: &str, text: &[u8]) {
        let path = format!("{place}-lease");
        let condition = (self.mount == "strict").then(|| self.current(&path).unwrap_or_default());
        let server = &self.server.openbao;
        server.put_by_hand(self.mount, &path, "lease", text, condition);
    }

    async fn look_by_hand(&self, place: &str) -> Option<Vec<u8>> {
        let server = &self.server.openbao;
        server.look_by_hand(self.mount, place, FIELD)
    }

    async fn empty(&self, place: &str) {
        let mount = format!("-mount={}", self.mount);
        let versions = format!("-versions={}", self.current(place).expect("a value"));
        let arguments = match self.emptied_by {
            EmptiedBy::Delete => vec!["kv", "delete", &mount, place],
            EmptiedBy::Destroy => vec!["kv", "destroy", &mount, &versions, place],
            EmptiedBy::MetadataDelete => vec!["kv", "metadata", "delete", &mount, place],
        };
        let emptied = rig::finish(&mut self.server.openbao.bao(&arguments));
        assert!(emptied.status.success(), "{emptied:?}");
    }

    async fn refusals(&self, login: &[u8]) -> Vec<Refusal> {
        refusals::all(&self.server, self.mount, login)
    }
}

/// Opens a store at `MOUNT/PATH`.
pub(crate) fn open(place: &str, settings: Settings) -> Box<dyn SecretStore> {
    let address = format!("vault://{place}").parse().expect("an address");
    Box::new(authferry_vault::open(address, settings).expect("settings"))
}

/// Trusts only this certificate authority, if given.
pub(crate) fn net(authority: Option<&Path>) -> Net {
    Net {
        roots: Roots {
            file: authority.map(PathBuf::from),
            ..Roots::default()
        },
        ..Net::default()
    }
}
