//! What a stub has seen.

use time::OffsetDateTime;

use super::Fault;

/// One request, as the stub took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When the request arrived, by the real clock.
    pub arrived: OffsetDateTime,
    /// When the stub decided on it, by the real clock.
    pub at: OffsetDateTime,
    /// What was asked.
    pub what: What,
}

/// What a request asked for, and what the stub decided.
///
/// A `serial` names the generation whose token came with the request; `None` if the stub
/// has never issued that token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// New tokens.
    Refresh {
        /// The generation that the refresh token belongs to.
        serial: Option<u32>,
        /// The reason that Codex gives; empty where it gives none.
        reason: String,
        /// What the stub decided.
        outcome: Outcome,
    },
    /// The end of a login.
    Revoke {
        /// The generation that the refresh token belongs to.
        serial: Option<u32>,
    },
    /// An answer of the model.
    Model {
        /// The generation that the bearer belongs to.
        serial: Option<u32>,
        /// The status of the reply.
        status: u16,
    },
    /// What a line of shell has printed that the model asked for; comes with a model call.
    Printed {
        /// As Codex hands it on: the output, and a few lines of its own about it.
        text: String,
    },
    /// Something that the stub does not have.
    Other {
        /// The method and the target.
        request: String,
    },
}

/// What the token endpoint decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The refresh token was live: the generation of this serial was issued.
    ///
    /// A [`Fault`] may still have kept some or all of it from the caller.
    Rotated(u32),
    /// The refresh token had been spent before.
    Reused,
    /// The refresh token had been revoked.
    Revoked,
    /// Nobody has ever issued that refresh token.
    Unknown,
    /// The request failed before anything was decided.
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

    /// Returns whether this is a refresh, whatever became of it.
    #[must_use]
    pub fn is_refresh(&self) -> bool {
        matches!(self, Self::Refresh { .. })
    }

    /// Returns whether this is a model call, whatever became of it.
    #[must_use]
    pub fn is_model_call(&self) -> bool {
        matches!(self, Self::Model { .. })
    }
}
