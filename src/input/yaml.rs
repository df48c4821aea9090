//! YAML text → a tree that remembers where everything stood.
//!
//! The parser's events are taken one by one, so every bound holds before memory is spent: depth,
//! nodes, what aliases unfold to. Tags, merge keys, a second document and a key given twice are
//! faults; nothing is ever taken in silence.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::{Fault, Source};
use crate::core::words::{Words, shown, words};

/// R40.
const DEEPEST: usize = 64;
/// A file of 1 MiB has fewer; what is more has been unfolded from aliases.
const MOST_NODES: usize = 2_000_000;
const MOST_UNFOLDED: usize = 10_000;

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub span: Range<usize>,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Null,
    /// `plain`: written without quotes, so `5` may be meant as a number.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    pub fn entry(&self, key: &str) -> Option<&(Node, Node)> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(k, _)| k.as_text() == Some(key)),
            _ => None,
        }
    }

    pub fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::List(items) => items,
            _ => &[],
        }
    }

    /// The node a path like `variants.sina.text` or `to[1]` leads to, or the last one on the way.
    pub fn at(&self, path: &str) -> &Node {
        let mut node = self;
        for part in path.split(['.', '[']).filter(|p| !p.is_empty()) {
            let next = match part.strip_suffix(']') {
                Some(index) => index.parse().ok().and_then(|n: usize| node.items().get(n)),
                None => node.get(part),
            };
            match next {
                Some(found) => node = found,
                None => break,
            }
        }
        node
    }

    /// The tree as serde's value. Numbers stay text, so that `007` and thirty digits stay what they are.
    pub fn to_value(&self) -> serde_yaml::Value {
        use serde_yaml::Value;
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Scalar { text, plain: true } if text == "true" => Value::Bool(true),
            Kind::Scalar { text, plain: true } if text == "false" => Value::Bool(false),
            Kind::Scalar { text, .. } => Value::String(text.clone()),
            Kind::List(items) => Value::Sequence(items.iter().map(Node::to_value).collect()),
            Kind::Map(entries) => Value::Mapping(entries.iter().map(|(k, v)| (k.to_value(), v.to_value())).collect()),
        }
    }
}

/// Reads a file's only document. `None` when it is empty, or when it could not be read (then a fault says why).
pub fn parse(source: &Arc<Source>) -> (Option<Node>, Vec<Fault>) {
    let mut reader = Reader {
        source,
        parser: Parser::new_from_str(&source.text),
        faults: Vec::new(),
        anchors: BTreeMap::new(),
        nodes: 0,
        unfolded: 0,
    };
    let root = match reader.document() {
        Ok(root) => {
            reader.unused_anchors();
            root
        }
        Err(fault) => {
            reader.faults.push(*fault);
            None
        }
    };
    (root.filter(|n| n.kind != Kind::Null), reader.faults)
}

struct Anchor {
    node: Node,
    size: usize,
    /// Where it is written, and whether anything refers to it.
    at: Range<usize>,
    is_used: bool,
}

struct Reader<'s> {
    source: &'s Arc<Source>,
    parser: Parser<'s, StrInput<'s>>,
    faults: Vec<Fault>,
    anchors: BTreeMap<usize, Anchor>,
    nodes: usize,
    unfolded: usize,
}

type Read<T> = Result<T, Box<Fault>>;

