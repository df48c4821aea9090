//! Desired against known: what the ledger has to take over from the queue folder.
//!
//! The folder is a wish and the ledger the truth, so nothing here can publish again what was
//! published, and nothing that looks like an accident (a folder gone, a mass of announcements
//! vanished) cancels anything before a person has said so.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use chrono_tz::Tz;
use sha2::{Digest, Sha256};

use super::Time;
use super::accounts::AccountId;
use super::announcement::{Announcement, AnnouncementId, ContentHash, OccurrenceId, Timing};
use super::change::{AnnouncementRow, Withdrawal};
use super::policy::Publish;
use super::repeat;

/// How far ahead a repeat's occurrences are written into the ledger.
pub const AHEAD: TimeDelta = TimeDelta::hours(24);
/// Written ahead in steps, so that a scan each few seconds does not become a commit each few seconds.
const WRITTEN: TimeDelta = TimeDelta::minutes(24 * 60 - 10);
/// What is to go "as soon as it is read" goes this much later, all accounts at one instant.
pub const AT_ONCE: TimeDelta = TimeDelta::seconds(1);
/// So many announcements may be withdrawn at once without a question, whatever share they are.
const FEW: usize = 5;
/// A repeat of every second has 86,400 occurrences a day; more than this in a day is refused by `check`.
const MOST_OCCURRENCES: usize = 90_000;
/// So many occurrences of one repeat are written at a time: whatever else is in the folder does not wait for its whole day.
const PIECE: usize = 2_000;

/// What the queue folder wants.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    pub announcements: BTreeMap<AnnouncementId, Announcement>,
    /// Named by an entry that could not be read: what the ledger has of them stays in force.
    pub standing: BTreeSet<AnnouncementId>,
    /// Files of which nothing could be read; all that came from them stays in force.
    pub unread_files: BTreeSet<String>,
    /// Folders below the queue's that could not be read, or are links, each with a slash at its end.
    pub unread_folders: BTreeSet<String>,
    /// The folder itself is missing, unreadable, or not a folder.
    pub folder_gone: bool,
}

impl Desired {
    /// Whether nobody knows what this file says now.
    pub fn is_unread(&self, file: &str) -> bool {
        self.unread_files.contains(file) || self.unread_folders.iter().any(|folder| file.starts_with(folder))
    }
}

/// What the ledger has.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub announcements: BTreeMap<AnnouncementId, KnownAnnouncement>,
}

#[derive(Clone, Debug)]
pub struct KnownAnnouncement {
    pub row: AnnouncementRow,
    pub occurrences: BTreeMap<OccurrenceId, KnownOccurrence>,
    /// Accounts on which a newer post has taken its place.
    pub superseded: BTreeSet<AccountId>,
    /// Something of it was out already, however long ago.
    pub was_out: bool,
}

/// The occurrences by their hours, whatever their names: an hour is named by itself in a repeat and by the announcement
/// otherwise, and by the zone of its day.
struct Hours<'a> {
    known: &'a KnownAnnouncement,
    by_hour: BTreeMap<Time, (&'a OccurrenceId, &'a KnownOccurrence)>,
}

