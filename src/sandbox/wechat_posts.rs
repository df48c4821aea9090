//! What a WeChat account publishes: pictures, drafts, publications that finish later, and mass sends.
//!
//! A draft leaves the draft box when it is submitted; that alone tells whether a submit of unknown outcome ran. A mass
//! send has a true key, and without one its content is the key.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::call::Reply;
use super::count;
use super::state::{Ctx, Entry, Media, New, REMEMBERED};
use super::wechat::error;
use crate::clock::Time;

const DAY: TimeDelta = TimeDelta::hours(24);
/// A key repeated sooner than this is refused without an answer to the question.
const TOO_SOON: TimeDelta = TimeDelta::seconds(60);
/// So long the administrator may take to allow a mass send.
const ADMIN: TimeDelta = TimeDelta::minutes(30);

#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub unit: String,
    pub title: String,
    pub digest: String,
    pub content: String,
    pub shown: String,
    pub pictures: Vec<String>,
    pub made: Time,
    /// Of the library, not of the draft box: it can be sent to all, again and again, and not published.
    pub is_material: bool,
}

/// A submitted publication.
#[derive(Debug)]
pub(super) struct Job {
    unit: String,
    post: u64,
    done_at: Time,
    /// It says "running" for so many polls more.
    polls: u32,
}

/// A mass send.
#[derive(Debug)]
pub(super) struct Mass {
    pub unit: String,
    post: u64,
    key: String,
    at: Time,
    text: bool,
    /// Since when it waits for the administrator.
    pub waits_since: Option<Time>,
}

