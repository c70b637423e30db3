//! A key vault that trusts jobs, and commands in such jobs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use rig::{
    Account, Azurite, Call, Codex, EXEC, Issuer, Job, KeyVault, Login, Op, PythonClient, Right,
    Runner, Stub, TENANT, finish, github_claims, gitlab_claims,
};
use serde_json::{Value, json};

use crate::{
    any_store::AnyStore,
    ferry::{assert_code, under_test},
};

/// The repository or project that the files in `deploy` trust.
pub(crate) const PROJECT: &str = "acme/app";

/// The name of the login's secret.
pub(crate) const NAME: &str = "codex-login";

/// The variable with the ID token of a GitLab job, named as in GitLab's documentation.
pub(crate) const ID_TOKEN: &str = "GITLAB_OIDC_TOKEN";

/// A role of `deploy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Runner,
    Refresher,
    Reader,
    Seeder,
}

/// How a job authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// With an ID token that the job requests from the platform.
    GitHub,
    /// With an ID token in an environment variable.
    GitLab,
}

/// A vault for one test, with the provider's stub and a Codex.
pub(crate) struct Site {
    pub(crate) stub: Stub,
    pub(crate) codex: Codex,
    pub(crate) issuer: Issuer,
    pub(crate) vault: KeyVault,
    container: String,
}

impl Role {
    pub(crate) const ALL: [Self; 4] = [Self::Runner, Self::Refresher, Self::Reader, Self::Seeder];

    pub(crate) fn client(self) -> &'static str {
        match self {
            Self::Runner => "00000000-0000-4000-8000-0000000000c1",
            Self::Refresher => "00000000-0000-4000-8000-0000000000c2",
            Self::Reader => "00000000-0000-4000-8000-0000000000c3",
            Self::Seeder => "00000000-0000-4000-8000-0000000000c4",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Runner => "runner.json",
            Self::Refresher => "refresher.json",
            Self::Reader => "reader.json",
            Self::Seeder => "seeder.json",
        }
    }

    /// The client secret of a person, or of a job without an identity.
    pub(crate) fn secret(self) -> String {
        format!("made-up-secret-of-{}", self.client())
    }

    fn definition(self) -> Value {
        serde_json::from_str(&deployed(self.file())).expect("JSON")
    }

    /// The role's name.
    pub(crate) fn name(self) -> String {
        self.definition()["Name"]
            .as_str()
            .expect("a text")
            .to_owned()
    }

    /// The data actions that `deploy` allows.
    pub(crate) fn actions(self) -> Vec<String> {
        let role = self.definition();
        let actions = role["DataActions"].as_array().expect("a list").iter();
        let actions = actions.map(|action| action.as_str().expect("a text").to_owned());
        actions.collect()
    }
}

impl Site {
    /// Sets up a vault, and signs `login` in.
    pub(crate) fn new(version: &str, login: &Login) -> Self {
        Self::with_codex(Codex::install(version).expect("Codex from npm"), login)
    }

    fn with_codex(codex: Codex, login: &Login) -> Self {
        static AZURITE: LazyLock<Arc<Azurite>> = LazyLock::new(|| Arc::new(Azurite::start()));
        let site = Self {
            stub: Stub::start(login),
            codex,
            issuer: Issuer::start(),
            vault: KeyVault::with_blobs(&AZURITE),
            container: AZURITE.container(),
        };
        for role in Role::ALL {
            site.allow(role, &role.actions());
        }
        site
    }

    /// Gives the account of a role these actions, in the scope of `deploy`, and trusts the jobs that
    /// `deploy` trusts.
    pub(crate) fn allow(&self, role: Role, actions: &[String]) {
        let right = |action: &String| Right {
            action: action.clone(),
            only: Some(if action.starts_with("Microsoft.Storage/") {
                self.container.clone()
            } else {
                NAME.to_owned()
            }),
        };
        let job = |file: &str| {
            let credential: Value = serde_json::from_str(&deployed(file)).expect("JSON");
            assert_eq!(credential["audiences"], json!([rig::ENTRA_AUDIENCE]));
            Job::of(
                &self.issuer,
                credential["subject"].as_str().expect("a text"),
            )
        };
        self.vault.account(
            role.client(),
            Account {
                secrets: vec![role.secret()],
                jobs: vec![job("github-credential.json"), job("gitlab-credential.json")],
                rights: actions.iter().map(right).collect(),
            },
        );
    }

    /// The claims of a trusted job.
    pub(crate) fn claims(identity: Identity) -> Value {
        match identity {
            Identity::GitHub => github_claims(PROJECT),
            Identity::GitLab => gitlab_claims(PROJECT),
        }
    }

    /// The login's address, without authentication options.
    pub(crate) fn place(&self) -> String {
        let host = self.vault.host();
        let blobs = self.blobs();
        format!("azure-kv://{host}/{NAME}?coordinator={blobs}/{NAME}.json")
    }

    /// The address of the blob container.
    pub(crate) fn blobs(&self) -> String {
        let host = self.vault.host();
        format!("blob://{host}/devstoreaccount1/{}", self.container)
    }

    /// The login's address for a job that authenticates with its ID token.
    pub(crate) fn address(&self) -> String {
        format!("{}&auth=workload", self.place())
    }

