//! What an auth file says of itself.

use std::cell::RefCell;

use authferry_core::{Fingerprint, Generation, Identity, Issued, Label, Secret, SessionHints};
use serde::Deserialize;
use serde_json::error::Category;
use sha2::{Digest, Sha256};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{Member, Unusable, jwt::Payload, value::Value};

/// The largest auth file that is read, in bytes. Real ones have some 5,000.
pub const MAX_LEN: usize = 1 << 20;

/// Reads what an auth file says of itself, without altering a byte.
///
/// Accepts every file on which Codex can run and which it can rotate, whatever its line
/// ends, its indentation and its further members; an opaque access token and a missing
/// `last_refresh` too. Any other file is named for its first fault, of those that Codex
/// 0.169.0 was seen to have: it ignores such a file in silence and runs without a login,
/// or can never refresh it.
///
/// Two files with the same three tokens and account have the same fingerprint, however
/// they are written.
pub fn parse(secret: &Secret) -> Result<Generation, Unusable> {
    LAST.with_borrow_mut(|last| match last {
        Some((known, generation)) if known.expose() == secret.expose() => Ok(generation.clone()),
        _ => {
            let generation = read(secret)?;
            *last = Some((secret.duplicate(), generation.clone()));
            Ok(generation)
        }
    })
}

thread_local! {
    /// The last file that this thread has parsed. A job reads the same login about ten times, from
    /// the store and from the file: hashing its tokens and decoding their claims each time was a
    /// third of the instructions of a job that changes nothing.
    static LAST: RefCell<Option<(Secret, Generation)>> = const { RefCell::new(None) };
}

fn read(secret: &Secret) -> Result<Generation, Unusable> {
    let text = text(secret)?;
    let file: AuthFile = match serde_json::from_str(text).map_err(|error| not_read(&error))? {
        Value::Object(file) => file,
        Value::Missing | Value::Null | Value::Text(_) | Value::Other => {
            return Err(Unusable::NotAnObject);
        }
    };
    is_chatgpt_managed(&file)?;
    let tokens = file.tokens.object(Member::Tokens)?;
    let id_token = tokens.id_token.text(Member::IdToken)?;
    let access_token = tokens.access_token.text(Member::AccessToken)?;
    let refresh_token = tokens.refresh_token.text(Member::RefreshToken)?;
    let account_id = tokens.account_id.text(Member::AccountId)?;
    let Some(id) = Payload::of(id_token).filter(Payload::is_object) else {
        return Err(Unusable::IdTokenNotAJwt);
    };
    let access = Payload::of(access_token);
    let last_refresh = file
        .last_refresh
        .optional_text(Member::LastRefresh)?
        .map(|time| OffsetDateTime::parse(time, &Rfc3339))
        .transpose()
        .map_err(|_| Unusable::BadLastRefresh)?;
    let (iat, exp) = access.as_ref().map(Payload::lifetime).unwrap_or_default();

    Ok(Generation {
        fingerprint: Fingerprint::new(digest(
            "authferry: fingerprint",
            &[id_token, access_token, refresh_token, account_id].map(str::as_bytes),
        )),
        identity: identity(account_id, &id),
        hints: access.as_ref().map(hints).unwrap_or_default(),
        issued: Issued {
            iat,
            exp,
            last_refresh: last_refresh.map(OffsetDateTime::unix_timestamp_nanos),
        },
    })
}

/// Hands over each token of an auth file, for whoever has to keep it out of sight; nothing of
/// a file that is none.
pub fn each_token(secret: &Secret, mut see: impl FnMut(&str)) {
    let file = text(secret).map(serde_json::from_str);
    let Ok(Ok(Value::Object(AuthFile { tokens, .. }))) = file else {
        return;
    };
    let Value::Object(tokens) = tokens else {
        return;
    };
    for token in [tokens.id_token, tokens.access_token, tokens.refresh_token] {
        if let Value::Text(token) = token {
            see(&token);
        }
    }
}

/// Returns what the provider calls the plan of the login's account, such as `plus` or
/// `business`; `None` if the login does not tell. Safe to print.
#[must_use]
pub fn plan(secret: &Secret) -> Option<String> {
    let file: Value<AuthFile> = serde_json::from_str(text(secret).ok()?).ok()?;
    let Value::Object(AuthFile {
        tokens: Value::Object(tokens),
        ..
    }) = file
    else {
        return None;
    };
    Payload::of(tokens.id_token.text(Member::IdToken).ok()?)?.plan()
}

/// Tells bytes that carry no login from other such bytes. Safe to print.
#[must_use]
pub fn fingerprint_of_bytes(secret: &Secret) -> Fingerprint {
    Fingerprint::new(digest("authferry: bytes", &[secret.expose()]))
}

