//! `check`, `plan`, `schema`: what the files say, before anything is sent.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::text::{GOOD, Voice};
use super::{Exit, client};
use crate::api::client::{ClientError, in_path};
use crate::clock::Clock;
use crate::core::announcement::AnnouncementId;
use crate::core::plan::{self, Known};
use crate::core::words::{Words, shown, words};
use crate::daemon::answers;
use crate::daemon::config::{self, Config, Env};
use crate::daemon::{planner, queue};
use crate::input::folder::{Named, Reading};
use crate::input::{Fault, Source, is_yaml};

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum SchemaOf {
    Queue,
    Accounts,
    Config,
    Template,
}

/// Reads everything and shows every fault; exit 1 if there is an error among them.
pub async fn check(file: &Path, paths: &[PathBuf], voice: Voice, env: &Env) -> Exit {
    let (config, mut faults) = config::read(file, env, true);
    let mut read = (0, 0);
    if let Some(mut config) = config {
        let roots: Vec<PathBuf> = if paths.is_empty() { vec![config.settings.queue.clone()] } else { paths.to_vec() };
        for root in roots {
            let (mut reading, mut only) = read_path(&mut config, &root, Some(BTreeSet::new()));
            if !reading.unsure.is_empty() {
                let known = known_to_ledger(file, voice, &config, &reading.unsure).await;
                (reading, only) = read_path(&mut config, &root, known);
            }
            if !paths.is_empty() {
                faults.extend(nothing_in(&root, reading.files));
            }
            read.0 += reading.files;
            read.1 += reading.desired.announcements.len();
            faults.extend(reading.faults.into_iter().filter(|f| only.as_ref().is_none_or(|o| f.source.name == *o)));
        }
    }
    crate::input::sort(&mut faults);
    tell(&faults, read, voice);
    if faults.iter().any(Fault::is_error) { Exit::Failed } else { Exit::Done }
}

/// The announcements among these that the ledger knows: none where no daemon ever ran, and `None` where nobody can tell.
async fn known_to_ledger(
    file: &Path,
    voice: Voice,
    config: &Config,
    ids: &BTreeSet<AnnouncementId>,
) -> Option<BTreeSet<AnnouncementId>> {
    /// More are not asked for one by one.
    const MOST: usize = 500;
    // A folder that this person may not look into may have one.
    if matches!(config.settings.ledger.try_exists(), Ok(false)) {
        return Some(BTreeSet::new());
    }
    let daemon = client(file, voice).ok().filter(|_| ids.len() <= MOST)?;
    let mut known = BTreeSet::new();
    for id in ids {
        match daemon.get(&format!("/v1/announcements/{}", in_path(id.as_str()))).await {
            Ok(_) => {
                known.insert(id.clone());
            }
            Err(ClientError::Refused { status: 404, .. }) => {}
            Err(_) => return None,
        }
    }
    Some(known)
}

/// A folder is read as a queue; of a file its own faults are shown, its neighbours known.
fn read_path(config: &mut Config, path: &Path, earlier: Option<BTreeSet<AnnouncementId>>) -> (Reading, Option<String>) {
    let configured = config.settings.queue.clone();
    let is_file = path.is_file();
    let folder = if is_file { path.parent().unwrap_or(Path::new(".")).to_owned() } else { path.to_owned() };
    let inside = match (folder.canonicalize(), configured.canonicalize()) {
        (Ok(folder), Ok(queue)) => folder.starts_with(&queue),
        _ => false,
    };
    config.settings.queue = if is_file && inside { configured.clone() } else { folder };
    let reading = queue::read(config, &Named { earlier, ..Named::default() }, Clock::real().now());
    let only = is_file.then(|| {
        let wanted = path.canonicalize().ok();
        let same = |f: &&Fault| Path::new(&f.source.name).canonicalize().ok() == wanted;
        reading.faults.iter().find(same).map_or_else(|| path.display().to_string(), |f| f.source.name.clone())
    });
    config.settings.queue = configured;
    (reading, only)
}

