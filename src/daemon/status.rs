//! The state now, as it is told to a person or a monitor.
//!
//! An announcement's state follows from its deliveries and gates; it is computed here from what the
//! ledger has, and kept nowhere.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;

use super::answers::{self, Fate, Persons, Pruning, Trouble};
use super::{Inner, lock};
use crate::clock::Time;
use crate::core::announcement::{AnnouncementId, Content, End, Part, Priority};
use crate::core::change::{AnnouncementRow, Withdrawal};
use crate::core::delivery::{Cause, Delivery, State};
use crate::core::plan::Prune;
use crate::input::Fault;
use crate::ledger::{Announced, Condition, LedgerError, OccurrenceSummary};

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
    // Nothing takes the place of a post that a person took down.
    let is_persons = announced.row.withdrawn.as_ref().is_some_and(|by| matches!(by, Withdrawal::Person(_)));
    if state == Fate::Superseded && is_persons { Fate::Cancelled } else { state }
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
    pub fn of(announced: &Announced, state: Fate) -> answers::Announcement {
        let row = announced.row.clone();
        answers::Announcement {
            id: row.id,
            state,
            priority: row.priority,
            file: row.file,
            line: row.line,
            content_hash: row.content,
            supersedes: row.supersedes,
            edited_after_publication: row.edited.is_some(),
            ended: row.ended,
            withdrawn_by: row.withdrawn.map(|by| by.as_str().to_owned()),
            first_seen: row.first_seen,
            occurrences: announced.occurrences.iter().map(answers::Occurrence::of).collect(),
        }
    }
}

impl Inner {
    /// `GET /v1/health`: whether it publishes, and what is not as it should be.
    pub fn health(&self) -> answers::Health {
        let (state, ledger) = (lock(&self.state), self.ledger.condition());
        let troubles = [
            (state.queue_gone, Trouble::QueueFolder),
            (!state.rejected.is_empty(), Trouble::Configuration),
            (state.prune.is_some(), Trouble::AwaitingPrune),
            (state.faults.iter().any(Fault::is_error), Trouble::QueueFaults),
            (ledger == Condition::Full, Trouble::LedgerFull),
            (matches!(ledger, Condition::Failing | Condition::Stopped), Trouble::Ledger),
        ];
        let degraded: Vec<Trouble> = troubles.into_iter().filter(|(is, _)| *is).map(|(_, trouble)| trouble).collect();
        let status = if degraded.is_empty() { answers::Condition::Ok } else { answers::Condition::Degraded };
        answers::Health { status, degraded, version: env!("CARGO_PKG_VERSION"), started: state.started }
    }

    /// What has become of an announcement; of an emergency also whether a word is missing, and whether it was wrong.
    pub async fn fate(&self, announced: &Announced) -> Result<Fate, LedgerError> {
        let (row, prune) = (&announced.row, lock(&self.state).prune.clone());
        let state = announcement_state(announced, self.clock.now(), prune.as_ref());
        if row.priority != Priority::Emergency {
            return Ok(state);
        }
        let content = self.content(&row.content).await?;
        let needed = self.config().settings.emergency.persons(&content.body);
        let lacks_word = self.memory.persons(&row.id, &row.content).len() < needed;
        Ok(match state {
            Fate::Held | Fate::Scheduled if lacks_word => Fate::AwaitingConfirm,
            _ if row.ended.as_ref().is_some_and(|e| e.how == End::Corrected) => Fate::Corrected,
            other => other,
        })
    }

    /// What an announcement says and to whom; of an emergency also who has given their word.
    pub fn said_to(&self, row: &AnnouncementRow, content: Content) -> answers::SaidTo {
        let persons = (row.priority == Priority::Emergency).then(|| {
            let names = self.names_of(row);
            Persons { needed: self.config().settings.emergency.persons(&content.body), have: names.len(), names }
        });
        answers::SaidTo {
            text: content.body.text.clone(),
            platforms: super::emergency::shown_on(&content.body, content.accounts.iter()),
            persons,
            content: content.body,
            accounts: content.accounts,
        }
    }

    /// The emergencies that are not over, and those of the last hours, each with all that belongs to it.
    async fn emergencies(&self, now: Time) -> Result<Vec<answers::Emergency>, LedgerError> {
        const LATELY: TimeDelta = TimeDelta::hours(6);
        /// An emergency that nobody has ended is told of this long.
        const OPEN: TimeDelta = TimeDelta::days(3);
        /// What persons asked for over the socket is told of in any case; of what files ask for so many.
        const MOST: usize = 1000;
        const MOST_OF_FILES: usize = 200;
        let of = |is_queued: bool, max: usize| crate::ledger::Filter {
            priority: Some(Priority::Emergency),
            is_queued: Some(is_queued),
            since: Some(now - OPEN),
            max,
            ..Default::default()
        };
        let mut found = self.ledger.announcements(of(false, MOST)).await?;
        found.extend(self.ledger.announcements(of(true, MOST_OF_FILES)).await?);
        let of_files: BTreeSet<AnnouncementId> =
            found.iter().filter(|a| !a.row.file.is_empty()).map(|a| a.row.id.clone()).collect();
        let mut families: BTreeMap<AnnouncementId, Vec<answers::Emergency>> = BTreeMap::new();
        for announced in found {
            let root = super::emergency::kin::root_of(&announced.row).clone();
            let post = self.emergency(announced, root.clone(), now).await?;
            families.entry(root).or_default().push(post);
        }
        let is_open = |post: &answers::Emergency| {
            let warns = matches!(post.part, None | Some(Part::Update));
            let over = [Fate::Expired, Fate::Cancelled, Fate::Failed, Fate::Superseded, Fate::Corrected];
            post.state == Fate::AwaitingConfirm || warns && post.ended.is_none() && !over.contains(&post.state)
        };
        let is_recent = |post: &answers::Emergency| post.since > now - LATELY;
        let mut told: Vec<Vec<answers::Emergency>> = families.into_values().collect();
        told.retain(|posts| posts.iter().any(|post| is_open(post) || is_recent(post)));
        for posts in &mut told {
            posts.sort_by_key(|post| (post.since, post.part, post.id.clone()));
        }
        // What is not over comes first, then what a person asked for, then the graver, and of each the newest.
        told.sort_by_key(|posts| {
            let newest = posts.iter().map(|post| post.since).max();
            let is_of_file = posts.iter().all(|post| of_files.contains(&post.id));
            let level = posts.iter().filter_map(|post| post.level).min();
            (!posts.iter().any(is_open), is_of_file, level, std::cmp::Reverse(newest))
        });
        Ok(told.into_iter().flatten().collect())
    }

