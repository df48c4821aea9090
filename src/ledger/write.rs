//! What each change writes; runs inside the writer's transaction, a savepoint a commit.

use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};
use serde_json::json;

use super::LedgerError;
use super::rows::{self, micros};
use crate::clock::Time;
use crate::core::change::{Actor, AnnouncementRow, Change, GENESIS, Note, Recorded, Seq};
use crate::core::delivery::{Delivery, Outcome, Step};

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

/// Writes one commit; on an error the caller rolls its savepoint back.
pub fn apply(db: &Connection, head: &mut Head, by: &Actor, changes: &[Change], now: Time) -> Result<(), LedgerError> {
    for change in changes {
        one(db, head, by, change, now)?;
    }
    Ok(())
}

fn one(db: &Connection, head: &mut Head, by: &Actor, change: &Change, now: Time) -> Result<(), LedgerError> {
    match change {
        Change::Content(hash, content) => {
            let body = serde_json::to_string(content).expect("a content has only text keys");
            exec(db, "INSERT OR IGNORE INTO contents (hash, body) VALUES ($1, $2)", params![hash.0, body])?;
        }
        Change::Announcement(row) => announcement(db, row)?,
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
            event(db, head, by, "closed", id.as_str(), &json!(closing), now)?;
        }
        Change::Add(delivery) => add(db, delivery)?,
        Change::Step(step) => self::step(db, head, by, step, now)?,
        Change::Spend { key, window, calls } => {
            exec(
                db,
                "INSERT INTO budgets (key, window, calls) VALUES ($1, $2, $3)
                 ON CONFLICT (key, window) DO UPDATE SET calls = calls + excluded.calls",
                params![key, window, calls],
            )?;
        }
        Change::Seen { account, post_id } => {
            exec(
                db,
                "INSERT INTO accounts (account, newest) VALUES ($1, $2)
                 ON CONFLICT (account) DO UPDATE SET newest = excluded.newest",
                params![account.0, post_id],
            )?;
        }
        Change::Standing { account, good, words, uid, expires } => {
            exec(
                db,
                "INSERT INTO accounts (account, good, words, uid, expires, seen) VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (account) DO UPDATE SET good = excluded.good, words = excluded.words,
                 uid = coalesce(excluded.uid, uid), expires = coalesce(excluded.expires, expires), seen = excluded.seen",
                params![account.0, good, words, uid, expires.map(micros), micros(now)],
            )?;
        }
        Change::Meta { key, value: Some(value) } => {
            exec(db, "INSERT OR REPLACE INTO meta (key, value) VALUES ($1, $2)", params![key, value])?;
        }
        Change::Meta { key, value: None } => exec(db, "DELETE FROM meta WHERE key = $1", params![key])?,
        Change::Note(Note { kind, subject, body }) => event(db, head, by, kind, subject, body, now)?,
    }
    Ok(())
}

fn announcement(db: &Connection, row: &AnnouncementRow) -> Result<(), LedgerError> {
    let columns = rows::ANNOUNCEMENT;
    exec(
        db,
        &format!(
            "INSERT OR REPLACE INTO announcements ({columns}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
        ),
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
            row.withdrawn,
            micros(row.first_seen),
        ],
    )
}

fn add(db: &Connection, delivery: &Delivery) -> Result<(), LedgerError> {
    let columns = rows::DELIVERY;
    let marks = (1..=22).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
    let sql =
        format!("INSERT INTO deliveries ({columns}) VALUES ({marks}) ON CONFLICT (occurrence, account) DO NOTHING");
    let mut statement = db.prepare_cached(&sql).map_err(wrong)?;
    statement.execute(params_from_iter(rows::values(delivery))).map_err(wrong)?;
    Ok(())
}

/// The row's new columns, if it is still the row the step was computed from.
fn step(db: &Connection, head: &mut Head, by: &Actor, step: &Step, now: Time) -> Result<(), LedgerError> {
    const SQL: &str = "UPDATE deliveries SET content = $1, state = $2, next_at = $3, at = $4, expires_at = $5, wish = $6, \
         attempt = $7, looks = $8, asked_until = $9, begun_at = $10, flags = $11, prepared = $12, receipt = $13, \
         post_id = $14, class = $15, reason = $16, lateness_us = $17, fence = $18 WHERE id = $19 AND fence = $20";
    let row = &step.row;
    let mut values = rows::values(row);
    // The first three columns name the row and never change; its priority neither.
    values.drain(0..3);
    values.remove(1);
    values.push(Box::new(row.id.0));
    values.push(Box::new(row.fence - 1));
    let mut statement = db.prepare_cached(SQL).map_err(wrong)?;
    if statement.execute(params_from_iter(values)).map_err(wrong)? != 1 {
        return Err(LedgerError::Conflict);
    }
    if let Some(outcome) = step.attempt {
        attempt(db, row, outcome, now)?;
    }
    let body = json!({
        "delivery": row.id,
        "account": row.account,
        "from": step.from,
        "to": row.state,
        "event": step.event,
        "attempt": row.attempt,
        "class": row.class,
        "reason": row.reason,
        "url": row.receipt.as_ref().and_then(|r| r.url.as_deref()),
        "post_id": row.receipt.as_ref().map(|r| r.post_id.as_str()),
    });
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
    exec(
        db,
        "UPDATE attempts SET begun = $1, ended = $2, outcome = $3, words = $4
         WHERE delivery = $5 AND n = (SELECT max(n) FROM attempts WHERE delivery = $5)",
        params![row.begun_at.map(micros), micros(now), outcome.as_str(), words, row.id.0],
    )
}

/// Attempts go on counting when a person tries a failed delivery again.
fn attempt_number(db: &Connection, row: &Delivery) -> Result<i64, LedgerError> {
    if row.attempt == 1 && row.fence < 8 {
        return Ok(1);
    }
    let mut statement =
        db.prepare_cached("SELECT coalesce(max(n), 0) + 1 FROM attempts WHERE delivery = $1").map_err(wrong)?;
    statement.query_row([row.id.0], |r| r.get(0)).map_err(wrong)
}

fn event(
    db: &Connection,
    head: &mut Head,
    by: &Actor,
    kind: &str,
    subject: &str,
    body: &serde_json::Value,
    now: Time,
) -> Result<(), LedgerError> {
    let mut record = Recorded {
        seq: head.seq + 1,
        at: now,
        actor: by.to_string(),
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        body: body.to_string(),
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

fn exec(db: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<(), LedgerError> {
    let mut statement = db.prepare_cached(sql).map_err(wrong)?;
    statement.execute(values).map_err(wrong)?;
    Ok(())
}

/// SQLite's error in the words of the room: what the caller does next.
pub fn wrong(error: rusqlite::Error) -> LedgerError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
    match error.sqlite_error_code() {
        Some(DiskFull) => LedgerError::NoSpace,
        Some(DatabaseCorrupt | NotADatabase) => LedgerError::Broken(error.to_string()),
        _ => LedgerError::Unavailable(error.to_string()),
    }
}
