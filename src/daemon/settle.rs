//! Read-back and take-down: a post of unknown outcome is looked for, a superseded or deleted one is taken down.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::memory::Claimed;
use super::outcome::{Driven, note_failure, outcome_name, stepped, written_with};
use super::pauses::What;
use super::prepare::{Means, good_credential, key};
use super::send::{paused, waited};
use super::{Inner, StepError};
use crate::clock::Time;
use crate::core::announcement::{Content, Priority, Timing};
use crate::core::change::Change;
use crate::core::delivery::{Delivery, Desired, Event, Failure, State};
use crate::core::fit;
use crate::core::pacing::Use;
use crate::core::timeline::Shown;
use crate::core::words::{Words, shown, words};
use crate::ledger::{Filter, LedgerError};
use crate::platform::reading::{Purse, read_back};
use crate::platform::{Look, Wanted};

/// Mostly it is known within this what another delivery's post has become.
const A_MOMENT: TimeDelta = TimeDelta::seconds(2);
const A_WHILE: Duration = Duration::from_secs(300);

/// Takes a call out of the share that is kept for settling; when there is none, the row waits.
async fn paid(inner: &Arc<Inner>, row: &Delivery, means: &Means) -> Option<Driven> {
    match Share::of(inner, row, means).take().await {
        Ok(Ok(())) => None,
        Ok(Err(until)) => {
            let why =
                Words::new("没有查询限额，等下一时段", "no budget is left for looking; waiting for the next window");
            Some(stepped(inner, row, Event::Postponed { until, why }).await)
        }
        Err(error) => Some(Err(StepError::Ledger(error))),
    }
}

/// Looks for the post of an `unknown` or `accepted` delivery.
pub async fn look(inner: &Arc<Inner>, row: &Delivery, nudged: &CancellationToken) -> Driven {
    let Some(at) = row.next_at else { return Ok(None) };
    if !waited(inner, at, nudged).await {
        return Ok(None);
    }
    let askers = [What::Look.of(row), What::Post.of(row)];
    if let Some(left) =
        askers.into_iter().filter_map(|asker| inner.pauses.left(&row.account, asker, inner.clock.mono())).max()
    {
        return paused(inner, row, left).await;
    }
    let means = match Means::there(inner, row) {
        Ok(means) => means,
        Err(failure) => {
            let unseen = Event::Unseen { why: failure.words().clone(), waited: inner.memory.waited(row.id) };
            return written_with(inner, row, unseen, Vec::new()).await;
        }
    };
    if let Some(postponed) = paid(inner, row, &means).await {
        return postponed;
    }
    let (event, with) = looked(inner, row, &means).await?;
    let (event, _claimed) = claimed(inner, row, event);
    written_with(inner, row, event, with).await
}

/// A post that is found is claimed until that is on disk: an answer that comes in this moment may be about the same one.
fn claimed(inner: &Inner, row: &Delivery, event: Event) -> (Event, Option<Claimed>) {
    let Event::Found { receipt, waited } = &event else { return (event, None) };
    let is_known = !crate::planted("own_post_is_anothers")
        && row.receipt.as_ref().is_some_and(|own| own.post_id == receipt.post_id);
    if receipt.post_id.is_empty() || is_known {
        return (event, None);
    }
    match inner.memory.claim_receipt(&row.account, &receipt.post_id) {
        Some(claimed) => (event, Some(claimed)),
        None => {
            let why = Words::new("找到的是另一次投递的", "what was found is another delivery's");
            (Event::Unseen { why, waited: *waited }, None)
        }
    }
}

