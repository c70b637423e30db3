//! Assumes a role with the job's OIDC token.
//!
//! This needs only the job's platform and AWS: no action, no command line tool, no intermediate
//! file. The SDK requests a new session before one expires, so a job may outlast its first
//! session.

use authferry_core::ErrorKind;
use authferry_http::{JobToken, JobTokenError};
use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, error::CredentialsError, future},
};
use aws_sdk_sts::Client;
use secrecy::ExposeSecret;

use crate::{
    classify,
    failure::{AwsError, Obstacle},
};

/// The audience of the token, which the trust policy of the role must allow.
const AUDIENCE: &str = "sts.amazonaws.com";

/// Provides the credentials of a role.
#[derive(Debug)]
pub(crate) struct JobRole {
    pub(crate) sts: Client,
    pub(crate) role: String,
    pub(crate) session: String,
    pub(crate) token: JobToken,
}

/// Why a role could not be assumed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoleError {
    #[error("the job's OIDC token is not available")]
    Token(#[from] JobTokenError),
    #[error("cannot assume the role {role}{}", meaning.map(|m| format!(": {m}")).unwrap_or_default())]
    Role {
        role: String,
        meaning: Option<&'static str>,
        kind: ErrorKind,
        source: AwsError,
    },
    #[error("the response contains no credentials")]
    NoCredentials,
}

impl RoleError {
    /// Returns the obstacle if a person can fix it.
    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        match self {
            Self::Token(JobTokenError::NotPermitted) => Some(Obstacle::NotPermitted),
            Self::Token(JobTokenError::Unset(name)) => Some(Obstacle::Unset(name.clone())),
            Self::Token(JobTokenError::NotAToken(_)) => Some(Obstacle::NotAToken),
            Self::Token(JobTokenError::Unreadable { .. }) => Some(Obstacle::Unreadable),
            Self::Role { source, .. } => meaning(source)
                .map(|(obstacle, _)| obstacle)
                .or_else(|| source.obstacle()),
            Self::Token(_) | Self::NoCredentials => None,
        }
    }

    /// Returns the kind of this error for callers.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Token(error) if error.is_transient() => ErrorKind::Unavailable,
            Self::Role { kind, .. } => *kind,
            Self::Token(_) | Self::NoCredentials => ErrorKind::Unauthenticated,
        }
    }
}

impl JobRole {
    async fn assume(&self) -> Result<Credentials, RoleError> {
        let token = self.token.fetch(Some(AUDIENCE)).await?;
        let answer = self
            .sts
            .assume_role_with_web_identity()
            .role_arn(&self.role)
            .role_session_name(&self.session)
            .web_identity_token(token.expose_secret())
            .send()
            .await;
        let answer = answer.map_err(|error| self.refused(AwsError::new(ACTION, &error)))?;
        let session = answer.credentials.ok_or(RoleError::NoCredentials)?;
        let expiry = session
            .expiration
            .try_into()
            .map_err(|_| RoleError::NoCredentials)?;
        Ok(Credentials::new(
            session.access_key_id,
            session.secret_access_key,
            Some(session.session_token),
            Some(expiry),
            "the job's OIDC token",
        ))
    }

    fn refused(&self, failure: AwsError) -> RoleError {
        RoleError::Role {
            role: self.role.clone(),
            meaning: meaning(&failure).map(|(_, meaning)| meaning),
            kind: classify::role_error_kind(&failure),
            source: failure,
        }
    }
}

const ACTION: &str = "sts:AssumeRoleWithWebIdentity";

/// Explains an error code of STS, whose messages reveal little.
fn meaning(failure: &AwsError) -> Option<(Obstacle, &'static str)> {
    let message = failure.to_string();
    let meaning = match failure.code()? {
        "AccessDenied" | "AccessDeniedException" => (
            Obstacle::Trust,
            "the role does not exist, or its trust policy does not name this job",
        ),
        "ExpiredTokenException" | "ExpiredToken" => {
            (Obstacle::TokenExpired, "the job's token has expired")
        }
        "InvalidIdentityToken" if message.contains("audience") => (
            Obstacle::Audience,
            "the account's identity provider does not allow the token's audience",
        ),
        "InvalidIdentityToken" if message.contains("OpenIDConnect provider") => (
            Obstacle::Provider,
            "the account has no identity provider for the token's issuer",
        ),
        "InvalidIdentityToken" | "IDPRejectedClaim" => {
            (Obstacle::Provider, "AWS does not accept the job's token")
        }
        _ => return None,
    };
    Some(meaning)
}

