//! Makes Codex rotate a login without a request to the model.
//!
//! `codex app-server` speaks JSON on its standard streams, one message per line. On a
//! request for its login status, Codex rotates an expired login by the rule of its version;
//! with `refreshToken` set, it rotates any login. The reply does not say whether the
//! rotation succeeded: the auth file and stderr do. Measured on versions 0.63.0 to 0.171.0.
//!
//! There are two such requests, `getAuthStatus` and `account/read`. The schema that 0.169.0 and
//! 0.171.0 publish lacks the first, although they still answer it. The second may answer an error
//! although Codex has rotated the login (`workspace routing discovery failed`). After a permanent
//! refusal by the provider it answers without an account (0.163.0 to 0.171.0, not 0.101.0), and sends
//! nothing more to the provider.

use serde::Deserialize;
use serde_json::{Map, Value};

/// The arguments of an app server that only answers our requests.
///
/// Codex reads no user configuration, because the home is new. The base URL has a scheme
/// that no request can use: other requests at startup would carry the access token, and a
/// rejected one would cause a second rotation. An HTTP address without a listener is not
/// enough: the job's HTTP proxy would receive the request with the token.
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

/// The arguments of the shortest run, for a Codex without an app server. This Codex rotates
/// only by the rule of its version, and calls the model.
pub const EXEC: &[&str] = &[
    "-c",
    r#"cli_auth_credentials_store="file""#,
    "exec",
    "--skip-git-repo-check",
    "--sandbox",
    "read-only",
    "Reply OK.",
];

/// The environment variables that a refresh adds to the job's: log errors only, no colors.
pub const REFRESH_ENV: &[(&str, &str)] = &[("RUST_LOG", "error"), ("NO_COLOR", "1")];

/// A message to the app server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The first message.
    Initialize,
    /// The message after the first reply. It gets no reply.
    Initialized,
    /// Reads the login status. Codex rotates an expired login by the rule of its version.
    ReadStatus,
    /// Rotates the login, expired or not.
    Rotate,
    /// Does what [`ReadStatus`](Self::ReadStatus) does, by the newer request.
    ReadAccount,
    /// Does what [`Rotate`](Self::Rotate) does, by the newer request.
    RotateByAccount,
}

impl Request {
    /// Returns the line to write.
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
            Self::ReadStatus => (
                "getAuthStatus",
                r#"{"includeToken":false,"refreshToken":false}"#,
            ),
            Self::Rotate => (
                "getAuthStatus",
                r#"{"includeToken":false,"refreshToken":true}"#,
            ),
            Self::ReadAccount => ("account/read", r#"{"refreshToken":false}"#),
            Self::RotateByAccount => ("account/read", r#"{"refreshToken":true}"#),
        };
        format!("{{\"id\":{number},\"method\":\"{method}\",\"params\":{params}}}\n")
    }
}

/// How a line from the app server relates to the request with a given number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerReply {
    /// Not a reply to this request.
    Unrelated,
    /// The request is done, successfully or not.
    Done,
    /// The app server does not know the method.
    UnknownMethod,
}

impl ServerReply {
    /// Parses a line.
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
        // A request from the server has a `method`, and an id from the server's own counter.
        match serde_json::from_slice::<Message>(line) {
            Ok(Message {
                id: Some(id),
                error,
            }) if id == number => match error {
                Some(Refusal {
                    code: INVALID_REQUEST | METHOD_NOT_FOUND,
                }) => Self::UnknownMethod,
                Some(_) | None => Self::Done,
            },
            Ok(_) | Err(_) => Self::Unrelated,
        }
    }
}

/// Whether a reply to `account/read` names no account, as after a permanent refusal.
#[must_use]
pub fn has_no_account(reply: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Message {
        result: Map<String, Value>,
    }
    let message = serde_json::from_slice::<Message>(reply);
    message.is_ok_and(|message| message.result.get("account") == Some(&Value::Null))
}

/// The error codes with which Codex rejects an unknown method.
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_line_of_json() {
        for request in [
            Request::Initialize,
            Request::Initialized,
            Request::ReadStatus,
            Request::Rotate,
            Request::ReadAccount,
            Request::RotateByAccount,
        ] {
            let line = request.line(7);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            let message: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(message["id"] == 7, request != Request::Initialized);
            let forced = &message["params"]["refreshToken"];
            let rotates = matches!(request, Request::Rotate | Request::RotateByAccount);
            assert_eq!(*forced == true, rotates, "{line}");
        }
    }

    #[test]
    fn the_base_url_is_unreachable() {
        let set = |argument: &&str| argument.starts_with("chatgpt_base_url=");
        let address = APP_SERVER.iter().copied().find(set).expect("an address");
        assert!(!address.contains("\"http"), "{address} is reachable");
    }

    #[test]
    fn an_account_is_missing_only_in_a_result() {
        for (reply, is) in [
            (r#"{"id":2,"result":{"account":null}}"#, true),
            (r#"{"id":2,"result":{"account":{"type":"chatgpt"}}}"#, false),
            (r#"{"id":2,"result":{}}"#, false),
            (r#"{"id":2,"error":{"code":-32603,"message":"m"}}"#, false),
            ("no JSON", false),
        ] {
            assert_eq!(has_no_account(reply.as_bytes()), is, "{reply}");
        }
    }

    #[test]
    fn only_a_reply_with_the_number_counts() {
        for (line, reply) in [
            (
                r#"{"id":2,"result":{"authMethod":"chatgpt"}}"#,
                ServerReply::Done,
            ),
            (
                r#"{"id":2,"error":{"code":-32603,"message":"m"}}"#,
                ServerReply::Done,
            ),
            (
                r#"{"id":2,"error":{"code":-32600,"message":"m"}}"#,
                ServerReply::UnknownMethod,
            ),
            (
                r#"{"error":{"code":-32601,"message":"m"},"id":2}"#,
                ServerReply::UnknownMethod,
            ),
            (r#"{"id":1,"result":{}}"#, ServerReply::Unrelated),
            (
                r#"{"method":"configWarning","params":{"summary":"s"}}"#,
                ServerReply::Unrelated,
            ),
            (r#"{"id":"2","method":"m"}"#, ServerReply::Unrelated),
            ("no JSON", ServerReply::Unrelated),
            ("", ServerReply::Unrelated),
        ] {
            assert_eq!(ServerReply::of(line.as_bytes(), 2), reply, "{line}");
        }
    }
}
