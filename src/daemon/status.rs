//! The state now, as it is told to a person or a monitor.
//!
//! An announcement's state follows from its deliveries and gates; it is computed here from what the
//! ledger has, and kept nowhere.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::{Inner, lock};
use crate::clock::Time;
use crate::core::announcement::Priority;
use crate::core::delivery::{Delivery, State};
use crate::core::plan::Prune;
use crate::input::Fault;
use crate::ledger::{Announced, LedgerError, OccurrenceSummary};

/// What the daemon has noticed and a person should know.
pub struct Noted {
    pub started: Time,
    pub faults: Vec<Fault>,
    /// Faults of the configuration in force.
    pub config_faults: Vec<Fault>,
    /// A changed configuration that could not be used: the old one is in force.
    pub rejected: Vec<Fault>,
    pub files: usize,
    pub queue_gone: bool,
    pub prune: Option<Prune>,
    /// Holds whose near end was told.
    pub ending: BTreeSet<(String, Time)>,
}

impl Noted {
    pub fn new(started: Time, config_faults: Vec<Fault>) -> Noted {
        Noted {
            started,
            faults: Vec::new(),
            config_faults,
            rejected: Vec::new(),
            files: 0,
            queue_gone: false,
            prune: None,
            ending: BTreeSet::new(),
        }
    }
}

/// The contract's word for what has become of an occurrence's deliveries.
pub fn occurrence_state(counts: &BTreeMap<State, u32>) -> &'static str {
    let n = |state: State| counts.get(&state).copied().unwrap_or(0);
    let all: u32 = counts.values().sum();
    let out = n(State::Published) + n(State::Deleted);
    let busy = n(State::Sending) + n(State::Retrying) + n(State::Unknown) + n(State::Accepted);
    let pending = n(State::Scheduled) + n(State::Ready);
    if all == 0 {
        "expired"
    } else if busy > 0 || pending > 0 && out > 0 {
        "releasing"
    } else if n(State::Held) > 0 {
        "held"
    } else if pending > 0 {
        "scheduled"
    } else if out == all && n(State::Deleted) == all {
        "superseded"
    } else if out == all {
        "published"
    } else if n(State::Cancelled) == all {
        "cancelled"
    } else if n(State::Expired) == all {
        "expired"
    } else if out == 0 && n(State::Failed) > 0 {
        "failed"
    } else if out > 0 {
        "partial"
    } else {
        "cancelled"
    }
}

pub fn announcement_state(announced: &Announced, now: Time, prune: Option<&Prune>) -> &'static str {
    if prune.is_some_and(|p| p.announcements.contains(&announced.row.id)) {
        return "awaiting_prune";
    }
    // A repeat is as its next occurrence is, or as its last one was.
    let next = announced.occurrences.iter().find(|o| o.release > now && occurrence_state(&o.counts) == "scheduled");
    let last = announced.occurrences.iter().rev().find(|o| o.release <= now);
    let state = match (last.filter(|o| occurrence_state(&o.counts) == "releasing"), next, last) {
        (Some(o), _, _) | (None, Some(o), _) | (None, None, Some(o)) => occurrence_state(&o.counts),
        _ => announced.occurrences.last().map_or("expired", |o| occurrence_state(&o.counts)),
    };
    match state {
        "held" if announced.row.priority == Priority::Emergency => "awaiting_confirm",
        other => other,
    }
}

/// A delivery as the contract shows it.
pub fn delivery_json(d: &Delivery) -> Value {
    json!({
        "id": d.id.0.to_string(),
        "announcement": d.announcement,
        "occurrence": d.occurrence,
        "account": d.account,
        "platform": d.account.platform(),
        "unit": d.account.unit(),
        "state": d.state,
        "class": d.class,
        "reason": d.reason,
        "at": d.at,
        "attempts": d.attempt,
        "next_at": d.next_at,
        "receipt": d.receipt.as_ref().map(|r| json!({
            "post_id": r.post_id, "url": r.url, "accepted_at": r.accepted_at, "read_back": r.read_back, "shown": r.shown,
        })),
        "lateness_ms": d.lateness_ms,
    })
}

pub fn occurrence_json(o: &OccurrenceSummary) -> Value {
    let counts: BTreeMap<&str, u32> = o.counts.iter().map(|(s, n)| (s.as_str(), *n)).collect();
    json!({
        "id": o.id,
        "announcement": o.announcement,
        "release": o.release,
        "state": occurrence_state(&o.counts),
        "deliveries": counts,
        "closing": o.closing,
    })
}

pub fn announcement_json(announced: &Announced, now: Time, prune: Option<&Prune>) -> Value {
    let row = &announced.row;
    json!({
        "id": row.id,
        "state": announcement_state(announced, now, prune),
        "priority": row.priority,
        "file": row.file,
        "line": row.line,
        "content_hash": row.content,
        "supersedes": row.supersedes,
        "edited_after_publication": row.edited.is_some(),
        "withdrawn_by": row.withdrawn,
        "first_seen": row.first_seen,
        "occurrences": announced.occurrences.iter().map(occurrence_json).collect::<Vec<_>>(),
    })
}

pub fn fault_json(fault: &Fault) -> Value {
    let (start, end) = (fault.start(), fault.end());
    json!({
        "severity": if fault.is_error() { "error" } else { "warning" },
        "code": fault.code,
        "message": fault.message.en,
        "message_zh": fault.message.zh,
        "hint": fault.hint.as_ref().map(|h| &h.en),
        "hint_zh": fault.hint.as_ref().map(|h| &h.zh),
        "file": fault.source.name,
        "line": start.line,
        "column": start.column,
        "end_line": end.line,
        "end_column": end.column,
    })
}

