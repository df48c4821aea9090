//! A person settles what nobody knows: by the address a browser shows, by saying that it is not there, one or many.

mod support;

use std::time::Duration;

use fabu::core::delivery::{Delivery, Desired, State};
use fabu::daemon::Daemon;
use fabu::daemon::acts::ActError;
use fabu::daemon::resolve::Said;
use fabu::sandbox::Post;
use serde_json::json;
use support::addresses::addresses;
use support::duty::person;
use support::{City, all, fault, in_state, settled, simulate};

const START: &str = "2026-11-24T00:00:00Z";
/// The id of the unit that these tests post for.
const UID: &str = "100000";
const PLATFORMS: [&str; 4] = ["sina", "tencent", "eastday", "xinmin"];

fn file(entries: &[(&str, &str, &str)]) -> String {
    let mut text = "announcements:\n".to_owned();
    for (id, words, at) in entries {
        text += &format!("  - {{id: {id}, text: {words}, at: 2026-11-24 {at}, to: [shanghai], catch_up: 2h}}\n");
    }
    text
}

/// A city whose posts of 08:02 went out and were not answered for, and whose timelines cannot be read.
async fn in_doubt(how: &str) -> (City, Daemon) {
    let city = City::new(START, 61, "");
    city.save("a.yaml", &file(&[("a", "早安上海", "08:02")]));
    city.sandbox.set_faults(vec![
        fault(json!({ "behaviour": how, "operation": "post" })),
        fault(json!({ "behaviour": "proxy_page", "operation": "timeline" })),
    ]);
    let daemon = city.start().await;
    city.sleep(600).await;
    let rows = all(&daemon).await;
    assert_eq!(in_state(&rows, State::Unknown), 4, "{rows:?}");
    assert!(rows.iter().all(|d| d.needs_person && d.next_at.is_some()), "a person is told, and looking goes on");
    (city, daemon)
}

fn post_of(city: &City, platform: &str) -> Post {
    let posts = city.sandbox.posts();
    posts.into_iter().find(|p| p.platform == platform && p.account.ends_with(":shanghai")).unwrap()
}

async fn row_of(daemon: &Daemon, platform: &str, announcement: &str) -> Delivery {
    let of = |d: &Delivery| d.account.platform() == platform && d.announcement.as_str() == announcement;
    all(daemon).await.into_iter().find(of).unwrap()
}

fn at(url: &str) -> Said {
    Said { published: Some(url.to_owned()), ..Said::default() }
}

#[test]
fn an_address_is_asked_for_and_its_post_is_the_receipt_whatever_a_browser_adds() {
    simulate(async {
        let (city, daemon) = in_doubt("reset_after").await;
        for platform in PLATFORMS {
            let (row, post) = (row_of(&daemon, platform, "a").await, post_of(&city, platform));
            for url in addresses(&post, UID) {
                let look = Said { dry_run: true, ..at(&url) };
                let would =
                    daemon.inner.resolve(&person(1000), row.id, look).await.unwrap_or_else(|e| panic!("{url}: {e:?}"));
                let shown = would.post.unwrap();
                assert_eq!((shown.id, shown.is_same_text), (post.id.clone(), Some(true)), "{url}");
                assert!(shown.text.contains("早安上海") && shown.created.is_some(), "{url}");
            }
            assert_eq!(row_of(&daemon, platform, "a").await.state, State::Unknown, "a look writes nothing");
            let last = addresses(&post, UID).pop().unwrap();
            daemon.inner.resolve(&person(1000), row.id, at(&last)).await.unwrap();
            let after = row_of(&daemon, platform, "a").await;
            assert_eq!((after.state, after.receipt.unwrap().post_id), (State::Published, post.id), "{platform}");
        }
        // The account's next post is itself, whatever is lost of it, and what was settled can be taken down.
        city.sandbox.set_faults(vec![fault(json!({ "behaviour": "reset_after", "operation": "post", "times": 2 }))]);
        city.save("b.yaml", &file(&[("b", "午安上海", "08:20")]));
        daemon.rescan().await;
        assert!(settled(&city, &daemon, Duration::from_secs(3600)).await);
        assert_eq!(city.sandbox.posts().len(), 8, "nothing twice");
        daemon.inner.withdraw(&person(1000), "a", Desired::Removed).await.unwrap();
        assert!(settled(&city, &daemon, Duration::from_secs(600)).await);
        let stands: Vec<Post> = city.sandbox.posts().into_iter().filter(|p| !p.deleted).collect();
        assert!(stands.len() == 4 && stands.iter().all(|p| p.text == "午安上海"), "{stands:?}");
    });
}

