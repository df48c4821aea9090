//! A warning as CAP 1.2 carries it (通用警报协议): who warns, of what, where, and until when.
//!
//! Only what the city needs of the standard is here, and what is read from an alert is read from
//! these types alone: the event's code, the colour, the text in the city's language, the regions.
//! Nothing is decided here; who may send at which level is the configuration's.

use serde::{Deserialize, Serialize};

use super::Time;
use super::announcement::Level;
use super::words::is_hidden;

/// An enum whose names are the standard's own words, which are case-sensitive.
macro_rules! words_of_the_standard {
    ($($(#[$doc:meta])* $name:ident { $($word:ident),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($word),+
        }
        impl $name {
            pub const ALL: &[$name] = &[$($name::$word),+];

            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$word => stringify!($word)),+
                }
            }
        }
    )+};
}

words_of_the_standard! {
    /// Whether it is meant; only `Actual` ever is.
    Status { Actual, Exercise, System, Test, Draft }
    MsgType { Alert, Update, Cancel, Ack, Error }
    Scope { Public, Restricted, Private }
    Category { Geo, Met, Safety, Security, Rescue, Fire, Health, Env, Transport, Infra, CBRNE, Other }
    /// What people are told to do.
    Response { Shelter, Evacuate, Prepare, Execute, Avoid, Monitor, Assess, AllClear, None }
    Urgency { Immediate, Expected, Future, Past, Unknown }
    Severity { Extreme, Severe, Moderate, Minor, Unknown }
    Certainty { Observed, Likely, Possible, Unlikely, Unknown }
}

/// A name and its value, as `eventCode`, `parameter` and `geocode` have them.
pub type Named = (String, String);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// With `sender` and `sent` the name of this message among all.
    pub identifier: String,
    pub sender: String,
    pub sent: Time,
    pub status: Status,
    pub kind: MsgType,
    pub source: Option<String>,
    pub scope: Scope,
    pub note: Option<String>,
    /// Never empty for an `Update` or a `Cancel` that was read.
    pub references: Vec<Reference>,
    /// One for each language; a `Cancel` may have none.
    pub infos: Vec<Info>,
}

/// An earlier message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reference {
    pub sender: String,
    pub identifier: String,
    pub sent: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// `None` means `en-US`.
    pub language: Option<String>,
    /// At least one, when it was read.
    pub category: Vec<Category>,
    pub event: String,
    pub response: Vec<Response>,
    pub urgency: Urgency,
    pub severity: Severity,
    pub certainty: Certainty,
    pub event_codes: Vec<Named>,
    pub effective: Option<Time>,
    pub onset: Option<Time>,
    pub expires: Option<Time>,
    pub sender_name: Option<String>,
    pub headline: Option<String>,
    pub description: Option<String>,
    pub instruction: Option<String>,
    pub web: Option<String>,
    pub contact: Option<String>,
    pub parameters: Vec<Named>,
    pub areas: Vec<Area>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Area {
    pub desc: String,
    pub geocodes: Vec<Named>,
    /// As written: fabu chooses accounts by code, and draws nothing.
    pub polygons: Vec<String>,
    pub circles: Vec<String>,
}

/// What an alert without a language is written in, by the standard.
const UNSAID_LANGUAGE: &str = "en-US";

impl Alert {
    /// The info in the city's language: the same tag, one that begins with the other, the same first part, or the first.
    pub fn chosen(&self, language: &str) -> Option<&Info> {
        let fit = |info: &&Info| likeness(info.language.as_deref().unwrap_or(UNSAID_LANGUAGE), language);
        // `max_by_key` takes the last of equals; what stands first in the alert is to win.
        self.infos.iter().rev().max_by_key(fit)
    }

    /// The infos in the language of this one, it among them.
    pub fn alike(&self, info: &Info) -> impl Iterator<Item = &Info> {
        let language = |info: &Info| info.language.as_deref().unwrap_or(UNSAID_LANGUAGE).to_ascii_lowercase();
        let its = language(info);
        self.infos.iter().filter(move |other| language(other) == its)
    }

    /// When the last of its infos ends; `None` when one of them says no end.
    pub fn expires(&self) -> Option<Time> {
        let ends: Option<Vec<Time>> = self.infos.iter().map(|info| info.expires).collect();
        ends?.into_iter().max()
    }

    /// What another message calls this one.
    pub fn reference(&self) -> Reference {
        Reference { sender: self.sender.clone(), identifier: self.identifier.clone(), sent: self.sent }
    }
}

impl Info {
    /// The code of the event by GB/T 35965 (`11B03`), or the first code of any kind.
    pub fn event_code(&self) -> Option<&str> {
        let ours = self.event_codes.iter().find(|(name, _)| is_of(name, "GBT35965"));
        ours.or(self.event_codes.first()).map(|(_, code)| code.as_str())
    }

