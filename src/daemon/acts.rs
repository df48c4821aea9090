//! What a person may do to announcements and deliveries: cancel, delete, retry, resolve, prune, reload.
//!
//! Each act is in the ledger when it is answered, and its answer counts what its commit has done, not what was read
//! before. No request of a withdrawn delivery begins after the answer (R6).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::json;

use super::answers::{Retrying, Withdrawn};
use super::config::{self, Config};
use super::prepare::Means;
use super::sole::Sole;
use super::{Inner, StepError, lock, planner};
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, Content, OccurrenceId, Part, Priority};
use crate::core::change::{Actor, AnnouncementRow, Change, Note, Withdrawal};
use crate::core::delivery::{Cause, Delivery, Desired, Doubt, Event, Reach, State, Stop, newest, stopped};
use crate::core::words::{Words, shown, words};
use crate::ledger::{Filter, LedgerError, Trust};

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
        let found = self.deliveries_named(id).await?;
        if found.is_empty() {
            return Err(ActError::NotFound(no_announcement(id)));
        }
        Ok(found)
    }

    /// The same; an emergency of the queue whose hour is far has none yet.
    pub(crate) async fn deliveries_named(&self, id: &str) -> Result<Vec<Delivery>, LedgerError> {
        let filter = Filter { announcement: Some(id.to_owned()), max: MOST, ..Filter::default() };
        self.ledger.deliveries(filter).await
    }

    /// That of the announcement as it is now, and of anything of it that is an emergency's.
    pub async fn priority_of(&self, id: &str) -> Result<Priority, ActError> {
        let (row, rows) = self.named(id).await?;
        Ok(rows.iter().map(|d| d.priority).chain([row.priority]).min().unwrap_or(row.priority))
    }

    /// Stops what is not out yet (`Stopped`), or takes down what is as well (`Removed`).
    pub async fn withdraw(self: &Arc<Self>, by: &Actor, id: &str, desired: Desired) -> Result<Withdrawn, ActError> {
        let (turn, row, rows) = self.named_in_turn(id).await?;
        let is_whole = row.id.as_str() == id;
        let (zh, en) = if desired == Desired::Removed { ("撤下", "deleted") } else { ("取消", "cancelled") };
        let stop = Stop {
            posts: vec![row.id.clone()],
            occurrence: rows.first().filter(|_| !is_whole).map(|d| d.occurrence.clone()),
            account: None,
            reach: if desired == Desired::Removed { Reach::All } else { Reach::NotPublished },
            desired,
            cause: Cause::Person,
            why: words!("由 {by} {zh}", "{en} by {by}"),
        };
        // A repeat goes on with hours that are not written yet.
        let goes_on = is_whole && row.planned_to.is_some() && !matches!(row.withdrawn, Some(Withdrawal::Person(_)));
        let is_open = |d: &Delivery| !d.state.is_settled();
        if !goes_on && !rows.iter().any(is_open) && stopped(&rows, &stop, self.clock.now()).is_empty() {
            let said =
                words!("`{id}` 都已了结，没有可{zh}的", "everything of `{id}` is settled: there is nothing to be {en}");
            return Err(ActError::Conflict(said));
        }
        let is_withdrawn = match (is_whole, rows.first()) {
            // Its file may still be there: what a person withdrew does not come back with it.
            (true, _) => Some(Change::Withdrawn(row.id.clone(), Withdrawal::Person(by.to_string()))),
            (false, Some(d)) => Some(Change::OccurrenceStopped(d.occurrence.clone(), row.id.clone(), by.to_string())),
            (false, None) => None,
        };
        let mut changes = vec![Change::Stop(Box::new(stop))];
        changes.extend(is_withdrawn);
        changes.push(Note::change(en, id, json!({ "by": by.to_string() })));
        let committed = self.commit(by, changes).await?;
        self.quiet().await;
        let (mut cancelled, mut in_flight, mut taking_down, mut out_of_reach) = (0, 0, 0, 0);
        // Some were cancelled before, and only never begin again now.
        let before: BTreeSet<_> = rows.iter().filter(|d| d.state == State::Cancelled).map(|d| d.id).collect();
        for after in committed.stepped() {
            match after.state {
                State::Cancelled if before.contains(&after.id) => {}
                State::Cancelled => cancelled += 1,
                State::Published => {
                    taking_down += 1;
                    out_of_reach += usize::from(Means::there(self, after).is_err());
                }
                State::Sending | State::Unknown | State::Accepted => in_flight += 1,
                _ => {}
            }
        }
        let unchanged = rows.len().saturating_sub(cancelled + in_flight + taking_down);
        drop(turn);
        if row.priority == Priority::Emergency
            && let Some(hold) = self.hold_of_nothing(&row).await?
        {
            self.end_hold(by, &hold.id).await?;
        }
        Ok(Withdrawn { id: id.to_owned(), cancelled, in_flight, taking_down, out_of_reach, unchanged })
    }

    /// The announcement that this name means, by its own name or that of one of its occurrences, and its deliveries.
    async fn named(&self, id: &str) -> Result<(AnnouncementRow, Vec<Delivery>), ActError> {
        let rows = self.deliveries_named(id).await?;
        let name = rows.first().map_or(id, |d| d.announcement.as_str());
        Ok((self.announced(name).await?.ok_or_else(|| ActError::NotFound(no_announcement(id)))?, rows))
    }

    /// The same; of an emergency with the turn to decide on it, and as it is then: a word, or a correction, that is given
    /// in this moment is for what it finds.
    async fn named_in_turn(
        &self,
        id: &str,
    ) -> Result<(Option<tokio::sync::MutexGuard<'_, ()>>, AnnouncementRow, Vec<Delivery>), ActError> {
        let (row, rows) = self.named(id).await?;
        if row.priority != Priority::Emergency {
            return Ok((None, row, rows));
        }
        let turn = self.deciding.lock().await;
        let (row, rows) = self.named(id).await?;
        Ok((Some(turn), row, rows))
    }

    /// Looks now for deliveries of unknown outcome, with whatever was mended.
    async fn look_again(self: &Arc<Self>, by: &Actor, doubted: &[Delivery]) -> Result<usize, ActError> {
        for d in doubted {
            self.memory.forget_credentials(|account, _| *account == d.account);
        }
        let until = self.clock.now();
        let why = Words::new("有人要求再看一次", "a person asked to look again");
        // It may be known by now.
        let again = |d: &Delivery, _: &Content| is_in_doubt(d).then(|| Event::Postponed { until, why: why.clone() });
        let asked = self.step_all(by, doubted, again).await;
        Ok(stepped(asked)?.len())
    }

    /// Tries failed and expired deliveries again, now; never what was stopped, corrected, cleared, superseded or closed.
    pub async fn retry(self: &Arc<Self>, by: &Actor, id: &str, account: Option<&str>) -> Result<Retrying, ActError> {
        // Reading the queue takes its time, and no other emergency waits for it.
        let (row, rows) = self.named(id).await?;
        let in_queue = self.is_in_queue(&row, &rows).await?;
        let (_turn, row, rows) = self.named_in_turn(id).await?;
        let told_since = match crate::planted("ended_is_tried_again") {
            true => BTreeMap::new(),
            false => self.told_since(&row).await?,
        };
        let config = self.config();
        // Missed by an account while it was closed: but for an emergency of a file, which takes words for what it says.
        let says_itself = !row.file.is_empty() && row.priority == Priority::Emergency;
        // By its words: whose accounts they were is another matter.
        let mut in_force = BTreeSet::new();
        for d in rows.iter().filter(|d| d.is_closed()) {
            if self.content(&d.content).await?.body.hash() == row.body {
                in_force.insert(d.content.clone());
            }
        }
        let is_there = in_queue && row.withdrawn.is_none() && !says_itself;
        let has_passed = |d: &Delivery| d.at <= self.clock.now();
        let is_past = |d: &Delivery| d.is_closed() && is_there && has_passed(d);
        let is_missed = |d: &Delivery| is_past(d) && in_force.contains(&d.content);
        let is_reworded = rows.iter().any(|d| is_past(d) && !is_missed(d));
        // An announcement that its file no longer has, and of which nothing was tried, is not wanted any more.
        let begun: BTreeSet<OccurrenceId> =
            rows.iter().filter(|d| d.has_begun()).map(|d| d.occurrence.clone()).collect();
        let is_given_up = |d: &Delivery| {
            matches!(d.state, State::Failed | State::Expired) && (in_queue || begun.contains(&d.occurrence))
        };
        let is_over = |d: &Delivery| is_given_up(d) || is_missed(d);
        // Of a repeat the newest hour that has come is meant, unless one is named: nobody wants a day of them at once.
        let is_whole = row.planned_to.is_some() && row.id.as_str() == id;
        let now = self.clock.now();
        let has_come = |d: &&Delivery| d.at <= now && (d.state != State::Cancelled || is_missed(d));
        let newest = is_whole.then(|| newest(rows.iter().filter(has_come), |d| d.account.clone()));
        let is_meant =
            |d: &Delivery| newest.as_ref().is_none_or(|newest| newest.get(&d.account) == Some(&(d.at, d.id)));
        let is_asked = |d: &Delivery| is_over(d) && account.is_none_or(|a| a == d.account.as_str());
        let is_older = rows.iter().any(|d| is_asked(d) && !is_meant(d));
        let is_named = |d: &&Delivery| account.is_none_or(|a| a == d.account.as_str());
        let doubted: Vec<Delivery> = rows.iter().filter(|d| is_in_doubt(d)).filter(is_named).cloned().collect();
        let mut wanted: Vec<Delivery> = rows.into_iter().filter(|d| is_asked(d) && is_meant(d)).collect();
        if let Some(new) = wanted.iter().map(|d| told_since.get(&d.account)).reduce(Option::and).flatten() {
            return Err(ActError::Conflict(words!(
                "`{id}` 之后又发过 `{new}`；补发：fabu retry {new}",
                "`{id}` was followed by `{new}`: fabu retry {new}"
            )));
        }
        wanted.retain(|d| !told_since.contains_key(&d.account));
        let looking = self.look_again(by, &doubted).await?;
        let contents = self.contents_of(&wanted).await?;
        for d in &wanted {
            // A person asks because something was mended: the credential is asked about again.
            self.memory.forget_credentials(|account, _| *account == d.account);
            lock(&self.panics).remove(&d.id);
        }
        // Words are for the time for which they were given: who asks now has one, and it took more.
        let words_are_over = |d: &Delivery, content: &Content| {
            let is_past = d.state == State::Expired || d.expires_at.is_some_and(|end| end <= self.clock.now());
            row.priority == Priority::Emergency && is_past && config.settings.emergency.persons(&content.body) > 1
        };
        let again = |d: &Delivery, content: &Content| {
            let is_wanted = d.desired == Desired::Published || is_missed(d) || crate::planted("ended_is_tried_again");
            let may = is_over(d) && is_wanted && !config.city.is_resting(&d.account);
            // Tried again before its hour, it still goes at its hour.
            let at = self.clock.now().max(d.at);
            if !may || words_are_over(d, content) {
                return None;
            }
            let expires_at = planner::expiry(&content.body, at, &config.settings.publish);
            let doubt = match d.first_send() <= self.started {
                false => Doubt::None,
                true if matches!(self.trust, Trust::Behind { .. }) => Doubt::Settling,
                true => Doubt::OneLook,
            };
            Some(Event::TriedAgain { at, expires_at, doubt })
        };
        let tried = self.step_all(by, &wanted, again).await;
        let retrying = stepped(tried)?.len();
        if retrying == 0 && looking == 0 {
            if wanted.iter().any(|d| words_are_over(d, &contents[&d.content])) {
                return Err(ActError::Conflict(words!(
                    "`{id}` 过了有效期，已作罢；要发就重新发起",
                    "`{id}` has expired; to publish it after all, send it again"
                )));
            }
            let stopped = wanted.iter().find_map(|d| Some((d.cause?, d.desired != Desired::Published)));
            return Err(ActError::Conflict(match (wanted.first(), stopped) {
                (Some(d), Some((cause, true))) => no_longer_wanted(id, cause, d),
                (Some(d), _) => no_longer_wanted(id, Cause::Closed, d),
                (None, _) if is_older => words!(
                    "`{id}` 更新的一次已经轮到；要补发较早的某一次：fabu retry {id}@…",
                    "a newer hour of `{id}` has come; an older one is tried again by its own name: fabu retry {id}@…"
                ),
                (None, _) if !in_queue => words!(
                    "`{id}` 已从队列删去；要发就放回队列",
                    "`{id}` was removed from the queue; to publish it after all, put it back"
                ),
                (None, _) if is_reworded => words!(
                    "`{id}` 在账号停用期间改过文字，又已过点；要在这些账号上发，请另起一条",
                    "`{id}` was reworded and had its hour while the account was closed; to publish it there, write it as an announcement of its own"
                ),
                (None, _) => words!("`{id}` 没有失败或过期的投递", "nothing of `{id}` has failed or expired"),
            }));
        }
        if row.priority == Priority::Emergency {
            self.urge();
        }
        Ok(Retrying { id: id.to_owned(), retrying, looking })
    }

    /// Whether an announcement came over the socket, or is still in the queue; not asked where all of it has begun.
    async fn is_in_queue(&self, row: &AnnouncementRow, rows: &[Delivery]) -> Result<bool, ActError> {
        if row.file.is_empty() || row.withdrawn.is_some() {
            return Ok(row.file.is_empty());
        }
        let is_untried =
            |d: &Delivery| matches!(d.state, State::Failed | State::Expired) && !d.has_begun() || d.is_closed();
        if !rows.iter().any(is_untried) {
            return Ok(true);
        }
        // Nothing of it waited when its file went: that has left no trace in the ledger.
        let desired = self.read_queue(self.clock.now()).await?.desired;
        let is_unread = desired.folder_gone || desired.is_unread(&row.file);
        Ok(is_unread || desired.announcements.contains_key(&row.id) || desired.standing.contains(&row.id))
    }

    /// Refuses to publish again what somebody has ended since; and the accounts that were told, or are to be, in newer words.
    async fn told_since(&self, row: &AnnouncementRow) -> Result<BTreeMap<AccountId, AnnouncementId>, ActError> {
        let id = &row.id;
        if let Some(Withdrawal::Person(person)) = &row.withdrawn {
            let said = words!(
                "`{id}` 已由 {person} 取消；要发就换一个 id",
                "`{id}` was cancelled by {person}; to publish it after all, give it another id"
            );
            return Err(ActError::Conflict(said));
        }
        if row.priority != Priority::Emergency {
            return Ok(BTreeMap::new());
        }
        if let Some(ended) = &row.ended {
            return Err(ActError::Conflict(super::emergency::not_sent_again(id, ended.how)));
        }
        let content = self.content(&row.content).await?;
        let needed = self.config().settings.emergency.persons(&content.body);
        if self.memory.persons(&row.id, &row.content).len() < needed {
            // Its hold ended with it, and its first word is old: who wants it now asks for it now.
            return Err(ActError::Conflict(words!(
                "`{id}` 没有及时确认，已作罢；要发就重新发起",
                "`{id}` was not confirmed in time; to publish it after all, send it again"
            )));
        }
        // Of a warning what updates it; of a correction or an all-clear whatever was said since.
        let is_warning = |row: &AnnouncementRow| matches!(row.follows, None | Some((_, Part::Update)));
        let family = self.family(row).await?;
        let since = family.rows.iter().skip_while(|w| w.id != row.id).skip(1);
        let since = since.filter(|w| !is_warning(row) || is_warning(w) && w.ended.is_none());
        let mut newer: Vec<AnnouncementRow> = since.cloned().collect();
        newer.extend(self.superseding(id).await?);
        // Words that were taken back themselves are no reason.
        let mut told = BTreeMap::new();
        for newer in newer.iter().filter(|w| w.withdrawn.is_none()) {
            let said = self.content(&newer.content).await?;
            let have = self.memory.persons(&newer.id, &newer.content).len();
            if have >= self.config().settings.emergency.persons(&said.body) {
                told.extend(said.accounts.iter().map(|account| (account.clone(), newer.id.clone())));
            }
        }
        Ok(told)
    }

    /// Emergencies that take the place of this one.
    async fn superseding(&self, id: &AnnouncementId) -> Result<Vec<AnnouncementRow>, LedgerError> {
        let filter = Filter { priority: Some(Priority::Emergency), max: MOST, ..Filter::default() };
        let all = self.ledger.announcements(filter).await?.into_iter().map(|announced| announced.row);
        Ok(all.filter(|row| row.follows.is_none() && row.supersedes.as_ref() == Some(id)).collect())
    }

    /// Reads the configuration again where a folder of it was empty or not mounted: it may have returned.
    pub(crate) async fn mend_config(self: &Arc<Self>) {
        if lock(&self.state).rejected.iter().any(config::is_gone) {
            self.reload_config().await;
        }
    }

    /// Reads the configuration again; one with a fault leaves the old one in force and says so.
    pub async fn reload_config(self: &Arc<Self>) {
        // A drill's world is made once; what lies in its folder is for commands to find it by.
        if self.config().drill {
            return;
        }
        let (file, env) = (self.config().settings.file.clone(), self.env.clone());
        let read = self.clock.aside(move || config::read(&file, &env, true)).await;
        let Ok((config, faults)) = read else { return };
        let same_place = |config: &Config| {
            let (new, old) = (&config.settings, &self.config().settings);
            new.ledger == old.ledger && new.socket == old.socket
        };
        match config {
            Some(config) if config.city.accounts.is_empty() && !self.config().city.accounts.is_empty() => {
                let n = self.config().city.accounts.len();
                tracing::error!(accounts = n, "the changed configuration has no account; the old one stays in force");
                let said = words!(
                    "一个账号也没有读到：原有 {n} 个和旧配置继续有效；真要清空就重启",
                    "it has not one account: the {n} that were there stay in force, with all of the old configuration; to do without them, restart"
                );
                self.reject(config::ACCOUNTS_GONE, said);
            }
            Some(mut config) if same_place(&config) => {
                let kept = config.keep(&self.config());
                for fault in &kept {
                    tracing::error!(reason = fault.message.en, "a part of the old configuration stays in force");
                }
                let accounts = config.city.accounts.len();
                // Another folder may be another daemon's.
                let queue = &config.settings.queue;
                let is_other = *queue != self.config().settings.queue && !lock(&self.sole).is_of(queue);
                let sole = match is_other.then(|| Sole::of(queue)).transpose() {
                    Ok(sole) => sole,
                    Err(said) => {
                        tracing::error!(reason = said.en, "the old configuration stays in force");
                        return self.reject("queue_in_use", said);
                    }
                };
                if let Err(error) = self.with_its_holds(config).await {
                    tracing::error!(%error, "the ledger does not take what is to be held: the old configuration stays in force");
                    let said = Words::new(
                        "账本写不进，静默不能扩到新账号；旧配置继续有效，请再试",
                        "the ledger takes nothing, and a hold could not be kept on new accounts: the old configuration stays in force, try again",
                    );
                    return self.reject("ledger", said);
                }
                if let Some(sole) = sole {
                    *lock(&self.sole) = sole;
                }
                tracing::info!(accounts, "the configuration was read again");
                let mut state = lock(&self.state);
                state.config_faults = faults;
                state.rejected = kept;
            }
            Some(_) => {
                tracing::error!(
                    "`ledger` and `socket` cannot change while the daemon runs; the old configuration stays in force"
                );
                let said = Words::new(
                    "`ledger` 和 `socket` 运行中不能改，请重启",
                    "`ledger` and `socket` cannot change while the daemon runs: restart it",
                );
                self.reject("restart_needed", said);
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

    /// The configuration that was read is not taken, for a reason that stands nowhere in its file.
    fn reject(&self, code: &'static str, said: Words) {
        let source = crate::input::Source::new(self.config().settings.file.display().to_string(), "");
        lock(&self.state).rejected = vec![source.fault(0..0, code, said)];
    }
}

/// Nothing is announced by this name.
pub fn no_announcement(id: &str) -> Words {
    let safe = shown(id);
    words!("没有公告 `{safe}`", "there is no announcement `{safe}`")
}

/// The rows that took their step; one that has become something else meanwhile is left to whoever changed it.
pub(crate) fn stepped(done: Vec<Result<Delivery, StepError>>) -> Result<Vec<Delivery>, ActError> {
    let mut went = Vec::new();
    for row in done {
        match row {
            Ok(row) => went.push(row),
            Err(StepError::Illegal(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(went)
}

/// Why a delivery is not sent again, whatever has become of it.
pub(crate) fn no_longer_wanted(id: &str, cause: Cause, row: &Delivery) -> Words {
    let account = &row.account;
    match cause {
        Cause::Superseded => {
            words!(
                "{account} 上的 `{id}` 已被取代，不再发送",
                "`{id}` was superseded on {account}; it is not sent again"
            )
        }
        Cause::Corrected => words!("`{id}` 已更正，不再发送", "`{id}` was corrected; it is not sent again"),
        Cause::Cleared => words!("`{id}` 已解除，不再发送", "`{id}` is over; it is not sent again"),
        Cause::Closed => {
            words!("账号 {account} 已停用，不再发送", "the account {account} is suspended or closed: nothing is sent")
        }
        _ => words!("`{id}` 已取消，不再发送", "`{id}` was cancelled; it is not sent again"),
    }
}

fn is_in_doubt(row: &Delivery) -> bool {
    matches!(row.state, State::Unknown | State::Accepted)
}
