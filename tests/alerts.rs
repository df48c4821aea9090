//! CAP 1.2 alerts in simulated time: what of another's word stands on the platforms, and what never does.

mod support;

use fabu::core::alert::{Alert, Info, MsgType};
use fabu::core::announcement::Level;
use fabu::core::change::Actor;
use fabu::daemon::Daemon;
use fabu::daemon::acts::ActError;
use fabu::daemon::emergency::{Key, Urgent};
use fabu::input::cap;
use serde_json::Value;
use support::{City, simulate};

const START: &str = "2026-11-24T00:00:00Z";
const CAP: &str = "cap: {senders: [{id: weather@sh.example, level: orange}], areas: {\"310115\": \"shanghai/pudong/**\"}}\n\
    emergency: {confirm: {orange: 1}}\n";
const TEMPLATES: &str = "templates:
  - name: storm
    title: 暴雨橙色
    level: orange
    event: 11B03
    to: [\"#lead\"]
    values:
      issuer: {example: 气象台}
      time: {example: 12月1日15时30分}
      area: {example: 全市, max: 12}
    text: 【暴雨橙色】{{issuer}}{{time}}发布，{{area}}注意防范。
    correction: 【更正】{{area}}没有暴雨。
    all_clear: 【解除】{{area}}雨停了。
";

/// An alert with some of its parts replaced.
fn alert(changes: &[(&str, &str)]) -> Alert {
    let mut text = r#"<?xml version="1.0" encoding="UTF-8"?>
<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2">
<identifier>a-1</identifier><sender>weather@sh.example</sender><sent>2026-11-24T07:59:00+08:00</sent>
<status>Actual</status><msgType>Alert</msgType><scope>Public</scope>
<info><language>en</language><category>Met</category><event>Rain</event><urgency>Immediate</urgency>
<severity>Severe</severity><certainty>Likely</certainty><headline>Rain</headline></info>
<info><language>zh-CN</language><category>Met</category><event>暴雨</event><urgency>Immediate</urgency>
<severity>Extreme</severity><certainty>Likely</certainty>
<eventCode><valueName>GB/T 35965.1</valueName><value>11B03</value></eventCode>
<expires>2026-11-24T10:00:00+08:00</expires><senderName>市气象台</senderName>
<headline>市气象台发布暴雨橙色预警</headline><instruction>请避雨。</instruction>
<parameter><valueName>colour</valueName><value>orange</value></parameter>
<area><areaDesc>浦东新区</areaDesc><geocode><valueName>GB/T 2260</valueName><value>310115</value></geocode></area>
</info></alert>"#
        .to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    // Both infos end, or the alert would not.
    let text = text.replace("<headline>Rain<", "<expires>2026-11-24T10:00:00+08:00</expires><headline>Rain<");
    cap::read(text.as_bytes()).unwrap_or_else(|refused| panic!("{refused:?}"))
}

fn person(uid: u32) -> Actor {
    Actor::Person { uid, name: format!("duty{uid}") }
}

async fn sent(daemon: &Daemon, changes: &[(&str, &str)]) -> Result<Value, ActError> {
    daemon.inner.alert(&person(1000), alert(changes), false, None).await
}

fn standing(city: &City, words: &str) -> usize {
    city.posts().iter().filter(|((_, text), _)| text.contains(words)).map(|(_, n)| *n as usize).sum()
}

fn city(seed: u64) -> City {
    let city = City::new(START, seed, CAP);
    std::fs::create_dir(city.path().join("templates")).unwrap();
    std::fs::write(city.path().join("templates/a.yaml"), TEMPLATES).unwrap();
    city
}

#[test]
fn an_alert_speaks_by_its_template_is_updated_and_ends_and_a_replay_does_nothing_twice() {
    simulate(async {
        let city = city(1);
        let daemon = city.start().await;
        let first = sent(&daemon, &[]).await.unwrap();
        city.sleep(5).await;
        // The template's lead account and the whole of Pudong by the map: four, and four and two below it.
        assert_eq!(standing(&city, "【暴雨橙色】市气象台11月24日7时59分发布，浦东新区注意防范。"), 10);
        let again = sent(&daemon, &[]).await.unwrap();
        assert_eq!(first, again);
        let other = daemon.inner.alert(&person(1001), alert(&[]), false, None).await.unwrap();
        assert_eq!(
            (other["id"].clone(), other["deliveries"].clone()),
            (first["id"].clone(), first["deliveries"].clone())
        );
        city.sleep(5).await;
        assert_eq!(standing(&city, "注意防范"), 10, "a replay publishes nothing");
        let references =
            "<scope>Public</scope><references>weather@sh.example,a-1,2026-11-24T07:59:00+08:00</references>";
        let update = [
            ("<identifier>a-1", "<identifier>a-2"),
            ("<msgType>Alert", "<msgType>Update"),
            ("<scope>Public</scope>", references),
            ("浦东新区", "浦东全境"),
        ];
        let updated = sent(&daemon, &update).await.unwrap();
        city.sleep(60).await;
        assert_eq!((standing(&city, "浦东全境注意"), standing(&city, "浦东新区注意")), (10, 0));
        assert_eq!(daemon.inner.holds().len(), 1, "one emergency, one hold");
        let own = daemon.inner.as_alert(updated["id"].as_str().unwrap()).await.unwrap();
        let read = cap::read(&cap::write(&own)).unwrap();
        assert_eq!(read, own, "what was published can be had as an alert");
        assert_eq!(own.infos[0].event_code(), Some("11B03"));
        let cancel = [
            ("<identifier>a-1", "<identifier>a-3"),
            ("<msgType>Alert", "<msgType>Cancel"),
            ("<scope>Public</scope>", references),
        ];
        let two = references.replace("</references>", " weather@sh.example,a-2,2026-11-24T07:59:00+08:00</references>");
        let cancel = [cancel[0], cancel[1], ("<scope>Public</scope>", two.as_str())];
        let ended = sent(&daemon, &cancel).await.unwrap();
        city.sleep(5).await;
        let spoke = standing(&city, "【解除】");
        assert!(spoke > 0);
        // Sent again, by its sender's own hand or by a client with a key of its own, it says nothing twice.
        assert_eq!(sent(&daemon, &cancel).await.unwrap(), ended);
        let key = Some(Key { key: "again".to_owned(), hash: "of it".to_owned() });
        assert_eq!(daemon.inner.alert(&person(1000), alert(&cancel), false, key).await.unwrap(), ended);
        city.sleep(5).await;
        assert_eq!(standing(&city, "【解除】"), spoke);
        let exported = daemon.inner.as_alert(ended["id"].as_str().unwrap()).await.unwrap();
        assert_eq!((exported.kind, exported.references.is_empty()), (MsgType::Cancel, false));
        assert!(
            exported.references.iter().all(|r| r.sent.timestamp_subsec_nanos() == 0),
            "as each was exported itself"
        );
        city.sleep(5).await;
        assert!(standing(&city, "【解除】") == 10 && daemon.inner.holds().is_empty());
    });
}

#[test]
fn r41_what_is_not_meant_not_in_force_or_not_theirs_to_say_is_never_published() {
    simulate(async {
        let city = city(2);
        let daemon = city.start().await;
        let unknown = "<scope>Public</scope><references>weather@sh.example,b-9,2026-11-24T07:00:00+08:00</references>";
        for (changes, field) in [
            (vec![("<status>Actual", "<status>Exercise")], "status"),
            (vec![("<status>Actual", "<status>Test")], "status"),
            (vec![("<status>Actual", "<status>Draft")], "status"),
            (vec![("<scope>Public", "<scope>Private")], "scope"),
            (vec![("10:00:00+08:00", "07:59:30+08:00"), ("07:59:00+08:00", "07:00:00+08:00")], "expires"),
            (vec![("2026-11-24T07:59:00+08:00", "2026-11-24T09:00:00+08:00")], "sent"),
            (vec![("weather@sh.example", "stranger@sh.example")], "sender"),
            (vec![("<value>orange", "<value>red")], "severity"),
            (vec![("<msgType>Alert", "<msgType>Cancel"), ("<scope>Public</scope>", unknown)], "references"),
            (vec![("<msgType>Alert", "<msgType>Update"), ("<scope>Public</scope>", unknown)], "references"),
            (vec![("<msgType>Alert", "<msgType>Ack")], "msgType"),
            (vec![("11B03", "11B99"), ("310115", "999999")], "area"),
            (vec![("11B03", "11B99"), ("请避雨。", "【演练】请避雨。")], "text"),
        ] {
            match sent(&daemon, &changes).await {
                Err(ActError::Invalid(named, _)) => assert_eq!(named, field),
                other => panic!("{field}: {other:?}"),
            }
        }
        assert!(daemon.inner.holds().is_empty());
        city.sleep(60).await;
        assert!(city.posts().is_empty());
        // Without a template the alert's own words are said, to the areas it names.
        sent(&daemon, &[("11B03", "11B99")]).await.unwrap();
        city.sleep(5).await;
        assert_eq!(standing(&city, "市气象台发布暴雨橙色预警。请避雨。"), 6);
    });
}

#[test]
fn a_message_that_was_overtaken_on_its_way_undoes_nothing() {
    simulate(async {
        let city = city(3);
        let daemon = city.start().await;
        sent(&daemon, &[]).await.unwrap();
        city.sleep(60).await;
        let references =
            "<scope>Public</scope><references>weather@sh.example,a-1,2026-11-24T07:59:00+08:00</references>";
        let later = |id: &'static str, kind: &'static str, sent: &'static str| {
            [
                ("<identifier>a-1", id),
                ("<msgType>Alert", kind),
                ("<scope>Public</scope>", references),
                ("<sent>2026-11-24T07:59:00+08:00", sent),
            ]
        };
        let cancel = later("<identifier>a-3", "<msgType>Cancel", "<sent>2026-11-24T08:01:00+08:00");
        sent(&daemon, &cancel).await.unwrap();
        city.sleep(20 * 60).await;
        let update = later("<identifier>a-4", "<msgType>Update", "<sent>2026-11-24T08:21:00+08:00");
        sent(&daemon, &update).await.unwrap();
        city.sleep(60).await;
        assert_eq!(standing(&city, "注意防范"), 10);
        // The same cancel once more, from another hand; and an update that took its time.
        let again = daemon.inner.alert(&person(1001), alert(&cancel), false, None).await;
        assert!(matches!(&again, Err(ActError::Invalid(field, _)) if field == "sent"), "{again:?}");
        let look = daemon.inner.alert(&person(1000), alert(&cancel), true, None).await.unwrap();
        assert_eq!(look["state"], "taken_before", "{look}");
        // Nor do seconds: what was sent before goes by when it was sent.
        let sooner = later("<identifier>a-5", "<msgType>Update", "<sent>2026-11-24T08:20:30+08:00");
        assert!(matches!(sent(&daemon, &sooner).await, Err(ActError::Invalid(field, _)) if field == "sent"));
        let late = later("<identifier>a-2", "<msgType>Update", "<sent>2026-11-24T08:00:00+08:00");
        assert!(matches!(sent(&daemon, &late).await, Err(ActError::Invalid(field, _)) if field == "sent"));
        city.sleep(60).await;
        assert_eq!(standing(&city, "注意防范"), 10);
    });
}

