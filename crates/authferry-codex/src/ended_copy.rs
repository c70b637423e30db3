//! A copy of a login whose access token has expired, with which Codex names the reason of a
//! refusal.
//!
//! Codex from 0.165.0 on logs only the status of a refused refresh while the access token is valid.
//! Once the access token has expired, Codex names the reason (measured on 0.165.0, 0.169.0 and
//! 0.171.0). So a rotation that was refused without a reason asks Codex once more, on such a copy.

use authferry_core::Secret;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::raw::{RawAuthFile, replace};
use crate::{AuthFileError, Home, Look, jwt::Payload, parse};

/// Returns the auth file with an access token that has expired, and otherwise byte for byte the
/// same, except for `last_refresh`: every version of Codex considers the login stale.
///
/// [`parse`] rejects the copy, so that it is never stored, adopted or rescued as a login. The
/// copy contains what it replaces: [`Look::restored`] undoes it without another source.
pub fn ended_copy(secret: &Secret) -> Result<Secret, AuthFileError> {
    parse(secret)?;
    let file = RawAuthFile::of(secret).ok_or(AuthFileError::NotAnObject)?;
    let access_token = file.tokens.access_token.get();
    let last_refresh = file.last_refresh.map_or("null", RawValue::get);
    let claims = Zeroizing::new(format!(
        r#"{{"iat":{IAT},"exp":{EXP},"access_token":{access_token},"last_refresh":{last_refresh}}}"#
    ));
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let claims = Zeroizing::new(URL_SAFE_NO_PAD.encode(&*claims));
    let token = Zeroizing::new(format!("\"{header}.{}{MARK}\"", *claims));
    let stale = file.last_refresh.filter(|it| it.get() != "null");
    let stale = stale.map(|it| (it, LAST_REFRESH));
    let token = Some((file.tokens.access_token, &**token));
    let copy = replace(secret, token.into_iter().chain(stale));
    match parse(&copy) {
        Err(AuthFileError::EndedCopy) => Ok(copy),
        // The copy may be too large.
        Err(why) => Err(why),
        Ok(_) => unreachable!("the access token has the mark"),
    }
}

/// Returns whether an access token is that of an ended copy.
pub(crate) fn is_marked(access_token: &str) -> bool {
    access_token.ends_with(MARK)
}

impl Look {
    /// Undoes an [`ended_copy`]: returns the login of which the file is a copy. If Codex has
    /// written another refresh token without an access token, the result is that new login with
    /// the earlier access token. Any other look is returned as it is.
    #[must_use]
    pub fn restored(self) -> Self {
        match self {
            Self::Unusable {
                secret,
                why: AuthFileError::EndedCopy,
            } => match original(&secret).map(|original| (parse(&original), original)) {
                Some((Ok(generation), secret)) => Self::Usable { secret, generation },
                Some((Err(_), _)) | None => Self::Unusable {
                    secret,
                    why: AuthFileError::EndedCopy,
                },
            },
            look @ (Self::Missing | Self::Unusable { .. } | Self::Usable { .. }) => look,
        }
    }
}

impl Home {
    /// Puts the login back in place of an [`ended_copy`] of it. Must not be called while a Codex
    /// may run in this home.
    pub fn undo_ended_copy(&self) {
        let is_copy = |look: &Look| {
            let why = AuthFileError::EndedCopy;
            matches!(look, Look::Unusable { why: it, .. } if *it == why)
        };
        if let Ok(look) = self.look()
            && is_copy(&look)
            && let Look::Usable { secret, .. } = look.restored()
        {
            // If this fails, `restored` still finds the login.
            self.place(&secret, is_copy).ok();
        }
    }
}

/// The signature of the access token: the mark.
const MARK: &str = ".authferry-ended-copy";

/// The lifetime in the copy: it ended before any Codex that can rotate was released.
const IAT: i64 = 1_577_836_800;
const EXP: i64 = 1_578_700_800;

/// The time of the last refresh in the copy, as JSON.
const LAST_REFRESH: &str = "\"2020-01-01T00:00:00Z\"";

