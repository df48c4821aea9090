//! What each change writes; runs inside the writer's transaction.
//!
//! A commit's guards are looked at before anything of it is written, so that a conflict leaves nothing to undo; the
//! fence of a delivery is looked at by the statement that steps it, and only a commit of several steps needs a savepoint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension as _, ToSql, params};
use serde::Serialize;

use super::LedgerError;
use super::intake::Intake;
use super::rows::{self, micros};
use super::rules;
use crate::clock::Time;
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, ContentHash, Priority};
use crate::core::change::{Actor, AnnouncementRow, Change, GENESIS, Note, Recorded, Seq, Withdrawal};
use crate::core::delivery::{Cause, Class, Delivery, DeliveryId, Outcome, State, Step};
use crate::core::gate::Hold;
use crate::core::pacing::DAY;
use crate::core::words::Words;

/// The head of the event chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub seq: Seq,
    pub hash: String,
}

impl Head {
    pub fn read(db: &Connection) -> rusqlite::Result<Head> {
        let last = db
            .query_row("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1", [], |r| {
                Ok(Head { seq: r.get(0)?, hash: r.get(1)? })
            })
            .optional()?;
        Ok(last.unwrap_or(Head { seq: 0, hash: GENESIS.to_owned() }))
    }
}

/// How many deliveries more, or fewer, are in each state: kept in the ledger, so that nobody counts a year of rows.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<State, i64>);

impl Tally {
    pub fn count(&mut self, state: State, by: i64) {
        *self.0.entry(state).or_default() += by;
    }

    /// Written once a transaction, whatever happened in it.
    pub fn write(&self, db: &Connection) -> Result<(), LedgerError> {
        for (state, by) in self.0.iter().filter(|(_, by)| **by != 0) {
            exec(
                db,
                "INSERT INTO tally (state, deliveries) VALUES ($1, $2)
                 ON CONFLICT (state) DO UPDATE SET deliveries = deliveries + excluded.deliveries",
                params![state.as_str(), by],
            )?;
        }
        Ok(())
    }
}

/// Whether a commit that meets a conflict may leave something to undo: only its first step finds everything untouched.
pub fn needs_savepoint(changes: &[Change]) -> bool {
    let is_step = |c: &&Change| matches!(c, Change::Step(_));
    let is_written = |c: &&Change| !matches!(c, Change::Expect(..) | Change::ExpectMeta(..));
    let steps = changes.iter().filter(is_step).count();
    steps > 1 || steps == 1 && !changes.iter().find(is_written).is_some_and(|c| is_step(&c))
}

/// Writes one commit; on an error the caller rolls it back. With an `intake` its new deliveries and its calls go
/// there. Returns the changes with each order replaced by the steps it made, where there are any orders.
pub fn apply(
    db: &Connection,
    head: &mut Head,
    tally: &mut Tally,
    mut intake: Option<&mut Intake>,
    by: &Actor,
    changes: &[Change],
    now: Time,
) -> Result<Option<Vec<Change>>, LedgerError> {
    for change in changes {
        guard(db, change, now)?;
    }
    let has_orders = changes.iter().any(rules::is_order);
    let mut carried_out = has_orders.then(|| Vec::with_capacity(changes.len()));
    let mut ended = BTreeSet::new();
    for change in changes {
        match (&mut intake, change) {
            (Some(intake), Change::Add(delivery)) => intake.add(delivery)?,
            (Some(intake), Change::Spend { key, window, calls }) => intake.spend(key, *window, *calls),
            (_, order) if rules::is_order(order) => {
                let made = rules::made_of(db, order, now)?;
                for change in &made {
                    one(db, head, tally, by, change, now)?;
                }
                ended.extend(rules::ended_by(order, &made));
                carried_out.get_or_insert_default().extend(made);
                continue;
            }
            _ => one(db, head, tally, by, change, now)?,
        }
        if let Some(all) = &mut carried_out {
            all.push(change.clone());
        }
    }
    // Later words may have waited for what an order has ended.
    for account in ended {
        let made = rules::made_of(db, &Change::Decide(account), now)?;
        for change in &made {
            one(db, head, tally, by, change, now)?;
        }
        carried_out.get_or_insert_default().extend(made);
    }
    Ok(carried_out)
}