impl<'s> Reader<'s> {
    fn document(&mut self) -> Read<Option<Node>> {
        let mut root = None;
        let mut documents = 0;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        let span = self.range(&span);
                        return Err(self.stop(
                            span,
                            "two_documents",
                            Words::new("一个文件里有两个 YAML 文档", "two YAML documents in one file"),
                            Words::new("去掉 `---`，或拆成两个文件", "take the `---` out, or make it two files"),
                        ));
                    }
                }
                Event::StreamStart | Event::DocumentEnd => {}
                event if event.is_node() => root = Some(self.node(event, span, 0)?),
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Read<(Event<'s>, Span)> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            None => Ok((Event::StreamEnd, Span::default())),
            Some(Err(error)) => {
                let at = self.byte(error.marker().line(), error.marker().col());
                Err(Box::new(self.syntax(at, &error.info())))
            }
        }
    }

    fn node(&mut self, event: Event<'s>, span: Span, depth: usize) -> Read<Node> {
        let range = self.range(&span);
        self.nodes += 1;
        if depth > DEEPEST || self.nodes > MOST_NODES {
            return Err(self.stop(
                range,
                "too_deep",
                words!("嵌套超过 {DEEPEST} 层，或内容过多", "nested deeper than {DEEPEST}, or too much in one file"),
                Words::new("简化这个文件", "make the file simpler"),
            ));
        }
        if let Some(tag) = event.tag() {
            let tag = shown(&tag.original());
            self.faults.push(
                self.source
                    .fault(range.clone(), "tag", words!("不接受 YAML 标签 `{tag}`", "the tag `{tag}` is not taken"))
                    .hint(Words::new("去掉 `!` 开头的标签；文字请加引号", "take the `!…` out; put text in quotes")),
            );
        }
        let before = self.nodes;
        let anchor = event.anchor_id().filter(|id| *id > 0);
        let node = match event {
            Event::Scalar(text, style, ..) => Node { span: range, kind: scalar(&text, style) },
            Event::SequenceStart(..) => self.list(range, depth)?,
            Event::MappingStart(..) => self.map(range, depth)?,
            Event::Alias(id) => return self.alias(id, range),
            _ => return Err(Box::new(self.syntax(range.start, "unexpected YAML"))),
        };
        if let Some(id) = anchor {
            let (size, at) = (self.nodes - before + 1, self.anchor_before(node.span.start));
            self.anchors.insert(id, Anchor { node: node.clone(), size, at, is_used: false });
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, span: Range<usize>) -> Read<Node> {
        let anchor = self.anchors.get_mut(&id).map(|anchor| {
            anchor.is_used = true;
            (anchor.node.clone(), anchor.size)
        });
        let Some((node, size)) = anchor else {
            return Err(self.stop(
                span,
                "alias",
                Words::new("别名指向自己", "the alias contains itself"),
                Words::new("直接写出内容；若是 `**`，请加引号", "write it out; if `**` is meant, put it in quotes"),
            ));
        };
        self.unfolded += size;
        self.nodes += size;
        if self.unfolded > MOST_UNFOLDED {
            return Err(self.stop(
                span,
                "alias_bomb",
                words!("别名展开超过 {MOST_UNFOLDED} 个节点", "aliases unfold to more than {MOST_UNFOLDED} nodes"),
                Words::new("直接写出内容", "write it out"),
            ));
        }
        Ok(Node { span, ..node })
    }

    /// The `&name` right before a node.
    fn anchor_before(&self, start: usize) -> Range<usize> {
        let text = &self.source.text;
        let at = text[..start].rfind('&').unwrap_or(start);
        let name = text[at..].find(char::is_whitespace).unwrap_or(text.len() - at);
        at..at + name
    }

    /// Names an anchor that nothing refers to: it was no name for later, but words.
    fn unused_anchors(&mut self) {
        for anchor in self.anchors.values().filter(|anchor| !anchor.is_used) {
            let name = shown(&self.source.text[anchor.at.clone()]);
            let said = words!(
                "`{name}` 被 YAML 当作锚点，不会发布",
                "YAML takes `{name}` for an anchor: it would be left out"
            );
            let hint = Words::new("整个值放进引号：\"…\"", "put the whole value in quotes: \"…\"");
            self.faults.push(self.source.fault(anchor.at.clone(), "anchor", said).hint(hint));
        }
    }

    fn list(&mut self, span: Range<usize>, depth: usize) -> Read<Node> {
        let mut items = Vec::new();
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::SequenceEnd => {
                    let end = self.range(&at).end.max(span.end);
                    return Ok(Node { span: span.start..end, kind: Kind::List(items) });
                }
                event if event.is_node() => items.push(self.node(event, at, depth + 1)?),
                _ => {}
            }
        }
    }

    fn map(&mut self, span: Range<usize>, depth: usize) -> Read<Node> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let mut key: Option<Node> = None;
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::MappingEnd => {
                    let end = entries.last().map_or(span.end, |(_, v)| v.span.end);
                    return Ok(Node { span: span.start..end, kind: Kind::Map(entries) });
                }
                event if event.is_node() => {
                    let node = self.node(event, at, depth + 1)?;
                    match key.take() {
                        None => key = Some(node),
                        Some(key) => self.entry(&mut entries, key, node),
                    }
                }
                _ => {}
            }
        }
    }

    fn entry(&mut self, entries: &mut Vec<(Node, Node)>, key: Node, value: Node) {
        let Some(name) = key.as_text().map(str::to_owned) else {
            self.faults.push(self.source.fault(key.span, "key", Words::new("键必须是文字", "a key has to be text")));
            return;
        };
        if name == "<<" {
            let said = Words::new("不支持合并键 `<<`", "the merge key `<<` is not supported");
            self.faults.push(self.source.fault(key.span, "merge_key", said));
            return;
        }
        if let Some((first, _)) = entries.iter().find(|(k, _)| k.as_text() == Some(&name)) {
            let line = self.source.place(first.span.start).line;
            let name = shown(&name);
            self.faults.push(
                self.source
                    .fault(key.span, "key_twice", words!("`{name}` 写了两次", "`{name}` is given twice"))
                    .hint(words!("第一次在第 {line} 行；留一个", "the first is on line {line}: keep one")),
            );
            return;
        }
        entries.push((key, value));
    }

    fn range(&self, span: &Span) -> Range<usize> {
        span.byte_range().unwrap_or_else(|| {
            let start = self.byte(span.start.line(), span.start.col());
            start..self.byte(span.end.line(), span.end.col()).max(start)
        })
    }

    /// The byte of a line (from 1) and a column in characters (from 0).
    fn byte(&self, line: usize, column: usize) -> usize {
        let text = &self.source.text;
        let mut start = 0;
        for _ in 1..line {
            match text[start..].find('\n') {
                Some(n) => start += n + 1,
                None => return text.len(),
            }
        }
        text[start..].char_indices().nth(column).map_or(text.len(), |(n, _)| start + n)
    }

    fn stop(&self, span: Range<usize>, code: &'static str, message: Words, hint: Words) -> Box<Fault> {
        Box::new(self.source.fault(span, code, message).hint(hint))
    }

    fn syntax(&self, at: usize, said: &str) -> Fault {
        let place = self.source.place(at);
        let line = self.source.text.lines().nth(place.line - 1).unwrap_or("");
        let start = self.byte(place.line, 0);
        let rest = self.source.text[at..].chars().next().map_or(0, char::len_utf8);
        let before = if place.line > 1 { self.source.text.lines().nth(place.line - 2).unwrap_or("") } else { "" };
        let said = shown(said);
        let fault = |span| self.source.fault(span, "syntax", words!("YAML 语法错误：{said}", "YAML syntax: {said}"));
        let plain = fault(at..at + rest);
        for (number, text) in [(0, line), (1, before)] {
            let base = if number == 0 { start } else { self.byte(place.line.saturating_sub(1), 0) };
            if let Some((column, length, hint)) = likely(text) {
                return fault(base + column..base + column + length).hint(hint);
            }
        }
        plain.hint(Words::new(
            "看看缩进、引号和冒号后的空格",
            "look at the indentation, the quotes, and the space after each colon",
        ))
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Kind {
    let plain = style == ScalarStyle::Plain;
    if plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        return Kind::Null;
    }
    Kind::Scalar { text: text.to_owned(), plain }
}

