//! `fabu.yaml`: where things lie, how the platforms are reached, who may do what.
//!
//! Relative paths are relative to the file. A configuration with any fault is not used at all: the
//! daemon does not start on it, and a running one keeps the old one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::Deserialize;

use super::typed;
use super::values::Whole;
use super::yaml::{self, Node};
use super::{Fault, Source, read_text, written};
use crate::core::accounts::{PlatformName, is_name};
use crate::core::policy::{Cap, Emergency, Limits, Notify, PlatformSettings, Publish, ReadBack, Retry, Warm};
use crate::core::words::{Words, nearest, shown, words};

/// The configuration, read and without a fault.
#[derive(Clone, Debug)]
pub struct Settings {
    pub file: PathBuf,
    pub zone: Tz,
    pub queue: PathBuf,
    pub accounts: PathBuf,
    pub templates: PathBuf,
    pub ledger: PathBuf,
    pub socket: PathBuf,
    pub platforms: BTreeMap<PlatformName, PlatformSettings>,
    /// The file is a drill's: commands find it by this, and no daemon runs by it.
    pub drill: bool,
    pub publish: Publish,
    pub emergency: Emergency,
    pub cap: Cap,
    pub notify: Vec<Notify>,
    pub access: Option<Access>,
}

/// `access:`: names of users and groups by role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Reads.
    #[serde(default)]
    pub view: Vec<String>,
    /// Cancels, deletes, retries, resolves, prunes.
    #[serde(default)]
    pub edit: Vec<String>,
    /// Sends and confirms emergencies, holds.
    #[serde(default)]
    pub duty: Vec<String>,
    /// The ledger and the rest.
    #[serde(default)]
    pub admin: Vec<String>,
}

pub use raw::Raw;
use raw::{RawAfterHold, RawEmergency, RawLimits, RawPlatform, RawPublish, RawReadBack, RawWarm};

mod cap;
mod notify;
mod raw;

/// The dialects, and what is known of each platform that speaks one (`platforms.md` 1.5, 2, 4.2).
const APIS: [&str; 5] = ["weibo", "tencent-weibo", "wechat", "statuses", "mastodon"];

/// Reads the configuration; with any error there is no `Settings`.
pub fn read(file: &Path) -> (Option<Settings>, Vec<Fault>) {
    read_as(file, true)
}

/// Reads the configuration for the sandbox: platforms that have no address yet are no fault.
pub fn read_without_addresses(file: &Path) -> (Option<Settings>, Vec<Fault>) {
    read_as(file, false)
}

/// The socket a file names, even where the rest of it cannot be used: the daemon may still run on an older one.
pub fn socket_of(file: &Path) -> Option<PathBuf> {
    let source = read_text(file, &file.display().to_string()).ok()?;
    let (node, _) = yaml::parse(&source);
    let named =
        node.as_ref().and_then(|n| n.get("socket")).and_then(Node::as_text).unwrap_or("state/fabu.sock").to_owned();
    let folder = file.parent().unwrap_or(Path::new(""));
    Some(folder.join(named))
}

fn read_as(file: &Path, addressed: bool) -> (Option<Settings>, Vec<Fault>) {
    let source = match read_text(file, &file.display().to_string()) {
        Ok(source) => source,
        Err(fault) => return (None, vec![*fault]),
    };
    let (node, mut faults) = yaml::parse(&source);
    let node = node.unwrap_or(Node { span: 0..0, kind: yaml::Kind::Map(Vec::new()) });
    let raw: Option<Raw> = typed::read(&source, &node, &mut faults);
    let mut reader = Reader { source: &source, node: &node, faults, addressed };
    let settings = raw.map(|raw| reader.settings(raw, file));
    let mut faults = reader.faults;
    written::remarks(&source, &node, &mut faults);
    let mut faults = super::blotted(faults);
    super::sort(&mut faults);
    (settings.filter(|_| !faults.iter().any(Fault::is_error)), faults)
}

struct Reader<'a> {
    source: &'a Arc<Source>,
    node: &'a Node,
    faults: Vec<Fault>,
    /// Every platform needs an address.
    addressed: bool,
}

