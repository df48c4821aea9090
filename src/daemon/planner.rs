//! The queue folder against the ledger: reads, compares, commits.
//!
//! Reading is the expensive part and happens beside the loop. What `core::plan` decides becomes
//! changes here, one announcement a commit, so that one that meets a conflict is planned again alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::json;

use super::{Inner, answers, lock};
use crate::clock::Time;
use crate::core::announcement::{Announcement, AnnouncementId, Body, ContentHash, OccurrenceId, Priority};
use crate::core::change::{Actor, AnnouncementRow, Change, Note};
use crate::core::delivery::{Delivery, DeliveryId, Event, State, Wish};
use crate::core::plan::{self, Action, Known, Plan};
use crate::core::words::{Words, words};
use crate::input::folder::{self, Named, Reading};
use crate::input::queue::Context;
use crate::ledger::LedgerError;

/// A look at the folder every few seconds: network folders tell nobody when they change.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_secs(5);
/// An occurrence of a repeat that is older than this is not compared any more.
const COMPARED: TimeDelta = TimeDelta::hours(49);

/// What is superseded may have left the queue; it is known by name for this long.
const SUPERSEDED: TimeDelta = TimeDelta::days(60);

/// What has its hour is in the ledger however far that is; a look shows all of it, repeats a day ahead.
const WRITTEN_AHEAD: TimeDelta = TimeDelta::days(3660);

pub struct Planner {
    inner: Arc<Inner>,
    signature: Option<Arc<str>>,
    /// The first reading into a ledger that is new, restored or cut: what it does not know of and is due
    /// at once, or was due before, is looked for before it is sent.
    is_doubted: bool,
    last_planned: Option<Time>,
}

/// Reads the queue folder of a configuration.
pub fn read(config: &super::config::Config, known: &Named, now: Time) -> Reading {
    let context = Context {
        root: &config.settings.queue,
        zone: config.settings.zone,
        city: &config.city,
        rules: &config.rules,
        per_hour: &config.per_hour,
        now,
        drill: config.drill,
    };
    folder::read(&context, known)
}

impl Planner {
    pub fn new(inner: Arc<Inner>, is_doubted: bool) -> Planner {
        Planner { inner, signature: None, is_doubted, last_planned: None }
    }

    pub async fn run(mut self) {
        let inner = self.inner.clone();
        loop {
            let asked = tokio::select! {
                biased;
                () = inner.stop.cancelled() => return,
                () = inner.rescan.notified() => true,
                () = inner.clock.sleep(LOOK_EVERY) => false,
            };
            self.scan(asked).await;
        }
    }

    /// Reads and plans, if anything has changed or was asked for.
    pub async fn scan(&mut self, asked: bool) {
        let inner = self.inner.clone();
        let config = inner.config();
        let root = config.settings.queue.clone();
        let signature = tokio::task::spawn_blocking(move || folder::signature(&root)).await.ok();
        let now = inner.clock.now();
        // Repeats are written ahead, so an unchanged folder is planned again now and then.
        let stale = self.last_planned.is_none_or(|at| now - at > TimeDelta::minutes(5) || at > now);
        if !asked && !stale && signature == self.signature {
            return;
        }
        match self.plan(now).await {
            Ok(()) => {
                self.signature = signature;
                self.last_planned = Some(now);
                self.is_doubted = false;
            }
            Err(error) => {
                tracing::error!(%error, "the queue was not planned; it is read again");
                self.last_planned = None;
            }
        }
        inner.rescanned.send_modify(|n| *n += 1);
    }

    async fn plan(&self, now: Time) -> Result<(), LedgerError> {
        let inner = &self.inner;
        let config = inner.config();
        let reading = inner.read_queue(now).await?;
        let ids = reading.desired.announcements.keys().cloned().collect();
        let known = inner.ledger.known(ids, now - COMPARED).await?;
        let accepted = inner.ledger.meta("prune_accepted").await?;
        let refused = inner.ledger.meta("prune_refused").await?;
        let rules = plan::Rules {
            publish: &config.settings.publish,
            zone: config.settings.zone,
            accepted: accepted.as_deref(),
            refused: refused.as_deref(),
        };
        let plan = plan::plan(&reading.desired, &known, now, &rules);
        self.note(&reading, &plan).await?;
        self.carry_out(&plan, &reading.desired.announcements, &known, now).await
    }

