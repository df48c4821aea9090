//! The commands that only look: `status`, `accounts`, `audit`.

use std::collections::BTreeMap;
use std::path::Path;

use chrono_tz::Tz;
use serde_json::{Value, json};

use super::text::{BAD, CARE, GOOD, QUIET, STRONG, Voice};
use super::{Exit, client, emergencies, refused};
use crate::api::client::{Client, ClientError, in_path};
use crate::clock::{Clock, Time};
use crate::core::change::{Recorded, Tampered, verified};
use crate::core::words::{Words, shown, words};

pub async fn status(config: &Path, id: Option<&str>, voice: Voice) -> Exit {
    let client = match client(config, voice) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let answer = match id {
        None => client.get("/v1/status").await,
        Some(id) => one(&client, id).await,
    };
    match answer {
        Ok(value) if voice.json => voice.data(&value),
        Ok(value) if id.is_some() => tell_one(&value, voice),
        Ok(value) => tell_all(&value, voice),
        Err(error) => return refused(&error, voice),
    }
    Exit::Done
}

/// An announcement with its deliveries, all pages of them.
async fn one(client: &Client, id: &str) -> Result<Value, ClientError> {
    let name = id.split('@').next().unwrap_or(id);
    let mut announcement = client.get(&format!("/v1/announcements/{}", in_path(name))).await?;
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.get(&format!("/v1/deliveries?announcement={}&limit=1000{cursor}", in_path(id))).await?;
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    announcement["deliveries"] = Value::Array(items);
    Ok(announcement)
}

pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

pub fn when(value: &Value, key: &str, zone: Tz, now: Time, voice: Voice) -> String {
    value[key].as_str().and_then(|t| t.parse().ok()).map_or_else(String::new, |t| voice.time(t, zone, now))
}

pub fn state_word(state: &str, voice: Voice) -> String {
    let zh = match state {
        "scheduled" => "已安排",
        "ready" => "已备好",
        "sending" => "发送中",
        "published" => "已发布",
        "accepted" => "已受理",
        "retrying" => "重试中",
        "unknown" => "结果不明",
        "held" => "静默中",
        "failed" => "失败",
        "expired" => "过期",
        "cancelled" => "已取消",
        "deleted" => "已撤下",
        "releasing" => "发布中",
        "partial" => "部分发布",
        "superseded" => "已被取代",
        "corrected" => "已更正",
        "awaiting_confirm" => "待确认",
        "awaiting_prune" => "待批量取消确认",
        other => other,
    };
    let style = match state {
        "published" => GOOD,
        "failed" | "unknown" | "partial" => BAD,
        "retrying" | "accepted" | "held" | "awaiting_confirm" | "awaiting_prune" => CARE,
        "cancelled" | "expired" | "deleted" | "superseded" | "corrected" => QUIET,
        _ => STRONG,
    };
    voice.paint(style, voice.pick(zh, state))
}

fn counts(value: &Value, voice: Voice) -> String {
    let Some(map) = value.as_object() else { return String::new() };
    let parts: Vec<String> = map
        .iter()
        .filter(|(_, n)| n.as_u64().unwrap_or(0) > 0)
        .map(|(state, n)| format!("{} {n}", state_word(state, voice)))
        .collect();
    if parts.is_empty() { "–".to_owned() } else { parts.join(voice.pick("，", ", ")) }
}

/// To be taken down, and there still.
pub fn stands_wrongly(delivery: &Value) -> bool {
    delivery["state"] == "published" && delivery["desired"] == "removed"
}

/// Deliveries that a person has to settle, an announcement a line.
fn tell_needs_person(value: &Value, voice: Voice) {
    let mut of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut standing: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for delivery in value["needs_person"].as_array().into_iter().flatten() {
        if stands_wrongly(delivery) {
            standing.entry(text(delivery, "occurrence")).or_default().push(delivery);
        } else {
            of.entry(text(delivery, "occurrence")).or_default().push(text(delivery, "account"));
        }
    }
    for (id, there) in standing {
        let (first, count) = (there[0], there.len());
        let (account, why) =
            (text(first, "account"), shown(first["reason"][voice.pick("zh", "en")].as_str().unwrap_or("")));
        let said = words!(
            "撤不下来：{id} 在 {count} 个账号上（如 {account}：{why}）还挂着，仍在重试；在平台上手工删掉之后：fabu resolve {account} {id} --not-published",
            "not taken down: {id} still stands on {count} accounts, like {account} ({why}). fabu goes on trying; once it is deleted there by hand: fabu resolve {account} {id} --not-published"
        );
        voice.out(voice.paint(BAD, voice.say(&said)));
    }
    for (id, accounts) in of {
        let said = match accounts.as_slice() {
            [account] => words!(
                "需要人判定：{id} 在 {account} 上是否已发布？ fabu resolve {account} {id} --published URL | --not-published",
                "a person is needed: is {id} out on {account}? fabu resolve {account} {id} --published URL | --not-published"
            ),
            [first, ..] => {
                let count = accounts.len();
                words!(
                    "需要人判定：{id} 在 {count} 个账号上（如 {first}）是否已发布？看过之后：fabu resolve --all {id} --not-published，或 --from FILE",
                    "a person is needed: is {id} out on {count} accounts, like {first}? Look there; then fabu resolve --all {id} --not-published, or --from FILE"
                )
            }
            [] => continue,
        };
        voice.out(voice.paint(BAD, voice.say(&said)));
    }
}

