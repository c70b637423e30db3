//! How Codex is made to rotate a login without a word to the model.
//!
//! `codex app-server` speaks JSON on its standard streams, one message a line. Asked for
//! the state of its login it rotates an ended one by itself, by the rule of its version,
//! or any one if it is told to. What it answers says nothing of how that went: the auth
//! file and the error stream do. Measured on versions 0.101.0 to 0.169.0.

use serde::Deserialize;

/// The arguments of an app server that does nothing but what it is asked.
///
/// No configuration of the user's is read beside them, for the home is a fresh one. The
/// address is one that no request can be sent to: whatever else Codex would fetch as it
/// starts up would come with an access token, and a refusal would set off a rotation more.
/// One where nobody answers would not do: a proxy that the job names for plain HTTP would
/// be asked for it, token and all.
pub const APP_SERVER: &[&str] = &[
    "-c",
    r#"cli_auth_credentials_store="file""#,
    "-c",
    "analytics.enabled=false",
    "-c",
    "check_for_update_on_startup=false",
    "-c",
    r#"chatgpt_base_url="nowhere://127.0.0.1/""#,
    "app-server",
];

/// The arguments of the shortest run, for a Codex without an app server. It rotates by the
/// rule of its version alone, and calls the model.
pub const EXEC: &[&str] = &[
    "-c",
    r#"cli_auth_credentials_store="file""#,
    "exec",
    "--skip-git-repo-check",
    "--sandbox",
    "read-only",
    "Reply OK.",
];

/// The environment that the refresh needs beside what the job has: errors alone, plain.
pub const QUIET: &[(&str, &str)] = &[("RUST_LOG", "error"), ("NO_COLOR", "1")];

/// A message to the app server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The first one.
    Initialize,
    /// The one after the first answer. It has no answer itself.
    Initialized,
    /// What is with the login? An ended one is rotated, by the rule of the version.
    Look,
    /// Rotate the login, ended or not.
    Rotate,
}

impl Ask {
    /// Returns the line to be written.
    #[must_use]
    pub fn line(self, number: u32) -> String {
        let (method, params) = match self {
            Self::Initialize => (
                "initialize",
                concat!(
                    r#"{"clientInfo":{"name":"authferry","title":"authferry","version":""#,
                    env!("CARGO_PKG_VERSION"),
                    r#""}}"#
                ),
            ),
            Self::Initialized => return "{\"method\":\"initialized\"}\n".to_owned(),
            Self::Look => (
                "getAuthStatus",
                r#"{"includeToken":false,"refreshToken":false}"#,
            ),
            Self::Rotate => (
                "getAuthStatus",
                r#"{"includeToken":false,"refreshToken":true}"#,
            ),
        };
        format!("{{\"id\":{number},\"method\":\"{method}\",\"params\":{params}}}\n")
    }
}

/// What a line of the app server's means to whoever waits for the answer of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing.
    Something,
    /// It is done with what was asked, in whatever way.
    Answer,
    /// It does not know what was asked.
    Unknown,
}

impl Heard {
    /// Reads a line.
    #[must_use]
    pub fn of(line: &[u8], number: u32) -> Self {
        #[derive(Deserialize)]
        struct Message {
            id: Option<u32>,
            error: Option<Refusal>,
        }
        #[derive(Deserialize)]
        struct Refusal {
            code: i64,
        }
        // A request that the server makes has an id of the server's own, and a method.
        match serde_json::from_slice::<Message>(line) {
            Ok(Message {
                id: Some(id),
                error,
            }) if id == number => match error {
                Some(Refusal {
                    code: INVALID_REQUEST | NO_SUCH_METHOD,
                }) => Self::Unknown,
                Some(_) | None => Self::Answer,
            },
            Ok(_) | Err(_) => Self::Something,
        }
    }
}

/// What Codex calls a method that it does not know.
const INVALID_REQUEST: i64 = -32600;
const NO_SUCH_METHOD: i64 = -32601;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_line_of_json() {
        for ask in [Ask::Initialize, Ask::Initialized, Ask::Look, Ask::Rotate] {
            let line = ask.line(7);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            let message: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(message["id"] == 7, ask != Ask::Initialized);
            let forced = &message["params"]["refreshToken"];
            assert_eq!(*forced == true, ask == Ask::Rotate, "{line}");
        }
    }

    #[test]
    fn what_else_it_would_fetch_goes_to_nobody() {
        let set = |argument: &&str| argument.starts_with("chatgpt_base_url=");
        let address = APP_SERVER.iter().copied().find(set).expect("an address");
        assert!(!address.contains("\"http"), "{address} can be asked for");
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        for (line, heard) in [
            (
                r#"{"id":2,"result":{"authMethod":"chatgpt"}}"#,
                Heard::Answer,
            ),
            (
                r#"{"id":2,"error":{"code":-32603,"message":"m"}}"#,
                Heard::Answer,
            ),
            (
                r#"{"id":2,"error":{"code":-32600,"message":"m"}}"#,
                Heard::Unknown,
            ),
            (
                r#"{"error":{"code":-32601,"message":"m"},"id":2}"#,
                Heard::Unknown,
            ),
            (r#"{"id":1,"result":{}}"#, Heard::Something),
            (
                r#"{"method":"configWarning","params":{"summary":"s"}}"#,
                Heard::Something,
            ),
            (r#"{"id":"2","method":"m"}"#, Heard::Something),
            ("no JSON", Heard::Something),
            ("", Heard::Something),
        ] {
            assert_eq!(Heard::of(line.as_bytes(), 2), heard, "{line}");
        }
    }
}
