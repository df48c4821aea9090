//! Sina Weibo, Open API v2.
//!
//! Checks come in the platform's order: interface, method, host, token, the user's calls, parameters, the app's rights,
//! the text, the account. A refusal is always an envelope with `error_code`; what HTTP says beside it means little.

use std::net::IpAddr;

use http::Method;
use serde_json::{Value, json};

use super::call::{Call, Kind, Reply};
use super::count;
use super::script::Refusal;
use super::state::{Ctx, Entry, Media, New, Standing, window_end};
use super::weibo_words::{created_at, error, status, user};

const HOUR: i64 = 3600;
const DAY: i64 = 86_400;
/// The own timeline shows so many posts, whatever is asked for.
const SHOWN: usize = 5;
const PICTURE_BYTES: usize = 5 * 1024 * 1024;
/// Mids count from about here: seconds since then, shifted, as the platform's own do.
const MID_EPOCH: i64 = 515_483_463;

pub(super) fn token(call: &Call) -> Option<String> {
    call.authorization("OAuth2").or_else(|| call.anywhere("access_token")).map(str::to_owned)
}

pub(super) fn class(path: &str) -> &'static str {
    let name = path.trim_start_matches("/2/").trim_end_matches(".json").trim_end_matches("/biz");
    match name {
        "statuses/update" | "statuses/upload" | "statuses/upload_url_text" | "statuses/share" => "post",
        "statuses/upload_pic" => "upload",
        "statuses/repost" => "repost",
        "comments/create" => "comment",
        "statuses/destroy" => "delete",
        "statuses/show" => "show",
        "statuses/user_timeline" => "timeline",
        "account/rate_limit_status" => "limits",
        "/oauth2/get_token_info" | "account/get_uid" | "users/show" => "check",
        _ if name.starts_with("/oauth2/") => "token",
        _ => "other",
    }
}

pub(super) fn answer(ctx: &mut Ctx<'_>) -> Reply {
    let path = ctx.call.path.clone();
    if path.starts_with("/oauth2/") {
        return oauth(ctx, &path);
    }
    let Some(name) = path.strip_prefix("/2/").and_then(|p| p.strip_suffix(".json")) else {
        return error(ctx, 10020, "");
    };
    let reads =
        ["statuses/show", "statuses/user_timeline", "account/rate_limit_status", "account/get_uid", "users/show"];
    let known = reads.contains(&name) || class(&path) != "other";
    if !known {
        return error(ctx, 10020, "");
    }
    let wanted = if reads.contains(&name) { Method::GET } else { Method::POST };
    if ctx.call.method != wanted {
        return error(ctx, 10021, "");
    }
    if let Some(refused) = admit(ctx, name) {
        return refused;
    }
    match class(&path) {
        "post" => post(ctx, name),
        "upload" => upload(ctx),
        "repost" | "comment" => follow(ctx, name),
        "delete" => destroy(ctx),
        "show" => show(ctx),
        "timeline" => timeline(ctx),
        "limits" => limits(ctx),
        _ => Reply::ok(ctx.account().map_or(json!({}), |account| match name {
            "account/get_uid" => json!({"uid": account.uid}),
            _ => user(account),
        })),
    }
}

/// Host, token and the user's daily calls; asking for the limits costs nothing.
fn admit(ctx: &mut Ctx<'_>, name: &str) -> Option<Reply> {
    let (clock, limits) = (ctx.clock(), ctx.site.settings.limits);
    let free = name == "account/rate_limit_status";
    if !free && !ctx.site.host_hour.take(clock, HOUR, limits.host_per_hour) {
        return Some(error(ctx, 10022, ""));
    }
    if let Some(code) = bad_token(ctx) {
        return Some(error(ctx, code, ""));
    }
    let key = ctx.site.settings.app_key.clone();
    if let (Some(key), Some(source)) = (key, ctx.call.anywhere("source"))
        && key != source
    {
        return Some(error(ctx, 10006, ""));
    }
    let day = limits.account_per_day;
    let allowed = free || ctx.account_mut().is_some_and(|account| account.calls_day.take(clock, DAY, day));
    (!allowed).then(|| error(ctx, 10023, ""))
}

fn bad_token(ctx: &Ctx<'_>) -> Option<i64> {
    if token(ctx.call).is_none_or(|token| token.is_empty()) {
        return Some(10006);
    }
    match ctx.account().map(|account| account.standing(ctx.now)) {
        None => Some(21332),
        Some(Standing::Expired) => Some(21327),
        Some(Standing::Revoked) => Some(21316),
        Some(Standing::Good) => None,
    }
}

