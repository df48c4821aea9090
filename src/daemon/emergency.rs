//! The other hour: an urgent post, the second person's word, its correction, its end.
//!
//! Everything an urgent post needs is in the ledger, in one transaction, before it is acknowledged.
//! While a word is missing it is held and prepared for nothing: text asks no platform for anything.
//! A false emergency is the worst that can happen, so whatever is missing or odd keeps it back.

mod closing;
pub(crate) mod kin;
mod tried;
mod word;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::Inner;
use super::acts::ActError;
use super::answers::{Fate, HoldBegun, Persons, Preview, Shown, Taken};
use super::memory::Reserved;
use super::planner::{expiry, new_delivery};
use crate::clock::Time;
use crate::core::accounts::AccountId;
use crate::core::announcement::{
    AnnouncementId, Body, Content, ContentHash, Follows, Image, Level, OccurrenceId, Priority,
};
use crate::core::change::{Actor, AnnouncementRow, Change, Note};
use crate::core::delivery::{Cause, Delivery, State};
use crate::core::fit;
use crate::core::gate::{Choice, Hold};
use crate::core::words::Words;
use crate::daemon::holds::accounts_of;
use crate::ledger::LedgerError;
pub use closing::Closed;
pub(crate) use closing::overtaken;
pub(crate) use tried::quoted;
use tried::{Tried, Wording, invalid};
pub(crate) use word::not_sent_again;

/// A request asked again within this time gets the answer it got (R47).
const ANSWERS_LAST: TimeDelta = TimeDelta::hours(24);
/// How often an act is decided anew when what it was decided on has changed before its commit: the name that was made for
/// it is another's, or its emergency's hold was given another end.
const READ_AGAIN: u32 = 10;

/// An urgent post as it was asked for, its fields read and its words not tried yet.
#[derive(Clone, Debug, Default)]
pub struct Urgent {
    /// When the alert that asks for it was sent.
    pub alert_sent: Option<Time>,
    /// The hash of the content that was shown to the person: nothing else is sent.
    pub shown: Option<String>,
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
    /// The same, read.
    pub read: Vec<Image>,
    /// Of a correction or an all-clear: what it is about.
    pub follows: Option<Follows>,
    /// Codes of an alert's areas that nobody here bears.
    pub unknown_areas: Vec<String>,
}

/// The key a person gave a request, so that asking twice does it once.
#[derive(Clone, Debug)]
pub struct Key {
    pub key: String,
    /// Of the whole request.
    pub hash: String,
}

impl Inner {
    /// Takes an urgent post: tried, written, and on its way when this returns.
    pub async fn urgent(self: &Arc<Self>, by: &Actor, urgent: Urgent, keys: &[Key]) -> Result<Value, ActError> {
        if let Some(answer) = self.answered_before(by, keys.first()).await? {
            return Ok(answer);
        }
        let (urgent, wording) = self.worded(urgent)?;
        // A slow disk under the pictures keeps nobody else's emergency waiting.
        let urgent = Urgent { read: self.pictures(&urgent.images, urgent.dry_run).await?, ..urgent };
        if urgent.dry_run {
            return self.taken(by, urgent, wording, keys).await;
        }
        // Routine begins nothing from here on, until this one's last request has left.
        let _place = self.leaving();
        let _turn = self.deciding.lock().await;
        // The same request may have been taken while this one waited for its turn.
        if let Some(answer) = self.answered_before(by, keys.first()).await? {
            return Ok(answer);
        }
        self.taken(by, urgent, wording, keys).await
    }

    /// An urgent post with its words and pictures, in its turn; or a look at what would go, which needs none.
    pub(super) async fn taken(
        self: &Arc<Self>,
        by: &Actor,
        urgent: Urgent,
        wording: Wording,
        keys: &[Key],
    ) -> Result<Value, ActError> {
        if urgent.to.is_empty() {
            return Err(invalid("to", Words::new("没有 `to`：发给谁？", "there is no `to`: who is to get it?")));
        }
        let accounts = accounts_of(&self.config(), &Choice { to: urgent.to.clone(), except: urgent.except.clone() })?;
        if urgent.dry_run {
            let tried = self.tried(by, &urgent, accounts, wording).await?;
            return Ok(json!(self.preview(&tried).await?));
        }
        let mut tries = 0;
        loop {
            let tried = self.tried(by, &urgent, accounts.clone(), wording.clone()).await?;
            if urgent.shown.as_ref().is_some_and(|shown| shown != tried.content.hash().as_str()) {
                return Err(closing::changed("content_hash"));
            }
            match self.take(by, tried, urgent.source.as_deref(), Vec::new(), keys).await {
                Err(ActError::Ledger(LedgerError::Conflict)) if tries < READ_AGAIN => tries += 1,
                done => return Ok(json!(done?)),
            }
        }
    }

