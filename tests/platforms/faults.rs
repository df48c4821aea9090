//! What every fault of the platforms page comes to: nothing is taken for posted that was not, nothing
//! for refused that may have run, and what is out there is found again.

use chrono::TimeDelta;
use fabu::core::delivery::Class;
use fabu::core::timeline::look;
use fabu::platform::reading::{Purse, read_back};
use fabu::platform::{Look, Wanted};
use serde_json::{Value, json};

use crate::codes::word;
use crate::world::{Case, World, case, cases, text, world, world_of};

fn post_fault(behaviour: &str, params: Value) -> Value {
    json!({"behaviour": behaviour, "operation": "post", "params": params})
}

/// The post is there, and the platform's own way of telling says so.
async fn is_told(w: &World, prepared: &fabu::core::delivery::Prepared, wanted: &Wanted, what: &str) {
    let name = w.case.name;
    if name == "wechat mass" {
        // Sent again with the same key, it says that it has it.
        w.pass(61).await;
        let again = w.publish(prepared).await.unwrap();
        let ticket = Wanted { ticket: again.ticket.clone(), ..wanted.clone() };
        assert!(matches!(w.find(&ticket).await.unwrap(), Look::Found(r) if r.post_id == again.post_id), "{what}");
        return;
    }
    let looked = w.find(wanted).await.unwrap();
    let Look::Found(found) = looked else { panic!("{name} {what}: {looked:?}") };
    assert_eq!(found.post_id, w.sandbox.posts().last().unwrap().id, "{name} {what}");
}

