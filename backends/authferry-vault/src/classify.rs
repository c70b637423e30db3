//! What an answer means: pure, and the same for every server.

use crate::{
    trouble::{Rejection, Trouble, is_too_large},
    wire::{Answer, Failure},
};

/// What is known after a write that did not clearly succeed.
#[derive(Debug)]
pub(crate) enum Unwritten {
    /// The version was another one.
    Conflict,
    /// It certainly did not happen.
    Refused(Trouble),
    /// It may have happened.
    Unknown(Trouble),
}

/// What is known after a no with status 403: the same words stand for two things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// The server knows the token.
    Good,
    /// The server does not.
    Bad,
}

/// Returns what a no to a write leaves open.
pub(crate) fn of_write(failure: Failure, place: &Place<'_>) -> Unwritten {
    match &failure {
        Failure::Answer(answer) if is_mismatch(answer) => return Unwritten::Conflict,
        Failure::Silent(silence) if silence.may_have_acted() => {
            return Unwritten::Unknown(of_read(failure, place));
        }
        // It was a yes, and nobody knows to what.
        Failure::Unintelligible => return Unwritten::Unknown(Trouble::Unintelligible),
        Failure::Answer(_) | Failure::Silent(_) => {}
    }
    let certain = match &failure {
        // A server that is asked to seal itself, or loses the others, says so while it may
        // have handed the write on.
        Failure::Answer(answer) => {
            answer.status < 500
                || answer.status == 501
                || answer.texts.iter().any(|text| is_too_large(text))
        }
        Failure::Silent(_) | Failure::Unintelligible => true,
    };
    let trouble = of_read(failure, place);
    if certain {
        Unwritten::Refused(trouble)
    } else {
        Unwritten::Unknown(trouble)
    }
}

/// Where something was asked, for the report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) mount: &'a str,
    pub(crate) path: &'a str,
}

/// Returns why something was not told.
pub(crate) fn of_read(failure: Failure, place: &Place<'_>) -> Trouble {
    let answer = match failure {
        Failure::Silent(silence) => return Trouble::Silent(silence),
        Failure::Unintelligible => return Trouble::Unintelligible,
        Failure::Answer(answer) => answer,
    };
    let says = |words: &str| answer.texts.iter().any(|text| text.contains(words));
    match answer.status {
        403 if is_bad_token(&answer) => Trouble::BadToken,
        403 => Trouble::Forbidden(format!("{}/data/{}", place.mount, place.path)),
        404 if says("namespace not found") => Trouble::NoNamespace,
        404 if says("no handler for route") => Trouble::NoMount(place.mount.to_owned()),
        503 if says("sealed") => Trouble::Sealed,
        status => Trouble::Answer {
            status,
            texts: answer.texts,
        },
    }
}

/// Returns why a login was refused.
pub(crate) fn of_login(failure: Failure, mount: &str) -> Trouble {
    let answer = match failure {
        Failure::Answer(answer) if matches!(answer.status, 400..=404) => answer,
        other @ (Failure::Answer(_) | Failure::Silent(_) | Failure::Unintelligible) => {
            let mount = "auth";
            return of_read(other, &Place { mount, path: "" });
        }
    };
    let says = |words: &str| answer.texts.iter().find(|text| text.contains(words));
    let first = || answer.texts.first().cloned().unwrap_or_default();
    if says("namespace not found").is_some() {
        return Trouble::NoNamespace;
    }
    let why = if says("invalid audience").is_some() || says("audience claim").is_some() {
        Rejection::Audience
    } else if says("does not match any").is_some()
        || says("is missing").is_some()
        || says("not found in token").is_some()
        || says("invalid subject").is_some()
        || says("sub claim").is_some()
    {
        Rejection::Claim(reason(&first()))
    } else if says("invalid issuer").is_some() {
        Rejection::Issuer
    } else if says("expiration time").is_some()
        || says("token is expired").is_some()
        || says("not before").is_some()
        || says("issued at").is_some()
    {
        Rejection::Time(reason(&first()))
    } else if says("signature").is_some() || says("no known key").is_some() {
        Rejection::Signature
    } else if says("missing role").is_some() {
        Rejection::NoRole
    } else if says("could not be found").is_some() {
        Rejection::UnknownRole
    } else if says("invalid role").is_some() || says("secret id").is_some() {
        Rejection::Credentials
    } else if matches!(answer.status, 403 | 404) || says("could not load configuration").is_some() {
        Rejection::NoMethod
    } else {
        Rejection::Other {
            status: answer.status,
            texts: answer.texts,
        }
    };
    Trouble::Login {
        mount: mount.to_owned(),
        why,
    }
}

/// Returns whether somebody has to look what a no is about: the token, or its rights.
pub(crate) fn is_denied(failure: &Failure) -> Option<&Answer> {
    match failure {
        Failure::Answer(answer) if answer.status == 403 => Some(answer),
        Failure::Answer(_) | Failure::Silent(_) | Failure::Unintelligible => None,
    }
}

/// Returns whether a no tells by itself that it is about the token, as HashiCorp's does.
pub(crate) fn is_bad_token(answer: &Answer) -> bool {
    answer.texts.iter().any(|text| text == "invalid token")
}

/// Returns what looking the token up after a no tells of it. Where that failed, too, the
/// rights stay in doubt, and no new login is tried.
pub(crate) fn of_look_up(reply: &Result<(), Failure>) -> Token {
    match reply {
        Err(failure) if is_denied(failure).is_some() => Token::Bad,
        Ok(()) | Err(_) => Token::Good,
    }
}

fn is_mismatch(answer: &Answer) -> bool {
    const WORDS: &str = "check-and-set parameter did not match the current version";
    answer.status == 400 && answer.texts.iter().any(|text| text.contains(WORDS))
}

/// Returns the last part of a chain of reasons: those before it say that a token was looked
/// at.
fn reason(text: &str) -> String {
    let known = ["error validating token: ", "error validating claims: "];
    let mut text = text;
    while let Some(rest) = known.iter().find_map(|head| text.strip_prefix(head)) {
        text = rest;
    }
    text.to_owned()
}

#[cfg(test)]
mod tests;
