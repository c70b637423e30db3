//! Why Codex could not rotate a login, according to its stderr.

use core::{fmt, iter};

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

/// Classifies the failed rotation in Codex's stderr; `None` if there is no failure.
///
/// Versions up to 0.163.0 quote the provider's response and its code. Later versions paraphrase it
/// if the access token has expired, and otherwise log only its status. Statuses 400 and 401 count
/// as a refusal, from the provider or from a gateway.
///
/// `account_is_null`: after a refresh, Codex reported no account. Versions from 0.130.0 on do so
/// after a refusal that they consider permanent, and after no other failure. It counts if stderr
/// reports no failure.
///
/// The result contains none of the text: a proxy's response may contain anything.
#[must_use]
pub fn classify_failure(stderr: &str, account_is_null: bool) -> Option<RefreshFailure> {
    let mut reports = about_refresh(stderr).peekable();
    if reports.peek().is_none() {
        return account_is_null.then_some(RefreshFailure::Refused);
    }
    let mut failure = RefreshFailure::Transient;
    for report in reports {
        let has_any = |phrases: &[&str]| phrases.iter().any(|phrase| report.contains(phrase));
        if let Some((_, death)) = DEATHS.iter().find(|(phrases, _)| has_any(phrases)) {
            return Some(RefreshFailure::Dead(*death));
        }
        if has_any(REFUSALS) || matches!(status(report), Some(400 | 401)) {
            failure = RefreshFailure::Refused;
        }
    }
    Some(failure)
}

