use authferry_core::ErrorKind;
use authferry_http::Silence;

use super::*;

const PLACE: Place<'_> = Place {
    mount: "secret",
    path: "ci/codex",
};

fn no(status: u16, texts: &[&str]) -> Failure {
    Failure::Answer(Answer {
        status,
        texts: texts.iter().map(ToString::to_string).collect(),
        gone: None,
    })
}

/// What a write may have left.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    Another,
    Nothing(ErrorKind),
    Doubt(ErrorKind),
}

fn left(failure: Failure) -> Left {
    match of_write(failure, &PLACE) {
        Unwritten::Conflict => Left::Another,
        Unwritten::Refused(trouble) => Left::Nothing(trouble.kind()),
        Unwritten::Unknown(trouble) => Left::Doubt(trouble.kind()),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table, one row for each answer")]
fn every_answer_to_a_write_says_what_is_known() {
    let mismatch = "check-and-set parameter did not match the current version";
    for (failure, wanted) in [
        (no(400, &[mismatch]), Left::Another),
        (
            no(400, &["check-and-set parameter required for this call"]),
            Left::Nothing(ErrorKind::Unexpected),
        ),
        (
            no(400, &["error parsing check-and-set parameter"]),
            Left::Nothing(ErrorKind::Unexpected),
        ),
        (
            no(
                400,
                &[
                    "Waiting for the primary to upgrade from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service when the primary is finished.",
                ],
            ),
            Left::Nothing(ErrorKind::Unavailable),
        ),
        (no(400, &[]), Left::Nothing(ErrorKind::Unexpected)),
        (
            no(
                400,
                &[
                    "Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service shortly.",
                ],
            ),
            Left::Nothing(ErrorKind::Unavailable),
        ),
        // Only a no to the request is a conflict.
        (no(500, &[mismatch]), Left::Doubt(ErrorKind::Unavailable)),
        (
            no(403, &["permission denied"]),
            Left::Nothing(ErrorKind::PermissionDenied),
        ),
        (
            no(403, &["permission denied", "invalid token"]),
            Left::Nothing(ErrorKind::Unauthenticated),
        ),
        (
            no(
                404,
                &["no handler for route \"nope/data/x\". route entry not found."],
            ),
            Left::Nothing(ErrorKind::NotFound),
        ),
        (
            no(404, &["namespace not found"]),
            Left::Nothing(ErrorKind::NotFound),
        ),
        (
            no(405, &["unsupported operation"]),
            Left::Nothing(ErrorKind::Unexpected),
        ),
        (no(307, &[]), Left::Nothing(ErrorKind::Unexpected)),
        (
            no(412, &["required index state not present"]),
            Left::Nothing(ErrorKind::Unavailable),
        ),
        (
            no(413, &["http: request body too large"]),
            Left::Nothing(ErrorKind::TooLarge),
        ),
        (
            no(429, &["request path \"secret\": rate limit quota exceeded"]),
            Left::Nothing(ErrorKind::Throttled),
        ),
        (no(473, &[]), Left::Nothing(ErrorKind::Unavailable)),
        (
            no(500, &["internal error"]),
            Left::Doubt(ErrorKind::Unavailable),
        ),
        (
            no(500, &["JSON string value exceeds allowed length"]),
            Left::Nothing(ErrorKind::TooLarge),
        ),
        (
            no(
                500,
                &["put failed due to value being too large; got 1048600 bytes, max: 1048576 bytes"],
            ),
            Left::Nothing(ErrorKind::TooLarge),
        ),
        (
            no(501, &["not initialized"]),
            Left::Nothing(ErrorKind::Unavailable),
        ),
        (no(502, &[]), Left::Doubt(ErrorKind::Unavailable)),
        (
            no(503, &["Vault is sealed"]),
            Left::Doubt(ErrorKind::Unavailable),
        ),
        (no(504, &[]), Left::Doubt(ErrorKind::Unavailable)),
        (Failure::Unintelligible, Left::Doubt(ErrorKind::Malformed)),
        (
            Failure::Silent(Silence::Unreached("refused".into())),
            Left::Nothing(ErrorKind::Unavailable),
        ),
        (
            Failure::Silent(Silence::Elsewhere("https://x.example".into())),
            Left::Nothing(ErrorKind::Unavailable),
        ),
        (
            Failure::Silent(Silence::Unmade("?".into())),
            Left::Nothing(ErrorKind::Unexpected),
        ),
        (
            Failure::Silent(Silence::Late),
            Left::Doubt(ErrorKind::Unavailable),
        ),
        (
            Failure::Silent(Silence::Broken("reset".into())),
            Left::Doubt(ErrorKind::Unavailable),
        ),
    ] {
        let text = format!("{failure:?}");
        assert_eq!(left(failure), wanted, "{text}");
    }
}

#[test]
fn every_answer_to_a_read_says_why() {
    for (failure, wanted) in [
        (
            no(403, &["permission denied"]),
            "the token's policies do not allow this at secret/data/ci/codex",
        ),
        (
            no(403, &["1 error occurred: * permission denied"]),
            "the token's policies do not allow this at secret/data/ci/codex",
        ),
        (
            no(403, &["permission denied", "invalid token"]),
            "the token is wrong, has ended or is used up",
        ),
        (
            no(
                404,
                &["no handler for route \"secret/data/x\". route entry not found."],
            ),
            "nothing is mounted at secret",
        ),
        (
            no(404, &["namespace not found"]),
            "the server has no such namespace",
        ),
        (no(503, &["Vault is sealed"]), "the server is sealed"),
        (no(503, &["OpenBao is sealed"]), "the server is sealed"),
        (
            no(400, &["some", "words"]),
            "the server answers with status 400: some; words",
        ),
        (no(502, &[]), "the server answers with status 502"),
        (
            Failure::Unintelligible,
            "the answer is none that Vault or OpenBao would give",
        ),
        (Failure::Silent(Silence::Late), "no answer in time"),
    ] {
        assert_eq!(of_read(failure, &PLACE).to_string(), wanted);
    }
}

/// The words are OpenBao's and HashiCorp's own.
#[test]
#[expect(clippy::too_many_lines, reason = "a table, one row for each answer")]
fn every_refused_login_says_what_is_wrong() {
    let there = "the login at auth/jwt was refused: ";
    for (failure, wanted) in [
        (
            no(
                400,
                &[
                    "error validating token: invalid audience (aud) claim: audience claim does not match any expected audience",
                ],
            ),
            "the role allows another audience than the job's token has",
        ),
        (
            no(
                400,
                &[
                    "error validating claims: claim \"repository\" does not match any associated bound claim values",
                ],
            ),
            "the role is not for this job: claim \"repository\" does not match any associated bound claim values",
        ),
        (
            no(
                400,
                &["error validating claims: claim \"repository\" is missing"],
            ),
            "the role is not for this job: claim \"repository\" is missing",
        ),
        (
            no(
                400,
                &["error validating token: invalid subject (sub) claim"],
            ),
            "the role is not for this job: invalid subject (sub) claim",
        ),
        (
            no(400, &["claim \"sub\" not found in token"]),
            "the role is not for this job: claim \"sub\" not found in token",
        ),
        (
            no(
                400,
                &["error validating token: invalid expiration time (exp) claim: token is expired"],
            ),
            "the job's token has ended, or is not valid yet: invalid expiration time (exp) claim: token is expired",
        ),
        (
            no(
                400,
                &["error validating token: invalid not before (nbf) claim: token not yet valid"],
            ),
            "the job's token has ended, or is not valid yet: invalid not before (nbf) claim: token not yet valid",
        ),
        (
            no(400, &["error validating token: invalid issuer (iss) claim"]),
            "the auth method trusts another issuer than that of the job's token",
        ),
        (
            no(
                400,
                &[
                    "error validating token: error verifying token signature: no known key successfully validated the token signature",
                ],
            ),
            "the auth method knows no key that has signed the job's token",
        ),
        (
            no(400, &["missing role"]),
            "no role is named, and the auth method has no default",
        ),
        (
            no(400, &["role \"ci\" could not be found"]),
            "the auth method has no such role",
        ),
        (
            no(400, &["invalid role or secret ID"]),
            "the role ID or the secret ID is wrong, has ended or is used up",
        ),
        (
            no(400, &["could not load configuration"]),
            "there is no such auth method, or it is not configured",
        ),
        (
            no(403, &["permission denied"]),
            "there is no such auth method, or it is not configured",
        ),
        (
            no(
                404,
                &["no handler for route \"auth/jwt/login\". route entry not found."],
            ),
            "there is no such auth method, or it is not configured",
        ),
        (no(400, &["something new"]), "status 400: something new"),
    ] {
        let trouble = of_login(failure, "jwt");
        assert_eq!(trouble.to_string(), format!("{there}{wanted}"));
        assert_eq!(trouble.kind(), ErrorKind::Unauthenticated);
    }
    for (failure, wanted, kind) in [
        (
            no(404, &["namespace not found"]),
            "the server has no such namespace",
            ErrorKind::NotFound,
        ),
        (
            no(503, &["Vault is sealed"]),
            "the server is sealed",
            ErrorKind::Unavailable,
        ),
        (
            no(429, &[]),
            "the server answers with status 429",
            ErrorKind::Throttled,
        ),
        (
            Failure::Silent(Silence::Late),
            "no answer in time",
            ErrorKind::Unavailable,
        ),
    ] {
        let trouble = of_login(failure, "jwt");
        assert_eq!(trouble.to_string(), wanted);
        assert_eq!(trouble.kind(), kind);
    }
}

#[test]
fn a_token_is_bad_if_it_may_not_even_look_at_itself() {
    assert_eq!(of_look_up(&Ok(())), Token::Good);
    assert_eq!(
        of_look_up(&Err(no(403, &["permission denied"]))),
        Token::Bad
    );
    for unknown in [
        no(503, &["Vault is sealed"]),
        Failure::Silent(Silence::Late),
        Failure::Unintelligible,
    ] {
        assert_eq!(of_look_up(&Err(unknown)), Token::Good);
    }
}
