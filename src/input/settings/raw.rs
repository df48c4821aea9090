//! `fabu.yaml` as written; every field optional, so that all faults are found and not the first.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Access;
use crate::core::announcement::Level;
use crate::input::values::{Limit, Settling, Share, Span, Whole};

/// The file as written.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Configuration")]
pub struct Raw {
    pub(super) timezone: Option<String>,
    pub(super) queue: Option<String>,
    pub(super) accounts: Option<String>,
    pub(super) templates: Option<String>,
    pub(super) ledger: Option<String>,
    pub(super) socket: Option<String>,
    pub(super) platforms: Option<BTreeMap<String, Option<RawPlatform>>>,
    pub(super) publish: Option<RawPublish>,
    pub(super) emergency: Option<RawEmergency>,
    pub(super) cap: Option<RawCap>,
    pub(super) access: Option<Access>,
    pub(super) notify: Option<Vec<Option<RawNotify>>>,
    /// Written by `fabu drill` into the file by which commands find it: no daemon runs by that file.
    pub(super) drill: Option<bool>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPlatform {
    pub(super) api: Option<String>,
    pub(super) base_url: Option<String>,
    pub(super) timeout: Option<Span>,
    pub(super) limits: Option<RawLimits>,
    pub(super) read_back: Option<RawReadBack>,
    pub(super) mode: Option<String>,
    pub(super) app_key: Option<String>,
    pub(super) link_domain: Option<String>,
    pub(super) audited: Option<bool>,
    pub(super) operator_ip: Option<String>,
    pub(super) url_weight: Option<Whole>,
    pub(super) upload_url: Option<String>,
    pub(super) biz_url: Option<String>,
    pub(super) publish: Option<String>,
    pub(super) author: Option<String>,
    pub(super) auth: Option<String>,
    pub(super) count: Option<String>,
    pub(super) text_limit: Option<Whole>,
    pub(super) picture: Option<RawPicture>,
    pub(super) post_url: Option<String>,
    pub(super) profile_url: Option<String>,
    pub(super) visibility: Option<String>,
    /// For the sandbox alone: which server it imitates.
    pub(super) dialect: Option<String>,
    pub(super) language: Option<String>,
    /// Connections of the emergency lane that are kept open.
    pub(super) warm: Option<RawWarm>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPicture {
    pub(super) path: Option<String>,
    pub(super) field: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWarm {
    pub(super) connections: Option<Whole>,
    pub(super) every: Option<Span>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) account_per_hour: Option<Limit>,
    pub(super) account_per_day: Option<Limit>,
    pub(super) host_per_hour: Option<Limit>,
    pub(super) connections: Option<Whole>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReadBack {
    pub(super) after: Option<Vec<Option<Span>>>,
    pub(super) settle: Option<Span>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPublish {
    pub(super) lead: Option<Span>,
    pub(super) sync: Option<crate::input::queue::RawSync>,
    pub(super) grace: Option<Span>,
    pub(super) catch_up: Option<Span>,
    /// A duration, or `off`.
    pub(super) settle_file: Option<Settling>,
    pub(super) max_cancel: Option<Share>,
    pub(super) retry: Option<RawRetry>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRetry {
    pub(super) first: Option<Span>,
    pub(super) max: Option<Span>,
    pub(super) tries: Option<Whole>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEmergency {
    pub(super) hold: Option<BTreeMap<Level, Span>>,
    pub(super) confirm: Option<BTreeMap<Level, Whole>>,
    pub(super) confirm_within: Option<Span>,
    pub(super) reserve: Option<Share>,
    pub(super) after_hold: Option<RawAfterHold>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawAfterHold {
    Review,
    Resume,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCap {
    /// Whose alerts are taken.
    pub(super) senders: Option<Vec<Option<RawSender>>>,
    /// Selector of accounts, by GB/T 2260 code.
    pub(super) areas: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSender {
    pub(super) id: Option<String>,
    /// The highest it may ask.
    pub(super) level: Option<Level>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNotify {
    /// `emergency`, `failed`, `unknown`, `confirm`, `credential`.
    pub(super) on: Option<Vec<Option<String>>>,
    /// A program and its arguments; no shell reads them.
    pub(super) run: Option<Vec<Option<String>>>,
    pub(super) url: Option<String>,
}
