//! `run` and `sandbox`: who gets which clock, network and ledger.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Exit;
use super::text::{GOOD, STRONG, Voice};
use crate::api;
use crate::clock::Clock;
use crate::core::words::{Words, words};
use crate::daemon::config::{self, Config, Env};
use crate::daemon::sole::Sole;
use crate::daemon::{Daemon, World};
use crate::input::Fault;
use crate::ledger::LedgerError;
use crate::ledger::sqlite::Sqlite;
use crate::platform::http::Net;
use crate::sandbox::{AccountSetup, FaultRule, Latency, PlatformSetup, Sandbox, Setup};

/// The daemon: publishes until it is told to stop.
pub async fn run(file: &Path, voice: Voice, env: Env) -> Exit {
    log_to_stderr(&env);
    serving(file, voice, env, false, std::future::pending()).await
}

/// What sends an emergency, and nothing else, for as long as an errand takes: on the daemon's ledger, under its lock,
/// behind its socket.
pub async fn during(file: &Path, voice: Voice, env: Env, errand: impl Future<Output = Exit>) -> Exit {
    serving(file, voice, env, true, errand).await
}

async fn serving(file: &Path, voice: Voice, env: Env, direct: bool, errand: impl Future<Output = Exit>) -> Exit {
    guard_memory();
    let files = all_files();
    let (config, faults) = config::read(file, &env, true);
    let Some(config) = config.map(|config| Config { direct, ..config }) else {
        for fault in &faults {
            voice.note(voice.fault(fault));
        }
        let errors = faults.iter().filter(|f| f.is_error()).count();
        voice.error(&words!("配置有 {errors} 个错误，未启动", "the configuration has {errors} errors; not started"));
        return Exit::Failed;
    };
    if config.settings.drill {
        voice.error(&Words::new(
            "这是一场演练的配置，不能照它发布；演练用 fabu drill",
            "this is the configuration of a drill, and nothing is published by it: fabu drill makes its own world",
        ));
        return Exit::Failed;
    }
    let needed = u64::from(config.connections().values().sum::<u32>()) + OWN_FILES;
    if files < needed {
        voice.error(&words!(
            "最多只能打开 {files} 个文件和连接，至少要 {needed} 个：一旦用完，套接字就没有回应",
            "{files} files and connections may be open at once, and {needed} are needed: without them nobody is answered"
        ));
        voice.hint(&Words::new(
            "放宽限制（ulimit -Hn，systemd 的 LimitNOFILE），或减少 `limits.connections`",
            "raise the limit (ulimit -Hn, systemd's LimitNOFILE), or lower `limits.connections`",
        ));
        return Exit::Failed;
    }
    match started(config, faults, voice, env, errand).await {
        Ok(exit) => exit,
        Err(words) => {
            voice.error(&words);
            Exit::Failed
        }
    }
}

/// Descriptors for the ledger and its readers, the queue, the socket and those who ask on it.
const OWN_FILES: u64 = 128;

/// As many descriptors as the machine allows this process, which may be more than it was started with.
fn all_files() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files was not raised");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

