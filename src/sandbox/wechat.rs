//! WeChat official accounts: tokens, quotas and the words of refusal; what is published lies in `wechat_posts`.
//!
//! HTTP is always fine, `errcode` decides. A token belongs to an app, is made from its secret, and dies when another
//! program forces a new one, which is why 40001 can come while `expires_in` is not over.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use http::Method;
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::script::Refusal;
use super::state::{Ctx, Site, Standing};
use super::wechat_posts as posts;
use crate::clock::Time;

const TOKEN_LIFE: TimeDelta = TimeDelta::seconds(7200);
/// In its last minutes a token is followed by the next one, and both are good.
const OVERLAP: TimeDelta = TimeDelta::seconds(300);
const DAY: i64 = 86_400;

#[derive(Debug)]
struct Token {
    unit: String,
    expires: Time,
    /// Dead before its time.
    replaced: bool,
    stable: bool,
}

/// What the app has in hand: tokens, drafts, jobs, mass sends.
#[derive(Debug, Default)]
pub(super) struct Desk {
    tokens: BTreeMap<String, Token>,
    forced: BTreeMap<String, Time>,
    pub drafts: BTreeMap<String, posts::Draft>,
    pub jobs: BTreeMap<String, posts::Job>,
    pub sends: BTreeMap<String, posts::Mass>,
}

impl Desk {
    pub fn expire(&mut self, unit: &str, at: Time) {
        for token in self.tokens.values_mut().filter(|token| token.unit == unit) {
            token.expires = token.expires.min(at);
        }
    }

    /// Another program has made itself a token by force.
    pub fn replace(&mut self, unit: &str) {
        for token in self.tokens.values_mut().filter(|token| token.unit == unit) {
            token.replaced = true;
        }
    }

    /// The administrator's tap.
    pub fn approve(&mut self, unit: &str) -> bool {
        let mut any = false;
        for send in self.sends.values_mut().filter(|send| send.unit == unit && send.waits_since.is_some()) {
            send.waits_since = None;
            any = true;
        }
        any
    }

    fn newest(&self, unit: &str, now: Time) -> Option<(&String, &Token)> {
        let good = self.tokens.iter().filter(|(_, t)| t.unit == unit && t.stable && !t.replaced);
        good.filter(|(_, t)| t.expires > now).max_by_key(|(_, t)| t.expires)
    }
}

pub(super) fn who(site: &Site, call: &Call) -> Option<String> {
    let by_token = call.query.iter().find(|(key, _)| key == "access_token").map(|(_, token)| token);
    if let Some(token) = by_token {
        return site.desk.tokens.get(token).map(|token| token.unit.clone());
    }
    let id = call.member("appid").and_then(Value::as_str).or_else(|| call.anywhere("appid"))?;
    site.owner(id)
}

/// The app id and secret of a call for a token.
pub(super) fn stranger(call: &Call) -> Option<String> {
    let get = |name: &str| call.member(name).and_then(Value::as_str).or_else(|| call.anywhere(name));
    Some(format!("{}:{}", get("appid")?, get("secret")?))
}

pub(super) fn class(path: &str) -> &'static str {
    match path.trim_start_matches("/cgi-bin/") {
        "stable_token" | "token" => "token",
        "media/uploadimg" | "material/add_material" | "media/upload" => "upload",
        "draft/add" | "material/add_news" => "draft",
        "draft/get" | "draft/batchget" | "draft/delete" | "draft/count" => "drafts",
        "freepublish/submit" | "message/mass/sendall" => "post",
        "freepublish/get" | "message/mass/get" => "poll",
        "freepublish/batchget" => "list",
        "freepublish/delete" | "message/mass/delete" => "delete",
        "openapi/quota/get" | "clear_quota" => "limits",
        _ => "other",
    }
}

