//! Faults that the widened simulation, and people with the binary in hand, have found: each by itself.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::Request;
use chrono::TimeDelta;
use fabu::api::peer::Peer;
use fabu::core::announcement::Level;
use fabu::core::change::{Actor, Change};
use fabu::core::delivery::{Desired, State};
use fabu::daemon::acts::ActError;
use fabu::daemon::emergency::{Closed, Urgent};
use fabu::ledger::sqlite::Sqlite;
use fabu::ledger::{Committed, Ledger as _, LedgerError};
use serde_json::json;
use support::between::{Between, Watch};
use support::duty::{asked, confirmed, everywhere, person, standing};
use support::points::Left;
use support::{City, UNITS, accounts_of, all, fault, in_state, settled, simulate};
use tower::ServiceExt as _;

const START: &str = "2026-11-24T00:00:00Z";

fn one(id: &str, text: &str, more: &str) -> String {
    format!("announcements:\n  - {{id: {id}, text: {text}, to: [shanghai], catch_up: 2h, {more}}}\n")
}

#[test]
fn r19_a_copy_from_before_a_post_knows_it_again_in_whatever_version_it_went_out() {
    simulate(async {
        let city = City::new(START, 71, "");
        city.save("a.yaml", &one("a", "早安上海", "at: 2026-11-24 08:02"));
        let daemon = city.start().await;
        city.sleep(10).await;
        let copy = Left::at(&city.path().join("state"));
        city.sleep(200).await;
        assert_eq!(city.sandbox.posts().len(), 4);
        drop(daemon);
        city.sleep(1).await;
        // The copy comes back, and the file names one more account: to the queue that is another version.
        copy.put_back(&city.path().join("state"));
        city.save(
            "a.yaml",
            &one("a", "早安上海", "at: 2026-11-24 08:02").replace("[shanghai]", "[shanghai, shanghai/weather]"),
        );
        let daemon = city.start().await;
        assert!(settled(&city, &daemon, Duration::from_secs(3600)).await);
        let rows = all(&daemon).await;
        assert_eq!((rows.len(), in_state(&rows, State::Published)), (6, 6), "{rows:?}");
        assert_eq!(city.sandbox.posts().len(), 6, "four were there, and two accounts are new");
    });
}

/// An emergency that meets closed doors for a minute, and a clock that is put back an hour in that minute.
async fn delayed(is_down: bool, seed: u64) {
    let city = City::new(START, seed, "");
    let mut daemon = city.start().await;
    city.sleep(60).await;
    city.sandbox.set_faults(vec![fault(json!({ "behaviour": "unreachable", "params": { "kind": "refused" } }))]);
    asked(&daemon, 1000, everywhere("请避险", Level::Yellow)).await;
    city.sleep(20).await;
    if is_down {
        drop(daemon);
        city.sleep(1).await;
        city.clock.step(TimeDelta::hours(-1));
        daemon = city.start().await;
    } else {
        city.clock.step(TimeDelta::hours(-1));
    }
    city.sleep(20).await;
    city.sandbox.clear();
    assert!(settled(&city, &daemon, Duration::from_secs(400)).await, "it does not wait for its hour to come again");
    assert_eq!(standing(&city, "请避险"), 15);
}

#[test]
fn r31_an_emergency_does_not_wait_for_a_clock_that_was_put_back() {
    // By the seed some of it has its intent on disk already in that moment, and waits for its instant alone.
    (0..12).for_each(|n| simulate(delayed(false, 72 + n)));
    simulate(delayed(true, 72));
}

#[test]
fn r31_an_emergency_that_lasts_a_while_is_not_over_because_the_clock_was_put_on() {
    simulate(async {
        let city = City::new(START, 73, "");
        let daemon = city.start().await;
        city.sandbox.set_faults(vec![fault(json!({ "behaviour": "unreachable", "params": { "kind": "refused" } }))]);
        let urgent = Urgent { expires_after: Some(Duration::from_secs(900)), ..everywhere("请避险", Level::Yellow) };
        asked(&daemon, 1000, urgent).await;
        city.sleep(20).await;
        city.clock.step(TimeDelta::minutes(25));
        city.sleep(20).await;
        city.sandbox.clear();
        assert!(settled(&city, &daemon, Duration::from_secs(400)).await);
        assert_eq!(standing(&city, "请避险"), 15);
    });
}

#[test]
fn what_is_held_of_a_repeat_goes_in_the_words_it_was_given_since() {
    simulate(async {
        let city = City::new(START, 74, "");
        city.save("a.yaml", &one("a", "旧话", "repeat: \"2 8 * * *\""));
        let daemon = city.start().await;
        let hold = support::duty::hold(&daemon, Duration::from_secs(300)).await;
        city.sleep(240).await;
        city.save("a.yaml", &one("a", "新话", "repeat: \"2 8 * * *\""));
        daemon.rescan().await;
        daemon.inner.end_hold(&person(1000), &hold).await.unwrap();
        assert!(city.sandbox.posts().is_empty());
        daemon.inner.unhold(&person(1000), None).await.unwrap();
        city.sleep(60).await;
        let posts = city.posts();
        assert_eq!(posts.len(), 4, "{posts:?}");
        assert!(posts.keys().all(|(_, text)| text == "新话"), "{posts:?}");
    });
}

