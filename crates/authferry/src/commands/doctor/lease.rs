//! The check of the lease: its status, and whether this job may acquire it.

use std::time::Duration;

use authferry_core::{LeaseError, LeaseStatus};
use authferry_runner::{LeaseDefect, RefusalNote, try_lease};
use tokio::time::timeout;

use super::check::{Check, State};
use crate::args::DoctorArgs;
use crate::commands::{from_now, round_trips, status::at};
use crate::messages;
use crate::messages::time::text;
use crate::outcome::Ending;
use crate::plan::Plan;

/// The result of the check.
pub(super) enum LeaseCheck {
    /// The store has no leases.
    Unsupported,
    /// The lease was not read.
    Skipped,
    /// The status of the lease; `doctor` did not try to acquire it.
    Status(Option<LeaseStatus>),
    /// The status before, and whether `doctor` acquired and released the lease.
    Tried(Option<LeaseStatus>, Result<(), LeaseError>),
    /// The lease could not be read.
    Failed(Box<Ending>),
}

impl LeaseCheck {
    /// The note of an earlier rotation that the provider refuses a login.
    pub(super) fn refusal(&self) -> Option<RefusalNote> {
        match self {
            Self::Status(status) | Self::Tried(status, _) => {
                RefusalNote::in_note(status.as_ref()?.note.as_ref()?)
            }
            Self::Unsupported | Self::Skipped | Self::Failed(_) => None,
        }
    }

    /// Reads the lease, and tries to acquire it with `--probe`.
    pub(super) async fn make(plan: &Plan, args: &DoctorArgs) -> Self {
        let Some(leases) = plan.store.leases() else {
            return Self::Unsupported;
        };
        let timed_out = |_| Box::new(messages::out_of_time(&plan.store));
        let store_timeout = args.common.store_timeout;
        let status = match timeout(store_timeout, leases.look())
            .await
            .map_err(timed_out)
        {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => return Self::Tried(None, Err(error)),
            Err(ending) => return Self::Failed(ending),
        };
        if !args.probe {
            return Self::Status(status);
        }
        let defect = status.as_ref().and_then(LeaseDefect::of);
        let takes_over = defect.is_some() && store_timeout > LeaseDefect::TAKEOVER_DELAY;
        let tried = timeout(store_timeout, try_lease(leases, &plan.writer, takes_over)).await;
        match tried.map_err(timed_out).and_then(round_trips::check_start) {
            Ok(tried) => Self::Tried(status, tried),
            Err(ending) => Self::Failed(ending),
        }
    }

    /// The line of the check.
    pub(super) fn check(self, plan: &Plan) -> Option<Check> {
        const NAME: &str = "lease";
        let held = |owner: String, until| {
            let until =
                at(i64::try_from(until).ok()).map_or_else(|| "an unknown time".to_owned(), text);
            let message = format!("{owner} holds it until {until}, or longer");
            Check::new(NAME, State::Warning, message).hint("try again when it is released")
        };
        let now = u64::try_from(from_now(Duration::ZERO)).unwrap_or_default();
        let status = match &self {
            Self::Status(status) | Self::Tried(status, Err(LeaseError::Held { .. })) => {
                status.as_ref()
            }
            Self::Unsupported | Self::Skipped | Self::Tried(..) | Self::Failed(_) => None,
        };
        if let Some(defect) = status.and_then(LeaseDefect::of) {
            let message = messages::lease_defect(defect);
            let check = Check::new(NAME, State::Warning, message);
            return Some(check.hint(messages::take_over(&plan.store)));
        }
        Some(match self {
            Self::Skipped => return None,
            Self::Unsupported => {
                let message = format!(
                    "{} has no leases: make sure that no other job rotates the login at the same time",
                    plan.store
                );
                Check::new(NAME, State::Warning, message)
            }
            Self::Status(Some(LeaseStatus {
                owner,
                until: Some(until),
                ..
            })) if until > now => held(owner, until),
            Self::Status(_) => {
                let message = "no job holds it; not tested whether this job may acquire it";
                Check::new(NAME, State::NotTried, message)
                    .hint("add `--probe` to acquire and release the lease")
            }
            Self::Tried(_, Ok(())) => {
                let message = "was acquired and released, as at the start of a rotation";
                Check::new(NAME, State::Ok, message)
            }
            Self::Tried(_, Err(LeaseError::Held { owner, until, .. })) => held(owner, until),
            Self::Tried(_, Err(LeaseError::Lost)) => {
                let message = "another job acquired it at the same moment";
                Check::new(NAME, State::Warning, message).hint("try again")
            }
            Self::Tried(_, Err(LeaseError::Store(error))) => {
                Check::failed(NAME, messages::lease(&error))
            }
            Self::Failed(ending) => Check::failed(NAME, *ending),
        })
    }
}
