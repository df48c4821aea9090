//! A tree → typed values, with every fault, not the first.
//!
//! serde stops at its first error. So what is wrong is noted with its place, taken out of the value,
//! and the rest is read again, until it reads. All fields of the types read here are optional: what
//! must be there is asked for afterwards, by whoever knows what for.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_yaml::Value;

use super::yaml::{Kind, Node};
use super::{Fault, Source};
use crate::core::words::{Words, nearest, shown, words};

/// A file with more faults than this has one fault: it is another kind of file.
const MOST_FAULTS: usize = 200;

/// Reads a node into `T`; faults are added, and what they concern is absent from the result.
pub fn read<T: DeserializeOwned>(source: &Arc<Source>, node: &Node, faults: &mut Vec<Fault>) -> Option<T> {
    let mut value = node.to_value();
    for _ in 0..MOST_FAULTS {
        let error = match serde_path_to_error::deserialize::<_, T>(value.clone()) {
            Ok(read) => return Some(read),
            Err(error) => error,
        };
        let mut path = error.path().to_string();
        if path == "." {
            path.clear();
        }
        let said = error.into_inner().to_string();
        let unknown = unknown_field(&said);
        if let Some((name, _)) = &unknown {
            // The path may lead to the key itself; what is wanted is the map it stands in.
            path = match path.strip_suffix(name.as_str()) {
                Some("") => String::new(),
                Some(parent) if parent.ends_with('.') => parent.trim_end_matches('.').to_owned(),
                _ => path,
            };
        }
        let fault = match &unknown {
            Some((name, known)) => unknown_key(source, node.at(&path), name, known),
            None => wrong_value(source, node.at(&path), &said),
        };
        faults.push(fault);
        let taken_out = match unknown {
            Some((name, _)) => remove(&mut value, &path, Some(&name)),
            None => remove(&mut value, &path, None),
        };
        if !taken_out {
            return None;
        }
    }
    None
}

/// `a, b` and `c` out of "unknown field `x`, expected one of `a`, `b`".
fn unknown_field(said: &str) -> Option<(String, Vec<String>)> {
    let rest = &said[said.find("unknown field `")? + "unknown field `".len()..];
    let (name, rest) = rest.split_once("`, ").or_else(|| rest.split_once('`'))?;
    let known = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((name.to_owned(), known))
}

fn unknown_key(source: &Arc<Source>, parent: &Node, name: &str, known: &[String]) -> Fault {
    let span = parent.entry(name).map_or(parent.span.clone(), |(key, _)| key.span.clone());
    let safe = shown(name);
    let fault = source.fault(span, "unknown_key", words!("没有 `{safe}` 这个字段", "there is no field `{safe}`"));
    match nearest(name, known.iter().map(String::as_str)) {
        Some(meant) => fault.hint(words!("是否指 `{meant}`？", "did you mean `{meant}`?")),
        None => {
            let all = known.join(", ");
            fault.hint(words!("可用的字段：{all}", "the fields are: {all}"))
        }
    }
}

/// Between the two languages of a message that has to pass through serde's single string.
const BETWEEN: char = '\u{1}';

/// An error for serde that keeps both languages.
pub fn error<E: serde::de::Error>(said: &Words) -> E {
    E::custom(format!("{}{BETWEEN}{}", said.zh, said.en))
}

