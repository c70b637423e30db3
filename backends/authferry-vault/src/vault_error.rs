//! The causes of failed requests, as error messages.

use authferry_core::ErrorKind;
use authferry_http::{HttpError, JobTokenError};

use crate::wire::is_not_ready;

/// The concrete cause below a [`StoreError`](authferry_core::StoreError).
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// No complete response.
    #[error(transparent)]
    Silent(HttpError),
    /// The server is sealed.
    #[error("the server is sealed")]
    Sealed,
    /// A valid token without the right.
    #[error("the token's policies deny access to {0}")]
    Forbidden(String),
    /// A token that the server does not know.
    #[error("the Vault token is invalid, expired or used up")]
    BadToken,
    /// No token is set.
    #[error("no Vault token is set")]
    NoToken,
    /// Not a token.
    #[error("the Vault token contains characters other than printable ASCII")]
    NotAToken,
    /// The file with the token cannot be read.
    #[error("cannot read the Vault token from {path}")]
    UnreadableToken {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The authentication method needs a credential that is not set.
    #[error("cannot authenticate: no {0} is set")]
    NoCredential(&'static str),
    /// The job's OIDC token is not available.
    #[error(transparent)]
    NoJobToken(JobTokenError),
    /// The auth method refused the job's credentials.
    #[error("authentication at auth/{mount} was refused: {why}")]
    AuthRefused {
        /// The path of the auth method.
        mount: String,
        /// Why.
        why: Rejection,
    },
    /// No secrets engine at this path.
    #[error("no secrets engine is mounted at {0}")]
    NoMount(String),
    /// A KV engine without versions.
    #[error("{0} is a KV version 1 secrets engine, which has no compare-and-swap")]
    OldMount(String),
    /// Another kind of engine.
    #[error("{0} is not a KV secrets engine")]
    AnotherEngine(String),
    /// The namespace does not exist.
    #[error("the server has no such namespace")]
    NoNamespace,
    /// The secret's field is not a string.
    #[error("the field {0} is not a string")]
    NotText(String),
    /// The new value is not UTF-8, and a field holds only text.
    #[error("the new value is not UTF-8 text, and a Vault field holds only text")]
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
    #[error("the server answers with status {status}{}", join_texts(texts))]
    ErrorResponse {
        /// The HTTP status.
        status: u16,
        /// The server's error texts.
        texts: Vec<String>,
    },
    /// A stale read.
    #[error("the server's reads are stale: it returns an older version than this process has seen")]
    StaleRead,
    /// A response that cannot be parsed.
    #[error("the response is not one of Vault or OpenBao")]
    Unintelligible,
}

/// Why the auth method refused the job's credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No auth method at this path, or one that is not configured.
    #[error("the auth method does not exist or is not configured")]
    NoMethod,
    /// The role's `bound_audiences`.
    #[error("the role does not allow the audience of the job's token")]
    Audience,
    /// The role's `bound_claims` or `bound_subject`.
    #[error("the role does not allow this job's token: {0}")]
    Claim(String),
    /// The token's validity period.
    #[error("the job's token has expired or is not valid yet: {0}")]
    Time(String),
    /// The method's `bound_issuer`.
    #[error("the auth method does not trust the issuer of the job's token")]
    Issuer,
    /// The token's signature.
    #[error("the auth method has no key that verifies the signature of the job's token")]
    Signature,
    /// No role, and no default role.
    #[error("no role is given, and the auth method has no default role")]
    NoRole,
    /// A role that does not exist.
    #[error("the auth method has no such role")]
    UnknownRole,
    /// An AppRole's credentials.
    #[error("the role ID or the secret ID is wrong, expired or used up")]
    Credentials,
    /// Any other.
    #[error("status {status}{}", join_texts(texts))]
    Other {
        /// The HTTP status.
        status: u16,
        /// The server's error texts.
        texts: Vec<String>,
    },
}

impl VaultError {
    /// Returns the kind of this error for callers.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Silent(silence) => match silence {
                // A standby may redirect to a leader that died, until the cluster elects another.
                HttpError::ConnectFailed(_)
                | HttpError::ForeignRedirect(_)
                | HttpError::Timeout
                | HttpError::ConnectionLost(_) => ErrorKind::Unavailable,
                HttpError::InvalidRequest(_) => ErrorKind::Unexpected,
                HttpError::TooLong(_) => ErrorKind::Malformed,
            },
            Self::Sealed | Self::StaleRead => ErrorKind::Unavailable,
            Self::NoJobToken(error) if error.is_transient() => ErrorKind::Unavailable,
            Self::Forbidden(_) => ErrorKind::PermissionDenied,
            Self::BadToken
            | Self::NoToken
            | Self::NotAToken
            | Self::UnreadableToken { .. }
            | Self::NoCredential(_)
            | Self::AuthRefused { .. }
            | Self::NoJobToken(_) => ErrorKind::Unauthenticated,
            Self::NoMount(_) | Self::OldMount(_) | Self::AnotherEngine(_) | Self::NoNamespace => {
                ErrorKind::NotFound
            }
            Self::NotText(_) | Self::NotUtf8 | Self::Unintelligible => ErrorKind::Malformed,
            Self::TooLong { .. } => ErrorKind::TooLarge,
            Self::ErrorResponse { status, texts } => match status {
                400 if texts.iter().any(|text| is_not_ready(text)) => ErrorKind::Unavailable,
                413 => ErrorKind::TooLarge,
                429 => ErrorKind::Throttled,
                500.. if texts.iter().any(|text| is_too_large(text)) => ErrorKind::TooLarge,
                // These statuses include the codes of a lagging standby.
                412 | 472 | 473 | 500.. => ErrorKind::Unavailable,
                _ => ErrorKind::Unexpected,
            },
        }
    }
}

/// Returns whether the server rejects a value for its length: its status is that of a server error.
pub(crate) fn is_too_large(text: &str) -> bool {
    text.contains("exceeds allowed length") || text.contains("value being too large")
}

fn join_texts(texts: &[String]) -> String {
    if texts.is_empty() {
        String::new()
    } else {
        format!(": {}", texts.join("; "))
    }
}
