//! What came of a call that did not succeed, without anything secret.
//!
//! The SDK's own errors are not passed on: shown in full they hold the whole reply, and a
//! reply can be the login.

use std::error::Error;

use authferry_core::{BoxError, ErrorKind};
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::{
    orchestrator::HttpResponse,
    result::{ConnectorError, SdkError},
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use hyper_util::client::legacy;

use crate::login::NoLogin;

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {why}")]
pub(crate) struct Failure {
    /// The action, as a policy names it.
    pub(crate) action: &'static str,
    #[source]
    pub(crate) why: Why,
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Why {
    /// The service answered.
    #[error("was answered with {}", self.answer())]
    Said {
        status: u16,
        code: String,
        message: String,
    },
    /// Nothing left, for want of credentials.
    #[error("needs a login")]
    NoLogin {
        kind: ErrorKind,
        #[source]
        source: BoxError,
    },
    /// Nothing left.
    #[error("was not sent: {0}")]
    Unsent(String),
    /// The service was not reached.
    #[error("reached nobody: {0}")]
    Unreached(String),
    /// It left, and no answer came in time.
    #[error("was not answered in time")]
    Late,
    /// It left, and the connection broke.
    #[error("was not answered: {0}")]
    Broken(String),
    /// It was answered.
    #[error("got an answer that makes no sense (status {0})")]
    Unintelligible(u16),
}

impl Failure {
    pub(crate) fn new<E>(action: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let why = match error {
            SdkError::ServiceError(answer) => Why::Said {
                status: answer.raw().status().as_u16(),
                code: answer.err().code().unwrap_or_default().to_owned(),
                message: told(answer.err().code(), answer.err().message()),
            },
            SdkError::ResponseError(answer) => Why::Unintelligible(answer.raw().status().as_u16()),
            SdkError::TimeoutError(_) => Why::Late,
            SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => unsent(error),
            // The SDK may learn of more.
            _ => Why::Broken(deepest(error)),
        };
        Self { action, why }
    }

    /// Returns the service's name for what it said.
    pub(crate) fn code(&self) -> Option<&str> {
        match &self.why {
            Why::Said { code, .. } => Some(code),
            Why::NoLogin { .. }
            | Why::Unsent(_)
            | Why::Unreached(_)
            | Why::Late
            | Why::Broken(_)
            | Why::Unintelligible(_) => None,
        }
    }
}

impl Why {
    fn answer(&self) -> String {
        match self {
            Self::Said {
                status,
                code,
                message,
            } => {
                let code = if code.is_empty() {
                    format!("status {status}")
                } else {
                    code.clone()
                };
                if message.is_empty() {
                    code
                } else {
                    format!("{code}: {message}")
                }
            }
            Self::NoLogin { .. }
            | Self::Unsent(_)
            | Self::Unreached(_)
            | Self::Late
            | Self::Broken(_)
            | Self::Unintelligible(_) => String::new(),
        }
    }
}

/// What the service said, as far as it may be repeated: the first line, for a signature that
/// does not fit is answered with the whole request below it, and nothing of a value that does
/// not fit.
fn told(code: Option<&str>, message: Option<&str>) -> String {
    if code.is_some_and(|code| code.starts_with("Validation")) {
        return String::new();
    }
    let line = message.unwrap_or_default().lines().next();
    line.unwrap_or_default().chars().take(LONGEST).collect()
}

/// More than a sentence with an ARN or two takes.
const LONGEST: usize = 600;

fn unsent(error: &(dyn Error + 'static)) -> Why {
    if let Some(login) = find::<CredentialsError>(error) {
        return no_login(login);
    }
    if find::<legacy::Error>(error).is_some_and(legacy::Error::is_connect) {
        return Why::Unreached(deepest(error));
    }
    match find::<ConnectorError>(error) {
        Some(connector) if connector.is_timeout() => Why::Late,
        Some(connector) if connector.is_user() => Why::Unsent(deepest(error)),
        Some(_) => Why::Broken(deepest(error)),
        None => Why::Unsent(deepest(error)),
    }
}

fn no_login(error: &CredentialsError) -> Why {
    if let Some(ours) = find::<NoLogin>(error) {
        return Why::NoLogin {
            kind: ours.kind(),
            source: below(error),
        };
    }
    let out_of_reach = find::<ConnectorError>(error).is_some()
        || matches!(error, CredentialsError::ProviderTimedOut(_));
    Why::NoLogin {
        kind: if out_of_reach {
            ErrorKind::Unavailable
        } else {
            ErrorKind::Unauthenticated
        },
        source: below(error),
    }
}

/// Returns the texts from an error down, as one: the SDK's own error cannot be taken over.
fn below(error: &CredentialsError) -> BoxError {
    let mut text = String::new();
    let mut next: Option<&dyn Error> = match find::<NoLogin>(error) {
        Some(ours) => Some(ours),
        None => Some(error),
    };
    while let Some(error) = next {
        let said = error.to_string();
        if !text.ends_with(&said) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&said);
        }
        next = error.source();
    }
    text.chars().take(LONGEST).collect::<String>().into()
}

/// Returns the text at the bottom: those above it say that a request failed, and where.
fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(below) = deepest.source() {
        deepest = below;
    }
    deepest.to_string()
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
