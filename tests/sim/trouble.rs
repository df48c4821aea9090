//! A ledger that takes its time, refuses, or writes and does not say so.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
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
    /// How often in a row the ledger sent back a correction, because something else had changed: the most of each.
    sent_back: Mutex<BTreeMap<String, (u32, u32)>>,
}

impl Trouble {
    pub fn new(seed: u64) -> Arc<Trouble> {
        let dice = Clock::simulated(fabu::clock::from_micros(0), seed);
        let (refused, unanswered, slow) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Trouble {
            refused,
            unanswered,
            slow,
            paused: AtomicBool::new(false),
            dice,
            sent_back: Mutex::default(),
        })
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

    /// The correction that was sent back most often in a row.
    pub fn most_sent_back(&self) -> Option<(String, u32)> {
        let all = self.sent_back.lock().unwrap();
        all.iter().map(|(id, (_, most))| (id.clone(), *most)).max_by_key(|(_, most)| *most)
    }

    fn note(&self, id: &str, is_sent_back: bool) {
        let mut all = self.sent_back.lock().unwrap();
        let (now, most) = all.entry(id.to_owned()).or_default();
        *now = if is_sent_back { *now + 1 } else { 0 };
        *most = (*most).max(*now);
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
        let corrected = changes.iter().find_map(|change| match change {
            Change::Note(note) if note.kind == "corrected" => Some(note.subject.clone()),
            _ => None,
        });
        let done = ledger.commit(by, changes).await;
        if let Some(id) = corrected {
            self.note(&id, matches!(done, Err(LedgerError::Conflict)));
        }
        self.takes_its_time().await;
        if done.is_ok() && self.strikes(&self.unanswered) {
            return Err(LedgerError::Unavailable("the disk did not answer".to_owned()));
        }
        done
    }
}
