//! Sees that the auth file may have changed.

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

/// How often to look where nothing notifies us.
const POLL: Duration = Duration::from_secs(1);

/// A watch on one file, through its directory: Codex 0.169.0 renames a new file over the
/// old one, and a watch on the old one would never hear of it.
#[derive(Debug)]
pub(crate) struct Watch {
    changed: Arc<Notify>,
    /// The directory is not the one any more that is watched, or nobody watches it any more.
    lost: Arc<AtomicBool>,
    /// `None`: notifications are not to be had (a limit on inotify instances or on threads, an odd
    /// file system), so every second counts as a change.
    watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Begins to watch `file`, which need not exist; its directory must.
    pub(crate) fn new(file: &Path) -> Self {
        let (changed, lost) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        // The library ignores that it gets no thread, and panics as soon as it needs it.
        let watcher = || watcher(file, Arc::clone(&changed), Arc::clone(&lost)).ok();
        let watcher = catch_unwind(AssertUnwindSafe(watcher)).ok().flatten();
        Self {
            changed,
            lost,
            watcher,
        }
    }

    /// Waits until the file may have changed since the last time. Loses nothing when
    /// dropped half-way.
    pub(crate) async fn changed(&self) {
        if self.watcher.is_some() && !self.lost.load(Ordering::Relaxed) {
            self.changed.notified().await;
        } else {
            tokio::time::sleep(POLL).await;
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
    let end = End {
        changed: Arc::clone(&changed),
        lost: Arc::clone(&lost),
    };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let _at_the_end = &end;
        let Ok(event) = event else {
            return;
        };
        let concerns = |path: &Path| event.paths.iter().any(|it| it == path);
        let is_moved = matches!(
            event.kind,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
        );
        if concerns(&home) && is_moved {
            lost.store(true, Ordering::Relaxed);
            changed.notify_one();
        }
        if (concerns(&file) && is_a_write(event.kind)) || event.need_rescan() {
            changed.notify_one();
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Goes with the thread that watches, whatever ends it.
struct End {
    changed: Arc<Notify>,
    lost: Arc<AtomicBool>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.lost.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever ends the thread of the library, its handler goes.
    #[tokio::test(start_paused = true)]
    async fn a_watcher_that_is_gone_means_polling() {
        let folder = tempfile::tempdir().expect("a folder");
        let watch = Watch::new(&folder.path().join("file"));
        drop(End {
            changed: Arc::clone(&watch.changed),
            lost: Arc::clone(&watch.lost),
        });
        let begin = tokio::time::Instant::now();
        for _ in 0..4 {
            watch.changed().await;
        }
        assert!(begin.elapsed() >= 3 * POLL);
    }
}