#[test]
fn an_alert_of_which_a_part_would_be_left_out_is_refused() {
    simulate(async {
        let city = city(4);
        let daemon = city.start().await;
        // A second info in the same language, for other people.
        let refused = sent(&daemon, &[("<language>en</language>", "<language>zh-CN</language>")]).await;
        assert!(matches!(refused, Err(ActError::Invalid(field, _)) if field == "info"));
        // No file takes its name.
        let id = daemon.inner.alert(&person(1000), alert(&[]), true, None).await.unwrap()["id"].clone();
        let id = id.as_str().unwrap();
        city.save(
            "a.yaml",
            &format!("announcements:\n  - {{id: {id}, text: 早安, at: 2026-11-25 08:00, to: [shanghai]}}\n"),
        );
        city.sleep(20).await;
        sent(&daemon, &[]).await.unwrap();
        city.sleep(20).await;
        assert_eq!(standing(&city, "注意防范"), 10);
    });
}

#[test]
fn r52_a_cancel_that_was_sent_before_people_said_more_ends_nothing_of_that() {
    simulate(async {
        let city = city(6);
        let daemon = city.start().await;
        let taken = sent(&daemon, &[]).await.unwrap();
        city.sleep(60).await;
        let update = Urgent {
            text: "【洪水】大坝决口，请撤离。".to_owned(),
            level: Some(Level::Yellow),
            to: vec!["**".to_owned()],
            update: Some(taken["id"].as_str().unwrap().to_owned()),
            ..Urgent::default()
        };
        daemon.inner.urgent(&person(1000), update, &[]).await.unwrap();
        city.sleep(20).await;
        let cancel = [
            ("<identifier>a-1", "<identifier>a-2"),
            ("<msgType>Alert", "<msgType>Cancel"),
            (
                "<scope>Public</scope>",
                "<scope>Public</scope><references>weather@sh.example,a-1,2026-11-24T07:59:00+08:00</references>",
            ),
            ("<sent>2026-11-24T07:59:00+08:00", "<sent>2026-11-24T08:00:30+08:00"),
        ];
        assert!(matches!(sent(&daemon, &cancel).await, Err(ActError::Invalid(field, _)) if field == "sent"));
        city.sleep(20).await;
        assert_eq!(standing(&city, "【解除】"), 0);
    });
}

