//! One delivery, driven: armed, sent, its outcome written.
//!
//! Intent, send, receipt: no request before its intent is on disk. The gate and the expiry are looked
//! at when it is armed and once more right before the request, so that a withdrawal that was
//! acknowledged is obeyed, also by a process that was stopped and continued.

use std::sync::Arc;
use std::task::Poll;

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::doorway::{Doorway, Passed};
use super::lane::{self, Leaving};
use super::prepare::{Means, bad_standing, picture, prepare, use_of};
use super::{Inner, StepError, lock, release, settle};
use crate::clock::Time;
use crate::core::announcement::{Content, Priority};
use crate::core::change::{Actor, Change, Note};
use crate::core::delivery::{Delivery, DeliveryId, Event, Failure, Illegal, Receipt, Scope, State};
use crate::core::gate::{Asking, Verdict};
use crate::core::words::Words;
use crate::ledger::LedgerError;
use crate::platform::{Call, Lane, Picture};

/// Those who warm for one instant gather this long before they ask, so that all ask at once.
const GATHER: TimeDelta = TimeDelta::milliseconds(100);
/// Done well before the arming, whatever the platform does with a `HEAD`.
const WARM_WITHIN: std::time::Duration = std::time::Duration::from_secs(4);
/// Between tries to write an outcome to a ledger that does not take it.
const LEDGER_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// Drives a delivery until it rests, is due only later, or somebody else has changed it. One whose intent is on disk
/// already, and that is `leaving`, begins with its request.
pub async fn drive(inner: Arc<Inner>, row: Delivery, nudged: CancellationToken, leaving: Option<Leaving>) {
    let (occurrence, at) = (row.occurrence.clone(), row.at);
    let mut part = inner.releases.part_of(&row, leaving.is_some());
    driven(&inner, row, nudged, &mut part, leaving).await;
    release::left(&inner, &mut part, &occurrence, at).await;
}

async fn driven(
    inner: &Arc<Inner>,
    mut row: Delivery,
    nudged: CancellationToken,
    part: &mut release::Part,
    mut leaving: Option<Leaving>,
) {
    let grace = TimeDelta::from_std(inner.config().settings.publish.grace).unwrap_or(TimeDelta::seconds(30));
    loop {
        // Once it has been sent, or is late beyond `grace`, the release's figures wait for it no longer.
        let is_to_send = matches!(row.state, State::Scheduled | State::Ready) || leaving.is_some();
        if !is_to_send || inner.clock.now() > row.at + grace {
            release::left(inner, part, &row.occurrence, row.at).await;
        }
        // Nobody else knows that an intent on disk has not begun: whatever has happened, its outcome is written.
        if leaving.is_none() && (inner.stop.is_cancelled() || nudged.is_cancelled()) {
            return;
        }
        let before = row.fence;
        let result = match row.state {
            State::Sending if leaving.is_some() => launched(inner, row.clone(), leaving.take()).await,
            State::Scheduled => prepare(inner, &row, &nudged).await,
            State::Held => held(inner, &row, &nudged).await,
            State::Ready | State::Retrying => publish(inner, &row, &nudged).await,
            State::Unknown | State::Accepted => settle::look(inner, &row, &nudged).await,
            State::Published => settle::take_down(inner, &row, &nudged).await,
            // Whoever sends a row holds it until its outcome is written. One that nobody holds was armed by a commit
            // that failed as it seemed and is on disk all the same.
            State::Sending => {
                let why =
                    Words::new("账本写入中断，先查是否已发", "its record was cut short: looking whether it is out");
                stepped(inner, &row, Event::OwnerGone(why)).await
            }
            State::Failed | State::Expired | State::Cancelled | State::Deleted => return,
        };
        match result {
            Ok(Some(next)) if next.fence != before && next.next_at.is_some() => row = next,
            Ok(_) => return,
            Err(StepError::Illegal(illegal)) => {
                // Somebody changed the row in between: the loop takes it as it is now.
                inner.metrics.illegal();
                tracing::warn!(delivery = row.id.0, account = %row.account, %illegal, "refused");
                return;
            }
            Err(StepError::Ledger(error)) => {
                tracing::error!(%error, account = %row.account, "the ledger does not take it");
                inner.clock.sleep(LEDGER_AGAIN).await;
                return;
            }
        }
    }
}

