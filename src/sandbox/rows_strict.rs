//! How strict each platform is, and what a hostile one can answer.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};

use super::rows::*;
use super::*;

fn update(pairs: &[(&str, &str)]) -> Request<Bytes> {
    post("/2/statuses/update.json", "OAuth2 sina-a", pairs)
}

#[tokio::test(start_paused = true)]
async fn sina_refuses_what_sina_refuses() {
    let w = world();
    let long = "长".repeat(141);
    let rows = [
        (10020, get("/2/statuses/nothing.json", "OAuth2 sina-a")),
        (10020, get("/nothing", "-")),
        (10021, get("/2/statuses/update.json", "OAuth2 sina-a")),
        (10006, post("/2/statuses/update.json", "-", &[("status", "早安")])),
        (21332, post("/2/statuses/update.json", "OAuth2 nobody", &[("status", "早安")])),
        (10016, update(&[("text", "早安")])),
        (20008, update(&[("status", " ")])),
        (20012, update(&[("status", &long)])),
        (10017, update(&[("status", "早安"), ("rip", "192.168.1.1")])),
        (10017, update(&[("status", "早安"), ("annotations", "no json")])),
        (20121, update(&[("status", "早安"), ("visible", "7")])),
        (10014, post("/2/statuses/update/biz.json", "OAuth2 sina-a", &[("status", "早安")])),
        (20007, post("/2/statuses/upload.json", "OAuth2 sina-a", &[("status", "早安")])),
        (20101, get("/2/statuses/show.json?id=5", "OAuth2 sina-a")),
        (20101, post("/2/statuses/destroy.json", "OAuth2 sina-a", &[("id", "5")])),
        (21335, get("/2/statuses/user_timeline.json?uid=5", "OAuth2 sina-a")),
        (21332, post("/oauth2/get_token_info", "-", &[("access_token", "nobody")])),
    ];
    for (code, request) in rows {
        let what = format!("{} {}", request.method(), request.uri());
        assert_eq!(w.code("sina", request).await, code, "{what}");
    }
    assert_eq!(w.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn sina_shows_five_and_deletes_ones_own() {
    let w = world();
    let mut ids = Vec::new();
    for word in ["早安", "午安", "晚安", "停运", "通车", "放晴", "下雪"] {
        ids.push(w.ask("sina", sina(word)).await["idstr"].as_str().unwrap().to_owned());
    }
    let shown = w.ask("sina", get("/2/statuses/user_timeline.json?count=100", "OAuth2 sina-a")).await;
    assert_eq!((shown["statuses"].as_array().unwrap().len(), shown["total_number"].as_u64()), (5, Some(7)));
    let above = format!("/2/statuses/user_timeline.json?since_id={}", ids[5]);
    assert_eq!(w.ask("sina", get(&above, "OAuth2 sina-a")).await["statuses"].as_array().unwrap().len(), 1);
    let destroy = |token: &str| post("/2/statuses/destroy.json", token, &[("id", &ids[0])]);
    assert_eq!(w.code("sina", destroy("OAuth2 sina-b")).await, 20102);
    assert_eq!(w.code("sina", destroy("OAuth2 sina-a")).await, 0);
    assert_eq!(w.code("sina", destroy("OAuth2 sina-a")).await, 0);
    w.clock.sleep(Duration::from_secs(3)).await;
    assert_eq!(w.code("sina", destroy("OAuth2 sina-a")).await, 20101);
    let info = w.ask("sina", post("/oauth2/get_token_info", "-", &[("access_token", "sina-a")])).await;
    assert_eq!((&info["uid"], &info["appkey"]), (&json!(2_539_961_154_u64), &json!(77)));
    let picture = multipart("/2/statuses/upload_pic.json", "pic", "OAuth2 sina-a");
    let id = w.ask("sina", picture).await["pic_id"].as_str().unwrap().to_owned();
    let with = post("/2/statuses/upload_url_text.json", "OAuth2 sina-a", &[("status", "看图"), ("pic_id", &id)]);
    assert_eq!((w.code("sina", with).await, w.sandbox.posts().last().unwrap().pictures), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn tencent_refuses_what_tencent_refuses() {
    let w = world();
    let hopeless = "长".repeat(600);
    let rows = [
        (306, tencent_get("t/add")),
        (101, tencent("t/add", &[("content", "早安"), ("clientip", "10.0.0.1")])),
        (102, tencent("t/add", &[("content", &hopeless)])),
        (307, post("/api/t/add", "-", &[("oauth_version", "2.a"), ("content", "早安")])),
        (406, tencent("t/del", &[("id", "5")])),
        (103, tencent_get("statuses/broadcast_timeline?reqnum=71")),
    ];
    for (code, request) in rows {
        let what = format!("{} {}", request.method(), request.uri());
        assert_eq!(w.code("tencent", request).await, code, "{what}");
    }
    let made = w.ask("tencent", tencent("t/add", &[("content", "a<b"), ("clientip", "8.8.8.8")])).await;
    let id = made["data"]["id"].as_str().unwrap().to_owned();
    let shown = w.ask("tencent", tencent_get("statuses/broadcast_timeline?reqnum=20")).await;
    let record = &shown["data"]["info"][0];
    assert_eq!(
        (&record["text"], &record["origtext"], &shown["data"]["hasnext"]),
        (&json!("a&lt;b"), &json!("a<b"), &json!(1))
    );
    assert_eq!(w.code("tencent", tencent("t/del", &[("id", &id)])).await, 0);
    assert_eq!(w.code("tencent", tencent("t/del", &[("id", &id)])).await, 420);
}

#[tokio::test(start_paused = true)]
async fn wechat_refuses_what_wechat_refuses() {
    let w = world();
    let ask = |secret: &str| json!({"grant_type": "client_credential", "appid": "wx1", "secret": secret});
    assert_eq!(w.code("wechat", wechat("stable_token", &ask("wrong"))).await, 40125);
    assert_eq!(w.code("wechat", wechat("draft/add", &json!({}))).await, 41001);
    assert_eq!(w.code("wechat", wechat("draft/add?access_token=no", &json!({}))).await, 40001);
    let token = w.token().await;
    assert_eq!(token, w.token().await);
    let add = |article: Value| wechat(&format!("draft/add?access_token={token}"), &json!({"articles": [article]}));
    let title = "长".repeat(33);
    assert_eq!(w.code("wechat", add(json!({"title": title, "content": "x", "thumb_media_id": "x"}))).await, 45003);
    assert_eq!(w.code("wechat", add(json!({"title": "停运", "content": "x", "thumb_media_id": "x"}))).await, 40007);
    let passing = multipart(&format!("/cgi-bin/media/upload?type=image&access_token={token}"), "media", "-");
    let id = w.ask("wechat", passing).await["media_id"].clone();
    assert_eq!(w.code("wechat", add(json!({"title": "停运", "content": "x", "thumb_media_id": id}))).await, 40007);
    let cover = multipart(&format!("/cgi-bin/material/add_material?type=image&access_token={token}"), "media", "-");
    let id = w.ask("wechat", cover).await["media_id"].as_str().unwrap().to_owned();
    let escaped = format!(r#"{{"articles":[{{"title":"\u505c","content":"x","thumb_media_id":"{id}"}}]}}"#);
    let request = Request::post(format!("/cgi-bin/draft/add?access_token={token}")).body(escaped.into()).unwrap();
    let draft = w.ask("wechat", request).await["media_id"].clone();
    let kept = w.ask("wechat", wechat(&format!("draft/get?access_token={token}"), &json!({"media_id": draft}))).await;
    assert_eq!(kept["news_item"][0]["title"], r"\u505c");
}

#[tokio::test(start_paused = true)]
async fn the_statuses_dialect_has_its_manners() {
    let w = world();
    let plain =
        w.sandbox.exchange("eastday", post("/api/statuses/update.json", "-", &[("status", "早")])).await.unwrap();
    assert_eq!(
        (plain.status().as_u16(), &plain.headers()["www-authenticate"]),
        (401, &"Basic realm=\"eastday API\"".parse().unwrap())
    );
    let long = w.sandbox.exchange("eastday", east(&"长".repeat(141))).await.unwrap();
    assert_eq!((long.status().as_u16(), body(&long)["error"].as_str().unwrap().contains("140")), (413, true));
    let made = w.ask("eastday", east(" 看 &amp;lt; ")).await;
    assert_eq!(made["text"], "看 &lt;");
    let picture = multipart("/api/statuses/update.json", "media", EAST);
    // This site counts as Sina does, and keeps its pictures apart from the text.
    assert!(!w.ask("eastday", picture).await["text"].as_str().unwrap().contains("http://"));
    let id = made["id"].as_u64().unwrap();
    let gone = |method: Method| {
        let request = Request::builder().method(method).uri(format!("/api/statuses/destroy/{id}.json"));
        request.header("authorization", EAST).body(Bytes::new()).unwrap()
    };
    assert_eq!(w.sandbox.exchange("eastday", gone(Method::POST)).await.unwrap().status(), 200);
    assert_eq!(w.sandbox.exchange("eastday", gone(Method::DELETE)).await.unwrap().status(), 404);
    let config = w.ask("eastday", get("/api/gnusocial/config.json", "-")).await;
    assert_eq!(config["site"]["textlimit"], 140);
    let timeline = w.ask("eastday", get("/api/statuses/user_timeline.json", EAST)).await;
    assert_eq!(timeline.as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn mastodon_takes_its_time_with_pictures() {
    let mut slow = setup();
    slow.platforms[5].settings = json!({"work_seconds": 20});
    let w = world_of(slow);
    let status = async |request| w.sandbox.exchange("site", request).await.unwrap().status().as_u16();
    assert_eq!(status(post("/api/v1/statuses", "Bearer nobody", &[("status", "早")])).await, 401);
    assert_eq!(status(toot(&"长".repeat(501), "k")).await, 422);
    let taken = w.sandbox.exchange("site", multipart("/api/v2/media", "file", "Bearer bear-a")).await.unwrap();
    let id = body(&taken)["id"].as_str().unwrap().to_owned();
    let look = || get(&format!("/api/v1/media/{id}"), "Bearer bear-a");
    let with = || post("/api/v1/statuses", "Bearer bear-a", &[("status", LINKED), ("media_ids[]", &id)]);
    assert_eq!((taken.status().as_u16(), status(look()).await, status(with()).await), (202, 206, 422));
    w.clock.sleep(Duration::from_secs(20)).await;
    assert_eq!(status(look()).await, 200);
    let made = w.ask("site", with()).await;
    assert!(made["content"].as_str().unwrap().starts_with("<p>今晚") && made["id"].is_string());
    let source = get(&format!("/api/v1/statuses/{}/source", made["id"].as_str().unwrap()), "Bearer bear-a");
    assert_eq!(w.ask("site", source).await["text"], LINKED);
    let me = w.ask("site", get("/api/v1/accounts/verify_credentials", "Bearer bear-a")).await;
    let own = format!("/api/v1/accounts/{}/statuses?limit=40", me["id"].as_str().unwrap());
    assert_eq!(w.ask("site", get(&own, "Bearer bear-a")).await[0]["id"], made["id"]);
}

/// An account that signs, at the time of the platforms page's signatures.
fn signed() -> super::rows::World {
    let mut signed = setup();
    signed.accounts[5].secret = r#"{"ck":"ck1","cs":"cs1","tk":"tk1","ts":"ts1"}"#.to_owned();
    let clock = Clock::simulated(crate::clock::from_micros(1_700_000_000_000_000), 1);
    super::rows::World { sandbox: Sandbox::new(signed, clock.clone()), clock }
}

#[tokio::test(start_paused = true)]
async fn a_signature_is_good_once_and_near_its_time() {
    let w = signed();
    let header = "OAuth oauth_consumer_key=\"ck1\", oauth_token=\"tk1\", oauth_signature_method=\"HMAC-SHA1\", \
                  oauth_timestamp=\"1700000000\", oauth_nonce=\"n1\", oauth_version=\"1.0\", \
                  oauth_signature=\"aBLY0gHJvFQH6pK%2B4bDPYiN3QMs%3D\"";
    let request = |text: &str| {
        let url = "https://t.example.cn/api/statuses/update.json";
        post(url, header, &[("status", text), ("source", "fabu")])
    };
    let status = async |text: &str| w.sandbox.exchange("eastday", request(text)).await.unwrap().status().as_u16();
    assert_eq!(status("另一条").await, 401);
    assert_eq!(status("早安，上海！ 1+1").await, 200);
    assert_eq!(status("早安，上海！ 1+1").await, 401);
    w.clock.sleep(Duration::from_secs(301)).await;
    assert_eq!(w.ask("eastday", request("早安，上海！ 1+1")).await["error"], "Timestamp refused");
}

/// RFC 5849 knows three places for the parameters of a signature, and a POST may carry its text in its address.
#[tokio::test(start_paused = true)]
async fn a_signature_may_stand_in_the_form_or_the_query() {
    let w = signed();
    let url = "https://t.example.cn/api/statuses/update.json";
    let parameters = |nonce: &str, text: &str| {
        let pairs = [
            ("status", text),
            ("oauth_consumer_key", "ck1"),
            ("oauth_token", "tk1"),
            ("oauth_signature_method", "HMAC-SHA1"),
            ("oauth_timestamp", "1700000000"),
            ("oauth_nonce", nonce),
            ("oauth_version", "1.0"),
        ];
        let mut pairs: Vec<(String, String)> = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let signature = super::statuses_auth::sign("POST", url, pairs.clone(), "cs1", "ts1");
        pairs.push(("oauth_signature".to_owned(), signature));
        form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    };
    let in_form = |nonce: &str, text: &str| {
        let kind = "application/x-www-form-urlencoded";
        Request::post(url).header("content-type", kind).body(Bytes::from(parameters(nonce, text))).unwrap()
    };
    let in_query = Request::post(format!("{url}?{}", parameters("n2", "晚安"))).body(Bytes::new()).unwrap();
    let status = async |request| w.sandbox.exchange("eastday", request).await.unwrap().status().as_u16();
    assert_eq!(status(in_form("n1", "早安")).await, 200);
    assert_eq!(status(in_form("n1", "早安")).await, 401, "its nonce was used");
    assert_eq!(status(in_query).await, 200);
    let altered = parameters("n3", "早安").replace("status=", "status=x");
    let altered = Request::post(format!("{url}?{altered}")).body(Bytes::new()).unwrap();
    assert_eq!((status(altered).await, w.live()), (401, 2));
}

#[tokio::test(start_paused = true)]
async fn gnu_social_breaks_where_it_breaks() {
    let mut itself = setup();
    let at = itself.platforms.iter().position(|platform| platform.name == "eastday").unwrap();
    itself.platforms[at].settings["dialect"] = json!("gnusocial");
    let w = world_of(itself);
    let status = async |request| w.sandbox.exchange("eastday", request).await.unwrap().status().as_u16();
    assert_eq!(status(multipart("/api/media/upload.json", "media", EAST)).await, 500);
    assert_eq!(status(multipart("/api/statuses/update.json", "media", EAST)).await, 200);
    assert_eq!((status(east("rt #1")).await, status(east("list 早安")).await, w.live()), (500, 200, 2));
    let eaten = w.ask("eastday", east("fav #1")).await;
    assert_eq!((eaten["text"].as_str(), w.live()), (Some("list 早安"), 2));
    let id = eaten["id"].as_u64().unwrap();
    assert_eq!(status(post(&format!("/api/statuses/destroy/{id}.json"), EAST, &[("id", "")])).await, 200);
    let timeline = w.ask("eastday", get("/api/statuses/user_timeline.json", EAST)).await;
    let newest = timeline[0]["text"].as_str().unwrap().to_owned();
    assert!(newest.contains("deleted notice {{tag:eastday.example,2"), "{newest}");
}

/// The draft box is a list, and the library keeps what was sent to all.
#[tokio::test(start_paused = true)]
async fn wechat_lists_its_drafts_and_keeps_its_library() {
    let w = world();
    let token = w.token().await;
    let ask =
        async |path: &str, body: Value| w.ask("wechat", wechat(&format!("{path}?access_token={token}"), &body)).await;
    let cover = multipart(&format!("/cgi-bin/material/add_material?type=image&access_token={token}"), "media", "-");
    let cover = w.ask("wechat", cover).await["media_id"].clone();
    let article = |title: &str| json!({"articles": [{"title": title, "content": "x", "thumb_media_id": cover}]});
    let mut made = Vec::new();
    for title in ["停运", "通车"] {
        made.push(ask("draft/add", article(title)).await["media_id"].clone());
        w.clock.sleep(Duration::from_secs(1)).await;
    }
    let kept = ask("material/add_news", article("入库")).await["media_id"].clone();
    let all = ask("draft/batchget", json!({"offset": 0, "count": 20, "no_content": 1})).await;
    assert_eq!((&all["total_count"], &all["item"][0]["media_id"]), (&json!(2), &made[1]));
    let item = &all["item"][1]["content"]["news_item"][0];
    assert_eq!((&item["title"], &item["content"]), (&json!("停运"), &Value::Null));
    let one = ask("draft/batchget", json!({"offset": 1, "count": 1})).await;
    assert_eq!((&one["item_count"], &one["item"][0]["content"]["news_item"][0]["content"]), (&json!(1), &json!("x")));
    assert_eq!(ask("draft/batchget", json!({"offset": 0, "count": 21})).await["errcode"], 40035);
    assert_eq!(ask("freepublish/submit", json!({"media_id": kept})).await["errcode"], 40007);
    let to_all = |id: &Value| json!({"filter": {"is_to_all": true}, "msgtype": "mpnews", "mpnews": {"media_id": id}});
    assert_eq!((&ask("message/mass/sendall", to_all(&kept)).await["errcode"], w.live()), (&json!(0), 1));
    assert_eq!(ask("draft/count", json!({})).await["total_count"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_picture_keeps_its_description_and_may_stand_elsewhere() {
    let w = world_of(setup());
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (head, bytes) = multipart("/api/v2/media", "file", "Bearer bear-a").into_parts();
        let mut raw = b"--b\r\nContent-Disposition: form-data; name=\"description\"\r\n\r\n".to_vec();
        raw.extend_from_slice(format!("图{}\r\n", ids.len() + 1).as_bytes());
        raw.extend_from_slice(&bytes);
        let taken = w.ask("site", Request::from_parts(head, Bytes::from(raw))).await;
        ids.push(taken["id"].as_str().unwrap().to_owned());
    }
    let with = |text: &str| {
        let pairs = [("status", text), ("media_ids[]", ids[0].as_str()), ("media_ids[]", ids[1].as_str())];
        post("/api/v1/statuses", "Bearer bear-a", &pairs)
    };
    let shown = |made: &Value| {
        let all = made["media_attachments"].as_array().unwrap();
        all.iter().map(|media| media["description"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&w.ask("site", with("看图")).await), ["图1", "图2"]);
    w.fault(json!({"behaviour": "rewritten", "operation": "post", "params": {"kind": "pictures"}}));
    assert_eq!(shown(&w.ask("site", with("再看")).await), ["图2", "图1"]);
}

#[tokio::test(start_paused = true)]
async fn hostile_answers_are_hostile() {
    let w = world();
    let answer = async |rule: Value, text: &str| {
        w.fault(rule);
        w.sandbox.exchange("sina", sina(text)).await
    };
    let huge = answer(json!({"behaviour": "huge_body"}), "一").await.unwrap();
    assert!(huge.body().len() > 2 * 1024 * 1024);
    let bomb = answer(json!({"behaviour": "gzip_bomb", "params": {"count": 4_000_000}}), "二").await.unwrap();
    assert!(bomb.body().len() < 100_000 && bomb.headers()["content-encoding"] == "gzip");
    for (text, odd) in [("三", json!(0)), ("四", json!(1.5)), ("五", json!("../x")), ("六", json!("<script>"))] {
        let odd_id = answer(json!({"behaviour": "odd_id", "params": {"value": odd}}), text).await.unwrap();
        assert_eq!(body(&odd_id)["idstr"], odd);
    }
    let missing = answer(json!({"behaviour": "odd_id"}), "七").await.unwrap();
    assert!(body(&missing).get("id").is_none());
    let deep = answer(json!({"behaviour": "deep_json"}), "八").await.unwrap();
    assert!(deep.body().starts_with(b"[[[[["));
    let echo = answer(json!({"behaviour": "echo_token"}), "九").await.unwrap();
    assert_eq!(echo.headers()["x-echo"], "OAuth2 sina-a");
    let late = answer(json!({"behaviour": "retry_after", "params": {"value": -5}}), "十").await.unwrap();
    assert_eq!(late.headers()["retry-after"], "-5");
    assert_eq!(answer(json!({"behaviour": "wrong_reply"}), "百").await.unwrap().status(), 204);
    assert_eq!(answer(json!({"behaviour": "http09"}), "千").await.err(), Some(Cut::AfterSend));
    assert_eq!(w.live(), 12);
}

#[tokio::test(start_paused = true)]
async fn a_seed_repeats_a_run() {
    let run = async || {
        let w = world();
        w.sandbox.set_latency("20ms~heavy".parse().unwrap());
        w.fault(json!({"behaviour": "reset_after", "probability": 0.5, "seed": 3}));
        for text in ["一", "二", "三", "四", "五", "六"] {
            drop(w.sandbox.exchange("sina", sina(text)).await);
        }
        let seen = w.sandbox.requests();
        (w.clock.mono(), seen.iter().map(|s| (s.first_ns, s.fault)).collect::<Vec<_>>())
    };
    let (one, two) = (run().await, run().await);
    assert_eq!(one.1.iter().map(|s| s.1).collect::<Vec<_>>(), two.1.iter().map(|s| s.1).collect::<Vec<_>>());
    assert_eq!(one.0, two.0);
}
