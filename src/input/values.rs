//! Values people write: durations, shares, local times, dates, ids, links.
//!
//! Each is read from its text and refused with a sentence that says what it should look like.

use std::time::Duration;

use chrono::{
    DateTime, Datelike as _, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone as _, Timelike as _,
    Utc,
};
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer};

use super::typed;
use crate::core::Time;
use crate::core::words::{Words, shown, words};

/// A value with a text form of its own.
macro_rules! from_text {
    ($name:ident, $parse:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                $parse(&text).map($name).map_err(|said: Words| typed::error(&said))
            }
        }
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": ["string", "number"]})
            }
        }
    };
}

/// A time span such as `90s`, `10m`, `2h`, `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);
from_text!(Span, duration);

/// A share such as `20%` or `0.2`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub f64);
from_text!(Share, share);

/// A count, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<u32>);
from_text!(Limit, |text: &str| match text {
    "off" => Ok(None),
    number => whole(number).map(Some),
});

/// How long a file has to be left alone, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settling(pub Duration);
from_text!(Settling, |text: &str| match text {
    "off" => Ok(Duration::ZERO),
    lasts => duration(lasts),
});

/// A whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole(pub u32);
from_text!(Whole, whole);

pub fn whole(text: &str) -> Result<u32, Words> {
    let safe = shown(text);
    text.trim().parse().map_err(|_| words!("`{safe}` 不是整数", "`{safe}` is no whole number"))
}

/// Nothing of ours lasts longer; a larger figure is a slip.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

pub fn duration(text: &str) -> Result<Duration, Words> {
    let safe = shown(text);
    let bad = || words!("`{safe}` 不是时长：如 30s、10m、2h、1d", "`{safe}` is no duration: write 30s, 10m, 2h or 1d");
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(bad)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let unit_s = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(bad()),
    };
    let span = Duration::try_from_secs_f64(number * unit_s).map_err(|_| bad())?;
    if span.is_zero() || span > LONGEST { Err(bad()) } else { Ok(span) }
}

fn share(text: &str) -> Result<f64, Words> {
    let safe = shown(text);
    let bad = || words!("`{safe}` 不是比例：如 20%", "`{safe}` is no share: write 20%");
    let share = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map_err(|_| bad())? / 100.0,
        None => text.trim().parse().map_err(|_| bad())?,
    };
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(bad()) }
}

/// An instant as written: RFC 3339 with an offset, or local to the configured zone.
/// The flag says that the local time exists twice, and that the first was taken.
pub fn instant(text: &str, zone: Tz) -> Result<(Time, bool), Words> {
    let safe = shown(text);
    let text = text.trim();
    let bad = || {
        words!(
            "`{safe}` 不是时间：如 2026-11-24 08:00，或 2026-11-24T08:00:00+08:00",
            "`{safe}` is no time: write 2026-11-24 08:00, or 2026-11-24T08:00:00+08:00"
        )
    };
    // `35-01-20` is a year of its own to every parser, and to no person; nor does a minute have sixty-one seconds.
    let is_meant = |local: &NaiveDateTime| local.year() >= 1970 && local.nanosecond() < 1_000_000_000;
    if let Some((at, local)) = with_offset(text) {
        return if is_meant(&local) { Ok((at, false)) } else { Err(bad()) };
    }
    if let Ok(day) = date(text) {
        return start_of(day, zone).map(|at| (at, false));
    }
    let local = ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .filter(is_meant)
        .ok_or_else(bad)?;
    in_zone(local, zone)
}

/// A day's first instant: where clocks are put forward at midnight, the one after that.
fn start_of(day: NaiveDate, zone: Tz) -> Result<Time, Words> {
    let midnight = day.and_time(NaiveTime::MIN);
    let later = (1..=8).map(|n| midnight + TimeDelta::minutes(15 * n));
    let found = std::iter::once(midnight).chain(later).find_map(|local| in_zone(local, zone).ok());
    found.map(|(at, _)| at).ok_or_else(|| words!("{zone} 没有 {day} 这一天", "{zone} has no {day}"))
}

