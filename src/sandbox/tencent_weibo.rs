//! Tencent Weibo, as it was until it closed.
//!
//! HTTP says 200 to everything; `ret` and `errcode` say what happened. By default it is tolerant: what is too long is cut
//! and a bad picture is dropped without a word, unless the bits of `compatibleflag` make an error of it.

use http::Method;
use serde_json::{Value, json};

use super::call::{Kind, Reply};
use super::count;
use super::rewrite;
use super::script::Refusal;
use super::state::{Ctx, Entry, Media, New, Standing};
use super::weibo::public_ip;

const HOUR: i64 = 3600;
const PICTURE_BYTES: usize = 4 * 1024 * 1024;
/// Above this a text is not cut but refused, whatever the flags.
const HOPELESS: usize = 4 * count::TENCENT_BYTES;
const FLAG_SIZE: u32 = 0x2;
const FLAG_FORMAT: u32 = 0x4;
const FLAG_UPLOAD: u32 = 0x8;
const FLAG_LENGTH: u32 = 0x20;

pub(super) fn class(path: &str) -> &'static str {
    match path.trim_start_matches("/api/") {
        "t/add" | "t/add_pic" | "t/add_pic_url" => "post",
        "t/upload_pic" => "upload",
        "t/del" => "delete",
        "t/show" => "show",
        "statuses/broadcast_timeline" => "timeline",
        "user/info" => "check",
        _ => "other",
    }
}

/// `ret`, `errcode` and words; HTTP is fine with all of it.
fn error(ret: i64, errcode: i64, msg: &str) -> Reply {
    let body = json!({"ret": ret, "errcode": errcode, "msg": msg, "data": null, "seqid": 0});
    Reply::json(200, format!("{ret}/{errcode}"), body)
}

fn ok(ctx: &mut Ctx<'_>, data: Value) -> Reply {
    let seqid = ctx.site.dice.next() >> 2;
    Reply::json(200, "0/0", json!({"ret": 0, "errcode": 0, "msg": "ok", "data": data, "seqid": seqid}))
}

pub(super) fn answer(ctx: &mut Ctx<'_>) -> Reply {
    let path = ctx.call.path.clone();
    let class = class(&path);
    if class == "other" {
        return Reply::text(404, "404", "text/html", "<html><title>404 Not Found</title></html>");
    }
    let wanted = if matches!(class, "show" | "timeline" | "check") { Method::GET } else { Method::POST };
    if ctx.call.method != wanted {
        return error(3, 6, "http method error");
    }
    let clock = ctx.clock();
    let limits = ctx.site.settings.limits;
    if !ctx.site.host_hour.take(clock, HOUR, limits.host_per_hour) {
        return error(2, 0, "ip request limited");
    }
    if let Some(refused) = authorise(ctx) {
        return refused;
    }
    let most = limits.account_per_hour;
    if !ctx.account_mut().is_some_and(|account| account.calls_hour.take(clock, HOUR, most)) {
        return error(2, 0, "request limited");
    }
    match class {
        "post" => post(ctx, &path),
        "upload" => upload(ctx),
        "delete" => delete(ctx),
        "show" => show(ctx),
        "timeline" => timeline(ctx),
        _ => info(ctx),
    }
}

/// Every call carries the app's key, the token, the user and where it comes from.
fn authorise(ctx: &Ctx<'_>) -> Option<Reply> {
    let get = |name: &str| ctx.call.anywhere(name);
    if get("oauth_version") != Some("2.a") {
        return Some(error(3, 5, "oauth version error"));
    }
    if get("format").is_some_and(|format| format != "json") {
        return Some(error(1, 3, "error format"));
    }
    if get("access_token").is_none_or(str::is_empty) {
        return Some(error(3, 7, "access_token missing"));
    }
    let Some(account) = ctx.account() else { return Some(error(3, 3, "access_token not found")) };
    match account.standing(ctx.now) {
        Standing::Good => {}
        Standing::Expired => return Some(error(3, 4, "access_token expired")),
        Standing::Revoked => return Some(error(3, 1, "access_token revoked")),
    }
    let key = account.keys.app_key.as_ref().or(ctx.site.settings.app_key.as_ref());
    let differs = |name: &str, wanted: Option<&String>| wanted.is_some_and(|w| get(name) != Some(w.as_str()));
    if differs("oauth_consumer_key", key) || get("oauth_consumer_key").is_some_and(str::is_empty) {
        return Some(error(3, 7, "oauth_consumer_key error"));
    }
    if differs("openid", account.keys.openid.as_ref()) || get("openid").is_some_and(str::is_empty) {
        return Some(error(3, 7, "openid error"));
    }
    let writes = ctx.call.method == Method::POST;
    let ip = ctx.call.param("clientip");
    let wanted = ctx.site.settings.operator_ip.as_ref().filter(|_| writes);
    let bad = differs("clientip", wanted) || ip.is_some_and(|ip| !public_ip(ip, ctx.allow_private_ip));
    bad.then(|| error(1, 1, "error clientip"))
}