#[test]
fn an_alert_that_was_cancelled_before_it_came_is_not_published() {
    simulate(async {
        let city = city(7);
        let daemon = city.start().await;
        let cancel = [
            ("<identifier>a-1", "<identifier>a-2"),
            ("<msgType>Alert", "<msgType>Cancel"),
            (
                "<scope>Public</scope>",
                "<scope>Public</scope><references>weather@sh.example,a-1,2026-11-24T07:59:00+08:00</references>",
            ),
            ("<sent>2026-11-24T07:59:00+08:00", "<sent>2026-11-24T07:59:40+08:00"),
        ];
        // A look takes note of nothing, and who has it does not matter.
        assert!(daemon.inner.alert(&person(1000), alert(&cancel), true, None).await.is_err());
        daemon.inner.alert(&person(1000), alert(&[]), true, None).await.unwrap();
        let refused = daemon.inner.alert(&person(1001), alert(&cancel), false, None).await;
        assert!(matches!(refused, Err(ActError::Invalid(field, _)) if field == "references"));
        city.sleep(20).await;
        assert!(matches!(sent(&daemon, &[]).await, Err(ActError::Invalid(field, _)) if field == "identifier"));
        city.sleep(20).await;
        assert_eq!(standing(&city, "注意防范"), 0);
        // Another one of the same office is taken.
        sent(&daemon, &[("<identifier>a-1", "<identifier>a-9")]).await.unwrap();
    });
}