/// Refuses a change that was decided on something else than what is there.
fn guard(db: &Connection, change: &Change, now: Time) -> Result<(), LedgerError> {
    let number = |sql: &str, values: &[&dyn ToSql]| -> Result<Option<i64>, LedgerError> {
        let mut statement = db.prepare_cached(sql).map_err(wrong)?;
        statement.query_row(values, |r| r.get(0)).optional().map_err(wrong)
    };
    let is_as_it_was = match change {
        Change::Announcement(row) => {
            let version = number("SELECT version FROM announcements WHERE id = $1", &[&row.id.0])?;
            version.unwrap_or(0) == row.version - 1
        }
        Change::Expect(id, fence) => number("SELECT fence FROM deliveries WHERE id = $1", &[&id.0])? == Some(*fence),
        Change::ExpectMeta(key, value) => super::read::meta(db, key).map_err(wrong)? == *value,
        Change::Hold(hold) if hold.version == 1 => {
            let standing = "SELECT 1 FROM holds WHERE id = $1 AND ended IS NULL AND (until IS NULL OR until > $2)";
            number(standing, &[&hold.id, &micros(now)])?.is_none()
        }
        Change::Hold(Hold { id, begun, version, .. }) => {
            number(HOLD_VERSION, &[id, &micros(*begun)])? == Some(version - 1)
        }
        Change::HoldEnded { id, begun, version } => number(HOLD_VERSION, &[id, &micros(*begun)])? == Some(*version),
        _ => true,
    };
    if is_as_it_was || crate::planted("written_over") { Ok(()) } else { Err(LedgerError::Conflict) }
}

const HOLD_VERSION: &str = "SELECT version FROM holds WHERE id = $1 AND begun = $2 AND ended IS NULL";