/// Reads the account's timeline for a delivery. Returns the event it makes, and the changes it means for others.
pub async fn looked(inner: &Arc<Inner>, row: &Delivery, means: &Means) -> Result<(Event, Vec<Change>), StepError> {
    // With another account's credential it would be that one's timeline, and show truly that there is nothing.
    if let Err(Failure::Credential(_, why) | Failure::Astray(why)) = good_credential(inner, row, means).await {
        return Ok((Event::Unseen { why, waited: inner.memory.waited(row.id) }, Vec::new()));
    }
    let turn = inner.looking(&row.account);
    let _turn = turn.lock().await;
    // The read can show only posts that were there when it began.
    let waited = inner.memory.waited(row.id);
    let mut with = Vec::new();
    let mut found = None;
    for wanted in wanted(inner, row, means.timeout).await? {
        let share = Share::of(inner, row, means);
        let answer = read_back(&*means.platform, &means.call(inner, row), &wanted, &share).await;
        inner.metrics.request(row.account.platform(), "find", outcome_name(answer.as_ref().err()));
        let event = match answer {
            Ok(Look::Found(receipt)) => Event::Found { receipt, waited },
            Ok(Look::Absent) if inner.memory.hides(&row.account, Some(&wanted.standing)) => {
                let why = Words::new(
                    "这条时间线方才藏过帖，现在又没有已知的帖可比，不可作准",
                    "this timeline was seen to hide posts, and shows none that is known by which to believe it now",
                );
                Event::Unseen { why, waited }
            }
            Ok(Look::Absent) => Event::Absent { waited },
            Ok(Look::SendAgain)
                if row.desired == Desired::Published && row.expires_at.is_none_or(|e| e > inner.clock.now()) =>
            {
                Event::Absent { waited }
            }
            // Not to be sent any more, and so not to be asked that way: whether it is out, a person has to see.
            Ok(Look::SendAgain) => {
                let why = Words::new(
                    "只能重发才知道，而它已撤回或过期",
                    "only sending again would tell, and it is withdrawn or expired",
                );
                Event::Unseen { why, waited }
            }
            Ok(Look::Unaccounted(posts)) if are_others(inner, row, &posts).await? => {
                let why = Words::new(
                    "这个账号正有别的帖在途，稍后再看",
                    "another post of this account is under way; it is looked for again in a moment",
                );
                Event::Postponed { until: inner.clock.now() + A_MOMENT, why }
            }
            Ok(Look::Unaccounted(posts)) => Event::Unseen { why: unaccounted(&posts), waited },
            Ok(Look::Unproven(why)) => {
                inner.memory.hides(&row.account, None);
                Event::Unseen { why, waited }
            }
            Ok(Look::TurnedDown(class, why)) => Event::TurnedDown(class, why),
            Err(failure) => {
                with.extend(note_failure(inner, row, &failure, What::Look.of(row)));
                Event::Unseen { why: failure.words().clone(), waited }
            }
        };
        let is_absent = matches!(event, Event::Absent { .. });
        found = Some(event);
        if !is_absent {
            break;
        }
    }
    let event = found.expect("something is looked for");
    tracing::info!(account = %row.account, occurrence = %row.occurrence, looks = row.looks, found = event.name(), "looked");
    Ok((event, with))
}

/// Whether the posts that nobody accounts for may be those of other deliveries, of which more is known in a moment: their
/// answers came while the page was read, or are awaited, or they have not been looked for yet. No person is called for
/// that, unless it goes on and on.
async fn are_others(inner: &Inner, row: &Delivery, posts: &[Shown]) -> Result<bool, StepError> {
    let waited = inner.memory.waited(row.id);
    let calls_a_person = inner.config().settings_of(&row.account).is_some_and(|platform| {
        let plan = &platform.read_back;
        plan.next(waited).is_none() && waited <= plan.settle.unwrap_or_default() + A_WHILE
    });
    if !calls_a_person {
        return Ok(false);
    }
    let known =
        inner.ledger.receipts(row.account.clone(), row.id, row.first_send()).await.map_err(StepError::Ledger)?;
    let states = vec![State::Sending, State::Unknown];
    let filter = Filter { account: Some(row.account.to_string()), states, max: 100, ..Filter::default() };
    let others = inner.ledger.deliveries(filter).await.map_err(StepError::Ledger)?;
    let is_open = |other: &&Delivery| other.state == State::Sending || other.attempt > 0 && other.looks == 0;
    let open = others.iter().filter(|other| other.id != row.id).filter(is_open).count();
    Ok(posts.iter().filter(|post| !known.taken.contains(&post.id)).count() <= open)
}

