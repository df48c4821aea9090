//! What is said to an emergency that is there: the second person's word, its correction, its end. Each shows first
//! what will stand where.

use std::io::IsTerminal as _;
use std::path::Path;

use serde_json::{Value, json};

use super::text::{BAD, Voice};
use super::urgent::{show as show_post, taken, typed};
use super::{Exit, client, hold, refused};
use crate::api::client::{Client, ClientError, in_path};
use crate::clock::{Clock, Time};
use crate::core::template::DRILL_MARK;
use crate::core::words::{Words, shown, words};

/// `correct`, `all-clear`.
#[derive(clap::Args, Debug)]
pub struct About {
    /// The emergency
    pub id: String,
    /// The words (default: the standard ones, which need no second person)
    pub text: Option<String>,
    /// Shows what would go where, and sends nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Sends without asking
    #[arg(long)]
    pub yes: bool,
    /// Waits until it stands everywhere, or cannot
    #[arg(long)]
    pub wait: bool,
}

#[derive(clap::Args, Debug)]
pub struct Confirm {
    /// The emergency
    pub id: String,
    /// Confirms without asking
    #[arg(long)]
    pub yes: bool,
    /// Waits until it stands everywhere, or cannot
    #[arg(long)]
    pub wait: bool,
}

/// Which of the last words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Correct,
    AllClear,
}

impl Act {
    fn path(self) -> &'static str {
        match self {
            Act::Correct => "correct",
            Act::AllClear => "all-clear",
        }
    }

    fn name(self) -> Words {
        match self {
            Act::Correct => Words::new("更正", "correction"),
            Act::AllClear => Words::new("解除", "all-clear"),
        }
    }
}

/// Nothing live bears the mark, and everything of a drill does.
fn is_drill(announced: &Value) -> bool {
    announced["text"].as_str().is_some_and(|text| text.contains(DRILL_MARK))
}

