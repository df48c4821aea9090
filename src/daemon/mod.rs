//! The imperative shell: starts, recovers, runs the loop, stops.
//!
//! One loop serves everything: a delivery whose `next_at` has come is claimed and driven until it
//! rests or is due only later. What must be remembered is on disk before it is acted on, and
//! dropping the `Daemon` stops every task it owns.

pub mod acts;
pub mod alerts;
pub mod answers;
pub mod config;
pub mod doorway;
pub mod emergency;
pub mod holds;
pub mod jobs;
pub mod lane;
pub mod metrics;
pub mod notify;
pub mod planner;
pub mod prepare;
pub mod recover;
pub mod release;
pub mod send;
pub mod settle;
pub mod status;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Time};
use crate::core::accounts::{AccountId, PlatformName};
use crate::core::announcement::{Content, ContentHash, OccurrenceId, Priority};
use crate::core::change::{Actor, Change};
use crate::core::delivery::{Delivery, DeliveryId, Event, Illegal, Step, step};
use crate::core::gate::Gate;
use crate::core::pacing::Budgets;
use crate::core::words::Words;
use crate::ledger::{Ledger, LedgerError, Trust};
use crate::platform::Http;
use config::{Config, Env};

/// Deliveries in hand at once; more wait in the ledger, the most urgent and earliest first.
const MOST_IN_HAND: usize = 4096;
/// Of one platform: one that hangs must not fill the hands that the others need.
const MOST_OF_PLATFORM: usize = MOST_IN_HAND / 2;
/// With less room than this nothing more is claimed: a backlog is read in few large pieces.
const WORTH_CLAIMING: usize = 1024;
/// The loop looks again this soon after a change, so that a burst of commits is one look.
const LOOK_AGAIN: Duration = Duration::from_millis(40);
/// Every commit and every step of the clock wakes the loop; this is for what nobody tells it.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Steps of many rows that wait for the ledger at once.
const AT_ONCE: usize = 256;
/// Contents kept in memory; the others are read again.
const MOST_CONTENTS: usize = 512;

/// Who gets which clock, network and ledger: real ones, or a simulation's.
pub struct World {
    pub clock: Clock,
    pub http: Arc<dyn Http>,
    pub ledger: Arc<dyn Ledger>,
    pub trust: Trust,
    pub config: Config,
    pub faults: Vec<crate::input::Fault>,
    pub env: Env,
}

/// The running daemon; dropping it stops it at once, as a crash would.
pub struct Daemon {
    pub inner: Arc<Inner>,
    tasks: JoinSet<()>,
}

pub struct Inner {
    pub clock: Clock,
    pub http: Arc<dyn Http>,
    pub ledger: Arc<dyn Ledger>,
    pub metrics: metrics::Metrics,
    pub releases: release::Releases,
    pub notices: notify::Notices,
    pub(crate) env: Env,
    config: RwLock<Arc<Config>>,
    pub gate: Mutex<Gate>,
    pub budgets: Mutex<Budgets>,
    instants: Arc<release::Instants>,
    /// Accounts and platforms that have to wait, and until when.
    pauses: Mutex<BTreeMap<String, Time>>,
    /// When a credential was last seen, and why it was bad if it was.
    standings: Mutex<BTreeMap<AccountId, (Time, Option<Words>)>>,
    /// The newest post known of each account, as the ledger has it: looking starts above it.
    newest: Mutex<BTreeMap<AccountId, String>>,
    /// The newest receipts of each account: no post is two deliveries' receipt.
    recent: Mutex<BTreeMap<AccountId, std::collections::VecDeque<String>>>,
    in_hand: Mutex<InHand>,
    contents: Mutex<BTreeMap<ContentHash, Arc<Content>>>,
    preparing: Mutex<BTreeMap<String, Arc<Semaphore>>>,
    looking: Mutex<BTreeMap<AccountId, Arc<tokio::sync::Mutex<()>>>>,
    /// Whoever acts on an emergency looks at what was said before and then writes: one at a time, or a request
    /// repeated while the first is under way would be taken twice, and a word counted twice or not at all.
    deciding: tokio::sync::Mutex<()>,
    /// Occurrences of the queue's emergencies whose silence was looked after.
    silenced: Mutex<BTreeSet<OccurrenceId>>,
    /// Readings of the whole queue, or of all that is held, for those who only look.
    pub looks: Semaphore,
    /// Panics by delivery: after two it is set aside (R26).
    panics: Mutex<BTreeMap<DeliveryId, u32>>,
    pub state: Mutex<status::Noted>,
    /// Something may have come due sooner than the loop thinks.
    woken: Notify,
    /// Requests that passed the gate and have no answer yet.
    pub(crate) passing: AtomicUsize,
    /// An emergency is in the ledger and has nobody who sends it yet.
    urged: Notify,
    pub way: lane::Way,
    rescan: Notify,
    rescanned: tokio::sync::watch::Sender<u64>,
    pub stop: CancellationToken,
}

