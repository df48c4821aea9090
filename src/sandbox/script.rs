//! What the rules that fired do to one call, put together.
//!
//! There are four places at which trouble comes in: instead of the answer, in the platform's own words, while the post is
//! made, and on the answer's way out.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::Value;

use super::faults::{Behaviour, Params};
use super::latency::Latency;
use super::rewrite::Rewrite;
use super::settings::Api;
use super::state::{Site, Standing, after};
use crate::clock::Time;

/// What happens to a post while it is made.
#[derive(Clone, Debug, Default)]
pub(super) struct Twist {
    pub offset: TimeDelta,
    pub delayed: Option<Duration>,
    /// The platform also says that it will be late.
    pub says_late: bool,
    pub review: Option<(Duration, bool)>,
    pub cut: bool,
    pub drop_picture: bool,
    pub big_ids: bool,
    pub rewrite: Option<Rewrite>,
    pub vanish: Option<Duration>,
    pub hidden: bool,
    pub eaten: bool,
    pub polls: Option<u32>,
    pub admin: bool,
    pub gap: Option<Gap>,
    pub refuse: Option<Refusal>,
}

/// A timeline that does not show all there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    /// So many of the newest are not shown.
    pub newest: usize,
    /// Where the dialect can say that there is more, it does.
    pub is_told: bool,
}

impl Gap {
    /// `cut`: the newest is missing, and that is said; `empty`: all of it, and that is said; `lie`: it is not.
    fn named(kind: &str, count: Option<u64>) -> Gap {
        match kind {
            "empty" => Gap { newest: usize::MAX, is_told: true },
            "lie" => Gap { newest: usize::MAX, is_told: false },
            _ => Gap { newest: count.map_or(1, |n| n as usize), is_told: true },
        }
    }
}

/// An answer in the platform's own words instead of the call being carried out.
#[derive(Clone, Debug)]
pub(super) enum Refusal {
    Error(Params),
    Duplicate(Params),
    Limit(Params),
    Overload(Params),
    Unfit(Params),
}

/// What is done instead of answering the call.
#[derive(Clone, Debug)]
pub(super) enum Instead {
    Reset,
    Refuse,
    Hang,
    Alert,
    Silence(Option<Duration>),
    Page(u16, bool),
    Redirect(u16, String),
}

/// What is done to an answer on its way out.
#[derive(Clone, Debug)]
pub(super) enum Spoil {
    Reset,
    Cut(String),
    Dirt(String),
    Huge(u64),
    Bomb(u64),
    EndlessHeaders,
    EndlessBody,
    Trickle(Duration),
    Continue,
    Bare,
    Deep(u64),
    OddId(Value),
    Echo,
    RetryAfter(String),
    Empty,
}

/// Everything that the rules which fired do to one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    pub number: Option<u8>,
    pub latency: Option<Latency>,
    pub instead: Option<Instead>,
    pub twist: Twist,
    pub spoil: Vec<Spoil>,
    /// The key is remembered, and the answer sent, so much after the post was made.
    pub key_after: Duration,
    /// Standing that the account takes on for good.
    pub account: Vec<(&'static str, Option<f64>)>,
}

impl Script {
    pub fn add(&mut self, behaviour: Behaviour, p: &Params) {
        self.number.get_or_insert(behaviour.number());
        let seconds = |default: f64| Duration::try_from_secs_f64(p.seconds.unwrap_or(default)).unwrap_or_default();
        let kind = p.kind.as_deref().unwrap_or_default();
        let executes = p.executes.unwrap_or(true);
        match behaviour.name() {
            "latency" => {
                let given = p.latency.as_deref().and_then(|text| text.parse().ok());
                self.latency = Some(given.unwrap_or(Latency::Fixed(seconds(1.0))));
            }
            "reset_before" => self.instead = Some(Instead::Reset),
            "black_hole" => self.instead = Some(Instead::Silence(executes.then(|| seconds(30.0)))),
            "blacklist" => self.instead = Some(Instead::Silence(None)),
            "unreachable" => self.instead = Some(unreachable(kind)),
            "stale" => self.instead = Some(Instead::Reset),
            "proxy_page" => {
                self.instead = Some(Instead::Page(p.status.unwrap_or(502), p.executes.unwrap_or(false)));
            }
            "redirect" => {
                let to = p.location.clone().unwrap_or_else(|| "http://portal.example/login".to_owned());
                self.instead = Some(Instead::Redirect(p.status.unwrap_or(302), to));
            }
            "error" => self.twist.refuse = Some(Refusal::Error(p.clone())),
            "duplicate" => self.twist.refuse = Some(Refusal::Duplicate(p.clone())),
            "limit" => self.twist.refuse = Some(Refusal::Limit(p.clone())),
            "overload" => self.twist.refuse = Some(Refusal::Overload(p.clone())),
            "unfit" => self.twist.refuse = Some(Refusal::Unfit(p.clone())),
            "captcha" => self.account.push(("captcha", None)),
            "token" => self.account.push((token_kind(kind), p.seconds)),
            "slow_key" => self.key_after = seconds(5.0),
            _ => self.bend(behaviour, p, seconds(90.0), kind),
        }
    }

