//! Failed requests. They replace the libraries' errors, which contain whole responses.

use std::{error::Error, time::Duration};

use authferry_http::{HttpError, JobTokenError};
use azure_core::{
    error::ErrorKind,
    http::{
        RawResponse,
        headers::{RETRY_AFTER, RETRY_AFTER_MS, X_MS_RETRY_AFTER_MS},
    },
};
use serde::Deserialize;

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum AzureFailure {
    /// No complete response.
    Silent(HttpError),
    /// An error response.
    ErrorResponse(ErrorResponse),
    /// A response that cannot be parsed.
    Unintelligible,
    /// A challenge for a token of another domain.
    Impostor,
    /// No token: the request was not sent.
    NoToken(TokenError),
}

/// An error response of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorResponse {
    pub(crate) status: u16,
    /// The error code.
    pub(crate) code: String,
    /// The inner error code, if there is one.
    pub(crate) inner: String,
    /// The server's error text, sanitized.
    pub(crate) text: String,
    /// The server's `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
}

/// Why there is no token.
#[derive(Debug)]
pub(crate) enum TokenError {
    /// No complete response of the token authority.
    Silent(HttpError),
    /// The authority's error response, with its AADSTS code.
    ErrorResponse(ErrorResponse),
    /// The job's OIDC token is not available.
    NoJobToken(JobTokenError),
    /// The error of the Azure CLI.
    Tool(String),
}

/// A server that neither the address nor the settings name.
#[derive(Debug, thiserror::Error)]
#[error("{0}, which neither the address nor the settings name")]
pub(crate) struct UnknownServer(pub(crate) String);

/// The longest error text in characters.
const MAX_CHARS: usize = 300;

impl AzureFailure {
    /// Returns whether the same request may succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Silent(silence) => match silence {
                HttpError::ConnectFailed(_) | HttpError::Timeout | HttpError::ConnectionLost(_) => {
                    true
                }
                HttpError::ForeignRedirect(_)
                | HttpError::InvalidRequest(_)
                | HttpError::TooLong(_) => false,
            },
            Self::ErrorResponse(answer) | Self::NoToken(TokenError::ErrorResponse(answer)) => {
                answer.is_transient()
            }
            Self::NoToken(TokenError::Silent(_)) => true,
            Self::NoToken(TokenError::NoJobToken(_) | TokenError::Tool(_))
            | Self::Unintelligible
            | Self::Impostor => false,
        }
    }

    /// Returns whether this is the given error response.
    pub(crate) fn is_response(&self, status: u16, code: &str) -> bool {
        matches!(self, Self::ErrorResponse(answer) if answer.status == status && answer.code == code)
    }
}

impl ErrorResponse {
    fn is_transient(&self) -> bool {
        matches!(self.status, 408 | 429 | 500..) || self.is_unknown_key()
    }

    /// Returns whether the server does not know the token's signing key yet.
    pub(crate) fn is_unknown_key(&self) -> bool {
        self.status == 401 && self.text.contains("AKV10046")
    }
}

impl From<azure_core::Error> for AzureFailure {
    fn from(error: azure_core::Error) -> Self {
        if matches!(error.kind(), ErrorKind::Credential) {
            return Self::NoToken(TokenError::of(error));
        }
        if let Some(silence) = silence(&error) {
            return Self::Silent(silence);
        }
        if let Some(answer) = answer(&error) {
            return Self::ErrorResponse(answer);
        }
        if error.to_string().starts_with("challenge resource") {
            return Self::Impostor;
        }
        Self::Unintelligible
    }
}

impl TokenError {
    fn of(error: azure_core::Error) -> Self {
        if let Some(silence) = silence(&error) {
            return Self::Silent(silence);
        }
        let text = error.to_string();
        let mut error = error;
        loop {
            if let Some(answer) = answer(&error) {
                return Self::ErrorResponse(answer);
            }
            let Ok(below) = error.into_inner() else {
                return Self::Tool(tool_text(&text));
            };
            match below.downcast::<azure_core::Error>() {
                Ok(inner) => error = *inner,
                Err(below) => {
                    return match below.downcast::<JobTokenError>() {
                        Ok(missing) => Self::NoJobToken(*missing),
                        Err(_) => Self::Tool(tool_text(&text)),
                    };
                }
            }
        }
    }
}