impl Daemon {
    /// Recovers, reads the queue once, and begins the loop. Returns when the first reading is planned.
    pub async fn start(world: World) -> Result<Daemon, LedgerError> {
        let now = world.clock.now();
        let gate = world.ledger.gate(now).await?;
        let mut budgets = Budgets::default();
        for (key, window, calls) in world.ledger.budgets().await? {
            budgets.load(key, window, calls);
        }
        let accounts = world.ledger.accounts().await?;
        let newest = accounts.into_iter().filter_map(|(id, row)| Some((id, row.newest?))).collect();
        let (way, launched) = lane::Way::new();
        let inner = Arc::new(Inner {
            clock: world.clock,
            http: world.http,
            ledger: world.ledger,
            metrics: metrics::Metrics::default(),
            releases: release::Releases::default(),
            notices: notify::Notices::default(),
            env: world.env,
            config: RwLock::new(Arc::new(world.config)),
            gate: Mutex::new(gate),
            budgets: Mutex::new(budgets),
            instants: Arc::default(),
            pauses: Mutex::default(),
            standings: Mutex::default(),
            newest: Mutex::new(newest),
            recent: Mutex::default(),
            in_hand: Mutex::default(),
            contents: Mutex::default(),
            preparing: Mutex::default(),
            looking: Mutex::default(),
            deciding: tokio::sync::Mutex::default(),
            silenced: Mutex::default(),
            looks: Semaphore::new(1),
            panics: Mutex::default(),
            state: Mutex::new(status::Noted::new(now, world.faults)),
            woken: Notify::new(),
            passing: AtomicUsize::new(0),
            urged: Notify::new(),
            way,
            rescan: Notify::new(),
            rescanned: tokio::sync::watch::Sender::new(0),
            stop: CancellationToken::new(),
        });
        // What is found at the start is told too, and what the last run did not come to tell.
        let told_to = notify::told_to(&inner).await?;
        recover::recover(&inner, &world.trust).await?;
        let mut tasks = JoinSet::new();
        if !inner.config().direct {
            let mut planner = planner::Planner::new(inner.clone(), world.trust != Trust::Whole);
            planner.scan(true).await;
            tasks.spawn(planner.run());
        }
        tasks.spawn(run(inner.clone()));
        tasks.spawn(lane::run(inner.clone(), launched));
        tasks.spawn(notify::run(inner.clone(), told_to));
        Ok(Daemon { inner, tasks })
    }

    /// Watches the folder and the minute hand; a simulation does without both.
    pub async fn attend(&mut self) {
        if !self.inner.config().direct {
            self.tasks.spawn(watch::run(self.inner.clone()));
            self.tasks.spawn(jobs::run(self.inner.clone()));
        }
        self.tasks.spawn(lane::keep_warm(self.inner.clone()));
    }

    /// Ends cleanly: no new request, those in flight are awaited.
    pub async fn stop(mut self) {
        self.inner.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Reads the queue folder now and returns when what it says is in the ledger.
    pub async fn rescan(&self) {
        self.inner.rescan_now().await;
    }
}

impl Inner {
    pub fn config(&self) -> Arc<Config> {
        self.config.read().expect("nothing panics while it holds the configuration").clone()
    }

    pub(crate) fn replace_config(&self, config: Config) {
        *self.config.write().expect("nothing panics while it holds the configuration") = Arc::new(config);
        // New secrets may be good where the old ones were not.
        lock(&self.standings).clear();
        lock(&self.preparing).clear();
    }

    pub async fn rescan_now(&self) {
        if self.config().direct {
            return;
        }
        let mut done = self.rescanned.subscribe();
        let target = *done.borrow_and_update() + 1;
        self.rescan.notify_one();
        // A planner that has stopped says nothing more, and nobody has to wait for it.
        drop(done.wait_for(|n| *n >= target).await);
    }

