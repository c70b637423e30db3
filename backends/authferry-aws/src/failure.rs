//! Failed API calls, without secrets.
//!
//! This module replaces the SDK's errors: printed in full, they contain the whole response, and
//! a response can contain the login.

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

use crate::{classify, login::RoleError, net::PlaintextError};

/// A failed API call.
#[derive(Debug, thiserror::Error)]
#[error("{action} {cause}")]
pub struct AwsError {
    /// The action's name in an IAM policy.
    pub(crate) action: &'static str,
    pub(crate) cause: ErrorSource,
}

/// A cause that a person can fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Neither the address nor the environment names a region.
    NoRegion,
    /// The job has a role to assume, but no source of an OIDC token.
    NoToken,
    /// GitHub does not permit the job to request a token.
    NotPermitted,
    /// The environment variable with the job's token is not set.
    Unset(String),
    /// The value is not a token.
    NotAToken,
    /// The file with the job's token cannot be read.
    Unreadable,
    /// The role does not exist, or its trust policy does not name this job.
    Trust,
    /// The account's identity provider requires another audience.
    Audience,
    /// The account has no identity provider for this issuer.
    Provider,
    /// The job's token has expired.
    TokenExpired,
    /// The SDK finds no credentials.
    NoCredentials,
    /// The credentials are invalid or expired.
    BadCredentials,
    /// No trusted authority signed the server's certificate.
    Untrusted,
    /// `AWS_ENDPOINT_URL`, or one of its variants, names a server without TLS.
    Plain,
    /// No policy allows this action.
    Denied(&'static str),
    /// The secret's key cannot be used.
    Key,
    /// The secret is scheduled for deletion.
    DeletionScheduled,
    /// The secret is a replica of one in another region.
    Replica,
    /// The secret has reached the quota of versions or labels.
    Full,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ErrorSource {
    /// The service returned an error.
    #[error("returned {}", self.describe_response())]
    ErrorResponse {
        status: u16,
        code: String,
        message: String,
    },
    /// Not sent: no credentials.
    #[error("was not sent: {text}")]
    NoCredentials {
        kind: ErrorKind,
        obstacle: Option<Obstacle>,
        text: String,
    },
    /// Not sent.
    #[error("was not sent: {0}")]
    NotSent(String),
    /// Not sent: the connection would not be encrypted.
    #[error("was not sent: {0}")]
    Plaintext(String),
    /// The service was not reached.
    #[error("could not connect: {0}")]
    Unreached(String),
    /// Sent, but no response arrived before the timeout.
    #[error("timed out without a response")]
    Timeout,
    /// Sent, and the connection broke.
    #[error("got no response: {0}")]
    Broken(String),
    /// A response that cannot be parsed.
    #[error("got an unintelligible response (status {0})")]
    Unintelligible(u16),
    /// A response that exceeds the length limit; it was not read to its end.
    #[error(
        "got a response of more than {} bytes, which was not read",
        crate::net::MAX_RESPONSE_BYTES
    )]
    TooLong,
}

impl AwsError {
    pub(crate) fn new<E>(action: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let cause = match error {
            _ if find::<LengthLimitError>(error).is_some() => ErrorSource::TooLong,
            SdkError::ServiceError(answer) => ErrorSource::ErrorResponse {
                status: answer.raw().status().as_u16(),
                code: answer.err().code().unwrap_or_default().to_owned(),
                message: sanitize(answer.err().code(), answer.err().message()),
            },
            SdkError::ResponseError(answer) => {
                ErrorSource::Unintelligible(answer.raw().status().as_u16())
            }
            SdkError::TimeoutError(_) => ErrorSource::Timeout,
            SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => {
                dispatch_failure(error)
            }
            // A later SDK may add variants.
            _ => ErrorSource::Broken(deepest(error)),
        };
        Self { action, cause }
    }

    /// Returns the obstacle if a person can fix it.
    #[must_use]
    pub fn obstacle(&self) -> Option<Obstacle> {
        match &self.cause {
            ErrorSource::NoCredentials { obstacle, .. } => obstacle.clone(),
            ErrorSource::Unreached(why) if why.contains("invalid peer certificate") => {
                Some(Obstacle::Untrusted)
            }
            ErrorSource::Plaintext(_) => Some(Obstacle::Plain),
            ErrorSource::ErrorResponse { .. } => classify::obstacle(self),
            ErrorSource::NotSent(_)
            | ErrorSource::Unreached(_)
            | ErrorSource::Timeout
            | ErrorSource::Broken(_)
            | ErrorSource::TooLong
            | ErrorSource::Unintelligible(_) => None,
        }
    }

    /// Returns the service's error code.
    pub(crate) fn code(&self) -> Option<&str> {
        match &self.cause {
            ErrorSource::ErrorResponse { code, .. } => Some(code),
            ErrorSource::NoCredentials { .. }
            | ErrorSource::NotSent(_)
            | ErrorSource::Plaintext(_)
            | ErrorSource::Unreached(_)
            | ErrorSource::Timeout
            | ErrorSource::Broken(_)
            | ErrorSource::TooLong
            | ErrorSource::Unintelligible(_) => None,
        }
    }
}

