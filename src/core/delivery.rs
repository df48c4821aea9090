//! The delivery: one occurrence to one account, its state machine and nothing else.
//!
//! `step` is the only place where a state changes, and where it is decided whether anything may be
//! sent again: only after proof that nothing was accepted. An outcome that leaves doubt becomes `unknown`
//! and is read back. A pair of state and event that is not in the table is `Illegal`, and is refused.
//!
//! An event says what it is about (which attempt, which content), so that it can never be applied to
//! what the row has become meanwhile: whoever meets a conflict reads the row again and decides again.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::accounts::AccountId;
use super::announcement::{AnnouncementId, ContentHash, OccurrenceId, Priority};
use super::policy::{ReadBack, Retry};
use super::{Time, words::Words};
pub use kinds::{Cause, Class, Desired, Doubt, Failure, Prepared, Receipt, Scope, State};
pub use orders::{Reach, Stop, Where, is_coming, later_word, newest, stopped, undecided};

mod kinds;
mod moves;
mod orders;

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
    /// That of its content, and set with it.
    pub priority: Priority,
    pub state: State,
    /// Why it is held or stopped; `None` in every other state, and once it is released again.
    pub cause: Option<Cause>,
    pub desired: Desired,
    /// When it next needs attention; `None` while it rests.
    pub next_at: Option<Time>,
    /// The release instant.
    pub at: Time,
    pub expires_at: Option<Time>,
    /// Publish attempts armed so far.
    pub attempt: u16,
    /// Reads of the timeline since the last attempt.
    pub looks: u16,
    /// Tries in a row that came to nothing, at what it is at now: preparing, reading back, taking down.
    pub misses: u16,
    /// The earliest that its first request can have begun; after the answer to the first, when that began.
    pub begun_at: Option<Time>,
    /// The platform called it a duplicate: absence then ends in `failed`, since a resend is refused again.
    pub called_duplicate: bool,
    /// The ledger cannot tell whether this content went out before: looked for before it is sent.
    pub doubted: Option<ContentHash>,
    /// No request of this ledger's can be under way: one honest read of the timeline is enough to believe in absence.
    pub one_look: bool,
    /// A person has been told: read-back has come to an end without proof so far, or a take-down is refused.
    pub needs_person: bool,
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
    /// Its preparation cannot be used any more: it is prepared again.
    Unprepared(Words),
    /// It made its task panic twice: it is not tried again by itself.
    SetAside(Words),
    Edited(Edit),
    Withdrawn {
        desired: Desired,
        cause: Cause,
        why: Words,
    },
    Expired,
    /// It is late, and a newer occurrence of its repeat has come.
    Overtaken,
    Armed {
        slot: Time,
        baseline: Option<String>,
    },
    /// No budget is left, or its account or platform has to wait.
    Postponed {
        until: Time,
        why: Words,
    },
    /// Something stands in the way until then.
    GateClosed {
        cause: Cause,
        until: Option<Time>,
        /// A held delivery lasts as long as its own `expires_after`, however long the hold.
        expires_at: Option<Time>,
        why: Words,
    },
    GateOpen {
        at: Time,
        expires_at: Option<Time>,
    },
    /// The request of this attempt had not begun when it was stopped.
    StoppedBefore {
        attempt: u16,
        stop: Stopped,
    },
    Answered {
        attempt: u16,
        begun: Time,
        /// Until the request's own deadline, from now: the platform may be at work on it until then.
        left: Duration,
        answer: Result<Receipt, Failure>,
    },
    /// The process that sent it is gone; the platform may be at work on its request for so long.
    OwnerGone {
        why: Words,
        left: Duration,
    },
    /// The timeline shows it, or lists it as being under review.
    Found {
        receipt: Receipt,
        waited: Waited,
    },
    /// The timeline was read, reaches back far enough, and does not show it.
    Absent {
        waited: Waited,
    },
    /// The timeline could not be read, or proves nothing.
    Unseen {
        why: Words,
        waited: Waited,
    },
    TurnedDown(Class, Words),
    /// The ledger cannot tell whether it went out: it is new, restored, or was away when it came due.
    Doubted {
        why: Words,
        one_look: bool,
    },
    SettledPublished(Receipt),
    SettledNotPublished,
    TriedAgain {
        at: Time,
        expires_at: Option<Time>,
        /// It ended before this process began: for all this ledger knows another one has tried it again since.
        doubt: Doubt,
    },
    TakenDown,
    NotTakenDown(Failure),
    /// The wall clock was stepped by so much: what waits for a length of time goes on waiting for the same length. What
    /// is to go at once has no hour of its own: its instant and its end move with the clock.
    ClockStepped {
        by: TimeDelta,
        is_at_once: bool,
    },
}

