//! Reads the payload of a JWT. The signature is not verified: Codex does not verify it either.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::value::JsonValue;

/// The decoded payload of a JWT. It is valid base64, and nothing else is checked.
pub(crate) struct Payload(Zeroizing<Vec<u8>>);

impl Payload {
    /// Decodes the payload of a token; `None` for an opaque token. Like Codex, this requires
    /// three non-empty parts and ignores further ones: authferry must accept every login that
    /// Codex accepts.
    pub(crate) fn of(token: &str) -> Option<Self> {
        let mut parts = token
            .split('.')
            .map(|part| Some(part).filter(|p| !p.is_empty()));
        let (_header, payload, _signature) = (parts.next()??, parts.next()??, parts.next()??);
        let mut json = Zeroizing::new(Vec::new());
        URL_SAFE_NO_PAD.decode_vec(payload, &mut json).ok()?;
        Some(Self(json))
    }

    /// Returns whether the payload is a JSON object.
    pub(crate) fn is_object(&self) -> bool {
        matches!(self.read::<JsonValue>(), Some(JsonValue::Object(_)))
    }

    /// Returns the claims `iat` and `exp`, in Unix seconds; `None` for a claim that is missing
    /// or not an integer.
    pub(crate) fn lifetime(&self) -> (Option<i64>, Option<i64>) {
        #[derive(Deserialize)]
        struct Iat {
            iat: Option<i64>,
        }
        #[derive(Deserialize)]
        struct Exp {
            exp: Option<i64>,
        }

        // One at a time, so that an invalid `iat` does not hide the `exp` that Codex uses.
        let (iat, exp) = (self.read::<Iat>(), self.read::<Exp>());
        (iat.and_then(|it| it.iat), exp.and_then(|it| it.exp))
    }

    /// Returns the plan that any claim of an ID token names; `None` for an implausible name.
    pub(crate) fn plan(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Account<'a> {
            #[serde(borrow, default)]
            chatgpt_plan_type: JsonValue<'a>,
        }

        let claims: BTreeMap<String, JsonValue<Account>> = self.read()?;
        let plan = claims.into_values().find_map(|claim| match claim {
            JsonValue::Object(account) => match account.chatgpt_plan_type {
                JsonValue::Text(plan) => Some(plan.to_string()),
                JsonValue::Missing | JsonValue::Null | JsonValue::Object(_) | JsonValue::Other => {
                    None
                }
            },
            JsonValue::Missing | JsonValue::Null | JsonValue::Text(_) | JsonValue::Other => None,
        });
        let is_word_char = |c: char| c.is_ascii_alphanumeric() || c == '_';
        plan.filter(|plan| {
            (1..=MAX_PLAN_LEN).contains(&plan.len()) && plan.chars().all(is_word_char)
        })
    }

    /// Returns the person that an ID token names. Any claim of the token may contain
    /// `chatgpt_user_id` and `user_id`.
    pub(crate) fn person(&self) -> Person {
        #[derive(Deserialize)]
        struct Subject<'a> {
            #[serde(borrow, default)]
            sub: JsonValue<'a>,
        }
        #[derive(Deserialize)]
        struct UserIds<'a> {
            #[serde(borrow, default)]
            chatgpt_user_id: JsonValue<'a>,
            #[serde(borrow, default)]
            user_id: JsonValue<'a>,
        }

        let mut person = Person {
            subject: self.read::<Subject>().and_then(|it| it.sub.into_text()),
            ..Person::default()
        };
        let claims: BTreeMap<String, JsonValue<UserIds>> = self.read().unwrap_or_default();
        for claim in claims.into_values() {
            if let JsonValue::Object(ids) = claim {
                person.chatgpt_user = person.chatgpt_user.or(ids.chatgpt_user_id.into_text());
                person.user = person.user.or(ids.user_id.into_text());
            }
        }
        person
    }

    /// Returns the session that an access token belongs to.
    pub(crate) fn session(&self) -> SessionClaims {
        #[derive(Deserialize)]
        struct Id<'a> {
            #[serde(borrow, default)]
            session_id: JsonValue<'a>,
        }
        #[derive(Deserialize)]
        struct PasswordTime {
            pwd_auth_time: Option<i64>,
        }

        // One at a time, so that an invalid claim does not hide the other.
        let (id, time) = (self.read::<Id>(), self.read::<PasswordTime>());
        SessionClaims {
            id: id.and_then(|it| it.session_id.into_text()),
            password_time: time.and_then(|it| it.pwd_auth_time),
        }
    }

    pub(crate) fn read<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        serde_json::from_slice(&self.0).ok()
    }
}