fn oauth(ctx: &mut Ctx<'_>, path: &str) -> Reply {
    if ctx.call.method != Method::POST {
        return error(ctx, 10021, "");
    }
    match path {
        "/oauth2/get_token_info" => {}
        // The grant needs a person's code, and nobody sits in front of the sandbox to give one.
        "/oauth2/access_token" => return error(ctx, 21325, "invalid_grant"),
        _ => return error(ctx, 10020, ""),
    }
    if let Some(code) = bad_token(ctx) {
        return error(ctx, code, "");
    }
    let (now, clock) = (ctx.now, ctx.clock());
    let key = ctx.site.settings.app_key.as_deref().and_then(|key| key.parse::<u64>().ok()).unwrap_or(1_352_222_456);
    let Some(account) = ctx.account() else { return error(ctx, 21332, "") };
    let left = account.expires_at.map_or(157_679_471, |at| (at - now).num_seconds());
    Reply::ok(json!({
        "uid": account.uid, "appkey": key, "scope": null, "create_at": clock.timestamp() - DAY, "expire_in": left,
    }))
}

fn post(ctx: &mut Ctx<'_>, name: &str) -> Reply {
    let text = match check_form(ctx, name) {
        Ok(text) => text,
        Err(refused) => return refused,
    };
    if let Some(refused) = check_rights(ctx, name, &text).or_else(|| check_account(ctx, name, &text)) {
        return refused;
    }
    let images = match pictures(ctx, name) {
        Ok(images) => images,
        Err(refused) => return refused,
    };
    if ctx.twist.eaten {
        return previous(ctx);
    }
    let annotations = ctx.call.param("annotations").and_then(|a| serde_json::from_str::<Value>(a).ok());
    let number = mid(ctx);
    let extra = json!({"annotations": annotations.unwrap_or_else(|| json!([]))});
    let entry = ctx.publish(New { shown: text.trim().to_owned(), sent: text, images, number, extra, ..New::default() });
    answer_with(ctx, &entry)
}

fn answer_with(ctx: &Ctx<'_>, entry: &Entry) -> Reply {
    if ctx.twist.says_late {
        return error(ctx, 20032, "");
    }
    Reply::ok(status(entry, ctx.account()))
}

fn previous(ctx: &Ctx<'_>) -> Reply {
    let last = ctx.timeline().into_iter().next();
    last.map_or_else(|| Reply::ok(json!({})), |post| Reply::ok(status(&post, ctx.account())))
}

fn mid(ctx: &mut Ctx<'_>) -> u64 {
    let floor = ((ctx.clock().timestamp() - MID_EPOCH).max(1) as u64) << 22;
    ctx.site.next_id(floor, ctx.twist.big_ids)
}

/// Everything about the request's form: its type, its parameters, its length.
fn check_form(ctx: &Ctx<'_>, name: &str) -> Result<String, Reply> {
    let call = ctx.call;
    let upload = name.starts_with("statuses/upload") && !name.starts_with("statuses/upload_url_text");
    let share = name == "statuses/share";
    match call.kind {
        Kind::Multipart if upload || share => {}
        _ if upload => return Err(error(ctx, 20007, "")),
        Kind::Form | Kind::Empty => {}
        _ => return Err(error(ctx, 10007, call.header("content-type").unwrap_or("none"))),
    }
    let Some(text) = call.param("status") else { return Err(error(ctx, 10016, "status")) };
    if text.trim().is_empty() {
        return Err(if upload { error(ctx, 10016, "status") } else { error(ctx, 20008, "") });
    }
    check_rip(ctx)?;
    if call.param("visible").is_some_and(|v| !["0", "1"].contains(&v)) {
        return Err(error(ctx, 20121, ""));
    }
    if share && (call.param("visible").is_some() || call.param("annotations").is_some()) {
        return Err(error(ctx, 10008, ""));
    }
    let noted = |a: &str| a.len() <= 512 && serde_json::from_str::<Value>(a).is_ok();
    if call.param("annotations").is_some_and(|a| !noted(a)) {
        return Err(error(ctx, 10017, "parameter (annotations)'s value invalid, see doc for more info."));
    }
    let long = call.param("is_longtext") == Some("1") && name.ends_with("/biz") && ctx.site.settings.longtext;
    let most = if long { 4000 } else { count::SINA_HALF };
    if count::sina(text, ctx.site.settings.url_weight.unwrap_or(20)) > most {
        return Err(error(ctx, 20012, ""));
    }
    Ok(text.to_owned())
}

