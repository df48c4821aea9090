//! What is to be published: announcements, their variants, and the names of their occurrences.
//!
//! A `Content` is frozen: its hash covers every character, picture, variant, target and time, and a
//! delivery points to the hash. Whoever changes anything makes another content.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{NaiveDate, SecondsFormat};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::accounts::{AccountId, PlatformName};
use super::policy::{CatchUp, Span};
use super::{Time, text_id};

text_id! {
    /// The stable key of an announcement, unique in the queue.
    AnnouncementId
}
text_id! {
    /// One release of an announcement: its id, and for a repeating one `id@2026-11-24T08:00+08:00`.
    OccurrenceId
}
text_id! {
    /// SHA-256 of a content, in hex.
    ContentHash
}

/// How urgent; the order is the order of sending.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    Emergency,
    Important,
    #[default]
    Routine,
}

/// The level of a warning (预警级别), red the highest.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Red,
    Orange,
    Yellow,
    Blue,
}

/// A picture, by the bytes that were read when the announcement was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Image {
    /// Path below the queue folder.
    pub file: String,
    pub alt: Option<String>,
    pub sha256: String,
    pub bytes: u64,
    /// `png`, `jpeg`, `gif`, `webp` or `bmp`, by content.
    pub kind: String,
}

/// What one platform shows instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Variant {
    pub title: Option<String>,
    pub text: Option<String>,
}

/// When it goes out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Timing {
    /// As soon as it is read.
    Now,
    At(chrono::DateTime<chrono::Utc>),
    Repeat(Repeat),
}

/// A repeat as written; `core::repeat` lists its instants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Repeat {
    /// Five cron fields, or six with seconds first.
    pub cron: String,
    #[schema(value_type = Option<chrono::DateTime<chrono::Utc>>)]
    pub from: Option<Time>,
    #[schema(value_type = Option<chrono::DateTime<chrono::Utc>>)]
    pub until: Option<Time>,
    pub skip: BTreeSet<NaiveDate>,
}

/// An announcement as its file says it, without what the accounts' tree makes of `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Body {
    pub text: String,
    pub link: Option<String>,
    pub images: Vec<Image>,
    pub variants: BTreeMap<PlatformName, Variant>,
    pub to: Vec<String>,
    pub except: Vec<String>,
    pub priority: Priority,
    pub level: Option<Level>,
    pub timing: Timing,
    #[schema(value_type = Option<Span>)]
    pub expires_after: Option<Duration>,
    #[schema(value_type = Option<serde_json::Value>)]
    pub catch_up: Option<CatchUp>,
    /// `None`: as the configuration says.
    pub together: Option<bool>,
    pub supersedes: Option<AnnouncementId>,
    pub hold_exempt: Option<String>,
    /// The words of a correction or an all-clear as the program or a template has them: its sender alone gives them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub standard: bool,
    /// Of an emergency: how many persons give their word, as it was when it was taken; without it as the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persons: Option<usize>,
    /// Of an emergency: how long routine is silent from its release on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Span>)]
    pub silence: Option<Duration>,
    /// When its alert was sent, by the office that sent it: what was sent before comes too late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<chrono::DateTime<chrono::Utc>>)]
    pub alert_sent: Option<Time>,
    /// Of a later word of an emergency: which one, and which of its posts it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Follows>,
    /// Of an emergency from a template: what will correct it and end it, signed with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing: Option<Closing>,
}

/// How an emergency's post has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum End {
    AllClear,
    Corrected,
}

/// A later word of an emergency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Follows {
    /// The emergency, by its first post.
    pub emergency: AnnouncementId,
    pub part: Part,
    /// Its posts that this one replaces, corrects or clears, account by account.
    pub posts: BTreeSet<AnnouncementId>,
    /// Of an update: how the emergency had ended that goes on with it. So whoever was shown the one is not taken to have
    /// asked for the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reopens: Option<End>,
}

/// What a later word is to its emergency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Update,
    Correction,
    AllClear,
}

/// The last words of an emergency, agreed on with its first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Closing {
    /// The template they are of.
    pub template: String,
    pub correction: Option<String>,
    pub all_clear: Option<String>,
}

/// A body and the accounts it goes to: what a confirmation signs and a delivery points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub body: Body,
    pub accounts: BTreeSet<AccountId>,
}

/// An announcement of the queue, ready to be planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub id: AnnouncementId,
    /// Path of its file below the queue folder, and its line there.
    pub file: String,
    pub line: usize,
    /// When its file was last changed, where that is known.
    pub saved: Option<Time>,
    /// Its file says `at: now`: it goes as soon as it is read, and nobody waits for its writer to end.
    pub says_now: bool,
    pub content: Content,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Red => "red",
            Level::Orange => "orange",
            Level::Yellow => "yellow",
            Level::Blue => "blue",
        }
    }
}

