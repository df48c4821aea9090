//! What the widened simulation found, each by itself.

mod support;

use std::time::Duration;

use chrono::TimeDelta;
use fabu::core::announcement::Level;
use fabu::core::delivery::State;
use fabu::daemon::emergency::Urgent;
use serde_json::json;
use support::duty::{asked, everywhere, person, standing};
use support::{City, all, fault, in_state, settled, simulate};

const START: &str = "2026-11-24T00:00:00Z";

fn one(id: &str, text: &str, more: &str) -> String {
    format!("announcements:\n  - {{id: {id}, text: {text}, to: [shanghai], catch_up: 2h, {more}}}\n")
}

/// The ledger as it lies there, with its mark.
fn copied(city: &City) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let state = city.path().join("state");
    let names = ["fabu.db", "fabu.db-wal", "fabu.db.mark"].map(|name| state.join(name));
    names.into_iter().filter_map(|path| Some((path.clone(), std::fs::read(&path).ok()?))).collect()
}

#[test]
fn r19_a_copy_from_before_a_post_knows_it_again_in_whatever_version_it_went_out() {
    simulate(async {
        let city = City::new(START, 71, "");
        city.save("a.yaml", &one("a", "早安上海", "at: 2026-11-24 08:02"));
        let daemon = city.start().await;
        city.sleep(10).await;
        drop(daemon);
        city.sleep(1).await;
        let copy = copied(&city);
        let daemon = city.start().await;
        city.sleep(200).await;
        assert_eq!(city.sandbox.posts().len(), 4);
        drop(daemon);
        city.sleep(1).await;
        // The copy comes back, and the file names one more account: to the queue that is another version.
        for (path, bytes) in copy {
            std::fs::write(path, bytes).unwrap();
        }
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
async fn delayed(is_down: bool) {
    let city = City::new(START, 72, "");
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
    simulate(delayed(false));
    simulate(delayed(true));
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