    pub(crate) async fn answered_before(&self, by: &Actor, key: Option<&Key>) -> Result<Option<Value>, ActError> {
        let (Some(key), Actor::Person { uid, .. }) = (key, by) else { return Ok(None) };
        let since = self.clock.now() - ANSWERS_LAST;
        let Some((hash, answer)) = self.ledger.answered(*uid, &key.key, since).await? else { return Ok(None) };
        if hash != key.hash {
            let said = Words::new(
                "这个 Idempotency-Key 已用于另一个请求",
                "this Idempotency-Key was used for another request",
            );
            return Err(invalid("Idempotency-Key", said));
        }
        Ok(Some(serde_json::from_str(&answer).unwrap_or(Value::Null)))
    }

    /// What would go where, with nothing written and nothing held.
    async fn preview(&self, tried: &Tried) -> Result<Preview, ActError> {
        let config = self.config();
        let told = |account: &&AccountId| !config.city.is_resting(account);
        let body = &tried.content.body;
        let hold = match &tried.hold {
            Some(hold) => Some(self.kept_by(hold).await?),
            None => None,
        };
        Ok(Preview {
            dry_run: true,
            drill: self.config().drill,
            id: tried.id.clone(),
            level: tried.level,
            text: body.text.clone(),
            accounts: tried.content.accounts.iter().filter(told).count(),
            platforms: shown_on(body, tried.content.accounts.iter().filter(told)),
            pictures: body.images.len(),
            content_hash: tried.content.hash(),
            hold,
            supersedes: body.supersedes.clone(),
            reopens: body.follows.as_ref().and_then(|f| f.reopens),
            persons: config.settings.emergency.persons(body),
            closing: body.closing.clone(),
            unknown_areas: tried.unknown_areas.clone(),
        })
    }

    /// One transaction: the content, its deliveries, its hold, the sender's word. Acknowledged when it is on disk.
    async fn take(
        self: &Arc<Self>,
        by: &Actor,
        tried: Tried,
        source: Option<&str>,
        with: Vec<Change>,
        keys: &[Key],
    ) -> Result<Taken, ActError> {
        let now = self.clock.now();
        let Tried { id, content, level, hold, about, unknown_areas } = tried;
        let (hash, config) = (content.hash(), self.config());
        let needed = config.settings.emergency.persons(&content.body);
        let is_confirmed = needed <= 1;
        let hold = hold.and_then(|hold| self.beginning(hold, is_confirmed, now));
        let mut consequences = match is_confirmed {
            true => self.consequences(by, &id, &content).await?,
            false => Vec::new(),
        };
        // No longer than it lasts itself.
        let confirm_by = now + config.settings.emergency.confirm_within;
        let confirm_by = expiry(&content.body, now, &config.settings.publish).map_or(confirm_by, |e| e.min(confirm_by));
        let names = if let Actor::Person { .. } = by { vec![by.to_string()] } else { Vec::new() };
        let mut answer = Taken {
            id: id.clone(),
            state: if is_confirmed { Fate::Releasing } else { Fate::AwaitingConfirm },
            deliveries: content.accounts.len(),
            waiting: 0,
            stopped: 0,
            out_of_reach: 0,
            level,
            content_hash: hash.clone(),
            persons: Persons { needed, have: 1, names },
            confirm_by: (!is_confirmed).then_some(confirm_by),
            hold: hold.as_ref().map(|h| HoldBegun { id: h.id.clone(), until: h.until }),
            unknown_areas,
        };
        // The announcement first: its name is free, or nothing of this is written.
        let mut changes: Vec<Change> = announced(&id, &content, &hash, now).into();
        changes.append(&mut consequences);
        let awaited = (!is_confirmed).then_some(confirm_by);
        let Intents { armed, expected, reserved } =
            self.deliveries_of(&id, &content, &hash, &about, awaited, now, &mut changes);
        changes.extend(hold.iter().cloned().map(Change::Hold));
        let body = json!({
            "level": level, "accounts": content.accounts.len(), "content_hash": hash, "persons": needed,
            "awaits_word": !is_confirmed, "armed": armed.len(), "text": content.body.text, "source": source, "follows": content.body.follows,
        });
        changes.push(Note::change("emergency", &id, body));
        if let Actor::Person { uid, name } = by {
            let (announcement, content) = (id.clone(), hash.clone());
            changes.push(Change::Confirmed { announcement, content, uid: *uid, name: name.clone() });
        }
        changes.extend(answered_with(by, keys, &json!(answer)));
        changes.extend(with);
        let (committed, launches) = self.commit_armed(by, changes, armed, reserved).await?;
        if !about.is_empty() {
            // One that is suspended or closed is told nothing; its row is what takes down the post that it carries.
            answer.deliveries = committed.added().filter(|d| !config.city.is_resting(&d.account)).count();
            answer.waiting = committed.added().filter(|d| d.cause == Some(Cause::Undecided)).count();
        }
        answer.stopped = committed.stepped().filter(|d| d.state == State::Cancelled).count();
        let deliveries = answer.deliveries;
        self.remember(&hash, Arc::new(content));
        self.launch(launches);
        self.expect(expected, confirm_by);
        tracing::warn!(announcement = %id, ?level, deliveries, is_confirmed, "an emergency was taken");
        self.urge();
        Ok(answer)
    }

