//! A platform's adapter over the sandbox's imitation of it, in one process and on simulated time.
//!
//! The two share no code, so what they agree on is what the platforms' own pages say. Whether something
//! was posted is judged by the sandbox's `posts`, never by what the adapter believes.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::TimeDelta;
use fabu::clock::{Clock, from_micros};
use fabu::core::accounts::{Account, AccountId, PlatformName, Secret, Status};
use fabu::core::delivery::{Failure, Prepared, Receipt};
use fabu::core::policy::{Limits, PlatformSettings, ReadBack, Warm};
use fabu::platform::reading::{Purse, read_back};
use fabu::platform::{self, Call, Http, Lane, Look, Lost, Picture, Platform, Post, Wanted};
use fabu::sandbox::{AccountSetup, Cut, FaultRule, PlatformSetup, Sandbox, Setup};
use http::{Request, Response};
use serde_json::{Value, json};

pub const TIMEOUT: Duration = Duration::from_secs(15);
const MOST_ANSWER: u64 = 1 << 20;

/// As many calls as a reading wants.
struct Endless;

#[async_trait]
impl Purse for Endless {
    async fn another(&self) -> bool {
        true
    }
}

/// The sandbox as `Http`, bounded and decompressed as the real one is.
pub struct InProcess {
    sandbox: Sandbox,
    clock: Clock,
}

#[async_trait]
impl Http for InProcess {
    async fn send(
        &self,
        platform: &str,
        _: Lane,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Lost> {
        let answer = match self.clock.timeout(timeout, self.sandbox.exchange(platform, request)).await {
            None => return Err(Lost::AfterSend("no whole answer in time".to_owned())),
            Some(Err(Cut::BeforeSend)) => return Err(Lost::BeforeSend("refused".to_owned())),
            Some(Err(Cut::AfterSend)) => return Err(Lost::AfterSend("connection reset".to_owned())),
            Some(Ok(answer)) => answer,
        };
        let (head, body) = answer.into_parts();
        let body = match head.headers.get("content-encoding") {
            None => body,
            Some(_) => {
                let mut plain = Vec::new();
                let read = flate2::read::GzDecoder::new(&body[..]).take(MOST_ANSWER + 1).read_to_end(&mut plain);
                read.map_err(|error| Lost::AfterSend(error.to_string()))?;
                Bytes::from(plain)
            }
        };
        if body.len() as u64 > MOST_ANSWER {
            return Err(Lost::AfterSend("the answer is larger than 1 MiB".to_owned()));
        }
        Ok(Response::from_parts(head, body))
    }
}

/// One way of being set up.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub api: &'static str,
    /// As the configuration has it.
    pub further: Value,
    pub secret: &'static str,
}

/// The name every platform of these tests has, unless a name has a meaning of its own.
pub const PLATFORM: &str = "site";

pub fn cases() -> Vec<Case> {
    let case = |name, api, further, secret| Case { name, api, further, secret };
    let four = r#"{"ck":"consumer-key","cs":"consumer-canary","tk":"token-key-1","ts":"token-canary"}"#;
    vec![
        case("weibo update", "weibo", json!({"app_key": "77", "audited": true}), "2.00canary-weibo"),
        case("weibo share", "weibo", json!({"mode": "share", "link_domain": "shanghai.gov.cn"}), "2.00canary-share"),
        case("weibo biz", "weibo", json!({"mode": "biz", "operator_ip": "8.8.8.8"}), "2.00canary-biz"),
        case("tencent-weibo", "tencent-weibo", json!({"operator_ip": "8.8.8.8"}), TENCENT),
        case("wechat freepublish", "wechat", json!({"publish": "freepublish", "author": "上海发布"}), WECHAT),
        case("wechat mass", "wechat", json!({"publish": "mass"}), WECHAT),
        case("statuses bearer", "statuses", json!({"auth": "bearer", "count": "points"}), "bearer-canary"),
        case("statuses basic", "statuses", json!({"auth": "bearer", "count": "width"}), "site-user:basic-canary"),
        case("statuses oauth1", "statuses", json!({"auth": "oauth1", "count": "points"}), four),
        case(
            "statuses of Sina's kind",
            "statuses",
            json!({"picture_path": "statuses/upload.json", "picture_field": "pic"}),
            "site-user:basic-canary",
        ),
        case("gnusocial", "statuses", json!({"dialect": "gnusocial"}), "site-user:basic-canary"),
        case("mastodon", "mastodon", json!({"visibility": "public", "language": "zh"}), "mastodon-canary"),
        case("snac", "mastodon", json!({"dialect": "snac"}), "mastodon-canary"),
        case("gotosocial", "mastodon", json!({"dialect": "gotosocial"}), "mastodon-canary"),
        case("takahe", "mastodon", json!({"dialect": "takahe"}), "mastodon-canary"),
    ]
}

