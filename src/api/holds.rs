//! Holds over the socket: begun, listed, ended, and what they kept back let go.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;
use utoipa::ToSchema;

use super::actions::Nothing;
use super::peer::{Allowed, DUTY, VIEW};
use super::problem::Problem;
use super::sent::{Named, Sent, body};
use crate::clock::Time;
use crate::core::gate::{Choice, Hold};
use crate::core::words::{Words, words};
use crate::daemon::Inner;
use crate::daemon::acts::ActError;
use crate::daemon::answers::{Delivery, Held, HoldOver, Holding, Page, Unheld};
use crate::input::values;

type Answer<T> = Result<axum::Json<T>, Problem>;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Begin {
    /// Why it is silent.
    #[schema(value_type = String, pattern = r"\S")]
    reason: Option<String>,
    /// An instant, local or RFC 3339, the next hour (`20:00`), or how long (`2h`). Without it the hold lasts until it is ended.
    until: Option<String>,
    /// Selectors; without any, every account.
    #[serde(default)]
    to: Vec<String>,
    #[serde(default)]
    except: Vec<String>,
}

pub async fn begin(
    Allowed(peer, _): Allowed<DUTY>,
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
    Sent(bytes): Sent,
) -> Answer<Holding> {
    let Begin { reason, until, to, except } = body(&headers, &bytes)?;
    let invalid = |field: &'static str, said| Problem::from(ActError::Invalid(field.into(), said));
    let reason = reason.filter(|r| !r.trim().is_empty());
    let reason = reason.ok_or_else(|| {
        invalid("reason", Words::new("要有 `reason`：为什么静默", "a `reason` is needed: why is it silent"))
    })?;
    let now = inner.clock.now();
    let until = until.map(|text| ends(&inner, &text, now).map_err(|said| invalid("until", said))).transpose()?;
    let named = match (to.is_empty(), except.is_empty()) {
        (true, true) => None,
        (true, false) => Some(Choice { to: vec!["**".to_owned()], except }),
        (false, _) => Some(Choice { to, except }),
    };
    let local = now.with_timezone(&inner.config().settings.zone);
    let id = format!("hold-{}-{:04x}", local.format("%Y%m%d-%H%M%S"), inner.clock.random() & 0xffff);
    let actor = peer.actor();
    let owner = actor.to_string();
    let hold =
        Hold { id, reason, until, accounts: None, named, owner, begun: now, post: None, ended: None, version: 1 };
    Ok(axum::Json(inner.hold(&actor, hold).await?))
}

/// When a hold ends: an instant, the next time it is that hour, or a time from now on.
fn ends(inner: &Inner, text: &str, now: Time) -> Result<Time, Words> {
    let zone = inner.config().settings.zone;
    let until = match values::duration(text) {
        Ok(lasts) => crate::daemon::holds::until(now, lasts),
        Err(_) => match next_hour(text, now, zone) {
            Some(next) => Some(next),
            None => Some(values::instant(text, zone)?.0),
        },
    };
    let until = until.filter(|u| *u > now);
    until.ok_or_else(|| words!("`{text}` 已经过去", "`{text}` is past"))
}

/// `20:00` is today's, or tomorrow's when today's is past.
fn next_hour(text: &str, now: Time, zone: chrono_tz::Tz) -> Option<Time> {
    let hour = chrono::NaiveTime::parse_from_str(text.trim(), "%H:%M").ok()?.format("%H:%M");
    let today = now.with_timezone(&zone).date_naive();
    let on = |day| values::instant(&format!("{day} {hour}"), zone).ok().map(|(at, _)| at);
    [Some(today), today.succ_opt()].into_iter().flatten().filter_map(on).find(|at| *at > now)
}

/// The holds that stand, each with how many it keeps back, what was out before it, what is in flight.
pub async fn list(_: Allowed<VIEW>, State(inner): State<Arc<Inner>>) -> Answer<Page<Holding>> {
    let _turn = inner.looks_at_held.acquire().await;
    let mut items = Vec::new();
    for hold in inner.holds() {
        items.push(inner.kept_by(&hold).await?);
    }
    Ok(axum::Json(Page { items, next: None }))
}

pub async fn end(
    Allowed(peer, _): Allowed<DUTY>,
    State(inner): State<Arc<Inner>>,
    Named(id): Named,
) -> Answer<HoldOver> {
    Ok(axum::Json(inner.end_hold(&peer.actor(), &id).await?))
}

/// What was kept back, with its age, the moment it expires, and what else would speak there now.
pub async fn held(_: Allowed<VIEW>, State(inner): State<Arc<Inner>>) -> Answer<Page<Held>> {
    let _turn = inner.looks_at_held.acquire().await;
    let now = inner.clock.now();
    let mut items = Vec::new();
    let held = inner.held().await?;
    let mut clashes = inner.clashes(&held).await?;
    for delivery in held {
        items.push(Held {
            age_s: (now - delivery.at).num_seconds().max(0),
            expires_at: delivery.expires_at,
            clashes: clashes.remove(&delivery.id).unwrap_or_default(),
            delivery: Delivery::of(&delivery),
        });
    }
    Ok(axum::Json(Page { items, next: None }))
}

pub async fn unhold(
    Allowed(peer, _): Allowed<DUTY>,
    State(inner): State<Arc<Inner>>,
    Named(id): Named,
    headers: HeaderMap,
    Sent(bytes): Sent,
) -> Answer<Unheld> {
    let Nothing {} = body(&headers, &bytes)?;
    Ok(axum::Json(inner.unhold(&peer.actor(), Some(&id)).await?))
}

pub async fn unhold_all(
    Allowed(peer, _): Allowed<DUTY>,
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
    Sent(bytes): Sent,
) -> Answer<Unheld> {
    let Nothing {} = body(&headers, &bytes)?;
    Ok(axum::Json(inner.unhold(&peer.actor(), None).await?))
}

/// A time as a field of a request gives it.
pub(super) fn lasting(field: &'static str, text: &str) -> Result<Duration, Problem> {
    values::duration(text).map_err(|said| Problem::from(ActError::Invalid(field.into(), said)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_the_next_one_where_the_city_is() {
        let now: Time = "2026-11-24T11:30:00Z".parse().unwrap();
        let next = |text| next_hour(text, now, chrono_tz::Asia::Shanghai).map(|at| at.to_rfc3339());
        assert_eq!(next("20:00").as_deref(), Some("2026-11-24T12:00:00+00:00"));
        assert_eq!(next("6:30").as_deref(), Some("2026-11-24T22:30:00+00:00"));
        assert_eq!(next("19:30").as_deref(), Some("2026-11-25T11:30:00+00:00"), "it is half past seven now");
        assert_eq!(next("24:00"), None);
        assert_eq!(next("2h"), None);
    }
}
