//! What a failure means: plain functions over what was answered.

use crate::{
    trouble::{Rejection, Trouble},
    wire::{Answer, Failure, NoToken},
};

/// What is known after a write that brought nothing.
#[derive(Debug)]
pub(crate) enum Unwritten {
    /// It certainly did not happen.
    Refused(Trouble),
    /// Nobody knows.
    Unknown(Trouble),
}

/// Says why a request to the vault brought nothing. `right` is what it takes there.
pub(crate) fn of_vault(failure: Failure, right: &'static str) -> Trouble {
    let Failure::Answer(answer) = failure else {
        return of_any(failure);
    };
    match (answer.status, &*answer.inner) {
        (401, _) if !answer.is_unknown_key() => Trouble::BadToken,
        (403, "SecretDisabled") => Trouble::Disabled,
        (403, "ForbiddenByFirewall" | "ForbiddenByConnection") => Trouble::Firewalled("vault"),
        (403, _) => Trouble::Forbidden(right),
        (409, "ObjectIsDeletedButRecoverable") => Trouble::Deleted,
        (409, "ObjectIsBeingDeleted" | "ObjectIsBeingRecovered") => Trouble::Settling,
        (409, "") => Trouble::Busy,
        _ => of_answer(answer),
    }
}

/// Says why a put to the vault brought nothing, and whether it can have happened.
pub(crate) fn of_put(failure: Failure) -> Unwritten {
    let is_certain = match &failure {
        Failure::Silent(silence) => !silence.may_have_acted(),
        // Of two puts at once nobody says what becomes of the one that is refused.
        Failure::Answer(answer) => {
            answer.status < 500
                && answer.status != 408
                && !(answer.status == 409 && answer.inner.is_empty())
        }
        Failure::Unintelligible => false,
        Failure::Impostor | Failure::NoToken(_) => true,
    };
    let trouble = of_vault(failure, "set secrets in the vault");
    if is_certain {
        Unwritten::Refused(trouble)
    } else {
        Unwritten::Unknown(trouble)
    }
}

/// Says why a request to the storage account brought nothing. `right` is what it takes there.
pub(crate) fn of_blob(failure: Failure, right: &'static str) -> Trouble {
    let Failure::Answer(answer) = failure else {
        return of_any(failure);
    };
    match (answer.status, &*answer.code) {
        (401, _) | (403, "AuthenticationFailed") => Trouble::BadToken,
        (403, "AuthorizationFailure") => Trouble::Firewalled("storage account"),
        (403, _) => Trouble::Forbidden(right),
        (404, "ContainerNotFound") => Trouble::NoContainer,
        _ => of_answer(answer),
    }
}

/// Whether a blob was certainly not replaced.
pub(crate) fn is_denied(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Forbidden(_))
}

fn of_any(failure: Failure) -> Trouble {
    match failure {
        Failure::Silent(silence) => Trouble::Silent(silence),
        Failure::Answer(answer) => of_answer(answer),
        Failure::Unintelligible => Trouble::Unintelligible,
        Failure::Impostor => Trouble::Impostor,
        Failure::NoToken(NoToken::Silent(silence)) => Trouble::SilentAuthority(silence),
        Failure::NoToken(NoToken::NoJobToken(missing)) => Trouble::NoJobToken(missing),
        Failure::NoToken(NoToken::Tool(text)) => Trouble::Cli(text),
        Failure::NoToken(NoToken::Answer(answer)) => Trouble::Login(of_login(answer)),
    }
}

/// The numbers are those of Entra's error reference.
fn of_login(answer: Answer) -> Rejection {
    match &*answer.code {
        "700211" | "700212" | "700213" | "70021" | "700024" | "700027" | "50027" => {
            Rejection::Federation(answer.text)
        }
        "7000215" | "7000222" => Rejection::Secret,
        "700016" => Rejection::Application,
        "90002" | "900021" | "900023" => Rejection::Tenant,
        _ => Rejection::Other {
            status: answer.status,
            text: answer.text,
        },
    }
}

fn of_answer(answer: Answer) -> Trouble {
    if answer.is_unknown_key() {
        // It knows the key a moment later.
        return Trouble::Answer {
            status: 503,
            code: answer.code,
            text: answer.text,
        };
    }
    Trouble::Answer {
        status: answer.status,
        code: answer.code,
        text: answer.text,
    }
}

#[cfg(test)]
mod tests;