fn flag(ctx: &Ctx<'_>, bit: u32) -> bool {
    let flags = ctx.call.param("compatibleflag").and_then(|flags| flags.parse::<u32>().ok()).unwrap_or(0);
    flags & bit != 0
}

fn post(ctx: &mut Ctx<'_>, path: &str) -> Reply {
    let multipart = path.ends_with("/add_pic");
    match ctx.call.kind {
        Kind::Multipart if multipart => {}
        Kind::Form if !multipart => {}
        _ => return error(1, 4, "error content type"),
    }
    let text = ctx.call.param("content").unwrap_or_default().to_owned();
    let bytes = count::tencent(&text, ctx.site.settings.url_weight.unwrap_or(11));
    if text.trim().is_empty() || bytes > HOPELESS {
        return error(1, 2, "error content len");
    }
    if bytes > count::TENCENT_BYTES && flag(ctx, FLAG_LENGTH) {
        return error(4, 8, "content too long");
    }
    let images = match pictures(ctx, path) {
        Ok(images) => images,
        Err(refused) => return refused,
    };
    if let Some(refused) = check_account(ctx, &text) {
        return refused;
    }
    let mut kept = cut(text.trim().to_owned());
    if ctx.twist.cut {
        kept = kept.chars().take(kept.chars().count() / 2).collect();
    }
    let number = 100_000_000_000_000 + ctx.site.dice.below(400_000_000_000_000);
    let number = if ctx.twist.big_ids { number + (1 << 62) } else { number };
    let extra = json!({"kept": kept});
    let entry = ctx.publish(New { sent: text, shown: rewrite::escape(&kept), images, number, extra, ..New::default() });
    if ctx.twist.says_late {
        return error(4, 0, "success");
    }
    let time = entry.created.timestamp();
    let id = entry.id;
    ok(ctx, json!({"id": id, "time": time, "timestamp": time}))
}

/// A text is cut to what fits, in silence.
fn cut(mut text: String) -> String {
    while count::tencent(&text, 11) > count::TENCENT_BYTES {
        text.pop();
    }
    text
}

fn check_account(ctx: &Ctx<'_>, text: &str) -> Option<Reply> {
    let account = ctx.account()?;
    if account.captcha {
        return Some(error(4, 14, "real name not verified"));
    }
    if ctx.repeated(text, None) {
        return Some(error(4, 13, "repeated msg"));
    }
    let gap = ctx.site.settings.limits.gap_ms?;
    let last = account.recent.back()?;
    let soon = ctx.now - *last < chrono::TimeDelta::milliseconds(i64::from(gap));
    soon.then(|| error(4, 10, "publish too fast"))
}

fn pictures(ctx: &mut Ctx<'_>, path: &str) -> Result<Vec<String>, Reply> {
    match path.trim_start_matches("/api/t/") {
        "add_pic" => Ok(take_picture(ctx)?.into_iter().collect()),
        "add_pic_url" => match ctx.call.param("pic_url").filter(|url| url.starts_with("http")) {
            Some(url) => Ok(vec![url.to_owned()]),
            None => Err(error(1, 3, "error pic_url")),
        },
        _ => Ok(Vec::new()),
    }
}

/// The picture's address; `None` when something is wrong with it and nobody asked to be told.
fn take_picture(ctx: &mut Ctx<'_>) -> Result<Option<String>, Reply> {
    let Some(part) = ctx.call.file("pic") else {
        return if flag(ctx, FLAG_UPLOAD) { Err(error(1, 6, "error pic upload")) } else { Ok(None) };
    };
    if part.bytes.len() >= PICTURE_BYTES {
        return if flag(ctx, FLAG_SIZE) { Err(error(1, 4, "error pic size")) } else { Ok(None) };
    }
    if !matches!(count::picture(&part.bytes), Some("jpeg" | "png" | "gif" | "bmp" | "ico")) {
        return if flag(ctx, FLAG_FORMAT) { Err(error(1, 5, "error pic format")) } else { Ok(None) };
    }
    Ok(Some(format!("http://app.qpic.cn/mblogpic/{}", ctx.site.dice.word(20))))
}

fn upload(ctx: &mut Ctx<'_>) -> Reply {
    let url = match ctx.call.param("pic_type") {
        Some("1") => ctx.call.param("pic_url").filter(|url| url.starts_with("http")).map(str::to_owned),
        Some("2") => match take_picture(ctx) {
            Ok(url) => url,
            Err(refused) => return refused,
        },
        _ => return error(1, 3, "error pic_type"),
    };
    let Some(url) = url else { return error(1, 5, "error pic") };
    let unit = ctx.unit.clone().unwrap_or_default();
    ctx.site.remember(url.clone(), Media::new(unit, url.clone(), ctx.now));
    ok(ctx, json!({"imgurl": url}))
}

