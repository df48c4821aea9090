//! Words that an editor writes and YAML leaves out in silence: those behind a ` #`, a key without a value.
//!
//! Both are YAML's own rules, and no excuse before a person: what is written is read, or named.

use std::ops::Range;
use std::sync::Arc;

use super::yaml::{Kind, Node};
use super::{Fault, Source};
use crate::core::words::{Words, shown, words};

/// Fields whose words are published.
const PUBLISHED: [&str; 6] = ["text", "title", "alt", "link", "correction", "all_clear"];
/// Of a mended line so many characters are shown.
const MOST_SHOWN: usize = 160;

/// Names what of this entry would be left out; what has a fault already is not named again.
pub fn left_out(source: &Arc<Source>, node: &Node, faults: &mut Vec<Fault>) {
    match &node.kind {
        Kind::Map(entries) => {
            for (key, value) in entries {
                match &value.kind {
                    Kind::Null if !is_told(node, faults) => without_value(source, key, value, faults),
                    Kind::Scalar { plain: true, .. } if key.as_text().is_some_and(|k| PUBLISHED.contains(&k)) => {
                        cut_off(source, key, value, faults);
                    }
                    _ => left_out(source, value, faults),
                }
            }
        }
        Kind::List(items) => items.iter().for_each(|item| left_out(source, item, faults)),
        Kind::Null | Kind::Scalar { .. } => {}
    }
}

/// The same as warnings: of a file that says how things are set up, and not what is said.
pub fn remarks(source: &Arc<Source>, node: &Node, faults: &mut Vec<Fault>) {
    let known = faults.len();
    let Kind::Map(entries) = &node.kind else { return };
    // A list that is kept, and empty for now.
    let is_empty_list = |key: &Node| matches!(key.as_text(), Some("units" | "templates"));
    for (key, value) in entries {
        match value.kind {
            Kind::Null if is_empty_list(key) => {}
            Kind::Null => without_value(source, key, value, faults),
            _ => left_out(source, value, faults),
        }
    }
    for fault in &mut faults[known..] {
        fault.severity = super::Severity::Warning;
    }
}

/// Whether an entry has a fault of its own as a whole, such as that a field is missing.
fn is_told(entry: &Node, faults: &[Fault]) -> bool {
    faults.iter().any(|fault| fault.is_error() && fault.code != "no_value" && fault.span.start == entry.span.start)
}

fn without_value(source: &Arc<Source>, key: &Node, value: &Node, faults: &mut Vec<Fault>) {
    if faults.iter().any(|fault| fault.span.start == value.span.start || fault.span == key.span) {
        return;
    }
    let name = shown(key.as_text().unwrap_or_default());
    let said = words!("`{name}` 没有值", "`{name}` has no value");
    let hint = words!("写上值，或去掉 `{name}` 这一行", "write one, or take the line `{name}` out");
    faults.push(source.fault(key.span.clone(), "no_value", said).hint(hint));
}

/// A comment right behind an unquoted text, on its line or as the next one, was most likely meant to be read.
fn cut_off(source: &Arc<Source>, key: &Node, value: &Node, faults: &mut Vec<Fault>) {
    let Some(comment) = comment_after(&source.text, key, value) else { return };
    let lost = source.text[comment.clone()].trim_end();
    let kept = value.as_text().unwrap_or_default();
    let name = key.as_text().unwrap_or_default();
    let is_same_line = !source.text[value.span.end..comment.start].contains('\n');
    let whole = if is_same_line { format!("{kept} {lost}") } else { format!("{kept}\n{lost}") };
    let mended = format!("{name}: {}", quoted(&whole));
    let said = Words::new(
        "从 ` #` 起被 YAML 当作注释，不会发布",
        "from ` #` on YAML takes this for a comment: it would not be published",
    );
    let mended: String = shown(&mended).chars().take(MOST_SHOWN).collect();
    let hint = words!(
        "加引号：{mended}；真是注释就另起一行",
        "put it in quotes: {mended}; or give a comment a line of its own above"
    );
    faults.push(source.fault(comment.start..comment.start + lost.len(), "comment_in_text", said).hint(hint));
}

