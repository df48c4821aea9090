//! The durable record, which is the truth.
//!
//! What `commit` returned is on disk. A commit is all or nothing, and is refused when anything it was decided on is no
//! longer what was read: then the caller reads again and decides again. What is kept in memory of the ledger follows
//! its commits (`Follower`), and is changed by nothing else.

mod intake;
mod known;
pub mod marker;
mod opening;
pub mod read;
mod room;
pub mod rows;
mod rules;
pub mod sqlite;
pub mod write;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use serde::Serialize;

use crate::clock::Time;
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, Content, ContentHash, OccurrenceId, Priority};
use crate::core::change::{Actor, AnnouncementRow, Change, Closing, Recorded, Seq};
use crate::core::delivery::{Delivery, DeliveryId, State};
use crate::core::gate::{Gate, Hold};
use crate::core::plan::Known;

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Read again and decide again.
    #[error("another change came first")]
    Conflict,
    /// Nothing was written; try again, and say so meanwhile.
    #[error("the ledger cannot be written: {0}")]
    Unavailable(String),
    /// There is no room for it.
    #[error("no space is left for the ledger")]
    NoSpace,
    /// Stop: a person must look.
    #[error("the ledger is not to be trusted: {0}")]
    Broken(String),
    #[error("another daemon uses the ledger {0}")]
    InUse(String),
}

/// A delivery that came due, as little of it as the loop needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub id: DeliveryId,
    pub next_at: Time,
    pub priority: Priority,
}

/// What `GET /v1/announcements` and `/v1/deliveries` ask for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub announcement: Option<String>,
    pub account: Option<String>,
    pub unit: Option<String>,
    pub states: Vec<State>,
    pub priority: Option<Priority>,
    /// Of the queue, or of the socket.
    pub is_queued: Option<bool>,
    pub since: Option<Time>,
    /// Everything after this key of the order.
    pub after: Option<String>,
    pub max: usize,
}

/// An announcement with what became of its occurrences.
#[derive(Clone, Debug)]
pub struct Announced {
    pub row: AnnouncementRow,
    pub occurrences: Vec<OccurrenceSummary>,
}

#[derive(Clone, Debug)]
pub struct OccurrenceSummary {
    pub id: OccurrenceId,
    pub announcement: AnnouncementId,
    pub release: Time,
    pub closing: Option<Closing>,
    pub counts: BTreeMap<State, u32>,
}

/// One attempt, as it is kept.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct AttemptRow {
    pub n: i64,
    #[schema(value_type = Option<chrono::DateTime<chrono::Utc>>)]
    pub slot: Option<Time>,
    #[schema(value_type = Option<chrono::DateTime<chrono::Utc>>)]
    pub begun: Option<Time>,
    #[schema(value_type = Option<chrono::DateTime<chrono::Utc>>)]
    pub ended: Option<Time>,
    pub outcome: String,
    pub words: Option<String>,
}

/// What is known of an account besides its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountRow {
    pub newest: Option<String>,
    pub good: Option<bool>,
    pub words: Option<String>,
    pub uid: Option<String>,
    pub expires: Option<Time>,
    pub seen: Option<Time>,
}

/// Posts of an account that are receipts, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipts {
    pub taken: Vec<String>,
    /// Those from before that time that stand there still, as far as the ledger knows.
    pub standing: Vec<String>,
}

/// What a hold finds of routine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeptBack {
    /// Not sent yet, and due before its end.
    pub held: u64,
    /// With an intent: on the wire, or about to be. And whether it passes a hold.
    pub sending: Vec<(DeliveryId, bool)>,
    /// Sent in the last minutes: account and address of each, the newest first.
    pub out: Vec<(String, Option<String>)>,
}

/// Whether the ledger can be believed about what went out before this start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    Whole,
    /// There was no ledger before.
    New,
    /// The marker beside it knows more than it: it was restored, cut or replaced.
    Behind {
        ledger: Seq,
        marker: Seq,
    },
}

