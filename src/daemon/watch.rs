//! Watches the queue folder: an event means "look again" and nothing more.
//!
//! Folders are watched, never files, since editors save by renaming. What the kernel does not tell,
//! on network folders or after a lost event, the planner's own look every few seconds finds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::Inner;

/// A save is read after this long without a change.
const QUIET: Duration = Duration::from_millis(200);
/// A folder that is never quiet is read this often.
const RESTLESS: Duration = Duration::from_secs(2);

pub async fn run(inner: Arc<Inner>) {
    let (tell, mut told) = mpsc::channel::<()>(1);
    let mut watched: Option<(PathBuf, RecommendedWatcher)> = None;
    loop {
        let root = inner.config().settings.queue.clone();
        // A folder that was away, or that a reload replaced, is watched anew.
        if watched.as_ref().is_none_or(|(path, _)| *path != root) && root.is_dir() {
            watched = watch(&root, tell.clone()).map(|w| (root.clone(), w));
            // What was saved before the watch began is told by nobody.
            inner.ask_rescan();
        }
        if !root.is_dir() {
            watched = None;
        }
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            Some(()) = told.recv() => {
                let quiet = async { while inner.clock.timeout(QUIET, told.recv()).await.is_some() {} };
                inner.clock.timeout(RESTLESS, quiet).await;
                inner.ask_rescan();
            }
            () = inner.clock.sleep(Duration::from_secs(5)) => {}
        }
    }
}

fn watch(root: &std::path::Path, tell: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let handler = move |event: notify::Result<notify::Event>| {
        // Reading the folder is itself an access: only what changes something counts.
        let matters = event.as_ref().map_or(true, |e| !matches!(e.kind, EventKind::Access(_)));
        if matters {
            // Full means that a look is asked for already.
            tell.try_send(()).ok();
        }
    };
    let mut watcher = match notify::recommended_watcher(handler) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "the queue folder is not watched; it is looked at every five seconds");
            return None;
        }
    };
    match watcher.watch(root, RecursiveMode::Recursive) {
        Ok(()) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "the queue folder is not watched; it is looked at every five seconds");
            None
        }
    }
}
