//! What each dialect does that no other does: strict flags, eaten commands, drafts and tickets, keys.

use bytes::Bytes;
use fabu::core::delivery::{Class, Failure, Receipt};
use fabu::core::fit::{is_command, length};
use fabu::core::words::Lang;
use fabu::platform::{Look, Post, Wanted};
use http::Request;
use serde_json::{Value, json};

use crate::codes::word;
use crate::hostile::made_token;
use crate::world::{Case, PLATFORM, World, case, cases, picture, text, world, world_of};

fn rule(behaviour: &str, params: Value) -> Value {
    json!({"behaviour": behaviour, "operation": "post", "params": params})
}

/// A text that measures exactly so much.
fn of_length(w: &World, size: usize) -> String {
    // Mastodon's limit is kept by two counts at once, which differ where there is a link.
    let mut text = if w.case.api == "mastodon" { "早安".to_owned() } else { text(7) };
    while length(&text, &w.platform.rules().counting) + 3 <= size {
        text.push('长');
    }
    while length(&text, &w.platform.rules().counting) < size {
        text.push('x');
    }
    text
}

#[tokio::test(start_paused = true)]
async fn r44_the_limit_is_counted_as_the_platform_counts_it() {
    // An article's limit is ours, and far below the platform's.
    for case in cases().into_iter().filter(|case| case.api != "wechat") {
        let w = world(&case);
        let limit = w.platform.rules().limit;
        let exact = w.prepare(&w.post(&of_length(&w, limit))).await.unwrap();
        assert_eq!(word(&w.publish(&exact).await), "published", "{}", case.name);
        w.pass(90).await;
        let over = w.prepare(&w.post(&of_length(&w, limit + 2))).await.unwrap();
        assert_eq!(word(&w.publish(&over).await), "content", "{}", case.name);
        assert_eq!(w.live(), 1, "{}", case.name);
    }
}

