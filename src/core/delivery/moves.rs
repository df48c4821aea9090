//! What a step does to a row: the parts of which `step` is put together.
//!
//! Nothing here decides whether it may happen; that is the table in `step`.

use std::time::Duration;

use chrono::TimeDelta;

use super::super::Time;
use super::super::words::Words;
use super::{Cause, Class, Delivery, Desired, Doubt, Edit, Failure, Outcome, Policy, Receipt, State, Stopped, Waited};
use crate::core::announcement::{ContentHash, Priority};
use crate::core::policy::MOST_MISSES;

/// A person is told of a post that is to be gone and has to stand for longer than this.
const A_MINUTE: Duration = Duration::from_secs(60);

fn too_late() -> Words {
    Words::new("过了有效期", "it expired before it could go out")
}

impl Delivery {
    /// It was to be taken down, and its platform would not.
    pub fn stands_wrongly(&self) -> bool {
        self.state == State::Published && self.needs_person
    }

    pub(super) fn rest_until(&mut self, state: State, next_at: Option<Time>) {
        self.state = state;
        self.next_at = next_at;
        self.needs_person = false;
    }

    pub(super) fn end(&mut self, state: State, class: Option<Class>, why: Words) {
        self.class = class;
        self.reason = Some(why);
        self.doubted = None;
        self.one_look = false;
        self.rest_until(state, None);
    }

    /// Its time is over; the reason that kept it from going until then is said with it.
    pub(super) fn expire(&mut self) {
        let kept =
            self.reason.take().filter(|_| matches!(self.state, State::Scheduled | State::Ready | State::Retrying));
        let Words { zh, en } = too_late();
        let why = match kept {
            Some(kept) => Words::new(format!("{zh}；此前：{}", kept.zh), format!("{en}; before that: {}", kept.en)),
            None => Words { zh, en },
        };
        self.end(State::Expired, None, why);
    }

    /// That moment, or its end where that comes first: nobody learns of it later than need be.
    pub(super) fn not_after_its_end(&self, at: Time, now: Time) -> Time {
        self.expires_at.map_or(at, |end| at.min(end.max(now)))
    }

    /// Not to be published any more, or not to stay so; a stronger order is never weakened.
    pub(super) fn stop(&mut self, desired: Desired, cause: Cause) {
        if desired >= self.desired || self.cause.is_none_or(Cause::is_of_queue) {
            self.cause = Some(cause);
        }
        self.desired = self.desired.max(desired);
    }

    /// This content of it may be out already, or nothing speaks for that.
    pub fn come_into(&mut self, doubt: Doubt, content: &ContentHash) {
        if doubt != Doubt::None {
            (self.doubted, self.one_look) = (Some(content.clone()), doubt == Doubt::OneLook);
        }
    }

    /// From the beginning, with what was prepared forgotten: a text or an hour has changed, or it was released.
    pub(super) fn begin_again(&mut self, at: Time, expires_at: Option<Time>, now: Time) {
        self.at = at;
        self.expires_at = expires_at;
        self.prepared = None;
        self.class = None;
        self.reason = None;
        self.cause = None;
        self.desired = Desired::Published;
        self.misses = 0;
        self.looks = 0;
        if self.doubted.is_some() {
            self.rest_until(State::Unknown, Some(now));
        } else {
            self.rest_until(State::Scheduled, Some(at));
        }
    }

    /// The queue has another version of it.
    pub(super) fn edited(&mut self, edit: Edit, now: Time) {
        let was = self.content.clone();
        let is_routine = self.priority != Priority::Emergency && edit.priority != Priority::Emergency;
        let is_held_back = self.state == State::Held && matches!(self.cause, Some(Cause::Hold | Cause::Review));
        self.content = edit.content;
        self.priority = edit.priority;
        if is_held_back && is_routine && edit.at == self.at {
            // Another text for the hour it was kept back from still waits for a person's review.
            self.prepared = None;
            self.expires_at = edit.held_until;
            self.next_at = [self.next_at, self.expires_at].into_iter().flatten().min();
            return;
        }
        self.attempt = 0;
        if self.doubted.is_none() {
            self.begun_at = None;
            self.come_into(edit.doubt, &was);
        }
        self.begin_again(edit.at, edit.expires_at, now);
    }

    pub(super) fn clock_stepped(&mut self, by: TimeDelta, is_at_once: bool) {
        let moved = |at: Time| at.checked_add_signed(by).unwrap_or(at);
        self.next_at = self.next_at.map(moved);
        if is_at_once && self.state != State::Published {
            self.at = moved(self.at);
            self.expires_at = self.expires_at.map(moved);
        }
    }

    pub(super) fn hold(&mut self, cause: Cause, until: Option<Time>, why: Words) {
        self.cause = Some(cause);
        self.reason = Some(why);
        self.rest_until(State::Held, [until, self.expires_at].into_iter().flatten().min());
    }