impl<'a> Hours<'a> {
    fn of(known: &'a KnownAnnouncement) -> Hours<'a> {
        let mut by_hour = BTreeMap::new();
        for (name, k) in &known.occurrences {
            // One that is out, or that a person stopped, decides for its hour.
            let standing = by_hour.entry(k.release).or_insert((name, k));
            if k.decides() && !standing.1.decides() {
                *standing = (name, k);
            }
        }
        Hours { known, by_hour }
    }

    fn has(&self, at: Time) -> bool {
        self.by_hour.contains_key(&at)
    }

    /// The name under which an hour goes on.
    fn name_of(&self, wanted: OccurrenceId, at: Time) -> OccurrenceId {
        match self.by_hour.get(&at) {
            Some((name, k)) if k.decides() || !self.known.occurrences.contains_key(&wanted) => (*name).clone(),
            _ => wanted,
        }
    }
}

#[derive(Clone, Debug)]
pub struct KnownOccurrence {
    pub release: Time,
    /// A person cancelled this occurrence: no file brings it back.
    pub is_stopped: bool,
    /// Deliveries of which nothing has reached a platform, as far as this ledger knows.
    pub pending: u32,
    /// Deliveries that ended without being tried.
    pub ended: u32,
    /// Of those, what the queue took out with its entry or its account, and may put back.
    pub taken_out: u32,
    /// Deliveries that were sent, or tried.
    pub out: u32,
}

impl KnownOccurrence {
    /// Whether its release has begun: from then on the queue changes nothing of it.
    fn is_released(&self) -> bool {
        self.out > 0 && !crate::planted("edit_splits_a_release")
    }

    /// Nothing the queue says later changes what becomes of its hour.
    fn decides(&self) -> bool {
        self.is_released() || self.is_stopped
    }

    fn is_waiting(&self) -> bool {
        self.pending > 0 && !self.is_released()
    }

    /// Whether something of it waits, or would wait if it had not been taken out.
    fn may_wait(&self) -> bool {
        self.is_waiting() || self.taken_out > 0 && !self.decides()
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write the announcement's present version, and these occurrences with it.
    Put { id: AnnouncementId, occurrences: Vec<(OccurrenceId, Time)>, is_new: bool, planned_to: Option<Time> },
    /// The announcement is where it is in the folder now; nothing else changed.
    Moved(AnnouncementId),
    /// The posts that are out stay as they are; a repeat that it was is over.
    EditedAfterPublication(AnnouncementId, ContentHash),
    /// The folder no longer has it.
    Withdraw(AnnouncementId),
    /// Its repeat no longer has these hours.
    Reschedule(AnnouncementId, Vec<OccurrenceId>),
}

impl Action {
    /// Whether more of the same is to be written as soon as everything else has been looked at.
    pub fn goes_on(&self, now: Time) -> bool {
        matches!(self, Action::Put { planned_to: Some(to), .. } if *to <= now + WRITTEN)
    }
}

/// A withdrawal that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prune {
    pub hash: String,
    pub announcements: Vec<AnnouncementId>,
}

#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub blocked: Option<Prune>,
    /// Announcements that a person has refused to withdraw and that are still gone, and would still go out.
    pub refused: BTreeSet<AnnouncementId>,
}

/// What decides besides the two sides.
pub struct Rules<'a> {
    pub publish: &'a Publish,
    pub zone: Tz,
    /// Another one than that in which repeats were written ahead.
    pub is_new_zone: bool,
    /// Announcements that a person is asked about, until there is an answer or they are back.
    pub asked: &'a BTreeSet<AnnouncementId>,
    /// Announcements that a person has refused to withdraw.
    pub refused: &'a BTreeSet<AnnouncementId>,
}

pub fn plan(desired: &Desired, known: &Known, now: Time, rules: &Rules<'_>) -> Plan {
    let mut plan = Plan::default();
    for (id, announcement) in &desired.announcements {
        match known.announcements.get(id) {
            None => plan.actions.push(first_seen(announcement, now, rules)),
            Some(known) => plan.actions.extend(compared(announcement, known, now, rules)),
        }
    }
    withdraw(&mut plan, desired, known, rules);
    plan
}

fn first_seen(announcement: &Announcement, now: Time, rules: &Rules<'_>) -> Action {
    let id = &announcement.id;
    let occurrences = wanted(announcement, now, now, rules, PIECE);
    let planned_to = announcement.content.is_repeat().then(|| written_to(&occurrences, now));
    Action::Put { id: id.clone(), occurrences, is_new: true, planned_to }
}