pub const TENCENT: &str = r#"{"access_token":"tencent-canary","app_key":"801000"}"#;
pub const WECHAT: &str = r#"{"appid":"wx-app-1","secret":"wechat-canary"}"#;

pub fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap()
}

pub struct World {
    pub case: Case,
    pub sandbox: Sandbox,
    pub clock: Clock,
    pub http: InProcess,
    pub platform: Arc<dyn Platform>,
    pub account: Account,
    /// Another account of the same platform, with its own credential.
    pub other: Account,
}

pub fn world(case: &Case) -> World {
    world_of(case, json!({}))
}

/// `more` is what the sandbox alone is told.
pub fn world_of(case: &Case, more: Value) -> World {
    let clock = Clock::simulated(from_micros(1_790_000_000_000_000), 1);
    let sandbox = Sandbox::new(setup(case, more), clock.clone());
    let settings = PlatformSettings {
        name: PlatformName::from(PLATFORM),
        api: case.api.to_owned(),
        base_url: "https://site.example".to_owned(),
        timeout: TIMEOUT,
        limits: Limits { account_per_hour: None, account_per_day: None, host_per_hour: None, connections: 8 },
        read_back: ReadBack { after: Vec::new(), settle: None },
        warm: Warm::default(),
        further: case.further.as_object().unwrap().clone().into_iter().collect(),
    };
    let http = InProcess { sandbox: sandbox.clone(), clock: clock.clone() };
    let (account, other) = (account(case, "a"), account(case, "b"));
    World { case: case.clone(), platform: platform::open(&settings), sandbox, clock, http, account, other }
}

fn setup(case: &Case, more: Value) -> Setup {
    let mut settings = case.further.as_object().unwrap().clone();
    if let Some(path) = settings.get("picture_path") {
        settings.insert("picture".to_owned(), json!({"path": path, "field": settings["picture_field"]}));
    }
    // A user and a password open an account whatever the entry says; the sandbox is told so by leaving it out.
    settings.insert("mass_per_day".to_owned(), json!(100));
    settings.extend(more.as_object().unwrap().clone());
    let account = |unit: &str| AccountSetup {
        platform: PLATFORM.to_owned(),
        unit: unit.to_owned(),
        name: "上海发布".to_owned(),
        handle: "shanghaifabu".to_owned(),
        uid: None,
        secret: secret(case, unit, true),
    };
    Setup {
        platforms: vec![PlatformSetup {
            name: PLATFORM.to_owned(),
            api: case.api.to_owned(),
            settings: Value::Object(settings),
        }],
        accounts: vec![account("a"), account("b")],
        seed: 7,
        limits: true,
        ..Setup::default()
    }
}

