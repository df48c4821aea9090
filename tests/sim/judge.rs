//! The promises, held against the platforms' own records and against what each person was answered.
//!
//! The judge believes nothing the daemon keeps: the ledger is only asked whether it says what is so.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use fabu::clock::Time;
use fabu::core::change::{GENESIS, Recorded};
use fabu::core::delivery::{Delivery, State};
use fabu::sandbox::Post;
use serde_json::Value;

use super::network::{Act, Entry, Kind, Mark, What};
use super::people::{CATCH_UP, Season, Version, When, is_of_the_hour, means};
use super::world::{World, all_accounts};

/// A save takes effect within a second; the folder is looked at every five, and what is armed goes.
const READ: TimeDelta = TimeDelta::seconds(12);
/// Longer than any platform is looked at before an absence is believed.
const SETTLED: TimeDelta = TimeDelta::seconds(420);

/// One occurrence on one account: an announcement, and of one that repeats the hour.
type Place = (String, String, Option<Time>);

pub struct Judge<'a> {
    seed: u64,
    season: Season,
    world: &'a World,
    pub record: Vec<Entry>,
    posts: Vec<Post>,
    rows: Vec<Delivery>,
    pub events: Vec<Recorded>,
    versions: BTreeMap<String, Vec<(usize, Option<Version>)>>,
}

/// A request that made a post, or tried to.
#[derive(Clone, Debug)]
struct Begun<'a> {
    place: usize,
    entry: &'a Entry,
    account: &'a str,
    mark: &'a Mark,
}

impl<'a> Judge<'a> {
    pub async fn new(world: &'a World, season: Season, seed: u64) -> Judge<'a> {
        let daemon = &world.process.as_ref().unwrap().daemon;
        let (record, posts) = (world.history.all(), world.sandbox.posts());
        let rows = crate::support::all(daemon).await;
        let events = daemon.inner.ledger.events(0, 10_000_000).await.unwrap();
        let mut versions: BTreeMap<String, Vec<(usize, Option<Version>)>> = BTreeMap::new();
        for (place, entry) in record.iter().enumerate() {
            if let What::Saved { id, version } = &entry.what {
                versions.entry(id.clone()).or_default().push((place, version.clone()));
            }
        }
        Judge { seed, season, world, record, posts, rows, events, versions }
    }

    pub fn judge(&self) {
        self.nothing_is_twice();
        self.the_ledger_says_what_is_so();
        self.what_was_stopped_stays_stopped();
        self.holds_are_obeyed();
        self.nobody_speaks_alone();
        self.an_emergency_waits_for_nothing();
        self.nothing_is_early_or_late();
        self.one_version_of_each_occurrence();
        self.closing_words_go_where_they_belong();
        self.what_was_superseded_is_gone();
        self.answers_are_true();
        self.nothing_is_lost();
        self.late_ones_are_not_dropped();
        self.the_record_is_whole();
    }

    #[track_caller]
    fn holds(&self, holds: bool, said: impl FnOnce() -> String) {
        assert!(holds, "seed {}: {}\n{:?}", self.seed, said(), self.season);
    }

    fn begun(&self) -> impl Iterator<Item = Begun<'_>> {
        self.record.iter().enumerate().filter_map(|(place, entry)| match &entry.what {
            What::Begun { account, mark } => Some(Begun { place, entry, account, mark }),
            _ => None,
        })
    }

