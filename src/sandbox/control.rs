//! The control: what was posted, what came in, which faults are set, and a page that shows the timelines.
//!
//! It answers on its own port and below `/_sandbox/` on every platform's. A browser's page from elsewhere must not work
//! it: the host has to be a loopback one, and what changes anything has to be JSON.

use bytes::Bytes;
use chrono::TimeDelta;
use http::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{FaultRule, Latency, Sandbox};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// So many posts of each platform are on the page.
const SHOWN: usize = 40;
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                   form-action 'none'; frame-ancestors 'none'";

/// Adds one rule, or replaces all by a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Rules {
    All(Vec<FaultRule>),
    One(Box<FaultRule>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetClock {
    platform: Option<String>,
    seconds: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetStanding {
    account: String,
    state: String,
    seconds: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetLatency {
    latency: Latency,
}

pub(super) fn answer(sandbox: &Sandbox, request: Request<Bytes>) -> Response<Bytes> {
    if !local(&request) {
        return respond(StatusCode::FORBIDDEN, "text/plain; charset=utf-8", "only from this machine".into());
    }
    let path = request.uri().path();
    let writes = request.method() != Method::GET && request.method() != Method::HEAD;
    let kind = request.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if writes && !kind.starts_with("application/json") {
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json");
    }
    match (request.method().as_str(), path) {
        ("GET" | "HEAD", "/" | "/_sandbox/") => respond(StatusCode::OK, "text/html; charset=utf-8", PAGE.into()),
        ("GET", "/_sandbox/page.css") => respond(StatusCode::OK, "text/css; charset=utf-8", STYLE.into()),
        ("GET", "/_sandbox/page.js") => respond(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT.into()),
        ("GET", "/_sandbox/posts") => value(&sandbox.posts()),
        ("GET", "/_sandbox/requests") => value(&sandbox.requests()),
        ("GET", "/_sandbox/view") => value(&view(sandbox)),
        ("GET", "/_sandbox/faults") => value(&faults(sandbox)),
        ("DELETE", "/_sandbox/faults") => {
            sandbox.clear();
            value(&faults(sandbox))
        }
        ("POST", "/_sandbox/reset") => {
            sandbox.reset();
            value(&json!({"reset": true}))
        }
        ("POST", "/_sandbox/faults") => read(&request, |rules: Rules| {
            match rules {
                Rules::All(rules) => sandbox.set_faults(rules),
                Rules::One(rule) => sandbox.add_faults(vec![*rule]),
            }
            value(&faults(sandbox))
        }),
        ("POST", "/_sandbox/clock") => read(&request, |set: SetClock| {
            let offset = TimeDelta::milliseconds((set.seconds * 1000.0) as i64);
            sandbox.set_clock(set.platform.as_deref(), offset);
            value(&json!({"seconds": set.seconds}))
        }),
        ("POST", "/_sandbox/token") => read(&request, |set: SetStanding| {
            if sandbox.set_standing(&set.account, &set.state, set.seconds) {
                return value(&json!({"account": set.account, "state": set.state}));
            }
            problem(StatusCode::NOT_FOUND, "no such account or state")
        }),
        ("POST", "/_sandbox/latency") => read(&request, |set: SetLatency| {
            sandbox.set_latency(set.latency);
            value(&json!({"latency": set.latency}))
        }),
        _ => problem(StatusCode::NOT_FOUND, "no such route"),
    }
}

/// The host named is this machine's own, so no page from elsewhere got here by a name of its own.
fn local(request: &Request<Bytes>) -> bool {
    let host = request.headers().get("host").and_then(|h| h.to_str().ok()).unwrap_or("127.0.0.1");
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let origin = request.headers().get("origin").and_then(|o| o.to_str().ok());
    matches!(name, "127.0.0.1" | "localhost" | "[::1]")
        && origin.is_none_or(|origin| origin.split_once("://").is_some_and(|(_, from)| from == host))
}

fn read<T: serde::de::DeserializeOwned>(
    request: &Request<Bytes>,
    then: impl FnOnce(T) -> Response<Bytes>,
) -> Response<Bytes> {
    match serde_json::from_slice(request.body()) {
        Ok(value) => then(value),
        Err(error) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn value<T: serde::Serialize>(value: &T) -> Response<Bytes> {
    let body = serde_json::to_vec(value).expect("these values have only string keys");
    respond(StatusCode::OK, "application/json", body.into())
}

fn problem(status: StatusCode, words: &str) -> Response<Bytes> {
    respond(status, "application/json", json!({"error": words}).to_string().into())
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-type", kind),
        ("content-security-policy", CSP),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        headers.insert(name, http::HeaderValue::from_static(value));
    }
    response
}

fn faults(sandbox: &Sandbox) -> Value {
    let one = |(rule, matched, fired): (FaultRule, u64, u64)| json!({"number": rule.behaviour.number(), "rule": rule, "matched": matched, "fired": fired});
    sandbox.faults().into_iter().map(one).collect()
}

/// What the page shows: each platform's newest posts as a reader sees them.
fn view(sandbox: &Sandbox) -> Value {
    let rules = faults(sandbox);
    let now = sandbox.0.clock.now();
    let world = sandbox.world();
    let mut platforms = Vec::new();
    for site in world.sites.values() {
        let mine = || world.posts.all.values().rev().filter(|post| post.platform == site.name);
        let shown: Vec<Value> = mine()
            .take(SHOWN)
            .map(|post| {
                let account = site.accounts.get(&post.unit);
                let public = post.public(now);
                json!({
                    "n": post.n,
                    "name": account.map(|a| a.name.as_str()),
                    "handle": account.map(|a| a.handle.as_str()),
                    "id": post.id,
                    "text": post.shown,
                    "at": (post.created + TimeDelta::hours(8)).format("%H:%M:%S%.3f").to_string(),
                    "deleted": public.deleted,
                    "by_user": post.gone_by_user,
                    "hidden": public.hidden,
                    "pictures": public.pictures,
                })
            })
            .collect();
        platforms.push(json!({
            "name": site.name,
            "api": site.api.name(),
            "accounts": site.accounts.len(),
            "total": mine().count(),
            "posts": shown,
        }));
    }
    json!({"platforms": platforms, "faults": rules, "requests": world.seen_last, "latency": world.latency.to_string()})
}
