//! A ledger that takes its time, refuses, or writes and does not say so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fabu::clock::Clock;
use fabu::core::change::{Actor, Change};
use fabu::ledger::sqlite::Sqlite;
use fabu::ledger::{Committed, Ledger, LedgerError};

use crate::support::between::Watch;

/// The share of commits, in thousandths, that are refused, or done and not answered.
pub struct Trouble {
    refused: AtomicU64,
    unanswered: AtomicU64,
    /// The longest that a commit waits before it is done, and again before it is answered, in milliseconds.
    slow: AtomicU64,
    paused: AtomicBool,
    dice: Clock,
}

impl Trouble {
    pub fn new(seed: u64) -> Arc<Trouble> {
        let dice = Clock::simulated(fabu::clock::from_micros(0), seed);
        let (refused, unanswered, slow) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Trouble { refused, unanswered, slow, paused: AtomicBool::new(false), dice })
    }

    pub fn set(&self, refused: u64, unanswered: u64) {
        self.refused.store(refused, Ordering::SeqCst);
        self.unanswered.store(unanswered, Ordering::SeqCst);
    }

    pub fn slow(&self, most_ms: u64) {
        self.slow.store(most_ms, Ordering::SeqCst);
    }

    pub fn pause(&self, is_paused: bool) {
        self.paused.store(is_paused, Ordering::SeqCst);
    }

    pub fn is_any(&self) -> bool {
        [&self.refused, &self.unanswered, &self.slow].into_iter().any(|often| often.load(Ordering::SeqCst) > 0)
    }

    /// Meanwhile others read what is there and decide.
    async fn takes_its_time(&self) {
        let most = self.slow.load(Ordering::SeqCst);
        if most > 0 && !self.paused.load(Ordering::SeqCst) {
            self.dice.sleep(Duration::from_millis(self.dice.random() % (most + 1))).await;
        }
    }

    fn strikes(&self, thousandths: &AtomicU64) -> bool {
        let often = thousandths.load(Ordering::SeqCst);
        often > 0 && !self.paused.load(Ordering::SeqCst) && self.dice.random() % 1000 < often
    }
}

#[async_trait]
impl Watch for Trouble {
    async fn committed(&self, ledger: &Sqlite, by: &Actor, changes: Vec<Change>) -> Result<Committed, LedgerError> {
        if self.strikes(&self.refused) {
            return Err(LedgerError::NoSpace);
        }
        self.takes_its_time().await;
        let done = ledger.commit(by, changes).await;
        self.takes_its_time().await;
        if done.is_ok() && self.strikes(&self.unanswered) {
            return Err(LedgerError::Unavailable("the disk did not answer".to_owned()));
        }
        done
    }
}
