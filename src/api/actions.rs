//! The requests that change something: POST, and what it was acknowledged with.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;
use utoipa::ToSchema;

use super::peer::{Allowed, EDIT, Peer, Role, denied};
use super::problem::Problem;
use super::sent::{Named, Sent, body};
use crate::core::announcement::Priority;
use crate::core::delivery::{DeliveryId, Desired};
use crate::core::words::Words;
use crate::daemon::Inner;
use crate::daemon::answers::{Candidates, Pruned, Resolved, Retrying, Withdrawn};
use crate::daemon::resolve::Said;

type Answer<T> = Result<axum::Json<T>, Problem>;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    account: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Resolve {
    /// The post's address; absent or null, and `post` too: it was not published.
    published: Option<String>,
    /// The id of the post that this address means, where its text is not what was sent; without an address one of the
    /// account's timeline.
    post: Option<String>,
    /// Shows which post it would be, and what would follow, and writes nothing.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Prune {
    accept: bool,
    plan: String,
}

/// An emergency is touched by the duty role alone.
async fn may_touch(inner: &Inner, id: &str, peer: &Peer, has: Role) -> Result<(), Problem> {
    if inner.priority_of(id).await? == Priority::Emergency && has < Role::Duty {
        return Err(denied(peer, Role::Duty, has));
    }
    Ok(())
}

pub async fn cancel(
    Allowed(peer, has): Allowed<EDIT>,
    State(inner): State<Arc<Inner>>,
    Named(id): Named,
    headers: HeaderMap,
    Sent(bytes): Sent,
) -> Answer<Withdrawn> {
    withdraw(&inner, &peer, has, &id, &headers, &bytes, Desired::Stopped).await
}

pub async fn delete(
    Allowed(peer, has): Allowed<EDIT>,
    State(inner): State<Arc<Inner>>,
    Named(id): Named,
    headers: HeaderMap,
    Sent(bytes): Sent,
) -> Answer<Withdrawn> {
    withdraw(&inner, &peer, has, &id, &headers, &bytes, Desired::Removed).await
}

/// Cancelling and deleting are one act with two ends.
async fn withdraw(
    inner: &Arc<Inner>,
    peer: &Peer,
    has: Role,
    id: &str,
    headers: &HeaderMap,
    bytes: &Bytes,
    desired: Desired,
) -> Answer<Withdrawn> {
    let Nothing {} = body(headers, bytes)?;
    may_touch(inner, id, peer, has).await?;
    Ok(axum::Json(inner.withdraw(&peer.actor(), id, desired).await?))
}

pub async fn retry(
    Allowed(peer, has): Allowed<EDIT>,
    State(inner): State<Arc<Inner>>,
    Named(id): Named,
    headers: HeaderMap,
    Sent(bytes): Sent,
) -> Answer<Retrying> {
    let Retry { account } = body(&headers, &bytes)?;
    may_touch(&inner, &id, &peer, has).await?;
    Ok(axum::Json(inner.retry(&peer.actor(), &id, account.as_deref()).await?))
}

pub async fn resolve(
    Allowed(peer, has): Allowed<EDIT>,
    State(inner): State<Arc<Inner>>,
    Named(id): Named,
    headers: HeaderMap,
    Sent(bytes): Sent,
) -> Answer<Resolved> {
    let Resolve { published, post, dry_run } = body(&headers, &bytes)?;
    let id = may_settle(&inner, &id, &peer, has).await?;
    Ok(axum::Json(inner.resolve(&peer.actor(), id, Said { published, post, dry_run }).await?))
}

/// The posts a person may choose from. The platform is asked, in the account's budget, so it takes more than role `view`.
pub async fn candidates(
    Allowed(peer, has): Allowed<EDIT>,
    State(inner): State<Arc<Inner>>,
    Named(id): Named,
) -> Answer<Candidates> {
    let id = may_settle(&inner, &id, &peer, has).await?;
    Ok(axum::Json(inner.candidates(id).await?))
}

/// The delivery of that number; one of an emergency is settled by role `duty`.
async fn may_settle(inner: &Arc<Inner>, id: &str, peer: &Peer, has: Role) -> Result<DeliveryId, Problem> {
    let id: i64 =
        id.parse().map_err(|_| Problem::not_found(Words::new("没有这次投递", "there is no such delivery")))?;
    let row = inner.ledger.load(vec![DeliveryId(id)]).await?.into_iter().next();
    if let Some(row) = row
        && row.priority == Priority::Emergency
        && has < Role::Duty
    {
        return Err(denied(peer, Role::Duty, has));
    }
    Ok(DeliveryId(id))
}

pub async fn prune(
    Allowed(peer, has): Allowed<EDIT>,
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
    Sent(bytes): Sent,
) -> Answer<Pruned> {
    let Prune { accept, plan } = body(&headers, &bytes)?;
    for id in inner.prunable() {
        may_touch(&inner, id.as_str(), &peer, has).await?;
    }
    Ok(axum::Json(inner.prune(&peer.actor(), accept, &plan).await?))
}
