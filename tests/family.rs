//! An emergency and its later words, in simulated time: whoever names one of its posts means what stands of it.

mod support;

use std::time::Duration;

use fabu::core::announcement::Level;
use fabu::core::delivery::State;
use fabu::daemon::Daemon;
use fabu::daemon::acts::ActError;
use fabu::daemon::emergency::{Closed, Urgent};
use serde_json::{Value, json};
use support::duty::{ALL, asked, confirmed, everywhere, faults, person, sent, standing, text, update};
use support::{City, all, in_state, simulate};

const START: &str = "2026-11-24T00:00:00Z";

const OWN: Closed<'_> =
    Closed { text: Some("【解除】警报解除，感谢配合。"), dry_run: false, shown: None };
const LOOK: Closed<'_> = Closed { text: None, dry_run: true, shown: None };

async fn all_clear(daemon: &Daemon, id: &str) -> Result<Value, ActError> {
    daemon.inner.all_clear(&person(1000), id, Closed::default(), &[]).await
}

async fn correct(daemon: &Daemon, id: &str) -> Result<Value, ActError> {
    daemon.inner.correct(&person(1000), id, Closed::default()).await
}

#[test]
fn an_all_clear_speaks_where_the_first_post_stands_whatever_became_of_its_update() {
    simulate(async {
        let city = City::new(START, 1, "");
        faults(&city, json!([{ "behaviour": "unreachable", "platform": "xinmin", "for_s": 300 }]));
        let daemon = city.start().await;
        let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Red)).await;
        city.sleep(30).await;
        let there = standing(&city, "请撤离");
        assert!(there > 0 && there < ALL, "one platform cannot be reached: {there}");
        // Nobody has confirmed the update yet.
        asked(&daemon, 1000, update(&first, "【洪水】水位上涨。", Level::Red)).await;
        let looked = daemon.inner.all_clear(&person(1000), &first, LOOK, &[]).await.unwrap();
        assert_eq!(looked["post"]["accounts"], there);
        assert!(looked["stops"].as_u64().unwrap() as usize >= ALL, "the update and what of the first is not out");
        assert_eq!(standing(&city, "【解除】"), 0, "a look does nothing");
        let answer = all_clear(&daemon, &first).await.unwrap();
        assert_eq!(answer["deliveries"], there);
        city.sleep(1200).await;
        assert_eq!((standing(&city, "【解除】“【洪水】请撤离。”"), standing(&city, "请撤离")), (there, 2 * there));
        assert_eq!(standing(&city, "水位上涨"), 0, "what waited for a word is over");
        assert!(matches!(all_clear(&daemon, &first).await, Err(ActError::Conflict(_))), "said once");
        let told = daemon.inner.status().await.unwrap().emergencies;
        assert!(told.iter().filter(|e| e.part.is_none()).all(|e| e.ended.is_some()));
    });
}

#[test]
fn an_all_clear_waits_where_nobody_knows_yet_whether_the_warning_is_out() {
    simulate(async {
        let city = City::new(START, 2, "");
        let lost =
            |account: &str, how: &str| json!({ "behaviour": how, "account": account, "operation": "post", "times": 1 });
        faults(&city, json!([lost("sina:shanghai", "reset_after"), lost("sina:shanghai/weather", "reset_before")]));
        let daemon = city.start().await;
        let one = Urgent { to: vec!["sina:**".to_owned()], ..everywhere("【大风】收好花盆。", Level::Blue) };
        let id = sent(&daemon, one).await;
        city.sleep(1).await;
        let answer = all_clear(&daemon, &id).await.unwrap();
        assert_eq!((answer["deliveries"].as_u64(), answer["waiting"].as_u64()), (Some(5), Some(2)));
        city.sleep(1).await;
        assert_eq!(standing(&city, "【解除】"), 3);
        city.sleep(1200).await;
        assert_eq!(standing(&city, "收好花盆。"), 5 + 4 - 4 + 3, "the warning, and the words that quote it");
        let spoke: Vec<String> =
            city.posts().into_keys().filter(|(_, t)| t.contains("【解除】")).map(|(account, _)| account).collect();
        assert_eq!(spoke.len(), 4, "wherever it turned out to be: {spoke:?}");
        assert!(!spoke.iter().any(|account| account.contains("weather")), "{spoke:?}");
    });
}

#[test]
fn an_all_clear_in_ones_own_words_ends_nothing_before_the_second_person_agrees() {
    simulate(async {
        let city = City::new(START, 3, "");
        let daemon = city.start().await;
        let id = sent(&daemon, everywhere("【地震】请速避险。", Level::Red)).await;
        city.sleep(5).await;
        let answer = daemon.inner.all_clear(&person(1000), &id, OWN, &[]).await.unwrap();
        assert_eq!((&answer["state"], &answer["hold_ended"]), (&json!("awaiting_confirm"), &Value::Null));
        assert_eq!(daemon.inner.holds().len(), 1, "routine is silent still");
        let open = daemon.inner.status().await.unwrap().emergencies;
        assert!(open.iter().all(|e| e.ended.is_none()), "and the emergency is not over");
        city.sleep(5).await;
        assert_eq!(standing(&city, "感谢配合"), 0);
        confirmed(&daemon, 1001, &answer).await.unwrap();
        assert!(daemon.inner.holds().is_empty());
        city.sleep(5).await;
        assert_eq!(standing(&city, "感谢配合"), ALL);
    });
}

