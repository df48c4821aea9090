//! Core types ↔ columns. One list of columns serves reading and writing, so they cannot drift apart.

use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};

use rusqlite::types::{ToSqlOutput, Type, ValueRef};
use rusqlite::{Row, Statement, ToSql};

use crate::clock::{Time, from_micros};
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, ContentHash, OccurrenceId, Part, Priority};
use crate::core::change::{AnnouncementRow, Withdrawal};
use crate::core::delivery::{Cause, Class, Delivery, DeliveryId, Desired, State};

/// The columns of a delivery after its id: those that name it and never change, then those a step may change.
pub const FIXED: [&str; 3] = ["occurrence", "announcement", "account"];
pub const STEPPED: [&str; 23] = [
    "priority",
    "content",
    "state",
    "cause",
    "desired",
    "next_at",
    "at",
    "expires_at",
    "attempt",
    "looks",
    "misses",
    "begun_at",
    "flags",
    "doubted",
    "receipt",
    "post_id",
    "class",
    "reason",
    "lateness_us",
    "fence",
    "sum",
    "prepared",
    "prepared_sum",
];
/// `prepared` and its sum, the last of them: most steps leave them as they are.
pub const OF_PREPARED: usize = 2;
/// Columns that `sum` is over: all before it.
const SUMMED: usize = FIXED.len() + STEPPED.len() - OF_PREPARED - 1;

/// All of them, as `delivery` reads them behind the id.
pub static DELIVERY: LazyLock<String> = LazyLock::new(|| [FIXED.join(", "), STEPPED.join(", ")].join(", "));

pub const ANNOUNCEMENT: &str = "id, file, line, content, body, edited, priority, supersedes, planned_to, withdrawn, first_seen, follows, part, ended, version";

const DUPLICATE: i64 = 1;
const ONE_LOOK: i64 = 2;
const NEEDS_PERSON: i64 = 4;

pub fn micros(time: Time) -> i64 {
    time.timestamp_micros()
}

/// Binds the values of `FIXED` from number 1 on; returns the next number.
pub fn bind_fixed(statement: &mut Statement<'_>, d: &Delivery) -> rusqlite::Result<usize> {
    statement.raw_bind_parameter(1, &d.occurrence.0)?;
    statement.raw_bind_parameter(2, &d.announcement.0)?;
    statement.raw_bind_parameter(3, &d.account.0)?;
    Ok(4)
}

/// Binds the values of `STEPPED` from `first` on, `prepared` only if it is to be written; returns the next number.
pub fn bind_stepped(
    statement: &mut Statement<'_>,
    first: usize,
    d: &Delivery,
    keeps_prepared: bool,
) -> rusqlite::Result<usize> {
    let sum = with_summed(d, |values| {
        for (n, value) in values[FIXED.len()..].iter().enumerate() {
            statement.raw_bind_parameter(first + n, value)?;
        }
        sum_of(values)
    })?;
    let next = first + SUMMED - FIXED.len();
    statement.raw_bind_parameter(next, sum)?;
    if keeps_prepared {
        return Ok(next + 1);
    }
    let prepared = d.prepared.as_ref().map(to_json);
    statement.raw_bind_parameter(next + 1, &prepared)?;
    statement.raw_bind_parameter(next + 2, sum_of(&[&prepared])?)?;
    Ok(next + 3)
}

/// Gives every value of a delivery, in the order of `DELIVERY`, and its id behind them.
pub fn with_values<T>(d: &Delivery, take: impl FnOnce(&[&dyn ToSql]) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    with_summed(d, |values| {
        let prepared = d.prepared.as_ref().map(to_json);
        let (sum, prepared_sum) = (sum_of(values)?, sum_of(&[&prepared])?);
        let mut values = values.to_vec();
        let further: [&dyn ToSql; 4] = [&sum, &prepared, &prepared_sum, &d.id.0];
        values.extend(further);
        take(&values)
    })
}

/// Gives the values that `sum` is over, in the order of `DELIVERY`.
fn with_summed<T>(
    d: &Delivery,
    take: impl FnOnce(&[&dyn ToSql; SUMMED]) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let flag = |is_set: bool, flag: i64| if is_set { flag } else { 0 };
    let flags = flag(d.called_duplicate, DUPLICATE) | flag(d.one_look, ONE_LOOK) | flag(d.needs_person, NEEDS_PERSON);
    let post_id = d.receipt.as_ref().map(|r| r.post_id.as_str()).filter(|id| !id.is_empty());
    take(&[
        &d.occurrence.0,
        &d.announcement.0,
        &d.account.0,
        &priority_number(d.priority),
        &d.content.0,
        &d.state.as_str(),
        &d.cause.map(Cause::as_str),
        &desired_number(d.desired),
        &d.next_at.map(micros),
        &micros(d.at),
        &d.expires_at.map(micros),
        &d.attempt,
        &d.looks,
        &d.misses,
        &d.begun_at.map(micros),
        &flags,
        &d.doubted.as_ref().map(|hash| &hash.0),
        &d.receipt.as_ref().map(to_json),
        &post_id,
        &d.class.map(Class::as_str),
        &d.reason.as_ref().map(to_json),
        &d.lateness_ms.map(|ms| (ms * 1000.0).round() as i64),
        &d.fence,
    ])
}

/// The checksum of values, kept beside them: what a disk has changed in a row is not acted on.
fn sum_of(values: &[&dyn ToSql]) -> rusqlite::Result<i64> {
    let mut bytes = Vec::with_capacity(1024);
    for value in values {
        match value.to_sql()? {
            ToSqlOutput::Borrowed(value) => add_to(&mut bytes, value),
            ToSqlOutput::Owned(value) => add_to(&mut bytes, (&value).into()),
            _ => return Err(odd(0, "a value of no simple kind")),
        }
    }
    Ok(sum_over(&bytes))
}

