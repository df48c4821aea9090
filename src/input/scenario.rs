//! A drill's scenario (演练脚本): who does what when, and what goes wrong meanwhile.
//!
//! ```yaml
//! scenario:
//!   name: 误报更正
//!   persons: [zhang, li]
//!   lasts: 60s
//!   steps:
//!     - {at: 0s, post: {id: cheer, text: 周末去看灯会！, at: 20s, to: ["**"]}}
//!     - {at: 1s, fault: {behaviour: black_hole, platform: xinmin, for_s: 10}}
//!     - {at: 2s, by: zhang, urgent: {id: alarm, template: rainstorm-red, values: {area: 全市}}}
//!     - {at: 6s, by: li, confirm: alarm}
//!     - {at: 20s, by: zhang, correct: alarm}
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::values::{Span, duration};
use super::yaml::{self, Node};
use super::{Fault, Source, read_text, typed, written};
use crate::core::announcement::Level;
use crate::core::words::{Words, nearest, shown, words};

/// A scenario, read and without a fault.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: String,
    pub persons: Vec<String>,
    /// How long it goes on after its start.
    pub lasts: Duration,
    /// In their order.
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub struct Step {
    /// After the start.
    pub at: Duration,
    pub act: Act,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// A routine post, put into the drill's queue.
    Post(Post),
    /// A rule of the sandbox.
    Fault(Value),
    Urgent {
        by: String,
        urgent: Said,
    },
    Confirm {
        by: String,
        id: String,
    },
    Correct {
        by: String,
        id: String,
    },
    AllClear {
        by: String,
        id: String,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Post {
    pub id: Option<String>,
    pub text: Option<String>,
    /// After the start of the drill.
    pub at: Option<String>,
    pub to: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    pub id: Option<String>,
    pub text: Option<String>,
    pub level: Option<Level>,
    pub to: Option<Vec<String>>,
    pub template: Option<String>,
    pub values: Option<BTreeMap<String, String>>,
    pub update: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    scenario: Option<RawScenario>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    name: Option<String>,
    persons: Option<Vec<Option<String>>>,
    lasts: Option<Span>,
    steps: Option<Vec<Option<RawStep>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    at: Option<Span>,
    by: Option<String>,
    post: Option<Post>,
    fault: Option<serde_yaml::Value>,
    urgent: Option<Said>,
    confirm: Option<String>,
    correct: Option<String>,
    all_clear: Option<String>,
}

/// Reads a scenario; with any error there is none.
pub fn read(path: &Path) -> (Option<Scenario>, Vec<Fault>) {
    match read_text(path, &path.display().to_string()) {
        Ok(source) => parse(&source),
        Err(fault) => (None, vec![*fault]),
    }
}

fn parse(source: &Arc<Source>) -> (Option<Scenario>, Vec<Fault>) {
    let (node, mut faults) = yaml::parse(source);
    let Some(node) = node else {
        faults.push(source.fault(0..0, "missing", Words::new("没有 `scenario`", "there is no `scenario`")));
        return (None, faults);
    };
    let raw: Option<Raw> = typed::read(source, &node, &mut faults);
    let raw = raw.and_then(|r| r.scenario).unwrap_or_default();
    let at = node.get("scenario").unwrap_or(&node);
    let mut reader = Reader { source, faults };
    let scenario = reader.scenario(raw, at);
    let mut faults = reader.faults;
    written::left_out(source, &node, &mut faults);
    (Some(scenario).filter(|_| !faults.iter().any(Fault::is_error)), faults)
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn push(&mut self, node: &Node, code: &'static str, said: Words) {
        self.faults.push(self.source.fault(node.span.clone(), code, said));
    }

    fn scenario(&mut self, raw: RawScenario, node: &Node) -> Scenario {
        let persons: Vec<String> = raw.persons.into_iter().flatten().flatten().collect();
        if persons.iter().collect::<BTreeSet<_>>().len() < persons.len() {
            self.push(node.at("persons"), "value", Words::new("有人出现两次", "a person is named twice"));
        }
        let mut steps = Vec::new();
        for (n, raw) in raw.steps.into_iter().flatten().enumerate() {
            let here = node.at(&format!("steps[{n}]"));
            let Some(raw) = raw else { continue };
            let at = raw.at.map_or(Duration::ZERO, |s| s.0);
            if let Some(act) = self.act(raw, &persons, here) {
                steps.push(Step { at, act });
            }
        }
        if steps.is_empty() {
            self.push(node, "missing", Words::new("没有 `steps`", "there are no `steps`"));
        }
        steps.sort_by_key(|s| s.at);
        let last = steps.last().map_or(Duration::ZERO, |s| s.at);
        Scenario {
            name: raw.name.unwrap_or_else(|| "drill".to_owned()),
            persons,
            lasts: raw.lasts.map_or(Duration::ZERO, |s| s.0).max(last),
            steps,
        }
    }

    fn act(&mut self, raw: RawStep, persons: &[String], node: &Node) -> Option<Act> {
        let by = raw.by.clone();
        let mut acts = Vec::new();
        if let Some(post) = raw.post {
            if let Some(Err(said)) = post.at.as_deref().map(duration) {
                self.push(node.at("post.at"), "value", said);
            }
            acts.push(Act::Post(post));
        }
        if let Some(fault) = raw.fault {
            match rule(fault) {
                Some(rule) => acts.push(Act::Fault(rule)),
                None => {
                    self.push(node.at("fault"), "value", Words::new("不是沙箱的规则", "this is no rule of the sandbox"))
                }
            }
        }
        let person = by.clone().unwrap_or_default();
        acts.extend(raw.urgent.map(|urgent| Act::Urgent { by: person.clone(), urgent }));
        acts.extend(raw.confirm.map(|id| Act::Confirm { by: person.clone(), id }));
        acts.extend(raw.correct.map(|id| Act::Correct { by: person.clone(), id }));
        acts.extend(raw.all_clear.map(|id| Act::AllClear { by: person.clone(), id }));
        if acts.len() != 1 {
            let said = Words::new(
                "每步做一件事：post、fault、urgent、confirm、correct 或 all_clear",
                "each step does one thing: post, fault, urgent, confirm, correct or all_clear",
            );
            self.push(node, "value", said);
            return None;
        }
        let act = acts.remove(0);
        let needs_person = !matches!(act, Act::Post(_) | Act::Fault(_));
        if needs_person && !persons.contains(&person) {
            let safe = shown(&person);
            let near = nearest(&person, persons.iter().map(String::as_str));
            let mut fault = self.source.fault(
                node.at("by").span.clone(),
                "person",
                words!("`by` 不在 `persons` 里：`{safe}`", "`by` is none of `persons`: `{safe}`"),
            );
            fault.hint = near.map(|near| words!("是否指 `{near}`？", "did you mean `{near}`?"));
            self.faults.push(fault);
        }
        Some(act)
    }
}

/// A rule as the sandbox takes it: what looks like a number is one.
fn rule(value: serde_yaml::Value) -> Option<Value> {
    use serde_yaml::Value as Yaml;
    Some(match value {
        Yaml::String(text) => match text.parse::<i64>() {
            Ok(n) => n.into(),
            Err(_) => text.parse::<f64>().map_or_else(|_| text.clone().into(), Value::from),
        },
        Yaml::Bool(b) => b.into(),
        Yaml::Sequence(items) => Value::Array(items.into_iter().map(rule).collect::<Option<_>>()?),
        Yaml::Mapping(map) => {
            let entry = |(k, v): (Yaml, Yaml)| Some((k.as_str()?.to_owned(), rule(v)?));
            Value::Object(map.into_iter().map(entry).collect::<Option<_>>()?)
        }
        Yaml::Null | Yaml::Number(_) | Yaml::Tagged(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "scenario:\n  name: 误报\n  persons: [zhang, li]\n  lasts: 30s\n  steps:\n    \
        - {at: 6s, by: li, confirm: alarm}\n    - {at: 1s, fault: {behaviour: black_hole, platform: xinmin, for_s: 10}}\n    \
        - {at: 2s, by: zhang, urgent: {id: alarm, template: rain, values: {area: 全市}}}\n    \
        - {post: {id: cheer, text: 灯会, at: 20s, to: [\"**\"]}}\n";

    #[test]
    fn steps_come_in_their_order_and_a_rule_has_numbers() {
        let (scenario, faults) = parse(&Source::new("a.yaml", GOOD));
        assert_eq!(faults, []);
        let scenario = scenario.unwrap();
        assert!(matches!(scenario.steps[0].act, Act::Post(_)));
        let Act::Fault(rule) = &scenario.steps[1].act else { panic!() };
        assert_eq!(rule["for_s"], 10);
        assert!(matches!(&scenario.steps[3].act, Act::Confirm { by, .. } if by == "li"));
    }

    #[test]
    fn a_step_without_its_person_or_with_two_acts_is_named() {
        for (from, to, code, line) in [
            ("by: li", "by: lii", "person", 6),
            ("by: zhang, urgent", "urgent", "person", 8),
            ("confirm: alarm", "confirm: alarm, correct: alarm", "value", 6),
            ("at: 20s", "at: soon", "value", 9),
        ] {
            let (scenario, faults) = parse(&Source::new("a.yaml", GOOD.replace(from, to)));
            assert!(scenario.is_none());
            assert_eq!(faults.iter().map(|f| (f.code, f.start().line)).collect::<Vec<_>>(), [(code, line)], "{to}");
        }
    }
}
