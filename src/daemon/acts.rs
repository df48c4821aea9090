//! What a person may do to announcements and deliveries: cancel, delete, retry, resolve, prune, reload.
//!
//! Each act is in the ledger when it is answered. A withdrawal closes the gate in memory before it is
//! written, so that no request begins after the answer (R6).

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::json;

use super::answers::{self, Pruned, Retrying, Withdrawn};
use super::config::{self, Config};
use super::{Inner, StepError, lock};
use crate::core::announcement::{AnnouncementId, Priority};
use crate::core::change::{Actor, AnnouncementRow, Change, Note};
use crate::core::delivery::{Delivery, DeliveryId, Event, State, Wish};
use crate::core::words::{Words, shown, words};
use crate::ledger::{Filter, LedgerError};

/// Why an act was refused.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error("not found")]
    NotFound(Words),
    /// The state forbids it.
    #[error("conflict")]
    Conflict(Words),
    /// Not this person.
    #[error("denied")]
    Denied(Words),
    #[error("invalid")]
    Invalid(Cow<'static, str>, Words),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl ActError {
    /// What to tell whoever asked.
    pub fn words(&self) -> Words {
        match self {
            ActError::NotFound(said) | ActError::Conflict(said) | ActError::Denied(said) => said.clone(),
            ActError::Invalid(field, said) => {
                Words::new(format!("{field}：{}", said.zh), format!("{field}: {}", said.en))
            }
            ActError::Ledger(error) => words!("账本：{error}", "{error}"),
        }
    }

    /// The same, with another field to blame.
    #[must_use]
    pub(crate) fn about(self, field: &'static str) -> ActError {
        match self {
            ActError::Invalid(_, said) => ActError::Invalid(field.into(), said),
            other => other,
        }
    }
}

impl From<StepError> for ActError {
    fn from(error: StepError) -> ActError {
        match error {
            StepError::Illegal(illegal) => {
                let state = illegal.state.as_str();
                ActError::Conflict(words!("状态是 {state}，不能这样做", "it is {state}, which forbids this"))
            }
            StepError::Ledger(error) => ActError::Ledger(error),
        }
    }
}

/// No announcement has more deliveries than there are accounts and occurrences in a month.
const MOST: usize = 100_000;

impl Inner {
    /// Every delivery of an announcement, or of one of its occurrences.
    pub(crate) async fn all_of(&self, id: &str) -> Result<Vec<Delivery>, ActError> {
        let filter = Filter { announcement: Some(id.to_owned()), max: MOST, ..Filter::default() };
        let found = self.ledger.deliveries(filter).await?;
        if found.is_empty() {
            let safe = shown(id);
            return Err(ActError::NotFound(words!("没有公告 `{safe}`", "there is no announcement `{safe}`")));
        }
        Ok(found)
    }

    pub async fn priority_of(&self, id: &str) -> Result<Priority, ActError> {
        Ok(self.all_of(id).await?.first().map_or(Priority::Routine, |d| d.priority))
    }

    /// Stops what is not out yet (`wish` Stop), or takes down what is as well (`Gone`).
    pub async fn withdraw(self: &Arc<Self>, by: &Actor, id: &str, wish: Wish) -> Result<Withdrawn, ActError> {
        let rows = self.all_of(id).await?;
        // A word, or a correction, that is given in this moment is for what it finds.
        let turn = match rows[0].priority {
            Priority::Emergency => Some(self.deciding.lock().await),
            _ => None,
        };
        let rows = self.all_of(id).await?;
        {
            let mut gate = lock(&self.gate);
            gate.withdrawn.extend(rows.iter().filter(|d| !d.state.is_settled()).map(|d| d.id));
        }
        let (mut stopped, mut under_way, mut down, mut settled) = (0, 0, 0, 0);
        let (zh, en) = if wish == Wish::Gone { ("撤下", "deleted") } else { ("取消", "cancelled") };
        let why = words!("由 {by} {zh}", "{en} by {by}");
        let is_settled = |row: &&Delivery| {
            row.state == State::Published && wish == Wish::Stop
                || row.state.is_settled() && row.state != State::Published
        };
        settled += rows.iter().filter(is_settled).count();
        let open = rows.iter().filter(|row| !is_settled(row));
        for after in self.step_all(by, open, |_| Event::Withdrawn(wish, why.clone())).await {
            match after {
                Ok(after) if after.state == State::Cancelled => stopped += 1,
                Ok(after) if after.state == State::Published => down += 1,
                Ok(_) => under_way += 1,
                Err(StepError::Illegal(_)) => settled += 1,
                Err(error) => return Err(error.into()),
            }
        }
        if stopped + under_way + down == 0 {
            self.forget_withdrawn(&rows.iter().map(|d| d.id).collect::<Vec<_>>());
            let said =
                words!("`{id}` 都已了结，没有可{zh}的", "everything of `{id}` is settled: there is nothing to be {en}");
            return Err(ActError::Conflict(said));
        }
        self.mark_withdrawn(by, &rows, id, if wish == Wish::Gone { "deleted" } else { "cancelled" }).await?;
        let ids: Vec<DeliveryId> = rows.iter().map(|d| d.id).collect();
        self.nudge(&ids);
        self.forget_withdrawn(&ids);
        if rows[0].priority == Priority::Emergency
            && under_way + down + settled == 0
            && let Some(row) = self.announcement_row(&rows[0].announcement).await?
            && let Some(hold) = self.brought_hold(&row)
        {
            // An emergency of which nothing went out, and nothing will, is silent for nobody.
            drop(turn);
            self.end_hold(by, &hold.id).await?;
        }
        Ok(Withdrawn {
            id: id.to_owned(),
            cancelled: stopped,
            in_flight: under_way,
            taking_down: down,
            unchanged: settled,
        })
    }

