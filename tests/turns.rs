//! Acts that meet each other: what is decided while another act is on its way, what waits for a word while another is
//! given, and what a process that ends leaves half done.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use fabu::core::accounts::AccountId;
use fabu::core::announcement::{AnnouncementId, Level};
use fabu::core::change::{Actor, Change, Withdrawal};
use fabu::core::delivery::{Cause, Desired, Reach, State, Stop};
use fabu::core::gate::{Choice, Hold};
use fabu::core::words::Words;
use fabu::daemon::Daemon;
use fabu::daemon::acts::ActError;
use fabu::daemon::emergency::{Closed, Urgent};
use fabu::ledger::sqlite::Sqlite;
use fabu::ledger::{Committed, Ledger as _, LedgerError};
use serde_json::{Value, json};
use support::between::{Between, Watch};
use support::duty::{ALL, asked, closed, confirmed, everywhere, faults, person, sent, standing, text, update};
use support::{City, all, in_state, simulate};

const START: &str = "2026-11-24T00:00:00Z";
/// Two persons answer for a red one, and have ten minutes for it.
const TWO: &str = "emergency: {confirm: {red: 2}, confirm_within: 10m}\n";

fn said(words: &str) -> Closed<'_> {
    Closed { text: Some(words), ..Closed::default() }
}

async fn fate(daemon: &Daemon, id: &str) -> Value {
    let filter = fabu::ledger::Filter { announcement: Some(id.to_owned()), max: 1, ..Default::default() };
    let found = daemon.inner.ledger.announcements(filter).await.unwrap().pop().unwrap();
    json!({ "id": id, "content_hash": found.row.content, "is": daemon.inner.fate(&found).await.unwrap() })
}

/// A red emergency whose answer from sina:shanghai is lost, with that account's timeline out of sight.
async fn in_doubt_on_one(city: &City, daemon: &Daemon, is_out: bool) -> String {
    let how = if is_out { "reset_after" } else { "reset_before" };
    let lost = json!({ "behaviour": how, "operation": "post", "account": "sina:shanghai", "times": 1 });
    let blind = json!({ "behaviour": "proxy_page", "operation": "timeline", "account": "sina:shanghai" });
    faults(city, json!([lost, blind]));
    let id = sent(daemon, everywhere("【洪水】请撤离。", Level::Red)).await;
    city.sleep(5).await;
    assert_eq!(in_state(&all(daemon).await, State::Unknown), 1);
    id
}

/// A word that waits for a second person is no word yet: also where nobody knows whether the warning is out.
#[test]
fn r52_last_words_that_nobody_has_agreed_to_have_told_nobody() {
    for way in ["correct", "all-clear"] {
        simulate(async {
            let city = City::new(START, 1, TWO);
            let daemon = city.start().await;
            let id = in_doubt_on_one(&city, &daemon, true).await;
            let own = said("【说明】自己的话。");
            let waits = closed(&daemon, 1000, way, &id, own).await;
            assert_eq!(waits["state"], "awaiting_confirm", "{waits}");
            let standard = closed(&daemon, 1000, way, &id, Closed::default()).await;
            assert_eq!((&standard["deliveries"], &standard["waiting"]), (&json!(ALL), &json!(1)), "{standard}");
            faults(&city, json!([]));
            city.sleep(3600).await;
            let mark = if way == "correct" { "【更正】" } else { "【解除】" };
            assert_eq!((standing(&city, mark), standing(&city, "自己的话")), (ALL, 0), "{:?}", city.posts());
        });
    }
}

/// A later word of an emergency, when it is named, stands for the emergency: where all were told nobody is told again.
#[test]
fn r52_an_all_clear_that_names_a_later_word_tells_nobody_twice() {
    for way in ["correct", "all-clear"] {
        simulate(async {
            let city = City::new(START, 11, "");
            let daemon = city.start().await;
            let id = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
            city.sleep(5).await;
            let word = closed(&daemon, 1000, way, &id, Closed::default()).await;
            city.sleep(30).await;
            let again = daemon.inner.all_clear(&person(1000), &text(&word, "id"), Closed::default(), &[]).await;
            assert!(matches!(again, Err(ActError::Conflict(_))), "{again:?}");
            city.sleep(30).await;
            assert_eq!(standing(&city, "【解除】"), if way == "correct" { 0 } else { ALL });
        });
    }
}

