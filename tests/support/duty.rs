//! What a duty officer does, and what of it stands.

use std::sync::Arc;

use fabu::core::announcement::Level;
use fabu::core::change::Actor;
use fabu::daemon::Daemon;
use fabu::daemon::acts::ActError;
use fabu::daemon::answers::Holding;
use fabu::daemon::emergency::{Closed, Urgent};
use serde_json::Value;

use super::City;

/// Accounts of the sample city.
pub const ALL: usize = 15;

pub fn person(uid: u32) -> Actor {
    Actor::Person { uid, name: format!("duty{uid}") }
}

pub fn everywhere(text: &str, level: Level) -> Urgent {
    Urgent { text: text.to_owned(), level: Some(level), to: vec!["**".to_owned()], ..Urgent::default() }
}

pub async fn asked(daemon: &Daemon, uid: u32, urgent: Urgent) -> Value {
    daemon.inner.urgent(&person(uid), urgent, &[]).await.unwrap()
}

/// The id of an urgent post, sent by two persons where it needs them.
pub async fn sent(daemon: &Daemon, urgent: Urgent) -> String {
    let answer = asked(daemon, 1000, urgent).await;
    if answer["state"] == "awaiting_confirm" {
        confirmed(daemon, 1001, &answer).await.unwrap();
    }
    text(&answer, "id")
}

pub fn update(of: &str, words: &str, level: Level) -> Urgent {
    Urgent { update: Some(of.to_owned()), ..everywhere(words, level) }
}

pub fn faults(city: &City, rules: Value) {
    city.sandbox.set_faults(serde_json::from_value(rules).unwrap());
}

/// The word of this person to what was answered.
pub async fn confirmed(daemon: &Daemon, uid: u32, answer: &Value) -> Result<Value, ActError> {
    let inner = Arc::clone(&daemon.inner);
    inner.confirm(&person(uid), &text(answer, "id"), &text(answer, "content_hash")).await
}

/// The answer to a person's last words of an emergency.
pub async fn closed(daemon: &Daemon, uid: u32, way: &str, id: &str, words: Closed<'_>) -> Value {
    match way {
        "correct" => daemon.inner.correct(&person(uid), id, words).await.unwrap(),
        _ => daemon.inner.all_clear(&person(uid), id, words, &[]).await.unwrap(),
    }
}

pub fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap().to_owned()
}

/// How many posts with these words stand now.
pub fn standing(city: &City, words: &str) -> usize {
    city.posts().iter().filter(|((_, text), _)| text.contains(words)).map(|(_, n)| *n as usize).sum()
}

/// Routine is silent everywhere for this long; the hold's name.
pub async fn hold(daemon: &Daemon, lasts: std::time::Duration) -> String {
    holding(daemon, lasts).await.id
}

/// The same, and all that it says.
pub async fn holding(daemon: &Daemon, lasts: std::time::Duration) -> Holding {
    holding_until(daemon, fabu::daemon::holds::until(daemon.inner.clock.now(), lasts)).await
}

/// With `None` it lasts until somebody ends it.
pub async fn holding_until(daemon: &Daemon, until: Option<fabu::clock::Time>) -> Holding {
    let now = daemon.inner.clock.now();
    let (id, reason, owner) = ("h".to_owned(), "静默".to_owned(), "duty".to_owned());
    let hold = fabu::core::gate::Hold {
        id,
        reason,
        until,
        accounts: None,
        named: None,
        owner,
        begun: now,
        post: None,
        ended: None,
        version: 1,
    };
    daemon.inner.hold(&person(1000), hold).await.unwrap()
}
