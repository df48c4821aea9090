//! The second person's word, and what becomes of an emergency that it does not come for.
//!
//! A word is for exactly what was shown. With the last one that is needed the intents are committed, and whatever the
//! post does to its emergency and to routine: not before, and all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::kin::{Whereabouts, hold_name, reason_of, root_of};
use super::{READ_AGAIN, quoted};
use crate::clock::Time;
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, Body, Content, End, Part};
use crate::core::change::{Actor, AnnouncementRow, Change, Note, newer_warnings};
use crate::core::delivery::{Cause, Delivery, Desired, Event, State, Where, is_coming, later_word, undecided};
use crate::core::gate::Hold;
use crate::core::words::{Words, words};
use crate::daemon::acts::ActError;
use crate::daemon::answers::{Confirmed, Fate, Persons};
use crate::daemon::memory::Reserved;
use crate::daemon::prepare::Means;
use crate::daemon::{Inner, StepError, holds, lock};
use crate::ledger::LedgerError;

impl Inner {
    /// A further person's word to exactly the content they were shown.
    pub async fn confirm(self: &Arc<Self>, by: &Actor, id: &str, shown: &str) -> Result<Value, ActError> {
        let _place = self.leaving();
        let turn = self.deciding.lock().await;
        let mut tries = 0;
        let (confirmed, has_ended) = loop {
            match self.confirmed(by, id, shown).await {
                Err(ActError::Ledger(LedgerError::Conflict)) if tries < READ_AGAIN => tries += 1,
                done => break done?,
            }
        };
        drop(turn);
        if has_ended {
            self.after_hold().await?;
        }
        Ok(json!(confirmed))
    }

    async fn confirmed(self: &Arc<Self>, by: &Actor, id: &str, shown: &str) -> Result<(Confirmed, bool), ActError> {
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
        if let Some(ended) = &row.ended {
            return Err(ActError::Conflict(not_sent_again(&row.id, ended.how)));
        }
        let needed = self.config().settings.emergency.persons(&content.body);
        let persons = self.memory.persons(&row.id, &row.content);
        if persons.len() >= needed {
            let n = persons.len();
            return Err(ActError::Conflict(words!(
                "`{id}` 不在等待确认，{n} 人已表态",
                "`{id}` does not wait for a confirmation: {n} gave their word"
            )));
        }
        if persons.iter().any(|person| person.uid == *uid) {
            return Err(ActError::Denied(words!(
                "{name} 已经表态，需要另一个人",
                "{name} has given their word already: another person is needed"
            )));
        }
        let have = persons.len() + 1;
        self.reopens_as_shown(&row, &content.body).await?;
        let now = self.clock.now();
        let told = self.said_already(&row, &content.body).await?;
        let open = self.open_of(&row, now).await?.into_iter();
        let (repeated, open): (Vec<_>, Vec<_>) = open.partition(|d| told.contains(&d.account));
        if open.is_empty() && !repeated.is_empty() {
            return Err(ActError::Conflict(words!(
                "`{id}` 要告诉的账号都已另行告知，不再发",
                "every account that `{id}` speaks to was told in other words meanwhile: it is not sent"
            )));
        }
        if open.is_empty() {
            return Err(ActError::Conflict(words!(
                "`{id}` 不在等待确认：已过期、取消或了结；要发就重新发起",
                "`{id}` does not wait for a confirmation: it is expired, cancelled or settled; if it should go, ask for it anew"
            )));
        }
        let config = self.config();
        let reached = open.iter().filter(|d| !config.city.is_resting(&d.account)).count();
        if reached == 0 && matches!(content.body.part(), None | Some(Part::Update)) {
            return Err(ActError::Conflict(words!(
                "`{id}` 的账号都已停用，发不到任何地方",
                "every account of `{id}` has been suspended or closed meanwhile: it would reach nobody"
            )));
        }
        let (is_complete, goes_now) = (have >= needed, open.iter().any(awaits_word));
        let (mut changes, mut armed, mut reserved) = (Vec::new(), Vec::new(), Vec::new());
        let mut has_ended = false;
        if is_complete {
            let why = Words::new("已另行告知", "it was told in other words meanwhile");
            let (desired, cause) = (Desired::Stopped, Cause::Superseded);
            for d in &repeated {
                let stop = Event::Withdrawn { desired, cause, why: why.clone() };
                changes.push(Change::Step(Box::new(self.computed(d, stop).map_err(StepError::from)?)));
            }
            // Last words go where what they are about stands; of the other accounts the commit decides.
            let certain = self.certain(&content.body).await?;
            let is_certain = |d: &&Delivery| certain.as_ref().is_none_or(|certain| certain.contains(&d.account));
            let waiting = open.iter().filter(|d| awaits_word(d));
            let (goes, open_still): (Vec<_>, Vec<_>) = waiting.partition(is_certain);
            armed = self.let_go_on(&goes, now, &mut changes, &mut reserved)?;
            let hold = self.silence_of(&row, &content, by, now, goes_now);
            changes.extend(hold.map(Change::Hold));
            let consequences = self.consequences(by, &row.id, &content).await?;
            has_ended = consequences.iter().any(|change| matches!(change, Change::HoldEnded { .. }));
            changes.extend(consequences);
            for d in open_still {
                let (cause, until, expires_at) = (Cause::Undecided, None, d.expires_at);
                let waits = Event::GateClosed { cause, until, expires_at, why: undecided() };
                let step = self.computed(d, waits).map_err(StepError::from)?;
                changes.extend([Change::Step(Box::new(step)), Change::Decide(d.account.clone())]);
            }
        }
        changes.push(Change::Confirmed {
            announcement: row.id.clone(),
            content: row.content.clone(),
            uid: *uid,
            name: name.clone(),
        });
        // What came due in between, and so changed, makes the whole of it void: then nothing was confirmed.
        let (_, launches) = self.commit_armed(by, changes, armed, reserved).await?;
        self.launch(launches);
        self.urge();
        let state = match is_complete {
            true if goes_now => Fate::Releasing,
            // Its hour is still to come.
            true => Fate::Scheduled,
            false => Fate::AwaitingConfirm,
        };
        let persons = Persons { needed, have, names: self.names_of(&row) };
        Ok((Confirmed { id: id.to_owned(), state, deliveries: reached, persons }, has_ended))
    }

