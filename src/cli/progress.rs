//! How far an urgent post is: live, by platform, until every delivery rests or waits for a person.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::text::{BAD, Voice};
use super::{Exit, refused};
use crate::api::client::{Client, ClientError, in_path};
use crate::clock::Clock;
use crate::core::words::shown;

/// Between looks at how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// Live, per platform, until every delivery rests or waits for a person.
pub async fn followed(client: &Client, id: &str, voice: Voice) -> Exit {
    let clock = Clock::real();
    let mut last = String::new();
    loop {
        let rows = match all(client, id).await {
            Ok(rows) => rows,
            Err(error) => return refused(&error, voice),
        };
        let mut platforms: BTreeMap<String, (usize, usize, usize)> = BTreeMap::new();
        let mut open = 0;
        for row in &rows {
            let state = row["state"].as_str().unwrap_or("");
            let at = platforms.entry(row["platform"].as_str().unwrap_or("").to_owned()).or_default();
            at.1 += 1;
            match state {
                "published" => at.0 += 1,
                "failed" | "expired" | "cancelled" | "deleted" => at.2 += 1,
                // These wait for a person, or for what a person has to settle first.
                "unknown" | "held" if row["next_at"].is_null() => at.2 += 1,
                _ => open += 1,
            }
        }
        let line: Vec<String> = platforms
            .iter()
            .map(
                |(name, (out, all, bad))| {
                    if *bad > 0 { format!("{name} {out}/{all} ✗{bad}") } else { format!("{name} {out}/{all}") }
                },
            )
            .collect();
        let line = line.join("  ");
        if line != last && !voice.json {
            voice.note(line.clone());
            last = line;
        }
        if open == 0 {
            let bad: usize = platforms.values().map(|p| p.2).sum();
            if voice.json {
                voice.data(&json!({ "id": id, "items": rows }));
            }
            for row in rows.iter().filter(|r| r["state"] != "published" && !voice.json) {
                let reason = row["reason"][voice.pick("zh", "en")].as_str().unwrap_or("");
                let (account, state) = (row["account"].as_str().unwrap_or(""), row["state"].as_str().unwrap_or(""));
                voice.note(format!("{} {account}: {state} {}", voice.paint(BAD, "✗"), shown(reason)));
            }
            return match bad {
                0 => Exit::Done,
                n if n == rows.len() => Exit::Failed,
                _ => Exit::Partly,
            };
        }
        clock.sleep(LOOK).await;
    }
}

async fn all(client: &Client, id: &str) -> Result<Vec<Value>, ClientError> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/v1/deliveries?announcement={}&limit=1000{cursor}", in_path(id))).await?;
        rows.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(rows),
        }
    }
}
