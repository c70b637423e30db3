//! Made-up logins, and a detector for their leaks.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

/// Substrings of which every made-up token holds at least one.
///
/// A token is plain text, or base64 of a JSON object; the second marker is the base64 of the first
/// one there. See [`secrets_in`] for the exact strings of one auth file.
pub const MARKERS: [&str; 2] = ["made-up", "OiJtYWRlLXVw"];

/// The lifetime of an access token of the real service.
pub const ACCESS_LIFETIME: Duration = Duration::days(10);

/// One generation of a made-up login.
///
/// Every token is a function of these fields, so that equal fields give equal bytes. Two logins of
/// one account need different serials, or their tokens can be the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The account id in the file and in the claims: the workspace.
    pub account: String,
    /// The owner of the login.
    pub person: Person,
    /// The access token's session claims; `None` omits them.
    pub session: Option<Session>,
    /// The number of the generation, part of each of its tokens.
    pub serial: u32,
    /// When the tokens were issued (`iat`).
    pub issued: OffsetDateTime,
    /// When the access token expires (`exp`).
    pub ends: OffsetDateTime,
    /// When Codex last refreshed the file.
    pub last_refresh: OffsetDateTime,
    /// The refresh token; empty for an access-only file.
    pub refresh_token: String,
}

/// The claims that name a person. `None` omits a claim.
///
/// All members of a Business workspace share the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// `chatgpt_user_id`, in the claims of the provider.
    pub chatgpt_user_id: Option<String>,
    /// `user_id`, in the claims of the provider.
    pub user_id: Option<String>,
    /// `sub`.
    pub sub: Option<String>,
}

/// The access token's claims about the session that issued it. A refresh keeps them, and a `codex
/// login` changes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// `session_id`.
    pub id: String,
    /// `pwd_auth_time`, in milliseconds.
    pub password_time: i64,
}

impl Person {
    /// Returns a person with the same name in each claim.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let name = Some(name.to_owned());
        Self {
            chatgpt_user_id: name.clone(),
            user_id: name.clone(),
            sub: name,
        }
    }
}

impl Session {
    /// Returns an account's session with this number.
    #[must_use]
    pub fn numbered(account: &str, number: u32) -> Self {
        Self {
            id: format!("authsess_{account}_{number:04}"),
            password_time: 1_760_000_000_000 + i64::from(number),
        }
    }
}

impl Login {
    /// Makes up a generation that was issued at the given time.
    #[must_use]
    pub fn new(account: &str, serial: u32, issued: OffsetDateTime, lifetime: Duration) -> Self {
        Self {
            account: account.to_owned(),
            person: Person::named(&format!("user-of-{account}")),
            session: Some(Session::numbered(account, 0)),
            serial,
            issued,
            ends: issued + lifetime,
            last_refresh: issued,
            refresh_token: format!("made-up.refresh.{account}.{serial:04}"),
        }
    }

    /// Makes up the result of another `codex login` of the same person: the tokens of another
    /// serial, and a new session.
    #[must_use]
    pub fn logged_in_again(&self, serial: u32, issued: OffsetDateTime) -> Self {
        Self {
            person: self.person.clone(),
            session: Some(Session::numbered(&self.account, serial)),
            ..Self::new(&self.account, serial, issued, self.ends - self.issued)
        }
    }

    /// Makes up a login that was issued an hour ago: no Codex refreshes it.
    #[must_use]
    pub fn fresh() -> Self {
        Self::aged(Duration::hours(1))
    }

    /// Makes up a login whose access token expired an hour ago: every Codex refreshes it.
    #[must_use]
    pub fn stale() -> Self {
        Self::aged(ACCESS_LIFETIME + Duration::hours(1))
    }

    /// Makes up a login whose access token expires after `left`, and otherwise looks as with the
    /// real service at that time. A longer job must rotate it midway; a Codex up to 0.116.0 does so
    /// at once.
    #[must_use]
    pub fn ending_in(left: Duration) -> Self {
        Self::aged(ACCESS_LIFETIME - left)
    }

