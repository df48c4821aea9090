//! How an emergency ends: what is quoted of it, what stands until then, how long it is silent, and what a person who finds
//! more can still do.

mod support;

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use chrono::TimeDelta;
use fabu::api::peer::Peer;
use fabu::core::announcement::Level;
use fabu::core::delivery::{Delivery, Desired, State};
use fabu::daemon::Daemon;
use fabu::daemon::acts::ActError;
use fabu::daemon::emergency::{Closed, Urgent};
use fabu::daemon::resolve::Said;
use serde_json::{Value, json};
use support::duty::{ALL, asked, confirmed, everywhere, faults, hold, person, sent, standing, text, update};
use support::{City, all, in_state, simulate};
use tower::ServiceExt as _;

const START: &str = "2026-11-24T00:00:00Z";

fn to(whom: &str, urgent: Urgent) -> Urgent {
    Urgent { to: vec![whom.to_owned()], ..urgent }
}

async fn closed(daemon: &Daemon, id: &str, with: &str) -> Value {
    support::duty::closed(daemon, 1000, with, id, Closed::default()).await
}

/// Texts that stand and contain these words, each with the number of its accounts.
fn said(city: &City, words: &str) -> Vec<(String, usize)> {
    let mut found = std::collections::BTreeMap::<String, usize>::new();
    for ((_, text), n) in city.posts().into_iter().filter(|((_, text), _)| text.contains(words)) {
        *found.entry(text).or_default() += n as usize;
    }
    found.into_iter().collect()
}

/// The next answers to posts of sina:shanghai are lost, and its timeline cannot be read.
fn loses_answers(city: &City, times: u32) {
    let lost = json!({ "behaviour": "reset_after", "operation": "post", "account": "sina:shanghai", "times": times });
    let blind = json!({ "behaviour": "proxy_page", "operation": "timeline", "account": "sina:shanghai" });
    faults(city, json!([lost, blind]));
}

async fn row_of(daemon: &Daemon, account: &str, announcement: &str) -> Delivery {
    let of = |d: &Delivery| d.account.as_str() == account && d.announcement.as_str() == announcement;
    all(daemon).await.into_iter().find(of).unwrap()
}

/// One unit had an update that the others never carried: what is said to all quotes what all have read.
#[test]
fn r52_last_words_quote_what_everybody_has_read_who_is_told() {
    for (with, mark) in [("all-clear", "【解除】"), ("correct", "【更正】")] {
        simulate(async {
            let city = City::new(START, 1, "");
            let daemon = city.start().await;
            let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
            city.sleep(5).await;
            sent(&daemon, to("shanghai/pudong", update(&first, "【洪水】水位上涨。", Level::Yellow))).await;
            city.sleep(5).await;
            closed(&daemon, &first, with).await;
            city.sleep(30).await;
            let words = said(&city, mark);
            let [(text, accounts)] = words.as_slice() else { panic!("{words:?}") };
            assert!(text.contains("请撤离") && !text.contains("水位上涨") && *accounts == ALL, "{words:?}");
        });
        // Two units have read nothing in common: nothing is quoted.
        simulate(async {
            let city = City::new(START, 2, "");
            let daemon = city.start().await;
            let first = sent(&daemon, to("shanghai/pudong", everywhere("【洪水】请撤离。", Level::Yellow))).await;
            city.sleep(5).await;
            sent(&daemon, to("shanghai/metro", update(&first, "【洪水】水位上涨。", Level::Yellow))).await;
            city.sleep(5).await;
            closed(&daemon, &first, with).await;
            city.sleep(30).await;
            let words = said(&city, mark);
            let [(text, _)] = words.as_slice() else { panic!("{words:?}") };
            assert!(!text.contains("请撤离") && !text.contains("水位上涨"), "{words:?}");
        });
        // An update that is on its way, and is stopped, was read by nobody.
        simulate(async {
            let city = City::new(START, 3, "");
            let daemon = city.start().await;
            let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
            city.sleep(5).await;
            faults(&city, json!([{ "behaviour": "unreachable", "params": { "kind": "refused" } }]));
            sent(&daemon, update(&first, "【洪水】水位上涨。", Level::Yellow)).await;
            city.sleep(3).await;
            city.sandbox.clear();
            closed(&daemon, &first, with).await;
            city.sleep(600).await;
            let words = said(&city, mark);
            let [(text, accounts)] = words.as_slice() else { panic!("{words:?}") };
            assert!(text.contains("请撤离") && *accounts == ALL, "{words:?}");
        });
    }
}

