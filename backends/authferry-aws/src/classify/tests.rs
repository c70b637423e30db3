use super::*;

use ErrorKind::{
    Full, NotFound, PermissionDenied, Throttled, Unauthenticated, Unavailable, Unexpected,
};
use Known::{Moved, Not, Unknown};

fn said(status: u16, code: &str, message: &str) -> Failure {
    Failure {
        action: "secretsmanager:PutSecretValue",
        why: Why::Said {
            status,
            code: code.to_owned(),
            message: message.to_owned(),
        },
    }
}

fn unanswered(why: Why) -> Failure {
    Failure {
        action: "secretsmanager:PutSecretValue",
        why,
    }
}

/// What the service says, what is known after a put and after a promotion, and what kind
/// of failure it is.
const ANSWERS: &[(u16, &str, &str, Known, Known, ErrorKind)] = &[
    (
        400,
        "ResourceNotFoundException",
        "Secrets Manager can't find the specified secret.",
        Moved,
        Moved,
        NotFound,
    ),
    (
        400,
        "InvalidParameterException",
        "When you move staging label AWSCURRENT, …",
        Not,
        Moved,
        Unexpected,
    ),
    (
        400,
        "InvalidParameterException",
        "Operation not permitted on a replica secret.",
        Not,
        Moved,
        PermissionDenied,
    ),
    (
        400,
        "InvalidRequestException",
        "The secret is in another state.",
        Not,
        Moved,
        Unexpected,
    ),
    (
        400,
        "InvalidRequestException",
        "You can't perform this operation on the secret because it was marked for deletion.",
        Not,
        Not,
        NotFound,
    ),
    (
        400,
        "InvalidRequestException",
        "…because it was deleted.",
        Not,
        Not,
        NotFound,
    ),
    (400, "ResourceExistsException", "", Not, Not, Unexpected),
    (
        400,
        "LimitExceededException",
        "You have too many versions.",
        Not,
        Not,
        Full,
    ),
    (400, "DecryptionFailure", "", Not, Not, PermissionDenied),
    (400, "EncryptionFailure", "", Not, Not, PermissionDenied),
    (
        400,
        "AccessDeniedException",
        "User: … is not authorized …",
        Not,
        Not,
        PermissionDenied,
    ),
    (403, "AccessDenied", "", Not, Not, PermissionDenied),
    (
        400,
        "ThrottlingException",
        "Rate exceeded",
        Not,
        Not,
        Throttled,
    ),
    (429, "", "", Not, Not, Throttled),
    (
        400,
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
        Not,
        Not,
        Unauthenticated,
    ),
    (
        403,
        "InvalidSignatureException",
        "Signature expired: …",
        Not,
        Not,
        Unauthenticated,
    ),
    (
        400,
        "ExpiredTokenException",
        "The security token included in the request is expired",
        Not,
        Not,
        Unauthenticated,
    ),
    (403, "RequestTimeTooSkewed", "", Not, Not, Unauthenticated),
    (400, "ValidationException", "", Not, Not, Unexpected),
    (413, "", "", Not, Not, Unexpected),
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
fn each_answer_has_its_meaning() {
    for &(status, code, message, puts, promotes, is) in ANSWERS {
        let failure = said(status, code, message);
        assert_eq!(put(&failure), puts, "put: {failure}");
        assert_eq!(promote(&failure), promotes, "promote: {failure}");
        assert_eq!(kind(&failure), is, "{failure}");
    }
}

#[test]
fn without_an_answer_it_matters_whether_anything_left() {
    let no_login = |kind| Why::NoLogin {
        kind,
        obstacle: None,
        text: String::new(),
    };
    for (why, known, is) in [
        (
            Why::Unreached(String::new()),
            Known::Not,
            ErrorKind::Unavailable,
        ),
        (
            Why::Unsent(String::new()),
            Known::Not,
            ErrorKind::Unexpected,
        ),
        (Why::Kept(String::new()), Known::Not, ErrorKind::Unsafe),
        (
            no_login(ErrorKind::Unauthenticated),
            Known::Not,
            ErrorKind::Unauthenticated,
        ),
        (
            no_login(ErrorKind::Unavailable),
            Known::Not,
            ErrorKind::Unavailable,
        ),
        (Why::Late, Known::Unknown, ErrorKind::Unavailable),
        (
            Why::Broken(String::new()),
            Known::Unknown,
            ErrorKind::Unavailable,
        ),
        (
            Why::Unintelligible(200),
            Known::Unknown,
            ErrorKind::Unexpected,
        ),
    ] {
        let failure = unanswered(why);
        assert_eq!(put(&failure), known, "{failure}");
        assert_eq!(promote(&failure), known, "{failure}");
        assert_eq!(kind(&failure), is, "{failure}");
    }
}

#[test]
fn what_people_can_mend_is_named() {
    let marked =
        "You can't perform this operation on the secret because it was marked for deletion.";
    for (code, message, stands) in [
        ("InvalidRequestException", marked, Some(Obstacle::Marked)),
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
            said(400, code, message).obstacle(),
            stands,
            "{code}: {message}"
        );
    }
    let untrusted = Why::Unreached("invalid peer certificate: UnknownIssuer".to_owned());
    assert_eq!(unanswered(untrusted).obstacle(), Some(Obstacle::Untrusted));
    assert_eq!(unanswered(Why::Late).obstacle(), None);
}
