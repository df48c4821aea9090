//! The other hour, in simulated time over the sandbox: what stands on the platforms is what counts.

mod support;

use std::time::Duration;

use fabu::core::announcement::Level;
use fabu::core::delivery::State;
use fabu::core::gate::{Choice, Hold};
use fabu::daemon::acts::ActError;
use fabu::daemon::emergency::{Closed, Key, Urgent};
use support::duty::{ALL, asked, everywhere, person, standing, text};
use support::{City, all, in_state, simulate};

const START: &str = "2026-11-24T00:00:00Z";
#[test]
fn an_urgent_post_stands_everywhere_within_the_second_and_once() {
    simulate(async {
        let city = City::new(START, 1, "");
        let daemon = city.start().await;
        let answer = asked(&daemon, 1000, everywhere("【交通】二号线停运，请绕行。", Level::Blue)).await;
        assert_eq!((answer["state"].as_str(), answer["deliveries"].as_u64()), (Some("releasing"), Some(ALL as u64)));
        city.sleep(1).await;
        assert_eq!(standing(&city, "二号线停运"), ALL);
        city.sleep(600).await;
        assert_eq!(standing(&city, "二号线停运"), ALL, "and never twice");
        assert!(all(&daemon).await.iter().all(|d| d.state == State::Published && d.attempt == 1));
    });
}

#[test]
fn r13_a_red_one_waits_for_another_persons_word_to_exactly_what_was_shown() {
    simulate(async {
        let city = City::new(START, 2, "");
        let daemon = city.start().await;
        let answer = asked(&daemon, 1000, everywhere("【暴雨红色】请留在室内。", Level::Red)).await;
        let (id, hash) = (text(&answer, "id"), text(&answer, "content_hash"));
        assert_eq!(answer["state"], "awaiting_confirm");
        city.sleep(60).await;
        assert_eq!(standing(&city, "暴雨红色"), 0, "one person's word is not enough");
        let confirm = |uid, hash: &str| {
            let (inner, id, hash) = (daemon.inner.clone(), id.clone(), hash.to_owned());
            async move { inner.confirm(&person(uid), &id, &hash).await }
        };
        assert!(matches!(confirm(1000, &hash).await, Err(ActError::Denied(_))), "not by who asked");
        assert!(matches!(confirm(1001, "another").await, Err(ActError::Conflict(_))), "not to other words");
        city.sleep(1).await;
        assert_eq!(standing(&city, "暴雨红色"), 0);
        assert_eq!(confirm(1001, &hash).await.unwrap()["state"], "releasing");
        city.sleep(1).await;
        assert_eq!(standing(&city, "暴雨红色"), ALL);
        assert!(matches!(confirm(1002, &hash).await, Err(ActError::Conflict(_))), "it waits no more");
    });
}

#[test]
fn r12_the_same_words_another_day_need_their_persons_anew() {
    simulate(async {
        let city = City::new(START, 3, "");
        let daemon = city.start().await;
        for day in 0..2 {
            let answer = asked(&daemon, 1000, everywhere("【警报】试鸣。", Level::Red)).await;
            city.sleep(5).await;
            assert_eq!(in_state(&all(&daemon).await, State::Held), ALL, "day {day}");
            let (id, hash) = (text(&answer, "id"), text(&answer, "content_hash"));
            daemon.inner.confirm(&person(1001), &id, &hash).await.unwrap();
            city.sleep(86_400).await;
        }
        assert_eq!(standing(&city, "试鸣"), 2 * ALL);
    });
}

#[test]
fn unconfirmed_it_is_never_sent_and_its_hold_ends_with_it() {
    simulate(async {
        let city = City::new(START, 4, "");
        let daemon = city.start().await;
        asked(&daemon, 1000, everywhere("【地震】请速避险。", Level::Orange)).await;
        assert_eq!(daemon.inner.holds().len(), 1, "routine is silent while it waits");
        city.sleep(700).await;
        assert_eq!(standing(&city, "地震"), 0);
        assert_eq!(in_state(&all(&daemon).await, State::Expired), ALL);
        assert!(daemon.inner.holds().is_empty(), "ten minutes are over, and so is the hold");
    });
}

