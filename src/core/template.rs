//! Emergency templates (应急模板): words agreed on before the hour in which nobody can weigh words.
//!
//! A template's values are named, have a kind, and are required unless they have a default. What is
//! filled in is never read again for further values, so no value can smuggle one in.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike as _, NaiveDateTime, NaiveTime, TimeZone as _, Timelike as _};
use chrono_tz::Tz;

use super::announcement::{Closing, Level};
use super::words::{Words, nearest, shown, words};

/// What a drill's texts bear; the city never sees it.
pub const DRILL_MARK: &str = "【演练】";

/// A text as a drill says it: stamped at its beginning, once.
pub fn stamped(text: &str) -> String {
    if text.starts_with(DRILL_MARK) { text.to_owned() } else { format!("{DRILL_MARK}{text}") }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub name: String,
    pub title: String,
    pub level: Level,
    /// GB/T 35965 code of the event, which chooses the template for a CAP alert.
    pub event: Option<String>,
    pub to: Vec<String>,
    pub except: Vec<String>,
    /// In the order they are asked for.
    pub values: Vec<Wanted>,
    pub text: String,
    pub correction: Option<String>,
    pub all_clear: Option<String>,
    /// The file it stands in, as a person would name it.
    pub file: String,
}

/// A value a template wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    pub label: String,
    pub kind: Kind,
    /// Without one the value is required.
    pub default: Option<String>,
    pub example: Option<String>,
    /// Most characters.
    pub max: Option<usize>,
}

/// What a value has to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Text,
    /// Digits, with one point at most.
    Number,
    /// `now`, `17:40`, `2026-12-01 17:40` or RFC 3339; shown as 12月1日17时40分.
    Time,
    OneOf(Vec<String>),
}

/// A template with its values put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    pub text: String,
    pub closing: Closing,
}

/// A value that is missing, unknown or not of its kind: its name and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    pub value: String,
    pub said: Words,
}

impl Template {
    /// The texts with these values; `now` is the hour of the zone people read.
    pub fn filled(&self, given: &BTreeMap<String, String>, now: DateTime<Tz>) -> Result<Filled, Unfit> {
        if let Some(name) = given.keys().find(|name| self.wanted(name).is_none()) {
            return Err(Unfit { said: self.unknown(name), value: name.clone() });
        }
        let mut values = BTreeMap::new();
        for wanted in &self.values {
            let text = given.get(&wanted.name).or(wanted.default.as_ref());
            let text = text.ok_or_else(|| Unfit { value: wanted.name.clone(), said: wanted.missing() })?;
            let text = wanted.read(text, now).map_err(|said| Unfit { value: wanted.name.clone(), said })?;
            values.insert(wanted.name.as_str(), text);
        }
        Ok(self.with(&values))
    }

    /// The texts with the longest values they may get, for a check of their length.
    pub fn longest(&self) -> Filled {
        let values = self.values.iter().map(|w| (w.name.as_str(), w.longest())).collect();
        self.with(&values)
    }

    fn wanted(&self, name: &str) -> Option<&Wanted> {
        self.values.iter().find(|w| w.name == name)
    }

    fn unknown(&self, name: &str) -> Words {
        let (safe, template) = (shown(name), &self.name);
        match nearest(name, self.values.iter().map(|w| w.name.as_str())) {
            Some(near) => words!(
                "模板 {template} 没有值 `{safe}`，是否指 `{near}`？",
                "the template {template} has no value `{safe}`: did you mean `{near}`?"
            ),
            None => words!("模板 {template} 没有值 `{safe}`", "the template {template} has no value `{safe}`"),
        }
    }

    fn with(&self, values: &BTreeMap<&str, String>) -> Filled {
        let put = |text: &str| {
            pieces(text).into_iter().fold(String::with_capacity(text.len()), |mut out, piece| {
                match piece {
                    Piece::Text(text) => out.push_str(text),
                    Piece::Value(name, _) => out.push_str(values.get(name).map_or("", String::as_str)),
                }
                out
            })
        };
        Filled {
            text: put(&self.text),
            closing: Closing {
                template: self.name.clone(),
                correction: self.correction.as_deref().map(put),
                all_clear: self.all_clear.as_deref().map(put),
            },
        }
    }
}

