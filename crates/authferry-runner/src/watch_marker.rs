//! The marker file of a watch in a home, and the request to hand the home over.
//!
//! A watch holds the home's lock like every round trip, so no other round trip begins unnoticed.
//! To request the home, another authferry renames the marker: the watch notices the rename, ends,
//! and releases the lock. A signal would not do: a pid may have been reused, and sending a signal
//! needs permission.

use std::{fs, io, path::PathBuf};

use authferry_codex::Home;
use tempfile::Builder;

use crate::watch::Watch;

const NAME: &str = "authferry-watch";
/// The name of a watch's log file in the home, unless another name was given.
pub const WATCH_LOG: &str = "authferry-watch.log";
/// The marker's name after a handover request: others see that a watch is ending.
const HANDOVER_NAME: &str = "authferry-watch-ends";

/// The marker of a running watch.
#[derive(Debug)]
pub(crate) struct WatchMarker {
    home: Home,
    path: PathBuf,
    watch: Watch,
}

impl WatchMarker {
    /// Creates the marker. The caller holds the home's lock.
    pub(crate) fn create(home: &Home) -> io::Result<Self> {
        let path = home.dir().join(NAME);
        // Watch the path before the marker exists: a later watch could miss a handover request.
        let watch = Watch::new(&path);
        // Rename into place, so that a symbolic link at that path is not followed.
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

    /// Whether another authferry has requested the home.
    pub(crate) fn is_handover_requested(&self) -> bool {
        self.path.symlink_metadata().is_err()
    }

    /// Whether another authferry has taken the home without waiting for us.
    pub(crate) fn was_bypassed(&self) -> bool {
        self.is_handover_requested()
            && self
                .home
                .dir()
                .join(HANDOVER_NAME)
                .symlink_metadata()
                .is_err()
    }

    /// Waits until the marker may have changed. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.watch.changed().await;
    }
}

impl Drop for WatchMarker {
    fn drop(&mut self) {
        // We hold the lock, so both files are ours; they may be missing.
        clear(&self.home);
    }
}

/// Whether a watch would hand the home over on request.
pub(crate) fn is_watched(home: &Home) -> bool {
    [NAME, HANDOVER_NAME]
        .iter()
        .any(|name| home.dir().join(name).symlink_metadata().is_ok())
}

/// Requests the home from its watch; returns whether a watch has not ended yet.
pub(crate) fn request_handover(home: &Home) -> bool {
    let requested = home.dir().join(HANDOVER_NAME);
    fs::rename(home.dir().join(NAME), &requested).is_ok() || requested.symlink_metadata().is_ok()
}

/// Removes the marker files of an ended watch.
pub(crate) fn clear(home: &Home) {
    for name in [NAME, HANDOVER_NAME] {
        // Most homes have neither file.
        fs::remove_file(home.dir().join(name)).ok();
    }
}

/// Removes the log of a watch, together with the receipt.
pub(crate) fn remove_log(home: &Home) {
    // There may have been no watch.
    fs::remove_file(home.dir().join(WATCH_LOG)).ok();
}
