//! Holds at the command line: begun with a reason, listed, ended, and what they kept back let go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use super::text::{CARE, GOOD, Voice};
use super::{Exit, client, refused, zone};
use crate::api::client::in_path;
use crate::clock::Clock;
use crate::core::words::{Words, shown, words};

/// So many of the posts that are out are listed; `--json` has them all.
const SHOWN: usize = 10;
/// So many accounts of what was kept back are named.
const NAMED: usize = 4;

#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Hold {
    #[command(subcommand)]
    pub what: Option<HoldCommand>,
    /// Why it is silent
    #[arg(long, required = true)]
    pub reason: Option<String>,
    /// When it ends: an hour, or how long (default: until it is ended)
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// These only; may be repeated
    #[arg(long, value_name = "SELECTOR")]
    pub to: Vec<String>,
    /// All but these; may be repeated
    #[arg(long, value_name = "SELECTOR")]
    pub except: Vec<String>,
}

#[derive(clap::Subcommand, Debug)]
pub enum HoldCommand {
    /// The holds that stand now
    List,
}

#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(false))]
pub struct Unhold {
    /// Announcements or occurrences
    #[arg(group = "which")]
    pub ids: Vec<String>,
    /// All that was kept back
    #[arg(long, group = "which")]
    pub all: bool,
}

pub async fn hold(config: &Path, hold: &Hold, voice: Voice) -> Exit {
    let client = match client(config, voice) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    if hold.what.is_some() {
        return match client.get("/v1/holds").await {
            Ok(list) => listed(config, &list, voice),
            Err(error) => refused(&error, voice),
        };
    }
    let body = json!({ "reason": hold.reason, "until": hold.until, "to": hold.to, "except": hold.except });
    match client.post("/v1/holds", &body).await {
        Ok(answer) if voice.json => {
            voice.data(&answer);
            Exit::Done
        }
        Ok(answer) => {
            begun(config, &answer, voice);
            Exit::Done
        }
        Err(error) => refused(&error, voice),
    }
}

pub fn begun(config: &Path, answer: &Value, voice: Voice) {
    let (id, held) = (answer["id"].as_str().unwrap_or(""), answer["held"].as_u64().unwrap_or(0));
    let flight = answer["in_flight"].as_u64().unwrap_or(0);
    let out = answer["out"].as_array().cloned().unwrap_or_default();
    let n = out.len();
    let until = match time(config, &answer["until"], voice) {
        Some(until) => words!("至 {until}", "until {until}"),
        None => Words::new("直到解除", "until it is ended"),
    };
    let (zh, en) = (&until.zh, &until.en);
    let said = words!(
        "{id} 静默{zh}：留住 {held}，发送中 {flight}，近十分钟已发 {n}",
        "{id}: silent {en}; {held} held, {flight} in flight, {n} out in the last ten minutes"
    );
    voice.out(format_args!("{} {}", voice.paint(GOOD, "✓"), voice.say(&said)));
    for post in out.iter().take(SHOWN) {
        let (account, url) = (post["account"].as_str().unwrap_or(""), post["url"].as_str().unwrap_or(""));
        voice.out(format_args!("  {account}  {url}"));
    }
}

/// An instant as a person reads it.
pub fn time(config: &Path, value: &Value, voice: Voice) -> Option<String> {
    let at = value.as_str()?.parse().ok()?;
    Some(voice.time(at, zone(config), Clock::real().now()))
}

fn listed(config: &Path, list: &Value, voice: Voice) -> Exit {
    if voice.json {
        voice.data(list);
        return Exit::Done;
    }
    let holds = list["items"].as_array().cloned().unwrap_or_default();
    if holds.is_empty() {
        voice.out(format_args!("{}", voice.pick("没有静默", "nothing is held silent")));
    }
    for hold in holds {
        let text = |key: &str| hold[key].as_str().unwrap_or("").to_owned();
        let until =
            time(config, &hold["until"], voice).unwrap_or(voice.pick("直到解除", "until it is ended").to_owned());
        let scope = match hold["accounts"].as_array() {
            Some(accounts) => format!("{} {}", accounts.len(), voice.pick("个账号", "accounts")),
            None => voice.pick("全部", "everything").to_owned(),
        };
        let (held, flight) = (hold["held"].as_u64().unwrap_or(0), hold["in_flight"].as_u64().unwrap_or(0));
        let keeps = words!("留住 {held}，发送中 {flight}", "{held} held, {flight} in flight");
        voice.out(format_args!(
            "{} {}  {until}  {scope}  {}  {}  {}",
            voice.paint(CARE, "■"),
            text("id"),
            voice.say(&keeps),
            shown(&text("owner")),
            shown(&text("reason"))
        ));
    }
    Exit::Done
}

