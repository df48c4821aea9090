//! The state now, as it is told to a person or a monitor.
//!
//! An announcement's state follows from its deliveries and gates; it is computed here from what the
//! ledger has, and kept nowhere.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;

use super::answers::{self, Condition, Fate, Persons, Pruning, Trouble};
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
pub fn occurrence_state(counts: &BTreeMap<State, u32>) -> Fate {
    let n = |state: State| counts.get(&state).copied().unwrap_or(0);
    let all: u32 = counts.values().sum();
    let out = n(State::Published) + n(State::Deleted);
    let busy = n(State::Sending) + n(State::Retrying) + n(State::Unknown) + n(State::Accepted);
    let pending = n(State::Scheduled) + n(State::Ready);
    if all == 0 {
        Fate::Expired
    } else if busy > 0 || pending > 0 && out > 0 {
        Fate::Releasing
    } else if n(State::Held) > 0 {
        Fate::Held
    } else if pending > 0 {
        Fate::Scheduled
    } else if out == all && n(State::Deleted) == all {
        Fate::Superseded
    } else if out == all {
        Fate::Published
    } else if n(State::Cancelled) == all {
        Fate::Cancelled
    } else if n(State::Expired) == all {
        Fate::Expired
    } else if out == 0 && n(State::Failed) > 0 {
        Fate::Failed
    } else if out > 0 {
        Fate::Partial
    } else {
        Fate::Cancelled
    }
}

pub fn announcement_state(announced: &Announced, now: Time, prune: Option<&Prune>) -> Fate {
    if prune.is_some_and(|p| p.announcements.contains(&announced.row.id)) {
        return Fate::AwaitingPrune;
    }
    // A repeat is as its next occurrence is, or as its last one was.
    let next = announced.occurrences.iter().find(|o| o.release > now && occurrence_state(&o.counts) == Fate::Scheduled);
    let last = announced.occurrences.iter().rev().find(|o| o.release <= now);
    let state = match (last.filter(|o| occurrence_state(&o.counts) == Fate::Releasing), next, last) {
        (Some(o), _, _) | (None, Some(o), _) | (None, None, Some(o)) => occurrence_state(&o.counts),
        _ => announced.occurrences.last().map_or(Fate::Expired, |o| occurrence_state(&o.counts)),
    };
    match state {
        Fate::Held if announced.row.priority == Priority::Emergency => Fate::AwaitingConfirm,
        other => other,
    }
}

impl answers::Occurrence {
    pub fn of(o: &OccurrenceSummary) -> answers::Occurrence {
        answers::Occurrence {
            id: o.id.clone(),
            announcement: o.announcement.clone(),
            release: o.release,
            state: occurrence_state(&o.counts),
            deliveries: o.counts.iter().map(|(s, n)| (s.as_str(), *n)).collect(),
            closing: o.closing.clone(),
        }
    }
}

impl answers::Announcement {
    pub fn of(announced: &Announced, now: Time, prune: Option<&Prune>) -> answers::Announcement {
        let row = announced.row.clone();
        answers::Announcement {
            id: row.id,
            state: announcement_state(announced, now, prune),
            priority: row.priority,
            file: row.file,
            line: row.line,
            content_hash: row.content,
            supersedes: row.supersedes,
            edited_after_publication: row.edited.is_some(),
            withdrawn_by: row.withdrawn,
            first_seen: row.first_seen,
            occurrences: announced.occurrences.iter().map(answers::Occurrence::of).collect(),
        }
    }
}

impl Inner {
    /// `GET /v1/health`: whether it publishes, and what is not as it should be.
    pub fn health(&self) -> answers::Health {
        let state = lock(&self.state);
        let troubles = [
            (state.queue_gone, Trouble::QueueFolder),
            (!state.rejected.is_empty(), Trouble::Configuration),
            (state.prune.is_some(), Trouble::AwaitingPrune),
            (state.faults.iter().any(Fault::is_error), Trouble::QueueFaults),
        ];
        let degraded: Vec<Trouble> = troubles.into_iter().filter(|(is, _)| *is).map(|(_, trouble)| trouble).collect();
        let status = if degraded.is_empty() { Condition::Ok } else { Condition::Degraded };
        answers::Health { status, degraded, version: env!("CARGO_PKG_VERSION"), started: state.started }
    }

