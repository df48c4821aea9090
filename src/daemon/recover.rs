//! Recovery: deliveries found at a start, a wall clock that is stepped, deliveries whose task panicked.
//!
//! A row that is `sending` may have had its request: it becomes `unknown` and is read back, never sent again on a guess.
//! And what was due before this process began, another one may have sent that this ledger does not know of: the ledger
//! may be a copy of yesterday's. So it is looked for once before it is sent. If the ledger is known to be older than
//! it was, another process may have been sending a moment ago, and absence is believed only after the settling time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;

use super::acts::ActError;
use super::outcome::followed;
use super::{Inner, StepError, lock};
use crate::clock::Time;
use crate::core::accounts::AccountId;
use crate::core::announcement::{Content, Priority, Timing};
use crate::core::change::{Actor, Change, Note, Withdrawal};
use crate::core::delivery::{Cause, Delivery, DeliveryId, Event, Failure, State};
use crate::core::words::Words;
use crate::ledger::{Filter, Ledger, LedgerError, Trust};

/// Deliveries a commit of the recovery holds at most.
const AT_ONCE: usize = 1000;

/// Under this name the ledger keeps that it is new, or older than it was, until all that was there at a start is doubted.
const BEHIND: &str = "behind";

/// Whether the ledger is the one that was there before: what a start before this one found out, and did not come to act
/// upon, is so still. It is written before anything else, since the mark beside the ledger follows its commits.
pub async fn trusted(ledger: &dyn Ledger, found: Trust) -> Result<Trust, LedgerError> {
    let kept = ledger.meta(BEHIND).await?;
    let numbers = |kept: &str| -> Option<(i64, i64)> {
        let (ledger, marker) = kept.split_once(' ')?;
        Some((ledger.parse().ok()?, marker.parse().ok()?))
    };
    let (trust, value) = match (found, kept.as_deref()) {
        (Trust::Behind { ledger, marker }, _) => (Trust::Behind { ledger, marker }, format!("{ledger} {marker}")),
        (Trust::New, _) | (Trust::Whole, Some("new")) => (Trust::New, "new".to_owned()),
        (Trust::Whole, kept) => match kept.and_then(numbers) {
            Some((ledger, marker)) => return Ok(Trust::Behind { ledger, marker }),
            None => return Ok(Trust::Whole),
        },
    };
    if kept.as_ref() != Some(&value) {
        let change = Change::Meta { key: BEHIND.to_owned(), value: Some(value) };
        ledger.commit(&Actor::Daemon, vec![change]).await?;
    }
    Ok(trust)
}

/// All that was there at this start has its doubt on disk: from now on the ledger knows what it knows.
pub async fn note_caught_up(inner: &Inner) -> Result<(), LedgerError> {
    if inner.trust == Trust::Whole || inner.ledger.meta(BEHIND).await?.is_none() {
        return Ok(());
    }
    inner.ledger.commit(&Actor::Daemon, vec![Change::Meta { key: BEHIND.to_owned(), value: None }]).await.map(drop)
}

pub async fn recover(inner: &Arc<Inner>, trust: &Trust) -> Result<(), LedgerError> {
    let now = inner.started;
    let sending = inner.ledger.in_state(State::Sending, crate::clock::from_micros(i64::MAX)).await?;
    let found = sending.len();
    write(inner, sending, |row| {
        let why = Words::new("进程在发送时中断", "the process ended while it was being sent");
        // The platform may be at work on its request as long as it would have had to answer.
        let left = inner.config().settings_of(&row.account).map_or(Duration::ZERO, |s| s.timeout);
        Event::OwnerGone { why, left }
    })
    .await?;
    let is_whole = !matches!(trust, Trust::Behind { .. });
    if let Trust::Behind { ledger, marker } = trust {
        tracing::error!(
            ledger,
            marker,
            "the ledger knows less than the mark beside it; what was due is looked for first"
        );
        let note = Note::change("ledger_behind", "ledger", json!({ "ledger": ledger, "mark": marker }));
        inner.ledger.commit(&Actor::Daemon, vec![note]).await?;
    }
    let why = || match is_whole {
        true => Words::new(
            "启动前已到时刻，先查是否已发",
            "it came due before this start: looking whether it is out already",
        ),
        false => Words::new(
            "账本比标记旧，先查是否已发",
            "the ledger is older than its mark: looking whether it is out already",
        ),
    };
    let mut due = inner.ledger.overdue(now).await?;
    if !is_whole {
        // Nor does it know what became of emergencies since: of those in doubt, and of those whose hour is to come.
        let mut emergencies = inner.ledger.emergencies_waiting().await?;
        emergencies.retain(|d| d.state != State::Held && d.at > now);
        let in_doubt = inner.ledger.in_state(State::Unknown, crate::clock::from_micros(i64::MAX)).await?;
        emergencies.extend(in_doubt.into_iter().filter(|d| d.priority == Priority::Emergency));
        due.extend(emergencies);
    }
    due.retain(|_| !crate::planted("start_without_doubt"));
    write(inner, due, |_| Event::Doubted { why: why(), one_look: is_whole }).await?;
    // An emergency over the socket was asked for before now, whatever the clock shows: it was put back meanwhile.
    let mut ahead = inner.ledger.emergencies_waiting().await?;
    ahead.retain(|d| d.at > now);
    let contents = inner.contents_of(&ahead).await?;
    ahead.retain(|d| contents[&d.content].body.timing == Timing::Now);
    write(inner, ahead, |d| Event::ClockStepped { by: now - d.at, is_at_once: true }).await?;
    holds_over(inner, is_whole).await?;
    // Later words are decided on anew: what they waited for may have ended with the last process.
    let held =
        Filter { states: vec![State::Held], priority: Some(Priority::Emergency), max: 100_000, ..Filter::default() };
    let undecided = inner.ledger.deliveries(held).await?.into_iter().filter(|d| d.cause == Some(Cause::Undecided));
    let accounts: BTreeSet<AccountId> = undecided.map(|d| d.account).collect();
    if !accounts.is_empty() {
        inner.commit(&Actor::Daemon, accounts.into_iter().map(Change::Decide).collect()).await?;
    }
    // What waits for a word goes on being prepared for it.
    let mut waiting = inner.ledger.emergencies_waiting().await?;
    waiting.retain(|d| d.cause == Some(Cause::Confirmation) && d.next_at.is_some_and(|until| until > now));
    if let Some(until) = waiting.iter().filter_map(|d| d.next_at).max() {
        inner.expect(waiting, until);
    }
    let body = json!({ "version": env!("CARGO_PKG_VERSION"), "sending": found });
    inner.ledger.commit(&Actor::Daemon, vec![Note::change("started", "daemon", body)]).await?;
    Ok(())
}

