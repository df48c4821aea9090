//! The second half of the rows of the platforms page.

use std::time::Duration;

use chrono::TimeDelta;
use http::Response;
use serde_json::{Value, json};

use super::rows::*;
use super::*;

#[tokio::test(start_paused = true)]
async fn row_16_unreachable() {
    let w = world();
    for kind in ["refused", "tls", "dns"] {
        w.fault(json!({"behaviour": 16, "platform": "sina", "params": {"kind": kind}}));
        assert_eq!(w.sandbox.exchange("sina", sina("早安")).await.err(), Some(Cut::BeforeSend));
    }
    assert_eq!(w.code("tencent", tencent("t/add", &[("content", "早安")])).await, 0);
    w.fault(json!({"behaviour": 16, "params": {"kind": "hang"}}));
    assert!(w.clock.timeout(Duration::from_secs(9), w.sandbox.exchange("sina", sina("早安"))).await.is_none());
    w.fault(json!({"behaviour": 16, "from_s": 5, "for_s": 10}));
    assert!(w.sandbox.exchange("sina", sina("一")).await.is_ok());
    w.clock.sleep(Duration::from_secs(6)).await;
    assert!(w.sandbox.exchange("sina", sina("二")).await.is_err());
    w.clock.sleep(Duration::from_secs(10)).await;
    assert!(w.sandbox.exchange("sina", sina("三")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn row_17_the_first_request_after_a_pause_is_lost() {
    let w = world();
    w.fault(json!({"behaviour": 17, "params": {"seconds": 5}}));
    assert!(w.sandbox.exchange("sina", timeline()).await.is_ok());
    w.clock.sleep(Duration::from_secs(6)).await;
    assert_eq!(w.sandbox.exchange("sina", sina("早安")).await.err(), Some(Cut::AfterSend));
    assert!(w.live() == 0 && w.sandbox.exchange("sina", timeline()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn row_18_the_platforms_clock_is_wrong() {
    let w = world();
    let date = |r: &Response<Bytes>| r.headers()["date"].to_str().unwrap().to_owned();
    assert_eq!(date(&w.sandbox.exchange("sina", timeline()).await.unwrap()), "Mon, 21 Sep 2026 14:13:20 GMT");
    w.sandbox.set_clock(Some("sina"), TimeDelta::seconds(-90));
    let made = w.sandbox.exchange("sina", sina("早安")).await.unwrap();
    assert_eq!(date(&made), "Mon, 21 Sep 2026 14:11:50 GMT");
    assert_eq!(body(&made)["created_at"], "Mon Sep 21 22:11:50 +0800 2026");
    w.fault(json!({"behaviour": 18, "platform": "eastday", "params": {"seconds": 30}}));
    assert_eq!(w.ask("eastday", east("早安")).await["created_at"], "Mon Sep 21 14:13:50 +0000 2026");
}

#[tokio::test(start_paused = true)]
async fn row_19_dirt() {
    let w = world();
    let kinds = ["tail", "bom", "control", "half", "type", "gzip", "string_codes"];
    for (n, kind) in kinds.into_iter().enumerate() {
        w.fault(json!({"behaviour": 19, "params": {"kind": kind}}));
        let response = w.sandbox.exchange("sina", sina(&format!("{n}早安"))).await.unwrap();
        let raw = response.body();
        let fits = match kind {
            "tail" => raw.ends_with(b"}out of memery"),
            "bom" => raw.starts_with(b"\xEF\xBB\xBF{"),
            "control" => raw.starts_with(b"{\x01"),
            "half" => std::str::from_utf8(raw).is_err(),
            "type" => response.headers()["content-type"] == "text/html",
            "gzip" => raw.starts_with(b"\x1F\x8B") && response.headers()["content-encoding"] == "gzip",
            _ => body(&response)["id"].is_string(),
        };
        assert!(fits && w.live() == n + 1, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn row_20_a_portal_redirects() {
    let w = world();
    w.fault(json!({"behaviour": 20, "params": {"status": 307, "location": "http://evil.example/"}}));
    let response = w.sandbox.exchange("sina", sina("早安")).await.unwrap();
    assert_eq!((response.status().as_u16(), w.live()), (307, 0));
    assert_eq!(response.headers()["location"], "http://evil.example/");
}

#[tokio::test(start_paused = true)]
async fn row_21_overload() {
    let w = world();
    w.fault(json!({"behaviour": 21}));
    assert_eq!(w.code("sina", sina("早安")).await, 10009);
    let response = w.sandbox.exchange("eastday", east("早安")).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"30".parse().unwrap()));
    w.fault(json!({"behaviour": 21, "platform": "sina", "params": {"count": 1}}));
    w.sandbox.set_latency(Latency::Fixed(Duration::from_secs(1)));
    let (one, two) = tokio::join!(w.sandbox.exchange("sina", sina("一")), w.sandbox.exchange("sina", timeline()));
    assert!(one.is_ok() && two.err() == Some(Cut::BeforeSend));
}

#[tokio::test(start_paused = true)]
async fn row_22_ids_a_float_cannot_hold() {
    let w = world();
    w.fault(json!({"behaviour": 22, "operation": "post"}));
    let status = w.ask("sina", sina("早安")).await;
    let exact: u64 = status["idstr"].as_str().unwrap().parse().unwrap();
    assert!(exact > 1 << 53 && status["id"].as_u64() != Some(exact) && status["mid"] == status["idstr"]);
}

#[tokio::test(start_paused = true)]
async fn row_23_the_text_is_rewritten() {
    let w = world();
    w.fault(json!({"behaviour": 23, "operation": "post"}));
    let status = w.ask("sina", sina(&format!("a<b {LINKED}"))).await;
    let text = status["text"].as_str().unwrap();
    assert!(text.contains("http://t.cn/A6") && text.contains("a&lt;b"), "{text}");
    assert_eq!(w.sandbox.posts()[0].text, format!("a<b {LINKED}"));
}

#[tokio::test(start_paused = true)]
async fn row_24_the_platform_takes_it_down() {
    let w = world();
    w.fault(json!({"behaviour": 24, "operation": "post", "params": {"seconds": 10}}));
    let id = w.ask("sina", sina("早安")).await["idstr"].as_str().unwrap().to_owned();
    let show = || get(&format!("/2/statuses/show.json?id={id}"), "OAuth2 sina-a");
    assert_eq!(w.code("sina", show()).await, 0);
    w.clock.sleep(Duration::from_secs(10)).await;
    assert_eq!((w.code("sina", show()).await, w.live()), (20101, 0));
}

#[tokio::test(start_paused = true)]
async fn row_25_share_wants_a_link_and_no_topic() {
    let w = world();
    let share = |text: &str| post("/2/statuses/share.json", "OAuth2 share-a", &[("status", text)]);
    let bare = w.ask("share", share("早安")).await;
    assert_eq!((&bare["error_code"], &bare["error"]), (&json!(10017), &json!("text not find domain!")));
    assert_eq!(w.code("share", share(&format!("#地铁# {LINKED}"))).await, 10017);
    assert_eq!(w.code("share", share(LINKED)).await, 0);
    let update = post("/2/statuses/update.json", "OAuth2 share-a", &[("status", "早安")]);
    assert_eq!(w.code("share", update).await, 10014);
}

#[tokio::test(start_paused = true)]
async fn row_26_a_publication_takes_its_polls() {
    let w = world();
    let token = w.token().await;
    let draft = w.draft(&token).await;
    w.fault(json!({"behaviour": 26, "operation": "post", "params": {"count": 2}}));
    let ask = |path: &str, body: Value| wechat(&format!("{path}?access_token={token}"), &body);
    let sent = w.ask("wechat", ask("freepublish/submit", json!({"media_id": draft}))).await;
    assert_eq!(w.code("wechat", ask("draft/get", json!({"media_id": draft}))).await, 40007);
    let poll = || ask("freepublish/get", json!({"publish_id": sent["publish_id"]}));
    for status in [1, 1, 0] {
        assert_eq!(w.ask("wechat", poll()).await["publish_status"], status);
    }
    let list = w.ask("wechat", ask("freepublish/batchget", json!({"offset": 0, "count": 5}))).await;
    let id = list["item"][0]["article_id"].clone();
    assert_eq!(list["item"][0]["content"]["news_item"][0]["title"], "停运");
    assert_eq!(w.code("wechat", ask("freepublish/delete", json!({"article_id": id}))).await, 0);
    for n in 1..11 {
        let code = w.code("wechat", ask("freepublish/delete", json!({"article_id": id}))).await;
        assert_eq!(code, if n < 10 { 53600 } else { 45009 });
    }
    w.fault(json!({"behaviour": 26, "operation": "post", "params": {"kind": "admin"}}));
    let mass = json!({"filter": {"is_to_all": true}, "msgtype": "text", "text": {"content": "早安"}});
    let sent = w.ask("wechat", ask("message/mass/sendall", mass.clone())).await;
    let state = || ask("message/mass/get", json!({"msg_id": sent["msg_id"]}));
    assert_eq!(w.ask("wechat", state()).await["msg_status"], "SENDING");
    assert!(w.sandbox.set_standing("wechat:a", "approved", None));
    assert_eq!(w.ask("wechat", state()).await["msg_status"], "SEND_SUCCESS");
}

#[tokio::test(start_paused = true)]
async fn row_27_an_unaudited_app_posts_into_the_void() {
    let w = world();
    w.fault(json!({"behaviour": 27, "operation": "post"}));
    let id = w.ask("sina", sina("早安")).await["idstr"].as_str().unwrap().to_owned();
    assert!(w.sandbox.posts()[0].hidden);
    assert_eq!(w.ask("sina", timeline()).await["total_number"], 1);
    assert_eq!(w.code("sina", get(&format!("/2/statuses/show.json?id={id}"), "OAuth2 sina-b")).await, 20101);
}

#[tokio::test(start_paused = true)]
async fn row_28_one_key_twice_at_a_time() {
    let w = world();
    w.fault(json!({"behaviour": 28, "operation": "post", "params": {"seconds": 2}}));
    let (one, two) = tokio::join!(w.ask("site", toot("早安", "k1")), w.ask("site", toot("早安", "k1")));
    assert!(one["id"] != two["id"] && w.live() == 2);
    let again = w.ask("site", toot("早安", "k1")).await;
    assert!((again["id"] == one["id"] || again["id"] == two["id"]) && w.live() == 2);
    let token = w.token().await;
    let mass = json!({"filter": {"is_to_all": true}, "msgtype": "text", "text": {"content": "早"}, "clientmsgid": "k"});
    let send = || wechat(&format!("message/mass/sendall?access_token={token}"), &mass);
    let first = w.ask("wechat", send()).await;
    assert_eq!(w.code("wechat", send()).await, 45066);
    w.clock.sleep(Duration::from_secs(60)).await;
    let later = w.ask("wechat", send()).await;
    assert_eq!((&later["errcode"], &later["msg_id"], w.live()), (&json!(45065), &first["msg_id"], 3));
}

#[tokio::test(start_paused = true)]
async fn row_29_a_black_listed_address_hears_nothing() {
    let w = world();
    w.fault(json!({"behaviour": 29, "platform": "sina"}));
    assert!(w.clock.timeout(Duration::from_secs(60), w.sandbox.exchange("sina", sina("早安"))).await.is_none());
    assert_eq!((w.live(), w.sandbox.requests()[0].fault), (0, Some(29)));
}
