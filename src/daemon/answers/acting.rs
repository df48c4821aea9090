//! What is answered to those who act: counts of what was done, and an emergency as it was taken.
//!
//! An answer is given when what it says is on disk.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Fate, Persons};
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, Closing, ContentHash, End, Level};

/// What a withdrawal did, in deliveries.
#[derive(Serialize, ToSchema)]
pub struct Withdrawn {
    pub id: String,
    pub cancelled: usize,
    pub in_flight: usize,
    pub taking_down: usize,
    /// Of those, how many cannot be now, for want of an account, a platform or a secret that the configuration once had.
    pub out_of_reach: usize,
    pub unchanged: usize,
}

#[derive(Serialize, ToSchema)]
pub struct Retrying {
    pub id: String,
    pub retrying: usize,
    /// Of unknown outcome: looked for again now.
    pub looking: usize,
}

/// A delivery whose outcome a person has settled; with `dry_run`, as it would be.
#[derive(Serialize, ToSchema)]
pub struct Resolved {
    #[serde(flatten)]
    pub delivery: super::Delivery,
    /// The post that the given address means.
    pub post: Option<LocatedPost>,
    pub dry_run: bool,
}

/// A post as the platform shows it.
#[derive(Serialize, ToSchema)]
pub struct LocatedPost {
    pub id: String,
    pub url: Option<String>,
    /// Its beginning.
    pub text: String,
    /// By the platform's clock.
    pub created: Option<DateTime<Utc>>,
    /// It is what was sent, as far as can be told; null where the platform shows nothing to compare.
    pub is_same_text: Option<bool>,
}

/// The text that was sent, and the posts since that nobody accounts for: one of them may be it.
#[derive(Serialize, ToSchema)]
pub struct Candidates {
    #[serde(flatten)]
    pub delivery: super::Delivery,
    pub sent: String,
    /// The newest first.
    pub posts: Vec<LocatedPost>,
    /// The timeline was read back to the send; otherwise there may be more.
    pub is_whole: bool,
}

#[derive(Serialize, ToSchema)]
pub struct Pruned {
    pub plan: String,
    pub accepted: bool,
    pub announcements: usize,
}

/// A hold, and what it found of routine.
#[derive(Serialize, ToSchema)]
pub struct Holding {
    pub id: String,
    pub reason: String,
    pub until: Option<DateTime<Utc>>,
    /// Null: every account.
    pub accounts: Option<BTreeSet<AccountId>>,
    pub owner: String,
    pub held: u64,
    pub in_flight: u64,
    pub out: Vec<Out>,
}

/// What was sent in the last minutes before a hold.
#[derive(Serialize, ToSchema)]
pub struct Out {
    pub account: String,
    pub url: Option<String>,
}

/// The end of a hold.
#[derive(Serialize, ToSchema)]
pub struct HoldOver {
    pub id: String,
    pub released: usize,
    pub waiting: usize,
}

/// What was let go, and what another hold keeps.
#[derive(Serialize, ToSchema)]
pub struct Unheld {
    pub id: Option<String>,
    pub released: usize,
    pub held: usize,
}

/// An emergency that is on disk.
#[derive(Serialize, ToSchema)]
pub struct Taken {
    pub id: AnnouncementId,
    pub state: Fate,
    pub deliveries: usize,
    /// Of those, how many wait to know whether they are needed.
    pub waiting: usize,
    /// Deliveries of earlier posts that were stopped with it before they went out.
    pub stopped: usize,
    /// Accounts that carry what it is about and are told nothing: they rest, or the configuration leads to them no more.
    pub out_of_reach: usize,
    pub level: Level,
    pub content_hash: ContentHash,
    pub persons: Persons,
    /// Until when the missing word may come.
    pub confirm_by: Option<DateTime<Utc>>,
    pub hold: Option<HoldBegun>,
    /// Codes of an alert's areas that no unit and no `cap.areas` has.
    pub unknown_areas: Vec<String>,
}

#[derive(Serialize, ToSchema)]
pub struct HoldBegun {
    pub id: String,
    pub until: Option<DateTime<Utc>>,
}

/// An alert that was taken before, from another person, or says what another one has said.
#[derive(Serialize, ToSchema)]
pub struct TakenBefore {
    pub id: String,
    pub state: Before,
    pub deliveries: usize,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Before {
    TakenBefore,
    /// It moves an end, and says what is said already.
    Unchanged,
}

/// What an urgent post would be, with nothing written and nothing held.
#[derive(Serialize, ToSchema)]
pub struct Preview {
    pub dry_run: bool,
    pub drill: bool,
    pub id: AnnouncementId,
    pub level: Level,
    pub text: String,
    pub accounts: usize,
    pub platforms: BTreeMap<String, Shown>,
    pub pictures: usize,
    pub content_hash: ContentHash,
    pub hold: Option<Holding>,
    pub supersedes: Option<AnnouncementId>,
    /// How the emergency had ended that would go on with this.
    pub reopens: Option<End>,
    pub persons: usize,
    pub closing: Option<Closing>,
    /// Codes of an alert's areas that no unit and no `cap.areas` has.
    pub unknown_areas: Vec<String>,
}

/// How it reads on one platform.
#[derive(Serialize, ToSchema)]
pub struct Shown {
    pub accounts: usize,
    pub text: String,
}

/// What a CAP Cancel would end.
#[derive(Serialize, ToSchema)]
pub struct CancelPreview {
    pub dry_run: bool,
    pub all_clear: String,
    /// As a look at that all-clear.
    #[schema(value_type = ClosingPreview)]
    pub would: serde_json::Value,
}

#[derive(Serialize, ToSchema)]
pub struct Confirmed {
    pub id: String,
    pub state: Fate,
    pub deliveries: usize,
    pub persons: Persons,
}

/// What a correction or an all-clear would be, with nothing written.
#[derive(Serialize, ToSchema)]
pub struct ClosingPreview {
    pub dry_run: bool,
    pub drill: bool,
    /// Null where it stands nowhere: then there is nobody to tell.
    pub post: Option<Preview>,
    /// Deliveries that are not out and would be stopped.
    pub stops: usize,
    /// Accounts of which nobody knows yet whether they carry it.
    pub waiting: usize,
    /// Accounts that carry it and would be told nothing: they rest, or the configuration leads to them no more.
    pub out_of_reach: usize,
    /// The hold that would end.
    pub ends_hold: Option<String>,
}

/// The end of an emergency.
#[derive(Serialize, ToSchema)]
pub struct Cleared {
    #[serde(flatten)]
    pub said: LastWord,
    pub hold_ended: Option<HoldOver>,
}

/// No post, where there is nobody to tell.
#[derive(Serialize, ToSchema)]
pub struct NoPost {
    #[schema(schema_with = null)]
    pub id: (),
    pub deliveries: usize,
    pub out_of_reach: usize,
}

fn null() -> utoipa::openapi::Object {
    utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::Type::Null).build()
}

/// The closing post; none where nothing of the emergency stands.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum LastWord {
    Taken(Taken),
    Nothing(NoPost),
}