/// The instant up to which a repeat is written with these occurrences: a day ahead, or their last when they are a piece.
fn written_to(occurrences: &[(OccurrenceId, Time)], now: Time) -> Time {
    let last = occurrences.last().filter(|_| occurrences.len() >= PIECE);
    last.map_or(now + AHEAD, |(_, at)| *at)
}

/// The first occurrences, so many at most, that an announcement wants between an instant and a day from now.
fn wanted(
    announcement: &Announcement,
    since: Time,
    now: Time,
    rules: &Rules<'_>,
    most: usize,
) -> Vec<(OccurrenceId, Time)> {
    let id = &announcement.id;
    match &announcement.content.body.timing {
        // Long enough for all its accounts to be prepared and armed, so that they go together.
        Timing::Now => vec![(OccurrenceId::once(id), now + AT_ONCE)],
        Timing::At(at) => vec![(OccurrenceId::once(id), *at)],
        Timing::Repeat(repeat) => repeat::occurrences(repeat, rules.zone, since, now + AHEAD, most)
            .into_iter()
            .map(|at| (OccurrenceId::at(id, at, rules.zone), at))
            .collect(),
    }
}

fn compared(announcement: &Announcement, known: &KnownAnnouncement, now: Time, rules: &Rules<'_>) -> Vec<Action> {
    let (id, row) = (&announcement.id, &known.row);
    if row.file.is_empty() {
        // It came over the socket: no file touches it. The reading has a fault for this one.
        return Vec::new();
    }
    let is_back = match row.withdrawn {
        // A person cancelled it: an edit of the file does not bring it back.
        Some(Withdrawal::Person(_)) => return Vec::new(),
        Some(Withdrawal::Queue) => true,
        None => false,
    };
    let content = announcement.content.hash();
    // Corrected, or over: no edit and no account that is opened sends any more of it.
    let is_over = row.ended.is_some();
    // A repeat that was something else meanwhile, or is counted by another clock, has other hours than were written.
    let is_repeat = announcement.content.is_repeat();
    let is_other = is_repeat && (row.planned_to.is_none() || rules.is_new_zone);
    if is_over || content == row.content && !is_back && !is_other {
        let goes_on = if is_repeat && !is_over { carry_on(announcement, known, now, rules) } else { None };
        let moved = (row.file != announcement.file).then(|| Action::Moved(id.clone()));
        return goes_on.or(moved).into_iter().collect();
    }
    changed(announcement, known, &content, now, rules)
}

/// A repeat that has not changed: the coming day, and of what was missed the newest.
pub fn carry_on(
    announcement: &Announcement,
    known: &KnownAnnouncement,
    now: Time,
    rules: &Rules<'_>,
) -> Option<Action> {
    let planned_to = written_before(known);
    if planned_to > now + WRITTEN {
        return None;
    }
    let mut occurrences: Vec<_> = missed(announcement, known, now, rules).into_iter().collect();
    let coming = wanted(announcement, planned_to.max(now), now, rules, PIECE);
    let planned_to = Some(written_to(&coming, now));
    occurrences.extend(coming);
    let hours = Hours::of(known);
    occurrences.retain(|(o, at)| !known.occurrences.contains_key(o) && !hours.has(*at));
    Some(Action::Put { id: announcement.id.clone(), occurrences, is_new: false, planned_to })
}

/// The instant up to which a repeat was written before.
fn written_before(known: &KnownAnnouncement) -> Time {
    known.row.planned_to.unwrap_or(known.row.first_seen)
}

/// The newest hour of a repeat that came after all that was written of it, and that is not too late.
fn missed(
    announcement: &Announcement,
    known: &KnownAnnouncement,
    now: Time,
    rules: &Rules<'_>,
) -> Option<(OccurrenceId, Time)> {
    let Timing::Repeat(repeat) = &announcement.content.body.timing else { return None };
    let since = Some(written_before(known)).filter(|since| *since < now)?;
    let lasts = announcement.content.body.lasts(rules.publish);
    let within = lasts.and_then(|l| TimeDelta::from_std(l).ok()).unwrap_or(AHEAD);
    let at = repeat::missed(repeat, rules.zone, since, now, within)?;
    Some((OccurrenceId::at(&announcement.id, at, rules.zone), at))
}

