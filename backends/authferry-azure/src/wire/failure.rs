//! What came of a request that brought nothing, without the libraries' own errors: they hold
//! whole answers.

use std::{error::Error, time::Duration};

use authferry_http::{NoJobToken, Silence};
use azure_core::{
    error::ErrorKind,
    http::{
        RawResponse,
        headers::{RETRY_AFTER, RETRY_AFTER_MS, X_MS_RETRY_AFTER_MS},
    },
};
use serde::Deserialize;

/// Why there is nothing to show for a request.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing was answered.
    Silent(Silence),
    /// The server says no.
    Answer(Answer),
    /// It says something that makes no sense.
    Unintelligible,
    /// It wants a token that is not for itself.
    Impostor,
    /// There is no token, and nothing was asked of it.
    NoToken(NoToken),
}

/// A no of the server's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The server's name for it.
    pub(crate) code: String,
    /// The more exact name, where there is one.
    pub(crate) inner: String,
    /// The server's words, fit to be shown.
    pub(crate) text: String,
    /// How long it wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

/// Why there is no token.
#[derive(Debug)]
pub(crate) enum NoToken {
    /// Whoever gives them out does not answer.
    Silent(Silence),
    /// It says no. The code is its number for it.
    Answer(Answer),
    /// The job has none to show.
    NoJobToken(NoJobToken),
    /// The tool that was asked says this.
    Tool(String),
}

/// A server that was not named.
#[derive(Debug, thiserror::Error)]
#[error("{0}, which is none of the servers that were named")]
pub(crate) struct Elsewhere(pub(crate) String);

/// The longest piece of a server's words that is shown.
const MAX_TEXT: usize = 300;

impl Failure {
    /// Returns whether the same request may succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Silent(silence) => match silence {
                Silence::Unreached(_) | Silence::Late | Silence::Broken(_) => true,
                Silence::Elsewhere(_) | Silence::Unmade(_) | Silence::TooLong(_) => false,
            },
            Self::Answer(answer) | Self::NoToken(NoToken::Answer(answer)) => answer.is_transient(),
            Self::NoToken(NoToken::Silent(_)) => true,
            Self::NoToken(NoToken::NoJobToken(_) | NoToken::Tool(_))
            | Self::Unintelligible
            | Self::Impostor => false,
        }
    }

    /// Returns whether it is this very no.
    pub(crate) fn is_answer(&self, status: u16, code: &str) -> bool {
        matches!(self, Self::Answer(answer) if answer.status == status && answer.code == code)
    }
}

impl Answer {
    fn is_transient(&self) -> bool {
        matches!(self.status, 408 | 429 | 500..) || self.is_unknown_key()
    }

    /// Returns whether the server does not know yet by what a token is signed.
    pub(crate) fn is_unknown_key(&self) -> bool {
        self.status == 401 && self.text.contains("AKV10046")
    }
}

impl From<azure_core::Error> for Failure {
    fn from(error: azure_core::Error) -> Self {
        if matches!(error.kind(), ErrorKind::Credential) {
            return Self::NoToken(NoToken::of(error));
        }
        if let Some(silence) = silence(&error) {
            return Self::Silent(silence);
        }
        if let Some(answer) = answer(&error) {
            return Self::Answer(answer);
        }
        if error.to_string().starts_with("challenge resource") {
            return Self::Impostor;
        }
        Self::Unintelligible
    }
}

impl NoToken {
    fn of(error: azure_core::Error) -> Self {
        if let Some(silence) = silence(&error) {
            return Self::Silent(silence);
        }
        let text = error.to_string();
        let mut error = error;
        loop {
            if let Some(answer) = answer(&error) {
                return Self::Answer(answer);
            }
            let Ok(below) = error.into_inner() else {
                return Self::Tool(tool_text(&text));
            };
            match below.downcast::<azure_core::Error>() {
                Ok(inner) => error = *inner,
                Err(below) => {
                    return match below.downcast::<NoJobToken>() {
                        Ok(missing) => Self::NoJobToken(*missing),
                        Err(_) => Self::Tool(tool_text(&text)),
                    };
                }
            }
        }
    }
}

/// Looks for the failure of the connection below an error.
fn silence(error: &azure_core::Error) -> Option<Silence> {
    let mut below: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = below {
        if let Some(error) = error.downcast_ref::<reqwest::Error>() {
            return Some(Silence::from(error));
        }
        if let Some(Silence::TooLong(max)) = error.downcast_ref() {
            return Some(Silence::TooLong(*max));
        }
        if let Some(elsewhere) = error.downcast_ref::<Elsewhere>() {
            return Some(Silence::Elsewhere(elsewhere.to_string()));
        }
        below = error.source();
    }
    None
}

fn answer(error: &azure_core::Error) -> Option<Answer> {
    let ErrorKind::HttpResponse {
        status,
        error_code,
        raw_response,
    } = error.kind()
    else {
        return None;
    };
    let body = raw_response.as_deref().map(words).unwrap_or_default();
    let status = u16::from(*status);
    Some(Answer {
        status,
        code: body.code.or_else(|| error_code.clone()).unwrap_or_default(),
        inner: body.inner.unwrap_or_default(),
        text: shown(&body.text.unwrap_or_default()),
        retry_after: raw_response.as_deref().and_then(retry_after),
    })
}

#[derive(Default)]
struct Words {
    code: Option<String>,
    inner: Option<String>,
    text: Option<String>,
}

/// Reads the body of a no, which is JSON from a vault and from whoever gives out tokens. That
/// of a storage account is XML, and tells nothing that its code does not.
fn words(reply: &RawResponse) -> Words {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Body {
        Vault {
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
        Ok(Body::Vault { error }) => Words {
            code: error.code,
            inner: error.innererror.and_then(|inner| inner.code),
            text: error.message,
        },
        Ok(Body::Authority {
            error,
            error_codes,
            error_description,
        }) => Words {
            code: Some(error_codes.first().map_or(error, u64::to_string)),
            inner: None,
            text: error_description,
        },
        Err(_) => Words::default(),
    }
}

fn retry_after(reply: &RawResponse) -> Option<Duration> {
    let number = |name| reply.headers().get_optional_str(&name)?.parse().ok();
    number(RETRY_AFTER_MS)
        .or_else(|| number(X_MS_RETRY_AFTER_MS))
        .map(Duration::from_millis)
        .or_else(|| number(RETRY_AFTER).map(Duration::from_secs))
}

/// Returns the first sentence or so of a server's words: what comes then are numbers for a
/// support request, and the address of a page.
fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let end = line.find(" Trace ID:").unwrap_or(line.len());
    let end = line[..end]
        .char_indices()
        .nth(MAX_TEXT)
        .map_or(end, |(at, _)| at);
    line[..end].trim().to_owned()
}

/// Returns what a tool has said, without what the library says before and after it.
fn tool_text(text: &str) -> String {
    let text = text
        .split_once("authentication failed.")
        .map_or(text, |(_, text)| text);
    let lines = text.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with("To troubleshoot"));
    shown(lines.next().unwrap_or("no reason given"))
}
