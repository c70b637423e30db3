//! Why a server did not do as asked, for people.

use authferry_core::ErrorKind;
use authferry_http::{NoJobToken, Silence};

use crate::wire::is_not_ready;

/// The concrete reason below a [`StoreError`](authferry_core::StoreError).
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nothing was answered.
    #[error(transparent)]
    Silent(Silence),
    /// The servers keep nothing to themselves at present.
    #[error("the server is sealed")]
    Sealed,
    /// A good token without the right.
    #[error("the token's policies do not allow this at {0}")]
    Forbidden(String),
    /// A token that the server does not know.
    #[error("the token is wrong, has ended or is used up")]
    BadToken,
    /// No token to begin with.
    #[error("there is no token")]
    NoToken,
    /// Something else in the place of a token.
    #[error("what is given as a token is none")]
    NotAToken,
    /// The file with the token cannot be read.
    #[error("cannot read the token in {path}")]
    UnreadableToken {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// An AppRole without one of its halves.
    #[error("there is no {0} to log in with")]
    NoCredential(&'static str),
    /// The job has no token of its own.
    #[error(transparent)]
    NoJobToken(NoJobToken),
    /// A login was refused.
    #[error("the login at auth/{mount} was refused: {why}")]
    Login {
        /// The path of the auth method.
        mount: String,
        /// Why.
        why: Rejection,
    },
    /// Nothing is mounted there.
    #[error("nothing is mounted at {0}")]
    NoMount(String),
    /// A store without versions.
    #[error("{0} is a key-value store of version 1, which cannot compare before it writes")]
    OldMount(String),
    /// Another sort of engine.
    #[error("{0} is no key-value store")]
    AnotherEngine(String),
    /// The server knows no such namespace.
    #[error("the server has no such namespace")]
    NoNamespace,
    /// The secret's field is no text.
    #[error("the field {0} holds something else than text")]
    NotText(String),
    /// The new value is no text, and a field can hold nothing else.
    #[error("the new value is not UTF-8 text, and a field holds text alone")]
    NotUtf8,
    /// Too much for a field.
    #[error("the new value has {len} bytes, more than {max}")]
    TooLong {
        /// How much there is.
        len: usize,
        /// How much there may be.
        max: usize,
    },
    /// Any other no.
    #[error("the server answers with status {status}{}", said(texts))]
    Answer {
        /// The status of the answer.
        status: u16,
        /// The server's words.
        texts: Vec<String>,
    },
    /// A state that is over.
    #[error("the server shows an older version than was there before: it lags behind")]
    Behind,
    /// An answer that is none.
    #[error("the answer is none that Vault or OpenBao would give")]
    Unintelligible,
}

/// Why a login was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No auth method at this path, or one that is not set up.
    #[error("there is no such auth method, or it is not configured")]
    NoMethod,
    /// The role's `bound_audiences`.
    #[error("the role allows another audience than the job's token has")]
    Audience,
    /// The role's `bound_claims` or `bound_subject`.
    #[error("the role is not for this job: {0}")]
    Claim(String),
    /// The token's times.
    #[error("the job's token has ended, or is not valid yet: {0}")]
    Time(String),
    /// The method's `bound_issuer`.
    #[error("the auth method trusts another issuer than that of the job's token")]
    Issuer,
    /// The token's signature.
    #[error("the auth method knows no key that has signed the job's token")]
    Signature,
    /// No role, and no default.
    #[error("no role is named, and the auth method has no default")]
    NoRole,
    /// A role that does not exist.
    #[error("the auth method has no such role")]
    UnknownRole,
    /// An AppRole's credentials.
    #[error("the role ID or the secret ID is wrong, has ended or is used up")]
    Credentials,
    /// Any other.
    #[error("status {status}{}", said(texts))]
    Other {
        /// The status of the answer.
        status: u16,
        /// The server's words.
        texts: Vec<String>,
    },
}

impl Trouble {
    /// Returns the sort of failure it is for callers.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Silent(silence) => match silence {
                // Who is pointed to may be a leader that died, until there is another one.
                Silence::Unreached(_)
                | Silence::Elsewhere(_)
                | Silence::Late
                | Silence::Broken(_) => ErrorKind::Unavailable,
                Silence::Unmade(_) => ErrorKind::Unexpected,
                Silence::TooLong(_) => ErrorKind::Malformed,
            },
            Self::Sealed | Self::Behind => ErrorKind::Unavailable,
            Self::NoJobToken(error) if error.is_transient() => ErrorKind::Unavailable,
            Self::Forbidden(_) => ErrorKind::PermissionDenied,
            Self::BadToken
            | Self::NoToken
            | Self::NotAToken
            | Self::UnreadableToken { .. }
            | Self::NoCredential(_)
            | Self::Login { .. }
            | Self::NoJobToken(_) => ErrorKind::Unauthenticated,
            Self::NoMount(_) | Self::OldMount(_) | Self::AnotherEngine(_) | Self::NoNamespace => {
                ErrorKind::NotFound
            }
            Self::NotText(_) | Self::NotUtf8 | Self::Unintelligible => ErrorKind::Malformed,
            Self::TooLong { .. } => ErrorKind::TooLarge,
            Self::Answer { status, texts } => match status {
                400 if texts.iter().any(|text| is_not_ready(text)) => ErrorKind::Unavailable,
                413 => ErrorKind::TooLarge,
                429 => ErrorKind::Throttled,
                500.. if texts.iter().any(|text| is_too_large(text)) => ErrorKind::TooLarge,
                // The codes of a standby that is behind are among them.
                412 | 472 | 473 | 500.. => ErrorKind::Unavailable,
                _ => ErrorKind::Unexpected,
            },
        }
    }
}

/// Returns whether a server refuses something for its length, which it tells as a fault of
/// its own.
pub(crate) fn is_too_large(text: &str) -> bool {
    text.contains("exceeds allowed length") || text.contains("value being too large")
}

fn said(texts: &[String]) -> String {
    if texts.is_empty() {
        String::new()
    } else {
        format!(": {}", texts.join("; "))
    }
}