#[test]
fn r05_routine_is_silent_under_a_hold_also_after_a_crash_and_goes_on_only_when_somebody_looked() {
    simulate(async {
        let city = City::new(START, 5, "");
        city.save(
            "a.yaml",
            "announcements:\n  - {id: cheer, text: 今天天气真好！, at: \"2026-11-24T00:01:00Z\", to: [\"**\"]}\n  \
             - {id: metro, text: 末班车延长。, at: \"2026-11-24T00:01:00Z\", to: [shanghai], hold_exempt: 交通保障}\n",
        );
        let daemon = city.start().await;
        let answer = asked(&daemon, 1000, everywhere("【洪水】请撤离低洼处。", Level::Blue)).await;
        assert!(answer["hold"].is_null(), "blue holds nothing by itself");
        let urgent =
            Urgent { hold: Some(Duration::from_secs(1800)), ..everywhere("【洪水】二次通报。", Level::Blue) };
        asked(&daemon, 1000, urgent).await;
        drop(daemon);
        let daemon = city.start().await;
        // What had its intent on disk is looked for first, on Sina for five minutes.
        city.sleep(600).await;
        assert_eq!(standing(&city, "真好"), 0);
        assert_eq!(standing(&city, "末班车"), 4, "what is exempt passes");
        assert_eq!(standing(&city, "二次通报"), ALL, "and the emergency does");
        assert_eq!(daemon.inner.held().await.unwrap().len(), ALL);
        let held = daemon.inner.held().await.unwrap();
        let clashes = daemon.inner.clashes(&held).await.unwrap();
        assert!(clashes.values().all(|others| others.is_empty()), "one thing alone clashes with nothing");
        for _ in 0..35 {
            fabu::daemon::jobs::every_minute(&daemon.inner).await;
            city.sleep(60).await;
        }
        let told = daemon.inner.ledger.events(0, 100_000).await.unwrap();
        assert_eq!(told.iter().filter(|r| r.kind == "hold_ends_soon").count(), 1, "its end is told of ahead, once");
        city.sleep(4800).await;
        assert_eq!(standing(&city, "真好"), 0, "the hold is over, and it still waits for a look");
        let released = daemon.inner.unhold(&person(1000), Some("cheer")).await.unwrap();
        assert_eq!(released.released, ALL);
        city.sleep(5).await;
        assert_eq!(standing(&city, "真好"), ALL);
    });
}

#[test]
fn r05_a_hold_that_is_over_stays_over_when_the_clock_is_stepped_back_and_a_new_one_of_its_name_outlives_a_crash() {
    simulate(async {
        let city = City::new(START, 13, "");
        let daemon = city.start().await;
        let hour = Some(Duration::from_secs(3600));
        let urgent = Urgent { hold: hour, ..everywhere("【洪水】请撤离低洼处。", Level::Blue) };
        let id = text(&asked(&daemon, 1000, urgent).await, "id");
        city.sleep(3660).await;
        fabu::daemon::jobs::every_minute(&daemon.inner).await;
        city.clock.step(chrono::TimeDelta::minutes(-30));
        assert!(daemon.inner.holds().is_empty(), "it is over for good");
        drop(daemon);
        let daemon = city.start().await;
        assert!(daemon.inner.holds().is_empty(), "also after a crash");
        let update = Urgent { hold: hour, update: Some(id), ..everywhere("【洪水】二次通报。", Level::Blue) };
        asked(&daemon, 1000, update).await;
        assert_eq!(daemon.inner.holds().len(), 1);
        drop(daemon);
        let daemon = city.start().await;
        assert_eq!(daemon.inner.holds().len(), 1, "begun anew it is on disk");
    });
}

