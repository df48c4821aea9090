//! The queue folder: what saving, moving, removing and breaking files does, and does not do.

mod support;

use std::time::Duration;

use fabu::core::delivery::{Delivery, State};
use fabu::daemon::answers::Trouble;
use serde_json::json;
use support::{City, all, in_state, settled, simulate};

const START: &str = "2026-11-24T00:00:00Z";

fn one(id: &str, text: &str, at: &str) -> String {
    format!("  - id: {id}\n    text: {text}\n    at: {at}\n    to: [shanghai]\n")
}

fn file(entries: &[String]) -> String {
    format!("announcements:\n{}", entries.concat())
}

#[test]
fn an_announcement_goes_out_at_its_hour_on_all_platforms_with_a_receipt_each() {
    simulate(async {
        let city = City::new(START, 1, "");
        city.save("a.yaml", &file(&[one("a", "早安，上海！", "2026-11-24 08:10")]));
        let daemon = city.start().await;
        assert!(settled(&city, &daemon, Duration::from_secs(1200)).await);
        let rows = all(&daemon).await;
        assert_eq!(in_state(&rows, State::Published), 4);
        assert!(rows.iter().all(|d| d.receipt.is_some() && d.lateness_ms.is_some_and(|ms| (0.0..50.0).contains(&ms))));
        let posts = city.sandbox.posts();
        assert_eq!(posts.len(), 4);
        assert!(posts.iter().all(|p| p.text == "早安，上海！" && p.created >= support::utc("2026-11-24T00:10:00Z")));
    });
}

#[test]
fn r03_an_edit_before_its_hour_replaces_and_after_it_changes_nothing() {
    simulate(async {
        let city = City::new(START, 2, "");
        city.save("a.yaml", &file(&[one("a", "旧", "2026-11-24 08:10")]));
        let daemon = city.start().await;
        city.save("a.yaml", &file(&[one("a", "新", "2026-11-24 08:12")]));
        daemon.rescan().await;
        assert!(settled(&city, &daemon, Duration::from_secs(1200)).await);
        assert!(
            city.sandbox.posts().iter().all(|p| p.text == "新" && p.created >= support::utc("2026-11-24T00:12:00Z"))
        );
        city.save("a.yaml", &file(&[one("a", "更新", "2026-11-24 09:00")]));
        daemon.rescan().await;
        city.sleep(7200).await;
        assert_eq!(city.sandbox.posts().len(), 4, "never published again");
        let events = daemon.inner.ledger.events(0, 10_000).await.unwrap();
        assert_eq!(events.iter().filter(|e| e.kind == "edited_after_publication").count(), 1);
    });
}

#[test]
fn an_edit_while_it_is_prepared_goes_out_as_edited() {
    simulate(async {
        let city = City::new(START, 3, "");
        city.save("a.yaml", &file(&[one("a", "旧", "2026-11-24 08:02")]));
        let daemon = city.start().await;
        city.sleep(100).await;
        assert_eq!(in_state(&all(&daemon).await, State::Ready), 4, "the lead has begun");
        city.save("a.yaml", &file(&[one("a", "新", "2026-11-24 08:02")]));
        daemon.rescan().await;
        assert!(settled(&city, &daemon, Duration::from_secs(600)).await);
        assert!(city.sandbox.posts().iter().all(|p| p.text == "新"));
        assert_eq!(city.sandbox.posts().len(), 4);
    });
}

#[test]
fn r03_a_removed_one_is_cancelled_and_one_that_comes_back_goes() {
    simulate(async {
        let city = City::new(START, 4, "");
        let (a, b) = (one("a", "甲", "2026-11-24 08:10"), one("b", "乙", "2026-11-24 08:10"));
        city.save("a.yaml", &file(&[a.clone(), b.clone()]));
        let daemon = city.start().await;
        city.save("a.yaml", &file(std::slice::from_ref(&b)));
        daemon.rescan().await;
        assert_eq!(in_state(&all(&daemon).await, State::Cancelled), 4);
        city.save("other/c.yml", &file(&[a]));
        daemon.rescan().await;
        assert!(settled(&city, &daemon, Duration::from_secs(1200)).await);
        assert_eq!(in_state(&all(&daemon).await, State::Published), 8);
    });
}