impl ErrorSource {
    fn describe_response(&self) -> String {
        match self {
            Self::ErrorResponse {
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
            Self::NoCredentials { .. }
            | Self::NotSent(_)
            | Self::Plaintext(_)
            | Self::Unreached(_)
            | Self::Timeout
            | Self::Broken(_)
            | Self::TooLong
            | Self::Unintelligible(_) => String::new(),
        }
    }
}

/// Sanitizes the service's message. Only the first line: for a wrong signature the service repeats
/// the whole request below it. Nothing for an invalid value: the service repeats the value.
fn sanitize(code: Option<&str>, message: Option<&str>) -> String {
    if code.is_some_and(|code| code.starts_with("Validation")) {
        return String::new();
    }
    let line = message.unwrap_or_default().lines().next();
    line.unwrap_or_default().chars().take(MAX_CHARS).collect()
}

/// More than a sentence with one or two ARNs needs.
const MAX_CHARS: usize = 600;

fn dispatch_failure(error: &(dyn Error + 'static)) -> ErrorSource {
    if let Some(plain) = find::<PlaintextError>(error) {
        return ErrorSource::Plaintext(plain.to_string());
    }
    if let Some(error) = find::<CredentialsError>(error) {
        return no_credentials(error);
    }
    if find::<legacy::Error>(error).is_some_and(legacy::Error::is_connect) {
        return ErrorSource::Unreached(deepest(error));
    }
    match find::<ConnectorError>(error) {
        Some(connector) if connector.is_timeout() => ErrorSource::Timeout,
        Some(connector) if connector.is_user() => ErrorSource::NotSent(deepest(error)),
        Some(_) => ErrorSource::Broken(deepest(error)),
        None => ErrorSource::NotSent(deepest(error)),
    }
}

fn no_credentials(error: &CredentialsError) -> ErrorSource {
    if let Some(ours) = find::<RoleError>(error) {
        return ErrorSource::NoCredentials {
            kind: ours.kind(),
            obstacle: ours.obstacle(),
            text: chain(ours),
        };
    }
    let is_unreachable = find::<ConnectorError>(error).is_some()
        || matches!(error, CredentialsError::ProviderTimedOut(_));
    let (kind, obstacle) = if is_unreachable {
        (ErrorKind::Unavailable, None)
    } else {
        (ErrorKind::Unauthenticated, Some(Obstacle::NoCredentials))
    };
    ErrorSource::NoCredentials {
        kind,
        obstacle,
        text: chain(error),
    }
}

/// Joins the messages of an error and its sources. The SDK's error itself cannot be stored.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = error.to_string();
        if !text.ends_with(&message) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&message);
        }
        next = error.source();
    }
    // The SDK lists each place where it looked for credentials, on a separate line.
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let text = lines
        .join("; ")
        .replace(". Attempted:;", ":")
        .replace("the credential provider was not enabled: ", "");
    text.chars().take(MAX_CHARS).collect()
}

/// Returns the message of the deepest source. Those above it only say that a request failed.
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
    fn a_sanitized_message_contains_no_secret() {
        let signature = "The request signature we calculated does not match the signature you \
            provided.\n\nThe Canonical String for this request should have been\n'POST\n/\n\n\
            x-amz-security-token:made-up-token'";
        let message = sanitize(Some("InvalidSignatureException"), Some(signature));
        assert!(
            message.starts_with("The request signature") && !message.contains("made-up"),
            "{message}"
        );

        let value = "1 validation error detected: Value 'made-up-login' at 'secretString' failed";
        for code in ["ValidationException", "ValidationError"] {
            assert_eq!(sanitize(Some(code), Some(value)), "");
        }
        assert_eq!(sanitize(None, Some(&"x".repeat(10_000))).len(), MAX_CHARS);
        assert_eq!(sanitize(None, None), "");
    }

    #[test]
    fn a_failure_reads_as_a_sentence() {
        let response = |status, code: &str, message: &str| ErrorSource::ErrorResponse {
            status,
            code: code.to_owned(),
            message: message.to_owned(),
        };
        for (cause, wanted) in [
            (
                response(400, "AccessDeniedException", "No."),
                "returned AccessDeniedException: No.",
            ),
            (
                response(400, "ThrottlingException", ""),
                "returned ThrottlingException",
            ),
            (response(503, "", ""), "returned status 503"),
            (ErrorSource::Timeout, "timed out without a response"),
            (
                ErrorSource::Broken("reset".to_owned()),
                "got no response: reset",
            ),
            (
                ErrorSource::Unreached("refused".to_owned()),
                "could not connect: refused",
            ),
            (
                ErrorSource::Unintelligible(200),
                "got an unintelligible response (status 200)",
            ),
        ] {
            let failure = AwsError {
                action: "secretsmanager:GetSecretValue",
                cause,
            };
            assert_eq!(
                failure.to_string(),
                format!("secretsmanager:GetSecretValue {wanted}")
            );
        }
    }
}
