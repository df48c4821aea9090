//! Holds (静默): routine is silent, and what was kept back never goes out unseen.
//!
//! A hold is in force when its commit is: the gate in memory follows the ledger, and the answer waits for requests whose
//! permit was granted a moment before (R5). Its end only opens the gate: what it came over waits for a person's review,
//! unless the configuration says `after_hold: resume`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::json;

use super::acts::{ActError, stepped};
use super::answers::{HoldOver, Holding, Out, Unheld};
use super::config::Config;
use super::{Inner, lock};
use crate::clock::Time;
use crate::core::accounts::{AccountId, Selector};
use crate::core::announcement::{AnnouncementId, Body, Content, ContentHash, OccurrenceId, Priority};
use crate::core::change::{Actor, Change, Note};
use crate::core::delivery::{Cause, Delivery, DeliveryId, Event, State, newest};
use crate::core::gate::{Choice, Hold, Verdict};
use crate::core::words::{Words, shown, words};
use crate::daemon::send::{closed, held_expiry, is_expired, review, verdict_of};
use crate::ledger::{Filter, LedgerError};

/// What was kept back, at most so many at once.
const MOST: usize = 100_000;
/// What is due within this time clashes with what goes now, and a hold that ends within it is told of.
const SOON: TimeDelta = TimeDelta::minutes(10);
/// For what shows how many a hold without an end keeps back.
const A_DAY: TimeDelta = TimeDelta::days(1);

/// Accounts that a person's selectors mean. What means nobody is an error of its field, `to` or `except`.
pub(crate) fn accounts_of(config: &Config, named: &Choice) -> Result<BTreeSet<AccountId>, ActError> {
    for (field, selectors) in [("to", &named.to), ("except", &named.except)] {
        for text in selectors {
            chosen(config, text).map_err(|said| ActError::Invalid(field.into(), said))?;
        }
    }
    Ok(meant_by(config, named))
}

/// The accounts that selectors mean now. A name that is no more takes nothing from the others.
fn meant_by(config: &Config, named: &Choice) -> BTreeSet<AccountId> {
    let all = |selectors: &[String]| -> BTreeSet<AccountId> {
        selectors.iter().filter_map(|text| chosen(config, text).ok()).flatten().collect()
    };
    let except = all(&named.except);
    let mut accounts = all(&named.to);
    accounts.retain(|account| !except.contains(account) && !config.city.is_resting(account));
    accounts
}

/// The accounts of one selector, or why it means nobody.
fn chosen(config: &Config, text: &str) -> Result<BTreeSet<AccountId>, Words> {
    config.city.select(&Selector::parse(text)?).map_err(|nobody| {
        let hint = nobody.hint.unwrap_or(Words::same(""));
        let (zh, en) = (format!("{} {}", nobody.said.zh, hint.zh), format!("{} {}", nobody.said.en, hint.en));
        Words::new(zh.trim(), en.trim())
    })
}

impl Inner {
    /// Whether a hold kept a post of routine back that was to go at this instant, and to last until its expiry.
    pub(crate) fn came_over(&self, row: &Delivery, at: Time, expires_at: Option<Time>, body: &Body) -> bool {
        let now = self.clock.now();
        let end = expires_at.map_or(now, |end| end.min(now));
        self.memory.came_over(&row.account, body, (at, end), now, self.config().settings.emergency.resume)
    }

    /// A configuration comes in force, and no hold begins between its accounts being held and its being there.
    pub(crate) async fn with_its_holds(&self, config: Config) -> Result<(), LedgerError> {
        let _turn = self.naming.lock().await;
        self.hold_what_is_named(&config).await?;
        self.replace_config(config);
        Ok(())
    }

    /// The accounts of a configuration that is to be in force: those that are meant by the name of a hold that stands
    /// are held before anything can be sent to them.
    pub(crate) async fn hold_what_is_named(&self, config: &Config) -> Result<(), LedgerError> {
        let wider = |hold: Hold| {
            let (held, named) = (hold.accounts.clone()?, hold.named.clone()?);
            let meant = meant_by(config, &named);
            let is_wider = !meant.is_subset(&held);
            let accounts = Some(held.into_iter().chain(meant).collect());
            is_wider.then(|| Change::Hold(Hold { accounts, version: hold.version + 1, ..hold }))
        };
        loop {
            let changes: Vec<Change> = self.holds().into_iter().filter_map(wider).collect();
            if changes.is_empty() {
                return Ok(());
            }
            match self.commit(&Actor::Daemon, changes).await {
                // One was ended, or given another end, in this moment.
                Err(LedgerError::Conflict) => {}
                done => return done.map(drop),
            }
        }
    }

    /// Begins a hold, of the accounts that its selectors mean. When it returns nothing of routine begins any more.
    pub async fn hold(self: &Arc<Self>, by: &Actor, hold: Hold) -> Result<Holding, ActError> {
        let hold = {
            let _turn = self.naming.lock().await;
            let accounts = hold.named.as_ref().map(|named| accounts_of(&self.config(), named)).transpose()?;
            if accounts.as_ref().is_some_and(BTreeSet::is_empty) {
                let said = Words::new("没有账号可静默", "it means no account: nothing would be held");
                return Err(ActError::Invalid("to".into(), said));
            }
            let hold = Hold { accounts, ..hold };
            self.commit(by, vec![Change::Hold(hold.clone())]).await?;
            hold
        };
        tracing::warn!(hold = hold.id, reason = hold.reason, "routine is held");
        self.quiet().await;
        self.kept_by(&hold).await
    }

