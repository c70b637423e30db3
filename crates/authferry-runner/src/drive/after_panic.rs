//! How a round trip ends after a panic.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use authferry_codex::Look;
use authferry_core::{Cause, Outcome, Refusal};
use tokio::time::sleep;

use super::RoundTripDriver;
use crate::child::TreeState;
use crate::rescue::Reason;
use crate::signals::SignalEvent;
use crate::unwound::Panicked;
use crate::{CommandEnd, Report, Signals};

/// How often to check whether the command has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

impl RoundTripDriver<'_, '_> {
    /// Waits for the command and rescues what it wrote. Uses neither the state machine nor the
    /// store, because their state is unknown after a panic. File and receipt stay for the next job.
    pub(super) async fn rescue_after_panic(
        mut self,
        panicked: Panicked,
        signals: &mut Signals,
    ) -> Report {
        // Dropping the request may panic again.
        catch_unwind(AssertUnwindSafe(|| self.request = None)).ok();
        self.watch = None;
        self.wait_for_command(signals).await;
        self.report.store_error = Some(panicked.at(self.job.store, "use"));
        self.report.outcome = if self.is_ready {
            self.rescue_file().await
        } else {
            Outcome::Refused(Refusal::Unreadable)
        };
        self.report
    }

    async fn wait_for_command(&mut self, signals: &mut Signals) {
        let is_protected = self.protection();
        while let Some(tree) = &mut self.tree {
            let left = match tree.reap(self.job.exit_grace, &is_protected) {
                TreeState::Running => None,
                TreeState::Ended => Some(0),
                TreeState::TimedOut(count) => Some(count),
            };
            if let Some(left) = left {
                self.report.left_running = left;
                self.report.terminated = tree.terminated();
                self.report.unkillable = tree.unkillable();
                let code = tree.exit_code().unwrap_or(u8::MAX);
                self.report.command = Some(CommandEnd::Exited(code));
                self.tree = None;
                break;
            }
            tokio::select! {
                event = signals.next() => match event {
                    SignalEvent::End(signal) => {
                        self.report.signal.get_or_insert(signal.as_raw());
                        tree.signal(signal);
                    }
                    SignalEvent::Other(signal) => tree.forward(signal),
                    SignalEvent::Child => {}
                },
                () = sleep(POLL_INTERVAL) => {}
            }
        }
    }

    async fn rescue_file(&mut self) -> Outcome {
        let base = self.report.base.clone();
        let base_fingerprint = base.as_ref().map(|base| base.generation.fingerprint);
        let (transient, deferred) = (self.transient.take(), self.deferred.take());
        let look = self.read_file();
        let left = match &look {
            Ok(Look::Usable { .. }) => None,
            Ok(Look::Missing) => Some(Cause::Missing),
            Ok(Look::Unusable { .. }) | Err(_) => Some(Cause::AuthFileError),
        };
        let seen = [look.ok(), self.transient.take(), transient, deferred];
        for look in seen.into_iter().flatten() {
            if let Look::Usable { secret, generation } = look {
                self.generations
                    .entry(generation.fingerprint)
                    .or_insert_with(|| Arc::new(secret));
            }
        }
        let record = self.record(Reason::NotPersisted, base);
        let mut kept = Vec::new();
        for (fingerprint, secret) in &self.generations {
            if Some(*fingerprint) != base_fingerprint {
                let limit = self.second_store_timeout();
                let done = self.job.rescue.keep(secret, &record, limit).await;
                if done.not_in_second_store.is_some() {
                    self.report.not_in_second_store = done.not_in_second_store;
                }
                kept.push(done.location);
            }
        }
        let rescued = !kept.is_empty() && kept.iter().all(Result::is_ok);
        let nothing_new = kept.is_empty();
        for kept in kept {
            match kept {
                Ok(path) => self.report.rescued.push(path),
                Err(error) => self.report.rescue_error = Some(error),
            }
        }
        match left {
            None if nothing_new && self.report.left_running > 0 => Outcome::Unsettled,
            None if nothing_new || self.access_only => Outcome::Unchanged,
            Some(cause) if nothing_new => Outcome::NotPersisted {
                cause,
                rescued: false,
            },
            None | Some(_) => Outcome::NotPersisted {
                cause: Cause::Store,
                rescued,
            },
        }
    }
}