    /// Refuses an update whose emergency has ended, or was corrected, since it was asked for: nobody was shown that it would
    /// be in force again.
    async fn reopens_as_shown(&self, row: &AnnouncementRow, body: &Body) -> Result<(), ActError> {
        let Some(follows) = body.follows.as_ref().filter(|f| f.part == Part::Update) else { return Ok(()) };
        let family = self.family(row).await?;
        let ended = family.warnings().rev().find_map(|warning| warning.ended.as_ref()).map(|ended| ended.how);
        let (id, root) = (&row.id, &family.root);
        let how = match ended {
            Some(how) if Some(how) != follows.reopens => how,
            _ => return Ok(()),
        };
        let (zh, en) = match how {
            End::Corrected => ("更正", "was corrected"),
            End::AllClear => ("解除", "has ended"),
        };
        Err(ActError::Conflict(words!(
            "`{root}` 其间已{zh}，`{id}` 会使它再度生效：仍要发就重新发起（fabu urgent --update {root}）",
            "`{root}` {en} since `{id}` was asked for, which would put it in force again: if it should, ask for it anew (fabu urgent --update {root})"
        )))
    }

    /// Accounts that were told by another post what this one is to tell them, of each post they carry of those it is
    /// about.
    async fn said_already(&self, row: &AnnouncementRow, body: &Body) -> Result<BTreeSet<AccountId>, ActError> {
        let closing = body.follows.as_ref().filter(|f| matches!(f.part, Part::Correction | Part::AllClear));
        let Some(follows) = closing else { return Ok(BTreeSet::new()) };
        let mut family = self.family(row).await?;
        family.rows.retain(|other| other.id != row.id);
        let mut told = self.told_already(&family, follows.part).await?;
        let carried = Whereabouts::of(self.rows_of(follows.posts.iter()).await?).on_each();
        told.retain(|account, posts| carried.get(account).is_none_or(|carried| carried.is_subset(posts)));
        Ok(told.into_keys().collect())
    }

