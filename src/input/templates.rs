//! The folder of emergency templates → templates that can be sent as they stand.
//!
//! A template is tried here as an editor writes it: every value, every selector, and its length on
//! every platform with the longest values. In the hour it is needed nothing of it may turn out wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use chrono::DateTime;
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{self, Whole};
use super::yaml::{self, Node};
use super::{Fault, Source, read_text, typed, written, yaml_files};
use crate::core::accounts::{AccountId, City, Nobody, PlatformName, Selector};
use crate::core::announcement::{Body, Level};
use crate::core::fit;
use crate::core::policy::Emergency;
use crate::core::template::{DRILL_MARK, Kind, Piece, Template, Wanted, has_stray_braces, pieces};
use crate::core::words::{Words, hidden_in, is_hidden, nearest, shown, words};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Templates")]
pub struct RawTemplates {
    templates: Option<Vec<Option<RawTemplate>>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawTemplate {
    /// Unique among all templates.
    name: Option<String>,
    title: Option<String>,
    level: Option<Level>,
    /// GB/T 35965 code of the event, which chooses the template for a CAP alert.
    event: Option<String>,
    to: Option<Vec<Option<String>>>,
    except: Option<Vec<Option<String>>>,
    values: Option<BTreeMap<String, Option<RawWanted>>>,
    /// `{{name}}` stands for a value.
    text: Option<String>,
    /// Required where the level holds routine.
    correction: Option<String>,
    /// Required where the level holds routine.
    all_clear: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawWanted {
    label: Option<String>,
    #[serde(rename = "type")]
    kind: Option<RawKind>,
    one_of: Option<Vec<Option<String>>>,
    default: Option<String>,
    /// What checks use.
    example: Option<String>,
    /// Most characters.
    max: Option<Whole>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RawKind {
    Text,
    Number,
    Time,
}

/// What templates are read against.
pub struct Context<'a> {
    pub city: &'a City,
    pub rules: &'a BTreeMap<PlatformName, fit::Rules>,
    pub emergency: &'a Emergency,
}

/// What came of the folder.
#[derive(Debug, Default)]
pub struct Read {
    pub templates: BTreeMap<String, Template>,
    /// Names and files of which something could not be used: what was in force of them stays.
    pub standing: BTreeSet<String>,
    pub faults: Vec<Fault>,
}

/// Reads every template below a folder; one that is not there has none.
pub fn read(folder: &Path, context: &Context<'_>) -> Read {
    let mut read = Read::default();
    if !folder.exists() {
        return read;
    }
    let mut places: BTreeMap<String, Fault> = BTreeMap::new();
    let mut events: BTreeMap<(String, Level), String> = BTreeMap::new();
    for file in yaml_files(folder, &mut read.faults) {
        let name = file.display().to_string();
        match read_text(&file, &name) {
            Ok(source) => file_of(&source, context, &mut read, &mut places, &mut events),
            Err(fault) => {
                read.standing.insert(name);
                read.faults.push(*fault);
            }
        }
    }
    super::sort(&mut read.faults);
    read
}

fn file_of(
    source: &Arc<Source>,
    context: &Context<'_>,
    read: &mut Read,
    places: &mut BTreeMap<String, Fault>,
    events: &mut BTreeMap<(String, Level), String>,
) {
    let before = read.faults.len();
    let (node, faults) = yaml::parse(source);
    read.faults.extend(faults);
    let Some(node) = node else {
        if read.faults.len() > before {
            read.standing.insert(source.name.clone());
        }
        return;
    };
    let raw: Option<RawTemplates> = typed::read(source, &node, &mut read.faults);
    if raw.is_none() || read.faults[before..].iter().any(Fault::is_error) {
        read.standing.insert(source.name.clone());
    }
    let nodes = node.get("templates").map(Node::items).unwrap_or_default();
    for (raw, node) in raw.and_then(|r| r.templates).into_iter().flatten().zip(nodes) {
        let Some(raw) = raw else { continue };
        let known = read.faults[before..].iter().any(|f| f.is_error() && node.span.contains(&f.span.start));
        let mut reader = Reader { source, node, context, faults: Vec::new() };
        let template = reader.template(raw);
        written::left_out(source, node, &mut reader.faults);
        let Some(template) = template else {
            read.faults.append(&mut reader.faults);
            continue;
        };
        if let Some(event) = &template.event {
            let key = (event.clone(), template.level);
            if let Some(other) = events.insert(key, template.name.clone()) {
                let said = words!(
                    "模板 {other} 已用于此事件和级别",
                    "the template {other} is for this event and level already"
                );
                let hint = Words::new("每个事件的每个级别只有一个模板", "an event has one template a level");
                reader.push("event", "event_twice", said, hint);
            }
        }
        let name = &template.name;
        let doubled = words!("有两个模板叫 `{name}`", "there are two templates `{name}`");
        let doubled = reader.fault("name", "template_twice", doubled);
        let failed = known || reader.faults.iter().any(Fault::is_error);
        read.faults.append(&mut reader.faults);
        match places.insert(template.name.clone(), doubled.clone()) {
            // Which of the two is meant nobody can tell: neither is newly in force.
            Some(first) => {
                read.templates.remove(&template.name);
                read.standing.insert(template.name);
                read.faults.extend([first, doubled]);
            }
            None if failed => {
                read.standing.insert(template.name);
            }
            None => {
                read.templates.insert(template.name.clone(), template);
            }
        }
    }
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    node: &'a Node,
    context: &'a Context<'a>,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&self, path: &str, code: &'static str, said: Words) -> Fault {
        let node = self.node.at(path);
        // Of what is not there, the first line of the template is enough to point at.
        let missing = std::ptr::eq(node, self.node);
        let span = if missing { node.span.start..node.span.start + 1 } else { node.span.clone() };
        self.source.fault(span, code, said)
    }

    fn push(&mut self, path: &str, code: &'static str, said: Words, hint: Words) {
        let fault = self.fault(path, code, said).hint(hint);
        self.faults.push(fault);
    }

    fn missing(&mut self, field: &'static str, hint: Words) {
        // What is there and could not be read has its own fault.
        if self.node.get(field).is_none_or(|n| n.kind == yaml::Kind::Null) {
            self.push(field, "missing", words!("没有 `{field}`", "there is no `{field}`"), hint);
        }
    }

    fn template(&mut self, raw: RawTemplate) -> Option<Template> {
        let flat =
            |list: &Option<Vec<Option<String>>>| -> Vec<String> { list.iter().flatten().flatten().cloned().collect() };
        let Some(name) = raw.name.clone() else {
            self.missing(
                "name",
                Words::new("每个模板要有名字，如 rainstorm-red", "each template needs a name, such as rainstorm-red"),
            );
            return None;
        };
        if let Err(said) = values::id(&name) {
            self.push("name", "id", said, Words::new("如 rainstorm-red", "such as rainstorm-red"));
        }
        if raw.level.is_none() {
            self.missing("level", Words::new("red、orange、yellow 或 blue", "red, orange, yellow or blue"));
        }
        let template = Template {
            title: raw.title.clone().unwrap_or_else(|| name.clone()),
            name,
            level: raw.level.unwrap_or(Level::Red),
            event: raw.event.clone(),
            to: flat(&raw.to),
            except: flat(&raw.except),
            values: self.values(&raw),
            text: raw.text.as_deref().map_or_else(String::new, |t| fit::full_text(t, None)),
            correction: raw.correction.as_deref().map(|t| fit::full_text(t, None)),
            all_clear: raw.all_clear.as_deref().map(|t| fit::full_text(t, None)),
            file: self.source.name.clone(),
        };
        self.texts(&template);
        self.closing(&template);
        let accounts = self.accounts(&template);
        self.fits(&template, &accounts);
        Some(template)
    }

    /// In the order they are written, which is the order they are asked for.
    fn values(&mut self, raw: &RawTemplate) -> Vec<Wanted> {
        let Some(yaml::Kind::Map(entries)) = self.node.get("values").map(|n| n.kind.clone()) else { return Vec::new() };
        let mut all = Vec::new();
        for (key, _) in &entries {
            let Some(name) = key.as_text() else { continue };
            let given = raw.values.as_ref().and_then(|v| v.get(name)).and_then(Option::as_ref);
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(fine) || name.len() > 32 {
                let safe = shown(name);
                let said = words!("`{safe}` 不能作值的名字", "`{safe}` cannot name a value");
                let hint =
                    Words::new("小写字母、数字、下划线，如 area", "use small letters, digits and `_`, such as area");
                self.faults.push(self.source.fault(key.span.clone(), "value_name", said).hint(hint));
            }
            let wanted = self.wanted(name, given);
            all.push(wanted);
        }
        all
    }

    fn wanted(&mut self, name: &str, raw: Option<&RawWanted>) -> Wanted {
        let path = format!("values.{name}");
        let one_of = raw.and_then(|r| r.one_of.as_ref());
        let kind = match (one_of, raw.and_then(|r| r.kind)) {
            (Some(list), kind) => {
                if kind.is_some_and(|k| k != RawKind::Text) {
                    let said = Words::new("`type` 和 `one_of` 只能有一个", "there are both `type` and `one_of`");
                    self.push(&format!("{path}.type"), "value", said, Words::new("留一个", "keep one of them"));
                }
                Kind::OneOf(list.iter().flatten().cloned().collect())
            }
            (None, None | Some(RawKind::Text)) => Kind::Text,
            (None, Some(RawKind::Number)) => Kind::Number,
            (None, Some(RawKind::Time)) => Kind::Time,
        };
        let wanted = Wanted {
            name: name.to_owned(),
            label: raw.and_then(|r| r.label.clone()).unwrap_or_else(|| name.to_owned()),
            kind,
            default: raw.and_then(|r| r.default.clone()),
            example: raw.and_then(|r| r.example.clone()),
            max: raw.and_then(|r| r.max).map(|Whole(n)| n as usize),
        };
        let known = matches!(&wanted.kind, Kind::OneOf(list) if !list.is_empty());
        if wanted.default.is_none() && wanted.example.is_none() && wanted.kind != Kind::Time && !known {
            let said = words!(
                "值 `{name}` 既无 `default` 也无 `example`",
                "the value `{name}` has neither a `default` nor an `example`"
            );
            let hint = Words::new("给 `example`：检查长度时用它", "give an `example`: lengths are tried with it");
            self.push(&path, "missing", said, hint);
        }
        for (field, text) in [("default", &wanted.default), ("example", &wanted.example)] {
            if let Some(Err(said)) = text.as_deref().map(|t| wanted.read(t, some_day())) {
                let hint = Words::new("改成可以照发的值", "give a value that could be sent as it stands");
                self.push(&format!("{path}.{field}"), "value", said, hint);
            }
        }
        wanted
    }

    fn texts(&mut self, template: &Template) {
        if template.text.is_empty() {
            self.missing("text", Words::new("写上要发的话", "write what is to be said"));
        }
        let mut used = BTreeSet::new();
        for (field, text) in template.written() {
            self.safe(field, text);
            if has_stray_braces(text) {
                let said = Words::new("大括号没有成对", "braces do not pair");
                self.push(field, "braces", said, Words::new("写作 {{名字}}", "write {{name}}"));
            }
            for piece in pieces(text) {
                let Piece::Value(name, _) = piece else { continue };
                used.insert(name.to_owned());
                if !template.values.iter().any(|w| w.name == name) {
                    let safe = shown(name);
                    let near = nearest(name, template.values.iter().map(|w| w.name.as_str()));
                    let hint = match near {
                        Some(near) => words!("是否指 `{near}`？", "did you mean `{near}`?"),
                        None => Words::new("写进 `values`", "declare it in `values`"),
                    };
                    self.push(field, "unknown_value", words!("没有值 `{safe}`", "there is no value `{safe}`"), hint);
                }
            }
        }
        for wanted in template.values.iter().filter(|w| !used.contains(&w.name)) {
            let name = &wanted.name;
            let said = words!("值 `{name}` 没有用到", "the value `{name}` is not used");
            let hint = Words::new("在文字里写 {{名字}}，或删去它", "write {{name}} in a text, or take it out");
            let fault = self.fault(&format!("values.{name}"), "unused_value", said).hint(hint).warning();
            self.faults.push(fault);
        }
    }

    fn safe(&mut self, field: &str, text: &str) {
        if let Some(c) = hidden_in(text) {
            let code = format!("U+{:04X}", u32::from(c));
            let said = words!("文字里有看不见的字符 {code}", "the text has the invisible character {code}");
            let hint = Words::new("删去它；多半是从网页粘贴来的", "delete it; it was most likely pasted from a page");
            self.push(field, "hidden_character", said, hint);
        }
        if !text.chars().any(|c| !c.is_whitespace() && !is_hidden(c)) && self.node.get(field).is_some() {
            let said = words!("`{field}` 是空的", "the `{field}` is empty");
            self.push(field, "empty", said, Words::new("写上要说的话", "write what is to be said"));
        }
        if text.contains(DRILL_MARK) {
            let said = Words::new("模板里不能有【演练】", "a template cannot bear the mark of a drill (【演练】)");
            let hint = Words::new("演练时自动加上", "a drill adds it by itself");
            self.push(field, "drill_mark", said, hint);
        }
    }

    /// Hawaii took 38 minutes because no correction was ready.
    fn closing(&mut self, template: &Template) {
        let holds = self.context.emergency.hold.get(&template.level).is_some_and(|h| !h.is_zero());
        if !holds || self.node.get("level").is_none() {
            return;
        }
        let level = template.level.name();
        for (field, text, zh, en) in [
            ("correction", &template.correction, "更正", "to correct it"),
            ("all_clear", &template.all_clear, "解除", "to end it"),
        ] {
            if text.is_none() && self.node.get(field).is_none() {
                let said = words!(
                    "{level} 级静默日常发布，必须有{zh}文本 `{field}`",
                    "the level {level} holds routine, so the words {en} have to be ready: `{field}`"
                );
                self.push(field, "closing", said, words!("加 `{field}: 【{zh}】…`", "add `{field}: …`"));
            }
        }
    }

    fn accounts(&mut self, template: &Template) -> BTreeSet<AccountId> {
        let mut accounts = BTreeSet::new();
        if template.to.is_empty() {
            self.missing("to", Words::new("如 to: [\"#lead\"]", "for example to: [\"#lead\"]"));
        }
        for (field, list, adds) in [("to", &template.to, true), ("except", &template.except, false)] {
            for (n, text) in list.iter().enumerate() {
                let parsed = Selector::parse(text).map_err(|said| Nobody { said, hint: None });
                match parsed.and_then(|s| self.context.city.select(&s)) {
                    Ok(found) if adds => accounts.extend(found),
                    Ok(found) => accounts.retain(|a| !found.contains(a)),
                    Err(Nobody { said, hint }) => {
                        let mut fault = self.fault(&format!("{field}[{n}]"), "no_account", said);
                        fault.hint = hint;
                        self.faults.push(fault);
                    }
                }
            }
        }
        accounts
    }

    /// Tried with the longest values on every platform of the city: a CAP alert or `--to` may add accounts that the
    /// template does not name, of which a misfit is only a warning.
    fn fits(&mut self, template: &Template, accounts: &BTreeSet<AccountId>) {
        let longest = template.longest();
        let texts = [
            ("text", Some(&longest.text)),
            ("correction", longest.closing.correction.as_ref()),
            ("all_clear", longest.closing.all_clear.as_ref()),
        ];
        let named: BTreeSet<&str> = accounts.iter().map(AccountId::platform).collect();
        let platforms: BTreeSet<&str> = self.context.city.accounts.keys().map(AccountId::platform).collect();
        for (field, text) in texts {
            let Some(text) = text.filter(|t| !t.is_empty()) else { continue };
            let body = Body::said(text);
            for platform in &platforms {
                let Some(rules) = self.context.rules.get(*platform) else { continue };
                for misfit in fit::misfits(&body, platform, rules) {
                    let (zh, en) = (&misfit.message.zh, &misfit.message.en);
                    let said = words!("用最长的值时：{zh}", "with the longest values: {en}");
                    let hint =
                        Words::new("缩短文字，或给值设较小的 `max`", "shorten it, or give its values a smaller `max`");
                    let fault = self.fault(field, misfit.code, said).hint(hint);
                    let is_warning = misfit.is_warning || !named.contains(platform);
                    self.faults.push(if is_warning { fault.warning() } else { fault });
                }
            }
        }
    }
}

/// The form of a time is the same on every day.
fn some_day() -> DateTime<Tz> {
    DateTime::UNIX_EPOCH.with_timezone(&chrono_tz::UTC)
}

impl Template {
    fn written(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("text", Some(&self.text)),
            ("correction", self.correction.as_ref()),
            ("all_clear", self.all_clear.as_ref()),
        ];
        all.into_iter().filter_map(|(field, text)| text.map(|t| (field, t.as_str())))
    }
}

#[cfg(test)]
mod tests;