impl Reader<'_> {
    fn fault(&mut self, path: &str, code: &'static str, message: Words, hint: Words) {
        let span = self.node.at(path).span.clone();
        self.faults.push(self.source.fault(span, code, message).hint(hint));
    }

    /// Whether nothing is written at a path: neither a value nor one that could not be read.
    fn is_empty(&self, path: &str) -> bool {
        let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
        self.node.at(parent).get(key).is_none_or(|node| matches!(node.kind, yaml::Kind::Null))
    }

    fn settings(&mut self, raw: Raw, file: &Path) -> Settings {
        let folder = file.parent().unwrap_or(Path::new(""));
        let zone = raw.timezone.as_deref().unwrap_or("Asia/Shanghai");
        let zone = zone.parse::<Tz>().unwrap_or_else(|_| {
            let safe = shown(zone);
            let named = || nearest(zone, chrono_tz::TZ_VARIANTS.iter().map(|z| z.name())).unwrap_or("Asia/Shanghai");
            let near = if is_chinas(zone) { "Asia/Shanghai" } else { named() };
            let (said, hint) = (
                words!("没有时区 `{safe}`", "there is no time zone `{safe}`"),
                words!("如 {near}", "for example {near}"),
            );
            self.fault("timezone", "timezone", said, hint);
            chrono_tz::Asia::Shanghai
        });
        if zone.name().starts_with("Etc/GMT+") {
            let name = zone.name();
            let said = words!(
                "`{name}` 的符号与习惯相反：它在格林尼治以西",
                "`{name}` has the sign turned round: it lies west of Greenwich"
            );
            let hint = Words::new("上海是 Asia/Shanghai", "Shanghai is Asia/Shanghai");
            let span = self.node.at("timezone").span.clone();
            self.faults.push(self.source.fault(span, "timezone", said).hint(hint).warning());
        }
        let path = |given: Option<String>, default: &str| folder.join(given.unwrap_or_else(|| default.to_owned()));
        let ledger = raw.ledger.unwrap_or_else(|| "sqlite:state/fabu.db".to_owned());
        let ledger = match ledger.strip_prefix("sqlite:") {
            Some(path) if !path.is_empty() => folder.join(path),
            _ => {
                let said = Words::new("账本须为 sqlite:路径", "the ledger has to be sqlite:PATH");
                self.fault(
                    "ledger",
                    "ledger",
                    said,
                    Words::new("如 sqlite:state/fabu.db", "for example sqlite:state/fabu.db"),
                );
                folder.join("state/fabu.db")
            }
        };
        if let Some(access) = &raw.access {
            self.access(access);
        }
        Settings {
            file: file.to_owned(),
            zone,
            queue: path(raw.queue, "queue"),
            accounts: path(raw.accounts, "accounts.yaml"),
            templates: path(raw.templates, "templates"),
            ledger,
            socket: path(raw.socket, "state/fabu.sock"),
            platforms: self.platforms(raw.platforms.unwrap_or_default()),
            publish: publish(raw.publish.unwrap_or_default()),
            emergency: emergency(raw.emergency.unwrap_or_default()),
            cap: self.cap(raw.cap.unwrap_or_default()),
            notify: self.notify(raw.notify.unwrap_or_default(), folder),
            access: raw.access,
            drill: raw.drill.unwrap_or(false),
        }
    }

    fn access(&mut self, access: &Access) {
        for (role, names) in
            [("view", &access.view), ("edit", &access.edit), ("duty", &access.duty), ("admin", &access.admin)]
        {
            for (n, name) in names.iter().enumerate() {
                let named = name.strip_prefix("user:").or_else(|| name.strip_prefix("group:"));
                if named.is_none_or(str::is_empty) {
                    let safe = shown(name);
                    let said = words!("`{safe}` 不是用户也不是组", "`{safe}` is neither a user nor a group");
                    let hint = Words::new("写作 user:名字 或 group:名字", "write user:NAME or group:NAME");
                    self.fault(&format!("access.{role}[{n}]"), "access", said, hint);
                }
            }
        }
    }

    fn platforms(&mut self, raw: BTreeMap<String, Option<RawPlatform>>) -> BTreeMap<PlatformName, PlatformSettings> {
        let without_default: &[&str] = if self.addressed { &[] } else { &["eastday", "xinmin"] };
        let named = ["sina", "tencent"].iter().chain(without_default).copied();
        let mut all: BTreeMap<String, Option<RawPlatform>> = named.map(|name| (name.to_owned(), None)).collect();
        all.extend(raw);
        let mut platforms = BTreeMap::new();
        for (name, raw) in all {
            if !is_name(&name) {
                let safe = shown(&name);
                let span =
                    self.node.get("platforms").and_then(|p| p.entry(&name)).map_or(0..0, |(k, _)| k.span.clone());
                let said = words!("`{safe}` 不能作平台名", "`{safe}` cannot name a platform");
                self.faults.push(self.source.fault(span, "platform", said));
                continue;
            }
            if let Some(settings) = self.platform(&name, raw.unwrap_or_default()) {
                platforms.insert(PlatformName(name.into()), settings);
            }
        }
        platforms
    }

    fn platform(&mut self, name: &str, raw: RawPlatform) -> Option<PlatformSettings> {
        let path = format!("platforms.{name}");
        let default_api = match name {
            "sina" => Some("weibo"),
            "tencent" => Some("tencent-weibo"),
            "eastday" | "xinmin" => Some("statuses"),
            _ => None,
        };
        let api = raw.api.clone().or(default_api.map(str::to_owned));
        let Some(api) = api.filter(|a| APIS.contains(&a.as_str())) else {
            let all = APIS.join(", ");
            let said = words!("平台 {name} 没有可用的 `api`", "the platform {name} has no known `api`");
            let hint = words!("可用：{all}", "known: {all}");
            self.fault(&format!("{path}.api"), "api", said, hint);
            return None;
        };
        let default_url = match api.as_str() {
            "weibo" => Some("https://api.weibo.com"),
            "tencent-weibo" => Some("https://open.t.qq.com"),
            "wechat" => Some("https://api.weixin.qq.com"),
            _ => (!self.addressed).then_some("http://127.0.0.1"),
        };
        let Some(base_url) = raw.base_url.clone().or(default_url.map(str::to_owned)) else {
            let said = words!("平台 {name} 没有 `base_url`", "the platform {name} has no `base_url`");
            let hint =
                Words::new("写上平台的地址，如 https://t.example.cn", "give its address, such as https://t.example.cn");
            self.fault(&path, "base_url", said, hint);
            return None;
        };
        if let Err(said) = address(&base_url) {
            let hint =
                Words::new("用 https://主机；http:// 只用于本机", "use https://HOST; http:// is for loopback only");
            self.fault(&format!("{path}.base_url"), "base_url", said, hint);
            return None;
        }
        for (key, url) in [("upload_url", &raw.upload_url), ("biz_url", &raw.biz_url)] {
            if let Some(Err(said)) = url.as_deref().map(address) {
                self.fault(
                    &format!("{path}.{key}"),
                    "base_url",
                    said,
                    Words::new("用 https://主机", "use https://HOST"),
                );
            }
        }
        self.choices(&path, &raw);
        let (limits, read_back) = defaults(&api);
        let further = further(name, &raw);
        let warm = self.warm(&path, raw.warm.unwrap_or_default());
        Some(PlatformSettings {
            name: name.into(),
            base_url: base_url.trim_end_matches('/').to_owned(),
            timeout: raw.timeout.map_or(Duration::from_secs(10), |t| t.0),
            limits: limits_of(raw.limits.unwrap_or_default(), limits),
            read_back: read_back_of(raw.read_back.unwrap_or_default(), read_back),
            warm,
            further,
            api,
        })
    }

    /// Connections that are used more seldom are closed, by us after 75 seconds and by most servers about then.
    fn warm(&mut self, path: &str, raw: RawWarm) -> Warm {
        const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(60);
        let default = Warm::default();
        let warm = Warm {
            connections: raw.connections.map_or(default.connections, |c| c.0),
            every: raw.every.map_or(default.every, |e| e.0),
        };
        if !EVERY.contains(&warm.every) {
            let said = Words::new("`every` 须在 5s 到 60s 之间", "`every` is from 5s to 60s");
            let hint = Words::new(
                "更久的连接会被关掉；不用则写 connections: 0",
                "a connection is closed when it is used more seldom; connections: 0 keeps none",
            );
            self.fault(&format!("{path}.warm.every"), "value", said, hint);
        }
        warm
    }

    /// Settings that take one of a few words.
    fn choices(&mut self, path: &str, raw: &RawPlatform) {
        for (key, value, known) in [
            ("mode", &raw.mode, &["update", "share", "biz"][..]),
            ("publish", &raw.publish, &["freepublish", "mass"]),
            ("auth", &raw.auth, &["bearer", "basic", "oauth1"]),
            ("count", &raw.count, &["points", "width"]),
        ] {
            if let Some(value) = value.as_deref().filter(|v| !known.contains(v)) {
                let (safe, all) = (shown(value), known.join(", "));
                let said = words!("`{key}` 不能是 `{safe}`", "`{key}` cannot be `{safe}`");
                self.fault(&format!("{path}.{key}"), "value", said, words!("可用：{all}", "known: {all}"));
            }
        }
    }
}

