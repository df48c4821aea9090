//! Orders: changes that are decided on the rows as they are at the commit.
//!
//! What follows from them is decided by the pure functions of `core::delivery`; here is only what they read. It runs
//! inside the writer's transaction, so nothing can come between the reading and the writing.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use rusqlite::{Connection, params};

use super::LedgerError;
use super::read;
use super::rows;
use super::write::wrong;
use crate::clock::Time;
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, Follows, Part, Priority};
use crate::core::change::{Change, newer_warnings};
use crate::core::delivery::{
    Cause, Delivery, Desired, Event, Policy, State, Step, Stop, Where, is_coming, later_word, step, stopped, undecided,
};
use crate::core::words::Words;

pub fn is_order(change: &Change) -> bool {
    matches!(change, Change::AddAbout(..) | Change::Stop(_) | Change::Decide(_))
}

/// The changes that an order makes now.
pub fn made_of(db: &Connection, order: &Change, now: Time) -> Result<Vec<Change>, LedgerError> {
    Ok(match order {
        Change::Stop(stop) => {
            let rows = named(db, stop)?;
            stopped(&rows, stop, now).into_iter().map(changed).collect()
        }
        Change::AddAbout(delivery, posts) => {
            let part = said_in(db, delivery)?.map_or(Part::Correction, |follows| follows.part);
            let there = later_word(&on_account(db, posts, &delivery.account)?, part);
            added(delivery, there).into_iter().map(|row| Change::Add(Box::new(row))).collect()
        }
        Change::Decide(account) => decided(db, account, now)?.into_iter().map(changed).collect(),
        other => vec![other.clone()],
    })
}

/// Accounts on which a stop has ended something of an emergency.
pub fn ended_by(order: &Change, made: &[Change]) -> BTreeSet<AccountId> {
    let ended = |change: &Change| match change {
        Change::Step(step) if step.row.priority == Priority::Emergency => Some(step.row.account.clone()),
        _ => None,
    };
    match order {
        Change::Stop(_) => made.iter().filter_map(ended).collect(),
        _ => BTreeSet::new(),
    }
}

fn changed(step: Step) -> Change {
    Change::Step(Box::new(step))
}

/// Every delivery of the posts that an order names, also of other occurrences: whether a release has begun is seen by
/// all of them.
fn named(db: &Connection, stop: &Stop) -> Result<Vec<Delivery>, LedgerError> {
    match &stop.account {
        Some(account) => on_account(db, &stop.posts, account),
        None => {
            let mut rows = Vec::new();
            for post in &stop.posts {
                let found = read::list(db, &read::deliveries_where("announcement = $1"), [&post.0], rows::delivery);
                rows.extend(found.map_err(wrong)?);
            }
            Ok(rows)
        }
    }
}

fn on_account(db: &Connection, posts: &[AnnouncementId], account: &AccountId) -> Result<Vec<Delivery>, LedgerError> {
    let sql = read::deliveries_where("announcement = $1 AND account = $2");
    let mut rows = Vec::new();
    for post in posts {
        rows.extend(read::list(db, &sql, params![post.0, account.0], rows::delivery).map_err(wrong)?);
    }
    Ok(rows)
}

/// What a delivery says something about.
fn said_in(db: &Connection, row: &Delivery) -> Result<Option<Follows>, LedgerError> {
    let content = read::content(db, row.content.as_str()).map_err(wrong)?;
    Ok(content.and_then(|content| content.body.follows))
}

/// A later word of an emergency to one account, as it is added: at once, or when it is known that it is needed.
fn added(delivery: &Delivery, there: Where) -> Option<Delivery> {
    match there {
        Where::There => Some(delivery.clone()),
        // While it waits for a person's word nothing is decided: that word decides, by what is known then.
        Where::Unknown if delivery.cause == Some(Cause::Confirmation) => Some(delivery.clone()),
        Where::Unknown => Some(Delivery {
            state: State::Held,
            cause: Some(Cause::Undecided),
            next_at: None,
            reason: Some(undecided()),
            ..delivery.clone()
        }),
        Where::Nowhere => None,
    }
}

/// The correction of a later post and the all-clear may wait for the same answer: the all-clear is the last word, and
/// goes so much later.
const AFTER_THE_CORRECTION: TimeDelta = TimeDelta::seconds(10);

/// Later words on this account that wait to know whether an earlier post is out: they go where that is, and are dropped where
/// nobody has seen it.
fn decided(db: &Connection, account: &AccountId, now: Time) -> Result<Vec<Step>, LedgerError> {
    let sql = read::deliveries_where("account = $1 AND cause = 'undecided'");
    let waiting = read::list(db, &sql, [&account.0], rows::delivery).map_err(wrong)?;
    let mut found = Vec::new();
    for row in waiting.into_iter().filter(|row| row.state == State::Held) {
        let Some(follows) = said_in(db, &row)? else { continue };
        let posts: Vec<AnnouncementId> = follows.posts.iter().cloned().collect();
        let newer = newer_warnings(&read::family(db, &follows.emergency).map_err(wrong)?, &follows);
        // It would stand above a newer warning that is there.
        let is_overtaken = on_account(db, &newer, account)?.iter().any(is_coming);
        let about = on_account(db, &posts, account)?;
        // What was read there and was taken down since as wrong is to be corrected all the same.
        let was_read = |post: &Delivery| post.state == State::Deleted && post.cause == Some(Cause::Corrected);
        let there = match later_word(&about, follows.part) {
            Where::Nowhere if follows.part == Part::Correction && about.iter().any(was_read) => Where::There,
            there => there,
        };
        let there = if is_overtaken && there == Where::There { Where::Unknown } else { there };
        found.push((row, follows, there));
    }
    let is_corrected = |emergency: &AnnouncementId| {
        let goes = |(_, of, there): &(_, Follows, Where)| {
            of.part == Part::Correction && of.emergency == *emergency && *there == Where::There
        };
        found.iter().any(goes)
    };
    let event_of = |row: &Delivery, follows: &Follows, there: Where| match there {
        Where::There if follows.part == Part::AllClear && is_corrected(&follows.emergency) => {
            Some(Event::GateOpen { at: now + AFTER_THE_CORRECTION, expires_at: row.expires_at })
        }
        Where::There => Some(Event::GateOpen { at: now, expires_at: row.expires_at }),
        Where::Nowhere => Some(Event::Withdrawn {
            desired: Desired::Stopped,
            cause: Cause::Unneeded,
            why: Words::new("所指的那条没有发出", "the post it is about never went out"),
        }),
        Where::Unknown => None,
    };
    let steps = found.iter().filter_map(|(row, follows, there)| {
        let event = event_of(row, follows, *there)?;
        step(row, event, now, &Policy::default()).ok()
    });
    Ok(steps.collect())
}
