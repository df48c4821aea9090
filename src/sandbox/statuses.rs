//! The `statuses` dialect: Twitter-1.x compatible, behaving as GNU social does.
//!
//! Its manners are the trap here: a text that parses as a bot's command is eaten and answered with the previous status, a
//! text is decoded and trimmed before it is kept, and a picture's address becomes part of the text. With
//! `dialect: gnusocial` what breaks in GNU social itself breaks here too: uploads ahead (2.0 on PHP 7.4), a repeat of a
//! notice by its number, and each take-down leaves a public notice of it (1.20).

use http::Method;
use serde_json::{Value, json};

use super::call::{Kind, Part, Reply};
use super::count;
use super::rewrite;
use super::script::Refusal;
use super::state::{Ctx, Entry, Media, New, Standing};
use super::statuses_auth;

const DUPE: chrono::TimeDelta = chrono::TimeDelta::seconds(60);
const THROTTLE_S: i64 = 600;
const TOO_LONG: &str = "characters, including attachment URL.";
const DUPLICATE: &str = "Too many duplicate messages too quickly; take a breather and post again in a few minutes.";
const TOO_FAST: &str = "Too many notices too fast; take a breather and post again in a few minutes.";
/// Command words with the least and the most words that may follow them.
const COMMANDS: [(&str, usize, usize); 39] = [
    ("help", 0, 0),
    ("login", 0, 0),
    ("lose", 1, 1),
    ("subscribers", 0, 0),
    ("subscriptions", 0, 0),
    ("groups", 0, 0),
    ("on", 0, 1),
    ("off", 0, 1),
    ("stop", 0, 0),
    ("quit", 0, 0),
    ("join", 1, 1),
    ("drop", 1, 1),
    ("follow", 1, 1),
    ("sub", 1, 1),
    ("leave", 1, 1),
    ("unsub", 1, 1),
    ("get", 1, 1),
    ("last", 0, 1),
    ("fav", 1, 1),
    ("repeat", 1, 1),
    ("rp", 1, 1),
    ("rt", 1, 1),
    ("rd", 1, 1),
    ("r", 2, 99),
    ("reply", 2, 99),
    ("whois", 1, 1),
    ("nudge", 1, 1),
    ("stats", 0, 0),
    ("invite", 1, 1),
    ("list", 2, 99),
    ("tag", 2, 99),
    ("unlist", 1, 99),
    ("untag", 2, 99),
    ("track", 1, 1),
    ("untrack", 1, 1),
    ("tracks", 0, 0),
    ("tracking", 0, 0),
    ("d", 2, 99),
    ("dm", 2, 99),
];

pub(super) fn class(path: &str) -> &'static str {
    let name = path.trim_start_matches("/api/").trim_end_matches(".json");
    match name {
        "statuses/update" | "statuses/update_with_media" | "statuses/upload" => "post",
        "media/upload" | "statusnet/media/upload" => "upload",
        "statuses/user_timeline" => "timeline",
        "account/verify_credentials" => "check",
        "account/rate_limit_status" => "limits",
        "gnusocial/config" | "statusnet/config" => "config",
        _ if name.starts_with("statuses/destroy/") => "delete",
        _ if name.starts_with("statuses/show/") => "show",
        _ => "other",
    }
}

fn error(ctx: &Ctx<'_>, status: u16, words: &str) -> Reply {
    // The software can send 400 to 417 only; any other code becomes 400.
    let status = if (400..=417).contains(&status) { status } else { 400 };
    Reply::json(status, status.to_string(), json!({"error": words, "request": ctx.call.path}))
}

pub(super) fn answer(ctx: &mut Ctx<'_>) -> Reply {
    let path = ctx.call.path.clone();
    let own_path = ctx.site.settings.picture.as_ref().is_some_and(|(own, _)| path.ends_with(own.as_str()));
    let class = if own_path { "post" } else { class(&path) };
    if class == "other" || !path.starts_with("/api/") && !own_path {
        return error(ctx, 404, "API method not found.");
    }
    let clock = ctx.clock();
    let limits = ctx.site.settings.limits;
    if !ctx.site.host_hour.take(clock, 3600, limits.host_per_hour) {
        return error(ctx, 400, "Too many requests.");
    }
    if class == "config" {
        return config(ctx);
    }
    let method = &ctx.call.method;
    let wanted = match class {
        "post" | "upload" => method == Method::POST,
        "delete" => method == Method::POST || method == Method::DELETE,
        _ => method == Method::GET,
    };
    if !wanted {
        return error(ctx, 400, "This method requires a different HTTP method.");
    }
    if let Some(refused) = authenticate(ctx) {
        return refused;
    }
    let (hour, day) = (None, limits.account_per_day);
    if !ctx.account_mut().is_some_and(|a| a.calls_hour.take(clock, 3600, hour) && a.calls_day.take(clock, 86_400, day))
    {
        return error(ctx, 400, "Rate limit exceeded.");
    }
    match class {
        "post" => post(ctx),
        "upload" => upload(ctx),
        "delete" => delete(ctx),
        "show" => show(ctx),
        "timeline" => timeline(ctx),
        "check" => Reply::ok(ctx.account().map_or(Value::Null, |a| user(&a.unit, ctx))),
        _ => limits_left(ctx),
    }
}

