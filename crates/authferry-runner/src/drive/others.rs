//! Processes that use the home and do not belong to the command, such as a Codex that an earlier step
//! left running.

use std::time::Duration;

use authferry_core::DueRule;
use tokio::time::Instant;

use super::Driver;
use crate::own_time::OwnClock;
use crate::ownership::end_timeout;
use crate::users::{self, User};
use crate::watch::Watch;
use crate::{InUse, codex_process, deadline};

/// How often to see whether they have ended.
const PACE: Duration = Duration::from_millis(100);

/// What is known of them.
#[derive(Debug)]
pub(super) struct Others {
    users: Vec<User>,
    clock: OwnClock,
    /// When to look again.
    wake: Option<Instant>,
}

impl Others {
    fn new() -> Self {
        Self {
            users: Vec::new(),
            clock: OwnClock::start(),
            wake: None,
        }
    }
}

impl Driver<'_, '_> {
    /// Waits for processes that use the home before the last read of the file.
    pub(crate) fn waiting_for_others(mut self) -> Self {
        self.others = Some(Others::new());
        self.watch = Some(Watch::new(self.job.home.auth_file()));
        // What was written before that is seen now.
        self.look_again = Some(Instant::now());
        self
    }

    /// After the command has ended: waits for other processes if the login is to be removed.
    pub(super) fn look_for_others(&mut self) {
        let takes_away = self.placed && !self.job.nested && !self.lent && !self.is_private;
        if takes_away && self.others.is_none() {
            self.others = Some(Others::new());
        }
    }

    /// Whether a process still uses the home within its timeout. Notes the one that does not end in time.
    pub(super) fn is_waiting_for_others(&mut self) -> bool {
        let Some(mut others) = self.others.take() else {
            return false;
        };
        others.users.retain(|user| user.uses(self.job.home));
        if others.users.is_empty() {
            others.users = users::of(self.job.home).unwrap_or_default();
        }
        let may_have_spent = |user: &&User| user.may_have_spent(&self.look);
        let spender = others.users.iter().find(may_have_spent);
        let Some(user) = spender.or(others.users.first()) else {
            return false;
        };
        let limit = match self.told {
            0 => end_timeout(self.job, spender.is_some()),
            _ => Duration::ZERO,
        };
        if others.clock.read() >= limit {
            self.report.in_use = Some(InUse {
                by: user.clone(),
                may_be_spent: spender.is_some(),
            });
            return false;
        }
        others.wake = Some(deadline::after(PACE));
        self.others = Some(others);
        true
    }

    /// When to look again whether they have ended.
    pub(super) fn others_wake(&self) -> Option<Instant> {
        self.others.as_ref().and_then(|others| others.wake)
    }

    /// A process that uses the home and may have spent the login in its file, such as the Codex that
    /// started us. It drops what it gets for that login if the file changes meanwhile.
    pub(super) fn spender(&self) -> Option<User> {
        // A login that is not due by any rule cannot be spent: no need to search the processes.
        if self.is_private || self.lent || !codex_process::may_be_spent(&self.look, DueRule::Any) {
            return None;
        }
        let users = users::of(self.job.home).unwrap_or_default();
        let mut users = users.into_iter().chain(users::above_us(self.job.home));
        users.find(|user| user.may_have_spent(&self.look))
    }

    /// Which process uses the home, a Codex that started us included. The login is not removed then.
    pub(super) fn usage(&self) -> Usage {
        // Only Codex's own refresh is in a private home, and a file without a refresh token is not
        // rotated.
        if self.is_private || self.lent {
            return Usage::Nobody;
        }
        let Some(users) = users::of(self.job.home) else {
            return Usage::Unseen;
        };
        let spender = users.iter().find(|user| user.may_have_spent(&self.look));
        let user = spender.or(users.first()).cloned();
        let user = user.or_else(|| users::above_us(self.job.home));
        user.map_or(Usage::Nobody, Usage::By)
    }

    /// Notes why the login is left in the home.
    pub(super) fn note_usage(&mut self, usage: Usage) {
        match usage {
            Usage::Nobody => {}
            Usage::By(by) => {
                let may_be_spent = by.may_have_spent(&self.look);
                self.report.in_use = Some(InUse { by, may_be_spent });
            }
            Usage::Unseen => self.report.unseen = true,
        }
    }
}

/// Who uses a home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Nobody,
    By(User),
    /// The kernel does not show it.
    Unseen,
}
