//! `fabu resolve`: a person says what became of deliveries whose outcome is not known.
//!
//! The daemon is asked first what it would write: which post an address means, and what would follow. That is shown,
//! and only then is it said for real. One delivery whose post has the text that was sent needs no question.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use chrono_tz::Tz;
use serde_json::{Value, json};

use super::show::{stands_wrongly, state_word, text, when};
use super::text::{BAD, CARE, GOOD, QUIET, Voice};
use super::{Exit, client, refused, zone};
use crate::api::client::{Client, ClientError, in_path};
use crate::clock::{Clock, Time};
use crate::core::words::{Words, shown, words};

#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["account", "all", "from"]))]
pub struct Resolve {
    /// The account, PLATFORM:UNIT
    #[arg(requires = "id")]
    pub account: Option<String>,
    /// The announcement or occurrence
    #[arg(requires = "account")]
    pub id: Option<String>,
    /// It was published, at this address
    #[arg(long, group = "fate", value_name = "URL", conflicts_with_all = ["all", "from"])]
    pub published: Option<String>,
    /// It was not published
    #[arg(long, group = "fate", conflicts_with = "from")]
    pub not_published: bool,
    /// Every delivery of this announcement or occurrence whose outcome is not known, or that would not be taken down
    #[arg(long, value_name = "ID", requires = "not_published")]
    pub all: Option<String>,
    /// Many at once, a line each: ACCOUNT ID URL, or ACCOUNT ID not-published; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// The post's id on the platform: where its text is not what was sent, or instead of its address
    #[arg(long, value_name = "POST", requires = "account", conflicts_with = "not_published")]
    pub post: Option<String>,
    /// Writes what was shown without asking
    #[arg(long)]
    pub yes: bool,
}

impl Resolve {
    /// One delivery, and not what became of it: a person wants to see what there is to choose from.
    fn says_nothing(&self) -> bool {
        self.account.is_some() && self.published.is_none() && self.post.is_none() && !self.not_published
    }
}

/// A person's statement about one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    account: String,
    id: String,
    /// `None`, and no post: it was not published.
    published: Option<String>,
    post: Option<String>,
}

impl Said {
    fn is_published(&self) -> bool {
        self.published.is_some() || self.post.is_some()
    }
}

/// One that was shown: its delivery, and what would be written of it.
struct Tried {
    said: Said,
    delivery: String,
    would: Value,
}

impl Tried {
    /// Its post does not have the text that was sent.
    fn is_odd(&self) -> bool {
        let post = &self.would["post"];
        post["is_same_text"] == false && self.said.post.as_deref() != post["id"].as_str()
    }
}

pub async fn resolve(config: &Path, resolve: &Resolve, voice: Voice) -> Exit {
    let client = match client(config, voice) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let zone = zone(config);
    let said = match resolve.says_nothing() {
        true => chosen(&client, resolve, zone, voice).await,
        false => said(&client, resolve).await,
    };
    let said = match said {
        // It was shown as data, and no more was asked for.
        Ok(said) if said.is_empty() && resolve.says_nothing() => return Exit::Done,
        Ok(said) => said,
        Err(Unsaid::Client(error)) => return refused(&error, voice),
        Err(Unsaid::Words(words)) => {
            voice.error(&words);
            return Exit::Failed;
        }
    };
    let is_one = resolve.account.is_some();
    let mut tried = Vec::new();
    let mut left_out = 0;
    for said in said {
        match looked(&client, said).await {
            Ok(one) => {
                if !voice.json {
                    voice.note(line(&one, zone, voice));
                }
                tried.push(one);
            }
            Err((_, Unsaid::Client(error @ ClientError::Unreachable(_)))) => return refused(&error, voice),
            Err((_, Unsaid::Client(error))) if is_one => return refused(&error, voice),
            Err((said, unsaid)) => {
                left_out += 1;
                let why = match unsaid {
                    Unsaid::Client(ClientError::Refused { zh, en, .. }) => Words { zh, en },
                    Unsaid::Client(error) => Words::same(error.to_string()),
                    Unsaid::Words(words) => words,
                };
                let (sign, account, id) = (voice.paint(BAD, "✗"), shown(&said.account), shown(&said.id));
                voice.note(format_args!("{sign} {account} {id}: {}", voice.say(&why)));
            }
        }
    }
    if tried.is_empty() {
        if left_out == 0 {
            let id = resolve.all.as_deref().or(resolve.id.as_deref()).unwrap_or("");
            let id = shown(id);
            voice.error(&words!("`{id}` 没有结果不明的投递", "no delivery of `{id}` has an unknown outcome"));
        }
        return Exit::Failed;
    }
    if !may_write(&tried, resolve, is_one, voice).await {
        return Exit::Failed;
    }
    written(&client, tried, left_out, voice).await
}