#[test]
fn r03_a_folder_emptied_removed_or_unreadable_cancels_nothing() {
    simulate(async {
        let city = City::new(START, 5, "");
        city.save("a.yaml", &file(&[one("a", "甲", "2026-11-24 08:10")]));
        let daemon = city.start().await;
        std::fs::remove_file(city.queue("a.yaml")).unwrap();
        daemon.rescan().await;
        assert_eq!(daemon.inner.health().degraded, [Trouble::AwaitingPrune]);
        std::fs::rename(city.path().join("queue"), city.path().join("away")).unwrap();
        daemon.rescan().await;
        assert!(daemon.inner.health().degraded.contains(&Trouble::QueueFolder));
        std::fs::write(city.path().join("queue"), "a file now").unwrap();
        daemon.rescan().await;
        assert!(settled(&city, &daemon, Duration::from_secs(1200)).await);
        assert_eq!(in_state(&all(&daemon).await, State::Published), 4, "what was planned goes out");
    });
}

#[test]
fn a_prune_that_is_accepted_cancels() {
    simulate(async {
        let city = City::new(START, 6, "");
        city.save("a.yaml", &file(&[one("a", "甲", "2026-11-24 08:10")]));
        let daemon = city.start().await;
        std::fs::remove_file(city.queue("a.yaml")).unwrap();
        daemon.rescan().await;
        let hash = fabu_prune(&daemon);
        let by = fabu::core::change::Actor::Person { uid: 1000, name: "editor".to_owned() };
        assert!(daemon.inner.prune(&by, true, "another").await.is_err());
        daemon.inner.prune(&by, true, &hash).await.unwrap();
        assert_eq!(in_state(&all(&daemon).await, State::Cancelled), 4);
    });
}

fn fabu_prune(daemon: &fabu::daemon::Daemon) -> String {
    daemon.inner.state.lock().unwrap().prune.clone().unwrap().hash
}

#[test]
fn r03_a_broken_file_leaves_its_last_good_version_and_its_neighbours_stand() {
    simulate(async {
        let city = City::new(START, 7, "");
        city.save("a.yaml", &file(&[one("a", "甲", "2026-11-24 08:10")]));
        city.save("b.yaml", &file(&[one("b", "乙", "2026-11-24 08:10")]));
        let daemon = city.start().await;
        city.save("a.yaml", "announcements:\n  - id: a\n    text: \"unclosed\n");
        city.save(
            "b.yaml",
            &file(&[one("b", "乙改", "2026-11-24 08:10"), "  - id: c\n    txet: x\n    to: [shanghai]\n".to_owned()]),
        );
        daemon.rescan().await;
        assert!(settled(&city, &daemon, Duration::from_secs(1200)).await);
        let mut texts: Vec<String> = city.sandbox.posts().into_iter().map(|p| p.text).collect();
        texts.sort();
        texts.dedup();
        assert_eq!(texts, ["乙改", "甲"]);
    });
}

#[test]
fn r10_a_repeat_comes_each_day_once_whatever_the_clock_does() {
    simulate(async {
        let city = City::new(START, 8, "");
        let repeat =
            "  - id: m\n    text: 早安\n    repeat: \"0 9 * * *\"\n    to: [\"eastday:shanghai\"]\n".to_owned();
        city.save("a.yaml", &file(&[repeat]));
        let daemon = city.start().await;
        city.sleep(3600 + 600).await;
        assert_eq!(city.sandbox.posts().len(), 1);
        city.clock.step(chrono::TimeDelta::hours(-1));
        city.sleep(2 * 3600).await;
        assert_eq!(city.sandbox.posts().len(), 1, "the clock went back, the occurrence did not");
        city.sleep(24 * 3600).await;
        assert_eq!(city.sandbox.posts().len(), 2);
        drop(daemon);
    });
}