#[test]
fn what_takes_the_place_of_an_emergency_needs_as_many_persons() {
    simulate(async {
        let city = City::new(START, 14, "");
        let daemon = city.start().await;
        let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Red)).await;
        city.sleep(5).await;
        // A level that one person sends by themselves is no way round the second one.
        let ways = [
            update(&first, "【洪水】水位下降。", Level::Blue),
            Urgent { supersedes: Some(first.clone()), ..everywhere("【洪水】可以回家。", Level::Blue) },
        ];
        for way in ways {
            let answer = asked(&daemon, 1000, way).await;
            assert_eq!(answer["state"], "awaiting_confirm", "{answer}");
        }
        city.sleep(30).await;
        assert_eq!((standing(&city, "请撤离"), standing(&city, "下降"), standing(&city, "回家")), (ALL, 0, 0));
        let answer = asked(&daemon, 1000, everywhere("【大风】收好花盆。", Level::Blue)).await;
        assert_eq!(answer["state"], "releasing", "what replaces nothing goes at its own level: {answer}");
    });
}

#[test]
fn an_update_of_the_first_post_takes_the_place_of_every_earlier_one() {
    simulate(async {
        let city = City::new(START, 4, "");
        let daemon = city.start().await;
        let first = sent(&daemon, everywhere("【暴雨】一号通报。", Level::Blue)).await;
        city.sleep(5).await;
        for n in ["二", "三"] {
            sent(&daemon, update(&first, &format!("【暴雨】{n}号通报。"), Level::Blue)).await;
            city.sleep(30).await;
        }
        let stands = ["一号", "二号", "三号"].map(|n| standing(&city, n));
        assert_eq!(stands, [0, 0, ALL], "one stands, and it is the newest");
        // Whoever corrects the first post means what was said since.
        let answer = correct(&daemon, &first).await.unwrap();
        assert_eq!(answer["deliveries"], ALL);
        city.sleep(30).await;
        assert_eq!(
            (standing(&city, "【暴雨】三号通报。"), standing(&city, "【更正】")),
            (ALL, ALL),
            "it is only quoted now"
        );
        let states: Vec<_> = daemon.inner.status().await.unwrap().emergencies.into_iter().map(|e| e.state).collect();
        let told = serde_json::to_value(states).unwrap();
        assert_eq!(told, json!(["corrected", "corrected", "corrected", "published"]));
    });
}

#[test]
fn a_correction_is_not_kept_from_going_by_a_post_that_bears_its_name() {
    simulate(async {
        let city = City::new(START, 5, "");
        city.save(
            "a.yaml",
            "announcements:\n  - {id: flood-correction, text: 明年见。, at: 2027-11-24 08:00, to: [\"**\"]}\n",
        );
        let daemon = city.start().await;
        let id =
            sent(&daemon, Urgent { id: Some("flood".to_owned()), ..everywhere("【误报】决堤。", Level::Blue) }).await;
        city.sleep(5).await;
        let answer = correct(&daemon, &id).await.unwrap();
        assert_eq!(answer["deliveries"], ALL);
        city.sleep(30).await;
        assert_eq!(
            (standing(&city, "【误报】决堤。") - standing(&city, "【更正】"), standing(&city, "【更正】")),
            (0, ALL)
        );
    });
}

#[test]
fn r03_a_queue_file_cannot_speak_in_the_name_of_an_emergency() {
    simulate(async {
        let city = City::new(START, 6, "");
        let daemon = city.start().await;
        let flood = Urgent { id: Some("flood".to_owned()), ..everywhere("【洪水】请撤离。", Level::Red) };
        let answer = asked(&daemon, 1000, flood).await;
        city.save("a.yaml", "announcements:\n  - {id: flood, text: 今天天气真好！, to: [shanghai]}\n");
        daemon.rescan().await;
        let faults = &daemon.inner.status().await.unwrap().queue.faults;
        assert_eq!(faults.iter().map(|f| (f.code, f.line)).collect::<Vec<_>>(), [("id_taken", 2)]);
        confirmed(&daemon, 1001, &answer).await.unwrap();
        city.sleep(5).await;
        assert_eq!((standing(&city, "请撤离"), standing(&city, "真好")), (ALL, 0));
    });
}

#[test]
fn r11_a_word_that_comes_too_late_sends_nothing_and_a_warning_lasts_no_longer_for_having_waited() {
    simulate(async {
        let city = City::new(START, 7, "");
        let daemon = city.start().await;
        let short = Some(Duration::from_secs(300));
        let brief = Urgent { expires_after: short, ..everywhere("【雷电】五分钟内。", Level::Red) };
        let answer = asked(&daemon, 1000, brief).await;
        assert_eq!(daemon.inner.holds().len(), 1);
        city.sleep(360).await;
        assert!(matches!(confirmed(&daemon, 1001, &answer).await, Err(ActError::Conflict(_))));
        assert_eq!(standing(&city, "五分钟内"), 0);
        assert_eq!(in_state(&all(&daemon).await, State::Expired), ALL);
        assert!(daemon.inner.holds().is_empty(), "and its hold is gone with it");
        let told = daemon.inner.ledger.events(0, 100_000).await.unwrap();
        assert_eq!(told.iter().filter(|r| r.kind == "not_confirmed").count(), 1, "said once, not by each account");

        // In time it goes, until the moment it would have expired anyway.
        faults(&city, json!([{ "behaviour": "unreachable", "platform": "sina", "for_s": 250 }]));
        let answer =
            asked(&daemon, 1000, Urgent { expires_after: short, ..everywhere("【雷电】请避让。", Level::Red) }).await;
        city.sleep(240).await;
        confirmed(&daemon, 1001, &answer).await.unwrap();
        city.sleep(1200).await;
        let late = all(&daemon).await.into_iter().filter(|d| d.announcement.as_str() == text(&answer, "id"));
        let (out, expired): (Vec<_>, Vec<_>) = late.partition(|d| d.state == State::Published);
        assert!(out.iter().all(|d| d.receipt.as_ref().unwrap().accepted_at <= d.expires_at.unwrap()));
        assert!(expired.iter().all(|d| d.state == State::Expired), "{:?}", expired.first());
    });
}

