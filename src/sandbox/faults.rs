//! The faults: which call gets which trouble.
//!
//! Rules are counted, and drawn from a seed of their own, so that the same calls in the same order meet the same trouble.
//! A rule decides as early as it can: one about a platform alone can refuse the connection itself, one about an account or
//! a text has to read the request first.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dice::Dice;
use crate::clock::Mono;

/// The behaviours by name; the place in the list is the number, and from 30 on the answer itself is hostile.
const NAMES: [&str; 42] = [
    "latency",
    "error",
    "proxy_page",
    "cut_body",
    "reset_after",
    "reset_before",
    "black_hole",
    "delayed",
    "duplicate",
    "limit",
    "token",
    "captcha",
    "review",
    "silent_cut",
    "eaten",
    "unreachable",
    "stale",
    "clock",
    "dirt",
    "redirect",
    "overload",
    "big_ids",
    "rewritten",
    "deleted",
    "unfit",
    "pending",
    "unaudited",
    "slow_key",
    "blacklist",
    "huge_body",
    "gzip_bomb",
    "endless_headers",
    "endless_body",
    "trickle",
    "continue_flood",
    "http09",
    "deep_json",
    "odd_id",
    "echo_token",
    "retry_after",
    "wrong_reply",
    "gap",
];

/// A behaviour of the platforms page by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour(u8);

impl Behaviour {
    pub fn named(name: &str) -> Option<Behaviour> {
        NAMES.iter().position(|known| *known == name).map(|at| Behaviour(at as u8 + 1))
    }

    pub fn number(self) -> u8 {
        self.0
    }

    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0) - 1]
    }
}

impl<'de> Deserialize<'de> for Behaviour {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Behaviour, D::Error> {
        let value = Value::deserialize(from)?;
        let found = match &value {
            Value::Number(n) => n.as_u64().filter(|n| (1..=NAMES.len() as u64).contains(n)).map(|n| Behaviour(n as u8)),
            Value::String(name) => Behaviour::named(name),
            _ => None,
        };
        found.ok_or_else(|| serde::de::Error::custom(format!("no behaviour is called {value}; there are {NAMES:?}")))
    }
}

impl Serialize for Behaviour {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// What a behaviour can be told; each reads what it needs and has defaults for the rest.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Which variant: see each behaviour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A platform's own error code, and its second half at Tencent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errcode: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether the call is carried out all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executes: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<String>,
    /// How many: polls, connections, bytes or characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// A literal value: an id, or the text of a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// One rule: the trouble, whom it meets and how often.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    pub behaviour: Behaviour,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// `platform:unit` or the unit alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// A class such as `post`, `timeline`, `delete`, or a part of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Only the n-th matching call, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nth: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    #[serde(default)]
    pub seed: u64,
    /// At most so many times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// In force from so many seconds after it was set, and for so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<f64>,
    #[serde(default)]
    pub params: Params,
}

impl FaultRule {
    /// A rule that meets every call.
    pub fn always(behaviour: &str) -> Option<FaultRule> {
        Some(FaultRule {
            behaviour: Behaviour::named(behaviour)?,
            platform: None,
            account: None,
            operation: None,
            text: None,
            nth: None,
            every: None,
            probability: None,
            seed: 0,
            times: None,
            from_s: None,
            for_s: None,
            params: Params::default(),
        })
    }

    /// Without account, operation and text nothing of the request needs to be read.
    fn blind(&self) -> bool {
        self.account.is_none() && self.operation.is_none() && self.text.is_none()
    }

    fn phase(&self) -> Phase {
        match self.behaviour.name() {
            "unreachable" | "stale" if self.blind() => Phase::Connect,
            "overload" if self.params.count.is_some() => Phase::Connect,
            "reset_before" | "blacklist" if self.account.is_none() && self.text.is_none() => Phase::Head,
            _ => Phase::Body,
        }
    }

