//! How holds begin and end, and what goes on after them: alike, whatever ended them.

mod support;

use std::time::Duration;

use fabu::core::announcement::Level;
use fabu::core::delivery::{Desired, State};
use fabu::core::gate::Hold;
use fabu::daemon::Daemon;
use fabu::daemon::emergency::{Closed, Urgent};
use fabu::daemon::holds::until;
use serde_json::json;
use support::duty::{ALL, asked, closed, confirmed, everywhere, faults, holding_until, person, sent, text, update};
use support::{City, all, in_state, simulate};

const START: &str = "2026-11-24T00:00:00Z";

fn file(entries: &str) -> String {
    format!("announcements:\n{entries}")
}

fn hourly(more: &str) -> String {
    format!("  - {{id: r, text: 早安, repeat: \"30 * * * *\", to: [\"sina:shanghai\"], catch_up: 12h{more}}}\n")
}

fn out(city: &City, text: &str) -> usize {
    city.sandbox.posts().iter().filter(|p| p.text == text).count()
}

fn resumes(seed: u64) -> City {
    City::new(START, seed, "emergency: {after_hold: resume}\n")
}

async fn holding_for(daemon: &Daemon, seconds: u64) -> String {
    holding_until(daemon, until(daemon.inner.clock.now(), Duration::from_secs(seconds))).await.id
}

/// Whether somebody ends it, or its time comes: of a repeat the newest hour goes, and in the old order, one after the other.
#[test]
fn what_a_hold_kept_back_goes_on_alike_however_it_ended() {
    for (n, is_ended) in [true, false].into_iter().enumerate() {
        simulate(async {
            let city = resumes(200 + n as u64);
            let of = |n: u32| {
                format!("  - {{id: p{n}, text: 第{n}条, at: 2026-11-24 08:0{n}, to: [shanghai], expires_after: 12h}}\n")
            };
            let posts: String = (1..=6).map(of).collect();
            city.save("a.yaml", &file(&(posts + &hourly(", expires_after: 12h"))));
            let daemon = city.start().await;
            let hold = holding_for(&daemon, 4 * 3600 + 60).await;
            city.sleep(4 * 3600).await;
            if is_ended {
                daemon.inner.end_hold(&person(1000), &hold).await.unwrap();
            }
            city.sleep(180).await;
            let rows = all(&daemon).await;
            assert_eq!((out(&city, "早安"), in_state(&rows, State::Expired)), (1, 3), "{is_ended}");
            let posts = city.sandbox.posts();
            for account in ["sina:shanghai", "tencent:shanghai", "xinmin:shanghai"] {
                let own: Vec<&str> = posts.iter().filter(|p| p.account == account).map(|p| p.text.as_str()).collect();
                let own: Vec<&str> = own.into_iter().filter(|text| text.starts_with('第')).collect();
                assert_eq!(own, ["第1条", "第2条", "第3条", "第4条", "第5条", "第6条"], "{is_ended}");
            }
        });
    }
}

/// What is held under the longer of two holds, which is ended while the shorter one stands.
#[test]
fn what_is_held_waits_for_the_holds_that_stand_and_for_no_other() {
    for (n, first) in [Some(3600), None].into_iter().enumerate() {
        simulate(async {
            let city = resumes(210 + n as u64);
            city.save(
                "a.yaml",
                &file("  - {id: a, text: 今晚停水, at: 2026-11-24 08:02, to: [shanghai], expires_after: 1h}\n"),
            );
            let daemon = city.start().await;
            let long = match first {
                Some(seconds) => holding_for(&daemon, seconds).await,
                None => holding_until(&daemon, None).await.id,
            };
            city.sleep(1).await;
            let standing = daemon.inner.holds()[0].clone();
            let second = Hold {
                id: "second".to_owned(),
                until: until(daemon.inner.clock.now(), Duration::from_secs(300)),
                begun: daemon.inner.clock.now(),
                ..standing
            };
            daemon.inner.hold(&person(1000), second).await.unwrap();
            city.sleep(150).await;
            daemon.inner.end_hold(&person(1000), &long).await.unwrap();
            city.sleep(60).await;
            assert!(city.posts().is_empty(), "the other one stands");
            city.sleep(120).await;
            assert_eq!(out(&city, "今晚停水"), 4, "{:?}", all(&daemon).await);
        });
    }
}

/// It lasts by its own words, however long it was kept back.
#[test]
fn r11_what_was_kept_back_lasts_no_longer_than_it_says() {
    for (n, is_ended) in [true, false].into_iter().enumerate() {
        simulate(async {
            let city = resumes(220 + n as u64);
            city.save(
                "a.yaml",
                &file("  - {id: a, text: 今晚停水, at: 2026-11-24 08:02, to: [shanghai], expires_after: 10m}\n"),
            );
            let daemon = city.start().await;
            let hold = holding_for(&daemon, 600).await;
            city.sleep(590).await;
            faults(&city, json!([{ "behaviour": "unreachable", "params": { "kind": "refused" } }]));
            if is_ended {
                daemon.inner.end_hold(&person(1000), &hold).await.unwrap();
            }
            city.sleep(180).await;
            city.sandbox.clear();
            city.sleep(900).await;
            assert!(city.posts().is_empty(), "{is_ended}: {:?}", city.posts());
            assert_eq!(in_state(&all(&daemon).await, State::Expired), 4);
        });
    }
}

