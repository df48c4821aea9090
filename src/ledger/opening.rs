//! Opening a ledger's file: what is no ledger of ours is refused before a byte of it changes, an older
//! schema is brought up to date in one transaction, and the end of the chain is verified.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::write::{Head, wrong};
use super::{LedgerError, read};

/// Numbered, added and never edited.
const MIGRATIONS: &[(i64, &str)] = &[
    (1, include_str!("migrations/0001_ledger.sql")),
    (2, include_str!("migrations/0002_tally.sql")),
    (3, include_str!("migrations/0003_sums.sql")),
    (4, include_str!("migrations/0004_words.sql")),
    (5, include_str!("migrations/0005_intake.sql")),
    (6, include_str!("migrations/0006_families.sql")),
    (7, include_str!("migrations/0007_causes.sql")),
    (8, include_str!("migrations/0008_named_holds.sql")),
    (9, include_str!("migrations/0009_standing.sql")),
    (10, include_str!("migrations/0010_hours.sql")),
];
/// Marks the file as ours, so that another program's database is refused ("fabu" in ASCII).
const APPLICATION: i64 = 0x6661_6275;
/// SQLite's own header and that of its first page: version, application, and how many tables there are.
const HEADER: usize = 105;
/// Records of the chain's end verified at every start.
const TAIL: i64 = 1000;

pub fn make_folder(folder: &Path) -> Result<(), LedgerError> {
    use std::os::unix::fs::DirBuilderExt as _;
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let name = folder.display();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(folder)
        .map_err(|e| LedgerError::Unavailable(format!("making the folder {name}: {e}")))
}

/// What is no database is refused before SQLite could write to it.
pub fn look_at(path: &Path) -> Result<(), LedgerError> {
    use std::io::Read as _;
    let name = path.display();
    let meta = std::fs::symlink_metadata(path).map_err(|e| LedgerError::Unavailable(format!("{name}: {e}")))?;
    if !meta.file_type().is_file() {
        return Err(LedgerError::Broken(format!("{name} is not a regular file")));
    }
    let mut start = [0u8; HEADER];
    let mut file = std::fs::File::open(path).map_err(|e| LedgerError::Unavailable(format!("{name}: {e}")))?;
    let read = file.read(&mut start).map_err(|e| LedgerError::Unavailable(format!("{name}: {e}")))?;
    if read < HEADER || !start.starts_with(b"SQLite format 3\0") {
        return Err(LedgerError::Broken(format!(
            "{name} is not a ledger ({} bytes); restore it from a backup, or move it away",
            meta.len()
        )));
    }
    // From the file's own header, since connecting already changes a database that keeps no log.
    let number = |at: usize| i64::from(u32::from_be_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]));
    let tables = i64::from(u16::from_be_bytes([start[103], start[104]]));
    known_schema(number(60), number(68), tables)
}

fn known_schema(version: i64, application: i64, tables: i64) -> Result<(), LedgerError> {
    let newest = MIGRATIONS.last().map_or(0, |(n, _)| *n);
    if tables > 0 && application != APPLICATION {
        return Err(LedgerError::Broken("it is another program's database".to_owned()));
    }
    if version > newest {
        return Err(LedgerError::Broken(format!(
            "its schema is number {version}, and this fabu {} knows up to {newest}; use the newer fabu",
            env!("CARGO_PKG_VERSION")
        )));
    }
    Ok(())
}

pub fn connect(path: &Path, reading: bool) -> Result<Connection, LedgerError> {
    let access = if reading {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
    };
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    if !reading && !path.exists() {
        // Made by us first, so that its mode does not depend on the umask.
        use std::os::unix::fs::OpenOptionsExt as _;
        let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(path);
        made.map_err(|e| LedgerError::Unavailable(format!("making {}: {e}", path.display())))?;
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let real = absolute
        .parent()
        .and_then(|p| p.canonicalize().ok())
        .map_or(absolute.clone(), |p| p.join(absolute.file_name().unwrap_or_default()));
    let db = Connection::open_with_flags(real, flags).map_err(wrong)?;
    db.set_prepared_statement_cache_capacity(64);
    let cache = if reading { "PRAGMA cache_size = -1024;" } else { "PRAGMA cache_size = -8192;" };
    let setup = if reading {
        ""
    } else {
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;"
    };
    db.busy_timeout(std::time::Duration::from_secs(5)).map_err(wrong)?;
    db.execute_batch(&format!(
        "{setup}{cache} PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;"
    ))
    .map_err(wrong)?;
    Ok(db)
}

/// Brings the schema up to date in one transaction; a newer one is refused by name and number, untouched.
pub fn migrate(db: &mut Connection) -> Result<(), LedgerError> {
    let newest = MIGRATIONS.last().map_or(0, |(n, _)| *n);
    let version: i64 = db.query_row("PRAGMA user_version", [], |r| r.get(0)).map_err(wrong)?;
    let application: i64 = db.query_row("PRAGMA application_id", [], |r| r.get(0)).map_err(wrong)?;
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).map_err(wrong)?;
    known_schema(version, application, tables)?;
    if version == newest {
        return Ok(());
    }
    let transaction = db.transaction().map_err(wrong)?;
    for (number, sql) in MIGRATIONS.iter().filter(|(n, _)| *n > version) {
        transaction.execute_batch(sql).map_err(wrong)?;
        transaction.pragma_update(None, "user_version", number).map_err(wrong)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION).map_err(wrong)?;
    transaction.commit().map_err(wrong)
}

/// The chain's head, after its last records were found unbroken.
pub fn verify_tail(db: &Connection) -> Result<Head, LedgerError> {
    let head = Head::read(db).map_err(wrong)?;
    let records = read::events(db, (head.seq - TAIL).max(0), TAIL as usize + 1).map_err(wrong)?;
    for pair in records.windows(2) {
        if !pair[1].follows(pair[0].seq, &pair[0].hash) {
            return Err(LedgerError::Broken(format!("the audit chain breaks at record {}", pair[1].seq)));
        }
    }
    match records.first() {
        Some(first) if first.hash != first.expected_hash() => {
            Err(LedgerError::Broken(format!("the audit chain breaks at record {}", first.seq)))
        }
        _ => Ok(head),
    }
}