fn changed(
    announcement: &Announcement,
    known: &KnownAnnouncement,
    content: &ContentHash,
    now: Time,
    rules: &Rules<'_>,
) -> Vec<Action> {
    let id = &announcement.id;
    let mut actions = Vec::new();
    let hours = Hours::of(known);
    let named = |(o, at): (OccurrenceId, Time)| (hours.name_of(o, at), at);
    let mut occurrences = wanted(announcement, now, now, rules, MOST_OCCURRENCES);
    if announcement.content.body.timing != Timing::Now {
        occurrences = occurrences.into_iter().map(named).collect();
    }
    if !announcement.content.is_repeat() && is_after_publication(&occurrences, known, now) {
        let same_words = announcement.content.body.hash() == known.row.body;
        let was_repeat = known.row.planned_to.is_some();
        if (!same_words || was_repeat) && known.row.edited.as_ref() != Some(content) {
            actions.push(Action::EditedAfterPublication(id.clone(), content.clone()));
        }
        let none = BTreeSet::new();
        actions.extend(rescheduled(id, known, &none, now));
        return actions;
    }
    // A post that wants to go "now" keeps its first hour while something of it waits, or would if it had not been taken out. Once it
    // has ended other words are wanted now; the same words for other accounts have had their hour.
    if announcement.content.body.timing == Timing::Now {
        let same_words = announcement.content.body.hash() == known.row.body;
        for (o, at) in &mut occurrences {
            let may_wait = |k: &KnownOccurrence| k.pending > 0 || k.taken_out > 0 && k.taken_out == k.ended;
            if let Some(k) = known.occurrences.get(o).filter(|k| may_wait(k) || same_words) {
                *at = k.release;
            }
        }
    }
    // Deliveries of an hour that has come, held back or not yet sent at all, go in the new words too; so do those that
    // were held back and taken out for a while.
    if announcement.content.is_repeat() && !crate::planted("held_in_old_words") {
        let came = known.occurrences.iter().filter(|(_, k)| k.may_wait() && k.release < now);
        occurrences.extend(came.map(|(o, k)| (o.clone(), k.release)));
    }
    // Edited during a pause, it has missed what it would have missed unchanged.
    if known.row.withdrawn.is_none() && known.row.planned_to.is_some() {
        occurrences.extend(missed(announcement, known, now, rules).map(named));
    }
    let wanted_ids: BTreeSet<OccurrenceId> = occurrences.iter().map(|(o, _)| o.clone()).collect();
    occurrences.retain(|(o, _)| known.occurrences.get(o).is_none_or(|k| !k.is_released() && !k.is_stopped));
    actions.extend(rescheduled(id, known, &wanted_ids, now));
    let planned_to = announcement.content.is_repeat().then_some(now + AHEAD);
    actions.push(Action::Put { id: id.clone(), occurrences, is_new: false, planned_to });
    actions
}

/// Whether it was published already, for all its file says now: its own hour is out, by whatever name, or it would be sent
/// at once after having spoken. To what is still a repeat, or has an hour to come, another hour to come is another one.
fn is_after_publication(wanted: &[(OccurrenceId, Time)], known: &KnownAnnouncement, now: Time) -> bool {
    let is_out = |o: &OccurrenceId| known.occurrences.get(o).is_some_and(KnownOccurrence::is_released);
    let is_done = known.row.planned_to.is_none() && !known.occurrences.values().any(KnownOccurrence::is_waiting);
    wanted.iter().any(|(o, at)| is_out(o) || known.was_out && (is_done || *at <= now + AT_ONCE))
}

