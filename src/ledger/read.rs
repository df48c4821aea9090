//! What is read from the ledger: statements and the values they become.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params, params_from_iter};
use sha2::{Digest as _, Sha256};

use super::rows::{self, micros, time};
use super::{
    AccountRow, Announced, AttemptRow, Due, Filter, HOLDS_KEPT, KeptBack, OccurrenceSummary, RECEIPTS, Receipts,
    Snapshot,
};
use crate::clock::{Time, from_micros};
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, Content, ContentHash, OccurrenceId, Priority};
use crate::core::change::{AnnouncementRow, Recorded, Seq};
use crate::core::delivery::{Delivery, DeliveryId, State};
use crate::core::gate::{Gate, Hold, Person};

type Sql<T> = rusqlite::Result<T>;

const PRIORITIES: [Priority; 3] = [Priority::Emergency, Priority::Important, Priority::Routine];

pub fn list<T>(
    db: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    map: impl FnMut(&rusqlite::Row<'_>) -> Sql<T>,
) -> Sql<Vec<T>> {
    db.prepare_cached(sql)?.query_map(values, map)?.collect()
}

pub fn due(db: &Connection, before: Time, max: usize, full: &[String]) -> Sql<Vec<Due>> {
    // The index is in this order within a priority: nothing has to be sorted, however long the backlog.
    const ALL: &str =
        "SELECT id, next_at FROM deliveries WHERE priority = $1 AND next_at <= $2 ORDER BY next_at, id LIMIT $3";
    const SOME: &str = "SELECT id, next_at FROM deliveries WHERE priority = $1 AND next_at <= $2
        AND instr($3, ':' || substr(account, 1, instr(account, ':'))) = 0 ORDER BY next_at, id LIMIT $4";
    // No name has a colon in it.
    let full_text = format!(":{}:", full.join("::"));
    let mut due = Vec::new();
    for priority in PRIORITIES {
        let left = max.saturating_sub(due.len()) as i64;
        let (number, before) = (rows::priority_number(priority), micros(before));
        let one = |r: &Row<'_>| Ok(Due { id: DeliveryId(r.get(0)?), next_at: from_micros(r.get(1)?), priority });
        due.extend(if full.is_empty() || priority == Priority::Emergency {
            list(db, ALL, params![number, before, left], one)?
        } else {
            list(db, SOME, params![number, before, full_text, left], one)?
        });
    }
    Ok(due)
}

pub fn next_due(db: &Connection, after: Time) -> Sql<Option<Time>> {
    let mut statement =
        db.prepare_cached("SELECT min(next_at) FROM deliveries WHERE priority = $1 AND next_at > $2")?;
    let mut next = None;
    for priority in PRIORITIES {
        let found = statement.query_row([rows::priority_number(priority), micros(after)], |r| time(r, 0))?;
        next = [next, found].into_iter().flatten().min();
    }
    Ok(next)
}

/// The statement for whole deliveries, oldest first.
pub fn deliveries_where(condition: &str) -> String {
    deliveries_from("deliveries", condition)
}

/// The same by a named index: a statement that could not use it is refused, instead of reading a year of rows.
fn deliveries_by(index: &str, condition: &str) -> String {
    deliveries_from(&format!("deliveries INDEXED BY {index}"), condition)
}

fn deliveries_from(table: &str, condition: &str) -> String {
    let columns = &*rows::DELIVERY;
    format!("SELECT id, {columns} FROM {table} WHERE {condition} ORDER BY id")
}

pub fn load(db: &Connection, ids: &[DeliveryId]) -> Sql<Vec<Delivery>> {
    let columns = &*rows::DELIVERY;
    let mut statement = db.prepare_cached(&format!("SELECT id, {columns} FROM deliveries WHERE id = $1"))?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        found.extend(statement.query_row([id.0], rows::delivery).optional()?);
    }
    Ok(found)
}

