//! Read-back and take-down: what is not known is looked for, what was superseded is taken down.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::prepare::{Means, key};
use super::send::{note_failure, outcome_name, waited, written};
use super::{Inner, StepError, lock};
use crate::core::announcement::{Priority, Timing};
use crate::core::change::{Actor, Change, Note};
use crate::core::delivery::{Delivery, DeliveryId, Event, Failure, State, Wish};
use crate::core::fit;
use crate::core::pacing::Use;
use crate::core::words::{Words, words};
use crate::ledger::Filter;
use crate::platform::{Look, Wanted};

type Driven = Result<Option<Delivery>, StepError>;

/// Takes a call out of the share that is kept for settling; when there is none, the row waits.
async fn paid(inner: &Inner, row: &Delivery, means: &Means) -> Option<Driven> {
    let now = inner.clock.now();
    let reserve = inner.config().settings.emergency.reserve;
    let use_ = if row.priority == Priority::Emergency { Use::Emergency } else { Use::Settle };
    let taken = lock(&inner.budgets).take(means.platform.settings(), &row.account, use_, false, reserve, now);
    let until = match taken {
        Ok(changes) if changes.is_empty() => return None,
        Ok(changes) => match inner.ledger.commit(&Actor::Daemon, changes).await {
            Ok(_) => return None,
            Err(error) => return Some(Err(StepError::Ledger(error))),
        },
        Err(next) => next,
    };
    let why = Words::new("没有查询限额，等下一时段", "no budget is left for looking; waiting for the next window");
    Some(inner.step(&Actor::Daemon, row, Event::Postponed { until, why }, Vec::new()).await.map(Some))
}

/// Looks for the post of an `unknown` or `accepted` delivery.
pub async fn look(inner: &Arc<Inner>, row: &Delivery, nudged: &CancellationToken) -> Driven {
    let Some(at) = row.next_at else { return Ok(None) };
    if !waited(inner, at, nudged).await {
        return Ok(None);
    }
    let means = match Means::of(inner, row) {
        Ok(means) => means,
        Err(failure) => return unseen(inner, row, failure.words().clone()).await,
    };
    if let Some(until) = inner.pause_of(&row.account, inner.clock.now()) {
        let why = Words::new("平台让等一等", "the platform asked to wait");
        return inner.step(&Actor::Daemon, row, Event::Postponed { until, why }, Vec::new()).await.map(Some);
    }
    if let Some(postponed) = paid(inner, row, &means).await {
        return postponed;
    }
    let turn = inner.looking(&row.account);
    let _turn = turn.lock().await;
    let wanted = wanted(inner, row).await?;
    let answer = means.platform.find(&means.call(inner, row), &wanted).await;
    inner.metrics.request(row.account.platform(), "find", outcome_name(answer.as_ref().err()));
    let event = match answer {
        Ok(Look::Found(receipt)) => Event::Found(receipt),
        Ok(Look::Absent) => Event::Absent,
        Ok(Look::SendAgain) if row.wish == Wish::Out && row.expires_at.is_none_or(|e| e > inner.clock.now()) => {
            Event::Absent
        }
        // Not to be sent any more, and so not to be asked that way: whether it is out, a person has to see.
        Ok(Look::SendAgain) => Event::Unseen(Words::new(
            "只能重发才知道，而它已撤回或过期",
            "only sending again would tell, and it is withdrawn or expired",
        )),
        Ok(Look::Unproven(why)) => Event::Unseen(why),
        Ok(Look::TurnedDown(class, why)) if row.state == State::Accepted => Event::TurnedDown(class, why),
        Ok(Look::TurnedDown(_, why)) => Event::Unseen(why),
        Err(failure) => {
            // What it means for others is kept in memory; the row keeps the words.
            note_failure(inner, row, &failure);
            Event::Unseen(failure.words().clone())
        }
    };
    tracing::info!(account = %row.account, occurrence = %row.occurrence, looks = row.looks, found = event.name(), "looked");
    let after = written(inner, row, event).await?;
    alarm(inner, after.as_ref()).await;
    Ok(after)
}

async fn unseen(inner: &Arc<Inner>, row: &Delivery, why: Words) -> Driven {
    let after = inner.step(&Actor::Daemon, row, Event::Unseen(why), Vec::new()).await?;
    alarm(inner, Some(&after)).await;
    Ok(Some(after))
}

/// The looks are spent and nothing is proved: a person is needed, and is told.
pub(super) async fn alarm(inner: &Inner, row: Option<&Delivery>) {
    let Some(row) = row.filter(|r| r.state == State::Unknown && r.next_at.is_none()) else { return };
    inner.metrics.needs_person();
    let (account, announcement) = (&row.account, &row.announcement);
    tracing::error!(%account, %announcement, "nobody can tell whether it was published; settle it with `fabu resolve`");
    let body = serde_json::json!({ "delivery": row.id, "account": account, "announcement": announcement });
    let note = Note::change("needs_person", &row.occurrence, body);
    if let Err(error) = inner.ledger.commit(&Actor::Daemon, vec![note]).await {
        tracing::error!(%error, "the alarm was not recorded");
    }
}

