//! The words a delivery is described in: states, classes of failure, what a platform said, receipts.
//!
//! They are the contract's words; adapters and ledger speak them, and `step` decides by them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::{Time, words::Words};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Scheduled,
    Ready,
    Sending,
    Published,
    Accepted,
    Retrying,
    Unknown,
    Held,
    Failed,
    Expired,
    Cancelled,
    Deleted,
}

impl State {
    pub const ALL: [State; 12] = [
        State::Scheduled,
        State::Ready,
        State::Sending,
        State::Published,
        State::Accepted,
        State::Retrying,
        State::Unknown,
        State::Held,
        State::Failed,
        State::Expired,
        State::Cancelled,
        State::Deleted,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            State::Scheduled => "scheduled",
            State::Ready => "ready",
            State::Sending => "sending",
            State::Published => "published",
            State::Accepted => "accepted",
            State::Retrying => "retrying",
            State::Unknown => "unknown",
            State::Held => "held",
            State::Failed => "failed",
            State::Expired => "expired",
            State::Cancelled => "cancelled",
            State::Deleted => "deleted",
        }
    }

    pub fn parse(text: &str) -> Option<State> {
        State::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// Nothing of it has reached a platform, and it can still be changed or withdrawn.
    pub fn is_pending(self) -> bool {
        matches!(self, State::Scheduled | State::Ready | State::Held)
    }

    /// It has ended, or needs a person.
    pub fn is_settled(self) -> bool {
        matches!(self, State::Published | State::Failed | State::Expired | State::Cancelled | State::Deleted)
    }
}

/// Why a delivery failed, in the contract's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    Credential,
    Limit,
    Content,
    Media,
    Policy,
    Platform,
}

impl Class {
    pub const ALL: [Class; 6] =
        [Class::Credential, Class::Limit, Class::Content, Class::Media, Class::Policy, Class::Platform];

    pub fn as_str(self) -> &'static str {
        match self {
            Class::Credential => "credential",
            Class::Limit => "limit",
            Class::Content => "content",
            Class::Media => "media",
            Class::Policy => "policy",
            Class::Platform => "platform",
        }
    }

    pub fn parse(text: &str) -> Option<Class> {
        Class::ALL.into_iter().find(|c| c.as_str() == text)
    }
}

/// Who has to wait, or to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    Account,
    Platform,
}

/// What a platform, or the way to it, said instead of yes.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// No byte of the request was taken, or the platform says it ran nothing.
    NotSent(Words),
    /// Refused before execution; again after this long.
    Later(Duration, Scope, Words),
    /// This text or picture never passes.
    Refused(Class, Words),
    Credential(Scope, Words),
    /// "You already posted this."
    Duplicate(Words),
    /// The request went out and no trustworthy answer came.
    Unclear(Words),
    /// It was answered with the post of another account: the credential is not this one's, or its `uid` is wrong.
    Astray(Words),
}

impl Failure {
    pub fn words(&self) -> &Words {
        match self {
            Failure::NotSent(w)
            | Failure::Later(_, _, w)
            | Failure::Refused(_, w)
            | Failure::Credential(_, w)
            | Failure::Duplicate(w)
            | Failure::Unclear(w)
            | Failure::Astray(w) => w,
        }
    }

    pub(super) fn class(&self) -> Class {
        match self {
            Failure::Refused(class, _) => *class,
            Failure::Credential(..) | Failure::Astray(_) => Class::Credential,
            Failure::Later(..) => Class::Limit,
            Failure::Duplicate(_) => Class::Content,
            Failure::NotSent(_) | Failure::Unclear(_) => Class::Platform,
        }
    }
}

/// Proof of publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The platform's id of the post, an opaque string; empty while it is accepted and not yet shown.
    pub post_id: String,
    pub url: Option<String>,
    /// When its answer was read here; for one read back, when the platform says it was made.
    pub accepted_at: Time,
    /// The post can be seen; otherwise it is looked for.
    pub shown: bool,
    /// Found on the timeline, not in an answer.
    pub read_back: bool,
    /// What the adapter needs to ask again (`publish_id`), if anything.
    pub ticket: Option<String>,
}

