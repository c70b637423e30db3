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
        Why::Said { .. } | Why::Late | Why::Broken(_) | Why::TooLong | Why::Unintelligible(_) => {
            Known::Unknown
        }
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
        Why::TooLong => return ErrorKind::Malformed,
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
mod tests;
