//! The other hour at the command line: what will go where is shown before anything goes.
//!
//! A live emergency is sent by typing its level, or with `--yes`; never by a mere "y" that the hand
//! gives before the eye has read.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use clap_complete::engine::ArgValueCandidates;
use serde_json::{Value, json};

use super::hold::{self, time};
use super::progress::followed;
use super::text::{BAD, CARE, DRILL, GOOD, Voice};
use super::word::{self, Act};
use super::{Exit, client, complete, refused, world};
use crate::api::client::{Client, ClientError};
use crate::clock::Clock;
use crate::core::words::{Words, shown, words};
use crate::daemon::config::Env;

#[derive(clap::Args, Debug)]
pub struct Urgent {
    /// What is said; `-` reads standard input
    pub text: Option<String>,
    /// An emergency template, instead of a text
    #[arg(long, value_name = "NAME", conflicts_with = "text", add = ArgValueCandidates::new(complete::templates))]
    pub template: Option<String>,
    /// A value of the template; may be repeated
    #[arg(long, value_name = "NAME=VALUE", requires = "template", add = ArgValueCandidates::new(complete::values))]
    pub set: Vec<String>,
    /// A CAP 1.2 alert, instead of a text; `-` reads it from standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "template", "level", "to", "except", "update", "supersedes"])]
    pub cap: Option<std::path::PathBuf>,
    /// Of the warning (default: red, or the template's)
    #[arg(long, value_parser = ["red", "orange", "yellow", "blue"])]
    pub level: Option<String>,
    /// Units, `unit/**`, `**`, `#tag`, with `PLATFORM:` before them or not; may be repeated
    #[arg(long, value_name = "SELECTOR")]
    pub to: Vec<String>,
    /// All but these; may be repeated
    #[arg(long, value_name = "SELECTOR")]
    pub except: Vec<String>,
    /// Added behind the text
    #[arg(long, value_name = "URL")]
    pub link: Option<String>,
    /// A picture below the queue folder; may be repeated
    #[arg(long, value_name = "FILE")]
    pub image: Vec<String>,
    /// Where the news comes from, for the record
    #[arg(long)]
    pub source: Option<String>,
    /// An announcement this one replaces, account by account
    #[arg(long, value_name = "ID")]
    pub supersedes: Option<String>,
    /// The emergency this one brings up to date
    #[arg(long, value_name = "ID")]
    pub update: Option<String>,
    /// How long routine is silent (default: by level, from the configuration)
    #[arg(long, value_name = "TIME")]
    pub hold: Option<String>,
    /// Not published later than this
    #[arg(long, value_name = "TIME")]
    pub expires_after: Option<String>,
    /// A name of its own
    #[arg(long)]
    pub id: Option<String>,
    /// Without a daemon, when none runs: on the same ledger, for as long as it takes
    #[arg(long)]
    pub direct: bool,
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

/// Over the socket of the daemon, or of one made for this.
pub async fn urgent(config: &Path, urgent: &Urgent, voice: Voice, env: Env) -> Exit {
    if !urgent.direct {
        return send(config, urgent, urgent.wait, voice).await;
    }
    // It ends with its errand, so it waits until nothing of it is under way.
    world::during(config, voice, env, send(config, urgent, true, voice)).await
}

async fn send(config: &Path, urgent: &Urgent, wait: bool, voice: Voice) -> Exit {
    let text = match text_of(urgent.text.as_deref()) {
        Ok(text) => text,
        Err(error) => {
            voice.error(&words!("标准输入读不到文字：{error}", "no text can be read from standard input: {error}"));
            return Exit::Usage;
        }
    };
    let client = match client(config, voice) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    if let Some(file) = &urgent.cap {
        return alert(config, &client, file, urgent, wait, voice).await;
    }
    let mut values = BTreeMap::new();
    for given in &urgent.set {
        let Some((name, value)) = given.split_once('=') else {
            let safe = shown(given);
            voice.error(&words!("--set 写作 名字=值，不能是 `{safe}`", "--set takes NAME=VALUE, and `{safe}` is none"));
            return Exit::Usage;
        };
        if values.insert(name.to_owned(), value.to_owned()).is_some() {
            let safe = shown(name);
            voice.error(&words!("--set {safe} 给了两次", "--set {safe} is given twice"));
            return Exit::Usage;
        }
    }
    let mut body = json!({
        "text": text, "template": urgent.template, "values": values, "level": urgent.level, "to": urgent.to, "except": urgent.except, "link": urgent.link, "images": urgent.image,
        "source": urgent.source, "supersedes": urgent.supersedes, "update": urgent.update, "hold": urgent.hold,
        "expires_after": urgent.expires_after, "id": urgent.id, "dry_run": true,
    });
    loop {
        body["dry_run"] = true.into();
        let tried = loop {
            match client.post("/v1/urgent", &body).await {
                Ok(tried) => break tried,
                Err(error) => match asked_for(&error, voice) {
                    Some((name, value)) => body["values"][name] = value.into(),
                    None => {
                        let exit = refused(&error, voice);
                        if matches!(error, ClientError::Unreachable(_)) {
                            voice.hint(&Words::new(
                                "没有守护进程也要发：加 --direct",
                                "to send it without a daemon: the same with --direct",
                            ));
                        }
                        return exit;
                    }
                },
            }
        };
        if urgent.dry_run && voice.json {
            voice.data(&tried);
            return Exit::Done;
        }
        show(config, &tried, &emergency(), voice);
        if urgent.dry_run {
            return Exit::Done;
        }
        let is_drill = tried["drill"] == true;
        if !urgent.yes && !typed(tried["level"].as_str().unwrap_or("red"), is_drill, voice).await {
            return Exit::Failed;
        }
        body["dry_run"] = false.into();
        // Nothing else goes than was shown.
        if !urgent.yes {
            body["content_hash"] = tried["content_hash"].clone();
        }
        // Asked again after a lost answer, it is the same request and does nothing twice.
        let key = format!("{:016x}{:016x}", Clock::real().random(), std::process::id());
        match client.post_once("/v1/urgent", &body, &key).await {
            Ok(answer) => return taken(config, &client, &answer, wait, voice).await,
            Err(error) if word::has_changed(&error, "content_hash", voice) => {}
            Err(error) => return refused(&error, voice),
        }
    }
}

/// An alert goes the same way: shown, asked for, sent once.
async fn alert(config: &Path, client: &Client, file: &Path, urgent: &Urgent, wait: bool, voice: Voice) -> Exit {
    let bytes = match file.as_os_str() == "-" {
        true => piped(),
        false => std::fs::read(file),
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(error) => {
            let name = shown(&file.display().to_string());
            voice.error(&words!("{name} 读不了：{error}", "{name} cannot be read: {error}"));
            return Exit::Usage;
        }
    };
    let tried = match client.post_alert("/v1/urgent?dry_run=true", bytes.clone(), None).await {
        Ok(tried) => tried,
        Err(error) => {
            // Nothing of it is published; that a cancel has come before its alert the daemon has to know.
            if !urgent.dry_run
                && matches!(&error, ClientError::Refused { field: Some(field), .. } if field == "references")
            {
                drop(client.post_alert("/v1/urgent", bytes, None).await);
            }
            return refused(&error, voice);
        }
    };
    if urgent.dry_run && voice.json {
        voice.data(&tried);
        return Exit::Done;
    }
    if tried["state"] == "taken_before" {
        let id = shown(tried["id"].as_str().unwrap_or(""));
        let said = words!(
            "这条警报已收过，即 {id}；什么也没有做：fabu status {id}",
            "this alert was taken before, as {id}; nothing was done: fabu status {id}"
        );
        voice.out(voice.say(&said));
        return Exit::Done;
    }
    if tried["state"] == "unchanged" {
        // The alerts that refer to this one have to be understood.
        if !urgent.dry_run
            && let Err(error) = client.post_alert("/v1/urgent", bytes, None).await
        {
            return refused(&error, voice);
        }
        let id = shown(tried["id"].as_str().unwrap_or(""));
        let said = words!(
            "它说的与 {id} 相同，至多改了时限：不再发一遍",
            "it says what {id} says, and moves its end at most: nothing is published again"
        );
        voice.out(voice.say(&said));
        return Exit::Done;
    }
    if let Some(id) = tried["all_clear"].as_str() {
        word::show(config, id, Act::AllClear, &tried["would"], voice);
    } else if tried["dry_run"] == true {
        show(config, &tried, &emergency(), voice);
    }
    if urgent.dry_run {
        return Exit::Done;
    }
    let level = tried["level"].as_str().unwrap_or("all-clear");
    if !urgent.yes && !typed(level, tried["drill"] == true, voice).await {
        return Exit::Failed;
    }
    let key = format!("{:016x}{:016x}", Clock::real().random(), std::process::id());
    match client.post_alert("/v1/urgent", bytes, Some(&key)).await {
        Ok(answer) => taken(config, client, &answer, wait, voice).await,
        Err(error) => refused(&error, voice),
    }
}

/// A value that is missing or wrong is asked for, where somebody is there to answer.
fn asked_for(error: &ClientError, voice: Voice) -> Option<(String, String)> {
    let ClientError::Refused { field: Some(field), en, zh, .. } = error else { return None };
    let name = field.strip_prefix("values.")?;
    if !std::io::stdin().is_terminal() {
        return None;
    }
    voice.note(voice.pick(zh, en));
    eprint!("{}: ", shown(name));
    std::io::stderr().flush().unwrap_or_default();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).ok().filter(|n| *n > 0)?;
    Some((name.to_owned(), line.trim().to_owned()))
}

