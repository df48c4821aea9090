//! `fabu demo`: sandbox, daemon and a sample queue in one process, shown live.
//!
//! Nothing in it is staged: the daemon reads YAML files, publishes over real sockets, and what is shown
//! comes from its ledger. Two things go wrong on purpose — a token that has expired, an answer that is
//! lost — because that is what a newcomer wants to see handled.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::text::{BAD, CARE, GOOD, QUIET, STRONG, Voice};
use super::{Exit, demo_queue, world};
use crate::api;
use crate::clock::{Clock, Time};
use crate::core::change::{Actor, Recorded};
use crate::core::delivery::{Delivery, State};
use crate::core::words::{Words, shown, words};
use crate::daemon::answers;
use crate::daemon::config::{self, Env};
use crate::daemon::emergency::Closed;
use crate::daemon::{Daemon, World};
use crate::ledger::Filter;
use crate::ledger::sqlite::Sqlite;
use crate::platform::http::Net;
use crate::sandbox::{FaultRule, Sandbox, Served};

/// The queue is over by then, whatever happened.
const LONGEST: TimeDelta = TimeDelta::seconds(58);
const SHORTEST: TimeDelta = TimeDelta::seconds(45);
/// The flood: asked for, confirmed by a second person, and over, so many seconds after the start.
const ASKED_S: i64 = 34;
const CONFIRMED_S: i64 = 37;
const OVER_S: i64 = 43;

#[derive(clap::Args, Debug)]
pub struct Options {
    /// Stays up afterwards, for exploring
    #[arg(long)]
    pub keep: bool,
}

struct Demo {
    folder: PathBuf,
    clock: Clock,
    daemon: Daemon,
    served: Served,
    voice: Voice,
    start: Time,
}

pub async fn run(options: &Options, voice: Voice) -> Exit {
    let folder = std::env::temp_dir().join(format!("fabu-demo-{}", std::process::id()));
    let exit = match staged(&folder, voice).await {
        Ok(demo) => demo.play(options.keep).await,
        Err(words) => {
            voice.error(&words);
            Exit::Failed
        }
    };
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        voice.note(voice.say(&words!("临时文件夹未删去：{error}", "the temporary folder was not removed: {error}")));
    }
    exit
}

async fn staged(folder: &Path, voice: Voice) -> Result<Demo, Words> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |e: std::io::Error| words!("{what}：{e}", "{what}: {e}")
    };
    let env: Env = Arc::new(demo_queue::lookup);
    let clock = Clock::real();
    std::fs::create_dir_all(folder).map_err(failed("mkdir"))?;
    // The sandbox needs the accounts, and the configuration the sandbox's ports: so it is written twice.
    demo_queue::write(folder, "", clock.now()).map_err(failed("write"))?;
    let file = folder.join("fabu.yaml");
    let (config, _) = config::read_for_sandbox(&file, &env);
    let config = config.ok_or_else(|| Words::new("示例配置有误", "the sample configuration is faulty"))?;
    let mut setup = world::setup_of(&config);
    setup.latency = "30ms..90ms".parse().unwrap_or(setup.latency);
    let sandbox = Sandbox::new(setup, clock.clone());
    sandbox.set_standing(demo_queue::EXPIRED, "expired", None);
    let (account, text) = demo_queue::LOST;
    let lost: Result<FaultRule, _> = serde_json::from_value(
        json!({ "behaviour": "reset_after", "account": account, "operation": "post", "text": text, "times": 1 }),
    );
    sandbox.set_faults(vec![lost.map_err(|e| words!("故障：{e}", "the fault: {e}"))?]);
    let served = sandbox.serve(None).await.map_err(failed("sandbox"))?;
    let start = clock.now();
    demo_queue::write(folder, &served.platforms_block(), start).map_err(failed("write"))?;
    let (config, faults) = config::read(&file, &env, true);
    let Some(config) = config else {
        let first = faults.first().map(|f| f.message.clone());
        return Err(first.unwrap_or_else(|| Words::new("示例配置有误", "the sample configuration is faulty")));
    };
    let ledger = Sqlite::open(&config.settings.ledger, &clock).map_err(|e| words!("账本：{e}", "{e}"))?;
    let trust = ledger.trust().clone();
    let net = Net::new(clock.clone(), &config.connections()).map_err(|e| words!("网络：{e}", "{e}"))?;
    let listener = api::bind(&config.settings.socket).map_err(|e| words!("套接字：{e}", "{e}"))?;
    let world =
        World { clock: clock.clone(), http: Arc::new(net), ledger: Arc::new(ledger), trust, config, faults, env };
    let mut daemon = Daemon::start(world).await.map_err(|e| words!("账本：{e}", "{e}"))?;
    daemon.attend().await;
    tokio::spawn(api::serve(daemon.inner.clone(), listener));
    Ok(Demo { folder: folder.to_owned(), clock, daemon, served, voice, start })
}

