//! Every documented code has the class that the platforms page gives it, and one that is not documented
//! has none: it may have run.

use fabu::core::delivery::{Failure, Receipt, Scope};
use serde_json::{Value, json};

use crate::world::{World, case, text, world};

/// An outcome in a word or three, to be compared with a table.
pub fn word(outcome: &Result<Receipt, Failure>) -> String {
    let of = |scope: &Scope| if *scope == Scope::Account { "account" } else { "platform" };
    match outcome {
        Ok(receipt) if receipt.shown => "published".to_owned(),
        Ok(_) => "accepted".to_owned(),
        Err(Failure::NotSent(_)) => "not_sent".to_owned(),
        Err(Failure::Later(wait, scope, _)) => format!("later {} {}", wait.as_secs(), of(scope)),
        Err(Failure::Refused(class, _)) => class.as_str().to_owned(),
        Err(Failure::Credential(scope, _)) => format!("credential {}", of(scope)),
        Err(Failure::Duplicate(_)) => "duplicate".to_owned(),
        Err(Failure::Unclear(_)) => "unclear".to_owned(),
        Err(Failure::Astray(_)) => "astray".to_owned(),
    }
}

/// What publishing comes to when the platform says this.
async fn said(name: &str, params: Value) -> String {
    let w = world(&case(name));
    let (_, sent) =
        w.under(json!({"behaviour": "error", "operation": "post", "params": params}), &w.post(&text(1))).await;
    assert_eq!(w.live(), 0, "{name} {params}");
    word(&sent)
}

fn numbers(list: &str) -> impl Iterator<Item = i64> {
    list.split_whitespace().map(|n| n.parse().unwrap())
}

/// `platforms.md` 1.4.
#[tokio::test(start_paused = true)]
async fn r08_weibos_codes_have_their_class() {
    let table = [
        ("unclear", "10001 10002 10003 10010 10011 21405 23201 19999 29999"),
        ("credential platform", "10004 10005 10006 10014 21320 21321"),
        ("credential account", "10013 20003 20015 20033 20031 21301 21315 21316 21317 21319 21322 21327 21330 21332"),
        ("content", "10007 10008 10012 10016 10017 10018 10020 10021 10025 20008 20012 20013 20102 20109 20112 20120"),
        ("content", "20121 20101 21335"),
        ("media", "20005 20006 20007"),
        ("policy", "20018 20020 20021 21602 20104"),
        ("duplicate", "20017 20019 20111"),
        ("not_sent", "20014"),
        ("later 30 platform", "10009"),
        ("later 600 account", "20016"),
        ("later 600 platform", "20022 20023"),
        ("later 60 account", "21331"),
        ("accepted", "20032"),
        // Until the full hour: it is 13 minutes and 20 seconds past.
        ("later 2801 platform", "10022"),
        ("later 2801 account", "10023 10024"),
    ];
    for (class, codes) in table {
        for code in numbers(codes) {
            assert_eq!(said("weibo update", json!({"code": code})).await, class, "{code}");
        }
    }
    let unbound = json!({"code": 10017, "message": "appkey not bind domain!"});
    assert_eq!(said("weibo share", unbound).await, "credential platform");
}