/// The share of the account's calls that is kept for settling.
pub struct Share<'a> {
    inner: &'a Arc<Inner>,
    row: &'a Delivery,
    means: &'a Means,
}

impl<'a> Share<'a> {
    pub fn of(inner: &'a Arc<Inner>, row: &'a Delivery, means: &'a Means) -> Share<'a> {
        Share { inner, row, means }
    }

    /// Takes a call out of it, or says when there will be one.
    pub async fn take(&self) -> Result<Result<(), Time>, LedgerError> {
        let Share { inner, row, means } = self;
        let reserve = inner.config().settings.emergency.reserve;
        let use_ = if row.priority == Priority::Emergency { Use::Emergency } else { Use::Settle };
        match inner.memory.reserve(means.platform.settings(), &row.account, use_, false, reserve, inner.clock.now()) {
            Ok(calls) => inner.count(calls).await.map(Ok),
            Err(until) => Ok(Err(until)),
        }
    }
}

#[async_trait]
impl Purse for Share<'_> {
    async fn another(&self) -> bool {
        matches!(self.take().await, Ok(Ok(())))
    }
}

/// Why a post that was not recognised is not taken for missing.
fn unaccounted(posts: &[Shown]) -> Words {
    let Some(oldest) = posts.last() else { return Words::new("未认出", "not recognised") };
    let (n, id) = (posts.len(), shown(&oldest.id));
    let text = shown(&oldest.text.chars().take(24).collect::<String>());
    words!(
        "未认出；发送之后有 {n} 条不知来历的帖（{id} “{text}”）：fabu resolve 可看",
        "not recognised, and {n} posted since that nobody accounts for ({id} \"{text}\"): `fabu resolve` shows them"
    )
}

/// Looks once for a held delivery that the ledger cannot vouch for, so that its release need not wait for that.
pub async fn vouched(inner: &Arc<Inner>, row: &Delivery) -> Driven {
    let means = match Means::there(inner, row) {
        Ok(means) => means,
        Err(_) => return Ok(None),
    };
    if let Some(postponed) = paid(inner, row, &means).await {
        return postponed;
    }
    match looked(inner, row, &means).await? {
        (event @ (Event::Found { .. } | Event::Absent { .. }), with) => {
            let (event, _claimed) = claimed(inner, row, event);
            match event {
                Event::Unseen { .. } => Ok(None),
                event => written_with(inner, row, event, with).await,
            }
        }
        _ => Ok(None),
    }
}

/// The posts to look for: one with its own text, and one with that of the version which may have gone out before this
/// ledger knew.
async fn wanted(inner: &Inner, row: &Delivery, timeout: Duration) -> Result<Vec<Wanted>, StepError> {
    let mut all = vec![wanted_now(inner, row, timeout).await?];
    if let Some(hash) = row.doubted.as_ref().filter(|hash| **hash != row.content) {
        let content = inner.content(hash).await.map_err(StepError::Ledger)?;
        all.push(wanted_of(inner, row, &content, None, timeout).await?);
    }
    Ok(all)
}

/// The post with its own text.
pub async fn wanted_now(inner: &Inner, row: &Delivery, timeout: Duration) -> Result<Wanted, StepError> {
    let content = inner.content(&row.content).await.map_err(StepError::Ledger)?;
    wanted_of(inner, row, &content, row.prepared.as_deref(), timeout).await
}