#[test]
fn an_address_that_cannot_be_read_or_is_anothers_changes_nothing() {
    simulate(async {
        let (city, daemon) = in_doubt("reset_after").await;
        // Another unit's post with the same text, on every platform.
        city.save(
            "c.yaml",
            "announcements:\n  - {id: c, text: 早安上海, at: 2026-11-24 08:15, to: [shanghai/pudong]}\n",
        );
        city.sandbox.clear();
        city.sandbox.set_faults(vec![fault(json!({ "behaviour": "proxy_page", "operation": "timeline" }))]);
        daemon.rescan().await;
        city.sleep(900).await;
        for platform in PLATFORMS {
            let row = row_of(&daemon, platform, "a").await;
            let posts = city.sandbox.posts();
            let theirs = posts.iter().find(|p| p.platform == platform && p.account.ends_with("pudong")).unwrap();
            let mut odd = addresses(theirs, UID);
            odd.extend(
                ["5368691734609923", "https://example.com/", "https://weibo.com/", "http://t.qq.com/p/t/", "x"]
                    .map(str::to_owned),
            );
            odd.push(addresses(&post_of(&city, if platform == "sina" { "tencent" } else { "sina" }), UID).remove(0));
            for url in odd {
                let answer = daemon.inner.resolve(&person(1000), row.id, at(&url)).await;
                let error = answer.err().unwrap_or_else(|| panic!("{platform} {url} is taken"));
                // Where an address is looked for on the timeline, that has to be readable.
                let is_refused = match error {
                    ActError::Invalid(field, _) => field.as_ref() == "published",
                    ActError::Conflict(_) => platform == "eastday",
                    _ => false,
                };
                assert!(is_refused, "{platform} {url}");
            }
            assert_eq!(row_of(&daemon, platform, "a").await.state, State::Unknown);
        }
    });
}

#[test]
fn a_post_with_other_words_is_taken_only_by_its_id() {
    simulate(async {
        let (city, daemon) = in_doubt("reset_before").await;
        city.sandbox.clear();
        city.sandbox.set_faults(vec![fault(json!({ "behaviour": "proxy_page", "operation": "timeline" }))]);
        city.save("b.yaml", &file(&[("b", "别的话", "08:15")]));
        daemon.rescan().await;
        city.sleep(400).await;
        let row = row_of(&daemon, "sina", "a").await;
        let other = post_of(&city, "sina");
        assert_eq!(other.text, "别的话");
        let url = addresses(&other, UID).remove(0);
        // It is another delivery's receipt: then not even by its id.
        let by_id = Said { post: Some(other.id.clone()), ..at(&url) };
        assert!(matches!(daemon.inner.resolve(&person(1000), row.id, by_id).await, Err(ActError::Invalid(..))));
        assert_eq!(row_of(&daemon, "sina", "a").await.state, State::Unknown);
    });
}

#[test]
fn what_is_said_not_to_be_there_goes_once_and_not_while_its_request_may_be_under_way() {
    simulate(async {
        let city = City::new(START, 62, "");
        city.save("a.yaml", &file(&[("a", "早安上海", "08:02")]));
        // The platform answers nothing, and carries it out eight seconds later.
        city.sandbox.set_faults(vec![
            fault(json!({ "behaviour": "cut_body", "operation": "post", "platform": "sina" })),
            fault(json!({ "behaviour": "reset_before", "operation": "post", "platform": "tencent" })),
            fault(json!({ "behaviour": "proxy_page", "operation": "timeline" })),
        ]);
        let daemon = city.start().await;
        city.sleep(122).await;
        let row = row_of(&daemon, "tencent", "a").await;
        assert_eq!(row.state, State::Unknown);
        let early = daemon.inner.resolve(&person(1000), row.id, Said::default()).await;
        assert!(matches!(early, Err(ActError::Conflict(_))), "its request has eight seconds left");
        city.sleep(600).await;
        city.sandbox.clear();
        let before = daemon.inner.ledger.head().0;
        daemon.inner.resolve(&person(1000), row.id, Said::default()).await.unwrap();
        city.sleep(5).await;
        assert_eq!(row_of(&daemon, "tencent", "a").await.state, State::Published);
        assert!(daemon.inner.ledger.head().0 - before < 12, "and no more is written than that");
        let twice = daemon.inner.resolve(&person(1000), row.id, Said::default()).await;
        assert!(matches!(twice, Err(ActError::Conflict(_))), "it is known now");
        assert_eq!(city.sandbox.posts().iter().filter(|p| p.platform == "tencent").count(), 1);
    });
}

