//! Classifies the responses of the servers. Pure functions, the same for every server.

use crate::{
    vault_error::{Rejection, VaultError, is_too_large},
    wire::{ErrorResponse, VaultFailure},
};

/// The result of a write that did not clearly succeed.
#[derive(Debug)]
pub(crate) enum Unwritten {
    /// The version did not match.
    Conflict,
    /// The write certainly did not happen.
    Refused(VaultError),
    /// The write may have happened.
    Unknown(VaultError),
}

/// The state of the token after a 403. OpenBao sends the same text for an unknown token and
/// for a missing right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenState {
    /// The server knows the token.
    Known,
    /// The server does not know the token.
    Unknown,
}

/// Classifies a failed write.
pub(crate) fn write_error(failure: VaultFailure, place: &PathPart<'_>) -> Unwritten {
    match &failure {
        VaultFailure::ErrorResponse(answer) if is_mismatch(answer) => return Unwritten::Conflict,
        VaultFailure::Silent(silence) if silence.may_have_acted() => {
            return Unwritten::Unknown(read_error(failure, place));
        }
        // The status was a success, but the body does not say of what.
        VaultFailure::Unintelligible => return Unwritten::Unknown(VaultError::Unintelligible),
        VaultFailure::ErrorResponse(_) | VaultFailure::Silent(_) => {}
    }
    let is_certain = match &failure {
        // A server that is being sealed or loses its peers returns a 5xx, although it may have
        // forwarded the write.
        VaultFailure::ErrorResponse(answer) => {
            answer.status < 500
                || answer.status == 501
                || answer.texts.iter().any(|text| is_too_large(text))
        }
        VaultFailure::Silent(_) | VaultFailure::Unintelligible => true,
    };
    let error = read_error(failure, place);
    if is_certain {
        Unwritten::Refused(error)
    } else {
        Unwritten::Unknown(error)
    }
}

/// The target of a request, for error messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathPart<'a> {
    pub(crate) mount: &'a str,
    pub(crate) path: &'a str,
}

/// Returns why a read failed.
pub(crate) fn read_error(failure: VaultFailure, place: &PathPart<'_>) -> VaultError {
    let answer = match failure {
        VaultFailure::Silent(silence) => return VaultError::Silent(silence),
        VaultFailure::Unintelligible => return VaultError::Unintelligible,
        VaultFailure::ErrorResponse(answer) => answer,
    };
    let contains = |words: &str| answer.texts.iter().any(|text| text.contains(words));
    match answer.status {
        403 if is_bad_token(&answer) => VaultError::BadToken,
        403 => VaultError::Forbidden(format!("{}/data/{}", place.mount, place.path)),
        404 if contains("namespace not found") => VaultError::NoNamespace,
        404 if contains("no handler for route") => VaultError::NoMount(place.mount.to_owned()),
        503 if contains("sealed") => VaultError::Sealed,
        status => VaultError::ErrorResponse {
            status,
            texts: answer.texts,
        },
    }
}

/// Returns why the auth method at `mount` refused the job's credentials.
pub(crate) fn auth_error(failure: VaultFailure, mount: &str) -> VaultError {
    let answer = match failure {
        VaultFailure::ErrorResponse(answer) if matches!(answer.status, 400..=404) => answer,
        other @ (VaultFailure::ErrorResponse(_)
        | VaultFailure::Silent(_)
        | VaultFailure::Unintelligible) => {
            let mount = "auth";
            return read_error(other, &PathPart { mount, path: "" });
        }
    };
    let contains = |words: &str| answer.texts.iter().any(|text| text.contains(words));
    let first = || answer.texts.first().cloned().unwrap_or_default();
    if contains("namespace not found") {
        return VaultError::NoNamespace;
    }
    let why = if contains("invalid audience") || contains("audience claim") {
        Rejection::Audience
    } else if contains("does not match any")
        || contains("is missing")
        || contains("not found in token")
        || contains("invalid subject")
        || contains("sub claim")
    {
        Rejection::Claim(last_reason(&first()))
    } else if contains("invalid issuer") {
        Rejection::Issuer
    } else if contains("expiration time")
        || contains("token is expired")
        || contains("not before")
        || contains("issued at")
    {
        Rejection::Time(last_reason(&first()))
    } else if contains("signature") || contains("no known key") {
        Rejection::Signature
    } else if contains("missing role") {
        Rejection::NoRole
    } else if contains("could not be found") {
        Rejection::UnknownRole
    } else if contains("invalid role") || contains("secret id") {
        Rejection::Credentials
    } else if matches!(answer.status, 403 | 404) || contains("could not load configuration") {
        Rejection::NoMethod
    } else {
        Rejection::Other {
            status: answer.status,
            texts: answer.texts,
        }
    };
    VaultError::AuthRefused {
        mount: mount.to_owned(),
        why,
    }
}

/// Returns the response if it is a 403: an unknown token or a missing right.
pub(crate) fn denial(failure: &VaultFailure) -> Option<&ErrorResponse> {
    match failure {
        VaultFailure::ErrorResponse(answer) if answer.status == 403 => Some(answer),
        VaultFailure::ErrorResponse(_) | VaultFailure::Silent(_) | VaultFailure::Unintelligible => {
            None
        }
    }
}

/// Returns whether a 403 itself names the token as the cause. HashiCorp's Vault does.
pub(crate) fn is_bad_token(answer: &ErrorResponse) -> bool {
    answer.texts.iter().any(|text| text == "invalid token")
}

/// Classifies the reply to a token's lookup of itself, sent after a 403. If the lookup fails in
/// another way, the token counts as known, and the session does not authenticate again.
pub(crate) fn token_state(reply: &Result<(), VaultFailure>) -> TokenState {
    match reply {
        Err(failure) if denial(failure).is_some() => TokenState::Unknown,
        Ok(()) | Err(_) => TokenState::Known,
    }
}

fn is_mismatch(answer: &ErrorResponse) -> bool {
    const WORDS: &str = "check-and-set parameter did not match the current version";
    answer.status == 400 && answer.texts.iter().any(|text| text.contains(WORDS))
}

/// Returns the last part of a chain of reasons. The parts before it only say that the server
/// validated a token.
fn last_reason(text: &str) -> String {
    let known = ["error validating token: ", "error validating claims: "];
    let mut text = text;
    while let Some(rest) = known.iter().find_map(|head| text.strip_prefix(head)) {
        text = rest;
    }
    text.to_owned()
}

#[cfg(test)]
mod tests;