    pub(super) fn stopped_before(&mut self, stop: Stopped) {
        let withdrawn = || Words::new("已撤回", "withdrawn");
        match stop {
            _ if self.desired != Desired::Published => {
                let why = self.reason.take().unwrap_or_else(withdrawn);
                self.end(State::Cancelled, None, why);
            }
            // Whatever was changed besides, it was not sent, and is decided on anew.
            Stopped::Withdrawn => self.rest_until(State::Ready, Some(self.at)),
            Stopped::Ending(why) => {
                self.reason = Some(why);
                self.rest_until(State::Ready, Some(self.at));
            }
            Stopped::Expired => self.expire(),
            Stopped::Closed(why) => {
                self.stop(Desired::Stopped, Cause::Closed);
                self.end(State::Cancelled, None, why);
            }
            Stopped::Held { cause, until, expires_at, why } => {
                self.expires_at = expires_at;
                self.hold(cause, until, why);
            }
        }
    }

    pub(super) fn prepare_failed(&mut self, failure: Failure, now: Time, policy: &Policy) {
        self.misses = self.misses.saturating_add(1);
        match &failure {
            Failure::Refused(class, why) => self.end(State::Failed, Some(*class), why.clone()),
            Failure::Credential(_, why) => self.end(State::Failed, Some(Class::Credential), why.clone()),
            _ if self.misses > policy.retry.tries => {
                self.end(State::Failed, Some(failure.class()), failure.words().clone());
            }
            Failure::Later(wait, _, why) => {
                self.reason = Some(why.clone());
                self.next_at = Some(now + (*wait).max(policy.retry.first));
            }
            Failure::NotSent(why) | Failure::Duplicate(why) | Failure::Unclear(why) | Failure::Astray(why) => {
                self.reason = Some(why.clone());
                self.next_at = Some(now + policy.backoff(self.misses));
            }
        }
    }

    /// Returns the end of the attempt, and the time from now until read-back begins to count if it is in doubt.
    pub(super) fn answered(
        &mut self,
        answer: Result<Receipt, Failure>,
        begun: Time,
        left: Duration,
        now: Time,
        policy: &Policy,
    ) -> (Outcome, Option<Duration>) {
        let failure = match answer {
            Ok(receipt) => {
                self.lateness_ms = Some((begun - self.at).num_microseconds().unwrap_or(0) as f64 / 1000.0);
                return (Outcome::Taken, self.taken(receipt, now, policy));
            }
            Err(failure) => failure,
        };
        let why = failure.words().clone();
        match failure {
            Failure::NotSent(_) => {
                self.retry(Class::Platform, why, now, policy.backoff(self.attempt), policy);
                (Outcome::NotSent, None)
            }
            Failure::Later(wait, ..) => {
                let wait = wait.max(Duration::from_millis(100));
                self.retry(Class::Limit, why, now, wait, policy);
                (Outcome::NotSent, None)
            }
            Failure::Refused(class, _) => {
                self.end(State::Failed, Some(class), why);
                (Outcome::Refused, None)
            }
            Failure::Credential(..) => {
                self.end(State::Failed, Some(Class::Credential), why);
                (Outcome::Refused, None)
            }
            Failure::Duplicate(_) => {
                self.called_duplicate = true;
                (Outcome::Unclear, Some(self.doubt(why, Duration::ZERO, now, policy)))
            }
            // The platform may still be at work on it until the request's own deadline.
            Failure::Unclear(_) => (Outcome::Unclear, Some(self.doubt(why, left, now, policy))),
            Failure::Astray(_) => {
                let doubt_in = self.doubt(why, left, now, policy);
                self.class = Some(Class::Credential);
                (Outcome::Unclear, Some(doubt_in))
            }
        }
    }

    fn taken(&mut self, receipt: Receipt, now: Time, policy: &Policy) -> Option<Duration> {
        if receipt.shown {
            self.published(receipt, now);
            return None;
        }
        self.accepted(receipt, now, policy);
        Some(Duration::ZERO)
    }

    pub(super) fn published(&mut self, receipt: Receipt, now: Time) {
        self.receipt = Some(receipt);
        self.class = None;
        if self.desired != Desired::Removed {
            self.reason = None;
            self.cause = None;
        }
        self.looks = 0;
        self.misses = 0;
        (self.doubted, self.one_look) = (None, false);
        self.rest_until(State::Published, (self.desired == Desired::Removed).then_some(now));
    }

    /// Taken by the platform, and not shown yet.
    pub(super) fn accepted(&mut self, receipt: Receipt, now: Time, policy: &Policy) {
        self.receipt = Some(receipt);
        self.looks = 0;
        self.misses = 0;
        (self.doubted, self.one_look) = (None, false);
        let next = policy.read_back.next(Duration::ZERO).unwrap_or_else(|| policy.read_back.later(1));
        self.rest_until(State::Accepted, Some(now + next));
        if self.desired == Desired::Removed {
            self.next_at = Some(now);
        }
    }

    pub(super) fn retry(&mut self, class: Class, why: Words, now: Time, wait: Duration, policy: &Policy) {
        if self.desired != Desired::Published {
            self.end(State::Cancelled, None, why);
        } else if self.attempt >= policy.retry.tries {
            self.end(State::Failed, Some(class), why);
        } else {
            self.reason = Some(why);
            let next = self.not_after_its_end(now + wait, now);
            self.rest_until(State::Retrying, Some(next));
        }
    }

