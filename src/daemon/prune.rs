//! The mass-cancel guard: cancellations that wait for a person, and the person's answer.
//!
//! `core::plan` finds that too much is gone at once; the ledger keeps what waits, so that an answer is for exactly that,
//! and is used once.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use super::acts::ActError;
use super::answers::Pruned;
use super::{Inner, lock};
use crate::core::announcement::AnnouncementId;
use crate::core::change::{Actor, Change, Note, Withdrawal};
use crate::core::delivery::{Cause, Desired, Reach, State, Stop};
use crate::core::plan::Prune;
use crate::core::words::{Words, words};
use crate::ledger::LedgerError;

/// Under these names the ledger keeps the prune that waits for a person, and the announcements that a person has refused to
/// withdraw.
pub const PRUNE: &str = "prune";
pub const PRUNE_REFUSED: &str = "prune_refused";

impl Inner {
    /// The answer to the mass-cancel guard.
    /// The announcements that a person is asked about.
    pub fn prunable(&self) -> Vec<AnnouncementId> {
        lock(&self.state).prune.iter().flat_map(|prune| prune.announcements.iter().cloned()).collect()
    }

    pub async fn prune(self: &Arc<Self>, by: &Actor, accept: bool, plan: &str) -> Result<Pruned, ActError> {
        let waiting = lock(&self.state).prune.clone();
        let Some(prune) = waiting else {
            return Err(ActError::Conflict(Words::new("没有等待确认的批量取消", "no mass cancellation is waiting")));
        };
        if prune.hash != plan {
            let hash = &prune.hash;
            return Err(ActError::Conflict(words!("等待的是另一个计划 {hash}", "another plan is waiting: {hash}")));
        }
        let before = self.ledger.meta(PRUNE_REFUSED).await?;
        let changes = answered(&prune, before, accept);
        let committed = match self.commit(by, changes).await {
            Err(LedgerError::Conflict) => {
                let said = Words::new("等待的已经变了，请重看", "what waits has changed meanwhile: look again");
                return Err(ActError::Conflict(said));
            }
            done => done?,
        };
        lock(&self.state).prune = None;
        let stopped: BTreeSet<&AnnouncementId> =
            committed.stepped().filter(|d| d.state == State::Cancelled).map(|d| &d.announcement).collect();
        let announcements = if accept { stopped.len() } else { prune.announcements.len() };
        self.quiet().await;
        self.rescan_now().await;
        Ok(Pruned { plan: plan.to_owned(), accepted: accept, announcements })
    }
}

/// Stops what has not begun of announcements that are gone from the queue.
pub fn removed(posts: Vec<AnnouncementId>) -> Change {
    let why = Words::new("已从队列删去", "removed from the queue");
    let (reach, desired, cause) = (Reach::Unreleased, Desired::Stopped, Cause::Absent);
    Change::Stop(Box::new(Stop { posts, occurrence: None, account: None, reach, desired, cause, why }))
}

/// As the ledger keeps it.
pub fn waiting(prune: &Prune) -> serde_json::Value {
    json!({ "hash": prune.hash, "announcements": prune.announcements })
}

/// The announcements that a person is asked about, as the ledger keeps them.
pub fn asked(value: Option<&str>) -> BTreeSet<AnnouncementId> {
    let value = value.and_then(|value| serde_json::from_str::<serde_json::Value>(value).ok());
    value.and_then(|value| serde_json::from_value(value["announcements"].clone()).ok()).unwrap_or_default()
}

/// The announcements that a person has refused to withdraw.
pub fn refused(value: Option<&str>) -> BTreeSet<AnnouncementId> {
    value.and_then(|value| serde_json::from_str(value).ok()).unwrap_or_default()
}

/// As the ledger keeps them; none is nothing.
pub fn refusals(refused: &BTreeSet<AnnouncementId>) -> Change {
    let value = (!refused.is_empty()).then(|| json!(refused).to_string());
    Change::Meta { key: PRUNE_REFUSED.to_owned(), value }
}

/// A consent withdraws all at once. A refusal keeps each in force, and it is not asked about again as long as it is gone.
/// Both are for exactly what waits now.
fn answered(prune: &Prune, before: Option<String>, accept: bool) -> Vec<Change> {
    let mut changes = vec![
        Change::ExpectMeta(PRUNE.to_owned(), Some(waiting(prune).to_string())),
        Change::Meta { key: PRUNE.to_owned(), value: None },
    ];
    if accept {
        changes.push(removed(prune.announcements.clone()));
        for id in &prune.announcements {
            changes.push(Change::Withdrawn(id.clone(), Withdrawal::Queue));
            changes.push(Note::change("withdrawn", id, json!({ "by": "queue" })));
        }
    } else {
        let mut kept = refused(before.as_deref());
        kept.extend(prune.announcements.iter().cloned());
        changes.extend([Change::ExpectMeta(PRUNE_REFUSED.to_owned(), before), refusals(&kept)]);
    }
    let word = if accept { "prune_accepted" } else { PRUNE_REFUSED };
    changes.push(Note::change(word, "queue", json!({ "plan": prune.hash, "announcements": prune.announcements })));
    changes
}