fn wrong_value(source: &Arc<Source>, node: &Node, said: &str) -> Fault {
    if let Some((zh, en)) = said.split_once(BETWEEN) {
        // serde puts the path before a custom message.
        let zh = zh.rsplit_once("\u{2}").map_or(zh, |(_, zh)| zh);
        return source.fault(node.span.clone(), "value", Words::new(zh, en));
    }
    if let Some((given, known)) = unknown_variant(said) {
        let given = shown(&given);
        let all = known.join(", ");
        let fault = source.fault(
            node.span.clone(),
            "value",
            words!("不认识 `{given}`，应为：{all}", "`{given}` is none of: {all}"),
        );
        return match nearest(&given.to_lowercase(), known.iter().map(String::as_str)) {
            Some(meant) => fault.hint(words!("是否指 `{meant}`？", "did you mean `{meant}`?")),
            None => fault,
        };
    }
    let kind = match node.kind {
        Kind::Null => ("空", "nothing"),
        Kind::Scalar { .. } => ("一个值", "a single value"),
        Kind::List(_) => ("一个列表", "a list"),
        Kind::Map(_) => ("一组字段", "a map"),
    };
    let expected = said.split_once("expected ").map_or("another kind of value", |(_, e)| e);
    let expected = expected.split(" at line").next().unwrap_or(expected);
    let expected_zh = match expected {
        "a string" => "文字",
        "a sequence" => "列表 […]",
        "a boolean" => "true 或 false",
        e if e.contains("map") || e.starts_with("struct") => "一组字段",
        other => other,
    };
    let expected = if expected.starts_with("struct") { "a map of fields" } else { expected };
    let (zh, en) = kind;
    source.fault(
        node.span.clone(),
        "type",
        words!("这里应为{expected_zh}，却是{zh}", "expected {expected} here, found {en}"),
    )
}

fn unknown_variant(said: &str) -> Option<(String, Vec<String>)> {
    let rest = &said[said.find("unknown variant `")? + "unknown variant `".len()..];
    let (name, rest) = rest.split_once("`, ")?;
    Some((name.to_owned(), rest.split('`').skip(1).step_by(2).map(str::to_owned).collect()))
}

/// Takes what a path leads to (or the key below it) out of a value; false if that is the value itself.
fn remove(value: &mut Value, path: &str, key: Option<&str>) -> bool {
    let mut parts: Vec<&str> =
        path.split(['.', '[']).filter(|p| !p.is_empty()).map(|p| p.trim_end_matches(']')).collect();
    if let Some(key) = key {
        parts.push(key);
    }
    let Some(last) = parts.pop() else { return false };
    let mut node = value;
    for part in parts {
        let next = match node {
            Value::Mapping(map) => map.get_mut(part),
            Value::Sequence(items) => part.parse().ok().and_then(|n: usize| items.get_mut(n)),
            _ => None,
        };
        match next {
            Some(found) => node = found,
            None => return false,
        }
    }
    match node {
        Value::Mapping(map) => map.remove(last).is_some(),
        // The place is kept, so that the paths of later items stay true; a null item reads as absent.
        Value::Sequence(items) => match last.parse().ok().and_then(|n: usize| items.get_mut(n)) {
            Some(item) if *item != Value::Null => {
                *item = Value::Null;
                true
            }
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        text: Option<String>,
        to: Option<Vec<Option<String>>>,
        sync: Option<Sync>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Sync {
        Together,
    }

    #[test]
    fn all_faults_are_found_each_at_its_place() {
        let source = Source::new("a.yaml", "txet: a\ntext: [b]\nto: [x, {y: 1}, z]\nsync: togehter\n");
        let (node, none) = super::super::yaml::parse(&source);
        assert_eq!(none, []);
        let mut faults = Vec::new();
        let read: Sample = read(&source, &node.unwrap(), &mut faults).unwrap();
        assert_eq!(read.to.unwrap(), [Some("x".to_owned()), None, Some("z".to_owned())]);
        assert_eq!((read.text, read.sync), (None, None));
        super::super::sort(&mut faults);
        let found: Vec<_> = faults.iter().map(|f| (f.code, f.start().line, f.start().column)).collect();
        assert_eq!(found, [("unknown_key", 1, 1), ("type", 2, 7), ("type", 3, 9), ("value", 4, 7)]);
        assert_eq!(faults[0].hint.as_ref().unwrap().en, "did you mean `text`?");
        assert_eq!(faults[3].hint.as_ref().unwrap().en, "did you mean `together`?");
    }
}