    /// The behaviours that let the call through and change what comes of it.
    fn bend(&mut self, behaviour: Behaviour, p: &Params, seconds: Duration, kind: &str) {
        let text = |default: &str| if kind.is_empty() { default.to_owned() } else { kind.to_owned() };
        let twist = &mut self.twist;
        match behaviour.name() {
            "delayed" => (twist.delayed, twist.says_late) = (Some(seconds), kind != "silent"),
            "review" => twist.review = Some((seconds, kind == "removed")),
            "silent_cut" if kind == "picture" => twist.drop_picture = true,
            "silent_cut" => twist.cut = true,
            "eaten" => twist.eaten = true,
            "gap" => twist.gap = Some(Gap::named(kind, p.count)),
            "clock" => {
                twist.offset = TimeDelta::milliseconds((p.seconds.unwrap_or(0.0) * 1000.0) as i64);
            }
            "big_ids" => twist.big_ids = true,
            "rewritten" => twist.rewrite = Some(Rewrite::named(kind, p.count)),
            "deleted" => twist.vanish = Some(p.seconds.map_or(Duration::ZERO, |_| seconds)),
            "pending" if kind == "admin" => twist.admin = true,
            "pending" => twist.polls = Some(p.count.unwrap_or(3) as u32),
            "unaudited" => twist.hidden = true,
            "cut_body" => self.spoil.push(Spoil::Cut(text("length"))),
            "reset_after" => self.spoil.push(Spoil::Reset),
            "dirt" => self.spoil.push(Spoil::Dirt(text("tail"))),
            "huge_body" => self.spoil.push(Spoil::Huge(p.count.unwrap_or(2 * 1024 * 1024))),
            "gzip_bomb" => self.spoil.push(Spoil::Bomb(p.count.unwrap_or(64 * 1024 * 1024))),
            "endless_headers" => self.spoil.push(Spoil::EndlessHeaders),
            "endless_body" => self.spoil.push(Spoil::EndlessBody),
            "trickle" => {
                let pause = p.seconds.map_or(Duration::from_millis(500), |_| seconds);
                self.spoil.push(Spoil::Trickle(pause));
            }
            "continue_flood" => self.spoil.push(Spoil::Continue),
            "http09" => self.spoil.push(Spoil::Bare),
            "deep_json" => self.spoil.push(Spoil::Deep(p.count.unwrap_or(100_000))),
            "odd_id" => self.spoil.push(Spoil::OddId(p.value.clone().unwrap_or(Value::Null))),
            "echo_token" => self.spoil.push(Spoil::Echo),
            "retry_after" => {
                let value = p.value.as_ref().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
                self.spoil.push(Spoil::RetryAfter(value.unwrap_or_else(|| "99999999".to_owned())));
            }
            _ => self.spoil.push(Spoil::Empty),
        }
    }
}

fn unreachable(kind: &str) -> Instead {
    match kind {
        "hang" => Instead::Hang,
        "tls" => Instead::Alert,
        _ => Instead::Refuse,
    }
}

fn token_kind(kind: &str) -> &'static str {
    match kind {
        "revoked" => "revoked",
        "replaced" => "replaced",
        _ => "expired",
    }
}

/// Changes an account's standing by the control's word or a rule's; `false` when there is no such account or word.
pub(super) fn stand(site: &mut Site, unit: &str, what: &str, seconds: Option<f64>, now: Time) -> bool {
    let later = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).map(|s| after(now, s));
    let Some(account) = site.accounts.get_mut(unit) else { return false };
    match what {
        "captcha" => account.captcha = true,
        "passed" => account.captcha = false,
        "approved" => return site.desk.approve(unit),
        // A WeChat token is not the account's: it ends, and the app makes another.
        "expired" if site.api == Api::Wechat => site.desk.expire(unit, later.unwrap_or(now)),
        "replaced" if site.api == Api::Wechat => site.desk.replace(unit),
        "expired" => account.expires_at = Some(later.unwrap_or(now)),
        "revoked" | "replaced" => account.standing = Standing::Revoked,
        "good" => (account.standing, account.expires_at) = (Standing::Good, None),
        _ => return false,
    }
    true
}
