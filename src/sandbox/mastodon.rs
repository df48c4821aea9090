//! Mastodon.
//!
//! The idempotency key is remembered only once its post has been made and answered, and nothing is locked meanwhile: two
//! requests with one key at the same time post twice, as most versions do (`locks_keys` imitates the newest).

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::{Value, json};

use super::call::{Call, Kind, Reply};
use super::count;
use super::mastodon_media;
use super::rewrite;
use super::script::Refusal;
use super::state::{Ctx, Entry, New, REMEMBERED, Standing, window_end};
use crate::clock::{Time, from_micros};

/// A key is good for an hour.
const KEY_LIFE: chrono::TimeDelta = chrono::TimeDelta::hours(1);
const CALLS: (i64, u32) = (300, 300);
const UPLOADS: (i64, u32) = (1800, 30);
const DELETES: (i64, u32) = (1800, 30);

/// Idempotency keys by account, with their posts.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    keys: BTreeMap<String, (u64, Time)>,
    busy: BTreeSet<String>,
}

impl Remembered {
    pub fn store(&mut self, key: String, post: u64, now: Time) {
        self.busy.remove(&key);
        if self.keys.len() >= REMEMBERED {
            self.keys.retain(|_, (_, at)| now - *at < KEY_LIFE);
        }
        if self.keys.len() < REMEMBERED {
            self.keys.insert(key, (post, now));
        }
    }

    fn find(&self, key: &str, now: Time) -> Option<u64> {
        self.keys.get(key).filter(|(_, at)| now - *at < KEY_LIFE).map(|(n, _)| *n)
    }
}

pub(super) fn token(call: &Call) -> Option<String> {
    call.authorization("Bearer").or_else(|| call.param("access_token")).map(str::to_owned)
}

pub(super) fn class(path: &str) -> &'static str {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts[..] {
        ["api", "v1", "statuses"] => "post",
        ["api", "v1" | "v2", "media"] => "upload",
        ["api", "v1", "media", _] => "media",
        ["api", "v1", "statuses", _] | ["api", "v1", "statuses", _, "source"] => "show",
        ["api", "v1", "accounts", "verify_credentials"] => "check",
        ["api", "v1", "accounts", _, "statuses"] => "timeline",
        ["api", "v1" | "v2", "instance"] => "config",
        _ => "other",
    }
}

pub(super) fn error(status: u16, words: &str) -> Reply {
    Reply::json(status, status.to_string(), json!({"error": words}))
}

pub(super) fn answer(ctx: &mut Ctx<'_>) -> Reply {
    let path = ctx.call.path.clone();
    let class = class(&path);
    let method = ctx.call.method.clone();
    let reads = method == Method::GET;
    let fits = match class {
        "post" | "upload" => method == Method::POST,
        "show" => reads || method == Method::DELETE && !path.ends_with("/source"),
        "other" => false,
        _ => reads,
    };
    if !fits {
        return Reply::json(404, "404", json!({"error": "The page you are looking for isn't here."}));
    }
    if class == "config" {
        return mastodon_media::instance(ctx);
    }
    if let Some(refused) = authenticate(ctx) {
        return refused;
    }
    let quota = match class {
        "upload" => Some(("media", UPLOADS)),
        "show" if !reads => Some(("deletes", DELETES)),
        _ => None,
    };
    let limited = limit(ctx, "calls", CALLS).or_else(|| quota.and_then(|(name, most)| limit(ctx, name, most)));
    if let Some(refused) = limited {
        return refused;
    }
    let reply = match class {
        "post" => post(ctx),
        "upload" => mastodon_media::upload(ctx),
        "media" => mastodon_media::show(ctx),
        "check" => Reply::ok(ctx.account().map_or(Value::Null, |account| user(&account.unit, ctx))),
        "timeline" => timeline(ctx),
        _ if reads => show(ctx),
        _ => delete(ctx),
    };
    with_limits(ctx, reply)
}

