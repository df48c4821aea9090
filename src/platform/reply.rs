//! Requests built and answers read with the tolerance all platforms need, and no more.
//!
//! Ids and codes come as numbers or strings, JSON may be dressed as HTML or followed by dirt, and
//! what a platform says may hold the token or drive a terminal: it is masked and escaped here, once.

use bytes::Bytes;
use chrono::TimeDelta;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde_json::Value;

use super::{Call, Lost, Picture};
use crate::clock::Time;
use crate::core::delivery::Failure;
use crate::core::words::{Words, shown, words};

/// An answer that was read whole.
pub struct Reply {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: Bytes,
    /// The body as JSON, if it begins with a JSON value; dirt before and after it is dropped.
    pub json: Option<Value>,
    /// What the request carried that no word about its answer may show.
    secrets: Vec<String>,
    /// The answer may hold a secret that nobody knows yet: nothing of it is quoted.
    is_credential: bool,
}

/// Of an answer that is not understood so many characters are quoted: enough to tell a proxy's page from an error.
const MOST_QUOTED: usize = 40;

/// A request being put together.
pub struct Ask {
    method: Method,
    url: String,
    query: Vec<(String, String)>,
    body: Body,
    headers: Vec<(&'static str, String, bool)>,
    secrets: Vec<String>,
    is_visible: bool,
    is_credential: bool,
}

enum Body {
    None,
    Form(Vec<(String, String)>),
    Json(Value),
    Parts(Vec<(String, String)>, Vec<(String, Picture)>),
}

impl Ask {
    pub fn get(url: impl Into<String>) -> Ask {
        Ask::new(Method::GET, url)
    }

    pub fn post(url: impl Into<String>) -> Ask {
        Ask::new(Method::POST, url)
    }

    pub fn delete(url: impl Into<String>) -> Ask {
        Ask::new(Method::DELETE, url)
    }

    fn new(method: Method, url: impl Into<String>) -> Ask {
        Ask {
            method,
            url: url.into(),
            query: Vec::new(),
            body: Body::None,
            headers: Vec::new(),
            secrets: Vec::new(),
            is_visible: false,
            is_credential: false,
        }
    }

    /// The one request that makes a post visible: it waits at the barrier of its call.
    #[must_use]
    pub fn visible(mut self) -> Ask {
        self.is_visible = true;
        self
    }

    /// A request that is answered with a secret.
    #[must_use]
    pub fn credential(mut self) -> Ask {
        self.is_credential = true;
        self
    }

    #[must_use]
    pub fn query(mut self, key: &str, value: impl ToString) -> Ask {
        self.query.push((key.to_owned(), value.to_string()));
        self
    }

    /// A parameter of the query that is a secret; an echo of it is masked as the account's own secret is.
    #[must_use]
    pub fn secret_query(mut self, key: &str, value: impl ToString) -> Ask {
        self.secrets.push(value.to_string());
        self.query(key, value)
    }

    #[must_use]
    pub fn form(mut self, fields: Vec<(String, String)>) -> Ask {
        self.body = Body::Form(fields);
        self
    }

    /// JSON in raw UTF-8: WeChat stores `\u` escapes as they stand.
    #[must_use]
    pub fn json(mut self, value: Value) -> Ask {
        self.body = Body::Json(value);
        self
    }

