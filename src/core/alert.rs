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
        let language = |info: &Info| tag(info.language.as_deref().unwrap_or(UNSAID_LANGUAGE));
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

    /// The colour of the warning: the one a parameter names (the gravest of several), else by severity. An error is the
    /// words of which nobody can say what colour they mean: a lower level would be a guess.
    ///
    /// No standard gives CAP a parameter for China's colours, so the usual names are known. The
    /// national warning platform (12379, GB/T 34283) has none: its own XML, which resembles CAP but
    /// is in no namespace, puts `Red`, `Orange`, `Yellow` or `Blue` into `severity` (a warning of
    /// Henan's meteorological bureau of 2020-02-05, in `UtilJsonAndXmlTest.java` of the repository
    /// with the package `org.yyx.xf`). Translated to CAP these are its four severities, as here.
    pub fn level(&self) -> Result<Option<Level>, &str> {
        let mut named = Vec::new();
        for (name, value) in &self.parameters {
            match (of_a_level(name), colours(value).as_slice()) {
                (Some(_), [Some(level)]) => named.push(*level),
                (Some(Of::Colour), _) | (Some(Of::Level), [_, ..]) => return Err(value),
                _ => {}
            }
        }
        // `Level` orders red first.
        if let Some(gravest) = named.into_iter().min() {
            return Ok(Some(gravest));
        }
        let by_severity = match self.severity {
            Severity::Extreme => Some(Level::Red),
            Severity::Severe => Some(Level::Orange),
            Severity::Moderate => Some(Level::Yellow),
            Severity::Minor => Some(Level::Blue),
            Severity::Unknown => None,
        };
        // Its own words may call it graver than its severity does.
        for text in self.headline.iter().chain([&self.event]) {
            let called = called(text);
            let is_graver = called.iter().any(|level| by_severity.is_none_or(|by| *level < by));
            if is_graver && by_severity.is_none_or(|by| !called.contains(&by)) {
                return Err(text);
            }
        }
        Ok(by_severity)
    }

    /// One that has ended warns of nothing any more.
    pub fn is_in_force(&self, now: Time) -> bool {
        self.expires.is_none_or(|end| end > now)
    }

    /// Whether it says that the danger is over; an error where it tells people to do something besides.
    pub fn ends(&self) -> Result<bool, Response> {
        use Response::{AllClear, Avoid, Evacuate, Execute, Prepare, Shelter};
        let acts = [Shelter, Evacuate, Prepare, Execute, Avoid];
        match (self.response.contains(&AllClear), self.response.iter().find(|asked| acts.contains(asked))) {
            (true, Some(asked)) => Err(*asked),
            (ends, _) => Ok(ends),
        }
    }

    /// Whether it says the same as the other, whomever it says it to and until when.
    pub fn says_the_same(&self, other: &Info) -> bool {
        let said = |info: &Info| {
            let texts = [&info.headline, &info.description, &info.instruction, &info.web, &info.sender_name];
            (info.event.clone(), info.event_codes.clone(), texts.map(Clone::clone))
        };
        let told = |info: &Info| (info.severity, info.parameters.clone(), info.response.clone());
        said(self) == said(other) && told(self) == told(other)
    }

    /// The GB/T 2260 codes of its areas, each once, in their order.
    ///
    /// The national platform writes several into one value, and each with the zeros of a street or a village that is
    /// not named (`310000000000`, `310115001000`): both are read.
    pub fn area_codes(&self) -> Vec<&str> {
        let geocodes = self.areas.iter().flat_map(|area| &area.geocodes);
        let values = geocodes.filter(|(name, _)| is_of_regions(name)).map(|(_, value)| value.as_str());
        let mut codes = Vec::new();
        let between = |c: char| c.is_whitespace() || matches!(c, ',' | '，' | ';' | '；' | '、' | '/' | '|');
        for code in values.flat_map(|v| v.split(between)).map(str::trim).filter(|c| !c.is_empty()) {
            let whole = |zeros: &str, rest: usize| code.strip_suffix(zeros).filter(|short| short.len() == rest);
            let code = whole("000000", 6).or(whole("000", 9)).unwrap_or(code);
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

/// A language's tag as BCP 47 has it. Systems write theirs (`zh_CN`) and three letters (ISO 639-2 and 639-3) as well; of
/// what Chinese is made of, what is written is Mandarin.
fn tag(written: &str) -> String {
    let tag = written.trim().to_ascii_lowercase().replace('_', "-");
    let (first, rest) = tag.split_at(tag.find('-').unwrap_or(tag.len()));
    let first = match first {
        "zho" | "chi" | "cmn" => "zh",
        "eng" => "en",
        other => other,
    };
    format!("{first}{rest}")
}

/// How well a language's tag fits the wanted one.
fn likeness(written: &str, wanted: &str) -> u8 {
    let (tag, wanted) = (tag(written), tag(wanted));
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

/// Whether a `valueName` names China's codes of regions: `GB/T 2260`, `GB2260-2007`, `行政区划代码`.
fn is_of_regions(name: &str) -> bool {
    is_of(name, "GBT2260") || is_of(name, "GB2260") || name.contains("行政区划")
}

/// The meaning of a parameter.
enum Of {
    /// Nothing but a colour.
    Colour,
    /// A level, which is a colour here and a number elsewhere.
    Level,
}

fn of_a_level(name: &str) -> Option<Of> {
    let plain: String = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    match plain.as_str() {
        "colour" | "color" | "alertcolour" | "alertcolor" | "warningcolour" | "warningcolor" | "signalcolour"
        | "signalcolor" | "severitycolour" | "severitycolor" | "颜色" | "预警颜色" | "信号颜色" | "预警信号颜色" => {
            Some(Of::Colour)
        }
        // Of Europe's weather services the first (`2; yellow; Moderate`).
        "awarenesslevel" | "alertlevel" | "warninglevel" | "预警级别" | "预警等级" | "预警信号级别" | "级别"
        | "等级" => Some(Of::Level),
        _ => None,
    }
}

/// The colours that a value names, each once; `None` is one that is no level here.
fn colours(value: &str) -> Vec<Option<Level>> {
    let value = value.trim().to_lowercase();
    let single = |c: char| value.chars().eq([c]);
    let words: Vec<&str> = value.split(|c: char| !c.is_ascii_alphabetic()).collect();
    let has = |han: char, english: &str| single(han) || value.contains(&format!("{han}色")) || words.contains(&english);
    // By the law on responding to emergencies (突发事件应对法) the first is red.
    let numbered = |roman: char, han: char| [roman, han].iter().any(|number| value.contains(&format!("{number}级")));
    let levels = [
        (Level::Red, has('红', "red") || numbered('ⅰ', '一')),
        (Level::Orange, has('橙', "orange") || numbered('ⅱ', '二')),
        (Level::Yellow, has('黄', "yellow") || numbered('ⅲ', '三')),
        (Level::Blue, has('蓝', "blue") || numbered('ⅳ', '四')),
    ];
    let mut found: Vec<Option<Level>> =
        levels.into_iter().filter(|(_, is)| *is).map(|(level, _)| Some(level)).collect();
    let others = [('白', "white"), ('绿', "green"), ('紫', "purple"), ('灰', "grey"), ('黑', "black")];
    if others.iter().any(|(han, english)| has(*han, english)) {
        found.push(None);
    }
    found
}

/// The levels by which a headline calls its warning: 暴雨橙色预警, Red Warning.
fn called(text: &str) -> Vec<Level> {
    let lower = text.to_lowercase();
    let is_called = |han: char, english: &str| {
        ["预警", "警报", "警戒", "告警", "信号"].iter().any(|what| lower.contains(&format!("{han}色{what}")))
            || ["warning", "alert"].iter().any(|what| lower.contains(&format!("{english} {what}")))
    };
    let all = [
        (Level::Red, '红', "red"),
        (Level::Orange, '橙', "orange"),
        (Level::Yellow, '黄', "yellow"),
        (Level::Blue, '蓝', "blue"),
    ];
    all.into_iter().filter(|(_, han, english)| is_called(*han, english)).map(|(level, ..)| level).collect()
}

#[cfg(test)]
mod tests;
