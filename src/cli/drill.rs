//! `fabu drill` (演练): the whole program in a world of its own.
//!
//! The same accounts without their secrets, a ledger and a socket of its own, every text stamped. Its
//! network is the sandbox in this process and nothing else: there is no connection to any address that
//! a mistake could lead outside. Word to first and last account, and word to correction, are kept and
//! compared with the last time, since that is what a drill is for.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::text::{BAD, DRILL, GOOD, QUIET, Voice};
use super::{Exit, stage, world};
use crate::api;
use crate::clock::{Clock, Time};
use crate::core::announcement::Priority;
use crate::core::change::{Actor, Recorded};
use crate::core::delivery::State;
use crate::core::words::{Words, shown, words};
use crate::daemon::config::{self, Config, Env};
use crate::daemon::emergency::{Closed, Urgent};
use crate::daemon::{Daemon, World};
use crate::input::scenario::{self, Act, Post, Said, Scenario};
use crate::input::values;
use crate::ledger::Filter;
use crate::ledger::sqlite::Sqlite;
use crate::sandbox::{FaultRule, Sandbox, Served};

/// Actors of a scenario have uids that no account of a machine has.
const FIRST_UID: u32 = 4_000_000_000;
/// Drills of the same scenario that one is compared with.
const COMPARED: usize = 5;
/// After its last step a drill waits this long for what is still under way.
const SETTLES: Duration = Duration::from_secs(60);

#[derive(clap::Args, Debug)]
pub struct Options {
    /// Who does what when, and what goes wrong; without it, by hand
    pub scenario: Option<PathBuf>,
    /// Stays up afterwards, for looking around
    #[arg(long)]
    pub keep: bool,
}

struct Drill {
    folder: PathBuf,
    clock: Clock,
    daemon: Daemon,
    sandbox: Sandbox,
    served: Served,
    voice: Voice,
    start: Time,
}

pub async fn run(file: &Path, options: &Options, voice: Voice, env: &Env) -> Exit {
    let scenario = match &options.scenario {
        None => None,
        Some(path) => {
            let (scenario, faults) = scenario::read(path);
            for fault in &faults {
                voice.note(voice.fault(fault));
            }
            match scenario {
                Some(scenario) => Some(scenario),
                None => return Exit::Failed,
            }
        }
    };
    let (config, faults) = config::read_for_drill(file, env);
    let Some(config) = config else {
        for fault in faults.iter().filter(|f| f.is_error()) {
            voice.note(voice.fault(fault));
        }
        return Exit::Failed;
    };
    match staged(config, voice, env).await {
        Ok(drill) => drill.play(scenario.as_ref(), options.keep).await,
        Err(words) => {
            voice.error(&words);
            Exit::Failed
        }
    }
}

async fn staged(live: Config, voice: Voice, env: &Env) -> Result<Drill, Words> {
    let failed = |what: &'static str| move |e: std::io::Error| words!("{what}：{e}", "{what}: {e}");
    let absolute = std::path::absolute(&live.settings.ledger).map_err(failed("path"))?;
    let folder = absolute.parent().unwrap_or(Path::new(".")).join("drill");
    let socket = folder.join("fabu.sock");
    if tokio::net::UnixStream::connect(&socket).await.is_ok() {
        return Err(Words::new("已有一场演练在进行", "a drill is going on already"));
    }
    world::guard_memory();
    stage::fresh(&folder).map_err(failed("the folder of the drill"))?;
    let config = stage::inwards(live, &folder);
    let clock = Clock::real();
    let mut setup = world::setup_of(&config);
    setup.latency = "30ms..90ms".parse().unwrap_or(setup.latency);
    setup.any_token = true;
    let sandbox = Sandbox::new(setup, clock.clone());
    let served = sandbox.serve(None).await.map_err(failed("sandbox"))?;
    stage::files(&config, &served, &folder).map_err(failed("the configuration of the drill"))?;
    let ledger = Sqlite::open(&config.settings.ledger, &clock).map_err(|e| words!("账本：{e}", "{e}"))?;
    let trust = ledger.trust().clone();
    let listener = api::bind(&socket).map_err(|e| words!("套接字：{e}", "{e}"))?;
    let http = Arc::new(stage::Indoors { sandbox: sandbox.clone(), clock: clock.clone() });
    let world = World {
        clock: clock.clone(),
        http,
        ledger: Arc::new(ledger),
        trust,
        config,
        faults: Vec::new(),
        env: env.clone(),
    };
    let mut daemon = Daemon::start(world).await.map_err(|e| words!("账本：{e}", "{e}"))?;
    daemon.attend().await;
    tokio::spawn(api::serve(daemon.inner.clone(), listener));
    let start = clock.now();
    Ok(Drill { folder, clock, daemon, sandbox, served, voice, start })
}