impl Demo {
    async fn play(self, keep: bool) -> Exit {
        let voice = self.voice;
        let config = self.daemon.inner.config();
        let (accounts, units) = (config.city.accounts.len(), config.city.units.len());
        if !voice.json {
            voice.out(voice.paint(
                STRONG,
                voice.say(&words!(
                    "fabu 演示：{units} 个单位、{accounts} 个账号，四个平台都在本机沙箱里",
                    "fabu demo: {units} units, {accounts} accounts, the four platforms in a sandbox on this machine"
                )),
            ));
            let control = self.served.control;
            voice.out(voice.paint(
                QUIET,
                voice.say(&words!(
                    "时间线：http://{control}/ （演示期间可打开）",
                    "timelines: http://{control}/ (open it while this runs)"
                )),
            ));
            voice.out("");
        }
        tokio::join!(self.watch(), self.officers());
        let deliveries = self.deliveries().await;
        self.summary(&deliveries).await;
        if keep {
            self.stay().await;
        }
        let good = deliveries.iter().filter(|d| matches!(d.state, State::Published | State::Deleted)).count();
        self.daemon.stop().await;
        // One failure is the show's own; none published would be ours.
        if good > 0 { Exit::Done } else { Exit::Failed }
    }

    /// The duty officer and the second person, as a scenario's actors: a live daemon knows peers of its socket alone.
    async fn officers(&self) {
        let inner = &self.daemon.inner;
        let person = |uid, name: &str| Actor::Person { uid, name: name.to_owned() };
        let (duty, second) = (person(60_001, "duty-officer"), person(60_002, "second-person"));
        let until = |seconds| self.clock.sleep_until(self.start + TimeDelta::seconds(seconds));
        until(ASKED_S).await;
        let Ok(asked) = inner.urgent(&duty, demo_queue::flood(), &[]).await else { return };
        let (id, hash) = (asked["id"].as_str().unwrap_or(""), asked["content_hash"].as_str().unwrap_or(""));
        until(CONFIRMED_S).await;
        if let Err(error) = inner.confirm(&second, id, hash).await {
            tracing::error!(%error, "the demo's second person was refused");
        }
        until(OVER_S).await;
        if let Err(error) = inner.all_clear(&duty, id, Closed::default(), &[]).await {
            tracing::error!(%error, "the demo's all-clear was refused");
        }
    }

    /// Follows the ledger's events until everything rests.
    async fn watch(&self) {
        let ledger = &self.daemon.inner.ledger;
        let mut seq = 0;
        loop {
            for record in ledger.events(seq, 5000).await.unwrap_or_default() {
                seq = record.seq;
                if !self.voice.json {
                    self.show(&record).await;
                }
            }
            let passed = self.clock.now() - self.start;
            let resting =
                passed > SHORTEST && ledger.next_due(crate::clock::from_micros(0)).await.ok().flatten().is_none();
            if resting || passed > LONGEST {
                return;
            }
            tokio::select! {
                _ = ledger.newer(seq) => self.clock.sleep(Duration::from_millis(60)).await,
                () = self.clock.sleep(Duration::from_millis(500)) => {}
            }
        }
    }

