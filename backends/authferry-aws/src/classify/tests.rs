use super::*;

use ErrorKind::{
    Full, NotFound, PermissionDenied, Throttled, Unauthenticated, Unavailable, Unexpected,
};
use WriteOutcome::{Conflict, Refused, Unknown};

fn error_response(status: u16, code: &str, message: &str) -> AwsError {
    AwsError {
        action: "secretsmanager:PutSecretValue",
        cause: ErrorSource::ErrorResponse {
            status,
            code: code.to_owned(),
            message: message.to_owned(),
        },
    }
}

fn failed_call(cause: ErrorSource) -> AwsError {
    AwsError {
        action: "secretsmanager:PutSecretValue",
        cause,
    }
}

/// An error response, its outcome for a put and for a promotion, and its kind.
const RESPONSES: &[(u16, &str, &str, WriteOutcome, WriteOutcome, ErrorKind)] = &[
    (
        400,
        "ResourceNotFoundException",
        "Secrets Manager can't find the specified secret.",
        Conflict,
        Conflict,
        NotFound,
    ),
    (
        400,
        "InvalidParameterException",
        "When you move staging label AWSCURRENT, …",
        Refused,
        Conflict,
        Unexpected,
    ),
    (
        400,
        "InvalidParameterException",
        "Operation not permitted on a replica secret.",
        Refused,
        Conflict,
        PermissionDenied,
    ),
    (
        400,
        "InvalidRequestException",
        "The secret is in another state.",
        Refused,
        Conflict,
        Unexpected,
    ),
    (
        400,
        "InvalidRequestException",
        "You can't perform this operation on the secret because it was marked for deletion.",
        Refused,
        Refused,
        NotFound,
    ),
    (
        400,
        "InvalidRequestException",
        "…because it was deleted.",
        Refused,
        Refused,
        NotFound,
    ),
    (
        400,
        "ResourceExistsException",
        "",
        Refused,
        Refused,
        Unexpected,
    ),
    (
        400,
        "LimitExceededException",
        "You have too many versions.",
        Refused,
        Refused,
        Full,
    ),
    (
        400,
        "DecryptionFailure",
        "",
        Refused,
        Refused,
        PermissionDenied,
    ),
    (
        400,
        "EncryptionFailure",
        "",
        Refused,
        Refused,
        PermissionDenied,
    ),
    (
        400,
        "AccessDeniedException",
        "User: … is not authorized …",
        Refused,
        Refused,
        PermissionDenied,
    ),
    (403, "AccessDenied", "", Refused, Refused, PermissionDenied),
    (
        400,
        "ThrottlingException",
        "Rate exceeded",
        Refused,
        Refused,
        Throttled,
    ),
    (429, "", "", Refused, Refused, Throttled),
    (
        400,
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
        Refused,
        Refused,
        Unauthenticated,
    ),
    (
        403,
        "InvalidSignatureException",
        "Signature expired: …",
        Refused,
        Refused,
        Unauthenticated,
    ),
    (
        400,
        "ExpiredTokenException",
        "The security token included in the request is expired",
        Refused,
        Refused,
        Unauthenticated,
    ),
    (
        403,
        "RequestTimeTooSkewed",
        "",
        Refused,
        Refused,
        Unauthenticated,
    ),
    (400, "ValidationException", "", Refused, Refused, Unexpected),
    (413, "", "", Refused, Refused, Unexpected),
    (
        500,
        "InternalServiceError",
        "An error occurred on the server side.",
        Unknown,
        Unknown,
        Unavailable,
    ),
    (503, "", "", Unknown, Unknown, Unavailable),
];

#[test]
fn every_error_response_is_classified() {
    for &(status, code, message, after_put, after_promotion, wanted) in RESPONSES {
        let failure = error_response(status, code, message);
        assert_eq!(put(&failure), after_put, "put: {failure}");
        assert_eq!(promote(&failure), after_promotion, "promote: {failure}");
        assert_eq!(kind(&failure), wanted, "{failure}");
    }
}

#[test]
fn a_call_without_a_response_is_unknown_only_if_it_was_sent() {
    let no_credentials = |kind| ErrorSource::NoCredentials {
        kind,
        obstacle: None,
        text: String::new(),
    };
    for (cause, outcome, wanted) in [
        (
            ErrorSource::Unreached(String::new()),
            WriteOutcome::Refused,
            ErrorKind::Unavailable,
        ),
        (
            ErrorSource::NotSent(String::new()),
            WriteOutcome::Refused,
            ErrorKind::Unexpected,
        ),
        (
            ErrorSource::Plaintext(String::new()),
            WriteOutcome::Refused,
            ErrorKind::Unsafe,
        ),
        (
            no_credentials(ErrorKind::Unauthenticated),
            WriteOutcome::Refused,
            ErrorKind::Unauthenticated,
        ),
        (
            no_credentials(ErrorKind::Unavailable),
            WriteOutcome::Refused,
            ErrorKind::Unavailable,
        ),
        (
            ErrorSource::Timeout,
            WriteOutcome::Unknown,
            ErrorKind::Unavailable,
        ),
        (
            ErrorSource::Broken(String::new()),
            WriteOutcome::Unknown,
            ErrorKind::Unavailable,
        ),
        (
            ErrorSource::Unintelligible(200),
            WriteOutcome::Unknown,
            ErrorKind::Unexpected,
        ),
    ] {
        let failure = failed_call(cause);
        assert_eq!(put(&failure), outcome, "{failure}");
        assert_eq!(promote(&failure), outcome, "{failure}");
        assert_eq!(kind(&failure), wanted, "{failure}");
    }
}

#[test]
fn obstacles_that_a_person_can_fix_are_named() {
    let deletion =
        "You can't perform this operation on the secret because it was marked for deletion.";
    for (code, message, wanted) in [
        (
            "InvalidRequestException",
            deletion,
            Some(Obstacle::DeletionScheduled),
        ),
        (
            "InvalidParameterException",
            "Operation not permitted on a replica secret.",
            Some(Obstacle::Replica),
        ),
        (
            "AccessDeniedException",
            "Access to KMS is not allowed",
            Some(Obstacle::Key),
        ),
        ("DecryptionFailure", "", Some(Obstacle::Key)),
        (
            "AccessDeniedException",
            "User: … is not authorized to perform: …",
            Some(Obstacle::Denied("secretsmanager:PutSecretValue")),
        ),
        (
            "UnrecognizedClientException",
            "",
            Some(Obstacle::BadCredentials),
        ),
        ("LimitExceededException", "", Some(Obstacle::Full)),
        ("ResourceNotFoundException", "", None),
        ("InternalServiceError", "", None),
    ] {
        assert_eq!(
            error_response(400, code, message).obstacle(),
            wanted,
            "{code}: {message}"
        );
    }
    let untrusted = ErrorSource::Unreached("invalid peer certificate: UnknownIssuer".to_owned());
    assert_eq!(failed_call(untrusted).obstacle(), Some(Obstacle::Untrusted));
    assert_eq!(failed_call(ErrorSource::Timeout).obstacle(), None);
}
