//! The auth files of the cases, valid and invalid, by name.
//!
//! All times are fixed, so that each login has a constant fingerprint.

use std::{collections::BTreeMap, iter, sync::LazyLock};

use rig::{Login, MARKERS, Person, secrets_in};
use time::{Duration, OffsetDateTime};

/// Returns the content with a name.
///
/// # Panics
///
/// If there is none.
pub(crate) fn content(name: &str) -> &'static [u8] {
    let content = CONTENTS.get(name);
    content.unwrap_or_else(|| panic!("no content is called {name:?}"))
}

/// Returns all contents with their names.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    CONTENTS.iter().map(|(&name, bytes)| (name, &**bytes))
}

/// Returns every text that may only appear in an auth file.
pub(crate) fn secrets() -> &'static [String] {
    static SECRETS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let of_logins = good()
            .into_iter()
            .flat_map(|(_, login)| secrets_in(&login.auth_json()));
        MARKERS
            .map(str::to_owned)
            .into_iter()
            .chain(of_logins)
            .collect()
    });
    &SECRETS
}

static CONTENTS: LazyLock<BTreeMap<&str, Vec<u8>>> = LazyLock::new(|| {
    let good = good()
        .into_iter()
        .map(|(name, login)| (name, login.auth_json().into()));
    good.chain(iter::once(("undated", undated().into())))
        .chain(not_an_auth_file())
        .chain(another_mode().map(|(name, text)| (name, text.into())))
        .chain(incomplete().map(|(name, text)| (name, text.into())))
        .collect()
});

/// `login-1` to `login-3` are consecutive logins of one account.
fn good() -> [(&'static str, Login); 7] {
    [
        ("login-1", login("account-1", 1)),
        ("login-2", login("account-1", 2)),
        ("login-3", login("account-1", 3)),
        ("other-account", login("account-2", 3)),
        ("ended", ended(9)),
        ("ended-next", ended(10)),
        ("old", old(11)),
    ]
}

/// A login from the first days of 2026, with an access token that is valid for decades and a last
/// refresh just before its expiry: no version of Codex rotates it.
fn login(account: &str, serial: u32) -> Login {
    let issued = start_of_2026() + Duration::days(i64::from(serial));
    let login = plain(account, serial, issued, Duration::days(20_000));
    Login {
        last_refresh: login.ends,
        ..login
    }
}

/// A login whose access token expired before 2026.
fn ended(serial: u32) -> Login {
    let issued = start_of_2026() - Duration::days(109 - i64::from(serial));
    plain("account-1", serial, issued, rig::ACCESS_LIFETIME)
}

/// A login with an old last refresh, and an access token that is valid for decades.
fn old(serial: u32) -> Login {
    let issued = ended(serial).issued;
    plain("account-1", serial, issued, Duration::days(20_000))
}

/// A login without session claims and `user_id`, like some real tokens.
fn plain(account: &str, serial: u32, issued: OffsetDateTime, lifetime: Duration) -> Login {
    let login = Login::new(account, serial, issued, lifetime);
    Login {
        person: Person {
            user_id: None,
            ..login.person
        },
        session: None,
        ..login
    }
}

/// A login without an issue time.
fn undated() -> String {
    let login = login("account-1", 5);
    let file = login.auth_json();
    let opaque = file.replace(&login.access_token(), "made-up.opaque.access.token");
    set(&opaque, "last_refresh", "null")
}

fn start_of_2026() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_767_225_600).expect("a time")
}

/// A newer login of the first account: every invalid file is a modification of it.
fn newer() -> String {
    login("account-1", 2).auth_json()
}

fn not_an_auth_file() -> [(&'static str, Vec<u8>); 9] {
    let newer = newer();
    let half = &newer[..newer.len() / 2];
    let repeated = newer.replace("{\n  \"auth", "{\n  \"tokens\": null,\n  \"auth");
    [
        ("empty", Vec::new()),
        ("blank", b" \n".to_vec()),
        ("truncated", half.into()),
        ("bom", format!("\u{feff}{newer}").into()),
        (
            "not-utf8",
            [half.as_bytes(), b"\xff", half.as_bytes()].concat(),
        ),
        ("not-json", newer.replace(':', "=").into()),
        ("not-an-object", format!("[{newer}]").into()),
        ("repeated-member", repeated.into()),
        (
            "too-large",
            // Its first part is not a login: a read can hit a partly written file.
            format!("{}{newer}", " ".repeat(3 << 20)).into(),
        ),
    ]
}

fn another_mode() -> [(&'static str, String); 7] {
    let mode = |mode: &str| set(&newer(), "auth_mode", mode);
    let key = |file: &str| set(file, "OPENAI_API_KEY", "\"made-up-key\"");
    [
        ("unknown-mode", mode("\"made-up\"")),
        ("mode-of-another-type", mode("1")),
        ("api-key", key(&mode("\"apikey\""))),
        ("api-key-without-mode", key(&mode("null"))),
        ("external-tokens", mode("\"chatgptAuthTokens\"")),
        ("agent-identity", mode("\"agentIdentity\"")),
        ("personal-access-token", {
            let member = "\"personal_access_token\": \"made-up\",\n  \"tokens\"";
            mode("null").replace("\"tokens\"", member)
        }),
    ]
}

fn incomplete() -> [(&'static str, String); 13] {
    let set = |member, value| set(&newer(), member, value);
    let without = |member: &str| newer().replace(&format!("\"{member}\""), "\"other\"");
    [
        ("no-tokens", without("tokens")),
        ("null-tokens", "{\"tokens\": null}".to_owned()),
        ("no-id-token", without("id_token")),
        ("id-token-not-a-jwt", set("id_token", "\"made-up.id\"")),
        ("no-access-token", without("access_token")),
        ("no-refresh-token", without("refresh_token")),
        ("null-refresh-token", set("refresh_token", "null")),
        ("empty-refresh-token", set("refresh_token", "\"\"")),
        ("refresh-token-of-another-type", set("refresh_token", "1")),
        ("no-account-id", without("account_id")),
        ("null-account-id", set("account_id", "null")),
        ("empty-account-id", set("account_id", "\"\"")),
        ("bad-last-refresh", set("last_refresh", "\"yesterday\"")),
    ]
}

/// Sets the value of a member. Each member is on a separate line.
fn set(file: &str, member: &str, value: &str) -> String {
    let start = format!("\"{member}\": ");
    let changed = file.lines().map(|line| match line.split_once(&start) {
        None => line.to_owned(),
        Some((indent, old)) => {
            let comma = if old.ends_with(',') { "," } else { "" };
            format!("{indent}{start}{value}{comma}")
        }
    });
    changed.collect::<Vec<_>>().join("\n")
}
