//! Core types ↔ columns. One list of columns serves reading and writing, so they cannot drift apart.

use rusqlite::types::Type;
use rusqlite::{Row, ToSql};

use crate::clock::{Time, from_micros};
use crate::core::accounts::AccountId;
use crate::core::announcement::{AnnouncementId, ContentHash, OccurrenceId, Priority};
use crate::core::change::AnnouncementRow;
use crate::core::delivery::{Class, Delivery, DeliveryId, State, Wish};

/// The columns of a delivery after its id, in the order `values` gives them.
pub const DELIVERY: &str = "occurrence, announcement, account, content, priority, state, next_at, at, expires_at, wish, \
     attempt, looks, asked_until, begun_at, flags, prepared, receipt, post_id, class, reason, lateness_us, fence";

pub const ANNOUNCEMENT: &str =
    "id, file, line, content, body, edited, priority, supersedes, planned_to, withdrawn, first_seen";

const DUPLICATE: i64 = 1;
const NEVER_ARMED: i64 = 2;

pub fn micros(time: Time) -> i64 {
    time.timestamp_micros()
}

/// The values of `DELIVERY`.
pub fn values(d: &Delivery) -> Vec<Box<dyn ToSql>> {
    let json = |value: Option<String>| -> Box<dyn ToSql> { Box::new(value) };
    let flags = if d.called_duplicate { DUPLICATE } else { 0 } | if d.never_armed { NEVER_ARMED } else { 0 };
    let text = |v: &dyn erased::Json| v.json();
    vec![
        Box::new(d.occurrence.0.clone()),
        Box::new(d.announcement.0.clone()),
        Box::new(d.account.0.clone()),
        Box::new(d.content.0.clone()),
        Box::new(priority_number(d.priority)),
        Box::new(d.state.as_str()),
        Box::new(d.next_at.map(micros)),
        Box::new(micros(d.at)),
        Box::new(d.expires_at.map(micros)),
        Box::new(wish_number(d.wish)),
        Box::new(d.attempt),
        Box::new(d.looks),
        Box::new(d.asked_until.map(micros)),
        Box::new(d.begun_at.map(micros)),
        Box::new(flags),
        json(d.prepared.as_ref().map(|p| text(p))),
        json(d.receipt.as_ref().map(|r| text(r))),
        Box::new(d.receipt.as_ref().map(|r| r.post_id.clone()).filter(|id| !id.is_empty())),
        Box::new(d.class.map(Class::as_str)),
        json(d.reason.as_ref().map(|w| text(w))),
        Box::new(d.lateness_ms.map(|ms| (ms * 1000.0) as i64)),
        Box::new(d.fence),
    ]
}

/// serde as an object-safe trait, for the one list above.
mod erased {
    pub trait Json {
        fn json(&self) -> String;
    }
    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> String {
            serde_json::to_string(self).expect("rows have only text keys and finite numbers")
        }
    }
}

/// Reads `id, DELIVERY`.
pub fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let state: String = row.get(6)?;
    let flags: i64 = row.get(15)?;
    let class: Option<String> = row.get(19)?;
    let lateness: Option<i64> = row.get(21)?;
    Ok(Delivery {
        id: DeliveryId(row.get(0)?),
        occurrence: OccurrenceId(row.get(1)?),
        announcement: AnnouncementId(row.get(2)?),
        account: AccountId(row.get(3)?),
        content: ContentHash(row.get(4)?),
        priority: priority_of(row.get(5)?),
        state: State::parse(&state).ok_or_else(|| odd(6, "an unknown state"))?,
        next_at: time(row, 7)?,
        at: from_micros(row.get(8)?),
        expires_at: time(row, 9)?,
        wish: wish_of(row.get(10)?),
        attempt: row.get(11)?,
        looks: row.get(12)?,
        asked_until: time(row, 13)?,
        begun_at: time(row, 14)?,
        called_duplicate: flags & DUPLICATE != 0,
        never_armed: flags & NEVER_ARMED != 0,
        prepared: json(row, 16)?,
        receipt: json(row, 17)?,
        class: class.and_then(|c| Class::parse(&c)),
        reason: json(row, 20)?,
        lateness_ms: lateness.map(|us| us as f64 / 1000.0),
        fence: row.get(22)?,
    })
}

/// Reads `ANNOUNCEMENT`.
pub fn announcement(row: &Row<'_>) -> rusqlite::Result<AnnouncementRow> {
    let edited: Option<String> = row.get(5)?;
    let supersedes: Option<String> = row.get(7)?;
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
        withdrawn: row.get(9)?,
        first_seen: from_micros(row.get(10)?),
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

fn odd(column: usize, what: &'static str) -> rusqlite::Error {
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

fn wish_number(wish: Wish) -> i64 {
    match wish {
        Wish::Out => 0,
        Wish::Stop => 1,
        Wish::Gone => 2,
    }
}

fn wish_of(number: i64) -> Wish {
    match number {
        0 => Wish::Out,
        1 => Wish::Stop,
        _ => Wish::Gone,
    }
}