    /// Its file may still be there: an announcement a person withdrew does not come back with it.
    async fn mark_withdrawn(&self, by: &Actor, rows: &[Delivery], id: &str, kind: &str) -> Result<(), ActError> {
        let note = Note::change(kind, id, json!({ "by": by.to_string() }));
        let mut changes = vec![note];
        let whole = rows.first().is_some_and(|d| d.announcement.as_str() == id);
        if whole && let Some(row) = self.announcement_row(&rows[0].announcement).await? {
            let row = AnnouncementRow { withdrawn: Some(by.to_string()), ..row };
            changes.push(Change::Announcement(Box::new(row)));
        }
        self.ledger.commit(by, changes).await?;
        Ok(())
    }

    async fn announcement_row(&self, id: &AnnouncementId) -> Result<Option<AnnouncementRow>, LedgerError> {
        let filter = Filter { announcement: Some(id.to_string()), max: 1, ..Filter::default() };
        Ok(self.ledger.announcements(filter).await?.pop().map(|a| a.row))
    }

    /// Once the ledger has it, the gate in memory is needed only for those still in hand.
    fn forget_withdrawn(&self, ids: &[DeliveryId]) {
        let in_hand = lock(&self.in_hand);
        let mut gate = lock(&self.gate);
        for id in ids.iter().filter(|id| !in_hand.of.contains_key(id)) {
            gate.withdrawn.remove(id);
        }
    }

    /// Tries failed and expired deliveries again, now.
    pub async fn retry(self: &Arc<Self>, by: &Actor, id: &str, account: Option<&str>) -> Result<Retrying, ActError> {
        let rows = self.all_of(id).await?;
        let config = self.config();
        if let Some(first) = rows.first().filter(|d| d.priority == Priority::Emergency) {
            let content = self.content(&first.content).await?;
            let needed = config.settings.emergency.persons(&content.body);
            if lock(&self.gate).persons(&first.announcement, &first.content).len() < needed {
                // Its hold ended with it, and its first word is old: who wants it now asks for it now.
                return Err(ActError::Conflict(words!(
                    "`{id}` 没有及时确认，已作罢；要发就重新发起",
                    "`{id}` was given up for want of a second word: if it should go, ask for it anew"
                )));
            }
        }
        let mut tried = Vec::new();
        let wanted = |d: &&Delivery| {
            matches!(d.state, State::Failed | State::Expired) && account.is_none_or(|a| a == d.account.as_str())
        };
        for row in rows.iter().filter(wanted) {
            let now = self.clock.now();
            let content = self.content(&row.content).await?;
            let expires_at = super::planner::expiry(&content.body, now, &config.settings.publish);
            // A person asks because something was mended: the credential is asked about again.
            lock(&self.standings).remove(&row.account);
            self.step(by, row, Event::TriedAgain { at: now, expires_at }, Vec::new()).await?;
            lock(&self.gate).withdrawn.remove(&row.id);
            lock(&self.panics).remove(&row.id);
            tried.push(row.id);
        }
        if tried.is_empty() {
            let said = words!("`{id}` 没有失败或过期的投递", "nothing of `{id}` has failed or expired");
            return Err(ActError::Conflict(said));
        }
        self.nudge(&tried);
        if rows.iter().any(|d| d.priority == Priority::Emergency) {
            self.urge();
        }
        Ok(Retrying { id: id.to_owned(), retrying: tried.len() })
    }

