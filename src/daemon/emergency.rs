//! The other hour: an urgent post, the second person's word, its correction, its end.
//!
//! Everything an urgent post needs is in the ledger, in one transaction, before it is acknowledged.
//! While a word is missing it is held and prepared for nothing: text asks no platform for anything.
//! A false emergency is the worst that can happen, so whatever is missing or odd keeps it back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::acts::ActError;
use super::answers::{Cleared, Confirmed, Fate, HoldBegun, LastWord, NoPost, Persons, Preview, Shown, Taken};
use super::planner::{expiry, new_delivery};
use super::prepare::Means;
use super::{Inner, StepError, holds, lock};
use crate::clock::Time;
use crate::core::accounts::AccountId;
use crate::core::announcement::{
    Announcement, AnnouncementId, Body, Closing, Content, Image, Level, OccurrenceId, Priority,
};
use crate::core::change::{Actor, AnnouncementRow, Change, Note};
use crate::core::delivery::{Delivery, DeliveryId, Event, State, Wish};
use crate::core::fit;
use crate::core::gate::Hold;
use crate::core::template::{DRILL_MARK, stamped};
use crate::core::words::{Words, hidden_in, is_hidden, nearest, shown, words};
use crate::input::images;
use crate::ledger::{Filter, LedgerError};

/// So many characters of a post are quoted by its correction and its all-clear.
const QUOTED: usize = 24;
/// What follows from one emergency is named after it, so many times at most.
const MOST_DERIVED: u32 = 100;
/// How often a correction or an all-clear is made anew when what it is about has changed meanwhile.
const READ_AGAIN: u32 = 50;

/// An urgent post as it was asked for, its fields read and its words not tried yet.
#[derive(Clone, Debug, Default)]
pub struct Urgent {
    pub id: Option<String>,
    pub text: String,
    pub link: Option<String>,
    pub level: Option<Level>,
    pub to: Vec<String>,
    pub except: Vec<String>,
    pub source: Option<String>,
    pub supersedes: Option<String>,
    pub update: Option<String>,
    pub expires_after: Option<Duration>,
    pub hold: Option<Duration>,
    pub dry_run: bool,
    /// A template whose words these are, with its values.
    pub template: Option<String>,
    pub values: BTreeMap<String, String>,
    /// Pictures below the queue folder, each with its description.
    pub images: Vec<(String, Option<String>)>,
}

/// Whose words it is.
pub(super) enum Wording {
    Own,
    /// Of a template, with what will correct and end it.
    Template(Closing),
    /// Of a correction or an all-clear, as the program or a template has them.
    Standard,
}

impl Wording {
    /// Of a correction or an all-clear with these words of one's own, or none.
    fn closing(own: Option<&str>) -> Wording {
        if own.is_some() { Wording::Own } else { Wording::Standard }
    }
}

/// The key a person gave a request, so that asking twice does it once.
#[derive(Clone, Debug)]
pub struct Key {
    pub key: String,
    /// Of the whole request.
    pub hash: String,
}

/// A request tried against the city: what will go where.
struct Tried {
    id: AnnouncementId,
    content: Content,
    level: Level,
    hold: Option<Hold>,
    /// The emergency this one belongs to: its own, or the one it updates.
    supersedes: Option<AnnouncementId>,
    /// Accounts it reaches only when it is known that they carry what it corrects.
    uncertain: BTreeSet<AccountId>,
}

impl Inner {
    /// Takes an urgent post: tried, written, and on its way when this returns.
    pub async fn urgent(self: &Arc<Self>, by: &Actor, urgent: Urgent, key: Option<Key>) -> Result<Value, ActError> {
        let _turn = self.deciding.lock().await;
        if let Some(answer) = self.answered_before(by, key.as_ref()).await? {
            return Ok(answer);
        }
        let (urgent, wording) = self.worded(urgent)?;
        let accounts = match urgent.to.is_empty() {
            true => {
                return Err(invalid("to", Words::new("没有 `to`：发给谁？", "there is no `to`: who is to get it?")));
            }
            false => self.accounts_of("to", &urgent.to, &urgent.except)?,
        };
        let tried = self.tried(by, &urgent, accounts, wording).await?;
        if urgent.dry_run {
            return Ok(json!(self.preview(&tried).await?));
        }
        Ok(json!(self.take(by, tried, urgent.source.as_deref(), Vec::new(), key).await?))
    }