#[tokio::test(start_paused = true)]
async fn r08_a_lost_answer_leaves_doubt_and_the_post_is_found() {
    let rules = [
        post_fault("reset_after", json!({})),
        post_fault("cut_body", json!({})),
        post_fault("cut_body", json!({"kind": "chunked"})),
        post_fault("proxy_page", json!({"status": 502, "executes": true})),
        post_fault("proxy_page", json!({"status": 200, "executes": true})),
        post_fault("wrong_reply", json!({})),
        post_fault("http09", json!({})),
        post_fault("trickle", json!({"seconds": 1})),
    ];
    for case in cases() {
        for rule in &rules {
            let w = world(&case);
            let post = w.post(&text(1));
            let (prepared, sent) = w.under(rule.clone(), &post).await;
            assert_eq!((word(&sent).as_str(), w.live()), ("unclear", 1), "{} {rule}", case.name);
            w.pass(3).await;
            is_told(&w, &prepared, &w.wanted(&prepared), &rule.to_string()).await;
            assert_eq!(w.live(), 1, "{} {rule}", case.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r08_a_request_that_was_lost_on_the_way_is_not_there() {
    for case in cases() {
        let rules = [
            post_fault("reset_before", json!({})),
            post_fault("proxy_page", json!({"status": 503})),
            json!({"behaviour": "stale", "operation": "post"}),
        ];
        for rule in rules {
            let w = world(&case);
            let (prepared, sent) = w.under(rule.clone(), &w.post(&text(1))).await;
            assert_eq!((word(&sent).as_str(), w.live()), ("unclear", 0), "{} {rule}", case.name);
            w.pass(3).await;
            assert!(
                matches!(w.find(&w.wanted(&prepared)).await.unwrap(), Look::Absent | Look::SendAgain),
                "{} {rule}",
                case.name
            );
            // Believed absent, it is sent once more, as it was prepared.
            assert!(w.publish(&prepared).await.is_ok());
            assert_eq!(w.live(), 1, "{} {rule}", case.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r37_a_redirect_is_not_followed_and_leaves_doubt() {
    for case in cases() {
        for (status, to) in [
            (302, "http://portal.example/login"),
            (307, "https://evil.example/"),
            (308, "file:///etc/passwd"),
            (301, "https://site.example/loop"),
        ] {
            let w = world(&case);
            let rule = post_fault("redirect", json!({"status": status, "location": to}));
            let (prepared, sent) = w.under(rule, &w.post(&text(1))).await;
            assert_eq!((word(&sent).as_str(), w.live()), ("unclear", 0), "{} {status}", case.name);
            assert_eq!(w.requests_of("post"), 1, "{}", case.name);
            assert!(
                matches!(w.find(&w.wanted(&prepared)).await.unwrap(), Look::Absent | Look::SendAgain),
                "{}",
                case.name
            );
        }
        // A read that is led away proves nothing either.
        let w = world(&case);
        let prepared = w.prepare(&w.post(&text(1))).await.unwrap();
        w.fault(json!({"behaviour": "redirect"}));
        if case.name != "wechat mass" {
            assert!(w.find(&w.wanted(&prepared)).await.is_err(), "{}", case.name);
        }
        assert!(w.platform.check(&w.call()).await.is_err(), "{}", case.name);
    }
}

#[tokio::test(start_paused = true)]
async fn r08_what_never_left_is_known_not_to_be_there() {
    for case in cases() {
        for kind in ["refused", "dns", "tls"] {
            let w = world(&case);
            let rule = json!({"behaviour": "unreachable", "params": {"kind": kind}});
            let (_, sent) = w.under(rule, &w.post(&text(1))).await;
            assert_eq!((word(&sent).as_str(), w.live()), ("not_sent", 0), "{} {kind}", case.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r08_a_black_hole_posts_late_and_is_found_late() {
    for case in cases() {
        let w = world(&case);
        let rule = post_fault("black_hole", json!({"seconds": 40}));
        let (prepared, sent) = w.under(rule, &w.post(&text(1))).await;
        assert_eq!((word(&sent).as_str(), w.live()), ("unclear", 0), "{}", case.name);
        let wanted = w.wanted(&prepared);
        w.pass(3).await;
        assert!(matches!(w.find(&wanted).await.unwrap(), Look::Absent | Look::SendAgain), "{}", case.name);
        w.pass(30).await;
        assert_eq!(w.live(), 1, "{}", case.name);
        is_told(&w, &prepared, &wanted, "black hole").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_that_is_shown_later_is_accepted_and_found_later() {
    for name in ["weibo update", "weibo share", "tencent-weibo"] {
        let w = world(&case(name));
        let (prepared, sent) = w.under(post_fault("delayed", json!({"seconds": 90})), &w.post(&text(1))).await;
        assert_eq!(word(&sent), "accepted", "{name}");
        assert!(sent.unwrap().post_id.is_empty());
        let wanted = w.wanted(&prepared);
        w.pass(60).await;
        assert!(matches!(w.find(&wanted).await.unwrap(), Look::Absent | Look::SendAgain), "{name}");
        w.pass(31).await;
        is_told(&w, &prepared, &wanted, "delayed").await;
    }
}

#[tokio::test(start_paused = true)]
async fn r09_a_rewritten_text_is_recognised() {
    let kinds = ["", "links,entities,trim", "url.cn", "entities", "more"];
    for case in cases().into_iter().filter(|case| case.name != "wechat mass") {
        for kind in kinds {
            let w = world(&case);
            let long = format!("{}{}", "今晚停运，请市民绕行，感谢理解与支持。".repeat(2), text(1));
            let (prepared, sent) = w.under(post_fault("rewritten", json!({"kind": kind})), &w.post(&long)).await;
            assert!(sent.is_ok(), "{} {kind}: {sent:?}", case.name);
            w.pass(3).await;
            is_told(&w, &prepared, &w.wanted(&prepared), kind).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r09_a_platforms_clock_may_be_ten_minutes_off() {
    for case in cases() {
        for minutes in [-10, 10, -600] {
            let w = world(&case);
            w.sandbox.set_clock(None, TimeDelta::minutes(minutes));
            // A signature that is refused for its time teaches the platform's.
            if w.platform.check(&w.call()).await.is_err() {
                w.platform.check(&w.call()).await.unwrap();
            }
            let old = w.out(&w.post(&text(1))).await;
            w.pass(3600).await;
            let (prepared, sent) = w.under(post_fault("reset_after", json!({})), &w.post(&text(2))).await;
            assert_eq!(word(&sent), "unclear", "{} {minutes}", case.name);
            w.pass(3).await;
            is_told(&w, &prepared, &w.wanted(&prepared), "clock").await;
            let same_words = Wanted { text: text(1), title: None, ..w.wanted(&prepared) };
            let media = if case.api == "wechat" { Vec::new() } else { prepared.media };
            let looked = w.find(&Wanted { media, ..same_words }).await.unwrap();
            assert!(!matches!(&looked, Look::Found(r) if r.post_id == old.post_id), "{} {minutes}", case.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r08_repeat_content_after_a_crash_asks_the_timeline() {
    for name in ["weibo update", "weibo share", "tencent-weibo", "statuses basic", "statuses oauth1"] {
        let w = world(&case(name));
        let (prepared, sent) = w.under(post_fault("reset_after", json!({})), &w.post(&text(1))).await;
        assert_eq!(word(&sent), "unclear", "{name}");
        w.pass(5).await;
        assert_eq!(word(&w.publish(&prepared).await), "duplicate", "{name}");
        is_told(&w, &prepared, &w.wanted(&prepared), "duplicate").await;
        assert_eq!(w.live(), 1, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn r29_limits_and_overload_are_told_with_how_long_to_wait() {
    let table = [
        ("weibo update", "overload", json!({}), "later 30 platform"),
        ("weibo update", "limit", json!({"kind": "ip"}), "later 2801 platform"),
        ("tencent-weibo", "overload", json!({}), "later 60 account"),
        ("tencent-weibo", "limit", json!({"kind": "fast"}), "later 3 account"),
        ("wechat freepublish", "overload", json!({}), "later 60 account"),
        ("wechat freepublish", "limit", json!({"kind": "minute"}), "later 60 account"),
        ("wechat mass", "limit", json!({"kind": "mass"}), "content"),
        ("statuses basic", "overload", json!({}), "later 30 account"),
        ("statuses basic", "limit", json!({}), "later 600 account"),
        ("mastodon", "overload", json!({}), "unclear"),
        ("mastodon", "limit", json!({}), "later 101 account"),
        ("weibo share", "unfit", json!({}), "content"),
        ("tencent-weibo", "unfit", json!({}), "policy"),
    ];
    for (name, behaviour, params, class) in table {
        let w = world(&case(name));
        let (_, sent) = w.under(post_fault(behaviour, params), &w.post(&text(1))).await;
        assert_eq!((word(&sent).as_str(), w.live()), (class, 0), "{name} {behaviour}");
    }
    // Two posts at once to one account, as ten o'clock often brings them.
    let w = world(&case("tencent-weibo"));
    w.out(&w.post(&text(1))).await;
    let second = w.prepare(&w.post(&text(2))).await.unwrap();
    assert_eq!(word(&w.publish(&second).await), "later 3 account");
    w.pass(3).await;
    assert_eq!(word(&w.publish(&second).await), "published");
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_dies_in_mid_run_stops_the_account() {
    let dead = |case: &Case| case.api != "wechat";
    for case in cases().into_iter().filter(dead) {
        for standing in ["expired", "revoked"] {
            let w = world(&case);
            let prepared = w.prepare(&w.post(&text(1))).await.unwrap();
            assert!(w.sandbox.set_standing("site:a", standing, None));
            assert_eq!(word(&w.publish(&prepared).await), "credential account", "{} {standing}", case.name);
            assert!(
                matches!(w.platform.check(&w.call()).await, Err(f) if word(&Err(f.clone())) == "credential account")
            );
        }
    }
    for (name, class) in [
        ("weibo update", "credential account"),
        ("tencent-weibo", "credential account"),
        ("wechat freepublish", "credential account"),
        ("mastodon", "credential account"),
        ("statuses basic", "policy"),
    ] {
        let w = world(&case(name));
        let prepared = w.prepare(&w.post(&text(1))).await.unwrap();
        assert!(w.sandbox.set_standing("site:a", "captcha", None));
        assert_eq!(word(&w.publish(&prepared).await), class, "{name}");
        assert!(w.sandbox.set_standing("site:a", "passed", None));
        assert!(w.publish(&prepared).await.is_ok(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_under_review_is_there_and_one_taken_away_is_not_posted_again() {
    for kind in ["shown", "removed"] {
        let w = world(&case("tencent-weibo"));
        let rule = post_fault("review", json!({"seconds": 60, "kind": kind}));
        let (prepared, _) = w.under(rule, &w.post(&text(1))).await;
        let wanted = w.wanted(&prepared);
        let during = w.find(&wanted).await.unwrap();
        assert!(matches!(&during, Look::Found(r) if !r.shown), "{during:?}");
        w.pass(61).await;
        match (kind, w.find(&wanted).await.unwrap()) {
            ("shown", Look::Found(receipt)) => assert!(receipt.shown),
            ("removed", Look::TurnedDown(Class::Policy, _)) => {}
            (kind, other) => panic!("{kind}: {other:?}"),
        }
    }
    for (kind, turned) in [("shown", false), ("removed", true)] {
        let w = world(&case("wechat freepublish"));
        let rule = post_fault("review", json!({"seconds": 60, "kind": kind}));
        let (prepared, sent) = w.under(rule, &w.post(&text(1))).await;
        let wanted = Wanted { ticket: sent.unwrap().ticket, ..w.wanted(&prepared) };
        assert!(matches!(w.find(&wanted).await.unwrap(), Look::Unproven(_)));
        w.pass(61).await;
        let looked = w.find(&wanted).await.unwrap();
        assert_eq!(matches!(looked, Look::TurnedDown(Class::Policy, _)), turned, "{looked:?}");
        assert_eq!(matches!(looked, Look::Found(_)), !turned, "{looked:?}");
    }
}

/// Many articles of the account's have followed the one whose answer was lost.
#[tokio::test(start_paused = true)]
async fn r08_wechats_list_is_read_back_to_the_send() {
    for is_out in [true, false] {
        let w = world_of(&case("wechat freepublish"), json!({"limits": "off"}));
        let older = w.article(98).await;
        w.pass(300).await;
        let prepared = w.prepare(&w.post(&text(99))).await.unwrap();
        // Nothing is known of its draft: what is known is its words.
        let mut wanted = Wanted { media: Vec::new(), standing: vec![older], ..w.wanted(&prepared) };
        if is_out {
            w.publish(&prepared).await.unwrap();
        }
        for n in 0..45 {
            w.pass(2).await;
            wanted.taken.push(w.article(n).await);
        }
        let before = w.requests_of("list");
        let looked = w.find(&wanted).await.unwrap();
        assert_eq!(matches!(looked, Look::Found(_)), is_out, "{looked:?}");
        assert_eq!((looked == Look::Absent, w.requests_of("list") - before), (!is_out, 3));
        let empty = read_back(w.platform.as_ref(), &w.call(), &wanted, &Empty).await.unwrap();
        assert!(matches!(empty, Look::Unproven(_)), "one page alone: {empty:?}");
    }
}

struct Empty;

#[async_trait::async_trait]
impl Purse for Empty {
    async fn another(&self) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn r08_a_page_that_does_not_reach_back_proves_nothing() {
    for (name, page) in [("weibo update", 5), ("tencent-weibo", 20), ("statuses bearer", 20), ("mastodon", 40)] {
        let w = world(&case(name));
        let older = w.out(&w.post(&text(98))).await.post_id;
        w.pass(200).await;
        let prepared = w.prepare(&w.post(&text(99))).await.unwrap();
        let mut known = Wanted { taken: vec![older], ..w.wanted(&prepared) };
        for n in 0..page {
            assert!(matches!(w.find(&known).await.unwrap(), Look::Absent | Look::SendAgain), "{name} {n}");
            known.taken.push(w.out(&w.post(&text(n))).await.post_id);
            w.pass(3).await;
        }
        let read = w.platform.newest(&w.call()).await.unwrap();
        let looked = look(&read, &known);
        assert!(matches!(looked, Look::Unproven(_)), "{name}: {looked:?}");
        // Further down there is what proves it, where the platform shows that.
        let pages = w.find(&known).await.unwrap();
        assert_eq!(pages == Look::Absent, name != "weibo update", "{name}: {pages:?}");
    }
}