/// The members that matter, as Codex's own type has them.
#[derive(Deserialize)]
struct AuthFile<'a> {
    #[serde(borrow, default)]
    auth_mode: Value<'a>,
    #[serde(borrow, default, rename = "OPENAI_API_KEY")]
    api_key: Value<'a>,
    #[serde(borrow, default)]
    tokens: Value<'a, Tokens<'a>>,
    #[serde(borrow, default)]
    last_refresh: Value<'a>,
    #[serde(borrow, default)]
    personal_access_token: Value<'a>,
    #[serde(borrow, default)]
    bedrock_api_key: Value<'a>,
    #[serde(borrow, default)]
    bedrock_access_keys: Value<'a>,
}

#[derive(Deserialize)]
struct Tokens<'a> {
    #[serde(borrow, default)]
    id_token: Value<'a>,
    #[serde(borrow, default)]
    access_token: Value<'a>,
    #[serde(borrow, default)]
    refresh_token: Value<'a>,
    #[serde(borrow, default)]
    account_id: Value<'a>,
}

fn text(secret: &Secret) -> Result<&str, Unusable> {
    let bytes = secret.expose();
    if bytes.len() > MAX_LEN {
        return Err(Unusable::TooLarge);
    }
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(Unusable::Bom);
    }
    let text = str::from_utf8(bytes).map_err(|error| match error.error_len() {
        None => Unusable::Truncated,
        Some(_) => Unusable::NotUtf8,
    })?;
    if text.trim_ascii().is_empty() {
        return Err(Unusable::Empty);
    }
    Ok(text)
}

/// Keeps of an error what cannot quote the file.
fn not_read(error: &serde_json::Error) -> Unusable {
    match error.classify() {
        Category::Eof => Unusable::Truncated,
        Category::Syntax | Category::Io => Unusable::NotJson {
            line: error.line(),
            column: error.column(),
        },
        // Every type is taken and no member is required, so nothing else is left.
        Category::Data => Unusable::RepeatedMember,
    }
}

/// Goes by `auth_mode` and, without one, by the order in which Codex looks: personal
/// access token, Bedrock, API key, and last `chatgpt`. A key that is set to the empty text counts.
fn is_chatgpt_managed(file: &AuthFile) -> Result<(), Unusable> {
    let api_key = file.api_key.optional_text(Member::ApiKey)?;
    match file.auth_mode.optional_text(Member::AuthMode)? {
        Some("chatgpt") => Ok(()),
        Some("apikey") => Err(Unusable::ApiKeyMode),
        Some("chatgptAuthTokens") => Err(Unusable::ExternalTokens),
        Some(mode) => Err(OTHER_MODES
            .into_iter()
            .find(|known| *known == mode)
            .map_or(Unusable::UnknownMode, Unusable::OtherMode)),
        None if file.personal_access_token.is_set() => {
            Err(Unusable::OtherMode("personalAccessToken"))
        }
        None if file.bedrock_api_key.is_set() => Err(Unusable::OtherMode("bedrockApiKey")),
        None if file.bedrock_access_keys.is_set() => Err(Unusable::OtherMode("bedrockAccessKeys")),
        None if api_key.is_some() => Err(Unusable::ApiKeyMode),
        None => Ok(()),
    }
}

/// The other modes that Codex knows.
pub(crate) const OTHER_MODES: [&str; 5] = [
    "headers",
    "agentIdentity",
    "personalAccessToken",
    "bedrockApiKey",
    "bedrockAccessKeys",
];

/// The workspace from the file, the person from the ID token. An `account_id` is shared by all
/// members of a Business workspace.
fn identity(account_id: &str, id_token: &Payload) -> Identity {
    let person = id_token.person();
    let of_person = |claim: Option<String>| claim.map(|claim| label("authferry: person", &claim));
    Identity {
        account: Some(label("authferry: account", account_id)),
        chatgpt_user: of_person(person.chatgpt_user),
        user: of_person(person.user),
        subject: of_person(person.subject),
    }
}

fn hints(access_token: &Payload) -> SessionHints {
    let session = access_token.session();
    SessionHints {
        session: session.id.map(|id| label("authferry: session", &id)),
        password_time: session.password_time,
    }
}

fn label(purpose: &str, claim: &str) -> Label {
    let hash: [u8; 6] = digest(purpose, &[claim.as_bytes()]);
    Label::new(&hash.map(|byte| format!("{byte:02x}")).concat())
}