    /// The words of the template it names, with its values; whom it reaches unless the request says so.
    pub(super) fn worded(&self, mut urgent: Urgent) -> Result<(Urgent, Wording), ActError> {
        let config = self.config();
        let Some(name) = &urgent.template else {
            return match urgent.values.keys().next() {
                Some(_) => {
                    Err(invalid("values", Words::new("`values` 要有 `template`", "`values` go with a `template`")))
                }
                None => Ok((urgent, Wording::Own)),
            };
        };
        let safe = shown(name);
        let Some(template) = config.templates.get(name) else {
            let near = nearest(name, config.templates.keys().map(String::as_str));
            return Err(invalid(
                "template",
                match near {
                    Some(near) => words!(
                        "没有模板 `{safe}`，是否指 `{near}`？",
                        "there is no template `{safe}`: did you mean `{near}`?"
                    ),
                    None => words!("没有模板 `{safe}`", "there is no template `{safe}`"),
                },
            ));
        };
        if !urgent.text.trim().is_empty() {
            let said = Words::new("`text` 和 `template` 只能有一个", "there are both `text` and `template`");
            return Err(invalid("text", said));
        }
        if let Some(level) = urgent.level.filter(|l| *l != template.level) {
            let (is, asked) = (template.level.name(), level.name());
            let said =
                words!("模板 {safe} 是 {is} 级，不是 {asked}", "the template {safe} is of level {is}, not {asked}");
            return Err(invalid("level", said));
        }
        let now = self.clock.now().with_timezone(&config.settings.zone);
        let filled = template.filled(&urgent.values, now);
        let filled = filled.map_err(|unfit| ActError::Invalid(format!("values.{}", unfit.value).into(), unfit.said))?;
        urgent.text = filled.text;
        urgent.level = Some(template.level);
        if urgent.to.is_empty() {
            urgent.to = template.to.clone();
            urgent.except.extend(template.except.iter().cloned());
        }
        Ok((urgent, Wording::Template(filled.closing)))
    }

    pub(super) async fn answered_before(&self, by: &Actor, key: Option<&Key>) -> Result<Option<Value>, ActError> {
        let (Some(key), Actor::Person { uid, .. }) = (key, by) else { return Ok(None) };
        let Some((hash, answer)) = self.ledger.answered(*uid, &key.key).await? else { return Ok(None) };
        if hash != key.hash {
            let said = Words::new(
                "这个 Idempotency-Key 已用于另一个请求",
                "this Idempotency-Key was used for another request",
            );
            return Err(invalid("Idempotency-Key", said));
        }
        Ok(Some(serde_json::from_str(&answer).unwrap_or(Value::Null)))
    }

    /// Everything that can be wrong with it is found here, before anything is written or held.
    async fn tried(
        &self,
        by: &Actor,
        urgent: &Urgent,
        accounts: BTreeSet<AccountId>,
        wording: Wording,
    ) -> Result<Tried, ActError> {
        if accounts.is_empty() {
            return Err(invalid("to", Words::new("没有账号", "it means no account")));
        }
        let drill = self.config().drill;
        let text = said_in(&urgent.text, drill)?;
        let now = self.clock.now();
        let before = match &urgent.update {
            Some(id) => Some(self.emergency_row(id).await.map_err(|error| match error {
                ActError::NotFound(said) => invalid("update", said),
                other => other,
            })?),
            None => None,
        };
        let level = match (urgent.level, &before) {
            (Some(level), _) => level,
            (None, Some((_, content))) => content.body.level().unwrap_or(Level::Red),
            (None, None) => Level::Red,
        };
        let supersedes = match (&urgent.supersedes, &before) {
            (Some(id), _) => Some(self.existing(id, "supersedes").await?),
            (None, Some((row, _))) => Some(row.id.clone()),
            (None, None) => None,
        };
        let body = Body {
            link: urgent.link.clone(),
            images: self.pictures(&urgent.images).await?,
            to: urgent.to.clone(),
            except: urgent.except.clone(),
            level: Some(level),
            expires_after: urgent.expires_after,
            supersedes: supersedes.clone(),
            standard: matches!(wording, Wording::Standard),
            closing: match wording {
                Wording::Template(closing) => Some(closing.said_in(drill)?),
                Wording::Own | Wording::Standard => None,
            },
            ..Body::said(&text)
        };
        self.fits(&body, &accounts)?;
        for (field, words) in body.closing.iter().flat_map(Closing::words) {
            self.fits(&Body::said(words), &accounts).map_err(|error| error.about(field))?;
        }
        let id = self.name(urgent.id.as_deref(), now).await?;
        let lasts = urgent.hold.or_else(|| self.config().settings.emergency.hold.get(&level).copied());
        // An update and what it updates are one emergency with one hold.
        let hold_id = match &before {
            Some((row, _)) => self.hold_of(&row.id).await?,
            None => hold_name(&id),
        };
        let hold = lasts.filter(|l| !body.standard && !l.is_zero()).map(|lasts| {
            let reason = format!("{id}: {}", quoted(&body.text));
            let until = holds::until(now, lasts);
            Hold { id: hold_id, reason, until, accounts: None, owner: by.to_string(), begun: now }
        });
        Ok(Tried { id, content: Content { body, accounts }, level, hold, supersedes, uncertain: BTreeSet::new() })
    }