impl Drill {
    async fn play(self, scenario: Option<&Scenario>, keep: bool) -> Exit {
        let voice = self.voice;
        let file = self.folder.join("fabu.yaml");
        if !voice.json {
            let config = self.daemon.inner.config();
            let (accounts, control) = (config.city.accounts.len(), self.served.control);
            let said = words!(
                "【演练】{accounts} 个账号都在本机沙箱里，没有真实凭据；时间线：http://{control}/",
                "DRILL: {accounts} accounts in a sandbox on this machine, no live credential; timelines: http://{control}/"
            );
            voice.note(voice.paint(DRILL, voice.say(&said)));
            let here = file.display();
            let said = words!(
                "另一终端：FABU_CONFIG={here} fabu status",
                "in another terminal: FABU_CONFIG={here} fabu status"
            );
            voice.note(voice.paint(QUIET, voice.say(&said)));
        }
        let mut refused = 0;
        let name = match scenario {
            Some(scenario) => {
                refused = self.perform(scenario).await;
                if keep {
                    self.by_hand(&file).await;
                }
                scenario.name.clone()
            }
            None => {
                self.by_hand(&file).await;
                "by hand".to_owned()
            }
        };
        let exit = self.figures(&name).await;
        self.daemon.stop().await;
        // What was refused was not practised.
        if refused > 0 && exit == Exit::Done { Exit::Partly } else { exit }
    }

    /// Returns how many of its steps were refused.
    async fn perform(&self, scenario: &Scenario) -> usize {
        let mut refused = 0;
        let mut rules: Vec<FaultRule> = Vec::new();
        for step in &scenario.steps {
            let due = self.start + chrono::TimeDelta::from_std(step.at).unwrap_or_default();
            self.clock.sleep_until(due).await;
            let done = match &step.act {
                Act::Post(post) => self.post(post).map(|()| Value::Null),
                Act::Fault(rule) => match serde_json::from_value(rule.clone()) {
                    Ok(rule) => {
                        rules.push(rule);
                        self.sandbox.set_faults(rules.clone());
                        Ok(Value::Null)
                    }
                    Err(error) => Err(Words::same(error.to_string())),
                },
                act => self.acted(scenario, act).await,
            };
            refused += usize::from(done.is_err());
            self.told(&step.act, &done);
        }
        let end = self.start + chrono::TimeDelta::from_std(scenario.lasts).unwrap_or_default();
        self.clock.sleep_until(end).await;
        let latest = self.clock.now() + chrono::TimeDelta::from_std(SETTLES).unwrap_or_default();
        while self.under_way().await && self.clock.now() < latest {
            self.clock.sleep(Duration::from_millis(200)).await;
        }
        refused
    }

    /// Whether an emergency, or what belongs to it, is still on its way.
    async fn under_way(&self) -> bool {
        let filter = Filter { max: 100_000, priority: Some(Priority::Emergency), ..Filter::default() };
        let rows = self.daemon.inner.ledger.deliveries(filter).await.unwrap_or_default();
        rows.iter().any(|d| !d.state.is_settled() && d.state != State::Published && d.next_at.is_some())
    }

    async fn acted(&self, scenario: &Scenario, act: &Act) -> Result<Value, Words> {
        let inner = &self.daemon.inner;
        let person = |name: &String| {
            let n = scenario.persons.iter().position(|p| p == name).unwrap_or(0);
            Actor::Person { uid: FIRST_UID + n as u32, name: name.clone() }
        };
        let done = match act {
            Act::Urgent { by, urgent } => inner.urgent(&person(by), asked(urgent), &[]).await,
            Act::Confirm { by, id } => {
                let filter = Filter { announcement: Some(id.clone()), max: 1, ..Filter::default() };
                let found = inner.ledger.announcements(filter).await.unwrap_or_default().pop();
                let hash = found.map_or_else(String::new, |a| a.row.content.to_string());
                inner.confirm(&person(by), id, &hash).await
            }
            Act::Correct { by, id } => inner.correct(&person(by), id, Closed::default()).await,
            Act::AllClear { by, id } => inner.all_clear(&person(by), id, Closed::default(), &[]).await,
            Act::Post(_) | Act::Fault(_) => return Ok(Value::Null),
        };
        done.map_err(|error| error.words())
    }