#[test]
fn r11_what_was_missed_goes_within_catch_up_and_not_later() {
    simulate(async {
        let city = City::new(START, 9, "");
        let soon = one("soon", "赶上", "2026-11-24 08:10") + "    catch_up: 2h\n";
        let late = one("late", "错过", "2026-11-24 08:10") + "    expires_after: 20m\n";
        city.save("a.yaml", &file(&[soon, late]));
        drop(city.start().await);
        city.sleep(3600).await;
        let daemon = city.start().await;
        assert!(settled(&city, &daemon, Duration::from_secs(1200)).await);
        assert!(city.sandbox.posts().iter().all(|p| p.text == "赶上"));
        let rows = all(&daemon).await;
        assert_eq!((in_state(&rows, State::Published), in_state(&rows, State::Expired)), (4, 4));
    });
}

/// How many deliveries of each occurrence are in which state.
fn counted(rows: &[Delivery]) -> std::collections::BTreeMap<(String, &'static str), usize> {
    let mut found = std::collections::BTreeMap::new();
    for row in rows {
        *found.entry((row.occurrence.to_string(), row.state.as_str())).or_default() += 1;
    }
    found
}

#[test]
fn r11_of_what_a_repeat_missed_only_the_newest_goes() {
    simulate(async {
        let city = City::new(START, 15, "");
        city.save(
            "a.yaml",
            "announcements:\n  - {id: rep, text: 每十秒, repeat: \"*/10 * * * * *\", until: 2026-11-24 08:05, to: [\"eastday:shanghai\", \"xinmin:shanghai\"]}\n",
        );
        let daemon = city.start().await;
        city.sleep(60).await;
        daemon.stop().await;
        let before = city.sandbox.posts().len();
        city.sleep(95).await;
        let daemon = city.start().await;
        city.sleep(5).await;
        let texts = city.sandbox.posts().len() - before;
        // Of the eleven hours that came meanwhile the newest three are within the grace of thirty seconds.
        assert!((2..=3 * 2).contains(&texts), "{texts} posts in five seconds");
        assert!(settled(&city, &daemon, Duration::from_secs(1200)).await);
        let rows = all(&daemon).await;
        let missed: Vec<_> = rows.iter().filter(|d| d.state == State::Expired).collect();
        assert!(missed.len() >= 6 * 2, "{:?}", counted(&rows));
        assert!(missed.iter().all(|d| d.reason.as_ref().unwrap().en.contains("newer occurrence")), "{missed:?}");
        let out = city.sandbox.posts().len();
        assert_eq!(in_state(&rows, State::Published), out, "what is said to be left out is not there");
    });
}

#[test]
fn r11_what_a_person_lets_go_of_a_repeat_is_overtaken_by_nothing() {
    simulate(async {
        let city = City::new(START, 17, "");
        let text = "announcements:\n  - {id: rep, text: 每分, repeat: \"* * * * *\", until: 2026-11-24 08:04, to: [\"xinmin:shanghai\"]}\n";
        city.save("a.yaml", text);
        let daemon = city.start().await;
        support::duty::hold(&daemon, Duration::from_secs(300)).await;
        city.sleep(330).await;
        let held: Vec<String> = all(&daemon)
            .await
            .into_iter()
            .filter(|d| d.state == State::Held)
            .map(|d| d.occurrence.to_string())
            .collect();
        assert!(held.len() >= 3, "{:?}", counted(&all(&daemon).await));
        city.sandbox.set_faults(vec![support::fault(json!({ "behaviour": "unreachable", "platform": "xinmin" }))]);
        for occurrence in &held {
            daemon.inner.unhold(&support::duty::person(1000), Some(occurrence)).await.unwrap();
            city.sleep(1).await;
        }
        city.sleep(120).await;
        city.sandbox.set_faults(Vec::new());
        city.sleep(1200).await;
        assert_eq!(in_state(&all(&daemon).await, State::Published), held.len(), "{:?}", counted(&all(&daemon).await));
    });
}