#[test]
fn a_correction_reaches_exactly_the_accounts_that_carry_the_wrong_post_and_takes_it_down() {
    simulate(async {
        let city = City::new(START, 6, "");
        let daemon = city.start().await;
        let wrong = Urgent { to: vec!["sina:**".to_owned()], ..everywhere("【误报】导弹来袭！", Level::Blue) };
        let id = text(&asked(&daemon, 1000, wrong).await, "id");
        city.sleep(5).await;
        let carry = standing(&city, "导弹来袭！");
        assert_eq!(carry, 5);
        let answer = daemon.inner.correct(&person(1000), &id, Closed::default()).await.unwrap();
        assert_eq!(answer["deliveries"], carry);
        assert_eq!(answer["state"], "releasing", "the standard words need no second person");
        city.sleep(30).await;
        assert_eq!(standing(&city, "【更正】"), carry);
        let rows = all(&daemon).await;
        assert_eq!(in_state(&rows, State::Deleted), carry, "the wrong one is taken down");
    });
}

#[test]
fn where_nobody_knows_whether_the_wrong_post_is_out_its_correction_waits_until_that_is_known() {
    simulate(async {
        let city = City::new(START, 10, "");
        let daemon = city.start().await;
        // On three accounts the answer is lost: on two after the post was taken, on one before anything was.
        let lost = |account: &str, how: &str| {
            let rule = serde_json::json!({ "behaviour": how, "account": account, "operation": "post", "times": 1 });
            serde_json::from_value(rule).unwrap()
        };
        city.sandbox.set_faults(vec![
            lost("sina:shanghai", "reset_after"),
            lost("sina:shanghai/metro", "reset_after"),
            lost("sina:shanghai/weather", "reset_before"),
        ]);
        let wrong = Urgent { to: vec!["sina:**".to_owned()], ..everywhere("【误报】大坝决堤！", Level::Blue) };
        let id = text(&asked(&daemon, 1000, wrong).await, "id");
        city.sleep(1).await;
        let answer = daemon
            .inner
            .correct(&person(1000), &id, Closed { text: Some("【更正】水位平稳。"), dry_run: false, shown: None })
            .await
            .unwrap();
        assert_eq!((answer["deliveries"].as_u64(), answer["waiting"].as_u64()), (Some(5), Some(3)));
        assert!(
            matches!(
                daemon
                    .inner
                    .correct(
                        &person(1000),
                        &id,
                        Closed { text: Some("【更正】水位平稳。"), dry_run: false, shown: None }
                    )
                    .await,
                Err(ActError::Conflict(_))
            ),
            "once"
        );
        city.sleep(1).await;
        assert_eq!(standing(&city, "【更正】"), 2);
        drop(daemon);
        let daemon = city.start().await;
        city.sleep(1200).await;
        assert_eq!(standing(&city, "大坝决堤！"), 0, "wherever it was, it is down");
        let spoke: Vec<String> = city
            .posts()
            .into_keys()
            .filter(|(_, text)| text.contains("【更正】"))
            .map(|(account, _)| account)
            .collect();
        assert_eq!(spoke.len(), 4, "each account that carried it says so, and no other: {spoke:?}");
        assert!(!spoke.iter().any(|a| a.contains("weather")), "{spoke:?}");
        let rows = all(&daemon).await;
        assert_eq!(in_state(&rows, State::Held), 0, "nothing waits for ever");
    });
}

#[test]
fn an_all_clear_says_so_where_it_stands_and_ends_the_hold() {
    simulate(async {
        let city = City::new(START, 7, "");
        let daemon = city.start().await;
        let answer = asked(&daemon, 1000, everywhere("【暴雨橙色】注意积水。", Level::Orange)).await;
        let (id, hash) = (text(&answer, "id"), text(&answer, "content_hash"));
        daemon.inner.confirm(&person(1001), &id, &hash).await.unwrap();
        city.sleep(5).await;
        let update =
            Urgent {
                update: Some(id.clone()), level: None, ..everywhere("【暴雨橙色】雨势减弱。", Level::Orange)
            };
        let update = asked(&daemon, 1001, update).await;
        let (second, hash) = (text(&update, "id"), text(&update, "content_hash"));
        daemon.inner.confirm(&person(1000), &second, &hash).await.unwrap();
        city.sleep(30).await;
        assert_eq!(standing(&city, "注意积水"), 0, "an update takes the place of what it updates");
        assert_eq!(daemon.inner.holds().len(), 1, "one emergency has one hold");
        daemon.inner.all_clear(&person(1000), &id, Closed::default(), &[]).await.unwrap();
        city.sleep(5).await;
        assert!(daemon.inner.holds().is_empty());
        assert_eq!(standing(&city, "【解除】"), ALL);
    });
}

