//! The environment variables that authferry reads. No other module reads any.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::Duration};

use authferry_codex::{Override, override_of};
#[cfg(any(feature = "aws", feature = "azure-kv", feature = "vault"))]
use secrecy::SecretString;

/// The environment variables of every command.
#[derive(Debug)]
pub(crate) struct Env {
    /// `AUTHFERRY_STORE`: the store's address.
    pub(crate) store: Option<String>,
    /// `AUTHFERRY_RESCUE_DIR`: the rescue folder.
    pub(crate) rescue_dir: Option<PathBuf>,
    /// `AUTHFERRY_RESCUE_STORE`: the address of the second store.
    pub(crate) rescue_store: Option<String>,
    /// `AUTHFERRY_RESCUE_RECIPIENT`: age recipients, separated by commas or spaces.
    pub(crate) rescue_recipients: Vec<String>,
    /// `CODEX_HOME`, as Codex reads it.
    pub(crate) codex_home: Option<PathBuf>,
    /// `HOME`: holds the default Codex home and the default state folder.
    pub(crate) home: Option<PathBuf>,
    /// `XDG_STATE_HOME`: holds the default store and the rescue folder.
    pub(crate) state_home: Option<PathBuf>,
    /// `TMPDIR`, or `/tmp`.
    pub(crate) temp: PathBuf,
    /// `PATH`: finds the Codex that rotates, and the programs that Codex starts.
    pub(crate) programs: Option<OsString>,
    /// `CI_JOB_TIMEOUT`: the job's timeout in seconds.
    pub(crate) job_timeout: Option<Duration>,
    /// Whether `RUNNER_TRACKING_ID` is set: when the job ends, GitHub's runner kills each process
    /// that has it.
    pub(crate) is_tracked: bool,
    /// The variables that are set and make Codex ignore the auth file.
    pub(crate) overrides: Vec<Override>,
    /// The variables in which CI systems describe the job.
    pub(crate) job: BTreeMap<&'static str, String>,
    /// `ACTIONS_ID_TOKEN_REQUEST_URL`: where the job requests its OIDC token from GitHub.
    #[cfg(any(feature = "aws", feature = "azure-kv", feature = "vault"))]
    pub(crate) id_token_url: Option<String>,
    /// `ACTIONS_ID_TOKEN_REQUEST_TOKEN`: the bearer token of that request.
    #[cfg(any(feature = "aws", feature = "azure-kv", feature = "vault"))]
    pub(crate) id_token_token: Option<SecretString>,
    /// The variables that the AWS CLI reads, and the SDK for Rust does not, or too late.
    #[cfg(feature = "aws")]
    pub(crate) aws: AwsEnv,
    /// `HTTPS_PROXY` or `ALL_PROXY`, in upper or lower case. May hold a password.
    #[cfg(feature = "aws")]
    pub(crate) proxy: Option<SecretString>,
    /// `NO_PROXY`, in upper or lower case.
    #[cfg(feature = "aws")]
    pub(crate) no_proxy: Option<String>,
    /// The variables that Azure's tools and libraries read.
    #[cfg(feature = "azure-kv")]
    pub(crate) azure: Azure,
    /// The variables that the CLIs of Vault and OpenBao read.
    #[cfg(feature = "vault")]
    pub(crate) vault: VaultEnv,
}

/// The files that GitHub's runner reads.
#[derive(Debug)]
pub(crate) struct GitHub {
    /// `GITHUB_OUTPUT`: the file for the step's outputs.
    pub(crate) output: Option<PathBuf>,
    /// `GITHUB_STEP_SUMMARY`: the file for the job summary.
    pub(crate) summary: Option<PathBuf>,
}

impl GitHub {
    pub(crate) fn read() -> Self {
        Self {
            output: non_empty("GITHUB_OUTPUT").map(PathBuf::from),
            summary: non_empty("GITHUB_STEP_SUMMARY").map(PathBuf::from),
        }
    }
}

