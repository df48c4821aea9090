//! Files as editors really write them: nothing is lost in silence (R51).

use fabu::core::announcement::Timing;
use support::utc;

use super::{city, codes, fault, queue, read, support, warned, with};

const GOOD: &str = "text: 今晚停水\nto: [shanghai]\nat: 2027-01-01 09:00";

#[test]
fn r51_a_text_that_yaml_would_cut_is_a_fault_with_the_line_as_it_should_be() {
    fault("text: 今晚停水 #停水通知# 请储水\nto: [shanghai]\nat: 2027-01-01 09:00", "comment_in_text");
    fault("text: 今晚停水\n  #停水通知#\nto: [shanghai]\nat: 2027-01-01 09:00", "comment_in_text");
    fault("text: 早\nvariants: {sina: {text: 早安}}\nlink: https://a.cn/x #y\nto: [shanghai]", "comment_in_text");
    fault(
        "text: 早\nto: [shanghai]\nat: 2027-01-01 09:00\nvariants:\n  sina:\n    text: 早安 #上海#",
        "comment_in_text",
    );
    fault("text: &重要 今晚停水\nto: [shanghai]\nat: 2027-01-01 09:00", "anchor");
    for fine in ["text: \"今晚 #停水#\" # 备注", "text: |\n  今晚\n  #停水#", "text: 今晚停水\n# 备注"]
    {
        let reading = with(&format!("{fine}\nto: [shanghai] # 市\nat: 2027-01-01 09:00 # 待定"));
        assert!(reading.desired.announcements.contains_key("a"), "{fine}: {:?}", reading.faults);
    }
    // A name that is used is YAML's own, and stays.
    let used = with("text: &t 今晚停水\nto: [shanghai]\nat: 2027-01-01 09:00\nvariants: {sina: {text: *t}}");
    assert!(used.desired.announcements.contains_key("a"), "{:?}", used.faults);
}

#[test]
fn r51_a_key_without_a_value_is_a_fault_for_every_key() {
    for key in [
        "at",
        "repeat",
        "from",
        "until",
        "skip",
        "catch_up",
        "to",
        "except",
        "priority",
        "level",
        "images",
        "link",
        "variants",
        "expires_after",
        "sync",
        "supersedes",
        "hold_exempt",
        "text",
    ] {
        for value in ["", " # 待定", " ~", " null"] {
            let rest: String =
                GOOD.lines().filter(|line| !line.starts_with(&format!("{key}:"))).map(|l| format!("{l}\n")).collect();
            let reading = with(&format!("{rest}{key}:{value}"));
            let found = codes(&reading);
            assert_eq!(found.len(), 1, "{key}{value}: {found:?}");
            assert!(!reading.desired.announcements.contains_key("a"), "{key}{value}");
        }
    }
    fault("text: 早\nto: [shanghai]\nat: 2027-01-01 09:00\nvariants:\n  sina:\n    text:", "no_value");
    assert_eq!(codes(&queue(b"announcements:\n")), [], "an empty queue is none");
}

#[test]
fn r51_files_are_read_whatever_the_case_of_their_end_or_named() {
    let city = city();
    let one = |id: &str| {
        format!("announcements:\n  - id: {id}\n    text: 早安\n    at: 2027-01-01 09:00\n    to: [shanghai]\n")
    };
    for (n, name) in ["NOTICE.YML", "c.Yaml", "d.yml"].iter().enumerate() {
        std::fs::write(city.queue(name), one(&format!("r{n}"))).unwrap();
    }
    let unread = ["x.yaml.txt", "x.yaml ", "x．yaml", "x.YAML.docx"];
    for name in unread {
        std::fs::write(city.queue(name), one("x")).unwrap();
    }
    for name in ["y.yaml~", "y.yaml.bak", ".y.yaml.swp", "notes.txt", "img.jpg"] {
        std::fs::write(city.queue(name), one("y")).unwrap();
    }
    let reading = read(&city);
    assert_eq!((reading.desired.announcements.len(), reading.files, codes(&reading)), (3, 3, vec![]));
    let named: Vec<_> = reading.faults.iter().filter(|f| f.code == "not_read").map(|f| &f.source.name).collect();
    assert_eq!(named.len(), unread.len(), "{named:?}");
    assert!(named.iter().all(|name| unread.iter().any(|end| name.ends_with(end))), "{named:?}");
}