    /// A listener can only be taken away as a whole, not for one connection in five.
    pub(super) fn closes_listener(&self) -> bool {
        let counted = self.nth.is_some() || self.every.is_some() || self.times.is_some() || self.probability.is_some();
        let refuses = matches!(self.params.kind.as_deref(), None | Some("refused" | "dns"));
        self.behaviour.name() == "unreachable" && refuses && self.phase() == Phase::Connect && !counted
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connect,
    Head,
    Body,
}

/// A call, as far as it is known in this phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meets<'a> {
    pub platform: &'a str,
    pub unit: Option<&'a str>,
    pub op: &'a str,
    pub path: &'a str,
    pub text: Option<&'a str>,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub rule: FaultRule,
    pub matched: u64,
    pub fired: u64,
    since: Mono,
    dice: Dice,
}

impl Rule {
    pub fn new(rule: FaultRule, since: Mono, seed: u64) -> Rule {
        // Of its own for each behaviour: rules that were given no seed must not fire at the same calls.
        let own = u64::from(rule.behaviour.number()).wrapping_mul(0xD1B5_4A32_D192_ED03);
        let dice = Dice(rule.seed ^ seed.rotate_left(17) ^ own);
        Rule { rule, matched: 0, fired: 0, since, dice }
    }

    pub fn in_force(&self, now: Mono) -> bool {
        let age = now.0.saturating_sub(self.since.0).as_secs_f64();
        let from = self.rule.from_s.unwrap_or(0.0);
        age >= from && self.rule.for_s.is_none_or(|long| age < from + long)
    }

    pub fn draw(&mut self, phase: Phase, meets: Meets<'_>, now: Mono) -> bool {
        if self.rule.phase() != phase || !self.in_force(now) || !self.matches(meets) {
            return false;
        }
        self.matched += 1;
        let rule = &self.rule;
        let fires = rule.times.is_none_or(|times| self.fired < times)
            && rule.nth.is_none_or(|nth| self.matched == nth)
            && rule.every.is_none_or(|every| self.matched.is_multiple_of(every.max(1)))
            && rule.probability.is_none_or(|p| self.dice.unit() < p);
        self.fired += u64::from(fires);
        fires
    }

    fn matches(&self, m: Meets<'_>) -> bool {
        let rule = &self.rule;
        let account = |wanted: &str| {
            m.unit.is_some_and(|unit| {
                wanted == unit || wanted.split_once(':').is_some_and(|(p, u)| p == m.platform && u == unit)
            })
        };
        rule.platform.as_deref().is_none_or(|p| p == m.platform)
            && rule.account.as_deref().is_none_or(account)
            && rule.operation.as_deref().is_none_or(|op| op == m.op || (op.contains('/') && m.path.contains(op)))
            && rule.text.as_deref().is_none_or(|part| m.text.is_some_and(|text| text.contains(part)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use serde_json::json;

    fn fired(rule: Value, calls: usize) -> Vec<usize> {
        let mut rule = Rule::new(serde_json::from_value(rule).unwrap(), Mono(Duration::ZERO), 1);
        let meets = Meets { platform: "sina", unit: Some("a"), op: "post", path: "/2/x", text: Some("早安") };
        (1..=calls).filter(|_| rule.draw(Phase::Body, meets, Mono(Duration::ZERO))).collect()
    }

    #[test]
    fn rules_count_their_calls_and_repeat_their_chance() {
        assert_eq!(fired(json!({"behaviour": 2, "nth": 3}), 6), [3]);
        assert_eq!(fired(json!({"behaviour": "error", "every": 2, "times": 2}), 9), [2, 4]);
        assert_eq!(fired(json!({"behaviour": "error", "account": "sina:b"}), 3), [0usize; 0]);
        assert_eq!(fired(json!({"behaviour": "error", "text": "早"}), 1), [1]);
        let drawn = fired(json!({"behaviour": "error", "probability": 0.3, "seed": 4}), 50);
        assert_eq!(drawn, fired(json!({"behaviour": "error", "probability": 0.3, "seed": 4}), 50));
        assert!((5..30).contains(&drawn.len()));
    }

    #[test]
    fn every_row_of_the_page_has_a_name() {
        for number in 1..=NAMES.len() {
            let behaviour: Behaviour = serde_json::from_value(json!(number)).unwrap();
            assert_eq!(Behaviour::named(behaviour.name()), Some(behaviour));
        }
        assert!(serde_json::from_value::<FaultRule>(json!({"behaviour": "nonsense"})).is_err());
        assert!(serde_json::from_value::<FaultRule>(json!({"behaviour": 0})).is_err());
    }
}