#[test]
fn r11_while_a_platform_is_down_the_hours_of_a_repeat_do_not_pile_up() {
    simulate(async {
        let city = City::new(START, 16, "");
        let text = "announcements:\n  - {id: rep, text: 每分, repeat: \"* * * * *\", until: 2026-11-24 08:09, to: [\"sina:shanghai\"]}\n";
        city.save("a.yaml", text);
        city.sandbox.set_faults(vec![support::fault(json!({ "behaviour": "unreachable", "platform": "sina" }))]);
        let daemon = city.start().await;
        city.sleep(7 * 60).await;
        city.sandbox.set_faults(Vec::new());
        assert!(settled(&city, &daemon, Duration::from_secs(3600)).await);
        let rows = all(&daemon).await;
        let published = in_state(&rows, State::Published);
        assert!((3..=4).contains(&published), "the newest that was missed, and the rest: {:?}", counted(&rows));
        assert_eq!(in_state(&rows, State::Expired), rows.len() - published, "{:?}", counted(&rows));
    });
}

#[test]
fn what_is_superseded_is_taken_down_account_by_account_once_the_new_one_is_out() {
    simulate(async {
        let city = City::new(START, 10, "");
        let old =
            "  - id: old\n    text: 旧通知\n    at: 2026-11-24 08:05\n    to: [shanghai, shanghai/pudong]\n".to_owned();
        let new = one("new", "新通知", "2026-11-24 08:10") + "    supersedes: old\n";
        city.save("a.yaml", &file(&[old, new]));
        city.sandbox.set_faults(vec![support::fault(
            json!({ "behaviour": "error", "platform": "sina", "operation": "post", "text": "新通知", "params": { "code": 20018 } }),
        )]);
        let daemon = city.start().await;
        assert!(settled(&city, &daemon, Duration::from_secs(2400)).await);
        let standing: Vec<(String, String)> = city.posts().into_keys().collect();
        let has = |account: &str, text: &str| standing.contains(&(account.to_owned(), text.to_owned()));
        assert!(has("sina:shanghai", "旧通知"), "the new one is not there, so the old one stays");
        assert!(!has("tencent:shanghai", "旧通知") && has("tencent:shanghai", "新通知"));
        assert!(has("tencent:shanghai/pudong", "旧通知"), "the new one does not reach it");
    });
}

#[test]
fn an_emergency_in_the_queue_is_not_sent_without_its_persons() {
    simulate(async {
        let city = City::new(START, 11, "");
        city.save("a.yaml", &file(&[one("e", "紧急", "2026-11-24 08:05") + "    priority: emergency\n"]));
        let daemon = city.start().await;
        assert!(settled(&city, &daemon, Duration::from_secs(7200)).await);
        assert_eq!(city.sandbox.posts().len(), 0);
        assert_eq!(in_state(&all(&daemon).await, State::Expired), 4);
    });
}

#[test]
fn r19_a_restored_ledger_looks_before_it_sends() {
    simulate(async {
        let city = City::new(START, 12, "");
        city.save("a.yaml", &file(&[one("a", "甲", "2026-11-24 08:01")]));
        let daemon = city.start().await;
        assert!(settled(&city, &daemon, Duration::from_secs(600)).await);
        daemon.stop().await;
        drop(city.ledger().await);
        let state = city.path().join("state");
        let copy = |from: &str, to: &str| {
            for name in ["fabu.db", "fabu.db-wal", "fabu.db-shm"] {
                let (from, to) = (state.join(format!("{from}{name}")), state.join(format!("{to}{name}")));
                std::fs::remove_file(&to).unwrap_or_default();
                std::fs::copy(from, to).map(|_| ()).unwrap_or_default();
            }
        };
        copy("", "old-");
        let daemon = city.start().await;
        city.save("b.yaml", "announcements:\n  - {id: b, text: 乙, to: [shanghai]}\n");
        daemon.rescan().await;
        assert!(settled(&city, &daemon, Duration::from_secs(600)).await);
        assert_eq!(city.sandbox.posts().len(), 8);
        daemon.stop().await;
        drop(city.ledger().await);
        copy("old-", "");
        let daemon = city.start().await;
        assert!(settled(&city, &daemon, Duration::from_secs(3600)).await);
        assert_eq!(city.sandbox.posts().len(), 8, "nothing is sent twice");
        assert_eq!(in_state(&all(&daemon).await, State::Published), 8);
    });
}

