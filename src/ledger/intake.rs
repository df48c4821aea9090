//! The deliveries of an emergency, on disk as one record before they are rows.
//!
//! Eight hundred rows with their attempts, their calls and an entry in each of seven indexes are some hundreds of
//! pages, and more in an old ledger, where every account's entries lie elsewhere: too much for an acknowledgement to
//! wait for. One record says the same in a few pages. The writer makes rows of it right after it was synced, before it
//! takes anything else; a start does before anybody reads. Readers wait for that, so nobody ever sees an emergency
//! without its deliveries.

use std::collections::BTreeMap;

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ToSql, params, params_from_iter};

use super::LedgerError;
use super::rows;
use super::write::{Tally, exec, wrong};
use crate::core::change::Change;
use crate::core::delivery::{Delivery, State};

/// A commit with fewer new deliveries than this is written as rows at once.
const WORTH_IT: usize = 32;

/// Deliveries and calls, gathered for one record.
#[derive(Default)]
pub struct Intake {
    deliveries: Rows,
    spends: BTreeMap<(String, i64), u32>,
}

impl Intake {
    /// Whether a commit is large enough for its deliveries to become rows later.
    pub fn suits(changes: &[Change]) -> bool {
        changes.iter().filter(|c| matches!(c, Change::Add(_))).count() >= WORTH_IT
    }

    pub fn add(&mut self, delivery: &Delivery) -> Result<(), LedgerError> {
        rows::with_values(delivery, |values| self.deliveries.push(values)).map_err(wrong)
    }

    /// Calls of one window are one entry, however many deliveries they are of.
    pub fn spend(&mut self, key: &str, window: i64, calls: u32) {
        *self.spends.entry((key.to_owned(), window)).or_default() += calls;
    }

    /// Writes the record.
    pub fn write(self, db: &Connection) -> Result<(), LedgerError> {
        let columns = format!("{}, id", *rows::DELIVERY);
        let spends: Vec<_> = self.spends.iter().map(|((key, window), calls)| (key, window, calls)).collect();
        let spends = serde_json::to_string(&spends).expect("calls are text and numbers");
        let sum = sum_of(&columns, &self.deliveries.bytes, &spends);
        exec(
            db,
            "INSERT INTO intake (columns, deliveries, spends, sum) VALUES ($1, $2, $3, $4)",
            params![columns, self.deliveries.bytes, spends, sum],
        )
    }
}

fn sum_of(columns: &str, deliveries: &[u8], spends: &str) -> i64 {
    let mut sum = flate2::Crc::new();
    for part in [columns.as_bytes(), deliveries, spends.as_bytes()] {
        sum.update(part);
    }
    i64::from(sum.sum())
}

/// Makes rows of every record there is, in one transaction. A ledger that is new, or older than records, has none.
pub fn carry_out(db: &mut Connection) -> Result<(), LedgerError> {
    let there = db.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'intake'", [], |r| r.get::<_, i64>(0));
    if there.map_err(wrong)? == 0 {
        return Ok(());
    }
    let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(wrong)?;
    let records: Vec<(i64, String, Vec<u8>, String, i64)> = transaction
        .prepare_cached("SELECT id, columns, deliveries, spends, sum FROM intake ORDER BY id")
        .and_then(|mut s| s.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)))?.collect())
        .map_err(wrong)?;
    let mut tally = Tally::default();
    for (id, columns, deliveries, spends, sum) in &records {
        if sum_of(columns, deliveries, spends) != *sum {
            return Err(LedgerError::Broken(format!("record {id} of its intake does not have its sum")));
        }
        make_rows(&transaction, &mut tally, columns, deliveries)?;
        let odd = || LedgerError::Broken(format!("the calls of record {id} of its intake cannot be read"));
        let spends: Vec<(String, i64, u32)> = serde_json::from_str(spends).map_err(|_| odd())?;
        for (key, window, calls) in &spends {
            super::write::spend(&transaction, key, *window, *calls)?;
        }
        exec(&transaction, "DELETE FROM intake WHERE id = $1", [id])?;
    }
    tally.write(&transaction)?;
    transaction.commit().map_err(wrong)
}