/// What is wrong does not stand for as long as a platform makes its correction wait, or because it refuses its words.
#[test]
fn a_wrong_post_goes_also_where_its_correction_cannot_be_said_yet() {
    for how in [json!({ "behaviour": "limit" }), json!({ "behaviour": "error", "params": { "code": 20012 } })] {
        simulate(async {
            let city = City::new(START, 4, "");
            let daemon = city.start().await;
            let id = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
            city.sleep(5).await;
            let mut rule = how.clone();
            (rule["platform"], rule["operation"]) = (json!("sina"), json!("post"));
            faults(&city, json!([rule]));
            closed(&daemon, &id, "correct").await;
            city.sleep(30).await;
            assert_eq!(said(&city, "请撤离").iter().filter(|(text, _)| !text.contains("【更正】")).count(), 0, "{how}");
            let left = all(&daemon).await;
            assert_eq!(left.iter().filter(|d| d.announcement.as_str() == id && d.state == State::Deleted).count(), ALL);
        });
    }
}

/// The hold is the emergency's: what stands of it is silent though its first post was given up.
#[test]
fn r05_a_hold_does_not_end_with_a_post_while_another_warning_of_its_emergency_stands() {
    for is_cancelled in [true, false] {
        simulate(async {
            let city = City::new(START, 5, "emergency: {confirm_within: 10m}\n");
            let daemon = city.start().await;
            let first = asked(&daemon, 1000, everywhere("【洪水】请撤离。", Level::Red)).await;
            let first = text(&first, "id");
            assert_eq!(daemon.inner.holds().len(), 1);
            let later = to("shanghai/pudong", update(&first, "【洪水】水位上涨。", Level::Red));
            sent(&daemon, Urgent { hold: Some(Duration::from_secs(3 * 3600)), ..later }).await;
            city.sleep(5).await;
            assert!(standing(&city, "水位上涨") > 0);
            if is_cancelled {
                daemon.inner.withdraw(&person(1000), &first, Desired::Stopped).await.unwrap();
            } else {
                city.sleep(1200).await;
            }
            assert_eq!(standing(&city, "请撤离"), 0, "nobody has agreed to it");
            assert_eq!(daemon.inner.holds().len(), 1, "the silence is over while the update stands");
        });
    }
}

/// A clock that runs hours ahead for a moment ends no hold, and one that stays there does after a while.
#[test]
fn r05_a_clock_that_runs_ahead_for_a_moment_ends_no_hold() {
    simulate(async {
        let city = City::new(START, 6, "");
        let daemon = city.start().await;
        hold(&daemon, Duration::from_secs(2 * 3600)).await;
        let at = "announcements:\n  - {id: a, text: 早安, at: 2026-11-24 08:30, to: [shanghai], catch_up: 4h, expires: 2026-11-24 23:00}\n";
        city.save("a.yaml", at);
        city.sleep(60).await;
        city.clock.step(TimeDelta::hours(3));
        fabu::daemon::jobs::every_minute(&daemon.inner).await;
        city.clock.sleep(Duration::from_millis(3500)).await;
        city.clock.step(TimeDelta::hours(-3));
        fabu::daemon::jobs::every_minute(&daemon.inner).await;
        assert_eq!(daemon.inner.holds().len(), 1);
        city.sleep(3600).await;
        assert!(city.sandbox.posts().is_empty(), "routine goes out into the silence");
        city.clock.step(TimeDelta::hours(3));
        for _ in 0..13 {
            fabu::daemon::jobs::every_minute(&daemon.inner).await;
            city.sleep(60).await;
        }
        fabu::daemon::jobs::every_minute(&daemon.inner).await;
        assert!(daemon.inner.holds().is_empty(), "it is hours later");
    });
}

/// A post that turns up after absence was believed, and its delivery given up, can be said to be there, and is taken down.
#[test]
fn r52_a_post_that_turns_up_after_it_was_given_up_has_a_way_out() {
    simulate(async {
        let city = City::new(START, 7, "");
        let daemon = city.start().await;
        // Its answer is lost, and the platform does not show it for an hour.
        faults(
            &city,
            json!([
                { "behaviour": "reset_after", "operation": "post", "times": 1 },
                { "behaviour": "gap", "operation": "timeline", "params": { "kind": "lie" } },
            ]),
        );
        let id = sent(&daemon, to("sina:shanghai", everywhere("【洪水】请撤离。", Level::Red))).await;
        city.sleep(5).await;
        daemon.inner.correct(&person(1000), &id, Closed::default()).await.unwrap();
        city.sleep(3600).await;
        let given_up = row_of(&daemon, "sina:shanghai", &id).await;
        assert_eq!(given_up.state, State::Cancelled, "{given_up:?}");
        city.sandbox.clear();
        let post = city.sandbox.posts().into_iter().find(|p| !p.deleted && p.text.contains("请撤离")).unwrap();
        let url = support::addresses::addresses(&post, "100000").remove(0);
        let found = Said { published: Some(url), ..Said::default() };
        daemon.inner.resolve(&person(1000), given_up.id, found).await.unwrap();
        city.sleep(60).await;
        let after = row_of(&daemon, "sina:shanghai", &id).await;
        if after.state == State::Published {
            daemon.inner.withdraw(&person(1000), &id, Desired::Removed).await.unwrap();
            city.sleep(60).await;
        }
        assert_eq!(standing(&city, "请撤离"), 0);
    });
}

