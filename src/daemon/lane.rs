//! The emergency's own way out.
//!
//! Its first intents are part of the commit that takes it, so that between the acknowledgement and the wire lies
//! nothing but the sending. A few connections a platform are open before it, and as many as it needs while a second
//! person's word is awaited. And routine steps aside at its next request until the last one of it is on its way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::hands::{Driving, Hand, finished};
use super::memory::Reserved;
use super::pauses::What;
use super::prepare::{self, Means, use_of};
use super::{Inner, lock, send};
use crate::clock::Time;
use crate::core::accounts::PlatformName;
use crate::core::announcement::Content;
use crate::core::change::{Actor, Change};
use crate::core::delivery::{Delivery, DeliveryId, Event, Step};
use crate::core::policy::PlatformSettings;
use crate::ledger::{Committed, LedgerError};
use crate::platform::Lane;

/// Routine steps aside no longer than this, whatever keeps an emergency from leaving.
const ASIDE: Duration = Duration::from_secs(1);
/// A `HEAD` that keeps a connection open is no reason to wait.
const WARM_WITHIN: Duration = Duration::from_secs(4);
/// The keeper looks at the configuration at least this often.
const LOOK: Duration = Duration::from_secs(60);

/// What the emergency lane needs to know.
pub struct Way {
    /// Requests of emergencies that are on disk as intents and not on the wire yet.
    leaving: AtomicUsize,
    clear: Notify,
    /// How many connections a platform needs for what waits for a person's word, and until when.
    wanted: Mutex<BTreeMap<PlatformName, (u32, Time)>>,
    awaited: Notify,
    errands: mpsc::UnboundedSender<Vec<Errand>>,
}

/// What the lane does for an emergency.
#[expect(clippy::large_enum_variant, reason = "those to be sent are nearly all of them, and in a hurry")]
pub enum Errand {
    Send(Launch),
    /// It waits for a word; what can be asked of its platform before is.
    Prepare(Box<Delivery>),
}

/// A delivery whose intent is on disk, and the place it has in front of routine.
pub struct Launch {
    row: Delivery,
    hand: Hand,
    leaving: Leaving,
}

/// Routine steps aside while one of these is there.
pub struct Leaving(Arc<Inner>);

impl Drop for Leaving {
    fn drop(&mut self) {
        if self.0.way.leaving.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.way.clear.notify_waiters();
        }
    }
}

pub type Errands = mpsc::UnboundedReceiver<Vec<Errand>>;

impl Way {
    pub fn new() -> (Way, Errands) {
        let (errands, asked) = mpsc::unbounded_channel();
        let way = Way {
            leaving: AtomicUsize::new(0),
            clear: Notify::new(),
            wanted: Mutex::default(),
            awaited: Notify::new(),
            errands,
        };
        (way, asked)
    }

    pub fn is_busy(&self) -> bool {
        self.leaving.load(Ordering::SeqCst) > 0
    }
}

impl Inner {
    /// A place in front of routine, for as long as it is kept.
    pub fn leaving(self: &Arc<Self>) -> Leaving {
        self.way.leaving.fetch_add(1, Ordering::SeqCst);
        Leaving(self.clone())
    }

    /// Returns when no emergency is about to leave, or has been for too long.
    pub(super) async fn step_aside(&self) {
        let clear = async {
            loop {
                let changed = self.way.clear.notified();
                if !self.way.is_busy() {
                    return;
                }
                changed.await;
            }
        };
        if self.way.is_busy() {
            self.clock.timeout(ASIDE, clear).await;
        }
    }

    /// What can be prepared from its words alone is, without asking a platform for anything.
    pub(super) fn prepare_at_once(&self, row: &mut Delivery, content: &Content) -> Option<Means> {
        let means = Means::of(self, row).ok()?;
        if !content.body.images.is_empty() || means.platform.calls_to_prepare(0) > 0 {
            return None;
        }
        let post = prepare::post(self, row, content).ok()?;
        let prepared = means.prepare(self, row, &post).now_or_never()?.ok()?;
        row.prepared = Some(Arc::new(prepared));
        Some(means)
    }

