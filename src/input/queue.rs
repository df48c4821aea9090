//! One queue file → announcements and faults.
//!
//! An entry with a fault of its own is not taken, and its neighbours are. Its id, where it can be
//! read, is remembered: what the ledger has of it stays in force.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use chrono_tz::Tz;

use super::values::{self};
use super::yaml::{self, Kind, Node};
use super::{Fault, Source, images, typed, written};
use crate::core::Time;
use crate::core::accounts::{AccountId, City, Nobody, PlatformName, Selector};
use crate::core::announcement::{Announcement, AnnouncementId, Body, Content, Image, Priority, Variant};
use crate::core::fit;
use crate::core::policy::CatchUp;
use crate::core::template::{DRILL_MARK, stamped};
use crate::core::words::{Words, hidden_in, is_blank, is_hidden, shown, words};

use raw::{RawAnnouncement, RawImage};
pub use raw::{RawQueue, RawSync};

mod raw;
mod timing;

/// What a file is read against.
pub struct Context<'a> {
    /// The queue folder: pictures may not leave it.
    pub root: &'a Path,
    pub zone: Tz,
    pub city: &'a City,
    pub rules: &'a BTreeMap<PlatformName, fit::Rules>,
    /// Posts an account may make in an hour, by platform.
    pub per_hour: &'a BTreeMap<PlatformName, Option<u32>>,
    pub now: Time,
    /// A drill's queue: its texts are stamped as they are read. In a live one the stamp is a fault.
    pub drill: bool,
}

/// What came of one file.
#[derive(Debug, Default)]
pub struct Read {
    pub announcements: Vec<Entry>,
    /// Ids of entries with a fault, as far as they could be read.
    pub standing: BTreeSet<AnnouncementId>,
    pub faults: Vec<Fault>,
    /// Nothing of the file could be read.
    pub unread: bool,
}

/// A good announcement with the place of its id, for faults that show only across files.
#[derive(Clone, Debug)]
pub struct Entry {
    pub announcement: Announcement,
    pub source: Arc<Source>,
    pub id_span: std::ops::Range<usize>,
    pub supersedes_span: Option<std::ops::Range<usize>>,
    pub at_span: Option<std::ops::Range<usize>>,
}

/// Reads one file; `name` is its path below the queue folder.
pub fn read(source: &Arc<Source>, name: &str, context: &Context<'_>) -> Read {
    let (node, faults) = yaml::parse(source);
    let mut read = Read { faults, ..Read::default() };
    let Some(node) = node else {
        read.unread = read.faults.iter().any(Fault::is_error);
        return read;
    };
    let Kind::Map(entries) = &node.kind else {
        let said = Words::new("文件应以 `announcements:` 开头", "the file has to begin with `announcements:`");
        read.faults.push(source.fault(node.span.clone(), "type", said));
        read.unread = true;
        return read;
    };
    for (key, _) in entries.iter().filter(|(k, _)| k.as_text() != Some("announcements")) {
        let said = Words::new("文件里只有 `announcements:` 一个字段", "the only field of the file is `announcements:`");
        read.faults.push(source.fault(key.span.clone(), "unknown_key", said));
        read.unread = node.get("announcements").is_none();
    }
    match node.get("announcements") {
        None => {}
        Some(Node { kind: Kind::Null, .. }) => {}
        Some(Node { kind: Kind::List(items), .. }) => {
            for (n, item) in items.iter().enumerate() {
                // What the parser found wrong on the way belongs to the entry it stands in.
                let end = items.get(n + 1).map_or(usize::MAX, |next| next.span.start);
                let broken = read.faults.iter().any(|f| f.is_error() && (item.span.start..end).contains(&f.span.start));
                entry(source, name, item, broken, context, &mut read);
            }
        }
        Some(other) => {
            let said = Words::new(
                "`announcements` 应是列表，每项以 `- id:` 开头",
                "`announcements` has to be a list, each item beginning with `- id:`",
            );
            read.faults.push(source.fault(other.span.clone(), "type", said));
            read.unread = true;
        }
    }
    read
}

