//! Errors as `application/problem+json` (RFC 9457), in both languages.

use std::borrow::Cow;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::core::words::{Words, words};
use crate::daemon::acts::ActError;
use crate::ledger::LedgerError;

/// RFC 9457's media type.
pub const PROBLEM: &str = "application/problem+json";

#[derive(Debug)]
pub struct Problem {
    pub status: StatusCode,
    pub words: Words,
    /// The field of the request that is to blame.
    pub field: Option<Cow<'static, str>>,
}

/// How it is sent (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Said {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    /// For a person.
    detail: String,
    /// The same in Chinese.
    detail_zh: String,
    /// The field or parameter that is to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<Cow<'static, str>>,
}

impl Problem {
    pub fn new(status: StatusCode, words: Words) -> Problem {
        Problem { status, words, field: None }
    }

    pub fn malformed(words: Words) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, words)
    }

    /// Understood, and not one that this parameter or field takes.
    pub fn unfit(field: impl Into<Cow<'static, str>>, words: Words) -> Problem {
        Problem { status: StatusCode::UNPROCESSABLE_ENTITY, words, field: Some(field.into()) }
    }

    pub fn not_found(words: Words) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, words)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let said = Said {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("error"),
            status: self.status.as_u16(),
            detail: self.words.en,
            detail_zh: self.words.zh,
            field: self.field,
        };
        let body = serde_json::to_string(&said).expect("a problem has only texts and a number");
        (self.status, [(header::CONTENT_TYPE, PROBLEM)], body).into_response()
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Problem {
        let status = match error {
            LedgerError::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            LedgerError::Conflict => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, words!("账本：{error}", "{error}"))
    }
}

impl From<ActError> for Problem {
    fn from(error: ActError) -> Problem {
        match error {
            ActError::NotFound(words) => Problem::not_found(words),
            ActError::Conflict(words) => Problem::new(StatusCode::CONFLICT, words),
            ActError::Denied(words) => Problem::new(StatusCode::FORBIDDEN, words),
            ActError::Invalid(field, words) => Problem::unfit(field, words),
            ActError::Ledger(error) => error.into(),
        }
    }
}