/// R36, input 64: TLS, or this machine; nothing in the address that a request would leak or lose.
pub fn address(url: &str) -> Result<(), Words> {
    // A name and a password stand before the host, a key behind `?`.
    let after = url.rsplit_once('@').map_or(url, |(_, host)| host);
    let safe = shown(after.split(['?', '#']).next().unwrap_or(""));
    let (rest, plain) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => return Err(words!("`{safe}` 不是 http(s) 地址", "`{safe}` is no http(s) address")),
    };
    let authority = rest.split('/').next().unwrap_or("");
    if authority.is_empty() || url.contains(['@', '#', '?', ' ', '\n']) || url.parse::<http::Uri>().is_err() {
        return Err(words!(
            "`{safe}` 不能作地址：不得含用户名、`#`、`?`",
            "`{safe}` cannot be an address: no user, `#` or `?` in it"
        ));
    }
    let host = if authority.starts_with('[') {
        authority.split_inclusive(']').next().unwrap_or("")
    } else {
        authority.split(':').next().unwrap_or("")
    };
    let loopback =
        matches!(host, "localhost" | "[::1]") || host.starts_with("127.") && host.parse::<std::net::Ipv4Addr>().is_ok();
    if plain && !loopback {
        return Err(words!("`{safe}` 不加密，令牌会泄露", "`{safe}` is not encrypted and would leak the token"));
    }
    Ok(())
}