    fn post(&self, post: &Post) -> Result<(), Words> {
        let offset = post.at.as_deref().map(values::duration).transpose()?;
        let at = offset.map(|offset| {
            let at = self.start + chrono::TimeDelta::from_std(offset).unwrap_or_default();
            at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
        });
        let id = post.id.clone().unwrap_or_else(|| "post".to_owned());
        values::id(&id)?;
        let mut entry = json!({ "id": id, "text": post.text, "to": post.to });
        if let Some(at) = at {
            entry["at"] = at.into();
        }
        let text =
            serde_yaml::to_string(&json!({ "announcements": [entry] })).map_err(|e| Words::same(e.to_string()))?;
        std::fs::write(self.folder.join("queue").join(format!("{id}.yaml")), text)
            .map_err(|e| Words::same(e.to_string()))
    }

    fn told(&self, act: &Act, done: &Result<Value, Words>) {
        if self.voice.json {
            return;
        }
        let passed = (self.clock.now() - self.start).as_seconds_f64();
        let (who, what) = match act {
            Act::Post(post) => ("-", format!("post {}", post.id.as_deref().unwrap_or(""))),
            Act::Fault(rule) => ("-", format!("fault {rule}")),
            Act::Urgent { by, urgent } => (by.as_str(), format!("urgent {}", urgent.id.as_deref().unwrap_or(""))),
            Act::Confirm { by, id } => (by.as_str(), format!("confirm {id}")),
            Act::Correct { by, id } => (by.as_str(), format!("correct {id}")),
            Act::AllClear { by, id } => (by.as_str(), format!("all-clear {id}")),
        };
        let line = format!("{passed:7.1} s  {:<10} {}", shown(who), shown(&what));
        match done {
            Ok(_) => self.voice.note(self.voice.paint(DRILL, line)),
            Err(said) => self.voice.note(format!("{line}  {}", self.voice.paint(BAD, self.voice.say(said)))),
        }
    }

    /// Commands typed at a prompt of its own; without a terminal, until it is told to stop.
    async fn by_hand(&self, file: &Path) {
        if !std::io::stdin().is_terminal() {
            if let Err(error) = stopped().await {
                self.voice.error(&words!("无法接收信号：{error}", "signals cannot be received: {error}"));
            }
            return;
        }
        let (file, voice) = (file.to_owned(), self.voice);
        let typed = tokio::task::spawn_blocking(move || prompt(&file, voice));
        tokio::select! {
            ended = typed => ended.unwrap_or_default(),
            stop = stopped() => stop.unwrap_or_default(),
        }
    }

    async fn figures(&self, name: &str) -> Exit {
        let rows = self.measured().await;
        let file = self.folder.join(stage::TIMINGS);
        let before = last_times(&file, name);
        let line = json!({ "at": self.start, "scenario": name, "rows": rows });
        let kept = std::fs::OpenOptions::new().create(true).append(true).open(&file);
        if let Err(error) = kept.and_then(|mut file| writeln!(file, "{line}")) {
            self.voice.error(&words!("用时没有记下：{error}", "the figures were not kept: {error}"));
        }
        self.tell(&rows, &before);
        let missing = rows.iter().any(|r| r["published"].as_u64() < r["accounts"].as_u64());
        if missing { Exit::Partly } else { Exit::Done }
    }

    /// Word to first and to last account, by act and by person, from the drill's own ledger.
    async fn measured(&self) -> Vec<Value> {
        let ledger = &self.daemon.inner.ledger;
        let filter = Filter { max: 100_000, priority: Some(Priority::Emergency), ..Filter::default() };
        let deliveries = ledger.deliveries(filter).await.unwrap_or_default();
        let mut records: Vec<Recorded> = Vec::new();
        while let Ok(more) = ledger.events(records.last().map_or(0, |r| r.seq), 5000).await
            && !more.is_empty()
        {
            records.extend(more);
        }
        let words: BTreeMap<&str, Time> =
            records.iter().filter(|r| r.kind == "emergency").map(|r| (r.subject.as_str(), r.at)).collect();
        let mut rows = Vec::new();
        for record in records.iter().filter(|r| r.kind == "emergency" || r.kind == "confirmed") {
            let of_it = || deliveries.iter().filter(|d| d.occurrence.as_str() == record.subject);
            let out: Vec<Time> = of_it().filter_map(|d| Some(d.receipt.as_ref()?.accepted_at)).collect();
            let ms = |at: Option<&Time>| at.map(|at| (*at - record.at).num_milliseconds().max(0));
            let is_own_word = record.kind == "confirmed" && words.get(record.subject.as_str()) == Some(&record.at);
            if is_own_word {
                // The sender's own word is the act itself.
                continue;
            }
            // A correction is measured from the word that was wrong as well.
            let wrong = record.subject.find("-correction").and_then(|n| words.get(&record.subject[..n]));
            rows.push(json!({
                "what": format!("{}{}", if record.kind == "confirmed" { "confirm " } else { "" }, record.subject),
                "by": record.actor, "at": record.at, "accounts": of_it().count(), "published": out.len(),
                "first_ms": ms(out.iter().min()), "last_ms": ms(out.iter().max()),
                "from_wrong_word_ms": wrong.and_then(|w| Some((*out.iter().max()? - *w).num_milliseconds())),
            }));
        }
        rows
    }

