//! Urgent posts over the socket, the second person's word, the correction and the end.
//!
//! What is no JSON, or not the kind of value a field takes, is 400; what is and cannot be is 422 and names
//! the field; and nothing of either is written, held or sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::holds::lasting;
use super::peer::{Allowed, DUTY};
use super::problem::Problem;
use super::sent::{Named, Sent, body, kind};
use crate::core::announcement::Level;
use crate::core::words::{Words, nearest, shown, words};
use crate::daemon::Inner;
use crate::daemon::acts::ActError;
use crate::daemon::emergency::{Closed, Key, Urgent};

/// The fields of an urgent request, each as it came: a wrong one is named, and two of one name are refused.
#[derive(Deserialize)]
struct Asked {
    text: Option<Value>,
    link: Option<Value>,
    level: Option<Value>,
    to: Option<Value>,
    except: Option<Value>,
    template: Option<Value>,
    values: Option<Value>,
    images: Option<Value>,
    source: Option<Value>,
    supersedes: Option<Value>,
    update: Option<Value>,
    expires_after: Option<Value>,
    hold: Option<Value>,
    id: Option<Value>,
    dry_run: Option<Value>,
    content_hash: Option<Value>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

const FIELDS: [&str; 16] = [
    "text",
    "link",
    "level",
    "to",
    "except",
    "template",
    "values",
    "images",
    "source",
    "supersedes",
    "update",
    "expires_after",
    "hold",
    "id",
    "dry_run",
    "content_hash",
];
/// CAP 1.2's media type (OASIS CAP 1.2, 3.5).
pub(super) const CAP: &str = "application/cap+xml";
/// Longer keys are nobody's.
pub(super) const LONGEST_KEY: usize = 255;

pub async fn urgent(
    Allowed(peer, _): Allowed<DUTY>,
    State(inner): State<Arc<Inner>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    Sent(bytes): Sent,
) -> Result<Response, Problem> {
    let key = key(&headers, &bytes)?;
    let dry_run = dry_run(query.as_deref())?;
    if kind(&headers).eq_ignore_ascii_case(CAP) {
        let alert = crate::input::cap::read(&bytes).map_err(refused)?;
        // A look does nothing twice, and what was done once is no answer to it.
        let answer = inner.alert(&peer.actor(), alert, dry_run, key.filter(|_| !dry_run)).await?;
        let status = if dry_run { StatusCode::OK } else { StatusCode::ACCEPTED };
        return Ok((status, axum::Json(answer)).into_response());
    }
    let asked: Asked = body(&headers, &bytes)?;
    let mut urgent = read(asked)?;
    urgent.dry_run |= dry_run;
    let status = if urgent.dry_run { StatusCode::OK } else { StatusCode::ACCEPTED };
    let key = key.filter(|_| !urgent.dry_run);
    let answer = inner.urgent(&peer.actor(), urgent, key.as_slice()).await?;
    Ok((status, axum::Json(answer)).into_response())
}

/// What is no alert at all is malformed; what is one and cannot be taken names the element.
fn refused(refused: crate::input::cap::Refused) -> Problem {
    let status = if refused.malformed { StatusCode::BAD_REQUEST } else { StatusCode::UNPROCESSABLE_ENTITY };
    Problem { status, words: refused.words, field: refused.field.map(Into::into) }
}

/// An alert has no field of ours, so it is tried by the query: `?dry_run=true`. Who asks for a look in that way
/// with JSON means a look as well.
fn dry_run(query: Option<&str>) -> Result<bool, Problem> {
    match query {
        None | Some("" | "dry_run=false") => Ok(false),
        Some("dry_run=true") => Ok(true),
        Some(_) => Err(Problem::malformed(Words::new("只认 ?dry_run=true", "the only query is ?dry_run=true"))),
    }
}

fn key(headers: &HeaderMap, bytes: &Bytes) -> Result<Option<Key>, Problem> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let Some(key) = keys.next() else { return Ok(None) };
    // Two keys are none: which of them the sender means to ask again with cannot be told.
    let key = Some(key).filter(|_| keys.next().is_none());
    let key = key.and_then(|k| k.to_str().ok()).filter(|k| !k.trim().is_empty() && k.len() <= LONGEST_KEY);
    let said = || Words::new("Idempotency-Key 须有 1 到 255 个字符", "an Idempotency-Key has 1 to 255 characters");
    let key = key.ok_or_else(|| Problem::malformed(said()))?.to_owned();
    Ok(Some(Key { key, hash: hex::encode(Sha256::digest(bytes)) }))
}

fn wrong(field: &'static str, said: Words) -> Problem {
    ActError::Invalid(field.into(), said).into()
}

/// A number where a text has to be, and the like.
fn not_of_its_kind(field: &'static str, said: Words) -> Problem {
    Problem { field: Some(field.into()), ..Problem::malformed(said) }
}