/// A hold ends in one commit, and what it kept back is looked at in others: the process may have ended in between. The
/// same for an emergency that was cancelled and its hold.
async fn holds_over(inner: &Arc<Inner>, is_whole: bool) -> Result<(), LedgerError> {
    for hold in inner.holds() {
        let Some(post) = &hold.post else { continue };
        let row = inner.announced(post.as_str()).await?;
        let cancelled = row.filter(|row| matches!(row.withdrawn, Some(Withdrawal::Person(_))));
        if let Some(row) = cancelled
            && let Some(over) = inner.hold_of_nothing(&row).await?
        {
            inner.commit(&Actor::Daemon, vec![Change::end_of(&over)]).await?;
        }
    }
    // Of a ledger that is older than its mark nobody knows whether what it holds went out since.
    let resume = is_whole && inner.config().settings.emergency.resume;
    match inner.after_holds(resume).await {
        Err(ActError::Ledger(error)) => Err(error),
        Err(error) => {
            tracing::error!(error = error.words().en, "what a hold kept back was not looked at");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

async fn write(inner: &Inner, rows: Vec<Delivery>, event: impl Fn(&Delivery) -> Event) -> Result<(), LedgerError> {
    for part in rows.chunks(AT_ONCE) {
        let mut changes: Vec<Change> = Vec::new();
        for d in part {
            if let Ok(step) = inner.computed(d, event(d)) {
                changes.extend(followed(inner, d, step).await?);
            }
        }
        if !changes.is_empty() {
            inner.commit(&Actor::Daemon, changes).await?;
        }
    }
    Ok(())
}

/// Notices a wall clock that is stepped. Instants of release follow it; what waits for a length of time (a try, a look)
/// goes on waiting for the same length. A jump is on record (R31).
pub async fn watch_the_clock(inner: Arc<Inner>) {
    const EVERY: Duration = Duration::from_secs(1);
    loop {
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = inner.clock.sleep(EVERY) => {}
        }
        let (now, then, jump) = (inner.clock.now(), inner.clock.mono(), inner.jump());
        if !jump.is_zero() {
            stepped_by(&inner, jump).await;
        }
        *lock(&inner.compared) = (now, then);
    }
}

/// An emergency whose hour has come once does not wait for it again.
fn has_come(row: &Delivery, came: Time) -> bool {
    row.priority == Priority::Emergency && row.at <= came
}

async fn stepped_by(inner: &Arc<Inner>, jump: TimeDelta) {
    let seconds = jump.num_milliseconds() as f64 / 1000.0;
    tracing::error!(seconds, "the wall clock was stepped");
    let note: Change = Note::change("clock_stepped", "clock", json!({ "seconds": seconds }));
    if let Err(error) = inner.ledger.commit(&Actor::Daemon, vec![note]).await {
        tracing::error!(%error, "the step was not recorded");
    }
    inner.memory.clock_was_put(inner.clock.now());
    // Deliveries that came due before the step was noticed are meant too.
    let came = inner.clock.now() - jump + TimeDelta::seconds(2);
    match inner.ledger.waiting(came).await {
        Ok(rows) => {
            let moved = |row: &Delivery, content: &Content| match (content.body.timing == Timing::Now
                || has_come(row, came))
                && !crate::planted("waits_for_its_hour_again")
            {
                true => Some(Event::ClockStepped { by: jump, is_at_once: true }),
                false => row.next_at.is_some().then_some(Event::ClockStepped { by: jump, is_at_once: false }),
            };
            let failed = inner.step_all(&Actor::Daemon, &rows, moved).await;
            let failed = failed.into_iter().filter_map(Result::err);
            for error in failed.filter(|error| !matches!(error, StepError::Illegal(_))) {
                tracing::warn!(%error, "a wait was not moved with the clock");
            }
        }
        Err(error) => tracing::error!(%error, "what waits was not moved with the clock"),
    }
    inner.ask_rescan();
    inner.woken.notify_one();
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
        State::Sending => Event::OwnerGone {
            why,
            left: inner.config().settings_of(&row.account).map_or(Duration::ZERO, |s| s.timeout),
        },
        State::Scheduled | State::Ready | State::Held | State::Retrying if count >= 2 => Event::SetAside(why),
        State::Unknown | State::Accepted => Event::Unseen { why, waited: inner.memory.waited(id) },
        State::Published => Event::NotTakenDown(Failure::NotSent(why)),
        // Prepared again, it fails there if it is the text that does it.
        State::Ready | State::Retrying => Event::Unprepared(why),
        // It is due still.
        _ => return,
    };
    if let Err(error) = super::outcome::written_with(inner, &row, event, Vec::new()).await {
        tracing::error!(%error, "it could not be set aside");
    }
}
