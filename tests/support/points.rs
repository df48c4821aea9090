//! A trap at a named point of one delivery's way, sprung once: there the daemon dies.
//!
//! The trap stands between the daemon and its ledger and network. Where it springs the daemon's task
//! waits for ever, the test is told, and drops the daemon on what lay on the disk at that moment.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fabu::core::change::{Actor, Change};
use fabu::ledger::sqlite::Sqlite;
use fabu::ledger::{Committed, Ledger, LedgerError};
use fabu::platform::{Http, Lane, Lost};
use http::{Request, Response};
use tokio::sync::Notify;

use super::Indoors;
use super::between::Watch;

/// Where it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    BeforeIntent,
    AfterIntent,
    /// The request is cut: the platform has not got the whole of it.
    AfterFirstByte,
    /// The platform has it and carries it out; no byte of an answer has come.
    AfterLastByte,
    /// The answer has begun to come.
    AfterHeader,
    /// The answer is in the adapter's hands.
    AfterAnswer,
    BeforeReceipt,
    AfterReceipt,
}

pub const POINTS: [Point; 8] = [
    Point::BeforeIntent,
    Point::AfterIntent,
    Point::AfterFirstByte,
    Point::AfterLastByte,
    Point::AfterHeader,
    Point::AfterAnswer,
    Point::BeforeReceipt,
    Point::AfterReceipt,
];

/// Which events of which attempt are the intent and the receipt of what is watched.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub platform: &'static str,
    pub announcement: &'static str,
    pub intent: &'static str,
    pub receipts: &'static [&'static str],
    pub attempt: u16,
}

pub struct Trap {
    pub point: Point,
    pub way: Way,
    pub network: Indoors,
    /// The intent has been seen: the next request of this platform is the one.
    armed: AtomicBool,
    pub state: PathBuf,
    /// What lay on the disk when it sprang.
    left: Mutex<Option<Left>>,
    died: Notify,
}

impl Trap {
    pub fn new(point: Point, way: Way, state: PathBuf, network: Indoors) -> Arc<Trap> {
        let (armed, left, died) = (AtomicBool::new(false), Mutex::default(), Notify::new());
        Arc::new(Trap { point, way, network, armed, state, left, died })
    }

    /// Returns what lay on the disk at the moment it sprang.
    pub async fn sprung(&self) -> Left {
        self.died.notified().await;
        self.left.lock().unwrap().take().unwrap()
    }

    fn springs(&self) {
        *self.left.lock().unwrap() = Some(Left::at(&self.state));
        self.died.notify_one();
    }

    /// Springs, and does nothing any more.
    async fn dies<T>(&self) -> T {
        self.springs();
        std::future::pending().await
    }

    fn has(&self, changes: &[Change], events: &[&str]) -> bool {
        changes.iter().any(|change| match change {
            Change::Step(step) => {
                step.row.account.platform() == self.way.platform
                    && step.row.announcement.as_str() == self.way.announcement
                    && step.row.attempt == self.way.attempt
                    && events.contains(&step.event)
            }
            Change::Stop(stop) => {
                stop.posts.iter().any(|post| post.as_str() == self.way.announcement) && events.contains(&"withdrawn")
            }
            _ => false,
        })
    }
}

#[async_trait]
impl Watch for Trap {
    async fn committed(&self, ledger: &Sqlite, by: &Actor, changes: Vec<Change>) -> Result<Committed, LedgerError> {
        let intent = self.has(&changes, &[self.way.intent]);
        let receipt = self.has(&changes, self.way.receipts);
        if intent && self.point == Point::BeforeIntent || receipt && self.point == Point::BeforeReceipt {
            *self.left.lock().unwrap() = Some(Left::at(&self.state));
            // Written all the same, and then half of it taken away again: a commit the power went out in.
            ledger.commit(by, changes).await.unwrap();
            self.died.notify_one();
            return std::future::pending().await;
        }
        let written = ledger.commit(by, changes).await;
        if intent && written.is_ok() {
            self.armed.store(true, Ordering::SeqCst);
        }
        if intent && self.point == Point::AfterIntent || receipt && self.point == Point::AfterReceipt {
            return self.dies().await;
        }
        written
    }
}

#[async_trait]
impl Http for Trap {
    async fn send(
        &self,
        platform: &str,
        lane: Lane,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Lost> {
        let watched = platform == self.way.platform && self.armed.load(Ordering::SeqCst);
        let writes = request.method() != http::Method::GET && request.method() != http::Method::HEAD;
        if !watched || !writes {
            return self.network.send(platform, lane, request, timeout).await;
        }
        let sending = self.network.send(platform, lane, request, timeout);
        match self.point {
            Point::AfterFirstByte => return self.dies().await,
            Point::AfterLastByte => {
                // Polled once it is with the platform, which goes on without us.
                drop(self.network.clock.timeout(Duration::ZERO, sending).await);
                return self.dies().await;
            }
            _ => {}
        }
        let answer = sending.await;
        match self.point {
            Point::AfterHeader => return self.dies().await,
            Point::AfterAnswer => self.springs(),
            _ => {}
        }
        answer
    }
}

/// What a crash leaves on the disk: the ledger's mark, the ledger and its log.
#[derive(Clone)]
pub struct Left {
    pub mark: Vec<u8>,
    pub ledger: Vec<u8>,
    pub log: Vec<u8>,
}

impl Left {
    pub fn at(state: &Path) -> Left {
        let read = |name: &str| std::fs::read(state.join(name)).unwrap();
        Left { mark: read("fabu.db.mark"), ledger: read("fabu.db"), log: read("fabu.db-wal") }
    }

    /// Puts it back in place of what a dropped daemon's tidy end has made of it.
    pub fn put_back(&self, state: &Path) {
        for (name, bytes) in [("fabu.db.mark", &self.mark), ("fabu.db", &self.ledger), ("fabu.db-wal", &self.log)] {
            std::fs::write(state.join(name), bytes).unwrap();
        }
        std::fs::remove_file(state.join("fabu.db-shm")).unwrap_or_default();
    }

    /// A power loss: the mark, which is not synced, is as old as `older`, or says nothing; and of a commit that
    /// had not returned, half is in the log.
    pub fn without_power(mut self, older: Option<&Left>, under_way: &Left) -> Left {
        self.mark = older.map(|left| left.mark.clone()).unwrap_or_default();
        if let Some(more) = under_way.log.get(self.log.len()..) {
            self.log.extend_from_slice(&more[..more.len() / 2]);
        }
        self
    }
}
