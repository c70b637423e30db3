//! What came of a call that did not succeed, without anything secret.
//!
//! The SDK's own errors are not passed on: shown in full they hold the whole reply, and a
//! reply can be the login.

use std::error::Error;

use authferry_core::ErrorKind;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::{
    orchestrator::HttpResponse,
    result::{ConnectorError, SdkError},
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use http_body_util::LengthLimitError;
use hyper_util::client::legacy;

use crate::{classify, login::NoLogin, net::Plain};

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{action} {why}")]
pub struct Failure {
    /// The action, as a policy names it.
    pub(crate) action: &'static str,
    pub(crate) why: Why,
}

/// What stands in the way, where there is something that people can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Neither the address nor the environment names a region.
    NoRegion,
    /// A role is to be taken, and nobody knows where the job has a token for that.
    NoToken,
    /// GitHub gives the job no token.
    NotPermitted,
    /// The variable with the job's token is not set.
    Unset(String),
    /// What is there as the job's token is none.
    NotAToken,
    /// The file with the job's token cannot be read.
    Unreadable,
    /// There is no such role, or it is not for this job.
    Trust,
    /// The account's identity provider takes tokens for somebody else.
    Audience,
    /// The account has no identity provider for this issuer.
    Provider,
    /// The job's token has ended.
    Ended,
    /// The SDK finds no credentials.
    NoCredentials,
    /// The credentials that it finds are no good.
    BadCredentials,
    /// The server's certificate is from nobody who is trusted.
    Untrusted,
    /// `AWS_ENDPOINT_URL` or its like names a server without TLS.
    Plain,
    /// No policy allows this action.
    Denied(&'static str),
    /// The secret's key cannot be used.
    Key,
    /// The secret waits to be deleted.
    Marked,
    /// The secret is a copy of one in another region.
    Replica,
    /// There are as many versions, or labels, as there may be.
    Full,
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
    #[error("was not sent: {text}")]
    NoLogin {
        kind: ErrorKind,
        obstacle: Option<Obstacle>,
        text: String,
    },
    /// Nothing left.
    #[error("was not sent: {0}")]
    Unsent(String),
    /// Nothing left, for it would have been open to all.
    #[error("was not sent: {0}")]
    Kept(String),
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
    /// It was answered, and the answer was not read to its end.
    #[error(
        "got an answer of more than {} bytes, which was not read",
        crate::net::MAX_ANSWER
    )]
    TooLong,
}

impl Failure {
    pub(crate) fn new<E>(action: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let why = match error {
            _ if find::<LengthLimitError>(error).is_some() => Why::TooLong,
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

    /// Returns what stands in the way, if people can do something about it.
    #[must_use]
    pub fn obstacle(&self) -> Option<Obstacle> {
        match &self.why {
            Why::NoLogin { obstacle, .. } => obstacle.clone(),
            Why::Unreached(why) if why.contains("invalid peer certificate") => {
                Some(Obstacle::Untrusted)
            }
            Why::Kept(_) => Some(Obstacle::Plain),
            Why::Said { .. } => classify::obstacle(self),
            Why::Unsent(_)
            | Why::Unreached(_)
            | Why::Late
            | Why::Broken(_)
            | Why::TooLong
            | Why::Unintelligible(_) => None,
        }
    }

    /// Returns the service's name for what it said.
    pub(crate) fn code(&self) -> Option<&str> {
        match &self.why {
            Why::Said { code, .. } => Some(code),
            Why::NoLogin { .. }
            | Why::Unsent(_)
            | Why::Kept(_)
            | Why::Unreached(_)
            | Why::Late
            | Why::Broken(_)
            | Why::TooLong
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
            | Self::Kept(_)
            | Self::Unreached(_)
            | Self::Late
            | Self::Broken(_)
            | Self::TooLong
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
    if let Some(plain) = find::<Plain>(error) {
        return Why::Kept(plain.to_string());
    }
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
            obstacle: ours.obstacle(),
            text: chain(ours),
        };
    }
    let out_of_reach = find::<ConnectorError>(error).is_some()
        || matches!(error, CredentialsError::ProviderTimedOut(_));
    let (kind, obstacle) = if out_of_reach {
        (ErrorKind::Unavailable, None)
    } else {
        (ErrorKind::Unauthenticated, Some(Obstacle::NoCredentials))
    };
    Why::NoLogin {
        kind,
        obstacle,
        text: chain(error),
    }
}

/// Returns the texts from an error down, as one: the SDK's own error cannot be taken over.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
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
    // The SDK tells of each place where it has looked, on a line of its own.
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let text = lines
        .join("; ")
        .replace(". Attempted:;", ":")
        .replace("the credential provider was not enabled: ", "");
    text.chars().take(LONGEST).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_of_an_answer_holds_nothing_secret() {
        let signature = "The request signature we calculated does not match the signature you \
            provided.\n\nThe Canonical String for this request should have been\n'POST\n/\n\n\
            x-amz-security-token:made-up-token'";
        let said = told(Some("InvalidSignatureException"), Some(signature));
        assert!(
            said.starts_with("The request signature") && !said.contains("made-up"),
            "{said}"
        );

        let value = "1 validation error detected: Value 'made-up-login' at 'secretString' failed";
        for code in ["ValidationException", "ValidationError"] {
            assert_eq!(told(Some(code), Some(value)), "");
        }
        assert_eq!(told(None, Some(&"x".repeat(10_000))).len(), LONGEST);
        assert_eq!(told(None, None), "");
    }

    #[test]
    fn a_failure_reads_as_a_sentence() {
        let said = |status, code: &str, message: &str| Why::Said {
            status,
            code: code.to_owned(),
            message: message.to_owned(),
        };
        for (why, reads) in [
            (
                said(400, "AccessDeniedException", "No."),
                "was answered with AccessDeniedException: No.",
            ),
            (
                said(400, "ThrottlingException", ""),
                "was answered with ThrottlingException",
            ),
            (said(503, "", ""), "was answered with status 503"),
            (Why::Late, "was not answered in time"),
            (Why::Broken("reset".to_owned()), "was not answered: reset"),
            (
                Why::Unreached("refused".to_owned()),
                "reached nobody: refused",
            ),
            (
                Why::Unintelligible(200),
                "got an answer that makes no sense (status 200)",
            ),
        ] {
            let failure = Failure {
                action: "secretsmanager:GetSecretValue",
                why,
            };
            assert_eq!(
                failure.to_string(),
                format!("secretsmanager:GetSecretValue {reads}")
            );
        }
    }
}
