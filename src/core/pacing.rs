//! Rate budgets: which call may be made now, and if not, when.
//!
//! A window is a clock hour or a calendar day in +08:00, as the platforms count, and its budget may go
//! in one burst. Of each, a share is left for emergencies; of an account's day another share is left
//! for read-back and take-down, so that what went out can always be looked for.

use std::collections::BTreeMap;

use chrono::{TimeDelta, TimeZone as _, Utc};

use super::Time;
use super::accounts::AccountId;
use super::change::Change;
use super::policy::PlatformSettings;

/// What a call is for: it decides how deep it may go into a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Emergency,
    /// Looking for, or taking down, what is out.
    Settle,
    Post,
}

/// Calls used so far, by key and window, as committed changes have them; and those that somebody is about to make.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    used: BTreeMap<Window, u32>,
    reserved: BTreeMap<Window, u32>,
}

/// A counted window of time: its key, and its number since 1970.
type Window = (String, i64);

/// Calls taken ahead of the commit that counts them. Whoever has one gives it back: after a commit that counted
/// them, or in place of it.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use = "what is reserved is given back"]
pub struct Calls(Vec<(Window, u32)>);

impl Calls {
    /// What the ledger has to remember when they are made.
    pub fn changes(&self) -> impl Iterator<Item = Change> {
        self.0.iter().map(|((key, window), calls)| Change::Spend { key: key.clone(), window: *window, calls: *calls })
    }
}

const HOUR_S: i64 = 3600;
const DAY_S: i64 = 86_400;
/// How the keys of an account's day begin; all other windows are hours.
pub const DAY: &str = "day ";
/// The platforms' windows turn at full hours and midnights of China's zone.
const ZONE_S: i64 = 8 * 3600;

/// A limit on the calls within a window.
struct Limit {
    key: String,
    length_s: i64,
    most: u32,
}

impl Budgets {
    /// Counts calls that were committed.
    pub fn count(&mut self, key: &str, window: i64, calls: u32) {
        *self.used.entry((key.to_owned(), window)).or_default() += calls;
    }

    /// Takes over all counts of the ledger.
    pub fn replace(&mut self, counts: Vec<(String, i64, u32)>) {
        self.used = counts.into_iter().map(|(key, window, calls)| ((key, window), calls)).collect();
    }

    /// Reserves one call of `account` in every window it counts to, or says when to ask again.
    pub fn reserve(
        &mut self,
        settings: &PlatformSettings,
        account: &AccountId,
        use_: Use,
        publishes: bool,
        reserve: f64,
        now: Time,
    ) -> Result<Calls, Time> {
        let limits = limits(settings, account, publishes);
        for limit in &limits {
            if self.taken(&limit.key, index(now, limit.length_s)) >= allowed(limit, use_, reserve) {
                return Err(next(now, limit.length_s));
            }
        }
        Ok(self.put_aside(limits.into_iter().map(|limit| ((limit.key, index(now, limit.length_s)), 1)).collect()))
    }

    /// Reserves up to `calls` calls without a token, made to open connections or to keep them: they cost the host's
    /// budget and no account's, and leave alone what is kept for emergencies. Returns how many may be made.
    pub fn reserve_warm(&mut self, settings: &PlatformSettings, calls: u32, reserve: f64, now: Time) -> (u32, Calls) {
        let Some(limit) = host_limit(settings) else { return (calls, Calls::default()) };
        let window = index(now, limit.length_s);
        let left = allowed(&limit, Use::Post, reserve).saturating_sub(self.taken(&limit.key, window));
        let calls = calls.min(left);
        (calls, if calls > 0 { self.put_aside(vec![((limit.key, window), calls)]) } else { Calls::default() })
    }

    fn put_aside(&mut self, calls: Vec<(Window, u32)>) -> Calls {
        for (window, n) in &calls {
            *self.reserved.entry(window.clone()).or_default() += n;
        }
        Calls(calls)
    }

    /// They were committed, or will not be made.
    pub fn give_back(&mut self, calls: Calls) {
        for (window, n) in calls.0 {
            if let Some(reserved) = self.reserved.get_mut(&window) {
                *reserved = reserved.saturating_sub(n);
                if *reserved == 0 {
                    self.reserved.remove(&window);
                }
            }
        }
    }

    /// The windows before which nothing is asked any more, as the ledger is to forget them too.
    pub fn over(now: Time) -> Change {
        Change::ForgetCalls { hour: index(now, HOUR_S) - 2, day: index(now, DAY_S) - 1 }
    }

    pub fn forget(&mut self, hour: i64, day: i64) {
        self.used.retain(|(key, window), _| *window >= if key.starts_with(DAY) { day } else { hour });
    }

    fn taken(&self, key: &str, window: i64) -> u32 {
        let at = (key.to_owned(), window);
        let of = |counts: &BTreeMap<Window, u32>| counts.get(&at).copied().unwrap_or(0);
        of(&self.used).saturating_add(of(&self.reserved))
    }