/// The claims of an ID token that name a person; `None` for a claim that is missing or not a
/// string.
#[derive(Default)]
pub(crate) struct Person {
    pub(crate) chatgpt_user: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) subject: Option<String>,
}

/// The session of an access token; `None` for a claim that is missing or has another type.
#[derive(Default)]
pub(crate) struct SessionClaims {
    pub(crate) id: Option<String>,
    pub(crate) password_time: Option<i64>,
}

/// The maximum length of a plan's name, in bytes.
const MAX_PLAN_LEN: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::jwt;

    fn is_jwt(token: &str) -> bool {
        Payload::of(token).is_some_and(|payload| payload.is_object())
    }

    fn payload(claims: &str) -> Payload {
        Payload::of(&jwt(claims)).expect("a JWT")
    }

    #[test]
    fn only_a_jwt_is_accepted() {
        assert!(is_jwt(&jwt("{}")));
        assert!(is_jwt(&format!("{}.more", jwt(r#"{"exp":1}"#))));
        let good = jwt("{}");
        let (header, rest) = good.split_once('.').expect("three parts");
        let (payload, signature) = rest.split_once('.').expect("three parts");
        for bad in [
            String::new(),
            "opaque".to_owned(),
            "..".to_owned(),
            format!("{header}.{payload}"),
            format!("{header}.{payload}."),
            format!(".{payload}.{signature}"),
            format!("{header}..{signature}"),
            format!("{header}.{payload}==.{signature}"),
            format!("{header}.+/+/.{signature}"),
            jwt("not JSON"),
            jwt("[]"),
            jwt(r#""text""#),
        ] {
            assert!(!is_jwt(&bad), "{bad}");
        }
    }

    #[test]
    fn an_invalid_claim_does_not_hide_the_other() {
        let of = |claims: &str| payload(claims).lifetime();
        assert_eq!(of(r#"{"iat":1,"exp":2}"#), (Some(1), Some(2)));
        assert_eq!(of(r#"{"exp":2}"#), (None, Some(2)));
        assert_eq!(of(r#"{"iat":1.5,"exp":2}"#), (None, Some(2)));
        assert_eq!(of(r#"{"iat":1,"exp":"2"}"#), (Some(1), None));
        assert_eq!(of(r#"{"iat":null,"exp":null}"#), (None, None));
    }

    #[test]
    fn the_plan_is_one_word_in_any_claim() {
        let of = |account: &str| {
            let claims = format!(r#"{{"n":1,"sub":"user","https://a/auth":{account}}}"#);
            payload(&claims).plan()
        };
        let named = of(r#"{"chatgpt_account_id":"a","chatgpt_plan_type":"plus"}"#);
        assert_eq!(named.as_deref(), Some("plus"));
        let escaped = of(r#"{"chatgpt_plan_type":"\u0070lus"}"#);
        assert_eq!(escaped.as_deref(), Some("plus"));
        for none in [
            "{}",
            r#"{"chatgpt_plan_type":null}"#,
            r#"{"chatgpt_plan_type":""}"#,
            r#"{"chatgpt_plan_type":"a b"}"#,
            r#"{"chatgpt_plan_type":{"a":"plus"}}"#,
            "[]",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
        let long = "a".repeat(MAX_PLAN_LEN + 1);
        assert_eq!(of(&format!(r#"{{"chatgpt_plan_type":"{long}"}}"#)), None);
    }
}