/// Returns the first bytes of a SHA-256 over the parts. The label keeps it apart from
/// hashes made for another purpose, the lengths keep `["ab", "c"]` apart from
/// `["a", "bc"]`.
fn digest<const N: usize>(label: &str, parts: &[&[u8]]) -> [u8; N] {
    let mut hash = Sha256::new();
    for part in core::iter::once(&label.as_bytes()).chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let hash = hash.finalize();
    core::array::from_fn(|at| hash[at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::{self, MARK, jwt, with, with_value, without};

    fn read(file: impl Into<Vec<u8>>) -> Result<Generation, Unusable> {
        parse(&Secret::new(file.into()))
    }

    #[test]
    fn how_a_file_is_written_does_not_matter() {
        let good = read(made_up::auth_file(1)).expect("a good file");
        for same in [
            made_up::auth_file(1).replace('\n', "\r\n"),
            made_up::auth_file(1).replace(['\n', ' '], ""),
            format!("\n\t {}\r\n ", made_up::auth_file(1)),
            with(
                r#""auth_mode": "chatgpt""#,
                r#""agent_identity": {"a": ["b"]}"#,
            ),
            with_value("OPENAI_API_KEY", r#""a key beside an explicit mode""#),
            with(
                "\"tokens\": {",
                r#""more": [{"deep": 1e3}], "tokens": {"more": null,"#,
            ),
            with("refresh-1", r"\u0072efresh\u002d1"),
        ] {
            assert_eq!(read(&*same).as_ref(), Ok(&good), "{same}");
        }
    }

    #[test]
    fn the_times_come_from_the_access_token_and_the_file() {
        let issued = |file: String| read(file).expect("a good file").issued;
        let all = Issued {
            iat: Some(1_800_000_001),
            exp: Some(1_800_864_001),
            last_refresh: Some(1_795_429_230_123_456_789),
        };
        assert_eq!(issued(made_up::auth_file(1)), all);
        let offset = r#""2026-11-23T12:20:30.123456789+02:00""#;
        assert_eq!(issued(with_value("last_refresh", offset)), all);
        let never = Issued {
            last_refresh: None,
            ..all
        };
        assert_eq!(issued(with_value("last_refresh", "null")), never);
        assert_eq!(issued(without("last_refresh")), never);
        let opaque = Issued {
            iat: None,
            exp: None,
            ..all
        };
        assert_eq!(issued(with_value("access_token", "\"opaque\"")), opaque);
    }

    #[test]
    fn any_other_token_makes_another_fingerprint() {
        let good = read(made_up::auth_file(1)).expect("a good file");
        for (name, other) in [
            ("id_token", jwt("{}")),
            ("access_token", "opaque".to_owned()),
            ("refresh_token", "opaque".to_owned()),
            ("account_id", "another".to_owned()),
        ] {
            let other = read(with_value(name, &format!("\"{other}\""))).expect("a good file");
            assert_ne!(other.fingerprint, good.fingerprint, "{name}");
            assert_eq!(
                !other.identity.contradicts(&good.identity),
                name != "account_id",
                "{name}"
            );
        }
        let split = |access, refresh| {
            let file = with_value("access_token", access)
                .replace(&format!("\"{MARK}-refresh-1\""), refresh);
            read(file).expect("a good file").fingerprint
        };
        assert_ne!(split("\"ab\"", "\"c\""), split("\"a\"", "\"bc\""));
    }

    /// Receipts carry both from one release to the next.
    #[test]
    fn fingerprint_and_account_never_change() {
        let file = format!(
            r#"{{"tokens":{{"id_token":"{}","access_token":"b","refresh_token":"c","account_id":"d"}}}}"#,
            "e30.e30.a"
        );
        let generation = read(file).expect("a good file");
        assert_eq!(generation.fingerprint.to_string(), "360423e9cf1187c9");
        assert_eq!(generation.identity.to_string(), "6e66db54f415");
    }

    #[test]
    fn another_person_of_one_workspace_is_another_identity() {
        let id_token = |claims: &str| {
            let file = with_value("id_token", &format!("\"{}\"", jwt(claims)));
            read(file).expect("a good file").identity
        };
        let owner = r#"{"sub":"s1","urn:auth":{"chatgpt_user_id":"c1","user_id":"u1"}}"#;
        let ours = id_token(owner);
        assert_eq!(id_token(owner), ours);
        for other in [
            owner.replace("s1", "s2"),
            owner.replace("c1", "c2"),
            owner.replace("u1", "u2"),
        ] {
            assert!(id_token(&other).contradicts(&ours), "{other}");
        }
        for less in ["{}", r#"{"sub":"s1"}"#, r#"{"sub":7,"urn:auth":[]}"#] {
            assert!(!id_token(less).contradicts(&ours), "{less}");
        }
    }

    #[test]
    fn session_hints_come_from_the_access_token() {
        let hints = |token: &str| {
            let file = with_value("access_token", &format!("\"{token}\""));
            read(file).expect("a good file").hints
        };
        let token = r#"{"session_id":"authsess_1","pwd_auth_time":1700000000000}"#;
        let ours = hints(&jwt(token));
        assert_eq!(ours.password_time, Some(1_700_000_000_000));
        assert_eq!(hints(&jwt(token)), ours);
        assert!(hints(&jwt(&token.replace("ss_1", "ss_2"))).contradict(&ours));
        assert!(hints(&jwt(&token.replace("17", "18"))).contradict(&ours));
        assert_eq!(hints("opaque"), SessionHints::default());
        assert_eq!(
            hints(&jwt(r#"{"session_id":7,"pwd_auth_time":"now"}"#)),
            SessionHints::default()
        );
    }
}
