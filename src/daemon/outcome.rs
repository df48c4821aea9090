//! The outcome of a delivery, written down with all that follows from it.
//!
//! One commit has the outcome and what it means for other posts of its account, so that neither can be without the other:
//! what it replaces goes, what waited to know of it goes out or is dropped. Beside it, what others have to know: who has
//! to wait, whose credential is bad.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;

use super::emergency::overtaken;
use super::pauses::{Asker, What};
use super::prepare::bad_credential;
use super::{Inner, StepError};
use crate::core::announcement::{AnnouncementId, Content, Part, Priority};
use crate::core::change::{Actor, Change, Note};
use crate::core::delivery::{Cause, Delivery, Desired, Event, Failure, Illegal, Reach, Scope, State, Step, Stop};
use crate::core::words::words;
use crate::ledger::{Filter, LedgerError};

/// Between tries to write an outcome to a ledger that does not take it.
pub const LEDGER_AGAIN: Duration = Duration::from_secs(1);

/// The row as it is after a step, `None` where it rests for its driver.
pub type Driven = Result<Option<Delivery>, StepError>;

pub async fn stepped(inner: &Arc<Inner>, row: &Delivery, event: Event) -> Driven {
    inner.step(&Actor::Daemon, row, event, Vec::new()).await.map(Some)
}

/// Writes an outcome whatever it takes: what a platform said must not be forgotten while we live.
pub async fn written(inner: &Arc<Inner>, row: &Delivery, event: Event) -> Driven {
    written_with(inner, row, event, Vec::new()).await
}

pub async fn written_with(inner: &Arc<Inner>, row: &Delivery, event: Event, with: Vec<Change>) -> Driven {
    let mut newer: Option<Delivery> = None;
    loop {
        let row = newer.as_ref().unwrap_or(row);
        match inner.step(&Actor::Daemon, row, event.clone(), with.clone()).await {
            Ok(after) => return Ok(Some(after)),
            Err(StepError::Illegal(illegal)) => return Err(illegal.into()),
            Err(StepError::Ledger(LedgerError::Conflict)) => match inner.reload(row.id).await {
                // What was seen is still so, and what follows from it is decided on the row as it is now: unless
                // another attempt has begun meanwhile, of which this says nothing.
                Ok(found) if found.attempt == row.attempt && found.state == row.state => newer = Some(found),
                Ok(found) => return Err(Illegal { state: found.state, event: event.name() }.into()),
                Err(error) => tracing::error!(%error, "the ledger cannot be read"),
            },
            Err(StepError::Ledger(error)) => {
                tracing::error!(%error, account = %row.account, "an outcome is not written yet");
                inner.clock.sleep(LEDGER_AGAIN).await;
            }
        }
    }
}

/// A step with all that follows from it, for one commit.
pub async fn followed(inner: &Inner, before: &Delivery, step: Step) -> Result<Vec<Change>, LedgerError> {
    let mut follows: Vec<Change> = seen(&step.row).into_iter().collect();
    follows.extend(consequences(inner, before, &step.row).await?);
    Ok(std::iter::once(Change::Step(Box::new(step))).chain(follows).collect())
}

/// The newest post of its account that is known.
fn seen(row: &Delivery) -> Option<Change> {
    let receipt = row.receipt.as_ref().filter(|r| !r.post_id.is_empty() && row.state == State::Published)?;
    Some(Change::Seen { account: row.account.clone(), post_id: receipt.post_id.clone() })
}

