//! A ledger between the daemon and the one on the disk, that sees every commit first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use fabu::clock::Time;
use fabu::core::accounts::AccountId;
use fabu::core::announcement::{AnnouncementId, Content, ContentHash, OccurrenceId};
use fabu::core::change::{Actor, AnnouncementRow, Change, Recorded, Seq};
use fabu::core::delivery::{Delivery, DeliveryId, State};
use fabu::core::gate::Hold;
use fabu::core::plan::Known;
use fabu::ledger::sqlite::Sqlite;
use fabu::ledger::{
    AccountRow, Announced, AttemptRow, Committed, Condition, Due, Filter, Follower, KeptBack, Ledger, LedgerError,
    OccurrenceSummary, Receipts, Snapshot,
};

/// Takes each commit, and passes it on to the ledger, or not.
#[async_trait]
pub trait Watch: Send + Sync {
    async fn committed(&self, ledger: &Sqlite, by: &Actor, changes: Vec<Change>) -> Result<Committed, LedgerError>;
}

pub struct Between {
    ledger: Arc<Sqlite>,
    watch: Arc<dyn Watch>,
}

impl Between {
    pub fn over(ledger: Arc<Sqlite>, watch: Arc<dyn Watch>) -> Arc<Between> {
        Arc::new(Between { ledger, watch })
    }
}

macro_rules! passed_on {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl Ledger for Between {
            async fn commit(&self, by: &Actor, changes: Vec<Change>) -> Result<Committed, LedgerError> {
                self.watch.committed(&self.ledger, by, changes).await
            }
            async fn answered(&self, uid: u32, key: &str, since: Time) -> Got<Option<(String, String)>> {
                self.ledger.answered(uid, key, since).await
            }
            async fn meta(&self, key: &str) -> Result<Option<String>, LedgerError> {
                self.ledger.meta(key).await
            }
            async fn is_overtaken(&self, row: &Delivery, now: Time) -> Result<bool, LedgerError> {
                self.ledger.is_overtaken(row, now).await
            }
            fn follow(&self, follower: Arc<dyn Follower>) {
                self.ledger.follow(follower);
            }
            fn new_id(&self) -> DeliveryId {
                self.ledger.new_id()
            }
            fn condition(&self) -> Condition {
                self.ledger.condition()
            }
            fn head(&self) -> (Seq, String) {
                self.ledger.head()
            }
            $(async fn $name(&self, $($arg: $type),*) -> $out {
                self.ledger.$name($($arg),*).await
            })*
        }
    };
}

type Got<T> = Result<T, LedgerError>;

passed_on! {
    known(ids: Vec<AnnouncementId>, since: Time) -> Got<Known>;
    names(since: Time) -> Got<BTreeSet<AnnouncementId>>;
    due(before: Time, max: usize, full: Vec<String>) -> Got<Vec<Due>>;
    next_due(after: Time) -> Got<Option<Time>>;
    load(ids: Vec<DeliveryId>) -> Got<Vec<Delivery>>;
    of_occurrence(id: OccurrenceId) -> Got<Vec<Delivery>>;
    is_tried(id: OccurrenceId) -> Got<bool>;
    in_state(state: State, before: Time) -> Got<Vec<Delivery>>;
    emergencies_waiting() -> Got<Vec<Delivery>>;
    standing() -> Got<Vec<Delivery>>;
    content(hash: ContentHash) -> Got<Option<Content>>;
    announcements(filter: Filter) -> Got<Vec<Announced>>;
    occurrences(since: Time, until: Time) -> Got<Vec<OccurrenceSummary>>;
    coming(since: Time, until: Time) -> Got<(Vec<OccurrenceSummary>, u64)>;
    deliveries(filter: Filter) -> Got<Vec<Delivery>>;
    attempts(id: DeliveryId) -> Got<Vec<AttemptRow>>;
    counts() -> Got<BTreeMap<State, u64>>;
    events(after: Seq, max: usize) -> Got<Vec<Recorded>>;
    newer(than: Seq) -> Seq;
    snapshot() -> Got<Snapshot>;
    waiting(came: Time) -> Got<Vec<Delivery>>;
    overdue(now: Time) -> Got<Vec<Delivery>>;
    holds() -> Got<Vec<Hold>>;
    kept_back(until: Time, accounts: Option<BTreeSet<AccountId>>) -> Got<KeptBack>;
    of_socket() -> Got<BTreeSet<AnnouncementId>>;
    emergencies() -> Got<BTreeSet<AnnouncementId>>;
    family(emergency: AnnouncementId) -> Got<Vec<AnnouncementRow>>;
    accounts() -> Got<BTreeMap<AccountId, AccountRow>>;
    receipts(account: AccountId, except: DeliveryId, before: Time) -> Got<Receipts>;
}
