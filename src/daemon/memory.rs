//! The daemon's memory of its ledger: a projection of committed changes, and nothing else.
//!
//! Every part of it is changed in one place, `Follower::committed`, which the ledger calls for each commit in the order
//! of the commits and before anybody is answered. So nothing here can be ahead of the ledger or contradict it, and
//! a commit that fails has nothing to undo. What has to be taken before its commit (a call of a budget, a post
//! as somebody's receipt) is a reservation, which gives itself back when it is dropped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;

use tokio::sync::Notify;

use super::lock;
use super::steady::Steady;
use crate::clock::{Clock, Mono, Time};
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, Body, ContentHash};
use crate::core::change::{Change, Withdrawal};
use crate::core::delivery::{Delivery, DeliveryId, Outcome, State, Step};
use crate::core::gate::{Asking, Gate, Hold, Person, Verdict};
use crate::core::pacing::{Budgets, Calls, Use};
use crate::core::policy::{Emergency, PlatformSettings};
use crate::core::words::Words;
use crate::ledger::{Follower, RECEIPTS, Snapshot};

pub struct Memory {
    clock: Clock,
    /// When this process began to look at the ledger: a doubt of before counts from here.
    began: Mono,
    gate: Mutex<Gate>,
    /// The time by which holds last.
    steady: Mutex<Steady>,
    /// Deliveries whose intent is on disk and whose outcome is not, each with the fence it was armed with. A change of
    /// the row by anybody else makes that permission void.
    sending: Mutex<BTreeMap<DeliveryId, i64>>,
    budgets: Mutex<Budgets>,
    accounts: Mutex<BTreeMap<AccountId, Known>>,
    /// Since when each delivery has been in doubt.
    doubts: Mutex<BTreeMap<DeliveryId, Mono>>,
    /// A hold has ended, whoever ended it.
    pub hold_ended: Notify,
}

/// The state of an account, as committed changes have it.
#[derive(Default)]
struct Known {
    /// The newest post: looking starts above it.
    newest: Option<String>,
    receipts: VecDeque<String>,
    /// Receipts whose commits are under way.
    claimed: BTreeSet<String>,
    /// When its credential was last seen, and why it was bad if it was.
    credential: Option<(Mono, Option<Words>)>,
    /// Its timeline was seen to prove nothing, and has not shown a post that is known since.
    hides: bool,
}

impl Memory {
    pub fn new(clock: Clock, snapshot: Snapshot) -> Arc<Memory> {
        let memory = Memory {
            began: clock.mono(),
            steady: Mutex::new(Steady::at(clock.now(), clock.mono())),
            clock,
            gate: Mutex::default(),
            sending: Mutex::default(),
            budgets: Mutex::default(),
            accounts: Mutex::default(),
            doubts: Mutex::default(),
            hold_ended: Notify::new(),
        };
        memory.replaced(snapshot);
        Arc::new(memory)
    }

    // Questions.

    pub fn verdict(&self, asking: &Asking<'_>, now: Time, emergency: &Emergency) -> Verdict {
        let ahead = self.ahead();
        lock(&self.gate).verdict(asking, now, ahead, emergency)
    }

    /// Whether a hold kept a post of routine back that was to go then, and to last until then.
    pub fn came_over(&self, account: &AccountId, body: &Body, lasts: (Time, Time), now: Time, resume: bool) -> bool {
        lock(&self.gate).came_over(account, body, lasts, now - self.ahead(), resume)
    }

    /// The holds that stand now.
    pub fn holds(&self, now: Time) -> Vec<Hold> {
        let ahead = self.ahead();
        lock(&self.gate).standing(now - ahead).cloned().collect()
    }

    /// The latest hold of this name, also when it is over.
    pub fn last_hold(&self, name: &str) -> Option<Hold> {
        lock(&self.gate).holds.iter().filter(|hold| hold.id == name).max_by_key(|hold| hold.begun).cloned()
    }

    /// Holds whose end has come and that nobody has ended yet.
    pub fn past_holds(&self, now: Time) -> Vec<Hold> {
        let by = now - self.ahead();
        let is_past = |hold: &&Hold| hold.ended.is_none() && !hold.stands(by);
        lock(&self.gate).holds.iter().filter(is_past).cloned().collect()
    }

    pub fn persons(&self, announcement: &AnnouncementId, content: &ContentHash) -> Vec<Person> {
        lock(&self.gate).persons(announcement, content).to_vec()
    }

