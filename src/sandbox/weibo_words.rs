//! Sina Weibo's words: its error texts, the HTTP status that goes with each, and the objects it answers with.

use serde_json::{Value, json};

use super::call::Reply;
use super::state::{Account, Ctx, Entry};
use crate::clock::Time;

/// The platform's own text for a code; `what` fills the gap where it has one.
fn text(code: i64, what: &str) -> String {
    let fixed = match code {
        10001 => "system error!",
        10002 => "service unavailable!",
        10003 => "remote service error!",
        10004 => "IP limit!",
        10005 => "permission denied! Need a high level appkey!",
        10006 => "source paramter(appkey) is missing",
        10008 => "Param error, see doc for more info.",
        10009 => "Too many pending tasks, system is busy!",
        10010 => "Job expired!",
        10012 => "Illegal request!",
        10013 => "invalid weibo user!",
        10014 => "Insufficient app permissions!",
        10018 => "Request body length over limit!",
        10020 => "Request Api not found!",
        10021 => "HTTP METHOD is not supported for this request!",
        10022 => "IP requests out of rate limit!",
        10023 => "User requests out of rate limit!",
        20003 => "User does not exists!",
        20005 => "Unsupported image type, only suport JPG, GIF, PNG!",
        20006 => "Image size too large!",
        20007 => "Does multipart has image?",
        20008 => "Content is null!",
        20012 => "Text too long, please input text less than 140 characters!",
        20015 => "Account or ip or app is illgal, can not continue!",
        20016 => "Out of limit",
        20017 => "Given content similar!",
        20019 => "repeat content!",
        20020 => "contain advertising!",
        20021 => "Content is illegal!",
        20031 => "Test and verify!",
        20032 => "Update success, while server slow now, please wait 1-2 minutes",
        20101 => "target weibo does not exist!",
        20102 => "not your own weibo!",
        20109 => "weibo id is null!",
        20112 => "Permission denied! Not authorized to view this weibo!",
        20121 => "visible value error!",
        21315 => "token_expired",
        21316 => "token_revoked",
        21317 => "token_rejected",
        21321 => "applications over the unaudited use restrictions!",
        21327 => "expired_token",
        21331 => "temporarily_unavailable",
        21332 => "invalid_access_token",
        21335 => "request uid's value must be the current user",
        _ => "",
    };
    match code {
        10007 => format!("Unsupport mediatype ({what})"),
        10016 => format!("miss required parameter ({what}), see doc for more info."),
        10024 => format!("User requests for ({what}) out of rate limit!"),
        _ if !what.is_empty() => what.to_owned(),
        _ if fixed.is_empty() => format!("error {code}"),
        _ => fixed.to_owned(),
    }
}

fn http_status(code: i64, oauth: bool) -> u16 {
    match code {
        _ if oauth => 401,
        10020 => 404,
        10021 => 405,
        10004..=10006 | 10013 | 10014 | 10022..=10024 | 20003 | 20015 | 20016 | 20031 | 20033 => 403,
        21301..=21334 => 403,
        _ => 400,
    }
}

/// An error envelope; `what` fills a gap in the platform's text, or replaces it.
pub(super) fn error(ctx: &Ctx<'_>, code: i64, what: &str) -> Reply {
    let oauth = ctx.call.path.starts_with("/oauth2/");
    let mut body = json!({"request": ctx.call.path, "error_code": code, "error": text(code, what)});
    if oauth {
        body["error_description"] = json!(text(code, what));
    }
    let status = if ctx.site.settings.always_200 { 200 } else { http_status(code, oauth) };
    Reply::json(status, code.to_string(), body)
}

/// `Tue May 31 17:46:55 +0800 2011`.
pub(super) fn created_at(at: Time) -> String {
    let shanghai = chrono::FixedOffset::east_opt(8 * 3600).expect("eight hours are an offset");
    at.with_timezone(&shanghai).format("%a %b %d %H:%M:%S %z %Y").to_string()
}

pub(super) fn status(post: &Entry, account: Option<&Account>) -> Value {
    // Some of the platform's own samples went through a float: beyond 2^53 the number is no longer the id.
    let id = if post.number > (1 << 53) { (post.number as f64) as u64 } else { post.number };
    let annotations = post.extra.get("annotations").cloned().unwrap_or_else(|| json!([]));
    let mut status = json!({
        "created_at": created_at(post.created),
        "id": id,
        "idstr": post.id,
        "mid": post.id,
        "text": post.shown,
        "source": "<a href=\"http://app.weibo.com/t/feed/fabu\" rel=\"nofollow\">政务发布</a>",
        "favorited": false,
        "truncated": post.shown.ends_with("…全文"),
        "isLongText": post.shown.ends_with("…全文"),
        "geo": null,
        "reposts_count": 0,
        "comments_count": 0,
        "annotations": annotations,
    });
    if let Some(account) = account {
        status["user"] = user(account);
    }
    if let Some(first) = post.images.first() {
        for size in ["thumbnail", "bmiddle", "original"] {
            status[format!("{size}_pic")] = json!(first.replace("/large/", &format!("/{size}/")));
        }
        status["pic_urls"] = post.images.iter().map(|url| json!({"thumbnail_pic": url})).collect();
    }
    if let Some(source) = post.extra.get("retweeted") {
        status["retweeted_status"] = json!({"idstr": source, "mid": source});
    }
    status
}

pub(super) fn user(account: &Account) -> Value {
    json!({
        "id": account.uid,
        "idstr": account.uid.to_string(),
        "screen_name": account.name,
        "name": account.name,
        "domain": account.handle,
        "profile_url": account.handle,
        "verified": true,
    })
}
