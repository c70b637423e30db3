//! An OpenBao server that trusts jobs, and commands in such jobs.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Output},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::SystemTime,
};

use rig::{
    Admin, Codex, EXEC, Issuer, Login, OpenBao, Runner, Stub, finish, github_claims, gitlab_claims,
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::any_store::AnyStore;
use crate::ferry::{assert_code, under_test, wait_until};

/// The audience of the jobs' ID tokens, as in the roles of `deploy`.
pub(crate) const AUDIENCE: &str = "https://vault.example.com";

/// The repository or project that the roles in `deploy` trust.
pub(crate) const PROJECT: &str = "acme/app";

/// The path of the login in its mount.
pub(crate) const PATH: &str = "ci/codex";

/// The path of the lease.
const LEASE: &str = "ci/codex-lease";

/// How a job authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// With an ID token that the job requests from the platform.
    GitHub,
    /// With an ID token in an environment variable.
    GitLab,
}

/// A server with a mount for one test, with the provider's stub and a Codex.
pub(crate) struct Site {
    pub(crate) stub: Stub,
    pub(crate) codex: Codex,
    pub(crate) issuer: Issuer,
    pub(crate) server: Arc<OpenBao>,
    /// The mount of the key-value engine, and a part of every other name on the server.
    pub(crate) mount: String,
}

impl Site {
    /// Sets up a mount on the server that most tests share, and signs `login` in.
    pub(crate) fn new(version: &str, login: &Login) -> Self {
        let codex = Codex::install(version).expect("Codex from npm");
        Self::on(shared(), codex, login)
    }

    /// Sets up a mount on the given server.
    pub(crate) fn on(server: Arc<OpenBao>, codex: Codex, login: &Login) -> Self {
        static SITES: AtomicU32 = AtomicU32::new(0);
        let number = SITES.fetch_add(1, Ordering::Relaxed);
        let site = Self {
            stub: Stub::start(login),
            codex,
            issuer: Issuer::start(),
            server,
            mount: format!("kv-{number}"),
        };
        let admin = site.admin();
        admin.mount_kv(&site.mount, 2);
        for role in ["runner", "seeder", "monitor"] {
            admin.policy(&site.named(role), &site.policy(role));
        }
        for identity in [Identity::GitHub, Identity::GitLab] {
            admin.trust(&site.auth_mount(identity), &site.issuer);
            site.let_in(identity, |_| {});
        }
        site
    }

    /// The administrator of the server.
    pub(crate) fn admin(&self) -> Admin {
        self.server.admin()
    }

    /// A name on the server, unique to this test.
    pub(crate) fn named(&self, name: &str) -> String {
        format!("{name}-{}", self.mount)
    }

    /// A policy of `deploy`, with this test's mount.
    pub(crate) fn policy(&self, role: &str) -> String {
        deployed(&format!("{role}.hcl"))
            .replace("path \"secret/", &format!("path \"{}/", self.mount))
    }

    /// Creates the auth role for jobs with this identity, from the role file in `deploy`, with this
    /// test's policy and with `change` applied.
    pub(crate) fn let_in(&self, identity: Identity, change: impl FnOnce(&mut Value)) {
        let file = match identity {
            Identity::GitHub => "github-role.json",
            Identity::GitLab => "gitlab-role.json",
        };
        let mut role: Value = serde_json::from_str(&deployed(file)).expect("JSON");
        role["token_policies"] = json!([self.named("runner")]);
        change(&mut role);
        let path = format!("auth/{}/role/codex-runner", self.auth_mount(identity));
        // A write keeps the fields of a role that it does not set.
        self.admin().delete(&path);
        self.admin().write(&path, &role);
    }

    /// The claims of a trusted job.
    pub(crate) fn claims(identity: Identity) -> Value {
        match identity {
            Identity::GitHub => github_claims(PROJECT),
            Identity::GitLab => gitlab_claims(PROJECT),
        }
    }

    pub(crate) fn auth_mount(&self, identity: Identity) -> String {
        match identity {
            Identity::GitHub => self.named("github"),
            Identity::GitLab => self.named("gitlab"),
        }
    }

