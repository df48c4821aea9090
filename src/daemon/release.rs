//! The instant of release: everything of one slot waits for the same moment, and goes.
//!
//! A delivery is armed — its intent on disk — 250 ms before its slot, so that no disk work lies
//! between the instant and the wire. One waiter a slot sleeps exactly; all others wait for it and
//! wake together. T waits for nobody: what is not ready goes when it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::Inner;
use crate::clock::{Clock, Time};
use crate::core::announcement::OccurrenceId;
use crate::core::change::{Actor, Change, Closing};
use crate::core::delivery::{Delivery, State};

/// Intents are written this long before the slot; late is better than unrecorded, so a slow disk delays.
pub const ARM_AHEAD: TimeDelta = TimeDelta::milliseconds(250);
/// Connections are opened this long before the instant.
pub const WARM_AHEAD: TimeDelta = TimeDelta::seconds(5);

/// The slots somebody waits for.
#[derive(Default)]
pub struct Instants(Mutex<BTreeMap<Time, CancellationToken>>);

impl Instants {
    /// Returns at `slot`, together with all others that wait for it; at once if it has passed.
    pub async fn wait(self: &Arc<Self>, clock: &Clock, slot: Time) {
        if slot <= clock.now() {
            return;
        }
        let token = {
            let mut slots = self.0.lock().expect("nothing panics while it holds the slots");
            slots
                .entry(slot)
                .or_insert_with(|| {
                    let token = CancellationToken::new();
                    tokio::spawn(ring(self.clone(), clock.clone(), slot, token.clone()));
                    token
                })
                .clone()
        };
        token.cancelled().await;
    }
}

async fn ring(instants: Arc<Instants>, clock: Clock, slot: Time, token: CancellationToken) {
    clock.sleep_until(slot).await;
    instants.0.lock().expect("nothing panics while it holds the slots").remove(&slot);
    token.cancel();
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
    pub fn part_of(&self, row: &Delivery) -> Part {
        let counts = matches!(row.state, State::Scheduled | State::Ready);
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
