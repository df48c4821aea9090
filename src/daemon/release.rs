//! The instant of release: everything of one slot waits for the same moment, and goes.
//!
//! A delivery is armed — its intent on disk — 250 ms before its slot, so that no disk work lies
//! between the instant and the wire. One waiter a slot sleeps exactly; all others wait for it and
//! wake together. T waits for nobody: what is not ready goes when it is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Inner;
use crate::clock::{Clock, Time};
use crate::core::announcement::OccurrenceId;
use crate::core::change::{Actor, Change, Closing};
use crate::core::delivery::{Delivery, State};

/// Intents are written this long before the slot; late is better than unrecorded, so a slow disk delays.
pub const ARM_AHEAD: TimeDelta = TimeDelta::milliseconds(250);
/// Receipts wait for the end of their burst at most this long.
const LONGEST_BURST: Duration = Duration::from_millis(100);
/// Connections are opened this long before the instant.
pub const WARM_AHEAD: TimeDelta = TimeDelta::seconds(5);

/// The slots somebody waits for.
#[derive(Default)]
pub struct Instants(Mutex<BTreeMap<Time, Arc<Slot>>>);

/// One instant and those who go at it.
#[derive(Default)]
pub struct Slot {
    rung: CancellationToken,
    /// Requests of this instant that have not begun yet.
    before: AtomicUsize,
    over: Notify,
}

impl Instants {
    /// Joins those who wait for `slot`.
    pub fn join(self: &Arc<Self>, clock: &Clock, slot: Time) -> Arc<Slot> {
        if slot <= clock.now() {
            // It has come: nobody waits, and nobody else joins.
            let come = Slot { before: AtomicUsize::new(1), ..Slot::default() };
            come.rung.cancel();
            return Arc::new(come);
        }
        let mut slots = self.0.lock().expect("nothing panics while it holds the slots");
        let joined = slots.entry(slot).or_insert_with(|| {
            let made = Arc::new(Slot::default());
            tokio::spawn(ring(self.clone(), clock.clone(), slot, made.clone()));
            made
        });
        joined.before.fetch_add(1, Ordering::SeqCst);
        joined.clone()
    }
}

impl Slot {
    /// Returns at the instant, together with all others that joined.
    pub async fn wait(&self) {
        self.rung.cancelled().await;
    }

    /// This one's request is on its way, or never will be.
    pub fn began(&self) {
        if self.before.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.over.notify_waiters();
        }
    }

    /// Returns when every request of the instant is on its way: receipts are written after the burst and not
    /// into it, or writing the first would delay sending the last. Bounded, so that nothing waits for a straggler.
    pub async fn over(&self, clock: &Clock) {
        let over = self.over.notified();
        if self.before.load(Ordering::SeqCst) > 0 {
            clock.timeout(LONGEST_BURST, over).await;
        }
    }
}

async fn ring(instants: Arc<Instants>, clock: Clock, slot: Time, made: Arc<Slot>) {
    clock.sleep_until(slot).await;
    instants.0.lock().expect("nothing panics while it holds the slots").remove(&slot);
    made.rung.cancel();
}

/// What is measured of one release while it goes out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub first: Option<Time>,
    pub last: Option<Time>,
    pub sent: u32,
    pub late: u32,
    /// Deliveries of it that are in hand.
    pub in_hand: u32,
}

/// Figures of the releases under way.
#[derive(Default)]
pub struct Releases(Mutex<BTreeMap<OccurrenceId, Figures>>);

impl Releases {
    /// Counts a delivery that is still to be sent as part of its release.
    pub fn part_of(&self, row: &Delivery, is_leaving: bool) -> Part {
        let counts = matches!(row.state, State::Scheduled | State::Ready) || is_leaving;
        if counts {
            let mut all = self.0.lock().expect("nothing panics while it holds the figures");
            all.entry(row.occurrence.clone()).or_default().in_hand += 1;
        }
        Part(counts)
    }

    /// A request of this release began; a first attempt beyond `grace` counts as late.
    pub fn began(&self, id: &OccurrenceId, at: Time, late: bool) {
        let mut all = self.0.lock().expect("nothing panics while it holds the figures");
        let figures = all.entry(id.clone()).or_default();
        figures.sent += 1;
        if late {
            figures.late += 1;
            return;
        }
        figures.first = Some(figures.first.map_or(at, |f| f.min(at)));
        figures.last = Some(figures.last.map_or(at, |l| l.max(at)));
    }

    /// Lets one go; the figures, when it was the last in hand.
    fn let_go(&self, id: &OccurrenceId) -> Option<Figures> {
        let mut all = self.0.lock().expect("nothing panics while it holds the figures");
        let figures = all.get_mut(id)?;
        figures.in_hand = figures.in_hand.saturating_sub(1);
        if figures.in_hand > 0 { None } else { all.remove(id) }
    }
}

/// Whether a delivery still counts as one its release waits for.
pub struct Part(bool);

/// A delivery was sent, ended or is late: the last one to leave writes its release's closing figures.
pub async fn left(inner: &Inner, part: &mut Part, id: &OccurrenceId, at: Time) {
    if !std::mem::take(&mut part.0) {
        return;
    }
    let Some(figures) = inner.releases.let_go(id) else { return };
    let (Some(first), Some(last)) = (figures.first, figures.last) else { return };
    let ms = |span: TimeDelta| span.num_microseconds().unwrap_or(0) as f64 / 1000.0;
    let closing = Closing {
        lateness_ms: ms(first - at),
        skew_ms: ms(last - first),
        sent: figures.sent,
        on_time: figures.sent - figures.late,
        late: figures.late,
        closed_at: inner.clock.now(),
    };
    inner.metrics.released(&closing);
    tracing::info!(
        occurrence = %id, sent = closing.sent, late = closing.late, lateness_ms = closing.lateness_ms,
        skew_ms = closing.skew_ms, "released"
    );
    if let Err(error) = inner.ledger.commit(&Actor::Daemon, vec![Change::Closed(id.clone(), closing)]).await {
        tracing::warn!(%error, occurrence = %id, "the closing figures were not written");
    }
}
