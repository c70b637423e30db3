//! Classifies failed requests. Pure functions.

use crate::{
    azure_error::{AzureError, Rejection},
    wire::{AzureFailure, ErrorResponse, TokenError},
};

/// The result of a write that did not clearly succeed.
#[derive(Debug)]
pub(crate) enum PutFailure {
    /// The write certainly did not happen.
    Refused(AzureError),
    /// The write may have happened.
    Unknown(AzureError),
}

/// Returns why a request to the vault failed. `right` is the right that it needs.
pub(crate) fn vault_error(failure: AzureFailure, right: &'static str) -> AzureError {
    let AzureFailure::ErrorResponse(answer) = failure else {
        return common_error(failure);
    };
    match (answer.status, &*answer.inner) {
        (401, _) if !answer.is_unknown_key() => AzureError::BadToken,
        (403, "SecretDisabled") => AzureError::Disabled,
        (403, "ForbiddenByFirewall" | "ForbiddenByConnection") => AzureError::Firewalled("vault"),
        (403, _) => AzureError::Forbidden(right),
        (409, "ObjectIsDeletedButRecoverable") => AzureError::Deleted,
        (409, "ObjectIsBeingDeleted" | "ObjectIsBeingRecovered") => AzureError::InTransition,
        (409, "") => AzureError::Busy,
        _ => response_error(answer),
    }
}

/// Returns why a put to the vault failed, and whether it may have happened.
pub(crate) fn put_error(failure: AzureFailure) -> PutFailure {
    let is_certain = match &failure {
        AzureFailure::Silent(silence) => !silence.may_have_acted(),
        // Azure does not document the effect of the refused one of two concurrent puts.
        AzureFailure::ErrorResponse(answer) => {
            answer.status < 500
                && answer.status != 408
                && !(answer.status == 409 && answer.inner.is_empty())
        }
        AzureFailure::Unintelligible => false,
        AzureFailure::Impostor | AzureFailure::NoToken(_) => true,
    };
    let error = vault_error(failure, "set secrets in the vault");
    if is_certain {
        PutFailure::Refused(error)
    } else {
        PutFailure::Unknown(error)
    }
}

/// Returns why a request to the storage account failed. `right` is the right that it needs.
pub(crate) fn blob_error(failure: AzureFailure, right: &'static str) -> AzureError {
    let AzureFailure::ErrorResponse(answer) = failure else {
        return common_error(failure);
    };
    match (answer.status, &*answer.code) {
        (401, _) | (403, "AuthenticationFailed") => AzureError::BadToken,
        (403, "AuthorizationFailure") => AzureError::Firewalled("storage account"),
        (403, _) => AzureError::Forbidden(right),
        (404, "ContainerNotFound") => AzureError::NoContainer,
        _ => response_error(answer),
    }
}

/// Returns whether the identity lacks a right.
pub(crate) fn is_denied(error: &AzureError) -> bool {
    matches!(error, AzureError::Forbidden(_))
}

fn common_error(failure: AzureFailure) -> AzureError {
    match failure {
        AzureFailure::Silent(silence) => AzureError::Silent(silence),
        AzureFailure::ErrorResponse(answer) => response_error(answer),
        AzureFailure::Unintelligible => AzureError::Unintelligible,
        AzureFailure::Impostor => AzureError::Impostor,
        AzureFailure::NoToken(TokenError::Silent(silence)) => AzureError::SilentAuthority(silence),
        AzureFailure::NoToken(TokenError::NoJobToken(missing)) => AzureError::NoJobToken(missing),
        AzureFailure::NoToken(TokenError::Tool(text)) => AzureError::Cli(text),
        AzureFailure::NoToken(TokenError::ErrorResponse(answer)) => {
            AzureError::AuthRefused(rejection(answer))
        }
    }
}

/// Maps the AADSTS codes of Entra's error reference.
fn rejection(answer: ErrorResponse) -> Rejection {
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

fn response_error(answer: ErrorResponse) -> AzureError {
    if answer.is_unknown_key() {
        // Transient: the server learns the signing key a moment later.
        return AzureError::ErrorResponse {
            status: 503,
            code: answer.code,
            text: answer.text,
        };
    }
    AzureError::ErrorResponse {
        status: answer.status,
        code: answer.code,
        text: answer.text,
    }
}

#[cfg(test)]
mod tests;
