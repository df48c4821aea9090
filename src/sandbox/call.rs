//! A request as the platforms read it, and a reply before it is put on the wire.
//!
//! Reading is strict about form and lenient about nothing: what a platform cannot read is kept as a mark, so that the
//! imitation can refuse it in that platform's own words.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use serde_json::Value;

/// A larger body is not looked into; every picture limit lies below it.
const BODY_LIMIT: usize = 24 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Empty,
    Form,
    Multipart,
    Json,
    Other,
}

#[derive(Debug)]
pub(super) struct Part {
    pub name: String,
    pub bytes: Bytes,
}

#[derive(Debug)]
pub(super) struct Call {
    pub method: Method,
    pub path: String,
    /// Scheme, host and path without the query: what OAuth 1 signs.
    pub url: String,
    pub query: Vec<(String, String)>,
    pub form: Vec<(String, String)>,
    pub files: Vec<Part>,
    pub json: Option<Value>,
    pub headers: HeaderMap,
    pub kind: Kind,
    pub bytes: usize,
    /// The JSON wrote letters as `\\uXXXX`, which WeChat keeps as they stand.
    pub escaped: bool,
}

impl Call {
    pub fn read(request: Request<Bytes>) -> Call {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let host = parts
            .uri
            .authority()
            .map(|a| a.as_str().to_owned())
            .or_else(|| parts.headers.get(http::header::HOST).and_then(|h| h.to_str().ok()).map(str::to_owned));
        let scheme = parts.uri.scheme_str().unwrap_or("http");
        let mut call = Call {
            url: format!("{scheme}://{}{path}", host.unwrap_or_default().to_lowercase()),
            query: pairs(parts.uri.query().unwrap_or_default().as_bytes()),
            method: parts.method,
            path,
            form: Vec::new(),
            files: Vec::new(),
            json: None,
            kind: Kind::Empty,
            bytes: body.len(),
            escaped: false,
            headers: parts.headers,
        };
        call.read_body(body);
        call
    }

    fn read_body(&mut self, body: Bytes) {
        if body.is_empty() || body.len() > BODY_LIMIT {
            self.kind = if body.is_empty() { Kind::Empty } else { Kind::Other };
            return;
        }
        let full = self.header("content-type").unwrap_or_default().to_owned();
        let kind = full.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        self.escaped = kind != "multipart/form-data" && body.windows(2).any(|pair| pair == b"\\u");
        match kind.as_str() {
            "application/x-www-form-urlencoded" => {
                self.kind = Kind::Form;
                self.form = pairs(&body);
            }
            "multipart/form-data" => match multipart(&full, &body) {
                Some((form, files)) => {
                    self.kind = Kind::Multipart;
                    (self.form, self.files) = (form, files);
                }
                None => self.kind = Kind::Other,
            },
            "application/json" | "text/json" => {
                self.kind = Kind::Json;
                self.json = parse(&body);
            }
            // WeChat never looks at the type: any body that is JSON is read as such.
            _ => {
                self.kind = Kind::Other;
                self.json = parse(&body);
            }
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The credentials of an `Authorization` header of this scheme.
    pub fn authorization(&self, scheme: &str) -> Option<&str> {
        let (given, rest) = self.header("authorization")?.split_once(' ')?;
        given.eq_ignore_ascii_case(scheme).then(|| rest.trim())
    }

    /// A parameter where its method carries it: the query of a GET, the body of a POST.
    pub fn param(&self, name: &str) -> Option<&str> {
        let reads = self.method == Method::GET || self.method == Method::HEAD || self.method == Method::DELETE;
        find(if reads { &self.query } else { &self.form }, name)
    }

    /// A parameter wherever it is: credentials may ride in the query of a POST.
    pub fn anywhere(&self, name: &str) -> Option<&str> {
        find(&self.form, name).or_else(|| find(&self.query, name))
    }

    pub fn file(&self, name: &str) -> Option<&Part> {
        self.files.iter().find(|part| part.name == name)
    }

    pub fn member(&self, name: &str) -> Option<&Value> {
        self.json.as_ref().and_then(|json| json.get(name))
    }
}

fn parse(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn pairs(bytes: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(bytes).into_owned().collect()
}

type Parts = (Vec<(String, String)>, Vec<Part>);

/// Reads `multipart/form-data`; `None` when it is not well formed.
fn multipart(content_type: &str, body: &Bytes) -> Option<Parts> {
    let boundary = content_type.split(';').find_map(|p| p.trim().strip_prefix("boundary="))?.trim_matches('"');
    let open = format!("--{boundary}").into_bytes();
    let next = format!("\r\n--{boundary}").into_bytes();
    let (mut form, mut files) = (Vec::new(), Vec::new());
    let mut at = position(body, &open)? + open.len();
    loop {
        if body[at..].starts_with(b"--") {
            return Some((form, files));
        }
        at += 2;
        let head_end = at + position(body.get(at..)?, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&body[at..head_end]).ok()?;
        let start = head_end + 4;
        let end = start + position(body.get(start..)?, &next)?;
        let content = body.slice(start..end);
        let disposition = head.lines().find(|l| l.to_ascii_lowercase().starts_with("content-disposition:"))?;
        let name = quoted(disposition, "name")?;
        if quoted(disposition, "filename").is_some() || disposition.contains("filename*") {
            files.push(Part { name, bytes: content });
        } else {
            form.push((name, String::from_utf8_lossy(&content).into_owned()));
        }
        at = end + next.len();
    }
}

fn quoted(line: &str, key: &str) -> Option<String> {
    let field = line.split(';').map(str::trim).find_map(|p| p.strip_prefix(key)?.strip_prefix('='))?;
    Some(field.trim_matches('"').to_owned())
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Json(Box<Value>),
    Text(&'static str, String),
    Empty,
}

#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
    /// What `GET /_sandbox/requests` says was answered: the platform's own code.
    pub outcome: String,
    /// An idempotency key that is only remembered once the reply has gone out, and its post.
    pub key: Option<Box<(String, u64)>>,
}

impl Reply {
    pub fn json(status: u16, outcome: impl Into<String>, value: Value) -> Reply {
        Reply { status, headers: Vec::new(), body: Body::Json(Box::new(value)), outcome: outcome.into(), key: None }
    }

    pub fn ok(value: Value) -> Reply {
        Reply::json(200, "ok", value)
    }

    pub fn text(status: u16, outcome: impl Into<String>, kind: &'static str, text: impl Into<String>) -> Reply {
        Reply { status, headers: Vec::new(), body: Body::Text(kind, text.into()), outcome: outcome.into(), key: None }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multipart_fields_and_files_are_told_apart() {
        let body = "--b\r\nContent-Disposition: form-data; name=\"status\"\r\n\r\n早安%20\r\n--b\r\nContent-Disposition: \
            form-data; name=\"pic\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n\u{1}\r\n\u{2}\r\n--b--\r\n";
        let request = Request::post("http://H/2/x.json?a=1")
            .header("content-type", "multipart/form-data; boundary=b")
            .body(Bytes::from(body))
            .unwrap();
        let call = Call::read(request);
        assert_eq!((call.kind, call.param("status")), (Kind::Multipart, Some("早安%20")));
        assert_eq!(call.file("pic").map(|p| &p.bytes[..]), Some(&b"\x01\r\n\x02"[..]));
        assert_eq!((call.url.as_str(), call.anywhere("a"), call.param("a")), ("http://h/2/x.json", Some("1"), None));
    }
}