fn authenticate(ctx: &Ctx<'_>) -> Option<Reply> {
    let dialect = ctx.site.settings.dialect;
    match ctx.account() {
        None => Some(dialect.unauthorized("The access token is invalid")),
        Some(account) => match account.standing(ctx.now) {
            Standing::Expired => Some(dialect.unauthorized("The access token expired")),
            Standing::Revoked => Some(dialect.unauthorized("The access token was revoked")),
            Standing::Good if account.captcha => Some(error(403, "Your login is currently disabled")),
            Standing::Good => None,
        },
    }
}

fn limit(ctx: &mut Ctx<'_>, name: &'static str, (seconds, most): (i64, u32)) -> Option<Reply> {
    let clock = ctx.clock();
    let most = ctx.site.settings.limits.quotas.then_some(most);
    let window = ctx.account_mut()?.quotas.entry(name).or_default();
    (!window.take(clock, seconds, most)).then(|| too_many(ctx, seconds, CALLS.1))
}

fn too_many(ctx: &Ctx<'_>, seconds: i64, most: u32) -> Reply {
    let reset = from_micros(window_end(ctx.clock(), seconds) * 1_000_000);
    error(429, "Too many requests")
        .with("x-ratelimit-limit", most.to_string())
        .with("x-ratelimit-remaining", "0")
        .with("x-ratelimit-reset", iso(reset))
}

fn with_limits(ctx: &mut Ctx<'_>, reply: Reply) -> Reply {
    let clock = ctx.clock();
    let used = ctx.account().and_then(|a| a.quotas.get("calls")).map_or(0, |w| w.used(clock, CALLS.0));
    let reset = from_micros(window_end(clock, CALLS.0) * 1_000_000);
    if reply.headers.iter().any(|(name, _)| *name == "x-ratelimit-reset") {
        return reply;
    }
    reply
        .with("x-ratelimit-limit", CALLS.1.to_string())
        .with("x-ratelimit-remaining", CALLS.1.saturating_sub(used).to_string())
        .with("x-ratelimit-reset", iso(reset))
}