/// Why there is nothing to be said.
enum Unsaid {
    Client(ClientError),
    Words(Words),
}

impl From<ClientError> for Unsaid {
    fn from(error: ClientError) -> Unsaid {
        Unsaid::Client(error)
    }
}

/// What the command line says, one by one.
async fn said(client: &Client, resolve: &Resolve) -> Result<Vec<Said>, Unsaid> {
    if let (Some(account), Some(id)) = (&resolve.account, &resolve.id) {
        let (published, post) = (resolve.published.clone(), resolve.post.clone());
        return Ok(vec![Said { account: account.clone(), id: id.clone(), published, post }]);
    }
    if let Some(file) = &resolve.from {
        return read(file);
    }
    let id = resolve.all.clone().unwrap_or_default();
    let mut rows = open(client, &id, None, UNKNOWN).await?;
    rows.extend(standing(client, &id, None).await?);
    let one = |row: &Value| Said {
        account: text(row, "account").to_owned(),
        id: text(row, "occurrence").to_owned(),
        published: None,
        post: None,
    };
    Ok(rows.iter().map(one).collect())
}

const UNKNOWN: &str = "&state=unknown&state=accepted";
/// Deliveries whose post a person may have found all the same.
const GIVEN_UP: &str = "&state=failed&state=expired&state=cancelled&state=deleted";

/// Deliveries that are to be gone, and would not be taken down.
async fn standing(client: &Client, id: &str, account: Option<&str>) -> Result<Vec<Value>, ClientError> {
    let mut rows = open(client, id, account, "&state=published").await?;
    rows.retain(|row| stands_wrongly(row) && row["needs_person"] == true);
    Ok(rows)
}

/// The deliveries of an announcement in these states, all pages of them.
async fn open(client: &Client, id: &str, account: Option<&str>, states: &str) -> Result<Vec<Value>, ClientError> {
    let account = account.map_or_else(String::new, |account| format!("&account={}", in_path(account)));
    let path = format!("/v1/deliveries?announcement={}{account}{states}&limit=1000", in_path(id));
    let mut rows = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.get(&format!("{path}{cursor}")).await?;
        rows.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(rows),
        }
    }
}

/// Lines of three words; `#` begins a remark.
fn read(file: &Path) -> Result<Vec<Said>, Unsaid> {
    let name = file.display();
    let text = match file.as_os_str() == "-" {
        true => super::urgent::standard_input(),
        false => std::fs::read_to_string(file),
    };
    let text =
        text.map_err(|error| Unsaid::Words(words!("{name} 读不了：{error}", "{name} cannot be read: {error}")))?;
    let mut all: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut said = Vec::new();
    for (n, line) in text.lines().enumerate().map(|(n, line)| (n + 1, line)) {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        let (account, id, fate) = match words.as_slice() {
            [] => continue,
            [account, id, fate] => (*account, *id, *fate),
            _ => {
                return Err(Unsaid::Words(words!(
                    "{name} 第 {n} 行：要写成“账号 公告 网址”或“账号 公告 not-published”",
                    "{name}, line {n}: write ACCOUNT ID URL, or ACCOUNT ID not-published"
                )));
            }
        };
        if let Some(first) = all.insert((account.to_owned(), id.to_owned()), n) {
            return Err(Unsaid::Words(words!(
                "{name} 第 {n} 行与第 {first} 行说的是同一次投递",
                "{name}, line {n}: line {first} speaks of the same delivery"
            )));
        }
        let published = (fate != "not-published").then(|| fate.to_owned());
        said.push(Said { account: account.to_owned(), id: id.to_owned(), published, post: None });
    }
    if said.is_empty() {
        return Err(Unsaid::Words(words!("{name} 里什么都没有", "{name} says nothing")));
    }
    Ok(said)
}

