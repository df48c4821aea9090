//! The requests that read: state, lists, the event stream, the audit trail, figures.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::peer::{Allowed, NONE, VIEW};
use super::problem::Problem;
use super::sent::Named;
use crate::clock::Time;
use crate::core::change::Seq;
use crate::core::words::{Words, shown, words};
use crate::daemon::Inner;
use crate::daemon::acts::no_announcement;
use crate::daemon::answers::{
    Announcement, AnnouncementTold, Delivery, DeliveryTold, Fate, Head, Health, Page, Plan, Status, Told, Trail,
};
use crate::ledger::Filter;

type Answer<T> = Result<axum::Json<T>, Problem>;

/// Items of a page, unless fewer are asked for.
pub const PAGE: usize = 200;
/// More would keep the ledger's readers busy for too long.
pub const LONGEST_PAGE: usize = 1000;
pub const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub async fn health(_: Allowed<NONE>, State(inner): State<Arc<Inner>>) -> axum::Json<Health> {
    axum::Json(inner.health())
}

pub async fn status(_: Allowed<VIEW>, State(inner): State<Arc<Inner>>) -> Answer<Status> {
    Ok(axum::Json(inner.status().await?))
}

/// The filters of a list and its page, and the states it is asked for.
fn filter(query: Option<String>, known: &[&str]) -> Result<(Filter, Vec<String>), Problem> {
    let mut filter = Filter { max: PAGE, ..Filter::default() };
    let (mut states, mut seen) = (Vec::new(), BTreeSet::new());
    for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let safe = shown(&key);
        if !known.contains(&&*key) {
            let said = words!("没有筛选项 `{safe}`", "there is no filter `{safe}`");
            return Err(Problem::unfit(safe, said));
        }
        if key != "state" && !seen.insert(key.clone()) {
            return Err(Problem::unfit(safe, words!("`{key}` 给了两次", "`{key}` is there twice")));
        }
        let odd =
            || Problem::unfit(shown(&key), words!("`{key}` 的值不对", "the value of `{key}` is not one it takes"));
        let value = value.into_owned();
        match &*key {
            "announcement" => filter.announcement = Some(value),
            "account" => filter.account = Some(value),
            "unit" => filter.unit = Some(value),
            "cursor" => filter.after = Some(value),
            "limit" => {
                let limit = value.parse::<usize>().ok().filter(|n| (1..=LONGEST_PAGE).contains(n));
                filter.max = limit.ok_or_else(odd)?;
            }
            "since" => filter.since = Some(value.parse::<Time>().map_err(|_| odd())?),
            "priority" => filter.priority = Some(named(value).ok_or_else(odd)?),
            _ => states.push(value),
        }
    }
    Ok((filter, states))
}

/// The value that is called so, of those with names.
fn named<T: DeserializeOwned>(name: String) -> Option<T> {
    serde_json::from_value(Value::String(name)).ok()
}

fn all_named<T: DeserializeOwned>(states: Vec<String>) -> Result<Vec<T>, Problem> {
    let one = |word: String| {
        let safe = shown(&word);
        let said = || words!("没有状态 `{safe}`", "there is no state `{safe}`");
        named(word).ok_or_else(|| Problem::unfit("state", said()))
    };
    states.into_iter().map(one).collect()
}