/// Waits on the wall clock; false when the wait was cut short by a stop or by a change of the row.
pub async fn waited(inner: &Inner, until: Time, nudged: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = inner.stop.cancelled() => false,
        () = nudged.cancelled() => false,
        () = inner.clock.sleep_until(until) => true,
    }
}

pub type Driven = Result<Option<Delivery>, StepError>;

pub async fn stepped(inner: &Inner, row: &Delivery, event: Event) -> Driven {
    inner.step(&Actor::Daemon, row, event, Vec::new()).await.map(Some)
}

pub fn expired(row: &Delivery, now: Time) -> bool {
    row.expires_at.is_some_and(|e| e <= now)
}

pub async fn postponed(inner: &Inner, row: &Delivery, until: Time) -> Driven {
    let why = Words::new("等限额或平台恢复", "waiting for its budget, or for the platform");
    stepped(inner, row, Event::Postponed { until, why }).await
}

/// What is held lasts as long as it wishes itself (`expires_after`); with no wish it waits for a person.
pub fn held_expiry(row: &Delivery, body: &crate::core::announcement::Body) -> Option<Time> {
    row.at.checked_add_signed(TimeDelta::from_std(body.expires_after?).ok()?)
}

/// What stands in the way now, if anything.
pub fn verdict_of(inner: &Inner, row: &Delivery, content: &Content, now: Time) -> Verdict {
    let config = inner.config();
    let asking = Asking {
        delivery: row.id,
        announcement: &row.announcement,
        account: &row.account,
        content: &row.content,
        body: &content.body,
        released: row.at,
    };
    lock(&inner.gate).verdict(&asking, now, &config.settings.emergency)
}

/// A held delivery came due: its hold ended, its confirmation came or did not, or it expired.
async fn held(inner: &Arc<Inner>, row: &Delivery, nudged: &CancellationToken) -> Driven {
    if let Some(at) = row.next_at
        && !waited(inner, at, nudged).await
    {
        return Ok(None);
    }
    let now = inner.clock.now();
    let content = inner.content(&row.content).await.map_err(StepError::Ledger)?;
    let verdict = verdict_of(inner, row, &content, now);
    let is_unconfirmed = row.priority == Priority::Emergency && matches!(verdict, Verdict::Closed { .. });
    if is_unconfirmed
        && (expired(row, now) || matches!(verdict, Verdict::Closed { until: Some(until), .. } if until <= now))
    {
        // Nobody gave the missing word in time: all of it is not sent, and that is said loudly.
        inner.unconfirmed(row).await?;
        return Ok(None);
    }
    if expired(row, now) {
        return stepped(inner, row, Event::Expired).await;
    }
    let expires_at = held_expiry(row, &content.body);
    match verdict {
        Verdict::Go if row.priority == Priority::Emergency || inner.config().settings.emergency.resume => {
            let at = now.max(row.at);
            let expires_at = match row.priority {
                // It lasts no longer for having waited.
                Priority::Emergency => row.expires_at,
                _ => super::planner::expiry(&content.body, at, &inner.config().settings.publish),
            };
            stepped(inner, row, Event::GateOpen { at, expires_at }).await
        }
        // What was held waits for a person's look.
        Verdict::Go => {
            stepped(
                inner,
                row,
                Event::GateClosed {
                    until: None,
                    expires_at,
                    why: Words::new("静默已结束，等人放行", "the hold is over; waiting for a person to release it"),
                },
            )
            .await
        }
        Verdict::Closed { until, why } => stepped(inner, row, Event::GateClosed { until, expires_at, why }).await,
        Verdict::Withdrawn => Ok(None),
    }
}

