//! Units, accounts and their secrets, and which accounts a `to` means.
//!
//! A unit's id is its path in the tree, an account's is `PLATFORM:UNIT`. A secret has no `Display`,
//! no `Serialize` and a `Debug` that says nothing: it cannot be printed by mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::text_id;
use super::words::{Words, nearest, shown, words};

text_id! {
    /// A unit's path: `shanghai/pudong/lujiazui`.
    UnitId
}
text_id! {
    /// A platform's name in the configuration: `sina`.
    PlatformName
}
text_id! {
    /// One unit's identity on one platform: `sina:shanghai/pudong`.
    AccountId
}

impl AccountId {
    pub fn new(platform: &str, unit: &str) -> AccountId {
        AccountId(format!("{platform}:{unit}").into())
    }

    pub fn platform(&self) -> &str {
        self.0.split_once(':').map_or("", |(platform, _)| platform)
    }

    pub fn unit(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, unit)| unit)
    }
}

/// A credential: one line, or a JSON object where an `api` needs several values.
#[derive(Clone)]
pub struct Secret(Arc<SecretString>);

impl Secret {
    pub fn new(value: String) -> Secret {
        Secret(Arc::new(SecretString::from(value)))
    }

    /// The value itself, for the one place that puts it into a request.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// A field of a secret that is a JSON object.
    pub fn field(&self, name: &str) -> Option<String> {
        let object: serde_json::Value = serde_json::from_str(self.expose()).ok()?;
        match object.get(name)? {
            serde_json::Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// A field of the object, or the whole line where the secret is one line.
    pub fn field_or_line(&self, name: &str) -> String {
        self.field(name).unwrap_or_else(|| self.expose().to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What kind of office a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnitLevel {
    City,
    District,
    Street,
    Department,
    Service,
    Association,
}

/// Whether a unit or an account is in use; one that is not gets nothing and keeps its history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Active,
    Suspended,
    Closed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unit {
    pub id: UnitId,
    pub name: String,
    pub level: UnitLevel,
    pub tags: BTreeSet<String>,
    /// GB/T 2260 code, for the areas of an alert.
    pub region: Option<String>,
    pub status: Status,
}

#[derive(Clone, Debug)]
pub struct Account {
    pub id: AccountId,
    pub handle: String,
    pub uid: Option<String>,
    pub status: Status,
    /// Releases ahead of the others in the same slot.
    pub lead: bool,
    /// Further fields its `api` knows (`openid`, `cover`, …), none of them secret.
    pub further: BTreeMap<String, String>,
    /// Absent when it could not be read: then `secret_fault` says why, and nothing is sent.
    pub secret: Option<Secret>,
    pub secret_fault: Option<Words>,
}

impl Account {
    /// Whether a platform that knows this account would take the other for it too.
    pub fn is_known_as(&self, other: &Account) -> bool {
        let (secret, others) = (self.secret.as_ref(), other.secret.as_ref());
        secret.map(Secret::expose) == others.map(Secret::expose)
            && self.uid == other.uid
            && self.further == other.further
    }
}

/// All units and accounts of the configuration.
#[derive(Clone, Debug, Default)]
pub struct City {
    pub units: BTreeMap<UnitId, Unit>,
    pub accounts: BTreeMap<AccountId, Account>,
    pub platforms: BTreeSet<PlatformName>,
}

/// One entry of `to` or `except`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    pub platform: Option<PlatformName>,
    pub whom: Whom,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    All,
    Unit(UnitId),
    Below(UnitId),
    Tag(String),
}

impl Selector {
    /// Reads `unit`, `unit/**`, `**`, `#tag`, each with an optional `PLATFORM:` before it.
    pub fn parse(text: &str) -> Result<Selector, Words> {
        let (platform, rest) = match text.split_once(':') {
            Some((platform, rest)) if is_name(platform) => (Some(PlatformName::from(platform)), rest),
            Some(_) => return Err(not_a_selector(text)),
            None => (None, text),
        };
        let whom = match rest {
            "**" => Whom::All,
            tag if tag.starts_with('#') && is_tag(&tag[1..]) => Whom::Tag(tag[1..].to_owned()),
            unit => match unit.strip_suffix("/**") {
                Some(top) if is_path(top) => Whom::Below(UnitId::from(top)),
                None if is_path(unit) => Whom::Unit(UnitId::from(unit)),
                _ => return Err(not_a_selector(text)),
            },
        };
        Ok(Selector { platform, whom })
    }

    fn takes(&self, account: &AccountId, city: &City) -> bool {
        if self.platform.as_ref().is_some_and(|p| p.as_str() != account.platform()) {
            return false;
        }
        let unit = account.unit();
        match &self.whom {
            Whom::All => true,
            Whom::Unit(id) => unit == id.as_str(),
            Whom::Below(id) => {
                unit.strip_prefix(id.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Whom::Tag(tag) => city.units.get(unit).is_some_and(|u| u.tags.contains(tag)),
        }
    }
}

fn not_a_selector(text: &str) -> Words {
    let text = shown(&text.chars().take(80).collect::<String>());
    words!(
        "`{text}` 不是收件写法：应为 `单位`、`单位/**`、`**` 或 `#标签`，前面可加 `平台:`",
        "`{text}` selects nothing: write `unit`, `unit/**`, `**` or `#tag`, with `PLATFORM:` before it if wanted"
    )
}

/// A platform's name, or one part of a unit's path.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

pub fn is_path(text: &str) -> bool {
    text.len() <= 200 && text.split('/').all(is_name)
}

/// A tag: letters of any script, digits, `-` and `_`.
pub fn is_tag(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
}

/// A selector that means no account, and what was perhaps meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nobody {
    pub said: Words,
    pub hint: Option<Words>,
}

impl City {
    /// The accounts in use that a selector means; an error with the nearest name when there are none.
    pub fn select(&self, selector: &Selector) -> Result<BTreeSet<AccountId>, Nobody> {
        let hit = |a: &&Account| selector.takes(&a.id, self);
        let found: BTreeSet<_> = self.accounts.values().filter(hit).map(|a| a.id.clone()).collect();
        if found.is_empty() { Err(self.nobody(selector)) } else { Ok(found) }
    }

    /// Whether nothing is published to this account at present: it, or its unit, is not `active`.
    pub fn is_resting(&self, id: &AccountId) -> bool {
        let unit = self.units.get(id.unit()).map_or(Status::Closed, |u| u.status);
        let account = self.accounts.get(id).map_or(Status::Closed, |a| a.status);
        unit != Status::Active || account != Status::Active
    }

    fn nobody(&self, selector: &Selector) -> Nobody {
        let before = selector.platform.as_ref().map_or_else(String::new, |p| format!("{p}:"));
        if let Some(platform) = &selector.platform
            && !self.platforms.contains(platform)
        {
            let near = nearest(platform.as_str(), self.platforms.iter().map(PlatformName::as_str));
            return nobody(words!("没有名为 `{platform}` 的平台", "there is no platform `{platform}`"), near);
        }
        match &selector.whom {
            Whom::All => nobody(Words::new("没有任何账号", "there are no accounts"), None),
            Whom::Tag(tag) => {
                let tags: BTreeSet<&str> =
                    self.units.values().flat_map(|u| u.tags.iter().map(String::as_str)).collect();
                let near = if tags.contains(tag.as_str()) { None } else { nearest(tag, tags) };
                let meant = near.map(|near| format!("{before}#{near}"));
                nobody(words!("没有账号带标签 `#{tag}`", "no account has the tag `#{tag}`"), meant.as_deref())
            }
            Whom::Unit(id) | Whom::Below(id) => {
                let tail = if matches!(selector.whom, Whom::Below(_)) { "/**" } else { "" };
                let known = self.units.contains_key(id);
                let near = if known { None } else { nearest(id.as_str(), self.units.keys().map(UnitId::as_str)) };
                let meant = near.map(|near| format!("{before}{near}{tail}"));
                nobody(
                    words!("没有账号属于 `{before}{id}{tail}`", "no account matches `{before}{id}{tail}`"),
                    meant.as_deref(),
                )
            }
        }
    }
}

fn nobody(said: Words, meant: Option<&str>) -> Nobody {
    Nobody { said, hint: meant.map(|name| words!("是否指 `{name}`？", "did you mean `{name}`?")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn city() -> City {
        let mut city = City::default();
        for (unit, tags, platforms) in [
            ("shanghai", "lead", "sina tencent eastday xinmin"),
            ("shanghai/pudong", "district", "sina tencent"),
            ("shanghai/pudong/lujiazui", "street", "sina"),
            ("shanghai/pudongx", "", "sina"),
        ] {
            city.units.insert(
                unit.into(),
                Unit {
                    id: unit.into(),
                    name: unit.to_owned(),
                    level: UnitLevel::District,
                    tags: tags.split_whitespace().map(str::to_owned).collect(),
                    region: None,
                    status: Status::Active,
                },
            );
            for platform in platforms.split(' ') {
                city.platforms.insert(platform.into());
                let id = AccountId::new(platform, unit);
                let account = Account {
                    id: id.clone(),
                    handle: String::new(),
                    uid: None,
                    status: Status::Active,
                    lead: false,
                    further: BTreeMap::new(),
                    secret: None,
                    secret_fault: None,
                };
                city.accounts.insert(id, account);
            }
        }
        city
    }

    #[test]
    fn selectors_take_what_the_contract_says() {
        let city = city();
        for (selector, count) in [
            ("**", 8),
            ("shanghai", 4),
            ("shanghai/**", 8),
            ("shanghai/pudong/**", 3),
            ("sina:**", 4),
            ("sina:shanghai/pudong", 1),
            ("#lead", 4),
            ("sina:#lead", 1),
        ] {
            let parsed = Selector::parse(selector).unwrap();
            assert_eq!(city.select(&parsed).unwrap().len(), count, "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_or_matches_nobody_is_refused_with_a_hint() {
        for bad in
            ["", "sina:", "../**", "shanghai/../**", "shanghai/", "#", "*", "a b", "(a+)+$", ":x", "sina:tencent:x"]
        {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
        let city = city();
        let said = |s: &str| {
            let nobody = city.select(&Selector::parse(s).unwrap()).unwrap_err();
            (nobody.said.en, nobody.hint.map(|h| h.en))
        };
        let meant = |name: &str| Some(format!("did you mean `{name}`?"));
        assert_eq!(
            said("shanghai/pudnog/**"),
            ("no account matches `shanghai/pudnog/**`".to_owned(), meant("shanghai/pudong/**"))
        );
        assert_eq!(said("sinna:**"), ("there is no platform `sinna`".to_owned(), meant("sina")));
        assert_eq!(said("#nobody"), ("no account has the tag `#nobody`".to_owned(), None));
    }

    #[test]
    fn r34_a_secret_prints_nothing_of_itself() {
        let secret = Secret::new(r#"{"appid":"wx1","secret":"canary"}"#.to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.field("secret").as_deref(), Some("canary"));
    }
}
