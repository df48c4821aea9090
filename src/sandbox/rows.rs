//! The rows of the platforms page, one test each, at the level of requests and answers.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use super::*;
use crate::clock::from_micros;

pub(super) const LINKED: &str = "今晚地铁九号线停运 https://www.shanghai.gov.cn/a?a=1";

pub(super) fn setup() -> Setup {
    let platform =
        |name: &str, api: &str, settings: Value| PlatformSetup { name: name.to_owned(), api: api.to_owned(), settings };
    let account = |platform: &str, unit: &str, secret: &str| AccountSetup {
        platform: platform.to_owned(),
        unit: unit.to_owned(),
        name: "上海发布".to_owned(),
        handle: "shanghaifabu".to_owned(),
        uid: (platform == "sina" && unit == "a").then(|| "2539961154".to_owned()),
        secret: secret.to_owned(),
    };
    Setup {
        platforms: vec![
            platform("sina", "weibo", json!({"app_key": "77", "link_domain": "shanghai.gov.cn"})),
            platform("share", "weibo", json!({"mode": "share", "link_domain": "shanghai.gov.cn"})),
            platform("tencent", "tencent-weibo", json!({})),
            platform("wechat", "wechat", json!({})),
            platform("eastday", "statuses", json!({})),
            platform("site", "mastodon", json!({})),
        ],
        accounts: vec![
            account("sina", "a", "sina-a"),
            account("sina", "b", "sina-b"),
            account("share", "a", "share-a"),
            account("tencent", "a", r#"{"access_token":"tx-a","app_key":"801","openid":"OID"}"#),
            account("wechat", "a", r#"{"appid":"wx1","secret":"s1"}"#),
            account("eastday", "a", "east:pass"),
            account("site", "a", "bear-a"),
        ],
        seed: 7,
        limits: true,
        ..Setup::default()
    }
}

pub(super) struct World {
    pub sandbox: Sandbox,
    pub clock: Clock,
}

pub(super) fn world() -> World {
    world_of(setup())
}

pub(super) fn world_of(setup: Setup) -> World {
    let clock = Clock::simulated(from_micros(1_790_000_000_000_000), 1);
    World { sandbox: Sandbox::new(setup, clock.clone()), clock }
}

pub(super) fn form(pairs: &[(&str, &str)]) -> Bytes {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish().into()
}

pub(super) fn post(path: &str, authorization: &str, pairs: &[(&str, &str)]) -> Request<Bytes> {
    Request::post(path)
        .header("host", "h.example")
        .header("authorization", authorization)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form(pairs))
        .unwrap()
}

pub(super) fn get(path: &str, authorization: &str) -> Request<Bytes> {
    Request::get(path).header("authorization", authorization).body(Bytes::new()).unwrap()
}

pub(super) fn sina(text: &str) -> Request<Bytes> {
    post("/2/statuses/update.json", "OAuth2 sina-a", &[("status", text)])
}

/// Texts that no filter finds alike.
fn unlike(n: u32) -> String {
    (0..12).filter_map(|at| char::from_u32(0x4E00 + n * 12 + at)).collect()
}

pub(super) fn timeline() -> Request<Bytes> {
    get("/2/statuses/user_timeline.json", "OAuth2 sina-a")
}

const TX: [(&str, &str); 5] = [
    ("oauth_consumer_key", "801"),
    ("access_token", "tx-a"),
    ("openid", "OID"),
    ("oauth_version", "2.a"),
    ("format", "json"),
];

pub(super) fn tencent(path: &str, more: &[(&str, &str)]) -> Request<Bytes> {
    let all: Vec<_> = TX.iter().chain(more).copied().collect();
    post(&format!("/api/{path}"), "-", &all)
}

pub(super) fn tencent_get(path: &str) -> Request<Bytes> {
    let query = String::from_utf8(form(&TX).to_vec()).unwrap();
    get(&format!("/api/{path}{}{query}", if path.contains('?') { "&" } else { "?" }), "-")
}

pub(super) fn wechat(path: &str, body: &Value) -> Request<Bytes> {
    Request::post(format!("/cgi-bin/{path}"))
        .header("content-type", "application/json")
        .body(body.to_string().into())
        .unwrap()
}

/// `east:pass` in Basic.
pub(super) const EAST: &str = "Basic ZWFzdDpwYXNz";

pub(super) fn east(text: &str) -> Request<Bytes> {
    post("/api/statuses/update.json", EAST, &[("status", text)])
}

pub(super) fn toot(text: &str, key: &str) -> Request<Bytes> {
    let mut request = post("/api/v1/statuses", "Bearer bear-a", &[("status", text)]);
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    request
}

pub(super) fn body(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap_or(Value::Null)
}

impl World {
    pub async fn ask(&self, platform: &str, request: Request<Bytes>) -> Value {
        body(&self.sandbox.exchange(platform, request).await.unwrap())
    }

    pub async fn code(&self, platform: &str, request: Request<Bytes>) -> i64 {
        let body = self.ask(platform, request).await;
        let code = ["error_code", "errcode"].iter().find_map(|name| body.get(*name).and_then(Value::as_i64));
        match (body.get("ret").and_then(Value::as_i64), code) {
            (Some(ret), Some(code)) => ret * 100 + code,
            (_, code) => code.unwrap_or(0),
        }
    }

    pub fn fault(&self, rule: Value) {
        self.sandbox.set_faults(vec![serde_json::from_value(rule).unwrap()]);
    }

    pub fn live(&self) -> usize {
        self.sandbox.posts().iter().filter(|post| !post.deleted).count()
    }

    pub async fn token(&self) -> String {
        let ask = json!({"grant_type": "client_credential", "appid": "wx1", "secret": "s1"});
        self.ask("wechat", wechat("stable_token", &ask)).await["access_token"].as_str().unwrap().to_owned()
    }

    pub async fn draft(&self, token: &str) -> String {
        let picture =
            multipart(&format!("/cgi-bin/material/add_material?type=image&access_token={token}"), "media", "-");
        let cover = self.ask("wechat", picture).await["media_id"].as_str().unwrap().to_owned();
        let article = json!({"articles": [{"title": "停运", "content": "<p>今晚停运</p>", "thumb_media_id": cover}]});
        let made = self.ask("wechat", wechat(&format!("draft/add?access_token={token}"), &article)).await;
        made["media_id"].as_str().unwrap().to_owned()
    }
}

pub(super) fn multipart(path: &str, field: &str, authorization: &str) -> Request<Bytes> {
    let mut bytes = format!(
        "--b\r\nContent-Disposition: form-data; name=\"status\"\r\n\r\n{LINKED}\r\n--b\r\nContent-Disposition: \
         form-data; name=\"{field}\"; filename=\"a.png\"\r\n\r\n"
    )
    .into_bytes();
    bytes.extend_from_slice(b"\x89PNG\r\n\x1A\n....\r\n--b--\r\n");
    Request::post(path)
        .header("authorization", authorization)
        .header("content-type", "multipart/form-data; boundary=b")
        .body(bytes.into())
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn row_01_a_post_takes_its_time_and_is_shown() {
    let w = world();
    w.fault(json!({"behaviour": 1, "operation": "post", "params": {"latency": "3s"}}));
    let status = w.ask("sina", sina("早安")).await;
    assert_eq!(w.clock.mono().0, Duration::from_secs(3));
    assert_eq!((status["text"].as_str(), status["user"]["idstr"].as_str()), (Some("早安"), Some("2539961154")));
    assert_eq!(w.ask("sina", timeline()).await["statuses"][0]["idstr"], status["idstr"]);
    let seen = w.sandbox.requests();
    assert_eq!((seen[0].op, seen[0].outcome.as_str(), seen[0].fault), ("post", "ok", Some(1)));
    assert_eq!(seen[0].account.as_deref(), Some("sina:a"));
}

#[tokio::test(start_paused = true)]
async fn row_02_an_error_in_an_answer_of_200() {
    let w = world();
    w.fault(json!({"behaviour": 2, "operation": "post"}));
    let response = w.sandbox.exchange("sina", sina("早安")).await.unwrap();
    assert_eq!((response.status().as_u16(), body(&response)["error_code"].as_i64()), (200, Some(20021)));
    assert_eq!(w.code("tencent", tencent("t/add", &[("content", "早安")])).await, 404);
    assert_eq!(w.live(), 0);
}

#[tokio::test(start_paused = true)]
async fn row_03_a_proxys_page_with_and_without_the_post() {
    let w = world();
    w.fault(json!({"behaviour": "proxy_page"}));
    let response = w.sandbox.exchange("sina", sina("早安")).await.unwrap();
    assert_eq!((response.status().as_u16(), w.live()), (502, 0));
    w.fault(json!({"behaviour": "proxy_page", "params": {"status": 200, "executes": true}}));
    let response = w.sandbox.exchange("sina", sina("早安")).await.unwrap();
    assert_eq!((response.headers()["content-type"].to_str().unwrap(), w.live()), ("text/html", 1));
}

#[tokio::test(start_paused = true)]
async fn rows_04_to_06_the_connection_breaks_after_or_before_the_post() {
    let w = world();
    for (n, behaviour) in ["cut_body", "reset_after", "reset_before"].into_iter().enumerate() {
        w.fault(json!({"behaviour": behaviour, "operation": "post"}));
        let end = w.sandbox.exchange("sina", sina(&format!("{n}早安"))).await;
        assert_eq!((end.err(), w.live()), (Some(Cut::AfterSend), [1, 2, 2][n]), "{behaviour}");
    }
}

#[tokio::test(start_paused = true)]
async fn row_07_a_black_hole_posts_after_the_client_has_gone() {
    let w = world();
    w.fault(json!({"behaviour": 7, "operation": "post", "params": {"seconds": 40}}));
    let gone = w.clock.timeout(Duration::from_secs(10), w.sandbox.exchange("sina", sina("早安"))).await;
    assert!(gone.is_none() && w.live() == 0);
    w.clock.sleep(Duration::from_secs(31)).await;
    assert_eq!(w.live(), 1);
}

#[tokio::test(start_paused = true)]
async fn row_08_a_post_that_shows_up_later() {
    let w = world();
    w.fault(json!({"behaviour": 8, "operation": "post", "params": {"seconds": 90}}));
    assert_eq!(w.code("sina", sina("早安")).await, 20032);
    assert_eq!(w.ask("sina", timeline()).await["statuses"], json!([]));
    w.clock.sleep(Duration::from_secs(90)).await;
    assert_eq!(w.ask("sina", timeline()).await["statuses"][0]["text"], "早安");
}

#[tokio::test(start_paused = true)]
async fn row_09_the_last_text_may_not_be_said_again() {
    let w = world();
    let long = "今晚二十二时起地铁九号线停运请市民绕行感谢理解与支持";
    assert_eq!(w.code("sina", sina(long)).await, 0);
    assert_eq!(w.code("sina", sina(long)).await, 20019);
    assert_eq!(w.code("sina", sina(&format!("{long}！"))).await, 20017);
    assert_eq!(w.code("tencent", tencent("t/add", &[("content", long)])).await, 0);
    assert_eq!(w.code("tencent", tencent("t/add", &[("content", long)])).await, 413);
    assert!(w.ask("eastday", east("早安")).await["id"].is_u64());
    assert!(w.ask("eastday", east("早安")).await["error"].as_str().unwrap().contains("duplicate"));
    w.clock.sleep(Duration::from_secs(61)).await;
    assert!(w.ask("eastday", east("早安")).await["id"].is_u64());
}

#[tokio::test(start_paused = true)]
async fn row_10_limits_are_kept_and_told() {
    let w = world();
    for n in 0..30 {
        assert_eq!(w.code("sina", sina(&unlike(n))).await, 0);
    }
    assert_eq!(w.code("sina", sina("第三十一条")).await, 10024);
    let left = w.ask("sina", get("/2/account/rate_limit_status.json", "OAuth2 sina-a")).await;
    assert_eq!((left["remaining_user_hits"].as_i64(), left["user_limit"].as_i64()), (Some(69), Some(100)));
    assert_eq!((left["remaining_ip_hits"].as_i64(), left["ip_limit"].as_i64()), (Some(14969), Some(15000)));
    for _ in 0..69 {
        w.ask("sina", timeline()).await;
    }
    assert_eq!(w.code("sina", timeline()).await, 10023);
    assert_eq!(w.code("tencent", tencent("t/add", &[("content", "一")])).await, 0);
    assert_eq!(w.code("tencent", tencent("t/add", &[("content", "二")])).await, 410);
    let mut last = None;
    for _ in 0..301 {
        let check = get("/api/v1/accounts/verify_credentials", "Bearer bear-a");
        last = Some(w.sandbox.exchange("site", check).await.unwrap());
    }
    let last = last.unwrap();
    assert_eq!((last.status().as_u16(), last.headers()["x-ratelimit-remaining"].to_str().unwrap()), (429, "0"));
    let off = world_of(Setup { limits: false, ..setup() });
    for n in 0..130 {
        assert_eq!(off.code("sina", sina(&unlike(n))).await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn row_11_tokens_die_in_mid_run() {
    let w = world();
    w.fault(json!({"behaviour": 11, "account": "sina:a", "nth": 2}));
    assert_eq!(w.code("sina", timeline()).await, 0);
    assert_eq!((w.code("sina", timeline()).await, w.code("sina", timeline()).await), (21327, 21327));
    assert!(w.sandbox.set_standing("tencent:a", "revoked", None));
    assert_eq!(w.code("tencent", tencent_get("user/info")).await, 301);
    let old = w.token().await;
    let count = |token: &str| wechat(&format!("draft/count?access_token={token}"), &json!({}));
    assert_eq!(w.code("wechat", count(&old)).await, 0);
    assert!(w.sandbox.set_standing("wechat:a", "replaced", None));
    assert_eq!(w.code("wechat", count(&old)).await, 40001);
    let new = w.token().await;
    assert_eq!((old == new, w.code("wechat", count(&new)).await), (false, 0));
    w.clock.sleep(Duration::from_secs(7200)).await;
    assert_eq!(w.code("wechat", count(&new)).await, 42001);
    assert!(w.sandbox.set_standing("site:a", "expired", Some(5.0)));
    let check = || get("/api/v1/accounts/verify_credentials", "Bearer bear-a");
    assert_eq!(w.sandbox.exchange("site", check()).await.unwrap().status(), 200);
    w.clock.sleep(Duration::from_secs(5)).await;
    assert_eq!(w.sandbox.exchange("site", check()).await.unwrap().status(), 401);
}

#[tokio::test(start_paused = true)]
async fn row_12_a_captcha_until_a_person_passes_it() {
    let w = world();
    w.fault(json!({"behaviour": 12, "nth": 1}));
    assert_eq!((w.code("sina", sina("早安")).await, w.code("sina", sina("早安")).await), (20031, 20031));
    assert!(w.sandbox.set_standing("sina:a", "passed", None));
    assert_eq!(w.code("sina", sina("早安")).await, 0);
}

#[tokio::test(start_paused = true)]
async fn row_13_review_first() {
    let w = world();
    w.fault(json!({"behaviour": 13, "operation": "post", "params": {"seconds": 60, "kind": "removed"}}));
    let made = w.ask("tencent", tencent("t/add", &[("content", "早安")])).await;
    let show = || tencent_get(&format!("t/show?id={}", made["data"]["id"].as_str().unwrap()));
    assert_eq!(w.ask("tencent", show()).await["data"]["status"], 2);
    w.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(w.ask("tencent", show()).await["data"]["status"], 1);
    w.fault(json!({"behaviour": 13, "operation": "post", "params": {"seconds": 60}}));
    let id = w.ask("sina", sina("早安")).await["idstr"].as_str().unwrap().to_owned();
    let other = || get(&format!("/2/statuses/show.json?id={id}"), "OAuth2 sina-b");
    assert_eq!(w.code("sina", other()).await, 20101);
    w.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(w.code("sina", other()).await, 0);
}

#[tokio::test(start_paused = true)]
async fn row_14_a_silent_cut_and_a_lost_picture() {
    let w = world();
    let long = "长".repeat(200);
    let strict = w.code("tencent", tencent("t/add", &[("content", &long), ("compatibleflag", "32")])).await;
    assert_eq!((strict, w.live()), (408, 0));
    assert_eq!(w.code("tencent", tencent("t/add", &[("content", &long)])).await, 0);
    let shown = w.ask("tencent", tencent_get("statuses/broadcast_timeline?reqnum=20")).await;
    assert_eq!(shown["data"]["info"][0]["origtext"].as_str().unwrap().chars().count(), 140);
    w.fault(json!({"behaviour": 14, "operation": "post", "params": {"kind": "picture"}}));
    let made = w.ask("sina", multipart("/2/statuses/upload.json", "pic", "OAuth2 sina-a")).await;
    assert!(made["idstr"].is_string() && made.get("original_pic").is_none());
}

#[tokio::test(start_paused = true)]
async fn row_15_a_command_word_is_eaten() {
    let w = world();
    let first = w.ask("eastday", east("早安")).await;
    assert_eq!(w.ask("eastday", east("Stats")).await["id"], first["id"]);
    assert_eq!(w.ask("eastday", east("follow shanghai")).await["id"], first["id"]);
    assert_eq!(w.live(), 1);
    assert!(w.ask("eastday", east("follow the news")).await["id"] != first["id"]);
}
