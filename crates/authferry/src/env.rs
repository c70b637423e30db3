//! Every environment variable that is read, and the only place where that is done.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::Duration};

use authferry_codex::{OVERRIDES, Override};
#[cfg(any(feature = "aws", feature = "azure-kv", feature = "vault"))]
use secrecy::SecretString;

/// The environment, as far as it matters.
#[derive(Debug)]
pub(crate) struct Env {
    /// `AUTHFERRY_STORE`: the store's address.
    pub(crate) store: Option<String>,
    /// `AUTHFERRY_RESCUE_DIR`: the rescue folder.
    pub(crate) rescue_dir: Option<PathBuf>,
    /// `AUTHFERRY_RESCUE_STORE`: the address of the second store.
    pub(crate) rescue_store: Option<String>,
    /// `AUTHFERRY_RESCUE_RECIPIENT`: age recipients, with commas or spaces between them.
    pub(crate) rescue_recipients: Vec<String>,
    /// `CODEX_HOME`, as Codex reads it.
    pub(crate) codex_home: Option<PathBuf>,
    /// `HOME`: the default Codex home and the default state folder lie in it.
    pub(crate) home: Option<PathBuf>,
    /// `XDG_STATE_HOME`: the default store and the rescue folder lie in it.
    pub(crate) state_home: Option<PathBuf>,
    /// `TMPDIR`, or where temporary files are otherwise.
    pub(crate) temp: PathBuf,
    /// `PATH`: where the Codex that rotates is looked up, and what that starts in its turn.
    pub(crate) programs: Option<OsString>,
    /// `CI_JOB_TIMEOUT`: how many seconds the job may take.
    pub(crate) job_timeout: Option<Duration>,
    /// Whether `RUNNER_TRACKING_ID` is set: the runner of GitHub ends each process that has it when
    /// the job ends.
    pub(crate) is_tracked: bool,
    /// Those set of the variables under which Codex does not run on the auth file.
    pub(crate) overrides: Vec<Override>,
    /// What CI systems tell of the job.
    pub(crate) job: BTreeMap<&'static str, String>,
    /// `ACTIONS_ID_TOKEN_REQUEST_URL`: where GitHub gives the job a token of its own.
    #[cfg(any(feature = "aws", feature = "azure-kv", feature = "vault"))]
    pub(crate) id_token_url: Option<String>,
    /// `ACTIONS_ID_TOKEN_REQUEST_TOKEN`: what it wants to see for it.
    #[cfg(any(feature = "aws", feature = "azure-kv", feature = "vault"))]
    pub(crate) id_token_token: Option<SecretString>,
    /// What AWS's own tools read, and its SDK for Rust does not, or not soon enough.
    #[cfg(feature = "aws")]
    pub(crate) aws: Aws,
    /// `HTTPS_PROXY` or `ALL_PROXY`, in capitals or not. May hold a password.
    #[cfg(feature = "aws")]
    pub(crate) proxy: Option<SecretString>,
    /// `NO_PROXY`, in capitals or not.
    #[cfg(feature = "aws")]
    pub(crate) no_proxy: Option<String>,
    /// What the tools and libraries of Azure read.
    #[cfg(feature = "azure-kv")]
    pub(crate) azure: Azure,
    /// What the command line tools of Vault and OpenBao read.
    #[cfg(feature = "vault")]
    pub(crate) vault: Vault,
}

/// Where GitHub's runner wants to be told things.
#[derive(Debug)]
pub(crate) struct GitHub {
    /// `GITHUB_OUTPUT`: a file for what later steps can use.
    pub(crate) output: Option<PathBuf>,
    /// `GITHUB_STEP_SUMMARY`: a file for what people read.
    pub(crate) summary: Option<PathBuf>,
}

impl GitHub {
    pub(crate) fn read() -> Self {
        Self {
            output: given("GITHUB_OUTPUT").map(PathBuf::from),
            summary: given("GITHUB_STEP_SUMMARY").map(PathBuf::from),
        }
    }
}

/// What AWS's own tools read. The SDK finds by itself the region, the profile, the endpoint
/// and whatever else leads to credentials.
#[cfg(feature = "aws")]
#[derive(Debug)]
pub(crate) struct Aws {
    /// `AWS_ROLE_ARN`
    pub(crate) role_arn: Option<String>,
    /// `AWS_ROLE_SESSION_NAME`
    pub(crate) session_name: Option<String>,
    /// `AWS_WEB_IDENTITY_TOKEN_FILE`
    pub(crate) web_identity_token_file: Option<PathBuf>,
    /// Whether `AWS_ACCESS_KEY_ID` is set.
    pub(crate) has_keys: bool,
    /// `AWS_CA_BUNDLE`
    pub(crate) ca_bundle: Option<PathBuf>,
}