    /// The colour of the warning: the one a parameter names (the gravest of several), else by severity.
    ///
    /// No standard gives CAP a parameter for China's colours, so the usual names are known. The
    /// national warning platform (12379, GB/T 34283) has none: its own XML, which resembles CAP but
    /// is in no namespace, puts `Red`, `Orange`, `Yellow` or `Blue` into `severity` (a warning of
    /// Henan's meteorological bureau of 2020-02-05, in `UtilJsonAndXmlTest.java` of the repository
    /// with the package `org.yyx.xf`). Translated to CAP these are its four severities, as here.
    pub fn level(&self) -> Option<Level> {
        let named = self.parameters.iter().filter(|(name, _)| names_a_colour(name));
        // `Level` orders red first.
        named.filter_map(|(_, value)| colour(value)).min().or(match self.severity {
            Severity::Extreme => Some(Level::Red),
            Severity::Severe => Some(Level::Orange),
            Severity::Moderate => Some(Level::Yellow),
            Severity::Minor => Some(Level::Blue),
            Severity::Unknown => None,
        })
    }

    /// The GB/T 2260 codes of its areas, each once, in their order.
    ///
    /// The national platform writes several into one value, and each with the six zeros of a street
    /// that is not named (`310000000000`): both are read.
    pub fn area_codes(&self) -> Vec<&str> {
        let geocodes = self.areas.iter().flat_map(|area| &area.geocodes);
        let values = geocodes.filter(|(name, _)| is_of(name, "GBT2260")).map(|(_, value)| value.as_str());
        let mut codes = Vec::new();
        for code in values.flat_map(|v| v.split([',', '，', ';', ' '])).map(str::trim).filter(|c| !c.is_empty()) {
            let code = code.strip_suffix("000000").filter(|short| short.len() == 6).unwrap_or(code);
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
        codes
    }

    /// The areas in words, as a template shows them: 浦东新区、徐汇区.
    pub fn area_text(&self) -> String {
        self.areas.iter().map(|area| area.desc.as_str()).collect::<Vec<_>>().join("、")
    }
}

/// Whether a text can be an `identifier` or a `sender`: references are written with blanks and commas between them.
pub fn is_name(text: &str) -> bool {
    /// No alerting authority has a longer one.
    const MOST: usize = 256;
    let fine = |c: char| !c.is_whitespace() && !is_hidden(c) && !matches!(c, ',' | '<' | '&');
    !text.is_empty() && text.chars().count() <= MOST && text.chars().all(fine)
}

/// How well a BCP 47 tag fits the wanted one.
fn likeness(tag: &str, wanted: &str) -> u8 {
    let (tag, wanted) = (tag.to_ascii_lowercase(), wanted.to_ascii_lowercase());
    let begins = |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('-'));
    if tag == wanted {
        3
    } else if begins(&tag, &wanted) || begins(&wanted, &tag) {
        2
    } else {
        u8::from(tag.split('-').next() == wanted.split('-').next())
    }
}

/// Whether a `valueName` names a standard: `GB/T 35965.1`, `GB/T35965.1-2018`, `gbt 35965`.
fn is_of(name: &str, standard: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
    plain.starts_with(standard)
}

fn names_a_colour(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    matches!(
        plain.as_str(),
        "colour"
            | "color"
            | "alertcolour"
            | "alertcolor"
            | "warningcolour"
            | "warningcolor"
            | "signalcolour"
            | "signalcolor"
            | "severitycolour"
            | "severitycolor"
            | "颜色"
            | "预警颜色"
            | "信号颜色"
            | "预警信号颜色"
    )
}

