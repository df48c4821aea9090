//! The ledger's side of a plan: announcements that the queue names or that still have something to be sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::read::{PENDING, list};
use super::rows::{self, micros};
use crate::clock::{Time, from_micros};
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, OccurrenceId};
use crate::core::delivery::State;
use crate::core::plan::{Known, KnownAnnouncement, KnownOccurrence};

type Sql<T> = rusqlite::Result<T>;
/// An occurrence, its release, and whether a person has stopped it.
type Named = (Arc<str>, i64, bool);

pub fn known(db: &Connection, ids: &[AnnouncementId], since: Time) -> Sql<Known> {
    let mut known = Known::default();
    let columns = rows::ANNOUNCEMENT;
    let one = format!("SELECT {columns} FROM announcements WHERE id = $1");
    let mut wanted: BTreeSet<Arc<str>> = ids.iter().map(|id| id.0.clone()).collect();
    let pending = format!("SELECT announcement FROM occurrences WHERE id IN ({PENDING})");
    wanted.extend(list(db, &pending, [], |r| r.get::<_, Arc<str>>(0))?);
    let doubted = "SELECT DISTINCT announcement FROM deliveries INDEXED BY deliveries_unsettled
                   WHERE state = 'unknown' AND doubted IS NOT NULL";
    wanted.extend(list(db, doubted, [], |r| r.get::<_, Arc<str>>(0))?);
    // Of a repeat that has been held back for days, the hours that still wait are compared however old they are.
    let mut waiting: BTreeMap<Arc<str>, Vec<Named>> = BTreeMap::new();
    let older = format!(
        "SELECT announcement, id, release, stopped IS NOT NULL FROM occurrences
         WHERE release < $1 AND id <> announcement AND id IN ({PENDING})"
    );
    let older: Vec<(Arc<str>, Named)> =
        list(db, &older, [micros(since)], |r| Ok((r.get(0)?, (r.get(1)?, r.get(2)?, r.get(3)?))))?;
    for (announcement, named) in older {
        waiting.entry(announcement).or_default().push(named);
    }
    for id in wanted {
        let Some(row) = db.prepare_cached(&one)?.query_row([&id], rows::announcement).optional()? else { continue };
        // A repeat has one occurrence a day for years; only those that can still matter are compared.
        let mut occurrences: BTreeMap<OccurrenceId, KnownOccurrence> = BTreeMap::new();
        let mut named: Vec<Named> = list(
            db,
            "SELECT id, release, stopped IS NOT NULL FROM occurrences
             WHERE announcement = $1 AND (release >= $2 OR id = $1)",
            params![id, micros(since)],
            |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
        )?;
        named.extend(waiting.remove(&id).into_iter().flatten());
        for (occurrence, release, is_stopped) in named {
            let known = counted(db, &occurrence, release, is_stopped)?;
            occurrences.insert(OccurrenceId(occurrence), known);
        }
        let accounts = list(db, "SELECT account FROM superseded WHERE announcement = $1", [&id], |r| r.get(0))?;
        let superseded = accounts.into_iter().map(AccountId).collect();
        let was_out = occurrences.values().any(|k| k.out > 0) || was_out_before(db, &id, since)?;
        known.announcements.insert(AnnouncementId(id), KnownAnnouncement { row, occurrences, superseded, was_out });
    }
    Ok(known)
}

/// Whether any of its older hours was out: of a repeat, or of what was one.
fn was_out_before(db: &Connection, announcement: &str, since: Time) -> Sql<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM occurrences o JOIN deliveries d ON d.occurrence = o.id
               WHERE o.announcement = $1 AND o.release < $2 AND o.id <> $1 AND d.state IN ('published', 'deleted'))";
    db.prepare_cached(sql)?.query_row(params![announcement, micros(since)], |r| r.get(0))
}

/// An occurrence, and how many of its deliveries stand where.
fn counted(db: &Connection, occurrence: &str, release: i64, is_stopped: bool) -> Sql<KnownOccurrence> {
    let release_at = from_micros(release);
    let mut known = KnownOccurrence { release: release_at, is_stopped, pending: 0, ended: 0, taken_out: 0, out: 0 };
    let rows: Vec<(String, u32)> = list(
        db,
        "SELECT state, count(*) FROM deliveries INDEXED BY deliveries_state WHERE occurrence = $1 GROUP BY state",
        [occurrence],
        |r| Ok((r.get(0)?, r.get(1)?)),
    )?;
    for (state, count) in rows {
        let state = State::parse(&state).ok_or_else(|| rows::odd(0, "an unknown state"))?;
        // Of these the state alone does not say whether they were sent, or tried.
        let untried = match state {
            State::Failed | State::Unknown => untried(db, occurrence, state)?,
            _ => 0,
        };
        match state {
            State::Cancelled => {
                known.ended += count;
                known.taken_out = taken_out(db, occurrence)?;
            }
            State::Expired => known.ended += count,
            State::Failed => known.ended += untried,
            State::Unknown => known.pending += untried,
            _ if state.is_pending() => known.pending += count,
            _ => {}
        }
        if !state.is_pending() && !matches!(state, State::Cancelled | State::Expired) {
            known.out += count - untried;
        }
    }
    Ok(known)
}

/// How many of an occurrence's deliveries were cancelled because the queue, or the tree of accounts, had them no longer.
fn taken_out(db: &Connection, occurrence: &str) -> Sql<u32> {
    let sql = "SELECT count(*) FROM deliveries WHERE occurrence = $1 AND state = 'cancelled'
               AND cause IN ('absent', 'unaddressed', 'closed')";
    db.prepare_cached(sql)?.query_row([occurrence], |r| r.get(0))
}

/// How many of an occurrence's failed or unknown deliveries no request of this ledger's was made for
/// (`Delivery::has_begun` says the same of one).
fn untried(db: &Connection, occurrence: &str, state: State) -> Sql<u32> {
    let sql = match state {
        State::Failed => "SELECT count(*) FROM deliveries WHERE occurrence = $1 AND state = 'failed' AND attempt = 0",
        _ => {
            "SELECT count(*) FROM deliveries WHERE occurrence = $1 AND state = 'unknown' AND attempt = 0
             AND doubted IS NOT NULL"
        }
    };
    db.prepare_cached(sql)?.query_row([occurrence], |r| r.get(0))
}