fn further(name: &str, raw: &RawPlatform) -> BTreeMap<String, serde_json::Value> {
    let mut further: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    for (key, value) in [
        ("mode", &raw.mode),
        ("app_key", &raw.app_key),
        ("link_domain", &raw.link_domain),
        ("operator_ip", &raw.operator_ip),
        ("upload_url", &raw.upload_url),
        ("biz_url", &raw.biz_url),
        ("publish", &raw.publish),
        ("author", &raw.author),
        ("auth", &raw.auth),
        ("count", &raw.count),
        ("post_url", &raw.post_url),
        ("profile_url", &raw.profile_url),
        ("visibility", &raw.visibility),
        ("dialect", &raw.dialect),
        ("language", &raw.language),
    ] {
        if let Some(value) = value {
            further.insert(key.to_owned(), value.clone().into());
        }
    }
    for (key, value) in [("url_weight", raw.url_weight), ("text_limit", raw.text_limit)] {
        if let Some(Whole(value)) = value {
            further.insert(key.to_owned(), value.into());
        }
    }
    if let Some(audited) = raw.audited {
        further.insert("audited".to_owned(), audited.into());
    }
    if let Some(picture) = &raw.picture {
        for (key, value) in [("picture_path", &picture.path), ("picture_field", &picture.field)] {
            if let Some(value) = value {
                further.insert(key.to_owned(), value.clone().into());
            }
        }
    }
    // The two sites counted as Sina did, as sites of their time did (`platforms.md` 3).
    if matches!(name, "eastday" | "xinmin") {
        further.entry("count".to_owned()).or_insert_with(|| "width".into());
    }
    further
}

/// A name that people write for the time of China, and that no table of zones knows.
fn is_chinas(zone: &str) -> bool {
    let bare = zone.to_lowercase().replace([' ', ':'], "");
    let names = ["beijing", "chongqing", "cst", "china", "北京", "上海", "中国"];
    let offsets = ["utc+8", "utc+08", "utc+0800", "gmt+8", "gmt+08", "gmt+0800", "+8", "+08", "+0800"];
    offsets.contains(&bare.as_str()) || names.iter().any(|name| bare.contains(name))
}

/// Calls granted and looks worth making, by dialect; each can be set in the configuration.
fn defaults(api: &str) -> (Limits, ReadBack) {
    let s = |seconds: &[u64]| seconds.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>();
    let limits = Limits { account_per_hour: None, account_per_day: None, host_per_hour: None, connections: 256 };
    let settle = |seconds| Some(Duration::from_secs(seconds));
    match api {
        "weibo" => (
            Limits { account_per_hour: Some(30), account_per_day: Some(100), host_per_hour: Some(15_000), ..limits },
            ReadBack { after: s(&[3, 15, 60, 180]), settle: settle(300) },
        ),
        "tencent-weibo" => (
            Limits { account_per_hour: Some(1000), ..limits },
            ReadBack { after: s(&[3, 15, 60]), settle: settle(180) },
        ),
        "wechat" => (
            Limits { account_per_day: Some(300), ..limits },
            ReadBack { after: s(&[3, 15, 60, 180, 600]), settle: settle(60) },
        ),
        _ => (limits, ReadBack { after: s(&[3, 10, 30, 60]), settle: settle(180) }),
    }
}

