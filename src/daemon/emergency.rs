//! The other hour: an urgent post, the second person's word, its correction, its end.
//!
//! Everything an urgent post needs is in the ledger, in one transaction, before it is acknowledged.
//! While a word is missing it is held and prepared for nothing: text asks no platform for anything.
//! A false emergency is the worst that can happen, so whatever is missing or odd keeps it back.

mod closing;
mod kin;
mod tried;
mod word;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::acts::ActError;
use super::answers::{Fate, HoldBegun, Persons, Preview, Shown, Taken};
use super::planner::{expiry, new_delivery};
use super::{Inner, lock};
use crate::core::announcement::{Announcement, AnnouncementId, Level, OccurrenceId, Priority};
use crate::core::change::{Actor, AnnouncementRow, Change, Note};
use crate::core::delivery::State;
use crate::core::fit;
use crate::core::words::Words;
pub(crate) use tried::quoted;
use tried::{Tried, invalid};

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

/// The key a person gave a request, so that asking twice does it once.
#[derive(Clone, Debug)]
pub struct Key {
    pub key: String,
    /// Of the whole request.
    pub hash: String,
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

    pub(crate) async fn answered_before(&self, by: &Actor, key: Option<&Key>) -> Result<Option<Value>, ActError> {
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
}

fn hold_name(id: &AnnouncementId) -> String {
    format!("hold-{id}")
}
