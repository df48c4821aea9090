//! Which emergency belongs to which: what is there by a name, its hold, its newest update, and what follows from it.

use std::sync::Arc;

use super::closing::MOST_DERIVED;
use super::hold_name;
use super::tried::invalid;
use crate::core::announcement::{AnnouncementId, Content, Priority};
use crate::core::change::AnnouncementRow;
use crate::core::words::{shown, words};
use crate::daemon::Inner;
use crate::daemon::acts::ActError;
use crate::ledger::{Filter, LedgerError};

impl Inner {
    /// What follows from an emergency is named after it.
    pub(super) async fn derived(&self, id: &AnnouncementId, what: &str) -> Result<Option<String>, ActError> {
        for n in 1..MOST_DERIVED {
            let name = derived(id, what, n);
            if self.announced(&name).await?.is_none() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    pub(crate) async fn announced(&self, id: &str) -> Result<Option<AnnouncementRow>, LedgerError> {
        let filter = Filter { announcement: Some(id.to_owned()), max: 1, ..Filter::default() };
        Ok(self.ledger.announcements(filter).await?.pop().map(|a| a.row))
    }

    pub(super) async fn existing(&self, id: &str, field: &'static str) -> Result<AnnouncementId, ActError> {
        let found = self.announced(id).await?;
        let safe = shown(id);
        Ok(found.ok_or_else(|| invalid(field, words!("没有公告 `{safe}`", "there is no announcement `{safe}`")))?.id)
    }

    /// An emergency that was sent, or waits, and its content.
    pub(crate) async fn emergency_row(&self, id: &str) -> Result<(AnnouncementRow, Arc<Content>), ActError> {
        let safe = shown(id);
        let none = || ActError::NotFound(words!("没有公告 `{safe}`", "there is no announcement `{safe}`"));
        let row = self.announced(id).await?.ok_or_else(none)?;
        if row.priority != Priority::Emergency {
            return Err(ActError::Conflict(words!("`{safe}` 不是紧急发布", "`{safe}` is no emergency")));
        }
        let content = self.content(&row.content).await?;
        Ok((row, content))
    }

    /// The name of the hold of an emergency and of all its updates.
    pub(super) async fn hold_of(&self, id: &AnnouncementId) -> Result<String, ActError> {
        let mut id = id.clone();
        // A chain of updates is as long as one emergency; the bound is against a ledger somebody edited.
        for _ in 0..1000 {
            let before = self.announced(id.as_str()).await?.and_then(|row| row.supersedes);
            match before {
                Some(before) if self.announced(before.as_str()).await?.is_some_and(is_emergency) => id = before,
                _ => break,
            }
        }
        Ok(hold_name(&id))
    }

    /// The newest update of an emergency; a correction is none.
    pub(super) async fn newest_of(&self, id: AnnouncementId) -> Result<AnnouncementId, ActError> {
        let filter = Filter { priority: Some(Priority::Emergency), max: 10_000, ..Filter::default() };
        let all = self.ledger.announcements(filter).await?;
        let mut newest = id;
        for _ in 0..all.len() {
            let correction = derived(&newest, "correction", 1);
            let updates = |row: &AnnouncementRow| {
                row.supersedes.as_ref() == Some(&newest) && !row.id.as_str().starts_with(&correction)
            };
            match all.iter().map(|a| &a.row).find(|row| updates(row)) {
                Some(row) => newest = row.id.clone(),
                None => break,
            }
        }
        Ok(newest)
    }
}

pub(super) fn is_emergency(row: AnnouncementRow) -> bool {
    row.priority == Priority::Emergency
}

pub(super) fn derived(id: &AnnouncementId, what: &str, n: u32) -> String {
    if n == 1 { format!("{id}-{what}") } else { format!("{id}-{what}-{n}") }
}
