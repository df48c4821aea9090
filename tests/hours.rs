//! An hour of an announcement is one hour, whatever its file says of it later: what is out, held, stopped or refused stays so.

mod support;

use std::time::Duration;

use fabu::core::delivery::State;
use support::duty::{hold, person};
use support::{City, all, in_state, simulate};

const START: &str = "2026-11-24T00:00:00Z";

fn file(entries: &str) -> String {
    format!("announcements:\n{entries}")
}

fn entry(id: &str, text: &str, when: &str) -> String {
    format!("  - {{id: {id}, text: {text}, {when}, to: [shanghai]}}\n")
}

/// The accounts as they are, and with the first of them suspended; for the daemon to read again.
fn accounts(city: &City, suspended: usize) -> (String, String) {
    let open = std::fs::read_to_string(city.path().join("accounts.yaml")).unwrap();
    let resting = open.replacen("{handle: h0", "{status: suspended, handle: h0", suspended);
    (open, resting)
}

async fn with_accounts(city: &City, daemon: &fabu::daemon::Daemon, text: &str) {
    std::fs::write(city.path().join("accounts.yaml"), text).unwrap();
    daemon.inner.reload_config().await;
}

fn out(city: &City, text: &str) -> usize {
    city.sandbox.posts().iter().filter(|p| p.text == text && !p.deleted).count()
}

#[test]
fn r10_an_hour_of_a_repeat_that_is_held_goes_once_when_the_repeat_becomes_a_single_one() {
    simulate(async {
        let city = City::new(START, 1701, "");
        city.save("a.yaml", &file(&entry("a", "明早八点停水", "repeat: \"2 8 * * *\"")));
        let daemon = city.start().await;
        let hold = hold(&daemon, Duration::from_secs(600)).await;
        city.sleep(200).await;
        city.save("a.yaml", &file(&entry("a", "明早九点停水", "at: 2026-11-24 08:02")));
        daemon.rescan().await;
        daemon.inner.end_hold(&person(1000), &hold).await.unwrap();
        assert_eq!(daemon.inner.unhold(&person(1000), Some("a")).await.unwrap().released, 4);
        city.sleep(120).await;
        assert_eq!((out(&city, "明早八点停水"), out(&city, "明早九点停水")), (0, 4));
    });
}

#[test]
fn r06_an_hour_that_a_person_cancelled_is_not_brought_back_as_a_single_one() {
    simulate(async {
        let city = City::new(START, 1702, "");
        city.save("a.yaml", &file(&entry("a", "早安", "repeat: \"2 8 * * *\"")));
        let daemon = city.start().await;
        let stopped = fabu::core::delivery::Desired::Stopped;
        daemon.inner.withdraw(&person(1000), "a@2026-11-24T08:02+08:00", stopped).await.unwrap();
        city.save("a.yaml", &file(&entry("a", "早安", "at: 2026-11-24 08:02")));
        city.sleep(300).await;
        assert_eq!(out(&city, "早安"), 0);
    });
}

/// The file of a repeat that has spoken says "now", or an hour that is over, and then nothing of the repeat goes either.
#[test]
fn r03_a_repeat_that_has_spoken_is_not_sent_again_at_once_nor_does_it_go_on() {
    for when in ["catch_up: 2h", "at: 2026-11-24 08:02, catch_up: 2h"] {
        simulate(async {
            let city = City::new(START, 1703, "");
            city.save("a.yaml", &file(&entry("a", "早安", "repeat: \"2,20 * * * *\"")));
            let daemon = city.start().await;
            city.sleep(300).await;
            assert_eq!(out(&city, "早安"), 4);
            city.save("a.yaml", &file(&entry("a", "您早", when)));
            city.sleep(3 * 3600).await;
            assert_eq!((out(&city, "早安"), out(&city, "您早")), (4, 0), "{when}");
            // As it was, it goes on: with the hours to come.
            city.save("a.yaml", &file(&entry("a", "早安", "repeat: \"2,20 * * * *\"")));
            city.sleep(3600).await;
            assert_eq!(out(&city, "早安"), 12, "{when}");
            drop(daemon);
        });
    }
}