fn one(
    db: &Connection,
    head: &mut Head,
    tally: &mut Tally,
    by: &Actor,
    change: &Change,
    now: Time,
) -> Result<(), LedgerError> {
    match change {
        Change::Content(hash, content) => {
            let body = serde_json::to_string(content).expect("a content has only text keys");
            let sql = "INSERT INTO contents (hash, body) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING";
            exec(db, sql, params![hash.0, body])?;
        }
        Change::Announcement(row) => announcement(db, row)?,
        Change::Expect(..) | Change::ExpectMeta(..) => {}
        Change::Withdrawn(id, by_whom) => {
            let sql = "UPDATE announcements SET withdrawn = $1, version = version + 1 WHERE id = $2";
            exec(db, sql, params![by_whom.as_str(), id.0])?;
            if *by_whom == Withdrawal::Queue {
                void_words(db, id, None)?;
            }
        }
        Change::OccurrenceStopped(id, announcement, person) => {
            exec(db, "UPDATE occurrences SET stopped = $1 WHERE id = $2", params![person, id.0])?;
            exec(db, "UPDATE announcements SET version = version + 1 WHERE id = $1", [&announcement.0])?;
        }
        Change::Ended(id, ended) => {
            let ended = ended.as_ref().map(|e| serde_json::to_string(e).expect("an end has only text keys"));
            let sql = "UPDATE announcements SET ended = $1, version = version + 1 WHERE id = $2";
            exec(db, sql, params![ended, id.0])?;
        }
        Change::Occurrence { id, announcement, content, release } => {
            exec(
                db,
                "INSERT INTO occurrences (id, announcement, content, release) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (id) DO UPDATE SET content = excluded.content, release = excluded.release, closing = NULL",
                params![id.0, announcement.0, content.0, micros(*release)],
            )?;
        }
        Change::Closed(id, closing) => {
            let text = serde_json::to_string(closing).expect("figures are finite");
            exec(db, "UPDATE occurrences SET closing = $1 WHERE id = $2", params![text, id.0])?;
            event(db, head, by, "closed", id.as_str(), closing, now)?;
        }
        Change::Add(delivery) => add(db, tally, delivery, now)?,
        Change::Step(step) => self::step(db, head, tally, by, step, now)?,
        Change::AddAbout(..) | Change::Stop(_) | Change::Decide(_) => {
            unreachable!("an order is replaced by what it makes")
        }
        Change::Superseded { posts, account, by: newer } => {
            for post in posts {
                let sql = "INSERT INTO superseded (announcement, account, newer) VALUES ($1, $2, $3)
                           ON CONFLICT (announcement, account) DO NOTHING";
                exec(db, sql, params![post.0, account.0, newer.0])?;
                exec(db, "UPDATE announcements SET version = version + 1 WHERE id = $1", [&post.0])?;
            }
        }
        Change::Spend { key, window, calls } => spend(db, key, *window, *calls)?,
        Change::ForgetCalls { hour, day } => exec(
            db,
            "DELETE FROM budgets WHERE window < CASE WHEN substr(key, 1, $1) = $2 THEN $3 ELSE $4 END",
            params![DAY.len() as i64, DAY, day, hour],
        )?,
        Change::ForgetAnswers { before } => exec(db, "DELETE FROM requests WHERE at < $1", [micros(*before)])?,
        Change::Seen { account, post_id } => {
            exec(
                db,
                "INSERT INTO accounts (account, newest) VALUES ($1, $2)
                 ON CONFLICT (account) DO UPDATE SET newest = excluded.newest",
                params![account.0, post_id],
            )?;
        }
        Change::Credential { account, bad, uid, expires } => {
            let words = bad.as_ref().map_or("", |words| words.en.as_str());
            exec(
                db,
                "INSERT INTO accounts (account, good, words, uid, expires, seen) VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (account) DO UPDATE SET good = excluded.good, words = excluded.words,
                 uid = coalesce(excluded.uid, uid), expires = coalesce(excluded.expires, expires), seen = excluded.seen",
                params![account.0, bad.is_none(), words, uid, expires.map(micros), micros(now)],
            )?;
        }
        Change::Meta { key, value: Some(value) } => {
            let sql = "INSERT INTO meta (key, value) VALUES ($1, $2)
                       ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            exec(db, sql, params![key, value])?;
        }
        Change::Meta { key, value: None } => exec(db, "DELETE FROM meta WHERE key = $1", params![key])?,
        Change::Hold(hold) => {
            let accounts = hold.accounts.as_ref().map(|a| serde_json::to_string(a).expect("names are text"));
            let named = hold.named.as_ref().map(|n| serde_json::to_string(n).expect("names are text"));
            exec(
                db,
                "INSERT INTO holds (id, reason, until, accounts, owner, begun, post, version, named)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                 ON CONFLICT (id, begun) DO UPDATE SET until = excluded.until, reason = excluded.reason,
                 accounts = excluded.accounts, owner = excluded.owner, post = excluded.post, version = excluded.version",
                params![
                    hold.id,
                    hold.reason,
                    hold.until.map(micros),
                    accounts,
                    hold.owner,
                    micros(hold.begun),
                    hold.post.as_ref().map(|id| &id.0),
                    hold.version,
                    named
                ],
            )?;
            event(db, head, by, "hold", &hold.id, hold, now)?;
        }
        Change::HoldEnded { id, begun, .. } => {
            let sql = "UPDATE holds SET ended = $1, version = version + 1 WHERE id = $2 AND begun = $3";
            exec(db, sql, params![micros(now), id, micros(*begun)])?;
            event(db, head, by, "hold_ended", id, &serde_json::json!({}), now)?;
        }
        Change::Confirmed { announcement, content, uid, name } => {
            exec(
                db,
                "INSERT INTO confirms (announcement, content, uid, name, at) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (announcement, content, uid) DO NOTHING",
                params![announcement.0, content.0, uid, name, micros(now)],
            )?;
            let body = serde_json::json!({ "content_hash": content, "uid": uid, "name": name });
            event(db, head, by, "confirmed", announcement.as_str(), &body, now)?;
        }
        Change::Answered { uid, key, hash, answer } => exec(
            db,
            "INSERT INTO requests (uid, key, hash, answer, at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (uid, key) DO UPDATE SET hash = excluded.hash, answer = excluded.answer, at = excluded.at",
            params![uid, key, hash, answer, micros(now)],
        )?,
        Change::Note(Note { kind, subject, body }) => event(db, head, by, kind, subject, body, now)?,
    }
    Ok(())
}

pub fn spend(db: &Connection, key: &str, window: i64, calls: u32) -> Result<(), LedgerError> {
    exec(
        db,
        "INSERT INTO budgets (key, window, calls) VALUES ($1, $2, $3)
         ON CONFLICT (key, window) DO UPDATE SET calls = calls + excluded.calls",
        params![key, window, calls],
    )
}

