//! Why Codex could not rotate a login, as far as its error stream tells.

use core::fmt;

/// A rotation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The provider will never take this refresh token again.
    Dead(Death),
    /// Somebody does not take it and does not say why: the provider, or a gateway before it
    /// that has an answer of its own for everybody. It proves nothing of the token.
    Refused,
    /// It may go well another time: the provider is not well, or out of reach.
    Passing,
}

/// Why a refresh token is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Death {
    /// It was spent before.
    Reused,
    /// It is too old.
    Expired,
    /// It was revoked: somebody logged out, or changed the password.
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

/// Reads what Codex wrote to its error stream; `None` if it tells of no failed rotation.
///
/// Versions before 0.137 or so quote the provider's answer, with its code; later ones put
/// it in words of their own if the access token has ended, and else give its status alone. One
/// of 401 is a refusal then, whoever it comes from. One of 400 tells nothing, but a version
/// that calls it final does not ask the provider again: `asked` is how often it was told to
/// rotate.
///
/// Nothing of the text is kept: who knows what a proxy puts into its answers.
#[must_use]
pub fn failure(stderr: &str, asked: usize) -> Option<Failure> {
    let lines: Vec<&str> = stderr
        .lines()
        .filter(|line| is_of_a_refresh(line))
        .collect();
    if lines.is_empty() {
        return None;
    }
    let told = |words: &[&str]| {
        let tells = |line: &&str| words.iter().any(|word| line.contains(word));
        lines.iter().any(tells)
    };
    let death = DEATHS
        .iter()
        .find(|(words, _)| told(words))
        .map(|(_, death)| *death);
    let refused = || {
        lines
            .iter()
            .filter(|line| line.contains("status=400"))
            .count()
    };
    match death {
        Some(death) => Some(Failure::Dead(death)),
        None if told(REFUSALS) => Some(Failure::Refused),
        None if asked > 1 && lines.len() == 1 && refused() == 1 => Some(Failure::Refused),
        None => Some(Failure::Passing),
    }
}

/// The most telling first: one failure can be told in several ways.
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

/// What is said of any refusal, whoever it comes from.
const REFUSALS: &[&str] = &[
    "invalid_grant",
    "401 Unauthorized",
    "Your access token could not be refreshed",
];

fn is_of_a_refresh(line: &str) -> bool {
    line.contains("Failed to refresh token") || line.contains("could not be refreshed")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: &str = "2026-11-23T15:23:45.756041Z ERROR codex_login::auth::manager: ";
    const CORE: &str = "2026-11-23T15:24:11.210852Z ERROR codex_core::auth: ";

    fn told(line: &str, asked: usize) -> Option<Failure> {
        let with_others =
            format!("WARNING: proceeding, even though we could not create PATH aliases\n{line}\n");
        failure(&with_others, asked)
    }

    #[test]
    fn what_codex_was_seen_to_write_is_told_apart() {
        use Death::{Expired, Reused, Revoked};
        let dead = |death| Some(Failure::Dead(death));
        let because = "Your access token could not be refreshed because your refresh token";
        let refused = Some(Failure::Refused);
        let passing = Some(Failure::Passing);
        for (place, text, found) in [
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
                passing,
            ),
            (
                LOGIN,
                "Failed to refresh token status=500 Internal Server Error",
                passing,
            ),
            (
                LOGIN,
                "Failed to refresh token: Failed to refresh token: 500 Internal Server Error",
                passing,
            ),
            (
                LOGIN,
                "Failed to refresh token: 400 Bad Request: {\"error\": {\"code\": \"other\"}}",
                passing,
            ),
            (
                LOGIN,
                "Failed to refresh token: OAuth token response is invalid",
                passing,
            ),
            (
                CORE,
                "Failed to refresh token: error sending request for url (http://127.0.0.1/)",
                passing,
            ),
            (
                LOGIN,
                "Codex could not find bubblewrap on PATH: 401 Unauthorized",
                None,
            ),
        ] {
            assert_eq!(told(&format!("{place}{text}"), 1), found, "{text}");
        }
        assert_eq!(failure("", 2), None);
    }

    #[test]
    fn a_refusal_that_is_not_asked_for_again_is_final() {
        let line = format!("{LOGIN}Failed to refresh token status=400 Bad Request");
        assert_eq!(told(&line, 2), Some(Failure::Refused));
        assert_eq!(told(&format!("{line}\n{line}"), 2), Some(Failure::Passing));
        let lost = format!("{LOGIN}Failed to refresh token: error sending request for url");
        assert_eq!(told(&lost, 2), Some(Failure::Passing));
    }
}