/// How long the doubt about a delivery has lasted, on a clock that neither steps nor stops, in this process alone:
/// from the latest instant at which its request can have been under way.
pub type Waited = Duration;

/// The newest version of a delivery, as the queue has it.
#[derive(Clone, Debug)]
pub struct Edit {
    pub content: ContentHash,
    pub priority: Priority,
    pub at: Time,
    pub expires_at: Option<Time>,
    /// How long it lasts where a hold keeps it back.
    pub held_until: Option<Time>,
    /// Its new instant was over when this process started: another one may have published it.
    pub doubt: Doubt,
}

/// Why a request was not let out.
#[derive(Clone, Debug)]
pub enum Stopped {
    /// Somebody stopped the delivery after it was armed; the row says how.
    Withdrawn,
    /// The daemon stops: after its start it is simply due again.
    Ending(Words),
    Expired,
    Closed(Words),
    Held {
        cause: Cause,
        until: Option<Time>,
        expires_at: Option<Time>,
        why: Words,
    },
}

impl Event {
    /// The event's name in the audit trail.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Prepared(_) => "prepared",
            Event::PrepareFailed(_) => "prepare_failed",
            Event::Unprepared(_) => "unprepared",
            Event::SetAside(_) => "set_aside",
            Event::Edited(_) => "edited",
            Event::Withdrawn { .. } => "withdrawn",
            Event::Expired => "expired",
            Event::Overtaken => "overtaken",
            Event::Armed { .. } => "armed",
            Event::Postponed { .. } => "postponed",
            Event::GateClosed { .. } => "gate_closed",
            Event::GateOpen { .. } => "gate_open",
            Event::StoppedBefore { .. } => "stopped_before",
            Event::Answered { .. } => "answered",
            Event::OwnerGone { .. } => "owner_gone",
            Event::Found { .. } => "found",
            Event::Absent { .. } => "absent",
            Event::Unseen { .. } => "unseen",
            Event::TurnedDown(..) => "turned_down",
            Event::Doubted { .. } => "doubted",
            Event::SettledPublished(_) => "settled_published",
            Event::SettledNotPublished => "settled_not_published",
            Event::TriedAgain { .. } => "tried_again",
            Event::TakenDown => "taken_down",
            Event::NotTakenDown(_) => "not_taken_down",
            Event::ClockStepped { .. } => "clock_stepped",
        }
    }
}