    /// Accounts on which the posts stand that a correction or an all-clear is about; `None`: it is about none.
    async fn certain(&self, body: &Body) -> Result<Option<BTreeSet<AccountId>>, LedgerError> {
        let Some(follows) = body.follows.as_ref().filter(|f| f.part != Part::Update) else { return Ok(None) };
        let family = self.ledger.family(follows.emergency.clone()).await?;
        let newer = self.rows_of(newer_warnings(&family, follows).iter()).await?;
        let open: BTreeSet<&AccountId> = newer.iter().filter(|d| is_coming(d)).map(|d| &d.account).collect();
        let rows = self.rows_of(follows.posts.iter()).await?;
        let mut on_each: BTreeMap<&AccountId, Vec<&Delivery>> = BTreeMap::new();
        for row in &rows {
            on_each.entry(&row.account).or_default().push(row);
        }
        let is_there = |posts: &[&Delivery]| later_word(posts.iter().copied(), follows.part) == Where::There;
        let stands = on_each.into_iter().filter(|(account, posts)| !open.contains(account) && is_there(posts));
        Ok(Some(stands.map(|(account, _)| account.clone()).collect()))
    }

    /// What of it is not out and not given up; refused when the time for the missing word is over.
    async fn open_of(&self, row: &AnnouncementRow, now: Time) -> Result<Vec<Delivery>, ActError> {
        let within = TimeDelta::from_std(self.config().settings.emergency.confirm_within).unwrap_or_default();
        let mut open = self.all_of(row.id.as_str()).await?;
        open.retain(|d| matches!(d.state, State::Scheduled | State::Ready | State::Retrying | State::Held));
        let is_late = |d: &Delivery| awaits_word(d) && (now >= d.at + within || d.expires_at.is_some_and(|e| e <= now));
        if open.iter().any(is_late) {
            let id = &row.id;
            return Err(ActError::Conflict(words!(
                "`{id}` 的确认已经太晚，不发",
                "the word for `{id}` comes too late: it is not sent"
            )));
        }
        Ok(open)
    }

    /// Arms what waits for this word and nothing else; what has its hour still to come keeps it.
    fn let_go_on(
        &self,
        waiting: &[&Delivery],
        now: Time,
        changes: &mut Vec<Change>,
        reserved: &mut Vec<Reserved>,
    ) -> Result<Vec<Delivery>, ActError> {
        let mut armed = Vec::new();
        for row in waiting {
            // Its hour is now, its prepared text stands, and it lasts no longer than it would have: the confirmation
            // commits the intent.
            let expires_at = row.expires_at;
            let ready = Delivery { at: now, reason: None, ..(*row).clone() };
            let means = ready.prepared.is_some().then(|| Means::there(self, &ready).ok()).flatten();
            let step = match means.and_then(|means| self.intent(&ready, &means, now, reserved)) {
                Some(step) => {
                    armed.push(step.row.clone());
                    step
                }
                None => self.computed(row, Event::GateOpen { at: now, expires_at }).map_err(StepError::from)?,
            };
            changes.push(Change::Step(Box::new(step)));
        }
        Ok(armed)
    }

    /// The hold that begins, or lasts longer, with the last word: that of an emergency of the queue, which nobody could
    /// ask for before somebody on duty has agreed, that of an update, and one that has run out while the word was missing.
    fn silence_of(
        &self,
        row: &AnnouncementRow,
        content: &Content,
        by: &Actor,
        now: Time,
        goes_now: bool,
    ) -> Option<Hold> {
        let name = hold_name(root_of(row));
        let standing = self.standing_hold(&name);
        let is_update = content.body.part() == Some(Part::Update);
        if let Some(standing) = standing {
            let until = holds::until(now, content.body.silence.filter(|_| is_update)?);
            let is_longer = standing.until.is_some_and(|standing| until.is_none_or(|until| standing < until));
            return is_longer.then(|| Hold { until, version: standing.version + 1, ..standing });
        }
        // One that somebody ended meanwhile is not begun again.
        if !goes_now || self.memory.last_hold(&name).is_some_and(|hold| hold.was_ended_since(row.first_seen)) {
            return None;
        }
        match row.file.is_empty() {
            true => Some(silence(row, &content.body, content.body.silence?, by.to_string(), now)),
            false => self.silence_by_level(row, &content.body, by.to_string(), now),
        }
    }

    /// The hold that an emergency of the queue brings by its level.
    fn silence_by_level(&self, row: &AnnouncementRow, body: &Body, owner: String, now: Time) -> Option<Hold> {
        let lasts = self.config().settings.emergency.hold.get(&body.level()?).copied().filter(|l| !l.is_zero())?;
        Some(silence(row, body, lasts, owner, now))
    }

