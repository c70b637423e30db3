//! Failed requests. They replace the library's errors, which contain whole responses.

use authferry_http::HttpError;
use rustify::errors::ClientError as RestError;
use serde::Deserialize;
use vaultrs::api::{EndpointError, kv2::responses::SecretVersionMetadata};

use super::VersionId;

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum VaultFailure {
    /// No complete response.
    Silent(HttpError),
    /// An error response.
    ErrorResponse(ErrorResponse),
    /// A response that cannot be parsed.
    Unintelligible,
}

/// An error response of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ErrorResponse {
    pub(crate) status: u16,
    /// The server's error texts, sanitized.
    pub(crate) texts: Vec<String>,
    /// The version that was deleted or destroyed: the server reports it with a 404.
    pub(crate) deleted: Option<VersionId>,
}

impl VaultFailure {
    /// Returns whether the same request may succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Silent(silence) => match silence {
                // A standby redirects to a leader that died, until the cluster elects another.
                HttpError::ConnectFailed(_)
                | HttpError::ForeignRedirect(_)
                | HttpError::Timeout
                | HttpError::ConnectionLost(_) => true,
                HttpError::InvalidRequest(_) | HttpError::TooLong(_) => false,
            },
            Self::ErrorResponse(answer) => {
                matches!(answer.status, 412 | 429 | 472 | 473 | 500..)
                    || answer.texts.iter().any(|text| is_not_ready(text))
            }
            Self::Unintelligible => false,
        }
    }
}

/// Returns whether the engine reports that it was just mounted and is still upgrading.
pub(crate) fn is_not_ready(text: &str) -> bool {
    text.contains("from non-versioned to versioned data")
}

impl From<RestError> for VaultFailure {
    fn from(error: RestError) -> Self {
        match error {
            RestError::ServerResponseError { code, content } => {
                let content = content.as_deref().unwrap_or_default();
                let texts = serde_json::from_str(content).map(|it: EndpointError| it.errors);
                Self::ErrorResponse(ErrorResponse {
                    status: code,
                    deleted: texts.is_err().then(|| deleted_version(content)).flatten(),
                    texts: texts.iter().flatten().map(|text| sanitize(text)).collect(),
                })
            }
            RestError::RequestError { source, .. } | RestError::ResponseError { source } => {
                Self::Silent(match source.downcast::<HttpError>() {
                    Ok(silence) => silence,
                    Err(_) => HttpError::ConnectionLost("no reason given".to_owned()),
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
            | RestError::UrlParseError { .. } => not_sent(),
        }
    }
}

fn not_sent() -> VaultFailure {
    VaultFailure::Silent(HttpError::InvalidRequest(
        "the HTTP library rejects it".to_owned(),
    ))
}

/// Returns the deleted or destroyed version that the body of a 404 describes.
fn deleted_version(content: &str) -> Option<VersionId> {
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

/// Sanitizes a server's text: one line, 300 characters, no control characters.
fn sanitize(text: &str) -> String {
    const MAX_CHARS: usize = 300;
    let words: Vec<_> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .collect();
    let words = words.into_iter().filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    line.chars().take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sanitized_text_is_one_short_line() {
        assert_eq!(
            sanitize("1 error occurred:\n\t* permission denied\n\n"),
            "1 error occurred: * permission denied"
        );
        assert_eq!(sanitize("a\u{1b}[2Jb\0c"), "a [2Jb c");
        assert_eq!(sanitize(&"x".repeat(5000)).len(), 300);
    }
}