pub fn of_occurrence(db: &Connection, id: &OccurrenceId) -> Sql<Vec<Delivery>> {
    list(db, &deliveries_where("occurrence = $1"), [&id.0], rows::delivery)
}

pub fn in_state(db: &Connection, state: State, before: Time) -> Sql<Vec<Delivery>> {
    let sql = deliveries_by("deliveries_unsettled", &format!("state = '{}' AND at <= $1", state.as_str()));
    list(db, &sql, [micros(before)], rows::delivery)
}

pub fn standing(db: &Connection) -> Sql<Vec<Delivery>> {
    let sql = deliveries_by("deliveries_taken_down", "state = 'published' AND next_at IS NOT NULL");
    list(db, &sql, [], rows::delivery)
}

/// Found by the index of what comes up: of routine there may be a hundred thousand rows beside them.
pub fn emergencies_waiting(db: &Connection) -> Sql<Vec<Delivery>> {
    let states = "state IN ('scheduled', 'ready', 'held', 'retrying')";
    let sql = deliveries_by("deliveries_due", &format!("priority = $1 AND next_at IS NOT NULL AND {states}"));
    list(db, &sql, [rows::priority_number(Priority::Emergency)], rows::delivery)
}

/// Deliveries that wait for a length of time: to be tried again, looked for, taken down; and those to be sent, or on
/// their way, whose instant had come by `came`.
pub fn waiting(db: &Connection, came: Time) -> Sql<Vec<Delivery>> {
    let mut found = standing(db)?;
    for state in [State::Retrying, State::Unknown, State::Accepted] {
        found.extend(in_state(db, state, Time::MAX_UTC)?.into_iter().filter(|d| d.next_at.is_some()));
    }
    found.extend(pending(db, came)?);
    found.extend(in_state(db, State::Sending, came)?);
    Ok(found)
}

/// Occurrences that have something pending, each found by a step over the one before it: of such deliveries there may be
/// a hundred thousand.
pub const PENDING: &str = "WITH RECURSIVE pending (id) AS (
    SELECT min(occurrence) FROM deliveries INDEXED BY deliveries_pending WHERE state IN ('scheduled', 'ready', 'held')
    UNION ALL SELECT (SELECT min(occurrence) FROM deliveries INDEXED BY deliveries_pending
        WHERE state IN ('scheduled', 'ready', 'held') AND occurrence > pending.id) FROM pending WHERE id IS NOT NULL
    ) SELECT id FROM pending WHERE id IS NOT NULL";

fn pending(db: &Connection, came: Time) -> Sql<Vec<Delivery>> {
    let condition = format!(
        "occurrence IN (SELECT o.id FROM occurrences o WHERE o.release <= $1 AND o.id IN ({PENDING}))
         AND state IN ('scheduled', 'ready', 'held') AND at <= $1"
    );
    list(db, &deliveries_by("deliveries_state", &condition), [micros(came)], rows::delivery)
}

/// Deliveries that are to be sent and whose instant is over.
pub fn overdue(db: &Connection, now: Time) -> Sql<Vec<Delivery>> {
    let mut found = pending(db, now)?;
    found.extend(in_state(db, State::Retrying, now)?);
    Ok(found)
}

pub fn is_overtaken(db: &Connection, row: &Delivery, now: Time) -> Sql<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM deliveries INDEXED BY deliveries_announcement
        WHERE announcement = $1 AND account = $2 AND at > $3 AND at <= $4 AND desired = 0
        AND state IN ('scheduled', 'ready', 'sending', 'retrying', 'unknown', 'accepted', 'published'))
        AND EXISTS (SELECT 1 FROM occurrences WHERE id = $5 AND release >= $3)";
    let values = params![row.announcement.0, row.account.0, micros(row.at), micros(now), row.occurrence.0];
    db.prepare_cached(sql)?.query_row(values, |r| r.get(0))
}