fn delete(ctx: &mut Ctx<'_>) -> Reply {
    let Some(id) = ctx.call.param("id").filter(|id| !id.is_empty()).map(str::to_owned) else {
        return error(1, 3, "error id");
    };
    let Some(n) = ctx.own(&id) else {
        return error(4, 6, "no such tweet");
    };
    if ctx.live(Some(n)).is_none() {
        return error(4, 20, "tweet has  been deleted");
    }
    ctx.delete(n);
    let time = ctx.clock().timestamp();
    ok(ctx, json!({"id": id, "time": time}))
}

/// 0 normal, 1 deleted by the system, 2 under review, 3 deleted by its user.
fn standing(ctx: &Ctx<'_>, post: &Entry) -> u8 {
    match post {
        _ if post.gone(ctx.now) && post.gone_by_user => 3,
        _ if post.gone(ctx.now) => 1,
        _ if post.in_review(ctx.now) => 2,
        _ => 0,
    }
}

fn record(ctx: &Ctx<'_>, post: &Entry) -> Value {
    let account = ctx.site.accounts.get(&post.unit);
    let image = if post.images.is_empty() { Value::Null } else { json!(post.images) };
    // A cut made by the server leaves no trace of what was sent.
    let origtext = post.extra.get("kept").and_then(Value::as_str).unwrap_or(&post.sent);
    json!({
        "id": post.id,
        "text": post.shown,
        "origtext": origtext,
        "timestamp": post.created.timestamp(),
        "name": account.map(|a| a.handle.clone()),
        "nick": account.map(|a| a.name.clone()),
        "openid": account.and_then(|a| a.keys.openid.clone()),
        "self": i32::from(Some(&post.unit) == ctx.unit.as_ref()),
        "type": 1,
        "image": image,
        "from": "政务发布",
        "status": standing(ctx, post),
    })
}

fn show(ctx: &mut Ctx<'_>) -> Reply {
    let Some(id) = ctx.call.param("id") else { return error(1, 3, "error id") };
    let found = ctx.posts.anywhere(&ctx.site.name, id).filter(|post| post.visible_from <= ctx.now);
    match found.filter(|post| standing(ctx, post) != 3).map(|post| record(ctx, post)) {
        Some(data) => ok(ctx, data),
        None => error(4, 6, "no such tweet"),
    }
}

fn timeline(ctx: &mut Ctx<'_>) -> Reply {
    let number = |name: &str, default: i64| match ctx.call.param(name) {
        None => Some(default),
        Some(text) => text.parse::<i64>().ok(),
    };
    let last = ctx.call.param("lastid").and_then(|id| id.parse::<u64>().ok()).unwrap_or(0);
    let (Some(count), Some(page), Some(before)) = (number("reqnum", 20), number("pageflag", 0), number("pagetime", 0))
    else {
        return error(1, 3, "error parameter");
    };
    if !(1..=70).contains(&count) {
        return error(1, 3, "error reqnum");
    }
    let Some(account) = ctx.account() else { return error(3, 3, "access_token not found") };
    // What the system deleted stays in the own timeline, with its status; what the user deleted does not.
    let (missing, is_told) = ctx.gap();
    let is_listed = |post: &&Entry| post.visible_from <= ctx.now && standing(ctx, post) != 3;
    let mut all: Vec<&Entry> = ctx.posts.of(account).skip(missing).filter(is_listed).collect();
    if page == 1 && before != 0 {
        all.retain(|post| post.created.timestamp() < before);
        // Downwards from a post its place tells, for ids do not grow.
        if let Some(place) = all.iter().position(|post| post.number == last) {
            all.drain(..=place);
        }
    }
    let end = all.len() <= count as usize && !is_told;
    let info: Vec<Value> = all.into_iter().take(count as usize).map(|post| record(ctx, post)).collect();
    if info.is_empty() {
        return ok(ctx, Value::Null);
    }
    let timestamp = ctx.clock().timestamp();
    ok(ctx, json!({"timestamp": timestamp, "hasnext": i32::from(end), "info": info}))
}

fn info(ctx: &mut Ctx<'_>) -> Reply {
    let data = ctx.account().map(
        |a| json!({"name": a.handle, "nick": a.name, "openid": a.keys.openid.clone().unwrap_or_default(), "isvip": 1}),
    );
    ok(ctx, data.unwrap_or(Value::Null))
}

pub(super) fn refusal(_: &mut Ctx<'_>, refusal: &Refusal) -> Reply {
    let (p, ret, errcode, words) = match refusal {
        Refusal::Error(p) => (p, 4, 4, "sensitive words"),
        Refusal::Duplicate(p) => (p, 4, 13, "repeated msg"),
        Refusal::Limit(p) if p.kind.as_deref() == Some("fast") => (p, 4, 10, "publish too fast"),
        Refusal::Limit(p) => (p, 2, 0, "request limited"),
        Refusal::Overload(p) => (p, 2, 0, "system busy"),
        Refusal::Unfit(p) => (p, 4, 9, "spam"),
    };
    let mut reply = error(p.code.unwrap_or(ret), p.errcode.unwrap_or(errcode), p.message.as_deref().unwrap_or(words));
    reply.status = p.status.unwrap_or(reply.status);
    reply
}