/// The fault of a path that was named, and in which there was nothing to read.
fn nothing_in(path: &Path, files: usize) -> Option<Fault> {
    let name = shown(&path.display().to_string());
    let (said, hint) = match (path.is_file(), path.is_dir()) {
        (true, _) if !is_yaml(path) => (
            words!("{name} 不是队列文件，没有读", "{name} is no queue file and was not read"),
            Words::new("文件名要以 .yaml 或 .yml 结尾", "its name has to end in .yaml or .yml"),
        ),
        (_, true) if files == 0 => (
            words!("{name} 里没有队列文件", "there is no queue file in {name}"),
            Words::new(
                "看看路径；文件名要以 .yaml 或 .yml 结尾",
                "look at the path; names have to end in .yaml or .yml",
            ),
        ),
        _ => return None,
    };
    Some(Source::new(name, "").fault(0..0, "nothing_read", said).hint(hint))
}

fn tell(faults: &[Fault], (files, announcements): (usize, usize), voice: Voice) {
    if voice.json {
        let list: Vec<Value> = faults
            .iter()
            .map(|fault| {
                let full = json!(answers::Fault::of(fault));
                let pick = |zh: &str, en: &str| full[voice.pick(zh, en)].clone();
                json!({
                    "severity": full["severity"], "code": full["code"],
                    "message": pick("message_zh", "message"), "hint": pick("hint_zh", "hint"),
                    "file": full["file"], "line": full["line"], "column": full["column"],
                    "end_line": full["end_line"], "end_column": full["end_column"],
                })
            })
            .collect();
        return voice.data(&Value::Array(list));
    }
    for fault in faults {
        voice.out(voice.fault(fault));
        voice.out("");
    }
    let errors = faults.iter().filter(|f| f.is_error()).count();
    let warnings = faults.len() - errors;
    let summary = words!(
        "{files} 个队列文件，{announcements} 条公告可用；{errors} 个错误，{warnings} 个警告",
        "{files} queue files, {announcements} announcements in order; {errors} errors, {warnings} warnings"
    );
    let line = if errors == 0 { voice.paint(GOOD, voice.say(&summary)) } else { voice.say(&summary).to_owned() };
    voice.out(line);
}

/// What would go out: against the ledger when the daemon answers, else from the files alone.
pub async fn plan(file: &Path, voice: Voice, env: &Env) -> Exit {
    let daemon = match client(file, voice) {
        Ok(client) => client.get("/v1/plan").await,
        Err(exit) => return exit,
    };
    let (config, faults) = config::read(file, env, false);
    let Some(config) = config else {
        for fault in &faults {
            voice.note(voice.fault(fault));
        }
        return Exit::Failed;
    };
    let against = match daemon {
        Ok(value) => Some(value),
        Err(ClientError::Unreachable(_)) => None,
        Err(error) => return super::refused(&error, voice),
    };
    let now = Clock::real().now();
    let reading = queue::read(&config, &Named::default(), now);
    let (publish, zone, none) = (&config.settings.publish, config.settings.zone, BTreeSet::new());
    let rules = plan::Rules { publish, zone, is_new_zone: false, asked: &none, refused: &none };
    let alone = plan::plan(&reading.desired, &Known::default(), now, &rules);
    let mut releases = releases(&config, &reading, &alone, now);
    if let Some(value) = &against {
        // What the ledger has already dealt with does not go out again because its file is still there.
        let pending = |id: &str| {
            let named = |list: &Value| list.as_array().is_some_and(|l| l.iter().any(|o| o["announcement"] == id));
            named(&value["changes"]) || named(&value["coming"])
        };
        releases.retain(|r| pending(r["announcement"].as_str().unwrap_or("")));
    }
    if voice.json {
        voice.data(&json!({ "releases": releases, "against_ledger": against }));
        return if reading.faults.iter().any(Fault::is_error) { Exit::Failed } else { Exit::Done };
    }
    let zone = config.settings.zone;
    let mut table = voice.table(&[
        voice.pick("时刻", "at"),
        voice.pick("公告", "announcement"),
        voice.pick("账号", "accounts"),
        voice.pick("平台", "platforms"),
        voice.pick("文字", "text"),
    ]);
    for release in &releases {
        let at =
            release["at"].as_str().and_then(|t| t.parse().ok()).map_or_else(String::new, |t| voice.time(t, zone, now));
        let text: String = release["text"].as_str().unwrap_or("").chars().take(28).collect();
        let cell = |key: &str| release[key].as_str().map_or_else(|| release[key].to_string(), str::to_owned);
        table.add_row(vec![
            at,
            cell("occurrence"),
            cell("accounts"),
            cell("platforms"),
            crate::core::words::shown(&text),
        ]);
    }
    voice.out(table);
    changes(against.as_ref(), voice);
    let errors = reading.faults.iter().filter(|f| f.is_error()).count();
    if errors > 0 {
        voice.error(&words!(
            "队列里有 {errors} 个错误，见 fabu check",
            "the queue has {errors} errors: see `fabu check`"
        ));
        return Exit::Failed;
    }
    Exit::Done
}