/// What a failure means for others: who has to wait, whose credential is bad. Returns what the ledger keeps of it.
pub fn note_failure(inner: &Inner, row: &Delivery, failure: &Failure, asker: Asker) -> Vec<Change> {
    match failure {
        Failure::Later(wait, scope, _) => {
            let who = if *scope == Scope::Account { row.account.as_str() } else { row.account.platform() };
            inner.pauses.learn(who, asker, *wait, inner.clock.mono());
            Vec::new()
        }
        // Somebody else's post, or a right that posting does not need.
        Failure::Credential(..) if asker.what == What::TakeDown => Vec::new(),
        Failure::Credential(_, said) | Failure::Astray(said) => {
            if inner.memory.credential(&row.account).is_some_and(|(_, bad)| bad.is_some()) {
                return Vec::new();
            }
            tracing::error!(account = %row.account, reason = said.en, "the credential does not work");
            bad_credential(&row.account, said)
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
        Some(Failure::Astray(_)) => "astray",
    }
}

/// Changes that follow from an outcome: for the posts it takes the place of, for those that wait to know of it, for a person.
/// An error here is an error of the outcome: it is written when this can be read.
async fn consequences(inner: &Inner, before: &Delivery, after: &Delivery) -> Result<Vec<Change>, LedgerError> {
    let mut changes = Vec::new();
    let is_out = after.state == State::Published && before.state != State::Published;
    // A stopped post that turned out to be there stands there like any other.
    if is_out && after.desired != Desired::Removed || is_correction_unsaid(inner, before, after).await? {
        let superseded = superseded(inner, after).await?;
        changes.extend(superseded.into_iter().filter(|_| !crate::planted("old_one_stays")));
    }
    let is_doubted = matches!(after.state, State::Sending | State::Unknown);
    if !is_doubted && after.state != before.state && after.priority == Priority::Emergency {
        changes.push(Change::Decide(after.account.clone()));
    }
    let is_over = |d: &Delivery| matches!(d.state, State::Cancelled | State::Expired);
    if after.priority == Priority::Emergency && is_over(after) && !is_over(before) {
        changes.extend(inner.hold_of_the_last(after).await?.as_ref().map(Change::end_of));
    }
    if after.needs_person && !before.needs_person {
        let (account, announcement) = (&after.account, &after.announcement);
        let standing = after.reason.as_ref().filter(|_| after.stands_wrongly());
        let body = serde_json::json!({
            "delivery": after.id, "account": account, "announcement": announcement, "standing": standing,
        });
        changes.push(Note::change("needs_person", &after.occurrence, body));
    }
    Ok(changes)
}

/// Said aloud when it is on disk.
pub fn told(inner: &Inner, before: &Delivery, after: &Delivery) {
    if after.needs_person && !before.needs_person {
        inner.metrics.needs_person();
        let (account, announcement) = (&after.account, &after.announcement);
        if after.stands_wrongly() {
            let reason = after.reason.as_ref().map_or("", |reason| &reason.en);
            tracing::error!(
                %account, %announcement, reason,
                "it is to be gone and stands there still; fabu goes on trying, and a person can take it down there"
            );
            return;
        }
        tracing::error!(
            %account, %announcement,
            "it is not known whether it was published; fabu goes on looking, and a person can settle it with `fabu resolve`"
        );
    }
}

/// An account that is suspended or closed is told nothing; one whose platform refuses the words, makes them wait or has lost
/// its answer is told nothing as far as is known: what it carries wrongly goes all the same.
async fn is_correction_unsaid(inner: &Inner, before: &Delivery, after: &Delivery) -> Result<bool, LedgerError> {
    const LONG: TimeDelta = TimeDelta::seconds(60);
    let is_closed = after.state == State::Cancelled && after.cause == Some(Cause::Closed);
    let waits = |d: &Delivery| {
        let is_to_go = matches!(d.state, State::Scheduled | State::Ready | State::Retrying);
        matches!(d.state, State::Failed | State::Unknown | State::Accepted)
            || is_to_go && d.next_at.is_some_and(|next| next > (d.at + LONG).max(inner.clock.now()))
    };
    let is_new = is_closed && before.state != State::Cancelled || waits(after) && !waits(before);
    if !is_new || after.priority != Priority::Emergency {
        return Ok(false);
    }
    let content = inner.content(&after.content).await?;
    let needed = inner.config().settings.emergency.persons(&content.body);
    let is_agreed = inner.memory.persons(&after.announcement, &after.content).len() >= needed;
    Ok(content.body.part() == Some(Part::Correction) && is_agreed)
}

/// Account by account, once the new post is out there: the old one goes, or is cancelled, and nothing more of it is
/// planned there.
async fn superseded(inner: &Inner, row: &Delivery) -> Result<Vec<Change>, LedgerError> {
    let content = inner.content(&row.content).await?;
    let posts: Vec<AnnouncementId> = replaced(inner, &content).await?.into_iter().collect();
    if posts.is_empty() {
        return Ok(Vec::new());
    }
    let (account, new) = (Some(row.account.clone()), &row.announcement);
    let (cause, why) = match content.body.part() {
        Some(Part::Correction) => (Cause::Corrected, words!("由 {new} 更正", "corrected by {new}")),
        _ => (Cause::Superseded, words!("被 {new} 取代", "superseded by {new}")),
    };
    let (occurrence, reach, desired) = (None, Reach::Newest, Desired::Removed);
    let stop = Stop { posts: posts.clone(), occurrence, account, reach, desired, cause, why };
    let superseded =
        Change::Superseded { posts: posts.clone(), account: row.account.clone(), by: row.announcement.clone() };
    let mut changes = vec![Change::Stop(Box::new(stop)), superseded];
    if row.priority == Priority::Emergency && matches!(content.body.part(), None | Some(Part::Update)) {
        // With an older warning goes what was to be said of it here.
        let mut seen = BTreeSet::new();
        for post in &posts {
            let Some(old) = inner.announced(post.as_str()).await? else { continue };
            let family = inner.family(&old).await?;
            if seen.insert(family.root.clone()) {
                let parts = [Part::Correction, Part::AllClear];
                changes.extend(overtaken(&family, &row.announcement, &parts, Some(&row.account)));
            }
        }
    }
    Ok(changes)
}

/// The posts it takes the place of, and those that these would have replaced: one that was late on an account, and is
/// overtaken there, has not replaced anything itself.
async fn replaced(inner: &Inner, content: &Content) -> Result<BTreeSet<AnnouncementId>, LedgerError> {
    let mut found: BTreeSet<AnnouncementId> = BTreeSet::new();
    let is_routine = content.body.priority != Priority::Emergency;
    let mut left: VecDeque<AnnouncementId> = content.body.replaced().into_iter().cloned().collect();
    while let Some(id) = left.pop_front() {
        if found.contains(&id) {
            continue;
        }
        let filter = Filter { announcement: Some(id.to_string()), max: 1, ..Filter::default() };
        let Some(announced) = inner.ledger.announcements(filter).await?.pop() else { continue };
        if is_routine && announced.row.priority == Priority::Emergency {
            continue;
        }
        // Who names one of an emergency's warnings means what stands of it.
        if content.body.part().is_none() && announced.row.priority == Priority::Emergency {
            left.extend(inner.family(&announced.row).await?.warnings().map(|warning| warning.id.clone()));
        }
        found.insert(id);
        let content = inner.content(&announced.row.content).await?;
        if !crate::planted("chain_is_cut") {
            left.extend(content.body.replaced().into_iter().cloned());
        }
    }
    Ok(found)
}
