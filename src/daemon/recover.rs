//! What is found at start, and what is done with it; and deliveries whose task panicked.
//!
//! Only `sending` needs a hand: its request may have gone out, so it becomes `unknown` and is read
//! back, never sent again on a guess. Every other state simply comes due. A ledger that is new,
//! restored or cut cannot tell what went out, so all that was due by now is doubted.

use std::sync::Arc;

use serde_json::json;

use super::{Inner, lock, settle};
use crate::core::announcement::Priority;
use crate::core::change::{Actor, Change, Note};
use crate::core::delivery::{Delivery, DeliveryId, Event, Failure, State};
use crate::core::words::Words;
use crate::ledger::{Filter, LedgerError, Trust};

/// Emergencies' deliveries that wait for a word at most.
const MOST_WAITING: usize = 100_000;
/// Deliveries a commit of the recovery holds at most.
const AT_ONCE: usize = 1000;

pub async fn recover(inner: &Arc<Inner>, trust: &Trust) -> Result<(), LedgerError> {
    let now = inner.clock.now();
    let gone = || Words::new("进程在发送时中断", "the process ended while it was being sent");
    let sending = inner.ledger.in_state(State::Sending, crate::clock::from_micros(i64::MAX)).await?;
    let found = sending.len();
    write(inner, sending, |_| Event::OwnerGone(gone())).await?;
    if let Trust::Behind { ledger, marker } = trust {
        tracing::error!(
            ledger,
            marker,
            "the ledger knows less than the mark beside it; what was due is looked for first"
        );
        let why = || {
            Words::new(
                "账本比标记旧，先查是否已发",
                "the ledger is older than its mark: looking whether it is out already",
            )
        };
        for state in [State::Scheduled, State::Ready, State::Retrying, State::Held] {
            let due = inner.ledger.in_state(state, now).await?;
            write(inner, due, |_| Event::Doubted(why())).await?;
        }
        let note = Note::change("ledger_behind", "ledger", json!({ "ledger": ledger, "mark": marker }));
        inner.ledger.commit(&Actor::Daemon, vec![note]).await?;
    }
    // What waits for a word goes on being prepared for it.
    let filter = Filter {
        priority: Some(Priority::Emergency),
        states: vec![State::Held],
        max: MOST_WAITING,
        ..Filter::default()
    };
    let mut waiting = inner.ledger.deliveries(filter).await?;
    waiting.retain(|d| d.next_at.is_some_and(|until| until > now));
    if let Some(until) = waiting.iter().filter_map(|d| d.next_at).max() {
        inner.expect(waiting, until);
    }
    let body = json!({ "version": env!("CARGO_PKG_VERSION"), "sending": found });
    inner.ledger.commit(&Actor::Daemon, vec![Note::change("started", "daemon", body)]).await?;
    Ok(())
}

async fn write(inner: &Inner, rows: Vec<Delivery>, event: impl Fn(&Delivery) -> Event) -> Result<(), LedgerError> {
    for part in rows.chunks(AT_ONCE) {
        let steps: Vec<Change> = part
            .iter()
            .filter_map(|d| inner.computed(d, event(d)).ok())
            .map(|step| Change::Step(Box::new(step)))
            .collect();
        if !steps.is_empty() {
            inner.ledger.commit(&Actor::Daemon, steps).await?;
        }
    }
    Ok(())
}

/// A delivery whose task panicked: once sending had begun its fate is unknown; before that it is tried
/// once more, and then set aside with the reason, so that one poisoned input is no loop (R26).
pub async fn panicked(inner: &Arc<Inner>, id: DeliveryId) {
    let count = {
        let mut panics = lock(&inner.panics);
        let count = panics.entry(id).or_insert(0);
        *count += 1;
        *count
    };
    let Ok(row) = inner.reload(id).await else { return };
    tracing::error!(delivery = id.0, account = %row.account, count, "a delivery made its task panic");
    let why = Words::new("处理时内部出错，已搁置", "an internal error while it was handled; it is set aside");
    let event = match row.state {
        State::Sending => Event::OwnerGone(why),
        State::Scheduled | State::Ready | State::Held | State::Retrying if count >= 2 => Event::SetAside(why),
        State::Unknown | State::Accepted => Event::Unseen(why),
        State::Published => Event::NotTakenDown(Failure::NotSent(why)),
        // Prepared again, it fails there if it is the text that does it.
        State::Ready | State::Retrying => {
            Event::Edited { content: row.content.clone(), at: row.at, expires_at: row.expires_at }
        }
        // It is due still.
        _ => return,
    };
    match inner.step(&Actor::Daemon, &row, event, Vec::new()).await {
        Ok(after) => settle::alarm(inner, Some(&after)).await,
        Err(error) => tracing::error!(%error, "it could not be set aside"),
    }
}