/// Whether the ledger takes what is written to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    #[default]
    Fine,
    /// The disk is full: only emergencies are recorded, in the room that was kept for them.
    Full,
    /// The last commit failed.
    Failing,
    /// The writer is gone: this process writes nothing any more.
    Stopped,
}

/// Holds that are over are remembered this long: what they came over is older than anything that is still to go out.
pub const HOLDS_KEPT: TimeDelta = TimeDelta::days(60);

/// A commit that is on disk.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The newest event.
    pub seq: Seq,
    /// The changes as they were written, each order replaced by the steps it made.
    pub changes: Vec<Change>,
}

impl Committed {
    /// The deliveries it stepped, as they are now.
    pub fn stepped(&self) -> impl Iterator<Item = &Delivery> {
        self.changes.iter().filter_map(|change| match change {
            Change::Step(step) => Some(&step.row),
            _ => None,
        })
    }

    /// The first delivery it stepped, as it is now.
    pub fn into_first(self) -> Option<Delivery> {
        self.changes.into_iter().find_map(|change| match change {
            Change::Step(step) => Some(step.row),
            _ => None,
        })
    }

    /// How many deliveries it left out for good because their time was over, those added among them.
    pub fn expired(&self) -> usize {
        let is_expired = |change: &&Change| match change {
            Change::Step(step) => step.from != State::Expired && step.row.state == State::Expired,
            Change::Add(row) => row.state == State::Expired,
            _ => false,
        };
        self.changes.iter().filter(is_expired).count()
    }

    /// The deliveries it added.
    pub fn added(&self) -> impl Iterator<Item = &Delivery> {
        self.changes.iter().filter_map(|change| match change {
            Change::Add(row) => Some(&**row),
            _ => None,
        })
    }
}

/// So many latest posts of an account are kept in memory: no two deliveries take one of them for their receipt.
pub const RECEIPTS: usize = 64;

/// The part of a ledger that is kept in memory, read at once.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub gate: Gate,
    /// Calls by key and window.
    pub budgets: Vec<(String, i64, u32)>,
    pub newest: BTreeMap<AccountId, String>,
    /// Each account's latest posts that are receipts, the oldest first.
    pub receipts: BTreeMap<AccountId, Vec<String>>,
    /// Deliveries that are `sending`, with their fences.
    pub sending: Vec<(DeliveryId, i64)>,
}

/// Is told of every commit: in the order of the commits, and before anybody is answered.
pub trait Follower: Send + Sync {
    fn committed(&self, changes: &[Change], at: Time);
    /// What was told so far is not what the ledger has: a commit that failed as it seemed is there all the same.
    fn replaced(&self, snapshot: Snapshot);
}

