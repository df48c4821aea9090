//! Orders that are carried out on the rows as they are at the commit, not as somebody has read them before.
//!
//! While a release is under way its rows change every millisecond, so an order that named the rows it had read
//! would never get through. These name posts and say what is to become of them; the ledger applies them, with
//! these functions, in the transaction that contains them.

use std::collections::BTreeMap;

use super::super::Time;
use super::super::accounts::AccountId;
use super::super::announcement::{AnnouncementId, OccurrenceId, Part};
use super::super::words::Words;
use super::{Cause, Delivery, DeliveryId, Desired, Event, Policy, State, Step, step};

/// Stop publishing posts, or remove them.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    pub posts: Vec<AnnouncementId>,
    /// `None` means every occurrence, and every account.
    pub occurrence: Option<OccurrenceId>,
    pub account: Option<AccountId>,
    pub reach: Reach,
    pub desired: Desired,
    pub cause: Cause,
    pub why: Words,
}

/// Which of the named posts' deliveries an order is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    All,
    /// Not those that are published.
    NotPublished,
    /// Of each post's published ones only the newest: the older days of a repeat stay, also when the newest is gone already.
    Newest,
    /// Only occurrences of which nothing has been sent, or tried.
    Unreleased,
}

/// The newest delivery of each kind, by its instant.
pub fn newest<'a, K: Ord>(
    rows: impl IntoIterator<Item = &'a Delivery>,
    kind: impl Fn(&'a Delivery) -> K,
) -> BTreeMap<K, (Time, DeliveryId)> {
    let mut found = BTreeMap::new();
    for row in rows {
        let newest = found.entry(kind(row)).or_insert((row.at, row.id));
        *newest = (*newest).max((row.at, row.id));
    }
    found
}

/// The steps that an order makes of the deliveries of its posts. Those that it cannot change stay as they are.
pub fn stopped(rows: &[Delivery], order: &Stop, now: Time) -> Vec<Step> {
    let was_out = rows.iter().filter(|d| matches!(d.state, State::Published | State::Deleted));
    let newest = newest(was_out, |d| &d.announcement);
    let mut released: BTreeMap<&OccurrenceId, bool> = BTreeMap::new();
    for row in rows {
        *released.entry(&row.occurrence).or_default() |= row.has_begun();
    }
    let reaches = |row: &&Delivery| match order.reach {
        Reach::All => true,
        Reach::NotPublished => row.state != State::Published,
        Reach::Newest => row.state != State::Published || newest.get(&row.announcement) == Some(&(row.at, row.id)),
        Reach::Unreleased => !released[&row.occurrence] && row.is_pending(),
    };
    let named = |row: &&Delivery| {
        order.occurrence.as_ref().is_none_or(|id| *id == row.occurrence)
            && order.account.as_ref().is_none_or(|id| *id == row.account)
    };
    rows.iter()
        .filter(named)
        .filter(reaches)
        .filter_map(|row| {
            let (desired, cause, why) = (order.desired, order.cause, order.why.clone());
            let step = step(row, Event::Withdrawn { desired, cause, why }, now, &Policy::default()).ok()?;
            let is_news = |d: &Delivery| (d.state, d.desired, d.cause, d.next_at);
            (is_news(&step.row) != is_news(row)).then_some(step)
        })
        .collect()
}

/// Decides on a delivery that says something about earlier posts on its account, by where those are: it goes, it
/// waits until that is known, or nobody there has seen what it is about. A correction goes as soon as any of what is wrong
/// stands; an all-clear is the last word, and goes when none of them can still appear after it.
pub fn later_word<'a>(posts: impl IntoIterator<Item = &'a Delivery>, part: Part) -> Where {
    let is_last = part == Part::AllClear;
    let (mut is_there, mut may_appear) = (false, false);
    for post in posts {
        match post.state {
            State::Accepted if is_last => may_appear = true,
            State::Published | State::Accepted => is_there = true,
            State::Sending | State::Unknown => may_appear = true,
            _ => {}
        }
    }
    match (is_there, may_appear) {
        (_, true) if is_last || !is_there => Where::Unknown,
        (true, _) => Where::There,
        _ => Where::Nowhere,
    }
}

/// Whether it is on its way, or may be out: what is older is not to come after it.
pub fn is_coming(row: &Delivery) -> bool {
    let is_on_its_way = matches!(row.state, State::Scheduled | State::Ready | State::Retrying);
    is_on_its_way && row.desired == Desired::Published || matches!(row.state, State::Sending | State::Unknown)
}

/// The whereabouts, on one account, of the posts that a later one is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    There,
    Unknown,
    Nowhere,
}

/// The reason of a later word that waits to know where the post is that it is about.
pub fn undecided() -> Words {
    Words::new("所指的那条是否已发，尚不清楚", "it is not known yet whether the post it is about is out")
}

impl Delivery {
    /// Whether it has been sent, or may have been, or is being tried: its release has begun. (The ledger's query of what
    /// is known says the same.)
    pub fn has_begun(&self) -> bool {
        match self.state {
            State::Sending | State::Accepted | State::Published | State::Retrying | State::Deleted => true,
            State::Unknown => self.attempt > 0 || self.doubted.is_none(),
            State::Failed => self.attempt > 0,
            State::Scheduled | State::Ready | State::Held | State::Cancelled | State::Expired => false,
        }
    }

    /// Nothing of it has reached a platform, as far as this ledger knows, and it can still be changed or withdrawn.
    pub fn is_pending(&self) -> bool {
        self.state.is_pending() || self.state == State::Unknown && !self.has_begun()
    }
}
