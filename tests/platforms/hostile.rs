//! A platform that is broken or hostile costs itself only: bombs are bounded, odd ids are not believed, and
//! nothing it echoes of a secret is shown (inputs 73 to 76 of the promises).

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fabu::core::accounts::Account;
use fabu::core::delivery::Failure;
use fabu::core::words::Words;
use fabu::platform::{Call, Http, Lane, Look, Lost};
use fabu::sandbox::FaultRule;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::codes::word;
use crate::world::{TIMEOUT, World, case, cases, text, world};

fn rule(behaviour: &str, params: Value) -> Value {
    json!({"behaviour": behaviour, "operation": "post", "params": params})
}

#[tokio::test(start_paused = true)]
async fn dirt_around_an_answer_is_not_an_error() {
    for case in cases() {
        for kind in ["tail", "bom", "control", "half", "type", "gzip", "string_codes", "bom,control,half,type,tail"] {
            let w = world(&case);
            w.fault(json!({"behaviour": "dirt", "params": {"kind": kind}}));
            let receipt = w.out(&w.post(&text(1))).await;
            assert_eq!((w.live(), &receipt.post_id), (1, &w.sandbox.posts()[0].id), "{} {kind}", case.name);
            let standing = w.platform.check(&w.call()).await;
            assert!(standing.is_ok(), "{} {kind}: {standing:?}", case.name);
            assert_eq!(w.platform.delete(&w.call(), &receipt).await, Ok(()), "{} {kind}", case.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r28_a_bomb_of_an_answer_leaves_doubt_and_nothing_else() {
    for case in cases() {
        for bomb in ["huge_body", "gzip_bomb", "deep_json", "endless_body", "endless_headers", "continue_flood"] {
            let params = if bomb == "gzip_bomb" { json!({"count": 4_000_000}) } else { json!({}) };
            let w = world(&case);
            let (_, sent) = w.under(rule(bomb, params), &w.post(&text(1))).await;
            assert_eq!((word(&sent).as_str(), w.live()), ("unclear", 1), "{} {bomb}", case.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ids_above_what_a_float_holds_are_kept_whole() {
    for case in cases() {
        let w = world(&case);
        w.fault(rule("big_ids", json!({})));
        let receipt = w.out(&w.post(&text(1))).await;
        assert_eq!(receipt.post_id, w.sandbox.posts()[0].id, "{}", case.name);
        w.platform.delete(&w.call(), &receipt).await.unwrap();
        assert_eq!(w.live(), 0, "{}", case.name);
    }
}

#[tokio::test(start_paused = true)]
async fn r08_an_odd_id_is_not_believed_and_the_post_is_found() {
    let odd =
        [json!(null), json!(0), json!(1.5), json!(""), json!("../x"), json!("<script>"), json!("a b"), json!([1])];
    for case in cases() {
        for id in &odd {
            let w = world(&case);
            let prepared = w.prepare(&w.post(&text(1))).await.unwrap();
            w.fault(rule("odd_id", json!({"value": id})));
            let sent = w.publish(&prepared).await;
            w.sandbox.clear();
            assert_eq!((word(&sent).as_str(), w.live()), ("unclear", 1), "{} {id}", case.name);
            w.pass(3).await;
            if case.name != "wechat mass" {
                let looked = w.find(&w.wanted(&prepared)).await.unwrap();
                assert!(matches!(looked, Look::Found(_)), "{} {id}: {looked:?}", case.name);
            }
        }
        // One beyond 64 bits with a sign is as good as any: it is never counted with.
        let w = world(&case);
        let prepared = w.prepare(&w.post(&text(1))).await.unwrap();
        w.fault(rule("odd_id", json!({"value": 9_223_372_036_854_775_808_u64})));
        let receipt = w.publish(&prepared).await.unwrap();
        let id = if receipt.post_id.is_empty() { receipt.ticket.unwrap() } else { receipt.post_id };
        assert!(id.ends_with("9223372036854775808"), "{}: {id}", case.name);
    }
}

#[tokio::test(start_paused = true)]
async fn r29_retry_after_is_bounded_whatever_it_says() {
    for (value, seconds) in [
        (json!("99999999"), 3600),
        (json!("99999999999999999999999"), 600),
        (json!("-5"), 600),
        (json!("0"), 600),
        (json!("soon"), 600),
        (json!("Wed, 21 Oct 2015 07:28:00 GMT"), 600),
        (json!("120"), 120),
    ] {
        let w = world(&case("statuses basic"));
        let prepared = w.prepare(&w.post(&text(1))).await.unwrap();
        let rules = [rule("overload", json!({})), rule("retry_after", json!({"value": value}))];
        w.sandbox.set_faults(rules.map(|r| serde_json::from_value::<FaultRule>(r).unwrap()).to_vec());
        let sent = w.publish(&prepared).await;
        assert_eq!(word(&sent), format!("later {seconds} account"), "{value}");
    }
}

/// Every form a secret of these tests has: alone, in Basic's base64, in a query, in JSON.
fn shows_secret(w: &World, words: &Words, token: Option<&str>) -> bool {
    use base64::Engine as _;
    let line = base64::engine::general_purpose::STANDARD.encode(w.case.secret);
    let forms = ["canary", line.trim_end_matches('='), token.unwrap_or("canary")];
    [&words.zh, &words.en].iter().any(|text| forms.iter().any(|form| text.contains(form)))
}

/// The token that WeChat made of the secret: asked for again, it is the same one.
pub async fn made_token(w: &World) -> Option<String> {
    if w.case.api != "wechat" {
        return None;
    }
    let secret: Value = serde_json::from_str(w.case.secret).unwrap();
    let body = json!({
        "grant_type": "client_credential", "appid": secret["appid"], "secret": secret["secret"], "force_refresh": false,
    });
    let request = Request::post("/cgi-bin/stable_token").body(Bytes::from(body.to_string())).unwrap();
    let answer = w.sandbox.exchange(crate::world::PLATFORM, request).await.unwrap();
    let answer: Value = serde_json::from_slice(answer.body()).unwrap();
    Some(answer["access_token"].as_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn r34_what_a_platform_echoes_of_a_secret_is_masked() {
    for case in cases() {
        let w = world(&case);
        let prepared = w.prepare(&w.post(&text(1))).await.unwrap();
        let token = made_token(&w).await;
        // In an answer that is not understood, and is shown as it came.
        let echo = [rule("echo_token", json!({})), rule("odd_id", json!({})), rule("eaten", json!({}))];
        w.sandbox.set_faults(echo.map(|r| serde_json::from_value::<FaultRule>(r).unwrap()).to_vec());
        let sent = w.publish(&prepared).await;
        let words = sent.unwrap_err().words().clone();
        assert!(!shows_secret(&w, &words, token.as_deref()), "{}: {words:?}", case.name);
        // In the words of a refusal, at their beginning and astride the place where they are cut.
        let values: Vec<String> = match serde_json::from_str::<Value>(case.secret) {
            Ok(Value::Object(map)) => map.values().map(|v| v.as_str().unwrap().to_owned()).collect(),
            _ => vec![case.secret.to_owned()],
        };
        for value in values.iter().chain(&token) {
            for lead in [0, 190, 396] {
                let message = format!("{}{value} is not good", "x".repeat(lead));
                let params = json!({"status": 400, "code": 40035, "errcode": 1, "message": message});
                w.fault(rule("error", params));
                let words = w.publish(&prepared).await.unwrap_err().words().clone();
                assert!(!shows_secret(&w, &words, token.as_deref()), "{} {lead}: {words:?}", case.name);
                assert!(!words.en.contains(&value[..4.min(value.len())]) || lead == 0, "{}: {words:?}", case.name);
            }
        }
    }
}

/// Answers everything with one and the same body.
struct Canned(Value);

#[async_trait]
impl Http for Canned {
    async fn send(&self, _: &str, _: Lane, _: Request<Bytes>, _: Duration) -> Result<Response<Bytes>, Lost> {
        Ok(Response::new(Bytes::from(self.0.to_string())))
    }
}

async fn found_in(w: &World, account: &Account, body: Value) -> Result<Look, Failure> {
    let prepared = fabu::core::delivery::Prepared {
        text: text(1),
        title: None,
        media: Vec::new(),
        attached: Vec::new(),
        key: "k".to_owned(),
        site: None,
        baseline: None,
    };
    let call = Call { http: &Canned(body), timeout: TIMEOUT, ..w.call_as(account) };
    w.find_by(&call, &w.wanted(&prepared)).await
}

#[tokio::test(start_paused = true)]
async fn r08_a_list_that_cannot_be_read_whole_proves_nothing() {
    let news = json!([{"title": "t", "digest": "d", "url": "u"}]);
    type List = fn(Value) -> Value;
    let lists: [(&str, List, Value); 5] = [
        ("weibo update", |item| json!({"statuses": [item]}), json!({"idstr": "5", "text": "别的"})),
        ("tencent-weibo", |item| json!({"ret": 0, "data": {"info": [item]}}), json!({"id": "5", "origtext": "别的"})),
        (
            "wechat freepublish",
            |item| json!({"access_token": "t0k3n-made", "expires_in": 7200, "item": [item]}),
            json!({"article_id": "a5", "content": {"news_item": news}}),
        ),
        ("statuses bearer", |item| json!([item]), json!({"id": 5, "text": "别的"})),
        ("mastodon", |item| json!([item]), json!({"id": "5", "content": "<p>别的</p>"})),
    ];
    for (name, list, item) in lists {
        let w = world(&case(name));
        let mut account = w.account.clone();
        account.uid = Some("7".to_owned());
        let read = found_in(&w, &account, list(item.clone())).await;
        assert!(matches!(read, Ok(Look::Unaccounted(_))), "{name}: {read:?}");
        for odd in [json!(null), json!("../x"), json!(1.5)] {
            let mut spoilt = item.clone();
            for key in ["id", "idstr", "article_id"] {
                if spoilt.get(key).is_some() {
                    spoilt[key] = odd.clone();
                }
            }
            let looked = found_in(&w, &account, list(spoilt)).await;
            assert!(matches!(looked, Err(Failure::Unclear(_))), "{name} {odd}: {looked:?}");
        }
        for nothing in [json!({}), json!({"ret": 0, "errcode": 0}), json!("text"), json!([[]])] {
            let looked = found_in(&w, &account, nothing.clone()).await;
            assert!(
                !matches!(looked, Ok(Look::Absent | Look::Unaccounted(_) | Look::Found(_))),
                "{name} {nothing}: {looked:?}"
            );
        }
    }
}

/// A post as each dialect shows it that names its user, by its text, and where a timeline has it.
fn of_user(api: &str, user: &str, text: &str) -> (Value, Value) {
    let one = match api {
        "weibo" => json!({ "idstr": "9", "text": text, "user": { "idstr": user } }),
        "statuses" => json!({ "id": 9, "text": text, "user": { "id": user } }),
        _ => json!({ "id": "9", "content": text, "account": { "id": user } }),
    };
    let list = if api == "weibo" { json!({ "statuses": [one] }) } else { json!([one]) };
    (one, list)
}

#[tokio::test(start_paused = true)]
async fn r09_a_post_of_another_user_is_not_this_accounts() {
    for name in ["weibo update", "statuses bearer", "mastodon"] {
        let w = world(&case(name));
        let mut account = w.account.clone();
        account.uid = Some("7".to_owned());
        let text = "今晚停水";
        let mut prepared = w.prepare(&w.post(text)).await.unwrap();
        prepared.baseline = None;
        for (user, is_own) in [("7", true), ("999", false)] {
            let (one, list) = of_user(w.case.api, user, text);
            let call = Call { http: &Canned(one), timeout: TIMEOUT, ..w.call_as(&account) };
            let sent = w.platform.publish(&call, &prepared, &[]).await;
            assert_eq!(sent.is_ok(), is_own, "{name}: {sent:?}");
            assert_eq!(matches!(sent, Err(Failure::Astray(_))), !is_own, "{name}: {sent:?}");
            let call = Call { http: &Canned(list), timeout: TIMEOUT, ..w.call_as(&account) };
            let found = w.find_by(&call, &w.wanted(&prepared)).await.unwrap();
            assert_eq!(matches!(found, Look::Found(_)), is_own, "{name}: {found:?}");
            assert_eq!(matches!(found, Look::Unproven(_)), !is_own, "{name}: {found:?}");
        }
        let whose = match w.case.api {
            "weibo" => json!({ "uid": "999", "expire_in": 100 }),
            _ => json!({ "id": "999", "screen_name": "x" }),
        };
        let call = Call { http: &Canned(whose), timeout: TIMEOUT, ..w.call_as(&account) };
        let checked = w.platform.check(&call).await;
        assert!(matches!(checked, Err(Failure::Credential(..))), "{name}: {checked:?}");
    }
}

/// Answers a deletion with this, and a look at the post with the post, or with that there is none.
struct Deletes {
    api: &'static str,
    status: u16,
    said: Value,
    is_there: bool,
}

#[async_trait]
impl Http for Deletes {
    async fn send(&self, _: &str, _: Lane, asked: Request<Bytes>, _: Duration) -> Result<Response<Bytes>, Lost> {
        let (status, body) = match (asked.method() == "GET", self.is_there) {
            (false, _) => (self.status, self.said.clone()),
            (true, true) => (200, of_user(self.api, "7", "今晚停水").0),
            (true, false) if self.api == "weibo" => {
                (400, json!({ "error_code": 20101, "error": "target weibo does not exist!" }))
            }
            (true, false) => (404, json!({ "error": "Record not found" })),
        };
        Ok(Response::builder().status(status).body(Bytes::from(body.to_string())).unwrap())
    }
}

/// A proxy's answer, another post's, or "no such status" of one that is another account's: none of them says that it is gone.
#[tokio::test(start_paused = true)]
async fn r06_only_what_is_gone_is_called_so() {
    for name in ["weibo update", "statuses bearer", "mastodon"] {
        let w = world(&case(name));
        let api = w.case.api;
        let mut receipt = w.out(&w.post("今晚停水")).await;
        receipt.post_id = "9".to_owned();
        let mut said =
            vec![(200, json!({})), (200, json!([])), (200, json!({ "ret": null })), (200, json!({ "result": true }))];
        let mut other = of_user(api, "7", "别的").0;
        for key in ["id", "idstr"] {
            if other.get(key).is_some() {
                other[key] = json!("8");
            }
        }
        said.push((200, other));
        if api != "weibo" {
            said.push((404, json!({ "error": "API method not found." })));
        }
        for (status, said) in said {
            for is_there in [true, false] {
                let http = Deletes { api, status, said: said.clone(), is_there };
                let call = Call { http: &http, timeout: TIMEOUT, ..w.call() };
                let done = w.platform.delete(&call, &receipt).await;
                assert_eq!(done.is_ok(), !is_there, "{name} {status} {said}: {done:?}");
            }
        }
        // One request is enough where the answer names the post.
        let http = Deletes { api, status: 200, said: of_user(api, "7", "今晚停水").0, is_there: true };
        let call = Call { http: &http, timeout: TIMEOUT, ..w.call() };
        assert!(w.platform.delete(&call, &receipt).await.is_ok(), "{name}");
    }
}