#[test]
fn what_is_held_for_an_account_that_is_closed_can_be_let_go_of() {
    simulate(async {
        let city = City::new(START, 75, "");
        city.save("a.yaml", &one("a", "早安", "at: 2026-11-24 08:02"));
        let daemon = city.start().await;
        city.sleep(30).await;
        let hold = support::duty::hold(&daemon, Duration::from_secs(600)).await;
        city.sleep(240).await;
        daemon.inner.end_hold(&person(1000), &hold).await.unwrap();
        let accounts = std::fs::read_to_string(city.path().join("accounts.yaml")).unwrap();
        let closed = accounts.replacen("{handle: h0", "{status: closed, handle: h0", 4);
        // Its release has begun, so that the queue changes nothing of it any more.
        std::fs::write(city.path().join("accounts.yaml"), closed).unwrap();
        std::fs::rename(city.queue("a.yaml"), city.path().join("a.yaml")).unwrap();
        std::fs::create_dir(city.queue("a.yaml")).unwrap();
        daemon.inner.reload_config().await;
        city.sleep(5).await;
        let before = in_state(&all(&daemon).await, State::Held);
        daemon.inner.unhold(&person(1000), None).await.unwrap();
        city.sleep(60).await;
        let rows = all(&daemon).await;
        assert_eq!((before, in_state(&rows, State::Cancelled)), (4, 4), "{rows:?}");
        assert!(city.sandbox.posts().is_empty());
    });
}

/// Metro's account at sina is closed, then a hold by names begins, and then it is open again: read while the daemon runs,
/// or at a start.
async fn opened_while_held(is_down: bool) -> usize {
    let city = City::new(START, 86, "");
    let (file, open) = (city.path().join("accounts.yaml"), accounts_of(UNITS, &BTreeSet::new()));
    std::fs::write(&file, accounts_of(UNITS, &BTreeSet::from(["sina:shanghai/metro".to_owned()]))).unwrap();
    let mut daemon = city.start().await;
    let body = json!({ "reason": "静默", "to": ["sina:**"] }).to_string();
    let mut asked =
        Request::post("/v1/holds").header("content-type", "application/json").body(Body::from(body)).unwrap();
    asked.extensions_mut().insert(Peer::new(0));
    assert_eq!(fabu::api::router(daemon.inner.clone()).oneshot(asked).await.unwrap().status(), 200);
    std::fs::write(&file, open).unwrap();
    if is_down {
        drop(daemon);
        city.sleep(1).await;
        daemon = city.start().await;
    } else {
        daemon.inner.reload_config().await;
    }
    city.save("a.yaml", &one("a", "早安地铁", "at: 2026-11-24 08:05").replace("[shanghai]", "[shanghai/metro]"));
    daemon.inner.rescan_now().await;
    city.sleep(600).await;
    assert!(city.sandbox.posts().len() > 1, "the other platforms are not held");
    city.sandbox.posts().iter().filter(|p| p.account == "sina:shanghai/metro").count()
}

#[test]
fn r05_a_hold_is_for_the_accounts_that_come_to_be_meant_by_its_names() {
    simulate(async { assert_eq!(opened_while_held(false).await, 0) });
    simulate(async { assert_eq!(opened_while_held(true).await, 0) });
}

#[test]
fn r01_a_clock_that_was_put_back_does_not_hide_a_post_from_its_own_delivery() {
    for minutes in [10, 60] {
        simulate(async {
            let city = City::new(START, 76, "");
            city.save("a.yaml", &one("a", "早安上海", "at: 2026-11-24 08:02"));
            let daemon = city.start().await;
            city.sleep(60).await;
            city.sandbox.set_faults(vec![
                fault(json!({ "behaviour": "reset_after", "operation": "post" })),
                fault(json!({ "behaviour": "proxy_page", "operation": "timeline" })),
            ]);
            city.sleep(400).await;
            city.clock.step(TimeDelta::minutes(-minutes));
            city.sleep(10).await;
            city.sandbox.clear();
            assert!(settled(&city, &daemon, Duration::from_secs(3 * 3600)).await);
            assert_eq!(city.sandbox.posts().len(), 4, "{:?}", city.posts());
        });
    }
}

const TWO: &str = "emergency: {confirm: {red: 2}}\n";

async fn red(city: &City, daemon: &fabu::daemon::Daemon, id: &str) {
    let urgent = Urgent { id: Some(id.to_owned()), ..everywhere("红色警报", Level::Red) };
    let answer = asked(daemon, 1000, urgent).await;
    confirmed(daemon, 1001, &answer).await.unwrap();
    city.sleep(5).await;
    assert_eq!(standing(city, "红色警报"), 15);
}

fn own(text: &str) -> Closed<'_> {
    Closed { text: Some(text), dry_run: false, shown: None }
}

#[test]
fn a_correction_in_own_words_that_waits_keeps_nobody_from_the_standard_words() {
    simulate(async {
        let city = City::new(START, 77, TWO);
        let daemon = city.start().await;
        red(&city, &daemon, "r").await;
        let waiting = daemon.inner.correct(&person(1000), "r", own("自己的话")).await.unwrap();
        assert_eq!(waiting["state"], "awaiting_confirm");
        daemon.inner.correct(&person(1001), "r", Closed::default()).await.unwrap();
        city.sleep(10).await;
        assert_eq!((standing(&city, "【更正】"), standing(&city, "自己的话")), (15, 0));
        let wrong = city.posts().keys().filter(|(_, text)| text.as_str() == "红色警报").count();
        assert_eq!(wrong, 0, "it was taken down");
    });
}

#[test]
fn own_words_that_nobody_agrees_to_take_nothing_down() {
    simulate(async {
        let city = City::new(START, 78, TWO);
        let daemon = city.start().await;
        city.sandbox.set_faults(vec![
            fault(json!({ "behaviour": "reset_after", "operation": "post" })),
            fault(json!({ "behaviour": "proxy_page", "operation": "timeline" })),
        ]);
        let answer = asked(&daemon, 1000, everywhere("红色警报", Level::Red)).await;
        confirmed(&daemon, 1001, &answer).await.unwrap();
        city.sleep(5).await;
        let id = support::duty::text(&answer, "id");
        daemon.inner.correct(&person(1000), &id, own("自己的话")).await.unwrap();
        city.sleep(900).await;
        city.sandbox.clear();
        assert!(settled(&city, &daemon, Duration::from_secs(2 * 3600)).await);
        assert_eq!(standing(&city, "红色警报"), 15, "the words lapsed, and it stands");
    });
}

