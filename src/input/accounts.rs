//! The unit tree: one file, or any number of files in a folder, and where each secret is read from.
//!
//! A secret is never written in YAML. A literal is refused without being printed, not even its length.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::yaml::{self, Node};
use super::{Fault, Source, images, read_text, typed, written, yaml_files};
use crate::core::accounts::{
    Account, AccountId, City, PlatformName, Secret, Status, Unit, UnitId, UnitLevel, is_path, is_tag,
};
use crate::core::policy::PlatformSettings;
use crate::core::words::{Words, nearest, shown, words};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Accounts")]
pub struct Raw {
    units: Option<Vec<Option<RawUnit>>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawUnit {
    /// Full at the top of a file, relative below.
    id: Option<String>,
    name: Option<String>,
    level: Option<UnitLevel>,
    tags: Option<Vec<Option<String>>>,
    /// GB/T 2260 code.
    region: Option<String>,
    status: Option<Status>,
    accounts: Option<BTreeMap<String, Option<RawAccount>>>,
    units: Option<Vec<Option<RawUnit>>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawAccount {
    handle: Option<String>,
    uid: Option<String>,
    /// `env:NAME`, `file:PATH` or `credential:NAME`.
    token: Option<String>,
    status: Option<Status>,
    openid: Option<String>,
    name: Option<String>,
    cover: Option<String>,
    author: Option<String>,
    id: Option<String>,
}

/// Where secrets are looked for.
pub struct Secrets<'a> {
    /// Folder of the configuration: `file:` is relative to it.
    pub folder: &'a Path,
    /// The environment, handed in so that a test has its own.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// A drill and `plan` need none.
    pub read: bool,
}

/// Reads all units and accounts. Faults are complete; the city holds what is good.
pub fn read(
    path: &Path,
    platforms: &BTreeMap<PlatformName, PlatformSettings>,
    secrets: &Secrets<'_>,
) -> (City, Vec<Fault>) {
    let mut reader = Reader {
        city: City { platforms: platforms.keys().cloned().collect(), ..City::default() },
        faults: Vec::new(),
        secrets,
        places: BTreeMap::new(),
        tokens: BTreeMap::new(),
        source: Source::new("", ""),
    };
    for file in yaml_files(path, &mut reader.faults) {
        match read_text(&file, &file.display().to_string()) {
            Ok(source) => reader.file(source),
            Err(fault) => reader.faults.push(*fault),
        }
    }
    reader.orphans();
    let mut faults = super::blotted(reader.faults);
    super::sort(&mut faults);
    (reader.city, faults)
}

struct Reader<'a> {
    city: City,
    faults: Vec<Fault>,
    secrets: &'a Secrets<'a>,
    /// Where each unit was first written, for the second one's fault.
    places: BTreeMap<UnitId, (Arc<Source>, std::ops::Range<usize>)>,
    tokens: BTreeMap<String, AccountId>,
    source: Arc<Source>,
}