fn colour(value: &str) -> Option<Level> {
    match value.trim().to_lowercase().as_str() {
        "red" | "红" | "红色" => Some(Level::Red),
        "orange" | "橙" | "橙色" => Some(Level::Orange),
        "yellow" | "黄" | "黄色" => Some(Level::Yellow),
        "blue" | "蓝" | "蓝色" => Some(Level::Blue),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(language: Option<&str>) -> Info {
        Info {
            language: language.map(str::to_owned),
            category: vec![Category::Met],
            event: "暴雨".to_owned(),
            response: Vec::new(),
            urgency: Urgency::Immediate,
            severity: Severity::Unknown,
            certainty: Certainty::Likely,
            event_codes: Vec::new(),
            effective: None,
            onset: None,
            expires: None,
            sender_name: None,
            headline: None,
            description: None,
            instruction: None,
            web: None,
            contact: None,
            parameters: Vec::new(),
            areas: Vec::new(),
        }
    }

    fn alert(infos: Vec<Info>) -> Alert {
        Alert {
            identifier: "a".to_owned(),
            sender: "b".to_owned(),
            sent: at(0),
            status: Status::Actual,
            kind: MsgType::Alert,
            source: None,
            scope: Scope::Public,
            note: None,
            references: Vec::new(),
            infos,
        }
    }

    fn at(second: i64) -> Time {
        Time::from_timestamp(second, 0).unwrap()
    }

    fn named(pairs: &[(&str, &str)]) -> Vec<Named> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_citys_language_is_chosen_and_else_the_first() {
        let tags = |tags: &[Option<&str>], wanted: &str| {
            let alert = alert(tags.iter().map(|tag| info(*tag)).collect());
            alert.chosen(wanted).unwrap().language.clone()
        };
        let zh = Some("zh-CN".to_owned());
        assert_eq!(tags(&[Some("en"), Some("zh-CN")], "zh-CN"), zh);
        assert_eq!(tags(&[Some("en"), Some("zh-CN")], "zh"), zh);
        assert_eq!(tags(&[Some("zh"), Some("zh-CN")], "zh-CN"), zh);
        assert_eq!(tags(&[Some("en"), Some("ZH")], "zh-CN"), Some("ZH".to_owned()));
        assert_eq!(tags(&[Some("zho"), Some("zh-TW")], "zh-CN"), Some("zh-TW".to_owned()));
        assert_eq!(tags(&[None, Some("zh-CN")], "en"), None, "without a tag it is American English");
        assert_eq!(tags(&[Some("fr"), Some("de")], "zh-CN"), Some("fr".to_owned()));
        assert_eq!(alert(Vec::new()).chosen("zh-CN"), None);
    }

    #[test]
    fn it_ends_with_the_last_of_its_infos() {
        let with = |ends: &[Option<i64>]| {
            let infos = ends.iter().map(|end| Info { expires: end.map(at), ..info(None) });
            alert(infos.collect()).expires()
        };
        assert_eq!(with(&[Some(5), Some(9), Some(7)]), Some(at(9)));
        assert_eq!(with(&[Some(5), None]), None);
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn the_colour_is_the_parameters_and_else_the_severitys() {
        let level =
            |pairs: &[(&str, &str)], severity| Info { parameters: named(pairs), severity, ..info(None) }.level();
        for (name, value, expected) in [
            ("colour", "red", Level::Red),
            ("Color", "RED", Level::Red),
            ("ALERT_COLOR", "Orange", Level::Orange),
            ("预警颜色", "黄色", Level::Yellow),
            ("预警颜色", "蓝", Level::Blue),
        ] {
            assert_eq!(level(&[(name, value)], Severity::Unknown), Some(expected), "{name} {value}");
        }
        assert_eq!(level(&[("colour", "blue"), ("颜色", "红")], Severity::Minor), Some(Level::Red), "the gravest");
        assert_eq!(level(&[("colour", "purple"), ("collar", "red")], Severity::Minor), Some(Level::Blue));
        assert_eq!(level(&[], Severity::Extreme), Some(Level::Red));
        assert_eq!(level(&[], Severity::Severe), Some(Level::Orange));
        assert_eq!(level(&[], Severity::Moderate), Some(Level::Yellow));
        assert_eq!(level(&[], Severity::Unknown), None);
    }

    #[test]
    fn codes_are_found_by_the_name_of_their_standard() {
        let code =
            |pairs: &[(&str, &str)]| Info { event_codes: named(pairs), ..info(None) }.event_code().map(str::to_owned);
        assert_eq!(code(&[("SAME", "FFW"), ("GB/T 35965.1", "11B03")]).as_deref(), Some("11B03"));
        assert_eq!(code(&[("SAME", "FFW"), ("gb/t35965.1-2018", "11B03")]).as_deref(), Some("11B03"));
        assert_eq!(code(&[("SAME", "FFW"), ("OET", "x")]).as_deref(), Some("FFW"));
        assert_eq!(code(&[]), None);

        let area = |desc: &str, pairs: &[(&str, &str)]| Area {
            desc: desc.to_owned(),
            geocodes: named(pairs),
            polygons: Vec::new(),
            circles: Vec::new(),
        };
        let areas = vec![
            area("浦东新区", &[("GB/T 2260", "310115"), ("UN/LOCODE", "CNSHA")]),
            area("徐汇区", &[("GB/T 2260-2007", "310104000000,310115"), ("GB/T 2260", "310115001")]),
        ];
        let info = Info { areas, ..info(None) };
        assert_eq!(info.area_codes(), ["310115", "310104", "310115001"]);
        assert_eq!(info.area_text(), "浦东新区、徐汇区");
    }

    #[test]
    fn a_name_could_stand_in_a_reference() {
        for good in ["shanghai@weather.example", "31000041600000_20261201153000_0", "urn:oid:2.49.0", "上海"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a b", "a,b", "a<b", "a&b", "a\u{200b}b", "a\nb", &"x".repeat(257)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