    /// One post of an emergency: what, since when, by whom, where it stands and where not yet.
    async fn emergency(
        &self,
        announced: Announced,
        root: AnnouncementId,
        now: Time,
    ) -> Result<answers::Emergency, LedgerError> {
        const MOST_NAMED: usize = 20;
        let content = self.content(&announced.row.content).await?;
        let state = self.fate(&announced).await?;
        // Of a repeat the one whose hour it is, or was last.
        let last = announced.occurrences.iter().rev().find(|o| o.release <= now).or(announced.occurrences.first());
        let since = last.map_or(announced.row.first_seen, |o| o.release);
        let rows = match last {
            Some(occurrence) => self.ledger.of_occurrence(occurrence.id.clone()).await?,
            None => Vec::new(),
        };
        let row = announced.row;
        let is_over = row.ended.is_some() || state == Fate::Superseded;
        let stands = |d: &&Delivery| d.state == State::Published;
        let missing = |d: &&Delivery| {
            !(matches!(d.state, State::Published | State::Deleted) || is_over && d.state == State::Cancelled)
        };
        let where_not = rows.iter().filter(missing).take(MOST_NAMED).map(|d| answers::NotYet {
            account: d.account.clone(),
            state: d.state,
            reason: d.reason.clone(),
        });
        let names = self.names_of(&row);
        let persons =
            Persons { needed: self.config().settings.emergency.persons(&content.body), have: names.len(), names };
        let waits = |d: &Delivery| d.next_at.filter(|_| d.cause == Some(Cause::Confirmation));
        Ok(answers::Emergency {
            part: content.body.part(),
            emergency: root,
            level: content.body.level(),
            text: content.body.text.clone(),
            since,
            standing: rows.iter().filter(stands).count(),
            taken_down: rows.iter().filter(|d| d.state == State::Deleted).count(),
            not_yet: rows.iter().filter(missing).count(),
            where_not: where_not.collect(),
            persons,
            confirm_by: rows.iter().filter_map(waits).min().filter(|_| state == Fate::AwaitingConfirm),
            ended: row.ended,
            state,
            id: row.id,
        })
    }

    /// `GET /v1/status`: what is needed to know how things stand.
    pub async fn status(&self) -> Result<answers::Status, LedgerError> {
        let now = self.clock.now();
        let counts = self.ledger.counts().await?;
        let recent = self.ledger.occurrences(now - TimeDelta::hours(2), now).await?;
        let coming = self.ledger.occurrences(now, now + TimeDelta::hours(24)).await?;
        let mut waiting = self.ledger.in_state(State::Unknown, now).await?;
        waiting.extend(self.ledger.in_state(State::Accepted, now).await?);
        let mut person: Vec<&Delivery> =
            waiting.iter().filter(|d| d.needs_person || d.next_at.is_none()).take(1000).collect();
        let standing = self.ledger.standing().await?;
        person.extend(standing.iter().filter(|d| d.stands_wrongly()).take(1000));
        let accounts = self.ledger.accounts().await?;
        let bad = accounts
            .into_iter()
            .filter(|(_, row)| row.good == Some(false))
            .map(|(account, row)| answers::BadCredential { account, words: row.words, seen: row.seen });
        let config = self.config();
        let budgets = {
            let fullest = config.settings.platforms.values().filter_map(|p| {
                let used = config.city.accounts.keys().filter(|a| a.platform() == p.name.as_str());
                let (used, account) = used.map(|a| (self.memory.day_of(p, a, now).0, a)).max()?;
                let (platform, account, limit) = (p.name.clone(), account.clone(), p.limits.account_per_day);
                Some(answers::Budget { platform, account, used, limit })
            });
            fullest.collect()
        };
        let emergencies = self.emergencies(now).await?;
        let holds = self.holds();
        let kept_back = self.held().await.map_or(0, |held| held.len());
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
            kept_back,
            deliveries: counts.iter().map(|(s, n)| (s.as_str(), *n)).collect(),
            recent: recent.iter().rev().take(40).map(answers::Occurrence::of).collect(),
            coming: coming.iter().take(40).map(answers::Occurrence::of).collect(),
            needs_person: person.into_iter().map(answers::Delivery::of).collect(),
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