    /// The intent of an emergency that can go this moment; what cannot — no budget, a pause, pictures to upload — is
    /// left to go the way of all others. The calls it costs are reserved until its commit is over.
    pub(super) fn intent(
        &self,
        row: &Delivery,
        means: &Means,
        now: Time,
        reserved: &mut Vec<Reserved>,
    ) -> Option<Step> {
        if self.pauses.left(&row.account, What::Post.of(row), self.clock.mono()).is_some() {
            return None;
        }
        let reserve = self.config().settings.emergency.reserve;
        let settings = means.platform.settings();
        let calls = self.memory.reserve(settings, &row.account, use_of(row), true, reserve, now).ok()?;
        let baseline = self.memory.newest(&row.account);
        let step = self.computed(row, Event::Armed { slot: now, baseline }).ok()?;
        reserved.push(calls);
        Some(step)
    }

    /// Marks rows as somebody's before the ledger has them as `sending`: nobody else takes them up.
    fn take_in_hand(self: &Arc<Self>, rows: Vec<Delivery>) -> Vec<Launch> {
        let mut in_hand = lock(&self.in_hand);
        let launch = |row: Delivery| Launch { hand: in_hand.take(row.id), leaving: self.leaving(), row };
        rows.into_iter().map(launch).collect()
    }

    /// Commits intents with all that belongs to them; they are to be launched, or were not written.
    pub(super) async fn commit_armed(
        self: &Arc<Self>,
        by: &Actor,
        mut changes: Vec<Change>,
        armed: Vec<Delivery>,
        reserved: Vec<Reserved>,
    ) -> Result<(Committed, Vec<Launch>), LedgerError> {
        changes.extend(reserved.iter().flat_map(Reserved::changes));
        let own: Vec<DeliveryId> = armed.iter().map(|row| row.id).collect();
        let launches = self.take_in_hand(armed);
        match self.commit_own(by, changes, &own).await {
            Ok(committed) => Ok((committed, launches)),
            Err(error) => {
                self.let_go(&launches);
                Err(error)
            }
        }
    }

    fn let_go(&self, launches: &[Launch]) {
        let mut in_hand = lock(&self.in_hand);
        for launch in launches {
            in_hand.let_go(launch.row.id, launch.hand.turn);
        }
        drop(in_hand);
        self.woken.notify_one();
    }

    /// Their intents are on disk: they go now, lead accounts first.
    pub(super) fn launch(&self, mut launches: Vec<Launch>) {
        let config = self.config();
        let is_lead = |d: &Delivery| config.account(&d.account).is_some_and(|a| a.lead);
        launches.sort_by_cached_key(|l| (!is_lead(&l.row), l.row.id));
        // Without a receiver the daemon has stopped, and looks for them when it starts again.
        drop(self.way.errands.send(launches.into_iter().map(Errand::Send).collect()));
    }

    /// An emergency waits for a person's word: the connections it will need are opened meanwhile, its pictures and
    /// drafts uploaded.
    pub(super) fn expect(&self, rows: Vec<Delivery>, until: Time) {
        let mut wanted = lock(&self.way.wanted);
        let mut by_platform: BTreeMap<PlatformName, u32> = BTreeMap::new();
        for row in &rows {
            *by_platform.entry(row.account.platform().into()).or_default() += 1;
        }
        for (platform, n) in by_platform {
            let entry = wanted.entry(platform).or_insert((n, until));
            *entry = (entry.0.max(n), entry.1.max(until));
        }
        drop(wanted);
        let unprepared = rows.into_iter().filter(|row| row.prepared.is_none() || row.doubted.is_some());
        let errands: Vec<Errand> = unprepared.map(|row| Errand::Prepare(Box::new(row))).collect();
        if !errands.is_empty() {
            // Without a receiver the daemon has stopped; after its start they are found waiting.
            drop(self.way.errands.send(errands));
        }
        self.way.awaited.notify_one();
    }
}

