//! Everything the configuration says, read together: settings, the city, an adapter a platform.
//!
//! It is replaced as a whole or not at all: a changed configuration with a fault leaves the old one
//! in force, and `status` says so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::core::accounts::{Account, AccountId, City, PlatformName};
use crate::core::delivery::Policy;
use crate::core::fit::Rules;
use crate::core::policy::PlatformSettings;
use crate::core::template::Template;
use crate::core::words::{Words, words};
use crate::input::accounts::Secrets;
use crate::input::settings::Settings;
use crate::input::{Fault, Source, accounts, settings, templates};
use crate::platform::{self, Platform};

/// Reads the environment; handed in, so that a test has its own.
pub type Env = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

pub struct Config {
    pub settings: Settings,
    pub city: City,
    pub platforms: BTreeMap<PlatformName, Arc<dyn Platform>>,
    pub rules: BTreeMap<PlatformName, Rules>,
    pub per_hour: BTreeMap<PlatformName, Option<u32>>,
    /// Emergency templates, the good ones, by name.
    pub templates: BTreeMap<String, Template>,
    /// Names and files of templates that could not be used; what was in force of them stays.
    pub standing: BTreeSet<String>,
    /// A drill's world (演练): every text is stamped, and nothing unstamped is sent.
    pub drill: bool,
    /// On the errand of one emergency: nothing of the queue is read, nothing of routine sent.
    pub direct: bool,
}

/// Reads `fabu.yaml` and the accounts; with any fault that makes them unusable there is no `Config`.
/// A secret that cannot be read costs its own account only.
pub fn read(file: &Path, env: &Env, with_secrets: bool) -> (Option<Config>, Vec<Fault>) {
    from(settings::read(file), file, env, with_secrets)
}

/// The same for the sandbox, which gives the platforms the addresses that are still missing.
pub fn read_for_sandbox(file: &Path, env: &Env) -> (Option<Config>, Vec<Fault>) {
    from(settings::read_without_addresses(file), file, env, true)
}

/// The same for a drill, which reads no secret.
pub fn read_for_drill(file: &Path, env: &Env) -> (Option<Config>, Vec<Fault>) {
    from(settings::read_without_addresses(file), file, env, false)
}

fn from(
    (settings, mut faults): (Option<Settings>, Vec<Fault>),
    file: &Path,
    env: &Env,
    with_secrets: bool,
) -> (Option<Config>, Vec<Fault>) {
    let Some(settings) = settings else { return (None, faults) };
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let lookup = |name: &str| env(name);
    let secrets = Secrets { folder, env: &lookup, read: with_secrets };
    let (city, found) = accounts::read(&settings.accounts, &settings.platforms, &secrets);
    let usable = !found.iter().any(|f| f.is_error() && f.code != "secret");
    faults.extend(found);
    faults.extend(remarks(&settings, &city));
    if !usable {
        return (None, faults);
    }
    let mut config = Config::new(settings, city);
    let context =
        templates::Context { city: &config.city, rules: &config.rules, emergency: &config.settings.emergency };
    let read = templates::read(&config.settings.templates, &context);
    faults.extend(read.faults);
    (config.templates, config.standing) = (read.templates, read.standing);
    (Some(config), faults)
}

/// Reasons for which a part of the old configuration stays in force until what they name is there again.
pub const ACCOUNTS_GONE: &str = "accounts_gone";
const TEMPLATES_GONE: &str = "templates_gone";
const SECRETS_GONE: &str = "secrets_gone";

/// Whether it mends itself when a folder returns.
pub fn is_gone(fault: &Fault) -> bool {
    [ACCOUNTS_GONE, TEMPLATES_GONE, SECRETS_GONE].contains(&fault.code)
}

impl Config {
    pub fn new(settings: Settings, city: City) -> Config {
        let platforms: BTreeMap<PlatformName, Arc<dyn Platform>> =
            settings.platforms.values().map(|s| (s.name.clone(), platform::open(s))).collect();
        let rules = platforms.iter().map(|(name, p)| (name.clone(), p.rules().clone())).collect();
        let per_hour = settings.platforms.values().map(|s| (s.name.clone(), s.limits.account_per_hour)).collect();
        Config {
            settings,
            city,
            platforms,
            rules,
            per_hour,
            templates: BTreeMap::new(),
            standing: BTreeSet::new(),
            drill: false,
            direct: false,
        }
    }