#[test]
fn an_all_clear_that_was_taken_down_can_be_said_again() {
    simulate(async {
        let city = City::new(START, 79, TWO);
        let daemon = city.start().await;
        red(&city, &daemon, "r").await;
        daemon.inner.all_clear(&person(1000), "r", Closed::default(), &[]).await.unwrap();
        city.sleep(10).await;
        daemon.inner.withdraw(&person(1000), "r-all-clear", Desired::Removed).await.unwrap();
        city.sleep(10).await;
        assert_eq!(standing(&city, "【解除】"), 0);
        daemon.inner.all_clear(&person(1000), "r", Closed::default(), &[]).await.unwrap();
        city.sleep(10).await;
        assert_eq!(standing(&city, "【解除】"), 15);
    });
}

#[test]
fn r13_ones_own_words_about_what_two_answered_for_need_two_whatever_was_said_since() {
    simulate(async {
        let city = City::new(START, 80, TWO);
        let daemon = city.start().await;
        red(&city, &daemon, "r").await;
        let update = Urgent {
            to: vec!["shanghai/metro".to_owned()],
            update: Some("r".to_owned()),
            ..everywhere("降为蓝色", Level::Blue)
        };
        let answer = asked(&daemon, 1000, update).await;
        confirmed(&daemon, 1001, &answer).await.unwrap();
        city.sleep(10).await;
        for closing in ["correct", "all-clear"] {
            let said = match closing {
                "correct" => daemon.inner.correct(&person(1000), "r", own("一个人的话")).await,
                _ => daemon.inner.all_clear(&person(1000), "r", own("一个人的话"), &[]).await,
            };
            assert_eq!(said.unwrap()["persons"]["needed"], 2, "{closing}");
        }
        city.sleep(10).await;
        assert_eq!(standing(&city, "一个人的话"), 0);
    });
}

#[test]
fn r13_a_configuration_that_is_read_again_lets_no_emergency_of_the_queue_go() {
    simulate(async {
        let city = City::new(START, 81, TWO);
        let line = "at: 2026-11-24 08:30, priority: emergency, level: red, expires_after: 2h";
        city.save("a.yaml", &one("a", "红色警报", line).replace("catch_up: 2h, ", ""));
        let daemon = city.start().await;
        let word = async |uid: u32| {
            let filter = fabu::ledger::Filter { announcement: Some("a".to_owned()), max: 1, ..Default::default() };
            let row = daemon.inner.ledger.announcements(filter).await.unwrap().pop().unwrap().row;
            daemon.inner.confirm(&person(uid), "a", row.content.as_str()).await
        };
        word(1000).await.unwrap();
        let file = city.path().join("fabu.yaml");
        let lowered = std::fs::read_to_string(&file).unwrap().replace("red: 2", "red: 1");
        std::fs::write(file, lowered).unwrap();
        daemon.inner.reload_config().await;
        city.sleep(2400).await;
        assert!(city.sandbox.posts().is_empty(), "one word of two, and nobody was asked anew");
    });
}

/// Panics in the hands of whoever reads the queue.
struct Brittle;

#[async_trait]
impl Watch for Brittle {
    async fn committed(&self, ledger: &Sqlite, by: &Actor, changes: Vec<Change>) -> Result<Committed, LedgerError> {
        assert!(*by != Actor::Queue || !changes.iter().any(|c| matches!(c, Change::Add(_))), "a fault in the program");
        ledger.commit(by, changes).await
    }
}

#[test]
fn r23_a_daemon_of_which_a_part_has_panicked_ends() {
    simulate(async {
        let city = City::new(START, 88, "");
        let ledger = Arc::new(city.ledger().await);
        let trust = ledger.trust().clone();
        let between = Between::over(ledger, Arc::new(Brittle));
        let mut daemon = city.start_on(between, trust, Arc::new(city.network())).await;
        assert_eq!(city.clock.timeout(Duration::from_secs(60), daemon.fallen_apart()).await, None, "all is well");
        city.save("a.yaml", &one("a", "早安", "at: 2026-11-24 08:05"));
        let is_over = city.clock.timeout(Duration::from_secs(20), daemon.fallen_apart()).await;
        assert_eq!(is_over, Some(()), "nobody reads the queue any more");
    });
}

/// A red emergency of the queue with the words of two persons leaves before its hour in some way, and its time goes by;
/// then it is there again as it was.
async fn given_up(how: &str) {
    let city = City::new(START, 87, TWO);
    let line = "at: 2026-11-24 08:05, priority: emergency, level: red, expires_after: 2h";
    let text = one("a", "红色警报", line).replace("catch_up: 2h, ", "");
    city.save("a.yaml", &text);
    // One of many: that one is gone is no reason to ask whether the folder is.
    let other = |n: u32| format!("  - {{id: o{n}, text: 第{n}号, to: [shanghai], at: 2026-11-25 08:00}}\n");
    city.save("others.yaml", &format!("announcements:\n{}", (0..20).map(other).collect::<String>()));
    let mut daemon = city.start().await;
    let hash = async |daemon: &fabu::daemon::Daemon| {
        let filter = fabu::ledger::Filter { announcement: Some("a".to_owned()), max: 1, ..Default::default() };
        daemon.inner.ledger.announcements(filter).await.unwrap().pop().unwrap().row.content
    };
    for uid in [1000, 1001] {
        let shown = hash(&daemon).await;
        daemon.inner.confirm(&person(uid), "a", shown.as_str()).await.unwrap();
    }
    let (accounts, file) = (accounts_of(UNITS, &BTreeSet::new()), city.path().join("accounts.yaml"));
    match how {
        "edited" => city.save("a.yaml", &text.replace("红色警报", "不是警报")),
        "gone" => city.save("a.yaml", "announcements: []\n"),
        _ => {
            std::fs::write(&file, accounts_of(UNITS, &BTreeSet::from(["sina:shanghai".to_owned()]))).unwrap();
            daemon.inner.reload_config().await;
        }
    }
    daemon.inner.rescan_now().await;
    city.sleep(1800).await;
    assert!(city.sandbox.posts().is_empty(), "{how}: it was given up");
    if how == "gone" {
        drop(daemon);
        city.sleep(1).await;
        daemon = city.start().await;
    }
    city.save("a.yaml", &text);
    std::fs::write(&file, accounts).unwrap();
    daemon.inner.reload_config().await;
    daemon.inner.rescan_now().await;
    city.sleep(1800).await;
    assert!(city.sandbox.posts().is_empty(), "{how}: it came back, and nobody was asked anew");
}