#[test]
fn an_alert_that_names_more_in_another_language_is_refused() {
    simulate(async {
        let city = city(8);
        let daemon = city.start().await;
        let elsewhere = "<area><areaDesc>Xuhui</areaDesc><geocode><valueName>GB/T 2260</valueName><value>310104</value></geocode></area></info>\n<info><language>zh-CN";
        for more in [
            [("</info>\n<info><language>zh-CN", elsewhere)],
            [("<severity>Severe</severity>", "<severity>Extreme</severity>")],
        ] {
            assert!(
                matches!(sent(&daemon, &more).await, Err(ActError::Invalid(field, _)) if field == "info"),
                "{more:?}"
            );
        }
    });
}

#[test]
fn a_cancel_of_several_emergencies_is_refused_and_says_what_to_do() {
    simulate(async {
        let city = city(9);
        let daemon = city.start().await;
        sent(&daemon, &[]).await.unwrap();
        sent(&daemon, &[("<identifier>a-1", "<identifier>a-2")]).await.unwrap();
        city.sleep(20).await;
        let both = "<scope>Public</scope><references>weather@sh.example,a-1,2026-11-24T07:59:00+08:00 weather@sh.example,a-2,2026-11-24T07:59:00+08:00</references>";
        let cancel = [
            ("<identifier>a-1", "<identifier>a-3"),
            ("<msgType>Alert", "<msgType>Cancel"),
            ("<sent>2026-11-24T07:59:00+08:00", "<sent>2026-11-24T08:01:00+08:00"),
            ("<scope>Public</scope>", both),
        ];
        let refused = sent(&daemon, &cancel).await;
        let Err(ActError::Invalid(field, said)) = refused else { panic!("{refused:?}") };
        assert!(field == "references" && said.en.matches("fabu all-clear cap-a-").count() == 2, "{said:?}");
        assert_eq!(standing(&city, "【解除】"), 0);
    });
}

