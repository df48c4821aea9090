//! The ledger on SQLite: WAL, full sync, one writer, a few readers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::intake;
use super::known;
use super::marker::{self, Marker};
use super::opening::{connect, look_at, make_folder, migrate, verify_tail};
use super::room::Room;
use super::write::wrong;
use super::writer::{FileId, Followed, Request, Taken, Writer, run};
use super::{
    AccountRow, Announced, AttemptRow, Committed, Condition, Due, Filter, Follower, KeptBack, Ledger, LedgerError,
    OccurrenceSummary, Receipts, Snapshot, Trust, read,
};
use crate::clock::{Clock, Time};
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, Content, ContentHash, OccurrenceId};
use crate::core::change::{Actor, AnnouncementRow, Change, Recorded, Seq};
use crate::core::delivery::{Delivery, DeliveryId, State};
use crate::core::gate::Hold;
use crate::core::plan::Known;

/// Commits that may wait for the writer; more wait to be taken.
const WAITING: usize = 8192;
/// Rows are made of a record in milliseconds; a disk that takes none for this long is told of.
const LONGEST_OWED: Duration = Duration::from_secs(5);
/// A look that an emergency came into is repeated so often.
const MOST_LOOKS: u32 = 5;

pub struct Sqlite {
    path: PathBuf,
    clock: Clock,
    writer: mpsc::Sender<Request>,
    /// What belongs to an emergency goes in front of all that waits for the writer.
    ahead: mpsc::Sender<Request>,
    readers: Arc<Mutex<Vec<Connection>>>,
    head: watch::Receiver<(Seq, String)>,
    /// Whether rows are still to be made of what was acknowledged.
    taken: watch::Receiver<Taken>,
    wanted: Arc<Notify>,
    condition: watch::Receiver<Condition>,
    next_id: AtomicI64,
    follower: Followed,
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
        let mut room = if clock.is_simulated() { Room::none() } else { Room::beside(path) };
        room.give_to_start();
        let ready = || {
            let mut db = connect(path, false)?;
            // What was acknowledged in the last instant before a crash: by the columns it was acknowledged with.
            intake::carry_out(&mut db)?;
            migrate(&mut db)?;
            let head = verify_tail(&db)?;
            Ok((db, head))
        };
        let (db, head) = match ready() {
            Err(LedgerError::NoSpace) if room.give() => ready()?,
            done => done?,
        };
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
        let (owed, taken) = watch::channel(Taken::default());
        let (own, db, clock_too) = (path.to_owned(), Some(db), clock.clone());
        let (told, condition) = watch::channel(Condition::default());
        let wanted = Arc::new(Notify::new());
        let follower = Followed::default();
        let work = Writer {
            file: FileId::of(path)?,
            path: own,
            db,
            head,
            marker,
            clock: clock_too,
            ahead: first,
            taken: owed,
            wanted: wanted.clone(),
            room,
            condition: told,
            follower: follower.clone(),
            replaced: None,
        };
        tokio::spawn(run(work, requests, head_tx));
        Ok(Sqlite {
            path: path.to_owned(),
            clock: clock.clone(),
            writer,
            ahead,
            readers: Arc::new(Mutex::new(Vec::new())),
            head: head_rx,
            taken,
            wanted,
            condition,
            next_id: AtomicI64::new(last.unwrap_or(0) + 1),
            follower,
            trust,
        })
    }

    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What `query` finds, with the rows of all that was acknowledged.
    async fn read<T, F>(&self, query: F) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + Sync + 'static,
    {
        let query = Arc::new(query);
        let mut tries = 0;
        loop {
            let taken = self.whole().await?;
            let found = self.look(query.clone()).await;
            tries += 1;
            // An emergency that was taken in between may have been seen without its deliveries.
            if *self.taken.borrow() == taken || tries == MOST_LOOKS {
                return found;
            }
        }
    }

    /// Returns when there is a row of every delivery that was acknowledged.
    async fn whole(&self) -> Result<Taken, LedgerError> {
        let mut taken = self.taken.clone();
        if taken.borrow().is_owing {
            self.wanted.notify_one();
        }
        let whole = taken.wait_for(|taken| !taken.is_owing);
        let owing = || LedgerError::Unavailable("an emergency's deliveries are not rows yet".to_owned());
        match self.clock.timeout(LONGEST_OWED, whole).await {
            Some(Ok(taken)) => Ok(*taken),
            // Without a writer nothing is owed that could still come.
            Some(Err(_)) => Ok(*self.taken.borrow()),
            None => Err(owing()),
        }
    }

    async fn look<T, F>(&self, query: Arc<F>) -> Result<T, LedgerError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + Sync + 'static,
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
        match self.clock.aside(work).await {
            Ok(found) => found,
            Err(error) => Err(LedgerError::Unavailable(error.to_string())),
        }
    }
}