/// Given up for want of a second person, last words do not come back where the warning turns up later.
#[test]
fn r12_last_words_that_were_given_up_stay_given_up_everywhere() {
    simulate(async {
        let city = City::new(START, 2, TWO);
        let daemon = city.start().await;
        let id = in_doubt_on_one(&city, &daemon, true).await;
        let own = said("【解除】自己的话。");
        let waits = daemon.inner.all_clear(&person(1000), &id, own, &[]).await.unwrap();
        city.sleep(700).await;
        faults(&city, json!([]));
        for _ in 0..30 {
            assert!(confirmed(&daemon, 1001, &waits).await.is_err(), "it is too late for it");
            city.sleep(60).await;
        }
        assert_eq!(standing(&city, "自己的话"), 0);
        assert!(!daemon.inner.holds().is_empty(), "nobody has ended the emergency");
    });
}

/// With the second word last words go at once where the warning stands, and elsewhere when it is known to stand.
#[test]
fn last_words_that_were_agreed_to_go_where_the_warning_turns_up() {
    for is_out in [true, false] {
        simulate(async {
            let city = City::new(START, 3, TWO);
            let daemon = city.start().await;
            let id = in_doubt_on_one(&city, &daemon, is_out).await;
            let own = said("【解除】自己的话。");
            let waits = daemon.inner.all_clear(&person(1000), &id, own, &[]).await.unwrap();
            confirmed(&daemon, 1001, &waits).await.unwrap();
            city.sleep(20).await;
            assert_eq!(standing(&city, "自己的话"), ALL - 1);
            faults(&city, json!([]));
            city.sleep(3600).await;
            assert_eq!(standing(&city, "自己的话"), if is_out { ALL } else { ALL - 1 });
        });
    }
}

/// A person agrees to nothing that they were not shown: also not to opening again what somebody has ended since.
#[test]
fn r12_an_update_that_was_looked_at_does_not_open_again_what_was_ended_since() {
    for way in ["correct", "all-clear"] {
        simulate(async {
            let city = City::new(START, 4, "");
            let daemon = city.start().await;
            let id = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
            city.sleep(5).await;
            let newer = update(&id, "【洪水】水位上涨。", Level::Yellow);
            let look = Urgent { dry_run: true, ..newer.clone() };
            let seen = asked(&daemon, 1000, look.clone()).await;
            assert_eq!(seen["reopens"], Value::Null);
            closed(&daemon, 1001, way, &id, Closed::default()).await;
            city.sleep(60).await;
            let shown = |seen: &Value| Urgent { shown: Some(text(seen, "content_hash")), ..newer.clone() };
            let refused = daemon.inner.urgent(&person(1000), shown(&seen), &[]).await;
            assert!(matches!(&refused, Err(ActError::Invalid(field, _)) if field == "content_hash"), "{refused:?}");
            // Seen again, it says so, and goes.
            let seen = asked(&daemon, 1000, look).await;
            assert_eq!(seen["reopens"], if way == "correct" { "corrected" } else { "all_clear" });
            asked(&daemon, 1000, shown(&seen)).await;
        });
    }
}

/// Before the first commit that matters, something else is written.
struct Before {
    begun: AtomicBool,
    matters: fn(&Change) -> bool,
    daemon: OnceLock<Arc<fabu::daemon::Inner>>,
    act: fn(Arc<fabu::daemon::Inner>) -> futures_util::future::BoxFuture<'static, ()>,
}

#[async_trait]
impl Watch for Before {
    async fn committed(&self, ledger: &Sqlite, by: &Actor, changes: Vec<Change>) -> Result<Committed, LedgerError> {
        if let Some(inner) = self.daemon.get()
            && changes.iter().any(self.matters)
            && !self.begun.swap(true, Ordering::SeqCst)
        {
            (self.act)(inner.clone()).await;
        }
        ledger.commit(by, changes).await
    }
}

/// A daemon whose commits are seen first by `watch`.
async fn watched(city: &City, watch: Before) -> Daemon {
    let watch = Arc::new(watch);
    let ledger = Arc::new(city.ledger().await);
    let trust = ledger.trust().clone();
    let daemon = city.start_on(Between::over(ledger, watch.clone()), trust, Arc::new(city.network())).await;
    assert!(watch.daemon.set(daemon.inner.clone()).is_ok());
    daemon
}