impl Inner {
    /// `GET /v1/health`: whether it publishes, and what is not as it should be.
    pub fn health(&self) -> Value {
        let state = lock(&self.state);
        let mut degraded: Vec<&str> = Vec::new();
        if state.queue_gone {
            degraded.push("queue_folder");
        }
        if !state.rejected.is_empty() {
            degraded.push("configuration");
        }
        if state.prune.is_some() {
            degraded.push("awaiting_prune");
        }
        if state.faults.iter().any(Fault::is_error) {
            degraded.push("queue_faults");
        }
        let word = if degraded.is_empty() { "ok" } else { "degraded" };
        json!({ "status": word, "degraded": degraded, "version": env!("CARGO_PKG_VERSION"), "started": state.started })
    }

    /// The emergencies of the last hours: what, since when, by whom, where each stands and where not yet.
    async fn emergencies(&self, now: Time) -> Result<Vec<Value>, LedgerError> {
        const LATELY: TimeDelta = TimeDelta::hours(6);
        const MOST_NAMED: usize = 20;
        let filter = crate::ledger::Filter {
            priority: Some(Priority::Emergency),
            since: Some(now - LATELY),
            max: 50,
            ..Default::default()
        };
        let mut found = Vec::new();
        for announced in self.ledger.announcements(filter).await? {
            let content = self.content(&announced.row.content).await?;
            let id = announced.row.id.to_string();
            let of = crate::ledger::Filter { announcement: Some(id), max: 10_000, ..Default::default() };
            let rows = self.ledger.deliveries(of).await?;
            let (standing, not_yet): (Vec<&Delivery>, Vec<&Delivery>) =
                rows.iter().partition(|d| matches!(d.state, State::Published | State::Deleted));
            let gate = lock(&self.gate);
            let have = gate.persons(&announced.row.id, &announced.row.content);
            drop(gate);
            found.push(json!({
                "id": announced.row.id,
                "level": content.body.level(),
                "text": content.body.text,
                "since": announced.row.first_seen,
                "state": announcement_state(&announced, now, None),
                "standing": standing.len(),
                "not_yet": not_yet.len(),
                "where_not": not_yet.iter().take(MOST_NAMED).map(|d| json!({
                    "account": d.account, "state": d.state, "reason": d.reason,
                })).collect::<Vec<_>>(),
                "persons": { "have": have, "needed": self.config().settings.emergency.persons(&content.body) },
            }));
        }
        found.sort_by_key(|e| std::cmp::Reverse(e["since"].as_str().unwrap_or("").to_owned()));
        Ok(found)
    }

    /// `GET /v1/status`: what is needed to know how things stand.
    pub async fn status(&self) -> Result<Value, LedgerError> {
        let now = self.clock.now();
        let counts = self.ledger.counts().await?;
        let recent = self.ledger.occurrences(now - TimeDelta::hours(2), now).await?;
        let coming = self.ledger.occurrences(now, now + TimeDelta::hours(24)).await?;
        let waiting = self.ledger.in_state(State::Unknown, now).await?;
        let person: Vec<Value> = waiting.iter().filter(|d| d.next_at.is_none()).take(50).map(delivery_json).collect();
        let accounts = self.ledger.accounts().await?;
        let bad: Vec<Value> = accounts
            .iter()
            .filter(|(_, row)| row.good == Some(false))
            .map(|(id, row)| json!({ "account": id, "words": row.words, "seen": row.seen }))
            .collect();
        let config = self.config();
        let budgets: Vec<Value> = {
            let budgets = lock(&self.budgets);
            config
                .settings
                .platforms
                .values()
                .filter_map(|p| {
                    let used = config.city.accounts.keys().filter(|a| a.platform() == p.name.as_str());
                    let most = used.map(|a| (budgets.day_of(p, a, now).0, a)).max()?;
                    Some(json!({ "platform": p.name, "account": most.1, "used": most.0, "limit": p.limits.account_per_day }))
                })
                .collect()
        };
        let emergencies = self.emergencies(now).await?;
        let holds = self.holds();
        let (seq, head) = self.ledger.head();
        let counts: BTreeMap<&str, u64> = counts.iter().map(|(s, n)| (s.as_str(), *n)).collect();
        let health = self.health();
        let state = lock(&self.state);
        Ok(json!({
            "now": now,
            "timezone": config.settings.zone.name(),
            "drill": config.drill,
            "health": health,
            "emergencies": emergencies,
            "holds": holds,
            "deliveries": counts,
            "recent": recent.iter().rev().take(40).map(occurrence_json).collect::<Vec<_>>(),
            "coming": coming.iter().take(40).map(occurrence_json).collect::<Vec<_>>(),
            "needs_person": person,
            "looking_for": waiting.len(),
            "bad_credentials": bad,
            "budgets": budgets,
            "accounts": config.city.accounts.len(),
            "queue": {
                "files": state.files,
                "folder_gone": state.queue_gone,
                "faults": state.faults.iter().take(100).map(fault_json).collect::<Vec<_>>(),
            },
            "configuration": {
                "faults": state.config_faults.iter().map(fault_json).collect::<Vec<_>>(),
                "rejected": state.rejected.iter().map(fault_json).collect::<Vec<_>>(),
            },
            "notify": self.notices.json(&config.settings.notify),
            "prune": state.prune.as_ref().map(|p| json!({ "plan": p.hash, "announcements": p.announcements })),
            "audit": { "seq": seq, "head": head },
        }))
    }
}
