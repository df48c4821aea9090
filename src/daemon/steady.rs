//! The time by which holds last: a wall clock that runs hours ahead for a moment ends no silence.
//!
//! One that stays there is believed after a while: until then a hold lasts longer than it would, which a person can end.
//! A clock that is put back is believed at once, since holds last longer by that too.

use std::time::Duration;

use chrono::TimeDelta;

use crate::clock::{Mono, Time};

/// The most that a clock which is put right by and by moves between two looks.
pub const SLACK: TimeDelta = TimeDelta::seconds(5);

/// How far a wall clock was stepped between two moments, each by it and by the clock that does not step.
pub fn stepped(from: (Time, Mono), to: (Time, Mono)) -> TimeDelta {
    let passed = TimeDelta::from_std(to.1.0.saturating_sub(from.1.0)).unwrap_or_default();
    to.0 - from.0 - passed
}

/// The wall clock without what it was put forward by of late.
#[derive(Debug)]
pub struct Steady {
    wall: Time,
    mono: Mono,
    /// Since when the clock has been ahead, and by how much.
    ahead: Option<(Mono, TimeDelta)>,
}

impl Steady {
    const BELIEVED: Duration = Duration::from_secs(600);

    pub fn at(wall: Time, mono: Mono) -> Steady {
        Steady { wall, mono, ahead: None }
    }

    /// By how much the wall clock is ahead of it now.
    pub fn ahead(&mut self, wall: Time, mono: Mono) -> TimeDelta {
        let by = stepped((self.wall, self.mono), (wall, mono));
        if by <= SLACK {
            *self = Steady::at(wall, mono);
            return TimeDelta::zero();
        }
        match self.ahead.filter(|(_, was)| (by - *was).abs() <= SLACK) {
            Some((since, _)) if mono.0.saturating_sub(since.0) >= Steady::BELIEVED => {
                *self = Steady::at(wall, mono);
                TimeDelta::zero()
            }
            Some(_) => by,
            None => {
                self.ahead = Some((mono, by));
                by
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r05_a_clock_that_runs_ahead_for_a_moment_is_not_believed_and_one_that_stays_there_is() {
        let start: Time = "2026-11-24T00:00:00Z".parse().unwrap();
        let mono = |s| Mono(Duration::from_secs(s));
        let wall = |s: u64| start + TimeDelta::seconds(s as i64);
        let hours = TimeDelta::hours(3);
        let mut steady = Steady::at(start, mono(0));
        // Put right by and by, it is no step.
        for s in 1..100 {
            assert_eq!(steady.ahead(wall(s) + TimeDelta::milliseconds(s as i64 * 100), mono(s)), TimeDelta::zero());
        }
        let drift = TimeDelta::milliseconds(9_900);
        assert_eq!(steady.ahead(wall(100) + drift + hours, mono(100)), hours);
        assert_eq!(steady.ahead(wall(104) + drift, mono(104)), TimeDelta::zero(), "it is right again");
        assert_eq!(steady.ahead(wall(200) + drift + hours, mono(200)), hours, "and ahead once more");
        assert_eq!(steady.ahead(wall(799) + drift + hours, mono(799)), hours);
        assert_eq!(steady.ahead(wall(801) + drift + hours, mono(801)), TimeDelta::zero(), "it stays there");
        assert_eq!(steady.ahead(wall(900), mono(900)), TimeDelta::zero(), "put back");
        assert_eq!(steady.ahead(wall(901), mono(901)), TimeDelta::zero());
    }
}
