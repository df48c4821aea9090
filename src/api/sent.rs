//! What came with a request: its body and the names in its path, refused in the words of this API.
//!
//! A body is read after the role was checked, and bounded in size and time; a name that is no text
//! names nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};

use super::problem::Problem;
use crate::core::words::{Words, shown, words};
use crate::daemon::Inner;

/// R42.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// A request's whole body.
pub struct Sent(pub Bytes);

impl FromRequest<Arc<Inner>> for Sent {
    type Rejection = Problem;

    async fn from_request(request: Request, inner: &Arc<Inner>) -> Result<Sent, Problem> {
        let read = inner.clock.timeout(BODY_WITHIN, Bytes::from_request(request, inner)).await;
        let slow = || Words::new("正文来得太慢", "the body took too long to come");
        match read.ok_or_else(|| Problem::new(StatusCode::REQUEST_TIMEOUT, slow()))? {
            Ok(bytes) => Ok(Sent(bytes)),
            Err(refused) if refused.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                let said = Words::new("正文超过 1 MiB", "the body is larger than 1 MiB");
                Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, said))
            }
            Err(_) => Err(Problem::malformed(Words::new("正文没有读完", "the body did not come whole"))),
        }
    }
}

/// The name in a path.
pub struct Named(pub String);

impl FromRequestParts<Arc<Inner>> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, inner: &Arc<Inner>) -> Result<Named, Problem> {
        let named = Path::<String>::from_request_parts(parts, inner).await;
        // What is no UTF-8 is nobody's name.
        let none = |_| Problem::not_found(Words::new("没有这个路径", "there is nothing at this path"));
        named.map(|Path(name)| Named(name)).map_err(none)
    }
}

/// The media type a body says it has, without its parameters.
pub fn kind(headers: &HeaderMap) -> &str {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    kind.split(';').next().unwrap_or("").trim()
}

/// JSON in which no object has a key twice, however deep: of two values nobody could tell which one is meant.
struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        deserializer.deserialize_any(Strict)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Strict;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_str<E>(self, _: &str) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Strict, A::Error> {
        while seq.next_element::<Strict>()?.is_some() {}
        Ok(Strict)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Strict>()?;
            if let Some(twice) = keys.replace(key) {
                return Err(A::Error::custom(format_args!("duplicate field `{}`", shown(&twice))));
            }
        }
        Ok(Strict)
    }
}

/// A body as JSON: one object, nothing behind it, no unknown field, no key twice. An empty one is an empty object.
pub fn body<T: for<'de> Deserialize<'de>>(headers: &HeaderMap, bytes: &Bytes) -> Result<T, Problem> {
    if !bytes.is_empty() && !kind(headers).eq_ignore_ascii_case("application/json") {
        let said = Words::new("正文须为 application/json", "the body has to be application/json");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, said));
    }
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    // A list would be taken for the fields in their order.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::malformed(Words::new("正文须为 JSON 对象", "the body has to be a JSON object")));
    }
    serde_json::from_slice::<Strict>(bytes)
        .and_then(|_| serde_json::from_slice(bytes))
        .map_err(|error| Problem::malformed(words!("正文读不懂：{error}", "the body cannot be read: {error}")))
}
