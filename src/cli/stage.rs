//! Where a drill plays: the live configuration turned inwards, a folder of its own, and the sandbox as the only network.
//!
//! What lies in the folder is for commands to find the drill by. It names the sandbox's addresses and made-up secrets,
//! never a live one: whatever is asked by it reaches nobody else.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::core::accounts::{Account, Secret};
use crate::daemon::config::Config;
use crate::platform::{Http, Lane, Lost};
use crate::sandbox::{Cut, Sandbox, Served};

/// The figures of the drills so far.
pub const TIMINGS: &str = "timings.jsonl";

/// The sandbox as the only network there is.
pub struct Indoors {
    pub sandbox: Sandbox,
    pub clock: Clock,
}

#[async_trait]
impl Http for Indoors {
    async fn send(
        &self,
        platform: &str,
        _: Lane,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Lost> {
        match self.clock.timeout(timeout, self.sandbox.exchange(platform, request)).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(Cut::BeforeSend)) => Err(Lost::BeforeSend("refused".to_owned())),
            Some(Err(Cut::AfterSend)) => Err(Lost::AfterSend("reset".to_owned())),
            None => Err(Lost::AfterSend("timed out".to_owned())),
        }
    }
}

/// The live configuration turned inwards: its accounts with made-up secrets, everything else its own.
pub fn inwards(live: Config, folder: &Path) -> Config {
    let (mut settings, mut city) = (live.settings, live.city);
    settings.queue = folder.join("queue");
    settings.ledger = folder.join("fabu.db");
    settings.socket = folder.join("fabu.sock");
    settings.file = folder.join("fabu.yaml");
    for platform in settings.platforms.values_mut() {
        // Nothing ever connects there; a loopback address keeps whatever looks at it honest.
        platform.base_url = "http://127.0.0.1".to_owned();
        platform.further.retain(|key, _| !matches!(key.as_str(), "upload_url" | "biz_url"));
    }
    for account in city.accounts.values_mut() {
        let name = file_name(account);
        let api = settings.platforms.get(account.id.platform()).map_or("", |p| p.api.as_str());
        let secret = match api {
            "wechat" => json!({ "appid": format!("wx{name}"), "secret": format!("drill-{name}") }).to_string(),
            _ => format!("drill-{name}"),
        };
        (account.secret, account.secret_fault) = (Some(Secret::new(secret)), None);
    }
    let mut config = Config::new(settings, city);
    (config.templates, config.drill) = (live.templates, true);
    config
}

/// Each drill begins with an empty ledger; the figures of those before stay, and so does whatever no drill has made.
pub fn fresh(folder: &Path) -> std::io::Result<()> {
    const FOLDERS: [&str; 2] = ["queue", "secrets"];
    const FILES: [&str; 3] = ["fabu.yaml", "accounts.yaml", "fabu.sock"];
    const OF_THE_LEDGER: [&str; 6] = ["", "-wal", "-shm", ".lock", ".mark", ".room"];
    if std::fs::symlink_metadata(folder).is_ok_and(|meta| !meta.is_dir()) {
        let said = format!("{} is a link or a file, and no folder of a drill: move it away", folder.display());
        return Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, said));
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    let is_there = |path: &Path| std::fs::symlink_metadata(path).is_ok();
    for path in FOLDERS.map(|name| folder.join(name)).into_iter().filter(|path| is_there(path)) {
        match std::fs::symlink_metadata(&path)?.is_dir() {
            true => std::fs::remove_dir_all(path)?,
            // What it leads to is another's.
            false => std::fs::remove_file(path)?,
        }
    }
    let ledger = OF_THE_LEDGER.map(|end| format!("fabu.db{end}"));
    let files = FILES.into_iter().map(str::to_owned).chain(ledger).map(|name| folder.join(name));
    for path in files.filter(|path| is_there(path)) {
        std::fs::remove_file(path)?;
    }
    std::fs::create_dir(folder.join("queue"))
}

/// What a command needs to find this drill: `FABU_CONFIG` names it.
pub fn files(config: &Config, served: &Served, folder: &Path) -> std::io::Result<()> {
    let (settings, city) = (&config.settings, &config.city);
    let path = |path: &Path| std::path::absolute(path).map(|p| p.display().to_string());
    let platforms: BTreeMap<&str, Value> = settings
        .platforms
        .iter()
        .filter_map(|(name, p)| Some((name, p, served.platforms.get(name.as_str())?)))
        .map(|(name, p, at)| (name.as_str(), json!({ "api": p.api, "base_url": format!("http://{at}") })))
        .collect();
    let own = json!({
        "drill": true, "timezone": settings.zone.name(), "queue": path(&folder.join("queue"))?,
        "accounts": path(&folder.join("accounts.yaml"))?, "templates": path(&settings.templates)?,
        "ledger": format!("sqlite:{}", path(&folder.join("fabu.db"))?), "socket": path(&folder.join("fabu.sock"))?,
        "platforms": platforms,
    });
    write(&folder.join("fabu.yaml"), &yaml(&own)?)?;
    std::fs::DirBuilder::new().mode(0o700).create(folder.join("secrets"))?;
    let mut units: Vec<Value> = Vec::new();
    for unit in city.units.values() {
        let mut accounts = serde_json::Map::new();
        for account in city.accounts.values().filter(|a| a.id.unit() == unit.id.as_str()) {
            let file = format!("secrets/{}", file_name(account));
            write(&folder.join(&file), account.secret.as_ref().map_or("", Secret::expose))?;
            std::fs::set_permissions(folder.join(&file), std::fs::Permissions::from_mode(0o600))?;
            let mut fields =
                json!({ "handle": account.handle, "token": format!("file:{file}"), "status": account.status });
            fields["uid"] = account.uid.clone().into();
            for (name, value) in &account.further {
                fields[name] = value.clone().into();
            }
            accounts.insert(account.id.platform().to_owned(), fields);
        }
        units.push(json!({
            "id": unit.id, "name": unit.name, "level": unit.level, "tags": unit.tags, "region": unit.region,
            "status": unit.status, "accounts": accounts,
        }));
    }
    write(&folder.join("accounts.yaml"), &yaml(&json!({ "units": units }))?)
}

fn yaml(value: &Value) -> std::io::Result<String> {
    serde_yaml::to_string(value).map_err(std::io::Error::other)
}

/// Nothing in a drill is secret, and a second person of the folder's group takes part in it.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
    file.write_all(text.as_bytes())
}

fn file_name(account: &Account) -> String {
    account.id.to_string().replace([':', '/'], "-")
}