/// What `prepare` made of the content for this account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    pub text: String,
    pub title: Option<String>,
    /// The platform's ids of uploaded pictures or drafts.
    pub media: Vec<String>,
    /// Pictures that travel with the post: paths below the queue folder and the hash they must have.
    pub attached: Vec<(String, String)>,
    /// A key the platform keeps, where it keeps one.
    pub key: String,
    /// The server it was prepared for, and is looked for and taken down at: where its `base_url` led.
    #[serde(default)]
    pub site: Option<String>,
    /// The account's newest post id known before the first send: what is ours lies above it.
    #[serde(default)]
    pub baseline: Option<String>,
}

impl Prepared {
    /// A text that goes with nothing besides, for no server yet.
    pub fn new(text: String, key: String) -> Prepared {
        let (media, attached) = (Vec::new(), Vec::new());
        Prepared { text, title: None, media, attached, key, site: None, baseline: None }
    }
}

/// What a post is to be in the end; it only ever goes down this list, but for a queue that changes its mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    Published,
    /// Not sent any more; what is out stays.
    Stopped,
    /// Not sent any more, and taken down where it is out.
    Removed,
}

/// Why a delivery is held, or is not to be published (any more). What may happen to it next depends on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Held: a hold stands in the way.
    Hold,
    /// Held: a hold came over it, and a person has to release it.
    Review,
    /// Held: a person's confirmation is missing.
    Confirmation,
    /// Held: it is not known yet whether the post it is about is out.
    Undecided,
    /// The queue no longer has it.
    Absent,
    /// Its `to` no longer means this account.
    Unaddressed,
    /// Its repeat no longer has this hour.
    Rescheduled,
    /// The account is suspended or closed.
    Closed,
    /// A person cancelled or deleted it.
    Person,
    /// A newer post takes its place.
    Superseded,
    /// It was wrong.
    Corrected,
    /// Its emergency is over.
    Cleared,
    /// The post it is about never went out.
    Unneeded,
}

impl Cause {
    pub const ALL: [Cause; 13] = [
        Cause::Hold,
        Cause::Review,
        Cause::Confirmation,
        Cause::Undecided,
        Cause::Absent,
        Cause::Unaddressed,
        Cause::Rescheduled,
        Cause::Closed,
        Cause::Person,
        Cause::Superseded,
        Cause::Corrected,
        Cause::Cleared,
        Cause::Unneeded,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Hold => "hold",
            Cause::Review => "review",
            Cause::Confirmation => "confirmation",
            Cause::Undecided => "undecided",
            Cause::Absent => "absent",
            Cause::Unaddressed => "unaddressed",
            Cause::Rescheduled => "rescheduled",
            Cause::Closed => "closed",
            Cause::Person => "person",
            Cause::Superseded => "superseded",
            Cause::Corrected => "corrected",
            Cause::Cleared => "cleared",
            Cause::Unneeded => "unneeded",
        }
    }

    pub fn parse(text: &str) -> Option<Cause> {
        Cause::ALL.into_iter().find(|c| c.as_str() == text)
    }

    /// Whether the queue (or the tree of accounts) stopped it, and may take that back; what a person or another
    /// post stopped stays stopped.
    pub fn is_of_queue(self) -> bool {
        matches!(self, Cause::Absent | Cause::Unaddressed | Cause::Rescheduled | Cause::Closed)
    }
}

/// Whether a delivery may be out already, for all this ledger knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    None,
    /// Another process may have sent it, and has ended: one look tells.
    OneLook,
    /// This ledger is new, or older than it was: somebody may have sent it a moment ago, and absence is believed only after
    /// the settling time.
    Settling,
}
