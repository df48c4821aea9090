//! Which emergency belongs to which: what is there by a name, its first post with all its later words, and its hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::tried::invalid;
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, Content, Part, Priority};
use crate::core::change::AnnouncementRow;
use crate::core::delivery::{Cause, Delivery, Desired, State};
use crate::core::gate::Hold;
use crate::core::words::{shown, words};
use crate::daemon::Inner;
use crate::daemon::acts::{ActError, no_announcement};
use crate::ledger::{Filter, LedgerError};

/// What follows from one emergency is named after it, so many times at most.
const MOST_DERIVED: u32 = 100;

/// An emergency: its first post and all its later words, oldest first.
pub struct Family {
    pub root: AnnouncementId,
    pub rows: Vec<AnnouncementRow>,
}

impl Family {
    /// The posts that warn: the first one and its updates, oldest first.
    pub fn warnings(&self) -> impl DoubleEndedIterator<Item = &AnnouncementRow> {
        self.rows.iter().filter(|row| matches!(row.follows, None | Some((_, Part::Update))))
    }

    /// The later words of one kind.
    pub fn later(&self, part: Part) -> impl Iterator<Item = &AnnouncementRow> {
        self.rows.iter().filter(move |row| row.follows.as_ref().is_some_and(|(_, p)| *p == part))
    }

    pub fn hold(&self) -> String {
        hold_name(&self.root)
    }
}

/// Where posts stand or may stand, and what of them is not out.
#[derive(Default)]
pub struct Whereabouts {
    /// The posts that stand somewhere, or may.
    pub posts: BTreeSet<AnnouncementId>,
    /// Accounts that carry some of them, and which.
    pub carry: PostsOn,
    /// Accounts on which some of them may be.
    pub uncertain: PostsOn,
    /// Accounts to which some of them are about to go: any of these may have it before the next thing is written.
    pub coming: PostsOn,
    pub rows: Vec<Delivery>,
}

pub type PostsOn = BTreeMap<AccountId, BTreeSet<AnnouncementId>>;

impl Whereabouts {
    pub fn of(rows: Vec<Delivery>) -> Whereabouts {
        let mut found = Whereabouts::default();
        let stands = |d: &&Delivery| d.desired != Desired::Removed || d.stands_wrongly();
        for row in rows.iter().filter(stands) {
            let there = match row.state {
                State::Published | State::Accepted => &mut found.carry,
                State::Sending | State::Unknown => &mut found.uncertain,
                // A later word that waits to know whether what it is about is there: so it may be there.
                State::Held if row.cause == Some(Cause::Undecided) => &mut found.uncertain,
                State::Scheduled | State::Ready | State::Retrying => &mut found.coming,
                _ => continue,
            };
            found.posts.insert(row.announcement.clone());
            there.entry(row.account.clone()).or_default().insert(row.announcement.clone());
        }
        found.rows = rows;
        found
    }

    pub fn is_empty(&self) -> bool {
        self.carry.is_empty() && self.uncertain.is_empty() && self.coming.is_empty()
    }

    pub fn accounts(&self) -> BTreeSet<AccountId> {
        self.carry.keys().chain(self.uncertain.keys()).chain(self.coming.keys()).cloned().collect()
    }

    /// The posts that stand on each account, or may.
    pub fn on_each(&self) -> PostsOn {
        let mut found = PostsOn::new();
        for (account, posts) in self.carry.iter().chain(&self.uncertain).chain(&self.coming) {
            found.entry(account.clone()).or_default().extend(posts.iter().cloned());
        }
        found
    }

    /// Accounts that carry some of them, or may: those that are told of it.
    pub fn told(&self) -> BTreeSet<&AccountId> {
        self.carry.keys().chain(self.uncertain.keys()).collect()
    }

    /// The posts that people have read on each account, also those that are gone from there; with `or_may_have`, those too
    /// of which it is not known yet, unless they are to stand no more.
    pub fn read(&self, or_may_have: bool) -> PostsOn {
        let mut found = PostsOn::new();
        let was_there = |d: &&Delivery| match d.state {
            State::Published | State::Accepted | State::Deleted => true,
            State::Sending | State::Unknown => or_may_have && d.desired == Desired::Published,
            _ => false,
        };
        for row in self.rows.iter().filter(was_there) {
            found.entry(row.account.clone()).or_default().insert(row.announcement.clone());
        }
        found
    }

