//! The round trip that rotates the login, in a private home.

use std::time::Duration;

use authferry_codex::Home;
use authferry_core::{Fingerprint, Goal, RoundTrip, Terms};

use super::{Rotating, RotationDriver};
use crate::refresher::{RefreshMethod, Refreshed, Refresher};
use crate::rotations::{HOME, create_private_folder};
use crate::{CommandEnd, Job, Look, Report, Signals, StartError, drive, terms};

/// How long leftover processes of Codex may run after the refresh.
const EXIT_GRACE: Duration = Duration::from_secs(5);

/// Why Codex refreshes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The login is due.
    Rotation,
    /// Only a rotation shows that the login is live, due or not.
    Trial,
    /// The provider refused this login, and Codex names the reason only on an ended copy.
    Reason(Fingerprint),
}

impl RotationDriver<'_> {
    /// Refreshes in a round trip, and in a second one with `codex exec` if Codex has no app server.
    pub(super) async fn refresh_once(
        &mut self,
        purpose: Purpose,
        signals: &mut Signals,
    ) -> Result<(), StartError> {
        for method in [RefreshMethod::AppServer, RefreshMethod::Exec] {
            let report = self.make_round_trip(method, purpose, signals).await?;
            // A program that is missing or does not start would fail the second time too.
            let has_started = !matches!(
                report.command,
                None | Some(CommandEnd::NotStarted(_) | CommandEnd::Exited(126 | 127))
            );
            let refreshed = report.refreshed.as_ref();
            let needs_exec = has_started
                && refreshed.is_some_and(Refreshed::needs_exec)
                && report.writes.is_empty()
                && report.signal.is_none();
            self.rotated.round_trip = Some(report);
            if !needs_exec {
                break;
            }
        }
        Ok(())
    }

    pub(super) async fn make_round_trip(
        &mut self,
        method: RefreshMethod,
        purpose: Purpose,
        signals: &mut Signals,
    ) -> Result<Report, StartError> {
        let rotating = self.rotating;
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => create_private_folder(rotating.rotations)?,
        };
        let home = Home::new(&folder.path().join(HOME))?;
        let job = job_in(rotating, &home);
        let terms = Terms {
            is_rotation: true,
            ..terms(&job, Goal::Run)?
        };
        let step = RoundTrip::start(terms, Vec::new());
        let on_trial = purpose == Purpose::Trial;
        let mut refresher = Refresher::new(rotating, method, on_trial, folder.lock(), self.holder);
        if let Purpose::Reason(refused) = purpose {
            refresher = refresher.asking_why(refused);
        }
        let driver = drive::RoundTripDriver::new(&job, None, Look::Missing, None, true)
            .with_stored(self.rotated.last_read.take())
            .refreshing(refresher)
            .with_lease(self.lease.as_mut());
        let report = Box::pin(driver.drive(step, signals)).await;
        // A Codex that cannot be killed may still write to the private home.
        if report.is_only_copy() || report.unkillable > 0 {
            folder.keep();
        }
        self.rotated.home = Some(home);
        Ok(report)
    }
}

/// Returns the job of a round trip in a private home.
pub(super) fn job_in<'a>(rotating: &Rotating<'a>, home: &'a Home) -> Job<'a> {
    let (store, rescue) = (rotating.store, rotating.rescue);
    Job {
        rotations: Some(rotating.rotations),
        policy: rotating.policy,
        exit_grace: EXIT_GRACE,
        cancel_grace: rotating.cancel_grace,
        ..Job::new(store, home, rescue, rotating.writer, rotating.store_timeout)
    }
}
