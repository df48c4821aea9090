//! A cron expression and a zone → the instants of a repeat, and which missed one is caught up.
//!
//! Wall times are listed without a zone and then placed in it, because that is what a person means by
//! "every day at eight": a local time the zone skips is left out, one that exists twice takes the first.

use std::str::FromStr as _;

use chrono::{LocalResult, NaiveDateTime, TimeDelta, TimeZone as _, Timelike as _, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds};

use super::Time;
use super::announcement::Repeat;
use super::words::{Words, words};

/// Reads five cron fields, or six with seconds first; refuses one that never comes.
pub fn parse(expression: &str) -> Result<Cron, Words> {
    let fields = expression.split_whitespace().count();
    if !matches!(fields, 5 | 6) || expression.contains('@') {
        let shown = super::words::shown(expression);
        return Err(words!(
            "`{shown}` 不是重复规则：应有五个字段（分 时 日 月 周），或六个（前面加秒）",
            "`{shown}` is no repeat: write five fields (minute hour day month weekday), or six with seconds first"
        ));
    }
    if let Some((field, step, most)) = vain_step(expression) {
        let shown = super::words::shown(expression);
        return Err(words!(
            "`{shown}` 里的 `{field}`：步长 {step} 超过 {most}，等于只有一次",
            "`{field}` in `{shown}`: a step of {step} is more than {most}, so it comes once"
        ));
    }
    // As cron has it: where day or weekday begins with a star, both have to fit; otherwise either.
    let is_both =
        expression.split_whitespace().rev().enumerate().any(|(n, f)| matches!(n, 0 | 2) && f.starts_with('*'));
    let parser = CronParser::builder().seconds(Seconds::Optional).dom_and_dow(is_both).build();
    let cron = parser.parse(expression).map_err(|error| {
        // Its words quote the expression, so they are escaped like it.
        let (shown, error) = (super::words::shown(expression), super::words::shown(&error.to_string()));
        words!("`{shown}` 不是重复规则：{error}", "`{shown}` is no repeat: {error}")
    })?;
    let start = Utc.from_utc_datetime(&NaiveDateTime::from_str("2024-01-01T00:00:00").expect("a valid date"));
    match cron.find_next_occurrence(&start, true) {
        Ok(_) => Ok(cron),
        Err(_) => Err(words!("`{expression}` 永远不会到来", "`{expression}` never comes")),
    }
}

/// A step that is larger than what it divides: `*/90` minutes is once an hour, and nobody means that.
fn vain_step(expression: &str) -> Option<(&str, u32, u32)> {
    /// Seconds, minutes, hours, days, months, weekdays.
    const SPANS: [u32; 6] = [59, 59, 23, 31, 12, 7];
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let spans = &SPANS[SPANS.len() - fields.len()..];
    fields.iter().zip(spans).find_map(|(field, most)| {
        let of_part = |part: &str| part.split_once('/').and_then(|(_, step)| step.parse::<u32>().ok());
        let step = field.split(',').filter_map(of_part).find(|step| step > most)?;
        Some((*field, step, *most))
    })
}

/// The local time in `zone`, if it exists: of two the first.
pub fn place(local: NaiveDateTime, zone: Tz) -> Option<Time> {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(at) => Some(at.with_timezone(&Utc)),
        LocalResult::Ambiguous(first, _) => Some(first.with_timezone(&Utc)),
        LocalResult::None => None,
    }
}

/// The instants of a repeat after `after`, up to and including `until`, at most `max`, in order.
pub fn occurrences(repeat: &Repeat, zone: Tz, after: Time, until: Time, max: usize) -> Vec<Time> {
    let Ok(cron) = parse(&repeat.cron) else { return Vec::new() };
    let last = repeat.until.map_or(until, |u| u.min(until));
    let from = repeat.from.map_or(after, |f| after.max(f - TimeDelta::microseconds(1)));
    // croner works on wall time here: a naive time dressed as UTC has no offset changes to trip over.
    let mut cursor = Utc.from_utc_datetime(&from.with_timezone(&zone).naive_local()) - TimeDelta::hours(2);
    let mut found: Vec<Time> = Vec::new();
    while found.len() < max {
        let Ok(next) = cron.find_next_occurrence(&cursor, false) else { break };
        cursor = next;
        let local = next.naive_utc().with_nanosecond(0).expect("zero nanoseconds exist in every second");
        let Some(at) = place(local, zone) else { continue };
        if at > last {
            break;
        }
        let again = found.last().is_some_and(|before| *before >= at);
        if at > from && !again && !repeat.skip.contains(&local.date()) {
            found.push(at);
        }
    }
    found
}