/// A body is what its name says, or it is none: nobody has signed off what a disk has made of it.
pub fn content(db: &Connection, hash: &str) -> Sql<Option<Content>> {
    let mut statement = db.prepare_cached("SELECT body FROM contents WHERE hash = $1")?;
    let body: Option<String> = statement.query_row([hash], |r| r.get(0)).optional()?;
    let Some(body) = body else { return Ok(None) };
    if hex::encode(Sha256::digest(&body)) != hash {
        return Err(rows::odd(0, "a content does not have its hash"));
    }
    serde_json::from_str(&body).map(Some).map_err(|_| rows::odd(0, "a content cannot be read"))
}

pub fn names(db: &Connection, since: Time) -> Sql<BTreeSet<AnnouncementId>> {
    let names = list(db, "SELECT id FROM announcements WHERE first_seen >= $1", [micros(since)], |r| r.get(0))?;
    Ok(names.into_iter().map(AnnouncementId).collect())
}

pub fn of_socket(db: &Connection) -> Sql<BTreeSet<AnnouncementId>> {
    let names = list(db, "SELECT id FROM announcements WHERE file = ''", [], |r| r.get(0))?;
    Ok(names.into_iter().map(AnnouncementId).collect())
}

pub fn emergencies(db: &Connection) -> Sql<BTreeSet<AnnouncementId>> {
    let priority = rows::priority_number(Priority::Emergency);
    let names = list(db, "SELECT id FROM announcements WHERE priority = $1", [priority], |r| r.get(0))?;
    Ok(names.into_iter().map(AnnouncementId).collect())
}

/// An emergency's first post and all its later words, oldest first: in the order in which they were written, which no
/// step of a clock changes.
pub fn family(db: &Connection, emergency: &AnnouncementId) -> Sql<Vec<AnnouncementRow>> {
    let columns = rows::ANNOUNCEMENT;
    let written = "(SELECT min(d.id) FROM deliveries d WHERE d.announcement = announcements.id)";
    let sql = format!(
        "SELECT {columns} FROM announcements WHERE id = $1 OR follows = $1
         ORDER BY follows IS NOT NULL, {written}, first_seen, part, id"
    );
    list(db, &sql, [&emergency.0], rows::announcement)
}

pub fn announcements(db: &Connection, filter: &Filter) -> Sql<Vec<Announced>> {
    let columns = rows::ANNOUNCEMENT;
    let mut sql = format!("SELECT {columns} FROM announcements WHERE id > $1");
    let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(filter.after.clone().unwrap_or_default())];
    let mut and = |values: &mut Vec<Box<dyn ToSql>>, condition: &str, value: Box<dyn ToSql>| {
        values.push(value);
        sql.push_str(&format!(" AND {}", condition.replace('?', &format!("${}", values.len()))));
    };
    if let Some(id) = &filter.announcement {
        and(&mut values, "id = ?", Box::new(id.clone()));
    }
    if let Some(priority) = filter.priority {
        and(&mut values, "priority = ?", Box::new(rows::priority_number(priority)));
    }
    if let Some(is_queued) = filter.is_queued {
        and(&mut values, "(file <> '') = ?", Box::new(is_queued));
    }
    if let Some(since) = filter.since {
        and(&mut values, "id IN (SELECT announcement FROM occurrences WHERE release >= ?)", Box::new(micros(since)));
    }
    if let Some(unit) = &filter.unit {
        let like = format!("%:{unit}");
        and(&mut values, "id IN (SELECT announcement FROM deliveries WHERE account LIKE ?)", Box::new(like));
    }
    values.push(Box::new(filter.max as i64));
    sql.push_str(&format!(" ORDER BY id LIMIT ${}", values.len()));
    let found = list(db, &sql, params_from_iter(&values), rows::announcement)?;
    found
        .into_iter()
        .map(|row| {
            // The newest of a repeat, in their order.
            let newest = "o.announcement = $1 ORDER BY o.release DESC";
            let mut occurrences = summaries(db, newest, &[Box::new(row.id.0.clone())])?;
            occurrences.reverse();
            Ok(Announced { row, occurrences })
        })
        .collect()
}