    /// Takes over what was in force and cannot be read as it is now: a folder that is empty or not mounted disarms
    /// nobody. Returns what that is.
    pub fn keep(&mut self, old: &Config) -> Vec<Fault> {
        self.keep_templates(old);
        let mut kept = Vec::new();
        let mut note = |code, said: Words| kept.push(Source::new("", "").fault(0..0, code, said));
        let same_folder = self.settings.templates == old.settings.templates;
        if self.templates.is_empty() && !old.templates.is_empty() && same_folder {
            self.templates = old.templates.clone();
            let n = self.templates.len();
            let said = words!(
                "模板文件夹空了或读不了：原有 {n} 个继续有效；真要去掉就重启",
                "the folder of templates is empty or cannot be read: the {n} that were there stay in force; to do without them, restart"
            );
            note(TEMPLATES_GONE, said);
        }
        let mut accounts = Vec::new();
        for account in self.city.accounts.values_mut().filter(|account| account.secret.is_none()) {
            let before = old.city.accounts.get(&account.id).filter(|before| before.handle == account.handle);
            if let Some(secret) = before.and_then(|before| before.secret.clone()) {
                account.secret = Some(secret);
                accounts.push(account.id.to_string());
            }
        }
        if let Some(first) = accounts.first() {
            let n = accounts.len();
            let said = words!(
                "{n} 个账号的密钥读不了（{first} 等）：原来的继续有效",
                "the secrets of {n} accounts cannot be read ({first} is one): the ones they had stay in force"
            );
            note(SECRETS_GONE, said);
        }
        kept
    }

    /// The templates that cannot be used as they are now.
    fn keep_templates(&mut self, old: &Config) {
        for (name, template) in &old.templates {
            if self.standing.contains(name) || self.standing.contains(&template.file) {
                self.templates.entry(name.clone()).or_insert_with(|| template.clone());
            }
        }
    }

    pub fn platform_of(&self, account: &AccountId) -> Option<&Arc<dyn Platform>> {
        self.platforms.get(account.platform())
    }

    pub fn settings_of(&self, account: &AccountId) -> Option<&PlatformSettings> {
        self.settings.platforms.get(account.platform())
    }

    pub fn account(&self, id: &AccountId) -> Option<&Account> {
        self.city.accounts.get(id)
    }

    /// What `core::delivery::step` has to know for a delivery to this account.
    pub fn policy(&self, account: &AccountId, jitter: f64) -> Policy {
        let read_back = self.settings_of(account).map_or_else(
            // An account that is no longer configured: nothing is believed of it.
            || crate::core::policy::ReadBack { after: Vec::new(), settle: None },
            |s| s.read_back.clone(),
        );
        Policy { retry: self.settings.publish.retry.clone(), read_back, jitter }
    }

    /// How many connections each platform may use at once, for the network.
    pub fn connections(&self) -> BTreeMap<String, u32> {
        self.settings.platforms.values().map(|s| (s.name.to_string(), s.limits.connections)).collect()
    }
}

/// What the live platforms want and the configuration does not say (`platforms.md` 4.6).
fn remarks(settings: &Settings, city: &City) -> Vec<Fault> {
    let source = Source::new(settings.file.display().to_string(), "");
    let used = |name: &PlatformName| city.accounts.keys().any(|a| a.platform() == name.as_str());
    let mut found = Vec::new();
    for platform in settings.platforms.values().filter(|p| used(&p.name) && !p.is_loopback()) {
        let name = &platform.name;
        let wanted: &[&str] = match platform.api.as_str() {
            "weibo" => &["app_key", "operator_ip"],
            "tencent-weibo" => &["app_key", "operator_ip"],
            _ => &[],
        };
        for key in wanted.iter().filter(|k| platform.text(k).is_none()) {
            let said = words!(
                "平台 {name} 没有 `{key}`，请求里会缺它",
                "the platform {name} has no `{key}`; requests go without it"
            );
            found.push(source.fault(0..0, "not_configured", said).warning());
        }
        if let Some(said) = platform::weibo::unaudited(platform) {
            found.push(source.fault(0..0, "unaudited", said).warning());
        }
    }
    found
}
