//! A city with people in it: a machine whose clock can be stepped and whose process can be stopped or killed, and
//! platforms that know nothing of that.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use fabu::api::peer::Peer;
use fabu::clock::{Clock, Time};
use fabu::daemon::{Daemon, World as Given, jobs};
use fabu::sandbox::Sandbox;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::network::{Act, History, Weather, What, Wire};
use super::trouble::Trouble;
use crate::support::between::Between;
use crate::support::{self, UNITS};

/// A unit whose accounts come later.
const LATER: (&str, &str, &str) = ("shanghai/sport", "sport", "sina tencent eastday xinmin");

pub struct World {
    pub folder: TempDir,
    /// The machine's.
    pub clock: Clock,
    /// Nobody touches this one: the platforms' and the judge's.
    pub truth: Clock,
    pub sandbox: Sandbox,
    pub history: Arc<History>,
    pub weather: Arc<Weather>,
    pub trouble: Arc<Trouble>,
    pub connections: usize,
    pub process: Option<Process>,
    /// Accounts that the file says are closed, and whether it has the later unit.
    pub closed: BTreeSet<String>,
    pub has_later: bool,
}

/// The daemon, and what is under way on its socket and its minute hand.
pub struct Process {
    pub daemon: Daemon,
    tasks: JoinSet<()>,
}