fn emergency() -> Words {
    Words::new("紧急发布", "emergency")
}

fn text_of(given: Option<&str>) -> std::io::Result<String> {
    match given {
        Some("-") => standard_input(),
        given => Ok(given.unwrap_or_default().to_owned()),
    }
}

/// Standard input as text. The mark that some programs put before UTF-8 is none of it.
pub(super) fn standard_input() -> std::io::Result<String> {
    let bytes = piped()?;
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    String::from_utf8(text.to_vec()).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

fn piped() -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // The daemon takes no more than half of it.
    std::io::stdin().take(2 << 20).read_to_end(&mut bytes).map(|_| bytes)
}

/// What will go where, and what it will hold.
pub fn show(config: &Path, tried: &Value, what: &Words, voice: Voice) {
    let level = tried["level"].as_str().unwrap_or("");
    let accounts = tried["accounts"].as_u64().unwrap_or(0);
    let (zh, en) = (&what.zh, &what.en);
    let head = words!("{zh} {level}：{accounts} 个账号", "{en} {level}: {accounts} accounts");
    let style = if tried["drill"] == true { DRILL } else { BAD };
    voice.note(voice.paint(style, voice.say(&head)));
    for (platform, there) in tried["platforms"].as_object().into_iter().flatten() {
        let (n, text) = (there["accounts"].as_u64().unwrap_or(0), shown(there["text"].as_str().unwrap_or("")));
        voice.note(format!("  {platform:<10} {n:>5}  {text}"));
    }
    let pictures = tried["pictures"].as_u64().unwrap_or(0);
    if pictures > 0 {
        voice.note(voice.say(&words!("  图片 {pictures} 张", "  {pictures} pictures")).to_owned());
    }
    unknown_areas(tried, voice);
    if let Some(old) = tried["supersedes"].as_str() {
        let old = shown(old);
        let said =
            words!("  取代 {old}：新的发出后逐个账号撤下", "  takes the place of {old}, which goes account by account");
        voice.note(voice.say(&said).to_owned());
    }
    let reopened = match tried["reopens"].as_str() {
        Some("corrected") => {
            Some(Words::new("  此前已更正：由此再度生效", "  it was corrected: with this it is in force again"))
        }
        Some(_) => Some(Words::new("  此前已解除：由此再度生效", "  it was over: with this it is in force again")),
        None => None,
    };
    if let Some(said) = reopened {
        voice.note(voice.paint(BAD, voice.say(&said)));
    }
    for (field, label) in
        [("correction", voice.pick("备好的更正", "correction")), ("all_clear", voice.pick("备好的解除", "all-clear"))]
    {
        if let Some(text) = tried["closing"][field].as_str() {
            voice.note(format!("  {label}: {}", shown(text)));
        }
    }
    let hold = &tried["hold"];
    if let Some(until) = time(config, &hold["until"], voice) {
        let (held, flight) = (hold["held"].as_u64().unwrap_or(0), hold["in_flight"].as_u64().unwrap_or(0));
        let out = hold["out"].as_array().map_or(0, Vec::len);
        let said = words!(
            "  静默至 {until}：留住 {held}，发送中 {flight}，近十分钟已发 {out}",
            "  holds routine until {until}: {held} held, {flight} in flight, {out} out in the last ten minutes"
        );
        voice.note(voice.say(&said).to_owned());
    }
    let persons = tried["persons"].as_u64().unwrap_or(1);
    if persons > 1 {
        let said = words!("  需要 {persons} 人（含发起者）", "  needs {persons} persons, the sender included");
        voice.note(voice.say(&said).to_owned());
    }
}

