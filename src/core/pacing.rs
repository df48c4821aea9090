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

/// Calls used so far, by key and window.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    used: BTreeMap<(String, i64), u32>,
}

const HOUR_S: i64 = 3600;
const DAY_S: i64 = 86_400;
/// How the keys of an account's day begin; all other windows are hours.
pub const DAY: &str = "day ";
/// The platforms' windows turn at full hours and midnights of China's zone.
const ZONE_S: i64 = 8 * 3600;

/// One counted window.
struct Window {
    key: String,
    length_s: i64,
    limit: u32,
}

impl Budgets {
    /// The count of a window, as the ledger has it.
    pub fn load(&mut self, key: String, window: i64, calls: u32) {
        self.used.insert((key, window), calls);
    }

    /// Takes one call of `account` out of every window it counts to, or says when to ask again.
    /// Returns what the ledger has to remember.
    pub fn take(
        &mut self,
        settings: &PlatformSettings,
        account: &AccountId,
        use_: Use,
        publishes: bool,
        reserve: f64,
        now: Time,
    ) -> Result<Vec<Change>, Time> {
        let windows = windows(settings, account, publishes);
        for window in &windows {
            let used = self.used(&window.key, index(now, window.length_s));
            if used >= allowed(window, use_, reserve) {
                return Err(next(now, window.length_s));
            }
        }
        Ok(windows.into_iter().map(|window| self.count(window, 1, now)).collect())
    }

    /// Takes up to `calls` calls without a token, made to open connections or to keep them: they cost the host's
    /// budget and no account's, and leave alone what is kept for emergencies. Returns how many may be made, and what
    /// the ledger has to remember.
    pub fn warmed(
        &mut self,
        settings: &PlatformSettings,
        calls: u32,
        reserve: f64,
        now: Time,
    ) -> (u32, Option<Change>) {
        let Some(window) = host_window(settings) else { return (calls, None) };
        let at = index(now, window.length_s);
        let left = allowed(&window, Use::Post, reserve).saturating_sub(self.used(&window.key, at));
        let calls = calls.min(left);
        (calls, (calls > 0).then(|| self.count(window, calls, now)))
    }

    fn count(&mut self, window: Window, calls: u32, now: Time) -> Change {
        let at = index(now, window.length_s);
        *self.used.entry((window.key.clone(), at)).or_default() += calls;
        Change::Spend { key: window.key, window: at, calls }
    }

    /// Forgets windows that are over; the ledger is to do the same.
    pub fn forget_before(&mut self, now: Time) -> Change {
        let (hour, day) = (index(now, HOUR_S) - 2, index(now, DAY_S) - 1);
        self.used.retain(|(key, window), _| *window >= if key.starts_with(DAY) { day } else { hour });
        Change::ForgetCalls { hour, day }
    }

    fn used(&self, key: &str, window: i64) -> u32 {
        self.used.get(&(key.to_owned(), window)).copied().unwrap_or(0)
    }

    /// What is used of an account's day, and its limit, for `status` and metrics.
    pub fn day_of(&self, settings: &PlatformSettings, account: &AccountId, now: Time) -> (u32, Option<u32>) {
        let used = self.used(&format!("{DAY}{account}"), index(now, DAY_S));
        (used, settings.limits.account_per_day)
    }
}

fn windows(settings: &PlatformSettings, account: &AccountId, publishes: bool) -> Vec<Window> {
    let limits = &settings.limits;
    let mut windows = Vec::with_capacity(3);
    if let (Some(limit), true) = (limits.account_per_hour, publishes) {
        windows.push(Window { key: format!("hour {account}"), length_s: HOUR_S, limit });
    }
    if let Some(limit) = limits.account_per_day {
        windows.push(Window { key: format!("{DAY}{account}"), length_s: DAY_S, limit });
    }
    windows.extend(host_window(settings));
    windows
}

fn host_window(settings: &PlatformSettings) -> Option<Window> {
    let limit = settings.limits.host_per_hour?;
    Some(Window { key: format!("host {}", settings.name), length_s: HOUR_S, limit })
}

/// How far into the window a use may go: routine stops twice the reserve short of an account's day.
fn allowed(window: &Window, use_: Use, reserve: f64) -> u32 {
    let part = |share: f64| (f64::from(window.limit) * (1.0 - share)).floor() as u32;
    let of_day = window.key.starts_with(DAY);
    match use_ {
        Use::Emergency => window.limit,
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
        let mut take = |use_, publishes, now| budgets.take(&settings, &account, use_, publishes, 0.2, now);
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
}