    /// It is not out there, and that is proved: sent (again), unless nobody wants that any more.
    pub(super) fn not_published(&mut self, now: Time, policy: &Policy) {
        let is_late = self.expires_at.is_some_and(|e| e < now);
        (self.doubted, self.one_look, self.misses) = (None, false, 0);
        if self.desired != Desired::Published {
            self.end(State::Cancelled, None, Words::new("已撤回", "withdrawn"));
        } else if is_late {
            self.expire();
        } else if self.attempt == 0 {
            self.reason = None;
            self.prepared = None;
            self.begun_at = None;
            self.rest_until(State::Scheduled, Some(self.at.max(now)));
        } else {
            let why = Words::new("平台上没有这一条", "the platform does not have it");
            self.retry(Class::Platform, why, now, Duration::ZERO, policy);
        }
    }

    /// Returns how long from now read-back begins to count.
    pub(super) fn doubt(&mut self, why: Words, left: Duration, now: Time, policy: &Policy) -> Duration {
        self.reason = Some(why);
        self.looks = 0;
        self.misses = 0;
        let first = policy.read_back.next(Duration::ZERO).unwrap_or_else(|| policy.read_back.later(1));
        self.rest_until(State::Unknown, Some(now + left + first));
        left
    }

    /// As planned while there is a plan; after that, more and more seldom, up to a day. A read that failed uses up
    /// nothing, and a person is told once the plan has come to its end without proof.
    pub(super) fn look_again(&mut self, waited: Waited, is_miss: bool, now: Time, policy: &Policy) {
        self.looks = self.looks.saturating_add(1);
        if let Some(next) = policy.read_back.next(waited) {
            self.next_at = Some(now + (next - waited));
            return;
        }
        self.needs_person = true;
        if crate::planted("error_is_the_end") {
            return self.next_at = None;
        }
        if is_miss || self.state == State::Accepted || policy.read_back.settle.is_none() {
            self.misses = self.misses.saturating_add(1);
        }
        self.next_at = (self.misses <= MOST_MISSES).then(|| now + policy.read_back.later(self.misses));
    }

    pub(super) fn absent(&mut self, waited: Waited, now: Time, policy: &Policy) {
        if !self.is_long_enough(waited, policy) {
            self.look_again(waited, false, now, policy);
        } else if self.called_duplicate && self.desired == Desired::Published {
            let why = Words::new(
                "平台说内容重复，时间线上又没有：请改动文字再发",
                "the platform calls it a duplicate and does not show it: vary the text",
            );
            self.end(State::Failed, Some(Class::Content), why);
        } else {
            self.not_published(now, policy);
        }
    }

    pub(super) fn not_taken_down(&mut self, failure: Failure, now: Time, policy: &Policy) {
        self.misses = self.misses.saturating_add(1);
        let wait = match &failure {
            Failure::Later(wait, ..) => *wait,
            // It may think better of it: asked again, more and more seldom.
            Failure::Refused(..) => policy.read_back.later(self.misses),
            _ => policy.backoff(self.misses),
        };
        let is_refused = matches!(failure, Failure::Refused(..) | Failure::Credential(..)) || wait > A_MINUTE;
        self.needs_person |= is_refused || self.misses > policy.retry.tries;
        self.reason = Some(failure.words().clone());
        self.next_at = Some(now + wait);
    }

    /// Whether absence may be believed after a doubt of this length.
    pub(super) fn is_long_enough(&self, waited: Waited, policy: &Policy) -> bool {
        self.one_look || policy.read_back.settle.is_some_and(|settle| waited >= settle) && !self.is_a_persons()
    }

    /// Whether absence proves nothing, however long it lasts. The ledger is older than it was, and what it has forgotten
    /// may be that this emergency was false and was taken down: no timeline shows that. Or its platform has said that
    /// it made the post another account's: then it is not looked for where it stands.
    fn is_a_persons(&self) -> bool {
        let is_behind = self.doubted.is_some() && !self.one_look;
        let may_be_false = is_behind && self.priority == Priority::Emergency && self.desired == Desired::Published;
        let is_astray = self.class == Some(Class::Credential);
        self.state == State::Unknown && (may_be_false || is_astray)
    }

    /// Whether the queue still decides about it: nobody but the queue has stopped it.
    pub fn is_the_queues(&self) -> bool {
        self.desired == Desired::Published
            || self.cause.is_some_and(Cause::is_of_queue)
            || crate::planted("edit_revives")
    }

    /// It was not sent because its account was suspended or closed, and nothing else has stopped it.
    pub fn is_closed(&self) -> bool {
        self.state == State::Cancelled && self.cause == Some(Cause::Closed)
    }

    /// The earliest at which this delivery can have been on the platform.
    pub fn first_send(&self) -> Time {
        self.begun_at.unwrap_or(self.at)
    }
}