/// A reading that was told to wait keeps no new emergency waiting, and a take-down that is not allowed is no bad token.
#[test]
fn r29_what_one_kind_of_request_was_told_is_not_what_another_obeys() {
    simulate(async {
        let city = City::new(START, 8, "");
        let daemon = city.start().await;
        faults(
            &city,
            json!([
                { "behaviour": "reset_after", "operation": "post", "times": 15 },
                { "behaviour": "limit", "operation": "timeline" },
            ]),
        );
        sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
        city.sleep(30).await;
        sent(&daemon, everywhere("【大风】关窗。", Level::Yellow)).await;
        city.sleep(5).await;
        assert_eq!(standing(&city, "关窗"), ALL);
    });
    simulate(async {
        let city = City::new(START, 9, "");
        let daemon = city.start().await;
        city.save("a.yaml", "announcements:\n  - {id: a, text: 早安, at: 2026-11-24 08:02, to: [\"eastday:**\"]}\n  - {id: b, text: 停水, at: 2026-11-24 08:20, to: [\"eastday:**\"]}\n");
        city.sleep(300).await;
        faults(
            &city,
            json!([{ "behaviour": "error", "operation": "delete", "params": { "status": 403, "message": "not yours" } }]),
        );
        daemon.inner.withdraw(&person(1000), "a", Desired::Removed).await.unwrap();
        city.sleep(1200).await;
        let rows = all(&daemon).await;
        assert_eq!(in_state(&rows, State::Failed), 0, "{rows:?}");
        assert_eq!(standing(&city, "停水"), rows.len() / 2);
    });
}