    /// `multipart/form-data`; fields are not percent-encoded in it.
    #[must_use]
    pub fn parts(mut self, fields: Vec<(String, String)>, files: Vec<(String, Picture)>) -> Ask {
        self.body = Body::Parts(fields, files);
        self
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Ask {
        self.headers.push((name, value.into(), false));
        self
    }

    /// A header that holds a secret: never logged, and masked where a platform echoes it.
    #[must_use]
    pub fn secret_header(mut self, name: &'static str, value: impl Into<String>) -> Ask {
        let value = value.into();
        // Without the scheme: Basic puts the password into base64, where the account's own secret is not found.
        self.secrets.push(value.split_once(' ').map_or(value.as_str(), |(_, rest)| rest).to_owned());
        self.headers.push((name, value, true));
        self
    }

    /// The pieces a signature covers: method, URL without query, and all parameters but multipart fields.
    pub fn signed_parts(&self) -> (&Method, &str, Vec<(String, String)>) {
        let mut parameters = self.query.clone();
        if let Body::Form(fields) = &self.body {
            parameters.extend(fields.iter().cloned());
        }
        (&self.method, &self.url, parameters)
    }

    fn build(self) -> Result<Request<Bytes>, http::Error> {
        let mut url = self.url;
        if !self.query.is_empty() {
            url.push('?');
            url.push_str(&form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.query).finish());
        }
        let (kind, body) = match self.body {
            Body::None => (None, Bytes::new()),
            Body::Form(fields) => {
                let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
                (Some("application/x-www-form-urlencoded".to_owned()), Bytes::from(text))
            }
            Body::Json(value) => (Some("application/json; charset=utf-8".to_owned()), Bytes::from(value.to_string())),
            Body::Parts(fields, files) => multipart(&fields, &files),
        };
        let mut request = Request::builder().method(self.method).uri(url);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        for (name, value, secret) in self.headers {
            let mut value = HeaderValue::try_from(value)?;
            value.set_sensitive(secret);
            request = request.header(name, value);
        }
        request.body(body)
    }
}

fn multipart(fields: &[(String, String)], files: &[(String, Picture)]) -> (Option<String>, Bytes) {
    // A hash of the content cannot stand in it by chance.
    let mark = files.first().map_or("fabu", |(_, p)| p.sha256.get(..32).unwrap_or("fabu"));
    let boundary = format!("----fabu{mark}");
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes(),
        );
    }
    for (name, picture) in files {
        let kind = &picture.kind;
        let ending = if kind == "jpeg" { "jpg" } else { kind };
        body.extend(
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"picture.{ending}\"\r\nContent-Type: image/{kind}\r\n\r\n"
            )
            .bytes(),
        );
        body.extend_from_slice(&picture.bytes);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{boundary}--\r\n").bytes());
    (Some(format!("multipart/form-data; boundary={boundary}")), Bytes::from(body))
}

/// Sends and reads; what was lost is already a `Failure`.
pub async fn exchange(call: &Call<'_>, mut ask: Ask) -> Result<Reply, Failure> {
    let secrets = std::mem::take(&mut ask.secrets);
    let (is_visible, is_credential) = (ask.is_visible, ask.is_credential);
    let http = call.barrier.filter(|_| is_visible).unwrap_or(call.http);
    let request = ask.build().map_err(|error| {
        Failure::NotSent(words!("请求无法组成：{error}", "the request cannot be put together: {error}"))
    })?;
    match http.send(call.account.id.platform(), call.lane, request, call.timeout).await {
        Ok(answer) => Ok(Reply::new(answer, secrets, is_credential)),
        Err(Lost::BeforeSend(why)) => {
            let why = masked(&why, call.token.expose(), &secrets);
            Err(Failure::NotSent(words!("连不上平台：{why}", "the platform cannot be reached: {why}")))
        }
        Err(Lost::AfterSend(why)) => {
            let why = masked(&why, call.token.expose(), &secrets);
            Err(Failure::Unclear(words!("已发出，没有可靠的回答：{why}", "sent, and no answer to rely on: {why}")))
        }
    }
}