/// Asks for the level in its own letters; a drill asks in another colour, and for another word.
pub async fn typed(level: &str, is_drill: bool, voice: Voice) -> bool {
    if !std::io::stdin().is_terminal() {
        voice.error(&Words::new(
            "没有终端可问：加 --yes 才发",
            "there is no terminal to ask at: it is sent with --yes only",
        ));
        return false;
    }
    let (wanted, said) = if is_drill {
        let wanted = format!("drill-{level}");
        let said = words!(
            "【演练】只到沙箱。输入 {wanted} 以发出：",
            "DRILL, to the sandbox alone. Type {wanted} to send it: "
        );
        (wanted, voice.paint(DRILL, voice.say(&said)))
    } else {
        let said = words!("输入级别 {level} 以发出：", "LIVE. Type the level, {level}, to send it: ");
        (level.to_owned(), voice.paint(BAD, voice.say(&said)))
    };
    for again in [true, false] {
        eprint!("{said}");
        std::io::stderr().flush().unwrap_or_default();
        // On a thread of its own, so that Ctrl-C is heard meanwhile.
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map(|_| line)
        });
        let line = line.await.ok().and_then(Result::ok).unwrap_or_default();
        match line.trim() {
            typed if typed == wanted => return true,
            // Meant, and not typed as it is to be.
            typed if again && typed.eq_ignore_ascii_case(&wanted) => {}
            _ => break,
        }
    }
    voice.error(&Words::new("没有发出", "nothing was sent"));
    false
}