/// The variables that the AWS CLI reads. The SDK reads the region, the profile, the endpoint and
/// all other sources of credentials.
#[cfg(feature = "aws")]
#[derive(Debug)]
pub(crate) struct AwsEnv {
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

/// The variables that Azure's tools and libraries read.
#[cfg(feature = "azure-kv")]
#[derive(Debug)]
pub(crate) struct Azure {
    /// `AZURE_AUTHORITY_HOST`: the token authority, if not that of the public cloud.
    pub(crate) authority: Option<String>,
    /// `AZURE_TENANT_ID`
    pub(crate) tenant: Option<String>,
    /// `AZURE_CLIENT_ID`
    pub(crate) client: Option<String>,
    /// `AZURE_CLIENT_SECRET`
    pub(crate) client_secret: Option<SecretString>,
    /// `AZURE_FEDERATED_TOKEN_FILE`: where a cluster writes the job's OIDC token.
    pub(crate) token_file: Option<PathBuf>,
    /// `GITLAB_OIDC_TOKEN`: the job's OIDC token, as named in GitLab's documentation for Azure.
    pub(crate) id_token: Option<SecretString>,
    /// `IDENTITY_ENDPOINT`: the endpoint of an Azure machine's managed identity.
    pub(crate) identity_endpoint: Option<String>,
}

/// The variables that the CLIs of Vault and OpenBao read. `BAO_…` has precedence over `VAULT_…`, as
/// in OpenBao's CLI.
#[cfg(feature = "vault")]
#[derive(Debug)]
pub(crate) struct VaultEnv {
    /// `…_ADDR`: the server's address, or several separated by commas.
    pub(crate) addr: Option<String>,
    /// `…_NAMESPACE`
    pub(crate) namespace: Option<String>,
    /// `…_CACERT`: a file with the certificates to trust.
    pub(crate) cacert: Option<PathBuf>,
    /// `…_CAPATH`: a folder of such files.
    pub(crate) capath: Option<PathBuf>,
    /// `…_CLIENT_TIMEOUT`: the timeout of a request.
    pub(crate) client_timeout: Option<String>,
    /// `…_TOKEN`
    pub(crate) token: Option<SecretString>,
    /// `…_ROLE_ID` and `…_SECRET_ID`: the credentials of an AppRole.
    pub(crate) role_id: Option<SecretString>,
    pub(crate) secret_id: Option<SecretString>,
    /// `…_ID_TOKEN`: the job's OIDC token, as named in GitLab's documentation.
    pub(crate) id_token: Option<SecretString>,
}

/// The variables in which GitHub and GitLab describe a job, for the trust check and the writer's
/// name.
const JOB_VARIABLES: &[&str] = &[
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
        // A value that is not UTF-8 matches nothing, but must not count as unset.
        let text = |name| non_empty(name).map(|value| value.to_string_lossy().into_owned());
        let path = |name| non_empty(name).map(PathBuf::from);
        Self {
            store: text("AUTHFERRY_STORE"),
            rescue_dir: path("AUTHFERRY_RESCUE_DIR"),
            rescue_store: text("AUTHFERRY_RESCUE_STORE"),
            rescue_recipients: text("AUTHFERRY_RESCUE_RECIPIENT").map_or_else(Vec::new, list),
            codex_home: path("CODEX_HOME"),
            home: path("HOME"),
            state_home: path("XDG_STATE_HOME").filter(|path| path.is_absolute()),
            temp: path("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp")),
            programs: non_empty("PATH"),
            job_timeout: text("CI_JOB_TIMEOUT")
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
            is_tracked: non_empty("RUNNER_TRACKING_ID").is_some(),
            overrides: overrides(),
            job: JOB_VARIABLES
                .iter()
                .filter_map(|&name| Some((name, text(name)?)))
                .collect(),
            #[cfg(any(feature = "aws", feature = "azure-kv", feature = "vault"))]
            id_token_url: text("ACTIONS_ID_TOKEN_REQUEST_URL"),
            #[cfg(any(feature = "aws", feature = "azure-kv", feature = "vault"))]
            id_token_token: text("ACTIONS_ID_TOKEN_REQUEST_TOKEN").map(SecretString::from),
            #[cfg(feature = "aws")]
            aws: AwsEnv::read(),
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
            vault: VaultEnv::read(),
        }
    }

    /// The name of this writer: the CI job's URL, or the host name.
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
impl AwsEnv {
    fn read() -> Self {
        let text = |name| non_empty(name).map(|value| value.to_string_lossy().into_owned());
        let path = |name| non_empty(name).map(PathBuf::from);
        Self {
            role_arn: text("AWS_ROLE_ARN"),
            session_name: text("AWS_ROLE_SESSION_NAME"),
            web_identity_token_file: path("AWS_WEB_IDENTITY_TOKEN_FILE"),
            has_keys: non_empty("AWS_ACCESS_KEY_ID").is_some(),
            ca_bundle: path("AWS_CA_BUNDLE"),
        }
    }
}