#[test]
fn the_hold_of_an_emergency_that_took_anothers_place_ends_with_its_own_all_clear() {
    simulate(async {
        let city = City::new(START, 8, "");
        let daemon = city.start().await;
        let hold = Some(Duration::from_secs(3600));
        let first = sent(&daemon, everywhere("【大雾】能见度低。", Level::Blue)).await;
        city.sleep(5).await;
        let other = Urgent { supersedes: Some(first), hold, ..everywhere("【交通】高速封闭。", Level::Blue) };
        let second = sent(&daemon, other).await;
        assert_eq!(daemon.inner.holds().len(), 1);
        city.sleep(5).await;
        all_clear(&daemon, &second).await.unwrap();
        assert!(daemon.inner.holds().is_empty());
    });
}

#[test]
fn an_update_that_nobody_confirms_leaves_the_hold_as_it_was() {
    simulate(async {
        let city = City::new(START, 9, "");
        let daemon = city.start().await;
        let first = sent(&daemon, everywhere("【洪水】一号通报。", Level::Red)).await;
        let until = daemon.inner.holds()[0].until;
        let long = Some(Duration::from_secs(20 * 3600));
        asked(&daemon, 1000, Urgent { hold: long, ..update(&first, "【洪水】二号通报。", Level::Red) }).await;
        city.sleep(700).await;
        assert_eq!(daemon.inner.holds().iter().map(|h| h.until).collect::<Vec<_>>(), [until]);
        let answer =
            asked(&daemon, 1000, Urgent { hold: long, ..update(&first, "【洪水】三号通报。", Level::Red) }).await;
        confirmed(&daemon, 1001, &answer).await.unwrap();
        assert!(daemon.inner.holds()[0].until > until, "confirmed it lasts longer");
        assert_eq!(daemon.inner.holds().len(), 1);
    });
}

#[test]
fn r12_a_word_counts_also_while_every_account_waits_to_know() {
    simulate(async {
        let city = City::new(START, 10, "");
        let daemon = city.start().await;
        faults(
            &city,
            json!([{ "behaviour": "reset_after", "account": "sina:shanghai", "operation": "post", "times": 1 }]),
        );
        let one =
            Urgent { to: vec!["sina:shanghai".to_owned()], ..everywhere("【误报】导弹来袭！", Level::Red) };
        let id = sent(&daemon, one).await;
        city.sleep(1).await;
        let own = Closed { text: Some("【更正】没有导弹。"), dry_run: false, shown: None };
        let answer = daemon.inner.correct(&person(1000), &id, own).await.unwrap();
        assert_eq!((answer["waiting"].as_u64(), &answer["state"]), (Some(1), &json!("awaiting_confirm")));
        confirmed(&daemon, 1001, &answer).await.unwrap();
        city.sleep(1200).await;
        assert_eq!((standing(&city, "没有导弹"), standing(&city, "导弹来袭！")), (1, 0));
    });
}

#[test]
fn r13_fewer_persons_in_a_configuration_read_again_let_go_nothing_that_waits() {
    simulate(async {
        let city = City::new(START, 11, "");
        let daemon = city.start().await;
        asked(&daemon, 1000, everywhere("【暴雨红色】请留在室内。", Level::Red)).await;
        let file = city.path().join("fabu.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text + "emergency: {confirm: {red: 1}}\n").unwrap();
        daemon.inner.reload_config().await;
        city.sleep(900).await;
        assert_eq!(standing(&city, "请留在室内"), 0);
        sent(&daemon, everywhere("【暴雨红色】第二号。", Level::Red)).await;
        city.sleep(5).await;
        assert_eq!(standing(&city, "第二号"), ALL, "what is asked for since needs its sender alone");
    });
}

#[test]
fn an_emergency_of_the_queue_is_confirmed_before_its_hour_and_is_silent_from_it_on() {
    simulate(async {
        let city = City::new(START, 12, "");
        let daemon = city.start().await;
        city.save(
            "a.yaml",
            "announcements:\n  - {id: siren, text: 【防空】警报试鸣。, at: 2026-11-24 08:30, to: [\"**\"], priority: emergency, level: orange}\n  \
             - {id: cheer, text: 今天天气真好！, at: 2026-11-24 08:31, to: [\"**\"]}\n",
        );
        daemon.rescan().await;
        let hash = daemon.inner.ledger.announcements(Default::default()).await;
        assert!(hash.is_ok());
        let filter = fabu::ledger::Filter { announcement: Some("siren".to_owned()), max: 1, ..Default::default() };
        let found = daemon.inner.ledger.announcements(filter).await.unwrap().pop().unwrap();
        assert_eq!(serde_json::to_value(daemon.inner.fate(&found).await.unwrap()).unwrap(), "awaiting_confirm");
        let answer = json!({ "id": "siren", "content_hash": found.row.content });
        for uid in [1000, 1001] {
            confirmed(&daemon, uid, &answer).await.unwrap();
        }
        assert!(matches!(confirmed(&daemon, 1002, &answer).await, Err(ActError::Conflict(_))), "two are enough");
        city.sleep(600).await;
        assert!(daemon.inner.holds().is_empty(), "nothing is silent before its hour");
        city.sleep(1210).await;
        assert_eq!(standing(&city, "试鸣"), ALL);
        let holds = daemon.inner.holds();
        assert_eq!(
            holds.iter().map(|h| (h.id.as_str(), h.owner.as_str())).collect::<Vec<_>>(),
            [("hold-siren", "duty1001(1001)")]
        );
        city.sleep(300).await;
        assert_eq!(standing(&city, "真好"), 0, "its level holds routine");
        // Ended by a person it does not come back, whatever is tried again.
        daemon.inner.end_hold(&person(1000), "hold-siren").await.unwrap();
        drop(daemon);
        let daemon = city.start().await;
        city.sleep(60).await;
        assert!(daemon.inner.holds().is_empty());
    });
}

#[test]
fn r05_what_a_hold_kept_back_stays_kept_back_when_its_file_or_its_accounts_change() {
    simulate(async {
        let city = City::new(START, 13, "");
        let cheer = |text: &str, to: &str| {
            let text = format!("announcements:\n  - {{id: cheer, text: {text}, at: 2026-11-24 08:10, to: {to}}}\n");
            city.save("a.yaml", &text);
        };
        cheer("今天天气真好！", "[shanghai]");
        let daemon = city.start().await;
        let hour = Some(Duration::from_secs(1800));
        sent(&daemon, Urgent { hold: hour, ..everywhere("【洪水】请撤离。", Level::Blue) }).await;
        city.sleep(2400).await;
        assert!(daemon.inner.holds().is_empty());
        cheer("今天天气不错！", "[shanghai]");
        city.sleep(30).await;
        assert_eq!(standing(&city, "天气"), 0, "a slip mended in its file is no look at it");
        daemon.inner.unhold(&person(1000), Some("cheer")).await.unwrap();
        city.sleep(30).await;
        assert_eq!((standing(&city, "不错"), standing(&city, "真好")), (4, 0), "and it goes in its new words");
    });
}

/// Suspends or opens again what has the first handle of the sample city: four accounts.
async fn handles_of_the_first(city: &City, daemon: &Daemon, from: &str, to: &str) {
    let file = city.path().join("accounts.yaml");
    let accounts = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, accounts.replace(from, to)).unwrap();
    daemon.inner.reload_config().await;
    city.sleep(5).await;
}