async fn wanted(inner: &Inner, row: &Delivery) -> Result<Wanted, StepError> {
    let content = inner.content(&row.content).await.map_err(StepError::Ledger)?;
    let platform = row.account.platform();
    let taken = inner.ledger.taken(row.account.clone()).await.map_err(StepError::Ledger)?;
    let prepared = row.prepared.as_ref();
    let computed = || fit::full_text(content.body.text_for(platform), content.body.link.as_deref());
    // What was to go "at once" when the ledger was lost may have gone any time within the day before.
    let day = chrono::TimeDelta::days(1);
    let since = match (row.never_armed, &content.body.timing) {
        (true, Timing::Now) => row.at - day,
        _ => row.at.min(row.begun_at.unwrap_or(row.at)),
    };
    Ok(Wanted {
        text: prepared.map_or_else(computed, |p| p.text.clone()),
        title: prepared.and_then(|p| p.title.clone()).or_else(|| content.body.title_for(platform).map(str::to_owned)),
        key: key(row),
        ticket: row.receipt.as_ref().and_then(|r| r.ticket.clone()),
        media: prepared.map(|p| p.media.clone()).unwrap_or_default(),
        since,
        above: prepared.and_then(|p| p.baseline.clone()),
        taken,
    })
}

/// Takes down a published post somebody no longer wants there, until the platform confirms.
pub async fn take_down(inner: &Arc<Inner>, row: &Delivery, nudged: &CancellationToken) -> Driven {
    let Some(at) = row.next_at else { return Ok(None) };
    if !waited(inner, at, nudged).await {
        return Ok(None);
    }
    let Some(receipt) = row.receipt.as_ref() else { return Ok(None) };
    let outcome = match Means::of(inner, row) {
        Err(failure) => Err(failure),
        Ok(means) => {
            if let Some(postponed) = paid(inner, row, &means).await {
                return postponed;
            }
            let answer = means.platform.delete(&means.call(inner, row), receipt).await;
            inner.metrics.request(row.account.platform(), "delete", outcome_name(answer.as_ref().err()));
            answer
        }
    };
    let event = match outcome {
        Ok(()) => Event::TakenDown,
        Err(failure) => {
            note_failure(inner, row, &failure);
            tracing::warn!(account = %row.account, occurrence = %row.occurrence, reason = failure.words().en, "not taken down yet");
            Event::NotTakenDown(match failure {
                // An answer that says nothing is asked for again like one that never came.
                Failure::Unclear(why) => Failure::NotSent(why),
                other => other,
            })
        }
    };
    written(inner, row, event).await
}

/// Steps of what a newly published delivery supersedes on its account.
#[derive(Default)]
pub struct Superseded {
    pub changes: Vec<Change>,
    pub ids: Vec<DeliveryId>,
}

/// Account by account, once the new post is out there: the old one goes, or is cancelled.
pub async fn supersede(inner: &Inner, row: &Delivery) -> Superseded {
    let mut superseded = Superseded::default();
    if row.state != State::Published || row.wish != Wish::Out {
        return superseded;
    }
    let Ok(content) = inner.content(&row.content).await else { return superseded };
    for old in content.body.replaced() {
        let filter = Filter {
            announcement: Some(old.to_string()),
            account: Some(row.account.to_string()),
            max: 1000,
            ..Filter::default()
        };
        let found = match inner.ledger.deliveries(filter).await {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "what is superseded cannot be read");
                return superseded;
            }
        };
        // Of a repeat only the newest post is the one that is wrong now; older days stay.
        let newest_out = found.iter().filter(|d| d.state == State::Published).map(|d| d.id).max();
        let new = &row.announcement;
        for d in found {
            if d.wish == Wish::Gone || d.state == State::Published && Some(d.id) != newest_out {
                continue;
            }
            let why = words!("被 {new} 取代", "superseded by {new}");
            if let Ok(step) = inner.computed(&d, Event::Withdrawn(Wish::Gone, why)) {
                lock(&inner.gate).withdrawn.insert(d.id);
                superseded.ids.push(d.id);
                superseded.changes.push(Change::Step(Box::new(step)));
            }
        }
    }
    superseded
}

/// A correction or an all-clear that waits to know of a post on its account: it goes when the post turns out to be
/// there, and is dropped when not.
pub async fn last_word(inner: &Inner, about: &Delivery) -> Superseded {
    let mut waiting = Superseded::default();
    let is_there = match about.state {
        State::Published => true,
        State::Cancelled | State::Expired | State::Failed => false,
        _ => return waiting,
    };
    if about.wish == Wish::Out || about.priority != Priority::Emergency {
        return waiting;
    }
    let filter = Filter {
        account: Some(about.account.to_string()),
        states: vec![State::Held],
        priority: Some(Priority::Emergency),
        max: 1000,
        ..Filter::default()
    };
    let held = match inner.ledger.deliveries(filter).await {
        Ok(held) => held,
        Err(error) => {
            tracing::error!(%error, "the last word that waits cannot be read");
            return waiting;
        }
    };
    for row in held.into_iter().filter(|d| d.next_at.is_none()) {
        let Ok(content) = inner.content(&row.content).await else { continue };
        if !content.body.follows.as_ref().is_some_and(|f| f.posts.contains(&about.announcement)) {
            continue;
        }
        let event = if is_there {
            Event::GateOpen { at: inner.clock.now(), expires_at: row.expires_at }
        } else {
            let why = Words::new("所指的那条没有发出", "the post it is about never went out");
            Event::Withdrawn(Wish::Stop, why)
        };
        if let Ok(step) = inner.computed(&row, event) {
            waiting.ids.push(row.id);
            waiting.changes.push(Change::Step(Box::new(step)));
        }
    }
    waiting
}