    /// The login's address for a job with this identity.
    pub(crate) fn address(&self, identity: Identity) -> String {
        let [place, mount] = [self.place(), self.auth_mount(identity)];
        let login = format!("{place}?auth=jwt&auth_mount={mount}&role=codex-runner");
        match identity {
            Identity::GitHub => format!("{login}&audience={AUDIENCE}"),
            Identity::GitLab => format!("{login}&id_token=VAULT_ID_TOKEN"),
        }
    }

    /// The login's address, without authentication options.
    pub(crate) fn place(&self) -> String {
        format!("vault://{}/{PATH}", self.mount)
    }

    /// A fresh runner without a login.
    pub(crate) fn runner(&self) -> Runner {
        Runner::new(&self.stub, &self.codex).expect("room for a runner")
    }

    /// `authferry` on a runner, with the address of the server and no credentials.
    pub(crate) fn authferry(&self, runner: &Runner, store: &str, arguments: &[&str]) -> Command {
        let mut command = self.command_at(runner, store, under_test());
        command.args(arguments);
        command
    }

    fn command_at(&self, runner: &Runner, store: &str, program: &str) -> Command {
        let mut command = runner.command(program);
        command
            .env("AUTHFERRY_STORE", store)
            .env("VAULT_ADDR", self.server.addresses().join(","))
            .envs(self.server.authority().map(|file| ("VAULT_CACERT", file)));
        command
    }

    /// `authferry` in a job, with the job's identity as the only credential.
    pub(crate) fn in_job(
        &self,
        runner: &Runner,
        identity: Identity,
        arguments: &[&str],
    ) -> Command {
        let mut command = self.authferry(runner, &self.address(identity), arguments);
        self.identify(&mut command, identity, Self::claims(identity));
        command
    }

    /// Gives a command the ID token of its job.
    pub(crate) fn identify(&self, command: &mut Command, identity: Identity, mut claims: Value) {
        match identity {
            Identity::GitHub => command.envs(self.issuer.allow_fetch(claims)),
            Identity::GitLab => {
                if claims["aud"].is_null() {
                    claims["aud"] = json!(AUDIENCE);
                }
                command.env("VAULT_ID_TOKEN", self.issuer.sign(claims))
            }
        };
    }

    /// `authferry run -- codex exec …` in a job: rotates a due login first, under the lease.
    pub(crate) fn run(&self, runner: &Runner, identity: Identity) -> Command {
        let mut command = self.in_job(runner, identity, &["-v", "run", "--", "codex"]);
        command.args(EXEC);
        command
    }

    /// Seeds a login, as a person with the seeder's rights.
    pub(crate) fn seed(&self, login: &Login, more: &[&str]) -> Output {
        let runner = self.runner();
        let file = runner.work().join("seed.json");
        fs::write(&file, login.auth_json()).expect("disk space");
        let mut seed = self.authferry(&runner, &self.place(), &["seed"]);
        seed.arg(&file)
            .args(more)
            .env("VAULT_TOKEN", self.token("seeder"));
        finish(&mut seed)
    }

    /// Seeds a login into the empty store.
    #[track_caller]
    pub(crate) fn seeded(self, login: &Login) -> Self {
        assert_code(&self.seed(login, &[]), 0);
        self
    }

    /// A token with one policy of `deploy`.
    pub(crate) fn token(&self, role: &str) -> String {
        self.admin().token(&json!({
            "policies": [self.named(role)],
            "no_default_policy": true,
            "ttl": "10m",
        }))
    }

    /// The value that `bao kv get` prints.
    pub(crate) fn stored(&self) -> Vec<u8> {
        let stored = self.server.look_by_hand(&self.mount, PATH, "auth_json");
        stored.expect("a value in the store")
    }

    /// The value of one version.
    pub(crate) fn version(&self, number: u64) -> Option<String> {
        let path = format!("{}/data/{PATH}?version={number}", self.mount);
        let value = self.admin().read(&path)?["data"]["data"]["auth_json"].clone();
        value.as_str().map(str::to_owned)
    }