#[test]
fn r12_what_was_given_up_goes_on_no_word_that_was_given_before() {
    simulate(given_up("edited"));
    simulate(given_up("gone"));
    simulate(given_up("closed"));
}

#[test]
fn what_a_person_let_go_is_not_expired_for_being_older_than_the_newest() {
    simulate(async {
        let city = City::new(START, 89, "");
        let line = r#"repeat: "*/2 * * * *", until: 2026-11-24 08:06"#;
        city.save("a.yaml", &one("a", "整点", line));
        let daemon = city.start().await;
        let hold = support::duty::hold(&daemon, Duration::from_secs(600)).await;
        city.sleep(500).await;
        daemon.inner.end_hold(&person(1000), &hold).await.unwrap();
        assert_eq!(in_state(&all(&daemon).await, State::Held), 12, "three hours on four accounts");
        // The platforms cannot be reached yet, and somebody saves something.
        city.sandbox.set_faults(vec![fault(json!({ "behaviour": "limit", "operation": "post", "for_s": 120.0 }))]);
        daemon.inner.unhold(&person(1000), None).await.unwrap();
        for n in 0..20 {
            city.save(
                "b.yaml",
                &format!("announcements:\n  - {{id: b{n}, text: 明日{n}, to: [shanghai], at: 2026-11-25 08:00}}\n"),
            );
            daemon.inner.rescan_now().await;
            city.sleep(10).await;
        }
        city.sleep(3600).await;
        let rows = all(&daemon).await;
        let of_it = |state| rows.iter().filter(|d| d.announcement.as_str() == "a" && d.state == state).count();
        assert_eq!((of_it(State::Expired), of_it(State::Published)), (0, 12), "{rows:?}");
    });
}

#[test]
fn r52_the_end_of_a_hold_does_not_move_with_a_clock_that_was_put_on_and_back() {
    simulate(async {
        let city = City::new(START, 90, "");
        let daemon = city.start().await;
        support::duty::hold(&daemon, Duration::from_secs(90_000)).await;
        city.clock.step(TimeDelta::hours(26));
        // So long that it is believed.
        for _ in 0..12 {
            fabu::daemon::jobs::every_minute(&daemon.inner).await;
            city.sleep(60).await;
        }
        city.clock.step(TimeDelta::hours(-26));
        city.sleep(10).await;
        assert!(daemon.inner.holds().is_empty());
        city.sandbox.set_faults(vec![fault(
            json!({ "behaviour": "unreachable", "for_s": 30.0, "params": { "kind": "refused" } }),
        )]);
        city.save("a.yaml", &one("a", "早安", "at: 2026-11-24 08:18"));
        daemon.inner.rescan_now().await;
        city.sleep(600).await;
        let rows = all(&daemon).await;
        assert_eq!(in_state(&rows, State::Published), 4, "{rows:?}");
        // The same after a start.
        drop(daemon);
        city.sleep(1).await;
        let daemon = city.start().await;
        city.save("b.yaml", &one("b", "晚安", "at: 2026-11-24 08:35"));
        daemon.inner.rescan_now().await;
        city.sleep(900).await;
        assert_eq!(in_state(&all(&daemon).await, State::Published), 8);
    });
}

#[test]
fn own_words_that_wait_are_not_said_where_the_standard_ones_were_said_meanwhile() {
    simulate(async {
        for closing in ["correct", "all-clear"] {
            let city = City::new(START, 91, TWO);
            let daemon = city.start().await;
            red(&city, &daemon, "r").await;
            let said = |text: Option<&'static str>| {
                let inner = daemon.inner.clone();
                async move {
                    let closed = text.map(own).unwrap_or_default();
                    match closing {
                        "correct" => inner.correct(&person(1000), "r", closed).await,
                        _ => inner.all_clear(&person(1000), "r", closed, &[]).await,
                    }
                }
            };
            let waiting = said(Some("我们自己的话")).await.unwrap();
            said(None).await.unwrap();
            city.sleep(10).await;
            let id = format!("r-{}", if closing == "correct" { "correction" } else { "all-clear" });
            let hash = waiting["content_hash"].as_str().unwrap().to_owned();
            let word = daemon.inner.confirm(&person(1001), &id, &hash).await;
            assert!(matches!(word, Err(ActError::Conflict(_))), "{closing}: {word:?}");
            city.sleep(1200).await;
            assert_eq!(standing(&city, "我们自己的话"), 0, "{closing}: one account is told once");
        }
    });
}

