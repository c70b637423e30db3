//! What a failed call means: for the store's state, and for callers. Pure.

use authferry_core::ErrorKind;

use crate::failure::{Failure, Obstacle, Why};

/// What is known after a call that was to change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// The store says that what was expected is not so.
    Moved,
    /// It did not happen.
    Not,
    /// It may have happened.
    Unknown,
}

/// Returns what is known after a version was put, or a secret was created.
pub(crate) fn put(failure: &Failure) -> Known {
    match failure.code() {
        // There is no secret any more.
        Some("ResourceNotFoundException") => Known::Moved,
        _ => written(failure),
    }
}

/// Returns what is known after the label was to be moved.
///
/// AWS says no in several words when the label is not where it was expected. None of them is
/// taken for more than that: whoever asks again looks first.
pub(crate) fn promote(failure: &Failure) -> Known {
    match failure.code() {
        Some("InvalidParameterException" | "ResourceNotFoundException") => Known::Moved,
        Some("InvalidRequestException") if !is_marked(failure) => Known::Moved,
        _ => written(failure),
    }
}

fn written(failure: &Failure) -> Known {
    match &failure.why {
        Why::Said { status, .. } if *status < 500 => Known::Not,
        Why::NoLogin { .. } | Why::Unsent(_) | Why::Kept(_) | Why::Unreached(_) => Known::Not,
        Why::Said { .. } | Why::Late | Why::Broken(_) | Why::Unintelligible(_) => Known::Unknown,
    }
}

/// Returns whether the secret waits to be deleted.
pub(crate) fn is_marked(failure: &Failure) -> bool {
    failure.code() == Some("InvalidRequestException") && says(failure, "delet")
}

/// Returns the sort of failure it is for callers.
pub(crate) fn kind(failure: &Failure) -> ErrorKind {
    let (status, code) = match &failure.why {
        Why::Said { status, code, .. } => (*status, code.as_str()),
        Why::NoLogin { kind, .. } => return *kind,
        Why::Unreached(_) | Why::Late | Why::Broken(_) => return ErrorKind::Unavailable,
        Why::Kept(_) => return ErrorKind::Unsafe,
        Why::Unsent(_) | Why::Unintelligible(_) => return ErrorKind::Unexpected,
    };
    match code {
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedAccess" => {
            ErrorKind::PermissionDenied
        }
        // The key of the secret is one that we may not use, or nobody can.
        "DecryptionFailure" | "EncryptionFailure" => ErrorKind::PermissionDenied,
        // A replica of a secret takes no writes.
        "InvalidParameterException" | "InvalidRequestException" if says(failure, "replica") => {
            ErrorKind::PermissionDenied
        }
        "InvalidRequestException" if is_marked(failure) => ErrorKind::NotFound,
        "ResourceNotFoundException" => ErrorKind::NotFound,
        "LimitExceededException" => ErrorKind::Full,
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "RequestThrottledException" => ErrorKind::Throttled,
        "ExpiredToken"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "NotAuthorized"
        | "OptInRequired"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException" => ErrorKind::Unauthenticated,
        _ if status == 429 => ErrorKind::Throttled,
        _ if status >= 500 => ErrorKind::Unavailable,
        _ => ErrorKind::Unexpected,
    }
}

/// Returns what stands in the way, as far as the service says it.
pub(crate) fn obstacle(failure: &Failure) -> Option<Obstacle> {
    let code = failure.code()?;
    if is_marked(failure) {
        return Some(Obstacle::Marked);
    }
    match (kind(failure), code) {
        (ErrorKind::PermissionDenied, "DecryptionFailure" | "EncryptionFailure") => {
            Some(Obstacle::Key)
        }
        // "Access to KMS is not allowed".
        (ErrorKind::PermissionDenied, _) if says(failure, "kms") => Some(Obstacle::Key),
        (ErrorKind::PermissionDenied, "InvalidParameterException" | "InvalidRequestException") => {
            Some(Obstacle::Replica)
        }
        (ErrorKind::PermissionDenied, _) => Some(Obstacle::Denied(failure.action)),
        (ErrorKind::Unauthenticated, _) => Some(Obstacle::BadCredentials),
        (ErrorKind::Full, _) => Some(Obstacle::Full),
        (
            ErrorKind::NotFound
            | ErrorKind::Throttled
            | ErrorKind::Unavailable
            | ErrorKind::TooLarge
            | ErrorKind::Malformed
            | ErrorKind::Unsafe
            | ErrorKind::Unexpected,
            _,
        ) => None,
    }
}

/// Returns the sort of failure it is when a role was to be taken: whoever is turned away
/// there is not known yet.
pub(crate) fn login(failure: &Failure) -> ErrorKind {
    match (failure.code(), kind(failure)) {
        (Some("IDPCommunicationError"), _) => ErrorKind::Unavailable,
        (_, kind @ (ErrorKind::Throttled | ErrorKind::Unavailable)) => kind,
        (
            _,
            ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::Unauthenticated
            | ErrorKind::TooLarge
            | ErrorKind::Full
            | ErrorKind::Malformed
            | ErrorKind::Unsafe
            | ErrorKind::Unexpected,
        ) => ErrorKind::Unauthenticated,
    }
}

fn says(failure: &Failure, word: &str) -> bool {
    failure.to_string().to_lowercase().contains(word)
}

#[cfg(test)]
mod tests {
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
}