    /// Leaves out accounts that were told of each post they carry or may carry.
    pub fn without(&mut self, told: &PostsOn) {
        let on_each = self.on_each();
        let untold = |account: &AccountId| told.get(account).is_none_or(|told| !on_each[account].is_subset(told));
        for part in [&mut self.carry, &mut self.uncertain, &mut self.coming] {
            part.retain(|account, _| untold(account));
        }
    }

    /// On how many accounts a later word waits until it is known whether a post is there.
    pub fn waiting(&self, part: Part) -> usize {
        if part != Part::AllClear {
            return self.uncertain.keys().filter(|a| !self.carry.contains_key(*a)).count();
        }
        let accepted = self.rows.iter().filter(|d| d.state == State::Accepted && d.desired != Desired::Removed);
        let accepted: BTreeSet<&AccountId> = accepted.map(|d| &d.account).collect();
        let told = self.carry.keys().filter(|a| accepted.contains(a));
        self.uncertain.keys().chain(told).collect::<BTreeSet<_>>().len()
    }
}

impl Inner {
    pub(crate) async fn announced(&self, id: &str) -> Result<Option<AnnouncementRow>, LedgerError> {
        let filter = Filter { announcement: Some(id.to_owned()), max: 1, ..Filter::default() };
        Ok(self.ledger.announcements(filter).await?.pop().map(|a| a.row))
    }

    pub(super) async fn existing(&self, id: &str, field: &'static str) -> Result<AnnouncementId, ActError> {
        let found = self.announced(id).await?;
        Ok(found.ok_or_else(|| invalid(field, no_announcement(id)))?.id)
    }

    /// An emergency that was sent, or waits, and its content.
    pub(crate) async fn emergency_row(&self, id: &str) -> Result<(AnnouncementRow, Arc<Content>), ActError> {
        let row = self.announced(id).await?.ok_or_else(|| ActError::NotFound(no_announcement(id)))?;
        if row.priority != Priority::Emergency {
            let safe = shown(id);
            return Err(ActError::Conflict(words!("`{safe}` 不是紧急发布", "`{safe}` is no emergency")));
        }
        let content = self.content(&row.content).await?;
        Ok((row, content))
    }

    /// The emergency that a post is of.
    pub(crate) async fn family(&self, row: &AnnouncementRow) -> Result<Family, LedgerError> {
        let root = root_of(row).clone();
        let rows = self.ledger.family(root.clone()).await?;
        Ok(Family { root, rows })
    }

    /// Every delivery of these posts.
    pub(super) async fn rows_of(
        &self,
        posts: impl Iterator<Item = &AnnouncementId>,
    ) -> Result<Vec<Delivery>, LedgerError> {
        let mut rows = Vec::new();
        for post in posts {
            rows.extend(self.deliveries_named(post.as_str()).await?);
        }
        Ok(rows)
    }

    /// The whereabouts of these posts.
    pub(super) async fn whereabouts(
        &self,
        posts: impl Iterator<Item = &AnnouncementRow>,
    ) -> Result<Whereabouts, LedgerError> {
        let rows = self.rows_of(posts.map(|post| &post.id)).await?;
        Ok(Whereabouts::of(rows))
    }

    /// Accounts that the later words of one kind spoke to, or will, and the posts they told them of.
    pub(super) async fn spoken(&self, family: &Family, part: Part) -> Result<PostsOn, LedgerError> {
        let mut spoken = PostsOn::new();
        for row in family.later(part) {
            // What waits for a second person's word is not said, and what was taken down is not said any more.
            let lives = |d: &Delivery| {
                let is_gone = matches!(d.state, State::Cancelled | State::Expired | State::Failed | State::Deleted);
                let awaits = d.state == State::Held && d.cause == Some(Cause::Confirmation);
                !is_gone && !awaits && d.desired != Desired::Removed
            };
            let content = self.content(&row.content).await?;
            let Some(about) = content.body.follows.as_ref() else { continue };
            for delivery in self.deliveries_named(row.id.as_str()).await?.into_iter().filter(lives) {
                spoken.entry(delivery.account).or_default().extend(about.posts.iter().cloned());
            }
        }
        Ok(spoken)
    }