/// The daily quota of a path, for a new account.
fn quota(path: &str) -> Option<(&'static str, u32)> {
    Some(match path.trim_start_matches("/cgi-bin/") {
        "freepublish/submit" => ("submit", 100),
        "freepublish/get" => ("get", 100),
        "freepublish/batchget" => ("batchget", 100),
        "freepublish/delete" => ("delete", 10),
        "draft/add" => ("draft_add", 1000),
        "draft/get" => ("draft_get", 500),
        "message/mass/sendall" => ("mass", 100),
        "token" => ("token", 2000),
        _ => return None,
    })
}

pub(super) fn error(ctx: &mut Ctx<'_>, code: i64, words: &str) -> Reply {
    let words = match (code, words) {
        (_, given) if !given.is_empty() => given,
        (-1, _) => "system error",
        (40001, _) => "invalid credential, access_token is invalid or not latest",
        (40007, _) => "invalid media_id",
        (40013, _) => "invalid appid",
        (40125, _) => "invalid appsecret",
        (40164, _) => "invalid ip, not in whitelist",
        (41001, _) => "access_token missing",
        (42001, _) => "access_token expired",
        (43002, _) => "require POST method",
        (44002, _) => "empty post data",
        (45009, _) => "reach max api daily quota limit",
        (45011, _) => "api minute-quota reach limit, must slower, retry next minute",
        (45028, _) => "has no masssend quota",
        (45066, _) => "clientmsgid retry too fast",
        (45067, _) => "clientmsgid size out of limit",
        (47001, _) => "data format error",
        (48001, _) => "api unauthorized",
        (53600, _) => "Article ID invalid",
        (87014, _) => "risky content",
        _ => "invalid args",
    };
    let rid = format!(
        "{:08x}-{:08x}-{:08x}",
        ctx.now.timestamp(),
        ctx.site.dice.below(1 << 32),
        ctx.site.dice.below(1 << 32)
    );
    Reply::json(200, code.to_string(), json!({"errcode": code, "errmsg": format!("{words} rid: {rid}")}))
}

pub(super) fn answer(ctx: &mut Ctx<'_>) -> Reply {
    let path = ctx.call.path.clone();
    let class = class(&path);
    if class == "other" || !path.starts_with("/cgi-bin/") {
        return Reply::text(404, "404", "text/html", "<html><body><h1>404 Not Found</h1></body></html>");
    }
    if path == "/cgi-bin/token" {
        return old_token(ctx);
    }
    if ctx.call.method != Method::POST {
        return error(ctx, 43002, "");
    }
    if class == "token" {
        return stable_token(ctx);
    }
    if path == "/cgi-bin/clear_quota" {
        return clear_quota(ctx);
    }
    if let Some(refused) = authorise(ctx) {
        return refused;
    }
    if ctx.account().is_some_and(|account| account.captcha || account.standing(ctx.now) != Standing::Good) {
        return error(ctx, 48001, "");
    }
    if class != "upload" && ctx.call.json.is_none() {
        return error(ctx, if ctx.call.bytes == 0 { 44002 } else { 47001 }, "");
    }
    if let Some(refused) = spend(ctx, &path) {
        return refused;
    }
    match path.trim_start_matches("/cgi-bin/") {
        "media/uploadimg" => posts::inline_picture(ctx),
        "material/add_material" => posts::cover(ctx, true),
        "media/upload" => posts::cover(ctx, false),
        "draft/add" => posts::draft(ctx, false),
        "draft/batchget" => posts::draft_list(ctx),
        "material/add_news" => posts::draft(ctx, true),
        "draft/get" => posts::draft_get(ctx),
        "draft/count" => posts::draft_count(ctx),
        "draft/delete" => posts::draft_delete(ctx),
        "freepublish/submit" => posts::submit(ctx),
        "freepublish/get" => posts::poll(ctx),
        "freepublish/batchget" => posts::list(ctx),
        "freepublish/delete" => posts::delete(ctx),
        "message/mass/sendall" => posts::send_all(ctx),
        "message/mass/get" => posts::mass_get(ctx),
        "message/mass/delete" => posts::mass_delete(ctx),
        _ => quota_left(ctx),
    }
}

