//! What becomes of a trip in which something panicked.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use authferry_codex::Look;
use authferry_core::{Cause, Outcome, Refusal};
use tokio::time::sleep;

use super::Driver;
use crate::child::Rest;
use crate::rescue::Reason;
use crate::signals::Told;
use crate::unwound::Panicked;
use crate::{CommandEnd, Report, Signals};

/// How often to see whether the command has ended.
const PACE: Duration = Duration::from_millis(50);

impl Driver<'_, '_> {
    /// Waits for the command, and keeps what it wrote: without the machine and the store, for
    /// nobody knows in what state they are. File and receipt stay for the next job.
    pub(super) async fn keep_what_is_there(
        mut self,
        panicked: Panicked,
        signals: &mut Signals,
    ) -> Report {
        // It may panic once more as it goes.
        catch_unwind(AssertUnwindSafe(|| self.request = None)).ok();
        self.watch = None;
        self.wait_for_the_command(signals).await;
        self.report.store_error = Some(panicked.at(self.job.store, "use"));
        self.report.outcome = if self.ready {
            self.keep_the_file().await
        } else {
            Outcome::Refused(Refusal::Unreadable)
        };
        self.report
    }

    async fn wait_for_the_command(&mut self, signals: &mut Signals) {
        let is_spared = self.spares();
        while let Some(family) = &mut self.family {
            let left = match family.rest(self.job.linger, &is_spared) {
                Rest::Alive => None,
                Rest::Gone => Some(0),
                Rest::Spared(count) => Some(count),
            };
            if let Some(left) = left {
                self.report.left_running = left;
                self.report.ended = family.ended();
                self.report.left = family.left();
                let code = family.end().unwrap_or(u8::MAX);
                self.report.command = Some(CommandEnd::Exited(code));
                self.family = None;
                break;
            }
            tokio::select! {
                told = signals.next() => match told {
                    Told::End(signal) => {
                        self.report.signal.get_or_insert(signal.as_raw());
                        family.signal(signal);
                    }
                    Told::Other(signal) => family.pass_on(signal),
                    Told::Child => {}
                },
                () = sleep(PACE) => {}
            }
        }
    }

    async fn keep_the_file(&mut self) -> Outcome {
        let base = self.report.base.clone();
        let of_the_store = base.as_ref().map(|base| base.generation.fingerprint);
        let (glimpse, deferred) = (self.glimpse.take(), self.deferred.take());
        let look = self.take_look();
        let left = match &look {
            Ok(Look::Usable { .. }) => None,
            Ok(Look::Missing) => Some(Cause::Missing),
            Ok(Look::Unusable { .. }) | Err(_) => Some(Cause::Unusable),
        };
        let seen = [look.ok(), self.glimpse.take(), glimpse, deferred];
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
            if Some(*fingerprint) != of_the_store {
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
            None if nothing_new || self.lent => Outcome::Unchanged,
            Some(cause) if nothing_new => Outcome::Stranded {
                cause,
                rescued: false,
            },
            None | Some(_) => Outcome::Stranded {
                cause: Cause::Store,
                rescued,
            },
        }
    }
}
