//! CAP 1.2 (OASIS, 2010): bytes to an `Alert` and back, bounded and with nothing fetched (R41).
//!
//! What is refused is either no CAP document at all (`malformed`) or one that says nothing possible;
//! in both cases nothing of it is used. Expiry, who may send, and what becomes of a drill are decided
//! by whoever asked. A `Signature` and every `resource` are read over: the first is not checked, the
//! second not fetched, so neither gives an alert any right.

mod tree;
mod write;

use chrono::{DateTime, Datelike as _, TimeDelta};

use self::tree::Element;
pub use self::write::write;
use crate::core::Time;
use crate::core::alert::{
    Alert, Area, Category, Certainty, Info, MsgType, Named, Reference, Response, Scope, Severity, Status, Urgency,
    is_name,
};
use crate::core::words::{Words, shown, words};

/// Why an alert is not taken; nothing of it is used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .words.en)]
pub struct Refused {
    /// The element that is wrong, if one is.
    pub field: Option<&'static str>,
    /// Not a CAP 1.2 document at all, rather than one that says something impossible.
    pub malformed: bool,
    pub words: Words,
}

type Read<T> = Result<T, Refused>;

/// R41: no warning centre writes a larger alert; pictures do not belong into one.
const MOST_BYTES: usize = 1 << 20;
/// One info a language, and no city speaks more.
const MOST_INFOS: usize = 32;
/// Of areas in an info, codes in an area and so on: Shanghai has 16 districts and 215 streets.
const MOST_OF_A_KIND: usize = 1000;

pub(super) const NAMESPACE: &str = "urn:oasis:names:tc:emergency:cap:1.2";

/// Reads one alert.
pub fn read(bytes: &[u8]) -> Read<Alert> {
    if bytes.len() > MOST_BYTES {
        let size = bytes.len();
        return Err(malformed(words!(
            "预警有 {size} 字节，上限 1 MiB",
            "the alert has {size} bytes, the limit is 1 MiB"
        )));
    }
    alert(&tree::parse(&tree::text(bytes)?)?)
}

fn malformed(words: Words) -> Refused {
    Refused { field: None, malformed: true, words }
}

fn impossible(field: &'static str, words: Words) -> Refused {
    Refused { field: Some(field), malformed: false, words }
}

fn alert(of: &Element) -> Read<Alert> {
    of.only(&[
        "identifier",
        "sender",
        "sent",
        "status",
        "msgType",
        "source",
        "scope",
        "restriction",
        "addresses",
        "code",
        "note",
        "references",
        "incidents",
        "info",
    ])?;
    let kind = of.word("msgType", MsgType::ALL, MsgType::as_str)?;
    let references = of.one("references")?.map(references).transpose()?.unwrap_or_default();
    if references.is_empty() && matches!(kind, MsgType::Update | MsgType::Cancel) {
        let kind = kind.as_str();
        let said =
            words!("{kind} 须在 <references> 中指明原预警", "`{kind}` has to name the alert it means in <references>");
        return Err(impossible("references", said));
    }
    Ok(Alert {
        identifier: name("identifier", of.need("identifier")?)?,
        sender: name("sender", of.need("sender")?)?,
        sent: instant("sent", of.need("sent")?)?,
        status: of.word("status", Status::ALL, Status::as_str)?,
        kind,
        source: of.optional("source")?,
        scope: of.word("scope", Scope::ALL, Scope::as_str)?,
        note: of.optional("note")?,
        references,
        infos: of.each("info", MOST_INFOS, info)?,
    })
}

