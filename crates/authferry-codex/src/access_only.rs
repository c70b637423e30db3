//! A login that can be used and not rotated.

use authferry_core::Secret;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Fault, Member, Unusable, parse};

/// Makes an auth file whose refresh token is empty, and which is otherwise the same to the
/// byte.
///
/// Every version of Codex runs on it until the access token ends, spends nothing when that
/// is refused, and leaves the file as it is. To [`parse`] it is unusable, so that it is
/// never taken for a login that could be kept.
pub fn access_only(secret: &Secret) -> Result<Secret, Unusable> {
    parse(secret)?;
    let bytes = secret.expose();
    let file: File<'_> = serde_json::from_slice(bytes).map_err(|_| Unusable::NotAnObject)?;
    let token = file.tokens.refresh_token.get();
    // A part of the text by its own place in memory: a search for the token could find the
    // same text elsewhere.
    let start = token.as_ptr().addr() - bytes.as_ptr().addr();
    let rest = &bytes[start + token.len()..];
    let mut without = Vec::with_capacity(start + EMPTY.len() + rest.len());
    without.extend_from_slice(&bytes[..start]);
    without.extend_from_slice(EMPTY);
    without.extend_from_slice(rest);
    Ok(Secret::new(without))
}

/// Returns whether this fault is the one of an access-only file.
#[must_use]
pub fn is_access_only(why: Unusable) -> bool {
    why == Unusable::Member {
        member: Member::RefreshToken,
        fault: Fault::Empty,
    }
}

const EMPTY: &[u8] = b"\"\"";

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    tokens: Tokens<'a>,
}

#[derive(Deserialize)]
struct Tokens<'a> {
    #[serde(borrow)]
    refresh_token: &'a RawValue,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::{MARK, auth_file, with, with_value};

    fn made(file: &str) -> String {
        let made = access_only(&Secret::new(file.into())).expect("a good file");
        String::from_utf8(made.expose().to_vec()).expect("a text")
    }

    #[test]
    fn nothing_but_the_refresh_token_is_taken_out() {
        let token = format!("\"{MARK}-refresh-1\"");
        for file in [
            auth_file(1),
            auth_file(1).replace('\n', "\r\n"),
            auth_file(1).replace(['\n', ' '], ""),
            with(
                "\"tokens\": {",
                r#""refresh_token": "other", "tokens": {"more": null,"#,
            ),
        ] {
            assert_eq!(file.matches(&token).count(), 1, "{file}");
            assert_eq!(made(&file), file.replace(&token, "\"\""));
        }
        let escaped = with("refresh-1", r"\u0072efresh-1");
        assert_eq!(made(&escaped), made(&auth_file(1)));
    }

    #[test]
    fn a_text_that_is_the_same_elsewhere_stays() {
        let same = with_value("refresh_token", "\"account\"");
        let same = same.replace(
            "\"last_refresh\"",
            "\"also\": \"account\", \"last_refresh\"",
        );
        assert!(made(&same).contains("\"also\": \"account\""));
    }

    #[test]
    fn what_is_made_is_no_login_to_anybody_who_keeps_logins() {
        let made = Secret::new(made(&auth_file(1)).into());
        let why = parse(&made).expect_err("not one that can be rotated");
        assert!(is_access_only(why), "{why}");
        assert_eq!(access_only(&made).expect_err("made of nothing"), why);
        assert!(!is_access_only(Unusable::Empty));
    }
}