/// Each account's own secret; the sandbox also has to know the `openid`, which is not secret.
fn secret(case: &Case, unit: &str, whole: bool) -> String {
    let mut secret = match unit {
        "a" => case.secret.to_owned(),
        _ => ["canary", "wx-app-1", "consumer-key", "token-key-1", "site-user"]
            .iter()
            .fold(case.secret.to_owned(), |secret, word| secret.replace(word, &format!("{word}-{unit}"))),
    };
    if whole && case.api == "tencent-weibo" {
        secret = secret.replace('}', &format!(r#","openid":"OPENID-{unit}"}}"#));
    }
    secret
}

fn account(case: &Case, unit: &str) -> Account {
    let openid = ("openid".to_owned(), format!("OPENID-{unit}"));
    Account {
        id: AccountId::new(PLATFORM, unit),
        handle: "shanghaifabu".to_owned(),
        uid: None,
        status: Status::Active,
        lead: false,
        further: (case.api == "tencent-weibo").then_some(openid).into_iter().collect(),
        secret: Some(Secret::new(secret(case, unit, false))),
        secret_fault: None,
    }
}

/// Text no filter finds alike to another's, with a link under the domain that `share` wants.
pub fn text(n: u32) -> String {
    let words: String = (0..12).filter_map(|at| char::from_u32(0x4E00 + n * 12 + at)).collect();
    format!("{words}，a < b & c。https://www.shanghai.gov.cn/nw12344/20260101/abcdef.html?a={n} 请看")
}

pub fn picture() -> Picture {
    let bytes = Bytes::from_static(b"\x89PNG\r\n\x1A\n....picture");
    Picture {
        file: "img/a.png".to_owned(),
        alt: Some("台风路径图".to_owned()),
        sha256: "a3b1c5d7e9f00112233445566778899aabbccddeeff00112233445566778899a".to_owned(),
        kind: "png".to_owned(),
        bytes,
    }
}

impl World {
    pub fn call_as<'a>(&'a self, account: &'a Account) -> Call<'a> {
        Call {
            http: &self.http,
            barrier: None,
            clock: &self.clock,
            lane: Lane::Routine,
            account,
            token: account.secret.as_ref().unwrap(),
            timeout: TIMEOUT,
        }
    }

    pub fn call(&self) -> Call<'_> {
        self.call_as(&self.account)
    }

    pub fn post(&self, text: &str) -> Post {
        // An article needs a cover.
        let pictures = if self.case.api == "wechat" { vec![picture()] } else { Vec::new() };
        let start: String = text.chars().take(6).map(|c| format!("{:x}", u32::from(c))).collect();
        let key = format!("{start}-{}", text.len());
        Post { text: text.to_owned(), title: None, pictures, key }
    }

    pub fn with_picture(&self, text: &str) -> Post {
        Post { pictures: vec![picture()], ..self.post(text) }
    }

    pub async fn prepare(&self, post: &Post) -> Result<Prepared, Failure> {
        self.platform.prepare(&self.call(), post).await
    }

    pub async fn publish(&self, prepared: &Prepared) -> Result<Receipt, Failure> {
        let pictures: Vec<Picture> = prepared.attached.iter().map(|_| picture()).collect();
        self.platform.publish(&self.call(), prepared, &pictures).await
    }

    /// Prepares and publishes; where that only hands it in, asks until it is there.
    pub async fn out(&self, post: &Post) -> Receipt {
        let prepared = self.prepare(post).await.unwrap();
        let receipt = self.publish(&prepared).await.unwrap();
        if receipt.shown {
            return receipt;
        }
        let wanted = Wanted { ticket: receipt.ticket.clone(), ..self.wanted(&prepared) };
        for _ in 0..5 {
            self.pass(15).await;
            match self.find(&wanted).await.unwrap() {
                Look::Found(receipt) => return receipt,
                Look::Unproven(_) => {}
                other => panic!("{}: {other:?}", self.case.name),
            }
        }
        panic!("{}: never shown", self.case.name)
    }

    /// A post prepared and sent under the rule, and what came of it.
    pub async fn under(&self, rule: Value, post: &Post) -> (Prepared, Result<Receipt, Failure>) {
        let prepared = self.prepare(post).await.unwrap();
        self.fault(rule);
        let sent = self.publish(&prepared).await;
        self.sandbox.clear();
        (prepared, sent)
    }

    pub fn wanted(&self, prepared: &Prepared) -> Wanted {
        Wanted {
            text: prepared.text.clone(),
            title: prepared.title.clone(),
            key: prepared.key.clone(),
            ticket: None,
            media: prepared.media.clone(),
            since: self.clock.now() - TimeDelta::seconds(20),
            until: None,
            was_sent: true,
            may_be_reworded: false,
            above: prepared.baseline.clone(),
            taken: Vec::new(),
            standing: Vec::new(),
            rivals: Vec::new(),
        }
    }

    pub async fn find(&self, wanted: &Wanted) -> Result<Look, Failure> {
        self.find_by(&self.call(), wanted).await
    }

    pub async fn find_by(&self, call: &Call<'_>, wanted: &Wanted) -> Result<Look, Failure> {
        read_back(&*self.platform, call, wanted, &Endless).await
    }

    pub async fn pass(&self, seconds: u64) {
        self.clock.sleep(Duration::from_secs(seconds)).await;
    }

    pub fn fault(&self, rule: Value) {
        let rule: FaultRule = serde_json::from_value(rule).unwrap();
        self.sandbox.set_faults(vec![rule]);
    }

    /// Posts that exist, whoever believes what; the notices that GNU social leaves of what was taken down apart.
    pub fn live(&self) -> usize {
        let is_live = |post: &&fabu::sandbox::Post| !post.deleted && !post.text.contains("deleted notice {{");
        self.sandbox.posts().iter().filter(is_live).count()
    }

    /// An article that is out, by its id.
    pub async fn article(&self, n: u32) -> String {
        let prepared = self.prepare(&self.post(&text(n))).await.unwrap();
        let ticket = self.publish(&prepared).await.unwrap().ticket;
        let looked = self.find(&Wanted { ticket, ..self.wanted(&prepared) }).await.unwrap();
        let Look::Found(receipt) = looked else { panic!("{looked:?}") };
        receipt.post_id
    }

    pub fn requests_of(&self, op: &str) -> usize {
        self.sandbox.requests().iter().filter(|seen| seen.op == op).count()
    }
}