fn authorise(ctx: &mut Ctx<'_>) -> Option<Reply> {
    let token = ctx.call.query.iter().find(|(key, _)| key == "access_token").map(|(_, token)| token.clone());
    let Some(token) = token.filter(|token| !token.is_empty()) else { return Some(error(ctx, 41001, "")) };
    let now = ctx.now;
    let state = ctx.site.desk.tokens.get(&token).map(|t| (t.replaced, t.expires <= now));
    match state {
        None | Some((true, _)) => Some(error(ctx, 40001, "")),
        Some((false, true)) => Some(error(ctx, 42001, "")),
        Some((false, false)) => None,
    }
}

/// Counts a call against its daily quota, and mass sends against the minute's too.
fn spend(ctx: &mut Ctx<'_>, path: &str) -> Option<Reply> {
    let on = ctx.site.settings.limits.quotas;
    let clock = ctx.clock();
    if path.contains("/message/mass/") {
        let window = ctx.account_mut()?.quotas.entry("mass_minute").or_default();
        if !window.take(clock, 60, on.then_some(60)) {
            return Some(error(ctx, 45011, ""));
        }
    }
    let (name, most) = quota(path)?;
    let window = ctx.account_mut()?.quotas.entry(name).or_default();
    (!window.take(clock, DAY, on.then_some(most))).then(|| error(ctx, 45009, ""))
}

/// The unit whose app id and secret these are.
fn app(ctx: &mut Ctx<'_>, id: Option<String>, secret: Option<String>) -> Result<String, Reply> {
    let Some(id) = id.filter(|id| !id.is_empty()) else { return Err(error(ctx, 41002, "appid missing")) };
    let Some(secret) = secret.filter(|s| !s.is_empty()) else { return Err(error(ctx, 41004, "appsecret missing")) };
    let Some(unit) = ctx.site.owner(&id) else { return Err(error(ctx, 40013, "")) };
    let right = ctx.site.accounts.get(&unit).and_then(|a| a.keys.app.as_ref()).is_some_and(|(_, s)| *s == secret);
    if right { Ok(unit) } else { Err(error(ctx, 40125, "")) }
}

fn issue(ctx: &mut Ctx<'_>, unit: String, stable: bool) -> Reply {
    let token = format!("{}_{}", 100 + ctx.site.dice.below(20), ctx.site.dice.word(134));
    let now = ctx.now;
    ctx.site.desk.tokens.retain(|_, t| t.expires + OVERLAP > now);
    ctx.site.desk.tokens.insert(token.clone(), Token { unit, expires: now + TOKEN_LIFE, replaced: false, stable });
    Reply::ok(json!({"access_token": token, "expires_in": TOKEN_LIFE.num_seconds()}))
}

fn stable_token(ctx: &mut Ctx<'_>) -> Reply {
    let member = |name: &str| ctx.call.member(name).and_then(Value::as_str).map(str::to_owned);
    let (id, secret, grant) = (member("appid"), member("secret"), member("grant_type"));
    let force = ctx.call.member("force_refresh").and_then(Value::as_bool).unwrap_or(false);
    if ctx.call.json.is_none() {
        return error(ctx, if ctx.call.bytes == 0 { 44002 } else { 47001 }, "");
    }
    if grant.as_deref() != Some("client_credential") {
        return error(ctx, 40002, "invalid grant_type");
    }
    let unit = match app(ctx, id, secret) {
        Ok(unit) => unit,
        Err(refused) => return refused,
    };
    let now = ctx.now;
    if force {
        return forced_token(ctx, unit);
    }
    if let Some((token, old)) = ctx.site.desk.newest(&unit, now)
        && old.expires - now > OVERLAP
    {
        return Reply::ok(json!({"access_token": token, "expires_in": (old.expires - now).num_seconds()}));
    }
    issue(ctx, unit, true)
}

