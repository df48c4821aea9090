//! Files in which a person may be typing: what goes at once waits until its file has been left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::{Mono, Time};
use crate::core::announcement::{Announcement, AnnouncementId, Timing};
use crate::core::plan::Desired;

/// Since when each file with something that goes at once has been as it is, as far as this process has seen: a person may
/// be typing in it still. By the clock that does not step; a file's own time only tells that it is another one.
#[derive(Default)]
pub struct Stillness {
    since: BTreeMap<String, (Option<Time>, Mono)>,
    /// When the first of them has been left alone for long enough.
    pub over: Option<Mono>,
    /// Of the first reading: another process may have published them.
    pub was_there: BTreeSet<AnnouncementId>,
}

impl Stillness {
    /// Takes out of a reading what goes at once and whose file may not be finished: what the ledger has of it stays.
    pub fn hold_back(&mut self, desired: &mut Desired, settle: Duration, now: Mono, is_first: bool) {
        let mut waiting: BTreeMap<&String, Option<Time>> = BTreeMap::new();
        let goes_at_once = |a: &&Announcement| a.content.body.timing == Timing::Now && !a.says_now;
        for announcement in desired.announcements.values().filter(goes_at_once) {
            waiting.insert(&announcement.file, announcement.saved);
        }
        self.since.retain(|file, (saved, _)| waiting.get(file) == Some(saved));
        for (file, saved) in waiting {
            self.since.entry(file.clone()).or_insert((saved, now));
        }
        let until = |a: &Announcement| self.since.get(&a.file).map(|(_, since)| Mono(since.0 + settle));
        let early: Vec<(AnnouncementId, Mono)> = (desired.announcements.values().filter(goes_at_once))
            .filter_map(|a| until(a).filter(|until| *until > now).map(|until| (a.id.clone(), until)))
            .collect();
        self.over = early.iter().map(|(_, until)| *until).min();
        for (id, _) in early {
            desired.announcements.remove(&id);
            if is_first {
                self.was_there.insert(id.clone());
            }
            desired.standing.insert(id);
        }
    }
}