impl ProvideCredentials for JobRole {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let credentials: provider::Result = self
                .assume()
                .await
                .map_err(CredentialsError::provider_error);
            credentials
        })
    }
}

/// Sanitizes a session's name: 2 to 64 characters. It keeps the end of the text, which
/// distinguishes the jobs.
pub(crate) fn session_name(text: &str) -> String {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    let text = text.strip_prefix("https://").unwrap_or(text);
    let text: String = text
        .chars()
        .map(|c| if is_valid(c) { c } else { '-' })
        .collect();
    let max_tail = MAX_SESSION_LEN - PREFIX.len();
    let tail = text
        .get(text.len().saturating_sub(max_tail)..)
        .unwrap_or_default();
    format!("{PREFIX}{}", tail.trim_start_matches('-'))
}

const PREFIX: &str = "authferry-";
const MAX_SESSION_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::ErrorSource;

    #[test]
    fn a_session_is_named_after_the_job() {
        for (writer, name) in [
            ("", "authferry-"),
            ("runner-1", "authferry-runner-1"),
            (
                "https://github.com/acme/app/actions/runs/123/attempts/1",
                "authferry-github.com-acme-app-actions-runs-123-attempts-1",
            ),
            (
                "https://gitlab.example.com/a-group/another-group/a-project/-/jobs/1234567890",
                "authferry-.com-a-group-another-group-a-project---jobs-1234567890",
            ),
            ("größe", "authferry-gr--e"),
        ] {
            assert_eq!(session_name(writer), name);
            assert!((2..=64).contains(&name.len()));
        }
    }

    #[test]
    fn every_error_of_sts_is_explained() {
        for (code, message, wanted, kind) in [
            (
                "AccessDenied",
                "Not authorized to perform sts:AssumeRoleWithWebIdentity",
                "trust policy does not name this job",
                ErrorKind::Unauthenticated,
            ),
            (
                "InvalidIdentityToken",
                "Incorrect token audience",
                "does not allow the token's audience",
                ErrorKind::Unauthenticated,
            ),
            (
                "InvalidIdentityToken",
                "No OpenIDConnect provider found in your account for https://token.actions.githubusercontent.com",
                "no identity provider for the token's issuer",
                ErrorKind::Unauthenticated,
            ),
            (
                "InvalidIdentityToken",
                "Couldn't retrieve verification key from your identity provider",
                "AWS does not accept the job's token",
                ErrorKind::Unauthenticated,
            ),
            (
                "ExpiredTokenException",
                "Token expired",
                "has expired",
                ErrorKind::Unauthenticated,
            ),
            (
                "IDPRejectedClaim",
                "",
                "does not accept",
                ErrorKind::Unauthenticated,
            ),
            (
                "ValidationError",
                "",
                "cannot assume the role",
                ErrorKind::Unauthenticated,
            ),
            (
                "IDPCommunicationError",
                "",
                "cannot assume the role",
                ErrorKind::Unavailable,
            ),
            (
                "Throttling",
                "Rate exceeded",
                "cannot assume the role",
                ErrorKind::Throttled,
            ),
        ] {
            let cause = ErrorSource::ErrorResponse {
                status: 400,
                code: code.into(),
                message: message.into(),
            };
            let failure = AwsError {
                action: ACTION,
                cause,
            };
            let error = RoleError::Role {
                role: "arn:aws:iam::123456789012:role/ci".into(),
                meaning: meaning(&failure).map(|(_, meaning)| meaning),
                kind: classify::role_error_kind(&failure),
                source: failure,
            };
            assert!(
                error.to_string().contains(wanted),
                "{code} {message}: {error}"
            );
            assert_eq!(error.kind(), kind, "{code}");
        }
    }
}
