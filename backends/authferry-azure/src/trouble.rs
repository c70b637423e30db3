//! Why a server did not do as asked, for people.

use authferry_core::ErrorKind;
use authferry_http::{NoJobToken, Silence};

/// The concrete reason below a [`StoreError`](authferry_core::StoreError).
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nothing was answered.
    #[error(transparent)]
    Silent(Silence),
    /// Somebody who gives out tokens did not answer.
    #[error("no token can be had: {0}")]
    SilentAuthority(Silence),
    /// The job has no token of its own.
    #[error(transparent)]
    NoJobToken(NoJobToken),
    /// A login was refused.
    #[error("the login was refused: {0}")]
    Login(Rejection),
    /// The tool is missing, or nobody is logged in to it.
    #[error("az gives no token: {0}")]
    Cli(String),
    /// A fresh token was refused.
    #[error("the server takes the token of this login for none")]
    BadToken,
    /// The server wants a token for somebody else.
    #[error("the server asks for a token that is not for its own domain")]
    Impostor,
    /// A good token without the right.
    #[error("this identity may not {0}")]
    Forbidden(&'static str),
    /// The network rules of the vault or the account.
    #[error("the firewall of the {0} does not let this machine in")]
    Firewalled(&'static str),
    /// A version that is shown to nobody.
    #[error("the version that counts is disabled")]
    Disabled,
    /// A name that is kept for a recovery.
    #[error("the secret is deleted, and its name is kept until it is recovered or purged")]
    Deleted,
    /// A name that will be free, or filled, in a moment.
    #[error("the secret is just being deleted or recovered")]
    Settling,
    /// Two writes to one secret at a time.
    #[error("the vault was busy with another write to the secret")]
    Busy,
    /// A list or a version that should be there by now.
    #[error("the vault does not show yet what was written: it lags behind")]
    Behind,
    /// No container for the coordinator.
    #[error("there is no container for the coordinator's blob")]
    NoContainer,
    /// The blob is none of ours.
    #[error("the coordinator's blob holds something else than what is written there")]
    BadBlob,
    /// The new value is no text, and a secret can hold nothing else.
    #[error("the new value is not UTF-8 text, and a secret holds text alone")]
    NotUtf8,
    /// Too much for a secret.
    #[error("the new value has {len} bytes, more than {max}")]
    TooLong {
        /// How much there is.
        len: usize,
        /// How much there may be.
        max: usize,
    },
    /// Any other no.
    #[error("the server answers with status {status}{}", said(code, text))]
    Answer {
        /// The status of the answer.
        status: u16,
        /// The server's name for it.
        code: String,
        /// The server's words.
        text: String,
    },
    /// An answer that is none.
    #[error("the answer is none that Azure would give")]
    Unintelligible,
}

/// Why a login was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No federated credential is for such a job.
    #[error("no federated credential of the application is for this job: {0}")]
    Federation(String),
    /// The application's secret.
    #[error("the secret of the application is wrong or has ended")]
    Secret,
    /// The application.
    #[error("the tenant has no such application")]
    Application,
    /// The tenant.
    #[error("there is no such tenant")]
    Tenant,
    /// Any other.
    #[error("status {status}: {text}")]
    Other {
        /// The status of the answer.
        status: u16,
        /// The server's words.
        text: String,
    },
}

impl Trouble {
    /// Returns the sort of failure it is for callers.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Silent(silence) | Self::SilentAuthority(silence) => match silence {
                Silence::Unreached(_) | Silence::Late | Silence::Broken(_) => {
                    ErrorKind::Unavailable
                }
                Silence::Elsewhere(_) | Silence::Unmade(_) => ErrorKind::Unexpected,
                Silence::TooLong(_) => ErrorKind::Malformed,
            },
            Self::NoJobToken(error) if error.is_transient() => ErrorKind::Unavailable,
            Self::Login(Rejection::Other { status, .. }) if *status == 429 || *status >= 500 => {
                ErrorKind::Unavailable
            }
            Self::NoJobToken(_)
            | Self::Login(_)
            | Self::Cli(_)
            | Self::BadToken
            | Self::Impostor => ErrorKind::Unauthenticated,
            Self::Forbidden(_) | Self::Firewalled(_) | Self::Disabled => {
                ErrorKind::PermissionDenied
            }
            Self::Settling | Self::Busy | Self::Behind => ErrorKind::Unavailable,
            Self::Deleted | Self::NoContainer => ErrorKind::NotFound,
            Self::BadBlob | Self::NotUtf8 | Self::Unintelligible => ErrorKind::Malformed,
            Self::TooLong { .. } => ErrorKind::TooLarge,
            Self::Answer { status, .. } => match status {
                413 => ErrorKind::TooLarge,
                429 => ErrorKind::Throttled,
                408 | 500.. => ErrorKind::Unavailable,
                _ => ErrorKind::Unexpected,
            },
        }
    }
}

fn said(code: &str, text: &str) -> String {
    match (code.is_empty(), text.is_empty()) {
        (true, true) => String::new(),
        (false, true) => format!(": {code}"),
        (true, false) => format!(": {text}"),
        (false, false) => format!(": {code}: {text}"),
    }
}