#[test]
fn r02_what_is_written_to_a_ledger_that_nobody_finds_again_is_not_said_to_be_on_disk() {
    simulate(async {
        for how in ["removed", "emptied", "replaced"] {
            let city = City::new(START, 93, "");
            let daemon = city.start().await;
            city.sleep(5).await;
            let file = city.path().join("state/fabu.db");
            match how {
                "removed" => std::fs::remove_file(&file).unwrap(),
                "emptied" => std::fs::write(&file, "").unwrap(),
                _ => {
                    let copy = file.with_extension("copy");
                    std::fs::copy(&file, &copy).unwrap();
                    std::fs::rename(copy, &file).unwrap();
                }
            }
            let urgent = everywhere("请避险", Level::Blue);
            assert!(daemon.inner.urgent(&person(1000), urgent, &[]).await.is_err(), "{how}");
            let troubles = serde_json::to_value(daemon.inner.health()).unwrap()["degraded"].to_string();
            assert!(troubles.contains("ledger"), "{how}: {troubles}");
            city.sleep(60).await;
            assert!(city.sandbox.posts().is_empty(), "{how}");
            // A start finds it gone, and begins no new one.
            assert_eq!(file.exists(), how != "removed");
        }
    });
}

#[test]
fn r12_a_red_one_that_has_expired_is_tried_again_on_no_single_word() {
    simulate(async {
        let city = City::new(START, 92, TWO);
        let daemon = city.start().await;
        city.sandbox.set_faults(vec![fault(json!({ "behaviour": "unreachable", "params": { "kind": "refused" } }))]);
        let urgent = Urgent {
            id: Some("r".to_owned()),
            expires_after: Some(Duration::from_secs(60)),
            ..everywhere("红色警报", Level::Red)
        };
        let answer = asked(&daemon, 1000, urgent).await;
        confirmed(&daemon, 1001, &answer).await.unwrap();
        city.sleep(62).await;
        let rows = all(&daemon).await;
        assert_eq!(in_state(&rows, State::Expired), 15, "known as soon as it is so: {rows:?}");
        assert!(rows.iter().all(|d| d.reason.as_ref().is_some_and(|why| why.en.contains("refused"))), "{rows:?}");
        city.sandbox.clear();
        city.sleep(86_400).await;
        assert!(daemon.inner.retry(&person(1002), "r", None).await.is_err());
        city.sleep(600).await;
        assert!(city.sandbox.posts().is_empty());
    });
}

#[test]
fn no_file_takes_the_place_of_an_emergency_that_was_sent() {
    simulate(async {
        let city = City::new(START, 82, TWO);
        let daemon = city.start().await;
        red(&city, &daemon, "r").await;
        city.save("a.yaml", &one("a", "今日天气晴好", "supersedes: r").replace("catch_up: 2h, ", ""));
        daemon.rescan().await;
        city.sleep(60).await;
        assert_eq!((standing(&city, "红色警报"), standing(&city, "今日天气晴好")), (15, 0));
        let status = daemon.inner.status().await.unwrap();
        let codes: Vec<&str> = status.queue.faults.iter().map(|fault| fault.code).collect();
        assert_eq!(codes, ["supersedes"]);
    });
}

#[test]
fn r19_what_is_tried_again_after_a_start_is_looked_for_first() {
    simulate(async {
        let city = City::new(START, 83, "");
        city.save("a.yaml", &one("a", "早安上海", "at: 2026-11-24 08:02"));
        let daemon = city.start().await;
        city.sandbox.set_faults(vec![fault(json!({ "behaviour": "unfit", "operation": "post" }))]);
        city.sleep(300).await;
        assert_eq!(in_state(&all(&daemon).await, State::Failed), 4);
        city.sandbox.clear();
        let copy = Left::at(&city.path().join("state"));
        daemon.inner.retry(&person(1000), "a", None).await.unwrap();
        city.sleep(60).await;
        assert_eq!(city.sandbox.posts().len(), 4);
        drop(daemon);
        city.sleep(1).await;
        copy.put_back(&city.path().join("state"));
        let daemon = city.start().await;
        daemon.inner.retry(&person(1000), "a", None).await.unwrap();
        assert!(settled(&city, &daemon, Duration::from_secs(3600)).await);
        assert_eq!((city.sandbox.posts().len(), in_state(&all(&daemon).await, State::Published)), (4, 4));
    });
}

#[test]
fn a_call_is_counted_in_the_hour_in_which_it_is_made() {
    simulate(async {
        let city = City::new("2026-11-24T00:50:00Z", 84, "");
        city.save("a.yaml", &one("a", "早安", "at: 2026-11-24 08:59:30"));
        let daemon = city.start().await;
        city.sleep(9 * 60).await;
        let used = |window: i64, budgets: &[(String, i64, u32)]| -> u32 {
            budgets.iter().filter(|(_, at, _)| *at == window).map(|(.., calls)| calls).sum()
        };
        let hour = (city.clock.now().timestamp() + 8 * 3600) / 3600;
        let before = daemon.inner.ledger.snapshot().await.unwrap().budgets;
        // It waits for its instant, and the clock is put on over the full hour.
        city.clock.step(TimeDelta::minutes(3));
        city.sleep(60).await;
        assert_eq!(city.posts().len(), 4);
        let after = daemon.inner.ledger.snapshot().await.unwrap().budgets;
        assert_eq!(used(hour, &after), used(hour, &before), "nothing more in the hour that was over");
        assert_eq!(used(hour + 1, &after), 1, "tencent counts by the hour: {after:?}");
    });
}

#[test]
fn what_was_cancelled_and_is_out_all_the_same_takes_its_place() {
    simulate(async {
        let city = City::new(START, 85, "");
        let old = one("a", "旧通知", "at: 2026-11-24 08:02").replace("announcements:\n", "");
        let new = one("b", "新通知", "at: 2026-11-24 08:04, supersedes: a").replace("announcements:\n", "");
        city.save("a.yaml", &format!("announcements:\n{old}{new}"));
        let daemon = city.start().await;
        city.sleep(230).await;
        city.sandbox.set_faults(vec![fault(json!({ "behaviour": "reset_after", "operation": "post" }))]);
        city.sleep(11).await;
        daemon.inner.withdraw(&person(1000), "b", Desired::Stopped).await.unwrap();
        city.sandbox.clear();
        city.sleep(400).await;
        assert_eq!((standing(&city, "新通知"), standing(&city, "旧通知")), (4, 0));
    });
}