    /// What the answer to a hold says: how many it keeps back, what was out already, what is on the wire.
    pub(crate) async fn kept_by(&self, hold: &Hold) -> Result<Holding, ActError> {
        let until = hold.until.unwrap_or(self.clock.now() + A_DAY);
        let kept = self.ledger.kept_back(until, hold.accounts.clone()).await?;
        // A request that is on the wire is never cut; what only has its intent is kept back like the rest.
        let in_flight = {
            let under_way = lock(&self.under_way);
            kept.sending.iter().filter(|(id, passes)| *passes || under_way.contains(id)).count() as u64
        };
        let held = kept.held + kept.sending.len() as u64 - in_flight;
        let Hold { id, reason, until, accounts, owner, .. } = hold.clone();
        let out = kept.out.into_iter().map(|(account, url)| Out { account, url }).collect();
        Ok(Holding { id, reason, until, accounts, owner, held, in_flight, out })
    }

    /// The holds that stand now.
    pub fn holds(&self) -> Vec<Hold> {
        self.memory.holds(self.clock.now())
    }

    /// Ends a hold by its name.
    pub async fn end_hold(self: &Arc<Self>, by: &Actor, id: &str) -> Result<HoldOver, ActError> {
        loop {
            let Some(hold) = self.holds().into_iter().find(|h| h.id == id) else {
                let safe = shown(id);
                return Err(ActError::NotFound(words!("没有静默 `{safe}`", "there is no hold `{safe}`")));
            };
            match self.commit(by, vec![Change::end_of(&hold)]).await {
                // It was given another end in this moment: it is that one which ends.
                Err(LedgerError::Conflict) => {}
                done => {
                    done?;
                    break;
                }
            }
        }
        tracing::warn!(hold = id, by = %by, "the hold is over");
        let released = self.after_hold().await?;
        Ok(HoldOver { id: id.to_owned(), released, waiting: self.held().await?.len() })
    }

    /// Deliveries that no hold keeps back any more go on, or begin to wait for a person's review.
    pub(crate) async fn after_hold(self: &Arc<Self>) -> Result<usize, ActError> {
        self.after_holds(self.config().settings.emergency.resume).await
    }

