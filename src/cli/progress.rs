//! How far an urgent post is: live, by platform, until every delivery rests or waits for a person, and the old is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::show::{stands_wrongly, text};
use super::text::{BAD, Voice};
use super::{Exit, refused};
use crate::api::client::{Client, ClientError, in_path};
use crate::clock::Clock;
use crate::core::words::{shown, words};

/// Between looks at how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// Live, per platform, until every delivery rests or waits for a person, and what it takes the place of is gone.
pub async fn followed(client: &Client, id: &str, voice: Voice) -> Exit {
    match follow(client, id, voice).await {
        Ok(exit) => exit,
        Err(error) => refused(&error, voice),
    }
}

async fn follow(client: &Client, id: &str, voice: Voice) -> Result<Exit, ClientError> {
    let clock = Clock::real();
    let replaced = replaced(client, id).await?;
    let mut last = String::new();
    loop {
        let rows = all(client, id).await?;
        let mut platforms: BTreeMap<String, (usize, usize, usize)> = BTreeMap::new();
        let mut open = 0;
        for row in &rows {
            let at = platforms.entry(row["platform"].as_str().unwrap_or("").to_owned()).or_default();
            at.1 += 1;
            match Far::of(row) {
                Far::There => at.0 += 1,
                Far::Cannot => at.2 += 1,
                Far::Under => open += 1,
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
        let mut line = line.join("  ");
        // The old posts go once it is there.
        let mut standing = Vec::new();
        for old in replaced.iter().filter(|_| open == 0) {
            standing.extend(all(client, old).await?.into_iter().filter(stands_wrongly));
        }
        let going = standing.iter().filter(|row| row["needs_person"] == false).count();
        if going > 0 {
            line.push_str(voice.say(&words!("  待撤下 {going}", "  {going} old ones to go")));
        }
        if line != last && !voice.json {
            voice.note(line.clone());
            last = line;
        }
        if open + going == 0 {
            let bad: usize = platforms.values().map(|p| p.2).sum();
            if voice.json {
                voice.data(&json!({ "id": id, "items": rows, "standing": standing }));
            } else {
                for row in rows.iter().filter(|row| row["state"] != "published") {
                    tell(row, text(row, "state"), voice);
                }
                for row in &standing {
                    let old = text(row, "occurrence");
                    tell(row, voice.say(&words!("{old} 还挂着：", "{old} still stands there:")), voice);
                }
            }
            return Ok(match bad {
                0 if standing.is_empty() => Exit::Done,
                n if n == rows.len() && n > 0 => Exit::Failed,
                _ => Exit::Partly,
            });
        }
        clock.sleep(LOOK).await;
    }
}

/// How far a delivery is.
#[derive(Debug, PartialEq, Eq)]
enum Far {
    There,
    /// It is given up, or waits for a person, or for what a person has to settle first: waiting on is of no use.
    Cannot,
    Under,
}

impl Far {
    fn of(row: &Value) -> Far {
        match row["state"].as_str().unwrap_or("") {
            "published" => Far::There,
            "failed" | "expired" | "cancelled" | "deleted" => Far::Cannot,
            // Its post is still looked for, and that decides whether it goes.
            "held" if row["cause"] == "undecided" && row["needs_person"] != true => Far::Under,
            "unknown" | "held" if row["next_at"].is_null() => Far::Cannot,
            _ if row["needs_person"] == true => Far::Cannot,
            _ => Far::Under,
        }
    }
}

/// A line for a delivery that is not as it should be.
fn tell(row: &Value, how: &str, voice: Voice) {
    let why = shown(row["reason"][voice.pick("zh", "en")].as_str().unwrap_or(""));
    voice.note(format!("{} {}: {how} {why}", voice.paint(BAD, "✗"), text(row, "account")));
}

/// The posts that a correction, an all-clear or an update takes down, and those of `supersedes`.
async fn replaced(client: &Client, id: &str) -> Result<BTreeSet<String>, ClientError> {
    let found = client.get(&format!("/v1/announcements/{}", in_path(id))).await?;
    let follows = found["content"]["follows"]["posts"].as_array().into_iter().flatten();
    let posts = follows.chain([&found["supersedes"]]).filter_map(Value::as_str);
    Ok(posts.map(str::to_owned).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_when_only_a_person_can_go_on() {
        let looked_for = json!({ "state": "unknown", "next_at": "2026-11-24T01:00:00Z", "needs_person": false });
        assert_eq!(Far::of(&looked_for), Far::Under);
        for state in ["unknown", "accepted", "retrying"] {
            let row = json!({ "state": state, "next_at": "2026-11-24T01:00:00Z", "needs_person": true });
            assert_eq!(Far::of(&row), Far::Cannot, "{state}");
        }
        let undecided = json!({ "state": "held", "cause": "undecided", "next_at": null, "needs_person": false });
        assert_eq!(Far::of(&undecided), Far::Under, "what it is about is looked for");
        // A published one is there, also where something else of it is a person's to do.
        assert_eq!(Far::of(&json!({ "state": "published", "needs_person": true })), Far::There);
    }
}