fn authenticate(ctx: &mut Ctx<'_>) -> Option<Reply> {
    let known = ctx.account().map(|account| account.standing(ctx.now));
    let words = match known {
        Some(Standing::Good) => statuses_auth::refused(ctx)?,
        _ => "Could not authenticate you.".to_owned(),
    };
    let realm = format!("Basic realm=\"{} API\"", ctx.site.name);
    Some(error(ctx, 401, &words).with("www-authenticate", realm))
}

fn post(ctx: &mut Ctx<'_>) -> Reply {
    // A text in the address of a POST is taken as well.
    let text = match ctx.call.anywhere("status") {
        Some(text) if matches!(ctx.call.kind, Kind::Form | Kind::Multipart | Kind::Empty) => text.to_owned(),
        _ => return error(ctx, 400, "Client must provide a 'status' parameter with a value."),
    };
    if text.trim().is_empty() {
        return error(ctx, 400, "Client must provide a 'status' parameter with a value.");
    }
    if ctx.account().is_some_and(|account| account.captcha) {
        return error(ctx, 403, "You are banned from posting notices on this site.");
    }
    if ctx.site.settings.gnusocial && repeats_a_number(&text) {
        return broken();
    }
    if ctx.twist.eaten || is_command(&text) {
        return previous(ctx);
    }
    let stored = rewrite::unescape(&text).trim().to_owned();
    let images = match pictures(ctx) {
        Ok(images) => images,
        Err(refused) => return refused,
    };
    // Sites that count as Sina does keep their pictures apart from the text.
    let inline: &[String] = if ctx.site.settings.width { &[] } else { &images };
    let shown = inline.iter().fold(stored, |text, url| format!("{text} {url}"));
    let limit = ctx.site.settings.text_limit;
    if limit > 0 && length(ctx, &shown) > limit {
        return error(ctx, 413, &format!("Maximum notice size is {limit} {TOO_LONG}"));
    }
    if let Some(refused) = check_account(ctx, &text) {
        return refused;
    }
    let number = ctx.site.next_id(1000, ctx.twist.big_ids);
    let parent = ctx.call.param("in_reply_to_status_id").map(str::to_owned);
    let extra = json!({"in_reply_to": parent});
    let entry = ctx.publish(New { sent: text, shown, images, number, extra, ..New::default() });
    Reply::ok(status(&entry, ctx))
}

fn length(ctx: &Ctx<'_>, text: &str) -> usize {
    let settings = &ctx.site.settings;
    if settings.width {
        return count::sina(text, settings.url_weight.unwrap_or(20)).div_ceil(2);
    }
    count::points(text, settings.url_weight)
}

fn is_command(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let Some(first) = words.next().map(str::to_lowercase) else { return false };
    let rest = words.count();
    COMMANDS.iter().any(|(word, least, most)| *word == first && (*least..=*most).contains(&rest))
}

/// `rt #1`: the command for it fails inside the software.
fn repeats_a_number(text: &str) -> bool {
    let mut words = text.split_whitespace().map(str::to_lowercase);
    let is_repeat = words.next().is_some_and(|word| matches!(word.as_str(), "rt" | "repeat" | "rp" | "rd"));
    is_repeat && words.next().is_some_and(|word| word.starts_with('#'))
}

/// A fatal error of PHP.
fn broken() -> Reply {
    Reply::text(500, "500", "text/html", "")
}

/// The answer to a command: the account's last status, with 200.
fn previous(ctx: &Ctx<'_>) -> Reply {
    match ctx.timeline().first() {
        Some(last) => Reply::json(200, "eaten", status(last, ctx)),
        None => Reply::json(200, "eaten", json!({})),
    }
}