fn make_rows(db: &Connection, tally: &mut Tally, columns: &str, deliveries: &[u8]) -> Result<(), LedgerError> {
    let names: Vec<&str> = columns.split(", ").collect();
    let at = |name: &str| names.iter().position(|n| *n == name).ok_or_else(unreadable);
    let (id, state, begun) = (at("id")?, at("state")?, at("begun_at")?);
    let marks: Vec<String> = (1..=names.len()).map(|n| format!("${n}")).collect();
    let marks = marks.join(", ");
    let sql =
        format!("INSERT INTO deliveries ({columns}) VALUES ({marks}) ON CONFLICT (occurrence, account) DO NOTHING");
    let mut insert = db.prepare_cached(&sql).map_err(wrong)?;
    let mut rows = Reading { bytes: deliveries, above: vec![Value::Null; names.len()] };
    while let Some(values) = rows.next()? {
        // An (occurrence, account) that exists is left alone.
        if insert.execute(params_from_iter(values)).map_err(wrong)? == 0 {
            continue;
        }
        let Value::Text(word) = &values[state] else { return Err(unreadable()) };
        let state = State::parse(word).ok_or_else(unreadable)?;
        tally.count(state, 1);
        if state == State::Sending {
            let armed = "INSERT OR REPLACE INTO attempts (delivery, n, slot, outcome) VALUES ($1, 1, $2, 'armed')";
            exec(db, armed, params![values[id], values[begun]])?;
        }
    }
    Ok(())
}

fn unreadable() -> LedgerError {
    LedgerError::Broken("a record of its intake cannot be read".to_owned())
}

const SAME: u8 = 0;
const NULL: u8 = 1;
const INTEGER: u8 = 2;
/// Text of which the beginning and the end may be those of the text above it.
const TEXT: u8 = 3;

/// Rows of values, each value said by what differs from the one above it: deliveries of one emergency differ in their
/// ids and accounts and in little else.
#[derive(Default)]
struct Rows {
    bytes: Vec<u8>,
    above: Vec<Value>,
}

impl Rows {
    fn push(&mut self, values: &[&dyn ToSql]) -> rusqlite::Result<()> {
        self.above.resize(values.len(), Value::Null);
        for (value, above) in values.iter().zip(&mut self.above) {
            let value = value.to_sql()?;
            let value = match &value {
                ToSqlOutput::Borrowed(value) => *value,
                ToSqlOutput::Owned(value) => value.into(),
                _ => return Err(rows::odd(0, "a value of no simple kind")),
            };
            if value == ValueRef::from(&*above) {
                self.bytes.push(SAME);
                continue;
            }
            match value {
                ValueRef::Integer(number) => {
                    self.bytes.push(INTEGER);
                    self.bytes.extend(number.to_le_bytes());
                }
                ValueRef::Text(text) => said(&mut self.bytes, text, above),
                // Deliveries have no other kinds of value; a null stands for none.
                _ => self.bytes.push(NULL),
            }
            *above = value.try_into()?;
        }
        Ok(())
    }
}

fn said(bytes: &mut Vec<u8>, text: &[u8], above: &Value) {
    let above = if let Value::Text(above) = above { above.as_bytes() } else { &[] };
    let begins = text.iter().zip(above).take_while(|(a, b)| a == b).count();
    let (rest, above) = (&text[begins..], &above[begins..]);
    let ends = rest.iter().rev().zip(above.iter().rev()).take_while(|(a, b)| a == b).count();
    let own = &rest[..rest.len() - ends];
    bytes.push(TEXT);
    for length in [begins, ends, own.len()] {
        bytes.extend((length as u32).to_le_bytes());
    }
    bytes.extend_from_slice(own);
}

/// The same, read.
struct Reading<'a> {
    bytes: &'a [u8],
    above: Vec<Value>,
}