impl Reply {
    fn new(answer: Response<Bytes>, secrets: Vec<String>, is_credential: bool) -> Reply {
        let (parts, body) = answer.into_parts();
        let json = parse(&body);
        Reply { status: parts.status, headers: parts.headers, body, json, secrets, is_credential }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// The platform's clock, from its `Date` header.
    pub fn date(&self) -> Option<Time> {
        let date = self.header("date")?;
        let parsed = chrono::DateTime::parse_from_rfc2822(date).ok()?;
        Some(crate::clock::from_micros(parsed.timestamp_micros()))
    }

    /// How far the platform's clock is ahead of ours, as far as it tells.
    pub fn skew(&self, call: &Call<'_>) -> TimeDelta {
        self.date().map_or(TimeDelta::zero(), |date| date - call.clock.now())
    }

    /// The platform's words about this request, with what the request carried masked too.
    pub fn said(&self, call: &Call<'_>, text: &str) -> String {
        masked(text, call.token.expose(), &self.secrets)
    }

    /// The words for a failure that quotes this answer.
    pub fn quoted(&self, call: &Call<'_>, code: impl std::fmt::Display, text: &str) -> Words {
        let text = if self.is_credential { "" } else { text };
        Words::same(format!("{code} {}", self.said(call, text)).trim().to_owned())
    }

    /// Why an answer that was read cannot be relied on.
    pub fn unclear(&self, call: &Call<'_>) -> Failure {
        let status = self.status.as_u16();
        if self.is_credential {
            return Failure::Unclear(words!(
                "看不懂平台的回答（{status}）",
                "an answer that cannot be relied on ({status})"
            ));
        }
        let body = self.said(call, &String::from_utf8_lossy(&self.body));
        let mut text: String = body.chars().take(MOST_QUOTED).collect();
        if text.len() < body.len() {
            text.push('…');
        }
        Failure::Unclear(words!(
            "看不懂平台的回答（{status}）：{text}",
            "an answer that cannot be relied on ({status}): {text}"
        ))
    }
}

/// The longest JSON value a body begins with: platforms put a mark before it and dirt behind it.
fn parse(body: &[u8]) -> Option<Value> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let text = String::from_utf8_lossy(body);
    let clean: String = if text.chars().any(|c| c.is_control()) {
        text.chars().filter(|c| !c.is_control() || *c == '\n').collect()
    } else {
        text.into_owned()
    };
    let trimmed = clean.trim_start();
    if !trimmed.starts_with(['{', '[']) {
        return None;
    }
    if too_deep(trimmed) {
        return None;
    }
    serde_json::Deserializer::from_str(trimmed).into_iter::<Value>().next()?.ok()
}

/// A platform's words: the token masked, controls escaped, cut to what a person reads.
pub fn said(call: &Call<'_>, text: &str) -> String {
    masked(text, call.token.expose(), &[])
}

fn masked(text: &str, secret: &str, derived: &[String]) -> String {
    let mut text = text.to_owned();
    // A secret of several values is masked value by value.
    let values: Vec<String> = match serde_json::from_str::<serde_json::Map<String, Value>>(secret) {
        Ok(map) => map.values().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
        Err(_) => std::iter::once(secret.to_owned()).chain(secret.split(':').map(str::to_owned)).collect(),
    };
    for value in derived.iter().chain(&values).filter(|v| v.len() >= 6) {
        let encoded: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
        // PHP writes a slash within JSON as `\/`.
        let escaped = value.replace('/', "\\/");
        for form in [value, &encoded, &escaped] {
            text = text.replace(form.as_str(), "••••");
        }
    }
    // Cut last: a secret that straddles the cut would leave its beginning.
    shown(text.trim().chars().take(400).collect::<String>().trim())
}

/// R28: an answer of a platform has four or five levels; one of more than 64 is no answer.
fn too_deep(text: &str) -> bool {
    const DEEPEST: usize = 64;
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            return true;
        }
    }
    false
}

