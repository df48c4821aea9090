//! The queue folder against the ledger: reads, compares, commits.
//!
//! Reading is the expensive part and happens beside the loop. What `core::plan` decides becomes
//! changes here, one announcement a commit, so that one that meets a conflict is planned again alone. A commit names
//! the versions of all it was decided on: what a person, a release or another post has done meanwhile is never
//! written over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;

use super::prune::{PRUNE, PRUNE_REFUSED, refusals, removed, waiting};
use super::queue::ZONE;
use super::recover::note_caught_up;
use super::send::held_expiry;
use super::stillness::Stillness;
use super::{Inner, answers, lock};
use crate::clock::Time;
use crate::core::accounts::AccountId;
use crate::core::announcement::{Announcement, AnnouncementId, Body, ContentHash, OccurrenceId, Priority, Timing};
use crate::core::change::{Actor, AnnouncementRow, Change, Note, Withdrawal};
use crate::core::delivery::{Cause, Delivery, DeliveryId, Desired, Doubt, Edit, Event, Reach, State, Stop};
use crate::core::plan::{self, Action, Known, KnownAnnouncement, Plan};
use crate::core::words::Words;
use crate::input::folder::{self, Reading};
use crate::ledger::{LedgerError, Trust};

/// A look at the folder every few seconds: network folders tell nobody when they change.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// An occurrence of a repeat that is older than this is not compared any more.
const COMPARED: TimeDelta = TimeDelta::hours(49);

/// Files that are copied back with an older ledger may have been published so long ago.
const COPIED_BACK: TimeDelta = TimeDelta::days(30);

/// What has its hour is in the ledger however far that is; a look shows all of it, repeats a day ahead.
const WRITTEN_AHEAD: TimeDelta = TimeDelta::days(3660);

pub struct Planner {
    inner: Arc<Inner>,
    signature: Option<Arc<str>>,
    /// No reading of the folder has been planned yet since the start.
    is_first: bool,
    last_planned: Option<Time>,
    stillness: Stillness,
}

impl Planner {
    pub fn new(inner: Arc<Inner>) -> Planner {
        Planner { inner, signature: None, is_first: true, last_planned: None, stillness: Stillness::default() }
    }

    pub async fn run(mut self) {
        let inner = self.inner.clone();
        loop {
            let now = inner.clock.mono();
            let settled = self.stillness.over.map_or(LOOK_EVERY, |over| over.0.saturating_sub(now.0));
            let asked = tokio::select! {
                biased;
                () = inner.stop.cancelled() => return,
                () = inner.rescan.notified() => true,
                () = inner.clock.sleep(settled.min(LOOK_EVERY)) => false,
            };
            self.scan(asked).await;
        }
    }

    /// Reads and plans, if anything has changed or was asked for.
    pub async fn scan(&mut self, asked: bool) {
        let inner = self.inner.clone();
        let config = inner.config();
        let root = config.settings.queue.clone();
        let signature = inner.clock.aside(move || folder::signature(&root)).await.ok();
        let now = inner.clock.now();
        // Repeats are written ahead, so an unchanged folder is planned again now and then.
        let stale = self.last_planned.is_none_or(|at| now - at > TimeDelta::minutes(5) || at > now);
        let has_settled = self.stillness.over.is_some_and(|over| over <= inner.clock.mono());
        if !asked && !stale && !has_settled && signature == self.signature {
            return;
        }
        match self.plan(now).await {
            Ok(is_whole) => {
                self.signature = signature;
                self.last_planned = Some(now);
                self.is_first &= !is_whole;
            }
            Err(error) => {
                tracing::error!(%error, "the queue was not planned; it is read again");
                self.last_planned = None;
            }
        }
        inner.rescanned.send_modify(|n| *n += 1);
    }

