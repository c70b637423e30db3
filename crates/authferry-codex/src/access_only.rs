//! A login that Codex can use but not rotate.

use authferry_core::Secret;

use crate::raw::{RawAuthFile, replace};
use crate::{AuthFileError, Fault, Member, parse};

/// Returns the auth file with an empty refresh token, and otherwise byte for byte the same.
///
/// Every version of Codex runs on it until the access token expires. When the access token is
/// rejected, Codex spends no refresh token and does not change the file. [`parse`] rejects such
/// a file, so that it is never stored as a login.
pub fn access_only(secret: &Secret) -> Result<Secret, AuthFileError> {
    parse(secret)?;
    let file = RawAuthFile::of(secret).ok_or(AuthFileError::NotAnObject)?;
    Ok(replace(secret, [(file.tokens.refresh_token, "\"\"")]))
}

/// Returns whether this is the error of an access-only file.
#[must_use]
pub fn is_access_only(why: AuthFileError) -> bool {
    why == AuthFileError::Member {
        member: Member::RefreshToken,
        fault: Fault::Empty,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::{MARKER, auth_file, with, with_value};

    fn without_refresh_token(file: &str) -> String {
        let result = access_only(&Secret::new(file.into())).expect("a good file");
        String::from_utf8(result.expose().to_vec()).expect("a text")
    }

    #[test]
    fn only_the_refresh_token_is_removed() {
        let token = format!("\"{MARKER}-refresh-1\"");
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
            assert_eq!(without_refresh_token(&file), file.replace(&token, "\"\""));
        }
        let escaped = with("refresh-1", r"\u0072efresh-1");
        assert_eq!(
            without_refresh_token(&escaped),
            without_refresh_token(&auth_file(1))
        );
    }

    #[test]
    fn the_same_text_elsewhere_is_kept() {
        let same = with_value("refresh_token", "\"account\"");
        let same = same.replace(
            "\"last_refresh\"",
            "\"also\": \"account\", \"last_refresh\"",
        );
        assert!(without_refresh_token(&same).contains("\"also\": \"account\""));
    }

    #[test]
    fn an_access_only_file_does_not_parse() {
        let file = Secret::new(without_refresh_token(&auth_file(1)).into());
        let why = parse(&file).expect_err("an access-only file");
        assert!(is_access_only(why), "{why}");
        assert_eq!(access_only(&file).expect_err("an access-only file"), why);
        assert!(!is_access_only(AuthFileError::Empty));
    }
}