#[test]
fn one_that_was_never_armed_is_settled_and_goes_once_without_a_circle() {
    simulate(async {
        let city = City::new(START, 63, "");
        city.save("a.yaml", &file(&[("a", "早安上海", "08:02")]));
        drop(city.start().await);
        city.sleep(600).await;
        // Due while nobody was there: it is looked for first, and the timelines cannot be read.
        city.sandbox.set_faults(vec![fault(json!({ "behaviour": "proxy_page", "operation": "timeline" }))]);
        let daemon = city.start().await;
        city.sleep(400).await;
        let rows = all(&daemon).await;
        assert_eq!(in_state(&rows, State::Unknown), 4);
        assert!(rows.iter().all(|d| d.attempt == 0 && d.needs_person));
        let before = daemon.inner.ledger.head().0;
        for row in rows {
            daemon.inner.resolve(&person(1000), row.id, Said::default()).await.unwrap();
        }
        city.sleep(60).await;
        assert_eq!(in_state(&all(&daemon).await, State::Published), 4);
        assert_eq!(city.sandbox.posts().len(), 4);
        assert!(daemon.inner.ledger.head().0 - before < 40, "{}", daemon.inner.ledger.head().0 - before);
    });
}

/// Taken by the platform, under its id at Tencent, without one at Sina, and never shown.
#[test]
fn what_a_platform_has_accepted_and_never_shows_is_settled_too() {
    simulate(async {
        let city = City::new(START, 64, "");
        city.save("a.yaml", &file(&[("a", "早安上海", "08:02")]));
        let review = json!({ "behaviour": "review", "operation": "post", "platform": "tencent", "params": { "seconds": 1_000_000 } });
        let lost = json!({ "behaviour": "reset_after", "operation": "post", "platform": "tencent" });
        let slow =
            json!({ "behaviour": "error", "operation": "post", "platform": "sina", "params": { "code": 20032 } });
        city.sandbox.set_faults(vec![fault(review), fault(lost), fault(slow)]);
        let daemon = city.start().await;
        city.sleep(4000).await;
        for platform in ["tencent", "sina"] {
            let row = row_of(&daemon, platform, "a").await;
            assert_eq!(row.state, State::Accepted, "{row:?}");
            assert!(row.needs_person && row.next_at.is_some(), "{platform}: a person is told, and looking goes on");
        }
        // What has an id can be taken down; what has none is given up by a person's word, and not sent again.
        let removed = daemon.inner.withdraw(&person(1000), "a", Desired::Removed).await.unwrap();
        assert_eq!(removed.in_flight + removed.taking_down, 4);
        city.sleep(60).await;
        assert_eq!(row_of(&daemon, "tencent", "a").await.state, State::Deleted);
        let row = row_of(&daemon, "sina", "a").await;
        daemon.inner.resolve(&person(1000), row.id, Said::default()).await.unwrap();
        let after = row_of(&daemon, "sina", "a").await;
        assert_eq!((after.state, after.next_at), (State::Failed, None));
        city.sleep(3600).await;
        assert!(city.sandbox.posts().iter().all(|p| p.deleted), "{:?}", city.sandbox.posts());
    });
}