/// Two messages, or a message and a person's act, on their way at once: each is decided on what the other has done.
#[test]
fn r52_of_what_is_on_its_way_at_once_the_older_word_does_not_come_last() {
    let about = |id: &'static str, kind: &'static str, at: &'static str| {
        let references =
            "<scope>Public</scope><references>weather@sh.example,a-1,2026-11-24T07:59:00+08:00</references>";
        let sent = "<sent>2026-11-24T07:59:00+08:00";
        [("<identifier>a-1", id), ("<msgType>Alert", kind), ("<scope>Public</scope>", references), (sent, at)]
    };
    let update = about("<identifier>a-2", "<msgType>Update", "<sent>2026-11-24T08:01:00+08:00");
    let cancel = about("<identifier>a-3", "<msgType>Cancel", "<sent>2026-11-24T08:02:00+08:00");
    for seed in 20..24 {
        simulate(async {
            let city = city(seed);
            let daemon = city.start().await;
            sent(&daemon, &[]).await.unwrap();
            city.sleep(180).await;
            let (over, older) = tokio::join!(sent(&daemon, &cancel), sent(&daemon, &update));
            city.sleep(60).await;
            assert!(over.is_ok(), "{over:?}");
            assert_eq!(standing(&city, "雨停了"), 10, "{older:?}");
        });
        simulate(async {
            let city = city(seed);
            let daemon = city.start().await;
            let id = sent(&daemon, &[]).await.unwrap()["id"].as_str().unwrap().to_owned();
            city.sleep(180).await;
            let officer = person(1000);
            let correct = daemon.inner.correct(&officer, &id, fabu::daemon::emergency::Closed::default());
            let (corrected, older) = tokio::join!(correct, sent(&daemon, &update));
            city.sleep(60).await;
            assert!(corrected.is_ok(), "{corrected:?}");
            assert_eq!((standing(&city, "没有暴雨"), standing(&city, "注意防范")), (10, 0), "{older:?}");
        });
        // The alert waits for its turn, and its cancel comes.
        simulate(async {
            let city = city(seed);
            let daemon = city.start().await;
            city.sleep(180).await;
            let (taken, over) = tokio::join!(sent(&daemon, &[]), sent(&daemon, &cancel));
            city.sleep(60).await;
            assert!(taken.is_err() || over.is_ok(), "{taken:?} {over:?}");
        });
        // The same one by two ways gets one answer.
        simulate(async {
            let city = city(seed);
            let daemon = city.start().await;
            let by_key = |key: &str| {
                let key = Key { key: key.to_owned(), hash: "1".to_owned() };
                let inner = daemon.inner.clone();
                async move { inner.alert(&person(1000), alert(&[]), false, Some(key)).await }
            };
            let (one, other) = tokio::join!(by_key("one"), by_key("other"));
            assert_eq!(one.unwrap(), other.unwrap());
        });
    }
}

/// The alert of the first message, and what refers to it.
fn later(id: &'static str, kind: &'static str, sent: &'static str) -> [(&'static str, &'static str); 4] {
    let references = "<scope>Public</scope><references>weather@sh.example,a-1,2026-11-24T07:59:00+08:00</references>";
    [
        ("<identifier>a-1", id),
        ("<msgType>Alert", kind),
        ("<scope>Public</scope>", references),
        ("<sent>2026-11-24T07:59:00+08:00", sent),
    ]
}

const CATEGORY: &str = "<event>暴雨</event>";
const ALL_CLEAR: &str = "<event>暴雨</event><responseType>AllClear</responseType>";

