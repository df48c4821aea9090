//! A queue file as written; every field optional, so that all faults are found and not the first.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::core::announcement::{Level, Priority};
use crate::core::words::Words;
use crate::input::typed;
use crate::input::values::Span;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Queue")]
pub struct RawQueue {
    #[expect(dead_code, reason = "read entry by entry; here for the schema")]
    pub(super) announcements: Option<Vec<RawAnnouncement>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAnnouncement {
    /// Unique in the queue.
    pub(super) id: Option<String>,
    pub(super) text: Option<String>,
    /// Local to `timezone`, or RFC 3339 with an offset; `now`: as soon as it is read; absent: when the file has been left
    /// alone for `publish.settle_file`.
    pub(super) at: Option<String>,
    /// Five cron fields, or six with seconds first.
    pub(super) repeat: Option<String>,
    pub(super) from: Option<String>,
    pub(super) until: Option<String>,
    pub(super) skip: Option<Vec<Option<String>>>,
    /// `none`, `last` or a duration.
    pub(super) catch_up: Option<String>,
    pub(super) to: Option<Vec<Option<String>>>,
    pub(super) except: Option<Vec<Option<String>>>,
    pub(super) priority: Option<Priority>,
    pub(super) level: Option<Level>,
    pub(super) images: Option<Vec<Option<RawImage>>>,
    pub(super) link: Option<String>,
    pub(super) variants: Option<BTreeMap<String, Option<RawVariant>>>,
    pub(super) expires_after: Option<Span>,
    pub(super) sync: Option<RawSync>,
    pub(super) supersedes: Option<String>,
    pub(super) hold_exempt: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawSync {
    Together,
    Independent,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawVariant {
    pub(super) title: Option<String>,
    pub(super) text: Option<String>,
}

/// A path, or `{file, alt}`.
#[derive(Debug, JsonSchema)]
#[serde(untagged)]
pub(super) enum RawImage {
    Path(String),
    Described { file: String, alt: Option<String> },
}

impl<'de> Deserialize<'de> for RawImage {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde_yaml::Value;
        let bad = || {
            Words::new("图片写作路径，或 {file: 路径, alt: 说明}", "a picture is a path, or {file: PATH, alt: WORDS}")
        };
        match Value::deserialize(from)? {
            Value::String(path) => Ok(RawImage::Path(path)),
            Value::Mapping(map) => {
                let text = |key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
                let known = map.keys().all(|k| matches!(k.as_str(), Some("file" | "alt")));
                match (text("file"), known) {
                    (Some(file), true) => Ok(RawImage::Described { file, alt: text("alt") }),
                    _ => Err(typed::error(&bad())),
                }
            }
            _ => Err(typed::error(&bad())),
        }
    }
}
