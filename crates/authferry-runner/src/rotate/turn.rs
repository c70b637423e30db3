//! The trip that rotates, in a private home.

use std::time::Duration;

use authferry_codex::Home;
use authferry_core::{Goal, Terms, Trip};

use super::{Driver, Rotating};
use crate::refresher::{How, Refreshed, Refresher};
use crate::rotations::{HOME, private};
use crate::{CommandEnd, Job, Look, NotBegun, Report, Signals, drive, terms};

/// How long processes may stay that Codex leaves behind when it has refreshed.
const LINGER: Duration = Duration::from_secs(5);

impl Driver<'_> {
    /// Makes the trip, and another one by a plain run where Codex has no app server. `on_trial`:
    /// the login is rotated even if it is not due, for nothing else shows whether it is live.
    pub(super) async fn trips(
        &mut self,
        on_trial: bool,
        signals: &mut Signals,
    ) -> Result<(), NotBegun> {
        for how in [How::AppServer, How::Exec] {
            let report = self.trip(how, on_trial, signals).await?;
            // A program that is not there, or cannot be started, is none the second time either.
            let there = !matches!(
                report.command,
                None | Some(CommandEnd::NotStarted(_) | CommandEnd::Exited(126 | 127))
            );
            let refreshed = report.refreshed.as_ref();
            let again = there
                && refreshed.is_some_and(Refreshed::calls_for_a_run)
                && report.writes.is_empty()
                && report.signal.is_none();
            self.rotated.trip = Some(report);
            if !again {
                break;
            }
        }
        Ok(())
    }

    async fn trip(
        &mut self,
        how: How,
        on_trial: bool,
        signals: &mut Signals,
    ) -> Result<Report, NotBegun> {
        let rotating = self.rotating;
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => private(rotating.rotations)?,
        };
        let home = Home::new(&folder.path().join(HOME))?;
        let job = job_in(rotating, &home);
        let terms = Terms {
            is_rotation: true,
            ..terms(&job, Goal::Run)?
        };
        let step = Trip::start(terms, Vec::new());
        let refresher = Refresher::new(rotating, how, on_trial, folder.lock(), self.holder);
        let driver = drive::Driver::new(&job, None, Look::Missing, None, true)
            .knowing(self.rotated.known.take())
            .refreshing(refresher)
            .holding(self.lease.as_mut());
        let report = Box::pin(driver.drive(step, signals)).await;
        // A Codex that cannot be ended may still write there.
        if report.is_only_copy() || report.left > 0 {
            folder.keep();
        }
        self.rotated.home = Some(home);
        Ok(report)
    }
}

/// The job of a trip in a private home.
pub(super) fn job_in<'a>(rotating: &Rotating<'a>, home: &'a Home) -> Job<'a> {
    let (store, rescue) = (rotating.store, rotating.rescue);
    Job {
        rotations: Some(rotating.rotations),
        policy: rotating.policy,
        linger: LINGER,
        cancel_grace: rotating.shield,
        ..Job::new(store, home, rescue, rotating.writer, rotating.patience)
    }
}