/// Persons' words are void, but for those to the content that is in force.
fn void_words(db: &Connection, id: &AnnouncementId, agreed: Option<&ContentHash>) -> Result<(), LedgerError> {
    if crate::planted("old_word_counts") {
        return Ok(());
    }
    let sql = "DELETE FROM confirms WHERE announcement = $1 AND content IS NOT $2";
    exec(db, sql, params![id.0, agreed.map(|content| &content.0)])
}

fn announcement(db: &Connection, row: &AnnouncementRow) -> Result<(), LedgerError> {
    if row.priority == Priority::Emergency {
        void_words(db, &row.id, row.agreed())?;
    }
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let columns: Vec<&str> = rows::ANNOUNCEMENT.split(", ").collect();
        let marks: Vec<String> = (1..=columns.len()).map(|n| format!("${n}")).collect();
        let set: Vec<String> = columns[1..].iter().map(|c| format!("{c} = excluded.{c}")).collect();
        let (columns, marks, set) = (rows::ANNOUNCEMENT, marks.join(", "), set.join(", "));
        format!("INSERT INTO announcements ({columns}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {set}")
    });
    exec(
        db,
        &SQL,
        params![
            row.id.0,
            row.file,
            row.line,
            row.content.0,
            row.body.0,
            row.edited.as_ref().map(|h| &h.0),
            rows::priority_number(row.priority),
            row.supersedes.as_ref().map(|s| &s.0),
            row.planned_to.map(micros),
            row.withdrawn.as_ref().map(Withdrawal::as_str),
            micros(row.first_seen),
            row.follows.as_ref().map(|(emergency, _)| &emergency.0),
            row.follows.as_ref().map(|(_, part)| part.as_str()),
            row.ended.as_ref().map(|e| serde_json::to_string(e).expect("an end has only text keys")),
            row.version,
        ],
    )
}

fn add(db: &Connection, tally: &mut Tally, delivery: &Delivery, now: Time) -> Result<(), LedgerError> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let marks: Vec<String> = (1..=rows::FIXED.len() + rows::STEPPED.len() + 1).map(|n| format!("${n}")).collect();
        let (columns, marks) = (&*rows::DELIVERY, marks.join(", "));
        format!("INSERT INTO deliveries ({columns}, id) VALUES ({marks}) ON CONFLICT (occurrence, account) DO NOTHING")
    });
    let mut statement = db.prepare_cached(&SQL).map_err(wrong)?;
    let first = rows::bind_fixed(&mut statement, delivery).map_err(wrong)?;
    let id = rows::bind_stepped(&mut statement, first, delivery, false).map_err(wrong)?;
    statement.raw_bind_parameter(id, delivery.id.0).map_err(wrong)?;
    if statement.raw_execute().map_err(wrong)? == 1 {
        tally.count(delivery.state, 1);
        if delivery.state == State::Sending {
            attempt(db, delivery, Outcome::Armed, now)?;
        }
    }
    Ok(())
}

/// One record of a delivery's life, as the trail keeps it.
#[derive(Serialize)]
struct Moved<'a> {
    delivery: DeliveryId,
    account: &'a AccountId,
    from: State,
    to: State,
    event: &'static str,
    attempt: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    needs_person: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<Class>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a Words>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    post_id: Option<&'a str>,
}

