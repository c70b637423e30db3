//! Settings from the environment.

use std::{fmt, path::PathBuf};

use authferry_http::JobToken;
use secrecy::SecretString;

/// The settings from the environment that the SDK does not read itself.
#[derive(Clone, Default)]
pub struct Settings {
    /// `AWS_ROLE_ARN`: the role that the job assumes. A role in the address takes precedence.
    pub role: Option<String>,
    /// The source of the OIDC token with which the job assumes a role.
    pub job_token: Option<JobToken>,
    /// Whether `AWS_ACCESS_KEY_ID` is set: an earlier step has assumed a role, and the SDK finds
    /// its credentials. A role in the address takes precedence over them; `AWS_ROLE_ARN` does not.
    pub has_keys: bool,
    /// The role session's name in `CloudTrail`; sanitized before use.
    pub session: String,
    /// `AWS_CA_BUNDLE`: a file of PEM certificates to trust instead of the system's.
    pub ca_bundle: Option<PathBuf>,
    /// `HTTPS_PROXY` or `ALL_PROXY`. It may contain a password.
    pub proxy: Option<SecretString>,
    /// `NO_PROXY`: hosts to reach without the proxy.
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