/// The operator's address has to be a public one, and the configured one where one is configured.
fn check_rip(ctx: &Ctx<'_>) -> Result<(), Reply> {
    let invalid = || error(ctx, 10017, "parameter (rip)'s value invalid, expect (public ip), see doc for more info.");
    match (ctx.call.param("rip"), &ctx.site.settings.operator_ip) {
        (None, Some(_)) => Err(error(ctx, 10016, "rip")),
        (None, None) => Ok(()),
        (Some(rip), wanted) => {
            let known = wanted.as_ref().is_none_or(|wanted| wanted == rip);
            if known && public_ip(rip, ctx.allow_private_ip) { Ok(()) } else { Err(invalid()) }
        }
    }
}

/// Whether `text` is an address a platform takes for a person's.
pub(super) fn public_ip(text: &str, allow_private: bool) -> bool {
    match text.parse() {
        Ok(IpAddr::V4(ip)) => {
            allow_private
                || !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || matches!(ip.octets()[0], 0 | 255))
        }
        Ok(IpAddr::V6(ip)) => allow_private || !(ip.is_loopback() || ip.is_unspecified()),
        Err(_) => false,
    }
}

/// What the app may call, and what `share` asks of a text.
fn check_rights(ctx: &Ctx<'_>, name: &str, text: &str) -> Option<Reply> {
    let settings = &ctx.site.settings;
    let share = name == "statuses/share";
    let allowed = match settings.mode.as_str() {
        "share" => share,
        "biz" => true,
        _ => !name.ends_with("/biz"),
    };
    if !allowed {
        return Some(error(ctx, 10014, ""));
    }
    if !share {
        return None;
    }
    if settings.link_domains.is_empty() {
        return Some(error(ctx, 10017, "appkey not bind domain!"));
    }
    if text.split('#').count() > 2 && !topics(text).is_empty() {
        return Some(error(
            ctx,
            10017,
            "parameter (status)'s value invalid, expect (no topic), see doc for more info.",
        ));
    }
    let bound = count::urls(text).into_iter().any(|url| {
        let host = text[url].split("://").nth(1).unwrap_or_default();
        let host = host.split(['/', ':', '?', '#']).next().unwrap_or_default();
        settings.link_domains.iter().any(|d| host == d || host.ends_with(&format!(".{d}")))
    });
    (!bound).then(|| error(ctx, 10017, "text not find domain!"))
}

/// `#…#` outside of links.
fn topics(text: &str) -> Vec<String> {
    let bare = super::rewrite::shorten(text, |_| String::new());
    let parts: Vec<&str> = bare.split('#').collect();
    (1..parts.len().saturating_sub(1)).map(|at| parts[at].to_owned()).filter(|t| !t.trim().is_empty()).collect()
}

/// The account's own standing: a captcha, its posts an hour, and what it said last.
fn check_account(ctx: &Ctx<'_>, name: &str, text: &str) -> Option<Reply> {
    let clock = ctx.clock();
    let account = ctx.account()?;
    if account.captcha {
        return Some(error(ctx, 20031, ""));
    }
    let most = ctx.site.settings.limits.account_per_hour;
    if most.is_some_and(|most| account.posts_hour.used(clock, HOUR) >= most) {
        return Some(error(ctx, 10024, &format!("/{name}")));
    }
    let likeness = ctx.likeness(text);
    if likeness >= 1.0 && ctx.repeated(text, None) {
        return Some(error(ctx, 20019, ""));
    }
    (likeness > 0.9 && ctx.site.settings.similar).then(|| error(ctx, 20017, ""))
}

fn pictures(ctx: &mut Ctx<'_>, name: &str) -> Result<Vec<String>, Reply> {
    if name.starts_with("statuses/upload_url_text") {
        return named_pictures(ctx);
    }
    match ctx.call.file("pic") {
        Some(_) => Ok(vec![take_picture(ctx)?.1]),
        None if name.starts_with("statuses/upload") => Err(error(ctx, 20007, "")),
        None => Ok(Vec::new()),
    }
}