/// Sends what was armed with its emergency's own commit, and prepares what waits for a word.
pub(super) async fn run(inner: Arc<Inner>, mut asked: Errands) {
    let mut driving = Driving::default();
    let mut preparing: JoinSet<()> = JoinSet::new();
    let start = |driving: &mut Driving, preparing: &mut JoinSet<()>, errands: Vec<Errand>| {
        for errand in errands {
            match errand {
                Errand::Send(Launch { row, hand, leaving }) => {
                    let id = row.id;
                    driving.spawn(id, hand.turn, send::drive(inner.clone(), row, hand.nudged, Some(leaving)));
                }
                Errand::Prepare(row) => drop(preparing.spawn(prepare::meanwhile(inner.clone(), row))),
            }
        }
    };
    loop {
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => break,
            Some(errands) = asked.recv() => start(&mut driving, &mut preparing, errands),
            Some(done) = driving.next(), if !driving.is_empty() => finished(&inner, done).await,
            Some(_) = preparing.join_next(), if !preparing.is_empty() => {}
        }
    }
    preparing.abort_all();
    // Not sent any more, and that is written down: after the start they are due at once.
    asked.close();
    while let Some(errands) = asked.recv().await {
        let sends = errands.into_iter().filter(|errand| matches!(errand, Errand::Send(_))).collect();
        start(&mut driving, &mut preparing, sends);
    }
    while let Some(done) = driving.next().await {
        finished(&inner, done).await;
    }
}

/// A `HEAD` without a token: it opens a connection, and says nothing to anybody.
pub(super) fn head(settings: &PlatformSettings) -> http::Request<Bytes> {
    http::Request::head(&settings.base_url).body(Bytes::new()).expect("the address was tried when read")
}

/// Keeps the lane's connections open until the daemon stops.
pub async fn keep_warm(inner: Arc<Inner>) {
    let mut last: BTreeMap<PlatformName, (u32, Time)> = BTreeMap::new();
    loop {
        let (config, now) = (inner.config(), inner.clock.now());
        let mut next = now + LOOK;
        let mut open = Vec::new();
        for settings in config.settings.platforms.values().filter(|s| is_used(&config, s)) {
            let expected = lock(&inner.way.wanted).get(&settings.name).filter(|(_, until)| now < *until).map(|w| w.0);
            let most = settings.limits.connections;
            let connections = settings.warm.connections.max(expected.unwrap_or(0)).min(most);
            let due = match last.get(&settings.name) {
                // A clock that was stepped back is no reason to let them close.
                Some((had, at)) if *had >= connections && *at <= now => *at + settings.warm.every,
                _ => now,
            };
            if connections > 0 && due <= now {
                last.insert(settings.name.clone(), (connections, now));
                open.push(warm(&inner, settings, connections));
            }
            next = next.min(if due <= now { now + settings.warm.every } else { due });
        }
        futures_util::future::join_all(open).await;
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = inner.way.awaited.notified() => {}
            () = inner.clock.sleep((next - inner.clock.now()).to_std().unwrap_or_default()) => {}
        }
    }
}

fn is_used(config: &super::config::Config, settings: &PlatformSettings) -> bool {
    config.city.accounts.keys().any(|a| a.platform() == settings.name.as_str())
}

/// Uses as many connections at once, so that as many are there.
async fn warm(inner: &Inner, settings: &PlatformSettings, connections: u32) {
    let reserve = inner.config().settings.emergency.reserve;
    let (connections, calls) = inner.memory.reserve_warm(settings, connections, reserve, inner.clock.now());
    if let Err(error) = inner.count(calls).await {
        tracing::warn!(%error, platform = %settings.name, "no connection is warmed: the ledger does not count it");
        return;
    }
    let platform = settings.name.as_str();
    let mut asking = Vec::new();
    for _ in 0..connections {
        let mut one = inner.http.send(platform, Lane::Emergency, head(settings), WARM_WITHIN);
        // Asked, and not listened to before all have asked: one that is answered would serve the next as well.
        match std::future::poll_fn(|context| Poll::Ready(one.as_mut().poll(context))).await {
            Poll::Ready(answer) => inner.metrics.request(platform, "warm", outcome(answer.is_ok())),
            Poll::Pending => asking.push(one),
        }
    }
    for answer in futures_util::future::join_all(asking).await {
        inner.metrics.request(platform, "warm", outcome(answer.is_ok()));
    }
}

fn outcome(is_answered: bool) -> &'static str {
    if is_answered { "ok" } else { "not_sent" }
}