pub async fn publish(inner: &Arc<Inner>, row: &Delivery, nudged: &CancellationToken) -> Driven {
    let slot = match row.state {
        State::Retrying => row.next_at.unwrap_or(row.at),
        _ => row.next_at.unwrap_or(row.at).max(row.at),
    };
    // Five seconds ahead, or later by whole seconds for what was claimed late: all of a release meet at one of these.
    let seconds = (slot - inner.clock.now() - GATHER).num_seconds().min(release::WARM_AHEAD.num_seconds());
    if row.state == State::Ready && seconds >= 1 {
        let at = slot - TimeDelta::seconds(seconds);
        if !waited(inner, at - GATHER, nudged).await {
            return Ok(None);
        }
        warm(inner, row, at).await?;
    }
    if !waited(inner, slot - release::ARM_AHEAD, nudged).await {
        return Ok(None);
    }
    let now = inner.clock.now();
    // A clock that was stepped back must not send before the hour.
    let slot = slot.max(now);
    if expired(row, slot) {
        inner.metrics.missed();
        return stepped(inner, row, Event::Expired).await;
    }
    let content = inner.content(&row.content).await.map_err(StepError::Ledger)?;
    match verdict_of(inner, row, &content, slot) {
        Verdict::Go => {}
        Verdict::Closed { until, why } => {
            let expires_at = held_expiry(row, &content.body);
            return stepped(inner, row, Event::GateClosed { until, expires_at, why }).await;
        }
        Verdict::Withdrawn => return Ok(None),
    }
    if let Some(until) = inner.pause_of(&row.account, slot) {
        return postponed(inner, row, until).await;
    }
    let means = match Means::of(inner, row) {
        Ok(means) => means,
        // The secret went away after it was prepared.
        Err(_) => {
            let again = Event::Edited { content: row.content.clone(), at: row.at, expires_at: row.expires_at };
            return stepped(inner, row, again).await;
        }
    };
    let pictures = match attached(inner, row) {
        Ok(pictures) => pictures,
        Err(_) => {
            // Prepared again, it fails there with the reason.
            let again = Event::Edited { content: row.content.clone(), at: row.at, expires_at: row.expires_at };
            return stepped(inner, row, again).await;
        }
    };
    if row.priority == Priority::Emergency {
        inner.falls_silent(row, &content).await.map_err(StepError::Ledger)?;
    }
    let passes = passes_hold(inner, row, &content, slot);
    let Some(armed) = arm(inner, row, &means, slot, passes).await? else {
        return postponed_by_budget(inner, row, &means).await;
    };
    fire(inner, armed, &means, &content, &pictures, slot, None).await
}

/// One `HEAD` without a token opens the connection this delivery will use; whether it succeeds changes nothing.
async fn warm(inner: &Inner, row: &Delivery, at: Time) -> Result<(), StepError> {
    let config = inner.config();
    let Some(settings) = config.settings_of(&row.account) else { return Ok(()) };
    let reserve = config.settings.emergency.reserve;
    let (granted, counted) = lock(&inner.budgets).warmed(settings, 1, reserve, inner.clock.now());
    if granted == 0 {
        return Ok(());
    }
    if let Some(counted) = counted {
        inner.ledger.commit(&Actor::Daemon, vec![counted]).await.map_err(StepError::Ledger)?;
    }
    let head = lane::head(settings);
    let lane = if row.priority == Priority::Emergency { Lane::Emergency } else { Lane::Routine };
    let mut asking = inner.http.send(row.account.platform(), lane, head, WARM_WITHIN);
    let together = inner.instants.join(&inner.clock, at);
    together.wait().await;
    // No answer is taken before all have asked: a connection that is free again would serve the next `HEAD`,
    // and the release would find too few.
    let at_once = std::future::poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await;
    together.began();
    together.over(&inner.clock).await;
    let answer = match at_once {
        Poll::Ready(answer) => answer,
        Poll::Pending => asking.await,
    };
    inner.metrics.request(row.account.platform(), "warm", if answer.is_ok() { "ok" } else { "not_sent" });
    Ok(())
}

async fn postponed_by_budget(inner: &Inner, row: &Delivery, means: &Means) -> Driven {
    let now = inner.clock.now();
    let reserve = inner.config().settings.emergency.reserve;
    let probe =
        lock(&inner.budgets).clone().take(means.platform.settings(), &row.account, use_of(row), true, reserve, now);
    let until = probe.err().unwrap_or(now + TimeDelta::seconds(1));
    postponed(inner, row, until).await
}

fn attached(inner: &Inner, row: &Delivery) -> Result<Vec<Picture>, Failure> {
    let files = row.prepared.as_ref().map(|p| p.attached.as_slice()).unwrap_or_default();
    files.iter().map(|(file, sha256)| picture(inner, file, sha256, None)).collect()
}

/// Sends what was armed by the commit that took its emergency.
async fn launched(inner: &Arc<Inner>, row: Delivery, leaving: Option<Leaving>) -> Driven {
    let slot = row.begun_at.unwrap_or(row.at);
    let not_sent = |failure| Event::Answered { begun: slot, answer: Err(failure) };
    let content = match inner.content(&row.content).await {
        Ok(content) => content,
        Err(error) => return written(inner, &row, not_sent(Failure::NotSent(Words::same(error.to_string())))).await,
    };
    let means = Means::of(inner, &row).and_then(|means| Ok((means, attached(inner, &row)?)));
    match means {
        Ok((means, pictures)) => fire(inner, row, &means, &content, &pictures, slot, leaving).await,
        // The configuration was read again in between, and has no such account any more.
        Err(failure) => written(inner, &row, not_sent(failure)).await,
    }
}

