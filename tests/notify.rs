//! Being told: whom the news reaches, what it says, and that nothing waits for it.

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fabu::clock::Clock;
use fabu::core::announcement::Level;
use fabu::core::change::Actor;
use fabu::core::delivery::{Desired, State};
use fabu::daemon::emergency::Urgent;
use fabu::daemon::{Daemon, World};
use fabu::platform::http::Net;
use fabu::platform::{Http, Lane, Lost};
use http::{Request, Response};
use serde_json::{Value, json};
use support::{City, Indoors, all, fault, in_state, simulate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const START: &str = "2026-11-24T00:00:00Z";
/// Accounts of the sample city.
const ALL: usize = 15;
const TO_URL: &str =
    "notify: [{on: [emergency, failed, unknown, confirm, credential], url: \"https://hooks.example.cn/x\"}]\n";

/// The sandbox for the platforms; what is told is kept, or goes over a real network.
struct Told {
    platforms: Indoors,
    net: Option<Net>,
    said: Mutex<Vec<Value>>,
}

impl Told {
    fn over(city: &City, net: Option<Net>) -> Arc<Told> {
        Arc::new(Told { platforms: city.network(), net, said: Mutex::default() })
    }

    fn said(&self) -> Vec<Value> {
        self.said.lock().unwrap().clone()
    }

    fn kinds(&self) -> Vec<(String, u64)> {
        self.said().iter().map(|n| (n["kind"].as_str().unwrap().to_owned(), n["count"].as_u64().unwrap())).collect()
    }
}

#[async_trait]
impl Http for Told {
    async fn send(
        &self,
        platform: &str,
        lane: Lane,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Lost> {
        if platform != "notify:" {
            return self.platforms.send(platform, lane, request, timeout).await;
        }
        if let Some(net) = &self.net {
            return net.send(platform, lane, request, timeout).await;
        }
        self.said.lock().unwrap().push(serde_json::from_slice(request.body()).unwrap());
        Ok(Response::new(Bytes::new()))
    }
}

async fn world(city: &City, http: Arc<dyn Http>) -> World {
    let ledger = Arc::new(city.ledger().await);
    let trust = ledger.trust().clone();
    let env = support::env();
    let env = Arc::new(move |name: &str| if name == "PATH" { Some("/usr/bin:/bin".to_owned()) } else { env(name) });
    World { env, ..city.world(ledger, trust, http) }
}

async fn asked(daemon: &Daemon, level: Level) -> Value {
    asked_until(daemon, level, None).await
}

async fn asked_until(daemon: &Daemon, level: Level, expires_after: Option<Duration>) -> Value {
    let urgent = Urgent {
        expires_after,
        text: "【洪水】请撤离低洼处。".to_owned(),
        level: Some(level),
        to: vec!["**".to_owned()],
        ..Urgent::default()
    };
    let by = Actor::Person { uid: 1000, name: "duty".to_owned() };
    daemon.inner.urgent(&by, urgent, &[]).await.unwrap()
}

/// Waits in real time for what a program or another thread does.
async fn seen<T>(city: &City, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = look() {
            return found;
        }
        city.clock.sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} was not seen");
}

fn refusing_tokens(city: &City) {
    city.sandbox.set_faults(vec![fault(json!({ "behaviour": "token" }))]);
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_program_gets_one_notice_of_an_emergency_and_one_of_its_failures_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (told, env) = (folder.path().join("told"), folder.path().join("env"));
    let script = format!("{{ cat; echo; }} >> {}; env >> {}", told.display(), env.display());
    let more = format!("notify: [{{on: [emergency, failed], run: [/bin/sh, -c, \"{script}\"]}}]\n");
    let city = City::on(Clock::real(), 1, &more);
    refusing_tokens(&city);
    let daemon = Daemon::start(world(&city, Arc::new(city.network())).await).await.unwrap();
    asked(&daemon, Level::Blue).await;
    seen(&city, "the failures", || (lines(&told).len() >= 2).then_some(())).await;
    assert_eq!(in_state(&all(&daemon).await, State::Failed), ALL);
    daemon.stop().await;
    let notices: Vec<Value> = lines(&told).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = notices.iter().map(|n| (n["kind"].as_str().unwrap(), n["count"].as_u64().unwrap())).collect();
    assert_eq!(kinds, [("emergency", ALL as u64), ("failed", ALL as u64)]);
    assert_eq!(notices[1]["text"], "【洪水】请撤离低洼处。");
    assert_eq!((&notices[1]["level"], &notices[1]["drill"]), (&json!("blue"), &json!(false)));
    assert_eq!(notices[1]["accounts"].as_array().unwrap().len(), ALL);
    let inherited = lines(&env);
    assert!(inherited.contains(&"FABU_EVENT=failed".to_owned()), "{inherited:?}");
    // A shell adds the last three of its own.
    let known = ["FABU_EVENT", "PATH", "LANG", "TZ", "PWD", "SHLVL", "_"];
    let strange: Vec<_> = inherited.iter().filter(|l| !known.contains(&l.split('=').next().unwrap())).collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert!(!lines(&told).iter().chain(&inherited).any(|l| l.contains("token-")), "no secret is inherited or told");
}

#[tokio::test]
async fn a_program_that_hangs_or_does_not_exist_delays_nothing_and_is_shown() {
    let more = "notify:\n  - {on: [emergency], run: [/bin/sleep, \"30\"]}\n  - {on: [emergency], run: [/nonexistent/tell, --key=secret]}\n";
    let city = City::on(Clock::real(), 2, more);
    let daemon = Daemon::start(world(&city, Arc::new(city.network())).await).await.unwrap();
    asked(&daemon, Level::Blue).await;
    let begun = city.clock.mono().0;
    while in_state(&all(&daemon).await, State::Published) < ALL {
        city.clock.sleep(Duration::from_millis(20)).await;
        assert!(
            city.clock.mono().0 - begun < Duration::from_secs(8),
            "all of it is out long before a program is killed"
        );
    }
    let notify = loop {
        let notify = json!(daemon.inner.status().await.unwrap().notify);
        if notify[0]["failed"] == 1 {
            break notify;
        }
        assert!(city.clock.mono().0 - begun < Duration::from_secs(25), "{notify}");
        city.clock.sleep(Duration::from_millis(100)).await;
    };
    assert!(notify[0]["last_error"]["en"].as_str().unwrap().contains("killed"), "{notify}");
    assert_eq!(
        (&notify[1]["to"], &notify[1]["failed"]),
        (&json!("/nonexistent/tell"), &json!(1)),
        "no argument is shown"
    );
    assert!(notify[1]["last_error"]["en"].as_str().unwrap().contains("cannot be run"), "{notify}");
    assert!(notify[1]["last_at"].is_string());
    daemon.stop().await;
}

/// Answers one request on loopback, and returns it.
async fn answered(listener: &tokio::net::TcpListener, answer: &str) -> (String, Value) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str(body)
        {
            let head = head.to_lowercase();
            stream.write_all(answer.as_bytes()).await.unwrap();
            return (head, body);
        }
        assert!(stream.read_buf(&mut read).await.unwrap() > 0, "it ended early");
    }
}

