//! The high-water mark outside the ledger, and the lock that keeps a second daemon out.
//!
//! SQLite drops the tail of a write-ahead log after the first bad checksum without an error. A file
//! beside it, rewritten after each commit with the chain's head, tells such a ledger, and a restored
//! or vanished one, from one that is whole.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::LedgerError;
use crate::core::change::Seq;

/// Keeps the mark; the lock goes with it.
pub struct Marker {
    file: File,
    _lock: File,
}

/// A file beside the ledger, named after it.
pub fn beside(ledger: &Path, ending: &str) -> PathBuf {
    let mut name = ledger.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    ledger.with_file_name(name)
}

/// Opens a file of ours: 0640 whatever the umask, never through a link.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?))
}

/// Takes the lock of a ledger; a second daemon is told within the call. The kernel frees it with the process.
pub fn lock(ledger: &Path) -> Result<File, LedgerError> {
    let path = beside(ledger, ".lock");
    let name = path.display();
    let file = open(&path).map_err(|e| LedgerError::Unavailable(format!("opening {name}: {e}")))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LedgerError::InUse(ledger.display().to_string())),
        Err(error) => Err(LedgerError::Unavailable(format!("locking {name}: {error}"))),
    }
}

impl Marker {
    /// Opens the mark of a ledger and returns what it says: sequence and head of the chain.
    pub fn open(ledger: &Path, lock: File) -> std::io::Result<(Marker, Option<(Seq, String)>)> {
        let path = beside(ledger, ".mark");
        let said = std::fs::read_to_string(&path).ok().and_then(|text| {
            let (seq, head) = text.trim().split_once(' ')?;
            Some((seq.parse().ok()?, head.to_owned()))
        });
        Ok((Marker { file: open(&path)?, _lock: lock }, said))
    }

    /// Rewrites the mark. It is not synced: after a power loss it may lag behind the ledger, which is harmless.
    pub fn write(&mut self, seq: Seq, head: &str) -> std::io::Result<()> {
        use std::io::Seek as _;
        self.file.rewind()?;
        // Of fixed width, so that no older digits are left behind.
        self.file.write_all(format!("{seq:020} {head}\n").as_bytes())
    }
}
