//! What the imitated platforms remember: accounts and their standing, posts, counters, and what came in.
//!
//! All of it lies behind one lock that is never held across an await. What becomes visible, final or deleted later is
//! kept as an instant and judged when somebody looks, so nothing here needs a task of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::Value;

use super::call::Call;
use super::dice::Dice;
use super::script::Twist;
use super::settings::{Api, Keys, Settings};
use super::{AccountSetup, PlatformSetup, Post, count, mastodon, wechat};
use crate::clock::Time;

/// The oldest posts are forgotten beyond this, to keep memory bounded.
pub(super) const POSTS: usize = 400_000;
/// Uploads and keys remembered for one platform.
pub(super) const REMEMBERED: usize = 50_000;
const SHANGHAI: i64 = 8 * 3600;

/// A counter over windows that begin at round clock times in Shanghai, as the platforms' do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    index: i64,
    used: u32,
}

impl Window {
    pub fn used(&self, at: Time, seconds: i64) -> u32 {
        if self.index == window_index(at, seconds) { self.used } else { 0 }
    }

    pub fn add(&mut self, at: Time, seconds: i64) {
        let index = window_index(at, seconds);
        self.used = if self.index == index { self.used + 1 } else { 1 };
        self.index = index;
    }

    /// Counts one more, unless that is over the limit.
    pub fn take(&mut self, at: Time, seconds: i64, limit: Option<u32>) -> bool {
        if limit.is_some_and(|limit| self.used(at, seconds) >= limit) {
            return false;
        }
        self.add(at, seconds);
        true
    }
}

fn window_index(at: Time, seconds: i64) -> i64 {
    (at.timestamp() + SHANGHAI).div_euclid(seconds)
}

/// The end of the window that `at` lies in, as Unix seconds.
pub(super) fn window_end(at: Time, seconds: i64) -> i64 {
    (window_index(at, seconds) + 1) * seconds - SHANGHAI
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    #[default]
    Good,
    Expired,
    Revoked,
}

#[derive(Debug)]
pub(super) struct Account {
    pub unit: String,
    pub name: String,
    pub handle: String,
    pub uid: u64,
    pub keys: Keys,
    pub standing: Standing,
    /// From here on the token counts as expired.
    pub expires_at: Option<Time>,
    pub captcha: bool,
    pub calls_hour: Window,
    pub calls_day: Window,
    pub posts_hour: Window,
    /// When this account's latest posts were made, for gaps and throttles.
    pub recent: VecDeque<Time>,
    pub quotas: BTreeMap<&'static str, Window>,
    pub posts: VecDeque<u64>,
    pub last: Option<(String, Time)>,
}

impl Account {
    pub fn new(setup: &AccountSetup, api: Api, uid: u64) -> Account {
        Account {
            unit: setup.unit.clone(),
            name: setup.name.clone(),
            handle: setup.handle.clone(),
            uid,
            keys: Keys::read(&setup.secret, api),
            standing: Standing::Good,
            expires_at: None,
            captcha: false,
            calls_hour: Window::default(),
            calls_day: Window::default(),
            posts_hour: Window::default(),
            recent: VecDeque::new(),
            quotas: BTreeMap::new(),
            posts: VecDeque::new(),
            last: None,
        }
    }

    pub fn standing(&self, now: Time) -> Standing {
        match self.standing {
            Standing::Good if self.expires_at.is_some_and(|at| at <= now) => Standing::Expired,
            standing => standing,
        }
    }

    fn forget(&mut self) {
        self.standing = Standing::Good;
        self.expires_at = None;
        self.captcha = false;
        (self.calls_hour, self.calls_day, self.posts_hour) = Default::default();
        self.recent.clear();
        self.quotas.clear();
        self.posts.clear();
        self.last = None;
    }
}