    /// An emergency of the queue that was confirmed before its hour: its silence begins with its first delivery. One
    /// that goes on after a crash, or is tried again, brings no second one.
    pub(crate) async fn falls_silent(&self, delivery: &Delivery, content: &Content) -> Result<(), LedgerError> {
        let is_done = || lock(&self.silenced).contains(&delivery.occurrence);
        if is_done() {
            return Ok(());
        }
        // The others of its release wait for the first: none is on its way before it is silent.
        let _turn = self.deciding.lock().await;
        if is_done() {
            return Ok(());
        }
        self.begin_silence(delivery, content).await?;
        lock(&self.silenced).insert(delivery.occurrence.clone());
        Ok(())
    }

    async fn begin_silence(&self, delivery: &Delivery, content: &Content) -> Result<(), LedgerError> {
        let Some(row) = self.announced(delivery.announcement.as_str()).await? else { return Ok(()) };
        let is_first = !self.ledger.is_tried(delivery.occurrence.clone()).await?;
        if row.file.is_empty() || !is_first || self.standing_hold(&hold_name(&row.id)).is_some() {
            return Ok(());
        }
        let owner = self.names_of(&row).pop();
        let owner = owner.unwrap_or_else(|| Actor::Queue.to_string());
        let Some(hold) = self.silence_by_level(&row, &content.body, owner, self.clock.now()) else { return Ok(()) };
        match self.commit(&Actor::Daemon, vec![Change::Hold(hold)]).await {
            // A hold of its name stands by now, and is as good.
            Ok(_) | Err(LedgerError::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Who gave their word to it, in that order.
    pub(crate) fn names_of(&self, row: &AnnouncementRow) -> Vec<String> {
        self.memory.persons(&row.id, &row.content).iter().map(|p| format!("{}({})", p.name, p.uid)).collect()
    }

    /// An emergency nobody confirmed in time is not sent, and the hold it brought ends with it: all of it at once,
    /// whichever of its deliveries finds that out first.
    pub(crate) async fn unconfirmed(self: &Arc<Self>, delivery: &Delivery) -> Result<(), StepError> {
        let turn = self.deciding.lock().await;
        let found = self.reload(delivery.id).await?;
        if found.state != State::Held || found.fence != delivery.fence {
            return Ok(());
        }
        let id = &delivery.announcement;
        let waiting = self.ledger.of_occurrence(delivery.occurrence.clone()).await.map_err(StepError::Ledger)?;
        let mut changes = Vec::new();
        for row in waiting.iter().filter(|d| awaits_word(d)) {
            changes.push(Change::Step(Box::new(self.computed(row, Event::Expired)?)));
        }
        let row = self.announced(id.as_str()).await.map_err(StepError::Ledger)?;
        let hold = match &row {
            Some(row) => self.hold_ending_with(row).await.map_err(StepError::Ledger)?,
            None => None,
        };
        changes.push(Note::change("not_confirmed", id, json!({ "accounts": changes.len() })));
        changes.extend(hold.as_ref().map(Change::end_of));
        let hold = hold.map(|hold| hold.id);
        tracing::error!(announcement = %id, hold, "an emergency was not confirmed in time and is not sent");
        self.commit(&Actor::Daemon, changes).await.map_err(StepError::Ledger)?;
        drop(turn);
        if hold.is_some()
            && let Err(error) = self.after_hold().await
        {
            tracing::error!(error = error.words().en, "what the hold kept back was not looked at");
        }
        Ok(())
    }
}

/// The hold of an emergency, brought by this post of it.
fn silence(row: &AnnouncementRow, body: &Body, lasts: Duration, owner: String, now: Time) -> Hold {
    let (id, post) = (hold_name(root_of(row)), Some(row.id.clone()));
    let (reason, until) = (reason_of(&row.id, &quoted(&body.text)), holds::until(now, lasts));
    Hold { id, reason, until, accounts: None, named: None, owner, begun: now, post, ended: None, version: 1 }
}

/// Why nothing more of an emergency's post goes out.
pub(crate) fn not_sent_again(id: &AnnouncementId, how: End) -> Words {
    match how {
        End::Corrected => words!("`{id}` 已更正，不再发送", "`{id}` was corrected; it is not sent again"),
        End::AllClear => words!("`{id}` 已解除，不再发送", "`{id}` is over; it is not sent again"),
    }
}

/// Held until a person gives their word.
pub(super) fn awaits_word(row: &Delivery) -> bool {
    row.state == State::Held && row.cause == Some(Cause::Confirmation)
}
