//! What is in hand: which deliveries are driven now, and the loop that takes up what is due.
//!
//! So many at once and no more, so many of one platform, emergencies before all others and beyond every bound.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Inner, lock, recover, send};
use crate::clock::Time;
use crate::core::accounts::PlatformName;
use crate::core::announcement::Priority;
use crate::core::delivery::{Delivery, DeliveryId};

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

/// Who drives which delivery.
#[derive(Default)]
pub struct InHand {
    pub(super) of: BTreeMap<DeliveryId, Hand>,
    /// Whose platform is known.
    platforms: BTreeMap<DeliveryId, PlatformName>,
    turns: u64,
}

/// One turn at a delivery. It ends when its driver has come back, or when somebody else took the delivery over.
#[derive(Clone)]
pub struct Hand {
    pub(super) turn: u64,
    pub(super) nudged: CancellationToken,
}

impl InHand {
    /// Takes a delivery, from whoever has it.
    pub(super) fn take(&mut self, id: DeliveryId) -> Hand {
        self.turns += 1;
        let hand = Hand { turn: self.turns, nudged: CancellationToken::new() };
        if let Some(before) = self.of.insert(id, hand.clone()) {
            before.nudged.cancel();
        }
        hand
    }

    pub(super) fn let_go(&mut self, id: DeliveryId, turn: u64) {
        if self.of.get(&id).is_some_and(|hand| hand.turn == turn) {
            self.of.remove(&id);
            self.platforms.remove(&id);
        }
    }

    fn by_platform(&self) -> BTreeMap<PlatformName, usize> {
        let mut count = BTreeMap::new();
        for platform in self.platforms.values() {
            match count.get_mut(platform) {
                Some(n) => *n += 1,
                None => drop(count.insert(platform.clone(), 1)),
            }
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

/// Deliveries being driven, each in a task of its own, so that a panic costs this delivery only.
#[derive(Default)]
pub(super) struct Driving {
    tasks: JoinSet<()>,
    whose: HashMap<tokio::task::Id, (DeliveryId, u64)>,
}

/// A delivery that is driven no longer.
pub(super) struct Driven {
    id: DeliveryId,
    turn: u64,
    has_panicked: bool,
}

impl Driving {
    pub(super) fn spawn(&mut self, id: DeliveryId, turn: u64, driven: impl Future<Output = ()> + Send + 'static) {
        // Boxed: a task's future is moved several times before it runs.
        let task = self.tasks.spawn(Box::pin(driven)).id();
        self.whose.insert(task, (id, turn));
    }

    /// The next that has ended; `None` when there are none.
    pub(super) async fn next(&mut self) -> Option<Driven> {
        let ended = self.tasks.join_next_with_id().await?;
        Some(self.named(ended))
    }

    fn next_now(&mut self) -> Option<Driven> {
        let ended = self.tasks.try_join_next_with_id()?;
        Some(self.named(ended))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    fn named(&mut self, ended: Result<(tokio::task::Id, ()), JoinError>) -> Driven {
        let (task, has_panicked) = match ended {
            Ok((task, ())) => (task, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let (id, turn) = self.whose.remove(&task).expect("each task was put down with its delivery");
        Driven { id, turn, has_panicked }
    }
}

/// The loop: what is due is claimed, driven, and let go.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut driving = Driving::default();
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
                driving.spawn(row.id, hand.turn, send::drive(inner.clone(), row, hand.nudged, None));
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
            Some(done) = driving.next(), if !driving.is_empty() => {
                finished(&inner, done).await;
                while let Some(done) = driving.next_now() {
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
    while let Some(done) = driving.next().await {
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

pub(super) async fn finished(inner: &Arc<Inner>, Driven { id, turn, has_panicked }: Driven) {
    if has_panicked {
        recover::panicked(inner, id).await;
    }
    lock(&inner.in_hand).let_go(id, turn);
}
