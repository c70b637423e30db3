//! Why Codex could not rotate a login, according to its stderr.

use core::fmt;

/// A rotation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefreshFailure {
    /// The provider rejects this refresh token for good.
    Dead(Death),
    /// The provider, or a gateway before it that answers every request alike, rejects the
    /// refresh token without a reason. This does not prove that the token is dead.
    Refused,
    /// A retry may succeed: the provider is failing or unreachable.
    Transient,
}

/// Why a refresh token is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Death {
    /// The token was already spent.
    Reused,
    /// The token has expired.
    Expired,
    /// The token was revoked: the user logged out or changed the password.
    Revoked,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reused => "its refresh token was spent before",
            Self::Expired => "its refresh token has expired",
            Self::Revoked => "its refresh token was revoked",
        })
    }
}

/// Classifies the failed rotation in Codex's stderr; `None` if stderr reports none.
///
/// Versions before 0.137 or so quote the provider's response and its code. Later versions
/// paraphrase it if the access token has expired, and otherwise log only its status. Status
/// 401 then counts as a refusal, from the provider or from a gateway. Status 400 alone is
/// ambiguous, but a version that treats it as final does not retry: `rotate_requests` is the
/// number of times that we asked Codex to rotate.
///
/// The result contains none of the text: a proxy's response may contain anything.
#[must_use]
pub fn classify_failure(stderr: &str, rotate_requests: usize) -> Option<RefreshFailure> {
    let lines: Vec<&str> = stderr
        .lines()
        .filter(|line| is_about_refresh(line))
        .collect();
    if lines.is_empty() {
        return None;
    }
    let has_any = |phrases: &[&str]| {
        let matches = |line: &&str| phrases.iter().any(|phrase| line.contains(phrase));
        lines.iter().any(matches)
    };
    let death = DEATHS
        .iter()
        .find(|(phrases, _)| has_any(phrases))
        .map(|(_, death)| *death);
    let count_of_400 = || {
        lines
            .iter()
            .filter(|line| line.contains("status=400"))
            .count()
    };
    match death {
        Some(death) => Some(RefreshFailure::Dead(death)),
        None if has_any(REFUSALS) => Some(RefreshFailure::Refused),
        None if rotate_requests > 1 && lines.len() == 1 && count_of_400() == 1 => {
            Some(RefreshFailure::Refused)
        }
        None => Some(RefreshFailure::Transient),
    }
}

/// The most specific first: one failure can match several phrases.
const DEATHS: &[(&[&str], Death)] = &[
    (
        &["refresh_token_reused", "refresh token was already used"],
        Death::Reused,
    ),
    (
        &["refresh_token_expired", "refresh token has expired"],
        Death::Expired,
    ),
    (
        &["refresh_token_invalidated", "refresh token was revoked"],
        Death::Revoked,
    ),
];

/// Phrases of a refusal, by the provider or by a gateway.
const REFUSALS: &[&str] = &[
    "invalid_grant",
    "401 Unauthorized",
    "Your access token could not be refreshed",
];

fn is_about_refresh(line: &str) -> bool {
    line.contains("Failed to refresh token") || line.contains("could not be refreshed")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: &str = "2026-11-23T15:23:45.756041Z ERROR codex_login::auth::manager: ";
    const CORE: &str = "2026-11-23T15:24:11.210852Z ERROR codex_core::auth: ";

    fn classify(line: &str, rotate_requests: usize) -> Option<RefreshFailure> {
        let with_others =
            format!("WARNING: proceeding, even though we could not create PATH aliases\n{line}\n");
        classify_failure(&with_others, rotate_requests)
    }

    #[test]
    fn messages_seen_from_codex_are_classified() {
        use Death::{Expired, Reused, Revoked};
        let dead = |death| Some(RefreshFailure::Dead(death));
        let because = "Your access token could not be refreshed because your refresh token";
        let refused = Some(RefreshFailure::Refused);
        let transient = Some(RefreshFailure::Transient);
        for (source, text, expected) in [
            (
                CORE,
                "Failed to refresh token: 401 Unauthorized: {\"error\": {\"code\": \"refresh_token_reused\"}}",
                dead(Reused),
            ),
            (
                LOGIN,
                "Failed to refresh token: 400 Bad Request: {\"error\": {\"code\": \"refresh_token_reused\"}}",
                dead(Reused),
            ),
            (
                LOGIN,
                &format!("Failed to refresh token: {because} was already used. Please"),
                dead(Reused),
            ),
            (
                CORE,
                "Failed to refresh token: 400 Bad Request: {\"error\": {\"code\": \"refresh_token_expired\"}}",
                dead(Expired),
            ),
            (
                LOGIN,
                &format!("Failed to refresh token: {because} has expired. Please"),
                dead(Expired),
            ),
            (
                LOGIN,
                "Failed to refresh token: 401 Unauthorized: {\"code\": \"refresh_token_invalidated\"}",
                dead(Revoked),
            ),
            (
                LOGIN,
                &format!("Failed to refresh token: {because} was revoked. Please"),
                dead(Revoked),
            ),
            (
                CORE,
                "Failed to refresh token: 400 Bad Request: {\"error\": \"invalid_grant\"}",
                refused,
            ),
            (
                LOGIN,
                "Failed to refresh token status=401 Unauthorized",
                refused,
            ),
            (
                LOGIN,
                "Failed to refresh token: Your access token could not be refreshed. Please log out and sign in again.",
                refused,
            ),
            (
                CORE,
                "Failed to refresh token: 401 Unauthorized: <html>Sign in to the network</html>",
                refused,
            ),
            (
                LOGIN,
                "Failed to refresh token status=400 Bad Request",
                transient,
            ),
            (
                LOGIN,
                "Failed to refresh token status=500 Internal Server Error",
                transient,
            ),
            (
                LOGIN,
                "Failed to refresh token: Failed to refresh token: 500 Internal Server Error",
                transient,
            ),
            (
                LOGIN,
                "Failed to refresh token: 400 Bad Request: {\"error\": {\"code\": \"other\"}}",
                transient,
            ),
            (
                LOGIN,
                "Failed to refresh token: OAuth token response is invalid",
                transient,
            ),
            (
                CORE,
                "Failed to refresh token: error sending request for url (http://127.0.0.1/)",
                transient,
            ),
            (
                LOGIN,
                "Codex could not find bubblewrap on PATH: 401 Unauthorized",
                None,
            ),
        ] {
            assert_eq!(classify(&format!("{source}{text}"), 1), expected, "{text}");
        }
        assert_eq!(classify_failure("", 2), None);
    }

    #[test]
    fn a_400_that_codex_does_not_retry_is_a_refusal() {
        let line = format!("{LOGIN}Failed to refresh token status=400 Bad Request");
        assert_eq!(classify(&line, 2), Some(RefreshFailure::Refused));
        assert_eq!(
            classify(&format!("{line}\n{line}"), 2),
            Some(RefreshFailure::Transient)
        );
        let lost = format!("{LOGIN}Failed to refresh token: error sending request for url");
        assert_eq!(classify(&lost, 2), Some(RefreshFailure::Transient));
    }
}
