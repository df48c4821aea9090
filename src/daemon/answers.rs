//! What is answered over the socket, field by field: the types that are serialised, and the same that
//! `GET /v1/openapi.json` describes.
//!
//! A field added here is in the answer and in its description at once; nothing else builds an answer. Instants and
//! numbers are written out: utoipa knows `DateTime` and `i64` by their names, and no alias of them.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::core::accounts::{AccountId, PlatformName};
use crate::core::announcement::{AnnouncementId, Body, ContentHash, Level, OccurrenceId, Part, Priority};
use crate::core::change;
use crate::core::delivery::{self, Cause, Class, Desired, State};
use crate::core::gate::Hold;
use crate::core::plan;
use crate::core::policy::Kind;
use crate::core::words::Words;
use crate::input;
use crate::ledger::AttemptRow;

mod acting;
pub use acting::*;

/// A page of a list; `next` as `cursor` gets the one after.
#[derive(Serialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
}

/// Whether it publishes, and what is not as it should be.
#[derive(Serialize, ToSchema)]
pub struct Health {
    pub status: Condition,
    pub degraded: Vec<Trouble>,
    pub version: &'static str,
    pub started: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    Ok,
    Degraded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    QueueFolder,
    Configuration,
    AwaitingPrune,
    QueueFaults,
    /// The disk is full: only emergencies are recorded and sent.
    LedgerFull,
    /// The ledger takes nothing.
    Ledger,
}

/// What has become of an announcement, or of one occurrence of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    Scheduled,
    Held,
    AwaitingConfirm,
    AwaitingPrune,
    Releasing,
    Published,
    Partial,
    Failed,
    Expired,
    Cancelled,
    Superseded,
    Corrected,
}

/// One occurrence to one account.
#[derive(Serialize, ToSchema)]
pub struct Delivery {
    pub id: String,
    pub announcement: AnnouncementId,
    pub occurrence: OccurrenceId,
    pub account: AccountId,
    pub platform: String,
    pub unit: String,
    pub state: State,
    /// Why it is held, or stopped.
    pub cause: Option<Cause>,
    /// Its aim; one that is published and to be `removed` is being taken down.
    pub desired: Desired,
    /// A person has to look: nobody can tell whether it is out, or it is to be taken down and stands there still.
    pub needs_person: bool,
    pub class: Option<Class>,
    pub reason: Option<Words>,
    /// The release instant.
    pub at: DateTime<Utc>,
    pub attempts: u16,
    /// When it next needs attention; null while it rests.
    pub next_at: Option<DateTime<Utc>>,
    pub receipt: Option<Receipt>,
    pub lateness_ms: Option<f64>,
}

/// Proof of publication.
#[derive(Serialize, ToSchema)]
pub struct Receipt {
    /// The platform's own id; empty while the post is accepted and not shown yet.
    pub post_id: String,
    pub url: Option<String>,
    pub accepted_at: DateTime<Utc>,
    /// Found on the timeline, not in an answer.
    pub read_back: bool,
    pub shown: bool,
}

/// A delivery, on short pages with its attempts.
#[derive(Serialize, ToSchema)]
pub struct DeliveryTold {
    #[serde(flatten)]
    pub delivery: Delivery,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<AttemptRow>>,
}

/// A delivery that was kept back.
#[derive(Serialize, ToSchema)]
pub struct Held {
    #[serde(flatten)]
    pub delivery: Delivery,
    pub age_s: i64,
    pub expires_at: Option<DateTime<Utc>>,
    /// Announcements that would speak on the same account now.
    pub clashes: BTreeSet<AnnouncementId>,
}

#[derive(Serialize, ToSchema)]
pub struct Occurrence {
    pub id: OccurrenceId,
    pub announcement: AnnouncementId,
    pub release: DateTime<Utc>,
    pub state: Fate,
    /// How many deliveries, by state.
    pub deliveries: BTreeMap<&'static str, u32>,
    pub closing: Option<change::Closing>,
}

#[derive(Serialize, ToSchema)]
pub struct Announcement {
    pub id: AnnouncementId,
    pub state: Fate,
    pub priority: Priority,
    pub file: String,
    pub line: i64,
    pub content_hash: ContentHash,
    pub supersedes: Option<AnnouncementId>,
    pub edited_after_publication: bool,
    /// Of an emergency's post: how it ended.
    pub ended: Option<change::Ended>,
    pub withdrawn_by: Option<String>,
    pub first_seen: DateTime<Utc>,
    pub occurrences: Vec<Occurrence>,
}

