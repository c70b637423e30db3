//! The lease as `status` reads it: it has the note that the provider refuses the login.

use std::time::Duration;

use authferry_core::{Fingerprint, LeaseError, LeaseStatus};
use authferry_runner::{LeaseDefect, RefusalNote};
use tokio::time::timeout;

use crate::messages;
use crate::outcome::Ending;
use crate::plan::Plan;

/// What is known of the lease.
#[derive(Debug)]
pub(super) enum LeaseReading {
    /// The store has no leases, so no job can have noted a refusal.
    Unsupported,
    /// The status; `None` if no job ever acquired the lease.
    Read(Option<LeaseStatus>),
    /// The lease could not be read: nothing is known of a refusal.
    Unknown(Box<Ending>),
}

impl LeaseReading {
    pub(super) async fn make(plan: &Plan, store_timeout: Duration) -> Self {
        let Some(leases) = plan.store.leases() else {
            return Self::Unsupported;
        };
        match timeout(store_timeout, leases.look()).await {
            Ok(Ok(status)) => Self::Read(status),
            Ok(Err(LeaseError::Store(error))) => Self::Unknown(messages::lease(&error).into()),
            Ok(Err(LeaseError::Held { .. } | LeaseError::Lost)) => Self::Read(None),
            Err(_) => Self::Unknown(messages::out_of_time(&plan.store).into()),
        }
    }

    fn status(&self) -> Option<&LeaseStatus> {
        match self {
            Self::Read(status) => status.as_ref(),
            Self::Unsupported | Self::Unknown(_) => None,
        }
    }

    /// The note that the provider refuses this login.
    pub(super) fn refusal(&self, login: Fingerprint) -> Option<RefusalNote> {
        RefusalNote::in_status(login, self.status()?)
    }

    pub(super) fn defect(&self) -> Option<LeaseDefect> {
        self.status().and_then(LeaseDefect::of)
    }

    /// Why the lease could not be read, with hints.
    pub(super) fn failure(&self) -> Option<&Ending> {
        match self {
            Self::Unknown(ending) => Some(ending),
            Self::Unsupported | Self::Read(_) => None,
        }
    }
}