/// Of what was missed between `since` and `now`, the newest one not older than `within`, if any.
pub fn missed(repeat: &Repeat, zone: Tz, since: Time, now: Time, within: TimeDelta) -> Option<Time> {
    let since = since.max(now - within - TimeDelta::microseconds(1));
    // A window of an hour has at most 3,600 occurrences; the bound is for a longer one of every second.
    occurrences(repeat, zone, since, now, 100_000).pop()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn repeat(cron: &str) -> Repeat {
        Repeat { cron: cron.to_owned(), from: None, until: None, skip: BTreeSet::new() }
    }

    fn utc(text: &str) -> Time {
        text.parse().unwrap()
    }

    #[test]
    fn a_repeat_is_listed_in_the_configured_zone() {
        let zone = chrono_tz::Asia::Shanghai;
        let days = occurrences(&repeat("0 8 * * *"), zone, utc("2026-11-23T00:00:00Z"), utc("2026-11-26T00:00:00Z"), 9);
        assert_eq!(days, [utc("2026-11-24T00:00:00Z"), utc("2026-11-25T00:00:00Z"), utc("2026-11-26T00:00:00Z")]);
        let six = occurrences(&repeat("30 59 7 * * *"), zone, days[0], days[1], 9);
        assert_eq!(six, [utc("2026-11-24T23:59:30Z")]);
        let mut skipping = repeat("0 8 * * *");
        skipping.skip.insert("2026-11-25".parse().unwrap());
        assert_eq!(occurrences(&skipping, zone, utc("2026-11-23T00:00:00Z"), utc("2026-11-26T00:00:00Z"), 9).len(), 2);
        // Sunday is 0 and 7; day of month and weekday both given: either fits.
        for weekday in ["0", "7", "SUN"] {
            let sundays = repeat(&format!("0 8 * * {weekday}"));
            let found = occurrences(&sundays, zone, utc("2026-11-23T00:00:00Z"), utc("2026-11-30T00:00:00Z"), 9);
            assert_eq!(found, [utc("2026-11-29T00:00:00Z")], "{weekday}");
        }
        let either = repeat("0 8 25 * 0");
        let found = occurrences(&either, zone, utc("2026-11-23T00:00:00Z"), utc("2026-11-30T00:00:00Z"), 9);
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn r10_an_hour_the_zone_skips_or_repeats_happens_at_most_once() {
        let zone = chrono_tz::Europe::Berlin;
        let daily = repeat("30 2 * * *");
        let spring = occurrences(&daily, zone, utc("2026-03-28T12:00:00Z"), utc("2026-03-30T12:00:00Z"), 9);
        assert_eq!(spring, [utc("2026-03-30T00:30:00Z")], "02:30 does not exist on 29 March");
        let autumn = occurrences(&daily, zone, utc("2026-10-24T12:00:00Z"), utc("2026-10-25T12:00:00Z"), 9);
        assert_eq!(autumn, [utc("2026-10-25T00:30:00Z")], "the first of two");
        // Between the two passes of the hour nothing is found again.
        assert!(occurrences(&daily, zone, autumn[0], utc("2026-10-25T12:00:00Z"), 9).is_empty());
    }

    #[test]
    fn what_never_comes_or_has_the_wrong_shape_is_refused() {
        for bad in ["60 * * * *", "* * *", "@reboot", "@daily", "0 0 30 2 *", "", "a b c d e"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn of_missed_occurrences_the_newest_is_caught_up() {
        let zone = chrono_tz::Asia::Shanghai;
        let (since, now) = (utc("2026-11-20T00:00:00Z"), utc("2026-11-24T00:30:00Z"));
        let hour = TimeDelta::hours(1);
        assert_eq!(missed(&repeat("0 8 * * *"), zone, since, now, hour), Some(utc("2026-11-24T00:00:00Z")));
        assert_eq!(missed(&repeat("0 7 * * *"), zone, since, now, hour), None);
    }
}
