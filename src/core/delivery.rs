//! The delivery: one occurrence to one account, its state machine and nothing else.
//!
//! `step` is the only place where a state changes, and where it is decided whether anything may be
//! sent again: only after proof that nothing was accepted. Whatever leaves doubt becomes `unknown`
//! and is read back. What is not in the table is `Illegal`, and is refused.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::accounts::AccountId;
use super::announcement::{AnnouncementId, ContentHash, OccurrenceId, Priority};
use super::policy::{ReadBack, Retry};
use super::{Time, words::Words};
pub use kinds::{Class, Failure, Prepared, Receipt, Scope, State, Wish};

mod kinds;
mod moves;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(pub i64);

impl DeliveryId {
    /// Of one that the ledger has not named yet.
    pub const NONE: DeliveryId = DeliveryId(0);
}

#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    pub id: DeliveryId,
    pub occurrence: OccurrenceId,
    pub announcement: AnnouncementId,
    pub account: AccountId,
    pub content: ContentHash,
    pub priority: Priority,
    pub state: State,
    /// When it next needs attention; `None` while it rests.
    pub next_at: Option<Time>,
    /// The release instant.
    pub at: Time,
    pub expires_at: Option<Time>,
    pub wish: Wish,
    /// Publish attempts armed so far.
    pub attempt: u16,
    /// Looks at the timeline since the last attempt.
    pub looks: u16,
    /// Deadline of the last request: looking starts from here.
    pub asked_until: Option<Time>,
    /// When the last request began.
    pub begun_at: Option<Time>,
    /// The platform called it a duplicate: absence then ends in `failed`, since a resend is refused again.
    pub called_duplicate: bool,
    /// `unknown` because the ledger cannot tell, not because a request went out.
    pub never_armed: bool,
    pub prepared: Option<Arc<Prepared>>,
    pub receipt: Option<Receipt>,
    pub class: Option<Class>,
    pub reason: Option<Words>,
    /// From the release instant to the first byte of the request that published it.
    pub lateness_ms: Option<f64>,
    /// One more with each change of the row.
    pub fence: i64,
}

/// What happens to a delivery.
#[derive(Clone, Debug)]
pub enum Event {
    Prepared(Prepared),
    PrepareFailed(Failure),
    /// It made its task panic twice: it is not tried again by itself.
    SetAside(Words),
    Edited {
        content: ContentHash,
        at: Time,
        expires_at: Option<Time>,
    },
    Withdrawn(Wish, Words),
    Expired,
    Armed {
        slot: Time,
        timeout: Duration,
        baseline: Option<String>,
    },
    /// No budget is left, or its account or platform has to wait.
    Postponed {
        until: Time,
        why: Words,
    },
    /// A hold or a missing confirmation stands in the way until then.
    GateClosed {
        until: Option<Time>,
        /// What is held lasts as long as it wishes itself, however long the hold.
        expires_at: Option<Time>,
        why: Words,
    },
    GateOpen {
        at: Time,
        expires_at: Option<Time>,
    },
    /// The request had not begun when it was stopped.
    StoppedBefore {
        held_until: Option<Time>,
        expires_at: Option<Time>,
        why: Words,
    },
    Answered {
        begun: Time,
        answer: Result<Receipt, Failure>,
    },
    /// The process that sent it is gone.
    OwnerGone(Words),
    Found(Receipt),
    /// The timeline was read, reaches back far enough, and does not show it.
    Absent,
    /// The timeline could not be read, or proves nothing.
    Unseen(Words),
    TurnedDown(Class, Words),
    /// The ledger is new, restored or cut.
    Doubted(Words),
    SettledPublished {
        url: Option<String>,
        post_id: String,
    },
    SettledNotPublished,
    TriedAgain {
        at: Time,
        expires_at: Option<Time>,
    },
    TakenDown,
    NotTakenDown(Failure),
}

impl Event {
    /// Whether it holds for the content it was made of, and for no other.
    pub fn is_of_words(&self) -> bool {
        matches!(self, Event::Prepared(_) | Event::PrepareFailed(_))
    }

    /// The event's name in the audit trail.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Prepared(_) => "prepared",
            Event::PrepareFailed(_) => "prepare_failed",
            Event::SetAside(_) => "set_aside",
            Event::Edited { .. } => "edited",
            Event::Withdrawn(..) => "withdrawn",
            Event::Expired => "expired",
            Event::Armed { .. } => "armed",
            Event::Postponed { .. } => "postponed",
            Event::GateClosed { .. } => "gate_closed",
            Event::GateOpen { .. } => "gate_open",
            Event::StoppedBefore { .. } => "stopped_before",
            Event::Answered { .. } => "answered",
            Event::OwnerGone(_) => "owner_gone",
            Event::Found(_) => "found",
            Event::Absent => "absent",
            Event::Unseen(_) => "unseen",
            Event::TurnedDown(..) => "turned_down",
            Event::Doubted(_) => "doubted",
            Event::SettledPublished { .. } => "settled_published",
            Event::SettledNotPublished => "settled_not_published",
            Event::TriedAgain { .. } => "tried_again",
            Event::TakenDown => "taken_down",
            Event::NotTakenDown(_) => "not_taken_down",
        }
    }
}

