//! The trip that rotates, in a private home.

use std::{
    fs::{File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use authferry_codex::Home;
use authferry_core::{Goal, Trip};
use tempfile::TempDir;

use super::{Driver, Rotating};
use crate::copies::{HOME, PREFIX};
use crate::refresher::{How, Refreshed, Refresher};
use crate::{CommandEnd, Job, Look, NotBegun, Report, Signals, drive, terms};

/// How long processes may stay that Codex leaves behind when it has refreshed.
const LINGER: Duration = Duration::from_secs(5);

/// How much room there has to be for the home of a refresh, in bytes. The app server of
/// Codex 0.169.0 fills it with 1.2 MiB before it writes what it got.
const ROOM: usize = 4 << 20;

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
        let step = Trip::start(terms(&job, Goal::Run)?, Vec::new());
        let refresher = Refresher::new(rotating, how, on_trial);
        let driver = drive::Driver::new(&job, None, Look::Missing, None, true)
            .knowing(self.rotated.known.take())
            .refreshing(refresher)
            .holding(self.lease.as_mut());
        let report = Box::pin(driver.drive(step, signals)).await;
        if report.is_only_copy() {
            folder.keep();
        }
        self.rotated.home = Some(home);
        Ok(report)
    }
}

/// The job of a trip in a private home.
pub(super) fn job_in<'a>(rotating: &Rotating<'a>, home: &'a Home) -> Job<'a> {
    Job {
        store: rotating.store,
        home,
        rescue: rotating.rescue,
        rotations: Some(rotating.rotations),
        policy: rotating.policy,
        replace: false,
        allow_account_change: false,
        access_only: false,
        writer: rotating.writer,
        witness: None,
        patience: rotating.patience,
        linger: LINGER,
    }
}

/// A folder that only its owner works in, gone when dropped. Its lock tells that from one which
/// a killed rotation left behind.
pub(crate) struct Private {
    folder: TempDir,
    _lock: File,
}

impl Private {
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder there.
    fn keep(self) {
        drop(self.folder.keep());
    }
}

/// Makes a private folder.
pub(crate) fn private(rotations: &Path) -> Result<Private, NotBegun> {
    let no_place = |error| NotBegun::NoPlace(rotations.to_owned(), error);
    let folder = tempfile::Builder::new()
        .prefix(PREFIX)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(rotations)
        .map_err(no_place)?;
    let lock = File::open(folder.path()).map_err(no_place)?;
    // A file system that has no locks for folders is no reason to do without the rotation.
    lock.try_lock().ok();
    has_room(folder.path()).map_err(no_place)?;
    Ok(Private {
        folder,
        _lock: lock,
    })
}

/// Sees that Codex will not run out of room: it spends the token first, and what it got is
/// lost if it cannot be written.
fn has_room(folder: &Path) -> io::Result<()> {
    tempfile::tempfile_in(folder)?.write_all(&vec![0; ROOM])
}