    /// What a person sees of this reading.
    async fn note(&self, reading: &Reading, plan: &Plan) -> Result<(), LedgerError> {
        let changed = {
            let mut state = lock(&self.inner.state);
            let changed = state.faults != reading.faults;
            state.faults.clone_from(&reading.faults);
            state.files = reading.files;
            state.queue_gone = reading.desired.folder_gone;
            changed
        };
        if changed {
            for fault in &reading.faults {
                let place = fault.start();
                let (file, message) = (&fault.source.name, &fault.message.en);
                if fault.is_error() {
                    tracing::error!(
                        file,
                        line = place.line,
                        column = place.column,
                        fault = message,
                        "fault in the queue"
                    );
                } else {
                    tracing::warn!(
                        file,
                        line = place.line,
                        column = place.column,
                        fault = message,
                        "remark on the queue"
                    );
                }
            }
        }
        let before = lock(&self.inner.state).prune.clone();
        if before != plan.blocked {
            lock(&self.inner.state).prune.clone_from(&plan.blocked);
            let waiting = plan.blocked.as_ref().map(|p| json!({ "hash": p.hash, "announcements": p.announcements }));
            let mut changes =
                vec![Change::Meta { key: "prune".to_owned(), value: waiting.as_ref().map(ToString::to_string) }];
            if let Some(body) = waiting {
                tracing::error!(
                    announcements = plan.blocked.as_ref().map_or(0, |p| p.announcements.len()),
                    "many announcements are gone from the queue; nothing is cancelled until `fabu prune`"
                );
                changes.push(Note::change("awaiting_prune", "queue", body));
            }
            self.inner.ledger.commit(&Actor::Queue, changes).await?;
        }
        Ok(())
    }