/// What `step` needs to know besides the delivery.
#[derive(Clone, Debug)]
pub struct Policy {
    pub retry: Retry,
    pub read_back: ReadBack,
    /// Drawn by the caller, from 0 to 1: spreads retries of many accounts.
    pub jitter: f64,
}

/// How an attempt ended, for the record of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Armed,
    NotBegun,
    Taken,
    NotSent,
    Refused,
    Unclear,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Armed => "armed",
            Outcome::NotBegun => "not_begun",
            Outcome::Taken => "taken",
            Outcome::NotSent => "not_sent",
            Outcome::Refused => "refused",
            Outcome::Unclear => "unclear",
        }
    }
}

/// A legal step: the new row, and what it does to the row's last attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub from: State,
    pub row: Delivery,
    pub attempt: Option<Outcome>,
    pub event: &'static str,
    /// What was prepared is as the ledger has it, and need not be written again.
    pub keeps_prepared: bool,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a delivery that is {} cannot be {event}", state.as_str())]
pub struct Illegal {
    pub state: State,
    pub event: &'static str,
}

/// The state machine: what follows from an event, or that it cannot be.
pub fn step(before: &Delivery, event: Event, now: Time, policy: &Policy) -> Result<Step, Illegal> {
    use State::*;
    let name = event.name();
    let illegal = Illegal { state: before.state, event: name };
    let mut row = Delivery { fence: before.fence + 1, ..before.clone() };
    let mut attempt = None;
    match (before.state, event) {
        (Scheduled, Event::Prepared(prepared)) => {
            row.prepared = Some(Arc::new(prepared));
            row.rest_until(Ready, Some(before.at.max(now)));
        }
        (Held, Event::Prepared(prepared)) => row.prepared = Some(Arc::new(prepared)),
        (Scheduled | Held, Event::PrepareFailed(failure)) => row.prepare_failed(failure, now, policy),
        (Scheduled | Ready | Held | Retrying, Event::SetAside(why)) => row.end(Failed, Some(Class::Platform), why),

        (Held, Event::Edited { content, at, .. }) if at == before.at => {
            // Other words for the hour it was kept back from still wait for a person's look.
            row.content = content;
            row.prepared = None;
        }
        (Scheduled | Ready | Held | Retrying | Cancelled | Expired, Event::Edited { content, at, expires_at }) => {
            row.content = content;
            row.begin_again(at, expires_at);
        }
        (Scheduled | Ready | Held | Retrying, Event::Withdrawn(wish, by)) => {
            row.wish = wish;
            row.end(Cancelled, None, by);
        }
        (Sending | Accepted | Unknown | Published, Event::Withdrawn(wish, by)) => {
            row.wish = row.wish.max(wish);
            row.reason = Some(by);
            if before.state == Published && wish == Wish::Gone {
                row.next_at = Some(now);
            }
        }
        (Scheduled | Ready | Held | Retrying, Event::Expired) => {
            row.end(Expired, None, Words::new("过了有效期", "it expired before it could go out"));
        }

        (Scheduled | Ready | Retrying | Held, Event::Armed { slot, timeout, baseline })
            if before.prepared.is_some() =>
        {
            // An earlier attempt may be out there after all: looking starts below the first of them.
            if let (0, Some(prepared)) = (before.attempt, &mut row.prepared)
                && prepared.baseline != baseline
            {
                Arc::make_mut(prepared).baseline = baseline;
            }
            row.attempt += 1;
            row.looks = 0;
            row.called_duplicate = false;
            row.never_armed = false;
            row.asked_until = Some(slot + timeout);
            // Until it is known better: after a crash this is when it can have begun.
            row.begun_at = Some(slot);
            row.rest_until(Sending, Some(slot + timeout));
            attempt = Some(Outcome::Armed);
        }
        (Scheduled | Ready | Retrying | Held, Event::GateClosed { until, expires_at, why }) => {
            row.expires_at = expires_at;
            row.hold(until, why);
        }
        (Held, Event::GateOpen { at, expires_at }) => row.begin_again(at, expires_at),
        (Sending, Event::StoppedBefore { held_until, expires_at, why }) => {
            attempt = Some(Outcome::NotBegun);
            if before.wish != Wish::Out {
                row.end(Cancelled, None, why);
            } else if before.expires_at.is_some_and(|e| e < now) {
                row.end(Expired, None, why);
            } else {
                row.expires_at = expires_at;
                row.hold(held_until, why);
            }
        }
        (Scheduled | Ready | Retrying | Unknown | Accepted | Published, Event::Postponed { until, why }) => {
            row.reason = Some(why);
            row.next_at = Some(until);
        }

        (Sending, Event::Answered { begun, answer }) => {
            row.begun_at = Some(begun);
            attempt = Some(row.answered(answer, begun, now, policy));
        }
        (Sending, Event::OwnerGone(why)) => {
            attempt = Some(Outcome::Unclear);
            row.doubt(why, row.asked_until.unwrap_or(now).min(now + policy.longest_wait()), policy);
        }

        (Unknown, Event::Found(receipt)) if before.called_duplicate && receipt.accepted_at < before.first_send() => {
            // An older post with the same text: it is not this one, and this one will never pass.
            let url = receipt.url.unwrap_or(receipt.post_id);
            let why = crate::words!("与已发的 {url} 内容相同，请改动文字", "same text as {url}; vary it");
            row.end(Failed, Some(Class::Content), why);
        }
        (Unknown | Accepted, Event::Found(receipt)) if !receipt.shown => {
            // It is there and under review: looked for until it is shown or turned down.
            row.receipt = Some(receipt);
            row.look_again(now, policy);
            row.state = Accepted;
        }
        (Unknown | Accepted, Event::Found(receipt)) => row.published(receipt, now),
        (Unknown, Event::Absent) => row.absent(now, policy),
        (Accepted, Event::Absent) => row.look_again(now, policy),
        (Unknown | Accepted, Event::Unseen(why)) => {
            row.reason = Some(why);
            row.look_again(now, policy);
        }
        (Accepted, Event::TurnedDown(class, why)) => row.end(Failed, Some(class), why),

        (Scheduled | Ready | Sending | Retrying | Held, Event::Doubted(why)) => {
            row.never_armed = before.attempt == 0;
            row.doubt(why, now, policy);
            row.next_at = Some(now);
        }
        (Unknown, Event::SettledPublished { url, post_id }) => {
            let receipt = Receipt { post_id, url, accepted_at: now, shown: true, read_back: true, ticket: None };
            row.published(receipt, now);
        }
        (Unknown, Event::SettledNotPublished) => row.retry_or_cancel(now, policy),
        (Failed | Expired, Event::TriedAgain { at, expires_at }) => {
            row.attempt = 0;
            row.wish = Wish::Out;
            row.begin_again(at, expires_at);
        }

        (Published, Event::TakenDown) => row.rest_until(Deleted, None),
        (Published, Event::NotTakenDown(failure)) => {
            row.looks = row.looks.saturating_add(1);
            let wait = match &failure {
                Failure::Later(wait, ..) => *wait,
                _ => policy.backoff(row.looks),
            };
            row.reason = Some(failure.words().clone());
            // A platform that says it never will is not asked again; a person sees why it still stands.
            row.next_at = (!matches!(failure, Failure::Refused(..))).then_some(now + wait);
        }
        _ => return Err(illegal),
    }
    let keeps_prepared = match (&before.prepared, &row.prepared) {
        // Of one that was armed straight from `scheduled` nothing is written yet.
        (Some(prepared), Some(after)) => before.state != Scheduled && Arc::ptr_eq(prepared, after),
        (prepared, after) => prepared.is_none() && after.is_none(),
    };
    Ok(Step { from: before.state, row, attempt, event: name, keeps_prepared })
}

impl Policy {
    /// The moment of the `n`th look after `from`; the last one is at the settling time.
    pub fn look(&self, from: Time, n: u16) -> Option<Time> {
        let n = usize::from(n);
        let after = &self.read_back.after;
        match after.get(n) {
            Some(wait) => Some(from + *wait),
            None if n == after.len() => self.read_back.settle.map(|s| from + s),
            // A timeline that failed at the settling time is asked a few times more before a person is.
            None if n < after.len() + 4 => self.read_back.settle.map(|s| from + s + s * (n - after.len()) as u32),
            None => None,
        }
    }

    /// Exponential, half of it drawn by chance.
    pub fn backoff(&self, attempt: u16) -> Duration {
        let doubled = self.retry.first.saturating_mul(1 << u32::from(attempt.saturating_sub(1)).min(20));
        doubled.min(self.retry.max).mul_f64(0.5 + self.jitter.clamp(0.0, 1.0) / 2.0)
    }

    pub(super) fn longest_wait(&self) -> Duration {
        self.read_back.settle.unwrap_or(Duration::from_secs(300))
    }
}

#[cfg(test)]
mod tests;