#[async_trait]
pub trait Ledger: Send + Sync {
    fn condition(&self) -> Condition;
    /// An id that no delivery has or will get: for one that has to be known before its commit.
    fn new_id(&self) -> DeliveryId;
    /// Returns when all of it is on disk, and its follower has been told; on an error nothing is, as far as is known.
    async fn commit(&self, by: &Actor, changes: Vec<Change>) -> Result<Committed, LedgerError>;
    /// A projection of the ledger in memory; there is one.
    fn follow(&self, follower: Arc<dyn Follower>);
    async fn snapshot(&self) -> Result<Snapshot, LedgerError>;
    /// What the planner compares with: these announcements, and all that have anything pending.
    async fn known(&self, ids: Vec<AnnouncementId>, since: Time) -> Result<Known, LedgerError>;
    /// Names of the announcements first seen since then.
    async fn names(&self, since: Time) -> Result<BTreeSet<AnnouncementId>, LedgerError>;
    /// Names of the announcements that came over the socket, and not from the queue.
    async fn of_socket(&self) -> Result<BTreeSet<AnnouncementId>, LedgerError>;
    /// Every emergency there ever was.
    async fn emergencies(&self) -> Result<BTreeSet<AnnouncementId>, LedgerError>;
    /// An emergency's first post and all its later words, oldest first.
    async fn family(&self, emergency: AnnouncementId) -> Result<Vec<AnnouncementRow>, LedgerError>;
    /// Deliveries with `next_at` up to `before`, emergencies first, then the earliest; of the platforms that are `full`
    /// only emergencies.
    async fn due(&self, before: Time, max: usize, full: Vec<String>) -> Result<Vec<Due>, LedgerError>;
    async fn next_due(&self, after: Time) -> Result<Option<Time>, LedgerError>;
    async fn load(&self, ids: Vec<DeliveryId>) -> Result<Vec<Delivery>, LedgerError>;
    async fn of_occurrence(&self, id: OccurrenceId) -> Result<Vec<Delivery>, LedgerError>;
    /// Deliveries that wait for a length of time: to be tried again, looked for, taken down; and what is to be sent and
    /// whose instant had come by `came`.
    async fn waiting(&self, came: Time) -> Result<Vec<Delivery>, LedgerError>;
    /// Whether a later delivery of its announcement to its account has come by `now`, and goes or has gone. Nothing
    /// overtakes one that a person let go at another instant than its occurrence's.
    async fn is_overtaken(&self, row: &Delivery, now: Time) -> Result<bool, LedgerError>;
    /// Deliveries that are to be sent and whose instant is over.
    async fn overdue(&self, now: Time) -> Result<Vec<Delivery>, LedgerError>;
    /// Deliveries that are `sending`, `unknown`, `accepted` or `retrying`, and whose instant had come by `before`.
    async fn in_state(&self, state: State, before: Time) -> Result<Vec<Delivery>, LedgerError>;
    /// Emergencies' deliveries that wait: to be sent, or for a word that is still to come.
    async fn emergencies_waiting(&self) -> Result<Vec<Delivery>, LedgerError>;
    /// Deliveries whose post is being taken down.
    async fn standing(&self) -> Result<Vec<Delivery>, LedgerError>;
    async fn content(&self, hash: ContentHash) -> Result<Option<Content>, LedgerError>;
    async fn announcements(&self, filter: Filter) -> Result<Vec<Announced>, LedgerError>;
    async fn occurrences(&self, since: Time, until: Time) -> Result<Vec<OccurrenceSummary>, LedgerError>;
    /// Of each announcement the first occurrences between two instants, and how many more there are in all.
    async fn coming(&self, since: Time, until: Time) -> Result<(Vec<OccurrenceSummary>, u64), LedgerError>;
    async fn deliveries(&self, filter: Filter) -> Result<Vec<Delivery>, LedgerError>;
    /// Whether anything of an occurrence was ever tried, also what is to be tried anew.
    async fn is_tried(&self, id: OccurrenceId) -> Result<bool, LedgerError>;
    async fn attempts(&self, id: DeliveryId) -> Result<Vec<AttemptRow>, LedgerError>;
    async fn counts(&self) -> Result<BTreeMap<State, u64>, LedgerError>;
    async fn events(&self, after: Seq, max: usize) -> Result<Vec<Recorded>, LedgerError>;
    /// The newest sequence number; waits until it is greater than `than`.
    async fn newer(&self, than: Seq) -> Seq;
    fn head(&self) -> (Seq, String);
    async fn accounts(&self) -> Result<BTreeMap<AccountId, AccountRow>, LedgerError>;
    /// Posts of this account that are the receipts of other deliveries than this one; of those that stand, the ones
    /// from before that time.
    async fn receipts(&self, account: AccountId, except: DeliveryId, before: Time) -> Result<Receipts, LedgerError>;
    /// How many routine deliveries a hold until then finds on these accounts (`None`: on all), and where they stand.
    async fn kept_back(&self, until: Time, accounts: Option<BTreeSet<AccountId>>) -> Result<KeptBack, LedgerError>;
    /// Holds that have not been ended, also those whose end has come.
    async fn holds(&self) -> Result<Vec<Hold>, LedgerError>;
    /// The hash of the request a person sent with this key since then, and what it was answered.
    async fn answered(&self, uid: u32, key: &str, since: Time) -> Result<Option<(String, String)>, LedgerError>;
    async fn meta(&self, key: &str) -> Result<Option<String>, LedgerError>;
}