#[test]
fn a_correction_takes_down_what_a_closed_account_carries_and_counts_only_who_is_told() {
    simulate(async {
        let city = City::new(START, 90, "");
        let daemon = city.start().await;
        let id = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
        city.sleep(30).await;
        handles_of_the_first(&city, &daemon, "{handle: h0", "{status: closed, handle: h0").await;
        let look = daemon.inner.correct(&person(1000), &id, LOOK).await.unwrap();
        assert_eq!(look["post"]["accounts"], ALL - 4);
        let shown: u64 =
            look["post"]["platforms"].as_object().unwrap().values().map(|p| p["accounts"].as_u64().unwrap()).sum();
        assert_eq!((shown as usize, look["out_of_reach"].as_u64()), (ALL - 4, Some(4)));
        let answer = correct(&daemon, &id).await.unwrap();
        assert_eq!((answer["deliveries"].as_u64(), answer["out_of_reach"].as_u64()), (Some(11), Some(4)), "{answer}");
        city.sleep(60).await;
        assert_eq!(
            (standing(&city, "【洪水】请撤离。") - standing(&city, "更正"), standing(&city, "更正")),
            (0, ALL - 4)
        );
    });
}

#[test]
fn an_all_clear_says_on_how_many_accounts_it_cannot_be_said() {
    simulate(async {
        let city = City::new(START, 94, "");
        let daemon = city.start().await;
        let id = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
        city.sleep(30).await;
        handles_of_the_first(&city, &daemon, "xinmin: {handle: h0", "eastday2: {handle: h0").await;
        let all = std::fs::read_to_string(city.path().join("accounts.yaml")).unwrap();
        let fewer: String = all.lines().filter(|l| !l.contains("eastday2")).map(|l| format!("{l}\n")).collect();
        std::fs::write(city.path().join("accounts.yaml"), fewer).unwrap();
        daemon.inner.reload_config().await;
        let answer = all_clear(&daemon, &id).await.unwrap();
        assert_eq!((answer["deliveries"].as_u64(), answer["out_of_reach"].as_u64()), (Some(14), Some(1)), "{answer}");
    });
}

/// Between the first word and the second the accounts are suspended.
#[test]
fn a_word_counts_the_accounts_that_are_reached_and_is_not_taken_where_there_are_none() {
    simulate(async {
        let city = City::new(START, 95, "");
        let daemon = city.start().await;
        let all = asked(&daemon, 1000, everywhere("【洪水】请撤离。", Level::Red)).await;
        let first = Urgent { to: vec!["shanghai".to_owned()], ..everywhere("【洪水】总站。", Level::Red) };
        let first = asked(&daemon, 1000, first).await;
        handles_of_the_first(&city, &daemon, "{handle: h0", "{status: suspended, handle: h0").await;
        let refused = support::duty::confirmed(&daemon, 1001, &first).await;
        assert!(matches!(&refused, Err(ActError::Conflict(why)) if why.en.contains("reach nobody")), "{refused:?}");
        let answer = support::duty::confirmed(&daemon, 1001, &all).await.unwrap();
        assert_eq!(answer["deliveries"], ALL - 4);
        city.sleep(3600).await;
        assert_eq!((standing(&city, "请撤离"), standing(&city, "总站")), (ALL - 4, 0));
        let hold = format!("hold-{}", text(&first, "id"));
        assert!(daemon.inner.holds().iter().all(|h| h.id != hold), "{:?}", daemon.inner.holds());
    });
}

/// What an account missed while it was suspended, tried again: reworded meanwhile, before its hour or after it.
#[test]
fn what_was_reworded_while_its_account_was_closed_is_tried_again_or_says_why_not() {
    for (n, edited) in [20, 220].into_iter().enumerate() {
        simulate(async {
            let city = City::new(START, 96 + n as u64, "");
            let of = |text: &str| {
                let entry = format!("{{id: a, text: {text}, to: [shanghai, shanghai/metro], at: 2026-11-24 08:02}}");
                format!("announcements:\n  - {entry}\n")
            };
            city.save("a.yaml", &of("早安"));
            let daemon = city.start().await;
            city.sleep(30).await;
            handles_of_the_first(&city, &daemon, "{handle: h0", "{status: suspended, handle: h0").await;
            city.sleep(edited).await;
            city.save("a.yaml", &of("早上好"));
            daemon.rescan().await;
            city.sleep(300 - edited).await;
            handles_of_the_first(&city, &daemon, "{status: suspended, handle: h0", "{handle: h0").await;
            let tried = daemon.inner.retry(&person(1000), "a", None).await;
            city.sleep(60).await;
            let posts = (standing(&city, "早安"), standing(&city, "早上好"));
            match tried {
                Ok(tried) => {
                    assert_eq!((tried.retrying, edited, posts), (4, 220, (7, 0)), "in the words of all of them")
                }
                Err(ActError::Conflict(why)) => {
                    assert!(why.en.contains("was reworded") && posts == (0, 3), "{edited}: {why:?} {posts:?}");
                }
                Err(why) => panic!("{why:?}"),
            }
        });
    }
}