/// A forced refresh kills the token before; 20 a day, and not twice within 30 s.
fn forced_token(ctx: &mut Ctx<'_>, unit: String) -> Reply {
    let (now, clock, on) = (ctx.now, ctx.clock(), ctx.site.settings.limits.quotas);
    let soon = ctx.site.desk.forced.get(&unit).is_some_and(|at| now - *at < TimeDelta::seconds(30));
    if soon && on {
        return error(ctx, 45011, "");
    }
    let account = ctx.site.accounts.get_mut(&unit);
    if !account.is_some_and(|a| a.quotas.entry("forced").or_default().take(clock, DAY, on.then_some(20))) {
        return error(ctx, 45009, "");
    }
    ctx.site.desk.forced.insert(unit.clone(), now);
    for token in ctx.site.desk.tokens.values_mut().filter(|t| t.unit == unit && t.stable) {
        token.replaced = true;
    }
    issue(ctx, unit, true)
}

/// The old way: each call kills the token it gave before, and leaves the stable one alone.
fn old_token(ctx: &mut Ctx<'_>) -> Reply {
    let get = |name: &str| ctx.call.anywhere(name).map(str::to_owned);
    let (id, secret, grant) = (get("appid"), get("secret"), get("grant_type"));
    if grant.as_deref() != Some("client_credential") {
        return error(ctx, 40002, "invalid grant_type");
    }
    let unit = match app(ctx, id, secret) {
        Ok(unit) => unit,
        Err(refused) => return refused,
    };
    ctx.unit = Some(unit.clone());
    if let Some(refused) = spend(ctx, "/cgi-bin/token") {
        return refused;
    }
    for token in ctx.site.desk.tokens.values_mut().filter(|t| t.unit == unit && !t.stable) {
        token.replaced = true;
    }
    issue(ctx, unit, false)
}

fn clear_quota(ctx: &mut Ctx<'_>) -> Reply {
    if ctx.unit.is_none() {
        return error(ctx, 40013, "");
    }
    let clock = ctx.clock();
    let Some(account) = ctx.account_mut() else { return error(ctx, 40013, "") };
    let cleared = account.quotas.entry("cleared").or_default().take(clock, 30 * DAY, Some(10));
    account.quotas.retain(|name, _| matches!(*name, "cleared" | "forced" | "masses"));
    if cleared { Reply::ok(json!({"errcode": 0, "errmsg": "ok"})) } else { error(ctx, 48006, "forbid to clear quota") }
}

fn quota_left(ctx: &mut Ctx<'_>) -> Reply {
    let path = ctx.call.member("cgi_path").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some((name, most)) = quota(&path) else { return error(ctx, 76021, "cgi_path not found, please check") };
    let clock = ctx.clock();
    let used = ctx.account().and_then(|a| a.quotas.get(name)).map_or(0, |w| w.used(clock, DAY));
    let quota = json!({"daily_limit": most, "used": used, "remain": most.saturating_sub(used)});
    Reply::ok(json!({"errcode": 0, "errmsg": "ok", "quota": quota}))
}

pub(super) fn refusal(ctx: &mut Ctx<'_>, refusal: &Refusal) -> Reply {
    let (p, code) = match refusal {
        Refusal::Error(p) => (p, -1),
        Refusal::Duplicate(p) => (p, 45065),
        Refusal::Limit(p) => match p.kind.as_deref() {
            Some("minute") => (p, 45011),
            Some("mass") => (p, 45028),
            _ => (p, 45009),
        },
        Refusal::Overload(p) => (p, 9_500_002),
        Refusal::Unfit(p) => (p, 87014),
    };
    let mut reply = error(ctx, p.code.unwrap_or(code), p.message.as_deref().unwrap_or_default());
    reply.status = p.status.unwrap_or(reply.status);
    reply
}