fn limits_of(raw: RawLimits, default: Limits) -> Limits {
    Limits {
        account_per_hour: raw.account_per_hour.map_or(default.account_per_hour, |l| l.0),
        account_per_day: raw.account_per_day.map_or(default.account_per_day, |l| l.0),
        host_per_hour: raw.host_per_hour.map_or(default.host_per_hour, |l| l.0),
        connections: raw.connections.map_or(default.connections, |c| c.0.max(1)),
    }
}

fn read_back_of(raw: RawReadBack, default: ReadBack) -> ReadBack {
    let after = raw.after.map_or(default.after, |after| after.into_iter().flatten().map(|s| s.0).collect());
    ReadBack { after, settle: raw.settle.map(|s| s.0).or(default.settle) }
}

fn publish(raw: RawPublish) -> Publish {
    let default = Publish::default();
    let retry = raw.retry.unwrap_or_default();
    Publish {
        lead: raw.lead.map_or(default.lead, |s| s.0),
        together: raw.sync.map_or(default.together, |s| s == super::queue::RawSync::Together),
        grace: raw.grace.map_or(default.grace, |s| s.0),
        catch_up: raw.catch_up.map_or(default.catch_up, |s| s.0),
        settle_file: raw.settle_file.map_or(default.settle_file, |s| s.0),
        max_cancel: raw.max_cancel.map_or(default.max_cancel, |s| s.0),
        retry: Retry {
            first: retry.first.map_or(default.retry.first, |s| s.0),
            max: retry.max.map_or(default.retry.max, |s| s.0),
            tries: retry.tries.map_or(default.retry.tries, |n| n.0.clamp(1, 1000) as u16),
        },
    }
}

fn emergency(raw: RawEmergency) -> Emergency {
    let default = Emergency::default();
    Emergency {
        hold: raw.hold.map_or(default.hold, |h| h.into_iter().map(|(l, s)| (l, s.0)).collect()),
        confirm: raw.confirm.map_or(default.confirm, |c| c.into_iter().map(|(l, n)| (l, n.0)).collect()),
        confirm_within: raw.confirm_within.map_or(default.confirm_within, |s| s.0),
        reserve: raw.reserve.map_or(default.reserve, |s| s.0.min(0.4)),
        resume: raw.after_hold == Some(RawAfterHold::Resume),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_would_leak_a_token_are_refused() {
        for bad in [
            "http://example.org",
            "ftp://a",
            "https://u:p@a",
            "https://a/#x",
            "https://a?x",
            "http://127.0.0.1.example.org",
            "x",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
        for good in ["https://api.weibo.com", "http://127.0.0.1:8080", "http://[::1]:80", "http://localhost:1/x"] {
            assert!(address(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn the_four_names_have_defaults_and_a_fifth_is_configuration_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fabu.yaml");
        let text = "platforms:\n  eastday: {base_url: \"https://t.example\"}\n  weixin: {api: wechat}\n  sina: {limits: {account_per_day: off}}\n";
        std::fs::write(&file, text).unwrap();
        let (settings, faults) = read(&file);
        assert_eq!(faults, []);
        let settings = settings.unwrap();
        let names: Vec<_> = settings.platforms.values().map(|p| (p.name.as_str(), p.api.as_str())).collect();
        assert_eq!(
            names,
            [("eastday", "statuses"), ("sina", "weibo"), ("tencent", "tencent-weibo"), ("weixin", "wechat")]
        );
        assert_eq!(settings.platforms["sina"].limits.account_per_day, None);
        assert_eq!(settings.platforms["sina"].limits.account_per_hour, Some(30));
        assert_eq!(settings.platforms["eastday"].text("count"), Some("width"));
    }

    #[test]
    fn all_faults_of_a_configuration_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fabu.yaml");
        let text = "timezone: Asia/Shanghia\nqueu: q\nplatforms:\n  eastday: {}\n  sina: {base_url: \"http://x.cn\", timeout: 5}\naccess: {duty: [root]}\n";
        std::fs::write(&file, text).unwrap();
        let (settings, faults) = read(&file);
        assert!(settings.is_none());
        let places: Vec<_> = faults.iter().map(|f| (f.code, f.start().line)).collect();
        let expected =
            [("timezone", 1), ("unknown_key", 2), ("base_url", 4), ("base_url", 5), ("value", 5), ("access", 6)];
        assert_eq!(places, expected);
    }
}