/// One platform.
#[derive(Debug)]
pub(super) struct Site {
    pub name: String,
    pub api: Api,
    pub settings: Settings,
    pub accounts: BTreeMap<String, Account>,
    /// Token, consumer key or app id → unit.
    pub owners: BTreeMap<String, String>,
    pub host_hour: Window,
    pub offset: TimeDelta,
    /// Uploaded pictures by id: owner, bytes, ready at.
    pub media: BTreeMap<String, Media>,
    /// Signatures' nonces; a repeated one is a replay.
    pub nonces: BTreeSet<String>,
    pub desk: wechat::Desk,
    pub keys: mastodon::Remembered,
    pub open: u32,
    pub last_seen: Option<Time>,
    pub dice: Dice,
    pub last_id: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Media {
    pub unit: String,
    pub url: String,
    pub ready_at: Time,
    pub permanent: bool,
    /// For those who cannot see it.
    pub description: Option<String>,
}

impl Media {
    /// A picture that stays in the library.
    pub fn new(unit: String, url: String, ready_at: Time) -> Media {
        Media { unit, url, ready_at, permanent: true, description: None }
    }
}

impl Site {
    pub fn new(setup: &PlatformSetup, limits: bool, seed: u64) -> Site {
        let mut settings = Settings::read(&setup.api, &setup.settings, limits);
        // These two were sites of Sina's time and counted as it did.
        settings.width |= matches!(setup.name.as_str(), "eastday" | "xinmin") && setup.settings.get("count").is_none();
        Site {
            name: setup.name.clone(),
            api: Api::named(&setup.api),
            settings,
            accounts: BTreeMap::new(),
            owners: BTreeMap::new(),
            host_hour: Window::default(),
            offset: TimeDelta::zero(),
            media: BTreeMap::new(),
            nonces: BTreeSet::new(),
            desk: wechat::Desk::default(),
            keys: mastodon::Remembered::default(),
            open: 0,
            last_seen: None,
            dice: Dice(seed),
            last_id: 0,
        }
    }

    pub fn enrol(&mut self, setup: &AccountSetup) {
        let given = setup.uid.as_deref().and_then(|uid| uid.parse().ok());
        let uid = given.unwrap_or(1_000_000_000 + self.accounts.len() as u64 * 7919 + self.dice.below(7919));
        let account = Account::new(setup, self.api, uid);
        if let Some(owner) = account.keys.owner() {
            self.owners.insert(owner, setup.unit.clone());
        }
        self.accounts.insert(setup.unit.clone(), account);
    }

    pub fn owner(&self, token: &str) -> Option<String> {
        self.owners.get(token).cloned()
    }

    /// Registers whoever comes with a token nobody knows, where the sandbox is told to take any.
    pub fn welcome(&mut self, token: &str) -> String {
        let unit = format!("any/{}", self.accounts.len() + 1);
        let secret = token.to_owned();
        self.enrol(&AccountSetup {
            platform: self.name.clone(),
            unit: unit.clone(),
            name: unit.clone(),
            handle: unit.replace('/', "-"),
            uid: None,
            secret,
        });
        self.owners.insert(token.to_owned(), unit.clone());
        unit
    }

    /// Ids that grow, from `floor` on; a big one has more digits than a float can hold.
    pub fn next_id(&mut self, floor: u64, big: bool) -> u64 {
        let floor = if big { floor.max((1 << 62) + 1) | 1 } else { floor };
        self.last_id = floor.max(self.last_id + 1);
        self.last_id
    }

    pub fn remember(&mut self, id: String, media: Media) {
        if self.media.len() >= REMEMBERED {
            self.media.pop_first();
        }
        self.media.insert(id, media);
    }

    pub fn reset(&mut self) {
        self.accounts.values_mut().for_each(Account::forget);
        self.host_hour = Window::default();
        self.offset = TimeDelta::zero();
        self.media.clear();
        self.nonces.clear();
        self.desk = wechat::Desk::default();
        self.keys = mastodon::Remembered::default();
        self.last_seen = None;
    }
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub n: u64,
    pub platform: String,
    pub unit: String,
    pub id: String,
    pub number: u64,
    pub sent: String,
    pub shown: String,
    pub at: Time,
    /// By the platform's own clock.
    pub created: Time,
    pub visible_from: Time,
    pub gone_at: Option<Time>,
    /// Deleted by its account; otherwise by the platform.
    pub gone_by_user: bool,
    pub review: Option<(Time, bool)>,
    pub hidden: bool,
    pub images: Vec<String>,
    /// What else one platform keeps: annotations, an article's title, a parent post.
    pub extra: Value,
}

impl Entry {
    pub fn gone(&self, now: Time) -> bool {
        self.gone_at.is_some_and(|at| at <= now) || self.review.is_some_and(|(until, remove)| remove && until <= now)
    }

