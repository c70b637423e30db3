//! The session of a job that takes a role with its own OIDC token.
//!
//! Nothing but the job's platform and AWS is asked: no action, no command line tool, and no
//! file in between. The SDK asks for a new session when one is about to end, so a job may
//! last longer than its first.

use authferry_core::ErrorKind;
use authferry_http::{JobToken, NoJobToken};
use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, error::CredentialsError, future},
};
use aws_sdk_sts::Client;
use secrecy::ExposeSecret;

use crate::{
    classify,
    failure::{Failure, Obstacle},
};

/// What the trust policy of a role has to allow as the token's audience.
const AUDIENCE: &str = "sts.amazonaws.com";

/// Takes a role.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) sts: Client,
    pub(crate) role: String,
    pub(crate) session: String,
    pub(crate) token: JobToken,
}

/// Why a role was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoLogin {
    #[error("the job has no token of its own")]
    Token(#[from] NoJobToken),
    #[error("the role {role} was not taken{}", meaning.map(|m| format!(": {m}")).unwrap_or_default())]
    Role {
        role: String,
        meaning: Option<&'static str>,
        kind: ErrorKind,
        source: Failure,
    },
    #[error("the answer holds no credentials")]
    Nothing,
}

impl NoLogin {
    /// Returns what stands in the way, if people can do something about it.
    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        match self {
            Self::Token(NoJobToken::NotPermitted) => Some(Obstacle::NotPermitted),
            Self::Token(NoJobToken::Unset(name)) => Some(Obstacle::Unset(name.clone())),
            Self::Token(NoJobToken::NotAToken(_)) => Some(Obstacle::NotAToken),
            Self::Token(NoJobToken::Unreadable { .. }) => Some(Obstacle::Unreadable),
            Self::Role { source, .. } => meaning(source)
                .map(|(obstacle, _)| obstacle)
                .or_else(|| source.obstacle()),
            Self::Token(_) | Self::Nothing => None,
        }
    }

    /// Returns the sort of failure it is for callers.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Token(error) if error.is_transient() => ErrorKind::Unavailable,
            Self::Role { kind, .. } => *kind,
            Self::Token(_) | Self::Nothing => ErrorKind::Unauthenticated,
        }
    }
}

impl Login {
    async fn take_role(&self) -> Result<Credentials, NoLogin> {
        let token = self.token.fetch(Some(AUDIENCE)).await?;
        let answer = self
            .sts
            .assume_role_with_web_identity()
            .role_arn(&self.role)
            .role_session_name(&self.session)
            .web_identity_token(token.expose_secret())
            .send()
            .await;
        let answer = answer.map_err(|error| self.refused(Failure::new(ACTION, &error)))?;
        let session = answer.credentials.ok_or(NoLogin::Nothing)?;
        let ends = session
            .expiration
            .try_into()
            .map_err(|_| NoLogin::Nothing)?;
        Ok(Credentials::new(
            session.access_key_id,
            session.secret_access_key,
            Some(session.session_token),
            Some(ends),
            "the job's own token",
        ))
    }

    fn refused(&self, failure: Failure) -> NoLogin {
        NoLogin::Role {
            role: self.role.clone(),
            meaning: meaning(&failure).map(|(_, meaning)| meaning),
            kind: classify::login(&failure),
            source: failure,
        }
    }
}

const ACTION: &str = "sts:AssumeRoleWithWebIdentity";

/// Says what STS means. It tells a stranger as little as it can.
fn meaning(failure: &Failure) -> Option<(Obstacle, &'static str)> {
    let said = failure.to_string();
    let meaning = match failure.code()? {
        "AccessDenied" | "AccessDeniedException" => (
            Obstacle::Trust,
            "there is no such role, or its trust policy does not name this job",
        ),
        "ExpiredTokenException" | "ExpiredToken" => (Obstacle::Ended, "the job's token has ended"),
        "InvalidIdentityToken" if said.contains("audience") => (
            Obstacle::Audience,
            "the identity provider in the account allows another audience",
        ),
        "InvalidIdentityToken" if said.contains("OpenIDConnect provider") => (
            Obstacle::Provider,
            "the account has no identity provider for the token's issuer",
        ),
        "InvalidIdentityToken" | "IDPRejectedClaim" => {
            (Obstacle::Provider, "the job's token is not accepted")
        }
        _ => return None,
    };
    Some(meaning)
}

impl ProvideCredentials for Login {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let taken: provider::Result = self
                .take_role()
                .await
                .map_err(CredentialsError::provider_error);
            taken
        })
    }
}

/// Makes a text fit for a session's name: 2 to 64 characters, of which the last ones tell one
/// job from another.
pub(crate) fn session_name(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    let text = text.strip_prefix("https://").unwrap_or(text);
    let text: String = text
        .chars()
        .map(|c| if fits(c) { c } else { '-' })
        .collect();
    let room = MAX_SESSION - PREFIX.len();
    let tail = text
        .get(text.len().saturating_sub(room)..)
        .unwrap_or_default();
    format!("{PREFIX}{}", tail.trim_start_matches('-'))
}

const PREFIX: &str = "authferry-";
const MAX_SESSION: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Why;

    #[test]
    fn a_session_is_called_after_the_job() {
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
    fn each_refusal_of_a_role_says_what_is_wrong() {
        for (code, message, said, kind) in [
            (
                "AccessDenied",
                "Not authorized to perform sts:AssumeRoleWithWebIdentity",
                "trust policy does not name this job",
                ErrorKind::Unauthenticated,
            ),
            (
                "InvalidIdentityToken",
                "Incorrect token audience",
                "allows another audience",
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
                "the job's token is not accepted",
                ErrorKind::Unauthenticated,
            ),
            (
                "ExpiredTokenException",
                "Token expired",
                "has ended",
                ErrorKind::Unauthenticated,
            ),
            (
                "IDPRejectedClaim",
                "",
                "is not accepted",
                ErrorKind::Unauthenticated,
            ),
            (
                "ValidationError",
                "",
                "was not taken",
                ErrorKind::Unauthenticated,
            ),
            (
                "IDPCommunicationError",
                "",
                "was not taken",
                ErrorKind::Unavailable,
            ),
            (
                "Throttling",
                "Rate exceeded",
                "was not taken",
                ErrorKind::Throttled,
            ),
        ] {
            let why = Why::Said {
                status: 400,
                code: code.into(),
                message: message.into(),
            };
            let failure = Failure {
                action: ACTION,
                why,
            };
            let no_login = NoLogin::Role {
                role: "arn:aws:iam::123456789012:role/ci".into(),
                meaning: meaning(&failure).map(|(_, meaning)| meaning),
                kind: classify::login(&failure),
                source: failure,
            };
            assert!(
                no_login.to_string().contains(said),
                "{code} {message}: {no_login}"
            );
            assert_eq!(no_login.kind(), kind, "{code}");
        }
    }
}
