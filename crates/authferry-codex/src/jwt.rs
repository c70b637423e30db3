//! What is read of a JWT. No signature is checked: neither does Codex.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::value::Value;

/// Returns whether the text is a JWT whose payload is a JSON object.
pub(crate) fn is_jwt(text: &str) -> bool {
    payload(text)
        .is_some_and(|json| matches!(serde_json::from_slice::<Value>(&json), Ok(Value::Object(_))))
}

/// Returns the claims `iat` and `exp`, in Unix seconds; `None` for a claim that is missing
/// or no whole number, and for an opaque token.
pub(crate) fn lifetime(text: &str) -> (Option<i64>, Option<i64>) {
    #[derive(Deserialize)]
    struct Iat {
        iat: Option<i64>,
    }
    #[derive(Deserialize)]
    struct Exp {
        exp: Option<i64>,
    }

    let Some(json) = payload(text) else {
        return (None, None);
    };
    // One at a time, so that an odd `iat` cannot hide the `exp` that Codex goes by.
    let iat = serde_json::from_slice::<Iat>(&json).ok();
    let exp = serde_json::from_slice::<Exp>(&json).ok();
    (iat.and_then(|it| it.iat), exp.and_then(|it| it.exp))
}

/// Returns the plan that an ID token names, in whichever of its claims; `None` for a name
/// that no plan has.
pub(crate) fn plan(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Account<'a> {
        #[serde(borrow, default)]
        chatgpt_plan_type: Value<'a>,
    }

    let json = payload(text)?;
    let claims: BTreeMap<String, Value<Account>> = serde_json::from_slice(&json).ok()?;
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

/// The claims of an ID token that name a person; `None` for one that is missing or no text.
#[derive(Default)]
pub(crate) struct Person {
    pub(crate) chatgpt_user: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) subject: Option<String>,
}

/// Returns the person that an ID token names. `chatgpt_user_id` and `user_id` count in
/// whichever of the token's claims they stand.
pub(crate) fn person(text: &str) -> Person {
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

    let Some(json) = payload(text) else {
        return Person::default();
    };
    let mut person = Person {
        subject: serde_json::from_slice::<Subject>(&json)
            .ok()
            .and_then(|it| it.sub.into_text()),
        ..Person::default()
    };
    let claims: BTreeMap<String, Value<Claims>> = serde_json::from_slice(&json).unwrap_or_default();
    for claim in claims.into_values() {
        if let Value::Object(claims) = claim {
            person.chatgpt_user = person.chatgpt_user.or(claims.chatgpt_user_id.into_text());
            person.user = person.user.or(claims.user_id.into_text());
        }
    }
    person
}

/// What an access token says of the session it came from; `None` for what is missing or of
/// another type.
#[derive(Default)]
pub(crate) struct Session {
    pub(crate) id: Option<String>,
    pub(crate) password_time: Option<i64>,
}

/// Returns the session of an access token; nothing for an opaque one.
pub(crate) fn session(text: &str) -> Session {
    #[derive(Deserialize)]
    struct Id<'a> {
        #[serde(borrow, default)]
        session_id: Value<'a>,
    }
    #[derive(Deserialize)]
    struct PasswordTime {
        pwd_auth_time: Option<i64>,
    }

    let Some(json) = payload(text) else {
        return Session::default();
    };
    // One at a time, so that an odd one does not hide the other.
    let id = serde_json::from_slice::<Id>(&json).ok();
    let time = serde_json::from_slice::<PasswordTime>(&json).ok();
    Session {
        id: id.and_then(|it| it.session_id.into_text()),
        password_time: time.and_then(|it| it.pwd_auth_time),
    }
}

/// As long as the name of a plan can be, in bytes.
const LONGEST_PLAN: usize = 40;

/// Returns the decoded second part. As Codex does, this asks for three parts with
/// something in them and looks at no fourth: a login that Codex accepts must not be
/// refused here.
fn payload(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut parts = text
        .split('.')
        .map(|part| Some(part).filter(|p| !p.is_empty()));
    let (_header, payload, _signature) = (parts.next()??, parts.next()??, parts.next()??);
    let mut json = Zeroizing::new(Vec::new());
    URL_SAFE_NO_PAD.decode_vec(payload, &mut json).ok()?;
    Some(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::jwt;

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
        let of = |claims: &str| lifetime(&jwt(claims));
        assert_eq!(of(r#"{"iat":1,"exp":2}"#), (Some(1), Some(2)));
        assert_eq!(of(r#"{"exp":2}"#), (None, Some(2)));
        assert_eq!(of(r#"{"iat":1.5,"exp":2}"#), (None, Some(2)));
        assert_eq!(of(r#"{"iat":1,"exp":"2"}"#), (Some(1), None));
        assert_eq!(of(r#"{"iat":null,"exp":null}"#), (None, None));
        assert_eq!(lifetime("opaque"), (None, None));
    }

    #[test]
    fn a_plan_is_found_in_any_claim_and_is_a_word() {
        let of = |account: &str| {
            plan(&jwt(&format!(
                r#"{{"n":1,"sub":"user","https://a/auth":{account}}}"#
            )))
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
        assert_eq!(plan("opaque"), None);
    }
}
