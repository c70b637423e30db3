//! The classification of Azure's known error responses.

use authferry_core::ErrorKind::{
    self, NotFound, PermissionDenied, Throttled, TooLarge, Unauthenticated, Unavailable, Unexpected,
};

use super::{PutFailure, blob_error, put_error, vault_error};
use crate::{
    azure_error::AzureError,
    wire::{AzureFailure, ErrorResponse, TokenError},
};

fn error_response(status: u16, code: &str, inner: &str) -> ErrorResponse {
    ErrorResponse {
        status,
        code: code.to_owned(),
        inner: inner.to_owned(),
        ..ErrorResponse::default()
    }
}

#[test]
fn every_error_of_a_put_is_classified() {
    for (status, inner, kind, is_certain) in [
        (400, "", Unexpected, true),
        (401, "", Unauthenticated, true),
        (403, "ForbiddenByRbac", PermissionDenied, true),
        (403, "ForbiddenByFirewall", PermissionDenied, true),
        (403, "AccessDenied", PermissionDenied, true),
        (404, "", Unexpected, true),
        (408, "", Unavailable, false),
        // Two concurrent writes: Azure does not document the effect of the refused one.
        (409, "", Unavailable, false),
        (409, "ObjectIsDeletedButRecoverable", NotFound, true),
        (409, "ObjectIsBeingDeleted", Unavailable, true),
        (409, "ObjectIsBeingRecovered", Unavailable, true),
        (413, "", TooLarge, true),
        (429, "", Throttled, true),
        (500, "", Unavailable, false),
        (502, "", Unavailable, false),
        (503, "", Unavailable, false),
        (504, "", Unavailable, false),
    ] {
        let (found, certain) = match put_error(AzureFailure::ErrorResponse(error_response(
            status, "Any", inner,
        ))) {
            PutFailure::Refused(error) => (error.kind(), true),
            PutFailure::Unknown(error) => (error.kind(), false),
        };
        assert_eq!((found, certain), (kind, is_certain), "{status} {inner}");
    }
}

#[test]
fn a_put_that_was_not_sent_is_refused_and_one_without_a_response_is_unknown() {
    let certain = |failure: AzureFailure| matches!(put_error(failure), PutFailure::Refused(_));
    let rejected = error_response(400, "700213", "");
    assert!(certain(AzureFailure::NoToken(TokenError::ErrorResponse(
        rejected
    ))));
    assert!(certain(AzureFailure::Impostor));
    assert!(!certain(AzureFailure::Unintelligible));
}

#[test]
fn an_unknown_signing_key_is_transient() {
    let unknown = ErrorResponse {
        text: "AKV10046: Unable to resolve the key".to_owned(),
        ..error_response(401, "Unauthorized", "")
    };
    let error = vault_error(AzureFailure::ErrorResponse(unknown), "read");
    assert_eq!(error.kind(), Unavailable, "{error}");
    let wrong = vault_error(
        AzureFailure::ErrorResponse(error_response(401, "Unauthorized", "")),
        "read",
    );
    assert!(matches!(wrong, AzureError::BadToken));
}

#[test]
fn every_error_of_a_storage_account_is_classified() {
    let kind = |status: u16, code: &str| -> ErrorKind {
        blob_error(
            AzureFailure::ErrorResponse(error_response(status, code, "")),
            "read",
        )
        .kind()
    };
    for (status, code, known) in [
        (401, "InvalidAuthenticationInfo", Unauthenticated),
        (403, "AuthenticationFailed", Unauthenticated),
        (403, "AuthorizationFailure", PermissionDenied),
        (403, "AuthorizationPermissionMismatch", PermissionDenied),
        (404, "ContainerNotFound", NotFound),
        (429, "ServerBusy", Throttled),
        (503, "ServerBusy", Unavailable),
    ] {
        assert_eq!(kind(status, code), known, "{status} {code}");
    }
}
