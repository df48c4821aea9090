//! The minute hand: chores that need no exactness, woken by tokio-cron-scheduler.
//!
//! Its jobs run in UTC, may fire late or twice, and touch no release: each asks for something that can
//! be asked for again. The exact instants are `release`'s.

use std::sync::Arc;

use chrono::TimeDelta;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use super::{Inner, lock};
use crate::core::change::Actor;
use crate::core::change::{Change, Note};
use crate::ledger::Condition as LedgerState;

/// A request asked again within a day gets the answer it got (R47); a day more is for clocks that differ.
const ANSWERS: TimeDelta = TimeDelta::days(2);

/// Runs the chores until the daemon stops.
pub async fn run(inner: Arc<Inner>) {
    if let Err(error) = scheduled(&inner).await {
        // Without the minute hand the planner's own look keeps the coming day in the ledger.
        tracing::error!(%error, "the scheduler of chores does not run");
    }
}

async fn scheduled(inner: &Arc<Inner>) -> Result<(), JobSchedulerError> {
    let mut scheduler = JobScheduler::new().await?;
    let minute = inner.clone();
    let each_minute = move |_, _| -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let inner = minute.clone();
        Box::pin(async move { every_minute(&inner).await })
    };
    scheduler.add(Job::new_async("0 * * * * *", each_minute)?).await?;
    let five = inner.clone();
    let each_five = move |_, _| -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let inner = five.clone();
        Box::pin(async move { every_five_minutes(&inner).await })
    };
    scheduler.add(Job::new_async("5 */5 * * * *", each_five)?).await?;
    let hour = inner.clone();
    let each_hour = move |_, _| -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let inner = hour.clone();
        Box::pin(async move { every_hour(&inner).await })
    };
    scheduler.add(Job::new_async("30 0 * * * *", each_hour)?).await?;
    scheduler.start().await?;
    watch_the_clock(inner).await;
    scheduler.shutdown().await
}

/// Repeats are written ahead: the planner is asked for the coming day.
pub async fn every_five_minutes(inner: &Inner) {
    inner.ask_rescan();
}

/// Holds that are about to end are told of, those that did are over for good, and budgets become figures.
pub async fn every_minute(inner: &Inner) {
    inner.tell_of_ends().await;
    inner.end_past_holds().await;
    if inner.ledger.condition() != LedgerState::Fine {
        // Whether it takes something again shows only when something is written.
        let note = Note::change("ledger_tried", "ledger", serde_json::json!({}));
        if let Err(error) = inner.ledger.commit(&Actor::Daemon, vec![note]).await {
            tracing::error!(%error, "the ledger is still not written");
        }
    }
    let now = inner.clock.now();
    let config = inner.config();
    let budgets = lock(&inner.budgets);
    for platform in config.settings.platforms.values() {
        let used = config.city.accounts.keys().filter(|a| a.platform() == platform.name.as_str());
        let most = used.map(|a| budgets.day_of(platform, a, now).0).max().unwrap_or(0);
        inner.metrics.calls_used(platform.name.as_str(), most);
    }
}

/// What nobody will ask for is forgotten, and the chain's head is written down as a checkpoint.
pub async fn every_hour(inner: &Inner) {
    let now = inner.clock.now();
    let calls = lock(&inner.budgets).forget_before(now);
    if let Err(error) =
        inner.ledger.commit(&Actor::Daemon, vec![calls, Change::ForgetAnswers { before: now - ANSWERS }]).await
    {
        tracing::warn!(%error, "what is over was not forgotten; it is tried again in an hour");
    }
    let (seq, head) = inner.ledger.head();
    tracing::info!(seq, head, "audit checkpoint");
}

/// Notices a wall clock that is stepped: scheduling follows it, and a jump is on record (R31).
async fn watch_the_clock(inner: &Inner) {
    const EVERY: std::time::Duration = std::time::Duration::from_secs(1);
    let (mut wall, mut mono) = (inner.clock.now(), inner.clock.mono());
    loop {
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = inner.clock.sleep(EVERY) => {}
        }
        let (now, then) = (inner.clock.now(), inner.clock.mono());
        let passed = TimeDelta::from_std(then.0.saturating_sub(mono.0)).unwrap_or_default();
        let jump = (now - wall) - passed;
        if jump.abs() > TimeDelta::seconds(5) {
            let seconds = jump.num_milliseconds() as f64 / 1000.0;
            tracing::error!(seconds, "the wall clock was stepped");
            let note: Change = Note::change("clock_stepped", "clock", serde_json::json!({ "seconds": seconds }));
            if let Err(error) = inner.ledger.commit(&Actor::Daemon, vec![note]).await {
                tracing::error!(%error, "the step was not recorded");
            }
            inner.ask_rescan();
            inner.woken.notify_one();
        }
        (wall, mono) = (now, then);
    }
}
