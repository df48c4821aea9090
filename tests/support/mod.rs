//! A small world for tests: a sample city, a queue folder, the sandbox in process, simulated time.
//!
//! Everything but the network and the clock is the real thing: the reader, the ledger on a real file,
//! the daemon. Time runs ahead while everybody waits, so a test of hours takes a second.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod addresses;
pub mod between;
pub mod duty;
pub mod points;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use fabu::cli::stage::Indoors;
use fabu::clock::{Clock, Time};
use fabu::core::delivery::{Delivery, State};
use fabu::daemon::config::{self, Config, Env};
use fabu::daemon::{Daemon, World};
use fabu::ledger::sqlite::Sqlite;
use fabu::ledger::{Filter, Ledger, LedgerError, Trust, marker};
use fabu::platform::Http;
use fabu::sandbox::{FaultRule, Latency, Sandbox, Setup};
use tempfile::TempDir;

pub const UNITS: [(&str, &str, &str); 5] = [
    ("shanghai", "lead", "sina tencent eastday xinmin"),
    ("shanghai/pudong", "district", "sina tencent eastday xinmin"),
    ("shanghai/pudong/lujiazui", "street", "sina tencent"),
    ("shanghai/metro", "transport", "sina eastday xinmin"),
    ("shanghai/weather", "weather", "sina tencent"),
];

/// A configuration, its accounts and an empty queue in a folder of their own.
pub struct City {
    pub folder: TempDir,
    pub clock: Clock,
    pub sandbox: Sandbox,
}

pub fn env() -> Env {
    Arc::new(|name: &str| name.strip_prefix("T_").map(|rest| format!("token-{}", rest.to_lowercase())))
}

pub fn accounts_yaml() -> String {
    accounts_of(UNITS, &BTreeSet::new())
}