#[tokio::test]
async fn an_address_gets_the_json_again_when_it_did_not_take_it_and_no_redirect_is_followed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let city = City::on(Clock::real(), 3, &format!("notify: [{{on: [emergency], url: \"http://{at}/hook\"}}]\n"));
    let net = Net::new(city.clock.clone(), &Default::default()).unwrap();
    let daemon = Daemon::start(world(&city, Told::over(&city, Some(net))).await).await.unwrap();
    let answer = asked(&daemon, Level::Blue).await;
    let elsewhere =
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (first, _) = answered(&listener, elsewhere).await;
    let (second, body) = answered(&listener, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    for head in [&first, &second] {
        assert!(head.starts_with("post /hook http/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/json"), "{head}");
    }
    assert_eq!((&body["kind"], &body["announcement"]), (&json!("emergency"), &answer["id"]));
    daemon.stop().await;
}

#[test]
fn what_nobody_confirms_is_told_when_it_is_taken_and_when_it_is_not_sent() {
    simulate(async {
        let city = City::new(START, 4, TO_URL);
        let told = Told::over(&city, None);
        let daemon = Daemon::start(world(&city, told.clone()).await).await.unwrap();
        asked(&daemon, Level::Red).await;
        city.sleep(1).await;
        let waits = |kind: &str| (kind.to_owned(), ALL as u64);
        assert_eq!(told.kinds(), [waits("emergency"), waits("confirm")], "at once");
        city.sleep(900).await;
        assert_eq!(told.kinds()[2..], [waits("confirm")], "in one notice");
        assert!(told.said()[2]["reason"]["en"].as_str().unwrap().contains("not sent"));
    });
}