#[test]
fn r03_what_a_person_refused_to_cancel_goes_out_whatever_else_is_saved() {
    for is_refused in [true, false] {
        simulate(async {
            let city = City::new(START, 1704, "");
            let of = |from: u32, to: u32, minute: u32| -> String {
                (from..to)
                    .map(|n| {
                        entry(&format!("a{n}"), &format!("第{n}号"), &format!("at: 2026-11-24 08:{:02}", minute + n))
                    })
                    .collect()
            };
            city.save("gone.yaml", &file(&of(0, 8, 3)));
            city.save("kept.yaml", &file(&of(20, 28, 20)));
            let daemon = city.start().await;
            std::fs::remove_file(city.queue("gone.yaml")).unwrap();
            city.sleep(10).await;
            let plan = daemon.inner.state.lock().unwrap().prune.clone().expect("it waits").hash;
            if is_refused {
                daemon.inner.prune(&person(1000), false, &plan).await.unwrap();
            }
            // Three of them are released; then other files are saved.
            city.sleep(290).await;
            city.save("more.yaml", &file(&of(40, 59, 0)));
            city.sleep(30).await;
            city.save("more.yaml", &file(&of(40, 58, 0)));
            city.sleep(1800).await;
            let waits = daemon.inner.state.lock().unwrap().prune.clone();
            let gone: usize = (0..8).map(|n| out(&city, &format!("第{n}号"))).sum();
            // Refused, or not answered: nothing of it is cancelled.
            assert_eq!((gone, waits.is_none()), (8 * 4, true), "{is_refused}");
        });
    }
}

#[test]
fn r11_a_held_post_lasts_as_long_as_its_file_says_now() {
    simulate(async {
        let city = City::new(START, 1705, "emergency: {after_hold: resume}\n");
        city.save(
            "a.yaml",
            &file(
                &(entry("a", "久些", "at: 2026-11-24 08:02, expires_after: 60s")
                    + &entry("b", "短些", "at: 2026-11-24 08:02")),
            ),
        );
        let daemon = city.start().await;
        let hold = hold(&daemon, Duration::from_secs(3600)).await;
        city.sleep(140).await;
        city.save(
            "a.yaml",
            &file(
                &(entry("a", "久些", "at: 2026-11-24 08:02, expires_after: 2h")
                    + &entry("b", "短些", "at: 2026-11-24 08:02, expires_after: 90s")),
            ),
        );
        city.sleep(300).await;
        daemon.inner.end_hold(&person(1000), &hold).await.unwrap();
        city.sleep(120).await;
        assert_eq!((out(&city, "久些"), out(&city, "短些")), (4, 0), "{:?}", all(&daemon).await);
    });
}

/// The accounts of a single post, or of an hour of a repeat, are suspended for a moment, or its entry is cut out and pasted
/// elsewhere in two saves, while it is held.
#[test]
fn what_was_held_is_still_held_when_it_comes_back() {
    let whens = ["at: 2026-11-24 08:02", "repeat: \"2 8 * * *\""];
    for (when, how) in whens.into_iter().flat_map(|when| [(when, "moved"), (when, "suspended")]) {
        simulate(async {
            let city = City::new(START, 1706, "publish: {catch_up: 60s}\n");
            let held = file(&entry("a", "早安", when));
            city.save("a.yaml", &held);
            city.save("b.yaml", &file(&entry("b", "别的", "at: 2026-12-24 08:02")));
            let daemon = city.start().await;
            let hold = hold(&daemon, Duration::from_secs(3600)).await;
            city.sleep(400).await;
            let (open, resting) = accounts(&city, 4);
            if how == "moved" {
                std::fs::remove_file(city.queue("a.yaml")).unwrap();
                city.sleep(20).await;
                city.save("c.yaml", &held);
            } else {
                with_accounts(&city, &daemon, &resting).await;
                city.sleep(20).await;
                with_accounts(&city, &daemon, &open).await;
            }
            city.sleep(30).await;
            assert_eq!(in_state(&all(&daemon).await, State::Held), 4, "{when} {how}: {:?}", all(&daemon).await);
            daemon.inner.end_hold(&person(1000), &hold).await.unwrap();
            daemon.inner.unhold(&person(1000), Some("a")).await.unwrap();
            city.sleep(60).await;
            assert_eq!(out(&city, "早安"), 4, "{when} {how}");
        });
    }
}

