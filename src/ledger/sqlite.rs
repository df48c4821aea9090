//! The ledger on SQLite: WAL, full sync, one writer, a few readers.
//!
//! The writer takes every commit that came in while the last one synced, a savepoint each, into one
//! transaction: group commit without a timer. After a failed sync nothing is believed: the ledger is
//! reopened and its tail verified before anything else is written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot, watch};

use super::marker::{self, Marker};
use super::write::{self, Head, Tally, wrong};
use super::{
    AccountRow, Announced, AttemptRow, Due, Filter, KeptBack, Ledger, LedgerError, OccurrenceSummary, Trust, read,
};
use crate::clock::{Clock, Time};
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, Content, ContentHash, OccurrenceId};
use crate::core::change::{Actor, Change, Recorded, Seq};
use crate::core::delivery::{Delivery, DeliveryId, State};
use crate::core::gate::{Gate, Hold};
use crate::core::plan::Known;

/// Numbered, added and never edited.
const MIGRATIONS: &[(i64, &str)] = &[
    (1, include_str!("migrations/0001_ledger.sql")),
    (2, include_str!("migrations/0002_tally.sql")),
    (3, include_str!("migrations/0003_sums.sql")),
    (4, include_str!("migrations/0004_words.sql")),
];
/// Marks the file as ours, so that another program's database is refused ("fabu" in ASCII).
const APPLICATION: i64 = 0x6661_6275;
/// SQLite's own header and that of its first page: version, application, and how many tables there are.
const HEADER: usize = 105;
/// Commits gathered into one transaction at most; more wait for the next.
const MOST_GATHERED: usize = 512;
/// Records of the chain's end verified at every start.
const TAIL: i64 = 1000;
const WAITING: usize = 8192;

struct Request {
    by: Actor,
    changes: Vec<Change>,
    reply: oneshot::Sender<Result<Seq, LedgerError>>,
}

pub struct Sqlite {
    path: PathBuf,
    clock: Clock,
    writer: mpsc::Sender<Request>,
    /// What belongs to an emergency goes in front of all that waits for the writer.
    ahead: mpsc::Sender<Request>,
    readers: Arc<Mutex<Vec<Connection>>>,
    head: watch::Receiver<(Seq, String)>,
    next_id: AtomicI64,
    trust: Trust,
}

impl Sqlite {
    /// Opens the ledger, migrates it, and verifies the end of its chain. Blocking; called once at start.
    pub fn open(path: &Path, clock: &Clock) -> Result<Sqlite, LedgerError> {
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        let lock = marker::lock(path)?;
        let existed = std::fs::symlink_metadata(path).is_ok();
        if existed {
            look_at(path)?;
        }
        let (marker, marked) = Marker::open(path, lock)
            .map_err(|e| LedgerError::Unavailable(format!("the mark beside the ledger: {e}")))?;
        if !existed && marked.as_ref().is_some_and(|(seq, _)| *seq > 0) {
            let name = path.display();
            return Err(LedgerError::Broken(format!(
                "{name} is gone while its mark is still there; restore it from a backup, or remove {name}.mark to begin a new one"
            )));
        }
        let mut db = connect(path, false)?;
        migrate(&mut db)?;
        let head = verify_tail(&db)?;
        let last: Option<i64> = db.query_row("SELECT max(id) FROM deliveries", [], |r| r.get(0)).map_err(wrong)?;
        let trust = match &marked {
            Some((seq, _)) if *seq > head.seq => Trust::Behind { ledger: head.seq, marker: *seq },
            Some((seq, hash)) if *seq == head.seq && *hash != head.hash => {
                Trust::Behind { ledger: head.seq, marker: *seq }
            }
            _ if head.seq == 0 => Trust::New,
            _ => Trust::Whole,
        };
        let (writer, requests) = mpsc::channel(WAITING);
        let (ahead, first) = mpsc::channel(WAITING);
        let (head_tx, head_rx) = watch::channel((head.seq, head.hash.clone()));
        let work = Writer { path: path.to_owned(), db: Some(db), head, marker, clock: clock.clone(), ahead: first };
        tokio::spawn(run(work, requests, head_tx));
        Ok(Sqlite {
            path: path.to_owned(),
            clock: clock.clone(),
            writer,
            ahead,
            readers: Arc::new(Mutex::new(Vec::new())),
            head: head_rx,
            next_id: AtomicI64::new(last.unwrap_or(0) + 1),
            trust,
        })
    }

    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    async fn read<T, F>(&self, query: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (readers, path) = (self.readers.clone(), self.path.clone());
        let work = move || {
            let free = readers.lock().expect("no reader panics while it holds the list").pop();
            let db = match free {
                Some(db) => db,
                None => connect(&path, true)?,
            };
            let found = query(&db).map_err(wrong);
            let mut free = readers.lock().expect("no reader panics while it holds the list");
            if free.len() < 4 {
                free.push(db);
            }
            found
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(found) => found,
            Err(error) => Err(LedgerError::Unavailable(error.to_string())),
        }
    }
}

