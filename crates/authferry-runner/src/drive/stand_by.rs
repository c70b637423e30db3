//! A trip whose command is not ours: written through until we are told to go.

use std::time::Duration;

use authferry_core::{Effect, Event, Outcome, Trip};
use tokio::time::{Instant, sleep_until};

use super::{CUT, Driver, Request, answer, at, changed};
use crate::sign::Sign;
use crate::signals::Told;
use crate::watch::Watch;
use crate::{Receipt, Report, Signals, deadline};

/// What the loop woke up for.
#[expect(clippy::large_enum_variant, reason = "one at a time, and on the stack")]
enum Woke {
    Event(Event),
    FileChanged,
    Sign,
    Told(Told),
    Look,
    Over,
}

/// How often to look whether there still is something to watch.
const LOOK: Duration = Duration::from_secs(2);
/// How long after the end of its job a watch ends.
const JOB_OVER: Duration = Duration::from_mins(1);

/// The job that the home belongs to.
enum Job {
    GoesOn,
    IsOver,
    HasNoReceipt,
}

impl Driver<'_, '_> {
    /// Writes through until a signal arrives, another authferry removes the sign, or the job has been
    /// over for a minute.
    pub(crate) async fn stand_by(
        mut self,
        (mut trip, mut effects): (Trip, Vec<Effect>),
        sign: Sign,
        watch: Watch,
        signals: &mut Signals,
    ) -> Report {
        self.sign = Some(sign);
        self.watch = Some(watch);
        let mut until = None;
        let mut look_at = deadline::after(LOOK);
        let mut over_for = Duration::ZERO;
        loop {
            let mut event = None;
            for effect in std::mem::take(&mut effects) {
                match effect {
                    Effect::Read => self.read(),
                    Effect::Swap(write) => self.swap(&write),
                    Effect::Wait(time) => {
                        self.request = Some(Request::Pause(deadline::after(time)));
                    }
                    Effect::Rescue(keep) => {
                        event = Some(Event::Rescued(self.rescue(&trip, &keep).await));
                    }
                    Effect::Place(_) | Effect::Run | Effect::Finish(_) => {
                        unreachable!("a trip that was joined never says so before its command ends")
                    }
                }
            }
            if event.is_none() && until.is_some() && self.request.is_none() {
                return self.leave(&trip);
            }
            let event = match event {
                Some(event) => event,
                None => match self.wakes(until, look_at, signals).await {
                    Woke::Event(event) => event,
                    Woke::FileChanged => match self.file_changed() {
                        Some(event) => event,
                        None => continue,
                    },
                    Woke::Sign if self.is_relieved() && until.is_none() => {
                        // Whoever has come looks at the file by himself.
                        until = Some(deadline::after(CUT));
                        continue;
                    }
                    Woke::Told(Told::End(signal) | Told::Other(signal)) => {
                        self.told += 1;
                        self.report.signal.get_or_insert(signal.as_raw());
                        until = Some(deadline::after(self.patience()));
                        match self.file_changed() {
                            Some(event) => event,
                            None => continue,
                        }
                    }
                    Woke::Look => {
                        look_at = deadline::after(LOOK);
                        match self.whereabouts() {
                            Job::GoesOn => {
                                over_for = Duration::ZERO;
                                continue;
                            }
                            // Somebody has taken the login away, or the home.
                            Job::HasNoReceipt => {
                                until = Some(deadline::after(CUT));
                                continue;
                            }
                            // Time as we see it: a container that was paused counts as one look.
                            Job::IsOver => over_for += LOOK,
                        }
                        if over_for < JOB_OVER {
                            continue;
                        }
                        self.report.job_is_over = true;
                        until = Some(deadline::after(self.patience()));
                        match self.file_changed() {
                            Some(event) => event,
                            None => continue,
                        }
                    }
                    Woke::Sign | Woke::Told(Told::Child) => continue,
                    Woke::Over => return self.leave(&trip),
                },
            };
            let due = trip.due().map(|generation| generation.fingerprint);
            (trip, effects) = trip.step(event);
            self.note(&trip, due);
        }
    }

    /// Whether somebody else has come, who does what is left to be done.
    fn is_relieved(&self) -> bool {
        self.sign.as_ref().is_some_and(Sign::is_down)
    }

    /// What became of the job that the home belongs to.
    fn whereabouts(&self) -> Job {
        if matches!(Receipt::read(self.job.home), Ok(None)) {
            return Job::HasNoReceipt;
        }
        match &self.owner {
            Some(owner) if owner.is_over() => Job::IsOver,
            Some(_) | None => Job::GoesOn,
        }
    }

    async fn wakes(
        &mut self,
        until: Option<Instant>,
        look_at: Instant,
        signals: &mut Signals,
    ) -> Woke {
        let sign = self.sign.as_ref();
        let event = tokio::select! {
            answer = answer(&mut self.request) => answer,
            told = signals.next() => return Woke::Told(told),
            () = changed(self.watch.as_ref()), if until.is_none() => return Woke::FileChanged,
            () = at(self.look_again), if until.is_none() => return Woke::FileChanged,
            () = seen_down(sign), if until.is_none() => return Woke::Sign,
            () = sleep_until(look_at), if until.is_none() => return Woke::Look,
            () = at(until) => return Woke::Over,
        };
        self.request = None;
        Woke::Event(self.answered(event))
    }

    /// Goes, and leaves the file and the receipt to whoever comes next. What the store does
    /// not hold yet is in the file.
    fn leave(mut self, trip: &Trip) -> Report {
        // While the lock is ours, so that it is not the next one's that we take down.
        self.sign = None;
        self.report.doubtful |= matches!(self.request, Some(Request::Store { swap: true, .. }));
        self.report.rotations_in_a_loop = self.pace.rotations_in_a_loop();
        self.report.base = trip.base().cloned();
        self.report.left_due = trip.due().map(|generation| generation.fingerprint);
        self.report.outcome = if self.report.writes.is_empty() {
            Outcome::Unchanged
        } else {
            Outcome::Persisted { buried: Vec::new() }
        };
        self.report
    }
}

async fn seen_down(sign: Option<&Sign>) {
    match sign {
        Some(sign) => sign.changed().await,
        None => sleep_until(Instant::now()).await,
    }
}