    /// Read now, so that what is signed is what is sent.
    async fn pictures(&self, files: &[(String, Option<String>)]) -> Result<Vec<Image>, ActError> {
        /// No platform takes more than twenty.
        const MOST: usize = 20;
        if files.len() > MOST {
            return Err(invalid("images", words!("最多 {MOST} 张图片", "{MOST} pictures at most")));
        }
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let (root, files) = (self.config().settings.queue.clone(), files.to_vec());
        let read = move || -> Result<Vec<Image>, Words> {
            let one = |(file, alt): (String, Option<String>)| Ok(Image { alt, ..images::load(&root, &file)?.0 });
            files.into_iter().map(one).collect()
        };
        let read = tokio::task::spawn_blocking(read).await;
        let gone = |_| Words::new("图片没有读完", "the pictures were not read");
        read.map_err(gone).and_then(|images| images).map_err(|said| invalid("images", said))
    }

    fn fits(&self, body: &Body, accounts: &BTreeSet<AccountId>) -> Result<(), ActError> {
        let config = self.config();
        let platforms: BTreeSet<&str> = accounts.iter().map(AccountId::platform).collect();
        for platform in platforms {
            let Some(rules) = config.rules.get(platform) else { continue };
            if let Some(misfit) = fit::misfits(body, platform, rules).into_iter().find(|m| !m.is_warning) {
                let (zh, en) = (&misfit.hint.zh, &misfit.hint.en);
                let said = Words::new(format!("{}；{zh}", misfit.message.zh), format!("{}: {en}", misfit.message.en));
                return Err(ActError::Invalid(misfit.field.into(), said));
            }
        }
        Ok(())
    }

    async fn name(&self, asked: Option<&str>, now: Time) -> Result<AnnouncementId, ActError> {
        let id = match asked {
            Some(id) => {
                crate::input::values::id(id).map_err(|said| invalid("id", said))?;
                AnnouncementId::from(id)
            }
            None => {
                let local = now.with_timezone(&self.config().settings.zone);
                let chance = self.clock.random() & 0xffff;
                AnnouncementId::from(format!("urgent-{}-{chance:04x}", local.format("%Y%m%d-%H%M%S")).as_str())
            }
        };
        if self.announced(id.as_str()).await?.is_some() {
            return Err(ActError::Conflict(words!("已有公告 `{id}`", "there is an announcement `{id}` already")));
        }
        Ok(id)
    }