/// The hold of an emergency is ended while its update is written: the update goes all the same, under its own name.
#[test]
fn an_update_with_a_name_of_its_own_goes_whatever_becomes_of_the_hold_meanwhile() {
    simulate(async {
        let city = City::new(START, 5, "");
        let watch = Before {
            begun: AtomicBool::new(false),
            matters: |change| matches!(change, Change::Announcement(row) if row.id.as_str() == "u"),
            daemon: OnceLock::new(),
            act: |inner| {
                Box::pin(async move {
                    let hold = inner.holds().pop().unwrap().id;
                    inner.end_hold(&person(1001), &hold).await.unwrap();
                })
            },
        };
        let daemon = watched(&city, watch).await;
        let hold = Some(Duration::from_secs(3600));
        let id = sent(&daemon, Urgent { hold, ..everywhere("【洪水】请撤离。", Level::Yellow) }).await;
        city.sleep(5).await;
        let newer = update(&id, "【洪水】水位上涨。", Level::Yellow);
        asked(&daemon, 1000, Urgent { id: Some("u".to_owned()), hold, ..newer }).await;
        city.sleep(30).await;
        assert_eq!(standing(&city, "水位上涨"), ALL);
    });
}

/// A hold of named accounts begins while a configuration with one more of them is read.
#[test]
fn r05_a_hold_covers_the_account_that_a_reload_opens_in_the_same_moment() {
    simulate(async {
        let city = City::new(START, 6, "");
        let file = city.path().join("accounts.yaml");
        let accounts = std::fs::read_to_string(&file).unwrap();
        let fewer = accounts.replace("sina: {handle: h1,", "sina: {status: suspended, handle: h1,");
        assert_ne!(accounts, fewer, "{accounts}");
        std::fs::write(&file, fewer).unwrap();
        let watch = Before {
            begun: AtomicBool::new(false),
            matters: |change| matches!(change, Change::Hold(hold) if hold.version == 1),
            daemon: OnceLock::new(),
            act: |inner| {
                Box::pin(async move {
                    let clock = inner.clock.clone();
                    tokio::spawn(async move { inner.reload_config().await });
                    clock.sleep(Duration::from_secs(2)).await;
                })
            },
        };
        let daemon = watched(&city, watch).await;
        std::fs::write(&file, &accounts).unwrap();
        let hold = Hold {
            id: "h".to_owned(),
            reason: "静默".to_owned(),
            until: None,
            accounts: None,
            named: Some(Choice { to: vec!["shanghai/**".to_owned()], except: Vec::new() }),
            owner: "duty".to_owned(),
            begun: daemon.inner.clock.now(),
            post: None,
            ended: None,
            version: 1,
        };
        daemon.inner.hold(&person(1000), hold).await.unwrap();
        city.sleep(5).await;
        let config = daemon.inner.config();
        let held = daemon.inner.holds().pop().unwrap().accounts.unwrap();
        let is_missed = |a: &&AccountId| a.unit() != "shanghai" && !config.city.is_resting(a) && !held.contains(*a);
        let missed: Vec<_> = config.city.accounts.keys().filter(is_missed).collect();
        assert!(missed.is_empty(), "{missed:?}");
    });
}

/// The process ends after a hold was ended, and before what it kept back was looked at.
#[test]
fn r05_what_an_ended_hold_kept_back_is_looked_at_though_the_process_ended() {
    for resume in [true, false] {
        simulate(async {
            let after = if resume { "resume" } else { "review" };
            let city = City::new(START, 7, &format!("emergency: {{after_hold: {after}}}\n"));
            let daemon = city.start().await;
            support::duty::holding_until(&daemon, None).await;
            let entry = "announcements:\n  - {id: a, text: 早安, at: 2026-11-24 08:05, to: [shanghai], catch_up: 4h}\n";
            city.save("a.yaml", entry);
            city.sleep(600).await;
            assert_eq!(in_state(&all(&daemon).await, State::Held), 4);
            let hold = daemon.inner.holds().pop().unwrap();
            daemon.inner.ledger.commit(&person(1000), vec![Change::end_of(&hold)]).await.unwrap();
            drop(daemon);
            let daemon = city.start().await;
            city.sleep(60).await;
            let rows = all(&daemon).await;
            match resume {
                true => assert_eq!(in_state(&rows, State::Published), 4, "{rows:?}"),
                false => assert!(rows.iter().all(|d| d.cause == Some(Cause::Review)), "{rows:?}"),
            }
        });
    }
}

