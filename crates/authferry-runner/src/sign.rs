//! The sign that a watch is at work in a home, and the way to ask it to leave.
//!
//! A watch holds the home's lock as every trip does, so that none begins beside it unseen.
//! Whoever comes takes the sign down, and has the lock as soon as the watch has seen that.
//! A process id could be another's by then, and a signal needs its rights.

use std::{fs, io, path::PathBuf};

use authferry_codex::Home;
use tempfile::Builder;

use crate::watch::Watch;

const NAME: &str = "authferry-watch";
/// The name of the file in the home in which a watch says what there is to say, unless another was
/// given.
pub const WATCH_LOG: &str = "authferry-watch.log";
/// What the sign is renamed to: whoever else comes meanwhile sees that a watch is leaving.
const DOWN: &str = "authferry-watch-ends";

/// A sign that is up, until somebody takes it down.
#[derive(Debug)]
pub(crate) struct Sign {
    home: Home,
    path: PathBuf,
    watch: Watch,
}

impl Sign {
    /// Puts the sign up. Whoever does so holds the home's lock.
    pub(crate) fn put_up(home: &Home) -> io::Result<Self> {
        let path = home.dir().join(NAME);
        // Before it is up, or it could be taken down unseen.
        let watch = Watch::new(&path);
        // Renamed into place: what somebody else has put there is not followed.
        Builder::new()
            .prefix(".authferry-watch-")
            .tempfile_in(home.dir())?
            .persist(&path)?;
        Ok(Self {
            home: home.clone(),
            path,
            watch,
        })
    }

    /// Whether somebody has taken it down.
    pub(crate) fn is_down(&self) -> bool {
        self.path.symlink_metadata().is_err()
    }

    /// Whether somebody has gone on without waiting for us.
    pub(crate) fn is_given_up(&self) -> bool {
        self.is_down() && self.home.dir().join(DOWN).symlink_metadata().is_err()
    }

    /// Waits until it may have been taken down. Loses nothing when dropped half-way.
    pub(crate) async fn changed(&self) {
        self.watch.changed().await;
    }
}

impl Drop for Sign {
    fn drop(&mut self) {
        // They are ours, for we hold the lock: if they are gone, all the better.
        clear(&self.home);
    }
}

/// Whether there is a watch that would leave if it were asked to.
pub(crate) fn is_up(home: &Home) -> bool {
    [NAME, DOWN]
        .iter()
        .any(|name| home.dir().join(name).symlink_metadata().is_ok())
}

/// Asks a watch to leave; returns whether there is one that has not left yet.
pub(crate) fn take_down(home: &Home) -> bool {
    let down = home.dir().join(DOWN);
    fs::rename(home.dir().join(NAME), &down).is_ok() || down.symlink_metadata().is_ok()
}

/// Removes what a watch has left behind that is no more.
pub(crate) fn clear(home: &Home) {
    for name in [NAME, DOWN] {
        // Most homes have neither.
        fs::remove_file(home.dir().join(name)).ok();
    }
}

/// Removes what a watch has said, together with the receipt.
pub(crate) fn remove_log(home: &Home) {
    // There may have been no watch.
    fs::remove_file(home.dir().join(WATCH_LOG)).ok();
}