fn info(of: &Element) -> Read<Info> {
    of.only(&[
        "language",
        "category",
        "event",
        "responseType",
        "urgency",
        "severity",
        "certainty",
        "audience",
        "eventCode",
        "effective",
        "onset",
        "expires",
        "senderName",
        "headline",
        "description",
        "instruction",
        "web",
        "contact",
        "parameter",
        "resource",
        "area",
    ])?;
    let category = of.each("category", MOST_OF_A_KIND, |e| e.as_word("category", Category::ALL, Category::as_str))?;
    if category.is_empty() {
        return Err(missing("category"));
    }
    let time = |field| of.one(field)?.map(|text| instant(field, text)).transpose();
    Ok(Info {
        language: of.optional("language")?,
        category,
        event: of.need("event")?.to_owned(),
        response: of
            .each("responseType", MOST_OF_A_KIND, |e| e.as_word("responseType", Response::ALL, Response::as_str))?,
        urgency: of.word("urgency", Urgency::ALL, Urgency::as_str)?,
        severity: of.word("severity", Severity::ALL, Severity::as_str)?,
        certainty: of.word("certainty", Certainty::ALL, Certainty::as_str)?,
        event_codes: of.each("eventCode", MOST_OF_A_KIND, named)?,
        effective: time("effective")?,
        onset: time("onset")?,
        expires: time("expires")?,
        sender_name: of.optional("senderName")?,
        headline: of.optional("headline")?,
        description: of.optional("description")?,
        instruction: of.optional("instruction")?,
        web: of.optional("web")?,
        contact: of.optional("contact")?,
        parameters: of.each("parameter", MOST_OF_A_KIND, named)?,
        areas: of.each("area", MOST_OF_A_KIND, area)?,
    })
}

fn area(of: &Element) -> Read<Area> {
    of.only(&["areaDesc", "polygon", "circle", "geocode", "altitude", "ceiling"])?;
    Ok(Area {
        desc: of.need("areaDesc")?.to_owned(),
        geocodes: of.each("geocode", MOST_OF_A_KIND, named)?,
        polygons: of.texts("polygon")?,
        circles: of.texts("circle")?,
    })
}

/// A `valueName` and its `value`. Either may be empty: the one in forms that are filled in for all kinds of events, the
/// other in parameters that are switched off.
fn named(of: &Element) -> Read<Named> {
    let parts = ["valueName", "value"];
    of.only(&parts)?;
    if let Some(part) = parts.into_iter().find(|part| !of.children.iter().any(|child| child.name == *part)) {
        return Err(missing(part));
    }
    Ok((of.optional("valueName")?.unwrap_or_default(), of.optional("value")?.unwrap_or_default()))
}

fn references(text: &str) -> Read<Vec<Reference>> {
    let all: Vec<&str> = text.split_whitespace().collect();
    too_many("references", all.len(), MOST_OF_A_KIND)?;
    all.into_iter().map(reference).collect()
}

fn reference(text: &str) -> Read<Reference> {
    let parts: Vec<&str> = text.split(',').collect();
    let [sender, identifier, sent] = parts[..] else {
        let safe = brief(text);
        let said = words!(
            "`{safe}` 不是引用：应为 sender,identifier,sent",
            "`{safe}` is no reference: write sender,identifier,sent"
        );
        return Err(impossible("references", said));
    };
    Ok(Reference {
        sender: name("references", sender)?,
        identifier: name("references", identifier)?,
        sent: instant("references", sent)?,
    })
}

fn name(field: &'static str, text: &str) -> Read<String> {
    if is_name(text) {
        return Ok(text.to_owned());
    }
    let safe = brief(text);
    Err(impossible(
        field,
        words!(
            "`{safe}` 不能作标识：不得含空白、`,`、`<`、`&`，不超过 256 字",
            "`{safe}` cannot be a name: no blanks, `,`, `<` or `&` in it, and 256 characters at most"
        ),
    ))
}

fn instant(field: &'static str, text: &str) -> Read<Time> {
    let safe = brief(text);
    time(text).ok_or_else(|| {
        let said = words!(
            "`{safe}` 不是带时区的时间：如 2026-12-01T15:30:00+08:00",
            "`{safe}` is no time with an offset: write 2026-12-01T15:30:00+08:00"
        );
        impossible(field, said)
    })
}

/// An `xs:dateTime` with its offset; `-00:00` is how CAP writes UTC.
///
/// The standard has neither `Z` nor fractions of a second. Both are read, since they are clear and
/// many programs write them; an alert is not to be lost to its punctuation. `T24:00:00` is the midnight that ends a day.
pub(crate) fn time(text: &str) -> Option<Time> {
    let shape = |at: usize, c: u8| text.as_bytes().get(at) == Some(&c);
    let digits = text.get(..4)?.bytes().all(|b| b.is_ascii_digit());
    // RFC 3339 lets a blank stand for the T, and a leap second be; `xs:dateTime` does not.
    if !text.is_ascii() || !digits || !shape(10, b'T') || text.get(17..19)? == "60" || text.ends_with('z') {
        return None;
    }
    let ends_a_day = text.get(11..19) == Some("24:00:00");
    let day = text.replacen("T24:00:00", "T00:00:00", usize::from(ends_a_day));
    let at = DateTime::parse_from_rfc3339(&day).ok()? + TimeDelta::days(i64::from(ends_a_day));
    /// XML Schema's own bound; no place on earth is farther from UTC.
    const MOST_OFFSET_S: i32 = 14 * 3600;
    let utc = crate::clock::from_micros(at.timestamp_micros());
    let fine = at.offset().local_minus_utc().abs() <= MOST_OFFSET_S && (1970..=9999).contains(&utc.year());
    fine.then_some(utc)
}

