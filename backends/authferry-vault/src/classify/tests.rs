use authferry_core::ErrorKind;
use authferry_http::HttpError;

use super::*;

const PLACE: PathPart<'_> = PathPart {
    mount: "secret",
    path: "ci/codex",
};

fn error_response(status: u16, texts: &[&str]) -> VaultFailure {
    VaultFailure::ErrorResponse(ErrorResponse {
        status,
        texts: texts.iter().map(ToString::to_string).collect(),
        deleted: None,
    })
}

/// The result of a failed write.
#[derive(Debug, PartialEq, Eq)]
enum WriteResult {
    Conflict,
    Refused(ErrorKind),
    Unknown(ErrorKind),
}

fn classify_write(failure: VaultFailure) -> WriteResult {
    match write_error(failure, &PLACE) {
        Unwritten::Conflict => WriteResult::Conflict,
        Unwritten::Refused(error) => WriteResult::Refused(error.kind()),
        Unwritten::Unknown(error) => WriteResult::Unknown(error.kind()),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table, one row for each response")]
fn every_write_error_is_classified() {
    let mismatch = "check-and-set parameter did not match the current version";
    for (failure, wanted) in [
        (error_response(400, &[mismatch]), WriteResult::Conflict),
        (
            error_response(400, &["check-and-set parameter required for this call"]),
            WriteResult::Refused(ErrorKind::Unexpected),
        ),
        (
            error_response(400, &["error parsing check-and-set parameter"]),
            WriteResult::Refused(ErrorKind::Unexpected),
        ),
        (
            error_response(
                400,
                &[
                    "Waiting for the primary to upgrade from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service when the primary is finished.",
                ],
            ),
            WriteResult::Refused(ErrorKind::Unavailable),
        ),
        (
            error_response(400, &[]),
            WriteResult::Refused(ErrorKind::Unexpected),
        ),
        (
            error_response(
                400,
                &[
                    "Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service shortly.",
                ],
            ),
            WriteResult::Refused(ErrorKind::Unavailable),
        ),
        // Only a 400 is a conflict.
        (
            error_response(500, &[mismatch]),
            WriteResult::Unknown(ErrorKind::Unavailable),
        ),
        (
            error_response(403, &["permission denied"]),
            WriteResult::Refused(ErrorKind::PermissionDenied),
        ),
        (
            error_response(403, &["permission denied", "invalid token"]),
            WriteResult::Refused(ErrorKind::Unauthenticated),
        ),
        (
            error_response(
                404,
                &["no handler for route \"nope/data/x\". route entry not found."],
            ),
            WriteResult::Refused(ErrorKind::NotFound),
        ),
        (
            error_response(404, &["namespace not found"]),
            WriteResult::Refused(ErrorKind::NotFound),
        ),
        (
            error_response(405, &["unsupported operation"]),
            WriteResult::Refused(ErrorKind::Unexpected),
        ),
        (
            error_response(307, &[]),
            WriteResult::Refused(ErrorKind::Unexpected),
        ),
        (
            error_response(412, &["required index state not present"]),
            WriteResult::Refused(ErrorKind::Unavailable),
        ),
        (
            error_response(413, &["http: request body too large"]),
            WriteResult::Refused(ErrorKind::TooLarge),
        ),
        (
            error_response(429, &["request path \"secret\": rate limit quota exceeded"]),
            WriteResult::Refused(ErrorKind::Throttled),
        ),
        (
            error_response(473, &[]),
            WriteResult::Refused(ErrorKind::Unavailable),
        ),
        (
            error_response(500, &["internal error"]),
            WriteResult::Unknown(ErrorKind::Unavailable),
        ),
        (
            error_response(500, &["JSON string value exceeds allowed length"]),
            WriteResult::Refused(ErrorKind::TooLarge),
        ),
        (
            error_response(
                500,
                &["put failed due to value being too large; got 1048600 bytes, max: 1048576 bytes"],
            ),
            WriteResult::Refused(ErrorKind::TooLarge),
        ),
        (
            error_response(501, &["not initialized"]),
            WriteResult::Refused(ErrorKind::Unavailable),
        ),
        (
            error_response(502, &[]),
            WriteResult::Unknown(ErrorKind::Unavailable),
        ),
        (
            error_response(503, &["Vault is sealed"]),
            WriteResult::Unknown(ErrorKind::Unavailable),
        ),
        (
            error_response(504, &[]),
            WriteResult::Unknown(ErrorKind::Unavailable),
        ),
        (
            VaultFailure::Unintelligible,
            WriteResult::Unknown(ErrorKind::Malformed),
        ),
        (
            VaultFailure::Silent(HttpError::ConnectFailed("refused".into())),
            WriteResult::Refused(ErrorKind::Unavailable),
        ),
        (
            VaultFailure::Silent(HttpError::ForeignRedirect("https://x.example".into())),
            WriteResult::Refused(ErrorKind::Unavailable),
        ),
        (
            VaultFailure::Silent(HttpError::InvalidRequest("?".into())),
            WriteResult::Refused(ErrorKind::Unexpected),
        ),
        (
            VaultFailure::Silent(HttpError::Timeout),
            WriteResult::Unknown(ErrorKind::Unavailable),
        ),
        (
            VaultFailure::Silent(HttpError::ConnectionLost("reset".into())),
            WriteResult::Unknown(ErrorKind::Unavailable),
        ),
    ] {
        let text = format!("{failure:?}");
        assert_eq!(classify_write(failure), wanted, "{text}");
    }
}

#[test]
fn every_read_error_names_its_cause() {
    for (failure, wanted) in [
        (
            error_response(403, &["permission denied"]),
            "the token's policies deny access to secret/data/ci/codex",
        ),
        (
            error_response(403, &["1 error occurred: * permission denied"]),
            "the token's policies deny access to secret/data/ci/codex",
        ),
        (
            error_response(403, &["permission denied", "invalid token"]),
            "the Vault token is invalid, expired or used up",
        ),
        (
            error_response(
                404,
                &["no handler for route \"secret/data/x\". route entry not found."],
            ),
            "no secrets engine is mounted at secret",
        ),
        (
            error_response(404, &["namespace not found"]),
            "the server has no such namespace",
        ),
        (
            error_response(503, &["Vault is sealed"]),
            "the server is sealed",
        ),
        (
            error_response(503, &["OpenBao is sealed"]),
            "the server is sealed",
        ),
        (
            error_response(400, &["some", "words"]),
            "the server answers with status 400: some; words",
        ),
        (
            error_response(502, &[]),
            "the server answers with status 502",
        ),
        (
            VaultFailure::Unintelligible,
            "the response is not one of Vault or OpenBao",
        ),
        (
            VaultFailure::Silent(HttpError::Timeout),
            "the request timed out",
        ),
    ] {
        assert_eq!(read_error(failure, &PLACE).to_string(), wanted);
    }
}

/// The texts are OpenBao's and HashiCorp's.
#[test]
#[expect(clippy::too_many_lines, reason = "a table, one row for each response")]
fn every_refused_authentication_names_its_cause() {
    let prefix = "authentication at auth/jwt was refused: ";
    for (failure, wanted) in [
        (
            error_response(
                400,
                &[
                    "error validating token: invalid audience (aud) claim: audience claim does not match any expected audience",
                ],
            ),
            "the role does not allow the audience of the job's token",
        ),
        (
            error_response(
                400,
                &[
                    "error validating claims: claim \"repository\" does not match any associated bound claim values",
                ],
            ),
            "the role does not allow this job's token: claim \"repository\" does not match any associated bound claim values",
        ),
        (
            error_response(
                400,
                &["error validating claims: claim \"repository\" is missing"],
            ),
            "the role does not allow this job's token: claim \"repository\" is missing",
        ),
        (
            error_response(
                400,
                &["error validating token: invalid subject (sub) claim"],
            ),
            "the role does not allow this job's token: invalid subject (sub) claim",
        ),
        (
            error_response(400, &["claim \"sub\" not found in token"]),
            "the role does not allow this job's token: claim \"sub\" not found in token",
        ),
        (
            error_response(
                400,
                &["error validating token: invalid expiration time (exp) claim: token is expired"],
            ),
            "the job's token has expired or is not valid yet: invalid expiration time (exp) claim: token is expired",
        ),
        (
            error_response(
                400,
                &["error validating token: invalid not before (nbf) claim: token not yet valid"],
            ),
            "the job's token has expired or is not valid yet: invalid not before (nbf) claim: token not yet valid",
        ),
        (
            error_response(400, &["error validating token: invalid issuer (iss) claim"]),
            "the auth method does not trust the issuer of the job's token",
        ),
        (
            error_response(
                400,
                &[
                    "error validating token: error verifying token signature: no known key successfully validated the token signature",
                ],
            ),
            "the auth method has no key that verifies the signature of the job's token",
        ),
        (
            error_response(400, &["missing role"]),
            "no role is given, and the auth method has no default role",
        ),
        (
            error_response(400, &["role \"ci\" could not be found"]),
            "the auth method has no such role",
        ),
        (
            error_response(400, &["invalid role or secret ID"]),
            "the role ID or the secret ID is wrong, expired or used up",
        ),
        (
            error_response(400, &["could not load configuration"]),
            "the auth method does not exist or is not configured",
        ),
        (
            error_response(403, &["permission denied"]),
            "the auth method does not exist or is not configured",
        ),
        (
            error_response(
                404,
                &["no handler for route \"auth/jwt/login\". route entry not found."],
            ),
            "the auth method does not exist or is not configured",
        ),
        (
            error_response(400, &["something new"]),
            "status 400: something new",
        ),
    ] {
        let error = auth_error(failure, "jwt");
        assert_eq!(error.to_string(), format!("{prefix}{wanted}"));
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    }
    for (failure, wanted, kind) in [
        (
            error_response(404, &["namespace not found"]),
            "the server has no such namespace",
            ErrorKind::NotFound,
        ),
        (
            error_response(503, &["Vault is sealed"]),
            "the server is sealed",
            ErrorKind::Unavailable,
        ),
        (
            error_response(429, &[]),
            "the server answers with status 429",
            ErrorKind::Throttled,
        ),
        (
            VaultFailure::Silent(HttpError::Timeout),
            "the request timed out",
            ErrorKind::Unavailable,
        ),
    ] {
        let error = auth_error(failure, "jwt");
        assert_eq!(error.to_string(), wanted);
        assert_eq!(error.kind(), kind);
    }
}

#[test]
fn a_token_that_cannot_look_itself_up_is_unknown() {
    assert_eq!(token_state(&Ok(())), TokenState::Known);
    assert_eq!(
        token_state(&Err(error_response(403, &["permission denied"]))),
        TokenState::Unknown
    );
    for unknown in [
        error_response(503, &["Vault is sealed"]),
        VaultFailure::Silent(HttpError::Timeout),
        VaultFailure::Unintelligible,
    ] {
        assert_eq!(token_state(&Err(unknown)), TokenState::Known);
    }
}
