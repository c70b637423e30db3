//! What is to be known of the environment.

use std::{fmt, path::PathBuf};

use authferry_http::JobToken;
use secrecy::SecretString;

/// What the environment says of the way to AWS, as far as the SDK does not read it itself.
#[derive(Clone, Default)]
pub struct Settings {
    /// `AWS_ROLE_ARN`: the role that the job is to take. The address goes first.
    pub role: Option<String>,
    /// The job's own token, with which it takes a role.
    pub job_token: Option<JobToken>,
    /// Whether `AWS_ACCESS_KEY_ID` is set: somebody has taken a role already, and the SDK
    /// finds what came of it. Only a role in the address goes first.
    pub has_keys: bool,
    /// What the session is called in the account's records; made to fit.
    pub session: String,
    /// `AWS_CA_BUNDLE`: a file of PEM certificates to trust instead of the system's.
    pub ca_bundle: Option<PathBuf>,
    /// `HTTPS_PROXY` or `ALL_PROXY`. May hold a password.
    pub proxy: Option<SecretString>,
    /// `NO_PROXY`: hosts that are reached without it.
    pub no_proxy: Option<String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("role", &self.role)
            .field("job_token", &self.job_token)
            .field("has_keys", &self.has_keys)
            .field("session", &self.session)
            .field("ca_bundle", &self.ca_bundle)
            .field("proxy", &self.proxy.is_some())
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}