    /// Whether this version of the row is the one whose request may begin.
    pub fn may_begin(&self, row: &Delivery) -> bool {
        lock(&self.sending).get(&row.id) == Some(&row.fence)
    }

    /// The age of this delivery's doubt, in this process and on a clock that does not step.
    pub fn waited(&self, id: DeliveryId) -> Duration {
        let since = lock(&self.doubts).get(&id).copied().unwrap_or(self.began);
        if crate::planted("absence_at_once") {
            return Duration::from_secs(86_400);
        }
        self.clock.mono().0.saturating_sub(since.0)
    }

    /// The time for which the request that is in doubt may still be under way.
    pub fn under_way(&self, id: DeliveryId) -> Duration {
        let since = lock(&self.doubts).get(&id).copied();
        since.map_or(Duration::ZERO, |since| since.0.saturating_sub(self.clock.mono().0))
    }

    pub fn newest(&self, account: &AccountId) -> Option<String> {
        lock(&self.accounts).get(account)?.newest.clone()
    }

    /// The time since the account's credential was seen, and why it was bad if it was.
    pub fn credential(&self, account: &AccountId) -> Option<(Duration, Option<Words>)> {
        let (seen, bad) = lock(&self.accounts).get(account)?.credential.clone()?;
        Some((self.clock.mono().0.saturating_sub(seen.0), bad))
    }

    /// The calls used of an account's day, and its limit.
    pub fn day_of(&self, settings: &PlatformSettings, account: &AccountId, now: Time) -> (u32, Option<u32>) {
        lock(&self.budgets).day_of(settings, account, now)
    }

    // Reservations.

    /// One call of an account, or when to ask again.
    pub fn reserve(
        self: &Arc<Self>,
        settings: &PlatformSettings,
        account: &AccountId,
        use_: Use,
        publishes: bool,
        reserve: f64,
        now: Time,
    ) -> Result<Reserved, Time> {
        let calls = lock(&self.budgets).reserve(settings, account, use_, publishes, reserve, now)?;
        Ok(Reserved { memory: self.clone(), calls })
    }

    /// Up to so many calls that open connections, and how many of them may be made.
    pub fn reserve_warm(
        self: &Arc<Self>,
        settings: &PlatformSettings,
        calls: u32,
        reserve: f64,
        now: Time,
    ) -> (u32, Reserved) {
        let (granted, calls) = lock(&self.budgets).reserve_warm(settings, calls, reserve, now);
        (granted, Reserved { memory: self.clone(), calls })
    }

    /// A post as the receipt of one delivery; `None` when it is another's already.
    pub fn claim_receipt(self: &Arc<Self>, account: &AccountId, post_id: &str) -> Option<Claimed> {
        let mut accounts = lock(&self.accounts);
        let known = accounts.entry(account.clone()).or_default();
        if known.receipts.iter().any(|id| id == post_id) || !known.claimed.insert(post_id.to_owned()) {
            return None;
        }
        Some(Claimed { memory: self.clone(), account: account.clone(), post_id: post_id.to_owned() })
    }

    /// Whether an account's timeline, which shows these posts that are known to stand there, is still to be doubted for
    /// what it hid before; `None`: it was seen to hide some just now.
    pub fn hides(&self, account: &AccountId, standing: Option<&[String]>) -> bool {
        let mut accounts = lock(&self.accounts);
        let known = accounts.entry(account.clone()).or_default();
        known.hides = standing.is_none_or(|standing| known.hides && standing.is_empty());
        known.hides
    }

    /// Credentials of these accounts are asked about again; what decides is also told which were bad.
    pub fn forget_credentials(&self, of: impl Fn(&AccountId, bool) -> bool) {
        for (id, known) in lock(&self.accounts).iter_mut() {
            let is_bad = known.credential.as_ref().is_some_and(|(_, bad)| bad.is_some());
            if of(id, is_bad) {
                known.credential = None;
            }
        }
    }

    // The clock by which what is on record is read.

    /// The wall clock was stepped, perhaps back behind what is on record.
    pub fn clock_was_put(&self, now: Time) {
        lock(&self.gate).clock_is(now);
    }

    /// By how much the wall clock is ahead of the time by which holds last.
    fn ahead(&self) -> TimeDelta {
        lock(&self.steady).ahead(self.clock.now(), self.clock.mono())
    }

    // Commits.

