//! Holds (静默): routine is silent, and what was kept back never goes out unseen.
//!
//! A hold closes the gate in memory before it is written, so that no routine request begins after the
//! answer (R5). Its end only opens the gate: what it kept back waits for a person's look, unless the
//! configuration says `after_hold: resume`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;

use super::acts::ActError;
use super::answers::{HoldOver, Holding, Out, Unheld};
use super::{Inner, StepError, lock};
use crate::clock::Time;
use crate::core::accounts::{AccountId, Selector};
use crate::core::announcement::{AnnouncementId, Content, Priority};
use crate::core::change::{Actor, Change, Note};
use crate::core::delivery::{Delivery, DeliveryId, Event, State};
use crate::core::gate::{Hold, Verdict};
use crate::core::words::{Words, shown, words};
use crate::daemon::send::{held_expiry, verdict_of};
use crate::ledger::{Filter, LedgerError};

/// What was kept back, at most so many at once.
const MOST: usize = 100_000;
/// From passing the gate to the first byte written.
const LONGEST_WAY_OUT: Duration = Duration::from_millis(150);
/// What is due within this time clashes with what goes now, and a hold that ends within it is told of.
const SOON: TimeDelta = TimeDelta::minutes(10);
/// For what shows how many a hold without an end keeps back.
const A_DAY: TimeDelta = TimeDelta::days(1);

