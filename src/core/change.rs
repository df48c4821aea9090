//! Everything that can be written to the ledger, and the chain that shows tampering.
//!
//! A commit is a list of `Change`s, all or nothing. Each change that matters to a person leaves one
//! event; an event's hash covers the hash before it, so a changed, removed or reordered record breaks
//! the chain at a named place.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Time;
use super::accounts::AccountId;
use super::announcement::{AnnouncementId, Content, ContentHash, OccurrenceId, Priority};
use super::delivery::{Delivery, Step};
use super::gate::Hold;

/// Number of an event, from 1, in commit order.
pub type Seq = i64;

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Actor {
    /// The daemon, at a delivery's due time.
    Daemon,
    /// The queue folder, through the planner.
    Queue,
    /// A person, as the kernel names them.
    Person { uid: u32, name: String },
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Actor::Daemon => f.write_str("fabu"),
            Actor::Queue => f.write_str("queue"),
            Actor::Person { uid, name } => write!(f, "{name}({uid})"),
        }
    }
}

/// What the ledger knows an announcement by.
#[derive(Clone, Debug, PartialEq)]
pub struct AnnouncementRow {
    pub id: AnnouncementId,
    pub file: String,
    pub line: i64,
    /// The content in force, with its accounts.
    pub content: ContentHash,
    /// Hash of the body alone: a changed tree of accounts is no edit.
    pub body: ContentHash,
    /// The last version seen after publication, reported once.
    pub edited: Option<ContentHash>,
    pub priority: Priority,
    pub supersedes: Option<AnnouncementId>,
    /// A repeat's occurrences are written up to here.
    pub planned_to: Option<Time>,
    /// Why it was withdrawn, if it was: `queue` (its file no longer has it) or a person.
    pub withdrawn: Option<String>,
    pub first_seen: Time,
}

/// Closing figures of a release, in milliseconds; whole-second sends count as late beyond `grace`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ReleaseClosed)]
pub struct Closing {
    /// From the instant to the first request.
    pub lateness_ms: f64,
    /// From the first request to the last.
    pub skew_ms: f64,
    pub sent: u32,
    pub on_time: u32,
    pub late: u32,
    #[schema(value_type = chrono::DateTime<chrono::Utc>)]
    pub closed_at: Time,
}

/// One thing to be written.
#[derive(Clone, Debug)]
pub enum Change {
    Content(ContentHash, Box<Content>),
    Announcement(Box<AnnouncementRow>),
    /// An occurrence; one that exists gets the new content and instant.
    Occurrence {
        id: OccurrenceId,
        announcement: AnnouncementId,
        content: ContentHash,
        release: Time,
    },
    Closed(OccurrenceId, Closing),
    /// A new delivery; its `id` is the ledger's to give. An (occurrence, account) that exists is left alone. One that
    /// is `sending` already comes with its intent.
    Add(Box<Delivery>),
    /// A step of a delivery, refused when the row is not the one it was computed from.
    Step(Box<Step>),
    /// Calls counted against a window of an account's or host's budget.
    Spend {
        key: String,
        window: i64,
        calls: u32,
    },
    /// The newest post id known of an account.
    Seen {
        account: AccountId,
        post_id: String,
    },
    /// Whether an account's credential was good, and when that was seen.
    Standing {
        account: AccountId,
        good: bool,
        words: String,
        uid: Option<String>,
        expires: Option<Time>,
    },
    Meta {
        key: String,
        value: Option<String>,
    },
    /// A hold begins, or one that stands gets another end.
    Hold(Hold),
    HoldEnded(String),
    /// A person's word to exactly this content.
    Confirmed {
        announcement: AnnouncementId,
        content: ContentHash,
        uid: u32,
        name: String,
    },
    /// What a request with an idempotency key was answered; the same key gets the same answer.
    Answered {
        uid: u32,
        key: String,
        hash: String,
        answer: String,
    },
    Note(Note),
}

impl Change {
    /// Whether it is part of an emergency: such a change waits for nothing of routine.
    pub fn is_urgent(&self) -> bool {
        match self {
            Change::Announcement(row) => row.priority == Priority::Emergency,
            Change::Step(step) => step.row.priority == Priority::Emergency,
            Change::Hold(_) | Change::HoldEnded(_) | Change::Confirmed { .. } => true,
            _ => false,
        }
    }
}

/// An event as it is first said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub kind: String,
    pub subject: String,
    pub body: serde_json::Value,
}

impl Note {
    pub fn change(kind: &str, subject: impl ToString, body: serde_json::Value) -> Change {
        Change::Note(Note { kind: kind.to_owned(), subject: subject.to_string(), body })
    }
}

/// An event as it is kept: one line of the audit trail, one message of the event stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Recorded {
    pub seq: i64,
    #[schema(value_type = chrono::DateTime<chrono::Utc>)]
    pub at: Time,
    pub actor: String,
    pub kind: String,
    pub subject: String,
    pub body: String,
    pub previous: String,
    pub hash: String,
}

/// The chain's beginning.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl Recorded {
    /// The hash this record must have: over its fields, each with its length before it, and the hash before.
    pub fn expected_hash(&self) -> String {
        let mut hasher = Sha256::new();
        let micros = self.at.timestamp_micros();
        for field in [
            self.seq.to_string().as_bytes(),
            micros.to_string().as_bytes(),
            self.actor.as_bytes(),
            self.kind.as_bytes(),
            self.subject.as_bytes(),
            self.body.as_bytes(),
            self.previous.as_bytes(),
        ] {
            hasher.update((field.len() as u64).to_be_bytes());
            hasher.update(field);
        }
        hex::encode(hasher.finalize())
    }

    /// Whether this record follows the one before, and is as it was written.
    pub fn follows(&self, seq: Seq, hash: &str) -> bool {
        self.seq == seq + 1 && self.previous == hash && self.hash == self.expected_hash()
    }
}