/// Nobody has seen the warning, and whoever corrects it lets routine go on.
#[test]
fn what_the_hold_of_a_corrected_post_kept_back_goes_on() {
    simulate(async {
        let city = resumes(230);
        city.save(
            "a.yaml",
            &file("  - {id: a, text: 今晚停水, at: 2026-11-24 08:02, to: [shanghai], expires_after: 10m}\n"),
        );
        let daemon = city.start().await;
        let red = asked(&daemon, 1000, everywhere("【洪水】请撤离。", Level::Red)).await;
        city.sleep(150).await;
        assert_eq!(in_state(&all(&daemon).await, State::Held), 4 + ALL);
        closed(&daemon, 1000, "correct", red["id"].as_str().unwrap(), Closed::default()).await;
        assert!(daemon.inner.holds().is_empty());
        city.sleep(30).await;
        assert_eq!(out(&city, "今晚停水"), 4);
    });
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

/// The silence that was asked for runs out, or that of the emergency it updates, before the second word comes.
#[test]
fn r05_with_the_last_word_it_is_silent_unless_somebody_ended_that() {
    for (n, is_update, is_ended) in [(0, true, false), (1, false, false), (2, true, true), (3, false, true)] {
        simulate(async {
            let city = City::new(START, 240 + n, "");
            let daemon = city.start().await;
            let red = |words: &str, lasts: u64| Urgent { hold: Some(minutes(lasts)), ..everywhere(words, Level::Red) };
            let mut first = String::new();
            if is_update {
                first = sent(&daemon, red("【洪水】请撤离。", 5)).await;
                city.sleep(240).await;
            }
            let next = match is_update {
                true => Urgent { update: Some(first.clone()), ..red("【洪水】水位上涨。", 20) },
                false => red("【洪水】请撤离。", 2),
            };
            let answer = asked(&daemon, 1000, next).await;
            if is_ended {
                let hold = daemon.inner.holds()[0].id.clone();
                city.sleep(10).await;
                daemon.inner.end_hold(&person(1000), &hold).await.unwrap();
            }
            city.sleep(180).await;
            assert!(daemon.inner.holds().is_empty(), "{:?}", daemon.inner.holds());
            confirmed(&daemon, 1001, &answer).await.unwrap();
            let now = daemon.inner.clock.now();
            let left: Vec<i64> = daemon.inner.holds().iter().map(|h| (h.until.unwrap() - now).num_seconds()).collect();
            match is_ended {
                true => assert!(left.is_empty(), "what a person ended is not begun again: {left:?}"),
                false => assert_eq!(left, [if is_update { 1200 } else { 120 }]),
            }
        });
    }
}

/// The silence of an emergency was ended; an update brought one of its own, and nothing became of it.
#[test]
fn r05_the_hold_that_an_update_brought_ends_with_it() {
    for (n, is_cancelled) in [true, false].into_iter().enumerate() {
        simulate(async {
            let city = City::new(START, 250 + n as u64, "");
            let daemon = city.start().await;
            let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Red)).await;
            city.sleep(60).await;
            let hold = daemon.inner.holds()[0].id.clone();
            daemon.inner.end_hold(&person(1000), &hold).await.unwrap();
            city.sleep(60).await;
            let answer = asked(&daemon, 1000, update(&first, "【洪水】水位上涨。", Level::Red)).await;
            assert_eq!(daemon.inner.holds().len(), 1);
            if is_cancelled {
                daemon.inner.withdraw(&person(1000), &text(&answer, "id"), Desired::Stopped).await.unwrap();
            }
            city.sleep(900).await;
            assert!(daemon.inner.holds().is_empty(), "{is_cancelled}: {:?}", daemon.inner.holds());
        });
    }
}

/// Of a cancelled emergency it comes out only later that nothing of it is there.
#[test]
fn r05_the_hold_ends_when_the_last_of_a_cancelled_emergency_is_known_not_to_be_out() {
    simulate(async {
        let city = City::new(START, 260, "emergency: {confirm: {red: 1}}\n");
        let daemon = city.start().await;
        faults(
            &city,
            json!([{ "behaviour": "reset_before", "operation": "post" }, { "behaviour": "proxy_page", "operation": "timeline" }]),
        );
        let red = Urgent {
            to: vec!["sina:shanghai".to_owned(), "sina:shanghai/metro".to_owned()],
            ..everywhere("【洪水】请撤离。", Level::Red)
        };
        let id = text(&asked(&daemon, 1000, red).await, "id");
        city.sleep(20).await;
        let answer = daemon.inner.withdraw(&person(1000), &id, Desired::Stopped).await.unwrap();
        assert_eq!((answer.cancelled, answer.in_flight), (0, 2));
        assert_eq!(daemon.inner.holds().len(), 1, "it may be out");
        city.sandbox.clear();
        city.sleep(1200).await;
        assert_eq!(in_state(&all(&daemon).await, State::Cancelled), 2, "{:?}", all(&daemon).await);
        assert!(daemon.inner.holds().is_empty());
    });
}