#[test]
fn failures_of_an_announcement_are_one_notice_and_a_delivery_that_needs_a_person_is_told() {
    simulate(async {
        let city = City::new(START, 5, TO_URL);
        city.save(
            "a.yaml",
            "announcements:\n  - {id: cheer, text: 今天天气真好！, at: \"2026-11-24T00:01:00Z\", to: [\"**\"]}\n",
        );
        city.sandbox.set_faults(vec![
            fault(json!({ "behaviour": "token", "platform": "sina" })),
            fault(json!({ "behaviour": "reset_after", "platform": "eastday", "operation": "post" })),
            fault(json!({ "behaviour": "proxy_page", "platform": "eastday", "operation": "timeline" })),
        ]);
        let told = Told::over(&city, None);
        let daemon = Daemon::start(world(&city, told.clone()).await).await.unwrap();
        city.sleep(4 * 3600).await;
        let rows = all(&daemon).await;
        let (failed, unknown) = (in_state(&rows, State::Failed), in_state(&rows, State::Unknown));
        assert_eq!((failed, unknown), (5, 3));
        let (kinds, said) = (told.kinds(), told.said());
        let of = |kind: &str| kinds.iter().filter(|(k, _)| k == kind).map(|(_, n)| *n).collect::<Vec<_>>();
        assert_eq!((of("failed"), of("credential")), (vec![5], vec![5]), "{said:?}");
        assert_eq!(of("unknown").iter().sum::<u64>(), 3, "{said:?}");
        assert_eq!(of("emergency").len() + of("confirm").len(), 0, "{said:?}");
        assert!(said.iter().all(|n| n["announcement"] == "cheer" && n["text"].is_null() && n["level"].is_null()));
    });
}

#[test]
fn a_failure_that_is_stopped_afterwards_is_no_second_failure() {
    simulate(async {
        let city = City::new(START, 7, TO_URL);
        refusing_tokens(&city);
        let told = Told::over(&city, None);
        let daemon = Daemon::start(world(&city, told.clone()).await).await.unwrap();
        let taken = asked(&daemon, Level::Blue).await;
        city.sleep(60).await;
        let before = told.kinds();
        assert!(before.contains(&("failed".to_owned(), ALL as u64)), "{before:?}");
        let (by, id) = (Actor::Person { uid: 1000, name: "duty".to_owned() }, taken["id"].as_str().unwrap());
        daemon.inner.withdraw(&by, id, Desired::Stopped).await.unwrap();
        city.sleep(60).await;
        assert_eq!(told.kinds(), before);
    });
}

#[test]
fn an_emergency_that_expires_because_no_platform_could_be_reached_is_told() {
    simulate(async {
        let city = City::new(START, 8, TO_URL);
        let told = Told::over(&city, None);
        let daemon = Daemon::start(world(&city, told.clone()).await).await.unwrap();
        city.sandbox.set_faults(vec![fault(
            json!({ "behaviour": "unreachable", "platform": "sina", "params": { "kind": "refused" } }),
        )]);
        asked_until(&daemon, Level::Blue, Some(Duration::from_secs(60))).await;
        city.sleep(120).await;
        let kinds = told.kinds();
        assert!(kinds.contains(&("failed".to_owned(), 5)), "{kinds:?}");
    });
}

#[test]
fn a_drill_tells_nobody() {
    simulate(async {
        let city = City::new(START, 6, TO_URL);
        let told = Told::over(&city, None);
        let mut world = world(&city, told.clone()).await;
        world.config.drill = true;
        let daemon = Daemon::start(world).await.unwrap();
        asked(&daemon, Level::Red).await;
        city.sleep(900).await;
        assert_eq!(in_state(&all(&daemon).await, State::Expired), ALL);
        assert_eq!(told.said(), Vec::<Value>::new());
    });
}