/// What passes a hold for a reason of its own leaves that reason in the trail (`hold_exempt`).
fn passes_hold(inner: &Inner, row: &Delivery, content: &Content, slot: Time) -> Option<Change> {
    let reason = content.body.hold_exempt.as_ref()?;
    let gate = lock(&inner.gate);
    let hold = gate.holds.iter().find(|hold| hold.covers(&row.account, slot))?;
    let body = serde_json::json!({ "account": row.account, "hold": hold.id, "reason": reason });
    Some(Note::change("passed_hold", &row.occurrence, body))
}

/// The intent, on disk; `None` when the budget does not allow it now.
async fn arm(
    inner: &Inner,
    row: &Delivery,
    means: &Means,
    slot: Time,
    note: Option<Change>,
) -> Result<Option<Delivery>, StepError> {
    let reserve = inner.config().settings.emergency.reserve;
    let taken = lock(&inner.budgets).take(means.platform.settings(), &row.account, use_of(row), true, reserve, slot);
    let Ok(mut changes) = taken else { return Ok(None) };
    let baseline = lock(&inner.newest).get(&row.account).cloned();
    let event = Event::Armed { slot, timeout: means.timeout, baseline };
    let step = inner.computed(row, event)?;
    let after = step.row.clone();
    // The step first: where it meets a conflict, nothing of the commit has to be undone.
    changes.insert(0, Change::Step(Box::new(step)));
    changes.extend(note);
    // Not tried again on what the row has become: an edit or a withdrawal that came first decides.
    match inner.ledger.commit(&Actor::Daemon, changes).await {
        Ok(_) => Ok(Some(after)),
        Err(error) => Err(StepError::Ledger(error)),
    }
}

/// Sends what was armed: the adapter builds its request now, and the doorway lets it out at the instant.
async fn fire(
    inner: &Arc<Inner>,
    row: Delivery,
    means: &Means,
    content: &Content,
    pictures: &[Picture],
    slot: Time,
    leaving: Option<Leaving>,
) -> Driven {
    let prepared = row.prepared.as_ref().expect("only what is prepared can be armed");
    let doorway = Doorway::new(inner, &row, content, slot, leaving);
    let call = Call { http: &doorway, ..means.call(inner, &row) };
    let answer = means.platform.publish(&call, prepared, pictures).await;
    let begun = match doorway.into_outcome() {
        Passed::Stopped(event) => return written(inner, &row, event).await,
        Passed::Begun(begun) => begun,
        // The adapter gave up before it asked anything of the network.
        Passed::Never => inner.clock.now(),
    };
    let answer = answer.and_then(|receipt| own_receipt(inner, &row, receipt));
    inner.metrics.request(row.account.platform(), "publish", outcome_name(answer.as_ref().err()));
    let mut with = Vec::new();
    if let Err(failure) = &answer {
        with = note_failure(inner, &row, failure);
        tracing::warn!(
            account = %row.account, occurrence = %row.occurrence, attempt = row.attempt,
            outcome = outcome_name(Some(failure)), reason = failure.words().en, "not published"
        );
    }
    written_with(inner, &row, Event::Answered { begun, answer }, with).await
}

/// A platform may answer with a post that was there before: such an answer proves nothing.
fn own_receipt(inner: &Inner, row: &Delivery, receipt: Receipt) -> Result<Receipt, Failure> {
    /// Posts of one account that may be under way or just made.
    const RECENT: usize = 32;
    if !receipt.shown || receipt.post_id.is_empty() {
        return Ok(receipt);
    }
    let baseline = row.prepared.as_ref().and_then(|p| p.baseline.as_ref());
    let mut recent = lock(&inner.recent);
    let known = recent.entry(row.account.clone()).or_default();
    if baseline == Some(&receipt.post_id) || known.contains(&receipt.post_id) {
        let said = Words::new("平台回的是另一条的编号", "answered with the id of another post");
        return Err(Failure::Unclear(said));
    }
    known.push_back(receipt.post_id.clone());
    if known.len() > RECENT {
        known.pop_front();
    }
    Ok(receipt)
}