#[test]
fn an_update_that_brought_its_own_hold_takes_it_along_when_it_is_corrected() {
    simulate(async {
        let city = City::new(START, 91, "");
        let daemon = city.start().await;
        let id = sent(&daemon, everywhere("【洪水】请撤离。", Level::Red)).await;
        city.sleep(30).await;
        all_clear(&daemon, &id).await.unwrap();
        assert!(daemon.inner.holds().is_empty());
        let answer = asked(&daemon, 1000, update(&id, "【洪水】又来了。", Level::Red)).await;
        assert_eq!(daemon.inner.holds().len(), 1);
        correct(&daemon, &text(&answer, "id")).await.unwrap();
        assert!(daemon.inner.holds().is_empty(), "{:?}", daemon.inner.holds());
    });
}

#[test]
fn an_account_that_is_opened_again_gets_the_emergency_when_a_person_says_so() {
    simulate(async {
        let city = City::new(START, 92, "");
        let daemon = city.start().await;
        faults(&city, json!([{ "behaviour": "unreachable" }]));
        let id = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
        handles_of_the_first(&city, &daemon, "{handle: h0", "{status: closed, handle: h0").await;
        city.sandbox.clear();
        city.sleep(120).await;
        assert_eq!(standing(&city, "请撤离"), ALL - 4);
        assert!(daemon.inner.retry(&person(1000), &id, None).await.is_err(), "they are closed still");
        handles_of_the_first(&city, &daemon, "{status: closed, handle: h0", "{handle: h0").await;
        city.sleep(60).await;
        assert_eq!(standing(&city, "请撤离"), ALL - 4, "not by itself");
        let answer = daemon.inner.retry(&person(1000), &id, None).await.unwrap();
        assert_eq!(answer.retrying, 4);
        city.sleep(60).await;
        assert_eq!(standing(&city, "请撤离"), ALL);
        // What is over does not come back with its account.
        handles_of_the_first(&city, &daemon, "{handle: h0", "{status: closed, handle: h0").await;
        all_clear(&daemon, &id).await.unwrap();
        handles_of_the_first(&city, &daemon, "{status: closed, handle: h0", "{handle: h0").await;
        assert!(daemon.inner.retry(&person(1000), &id, None).await.is_err());
    });
}

#[test]
fn a_take_down_says_what_it_cannot_reach() {
    simulate(async {
        let city = City::new(START, 93, "");
        let daemon = city.start().await;
        let id = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
        city.sleep(30).await;
        handles_of_the_first(&city, &daemon, "xinmin: {handle: h0", "eastday2: {handle: h0").await;
        let config = std::fs::read_to_string(city.path().join("accounts.yaml")).unwrap();
        let without: String = config.lines().filter(|l| !l.contains("eastday2")).map(|l| format!("{l}\n")).collect();
        std::fs::write(city.path().join("accounts.yaml"), without).unwrap();
        daemon.inner.reload_config().await;
        let answer = daemon.inner.withdraw(&person(1000), &id, fabu::core::delivery::Desired::Removed).await.unwrap();
        assert_eq!((answer.taking_down, answer.out_of_reach), (ALL, 1));
        std::fs::write(city.path().join("accounts.yaml"), config.replace("eastday2", "xinmin")).unwrap();
        daemon.inner.reload_config().await;
        city.sleep(600).await;
        assert_eq!(standing(&city, "请撤离"), 0);
    });
}

/// A platform cannot be reached for a while: what is said meanwhile waits there.
fn away(city: &City, platform: &str) {
    faults(city, json!([{ "behaviour": "unreachable", "platform": platform, "params": { "kind": "refused" } }]));
}

#[test]
fn what_was_said_of_an_emergency_does_not_come_after_what_has_come_since() {
    for (n, (what, how)) in
        [("all-clear", "update"), ("correction", "update"), ("all-clear", "supersedes")].into_iter().enumerate()
    {
        simulate(async {
            let city = City::new(START, 100 + n as u64, "");
            let daemon = city.start().await;
            let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
            city.sleep(30).await;
            away(&city, "tencent");
            match what {
                "all-clear" => all_clear(&daemon, &first).await.unwrap(),
                _ => correct(&daemon, &first).await.unwrap(),
            };
            city.sleep(2).await;
            let newer = match how {
                "update" => update(&first, "【洪水】大坝决口。", Level::Yellow),
                _ => Urgent {
                    supersedes: Some(first.clone()), ..everywhere("【洪水】大坝决口。", Level::Yellow)
                },
            };
            sent(&daemon, newer).await;
            city.sandbox.clear();
            city.sleep(700).await;
            assert_eq!(standing(&city, "决口"), ALL, "{what} {how}");
            let there = |p: &fabu::sandbox::Post| p.platform == "tencent" && !p.deleted;
            let tencent: Vec<String> = city.sandbox.posts().into_iter().filter(there).map(|p| p.text).collect();
            assert!(tencent.iter().all(|text| text.contains("决口")), "{what} {how}: {tencent:?}");
        });
    }
}

