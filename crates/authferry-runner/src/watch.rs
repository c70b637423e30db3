//! Notices that the auth file may have changed.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::sync::Notify;

/// How often to poll without notifications.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A watch on one file, through its directory: Codex 0.169.0 renames a new file over the old one,
/// and a watch on the old inode would miss that.
#[derive(Debug)]
pub(crate) struct Watch {
    changed: Arc<Notify>,
    /// The watched directory was renamed or removed, or the watcher thread has ended.
    lost: Arc<AtomicBool>,
    /// `None`: notifications are not available (a limit on inotify instances or on threads, an odd
    /// file system), so [`Watch::changed`] returns after each [`POLL_INTERVAL`].
    watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Begins to watch `file`, which need not exist; its directory must.
    pub(crate) fn new(file: &Path) -> Self {
        let (changed, lost) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        // The library `notify` ignores that its thread did not start, and panics when it needs the
        // thread.
        let watcher = || watcher(file, Arc::clone(&changed), Arc::clone(&lost)).ok();
        let watcher = catch_unwind(AssertUnwindSafe(watcher)).ok().flatten();
        Self {
            changed,
            lost,
            watcher,
        }
    }

    /// Waits until the file may have changed since the last call. Cancel-safe.
    pub(crate) async fn changed(&self) {
        if self.watcher.is_some() && !self.lost.load(Ordering::Relaxed) {
            self.changed.notified().await;
        } else {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

fn watcher(
    file: &Path,
    changed: Arc<Notify>,
    lost: Arc<AtomicBool>,
) -> notify::Result<RecommendedWatcher> {
    let directory = file.parent().unwrap_or(file);
    let (file, home) = (file.to_owned(), directory.to_owned());
    let lost_on_drop = LostOnDrop {
        changed: Arc::clone(&changed),
        lost: Arc::clone(&lost),
    };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let _lost_on_drop = &lost_on_drop;
        let Ok(event) = event else {
            return;
        };
        let affects = |path: &Path| event.paths.iter().any(|it| it == path);
        let is_renamed_or_removed = matches!(
            event.kind,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
        );
        if affects(&home) && is_renamed_or_removed {
            lost.store(true, Ordering::Relaxed);
            changed.notify_one();
        }
        if (affects(&file) && is_a_write(event.kind)) || event.need_rescan() {
            changed.notify_one();
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// The watcher thread drops this when it ends; the drop sets `lost` and wakes the waiting task.
struct LostOnDrop {
    changed: Arc<Notify>,
    lost: Arc<AtomicBool>,
}

impl Drop for LostOnDrop {
    fn drop(&mut self) {
        self.lost.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }
}

/// Whether an event may be a write. Opens and reads are events as well: without this filter, each
/// of our reads would trigger the next.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The handler is dropped however the watcher thread ends.
    #[tokio::test(start_paused = true)]
    async fn a_lost_watcher_falls_back_to_polling() {
        let folder = tempfile::tempdir().expect("a folder");
        let watch = Watch::new(&folder.path().join("file"));
        drop(LostOnDrop {
            changed: Arc::clone(&watch.changed),
            lost: Arc::clone(&watch.lost),
        });
        let begin = tokio::time::Instant::now();
        for _ in 0..4 {
            watch.changed().await;
        }
        assert!(begin.elapsed() >= 3 * POLL_INTERVAL);
    }
}