fn named_pictures(ctx: &Ctx<'_>) -> Result<Vec<String>, Reply> {
    let Some(ids) = ctx.call.param("pic_id").filter(|ids| !ids.is_empty()) else {
        let url = ctx.call.param("url").filter(|url| url.starts_with("http"));
        return url.map(|url| vec![url.to_owned()]).ok_or_else(|| error(ctx, 10016, "url"));
    };
    let ids: Vec<&str> = ids.split(',').collect();
    let own = |id: &&str| ctx.site.media.get(*id).filter(|m| Some(&m.unit) == ctx.unit.as_ref());
    let urls: Option<Vec<String>> = ids.iter().map(|id| own(id).map(|m| m.url.clone())).collect();
    match urls {
        Some(urls) if urls.len() <= 9 => Ok(urls),
        _ => Err(error(ctx, 10017, "parameter (pic_id)'s value invalid, see doc for more info.")),
    }
}

/// Checks the picture of a request and gives it an id and an address.
fn take_picture(ctx: &mut Ctx<'_>) -> Result<(String, String), Reply> {
    let Some(part) = ctx.call.file("pic") else { return Err(error(ctx, 20007, "")) };
    if part.bytes.len() >= PICTURE_BYTES {
        return Err(error(ctx, 20006, ""));
    }
    if !matches!(count::picture(&part.bytes), Some("jpeg" | "png" | "gif")) {
        return Err(error(ctx, 20005, ""));
    }
    let id = ctx.site.dice.word(22);
    let url = format!("http://ww1.sinaimg.cn/large/{id}.jpg");
    Ok((id, url))
}

fn upload(ctx: &mut Ctx<'_>) -> Reply {
    let (id, url) = match take_picture(ctx) {
        Ok(taken) => taken,
        Err(refused) => return refused,
    };
    let unit = ctx.unit.clone().unwrap_or_default();
    ctx.site.remember(id.clone(), Media::new(unit, url.clone(), ctx.now));
    Reply::ok(json!({"pic_id": id, "thumbnail_pic": url, "bmiddle_pic": url, "original_pic": url}))
}

fn follow(ctx: &mut Ctx<'_>, name: &str) -> Reply {
    let field = if name == "comments/create" { "comment" } else { "status" };
    let text = ctx.call.param(field).unwrap_or(if field == "status" { "转发微博" } else { "" }).to_owned();
    let Some(id) = ctx.call.param("id").map(str::to_owned) else { return error(ctx, 20109, "") };
    if text.is_empty() {
        return error(ctx, 10016, field);
    }
    if count::sina(&text, 20) > count::SINA_HALF {
        return error(ctx, 20012, "");
    }
    let source = ctx.posts.anywhere(&ctx.site.name, &id).is_some_and(|post| post.listed(ctx.now));
    if !source {
        return error(ctx, 20101, "");
    }
    if let Some(refused) = check_account(ctx, name, &text) {
        return refused;
    }
    let number = mid(ctx);
    if field == "comment" {
        let user = ctx.account().map_or(Value::Null, user);
        return Reply::ok(json!({
            "created_at": created_at(ctx.clock()), "id": number, "idstr": number.to_string(), "text": text, "user": user,
        }));
    }
    let entry =
        ctx.publish(New { shown: text.clone(), sent: text, number, extra: json!({"retweeted": id}), ..New::default() });
    answer_with(ctx, &entry)
}

fn destroy(ctx: &mut Ctx<'_>) -> Reply {
    let Some(id) = ctx.call.param("id").filter(|id| !id.is_empty()) else { return error(ctx, 20109, "") };
    let own = ctx.own(id);
    let Some(n) = own else {
        let others = ctx.posts.anywhere(&ctx.site.name, id).is_some();
        return error(ctx, if others { 20102 } else { 20101 }, "");
    };
    let post = ctx.posts.get(n).cloned();
    // Deletion lags: a second one right after the first still succeeds.
    let lags = |p: &Entry| p.gone_by_user && p.gone_at.is_some_and(|at| ctx.now - at < chrono::TimeDelta::seconds(2));
    match post {
        Some(post) if post.gone(ctx.now) && !lags(&post) => error(ctx, 20101, ""),
        Some(post) if post.gone(ctx.now) => Reply::ok(status(&post, ctx.account())),
        _ => {
            let gone = ctx.delete(n);
            gone.map_or_else(|| error(ctx, 20101, ""), |post| Reply::ok(status(&post, ctx.account())))
        }
    }
}

