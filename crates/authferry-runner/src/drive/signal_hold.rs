//! Holds signals back while a Codex of the home may have spent the refresh token.
//!
//! A Codex exits at once on a signal, and loses the new login if it has not written it yet.

use rustix::process::Signal;
use tokio::time::Instant;

use super::RoundTripDriver;
use crate::own_time::Limit;
use crate::signals::{SignalEvent, is_interactive, reaches_command_via_terminal};

/// Signals held back, and for how long.
pub(super) struct Hold {
    waiting: Vec<SignalEvent>,
    limit: Limit,
}

impl Hold {
    pub(super) fn wake(&self) -> Instant {
        self.limit.wake()
    }
}

impl RoundTripDriver<'_, '_> {
    /// Sends an end signal to the command. The first signal may be held back; the next one is sent
    /// at once. After a signal that was not held back, a further one kills the command.
    pub(super) fn signal_command(&mut self, signal: Signal) {
        let via_terminal = reaches_command_via_terminal(signal);
        let is_running = self
            .tree
            .as_ref()
            .is_some_and(|it| it.exit_code().is_none());
        if is_running && !via_terminal {
            self.report.ended_by.get_or_insert(signal.as_raw());
        }
        if via_terminal {
            self.note_interrupted();
        } else if self.signals_received == 1 && self.hold_back(SignalEvent::End(signal)) {
            return;
        }
        let was_held = self.hold.take().is_some();
        if was_held {
            self.note_interrupted();
        }
        if let Some(tree) = &mut self.tree {
            tree.stop_waiting_after(self.signals_received);
        }
        if self.signals_received > 1 && !was_held {
            self.note_interrupted();
            self.signal_tree(Signal::KILL);
        } else if !via_terminal {
            self.signal_tree(signal);
        }
    }

    /// Holds a signal back if a Codex of this home may have spent the refresh token; returns
    /// whether it does.
    pub(super) fn hold_back(&mut self, event: SignalEvent) -> bool {
        if let Some(hold) = &mut self.hold {
            hold.waiting.push(event);
            return true;
        }
        // Leftover processes of the command get no signal.
        let has_ended = self.tree.as_ref().is_none_or(|it| it.exit_code().is_some());
        if has_ended || !self.has_codex_that_may_have_spent() {
            return false;
        }
        if self.job.cancel_grace.is_zero() || is_interactive() {
            self.note_interrupted();
            return false;
        }
        self.hold = Some(Hold {
            waiting: vec![event],
            limit: Limit::new(self.job.cancel_grace),
        });
        true
    }

    /// Forwards the held signals once Codex has written the new login or has ended, or the cancel
    /// grace is over.
    pub(super) fn check_signal_hold(&mut self) {
        let Some(hold) = &mut self.hold else {
            return;
        };
        let is_over = hold.limit.is_over();
        let may_have_spent = self.has_codex_that_may_have_spent();
        if may_have_spent && !is_over {
            return;
        }
        if may_have_spent {
            self.note_interrupted();
        }
        let waiting = self.hold.take().map(|hold| hold.waiting);
        for event in waiting.into_iter().flatten() {
            match event {
                SignalEvent::End(signal) => self.signal_tree(signal),
                SignalEvent::Other(signal) => self.forward_now(signal),
                SignalEvent::Child => {}
            }
        }
    }

    pub(super) fn forward_now(&mut self, signal: Signal) {
        if let Some(tree) = &self.tree {
            tree.forward(signal);
        }
    }

    fn signal_tree(&mut self, signal: Signal) {
        if let Some(tree) = &mut self.tree {
            tree.signal(signal);
        }
    }

    fn has_codex_that_may_have_spent(&self) -> bool {
        let is_protected = self.protection();
        let tree = self.tree.as_ref();
        let processes = tree.map(crate::child::ProcessTree::processes);
        processes.into_iter().flatten().any(is_protected)
    }

    /// Notes that a signal reaches a Codex that may have spent the refresh token. If the final read
    /// finds no new login, the login may be spent.
    fn note_interrupted(&mut self) {
        if self.has_codex_that_may_have_spent() {
            self.report.interrupted = self.login_on_disk().map(|login| login.fingerprint);
        }
    }
}