async fn wanted_of(
    inner: &Inner,
    row: &Delivery,
    content: &Content,
    prepared: Option<&crate::core::delivery::Prepared>,
    timeout: Duration,
) -> Result<Wanted, StepError> {
    let platform = row.account.platform();
    let sent = row.first_send();
    let receipts = inner.ledger.receipts(row.account.clone(), row.id, sent).await.map_err(StepError::Ledger)?;
    let computed = || fit::full_text(content.body.text_for(platform), content.body.link.as_deref());
    // The platforms' times are compared with the clock as it is now, and it may have been stepped since the request
    // began: a doubt is as old as it is on one that is not.
    let now = inner.clock.now();
    let by_age = now - inner.memory.waited(row.id) - timeout;
    // A post that was to go "at once" before this ledger knew of it may have gone as soon as its file was there, or, for
    // what another machine's clock may have written down, a day before.
    let day = TimeDelta::days(1);
    let since = match (&row.doubted, &content.body.timing) {
        (Some(_), Timing::Now) => row.at.min(sent) - day,
        // The clock was put back, and perhaps while no process saw it: nobody knows how far.
        _ if sent > now => now - day,
        _ => row.at.min(sent).min(by_age),
    };
    Ok(Wanted {
        text: prepared.map_or_else(computed, |p| p.text.clone()),
        title: prepared.and_then(|p| p.title.clone()).or_else(|| content.body.title_for(platform).map(str::to_owned)),
        key: key(row),
        ticket: row.receipt.as_ref().and_then(|r| r.ticket.clone()),
        media: prepared.map(|p| p.media.clone()).unwrap_or_default(),
        since,
        // From the deadline of its request on the doubt is as old as it is, or as this process.
        until: Some(now - inner.memory.waited(row.id)),
        was_sent: row.attempt > 0,
        may_be_reworded: row.doubted.is_some() && content.body.timing != Timing::Now,
        above: prepared.and_then(|p| p.baseline.clone()),
        taken: receipts.taken,
        standing: receipts.standing,
        rivals: rivals(inner, row).await.map_err(StepError::Ledger)?,
    })
}

/// Texts of the account's other deliveries of which nobody knows yet whether they are out.
async fn rivals(inner: &Inner, row: &Delivery) -> Result<Vec<String>, LedgerError> {
    let states = vec![State::Sending, State::Unknown, State::Accepted];
    let filter = Filter { account: Some(row.account.to_string()), states, max: 100, ..Filter::default() };
    let mut texts = Vec::new();
    for other in inner.ledger.deliveries(filter).await?.iter().filter(|other| other.id != row.id) {
        texts.push(text_of(inner, other).await?);
    }
    Ok(texts)
}

/// The text of a delivery, as it was sent or will be.
pub async fn text_of(inner: &Inner, row: &Delivery) -> Result<String, LedgerError> {
    if let Some(prepared) = &row.prepared {
        return Ok(prepared.text.clone());
    }
    let content = inner.content(&row.content).await?;
    Ok(fit::full_text(content.body.text_for(row.account.platform()), content.body.link.as_deref()))
}

/// Whether the platform has named the post of a delivery it has accepted.
pub fn has_post(row: &Delivery) -> bool {
    row.receipt.as_ref().is_some_and(|receipt| !receipt.post_id.is_empty())
}

/// Takes down a post that is not to stand any more, until the platform confirms.
pub async fn take_down(inner: &Arc<Inner>, row: &Delivery, nudged: &CancellationToken) -> Driven {
    let Some(at) = row.next_at else { return Ok(None) };
    if !waited(inner, at, nudged).await {
        return Ok(None);
    }
    let Some(receipt) = row.receipt.as_ref() else { return Ok(None) };
    if let Some(left) = inner.pauses.left(&row.account, What::TakeDown.of(row), inner.clock.mono()) {
        return paused(inner, row, left).await;
    }
    let outcome = match Means::there(inner, row) {
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
    let (event, with) = match outcome {
        Ok(()) => (Event::TakenDown, Vec::new()),
        Err(failure) => {
            let with = note_failure(inner, row, &failure, What::TakeDown.of(row));
            tracing::warn!(account = %row.account, occurrence = %row.occurrence, reason = failure.words().en, "not taken down yet");
            let failure = match failure {
                // An answer that says nothing is asked for again like one that never came.
                Failure::Unclear(why) | Failure::Astray(why) => Failure::NotSent(why),
                other => other,
            };
            (Event::NotTakenDown(failure), with)
        }
    };
    written_with(inner, row, event, with).await
}
