//! The ledger's side of a plan: announcements that the queue names or that still have something to be sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::read::list;
use super::rows::{self, micros};
use crate::clock::{Time, from_micros};
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, OccurrenceId};
use crate::core::delivery::State;
use crate::core::plan::{Known, KnownAnnouncement, KnownOccurrence};

type Sql<T> = rusqlite::Result<T>;

pub fn known(db: &Connection, ids: &[AnnouncementId], since: Time) -> Sql<Known> {
    let mut known = Known::default();
    let columns = rows::ANNOUNCEMENT;
    let one = format!("SELECT {columns} FROM announcements WHERE id = $1");
    let mut wanted: BTreeSet<Arc<str>> = ids.iter().map(|id| id.0.clone()).collect();
    wanted.extend(list(
        db,
        "SELECT DISTINCT o.announcement FROM occurrences o WHERE o.id IN
         (SELECT DISTINCT occurrence FROM deliveries WHERE state IN ('scheduled', 'ready', 'held'))",
        [],
        |r| r.get(0),
    )?);
    let doubted = "SELECT DISTINCT announcement FROM deliveries WHERE state = 'unknown' AND doubted IS NOT NULL";
    wanted.extend(list(db, doubted, [], |r| r.get::<_, Arc<str>>(0))?);
    for id in wanted {
        let Some(row) = db.prepare_cached(&one)?.query_row([&id], rows::announcement).optional()? else { continue };
        // A repeat has one occurrence a day for years; only those that can still matter are compared.
        let from = if row.planned_to.is_some() { micros(since) } else { i64::MIN };
        let mut occurrences: BTreeMap<OccurrenceId, KnownOccurrence> = BTreeMap::new();
        type Counted = (Arc<str>, i64, bool, Option<String>, i64, Option<i64>);
        let rows: Vec<Counted> = list(
            db,
            "SELECT o.id, o.release, o.stopped IS NOT NULL, d.state, count(d.id), sum(d.at > o.release) FROM occurrences o
             LEFT JOIN deliveries d ON d.occurrence = o.id
             WHERE o.announcement = $1 AND o.release >= $2 GROUP BY o.id, d.state",
            params![id, from],
            |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?)),
        )?;
        for (occurrence, release, is_stopped, state, count, moved) in rows {
            let state = state.as_deref().and_then(State::parse);
            // Of these the state alone does not say whether they were sent, or tried.
            let untried = match state {
                Some(State::Failed | State::Unknown) => untried(db, &occurrence, state)?,
                _ => 0,
            };
            let known = occurrences.entry(OccurrenceId(occurrence)).or_insert(KnownOccurrence {
                release: from_micros(release),
                is_stopped,
                pending: 0,
                persons: 0,
                ended: 0,
                out: 0,
            });
            let (count, untried) = (count as u32, untried as u32);
            known.persons += match state {
                Some(State::Held) => count,
                Some(State::Scheduled | State::Ready) => moved.unwrap_or(0) as u32,
                _ => 0,
            };
            match state {
                Some(state) if state.is_pending() => known.pending += count,
                Some(State::Cancelled | State::Expired) => known.ended += count,
                Some(State::Unknown) => known.pending += untried,
                Some(State::Failed) => known.ended += untried,
                Some(_) | None => {}
            }
            let is_begun = state.is_some_and(|s| !s.is_pending() && !matches!(s, State::Cancelled | State::Expired));
            known.out += if is_begun { count - untried } else { 0 };
        }
        let accounts = list(db, "SELECT account FROM superseded WHERE announcement = $1", [&id], |r| r.get(0))?;
        let superseded = accounts.into_iter().map(AccountId).collect();
        known.announcements.insert(AnnouncementId(id), KnownAnnouncement { row, occurrences, superseded });
    }
    Ok(known)
}

/// How many of an occurrence's failed or unknown deliveries no request of this ledger's was made for
/// (`Delivery::has_begun` says the same of one).
fn untried(db: &Connection, occurrence: &str, state: Option<State>) -> Sql<i64> {
    let sql = match state {
        Some(State::Failed) => {
            "SELECT count(*) FROM deliveries WHERE occurrence = $1 AND state = 'failed' AND attempt = 0"
        }
        _ => {
            "SELECT count(*) FROM deliveries WHERE occurrence = $1 AND state = 'unknown' AND attempt = 0
             AND doubted IS NOT NULL"
        }
    };
    db.prepare_cached(sql)?.query_row([occurrence], |r| r.get(0))
}