#[test]
fn an_urgent_post_has_its_picture_also_when_a_second_person_lets_it_go() {
    simulate(async {
        let city = City::new(START, 12, "");
        std::fs::write(city.queue("map.png"), include_bytes!("../src/cli/demo_weather.png")).unwrap();
        let daemon = city.start().await;
        let images = vec![("map.png".to_owned(), Some("撤离路线".to_owned()))];
        let answer =
            asked(&daemon, 1000, Urgent { images, ..everywhere("【洪水】撤离路线见图。", Level::Orange) }).await;
        let (id, hash) = (text(&answer, "id"), text(&answer, "content_hash"));
        city.sleep(20).await;
        let waiting = all(&daemon).await;
        assert!(waiting.iter().all(|d| d.state == State::Held && d.prepared.is_some()), "uploaded while it waits");
        drop(daemon);
        let daemon = city.start().await;
        // It was due before this start, so it is looked for once: while it waits.
        city.sleep(2).await;
        daemon.inner.confirm(&person(1001), &id, &hash).await.unwrap();
        let armed = in_state(&all(&daemon).await, State::Sending);
        assert_eq!(armed, ALL, "the word costs no more than the sending");
        city.sleep(10).await;
        assert_eq!(standing(&city, "【洪水】撤离路线见图。"), ALL);
        let pictured = city.sandbox.posts().iter().filter(|p| p.pictures > 0).count();
        assert_eq!(pictured, ALL);
    });
}

#[test]
fn nothing_of_an_emergency_goes_out_after_its_all_clear() {
    simulate(async {
        let city = City::new(START, 12, "");
        let daemon = city.start().await;
        let busy = serde_json::json!({ "behaviour": "unreachable", "platform": "sina", "for_s": 120 });
        city.sandbox.set_faults(vec![serde_json::from_value(busy).unwrap()]);
        let id = text(&asked(&daemon, 1000, everywhere("【大风蓝色】收好花盆。", Level::Blue)).await, "id");
        city.sleep(5).await;
        assert_eq!(standing(&city, "【大风蓝色】收好花盆。"), ALL - 5, "one platform cannot be reached");
        // Of what is on its way in this moment an all-clear waits to know.
        while in_state(&all(&daemon).await, State::Retrying) < 5 {
            daemon.inner.clock.sleep(std::time::Duration::from_millis(50)).await;
        }
        let answer = daemon
            .inner
            .all_clear(&person(1000), &id, Closed { text: Some("【解除】风停了。"), dry_run: false, shown: None }, &[])
            .await
            .unwrap();
        assert_eq!(answer["deliveries"], ALL - 5);
        city.sleep(1200).await;
        assert_eq!(standing(&city, "收好花盆。"), ALL - 5, "a warning after its all-clear would be a false one");
        assert_eq!(in_state(&all(&daemon).await, State::Cancelled), 5);
        let sina = city.posts().into_keys().filter(|(account, _)| account.starts_with("sina")).count();
        assert_eq!(sina, 0);
    });
}