/// Units with their accounts, of which some are closed.
pub fn accounts_of(
    units: impl IntoIterator<Item = (&'static str, &'static str, &'static str)>,
    closed: &BTreeSet<String>,
) -> String {
    let mut text = "units:\n".to_owned();
    for (n, (id, tag, platforms)) in units.into_iter().enumerate() {
        text += &format!("- id: {id}\n  name: {id}\n  tags: [{tag}]\n  accounts:\n");
        for platform in platforms.split(' ') {
            let name = format!("{platform}_{}", id.replace('/', "_")).to_uppercase();
            let status = if closed.contains(&format!("{platform}:{id}")) { "status: closed, " } else { "" };
            text += &format!("    {platform}: {{{status}handle: h{n}, uid: \"10000{n}\", token: \"env:T_{name}\"}}\n");
        }
    }
    text
}

/// The four platforms, some of them without limits.
pub fn platforms_yaml(unlimited: &[&str]) -> String {
    let mut text = "platforms:\n".to_owned();
    for (name, api) in
        [("sina", "weibo"), ("tencent", "tencent-weibo"), ("eastday", "statuses"), ("xinmin", "mastodon")]
    {
        let limits = match unlimited.contains(&name) {
            true => ", limits: {account_per_hour: off, account_per_day: off, host_per_hour: off}",
            false => "",
        };
        text += &format!("  {name}: {{api: {api}, base_url: \"http://127.0.0.1\"{limits}}}\n");
    }
    text
}

/// A configuration in which what has no hour goes as soon as it is read, unless it says otherwise itself.
pub fn without_settling(more: &str) -> String {
    if more.contains("settle_file") {
        return more.to_owned();
    }
    match more.contains("publish: {") {
        true => more.replacen("publish: {", "publish: {settle_file: off, ", 1),
        false => format!("{more}publish: {{settle_file: off}}\n"),
    }
}

/// Opens a ledger, once the process before has let go of it.
pub async fn opened(path: &Path, clock: &Clock) -> Sqlite {
    let_go(path, clock).await;
    Sqlite::open(path, clock).unwrap_or_else(|error| panic!("{error}"))
}

/// Waits until no process has this ledger.
pub async fn let_go(path: &Path, clock: &Clock) {
    // A ledger that was never there is nobody's.
    if !path.exists() {
        return;
    }
    for _ in 0..1000 {
        if !matches!(marker::lock(path), Err(LedgerError::InUse(_))) {
            return;
        }
        clock.sleep(Duration::from_millis(5)).await;
    }
    panic!("something outlives the daemon");
}

impl City {
    /// `start` on the wall clock, chance from `seed`; `more` is added to the configuration.
    pub fn new(start: &str, seed: u64, more: &str) -> City {
        City::on(Clock::simulated(start.parse().unwrap(), seed), seed, more)
    }

    /// On a clock of the caller's: the real one, where programs of the machine take part.
    pub fn on(clock: Clock, seed: u64, more: &str) -> City {
        let folder = tempfile::tempdir().unwrap();
        let platforms = platforms_yaml(&["sina"]);
        let more = without_settling(more);
        std::fs::write(folder.path().join("fabu.yaml"), format!("timezone: Asia/Shanghai\n{platforms}{more}")).unwrap();
        std::fs::write(folder.path().join("accounts.yaml"), accounts_yaml()).unwrap();
        std::fs::create_dir(folder.path().join("queue")).unwrap();
        let sandbox = sandbox(&config_of(folder.path()), seed, &clock);
        City { folder, clock, sandbox }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn queue(&self, name: &str) -> PathBuf {
        self.path().join("queue").join(name)
    }

    /// Saves a queue file as an editor does: written beside, then renamed.
    pub fn save(&self, name: &str, text: &str) {
        let path = self.queue(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let beside = path.with_extension("tmp");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, path).unwrap();
    }

    pub fn config(&self) -> Config {
        config_of(self.path())
    }

    /// Opens the ledger, waiting until the one before has let go of it.
    pub async fn ledger(&self) -> Sqlite {
        opened(&self.path().join("state/fabu.db"), &self.clock).await
    }

    pub fn network(&self) -> Indoors {
        Indoors { sandbox: self.sandbox.clone(), clock: self.clock.clone() }
    }

    pub async fn start(&self) -> Daemon {
        let ledger = Arc::new(self.ledger().await);
        self.start_with(ledger, Arc::new(self.network())).await
    }

    pub async fn start_with(&self, ledger: Arc<Sqlite>, http: Arc<dyn Http>) -> Daemon {
        let trust = ledger.trust().clone();
        self.start_on(ledger, trust, http).await
    }

    /// With a ledger that is not, or not only, the one on the disk.
    pub async fn start_on(&self, ledger: Arc<dyn Ledger>, trust: Trust, http: Arc<dyn Http>) -> Daemon {
        Daemon::start(self.world(ledger, trust, http)).await.unwrap()
    }

    pub fn world(&self, ledger: Arc<dyn Ledger>, trust: Trust, http: Arc<dyn Http>) -> World {
        World { clock: self.clock.clone(), http, ledger, trust, config: self.config(), faults: Vec::new(), env: env() }
    }

    pub async fn sleep(&self, seconds: u64) {
        self.clock.sleep(Duration::from_secs(seconds)).await;
    }

    /// Posts that exist now, by account and text.
    pub fn posts(&self) -> BTreeMap<(String, String), u32> {
        let mut found = BTreeMap::new();
        for post in self.sandbox.posts().into_iter().filter(|p| !p.deleted) {
            *found.entry((post.account, post.text)).or_default() += 1;
        }
        found
    }
}

pub fn config_of(folder: &Path) -> Config {
    let (config, faults) = config::read(&folder.join("fabu.yaml"), &env(), true);
    config.unwrap_or_else(|| panic!("{faults:?}"))
}

pub fn sandbox(config: &Config, seed: u64, clock: &Clock) -> Sandbox {
    let mut setup: Setup = fabu::cli::world::setup_of(config);
    setup.seed = seed;
    setup.limits = false;
    setup.latency = Latency::Jitter(Duration::from_millis(5), Duration::from_millis(60));
    for platform in &mut setup.platforms {
        // The filter for repeated texts would hide a double post.
        platform.settings["duplicates"] = "off".into();
    }
    Sandbox::new(setup, clock.clone())
}

pub fn fault(value: serde_json::Value) -> FaultRule {
    serde_json::from_value(value).unwrap()
}

pub async fn all(daemon: &Daemon) -> Vec<Delivery> {
    daemon.inner.ledger.deliveries(Filter { max: 100_000, ..Filter::default() }).await.unwrap()
}

/// Waits (in simulated time) until no delivery has anything due any more, but for looks of which a person was told.
pub async fn settled(city: &City, daemon: &Daemon, within: Duration) -> bool {
    let end = city.clock.mono().0 + within;
    while city.clock.mono().0 < end {
        let due = daemon.inner.ledger.next_due(fabu::clock::from_micros(0)).await.unwrap();
        if due.is_none() || all(daemon).await.iter().all(|d| d.next_at.is_none() || d.needs_person) {
            return true;
        }
        city.clock.sleep(Duration::from_secs(5)).await;
    }
    false
}

pub fn in_state(rows: &[Delivery], state: State) -> usize {
    rows.iter().filter(|d| d.state == state).count()
}

pub fn utc(text: &str) -> Time {
    text.parse().unwrap()
}

/// Runs a test on paused time; the seed of its chance is the caller's.
pub fn simulate<F: Future<Output = ()>>(work: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(work);
}