    /// The emergencies of the last hours: what, since when, by whom, where each stands and where not yet.
    async fn emergencies(&self, now: Time) -> Result<Vec<answers::Emergency>, LedgerError> {
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
            let where_not = not_yet.iter().take(MOST_NAMED).map(|d| answers::NotYet {
                account: d.account.clone(),
                state: d.state,
                reason: d.reason.clone(),
            });
            found.push(answers::Emergency {
                state: announcement_state(&announced, now, None),
                id: announced.row.id,
                level: content.body.level(),
                text: content.body.text.clone(),
                since: announced.row.first_seen,
                standing: standing.len(),
                not_yet: not_yet.len(),
                where_not: where_not.collect(),
                persons: Persons { have, needed: self.config().settings.emergency.persons(&content.body) },
            });
        }
        found.sort_by_key(|e| std::cmp::Reverse(e.since));
        Ok(found)
    }

    /// `GET /v1/status`: what is needed to know how things stand.
    pub async fn status(&self) -> Result<answers::Status, LedgerError> {
        let now = self.clock.now();
        let counts = self.ledger.counts().await?;
        let recent = self.ledger.occurrences(now - TimeDelta::hours(2), now).await?;
        let coming = self.ledger.occurrences(now, now + TimeDelta::hours(24)).await?;
        let waiting = self.ledger.in_state(State::Unknown, now).await?;
        let person = waiting.iter().filter(|d| d.next_at.is_none()).take(50);
        let accounts = self.ledger.accounts().await?;
        let bad = accounts
            .into_iter()
            .filter(|(_, row)| row.good == Some(false))
            .map(|(account, row)| answers::BadCredential { account, words: row.words, seen: row.seen });
        let config = self.config();
        let budgets = {
            let budgets = lock(&self.budgets);
            let fullest = config.settings.platforms.values().filter_map(|p| {
                let used = config.city.accounts.keys().filter(|a| a.platform() == p.name.as_str());
                let (used, account) = used.map(|a| (budgets.day_of(p, a, now).0, a)).max()?;
                let (platform, account, limit) = (p.name.clone(), account.clone(), p.limits.account_per_day);
                Some(answers::Budget { platform, account, used, limit })
            });
            fullest.collect()
        };
        let emergencies = self.emergencies(now).await?;
        let holds = self.holds();
        let (seq, head) = self.ledger.head();
        let health = self.health();
        let state = lock(&self.state);
        Ok(answers::Status {
            now,
            timezone: config.settings.zone.name(),
            drill: config.drill,
            health,
            emergencies,
            holds,
            deliveries: counts.iter().map(|(s, n)| (s.as_str(), *n)).collect(),
            recent: recent.iter().rev().take(40).map(answers::Occurrence::of).collect(),
            coming: coming.iter().take(40).map(answers::Occurrence::of).collect(),
            needs_person: person.map(answers::Delivery::of).collect(),
            looking_for: waiting.len(),
            bad_credentials: bad.collect(),
            budgets,
            accounts: config.city.accounts.len(),
            queue: answers::QueueNow {
                files: state.files,
                folder_gone: state.queue_gone,
                faults: state.faults.iter().take(100).map(answers::Fault::of).collect(),
            },
            configuration: answers::ConfigurationNow {
                faults: state.config_faults.iter().map(answers::Fault::of).collect(),
                rejected: state.rejected.iter().map(answers::Fault::of).collect(),
            },
            notify: self.notices.told(&config.settings.notify),
            prune: state.prune.as_ref().map(Pruning::of),
            audit: answers::Head { seq, head },
        })
    }
}
