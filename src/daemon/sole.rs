//! One daemon for a queue folder: two with a ledger each would publish it twice.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::core::words::{Words, words};

/// The right to publish a folder, for as long as this is kept. A folder that cannot be locked, as on some network disks, is
/// published all the same.
#[derive(Debug, Default)]
pub struct Sole {
    folder: Option<std::fs::File>,
}

impl Sole {
    pub fn of(queue: &Path) -> Result<Sole, Words> {
        let Ok(folder) = std::fs::File::open(queue) else { return Ok(Sole::default()) };
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Sole { folder: Some(folder) }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let queue = queue.display();
                Err(words!(
                    "另一个守护进程正在发布 {queue}，用的是别的账本：两个会各发一遍",
                    "another daemon publishes {queue}, with another ledger: both would publish it"
                ))
            }
            Err(error) => {
                tracing::warn!(%error, queue = %queue.display(), "the queue cannot be locked");
                Ok(Sole::default())
            }
        }
    }

    /// Whether it is that of this folder, by whatever path.
    pub fn is_of(&self, queue: &Path) -> bool {
        let place = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let own = self.folder.as_ref().and_then(|folder| folder.metadata().ok()).map(place);
        own.is_some() && own == std::fs::metadata(queue).ok().map(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r20_a_folder_is_published_by_one_daemon() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sole = Sole::of(one.path()).unwrap();
        assert!(sole.is_of(one.path()) && !sole.is_of(other.path()));
        assert!(Sole::of(one.path()).unwrap_err().en.contains("another daemon"));
        drop(sole);
        assert!(Sole::of(one.path()).is_ok());
        assert!(!Sole::of(Path::new("/nowhere")).unwrap().is_of(Path::new("/nowhere")));
    }
}