fn show(ctx: &Ctx<'_>) -> Reply {
    let Some(id) = ctx.call.param("id") else { return error(ctx, 10016, "id") };
    let found = ctx.posts.anywhere(&ctx.site.name, id).filter(|post| post.listed(ctx.now));
    // What is unaudited or under review exists for its own account alone.
    let mine = |post: &&Entry| Some(&post.unit) == ctx.unit.as_ref() || !post.hidden && !post.in_review(ctx.now);
    match found.filter(mine) {
        Some(post) => Reply::ok(status(post, ctx.site.accounts.get(&post.unit))),
        None => error(ctx, 20101, ""),
    }
}

fn timeline(ctx: &Ctx<'_>) -> Reply {
    let Some(account) = ctx.account() else { return error(ctx, 21332, "") };
    let other = ctx.call.param("uid").is_some_and(|uid| uid != account.uid.to_string())
        || ctx.call.param("screen_name").is_some_and(|name| name != account.name);
    if other {
        return error(ctx, 21335, "");
    }
    let number = |name: &str| ctx.call.param(name).map(str::parse::<u64>);
    let (count, page, since, most) = (number("count"), number("page"), number("since_id"), number("max_id"));
    if [&count, &page, &since, &most].into_iter().any(|n| matches!(n, Some(Err(_)))) {
        return error(ctx, 10008, "");
    }
    let get = |n: Option<Result<u64, _>>, default: u64| n.and_then(Result::ok).unwrap_or(default);
    let mut all = ctx.timeline();
    let (missing, is_told) = ctx.gap();
    let whole = all.len();
    all.drain(..missing.min(whole));
    let total = if is_told { whole } else { all.len() };
    let (since, most) = (get(since, 0), get(most, 0));
    let count = (get(count, 20) as usize).min(SHOWN);
    let newest = all.into_iter().take(if get(page, 1) > 1 { 0 } else { SHOWN });
    let statuses: Vec<Value> = newest
        .filter(|post| post.number > since && (most == 0 || post.number <= most))
        .take(count)
        .map(|post| status(&post, Some(account)))
        .collect();
    Reply::ok(json!({
        "statuses": statuses, "hasvisible": false, "previous_cursor": 0, "next_cursor": 0, "total_number": total,
    }))
}

fn limits(ctx: &Ctx<'_>) -> Reply {
    let Some(account) = ctx.account() else { return error(ctx, 21332, "") };
    let (clock, limits) = (ctx.clock(), ctx.site.settings.limits);
    let most = |limit: Option<u32>| limit.unwrap_or(1_000_000);
    let (ip, user, posts) = (most(limits.host_per_hour), most(limits.account_per_day), most(limits.account_per_hour));
    let end = window_end(clock, HOUR);
    let reset = crate::clock::from_micros(end * 1_000_000) + chrono::TimeDelta::hours(8);
    Reply::ok(json!({
        "ip_limit": ip,
        "limit_time_unit": "HOURS",
        "remaining_ip_hits": ip.saturating_sub(ctx.site.host_hour.used(clock, HOUR)),
        "remaining_user_hits": user.saturating_sub(account.calls_day.used(clock, DAY)),
        "reset_time": reset.format("%Y-%m-%d %H:%M:%S").to_string(),
        "reset_time_in_seconds": end - clock.timestamp(),
        "user_limit": user,
        "api_rate_limits": [{
            "api": "/statuses/update",
            "limit": posts,
            "limit_time_unit": "HOURS",
            "remaining_hits": posts.saturating_sub(account.posts_hour.used(clock, HOUR)),
        }],
    }))
}

pub(super) fn refusal(ctx: &mut Ctx<'_>, refusal: &Refusal) -> Reply {
    let (p, default) = match refusal {
        Refusal::Error(p) => (p, 20021),
        Refusal::Duplicate(p) => (p, 20019),
        Refusal::Limit(p) => (p, if p.kind.as_deref() == Some("ip") { 10022 } else { 10023 }),
        Refusal::Overload(p) => (p, 10009),
        Refusal::Unfit(p) => (p, 10017),
    };
    let code = p.code.unwrap_or(default);
    let words = if matches!(refusal, Refusal::Unfit(_)) && code == 10017 { "text not find domain!" } else { "" };
    let mut reply = error(ctx, code, p.message.as_deref().unwrap_or(words));
    reply.status = p.status.unwrap_or(if matches!(refusal, Refusal::Error(_)) { 200 } else { reply.status });
    reply
}