#[test]
fn a_request_with_the_same_key_is_done_once_and_what_is_wrong_with_one_holds_nothing() {
    simulate(async {
        let city = City::new(START, 8, "");
        let daemon = city.start().await;
        let key = |hash: &str| [Key { key: "k1".to_owned(), hash: hash.to_owned() }];
        let urgent = || everywhere("【停水】今晚停水。", Level::Blue);
        let first = daemon.inner.urgent(&person(1000), urgent(), &key("a")).await.unwrap();
        let again = daemon.inner.urgent(&person(1000), urgent(), &key("a")).await.unwrap();
        assert_eq!(first, again);
        let other = daemon.inner.urgent(&person(1000), urgent(), &key("b")).await;
        assert!(matches!(other, Err(ActError::Invalid(field, _)) if field == "Idempotency-Key"));
        let bad = [
            (Urgent { to: Vec::new(), ..urgent() }, "to"),
            (Urgent { to: vec!["nowhere".to_owned()], ..urgent() }, "to"),
            (Urgent { text: " \u{200b}".to_owned(), ..urgent() }, "text"),
            (Urgent { text: "字".repeat(5000), ..urgent() }, "text"),
            (Urgent { text: "【演练】暴雨".to_owned(), ..urgent() }, "text"),
            (Urgent { id: Some("../x".to_owned()), ..urgent() }, "id"),
            (Urgent { supersedes: Some("nothing".to_owned()), ..urgent() }, "supersedes"),
            (Urgent { images: vec![("../fabu.yaml".to_owned(), None)], ..urgent() }, "images"),
            (Urgent { images: vec![("none.png".to_owned(), None)], ..urgent() }, "images"),
        ];
        for (bad, field) in bad {
            let bad = Urgent { level: Some(Level::Red), ..bad };
            match daemon.inner.urgent(&person(1000), bad, &[]).await {
                Err(ActError::Invalid(named, _)) => assert_eq!(named, field),
                other => panic!("{field}: {other:?}"),
            }
        }
        assert!(daemon.inner.holds().is_empty());
        city.sleep(5).await;
        assert_eq!(standing(&city, "停水"), ALL);
    });
}

#[test]
fn a_template_brings_its_words_its_accounts_and_the_words_that_correct_and_end_it() {
    simulate(async {
        let city = City::new(START, 9, "");
        std::fs::create_dir(city.path().join("templates")).unwrap();
        let template = "templates:\n  - name: flood\n    level: orange\n    to: [\"#weather\", \"#lead\"]\n    values:\n      \
             area: {example: 全市, max: 10}\n      time: {type: time, default: now}\n    \
             text: 【洪水】{{time}}起{{area}}转移。\n    correction: 【更正】{{area}}没有洪水。\n    all_clear: 【退水】{{area}}平安。\n";
        std::fs::write(city.path().join("templates/a.yaml"), template).unwrap();
        let daemon = city.start().await;
        let filled = |area: &str| {
            let values = [("area".to_owned(), area.to_owned())].into();
            Urgent { template: Some("flood".to_owned()), values, ..Urgent::default() }
        };
        let refused = [
            (Urgent { template: Some("flod".to_owned()), ..filled("x") }, "template"),
            (Urgent { values: [].into(), ..filled("x") }, "values.area"),
            (Urgent { text: "也说这个".to_owned(), ..filled("x") }, "text"),
            (Urgent { level: Some(Level::Red), ..filled("x") }, "level"),
            (Urgent { template: None, ..filled("x") }, "values"),
            (filled("【演练】"), "text"),
            (filled("一二三四五六七八九十一"), "values.area"),
        ];
        for (bad, field) in refused {
            match daemon.inner.urgent(&person(1000), bad, &[]).await {
                Err(ActError::Invalid(named, _)) => assert_eq!(named, field),
                other => panic!("{field}: {other:?}"),
            }
        }
        let answer = asked(&daemon, 1000, filled("青浦")).await;
        let (id, hash) = (text(&answer, "id"), text(&answer, "content_hash"));
        // The template is taken away in between: what it said of this emergency stays said.
        std::fs::remove_file(city.path().join("templates/a.yaml")).unwrap();
        daemon.inner.reload_config().await;
        daemon.inner.confirm(&person(1001), &id, &hash).await.unwrap();
        city.sleep(5).await;
        assert_eq!(standing(&city, "【洪水】11月24日8时00分起青浦转移。"), 6);
        daemon.inner.correct(&person(1000), &id, Closed::default()).await.unwrap();
        city.sleep(30).await;
        assert_eq!((standing(&city, "【更正】青浦没有洪水。"), standing(&city, "青浦转移")), (6, 0));
    });
}

