//! The requests that read: state, lists, the event stream, the audit trail, figures.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde_json::{Value, json};

use super::peer::{Allowed, VIEW};
use super::problem::Problem;
use super::sent::Named;
use crate::clock::Time;
use crate::core::announcement::Priority;
use crate::core::change::Seq;
use crate::core::delivery::State as Of;
use crate::core::words::{Words, words};
use crate::daemon::Inner;
use crate::daemon::status::{announcement_json, announcement_state, delivery_json};
use crate::ledger::Filter;

type Answer = Result<axum::Json<Value>, Problem>;

/// Items of a page, unless fewer are asked for.
const PAGE: usize = 200;

pub async fn health(State(inner): State<Arc<Inner>>) -> axum::Json<Value> {
    axum::Json(inner.health())
}

pub async fn status(_: Allowed<VIEW>, State(inner): State<Arc<Inner>>) -> Answer {
    Ok(axum::Json(inner.status().await?))
}

/// The filters of a list, and its page.
fn filter(query: Option<String>, known: &[&str]) -> Result<(Filter, Option<String>), Problem> {
    let mut filter = Filter { max: PAGE, ..Filter::default() };
    let mut state_word = None;
    for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let bad = |words| Problem { status: StatusCode::UNPROCESSABLE_ENTITY, words, field: None };
        if !known.contains(&&*key) {
            let safe = crate::core::words::shown(&key);
            return Err(bad(words!("没有筛选项 `{safe}`", "there is no filter `{safe}`")));
        }
        let odd = || bad(words!("`{key}` 的值不对", "the value of `{key}` is not one it takes"));
        let value = value.into_owned();
        match &*key {
            "announcement" => filter.announcement = Some(value),
            "account" => filter.account = Some(value),
            "unit" => filter.unit = Some(value),
            "cursor" => filter.after = Some(value),
            "limit" => filter.max = value.parse::<usize>().map_err(|_| odd())?.clamp(1, 1000),
            "since" => filter.since = Some(value.parse::<Time>().map_err(|_| odd())?),
            "priority" => {
                filter.priority = Some(match value.as_str() {
                    "routine" => Priority::Routine,
                    "important" => Priority::Important,
                    "emergency" => Priority::Emergency,
                    _ => return Err(odd()),
                });
            }
            _ => match Of::parse(&value) {
                Some(state) => filter.states.push(state),
                None => state_word = Some(value),
            },
        }
    }
    Ok((filter, state_word))
}

pub async fn announcements(_: Allowed<VIEW>, State(inner): State<Arc<Inner>>, RawQuery(query): RawQuery) -> Answer {
    let (mut filter, word) = filter(query, &["state", "priority", "unit", "since", "cursor", "limit"])?;
    let word = word.or_else(|| filter.states.first().map(|s| s.as_str().to_owned()));
    filter.states.clear();
    let (now, max) = (inner.clock.now(), filter.max);
    let prune = crate::daemon::lock(&inner.state).prune.clone();
    let found = inner.ledger.announcements(filter).await?;
    let next = (found.len() == max).then(|| found.last().map(|a| a.row.id.clone())).flatten();
    let items: Vec<Value> = found
        .iter()
        .filter(|a| word.as_deref().is_none_or(|w| w == announcement_state(a, now, prune.as_ref())))
        .map(|a| announcement_json(a, now, prune.as_ref()))
        .collect();
    Ok(axum::Json(json!({ "items": items, "next": next })))
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
    let safe = crate::core::words::shown(&id);
    let none = || Problem::not_found(words!("没有公告 `{safe}`", "there is no announcement `{safe}`"));
    let found = inner.ledger.announcements(filter).await?.pop().ok_or_else(none)?;
    let prune = crate::daemon::lock(&inner.state).prune.clone();
    let mut value = announcement_json(&found, inner.clock.now(), prune.as_ref());
    if let Some(content) = inner.ledger.content(found.row.content.clone()).await? {
        value["text"] = content.body.text.clone().into();
        value["content"] = json!(content.body);
        value["accounts"] = json!(content.accounts);
    }
    Ok(axum::Json(value).into_response())
}

pub async fn deliveries(_: Allowed<VIEW>, State(inner): State<Arc<Inner>>, RawQuery(query): RawQuery) -> Answer {
    let known = ["announcement", "account", "state", "unit", "priority", "since", "cursor", "limit"];
    let (filter, word) = filter(query, &known)?;
    if let Some(word) = word {
        let safe = crate::core::words::shown(&word);
        let said = words!("没有状态 `{safe}`", "there is no state `{safe}`");
        return Err(Problem { status: StatusCode::UNPROCESSABLE_ENTITY, words: said, field: Some("state".into()) });
    }
    let max = filter.max;
    let found = inner.ledger.deliveries(filter).await?;
    let next = (found.len() == max).then(|| found.last().map(|d| d.id.0.to_string())).flatten();
    let mut items = Vec::with_capacity(found.len());
    // One delivery's own page has its attempts.
    let with_attempts = found.len() <= 20;
    for delivery in &found {
        let mut item = delivery_json(delivery);
        if with_attempts {
            item["history"] = json!(inner.ledger.attempts(delivery.id).await?);
        }
        items.push(item);
    }
    Ok(axum::Json(json!({ "items": items, "next": next })))
}

pub async fn audit(_: Allowed<VIEW>, State(inner): State<Arc<Inner>>, RawQuery(query): RawQuery) -> Answer {
    let (filter, _) = filter(query, &["cursor", "limit"])?;
    let after: Seq = filter.after.as_deref().and_then(|a| a.parse().ok()).unwrap_or(0);
    let items = inner.ledger.events(after, filter.max).await?;
    let next = (items.len() == filter.max).then(|| items.last().map(|e| e.seq.to_string())).flatten();
    let (seq, head) = inner.ledger.head();
    Ok(axum::Json(json!({ "items": items, "next": next, "seq": seq, "head": head })))
}

pub async fn plan(_: Allowed<VIEW>, State(inner): State<Arc<Inner>>) -> Answer {
    Ok(axum::Json(inner.plan_now().await?))
}

pub async fn metrics(_: Allowed<VIEW>, State(inner): State<Arc<Inner>>) -> Result<Response, Problem> {
    let text = inner.metrics.text(&inner.ledger.counts().await?);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Every change of state, from the one after `Last-Event-ID` on, or from now.
pub async fn events(
    _: Allowed<VIEW>,
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, std::convert::Infallible>>>, Problem> {
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok());
    let after: Seq = match last {
        Some(text) => text.trim().parse().map_err(|_| {
            Problem::malformed(Words::new("`Last-Event-ID` 应是数字", "`Last-Event-ID` has to be a number"))
        })?,
        None => inner.ledger.head().0,
    };
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
        let data = json!({ "seq": record.seq, "at": record.at, "actor": record.actor, "subject": record.subject, "body": body });
        let event = Event::default().id(record.seq.to_string()).event(record.kind).data(data.to_string());
        Some((Ok(event), (inner, record.seq, ready)))
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