/// Over all at once: a call for each of two dozen small values would cost as much as the statement that writes them.
fn sum_over(bytes: &[u8]) -> i64 {
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    i64::from(sum.sum())
}

fn add_to(sum: &mut Vec<u8>, value: ValueRef<'_>) {
    let (kind, bytes): (u8, &[u8]) = match &value {
        ValueRef::Null => (0, &[]),
        ValueRef::Integer(number) => (1, &number.to_le_bytes()),
        ValueRef::Real(number) => (2, &number.to_le_bytes()),
        ValueRef::Text(bytes) => (3, bytes),
        ValueRef::Blob(bytes) => (4, bytes),
    };
    sum.push(kind);
    sum.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    sum.extend_from_slice(bytes);
}

/// Refuses a row whose columns are not those its sum was taken of; one of before there were sums passes.
fn checked(row: &Row<'_>, columns: RangeInclusive<usize>, kept: usize) -> rusqlite::Result<()> {
    let Some(kept) = row.get::<_, Option<i64>>(kept)? else { return Ok(()) };
    let mut bytes = Vec::with_capacity(1024);
    for column in columns {
        add_to(&mut bytes, row.get_ref(column)?);
    }
    if sum_over(&bytes) == kept { Ok(()) } else { Err(odd(0, "a delivery's columns do not have their sum")) }
}

fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("rows have only text keys and finite numbers")
}

/// Reads `id, DELIVERY`.
pub fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    checked(row, 1..=SUMMED, SUMMED + 1)?;
    checked(row, SUMMED + 2..=SUMMED + 2, SUMMED + 3)?;
    let state: String = row.get(6)?;
    let cause: Option<String> = row.get(7)?;
    let flags: i64 = row.get(16)?;
    let doubted: Option<Arc<str>> = row.get(17)?;
    let class: Option<String> = row.get(20)?;
    let lateness: Option<i64> = row.get(22)?;
    let cause = cause.map(|c| Cause::parse(&c).ok_or_else(|| odd(7, "an unknown cause"))).transpose()?;
    Ok(Delivery {
        id: DeliveryId(row.get(0)?),
        occurrence: OccurrenceId(row.get(1)?),
        announcement: AnnouncementId(row.get(2)?),
        account: AccountId(row.get(3)?),
        priority: priority_of(row.get(4)?),
        content: ContentHash(row.get(5)?),
        state: State::parse(&state).ok_or_else(|| odd(6, "an unknown state"))?,
        cause,
        desired: desired_of(row.get(8)?),
        next_at: time(row, 9)?,
        at: from_micros(row.get(10)?),
        expires_at: time(row, 11)?,
        attempt: row.get(12)?,
        looks: row.get(13)?,
        misses: row.get(14)?,
        begun_at: time(row, 15)?,
        called_duplicate: flags & DUPLICATE != 0,
        doubted: doubted.map(ContentHash),
        one_look: flags & ONE_LOOK != 0,
        needs_person: flags & NEEDS_PERSON != 0,
        prepared: json(row, SUMMED + 2)?,
        receipt: json(row, 18)?,
        class: class.and_then(|c| Class::parse(&c)),
        reason: json(row, 21)?,
        lateness_ms: lateness.map(|us| us as f64 / 1000.0),
        fence: row.get(23)?,
    })
}

/// Reads `ANNOUNCEMENT`.
pub fn announcement(row: &Row<'_>) -> rusqlite::Result<AnnouncementRow> {
    let edited: Option<Arc<str>> = row.get(5)?;
    let supersedes: Option<Arc<str>> = row.get(7)?;
    let (follows, part): (Option<Arc<str>>, Option<String>) = (row.get(11)?, row.get(12)?);
    Ok(AnnouncementRow {
        id: AnnouncementId(row.get(0)?),
        file: row.get(1)?,
        line: row.get(2)?,
        content: ContentHash(row.get(3)?),
        body: ContentHash(row.get(4)?),
        edited: edited.map(ContentHash),
        priority: priority_of(row.get(6)?),
        supersedes: supersedes.map(AnnouncementId),
        planned_to: time(row, 8)?,
        withdrawn: row.get::<_, Option<String>>(9)?.map(Withdrawal::parse),
        first_seen: from_micros(row.get(10)?),
        follows: follows.zip(part.as_deref().and_then(Part::parse)).map(|(id, part)| (AnnouncementId(id), part)),
        ended: json(row, 13)?,
        version: row.get(14)?,
    })
}

pub fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Time>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(from_micros))
}

pub fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    text.map(|t| serde_json::from_str(&t))
        .transpose()
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(e)))
}

pub fn odd(column: usize, what: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, what.into())
}

pub fn priority_number(priority: Priority) -> i64 {
    match priority {
        Priority::Emergency => 0,
        Priority::Important => 1,
        Priority::Routine => 2,
    }
}

pub fn priority_of(number: i64) -> Priority {
    match number {
        0 => Priority::Emergency,
        1 => Priority::Important,
        _ => Priority::Routine,
    }
}

fn desired_number(desired: Desired) -> i64 {
    match desired {
        Desired::Published => 0,
        Desired::Stopped => 1,
        Desired::Removed => 2,
    }
}

fn desired_of(number: i64) -> Desired {
    match number {
        0 => Desired::Published,
        1 => Desired::Stopped,
        _ => Desired::Removed,
    }
}