impl World {
    pub fn new(start: &str, seed: u64) -> World {
        let folder = tempfile::tempdir().unwrap();
        let (clock, truth) =
            (Clock::simulated(support::utc(start), seed), Clock::simulated(support::utc(start), !seed));
        let platforms = support::platforms_yaml(&["sina", "tencent", "eastday", "xinmin"]);
        let mut text = format!("timezone: Asia/Shanghai\n{platforms}");
        text += "access: {duty: [\"user:4001\", \"user:4002\", \"user:4003\"], edit: [\"user:4101\", \"user:4102\"]}\n";
        std::fs::write(folder.path().join("fabu.yaml"), text).unwrap();
        std::fs::create_dir(folder.path().join("queue")).unwrap();
        write_accounts(folder.path(), &BTreeSet::new(), true);
        // The platforms know the later accounts all along.
        let sandbox = support::sandbox(&support::config_of(folder.path()), seed, &truth);
        write_accounts(folder.path(), &BTreeSet::new(), false);
        let history = History::new(truth.clone(), clock.clone());
        World {
            folder,
            sandbox,
            history,
            weather: Arc::default(),
            trouble: Trouble::new(seed),
            connections: 64,
            process: None,
            closed: BTreeSet::new(),
            has_later: false,
            clock,
            truth,
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn queue(&self) -> PathBuf {
        self.path().join("queue")
    }

    pub fn ledger_file(&self) -> PathBuf {
        self.path().join("state/fabu.db")
    }

    /// By the clock nobody touches.
    pub async fn sleep(&self, for_: Duration) {
        self.truth.sleep(for_).await;
    }

    /// Notes whether anything is wrong now with the platforms, the network or the ledger.
    pub fn note_trouble(&self) {
        let is_any = !self.sandbox.faults().is_empty() || self.trouble.is_any() || self.weather.is_slow();
        self.history.note(What::Trouble(is_any));
    }

    pub async fn start(&mut self) {
        let ledger = Arc::new(support::opened(&self.ledger_file(), &self.clock).await);
        let trust = ledger.trust().clone();
        let wire = Wire::new(self.sandbox.clone(), self.history.clone(), self.weather.clone(), self.connections);
        let given = Given {
            clock: self.clock.clone(),
            http: Arc::new(wire),
            ledger: Between::over(ledger, self.trouble.clone()),
            trust,
            config: support::config_of(self.path()),
            faults: Vec::new(),
            env: support::env(),
        };
        // A ledger that takes nothing lets no daemon start.
        self.trouble.pause(true);
        let daemon = Daemon::start(given).await.unwrap();
        self.trouble.pause(false);
        let mut tasks = JoinSet::new();
        let inner = daemon.inner.clone();
        tasks.spawn(async move {
            for minute in 1_u64.. {
                inner.clock.sleep(Duration::from_secs(60)).await;
                jobs::every_minute(&inner).await;
                if minute.is_multiple_of(5) {
                    jobs::every_five_minutes(&inner).await;
                }
                if minute.is_multiple_of(60) {
                    jobs::every_hour(&inner).await;
                }
            }
        });
        self.history.note(What::Started);
        self.process = Some(Process { daemon, tasks });
    }

    /// Cuts off all that is under way, the requests of people as well.
    pub async fn crash(&mut self) {
        if self.process.is_none() {
            return;
        }
        self.history.tell(self.process.as_ref().map(|p| &p.daemon)).await;
        self.process = None;
        self.clock.freeze(false);
        self.history.note(What::Crashed);
        support::let_go(&self.ledger_file(), &self.truth).await;
    }

    /// Somebody asks something over the socket, and waits for the answer beside everybody else.
    pub fn ask(&mut self, act: Act) {
        let history = self.history.clone();
        let Some(process) = &mut self.process else { return };
        let inner = process.daemon.inner.clone();
        process.tasks.spawn(async move {
            inner.clock.thawed().await;
            asked(&inner, &history, act).await;
        });
    }

    /// The same, and its answer is waited for.
    pub async fn ask_now(&self, act: Act) -> (u16, Value) {
        let process = self.process.as_ref().expect("a daemon runs");
        asked(&process.daemon.inner, &self.history, act).await
    }

    /// Saves the file of accounts, and has it read after a while.
    pub fn reload(&mut self) {
        write_accounts(self.path(), &self.closed, self.has_later);
        let act = |what: &str, account: &str| Act {
            by: 0,
            method: "SIGHUP",
            path: format!("/{what}/{account}"),
            body: Value::Null,
        };
        let acts: Vec<Act> = all_accounts()
            .into_iter()
            .map(|a| act(if self.closed.contains(&a) { "close" } else { "open" }, &a))
            .collect();
        let history = self.history.clone();
        let call = history.len();
        acts.iter().for_each(|act| history.note(What::Asked { act: act.clone() }));
        let Some(process) = &mut self.process else { return };
        let inner = process.daemon.inner.clone();
        process.tasks.spawn(async move {
            inner.clock.thawed().await;
            inner.reload_config().await;
            for act in acts {
                history.note(What::Answered { call, act, status: 200, body: Value::Null });
            }
        });
    }

    /// Somebody saved something in the queue: the folder is looked at soon.
    pub fn look(&mut self, after: Duration) {
        let Some(process) = &mut self.process else { return };
        let inner = process.daemon.inner.clone();
        process.tasks.spawn(async move {
            inner.clock.sleep(after).await;
            inner.ask_rescan();
        });
    }

    /// Sets the time of a file to the machine's.
    pub fn stamp(&self, path: &Path) {
        let since = Duration::from_micros(self.clock.now().timestamp_micros().max(0) as u64);
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + since).unwrap();
    }
}

async fn asked(inner: &Arc<fabu::daemon::Inner>, history: &History, act: Act) -> (u16, Value) {
    let call = history.len();
    let body = if act.body.is_null() { Body::empty() } else { Body::from(act.body.to_string()) };
    let mut request = axum::http::Request::builder()
        .method(act.method)
        .uri(&act.path)
        .header("content-type", "application/json")
        .body(body)
        .unwrap();
    request.extensions_mut().insert(Peer::new(act.by));
    history.note(What::Asked { act: act.clone() });
    let answer = fabu::api::router(inner.clone()).oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    let bytes = axum::body::to_bytes(answer.into_body(), 64 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    inner.clock.thawed().await;
    history.note(What::Answered { call, act, status, body: body.clone() });
    (status, body)
}

fn units(with_later: bool) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    UNITS.into_iter().chain(with_later.then_some(LATER))
}

pub fn uid_of(account: &str) -> String {
    let n = units(true).position(|(id, ..)| account.split_once(':').is_some_and(|(_, unit)| unit == id));
    format!("10000{}", n.unwrap_or(9))
}

/// Every account there ever is.
pub fn all_accounts() -> Vec<String> {
    units(true).flat_map(|(id, _, on)| on.split(' ').map(move |p| format!("{p}:{id}"))).collect()
}

fn write_accounts(folder: &Path, closed: &BTreeSet<String>, with_later: bool) {
    std::fs::write(folder.join("accounts.yaml"), support::accounts_of(units(with_later), closed)).unwrap();
}

pub fn local(at: Time) -> String {
    at.with_timezone(&chrono_tz::Asia::Shanghai).to_rfc3339_opts(chrono::SecondsFormat::Secs, false)
}