/// What is likely wrong on a line of broken YAML: where, how long, and what to do.
fn likely(line: &str) -> Option<(usize, usize, Words)> {
    let quote = Words::new("把它放进引号：\"…\"", "put it in quotes: \"…\"");
    if let Some(at) = line.find('\t').filter(|at| line[..*at].trim().is_empty()) {
        return Some((at, 1, Words::new("缩进请用空格，不用制表符", "indent with spaces, not with a tab")));
    }
    let indent = line.len() - line.trim_start().len();
    if let Some((at, c)) = line[..indent].char_indices().find(|(_, c)| *c != ' ') {
        let code = format!("U+{:04X}", u32::from(c));
        let hint = words!("缩进里有 {code}，请换成普通空格", "the indentation has {code}: use plain spaces");
        return Some((at, c.len_utf8(), hint));
    }
    for (sign, name) in [('：', "：→ `: `"), ('\u{3000}', "　→ 半角空格 / a plain space")] {
        if let Some(at) = line.find(sign).filter(|at| !line[..*at].contains(": ")) {
            let hint =
                words!("全角符号要换成半角（{name}）", "a full-width sign stands where a plain one belongs ({name})");
            return Some((at, sign.len_utf8(), hint));
        }
    }
    for start in ["[#", "[*", ", #", ", *", "- *", ": *", "- #", ": @", "- @", ": %", ": `"] {
        if let Some(at) = line.find(start) {
            return Some((at + start.len() - 1, 1, quote));
        }
    }
    // `text: 通知: 今晚`: a second colon in a plain value.
    let (key, value) = line.split_once(": ")?;
    let value_at = key.len() + 2;
    if !value.trim_start().starts_with(['"', '\'', '[', '{', '|', '>']) && value.contains(": ") {
        let colon = value.find(": ").expect("it was just found");
        return Some((
            value_at + colon,
            1,
            Words::new("值里有冒号：整个值放进引号", "there is a colon in the value: put the whole value in quotes"),
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Node>, Vec<Fault>) {
        parse(&Source::new("a.yaml", text))
    }

    #[test]
    fn a_tree_remembers_its_places() {
        let (node, faults) = read("a: 早安\nb: [x, 007, \"5\"]\n");
        assert_eq!(faults, []);
        let node = node.unwrap();
        assert_eq!(node.at("b[1]").as_text(), Some("007"));
        assert_eq!(node.at("b[1]").span, 17..20);
        assert_eq!(node.to_value()["b"][1], serde_yaml::Value::String("007".to_owned()));
    }

    #[test]
    fn r40_yaml_is_bounded_and_nothing_is_taken_in_silence() {
        let deep = "[".repeat(100_000);
        let maps = "{a: ".repeat(100_000);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            bomb += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", "));
        }
        for (text, code) in [
            (deep.as_str(), "too_deep"),
            (maps.as_str(), "too_deep"),
            (bomb.as_str(), "alias_bomb"),
            ("a: &a [*a]", "alias"),
            ("a: !!python/object x", "tag"),
            ("a: !include /etc/passwd", "tag"),
            ("a: 1\n---\nb: 2\n", "two_documents"),
            ("a: 1\nb: 2\na: 3\n", "key_twice"),
            ("<<: {a: 1}\n", "merge_key"),
            ("a: \"x\n", "syntax"),
            ("a:\n\t- b\n", "syntax"),
            ("to: [#lead]\n", "syntax"),
            ("to: [**]\n", "syntax"),
            ("text: 通知: 今晚\n", "syntax"),
        ] {
            let (_, faults) = read(text);
            // The parser has a bound of its own on brackets, and may be the first to say so.
            let said = faults.first().map(|f| if f.message.en.contains("recursion") { "too_deep" } else { f.code });
            assert_eq!(said, Some(code), "{}", &text[..text.len().min(40)]);
        }
    }

    #[test]
    fn an_empty_file_is_no_fault() {
        for text in ["", "# nothing\n", "---\n", "\n\n"] {
            assert_eq!(read(text), (None, Vec::new()), "{text:?}");
        }
    }

    #[test]
    fn the_usual_slips_get_a_hint_at_their_place() {
        let hint = |text: &str| {
            let (_, faults) = read(text);
            let fault = faults[0].clone();
            (fault.start().line, fault.start().column, fault.hint.unwrap().en)
        };
        let (line, column, said) = hint("a: 1\nto: [#lead]\n");
        assert_eq!((line, column), (2, 6));
        assert!(said.contains("quotes"));
        assert!(hint("text: 通知: 今晚\n").2.contains("colon"));
        assert!(hint("a:\n\t- b\n").2.contains("tab"));
    }
}
