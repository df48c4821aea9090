//! The socket's routes without a socket: the router over a city in simulated time, whoever asks given with the request.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use fabu::api::peer::Peer;
use fabu::daemon::Daemon;
use http::{Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::support::City;

/// Uids that no machine has: their names are their numbers.
pub const NONE: u32 = 71_000;
pub const VIEW: u32 = 71_001;
pub const EDIT: u32 = 71_002;
pub const DUTY: u32 = 71_003;
pub const ADMIN: u32 = 71_004;
/// A second person with the duty role.
pub const OTHER: u32 = 71_005;

pub const ACCESS: &str = "access: {view: [\"user:71001\"], edit: [\"user:71002\"], duty: [\"user:71003\", \"user:71005\"], admin: [\"user:71004\"]}\n";

pub struct Indoors {
    pub city: City,
    pub daemon: Daemon,
    router: Router,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub kind: String,
    /// The methods the path takes, where that was not one.
    pub allow: String,
    pub value: Value,
}

impl Answer {
    /// A refusal as it has to be: a problem+json that says the status again.
    pub fn is_problem(&self) -> bool {
        self.kind == "application/problem+json" && self.value["status"] == self.status.as_u16()
    }
}

impl Indoors {
    pub async fn new(seed: u64, more: &str) -> Indoors {
        let city = City::new("2026-11-24T00:00:00Z", seed, &format!("{ACCESS}{more}"));
        let daemon = city.start().await;
        let router = fabu::api::router(daemon.inner.clone());
        Indoors { city, daemon, router }
    }

    pub async fn ask(&self, uid: u32, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::from(Bytes::copy_from_slice(body))).unwrap();
        request.extensions_mut().insert(Peer::new(uid));
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let header = |name| answer.headers().get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
        let (kind, allow) = (header("content-type"), header("allow"));
        // A stream of events has no end.
        let bytes = match kind.starts_with("text/event-stream") {
            true => Bytes::new(),
            false => axum::body::to_bytes(answer.into_body(), 1 << 24).await.unwrap(),
        };
        Answer { status, kind, allow, value: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
    }

    pub async fn post(&self, uid: u32, path: &str, body: &str) -> Answer {
        self.ask(uid, "POST", path, &[("content-type", "application/json")], body.as_bytes()).await
    }

    /// Texts that stand, and on how many accounts.
    pub fn standing(&self) -> BTreeMap<String, u32> {
        let mut found = BTreeMap::new();
        for ((_, text), n) in self.city.posts() {
            *found.entry(text).or_default() += n;
        }
        found
    }

    /// What of the world a refused request must leave as it was.
    pub fn marks(&self) -> (u64, String, usize) {
        let (seq, head) = self.daemon.inner.ledger.head();
        (u64::try_from(seq).unwrap(), head, self.daemon.inner.holds().len())
    }
}
