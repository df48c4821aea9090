//! The common instant, and the last check before the first byte.
//!
//! An adapter builds its request ahead and hands it to the barrier, which keeps it until the instant of release and lets
//! it out. Whether it still may go is asked twice: before it takes a connection, so that a hold costs none, and by
//! its permit, when the connection is there and the first byte is the next thing that happens. The permit is for the
//! version of the row that was armed: whoever changes the row makes it void, and so does the end of the exchange.

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
use super::send::{held_expiry, hour_of, is_expired, verdict_of};
use super::{Inner, lock};
use crate::clock::{Mono, Time};
use crate::core::announcement::Content;
use crate::core::delivery::{Delivery, DeliveryId, Event, Stopped};
use crate::core::gate::Verdict;
use crate::core::words::Words;
use crate::platform::{Http, Lane, Lost, Permit};

/// The fate of a request at the barrier.
#[derive(Clone)]
pub enum Passed {
    /// It has not come, or has not got a connection yet.
    Waiting,
    Begun(Time, Mono),
    Stopped(Event),
    /// The exchange is over, and nothing of it ever began.
    Lapsed,
}

pub struct Barrier {
    ticket: Arc<Ticket>,
    slot: Time,
    /// The time until then, for what has no hour to wait for again when the clock is put back.
    own_wait: Option<Duration>,
    together: Arc<Slot>,
    /// An emergency's: routine steps aside as long as it is there.
    leaving: Mutex<Option<Leaving>>,
}

impl Barrier {
    pub fn new(
        inner: &Arc<Inner>,
        row: &Delivery,
        content: &Arc<Content>,
        slot: Time,
        leaving: Option<Leaving>,
    ) -> Barrier {
        let together = inner.instants.join(&inner.clock, slot);
        let left = (slot - inner.clock.now()).to_std().unwrap_or_default();
        let own_wait = hour_of(row, content).is_none().then_some(left);
        let (inner, row, content) = (inner.clone(), row.clone(), content.clone());
        let ticket = Arc::new(Ticket { inner, row, content, passed: Mutex::new(Passed::Waiting) });
        Barrier { ticket, slot, own_wait, together, leaving: Mutex::new(leaving) }
    }

    /// Its request is on its way, or is no part of the burst any more.
    fn began(&self) {
        self.together.began();
        lock(&self.leaving).take();
    }

    /// The outcome here; from now on nothing can begin.
    pub fn into_outcome(self) -> Passed {
        let mut passed = lock(&self.ticket.passed);
        let outcome = passed.clone();
        if matches!(outcome, Passed::Waiting) {
            *passed = Passed::Lapsed;
            drop(passed);
            self.began();
            return Passed::Lapsed;
        }
        outcome
    }

    /// Waits for the instant and for room among the platform's requests. Returns the room, and whether the burst still
    /// waits for this request.
    async fn admitted(&self, platform: &str, lane: Lane) -> (crate::platform::Room, bool) {
        let inner = &self.ticket.inner;
        match self.own_wait {
            Some(left) => drop(inner.clock.timeout(left, self.together.wait()).await),
            None if self.slot > inner.clock.now() => self.together.wait().await,
            None => {}
        }
        let mut awaited = true;
        if lane == Lane::Emergency {
            lock(&self.leaving).get_or_insert_with(|| inner.leaving());
        } else if inner.way.is_busy() {
            self.began();
            awaited = false;
            inner.step_aside().await;
        }
        let mut room = inner.http.room(platform, lane);
        let free = std::future::poll_fn(|context| Poll::Ready(room.as_mut().poll(context))).await;
        match free {
            Poll::Ready(room) => (room, awaited),
            Poll::Pending => {
                // One that has to queue is no part of the burst any more, and nobody waits for it.
                if std::mem::take(&mut awaited) {
                    self.began();
                }
                (room.await, awaited)
            }
        }
    }
}