fn missing(field: &'static str) -> Refused {
    impossible(field, words!("缺少 <{field}>", "<{field}> is missing"))
}

fn too_many(field: &'static str, many: usize, most: usize) -> Read<()> {
    if many <= most {
        return Ok(());
    }
    Err(impossible(
        field,
        words!("<{field}> 有 {many} 个，上限 {most}", "there are {many} <{field}>, the limit is {most}"),
    ))
}

/// A value for a message: safe to show, and not the whole of a long one.
fn brief(text: &str) -> String {
    shown(&text.chars().take(60).collect::<String>())
}

impl Element {
    /// Refuses what does not belong into an element that holds others.
    fn only(&self, known: &[&str]) -> Read<()> {
        let of = self.name;
        if !self.text.trim().is_empty() {
            return Err(impossible(of, words!("<{of}> 里只能有元素，不能有文字", "<{of}> holds elements and no text")));
        }
        match self.children.iter().find(|child| !known.contains(&child.name)) {
            Some(Element { name, .. }) => {
                Err(impossible(name, words!("<{of}> 里没有 <{name}>", "<{of}> has no <{name}> in it")))
            }
            None => Ok(()),
        }
    }

    /// The text of an element that holds no other.
    fn leaf(&self) -> Read<&str> {
        let of = self.name;
        if self.children.is_empty() {
            return Ok(self.text.trim());
        }
        Err(impossible(of, words!("<{of}> 里只能有文字", "<{of}> holds text and no elements")))
    }

    /// The text of the only child of this name; an empty one is none.
    fn one(&self, name: &'static str) -> Read<Option<&str>> {
        let mut all = self.children.iter().filter(|child| child.name == name);
        let first = all.next();
        if all.next().is_some() {
            return Err(impossible(name, words!("<{name}> 重复", "<{name}> is there twice")));
        }
        Ok(first.map(Element::leaf).transpose()?.filter(|text| !text.is_empty()))
    }

    fn optional(&self, name: &'static str) -> Read<Option<String>> {
        Ok(self.one(name)?.map(str::to_owned))
    }

    fn need(&self, name: &'static str) -> Read<&str> {
        self.one(name)?.ok_or_else(|| missing(name))
    }

    fn each<T>(&self, name: &'static str, most: usize, read: impl Fn(&Element) -> Read<T>) -> Read<Vec<T>> {
        let all: Vec<&Element> = self.children.iter().filter(|child| child.name == name).collect();
        too_many(name, all.len(), most)?;
        all.into_iter().map(read).collect()
    }

    /// The texts of all children of this name that are not empty.
    fn texts(&self, name: &'static str) -> Read<Vec<String>> {
        let mut all = self.each(name, MOST_OF_A_KIND, |e| e.leaf().map(str::to_owned))?;
        all.retain(|text| !text.is_empty());
        Ok(all)
    }

    fn word<T: Copy>(&self, name: &'static str, all: &[T], as_str: fn(T) -> &'static str) -> Read<T> {
        one_of(name, self.need(name)?, all, as_str)
    }

    /// This element's own text as one of the standard's words.
    fn as_word<T: Copy>(&self, name: &'static str, all: &[T], as_str: fn(T) -> &'static str) -> Read<T> {
        one_of(name, self.leaf()?, all, as_str)
    }
}

fn one_of<T: Copy>(name: &'static str, text: &str, all: &[T], as_str: fn(T) -> &'static str) -> Read<T> {
    all.iter().copied().find(|word| as_str(*word) == text).ok_or_else(|| {
        let (safe, known) = (brief(text), all.iter().map(|word| as_str(*word)).collect::<Vec<_>>().join(", "));
        impossible(
            name,
            words!("<{name}> 不能是 `{safe}`，应为：{known}", "<{name}> cannot be `{safe}`, but one of: {known}"),
        )
    })
}

#[cfg(test)]
mod tests;