    async fn carry_out(
        &self,
        plan: &Plan,
        desired: &BTreeMap<AnnouncementId, Announcement>,
        known: &Known,
        now: Time,
    ) -> Result<(), LedgerError> {
        for action in &plan.actions {
            let (changes, touched) = match action {
                Action::Put { id, occurrences, is_new, planned_to } => {
                    let row = known.announcements.get(id).map(|k| &k.row);
                    self.put(&desired[id], row, occurrences, (*is_new, *planned_to), now).await?
                }
                Action::Moved(id) => {
                    let (announcement, row) = (&desired[id], &known.announcements[id].row);
                    let moved = AnnouncementRow {
                        file: announcement.file.clone(),
                        line: announcement.line as i64,
                        ..row.clone()
                    };
                    (vec![Change::Announcement(Box::new(moved))], Vec::new())
                }
                Action::EditedAfterPublication(id, hash) => {
                    let row = AnnouncementRow { edited: Some(hash.clone()), ..known.announcements[id].row.clone() };
                    tracing::warn!(announcement = %id, "edited after publication: what is out stays as it is");
                    let note = Note::change("edited_after_publication", id, json!({ "content": hash }));
                    (vec![Change::Announcement(Box::new(row)), note], Vec::new())
                }
                Action::Withdraw { id, occurrences, whole } => {
                    let row = whole.then(|| &known.announcements[id].row);
                    self.withdraw(id, row, occurrences).await?
                }
                Action::Missed(occurrences) => self.missed(occurrences).await?,
            };
            if changes.is_empty() {
                continue;
            }
            match self.inner.ledger.commit(&Actor::Queue, changes).await {
                Ok(_) => self.inner.nudge(&touched),
                // Something moved meanwhile: it is compared again at the next look.
                Err(LedgerError::Conflict) => self.inner.ask_rescan(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn put(
        &self,
        announcement: &Announcement,
        before: Option<&AnnouncementRow>,
        occurrences: &[(OccurrenceId, Time)],
        (is_new, planned_to): (bool, Option<Time>),
        now: Time,
    ) -> Result<(Vec<Change>, Vec<DeliveryId>), LedgerError> {
        let content = &announcement.content;
        let hash = content.hash();
        let row = AnnouncementRow {
            id: announcement.id.clone(),
            file: announcement.file.clone(),
            line: announcement.line as i64,
            content: hash.clone(),
            body: content.body.hash(),
            edited: None,
            priority: content.body.priority,
            supersedes: content.body.supersedes.clone(),
            planned_to,
            withdrawn: None,
            first_seen: before.map_or(now, |b| b.first_seen),
            follows: None,
            ended: None,
        };
        let mut changes =
            vec![Change::Content(hash.clone(), Box::new(content.clone())), Change::Announcement(Box::new(row))];
        let mut touched = Vec::new();
        for (occurrence, release) in occurrences {
            changes.push(Change::Occurrence {
                id: occurrence.clone(),
                announcement: announcement.id.clone(),
                content: hash.clone(),
                release: *release,
            });
            self.deliveries(announcement, &hash, occurrence, *release, now, &mut changes, &mut touched).await?;
        }
        if is_new || before.is_some_and(|b| b.content != hash) {
            let kind = if is_new { "announced" } else { "replaced" };
            let body = json!({ "content": hash, "file": announcement.file, "accounts": content.accounts.len() });
            changes.push(Note::change(kind, &announcement.id, body));
            if content.body.priority == Priority::Emergency {
                // Nobody on duty sent it: those who are told hear of it as soon as it is read.
                let persons = self.inner.config().settings.emergency.persons(&content.body);
                let body = json!({
                    "level": content.body.level(), "accounts": content.accounts.len(), "content_hash": hash,
                    "persons": persons, "awaits_word": true, "text": content.body.text, "source": announcement.file,
                });
                changes.push(Note::change("emergency", &announcement.id, body));
            }
        }
        Ok((changes, touched))
    }

    /// New rows for accounts that have none, an edit for those that can still change, a withdrawal for
    /// those the announcement no longer names.
    #[expect(clippy::too_many_arguments, reason = "the parts of one occurrence, used here alone")]
    async fn deliveries(
        &self,
        announcement: &Announcement,
        hash: &ContentHash,
        occurrence: &OccurrenceId,
        release: Time,
        now: Time,
        changes: &mut Vec<Change>,
        touched: &mut Vec<DeliveryId>,
    ) -> Result<(), LedgerError> {
        let inner = &self.inner;
        let content = &announcement.content;
        let expires_at = expiry(&content.body, release, &inner.config().settings.publish);
        let existing = inner.ledger.of_occurrence(occurrence.clone()).await?;
        for d in &existing {
            let event = if !content.accounts.contains(&d.account) {
                Event::Withdrawn(Wish::Stop, Words::new("不再发给这个账号", "no longer sent to this account"))
            } else if d.content == *hash && d.at == release && d.state.is_pending() {
                continue;
            } else {
                Event::Edited { content: hash.clone(), at: release, expires_at }
            };
            // What cannot be changed any more is left as it is.
            if let Ok(step) = inner.computed(d, event) {
                lock(&inner.gate).withdrawn.remove(&d.id);
                touched.push(d.id);
                changes.push(Change::Step(Box::new(step)));
            }
        }
        let has: std::collections::BTreeSet<_> = existing.iter().map(|d| &d.account).collect();
        let missed = expires_at.is_some_and(|e| e < now);
        if missed && existing.is_empty() {
            let (id, at) = (&announcement.id, release.to_rfc3339());
            tracing::warn!(announcement = %id, at, "already past when first seen, and not published");
            changes.push(Note::change("missed", occurrence, json!({ "at": at })));
        }
        for account in content.accounts.iter().filter(|a| !has.contains(a)) {
            let mut d =
                new_delivery(&announcement.id, content.body.priority, hash, occurrence, account, release, expires_at);
            if missed {
                d.state = State::Expired;
                d.next_at = None;
                d.reason = Some(Words::new("首次读到时已经过时", "already past when it was first seen"));
            } else if self.is_doubted && release <= now + TimeDelta::seconds(2) {
                // A new ledger knows nothing of what went out before: it looks first.
                d.state = State::Unknown;
                d.never_armed = true;
                d.asked_until = Some(now);
                d.next_at = Some(now);
                d.reason = Some(Words::new("新账本，先查是否已发", "a new ledger: looking whether it is out already"));
            }
            changes.push(Change::Add(Box::new(d)));
        }
        Ok(())
    }

    async fn withdraw(
        &self,
        id: &AnnouncementId,
        row: Option<&AnnouncementRow>,
        occurrences: &[OccurrenceId],
    ) -> Result<(Vec<Change>, Vec<DeliveryId>), LedgerError> {
        let mut changes = Vec::new();
        let mut touched = Vec::new();
        for occurrence in occurrences {
            for d in self.inner.ledger.of_occurrence(occurrence.clone()).await? {
                let why = Words::new("已从队列删去", "removed from the queue");
                if d.state.is_pending()
                    && let Ok(step) = self.inner.computed(&d, Event::Withdrawn(Wish::Stop, why))
                {
                    touched.push(d.id);
                    changes.push(Change::Step(Box::new(step)));
                }
            }
        }
        if let Some(row) = row {
            let gone = AnnouncementRow { withdrawn: Some("queue".to_owned()), ..row.clone() };
            changes.push(Change::Announcement(Box::new(gone)));
            changes.push(Note::change("withdrawn", id, json!({ "by": "queue" })));
        }
        Ok((changes, touched))
    }

    async fn missed(&self, occurrences: &[OccurrenceId]) -> Result<(Vec<Change>, Vec<DeliveryId>), LedgerError> {
        let mut changes = Vec::new();
        let mut touched = Vec::new();
        for occurrence in occurrences {
            for d in self.inner.ledger.of_occurrence(occurrence.clone()).await? {
                if let Ok(step) = self.inner.computed(&d, Event::Expired) {
                    touched.push(d.id);
                    changes.push(Change::Step(Box::new(step)));
                    self.inner.metrics.missed();
                }
            }
            let body = json!({ "why": words!("停机时错过，只补最新的一次", "missed while away; only the newest is caught up").en });
            changes.push(Note::change("missed", occurrence, body));
        }
        Ok((changes, touched))
    }
}

impl Inner {
    async fn read_queue(&self, now: Time) -> Result<Reading, LedgerError> {
        let known = Named {
            earlier: Some(self.ledger.names(now - SUPERSEDED).await?),
            of_socket: self.ledger.of_socket().await?,
        };
        let config = self.config();
        let work = move || read(&config, &known, now);
        tokio::task::spawn_blocking(work).await.map_err(|e| LedgerError::Unavailable(e.to_string()))
    }

    /// What would be done now, and what goes out within the coming day; nothing is written.
    pub async fn plan_now(&self) -> Result<answers::Plan, LedgerError> {
        // Each is a reading of the whole queue: so many at once as leave a core to those who send.
        let _turn = self.looks.acquire().await;
        let (config, now) = (self.config(), self.clock.now());
        let reading = self.read_queue(now).await?;
        let ids = reading.desired.announcements.keys().cloned().collect();
        let known = self.ledger.known(ids, now - COMPARED).await?;
        let rules = plan::Rules {
            publish: &config.settings.publish,
            zone: config.settings.zone,
            accepted: None,
            refused: None,
        };
        let plan = plan::plan(&reading.desired, &known, now, &rules);
        let coming = self.ledger.occurrences(now, now + WRITTEN_AHEAD).await?;
        Ok(answers::Plan {
            changes: plan.actions.iter().map(answers::Planned::of).collect(),
            awaiting_prune: plan.blocked.as_ref().map(answers::Pruning::of),
            coming: coming.iter().map(answers::Occurrence::of).collect(),
            faults: reading.faults.iter().map(answers::Fault::of).collect(),
        })
    }
}

/// Expiry: `at` plus the smaller of `expires_after` and `catch_up`; an emergency's is its own wish alone.
pub fn expiry(body: &Body, release: Time, publish: &crate::core::policy::Publish) -> Option<Time> {
    let lasts = TimeDelta::from_std(body.lasts(publish)?).ok()?;
    release.checked_add_signed(lasts)
}

pub(crate) fn new_delivery(
    announcement: &AnnouncementId,
    priority: Priority,
    hash: &ContentHash,
    occurrence: &OccurrenceId,
    account: &crate::core::accounts::AccountId,
    release: Time,
    expires_at: Option<Time>,
) -> Delivery {
    Delivery {
        id: DeliveryId::NONE,
        occurrence: occurrence.clone(),
        announcement: announcement.clone(),
        account: account.clone(),
        content: hash.clone(),
        priority,
        state: State::Scheduled,
        next_at: Some(release),
        at: release,
        expires_at,
        wish: Wish::Out,
        attempt: 0,
        looks: 0,
        asked_until: None,
        begun_at: None,
        called_duplicate: false,
        never_armed: false,
        prepared: None,
        receipt: None,
        class: None,
        reason: None,
        lateness_ms: None,
        fence: 0,
    }
}