pub fn occurrences(db: &Connection, since: Time, until: Time) -> Sql<Vec<OccurrenceSummary>> {
    let bounds: [Box<dyn ToSql>; 2] = [Box::new(micros(since)), Box::new(micros(until))];
    summaries(db, "o.release BETWEEN $1 AND $2 ORDER BY o.release", &bounds)
}

/// Of each announcement the first hours that come, and how many more there are.
pub fn coming(db: &Connection, since: Time, until: Time) -> Sql<(Vec<OccurrenceSummary>, u64)> {
    /// A repeat of every second has a day of them.
    const EACH: i64 = 48;
    const MOST: usize = 20_000;
    let bounds: [Box<dyn ToSql>; 2] = [Box::new(micros(since)), Box::new(micros(until))];
    let counted = "SELECT id, row_number() OVER (PARTITION BY announcement ORDER BY release) AS n
                   FROM occurrences WHERE release BETWEEN $1 AND $2";
    let condition = format!("o.id IN (SELECT id FROM ({counted}) WHERE n <= {EACH}) ORDER BY o.release LIMIT {MOST}");
    let found = all_summaries(db, &condition, &bounds)?;
    let all: i64 = db.query_row(
        "SELECT count(*) FROM occurrences WHERE release BETWEEN $1 AND $2",
        params![micros(since), micros(until)],
        |r| r.get(0),
    )?;
    let left_out = u64::try_from(all).unwrap_or_default().saturating_sub(found.len() as u64);
    Ok((found, left_out))
}

fn summaries(db: &Connection, condition: &str, values: &[Box<dyn ToSql>]) -> Sql<Vec<OccurrenceSummary>> {
    all_summaries(db, &format!("{condition} LIMIT 2000"), values)
}

fn all_summaries(db: &Connection, condition: &str, values: &[Box<dyn ToSql>]) -> Sql<Vec<OccurrenceSummary>> {
    let sql = format!("SELECT o.id, o.announcement, o.release, o.closing FROM occurrences o WHERE {condition}");
    let mut found = list(db, &sql, params_from_iter(values), |r| {
        Ok(OccurrenceSummary {
            id: OccurrenceId(r.get(0)?),
            announcement: AnnouncementId(r.get(1)?),
            release: from_micros(r.get(2)?),
            closing: rows::json(r, 3)?,
            counts: BTreeMap::new(),
        })
    })?;
    let mut counts =
        db.prepare_cached("SELECT state, count(*) FROM deliveries WHERE occurrence = $1 GROUP BY state")?;
    for occurrence in &mut found {
        let rows = counts.query_map([&occurrence.id.0], |r| Ok((r.get::<_, String>(0)?, r.get::<_, i64>(1)?)))?;
        for row in rows {
            let (state, count) = row?;
            if let Some(state) = State::parse(&state) {
                occurrence.counts.insert(state, count as u32);
            }
        }
    }
    Ok(found)
}

pub fn deliveries(db: &Connection, filter: &Filter) -> Sql<Vec<Delivery>> {
    let after: i64 = filter.after.as_deref().and_then(|a| a.parse().ok()).unwrap_or(0);
    let mut conditions = vec!["id > $1".to_owned()];
    let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(after)];
    if let Some(id) = &filter.announcement {
        values.push(Box::new(id.clone()));
        let n = values.len();
        conditions.push(format!("(announcement = ${n} OR occurrence = ${n})"));
    }
    if let Some(account) = &filter.account {
        values.push(Box::new(account.clone()));
        conditions.push(format!("account = ${}", values.len()));
    }
    if let Some(unit) = &filter.unit {
        values.push(Box::new(format!("%:{unit}")));
        conditions.push(format!("account LIKE ${}", values.len()));
    }
    if let Some(since) = filter.since {
        values.push(Box::new(micros(since)));
        conditions.push(format!("at >= ${}", values.len()));
    }
    if let Some(priority) = filter.priority {
        values.push(Box::new(rows::priority_number(priority)));
        conditions.push(format!("priority = ${}", values.len()));
    }
    if !filter.states.is_empty() {
        let marks: Vec<String> = filter
            .states
            .iter()
            .map(|state| {
                values.push(Box::new(state.as_str()));
                format!("${}", values.len())
            })
            .collect();
        conditions.push(format!("state IN ({})", marks.join(", ")));
    }
    values.push(Box::new(filter.max as i64));
    let sql = format!("{} LIMIT ${}", deliveries_where(&conditions.join(" AND ")), values.len());
    list(db, &sql, params_from_iter(&values), rows::delivery)
}

