//! When an announcement goes out: an instant, or a repeat that no platform's limits forbid.

use std::collections::BTreeSet;

use chrono::{Days, NaiveTime, TimeDelta};

use super::raw::RawAnnouncement;
use super::{Reader, is_now, values};
use crate::core::Time;
use crate::core::accounts::AccountId;
use crate::core::announcement::{Priority, Repeat, Timing};
use crate::core::repeat;
use crate::core::words::{Words, words};

impl Reader<'_> {
    pub(super) fn timing(&mut self, raw: &RawAnnouncement, accounts: &BTreeSet<AccountId>) -> Option<Timing> {
        if raw.at.is_some() && raw.repeat.is_some() {
            let said = Words::new("`at` 和 `repeat` 只能有一个", "there are both `at` and `repeat`");
            self.push("repeat", "at_and_repeat", said).hint = Some(Words::new("留一个", "keep one of them"));
            return None;
        }
        if raw.repeat.is_some() && raw.priority == Some(Priority::Emergency) {
            let said = Words::new(
                "紧急发布不能重复：每次都要有人确认",
                "an emergency does not repeat: each is for persons to confirm",
            );
            let hint = Words::new("每次写一条，用 `at`", "write one for each, with `at`");
            self.push("repeat", "emergency_repeats", said).hint = Some(hint);
            return None;
        }
        if raw.repeat.is_none() {
            for (key, given) in
                [("from", raw.from.is_some()), ("until", raw.until.is_some()), ("skip", raw.skip.is_some())]
            {
                if given {
                    self.push(
                        key,
                        "without_repeat",
                        words!("`{key}` 只用于 `repeat`", "`{key}` goes with `repeat` only"),
                    );
                }
            }
        }
        match (&raw.at, &raw.repeat) {
            (None, None) => {
                // An `at` that is there and could not be read is no wish to publish at once.
                let is_there = |key| self.node.get(key).is_some();
                (!is_there("at") && !is_there("repeat")).then_some(Timing::Now)
            }
            (Some(at), _) if is_now(at) => Some(Timing::Now),
            (Some(at), _) => self.at(at).map(Timing::At),
            (None, Some(cron)) => self.repeat(cron, raw, accounts).map(Timing::Repeat),
        }
    }

    fn instant(&mut self, path: &str, text: &str) -> Option<Time> {
        match values::instant(text, self.context.zone) {
            Ok((at, twice)) => {
                if twice {
                    let said = Words::new(
                        "这个时刻在当地出现两次，取第一次",
                        "this local time exists twice; the first is taken",
                    );
                    self.warn(
                        path,
                        "twice",
                        said,
                        Words::new("写上偏移，如 +08:00", "write the offset, such as +08:00"),
                    );
                }
                Some(at)
            }
            Err(said) => {
                self.push(path, "time", said);
                None
            }
        }
    }

    fn at(&mut self, text: &str) -> Option<Time> {
        if let Ok(day) = values::date(text) {
            let said = words!("`{day}` 没有钟点", "`{day}` has no time of day");
            self.push("at", "time", said).hint = Some(words!("如 {day} 08:00", "such as {day} 08:00"));
            return None;
        }
        let at = self.instant("at", text)?;
        if at > self.context.now + TimeDelta::days(3653) {
            let said = Words::new("十年以后的时间", "more than ten years ahead");
            self.warn("at", "far_ahead", said, Words::new("看看年份", "look at the year"));
        }
        Some(at)
    }

    fn repeat(&mut self, cron: &str, raw: &RawAnnouncement, accounts: &BTreeSet<AccountId>) -> Option<Repeat> {
        if let Err(said) = repeat::parse(cron) {
            self.push("repeat", "repeat", said);
            return None;
        }
        let from = raw.from.as_ref().and_then(|t| self.instant("from", t));
        let until = raw.until.as_ref().and_then(|t| self.until(t));
        let mut skip = BTreeSet::new();
        for (n, day) in raw.skip.iter().flatten().enumerate() {
            match day.as_deref().map(values::date) {
                Some(Ok(day)) => {
                    skip.insert(day);
                }
                Some(Err(said)) => {
                    self.push(&format!("skip[{n}]"), "date", said);
                }
                None => {}
            }
        }
        let repeat = Repeat { cron: cron.to_owned(), from, until, skip };
        let (zone, now) = (self.context.zone, self.context.now);
        let start = from.unwrap_or(now).max(now);
        if repeat::occurrences(&repeat, zone, start - TimeDelta::seconds(1), start + TimeDelta::days(3653), 1)
            .is_empty()
        {
            let hint = Words::new(
                "不会再发布；看看 `from`、`until` 和 `skip`",
                "nothing is published any more: look at `from`, `until` and `skip`",
            );
            self.warn("repeat", "never", Words::new("以后没有一次", "it never comes again"), hint);
        }
        self.too_often(&repeat, start, accounts);
        let (body, title) = (raw.text.as_deref().unwrap_or(""), raw.variants.is_none());
        if title && !body.contains("{{") && accounts.iter().any(|a| a.platform() == "sina") {
            let said = Words::new(
                "每次文字相同，平台可能当作重复而拒绝",
                "the same words each time: a platform may refuse them as a duplicate",
            );
            self.warn(
                "repeat",
                "same_text",
                said,
                Words::new("让文字有所变化，或用不同的链接", "let the text vary, or give each its own link"),
            );
        }
        Some(repeat)
    }

    /// A date as `until` is that whole day.
    fn until(&mut self, text: &str) -> Option<Time> {
        if let Ok(day) = values::date(text) {
            let end = day.checked_add_days(Days::new(1))?.and_time(NaiveTime::MIN);
            let (at, _) = values::in_zone(end, self.context.zone).ok()?;
            return Some(at - TimeDelta::microseconds(1));
        }
        self.instant("until", text)
    }

    /// Input 38: more posts an hour than a platform takes of one account.
    fn too_often(&mut self, repeat: &Repeat, start: Time, accounts: &BTreeSet<AccountId>) {
        let platforms: BTreeSet<&str> = accounts.iter().map(AccountId::platform).collect();
        let first = repeat::occurrences(repeat, self.context.zone, start, start + TimeDelta::days(400), 1);
        let Some(first) = first.first() else { return };
        let within = repeat::occurrences(repeat, self.context.zone, *first, *first + TimeDelta::hours(1), 4000);
        for platform in platforms {
            if let Some(Some(limit)) = self.context.per_hour.get(platform)
                && within.len() as u64 > u64::from(*limit)
            {
                let n = within.len();
                let said = words!(
                    "一小时 {n} 次，{platform} 每个账号每小时最多 {limit} 条",
                    "{n} times an hour; {platform} takes {limit} posts of an account in an hour"
                );
                self.push("repeat", "too_often", said);
                return;
            }
        }
    }
}