/// What `step` needs to know besides the delivery. The default is for events that wait for nothing and try nothing
/// again.
#[derive(Clone, Debug, Default)]
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
    /// With this step a doubt begins; read-back counts from this long after it.
    pub doubt_in: Option<Duration>,
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
    let mut doubt_in = None;
    match (before.state, event) {
        (Scheduled, Event::Prepared(prepared)) => {
            row.prepared = Some(Arc::new(prepared));
            row.misses = 0;
            row.rest_until(Ready, Some(before.at.max(now)));
        }
        (Held | Retrying, Event::Prepared(prepared)) => row.prepared = Some(Arc::new(prepared)),
        (Scheduled | Held | Retrying, Event::PrepareFailed(failure)) => row.prepare_failed(failure, now, policy),
        (Ready | Retrying, Event::Unprepared(why)) => {
            row.prepared = None;
            row.reason = Some(why);
            let state = if before.state == Ready { Scheduled } else { Retrying };
            row.rest_until(state, Some(before.at));
        }
        (Scheduled | Ready | Held | Retrying, Event::SetAside(why)) => row.end(Failed, Some(Class::Platform), why),

        (Scheduled | Ready | Held | Expired | Cancelled, Event::Edited(edit)) if before.is_the_queues() => {
            row.edited(edit, now);
        }
        // It failed while it was prepared: another text may pass.
        (Failed, Event::Edited(edit)) if before.is_the_queues() && before.attempt == 0 => row.edited(edit, now),
        // Whether its old version went out is not known yet: that is found out first.
        (Unknown, Event::Edited(edit)) if before.is_the_queues() && before.doubted.is_some() && before.attempt == 0 => {
            row.edited(edit, now);
        }

        (Scheduled | Ready | Held | Retrying, Event::Withdrawn { desired, cause, why }) => {
            row.stop(desired, cause);
            row.end(Cancelled, None, why);
        }
        (Sending | Accepted | Unknown, Event::Withdrawn { .. }) if crate::planted("stop_misses_what_is_out") => {}
        (Sending | Accepted | Unknown, Event::Withdrawn { desired, cause, why }) => {
            row.stop(desired, cause);
            row.reason = Some(why);
            if before.state == Accepted && desired == Desired::Removed {
                row.next_at = Some(now);
            }
        }
        (Published, Event::Withdrawn { desired: Desired::Removed, cause, why }) => {
            row.stop(Desired::Removed, cause);
            row.reason = Some(why);
            row.misses = 0;
            row.next_at = Some(now);
        }
        // It has ended, and never begins again.
        (Failed | Expired, Event::Withdrawn { desired, cause, .. }) => row.stop(desired, cause),
        (Cancelled, Event::Withdrawn { desired, cause, why })
            if before.cause.is_some_and(Cause::is_of_queue) && !cause.is_of_queue() =>
        {
            row.stop(desired, cause);
            row.reason = Some(why);
        }
        (Scheduled | Ready | Held | Retrying, Event::Expired) => row.expire(),
        (Scheduled | Ready | Retrying | Held, Event::Overtaken) => {
            let why = Words::new("错过了，更新的一次已到时刻", "missed, and a newer occurrence has come");
            row.end(Expired, None, why);
        }

        (Scheduled | Ready | Retrying | Held, Event::Armed { slot, baseline })
            if before.prepared.is_some() && before.doubted.is_none() && before.desired == Desired::Published =>
        {
            // An earlier attempt may be out there after all: looking starts below the first of them.
            if let (0, Some(prepared)) = (before.attempt, &mut row.prepared)
                && prepared.baseline != baseline
            {
                Arc::make_mut(prepared).baseline = baseline;
            }
            // Until it is known better: after a crash this is when it can have begun at the earliest.
            if before.attempt == 0 {
                row.begun_at = Some(slot);
            }
            row.attempt += 1;
            row.looks = 0;
            row.misses = 0;
            row.cause = None;
            row.called_duplicate = false;
            row.rest_until(Sending, Some(slot));
            attempt = Some(Outcome::Armed);
        }
        (Scheduled | Ready | Retrying | Held, Event::GateClosed { cause, until, expires_at, why }) => {
            row.expires_at = expires_at;
            row.hold(cause, until, why);
        }
        (Held, Event::GateOpen { at, expires_at }) => row.begin_again(at, expires_at, now),
        (Sending, Event::StoppedBefore { attempt: of, stop }) if of == before.attempt => {
            attempt = Some(Outcome::NotBegun);
            row.attempt -= 1;
            row.stopped_before(stop);
        }
        (Scheduled | Ready | Retrying | Unknown | Accepted | Published, Event::Postponed { until, why }) => {
            row.reason = Some(why);
            let is_to_be_sent = matches!(before.state, Scheduled | Ready | Retrying);
            row.next_at = Some(if is_to_be_sent { row.not_after_its_end(until, now) } else { until });
        }

        (Sending, Event::Answered { attempt: of, begun, left, answer }) if of == before.attempt => {
            if of == 1 {
                row.begun_at = Some(begun);
            }
            let (outcome, doubt) = row.answered(answer, begun, left, now, policy);
            (attempt, doubt_in) = (Some(outcome), doubt);
        }
        (Sending, Event::OwnerGone { why, left }) => {
            attempt = Some(Outcome::Unclear);
            doubt_in = Some(row.doubt(why, left, now, policy));
        }

        (Unknown, Event::Found { receipt, .. })
            if before.called_duplicate && receipt.accepted_at < before.first_send() =>
        {
            // An older post with the same text: it is not this one, and this one will never pass.
            let url = receipt.url.unwrap_or(receipt.post_id);
            let why = crate::words!("与已发的 {url} 内容相同，请改动文字", "same text as {url}; vary it");
            row.end(Failed, Some(Class::Content), why);
        }
        // It is there and under review: looked for until it is shown or turned down.
        (Unknown, Event::Found { receipt, .. }) if !receipt.shown => {
            row.accepted(receipt, now, policy);
            doubt_in = Some(Duration::ZERO);
        }
        (Accepted, Event::Found { receipt, waited }) if !receipt.shown => {
            // Once it is named it can be taken down.
            let is_named = !receipt.post_id.is_empty();
            row.receipt = Some(receipt);
            row.look_again(waited, false, now, policy);
            if is_named && before.desired == Desired::Removed {
                row.next_at = Some(now);
            }
        }
        (Unknown | Accepted, Event::Found { receipt, .. }) => row.published(receipt, now),
        (Held, Event::Found { receipt, .. }) if before.doubted.is_some() => row.published(receipt, now),
        (Unknown, Event::Absent { waited }) => row.absent(waited, now, policy),
        (Held, Event::Absent { waited }) if before.doubted.is_some() && before.is_long_enough(waited, policy) => {
            (row.doubted, row.one_look) = (None, false);
        }
        (Accepted, Event::Absent { waited }) => row.look_again(waited, false, now, policy),
        (Unknown | Accepted, Event::Unseen { why, waited }) => {
            row.reason = Some(why);
            row.look_again(waited, true, now, policy);
        }
        (Unknown | Accepted, Event::TurnedDown(class, why)) => row.end(Failed, Some(class), why),

        (Scheduled | Ready | Sending | Retrying | Held | Unknown, Event::Doubted { why, one_look }) => {
            row.doubted = Some(before.content.clone());
            row.one_look = one_look && !matches!(before.state, Sending | Unknown);
            if before.state != Held {
                doubt_in = Some(row.doubt(why, Duration::ZERO, now, policy));
                row.next_at = Some(now);
            }
        }
        // A post that was given up after an answer was lost may be there all the same.
        (Unknown | Accepted | Failed | Expired | Cancelled | Deleted, Event::SettledPublished(receipt)) => {
            row.published(receipt, now);
        }
        (Unknown, Event::SettledNotPublished) => row.not_published(now, policy),
        // Its platform would not take it down, and somebody has done it by hand.
        (Published, Event::SettledNotPublished) if before.stands_wrongly() => row.rest_until(Deleted, None),
        (Accepted, Event::SettledNotPublished) => {
            // Taken and not shown: sent again it could be there twice, if its review passes after all.
            row.end(
                Failed,
                Some(Class::Policy),
                Words::new("平台收下而没有展示", "taken by the platform and not shown"),
            );
        }
        (Failed | Expired | Cancelled, Event::TriedAgain { at, expires_at, doubt })
            if before.is_closed()
                || before.state != Cancelled
                    && (before.desired == Desired::Published || crate::planted("ended_is_tried_again")) =>
        {
            row.attempt = 0;
            // The ticket that the platform gave an earlier attempt tells nothing of this one.
            row.receipt = None;
            row.come_into(doubt, &before.content);
            row.begin_again(at, expires_at, now);
        }

        (Published | Accepted, Event::TakenDown) if before.desired == Desired::Removed => row.rest_until(Deleted, None),
        (Published | Accepted, Event::NotTakenDown(failure)) if before.desired == Desired::Removed => {
            row.not_taken_down(failure, now, policy);
        }
        (Retrying | Unknown | Accepted | Published, Event::ClockStepped { by, is_at_once })
            if before.next_at.is_some() =>
        {
            row.clock_stepped(by, is_at_once);
        }
        // A row with its intent that has not begun is decided on anew; one that is on the wire is answered for all the same.
        (Scheduled | Ready | Held | Sending, Event::ClockStepped { by, is_at_once: true }) => {
            row.clock_stepped(by, true);
        }
        _ => return Err(illegal),
    }
    let keeps_prepared = match (&before.prepared, &row.prepared) {
        // Of one that was armed straight from `scheduled` nothing is written yet.
        (Some(prepared), Some(after)) => before.state != Scheduled && Arc::ptr_eq(prepared, after),
        (prepared, after) => prepared.is_none() && after.is_none(),
    };
    Ok(Step { from: before.state, row, attempt, event: name, keeps_prepared, doubt_in })
}

impl Policy {
    /// Exponential, half of it drawn by chance.
    pub fn backoff(&self, attempt: u16) -> Duration {
        let doubled = self.retry.first.saturating_mul(1 << u32::from(attempt.saturating_sub(1)).min(20));
        doubled.min(self.retry.max).mul_f64(0.5 + self.jitter.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests;