/// Returns whether Codex knows more of a refusal than it reports: it logged only the status of a
/// response that it considers permanent. It then names the reason on an
/// [`ended_copy`](crate::ended_copy). `account_is_null`: see [`classify_failure`].
///
/// Codex considers each 401 permanent, and a 400 only with a known code. It retries any other 400
/// as an outage, and never names its reason.
#[must_use]
pub fn hides_reason(stderr: &str, account_is_null: bool) -> bool {
    let is_hidden = |line: &str| {
        let has_only_status = line.contains("status=") && !line.contains("detail=");
        match status(line).filter(|_| has_only_status) {
            Some(401) => true,
            Some(400) => account_is_null,
            Some(_) | None => false,
        }
    };
    let is_silent = about_refresh(stderr).next().is_none();
    is_silent && account_is_null || about_refresh(stderr).any(is_hidden)
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
const REFUSALS: &[&str] = &["invalid_grant", "Your access token could not be refreshed"];

const PREFIX: &str = "Failed to refresh token";
const REFRESHED: &str = "could not be refreshed";

/// Returns the reports of a failed refresh. The response that a report quotes may have several
/// lines: the provider formats its JSON.
fn about_refresh(stderr: &str) -> impl Iterator<Item = &str> {
    let mut rest = stderr;
    iter::from_fn(move || {
        while !rest.is_empty() {
            let is_report = |line: &str| line.contains(PREFIX) || line.contains(REFRESHED);
            let (line, _) = rest.split_once('\n').unwrap_or((rest, ""));
            let length = if is_report(line) {
                let lines = rest.split_inclusive('\n');
                let more = lines
                    .skip(1)
                    .take_while(|it| !begins_a_record(it) && !is_report(it));
                line.len() + 1 + more.map(str::len).sum::<usize>()
            } else {
                line.len() + 1
            };
            let (report, next) = rest.split_at(length.min(rest.len()));
            rest = next;
            if is_report(line) {
                return Some(report);
            }
        }
        None
    })
}

/// Whether a line begins a record of the log, with its time, or a message of Codex.
fn begins_a_record(line: &str) -> bool {
    let is_time = |line: &str| {
        let date = line.get(..11).unwrap_or_default();
        let form = |(byte, shape): (u8, u8)| match shape {
            b'0' => byte.is_ascii_digit(),
            _ => byte == shape,
        };
        !date.is_empty() && date.bytes().zip(*b"0000-00-00T").all(form)
    };
    is_time(line)
        || ["ERROR", "WARN", "Error"]
            .iter()
            .any(|it| line.starts_with(it))
}

/// Returns the status in a line such as "Failed to refresh token: 401 Unauthorized: {…}" or
/// "Failed to refresh token status=401 Unauthorized". Only the text right after the prefix counts,
/// because a quoted response may contain other numbers.
fn status(line: &str) -> Option<u16> {
    let is_separator = |c: char| c.is_ascii_whitespace() || ":=\",{(".contains(c);
    let mut rest = line.split_once(PREFIX)?.1.trim_start_matches(is_separator);
    for word in [PREFIX, "status"] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
        rest = rest.trim_start_matches(is_separator);
    }
    let number = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    number.parse().ok().filter(|_| number.len() == 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: &str = "2026-11-23T15:23:45.756041Z ERROR codex_login::auth::manager: ";
    const CORE: &str = "2026-11-23T15:24:11.210852Z ERROR codex_core::auth: ";

    fn classify(line: &str, account_is_null: bool) -> Option<RefreshFailure> {
        let with_others =
            format!("WARNING: proceeding, even though we could not create PATH aliases\n{line}\n");
        classify_failure(&with_others, account_is_null)
    }

    #[test]
    fn a_reason_makes_a_login_dead() {
        use Death::{Expired, Reused, Revoked};
        let because = "Your access token could not be refreshed because your refresh token";
        for (text, death) in [
            (
                ": 401 Unauthorized: {\"error\": {\"code\": \"refresh_token_reused\"}}",
                Reused,
            ),
            (
                ": 400 Bad Request: {\"error\": {\"code\": \"refresh_token_reused\"}}",
                Reused,
            ),
            (
                " status=401 Unauthorized detail=TokenErrorDetail { error_code: Some(\"refresh_token_reused\"), .. }",
                Reused,
            ),
            (&format!(": {because} was already used. Please"), Reused),
            (
                ": 400 Bad Request: {\"error\": {\"code\": \"refresh_token_expired\"}}",
                Expired,
            ),
            (&format!(": {because} has expired. Please"), Expired),
            (
                ": 401 Unauthorized: {\"code\": \"refresh_token_invalidated\"}",
                Revoked,
            ),
            (
                ": 401 Unauthorized: {\n  \"error\": {\n    \"message\": \"made up\",\n    \"code\": \"refresh_token_expired\"\n  }\n}",
                Expired,
            ),
            (&format!(": {because} was revoked. Please"), Revoked),
        ] {
            assert_classified(text, Some(RefreshFailure::Dead(death)));
        }
    }

    #[test]
    fn a_400_or_401_without_a_reason_is_a_refusal() {
        for text in [
            ": 400 Bad Request: {\"error\": \"invalid_grant\"}",
            ": 400 Bad Request: {\"error\": {\"code\": \"other\"}}",
            ": 401 Unauthorized: <html>Sign in to the network</html>",
            ": Failed to refresh token: 400 Bad Request: m",
            " status=400 Bad Request",
            " status=401 Unauthorized",
            " status=400 Bad Request detail=TokenErrorDetail { error_code: Some(\"invalid_refresh_token_ciphertext_integrity\"), .. }",
            ": Your access token could not be refreshed. Please log out and sign in again.",
            // As JSON, if the job asks for it.
            "\",\"status\":\"401 Unauthorized\"}}",
        ] {
            assert_classified(text, Some(RefreshFailure::Refused));
        }
    }

    #[test]
    fn any_other_failure_is_an_outage() {
        for text in [
            " status=408 Request Timeout",
            " status=429 Too Many Requests",
            " status=500 Internal Server Error",
            ": Failed to refresh token: 500 Internal Server Error",
            ": 502 Bad Gateway: <html>401 400 Unauthorized</html>",
            ": OAuth token response is invalid",
            ": error sending request for url (http://127.0.0.1/)",
        ] {
            assert_classified(text, Some(RefreshFailure::Transient));
        }
        let other = format!("{LOGIN}Codex could not find bubblewrap on PATH: 401 Unauthorized");
        assert_eq!(classify(&other, false), None);
    }

    /// Asserts the class of a failure in the log of either crate.
    #[track_caller]
    fn assert_classified(text: &str, expected: Option<RefreshFailure>) {
        for source in [LOGIN, CORE] {
            let line = format!("{source}Failed to refresh token{text}");
            assert_eq!(classify(&line, false), expected, "{line}");
        }
    }

    #[test]
    fn a_missing_account_is_a_refusal_without_a_contradicting_line() {
        let refused = Some(RefreshFailure::Refused);
        assert_eq!(classify_failure("", false), None);
        assert_eq!(classify_failure("", true), refused);
        assert_eq!(classify("", true), refused);
        let outage = format!("{LOGIN}Failed to refresh token: error sending request for url");
        assert_eq!(classify(&outage, true), Some(RefreshFailure::Transient));
        let refusal = format!("{LOGIN}Failed to refresh token status=401 Unauthorized");
        assert_eq!(classify(&format!("{outage}\n{refusal}"), false), refused);
    }

    #[test]
    fn codex_hides_the_reason_of_a_permanent_refusal_that_it_logs_by_status() {
        let line = |text: &str| format!("other\n{LOGIN}Failed to refresh token{text}\n");
        for (text, with_account, without_account) in [
            (" status=401 Unauthorized", true, true),
            (" status=400 Bad Request", false, true),
            (" status=500 Internal Server Error", false, false),
            // The reason would be in the line.
            (": 401 Unauthorized: {\"error\": {}}", false, false),
            (
                " status=401 Unauthorized detail=TokenErrorDetail { error_code: None, .. }",
                false,
                false,
            ),
            (
                ": Your access token could not be refreshed. Please log out and sign in again.",
                false,
                false,
            ),
        ] {
            assert_eq!(hides_reason(&line(text), false), with_account, "{text}");
            assert_eq!(hides_reason(&line(text), true), without_account, "{text}");
        }
        assert!(hides_reason("other\n", true));
        assert!(!hides_reason("other\n", false));
    }
}