fn check_account(ctx: &Ctx<'_>, text: &str) -> Option<Reply> {
    let account = ctx.account()?;
    let limits = ctx.site.settings.limits;
    let window = ctx.now - chrono::TimeDelta::seconds(THROTTLE_S);
    let lately = account.recent.iter().filter(|at| **at > window).count();
    let hourly = limits.account_per_hour.is_some_and(|most| account.posts_hour.used(ctx.clock(), 3600) >= most);
    if hourly || limits.throttle.is_some_and(|most| lately >= most as usize) {
        return Some(error(ctx, 400, TOO_FAST));
    }
    ctx.repeated(text, Some(DUPE)).then(|| error(ctx, 400, DUPLICATE))
}

fn pictures(ctx: &mut Ctx<'_>) -> Result<Vec<String>, Reply> {
    let field = ctx.site.settings.picture.as_ref().map_or("media", |(_, field)| field.as_str());
    let mut urls = Vec::new();
    if let Some(part) = ctx.call.file(field).or_else(|| ctx.call.file("media")) {
        check_picture(ctx, part)?;
        urls.push(address(ctx));
    } else if !ctx.call.files.is_empty() {
        return Err(error(ctx, 400, "There was a problem while processing the file."));
    }
    let ids = ctx.call.param("media_ids").unwrap_or_default().to_owned();
    for id in ids.split(',').filter(|id| !id.is_empty()) {
        match ctx.site.media.get(id).filter(|media| Some(&media.unit) == ctx.unit.as_ref()) {
            Some(media) => urls.push(media.url.clone()),
            None => return Err(error(ctx, 400, "There was a problem while processing the file.")),
        }
    }
    Ok(urls)
}

fn address(ctx: &mut Ctx<'_>) -> String {
    format!("http://{}.example/url/{}", ctx.site.name, ctx.site.dice.below(900_000) + 100_000)
}

fn check_picture(ctx: &Ctx<'_>, part: &Part) -> Result<(), Reply> {
    let quota = ctx.site.settings.file_quota;
    if part.bytes.len() > quota {
        let words =
            format!("No file may be larger than {quota} bytes and the file you sent was {} bytes.", part.bytes.len());
        return Err(error(ctx, 413, &words));
    }
    match count::picture(&part.bytes) {
        Some("png" | "jpeg" | "gif") => Ok(()),
        _ => Err(error(ctx, 415, "\"application/octet-stream\" is not a supported file type on this server.")),
    }
}

fn upload(ctx: &mut Ctx<'_>) -> Reply {
    if ctx.site.settings.gnusocial {
        return broken();
    }
    let Some(part) = ctx.call.file("media") else {
        return error(ctx, 400, "There was a missing or broken 'media' parameter.");
    };
    if let Err(refused) = check_picture(ctx, part) {
        return refused;
    }
    let (size, kind) = (part.bytes.len(), count::picture(&part.bytes).unwrap_or_default());
    let url = address(ctx);
    let id = ctx.site.next_id(1, false);
    let unit = ctx.unit.clone().unwrap_or_default();
    ctx.site.remember(id.to_string(), Media::new(unit, url.clone(), ctx.now));
    let image = json!({"w": 1, "h": 1, "image_type": format!("image/{kind}")});
    Reply::ok(
        json!({"media_id": id, "media_id_string": id.to_string(), "media_url": url, "size": size, "image": image}),
    )
}

fn user(unit: &str, ctx: &Ctx<'_>) -> Value {
    let Some(account) = ctx.site.accounts.get(unit) else { return Value::Null };
    json!({
        "id": account.uid,
        "name": account.name,
        "screen_name": account.handle,
        "protected": false,
        "statuses_count": account.posts.len(),
        "statusnet_profile_url": format!("http://{}.example/{}", ctx.site.name, account.handle),
    })
}

fn status(post: &Entry, ctx: &Ctx<'_>) -> Value {
    let site = &ctx.site.name;
    let parent = post.extra.get("in_reply_to").cloned().unwrap_or(Value::Null);
    let attachments: Vec<Value> =
        post.images.iter().map(|url| json!({"url": url, "mimetype": "image/jpeg", "size": 1})).collect();
    json!({
        "text": post.shown,
        "truncated": post.shown.ends_with('…'),
        "created_at": post.created.format("%a %b %d %H:%M:%S +0000 %Y").to_string(),
        "in_reply_to_status_id": parent,
        "source": "fabu",
        "source_link": null,
        "id": post.number,
        "uri": format!("http://{site}.example/notice/{}", post.id),
        "external_url": format!("http://{site}.example/notice/{}", post.id),
        "geo": null,
        "attachments": attachments,
        "user": user(&post.unit, ctx),
        "statusnet_html": rewrite::escape(&post.shown),
        "statusnet_conversation_id": post.number,
    })
}