#[test]
fn r05_what_has_its_intent_and_has_not_begun_is_kept_back_and_is_counted_so() {
    simulate(async {
        let city = City::new(START, 14, "");
        city.save("a.yaml", "announcements:\n  - {id: a, text: 早安, at: \"2026-11-24T00:01:00Z\", to: [\"**\"]}\n");
        let daemon = city.start().await;
        city.clock.sleep(Duration::from_millis(59_900)).await;
        assert_eq!(in_state(&all(&daemon).await, State::Sending), ALL, "armed a quarter of a second ahead");
        let answer = support::duty::holding(&daemon, Duration::from_secs(600)).await;
        assert_eq!((answer.held as usize, answer.in_flight), (ALL, 0));
        city.sleep(30).await;
        assert!(city.posts().is_empty());
    });
}

#[test]
fn a_hold_over_no_account_is_refused() {
    simulate(async {
        let city = City::new(START, 61, "");
        let daemon = city.start().await;
        let nobody = Choice { to: vec!["shanghai".to_owned()], except: vec!["shanghai".to_owned()] };
        let now = daemon.inner.clock.now();
        let hold = Hold {
            id: "h".to_owned(),
            reason: "静一静".to_owned(),
            until: None,
            accounts: None,
            named: Some(nobody),
            owner: "duty1000(1000)".to_owned(),
            begun: now,
            post: None,
            ended: None,
            version: 1,
        };
        let refused = daemon.inner.hold(&person(1000), hold).await;
        assert!(matches!(&refused, Err(ActError::Invalid(field, _)) if field == "to"));
        assert!(daemon.inner.holds().is_empty());
    });
}

/// What is not mounted, or was emptied, disarms nobody; and what returns is in force again.
#[test]
fn r30_a_reload_without_accounts_templates_or_secrets_keeps_those_that_were_there() {
    simulate(async {
        let city = City::new(START, 62, "");
        std::fs::create_dir(city.path().join("templates")).unwrap();
        let template = "templates:\n  - {name: t, title: 停水, level: blue, to: [\"**\"], text: 停水。, correction: 更正。, all_clear: 解除。}\n";
        std::fs::write(city.path().join("templates/a.yaml"), template).unwrap();
        let daemon = city.start().await;
        let (accounts, templates) = (city.path().join("accounts.yaml"), city.path().join("templates/a.yaml"));
        let good = std::fs::read_to_string(&accounts).unwrap();
        let rejected = || async { daemon.inner.status().await.unwrap().configuration.rejected.len() };
        for broken in ["", "units: []\n"] {
            std::fs::write(&accounts, broken).unwrap();
            daemon.inner.reload_config().await;
            assert_eq!((daemon.inner.config().city.accounts.len(), rejected().await), (ALL, 1), "{broken:?}");
        }
        // Of every account the secret cannot be read.
        let without = good.replace("token: \"env:", "token: \"env:NOT_");
        assert_ne!(without, good);
        std::fs::write(&accounts, without).unwrap();
        std::fs::remove_file(&templates).unwrap();
        daemon.inner.reload_config().await;
        assert_eq!((daemon.inner.config().templates.len(), rejected().await), (1, 2));
        let urgent = Urgent { template: Some("t".to_owned()), ..Urgent::default() };
        daemon.inner.urgent(&person(1000), urgent, &[]).await.unwrap();
        city.sleep(30).await;
        assert_eq!(standing(&city, "停水"), ALL);
        std::fs::write(&accounts, &good).unwrap();
        std::fs::write(&templates, template).unwrap();
        fabu::daemon::jobs::every_minute(&daemon.inner).await;
        assert_eq!(rejected().await, 0, "it mends itself");
    });
}

