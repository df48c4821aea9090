//! Errors as `application/problem+json` (RFC 9457), in both languages.

use std::borrow::Cow;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::core::words::{Words, words};
use crate::daemon::acts::ActError;
use crate::ledger::LedgerError;

#[derive(Debug)]
pub struct Problem {
    pub status: StatusCode,
    pub words: Words,
    /// The field of the request that is to blame.
    pub field: Option<Cow<'static, str>>,
}

impl Problem {
    pub fn new(status: StatusCode, words: Words) -> Problem {
        Problem { status, words, field: None }
    }

    pub fn malformed(words: Words) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, words)
    }

    pub fn not_found(words: Words) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, words)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "detail": self.words.en,
            "detail_zh": self.words.zh,
        });
        if let Some(field) = self.field {
            body["field"] = field.into_owned().into();
        }
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
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
            ActError::Invalid(field, words) => {
                Problem { status: StatusCode::UNPROCESSABLE_ENTITY, words, field: Some(field) }
            }
            ActError::Ledger(error) => error.into(),
        }
    }
}
