//! The last words of an emergency: a correction to exactly the accounts that carry it, and its all-clear.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::kin::derived;
use super::tried::{Tried, Wording, quoted};
use super::{Urgent, hold_name};
use crate::core::accounts::AccountId;
use crate::core::announcement::AnnouncementId;
use crate::core::change::{Actor, Change, Note};
use crate::core::delivery::{Delivery, DeliveryId, Event, State, Wish};
use crate::core::words::{Words, words};
use crate::daemon::acts::ActError;
use crate::daemon::answers::{Cleared, LastWord, NoPost};
use crate::daemon::{Inner, lock};
use crate::ledger::LedgerError;

/// What follows from one emergency is named after it, so many times at most.
pub(super) const MOST_DERIVED: u32 = 100;
/// How often a correction or an all-clear is made anew when what it is about has changed meanwhile.
const READ_AGAIN: u32 = 50;

impl Inner {
    /// A correction to exactly the accounts that carry the wrong post; what is not out yet is stopped, and where nobody
    /// knows yet whether it is out the correction waits until that is known.
    pub async fn correct(self: &Arc<Self>, by: &Actor, id: &str, text: Option<&str>) -> Result<Value, ActError> {
        let _turn = self.deciding.lock().await;
        // In the middle of its release the rows change while they are read.
        for _ in 0..READ_AGAIN {
            match self.corrected(by, id, text).await {
                Err(ActError::Ledger(LedgerError::Conflict)) => {}
                done => return done,
            }
        }
        self.corrected(by, id, text).await
    }

    async fn corrected(self: &Arc<Self>, by: &Actor, id: &str, text: Option<&str>) -> Result<Value, ActError> {
        let (row, content) = self.emergency_row(id).await?;
        let said = quoted(&content.body.text);
        let ready = content.body.closing.as_ref().and_then(|c| c.correction.clone());
        let standard =
            ready.unwrap_or_else(|| format!("【更正】此前发布的“{said}”有误，现予撤回，请勿转发，以本条为准。"));
        let rows = self.all_of(id).await?;
        let (mut carry, mut uncertain) = (carriers(&rows), uncertain(&rows));
        if carry.is_empty() && uncertain.is_empty() {
            // Nothing of it stands: stopping what is on its way is all there is to correct.
            return Ok(json!(self.withdraw(by, id, Wish::Gone).await?));
        }
        let (name, before) = self.corrections(&row.id).await?;
        carry.retain(|a| !before.contains(a));
        uncertain.retain(|a| !before.contains(a));
        if carry.is_empty() && uncertain.is_empty() {
            return Err(ActError::Conflict(words!("`{id}` 已经更正", "`{id}` is corrected already")));
        }
        let accounts: BTreeSet<AccountId> = carry.union(&uncertain).cloned().collect();
        let urgent = Urgent {
            text: text.map_or(standard, str::to_owned),
            level: content.body.level(),
            to: accounts.iter().map(ToString::to_string).collect(),
            supersedes: Some(row.id.to_string()),
            id: Some(name),
            ..Urgent::default()
        };
        let tried = self.tried(by, &urgent, accounts, Wording::closing(text)).await?;
        let tried = Tried { hold: None, uncertain, ..tried };
        let why = words!("由 {by} 更正", "corrected by {by}");
        let stopped = self.stopped(&rows, Wish::Gone, &why);
        let ids: Vec<DeliveryId> = rows.iter().map(|d| d.id).collect();
        let note = Note::change("corrected", &row.id, json!({ "by": by.to_string(), "with": tried.id }));
        let answer = self.take(by, tried, None, stopped.into_iter().chain([note]).collect(), None).await?;
        self.nudge(&ids);
        Ok(json!(answer))
    }

    /// The name the next correction of an emergency gets, and the accounts that those before it speak to.
    async fn corrections(&self, id: &AnnouncementId) -> Result<(String, BTreeSet<AccountId>), ActError> {
        let mut spoken = BTreeSet::new();
        for n in 1..MOST_DERIVED {
            let name = derived(id, "correction", n);
            let Some(before) = self.announced(&name).await? else { return Ok((name, spoken)) };
            let lives = |d: &Delivery| !matches!(d.state, State::Cancelled | State::Expired | State::Failed);
            let rows = self.all_of(before.id.as_str()).await?;
            spoken.extend(rows.into_iter().filter(lives).map(|d| d.account));
        }
        Err(ActError::Conflict(words!("`{id}` 更正得太多", "`{id}` has been corrected too often")))
    }