impl Part {
    pub fn as_str(self) -> &'static str {
        match self {
            Part::Update => "update",
            Part::Correction => "correction",
            Part::AllClear => "all_clear",
        }
    }

    pub fn parse(text: &str) -> Option<Part> {
        [Part::Update, Part::Correction, Part::AllClear].into_iter().find(|part| part.as_str() == text)
    }
}

impl Follows {
    /// Whether what it is about goes when this one is out.
    pub fn replaces(&self) -> bool {
        matches!(self.part, Part::Update | Part::Correction)
    }
}

impl Closing {
    /// Its texts, each under the name of its field.
    pub fn words(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [("correction", &self.correction), ("all_clear", &self.all_clear)];
        all.into_iter().filter_map(|(field, text)| text.as_deref().map(|t| (field, t)))
    }
}

impl Body {
    /// An emergency of these words and nothing else, to nobody yet.
    pub fn said(text: &str) -> Body {
        Body {
            text: text.to_owned(),
            link: None,
            images: Vec::new(),
            variants: BTreeMap::new(),
            to: Vec::new(),
            except: Vec::new(),
            priority: Priority::Emergency,
            level: None,
            timing: Timing::Now,
            expires_after: None,
            catch_up: None,
            together: Some(true),
            supersedes: None,
            hold_exempt: None,
            standard: false,
            persons: None,
            silence: None,
            alert_sent: None,
            follows: None,
            closing: None,
        }
    }

    pub fn hash(&self) -> ContentHash {
        digest(self)
    }

    /// What it is to an emergency that was there before.
    pub fn part(&self) -> Option<Part> {
        self.follows.as_ref().map(|f| f.part)
    }

    /// The posts it is said of: those it replaces, corrects or clears.
    pub fn about(&self) -> BTreeSet<&AnnouncementId> {
        self.follows.iter().flat_map(|f| &f.posts).chain(&self.supersedes).collect()
    }

    /// The posts that go, account by account, once this one is out there.
    pub fn replaced(&self) -> BTreeSet<&AnnouncementId> {
        let posts = self.follows.iter().filter(|f| f.replaces()).flat_map(|f| &f.posts);
        posts.chain(&self.supersedes).collect()
    }

    /// The text for a platform: its variant, or the common one.
    pub fn text_for(&self, platform: &str) -> &str {
        self.variants.get(platform).and_then(|v| v.text.as_deref()).unwrap_or(&self.text)
    }

    pub fn title_for(&self, platform: &str) -> Option<&str> {
        self.variants.get(platform).and_then(|v| v.title.as_deref())
    }

    /// The level of an emergency; one that names none is red.
    pub fn level(&self) -> Option<Level> {
        (self.priority == Priority::Emergency).then(|| self.level.unwrap_or(Level::Red))
    }

    /// How long after its release it may still be published; `None` is for ever (an emergency's wish).
    pub fn lasts(&self, publish: &super::policy::Publish) -> Option<Duration> {
        if self.priority == Priority::Emergency {
            return self.expires_after;
        }
        let catch_up = match self.catch_up {
            Some(CatchUp::None) => Duration::ZERO,
            Some(CatchUp::Within(within)) => within,
            Some(CatchUp::Last) | None => publish.catch_up,
        };
        Some(self.expires_after.map_or(catch_up, |e| e.min(catch_up)).max(publish.grace))
    }
}

impl Content {
    pub fn hash(&self) -> ContentHash {
        digest(self)
    }

    pub fn is_repeat(&self) -> bool {
        matches!(self.body.timing, Timing::Repeat(_))
    }
}

fn digest(value: &impl Serialize) -> ContentHash {
    let bytes = serde_json::to_vec(value).expect("a body has only text keys and finite numbers");
    ContentHash(hex::encode(Sha256::digest(&bytes)).into())
}

impl OccurrenceId {
    /// The only occurrence of an announcement that does not repeat.
    pub fn once(id: &AnnouncementId) -> OccurrenceId {
        OccurrenceId(id.0.clone())
    }

    /// The occurrence of a repeating announcement at an instant, named in the configured zone.
    pub fn at(id: &AnnouncementId, at: Time, zone: Tz) -> OccurrenceId {
        let local = at.with_timezone(&zone);
        let text = local.to_rfc3339_opts(SecondsFormat::Secs, false);
        // Whole minutes are named as people write them.
        let text = if text.get(16..19) == Some(":00") { format!("{}{}", &text[..16], &text[19..]) } else { text };
        OccurrenceId(format!("{id}@{text}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    #[test]
    fn a_repeating_announcement_names_its_occurrences_in_the_configured_zone() {
        let at = chrono::Utc.with_ymd_and_hms(2026, 11, 24, 0, 0, 0).unwrap();
        let id = AnnouncementId::from("morning");
        let zone = chrono_tz::Asia::Shanghai;
        assert_eq!(OccurrenceId::at(&id, at, zone).as_str(), "morning@2026-11-24T08:00+08:00");
        let at = at + chrono::TimeDelta::seconds(5);
        assert_eq!(OccurrenceId::at(&id, at, zone).as_str(), "morning@2026-11-24T08:00:05+08:00");
    }
}
