//! How an imitated platform is set up, and which secrets open its accounts.
//!
//! The names are the configuration's own, so that the block a client is given can be given to the sandbox too; what the
//! sandbox does not know it ignores, and every limit may be `off`.

use serde_json::Value;

use super::mastodon_kin::Dialect;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    Weibo,
    TencentWeibo,
    Wechat,
    Statuses,
    Mastodon,
}

impl Api {
    /// The dialect of this name; the plainest one for a name nobody knows.
    pub fn named(name: &str) -> Api {
        match name {
            "weibo" => Api::Weibo,
            "tencent-weibo" => Api::TencentWeibo,
            "wechat" => Api::Wechat,
            "mastodon" => Api::Mastodon,
            _ => Api::Statuses,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Api::Weibo => "weibo",
            Api::TencentWeibo => "tencent-weibo",
            Api::Wechat => "wechat",
            Api::Statuses => "statuses",
            Api::Mastodon => "mastodon",
        }
    }
}

/// What an account is known by; only what its platform uses is there.
#[derive(Clone, Default)]
pub(super) struct Keys {
    pub token: Option<String>,
    /// `user:password`, as Basic carries it.
    pub basic: Option<String>,
    pub oauth1: Option<[String; 4]>,
    pub app: Option<(String, String)>,
    pub app_key: Option<String>,
    pub openid: Option<String>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    pub fn read(secret: &str, api: Api) -> Keys {
        let secret = secret.trim();
        let Ok(Value::Object(map)) = serde_json::from_str::<Value>(secret) else {
            return Keys::line(secret, api);
        };
        let get = |names: &[&str]| {
            names.iter().find_map(|name| match map.get(*name)? {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            })
        };
        let user = get(&["user", "username"]).zip(get(&["password"])).map(|(u, p)| format!("{u}:{p}"));
        let four = [
            get(&["ck", "consumer_key"]),
            get(&["cs", "consumer_secret"]),
            get(&["tk", "token_key"]),
            get(&["ts", "token_secret"]),
        ];
        let oauth1 = match four {
            [Some(ck), Some(cs), Some(tk), Some(ts)] => Some([ck, cs, tk, ts]),
            _ => None,
        };
        Keys {
            token: get(&["access_token", "bearer", "token"]),
            basic: user.or_else(|| get(&["basic"])),
            oauth1,
            app: get(&["appid", "app_id"]).zip(get(&["secret", "app_secret"])),
            app_key: get(&["app_key", "oauth_consumer_key"]),
            openid: get(&["openid"]),
        }
    }

    fn line(secret: &str, api: Api) -> Keys {
        let mut keys = Keys::default();
        match (api, secret.split_once(':')) {
            (Api::Statuses, Some(_)) => keys.basic = Some(secret.to_owned()),
            (Api::Wechat, Some((id, key))) => keys.app = Some((id.to_owned(), key.to_owned())),
            (Api::Wechat, None) => keys.app = Some((secret.to_owned(), secret.to_owned())),
            _ => keys.token = Some(secret.to_owned()),
        }
        keys
    }

    /// What a request names this account by.
    pub fn owner(&self) -> Option<String> {
        let app = self.app.as_ref().map(|(id, _)| id.clone());
        let signed = self.oauth1.as_ref().map(|k| k[2].clone());
        self.token.clone().or_else(|| self.basic.clone()).or(signed).or(app).filter(|owner| !owner.is_empty())
    }
}

/// Calls or posts an account or a host may make; `None` is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub account_per_hour: Option<u32>,
    pub account_per_day: Option<u32>,
    pub host_per_hour: Option<u32>,
    /// Milliseconds between two posts of one account.
    pub gap_ms: Option<u32>,
    pub throttle: Option<u32>,
    /// The daily quotas and the rates of WeChat and Mastodon hold.
    pub quotas: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub mode: String,
    pub app_key: Option<String>,
    pub operator_ip: Option<String>,
    pub link_domains: Vec<String>,
    pub unaudited: bool,
    pub longtext: bool,
    pub always_200: bool,
    pub duplicates: bool,
    /// Nearly the same text counts as a duplicate too.
    pub similar: bool,
    pub text_limit: usize,
    pub width: bool,
    pub url_weight: Option<usize>,
    pub picture: Option<(String, String)>,
    pub auth: Option<String>,
    pub file_quota: usize,
    /// WeChat: seconds from submit to publication; mastodon: seconds a picture takes.
    pub work_seconds: f64,
    pub mass_per_day: u32,
    pub locks_keys: bool,
    /// Whose way of speaking Mastodon's API it is.
    pub dialect: Dialect,
    /// GNU social itself, with what breaks in it.
    pub gnusocial: bool,
    pub base_url: Option<String>,
    pub limits: Limits,
}