/// The form that many centres prefer to `Cancel`.
#[test]
fn an_update_that_says_all_clear_is_the_all_clear_of_what_it_refers_to() {
    simulate(async {
        let city = city(30);
        let daemon = city.start().await;
        let refused = sent(&daemon, &[(CATEGORY, ALL_CLEAR)]).await;
        assert!(matches!(&refused, Err(ActError::Invalid(field, _)) if field == "responseType"), "{refused:?}");
        sent(&daemon, &[]).await.unwrap();
        city.sleep(60).await;
        let of = later("<identifier>a-2", "<msgType>Update", "<sent>2026-11-24T08:01:00+08:00");
        let both = "<event>暴雨</event><responseType>AllClear</responseType><responseType>Evacuate</responseType>";
        let refused = sent(&daemon, &[&of[..], &[(CATEGORY, both)]].concat()).await;
        assert!(matches!(&refused, Err(ActError::Invalid(field, _)) if field == "responseType"), "{refused:?}");
        let ends = [&of[..], &[(CATEGORY, ALL_CLEAR)]].concat();
        let look = daemon.inner.alert(&person(1000), alert(&ends), true, None).await.unwrap();
        assert!(look["all_clear"].is_string());
        sent(&daemon, &ends).await.unwrap();
        city.sleep(60).await;
        assert_eq!((standing(&city, "【解除】"), daemon.inner.holds().len()), (10, 0));
        assert_eq!(standing(&city, "注意防范"), 10, "it was no second warning");
    });
}

/// One that has ended, and one for each of two areas.
#[test]
fn infos_of_one_language_are_one_post_where_they_say_the_same_and_are_in_force() {
    simulate(async {
        let city = city(31);
        let daemon = city.start().await;
        let second = |changes: &[(&str, &str)]| {
            let whole = alert(&[]);
            let mut info = whole.infos[1].clone();
            for (from, to) in changes {
                info.headline = info.headline.map(|text| text.replace(from, to));
            }
            (whole, info)
        };
        // The first one is over, and says something else.
        let (mut whole, mut info) = second(&[("橙色", "红色")]);
        info.expires = Some(support::utc("2026-11-23T23:59:30Z"));
        whole.infos.insert(1, info);
        let taken = daemon.inner.alert(&person(1000), whole, false, None).await.unwrap();
        assert_eq!(taken["deliveries"], 10);
        city.sleep(20).await;
        // Both are in force: the same for another area, or other words.
        let (mut whole, mut info) = second(&[]);
        whole.identifier = "b-1".to_owned();
        info.areas[0].desc = "徐汇区".to_owned();
        info.areas[0].geocodes = vec![("GB2260".to_owned(), "310104000000、310199".to_owned())];
        whole.infos.push(Info { language: Some("ZH_cn".to_owned()), ..info });
        let taken = daemon.inner.alert(&person(1000), whole, false, None).await.unwrap();
        assert_eq!(taken["unknown_areas"], serde_json::json!(["310104", "310199"]), "{taken}");
        city.sleep(20).await;
        assert_eq!(standing(&city, "浦东新区、徐汇区注意防范"), 10);
        let (mut whole, info) = second(&[("市气象台", "浦东气象台")]);
        whole.identifier = "b-2".to_owned();
        whole.infos.push(info);
        let refused = daemon.inner.alert(&person(1000), whole, false, None).await;
        let Err(ActError::Invalid(field, said)) = refused else { panic!("{refused:?}") };
        assert!(field == "info" && said.en.contains("浦东气象台发布"), "{said:?}");
    });
}

