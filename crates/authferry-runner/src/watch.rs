//! Sees that the auth file may have changed.

use std::{path::Path, sync::Arc, time::Duration};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::Notify;

/// How often to look where the system has no notification to give.
const POLL: Duration = Duration::from_secs(1);

/// A watch on one file, through its directory: Codex 0.169.0 renames a new file over the
/// old one, and a watch on the old one would never hear of it.
#[derive(Debug)]
pub(crate) struct Watch {
    changed: Arc<Notify>,
    /// `None`: notifications are not to be had (a limit on inotify instances, an odd file
    /// system), so every second counts as a change.
    watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Begins to watch `file`, which need not exist; its directory must.
    pub(crate) fn new(file: &Path) -> Self {
        let changed = Arc::new(Notify::new());
        Self {
            watcher: watcher(file, Arc::clone(&changed)).ok(),
            changed,
        }
    }

    /// Waits until the file may have changed since the last time. Loses nothing when
    /// dropped half-way.
    pub(crate) async fn changed(&self) {
        if self.watcher.is_some() {
            self.changed.notified().await;
        } else {
            tokio::time::sleep(POLL).await;
        }
    }
}

fn watcher(file: &Path, changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let name = file.file_name().map(ToOwned::to_owned);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let concerns_us = event.is_ok_and(|event| {
            let ours = event
                .paths
                .iter()
                .any(|path| path.file_name() == name.as_deref());
            (ours && is_a_write(event.kind)) || event.need_rescan()
        });
        if concerns_us {
            changed.notify_one();
        }
    })?;
    let directory = file.parent().unwrap_or(file);
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Opening and reading are events as well, and our own looks would set off the next look.
fn is_a_write(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}