impl Settings {
    pub fn read(api: &str, value: &Value, limits: bool) -> Settings {
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let flag = |name: &str| value.get(name).and_then(Value::as_bool);
        let count = |name: &str| value.get(name).and_then(Value::as_u64).map(|n| n as usize);
        let domains = match value.get("link_domain") {
            Some(Value::String(one)) => one.split([',', ' ']).filter(|d| !d.is_empty()).map(str::to_owned).collect(),
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let picture = value.get("picture").and_then(|p| {
            let part = |name| p.get(name).and_then(Value::as_str).map(str::to_owned);
            Some((part("path")?, part("field")?))
        });
        let default_limit = if api == "mastodon" { 500 } else { 140 };
        Settings {
            mode: text("mode").or_else(|| text("publish")).unwrap_or_else(|| "update".to_owned()),
            app_key: text("app_key").or_else(|| value.get("app_key").and_then(Value::as_u64).map(|n| n.to_string())),
            operator_ip: text("operator_ip"),
            link_domains: domains,
            unaudited: flag("audited") == Some(false),
            longtext: flag("longtext").unwrap_or(false),
            always_200: flag("always_200").unwrap_or(false),
            duplicates: !off(value.get("duplicates")),
            similar: text("duplicates").as_deref() != Some("exact"),
            text_limit: count("text_limit").unwrap_or(default_limit),
            width: text("count").as_deref() == Some("width"),
            url_weight: count("url_weight"),
            picture,
            auth: text("auth"),
            file_quota: count("file_quota").unwrap_or(5_000_000),
            work_seconds: value.get("work_seconds").and_then(Value::as_f64).unwrap_or(0.0).max(0.0),
            mass_per_day: count("mass_per_day").unwrap_or(1) as u32,
            locks_keys: flag("locks_keys").unwrap_or(false),
            dialect: Dialect::named(&text("dialect").unwrap_or_default()),
            gnusocial: text("dialect").as_deref() == Some("gnusocial"),
            base_url: text("base_url"),
            limits: if limits { read_limits(api, value.get("limits")) } else { Limits::default() },
        }
    }
}

fn off(value: Option<&Value>) -> bool {
    matches!(value, Some(Value::Bool(false))) || value.and_then(Value::as_str) == Some("off")
}

fn read_limits(api: &str, value: Option<&Value>) -> Limits {
    let all_off = off(value);
    let one = |name: &str, default: Option<u32>| {
        let given = value.and_then(|v| v.get(name));
        match given {
            _ if all_off || off(given) => None,
            Some(Value::Number(n)) => n.as_u64().map(|n| n as u32),
            _ => default,
        }
    };
    // The defaults are the platforms' published figures, and where none were published, ours.
    let (hour, day, host, gap) = match api {
        "weibo" => (Some(30), Some(100), Some(15_000), None),
        "tencent-weibo" => (Some(1000), None, None, Some(2000)),
        _ => (None, None, None, None),
    };
    Limits {
        account_per_hour: one("account_per_hour", hour),
        account_per_day: one("account_per_day", day),
        host_per_hour: one("host_per_hour", host),
        gap_ms: one("gap_ms", gap),
        throttle: one("throttle", None),
        quotas: !all_off && !off(value.and_then(|v| v.get("quotas"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_secret_is_a_line_or_an_object() {
        assert_eq!(Keys::read(" t1\n", Api::Weibo).owner().as_deref(), Some("t1"));
        assert_eq!(Keys::read("u:p", Api::Statuses).basic.as_deref(), Some("u:p"));
        let signed = Keys::read(r#"{"ck":"a","cs":"b","tk":"c","ts":"d"}"#, Api::Statuses);
        assert_eq!(signed.owner().as_deref(), Some("c"));
        let wechat = Keys::read(r#"{"appid":"wx1","secret":"s"}"#, Api::Wechat);
        assert_eq!((wechat.owner().as_deref(), format!("{wechat:?}").as_str()), (Some("wx1"), "Keys(…)"));
    }

    #[test]
    fn any_limit_may_be_off() {
        let read = |v| Settings::read("weibo", &v, true).limits;
        assert_eq!(read(json!({})).account_per_day, Some(100));
        assert_eq!(read(json!({"limits": {"account_per_day": "off", "account_per_hour": 5}})).account_per_day, None);
        assert_eq!(read(json!({"limits": "off"})).host_per_hour, None);
        assert!(!read(json!({"limits": "off"})).quotas);
    }
}