/// The secret of one account is put in the place of another's after a post was prepared.
#[test]
fn what_is_ready_does_not_go_with_a_secret_that_is_another_accounts() {
    for restarts in [false, true] {
        simulate(async {
            let city = City::new(START, 31, "");
            let one = |n: usize| {
                format!("  - {{id: a{n}, text: 浦东通知{n}, at: 2026-11-24 08:10, to: [\"sina:shanghai/pudong\"]}}\n")
            };
            city.save("a.yaml", &format!("announcements:\n{}{}{}", one(1), one(2), one(3)));
            let mut daemon = city.start().await;
            city.sleep(575).await;
            assert_eq!(in_state(&all(&daemon).await, State::Ready), 3);
            let file = city.path().join("accounts.yaml");
            let good = std::fs::read_to_string(&file).unwrap();
            std::fs::write(&file, good.replace("T_SINA_SHANGHAI_PUDONG\"", "T_SINA_SHANGHAI_METRO\"")).unwrap();
            if restarts {
                daemon.stop().await;
                daemon = city.start().await;
            } else {
                daemon.inner.reload_config().await;
            }
            city.sleep(60).await;
            assert!(city.sandbox.posts().is_empty(), "{:?}", city.posts());
            std::fs::write(&file, good).unwrap();
            daemon.inner.reload_config().await;
            // Where it was given up by then, a person tries it again.
            for id in ["a1", "a2", "a3"] {
                drop(daemon.inner.retry(&person(1000), id, None).await);
            }
            city.sleep(1200).await;
            let rows = all(&daemon).await;
            assert_eq!(in_state(&rows, State::Published), 3, "{rows:?}");
            let posts: Vec<String> = city.posts().into_keys().map(|(account, _)| account).collect();
            assert_eq!(posts, ["sina:shanghai/pudong"; 3]);
        });
    }
}

/// Its timeline would be another account's: that it shows nothing says nothing.
#[test]
fn r08_what_is_in_doubt_is_not_looked_for_with_the_secret_of_another_account() {
    simulate(async {
        let city = City::new(START, 32, "");
        let daemon = city.start().await;
        let lost =
            json!({ "behaviour": "reset_after", "operation": "post", "account": "sina:shanghai/pudong", "times": 1 });
        let blind = json!({ "behaviour": "proxy_page", "operation": "timeline", "account": "sina:shanghai/pudong" });
        support::duty::faults(&city, json!([lost, blind]));
        city.save("a.yaml", "announcements:\n  - {id: a, text: 浦东通知, to: [\"sina:shanghai/pudong\"]}\n");
        daemon.inner.rescan_now().await;
        city.sleep(5).await;
        assert_eq!(in_state(&all(&daemon).await, State::Unknown), 1);
        let file = city.path().join("accounts.yaml");
        let good = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, good.replace("T_SINA_SHANGHAI_PUDONG\"", "T_SINA_SHANGHAI_METRO\"")).unwrap();
        daemon.inner.reload_config().await;
        support::duty::faults(&city, json!([]));
        city.sleep(1200).await;
        assert_eq!(in_state(&all(&daemon).await, State::Unknown), 1, "{:?}", all(&daemon).await);
        std::fs::write(&file, good).unwrap();
        daemon.inner.reload_config().await;
        city.sleep(4 * 3600).await;
        assert_eq!(in_state(&all(&daemon).await, State::Published), 1, "{:?}", all(&daemon).await);
        assert_eq!(city.sandbox.posts().len(), 1);
    });
}

/// The ledger is an older copy, with the mark beside it as it is; or there is neither.
fn loses_its_ledger(city: &City, copy: Option<&Left>) {
    let state = city.path().join("state");
    for name in ["fabu.db", "fabu.db-wal", "fabu.db-shm"] {
        std::fs::remove_file(state.join(name)).unwrap_or_default();
    }
    match copy {
        Some(copy) => {
            std::fs::write(state.join("fabu.db"), &copy.ledger).unwrap();
            std::fs::write(state.join("fabu.db-wal"), &copy.log).unwrap();
        }
        None => std::fs::remove_file(state.join("fabu.db.mark")).unwrap_or_default(),
    }
}

/// A start that finds the queue not mounted, and is stopped: what it found out about the ledger is not forgotten.
async fn without_its_folder(city: &City) {
    let (queue, away) = (city.path().join("queue"), city.path().join("away"));
    std::fs::rename(&queue, &away).unwrap();
    let daemon = city.start().await;
    city.sleep(2).await;
    drop(daemon);
    city.sleep(1).await;
    std::fs::rename(&away, &queue).unwrap();
}

/// A file that says no hour was published a while ago; then the ledger is an older copy, or a new one.
#[test]
fn r19_what_goes_at_once_is_known_again_however_long_ago_it_went() {
    for (copied, hours, twice) in [(true, 25, false), (true, 24 * 20, true), (false, 25, true), (false, 24 * 20, false)]
    {
        simulate(async {
            let city = City::new(START, 1801, "");
            let daemon = city.start().await;
            city.sleep(10).await;
            let copy = Left::at(&city.path().join("state"));
            city.save("a.yaml", "announcements:\n  - {id: a, text: 早安上海, to: [shanghai]}\n");
            city.sleep(200).await;
            assert_eq!(city.sandbox.posts().len(), 4);
            drop(daemon);
            city.sleep(hours * 3600).await;
            loses_its_ledger(&city, copied.then_some(&copy));
            if twice {
                without_its_folder(&city).await;
            }
            let daemon = city.start().await;
            city.sleep(2 * 3600).await;
            assert_eq!(city.sandbox.posts().len(), 4, "{copied} {hours} {twice}: {:?}", all(&daemon).await);
        });
    }
}