    /// Returns the same generation without its refresh token: usable until it expires.
    #[must_use]
    pub fn access_only(self) -> Self {
        Self {
            refresh_token: String::new(),
            ..self
        }
    }

    fn aged(age: Duration) -> Self {
        let now = OffsetDateTime::now_utc();
        Self::new("account-1", 1, now - age, ACCESS_LIFETIME)
    }

    /// Returns the access token: an unsigned JWT.
    #[must_use]
    pub fn access_token(&self) -> String {
        let scope = r#""scp":["openid","offline_access"]"#;
        let claims = match &self.session {
            Some(Session { id, password_time }) => {
                format!(r#"{scope},"session_id":"{id}","pwd_auth_time":{password_time}"#)
            }
            None => scope.to_owned(),
        };
        self.jwt("access", &claims)
    }

    /// Returns the id token: an unsigned JWT.
    #[must_use]
    pub fn id_token(&self) -> String {
        self.jwt("id", r#""email":"nobody@example.com""#)
    }

    /// Returns the auth file, formatted as Codex writes it.
    ///
    /// # Panics
    ///
    /// If `last_refresh` is not within the years 0 to 9999.
    #[must_use]
    pub fn auth_json(&self) -> String {
        // Written out because a JSON library may sort the members.
        format!(
            r#"{{
  "auth_mode": "chatgpt",
  "OPENAI_API_KEY": null,
  "tokens": {{
    "id_token": "{}",
    "access_token": "{}",
    "refresh_token": "{}",
    "account_id": "{}"
  }},
  "last_refresh": "{}"
}}"#,
            self.id_token(),
            self.access_token(),
            self.refresh_token,
            self.account,
            self.last_refresh
                .format(&Rfc3339)
                .expect("a year that RFC 3339 can write"),
        )
    }