    fn stepped(&self, step: &Step) {
        let row = &step.row;
        {
            let mut sending = lock(&self.sending);
            match (row.state, step.from) {
                (State::Sending, _) if step.attempt == Some(Outcome::Armed) => {
                    sending.insert(row.id, row.fence);
                }
                // Somebody has stopped it meanwhile: the fence it was armed with is no permission any more.
                (_, State::Sending) => {
                    sending.remove(&row.id);
                }
                _ => {}
            }
        }
        let mut doubts = lock(&self.doubts);
        if let Some(after) = step.doubt_in {
            doubts.insert(row.id, Mono(self.clock.mono().0 + after));
        } else if !matches!(row.state, State::Unknown | State::Accepted) {
            doubts.remove(&row.id);
        }
        drop(doubts);
        if let Some(receipt) = row.receipt.as_ref().filter(|r| !r.post_id.is_empty() && step.from != row.state) {
            let mut accounts = lock(&self.accounts);
            let known = accounts.entry(row.account.clone()).or_default();
            if !known.receipts.contains(&receipt.post_id) {
                known.receipts.push_back(receipt.post_id.clone());
            }
            if known.receipts.len() > RECEIPTS {
                known.receipts.pop_front();
            }
            if step.attempt == Some(Outcome::Taken) {
                known.credential = Some((self.clock.mono(), None));
            }
        }
    }

    fn added(&self, row: &Delivery) {
        match row.state {
            State::Sending => {
                lock(&self.sending).insert(row.id, row.fence);
            }
            State::Unknown => {
                lock(&self.doubts).insert(row.id, self.clock.mono());
            }
            _ => {}
        }
    }
}

impl Follower for Memory {
    fn committed(&self, changes: &[Change], at: Time) {
        for change in changes {
            match change {
                Change::Step(step) => self.stepped(step),
                Change::Add(row) => self.added(row),
                Change::Spend { key, window, calls } => lock(&self.budgets).count(key, *window, *calls),
                Change::ForgetCalls { hour, day } => lock(&self.budgets).forget(*hour, *day),
                Change::Seen { account, post_id } => {
                    lock(&self.accounts).entry(account.clone()).or_default().newest = Some(post_id.clone());
                }
                Change::Credential { account, bad, .. } => {
                    let seen = Some((self.clock.mono(), bad.clone()));
                    lock(&self.accounts).entry(account.clone()).or_default().credential = seen;
                }
                Change::Announcement(row) => lock(&self.gate).in_force(row),
                Change::Withdrawn(id, Withdrawal::Queue) => lock(&self.gate).agreed(id, None),
                Change::Hold(hold) => lock(&self.gate).put(hold.clone()),
                Change::HoldEnded { id, begun, .. } => {
                    lock(&self.gate).end(id, *begun, at);
                    self.hold_ended.notify_one();
                }
                Change::Confirmed { announcement, content, uid, name } => {
                    let person = Person { uid: *uid, name: name.clone() };
                    lock(&self.gate).confirm(announcement, content, person);
                }
                _ => {}
            }
        }
    }

    fn replaced(&self, snapshot: Snapshot) {
        let mut gate = lock(&self.gate);
        *gate = snapshot.gate;
        gate.clock_is(self.clock.now());
        drop(gate);
        *lock(&self.sending) = snapshot.sending.into_iter().collect();
        let mut budgets = lock(&self.budgets);
        budgets.replace(snapshot.budgets);
        drop(budgets);
        let mut accounts = lock(&self.accounts);
        for (account, newest) in snapshot.newest {
            accounts.entry(account).or_default().newest = Some(newest);
        }
        for (account, receipts) in snapshot.receipts {
            accounts.entry(account).or_default().receipts = receipts.into();
        }
    }
}

/// Calls that are about to be made, taken ahead of the commit that counts them. Dropped after that commit, or in place
/// of it.
#[must_use = "calls are reserved as long as this is kept"]
pub struct Reserved {
    memory: Arc<Memory>,
    calls: Calls,
}

impl Reserved {
    /// What the ledger has to remember when they are made.
    pub fn changes(&self) -> impl Iterator<Item = Change> {
        self.calls.changes()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        lock(&self.memory.budgets).give_back(std::mem::take(&mut self.calls));
    }
}

/// A post that is about to become somebody's receipt. Dropped after the commit that says so, or in place of it.
#[must_use = "a post is claimed as long as this is kept"]
pub struct Claimed {
    memory: Arc<Memory>,
    account: AccountId,
    post_id: String,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if let Some(known) = lock(&self.memory.accounts).get_mut(&self.account) {
            known.claimed.remove(&self.post_id);
        }
    }
}
