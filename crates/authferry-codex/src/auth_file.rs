//! Parses an auth file.

use std::cell::RefCell;

use authferry_core::{Fingerprint, Generation, Identity, Issued, Label, Secret, SessionHints};
use serde::Deserialize;
use serde_json::error::Category;
use sha2::{Digest, Sha256};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{AuthFileError, Member, ended_copy, jwt::Payload, value::JsonValue};

/// The maximum size of an auth file, in bytes. Real files have about 5,000.
pub const MAX_LEN: usize = 1 << 20;

/// Parses an auth file into its generation.
///
/// Accepts every file that Codex can run on and rotate, with any line endings, indentation and
/// further members. The access token may be opaque and `last_refresh` may be missing. For any
/// other file, returns its first error. Each error was measured on Codex 0.169.0, which silently
/// ignores such a file and runs without a login, or can never refresh it.
///
/// Two files with the same three tokens and account have the same fingerprint, in any
/// formatting.
pub fn parse(secret: &Secret) -> Result<Generation, AuthFileError> {
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
    /// Caches the last file that this thread parsed. A job reads the same login about ten times,
    /// from the store and from the file. Without the cache, hashing the tokens and decoding their
    /// claims was a third of the instructions of a job that changes nothing.
    static LAST: RefCell<Option<(Secret, Generation)>> = const { RefCell::new(None) };
}

fn read(secret: &Secret) -> Result<Generation, AuthFileError> {
    let text = text(secret)?;
    let file: AuthFile = match serde_json::from_str(text).map_err(|error| without_quote(&error))? {
        JsonValue::Object(file) => file,
        JsonValue::Missing | JsonValue::Null | JsonValue::Text(_) | JsonValue::Other => {
            return Err(AuthFileError::NotAnObject);
        }
    };
    require_chatgpt_mode(&file)?;
    let tokens = file.tokens.object(Member::Tokens)?;
    let id_token = tokens.id_token.text(Member::IdToken)?;
    let access_token = tokens.access_token.text(Member::AccessToken)?;
    let refresh_token = tokens.refresh_token.text(Member::RefreshToken)?;
    let account_id = tokens.account_id.text(Member::AccountId)?;
    if ended_copy::is_marked(access_token) {
        return Err(AuthFileError::EndedCopy);
    }
    let Some(id) = Payload::of(id_token).filter(Payload::is_object) else {
        return Err(AuthFileError::IdTokenNotAJwt);
    };
    let access = Payload::of(access_token);
    let last_refresh = file
        .last_refresh
        .optional_text(Member::LastRefresh)?
        .map(|time| OffsetDateTime::parse(time, &Rfc3339))
        .transpose()
        .map_err(|_| AuthFileError::BadLastRefresh)?;
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

/// Calls `mask` with each token of an auth file, so that the caller can mask it in a log. Does
/// nothing for a file that is not an auth file.
pub fn for_each_token(secret: &Secret, mut mask: impl FnMut(&str)) {
    let file = text(secret).map(serde_json::from_str);
    let Ok(Ok(JsonValue::Object(AuthFile { tokens, .. }))) = file else {
        return;
    };
    let JsonValue::Object(tokens) = tokens else {
        return;
    };
    for token in [tokens.id_token, tokens.access_token, tokens.refresh_token] {
        if let JsonValue::Text(token) = token {
            mask(&token);
        }
    }
}

/// Returns the plan of the login's account by the provider's name, such as `plus` or `business`;
/// `None` if the ID token names none. Safe to print.
#[must_use]
pub fn plan(secret: &Secret) -> Option<String> {
    let file: JsonValue<AuthFile> = serde_json::from_str(text(secret).ok()?).ok()?;
    let JsonValue::Object(AuthFile {
        tokens: JsonValue::Object(tokens),
        ..
    }) = file
    else {
        return None;
    };
    Payload::of(tokens.id_token.text(Member::IdToken).ok()?)?.plan()
}

/// Returns the fingerprint of bytes without a login. Safe to print.
#[must_use]
pub fn fingerprint_of_bytes(secret: &Secret) -> Fingerprint {
    Fingerprint::new(digest("authferry: bytes", &[secret.expose()]))
}

/// The members that authferry reads, named as in Codex's type.
#[derive(Deserialize)]
struct AuthFile<'a> {
    #[serde(borrow, default)]
    auth_mode: JsonValue<'a>,
    #[serde(borrow, default, rename = "OPENAI_API_KEY")]
    api_key: JsonValue<'a>,
    #[serde(borrow, default)]
    tokens: JsonValue<'a, Tokens<'a>>,
    #[serde(borrow, default)]
    last_refresh: JsonValue<'a>,
    #[serde(borrow, default)]
    personal_access_token: JsonValue<'a>,
    #[serde(borrow, default)]
    bedrock_api_key: JsonValue<'a>,
    #[serde(borrow, default)]
    bedrock_access_keys: JsonValue<'a>,
}

#[derive(Deserialize)]
struct Tokens<'a> {
    #[serde(borrow, default)]
    id_token: JsonValue<'a>,
    #[serde(borrow, default)]
    access_token: JsonValue<'a>,
    #[serde(borrow, default)]
    refresh_token: JsonValue<'a>,
    #[serde(borrow, default)]
    account_id: JsonValue<'a>,
}