pub fn is_tried(db: &Connection, id: &OccurrenceId) -> Sql<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM deliveries d JOIN attempts a ON a.delivery = d.id WHERE d.occurrence = $1)";
    db.prepare_cached(sql)?.query_row([&id.0], |r| r.get(0))
}

pub fn attempts(db: &Connection, id: DeliveryId) -> Sql<Vec<AttemptRow>> {
    list(db, "SELECT n, slot, begun, ended, outcome, words FROM attempts WHERE delivery = $1 ORDER BY n", [id.0], |r| {
        Ok(AttemptRow {
            n: r.get(0)?,
            slot: time(r, 1)?,
            begun: time(r, 2)?,
            ended: time(r, 3)?,
            outcome: r.get(4)?,
            words: r.get(5)?,
        })
    })
}

pub fn counts(db: &Connection) -> Sql<BTreeMap<State, u64>> {
    let rows: Vec<(String, i64)> = list(db, "SELECT state, deliveries FROM tally", [], |r| Ok((r.get(0)?, r.get(1)?)))?;
    Ok(rows.into_iter().filter_map(|(s, n)| Some((State::parse(&s)?, n as u64))).collect())
}

pub fn events(db: &Connection, after: Seq, max: usize) -> Sql<Vec<Recorded>> {
    list(
        db,
        "SELECT seq, at, actor, kind, subject, body, previous, hash FROM events WHERE seq > $1 ORDER BY seq LIMIT $2",
        params![after, max as i64],
        |r| {
            Ok(Recorded {
                seq: r.get(0)?,
                at: from_micros(r.get(1)?),
                actor: r.get(2)?,
                kind: r.get(3)?,
                subject: r.get(4)?,
                body: r.get(5)?,
                previous: r.get(6)?,
                hash: r.get(7)?,
            })
        },
    )
}

fn sending_where(columns: &str, condition: &str) -> String {
    format!("SELECT {columns} FROM deliveries INDEXED BY deliveries_unsettled WHERE state = 'sending' AND {condition}")
}

/// The daemon's memory of the ledger.
pub fn snapshot(db: &Connection, now: Time) -> Sql<Snapshot> {
    let sending = list(db, &sending_where("id, fence", "true"), [], |r| Ok((DeliveryId(r.get(0)?), r.get(1)?)))?;
    let accounts = accounts(db)?;
    let mut receipts = BTreeMap::new();
    for account in accounts.keys() {
        receipts.insert(account.clone(), latest_receipts(db, account)?);
    }
    let newest = accounts.into_iter().filter_map(|(id, row)| Some((id, row.newest?))).collect();
    Ok(Snapshot { gate: gate(db, now)?, budgets: budgets(db)?, newest, receipts, sending })
}

fn latest_receipts(db: &Connection, account: &AccountId) -> Sql<Vec<String>> {
    let sql = "SELECT post_id FROM deliveries
        WHERE account = $1 AND state IN ('published', 'deleted', 'accepted') AND post_id IS NOT NULL
        ORDER BY id DESC LIMIT $2";
    let mut found: Vec<String> = list(db, sql, params![account.0, RECEIPTS as i64], |r| r.get(0))?;
    found.retain(|id| !id.is_empty());
    found.reverse();
    Ok(found)
}