fn entry(source: &Arc<Source>, name: &str, node: &Node, broken: bool, context: &Context<'_>, read: &mut Read) {
    let mut reader = Reader { source, node, context, faults: Vec::new() };
    let announcement = reader.announcement(name);
    written::left_out(source, node, &mut reader.faults);
    let failed = broken || reader.faults.iter().any(Fault::is_error);
    read.faults.append(&mut reader.faults);
    match announcement {
        Some(announcement) if !failed => read.announcements.push(Entry {
            announcement,
            source: source.clone(),
            id_span: node.at("id").span.clone(),
            supersedes_span: node.get("supersedes").map(|n| n.span.clone()),
            at_span: node.get("at").map(|n| n.span.clone()),
        }),
        _ => match node.get("id").and_then(Node::as_text) {
            Some(id) if values::id(id).is_ok() => {
                read.standing.insert(AnnouncementId::from(id));
            }
            // Nobody can tell which announcement of this file it was.
            _ => read.unread = true,
        },
    }
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    node: &'a Node,
    context: &'a Context<'a>,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn push(&mut self, path: &str, code: &'static str, message: Words) -> &mut Fault {
        let span = self.node.at(path).span.clone();
        self.faults.push(self.source.fault(span, code, message));
        self.faults.last_mut().expect("one was just pushed")
    }

    fn warn(&mut self, path: &str, code: &'static str, message: Words, hint: Words) {
        let fault = self.push(path, code, message);
        fault.severity = super::Severity::Warning;
        fault.hint = Some(hint);
    }

    fn announcement(&mut self, file: &str) -> Option<Announcement> {
        let raw: RawAnnouncement = typed::read(self.source, self.node, &mut self.faults)?;
        let id = self.id(&raw)?;
        let text = self.text(&raw);
        let accounts = self.accounts(&raw);
        let timing = self.timing(&raw, &accounts);
        let images = self.images(&raw, file);
        let link = self.link(&raw);
        let variants = self.variants(&raw, &accounts);
        let catch_up = self.catch_up(&raw);
        if raw.level.is_some() && raw.priority != Some(Priority::Emergency) {
            let said = Words::new("只有紧急发布才有 `level`", "only an emergency has a `level`");
            self.push("level", "level", said).hint = Some(Words::new(
                "加 `priority: emergency`，或去掉 `level`",
                "add `priority: emergency`, or take `level` out",
            ));
        }
        let flat = |list: &Option<Vec<Option<String>>>| list.iter().flatten().flatten().cloned().collect();
        let body = Body {
            text,
            link,
            images,
            variants,
            to: flat(&raw.to),
            except: flat(&raw.except),
            priority: raw.priority.unwrap_or_default(),
            level: raw.level,
            timing: timing?,
            expires_after: raw.expires_after.map(|s| s.0),
            catch_up,
            together: raw.sync.map(|s| s == RawSync::Together),
            supersedes: raw.supersedes.as_deref().map(AnnouncementId::from),
            hold_exempt: raw.hold_exempt.clone(),
            standard: false,
            persons: None,
            silence: None,
            alert_sent: None,
            follows: None,
            closing: None,
        };
        self.fits(&body, &accounts);
        let line = self.source.place(self.node.span.start).line;
        let says_now = raw.at.as_deref().is_some_and(is_now);
        let content = Content { body, accounts };
        Some(Announcement { id, file: file.to_owned(), line, saved: None, says_now, content })
    }

    fn id(&mut self, raw: &RawAnnouncement) -> Option<AnnouncementId> {
        let hint = || {
            Words::new(
                "每条公告要有自己的 id，如 metro-line-9",
                "each announcement needs an id of its own, such as metro-line-9",
            )
        };
        match &raw.id {
            None => {
                match self.node.get("id").map(|node| &node.kind) {
                    // The span of a whole entry is too much to point at: its first line is enough.
                    None => {
                        let start = self.node.span.start;
                        let said = Words::new("没有 `id`", "there is no `id`");
                        self.faults.push(self.source.fault(start..start + 1, "missing", said).hint(hint()));
                    }
                    Some(Kind::Null) => {
                        let said = Words::new("`id` 没有值", "the `id` has no value");
                        self.push("id", "missing", said).hint = Some(hint());
                    }
                    // A value of another kind has its own fault.
                    Some(_) => {}
                }
                None
            }
            Some(id) => match values::id(id) {
                Ok(()) if values::is_reserved(id) => {
                    let safe = shown(id);
                    let said = words!(
                        "`{safe}`：urgent- 和 cap- 开头的 id 留给紧急发布和警报",
                        "`{safe}`: ids that begin with urgent- or cap- are kept for urgent posts and alerts"
                    );
                    self.push("id", "id", said).hint = Some(hint());
                    None
                }
                Ok(()) => Some(AnnouncementId::from(id.as_str())),
                Err(said) => {
                    self.push("id", "id", said).hint = Some(hint());
                    None
                }
            },
        }
    }

    fn text(&mut self, raw: &RawAnnouncement) -> String {
        let Some(given) = &raw.text else {
            let read_wrong = self.node.get("text").is_some_and(|n| n.kind != Kind::Null);
            // A slip such as `txet:` has its own fault, and the hint that goes with it.
            let slipped = self.faults.iter().any(|f| f.code == "unknown_key");
            if !read_wrong && !slipped {
                let path = if self.node.get("text").is_some() { "text" } else { "id" };
                self.push(path, "missing", Words::new("没有 `text`", "there is no `text`"));
            }
            return String::new();
        };
        let node = self.node.at("text");
        if let Kind::Scalar { text, plain: true } = &node.kind
            && (text.parse::<f64>().is_ok() || matches!(text.as_str(), "no" | "yes" | "on" | "off"))
        {
            let said = words!("`{text}` 不是一段文字", "`{text}` is no text");
            self.push("text", "type", said).hint =
                Some(Words::new("真要发它就加引号", "put it in quotes if that is what is meant"));
        }
        self.safe("text", given);
        if let Some(sign) = values::unread_sign(given) {
            let said =
                words!("文字里有 `{sign}`，会照样发布", "the text has `{sign}`, which is published as it stands");
            let hint = Words::new(
                "换行请用 `text: |` 另起行；别的写出字符本身",
                "for a new line use `text: |` and begin one; else write the character itself",
            );
            self.warn("text", "unread_sign", said, hint);
        }
        let text = self.marked("text", fit::full_text(given, None));
        let visible = text.chars().any(|c| !c.is_whitespace() && !is_hidden(c) && !is_blank(c));
        if !visible {
            self.push("text", "empty", Words::new("`text` 是空的", "the `text` is empty"));
        }
        if values::looks_mixed(&text) {
            let hint = Words::new("看看是不是冒充的字母或域名", "look whether a letter or a host is not what it seems");
            self.warn(
                "text",
                "look_alike",
                Words::new("文字里混有形似的字母", "letters of scripts that look alike are mixed"),
                hint,
            );
        }
        text
    }

    /// R14: a drill's texts bear its mark, and nothing else does.
    fn marked(&mut self, path: &str, text: String) -> String {
        if self.context.drill {
            return if text.is_empty() { text } else { stamped(&text) };
        }
        if text.contains(DRILL_MARK) {
            let said = Words::new(
                "带有【演练】，正式环境不发",
                "it bears the mark of a drill (【演练】): nothing of a drill goes out live",
            );
            self.push(path, "drill_mark", said).hint =
                Some(Words::new("演练用 fabu drill", "for a drill there is `fabu drill`"));
        }
        text
    }

    /// R44: what has no shape can hide what a text says.
    fn safe(&mut self, path: &str, text: &str) {
        if let Some(c) = hidden_in(text) {
            let code = format!("U+{:04X}", u32::from(c));
            let node = self.node.at(path);
            let source = &self.source.text;
            // The caret goes under the character itself where the source has it as it stands.
            let within = source.get(node.span.clone()).and_then(|s| s.find(c)).map(|at| node.span.start + at);
            let span = within.map_or(node.span.clone(), |at| at..at + c.len_utf8());
            let said = words!("文字里有看不见的字符 {code}", "the text has the invisible character {code}");
            let hint = Words::new("删去它；多半是从网页粘贴来的", "delete it; it was most likely pasted from a page");
            self.faults.push(self.source.fault(span, "hidden_character", said).hint(hint));
        }
    }

    fn accounts(&mut self, raw: &RawAnnouncement) -> BTreeSet<AccountId> {
        let city = self.context.city;
        let mut accounts = BTreeSet::new();
        if self.node.get("to").is_none_or(|n| n.kind == Kind::Null || n.kind == Kind::List(Vec::new())) {
            let path = if self.node.get("to").is_some() { "to" } else { "id" };
            let fault = self.push(path, "missing", Words::new("没有写发给谁：`to` 是空的", "nobody is named in `to`"));
            fault.hint = Some(Words::new(
                "如 to: [shanghai, \"shanghai/pudong/**\"]",
                "for example to: [shanghai, \"shanghai/pudong/**\"]",
            ));
        }
        for (field, list, adds) in [("to", &raw.to, true), ("except", &raw.except, false)] {
            for (n, text) in list.iter().flatten().enumerate() {
                let Some(text) = text else {
                    let path = format!("{field}[{n}]");
                    if self.node.at(&path).kind == Kind::Null {
                        let said = Words::new("空的一项", "an empty item");
                        self.push(&path, "value", said).hint =
                            Some(Words::new("`#标签` 要加引号", "put a `#tag` in quotes"));
                    }
                    continue;
                };
                let parsed = Selector::parse(text).map_err(|said| Nobody { said, hint: None });
                match parsed.and_then(|s| city.select(&s)) {
                    Ok(found) if adds => accounts.extend(found),
                    Ok(found) => accounts.retain(|a| !found.contains(a)),
                    Err(Nobody { said, hint }) => {
                        self.push(&format!("{field}[{n}]"), "no_account", said).hint = hint;
                    }
                }
            }
        }
        let before = accounts.len();
        accounts.retain(|a| !city.is_resting(a));
        let named = raw.to.iter().flatten().flatten().next().is_some();
        if accounts.is_empty() && named && !self.faults.iter().any(|f| f.code == "no_account") {
            let said = if before > 0 {
                Words::new("所列账号都已停用", "all the accounts named are suspended or closed")
            } else {
                Words::new("除去 `except` 后没有账号", "no account is left after `except`")
            };
            self.push("to", "no_account", said);
        }
        accounts
    }

    fn images(&mut self, raw: &RawAnnouncement, file: &str) -> Vec<Image> {
        /// No platform takes more than twenty.
        const MOST: usize = 20;
        let given: Vec<&Option<RawImage>> = raw.images.iter().flatten().collect();
        if given.len() > MOST {
            let n = given.len();
            let said = words!("{n} 张图片，最多 {MOST} 张", "{n} pictures, {MOST} at most");
            self.push("images", "picture", said);
            return Vec::new();
        }
        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut found = Vec::new();
        for (n, image) in given.into_iter().enumerate() {
            let (path, alt) = match image {
                Some(RawImage::Path(path)) => (path, None),
                Some(RawImage::Described { file, alt }) => (file, alt.clone()),
                None => continue,
            };
            // An absolute path stays one, and is refused as such.
            let below =
                if folder.is_empty() || path.starts_with('/') { path.clone() } else { format!("{folder}/{path}") };
            let below = normalised(&below).unwrap_or(below);
            match images::load(self.context.root, &below) {
                Ok((image, _)) => found.push(Image { alt, ..image }),
                Err(said) => {
                    self.push(&format!("images[{n}]"), "picture", said);
                }
            }
        }
        found
    }

    fn link(&mut self, raw: &RawAnnouncement) -> Option<String> {
        let link = raw.link.as_deref()?;
        match values::link(link) {
            Ok(private) => {
                if private {
                    let said = Words::new(
                        "链接指向内部地址，读者打不开",
                        "the link leads to a private address that readers cannot open",
                    );
                    self.warn("link", "private_link", said, Words::new("换成公开的地址", "use a public one"));
                }
                if values::looks_mixed(link) {
                    let hint = Words::new("看看是不是冒充的域名", "look whether the host is what it seems");
                    self.warn(
                        "link",
                        "look_alike",
                        Words::new("链接里有形似的字母", "the link has letters that look like others"),
                        hint,
                    );
                }
                Some(link.to_owned())
            }
            Err(said) => {
                self.push("link", "link", said);
                None
            }
        }
    }

    fn variants(&mut self, raw: &RawAnnouncement, accounts: &BTreeSet<AccountId>) -> BTreeMap<PlatformName, Variant> {
        let mut variants = BTreeMap::new();
        for (platform, variant) in raw.variants.iter().flatten() {
            let known = &self.context.city.platforms;
            if !known.contains(platform.as_str()) {
                let safe = crate::core::words::shown(platform);
                let near =
                    crate::core::words::nearest(platform, known.iter().map(PlatformName::as_str)).map(str::to_owned);
                let key =
                    self.node.get("variants").and_then(|v| v.entry(platform)).map_or(0..0, |(k, _)| k.span.clone());
                let fault = self.source.fault(
                    key,
                    "platform",
                    words!("没有名为 `{safe}` 的平台", "there is no platform `{safe}`"),
                );
                self.faults.push(match near {
                    Some(meant) => fault.hint(words!("是否指 `{meant}`？", "did you mean `{meant}`?")),
                    None => fault,
                });
                continue;
            }
            if !accounts.is_empty() && !accounts.iter().any(|a| a.platform() == platform) {
                let said = words!("`to` 里没有 {platform} 的账号", "no account of {platform} is in `to`");
                self.warn(
                    &format!("variants.{platform}"),
                    "unused_variant",
                    said,
                    Words::new("这个变体用不上", "this variant is not used"),
                );
            }
            let Some(variant) = variant else { continue };
            for (key, text) in [("text", &variant.text), ("title", &variant.title)] {
                if let Some(text) = text {
                    self.safe(&format!("variants.{platform}.{key}"), text);
                }
            }
            let clean =
                |text: &Option<String>| text.as_deref().map(|t| fit::full_text(t, None)).filter(|t| !t.is_empty());
            let path = format!("variants.{platform}.text");
            let text = clean(&variant.text).map(|text| self.marked(&path, text));
            variants.insert(PlatformName::from(platform.as_str()), Variant { title: clean(&variant.title), text });
        }
        variants
    }

    fn catch_up(&mut self, raw: &RawAnnouncement) -> Option<CatchUp> {
        match raw.catch_up.as_deref()? {
            "none" => Some(CatchUp::None),
            "last" => Some(CatchUp::Last),
            text => match values::duration(text) {
                Ok(within) => Some(CatchUp::Within(within)),
                Err(_) => {
                    let safe = crate::core::words::shown(text);
                    let said = words!("`{safe}` 应为 none、last 或时长", "`{safe}` has to be none, last or a duration");
                    self.push("catch_up", "value", said);
                    None
                }
            },
        }
    }

    fn fits(&mut self, body: &Body, accounts: &BTreeSet<AccountId>) {
        let platforms: BTreeSet<&str> = accounts.iter().map(AccountId::platform).collect();
        for platform in platforms {
            let Some(rules) = self.context.rules.get(platform) else { continue };
            for misfit in fit::misfits(body, platform, rules) {
                let field = if misfit.field == "text" && body.text.is_empty() { continue } else { &misfit.field };
                let fault = self.push(field, misfit.code, misfit.message);
                fault.hint = Some(misfit.hint);
                if misfit.is_warning {
                    fault.severity = super::Severity::Warning;
                }
            }
        }
    }
}

/// Whether an `at` says that it goes as soon as it is read.
pub(super) fn is_now(at: &str) -> bool {
    at.trim() == "now"
}

/// `a/../b` → `b`; `None` when the path leaves its folder.
fn normalised(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" if parts.is_empty() && path.starts_with('/') => return None,
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
