//! Why a request got no complete response.

use std::error::Error;

use reqwest::Response;

use crate::net::RefusedRedirect;

/// Why a request got no complete response, and whether it was sent. The text contains no path,
/// header or body.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection failed: nothing was sent.
    #[error("cannot connect: {0}")]
    ConnectFailed(String),
    /// The server redirects to a server that is not configured: the redirect was not followed.
    #[error("the server redirects to {0}")]
    ForeignRedirect(String),
    /// The request could not be built, and was not sent.
    #[error("the request is invalid: {0}")]
    InvalidRequest(String),
    /// The request was sent, and timed out.
    #[error("the request timed out")]
    Timeout,
    /// The request was sent, and the connection was lost.
    #[error("the connection was lost: {0}")]
    ConnectionLost(String),
    /// The request was sent, and the response body exceeds the limit.
    #[error("the response has more than {0} bytes and was not read")]
    TooLong(usize),
}

impl HttpError {
    /// Returns whether the server may have received the request and executed it.
    #[must_use]
    pub fn may_have_acted(&self) -> bool {
        match self {
            Self::ConnectFailed(_) | Self::ForeignRedirect(_) | Self::InvalidRequest(_) => false,
            Self::Timeout | Self::ConnectionLost(_) | Self::TooLong(_) => true,
        }
    }

    /// Returns whether a retry of an idempotent request may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::ConnectFailed(_) | Self::Timeout | Self::ConnectionLost(_) => true,
            Self::ForeignRedirect(_) | Self::InvalidRequest(_) | Self::TooLong(_) => false,
        }
    }
}

impl From<&reqwest::Error> for HttpError {
    fn from(error: &reqwest::Error) -> Self {
        if error.is_builder() {
            Self::InvalidRequest(deepest(error))
        } else if error.is_redirect() {
            let refused = error
                .source()
                .and_then(|e| e.downcast_ref::<RefusedRedirect>());
            match refused {
                Some(refused) => Self::ForeignRedirect(refused.to_string()),
                None => Self::ConnectionLost(deepest(error)),
            }
        } else if error.is_connect() {
            Self::ConnectFailed(deepest(error))
        } else if error.is_timeout() {
            Self::Timeout
        } else {
            Self::ConnectionLost(deepest(error))
        }
    }
}

/// Reads a response body of at most `max` bytes, and never holds more than that in memory.
pub async fn read_body(mut reply: Response, max: usize) -> Result<Vec<u8>, HttpError> {
    let announced = reply.content_length().unwrap_or(0);
    let fits = usize::try_from(announced).is_ok_and(|announced| announced <= max);
    if !fits {
        return Err(HttpError::TooLong(max));
    }
    let mut body = Vec::new();
    while let Some(chunk) = reply
        .chunk()
        .await
        .map_err(|error| HttpError::from(&error))?
    {
        if body.len() + chunk.len() > max {
            return Err(HttpError::TooLong(max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Returns the text of the root cause: the errors above it only name the failed request.
fn deepest(error: &reqwest::Error) -> String {
    let mut deepest: Option<&dyn Error> = None;
    let mut below = error.source();
    while let Some(error) = below {
        deepest = Some(error);
        below = error.source();
    }
    deepest.map_or_else(|| "no reason given".to_owned(), ToString::to_string)
}