fn gate(db: &Connection, now: Time) -> Sql<Gate> {
    let holds = holds(db, "ended IS NULL OR ended >= $1", now - HOLDS_KEPT)?;
    let mut gate = Gate { holds, ..Gate::default() };
    gate.forget_before(now - HOLDS_KEPT);
    // One whose end has passed never revives, whatever the clock does afterwards.
    for hold in gate.holds.iter_mut().filter(|h| h.ended.is_none()) {
        hold.ended = hold.until.filter(|until| *until <= now);
    }
    let confirms: Vec<(AnnouncementId, ContentHash, Person)> =
        list(db, "SELECT announcement, content, uid, name FROM confirms ORDER BY at", [], |r| {
            let person = Person { uid: r.get(2)?, name: r.get(3)? };
            Ok((AnnouncementId(r.get(0)?), ContentHash(r.get(1)?), person))
        })?;
    for (announcement, content, person) in confirms {
        gate.confirm(&announcement, &content, person);
    }
    Ok(gate)
}

/// Holds that have not been ended, also those whose end has come.
pub fn open_holds(db: &Connection) -> Sql<Vec<Hold>> {
    holds(db, "ended IS NULL AND $1 = $1", Time::UNIX_EPOCH)
}

fn holds(db: &Connection, condition: &str, since: Time) -> Sql<Vec<Hold>> {
    let sql = format!(
        "SELECT id, reason, until, accounts, owner, begun, post, ended, version, named FROM holds WHERE {condition}
         ORDER BY begun, id"
    );
    list(db, &sql, [micros(since)], |r| {
        let post: Option<Arc<str>> = r.get(6)?;
        Ok(Hold {
            id: r.get(0)?,
            reason: r.get(1)?,
            until: time(r, 2)?,
            accounts: rows::json(r, 3)?,
            owner: r.get(4)?,
            begun: from_micros(r.get(5)?),
            post: post.map(AnnouncementId),
            ended: time(r, 7)?,
            version: r.get(8)?,
            named: rows::json(r, 9)?,
        })
    })
}