    /// What follows from an emergency is named after it.
    async fn derived(&self, id: &AnnouncementId, what: &str) -> Result<Option<String>, ActError> {
        for n in 1..MOST_DERIVED {
            let name = derived(id, what, n);
            if self.announced(&name).await?.is_none() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    pub(super) async fn announced(&self, id: &str) -> Result<Option<AnnouncementRow>, LedgerError> {
        let filter = Filter { announcement: Some(id.to_owned()), max: 1, ..Filter::default() };
        Ok(self.ledger.announcements(filter).await?.pop().map(|a| a.row))
    }

    async fn existing(&self, id: &str, field: &'static str) -> Result<AnnouncementId, ActError> {
        let found = self.announced(id).await?;
        let safe = shown(id);
        Ok(found.ok_or_else(|| invalid(field, words!("没有公告 `{safe}`", "there is no announcement `{safe}`")))?.id)
    }

    /// An emergency that was sent, or waits, and its content.
    pub(super) async fn emergency_row(&self, id: &str) -> Result<(AnnouncementRow, Arc<Content>), ActError> {
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
    async fn hold_of(&self, id: &AnnouncementId) -> Result<String, ActError> {
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
    async fn newest_of(&self, id: AnnouncementId) -> Result<AnnouncementId, ActError> {
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

    /// What would go where, with nothing written and nothing held.
    async fn preview(&self, tried: &Tried) -> Result<Preview, ActError> {
        let body = &tried.content.body;
        let mut platforms: BTreeMap<String, Shown> = BTreeMap::new();
        for account in &tried.content.accounts {
            let platform = account.platform();
            let shown = platforms.entry(platform.to_owned()).or_insert_with(|| Shown {
                accounts: 0,
                text: fit::full_text(body.text_for(platform), body.link.as_deref()),
            });
            shown.accounts += 1;
        }
        let hold = match &tried.hold {
            Some(hold) => Some(self.kept_by(hold).await?),
            None => None,
        };
        Ok(Preview {
            dry_run: true,
            drill: self.config().drill,
            id: tried.id.clone(),
            level: tried.level,
            accounts: tried.content.accounts.len(),
            platforms,
            content_hash: tried.content.hash(),
            hold,
            supersedes: tried.supersedes.clone(),
            persons: self.config().settings.emergency.persons(body),
            closing: body.closing.clone(),
        })
    }

    /// One transaction: the content, its deliveries, its hold, the sender's word. Acknowledged when it is on disk.
    async fn take(
        self: &Arc<Self>,
        by: &Actor,
        tried: Tried,
        source: Option<&str>,
        with: Vec<Change>,
        key: Option<Key>,
    ) -> Result<Taken, ActError> {
        let now = self.clock.now();
        let Tried { id, content, level, hold, supersedes, uncertain } = tried;
        let (hash, config) = (content.hash(), self.config());
        let needed = config.settings.emergency.persons(&content.body);
        let is_confirmed = needed <= 1;
        let expires_at = expiry(&content.body, now, &config.settings.publish);
        let occurrence = OccurrenceId::once(&id);
        let answer = Taken {
            id: id.clone(),
            state: if is_confirmed { Fate::Releasing } else { Fate::AwaitingConfirm },
            deliveries: content.accounts.len(),
            waiting: uncertain.len(),
            level,
            content_hash: hash.clone(),
            persons: Persons { needed, have: 1 },
            confirm_by: (!is_confirmed).then(|| now + config.settings.emergency.confirm_within),
            hold: hold.as_ref().map(|h| HoldBegun { id: h.id.clone(), until: h.until }),
        };
        let announcement = Announcement { id: id.clone(), file: String::new(), line: 0, content: content.clone() };
        let mut changes = vec![
            Change::Content(hash.clone(), Box::new(content.clone())),
            Change::Announcement(Box::new(AnnouncementRow {
                id: id.clone(),
                file: String::new(),
                line: 0,
                content: hash.clone(),
                body: content.body.hash(),
                edited: None,
                priority: Priority::Emergency,
                supersedes,
                planned_to: None,
                withdrawn: None,
                first_seen: now,
            })),
            Change::Occurrence {
                id: occurrence.clone(),
                announcement: id.clone(),
                content: hash.clone(),
                release: now,
            },
        ];
        // Those whose intents are part of this commit, and those that wait for a word.
        let (mut armed, mut expected) = (Vec::new(), Vec::new());
        for account in &content.accounts {
            let mut delivery = new_delivery(&announcement, &hash, &occurrence, account, now, expires_at);
            delivery.id = self.ledger.new_id();
            let means = self.prepare_at_once(&mut delivery, &content);
            if uncertain.contains(account) {
                delivery.state = State::Held;
                delivery.next_at = None;
                delivery.reason = Some(Words::new(
                    "有误的那条是否已发，尚不清楚",
                    "whether what it corrects is there is not known yet",
                ));
            } else if !is_confirmed {
                delivery.state = State::Held;
                delivery.next_at = Some(now + config.settings.emergency.confirm_within);
                delivery.reason = Some(Words::new("等第二人确认", "waiting for the second person's word"));
                expected.push(delivery.clone());
            } else if let Some(step) = means.and_then(|means| self.intent(&delivery, &means, now, &mut changes)) {
                delivery = step.row;
                armed.push(delivery.clone());
            }
            changes.push(Change::Add(Box::new(delivery)));
        }
        changes.extend(hold.iter().cloned().map(Change::Hold));
        let body = json!({
            "level": level, "accounts": content.accounts.len(), "content_hash": hash, "persons": needed,
            "armed": armed.len(), "text": content.body.text, "source": source,
        });
        changes.push(Note::change("emergency", &id, body));
        let mut word = None;
        if let Actor::Person { uid, name } = by {
            let (announcement, content) = (id.clone(), hash.clone());
            changes.push(Change::Confirmed { announcement, content, uid: *uid, name: name.clone() });
            word = Some(*uid);
            if let Some(Key { key, hash }) = key {
                changes.push(Change::Answered { uid: *uid, key, hash, answer: json!(answer).to_string() });
            }
        }
        changes.extend(with);
        // Routine falls silent before the first byte is written, and speaks again if nothing was.
        let before = hold.as_ref().and_then(|hold| self.close_gate(hold));
        let launches = self.take_in_hand(armed);
        if let Err(error) = self.ledger.commit(by, changes).await {
            self.let_go(&launches);
            if let Some(hold) = &hold {
                self.open_gate(hold, before);
            }
            return Err(error.into());
        }
        if let Some(uid) = word {
            lock(&self.gate).confirmed.entry((id.clone(), hash.clone())).or_default().insert(uid);
        }
        let deliveries = content.accounts.len();
        self.remember(&hash, Arc::new(content));
        self.launch(launches);
        self.expect(&expected, now + config.settings.emergency.confirm_within);
        tracing::warn!(announcement = %id, ?level, deliveries, is_confirmed, "an emergency was taken");
        self.urge();
        Ok(answer)
    }

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

    async fn waiting(&self, id: &AnnouncementId) -> Result<Vec<Delivery>, ActError> {
        Ok(self.all_of(id.as_str()).await?.into_iter().filter(awaits_word).collect())
    }

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

impl Closing {
    fn said_in(self, drill: bool) -> Result<Closing, ActError> {
        let said = |text: Option<String>| text.map(|t| said_in(&t, drill)).transpose();
        Ok(Closing { template: self.template, correction: said(self.correction)?, all_clear: said(self.all_clear)? })
    }
}

fn invalid(field: &'static str, said: Words) -> ActError {
    ActError::Invalid(field.into(), said)
}

/// Held until a person gives their word; what waits to know whether it is needed at all has no time to look again.
fn awaits_word(row: &Delivery) -> bool {
    row.state == State::Held && row.next_at.is_some()
}

fn is_emergency(row: AnnouncementRow) -> bool {
    row.priority == Priority::Emergency
}

fn hold_name(id: &AnnouncementId) -> String {
    format!("hold-{id}")
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

fn derived(id: &AnnouncementId, what: &str, n: u32) -> String {
    if n == 1 { format!("{id}-{what}") } else { format!("{id}-{what}-{n}") }
}

/// The beginning of a text, to name it by.
pub(super) fn quoted(text: &str) -> String {
    let text = text.trim_start_matches(DRILL_MARK);
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(QUOTED).collect();
    if short.len() < line.len() { format!("{short}…") } else { short }
}

/// The text as it will be sent, or why it cannot be.
fn said_in(text: &str, drill: bool) -> Result<String, ActError> {
    let text = fit::full_text(text, None);
    let text = if drill && !text.is_empty() { stamped(&text) } else { text };
    if !text.chars().any(|c| !c.is_whitespace() && !is_hidden(c)) {
        return Err(invalid("text", Words::new("`text` 是空的", "the `text` is empty")));
    }
    if let Some(c) = hidden_in(&text) {
        let code = format!("U+{:04X}", u32::from(c));
        return Err(invalid(
            "text",
            words!("文字里有看不见的字符 {code}", "the text has the invisible character {code}"),
        ));
    }
    if !drill && text.contains(DRILL_MARK) {
        let said = Words::new(
            "带有【演练】，正式环境不发",
            "it bears the mark of a drill (【演练】): nothing of a drill goes out live",
        );
        return Err(invalid("text", said));
    }
    Ok(text)
}
