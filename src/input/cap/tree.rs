//! XML → a small tree of CAP elements, or a refusal (R41).
//!
//! Whatever XML can do beyond elements and text is refused where it begins: a DTD, an entity, a
//! processing instruction, another namespace, another encoding. What browsers are told by (`xml-stylesheet`) and all
//! that stands in a signature is read over. No file and no address is opened, and what is built is bounded before it is
//! built.

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesDecl, BytesRef, BytesStart, Event};
use quick_xml::name::{Namespace, NamespaceResolver, ResolveResult};
use quick_xml::reader::NsReader;

use super::{NAMESPACE, Read, Refused, brief, malformed};
use crate::core::words::{Words, words};

/// An element of the CAP namespace.
#[derive(Debug)]
pub(super) struct Element {
    pub name: &'static str,
    /// All its text, as written.
    pub text: String,
    pub children: Vec<Element>,
}

/// R41; a CAP element stands at most four deep, one of a signature at most ten.
const MOST_DEPTH: usize = 32;
/// Five areas for each street of Shanghai, in three languages, are fewer.
const MOST_ELEMENTS: usize = 20_000;
const MOST_ATTRIBUTES: usize = 16;
/// Of one element: `xsi:schemaLocation` and some namespaces.
const MOST_ATTRIBUTE_BYTES: usize = 4096;

/// Every element of CAP 1.2.
const KNOWN: [&str; 50] = [
    "alert",
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
    "resourceDesc",
    "mimeType",
    "size",
    "uri",
    "derefUri",
    "digest",
    "area",
    "areaDesc",
    "polygon",
    "circle",
    "geocode",
    "altitude",
    "ceiling",
    "valueName",
    "value",
];

/// What may stand within a signature: its own elements, and those of the usual canonical form.
const OF_SIGNATURES: [&str; 4] = [
    "http://www.w3.org/2000/09/xmldsig#",
    "http://www.w3.org/2009/xmldsig11#",
    "http://www.w3.org/2001/10/xml-exc-c14n#",
    "http://www.w3.org/2002/06/xmldsig-filter2",
];

const XINCLUDE: &str = "http://www.w3.org/2001/XInclude";

/// Whose word an element is.
enum Whose {
    Cap,
    Signature,
    /// Nobody's here; within a signature whatever its maker put there (a timestamp, its policy) is read over.
    Other(Words),
    /// It would have something fetched.
    Includes(Words),
}

/// The text of a document in UTF-8, with one kind of line end, and of characters that XML allows.
pub(super) fn text(bytes: &[u8]) -> Read<String> {
    let zeros = bytes.iter().take(4).any(|byte| *byte == 0);
    if zeros || bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(other_encoding("UTF-16"));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let at = error.valid_up_to();
            let declared = declared(bytes).filter(|name| !is_utf8(name));
            return Err(declared.map_or_else(
                || malformed(words!("第 {at} 个字节起不是 UTF-8", "not UTF-8 from byte {at} on")),
                |name| other_encoding(&name),
            ));
        }
    };
    if let Some((at, c)) = text.char_indices().find(|(_, c)| !is_xml(*c)) {
        let code = u32::from(c);
        let said = words!("XML 不允许字符 U+{code:04X}", "XML does not allow the character U+{code:04X}");
        return Err(malformed(at_line(text, at, &said)));
    }
    Ok(if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text.to_owned() })
}

/// The encoding the first bytes claim; the document cannot be read, so this is looked for as text.
fn declared(bytes: &[u8]) -> Option<String> {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    let rest = start.split_once("encoding")?.1.trim_start().strip_prefix('=')?.trim_start();
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    Some(rest[1..].split(quote).next()?.to_owned())
}