#[test]
fn r51_a_link_is_left_out_only_where_the_text_has_that_very_link() {
    for (text, is_added) in [
        ("看 https://a.cn/news/10", true),
        ("看 https://a.cn/news/1.html", true),
        ("看 https://a.cn/news/1?x=2", true),
        ("看 https://a.cn/news/1", false),
        ("（https://a.cn/news/1）", false),
        ("看https://a.cn/news/1。好", false),
        ("see https://a.cn/news/1, or", false),
    ] {
        let whole = fabu::core::fit::full_text(text, Some("https://a.cn/news/1"));
        assert_eq!(whole != text, is_added, "{whole}");
    }
}

#[test]
fn r44_a_text_of_nothing_to_see_is_empty() {
    for text in ["\\u3164", "\\u2800\\u2800", "\\u034f", " \\uffa0\\u3000"] {
        fault(&format!("text: \"{text}\"\nto: [shanghai]\nat: 2027-01-01 09:00"), "empty");
    }
}

#[test]
fn r51_times_that_no_person_means_are_faults() {
    for at in ["35-01-20 09:00", "2035-01-20", "2035-01-20 09:00:60", "2035-01-20T09:00:60+08:00", "0035-01-20 09:00"] {
        fault(&format!("text: 早\nto: [shanghai]\nat: {at}"), "time");
    }
    for repeat in ["*/90 * * * *", "0 */30 * * *", "0-30/90 * * * *", "*/61 * * * * *"] {
        fault(&format!("text: 早\nto: [shanghai]\nrepeat: \"{repeat}\""), "repeat");
    }
    // A zone that puts its clocks forward at midnight: that day begins an hour later.
    let beirut = chrono_tz::Asia::Beirut;
    let (first, _) = fabu::input::values::instant("2026-03-29", beirut).unwrap();
    assert_eq!(first, utc("2026-03-28T22:00:00Z"));
}