/// The hours to come that are written and not wanted any more. One that has come belongs to its release: its accounts that
/// are late still go, or wait for a person.
fn rescheduled(
    id: &AnnouncementId,
    known: &KnownAnnouncement,
    wanted: &BTreeSet<OccurrenceId>,
    now: Time,
) -> Option<Action> {
    let is_coming = |k: &KnownOccurrence| k.is_waiting() && k.release > now;
    let gone = known.occurrences.iter().filter(|(o, k)| is_coming(k) && !wanted.contains(*o)).map(|(o, _)| o.clone());
    let gone: Vec<OccurrenceId> = gone.collect();
    (!gone.is_empty()).then(|| Action::Reschedule(id.clone(), gone))
}

/// Repeats that stay in force as the ledger has them, because what the folder says of them cannot be read, or is missed and
/// no person has said that it is gone: they go on.
pub fn kept<'a>(plan: &Plan, desired: &Desired, known: &'a Known) -> Vec<&'a KnownAnnouncement> {
    let is_withdrawn =
        |id: &AnnouncementId| plan.actions.iter().any(|a| matches!(a, Action::Withdraw(gone) if gone == id));
    let is_in_force = |k: &&KnownAnnouncement| {
        let is_repeat = k.row.planned_to.is_some() && k.row.withdrawn.is_none() && k.row.ended.is_none();
        // One that was taken out of the folder while nothing of it waited has left no trace of that.
        let is_there = desired.standing.contains(&k.row.id) || k.occurrences.values().any(KnownOccurrence::is_waiting);
        is_repeat && is_there && !desired.announcements.contains_key(&k.row.id) && !is_withdrawn(&k.row.id)
    };
    known.announcements.values().filter(is_in_force).collect()
}

/// Withdraws announcements that are gone from the folder; many at once only after a person has said so. Each that is asked
/// about stays so until it is answered or back, however few are left; each that was refused is kept until it is back.
fn withdraw(plan: &mut Plan, desired: &Desired, known: &Known, rules: &Rules<'_>) {
    let waits =
        |k: &&KnownAnnouncement| k.row.withdrawn.is_none() && k.occurrences.values().any(KnownOccurrence::is_waiting);
    let waiting: BTreeMap<&AnnouncementId, &KnownAnnouncement> =
        known.announcements.iter().filter(|(_, k)| waits(k)).collect();
    let is_back = |id: &AnnouncementId| desired.announcements.contains_key(id);
    plan.refused = rules.refused.iter().filter(|id| waiting.contains_key(id) && !is_back(id)).cloned().collect();
    let gone: Vec<AnnouncementId> = waiting
        .values()
        .filter(|k| !k.row.file.is_empty())
        .filter(|k| !is_back(&k.row.id) && !desired.standing.contains(&k.row.id))
        .filter(|k| !desired.is_unread(&k.row.file))
        .map(|k| k.row.id.clone())
        .filter(|id| !plan.refused.contains(id))
        .collect();
    if gone.is_empty() {
        return;
    }
    let emptied = desired.folder_gone || desired.announcements.is_empty() && desired.standing.is_empty();
    let (mut open, more): (Vec<_>, Vec<_>) = gone.into_iter().partition(|id| rules.asked.contains(id));
    let many = more.len() > FEW && more.len() as f64 > rules.publish.max_cancel * waiting.len() as f64;
    if emptied || many {
        open.extend(more);
        open.sort();
    } else {
        plan.actions.extend(more.into_iter().map(Action::Withdraw));
    }
    if !open.is_empty() {
        plan.blocked = Some(Prune { hash: prune_hash(&open), announcements: open });
    }
}

fn prune_hash(ids: &[AnnouncementId]) -> String {
    let mut hasher = Sha256::new();
    for id in ids {
        hasher.update(id.as_str().as_bytes());
        hasher.update([0]);
    }
    hex::encode(&hasher.finalize()[..8])
}

#[cfg(test)]
mod tests;