/// `resume [HOLD]`: the one there is, if none is named.
pub async fn resume(config: &Path, id: Option<&str>, voice: Voice) -> Exit {
    let client = match client(config, voice) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let id = match id {
        Some(id) => id.to_owned(),
        None => {
            let list = match client.get("/v1/holds").await {
                Ok(list) => list,
                Err(error) => return refused(&error, voice),
            };
            match list["items"].as_array().map(Vec::as_slice) {
                Some([one]) => one["id"].as_str().unwrap_or("").to_owned(),
                Some([]) | None => {
                    voice.error(&Words::new("没有静默", "nothing is held silent"));
                    return Exit::Failed;
                }
                Some(_) => {
                    voice.error(&Words::new("不止一个静默，请指明", "there are several holds: name the one"));
                    listed(config, &list, voice);
                    return Exit::Usage;
                }
            }
        }
    };
    match client.delete(&format!("/v1/holds/{}", in_path(&id))).await {
        Ok(answer) if voice.json => {
            voice.data(&answer);
            Exit::Done
        }
        Ok(answer) => {
            let (released, waiting) =
                (answer["released"].as_u64().unwrap_or(0), answer["waiting"].as_u64().unwrap_or(0));
            let said = words!(
                "{id} 结束：继续 {released}，待人放行 {waiting}（fabu held）",
                "{id} is over: {released} go on, {waiting} wait for a look (fabu held)"
            );
            voice.out(format_args!("{} {}", voice.paint(GOOD, "✓"), voice.say(&said)));
            Exit::Done
        }
        Err(error) => refused(&error, voice),
    }
}

/// What was kept back, with its age.
pub async fn held(config: &Path, voice: Voice) -> Exit {
    let client = match client(config, voice) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let list = match client.get("/v1/held").await {
        Ok(list) => list,
        Err(error) => return refused(&error, voice),
    };
    if voice.json {
        voice.data(&list);
        return Exit::Done;
    }
    let items = list["items"].as_array().cloned().unwrap_or_default();
    if items.is_empty() {
        voice.out(format_args!("{}", voice.pick("没有被留住的", "nothing is kept back")));
    }
    // One line for what was kept back alike, however many accounts it is for.
    let mut groups: BTreeMap<(String, String, String), Vec<&Value>> = BTreeMap::new();
    for item in &items {
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let reason = text(&item["reason"][voice.pick("zh", "en")]);
        groups.entry((text(&item["occurrence"]), reason, text(&item["expires_at"]))).or_default().push(item);
    }
    for ((occurrence, reason, _), group) in groups {
        let n = group.len();
        let age = group.iter().filter_map(|i| i["age_s"].as_i64()).max().unwrap_or(0) / 60;
        let expires = time(config, &group[0]["expires_at"], voice).unwrap_or("—".to_owned());
        let first: Vec<&str> = group.iter().take(NAMED).filter_map(|i| i["account"].as_str()).collect();
        let more = if n > NAMED { "…" } else { "" };
        let accounts = format!("{}{more}", first.join(" "));
        let aged = words!(
            "{n} 个账号（{accounts}），已 {age} 分钟，过期 {expires}",
            "{n} accounts ({accounts}), {age} min old, expires {expires}"
        );
        let clashes: BTreeSet<&str> = group
            .iter()
            .flat_map(|i| i["clashes"].as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .collect();
        let clashes = match clashes.is_empty() {
            true => String::new(),
            false => {
                let named: Vec<&str> = clashes.into_iter().collect();
                format!("  {} {}", voice.pick("撞期：", "clashes with"), named.join(", "))
            }
        };
        voice.out(format_args!("{occurrence}  {}  {}{clashes}", voice.say(&aged), shown(&reason)));
    }
    Exit::Done
}

pub async fn unhold(config: &Path, unhold: &Unhold, voice: Voice) -> Exit {
    let client = match client(config, voice) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let paths: Vec<String> = match unhold.all {
        true => vec!["/v1/unhold".to_owned()],
        false => unhold.ids.iter().map(|id| format!("/v1/announcements/{}/unhold", in_path(id))).collect(),
    };
    let mut exit = Exit::Done;
    for path in paths {
        match client.post(&path, &json!({})).await {
            Ok(answer) if voice.json => voice.data(&answer),
            Ok(answer) => {
                let n = answer["released"].as_u64().unwrap_or(0);
                let said = words!("放行 {n}", "{n} released");
                voice.out(format_args!("{} {}", voice.paint(GOOD, "✓"), voice.say(&said)));
            }
            Err(error) => exit = refused(&error, voice),
        }
    }
    exit
}