    /// Accounts that need no such last words any more, and the posts they were told of: an account is told once, and after
    /// a correction there is nothing to clear.
    pub(super) async fn told_already(&self, family: &Family, part: Part) -> Result<PostsOn, LedgerError> {
        let mut told = self.spoken(family, Part::Correction).await?;
        if part == Part::AllClear {
            for (account, posts) in self.spoken(family, Part::AllClear).await? {
                told.entry(account).or_default().extend(posts);
            }
        }
        Ok(told)
    }

    /// What follows from an emergency is named after it.
    pub(super) async fn derived(&self, id: &AnnouncementId, what: &str) -> Result<String, ActError> {
        for n in 1..MOST_DERIVED {
            let name = if n == 1 { format!("{id}-{what}") } else { format!("{id}-{what}-{n}") };
            if self.announced(&name).await?.is_none() {
                return Ok(name);
            }
        }
        // Whoever took all of these keeps nobody from being corrected.
        Ok(format!("{id}-{what}-{}", self.clock.now().timestamp_micros()))
    }

    /// The hold of an emergency that stands now.
    pub(super) fn standing_hold(&self, name: &str) -> Option<Hold> {
        self.holds().into_iter().find(|hold| hold.id == name)
    }

    /// The hold of a post of which nothing went out, and nothing will: it is silent for nobody.
    pub(crate) async fn hold_of_nothing(&self, row: &AnnouncementRow) -> Result<Option<Hold>, LedgerError> {
        let rows = self.deliveries_named(row.id.as_str()).await?;
        match rows.iter().all(|d| matches!(d.state, State::Cancelled | State::Failed | State::Expired)) {
            true => self.hold_ending_with(row).await,
            false => Ok(None),
        }
    }

    /// The same, where this is the last of its deliveries to end. What failed is tried again when a person says so, and
    /// keeps its silence.
    pub(crate) async fn hold_of_the_last(&self, last: &Delivery) -> Result<Option<Hold>, LedgerError> {
        if self.holds().iter().all(|hold| hold.post.is_none()) {
            return Ok(None);
        }
        let is_over = |state: &State| matches!(state, State::Cancelled | State::Expired);
        let states = State::ALL.iter().filter(|state| !is_over(state)).copied().collect();
        let announcement = Some(last.announcement.to_string());
        let open = self.ledger.deliveries(Filter { announcement, states, max: 2, ..Filter::default() }).await?;
        if open.iter().any(|d| d.id != last.id) {
            return Ok(None);
        }
        match self.announced(last.announcement.as_str()).await? {
            Some(row) => self.hold_ending_with(&row).await,
            None => Ok(None),
        }
    }

    /// The hold that ends with this post when nothing of it goes out: that of its emergency, unless another warning for
    /// which it stands too, the one that brought it or a later one, stands somewhere, is on its way or waits for a word. One
    /// that was there before stays.
    pub(crate) async fn hold_ending_with(&self, row: &AnnouncementRow) -> Result<Option<Hold>, LedgerError> {
        let family = self.family(row).await?;
        let is_its = |hold: &Hold| hold.post.as_ref().is_some_and(|post| family.warnings().any(|w| w.id == *post));
        let Some(hold) = self.holds().into_iter().find(is_its) else { return Ok(None) };
        let is_for = |other: &&AnnouncementRow| hold.post.as_ref() == Some(&other.id) || other.first_seen >= hold.begun;
        let others = family.warnings().filter(|other| other.id != row.id && other.ended.is_none()).filter(is_for);
        let others = self.whereabouts(others).await?;
        let is_over = others.is_empty() && !others.rows.iter().any(super::word::awaits_word);
        Ok(is_over.then_some(hold))
    }
}

/// The first post of the emergency that this one is of.
pub(crate) fn root_of(row: &AnnouncementRow) -> &AnnouncementId {
    row.follows.as_ref().map_or(&row.id, |(root, _)| root)
}

/// Why routine is silent, for a person to read: the post that asked for it, and how it begins.
pub(super) fn reason_of(id: &AnnouncementId, said: &str) -> String {
    format!("{id}: {said}")
}

/// The name of the hold of an emergency and of all its updates.
pub(super) fn hold_name(root: &AnnouncementId) -> String {
    format!("hold-{root}")
}