/// A configuration that asks for fewer persons, read between the words.
#[test]
fn r13_how_many_persons_an_emergency_of_the_queue_needs_is_fixed_when_it_is_taken() {
    simulate(async {
        let city = City::new(START, 63, "emergency: {confirm: {red: 2}}\n");
        let entry = "{id: a, text: 红色警报, to: [shanghai], priority: emergency, level: red, at: 2026-11-24 08:30, expires_after: 2h}";
        city.save("a.yaml", &format!("announcements:\n  - {entry}\n"));
        let daemon = city.start().await;
        let hash = async || {
            let filter = fabu::ledger::Filter { announcement: Some("a".to_owned()), max: 1, ..Default::default() };
            daemon.inner.ledger.announcements(filter).await.unwrap().pop().unwrap().row.content
        };
        let file = city.path().join("fabu.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        let before = hash().await;
        for red in ["red: 1", "red: 3"] {
            std::fs::write(&file, text.replace("red: 2", red)).unwrap();
            daemon.inner.reload_config().await;
            city.sleep(5).await;
            assert_eq!(hash().await, before);
        }
        for (uid, have) in [(1000, 1), (1001, 2)] {
            let answer = daemon.inner.confirm(&person(uid), "a", before.as_str()).await.unwrap();
            assert_eq!(
                (answer["persons"]["needed"].as_u64(), answer["persons"]["have"].as_u64()),
                (Some(2), Some(have))
            );
        }
        city.sleep(1900).await;
        assert_eq!(standing(&city, "红色警报"), 4);
    });
}

/// Names that a file has taken keep nobody from being corrected; those the program makes it cannot take.
#[test]
fn r12_the_queue_takes_no_name_that_a_correction_needs() {
    simulate(async {
        let city = City::new(START, 64, "");
        let of = |id: &str| format!("  - {{id: {id}, text: 明年见 {id}, at: 2027-11-24 08:00, to: [shanghai]}}\n");
        let squats = (2..120).map(|n| of(&format!("sq-correction-{n}"))).chain([
            of("sq-correction"),
            of("cap-x-1"),
            of("Urgent-1"),
        ]);
        city.save("a.yaml", &format!("announcements:\n{}", squats.collect::<String>()));
        let daemon = city.start().await;
        let urgent = Urgent { id: Some("sq".to_owned()), ..everywhere("请避险", Level::Blue) };
        asked(&daemon, 1000, urgent).await;
        city.sleep(30).await;
        let faults = daemon.inner.status().await.unwrap().queue.faults;
        assert_eq!(faults.iter().filter(|fault| fault.code == "id").count(), 2, "{:?}", faults.len());
        daemon.inner.correct(&person(1000), "sq", Closed::default()).await.unwrap();
        city.sleep(60).await;
        assert_eq!((standing(&city, "请避险") - standing(&city, "更正"), standing(&city, "更正")), (0, ALL));
    });
}

/// However many emergencies a file asks for, what persons asked for comes first.
#[test]
fn a_flood_of_files_does_not_hide_what_a_person_asked_for() {
    simulate(async {
        let city = City::new(START, 65, "");
        let of = |n: u32| {
            format!(
                "  - {{id: a{n}, text: 红色警报 {n}, to: [\"sina:shanghai\"], priority: emergency, level: red, at: 2026-11-24 12:00, expires_after: 2h}}\n"
            )
        };
        city.save("a.yaml", &format!("announcements:\n{}", (0..400).map(of).collect::<String>()));
        let daemon = city.start().await;
        city.sleep(30).await;
        let urgent = Urgent { id: Some("zz".to_owned()), ..everywhere("请避险", Level::Blue) };
        asked(&daemon, 1000, urgent).await;
        city.sleep(5).await;
        let told = daemon.inner.status().await.unwrap().emergencies;
        assert!(told.len() < 300, "{}", told.len());
        assert_eq!(told[0].id.as_str(), "zz");
    });
}