/// The platform lists its posts late, and the ledger that comes back does not know of the one that has just gone.
#[test]
fn r08_absence_is_not_believed_at_the_first_look_where_the_ledger_is_behind() {
    for (copied, when) in [(true, ", at: 2026-11-24 08:02"), (false, ", at: 2026-11-24 08:02"), (true, ""), (false, "")]
    {
        simulate(async {
            let city = City::new(START, 1802, "");
            city.sandbox.set_faults(vec![fault(json!({
                "behaviour": "delayed", "operation": "post", "params": { "seconds": 90, "kind": "silent" }
            }))]);
            let daemon = city.start().await;
            city.sleep(10).await;
            let copy = Left::at(&city.path().join("state"));
            city.sleep(108).await;
            city.save("a.yaml", &format!("announcements:\n  - {{id: a, text: 早安上海, to: [shanghai]{when}}}\n"));
            city.sleep(8).await;
            drop(daemon);
            city.sleep(1).await;
            loses_its_ledger(&city, copied.then_some(&copy));
            city.sandbox.clear();
            without_its_folder(&city).await;
            let daemon = city.start().await;
            city.sleep(2 * 3600).await;
            assert_eq!(city.sandbox.posts().len(), 4, "{copied} {when}: {:?}", all(&daemon).await);
        });
    }
}

/// A platform answers with an older post of the account's, and this process did not send that one.
#[test]
fn r09_a_post_that_was_somebodys_before_the_start_is_nobodys_receipt_after_it() {
    simulate(async {
        let city = City::new(START, 1803, "");
        let of = |id: &str, text: &str, at: &str| {
            format!("  - {{id: {id}, text: {text}, to: [\"sina:shanghai\"], at: 2026-11-24 {at}}}\n")
        };
        let all_of = of("a", "早安上海", "08:02") + &of("b", "午安上海", "08:03") + &of("c", "晚安上海", "08:20");
        city.save("a.yaml", &format!("announcements:\n{all_of}"));
        let daemon = city.start().await;
        city.sleep(600).await;
        let first = city.sandbox.posts()[0].id.clone();
        drop(daemon);
        let daemon = city.start().await;
        city.sandbox.set_faults(vec![fault(json!({
            "behaviour": "odd_id", "operation": "post", "params": { "value": first }
        }))]);
        city.sleep(660).await;
        city.sandbox.clear();
        city.sleep(1200).await;
        let rows = all(&daemon).await;
        let id_of = |name: &str| {
            let row = rows.iter().find(|d| d.announcement.as_str() == name).unwrap();
            row.receipt.as_ref().map(|receipt| receipt.post_id.clone())
        };
        let posts = city.sandbox.posts();
        assert_eq!(posts.len(), 3);
        assert_eq!((id_of("a"), id_of("c")), (Some(first), Some(posts[2].id.clone())), "{rows:?}");
    });
}

/// An edit lands between the moment in which what is held is read and that in which it is let go.
struct Editor {
    path: std::path::PathBuf,
    text: String,
    is_armed: std::sync::atomic::AtomicBool,
    rescan: std::sync::Mutex<Option<Arc<fabu::daemon::Inner>>>,
}

#[async_trait]
impl Watch for Editor {
    async fn committed(&self, ledger: &Sqlite, by: &Actor, changes: Vec<Change>) -> Result<Committed, LedgerError> {
        let lets_go = changes.iter().any(|change| matches!(change, Change::Step(step) if step.from == State::Held));
        if lets_go && *by != Actor::Queue && self.is_armed.swap(false, std::sync::atomic::Ordering::SeqCst) {
            std::fs::write(&self.path, &self.text).unwrap();
            let inner = self.rescan.lock().unwrap().clone().unwrap();
            inner.rescan_now().await;
        }
        ledger.commit(by, changes).await
    }
}

#[test]
fn r52_what_is_edited_in_the_moment_in_which_it_is_let_go_is_let_go() {
    for resume in [true, false] {
        simulate(async {
            let after = if resume { "resume" } else { "review" };
            let city = City::new(START, 1804, &format!("emergency: {{after_hold: {after}}}\n"));
            city.save("a.yaml", &one("a", "早安", "at: 2026-11-24 08:02"));
            let ledger = Arc::new(city.ledger().await);
            let trust = ledger.trust().clone();
            let editor = Arc::new(Editor {
                path: city.queue("a.yaml"),
                text: one("a", "您早", "at: 2026-11-24 08:02"),
                is_armed: false.into(),
                rescan: std::sync::Mutex::default(),
            });
            let between = Between::over(ledger, editor.clone());
            let daemon = city.start_on(between, trust, Arc::new(city.network())).await;
            *editor.rescan.lock().unwrap() = Some(daemon.inner.clone());
            let hold = support::duty::hold(&daemon, Duration::from_secs(3600)).await;
            city.sleep(300).await;
            assert_eq!(in_state(&all(&daemon).await, State::Held), 4);
            let arm = || editor.is_armed.store(true, std::sync::atomic::Ordering::SeqCst);
            if resume {
                arm();
            }
            daemon.inner.end_hold(&person(1000), &hold).await.unwrap();
            if !resume {
                arm();
                assert_eq!(daemon.inner.unhold(&person(1000), Some("a")).await.unwrap().released, 4);
            }
            city.sleep(60).await;
            let said: Vec<String> = city.sandbox.posts().into_iter().map(|post| post.text).collect();
            assert_eq!(said, ["您早"; 4], "{after}: {:?}", all(&daemon).await);
            *editor.rescan.lock().unwrap() = None;
        });
    }
}