    /// The hold as it begins now: one that stands already lasts as long as the longer of both, and an update that waits
    /// for a word leaves it as it is.
    fn beginning(&self, hold: Hold, is_confirmed: bool, now: Time) -> Option<Hold> {
        match self.standing_hold(&hold.id) {
            None => Some(Hold { begun: now, ..hold }),
            Some(_) if !is_confirmed => None,
            Some(standing) => {
                let until = standing.until.zip(hold.until).map(|(a, b)| a.max(b));
                Some(Hold { until, version: standing.version + 1, ..standing })
            }
        }
    }

    /// Its deliveries: those whose intents are part of this commit, those that wait for a word, and those that are
    /// decided on when it is written, by where the posts are that it is about.
    #[expect(clippy::too_many_arguments, reason = "the parts of one emergency, used here alone")]
    fn deliveries_of(
        self: &Arc<Self>,
        id: &AnnouncementId,
        content: &Content,
        hash: &ContentHash,
        about: &[AnnouncementId],
        confirm_by: Option<Time>,
        now: Time,
        changes: &mut Vec<Change>,
    ) -> Intents {
        let expires_at = expiry(&content.body, now, &self.config().settings.publish);
        let occurrence = OccurrenceId::once(id);
        let mut intents = Intents::default();
        for account in &content.accounts {
            let mut delivery = new_delivery(id, content.body.priority, hash, &occurrence, account, now, expires_at);
            delivery.id = self.ledger.new_id();
            let means = self.prepare_at_once(&mut delivery, content);
            if delivery.prepared.is_some() {
                delivery.state = State::Ready;
            }
            if let Some(until) = confirm_by {
                delivery.state = State::Held;
                delivery.cause = Some(Cause::Confirmation);
                delivery.next_at = Some(until);
                delivery.reason = Some(Words::new("等第二人确认", "waiting for the second person's word"));
                intents.expected.push(delivery.clone());
            } else if about.is_empty()
                && let Some(step) = means.and_then(|means| self.intent(&delivery, &means, now, &mut intents.reserved))
            {
                delivery = step.row;
                intents.armed.push(delivery.clone());
            }
            changes.push(match about.is_empty() {
                true => Change::Add(Box::new(delivery)),
                false => Change::AddAbout(Box::new(delivery), about.to_vec()),
            });
        }
        intents
    }
}

/// The intents of an emergency's deliveries that go now, their cost, and the deliveries that are prepared while they wait.
#[derive(Default)]
struct Intents {
    armed: Vec<Delivery>,
    expected: Vec<Delivery>,
    reserved: Vec<Reserved>,
}

/// The content, its announcement, and the one occurrence it has.
fn announced(id: &AnnouncementId, content: &Content, hash: &ContentHash, now: Time) -> [Change; 3] {
    let body = &content.body;
    let row = AnnouncementRow {
        id: id.clone(),
        file: String::new(),
        line: 0,
        content: hash.clone(),
        body: body.hash(),
        edited: None,
        priority: Priority::Emergency,
        supersedes: body.supersedes.clone(),
        planned_to: None,
        withdrawn: None,
        first_seen: now,
        follows: body.follows.as_ref().map(|f| (f.emergency.clone(), f.part)),
        ended: None,
        version: 1,
    };
    [
        Change::Content(hash.clone(), Box::new(content.clone())),
        Change::Announcement(Box::new(row)),
        Change::Occurrence {
            id: OccurrenceId::once(id),
            announcement: id.clone(),
            content: hash.clone(),
            release: now,
        },
    ]
}

/// How many accounts of each platform, and what they show.
pub(crate) fn shown_on<'a>(body: &Body, accounts: impl Iterator<Item = &'a AccountId>) -> BTreeMap<String, Shown> {
    let mut platforms: BTreeMap<String, Shown> = BTreeMap::new();
    for account in accounts {
        let platform = account.platform();
        let shown = platforms.entry(platform.to_owned()).or_insert_with(|| Shown {
            accounts: 0,
            text: fit::full_text(body.text_for(platform), body.link.as_deref()),
        });
        shown.accounts += 1;
    }
    platforms
}

/// What a person's request was answered, under each of its keys.
pub(super) fn answered_with<'a>(by: &Actor, keys: impl IntoIterator<Item = &'a Key>, answer: &Value) -> Vec<Change> {
    let Actor::Person { uid, .. } = by else { return Vec::new() };
    let answered = |Key { key, hash }: &Key| Change::Answered {
        uid: *uid,
        key: key.clone(),
        hash: hash.clone(),
        answer: answer.to_string(),
    };
    keys.into_iter().map(answered).collect()
}
