//! A watch: writes through what other steps of the job do to the home, until a signal or a handover
//! request arrives.

use std::time::Duration;

use authferry_core::{Effect, Event, Outcome, RoundTrip};
use tokio::time::{Instant, sleep_until};

use super::{CANCELLED_REQUEST_TIMEOUT, PendingRequest, RoundTripDriver, answer, at, changed};
use crate::signals::SignalEvent;
use crate::watch::Watch;
use crate::watch_marker::WatchMarker;
use crate::{Receipt, Report, Signals, deadline};

/// Why the watch woke up.
#[expect(clippy::large_enum_variant, reason = "one at a time, and on the stack")]
enum WatchWakeup {
    Event(Event),
    FileChanged,
    WatchMarker,
    SignalEvent(SignalEvent),
    Check,
    Over,
}

/// How often to check whether the job and its receipt still exist.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How long a watch outlives its job.
const JOB_OVER_TIMEOUT: Duration = Duration::from_mins(1);

/// The job that owns the home.
enum WatchedJob {
    Running,
    Ended,
    NoReceipt,
}

impl RoundTripDriver<'_, '_> {
    /// Writes through until a signal arrives, another authferry requests the home, or the job has
    /// been over for a minute.
    pub(crate) async fn watch_loop(
        mut self,
        (mut round_trip, mut effects): (RoundTrip, Vec<Effect>),
        marker: WatchMarker,
        watch: Watch,
        signals: &mut Signals,
    ) -> Report {
        self.marker = Some(marker);
        self.watch = Some(watch);
        let mut end_by = None;
        let mut check_at = deadline::after(CHECK_INTERVAL);
        let mut over_for = Duration::ZERO;
        loop {
            let mut event = None;
            for effect in std::mem::take(&mut effects) {
                match effect {
                    Effect::Read => self.read(),
                    Effect::Swap(write) => self.swap(&write),
                    Effect::Wait(time) => {
                        self.request = Some(PendingRequest::Pause(deadline::after(time)));
                    }
                    Effect::Rescue(keep) => {
                        event = Some(Event::Rescued(self.rescue(&round_trip, &keep).await));
                    }
                    Effect::Place(_) | Effect::Run | Effect::Finish(_) => {
                        unreachable!(
                            "a joined round trip has no such effect before its command ends"
                        )
                    }
                }
            }
            if event.is_none() && end_by.is_some() && self.request.is_none() {
                return self.end_watch(&round_trip);
            }
            let event = match event {
                Some(event) => event,
                None => match self.next_wakeup(end_by, check_at, signals).await {
                    WatchWakeup::Event(event) => event,
                    WatchWakeup::FileChanged => match self.file_changed() {
                        Some(event) => event,
                        None => continue,
                    },
                    WatchWakeup::WatchMarker
                        if self.is_handover_requested() && end_by.is_none() =>
                    {
                        // The new owner of the home reads the file itself.
                        end_by = Some(deadline::after(CANCELLED_REQUEST_TIMEOUT));
                        continue;
                    }
                    WatchWakeup::SignalEvent(
                        SignalEvent::End(signal) | SignalEvent::Other(signal),
                    ) => {
                        self.signals_received += 1;
                        self.report.signal.get_or_insert(signal.as_raw());
                        end_by = Some(deadline::after(self.store_timeout()));
                        match self.file_changed() {
                            Some(event) => event,
                            None => continue,
                        }
                    }
                    WatchWakeup::Check => {
                        check_at = deadline::after(CHECK_INTERVAL);
                        match self.watched_job() {
                            WatchedJob::Running => {
                                over_for = Duration::ZERO;
                                continue;
                            }
                            // Another process has removed the login or the home.
                            WatchedJob::NoReceipt => {
                                end_by = Some(deadline::after(CANCELLED_REQUEST_TIMEOUT));
                                continue;
                            }
                            // Count checks, not clock time: a container that was paused counts as
                            // one check.
                            WatchedJob::Ended => over_for += CHECK_INTERVAL,
                        }
                        if over_for < JOB_OVER_TIMEOUT {
                            continue;
                        }
                        self.report.job_is_over = true;
                        end_by = Some(deadline::after(self.store_timeout()));
                        match self.file_changed() {
                            Some(event) => event,
                            None => continue,
                        }
                    }
                    WatchWakeup::WatchMarker | WatchWakeup::SignalEvent(SignalEvent::Child) => {
                        continue;
                    }
                    WatchWakeup::Over => return self.end_watch(&round_trip),
                },
            };
            let due = round_trip.due().map(|generation| generation.fingerprint);
            (round_trip, effects) = round_trip.step(event);
            self.note(&round_trip, due);
        }
    }

    /// Whether another authferry has requested the home, and persists what is left.
    fn is_handover_requested(&self) -> bool {
        self.marker
            .as_ref()
            .is_some_and(WatchMarker::is_handover_requested)
    }

    /// Returns the state of the job that owns the home.
    fn watched_job(&self) -> WatchedJob {
        if matches!(Receipt::read(self.job.home), Ok(None)) {
            return WatchedJob::NoReceipt;
        }
        match &self.owner {
            Some(owner) if owner.is_over() => WatchedJob::Ended,
            Some(_) | None => WatchedJob::Running,
        }
    }

    async fn next_wakeup(
        &mut self,
        end_by: Option<Instant>,
        check_at: Instant,
        signals: &mut Signals,
    ) -> WatchWakeup {
        let marker = self.marker.as_ref();
        let event = tokio::select! {
            answer = answer(&mut self.request) => answer,
            event = signals.next() => return WatchWakeup::SignalEvent(event),
            () = changed(self.watch.as_ref()), if end_by.is_none() => return WatchWakeup::FileChanged,
            () = at(self.reread_at), if end_by.is_none() => return WatchWakeup::FileChanged,
            () = marker_changed(marker), if end_by.is_none() => return WatchWakeup::WatchMarker,
            () = sleep_until(check_at), if end_by.is_none() => return WatchWakeup::Check,
            () = at(end_by) => return WatchWakeup::Over,
        };
        self.request = None;
        WatchWakeup::Event(self.answered(event))
    }

    /// Ends the watch and leaves file and receipt to the next owner of the home. The file holds
    /// what the store does not hold yet.
    fn end_watch(mut self, round_trip: &RoundTrip) -> Report {
        // Drop the marker while we hold the lock, or we would remove the marker of the next watch.
        self.marker = None;
        self.report.doubtful |=
            matches!(self.request, Some(PendingRequest::Store { swap: true, .. }));
        self.report.rotations_in_a_loop = self.pace.rotations_in_a_loop();
        self.report.base = round_trip.base().cloned();
        self.report.unpersisted = round_trip.due().map(|generation| generation.fingerprint);
        self.report.outcome = if self.report.writes.is_empty() {
            Outcome::Unchanged
        } else {
            Outcome::Persisted {
                overwritten: Vec::new(),
            }
        };
        self.report
    }
}

async fn marker_changed(marker: Option<&WatchMarker>) {
    match marker {
        Some(marker) => marker.changed().await,
        None => sleep_until(Instant::now()).await,
    }
}