    /// What is used of an account's day, and its limit, for `status` and metrics.
    pub fn day_of(&self, settings: &PlatformSettings, account: &AccountId, now: Time) -> (u32, Option<u32>) {
        let used = self.taken(&format!("{DAY}{account}"), index(now, DAY_S));
        (used, settings.limits.account_per_day)
    }
}

fn limits(settings: &PlatformSettings, account: &AccountId, publishes: bool) -> Vec<Limit> {
    let limits = &settings.limits;
    let mut all = Vec::with_capacity(3);
    if let (Some(most), true) = (limits.account_per_hour, publishes) {
        all.push(Limit { key: format!("hour {account}"), length_s: HOUR_S, most });
    }
    if let Some(most) = limits.account_per_day {
        all.push(Limit { key: format!("{DAY}{account}"), length_s: DAY_S, most });
    }
    all.extend(host_limit(settings));
    all
}

fn host_limit(settings: &PlatformSettings) -> Option<Limit> {
    let most = settings.limits.host_per_hour?;
    Some(Limit { key: format!("host {}", settings.name), length_s: HOUR_S, most })
}

/// How far into the window a use may go: routine stops twice the reserve short of an account's day.
fn allowed(limit: &Limit, use_: Use, reserve: f64) -> u32 {
    let part = |share: f64| (f64::from(limit.most) * (1.0 - share)).floor() as u32;
    let of_day = limit.key.starts_with(DAY);
    match use_ {
        Use::Emergency => limit.most,
        Use::Settle => part(reserve),
        Use::Post if of_day => part(2.0 * reserve),
        Use::Post => part(reserve),
    }
}

fn index(now: Time, length_s: i64) -> i64 {
    (now.timestamp() + ZONE_S).div_euclid(length_s)
}

/// The beginning of the next window, a moment after the platform's own.
fn next(now: Time, length_s: i64) -> Time {
    let start_s = (index(now, length_s) + 1) * length_s - ZONE_S;
    Utc.timestamp_opt(start_s, 0).single().unwrap_or(now) + TimeDelta::seconds(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::{Limits, ReadBack, Warm};
    use std::time::Duration;

    fn settings() -> PlatformSettings {
        PlatformSettings {
            name: "sina".into(),
            api: "weibo".to_owned(),
            base_url: String::new(),
            timeout: Duration::from_secs(10),
            limits: Limits {
                account_per_hour: Some(30),
                account_per_day: Some(100),
                host_per_hour: Some(15_000),
                connections: 8,
            },
            read_back: ReadBack { after: Vec::new(), settle: None },
            warm: Warm::default(),
            further: BTreeMap::new(),
        }
    }

    #[test]
    fn r29_routine_leaves_the_reserve_and_the_window_turns_at_the_platforms_hour() {
        let (settings, account) = (settings(), AccountId::from("sina:shanghai"));
        let now: Time = "2026-11-24T00:30:00Z".parse().unwrap();
        let mut budgets = Budgets::default();
        let mut take = |use_, publishes, now| budgets.reserve(&settings, &account, use_, publishes, 0.2, now);
        for n in 0..24 {
            assert!(take(Use::Post, true, now).is_ok(), "{n}");
        }
        assert_eq!(take(Use::Post, true, now).unwrap_err(), "2026-11-24T01:00:01Z".parse::<Time>().unwrap());
        for _ in 0..6 {
            assert!(take(Use::Emergency, true, now).is_ok(), "the reserve is the emergency's");
        }
        assert!(take(Use::Emergency, true, now).is_err());
        // 30 of the day are used; routine may go to 60, read-back to 80, an emergency to 100.
        let later = now + TimeDelta::hours(2);
        for _ in 0..30 {
            assert!(take(Use::Post, false, later).is_ok());
        }
        assert_eq!(take(Use::Post, false, later).unwrap_err(), "2026-11-24T16:00:01Z".parse::<Time>().unwrap());
        for _ in 0..20 {
            assert!(take(Use::Settle, false, later).is_ok());
        }
        assert!(take(Use::Settle, false, later).is_err());
        assert!(take(Use::Emergency, false, later).is_ok());
        assert!(take(Use::Post, true, later + TimeDelta::days(1)).is_ok());
    }

    #[test]
    fn calls_that_were_not_made_are_given_back_and_those_that_were_are_counted_once() {
        let (settings, account) = (settings(), AccountId::from("sina:shanghai"));
        let now: Time = "2026-11-24T00:30:00Z".parse().unwrap();
        let mut budgets = Budgets::default();
        let used = |budgets: &Budgets| budgets.day_of(&settings, &account, now).0;
        let calls = budgets.reserve(&settings, &account, Use::Post, true, 0.2, now).unwrap();
        assert_eq!(used(&budgets), 1);
        budgets.give_back(calls);
        assert_eq!(used(&budgets), 0);
        let calls = budgets.reserve(&settings, &account, Use::Post, true, 0.2, now).unwrap();
        for change in calls.changes() {
            let Change::Spend { key, window, calls } = change else { panic!("calls are spent") };
            budgets.count(&key, window, calls);
        }
        budgets.give_back(calls);
        assert_eq!(used(&budgets), 1);
    }
}
