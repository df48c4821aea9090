//! Answers on their way out, clean or spoilt: dirt around JSON, odd ids, bombs, and what breaks the connection itself.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::Value;

use super::call::{Body, Call, Reply};
use super::flow::Sent;
use super::script::Spoil;

/// Renders a reply and does to it what the rules say; what breaks the connection comes last.
pub(super) fn spoil(call: &Call, mut reply: Reply, spoils: &[Spoil], date: &str) -> Sent {
    for spoil in spoils {
        bend(call, &mut reply, spoil);
    }
    let gzipped = spoils.iter().any(|s| matches!(s, Spoil::Bomb(_)) || is_dirt(s, "gzip"));
    let (kind, mut body) = match &reply.body {
        Body::Json(value) => ("application/json;charset=UTF-8", value.to_string().into_bytes()),
        Body::Text(kind, text) => (*kind, text.clone().into_bytes()),
        Body::Empty => ("", Vec::new()),
    };
    let kind = if spoils.iter().any(|s| is_dirt(s, "type")) { "text/html" } else { kind };
    for spoil in spoils {
        body = dirty(spoil, body);
    }
    if gzipped {
        body = gzip(&body);
    }
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    let mut put = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    };
    put("date", date);
    if !kind.is_empty() {
        put("content-type", kind);
    }
    if gzipped {
        put("content-encoding", "gzip");
    }
    for (name, value) in &reply.headers {
        put(name, value);
    }
    for spoil in spoils {
        response = match spoil.broken(response) {
            Sent::Whole(whole) => whole,
            broken => return broken,
        };
    }
    Sent::Whole(response)
}

/// Several kinds of dirt may be named at once, joined by commas.
fn is_dirt(spoil: &Spoil, kind: &str) -> bool {
    matches!(spoil, Spoil::Dirt(kinds) if kinds.split(',').any(|k| k.trim() == kind))
}

fn bend(call: &Call, reply: &mut Reply, spoil: &Spoil) {
    match spoil {
        Spoil::OddId(odd) => {
            if let Body::Json(value) = &mut reply.body {
                replace_ids(value, odd);
            }
        }
        Spoil::Dirt(_) if is_dirt(spoil, "string_codes") => {
            if let Body::Json(value) = &mut reply.body {
                stringify(value);
            }
        }
        Spoil::Echo => {
            let token = call.header("authorization").or_else(|| call.anywhere("access_token")).unwrap_or_default();
            let token = token.to_owned();
            if let Body::Json(value) = &mut reply.body
                && let Some(map) = value.as_object_mut()
            {
                map.insert("echo".to_owned(), Value::String(token.clone()));
            }
            reply.headers.push(("x-echo", token));
        }
        Spoil::RetryAfter(value) => reply.headers.push(("retry-after", value.clone())),
        Spoil::Deep(levels) => {
            let levels = *levels as usize;
            reply.body = Body::Text("application/json", format!("{}{}", "[".repeat(levels), "]".repeat(levels)));
        }
        Spoil::Empty => (reply.status, reply.body) = (204, Body::Empty),
        _ => {}
    }
}

fn dirty(spoil: &Spoil, mut body: Vec<u8>) -> Vec<u8> {
    match spoil {
        Spoil::Huge(bytes) | Spoil::Bomb(bytes) => {
            let blanks = usize::try_from(*bytes).unwrap_or(usize::MAX).min(1 << 30);
            body.resize(body.len() + blanks, b' ');
        }
        Spoil::Dirt(_) => {
            if is_dirt(spoil, "bom") {
                body.splice(0..0, *b"\xEF\xBB\xBF");
            }
            if is_dirt(spoil, "control") {
                let at = body.iter().position(|b| *b == b'{').map_or(0, |at| at + 1);
                body.splice(at..at, *b"\x01\x0B\x1F");
            }
            // A character cut in half, as by a byte-wise limit on some field.
            if is_dirt(spoil, "half") && body.ends_with(b"}") {
                body.pop();
                body.extend_from_slice(b",\"from\":\"\xE4\xB8\xE6\"}");
            }
            if is_dirt(spoil, "tail") {
                body.extend_from_slice(b"out of memery");
            }
        }
        _ => {}
    }
    body
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("writing to memory does not fail");
    encoder.finish().expect("writing to memory does not fail")
}

const IDS: [&str; 9] =
    ["id", "idstr", "mid", "publish_id", "msg_id", "msg_data_id", "article_id", "media_id", "media_id_string"];

/// Puts `odd` in the place of every id of the object itself and of its `data`; null takes them away.
fn replace_ids(value: &mut Value, odd: &Value) {
    let Value::Object(map) = value else { return };
    for id in IDS {
        if odd.is_null() {
            map.remove(id);
        } else if let Some(slot) = map.get_mut(id) {
            *slot = odd.clone();
        }
    }
    if let Some(data) = map.get_mut("data") {
        replace_ids(data, odd);
    }
}

/// Numbers of ids and codes become strings, and booleans words.
fn stringify(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, member) in map.iter_mut() {
                let code = ["error_code", "ret", "errcode", "publish_status", "status"].contains(&key.as_str());
                match member {
                    Value::Number(number) if code || IDS.contains(&key.as_str()) => {
                        *member = Value::String(number.to_string());
                    }
                    Value::Bool(flag) => *member = Value::String(flag.to_string()),
                    _ => stringify(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(stringify),
        _ => {}
    }
}