#[tokio::test(start_paused = true)]
async fn r44_a_picture_that_adds_its_address_is_counted() {
    for name in ["statuses bearer", "statuses basic"] {
        let w = world(&case(name));
        let rules = w.platform.rules();
        let fits = of_length(&w, rules.limit - rules.image_url);
        w.out(&w.with_picture(&fits)).await;
        assert_eq!(w.sandbox.posts()[0].pictures, 1, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn tencent_weibo_is_told_not_to_cut_or_drop() {
    let w = world(&case("tencent-weibo"));
    let long = w.prepare(&w.post(&"长".repeat(200))).await.unwrap();
    assert_eq!((word(&w.publish(&long).await).as_str(), w.live()), ("content", 0));
    let mut bad = picture();
    bad.bytes = Bytes::from_static(b"no picture at all");
    let refused = w.prepare(&Post { pictures: vec![bad], ..w.post(&text(1)) }).await;
    assert!(matches!(refused, Err(Failure::Refused(..))), "{refused:?}");
    // Cut in silence all the same, it is out: a person sees what it became, and it is not sent a second time.
    let (prepared, sent) = w.under(rule("silent_cut", json!({})), &w.post(&text(2))).await;
    assert!(sent.is_ok());
    let looked = w.find(&w.wanted(&prepared)).await.unwrap();
    assert!(matches!(looked, Look::Unaccounted(_)), "{looked:?}");
}

#[tokio::test(start_paused = true)]
async fn tencent_weibo_leaves_out_what_is_not_configured() {
    let bare = Case { secret: "tencent-canary", further: json!({}), ..case("tencent-weibo") };
    let mut w = world(&bare);
    w.account.further.clear();
    let receipt = w.out(&w.with_picture(&text(1))).await;
    assert_eq!(receipt.url, Some(format!("http://t.qq.com/p/t/{}", receipt.post_id)));
}

#[tokio::test(start_paused = true)]
async fn r08_an_eaten_command_is_not_taken_for_published() {
    for name in ["statuses bearer", "statuses basic", "statuses oauth1"] {
        let w = world(&case(name));
        // Without any previous status there is nothing to answer with.
        let (_, sent) = w.under(rule("eaten", json!({})), &w.post(&text(1))).await;
        assert_eq!((word(&sent).as_str(), w.live()), ("unclear", 0), "{name}");
        w.out(&w.post(&text(1))).await;
        let (prepared, sent) = w.under(json!({"behaviour": "latency"}), &w.post("stats")).await;
        assert_eq!((word(&sent).as_str(), w.live()), ("unclear", 1), "{name}");
        // It is absent; but for the previous status, unless it is known whose that is.
        let first = w.sandbox.posts()[0].id.clone();
        let known = Wanted { taken: vec![first], ..w.wanted(&prepared) };
        assert_eq!(w.find(&known).await.unwrap(), Look::Absent, "{name}");
        assert!(matches!(w.find(&w.wanted(&prepared)).await.unwrap(), Look::Unaccounted(_)), "{name}");
        // The previous status may have the very words: then its id is not new.
        w.pass(61).await;
        let (_, sent) = w.under(rule("eaten", json!({})), &w.post(&text(1))).await;
        assert_eq!((word(&sent).as_str(), w.live()), ("unclear", 1), "{name}");
        assert!(w.platform.rules().commands && is_command("stats"), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn r08_an_eaten_command_is_known_by_the_baseline_after_a_restart() {
    let w = world(&case("statuses bearer"));
    let earlier = w.out(&w.post(&text(1))).await;
    w.pass(61).await;
    // A new adapter has learnt nothing; the ledger knows the newest id.
    let fresh = fabu::platform::open(w.platform.settings());
    let mut prepared = fresh.prepare(&w.call(), &w.post(&text(1))).await.unwrap();
    prepared.baseline = Some(earlier.post_id);
    w.fault(rule("eaten", json!({})));
    let sent = fresh.publish(&w.call(), &prepared, &[]).await;
    assert_eq!(word(&sent), "unclear");
}

/// Two notices alike go in one moment; the answer of one is lost, and the other is eaten and answered with the first.
#[tokio::test(start_paused = true)]
async fn r08_an_eaten_text_is_not_taken_for_one_like_it_that_went_a_moment_ago() {
    let eaten = json!({"behaviour": "eaten", "operation": "post", "text": "南京"});
    for (fault, apart_ms) in [("reset_after", 0), ("reset_after", 2_000), ("trickle", 500)] {
        let w = world(&case("statuses bearer"));
        let of = |road: &str| w.post(&format!("【停水通知】浦东新区{road}今晚22时至次日6时停水，请提前储水。"));
        let (first, second) = (w.prepare(&of("张江路")).await.unwrap(), w.prepare(&of("南京路")).await.unwrap());
        w.fault(json!({"behaviour": fault, "operation": "post", "text": "张江", "params": {"seconds": 9}}));
        w.fault(eaten.clone());
        let later = async {
            w.clock.sleep(std::time::Duration::from_millis(apart_ms)).await;
            w.publish(&second).await
        };
        let (_, sent) = tokio::join!(w.publish(&first), later);
        assert_eq!((word(&sent).as_str(), w.live()), ("unclear", 1), "{fault} {apart_ms}");
    }
    // Alone, an answer in other words is its own: a site may have a filter of words.
    let w = world(&case("statuses bearer"));
    w.out(&w.post(&text(1))).await;
    w.pass(10).await;
    let (_, sent) = w.under(rule("rewritten", json!({"kind": "filtered"})), &w.post(&text(2))).await;
    assert_eq!((word(&sent).as_str(), w.live()), ("published", 2));
}

#[tokio::test(start_paused = true)]
async fn an_older_site_takes_the_picture_with_the_post() {
    let w = world(&case("statuses bearer"));
    for (n, rule) in [
        json!({"behaviour": "error", "operation": "upload", "params": {"status": 404, "message": "Not found"}}),
        json!({"behaviour": "proxy_page", "operation": "upload", "params": {"status": 500}}),
    ]
    .into_iter()
    .enumerate()
    {
        w.fault(rule);
        let prepared = w.prepare(&w.with_picture(&text(n as u32))).await.unwrap();
        assert_eq!((prepared.attached.len(), prepared.media.len()), (1, 0));
        w.sandbox.clear();
        assert_eq!(word(&w.publish(&prepared).await), "published");
        assert_eq!(w.sandbox.posts().last().unwrap().pictures, 1);
        w.pass(61).await;
    }
    let own = world(&case("statuses of Sina's kind"));
    own.out(&own.with_picture(&text(1))).await;
    assert_eq!(own.sandbox.requests().last().unwrap().path, "/api/statuses/upload.json");
}

#[tokio::test(start_paused = true)]
async fn a_site_may_say_where_its_posts_are() {
    let mut own = case("statuses bearer");
    own.further["post_url"] = json!("https://t.example.cn/{handle}/{id}");
    let w = world(&own);
    let receipt = w.out(&w.post(&text(1))).await;
    assert_eq!(receipt.url, Some(format!("https://t.example.cn/shanghaifabu/{}", receipt.post_id)));
}

#[tokio::test(start_paused = true)]
async fn one_token_serves_all_of_an_official_account() {
    let w = world(&case("wechat freepublish"));
    let posts: Vec<Post> = (0..5).map(|n| w.post(&text(n))).collect();
    let prepared = futures_util::future::join_all(posts.iter().map(|post| w.prepare(post))).await;
    assert_eq!(w.requests_of("token"), 1);
    // Before the first one ends the next one is asked for, and nothing is refused.
    w.pass(7200 - 250).await;
    for prepared in prepared {
        assert_eq!(word(&w.publish(&prepared.unwrap()).await), "accepted");
        w.pass(60).await;
    }
    assert_eq!(w.requests_of("token"), 2);
}

#[tokio::test(start_paused = true)]
async fn r29_a_refused_token_is_renewed_once_and_then_a_persons_matter() {
    for standing in ["replaced", "expired"] {
        let w = world(&case("wechat freepublish"));
        let prepared = w.prepare(&w.post(&text(1))).await.unwrap();
        assert!(w.sandbox.set_standing("site:a", standing, None));
        assert_eq!((word(&w.publish(&prepared).await).as_str(), w.live()), ("not_sent", 0), "{standing}");
        assert_eq!((word(&w.publish(&prepared).await).as_str(), w.live()), ("accepted", 1), "{standing}");
        assert_eq!(w.requests_of("token"), 2);
    }
    for code in [40001, 40014, 42001] {
        let w = world(&case("wechat freepublish"));
        let prepared = w.prepare(&w.post(&text(1))).await.unwrap();
        w.fault(json!({"behaviour": "error", "operation": "post", "times": 2, "params": {"code": code}}));
        assert_eq!(word(&w.publish(&prepared).await), "not_sent", "{code}");
        assert_eq!(word(&w.publish(&prepared).await), "credential account", "{code}");
        assert_eq!(word(&w.publish(&prepared).await), "accepted", "{code}");
    }
    // Two calls refused over the same token are one refusal.
    let w = world(&case("wechat freepublish"));
    let (one, two) = (w.prepare(&w.post(&text(1))).await.unwrap(), w.prepare(&w.post(&text(2))).await.unwrap());
    assert!(w.sandbox.set_standing("site:a", "replaced", None));
    let (first, second) = tokio::join!(w.publish(&one), w.publish(&two));
    assert_eq!([word(&first), word(&second)], ["not_sent", "not_sent"]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_made_publishes_nothing() {
    for (params, class) in [
        (json!({"code": 40125}), "credential account"),
        (json!({"code": 40164}), "credential platform"),
        (json!({"code": 40001}), "credential account"),
        (json!({"code": -1}), "not_sent"),
        // Two hours later it is 00:13:20 in Shanghai.
        (json!({"code": 45009}), "later 85601 account"),
    ] {
        let w = world(&case("wechat freepublish"));
        let prepared = w.prepare(&w.post(&text(1))).await.unwrap();
        w.pass(7200).await;
        w.fault(json!({"behaviour": "error", "operation": "token", "params": params}));
        assert_eq!(word(&w.publish(&prepared).await), class, "{params}");
    }
    let w = world(&case("wechat freepublish"));
    let prepared = w.prepare(&w.post(&text(1))).await.unwrap();
    w.pass(7200).await;
    w.fault(json!({"behaviour": "reset_after", "operation": "token"}));
    // The request that publishes has not gone out, whatever became of the one for the token.
    assert_eq!((word(&w.publish(&prepared).await).as_str(), w.requests_of("post")), ("not_sent", 0));
}

/// A picture in the library, as a person puts it there.
async fn cover(w: &World) -> String {
    let token = made_token(w).await.unwrap();
    let mut body = b"--b\r\nContent-Disposition: form-data; name=\"media\"; filename=\"a.png\"\r\n\r\n".to_vec();
    body.extend_from_slice(b"\x89PNG\r\n\x1A\n....\r\n--b--\r\n");
    let request = Request::post(format!("/cgi-bin/material/add_material?type=image&access_token={token}"))
        .header("content-type", "multipart/form-data; boundary=b")
        .body(Bytes::from(body))
        .unwrap();
    let answer = w.sandbox.exchange(PLATFORM, request).await.unwrap();
    let answer: Value = serde_json::from_slice(answer.body()).unwrap();
    answer["media_id"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn an_article_needs_a_cover_and_one_upload_does_for_many() {
    let mut w = world(&case("wechat freepublish"));
    let bare = Post { pictures: Vec::new(), ..w.post(&text(1)) };
    let Err(Failure::Refused(Class::Media, why)) = w.prepare(&bare).await else { panic!() };
    assert!(why.in_(Lang::En).contains("cover:") && why.in_(Lang::Zh).contains("封面"));
    for n in 0..3 {
        w.prepare(&w.post(&text(n))).await.unwrap();
    }
    let uploads = w.sandbox.requests().iter().filter(|r| r.path.ends_with("add_material")).count();
    assert_eq!(uploads, 1);
    let own = cover(&w).await;
    w.account.further.insert("cover".to_owned(), own);
    let receipt = w.out(&bare).await;
    assert!(receipt.url.unwrap().starts_with("https://mp.weixin.qq.com/s/"));
    // One that is not there is the account's fault, and not tried again.
    w.account.further.insert("cover".to_owned(), "nothing".to_owned());
    assert!(matches!(w.prepare(&bare).await, Err(Failure::Refused(Class::Media, _))));
}

#[tokio::test(start_paused = true)]
async fn an_article_has_a_title_and_safe_html() {
    let w = world(&case("wechat freepublish"));
    let post = w.post("【停运】今晚 <b>22</b> 时起\n\n地铁九号线停运 & 改道");
    w.out(&post).await;
    let posted = &w.sandbox.posts()[0].text;
    let content = "<p>【停运】今晚 &lt;b&gt;22&lt;/b&gt; 时起</p><p><br></p><p>地铁九号线停运 &amp; 改道</p><p><img src=\"http://mmbiz";
    assert!(posted.starts_with(&format!("停运\n{content}")), "{posted}");
    let titled = Post { title: Some("一号线延误".to_owned()), ..w.post("！！！") };
    let prepared = w.prepare(&titled).await.unwrap();
    assert_eq!(prepared.title.as_deref(), Some("一号线延误"));
    let untitled = w.prepare(&w.post("！！！")).await.unwrap();
    assert_eq!(untitled.title.as_deref(), Some("！！！"));
}

#[tokio::test(start_paused = true)]
async fn a_publication_is_asked_after_with_its_ticket() {
    let w = world(&case("wechat freepublish"));
    let (prepared, sent) = w.under(rule("pending", json!({"count": 2})), &w.post(&text(1))).await;
    let wanted = Wanted { ticket: sent.unwrap().ticket, ..w.wanted(&prepared) };
    for _ in 0..2 {
        assert!(matches!(w.find(&wanted).await.unwrap(), Look::Unproven(_)));
    }
    let Look::Found(receipt) = w.find(&wanted).await.unwrap() else { panic!() };
    assert_eq!(receipt.ticket, wanted.ticket);
    w.platform.delete(&w.call(), &receipt).await.unwrap();
    assert!(matches!(w.find(&wanted).await.unwrap(), Look::TurnedDown(Class::Platform, _)));
    let (prepared, sent) = w.under(rule("deleted", json!({"seconds": 5})), &w.post(&text(2))).await;
    w.pass(6).await;
    let banned = Wanted { ticket: sent.unwrap().ticket, ..w.wanted(&prepared) };
    assert!(matches!(w.find(&banned).await.unwrap(), Look::TurnedDown(Class::Policy, _)));
    // Taken down often enough, the day's quota is spent.
    for _ in 0..9 {
        w.platform.delete(&w.call(), &receipt).await.unwrap();
    }
    let refused = w.platform.delete(&w.call(), &receipt).await;
    assert!(matches!(refused, Err(Failure::Later(..))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn r08_a_draft_that_left_the_box_was_submitted() {
    let w = world_of(&case("wechat freepublish"), json!({"work_seconds": 60}));
    let (prepared, sent) = w.under(rule("reset_after", json!({})), &w.post(&text(1))).await;
    assert_eq!(word(&sent), "unclear");
    let wanted = w.wanted(&prepared);
    w.pass(5).await;
    // Gone from the box and not listed yet: that is no absence.
    assert!(matches!(w.find(&wanted).await.unwrap(), Look::Unproven(_)));
    w.pass(60).await;
    assert!(matches!(w.find(&wanted).await.unwrap(), Look::Found(r) if r.post_id == w.sandbox.posts()[0].id));
    // A send with nothing prepared is looked for in the list alone.
    let bare = Wanted { media: Vec::new(), title: None, ..wanted.clone() };
    assert!(matches!(w.find(&bare).await.unwrap(), Look::Found(_)));
    let other = Wanted { text: text(2), ..bare };
    assert!(matches!(w.find(&other).await.unwrap(), Look::Unaccounted(posts) if posts.len() == 1));
    let known = Wanted { taken: vec![w.sandbox.posts()[0].id.clone()], ..other };
    assert_eq!(w.find(&known).await.unwrap(), Look::Absent);
}

#[tokio::test(start_paused = true)]
async fn r08_a_push_has_a_key_and_goes_out_once() {
    for plain in [true, false] {
        let w = world(&case("wechat mass"));
        let pictures = if plain { Vec::new() } else { vec![picture()] };
        let post = Post { pictures, ..w.post(&text(1)) };
        let prepared = w.prepare(&post).await.unwrap();
        let first = w.publish(&prepared).await.unwrap();
        assert!(!first.shown);
        assert_eq!(word(&w.publish(&prepared).await), "later 60 account");
        w.pass(60).await;
        let again = w.publish(&prepared).await.unwrap();
        assert_eq!((&again.post_id, &again.ticket, w.live()), (&first.post_id, &first.ticket, 1));
        let wanted = Wanted { ticket: first.ticket.clone(), ..w.wanted(&prepared) };
        let Look::Found(found) = w.find(&wanted).await.unwrap() else { panic!() };
        let taken = w.platform.delete(&w.call(), &found).await;
        if plain {
            assert!(matches!(taken, Err(Failure::Refused(..))), "{taken:?}");
            assert_eq!(w.live(), 1);
        } else {
            assert_eq!((taken, w.live()), (Ok(()), 0));
            assert!(matches!(w.find(&wanted).await.unwrap(), Look::TurnedDown(Class::Platform, _)));
        }
        // After a day the platform has forgotten the key.
        let late = Wanted { since: wanted.since - chrono::TimeDelta::hours(24), ticket: None, ..wanted };
        assert!(matches!(w.find(&late).await.unwrap(), Look::Unproven(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_may_wait_for_the_administrator() {
    let w = world(&case("wechat mass"));
    let (prepared, sent) = w.under(rule("pending", json!({"kind": "admin"})), &w.post(&text(1))).await;
    let wanted = Wanted { ticket: sent.unwrap().ticket, ..w.wanted(&prepared) };
    assert!(matches!(w.find(&wanted).await.unwrap(), Look::Unproven(_)));
    assert!(w.sandbox.set_standing("site:a", "approved", None));
    assert!(matches!(w.find(&wanted).await.unwrap(), Look::Found(_)));
    let (prepared, sent) = w.under(rule("pending", json!({"kind": "admin"})), &w.post(&text(2))).await;
    let wanted = Wanted { ticket: sent.unwrap().ticket, ..w.wanted(&prepared) };
    w.pass(1801).await;
    assert!(matches!(w.find(&wanted).await.unwrap(), Look::TurnedDown(Class::Policy, _)));
}

#[tokio::test(start_paused = true)]
async fn r08_mastodons_key_gives_the_same_status_again() {
    let w = world(&case("mastodon"));
    let (prepared, sent) = w.under(rule("reset_after", json!({})), &w.post(&text(1))).await;
    assert_eq!((word(&sent).as_str(), w.live()), ("unclear", 1));
    w.pass(180).await;
    let again = w.publish(&prepared).await.unwrap();
    assert_eq!((again.post_id, w.live()), (w.sandbox.posts()[0].id.clone(), 1));
}

#[tokio::test(start_paused = true)]
async fn a_picture_that_takes_its_time_is_waited_for() {
    let w = world_of(&case("mastodon"), json!({"work_seconds": 7}));
    let receipt: Receipt = w.out(&w.with_picture(&text(1))).await;
    assert!(receipt.shown && w.requests_of("media") == 3);
    let slow = world_of(&case("mastodon"), json!({"work_seconds": 600}));
    let refused = slow.prepare(&slow.with_picture(&text(1))).await.map(|_| panic!());
    assert_eq!(word(&refused), "later 5 account");
}

#[tokio::test(start_paused = true)]
async fn mastodon_asks_for_its_own_id_once() {
    let w = world(&case("mastodon"));
    let prepared = w.prepare(&w.post(&text(1))).await.unwrap();
    for _ in 0..3 {
        w.find(&w.wanted(&prepared)).await.unwrap();
    }
    assert_eq!((w.requests_of("check"), w.requests_of("timeline")), (1, 3));
}