/// Text of a field that is a string or a number; numbers keep every digit.
pub fn text_of(value: &Value, key: &str) -> Option<String> {
    match value.get(key)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

/// A code that is a number or a string of digits.
pub fn code_of(value: &Value, key: &str) -> Option<i64> {
    match value.get(key)? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// An id we are ready to put into a path, a form, a ledger and a table, whatever it means to its maker: printable, bounded,
/// never `0`, and nothing that ends a path, a list or a quotation.
pub fn sane_id(id: String) -> Option<String> {
    const LONGEST: usize = 128;
    const ENDS: &[u8] = b"/\\,;<>\"'`?#&{}|^";
    let is_fine = (1..=LONGEST).contains(&id.len())
        && id != "0"
        && id.bytes().all(|b| b.is_ascii_graphic() && !ENDS.contains(&b))
        && !id.starts_with('.')
        && !id.contains("..");
    is_fine.then_some(id)
}

/// Whether an id is a number: only those are known to grow with time.
pub fn is_number(id: &str) -> bool {
    id.bytes().all(|b| b.is_ascii_digit())
}

/// A URL a platform gave, kept only if it is one a browser may open.
pub fn sane_url(url: Option<String>) -> Option<String> {
    url.filter(|u| {
        (u.starts_with("https://") || u.starts_with("http://"))
            && u.len() < 500
            && !u.contains(|c: char| c.is_control() || c == ' ' || c == '<' || c == '"')
    })
}

/// Sina's and Twitter's date: `Tue May 31 17:46:55 +0800 2011`.
pub fn ruby_date(text: &str) -> Option<Time> {
    let parsed = chrono::DateTime::parse_from_str(text, "%a %b %d %H:%M:%S %z %Y").ok()?;
    Some(crate::clock::from_micros(parsed.timestamp_micros()))
}

/// `Retry-After` in seconds, bounded; anything else is the default.
pub fn retry_after(reply: &Reply, default_s: u64) -> std::time::Duration {
    let seconds = reply.header("retry-after").and_then(|v| v.trim().parse::<u64>().ok()).filter(|s| *s > 0);
    std::time::Duration::from_secs(seconds.unwrap_or(default_s).clamp(1, 3600))
}

/// Percent-encodes an id for a path (R38).
pub fn in_path(id: &str) -> String {
    percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The words for a failure that quotes the platform.
pub fn quoted(call: &Call<'_>, code: impl std::fmt::Display, text: &str) -> Words {
    let text = said(call, text);
    Words::same(format!("{code} {text}").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_found_under_dirt() {
        for body in [
            "{\"ret\":0}".as_bytes(),
            b"\xef\xbb\xbf{\"ret\":0}",
            b"{\"ret\":0}out of memery",
            b"{\"ret\":\x01 0}",
            b"  {\"ret\":0}\n<!-- x -->",
        ] {
            assert_eq!(parse(body), Some(serde_json::json!({"ret": 0})));
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(70), "]".repeat(70));
        for body in ["<html>", "", "nothing", "{\"ret\":", deep.as_str()] {
            assert_eq!(parse(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn r34_what_a_platform_echoes_of_the_token_is_masked() {
        assert_eq!(masked("bad token 2.00canary\u{1b}[2J", "2.00canary", &[]), "bad token ••••\\u{1b}[2J");
        assert_eq!(masked("secret=s%2Fcanary", r#"{"secret":"s/canary"}"#, &[]), "secret=••••");
        assert_eq!(masked(r#"{"a":"s\/canary"}"#, r#"{"secret":"s/canary"}"#, &[]), r#"{"a":"••••"}"#);
        assert_eq!(masked("Basic dTpjYW5hcnk=", "u:canary", &["dTpjYW5hcnk=".to_owned()]), "Basic ••••");
        let straddling = format!("{}2.00canary", "x".repeat(395));
        assert!(!masked(&straddling, "2.00canary", &[]).contains("2.00"));
    }

    #[test]
    fn ids_are_opaque_and_odd_ones_are_not_believed() {
        for odd in
            ["", "0", "../x", "..", ".x", "a..b", "a/b", "a,b", "<script>", "a b", "a\u{7f}", "帖", &"9".repeat(129)]
        {
            assert_eq!(sane_id(odd.to_owned()), None, "{odd}");
        }
        // A number, a time in letters, a second and a hash, a file's name: whatever its maker calls it.
        for id in ["1", "01JDKX3ZQ1Q6W3", "1732406400.123456-6f1ed002ab55", "p-3fd2.png", "a:b@c~1"] {
            assert_eq!(sane_id(id.to_owned()).as_deref(), Some(id));
        }
        assert_eq!(sane_id("9223372036854775808".to_owned()).as_deref(), Some("9223372036854775808"));
        assert_eq!(text_of(&serde_json::json!({"id": 1.5}), "id"), None);
        assert_eq!(text_of(&serde_json::json!({"id": 3504803600502730u64}), "id").as_deref(), Some("3504803600502730"));
    }
}