pub fn kept_back(db: &Connection, now: Time, until: Time, accounts: Option<&BTreeSet<AccountId>>) -> Sql<KeptBack> {
    /// What went out in this time may still be on its reader's screen.
    const LATELY: chrono::TimeDelta = chrono::TimeDelta::minutes(10);
    const MOST_OUT: i64 = 10_000;
    let covers = |account: &str| accounts.is_none_or(|all| all.contains(account));
    let mut kept = KeptBack::default();
    let mut exempt: BTreeMap<Arc<str>, bool> = BTreeMap::new();
    let exempted = |seen: &mut BTreeMap<Arc<str>, bool>, content: Arc<str>| -> Sql<bool> {
        if let Some(is_exempt) = seen.get(&content) {
            return Ok(*is_exempt);
        }
        let found = is_exempt(db, &content)?;
        seen.insert(content, found);
        Ok(found)
    };
    let due = "SELECT state, account, content, count(*) FROM deliveries WHERE priority = $1 AND next_at <= $2
               GROUP BY state, account, content";
    for priority in [Priority::Important, Priority::Routine] {
        let values = params![rows::priority_number(priority), micros(until)];
        let one = |r: &Row<'_>| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?));
        let found: Vec<(String, String, Arc<str>, i64)> = list(db, due, values, one)?;
        for (state, _, content, n) in found.into_iter().filter(|(_, account, ..)| covers(account)) {
            let is_exempt = exempted(&mut exempt, content)?;
            let waits =
                matches!(State::parse(&state), Some(State::Scheduled | State::Ready | State::Retrying | State::Held));
            if waits && !is_exempt {
                kept.held += n as u64;
            }
        }
    }
    // Deliveries that are kept back by now come up when they expire, or never.
    let by_now = "SELECT account, content FROM deliveries INDEXED BY deliveries_kept_back
                  WHERE state = 'held' AND cause = 'hold' AND priority > 0 AND (next_at IS NULL OR next_at > $1)";
    let found: Vec<(String, Arc<str>)> = list(db, by_now, [micros(until)], |r| Ok((r.get(0)?, r.get(1)?)))?;
    for (_, content) in found.into_iter().filter(|(account, _)| covers(account)) {
        kept.held += u64::from(!exempted(&mut exempt, content)?);
    }
    let sending = sending_where("id, account, content", "priority > 0");
    let found: Vec<(i64, String, String)> = list(db, &sending, [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    for (id, _, content) in found.into_iter().filter(|(_, account, _)| covers(account)) {
        kept.sending.push((DeliveryId(id), is_exempt(db, &content)?));
    }
    let lately = "SELECT d.account, d.receipt FROM occurrences o JOIN deliveries d ON d.occurrence = o.id
                  WHERE o.release BETWEEN $1 AND $2 AND d.priority > 0 AND d.state = 'published'
                  ORDER BY o.release DESC LIMIT $3";
    kept.out = list(db, lately, params![micros(now - LATELY), micros(now), MOST_OUT], |r| {
        let receipt: Option<crate::core::delivery::Receipt> = rows::json(r, 1)?;
        Ok((r.get(0)?, receipt.and_then(|r| r.url)))
    })?;
    kept.out.retain(|(account, _)| covers(account));
    Ok(kept)
}

/// Whether a content passes a hold.
fn is_exempt(db: &Connection, hash: &str) -> Sql<bool> {
    Ok(content(db, hash)?.is_some_and(|content| content.body.hold_exempt.is_some()))
}

pub fn answered(db: &Connection, uid: u32, key: &str, since: Time) -> Sql<Option<(String, String)>> {
    let sql = "SELECT hash, answer FROM requests WHERE uid = $1 AND key = $2 AND at >= $3";
    db.prepare_cached(sql)?.query_row(params![uid, key, micros(since)], |r| Ok((r.get(0)?, r.get(1)?))).optional()
}

pub fn budgets(db: &Connection) -> Sql<Vec<(String, i64, u32)>> {
    list(db, "SELECT key, window, calls FROM budgets", [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
}

const ACCOUNT: &str = "SELECT account, newest, good, words, uid, expires, seen FROM accounts";

fn account_row(r: &rusqlite::Row<'_>) -> Sql<(AccountId, AccountRow)> {
    let row = AccountRow {
        newest: r.get(1)?,
        good: r.get(2)?,
        words: r.get(3)?,
        uid: r.get(4)?,
        expires: time(r, 5)?,
        seen: time(r, 6)?,
    };
    Ok((AccountId(r.get(0)?), row))
}

pub fn accounts(db: &Connection) -> Sql<BTreeMap<AccountId, AccountRow>> {
    Ok(list(db, ACCOUNT, [], account_row)?.into_iter().collect())
}

pub fn receipts(db: &Connection, account: &AccountId, except: DeliveryId, before: Time) -> Sql<Receipts> {
    // A look sees seventy posts at most; more receipts of one account cannot be on it.
    // One that is to be taken down may be gone already. (SQLite numbers `$n` in the order in which they first stand.)
    let sql = "SELECT post_id, state = 'published' AND desired < 2 AND coalesce(begun_at < $1, 0) FROM deliveries
        WHERE account = $2 AND state IN ('published', 'deleted', 'accepted') AND post_id IS NOT NULL AND id <> $3
        ORDER BY id DESC LIMIT 200";
    let posts: Vec<(String, bool)> =
        list(db, sql, params![micros(before), account.0, except.0], |r| Ok((r.get(0)?, r.get(1)?)))?;
    let standing = posts.iter().filter(|(_, stands)| *stands).map(|(id, _)| id.clone()).collect();
    Ok(Receipts { taken: posts.into_iter().map(|(id, _)| id).collect(), standing })
}

pub fn meta(db: &Connection, key: &str) -> Sql<Option<String>> {
    db.prepare_cached("SELECT value FROM meta WHERE key = $1")?.query_row([key], |r| r.get(0)).optional()
}
