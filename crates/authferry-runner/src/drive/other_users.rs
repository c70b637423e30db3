//! Processes that use the home and do not belong to the command, such as a Codex that an earlier
//! step left running.

use std::time::Duration;

use authferry_core::DueRule;
use tokio::time::Instant;

use super::RoundTripDriver;
use crate::own_time::OwnClock;
use crate::ownership::end_timeout;
use crate::users::{self, User};
use crate::watch::Watch;
use crate::{InUse, codex_process, deadline};

/// How often to check whether these processes have ended.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The other processes that use the home.
#[derive(Debug)]
pub(super) struct OtherUsers {
    users: Vec<User>,
    clock: OwnClock,
    /// When to check again.
    wake: Option<Instant>,
}

impl OtherUsers {
    fn new() -> Self {
        Self {
            users: Vec::new(),
            clock: OwnClock::start(),
            wake: None,
        }
    }
}

impl RoundTripDriver<'_, '_> {
    /// Waits for other processes that use the home before the final read of the file.
    pub(crate) fn waiting_for_other_users(mut self) -> Self {
        self.others = Some(OtherUsers::new());
        self.watch = Some(Watch::new(self.job.home.auth_file()));
        // Read now what was written before the watch began.
        self.reread_at = Some(Instant::now());
        self
    }

    /// After the command has ended: waits for other processes if the login is to be removed.
    pub(super) fn check_other_users(&mut self) {
        let is_to_be_removed =
            self.placed && !self.job.nested && !self.access_only && !self.is_private;
        if is_to_be_removed && self.others.is_none() {
            self.others = Some(OtherUsers::new());
        }
    }

    /// Whether a process still uses the home within its timeout. Notes a process that does not end
    /// in time.
    pub(super) fn is_waiting_for_other_users(&mut self) -> bool {
        let Some(mut others) = self.others.take() else {
            return false;
        };
        others.users.retain(|user| user.uses(self.job.home));
        if others.users.is_empty() {
            others.users = users::of(self.job.home).unwrap_or_default();
        }
        let may_have_spent = |user: &&User| user.may_have_spent(&self.look);
        let possible_spender = others.users.iter().find(may_have_spent);
        let Some(user) = possible_spender.or(others.users.first()) else {
            return false;
        };
        let limit = match self.signals_received {
            0 => end_timeout(self.job, possible_spender.is_some()),
            _ => Duration::ZERO,
        };
        if others.clock.read() >= limit {
            self.report.in_use = Some(InUse {
                by: user.clone(),
                may_be_spent: possible_spender.is_some(),
            });
            return false;
        }
        others.wake = Some(deadline::after(POLL_INTERVAL));
        self.others = Some(others);
        true
    }

    /// When to check again whether the other processes have ended.
    pub(super) fn other_users_check_at(&self) -> Option<Instant> {
        self.others.as_ref().and_then(|others| others.wake)
    }

    /// Returns a process that uses the home and may have spent the login in the file, such as the
    /// Codex that started us. If the file changes meanwhile, that Codex drops the login that it
    /// receives.
    pub(super) fn possible_spender(&self) -> Option<User> {
        // A login that is not due by any rule cannot be spent: skip the search of the processes.
        if self.is_private
            || self.access_only
            || !codex_process::may_be_spent(&self.look, DueRule::Any)
        {
            return None;
        }
        let users = users::of(self.job.home).unwrap_or_default();
        let mut users = users.into_iter().chain(users::above_us(self.job.home));
        users.find(|user| user.may_have_spent(&self.look))
    }

    /// Returns which process uses the home, including a Codex that started us. The login is not
    /// removed while a process uses the home.
    pub(super) fn usage(&self) -> Usage {
        // A private home is used only by the Codex that refreshes in it, and an access-only file is
        // not rotated.
        if self.is_private || self.access_only {
            return Usage::Unused;
        }
        let Some(users) = users::of(self.job.home) else {
            return Usage::Unknown;
        };
        let possible_spender = users.iter().find(|user| user.may_have_spent(&self.look));
        let user = possible_spender.or(users.first()).cloned();
        let user = user.or_else(|| users::above_us(self.job.home));
        user.map_or(Usage::Unused, Usage::By)
    }

    /// Notes why the login stays in the home.
    pub(super) fn note_usage(&mut self, usage: Usage) {
        match usage {
            Usage::Unused => {}
            Usage::By(by) => {
                let may_be_spent = by.may_have_spent(&self.look);
                self.report.in_use = Some(InUse { by, may_be_spent });
            }
            Usage::Unknown => self.report.usage_unknown = true,
        }
    }
}

/// Whether a home is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Unused,
    By(User),
    /// The processes are not visible.
    Unknown,
}