    async fn show(&self, record: &Recorded) {
        let voice = self.voice;
        let body: Value = serde_json::from_str(&record.body).unwrap_or(Value::Null);
        let zone = self.daemon.inner.config().settings.zone;
        let clock = voice.paint(QUIET, record.at.with_timezone(&zone).format("%H:%M:%S%.3f"));
        let text = |key: &str| shown(body[key].as_str().unwrap_or(""));
        let line = match (record.kind.as_str(), body["event"].as_str(), body["to"].as_str()) {
            ("closed", ..) => {
                let figures = self.release(&record.subject, &body).await;
                format!("{} {figures}", voice.paint(GOOD, voice.pick("发布", "released")))
            }
            ("emergency", ..) => {
                let (level, said, n) = (text("level"), text("text"), body["accounts"].as_u64().unwrap_or(0));
                let by = shown(&record.actor);
                let line = voice
                    .say(&words!("{by} {level}：{said}（{n} 个账号）", "{by} {level}: {said} ({n} accounts)"))
                    .to_owned();
                format!("{} {line}", voice.paint(BAD, voice.pick("紧急", "urgent  ")))
            }
            ("confirmed", ..) => {
                let by = shown(&record.actor);
                let line = voice.say(&words!("{by} 给出确认", "{by} gives their word")).to_owned();
                format!("{} {line}", voice.paint(GOOD, voice.pick("确认", "confirm ")))
            }
            ("hold", ..) => {
                let until = body["until"].as_str().and_then(|t| t.parse::<Time>().ok());
                let until = until.map_or_else(String::new, |t| t.with_timezone(&zone).format("%H:%M").to_string());
                let line = voice.say(&words!("例行发布静默至 {until}", "routine is silent until {until}")).to_owned();
                format!("{} {line}", voice.paint(CARE, voice.pick("静默", "hold    ")))
            }
            ("hold_ended", ..) => {
                let line = voice.pick(
                    "静默结束，留住的等人放行（fabu held）",
                    "the hold is over; what it kept back waits for a look (fabu held)",
                );
                format!("{} {line}", voice.paint(GOOD, voice.pick("解除", "resume  ")))
            }
            (_, Some("gate_closed"), Some("held")) if body["from"] != "held" => {
                let (account, id) = (text("account"), shown(&record.subject));
                format!("{} {account}: {id}", voice.paint(CARE, voice.pick("留住", "held    ")))
            }
            (_, _, Some("failed")) if body["from"] != "failed" => {
                let reason = shown(body["reason"][voice.pick("zh", "en")].as_str().unwrap_or(""));
                let account = text("account");
                let id = shown(&record.subject);
                let why = voice.say(&words!("{account}：{id}，{reason}", "{account}: {id}, {reason}")).to_owned();
                format!("{} {why}", voice.paint(BAD, voice.pick("失败", "failed  ")))
            }
            (_, Some("answered"), Some("unknown")) => {
                let account = text("account");
                let why = voice
                    .say(&words!(
                        "{account}：回答丢失，去时间线上找",
                        "{account}: the answer was lost; looking on the timeline"
                    ))
                    .to_owned();
                format!("{} {why}", voice.paint(CARE, voice.pick("不明", "unknown ")))
            }
            (_, Some("found"), _) if record.subject == "city-projects" => {
                let (account, url) = (text("account"), text("url"));
                let why = voice
                    .say(&words!(
                        "{account}：找到了，没有重发 {url}",
                        "{account}: it is there, and was not sent twice {url}"
                    ))
                    .to_owned();
                format!("{} {why}", voice.paint(GOOD, voice.pick("找回", "found   ")))
            }
            (_, Some("taken_down"), _) => {
                let (account, id) = (text("account"), shown(&record.subject));
                let line = voice.say(&words!("{account}：{id}", "{account}: {id}")).to_owned();
                format!("{} {line}", voice.paint(CARE, voice.pick("撤下", "replaced")))
            }
            _ => return,
        };
        voice.out(format_args!("{clock}  {line}"));
    }

    async fn release(&self, occurrence: &str, closing: &Value) -> String {
        let rows = self.daemon.inner.ledger.of_occurrence(occurrence.into()).await.unwrap_or_default();
        let mut by_platform: BTreeMap<&str, u32> = BTreeMap::new();
        for row in rows.iter().filter(|d| matches!(d.state, State::Published | State::Unknown)) {
            *by_platform.entry(row.account.platform()).or_default() += 1;
        }
        let platforms = by_platform.iter().map(|(p, n)| format!("{p} {n}")).collect::<Vec<_>>().join(" · ");
        let ms = |key: &str| closing[key].as_f64().unwrap_or(0.0);
        let (late, skew, id) = (ms("lateness_ms"), ms("skew_ms"), shown(occurrence));
        let (zh, en) = ("误差", "late");
        format!(
            "{id}  {platforms}  {} {late:.1} ms, {} {skew:.1} ms",
            self.voice.pick(zh, en),
            self.voice.pick("先后", "skew")
        )
    }