#[async_trait]
impl Ledger for Sqlite {
    fn condition(&self) -> Condition {
        if self.writer.is_closed() { Condition::Stopped } else { *self.condition.borrow() }
    }

    fn new_id(&self) -> DeliveryId {
        DeliveryId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    fn follow(&self, follower: Arc<dyn Follower>) {
        *self.follower.lock().unwrap_or_else(PoisonError::into_inner) = Some(follower);
    }

    async fn snapshot(&self) -> Result<Snapshot, LedgerError> {
        let now = self.clock.now();
        self.read(move |db| read::snapshot(db, now)).await
    }

    async fn commit(&self, by: &Actor, mut changes: Vec<Change>) -> Result<Committed, LedgerError> {
        for change in &mut changes {
            if let Change::Add(delivery) | Change::AddAbout(delivery, _) = change
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
        self.read(move |db| known::known(db, &ids, since)).await
    }

    async fn names(&self, since: Time) -> Result<BTreeSet<AnnouncementId>, LedgerError> {
        self.read(move |db| read::names(db, since)).await
    }

    async fn of_socket(&self) -> Result<BTreeSet<AnnouncementId>, LedgerError> {
        self.read(read::of_socket).await
    }

    async fn emergencies(&self) -> Result<BTreeSet<AnnouncementId>, LedgerError> {
        self.read(read::emergencies).await
    }

    async fn family(&self, emergency: AnnouncementId) -> Result<Vec<AnnouncementRow>, LedgerError> {
        self.read(move |db| read::family(db, &emergency)).await
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

    async fn waiting(&self, came: Time) -> Result<Vec<Delivery>, LedgerError> {
        self.read(move |db| read::waiting(db, came)).await
    }

    async fn is_overtaken(&self, row: &Delivery, now: Time) -> Result<bool, LedgerError> {
        let row = row.clone();
        self.read(move |db| read::is_overtaken(db, &row, now)).await
    }

    async fn overdue(&self, now: Time) -> Result<Vec<Delivery>, LedgerError> {
        self.read(move |db| read::overdue(db, now)).await
    }

    async fn in_state(&self, state: State, before: Time) -> Result<Vec<Delivery>, LedgerError> {
        self.read(move |db| read::in_state(db, state, before)).await
    }

    async fn emergencies_waiting(&self) -> Result<Vec<Delivery>, LedgerError> {
        self.read(read::emergencies_waiting).await
    }

    async fn standing(&self) -> Result<Vec<Delivery>, LedgerError> {
        self.read(read::standing).await
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

    async fn coming(&self, since: Time, until: Time) -> Result<(Vec<OccurrenceSummary>, u64), LedgerError> {
        self.read(move |db| read::coming(db, since, until)).await
    }

    async fn deliveries(&self, filter: Filter) -> Result<Vec<Delivery>, LedgerError> {
        self.read(move |db| read::deliveries(db, &filter)).await
    }

    async fn is_tried(&self, id: OccurrenceId) -> Result<bool, LedgerError> {
        self.read(move |db| read::is_tried(db, &id)).await
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

    async fn accounts(&self) -> Result<BTreeMap<AccountId, AccountRow>, LedgerError> {
        self.read(read::accounts).await
    }

    async fn receipts(&self, account: AccountId, except: DeliveryId, before: Time) -> Result<Receipts, LedgerError> {
        self.read(move |db| read::receipts(db, &account, except, before)).await
    }

    async fn kept_back(&self, until: Time, accounts: Option<BTreeSet<AccountId>>) -> Result<KeptBack, LedgerError> {
        let now = self.clock.now();
        self.read(move |db| read::kept_back(db, now, until, accounts.as_ref())).await
    }

    async fn holds(&self) -> Result<Vec<Hold>, LedgerError> {
        self.read(read::open_holds).await
    }

    async fn answered(&self, uid: u32, key: &str, since: Time) -> Result<Option<(String, String)>, LedgerError> {
        let key = key.to_owned();
        self.read(move |db| read::answered(db, uid, &key, since)).await
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