async fn started(
    config: Config,
    faults: Vec<Fault>,
    voice: Voice,
    env: Env,
    errand: impl Future<Output = Exit>,
) -> Result<Exit, Words> {
    // Signals are caught from here on: a stop while starting is a clean stop too.
    let mut signals = Signals::new().map_err(|e| words!("无法接收信号：{e}", "signals cannot be received: {e}"))?;
    let clock = Clock::real();
    let path = config.settings.ledger.clone();
    let ledger = Sqlite::open(&path, &clock).map_err(|error| ledger_words(&error))?;
    let trust = ledger.trust().clone();
    let sole = Sole::of(&config.settings.queue)?;
    // Only now: who is turned away because a daemon runs already need not read them.
    for fault in faults.iter().filter(|f| f.is_error()) {
        voice.note(voice.fault(fault));
    }
    let mut socket = config.settings.socket.clone();
    if config.direct && api::is_listened_on(&socket) {
        // The service manager's stays: whoever asks there waits for the daemon.
        socket = socket.with_file_name(format!(".{}", std::process::id()));
        super::OWN_SOCKET.set(socket.clone()).unwrap_or_default();
    }
    let said = |e: api::SocketError| words!("套接字：{e}", "the socket: {e}");
    let (listener, is_ours) = match api::inherited(&socket).map_err(said)? {
        Some(listener) => (listener, false),
        None => (api::bind(&socket).map_err(said)?, true),
    };
    let net = Net::new(clock.clone(), &config.connections()).map_err(|e| words!("网络：{e}", "the network: {e}"))?;
    let (accounts, units) = (config.city.accounts.len(), config.city.units.len());
    // A daemon that is told to stop has done what it should; an errand has not.
    let told_to_stop = if config.direct { Exit::Failed } else { Exit::Done };
    let world = World { clock, http: Arc::new(net), ledger: Arc::new(ledger), trust, config, faults, env };
    let mut daemon = Daemon::start(world).await.map_err(|error| ledger_words(&error))?;
    daemon.inner.publishes_alone(sole);
    daemon.attend().await;
    daemon.with(api::serve(daemon.inner.clone(), listener));
    tell_systemd(&[sd_notify::NotifyState::Ready]);
    tracing::info!(accounts, units, socket = %socket.display(), ledger = %path.display(), "ready");
    let mut errand = std::pin::pin!(errand);
    let exit = loop {
        tokio::select! {
            biased;
            _ = signals.terminate.recv() => break told_to_stop,
            _ = signals.interrupt.recv() => break told_to_stop,
            exit = &mut errand => break exit,
            () = daemon.fallen_apart() => {
                tracing::error!("a part of the daemon has failed: it ends, and is to be started again");
                break Exit::Failed;
            }
            _ = signals.hangup.recv() => {
                tracing::info!("reading the configuration again");
                daemon.inner.reload_config().await;
            }
        }
    };
    tracing::info!("stopping: no new requests; those in flight are awaited");
    tell_systemd(&[sd_notify::NotifyState::Stopping]);
    let inner = daemon.inner.clone();
    daemon.stop().await;
    // One that was passed on stays: whoever asks meanwhile waits for the next start.
    if is_ours && let Err(error) = std::fs::remove_file(&socket) {
        tracing::warn!(%error, "the socket was not removed");
    }
    let (seq, head) = inner.ledger.head();
    tracing::info!(seq, head, "stopped");
    Ok(exit)
}

fn ledger_words(error: &LedgerError) -> Words {
    match error {
        LedgerError::InUse(path) => words!("另一个守护进程正在用账本 {path}", "another daemon uses the ledger {path}"),
        LedgerError::Broken(why) => words!(
            "账本不可信，不发布：{why}。请从备份恢复，或把它移走后查看平台时间线",
            "the ledger is not to be trusted, and nothing is published: {why}. Restore it from a backup, or move it away and look at the platforms' timelines"
        ),
        other => words!("账本：{other}", "{other}"),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

fn tell_systemd(state: &[sd_notify::NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd was not told");
    }
}

/// No core dump, and no other process of this user may read the memory that holds the tokens (R34).
pub(super) fn guard_memory() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps are not turned off");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the memory is not guarded from other processes");
    }
}

