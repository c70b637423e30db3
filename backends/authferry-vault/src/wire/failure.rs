//! What came of a request that brought nothing, without the library's own errors: they hold
//! whole answers.

use authferry_http::Silence;
use rustify::errors::ClientError as RestError;
use serde::Deserialize;
use vaultrs::api::{EndpointError, kv2::responses::SecretVersionMetadata};

use super::Point;

/// Why there is nothing to show for a request.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing was answered.
    Silent(Silence),
    /// The server says no.
    Answer(Answer),
    /// It says something that makes no sense.
    Unintelligible,
}

/// A no of the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The server's words, fit to be shown.
    pub(crate) texts: Vec<String>,
    /// A version that is no longer there, which the server tells with a no.
    pub(crate) gone: Option<Point>,
}

impl Failure {
    /// Returns whether the same request may succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Silent(silence) => match silence {
                // A standby points to the leader that died, until there is another one.
                Silence::Unreached(_)
                | Silence::Elsewhere(_)
                | Silence::Late
                | Silence::Broken(_) => true,
                Silence::Unmade(_) | Silence::TooLong(_) => false,
            },
            Self::Answer(answer) => {
                matches!(answer.status, 412 | 429 | 472 | 473 | 500..)
                    || answer.texts.iter().any(|text| is_not_ready(text))
            }
            Self::Unintelligible => false,
        }
    }
}

/// Returns whether a store says that it was just mounted.
pub(crate) fn is_not_ready(text: &str) -> bool {
    text.contains("from non-versioned to versioned data")
}

impl From<RestError> for Failure {
    fn from(error: RestError) -> Self {
        match error {
            RestError::ServerResponseError { code, content } => {
                let content = content.as_deref().unwrap_or_default();
                let texts = serde_json::from_str(content).map(|it: EndpointError| it.errors);
                Self::Answer(Answer {
                    status: code,
                    gone: texts.is_err().then(|| gone(content)).flatten(),
                    texts: texts
                        .iter()
                        .flatten()
                        .map(|text| presentable(text))
                        .collect(),
                })
            }
            RestError::RequestError { source, .. } | RestError::ResponseError { source } => {
                Self::Silent(match source.downcast::<Silence>() {
                    Ok(silence) => silence,
                    Err(_) => Silence::Broken("no reason given".to_owned()),
                })
            }
            RestError::ResponseConversionError { .. } | RestError::ResponseParseError { .. } => {
                Self::Unintelligible
            }
            RestError::DataParseError { .. }
            | RestError::EndpointBuildError { .. }
            | RestError::GenericError { .. }
            | RestError::RequestBuildError { .. }
            | RestError::ReqwestBuildError { .. }
            | RestError::UrlBuildError { .. }
            | RestError::UrlQueryParseError { .. }
            | RestError::UrlParseError { .. } => unmade(),
        }
    }
}

fn unmade() -> Failure {
    Failure::Silent(Silence::Unmade("the library does not take it".to_owned()))
}

/// Returns the version that a 404 tells of: it was deleted or destroyed.
fn gone(content: &str) -> Option<Point> {
    #[derive(Deserialize)]
    struct Reply {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        metadata: SecretVersionMetadata,
    }
    let reply: Reply = serde_json::from_str(content).ok()?;
    Some(reply.data.metadata.into())
}

/// Makes a server's text fit to be shown: one line of a length that nothing hides in.
fn presentable(text: &str) -> String {
    const LONGEST: usize = 300;
    let words: Vec<_> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .collect();
    let words = words.into_iter().filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    line.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_server_become_one_short_line() {
        assert_eq!(
            presentable("1 error occurred:\n\t* permission denied\n\n"),
            "1 error occurred: * permission denied"
        );
        assert_eq!(presentable("a\u{1b}[2Jb\0c"), "a [2Jb c");
        assert_eq!(presentable(&"x".repeat(5000)).len(), 300);
    }
}