#[test]
fn r52_what_an_account_missed_while_it_was_suspended_can_be_tried_again() {
    simulate(async {
        let city = City::new(START, 1707, "");
        city.save("a.yaml", &file(&entry("a", "早安", "at: 2026-11-24 08:02")));
        let daemon = city.start().await;
        let (open, resting) = accounts(&city, 1);
        with_accounts(&city, &daemon, &resting).await;
        city.sleep(600).await;
        assert!(daemon.inner.retry(&person(1000), "a", None).await.is_err(), "it is suspended still");
        with_accounts(&city, &daemon, &open).await;
        city.sleep(30).await;
        assert_eq!(out(&city, "早安"), 3);
        assert_eq!(daemon.inner.retry(&person(1000), "a", None).await.unwrap().retrying, 1);
        city.sleep(60).await;
        assert_eq!(out(&city, "早安"), 4);
    });
}

#[test]
fn another_zone_moves_the_hours_of_a_repeat_that_are_still_to_come() {
    simulate(async {
        let city = City::new(START, 1708, "");
        city.save("a.yaml", &file(&entry("a", "早安", "repeat: \"0 9 * * *\"")));
        let daemon = city.start().await;
        city.sleep(60).await;
        let config = city.path().join("fabu.yaml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("Asia/Shanghai", "Asia/Bangkok")).unwrap();
        daemon.inner.reload_config().await;
        // Nine in Shanghai is one hour from the start, nine in Bangkok two.
        city.sleep(5400).await;
        assert_eq!(out(&city, "早安"), 0);
        city.sleep(3600).await;
        assert_eq!(out(&city, "早安"), 4);
    });
}

/// Hours so near that they are prepared and in hand already.
#[test]
fn r06_a_repeat_that_its_file_ends_does_not_go_on_with_the_hours_that_are_near() {
    for (when, wait) in [
        ("at: \"2026-11-24 08:00:40\"", 5),
        ("at: \"2026-11-24 08:00:40\"", 1),
        ("catch_up: 1h", 5),
        ("catch_up: 1h", 1),
    ] {
        simulate(async {
            let city = City::new(START, 1709, "");
            city.save(
                "a.yaml",
                &file(&entry(
                    "a",
                    "早安",
                    "repeat: \"*/20 * * * * *\", from: 2026-11-24 08:00:30, until: 2026-11-24 08:03",
                )),
            );
            let daemon = city.start().await;
            city.sleep(40 + wait).await;
            let spoken = out(&city, "早安");
            assert_eq!(spoken, 4);
            city.save("a.yaml", &file(&entry("a", "您早", when)));
            city.sleep(600).await;
            assert_eq!((out(&city, "早安"), out(&city, "您早")), (4, 0), "{when} {wait}");
            drop(daemon);
        });
    }
}

/// A hold that came long after it had expired is no reason to hold it.
#[test]
fn r11_what_expired_before_a_hold_is_not_revived_by_it() {
    for resume in ["review", "resume"] {
        simulate(async {
            let more = format!("publish: {{catch_up: 60s}}\nemergency: {{after_hold: {resume}}}\n");
            let city = City::new(START, 1710, &more);
            city.sandbox.set_faults(vec![support::fault(serde_json::json!({
                "behaviour": "unreachable", "params": { "kind": "refused" }
            }))]);
            city.save("a.yaml", &file(&entry("a", "早安", "at: 2026-11-24 08:02")));
            let daemon = city.start().await;
            city.sleep(600).await;
            city.sandbox.clear();
            assert_eq!(in_state(&all(&daemon).await, State::Expired), 4);
            let hold = hold(&daemon, Duration::from_secs(3600)).await;
            city.save("a.yaml", &file(&entry("a", "您早", "at: 2026-11-24 08:02")));
            city.sleep(60).await;
            daemon.inner.end_hold(&person(1000), &hold).await.unwrap();
            city.sleep(300).await;
            let rows = all(&daemon).await;
            assert_eq!((out(&city, "您早"), in_state(&rows, State::Expired)), (0, 4), "{resume}: {rows:?}");
        });
    }
}

/// The hour is out under its own name; the file says another time, or none.
#[test]
fn r03_what_a_repeat_became_is_not_sent_again_when_its_hour_is_taken_out() {
    for when in ["catch_up: 2h", "at: 2026-11-24 08:01, catch_up: 2h", "at: 2026-11-24 08:30"] {
        simulate(async {
            let city = City::new(START, 1711, "");
            city.save("a.yaml", &file(&entry("a", "早安", "repeat: \"2,20 * * * *\"")));
            let daemon = city.start().await;
            city.sleep(30).await;
            city.save("a.yaml", &file(&entry("a", "早安", "at: 2026-11-24 08:02")));
            city.sleep(200).await;
            assert_eq!(out(&city, "早安"), 4);
            city.save("a.yaml", &file(&entry("a", "早安", when)));
            city.sleep(3600).await;
            assert_eq!(out(&city, "早安"), 4, "{when}");
            drop(daemon);
        });
    }
}

#[test]
fn r06_what_was_removed_or_has_its_hour_ahead_is_not_sent_by_retry() {
    simulate(async {
        let city = City::new(START, 1712, "");
        city.save("b.yaml", &file(&entry("b", "别的", "at: 2026-12-24 10:02")));
        city.save("a.yaml", &file(&entry("a", "早安", "at: 2026-11-24 10:02")));
        let daemon = city.start().await;
        let (open, resting) = accounts(&city, 1);
        with_accounts(&city, &daemon, &resting).await;
        city.sleep(10).await;
        city.save("a.yaml", "announcements: [\n");
        with_accounts(&city, &daemon, &open).await;
        city.sleep(10).await;
        assert!(daemon.inner.retry(&person(1000), "a", None).await.is_err(), "its hour is still to come");
        std::fs::remove_file(city.queue("a.yaml")).unwrap();
        city.sleep(30).await;
        assert!(daemon.inner.retry(&person(1000), "a", None).await.is_err(), "it was removed");
        city.sleep(3 * 3600).await;
        assert_eq!(out(&city, "早安"), 0);
    });
}

/// It was tried and never left: its file gives it another hour, or says it at once.
#[test]
fn what_was_tried_and_is_not_out_goes_at_the_hour_its_file_gives_it_next() {
    for when in ["at: 2026-11-24 09:00", "catch_up: 2h"] {
        simulate(async {
            let city = City::new(START, 1713, "publish: {catch_up: 60s}\n");
            city.sandbox.set_faults(vec![support::fault(serde_json::json!({
                "behaviour": "limit", "operation": "post"
            }))]);
            city.save("a.yaml", &file(&entry("a", "早安", "at: 2026-11-24 08:02")));
            let daemon = city.start().await;
            city.sleep(600).await;
            city.sandbox.clear();
            assert_eq!(in_state(&all(&daemon).await, State::Expired), 4);
            city.save("a.yaml", &file(&entry("a", "您早", when)));
            city.sleep(3600).await;
            assert_eq!(out(&city, "您早"), 4, "{when}: {:?}", all(&daemon).await);
        });
    }
}

/// A person let it go, or had it tried again, and its account's hour is used up, or another hold begins; then its file is
/// edited. It lasts from the hour that the person gave it.
#[test]
fn r11_what_a_person_let_go_keeps_its_new_hour_when_its_text_is_edited() {
    for how in ["let go", "tried again", "held again"] {
        simulate(async {
            let city = City::new(START, 1714, "publish: {catch_up: 55m}\n");
            let config = std::fs::read_to_string(city.path().join("fabu.yaml")).unwrap();
            let one = "tencent: {api: tencent-weibo, limits: {account_per_hour: 2},";
            let config = config.replace("tencent: {api: tencent-weibo,", one);
            std::fs::write(city.path().join("fabu.yaml"), config).unwrap();
            let of = |id: &str, text: &str, at: &str| {
                format!("  - {{id: {id}, text: {text}, at: \"2026-11-24 {at}\", to: [\"tencent:shanghai\"]}}\n")
            };
            let first = of("z", "先发", "08:01");
            city.save("a.yaml", &file(&(first.clone() + &of("a", "早安", "08:02"))));
            let daemon = city.start().await;
            city.sleep(90).await;
            assert_eq!(out(&city, "先发"), 1);
            if how == "tried again" {
                city.sleep(57 * 60).await;
                assert_eq!(in_state(&all(&daemon).await, State::Expired), 1);
                assert_eq!(daemon.inner.retry(&person(1000), "a", None).await.unwrap().retrying, 1);
            } else {
                let held = hold(&daemon, Duration::from_secs(3600)).await;
                city.sleep(600).await;
                daemon.inner.end_hold(&person(1000), &held).await.unwrap();
                assert_eq!(daemon.inner.unhold(&person(1000), Some("a")).await.unwrap().released, 1);
            }
            city.sleep(5).await;
            let again = match how {
                "held again" => Some(hold(&daemon, Duration::from_secs(3600)).await),
                _ => None,
            };
            city.save("a.yaml", &file(&(first + &of("a", "您早", "08:02"))));
            city.sleep(20).await;
            if let Some(again) = again {
                assert_eq!(in_state(&all(&daemon).await, State::Held), 1, "{:?}", all(&daemon).await);
                daemon.inner.end_hold(&person(1000), &again).await.unwrap();
                assert_eq!(daemon.inner.unhold(&person(1000), Some("a")).await.unwrap().released, 1);
            }
            city.sleep(55 * 60).await;
            assert_eq!((out(&city, "早安"), out(&city, "您早")), (0, 1), "{how}: {:?}", all(&daemon).await);
        });
    }
}

/// It was out of the queue at its hour, and nothing kept it back: what a repeat missed so is not made up.
#[test]
fn r03_an_hour_that_a_repeat_missed_while_it_was_out_of_the_queue_does_not_go_when_it_is_back() {
    simulate(async {
        let city = City::new(START, 1716, "publish: {catch_up: 2h}\n");
        let repeat = file(&entry("a", "早安", "repeat: \"2 8 * * *\""));
        city.save("a.yaml", &repeat);
        city.save("b.yaml", &file(&entry("b", "别的", "at: 2026-12-24 08:02")));
        let daemon = city.start().await;
        city.sleep(30).await;
        std::fs::remove_file(city.queue("a.yaml")).unwrap();
        city.sleep(300).await;
        city.save("c.yaml", &repeat);
        city.sleep(3600).await;
        assert_eq!(out(&city, "早安"), 0, "{:?}", all(&daemon).await);
    });
}

/// It had its hour, at once, and nothing came of it: the tree of accounts changes, and no word of its file.
#[test]
fn r11_what_has_expired_is_not_published_because_an_account_is_opened() {
    for how in ["opened", "suspended", "emergency"] {
        simulate(async {
            let city = City::new(START, 1717, "publish: {catch_up: 60s}\nemergency: {confirm_within: 2m}\n");
            let (open, resting) = accounts(&city, 1);
            if how != "suspended" {
                std::fs::write(city.path().join("accounts.yaml"), &resting).unwrap();
            }
            let daemon = city.start().await;
            if how != "emergency" {
                let away = serde_json::json!({ "behaviour": "unreachable", "params": { "kind": "refused" } });
                city.sandbox.set_faults(vec![support::fault(away)]);
            }
            let priority = if how == "emergency" { "priority: emergency" } else { "priority: routine" };
            city.save("a.yaml", &file(&entry("a", "早安", priority)));
            city.sleep(600).await;
            let expired = in_state(&all(&daemon).await, State::Expired);
            assert!(expired >= 3, "{how}: {:?}", all(&daemon).await);
            city.sandbox.clear();
            with_accounts(&city, &daemon, if how == "suspended" { &resting } else { &open }).await;
            city.sleep(600).await;
            let rows = all(&daemon).await;
            assert_eq!((out(&city, "早安"), in_state(&rows, State::Held)), (0, 0), "{how}: {rows:?}");
        });
    }
}

/// A post that goes at once was kept back, and its file is moved in two steps after the hold: it waits for a person still.
#[test]
fn r05_what_was_to_go_at_once_and_was_held_is_not_let_go_by_a_move() {
    for is_edited in [false, true] {
        simulate(async {
            let city = City::new(START, 1718, "publish: {catch_up: 60s}\n");
            city.save("b.yaml", &file(&entry("b", "别的", "at: 2026-12-24 08:02")));
            let daemon = city.start().await;
            let hold = hold(&daemon, Duration::from_secs(3600)).await;
            city.save("a.yaml", &file(&entry("a", "早安", "priority: routine")));
            city.sleep(300).await;
            daemon.inner.end_hold(&person(1000), &hold).await.unwrap();
            city.sleep(30).await;
            std::fs::remove_file(city.queue("a.yaml")).unwrap();
            city.sleep(20).await;
            city.save("c.yaml", &file(&entry("a", if is_edited { "您早" } else { "早安" }, "priority: routine")));
            city.sleep(60).await;
            let rows = all(&daemon).await;
            assert_eq!((city.sandbox.posts().len(), in_state(&rows, State::Held)), (0, 4), "{is_edited}: {rows:?}");
            daemon.inner.unhold(&person(1000), Some("a")).await.unwrap();
            city.sleep(30).await;
            assert_eq!(city.sandbox.posts().len(), 4);
        });
    }
    // One that was only taken out goes when it is put back.
    simulate(async {
        let city = City::new(START, 1719, "publish: {catch_up: 60s}\n");
        city.save("b.yaml", &file(&entry("b", "别的", "at: 2026-12-24 08:02")));
        let daemon = city.start().await;
        let away = serde_json::json!({ "behaviour": "unreachable", "params": { "kind": "refused" } });
        city.sandbox.set_faults(vec![support::fault(away)]);
        city.save("a.yaml", &file(&entry("a", "早安", "images: [none.jpg]")));
        city.sandbox.clear();
        city.sleep(10).await;
        std::fs::remove_file(city.queue("a.yaml")).unwrap();
        city.sleep(600).await;
        city.save("a.yaml", &file(&entry("a", "早安", "priority: routine")));
        city.sleep(60).await;
        assert_eq!(out(&city, "早安"), 4, "{:?}", all(&daemon).await);
    });
}

/// It failed while it was prepared; its secret was mended. Removed, it is not wanted; before its hour it waits for it.
#[test]
fn r06_retry_sends_nothing_that_was_removed_and_nothing_before_its_hour() {
    simulate(async {
        let city = City::new(START, 1720, "");
        let whole = std::fs::read_to_string(city.path().join("accounts.yaml")).unwrap();
        let broken = whole.replacen("env:T_SINA_SHANGHAI", "env:NONE", 1);
        std::fs::write(city.path().join("accounts.yaml"), &broken).unwrap();
        city.save("x.yaml", &file(&entry("x", "早安", "at: 2026-11-24 08:02")));
        city.save("y.yaml", &file(&entry("y", "您早", "at: 2026-11-24 08:02")));
        city.save("z.yaml", &file(&entry("z", "别的", "at: 2026-12-24 08:02")));
        let daemon = city.start().await;
        // Prepared a minute ahead, it fails there.
        city.sleep(80).await;
        assert_eq!(in_state(&all(&daemon).await, State::Failed), 2);
        with_accounts(&city, &daemon, &whole).await;
        std::fs::remove_file(city.queue("y.yaml")).unwrap();
        daemon.rescan().await;
        assert!(daemon.inner.retry(&person(1000), "y", None).await.is_err(), "it was removed");
        assert_eq!(daemon.inner.retry(&person(1000), "x", None).await.unwrap().retrying, 1);
        city.sleep(20).await;
        assert_eq!(city.sandbox.posts().len(), 0, "its hour has not come");
        city.sleep(60).await;
        assert_eq!((out(&city, "早安"), out(&city, "您早")), (4, 0));
    });
    // Nothing of it waited when its file went.
    simulate(async {
        let city = City::new(START, 1721, "publish: {catch_up: 60s}\n");
        let away = serde_json::json!({ "behaviour": "unreachable", "params": { "kind": "refused" } });
        city.sandbox.set_faults(vec![support::fault(away)]);
        city.save("x.yaml", &file(&entry("x", "早安", "at: 2026-11-24 08:02")));
        city.save("z.yaml", &file(&entry("z", "别的", "at: 2026-12-24 08:02")));
        let daemon = city.start().await;
        city.sleep(600).await;
        city.sandbox.clear();
        std::fs::remove_file(city.queue("x.yaml")).unwrap();
        city.sleep(20).await;
        assert!(daemon.inner.retry(&person(1000), "x", None).await.is_err());
        city.sleep(60).await;
        assert_eq!(out(&city, "早安"), 0);
    });
}

/// A hold of many days: hours of a repeat that it kept back go in the words of their file, or not at all.
#[test]
fn r03_hours_that_were_held_for_days_are_reached_by_their_files() {
    simulate(async {
        let city = City::new(START, 1722, "");
        let until = "until: 2026-11-24 12:00";
        city.save("a.yaml", &file(&entry("a", "旧词", &format!("repeat: \"2 8 * * *\", {until}"))));
        city.save("b.yaml", &file(&entry("b", "删去", &format!("repeat: \"2 8 * * *\", {until}"))));
        city.save("z.yaml", &file(&entry("z", "别的", "at: 2026-12-24 08:02")));
        let daemon = city.start().await;
        let hold = hold(&daemon, Duration::from_secs(7 * 86_400)).await;
        city.sleep(50 * 3600).await;
        city.save("a.yaml", &file(&entry("a", "新词", &format!("repeat: \"2 8 * * *\", {until}"))));
        std::fs::remove_file(city.queue("b.yaml")).unwrap();
        city.sleep(30).await;
        daemon.inner.end_hold(&person(1000), &hold).await.unwrap();
        daemon.inner.unhold(&person(1000), None).await.unwrap();
        city.sleep(60).await;
        assert_eq!((out(&city, "旧词"), out(&city, "新词"), out(&city, "删去")), (0, 4, 0), "{:?}", all(&daemon).await);
    });
}

/// An account is opened while a post is kept back for longer than `catch_up`: it is kept back there too.
#[test]
fn an_account_that_is_opened_during_a_hold_is_held_like_the_others() {
    simulate(async {
        let city = City::new(START, 1723, "publish: {catch_up: 60s}\n");
        let (open, resting) = accounts(&city, 1);
        std::fs::write(city.path().join("accounts.yaml"), &resting).unwrap();
        city.save("a.yaml", &file(&entry("a", "早安", "at: 2026-11-24 08:02")));
        let daemon = city.start().await;
        let hold = hold(&daemon, Duration::from_secs(3600)).await;
        city.sleep(600).await;
        assert_eq!(in_state(&all(&daemon).await, State::Held), 3);
        with_accounts(&city, &daemon, &open).await;
        city.sleep(30).await;
        assert_eq!(in_state(&all(&daemon).await, State::Held), 4, "{:?}", all(&daemon).await);
        daemon.inner.end_hold(&person(1000), &hold).await.unwrap();
        daemon.inner.unhold(&person(1000), Some("a")).await.unwrap();
        city.sleep(60).await;
        assert_eq!(out(&city, "早安"), 4);
    });
}

/// A hold of named accounts: one of its names is no more, and others go on to mean what they mean.
#[test]
fn r05_a_name_that_is_no_more_takes_nothing_from_a_hold() {
    for (held, except) in [(vec!["shanghai/pudong/**", "shanghai/metro"], vec![]), (vec!["**"], vec!["shanghai/metro"])]
    {
        simulate(async {
            let city = City::new(START, 1724, "");
            let whole = std::fs::read_to_string(city.path().join("accounts.yaml")).unwrap();
            let at = whole.find("- id: shanghai/pudong\n").unwrap();
            let end = whole[at + 3..].find("- id: ").map_or(whole.len(), |n| at + 3 + n);
            let suspended = whole[at..end].replace("{handle", "{status: suspended, handle");
            let before = format!("{}{suspended}{}", &whole[..at], &whole[end..]);
            std::fs::write(city.path().join("accounts.yaml"), &before).unwrap();
            let daemon = city.start().await;
            let now = daemon.inner.clock.now();
            let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            let named = fabu::core::gate::Choice { to: names(&held), except: names(&except) };
            let until = fabu::daemon::holds::until(now, Duration::from_secs(3600));
            let hold = fabu::core::gate::Hold {
                id: "h".to_owned(),
                reason: "静默".to_owned(),
                until,
                accounts: None,
                named: Some(named),
                owner: "duty".to_owned(),
                begun: now,
                post: None,
                ended: None,
                version: 1,
            };
            if held[0] == "**" {
                daemon.inner.hold(&person(1000), hold).await.unwrap();
            } else {
                // Somebody has to be meant.
                with_accounts(&city, &daemon, &whole).await;
                daemon.inner.hold(&person(1000), hold).await.unwrap();
                with_accounts(&city, &daemon, &before).await;
            }
            // The metro's unit goes, and pudong's accounts are opened.
            let gone = whole.find("- id: shanghai/metro\n").unwrap();
            let gone_end = whole[gone + 3..].find("- id: ").map_or(whole.len(), |n| gone + 3 + n);
            with_accounts(&city, &daemon, &format!("{}{}", &whole[..gone], &whole[gone_end..])).await;
            city.save("a.yaml", "announcements:\n- {id: a, text: 早安, at: 2026-11-24 08:02, to: [shanghai/pudong]}\n");
            city.sleep(300).await;
            assert_eq!(out(&city, "早安"), 0, "{held:?} {except:?}");
        });
    }
}

/// Its only account was suspended at its hour, and then its file was removed: opened again, nobody wants it any more.
#[test]
fn r06_retry_sends_nothing_that_was_removed_while_its_account_was_closed() {
    simulate(async {
        let city = City::new(START, 1725, "");
        city.save("z.yaml", &file(&entry("z", "别的", "at: 2026-12-24 08:02")));
        city.save("a.yaml", "announcements:\n- {id: a, text: 早安, at: 2026-11-24 08:02, to: [\"sina:shanghai\"]}\n");
        let daemon = city.start().await;
        let (open, resting) = accounts(&city, 1);
        with_accounts(&city, &daemon, &resting).await;
        city.sleep(300).await;
        std::fs::remove_file(city.queue("a.yaml")).unwrap();
        city.sleep(20).await;
        with_accounts(&city, &daemon, &open).await;
        city.sleep(20).await;
        assert!(daemon.inner.retry(&person(1000), "a", None).await.is_err(), "it was removed");
        city.sleep(60).await;
        assert_eq!(out(&city, "早安"), 0);
    });
}

/// A post that goes at once expired in a hold on one account and was taken out of another: other words are wanted now.
#[test]
fn r51_other_words_for_what_has_expired_are_said_whatever_was_taken_out() {
    simulate(async {
        let city = City::new(START, 1726, "");
        let of = |text: &str, to: &str| {
            format!("announcements:\n- {{id: a, text: {text}, expires_after: 60s, to: [{to}]}}\n")
        };
        let daemon = city.start().await;
        let hold = hold(&daemon, Duration::from_secs(3600)).await;
        city.save("a.yaml", &of("早安", "\"sina:shanghai\", \"tencent:shanghai\""));
        city.sleep(20).await;
        city.save("a.yaml", &of("早安", "\"sina:shanghai\""));
        city.sleep(300).await;
        daemon.inner.end_hold(&person(1000), &hold).await.unwrap();
        city.sleep(10).await;
        assert_eq!(in_state(&all(&daemon).await, State::Expired), 1, "{:?}", all(&daemon).await);
        city.save("a.yaml", &of("您早", "\"sina:shanghai\""));
        city.sleep(60).await;
        assert_eq!((out(&city, "早安"), out(&city, "您早")), (0, 1), "{:?}", all(&daemon).await);
    });
}
