//! The doorway between a built request and the wire.
//!
//! An adapter builds its request ahead and hands it to this `Http`, which holds it until the instant,
//! looks once more at what could forbid it — a stop, the expiry, the gate in memory — and lets it out.
//! So nothing but the sending itself lies between T and the first byte, and what was withdrawn or
//! held a moment ago does not go.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::TimeDelta;
use http::{Request, Response};

use super::lane::Leaving;
use super::release::Slot;
use super::send::{expired, held_expiry, verdict_of};
use super::{Inner, lock};
use crate::clock::Time;
use crate::core::announcement::Content;
use crate::core::delivery::{Delivery, Event, Failure};
use crate::core::gate::Verdict;
use crate::core::words::Words;
use crate::platform::{Http, Lane, Lost, Room};

/// What became of the request at the doorway.
pub enum Passed {
    Begun(Time),
    Stopped(Event),
    /// It never came.
    Never,
}

pub struct Doorway<'a> {
    inner: &'a Arc<Inner>,
    row: &'a Delivery,
    content: &'a Content,
    slot: Time,
    together: Arc<Slot>,
    /// An emergency's: routine steps aside as long as it is there.
    leaving: Mutex<Option<Leaving>>,
    passed: Mutex<Passed>,
}

impl<'a> Doorway<'a> {
    pub fn new(
        inner: &'a Arc<Inner>,
        row: &'a Delivery,
        content: &'a Content,
        slot: Time,
        leaving: Option<Leaving>,
    ) -> Doorway<'a> {
        let together = inner.instants.join(&inner.clock, slot);
        Doorway { inner, row, content, slot, together, leaving: Mutex::new(leaving), passed: Mutex::new(Passed::Never) }
    }

    /// Its request is on its way, or is no part of the burst any more.
    fn began(&self) {
        self.together.began();
        lock(&self.leaving).take();
    }

    /// What happened here.
    pub fn into_outcome(self) -> Passed {
        let passed = std::mem::replace(&mut *lock(&self.passed), Passed::Never);
        if matches!(passed, Passed::Never) {
            self.began();
        }
        passed
    }

    /// The reason not to let it out now, as the event it makes.
    fn forbidden(&self, now: Time) -> Option<Event> {
        let expires_at = held_expiry(self.row, &self.content.body);
        let stopped = |why: Words, held_until| Some(Event::StoppedBefore { held_until, expires_at, why });
        if self.inner.stop.is_cancelled() {
            // Nothing has left, and that is known: after the restart it is simply due again.
            let why = Words::new("停机，尚未发送", "the daemon stopped before it was sent");
            return Some(Event::Answered { begun: now, answer: Err(Failure::NotSent(why)) });
        }
        if expired(self.row, now) {
            self.inner.metrics.missed();
            return stopped(Words::new("过了有效期", "it expired before it could go out"), None);
        }
        match verdict_of(self.inner, self.row, self.content, now) {
            Verdict::Go => None,
            Verdict::Closed { until, why } => stopped(why, until),
            Verdict::Withdrawn => stopped(Words::new("已撤回", "withdrawn"), None),
        }
    }

    fn is_first(&self) -> bool {
        matches!(*lock(&self.passed), Passed::Never)
    }

    /// Waits for the instant and for room among the platform's requests, and only then decides: nothing but the
    /// sending comes after. Returns the room when the request may go, and whether its burst still waits for it.
    async fn opens(&self, platform: &str, lane: Lane) -> Option<(Room<'_>, bool, Passing<'_>)> {
        if self.slot > self.inner.clock.now() {
            self.together.wait().await;
        }
        let mut awaited = true;
        if lane == Lane::Emergency {
            lock(&self.leaving).get_or_insert_with(|| self.inner.leaving());
        } else if self.inner.way.is_busy() {
            self.began();
            awaited = false;
            self.inner.step_aside().await;
        }
        let mut room = self.inner.http.room(platform, lane);
        let free = std::future::poll_fn(|context| Poll::Ready(room.as_mut().poll(context))).await;
        let room = match free {
            Poll::Ready(room) => room,
            Poll::Pending => {
                // One that has to queue is no part of the burst any more, and nobody waits for it.
                if std::mem::take(&mut awaited) {
                    self.began();
                }
                room.await
            }
        };
        // Before the gate is looked at: whoever closes it in between waits for this one.
        let passing = Passing::new(self.inner);
        let now = self.inner.clock.now();
        if let Some(event) = self.forbidden(now) {
            *lock(&self.passed) = Passed::Stopped(event);
            if awaited {
                self.began();
            }
            return None;
        }
        *lock(&self.passed) = Passed::Begun(now);
        let config = self.inner.config();
        let publish = &config.settings.publish;
        // Each for itself is no release together: it has its lateness, and no part in the skew.
        if self.content.body.together.unwrap_or(publish.together) {
            let grace = TimeDelta::from_std(publish.grace).unwrap_or(TimeDelta::seconds(30));
            self.inner.releases.began(&self.row.occurrence, now, now > self.row.at + grace);
        }
        Some((room, awaited, passing))
    }
}

/// A request that passed the gate and has no answer yet: its first byte may still be on its way to the wire.
struct Passing<'a>(&'a Inner);

impl Passing<'_> {
    fn new(inner: &Inner) -> Passing<'_> {
        inner.passing.fetch_add(1, Ordering::SeqCst);
        Passing(inner)
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.0.passing.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Http for Doorway<'_> {
    async fn send(
        &self,
        platform: &str,
        lane: Lane,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Lost> {
        if !self.is_first() {
            return self.inner.http.send(platform, lane, request, timeout).await;
        }
        let mut sending = self.inner.http.send_in_room(platform, lane, request, timeout);
        let Some((room, awaited, passing)) = self.opens(platform, lane).await else {
            return Err(Lost::BeforeSend("not let out".to_owned()));
        };
        // Once polled, the request is with its connection: then the next of the burst has its turn.
        let at_once = std::future::poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await;
        if awaited {
            self.began();
        }
        let answer = match at_once {
            Poll::Ready(answer) => answer,
            Poll::Pending => sending.await,
        };
        drop((room, passing));
        // An answer is read once the burst is over: reading the first would delay sending the last.
        self.together.over(&self.inner.clock).await;
        answer
    }
}
