//! The emergency's own way out, in simulated time: what goes over which connections, when, and what waits.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fabu::clock::{Clock, Mono};
use fabu::core::announcement::Level;
use fabu::core::change::Actor;
use fabu::core::delivery::State;
use fabu::daemon::Daemon;
use fabu::daemon::emergency::Urgent;
use fabu::platform::{Http, Lane, Lost};
use http::{Method, Request, Response};
use serde_json::Value;
use support::duty::standing;
use support::{City, Indoors, all, in_state, simulate};

const START: &str = "2026-11-24T00:00:00Z";
/// Accounts of the sample city.
const ALL: usize = 15;

struct Asked {
    at: Mono,
    platform: String,
    lane: Lane,
    method: Method,
    path: String,
    has_token: bool,
}

/// The sandbox as a network that remembers what was asked of it, and how many were asked at once.
struct Watched {
    network: Indoors,
    clock: Clock,
    asked: Mutex<Vec<Asked>>,
    open: Mutex<[usize; 2]>,
}

impl Watched {
    fn over(city: &City) -> Arc<Watched> {
        let (network, clock) = (city.network(), city.clock.clone());
        Arc::new(Watched { network, clock, asked: Mutex::default(), open: Mutex::default() })
    }

    fn of<T>(&self, pick: impl Fn(&Asked) -> Option<T>) -> Vec<T> {
        self.asked.lock().unwrap().iter().filter_map(pick).collect()
    }
}

/// The one request of a delivery that can be seen; asking about a token is a POST too.
fn is_post(asked: &Asked) -> bool {
    asked.method == Method::POST && !asked.path.contains("token")
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
        let asked = Asked {
            at: self.clock.mono(),
            platform: platform.to_owned(),
            lane,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            has_token: request.headers().contains_key("authorization") || request.uri().query().is_some(),
        };
        let is_head = asked.method == Method::HEAD;
        self.asked.lock().unwrap().push(asked);
        if is_head {
            let mut open = self.open.lock().unwrap();
            open[0] += 1;
            open[1] = open[1].max(open[0]);
        }
        let answer = self.network.send(platform, lane, request, timeout).await;
        if is_head {
            self.open.lock().unwrap()[0] -= 1;
        }
        answer
    }
}

async fn start(city: &City, watched: &Arc<Watched>) -> Daemon {
    city.start_with(Arc::new(city.ledger().await), watched.clone()).await
}

async fn urgent(daemon: &Daemon, text: &str, level: Level) -> Value {
    let by = Actor::Person { uid: 1000, name: "duty".to_owned() };
    let urgent = Urgent { text: text.to_owned(), level: Some(level), to: vec!["**".to_owned()], ..Urgent::default() };
    daemon.inner.urgent(&by, urgent, &[]).await.unwrap()
}

#[test]
fn r02_with_the_acknowledgement_every_intent_is_on_disk() {
    simulate(async {
        let city = City::new(START, 1, "");
        let watched = Watched::over(&city);
        let daemon = start(&city, &watched).await;
        urgent(&daemon, "【洪水】请撤离。", Level::Blue).await;
        let rows = all(&daemon).await;
        assert_eq!(in_state(&rows, State::Sending), ALL);
        for row in &rows {
            assert_eq!(daemon.inner.ledger.attempts(row.id).await.unwrap().len(), 1, "and its attempt");
        }
        city.sleep(5).await;
        assert_eq!(in_state(&all(&daemon).await, State::Published), ALL);
    });
}

#[test]
fn r30_stopped_right_after_the_acknowledgement_it_is_known_that_nothing_went_and_it_goes_after_the_start() {
    simulate(async {
        let city = City::new(START, 6, "");
        let watched = Watched::over(&city);
        let daemon = start(&city, &watched).await;
        urgent(&daemon, "【洪水】请撤离。", Level::Blue).await;
        daemon.stop().await;
        assert!(watched.of(|a| is_post(a).then_some(())).is_empty(), "no new request");
        let daemon = start(&city, &watched).await;
        assert!(all(&daemon).await.iter().all(|d| d.attempt == 0), "it is known that nothing has begun");
        city.sleep(10).await;
        assert_eq!(in_state(&all(&daemon).await, State::Published), ALL);
        assert_eq!(city.posts().values().sum::<u32>() as usize, ALL);
    });
}

#[test]
fn r04_routine_begins_no_request_before_the_last_of_an_emergency_has_begun() {
    simulate(async {
        let city = City::new(START, 2, "");
        let watched = Watched::over(&city);
        let mut text = "announcements:\n".to_owned();
        for n in 0..40 {
            text += &format!("  - {{id: r{n}, text: 第{n}号, at: \"2026-11-24T00:01:00Z\", to: [\"**\"]}}\n");
        }
        city.save("a.yaml", &text);
        let daemon = start(&city, &watched).await;
        // All of routine stands at the doorway when the word comes.
        city.sleep(59).await;
        let stuck = daemon.inner.leaving();
        city.clock.sleep(Duration::from_millis(1200)).await;
        urgent(&daemon, "【洪水】请撤离。", Level::Blue).await;
        drop(stuck);
        city.sleep(120).await;
        let posts = watched.of(|a| is_post(a).then_some(a.lane));
        assert_eq!(posts.iter().filter(|lane| **lane == Lane::Emergency).count(), ALL);
        let last = posts.iter().rposition(|lane| *lane == Lane::Emergency).unwrap();
        let before = posts[..last].iter().filter(|lane| **lane == Lane::Routine).count();
        assert_eq!((before, posts.len()), (0, 41 * ALL));
        assert_eq!(in_state(&all(&daemon).await, State::Published), 41 * ALL, "and routine goes on");
    });
}

