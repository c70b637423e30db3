//! What can be wrong with an auth file.

use core::fmt;

use crate::auth_file::MAX_LEN;

/// Why an auth file contains no login that authferry can carry.
///
/// `Display` completes "the auth file is unusable: …". Neither `Display` nor `Debug` shows
/// a part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthFileError {
    /// It is empty, or contains only white space.
    #[error("it is empty")]
    Empty,
    /// It is larger than [`MAX_LEN`].
    #[error("it is larger than {MAX_LEN} bytes")]
    TooLarge,
    /// It begins with a byte order mark, at which Codex stops reading.
    #[error("it begins with a byte order mark")]
    Bom,
    /// It contains bytes that are not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// It is the beginning of JSON, without the end.
    #[error("it is cut off: the JSON ends too early")]
    Truncated,
    /// It is not JSON.
    #[error("it is not JSON (line {line}, column {column})")]
    NotJson {
        /// The line of the first invalid byte, from 1.
        line: usize,
        /// The column of that byte, from 1.
        column: usize,
    },
    /// It is JSON, but not an object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// It repeats a member that Codex reads; Codex then rejects the file.
    #[error("it has a duplicate member")]
    RepeatedMember,
    /// A member has an invalid value.
    #[error("its `{member}` {fault}")]
    Member {
        /// The member.
        member: Member,
        /// What is wrong with it.
        fault: Fault,
    },
    /// `auth_mode` is no mode that Codex 0.169.0 knows.
    #[error("its `auth_mode` is unknown")]
    UnknownMode,
    /// It is for an API key: by `auth_mode`, or without one because `OPENAI_API_KEY` is set.
    /// Codex then ignores the tokens.
    #[error("it is for an API key, not for a ChatGPT login")]
    ApiKeyMode,
    /// Another program refreshes its tokens (`chatgptAuthTokens`): Codex uses them and never
    /// rotates them.
    #[error("its tokens are refreshed by another program (`auth_mode` is `chatgptAuthTokens`)")]
    ExternalTokens,
    /// It is for another sign-in method, named here.
    #[error("it is not for a ChatGPT login (`auth_mode` is, or defaults to, `{0}`)")]
    OtherMode(&'static str),
    /// `tokens.id_token` is not a JWT: three parts, the second one a JSON object in
    /// unpadded base64url.
    #[error("its `tokens.id_token` is not a JWT")]
    IdTokenNotAJwt,
    /// `last_refresh` is a string, but not an RFC 3339 time.
    #[error("its `last_refresh` is not an RFC 3339 time")]
    BadLastRefresh,
    /// It is an [`ended_copy`](crate::ended_copy) of a login.
    #[error("it is the copy with which authferry asked for the reason of a refusal")]
    EndedCopy,
}

impl AuthFileError {
    /// Returns whether a file that Codex is writing in place can have this error.
    pub(crate) fn may_be_torn(self) -> bool {
        match self {
            Self::Empty | Self::NotUtf8 | Self::Truncated | Self::NotJson { .. } => true,
            Self::TooLarge
            | Self::Bom
            | Self::NotAnObject
            | Self::RepeatedMember
            | Self::Member { .. }
            | Self::UnknownMode
            | Self::ApiKeyMode
            | Self::ExternalTokens
            | Self::OtherMode(_)
            | Self::IdTokenNotAJwt
            | Self::BadLastRefresh
            | Self::EndedCopy => false,
        }
    }
}

/// A member of the auth file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// `auth_mode`
    AuthMode,
    /// `OPENAI_API_KEY`
    ApiKey,
    /// `tokens`
    Tokens,
    /// `tokens.id_token`
    IdToken,
    /// `tokens.access_token`
    AccessToken,
    /// `tokens.refresh_token`
    RefreshToken,
    /// `tokens.account_id`
    AccountId,
    /// `last_refresh`
    LastRefresh,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AuthMode => "auth_mode",
            Self::ApiKey => "OPENAI_API_KEY",
            Self::Tokens => "tokens",
            Self::IdToken => "tokens.id_token",
            Self::AccessToken => "tokens.access_token",
            Self::RefreshToken => "tokens.refresh_token",
            Self::AccountId => "tokens.account_id",
            Self::LastRefresh => "last_refresh",
        })
    }
}

/// What is wrong with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is missing.
    Missing,
    /// It is `null`.
    Null,
    /// It is the empty string. An empty refresh token makes an access-only file: Codex runs on
    /// it until the access token expires, and cannot rotate it.
    Empty,
    /// It has a type that Codex does not accept.
    WrongType,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "is missing",
            Self::Null => "is null",
            Self::Empty => "is empty",
            Self::WrongType => "has the wrong type",
        })
    }
}