#[cfg(feature = "azure-kv")]
impl Azure {
    fn read() -> Self {
        let text = |name| non_empty(name).map(|value| value.to_string_lossy().into_owned());
        let secret = |name| text(name).map(SecretString::from);
        Self {
            authority: text("AZURE_AUTHORITY_HOST"),
            tenant: text("AZURE_TENANT_ID"),
            client: text("AZURE_CLIENT_ID"),
            client_secret: secret("AZURE_CLIENT_SECRET"),
            token_file: non_empty("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from),
            id_token: secret("GITLAB_OIDC_TOKEN"),
            identity_endpoint: text("IDENTITY_ENDPOINT"),
        }
    }
}

#[cfg(feature = "vault")]
impl VaultEnv {
    fn read() -> Self {
        let variable = |name: &str| {
            non_empty(&format!("BAO_{name}")).or_else(|| non_empty(&format!("VAULT_{name}")))
        };
        let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
        let path = |name| variable(name).map(PathBuf::from);
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
pub(crate) fn job_variable(name: &str) -> Option<String> {
    non_empty(name).map(|value| value.to_string_lossy().into_owned())
}

/// Returns `AUTHFERRY_PING_URL`, the URL that `refresh` pings. Its path usually contains a secret.
#[cfg(feature = "ping")]
pub(crate) fn ping_url() -> Option<secrecy::SecretString> {
    non_empty(PING_URL).map(|value| value.to_string_lossy().into_owned().into())
}

/// The variable that no Codex and no command of a job gets.
pub(crate) const PING_URL: &str = "AUTHFERRY_PING_URL";

/// Returns the value of a variable that the user chose; it may hold a login.
pub(crate) fn user_variable(name: &str) -> Option<OsString> {
    non_empty(name)
}

/// Splits a list. A text with separators only becomes one invalid item: a variable that is set must
/// not count as unset.
fn list(text: String) -> Vec<String> {
    let items = text.split(|c: char| c == ',' || c.is_whitespace());
    let items = items.filter(|item| !item.is_empty()).map(str::to_owned);
    let items: Vec<_> = items.collect();
    if items.is_empty() { vec![text] } else { items }
}

/// Returns the variables that make Codex ignore the auth file, in the order of their names.
fn overrides() -> Vec<Override> {
    let has_effect = |(name, value): (OsString, OsString)| {
        let found = override_of(&name.to_string_lossy())?;
        (found.counts_if_empty || !value.is_empty()).then_some(found)
    };
    let mut overrides: Vec<_> = std::env::vars_os().filter_map(has_effect).collect();
    overrides.sort_by(|one, other| one.variable.cmp(&other.variable));
    overrides
}

fn non_empty(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