fn text(ctx: &Ctx<'_>, name: &str) -> Option<String> {
    match ctx.call.member(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A picture inside an article; it is not kept in the library.
pub(super) fn inline_picture(ctx: &mut Ctx<'_>) -> Reply {
    let Some(part) = ctx.call.file("media") else { return error(ctx, 41005, "media data missing") };
    if !matches!(count::picture(&part.bytes), Some("jpeg" | "png")) {
        return error(ctx, 40005, "invalid file type");
    }
    if part.bytes.len() >= 1024 * 1024 {
        return error(ctx, 40009, "invalid image size");
    }
    let url = format!("http://mmbiz.qpic.cn/mmbiz_png/{}/0", ctx.site.dice.word(40));
    Reply::ok(json!({"url": url}))
}

/// A picture for the library, or one that lives three days and covers no draft.
pub(super) fn cover(ctx: &mut Ctx<'_>, permanent: bool) -> Reply {
    if ctx.call.anywhere("type") != Some("image") {
        return error(ctx, 40004, "invalid media type");
    }
    let Some(part) = ctx.call.file("media") else { return error(ctx, 41005, "media data missing") };
    if !matches!(count::picture(&part.bytes), Some("jpeg" | "png" | "gif" | "bmp")) {
        return error(ctx, 40137, "invalid image format");
    }
    if part.bytes.len() > 10 * 1024 * 1024 {
        return error(ctx, 45001, "media size out of limit");
    }
    let id = ctx.site.dice.word(43);
    let url = format!("http://mmbiz.qpic.cn/mmbiz_png/{}/0?wx_fmt=png", ctx.site.dice.word(40));
    let unit = ctx.unit.clone().unwrap_or_default();
    ctx.site.remember(id.clone(), Media { permanent, ..Media::new(unit, url.clone(), ctx.now) });
    match permanent {
        true => Reply::ok(json!({"media_id": id, "url": url})),
        false => Reply::ok(json!({"type": "image", "media_id": id, "created_at": ctx.clock().timestamp()})),
    }
}

/// Letters that came as `\uXXXX` stay that, for every reader to see.
fn as_kept(ctx: &Ctx<'_>, text: &str) -> String {
    if !ctx.call.escaped {
        return text.to_owned();
    }
    let literal = |unit: u16| match u8::try_from(unit) {
        Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
        _ => format!("\\u{unit:04x}"),
    };
    text.encode_utf16().map(literal).collect()
}

/// An article for the draft box, or for the library.
pub(super) fn draft(ctx: &mut Ctx<'_>, is_material: bool) -> Reply {
    let article = ctx.call.member("articles").and_then(|a| a.get(0)).cloned();
    let Some(article) = article else { return error(ctx, 44003, "empty news data") };
    let draft = match check_article(ctx, &article) {
        Ok(draft) => Draft { is_material, ..draft },
        Err((code, words)) => return error(ctx, code, words),
    };
    let id = ctx.site.dice.word(43);
    if ctx.site.desk.drafts.len() >= REMEMBERED {
        ctx.site.desk.drafts.pop_first();
    }
    ctx.site.desk.drafts.insert(id.clone(), draft);
    match is_material {
        true => Reply::ok(json!({"media_id": id})),
        false => Reply::ok(json!({"media_id": id, "item": []})),
    }
}

fn check_article(ctx: &Ctx<'_>, article: &Value) -> Result<Draft, (i64, &'static str)> {
    let get = |name: &str| as_kept(ctx, article.get(name).and_then(Value::as_str).unwrap_or_default());
    let len = |text: &str| text.chars().count();
    let (title, content, kind) = (get("title"), get("content"), get("article_type"));
    if !["", "news", "newspic"].contains(&kind.as_str()) {
        return Err((53500, "invalid article_type"));
    }
    if title.is_empty() || len(&title) > 32 {
        return Err((45003, "title size out of limit"));
    }
    if len(&get("author")) > 16 {
        return Err((45110, "author size out of limit"));
    }
    if len(&get("digest")) > 128 {
        return Err((45004, "description size out of limit"));
    }
    if get("content_source_url").len() > 1024 {
        return Err((45005, "url size out of limit"));
    }
    if content.is_empty() {
        return Err((44004, "empty content"));
    }
    if len(&content) >= 20_000 || content.len() >= 1024 * 1024 {
        return Err((45002, "content size out of limit"));
    }
    let own = |id: &str| {
        let media = ctx.site.media.get(id).filter(|m| m.permanent && Some(&m.unit) == ctx.unit.as_ref());
        media.map(|m| m.url.clone()).ok_or((40007, "invalid media_id"))
    };
    let mut pictures = Vec::new();
    if kind == "newspic" {
        let list = article.pointer("/image_info/image_list").and_then(Value::as_array).cloned().unwrap_or_default();
        if list.is_empty() || list.len() > 20 {
            return Err((40007, "invalid media_id"));
        }
        for image in list {
            pictures.push(own(image.get("image_media_id").and_then(Value::as_str).unwrap_or_default())?);
        }
    } else {
        pictures.push(own(&get("thumb_media_id"))?);
    }
    let plain = strip(&content);
    let digest = Some(get("digest")).filter(|d| !d.is_empty()).unwrap_or_else(|| plain.chars().take(54).collect());
    Ok(Draft {
        unit: ctx.unit.clone().unwrap_or_default(),
        shown: filter_images(&content),
        title,
        digest,
        content,
        pictures,
        made: ctx.clock(),
        is_material: false,
    })
}

fn strip(html: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in html.chars() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            _ if !inside => out.push(c),
            _ => {}
        }
    }
    out.trim().to_owned()
}

