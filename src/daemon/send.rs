//! One delivery, driven: armed, sent, its outcome written.
//!
//! Intent, send, receipt: no request before its intent is on disk. The gate and the expiry are looked
//! at when it is armed and once more right before the first byte (`barrier`). Whoever drives a delivery decides on the
//! row it has: when another change comes first it lets go, and the loop takes the row as it has become.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::barrier::{self, Barrier, Passed};
use super::lane::{self, Leaving};
use super::memory::Claimed;
use super::outcome::{Driven, LEDGER_AGAIN, note_failure, outcome_name, stepped, written, written_with};
use super::pauses::What;
use super::prepare::{Means, good_credential, picture, prepare, use_of};
use super::{Inner, StepError, release, settle};
use crate::clock::Time;
use crate::core::announcement::{Body, Content, Priority, Timing};
use crate::core::change::{Actor, Change, Note};
use crate::core::delivery::{Cause, Class, Delivery, Desired, Event, Failure, Receipt, State};
use crate::core::gate::{Asking, Verdict};
use crate::core::words::Words;
use crate::ledger::LedgerError;
use crate::platform::{Call, Lane, Picture};

/// Those who warm for one instant gather this long before they ask, so that all ask at once.
const GATHER: TimeDelta = TimeDelta::milliseconds(100);
/// Done well before the arming, whatever the platform does with a `HEAD`.
const WARM_WITHIN: Duration = Duration::from_secs(4);

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
            State::Retrying if row.prepared.is_none() => prepare(inner, &row, &nudged).await,
            State::Held => held(inner, &row, &nudged).await,
            State::Ready | State::Retrying => publish(inner, &row, &nudged).await,
            State::Accepted if row.desired == Desired::Removed && settle::has_post(&row) => {
                settle::take_down(inner, &row, &nudged).await
            }
            State::Unknown | State::Accepted => settle::look(inner, &row, &nudged).await,
            State::Published => settle::take_down(inner, &row, &nudged).await,
            // Whoever sends a row holds it until its outcome is written. One that nobody holds was armed by a commit
            // that failed as it seemed and is on disk all the same: no request of it was made.
            State::Sending => {
                let why =
                    Words::new("账本写入中断，先查是否已发", "its record was cut short: looking whether it is out");
                stepped(inner, &row, Event::OwnerGone { why, left: Duration::ZERO }).await
            }
            State::Failed | State::Expired | State::Cancelled | State::Deleted => return,
        };
        match result {
            Ok(Some(next)) if next.fence != before && next.next_at.is_some() => row = next,
            Ok(_) => return,
            // Somebody changed the row in between: the loop takes it as it is now.
            Err(StepError::Ledger(LedgerError::Conflict)) => return inner.woken.notify_one(),
            Err(StepError::Illegal(illegal)) => {
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

/// Between looks whether a step of the clock was noticed.
const NOTICED: Duration = Duration::from_millis(50);

/// Waits on the wall clock; false when the wait was cut short by a stop or by a change of the row.
pub async fn waited(inner: &Inner, until: Time, nudged: &CancellationToken) -> bool {
    let due = async {
        inner.clock.sleep_until(until).await;
        // By a clock that was put on it need not be due: what waits for a length of time is moved along first.
        while !inner.jump().is_zero() {
            inner.clock.sleep(NOTICED).await;
            inner.clock.sleep_until(until).await;
        }
    };
    tokio::select! {
        biased;
        () = inner.stop.cancelled() => false,
        () = nudged.cancelled() => false,
        () = due => true,
    }
}

pub fn is_expired(row: &Delivery, now: Time) -> bool {
    row.expires_at.is_some_and(|e| e <= now)
}

/// Of what a repeat missed only the newest goes: one that is late, and a later one has come, is left out.
pub async fn is_overtaken(inner: &Inner, row: &Delivery, content: &Content) -> Result<bool, StepError> {
    let now = inner.clock.now();
    let is_late = row.at + inner.config().settings.publish.grace < now;
    if !content.is_repeat() || !is_late {
        return Ok(false);
    }
    inner.ledger.is_overtaken(row, now).await.map_err(StepError::Ledger)
}

/// Its account, or its platform, has to wait for so long.
pub async fn paused(inner: &Arc<Inner>, row: &Delivery, left: Duration) -> Driven {
    // Times are kept in whole microseconds: so that then it is over.
    let until = inner.clock.now() + left + Duration::from_millis(1);
    postponed(inner, row, until, Words::new("平台让等一等", "the platform asked to wait")).await
}

async fn postponed(inner: &Arc<Inner>, row: &Delivery, until: Time, why: Words) -> Driven {
    stepped(inner, row, Event::Postponed { until, why }).await
}

/// A held delivery lasts as long as its own `expires_after`; without one it waits for a person.
pub fn held_expiry(at: Time, body: &Body) -> Option<Time> {
    at.checked_add_signed(TimeDelta::from_std(body.expires_after?).ok()?)
}

/// What stands in the way now, if anything.
pub fn verdict_of(inner: &Inner, row: &Delivery, content: &Content, now: Time) -> Verdict {
    let config = inner.config();
    let asking = Asking {
        announcement: &row.announcement,
        account: &row.account,
        content: &row.content,
        body: &content.body,
        at: row.at,
        is_resting: config.city.is_resting(&row.account),
    };
    inner.memory.verdict(&asking, now, &config.settings.emergency)
}

/// The event that an account which gets nothing any more makes of a delivery that has not begun.
pub fn closed(why: Words) -> Event {
    Event::Withdrawn { desired: Desired::Stopped, cause: Cause::Closed, why }
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
    let is_too_late = match &verdict {
        Verdict::Held { cause: Cause::Confirmation, until, .. } => {
            is_expired(row, now) || until.is_some_and(|until| until <= now)
        }
        // It was to wait until now.
        Verdict::Closed(_) => row.cause == Some(Cause::Confirmation),
        _ => false,
    };
    if is_too_late {
        // Nobody confirmed in time: all of it is not sent, and that is said loudly.
        inner.unconfirmed(row).await?;
        return Ok(None);
    }
    if is_expired(row, now) {
        return stepped(inner, row, Event::Expired).await;
    }
    let expires_at = held_expiry(row.at, &content.body);
    let event = match verdict {
        Verdict::Go if row.priority == Priority::Emergency => {
            // It lasts no longer for having waited.
            Event::GateOpen { at: now.max(row.at), expires_at: row.expires_at }
        }
        // What a hold kept back is decided on together, whichever of it finds out first that the hold is over.
        Verdict::Go => {
            return match inner.after_hold_of(row).await {
                Ok(()) => Ok(None),
                Err(error) => Err(StepError::Ledger(error)),
            };
        }
        Verdict::Held { cause, until, why } => Event::GateClosed { cause, until, expires_at, why },
        // Where an account gets no correction any more, that has consequences for what it carries.
        Verdict::Closed(why) => return written(inner, row, closed(why)).await,
    };
    stepped(inner, row, event).await
}

/// The hold is over, and a person releases what it came over.
pub fn review(row: &Delivery, content: &Content) -> Event {
    let why = Words::new("静默已结束，等人放行", "the hold is over; waiting for a person to release it");
    Event::GateClosed { cause: Cause::Review, until: None, expires_at: held_expiry(row.at, &content.body), why }
}

/// The hour before which nothing of it goes, also when the wall clock was put back while it waited to be tried again.
/// What goes at once has none, nor has an emergency that was tried already.
pub fn hour_of(row: &Delivery, content: &Content) -> Option<Time> {
    let has_come = row.priority == Priority::Emergency && row.begun_at.is_some();
    let has_none = content.body.timing == Timing::Now || has_come;
    Some(row.at).filter(|_| !has_none || crate::planted("waits_for_its_hour_again"))
}

pub async fn publish(inner: &Arc<Inner>, row: &Delivery, nudged: &CancellationToken) -> Driven {
    let content = inner.content(&row.content).await.map_err(StepError::Ledger)?;
    if let Some(why) = unproved(inner, row).await {
        return stepped(inner, row, Event::Unprepared(why)).await;
    }
    let slot = row.next_at.unwrap_or(row.at);
    let slot = hour_of(row, &content).map_or(slot, |hour| slot.max(hour));
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
    if is_expired(row, slot) {
        return stepped(inner, row, Event::Expired).await;
    }
    if is_overtaken(inner, row, &content).await? {
        return stepped(inner, row, Event::Overtaken).await;
    }
    // Its secret may have been given anew while it waited for this instant.
    if let Some(why) = unproved(inner, row).await {
        return stepped(inner, row, Event::Unprepared(why)).await;
    }
    match verdict_of(inner, row, &content, slot) {
        Verdict::Go => {}
        Verdict::Held { cause, until, why } => {
            let expires_at = held_expiry(row.at, &content.body);
            return stepped(inner, row, Event::GateClosed { cause, until, expires_at, why }).await;
        }
        Verdict::Closed(why) => return written(inner, row, closed(why)).await,
    }
    // What is over by its instant does not stand in its way.
    let ahead = (slot - inner.clock.now()).to_std().unwrap_or_default();
    if let Some(left) =
        inner.pauses.left(&row.account, What::Post.of(row), inner.clock.mono()).filter(|left| *left > ahead)
    {
        return paused(inner, row, left).await;
    }
    let means = Means::there(inner, row).and_then(|means| Ok((means, attached(inner, row)?)));
    let (means, pictures) = match means {
        Ok(ready) => ready,
        // The secret went away after it was prepared, or a picture did, or it was for another server. Prepared again, it
        // fails there with the reason.
        Err(failure) => return stepped(inner, row, Event::Unprepared(failure.words().clone())).await,
    };
    if row.priority == Priority::Emergency {
        inner.falls_silent(row, &content).await.map_err(StepError::Ledger)?;
    }
    let passes = passes_hold(inner, row, &content, slot);
    match arm(inner, row, &means, slot, passes).await? {
        Ok(armed) => fire(inner, armed, &means, &content, &pictures, slot, None).await,
        Err(until) => {
            let why = Words::new("限额已用完，等下一时段", "its budget is used up; waiting for the next window");
            postponed(inner, row, until, why).await
        }
    }
}

/// Why the account's secret cannot be relied on: it was given anew since this was prepared, by a reload or before a start,
/// and does not work or is another account's. An emergency asks nobody.
async fn unproved(inner: &Inner, row: &Delivery) -> Option<Words> {
    let was_just_asked = row.state == State::Scheduled;
    let is_known_good = inner.memory.credential(&row.account).is_some_and(|(_, bad)| bad.is_none());
    if row.priority == Priority::Emergency || was_just_asked || is_known_good {
        return None;
    }
    let proved = match Means::there(inner, row) {
        Ok(means) => good_credential(inner, row, &means).await,
        Err(failure) => Err(failure),
    };
    proved.err().map(|failure| failure.words().clone())
}

/// One `HEAD` without a token opens the connection this delivery will use; whether it succeeds changes nothing.
async fn warm(inner: &Inner, row: &Delivery, at: Time) -> Result<(), StepError> {
    let config = inner.config();
    let Some(settings) = config.settings_of(&row.account) else { return Ok(()) };
    let reserve = config.settings.emergency.reserve;
    let (granted, calls) = inner.memory.reserve_warm(settings, 1, reserve, inner.clock.now());
    if granted == 0 {
        return Ok(());
    }
    inner.count(calls).await.map_err(StepError::Ledger)?;
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

fn attached(inner: &Inner, row: &Delivery) -> Result<Vec<Picture>, Failure> {
    let files = row.prepared.as_ref().map(|p| p.attached.as_slice()).unwrap_or_default();
    files.iter().map(|(file, sha256)| picture(inner, file, sha256, None)).collect()
}

/// Sends what was armed by the commit that took its emergency.
async fn launched(inner: &Arc<Inner>, row: Delivery, leaving: Option<Leaving>) -> Driven {
    let slot = row.first_send();
    let not_sent =
        |failure| Event::Answered { attempt: row.attempt, begun: slot, left: Duration::ZERO, answer: Err(failure) };
    let content = match inner.content(&row.content).await {
        Ok(content) => content,
        Err(error) => return written(inner, &row, not_sent(Failure::NotSent(Words::same(error.to_string())))).await,
    };
    let means = Means::there(inner, &row).and_then(|means| Ok((means, attached(inner, &row)?)));
    match means {
        Ok((means, pictures)) => fire(inner, row, &means, &content, &pictures, slot, leaving).await,
        // The configuration was read again in between: it has another server, for which this is prepared anew.
        Err(Failure::Refused(Class::Platform, why)) => written(inner, &row, not_sent(Failure::NotSent(why))).await,
        // Or no such account any more.
        Err(failure) => written(inner, &row, not_sent(failure)).await,
    }
}

/// What passes a hold for a reason of its own leaves that reason in the trail (`hold_exempt`).
fn passes_hold(inner: &Inner, row: &Delivery, content: &Content, slot: Time) -> Option<Change> {
    let reason = content.body.hold_exempt.as_ref()?;
    let hold = inner.memory.holds(slot).into_iter().find(|hold| hold.concerns(&row.account))?;
    let body = serde_json::json!({ "account": row.account, "hold": hold.id, "reason": reason });
    Some(Note::change("passed_hold", &row.occurrence, body))
}

/// The intent, on disk; or when the budget allows it.
async fn arm(
    inner: &Inner,
    row: &Delivery,
    means: &Means,
    slot: Time,
    note: Option<Change>,
) -> Result<Result<Delivery, Time>, StepError> {
    let reserve = inner.config().settings.emergency.reserve;
    let settings = means.platform.settings();
    let calls = match inner.memory.reserve(settings, &row.account, use_of(row), true, reserve, slot) {
        Ok(calls) => calls,
        Err(until) => return Ok(Err(until)),
    };
    let baseline = inner.memory.newest(&row.account);
    // The step first: where it meets a conflict, nothing of the commit has to be undone. It is not tried again on what
    // the row has become: an edit or a withdrawal that came first decides.
    let with = calls.changes().chain(note).collect();
    inner.step(&Actor::Daemon, row, Event::Armed { slot, baseline }, with).await.map(Ok)
}

/// Sends what was armed: the adapter builds its request now, and the barrier lets it out at the instant.
async fn fire(
    inner: &Arc<Inner>,
    row: Delivery,
    means: &Means,
    content: &Arc<Content>,
    pictures: &[Picture],
    slot: Time,
    leaving: Option<Leaving>,
) -> Driven {
    let prepared = row.prepared.as_ref().expect("only what is prepared can be armed");
    let barrier = Barrier::new(inner, &row, content, slot, leaving);
    // Begun, it is under way until its outcome is on disk.
    let _under_way = barrier::UnderWay::of(inner, row.id);
    let call = Call { barrier: Some(&barrier), ..means.call(inner, &row) };
    let answer = means.platform.publish(&call, prepared, pictures).await;
    let (begun, left, answer) = match barrier.into_outcome() {
        Passed::Stopped(event) => return written(inner, &row, event).await,
        Passed::Begun(begun, at) => {
            let left = (at.0 + means.timeout).saturating_sub(inner.clock.mono().0);
            (begun, left, answer)
        }
        // No request that can be seen has begun, whatever came before it.
        Passed::Waiting | Passed::Lapsed => (inner.clock.now(), Duration::ZERO, answer.map_err(never_sent)),
    };
    let answer = answer.and_then(|receipt| own_receipt(inner, &row, receipt));
    inner.metrics.request(row.account.platform(), "publish", outcome_name(answer.as_ref().err()));
    let mut with = Vec::new();
    if let Err(failure) = &answer {
        with = note_failure(inner, &row, failure, What::Post.of(&row));
        tracing::warn!(
            account = %row.account, occurrence = %row.occurrence, attempt = row.attempt,
            outcome = outcome_name(Some(failure)), reason = failure.words().en, "not published"
        );
    }
    // The post is this delivery's until that is on disk.
    let (answer, _claimed) = match answer {
        Ok((receipt, claimed)) => (Ok(receipt), claimed),
        Err(failure) => (Err(failure), None),
    };
    written_with(inner, &row, Event::Answered { attempt: row.attempt, begun, left, answer }, with).await
}

/// A failure of what came before the request that can be seen leaves no doubt about that one.
fn never_sent(failure: Failure) -> Failure {
    match failure {
        Failure::Unclear(why) | Failure::Duplicate(why) | Failure::Astray(why) => Failure::NotSent(why),
        other => other,
    }
}

/// A platform may answer with a post that was there before: such an answer proves nothing.
fn own_receipt(inner: &Inner, row: &Delivery, receipt: Receipt) -> Result<(Receipt, Option<Claimed>), Failure> {
    if !receipt.shown || receipt.post_id.is_empty() {
        return Ok((receipt, None));
    }
    let baseline = row.prepared.as_ref().and_then(|p| p.baseline.as_ref());
    let claimed = inner.memory.claim_receipt(&row.account, &receipt.post_id);
    match claimed.filter(|_| baseline != Some(&receipt.post_id)) {
        Some(claimed) => Ok((receipt, Some(claimed))),
        None => Err(Failure::Unclear(Words::new("平台回的是另一条的编号", "answered with the id of another post"))),
    }
}