#[test]
fn r06_what_a_person_cancels_does_not_go_and_an_edit_does_not_bring_it_back() {
    simulate(async {
        let city = City::new(START, 13, "");
        city.save("a.yaml", &file(&[one("a", "甲", "2026-11-24 08:10")]));
        let daemon = city.start().await;
        let by = fabu::core::change::Actor::Person { uid: 1000, name: "editor".to_owned() };
        let stopped = fabu::core::delivery::Desired::Stopped;
        let answer = daemon.inner.withdraw(&by, "a", stopped).await.unwrap();
        assert_eq!(answer.cancelled, 4);
        city.save("a.yaml", &file(&[one("a", "甲改", "2026-11-24 08:12")]));
        daemon.rescan().await;
        assert!(settled(&city, &daemon, Duration::from_secs(1200)).await);
        assert_eq!(city.sandbox.posts().len(), 0);
        assert!(daemon.inner.withdraw(&by, "a", stopped).await.is_err(), "there is nothing left to cancel");
        assert!(daemon.inner.withdraw(&by, "nothing", stopped).await.is_err());
    });
}

#[test]
fn r06_a_delete_is_tried_again_until_each_platform_confirms() {
    simulate(async {
        let city = City::new(START, 14, "");
        city.save("a.yaml", &file(&[one("a", "甲", "2026-11-24 08:02")]));
        let daemon = city.start().await;
        assert!(settled(&city, &daemon, Duration::from_secs(600)).await);
        let lost = json!({ "behaviour": "reset_before", "operation": "delete", "times": 3 });
        let page = json!({ "behaviour": "proxy_page", "operation": "show", "platform": "xinmin", "times": 2 });
        city.sandbox.set_faults(vec![support::fault(lost), support::fault(page)]);
        let by = fabu::core::change::Actor::Person { uid: 1000, name: "editor".to_owned() };
        daemon.inner.withdraw(&by, "a", fabu::core::delivery::Desired::Removed).await.unwrap();
        assert!(settled(&city, &daemon, Duration::from_secs(3600)).await);
        assert!(city.sandbox.posts().iter().all(|p| p.deleted));
        assert_eq!(in_state(&all(&daemon).await, State::Deleted), 4);
    });
}

