//! Refusals.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// A refusal in the format of Key Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The HTTP status.
    pub status: u16,
    /// The error code.
    pub code: &'static str,
    /// The inner error code, where Key Vault gives one.
    pub inner: Option<&'static str>,
    /// The error message.
    pub message: String,
    /// The seconds of `Retry-After`, if the answer has one.
    pub retry_after: Option<u32>,
}

impl Failure {
    /// Returns one without an inner code.
    #[must_use]
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            inner: None,
            message: message.into(),
            retry_after: None,
        }
    }

    /// Returns the same with an inner code.
    #[must_use]
    pub fn with_inner(self, inner: &'static str) -> Self {
        Self {
            inner: Some(inner),
            ..self
        }
    }

    /// The service itself failed.
    #[must_use]
    pub fn server_error() -> Self {
        Self::new(500, "InternalServerError", "The service failed")
    }

    /// Too many requests. The only reply that was published whole has no `Retry-After`.
    #[must_use]
    pub fn throttled(retry_after: Option<u32>) -> Self {
        Self {
            retry_after,
            ..Self::new(
                429,
                "Throttled",
                "Request was not processed because too many requests were received. \
                 Reason: VaultRequestTypeLimitReached",
            )
        }
    }

    /// Another write to the same secret is in progress.
    #[must_use]
    pub fn overlap(name: &str) -> Self {
        Self::new(
            409,
            "Conflict",
            format!(
                "There was a conflict writing the secret '{name}'. This can happen when multiple \
                 operations are performed in parallel against the secret; do them in a \
                 sequential manner."
            ),
        )
    }

    /// The token is valid, but the service does not know it yet.
    #[must_use]
    pub fn token_not_known_yet() -> Self {
        Self::new(
            401,
            "Unauthorized",
            "AKV10046: Unable to resolve the key used for signature validation.",
        )
    }

    pub(super) fn bad_parameter(message: impl Into<String>) -> Self {
        Self::new(400, "BadParameter", message)
    }

    pub(super) fn not_found(name: &str) -> Self {
        Self::new(
            404,
            "SecretNotFound",
            format!(
                "A secret with (name/id) {name} was not found in this key vault. If you recently \
                 deleted this secret you may be able to recover it using the correct recovery \
                 command. For help resolving this issue, please see \
                 https://go.microsoft.com/fwlink/?linkid=2125182"
            ),
        )
    }

    pub(super) fn disabled() -> Self {
        Self::new(
            403,
            "Forbidden",
            "Operation get is not allowed on a disabled secret.",
        )
        .with_inner("SecretDisabled")
    }

    pub(super) fn not_allowed(caller: &str, action: &str, resource: &str) -> Self {
        Self::new(
            403,
            "Forbidden",
            format!(
                "Caller is not authorized to perform action on resource.\r\nIf role assignments, \
                 deny assignments or role definitions were changed recently, please observe \
                 propagation time.\r\nCaller: appid={caller}\r\nAction: '{action}'\r\n\
                 Resource: '{resource}'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\n\
                 DecisionReason: null \r\n"
            ),
        )
        .with_inner("ForbiddenByRbac")
    }

    pub(super) fn body(&self) -> Value {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(inner) = self.inner {
            error["innererror"] = json!({"code": inner});
        }
        json!({"error": error})
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).expect("an HTTP status");
        let mut response = (status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