/// `platforms.md` 2.1; a pair is written `ret` × 100 + `errcode`.
#[tokio::test(start_paused = true)]
async fn r08_tencent_weibos_codes_have_their_class() {
    let table = [
        ("accepted", "400"),
        ("content", "101 102 103 106 408 406 420 411 412 500 501"),
        ("later 60 account", "200 201"),
        ("credential account", "301 303 304 305 306 307 309 311 405 414 600 700 701"),
        ("unclear", "302 316 401 403 415 499 -100 800"),
        ("not_sent", "308 310 312 313 314 315"),
        ("policy", "404 409"),
        ("later 3 account", "410"),
        ("duplicate", "413"),
    ];
    for (class, codes) in table {
        for pair in numbers(codes) {
            let params = json!({"code": pair.div_euclid(100), "errcode": pair.rem_euclid(100)});
            assert_eq!(said("tencent-weibo", params).await, class, "{pair}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r29_tencents_limit_is_waited_for_longer_each_time() {
    let w = world(&case("tencent-weibo"));
    let prepared = w.prepare(&w.post(&text(1))).await.unwrap();
    w.fault(json!({"behaviour": "limit", "operation": "post", "times": 7}));
    for seconds in [60, 120, 240, 480, 960, 1920, 3600] {
        assert_eq!(word(&w.publish(&prepared).await), format!("later {seconds} account"));
    }
    assert_eq!(word(&w.publish(&prepared).await), "published");
    w.fault(json!({"behaviour": "limit", "operation": "post"}));
    assert_eq!(word(&w.publish(&prepared).await), "later 60 account");
}

/// `platforms.md` 2.2, on the request that publishes, and on one that may be repeated freely.
#[tokio::test(start_paused = true)]
async fn r08_wechats_codes_have_their_class() {
    let table = [
        ("unclear", "not_sent", "-1"),
        ("unclear", "content", "99999 40003"),
        ("not_sent", "not_sent", "40001 40014 42001"),
        (
            "credential account",
            "",
            "40002 40013 40125 41001 41002 41004 48001 48004 48005 48006 50002 50005 61004 61007",
        ),
        ("credential platform", "", "40164"),
        ("media", "", "40004 40005 40006 40007 40008 40009 40137 45001"),
        ("content", "", "40035 40038 43002 44002 44003 47001 45002 45003 45004 45005 45008 45028 45067 61500"),
        ("content", "", "53402 53503 53504 53505"),
        ("policy", "", "45166 87014"),
        // Until midnight in Shanghai, where it is 22:13:20.
        ("later 6401 account", "", "45009"),
        ("later 60 account", "", "45011 45066 9500002"),
        ("later 600 account", "", "53501"),
    ];
    for (class, ahead, codes) in table {
        for code in numbers(codes) {
            for name in ["wechat freepublish", "wechat mass"] {
                assert_eq!(said(name, json!({"code": code})).await, class, "{name} {code}");
            }
            let w = world(&case("wechat freepublish"));
            w.fault(json!({"behaviour": "error", "operation": "draft", "params": {"code": code}}));
            let refused = w.prepare(&w.post(&text(1))).await.map(|_| panic!("{code}"));
            // The cover was uploaded a moment ago: gone by now, it is uploaded again.
            let ahead = if code == 40007 {
                "not_sent"
            } else if ahead.is_empty() {
                class
            } else {
                ahead
            };
            assert_eq!(word(&refused), ahead, "draft {code}");
        }
    }
}

/// `platforms.md` 3.1, in all three shapes of an error.
#[tokio::test(start_paused = true)]
async fn r08_the_codes_of_statuses_have_their_class() {
    let duplicate = "Too many duplicate messages too quickly; take a breather and post again in a few minutes.";
    let too_fast = "Too many notices too fast; take a breather and post again in a few minutes.";
    let table = [
        (400, "", duplicate, "duplicate"),
        (403, "", "Status is a duplicate.", "duplicate"),
        (400, "", too_fast, "later 600 account"),
        (420, "", "Enhance your calm", "later 600 account"),
        (429, "", "Too many requests", "later 600 account"),
        (503, "", "Service Unavailable", "later 30 account"),
        (400, "", "Client must provide a 'status' parameter with a value.", "content"),
        (404, "", "Not found", "content"),
        (406, "", "Not acceptable", "content"),
        (413, "", "Maximum notice size is 140 characters, including attachment URL.", "content"),
        (415, "", "Unsupported", "content"),
        (422, "", "Unprocessable", "content"),
        (401, "", "Could not authenticate you.", "credential account"),
        (403, "", "Forbidden", "credential account"),
        (403, "", "You are banned from posting notices on this site.", "policy"),
        (200, "", "error", "unclear"),
        (302, "", "moved", "unclear"),
        (402, "", "Pay", "unclear"),
        (500, "", "Internal", "unclear"),
        (400, "weibo 40025", "repeated weibo text!", "duplicate"),
        (400, "weibo 40013", "too long", "content"),
        (400, "weibo 40012", "empty", "content"),
        (400, "weibo 40045", "picture", "media"),
        (400, "weibo 40008", "picture", "media"),
        (400, "weibo 40009", "picture", "media"),
        (400, "weibo 40076", "illegal word", "policy"),
        (403, "weibo 40072", "auth", "credential account"),
        (401, "weibo 40113", "oauth", "credential account"),
        (403, "twitter 187", "Status is a duplicate.", "duplicate"),
        (401, "twitter 32", "Could not authenticate you", "credential account"),
        (401, "twitter 89", "Invalid or expired token", "credential account"),
        (403, "twitter 186", "Tweet needs to be a bit shorter.", "content"),
        (429, "twitter 88", "Rate limit exceeded", "later 600 account"),
        (403, "twitter 185", "User is over daily status update limit", "later 600 account"),
        (403, "twitter 226", "This request looks like it might be automated.", "credential account"),
        (403, "twitter 326", "locked", "credential account"),
    ];
    for (status, shape, message, class) in table {
        let (kind, code) = shape.split_once(' ').map_or(("", None), |(kind, code)| (kind, code.parse::<i64>().ok()));
        let params = json!({"status": status, "kind": kind, "code": code, "message": message});
        assert_eq!(said("statuses bearer", params).await, class, "{status} {shape} {message}");
    }
    // With a picture, too large and of the wrong kind are said of the picture.
    for status in [413, 415] {
        let w = world(&case("statuses bearer"));
        w.fault(json!({"behaviour": "error", "operation": "upload", "params": {"status": status}}));
        let refused = w.prepare(&w.with_picture(&text(1))).await.map(|_| panic!("{status}"));
        assert_eq!(word(&refused), "media");
    }
}

/// `platforms.md` 3.2.
#[tokio::test(start_paused = true)]
async fn r08_mastodons_codes_have_their_class() {
    let table = [
        (401, "The access token is invalid", "credential account"),
        (403, "This action is not allowed", "credential account"),
        (422, "Validation failed: Text character limit of 500 exceeded", "content"),
        (422, "Cannot attach files that have not finished processing. Try again in a moment!", "later 5 account"),
        (404, "Record not found", "unclear"),
        (400, "Bad Request", "unclear"),
        (200, "An error that calls itself a success", "unclear"),
        (500, "Internal", "unclear"),
        (503, "There was a temporary problem serving your request", "unclear"),
    ];
    for (status, message, class) in table {
        assert_eq!(said("mastodon", json!({"status": status, "message": message})).await, class, "{status} {message}");
    }
    let w = world(&case("mastodon"));
    w.fault(json!({"behaviour": "limit", "operation": "post"}));
    let prepared = w.prepare(&w.post(&text(1))).await.unwrap();
    // The window of five minutes ends at 14:15:00.
    assert_eq!(word(&w.publish(&prepared).await), "later 101 account");
    for (what, status) in [("upload", 422), ("upload", 413)] {
        w.fault(json!({"behaviour": "error", "operation": what, "params": {"status": status}}));
        let refused = w.prepare(&w.with_picture(&text(1))).await.map(|_| panic!("{status}"));
        assert_eq!(word(&refused), "media");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_in_the_platforms_own_words() {
    for name in ["weibo update", "tencent-weibo", "wechat freepublish", "statuses bearer", "mastodon"] {
        let w = world(&case(name));
        let params = json!({"status": 422, "code": 45166, "errcode": 3, "message": "含有敏感词\u{1b}[2J<script>"});
        let (_, sent) =
            w.under(json!({"behaviour": "error", "operation": "post", "params": params}), &w.post(&text(1))).await;
        let said = sent.unwrap_err().words().clone();
        for words in [&said.zh, &said.en] {
            assert!(words.contains("含有敏感词") && !words.contains('\u{1b}'), "{name}: {words}");
        }
    }
}

/// A page with a fitting status comes from something in between, and proves no refusal.
#[tokio::test(start_paused = true)]
async fn r08_a_page_of_html_is_no_refusal_whatever_its_status() {
    for status in [200, 400, 401, 403, 404, 413, 422, 429, 502, 503] {
        for case in crate::world::cases() {
            let w: World = world(&case);
            let rule = json!({"behaviour": "proxy_page", "operation": "post", "params": {"status": status}});
            let (_, sent) = w.under(rule, &w.post(&text(1))).await;
            assert_eq!(word(&sent), "unclear", "{} {status}", case.name);
        }
    }
}