fn zone_of(value: &Value) -> Tz {
    text(value, "timezone").parse().unwrap_or(chrono_tz::Asia::Shanghai)
}

fn tell_all(value: &Value, voice: Voice) {
    let now = value["now"].as_str().and_then(|t| t.parse().ok()).unwrap_or_else(|| Clock::real().now());
    let zone = zone_of(value);
    emergencies::tell(value, zone, now, voice);
    let degraded = value["health"]["degraded"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ledger = |trouble: &str| degraded.iter().any(|d| d == trouble);
    if ledger("ledger_full") {
        voice.out(voice.paint(
            BAD,
            voice.pick(
                "账本的磁盘已满：只有紧急发布还能记下并发出，请腾出空间",
                "the ledger's disk is full: only emergencies are recorded and sent; make space",
            ),
        ));
    }
    if ledger("ledger") {
        voice.out(voice.paint(
            BAD,
            voice.pick(
                "账本写不进去，什么也不发布：见日志",
                "the ledger takes nothing, so nothing is published: see the log",
            ),
        ));
    }
    tell_needs_person(value, voice);
    if let Some(list) = value["prune"]["announcements"].as_array() {
        let (n, plan) = (list.len(), shown(text(&value["prune"], "plan")));
        voice.out(voice.paint(CARE, voice.say(&words!(
            "队列里少了 {n} 条公告，未取消：fabu prune accept {plan}，或 fabu prune refuse，或放回文件",
            "{n} announcements are gone from the queue and not cancelled: fabu prune accept {plan}, or fabu prune refuse, or put the files back"
        ))));
    }
    for fault in value["configuration"]["rejected"].as_array().into_iter().flatten() {
        let said = fault[voice.pick("message_zh", "message")].as_str().unwrap_or("");
        let line = voice
            .pick("新配置不能用，旧的仍有效：", "the changed configuration cannot be used, the old one is in force: ");
        voice.out(voice.paint(BAD, format_args!("{line}{said}")));
    }
    for account in value["bad_credentials"].as_array().into_iter().flatten() {
        let line = voice.pick("凭据失效：", "the credential does not work: ");
        voice.out(voice.paint(BAD, format_args!("{line}{}", text(account, "account"))));
    }
    tell_notify(value, zone, now, voice);
    let faults = value["queue"]["faults"].as_array().map(Vec::as_slice).unwrap_or_default();
    let errors: Vec<&Value> = faults.iter().filter(|f| text(f, "severity") == "error").collect();
    for fault in errors.iter().take(10) {
        let said = fault[voice.pick("message_zh", "message")].as_str().unwrap_or("");
        voice.out(format_args!(
            "{} {}:{}:{} {}",
            voice.paint(BAD, "✗"),
            shown(text(fault, "file")),
            fault["line"],
            fault["column"],
            shown(said)
        ));
    }
    voice.out(format_args!(
        "{} {}",
        voice.paint(STRONG, voice.pick("投递", "deliveries")),
        counts(&value["deliveries"], voice)
    ));
    for (key, zh, en) in [("recent", "最近", "recent"), ("coming", "接下来", "coming")] {
        let rows = value[key].as_array().map(Vec::as_slice).unwrap_or_default();
        if rows.is_empty() {
            continue;
        }
        let mut table = voice.table(&[
            voice.pick(zh, en),
            voice.pick("公告", "announcement"),
            voice.pick("投递", "deliveries"),
            voice.pick("误差 ms", "lateness ms"),
            voice.pick("先后 ms", "skew ms"),
        ]);
        for row in rows.iter().take(15) {
            let figure = |k: &str| row["closing"][k].as_f64().map_or_else(String::new, |ms| format!("{ms:.1}"));
            let at = when(row, "release", zone, now, voice);
            table.add_row(vec![
                at,
                text(row, "id").to_owned(),
                counts(&row["deliveries"], voice),
                figure("lateness_ms"),
                figure("skew_ms"),
            ]);
        }
        voice.out(table);
    }
}

/// Whoever waits to be told hears nothing while these fail.
fn tell_notify(value: &Value, zone: Tz, now: Time, voice: Voice) {
    for entry in value["notify"].as_array().into_iter().flatten() {
        let Some(why) = entry["last_error"][voice.pick("zh", "en")].as_str() else { continue };
        let (to, at, why) = (shown(text(entry, "to")), when(entry, "last_at", zone, now, voice), shown(why));
        let n = entry["failed"].as_u64().unwrap_or(0) + entry["dropped"].as_u64().unwrap_or(0);
        voice.out(voice.paint(
            BAD,
            voice.say(&words!(
                "通知送不到 {to}（{n} 条，最近 {at}）：{why}",
                "notices do not reach {to} ({n}, last {at}): {why}"
            )),
        ));
    }
}

fn tell_one(value: &Value, voice: Voice) {
    let (now, zone) = (Clock::real().now(), chrono_tz::Asia::Shanghai);
    voice.out(format_args!("{} {}", voice.paint(STRONG, text(value, "id")), state_word(text(value, "state"), voice)));
    voice.out(shown(text(value, "text")));
    let file = text(value, "file");
    if !file.is_empty() {
        voice.out(voice.paint(QUIET, format_args!("{}:{}", shown(file), value["line"])));
    }
    let mut table = voice.table(&[
        voice.pick("账号", "account"),
        voice.pick("状态", "state"),
        voice.pick("时刻", "at"),
        voice.pick("误差 ms", "lateness ms"),
        voice.pick("次数", "attempts"),
        voice.pick("回执或原因", "receipt or reason"),
    ]);
    for d in value["deliveries"].as_array().into_iter().flatten() {
        let reason = d["reason"][voice.pick("zh", "en")].as_str().unwrap_or("");
        let receipt = d["receipt"]["url"].as_str().or(d["receipt"]["post_id"].as_str()).unwrap_or(reason);
        let standing = words!("待撤下：{reason} {receipt}", "to be taken down: {reason} {receipt}");
        let receipt = if stands_wrongly(d) { voice.say(&standing) } else { receipt };
        table.add_row(vec![
            text(d, "account").to_owned(),
            state_word(text(d, "state"), voice),
            when(d, "at", zone, now, voice),
            d["lateness_ms"].as_f64().map_or_else(String::new, |ms| format!("{ms:.1}")),
            d["attempts"].to_string(),
            shown(receipt),
        ]);
    }
    voice.out(table);
}

/// Every record of the trail, from the daemon or from the file when none runs.
async fn trail(config: &Path, voice: Voice) -> Result<Vec<Recorded>, Exit> {
    let client = client(config, voice)?;
    let mut records: Vec<Recorded> = Vec::new();
    loop {
        let after = records.last().map_or(0, |r| r.seq);
        let page = match client.get(&format!("/v1/audit?limit=1000&cursor={after}")).await {
            Ok(page) => page,
            Err(ClientError::Unreachable(_)) if records.is_empty() => return from_file(config, voice),
            Err(error) => return Err(refused(&error, voice)),
        };
        let items: Vec<Recorded> = serde_json::from_value(page["items"].clone()).unwrap_or_default();
        if items.is_empty() {
            return Ok(records);
        }
        records.extend(items);
    }
}

fn from_file(config: &Path, voice: Voice) -> Result<Vec<Recorded>, Exit> {
    let (settings, _) = crate::input::settings::read(config);
    let Some(settings) = settings else { return Err(Exit::Failed) };
    crate::ledger::sqlite::read_trail(&settings.ledger).map_err(|error| {
        voice.error(&words!("账本：{error}", "{error}"));
        Exit::Failed
    })
}

pub async fn audit(config: &Path, voice: Voice) -> Exit {
    let records = match trail(config, voice).await {
        Ok(records) => records,
        Err(exit) => return exit,
    };
    if voice.json {
        voice.data(&json!({ "items": records, "next": null }));
        return Exit::Done;
    }
    for record in &records {
        let at = record.at.format("%Y-%m-%dT%H:%M:%S%.3fZ");
        voice.out(format_args!(
            "{} {at} {} {} {} {}",
            record.seq,
            record.actor,
            record.kind,
            shown(&record.subject),
            shown(&record.body)
        ));
    }
    Exit::Done
}

/// Follows the chain from its first record, and compares it with an exported head.
pub async fn verify(config: &Path, head: Option<&str>, voice: Voice) -> Exit {
    let records = match trail(config, voice).await {
        Ok(records) => records,
        Err(exit) => return exit,
    };
    let exported = match head.map(|h| h.split_once(':').and_then(|(s, h)| Some((s.parse::<i64>().ok()?, h)))) {
        None => None,
        Some(Some(head)) => Some(head),
        Some(None) => {
            voice.error(&Words::new("--head 写作 序号:哈希", "write --head as SEQ:HASH"));
            return Exit::Usage;
        }
    };
    let (seq, hash) = match verified(&records, exported) {
        Ok(head) => head,
        Err(Tampered::At(at)) => {
            voice.error(&words!("审计链在第 {at} 条断开", "the audit chain breaks at record {at}"));
            return Exit::Failed;
        }
        Err(Tampered::CutAfter(seq)) => {
            let at = exported.map_or(0, |(at, _)| at);
            voice.error(&words!(
                "审计链只到第 {seq} 条，导出的链头是第 {at} 条：尾部被截",
                "the chain ends at record {seq}, and the exported head is {at}: its tail was cut"
            ));
            return Exit::Failed;
        }
    };
    if voice.json {
        voice.data(&json!({ "ok": true, "seq": seq, "head": hash }));
    } else {
        let sign = voice.paint(GOOD, "✓");
        voice.out(format_args!(
            "{sign} {}",
            voice.say(&words!("{seq} 条记录完整，链头 {seq}:{hash}", "{seq} records are whole, head {seq}:{hash}"))
        ));
    }
    Exit::Done
}