    /// Posts of the queue (`a`) or of the socket (`u`), without the closing words that quote them.
    fn begun_of(&self, first: char) -> impl Iterator<Item = Begun<'_>> {
        self.begun().filter(move |b| b.mark.kind == Kind::Own && b.mark.id.starts_with(first))
    }

    /// The acts that were answered: where each was asked, where it was answered and what.
    fn answered(&self) -> impl Iterator<Item = (usize, usize, &Act, u16, &Value)> {
        self.record.iter().enumerate().filter_map(|(place, entry)| match &entry.what {
            What::Answered { call, act, status, body } => Some((*call, place, act, *status, body)),
            _ => None,
        })
    }

    fn asked(&self) -> impl Iterator<Item = (usize, &Act)> {
        self.record.iter().enumerate().filter_map(|(place, entry)| match &entry.what {
            What::Asked { act, .. } => Some((place, act)),
            _ => None,
        })
    }

    /// Whether the ledger that knew of what was written at this place was put back to before it later on.
    fn is_forgotten(&self, place: usize, by: usize) -> bool {
        self.record[..by].iter().skip(place).any(|e| matches!(e.what, What::Restored { to } if to <= place))
    }

    fn repeats(&self, id: &str) -> bool {
        let versions = self.versions.get(id).into_iter().flatten();
        versions.into_iter().any(|(_, v)| v.as_ref().is_some_and(|v| matches!(v.when, When::Hourly(_))))
    }

    /// The hour of a repeat that something made at this moment of the machine's clock is of.
    fn hour(&self, id: &str, made: Time) -> Option<Time> {
        if !self.repeats(id) {
            return None;
        }
        let minute = self.versions[id].iter().find_map(|(_, v)| match v.as_ref()?.when {
            When::Hourly(minute) => Some(i64::from(minute)),
            _ => None,
        })?;
        let hour = made.timestamp().div_euclid(3600) * 3600 + minute * 60;
        [hour - 3600, hour, hour + 3600]
            .into_iter()
            .map(|at| fabu::clock::from_micros(at * 1_000_000))
            .find(|at| is_of_the_hour(*at, made))
    }

    /// Of a repeat the ledger is asked whose receipt this post is, since what a person let go comes at any hour; what is
    /// nobody's receipt is of the hour in which it was made.
    fn place_of(&self, post: &Post, id: &str) -> Place {
        let is_its = |row: &&Delivery| {
            row.account.as_str() == post.account && row.receipt.as_ref().is_some_and(|r| r.post_id == post.id)
        };
        match self.rows.iter().find(is_its).filter(|_| self.repeats(id)) {
            Some(row) => self.row_place(row),
            None => (post.account.clone(), id.to_owned(), self.hour(id, self.world.history.wall_at(post.created))),
        }
    }

    /// The hour that what began is of.
    fn hour_of(&self, b: &Begun<'_>) -> Option<Time> {
        if !self.repeats(&b.mark.id) {
            return None;
        }
        let made = |p: &&Post| {
            let is_it = p.account == b.account && Mark::of(&p.text).as_ref() == Some(b.mark);
            is_it && p.created >= b.entry.truth && p.created < b.entry.truth + TimeDelta::seconds(15)
        };
        match self.posts.iter().find(made) {
            Some(post) => self.place_of(post, &b.mark.id).2,
            None => self.hour(&b.mark.id, b.entry.wall),
        }
    }

    fn row_place(&self, row: &Delivery) -> Place {
        let hour = row.occurrence.as_str().split_once('@').and_then(|(_, at)| named(at));
        (row.account.to_string(), row.announcement.to_string(), hour)
    }

    /// Own posts, by where they belong.
    fn stands(&self) -> BTreeMap<Place, Vec<&Post>> {
        let mut found: BTreeMap<Place, Vec<&Post>> = BTreeMap::new();
        for post in &self.posts {
            if let Some(Mark { kind: Kind::Own, id, .. }) = Mark::of(&post.text) {
                found.entry(self.place_of(post, &id)).or_default().push(post);
            }
        }
        found
    }

    /// R1, R10: of one occurrence an account has one post, ever.
    fn nothing_is_twice(&self) {
        for (place, posts) in self.stands() {
            // Of a text that was edited after it was out, a copy from before that knows nothing to look for.
            let texts: BTreeSet<&str> = posts.iter().map(|p| p.text.as_str()).collect();
            let posts = if self.is_restored() && texts.len() == posts.len() { &posts[..1] } else { &posts[..] };
            // Nor of one that was taken down since.
            let is_gone = |p: &&&Post| self.is_restored() && p.deleted;
            let posts: Vec<&&Post> = posts.iter().filter(|p| !is_gone(p)).collect();
            // A timeline that hides all there is cannot be told from an empty one where nothing is known to stand.
            let is_before =
                |p: &Post| p.account == place.0 && !p.deleted && posts.iter().all(|q| p.created < q.created);
            if self.season.timelines && !self.posts.iter().any(is_before) {
                continue;
            }
            self.holds(posts.len() <= 1, || format!("{place:?} was posted {} times: {posts:?}", posts.len()));
        }
        let mut closing: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for post in &self.posts {
            if Mark::of(&post.text).is_some_and(|mark| mark.kind != Kind::Own) {
                *closing.entry((&post.account, &post.text)).or_default() += 1;
            }
        }
        for ((account, text), times) in closing {
            let said =
                self.asked().filter(|(_, act)| act.path.ends_with("/correct") || act.path.ends_with("/all-clear"));
            let most = said.count();
            self.holds(times <= most, || format!("{account} was told {times} times: {text}"));
        }
    }

    fn is_restored(&self) -> bool {
        self.record.iter().any(|e| matches!(e.what, What::Restored { .. }))
    }

    /// R8, R24: at the end each row is what the platform shows, or waits for nobody.
    fn the_ledger_says_what_is_so(&self) {
        let stands = self.stands();
        let mut known: BTreeSet<Place> = BTreeSet::new();
        for row in &self.rows {
            let place = self.row_place(row);
            let is_own =
                self.versions.contains_key(row.announcement.as_str()) || !row.announcement.as_str().contains('-');
            known.insert(place.clone());
            if !is_own {
                continue;
            }
            let posts = stands.get(&place).map(Vec::as_slice).unwrap_or_default();
            // A copy from before knows nothing of what was done since: that a post is gone, that one stands.
            let right = match row.state {
                State::Published if self.is_restored() => !posts.is_empty(),
                State::Deleted | State::Cancelled | State::Expired | State::Failed if self.is_restored() => true,
                State::Published => posts.iter().any(|p| !p.deleted),
                State::Deleted => posts.iter().all(|p| p.deleted),
                State::Cancelled | State::Expired | State::Failed => posts.iter().all(|p| p.deleted),
                // Kept back by a hold without an end, or until a word comes.
                State::Held | State::Scheduled | State::Ready => posts.is_empty(),
                // To be tried again at an hour that a clock put back has ahead of it again.
                State::Retrying => posts.is_empty() && row.at > self.world.clock.now(),
                _ => false,
            };
            self.holds(right, || {
                format!("{place:?} is {:?} ({:?}, {:?}) and there is {posts:?}", row.state, row.cause, row.reason)
            });
            if let Some(receipt) = row.receipt.as_ref().filter(|r| !r.post_id.is_empty()) {
                let theirs = self.posts.iter().find(|p| p.account == place.0 && p.id == receipt.post_id);
                self.holds(theirs.is_some(), || format!("the receipt of {place:?} is no post: {receipt:?}"));
                let said = theirs.and_then(|p| Mark::of(&p.text)).map(|m| m.id);
                let is_its = said.as_deref() == Some(row.announcement.as_str());
                self.holds(is_its, || format!("the receipt of {place:?} is the post of {said:?}"));
            }
        }
        for (place, posts) in &stands {
            self.holds(known.contains(place) || self.is_restored(), || {
                format!("{posts:?} is in no row of the ledger: {place:?}")
            });
        }
    }

    /// R6: after the answer nothing of it begins.
    fn what_was_stopped_stays_stopped(&self) {
        for (_, answered, act, status, _) in self.answered().filter(|a| a.3 < 300) {
            let path = percent_encoding::percent_decode_str(&act.path).decode_utf8_lossy().into_owned();
            let parts: Vec<&str> = path.split('/').collect();
            let (stopped, what) = match parts[..] {
                ["", "v1", "announcements", id, what @ ("cancel" | "delete" | "correct" | "all-clear")] => (id, what),
                ["", "close", ..] => ("", "close"),
                _ => continue,
            };
            let account = path.strip_prefix("/close/").unwrap_or_default();
            for begun in self.begun().filter(|b| b.place > answered && b.mark.kind == Kind::Own) {
                let hour = self.hour_of(&begun);
                let is_it = match what {
                    "close" => begun.account == account && !self.is_reopened(account, answered, begun.place),
                    _ => match stopped.split_once('@') {
                        None => begun.mark.id == stopped,
                        Some((id, at)) => begun.mark.id == id && hour.is_some() && hour == named(at),
                    },
                };
                self.holds(!is_it || self.is_forgotten(answered, begun.place), || {
                    format!("{what} {stopped}{account} was answered {status}, and then {begun:?} began")
                });
            }
        }
    }

    fn is_reopened(&self, account: &str, after: usize, before: usize) -> bool {
        let open = format!("/open/{account}");
        self.asked().any(|(place, act)| place > after && place < before && act.path == open)
            // A start reads the file as it is then.
            || self.record[after..before].iter().any(|e| matches!(e.what, What::Started))
    }

    /// R5: while it holds no routine begins; what it came over goes only after a person let it.
    fn holds_are_obeyed(&self) {
        for (call, answered, act, _, body) in self.answered().filter(|a| a.3 < 300) {
            let hold = match act.path.as_str() {
                "/v1/holds" if act.method == "POST" => body,
                "/v1/urgent" if body["hold"].is_object() => &body["hold"],
                _ => continue,
            };
            let Some(name) = hold["id"].as_str() else { continue };
            let to = act.body["to"][0].as_str().unwrap_or("**");
            let until: Option<Time> = hold["until"].as_str().and_then(|at| at.parse().ok());
            let confirm_by: Option<Time> = body["confirm_by"].as_str().and_then(|at| at.parse().ok());
            // Whatever may have ended it, perhaps before its own answer was there: then nothing is asked of it any more.
            let ended = self.record.iter().enumerate().skip(call).find(|(place, e)| {
                // Right before it was stepped the clock may have shown the end.
                let shown = match e.what {
                    What::Stepped(seconds) => e.wall.max(e.wall - TimeDelta::seconds(seconds)),
                    _ => e.wall,
                };
                // Who has not given their word within a time has that time, whatever the clock shows.
                let began = &self.record[answered];
                let is_over = |by: Time| shown >= by || e.truth >= began.truth + (by - began.wall);
                let over = until.is_some_and(|until| shown >= until) || confirm_by.is_some_and(is_over);
                over || self.is_forgotten(answered, place + 1)
                    || matches!(&e.what, What::Asked { act, .. } if act.path.ends_with(name)
                        || ["correct", "all-clear", "cancel", "delete"].iter().any(|w| act.path.ends_with(w)))
            });
            let ended = ended.map_or(self.record.len(), |(place, _)| place);
            let began_at = self.record[answered].wall;
            let ended_at = self.record.get(ended).map_or(began_at, |e| e.wall).min(until.unwrap_or(Time::MAX_UTC));
            let is_routine = |b: &Begun<'_>| {
                let id = &b.mark.id;
                let versions = self.versions.get(id).into_iter().flatten();
                let plain = |v: &Version| v.level.is_none() && !v.is_exempt;
                b.mark.kind == Kind::Own && id.starts_with('a') && versions.into_iter().flat_map(|(_, v)| v).all(plain)
            };
            for b in self.begun().filter(|b| is_routine(b) && means(to, b.account)) {
                let within = b.place > answered && b.place < ended;
                self.holds(!within, || format!("{name} was answered, and then {b:?} began"));
                // It came over its instant, or over what of it was late.
                let at = self.instant(&b);
                let lay = at.is_some_and(|at| at < ended_at) && b.place > answered && !self.season.steps;
                let let_go = self.asked().any(|(place, act)| {
                    place > answered && place < b.place && (act.path.ends_with("unhold") || act.path.ends_with("retry"))
                });
                self.holds(!lay || b.place < answered || let_go || self.is_forgotten(answered, b.place), || {
                    format!("the instant of {b:?} lay in {name}, and nobody let it go")
                });
            }
        }
    }

    /// The instant of release of what began, where one version alone was ever written.
    fn instant(&self, b: &Begun<'_>) -> Option<Time> {
        let mut all = self.versions.get(&b.mark.id)?.iter().filter_map(|(_, v)| v.as_ref());
        let first = all.next()?;
        if all.any(|v| v.when != first.when) {
            return None;
        }
        match first.when {
            When::At(at) => Some(at),
            When::Hourly(_) => self.hour_of(b),
            When::Now => None,
        }
    }

    /// An emergency that asks for two persons has two.
    fn nobody_speaks_alone(&self) {
        for b in self.begun_of('u') {
            let id = &b.mark.id;
            let sent = self.asked().find(|(_, act)| act.path == "/v1/urgent" && act.body["id"] == **id);
            let Some((asked, sent)) = sent else { panic!("seed {}: nobody asked for {b:?}", self.seed) };
            self.holds(asked < b.place, || format!("{b:?} began before it was asked for"));
            if matches!(sent.body["level"].as_str(), Some("red" | "orange")) {
                let path = format!("/v1/announcements/{id}/confirm");
                let word = self.asked().find(|(place, act)| *place < b.place && act.path == path && act.by != sent.by);
                self.holds(word.is_some(), || format!("{b:?} went on one person's word"));
            }
            let to = sent.body["to"][0].as_str().unwrap_or_default();
            self.holds(means(to, b.account), || format!("{b:?} is none of {to}"));
        }
        for b in self.begun_of('a') {
            let versions: Vec<&Version> = self.versions[&b.mark.id].iter().filter_map(|(_, v)| v.as_ref()).collect();
            // The same words may be for more accounts than before.
            let its: Vec<&&Version> = versions.iter().filter(|v| v.number == b.mark.version).collect();
            self.holds(its.iter().any(|v| means(v.to, b.account)), || format!("{b:?} is none of {its:?}"));
            let Some(its) = its.first() else { continue };
            if let Some(level) = its.level {
                let path = format!("/v1/announcements/{}/confirm", b.mark.id);
                // Those since it was in its file, and read, as it went out.
                let since = self.in_force_since(&b);
                let words: BTreeSet<u32> = self
                    .asked()
                    .filter(|(place, act)| *place < b.place && *place >= since && act.path == path)
                    .map(|(_, act)| act.by)
                    .collect();
                let needed = if matches!(level, "red" | "orange") { 2 } else { 1 };
                self.holds(words.len() >= needed, || format!("{b:?} went on the words of {words:?} since {since}"));
            }
        }
    }

    /// The place in the record from which on what began was in its file as it began: what came in between and did not
    /// last was perhaps never read.
    fn in_force_since(&self, b: &Begun<'_>) -> usize {
        let saved: Vec<&(usize, Option<Version>)> =
            self.versions[&b.mark.id].iter().filter(|(place, _)| *place < b.place).collect();
        let is_its = |v: &Option<Version>| v.as_ref().is_some_and(|v| v.number == b.mark.version);
        let mut since = 0;
        for (n, (place, version)) in saved.iter().map(|s| (s.0, &s.1)).enumerate() {
            let until = saved.get(n + 1).map_or(b.entry.truth, |next| self.record[next.0].truth);
            let began = self.record[place].truth;
            let is_read =
                self.record[place..].iter().find(|e| matches!(e.what, What::Started | What::Crashed | What::Frozen));
            let undisturbed = is_read.is_none_or(|e| e.truth > began + READ);
            if !is_its(version) && until > began + READ && undisturbed {
                since = saved.get(n + 1).map_or(b.place, |next| next.0);
            }
        }
        since
    }

    /// R4: what has begun on one account has begun on each within a minute, where nothing is wrong and nobody stops it;
    /// what routine was told to wait for is none of its business.
    fn an_emergency_waits_for_nothing(&self) {
        let minute = TimeDelta::seconds(60);
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for first in self.begun_of('u') {
            let id = first.mark.id.as_str();
            if !seen.insert(id) {
                continue;
            }
            let sent = self.asked().find(|(_, act)| act.path == "/v1/urgent" && act.body["id"] == *id);
            let Some((_, sent)) = sent else { continue };
            let to = sent.body["to"][0].as_str().unwrap_or_default();
            // Trouble that ends, and a clock that is put back, keep it waiting no longer than its next try, or the longest
            // settling time.
            let Some(quiet) = self.quiet_after(first.place) else { continue };
            let wait = if quiet == first.entry.truth { minute } else { SETTLED };
            let (from, until) = (first.entry.truth - minute, quiet + wait);
            // Only what is wrong with what emergencies themselves were told may still keep one waiting.
            let told_itself = self.begun().any(|b| {
                let is_earlier = b.place < first.place && b.entry.truth > first.entry.truth - TimeDelta::minutes(70);
                is_earlier && (b.mark.kind != Kind::Own || b.mark.id.starts_with('u')) && self.is_trouble(b.place)
            });
            let is_disturbed = self.record.iter().any(|e| {
                let is_then = e.truth >= from && e.truth <= until;
                is_then && matches!(e.what, What::Crashed | What::Started | What::Frozen)
                    || is_then && e.truth < first.entry.truth && matches!(e.what, What::Stepped(_))
            });
            let is_stopped = self.asked().any(|(place, act)| {
                self.record[place].truth <= until
                    && (act.path.starts_with(&format!("/v1/announcements/{id}"))
                        && act.method == "POST"
                        && !act.path.ends_with("confirm")
                        || act.path.starts_with("/close/")
                        || act.body["update"] == *id)
            });
            // In doubt it may be a person's, account by account, and a person takes the time that it takes.
            let is_a_persons = self.record.iter().any(|e| match &e.what {
                What::Answered { act, body, .. } => act.path.ends_with("/resolve") && body["announcement"] == *id,
                _ => false,
            });
            let is_over = self.record.last().is_none_or(|e| e.truth < until);
            if told_itself || is_disturbed || is_stopped || is_a_persons || is_over {
                continue;
            }
            for account in all_accounts().iter().filter(|a| means(to, a) && !a.ends_with("/sport")) {
                let its = self.begun_of('u').find(|b| b.mark.id == id && b.account == account);
                let mut in_time = its.as_ref().is_some_and(|b| b.entry.truth <= until);
                if quiet > first.entry.truth {
                    let row = self.rows.iter().find(|r| r.announcement.as_str() == id && r.account.as_str() == account);
                    // What it was told itself it obeys.
                    let is_refused = row.is_none_or(|r| r.state == State::Failed || self.was_limited(r));
                    let is_it = |p: &&Post| p.account == *account && Mark::of(&p.text).as_ref() == Some(first.mark);
                    in_time = is_refused || self.posts.iter().find(is_it).is_some_and(|p| p.created <= until);
                }
                self.holds(in_time, || format!("{first:?} began, and on {account} {its:?}"));
            }
        }
    }

    /// From when on nothing was wrong for a while, if that was soon after this place.
    fn quiet_after(&self, place: usize) -> Option<Time> {
        let (began, mut quiet) = (self.record[place].truth, self.record[place].truth);
        let mut is_trouble = self.is_trouble(place);
        for entry in &self.record[place..] {
            if !is_trouble && entry.truth > quiet + SETTLED {
                break;
            }
            match entry.what {
                What::Trouble(is_any) => (quiet, is_trouble) = (entry.truth, is_any),
                What::Stepped(_) => quiet = entry.truth,
                _ => {}
            }
        }
        (!is_trouble && quiet < began + TimeDelta::minutes(3)).then_some(quiet)
    }

    /// Whether anything was wrong with the platforms, the network or the ledger at that place.
    fn is_trouble(&self, place: usize) -> bool {
        let said = self.record[..place].iter().rev().find_map(|e| match e.what {
            What::Trouble(is_any) => Some(is_any),
            _ => None,
        });
        said.unwrap_or(false)
    }

    /// R11: not before its instant, nor after its end.
    fn nothing_is_early_or_late(&self) {
        for b in self.begun_of('a') {
            let Some(at) = self.instant(&b) else { continue };
            let let_go = self
                .asked()
                .any(|(place, act)| place < b.place && (act.path.ends_with("unhold") || act.path.ends_with("retry")));
            let is_emergency =
                self.versions[&b.mark.id].iter().any(|(_, v)| v.as_ref().is_some_and(|v| v.level.is_some()));
            let by = at + CATCH_UP;
            self.holds(let_go || is_emergency || b.entry.wall <= by, || format!("{b:?} is late: {at}"));
        }
    }

    /// An edit is for what is not out: of one occurrence all accounts say the same, and what was in force.
    fn one_version_of_each_occurrence(&self) {
        let mut first: BTreeMap<(String, Option<Time>), Begun<'_>> = BTreeMap::new();
        for b in self.begun_of('a') {
            let key = (b.mark.id.clone(), self.hour_of(&b));
            let Some(before) = first.get(&key) else {
                self.was_in_force(&b);
                first.insert(key, b);
                continue;
            };
            let same = before.mark.version == b.mark.version;
            // What was posted of it is not in a ledger that was put back, and refused for good it is not out.
            let forgotten = self.is_forgotten(before.place, b.place);
            self.holds(same || forgotten || !self.is_out(before, b.entry.truth), || {
                format!("{before:?} and then {b:?}")
            });
        }
    }

    /// Whether a platform has told it to wait.
    fn was_limited(&self, row: &Delivery) -> bool {
        self.events.iter().filter(|e| e.kind == "delivery").any(|event| {
            let body: Value = serde_json::from_str(&event.body).unwrap();
            let said = body["reason"]["en"].as_str().unwrap_or_default();
            body["delivery"] == row.id.0 && body["to"] == "retrying" && said.contains("limit")
        })
    }

    /// Whether a post of that mark was there by then.
    fn is_out(&self, b: &Begun<'_>, by: Time) -> bool {
        self.posts.iter().any(|p| p.created <= by && Mark::of(&p.text).is_some_and(|m| m == *b.mark))
    }

    fn was_in_force(&self, b: &Begun<'_>) {
        let versions = &self.versions[&b.mark.id];
        let is_its = |v: &Option<Version>| v.as_ref().is_some_and(|v| v.number == b.mark.version);
        // When this process could first read what came after, if it could.
        let started = self.record[..b.place].iter().rev().find(|e| matches!(e.what, What::Started | What::Frozen));
        let started = started.map_or(b.entry.truth, |e| e.truth);
        let next = versions.iter().find(|(place, v)| {
            let later = versions.iter().any(|(p, v)| is_its(v) && p < place);
            later && v.as_ref().is_some_and(|v| v.number > b.mark.version)
        });
        let Some((place, _)) = next else { return };
        let read = (self.record[*place].truth.max(started)) + READ;
        let right = b.entry.truth <= read || self.season.ledger || self.is_forgotten(0, b.place);
        self.holds(right, || format!("{b:?} was not in force any more: {versions:?}"));
    }

    /// A correction goes to the accounts that carry the wrong post, and that post is gone.
    fn closing_words_go_where_they_belong(&self) {
        for post in &self.posts {
            let Some(mark) = Mark::of(&post.text).filter(|m| m.kind != Kind::Own) else { continue };
            let carried = self.posts.iter().any(|p| {
                let own = Mark::of(&p.text).filter(|m| m.kind == Kind::Own && self.is_family(&m.id, &mark.id));
                own.is_some() && p.account == post.account && p.n < post.n
            });
            self.holds(carried, || format!("{post:?} was said where nothing of it ever stood"));
        }
        for (asked, answered, act, status, _) in self.answered() {
            let Some(id) = act.path.strip_prefix("/v1/announcements/").and_then(|p| p.strip_suffix("/correct")) else {
                continue;
            };
            if status >= 300 || self.is_restored() {
                continue;
            }
            for wrong in &self.posts {
                let own = Mark::of(&wrong.text).filter(|m| m.kind == Kind::Own && m.id == id);
                if own.is_none() {
                    continue;
                }
                // An account that was closed gets nothing, and nothing is done there.
                let closed = format!("/close/{}", wrong.account);
                if self.asked().any(|(_, act)| act.path == closed) {
                    continue;
                }
                let row =
                    self.rows.iter().find(|r| r.account.as_str() == wrong.account && r.announcement.as_str() == id);
                // Where the platform refuses the correction it stands, and a person is told so.
                let correction = format!("{id}-correction");
                let refused = self.rows.iter().filter(|r| r.account.as_str() == wrong.account).any(|r| {
                    let is_its = r.announcement.as_str().starts_with(&correction);
                    is_its && matches!(r.state, State::Failed | State::Expired)
                });
                self.holds(wrong.deleted || refused, || {
                    format!("{id} was corrected ({asked}, {answered}), and {wrong:?} stands; {row:?}")
                });
            }
        }
    }

    fn is_family(&self, one: &str, other: &str) -> bool {
        self.root(one) == self.root(other)
    }

    fn root(&self, id: &str) -> String {
        let mut id = id.to_owned();
        for _ in 0..50 {
            let sent = self.asked().find(|(_, act)| act.path == "/v1/urgent" && act.body["id"] == *id);
            match sent.and_then(|(_, act)| act.body["update"].as_str()) {
                Some(before) => id = before.to_owned(),
                None => break,
            }
        }
        id
    }

    /// An account with the new post has the old one no more, whatever came in between.
    fn what_was_superseded_is_gone(&self) {
        if self.is_restored() {
            return;
        }
        let out = self.rows.iter().filter(|r| r.state == State::Published);
        for (row, old) in
            out.flat_map(|row| self.replaced(row.announcement.as_str()).into_iter().map(move |o| (row, o)))
        {
            let (id, account) = (row.announcement.as_str(), row.account.as_str());
            let is_old = |text: &str| Mark::of(text).is_some_and(|m| m.kind == Kind::Own && m.id == old);
            let on_it: Vec<&Post> = self.posts.iter().filter(|p| p.account == account && is_old(&p.text)).collect();
            // Of one that repeats it is the newest.
            let first = if self.repeats(&old) { on_it.len().saturating_sub(1) } else { 0 };
            for post in &on_it[first..] {
                self.holds(post.deleted, || format!("{id} took the place of {old} on {account}, and {post:?} stands"));
            }
            // As long as nobody knows that the newer one is out, the older one may go on.
            let out = self.events.iter().find(|e| {
                e.kind == "delivery" && e.subject.split('@').next() == Some(id) && {
                    let body: Value = serde_json::from_str(&e.body).unwrap();
                    body["account"] == account && body["to"] == "published"
                }
            });
            let after = self.begun_of('a').filter(|b| b.account == account && b.mark.id == old);
            // Not even the next hour of one that repeats.
            let is_late = |b: &Begun<'_>| !self.season.steps && out.is_some_and(|out| b.entry.wall > out.at + READ);
            let again = after.filter(is_late).last();
            self.holds(again.is_none(), || format!("{id} took the place of {old}, and then {again:?} began"));
        }
    }

    /// The announcements whose place it takes, and those whose place these would have taken, as far as the ledger ever knew them.
    fn replaced(&self, id: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        let mut next = Some(id.to_owned());
        while let Some(id) = next.take() {
            let versions = self.versions.get(&id).into_iter().flatten();
            let old = versions.filter_map(|(_, v)| v.as_ref()).next().and_then(|v| v.supersedes.clone());
            let is_known = |old: &String| self.rows.iter().any(|r| r.announcement.as_str() == old);
            if let Some(old) = old.filter(|old| is_known(old) && !found.contains(old)) {
                found.push(old.clone());
                next = Some(old);
            }
        }
        found
    }

    /// R52.
    fn answers_are_true(&self) {
        // A correction gets through at once, whatever its deliveries do meanwhile.
        let most = self.world.trouble.most_sent_back();
        self.holds(most.as_ref().is_none_or(|(_, times)| *times < 4), || format!("a correction had to wait: {most:?}"));
        for (asked, answered, act, status, body) in self.answered() {
            self.holds(!body.to_string().contains("token-"), || format!("{act:?} was answered with a token: {body}"));
            let said = body["detail"].as_str().unwrap_or("");
            self.holds(!said.contains("another change came first"), || format!("{act:?} was answered: {said}"));
            let fine = status != 500 && (self.season.ledger || status < 500);
            self.holds(fine, || format!("{act:?} was answered {status}: {body}"));
            let restored = self.is_forgotten(asked, self.record.len());
            let Some(id) = act.path.strip_prefix("/v1/announcements/").and_then(|p| p.strip_suffix("/cancel")) else {
                continue;
            };
            if status >= 300 || restored || id.contains('%') {
                continue;
            }
            // Those that were cancelled have no post, and never get one.
            let cancelled = body["cancelled"].as_u64().unwrap_or(0) as usize;
            let of_it = |account: &str| {
                self.rows.iter().filter(|r| r.announcement.as_str() == id && r.account.as_str() == account).count()
            };
            let rows: usize = all_accounts().iter().map(|a| of_it(a)).sum();
            let out = self
                .posts
                .iter()
                .filter(|p| Mark::of(&p.text).is_some_and(|m| m.kind == Kind::Own && m.id == id))
                .count();
            self.holds(out + cancelled <= rows, || {
                format!("{act:?} ({answered}) said {body}; {out} of {rows} were posted ever")
            });
        }
    }

    /// R51: what was in the queue at its hour has a row for each account, and on a calm day a post.
    fn nothing_is_lost(&self) {
        let end = self.record.last().map_or_else(|| self.world.truth.now(), |e| e.wall);
        for (id, versions) in &self.versions {
            let [(place, Some(version))] = &versions[..] else { continue };
            let When::At(at) = version.when else { continue };
            // An ordinary entry that would take an emergency's place is a fault.
            let warns = |id: &String| {
                self.versions.get(id).is_some_and(|all| all.iter().flat_map(|(_, v)| v).any(|v| v.level.is_some()))
            };
            if version.level.is_none() && version.supersedes.as_ref().is_some_and(warns) {
                continue;
            }
            let saved = self.record[*place].wall;
            if at < saved + READ || at + CATCH_UP > end || self.season.steps || self.season.restores {
                continue;
            }
            let touched =
                self.asked().any(|(_, act)| act.path.contains(&format!("/{id}/")) || act.body["supersedes"] == **id);
            let superseded = self
                .versions
                .values()
                .flatten()
                .any(|(_, v)| v.as_ref().and_then(|v| v.supersedes.as_ref()) == Some(id));
            for account in all_accounts().iter().filter(|a| means(version.to, a)) {
                let opened = self.asked().any(|(_, act)| act.path.ends_with(account));
                if opened || account.ends_with("/sport") {
                    continue;
                }
                let row = self.rows.iter().find(|r| r.announcement.as_str() == id && r.account.as_str() == account);
                self.holds(row.is_some(), || format!("{id} has no row for {account}"));
                let Some(row) = row else { continue };
                let explained = touched || superseded || row.state != State::Cancelled;
                self.holds(explained, || format!("{id} on {account} was cancelled by nobody: {row:?}"));
                let held = self.asked().any(|(_, act)| act.path == "/v1/holds" || act.path == "/v1/urgent");
                let out = row.state == State::Published;
                self.holds(!self.season.is_calm || out || touched || superseded || held, || {
                    format!("on a calm day {id} on {account} is {row:?}")
                });
            }
        }
    }

    /// Late deliveries of a release that has begun still go: no edit and no other file takes them away.
    fn late_ones_are_not_dropped(&self) {
        if self.is_restored() || self.season.steps {
            return;
        }
        let ids = self.rows.iter().map(|row| (row.id.0, row)).collect::<BTreeMap<_, _>>();
        for event in self.events.iter().filter(|e| e.kind == "delivery") {
            let body: Value = serde_json::from_str(&event.body).unwrap();
            let is_the_queues = matches!(body["cause"].as_str(), Some("absent" | "rescheduled"));
            if body["event"] != "withdrawn" || body["to"] != "cancelled" || !is_the_queues {
                continue;
            }
            let Some(row) = body["delivery"].as_i64().and_then(|id| ids.get(&id)) else { continue };
            let (_, id, hour) = self.row_place(row);
            let began = self.begun().find(|b| {
                b.mark.kind == Kind::Own && b.mark.id == id && b.entry.wall < event.at && self.hour_of(b) == hour
            });
            let is_out = began.as_ref().is_some_and(|b| self.is_out(b, event.at));
            self.holds(!is_out, || format!("{row:?} was dropped at {} after {began:?}", event.at));
        }
    }

    /// The chain, no secret in it, and no storm of events.
    fn the_record_is_whole(&self) {
        let (mut seq, mut hash) = (0, GENESIS.to_owned());
        let mut of: BTreeMap<(i64, &str, String), usize> = BTreeMap::new();
        for event in &self.events {
            self.holds(event.follows(seq, &hash), || format!("the chain breaks at {}", event.seq));
            (seq, hash) = (event.seq, event.hash.clone());
            let text = format!("{} {}", event.subject, event.body);
            self.holds(!text.contains("token-"), || format!("a token is in {text}"));
            let body: Value = serde_json::from_str(&event.body).unwrap();
            let account = body["account"].as_str().unwrap_or("").to_owned();
            *of.entry((event.at.timestamp(), &event.subject, account)).or_default() += 1;
        }
        let loud = of.into_iter().max_by_key(|(_, n)| *n);
        self.holds(loud.as_ref().is_none_or(|(_, n)| *n < 20), || {
            format!("one thing had so many events in a second: {loud:?}")
        });
    }
}

/// The instant in an occurrence's name: `2026-11-24T09:08+08:00`, with seconds where they are not naught.
fn named(at: &str) -> Option<Time> {
    at.parse().or_else(|_| at.replace('+', ":00+").parse()).ok()
}

/// Prints the record and the ledger's events, a line each, for whoever looks into a seed.
pub fn told(record: &[Entry], events: &BTreeSet<(Time, i64, String)>, about: &str) {
    let wanted = |line: &str| about.split(',').any(|word| line.contains(word)) && !line.contains("\"GET\"");
    let record =
        record.iter().enumerate().map(|(place, e)| format!("{place} {} {:?}", e.wall.format("%T%.3f"), e.what));
    for line in record.chain(events.iter().map(|e| e.2.clone())).filter(|line| wanted(line)) {
        eprintln!("{}", line.chars().take(900).collect::<String>());
    }
}