/// The second person's word: what is confirmed is what is shown here.
pub async fn confirm(config: &Path, confirm: &Confirm, voice: Voice) -> Exit {
    let client = match client(config, voice) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let path = format!("/v1/announcements/{}", in_path(&confirm.id));
    let mut found = match client.get(&path).await {
        Ok(found) => found,
        Err(error) => return refused(&error, voice),
    };
    let level = found["content"]["level"].as_str().unwrap_or("red").to_owned();
    let is_drill = is_drill(&found);
    // As its sender saw it.
    found["level"] = level.clone().into();
    found["accounts"] = found["accounts"].as_array().map_or(0, Vec::len).into();
    found["pictures"] = found["content"]["images"].as_array().map_or(0, Vec::len).into();
    found["closing"] = found["content"]["closing"].clone();
    found["drill"] = is_drill.into();
    let names: Vec<&str> =
        found["persons"]["names"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let asked = names.join(", ");
    let needed = std::mem::take(&mut found["persons"])["needed"].as_u64().unwrap_or(1);
    show_post(config, &found, &Words::new("确认", "confirms"), voice);
    let hour = &found["occurrences"][0]["release"];
    let is_ahead = hour.as_str().and_then(|at| at.parse::<Time>().ok()).is_some_and(|at| at > Clock::real().now());
    if let Some(at) = hold::time(config, hour, voice).filter(|_| is_ahead) {
        voice.note(voice.say(&words!("  到时才发：{at}", "  it goes out at its hour: {at}")).to_owned());
    }
    let said = match asked.is_empty() {
        true => words!("  来自队列，需要 {needed} 人", "  from the queue; it needs {needed} persons"),
        false => words!("  {asked} 已表态，需要 {needed} 人", "  {asked} gave their word, {needed} persons are needed"),
    };
    voice.note(voice.say(&said).to_owned());
    if !confirm.yes && !typed(&level, is_drill, voice).await {
        return Exit::Failed;
    }
    match client.post(&format!("{path}/confirm"), &json!({ "content_hash": found["content_hash"] })).await {
        Ok(answer) => taken(config, &client, &answer, confirm.wait, voice).await,
        Err(error) => refused(&error, voice),
    }
}

/// `correct` and `all-clear`.
pub async fn about(config: &Path, about: &About, act: Act, voice: Voice) -> Exit {
    let client = match client(config, voice) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let path = format!("/v1/announcements/{}/{}", in_path(&about.id), act.path());
    loop {
        let tried = match client.post(&path, &json!({ "text": about.text, "dry_run": true })).await {
            Ok(tried) => tried,
            Err(error) => return refused(&error, voice),
        };
        if about.dry_run && voice.json {
            voice.data(&tried);
            return Exit::Done;
        }
        show(config, &about.id, act, &tried, voice);
        if about.dry_run {
            return Exit::Done;
        }
        let level = tried["post"]["level"].as_str().unwrap_or(act.path());
        if !about.yes && !typed(level, tried["drill"] == true, voice).await {
            return Exit::Failed;
        }
        // Who asks for no look has seen nothing.
        let says = (!about.yes).then(|| tried["post"]["text"].as_str().unwrap_or(""));
        match client.post(&path, &json!({ "text": about.text, "shown": says })).await {
            Ok(answer) => {
                let exit = taken(config, &client, &answer, about.wait, voice).await;
                if act == Act::Correct && !voice.json {
                    still_silent(config, &client, voice).await;
                }
                return exit;
            }
            Err(error) if has_changed(&error, "shown", voice) => {}
            Err(error) => return refused(&error, voice),
        }
    }
}

/// Whether it was refused because it is not what was shown any more: then it is shown again, to somebody who is there to look.
pub(super) fn has_changed(error: &ClientError, what: &str, voice: Voice) -> bool {
    let ClientError::Refused { field: Some(field), en, zh, .. } = error else { return false };
    let again = field == what && std::io::stdin().is_terminal();
    if again {
        voice.note(voice.paint(BAD, voice.pick(zh, en)));
    }
    again
}

/// What a correction or an all-clear will say where, and what it stops and ends.
pub fn show(config: &Path, id: &str, act: Act, tried: &Value, voice: Voice) {
    let (id, name) = (shown(id), act.name());
    if tried["post"].is_object() {
        show_post(config, &tried["post"], &name, voice);
    } else {
        let said = words!("{id} 没有一个账号发出过，无须说明", "{id} stands nowhere: there is nobody to tell");
        voice.note(voice.paint(BAD, voice.say(&said)));
    }
    let (stops, waiting) = (tried["stops"].as_u64().unwrap_or(0), tried["waiting"].as_u64().unwrap_or(0));
    if stops > 0 {
        voice.note(voice.say(&words!("  停止未发出的 {stops} 个", "  stops {stops} that are not out")).to_owned());
    }
    if waiting > 0 {
        let said = words!(
            "  {waiting} 个账号查明后再发",
            "  on {waiting} accounts it waits until it is known whether {id} is there"
        );
        voice.note(voice.say(&said).to_owned());
    }
    out_of_reach(tried, voice);
    if let Some(hold) = tried["ends_hold"].as_str() {
        let hold = shown(hold);
        voice.note(voice.say(&words!("  结束静默 {hold}", "  ends the hold {hold}")).to_owned());
    }
}

/// Where it stands and nothing can be said: somebody has to say it there by hand.
pub(super) fn out_of_reach(answer: &Value, voice: Voice) {
    let n = answer["out_of_reach"].as_u64().unwrap_or(0);
    if n > 0 {
        let said = words!(
            "  另有 {n} 个账号挂着它而发不到：停用，或配置里没有其账号、平台或密钥；请到那里手动处理",
            "  {n} more accounts carry it and are told nothing: suspended, closed, or without account, platform or secret in the configuration; see to them by hand"
        );
        voice.note(voice.paint(BAD, voice.say(&said)));
    }
}

/// Neither a correction nor taking a post down ends a hold: whoever corrects a false alarm is told what is silent still.
pub(super) async fn still_silent(config: &Path, client: &Client, voice: Voice) {
    let Ok(holds) = client.get("/v1/holds").await else { return };
    for hold in holds["items"].as_array().into_iter().flatten() {
        let id = shown(hold["id"].as_str().unwrap_or(""));
        let until = hold::time(config, &hold["until"], voice).unwrap_or(voice.pick("解除", "it is ended").to_owned());
        let said = words!(
            "日常发布仍静默至 {until}：fabu resume {id}",
            "routine stays silent until {until}: fabu resume {id} ends it"
        );
        voice.note(voice.say(&said).to_owned());
    }
}
