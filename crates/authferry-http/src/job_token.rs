//! The identity that a CI job has of its own.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::PathBuf,
    time::Duration,
};

use reqwest::{StatusCode, header::AUTHORIZATION};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::sleep;
use url::Url;

use crate::{
    net::{Net, Roots, Unusable},
    silence::{Silence, read_body},
};

/// Where the job's own OIDC token comes from.
///
/// `Debug` shows no token, and neither does any error.
#[derive(Clone)]
pub enum JobToken {
    /// GitHub Actions makes one on request, for any audience.
    GitHub {
        /// `ACTIONS_ID_TOKEN_REQUEST_URL`.
        url: String,
        /// `ACTIONS_ID_TOKEN_REQUEST_TOKEN`, which is a secret too.
        token: SecretString,
    },
    /// GitHub Actions would make one, and the job may not ask for it.
    NotPermitted,
    /// A variable holds one, as on GitLab. Its audience is set already.
    Variable {
        /// The variable's name.
        name: String,
        /// Its value; `None` if it is not set.
        value: Option<SecretString>,
    },
    /// A file holds one. It is read anew each time: somebody may renew it.
    File(PathBuf),
}

/// Why there is no token of the job's own.
#[derive(Debug, thiserror::Error)]
pub enum NoJobToken {
    /// A workflow has to grant it.
    #[error("the job may not ask GitHub for an OIDC token: it lacks the permission id-token")]
    NotPermitted,
    /// The variable is not set, or empty.
    #[error("the variable {0} is not set")]
    Unset(String),
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is no token.
    #[error("what {0} holds is no JWT")]
    NotAToken(String),
    /// The platform's address for token requests is none.
    #[error("ACTIONS_ID_TOKEN_REQUEST_URL is no address")]
    BadAddress,
    /// It cannot be asked.
    #[error("GitHub cannot be asked for an OIDC token")]
    NoClient(#[source] Unusable),
    /// It says no.
    #[error("GitHub answers the request for an OIDC token with status {0}")]
    Refused(u16),
    /// It says nothing.
    #[error("GitHub does not answer the request for an OIDC token")]
    Silent(#[source] Silence),
    /// What it says makes no sense.
    #[error("GitHub's answer to the request for an OIDC token makes no sense")]
    Unintelligible,
}

impl NoJobToken {
    /// Returns whether the same request may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Silent(silence) => match silence {
                Silence::Unreached(_) | Silence::Late | Silence::Broken(_) => true,
                Silence::Elsewhere(_) | Silence::Unmade(_) | Silence::TooLong(_) => false,
            },
            Self::Refused(status) => *status == 429 || *status >= 500,
            Self::NotPermitted
            | Self::Unset(_)
            | Self::Unreadable { .. }
            | Self::NotAToken(_)
            | Self::BadAddress
            | Self::NoClient(_)
            | Self::Unintelligible => false,
        }
    }
}

/// The pauses before a request for a token is made again: it changes nothing.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(1500)];

/// Far more than a token takes.
const MAX_LEN: u64 = 64 * 1024;
const MAX_ANSWER: usize = 64 * 1024;

impl JobToken {
    /// Returns a token for `audience`. Without one GitHub names the repository's owner;
    /// elsewhere it is fixed before the job begins, and `audience` changes nothing.
    pub async fn fetch(&self, audience: Option<&str>) -> Result<SecretString, NoJobToken> {
        match self {
            Self::NotPermitted => Err(NoJobToken::NotPermitted),
            Self::GitHub { url, token } => {
                let mut pauses = PAUSES.iter();
                loop {
                    match ask(url, token, audience).await {
                        Err(error) if error.is_transient() => match pauses.next() {
                            Some(pause) => sleep(*pause).await,
                            None => return Err(error),
                        },
                        answer => return answer,
                    }
                }
            }
            Self::Variable { name, value } => {
                let value = value.as_ref().map(ExposeSecret::expose_secret);
                match value.filter(|value| !value.trim().is_empty()) {
                    Some(value) => checked(value, name),
                    None => Err(NoJobToken::Unset(name.clone())),
                }
            }
            Self::File(path) => {
                let shown = path.display().to_string();
                let unreadable = |source| NoJobToken::Unreadable {
                    path: shown.clone(),
                    source,
                };
                let mut text = String::new();
                let file = File::open(path).map_err(unreadable)?;
                let read = file.take(MAX_LEN + 1).read_to_string(&mut text);
                if read.map_err(unreadable)? as u64 > MAX_LEN {
                    return Err(NoJobToken::NotAToken(shown));
                }
                checked(SecretString::from(text).expose_secret(), &shown)
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
struct Answer {
    value: SecretString,
}

async fn ask(
    url: &str,
    token: &SecretString,
    audience: Option<&str>,
) -> Result<SecretString, NoJobToken> {
    let mut url = Url::parse(url).map_err(|_| NoJobToken::BadAddress)?;
    if let Some(audience) = audience {
        url.query_pairs_mut().append_pair("audience", audience);
    }
    // GitHub's own certificate: what a store's server is to show says nothing of it.
    let net = Net {
        roots: Roots::default(),
        ..Net::default()
    };
    let client = net.client(&[url.clone()]).map_err(NoJobToken::NoClient)?;
    let silent = |error: reqwest::Error| NoJobToken::Silent(Silence::from(&error));
    let bearer = SecretString::from(format!("bearer {}", token.expose_secret().trim()));
    let request = client
        .get(url)
        .header(AUTHORIZATION, bearer.expose_secret());
    let reply = request.send().await.map_err(silent)?;
    if reply.status() != StatusCode::OK {
        return Err(NoJobToken::Refused(reply.status().as_u16()));
    }
    let body = read_body(reply, MAX_ANSWER)
        .await
        .map_err(NoJobToken::Silent)?;
    // The parser's own error could quote the token.
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| NoJobToken::Unintelligible)?;
    checked(answer.value.expose_secret(), "GitHub's answer")
}

/// Takes what looks like a JWT, without the line's end that files and variables have.
fn checked(text: &str, holder: &str) -> Result<SecretString, NoJobToken> {
    let text = text.trim();
    let parts: Vec<_> = text.split('.').collect();
    let is_base64 = |part: &&str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'='))
    };
    if parts.len() != 3 || !parts.iter().all(is_base64) {
        return Err(NoJobToken::NotAToken(holder.to_owned()));
    }
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests;