    pub fn in_review(&self, now: Time) -> bool {
        self.review.is_some_and(|(until, _)| now < until)
    }

    pub fn listed(&self, now: Time) -> bool {
        self.visible_from <= now && !self.gone(now)
    }

    pub fn public(&self, now: Time) -> Post {
        Post {
            n: self.n,
            platform: self.platform.clone(),
            account: format!("{}:{}", self.platform, self.unit),
            id: self.id.clone(),
            text: self.sent.clone(),
            shown: self.shown.clone(),
            created: self.at,
            deleted: self.gone(now),
            hidden: self.hidden || !self.gone(now) && (self.visible_from > now || self.in_review(now)),
            pictures: self.images.len(),
        }
    }
}

/// Every post of every platform by its running number; the oldest go when there are too many.
#[derive(Debug, Default)]
pub(super) struct Posts {
    pub all: BTreeMap<u64, Entry>,
    ids: BTreeMap<(String, String), u64>,
    last: u64,
}

impl Posts {
    pub fn get(&self, n: u64) -> Option<&Entry> {
        self.all.get(&n)
    }

    /// The posts of an account, newest first.
    pub fn of<'a>(&'a self, account: &'a Account) -> impl Iterator<Item = &'a Entry> {
        account.posts.iter().rev().filter_map(|n| self.all.get(n))
    }

    /// A post of anybody on this platform.
    pub fn anywhere(&self, platform: &str, id: &str) -> Option<&Entry> {
        self.get(*self.ids.get(&(platform.to_owned(), id.to_owned()))?)
    }

    fn insert(&mut self, entry: Entry) {
        if self.all.len() >= POSTS
            && let Some((_, oldest)) = self.all.pop_first()
        {
            self.ids.remove(&(oldest.platform, oldest.id));
        }
        self.ids.insert((entry.platform.clone(), entry.id.clone()), entry.n);
        self.all.insert(entry.n, entry);
    }
}

/// What an imitation works with while it answers one call.
pub(super) struct Ctx<'a> {
    pub site: &'a mut Site,
    pub posts: &'a mut Posts,
    pub call: &'a Call,
    pub twist: &'a Twist,
    pub unit: Option<String>,
    pub now: Time,
    pub allow_private_ip: bool,
}

/// A post about to be made.
#[derive(Debug, Default)]
pub(super) struct New {
    pub sent: String,
    pub shown: String,
    pub images: Vec<String>,
    pub number: u64,
    pub id: Option<String>,
    pub extra: Value,
    /// It appears later than it was made by this much.
    pub later: Duration,
}