#[test]
fn an_all_clear_waits_for_each_post_that_may_still_appear() {
    simulate(async {
        let city = City::new(START, 104, "");
        let daemon = city.start().await;
        let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
        city.sleep(30).await;
        // Whether the update is there nobody knows yet.
        let late = json!({ "behaviour": "reset_after", "operation": "post" });
        faults(&city, json!([late]));
        sent(&daemon, update(&first, "【洪水】水位上涨。", Level::Yellow)).await;
        city.sleep(1).await;
        let look = daemon.inner.all_clear(&person(1000), &first, LOOK, &[]).await.unwrap();
        assert_eq!(look["waiting"], ALL, "{look}");
        city.sandbox.clear();
        all_clear(&daemon, &first).await.unwrap();
        city.sleep(900).await;
        let mut last = std::collections::BTreeMap::new();
        for post in city.sandbox.posts() {
            last.insert(post.account.clone(), post.text.clone());
        }
        assert!(last.values().all(|text| text.contains("解除")), "{last:?}");
        assert_eq!(standing(&city, "现已解除"), ALL);
    });
}

#[test]
fn what_was_not_shown_is_not_said() {
    simulate(async {
        let city = City::new(START, 105, "");
        let daemon = city.start().await;
        let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
        city.sleep(30).await;
        let look = daemon.inner.correct(&person(1000), &first, LOOK).await.unwrap();
        let says = text(&look["post"], "text");
        let shown = Closed { text: None, dry_run: false, shown: Some(&says) };
        // Another officer was quicker.
        sent(&daemon, update(&first, "【洪水】以此为准。", Level::Yellow)).await;
        city.sleep(30).await;
        let refused = daemon.inner.correct(&person(1000), &first, shown).await;
        assert!(matches!(refused, Err(ActError::Invalid(field, _)) if field == "shown"));
        let refused = daemon.inner.all_clear(&person(1000), &first, Closed { shown: Some(""), ..shown }, &[]).await;
        assert!(refused.is_err(), "nobody was to be told");
        city.sleep(30).await;
        assert_eq!(standing(&city, "以此为准"), ALL);
        // The same with the words of a template, or accounts, that have changed.
        let urgent = everywhere("【停水】明日停水。", Level::Blue);
        let look = daemon.inner.urgent(&person(1000), Urgent { dry_run: true, ..urgent.clone() }, &[]).await.unwrap();
        let shown = Some(text(&look, "content_hash"));
        handles_of_the_first(&city, &daemon, "{handle: h0", "{status: closed, handle: h0").await;
        let refused = daemon.inner.urgent(&person(1000), Urgent { shown: shown.clone(), ..urgent.clone() }, &[]).await;
        assert!(matches!(refused, Err(ActError::Invalid(field, _)) if field == "content_hash"));
        handles_of_the_first(&city, &daemon, "{status: closed, handle: h0", "{handle: h0").await;
        daemon.inner.urgent(&person(1000), Urgent { shown, ..urgent }, &[]).await.unwrap();
    });
}

#[test]
fn a_later_word_that_failed_is_not_tried_again_over_what_was_said_since() {
    simulate(async {
        let city = City::new(START, 106, "");
        let daemon = city.start().await;
        let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
        city.sleep(30).await;
        faults(&city, json!([{ "behaviour": "unfit", "operation": "post" }]));
        all_clear(&daemon, &first).await.unwrap();
        city.sleep(10).await;
        city.sandbox.clear();
        let said = format!("{first}-all-clear");
        assert!(in_state(&daemon.inner.ledger.deliveries(of(&said)).await.unwrap(), State::Failed) > 0);
        sent(&daemon, update(&first, "【洪水】大坝决口。", Level::Yellow)).await;
        city.sleep(30).await;
        assert!(daemon.inner.retry(&person(1000), &said, None).await.is_err());
        city.sleep(30).await;
        assert_eq!((standing(&city, "决口"), standing(&city, "现已解除")), (ALL, 0));
    });
}

fn of(id: &str) -> fabu::ledger::Filter {
    fabu::ledger::Filter { announcement: Some(id.to_owned()), max: 1000, ..Default::default() }
}

#[test]
fn own_words_that_waited_end_nothing_that_has_come_since() {
    simulate(async {
        let city = City::new(START, 107, "");
        let daemon = city.start().await;
        let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Red)).await;
        city.sleep(30).await;
        let waits = daemon.inner.all_clear(&person(1000), &first, OWN, &[]).await.unwrap();
        sent(&daemon, update(&first, "【洪水】大坝决口。", Level::Red)).await;
        city.sleep(30).await;
        assert!(confirmed(&daemon, 1001, &waits).await.is_err());
        city.sleep(30).await;
        assert_eq!((standing(&city, "决口"), standing(&city, "感谢配合")), (ALL, 0));
        assert_eq!(daemon.inner.holds().len(), 1, "it goes on, and so does its hold");
    });
}

#[test]
fn r31_who_was_told_of_what_does_not_depend_on_a_clock() {
    for (n, seconds) in [-1800, 1800].into_iter().enumerate() {
        simulate(async {
            let city = City::new(START, 108 + n as u64, "");
            let daemon = city.start().await;
            let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
            city.sleep(30).await;
            correct(&daemon, &first).await.unwrap();
            city.sleep(30).await;
            city.clock.step(chrono::TimeDelta::seconds(seconds));
            city.sleep(5).await;
            let second = sent(&daemon, update(&first, "【洪水】又来了。", Level::Yellow)).await;
            city.sleep(30).await;
            assert!(daemon.inner.retry(&person(1000), &first, None).await.is_err());
            let answer = correct(&daemon, &second).await.unwrap();
            assert_eq!(answer["deliveries"], ALL, "{seconds}");
            city.sleep(60).await;
            assert_eq!(standing(&city, "【洪水】又来了。") - standing(&city, "更正】此前发布的“【洪水】又"), 0);
        });
    }
}

