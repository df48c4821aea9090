//! What is written and read again is what it was: times, durations, selectors, occurrence ids, contents, repeats.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta, Timelike as _};
use chrono_tz::Tz;
use fabu::clock::{Time, from_micros};
use fabu::core::accounts::Selector;
use fabu::core::announcement::{AnnouncementId, Body, Content, OccurrenceId, Priority, Repeat, Timing};
use fabu::core::repeat;
use fabu::input::values;
use proptest::prelude::*;

const ZONES: [Tz; 4] = [Tz::Asia__Shanghai, Tz::UTC, Tz::America__New_York, Tz::Asia__Kolkata];

fn times() -> impl Strategy<Value = Time> {
    // 1970 to 2100.
    (0i64..4_102_444_800_000_000).prop_map(from_micros)
}

fn content() -> impl Strategy<Value = Content> {
    let timing = prop_oneof![
        Just(Timing::Now),
        times().prop_map(Timing::At),
        (times(), any::<bool>()).prop_map(|(until, some)| {
            let skip = BTreeSet::from([until.date_naive()]);
            Timing::Repeat(Repeat { cron: "0 8 * * *".to_owned(), from: None, until: some.then_some(until), skip })
        }),
    ];
    (any::<String>(), any::<Option<String>>(), timing, any::<Option<u32>>(), any::<Option<bool>>()).prop_map(
        |(text, link, timing, expires, together)| Content {
            body: Body {
                text,
                link: link.clone(),
                images: Vec::new(),
                variants: BTreeMap::new(),
                to: vec!["**".to_owned()],
                except: link.into_iter().collect(),
                priority: Priority::Important,
                level: None,
                timing,
                expires_after: expires.map(|s| Duration::from_secs(s.into())),
                catch_up: None,
                together,
                supersedes: None,
                hold_exempt: None,
                standard: false,
                persons: None,
                silence: None,
                alert_sent: None,
                follows: None,
                closing: None,
            },
            accounts: BTreeSet::new(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn an_instant_is_read_as_it_was_written(at in times(), zone in 0usize..4) {
        let zone = ZONES[zone];
        let text = at.with_timezone(&zone).to_rfc3339_opts(SecondsFormat::Micros, false);
        prop_assert_eq!(values::instant(&text, Tz::UTC), Ok((at, false)));
        // Local and to the second; an hour that comes twice is read as the first.
        let second = at.with_nanosecond(0).unwrap();
        let local = second.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S").to_string();
        let (read, twice) = values::instant(&local, zone).unwrap();
        prop_assert!(read == second || twice && read < second, "{local} {read}");
    }

    #[test]
    fn a_duration_is_read_as_it_was_written(number in 1u64..8784, unit in 0usize..5) {
        let (name, ms) = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)][unit];
        let read = values::duration(&format!("{number}{name}"));
        let wanted = Duration::from_millis(number * ms);
        prop_assert_eq!(read.ok(), (wanted <= Duration::from_secs(366 * 86_400)).then_some(wanted));
    }

    #[test]
    fn an_occurrence_is_named_by_its_instant(second in 0i64..4_102_444_800, zone in 0usize..4, id in "[a-z早安][a-z0-9_.-]{0,20}") {
        let (at, zone) = (from_micros(second * 1_000_000), ZONES[zone]);
        let name = OccurrenceId::at(&AnnouncementId::from(id.as_str()), at, zone);
        let (of, when) = name.as_str().rsplit_once('@').unwrap();
        prop_assert_eq!(of, id);
        prop_assert_eq!(values::instant(when, zone), Ok((at, false)));
    }

    #[test]
    fn a_selector_is_what_was_written_or_is_refused(platform in "([a-z0-9_-]{1,8}:)?", whom in "(\\*\\*|[a-z0-9/_-]{1,20}(/\\*\\*)?|#[a-z早0-9_-]{1,8})") {
        use fabu::core::accounts::Whom;
        let text = format!("{platform}{whom}");
        if let Ok(read) = Selector::parse(&text) {
            let before = read.platform.map_or_else(String::new, |p| format!("{p}:"));
            let rest = match read.whom {
                Whom::All => "**".to_owned(),
                Whom::Unit(id) => id.to_string(),
                Whom::Below(id) => format!("{id}/**"),
                Whom::Tag(tag) => format!("#{tag}"),
            };
            prop_assert_eq!(before + &rest, text);
        } else {
            prop_assert!(whom.contains("//") || whom.starts_with('/') || whom.ends_with('/') || whom.contains("/**"), "{text}");
        }
    }

    #[test]
    fn no_text_makes_the_small_readers_panic(text in any::<String>(), like in "[-0-9:TZ+*/,#L@. a-z]{0,24}") {
        for text in [&text, &like] {
            drop(values::instant(text, Tz::Asia__Shanghai));
            drop(values::duration(text));
            drop(values::date(text));
            drop(values::id(text));
            drop(values::link(text));
            drop(values::look(text));
            drop(Selector::parse(text));
            drop(repeat::parse(text));
        }
    }

    #[test]
    fn a_content_keeps_its_hash_through_json(content in content()) {
        let text = serde_json::to_string(&content).unwrap();
        let read: Content = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&read, &content);
        prop_assert_eq!(read.hash(), content.hash());
    }

    #[test]
    fn a_repeat_comes_in_order_at_its_minute_and_within_its_span(
        minute in 0u32..60, hour in 0u32..24, start in times(), days in 1i64..30, zone in 0usize..4,
    ) {
        let zone = ZONES[zone];
        let repeat = Repeat { cron: format!("{minute} {hour} * * *"), from: None, until: None, skip: BTreeSet::new() };
        let until = start + TimeDelta::days(days);
        let found = repeat::occurrences(&repeat, zone, start, until, 1000);
        // One a day; a day on which the hour is skipped has none.
        prop_assert!((days - 2..=days + 1).contains(&(found.len() as i64)), "{found:?}");
        prop_assert!(found.windows(2).all(|w| w[0] < w[1]));
        for at in found {
            let local = at.with_timezone(&zone);
            prop_assert_eq!((local.hour(), local.minute(), local.second()), (hour, minute, 0));
            prop_assert!(at > start && at <= until);
        }
    }
}