/// `0 8 */2 * 1` is every second day where that is a Monday; `0 8 1,15 * 1` each of those and every Monday.
#[test]
fn r38_days_and_weekdays_are_counted_as_cron_counts_them() {
    let days = |cron: &str| {
        let reading = with(&format!("text: 早 {{{{n}}}}\nto: [\"eastday:shanghai\"]\nrepeat: \"{cron}\""));
        let Timing::Repeat(repeat) = &reading.desired.announcements["a"].content.body.timing else { panic!() };
        let (from, to) = (utc("2026-12-01T00:00:00Z") - chrono::TimeDelta::hours(9), utc("2026-12-31T12:00:00Z"));
        let all = fabu::core::repeat::occurrences(repeat, chrono_tz::Asia::Shanghai, from, to, 100);
        all.iter().map(|at| at.format("%d").to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(days("0 8 */2 * 1"), "07 21");
    assert_eq!(days("0 8 1,15 * 1"), "01 07 14 15 21 28");
    assert_eq!(days("0 8 * * 1"), "07 14 21 28");
}

#[test]
fn an_hour_that_is_past_is_a_warning_unless_the_ledger_knows_it() {
    let reading = with("text: 早\nto: [shanghai]\nat: 2026-11-23 09:00");
    assert!(warned(&reading).contains(&"past") && reading.desired.announcements.contains_key("a"));
    assert!(!warned(&with(GOOD)).contains(&"past"));
    let city = city();
    std::fs::write(city.queue("a.yaml"), "announcements:\n- {id: a, text: 早, to: [shanghai], at: 2026-11-23 09:00}\n")
        .unwrap();
    let known = fabu::input::folder::Named { earlier: Some(["a".into()].into()), ..Default::default() };
    let reading = fabu::daemon::queue::read(&city.config(), &known, utc(super::NOW));
    assert_eq!(warned(&reading), Vec::<&str>::new());
}

#[test]
fn r51_signs_that_would_be_published_as_they_stand_are_warned_of() {
    for text in ["第一行\\n第二行", "&nbsp;早安", "a &amp; b"] {
        assert!(
            warned(&with(&format!("text: '{text}'\nto: [shanghai]\nat: 2027-01-01 09:00"))).contains(&"unread_sign")
        );
    }
    for text in ["C:\\new", "AT&T", "早安"] {
        assert!(
            !warned(&with(&format!("text: '{text}'\nto: [shanghai]\nat: 2027-01-01 09:00"))).contains(&"unread_sign")
        );
    }
}

#[test]
fn units_and_names_are_no_look_alikes() {
    for (text, is_warned) in
        [("PM2.5 35μg/m³，10kΩ", false), ("α粒子 β-胡萝卜素", false), ("pаypal", true), ("ΡM2", true), ("Mосква", true)]
    {
        let reading = with(&format!("text: {text}\nto: [shanghai]\nat: 2027-01-01 09:00"));
        assert_eq!(warned(&reading).contains(&"look_alike"), is_warned, "{text}");
    }
}

/// Compared is what goes out on the account.
#[test]
fn the_same_words_within_a_day_are_those_that_go_out() {
    let same = |one: &str, other: &str| {
        let text = format!(
            "announcements:\n- {{id: a, to: [\"sina:shanghai\"], {one}}}\n- {{id: b, to: [\"sina:shanghai\"], {other}}}\n"
        );
        let reading = queue(text.as_bytes());
        assert!(reading.desired.announcements.len() == 2, "{:?}", reading.faults);
        reading.faults.iter().any(|f| f.code == "same_text" && f.message.en.contains("within a day"))
    };
    let (nine, ten) = ("at: 2027-01-01 09:00", "at: 2027-01-01 10:00");
    assert!(same(&format!("text: 停水, {nine}"), &format!("text: 停水, {ten}")));
    assert!(!same(&format!("text: 停水, {nine}"), &format!("text: 停水, link: \"https://a.cn/1\", {ten}")));
    assert!(same(&format!("text: 停水, {nine}"), &format!("text: 停电, variants: {{sina: {{text: 停水}}}}, {ten}")));
    assert!(!same(&format!("text: 停水, {nine}"), &format!("text: 停水, variants: {{sina: {{text: 停电}}}}, {ten}")));
    assert!(!same(&format!("text: 停水, {nine}"), "text: 停水, at: 2027-01-03 09:00"));
    let repeat = |more: &str| format!("text: 停水, repeat: \"0 8 * * *\", {more}");
    assert!(same(&format!("text: 停水, {nine}"), &repeat("from: 2026-12-01")));
    assert!(!same(&format!("text: 停水, {nine}"), &repeat("until: 2026-12-01")));
    assert!(!same(&repeat("until: 2026-12-01"), &repeat("from: 2026-12-24")));
    assert!(!same(&format!("text: 停水, {nine}"), "text: 停水, repeat: \"0 8 15 * *\""));
}

#[test]
fn an_odd_blank_in_front_of_a_line_is_named_at_its_line() {
    let reading = queue("announcements:\n- id: a\n\u{a0} text: 早\n  to: [shanghai]\n".as_bytes());
    let said = &reading.faults[0];
    assert!(said.hint.as_ref().unwrap().en.contains("U+00A0"), "{said:?}");
    assert_eq!((said.start().line, said.start().column), (3, 1));
}

#[test]
fn a_zone_that_people_write_for_china_leads_to_shanghai() {
    for (zone, hint) in [
        ("Asia/Beijing", "Asia/Shanghai"),
        ("UTC+8", "Asia/Shanghai"),
        ("GMT+8", "Asia/Shanghai"),
        ("CST", "Asia/Shanghai"),
        ("Asia/Shanghia", "Asia/Shanghai"),
        ("Europe/Berln", "Europe/Berlin"),
    ] {
        let city = city();
        let file = city.path().join("fabu.yaml");
        let text = std::fs::read_to_string(&file).unwrap().replace("Asia/Shanghai", &format!("\"{zone}\""));
        std::fs::write(&file, text).unwrap();
        let (_, faults) = fabu::input::settings::read(&file);
        assert!(faults[0].hint.as_ref().unwrap().en.contains(hint), "{zone}: {:?}", faults[0]);
    }
    let city = city();
    let file = city.path().join("fabu.yaml");
    let text = std::fs::read_to_string(&file).unwrap().replace("Asia/Shanghai", "Etc/GMT+8");
    std::fs::write(&file, text).unwrap();
    let (settings, faults) = fabu::input::settings::read(&file);
    assert!(settings.is_some() && !faults[0].is_error() && faults[0].message.en.contains("Greenwich"));
}