/// The process ends after an emergency that waits for a word was cancelled, and before its hold was ended.
#[test]
fn r05_the_hold_of_a_cancelled_emergency_ends_though_the_process_ended() {
    simulate(async {
        let city = City::new(START, 8, TWO);
        let daemon = city.start().await;
        let id =
            AnnouncementId::from(text(&asked(&daemon, 1000, everywhere("【洪水】", Level::Red)).await, "id").as_str());
        let stop = Stop {
            posts: vec![id.clone()],
            occurrence: None,
            account: None,
            reach: Reach::NotPublished,
            desired: Desired::Stopped,
            cause: Cause::Person,
            why: Words::same("cancelled"),
        };
        let gone = Change::Withdrawn(id, Withdrawal::Person("duty1000".to_owned()));
        daemon.inner.ledger.commit(&person(1000), vec![Change::Stop(Box::new(stop)), gone]).await.unwrap();
        assert_eq!(daemon.inner.holds().len(), 1);
        drop(daemon);
        let daemon = city.start().await;
        assert_eq!(daemon.inner.holds().len(), 0);
    });
}

const SIREN: &str = "  - {id: siren, text: 【防空】警报试鸣。, at: 2026-11-24 09:00, to: [shanghai], priority: emergency, level: red}\n";

/// A consent to the removal of an emergency makes void what was agreed to, like any other removal.
#[test]
fn r12_words_are_void_when_a_person_consents_to_the_removal_of_the_file() {
    simulate(async {
        let city = City::new(START, 9, TWO);
        let daemon = city.start().await;
        let whole = format!("announcements:\n{SIREN}");
        city.save("a.yaml", &whole);
        daemon.rescan().await;
        let siren = fate(&daemon, "siren").await;
        for uid in [1000, 1001] {
            confirmed(&daemon, uid, &siren).await.unwrap();
        }
        city.save("a.yaml", "announcements: []\n");
        daemon.rescan().await;
        let prune = daemon.inner.state.lock().unwrap().prune.clone().unwrap();
        daemon.inner.prune(&person(1000), true, &prune.hash).await.unwrap();
        city.save("a.yaml", &whole);
        daemon.rescan().await;
        assert_eq!(fate(&daemon, "siren").await["is"], "awaiting_confirm");
        drop(daemon);
        let daemon = city.start().await;
        assert_eq!(fate(&daemon, "siren").await["is"], "awaiting_confirm", "after a start too");
        city.sleep(2 * 3600).await;
        assert_eq!(standing(&city, "试鸣"), 0);
    });
}

/// An emergency that was corrected, or is over, before its hour is not brought back by an edit of its file or by an account.
#[test]
fn r06_an_emergency_that_was_ended_before_its_hour_stays_ended_whatever_its_file_says() {
    for way in ["correct", "all-clear"] {
        for edit in ["to: [shanghai, shanghai/metro]", "to: [shanghai/pudong]"] {
            simulate(async {
                let city = City::new(START, 10, TWO);
                let daemon = city.start().await;
                city.save("a.yaml", &format!("announcements:\n{SIREN}"));
                daemon.rescan().await;
                let siren = fate(&daemon, "siren").await;
                for uid in [1000, 1001] {
                    confirmed(&daemon, uid, &siren).await.unwrap();
                }
                closed(&daemon, 1000, way, "siren", Closed::default()).await;
                city.save("a.yaml", &format!("announcements:\n{}", SIREN.replace("to: [shanghai]", edit)));
                daemon.rescan().await;
                let rows = all(&daemon).await;
                assert_eq!((rows.len(), in_state(&rows, State::Cancelled)), (4, 4), "{way} {edit}");
                let siren = fate(&daemon, "siren").await;
                for uid in [1000, 1001] {
                    assert!(confirmed(&daemon, uid, &siren).await.is_err());
                }
                // Gone and back it is as it was.
                city.save("a.yaml", "announcements: []\n");
                daemon.rescan().await;
                city.save("a.yaml", &format!("announcements:\n{SIREN}"));
                city.sleep(2 * 3600).await;
                assert_eq!(standing(&city, "试鸣"), 0);
            });
        }
    }
}