/// Where the update was not for an account, its older words may still be tried there.
#[test]
fn an_emergency_that_failed_is_tried_again_where_nothing_newer_was_said() {
    simulate(async {
        let city = City::new(START, 10, "");
        let daemon = city.start().await;
        let refused = json!([{ "behaviour": "error", "operation": "post", "account": "sina:shanghai/metro", "params": { "code": 20012 } },
            { "behaviour": "error", "operation": "post", "account": "sina:shanghai/pudong", "params": { "code": 20012 } }]);
        faults(&city, refused);
        let first = sent(&daemon, to("sina:**", everywhere("【洪水】请撤离。", Level::Yellow))).await;
        city.sleep(5).await;
        city.sandbox.clear();
        sent(&daemon, to("sina:shanghai/pudong", update(&first, "【洪水】水位上涨。", Level::Yellow))).await;
        city.sleep(5).await;
        let again = daemon.inner.retry(&person(1000), &first, None).await.unwrap();
        assert_eq!(again.retrying, 1);
        city.sleep(5).await;
        let there = |account: &str| {
            city.posts().keys().filter(|(a, _)| a == account).map(|(_, t)| t.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            there("sina:shanghai/metro"),
            ["【洪水】请撤离。"],
            "{:?}",
            row_of(&daemon, "sina:shanghai/metro", &first).await
        );
        assert_eq!(there("sina:shanghai/pudong"), ["【洪水】水位上涨。"]);
        let over = daemon.inner.retry(&person(1000), &first, Some("sina:shanghai/pudong")).await;
        assert!(
            matches!(&over, Err(ActError::Conflict(said)) if said.en.contains("followed by")),
            "it was told in newer words"
        );
    });
}

/// What was signed off is sent, whatever an editor does to the picture meanwhile.
#[test]
fn r12_an_emergency_has_its_picture_whatever_becomes_of_the_file() {
    simulate(async {
        let city = City::new(START, 11, "");
        let picture = include_bytes!("../src/cli/demo_weather.png");
        for name in ["a.png", "b.png"] {
            std::fs::write(city.queue(name), picture).unwrap();
        }
        city.save(
            "q.yaml",
            "announcements:\n  - {id: q, priority: emergency, level: yellow, text: 【大风】关窗。, at: 2026-11-24 08:20, to: [\"sina:**\"], images: [b.png]}\n",
        );
        let daemon = city.start().await;
        let images = vec![("a.png".to_owned(), None)];
        let answer =
            asked(&daemon, 1000, Urgent { images, ..to("sina:**", everywhere("【洪水】见图。", Level::Red)) }).await;
        let filter = fabu::ledger::Filter { announcement: Some("q".to_owned()), max: 1, ..Default::default() };
        let queued = daemon.inner.ledger.announcements(filter).await.unwrap().pop().unwrap();
        confirmed(&daemon, 1000, &json!({ "id": "q", "content_hash": queued.row.content })).await.unwrap();
        city.sleep(5).await;
        // One is overwritten with another picture, the other is gone.
        let mut other = picture.to_vec();
        other.extend_from_slice(b"other");
        std::fs::write(city.queue("a.png"), &other[..]).unwrap();
        std::fs::remove_file(city.queue("b.png")).unwrap();
        confirmed(&daemon, 1001, &answer).await.unwrap();
        city.sleep(1500).await;
        let rows = all(&daemon).await;
        assert_eq!(in_state(&rows, State::Failed), 0, "{rows:?}");
        let with_picture =
            |words: &str| city.sandbox.posts().iter().filter(|p| p.text.contains(words) && p.pictures == 1).count();
        assert_eq!((with_picture("见图"), with_picture("关窗")), (5, 5), "all accounts of sina");
    });
}

/// What a hold without an end keeps back is counted also once its hour has come.
#[test]
fn r52_a_hold_says_how_many_it_keeps_back() {
    simulate(async {
        let city = City::new(START, 12, "");
        let daemon = city.start().await;
        let lines = [
            "a, text: 早安, at: 2026-11-24 08:05",
            "b, text: 晚安, at: 2026-11-24 18:00",
            "c, text: 年末, at: 2026-11-28 18:00",
        ];
        let entries: Vec<String> =
            lines.iter().map(|line| format!("  - {{id: {line}, to: [shanghai], expires_after: 30d}}\n")).collect();
        city.save("a.yaml", &format!("announcements:\n{}", entries.concat()));
        daemon.rescan().await;
        let begun = support::duty::holding_until(&daemon, None).await;
        assert_eq!(begun.held, 8, "those of the coming day");
        city.sleep(1800).await;
        let held = in_state(&all(&daemon).await, State::Held);
        let mut asked = Request::get("/v1/holds").body(Body::empty()).unwrap();
        asked.extensions_mut().insert(Peer::new(0));
        let answer = fabu::api::router(daemon.inner.clone()).oneshot(asked).await.unwrap();
        let listed = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        let listed: Value = serde_json::from_slice(&listed).unwrap();
        assert_eq!((held, &listed["items"][0]["held"]), (4, &json!(8)));
    });
}

/// A warning that was to be deleted and stands there all the same can be corrected and cleared.
#[test]
fn r52_what_a_platform_would_not_take_down_stands_there_like_any_other() {
    for (with, mark) in [("correct", "【更正】"), ("all-clear", "【解除】")] {
        simulate(async {
            let city = City::new(START, 13, "");
            let daemon = city.start().await;
            let id = sent(&daemon, to("sina:**", everywhere("【洪水】请撤离。", Level::Yellow))).await;
            city.sleep(5).await;
            faults(&city, json!([{ "behaviour": "error", "operation": "delete", "params": { "code": 20102 } }]));
            daemon.inner.withdraw(&person(1000), &id, Desired::Removed).await.unwrap();
            city.sleep(10).await;
            closed(&daemon, &id, with).await;
            city.sleep(30).await;
            assert_eq!(standing(&city, mark), 5);
        });
    }
}

/// An update that waits for a word keeps the silence that both were sent with; when nothing of the emergency is left, it ends.
#[test]
fn r05_the_hold_of_an_emergency_lasts_while_any_of_it_waits_for_a_word_and_ends_with_the_last() {
    for is_given in [true, false] {
        simulate(async {
            let city = City::new(START, 14, "emergency: {confirm_within: 10m}\n");
            let daemon = city.start().await;
            let first = asked(&daemon, 1000, everywhere("【洪水】请撤离。", Level::Red)).await;
            let first = text(&first, "id");
            city.sleep(60).await;
            let later = to("shanghai/pudong", update(&first, "【洪水】水位上涨。", Level::Red));
            let later = asked(&daemon, 1000, Urgent { hold: Some(Duration::from_secs(3 * 3600)), ..later }).await;
            daemon.inner.withdraw(&person(1000), &first, Desired::Stopped).await.unwrap();
            assert_eq!(daemon.inner.holds().len(), 1, "the update waits");
            if is_given {
                confirmed(&daemon, 1001, &later).await.unwrap();
                city.sleep(5).await;
                let until = daemon.inner.holds()[0].until.unwrap();
                assert!(until > daemon.inner.clock.now() + TimeDelta::hours(2), "{until}");
            } else {
                city.sleep(1200).await;
                assert!(daemon.inner.holds().is_empty(), "silent for nobody");
            }
        });
    }
}

/// A routine take-down, or reading, that was told to wait keeps no correction of a false alert waiting; nor does a correction
/// that has to wait itself, or whose answer was lost, keep what is wrong standing.
#[test]
fn a_wrong_post_goes_whatever_keeps_its_correction_waiting() {
    for how in ["paused", "lost"] {
        simulate(async {
            let city = City::new(START, 15, "");
            let daemon = city.start().await;
            let id = sent(&daemon, to("sina:**", everywhere("【洪水】请撤离。", Level::Yellow))).await;
            city.sleep(5).await;
            match how {
                "paused" => {
                    faults(&city, json!([{ "behaviour": "limit", "operation": "post" }]));
                    sent(&daemon, to("sina:**", everywhere("【大风】关窗。", Level::Yellow))).await;
                }
                _ => faults(
                    &city,
                    json!([
                        { "behaviour": "reset_before", "operation": "post" }, { "behaviour": "proxy_page", "operation": "timeline" },
                    ]),
                ),
            }
            city.sleep(5).await;
            closed(&daemon, &id, "correct").await;
            city.sleep(20).await;
            let wrong = said(&city, "请撤离").into_iter().filter(|(text, _)| !text.contains("【更正】")).count();
            assert_eq!(wrong, 0, "{how}");
        });
    }
    simulate(async {
        let city = City::new(START, 16, "");
        city.save("a.yaml", "announcements:\n  - {id: a, text: 早安, at: 2026-11-24 08:02, to: [\"sina:shanghai\"]}\n");
        let daemon = city.start().await;
        let id = sent(&daemon, to("sina:**", everywhere("【洪水】请撤离。", Level::Yellow))).await;
        city.sleep(300).await;
        let limited = json!({ "behaviour": "error", "operation": "delete", "times": 1, "params": { "code": 10022 } });
        faults(&city, json!([limited]));
        daemon.inner.withdraw(&person(1000), "a", Desired::Removed).await.unwrap();
        city.sleep(5).await;
        closed(&daemon, &id, "correct").await;
        city.sleep(10).await;
        assert_eq!(said(&city, "请撤离").into_iter().filter(|(text, _)| !text.contains("【更正】")).count(), 0);
    });
}

/// A correction is corrected while it waits, on one account, to know whether the false post is there.
#[test]
fn r52_the_second_correction_goes_where_the_first_waited() {
    simulate(async {
        let city = City::new(START, 21, "");
        let daemon = city.start().await;
        loses_answers(&city, 1);
        let id = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
        city.sleep(5).await;
        assert_eq!(row_of(&daemon, "sina:shanghai", &id).await.state, State::Unknown);
        let first = closed(&daemon, &id, "correct").await;
        city.sleep(2).await;
        let again = Closed { text: Some("【更正】没有洪水，请安心。"), ..Closed::default() };
        daemon.inner.correct(&person(1000), &text(&first, "id"), again).await.unwrap();
        city.sleep(2).await;
        faults(&city, json!([]));
        city.sleep(3600).await;
        assert_eq!(standing(&city, "请撤离"), 0, "{:?}", city.posts());
        assert_eq!(said(&city, "请安心"), [("【更正】没有洪水，请安心。".to_owned(), ALL)]);
    });
}

/// One officer corrects, another clears while the correction is still on its way: each account hears one of them.
#[test]
fn r52_after_a_correction_that_is_on_its_way_there_is_nothing_to_clear() {
    simulate(async {
        let city = City::new(START, 22, "");
        let daemon = city.start().await;
        let id = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
        city.sleep(5).await;
        city.sandbox.set_latency(fabu::sandbox::Latency::Fixed(Duration::from_millis(1500)));
        closed(&daemon, &id, "correct").await;
        daemon.inner.clock.sleep(Duration::from_millis(300)).await;
        let cleared = daemon.inner.all_clear(&person(1001), &id, Closed::default(), &[]).await;
        city.sleep(600).await;
        assert_eq!((standing(&city, "【更正】"), standing(&city, "【解除】")), (ALL, 0), "{cleared:?}");
    });
}

/// The hint for a post that is gone, as is its correction, does not send a person round in a circle.
#[test]
fn r52_a_correction_that_was_taken_down_is_not_named_as_the_word_that_stands() {
    simulate(async {
        let city = City::new(START, 23, "");
        let daemon = city.start().await;
        let id = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
        city.sleep(5).await;
        let correction = text(&closed(&daemon, &id, "correct").await, "id");
        city.sleep(60).await;
        daemon.inner.withdraw(&person(1000), &correction, Desired::Removed).await.unwrap();
        city.sleep(60).await;
        for named in [&id, &correction] {
            let again = Closed { text: Some("【更正】没有洪水。"), ..Closed::default() };
            let Err(ActError::Conflict(why)) = daemon.inner.correct(&person(1000), named, again).await else {
                panic!("there is nobody to tell")
            };
            assert!(why.en.contains("taken down too") && why.en.contains("fabu urgent"), "{why:?}");
        }
    });
}

/// An all-clear that waits to know where the warning is has nothing to say once that warning is called false.
#[test]
fn r52_a_correction_takes_the_place_of_last_words_that_wait() {
    for first in ["all-clear", "correct"] {
        simulate(async {
            let city = City::new(START, 24, "");
            let daemon = city.start().await;
            loses_answers(&city, 2);
            let id = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
            city.sleep(2).await;
            let newer = sent(&daemon, to("shanghai", update(&id, "【洪水】水位上涨。", Level::Yellow))).await;
            city.sleep(2).await;
            closed(&daemon, &newer, first).await;
            city.sleep(2).await;
            closed(&daemon, &id, "correct").await;
            faults(&city, json!([]));
            city.sleep(4 * 3600).await;
            let on_it = city.posts().into_keys().filter(|(account, _)| account == "sina:shanghai");
            let on_it: Vec<String> = on_it.map(|(_, text)| text).collect();
            assert!(on_it.len() == 1 && on_it[0].starts_with("【更正】"), "{first}: {on_it:?}");
        });
    }
}

/// Its account has no working secret, or no place in the configuration, when the correction is to be prepared; or the process
/// ends while the correction is on the wire and its timeline cannot be read. What is wrong goes as soon as it can.
#[test]
fn r06_a_wrong_post_goes_where_its_correction_fails_before_it_is_sent() {
    for how in ["secret", "account"] {
        simulate(async {
            let city = City::new(START, 31, "");
            let daemon = city.start().await;
            let id = sent(&daemon, to("sina:shanghai", everywhere("【洪水】请撤离。", Level::Yellow))).await;
            city.sleep(5).await;
            let file = city.path().join("accounts.yaml");
            let whole = std::fs::read_to_string(&file).unwrap();
            let own = "sina: {handle: h0, uid: \"100000\", token: \"env:T_SINA_SHANGHAI\"}";
            let (line, without) = match how {
                "secret" => (own.to_owned(), own.replace("env:T_SINA", "env:NONE")),
                _ => (format!("    {own}\n"), String::new()),
            };
            assert!(whole.contains(&line), "{whole}");
            std::fs::write(&file, whole.replacen(&line, &without, 1)).unwrap();
            daemon.inner.reload_config().await;
            let answer = closed(&daemon, &id, "correct").await;
            if how == "account" {
                assert_eq!(
                    (&answer["taking_down"], &answer["out_of_reach"], &answer["cancelled"]),
                    (&json!(1), &json!(1), &json!(0)),
                    "{answer}"
                );
            }
            city.sleep(60).await;
            assert_eq!(row_of(&daemon, "sina:shanghai", &id).await.desired, Desired::Removed, "{how}");
            std::fs::write(&file, whole).unwrap();
            daemon.inner.reload_config().await;
            city.sleep(600).await;
            assert_eq!(said(&city, "请撤离").iter().filter(|(text, _)| !text.contains("【更正】")).count(), 0, "{how}");
        });
    }
}

#[test]
fn r06_a_wrong_post_goes_when_the_process_ends_while_its_correction_is_on_the_wire() {
    simulate(async {
        let city = City::new(START, 32, "");
        let daemon = city.start().await;
        let id = sent(&daemon, to("sina:shanghai", everywhere("【洪水】请撤离。", Level::Yellow))).await;
        city.sleep(5).await;
        faults(
            &city,
            json!([{ "behaviour": "black_hole", "operation": "post" }, { "behaviour": "proxy_page", "operation": "timeline" }]),
        );
        closed(&daemon, &id, "correct").await;
        city.sleep(2).await;
        drop(daemon);
        let daemon = city.start().await;
        city.sleep(20).await;
        assert_eq!(row_of(&daemon, "sina:shanghai", &id).await.state, State::Deleted, "{:?}", all(&daemon).await);
    });
}

/// An update whose answers were lost, and that was not there after all; a person has cancelled it or not. Nobody reads its
/// words for the first time in what ends the emergency.
#[test]
fn r52_last_words_do_not_quote_an_update_that_never_went_out() {
    for (with, is_cancelled) in [("all-clear", true), ("all-clear", false), ("correct", true)] {
        simulate(async {
            let city = City::new(START, 33, "");
            let daemon = city.start().await;
            let first = sent(&daemon, to("sina:**", everywhere("【洪水】请撤离。", Level::Yellow))).await;
            city.sleep(5).await;
            faults(
                &city,
                json!([{ "behaviour": "reset_before", "operation": "post" }, { "behaviour": "proxy_page", "operation": "timeline" }]),
            );
            let second = sent(&daemon, to("sina:**", update(&first, "【洪水】误报数字。", Level::Yellow))).await;
            city.sleep(5).await;
            if is_cancelled {
                daemon.inner.withdraw(&person(1000), &second, Desired::Stopped).await.unwrap();
            }
            closed(&daemon, &first, with).await;
            city.sandbox.clear();
            city.sleep(3600).await;
            assert_eq!(standing(&city, "误报数字"), 0, "{with} {is_cancelled}: {:?}", city.posts());
            assert!(standing(&city, if with == "correct" { "【更正】" } else { "【解除】" }) > 0);
        });
    }
}

/// The correction of an update and the all-clear of its emergency wait for the same answer: the all-clear is the last word.
#[test]
fn r52_an_all_clear_comes_after_the_correction_that_waited_for_the_same_answer() {
    for seed in 0..6 {
        simulate(async {
            let city = City::new(START, 40 + seed, "");
            let daemon = city.start().await;
            let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
            city.sleep(60).await;
            loses_answers(&city, 1);
            let second = sent(&daemon, update(&first, "【洪水】误报数字。", Level::Yellow)).await;
            city.sleep(5).await;
            assert_eq!(row_of(&daemon, "sina:shanghai", &second).await.state, State::Unknown);
            closed(&daemon, &second, "correct").await;
            city.sleep(5).await;
            closed(&daemon, &first, "all-clear").await;
            city.sleep(5).await;
            city.sandbox.clear();
            city.sleep(3600).await;
            let posts = city.sandbox.posts();
            let of = |words: &str| {
                let is_it = |post: &&fabu::sandbox::Post| post.account == "sina:shanghai" && post.text.contains(words);
                posts.iter().find(is_it).map(|post| post.created)
            };
            let (corrected, cleared) = (of("【更正】"), of("【解除】"));
            assert!(corrected.is_some() && corrected < cleared, "{seed}: {corrected:?} {cleared:?} {posts:?}");
        });
    }
}

/// A confirmed all-clear, or correction, in a person's own words, while an update waits for its second word.
#[test]
fn r52_an_update_does_not_open_again_what_was_ended_since_it_was_asked_for() {
    for (n, with) in ["all-clear", "correct"].into_iter().enumerate() {
        simulate(async {
            let city = City::new(START, 50 + n as u64, "");
            let daemon = city.start().await;
            let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Red)).await;
            city.sleep(60).await;
            let own = Closed { text: Some("洪水已退，请安心。"), ..Closed::default() };
            let ends = support::duty::closed(&daemon, 1000, with, &first, own).await;
            assert_eq!(ends["state"], "awaiting_confirm", "{ends}");
            let rises = asked(&daemon, 1000, update(&first, "【洪水】水位又涨。", Level::Red)).await;
            city.sleep(5).await;
            confirmed(&daemon, 1001, &ends).await.unwrap();
            city.sleep(60).await;
            let refused = confirmed(&daemon, 1001, &rises).await;
            assert!(
                matches!(&refused, Err(ActError::Conflict(why)) if why.en.contains("ask for it anew")),
                "{refused:?}"
            );
            city.sleep(900).await;
            assert_eq!((standing(&city, "水位又涨"), standing(&city, "请安心")), (0, ALL), "{with}");
            // Asked for anew it is shown that it would be in force again, and goes.
            let anew = asked(&daemon, 1000, update(&first, "【洪水】水位又涨。", Level::Red)).await;
            confirmed(&daemon, 1001, &anew).await.unwrap();
            city.sleep(60).await;
            assert_eq!((standing(&city, "水位又涨"), daemon.inner.holds().len()), (ALL, 1));
        });
    }
}