#[test]
fn r06_a_take_down_that_is_refused_is_told_of_and_goes_on() {
    simulate(async {
        let city = City::new(START, 14, "");
        city.save("a.yaml", &file(&[one("a", "甲", "2026-11-24 08:02")]));
        let daemon = city.start().await;
        assert!(settled(&city, &daemon, Duration::from_secs(600)).await);
        let refuses =
            json!({ "behaviour": "error", "operation": "delete", "platform": "sina", "params": { "code": 20102 } });
        let forbids = json!({ "behaviour": "error", "operation": "delete", "platform": "tencent", "params": { "code": 4, "errcode": 4 } });
        city.sandbox.set_faults(vec![support::fault(refuses), support::fault(forbids)]);
        let by = fabu::core::change::Actor::Person { uid: 1000, name: "editor".to_owned() };
        daemon.inner.withdraw(&by, "a", fabu::core::delivery::Desired::Removed).await.unwrap();
        assert!(settled(&city, &daemon, Duration::from_secs(600)).await);
        let status = daemon.inner.status().await.unwrap();
        let told: Vec<(&str, &str)> = status
            .needs_person
            .iter()
            .map(|d| (d.account.as_str(), d.reason.as_ref().map_or("", |reason| reason.en.as_str())))
            .collect();
        let [(sina, why), (tencent, _)] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((*sina, *tencent), ("sina:shanghai", "tencent:shanghai"));
        assert!(why.contains("20102"), "{why}");
        // One is deleted by hand on the platform's own page, the other goes when the platform thinks better of it.
        let of = |account: &str| {
            let all = status.needs_person.iter().find(|d| d.account.as_str() == account);
            fabu::core::delivery::DeliveryId(all.unwrap().id.parse().unwrap())
        };
        let gone = fabu::daemon::resolve::Said::default();
        let early = daemon.inner.resolve(&by, of("sina:shanghai"), gone.clone()).await;
        assert!(early.is_err(), "the platform shows it still");
        let unseen =
            json!({ "behaviour": "error", "operation": "show", "platform": "sina", "params": { "code": 20101 } });
        city.sandbox.set_faults(vec![support::fault(unseen)]);
        daemon.inner.resolve(&by, of("sina:shanghai"), gone.clone()).await.unwrap();
        assert!(daemon.inner.resolve(&by, of("sina:shanghai"), gone).await.is_err(), "that was settled");
        city.sandbox.clear();
        city.clock.sleep(Duration::from_secs(3600)).await;
        assert!(daemon.inner.status().await.unwrap().needs_person.is_empty());
        assert_eq!(in_state(&all(&daemon).await, State::Deleted), 4);
        assert_eq!(city.sandbox.posts().iter().filter(|p| !p.deleted).count(), 1, "the one nobody has deleted here");
    });
}

#[test]
fn a_delivery_that_failed_is_tried_again_when_a_person_says_so() {
    simulate(async {
        let city = City::new(START, 15, "");
        city.save("a.yaml", &file(&[one("a", "甲", "2026-11-24 08:02")]));
        city.sandbox.set_standing("sina:shanghai", "expired", None);
        let daemon = city.start().await;
        assert!(settled(&city, &daemon, Duration::from_secs(600)).await);
        let rows = all(&daemon).await;
        assert_eq!((in_state(&rows, State::Published), in_state(&rows, State::Failed)), (3, 1));
        let status = daemon.inner.status().await.unwrap();
        assert_eq!(status.bad_credentials[0].account.as_str(), "sina:shanghai");
        city.sandbox.set_standing("sina:shanghai", "good", None);
        let by = fabu::core::change::Actor::Person { uid: 1000, name: "editor".to_owned() };
        daemon.inner.retry(&by, "a", None).await.unwrap();
        assert!(settled(&city, &daemon, Duration::from_secs(600)).await);
        assert_eq!(in_state(&all(&daemon).await, State::Published), 4);
        assert_eq!(city.sandbox.posts().len(), 4);
    });
}

#[test]
fn r29_a_token_that_is_dead_is_asked_about_once_and_not_hammered() {
    simulate(async {
        let city = City::new(START, 16, "");
        let many: Vec<String> = (0..20).map(|n| one(&format!("a{n}"), &format!("第{n}"), "2026-11-24 08:03")).collect();
        city.save("a.yaml", &file(&many));
        city.sandbox.set_standing("sina:shanghai", "expired", None);
        let daemon = city.start().await;
        assert!(settled(&city, &daemon, Duration::from_secs(1200)).await);
        let asked = city.sandbox.requests().iter().filter(|r| r.account.as_deref() == Some("sina:shanghai")).count();
        assert!(asked <= 2, "{asked} requests with a dead token");
    });
}

#[test]
fn r10_a_repeat_that_becomes_one_hour_is_not_published_again_for_it() {
    simulate(async {
        let city = City::new(START, 21, "");
        let say = |text: &str, when: &str| {
            city.save(
                "a.yaml",
                &format!("announcements:\n  - {{id: a, text: {text}, {when}, to: [shanghai], catch_up: 2h}}\n"),
            );
        };
        say("早安", "repeat: \"10 8 * * *\"");
        let daemon = city.start().await;
        city.sleep(11 * 60).await;
        assert_eq!(city.sandbox.posts().len(), 4);
        say("早安", "at: 2026-11-24 08:10");
        city.sleep(60).await;
        say("早上好", "at: 2026-11-24 08:10");
        city.sleep(3600).await;
        assert_eq!(city.sandbox.posts().len(), 4, "{:?}", city.sandbox.posts());
        drop(daemon);
    });
}

