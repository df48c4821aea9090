//! Copies of an emergency's pictures, beside the ledger: what was signed off can be sent whatever becomes of the file.
//!
//! A picture of routine that was changed after it was read fails, and is told of; nobody is to look for another picture
//! while an emergency waits.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::TimeDelta;

use super::Inner;
use crate::core::announcement::Image;
use crate::core::words::Words;
use crate::input::images;

/// No emergency waits as long as this.
const KEPT: TimeDelta = TimeDelta::days(30);

/// The folder of this ledger's copies, each under its hash.
fn folder(ledger: &Path) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(".pictures");
    PathBuf::from(name)
}

/// Reads pictures of the queue, and keeps copies if asked to. A copy that cannot be written is no reason against the
/// emergency: it is sent from its file.
pub fn read(queue: &Path, ledger: Option<&Path>, files: Vec<(String, Option<String>)>) -> Result<Vec<Image>, Words> {
    let one = |(file, alt): (String, Option<String>)| {
        let (image, bytes) = images::load(queue, &file)?;
        if let Some(ledger) = ledger
            && let Err(error) = keep(&folder(ledger), &image.sha256, &bytes)
        {
            tracing::error!(%error, file, "no copy of an emergency's picture is kept: leave its file as it is");
        }
        Ok(Image { alt, ..image })
    };
    files.into_iter().map(one).collect()
}

fn keep(folder: &Path, sha256: &str, bytes: &[u8]) -> std::io::Result<()> {
    let kept = folder.join(sha256);
    if kept.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    let beside = folder.join(format!("{sha256}.part"));
    std::fs::write(&beside, bytes)?;
    std::fs::File::open(&beside)?.sync_all()?;
    std::fs::rename(beside, kept)
}

impl Inner {
    /// The picture as it was signed off: its file, or the copy of an emergency's.
    pub fn signed_picture(&self, file: &str, sha256: &str) -> Result<(Image, Vec<u8>), Words> {
        let config = self.config();
        let found = images::load(&config.settings.queue, file);
        if found.as_ref().is_ok_and(|(image, _)| image.sha256 == sha256) {
            return found;
        }
        match images::load(&folder(&config.settings.ledger), sha256) {
            Ok((image, bytes)) if image.sha256 == sha256 => Ok((image, bytes)),
            _ => found,
        }
    }

    /// Keeps copies of the pictures of an emergency of the queue.
    pub async fn keep_pictures(&self, body_images: &[Image]) {
        if body_images.is_empty() {
            return;
        }
        let settings = self.config().settings.clone();
        let files = body_images.iter().map(|image| (image.file.clone(), None)).collect();
        // A file that cannot be read by now is a fault of its own.
        drop(self.clock.aside(move || read(&settings.queue, Some(&settings.ledger), files)).await);
    }

    /// Forgets copies that nothing can need any more.
    pub async fn forget_pictures(&self) {
        let folder = folder(&self.config().settings.ledger);
        let before = SystemTime::from(self.clock.now() - KEPT);
        let forget = move || {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.metadata().and_then(|meta| meta.modified()).is_ok_and(|at| at < before) {
                    drop(std::fs::remove_file(entry.path()));
                }
            }
        };
        drop(self.clock.aside(forget).await);
    }
}