/// The older warning's correction waits for a word; meanwhile an update goes out, and on one account its answer is lost.
#[test]
fn r52_a_correction_of_the_older_warning_does_not_come_after_a_newer_one() {
    for is_there in [true, false] {
        simulate(async {
            let city = City::new(START, 52, "");
            let daemon = city.start().await;
            let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Red)).await;
            city.sleep(60).await;
            let own = Closed { text: Some("【更正】不是洪水。"), ..Closed::default() };
            let corrects = support::duty::closed(&daemon, 1000, "correct", &first, own).await;
            city.sleep(5).await;
            let kind = if is_there { "reset_after" } else { "reset_before" };
            let lost = json!({ "behaviour": kind, "operation": "post", "account": "sina:shanghai", "times": 1 });
            let blind = json!({ "behaviour": "proxy_page", "operation": "timeline", "account": "sina:shanghai" });
            faults(&city, json!([lost, blind]));
            sent(&daemon, update(&first, "【洪水】确有洪水。", Level::Red)).await;
            city.sleep(10).await;
            drop(confirmed(&daemon, 1001, &corrects).await);
            city.sleep(10).await;
            city.sandbox.clear();
            city.sleep(3600).await;
            let posts = city.sandbox.posts();
            let own = posts.iter().filter(|p| p.account == "sina:shanghai" && !p.deleted);
            let newest = own.max_by_key(|p| p.created).unwrap();
            assert!(newest.text.contains("确有洪水"), "{is_there}: {posts:?}");
        });
    }
}