/// The instant, and how the clock stands at that offset.
fn with_offset(text: &str) -> Option<(Time, NaiveDateTime)> {
    let full = DateTime::parse_from_rfc3339(text).ok();
    // Seconds may be left out, as people do.
    let short = || DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M%:z").ok();
    let zulu = || {
        let local = NaiveDateTime::parse_from_str(text.strip_suffix('Z')?, "%Y-%m-%dT%H:%M").ok()?;
        Some(Utc.from_utc_datetime(&local).fixed_offset())
    };
    let at = full.or_else(short).or_else(zulu)?;
    Some((crate::clock::from_micros(at.timestamp_micros()), at.naive_local()))
}

/// A local time in the configured zone; one that a change of offset skips is an error.
pub fn in_zone(local: NaiveDateTime, zone: Tz) -> Result<(Time, bool), Words> {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(at) => Ok((at.with_timezone(&Utc), false)),
        LocalResult::Ambiguous(first, _) => Ok((first.with_timezone(&Utc), true)),
        LocalResult::None => Err(words!(
            "{zone} 没有 {local} 这个时刻：时钟在此拨快",
            "{local} does not exist in {zone}: clocks are put forward there"
        )),
    }
}

pub fn date(text: &str) -> Result<NaiveDate, Words> {
    let safe = shown(text);
    let day = NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d").ok().filter(|day| day.year() >= 1970);
    day.ok_or_else(|| words!("`{safe}` 不是日期：如 2026-12-31", "`{safe}` is no date: write 2026-12-31"))
}

/// An announcement's id: letters of any script, digits, `-`, `_` and `.`; at most 128 characters.
pub fn id(text: &str) -> Result<(), Words> {
    let safe = shown(&text.chars().take(40).collect::<String>());
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.chars().count() > 128 || text.starts_with('.') || !text.chars().all(fine) {
        return Err(words!(
            "`{safe}` 不能作 id：用字母、数字、`-`、`_`、`.`，不超过 128 字",
            "`{safe}` cannot be an id: use letters, digits, `-`, `_` and `.`, 128 at most"
        ));
    }
    Ok(())
}

/// Names that the program makes itself, of urgent posts and of alerts: in a file they could keep one from being sent.
pub fn is_reserved(id: &str) -> bool {
    let id = look(id);
    ["urgent-", "cap-"].into_iter().any(|kind| id.starts_with(kind))
}

/// What makes two ids look alike: case, composition, width, and what has no shape.
pub fn look(id: &str) -> String {
    use unicode_normalization::UnicodeNormalization as _;
    id.nfkc().filter(|c| !crate::core::words::is_hidden(*c)).flat_map(char::to_lowercase).collect()
}

/// A link to publish: `http` or `https`, a host, no user, no control or blank. Never fetched.
/// The flag says that it leads to a machine of our own.
pub fn link(text: &str) -> Result<bool, Words> {
    let safe = shown(&text.chars().take(80).collect::<String>());
    let bad = || {
        words!("`{safe}` 不能作链接：须为 http(s)://主机/…", "`{safe}` cannot be a link: it has to be http(s)://host/…")
    };
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(bad)?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or("");
    let clean = |c: char| !c.is_whitespace() && !c.is_control() && !crate::core::words::is_hidden(c);
    if host.is_empty() || host.contains('@') || !text.chars().all(clean) || text.len() > 2000 {
        return Err(bad());
    }
    let name = host.split(':').next().unwrap_or(host);
    let private = ["localhost", "127.", "10.", "192.168.", "169.254.", "[", "0."];
    Ok(private.iter().any(|p| name.starts_with(p)))
}