fn path_id(ctx: &Ctx<'_>) -> String {
    let name = ctx.call.path.rsplit('/').next().unwrap_or_default();
    name.trim_end_matches(".json").to_owned()
}

fn delete(ctx: &mut Ctx<'_>) -> Reply {
    let id = path_id(ctx);
    let found = ctx.posts.anywhere(&ctx.site.name, &id).filter(|post| !post.gone(ctx.now)).cloned();
    let Some(post) = found else { return error(ctx, 404, "No status found with that ID.") };
    if Some(&post.unit) != ctx.unit.as_ref() {
        return error(ctx, 403, "You may not delete another user's status.");
    }
    ctx.delete(post.n);
    if ctx.site.settings.gnusocial {
        let name = ctx.account().map(|account| account.name.clone()).unwrap_or_default();
        let (site, day) = (ctx.site.name.clone(), ctx.clock().date_naive());
        let shown =
            format!("{name} deleted notice {{{{tag:{site}.example,{day}:noticeId={}:objectType=note}}}}.", post.number);
        let number = ctx.site.next_id(1000, false);
        ctx.publish(New { sent: shown.clone(), shown, number, ..New::default() });
    }
    Reply::ok(status(&post, ctx))
}

fn show(ctx: &Ctx<'_>) -> Reply {
    let id = path_id(ctx);
    match ctx.posts.anywhere(&ctx.site.name, &id) {
        Some(post) if post.gone(ctx.now) && post.gone_by_user => error(ctx, 410, "Status deleted."),
        Some(post) if post.listed(ctx.now) => Reply::ok(status(post, ctx)),
        _ => error(ctx, 404, "No status found with that ID."),
    }
}

fn timeline(ctx: &Ctx<'_>) -> Reply {
    let number = |name: &str| ctx.call.param(name).and_then(|n| n.parse::<u64>().ok());
    let (since, most) = (number("since_id").unwrap_or(0), number("max_id").unwrap_or(0));
    let count = number("count").unwrap_or(20).clamp(1, 200) as usize;
    let skip = (number("page").unwrap_or(1).max(1) as usize - 1).saturating_mul(count);
    let all = ctx.timeline();
    let shown = all.iter().skip(ctx.gap().0).filter(|post| post.number > since && (most == 0 || post.number <= most));
    Reply::ok(shown.skip(skip).take(count).map(|post| status(post, ctx)).collect())
}

/// These never change, whatever was used: that is what the software does.
fn limits_left(ctx: &Ctx<'_>) -> Reply {
    let reset = ctx.clock() + chrono::TimeDelta::hours(1);
    Reply::ok(json!({
        "reset_time_in_seconds": reset.timestamp(),
        "remaining_hits": 150,
        "hourly_limit": 150,
        "reset_time": reset.format("%a %b %d %H:%M:%S +0000 %Y").to_string(),
    }))
}

fn config(ctx: &Ctx<'_>) -> Reply {
    let settings = &ctx.site.settings;
    Reply::ok(json!({
        "site": {"name": ctx.site.name, "server": format!("{}.example", ctx.site.name), "textlimit": settings.text_limit},
        "notice": {"contentlimit": null},
        "throttle": {"enabled": settings.limits.throttle.is_some(), "count": settings.limits.throttle, "timespan": THROTTLE_S},
        "attachments": {"uploads": true, "file_quota": settings.file_quota},
    }))
}

pub(super) fn refusal(ctx: &mut Ctx<'_>, refusal: &Refusal) -> Reply {
    let (p, status, words) = match refusal {
        Refusal::Error(p) => (p, 200, "error"),
        Refusal::Duplicate(p) => (p, 400, DUPLICATE),
        Refusal::Limit(p) => (p, 400, TOO_FAST),
        Refusal::Overload(p) => (p, 503, "Service Unavailable"),
        Refusal::Unfit(p) => (p, 400, "Content is not acceptable."),
    };
    let words = p.message.as_deref().unwrap_or(words);
    let status = p.status.unwrap_or(status);
    let body = match p.kind.as_deref() {
        // The error shapes of a site grown from Sina's first dialect, and of Twitter.
        Some("weibo") => json!({
            "request": ctx.call.path, "error_code": status.to_string(),
            "error": format!("{}:Error: {words}", p.code.unwrap_or(40025)),
        }),
        Some("twitter") => json!({"errors": [{"code": p.code.unwrap_or(187), "message": words}]}),
        _ => json!({"error": words, "request": ctx.call.path}),
    };
    let reply = Reply::json(status, status.to_string(), body);
    if status == 503 { reply.with("retry-after", p.seconds.unwrap_or(30.0).to_string()) } else { reply }
}