    pub fn ask_rescan(&self) {
        self.rescan.notify_one();
    }

    /// Steps a delivery and writes it, with whatever belongs to the same moment. When another change came
    /// first the row is read again and the event tried on what it has become.
    pub(crate) async fn step(
        &self,
        by: &Actor,
        row: &Delivery,
        event: Event,
        with: Vec<Change>,
    ) -> Result<Delivery, StepError> {
        let mut row = row.clone();
        loop {
            let stepped = self.computed(&row, event.clone())?;
            let after = stepped.row.clone();
            let mut changes = vec![Change::Step(Box::new(stepped))];
            changes.extend(with.iter().cloned());
            match self.ledger.commit(by, changes).await {
                Ok(_) => return Ok(after),
                Err(LedgerError::Conflict) => {
                    let found = self.reload(row.id).await?;
                    // What was prepared of the old words is nothing to the new ones.
                    if event.is_of_words() && found.content != row.content {
                        return Err(Illegal { state: found.state, event: event.name() }.into());
                    }
                    row = found;
                }
                Err(error) => return Err(StepError::Ledger(error)),
            }
        }
    }

    /// Steps many rows, each by itself and all at once: the ledger gathers what waits into few commits.
    pub(crate) async fn step_all<'a>(
        &self,
        by: &Actor,
        rows: impl Iterator<Item = &'a Delivery>,
        event: impl Fn(&Delivery) -> Event,
    ) -> Vec<Result<Delivery, StepError>> {
        let rows: Vec<(&Delivery, Event)> = rows.map(|row| (row, event(row))).collect();
        let mut done = Vec::with_capacity(rows.len());
        for part in rows.chunks(AT_ONCE) {
            let steps: Vec<_> = part.iter().map(|(row, event)| self.step(by, row, event.clone(), Vec::new())).collect();
            done.extend(futures_util::future::join_all(steps).await);
        }
        done
    }

    pub(crate) fn computed(&self, row: &Delivery, event: Event) -> Result<Step, Illegal> {
        let policy = self.config().policy(&row.account, self.clock.chance());
        step(row, event, self.clock.now(), &policy)
    }

    pub(crate) async fn reload(&self, id: DeliveryId) -> Result<Delivery, StepError> {
        let found = self.ledger.load(vec![id]).await.map_err(StepError::Ledger)?;
        found.into_iter().next().ok_or(StepError::Ledger(LedgerError::Conflict))
    }

    pub(crate) async fn content(&self, hash: &ContentHash) -> Result<Arc<Content>, LedgerError> {
        if let Some(content) = lock(&self.contents).get(hash) {
            return Ok(content.clone());
        }
        let found = self.ledger.content(hash.clone()).await?;
        let content = Arc::new(found.ok_or_else(|| LedgerError::Broken(format!("the content {hash} is missing")))?);
        self.remember(hash, content.clone());
        Ok(content)
    }

    fn remember(&self, hash: &ContentHash, content: Arc<Content>) {
        let mut contents = lock(&self.contents);
        if contents.len() >= MOST_CONTENTS {
            contents.pop_first();
        }
        contents.insert(hash.clone(), content);
    }

    /// Deliveries somebody changed: whoever drives them lets go, and the loop takes the new row.
    pub(crate) fn nudge(&self, ids: &[DeliveryId]) {
        let in_hand = lock(&self.in_hand);
        for id in ids {
            if let Some(hand) = in_hand.of.get(id) {
                hand.nudged.cancel();
            }
        }
        drop(in_hand);
        self.woken.notify_one();
    }

    /// The loop takes emergencies at once, whatever else it has in hand.
    pub(crate) fn urge(&self) {
        self.urged.notify_one();
    }

    /// Until when this account, or its platform, has to wait.
    pub(crate) fn pause_of(&self, account: &AccountId, now: Time) -> Option<Time> {
        let pauses = lock(&self.pauses);
        [account.as_str(), account.platform()]
            .iter()
            .filter_map(|k| pauses.get(*k))
            .max()
            .filter(|t| **t > now)
            .copied()
    }

    pub(crate) fn pause(&self, key: &str, until: Time) {
        let mut pauses = lock(&self.pauses);
        let now = self.clock.now();
        pauses.retain(|_, t| *t > now);
        let at = pauses.entry(key.to_owned()).or_insert(until);
        *at = (*at).max(until);
    }

