//! The imperative shell: starts, recovers, runs the loop, stops.
//!
//! One loop serves everything: a delivery whose `next_at` has come is claimed and driven until it
//! rests or is due only later. What must be remembered is on disk before it is acted on, and
//! dropping the `Daemon` stops every task it owns.

pub mod acts;
pub mod alerts;
pub mod answers;
pub mod barrier;
pub mod config;
pub mod emergency;
pub mod hands;
pub mod holds;
pub mod jobs;
pub mod lane;
pub mod memory;
pub mod metrics;
pub mod notify;
pub mod outcome;
pub mod pauses;
mod pictures;
pub mod planner;
pub mod prepare;
pub mod prune;
pub mod queue;
pub mod recover;
pub mod release;
pub mod resolve;
pub mod send;
pub mod settle;
pub mod sole;
pub mod status;
mod steady;
mod stillness;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Mono, Time};
use crate::core::accounts::AccountId;
use crate::core::announcement::{Content, ContentHash, OccurrenceId};
use crate::core::change::{Actor, Change};
use crate::core::delivery::{Delivery, DeliveryId, Event, Illegal, Step, step};
use crate::ledger::{Committed, Condition, Ledger, LedgerError, Trust};
use crate::platform::Http;
use config::{Config, Env};
use hands::InHand;
use memory::{Memory, Reserved};
use pauses::Pauses;
use sole::Sole;