impl Reading<'_> {
    fn next(&mut self) -> Result<Option<&[Value]>, LedgerError> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        for n in 0..self.above.len() {
            match self.take(1)?[0] {
                SAME => {}
                NULL => self.above[n] = Value::Null,
                INTEGER => {
                    let number = self.take(8)?.try_into().map_err(|_| unreadable())?;
                    self.above[n] = Value::Integer(i64::from_le_bytes(number));
                }
                TEXT => {
                    let (begins, ends, own) = (self.length()?, self.length()?, self.length()?);
                    let own = self.take(own)?.to_vec();
                    let above = if let Value::Text(above) = &self.above[n] { above.as_bytes() } else { &[] };
                    let begins = above.get(..begins).ok_or_else(unreadable)?;
                    let ends = above.len().checked_sub(ends).and_then(|at| above.get(at..)).ok_or_else(unreadable)?;
                    let text = String::from_utf8([begins, &own, ends].concat()).map_err(|_| unreadable())?;
                    self.above[n] = Value::Text(text);
                }
                _ => return Err(unreadable()),
            }
        }
        Ok(Some(&self.above))
    }

    fn take<'a>(&mut self, n: usize) -> Result<&'a [u8], LedgerError>
    where
        Self: 'a,
    {
        let (taken, rest) = self.bytes.split_at_checked(n).ok_or_else(unreadable)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn length(&mut self) -> Result<usize, LedgerError> {
        let bytes = self.take(4)?.try_into().map_err(|_| unreadable())?;
        Ok(u32::from_le_bytes(bytes) as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;
    use crate::core::announcement::{AnnouncementId, Body, Content, ContentHash, OccurrenceId, Priority};
    use crate::core::change::{Actor, AnnouncementRow};
    use crate::core::delivery::{DeliveryId, Desired, Prepared};
    use crate::ledger::opening::connect;
    use crate::ledger::sqlite::Sqlite;
    use crate::ledger::write::{Head, apply};
    use crate::ledger::{Filter, Ledger as _};

    fn delivery(n: i64, now: crate::clock::Time) -> Delivery {
        let state = if n % 3 == 0 { State::Held } else { State::Sending };
        Delivery {
            id: DeliveryId(n),
            occurrence: OccurrenceId::from("flood"),
            announcement: AnnouncementId::from("flood"),
            account: format!("sina:上海/u{n}").as_str().into(),
            content: ContentHash::from("c"),
            priority: Priority::Emergency,
            state,
            cause: None,
            desired: Desired::Published,
            next_at: (n % 2 == 0).then_some(now),
            at: now,
            expires_at: None,
            attempt: u16::from(state == State::Sending),
            looks: 0,
            misses: 0,
            begun_at: (state == State::Sending).then_some(now),
            called_duplicate: false,
            doubted: None,
            one_look: n % 7 == 0,
            needs_person: false,
            prepared: (n % 5 > 0).then(|| {
                std::sync::Arc::new(Prepared {
                    text: format!("洪水{}", "，请避险".repeat((n % 2) as usize)),
                    title: None,
                    media: Vec::new(),
                    attached: Vec::new(),
                    key: format!("{n:032x}"),
                    site: (n % 3 == 0).then(|| "t.example".to_owned()),
                    baseline: Some(n.to_string()),
                })
            }),
            receipt: None,
            class: None,
            reason: None,
            lateness_ms: None,
            fence: 1,
        }
    }

    /// What a crash right after the acknowledgement leaves, and the start after it.
    #[tokio::test]
    async fn r02_what_was_acknowledged_as_one_record_is_rows_after_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fabu.db");
        let clock = Clock::real();
        let now = clock.now();
        drop(Sqlite::open(&path, &clock).unwrap());
        let rows: Vec<Delivery> = (1..=100).map(|n| delivery(n, now)).collect();
        let content =
            Content { body: Body::said("洪水"), accounts: rows.iter().map(|d| d.account.clone()).collect() };
        let (id, hash) = (AnnouncementId::from("flood"), content.hash());
        let announcement = AnnouncementRow {
            id: id.clone(),
            file: String::new(),
            line: 0,
            content: hash.clone(),
            body: content.body.hash(),
            edited: None,
            priority: Priority::Emergency,
            supersedes: None,
            planned_to: None,
            withdrawn: None,
            first_seen: now,
            follows: None,
            ended: None,
            version: 1,
        };
        let changes: Vec<Change> = [
            Change::Content(hash.clone(), Box::new(content)),
            Change::Announcement(Box::new(announcement)),
            Change::Occurrence { id: OccurrenceId::once(&id), announcement: id, content: hash, release: now },
        ]
        .into_iter()
        .chain(rows.iter().cloned().map(|d| Change::Add(Box::new(d))))
        .chain((0..100).map(|_| Change::Spend { key: "host sina".to_owned(), window: 7, calls: 2 }))
        .collect();
        {
            let mut db = unlocked(&path).await;
            let transaction = db.transaction().unwrap();
            let (mut head, mut tally) = (Head::read(&transaction).unwrap(), Tally::default());
            let mut intake = Intake::default();
            apply(&transaction, &mut head, &mut tally, Some(&mut intake), &Actor::Daemon, &changes, now).unwrap();
            let size = intake.deliveries.bytes.len();
            intake.write(&transaction).unwrap();
            transaction.commit().unwrap();
            assert!(size < 100 * 200, "{size} bytes are much for what differs");
        }
        for start in 0..2 {
            let ledger = loop {
                match Sqlite::open(&path, &clock) {
                    Ok(ledger) => break ledger,
                    Err(LedgerError::InUse(_)) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            };
            let mut found = ledger.deliveries(Filter { max: 1000, ..Filter::default() }).await.unwrap();
            found.sort_by_key(|d| d.id);
            assert!(found == rows, "start {start}: every column as it was");
            assert_eq!(
                ledger.snapshot().await.unwrap().budgets,
                [("host sina".to_owned(), 7, 200)],
                "and no call twice"
            );
            assert_eq!(ledger.counts().await.unwrap()[&State::Held], 33);
            assert_eq!(ledger.attempts(DeliveryId(1)).await.unwrap().len(), 1);
            assert!(ledger.attempts(DeliveryId(3)).await.unwrap().is_empty(), "what is held was not tried");
        }
    }

    async fn unlocked(path: &std::path::Path) -> Connection {
        loop {
            match crate::ledger::marker::lock(path) {
                Ok(_) => return connect(path, false).unwrap(),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = proptest::collection::vec(proptest::sample::select(vec!["洪", "水", "a", "\u{1f30a}"]), 0..6);
        prop_oneof![
            Just(Value::Null),
            (0..3i64).prop_map(Value::Integer),
            any::<i64>().prop_map(Value::Integer),
            text.prop_map(|parts| Value::Text(parts.concat())),
        ]
    }

    proptest! {
        #[test]
        fn rows_are_read_as_they_were_said_and_spoilt_ones_are_refused(
            rows in proptest::collection::vec(proptest::collection::vec(value(), 4), 1..12),
            at in any::<prop::sample::Index>(), bit in 0..8u8,
        ) {
            let mut said = Rows::default();
            for row in &rows {
                let values: Vec<&dyn ToSql> = row.iter().map(|v| v as &dyn ToSql).collect();
                said.push(&values).unwrap();
            }
            let mut reading = Reading { bytes: &said.bytes, above: vec![Value::Null; 4] };
            for row in &rows {
                prop_assert_eq!(reading.next().unwrap().unwrap(), row.as_slice());
            }
            prop_assert!(reading.next().unwrap().is_none());
            let mut spoilt = said.bytes.clone();
            let at = at.index(spoilt.len());
            spoilt[at] ^= 1 << bit;
            let mut reading = Reading { bytes: &spoilt, above: vec![Value::Null; 4] };
            // Whatever it says now, it ends: with rows, or with a refusal.
            while let Ok(Some(_)) = reading.next() {}
        }
    }
}