impl Wanted {
    fn missing(&self) -> Words {
        let (name, label) = (&self.name, &self.label);
        let example = self.example.as_deref().unwrap_or("…");
        words!(
            "缺少 {label}：--set {name}={example}",
            "the value `{name}` ({label}) is missing: --set {name}={example}"
        )
    }

    /// The value as it will stand in the text, or why it cannot.
    pub fn read(&self, text: &str, now: DateTime<Tz>) -> Result<String, Words> {
        let (text, name, safe) = (text.trim(), &self.name, shown(text));
        if text.is_empty() {
            return Err(words!("`{name}` 是空的", "`{name}` is empty"));
        }
        if text.contains('\n') {
            return Err(words!("`{name}` 须为一行", "`{name}` has to be one line"));
        }
        let text = match &self.kind {
            Kind::Text => text.to_owned(),
            Kind::Number => {
                let is_number = text.starts_with(|c: char| c.is_ascii_digit())
                    && text.ends_with(|c: char| c.is_ascii_digit())
                    && text.chars().all(|c| c.is_ascii_digit() || c == '.')
                    && text.matches('.').count() <= 1;
                match is_number {
                    true => text.to_owned(),
                    false => {
                        return Err(words!(
                            "`{name}` 须为数字，不能是 `{safe}`",
                            "`{name}` has to be a number, and `{safe}` is none"
                        ));
                    }
                }
            }
            Kind::Time => local_time(text, now).ok_or_else(|| {
                words!(
                    "`{name}` 须为时间，不能是 `{safe}`：写 now、17:40 或 2026-12-01 17:40",
                    "`{name}` has to be a time, and `{safe}` is none: write now, 17:40 or 2026-12-01 17:40"
                )
            })?,
            Kind::OneOf(known) => match known.iter().any(|k| k == text) {
                true => text.to_owned(),
                false => {
                    let all = known.join("、");
                    return Err(words!(
                        "`{name}` 不能是 `{safe}`，应为：{all}",
                        "`{name}` cannot be `{safe}`: it is one of {all}"
                    ));
                }
            },
        };
        match (self.max, text.chars().count()) {
            (Some(max), long) if long > max => {
                Err(words!("`{name}` 有 {long} 字，上限 {max}", "`{name}` has {long} characters, the limit is {max}"))
            }
            _ => Ok(text),
        }
    }

    /// As long as it may be; without a limit, as long as its example or default.
    fn longest(&self) -> String {
        let written = [&self.example, &self.default].into_iter().flatten().cloned();
        let known = match &self.kind {
            Kind::OneOf(known) => known.clone(),
            Kind::Time => vec!["12月30日23时59分".to_owned()],
            Kind::Text | Kind::Number => Vec::new(),
        };
        let longest = written.chain(known).max_by_key(|text| text.chars().count()).unwrap_or_default();
        let filler = if self.kind == Kind::Number { '8' } else { '测' };
        let missing = self.max.unwrap_or(0).saturating_sub(longest.chars().count());
        longest.chars().chain(std::iter::repeat_n(filler, missing)).collect()
    }
}

/// A time as it is written for readers; what has that form already stays.
fn local_time(text: &str, now: DateTime<Tz>) -> Option<String> {
    if text.ends_with(['时', '分', '日']) && text.chars().all(|c| c.is_ascii_digit() || "年月日时分".contains(c))
    {
        return Some(text.to_owned());
    }
    if text == "now" {
        return Some(spoken(now));
    }
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(spoken(at.with_timezone(&now.timezone())));
    }
    let local = NaiveTime::parse_from_str(text, "%H:%M").map(|t| now.date_naive().and_time(t));
    let local = local.or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M")).ok()?;
    now.timezone().from_local_datetime(&local).earliest().map(spoken)
}

/// An instant in the words of a warning: 12月1日17时40分.
pub fn spoken(at: DateTime<Tz>) -> String {
    format!("{}月{}日{}时{:02}分", at.month(), at.day(), at.hour(), at.minute())
}