#[async_trait]
impl Http for Barrier {
    async fn send(
        &self,
        platform: &str,
        lane: Lane,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Lost> {
        let inner = &self.ticket.inner;
        let permit: Arc<dyn Permit> = self.ticket.clone();
        let is_early = crate::planted("permit_before_connection");
        let asked = Some(permit).filter(|_| !is_early);
        let mut sending = inner.http.send_in_room(platform, lane, request, timeout, asked);
        let (room, awaited) = self.admitted(platform, lane).await;
        if !self.ticket.is_still_wanted() || is_early && !self.ticket.is_granted() {
            if awaited {
                self.began();
            }
            return Err(Lost::BeforeSend("not let out".to_owned()));
        }
        let _passing = Passing(&self.ticket);
        // Once polled, the request is with its connection: then the next of the burst has its turn.
        let at_once = std::future::poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await;
        if awaited {
            self.began();
        }
        let answer = match at_once {
            Poll::Ready(answer) => answer,
            Poll::Pending => sending.await,
        };
        drop(room);
        // An answer is read once the burst is over: reading the first would delay sending the last.
        self.together.over(&inner.clock).await;
        answer
    }
}

/// Permission to begin the request of one version of one delivery.
struct Ticket {
    inner: Arc<Inner>,
    row: Delivery,
    content: Arc<Content>,
    passed: Mutex<Passed>,
}

impl Ticket {
    /// The reason not to let it out now, as the event it makes.
    fn forbidden(&self, now: Time) -> Option<Event> {
        let (inner, row) = (&self.inner, &self.row);
        let stopped = |stop| Some(Event::StoppedBefore { attempt: row.attempt, stop });
        if inner.stop.is_cancelled() {
            let why = Words::new("停机，尚未发送", "the daemon stopped before it was sent");
            return stopped(Stopped::Ending(why));
        }
        if !inner.memory.may_begin(row) {
            return stopped(Stopped::Withdrawn);
        }
        if is_expired(row, now) {
            // Not by a clock that was put on in this moment: then it is decided on anew.
            if !inner.jump().is_zero() {
                return stopped(Stopped::Withdrawn);
            }
            return stopped(Stopped::Expired);
        }
        match verdict_of(inner, row, &self.content, now) {
            Verdict::Go => None,
            Verdict::Held { cause, until, why } => {
                let expires_at = held_expiry(row.at, &self.content.body);
                stopped(Stopped::Held { cause, until, expires_at, why })
            }
            Verdict::Closed(why) => stopped(Stopped::Closed(why)),
        }
    }

    /// Whether it is worth a connection.
    fn is_still_wanted(&self) -> bool {
        match self.forbidden(self.inner.clock.now()) {
            None => true,
            Some(event) => {
                *lock(&self.passed) = Passed::Stopped(event);
                false
            }
        }
    }
}

impl Permit for Ticket {
    fn is_granted(&self) -> bool {
        let mut passed = lock(&self.passed);
        if !matches!(*passed, Passed::Waiting) {
            return false;
        }
        // Counted before the gate is asked: whoever closes it in between waits for this one.
        self.inner.passing.fetch_add(1, Ordering::SeqCst);
        let now = self.inner.clock.now();
        if let Some(event) = self.forbidden(now) {
            self.inner.passing.fetch_sub(1, Ordering::SeqCst);
            *passed = Passed::Stopped(event);
            return false;
        }
        *passed = Passed::Begun(now, self.inner.clock.mono());
        drop(passed);
        lock(&self.inner.under_way).insert(self.row.id);
        let config = self.inner.config();
        let publish = &config.settings.publish;
        // Each for itself is no release together: it has its lateness, and no part in the skew.
        if self.content.body.together.unwrap_or(publish.together) {
            let grace = TimeDelta::from_std(publish.grace).unwrap_or(TimeDelta::seconds(30));
            self.inner.releases.began(&self.row.occurrence, now, now > self.row.at + grace);
        }
        true
    }
}

/// A delivery of which a request may be under way: what has an intent and is not there waits for its instant or for a
/// connection, and a hold keeps it back.
pub struct UnderWay<'a>(&'a Inner, DeliveryId);

impl UnderWay<'_> {
    /// Until this is dropped, from the moment its permit is granted.
    pub fn of(inner: &Inner, id: DeliveryId) -> UnderWay<'_> {
        UnderWay(inner, id)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(&self.0.under_way).remove(&self.1);
    }
}

/// A request whose permit was granted has no answer yet: its first byte may still be on its way to the wire.
struct Passing<'a>(&'a Ticket);

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        if matches!(*lock(&self.0.passed), Passed::Begun(..)) {
            self.0.inner.passing.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
