//! Fake logins for tests.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use authferry_core::Secret;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tempfile::TempDir;

use crate::{Home, HomeError, Look};

/// A part of every fake token, so that a test can find a leak.
pub(crate) const MARKER: &str = "MADEUP";

/// Returns a JWT with these claims.
pub(crate) fn jwt(claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!(
        "{}.{}.{MARKER}signature",
        part(r#"{"alg":"none"}"#),
        part(claims)
    )
}

/// Returns the auth file of a login's n-th generation, as Codex writes it.
pub(crate) fn auth_file(n: u32) -> String {
    // Larger than a page, like a real file: a smaller file is rarely torn.
    let padding = "x".repeat(4000);
    let id_token = jwt(&format!(r#"{{"n":{n},"padding":"{padding}"}}"#));
    let access_token = jwt(&format!(
        r#"{{"iat":{},"exp":{}}}"#,
        1_800_000_000 + n,
        1_800_864_000 + n
    ));
    format!(
        r#"{{
  "auth_mode": "chatgpt",
  "OPENAI_API_KEY": null,
  "tokens": {{
    "id_token": "{id_token}",
    "access_token": "{access_token}",
    "refresh_token": "{MARKER}-refresh-{n}",
    "account_id": "{MARKER}-account"
  }},
  "last_refresh": "2026-11-23T10:20:30.123456789Z"
}}"#
    )
}

/// Returns a good file with one part replaced.
pub(crate) fn with(piece: &str, other: &str) -> String {
    let good = auth_file(1);
    assert_eq!(good.matches(piece).count(), 1, "{piece}");
    good.replace(piece, other)
}

/// Returns a good file with one member's value replaced by other JSON.
pub(crate) fn with_value(member: &str, json: &str) -> String {
    let good = auth_file(1);
    let start = good.find(&format!(r#""{member}": "#)).expect("a member") + member.len() + 4;
    let len = good[start..].find([',', '\n']).expect("a line");
    format!("{}{json}{}", &good[..start], &good[start + len..])
}

/// Returns a good file without one member.
pub(crate) fn without(member: &str) -> String {
    with(&format!(r#""{member}":"#), r#""unknown":"#)
}

/// Returns the auth file of the n-th generation as a secret.
pub(crate) fn secret(n: u32) -> Secret {
    Secret::new(auth_file(n).into())
}

/// Creates a home, mode 0700, with the first generation. Dropping the folder removes it.
pub(crate) fn home() -> (TempDir, Home) {
    let above = TempDir::new().expect("a folder");
    let home = Home::new(&above.path().join("home")).expect("a home");
    fs::create_dir(home.dir()).expect("a folder");
    set_mode(home.dir(), 0o700);
    fs::write(home.auth_file(), auth_file(1)).expect("a file");
    set_mode(home.auth_file(), 0o600);
    (above, home)
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o7777
}

/// Returns the name of the error's variant, or `fine`.
pub(crate) fn name(outcome: Result<(), HomeError>) -> String {
    let text = outcome.map_or_else(|error| format!("{error:?}"), |()| "fine".to_owned());
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Returns whether the look found the n-th generation.
pub(crate) fn is(look: &Look, n: u32) -> bool {
    matches!(look, Look::Usable { secret, .. } if secret.expose() == auth_file(n).as_bytes())
}