#[test]
fn what_needs_nobodys_word_takes_no_emergencys_place() {
    simulate(async {
        let city = City::new(START, 110, "");
        let urgent = "announcements:\n  - {id: qe, text: 请避险, at: 2026-11-24 08:10, to: [\"**\"], priority: emergency, level: red}\n";
        city.save("a.yaml", urgent);
        let daemon = city.start().await;
        city.sleep(10).await;
        for uid in [1000, 1001] {
            let row = daemon.inner.ledger.family("qe".into()).await.unwrap().pop().unwrap();
            daemon.inner.confirm(&person(uid), "qe", row.content.as_str()).await.unwrap();
        }
        let routine = "announcements:\n  - {id: r, text: 天气真好, at: 2026-11-24 08:05, to: [\"**\"], supersedes: qe, hold_exempt: x}\n  \
                       - {id: blue, text: 大风, at: 2026-11-24 08:06, to: [\"**\"], supersedes: qe, priority: emergency, level: blue}\n";
        city.save("b.yaml", routine);
        city.sleep(20).await;
        let row = daemon.inner.ledger.family("blue".into()).await.unwrap().pop().unwrap();
        daemon.inner.confirm(&person(1000), "blue", row.content.as_str()).await.unwrap();
        city.sleep(900).await;
        assert_eq!(standing(&city, "请避险"), ALL, "neither in its place, nor on fewer words");
        assert_eq!((standing(&city, "天气真好"), standing(&city, "大风")), (0, 0));
    });
}

#[test]
fn r33_what_was_routine_once_is_an_emergencys_as_soon_as_it_is_one() {
    simulate(async {
        let city = City::new(START, 111, "");
        let say = |to: &str, more: &str| {
            city.save(
                "a.yaml",
                &format!("announcements:\n  - {{id: a, text: 请避险, at: 2026-11-24 08:10, to: {to}{more}}}\n"),
            );
        };
        say("[shanghai/pudong, shanghai/weather]", "");
        let daemon = city.start().await;
        city.sleep(10).await;
        assert_eq!(daemon.inner.priority_of("a").await.unwrap(), fabu::core::announcement::Priority::Routine);
        say("[shanghai/weather]", ", priority: emergency, level: red");
        city.sleep(20).await;
        assert_eq!(daemon.inner.priority_of("a").await.unwrap(), fabu::core::announcement::Priority::Emergency);
    });
}

#[test]
fn a_post_that_was_called_a_failure_and_is_there_can_be_said_to_be_there() {
    simulate(async {
        let city = City::new(START, 112, "");
        let daemon = city.start().await;
        faults(&city, json!([{ "behaviour": "reset_after", "operation": "post", "platform": "eastday" }]));
        let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
        city.sleep(1).await;
        // Nobody shows it, and what is sent again is refused.
        faults(
            &city,
            json!([
                { "behaviour": "gap", "operation": "timeline", "platform": "eastday", "params": { "kind": "lie" } },
                { "behaviour": "unfit", "operation": "post", "platform": "eastday" },
            ]),
        );
        city.sleep(900).await;
        city.sandbox.clear();
        let rows = all(&daemon).await;
        let failed: Vec<_> = rows.iter().filter(|d| d.state == State::Failed).collect();
        assert!(!failed.is_empty(), "{rows:?}");
        for row in failed {
            let its = |p: &fabu::sandbox::Post| p.account == row.account.as_str() && p.text.contains("请撤离");
            let post = city.sandbox.posts().into_iter().find(its).unwrap();
            let address = format!("http://127.0.0.1/notice/{}", post.id);
            let said = fabu::daemon::resolve::Said { published: Some(address), ..Default::default() };
            daemon.inner.resolve(&person(1000), row.id, said).await.unwrap();
        }
        correct(&daemon, &first).await.unwrap();
        city.sleep(60).await;
        assert_eq!(standing(&city, "请撤离") - standing(&city, "更正"), 0);
    });
}

#[test]
fn an_all_clear_goes_when_what_might_still_appear_is_taken_down() {
    simulate(async {
        let city = City::new(START, 113, "");
        let daemon = city.start().await;
        let to = Urgent { to: vec!["tencent:**".to_owned()], ..everywhere("【洪水】请撤离。", Level::Yellow) };
        let first = sent(&daemon, to).await;
        city.sleep(30).await;
        let review = json!({ "behaviour": "review", "operation": "post", "params": { "seconds": 1_000_000 } });
        faults(&city, json!([review, { "behaviour": "reset_after", "operation": "post" }]));
        let newer = Urgent {
            to: vec!["tencent:**".to_owned()], ..update(&first, "【洪水】水位上涨。", Level::Yellow)
        };
        let second = sent(&daemon, newer).await;
        city.sleep(30).await;
        city.sandbox.clear();
        all_clear(&daemon, &first).await.unwrap();
        city.sleep(60).await;
        assert_eq!(standing(&city, "现已解除"), 0, "the update may still be shown");
        daemon.inner.withdraw(&person(1000), &second, fabu::core::delivery::Desired::Removed).await.unwrap();
        city.sleep(120).await;
        assert_eq!(standing(&city, "现已解除"), 4, "{:?}", all(&daemon).await);
    });
}

#[test]
fn a_correction_that_is_corrected_leaves_nothing_wrong_standing() {
    simulate(async {
        let city = City::new(START, 114, "");
        let daemon = city.start().await;
        let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
        city.sleep(30).await;
        away(&city, "sina");
        let wrong = text(&correct(&daemon, &first).await.unwrap(), "id");
        city.sleep(5).await;
        let own = Closed { text: Some("【更正】水位平稳，以本条为准。"), dry_run: false, shown: None };
        let answer = daemon.inner.correct(&person(1000), &wrong, own).await.unwrap();
        assert_eq!(answer["deliveries"], ALL, "{answer}");
        city.sandbox.clear();
        city.sleep(700).await;
        assert_eq!((standing(&city, "水位平稳"), standing(&city, "请撤离")), (ALL, 0));
    });
}