    /// Half of a platform's connections are for preparing.
    pub(crate) fn preparing(&self, platform: &str, connections: u32) -> Arc<Semaphore> {
        let mut all = lock(&self.preparing);
        all.entry(platform.to_owned())
            .or_insert_with(|| Arc::new(Semaphore::new((connections as usize / 2).max(1))))
            .clone()
    }

    /// Looks of one account take turns: two of them must not take one post for two receipts.
    pub(crate) fn looking(&self, account: &AccountId) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = lock(&self.looking);
        // Only those somebody waits for are kept.
        all.retain(|_, m| Arc::strong_count(m) > 1);
        all.entry(account.clone()).or_default().clone()
    }
}

/// Locks a mutex nobody panics under.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error(transparent)]
    Illegal(#[from] Illegal),
    #[error(transparent)]
    Ledger(LedgerError),
}

/// Who drives which delivery.
#[derive(Default)]
struct InHand {
    of: BTreeMap<DeliveryId, Hand>,
    /// Whose platform is known.
    platforms: BTreeMap<DeliveryId, PlatformName>,
    turns: u64,
}

/// One turn at a delivery. It ends when its driver has come back, or when somebody else took the delivery over.
#[derive(Clone)]
pub struct Hand {
    turn: u64,
    nudged: CancellationToken,
}

impl InHand {
    /// Takes a delivery, from whoever has it.
    fn take(&mut self, id: DeliveryId) -> Hand {
        self.turns += 1;
        let hand = Hand { turn: self.turns, nudged: CancellationToken::new() };
        if let Some(before) = self.of.insert(id, hand.clone()) {
            before.nudged.cancel();
        }
        hand
    }

    fn let_go(&mut self, id: DeliveryId, turn: u64) {
        if self.of.get(&id).is_some_and(|hand| hand.turn == turn) {
            self.of.remove(&id);
            self.platforms.remove(&id);
        }
    }

    fn by_platform(&self) -> BTreeMap<PlatformName, usize> {
        let mut count = BTreeMap::new();
        for platform in self.platforms.values() {
            *count.entry(platform.clone()).or_default() += 1;
        }
        count
    }

    /// Those of `rows` that their platforms have room for, and every emergency; the others are let go.
    fn with_room(&mut self, rows: Vec<Delivery>, mut taken: BTreeMap<DeliveryId, Hand>) -> Vec<(Delivery, Hand)> {
        let mut count = self.by_platform();
        let mut kept = Vec::with_capacity(rows.len());
        for row in rows {
            let platform = PlatformName::from(row.account.platform());
            let n = count.entry(platform.clone()).or_default();
            if *n < MOST_OF_PLATFORM || row.priority == Priority::Emergency {
                *n += 1;
                self.platforms.insert(row.id, platform);
                kept.extend(taken.remove(&row.id).map(|hand| (row, hand)));
            }
        }
        for (id, hand) in taken {
            self.let_go(id, hand.turn);
        }
        kept
    }
}

/// Deliveries being driven, each with its turn.
type Driving = JoinSet<Driven>;
type Driven = (DeliveryId, u64, Result<(), tokio::task::JoinError>);

/// The loop: what is due is claimed, driven, and let go.
async fn run(inner: Arc<Inner>) {
    let mut driving: Driving = JoinSet::new();
    let mut seen = 0;
    let mut wait = LONGEST_WAIT;
    let mut is_urged = false;
    loop {
        if inner.stop.is_cancelled() {
            break;
        }
        let has_room = lock(&inner.in_hand).of.len() <= MOST_IN_HAND - WORTH_CLAIMING;
        let has_emergency = std::mem::take(&mut is_urged);
        if has_room || has_emergency {
            if !has_emergency {
                inner.step_aside().await;
            }
            let lead = TimeDelta::from_std(inner.config().settings.publish.lead).unwrap_or(TimeDelta::minutes(1));
            let horizon = inner.clock.now() + lead;
            for (row, hand) in claim(&inner, horizon, has_emergency).await {
                let driven = send::drive(inner.clone(), row.clone(), hand.nudged, None);
                spawn(&mut driving, row.id, hand.turn, driven);
            }
            let next = inner.ledger.next_due(horizon).await.ok().flatten();
            wait = next.map_or(LONGEST_WAIT, |at| {
                (at - lead - inner.clock.now()).to_std().unwrap_or(LOOK_AGAIN).clamp(LOOK_AGAIN, LONGEST_WAIT)
            });
        }
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => break,
            () = inner.urged.notified() => is_urged = true,
            () = inner.woken.notified() => {}
            Some(done) = driving.join_next(), if !driving.is_empty() => {
                finished(&inner, done).await;
                while let Some(done) = driving.try_join_next() {
                    finished(&inner, done).await;
                }
            }
            newest = inner.ledger.newer(seen) => seen = newest,
            () = inner.clock.sleep(wait) => {}
        }
        if has_room && !is_urged {
            tokio::select! {
                biased;
                () = inner.urged.notified() => is_urged = true,
                () = inner.clock.sleep(LOOK_AGAIN) => {}
            }
        }
    }
    // Requests in flight are awaited: each is bounded by its own time-out.
    while let Some(done) = driving.join_next().await {
        finished(&inner, done).await;
    }
}