/// A burst on one account whose ledger is new: while the last doubts are settled the first posts are on their way, and
/// stand there in other words.
#[test]
fn no_person_is_called_for_a_post_whose_own_answer_is_under_way() {
    simulate(async {
        let city = City::new(START, 1804, "");
        city.sandbox.set_faults(vec![
            fault(json!({ "behaviour": "rewritten", "params": { "kind": "filtered" } })),
            fault(json!({ "behaviour": "slow_key", "params": { "seconds": 3 } })),
        ]);
        let of = |n: u32| {
            format!("  - {{id: a{n}, text: 地铁二号线第 {}35 班恢复运营，请放心, to: [\"xinmin:shanghai\"]}}\n", n + 10)
        };
        city.save("a.yaml", &format!("announcements:\n{}", (0..12).map(of).collect::<String>()));
        let daemon = city.start().await;
        for _ in 0..600 {
            city.sleep(1).await;
            let rows = all(&daemon).await;
            assert!(rows.iter().all(|row| !row.needs_person), "{rows:?}");
        }
        let rows = all(&daemon).await;
        assert_eq!((in_state(&rows, State::Published), city.sandbox.posts().len()), (12, 12), "{rows:?}");
    });
}

/// An emergency of the queue failed on an account, its silence is over, and the daemon has started again since.
#[test]
fn r05_what_is_tried_again_brings_no_second_silence() {
    simulate(async {
        let city = City::new(START, 1805, "");
        let line = "at: 2026-11-24 08:05, priority: emergency, level: red, expires_after: 6h";
        city.save(
            "a.yaml",
            &one("a", "红色警报", line).replace("catch_up: 2h, ", "").replace("[shanghai]", "[\"sina:shanghai\"]"),
        );
        let daemon = city.start().await;
        let filter = fabu::ledger::Filter { announcement: Some("a".to_owned()), max: 1, ..Default::default() };
        let row = daemon.inner.ledger.announcements(filter).await.unwrap().pop().unwrap().row;
        for uid in [1000, 1001] {
            let _ = daemon.inner.confirm(&person(uid), "a", row.content.as_str()).await;
        }
        city.sandbox.set_faults(vec![fault(json!({ "behaviour": "unfit", "operation": "post" }))]);
        city.sleep(400).await;
        assert_eq!(in_state(&all(&daemon).await, State::Failed), 1);
        let hold = daemon.inner.holds().pop().expect("it fell silent");
        daemon.inner.end_hold(&person(1000), &hold.id).await.unwrap();
        drop(daemon);
        city.sleep(1).await;
        city.sandbox.clear();
        let daemon = city.start().await;
        city.sleep(5).await;
        daemon.inner.retry(&person(1000), "a", None).await.unwrap();
        city.sleep(1200).await;
        assert_eq!(standing(&city, "红色警报"), 1);
        assert!(daemon.inner.holds().is_empty(), "{:?}", daemon.inner.holds());
    });
}

/// The copy that comes back does not know the post, and its file has been given other words since it went out.
#[test]
fn r19_what_was_reworded_after_it_went_out_is_not_published_again_after_a_restore() {
    for has_seen in [false, true] {
        simulate(async {
            let city = City::new(START, 1806, "");
            let of = |text: &str| one("a", text, "at: 2026-11-24 08:02");
            if has_seen {
                city.save("a.yaml", &of("今晚停水，请储水"));
            }
            let daemon = city.start().await;
            city.sleep(30).await;
            let copy = Left::at(&city.path().join("state"));
            city.save("a.yaml", &of("今晚停水，请储水"));
            city.sleep(170).await;
            city.save("a.yaml", &of("明早地铁二号线停运"));
            daemon.rescan().await;
            city.sleep(10).await;
            assert_eq!(city.sandbox.posts().len(), 4);
            drop(daemon);
            city.sleep(1).await;
            copy.put_back(&city.path().join("state"));
            let daemon = city.start().await;
            city.sleep(3600).await;
            assert_eq!(
                city.sandbox.posts().len(),
                4,
                "{has_seen}: {:?}",
                all(&daemon)
                    .await
                    .iter()
                    .map(|d| (d.account.to_string(), d.state, d.attempt, d.begun_at, d.reason.clone()))
                    .collect::<Vec<_>>()
            );
        });
    }
}

/// Saved while nobody was there to read it: its office is told that it was not published.
#[test]
fn what_was_past_when_it_was_first_read_is_told_and_counted() {
    simulate(async {
        let city = City::new(START, 1807, "");
        city.save("a.yaml", &one("a", "昨日停水", "at: 2026-11-23 20:00"));
        let daemon = city.start().await;
        city.sleep(60).await;
        assert_eq!(in_state(&all(&daemon).await, State::Expired), 4);
        let figures = daemon.inner.metrics.text(&std::collections::BTreeMap::new());
        assert!(figures.contains("fabu_deliveries_missed_total 4"), "{figures}");
    });
}

/// More persons are asked for by today's configuration than by that of the day on which it went out.
#[test]
fn a_configuration_that_asks_for_more_persons_is_no_edit_of_what_is_out() {
    simulate(async {
        let city = City::new(START, 1808, "");
        let line = "at: 2026-11-24 08:05, priority: emergency, level: blue";
        city.save("a.yaml", &one("a", "蓝色预警", line).replace("catch_up: 2h, ", ""));
        let daemon = city.start().await;
        let filter = || fabu::ledger::Filter { announcement: Some("a".to_owned()), max: 1, ..Default::default() };
        let row = daemon.inner.ledger.announcements(filter()).await.unwrap().pop().unwrap().row;
        daemon.inner.confirm(&person(1000), "a", row.content.as_str()).await.unwrap();
        city.sleep(400).await;
        assert_eq!(standing(&city, "蓝色预警"), 4);
        let file = city.path().join("fabu.yaml");
        let text = std::fs::read_to_string(&file).unwrap() + "emergency: {confirm: {blue: 2}}\n";
        std::fs::write(file, text).unwrap();
        daemon.inner.reload_config().await;
        city.sleep(60).await;
        let row = daemon.inner.ledger.announcements(filter()).await.unwrap().pop().unwrap().row;
        assert_eq!(row.edited, None);
    });
}
