//! Signals that are held back while a Codex of the home may have spent the refresh token.
//!
//! Such a Codex ends at once when it gets the signal, and the new login is lost with it.

use rustix::process::Signal;
use tokio::time::Instant;

use super::Driver;
use crate::own_time::Limit;
use crate::signals::{Told, is_on_a_terminal, reaches_the_command_by_itself};

/// Signals that wait, and how long.
pub(super) struct Hold {
    waiting: Vec<Told>,
    limit: Limit,
}

impl Hold {
    pub(super) fn wake(&self) -> Instant {
        self.limit.wake()
    }
}

impl Driver<'_, '_> {
    /// A signal asks the command to end. The first one may be held back; the next one passes at
    /// once.
    pub(super) fn signal_command(&mut self, signal: Signal) {
        let by_itself = reaches_the_command_by_itself(signal);
        if by_itself {
            self.note_interrupted();
        } else if self.told == 1 && self.is_held_back(Told::End(signal)) {
            return;
        }
        let was_held = self.hold.take().is_some();
        if was_held {
            self.note_interrupted();
        }
        if let Some(family) = &mut self.family {
            family.stop_waiting_after(self.told);
        }
        if self.told > 1 && !was_held {
            self.note_interrupted();
            self.signal_family(Signal::KILL);
        } else if !by_itself {
            self.signal_family(signal);
        }
    }

    /// Whether a signal waits: a Codex of this home may have spent the refresh token.
    pub(super) fn is_held_back(&mut self, told: Told) -> bool {
        if let Some(hold) = &mut self.hold {
            hold.waiting.push(told);
            return true;
        }
        // What the command left behind gets no signal.
        let is_over = self.family.as_ref().is_none_or(|it| it.end().is_some());
        if is_over || !self.has_a_codex_that_may_have_spent() {
            return false;
        }
        if self.job.cancel_grace.is_zero() || is_on_a_terminal() {
            self.note_interrupted();
            return false;
        }
        self.hold = Some(Hold {
            waiting: vec![told],
            limit: Limit::new(self.job.cancel_grace),
        });
        true
    }

    /// Passes on what waits, if Codex has written what it got, or has ended, or the time is over.
    pub(super) fn look_at_the_hold(&mut self) {
        let Some(hold) = &mut self.hold else {
            return;
        };
        let is_over = hold.limit.is_over();
        let may_have_spent = self.has_a_codex_that_may_have_spent();
        if may_have_spent && !is_over {
            return;
        }
        if may_have_spent {
            self.note_interrupted();
        }
        let waiting = self.hold.take().map(|hold| hold.waiting);
        for told in waiting.into_iter().flatten() {
            match told {
                Told::End(signal) => self.signal_family(signal),
                Told::Other(signal) => self.pass_on_now(signal),
                Told::Child => {}
            }
        }
    }

    pub(super) fn pass_on_now(&mut self, signal: Signal) {
        if let Some(family) = &self.family {
            family.pass_on(signal);
        }
    }

    fn signal_family(&mut self, signal: Signal) {
        if let Some(family) = &mut self.family {
            family.signal(signal);
        }
    }

    fn has_a_codex_that_may_have_spent(&self) -> bool {
        let is_spared = self.spares();
        let family = self.family.as_ref();
        let processes = family.map(crate::child::Family::processes);
        processes.into_iter().flatten().any(is_spared)
    }

    /// A signal reaches a Codex that may have spent the refresh token: if nothing new is in the file
    /// in the end, the login may be spent.
    fn note_interrupted(&mut self) {
        if self.has_a_codex_that_may_have_spent() {
            self.report.interrupted = self.login_on_disk().map(|login| login.fingerprint);
        }
    }
}
