//! The stores of the login between jobs.

use std::{fs, path::PathBuf};

use rig::{Issuer, Login, OpenBao, Runner, Stub, finish, gitlab_claims};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::pipeline::{AUTHFERRY, Machine};

/// A store that the jobs can reach.
pub(crate) trait Store {
    /// The inputs of the component for this store.
    fn inputs(&self) -> Vec<(&'static str, String)>;

    /// Adds the variables of the project's settings and of the platform to a machine.
    fn configure(&self, machine: Machine) -> Machine;

    /// The bytes in the store.
    fn stored(&self) -> Vec<u8>;

    /// Secrets that must not leak, in addition to the login.
    fn secrets(&self) -> Vec<String>;
}

/// A file that every machine can read.
pub(crate) struct FileStore(TempDir);

impl FileStore {
    /// Seeds a login.
    pub(crate) fn new(runner: &Runner, login: &Login) -> Self {
        let store = Self(TempDir::with_prefix("store-").expect("a temporary folder"));
        let address = store.address();
        seed(runner, login, &[("AUTHFERRY_STORE", &address)]);
        store
    }

    pub(crate) fn address(&self) -> String {
        format!("file://{}", self.file().display())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("login.json")
    }
}

impl Store for FileStore {
    fn inputs(&self) -> Vec<(&'static str, String)> {
        vec![("store", self.address())]
    }

    fn configure(&self, machine: Machine) -> Machine {
        machine
    }

    fn stored(&self) -> Vec<u8> {
        fs::read(self.file()).expect("a value in the store")
    }

    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A server that trusts the project's jobs by the unmodified policies in `deploy`.
pub(crate) struct VaultStore {
    server: OpenBao,
    /// The server fetches its key at each login.
    _issuer: Issuer,
    token: String,
}

impl VaultStore {
    /// Sets the server up and seeds a login.
    pub(crate) fn new(runner: &Runner, login: &Login) -> Self {
        let server = OpenBao::raft();
        let issuer = Issuer::start();
        let admin = server.admin();
        for role in ["runner", "seeder"] {
            admin.policy(&format!("codex-{role}"), &deployed(&format!("{role}.hcl")));
        }
        admin.trust("gitlab", &issuer);
        let role: Value = serde_json::from_str(&deployed("gitlab-role.json")).expect("JSON");
        admin.write("auth/gitlab/role/codex-runner", &role);
        let seeder = admin.token(&json!({"policies": ["codex-seeder"], "ttl": "10m"}));
        let mut claims = gitlab_claims("acme/app");
        claims["aud"] = role["bound_audiences"][0].clone();
        let store = Self {
            token: issuer.sign(claims),
            server,
            _issuer: issuer,
        };
        let mut environment = store.settings();
        environment.push(("AUTHFERRY_STORE", "vault://secret/ci/codex".to_owned()));
        environment.push(("VAULT_TOKEN", seeder));
        let environment: Vec<_> = environment.iter().map(|(n, v)| (*n, v.as_str())).collect();
        seed(runner, login, &environment);
        store
    }

    /// The number of versions that were ever written.
    pub(crate) fn versions(&self) -> u64 {
        let metadata = self.server.admin().read("secret/metadata/ci/codex");
        let metadata = metadata.expect("a value in the store");
        metadata["data"]["current_version"]
            .as_u64()
            .expect("a number")
    }

    /// The number of unexpired tokens of jobs.
    pub(crate) fn tokens(&self) -> usize {
        self.server.admin().leases("auth/gitlab/login").len()
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let authority = self.server.authority().expect("a server with TLS");
        vec![
            ("VAULT_ADDR", self.server.address()),
            ("VAULT_CACERT", authority.display().to_string()),
        ]
    }
}

impl Store for VaultStore {
    fn inputs(&self) -> Vec<(&'static str, String)> {
        let address = "vault://secret/ci/codex?auth=jwt&auth_mount=gitlab&role=codex-runner&id_token=VAULT_ID_TOKEN";
        vec![
            ("store", address.to_owned()),
            ("identity", "vault".to_owned()),
            ("audience", "https://vault.example.com".to_owned()),
        ]
    }

    fn configure(&self, machine: Machine) -> Machine {
        let machine = self
            .settings()
            .into_iter()
            .fold(machine, |machine, (name, value)| machine.with(name, value));
        // GitLab issues it when the job starts.
        machine.with("VAULT_ID_TOKEN", &self.token)
    }

    fn stored(&self) -> Vec<u8> {
        let stored = self.server.look_by_hand("secret", "ci/codex", "auth_json");
        stored.expect("a value in the store")
    }

    fn secrets(&self) -> Vec<String> {
        let (_, signature) = self.token.rsplit_once('.').expect("three parts");
        vec![self.token.clone(), signature.to_owned()]
    }
}

/// Whether a store holds the live generation of the login.
pub(crate) fn is_live(stub: &Stub, store: &dyn Store) -> bool {
    stub.is_live(&store.stored())
}

fn seed(runner: &Runner, login: &Login, environment: &[(&str, &str)]) {
    let file = runner.work().join("seed.json");
    fs::write(&file, login.auth_json()).expect("disk space");
    let mut seed = runner.command(AUTHFERRY);
    seed.arg("seed")
        .arg(&file)
        .envs(environment.iter().copied());
    let output = finish(&mut seed);
    assert!(output.status.success(), "{output:?}");
}

/// Reads a file of `deploy/policies/vault`.
fn deployed(name: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = folder.join("../deploy/policies/vault").join(name);
    fs::read_to_string(path).expect("a file that is shipped")
}