impl Reader<'_> {
    fn file(&mut self, source: Arc<Source>) {
        self.source = source.clone();
        let (node, faults) = yaml::parse(&source);
        self.faults.extend(faults);
        let Some(node) = node else { return };
        let Some(raw) = typed::read::<Raw>(&source, &node, &mut self.faults) else { return };
        let units = node.get("units").map(Node::items).unwrap_or_default();
        for (raw, node) in raw.units.into_iter().flatten().zip(units) {
            if let Some(raw) = raw {
                self.unit(raw, node, None);
            }
        }
        written::remarks(&source, &node, &mut self.faults);
    }

    fn fault(&mut self, node: &Node, code: &'static str, message: Words, hint: Words) {
        self.faults.push(self.source.fault(node.span.clone(), code, message).hint(hint));
    }

    fn unit(&mut self, raw: RawUnit, node: &Node, parent: Option<&UnitId>) {
        let given = raw.id.clone().unwrap_or_default();
        let full = parent.map_or(given.clone(), |p| format!("{p}/{given}"));
        if !is_path(&full) {
            let safe = shown(&given);
            let said = words!("`{safe}` 不能作单位 id", "`{safe}` cannot be a unit's id");
            let hint = Words::new(
                "用小写字母、数字、`-`、`_`，层级之间用 `/`",
                "use small letters, digits, `-` and `_`, with `/` between levels",
            );
            self.fault(node.get("id").unwrap_or(node), "unit_id", said, hint);
            return;
        }
        let id = UnitId(full.into());
        let place = node.get("id").unwrap_or(node);
        if let Some((source, span)) = self.places.get(&id) {
            let at = format!("{}:{}", source.name, source.place(span.start).line);
            let said = words!("单位 {id} 写了两次", "the unit {id} is given twice");
            self.fault(place, "unit_twice", said, words!("第一次在 {at}", "the first is at {at}"));
            return;
        }
        self.places.insert(id.clone(), (self.source.clone(), place.span.clone()));
        let tags = self.tags(&raw, node);
        let unit = Unit {
            id: id.clone(),
            name: raw.name.clone().unwrap_or_else(|| id.to_string()),
            level: raw.level.unwrap_or(UnitLevel::Department),
            tags,
            region: raw.region.clone(),
            status: raw.status.unwrap_or_default(),
        };
        let lead = unit.tags.contains("lead");
        self.city.units.insert(id.clone(), unit);
        for (platform, account) in raw.accounts.into_iter().flatten() {
            let entry = node.get("accounts").and_then(|a| a.entry(&platform)).cloned();
            let (key, value) = entry.unwrap_or_else(|| (node.clone(), node.clone()));
            self.account(&id, &platform, account.unwrap_or_default(), (&key, &value), lead);
        }
        let below = node.get("units").map(Node::items).unwrap_or_default();
        for (raw, node) in raw.units.into_iter().flatten().zip(below) {
            if let Some(raw) = raw {
                self.unit(raw, node, Some(&id));
            }
        }
    }

    fn tags(&mut self, raw: &RawUnit, node: &Node) -> std::collections::BTreeSet<String> {
        let mut tags = std::collections::BTreeSet::new();
        for (n, tag) in raw.tags.iter().flatten().enumerate() {
            match tag {
                Some(tag) if is_tag(tag) => {
                    tags.insert(tag.clone());
                }
                Some(tag) => {
                    let safe = shown(tag);
                    let said = words!("`{safe}` 不能作标签", "`{safe}` cannot be a tag");
                    let hint = Words::new("标签不带 `#`", "a tag is written without `#`");
                    self.fault(node.at(&format!("tags[{n}]")), "tag", said, hint);
                }
                None => {}
            }
        }
        tags
    }

    fn account(&mut self, unit: &UnitId, platform: &str, raw: RawAccount, (key, node): (&Node, &Node), lead: bool) {
        if !self.city.platforms.contains(platform) {
            let safe = shown(platform);
            let known: Vec<&str> = self.city.platforms.iter().map(PlatformName::as_str).collect();
            let said = words!("没有名为 `{safe}` 的平台", "there is no platform `{safe}`");
            let hint = match nearest(platform, known.iter().copied()) {
                Some(meant) => words!("是否指 `{meant}`？", "did you mean `{meant}`?"),
                None => words!(
                    "在 fabu.yaml 的 `platforms:` 里加上它和 `base_url`",
                    "add it to `platforms:` in fabu.yaml, with its `base_url`"
                ),
            };
            self.fault(key, "platform", said, hint);
            return;
        }
        let id = AccountId::new(platform, unit.as_str());
        let (secret, secret_fault) = self.secret(&raw, node, &id);
        let further: BTreeMap<String, String> =
            [("openid", raw.openid), ("name", raw.name), ("cover", raw.cover), ("author", raw.author), ("id", raw.id)]
                .into_iter()
                .filter_map(|(k, v)| Some((k.to_owned(), v?)))
                .collect();
        let account = Account {
            id: id.clone(),
            handle: raw.handle.unwrap_or_default(),
            uid: raw.uid,
            status: raw.status.unwrap_or_default(),
            lead,
            further,
            secret,
            secret_fault,
        };
        self.city.accounts.insert(id, account);
    }

    fn secret(&mut self, raw: &RawAccount, node: &Node, id: &AccountId) -> (Option<Secret>, Option<Words>) {
        let place = node.get("token").unwrap_or(node).clone();
        let Some(token) = raw.token.as_deref() else {
            // A closed account needs none.
            if raw.status.unwrap_or_default() == Status::Active {
                let hint = Words::new("加 token: \"file:secrets/…\"", "add token: \"file:secrets/…\"");
                self.fault(&place, "no_token", words!("{id} 没有 `token`", "{id} has no `token`"), hint);
            }
            return (None, None);
        };
        let Some((kind, name)) =
            token.split_once(':').filter(|(k, n)| ["env", "file", "credential"].contains(k) && !n.is_empty())
        else {
            // R35: neither the value nor its length is shown; the caret points to the key alone.
            let span = node.entry("token").map_or(node.span.clone(), |(key, _)| key.span.clone());
            let said = words!("{id} 的 `token` 直接写了密钥", "the `token` of {id} is written out");
            let hint = Words::new(
                "写作 env:变量名、file:路径 或 credential:名字，并更换这个密钥",
                "write env:NAME, file:PATH or credential:NAME, and replace this secret: it has been in a file",
            );
            self.faults.push(Fault {
                source: masked(&self.source, &place),
                ..self.source.fault(span, "literal_secret", said).hint(hint)
            });
            return (None, None);
        };
        if let Some(other) = self.tokens.insert(token.to_owned(), id.clone()) {
            let said = words!("{id} 与 {other} 用同一个密钥", "{id} and {other} use one secret");
            self.faults.push(self.source.fault(place.span.clone(), "token_twice", said).warning());
        }
        if !self.secrets.read {
            return (None, None);
        }
        match self.value(kind, name) {
            Ok(value) => (Some(Secret::new(value)), None),
            Err(said) => {
                let hint = words!("{id} 在此之前不会发布", "nothing is published to {id} until then");
                self.faults.push(self.source.fault(place.span.clone(), "secret", said.clone()).hint(hint));
                (None, Some(said))
            }
        }
    }

    fn value(&self, kind: &str, name: &str) -> Result<String, Words> {
        let safe = shown(name);
        match kind {
            "env" => match (self.secrets.env)(name).map(|v| v.trim().to_owned()) {
                Some(value) if !value.is_empty() => Ok(value),
                Some(_) => Err(words!("环境变量 {safe} 是空的", "the variable {safe} is empty")),
                None => Err(words!("没有环境变量 {safe}", "the variable {safe} is not set")),
            },
            "file" => images::read_secret(&self.secrets.folder.join(name)),
            _ => {
                let folder = (self.secrets.env)("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                    words!(
                        "没有 systemd 凭据 {safe}：未由 LoadCredential= 提供",
                        "no systemd credential {safe}: none were given by LoadCredential="
                    )
                })?;
                if name.contains('/') || name.starts_with('.') {
                    return Err(words!("`{safe}` 不是凭据名", "`{safe}` is no credential's name"));
                }
                let text = std::fs::read_to_string(Path::new(&folder).join(name)).map_err(|error| {
                    words!("凭据 {safe} 读不了：{error}", "the credential {safe} cannot be read: {error}")
                })?;
                let text = text.trim_end_matches(['\n', '\r']).to_owned();
                if text.is_empty() {
                    Err(words!("凭据 {safe} 是空的", "the credential {safe} is empty"))
                } else {
                    Ok(text)
                }
            }
        }
    }

    /// Every unit below another needs that other one somewhere.
    fn orphans(&mut self) {
        let mut orphans = Vec::new();
        for (id, (source, span)) in &self.places {
            if let Some((parent, _)) = id.as_str().rsplit_once('/')
                && !self.city.units.contains_key(parent)
            {
                let said = words!("{id} 的上级 `{parent}` 不存在", "`{parent}`, above {id}, does not exist");
                orphans.push(source.fault(span.clone(), "no_parent", said));
            }
        }
        self.faults.extend(orphans);
    }
}