/// Who takes the place of a warning by its first name means what stands of it.
#[test]
fn what_supersedes_an_emergency_takes_the_place_of_its_newest_warning() {
    simulate(async {
        let city = City::new(START, 53, "");
        let daemon = city.start().await;
        let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
        city.sleep(60).await;
        sent(&daemon, update(&first, "【洪水】水位上涨。", Level::Yellow)).await;
        city.sleep(60).await;
        let new = Urgent { supersedes: Some(first), ..everywhere("【台风】请回家。", Level::Yellow) };
        sent(&daemon, new).await;
        city.sleep(120).await;
        assert_eq!((standing(&city, "洪水"), standing(&city, "台风")), (0, ALL), "{:?}", city.posts());
    });
}

/// A correction waits for a newer warning that is on its way, and that one is stopped: then it is said all the same.
#[test]
fn r52_a_correction_is_said_where_the_newer_warning_it_waited_for_is_stopped() {
    for (n, how) in ["cancel", "correct", "start"].into_iter().enumerate() {
        simulate(async {
            let city = City::new(START, 60 + n as u64, "");
            let mut daemon = city.start().await;
            let red = to("eastday:shanghai", everywhere("【洪水】请撤离。", Level::Red));
            let first = sent(&daemon, red).await;
            city.sleep(60).await;
            let own = Closed { text: Some("【更正】不是洪水。"), ..Closed::default() };
            let corrects = support::duty::closed(&daemon, 1000, "correct", &first, own).await;
            faults(&city, json!([{ "behaviour": "unreachable", "operation": "post" }]));
            let newer = to("eastday:shanghai", update(&first, "【洪水】确有洪水。", Level::Red));
            let second = sent(&daemon, newer).await;
            city.sleep(10).await;
            confirmed(&daemon, 1001, &corrects).await.unwrap();
            city.sleep(5).await;
            if how == "correct" {
                closed(&daemon, &second, "correct").await;
            } else {
                daemon.inner.withdraw(&person(1000), &second, Desired::Stopped).await.unwrap();
            }
            if how == "start" {
                drop(daemon);
                city.sleep(1).await;
                daemon = city.start().await;
            }
            city.sandbox.clear();
            city.sleep(1800).await;
            assert_eq!((standing(&city, "请撤离"), standing(&city, "确有")), (0, 0), "{how}: {:?}", city.posts());
            assert_eq!(standing(&city, "【更正】"), 1, "{how}: {:?}", all(&daemon).await);
        });
    }
}

