//! The events that a stub records.

use time::OffsetDateTime;

use super::Fault;

/// One request to the stub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When the request arrived, by the real clock.
    pub arrived: OffsetDateTime,
    /// When the stub decided on it, by the real clock.
    pub at: OffsetDateTime,
    /// The request and its result.
    pub what: What,
}

/// The request, and the decision of the stub.
///
/// `serial` names the generation of the request's token; `None` if the stub never issued that
/// token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A refresh.
    Refresh {
        /// The generation that the refresh token belongs to.
        serial: Option<u32>,
        /// The reason that Codex gives; empty if it gives none.
        reason: String,
        /// The decision of the stub.
        outcome: Outcome,
    },
    /// A revocation.
    Revoke {
        /// The generation that the refresh token belongs to.
        serial: Option<u32>,
    },
    /// A model call.
    Model {
        /// The generation that the bearer belongs to.
        serial: Option<u32>,
        /// The status of the reply.
        status: u16,
    },
    /// The output of a shell command that the model requested; comes with a model call.
    Printed {
        /// The text as Codex sends it: the output, and a few lines that Codex adds.
        text: String,
    },
    /// A request to an unknown endpoint.
    Other {
        /// The method and the target.
        request: String,
    },
}

/// The decision of the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The refresh token was live. The stub issued the generation of this serial.
    ///
    /// A [`Fault`] may still have withheld tokens from the caller.
    Rotated(u32),
    /// The refresh token was already spent.
    Reused,
    /// The refresh token was revoked.
    Revoked,
    /// The stub never issued that refresh token.
    Unknown,
    /// The request failed before the stub decided.
    Failed(Fault),
}

impl What {
    /// Returns whether this is a refresh that issued a new generation.
    #[must_use]
    pub fn is_rotation(&self) -> bool {
        matches!(
            self,
            Self::Refresh {
                outcome: Outcome::Rotated(_),
                ..
            }
        )
    }

    /// Returns whether this is a refresh, successful or not.
    #[must_use]
    pub fn is_refresh(&self) -> bool {
        matches!(self, Self::Refresh { .. })
    }

    /// Returns whether this is a model call, successful or not.
    #[must_use]
    pub fn is_model_call(&self) -> bool {
        matches!(self, Self::Model { .. })
    }
}
