//! The commands that change something; each speaks to the daemon through its socket.

use std::path::Path;

use serde_json::{Value, json};

use super::text::{GOOD, Voice};
use super::word::still_silent;
use super::{Exit, client, refused};
use crate::api::client::in_path;
use crate::core::words::{Words, words};

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum PruneAnswer {
    Accept,
    Refuse,
}

/// `cancel`, `delete`, `retry`.
pub async fn post(config: &Path, id: &str, act: &str, body: Value, voice: Voice) -> Exit {
    let client = match client(config, voice) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let path = format!("/v1/announcements/{}", in_path(id));
    match client.post(&format!("{path}/{act}"), &body).await {
        Ok(answer) => {
            told(&answer, voice);
            let is_emergency = |found: Value| found["priority"] == "emergency";
            if !voice.json && act != "retry" && client.get(&path).await.is_ok_and(is_emergency) {
                still_silent(config, &client, voice).await;
            }
            Exit::Done
        }
        Err(error) => refused(&error, voice),
    }
}

pub(super) fn told(answer: &Value, voice: Voice) {
    if voice.json {
        return voice.data(answer);
    }
    let n = |key: &str| answer[key].as_u64().unwrap_or(0);
    let names = [
        ("cancelled", "取消", "cancelled"),
        ("taking_down", "正在撤下", "being taken down"),
        (
            "out_of_reach",
            "其中撤不到：配置里没有其账号、平台或密钥，补上后再撤",
            "of those out of reach: the configuration has no account, platform or secret for them, and they go when it has",
        ),
        ("in_flight", "发送中，随后处理", "in flight, dealt with as they settle"),
        ("unchanged", "已了结，未变", "settled before, unchanged"),
        ("retrying", "重新发送", "tried again"),
        ("looking", "结果不明，再去查看", "of unknown outcome, looked for again"),
    ];
    let parts: Vec<String> = names
        .iter()
        .filter(|(key, ..)| n(key) > 0)
        .map(|(key, zh, en)| format!("{} {}", n(key), voice.pick(zh, en)))
        .collect();
    let id = answer["id"].as_str().unwrap_or("");
    voice.out(format_args!("{} {id}: {}", voice.paint(GOOD, "✓"), parts.join(voice.pick("，", ", "))));
}

pub async fn prune(config: &Path, answer: PruneAnswer, plan: Option<String>, voice: Voice) -> Exit {
    let client = match client(config, voice) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let status = match client.get("/v1/status").await {
        Ok(status) => status,
        Err(error) => return refused(&error, voice),
    };
    let Some(now) = status["prune"]["plan"].as_str() else {
        voice.error(&Words::new("没有等待确认的批量取消", "no mass cancellation is waiting"));
        return Exit::Failed;
    };
    let plan = plan.as_deref().unwrap_or(now);
    let accept = matches!(answer, PruneAnswer::Accept);
    match client.post("/v1/prune", &json!({ "accept": accept, "plan": plan })).await {
        Ok(answer) => {
            if voice.json {
                voice.data(&answer);
            } else {
                let count = answer["announcements"].as_u64().unwrap_or(0);
                let said = if accept {
                    words!("取消了 {count} 条公告", "{count} announcements cancelled")
                } else {
                    words!("保留 {count} 条公告", "{count} announcements kept")
                };
                voice.out(format_args!("{} {}", voice.paint(GOOD, "✓"), voice.say(&said)));
            }
            Exit::Done
        }
        Err(error) => refused(&error, voice),
    }
}