/// Part of a template's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'t> {
    Text(&'t str),
    /// The name of a value, and the byte its braces begin at.
    Value(&'t str, usize),
}

/// A text in its pieces; braces that do not close are text.
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(open) = text[from..].find("{{").map(|n| from + n) {
        let Some(close) = text[open..].find("}}").map(|n| open + n) else { break };
        found.push(Piece::Text(&text[from..open]));
        found.push(Piece::Value(text[open + 2..close].trim(), open));
        from = close + 2;
    }
    found.push(Piece::Text(&text[from..]));
    found
}

/// Whether a text has braces that belong to no value.
pub fn has_stray_braces(text: &str) -> bool {
    pieces(text).iter().any(|p| matches!(p, Piece::Text(t) if t.contains("{{") || t.contains("}}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str, kind: Kind) -> Wanted {
        Wanted { name: name.to_owned(), label: name.to_owned(), kind, default: None, example: None, max: None }
    }

    fn template(text: &str, values: Vec<Wanted>) -> Template {
        Template {
            name: "t".to_owned(),
            title: String::new(),
            level: Level::Red,
            event: None,
            to: Vec::new(),
            except: Vec::new(),
            values,
            text: text.to_owned(),
            correction: Some("更正{{area}}".to_owned()),
            all_clear: None,
            file: String::new(),
        }
    }

    fn now() -> DateTime<Tz> {
        chrono_tz::Asia::Shanghai.with_ymd_and_hms(2026, 12, 1, 17, 40, 0).unwrap()
    }

    fn filled(template: &Template, given: &[(&str, &str)]) -> Result<Filled, Unfit> {
        let given = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        template.filled(&given, now())
    }

    #[test]
    fn values_are_put_in_once_and_never_read_again() {
        let t =
            template("【{{ area }}】{{area}}{{note}}", vec![wanted("area", Kind::Text), wanted("note", Kind::Text)]);
        let out = filled(&t, &[("area", "{{note}}"), ("note", "}}{{area")]).unwrap();
        assert_eq!(out.text, "【{{note}}】{{note}}}}{{area");
        assert_eq!(out.closing.correction.as_deref(), Some("更正{{note}}"));
    }

    #[test]
    fn what_is_missing_unknown_or_of_another_kind_is_named() {
        let mut area = wanted("area", Kind::Text);
        area.max = Some(4);
        let t = template("{{area}}{{level}}", vec![area, wanted("level", Kind::OneOf(vec!["一".into(), "二".into()]))]);
        let named = |given: &[(&str, &str)]| filled(&t, given).unwrap_err().value;
        assert_eq!(named(&[("level", "一")]), "area");
        assert_eq!(named(&[("area", " "), ("level", "一")]), "area");
        assert_eq!(named(&[("area", "浦东新区全境"), ("level", "一")]), "area");
        assert_eq!(named(&[("area", "浦\n东"), ("level", "一")]), "area");
        assert_eq!(named(&[("area", "浦东"), ("level", "三")]), "level");
        let unknown = filled(&t, &[("aera", "x")]).unwrap_err();
        assert!(unknown.said.en.ends_with("did you mean `area`?"), "{}", unknown.said.en);
    }

    #[test]
    fn times_and_numbers_read_as_a_warning_says_them() {
        let (time, number) = (wanted("time", Kind::Time), wanted("n", Kind::Number));
        for (given, said) in [
            ("now", "12月1日17时40分"),
            ("08:05", "12月1日8时05分"),
            ("2026-12-03 00:00", "12月3日0时00分"),
            ("2026-12-01T07:30:00Z", "12月1日15时30分"),
            ("12月1日15时30分", "12月1日15时30分"),
        ] {
            assert_eq!(time.read(given, now()).unwrap(), said);
        }
        assert!(time.read("soon", now()).is_err() && time.read("25:00", now()).is_err());
        assert_eq!(number.read("12.5", now()).unwrap(), "12.5");
        for bad in ["-1", "1e9", "1.2.3", ".5", "五"] {
            assert!(number.read(bad, now()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longest_value_is_as_long_as_its_limit() {
        let mut area = wanted("area", Kind::Text);
        (area.example, area.max) = (Some("全市".to_owned()), Some(10));
        let t = template("{{area}}", vec![area]);
        assert_eq!(t.longest().text.chars().count(), 10);
        assert!(t.longest().text.starts_with("全市"));
        assert!(has_stray_braces("a{{b") && has_stray_braces("a}}") && !has_stray_braces("{{a}}"));
    }
}
