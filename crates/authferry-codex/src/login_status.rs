//! What Codex itself says about the login in its auth file.

use serde::Deserialize;
use serde_json::Value;

use crate::app_server::{APP_SERVER, ServerReply};

/// The arguments of an app server that obeys the settings of its home. [`APP_SERVER`] selects the
/// auth file, and would hide a setting that does not.
#[must_use]
pub fn obedient_app_server() -> &'static [&'static str] {
    let store = APP_SERVER.iter().position(|it| it.starts_with("cli_auth"));
    let (_, rest) = APP_SERVER.split_at(store.map_or(0, |at| at + 1));
    rest
}

/// Whether Codex uses the auth file.
///
/// `getAuthStatus` answers without an `authMethod` if a setting makes Codex ignore the auth file,
/// and from 0.169.0 on, perhaps earlier, also if a setting makes Codex delete it. 0.145.0 and
/// earlier versions delete it without saying so before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginStatus {
    /// Codex uses the auth file.
    Used,
    /// Codex does not use the auth file.
    NotUsed,
    /// Codex did not say.
    Unknown,
}

impl LoginStatus {
    /// Parses a reply of the app server to `getAuthStatus` with this number; `None` for any other
    /// line.
    #[must_use]
    pub fn of_reply(line: &[u8], number: u32) -> Option<Self> {
        #[derive(Deserialize)]
        struct Message {
            result: Option<Value>,
        }
        if ServerReply::of(line, number) == ServerReply::Unrelated {
            return None;
        }
        let message: Message = serde_json::from_slice(line).ok()?;
        let result = message.result.unwrap_or_default();
        // A model provider that needs no login of OpenAI: the job may select another one.
        if result.get("requiresOpenaiAuth") == Some(&Value::Bool(false)) {
            return Some(Self::Unknown);
        }
        Some(match result.get("authMethod") {
            Some(Value::String(method)) if method == "chatgpt" => Self::Used,
            Some(Value::String(method)) if OTHER_METHODS.contains(&method.as_str()) => {
                Self::NotUsed
            }
            Some(Value::Null) => Self::NotUsed,
            // Also a method that a later version names in another way.
            Some(_) | None => Self::Unknown,
        })
    }

    /// Judges `codex login status` by its exit code and its text.
    #[must_use]
    pub fn of_command(code: u8, text: &str) -> Self {
        const OFF: [&str; 2] = ["Not logged in", "Error checking login status"];
        let has = |word: &&str| text.contains(*word);
        match code {
            0 if text.contains("Logged in using ChatGPT") => Self::Used,
            1 if OFF.iter().any(has) => Self::NotUsed,
            _ => Self::Unknown,
        }
    }
}

/// The methods that use no `chatgpt` login from an auth file, as Codex names them.
const OTHER_METHODS: [&str; 7] = [
    "apikey",
    "apiKey",
    "chatgptAuthTokens",
    "headers",
    "agentIdentity",
    "personalAccessToken",
    "bedrockApiKey",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_without_a_method_means_that_the_login_is_not_used() {
        for (line, status) in [
            (
                r#"{"id":2,"result":{"authMethod":"chatgpt","authToken":null}}"#,
                Some(LoginStatus::Used),
            ),
            (
                r#"{"id":2,"result":{"authMethod":null,"authToken":null}}"#,
                Some(LoginStatus::NotUsed),
            ),
            (
                r#"{"id":2,"result":{"authMethod":"apikey"}}"#,
                Some(LoginStatus::NotUsed),
            ),
            (
                r#"{"id":2,"result":{"authMethod":"a later name"}}"#,
                Some(LoginStatus::Unknown),
            ),
            (
                r#"{"id":2,"result":{"authMethod":null,"requiresOpenaiAuth":true}}"#,
                Some(LoginStatus::NotUsed),
            ),
            (
                r#"{"id":2,"result":{"authMethod":null,"requiresOpenaiAuth":false}}"#,
                Some(LoginStatus::Unknown),
            ),
            (r#"{"id":2,"result":{}}"#, Some(LoginStatus::Unknown)),
            (
                r#"{"id":2,"error":{"code":-32600,"message":"m"}}"#,
                Some(LoginStatus::Unknown),
            ),
            (r#"{"id":1,"result":{"authMethod":null}}"#, None),
            ("no JSON", None),
        ] {
            assert_eq!(LoginStatus::of_reply(line.as_bytes(), 2), status, "{line}");
        }
    }

    #[test]
    fn the_arguments_leave_the_credentials_store_to_the_settings() {
        let arguments = obedient_app_server();
        assert_eq!(arguments.len() + 2, APP_SERVER.len());
        assert!(!arguments.concat().contains("credentials_store"));
        assert_eq!(arguments.first(), Some(&"-c"));
        assert_eq!(arguments.last(), Some(&"app-server"));
    }

    /// A program that fails for another reason says nothing about the login.
    #[test]
    fn only_known_words_count() {
        for (code, text, status) in [
            (0, "Logged in using ChatGPT", LoginStatus::Used),
            (1, "Not logged in", LoginStatus::NotUsed),
            (
                1,
                "Error checking login status: failed to load CLI auth from keyring",
                LoginStatus::NotUsed,
            ),
            (1, "no such subcommand", LoginStatus::Unknown),
            (127, "Not logged in", LoginStatus::Unknown),
            (0, "", LoginStatus::Unknown),
        ] {
            assert_eq!(LoginStatus::of_command(code, text), status, "{text}");
        }
    }
}
