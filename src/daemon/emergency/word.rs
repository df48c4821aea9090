//! The second person's word, and what becomes of an emergency that it does not come for.

use std::sync::Arc;

use serde_json::{Value, json};

use super::hold_name;
use crate::core::announcement::AnnouncementId;
use crate::core::change::{Actor, Change, Note};
use crate::core::delivery::{Delivery, Event, State};
use crate::core::words::{Words, words};
use crate::daemon::acts::ActError;
use crate::daemon::answers::{Confirmed, Fate, Persons};
use crate::daemon::planner::expiry;
use crate::daemon::prepare::Means;
use crate::daemon::{Inner, StepError, lock};

impl Inner {
    /// A further person's word to exactly the content they were shown.
    pub async fn confirm(self: &Arc<Self>, by: &Actor, id: &str, shown: &str) -> Result<Value, ActError> {
        let _turn = self.deciding.lock().await;
        let (row, content) = self.emergency_row(id).await?;
        let Actor::Person { uid, name } = by else {
            return Err(ActError::Conflict(Words::new("只有人能确认", "only a person confirms")));
        };
        if row.content.as_str() != shown {
            let said = Words::new(
                "内容与所示不同，请重看再确认",
                "this is not the content that was shown: look again, then confirm",
            );
            return Err(ActError::Conflict(said));
        }
        let key = (row.id.clone(), row.content.clone());
        if lock(&self.gate).confirmed.get(&key).is_some_and(|uids| uids.contains(uid)) {
            return Err(ActError::Denied(words!(
                "{name} 已经表态，需要另一个人",
                "{name} has given their word already: another person is needed"
            )));
        }
        let held = self.waiting(&row.id).await?;
        if held.is_empty() {
            let said = words!("`{id}` 不在等待确认", "`{id}` does not wait for a confirmation");
            return Err(ActError::Conflict(said));
        }
        let needed = self.config().settings.emergency.persons(&content.body);
        let have = lock(&self.gate).persons(&row.id, &row.content) + 1;
        let (mut changes, mut calls) = (Vec::new(), Vec::new());
        let (mut armed, mut others) = (Vec::new(), Vec::new());
        let now = self.clock.now();
        if have >= needed {
            let expires_at = expiry(&content.body, now, &self.config().settings.publish);
            for row in &held {
                // Its hour is now, and its prepared text stands: the confirmation commits the intent.
                let row = Delivery { at: now, expires_at, reason: None, ..row.clone() };
                let means = row.prepared.is_some().then(|| Means::of(self, &row).ok()).flatten();
                let step = match means.and_then(|means| self.intent(&row, &means, now, &mut calls)) {
                    Some(step) => {
                        armed.push(step.row.clone());
                        step
                    }
                    None => {
                        others.push(row.id);
                        self.computed(&row, Event::GateOpen { at: now, expires_at }).map_err(StepError::from)?
                    }
                };
                changes.push(Change::Step(Box::new(step)));
            }
        }
        changes.extend(calls);
        let (announcement, content) = (row.id.clone(), row.content.clone());
        changes.push(Change::Confirmed { announcement, content, uid: *uid, name: name.clone() });
        let launches = self.take_in_hand(armed);
        // What came due in between, and so changed, makes the whole of it void: then nothing was confirmed.
        if let Err(error) = self.ledger.commit(by, changes).await {
            self.let_go(&launches);
            return Err(error.into());
        }
        lock(&self.gate).confirmed.entry(key).or_default().insert(*uid);
        self.launch(launches);
        self.nudge(&others);
        self.urge();
        let state = if have >= needed { Fate::Releasing } else { Fate::AwaitingConfirm };
        let persons = Persons { needed, have };
        Ok(json!(Confirmed { id: id.to_owned(), state, deliveries: held.len(), persons }))
    }

    pub(super) async fn waiting(&self, id: &AnnouncementId) -> Result<Vec<Delivery>, ActError> {
        Ok(self.all_of(id.as_str()).await?.into_iter().filter(awaits_word).collect())
    }

    /// An emergency nobody confirmed in time is not sent, and the hold it brought ends with it.
    pub(crate) async fn unconfirmed(self: &Arc<Self>, id: &AnnouncementId) {
        let still = self.waiting(id).await.map_or(true, |held| !held.is_empty());
        let name = hold_name(id);
        if still || !self.holds().iter().any(|h| h.id == name) {
            return;
        }
        let note = Note::change("not_confirmed", id, json!({}));
        let noted = self.ledger.commit(&Actor::Daemon, vec![note]).await.map_err(ActError::from);
        if let Err(error) = async {
            noted?;
            self.end_hold(&Actor::Daemon, &name).await
        }
        .await
        {
            tracing::error!(%error, hold = name, "the hold of an emergency that was not confirmed still stands");
        }
    }
}

/// Held until a person gives their word; what waits to know whether it is needed at all has no time to look again.
pub(super) fn awaits_word(row: &Delivery) -> bool {
    row.state == State::Held && row.next_at.is_some()
}
