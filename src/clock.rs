//! Real or simulated time, and chance from a seed.
//!
//! This is the only file that reads a clock, sleeps, or draws a number (`clippy.toml` forbids it
//! elsewhere). Scheduling follows the wall clock, which can be stepped; time-outs follow the
//! monotonic one, which cannot. A simulation runs on tokio's paused time and on a seed, so that the
//! same seed gives the same run.

use std::future::Future;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::Instant;

/// An instant in UTC, never finer than a microsecond: what the ledger keeps is what was compared.
pub type Time = DateTime<Utc>;

/// The kernel and tokio's timer wheel wake up to this much late; below it the real clock stays awake.
const AWAKE: Duration = Duration::from_millis(3);

/// A source of time and chance; clones share it.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Monotonic origin.
    origin: OnceLock<Instant>,
    /// Wall time at `origin` in microseconds; `None` when the wall clock is the machine's.
    simulated: Option<i64>,
    /// What a simulation has stepped its wall clock by, in microseconds.
    stepped: AtomicI64,
    /// Whether a simulated process is stopped.
    frozen: watch::Sender<bool>,
    /// State of the generator (SplitMix64).
    chance: AtomicU64,
}

/// A moment on the monotonic clock, in time since an origin of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mono(pub Duration);

impl Clock {
    /// The machine's clock, its generator seeded from the clock and the process id.
    #[expect(clippy::disallowed_methods, reason = "this is the file that may")]
    pub fn real() -> Clock {
        let seed = Utc::now().timestamp_micros().unsigned_abs() ^ (u64::from(std::process::id()) << 40);
        Clock(Arc::new(Inner {
            origin: OnceLock::new(),
            simulated: None,
            stepped: AtomicI64::new(0),
            frozen: watch::Sender::new(false),
            chance: AtomicU64::new(seed),
        }))
    }

    /// A clock that starts at `start`, runs on tokio's (paused) time and draws from `seed`.
    pub fn simulated(start: Time, seed: u64) -> Clock {
        Clock(Arc::new(Inner {
            origin: OnceLock::new(),
            simulated: Some(start.timestamp_micros()),
            stepped: AtomicI64::new(0),
            frozen: watch::Sender::new(false),
            chance: AtomicU64::new(seed),
        }))
    }

    pub fn is_simulated(&self) -> bool {
        self.0.simulated.is_some()
    }

    /// The wall clock, to the microsecond.
    #[expect(clippy::disallowed_methods, reason = "this is the file that may")]
    pub fn now(&self) -> Time {
        let micros = match self.0.simulated {
            Some(start) => start + self.mono().0.as_micros() as i64 + self.0.stepped.load(Ordering::SeqCst),
            None => Utc::now().timestamp_micros(),
        };
        from_micros(micros)
    }