/// One announcement, with what it says and to whom.
#[derive(Serialize, ToSchema)]
pub struct AnnouncementTold {
    #[serde(flatten)]
    pub announcement: Announcement,
    #[serde(flatten)]
    pub said: Option<SaidTo>,
}

#[derive(Serialize, ToSchema)]
pub struct SaidTo {
    pub text: String,
    pub content: Body,
    pub accounts: BTreeSet<AccountId>,
    /// How many accounts of each platform, and what they show.
    pub platforms: BTreeMap<String, Shown>,
    /// Of an emergency.
    pub persons: Option<Persons>,
}

/// What is wrong in a file, and where.
#[derive(Serialize, ToSchema)]
pub struct Fault {
    pub severity: Severity,
    /// Stable name of the kind of fault: `unknown_key`.
    pub code: &'static str,
    pub message: String,
    pub message_zh: String,
    pub hint: Option<String>,
    pub hint_zh: Option<String>,
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub end_line: usize,
    pub end_column: usize,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// What is needed to know how things stand.
#[derive(Serialize, ToSchema)]
pub struct Status {
    pub now: DateTime<Utc>,
    pub timezone: &'static str,
    pub drill: bool,
    pub health: Health,
    pub emergencies: Vec<Emergency>,
    pub holds: Vec<Hold>,
    /// Deliveries of routine that holds kept back, and that nobody has let go yet.
    pub kept_back: usize,
    /// How many, by state.
    pub deliveries: BTreeMap<&'static str, u64>,
    pub recent: Vec<Occurrence>,
    pub coming: Vec<Occurrence>,
    /// Deliveries of which only a person can tell whether they are out.
    pub needs_person: Vec<Delivery>,
    pub looking_for: usize,
    pub bad_credentials: Vec<BadCredential>,
    pub budgets: Vec<Budget>,
    pub accounts: usize,
    pub queue: QueueNow,
    pub configuration: ConfigurationNow,
    pub notify: Vec<Outlet>,
    pub prune: Option<Pruning>,
    pub audit: Head,
}

/// A post of an emergency that is not over, or ended lately: what, since when, by whom, where it stands and where not yet.
#[derive(Serialize, ToSchema)]
pub struct Emergency {
    pub id: AnnouncementId,
    /// The first post of the emergency; its own id for that one.
    pub emergency: AnnouncementId,
    /// What a later word is to it; null for the first post.
    pub part: Option<Part>,
    pub level: Option<Level>,
    pub text: String,
    pub since: DateTime<Utc>,
    pub state: Fate,
    /// Accounts on which it stands now.
    pub standing: usize,
    /// Accounts on which it stood and was taken down.
    pub taken_down: usize,
    pub not_yet: usize,
    /// The first of them.
    pub where_not: Vec<NotYet>,
    pub persons: Persons,
    /// Until when the missing word may come.
    pub confirm_by: Option<DateTime<Utc>>,
    pub ended: Option<change::Ended>,
}

#[derive(Serialize, ToSchema)]
pub struct NotYet {
    pub account: AccountId,
    pub state: State,
    pub reason: Option<Words>,
}

/// How many persons have to give their word, how many have, and who.
#[derive(Serialize, ToSchema)]
pub struct Persons {
    pub needed: usize,
    pub have: usize,
    /// In the order of their words: of an emergency over the socket its sender is the first.
    pub names: Vec<String>,
}

#[derive(Serialize, ToSchema)]
pub struct BadCredential {
    pub account: AccountId,
    pub words: Option<String>,
    pub seen: Option<DateTime<Utc>>,
}

/// A platform's account that has used most of its day.
#[derive(Serialize, ToSchema)]
pub struct Budget {
    pub platform: PlatformName,
    pub account: AccountId,
    pub used: u32,
    pub limit: Option<u32>,
}

#[derive(Serialize, ToSchema)]
pub struct QueueNow {
    pub files: usize,
    pub folder_gone: bool,
    pub faults: Vec<Fault>,
}

#[derive(Serialize, ToSchema)]
pub struct ConfigurationNow {
    pub faults: Vec<Fault>,
    /// Faults of a changed configuration that could not be used.
    pub rejected: Vec<Fault>,
}

/// An entry of `notify:`, and how it went.
#[derive(Serialize, ToSchema)]
pub struct Outlet {
    pub to: String,
    pub on: Vec<Kind>,
    pub failed: u64,
    pub dropped: u64,
    pub last_error: Option<Words>,
    pub last_at: Option<DateTime<Utc>>,
}

/// Cancellations that wait for a person.
#[derive(Serialize, ToSchema)]
pub struct Pruning {
    pub plan: String,
    pub announcements: Vec<AnnouncementId>,
}

/// The end of the audit trail.
#[derive(Serialize, ToSchema)]
pub struct Head {
    pub seq: i64,
    pub head: String,
}

/// Events, oldest first, and the end of the chain.
#[derive(Serialize, ToSchema)]
pub struct Trail {
    pub items: Vec<change::Recorded>,
    pub next: Option<String>,
    #[serde(flatten)]
    pub head: Head,
}

/// An event as the stream sends it.
#[derive(Serialize, ToSchema)]
pub struct Told {
    pub seq: i64,
    pub at: DateTime<Utc>,
    pub actor: String,
    pub subject: String,
    pub body: Value,
}

/// The queue against the ledger.
#[derive(Serialize, ToSchema)]
pub struct Plan {
    pub changes: Vec<Planned>,
    pub awaiting_prune: Option<Pruning>,
    /// Of each announcement the first hours.
    pub coming: Vec<Occurrence>,
    /// Hours that come too, of repeats, and are not listed.
    pub left_out: u64,
    pub faults: Vec<Fault>,
}

#[derive(Serialize, ToSchema)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Planned {
    Add {
        announcement: AnnouncementId,
        occurrences: Vec<PlannedAt>,
    },
    Replace {
        announcement: AnnouncementId,
        occurrences: Vec<PlannedAt>,
    },
    Moved {
        announcement: AnnouncementId,
    },
    EditedAfterPublication {
        announcement: AnnouncementId,
        content: ContentHash,
    },
    /// All of it where no occurrence is named.
    Cancel {
        announcement: AnnouncementId,
        occurrences: Vec<OccurrenceId>,
    },
}