fn changes(against: Option<&Value>, voice: Voice) {
    let Some(value) = against else {
        return voice.note(
            voice.pick("守护进程没有运行：以上只按文件", "no daemon is running: the above is from the files alone"),
        );
    };
    let changes = value["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    if changes.is_empty() {
        return voice.out(voice.pick("账本与队列一致", "the ledger agrees with the queue"));
    }
    voice.out(voice.pick("与账本相比：", "against the ledger:"));
    for change in changes {
        let text = |key: &str| change[key].as_str().unwrap_or("").to_owned();
        voice.out(format_args!("  {} {}", text("action"), text("announcement")));
    }
}

/// The coming releases in order, each with whom it reaches and what a budget would delay.
fn releases(config: &Config, reading: &Reading, plan: &plan::Plan, now: crate::clock::Time) -> Vec<Value> {
    let mut all = Vec::new();
    for action in &plan.actions {
        let plan::Action::Put { id, occurrences, .. } = action else { continue };
        let content = &reading.desired.announcements[id].content;
        let mut platforms: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
        for account in &content.accounts {
            *platforms.entry(account.platform()).or_default() += 1;
        }
        let by_platform = platforms.iter().map(|(p, n)| format!("{p} {n}")).collect::<Vec<_>>().join(", ");
        for (occurrence, at) in occurrences.iter().take(200) {
            if planner::expiry(&content.body, *at, &config.settings.publish).is_some_and(|e| e < now) {
                continue;
            }
            all.push((
                *at,
                json!({
                    "occurrence": occurrence, "announcement": id, "at": at, "accounts": content.accounts.len(),
                    "platforms": by_platform, "priority": content.body.priority, "text": content.body.text,
                }),
            ));
        }
    }
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, value)| value).collect()
}

/// Prints the JSON Schema of one kind of file.
pub fn schema(what: SchemaOf, voice: Voice) -> Exit {
    let schema = match what {
        SchemaOf::Queue => schemars::schema_for!(crate::input::queue::RawQueue),
        SchemaOf::Accounts => schemars::schema_for!(crate::input::accounts::Raw),
        SchemaOf::Config => schemars::schema_for!(crate::input::settings::Raw),
        SchemaOf::Template => schemars::schema_for!(crate::input::templates::RawTemplates),
    };
    match serde_json::to_string_pretty(&schema) {
        Ok(text) => {
            voice.out(text);
            Exit::Done
        }
        Err(error) => {
            voice.error(&Words::same(error.to_string()));
            Exit::Failed
        }
    }
}