impl Ctx<'_> {
    /// The platform's own clock.
    pub fn clock(&self) -> Time {
        self.now + self.site.offset + self.twist.offset
    }

    pub fn account(&self) -> Option<&Account> {
        self.site.accounts.get(self.unit.as_ref()?)
    }

    pub fn account_mut(&mut self) -> Option<&mut Account> {
        self.site.accounts.get_mut(self.unit.as_ref()?)
    }

    /// The number of a post of the caller's own.
    pub fn own(&self, id: &str) -> Option<u64> {
        let post = self.posts.anywhere(&self.site.name, id)?;
        (Some(&post.unit) == self.unit.as_ref()).then_some(post.n)
    }

    pub fn live(&self, n: Option<u64>) -> Option<Entry> {
        self.posts.get(n?).filter(|post| !post.gone(self.now)).cloned()
    }

    /// The number of newest posts that a fault keeps off the timeline, and whether that is said.
    pub fn gap(&self) -> (usize, bool) {
        self.twist.gap.map_or((0, false), |gap| (gap.newest, gap.is_told))
    }

    /// A post of this account that a reader of its own timeline would see.
    pub fn timeline(&self) -> Vec<Entry> {
        let Some(account) = self.account() else { return Vec::new() };
        self.posts.of(account).filter(|post| post.listed(self.now)).take(200).cloned().collect()
    }

    pub fn delete(&mut self, n: u64) -> Option<Entry> {
        let now = self.now;
        let post = self.posts.all.get_mut(&n)?;
        post.gone_at = Some(now);
        post.gone_by_user = true;
        Some(post.clone())
    }

    /// Makes the post, with whatever a fault does to it.
    pub fn publish(&mut self, new: New) -> Entry {
        let (now, clock, twist) = (self.now, self.clock(), self.twist);
        let mut shown = new.shown;
        if twist.cut && self.site.api != Api::TencentWeibo {
            shown = shown.chars().take(shown.chars().count() / 2).collect();
        }
        if let Some(rewrite) = &twist.rewrite {
            shown = rewrite.apply(&shown, &mut self.site.dice);
        }
        let mut images = if twist.drop_picture { Vec::new() } else { new.images };
        if let Some(rewrite) = &twist.rewrite {
            images = rewrite.ordered(images);
        }
        self.posts.last += 1;
        let entry = Entry {
            n: self.posts.last,
            platform: self.site.name.clone(),
            unit: self.unit.clone().unwrap_or_default(),
            id: new.id.unwrap_or_else(|| new.number.to_string()),
            number: new.number,
            sent: new.sent,
            shown,
            at: now,
            created: clock,
            visible_from: after(now, new.later.max(twist.delayed.unwrap_or_default())),
            gone_at: twist.vanish.map(|d| after(now, d)),
            gone_by_user: false,
            review: twist.review.map(|(d, remove)| (after(now, d), remove)),
            hidden: twist.hidden || self.site.settings.unaudited,
            images,
            extra: new.extra,
        };
        self.posts.insert(entry.clone());
        let sent = entry.sent.clone();
        if let Some(account) = self.account_mut() {
            account.posts.push_back(entry.n);
            account.posts_hour.add(clock, 3600);
            account.recent.push_back(now);
            account.last = Some((sent, now));
            while account.recent.len() > 64 {
                account.recent.pop_front();
            }
            while account.posts.len() > POSTS / 4 {
                account.posts.pop_front();
            }
        }
        entry
    }

    /// How alike the text is to this account's last one: that is all the sites' filters look at.
    pub fn likeness(&self, text: &str) -> f64 {
        let last = self.account().and_then(|a| a.last.as_ref()).filter(|_| self.site.settings.duplicates);
        last.map_or(0.0, |(last, _)| count::likeness(last.trim(), text.trim()))
    }

    /// Whether this very text was this account's last one within `window`.
    pub fn repeated(&self, text: &str, window: Option<TimeDelta>) -> bool {
        self.site.settings.duplicates
            && self
                .account()
                .and_then(|a| a.last.as_ref())
                .is_some_and(|(last, at)| last.trim() == text.trim() && window.is_none_or(|w| self.now - *at < w))
    }
}

/// `at` and a duration that a person may have set to anything.
pub(super) fn after(at: Time, by: Duration) -> Time {
    let by = TimeDelta::from_std(by).unwrap_or(TimeDelta::days(3650));
    at.checked_add_signed(by).unwrap_or(Time::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::from_micros;

    #[test]
    fn windows_turn_at_round_hours_and_midnights_of_shanghai() {
        let at = from_micros(1_700_000_000_000_000); // 2023-11-15 06:13:20 +0800
        assert_eq!(window_end(at, 3600), 1_700_002_800);
        assert_eq!(window_end(at, 86_400), 1_700_064_000);
        let mut window = Window::default();
        assert!(window.take(at, 3600, Some(1)) && !window.take(at, 3600, Some(1)));
        assert!(window.take(at + TimeDelta::hours(1), 3600, Some(1)));
    }
}