fn text(secret: &Secret) -> Result<&str, AuthFileError> {
    let bytes = secret.expose();
    if bytes.len() > MAX_LEN {
        return Err(AuthFileError::TooLarge);
    }
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(AuthFileError::Bom);
    }
    let text = str::from_utf8(bytes).map_err(|error| match error.error_len() {
        None => AuthFileError::Truncated,
        Some(_) => AuthFileError::NotUtf8,
    })?;
    if text.trim_ascii().is_empty() {
        return Err(AuthFileError::Empty);
    }
    Ok(text)
}

/// Converts a JSON error, without the part that quotes the file.
fn without_quote(error: &serde_json::Error) -> AuthFileError {
    match error.classify() {
        Category::Eof => AuthFileError::Truncated,
        Category::Syntax | Category::Io => AuthFileError::NotJson {
            line: error.line(),
            column: error.column(),
        },
        // The only data error left: we accept every type and require no member.
        Category::Data => AuthFileError::RepeatedMember,
    }
}

/// Refuses every mode but `chatgpt`. Without `auth_mode`, Codex's order decides: personal access
/// token, Bedrock, API key, `chatgpt`. A key that is the empty string counts.
fn require_chatgpt_mode(file: &AuthFile) -> Result<(), AuthFileError> {
    let api_key = file.api_key.optional_text(Member::ApiKey)?;
    match file.auth_mode.optional_text(Member::AuthMode)? {
        Some("chatgpt") => Ok(()),
        Some("apikey") => Err(AuthFileError::ApiKeyMode),
        Some("chatgptAuthTokens") => Err(AuthFileError::ExternalTokens),
        Some(mode) => Err(OTHER_MODES
            .into_iter()
            .find(|known| *known == mode)
            .map_or(AuthFileError::UnknownMode, AuthFileError::OtherMode)),
        None if file.personal_access_token.is_set() => {
            Err(AuthFileError::OtherMode("personalAccessToken"))
        }
        None if file.bedrock_api_key.is_set() => Err(AuthFileError::OtherMode("bedrockApiKey")),
        None if file.bedrock_access_keys.is_set() => {
            Err(AuthFileError::OtherMode("bedrockAccessKeys"))
        }
        None if api_key.is_some() => Err(AuthFileError::ApiKeyMode),
        None => Ok(()),
    }
}

/// The modes of Codex for other sign-in methods.
pub(crate) const OTHER_MODES: [&str; 5] = [
    "headers",
    "agentIdentity",
    "personalAccessToken",
    "bedrockApiKey",
    "bedrockAccessKeys",
];

/// Returns the workspace from the file and the person from the ID token. All members of a
/// Business workspace share one `account_id`.
fn identity(account_id: &str, id_token: &Payload) -> Identity {
    let person = id_token.person();
    let person_label = |claim: Option<String>| claim.map(|it| label("authferry: person", &it));
    Identity {
        account: Some(account_label(account_id)),
        chatgpt_user: person_label(person.chatgpt_user),
        user: person_label(person.user),
        subject: person_label(person.subject),
    }
}

/// Returns the label of a workspace.
pub(crate) fn account_label(account_id: &str) -> Label {
    label("authferry: account", account_id)
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

/// Returns the first bytes of a SHA-256 over the parts. The label distinguishes hashes for
/// different purposes; the lengths distinguish `["ab", "c"]` from `["a", "bc"]`.
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
    use crate::made_up::{self, MARKER, jwt, with, with_value, without};

    fn read(file: impl Into<Vec<u8>>) -> Result<Generation, AuthFileError> {
        parse(&Secret::new(file.into()))
    }

    #[test]
    fn the_fingerprint_ignores_formatting() {
        let good = read(made_up::auth_file(1)).expect("a good file");
        for same in [
            made_up::auth_file(1).replace('\n', "\r\n"),
            made_up::auth_file(1).replace(['\n', ' '], ""),
            format!("\n\t {}\r\n ", made_up::auth_file(1)),
            with(
                r#""auth_mode": "chatgpt""#,
                r#""agent_identity": {"a": ["b"]}"#,
            ),
            with_value("OPENAI_API_KEY", r#""a key with an explicit mode""#),
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
    fn every_token_changes_the_fingerprint() {
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
                .replace(&format!("\"{MARKER}-refresh-1\""), refresh);
            read(file).expect("a good file").fingerprint
        };
        assert_ne!(split("\"ab\"", "\"c\""), split("\"a\"", "\"bc\""));
    }

    /// Receipts contain both, and must survive an upgrade.
    #[test]
    fn fingerprint_and_account_are_stable() {
        let file = format!(
            r#"{{"tokens":{{"id_token":"{}","access_token":"b","refresh_token":"c","account_id":"d"}}}}"#,
            "e30.e30.a"
        );
        let generation = read(file).expect("a good file");
        assert_eq!(generation.fingerprint.to_string(), "360423e9cf1187c9");
        assert_eq!(generation.identity.to_string(), "6e66db54f415");
    }

    #[test]
    fn two_people_of_one_workspace_have_different_identities() {
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