/// It moves the end and nothing else; and the next one refers to it.
#[test]
fn an_update_that_says_nothing_new_is_not_published_again() {
    simulate(async {
        let city = city(32);
        let daemon = city.start().await;
        let first = sent(&daemon, &[]).await.unwrap();
        city.sleep(60).await;
        let of = later("<identifier>a-2", "<msgType>Update", "<sent>2026-11-24T08:01:00+08:00");
        // The template says when it was sent: here one that does not.
        let longer = ("2026-11-24T10:00:00+08:00", "2026-11-24T12:00:00+08:00");
        let updated = sent(&daemon, &[&of[..], &[longer]].concat()).await.unwrap();
        assert_eq!(updated["state"], "releasing", "another time of issue is another text");
        city.sleep(60).await;
        let plain = [("<identifier>a-1", "<identifier>c-1"), ("11B03", "11B99")];
        let first_plain = sent(&daemon, &plain).await.unwrap();
        city.sleep(60).await;
        let posts = city.sandbox.posts().len();
        let of = |id: &'static str, about: &'static str, sent: &'static str| {
            [
                ("<identifier>a-1", id),
                ("<msgType>Alert", "<msgType>Update"),
                ("<scope>Public</scope>", about),
                ("<sent>2026-11-24T07:59:00+08:00", sent),
                ("11B03", "11B99"),
                longer,
            ]
        };
        let about = "<scope>Public</scope><references>weather@sh.example,c-1,2026-11-24T07:59:00+08:00</references>";
        let same = of("<identifier>c-2", about, "<sent>2026-11-24T08:02:30+08:00");
        for _ in 0..2 {
            let answer = sent(&daemon, &same).await.unwrap();
            assert_eq!((&answer["state"], &answer["id"]), (&"unchanged".into(), &first_plain["id"]), "{answer}");
        }
        city.sleep(60).await;
        assert_eq!(city.sandbox.posts().len(), posts, "nothing was said twice");
        // The next one refers to that which changed nothing.
        let about = "<scope>Public</scope><references>weather@sh.example,c-2,2026-11-24T08:02:30+08:00</references>";
        let other = of("<identifier>c-3", about, "<sent>2026-11-24T08:03:40+08:00");
        let other = sent(&daemon, &[&other[..], &[("请避雨。", "请回家。")]].concat()).await.unwrap();
        assert_eq!(other["state"], "releasing", "{other}");
        city.sleep(60).await;
        assert_eq!((standing(&city, "请回家"), standing(&city, "请避雨")), (6, 0));
        assert!(first["id"].is_string());
    });
}

#[test]
fn an_old_alert_without_an_end_and_one_that_nobody_confirmed_are_no_news() {
    simulate(async {
        let city = city(33);
        let daemon = city.start().await;
        let endless = alert(&[("<sent>2026-11-24T07:59:00+08:00", "<sent>2026-11-24T05:00:00+08:00")]);
        let mut endless = endless;
        endless.infos.iter_mut().for_each(|info| info.expires = None);
        let refused = daemon.inner.alert(&person(1000), endless, false, None).await;
        assert!(matches!(&refused, Err(ActError::Invalid(field, _)) if field == "expires"), "{refused:?}");
    });
    simulate(async {
        let city = City::new(START, 34, &CAP.replace("orange", "red").replace("red: 1", "red: 2"));
        let daemon = city.start().await;
        let red = [("<value>orange", "<value>red"), ("橙色预警", "红色预警")];
        let taken = sent(&daemon, &red).await.unwrap();
        assert_eq!(taken["state"], "awaiting_confirm", "{taken}");
        assert_eq!(sent(&daemon, &red).await.unwrap(), taken);
        city.sleep(3600).await;
        for dry_run in [false, true] {
            let again = daemon.inner.alert(&person(1001), alert(&red), dry_run, None).await;
            assert!(matches!(&again, Err(ActError::Conflict(why)) if why.en.contains("not confirmed")), "{again:?}");
        }
        assert!(city.posts().is_empty());
    });
}

/// What the template leaves out an alert does not reach.
#[test]
fn the_templates_exceptions_hold_for_alerts() {
    simulate(async {
        let city = City::new(START, 35, CAP);
        std::fs::create_dir(city.path().join("templates")).unwrap();
        let template =
            TEMPLATES.replace("    to: [\"#lead\"]\n", "    to: [\"#lead\"]\n    except: [\"sina:**\", \"#nobody\"]\n");
        assert_ne!(template, TEMPLATES);
        std::fs::write(city.path().join("templates/a.yaml"), template.replace(", \"#nobody\"", "")).unwrap();
        let daemon = city.start().await;
        sent(&daemon, &[]).await.unwrap();
        city.sleep(20).await;
        assert!(standing(&city, "注意防范") > 0);
        assert!(city.posts().keys().all(|(account, _)| !account.starts_with("sina:")), "{:?}", city.posts());
    });
}
