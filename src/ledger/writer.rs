//! The one who writes: every commit that came in while the last one synced goes into one transaction.
//!
//! What belongs to an emergency stands in a line of its own and goes first, in a transaction of its own;
//! its deliveries are one record then and rows right after (`intake`). The log is folded into the
//! database beside the writer, never inside a commit. After a failed sync nothing is believed: the ledger
//! is reopened and its tail verified before anything else is written.

use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::intake::{self, Intake};
use super::marker::Marker;
use super::opening::{connect, verify_tail};
use super::room::Room;
use super::write::{self, Head, Tally, wrong};
use super::{Committed, Condition, Follower, LedgerError, Snapshot, read};
use crate::clock::{Clock, Time};
use crate::core::change::{Actor, Change, Seq};
use crate::core::delivery::Outcome;

/// Commits gathered into one transaction at most; more wait for the next.
const MOST_GATHERED: usize = 512;
/// After so many changes the log is folded into the database: some sixteen megabytes of it.
const FOLDED_AFTER: usize = 4000;
/// Rows are made of a record when somebody wants them, and after this long.
const LATER: Duration = Duration::from_millis(30);
/// Between tries to make rows of a record when the ledger does not take them.
const AGAIN: Duration = Duration::from_secs(1);

/// The one who follows the commits, once there is somebody.
pub type Followed = Arc<Mutex<Option<Arc<dyn Follower>>>>;

pub struct Request {
    pub by: Actor,
    pub changes: Vec<Change>,
    pub reply: oneshot::Sender<Result<Committed, LedgerError>>,
}

/// A commit of a batch that is on disk.
struct Written {
    seq: Seq,
    at: Time,
    /// Its changes, where they are not those that were asked for.
    carried_out: Option<Vec<Change>>,
}

/// What readers have to know: how many records were taken in, and whether rows are still to be made of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub records: u64,
    pub is_owing: bool,
}

pub struct Writer {
    pub path: PathBuf,
    /// The file it was opened as: what is written to one that nobody finds by its name is not kept.
    pub file: FileId,
    /// Absent after a failed sync, until it has been reopened.
    pub db: Option<Connection>,
    pub head: Head,
    pub marker: Marker,
    pub clock: Clock,
    /// What belongs to an emergency: a transaction of routine ends when something comes here.
    pub ahead: mpsc::Receiver<Request>,
    pub taken: watch::Sender<Taken>,
    /// Somebody waits for rows that are still to be made.
    pub wanted: Arc<Notify>,
    pub room: Room,
    pub condition: watch::Sender<Condition>,
    pub follower: Followed,
    /// News for the follower: the ledger was opened again and held more than it had been told.
    pub replaced: Option<Snapshot>,
}

/// A file, whatever its name: its device and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId(u64, u64);

impl FileId {
    pub fn of(path: &Path) -> Result<FileId, LedgerError> {
        let gone = |why: String| LedgerError::Broken(format!("{} {why}", path.display()));
        let meta = std::fs::metadata(path).map_err(|error| gone(format!("is gone: {error}")))?;
        if meta.len() == 0 {
            return Err(gone("was emptied".to_owned()));
        }
        Ok(FileId(meta.dev(), meta.ino()))
    }
}

