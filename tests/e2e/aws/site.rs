//! An AWS account that trusts jobs, and commands in such jobs.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Output},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rig::{
    ACCOUNT, Aws, BotoClient, Codex, EXEC, Issuer, Keys, Login, REGION, Runner, Stub, finish,
    github_claims, gitlab_claims,
};
use serde_json::{Value, json};

use crate::any_store::AnyStore;
use crate::ferry::{assert_code, under_test, wait_until};

/// The repository or project that the policies in `deploy` trust.
pub(crate) const PROJECT: &str = "acme/app";

/// How a job authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// With an ID token that the job requests from the platform.
    GitHub,
    /// With an ID token in an environment variable.
    GitLab,
}

/// A server, and a client with all rights.
pub(crate) struct Account {
    server: Arc<Aws>,
    hand: Arc<BotoClient>,
}

impl Account {
    /// Makes the server enforce policies, except for the `hand` client.
    pub(crate) fn on(server: Aws) -> Self {
        let server = server.enforcing_policies();
        Self {
            hand: Arc::new(server.boto()),
            server: Arc::new(server),
        }
    }
}

/// A secret and its roles, with the provider's stub and a Codex.
pub(crate) struct Site {
    pub(crate) stub: Stub,
    pub(crate) codex: Codex,
    pub(crate) issuer: Issuer,
    pub(crate) server: Arc<Aws>,
    pub(crate) hand: Arc<BotoClient>,
    /// The access keys of jobs that assume no role.
    keys: Option<Keys>,
    /// Part of every name, unique to this test.
    number: u32,
}

impl Site {
    /// Sets up a site on the server that most tests share, and signs `login` in.
    pub(crate) fn new(version: &str, login: &Login) -> Self {
        let codex = Codex::install(version).expect("Codex from npm");
        Self::on(&shared(), codex, login)
    }

    /// Sets up a site in an account, with the trust policies of `deploy`.
    pub(crate) fn on(account: &Account, codex: Codex, login: &Login) -> Self {
        let site = Self::bare(account, codex, login);
        let provider = json!({
            "Url": site.issuer.url().replace("http:", "https:"),
            "ClientIDList": ["sts.amazonaws.com"],
        });
        site.iam("create_open_id_connect_provider", &provider);
        for identity in [Identity::GitHub, Identity::GitLab] {
            let trust = site.trust(identity);
            site.iam(
                "create_role",
                &json!({
                    "RoleName": site.role(identity),
                    "AssumeRolePolicyDocument": trust.to_string(),
                }),
            );
            site.let_do(identity, &site.policy("refresher"));
        }
        site
    }

    /// Sets up a site without rights, with the lease secret of the README's setup.
    fn bare(account: &Account, codex: Codex, login: &Login) -> Self {
        static SITES: AtomicU32 = AtomicU32::new(0);
        let site = Self {
            stub: Stub::start(login),
            codex,
            issuer: Issuer::start(),
            server: Arc::clone(&account.server),
            hand: Arc::clone(&account.hand),
            keys: None,
            number: SITES.fetch_add(1, Ordering::Relaxed),
        };
        let lease = json!({"Name": site.lease()});
        site.hand
            .secrets("create_secret", &lease)
            .expect("a new secret");
        site
    }

    #[track_caller]
    pub(crate) fn iam(&self, call: &str, given: &Value) {
        match self.hand.ask("iam", call, given) {
            // An earlier issuer had the same port, and so the same name.
            Err(no) if no.code == "EntityAlreadyExists" && call.ends_with("_provider") => {}
            answer => drop(answer.unwrap_or_else(|no| panic!("{call}: {no:?}"))),
        }
    }

    /// The secret's name.
    pub(crate) fn name(&self) -> String {
        format!("ci-{}/codex", self.number)
    }

    /// A policy of `deploy`, with this test's secret.
    pub(crate) fn policy(&self, role: &str) -> Value {
        let policy = deployed(&format!("{role}.json")).replace("ci/codex", &self.name());
        serde_json::from_str(&policy).expect("JSON")
    }

    /// A trust policy of `deploy`, with this test's issuer.
    pub(crate) fn trust(&self, identity: Identity) -> Value {
        let host = self.issuer.url().replace("http://", "");
        let (file, platform) = match identity {
            Identity::GitHub => ("github-trust.json", "token.actions.githubusercontent.com"),
            Identity::GitLab => ("gitlab-trust.json", "gitlab.com"),
        };
        serde_json::from_str(&deployed(file).replace(platform, &host)).expect("JSON")
    }

    /// Sets the policy of the role for jobs with this identity.
    pub(crate) fn let_do(&self, identity: Identity, policy: &Value) {
        self.iam(
            "put_role_policy",
            &json!({
                "RoleName": self.role(identity),
                "PolicyName": "codex",
                "PolicyDocument": policy.to_string(),
            }),
        );
    }

    pub(crate) fn role(&self, identity: Identity) -> String {
        format!("codex-{identity:?}-{}", self.number)
    }

    pub(crate) fn role_arn(&self, identity: Identity) -> String {
        format!("arn:aws:iam::{ACCOUNT}:role/{}", self.role(identity))
    }