impl Inner {
    /// Accounts that selectors mean, without those of `except`; `field` is to blame for what means nobody.
    pub(crate) fn accounts_of(
        &self,
        field: &'static str,
        to: &[String],
        except: &[String],
    ) -> Result<BTreeSet<AccountId>, ActError> {
        let config = self.config();
        let chosen = |field: &'static str, selectors: &[String]| {
            let mut found = BTreeSet::new();
            for text in selectors {
                let selector = Selector::parse(text).map_err(|said| ActError::Invalid(field.into(), said))?;
                let accounts = config.city.select(&selector).map_err(|nobody| {
                    let hint = nobody.hint.unwrap_or(Words::same(""));
                    let (zh, en) =
                        (format!("{} {}", nobody.said.zh, hint.zh), format!("{} {}", nobody.said.en, hint.en));
                    ActError::Invalid(field.into(), Words::new(zh.trim(), en.trim()))
                })?;
                found.extend(accounts);
            }
            Ok::<_, ActError>(found)
        };
        let mut accounts = chosen(field, to)?;
        for account in chosen("except", except)? {
            accounts.remove(&account);
        }
        accounts.retain(|a| !config.city.is_resting(a));
        Ok(accounts)
    }

    /// Begins a hold, or gives the one of this name another end. When it returns nothing of routine begins any more.
    pub async fn hold(self: &Arc<Self>, by: &Actor, hold: Hold) -> Result<Holding, ActError> {
        self.commit_silent(by, vec![Change::Hold(hold.clone())], Some(&hold)).await?;
        tracing::warn!(hold = hold.id, reason = hold.reason, "routine is held");
        self.silent().await;
        self.kept_by(&hold).await
    }

    /// What passed the gate before it closed may not have reached the wire yet, on a busy machine for some tens of
    /// milliseconds. Its answer proves that it has; a platform that does not answer is not waited for.
    async fn silent(&self) {
        let end = self.clock.mono().0 + LONGEST_WAY_OUT;
        while self.passing.load(Ordering::SeqCst) > 0 && self.clock.mono().0 < end {
            self.clock.sleep(Duration::from_millis(2)).await;
        }
    }

    /// Closes the gate in memory; returns the hold of this name that stood before.
    fn close_gate(&self, hold: &Hold) -> Option<Hold> {
        let mut gate = lock(&self.gate);
        let before = gate.holds.iter().position(|h| h.id == hold.id).map(|at| gate.holds.remove(at));
        gate.holds.push(hold.clone());
        before
    }

    /// Takes back what was not written, and nothing else: another hold may have been acknowledged meanwhile.
    fn open_gate(&self, hold: &Hold, before: Option<Hold>) {
        let mut gate = lock(&self.gate);
        gate.holds.retain(|h| h != hold);
        gate.holds.extend(before);
    }

    /// Commits what brings a hold, if it does: routine is silent before the first byte is written, and speaks again if
    /// nothing was.
    pub(crate) async fn commit_silent(
        &self,
        by: &Actor,
        changes: Vec<Change>,
        hold: Option<&Hold>,
    ) -> Result<(), LedgerError> {
        let before = hold.and_then(|hold| self.close_gate(hold));
        let written = self.ledger.commit(by, changes).await;
        if let (Err(_), Some(hold)) = (&written, hold) {
            self.open_gate(hold, before);
        }
        written.map(|_| ())
    }

    /// What the answer to a hold says: how many it keeps back, what was out already, what is on the wire.
    pub(crate) async fn kept_by(&self, hold: &Hold) -> Result<Holding, ActError> {
        let until = hold.until.unwrap_or(self.clock.now() + A_DAY);
        let kept = self.ledger.kept_back(until, hold.accounts.clone()).await?;
        let Hold { id, reason, until, accounts, owner, .. } = hold.clone();
        let out = kept.out.into_iter().map(|(account, url)| Out { account, url }).collect();
        Ok(Holding { id, reason, until, accounts, owner, held: kept.held, in_flight: kept.in_flight, out })
    }

    /// The holds that stand now.
    pub fn holds(&self) -> Vec<Hold> {
        let now = self.clock.now();
        lock(&self.gate).holds.iter().filter(|h| h.until.is_none_or(|until| until > now)).cloned().collect()
    }

    /// Ends a hold by its name.
    pub async fn end_hold(self: &Arc<Self>, by: &Actor, id: &str) -> Result<HoldOver, ActError> {
        if !self.holds().iter().any(|h| h.id == id) {
            let safe = shown(id);
            return Err(ActError::NotFound(words!("没有静默 `{safe}`", "there is no hold `{safe}`")));
        }
        self.ledger.commit(by, vec![Change::HoldEnded(id.to_owned())]).await?;
        lock(&self.gate).holds.retain(|h| h.id != id);
        tracing::warn!(hold = id, by = %by, "the hold is over");
        let released = self.after_hold().await?;
        Ok(HoldOver { id: id.to_owned(), released, waiting: self.held().await?.len() })
    }

    /// What no hold keeps back any more goes on, or begins to wait for a person's look.
    pub(crate) async fn after_hold(self: &Arc<Self>) -> Result<usize, ActError> {
        let (now, config) = (self.clock.now(), self.config());
        let (free, _) = self.uncovered(self.held().await?, now).await?;
        let resumes = config.settings.emergency.resume;
        let event = |row: &Delivery| {
            let content = &free[&row.id].1;
            if resumes {
                let expires_at = super::planner::expiry(&content.body, now, &config.settings.publish);
                return Event::GateOpen { at: now, expires_at };
            }
            let why = Words::new("静默已结束，等人放行", "the hold is over; waiting for a person to release it");
            Event::GateClosed { until: None, expires_at: held_expiry(row, &content.body), why }
        };
        let done = self.step_all(&Actor::Daemon, free.values().map(|(row, _)| row), event).await;
        self.nudge(&free.keys().copied().collect::<Vec<_>>());
        let released = let_go(done)?.len();
        Ok(if resumes { released } else { 0 })
    }

    /// What no hold keeps back any more, with its words, and how many others one still does.
    async fn uncovered(&self, rows: Vec<Delivery>, now: Time) -> Result<(Uncovered, usize), ActError> {
        let (mut free, mut covered) = (BTreeMap::new(), 0);
        for row in rows {
            let content = self.content(&row.content).await?;
            match verdict_of(self, &row, &content, now) {
                Verdict::Go => {
                    free.insert(row.id, (row, content));
                }
                _ => covered += 1,
            }
        }
        Ok((free, covered))
    }

    /// Routine that is kept back, oldest first.
    pub async fn held(&self) -> Result<Vec<Delivery>, ActError> {
        let filter = Filter { states: vec![State::Held], max: MOST, ..Filter::default() };
        let mut found = self.ledger.deliveries(filter).await?;
        found.retain(|d| d.priority != Priority::Emergency);
        found.sort_by_key(|d| (d.at, d.id));
        Ok(found)
    }

    /// What else would speak on the same account if these went now: other things kept back, and what is due soon.
    pub async fn clashes(&self, held: &[Delivery]) -> Result<BTreeMap<DeliveryId, BTreeSet<AnnouncementId>>, ActError> {
        let states = vec![State::Scheduled, State::Ready, State::Retrying];
        let soon = self.clock.now() + SOON;
        let filter = Filter { states, max: MOST, ..Filter::default() };
        let mut due = self.ledger.deliveries(filter).await?;
        due.retain(|d| d.at <= soon);
        let mut by_account: BTreeMap<&AccountId, BTreeSet<&AnnouncementId>> = BTreeMap::new();
        for row in held.iter().chain(&due) {
            by_account.entry(&row.account).or_default().insert(&row.announcement);
        }
        let others = |row: &Delivery| {
            let all = by_account.get(&row.account).into_iter().flatten();
            all.filter(|id| ***id != row.announcement).map(|id| (*id).clone()).collect()
        };
        Ok(held.iter().map(|row| (row.id, others(row))).collect())
    }

    /// Writes down that a hold is over whose end has come: stepped back, the clock revives none.
    pub async fn end_past_holds(&self) {
        let now = self.clock.now();
        let is_past = |hold: &Hold| hold.until.is_some_and(|until| until <= now);
        if !lock(&self.gate).holds.iter().any(is_past) {
            return;
        }
        // An update of its emergency may give it another end in this moment.
        let _turn = self.deciding.lock().await;
        let past: Vec<String> = lock(&self.gate).holds.iter().filter(|h| is_past(h)).map(|h| h.id.clone()).collect();
        let ended = past.iter().cloned().map(Change::HoldEnded).collect();
        match self.ledger.commit(&Actor::Daemon, ended).await {
            Ok(_) => lock(&self.gate).holds.retain(|h| !past.contains(&h.id)),
            Err(error) => tracing::error!(%error, "the end of a hold was not recorded; it is tried again"),
        }
    }

    /// Says once of each hold that its end is near, while somebody can still give it another one.
    pub async fn tell_of_ends(&self) {
        let now = self.clock.now();
        for hold in self.holds() {
            let Some(until) = hold.until.filter(|until| *until > now && *until <= now + SOON) else { continue };
            if !lock(&self.state).ending.insert((hold.id.clone(), until)) {
                continue;
            }
            let held = self.held().await.map_or(0, |held| held.len());
            tracing::warn!(hold = hold.id, %until, held, "a hold is about to end");
            let note =
                Note::change("hold_ends_soon", &hold.id, json!({ "until": until, "held": held, "owner": hold.owner }));
            if let Err(error) = self.ledger.commit(&Actor::Daemon, vec![note]).await {
                tracing::error!(%error, "the notice of a hold's end was not recorded");
            }
        }
    }

    /// Lets go what was kept back of these announcements, or of all, at a new instant.
    pub async fn unhold(self: &Arc<Self>, by: &Actor, id: Option<&str>) -> Result<Unheld, ActError> {
        let of = |d: &Delivery| id.is_none_or(|id| id == d.announcement.as_str() || id == d.occurrence.as_str());
        let rows: Vec<Delivery> = self.held().await?.into_iter().filter(of).collect();
        if rows.is_empty() {
            let said = match id {
                Some(id) => {
                    let safe = shown(id);
                    words!("`{safe}` 没有被静默留住的", "nothing of `{safe}` is held")
                }
                None => Words::new("没有被静默留住的", "nothing is held"),
            };
            return Err(ActError::Conflict(said));
        }
        let (at, config) = (self.clock.now(), self.config());
        let (free, covered) = self.uncovered(rows, at).await?;
        let event = |row: &Delivery| {
            let expires_at = super::planner::expiry(&free[&row.id].1.body, at, &config.settings.publish);
            Event::GateOpen { at, expires_at }
        };
        let released = let_go(self.step_all(by, free.values().map(|(row, _)| row), event).await)?;
        if released.is_empty() {
            let said =
                Words::new("静默还在，先 `fabu resume`", "a hold still stands in the way: end it with `fabu resume`");
            return Err(ActError::Conflict(said));
        }
        self.nudge(&released);
        Ok(Unheld { id: id.map(str::to_owned), released: released.len(), held: covered })
    }
}

/// Held rows that may go, with their words.
type Uncovered = BTreeMap<DeliveryId, (Delivery, Arc<Content>)>;

/// Those that took their step; what somebody else has changed meanwhile is left to them.
fn let_go(done: Vec<Result<Delivery, StepError>>) -> Result<Vec<DeliveryId>, ActError> {
    let mut went = Vec::new();
    for row in done {
        match row {
            Ok(row) => went.push(row.id),
            Err(StepError::Illegal(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(went)
}

/// When a hold would end; the words of a person or a configuration become an instant.
pub fn until(now: Time, lasts: std::time::Duration) -> Option<Time> {
    now.checked_add_signed(TimeDelta::from_std(lasts).ok()?)
}