fn make_folder(folder: &Path) -> Result<(), LedgerError> {
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
fn look_at(path: &Path) -> Result<(), LedgerError> {
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

fn connect(path: &Path, reading: bool) -> Result<Connection, LedgerError> {
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
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;"
    };
    db.busy_timeout(std::time::Duration::from_secs(5)).map_err(wrong)?;
    db.execute_batch(&format!(
        "{setup}{cache} PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;"
    ))
    .map_err(wrong)?;
    Ok(db)
}

/// Brings the schema up to date in one transaction; a newer one is refused by name and number, untouched.
fn migrate(db: &mut Connection) -> Result<(), LedgerError> {
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
fn verify_tail(db: &Connection) -> Result<Head, LedgerError> {
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

/// The one who writes.
struct Writer {
    path: PathBuf,
    /// Absent after a failed sync, until it has been reopened.
    db: Option<Connection>,
    head: Head,
    marker: Marker,
    clock: Clock,
    /// What belongs to an emergency: a transaction of routine ends when something comes here.
    ahead: mpsc::Receiver<Request>,
}

async fn run(mut writer: Writer, mut requests: mpsc::Receiver<Request>, head: watch::Sender<(Seq, String)>) {
    // Of routine: taken, and not written yet.
    let mut waiting: VecDeque<Request> = VecDeque::new();
    loop {
        let mut urgent = Vec::new();
        if waiting.is_empty() {
            tokio::select! {
                biased;
                Some(first) = writer.ahead.recv() => urgent.push(first),
                Some(first) = requests.recv() => waiting.push_back(first),
                else => return,
            }
        }
        while let Ok(next) = writer.ahead.try_recv() {
            urgent.push(next);
        }
        while waiting.len() < MOST_GATHERED
            && let Ok(next) = requests.try_recv()
        {
            waiting.push_back(next);
        }
        // An emergency's transaction is its own: it is not made longer by what only could wait.
        let is_urgent = !urgent.is_empty();
        let batch = if is_urgent { urgent } else { waiting.drain(..).collect() };
        let work = move || {
            let results = writer.write(&batch, is_urgent);
            (writer, batch, results)
        };
        let Ok((back, batch, results)) = tokio::task::spawn_blocking(work).await else {
            // A panic while writing: everything that waits learns it by its closed channel.
            return;
        };
        writer = back;
        head.send_replace((writer.head.seq, writer.head.hash.clone()));
        let mut batch = batch.into_iter();
        for (request, result) in batch.by_ref().take(results.len()).zip(results) {
            // One that no longer waits was dropped with its task; its commit stands all the same.
            drop(request.reply.send(result));
        }
        // Those an emergency stepped in front of.
        for request in batch.rev() {
            waiting.push_front(request);
        }
    }
}

impl Writer {
    /// Writes a batch, or as much of its beginning as there are results.
    fn write(&mut self, batch: &[Request], is_urgent: bool) -> Vec<Result<Seq, LedgerError>> {
        let refused = |error: &LedgerError| match error {
            LedgerError::NoSpace => LedgerError::NoSpace,
            LedgerError::Broken(why) => LedgerError::Broken(why.clone()),
            other => LedgerError::Unavailable(other.to_string()),
        };
        let all = |error: LedgerError| batch.iter().map(|_| Err(refused(&error))).collect();
        if self.db.is_none()
            && let Err(error) = self.reopen()
        {
            return all(error);
        }
        let Some(db) = self.db.as_ref() else { return all(LedgerError::Unavailable("closed".to_owned())) };
        let before = self.head.clone();
        let mut head = before.clone();
        let now = self.clock.now();
        let gives_way = || !is_urgent && !self.ahead.is_empty();
        match transact(db, &mut head, batch, now, &gives_way) {
            Ok(results) => {
                self.head = head;
                if self.head != before
                    && let Err(error) = self.marker.write(self.head.seq, &self.head.hash)
                {
                    tracing::warn!(%error, "the mark beside the ledger was not written");
                }
                results
            }
            Err(error) => {
                tracing::error!(%error, "the ledger did not take a commit; it is reopened before the next");
                self.db = None;
                all(error)
            }
        }
    }

    /// After a failed commit the page cache is not believed: what counts is what a new connection reads (R22).
    fn reopen(&mut self) -> Result<(), LedgerError> {
        let db = connect(&self.path, false)?;
        let head = verify_tail(&db)?;
        if head.seq < self.head.seq {
            return Err(LedgerError::Broken(format!("it lost records after {}", head.seq)));
        }
        self.head = head;
        self.db = Some(db);
        Ok(())
    }
}

/// One transaction, a savepoint for each commit that needs one, ended early when it has to give way; the error is one
/// that concerns them all.
fn transact(
    db: &Connection,
    head: &mut Head,
    batch: &[Request],
    now: Time,
    gives_way: &dyn Fn() -> bool,
) -> Result<Vec<Result<Seq, LedgerError>>, LedgerError> {
    let run = |sql: &str| db.prepare_cached(sql).and_then(|mut s| s.execute([])).map(|_| ()).map_err(wrong);
    run("BEGIN IMMEDIATE")?;
    match all(db, head, batch, now, gives_way, &run).and_then(|results| run("COMMIT").map(|()| results)) {
        Ok(results) => Ok(results),
        Err(error) => {
            // Whatever it was, it is not one commit's own doing: nothing of the batch is believed.
            drop(run("ROLLBACK"));
            Err(error)
        }
    }
}

fn all(
    db: &Connection,
    head: &mut Head,
    batch: &[Request],
    now: Time,
    gives_way: &dyn Fn() -> bool,
    run: &impl Fn(&str) -> Result<(), LedgerError>,
) -> Result<Vec<Result<Seq, LedgerError>>, LedgerError> {
    let mut results = Vec::with_capacity(batch.len());
    let mut tally = Tally::default();
    for Request { by, changes, .. } in batch {
        if !results.is_empty() && gives_way() {
            break;
        }
        let undoes_nothing = write::conflicts_first(changes);
        if undoes_nothing {
            match write::apply(db, head, &mut tally, by, changes, now) {
                Ok(()) => results.push(Ok(head.seq)),
                Err(LedgerError::Conflict) => results.push(Err(LedgerError::Conflict)),
                Err(error) => return Err(error),
            }
            continue;
        }
        let before = (head.clone(), tally.clone());
        run("SAVEPOINT one")?;
        match write::apply(db, head, &mut tally, by, changes, now) {
            Ok(()) => {
                run("RELEASE one")?;
                results.push(Ok(head.seq));
            }
            Err(LedgerError::Conflict) => {
                run("ROLLBACK TO one")?;
                run("RELEASE one")?;
                (*head, tally) = before;
                results.push(Err(LedgerError::Conflict));
            }
            Err(error) => return Err(error),
        }
    }
    tally.write(db)?;
    Ok(results)
}

#[async_trait]
impl Ledger for Sqlite {
    fn new_id(&self) -> DeliveryId {
        DeliveryId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    async fn commit(&self, by: &Actor, mut changes: Vec<Change>) -> Result<Seq, LedgerError> {
        for change in &mut changes {
            if let Change::Add(delivery) = change
                && delivery.id == DeliveryId::NONE
            {
                delivery.id = self.new_id();
            }
        }
        let (reply, answer) = oneshot::channel();
        let stopped = || LedgerError::Unavailable("the ledger's writer has stopped".to_owned());
        let line = if changes.iter().any(Change::is_urgent) { &self.ahead } else { &self.writer };
        let request = Request { by: by.clone(), changes, reply };
        line.send(request).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    async fn known(&self, ids: Vec<AnnouncementId>, since: Time) -> Result<Known, LedgerError> {
        self.read(move |db| read::known(db, &ids, since)).await
    }

    async fn names(&self, since: Time) -> Result<BTreeSet<AnnouncementId>, LedgerError> {
        self.read(move |db| read::names(db, since)).await
    }

    async fn due(&self, before: Time, max: usize, full: Vec<String>) -> Result<Vec<Due>, LedgerError> {
        self.read(move |db| read::due(db, before, max, &full)).await
    }

    async fn next_due(&self, after: Time) -> Result<Option<Time>, LedgerError> {
        self.read(move |db| read::next_due(db, after)).await
    }

    async fn load(&self, ids: Vec<DeliveryId>) -> Result<Vec<Delivery>, LedgerError> {
        self.read(move |db| read::load(db, &ids)).await
    }

    async fn of_occurrence(&self, id: OccurrenceId) -> Result<Vec<Delivery>, LedgerError> {
        self.read(move |db| read::of_occurrence(db, &id)).await
    }

    async fn in_state(&self, state: State, before: Time) -> Result<Vec<Delivery>, LedgerError> {
        self.read(move |db| read::in_state(db, state, before)).await
    }

    async fn content(&self, hash: ContentHash) -> Result<Option<Content>, LedgerError> {
        self.read(move |db| read::content(db, hash.as_str())).await
    }

    async fn announcements(&self, filter: Filter) -> Result<Vec<Announced>, LedgerError> {
        self.read(move |db| read::announcements(db, &filter)).await
    }

    async fn occurrences(&self, since: Time, until: Time) -> Result<Vec<OccurrenceSummary>, LedgerError> {
        self.read(move |db| read::occurrences(db, since, until)).await
    }

    async fn deliveries(&self, filter: Filter) -> Result<Vec<Delivery>, LedgerError> {
        self.read(move |db| read::deliveries(db, &filter)).await
    }

    async fn attempts(&self, id: DeliveryId) -> Result<Vec<AttemptRow>, LedgerError> {
        self.read(move |db| read::attempts(db, id)).await
    }

    async fn counts(&self) -> Result<BTreeMap<State, u64>, LedgerError> {
        self.read(read::counts).await
    }

    async fn events(&self, after: Seq, max: usize) -> Result<Vec<Recorded>, LedgerError> {
        self.read(move |db| read::events(db, after, max)).await
    }

    async fn newer(&self, than: Seq) -> Seq {
        let mut head = self.head.clone();
        loop {
            let seq = head.borrow_and_update().0;
            if seq > than || head.changed().await.is_err() {
                return seq;
            }
        }
    }

    fn head(&self) -> (Seq, String) {
        self.head.borrow().clone()
    }

    async fn gate(&self, now: Time) -> Result<Gate, LedgerError> {
        self.read(move |db| read::gate(db, now)).await
    }

    async fn budgets(&self) -> Result<Vec<(String, i64, u32)>, LedgerError> {
        self.read(read::budgets).await
    }

    async fn accounts(&self) -> Result<BTreeMap<AccountId, AccountRow>, LedgerError> {
        self.read(read::accounts).await
    }

    async fn taken(&self, account: AccountId) -> Result<Vec<String>, LedgerError> {
        self.read(move |db| read::taken(db, &account)).await
    }

    async fn kept_back(&self, until: Time) -> Result<KeptBack, LedgerError> {
        let now = self.clock.now();
        self.read(move |db| read::kept_back(db, now, until)).await
    }

    async fn holds(&self) -> Result<Vec<Hold>, LedgerError> {
        self.read(read::holds).await
    }

    async fn answered(&self, uid: u32, key: &str) -> Result<Option<(String, String)>, LedgerError> {
        let key = key.to_owned();
        self.read(move |db| read::answered(db, uid, &key)).await
    }

    async fn meta(&self, key: &str) -> Result<Option<String>, LedgerError> {
        let key = key.to_owned();
        self.read(move |db| read::meta(db, &key)).await
    }
}

/// Every record of a ledger's trail, read without its lock: for looking at one while no daemon runs.
pub fn read_trail(path: &Path) -> Result<Vec<Recorded>, LedgerError> {
    look_at(path)?;
    let db = connect(path, true)?;
    let mut records: Vec<Recorded> = Vec::new();
    loop {
        let after = records.last().map_or(0, |r| r.seq);
        let part = read::events(&db, after, 10_000).map_err(wrong)?;
        if part.is_empty() {
            return Ok(records);
        }
        records.extend(part);
    }
}