/// Rows that came due and nobody holds, lead accounts first within an instant.
async fn claim(inner: &Arc<Inner>, horizon: Time, has_emergency: bool) -> Vec<(Delivery, Hand)> {
    let config = inner.config();
    let (held, full): (usize, Vec<String>) = {
        let in_hand = lock(&inner.in_hand);
        let many = in_hand.by_platform();
        // Nothing of routine goes out on the errand of an emergency.
        let is_full =
            |platform: &PlatformName| config.direct || many.get(platform).is_some_and(|n| *n >= MOST_OF_PLATFORM);
        let full = config.settings.platforms.keys().filter(|p| is_full(p));
        (in_hand.of.len(), full.map(ToString::to_string).collect())
    };
    // An emergency is at the head of what is due; then the rest need not be read to find it.
    let most = if has_emergency { MOST_IN_HAND } else { held + MOST_IN_HAND };
    let due = match inner.ledger.due(horizon, most, full).await {
        Ok(due) => due,
        Err(error) => {
            tracing::error!(%error, "the ledger cannot be read");
            return Vec::new();
        }
    };
    let taken: BTreeMap<DeliveryId, Hand> = {
        let mut in_hand = lock(&inner.in_hand);
        let room = MOST_IN_HAND.saturating_sub(in_hand.of.len());
        // Emergencies come first in what is due, and never wait for room.
        let free = due.iter().filter(|d| !in_hand.of.contains_key(&d.id)).enumerate();
        let free = free.filter(|(n, d)| *n < room || d.priority == Priority::Emergency);
        let ids: Vec<DeliveryId> = free.map(|(_, d)| d.id).collect();
        ids.into_iter().map(|id| (id, in_hand.take(id))).collect()
    };
    if taken.is_empty() {
        return Vec::new();
    }
    match inner.ledger.load(taken.keys().copied().collect()).await {
        Ok(mut rows) => {
            let is_lead = |d: &Delivery| config.account(&d.account).is_some_and(|a| a.lead);
            rows.sort_by_key(|d| (d.priority, d.next_at, !is_lead(d), d.id));
            // Read once here; eight hundred tasks that start together would each read it for itself.
            for hash in rows.iter().map(|d| &d.content).collect::<BTreeSet<_>>() {
                if let Err(error) = inner.content(hash).await {
                    tracing::error!(%error, "a content cannot be read");
                }
            }
            let found = rows.len();
            let kept = lock(&inner.in_hand).with_room(rows, taken);
            if kept.len() < found {
                // Behind what was given back there may be others' that have room.
                inner.woken.notify_one();
            }
            kept
        }
        Err(error) => {
            tracing::error!(%error, "the ledger cannot be read");
            let mut in_hand = lock(&inner.in_hand);
            for (id, hand) in taken {
                in_hand.let_go(id, hand.turn);
            }
            Vec::new()
        }
    }
}

/// Drives a delivery that is in hand, in a task of its own, so that a panic costs this delivery only.
fn spawn(driving: &mut Driving, id: DeliveryId, turn: u64, driven: impl Future<Output = ()> + Send + 'static) {
    driving.spawn(async move {
        let mut own = JoinSet::new();
        own.spawn(driven);
        (id, turn, own.join_next().await.unwrap_or(Ok(())))
    });
}

async fn finished(inner: &Arc<Inner>, done: Result<Driven, tokio::task::JoinError>) {
    let Ok((id, turn, result)) = done else { return };
    if result.is_err_and(|e| e.is_panic()) {
        recover::panicked(inner, id).await;
    }
    lock(&inner.in_hand).let_go(id, turn);
}
