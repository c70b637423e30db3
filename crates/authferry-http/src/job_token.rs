//! The OIDC token of a CI job.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use reqwest::{StatusCode, header::AUTHORIZATION};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use crate::{
    http_error::{HttpError, read_body},
    net::{Net, NetConfigError, Roots},
    retry::with_retries,
};

/// The source of the job's OIDC token.
///
/// `Debug` shows no token, and neither does any error.
#[derive(Clone)]
pub enum JobToken {
    /// GitHub Actions issues a token on request, for any audience.
    GitHub {
        /// `ACTIONS_ID_TOKEN_REQUEST_URL`.
        url: String,
        /// `ACTIONS_ID_TOKEN_REQUEST_TOKEN`, also a secret.
        token: SecretString,
    },
    /// The job runs on GitHub Actions without the permission to request a token.
    NotPermitted,
    /// An environment variable contains the token, as on GitLab. Its audience is already set.
    Variable {
        /// The variable's name.
        name: String,
        /// Its value; `None` if it is not set.
        value: Option<SecretString>,
    },
    /// A file contains the token. Each fetch reads it again: the platform may renew it.
    File(PathBuf),
}

/// Why the job has no OIDC token.
#[derive(Debug, thiserror::Error)]
pub enum JobTokenError {
    /// The workflow does not grant the permission.
    #[error("the job may not request an OIDC token from GitHub: it lacks the permission id-token")]
    NotPermitted,
    /// The environment variable is not set or empty.
    #[error("the environment variable {0} is not set")]
    Unset(String),
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// The variable, the file or the response contains something else.
    #[error("{0} does not contain a JWT")]
    NotAToken(String),
    /// The platform's URL for token requests is invalid.
    #[error("ACTIONS_ID_TOKEN_REQUEST_URL is not a URL")]
    InvalidUrl,
    /// The HTTP client cannot be built.
    #[error("cannot request an OIDC token from GitHub")]
    NoClient(#[source] NetConfigError),
    /// GitHub answered with another status than 200.
    #[error("GitHub answered the request for an OIDC token with status {0}")]
    Status(u16),
    /// GitHub did not answer.
    #[error("GitHub did not answer the request for an OIDC token")]
    NoResponse(#[source] HttpError),
    /// GitHub's response is malformed.
    #[error("GitHub's response to the request for an OIDC token is malformed")]
    Malformed,
}

impl JobTokenError {
    /// Returns whether a retry may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoResponse(error) => error.is_transient(),
            Self::Status(status) => *status == 429 || *status >= 500,
            Self::NotPermitted
            | Self::Unset(_)
            | Self::Unreadable { .. }
            | Self::NotAToken(_)
            | Self::InvalidUrl
            | Self::NoClient(_)
            | Self::Malformed => false,
        }
    }
}

/// The maximum size of a file and of a response: far more than a token needs.
const MAX_FILE_BYTES: u64 = 64 * 1024;
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

impl JobToken {
    /// Returns a token for `audience`. If that is `None`, GitHub sets the URL of the repository's
    /// owner.
    /// A token from a variable or a file has a fixed audience, and `audience` is ignored.
    pub async fn fetch(&self, audience: Option<&str>) -> Result<SecretString, JobTokenError> {
        match self {
            Self::NotPermitted => Err(JobTokenError::NotPermitted),
            Self::GitHub { url, token } => {
                // The request is idempotent.
                let fetch = || request(url, token, audience);
                with_retries(fetch, JobTokenError::is_transient).await
            }
            Self::Variable { name, value } => {
                let value = value.as_ref().map(ExposeSecret::expose_secret);
                match value.filter(|value| !value.trim().is_empty()) {
                    Some(value) => check_jwt(value, name),
                    None => Err(JobTokenError::Unset(name.clone())),
                }
            }
            Self::File(path) => {
                let shown = path.display().to_string();
                let unreadable = |source| JobTokenError::Unreadable {
                    path: shown.clone(),
                    source,
                };
                let mut text = String::new();
                let file = File::open(path).map_err(unreadable)?;
                let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
                if read.map_err(unreadable)? as u64 > MAX_FILE_BYTES {
                    return Err(JobTokenError::NotAToken(shown));
                }
                check_jwt(SecretString::from(text).expose_secret(), &shown)
            }
        }
    }
}

impl fmt::Debug for JobToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GitHub { .. } => f.write_str("GitHub"),
            Self::NotPermitted => f.write_str("NotPermitted"),
            Self::Variable { name, .. } => write!(f, "Variable({name})"),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

#[derive(Deserialize)]
struct TokenResponse {
    value: SecretString,
}

async fn request(
    url: &str,
    token: &SecretString,
    audience: Option<&str>,
) -> Result<SecretString, JobTokenError> {
    let mut url = Url::parse(url).map_err(|_| JobTokenError::InvalidUrl)?;
    if let Some(audience) = audience {
        url.query_pairs_mut().append_pair("audience", audience);
    }
    // Use the default roots: a store's certificate settings do not apply to GitHub.
    let net = Net {
        roots: Roots::default(),
        ..Net::default()
    };
    let client = net
        .client(&[url.clone()])
        .map_err(JobTokenError::NoClient)?;
    let no_response = |error: reqwest::Error| JobTokenError::NoResponse(HttpError::from(&error));
    let bearer = SecretString::from(format!("bearer {}", token.expose_secret().trim()));
    let request = client
        .get(url)
        .header(AUTHORIZATION, bearer.expose_secret());
    let reply = request.send().await.map_err(no_response)?;
    if reply.status() != StatusCode::OK {
        return Err(JobTokenError::Status(reply.status().as_u16()));
    }
    let body = read_body(reply, MAX_RESPONSE_BYTES)
        .await
        .map_err(JobTokenError::NoResponse)?;
    // Drop the parser's error: it may quote the token.
    let response: TokenResponse =
        serde_json::from_slice(&body).map_err(|_| JobTokenError::Malformed)?;
    check_jwt(response.value.expose_secret(), "GitHub's response")
}

/// Checks that the text looks like a JWT, and removes surrounding white space such as the newline
/// in files and variables.
fn check_jwt(text: &str, source: &str) -> Result<SecretString, JobTokenError> {
    let text = text.trim();
    let parts: Vec<_> = text.split('.').collect();
    let is_base64 = |part: &&str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'='))
    };
    if parts.len() != 3 || !parts.iter().all(is_base64) {
        return Err(JobTokenError::NotAToken(source.to_owned()));
    }
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests;