/// Writes an outcome whatever it takes: what a platform said must not be forgotten while we live.
pub async fn written(inner: &Arc<Inner>, row: &Delivery, event: Event) -> Driven {
    written_with(inner, row, event, Vec::new()).await
}

async fn written_with(inner: &Arc<Inner>, row: &Delivery, event: Event, with: Vec<Change>) -> Driven {
    let mut row = row.clone();
    loop {
        match written_once(inner, &Actor::Daemon, &row, event.clone(), with.clone()).await? {
            Ok(after) => return Ok(Some(after)),
            Err(LedgerError::Conflict) => match inner.reload(row.id).await {
                Ok(found) => row = found,
                Err(error) => tracing::error!(%error, "the ledger cannot be read"),
            },
            Err(error) => {
                tracing::error!(%error, account = %row.account, "an outcome is not written yet");
                inner.clock.sleep(LEDGER_AGAIN).await;
            }
        }
    }
}

/// An outcome that a person knows, with all that follows from it.
pub async fn written_by(inner: &Arc<Inner>, by: &Actor, row: &Delivery, event: Event) -> Result<Delivery, StepError> {
    let mut row = row.clone();
    loop {
        match written_once(inner, by, &row, event.clone(), Vec::new()).await? {
            Ok(after) => return Ok(after),
            Err(LedgerError::Conflict) => row = inner.reload(row.id).await?,
            Err(error) => return Err(StepError::Ledger(error)),
        }
    }
}

/// An outcome in one commit with what it means for other posts on its account: what it replaces goes, and what waited
/// to know of it goes out or is dropped.
async fn written_once(
    inner: &Arc<Inner>,
    by: &Actor,
    row: &Delivery,
    event: Event,
    with: Vec<Change>,
) -> Result<Result<Delivery, LedgerError>, Illegal> {
    let step = inner.computed(row, event)?;
    let after = step.row.clone();
    let mut changes = vec![Change::Step(Box::new(step))];
    changes.extend(outcome_changes(inner, &after));
    changes.extend(with);
    let superseded = settle::supersede(inner, &after).await;
    let told = settle::last_word(inner, &after).await;
    let ids: Vec<DeliveryId> = superseded.ids.into_iter().chain(told.ids).collect();
    changes.extend(superseded.changes.into_iter().chain(told.changes));
    let written = inner.ledger.commit(by, changes).await;
    if written.is_ok() {
        inner.nudge(&ids);
    }
    Ok(written.map(|_| after))
}

/// What a receipt says about its account.
fn outcome_changes(inner: &Inner, row: &Delivery) -> Vec<Change> {
    let shown = |r: &&Receipt| !r.post_id.is_empty() && row.state == State::Published;
    let Some(receipt) = row.receipt.as_ref().filter(shown) else { return Vec::new() };
    let now = inner.clock.now();
    lock(&inner.standings).insert(row.account.clone(), (now, None));
    lock(&inner.newest).insert(row.account.clone(), receipt.post_id.clone());
    vec![Change::Seen { account: row.account.clone(), post_id: receipt.post_id.clone() }]
}

/// What a failure means for others: who has to wait, whose credential is bad. Returns what the ledger keeps of it.
pub fn note_failure(inner: &Inner, row: &Delivery, failure: &Failure) -> Vec<Change> {
    let now = inner.clock.now();
    match failure {
        Failure::Later(wait, scope, _) => {
            let key = if *scope == Scope::Account { row.account.as_str() } else { row.account.platform() };
            inner.pause(key, now + *wait);
            Vec::new()
        }
        Failure::Credential(_, said) => {
            let known = lock(&inner.standings).get(&row.account).is_some_and(|(_, bad)| bad.is_some());
            if known {
                return Vec::new();
            }
            lock(&inner.standings).insert(row.account.clone(), (now, Some(said.clone())));
            tracing::error!(account = %row.account, reason = said.en, "the credential does not work");
            bad_standing(&row.account, said)
        }
        _ => Vec::new(),
    }
}

pub fn outcome_name(failure: Option<&Failure>) -> &'static str {
    match failure {
        None => "ok",
        Some(Failure::NotSent(_)) => "not_sent",
        Some(Failure::Later(..)) => "later",
        Some(Failure::Refused(..)) => "refused",
        Some(Failure::Credential(..)) => "credential",
        Some(Failure::Duplicate(_)) => "duplicate",
        Some(Failure::Unclear(_)) => "unclear",
    }
}