    /// Whether the folder was there, and all it says is in the ledger.
    async fn plan(&mut self, now: Time) -> Result<bool, LedgerError> {
        let inner = self.inner.clone();
        let config = inner.config();
        let mut reading = inner.read_queue(now).await?;
        let (settle, is_first) = (config.settings.publish.settle_file, self.is_first);
        self.stillness.hold_back(&mut reading.desired, settle, inner.clock.mono(), is_first);
        let zone = config.settings.zone;
        let earlier = inner.earlier().await?;
        let rules = earlier.rules(&config.settings);
        let (plan, known) = inner.planned(&mut reading.desired, now, &rules).await?;
        self.note(&reading, &plan, earlier.prune.as_deref()).await?;
        if plan.refused != earlier.refused {
            // A refusal, like a consent, is used once. Another one may have come in this moment.
            let expected = Change::ExpectMeta(PRUNE_REFUSED.to_owned(), earlier.refusals.clone());
            let changes = vec![expected, refusals(&plan.refused)];
            match inner.ledger.commit(&Actor::Queue, changes).await {
                Ok(_) => {}
                Err(LedgerError::Conflict) => inner.ask_rescan(),
                Err(error) => return Err(error),
            }
        }
        let is_carried_out = self.carry_out(&plan, &reading.desired.announcements, &known, now).await?;
        if plan.actions.iter().any(|action| action.goes_on(now)) {
            inner.ask_rescan();
        }
        // An entry that could not be read has its hours by the old one still.
        let is_read = !reading.desired.folder_gone
            && reading.desired.standing.is_empty()
            && reading.desired.unread_files.is_empty()
            && reading.desired.unread_folders.is_empty();
        if is_carried_out && is_read && earlier.zone.as_deref() != Some(zone.name()) {
            let named = Change::Meta { key: ZONE.to_owned(), value: Some(zone.name().to_owned()) };
            inner.ledger.commit(&Actor::Queue, vec![named]).await?;
        }
        let is_whole = is_carried_out && !reading.desired.folder_gone;
        if is_whole && is_read && self.stillness.over.is_none() {
            note_caught_up(&inner).await?;
        }
        Ok(is_whole)
    }