/// What the tools and libraries of Azure read.
#[cfg(feature = "azure-kv")]
#[derive(Debug)]
pub(crate) struct Azure {
    /// `AZURE_AUTHORITY_HOST`: who gives out tokens, if not the one of the public cloud.
    pub(crate) authority: Option<String>,
    /// `AZURE_TENANT_ID`
    pub(crate) tenant: Option<String>,
    /// `AZURE_CLIENT_ID`
    pub(crate) client: Option<String>,
    /// `AZURE_CLIENT_SECRET`
    pub(crate) client_secret: Option<SecretString>,
    /// `AZURE_FEDERATED_TOKEN_FILE`: where a cluster writes the job's own token.
    pub(crate) token_file: Option<PathBuf>,
    /// `GITLAB_OIDC_TOKEN`: the job's own token, as GitLab's documentation names it for Azure.
    pub(crate) id_token: Option<SecretString>,
    /// `IDENTITY_ENDPOINT`: where a machine of Azure's offers its identity.
    pub(crate) identity_endpoint: Option<String>,
}

/// What the command line tools of Vault and OpenBao read. Each variable is looked for as
/// `BAO_…` first and as `VAULT_…` then, as OpenBao's own tool does.
#[cfg(feature = "vault")]
#[derive(Debug)]
pub(crate) struct Vault {
    /// `…_ADDR`: the server's address, or several with commas between them.
    pub(crate) addr: Option<String>,
    /// `…_NAMESPACE`
    pub(crate) namespace: Option<String>,
    /// `…_CACERT`: a file with the certificates to trust.
    pub(crate) cacert: Option<PathBuf>,
    /// `…_CAPATH`: a folder of such files.
    pub(crate) capath: Option<PathBuf>,
    /// `…_CLIENT_TIMEOUT`: how long a request may take.
    pub(crate) client_timeout: Option<String>,
    /// `…_TOKEN`
    pub(crate) token: Option<SecretString>,
    /// `…_ROLE_ID` and `…_SECRET_ID`: what an AppRole logs in with.
    pub(crate) role_id: Option<SecretString>,
    pub(crate) secret_id: Option<SecretString>,
    /// `…_ID_TOKEN`: the job's own token, as GitLab's documentation names it.
    pub(crate) id_token: Option<SecretString>,
}

/// What GitHub and GitLab tell of a job, of which the trust check and the writer's name
/// are made.
const JOB: &[&str] = &[
    "CI_JOB_URL",
    "CI_MERGE_REQUEST_SOURCE_PROJECT_ID",
    "CI_PROJECT_ID",
    "CI_PROJECT_VISIBILITY",
    "GITHUB_ACTIONS",
    "GITHUB_EVENT_PATH",
    "GITHUB_REPOSITORY",
    "GITHUB_RUN_ATTEMPT",
    "GITHUB_RUN_ID",
    "GITHUB_SERVER_URL",
];