    async fn deliveries(&self) -> Vec<Delivery> {
        self.daemon.inner.ledger.deliveries(Filter { max: 10_000, ..Filter::default() }).await.unwrap_or_default()
    }

    async fn summary(&self, deliveries: &[Delivery]) {
        let voice = self.voice;
        let ledger = &self.daemon.inner.ledger;
        let occurrences = ledger
            .occurrences(self.start - TimeDelta::minutes(1), self.start + TimeDelta::minutes(5))
            .await
            .unwrap_or_default();
        if voice.json {
            let releases: Vec<_> = occurrences.iter().map(answers::Occurrence::of).collect();
            let deliveries: Vec<_> = deliveries.iter().map(answers::Delivery::of).collect();
            return voice.data(&json!({ "releases": releases, "deliveries": deliveries }));
        }
        voice.out("");
        let mut table = voice.table(&[
            voice.pick("公告", "announcement"),
            voice.pick("已发布", "published"),
            voice.pick("已撤下", "taken down"),
            voice.pick("留住", "held"),
            voice.pick("失败", "failed"),
            voice.pick("误差 ms", "lateness ms"),
            voice.pick("先后 ms", "skew ms"),
            voice.pick("一张回执", "one receipt"),
        ]);
        for occurrence in &occurrences {
            let n = |state: State| occurrence.counts.get(&state).copied().unwrap_or(0);
            let some = |n: u32| if n == 0 { "–".to_owned() } else { n.to_string() };
            let figure = |f: Option<f64>| f.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.1}"));
            let closing = occurrence.closing.as_ref();
            let receipt = deliveries
                .iter()
                .filter(|d| d.occurrence == occurrence.id)
                .find_map(|d| d.receipt.as_ref()?.url.clone())
                .unwrap_or_default();
            table.add_row(vec![
                occurrence.id.to_string(),
                some(n(State::Published)),
                some(n(State::Deleted)),
                some(n(State::Held)),
                some(n(State::Failed)),
                figure(closing.map(|c| c.lateness_ms)),
                figure(closing.map(|c| c.skew_ms)),
                shown(&receipt),
            ]);
        }
        voice.out(table);
        let published = deliveries.iter().filter(|d| matches!(d.state, State::Published | State::Deleted)).count();
        let failed = deliveries.iter().filter(|d| d.state == State::Failed).count();
        let found =
            deliveries.iter().filter(|d| d.receipt.as_ref().is_some_and(|r| r.read_back) && d.attempt > 0).count();
        voice.out(voice.say(&words!(
            "{published} 条发布（其中 {found} 条由回读找回），{failed} 条失败：令牌过期的账号等人更新凭据",
            "{published} published ({found} of them found by read-back), {failed} failed: the account with the expired token waits for a person"
        )));
    }

    async fn stay(&self) {
        let voice = self.voice;
        let file = self.folder.join("fabu.yaml");
        let alert = self.folder.join("alert.xml");
        let (file, alert) = (file.display(), alert.display());
        voice.out("");
        voice.out(voice.say(&words!(
            "守护进程还在运行。在另一个终端试试：\n  export FABU_CONFIG={file}\n  fabu status\n  fabu held\n  fabu urgent 【交通】地铁2号线停运，请绕行。 --level yellow --to shanghai --hold 30m --id line-2\n  fabu correct line-2 --dry-run\n  fabu urgent --cap {alert} --dry-run\n按 Ctrl-C 结束。",
            "The daemon is still up. In another terminal, try:\n  export FABU_CONFIG={file}\n  fabu status\n  fabu held\n  fabu urgent 【交通】地铁2号线停运，请绕行。 --level yellow --to shanghai --hold 30m --id line-2\n  fabu correct line-2 --dry-run\n  fabu urgent --cap {alert} --dry-run\nCtrl-C ends it."
        )));
        if let Err(error) = tokio::signal::ctrl_c().await {
            voice.error(&words!("无法接收信号：{error}", "signals cannot be received: {error}"));
        }
    }
}