    fn tell(&self, rows: &[Value], before: &BTreeMap<String, Vec<i64>>) {
        let voice = self.voice;
        if voice.json {
            return voice.data(&json!({ "drill": rows, "before": before }));
        }
        let mut table = voice.table(&[
            voice.pick("事项", "act"),
            voice.pick("谁", "by"),
            voice.pick("到达", "reached"),
            voice.pick("到首个账号", "to the first"),
            voice.pick("到末个账号", "to the last"),
            voice.pick("上次", "last time"),
            voice.pick("近五次居中", "median of five"),
            voice.pick("误报到更正", "wrong word to correction"),
        ]);
        let seconds = |v: &Value| v.as_f64().map_or_else(|| "–".to_owned(), |ms| format!("{:.2} s", ms / 1000.0));
        for row in rows {
            let what = row["what"].as_str().unwrap_or("");
            let by = row["by"].as_str().unwrap_or("");
            let (last, median) = compared(before.get(what));
            table.add_row(vec![
                shown(what),
                shown(by),
                format!("{}/{}", row["published"], row["accounts"]),
                seconds(&row["first_ms"]),
                seconds(&row["last_ms"]),
                seconds(&json!(last)),
                seconds(&json!(median)),
                seconds(&row["from_wrong_word_ms"]),
            ]);
        }
        voice.out(table);
        let file = self.folder.join(stage::TIMINGS);
        let file = file.display();
        let said = words!("演练结束，用时记在 {file}", "the drill is over; its figures are kept in {file}");
        voice.out(voice.paint(GOOD, voice.say(&said)));
    }
}

fn asked(said: &Said) -> Urgent {
    Urgent {
        id: said.id.clone(),
        text: said.text.clone().unwrap_or_default(),
        level: said.level,
        to: said.to.clone().unwrap_or_default(),
        template: said.template.clone(),
        values: said.values.clone().unwrap_or_default(),
        update: said.update.clone(),
        ..Urgent::default()
    }
}

/// How long the last drills of this name took to the last account, by what was done, the newest first.
fn last_times(file: &Path, name: &str) -> BTreeMap<String, Vec<i64>> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let drills = text.lines().rev().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let mut times: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for drill in drills.filter(|l| l["scenario"] == name).take(COMPARED) {
        for row in drill["rows"].as_array().into_iter().flatten() {
            if let (Some(what), Some(ms)) = (row["what"].as_str(), row["last_ms"].as_i64()) {
                times.entry(what.to_owned()).or_default().push(ms);
            }
        }
    }
    times
}

/// The last time, and the middle of the last ones.
fn compared(times: Option<&Vec<i64>>) -> (Option<i64>, Option<i64>) {
    let mut sorted = times.cloned().unwrap_or_default();
    let last = sorted.first().copied();
    sorted.sort_unstable();
    (last, sorted.get(sorted.len() / 2).copied())
}

async fn stopped() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    Ok(())
}

/// A line at a time, each a command of `fabu` on the drill's socket.
fn prompt(file: &Path, voice: Voice) {
    let Ok(fabu) = std::env::current_exe() else { return };
    let mut lines = std::io::stdin().lock().lines();
    loop {
        eprint!("{} ", voice.paint(DRILL, voice.pick("【演练】fabu>", "DRILL fabu>")));
        std::io::stderr().flush().unwrap_or_default();
        let Some(Ok(line)) = lines.next() else { return };
        let Some(words) = shlex::split(&line) else {
            voice.error(&Words::new("引号没有成对", "the quotes do not pair"));
            continue;
        };
        match words.first().map(String::as_str) {
            None => continue,
            Some("exit" | "quit") => return,
            // The prompt of a prompt helps nobody.
            Some("drill" | "run" | "demo") => {
                voice.error(&Words::new("演练里不再起一个世界", "there is one world in a drill"));
                continue;
            }
            Some(_) => {}
        }
        let lang = voice.pick("zh", "en");
        let ran = std::process::Command::new(&fabu)
            .args(words.iter().filter(|w| !w.starts_with("--config")))
            .args(["--lang", lang])
            .env("FABU_CONFIG", file)
            .status();
        if let Err(error) = ran {
            voice.error(&Words::same(error.to_string()));
        }
    }
}