/// The wrong post stood there for a while; it is gone by the time its correction may go.
#[test]
fn r52_what_was_read_is_corrected_though_it_is_gone() {
    simulate(async {
        let city = City::new(START, 63, "");
        let daemon = city.start().await;
        let lost = json!({ "behaviour": "reset_after", "operation": "post", "account": "sina:shanghai", "times": 2 });
        let blind = json!({ "behaviour": "proxy_page", "operation": "timeline", "account": "sina:shanghai" });
        faults(&city, json!([lost, blind]));
        let first = sent(&daemon, to("sina:shanghai", everywhere("【洪水】请撤离。", Level::Yellow))).await;
        city.sleep(5).await;
        closed(&daemon, &first, "correct").await;
        city.sleep(2).await;
        let second = sent(&daemon, to("sina:shanghai", update(&first, "【洪水】确有洪水。", Level::Yellow))).await;
        city.sleep(2).await;
        city.sandbox.clear();
        city.sleep(1).await;
        daemon.inner.withdraw(&person(1000), &second, Desired::Removed).await.unwrap();
        city.sleep(3600).await;
        assert_eq!(city.posts().len(), 1, "{:?}", city.posts());
        assert_eq!(standing(&city, "【更正】"), 1, "{:?}", all(&daemon).await);
    });
}
