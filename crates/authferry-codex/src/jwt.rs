//! What is read of a JWT. No signature is checked: neither does Codex.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::value::Value;

/// The decoded second part of a JWT. Nothing of it is checked but that it is base64.
pub(crate) struct Payload(Zeroizing<Vec<u8>>);

impl Payload {
    /// Decodes the payload of a token; `None` for an opaque one. As Codex does, this asks for
    /// three parts with something in them and looks at no fourth: a login that Codex accepts must
    /// not be refused here.
    pub(crate) fn of(token: &str) -> Option<Self> {
        let mut parts = token
            .split('.')
            .map(|part| Some(part).filter(|p| !p.is_empty()));
        let (_header, payload, _signature) = (parts.next()??, parts.next()??, parts.next()??);
        let mut json = Zeroizing::new(Vec::new());
        URL_SAFE_NO_PAD.decode_vec(payload, &mut json).ok()?;
        Some(Self(json))
    }

    /// Returns whether it is a JSON object.
    pub(crate) fn is_object(&self) -> bool {
        matches!(self.read::<Value>(), Some(Value::Object(_)))
    }

    /// Returns the claims `iat` and `exp`, in Unix seconds; `None` for a claim that is missing
    /// or no whole number.
    pub(crate) fn lifetime(&self) -> (Option<i64>, Option<i64>) {
        #[derive(Deserialize)]
        struct Iat {
            iat: Option<i64>,
        }
        #[derive(Deserialize)]
        struct Exp {
            exp: Option<i64>,
        }

        // One at a time, so that an odd `iat` cannot hide the `exp` that Codex goes by.
        let (iat, exp) = (self.read::<Iat>(), self.read::<Exp>());
        (iat.and_then(|it| it.iat), exp.and_then(|it| it.exp))
    }

    /// Returns the plan that an ID token names, in whichever of its claims; `None` for a name
    /// that no plan has.
    pub(crate) fn plan(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Account<'a> {
            #[serde(borrow, default)]
            chatgpt_plan_type: Value<'a>,
        }

        let claims: BTreeMap<String, Value<Account>> = self.read()?;
        let plan = claims.into_values().find_map(|claim| match claim {
            Value::Object(account) => match account.chatgpt_plan_type {
                Value::Text(plan) => Some(plan.to_string()),
                Value::Missing | Value::Null | Value::Object(_) | Value::Other => None,
            },
            Value::Missing | Value::Null | Value::Text(_) | Value::Other => None,
        });
        let of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        plan.filter(|plan| (1..=LONGEST_PLAN).contains(&plan.len()) && plan.chars().all(of_word))
    }

    /// Returns the person that an ID token names. `chatgpt_user_id` and `user_id` count in
    /// whichever of the token's claims they stand.
    pub(crate) fn person(&self) -> Person {
        #[derive(Deserialize)]
        struct Subject<'a> {
            #[serde(borrow, default)]
            sub: Value<'a>,
        }
        #[derive(Deserialize)]
        struct Claims<'a> {
            #[serde(borrow, default)]
            chatgpt_user_id: Value<'a>,
            #[serde(borrow, default)]
            user_id: Value<'a>,
        }

        let mut person = Person {
            subject: self.read::<Subject>().and_then(|it| it.sub.into_text()),
            ..Person::default()
        };
        let claims: BTreeMap<String, Value<Claims>> = self.read().unwrap_or_default();
        for claim in claims.into_values() {
            if let Value::Object(claims) = claim {
                person.chatgpt_user = person.chatgpt_user.or(claims.chatgpt_user_id.into_text());
                person.user = person.user.or(claims.user_id.into_text());
            }
        }
        person
    }

    /// Returns the session that an access token belongs to.
    pub(crate) fn session(&self) -> Session {
        #[derive(Deserialize)]
        struct Id<'a> {
            #[serde(borrow, default)]
            session_id: Value<'a>,
        }
        #[derive(Deserialize)]
        struct PasswordTime {
            pwd_auth_time: Option<i64>,
        }

        // One at a time, so that an odd one does not hide the other.
        let (id, time) = (self.read::<Id>(), self.read::<PasswordTime>());
        Session {
            id: id.and_then(|it| it.session_id.into_text()),
            password_time: time.and_then(|it| it.pwd_auth_time),
        }
    }

    fn read<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        serde_json::from_slice(&self.0).ok()
    }
}

/// The claims of an ID token that name a person; `None` for one that is missing or no text.
#[derive(Default)]
pub(crate) struct Person {
    pub(crate) chatgpt_user: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) subject: Option<String>,
}

/// What an access token says of the session it came from; `None` for what is missing or of
/// another type.
#[derive(Default)]
pub(crate) struct Session {
    pub(crate) id: Option<String>,
    pub(crate) password_time: Option<i64>,
}

/// As long as the name of a plan can be, in bytes.
const LONGEST_PLAN: usize = 40;

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
    fn a_jwt_is_told_from_other_texts() {
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
    fn each_claim_is_read_for_itself() {
        let of = |claims: &str| payload(claims).lifetime();
        assert_eq!(of(r#"{"iat":1,"exp":2}"#), (Some(1), Some(2)));
        assert_eq!(of(r#"{"exp":2}"#), (None, Some(2)));
        assert_eq!(of(r#"{"iat":1.5,"exp":2}"#), (None, Some(2)));
        assert_eq!(of(r#"{"iat":1,"exp":"2"}"#), (Some(1), None));
        assert_eq!(of(r#"{"iat":null,"exp":null}"#), (None, None));
    }

    #[test]
    fn a_plan_is_found_in_any_claim_and_is_a_word() {
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
        let long = "a".repeat(LONGEST_PLAN + 1);
        assert_eq!(of(&format!(r#"{{"chatgpt_plan_type":"{long}"}}"#)), None);
    }
}