#[test]
fn r03_what_is_moved_into_a_file_that_is_broken_is_not_taken_out() {
    simulate(async {
        let city = City::new(START, 22, "");
        city.save("a.yaml", &file(&[one("a", "早安", "2026-11-24 08:10"), one("b", "午安", "2026-11-24 08:10")]));
        let daemon = city.start().await;
        city.sleep(20).await;
        city.save("a.yaml", &file(&[one("b", "午安", "2026-11-24 08:10")]));
        city.save("c.yaml", &format!("{}  - id: [\n", file(&[one("a", "早安", "2026-11-24 08:10")])));
        city.sleep(60).await;
        // Nor into one that is no UTF-8, or that quotes its keys.
        let quoted = "announcements:\n  - {\"id\": \"b\", text: 午安, at: 2026-11-24 08:10, to: [shanghai]\n";
        std::fs::write(city.queue("d.yaml"), [quoted.as_bytes(), b"# \xc4\xe3"].concat()).unwrap();
        city.save("a.yaml", &file(&[one("other", "晚安", "2026-11-25 08:10")]));
        city.sleep(900).await;
        assert_eq!(in_state(&all(&daemon).await, State::Published), 8);
    });
}

/// A person types, and the editor saves every few seconds: what has no hour goes when the file has been left alone, in its
/// last words, once. Who says `at: now` does not wait.
#[test]
fn r51_what_has_no_hour_goes_when_its_file_has_been_left_alone() {
    for is_killed in [false, true] {
        simulate(async {
            let city = City::new(START, 51, "publish: {settle_file: 10s}\n");
            let mut daemon = city.start().await;
            let typed = |text: &str| format!("announcements:\n  - {{id: a, text: {text}, to: [shanghai]}}\n");
            for text in ["今晚", "今晚停", "今晚停水"] {
                city.save("a.yaml", &typed(text));
                city.sleep(6).await;
            }
            if is_killed {
                drop(daemon);
                city.sleep(1).await;
                daemon = city.start().await;
                city.sleep(6).await;
                assert_eq!(city.sandbox.posts().len(), 0, "it is left alone for as long again, as far as is known");
            }
            city.sleep(3).await;
            assert_eq!(city.sandbox.posts().len(), 0);
            city.sleep(20).await;
            let said: Vec<String> = city.sandbox.posts().into_iter().map(|post| post.text).collect();
            assert_eq!(said, ["今晚停水"; 4], "{is_killed}");
            drop(daemon);
        });
    }
    simulate(async {
        let city = City::new(START, 52, "publish: {settle_file: 10s}\n");
        let daemon = city.start().await;
        city.save("a.yaml", "announcements:\n  - {id: a, text: 马上, at: now, to: [shanghai]}\n");
        city.save("b.yaml", "announcements:\n  - {id: b, text: 到点, at: \"2026-11-24 08:00:09\", to: [shanghai]}\n");
        daemon.rescan().await;
        city.sleep(4).await;
        assert_eq!(city.sandbox.posts().len(), 4);
        city.sleep(6).await;
        assert_eq!(city.sandbox.posts().len(), 8, "what has an hour has it");
    });
}

/// One that waits for its writer is taken out again, or edited where something of it waits already.
#[test]
fn r51_what_is_taken_back_while_its_file_settles_never_goes() {
    simulate(async {
        let city = City::new(START, 53, "publish: {settle_file: 10s}\n");
        let daemon = city.start().await;
        city.save("a.yaml", "announcements:\n  - {id: a, text: 写错, to: [shanghai]}\n");
        city.sleep(7).await;
        std::fs::remove_file(city.queue("a.yaml")).unwrap();
        city.sleep(60).await;
        assert_eq!((city.sandbox.posts().len(), all(&daemon).await.len()), (0, 0));
    });
}