    /// A person says what became of an `unknown` delivery.
    pub async fn resolve(
        self: &Arc<Self>,
        by: &Actor,
        id: DeliveryId,
        published: Option<String>,
    ) -> Result<answers::Delivery, ActError> {
        let row = self.ledger.load(vec![id]).await?.into_iter().next();
        let row = row.ok_or_else(|| ActError::NotFound(Words::new("没有这次投递", "there is no such delivery")))?;
        let event = match published {
            Some(url) => {
                let fine =
                    (url.starts_with("https://") || url.starts_with("http://")) && !url.contains(char::is_whitespace);
                if !fine || url.len() > 500 {
                    let said = Words::new("须为 http(s) 地址", "it has to be an http(s) address");
                    return Err(ActError::Invalid("published".into(), said));
                }
                let post_id = url.trim_end_matches('/').rsplit('/').next().unwrap_or("").to_owned();
                Event::SettledPublished { url: Some(url), post_id }
            }
            None => Event::SettledNotPublished,
        };
        // In one commit with the correction or the all-clear that waits to know.
        let after = super::send::written_by(self, by, &row, event).await?;
        self.nudge(&[id]);
        Ok(answers::Delivery::of(&after))
    }

    /// The answer to the mass-cancel guard.
    pub async fn prune(self: &Arc<Self>, by: &Actor, accept: bool, plan: &str) -> Result<Pruned, ActError> {
        let waiting = lock(&self.state).prune.clone();
        let Some(prune) = waiting else {
            return Err(ActError::Conflict(Words::new("没有等待确认的批量取消", "no mass cancellation is waiting")));
        };
        if prune.hash != plan {
            let hash = &prune.hash;
            return Err(ActError::Conflict(words!("等待的是另一个计划 {hash}", "another plan is waiting: {hash}")));
        }
        // The answer's name is the same in the trail and where the planner looks it up.
        let word = if accept { "prune_accepted" } else { "prune_refused" };
        let changes = vec![
            Change::Meta { key: word.to_owned(), value: Some(prune.hash.clone()) },
            Note::change(word, "queue", json!({ "plan": prune.hash, "announcements": prune.announcements })),
        ];
        self.ledger.commit(by, changes).await?;
        self.rescan_now().await;
        Ok(Pruned { plan: plan.to_owned(), accepted: accept, announcements: prune.announcements.len() })
    }

    /// Reads the configuration again; one with a fault leaves the old one in force and says so.
    pub async fn reload_config(self: &Arc<Self>) {
        // A drill's world is made once; what lies in its folder is for commands to find it by.
        if self.config().drill {
            return;
        }
        let (file, env) = (self.config().settings.file.clone(), self.env.clone());
        let read = tokio::task::spawn_blocking(move || config::read(&file, &env, true)).await;
        let Ok((config, faults)) = read else { return };
        let same_place = |config: &Config| {
            let (new, old) = (&config.settings, &self.config().settings);
            new.ledger == old.ledger && new.socket == old.socket
        };
        match config {
            Some(mut config) if same_place(&config) => {
                config.keep_templates(&self.config());
                tracing::info!(accounts = config.city.accounts.len(), "the configuration was read again");
                self.replace_config(config);
                let mut state = lock(&self.state);
                state.config_faults = faults;
                state.rejected.clear();
            }
            Some(_) => {
                tracing::error!(
                    "`ledger` and `socket` cannot change while the daemon runs; the old configuration stays in force"
                );
                let source = crate::input::Source::new(self.config().settings.file.display().to_string(), "");
                let said = Words::new(
                    "`ledger` 和 `socket` 运行中不能改，请重启",
                    "`ledger` and `socket` cannot change while the daemon runs: restart it",
                );
                lock(&self.state).rejected = vec![source.fault(0..0, "restart_needed", said)];
            }
            None => {
                tracing::error!(
                    faults = faults.len(),
                    "the changed configuration cannot be used; the old one stays in force"
                );
                lock(&self.state).rejected = faults;
            }
        }
        self.ask_rescan();
    }
}