#[test]
fn what_is_taken_down_does_not_wait_because_posting_was_told_to() {
    simulate(async {
        let city = City::new(START, 65, "");
        city.save("a.yaml", &file(&[("a", "早安上海", "08:02")]));
        city.save("b.yaml", &file(&[("b", "天气晴好", "08:04")]));
        let daemon = city.start().await;
        city.sleep(180).await;
        assert_eq!(in_state(&all(&daemon).await, State::Published), 4);
        let full = json!({ "behaviour": "limit", "operation": "post" });
        city.sandbox.set_faults(vec![fault(full)]);
        city.sleep(90).await;
        assert_eq!(in_state(&all(&daemon).await, State::Retrying), 4, "{:?}", all(&daemon).await);
        daemon.inner.withdraw(&person(1000), "a", Desired::Removed).await.unwrap();
        city.sleep(30).await;
        assert_eq!(in_state(&all(&daemon).await, State::Deleted), 4);
    });
}

#[test]
fn r29_a_platform_that_asks_to_wait_is_not_looked_at_meanwhile() {
    simulate(async {
        let city = City::new(START, 66, "");
        city.save("a.yaml", &file(&[("a", "早安上海", "08:02")]));
        city.sandbox.set_faults(vec![
            fault(json!({ "behaviour": "reset_after", "operation": "post", "platform": "sina" })),
            fault(json!({ "behaviour": "limit", "operation": "timeline", "platform": "sina" })),
        ]);
        let daemon = city.start().await;
        city.sleep(120 + 600).await;
        assert_eq!(row_of(&daemon, "sina", "a").await.state, State::Unknown);
        let asked = city.sandbox.faults()[1].2;
        assert_eq!(asked, 1, "told to wait for the next hour, nobody asks again before it");
        city.sandbox.clear();
        city.sleep(3600).await;
        assert_eq!(row_of(&daemon, "sina", "a").await.state, State::Published);
    });
}

/// Another server knows nothing of what went to the one before, and its word proves nothing about that.
#[test]
fn r01_what_went_to_a_server_that_was_changed_is_neither_sent_again_nor_called_gone() {
    simulate(async {
        let city = City::new(START, 63, "");
        city.save(
            "a.yaml",
            &file(&[("out", "早安上海", "08:02"), ("lost", "今晚停水", "08:10"), ("next", "明日有雨", "08:40")]),
        );
        let daemon = city.start().await;
        city.sleep(300).await;
        city.sandbox
            .set_faults(vec![fault(json!({ "behaviour": "reset_after", "operation": "post", "platform": "xinmin" }))]);
        city.sleep(301).await;
        let lost = row_of(&daemon, "xinmin", "lost").await;
        assert!(matches!(lost.state, State::Sending | State::Unknown), "{lost:?}");
        // The new server is empty.
        city.sandbox.set_faults(vec![fault(
            json!({ "behaviour": "gap", "operation": "timeline", "platform": "xinmin", "params": { "kind": "empty" } }),
        )]);
        let file = city.path().join("fabu.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        let moved = text.replace(
            "xinmin: {api: mastodon, base_url: \"http://127.0.0.1\"",
            "xinmin: {api: mastodon, base_url: \"http://localhost\"",
        );
        assert_ne!(text, moved);
        std::fs::write(&file, moved).unwrap();
        daemon.inner.reload_config().await;
        daemon.inner.withdraw(&person(1000), "out", Desired::Removed).await.unwrap();
        city.sleep(3600).await;
        let of_xinmin = |text: &str| {
            let posts = city.sandbox.posts();
            posts.iter().filter(|p| p.platform == "xinmin" && p.text.contains(text)).count()
        };
        assert_eq!(of_xinmin("今晚停水"), 1, "it was sent again");
        let (out, lost) = (row_of(&daemon, "xinmin", "out").await, row_of(&daemon, "xinmin", "lost").await);
        assert_eq!((out.state, out.desired, out.needs_person), (State::Published, Desired::Removed, true), "{out:?}");
        assert_eq!((lost.state, lost.needs_person), (State::Unknown, true), "{lost:?}");
        assert!(lost.reason.unwrap().en.contains("localhost"));
        // What was only prepared for the old one is prepared for the new one.
        assert_eq!(of_xinmin("明日有雨"), 1);
        assert_eq!(in_state(&all(&daemon).await, State::Deleted), 3);
    });
}
