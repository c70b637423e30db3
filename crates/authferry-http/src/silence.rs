//! A request without an answer.

use std::error::Error;

use reqwest::Response;

use crate::net::Elsewhere;

/// Why there was no answer, and whether the request left at all. Its text names no path, no
/// header and no body.
#[derive(Debug, thiserror::Error)]
pub enum Silence {
    /// The server was not reached: nothing left.
    #[error("cannot connect: {0}")]
    Unreached(String),
    /// The answer points to a server that was not named: it was not asked.
    #[error("the server points to {0}")]
    Elsewhere(String),
    /// The request was never made.
    #[error("the request makes no sense: {0}")]
    Unmade(String),
    /// The request left, and no answer came in time.
    #[error("no answer in time")]
    Late,
    /// The request left, and the connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The request left, and what came back was not read to its end.
    #[error("the answer has more than {0} bytes, and was not read")]
    TooLong(usize),
}

impl Silence {
    /// Returns whether the server may have seen the request, and done something about it.
    #[must_use]
    pub fn may_have_acted(&self) -> bool {
        match self {
            Self::Unreached(_) | Self::Elsewhere(_) | Self::Unmade(_) => false,
            Self::Late | Self::Broken(_) | Self::TooLong(_) => true,
        }
    }
}

impl From<&reqwest::Error> for Silence {
    fn from(error: &reqwest::Error) -> Self {
        if error.is_builder() {
            Self::Unmade(deepest(error))
        } else if error.is_redirect() {
            let elsewhere = error.source().and_then(|e| e.downcast_ref::<Elsewhere>());
            match elsewhere {
                Some(elsewhere) => Self::Elsewhere(elsewhere.to_string()),
                None => Self::Broken(deepest(error)),
            }
        } else if error.is_connect() {
            Self::Unreached(deepest(error))
        } else if error.is_timeout() {
            Self::Late
        } else {
            Self::Broken(deepest(error))
        }
    }
}

/// Reads an answer of at most `max` bytes. Of a longer one no more than that is ever in memory.
pub async fn read_body(mut reply: Response, max: usize) -> Result<Vec<u8>, Silence> {
    let announced = reply.content_length().unwrap_or(0);
    let fits = usize::try_from(announced).is_ok_and(|announced| announced <= max);
    if !fits {
        return Err(Silence::TooLong(max));
    }
    let mut body = Vec::new();
    while let Some(chunk) = reply.chunk().await.map_err(|error| Silence::from(&error))? {
        if body.len() + chunk.len() > max {
            return Err(Silence::TooLong(max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Returns the text at the bottom: those above it say that a request failed, and where.
fn deepest(error: &reqwest::Error) -> String {
    let mut deepest: Option<&dyn Error> = None;
    let mut below = error.source();
    while let Some(error) = below {
        deepest = Some(error);
        below = error.source();
    }
    deepest.map_or_else(|| "no reason given".to_owned(), ToString::to_string)
}
