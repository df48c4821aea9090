//! Servers nobody here wrote: what was sent is found again, or it is not sent again.

mod support;

use fabu::core::delivery::State;
use fabu::daemon::Daemon;
use fabu::daemon::resolve::Said;
use serde_json::json;
use support::duty::person;
use support::{City, all, fault, in_state, simulate};

const START: &str = "2026-11-24T00:00:00Z";
const TEXT: &str = "**停水通知**\\n> it's 浦东新区张江路今晚停水，请储水...";

/// One post whose answers are lost, on servers that show it in other words.
async fn lost_and_rewritten(kind: &str, seed: u64) -> (City, Daemon) {
    let city = City::new(START, seed, "");
    let text = format!("announcements:\n  - {{id: a, text: \"{TEXT}\", to: [shanghai], at: 2026-11-24 08:02}}\n");
    city.save("a.yaml", &text);
    let daemon = city.start().await;
    city.sandbox.set_faults(vec![
        fault(json!({ "behaviour": "rewritten", "operation": "post", "params": { "kind": kind } })),
        fault(json!({ "behaviour": "reset_after", "operation": "post" })),
    ]);
    city.sleep(150).await;
    city.sandbox.clear();
    city.sleep(3600).await;
    (city, daemon)
}

#[test]
fn r09_markup_that_is_rendered_is_recognised() {
    simulate(async {
        let (city, daemon) = lost_and_rewritten("markup", 1601).await;
        let rows = all(&daemon).await;
        assert_eq!((city.sandbox.posts().len(), in_state(&rows, State::Published)), (4, 4), "{rows:?}");
    });
}

#[test]
fn r01_what_is_not_recognised_is_shown_to_a_person_and_not_sent_again() {
    simulate(async {
        let (city, daemon) = lost_and_rewritten("translated", 1602).await;
        let rows = all(&daemon).await;
        assert_eq!(city.sandbox.posts().len(), 4, "none of them twice");
        let unknown: Vec<_> = rows.iter().filter(|row| row.state == State::Unknown).collect();
        // Sina gives our key back, Tencent the text as it was sent, and Mastodon too when it is asked for.
        assert_eq!((unknown.len(), in_state(&rows, State::Published)), (1, 3), "{rows:?}");
        for row in unknown {
            assert!(row.needs_person && row.reason.as_ref().unwrap().en.contains("nobody accounts for"), "{row:?}");
            let found = daemon.inner.candidates(row.id).await.unwrap();
            assert!(found.is_whole && found.sent.contains("停水通知"), "{}", found.sent);
            let [post] = found.posts.as_slice() else { panic!("{}", found.posts.len()) };
            assert_eq!(post.is_same_text, Some(false));
            let said = Said { post: Some(post.id.clone()), ..Said::default() };
            let other = Said { post: Some("999999".to_owned()), ..Said::default() };
            assert!(daemon.inner.resolve(&person(1000), row.id, other).await.is_err(), "there is no such post");
            let settled = daemon.inner.resolve(&person(1000), row.id, said).await.unwrap();
            assert_eq!(settled.post.unwrap().id, post.id);
        }
        assert_eq!(in_state(&all(&daemon).await, State::Published), 4);
        // It is known by its id: it can be taken down.
        daemon.inner.withdraw(&person(1000), "a", fabu::core::delivery::Desired::Removed).await.unwrap();
        city.sleep(120).await;
        assert_eq!(city.sandbox.posts().iter().filter(|post| !post.deleted).count(), 0);
    });
}

/// A ledger that knows nothing of what was sent before it, on accounts that were spoken on since.
#[test]
fn r01_a_new_ledger_reads_a_busy_account_back_to_the_send() {
    simulate(async {
        let city = City::new(START, 1603, "");
        let at = |id: &str, text: &str, minute: u32| {
            format!("  - {{id: {id}, text: {text}, to: [shanghai], at: 2026-11-24 08:{minute:02}, catch_up: 12h}}\n")
        };
        let first = format!("announcements:\n{}", at("a", "早安上海", 2));
        city.save("a.yaml", &first);
        let daemon = city.start().await;
        city.sleep(200).await;
        assert_eq!(city.sandbox.posts().len(), 4);
        let later: String = (0..45).map(|n| at(&format!("b{n}"), &format!("第{n}号通知"), 4)).collect();
        city.save("b.yaml", &format!("announcements:\n{later}"));
        city.sleep(3600).await;
        let made = city.sandbox.posts().len();
        drop(daemon);
        std::fs::remove_file(city.queue("b.yaml")).unwrap();
        for file in std::fs::read_dir(city.path().join("state")).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        city.sleep(1).await;
        let daemon = city.start().await;
        city.sleep(2 * 3600).await;
        let rows = all(&daemon).await;
        assert_eq!(city.sandbox.posts().len(), made, "none again: {rows:?}");
        // Sina lists its newest five and no more.
        assert_eq!((in_state(&rows, State::Published), in_state(&rows, State::Unknown)), (3, 1), "{rows:?}");
    });
}