    /// The end of an emergency: its closing text where it stands, nothing more of it, and the end of its hold.
    pub async fn all_clear(self: &Arc<Self>, by: &Actor, id: &str, text: Option<&str>) -> Result<Value, ActError> {
        let _turn = self.deciding.lock().await;
        let (row, _) = self.emergency_row(id).await?;
        let hold = self.hold_of(&row.id).await?;
        let mut tries = 0;
        let said = loop {
            match self.cleared(by, &row.id, text).await {
                Err(ActError::Ledger(LedgerError::Conflict)) if tries < READ_AGAIN => tries += 1,
                done => break done?,
            }
        };
        let hold_ended = match self.end_hold(by, &hold).await {
            Ok(ended) => Some(ended),
            Err(ActError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(json!(Cleared { said, hold_ended }))
    }

    async fn cleared(
        self: &Arc<Self>,
        by: &Actor,
        id: &AnnouncementId,
        text: Option<&str>,
    ) -> Result<LastWord, ActError> {
        // Whoever names the first of several updates means what stands now.
        let newest = self.newest_of(id.clone()).await?;
        let (row, content) = self.emergency_row(newest.as_str()).await?;
        let rows = self.all_of(newest.as_str()).await?;
        let carry = carriers(&rows);
        // A warning that comes after its all-clear would be a false one.
        let why = words!("由 {by} 解除", "ended by {by}");
        let mut with = self.stopped(&rows, Wish::Stop, &why);
        with.push(Note::change("all_clear", &row.id, json!({ "by": by.to_string() })));
        let ids: Vec<DeliveryId> = rows.iter().map(|d| d.id).collect();
        let answer = if carry.is_empty() {
            self.ledger.commit(by, with).await?;
            LastWord::Nothing(NoPost { id: (), deliveries: 0 })
        } else {
            let said = quoted(&content.body.text);
            let ready = content.body.closing.as_ref().and_then(|c| c.all_clear.clone());
            let standard = ready.unwrap_or_else(|| format!("【解除】“{said}”现已解除。"));
            let urgent = Urgent {
                text: text.map_or(standard, str::to_owned),
                level: content.body.level(),
                to: carry.iter().map(ToString::to_string).collect(),
                id: self.derived(&row.id, "all-clear").await?,
                ..Urgent::default()
            };
            let tried = self.tried(by, &urgent, carry, Wording::closing(text)).await?;
            LastWord::Taken(self.take(by, Tried { hold: None, ..tried }, None, with, None).await?)
        };
        self.nudge(&ids);
        Ok(answer)
    }

    /// What of an emergency has not gone out is stopped; with `Gone`, what may be out is taken down when it is found.
    fn stopped(&self, rows: &[Delivery], wish: Wish, why: &Words) -> Vec<Change> {
        let open = rows.iter().filter(|d| !d.state.is_settled() && d.state != State::Published);
        let mut changes = Vec::new();
        for row in open {
            if let Ok(step) = self.computed(row, Event::Withdrawn(wish, why.clone())) {
                lock(&self.gate).withdrawn.insert(row.id);
                changes.push(Change::Step(Box::new(step)));
            }
        }
        changes
    }

    /// An emergency of which nothing went out, and nothing will, has no hold any more.
    pub(crate) async fn end_hold_of(self: &Arc<Self>, by: &Actor, id: &AnnouncementId) -> Result<(), ActError> {
        match self.end_hold(by, &hold_name(id)).await {
            Ok(_) | Err(ActError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Accounts on which a post stands.
fn carriers(rows: &[Delivery]) -> BTreeSet<AccountId> {
    let stands = |d: &&Delivery| matches!(d.state, State::Published | State::Accepted) && d.wish != Wish::Gone;
    rows.iter().filter(stands).map(|d| d.account.clone()).collect()
}

/// Accounts on which a post may stand or not.
fn uncertain(rows: &[Delivery]) -> BTreeSet<AccountId> {
    let unclear = |d: &&Delivery| matches!(d.state, State::Sending | State::Unknown) && d.wish == Wish::Out;
    rows.iter().filter(unclear).map(|d| d.account.clone()).collect()
}
