//! A repeat among faults, holds and persons: it goes on as long as nobody has taken it away, and no day of it goes twice or
//! in a crowd.

mod support;

use std::time::Duration;

use fabu::core::change::Actor;
use fabu::core::delivery::State;
use serde_json::json;
use support::duty::{faults, holding_until, person};
use support::{City, all, in_state, simulate};

const START: &str = "2026-11-24T00:00:00Z";

/// An hourly repeat with a week of patience.
fn hourly(more: &str) -> String {
    format!("  - {{id: r, text: 早安, repeat: \"30 * * * *\", to: [\"sina:shanghai\"], catch_up: 12h{more}}}\n")
}

fn file(entries: &str) -> String {
    format!("announcements:\n{entries}")
}

fn out(city: &City, text: &str) -> usize {
    city.sandbox.posts().iter().filter(|p| p.text == text).count()
}

/// A fault in its entry, in its whole file, or in the folder, leaves a repeat in force: for days, not for one.
#[test]
fn r03_a_repeat_whose_entry_or_file_cannot_be_read_goes_on_for_days() {
    for how in ["entry", "file", "folder"] {
        simulate(async {
            let city = City::new(START, 1, "");
            city.save("a.yaml", &file(&hourly("")));
            city.save("b.yaml", &file("  - {id: b, text: 别的, at: 2026-12-24 08:00, to: [shanghai]}\n"));
            let daemon = city.start().await;
            city.sleep(3700).await;
            match how {
                "entry" => city.save("a.yaml", &file(&hourly(", lnik: x"))),
                "file" => city.save("a.yaml", "announcements: [\n"),
                _ => std::fs::rename(city.queue(""), city.path().join("away")).unwrap(),
            }
            city.sleep(26 * 3600).await;
            assert_eq!(out(&city, "早安"), 27, "{how}");
            if how == "entry" {
                // Mended, it goes on as before; taken out, it ends.
                city.save("a.yaml", &file(&hourly("")));
                city.sleep(2 * 3600).await;
                assert_eq!(out(&city, "早安"), 29);
                city.save("a.yaml", "announcements: []\n");
                city.sleep(4 * 3600).await;
                assert_eq!(out(&city, "早安"), 29);
            }
            drop(daemon);
        });
    }
}

/// A person tries a repeat again: the newest hour goes, once, and an older one only by its own name.
#[test]
fn r11_a_repeat_that_is_tried_again_goes_once() {
    simulate(async {
        let city = City::new(START, 2, "");
        let refused = json!({ "behaviour": "error", "operation": "post", "params": { "code": 20012 } });
        faults(&city, json!([refused]));
        city.save("a.yaml", &file(&hourly("")));
        let daemon = city.start().await;
        city.sleep(6 * 3600).await;
        assert_eq!(in_state(&all(&daemon).await, State::Failed), 6);
        faults(&city, json!([]));
        assert_eq!(daemon.inner.retry(&person(1000), "r", None).await.unwrap().retrying, 1);
        city.sleep(60).await;
        assert_eq!(out(&city, "早安"), 1);
        assert!(daemon.inner.retry(&person(1000), "r", None).await.is_err(), "the newest is out");
        let failed = all(&daemon).await.into_iter().find(|d| d.state == State::Failed).unwrap();
        daemon.inner.retry(&person(1000), failed.occurrence.as_str(), None).await.unwrap();
        city.sleep(60).await;
        assert_eq!(out(&city, "早安"), 2);
    });
}

/// Of a repeat that a hold kept back the newest hour goes on by itself, and the others are left out.
#[test]
fn r11_of_a_repeat_that_was_held_for_hours_the_newest_goes_on() {
    simulate(async {
        let city = City::new(START, 3, "emergency: {after_hold: resume}\n");
        city.save("a.yaml", &file(&hourly(", expires_after: 12h")));
        let daemon = city.start().await;
        let hold = holding_until(&daemon, None).await.id;
        city.sleep(6 * 3600).await;
        assert_eq!(in_state(&all(&daemon).await, State::Held), 6);
        assert_eq!(daemon.inner.end_hold(&person(1000), &hold).await.unwrap().released, 1);
        city.sleep(60).await;
        assert_eq!((out(&city, "早安"), in_state(&all(&daemon).await, State::Expired)), (1, 5));
    });
}

/// Newer posts one after the other take the place of a repeat's newest, and leave its older days alone.
#[test]
fn a_chain_of_newer_posts_takes_down_no_older_days_of_a_repeat() {
    simulate(async {
        let city = City::new(START, 4, "");
        city.save("a.yaml", &file(&hourly("")));
        let daemon = city.start().await;
        city.sleep(4 * 3600).await;
        let mut before = "r".to_owned();
        for n in 1..4 {
            let (id, at) = (format!("n{n}"), format!("2026-11-24 12:0{}", 2 * n - 1));
            let entry =
                format!("  - {{id: {id}, text: 新{n}, at: {at}, to: [\"sina:shanghai\"], supersedes: {before}}}\n");
            city.save(&format!("{id}.yaml"), &file(&entry));
            city.clock.sleep(Duration::from_secs(120)).await;
            before = id;
        }
        let stands = city.posts();
        assert_eq!(stands.get(&("sina:shanghai".to_owned(), "早安".to_owned())), Some(&3), "{stands:?}");
        assert!(daemon.inner.ledger.commit(&Actor::Daemon, Vec::new()).await.is_ok());
    });
}

/// Edited while the daemon was stopped for days, a repeat has missed its newest hour like one that was left alone.
#[test]
fn r11_a_repeat_that_is_edited_during_a_long_stop_catches_up_all_the_same() {
    simulate(async {
        let city = City::new(START, 5, "");
        city.save("a.yaml", &file(&hourly("")));
        let daemon = city.start().await;
        city.sleep(60).await;
        daemon.stop().await;
        city.sleep(50 * 3600).await;
        city.save("a.yaml", &file(&hourly("").replace("早安", "早上好")));
        let daemon = city.start().await;
        city.sleep(300).await;
        assert_eq!((out(&city, "早上好"), out(&city, "早安")), (1, 0));
        drop(daemon);
    });
}