/// Pictures from elsewhere are filtered out of an article.
fn filter_images(html: &str) -> String {
    let mut out = String::new();
    let mut rest = html;
    while let Some(at) = rest.find("<img") {
        let end = rest[at..].find('>').map_or(rest.len(), |end| at + end + 1);
        out.push_str(&rest[..at]);
        if rest[at..end].contains("mmbiz.qpic.cn") {
            out.push_str(&rest[at..end]);
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

fn own_draft(ctx: &Ctx<'_>) -> Option<(String, Draft)> {
    let id = text(ctx, "media_id")?;
    let is_own = |d: &&Draft| Some(&d.unit) == ctx.unit.as_ref() && !d.is_material;
    let draft = ctx.site.desk.drafts.get(&id).filter(is_own)?.clone();
    Some((id, draft))
}

fn news(draft: &Draft) -> Value {
    json!({"title": draft.title, "digest": draft.digest, "content": draft.shown, "url": "", "is_deleted": false})
}

pub(super) fn draft_get(ctx: &mut Ctx<'_>) -> Reply {
    match own_draft(ctx) {
        Some((_, draft)) => Reply::ok(json!({"news_item": [news(&draft)], "create_time": ctx.clock().timestamp()})),
        None => error(ctx, 40007, ""),
    }
}

pub(super) fn draft_delete(ctx: &mut Ctx<'_>) -> Reply {
    match own_draft(ctx) {
        Some((id, _)) => {
            ctx.site.desk.drafts.remove(&id);
            Reply::ok(json!({"errcode": 0, "errmsg": "ok"}))
        }
        None => error(ctx, 40007, ""),
    }
}

/// How many articles are in the draft box.
pub(super) fn draft_count(ctx: &mut Ctx<'_>) -> Reply {
    Reply::ok(json!({"total_count": own_drafts(ctx).len()}))
}

fn own_drafts(ctx: &Ctx<'_>) -> Vec<(String, Draft)> {
    let is_own = |(_, d): &(&String, &Draft)| Some(&d.unit) == ctx.unit.as_ref() && !d.is_material;
    ctx.site.desk.drafts.iter().filter(is_own).map(|(id, draft)| (id.clone(), draft.clone())).collect()
}

/// The draft box, newest first.
pub(super) fn draft_list(ctx: &mut Ctx<'_>) -> Reply {
    let (offset, count) = match page(ctx) {
        Ok(page) => page,
        Err(refused) => return refused,
    };
    let without = ctx.call.member("no_content").and_then(Value::as_u64) == Some(1);
    let mut all = own_drafts(ctx);
    all.sort_by_key(|(_, draft)| std::cmp::Reverse(draft.made));
    let listed = |(id, draft): &(String, Draft)| {
        let mut item = news(draft);
        if without {
            item.as_object_mut().expect("it is one").remove("content");
        }
        json!({"media_id": id, "content": {"news_item": [item]}, "update_time": draft.made.timestamp()})
    };
    let item: Vec<Value> = all.iter().skip(offset).take(count).map(listed).collect();
    Reply::ok(json!({"total_count": all.len(), "item_count": item.len(), "item": item}))
}

/// From where on, and how many; at most twenty.
fn page(ctx: &mut Ctx<'_>) -> Result<(usize, usize), Reply> {
    let number = |name: &str| ctx.call.member(name).and_then(Value::as_u64);
    let (Some(offset), Some(count)) = (number("offset"), number("count")) else {
        return Err(error(ctx, 40035, "invalid args"));
    };
    if !(1..=20).contains(&count) {
        return Err(error(ctx, 40035, "invalid count"));
    }
    Ok((offset as usize, count as usize))
}

/// An article as a post: `mass` says by which of the two acts it went out.
fn article(ctx: &mut Ctx<'_>, draft: &Draft, id: String, mass: bool) -> Entry {
    let work = std::time::Duration::try_from_secs_f64(ctx.site.settings.work_seconds).unwrap_or_default();
    let link = format!("https://mp.weixin.qq.com/s/{}", ctx.site.dice.word(22));
    let number = ctx.site.next_id(100_000_000, ctx.twist.big_ids);
    ctx.publish(New {
        sent: format!("{}\n{}", draft.title, draft.content),
        shown: format!("{}\n{}", draft.title, draft.shown),
        images: draft.pictures.clone(),
        number,
        id: Some(id),
        extra: json!({"title": draft.title, "digest": draft.digest, "url": link, "mass": mass}),
        later: if mass { std::time::Duration::ZERO } else { work },
    })
}

pub(super) fn submit(ctx: &mut Ctx<'_>) -> Reply {
    let Some((id, draft)) = own_draft(ctx) else { return error(ctx, 40007, "") };
    ctx.site.desk.drafts.remove(&id);
    let article_id = ctx.site.dice.word(43);
    let post = article(ctx, &draft, article_id, false);
    let publish_id = post.number.to_string();
    let polls = ctx.twist.polls.unwrap_or(0);
    let job = Job { unit: draft.unit, post: post.n, done_at: post.visible_from, polls };
    if ctx.site.desk.jobs.len() >= REMEMBERED {
        ctx.site.desk.jobs.pop_first();
    }
    ctx.site.desk.jobs.insert(publish_id.clone(), job);
    if polls > 0 {
        hide(ctx, post.n, true);
    }
    Reply::ok(json!({"errcode": 0, "errmsg": "ok", "publish_id": publish_id, "msg_data_id": post.number}))
}

fn hide(ctx: &mut Ctx<'_>, n: u64, hidden: bool) {
    if let Some(post) = ctx.posts.all.get_mut(&n) {
        post.hidden = hidden;
    }
}

pub(super) fn poll(ctx: &mut Ctx<'_>) -> Reply {
    let Some(id) = text(ctx, "publish_id") else { return error(ctx, 40035, "invalid args") };
    let (now, unit) = (ctx.now, ctx.unit.clone());
    let Some(job) = ctx.site.desk.jobs.get_mut(&id).filter(|job| Some(&job.unit) == unit.as_ref()) else {
        return error(ctx, 40035, "invalid publish_id");
    };
    let runs = job.polls > 0 || job.done_at > now;
    job.polls = job.polls.saturating_sub(1);
    let (n, left) = (job.post, job.polls);
    if runs && left == 0 {
        hide(ctx, n, false);
    }
    let Some(post) = ctx.posts.get(n).cloned() else { return error(ctx, 40035, "invalid publish_id") };
    let status = match &post {
        _ if runs || post.in_review(now) => 1,
        p if p.gone(now) && p.gone_by_user => 5,
        p if p.review.is_some_and(|(_, remove)| remove) => 4,
        p if p.gone(now) => 6,
        _ => 0,
    };
    let mut body = json!({"publish_id": id, "publish_status": status, "fail_idx": []});
    if status == 0 {
        body["article_id"] = json!(post.id);
        body["article_detail"] = json!({"count": 1, "item": [{"idx": 1, "article_url": post.extra.get("url")}]});
    }
    Reply::json(200, format!("status {status}"), body)
}

pub(super) fn list(ctx: &mut Ctx<'_>) -> Reply {
    let (offset, count) = match page(ctx) {
        Ok(page) => page,
        Err(refused) => return refused,
    };
    // Mass sends do not appear here, nor does what is still under way.
    let done: Vec<Entry> = ctx
        .timeline()
        .into_iter()
        .filter(|p| p.extra.get("mass") == Some(&json!(false)) && !p.hidden && !p.in_review(ctx.now))
        .collect();
    let item: Vec<Value> = done.iter().skip(offset).take(count).map(listed).collect();
    Reply::ok(json!({"total_count": done.len(), "item_count": item.len(), "item": item}))
}

fn listed(post: &Entry) -> Value {
    let get = |name: &str| post.extra.get(name);
    json!({
        "article_id": post.id,
        "update_time": post.created.timestamp(),
        "content": {"news_item": [{
            "title": get("title"), "digest": get("digest"), "url": get("url"), "is_deleted": false,
        }]},
    })
}

pub(super) fn delete(ctx: &mut Ctx<'_>) -> Reply {
    let Some(id) = text(ctx, "article_id") else { return error(ctx, 53600, "") };
    let found = ctx.own(&id);
    match ctx.live(found) {
        Some(post) => {
            ctx.delete(post.n);
            Reply::ok(json!({"errcode": 0, "errmsg": "ok"}))
        }
        None => error(ctx, 53600, ""),
    }
}

pub(super) fn send_all(ctx: &mut Ctx<'_>) -> Reply {
    let body = ctx.call.json.clone().unwrap_or_default();
    let all = body.pointer("/filter/is_to_all").and_then(Value::as_bool) == Some(true);
    if !all && body.pointer("/filter/tag_id").is_none() {
        return error(ctx, 40035, "invalid filter");
    }
    let plain = match body.get("msgtype").and_then(Value::as_str) {
        Some("text") => true,
        Some("mpnews") => false,
        _ => return error(ctx, 40008, "invalid message type"),
    };
    let given = text(ctx, "clientmsgid");
    if given.as_ref().is_some_and(|key| key.len() > 64) {
        return error(ctx, 45067, "");
    }
    let content = body.pointer(if plain { "/text/content" } else { "/mpnews/media_id" }).and_then(Value::as_str);
    let Some(content) = content.filter(|c| !c.is_empty()).map(str::to_owned) else {
        return error(ctx, if plain { 44004 } else { 40007 }, "");
    };
    let unit = ctx.unit.clone().unwrap_or_default();
    let key = given.unwrap_or_else(|| format!("digest {content}"));
    if let Some(refused) = same_key(ctx, &unit, &key) {
        return refused;
    }
    let draft = match (plain, ctx.site.desk.drafts.get(&content)) {
        (true, _) => None,
        (false, Some(draft)) if draft.unit == unit => Some(draft.clone()),
        _ => return error(ctx, 40007, ""),
    };
    let (clock, most) = (ctx.clock(), ctx.site.settings.limits.quotas.then_some(ctx.site.settings.mass_per_day));
    let left = ctx.account_mut().is_some_and(|a| a.quotas.entry("masses").or_default().take(clock, 86_400, most));
    if !left {
        return error(ctx, 45028, "");
    }
    let post = match draft {
        Some(draft) => {
            if !draft.is_material {
                ctx.site.desk.drafts.remove(&content);
            }
            let id = ctx.site.next_id(1_000_000_000, false).to_string();
            article(ctx, &draft, id, true)
        }
        None => {
            let number = ctx.site.next_id(1_000_000_000, ctx.twist.big_ids);
            let extra = json!({"mass": true});
            ctx.publish(New { sent: content.clone(), shown: content, number, extra, ..New::default() })
        }
    };
    let waits_since = ctx.twist.admin.then_some(ctx.now);
    let mass = Mass { unit, post: post.n, key, at: ctx.now, text: plain, waits_since };
    if ctx.site.desk.sends.len() >= REMEMBERED {
        ctx.site.desk.sends.pop_first();
    }
    ctx.site.desk.sends.insert(post.id.clone(), mass);
    if ctx.twist.admin {
        hide(ctx, post.n, true);
    }
    let id: Value = post.id.parse::<u64>().map_or(Value::Null, Value::from);
    Reply::ok(json!({
        "errcode": 0, "errmsg": "send job submission success", "msg_id": id, "msg_data_id": post.number,
    }))
}

/// What a repeated key is answered within a day.
fn same_key(ctx: &mut Ctx<'_>, unit: &str, key: &str) -> Option<Reply> {
    let now = ctx.now;
    let known = ctx.site.desk.sends.iter().find(|(_, s)| s.unit == unit && s.key == key && now - s.at < DAY);
    let (id, at) = known.map(|(id, send)| (id.clone(), send.at))?;
    if now - at < TOO_SOON {
        return Some(error(ctx, 45066, ""));
    }
    let mut reply = error(ctx, 45065, "clientmsgid exist");
    if let super::call::Body::Json(body) = &mut reply.body {
        body["msg_id"] = id.parse::<u64>().map_or(Value::Null, Value::from);
    }
    Some(reply)
}

pub(super) fn mass_get(ctx: &mut Ctx<'_>) -> Reply {
    let Some(id) = text(ctx, "msg_id") else { return error(ctx, 40035, "invalid args") };
    let now = ctx.now;
    let known = ctx.site.desk.sends.get(&id).filter(|s| Some(&s.unit) == ctx.unit.as_ref());
    let Some((n, waits)) = known.map(|send| (send.post, send.waits_since)) else {
        return error(ctx, 40035, "invalid msg_id");
    };
    let gone = ctx.posts.get(n).is_none_or(|post| post.gone(now));
    let status = match waits {
        _ if gone => "DELETE",
        Some(since) if now - since < ADMIN => "SENDING",
        Some(_) => "SEND_FAIL",
        None if ctx.posts.get(n).is_some_and(|p| p.visible_from > now || p.in_review(now)) => "SENDING",
        None => "SEND_SUCCESS",
    };
    if status == "SEND_SUCCESS" && !ctx.site.settings.unaudited {
        hide(ctx, n, false);
    }
    Reply::json(200, status, json!({"msg_id": id.parse::<u64>().unwrap_or_default(), "msg_status": status}))
}

pub(super) fn mass_delete(ctx: &mut Ctx<'_>) -> Reply {
    let Some(id) = text(ctx, "msg_id") else { return error(ctx, 40035, "invalid args") };
    let known = ctx.site.desk.sends.get(&id).filter(|s| Some(&s.unit) == ctx.unit.as_ref());
    match known.map(|send| (send.post, send.text)) {
        // A text in the followers' hands cannot be taken back.
        Some((_, true)) | None => error(ctx, 40035, "invalid msg_id"),
        Some((n, false)) => {
            ctx.delete(n);
            Reply::ok(json!({"errcode": 0, "errmsg": "ok"}))
        }
    }
}