/// Logs to stderr: one record a line, what came from outside escaped (R43).
pub fn log_to_stderr(env: &Env) {
    let wish = env("FABU_LOG").unwrap_or_else(|| "info,tokio_cron_scheduler=warn".to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(wish).unwrap_or_else(|_| "info".into());
    let json = env("FABU_LOG_FORMAT").as_deref() == Some("json");
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(move || SafeWriter { json })
        // Its reader may be gone, or its disk full: that is told nowhere, and stops nobody.
        .log_internal_errors(false);
    // A second subscriber, in a test that runs two daemons, is refused and harmless.
    let set = if json { builder.json().try_init() } else { builder.try_init() };
    set.unwrap_or_default();
}

struct SafeWriter {
    json: bool,
}

impl std::io::Write for SafeWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let record = text.strip_suffix('\n').unwrap_or(&text);
        let mut line = if self.json { json_safe(record) } else { crate::core::words::shown(record) };
        line.push('\n');
        // A line that cannot be written is lost, and nothing else is: who logs has an announcement in hand.
        drop(std::io::stderr().lock().write_all(line.as_bytes()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        drop(std::io::stderr().lock().flush());
        Ok(())
    }
}

/// JSON escapes its controls itself; what it lets through and could turn a line is written as JSON writes it.
fn json_safe(record: &str) -> String {
    let mut out = String::with_capacity(record.len());
    for c in record.chars() {
        if crate::core::words::is_hidden(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[derive(clap::Args, Debug)]
pub struct SandboxOptions {
    /// First port; the control page is there, the platforms follow by name (default: free ones)
    #[arg(long)]
    pub port: Option<u16>,
    /// Of every answer: 50ms, 20ms..80ms (jitter), 20ms~heavy
    #[arg(long, default_value = "0ms")]
    pub latency: Latency,
    /// A fault as JSON, e.g. '{"behaviour":"reset_after","probability":0.01}'; may be repeated
    #[arg(long, value_name = "JSON")]
    pub fault: Vec<String>,
    /// Seed of what happens by chance
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Account and host limits of the platforms
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub limits: Switch,
    /// How a repeated text is refused: as the platforms do, only when exactly equal, or never
    #[arg(long, value_enum, default_value_t = Duplicates::Real)]
    pub duplicates: Duplicates,
    /// Takes tokens that nobody registered
    #[arg(long)]
    pub any_token: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Duplicates {
    Real,
    Exact,
    Off,
}

/// The platforms on loopback, with the accounts and secrets of the configuration.
pub async fn sandbox(file: &Path, options: &SandboxOptions, voice: Voice, env: &Env) -> Exit {
    guard_memory();
    let (config, faults) = config::read_for_sandbox(file, env);
    let Some(config) = config else {
        for fault in &faults {
            voice.note(voice.fault(fault));
        }
        return Exit::Failed;
    };
    let mut rules: Vec<FaultRule> = Vec::new();
    for text in &options.fault {
        match serde_json::from_str(text) {
            Ok(rule) => rules.push(rule),
            Err(error) => {
                voice.error(&words!("--fault 读不懂：{error}", "--fault cannot be read: {error}"));
                return Exit::Usage;
            }
        }
    }
    let mut setup = setup_of(&config);
    setup.seed = options.seed;
    setup.latency = options.latency;
    setup.limits = options.limits == Switch::On;
    setup.any_token = options.any_token;
    for platform in &mut setup.platforms {
        match options.duplicates {
            Duplicates::Real => {}
            Duplicates::Exact => platform.settings["duplicates"] = "exact".into(),
            Duplicates::Off => platform.settings["duplicates"] = "off".into(),
        }
    }
    let sandbox = Sandbox::new(setup, Clock::real());
    sandbox.set_faults(rules);
    let served = match sandbox.serve(options.port).await {
        Ok(served) => served,
        Err(error) => {
            voice.error(&words!("无法监听：{error}", "cannot listen: {error}"));
            return Exit::Failed;
        }
    };
    let control = served.control;
    if voice.json {
        voice.data(&json!({ "control": control.to_string(), "platforms": served.platforms.iter().map(|(n, a)| (n.clone(), a.to_string())).collect::<std::collections::BTreeMap<_, _>>() }));
    } else {
        voice.note(
            voice.paint(STRONG, voice.pick("沙箱已就绪；配置里写：", "the sandbox is up; for the configuration:")),
        );
        voice.out(served.platforms_block().trim_end());
        voice.note(format_args!("{} http://{control}/", voice.paint(GOOD, voice.pick("时间线", "timelines"))));
    }
    let stopped = async {
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return;
        };
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    stopped.await;
    drop(served);
    Exit::Done
}

/// The sandbox that stands for the platforms of a configuration, with its accounts and their secrets.
pub fn setup_of(config: &Config) -> Setup {
    let platforms = config
        .settings
        .platforms
        .values()
        .map(|p| {
            let mut settings: serde_json::Map<String, serde_json::Value> =
                p.further.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            let limit = |l: Option<u32>| l.map_or_else(|| json!("off"), |n| json!(n));
            settings.insert(
                "limits".to_owned(),
                json!({
                    "account_per_hour": limit(p.limits.account_per_hour),
                    "account_per_day": limit(p.limits.account_per_day),
                    "host_per_hour": limit(p.limits.host_per_hour),
                }),
            );
            PlatformSetup { name: p.name.to_string(), api: p.api.clone(), settings: settings.into() }
        })
        .collect();
    let accounts = config
        .city
        .accounts
        .values()
        .filter_map(|a| {
            let name = config.city.units.get(a.id.unit()).map_or_else(String::new, |u| u.name.clone());
            Some(AccountSetup {
                platform: a.id.platform().to_owned(),
                unit: a.id.unit().to_owned(),
                name,
                handle: a.handle.clone(),
                uid: a.uid.clone(),
                secret: a.secret.as_ref()?.expose().to_owned(),
            })
        })
        .collect();
    Setup { platforms, accounts, seed: 1, latency: Latency::Fixed(Duration::ZERO), limits: true, ..Setup::default() }
}