/// The row's new columns, if it is still the row the step was computed from.
fn step(
    db: &Connection,
    head: &mut Head,
    tally: &mut Tally,
    by: &Actor,
    step: &Step,
    now: Time,
) -> Result<(), LedgerError> {
    fn sql(columns: &[&str]) -> String {
        let set: Vec<String> = columns.iter().enumerate().map(|(n, column)| format!("{column} = ${}", n + 1)).collect();
        let (set, id, fence) = (set.join(", "), columns.len() + 1, columns.len() + 2);
        format!("UPDATE deliveries SET {set} WHERE id = ${id} AND fence = ${fence}")
    }
    static WHOLE: LazyLock<String> = LazyLock::new(|| sql(&rows::STEPPED));
    static WITHOUT_PREPARED: LazyLock<String> =
        LazyLock::new(|| sql(&rows::STEPPED[..rows::STEPPED.len() - rows::OF_PREPARED]));
    let (row, keeps) = (&step.row, step.keeps_prepared);
    let mut statement = db.prepare_cached(if keeps { &WITHOUT_PREPARED } else { &WHOLE }).map_err(wrong)?;
    let guard = rows::bind_stepped(&mut statement, 1, row, keeps).map_err(wrong)?;
    statement.raw_bind_parameter(guard, row.id.0).map_err(wrong)?;
    statement.raw_bind_parameter(guard + 1, row.fence - 1).map_err(wrong)?;
    if statement.raw_execute().map_err(wrong)? != 1 {
        return Err(LedgerError::Conflict);
    }
    tally.count(step.from, -1);
    tally.count(row.state, 1);
    if let Some(outcome) = step.attempt {
        attempt(db, row, outcome, now)?;
    }
    let receipt = row.receipt.as_ref();
    let body = Moved {
        delivery: row.id,
        account: &row.account,
        from: step.from,
        to: row.state,
        event: step.event,
        attempt: row.attempt,
        cause: row.cause,
        needs_person: row.needs_person,
        class: row.class,
        reason: row.reason.as_ref(),
        url: receipt.and_then(|r| r.url.as_deref()),
        post_id: receipt.map(|r| r.post_id.as_str()),
    };
    event(db, head, by, "delivery", row.occurrence.as_str(), &body, now)
}

fn attempt(db: &Connection, row: &Delivery, outcome: Outcome, now: Time) -> Result<(), LedgerError> {
    if outcome == Outcome::Armed {
        return exec(
            db,
            "INSERT OR REPLACE INTO attempts (delivery, n, slot, outcome) VALUES ($1, $2, $3, $4)",
            params![row.id.0, attempt_number(db, row)?, row.begun_at.map(micros), outcome.as_str()],
        );
    }
    let words = row.reason.as_ref().map(|r| r.en.clone());
    // At most one attempt of a delivery is open: the one its row is `sending` with.
    exec(
        db,
        "UPDATE attempts SET begun = $1, ended = $2, outcome = $3, words = $4 WHERE delivery = $5 AND ended IS NULL",
        params![row.begun_at.map(micros), micros(now), outcome.as_str(), words, row.id.0],
    )
}

/// Attempts go on counting when a person tries a failed delivery again. The first one need not be asked for.
fn attempt_number(db: &Connection, row: &Delivery) -> Result<i64, LedgerError> {
    if row.attempt == 1 && row.fence < 4 {
        return Ok(1);
    }
    let sql = "SELECT coalesce(max(n), 0) + 1 FROM attempts WHERE delivery = $1";
    db.prepare_cached(sql).and_then(|mut s| s.query_row([row.id.0], |r| r.get(0))).map_err(wrong)
}

fn event(
    db: &Connection,
    head: &mut Head,
    by: &Actor,
    kind: &str,
    subject: &str,
    body: &impl Serialize,
    now: Time,
) -> Result<(), LedgerError> {
    let mut record = Recorded {
        seq: head.seq + 1,
        at: now,
        actor: by.to_string(),
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        body: serde_json::to_string(body).expect("a record has only text keys and finite numbers"),
        previous: std::mem::take(&mut head.hash),
        hash: String::new(),
    };
    record.hash = record.expected_hash();
    head.seq = record.seq;
    head.hash.clone_from(&record.hash);
    exec(
        db,
        "INSERT INTO events (seq, at, actor, kind, subject, body, previous, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        params![
            record.seq,
            micros(record.at),
            record.actor,
            record.kind,
            record.subject,
            record.body,
            record.previous,
            record.hash
        ],
    )
}

pub fn exec(db: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<(), LedgerError> {
    let mut statement = db.prepare_cached(sql).map_err(wrong)?;
    statement.execute(values).map_err(wrong)?;
    Ok(())
}

/// SQLite's error in the words of the room: what the caller does next.
pub fn wrong(error: rusqlite::Error) -> LedgerError {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
    use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
    match (&error, error.sqlite_error_code()) {
        (_, Some(DiskFull)) => LedgerError::NoSpace,
        (_, Some(DatabaseCorrupt | NotADatabase)) => LedgerError::Broken(error.to_string()),
        // It reads without an error and holds what was never written.
        (FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..), _) => {
            LedgerError::Broken(error.to_string())
        }
        _ => LedgerError::Unavailable(error.to_string()),
    }
}