    /// The same, found out by one of them: by the time it has its turn another may have done it for all.
    pub(crate) async fn after_hold_of(self: &Arc<Self>, row: &Delivery) -> Result<(), LedgerError> {
        let _turn = self.reviewing.lock().await;
        let found = self.ledger.load(vec![row.id]).await?;
        if found.first().is_none_or(|found| found.fence != row.fence) {
            return Ok(());
        }
        match self.look_at_held(self.config().settings.emergency.resume).await {
            Err(ActError::Ledger(error)) => Err(error),
            Err(error) => {
                tracing::error!(error = error.words().en, "what the hold kept back was not looked at");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// The same, and whether they go on by themselves.
    pub(crate) async fn after_holds(self: &Arc<Self>, resume: bool) -> Result<usize, ActError> {
        let _turn = self.reviewing.lock().await;
        self.look_at_held(resume).await
    }

    async fn look_at_held(self: &Arc<Self>, resume: bool) -> Result<usize, ActError> {
        let (now, config) = (self.clock.now(), self.config());
        let rows = self.held().await?;
        let contents = self.contents_of(&rows).await?;
        let overtaken = overtaken(&rows, &contents);
        let instants = in_turn(rows.iter().filter(|row| !overtaken.contains(&row.id)), now);
        let decide = |row: &Delivery, content: &Content| {
            if row.state != State::Held {
                return None;
            }
            // It lasts by its own words as long as it would have; without any, anew.
            let own_end = held_expiry(row.at, &content.body);
            match verdict_of(self, row, content, now) {
                Verdict::Go if is_expired(row, now) => Some(Event::Expired),
                Verdict::Go if resume && overtaken.contains(&row.id) => Some(Event::Overtaken),
                Verdict::Go if resume => {
                    let at = own_end
                        .map_or(instants[&row.id], |end| instants[&row.id].min(end - TimeDelta::seconds(1)))
                        .max(now);
                    let anew = || super::planner::expiry(&content.body, at, &config.settings.publish);
                    Some(Event::GateOpen { at, expires_at: own_end.or_else(anew) })
                }
                Verdict::Go | Verdict::Held { cause: Cause::Review, .. } if row.cause != Some(Cause::Review) => {
                    Some(review(row, content))
                }
                // Another hold is in its way still, until another time.
                Verdict::Held { cause: Cause::Hold, until, why }
                    if row.cause == Some(Cause::Hold)
                        && row.next_at != [until, own_end].into_iter().flatten().min() =>
                {
                    Some(Event::GateClosed { cause: Cause::Hold, until, expires_at: own_end, why })
                }
                _ => None,
            }
        };
        let done = stepped(self.step_all(&Actor::Daemon, &rows, decide).await)?;
        Ok(done.iter().filter(|row| row.state != State::Held && !row.state.is_settled()).count())
    }

    /// The contents of these deliveries, read once.
    pub(super) async fn contents_of(
        &self,
        rows: &[Delivery],
    ) -> Result<BTreeMap<ContentHash, Arc<Content>>, LedgerError> {
        let mut contents = BTreeMap::new();
        for row in rows {
            if !contents.contains_key(&row.content) {
                contents.insert(row.content.clone(), self.content(&row.content).await?);
            }
        }
        Ok(contents)
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
        for hold in self.memory.past_holds(self.clock.now()) {
            match self.commit(&Actor::Daemon, vec![Change::end_of(&hold)]).await {
                // An update of its emergency has given it another end in this moment.
                Ok(_) | Err(LedgerError::Conflict) => {}
                Err(error) => tracing::error!(%error, "the end of a hold was not recorded; it is tried again"),
            }
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
            // Of nothing, all has been let go.
            let Some(id) = id else { return Ok(Unheld { id: None, released: 0, held: 0 }) };
            let safe = shown(id);
            return Err(ActError::Conflict(words!("`{safe}` 没有被静默留住的", "nothing of `{safe}` is held")));
        }
        let (now, config) = (self.clock.now(), self.config());
        let contents = self.contents_of(&rows).await?;
        let (holds, instants) = (self.holds(), in_turn(rows.iter(), now));
        let is_covered = |row: &Delivery, content: &Content| {
            content.body.hold_exempt.is_none() && holds.iter().any(|hold| hold.covers(&row.account, now))
        };
        let decide = |row: &Delivery, content: &Content| {
            if row.state != State::Held {
                return None;
            }
            let at = instants[&row.id];
            let expires_at = super::planner::expiry(&content.body, at, &config.settings.publish);
            match verdict_of(self, row, content, now) {
                // What its account gets no more waits for nobody any longer.
                Verdict::Closed(why) => Some(closed(why)),
                _ if is_covered(row, content) => None,
                _ if is_expired(row, now) => Some(Event::Expired),
                _ => Some(Event::GateOpen { at, expires_at }),
            }
        };
        let done = stepped(self.step_all(by, &rows, decide).await)?;
        let released = done.iter().filter(|row| !row.state.is_settled()).count();
        let covered = rows.iter().filter(|row| is_covered(row, &contents[&row.content])).count();
        if done.is_empty() {
            let said =
                Words::new("静默还在，先 `fabu resume`", "a hold still stands in the way: end it with `fabu resume`");
            return Err(ActError::Conflict(said));
        }
        Ok(Unheld { id: id.map(str::to_owned), released, held: covered })
    }
}

/// What was kept back goes on in its old order: on one account one after the other.
fn in_turn<'a>(rows: impl Iterator<Item = &'a Delivery>, now: Time) -> BTreeMap<DeliveryId, Time> {
    const APART: TimeDelta = TimeDelta::seconds(2);
    let mut releases: BTreeMap<(Time, &OccurrenceId), Vec<&Delivery>> = BTreeMap::new();
    for row in rows {
        releases.entry((row.at, &row.occurrence)).or_default().push(row);
    }
    let mut free: BTreeMap<&AccountId, Time> = BTreeMap::new();
    let mut instants = BTreeMap::new();
    for release in releases.values() {
        let at = release.iter().filter_map(|row| free.get(&row.account)).max().copied().unwrap_or(now);
        for row in release {
            free.insert(&row.account, at + APART);
            instants.insert(row.id, at);
        }
    }
    instants
}

/// Looks at what was kept back whenever a hold has ended, whoever ended it.
pub async fn run(inner: Arc<Inner>) {
    /// Who ends one looks first, and answers with what was let go.
    const FIRST: std::time::Duration = std::time::Duration::from_secs(1);
    loop {
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = inner.memory.hold_ended.notified() => {}
        }
        inner.clock.sleep(FIRST).await;
        if let Err(error) = inner.after_hold().await {
            tracing::error!(error = error.words().en, "what the hold kept back was not looked at");
        }
    }
}

/// The older hours of repeats that were kept back: of several on an account only the newest goes on by itself.
fn overtaken(rows: &[Delivery], contents: &BTreeMap<ContentHash, Arc<Content>>) -> BTreeSet<DeliveryId> {
    let is_repeat = |d: &&Delivery| contents.get(&d.content).is_some_and(|content| content.is_repeat());
    let newest = newest(rows.iter().filter(is_repeat), |d| (&d.announcement, &d.account));
    let is_older = |d: &&Delivery| newest[&(&d.announcement, &d.account)] != (d.at, d.id);
    rows.iter().filter(is_repeat).filter(is_older).map(|d| d.id).collect()
}

/// When a hold would end; the words of a person or a configuration become an instant.
pub fn until(now: Time, lasts: std::time::Duration) -> Option<Time> {
    now.checked_add_signed(TimeDelta::from_std(lasts).ok()?)
}