/// A sign that was most likely meant as another character, and is published as it stands: a written-out line break, an entity.
pub fn unread_sign(text: &str) -> Option<String> {
    const ENTITIES: [&str; 8] = ["&nbsp;", "&amp;", "&lt;", "&gt;", "&quot;", "&#39;", "&hellip;", "&middot;"];
    let entity = ENTITIES.into_iter().find(|entity| text.contains(entity));
    // Not in a path of other systems: there a letter stands before it.
    let line_break = text.match_indices("\\n").any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '\\'))
    });
    entity.map(str::to_owned).or_else(|| line_break.then(|| "\\n".to_owned()))
}

/// Whether a text mixes scripts that look alike inside one word, or links to a host that is not ASCII.
pub fn looks_mixed(text: &str) -> bool {
    // Of the Greek letters those that look like Latin ones: μ, Ω or α in a word are a unit or a name.
    let looks_latin = |c: char| ('\u{400}'..='\u{52f}').contains(&c) || "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧνορυκιχϳ".contains(c);
    let mixed = |word: &str| word.chars().any(|c| c.is_ascii_alphabetic()) && word.chars().any(looks_latin);
    let odd_host = |text: &str| {
        let mut rest = text;
        while let Some(at) = rest.find("://") {
            let host: String =
                rest[at + 3..].chars().take_while(|c| !c.is_whitespace() && !"/?#，。".contains(*c)).collect();
            let latin = |c: char| !c.is_ascii() && c.is_alphabetic() && !('\u{4e00}'..='\u{9fff}').contains(&c);
            if host.chars().any(latin) || host.contains("xn--") {
                return true;
            }
            rest = &rest[at + 3..];
        }
        false
    };
    text.split(|c: char| !c.is_alphabetic()).any(mixed) || odd_host(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_what_they_say_or_refused() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400), ("1.5h", 5400)] {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(seconds));
        }
        for bad in ["-1h", "0", "0s", "2 fortnights", "9e99h", "", "h", "999999d", "5"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn instants_are_local_or_carry_their_offset() {
        let zone = chrono_tz::Asia::Shanghai;
        let eight: Time = "2026-11-24T00:00:00Z".parse().unwrap();
        for text in [
            "2026-11-24 08:00",
            "2026-11-24 08:00:00",
            "2026-11-24T08:00+08:00",
            "2026-11-24T00:00:00Z",
            "2026-11-24T00:00Z",
        ] {
            assert_eq!(instant(text, zone).unwrap(), (eight, false), "{text}");
        }
        for bad in [
            "2026-02-30 08:00",
            "2026-11-24 25:00",
            "2026-11-24 08:60",
            "2026-11-24T08:00+99:00",
            "2026-11-24T08:00Z+08:00",
            "tomorrow",
            "8",
            "",
        ] {
            assert!(instant(bad, zone).is_err(), "{bad}");
        }
        let berlin = chrono_tz::Europe::Berlin;
        assert!(instant("2026-03-29 02:30", berlin).is_err(), "skipped");
        assert!(instant("2026-10-25 02:30", berlin).unwrap().1, "exists twice");
    }

    #[test]
    fn ids_and_links_that_could_harm_are_refused() {
        for bad in ["", "../../x", "a/b", "a\nb", ".hidden", "a b", "a@b"] {
            assert!(id(bad).is_err(), "{bad:?}");
        }
        assert!(id(&"x".repeat(10_000)).is_err());
        assert!(id("地铁-9号线_1.2").is_ok());
        assert_eq!(look("Metro"), look("ｍetro\u{200b}"));
        for bad in [
            "javascript:alert(1)",
            "file:///etc/passwd",
            "data:x",
            "http://u:p@h/",
            "https://a/\r\nb",
            "https://",
            "a.cn",
        ] {
            assert!(link(bad).is_err(), "{bad:?}");
        }
        assert!(!link("https://www.shanghai.example/x").unwrap());
        assert!(link("http://169.254.169.254/").unwrap() && link("http://localhost/").unwrap());
        assert!(looks_mixed("pаypal") && looks_mixed("https://ɡov.cn") && !looks_mixed("上海 Shanghai"));
    }
}
