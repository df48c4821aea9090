//! The one who writes: every commit that came in while the last one synced goes into one transaction.
//!
//! What belongs to an emergency stands in a line of its own and goes first, in a transaction of its own.
//! After a failed sync nothing is believed: the ledger is reopened and its tail verified before anything
//! else is written.

use std::collections::VecDeque;
use std::path::PathBuf;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use super::LedgerError;
use super::marker::Marker;
use super::opening::{connect, verify_tail};
use super::write::{self, Head, Tally, wrong};
use crate::clock::{Clock, Time};
use crate::core::change::{Actor, Change, Seq};

/// Commits gathered into one transaction at most; more wait for the next.
const MOST_GATHERED: usize = 512;

pub struct Request {
    pub by: Actor,
    pub changes: Vec<Change>,
    pub reply: oneshot::Sender<Result<Seq, LedgerError>>,
}

pub struct Writer {
    pub path: PathBuf,
    /// Absent after a failed sync, until it has been reopened.
    pub db: Option<Connection>,
    pub head: Head,
    pub marker: Marker,
    pub clock: Clock,
    /// What belongs to an emergency: a transaction of routine ends when something comes here.
    pub ahead: mpsc::Receiver<Request>,
}

pub async fn run(mut writer: Writer, mut requests: mpsc::Receiver<Request>, head: watch::Sender<(Seq, String)>) {
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
