use super::*;
use crate::core::accounts::{Account, Status, Unit, UnitLevel};
use crate::core::fit::{Counting, Rules};

fn city() -> City {
    let mut city = City::default();
    let unit = "shanghai";
    city.units.insert(
        unit.into(),
        Unit {
            id: unit.into(),
            name: "上海发布".to_owned(),
            level: UnitLevel::City,
            tags: BTreeSet::from(["lead".to_owned()]),
            region: None,
            status: Status::Active,
        },
    );
    city.platforms.insert("sina".into());
    let id = AccountId::new("sina", unit);
    let account = Account {
        id: id.clone(),
        handle: String::new(),
        uid: None,
        status: Status::Active,
        lead: true,
        further: BTreeMap::new(),
        secret: None,
        secret_fault: None,
    };
    city.accounts.insert(id, account);
    city
}

fn rules() -> BTreeMap<PlatformName, Rules> {
    let rules = Rules {
        counting: Counting::Points { url: None },
        limit: 40,
        images: 1,
        image_bytes: 1 << 20,
        image_kinds: &["png"],
        image_url: 0,
        link_domain: None,
        commands: false,
        title: None,
    };
    BTreeMap::from([("sina".into(), rules)])
}

fn read_text_of(text: &str) -> Read {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), text).unwrap();
    let (city, rules, emergency) = (city(), rules(), Emergency::default());
    read(folder.path(), &Context { city: &city, rules: &rules, emergency: &emergency })
}

const GOOD: &str = "templates:
  - name: flood-red
    title: 洪水
    level: red
    event: 11A01
    to: [\"#lead\"]
    values:
      area: {label: 区域, example: 全市, max: 10}
      time: {type: time, default: now}
    text: 【洪水】{{time}}起{{area}}转移。
    correction: 【更正】{{area}}洪水信息有误。
    all_clear: 【解除】洪水已退。
";

fn codes(text: &str) -> Vec<(&'static str, usize)> {
    read_text_of(text).faults.iter().map(|f| (f.code, f.start().line)).collect()
}

#[test]
fn a_good_template_is_read_with_its_values_in_their_order() {
    let read = read_text_of(GOOD);
    assert_eq!(read.faults, []);
    let template = &read.templates["flood-red"];
    assert_eq!(template.values.iter().map(|w| w.name.as_str()).collect::<Vec<_>>(), ["area", "time"]);
    assert_eq!((template.level, template.event.as_deref()), (Level::Red, Some("11A01")));
    assert!(read.standing.is_empty());
}

#[test]
fn a_level_that_holds_routine_must_come_with_its_correction_and_its_all_clear() {
    let without = GOOD.lines().filter(|l| !l.contains("correction") && !l.contains("all_clear")).collect::<Vec<_>>();
    let read = read_text_of(&without.join("\n"));
    assert_eq!(read.faults.iter().map(|f| f.code).collect::<Vec<_>>(), ["closing", "closing"]);
    assert!(read.templates.is_empty() && read.standing.contains("flood-red"), "and it is not in force");
    let blue = without.join("\n").replace("level: red", "level: blue");
    assert_eq!(codes(&blue), []);
}

#[test]
fn the_length_is_tried_with_the_longest_values() {
    assert_eq!(codes(&GOOD.replace("max: 10", "max: 60")), [("too_long", 10), ("too_long", 11)]);
}

#[test]
fn what_is_wrong_with_a_template_is_said_at_its_place() {
    for (from, to, expected) in [
        ("{{area}}转移", "{{aera}}转移", vec![("unknown_value", 10)]),
        ("{{area}}转移", "{{area转移", vec![("braces", 10)]),
        ("example: 全市, max: 10", "max: 10", vec![("missing", 8)]),
        ("example: 全市, max: 10", "example: 全市全市, max: 2", vec![("value", 8)]),
        ("default: now", "default: soon", vec![("value", 9)]),
        ("#lead", "#laed", vec![("no_account", 6)]),
        ("level: red", "level: crimson", vec![("value", 4)]),
        ("洪水】", "洪水】【演练】", vec![("drill_mark", 10)]),
        ("洪水】", "洪水】\u{200b}", vec![("hidden_character", 10)]),
        ("{{time}}起", "", vec![("unused_value", 9)]),
        ("    title", "    titel", vec![("unknown_key", 3)]),
        (
            "area: {label",
            "Area: {label",
            vec![("value_name", 8), ("unused_value", 8), ("unknown_value", 10), ("unknown_value", 11)],
        ),
    ] {
        let mut found = codes(&GOOD.replace(from, to));
        found.sort_by_key(|(code, line)| (*line, *code));
        let mut expected = expected;
        expected.sort_by_key(|(code, line)| (*line, *code));
        assert_eq!(found, expected, "{from} → {to}");
    }
}

#[test]
fn of_two_with_one_name_neither_is_newly_in_force_and_one_bad_one_leaves_its_neighbour() {
    let twice = format!("{GOOD}{}", GOOD.strip_prefix("templates:\n").unwrap().replace("11A01", "11A02"));
    let read = read_text_of(&twice);
    assert_eq!(read.faults.iter().map(|f| f.code).collect::<Vec<_>>(), ["template_twice", "template_twice"]);
    assert!(read.templates.is_empty() && read.standing.contains("flood-red"));
    let same_event = twice.replacen("flood-red", "flood-other", 1).replace("11A02", "11A01");
    assert!(read_text_of(&same_event).faults.iter().any(|f| f.code == "event_twice"));
    let neighbour =
        twice.replacen("flood-red", "flood-other", 1).replace("11A02", "11A03").replacen("{{area}}转移", "{{x}}", 1);
    let read = read_text_of(&neighbour);
    assert_eq!(read.templates.keys().collect::<Vec<_>>(), ["flood-red"]);
}