/// What is written in ASCII is written in UTF-8 too.
fn is_utf8(name: &str) -> bool {
    ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

fn other_encoding(name: &str) -> Refused {
    let safe = brief(name);
    malformed(words!("编码是 {safe}：预警须为 UTF-8", "the encoding is {safe}: an alert has to be UTF-8"))
}

/// A `Char` of XML 1.0.
pub(super) fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

fn at_line(text: &str, byte: usize, said: &Words) -> Words {
    let before = text.as_bytes().get(..byte).unwrap_or(text.as_bytes());
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let Words { zh, en } = said;
    words!("第 {line} 行：{zh}", "line {line}: {en}")
}

/// The root of a document, which is one `alert` of CAP 1.2.
pub(super) fn parse(text: &str) -> Read<Element> {
    let mut reader = NsReader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    reader.config_mut().check_comments = true;
    let mut growing = Growing { root: None, open: Vec::new(), in_signature: 0, elements: 0, events: 0 };
    loop {
        let step = match reader.read_resolved_event() {
            Ok((namespace, event)) => {
                let whose = whose(&namespace);
                growing.take(whose, event, reader.resolver())
            }
            Err(error) => {
                let safe = brief(&error.to_string());
                Err(malformed(words!("不是正确的 XML：{safe}", "not well-formed XML: {safe}")))
            }
        };
        match step {
            Ok(true) => {}
            Ok(false) => break,
            Err(refused) => {
                let at = usize::try_from(reader.buffer_position()).unwrap_or(text.len());
                return Err(Refused { words: at_line(text, at, &refused.words), ..refused });
            }
        }
    }
    growing.root.ok_or_else(|| malformed(Words::new("里面没有预警", "there is no alert in it")))
}

fn whose(namespace: &ResolveResult<'_>) -> Whose {
    let said = match namespace {
        ResolveResult::Bound(Namespace(NAMESPACE)) => return Whose::Cap,
        ResolveResult::Bound(Namespace(name)) if OF_SIGNATURES.contains(name) => return Whose::Signature,
        ResolveResult::Bound(Namespace(name)) => {
            let safe = brief(name);
            match old_version(name) {
                Some(version) => words!("这是 CAP {version}：请用 CAP 1.2", "this is CAP {version}: send CAP 1.2"),
                None => words!("命名空间 `{safe}` 不属于 CAP 1.2", "the namespace `{safe}` is not CAP 1.2's"),
            }
        }
        ResolveResult::Unbound => words!(
            "元素没有命名空间：CAP 1.2 的是 `{NAMESPACE}`",
            "an element is in no namespace: CAP 1.2's is `{NAMESPACE}`"
        ),
        ResolveResult::Unknown(prefix) => {
            let safe = brief(prefix);
            words!("前缀 `{safe}` 没有声明", "the prefix `{safe}` is not declared")
        }
    };
    match namespace {
        ResolveResult::Bound(Namespace(XINCLUDE)) => Whose::Includes(said),
        _ => Whose::Other(said),
    }
}

fn old_version(namespace: &str) -> Option<&'static str> {
    match namespace {
        "urn:oasis:names:tc:emergency:cap:1.1" => Some("1.1"),
        "http://www.incident.com/cap/1.0" | "urn:oasis:names:tc:emergency:cap:1.0" => Some("1.0"),
        _ => None,
    }
}

/// The tree while it is read.
struct Growing {
    root: Option<Element>,
    open: Vec<Element>,
    /// How deep within a signature, which is read over.
    in_signature: usize,
    elements: usize,
    events: usize,
}

impl Growing {
    /// Takes the next event; false at the end of the document.
    fn take(&mut self, whose: Whose, event: Event<'_>, resolver: &NamespaceResolver) -> Read<bool> {
        self.events += 1;
        match event {
            Event::Start(start) => {
                attributes(&start, resolver)?;
                self.start(whose, &start)?;
            }
            // With `expand_empty_elements` it comes as a start and an end.
            Event::Empty(_) => return Err(malformed(Words::new("不是正确的 XML", "not well-formed XML"))),
            Event::End(_) => self.end(),
            Event::Text(text) if text.contains("]]>") => {
                return Err(malformed(Words::new("文字里不能有 `]]>`", "text must not have `]]>` in it")));
            }
            Event::Text(text) => self.text(&text)?,
            Event::CData(text) if self.open.is_empty() => return Err(outside(&text)),
            Event::CData(text) => self.text(&text)?,
            Event::GeneralRef(name) if self.open.is_empty() => return Err(outside(&name)),
            Event::GeneralRef(name) => self.text(resolved(&name)?.encode_utf8(&mut [0; 4]))?,
            Event::Comment(_) => {}
            Event::Decl(decl) if self.events == 1 => declaration(&decl)?,
            Event::Decl(_) => {
                return Err(malformed(Words::new("XML 声明须在最前", "the XML declaration has to come first")));
            }
            Event::PI(pi) if pi.target() == "xml-stylesheet" && self.open.is_empty() => {}
            Event::PI(pi) => {
                let safe = brief(pi.target());
                return Err(malformed(words!(
                    "不允许处理指令 `{safe}`",
                    "processing instructions such as `{safe}` are not allowed"
                )));
            }
            Event::DocType(_) => {
                return Err(malformed(Words::new(
                    "不允许 DTD 和自定义实体",
                    "a DTD is not allowed, nor entities of its own",
                )));
            }
            Event::Eof if self.open.is_empty() => return Ok(false),
            Event::Eof => {
                return Err(malformed(Words::new("文件不完整：元素没有结束", "the document ends within an element")));
            }
        }
        Ok(true)
    }