#[derive(Serialize, ToSchema)]
pub struct PlannedAt {
    pub occurrence: OccurrenceId,
    pub at: DateTime<Utc>,
}

impl Delivery {
    pub fn of(d: &delivery::Delivery) -> Delivery {
        Delivery {
            id: d.id.0.to_string(),
            announcement: d.announcement.clone(),
            occurrence: d.occurrence.clone(),
            account: d.account.clone(),
            platform: d.account.platform().to_owned(),
            unit: d.account.unit().to_owned(),
            state: d.state,
            cause: d.cause,
            desired: d.desired,
            needs_person: d.needs_person,
            class: d.class,
            reason: d.reason.clone(),
            at: d.at,
            attempts: d.attempt,
            next_at: d.next_at,
            receipt: d.receipt.as_ref().map(|r| Receipt {
                post_id: r.post_id.clone(),
                url: r.url.clone(),
                accepted_at: r.accepted_at,
                read_back: r.read_back,
                shown: r.shown,
            }),
            lateness_ms: d.lateness_ms,
        }
    }
}

impl Fault {
    pub fn of(fault: &input::Fault) -> Fault {
        let (start, end) = (fault.start(), fault.end());
        Fault {
            severity: if fault.is_error() { Severity::Error } else { Severity::Warning },
            code: fault.code,
            message: fault.message.en.clone(),
            message_zh: fault.message.zh.clone(),
            hint: fault.hint.as_ref().map(|h| h.en.clone()),
            hint_zh: fault.hint.as_ref().map(|h| h.zh.clone()),
            file: fault.source.name.clone(),
            line: start.line,
            column: start.column,
            end_line: end.line,
            end_column: end.column,
        }
    }
}

impl Pruning {
    pub fn of(prune: &plan::Prune) -> Pruning {
        Pruning { plan: prune.hash.clone(), announcements: prune.announcements.clone() }
    }
}

impl Planned {
    pub fn of(action: &plan::Action) -> Planned {
        let list = |o: &[(OccurrenceId, DateTime<Utc>)]| {
            o.iter().map(|(id, at)| PlannedAt { occurrence: id.clone(), at: *at }).collect::<Vec<_>>()
        };
        match action {
            plan::Action::Put { id, occurrences, is_new: true, .. } => {
                Planned::Add { announcement: id.clone(), occurrences: list(occurrences) }
            }
            plan::Action::Put { id, occurrences, is_new: false, .. } => {
                Planned::Replace { announcement: id.clone(), occurrences: list(occurrences) }
            }
            plan::Action::Moved(id) => Planned::Moved { announcement: id.clone() },
            plan::Action::EditedAfterPublication(id, hash) => {
                Planned::EditedAfterPublication { announcement: id.clone(), content: hash.clone() }
            }
            plan::Action::Withdraw(id) => Planned::Cancel { announcement: id.clone(), occurrences: Vec::new() },
            plan::Action::Reschedule(id, occurrences) => {
                Planned::Cancel { announcement: id.clone(), occurrences: occurrences.clone() }
            }
        }
    }
}
