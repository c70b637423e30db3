//! Classifies failed calls, for the store's state and for callers. Pure functions.

use authferry_core::ErrorKind;

use crate::failure::{AwsError, ErrorSource, Obstacle};

/// The outcome of a failed write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// The secret is not in the expected state.
    Conflict,
    /// The write did not happen.
    Refused,
    /// The write may have happened.
    Unknown,
}

/// Classifies a failed `PutSecretValue` or `CreateSecret`.
pub(crate) fn put(failure: &AwsError) -> WriteOutcome {
    match failure.code() {
        // The secret does not exist: it was deleted, or never created.
        Some("ResourceNotFoundException") => WriteOutcome::Conflict,
        _ => write_outcome(failure),
    }
}

/// Classifies a failed move of the label.
///
/// AWS has several errors for a label that is not on the expected version. All count only as a
/// conflict: the caller reads before it tries again.
pub(crate) fn promote(failure: &AwsError) -> WriteOutcome {
    match failure.code() {
        Some("InvalidParameterException" | "ResourceNotFoundException") => WriteOutcome::Conflict,
        Some("InvalidRequestException") if !is_deletion_scheduled(failure) => {
            WriteOutcome::Conflict
        }
        _ => write_outcome(failure),
    }
}

fn write_outcome(failure: &AwsError) -> WriteOutcome {
    match &failure.cause {
        ErrorSource::ErrorResponse { status, .. } if *status < 500 => WriteOutcome::Refused,
        ErrorSource::NoCredentials { .. }
        | ErrorSource::NotSent(_)
        | ErrorSource::Plaintext(_)
        | ErrorSource::Unreached(_) => WriteOutcome::Refused,
        ErrorSource::ErrorResponse { .. }
        | ErrorSource::Timeout
        | ErrorSource::Broken(_)
        | ErrorSource::TooLong
        | ErrorSource::Unintelligible(_) => WriteOutcome::Unknown,
    }
}

/// Returns whether the secret is scheduled for deletion.
pub(crate) fn is_deletion_scheduled(failure: &AwsError) -> bool {
    failure.code() == Some("InvalidRequestException") && mentions(failure, "delet")
}

/// Returns the kind of the error for callers.
pub(crate) fn kind(failure: &AwsError) -> ErrorKind {
    let (status, code) = match &failure.cause {
        ErrorSource::ErrorResponse { status, code, .. } => (*status, code.as_str()),
        ErrorSource::NoCredentials { kind, .. } => return *kind,
        ErrorSource::Unreached(_) | ErrorSource::Timeout | ErrorSource::Broken(_) => {
            return ErrorKind::Unavailable;
        }
        ErrorSource::Plaintext(_) => return ErrorKind::Unsafe,
        ErrorSource::NotSent(_) | ErrorSource::Unintelligible(_) => return ErrorKind::Unexpected,
        ErrorSource::TooLong => return ErrorKind::Malformed,
    };
    match code {
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedAccess" => {
            ErrorKind::PermissionDenied
        }
        // The job may not use the secret's key, or the key is disabled.
        "DecryptionFailure" | "EncryptionFailure" => ErrorKind::PermissionDenied,
        // A replica of a secret accepts no writes.
        "InvalidParameterException" | "InvalidRequestException" if mentions(failure, "replica") => {
            ErrorKind::PermissionDenied
        }
        "InvalidRequestException" if is_deletion_scheduled(failure) => ErrorKind::NotFound,
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

/// Returns the obstacle that the service's error names.
pub(crate) fn obstacle(failure: &AwsError) -> Option<Obstacle> {
    let code = failure.code()?;
    if is_deletion_scheduled(failure) {
        return Some(Obstacle::DeletionScheduled);
    }
    match (kind(failure), code) {
        (ErrorKind::PermissionDenied, "DecryptionFailure" | "EncryptionFailure") => {
            Some(Obstacle::Key)
        }
        // The service's message is "Access to KMS is not allowed".
        (ErrorKind::PermissionDenied, _) if mentions(failure, "kms") => Some(Obstacle::Key),
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

/// Returns the kind of an error of STS. A refusal counts as unauthenticated, because the job has
/// no session yet.
pub(crate) fn role_error_kind(failure: &AwsError) -> ErrorKind {
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

fn mentions(failure: &AwsError, word: &str) -> bool {
    failure.to_string().to_lowercase().contains(word)
}

#[cfg(test)]
mod tests;