    /// Shows a person this reading, and asks about what is gone unless that was asked `before`.
    async fn note(&self, reading: &Reading, plan: &Plan, before: Option<&str>) -> Result<(), LedgerError> {
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
        // Compared with the ledger: after a start nothing is in memory, and the question may be over.
        lock(&self.inner.state).prune.clone_from(&plan.blocked);
        let waiting = plan.blocked.as_ref().map(waiting);
        let asks = waiting.as_ref().map(ToString::to_string);
        if before != asks.as_deref() {
            let mut changes = vec![Change::Meta { key: PRUNE.to_owned(), value: asks }];
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

    /// Whether all of it was written; what met another change is asked for again.
    async fn carry_out(
        &self,
        plan: &Plan,
        desired: &BTreeMap<AnnouncementId, Announcement>,
        known: &Known,
        now: Time,
    ) -> Result<bool, LedgerError> {
        let mut is_whole = true;
        for action in &plan.actions {
            let row = |id: &AnnouncementId| known.announcements[id].row.clone();
            let next = |row: AnnouncementRow| {
                Change::Announcement(Box::new(AnnouncementRow { version: row.version + 1, ..row }))
            };
            let changes = match action {
                Action::Put { id, occurrences, is_new, planned_to } => {
                    let known = known.announcements.get(id);
                    self.put(&desired[id], known, occurrences, (*is_new, *planned_to), now).await?
                }
                Action::Moved(id) => {
                    let (file, line) = (desired[id].file.clone(), desired[id].line as i64);
                    vec![next(AnnouncementRow { file, line, ..row(id) })]
                }
                Action::EditedAfterPublication(id, hash) => {
                    tracing::warn!(announcement = %id, "edited after publication: what is out stays as it is");
                    let edited = AnnouncementRow { edited: Some(hash.clone()), planned_to: None, ..row(id) };
                    vec![next(edited), Note::change("edited_after_publication", id, json!({ "content": hash }))]
                }
                Action::Withdraw(id) => {
                    let gone = AnnouncementRow { withdrawn: Some(Withdrawal::Queue), ..row(id) };
                    vec![next(gone), removed(vec![id.clone()]), Note::change("withdrawn", id, json!({ "by": "queue" }))]
                }
                Action::Reschedule(id, occurrences) => {
                    let of = |occurrence: &OccurrenceId| {
                        let why = Words::new("不再有这个时刻", "it no longer has this hour");
                        let (posts, occurrence) = (vec![id.clone()], Some(occurrence.clone()));
                        let (reach, desired, cause) = (Reach::Unreleased, Desired::Stopped, Cause::Rescheduled);
                        Change::Stop(Box::new(Stop { posts, occurrence, account: None, reach, desired, cause, why }))
                    };
                    occurrences.iter().map(of).collect()
                }
            };
            if changes.is_empty() {
                continue;
            }
            match self.inner.commit(&Actor::Queue, changes).await {
                Ok(_) => {}
                // Something moved meanwhile: it is compared again at the next look.
                Err(LedgerError::Conflict) => {
                    is_whole = false;
                    self.inner.ask_rescan();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(is_whole)
    }

    async fn put(
        &self,
        announcement: &Announcement,
        known: Option<&KnownAnnouncement>,
        occurrences: &[(OccurrenceId, Time)],
        (is_new, planned_to): (bool, Option<Time>),
        now: Time,
    ) -> Result<Vec<Change>, LedgerError> {
        let content = &announcement.content;
        let hash = content.hash();
        let before = known.map(|k| &k.row);
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
            ended: before.and_then(|b| b.ended.clone()),
            version: before.map_or(1, |b| b.version + 1),
        };
        let mut changes =
            vec![Change::Content(hash.clone(), Box::new(content.clone())), Change::Announcement(Box::new(row))];
        for (occurrence, release) in occurrences {
            let has_begun =
                self.occurrence(announcement, known, &hash, (occurrence, *release), now, &mut changes).await?;
            if has_begun && planned_to.is_none() {
                // Its release has begun since it was compared: then it was edited after publication.
                self.inner.ask_rescan();
                return Ok(Vec::new());
            }
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
                self.inner.keep_pictures(&content.body.images).await;
            }
        }
        Ok(changes)
    }

    /// New rows for accounts that have none, an edit for those that can still change, a withdrawal for those the
    /// announcement no longer names; nothing at all, and `true`, once its release has begun.
    async fn occurrence(
        &self,
        announcement: &Announcement,
        known: Option<&KnownAnnouncement>,
        hash: &ContentHash,
        (occurrence, release): (&OccurrenceId, Time),
        now: Time,
        changes: &mut Vec<Change>,
    ) -> Result<bool, LedgerError> {
        let inner = &self.inner;
        let (content, config) = (&announcement.content, inner.config());
        // An announcement that is read for the first time has none.
        let existing = match known {
            Some(_) => inner.ledger.of_occurrence(occurrence.clone()).await?,
            None => Vec::new(),
        };
        if existing.iter().any(Delivery::has_begun) && !crate::planted("edit_splits_a_release") {
            return Ok(true);
        }
        let lasts_until = |at: Time| expiry(&content.body, at, &config.settings.publish);
        // A hold kept it back, and it was out of the queue meanwhile.
        let came_over =
            |d: &Delivery| !d.is_pending() && inner.came_over(d, release, lasts_until(release), &content.body);
        let is_kept = existing.iter().any(|d| d.is_pending() || came_over(d));
        // An hour of a repeat that it missed while it was taken out is not made up.
        if content.is_repeat() && release < now && !existing.is_empty() && !is_kept {
            return Ok(false);
        }
        // What goes "at once" and is put back after its first hour goes as soon as it is read, unless a hold kept it back.
        let is_back = known.is_some_and(|k| k.row.withdrawn == Some(Withdrawal::Queue));
        let is_over = lasts_until(release).is_some_and(|end| end < now);
        let goes_anew = content.body.timing == Timing::Now && is_back && is_over && !is_kept;
        let release = if goes_anew { now + plan::AT_ONCE } else { release };
        let expires_at = lasts_until(release);
        changes.push(Change::Occurrence {
            id: occurrence.clone(),
            announcement: announcement.id.clone(),
            content: hash.clone(),
            release,
        });
        let is_same_hour = known.and_then(|k| k.occurrences.get(occurrence)).is_some_and(|k| k.release == release);
        for d in &existing {
            // A person who let it go, or had it tried again, gave it a later instant than its file.
            let at = if is_same_hour && d.is_pending() { d.at.max(release) } else { release };
            let event = if !content.accounts.contains(&d.account) {
                let (cause, why) = match config.city.is_resting(&d.account) {
                    true => (Cause::Closed, Words::new("账号已停用", "its account is suspended or closed")),
                    false => (Cause::Unaddressed, Words::new("不再发给这个账号", "no longer sent to this account")),
                };
                Event::Withdrawn { desired: Desired::Stopped, cause, why }
            } else if d.content == *hash && d.at == at && d.is_pending() {
                changes.push(Change::Expect(d.id, d.fence));
                continue;
            } else {
                let held_until = held_expiry(at, &content.body);
                // A post that a hold kept back lasts by its own `expires_after`.
                let expires_at = if came_over(d) { held_until } else { lasts_until(at) };
                let doubt = self.doubt(announcement, at);
                let (content, priority) = (hash.clone(), content.body.priority);
                Event::Edited(Edit { content, priority, at, expires_at, held_until, doubt })
            };
            changes.push(match inner.computed(d, event) {
                Ok(step) => Change::Step(Box::new(step)),
                // It cannot be changed any more, and that was decided on what it is now.
                Err(_) => Change::Expect(d.id, d.fence),
            });
        }
        let has: BTreeSet<_> = existing.iter().map(|d| &d.account).collect();
        let missed = expires_at.is_some_and(|e| e < now);
        if missed && existing.is_empty() {
            let (id, at) = (&announcement.id, release.to_rfc3339());
            tracing::warn!(announcement = %id, at, "already past when first seen, and not published");
            changes.push(Note::change("missed", occurrence, json!({ "at": at })));
        }
        let is_overtaken = |account: &AccountId| {
            known.is_some_and(|k| k.superseded.contains(account)) && !crate::planted("superseded_goes_on")
        };
        for account in content.accounts.iter().filter(|a| !has.contains(a) && !is_overtaken(a)) {
            let doubt = self.doubt(announcement, release);
            let mut d =
                new_delivery(&announcement.id, content.body.priority, hash, occurrence, account, release, expires_at);
            // Its siblings are kept back by a hold, and so is this one: it lasts as they do.
            let is_kept = !existing.is_empty() && inner.came_over(&d, release, expires_at, &content.body);
            if is_kept {
                d.expires_at = held_expiry(release, &content.body);
            }
            if missed && !is_kept {
                d.state = State::Expired;
                d.next_at = None;
                d.reason = Some(Words::new("首次读到时已经过时", "already past when it was first seen"));
            } else if doubt != Doubt::None {
                d.state = State::Unknown;
                d.come_into(doubt, hash);
                if content.body.timing == Timing::Now {
                    d.begun_at = Some(self.may_have_gone(announcement, release));
                }
                d.next_at = Some(now);
                d.reason = Some(Words::new(
                    "启动时首次读到，先查是否已发",
                    "first read at a start: looking whether it is out already",
                ));
            }
            changes.push(Change::Add(Box::new(d)));
        }
        Ok(false)
    }

    /// Whether another process may have published it before this one began, for all this ledger knows: its instant was
    /// over by then, or it goes as soon as it is read and was there to be read.
    fn doubt(&self, announcement: &Announcement, release: Time) -> Doubt {
        let started = self.inner.started;
        let goes_at_once = announcement.content.body.timing == Timing::Now;
        let was_there = self.is_first
            || self.stillness.was_there.contains(&announcement.id)
            || announcement.saved.is_none_or(|at| at <= started);
        match release <= started || goes_at_once && was_there {
            _ if crate::planted("start_without_doubt") => Doubt::None,
            false => Doubt::None,
            // Of a new ledger nobody knows what there was before it.
            true if self.inner.trust == Trust::Whole => Doubt::OneLook,
            true => Doubt::Settling,
        }
    }

    /// The earliest at which another process may have sent what goes as soon as it is read: when its file was last
    /// changed; and where this ledger is not the one that was there, files may have been copied back since.
    fn may_have_gone(&self, announcement: &Announcement, release: Time) -> Time {
        let saved = announcement.saved.map_or(release, |saved| saved.min(release));
        if self.inner.trust == Trust::Whole { saved } else { saved.min(release - COPIED_BACK) }
    }
}

impl Inner {
    /// The folder's wishes compared with the ledger. Repeats that stay in force as the ledger has them are wanted too.
    async fn planned(
        &self,
        desired: &mut plan::Desired,
        now: Time,
        rules: &plan::Rules<'_>,
    ) -> Result<(Plan, Known), LedgerError> {
        let ids = desired.announcements.keys().chain(&desired.standing).cloned().collect();
        let known = self.ledger.known(ids, now - COMPARED).await?;
        let mut plan = plan::plan(desired, &known, now, rules);
        for kept in plan::kept(&plan, desired, &known) {
            let row = &kept.row;
            let content = (*self.content(&row.content).await?).clone();
            let (id, file, line) = (row.id.clone(), row.file.clone(), row.line as usize);
            let announcement = Announcement { id: id.clone(), file, line, content, saved: None, says_now: false };
            if let Some(action) = plan::carry_on(&announcement, kept, now, rules) {
                plan.actions.push(action);
                desired.announcements.insert(id, announcement);
            }
        }
        Ok((plan, known))
    }

    /// What would be done now, and what goes out within the coming day; nothing is written.
    pub async fn plan_now(&self) -> Result<answers::Plan, LedgerError> {
        // Each is a reading of the whole queue: so many at once as leave a core to those who send.
        let _turn = self.looks.acquire().await;
        let (config, now) = (self.config(), self.clock.now());
        let mut reading = self.read_queue(now).await?;
        let earlier = self.earlier().await?;
        let rules = earlier.rules(&config.settings);
        let (plan, _) = self.planned(&mut reading.desired, now, &rules).await?;
        let (coming, left_out) = self.ledger.coming(now, now + WRITTEN_AHEAD).await?;
        Ok(answers::Plan {
            changes: plan.actions.iter().map(answers::Planned::of).collect(),
            awaiting_prune: plan.blocked.as_ref().map(answers::Pruning::of),
            coming: coming.iter().map(answers::Occurrence::of).collect(),
            left_out,
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
        cause: None,
        desired: Desired::Published,
        attempt: 0,
        looks: 0,
        misses: 0,
        begun_at: None,
        called_duplicate: false,
        doubted: None,
        one_look: false,
        needs_person: false,
        prepared: None,
        receipt: None,
        class: None,
        reason: None,
        lateness_ms: None,
        fence: 0,
    }
}