pub(super) fn iso(at: Time) -> String {
    at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// A field of a form or of a JSON body.
fn field(call: &Call, name: &str) -> Option<String> {
    call.param(name).map(str::to_owned).or_else(|| match call.member(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        other => Some(other.to_string()),
    })
}

fn media_ids(call: &Call) -> Vec<String> {
    let form = call.form.iter().filter(|(key, _)| key == "media_ids[]").map(|(_, id)| id.clone());
    let json = call.member("media_ids").and_then(Value::as_array).into_iter().flatten();
    form.chain(json.filter_map(|id| id.as_str().map(str::to_owned))).collect()
}

fn post(ctx: &mut Ctx<'_>) -> Reply {
    if !matches!(ctx.call.kind, Kind::Form | Kind::Json | Kind::Multipart) {
        return error(422, "Validation failed: Text can't be blank");
    }
    let unit = ctx.unit.clone().unwrap_or_default();
    let key = ctx.call.header("idempotency-key").filter(|key| !key.is_empty()).map(|key| format!("{unit} {key}"));
    let key = key.filter(|_| ctx.site.settings.dialect.keeps_keys());
    if let Some(key) = &key {
        if let Some(post) = ctx.site.keys.find(key, ctx.now).and_then(|n| ctx.posts.get(n)) {
            return Reply::json(200, "same key", status(post, ctx));
        }
        if ctx.site.settings.locks_keys && !ctx.site.keys.busy.insert(key.clone()) {
            return error(503, "There was a temporary problem serving your request, please try again");
        }
    }
    let made = make(ctx);
    if made.is_err()
        && let Some(key) = &key
    {
        ctx.site.keys.busy.remove(key);
    }
    match made {
        Ok(entry) => Reply { key: key.map(|key| Box::new((key, entry.n))), ..Reply::ok(status(&entry, ctx)) },
        Err(refused) => refused,
    }
}

fn make(ctx: &mut Ctx<'_>) -> Result<Entry, Reply> {
    let call = ctx.call;
    let text = field(call, "status").unwrap_or_default();
    let spoiler = field(call, "spoiler_text").unwrap_or_default();
    let ids = media_ids(call);
    if text.trim().is_empty() && ids.is_empty() {
        return Err(error(422, "Validation failed: Text can't be blank"));
    }
    let visibility = field(call, "visibility").unwrap_or_else(|| "public".to_owned());
    if !["public", "unlisted", "private", "direct"].contains(&visibility.as_str()) {
        return Err(error(422, "Validation failed: Visibility is not included in the list"));
    }
    let limit = ctx.site.settings.text_limit;
    if count::mastodon(&text) + count::mastodon(&spoiler) > limit {
        return Err(ctx.site.settings.dialect.too_long(limit));
    }
    if let Some(at) = field(call, "scheduled_at") {
        let soon = chrono::DateTime::parse_from_rfc3339(&at)
            .is_ok_and(|at| at.to_utc() - ctx.clock() >= chrono::TimeDelta::minutes(5));
        let words = if soon {
            "Scheduled statuses are not imitated"
        } else {
            "Validation failed: Scheduled at The scheduled date must be in the future"
        };
        return Err(error(422, words));
    }
    let images = mastodon_media::attached(ctx, &ids)?;
    let floor = (ctx.clock().timestamp_millis().max(0) as u64) << 16;
    let number = ctx.site.next_id(floor, ctx.twist.big_ids);
    let extra = json!({"visibility": visibility, "spoiler": spoiler, "language": field(call, "language")});
    let (dialect, clock) = (ctx.site.settings.dialect, ctx.clock());
    let id = Some(dialect.post_id(number, clock, &mut ctx.site.dice));
    Ok(ctx.publish(New { shown: text.trim().to_owned(), sent: text, images, number, id, extra, ..New::default() }))
}

/// The account; its id is its number as a string.
fn user(unit: &str, ctx: &Ctx<'_>) -> Value {
    let Some(account) = ctx.site.accounts.get(unit) else { return Value::Null };
    json!({
        "id": account.uid.to_string(),
        "username": account.handle,
        "acct": account.handle,
        "display_name": account.name,
        "locked": false,
        "url": format!("https://{}.example/@{}", ctx.site.name, account.handle),
        "statuses_count": account.posts.len(),
    })
}

fn html(text: &str) -> String {
    let link = |url: &str| {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let url = rewrite::escape(url);
        let (shown, more) = rest.split_at(rest.char_indices().nth(30).map_or(rest.len(), |(at, _)| at));
        let ellipsis = if more.is_empty() { "" } else { "ellipsis" };
        format!(
            "<a href=\"{url}\" target=\"_blank\" rel=\"nofollow noopener noreferrer\"><span class=\"invisible\">\
             {scheme}://</span><span class=\"{ellipsis}\">{}</span><span class=\"invisible\">{}</span></a>",
            rewrite::escape(shown),
            rewrite::escape(more)
        )
    };
    let mut out = String::new();
    let mut last = 0;
    for url in count::urls(text) {
        out.push_str(&rewrite::escape(&text[last..url.start]));
        out.push_str(&link(&text[url.clone()]));
        last = url.end;
    }
    out.push_str(&rewrite::escape(&text[last..]));
    let paragraphs: Vec<String> =
        out.split("\n\n").map(|part| format!("<p>{}</p>", part.trim_matches('\n').replace('\n', "<br />"))).collect();
    paragraphs.concat()
}

fn status(post: &Entry, ctx: &Ctx<'_>) -> Value {
    let handle = ctx.site.accounts.get(&post.unit).map_or("", |account| account.handle.as_str());
    let url = format!("https://{}.example/@{handle}/{}", ctx.site.name, post.id);
    let host = format!("{}.example", ctx.site.name);
    json!({
        "id": post.id,
        "created_at": iso(post.created),
        "in_reply_to_id": null,
        "sensitive": false,
        "spoiler_text": post.extra.get("spoiler"),
        "visibility": post.extra.get("visibility"),
        "language": post.extra.get("language"),
        "uri": format!("https://{}.example/users/{handle}/statuses/{}", ctx.site.name, post.id),
        "url": url,
        "content": ctx.site.settings.dialect.html(&post.shown, &host).unwrap_or_else(|| html(&post.shown)),
        "reblog": null,
        "account": user(&post.unit, ctx),
        "media_attachments": mastodon_media::shown_with(ctx, &post.images),
    })
}

fn id_of(path: &str) -> &str {
    path.split('/').nth(4).unwrap_or_default()
}

fn show(ctx: &Ctx<'_>) -> Reply {
    let id = id_of(&ctx.call.path);
    let own = |post: &&Entry| Some(&post.unit) == ctx.unit.as_ref() || !post.hidden && !post.in_review(ctx.now);
    match ctx.posts.anywhere(&ctx.site.name, id).filter(|post| post.listed(ctx.now)).filter(own) {
        None => ctx.site.settings.dialect.not_found(),
        Some(_) if ctx.call.path.ends_with("/source") && !ctx.site.settings.dialect.has_source() => {
            ctx.site.settings.dialect.not_found()
        }
        Some(post) if ctx.call.path.ends_with("/source") => {
            Reply::ok(json!({"id": post.id, "text": post.sent, "spoiler_text": post.extra.get("spoiler")}))
        }
        Some(post) => Reply::ok(status(post, ctx)),
    }
}

fn delete(ctx: &mut Ctx<'_>) -> Reply {
    let found = ctx.own(id_of(&ctx.call.path));
    let Some(post) = ctx.live(found) else { return ctx.site.settings.dialect.not_found() };
    ctx.delete(post.n);
    let mut gone = status(&post, ctx);
    gone["text"] = json!(post.sent);
    Reply::ok(gone)
}

fn timeline(ctx: &Ctx<'_>) -> Reply {
    let id = id_of(&ctx.call.path);
    let Some(account) = ctx.site.accounts.values().find(|account| account.uid.to_string() == id) else {
        return error(404, "Record not found");
    };
    let number = |name: &str| ctx.call.param(name).and_then(|n| n.parse::<u64>().ok());
    // By its place, whatever an id looks like; a number that is none's counts all the same.
    let than = |name: &str, post: &Entry| {
        let id = ctx.call.param(name)?;
        let named = ctx.posts.anywhere(&ctx.site.name, id).map(|other| post.n.cmp(&other.n));
        named.or_else(|| id.parse::<u64>().ok().map(|number| post.number.cmp(&number)))
    };
    let is_asked_for = |post: &&Entry| {
        than("since_id", post).is_none_or(std::cmp::Ordering::is_gt)
            && than("max_id", post).is_none_or(std::cmp::Ordering::is_lt)
    };
    let count = number("limit").unwrap_or(20).clamp(1, 40) as usize;
    let own = Some(&account.unit) == ctx.unit.as_ref();
    let shown = ctx
        .posts
        .of(account)
        .skip(ctx.gap().0)
        .filter(|post| post.listed(ctx.now) && (own || !post.hidden && !post.in_review(ctx.now)))
        .filter(is_asked_for)
        .take(count);
    Reply::ok(shown.map(|post| status(post, ctx)).collect())
}

pub(super) fn refusal(ctx: &mut Ctx<'_>, refusal: &Refusal) -> Reply {
    let (p, status, words) = match refusal {
        Refusal::Error(p) => (p, 200, "Validation failed: Text is not acceptable"),
        Refusal::Duplicate(p) => (p, 422, "Validation failed: Duplicate status"),
        Refusal::Limit(p) => {
            let reply = too_many(ctx, CALLS.0, CALLS.1);
            return Reply { status: p.status.unwrap_or(429), ..reply };
        }
        Refusal::Overload(p) => (p, 503, "There was a temporary problem serving your request, please try again"),
        Refusal::Unfit(p) => (p, 422, "Validation failed: Text is not acceptable"),
    };
    let reply = error(p.status.unwrap_or(status), p.message.as_deref().unwrap_or(words));
    if reply.status == 503 { reply.with("retry-after", p.seconds.unwrap_or(30.0).to_string()) } else { reply }
}