/// Finds an HTTP error among the sources of an error.
fn silence(error: &azure_core::Error) -> Option<HttpError> {
    let mut below: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = below {
        if let Some(error) = error.downcast_ref::<reqwest::Error>() {
            return Some(HttpError::from(error));
        }
        if let Some(HttpError::TooLong(max)) = error.downcast_ref() {
            return Some(HttpError::TooLong(*max));
        }
        if let Some(unknown) = error.downcast_ref::<UnknownServer>() {
            return Some(HttpError::ForeignRedirect(unknown.to_string()));
        }
        below = error.source();
    }
    None
}

fn answer(error: &azure_core::Error) -> Option<ErrorResponse> {
    let ErrorKind::HttpResponse {
        status,
        error_code,
        raw_response,
    } = error.kind()
    else {
        return None;
    };
    let body = raw_response.as_deref().map(parse_body).unwrap_or_default();
    let status = u16::from(*status);
    Some(ErrorResponse {
        status,
        code: body.code.or_else(|| error_code.clone()).unwrap_or_default(),
        inner: body.inner.unwrap_or_default(),
        text: sanitize(&body.text.unwrap_or_default()),
        retry_after: raw_response.as_deref().and_then(retry_after),
    })
}

#[derive(Default)]
struct ErrorBody {
    code: Option<String>,
    inner: Option<String>,
    text: Option<String>,
}

/// Parses the body of an error response: JSON from a vault and from the token authority. The body
/// of a storage account is XML and adds nothing to its error code.
fn parse_body(reply: &RawResponse) -> ErrorBody {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Body {
        KeyVault {
            error: Detail,
        },
        Authority {
            error: String,
            #[serde(default)]
            error_codes: Vec<u64>,
            error_description: Option<String>,
        },
    }
    #[derive(Deserialize)]
    struct Detail {
        code: Option<String>,
        message: Option<String>,
        innererror: Option<Inner>,
    }
    #[derive(Deserialize)]
    struct Inner {
        code: Option<String>,
    }
    match serde_json::from_slice(reply.body()) {
        Ok(Body::KeyVault { error }) => ErrorBody {
            code: error.code,
            inner: error.innererror.and_then(|inner| inner.code),
            text: error.message,
        },
        Ok(Body::Authority {
            error,
            error_codes,
            error_description,
        }) => ErrorBody {
            code: Some(error_codes.first().map_or(error, u64::to_string)),
            inner: None,
            text: error_description,
        },
        Err(_) => ErrorBody::default(),
    }
}

fn retry_after(reply: &RawResponse) -> Option<Duration> {
    let number = |name| reply.headers().get_optional_str(&name)?.parse().ok();
    number(RETRY_AFTER_MS)
        .or_else(|| number(X_MS_RETRY_AFTER_MS))
        .map(Duration::from_millis)
        .or_else(|| number(RETRY_AFTER).map(Duration::from_secs))
}

/// Sanitizes a server's text: the first line, without the trace IDs and the link that follow.
fn sanitize(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let end = line.find(" Trace ID:").unwrap_or(line.len());
    let end = line[..end]
        .char_indices()
        .nth(MAX_CHARS)
        .map_or(end, |(at, _)| at);
    line[..end].trim().to_owned()
}

/// Returns the message of a tool, without the text that the library adds around it.
fn tool_text(text: &str) -> String {
    let text = text
        .split_once("authentication failed.")
        .map_or(text, |(_, text)| text);
    let lines = text.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with("To troubleshoot"));
    sanitize(lines.next().unwrap_or("no reason given"))
}
