//! What a step does to a row: the parts of which `step` is put together.
//!
//! Nothing here decides whether it may happen; that is the table in `step`.

use std::time::Duration;

use super::super::Time;
use super::super::words::Words;
use super::{Class, Delivery, Failure, Outcome, Policy, Receipt, State, Wish};

impl Delivery {
    pub(super) fn rest_until(&mut self, state: State, next_at: Option<Time>) {
        self.state = state;
        self.next_at = next_at;
    }

    pub(super) fn end(&mut self, state: State, class: Option<Class>, why: Words) {
        self.class = class;
        self.reason = Some(why);
        self.rest_until(state, None);
    }

    /// From the beginning, with what was prepared forgotten: a text or an hour has changed.
    pub(super) fn begin_again(&mut self, at: Time, expires_at: Option<Time>) {
        self.at = at;
        self.expires_at = expires_at;
        self.prepared = None;
        self.class = None;
        self.reason = None;
        self.wish = Wish::Out;
        self.rest_until(State::Scheduled, Some(at));
    }

    pub(super) fn hold(&mut self, until: Option<Time>, why: Words) {
        self.reason = Some(why);
        self.rest_until(State::Held, [until, self.expires_at].into_iter().flatten().min());
    }

    pub(super) fn prepare_failed(&mut self, failure: Failure, now: Time, policy: &Policy) {
        self.looks = self.looks.saturating_add(1);
        match &failure {
            Failure::Refused(class, why) => self.end(State::Failed, Some(*class), why.clone()),
            Failure::Credential(_, why) => self.end(State::Failed, Some(Class::Credential), why.clone()),
            _ if self.looks > policy.retry.tries => {
                self.end(State::Failed, Some(failure.class()), failure.words().clone());
            }
            Failure::Later(wait, _, why) => {
                self.reason = Some(why.clone());
                self.next_at = Some(now + (*wait).max(policy.retry.first));
            }
            Failure::NotSent(why) | Failure::Duplicate(why) | Failure::Unclear(why) => {
                self.reason = Some(why.clone());
                self.next_at = Some(now + policy.backoff(self.looks));
            }
        }
    }

    pub(super) fn answered(
        &mut self,
        answer: Result<Receipt, Failure>,
        begun: Time,
        now: Time,
        policy: &Policy,
    ) -> Outcome {
        // Looking starts at the deadline, or now if the answer came sooner and said nothing.
        let failure = match answer {
            Ok(receipt) => {
                self.lateness_ms = Some((begun - self.at).num_microseconds().unwrap_or(0) as f64 / 1000.0);
                self.taken(receipt, now, policy);
                return Outcome::Taken;
            }
            Err(failure) => failure,
        };
        let why = failure.words().clone();
        match failure {
            Failure::NotSent(_) => {
                self.retry(Class::Platform, why, now, policy.backoff(self.attempt), policy);
                Outcome::NotSent
            }
            Failure::Later(wait, ..) => {
                let wait = wait.max(Duration::from_millis(100));
                self.retry(Class::Limit, why, now, wait, policy);
                Outcome::NotSent
            }
            Failure::Refused(class, _) => {
                self.end(State::Failed, Some(class), why);
                Outcome::Refused
            }
            Failure::Credential(..) => {
                self.end(State::Failed, Some(Class::Credential), why);
                Outcome::Refused
            }
            Failure::Duplicate(_) => {
                self.called_duplicate = true;
                self.doubt(why, now, policy);
                Outcome::Unclear
            }
            Failure::Unclear(_) => {
                // The platform may still be at work on it until the request's own deadline.
                self.doubt(why, self.asked_until.unwrap_or(now), policy);
                Outcome::Unclear
            }
        }
    }

    pub(super) fn taken(&mut self, receipt: Receipt, now: Time, policy: &Policy) {
        if receipt.shown {
            self.published(receipt, now);
        } else {
            self.receipt = Some(receipt);
            self.asked_until = Some(now);
            self.looks = 0;
            self.rest_until(State::Accepted, policy.look(now, 0));
        }
    }

    pub(super) fn published(&mut self, receipt: Receipt, now: Time) {
        self.receipt = Some(receipt);
        self.class = None;
        self.reason = None;
        self.looks = 0;
        self.rest_until(State::Published, (self.wish == Wish::Gone).then_some(now));
    }

    pub(super) fn retry(&mut self, class: Class, why: Words, now: Time, wait: Duration, policy: &Policy) {
        if self.wish != Wish::Out {
            self.end(State::Cancelled, None, why);
        } else if self.attempt >= policy.retry.tries {
            self.end(State::Failed, Some(class), why);
        } else {
            self.reason = Some(why);
            self.rest_until(State::Retrying, Some(now + wait));
        }
    }

    pub(super) fn retry_or_cancel(&mut self, now: Time, policy: &Policy) {
        let why = Words::new("平台上没有这一条", "the platform does not have it");
        self.retry(Class::Platform, why, now, Duration::ZERO, policy);
    }

    pub(super) fn doubt(&mut self, why: Words, looking_from: Time, policy: &Policy) {
        self.reason = Some(why);
        self.looks = 0;
        self.asked_until = Some(looking_from);
        self.rest_until(State::Unknown, policy.look(looking_from, 0).or(Some(looking_from)));
    }

    pub(super) fn look_again(&mut self, now: Time, policy: &Policy) {
        self.looks = self.looks.saturating_add(1);
        let from = self.asked_until.unwrap_or(now);
        self.next_at = policy.look(from, self.looks).map(|at| at.max(now));
    }

    pub(super) fn absent(&mut self, now: Time, policy: &Policy) {
        if self.never_armed {
            // A single look is enough where no request is known to have gone out.
            let late = self.expires_at.is_some_and(|e| e < now);
            self.never_armed = false;
            if self.wish != Wish::Out {
                self.end(State::Cancelled, None, Words::new("已撤回", "withdrawn"));
            } else if late {
                self.end(State::Expired, None, Words::new("过了有效期", "it expired before it could go out"));
            } else {
                self.reason = None;
                self.rest_until(State::Scheduled, Some(self.at.max(now)));
            }
            return;
        }
        let believed = match (self.asked_until, policy.read_back.settle) {
            (Some(from), Some(settle)) => now >= from + settle,
            _ => false,
        };
        if !believed {
            self.look_again(now, policy);
        } else if self.wish != Wish::Out {
            self.end(State::Cancelled, None, Words::new("已撤回", "withdrawn"));
        } else if self.called_duplicate {
            let why = Words::new(
                "平台说内容重复，时间线上又没有：请改动文字再发",
                "the platform calls it a duplicate and does not show it: vary the text",
            );
            self.end(State::Failed, Some(Class::Content), why);
        } else if self.expires_at.is_some_and(|e| e < now) {
            self.end(State::Expired, None, Words::new("过了有效期", "it expired before it could go out"));
        } else {
            self.retry_or_cancel(now, policy);
        }
    }

    /// When this delivery first could have been on the platform.
    pub fn first_send(&self) -> Time {
        self.begun_at.unwrap_or(self.at)
    }
}