impl Env {
    pub(crate) fn read() -> Self {
        // What is not UTF-8 names nothing that is there, but must not count as unset.
        let text = |name| given(name).map(|value| value.to_string_lossy().into_owned());
        let path = |name| given(name).map(PathBuf::from);
        Self {
            store: text("AUTHFERRY_STORE"),
            rescue_dir: path("AUTHFERRY_RESCUE_DIR"),
            rescue_store: text("AUTHFERRY_RESCUE_STORE"),
            rescue_recipients: text("AUTHFERRY_RESCUE_RECIPIENT").map_or_else(Vec::new, list),
            codex_home: path("CODEX_HOME"),
            home: path("HOME"),
            state_home: path("XDG_STATE_HOME").filter(|path| path.is_absolute()),
            temp: path("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp")),
            programs: given("PATH"),
            job_timeout: text("CI_JOB_TIMEOUT")
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
            is_tracked: given("RUNNER_TRACKING_ID").is_some(),
            overrides: OVERRIDES
                .iter()
                .copied()
                .filter(|o| given(o.variable).is_some())
                .collect(),
            job: JOB
                .iter()
                .filter_map(|&name| Some((name, text(name)?)))
                .collect(),
            #[cfg(any(feature = "aws", feature = "azure-kv", feature = "vault"))]
            id_token_url: text("ACTIONS_ID_TOKEN_REQUEST_URL"),
            #[cfg(any(feature = "aws", feature = "azure-kv", feature = "vault"))]
            id_token_token: text("ACTIONS_ID_TOKEN_REQUEST_TOKEN").map(SecretString::from),
            #[cfg(feature = "aws")]
            aws: Aws::read(),
            #[cfg(feature = "aws")]
            proxy: ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
                .into_iter()
                .find_map(text)
                .map(SecretString::from),
            #[cfg(feature = "aws")]
            no_proxy: ["NO_PROXY", "no_proxy"].into_iter().find_map(text),
            #[cfg(feature = "azure-kv")]
            azure: Azure::read(),
            #[cfg(feature = "vault")]
            vault: Vault::read(),
        }
    }

    /// Who writes: the CI job's address, or the host's name.
    pub(crate) fn writer(&self) -> String {
        let github = || {
            let [server, repository, run] =
                ["GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID"]
                    .map(|name| self.job.get(name));
            let attempt = self
                .job
                .get("GITHUB_RUN_ATTEMPT")
                .map_or("1", String::as_str);
            Some(format!(
                "{}/{}/actions/runs/{}/attempts/{attempt}",
                server?, repository?, run?
            ))
        };
        let host = || {
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned()
        };
        self.job
            .get("CI_JOB_URL")
            .cloned()
            .or_else(github)
            .unwrap_or_else(host)
    }
}

#[cfg(feature = "aws")]
impl Aws {
    fn read() -> Self {
        let text = |name| given(name).map(|value| value.to_string_lossy().into_owned());
        let path = |name| given(name).map(PathBuf::from);
        Self {
            role_arn: text("AWS_ROLE_ARN"),
            session_name: text("AWS_ROLE_SESSION_NAME"),
            web_identity_token_file: path("AWS_WEB_IDENTITY_TOKEN_FILE"),
            has_keys: given("AWS_ACCESS_KEY_ID").is_some(),
            ca_bundle: path("AWS_CA_BUNDLE"),
        }
    }
}

#[cfg(feature = "azure-kv")]
impl Azure {
    fn read() -> Self {
        let text = |name| given(name).map(|value| value.to_string_lossy().into_owned());
        let secret = |name| text(name).map(SecretString::from);
        Self {
            authority: text("AZURE_AUTHORITY_HOST"),
            tenant: text("AZURE_TENANT_ID"),
            client: text("AZURE_CLIENT_ID"),
            client_secret: secret("AZURE_CLIENT_SECRET"),
            token_file: given("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from),
            id_token: secret("GITLAB_OIDC_TOKEN"),
            identity_endpoint: text("IDENTITY_ENDPOINT"),
        }
    }
}

#[cfg(feature = "vault")]
impl Vault {
    fn read() -> Self {
        let given =
            |name: &str| given(&format!("BAO_{name}")).or_else(|| given(&format!("VAULT_{name}")));
        let text = |name| given(name).map(|value| value.to_string_lossy().into_owned());
        let path = |name| given(name).map(PathBuf::from);
        let secret = |name| text(name).map(SecretString::from);
        Self {
            addr: text("ADDR"),
            namespace: text("NAMESPACE"),
            cacert: path("CACERT"),
            capath: path("CAPATH"),
            client_timeout: text("CLIENT_TIMEOUT"),
            token: secret("TOKEN"),
            role_id: secret("ROLE_ID"),
            secret_id: secret("SECRET_ID"),
            id_token: secret("ID_TOKEN"),
        }
    }
}

/// Returns the value of a variable in which a CI system names the job.
pub(crate) fn of_the_job(name: &str) -> Option<String> {
    given(name).map(|value| value.to_string_lossy().into_owned())
}

/// Returns the value of a variable that the user names; such a variable may hold a login.
pub(crate) fn named(name: &str) -> Option<OsString> {
    given(name)
}

/// The words of a list. A text without any is one word, which is good for nothing: a variable that
/// is set must not count as unset.
fn list(text: String) -> Vec<String> {
    let words = text.split(|c: char| c == ',' || c.is_whitespace());
    let words = words.filter(|word| !word.is_empty()).map(str::to_owned);
    let words: Vec<_> = words.collect();
    if words.is_empty() { vec![text] } else { words }
}

fn given(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