/// The file with a literal secret blotted out, so that no excerpt shows it.
fn masked(source: &Arc<Source>, node: &Node) -> Arc<Source> {
    let (start, end) = (node.span.start.min(source.text.len()), node.span.end.min(source.text.len()));
    // To the end of the line: the length of a secret says something too.
    let end = source.text[end..].find(['\n', '}']).map_or(source.text.len(), |n| end + n);
    Source::new(source.name.clone(), format!("{}••••{}", &source.text[..start], &source.text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn read_texts(files: &[(&str, &str)], env: &[(&str, &str)]) -> (City, Vec<Fault>) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let env: BTreeMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let lookup = |name: &str| env.get(name).cloned();
        let config = folder.path().join("fabu.yaml");
        std::fs::write(&config, "platforms: {eastday: {base_url: \"https://t.example\"}}").unwrap();
        let (settings, _) = super::super::settings::read(&config);
        std::fs::remove_file(&config).unwrap();
        read(folder.path(), &settings.unwrap().platforms, &Secrets { folder: folder.path(), env: &lookup, read: true })
    }

    #[test]
    fn a_tree_is_read_over_several_files() {
        let city = "units:\n- id: shanghai\n  tags: [lead]\n  accounts: {sina: {handle: a, token: \"env:A\"}}\n  units:\n  - {id: pudong, level: district, accounts: {eastday: {token: \"env:B\"}}}\n";
        let more = "units:\n- {id: shanghai/pudong/lujiazui, accounts: {sina: {token: \"env:C\"}}}\n";
        let (city, faults) = read_texts(&[("a.yaml", city), ("b.yaml", more)], &[("A", "1"), ("B", "2"), ("C", "3\n")]);
        assert_eq!(faults, []);
        let ids: BTreeSet<_> = city.accounts.keys().map(AccountId::to_string).collect();
        let expected = ["eastday:shanghai/pudong", "sina:shanghai", "sina:shanghai/pudong/lujiazui"];
        assert_eq!(ids, expected.into_iter().map(str::to_owned).collect());
        assert!(city.accounts["sina:shanghai"].lead);
        assert_eq!(city.accounts["sina:shanghai/pudong/lujiazui"].secret.as_ref().unwrap().expose(), "3");
    }

    #[test]
    fn r35_a_literal_is_refused_without_being_printed() {
        let text = "units:\n- {id: shanghai, accounts: {sina: {token: \"2.00canary\"}, tecnent: {}}}\n- {id: shanghai}\n- {id: x/y}\n";
        let (_, faults) = read_texts(&[("a.yaml", text)], &[]);
        let codes: Vec<_> = faults.iter().map(|f| f.code).collect();
        assert_eq!(codes, ["literal_secret", "platform", "unit_twice", "no_parent"]);
        assert!(!format!("{:?}", faults[0]).contains("canary"));
    }
}