    fn jwt(&self, kind: &str, claims: &str) -> String {
        let account = &self.account;
        let name = format!("{kind}.{account}.{:04}", self.serial);
        let claim = |name: &str, value: &Option<String>| {
            let value = value.as_ref();
            value.map_or_else(String::new, |value| format!(r#""{name}":"{value}""#))
        };
        let before = |claim: String| if claim.is_empty() { claim } else { claim + "," };
        let after = |claim: String| {
            if claim.is_empty() {
                claim
            } else {
                format!(",{claim}")
            }
        };
        let sub = before(claim("sub", &self.person.sub));
        let chatgpt_user_id = before(claim("chatgpt_user_id", &self.person.chatgpt_user_id));
        let user_id = after(claim("user_id", &self.person.user_id));
        // The marker has the same offset in both objects, so its base64 is the same in both.
        let header = r#"{"kid":"made-up","alg":"none","typ":"JWT"}"#;
        let payload = format!(
            r#"{{"jti":"made-up.{name}","iat":{},"exp":{},{sub}"https://api.openai.com/auth":{{"chatgpt_account_id":"{account}",{chatgpt_user_id}"chatgpt_plan_type":"plus"{user_id}}},{claims}}}"#,
            self.issued.unix_timestamp(),
            self.ends.unix_timestamp(),
        );
        let [header, payload, name] =
            [header, &payload, &name].map(|part| URL_SAFE_NO_PAD.encode(part));
        // Twelve characters are whole groups of base64, so this is base64 too.
        format!("{header}.{payload}.made-up-sig-{name}")
    }
}

/// Returns every string of an auth file that must not leak: the tokens, and each part of a JWT that
/// is too long to occur by chance.
///
/// # Panics
///
/// If the text holds no tokens: a search for nothing would find no leak.
#[must_use]
pub fn secrets_in(auth_json: &str) -> Vec<String> {
    let file: Value = serde_json::from_str(auth_json).expect("an auth file is JSON");
    let secrets: Vec<String> = ["id_token", "access_token", "refresh_token"]
        .iter()
        .filter_map(|name| file["tokens"][name].as_str())
        .flat_map(|token| std::iter::once(token).chain(token.split('.')))
        .filter(|text| text.len() >= 16)
        .map(str::to_owned)
        .collect();
    assert!(!secrets.is_empty(), "the auth file holds no tokens");
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login::new(
            "account-1",
            7,
            OffsetDateTime::UNIX_EPOCH + Duration::days(20_000),
            ACCESS_LIFETIME,
        )
    }

    #[test]
    fn the_same_fields_give_the_same_bytes() {
        assert_eq!(login().auth_json(), login().auth_json());
        let next = Login {
            serial: 8,
            ..login()
        };
        assert_ne!(login().access_token(), next.access_token());
        assert_ne!(login().id_token(), next.id_token());
    }

    #[test]
    fn a_token_is_a_jwt_with_the_claims_that_codex_reads() {
        let token = login().access_token();
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(parts.len(), 3);
        let decode = |part| URL_SAFE_NO_PAD.decode(part).expect("base64url");
        assert!(!decode(parts[2]).is_empty());
        let claims: Value = serde_json::from_slice(&decode(parts[1])).expect("JSON");
        assert_eq!(claims["iat"], 20_000 * 86_400);
        assert_eq!(claims["exp"], 20_010 * 86_400);
        assert_eq!(
            claims["https://api.openai.com/auth"]["chatgpt_account_id"],
            "account-1"
        );
    }

    #[test]
    fn the_claims_contain_person_and_session_unless_omitted() {
        let claims = |token: &str| -> Value {
            let payload = token.split('.').nth(1).expect("three parts");
            let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
            serde_json::from_slice(&payload).expect("JSON")
        };
        let full = Login {
            person: Person {
                chatgpt_user_id: Some("user-a".into()),
                user_id: Some("user-b".into()),
                sub: Some("user-c".into()),
            },
            ..login()
        };
        let id = claims(&full.id_token());
        let auth = &id["https://api.openai.com/auth"];
        assert_eq!(auth["chatgpt_user_id"], "user-a");
        assert_eq!(auth["user_id"], "user-b");
        assert_eq!(id["sub"], "user-c");
        let access = claims(&full.access_token());
        assert_eq!(access["session_id"], "authsess_account-1_0000");
        assert_eq!(access["pwd_auth_time"], 1_760_000_000_000_i64);
        let afresh = claims(&full.logged_in_again(8, full.issued).access_token());
        assert_ne!(afresh["session_id"], access["session_id"]);
        assert_ne!(afresh["pwd_auth_time"], access["pwd_auth_time"]);

        let bare = Login {
            person: Person {
                chatgpt_user_id: None,
                user_id: None,
                sub: None,
            },
            session: None,
            ..login()
        };
        let tokens = [bare.id_token(), bare.access_token()].map(|token| claims(&token));
        for claims in tokens {
            let auth = &claims["https://api.openai.com/auth"];
            for claim in [
                &claims["sub"],
                &claims["session_id"],
                &auth["user_id"],
                &auth["chatgpt_user_id"],
            ] {
                assert!(claim.is_null(), "{claims}");
            }
        }
    }

    #[test]
    fn every_secret_is_listed_and_contains_a_marker() {
        let login = login();
        let secrets = secrets_in(&login.auth_json());
        for token in [
            login.id_token(),
            login.access_token(),
            login.refresh_token.clone(),
        ] {
            assert!(secrets.contains(&token));
        }
        assert!(secrets.len() >= 3 + 2 * 3, "{secrets:?}");
        for secret in &secrets {
            assert!(
                MARKERS.iter().any(|marker| secret.contains(marker)),
                "{secret} has no marker"
            );
        }
        assert!(
            MARKERS.iter().all(|marker| !login.account.contains(marker)),
            "the account is no secret"
        );
    }
}
