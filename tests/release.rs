//! The instant: what is on disk before it, who waits for whom, which clock it follows, where requests go.

mod support;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fabu::clock::Clock;
use fabu::core::delivery::{Delivery, State};
use fabu::ledger::Ledger;
use fabu::ledger::sqlite::Sqlite;
use fabu::platform::{Http, Lane, Lost};
use http::{Method, Request, Response};
use serde_json::json;
use support::{City, Indoors, all, fault, settled, simulate, utc};

const START: &str = "2026-11-24T00:00:00Z";
const ALL_AT_TEN_PAST: &str = "announcements:\n  - {id: a, text: 早安上海, at: 2026-11-24 08:10, to: [\"**\"], link: \"http://169.254.169.254/latest\"}\n";

/// A network that asks the ledger, at each post, whether its intent is there.
struct Watched {
    below: Indoors,
    ledger: Arc<Sqlite>,
    under_way: AtomicU64,
    hosts: Mutex<BTreeSet<String>>,
    unrecorded: AtomicU64,
}

#[async_trait]
impl Http for Watched {
    async fn send(
        &self,
        platform: &str,
        lane: Lane,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Lost> {
        self.hosts.lock().unwrap().insert(request.uri().host().unwrap_or("").to_owned());
        let path = request.uri().path().to_owned();
        let posts =
            request.method() == Method::POST && ["update", "/t/add", "/v1/statuses"].iter().any(|p| path.contains(p));
        if posts {
            let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            let sending = self.ledger.counts().await.unwrap().get(&State::Sending).copied().unwrap_or(0);
            if sending < under_way {
                self.unrecorded.fetch_add(1, Ordering::SeqCst);
            }
        }
        let answer = self.below.send(platform, lane, request, timeout).await;
        if posts {
            self.under_way.fetch_sub(1, Ordering::SeqCst);
        }
        answer
    }
}

#[test]
fn r07_and_r38_the_intent_is_on_disk_before_any_request_and_no_link_is_fetched() {
    simulate(async {
        let city = City::new(START, 21, "");
        city.save("a.yaml", ALL_AT_TEN_PAST);
        let ledger = Arc::new(city.ledger().await);
        let watched = Arc::new(Watched {
            below: city.network(),
            ledger: ledger.clone(),
            under_way: AtomicU64::new(0),
            hosts: Mutex::default(),
            unrecorded: AtomicU64::new(0),
        });
        let daemon = city.start_with(ledger, watched.clone()).await;
        assert!(settled(&city, &daemon, Duration::from_secs(1200)).await);
        assert_eq!(city.sandbox.posts().len(), 15);
        assert_eq!(watched.unrecorded.load(Ordering::SeqCst), 0, "requests without an intent on disk");
        assert_eq!(
            *watched.hosts.lock().unwrap(),
            BTreeSet::from(["127.0.0.1".to_owned()]),
            "only the platforms' hosts"
        );
    });
}

#[test]
fn r15_a_slow_platform_and_an_account_that_is_not_ready_delay_nobody_else() {
    simulate(async {
        let city = City::new(START, 22, "");
        city.save("a.yaml", ALL_AT_TEN_PAST);
        city.sandbox.set_faults(vec![
            fault(json!({ "behaviour": "latency", "platform": "eastday", "params": { "seconds": 8 } })),
            fault(json!({ "behaviour": "unreachable", "account": "tencent:shanghai/weather", "operation": "check", "params": { "kind": "refused" }, "times": 7 })),
        ]);
        let daemon = city.start().await;
        assert!(settled(&city, &daemon, Duration::from_secs(3600)).await);
        let rows = all(&daemon).await;
        assert!(rows.iter().all(|d| d.state == State::Published));
        let at = utc("2026-11-24T00:10:00Z");
        for row in rows.iter().filter(|d| d.account.as_str() != "tencent:shanghai/weather") {
            let late = row.begun_at.unwrap() - at;
            assert!(
                late >= chrono::TimeDelta::zero() && late < chrono::TimeDelta::milliseconds(50),
                "{} {late}",
                row.account
            );
        }
    });
}

#[test]
fn r15_a_crowd_for_one_platform_that_hangs_delays_nobody_else() {
    simulate(async {
        let city = City::new(START, 29, "");
        let mut text = "announcements:\n".to_owned();
        // More than the daemon has in hand at once, all at one instant, and each for nine seconds.
        for n in 0..1000 {
            text += &format!("  - {{id: s{n}, text: 第{n}号, at: 2026-11-24 08:10, to: [\"sina:**\"]}}\n");
        }
        text += "  - {id: e, text: 早安, at: \"2026-11-24 08:10:02\", to: [\"eastday:**\"]}\n";
        city.save("a.yaml", &text);
        city.sandbox.set_faults(vec![fault(
            json!({ "behaviour": "latency", "platform": "sina", "operation": "post", "params": { "seconds": 9 } }),
        )]);
        let daemon = city.start().await;
        city.sleep(640).await;
        let at = utc("2026-11-24T00:10:02Z");
        let rows = all(&daemon).await;
        let others: Vec<_> = rows.iter().filter(|d| d.account.platform() == "eastday").collect();
        assert_eq!(others.len(), 3);
        for row in others {
            let late = row.begun_at.expect("sent") - at;
            assert!(late >= chrono::TimeDelta::zero() && late < chrono::TimeDelta::milliseconds(50), "{late}");
        }
        assert!(settled(&city, &daemon, Duration::from_secs(3600)).await);
        assert!(all(&daemon).await.iter().all(|d| d.state == State::Published));
    });
}

/// A network whose requests for some make the task that asks panic: those with this in their path, for this account.
struct Poison {
    below: Indoors,
    path: &'static str,
    /// The panic comes when the platform has done what was asked.
    is_after: bool,
    panics: AtomicU64,
}

#[async_trait]
impl Http for Poison {
    async fn send(
        &self,
        platform: &str,
        lane: Lane,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Lost> {
        let token = "token-xinmin_shanghai_metro";
        let is_metro = request.headers().values().any(|v| v.to_str().is_ok_and(|v| v.ends_with(token)));
        let is_poison = is_metro && request.method() == Method::POST && request.uri().path().contains(self.path);
        if is_poison && !self.is_after {
            self.panics.fetch_add(1, Ordering::SeqCst);
            panic!("a pill");
        }
        let answer = self.below.send(platform, lane, request, timeout).await;
        if is_poison {
            self.panics.fetch_add(1, Ordering::SeqCst);
            panic!("a pill that comes late");
        }
        answer
    }
}

/// What becomes of 15 posts with a picture, one of which is poison: the poisoned one, how many panics, all is published else.
async fn poisoned(path: &'static str, is_after: bool) -> (Delivery, u64) {
    let city = City::new(START, 33, "");
    std::fs::write(city.queue("map.png"), include_bytes!("../src/cli/demo_weather.png")).unwrap();
    city.save("a.yaml", &ALL_AT_TEN_PAST.replace("link:", "images: [{file: map.png, alt: 图}], link:"));
    let http = Arc::new(Poison { below: city.network(), path, is_after, panics: AtomicU64::new(0) });
    let daemon = city.start_with(Arc::new(city.ledger().await), http.clone()).await;
    city.sleep(660).await;
    assert!(settled(&city, &daemon, Duration::from_secs(7200)).await, "no loop");
    let (metro, others): (Vec<_>, Vec<_>) =
        all(&daemon).await.into_iter().partition(|d| d.account.to_string() == "xinmin:shanghai/metro");
    assert_eq!(others.len(), 14);
    assert!(others.iter().all(|d| d.state == State::Published), "it costs itself only");
    assert!(city.posts().values().all(|n| *n == 1));
    daemon.stop().await;
    (metro.into_iter().next().unwrap(), http.panics.load(Ordering::SeqCst))
}

#[test]
fn r26_what_makes_its_task_panic_twice_is_set_aside_with_the_reason() {
    simulate(async {
        let (row, panics) = poisoned("media", false).await;
        assert_eq!((row.state, panics), (State::Failed, 2));
        assert!(row.reason.unwrap().en.contains("set aside"));
    });
}

#[test]
fn r26_a_panic_once_sending_has_begun_leaves_doubt_that_is_looked_into() {
    simulate(async {
        let (row, panics) = poisoned("v1/statuses", true).await;
        assert_eq!((row.state, panics, row.attempt), (State::Published, 1, 1), "found where it stands, not sent again");
    });
}

#[test]
fn r31_scheduling_follows_the_wall_clock_also_when_it_is_stepped() {
    simulate(async {
        let city = City::new(START, 23, "");
        city.save("a.yaml", ALL_AT_TEN_PAST);
        let daemon = city.start().await;
        city.sleep(570).await;
        city.clock.step(chrono::TimeDelta::hours(-1));
        city.sleep(1800).await;
        assert_eq!(city.sandbox.posts().len(), 0, "the hour has not come again yet");
        city.sleep(1860).await;
        assert!(settled(&city, &daemon, Duration::from_secs(600)).await);
        assert_eq!(city.sandbox.posts().len(), 15);
        assert!(all(&daemon).await.iter().all(|d| d.begun_at.unwrap() >= utc("2026-11-24T00:10:00Z")));
    });
}

#[test]
fn r31_a_jump_ahead_publishes_what_is_still_in_time_and_nothing_else() {
    simulate(async {
        let city = City::new(START, 24, "");
        let late = "  - {id: b, text: 过时, at: 2026-11-24 08:05, to: [shanghai], expires_after: 10m}\n";
        city.save("a.yaml", &format!("{ALL_AT_TEN_PAST}{late}"));
        let daemon = city.start().await;
        city.sleep(60).await;
        city.clock.step(chrono::TimeDelta::minutes(30));
        assert!(settled(&city, &daemon, Duration::from_secs(1200)).await);
        let posts = city.sandbox.posts();
        assert_eq!(posts.len(), 15);
        assert!(posts.iter().all(|p| p.text.starts_with("早安")));
    });
}

/// A listener that is no TLS server: it keeps what it was sent.
#[test]
fn r36_without_a_good_certificate_no_byte_of_the_request_is_sent() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0u8; 8192];
        let n = stream.read(&mut bytes).unwrap();
        std::io::Write::write_all(&mut stream, b"\x15\x03\x03\x00\x02\x02\x2a").unwrap();
        bytes[..n].to_vec()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let net = fabu::platform::http::Net::new(Clock::real(), &Default::default()).unwrap();
        let request = Request::post(format!("https://127.0.0.1:{port}/2/statuses/update.json"))
            .header("authorization", "OAuth2 canary-token")
            .body(Bytes::from_static(b"status=x"))
            .unwrap();
        net.send("sina", Lane::Routine, request, Duration::from_secs(5)).await
    });
    assert!(matches!(answer, Err(Lost::BeforeSend(_))), "proof that nothing was taken: it is retried");
    let bytes = heard.join().unwrap();
    assert!(!bytes.windows(6).any(|w| w == b"canary") && !bytes.windows(6).any(|w| w == b"status"));
}

#[test]
fn r12_what_was_being_prepared_when_the_words_changed_is_not_what_goes_out() {
    simulate(async {
        let city = City::new(START, 31, "");
        let say = |text: &str| {
            let text =
                format!("announcements:\n  - {{id: a, text: {text}, at: 2026-11-24 08:10, to: [\"sina:shanghai\"]}}\n");
            city.save("a.yaml", &text);
        };
        say("一号出口关闭。");
        // Asked about a minute ahead, the credential's answer takes nine seconds; the words change in between.
        let slow = json!({ "behaviour": "latency", "platform": "sina", "params": { "seconds": 9 } });
        city.sandbox.set_faults(vec![fault(slow)]);
        let daemon = city.start().await;
        city.sleep(545).await;
        say("二号出口关闭。");
        daemon.rescan().await;
        city.sleep(300).await;
        let posts: Vec<String> = city.posts().into_keys().map(|(_, text)| text).collect();
        assert_eq!(posts, ["二号出口关闭。"]);
    });
}