#[test]
fn an_emergency_that_cannot_leave_keeps_routine_no_longer_than_a_second() {
    simulate(async {
        let city = City::new(START, 3, "");
        let watched = Watched::over(&city);
        city.save("a.yaml", "announcements:\n- {id: r, text: 早安, at: \"2026-11-24T00:01:00Z\", to: [\"**\"]}\n");
        let daemon = start(&city, &watched).await;
        city.sleep(59).await;
        let stuck = daemon.inner.leaving();
        city.sleep(30).await;
        drop(stuck);
        let began = watched.of(|a| (a.lane == Lane::Routine && is_post(a)).then_some(a.at.0));
        let second = Duration::from_secs(61)..Duration::from_millis(61_100);
        assert!(began.len() == ALL && began.iter().all(|at| second.contains(at)), "{began:?}");
    });
}

#[test]
fn its_connections_are_kept_open_without_a_token_and_out_of_the_hosts_limit_alone() {
    simulate(async {
        let more = "emergency: {reserve: 20%}\n";
        let city = City::new(START, 4, more);
        let limited = std::fs::read_to_string(city.path().join("fabu.yaml")).unwrap().replace(
            "tencent: {api: tencent-weibo,",
            "tencent: {api: tencent-weibo, limits: {account_per_day: 100, host_per_hour: 50}, warm: {connections: 3, every: 30s},",
        );
        std::fs::write(city.path().join("fabu.yaml"), limited).unwrap();
        let watched = Watched::over(&city);
        let daemon = start(&city, &watched).await;
        let keeper = tokio::spawn(fabu::daemon::lane::keep_warm(daemon.inner.clone()));
        city.sleep(1).await;
        assert_eq!(watched.open.lock().unwrap()[1], 3 * 8 + 3, "all at once, or there would be fewer connections");
        city.sleep(3600 - 1 - 10).await;
        keeper.abort();
        let heads = |platform: &str| {
            watched.of(|a| (a.method == Method::HEAD && a.platform == platform).then_some((a.lane, a.has_token)))
        };
        assert_eq!(heads("sina").len(), 8 * 80, "every 45 seconds");
        // Four fifths of the host's fifty calls an hour: the rest is for emergencies.
        assert_eq!(heads("tencent").len(), 40);
        for (lane, has_token) in heads("sina").into_iter().chain(heads("tencent")) {
            assert_eq!((lane, has_token), (Lane::Emergency, false));
        }
        let spent = daemon.inner.ledger.snapshot().await.unwrap().budgets;
        assert!(spent.iter().all(|(key, ..)| key.starts_with("host ")), "no account's calls: {spent:?}");
        assert!(spent.iter().any(|(key, _, calls)| key == "host tencent" && *calls == 40), "{spent:?}");
    });
}

#[test]
fn while_a_word_is_awaited_as_many_are_opened_as_it_will_need_and_the_confirmation_has_the_intents() {
    simulate(async {
        let city = City::new(START, 5, "");
        let config = std::fs::read_to_string(city.path().join("fabu.yaml")).unwrap();
        let none = config.replace("api: ", "warm: {connections: 0}, api: ");
        std::fs::write(city.path().join("fabu.yaml"), none).unwrap();
        let watched = Watched::over(&city);
        let daemon = start(&city, &watched).await;
        tokio::spawn(fabu::daemon::lane::keep_warm(daemon.inner.clone()));
        city.sleep(120).await;
        assert!(watched.asked.lock().unwrap().is_empty(), "none are kept");
        let answer = urgent(&daemon, "【地震】请避险。", Level::Red).await;
        city.sleep(2).await;
        assert_eq!(watched.open.lock().unwrap()[1], ALL);
        let of = |key: &str| answer[key].as_str().unwrap().to_owned();
        let second = Actor::Person { uid: 1001, name: "second".to_owned() };
        daemon.inner.confirm(&second, &of("id"), &of("content_hash")).await.unwrap();
        assert_eq!(in_state(&all(&daemon).await, State::Sending), ALL);
        city.sleep(5).await;
        assert_eq!(in_state(&all(&daemon).await, State::Published), ALL);
    });
}

#[test]
fn an_errand_without_a_daemon_sends_its_emergency_and_nothing_of_routine() {
    simulate(async {
        let city = City::new(START, 9, "");
        city.save(
            "a.yaml",
            "announcements:\n  - {id: cheer, text: 今天天气真好！, at: 2026-11-24 08:10, to: [\"**\"]}\n",
        );
        drop(city.start().await);
        city.sleep(1800).await;
        let ledger = Arc::new(city.ledger().await);
        let trust = ledger.trust().clone();
        let mut world = city.world(ledger, trust, Arc::new(city.network()));
        world.config.direct = true;
        let mut daemon = Daemon::start(world).await.unwrap();
        daemon.attend().await;
        urgent(&daemon, "【洪水】请撤离。", Level::Blue).await;
        city.sleep(60).await;
        assert_eq!(standing(&city, "请撤离"), ALL);
        assert_eq!(standing(&city, "真好"), 0, "it was due, and is nothing to this errand");
        daemon.stop().await;
        let _daemon = city.start().await;
        city.sleep(60).await;
        assert_eq!(standing(&city, "真好"), ALL, "the daemon finds it as it was");
    });
}