/// A cursor or an event's number: digits and nothing else.
fn number(text: &str) -> Option<Seq> {
    Some(text).filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

/// After which number a list goes on.
fn goes_on(filter: &Filter) -> Result<Seq, Problem> {
    let odd = || Problem::unfit("cursor", Words::new("没有这样的 `cursor`", "there is no such `cursor`"));
    filter.after.as_deref().map_or(Ok(0), |text| number(text).ok_or_else(odd))
}

pub async fn announcements(
    _: Allowed<VIEW>,
    State(inner): State<Arc<Inner>>,
    RawQuery(query): RawQuery,
) -> Answer<Page<Announcement>> {
    let (filter, states) = filter(query, &["state", "priority", "unit", "since", "cursor", "limit"])?;
    let states: Vec<Fate> = all_named(states)?;
    let max = filter.max;
    let found = inner.ledger.announcements(filter).await?;
    let next = (found.len() == max).then(|| found.last().map(|a| a.row.id.to_string())).flatten();
    let mut items = Vec::new();
    for announced in &found {
        let state = inner.fate(announced).await?;
        if states.is_empty() || states.contains(&state) {
            items.push(Announcement::of(announced, state));
        }
    }
    Ok(axum::Json(Page { items, next }))
}

/// An announcement; an emergency that is out also as a CAP 1.2 alert, to whoever accepts one.
pub async fn announcement(
    _: Allowed<VIEW>,
    State(inner): State<Arc<Inner>>,
    Named(id): Named,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let accepts = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    if accepts.contains("application/cap+xml") {
        let alert = inner.as_alert(&id).await?;
        let bytes = crate::input::cap::write(&alert);
        return Ok(([(header::CONTENT_TYPE, "application/cap+xml")], bytes).into_response());
    }
    let filter = Filter { announcement: Some(id.clone()), max: 1, ..Filter::default() };
    let none = || Problem::not_found(no_announcement(&id));
    let found = inner.ledger.announcements(filter).await?.pop().ok_or_else(none)?;
    let announcement = Announcement::of(&found, inner.fate(&found).await?);
    let content = inner.ledger.content(found.row.content.clone()).await?;
    let said = content.map(|content| inner.said_to(&found.row, content));
    Ok(axum::Json(AnnouncementTold { announcement, said }).into_response())
}

pub async fn deliveries(
    _: Allowed<VIEW>,
    State(inner): State<Arc<Inner>>,
    RawQuery(query): RawQuery,
) -> Answer<Page<DeliveryTold>> {
    let known = ["announcement", "account", "state", "unit", "priority", "since", "cursor", "limit"];
    let (mut filter, states) = filter(query, &known)?;
    filter.states = all_named(states)?;
    goes_on(&filter)?;
    let max = filter.max;
    let found = inner.ledger.deliveries(filter).await?;
    let next = (found.len() == max).then(|| found.last().map(|d| d.id.0.to_string())).flatten();
    let mut items = Vec::with_capacity(found.len());
    // One delivery's own page has its attempts.
    let with_attempts = found.len() <= 20;
    for delivery in &found {
        let history = if with_attempts { Some(inner.ledger.attempts(delivery.id).await?) } else { None };
        items.push(DeliveryTold { delivery: Delivery::of(delivery), history });
    }
    Ok(axum::Json(Page { items, next }))
}

pub async fn audit(_: Allowed<VIEW>, State(inner): State<Arc<Inner>>, RawQuery(query): RawQuery) -> Answer<Trail> {
    let (filter, _) = filter(query, &["cursor", "limit"])?;
    let items = inner.ledger.events(goes_on(&filter)?, filter.max).await?;
    let next = (items.len() == filter.max).then(|| items.last().map(|e| e.seq.to_string())).flatten();
    let (seq, head) = inner.ledger.head();
    Ok(axum::Json(Trail { items, next, head: Head { seq, head } }))
}

pub async fn plan(_: Allowed<VIEW>, State(inner): State<Arc<Inner>>) -> Answer<Plan> {
    Ok(axum::Json(inner.plan_now().await?))
}

/// The description of all this, made once.
pub async fn description(_: Allowed<VIEW>) -> Response {
    static DESCRIPTION: LazyLock<String> = LazyLock::new(super::routes::description);
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION.as_str()).into_response()
}

pub async fn metrics(_: Allowed<VIEW>, State(inner): State<Arc<Inner>>) -> Result<Response, Problem> {
    let text = inner.metrics.text(&inner.ledger.counts().await?);
    Ok(([(header::CONTENT_TYPE, METRICS)], text).into_response())
}

/// Every change of state, from the one after `Last-Event-ID` on, or from now.
pub async fn events(
    _: Allowed<VIEW>,
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, std::convert::Infallible>>>, Problem> {
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok());
    let after: Seq = match last {
        Some(text) => number(text.trim()).ok_or_else(|| {
            Problem::malformed(Words::new("`Last-Event-ID` 应是数字", "`Last-Event-ID` has to be a number"))
        })?,
        None => inner.ledger.head().0,
    };
    // Of another ledger, or of one that was restored: going on from there would leave out what has come since.
    let head = inner.ledger.head().0;
    if after > head {
        let said = words!(
            "`Last-Event-ID` {after} 在账本的 {head} 之后：账本换过，请从头或从现在读起",
            "`Last-Event-ID` {after} is ahead of the ledger's {head}: it is another ledger; begin anew, or from now"
        );
        return Err(Problem::new(StatusCode::CONFLICT, said));
    }
    // Read from the ledger as the reader takes them: a slow one costs nobody any memory.
    let stream = futures_util::stream::unfold((inner, after, Vec::new()), |(inner, after, ready)| async move {
        let mut ready: Vec<crate::core::change::Recorded> = ready;
        while ready.is_empty() {
            if inner.stop.is_cancelled() {
                return None;
            }
            ready = inner.ledger.events(after, 256).await.ok()?;
            ready.reverse();
            if ready.is_empty() && inner.ledger.newer(after).await <= after {
                return None;
            }
        }
        let record = ready.pop()?;
        let body: Value = serde_json::from_str(&record.body).unwrap_or(Value::Null);
        let seq = record.seq;
        let told = Told { seq, at: record.at, actor: record.actor, subject: record.subject, body };
        let data = serde_json::to_string(&told).expect("an event has only text keys and finite numbers");
        let event = Event::default().id(seq.to_string()).event(record.kind).data(data);
        Some((Ok(event), (inner, seq, ready)))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

/// Unknown paths are unknown only to those who may look.
pub async fn nothing(_: Allowed<VIEW>) -> Problem {
    Problem::not_found(Words::new("没有这个路径", "there is nothing at this path"))
}

pub async fn wrong_method(_: Allowed<VIEW>) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        Words::new("这个路径不接受这种方法", "this path does not take this method"),
    )
}