/// Shows the posts since the send that nobody accounts for, and lets a person take one by its number; none, where they
/// are only to be shown.
async fn chosen(client: &Client, resolve: &Resolve, zone: Tz, voice: Voice) -> Result<Vec<Said>, Unsaid> {
    let account = resolve.account.clone().unwrap_or_default();
    let id = resolve.id.clone().unwrap_or_default();
    let rows = open(client, &id, Some(&account), UNKNOWN).await?;
    let rows = if rows.is_empty() { open(client, &id, Some(&account), GIVEN_UP).await? } else { rows };
    let delivery = only(&rows)?;
    let found = client.get(&format!("/v1/deliveries/{delivery}/candidates")).await?;
    if voice.json {
        voice.data(&found);
        return Ok(Vec::new());
    }
    let posts = found["posts"].as_array().cloned().unwrap_or_default();
    let sent = shown(text(&found, "sent"));
    voice.out(voice.say(&words!("所发：“{sent}”", "sent: \"{sent}\"")));
    for (n, post) in posts.iter().enumerate().map(|(n, post)| (n + 1, post)) {
        let created = when(post, "created", zone, now(), voice);
        let url = voice.paint(QUIET, shown(post["url"].as_str().unwrap_or("")));
        let (said, post) = (shown(text(post, "text")), shown(text(post, "id")));
        voice.out(format_args!("{n:>3}  {created}  “{said}”  {post}  {url}"));
    }
    let (account, id) = (shown(&account), shown(&id));
    if found["is_whole"] == false {
        voice.note(voice.say(&Words::new(
            "时间线没有读到发送之时，更早的可能还有",
            "the timeline was not read back to the send: there may be more",
        )));
    }
    if posts.is_empty() {
        return Err(Unsaid::Words(words!(
            "发送之后没有不知来历的帖。确定没有发出就用 fabu resolve {account} {id} --not-published",
            "there is no post since the send that nobody accounts for. If you are sure that it is not out: fabu resolve {account} {id} --not-published"
        )));
    }
    if !std::io::stdin().is_terminal() {
        return Err(Unsaid::Words(words!(
            "没有终端可问：用 fabu resolve {account} {id} --post 编号，或 --not-published",
            "there is no terminal to ask at: fabu resolve {account} {id} --post ID, or --not-published"
        )));
    }
    let n = posts.len();
    let question = words!("哪一条是它？（1–{n}，回车：都不选）", "Which one is it? (1-{n}, Enter: none) ");
    let answer = asked(voice, &question).await;
    let number = answer.trim().parse::<usize>().ok().and_then(|n| posts.get(n.checked_sub(1)?));
    let Some(post) = number else { return Err(Unsaid::Words(Words::new("没有写入", "nothing was written"))) };
    let (account, id) = (resolve.account.clone().unwrap_or_default(), text(&found, "occurrence").to_owned());
    Ok(vec![Said { account, id, published: None, post: Some(text(post, "id").to_owned()) }])
}

/// The one delivery that is meant.
fn only(rows: &[Value]) -> Result<String, Unsaid> {
    match rows {
        [row] => Ok(text(row, "id").to_owned()),
        [] => Err(Unsaid::Words(Words::new("结果并非不明", "its outcome is not unknown"))),
        [row, ..] => {
            let occurrence = text(row, "occurrence");
            Err(Unsaid::Words(words!(
                "有几次都结果不明，请写明是哪一次（如 {occurrence}）",
                "several of its occurrences are unknown: name the one you mean, like {occurrence}"
            )))
        }
    }
}

/// Asks the daemon what it would write.
async fn looked(client: &Client, said: Said) -> Result<Tried, (Said, Unsaid)> {
    let found = async {
        let rows = open(client, &said.id, Some(&said.account), UNKNOWN).await?;
        match (rows.is_empty(), said.is_published()) {
            (false, _) => Ok(rows),
            (true, true) => open(client, &said.id, Some(&said.account), GIVEN_UP).await,
            (true, false) => standing(client, &said.id, Some(&said.account)).await,
        }
    };
    let rows = match found.await {
        Ok(rows) => rows,
        Err(error) => return Err((said, error.into())),
    };
    let delivery = match only(&rows) {
        Ok(delivery) => delivery,
        Err(unsaid) => return Err((said, unsaid)),
    };
    let body = json!({ "published": said.published, "post": said.post, "dry_run": true });
    match client.post(&format!("/v1/deliveries/{delivery}/resolve"), &body).await {
        Ok(would) => Ok(Tried { said, delivery, would }),
        Err(error) => Err((said, error.into())),
    }
}

/// The outcome as it would be, for a person to read.
fn line(tried: &Tried, zone: Tz, voice: Voice) -> String {
    let Tried { would, .. } = tried;
    let (account, id) = (shown(text(would, "account")), shown(text(would, "occurrence")));
    let post = &would["post"];
    if post.is_null() {
        let follows = match text(would, "state") {
            "retrying" | "scheduled" | "ready" => voice.pick("没有发出，再发一次", "it is not out, and is sent again"),
            "cancelled" => voice.pick("没有发出，已撤回，不再发送", "it is not out, and was withdrawn: it is not sent"),
            "expired" => voice.pick("没有发出，已过期", "it is not out, and has expired"),
            "failed" => voice.pick("没有展示，记为失败", "it is not shown, and counts as failed"),
            "deleted" => voice.pick("已不在平台上，记为已删除", "it is gone from there, and counts as deleted"),
            other => other,
        };
        return format!("{} {account} {id}: {follows}", voice.paint(CARE, "?"));
    }
    let created = when(post, "created", zone, now(), voice);
    let (sign, differs) = match tried.is_odd() {
        true => (voice.paint(BAD, "!"), voice.paint(BAD, voice.pick("（与所发不同）", " (not what was sent)"))),
        false => (voice.paint(CARE, "?"), String::new()),
    };
    let url = post["url"].as_str().unwrap_or("");
    let (said, url) = (shown(text(post, "text")), voice.paint(QUIET, shown(url)));
    format!("{sign} {account} {id}: {} {created} “{said}”{differs} {url}", shown(text(post, "id")))
}

