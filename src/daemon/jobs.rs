//! The minute hand: chores that need no exactness, woken by tokio-cron-scheduler.
//!
//! Its jobs run in UTC, may fire late or twice, and touch no release: each asks for something that can
//! be asked for again. The exact instants are `release`'s.

use std::sync::Arc;

use chrono::TimeDelta;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use super::Inner;
use crate::core::change::{Actor, Change, Note};
use crate::core::pacing::Budgets;
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
    inner.stop.cancelled().await;
    scheduler.shutdown().await
}

/// Repeats are written ahead: the planner is asked for the coming day.
pub async fn every_five_minutes(inner: &Inner) {
    inner.ask_rescan();
}

/// Holds that are about to end are told of, those that did are over for good, and budgets become figures.
pub async fn every_minute(inner: &Arc<Inner>) {
    inner.tell_of_ends().await;
    inner.end_past_holds().await;
    inner.mend_config().await;
    if inner.ledger.condition() != LedgerState::Fine {
        // Whether it takes something again shows only when something is written.
        let note = Note::change("ledger_tried", "ledger", serde_json::json!({}));
        if let Err(error) = inner.ledger.commit(&Actor::Daemon, vec![note]).await {
            tracing::error!(%error, "the ledger is still not written");
        }
    }
    let now = inner.clock.now();
    let config = inner.config();
    for platform in config.settings.platforms.values() {
        let used = config.city.accounts.keys().filter(|a| a.platform() == platform.name.as_str());
        let most = used.map(|a| inner.memory.day_of(platform, a, now).0).max().unwrap_or(0);
        inner.metrics.calls_used(platform.name.as_str(), most);
    }
}

/// What nobody will ask for is forgotten, and the chain's head is written down as a checkpoint.
pub async fn every_hour(inner: &Inner) {
    let now = inner.clock.now();
    let calls = Budgets::over(now);
    if let Err(error) =
        inner.ledger.commit(&Actor::Daemon, vec![calls, Change::ForgetAnswers { before: now - ANSWERS }]).await
    {
        tracing::warn!(%error, "what is over was not forgotten; it is tried again in an hour");
    }
    inner.forget_pictures().await;
    let (seq, head) = inner.ledger.head();
    tracing::info!(seq, head, "audit checkpoint");
}