#[test]
fn a_correction_goes_where_what_was_to_come_in_its_place_does_not() {
    simulate(async {
        let city = City::new(START, 115, "");
        let daemon = city.start().await;
        let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
        city.sleep(30).await;
        away(&city, "sina");
        correct(&daemon, &first).await.unwrap();
        city.sleep(5).await;
        // Sina refuses the newer words, and takes the correction.
        faults(&city, json!([{ "behaviour": "unfit", "operation": "post", "platform": "sina", "times": 5 }]));
        let newer = Urgent { supersedes: Some(first.clone()), ..everywhere("【地震】请避险。", Level::Yellow) };
        sent(&daemon, newer).await;
        city.sleep(700).await;
        let wrong = standing(&city, "请撤离") - standing(&city, "更正】此前发布的“【洪水】请撤离");
        assert_eq!(wrong, 0, "{:?}", city.posts());
    });
}

#[test]
fn what_was_superseded_is_not_tried_again_and_what_was_taken_back_is_no_reason() {
    simulate(async {
        let city = City::new(START, 116, "");
        let daemon = city.start().await;
        faults(&city, json!([{ "behaviour": "unfit", "operation": "post", "platform": "sina" }]));
        let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
        city.sleep(10).await;
        let newer = Urgent { supersedes: Some(first.clone()), ..everywhere("【地震】请避险。", Level::Yellow) };
        sent(&daemon, newer).await;
        city.sleep(10).await;
        city.sandbox.clear();
        assert!(daemon.inner.retry(&person(1000), &first, None).await.is_err());
        // An update that was cancelled before it was out keeps nobody from the first one.
        faults(&city, json!([{ "behaviour": "unfit", "operation": "post", "platform": "sina" }]));
        let other = sent(&daemon, everywhere("【大风】请关窗。", Level::Yellow)).await;
        city.sleep(10).await;
        away(&city, "sina");
        let late =
            Urgent { to: vec!["sina:**".to_owned()], ..update(&other, "【大风】风更大了。", Level::Yellow) };
        let late = sent(&daemon, late).await;
        city.sleep(2).await;
        daemon.inner.withdraw(&person(1000), &late, fabu::core::delivery::Desired::Stopped).await.unwrap();
        city.sandbox.clear();
        city.sleep(5).await;
        daemon.inner.retry(&person(1000), &other, None).await.unwrap();
        city.sleep(30).await;
        assert_eq!(standing(&city, "请关窗"), ALL);
    });
}

#[test]
fn r12_how_many_persons_hangs_on_what_is_out_and_not_on_its_file() {
    simulate(async {
        let city = City::new(START, 117, "");
        let say = |file: &str, id: &str, at: &str, level: &str, more: &str| {
            let line = format!(
                "{{id: {id}, text: 第{id}号警报, at: 2026-11-24 {at}, to: [\"**\"], priority: emergency, level: {level}{more}}}"
            );
            city.save(file, &format!("announcements:\n  - {line}\n"));
        };
        say("b.yaml", "qb", "08:01", "red", "");
        say("y.yaml", "yb", "08:01", "yellow", "");
        let daemon = city.start().await;
        city.sleep(10).await;
        let word = async |uid: u32, id: &str| {
            let row = daemon.inner.ledger.family(id.into()).await.unwrap().pop().unwrap();
            daemon.inner.confirm(&person(uid), id, row.content.as_str()).await
        };
        word(1000, "qb").await.unwrap();
        word(1001, "qb").await.unwrap();
        word(1000, "yb").await.unwrap();
        city.sleep(90).await;
        assert_eq!((standing(&city, "第qb号"), standing(&city, "第yb号")), (ALL, ALL));
        // Its file calls it less grave now: what takes its place needs two as before.
        say("b.yaml", "qb", "08:01", "yellow", "");
        say("a.yaml", "qa", "08:05", "yellow", ", supersedes: qb");
        say("z.yaml", "ya", "08:05", "yellow", ", supersedes: yb");
        city.sleep(10).await;
        word(1000, "qa").await.unwrap();
        word(1000, "ya").await.unwrap();
        // The file of what is out long since breaks, or goes.
        std::fs::write(city.queue("y.yaml"), "announcements: [").unwrap();
        city.sleep(400).await;
        assert_eq!((standing(&city, "第qa号"), standing(&city, "第ya号")), (0, ALL));
    });
}

#[test]
fn r31_nothing_is_over_because_the_clock_was_put_on() {
    for n in 0..8 {
        simulate(async {
            let city = City::new(START, 120 + n, "");
            let daemon = city.start().await;
            let waits = asked(&daemon, 1000, everywhere("【洪水】请撤离。", Level::Red)).await;
            away(&city, "sina");
            let lasts = Urgent {
                expires_after: Some(Duration::from_secs(600)),
                ..everywhere("【大风】关窗。", Level::Yellow)
            };
            sent(&daemon, lasts).await;
            city.clock.sleep(Duration::from_millis(5000 + 137 * n)).await;
            city.clock.step(chrono::TimeDelta::hours(1));
            city.clock.sleep(Duration::from_millis(1500)).await;
            confirmed(&daemon, 1001, &waits).await.unwrap();
            city.sandbox.clear();
            city.sleep(400).await;
            assert_eq!((standing(&city, "请撤离"), standing(&city, "关窗")), (ALL, ALL), "{n}");
        });
    }
}

#[test]
fn an_update_that_is_found_late_stops_no_all_clear_that_was_said_of_it() {
    // By the seed the update is found before its all-clear is written, or after.
    for n in 0..12 {
        simulate(async {
            let city = City::new(START, 130 + n, "");
            let daemon = city.start().await;
            let first = sent(&daemon, everywhere("【洪水】请撤离。", Level::Yellow)).await;
            city.sleep(30).await;
            faults(&city, json!([{ "behaviour": "reset_after", "operation": "post" }]));
            sent(&daemon, update(&first, "【洪水】水位上涨。", Level::Yellow)).await;
            city.clock.sleep(Duration::from_millis(200 + 150 * n)).await;
            city.sandbox.clear();
            all_clear(&daemon, &first).await.unwrap();
            city.sleep(900).await;
            assert_eq!(standing(&city, "现已解除"), ALL, "{n}");
        });
    }
}