fn now() -> Time {
    Clock::real().now()
}

/// One with the text that was sent needs no question; of a file or of all a person is asked once.
async fn may_write(tried: &[Tried], resolve: &Resolve, is_one: bool, voice: Voice) -> bool {
    let odd = tried.iter().filter(|one| one.is_odd()).count();
    if odd == 0 && (is_one || resolve.yes) {
        return true;
    }
    if resolve.yes || !std::io::stdin().is_terminal() || resolve.from.as_deref() == Some(Path::new("-")) {
        let words = match (odd > 0, tried.first()) {
            (true, Some(one)) if is_one => {
                let post = text(&one.would["post"], "id");
                words!(
                    "那一条写的不是所发的；确是它，就加 --post {post}",
                    "that post does not say what was sent; if it is the one, add --post {post}"
                )
            }
            (true, _) => words!(
                "{odd} 条写的不是所发的：这样的请一条一条判定",
                "{odd} of these posts do not say what was sent: settle those one by one"
            ),
            (false, _) => Words::new(
                "没有终端可问：加 --yes 才写入",
                "there is no terminal to ask at: it is written with --yes only",
            ),
        };
        voice.error(&words);
        return false;
    }
    let count = tried.len();
    let answer = asked(voice, &words!("写入这 {count} 条？(y/N) ", "Write these {count}? (y/N) ")).await;
    let agrees = matches!(answer.trim(), "y" | "Y" | "yes" | "是");
    if !agrees {
        voice.error(&Words::new("没有写入", "nothing was written"));
    }
    agrees
}

/// A line from the terminal.
async fn asked(voice: Voice, question: &Words) -> String {
    eprint!("{}", voice.paint(CARE, voice.say(question).to_owned()));
    std::io::stderr().flush().unwrap_or_default();
    // On a thread of its own, so that Ctrl-C is heard meanwhile.
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    line.await.ok().and_then(Result::ok).unwrap_or_default()
}

async fn written(client: &Client, tried: Vec<Tried>, left_out: usize, voice: Voice) -> Exit {
    let (mut answers, mut failed) = (Vec::new(), left_out);
    for Tried { said, delivery, would } in tried {
        // The person has seen this very post.
        let post = would["post"]["id"].as_str();
        let body = json!({ "published": said.published, "post": post });
        match client.post(&format!("/v1/deliveries/{delivery}/resolve"), &body).await {
            Ok(answer) => {
                let (account, id) = (shown(text(&answer, "account")), shown(text(&answer, "occurrence")));
                let state = state_word(text(&answer, "state"), voice);
                if !voice.json {
                    voice.out(format_args!("{} {account} {id}: {state}", voice.paint(GOOD, "✓")));
                }
                answers.push(answer);
            }
            Err(error) => {
                failed += 1;
                refused(&error, voice);
            }
        }
    }
    if voice.json {
        match answers.as_slice() {
            [one] if failed == 0 => voice.data(one),
            _ => voice.data(&Value::Array(answers.clone())),
        }
    }
    match (answers.is_empty(), failed) {
        (_, 0) => Exit::Done,
        (true, _) => Exit::Failed,
        (false, _) => Exit::Partly,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Result<Vec<Said>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path()).map_err(|unsaid| match unsaid {
            Unsaid::Words(words) => words.en.replace(&file.path().display().to_string(), "FILE"),
            Unsaid::Client(error) => error.to_string(),
        })
    }

    #[test]
    fn a_file_says_one_delivery_a_line_and_a_line_it_cannot_be_read_by_writes_nothing() {
        let two = "# after the outage\nsina:shanghai flood https://weibo.com/1/Abc # seen by W.\n\ntencent:shanghai/metro a@2026-11-24T08:00+08:00 not-published\n";
        let said = lines(two).unwrap();
        assert_eq!(said.len(), 2);
        assert_eq!(said[0].published.as_deref(), Some("https://weibo.com/1/Abc"));
        assert_eq!((said[1].account.as_str(), said[1].published.as_ref()), ("tencent:shanghai/metro", None));
        assert_eq!(lines("a b").unwrap_err(), "FILE, line 1: write ACCOUNT ID URL, or ACCOUNT ID not-published");
        assert_eq!(lines("a b c\na b not-published").unwrap_err(), "FILE, line 2: line 1 speaks of the same delivery");
        assert_eq!(lines("\n# nothing\n").unwrap_err(), "FILE says nothing");
    }
}