    /// The monotonic clock: it neither steps nor stops, also while the machine is suspended (`CLOCK_BOOTTIME`).
    #[expect(clippy::disallowed_methods, reason = "this is the file that may")]
    pub fn mono(&self) -> Mono {
        if self.is_simulated() {
            // The first reading is the origin: a simulated clock may be made before its runtime runs.
            let origin = self.0.origin.get_or_init(Instant::now);
            return Mono(Instant::now().duration_since(*origin));
        }
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Mono(Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32))
    }

    /// Steps the wall clock of a simulation, as an operator or NTP would.
    pub fn step(&self, by: TimeDelta) {
        let micros = by.num_microseconds().unwrap_or(0);
        self.0.stepped.fetch_add(micros, Ordering::SeqCst);
    }

    /// Stops the process of a simulation, as SIGSTOP does, or lets it go on: while it is stopped nobody who waits on
    /// this clock wakes, and time passes all the same.
    pub fn freeze(&self, is_frozen: bool) {
        self.0.frozen.send_replace(is_frozen);
    }

    /// Returns when the process of a simulation is not stopped.
    pub async fn thawed(&self) {
        if *self.0.frozen.borrow() {
            drop(self.0.frozen.subscribe().wait_for(|frozen| !frozen).await);
        }
    }

    /// Sleeps on the monotonic clock; wakes up to a few milliseconds late.
    #[expect(clippy::disallowed_methods, reason = "this is the file that may")]
    pub async fn sleep(&self, for_: Duration) {
        tokio::time::sleep(for_).await;
        self.thawed().await;
    }

    /// Returns at `at` on the wall clock, never before it, and exactly: the last milliseconds are
    /// spent awake. A wall clock that is stepped meanwhile is noticed within a second.
    pub async fn sleep_until(&self, at: Time) {
        loop {
            let left = (at - self.now()).to_std().unwrap_or(Duration::ZERO);
            if left.is_zero() {
                return;
            }
            if self.is_simulated() {
                // tokio's wheel has millisecond steps, and a simulation may sleep them exactly.
                self.sleep(left.min(Duration::from_secs(1)).max(Duration::from_millis(1))).await;
            } else if left > AWAKE {
                self.sleep((left - AWAKE).min(Duration::from_secs(1))).await;
            } else if left > Duration::from_micros(150) {
                tokio::task::yield_now().await;
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Runs `work`, or returns `None` once `limit` has passed on the monotonic clock.
    #[expect(clippy::disallowed_methods, reason = "this is the file that may")]
    pub async fn timeout<F: Future>(&self, limit: Duration, work: F) -> Option<F::Output> {
        if let Ok(done) = tokio::time::timeout(limit, work).await {
            return Some(done);
        }
        self.thawed().await;
        None
    }

    /// Work that blocks, on a thread for such work. In a simulation it is done here, while other tasks have some turns
    /// before and after: how many, the seed decides, and not the machine.
    pub async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        if !self.is_simulated() {
            return tokio::task::spawn_blocking(work).await;
        }
        self.give_way().await;
        let done = work();
        self.give_way().await;
        Ok(done)
    }

    async fn give_way(&self) {
        for _ in 0..self.random() % 4 {
            tokio::task::yield_now().await;
        }
    }

    /// The next number of the generator (SplitMix64: small, fast, and the same everywhere).
    pub fn random(&self) -> u64 {
        const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.chance.fetch_add(GAMMA, Ordering::SeqCst).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 (included) to 1 (excluded).
    pub fn chance(&self) -> f64 {
        (self.random() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The instant `micros` microseconds after 1970; out of range becomes the nearest representable one.
pub fn from_micros(micros: i64) -> Time {
    DateTime::from_timestamp_micros(micros).unwrap_or(if micros < 0 { Time::MIN_UTC } else { Time::MAX_UTC })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn simulated_time_runs_on_tokio_and_can_be_stepped() {
        let start = from_micros(1_700_000_000_000_000);
        let clock = Clock::simulated(start, 7);
        assert_eq!(clock.now(), start);
        clock.sleep_until(start + TimeDelta::hours(24)).await;
        assert_eq!(clock.now(), start + TimeDelta::hours(24));
        clock.step(TimeDelta::hours(-1));
        assert_eq!(clock.now(), start + TimeDelta::hours(23));
        assert_eq!(clock.mono().0, Duration::from_secs(24 * 3600));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_wakes_while_the_process_is_stopped() {
        let clock = Clock::simulated(from_micros(0), 7);
        assert_eq!(clock.mono().0, Duration::ZERO);
        clock.freeze(true);
        let (sleeper, waker) = (clock.clone(), clock.clone());
        let slept = tokio::spawn(async move {
            sleeper.sleep(Duration::from_secs(5)).await;
            sleeper.mono().0
        });
        tokio::spawn(async move {
            #[expect(clippy::disallowed_methods, reason = "not the clock that is stopped")]
            tokio::time::sleep(Duration::from_secs(300)).await;
            waker.freeze(false);
        });
        assert_eq!(slept.await.unwrap(), Duration::from_secs(300));
    }

    #[test]
    fn a_seed_repeats_its_numbers() {
        let draw = |seed| {
            let clock = Clock::simulated(from_micros(0), seed);
            [clock.random(), clock.random(), clock.random()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let clock = Clock::simulated(from_micros(0), 3);
        assert!((0..1000).all(|_| (0.0..1.0).contains(&clock.chance())));
    }
}