    /// The number of versions that were ever written.
    pub(crate) fn versions(&self) -> u64 {
        written(&self.admin(), &self.mount)
    }

    /// Whether the store holds the live generation of the login.
    pub(crate) fn is_live(&self) -> bool {
        self.stub.is_live(&self.stored())
    }

    /// The number of unexpired tokens of jobs with this identity.
    pub(crate) fn tokens(&self, identity: Identity) -> usize {
        let path = format!("auth/{}/login", self.auth_mount(identity));
        self.admin().leases(&path).len()
    }

    /// Waits until the store holds the live generation.
    #[track_caller]
    pub(crate) fn wait_until_live(&self) {
        wait_until("the live generation is in the store", || self.is_live());
    }
}

/// The server that most tests share.
fn shared() -> Arc<OpenBao> {
    static SHARED: LazyLock<Arc<OpenBao>> = LazyLock::new(|| Arc::new(OpenBao::raft()));
    Arc::clone(&SHARED)
}

/// Uses the identity of a GitHub job as the only credential.
impl AnyStore for Site {
    fn with(codex: Codex, login: &Login) -> Self {
        Self::on(shared(), codex, login).seeded(login)
    }

    fn stub(&self) -> &Stub {
        &self.stub
    }

    fn codex(&self) -> &Codex {
        &self.codex
    }

    fn command(&self, runner: &Runner, program: &str) -> Command {
        let mut command = self.command_at(runner, &self.address(Identity::GitHub), program);
        self.identify(
            &mut command,
            Identity::GitHub,
            Self::claims(Identity::GitHub),
        );
        command
    }

    fn stored(&self) -> Vec<u8> {
        Site::stored(self)
    }

    fn written(&self) -> SystemTime {
        let held = self.admin().read(&format!("{}/data/{PATH}", self.mount));
        let held = held.expect("a value in the store");
        let at = held["data"]["metadata"]["created_time"].as_str();
        let at = at.and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
        at.expect("a time").into()
    }

    fn traces(&self) -> String {
        let metadata = |path: &str| {
            let path = format!("{}/metadata/{path}", self.mount);
            self.admin().read(&path).map(|found| found["data"].clone())
        };
        let [login, lease] = [PATH, LEASE].map(metadata);
        format!("{login:?} {lease:?}")
    }

    fn put(&self, login: &Login, more: &[&str]) -> Output {
        self.seed(login, more)
    }

    fn cut_off(&self, command: &mut Command) -> Option<File> {
        command.env("VAULT_ADDR", "https://127.0.0.1:1");
        None
    }
}

/// The number of versions of the login that were ever written in a mount.
pub(crate) fn written(admin: &Admin, mount: &str) -> u64 {
    let metadata = admin.read(&format!("{mount}/metadata/{PATH}"));
    metadata.map_or(0, |it| {
        it["data"]["current_version"].as_u64().unwrap_or_default()
    })
}

/// Reads a file of `deploy/policies/vault`.
pub(crate) fn deployed(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policies/vault");
    fs::read_to_string(folder.join(name)).expect("a file that is shipped")
}

/// Fails if a text contains a token of the server or of the issuer.
#[track_caller]
pub(crate) fn assert_no_token(site: &Site, what: &str, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    assert_eq!(server_token(&text), None, "in {what}");
    for token in site.issuer.fetched() {
        let (_, signature) = token.rsplit_once('.').expect("three parts");
        assert!(
            !text.contains(signature),
            "a token of the job in {what}: {text}"
        );
    }
}

/// Finds a possible token of the server: `s.` and about 24 letters and digits, or a longer text after
/// `hvs.`.
pub(crate) fn server_token(text: &str) -> Option<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.')
        .find(|word| {
            let rest = word
                .strip_prefix("hvs.")
                .or_else(|| word.strip_prefix("s."));
            rest.is_some_and(|rest| rest.len() >= 20 && !rest.contains('.'))
        })
}