    /// The login's address for a job with this identity.
    pub(crate) fn address(&self, identity: Identity) -> String {
        let login = format!("{}?role={}", self.place(), self.role_arn(identity));
        match identity {
            Identity::GitHub => login,
            Identity::GitLab => format!("{login}&id_token=AWS_ID_TOKEN"),
        }
    }

    /// The login's address, without authentication options.
    pub(crate) fn place(&self) -> String {
        format!("aws-sm://{REGION}/{}", self.name())
    }

    /// The claims of a trusted job.
    pub(crate) fn claims(identity: Identity) -> Value {
        match identity {
            Identity::GitHub => github_claims(PROJECT),
            Identity::GitLab => gitlab_claims(PROJECT),
        }
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
            .envs(self.server.place());
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
                    claims["aud"] = json!("sts.amazonaws.com");
                }
                command.env("AWS_ID_TOKEN", self.issuer.sign(claims))
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
    pub(crate) fn seed(&self, login: &Login, keys: Keys, more: &[&str]) -> Output {
        let runner = self.runner();
        let file = runner.work().join("seed.json");
        fs::write(&file, login.auth_json()).expect("disk space");
        let mut seed = self.authferry(&runner, &self.place(), &["seed"]);
        seed.arg(&file).args(more).envs(keys);
        finish(&mut seed)
    }

    /// Seeds a login into the empty store.
    #[track_caller]
    pub(crate) fn seeded(self, login: &Login) -> Self {
        let seeder = self.user("seeder", &self.policy("seeder"));
        assert_code(&self.seed(login, seeder, &[]), 0);
        self
    }

    /// Creates a user with a policy, and returns its access keys.
    pub(crate) fn user(&self, name: &str, policy: &Value) -> Keys {
        self.hand.user(&format!("{name}-{}", self.number), policy)
    }

    /// The value that `aws secretsmanager get-secret-value` prints.
    pub(crate) fn stored(&self) -> Vec<u8> {
        let stored = self.hand.look(&self.name());
        stored.expect("a value in the store").into_bytes()
    }

    /// The number of versions of the login, with or without labels.
    pub(crate) fn versions(&self) -> usize {
        self.versions_of(&self.name())
    }

    /// The name of the secret that holds the lease.
    pub(crate) fn lease(&self) -> String {
        format!("{}-lease", self.name())
    }

    /// The number of versions of the lease, with or without labels.
    pub(crate) fn versions_of_the_lease(&self) -> usize {
        self.versions_of(&self.lease())
    }

    fn versions_of(&self, name: &str) -> usize {
        let given = json!({"SecretId": name, "IncludeDeprecated": true});
        let all = self.hand.secrets("list_secret_version_ids", &given);
        all.expect("a secret")["Versions"]
            .as_array()
            .map_or(0, Vec::len)
    }

    /// Whether the store holds the live generation of the login.
    pub(crate) fn is_live(&self) -> bool {
        self.stub.is_live(&self.stored())
    }

    /// Waits until the store holds the live generation.
    #[track_caller]
    pub(crate) fn wait_until_live(&self) {
        wait_until("the live generation is in the store", || self.is_live());
    }
}

fn shared() -> Arc<Account> {
    static SHARED: LazyLock<Arc<Account>> =
        LazyLock::new(|| Arc::new(Account::on(Aws::moto_with_tls())));
    Arc::clone(&SHARED)
}

/// Uses access keys, which saves a crowd some thousand calls. Other tests cover roles.
impl AnyStore for Site {
    fn with(codex: Codex, login: &Login) -> Self {
        let mut site = Self::bare(&shared(), codex, login);
        site.hand.put(&site.name(), &login.auth_json());
        site.keys = Some(site.user("job", &site.policy("refresher")));
        site
    }

    fn stub(&self) -> &Stub {
        &self.stub
    }

    fn codex(&self) -> &Codex {
        &self.codex
    }

    fn command(&self, runner: &Runner, program: &str) -> Command {
        let mut command = self.command_at(runner, &self.place(), program);
        command.envs(self.keys.clone().expect("keys for jobs"));
        command
    }

    fn stored(&self) -> Vec<u8> {
        Site::stored(self)
    }

    /// The time of the promotion: a version exists before it is current.
    fn written(&self) -> SystemTime {
        let done = self.hand.rig("done", &self.name());
        let promoted = done["UpdateSecretVersionStage"].as_f64();
        let seconds = promoted.expect("a login that was swapped");
        UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }

    fn traces(&self) -> String {
        let described = |name: String| {
            let described = self
                .hand
                .secrets("describe_secret", &json!({"SecretId": name}));
            let mut described = described.expect("a secret");
            // A read changes these two.
            described["LastAccessedDate"].take();
            described["ResponseMetadata"].take();
            described
        };
        let [login, lease] = [self.name(), self.lease()].map(described);
        format!("{login} {lease}")
    }

    fn put(&self, login: &Login, more: &[&str]) -> Output {
        let seeder = self.user("seeder", &self.policy("seeder"));
        self.seed(login, seeder, more)
    }

    fn cut_off(&self, command: &mut Command) -> Option<File> {
        command.env("AWS_ENDPOINT_URL", "https://127.0.0.1:1");
        None
    }
}

/// Reads a file of `deploy/policies/aws`.
pub(crate) fn deployed(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policies/aws");
    fs::read_to_string(folder.join(name)).expect("a file that is shipped")
}