/// From a granted permit to the first byte written, on a busy machine.
const LONGEST_WAY_OUT: Duration = Duration::from_millis(150);
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
    /// When this process began: what was due by then, another one may have sent.
    pub started: Time,
    /// Whether the ledger is the one that was there before.
    pub(crate) trust: Trust,
    /// What is kept of the ledger, by following its commits.
    pub memory: Arc<Memory>,
    instants: Arc<release::Instants>,
    pub pauses: Pauses,
    in_hand: Mutex<InHand>,
    contents: Mutex<BTreeMap<ContentHash, Arc<Content>>>,
    preparing: Mutex<BTreeMap<String, Arc<Semaphore>>>,
    looking: Mutex<BTreeMap<AccountId, Arc<tokio::sync::Mutex<()>>>>,
    /// Whoever acts on an emergency looks at what was said before and then writes: one at a time, or a request
    /// repeated while the first is under way would be taken twice, and a word counted twice or not at all.
    deciding: tokio::sync::Mutex<()>,
    /// What holds kept back is looked at once when they are over, for all of it together.
    reviewing: tokio::sync::Mutex<()>,
    /// A hold of named accounts, and a configuration with other accounts: one at a time, or the one misses the other's.
    naming: tokio::sync::Mutex<()>,
    /// The right to publish the queue folder.
    sole: Mutex<Sole>,
    /// Occurrences of the queue's emergencies whose silence was looked after.
    silenced: Mutex<BTreeSet<OccurrenceId>>,
    /// Readings of the whole queue for those who only look.
    pub looks: Semaphore,
    /// The same of all that is held.
    pub looks_at_held: Semaphore,
    /// Panics by delivery: after two it is set aside (R26).
    panics: Mutex<BTreeMap<DeliveryId, u32>>,
    pub state: Mutex<status::Noted>,
    /// Something may have come due sooner than the loop thinks.
    woken: Notify,
    /// Requests whose permit was granted and that have no answer yet.
    pub(crate) passing: AtomicUsize,
    /// The wall clock and the one that does not step, when they were last compared: what is decided by a wall clock that was
    /// stepped since waits until that has been noticed.
    pub(crate) compared: Mutex<(Time, Mono)>,
    /// Deliveries whose permit was granted and whose outcome is not on disk.
    pub(crate) under_way: Mutex<BTreeSet<DeliveryId>>,
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
        let (now, mono) = (world.clock.now(), world.clock.mono());
        let trust = recover::trusted(&*world.ledger, world.trust).await?;
        let memory = Memory::new(world.clock.clone(), world.ledger.snapshot().await?);
        world.ledger.follow(memory.clone());
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
            started: now,
            trust: trust.clone(),
            memory,
            instants: Arc::default(),
            pauses: Pauses::default(),
            in_hand: Mutex::default(),
            contents: Mutex::default(),
            preparing: Mutex::default(),
            looking: Mutex::default(),
            deciding: tokio::sync::Mutex::default(),
            reviewing: tokio::sync::Mutex::default(),
            naming: tokio::sync::Mutex::default(),
            sole: Mutex::default(),
            silenced: Mutex::default(),
            looks: Semaphore::new(1),
            looks_at_held: Semaphore::new(1),
            panics: Mutex::default(),
            state: Mutex::new(status::Noted::new(now, world.faults)),
            woken: Notify::new(),
            passing: AtomicUsize::new(0),
            compared: Mutex::new((now, mono)),
            under_way: Mutex::default(),
            urged: Notify::new(),
            way,
            rescan: Notify::new(),
            rescanned: tokio::sync::watch::Sender::new(0),
            stop: CancellationToken::new(),
        });
        // What is found at the start is told too, and what the last run did not come to tell.
        let told_to = notify::told_to(&inner).await?;
        inner.hold_what_is_named(&inner.config()).await?;
        recover::recover(&inner, &trust).await?;
        let mut tasks = JoinSet::new();
        if !inner.config().direct {
            let mut planner = planner::Planner::new(inner.clone());
            planner.scan(true).await;
            tasks.spawn(planner.run());
        }
        tasks.spawn(hands::run(inner.clone()));
        tasks.spawn(lane::run(inner.clone(), launched));
        tasks.spawn(holds::run(inner.clone()));
        tasks.spawn(notify::run(inner.clone(), told_to));
        tasks.spawn(recover::watch_the_clock(inner.clone()));
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

    /// One more part of it, which ends when it is stopped.
    pub fn with(&mut self, part: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(part);
    }

    /// Returns when a part of it has panicked, or nobody writes its ledger any more: the rest would go on and answer as
    /// if nothing were, so the process is to end and be started again.
    pub async fn fallen_apart(&mut self) {
        loop {
            if self.inner.ledger.condition() == Condition::Stopped {
                return;
            }
            tokio::select! {
                Some(done) = self.tasks.join_next() => if done.is_err() { return },
                () = self.inner.clock.sleep(Duration::from_secs(1)) => {}
            }
        }
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
        self.http.limit(&config.connections());
        let before = self.config();
        let is_as_before = |account: &AccountId| {
            let (old, new) = (before.account(account), config.account(account));
            let site = |config: &config::Config| config.settings_of(account).map(|s| s.site().to_owned());
            old.zip(new).is_some_and(|(old, new)| old.is_known_as(new)) && site(&before) == site(&config)
        };
        // New secrets may be good where the old ones were not, or be another account's; and a person may have mended one.
        self.memory.forget_credentials(|account, is_bad| is_bad || !is_as_before(account));
        *self.config.write().expect("nothing panics while it holds the configuration") = Arc::new(config);
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

    /// Commits, and wakes whoever drives a delivery that was changed by it.
    pub(crate) async fn commit(&self, by: &Actor, changes: Vec<Change>) -> Result<Committed, LedgerError> {
        self.commit_own(by, changes, &[]).await
    }

    /// The same for whoever drives some of those deliveries: these are not taken away from them.
    pub(crate) async fn commit_own(
        &self,
        by: &Actor,
        changes: Vec<Change>,
        own: &[DeliveryId],
    ) -> Result<Committed, LedgerError> {
        let committed = self.ledger.commit(by, changes).await?;
        self.metrics.missed(committed.expired());
        let others = committed.stepped().map(|row| row.id).filter(|id| !own.contains(id));
        self.wake(&others.collect::<Vec<_>>());
        Ok(committed)
    }

    /// Commits calls that are about to be made.
    pub(crate) async fn count(&self, calls: Reserved) -> Result<(), LedgerError> {
        let changes: Vec<Change> = calls.changes().collect();
        if !changes.is_empty() {
            self.ledger.commit(&Actor::Daemon, changes).await?;
        }
        Ok(())
    }

    /// Steps a delivery and writes it, with what it means for other posts of its account and whatever belongs to the same
    /// moment. When another change came first that is a conflict: the event was decided on the row as it was.
    pub(crate) async fn step(
        &self,
        by: &Actor,
        row: &Delivery,
        event: Event,
        with: Vec<Change>,
    ) -> Result<Delivery, StepError> {
        let mut changes = outcome::followed(self, row, self.computed(row, event)?).await.map_err(StepError::Ledger)?;
        changes.extend(with);
        let committed = self.commit_own(by, changes, &[row.id]).await.map_err(StepError::Ledger)?;
        let after = committed.into_first().expect("a commit gives back what it wrote");
        outcome::told(self, row, &after);
        Ok(after)
    }

    /// It publishes the queue folder for as long as it keeps this.
    pub fn publishes_alone(&self, sole: Sole) {
        *lock(&self.sole) = sole;
    }

    /// Steps many rows, each by itself and all at once: the ledger gathers what waits into few commits. Where another
    /// change came first, the row is read again, with the content it has by then, and decided on again; `None` of the
    /// decision leaves it alone.
    pub(crate) async fn step_all(
        &self,
        by: &Actor,
        rows: &[Delivery],
        decide: impl Fn(&Delivery, &Content) -> Option<Event>,
    ) -> Vec<Result<Delivery, StepError>> {
        let contents = match self.contents_of(rows).await {
            Ok(contents) => contents,
            Err(error) => return vec![Err(StepError::Ledger(error))],
        };
        let one = async |row: &Delivery| {
            let mut row = row.clone();
            loop {
                let content = match contents.get(&row.content) {
                    Some(content) => content.clone(),
                    None => match self.content(&row.content).await {
                        Ok(content) => content,
                        Err(error) => return Some(Err(StepError::Ledger(error))),
                    },
                };
                let event = decide(&row, &content)?;
                match self.step(by, &row, event, Vec::new()).await {
                    Err(StepError::Ledger(LedgerError::Conflict)) => match self.reload(row.id).await {
                        Ok(found) => row = found,
                        Err(error) => return Some(Err(error)),
                    },
                    done => return Some(done),
                }
            }
        };
        let mut done = Vec::with_capacity(rows.len());
        for part in rows.chunks(AT_ONCE) {
            done.extend(futures_util::future::join_all(part.iter().map(one)).await.into_iter().flatten());
        }
        let changed: Vec<DeliveryId> = done.iter().flatten().map(|row| row.id).collect();
        self.wake(&changed);
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
    fn wake(&self, ids: &[DeliveryId]) {
        if ids.is_empty() {
            return;
        }
        let in_hand = lock(&self.in_hand);
        for id in ids {
            if let Some(hand) = in_hand.of.get(id) {
                hand.nudged.cancel();
            }
        }
        drop(in_hand);
        self.woken.notify_one();
    }

    /// Waits until requests whose permit was granted a moment ago have reached the wire, as their answers prove; a
    /// platform that does not answer is not waited for. What is committed before is then obeyed by everything.
    pub(crate) async fn quiet(&self) {
        let end = self.clock.mono().0 + LONGEST_WAY_OUT;
        while self.passing.load(Ordering::SeqCst) > 0 && self.clock.mono().0 < end {
            self.clock.sleep(Duration::from_millis(2)).await;
        }
    }

    /// How far the wall clock was stepped since it was last compared.
    pub(crate) fn jump(&self) -> TimeDelta {
        let jump = steady::stepped(*lock(&self.compared), (self.clock.now(), self.clock.mono()));
        if jump.abs() > steady::SLACK { jump } else { TimeDelta::zero() }
    }

    /// The loop takes emergencies at once, whatever else it has in hand.
    pub(crate) fn urge(&self) {
        self.urged.notify_one();
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
