//! The trip that rotates, and what is to be known after it.

use std::{
    fs::Permissions,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use authferry_codex::{Failure, Home};
use authferry_core::{Goal, Seen, Trip};
use tempfile::TempDir;

use super::Driver;
use crate::refresher::{How, Refreshed, Refresher};
use crate::{CommandEnd, Job, Look, Mark, NotBegun, Report, Signals, drive, lease, terms};

/// How long processes may stay that Codex leaves behind when it has refreshed.
const LINGER: Duration = Duration::from_secs(5);

/// How much room there has to be for the home of a refresh, in bytes. The app server of
/// Codex 0.169.0 fills it with 1.2 MiB before it writes what it got.
const ROOM: usize = 4 << 20;

impl Driver<'_> {
    /// Makes the trip, and leaves word beside the claim if the login is found dead.
    pub(super) async fn turn(&mut self, signals: &mut Signals) -> Result<(), NotBegun> {
        self.trips(signals).await?;
        let Some(report) = &self.rotated.trip else {
            return Ok(());
        };
        let failure = report.refreshed.as_ref().and_then(|it| it.failure);
        let spent = report.base.as_ref().map(|it| it.generation.fingerprint);
        let note = match (failure, spent) {
            (Some(Failure::Dead(death)), Some(fingerprint)) if report.writes.is_empty() => {
                if !self.still_holds(fingerprint, signals).await {
                    self.rotated.moved = true;
                    return Ok(());
                }
                let mark = Mark {
                    fingerprint,
                    since: lease::now(),
                    death,
                    by: self.rotating.writer.to_owned(),
                };
                let note = mark.to_string();
                self.rotated.dead = Some(mark);
                Some(note)
            }
            _ if report.writes.is_empty() => return Ok(()),
            _ => None,
        };
        if let Some(lease) = &mut self.lease {
            lease.leave(note);
        }
        Ok(())
    }

    /// Makes the trip, and another one by a plain run where Codex has no app server.
    async fn trips(&mut self, signals: &mut Signals) -> Result<(), NotBegun> {
        for how in [How::AppServer, How::Exec] {
            let report = self.trip(how, signals).await?;
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

    async fn trip(&mut self, how: How, signals: &mut Signals) -> Result<Report, NotBegun> {
        let rotating = self.rotating;
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => private(rotating.temp)?,
        };
        let home = Home::new(&folder.path().join("home"))?;
        let job = Job {
            store: rotating.store,
            home: &home,
            rescue: rotating.rescue,
            policy: rotating.policy,
            replace: false,
            allow_account_change: false,
            access_only: false,
            writer: rotating.writer,
            witness: None,
            patience: rotating.patience,
            linger: LINGER,
        };
        let step = Trip::start(terms(&job, Goal::Run)?, Seen::Missing, None);
        let refresher = Refresher::new(rotating, how);
        let driver = drive::Driver::new(&job, None, Look::Missing, None, true)
            .knowing(self.rotated.known.take())
            .refreshing(refresher)
            .holding(self.lease.as_mut());
        let report = driver.drive(step, signals).await;
        if report.is_only_copy() {
            drop(folder.keep());
        }
        self.rotated.home = Some(home);
        Ok(report)
    }
}

/// A folder that nobody else looks into, gone when dropped.
pub(crate) fn private(temp: &Path) -> Result<TempDir, NotBegun> {
    let no_place = |error| NotBegun::NoPlace(temp.to_owned(), error);
    let folder = tempfile::Builder::new()
        .prefix("authferry-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(temp)
        .map_err(no_place)?;
    has_room(folder.path()).map_err(no_place)?;
    Ok(folder)
}

/// Sees that Codex will not run out of room: it spends the token first, and what it got is
/// lost if it cannot be written.
fn has_room(folder: &Path) -> io::Result<()> {
    tempfile::tempfile_in(folder)?.write_all(&vec![0; ROOM])
}