    fn start(&mut self, whose: Whose, start: &BytesStart<'_>) -> Read<()> {
        self.elements += 1;
        if self.open.len() + self.in_signature >= MOST_DEPTH {
            return Err(malformed(words!("嵌套超过 {MOST_DEPTH} 层", "nested deeper than {MOST_DEPTH}")));
        }
        if self.elements > MOST_ELEMENTS {
            return Err(malformed(words!("元素超过 {MOST_ELEMENTS} 个", "more than {MOST_ELEMENTS} elements")));
        }
        if self.root.is_some() {
            return Err(malformed(Words::new(
                "一次只能有一个预警",
                "there is more than one root: send one alert at a time",
            )));
        }
        let (local, top) = (start.local_name().into_inner(), self.open.is_empty());
        let safe = brief(local);
        // quick-xml takes whatever stands there for a name, even half of another element.
        if !start.name().into_inner().chars().all(|c| c.is_alphanumeric() || matches!(c, ':' | '-' | '_' | '.')) {
            return Err(malformed(words!("`{safe}` 不能作元素名", "`{safe}` cannot name an element")));
        }
        match whose {
            Whose::Signature | Whose::Other(_) if self.in_signature > 0 => self.in_signature += 1,
            Whose::Other(said) | Whose::Includes(said) => return Err(malformed(said)),
            Whose::Signature if self.open.len() == 1 && local == "Signature" => self.in_signature = 1,
            Whose::Cap if self.in_signature == 0 && (!top || local == "alert") => {
                let Some(name) = KNOWN.iter().find(|known| **known == local) else {
                    let words = words!("CAP 1.2 没有 <{safe}>", "CAP 1.2 has no <{safe}>");
                    return Err(Refused { field: None, malformed: false, words });
                };
                self.open.push(Element { name, text: String::new(), children: Vec::new() });
            }
            Whose::Cap | Whose::Signature if top => {
                return Err(malformed(words!("根元素是 <{safe}>，应为 <alert>", "the root is <{safe}>, not <alert>")));
            }
            Whose::Cap | Whose::Signature => {
                return Err(malformed(words!("这里不能有 <{safe}>", "<{safe}> cannot stand here")));
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        if self.in_signature > 0 {
            self.in_signature -= 1;
            return;
        }
        let element = self.open.pop().expect("the reader matches every end with its start");
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.root = Some(element),
        }
    }

    fn text(&mut self, text: &str) -> Read<()> {
        match self.open.last_mut() {
            Some(_) if self.in_signature > 0 => {}
            Some(element) => element.text.push_str(text),
            None if text.chars().all(|c| matches!(c, ' ' | '\t' | '\n')) => {}
            None => return Err(outside(text)),
        }
        Ok(())
    }
}

fn outside(text: &str) -> Refused {
    let safe = brief(text.trim());
    malformed(words!("预警之外有 `{safe}`", "`{safe}` stands outside the alert"))
}

/// Nothing in CAP has attributes; those that XML itself knows are well formed, few, and otherwise ignored.
fn attributes(start: &BytesStart<'_>, resolver: &NamespaceResolver) -> Read<()> {
    let bad = || malformed(Words::new("属性写法不对", "an attribute is not well-formed"));
    let raw = start.attributes_raw();
    if raw.len() > MOST_ATTRIBUTE_BYTES {
        let size = raw.len();
        return Err(malformed(words!("一个元素的属性有 {size} 字节", "one element has {size} bytes of attributes")));
    }
    for (n, attribute) in start.attributes().enumerate() {
        let attribute = attribute.map_err(|_| bad())?;
        if n >= MOST_ATTRIBUTES {
            return Err(malformed(words!(
                "一个元素的属性超过 {MOST_ATTRIBUTES} 个",
                "one element has more than {MOST_ATTRIBUTES} attributes"
            )));
        }
        let declared = !matches!(resolver.resolve_attribute(attribute.key).0, ResolveResult::Unknown(_));
        if !declared || attribute.value.contains('<') {
            return Err(bad());
        }
        attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|_| bad())?;
    }
    Ok(())
}

/// The character an `&…;` stands for: one of the five of XML, or a number.
fn resolved(name: &BytesRef<'_>) -> Read<char> {
    let number = name.resolve_char_ref().ok().flatten();
    let found = number.or_else(|| resolve_predefined_entity(name)?.chars().next());
    found.filter(|c| is_xml(*c)).ok_or_else(|| {
        let safe = brief(name);
        malformed(words!("没有实体 `&{safe};`", "there is no entity `&{safe};`"))
    })
}

fn declaration(decl: &BytesDecl<'_>) -> Read<()> {
    let bad = || malformed(Words::new("XML 声明写法不对", "the XML declaration is not well-formed"));
    if decl.version().map_err(|_| bad())? != "1.0" {
        return Err(malformed(Words::new("须为 XML 1.0", "it has to be XML 1.0")));
    }
    match decl.encoding() {
        None => Ok(()),
        Some(name) => {
            let name = name.map_err(|_| bad())?;
            if is_utf8(&name) { Ok(()) } else { Err(other_encoding(&name)) }
        }
    }
}