/// Returns the auth file with the access token and the time that the copy has replaced. A time that
/// Codex has written since stays.
fn original(copy: &Secret) -> Option<Secret> {
    #[derive(Deserialize)]
    struct Claims<'a> {
        #[serde(borrow)]
        access_token: &'a RawValue,
        #[serde(borrow)]
        last_refresh: &'a RawValue,
    }
    let file = RawAuthFile::of(copy)?;
    let token: Zeroizing<String> =
        Zeroizing::new(serde_json::from_str(file.tokens.access_token.get()).ok()?);
    let payload = Payload::of(&token).filter(|_| is_marked(&token))?;
    let claims: Claims = payload.read()?;
    let time = file.last_refresh.filter(|it| it.get() == LAST_REFRESH);
    let time = time.map(|it| (it, claims.last_refresh.get()));
    let token = Some((file.tokens.access_token, claims.access_token.get()));
    Some(replace(copy, token.into_iter().chain(time)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::{MARKER, auth_file, home, is, jwt, secret, with, with_value, without};

    fn restored(copy: Secret) -> String {
        match Look::of(copy).restored() {
            Look::Usable { secret, .. } => {
                String::from_utf8(secret.expose().to_vec()).expect("a text")
            }
            other @ (Look::Missing | Look::Unusable { .. }) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_copy_is_no_login_and_is_undone_byte_for_byte() {
        for file in [
            auth_file(1),
            auth_file(1).replace('\n', "\r\n"),
            auth_file(1).replace(['\n', ' '], ""),
            with_value("access_token", "\"opaque\""),
            with_value("access_token", r#""\u006fpaque""#),
            with_value("last_refresh", "null"),
            without("last_refresh"),
            with(
                "\"tokens\": {",
                r#""access_token": "other", "tokens": {"more": null,"#,
            ),
        ] {
            let copy = ended_copy(&Secret::new(file.clone().into())).expect("a copy");
            assert_eq!(parse(&copy), Err(AuthFileError::EndedCopy), "{file}");
            assert_eq!(
                ended_copy(&copy).expect_err("a copy of a copy"),
                AuthFileError::EndedCopy
            );
            assert_eq!(restored(copy), file);
        }
    }

    #[test]
    fn every_codex_considers_a_copy_stale() {
        let copy = ended_copy(&secret(1)).expect("a copy");
        let file: serde_json::Value = serde_json::from_slice(copy.expose()).expect("JSON");
        let token = file["tokens"]["access_token"].as_str().expect("a text");
        let payload = Payload::of(token).expect("a JWT");
        assert_eq!(payload.lifetime(), (Some(IAT), Some(EXP)));
        assert_eq!(file["last_refresh"], "2020-01-01T00:00:00Z");
        assert!(
            token
                .split('.')
                .all(|part| URL_SAFE_NO_PAD.decode(part).is_ok())
        );
    }

    #[test]
    fn a_new_refresh_token_in_a_copy_is_not_lost() {
        let copy = ended_copy(&secret(1)).expect("a copy");
        let text = String::from_utf8(copy.expose().to_vec()).expect("a text");
        let written = text
            .replace(&format!("{MARKER}-refresh-1"), "next")
            .replace("2020-01-01", "2026-12-01");
        let restored = restored(Secret::new(written.into()));
        let expected = auth_file(1)
            .replace(&format!("{MARKER}-refresh-1"), "next")
            .replace("2026-11-23T10:20:30.123456789Z", "2026-12-01T00:00:00Z");
        assert_eq!(restored, expected);
    }

    #[test]
    fn a_damaged_copy_is_no_login() {
        let token = jwt("{}");
        let (unsigned, _) = token.rsplit_once('.').expect("three parts");
        let token = format!("\"{unsigned}{MARK}\"");
        for value in [token.as_str(), "\"x.authferry-ended-copy\""] {
            let file = Secret::new(with_value("access_token", value).into());
            let look = Look::of(file).restored();
            let why = AuthFileError::EndedCopy;
            assert!(matches!(look, Look::Unusable { why: it, .. } if it == why));
        }
    }

    #[test]
    fn a_home_gets_its_login_back() {
        let (_above, home) = home();
        let copy = ended_copy(&secret(1)).expect("a copy");
        assert!(home.place(&copy, |_| true).expect("room"));
        let look = home.look().expect("a look");
        assert!(matches!(look, Look::Unusable { .. }), "{look:?}");
        for _ in 0..2 {
            home.undo_ended_copy();
            assert!(is(&home.look().expect("a look"), 1));
        }
    }

    #[test]
    fn only_a_copy_is_undone() {
        let (_above, home) = home();
        let before = home.look().expect("a look");
        let after = home.look().expect("a look").restored();
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
        assert!(matches!(Look::Missing.restored(), Look::Missing));
    }
}