/// What was acknowledged, and, if asked for, what became of it.
pub async fn taken(config: &Path, client: &Client, answer: &Value, wait: bool, voice: Voice) -> Exit {
    let id = answer["id"].as_str().unwrap_or("");
    let awaits = answer["state"] == "awaiting_confirm";
    if voice.json && (!wait || id.is_empty()) {
        voice.data(answer);
    } else if !voice.json {
        if let Some(stopped) = answer["cancelled"].as_u64() {
            let is_out = |key: &str| answer[key].as_u64().is_some_and(|n| n > 0);
            if is_out("taking_down") || is_out("in_flight") {
                super::act::told(answer, voice);
                return Exit::Done;
            }
            let said = words!("没有一个账号发出过，已取消 {stopped}", "nothing of it stands; {stopped} were stopped");
            voice.out(format_args!("{} {}", voice.paint(GOOD, "✓"), voice.say(&said)));
            return Exit::Done;
        }
        if id.is_empty() {
            let said = match answer["hold_ended"].is_object() {
                true => Words::new("静默已结束", "the hold is over"),
                false => Words::new("已解除；没有可告知的账号", "it is over; there is no account on which to say so"),
            };
            voice.out(format_args!("{} {}", voice.paint(GOOD, "✓"), voice.say(&said)));
        } else if awaits {
            let said = words!(
                "{id} 已记录，等第二人：fabu confirm {id}",
                "{id} is recorded and waits for the second person: fabu confirm {id}"
            );
            voice.out(format_args!("{} {}", voice.paint(CARE, "…"), voice.say(&said)));
        } else {
            let n = answer["deliveries"].as_u64().unwrap_or(0);
            let said = match answer["state"].as_str() {
                Some("scheduled") => words!(
                    "{id} 已记录，到时发往 {n} 个账号",
                    "{id} is recorded and goes out to {n} accounts at its hour"
                ),
                _ => words!("{id} 已记录，正发往 {n} 个账号", "{id} is recorded and going out to {n} accounts"),
            };
            voice.out(format_args!("{} {}", voice.paint(GOOD, "✓"), voice.say(&said)));
        }
        super::word::out_of_reach(answer, voice);
        silence(config, client, answer, voice).await;
    }
    if wait && !id.is_empty() { followed(client, id, voice).await } else { Exit::Done }
}

/// Areas of an alert that mean nobody here: they are told nothing by this.
fn unknown_areas(answer: &Value, voice: Voice) {
    let codes: Vec<&str> = answer["unknown_areas"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !codes.is_empty() {
        let codes = shown(&codes.join(", "));
        let said = words!(
            "  没有单位是 {codes}：那里没有账号可发（units 的 region，或 cap.areas）",
            "  no unit has the area {codes}: nothing is published for it (`region` of a unit, or `cap.areas`)"
        );
        voice.note(voice.paint(BAD, voice.say(&said)));
    }
}

/// The hold that began with it, with what it found; or the one that ended, with what waits now.
async fn silence(config: &Path, client: &Client, answer: &Value, voice: Voice) {
    if let Some(waiting) = answer["hold_ended"]["waiting"].as_u64() {
        let said = words!(
            "静默已结束，{waiting} 个等人放行（fabu held）",
            "the hold is over; {waiting} wait for a look (fabu held)"
        );
        voice.note(voice.say(&said).to_owned());
    }
    let Some(id) = answer["hold"]["id"].as_str() else { return };
    // It is in force already; that nobody can say what it keeps back changes nothing.
    let Ok(holds) = client.get("/v1/holds").await else { return };
    let hold = holds["items"].as_array().into_iter().flatten().find(|hold| hold["id"] == id);
    if let Some(hold) = hold {
        hold::begun(config, hold, voice);
    }
}
