//! The causes of failed requests, as error messages.

use authferry_core::ErrorKind;
use authferry_http::{HttpError, JobTokenError};

/// The concrete cause below a [`StoreError`](authferry_core::StoreError).
#[derive(Debug, thiserror::Error)]
pub enum AzureError {
    /// No complete response.
    #[error(transparent)]
    Silent(HttpError),
    /// No complete response of the token authority.
    #[error("cannot get a token: {0}")]
    SilentAuthority(HttpError),
    /// The job's OIDC token is not available.
    #[error(transparent)]
    NoJobToken(JobTokenError),
    /// The token authority refused the credentials.
    #[error("authentication was refused: {0}")]
    AuthRefused(Rejection),
    /// The Azure CLI is missing or not logged in.
    #[error("az returns no token: {0}")]
    Cli(String),
    /// The server rejected a new token.
    #[error("the server does not accept the token of this identity")]
    BadToken,
    /// The server's challenge names another resource.
    #[error("the server requests a token for a domain that is not its domain")]
    Impostor,
    /// A valid token without the right.
    #[error("the identity has no right to {0}")]
    Forbidden(&'static str),
    /// The network rules of the vault or the account.
    #[error("the firewall of the {0} blocks this machine")]
    Firewalled(&'static str),
    /// The current version is disabled.
    #[error("the current version of the secret is disabled")]
    Disabled,
    /// The secret is soft-deleted.
    #[error("the secret is deleted, and its name is reserved until it is recovered or purged")]
    Deleted,
    /// A deletion or recovery in progress.
    #[error("the secret is being deleted or recovered")]
    InTransition,
    /// Two concurrent writes to one secret.
    #[error("the vault was busy with another write to the secret")]
    Busy,
    /// A stale read: a list lacks a written version, or the vault does not return that version yet.
    #[error("the vault's reads are stale: they do not show a completed write yet")]
    StaleRead,
    /// No container for the coordinator.
    #[error("the container of the coordinator's blob does not exist")]
    NoContainer,
    /// Not a coordinator's blob.
    #[error("the coordinator's blob has content that authferry did not write")]
    BadBlob,
    /// The new value is not UTF-8, and a secret holds only text.
    #[error("the new value is not UTF-8 text, and a secret of Key Vault holds only text")]
    NotUtf8,
    /// The new value is too long.
    #[error("the new value has {len} bytes, more than the limit of {max}")]
    TooLong {
        /// The length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// Any other error response.
    #[error("the server answers with status {status}{}", join_texts(code, text))]
    ErrorResponse {
        /// The HTTP status.
        status: u16,
        /// The server's error code.
        code: String,
        /// The server's error text.
        text: String,
    },
    /// A response that cannot be parsed.
    #[error("the response is not one of Azure")]
    Unintelligible,
}

/// Why the token authority refused the credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No federated credential matches the job.
    #[error("no federated credential of the application matches this job: {0}")]
    Federation(String),
    /// The application's secret.
    #[error("the client secret of the application is wrong or expired")]
    Secret,
    /// The application.
    #[error("the application does not exist in the tenant")]
    Application,
    /// The tenant.
    #[error("the tenant does not exist")]
    Tenant,
    /// Any other.
    #[error("status {status}: {text}")]
    Other {
        /// The HTTP status.
        status: u16,
        /// The server's error text.
        text: String,
    },
}

impl AzureError {
    /// Returns the kind of this error for callers.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Silent(silence) | Self::SilentAuthority(silence) => match silence {
                HttpError::ConnectFailed(_) | HttpError::Timeout | HttpError::ConnectionLost(_) => {
                    ErrorKind::Unavailable
                }
                HttpError::ForeignRedirect(_) | HttpError::InvalidRequest(_) => {
                    ErrorKind::Unexpected
                }
                HttpError::TooLong(_) => ErrorKind::Malformed,
            },
            Self::NoJobToken(error) if error.is_transient() => ErrorKind::Unavailable,
            Self::AuthRefused(Rejection::Other { status, .. })
                if *status == 429 || *status >= 500 =>
            {
                ErrorKind::Unavailable
            }
            Self::NoJobToken(_)
            | Self::AuthRefused(_)
            | Self::Cli(_)
            | Self::BadToken
            | Self::Impostor => ErrorKind::Unauthenticated,
            Self::Forbidden(_) | Self::Firewalled(_) | Self::Disabled => {
                ErrorKind::PermissionDenied
            }
            Self::InTransition | Self::Busy | Self::StaleRead => ErrorKind::Unavailable,
            Self::Deleted | Self::NoContainer => ErrorKind::NotFound,
            Self::BadBlob | Self::NotUtf8 | Self::Unintelligible => ErrorKind::Malformed,
            Self::TooLong { .. } => ErrorKind::TooLarge,
            Self::ErrorResponse { status, .. } => match status {
                413 => ErrorKind::TooLarge,
                429 => ErrorKind::Throttled,
                408 | 500.. => ErrorKind::Unavailable,
                _ => ErrorKind::Unexpected,
            },
        }
    }
}

fn join_texts(code: &str, text: &str) -> String {
    match (code.is_empty(), text.is_empty()) {
        (true, true) => String::new(),
        (false, true) => format!(": {code}"),
        (true, false) => format!(": {text}"),
        (false, false) => format!(": {code}: {text}"),
    }
}