fn comment_after(text: &str, key: &Node, value: &Node) -> Option<Range<usize>> {
    let after = text.get(value.span.end..)?;
    let line = after.split('\n').next().unwrap_or_default();
    let blank = line.len() - line.trim_start().len();
    let start = value.span.end + blank;
    if line[blank..].starts_with('#') {
        return Some(start..value.span.end + line.len());
    }
    if !line.trim().is_empty() {
        return None;
    }
    let next_at = value.span.end + line.len() + 1;
    let next = text.get(next_at..)?.split('\n').next().unwrap_or_default();
    let indent = next.len() - next.trim_start_matches(' ').len();
    let begins = text[..key.span.start].rfind('\n').map_or(0, |at| at + 1);
    // A comment about the next field stands where that field does.
    (next[indent..].starts_with('#') && indent > key.span.start - begins)
        .then(|| next_at + indent..next_at + next.len())
}

/// As a quoted value of YAML's.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::*;

    fn named(text: &str) -> Vec<(&'static str, usize, usize)> {
        let source = Source::new("a.yaml", text);
        let (node, mut faults) = yaml::parse(&source);
        left_out(&source, &node.unwrap(), &mut faults);
        super::super::sort(&mut faults);
        faults.iter().map(|f| (f.code, f.start().line, f.start().column)).collect()
    }

    #[test]
    fn r51_words_behind_a_hash_are_named_and_not_lost() {
        for (text, at) in [
            ("text: 今晚停水 #停水通知# 请储水\nto: [a]\n", (1, 12)),
            ("text: 今晚停水\n  #停水通知#\nto: [a]\n", (2, 3)),
            ("a:\n- text: 今晚停水\n     # 停水\n", (3, 6)),
            ("title: 停水   #今晚\n", (1, 13)),
            ("link: https://a.cn/x #y\n", (1, 22)),
            ("variants: {x: 1}\ntext: 早\n  安  # 张三改\n", (3, 6)),
            ("images:\n- {file: a.jpg, alt: 图 #1\n  }\n", (2, 24)),
        ] {
            assert_eq!(named(text), [("comment_in_text", at.0, at.1)], "{text}");
        }
        for fine in [
            "text: 今晚停水\n# 备注\nto: [a]\n",
            "text: 今晚#停水\nto: [a] # 市\n",
            "text: \"今晚 #停水#\" # 备注\n",
            "text: | # 备注\n  今晚 #停水#\n  # 请储水\n",
            "at: 2026-01-01 # 待定\n",
            "- text: 早\n  # 备注\n  to: [a]\n",
        ] {
            assert_eq!(named(fine), [], "{fine}");
        }
    }

    #[test]
    fn r51_a_key_without_a_value_is_a_fault() {
        assert_eq!(named("at:   # 待定\nto: [a]\nlink: ~\nx: {y: null}\n").len(), 3);
        assert_eq!(named("at: \"\"\n"), []);
    }

    #[test]
    fn the_hint_is_the_line_as_it_should_be() {
        let source = Source::new("a.yaml", "text: 说 \"停\" #水# \\ 好\n");
        let (node, mut faults) = yaml::parse(&source);
        left_out(&source, &node.unwrap(), &mut faults);
        let hint = &faults[0].hint.as_ref().unwrap().en;
        assert!(hint.contains(r#"text: "说 \"停\" #水# \\ 好""#), "{hint}");
        let mended = Source::new("a.yaml", r#"text: "说 \"停\" #水# \\ 好""#);
        assert_eq!(yaml::parse(&mended).0.unwrap().at("text").as_text(), Some("说 \"停\" #水# \\ 好"));
    }
}