fn read(asked: Asked) -> Result<Urgent, Problem> {
    if let Some(unknown) = asked.others.keys().next() {
        let safe = shown(unknown);
        let said = match nearest(unknown, FIELDS) {
            Some(near) => {
                words!("没有字段 `{safe}`，是否指 `{near}`？", "there is no field `{safe}`: did you mean `{near}`?")
            }
            None => words!("没有字段 `{safe}`", "there is no field `{safe}`"),
        };
        return Err(Problem::unfit(safe, said));
    }
    let text = |field, value: Option<Value>| match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(not_of_its_kind(field, words!("`{field}` 须为文字", "`{field}` has to be text"))),
    };
    let several = |field, value: Option<Value>| match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(list) => serde_json::from_value(list).map_err(|_| {
            not_of_its_kind(field, words!("`{field}` 须为文字的列表", "`{field}` has to be a list of texts"))
        }),
    };
    let span = |field, value| text(field, value)?.map(|t| lasting(field, &t)).transpose();
    let level = text("level", asked.level)?.map(|level| {
        let known = ["red", "orange", "yellow", "blue"];
        serde_json::from_value::<Level>(Value::String(level.clone())).map_err(|_| {
            let (safe, known) = (shown(&level), known.join("|"));
            wrong(
                "level",
                words!("没有级别 `{safe}`，应为 {known}", "there is no level `{safe}`: it is one of {known}"),
            )
        })
    });
    let link = text("link", asked.link)?;
    if let Some(link) = &link {
        crate::input::values::link(link).map_err(|said| wrong("link", said))?;
    }
    Ok(Urgent {
        read: Vec::new(),
        follows: None,
        unknown_areas: Vec::new(),
        alert_sent: None,
        shown: text("content_hash", asked.content_hash)?,
        text: text("text", asked.text)?.unwrap_or_default(),
        link,
        level: level.transpose()?,
        to: several("to", asked.to)?,
        except: several("except", asked.except)?,
        template: text("template", asked.template)?,
        values: values(asked.values)?,
        images: images(asked.images)?,
        source: text("source", asked.source)?,
        supersedes: text("supersedes", asked.supersedes)?,
        update: text("update", asked.update)?,
        expires_after: span("expires_after", asked.expires_after)?,
        hold: span("hold", asked.hold)?,
        id: text("id", asked.id)?,
        dry_run: match asked.dry_run {
            None | Some(Value::Null) => false,
            Some(Value::Bool(dry)) => dry,
            Some(_) => {
                return Err(not_of_its_kind(
                    "dry_run",
                    Words::new("`dry_run` 须为 true 或 false", "`dry_run` is true or false"),
                ));
            }
        },
    })
}

/// Pictures below the queue folder: paths, or `{file, alt}`.
fn images(value: Option<Value>) -> Result<Vec<(String, Option<String>)>, Problem> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Path(String),
        Described(Described),
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Described {
        file: String,
        alt: Option<String>,
    }
    let given: Vec<Given> = match value {
        None | Some(Value::Null) => Vec::new(),
        Some(given) => serde_json::from_value(given).map_err(|_| {
            let said = Words::new(
                "`images` 须为路径或 {file, alt} 的列表",
                "`images` has to be a list of paths, or of {file, alt}",
            );
            not_of_its_kind("images", said)
        })?,
    };
    let pair = |given| match given {
        Given::Path(file) => (file, None),
        Given::Described(Described { file, alt }) => (file, alt),
    };
    Ok(given.into_iter().map(pair).collect())
}

/// A template's values: text by name.
fn values(value: Option<Value>) -> Result<BTreeMap<String, String>, Problem> {
    match value {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(given) => serde_json::from_value(given).map_err(|_| {
            let said = Words::new("`values` 须为对象，值都是文字", "`values` has to be an object of texts");
            not_of_its_kind("values", said)
        }),
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Confirm {
    /// Of the content that was shown.
    #[schema(value_type = String)]
    content_hash: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    /// Without it the standard words, or the template's.
    text: Option<String>,
    /// Only shows what would go where.
    #[serde(default)]
    dry_run: bool,
    /// The words that a look has shown, empty where nobody was to be told; where they have changed since, nothing is said.
    shown: Option<String>,
}

impl Said {
    fn closed(&self) -> Closed<'_> {
        Closed { text: self.text.as_deref(), dry_run: self.dry_run, shown: self.shown.as_deref() }
    }

    fn status(&self) -> StatusCode {
        if self.dry_run { StatusCode::OK } else { StatusCode::ACCEPTED }
    }
}

type Accepted = Result<(StatusCode, axum::Json<Value>), Problem>;

pub async fn confirm(
    Allowed(peer, _): Allowed<DUTY>,
    State(inner): State<Arc<Inner>>,
    Named(id): Named,
    headers: HeaderMap,
    Sent(bytes): Sent,
) -> Accepted {
    let Confirm { content_hash } = body(&headers, &bytes)?;
    let hash = content_hash.ok_or_else(|| {
        wrong(
            "content_hash",
            Words::new("要有所示内容的 `content_hash`", "the `content_hash` that was shown is needed"),
        )
    })?;
    Ok((StatusCode::ACCEPTED, axum::Json(inner.confirm(&peer.actor(), &id, &hash).await?)))
}

pub async fn correct(
    Allowed(peer, _): Allowed<DUTY>,
    State(inner): State<Arc<Inner>>,
    Named(id): Named,
    headers: HeaderMap,
    Sent(bytes): Sent,
) -> Accepted {
    let said: Said = body(&headers, &bytes)?;
    Ok((said.status(), axum::Json(inner.correct(&peer.actor(), &id, said.closed()).await?)))
}

pub async fn all_clear(
    Allowed(peer, _): Allowed<DUTY>,
    State(inner): State<Arc<Inner>>,
    Named(id): Named,
    headers: HeaderMap,
    Sent(bytes): Sent,
) -> Accepted {
    let said: Said = body(&headers, &bytes)?;
    Ok((said.status(), axum::Json(inner.all_clear(&peer.actor(), &id, said.closed(), &[]).await?)))
}
