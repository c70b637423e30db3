//! A made-up login, to ask Codex whether it would use a login.

use authferry_core::Secret;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::raw::RawAuthFile;

/// How long a made-up login seems to be valid: far beyond the rotation rule of every version.
const LIFETIME: Duration = Duration::days(30);

/// Returns a made-up login of the same workspace as this login, or of a made-up workspace.
///
/// With the real login, Codex would rotate it if it is due. Codex verifies no signature, and
/// judges the settings that name workspaces by `account_id`. `now`: in Unix seconds.
#[must_use]
pub fn stand_in(login: Option<&Secret>, now: i64) -> Secret {
    let now = OffsetDateTime::from_unix_timestamp(now).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let account = login.and_then(account_of);
    let account = account.unwrap_or_else(|| "stand-in-workspace".to_owned());
    let ends = now.checked_add(LIFETIME).unwrap_or(now);
    let claims = json!({"iat": now.unix_timestamp(), "exp": ends.unix_timestamp()});
    let parts = [
        r#"{"alg":"none","typ":"JWT"}"#,
        &claims.to_string(),
        "stand-in",
    ];
    let token = parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let file = json!({
        "auth_mode": "chatgpt",
        "OPENAI_API_KEY": null,
        "tokens": {
            "id_token": token,
            "access_token": token,
            "refresh_token": "stand-in-refresh-token",
            "account_id": account,
        },
        "last_refresh": now.format(&Rfc3339).unwrap_or_default(),
    });
    Secret::new(file.to_string().into())
}

fn account_of(login: &Secret) -> Option<String> {
    let account = RawAuthFile::of(login)?.tokens.account_id?;
    serde_json::from_str(account.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{made_up, parse};

    #[test]
    fn only_the_workspace_is_that_of_the_login() {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let real = made_up::secret(1);
        let made_up = stand_in(Some(&real), now);
        let text = String::from_utf8(made_up.expose().to_vec()).expect("JSON");
        let mut parts = 0;
        crate::for_each_token(&real, |token| {
            parts += 1;
            assert!(!text.contains(token), "a token of the real login");
        });
        assert!(parts > 0);
        let [real, made_up] = [real, made_up].map(|it| parse(&it).expect("a login"));
        assert_eq!(real.identity.account, made_up.identity.account);
        assert_ne!(real.fingerprint, made_up.fingerprint);
        assert!(!made_up.issued.is_due(now + Duration::DAY.whole_seconds()));
        parse(&stand_in(None, now)).expect("a login");
    }
}