pub async fn run(mut writer: Writer, mut requests: mpsc::Receiver<Request>, head: watch::Sender<(Seq, String)>) {
    // Of routine: taken, and not written yet.
    let mut waiting: VecDeque<Request> = VecDeque::new();
    let mut urgent: Vec<Request> = Vec::new();
    let mut folding = Folding::default();
    loop {
        if waiting.is_empty() {
            let is_owing = writer.taken.borrow().is_owing;
            // Nobody asks for the rows yet: the requests that leave in this moment have the processor.
            let later = if writer.db.is_some() { LATER } else { AGAIN };
            let (clock, wanted) = (writer.clock.clone(), writer.wanted.clone());
            tokio::select! {
                biased;
                Some(first) = writer.ahead.recv() => urgent.push(first),
                Some(first) = requests.recv() => waiting.push_back(first),
                () = wanted.notified(), if is_owing && !requests.is_closed() => {}
                () = clock.sleep(later), if is_owing && (writer.db.is_some() || !requests.is_closed()) => {}
                else => return folding.ended().await,
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
        let (is_urgent, clock) = (!urgent.is_empty(), writer.clock.clone());
        let batch: Vec<Request> = if is_urgent { std::mem::take(&mut urgent) } else { waiting.drain(..).collect() };
        folding.changed += batch.iter().map(|request| request.changes.len()).sum::<usize>();
        let work = move || {
            // What is about rows needs them to be there; another emergency does not, and waits for nothing.
            let steps = |r: &Request| r.changes.iter().any(is_about_rows);
            if writer.taken.borrow().is_owing && (!is_urgent || batch.iter().any(steps)) {
                writer.carry_out();
            }
            let results = if batch.is_empty() { Vec::new() } else { writer.write(&batch, is_urgent) };
            (writer, batch, results)
        };
        let Ok((back, batch, results)) = clock.aside(work).await else {
            // A panic while writing: everything that waits learns it by its closed channel.
            return folding.ended().await;
        };
        writer = back;
        // Before anybody is answered, and in the order of the commits.
        let follower = writer.follower.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(follower) = follower {
            if let Some(snapshot) = writer.replaced.take() {
                follower.replaced(snapshot);
            }
            for (request, result) in batch.iter().zip(&results) {
                if let Ok(written) = result {
                    follower.committed(written.carried_out.as_ref().unwrap_or(&request.changes), written.at);
                }
            }
        }
        head.send_if_modified(|(seq, hash)| {
            let is_new = *seq != writer.head.seq;
            if is_new {
                (*seq, *hash) = (writer.head.seq, writer.head.hash.clone());
            }
            is_new
        });
        let mut batch = batch.into_iter();
        for (request, result) in batch.by_ref().take(results.len()).zip(results) {
            let committed = |w: Written| Committed { seq: w.seq, changes: w.carried_out.unwrap_or(request.changes) };
            // One that no longer waits was dropped with its task; its commit stands all the same.
            drop(request.reply.send(result.map(committed)));
        }
        // Those an emergency stepped in front of.
        for request in batch.rev() {
            waiting.push_front(request);
        }
        folding.fold(&writer.path).await;
    }
}

/// Folds the log into the database while the writer goes on: in a commit it would be part of what waits for it.
#[derive(Default)]
struct Folding {
    /// Changes written since it was last begun.
    changed: usize,
    under_way: Option<JoinHandle<()>>,
}

impl Folding {
    async fn fold(&mut self, path: &Path) {
        if self.changed < FOLDED_AFTER || self.under_way.as_ref().is_some_and(|work| !work.is_finished()) {
            return;
        }
        std::mem::take(self).ended().await;
        let path = path.to_owned();
        let work = move || {
            // Passive: it waits for nobody, and nobody waits for it.
            let folded = connect(&path, false)
                .and_then(|db| db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(wrong));
            if let Err(error) = folded {
                tracing::warn!(%error, "the ledger's log was not folded; it is tried again");
            }
        };
        self.under_way = Some(tokio::task::spawn_blocking(work));
    }

    /// Nothing of it outlives the writer, and its lock.
    async fn ended(self) {
        if let Some(work) = self.under_way {
            work.await.unwrap_or_default();
        }
    }
}

impl Writer {
    /// Writes a batch, or as much of its beginning as there are results.
    fn write(&mut self, batch: &[Request], is_urgent: bool) -> Vec<Result<Written, LedgerError>> {
        let refused = |error: &LedgerError| match error {
            LedgerError::NoSpace => LedgerError::NoSpace,
            LedgerError::Broken(why) => LedgerError::Broken(why.clone()),
            other => LedgerError::Unavailable(other.to_string()),
        };
        let all = |error: LedgerError| batch.iter().map(|_| Err(refused(&error))).collect();
        if self.room.is_given() {
            self.room.take_back();
        }
        match self.written(batch, is_urgent) {
            Ok(results) => {
                let condition = if self.room.is_given() { Condition::Full } else { Condition::Fine };
                self.condition.send_replace(condition);
                results
            }
            Err(LedgerError::NoSpace) if is_urgent && self.room.give() => {
                self.condition.send_replace(Condition::Full);
                self.written(batch, is_urgent).unwrap_or_else(all)
            }
            Err(error) => {
                let is_full = matches!(error, LedgerError::NoSpace);
                self.condition.send_replace(if is_full { Condition::Full } else { Condition::Failing });
                all(error)
            }
        }
    }

    fn written(
        &mut self,
        batch: &[Request],
        is_urgent: bool,
    ) -> Result<Vec<Result<Written, LedgerError>>, LedgerError> {
        if FileId::of(&self.path)? != self.file {
            return Err(LedgerError::Broken(format!("another file stands at {}", self.path.display())));
        }
        if self.db.is_none() {
            self.reopen()?;
        }
        let db = self.db.as_ref().ok_or_else(|| LedgerError::Unavailable("closed".to_owned()))?;
        let before = self.head.clone();
        let mut head = before.clone();
        let gives_way = || !is_urgent && !self.ahead.is_empty();
        let is_large = is_urgent && batch.iter().any(|request| Intake::suits(&request.changes));
        let before_taken = *self.taken.borrow();
        if is_large {
            // Told before it can be read: from here on nobody reads without its rows.
            self.taken.send_replace(Taken { records: before_taken.records + 1, is_owing: true });
        }
        let ways = Ways {
            takes_in: is_large,
            begins_nothing: self.room.is_given() && !is_urgent,
            now: self.clock.now(),
            gives_way: &gives_way,
        };
        match transact(db, &mut head, batch, ways) {
            Ok(results) => {
                self.head = head;
                if self.head != before
                    && let Err(error) = self.marker.write(self.head.seq, &self.head.hash)
                {
                    tracing::warn!(%error, "the mark beside the ledger was not written");
                }
                Ok(results)
            }
            Err(error) => {
                tracing::error!(%error, "the ledger did not take a commit; it is reopened before the next");
                self.db = None;
                Err(error)
            }
        }
    }

    /// Makes rows of what was taken in. What cannot be written now is tried again, and nobody reads before.
    fn carry_out(&mut self) {
        if self.db.is_none()
            && let Err(error) = self.reopen()
        {
            tracing::error!(%error, "the ledger cannot be opened again");
            return;
        }
        let Some(db) = self.db.as_mut() else { return };
        match intake::carry_out(db) {
            Ok(_) => self.taken.send_modify(|taken| taken.is_owing = false),
            Err(error) => {
                tracing::error!(%error, "an emergency's deliveries are on disk and not rows yet; it is tried again");
                self.db = None;
            }
        }
    }

    /// After a failed commit the page cache is not believed: what counts is what a new connection reads (R22).
    fn reopen(&mut self) -> Result<(), LedgerError> {
        let mut db = connect(&self.path, false)?;
        if self.taken.borrow().is_owing {
            intake::carry_out(&mut db)?;
            self.taken.send_modify(|taken| taken.is_owing = false);
        }
        let head = verify_tail(&db)?;
        if head.seq < self.head.seq {
            return Err(LedgerError::Broken(format!("it lost records after {}", head.seq)));
        }
        // Not every commit leaves a record: what is in memory is compared with nothing, and read again.
        self.replaced = Some(read::snapshot(&db, self.clock.now()).map_err(wrong)?);
        self.head = head;
        self.db = Some(db);
        Ok(())
    }
}

/// How a transaction is written.
#[derive(Clone, Copy)]
struct Ways<'a> {
    /// Many deliveries are one record.
    takes_in: bool,
    /// The disk is full: what is under way is written down, and nothing new.
    begins_nothing: bool,
    now: Time,
    /// Whether it ends after the commit it is in.
    gives_way: &'a dyn Fn() -> bool,
}

/// Whether something new begins with a commit: an announcement, a delivery, a request.
fn begins(changes: &[Change]) -> bool {
    changes.iter().any(|change| match change {
        Change::Add(_) | Change::AddAbout(..) | Change::Announcement(_) => true,
        Change::Step(step) => step.attempt == Some(Outcome::Armed),
        _ => false,
    })
}

/// One transaction, a savepoint for each commit that needs one, ended early when it has to give way; the error is one
/// that concerns them all.
fn transact(
    db: &Connection,
    head: &mut Head,
    batch: &[Request],
    ways: Ways<'_>,
) -> Result<Vec<Result<Written, LedgerError>>, LedgerError> {
    say(db, "BEGIN IMMEDIATE")?;
    match all(db, head, batch, ways).and_then(|results| say(db, "COMMIT").map(|()| results)) {
        Ok(results) => Ok(results),
        Err(error) => {
            // Whatever it was, it is not one commit's own doing: nothing of the batch is believed.
            drop(say(db, "ROLLBACK"));
            Err(error)
        }
    }
}

fn say(db: &Connection, sql: &str) -> Result<(), LedgerError> {
    write::exec(db, sql, [])
}

fn all(
    db: &Connection,
    head: &mut Head,
    batch: &[Request],
    ways: Ways<'_>,
) -> Result<Vec<Result<Written, LedgerError>>, LedgerError> {
    let mut results = Vec::with_capacity(batch.len());
    let mut tally = Tally::default();
    for Request { by, changes, .. } in batch {
        if !results.is_empty() && (ways.gives_way)() {
            break;
        }
        if ways.begins_nothing && begins(changes) {
            results.push(Err(LedgerError::NoSpace));
            continue;
        }
        let mut intake = (ways.takes_in && Intake::suits(changes)).then(Intake::default);
        let mut apply = |head: &mut Head, tally: &mut Tally| {
            let carried_out = write::apply(db, head, tally, intake.as_mut(), by, changes, ways.now)?;
            intake.take().map_or(Ok(()), |intake| intake.write(db))?;
            Ok(Written { seq: head.seq, at: ways.now, carried_out })
        };
        if !write::needs_savepoint(changes) {
            match apply(head, &mut tally) {
                Err(error) if !matches!(error, LedgerError::Conflict) => return Err(error),
                result => results.push(result),
            }
            continue;
        }
        let before = (head.clone(), tally.clone());
        say(db, "SAVEPOINT one")?;
        match apply(head, &mut tally) {
            Ok(written) => {
                say(db, "RELEASE one")?;
                results.push(Ok(written));
            }
            Err(LedgerError::Conflict) => {
                say(db, "ROLLBACK TO one")?;
                say(db, "RELEASE one")?;
                (*head, tally) = before;
                results.push(Err(LedgerError::Conflict));
            }
            Err(error) => return Err(error),
        }
    }
    tally.write(db)?;
    Ok(results)
}

/// Whether a change is made of deliveries that are there already.
fn is_about_rows(change: &Change) -> bool {
    matches!(change, Change::Step(_) | Change::Expect(..)) || super::rules::is_order(change)
}