    /// A fresh runner without a login.
    pub(crate) fn runner(&self) -> Runner {
        Runner::new(&self.stub, &self.codex).expect("room for a runner")
    }

    /// `authferry` on a runner, with the address of the authority and no credentials.
    pub(crate) fn authferry(&self, runner: &Runner, store: &str, arguments: &[&str]) -> Command {
        let mut command = self.command_at(runner, store, under_test());
        command.args(arguments);
        command
    }

    fn command_at(&self, runner: &Runner, store: &str, program: &str) -> Command {
        let mut command = runner.command(program);
        command
            .env("AUTHFERRY_STORE", store)
            .env("AZURE_TENANT_ID", TENANT)
            .env("AZURE_AUTHORITY_HOST", self.vault.url())
            .env("SSL_CERT_FILE", self.vault.authority());
        command
    }

    /// `authferry` in a job, with the job's identity as the only credential.
    pub(crate) fn in_job(
        &self,
        runner: &Runner,
        identity: Identity,
        arguments: &[&str],
    ) -> Command {
        let mut command = self.authferry(runner, &self.address(), arguments);
        self.identify(&mut command, identity, Self::claims(identity));
        command
    }

    /// Gives a command the ID token of its job.
    pub(crate) fn identify(&self, command: &mut Command, identity: Identity, mut claims: Value) {
        command.env("AZURE_CLIENT_ID", Role::Runner.client());
        match identity {
            Identity::GitHub => command.envs(self.issuer.allow_fetch(claims)),
            Identity::GitLab => {
                if claims["aud"].is_null() {
                    claims["aud"] = json!(rig::ENTRA_AUDIENCE);
                }
                command.env(ID_TOKEN, self.issuer.sign(claims))
            }
        };
    }

    /// `authferry` with the client secret of a role.
    pub(crate) fn with_secret(&self, runner: &Runner, role: Role, arguments: &[&str]) -> Command {
        let store = format!("{}&auth=secret", self.place());
        let mut command = self.authferry(runner, &store, arguments);
        command
            .env("AZURE_CLIENT_ID", role.client())
            .env("AZURE_CLIENT_SECRET", role.secret());
        command
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
        let mut seed = self.with_secret(&runner, Role::Seeder, &["seed"]);
        finish(seed.arg(&file).args(more))
    }

    /// Seeds a login into the empty store.
    #[track_caller]
    pub(crate) fn seeded(self, login: &Login) -> Self {
        assert_code(&self.seed(login, &[]), 0);
        self
    }

    /// Microsoft's client, with all rights.
    pub(crate) fn by_hand(&self) -> PythonClient {
        PythonClient::of(&self.vault)
    }

    /// The value of the newest version.
    pub(crate) fn newest(&self) -> String {
        let versions = self.vault.versions(NAME);
        versions.last().expect("a value in the vault").value.clone()
    }

    /// The number of versions of the login.
    pub(crate) fn versions(&self) -> usize {
        self.vault.versions(NAME).len()
    }

    /// Whether the vault's newest version is the live generation of the login.
    pub(crate) fn is_live(&self) -> bool {
        self.stub.is_live(self.newest().as_bytes())
    }

    /// The login that a job restores: only authferry can resolve the pointer.
    #[track_caller]
    pub(crate) fn restored(&self) -> Vec<u8> {
        let runner = self.runner();
        let restore = ["restore", "--no-watch", "--no-rotate-first"];
        assert_code(
            &finish(&mut self.in_job(&runner, Identity::GitHub, &restore)),
            0,
        );
        fs::read(runner.auth_file()).expect("placed")
    }
}

impl AnyStore for Site {
    fn with(codex: Codex, login: &Login) -> Self {
        Self::with_codex(codex, login).seeded(login)
    }

    fn stub(&self) -> &Stub {
        &self.stub
    }

    fn codex(&self) -> &Codex {
        &self.codex
    }

    fn command(&self, runner: &Runner, program: &str) -> Command {
        let mut command = self.command_at(runner, &self.address(), program);
        let claims = Self::claims(Identity::GitHub);
        self.identify(&mut command, Identity::GitHub, claims);
        command
    }

    fn stored(&self) -> Vec<u8> {
        self.newest().into_bytes()
    }

    fn written(&self) -> SystemTime {
        self.vault
            .versions(NAME)
            .last()
            .expect("a value in the vault")
            .written
    }

    fn traces(&self) -> String {
        let secrets = self.vault.names().into_iter();
        let secrets: Vec<_> = secrets.map(|name| self.vault.versions(&name)).collect();
        let writes = |(call, _): &(Call, u16)| {
            let is_write = matches!(call.op, Op::SetSecret | Op::UpdateSecret | Op::WriteBlob);
            is_write && call.caller.is_some()
        };
        let writes = self
            .vault
            .calls()
            .into_iter()
            .filter(|call| writes(call))
            .count();
        format!("{secrets:?} {writes}")
    }

    fn put(&self, login: &Login, more: &[&str]) -> Output {
        self.seed(login, more)
    }

    fn cut_off(&self, command: &mut Command) -> Option<File> {
        command.env("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1");
        None
    }
}

/// Reads a file of `deploy/policies/azure`.
pub(crate) fn deployed(name: &str) -> String {
    fs::read_to_string(folder().join(name)).expect("a file that is shipped")
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policies/azure")
}
