//! Who may be connected: so many of one user, few without a role, and the last seats for duty.
//!
//! A local user who fills the socket takes seats from nobody but himself, and never the one that an urgent post needs
//! (R42). Nobody is turned away at the door: whoever comes is seated, and where there is no seat the one of his own that
//! has been idle for longest ends; a full house ends one of those who have most.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::peer::Role;
use crate::clock::Mono;
use crate::daemon::lock;

/// Connections at once; more would cost memory and files.
const MOST: usize = 512;
/// The commands use one each, a console a few.
const MOST_OF_ONE: usize = 128;
/// Of a user who has no role, or of whom nobody knows it yet: a request says it.
const MOST_OF_A_STRANGER: usize = 16;
const MOST_OF_STRANGERS: usize = 64;
/// Seats that only the duty role and those above it take.
const FOR_DUTY: usize = 128;

/// What a user may take, from the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Stranger,
    Known,
    Duty,
}

impl Rank {
    fn of(role: Option<Role>) -> Rank {
        match role {
            None | Some(Role::None) => Rank::Stranger,
            Some(Role::View | Role::Edit) => Rank::Known,
            Some(Role::Duty | Role::Admin) => Rank::Duty,
        }
    }

    fn most_of_one(self) -> usize {
        if self == Rank::Stranger { MOST_OF_A_STRANGER } else { MOST_OF_ONE }
    }

    /// Of all who rank no higher.
    fn most_of_all(self) -> usize {
        match self {
            Rank::Stranger => MOST_OF_STRANGERS,
            Rank::Known => MOST - FOR_DUTY,
            Rank::Duty => MOST,
        }
    }
}

/// The last time anything came or went on a connection.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    pub fn beats(&self, now: Mono) {
        self.0.store(u64::try_from(now.0.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn last(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Seated {
    uid: u32,
    rank: Rank,
    pulse: Pulse,
    leaves: CancellationToken,
}

/// Everybody who is connected.
#[derive(Default)]
pub struct Seats(Mutex<BTreeMap<u64, Seated>>);

/// A connection's place; it is free again when this is dropped.
pub struct Seat {
    pub seats: Arc<Seats>,
    n: u64,
    pub pulse: Pulse,
    /// Its place is another's: it ends.
    pub leaves: CancellationToken,
}

impl Seats {
    /// A seat for this user, as far as his role is known.
    pub fn take(self: &Arc<Self>, uid: u32, role: Option<Role>, now: Mono) -> Seat {
        let (pulse, leaves, rank) = (Pulse::default(), CancellationToken::new(), Rank::of(role));
        pulse.beats(now);
        let mut seated = lock(&self.0);
        let n = seated.last_key_value().map_or(0, |(n, _)| n + 1);
        seated.insert(n, Seated { uid, rank, pulse: pulse.clone(), leaves: leaves.clone() });
        make_room(&mut seated, uid, n);
        Seat { seats: self.clone(), n, pulse, leaves }
    }

    /// A request has shown this user's role.
    pub fn has_role(&self, uid: u32, role: Role) {
        for seat in lock(&self.0).values_mut().filter(|seat| seat.uid == uid) {
            seat.rank = Rank::of(Some(role));
        }
    }
}

/// Ends connections until everybody has no more than is his; the newest stays.
fn make_room(seated: &mut BTreeMap<u64, Seated>, uid: u32, newest: u64) {
    let rank = seated[&newest].rank;
    let own = |seat: &Seated| seat.uid == uid;
    while seated.values().filter(|seat| own(seat)).count() > rank.most_of_one() {
        leave(seated, newest, own);
    }
    for rank in [Rank::Stranger, Rank::Known, Rank::Duty] {
        let is_below = |seat: &Seated| seat.rank <= rank;
        while seated.values().filter(|seat| is_below(seat)).count() > rank.most_of_all() {
            let mut of_each: BTreeMap<u32, usize> = BTreeMap::new();
            for seat in seated.values().filter(|seat| is_below(seat)) {
                *of_each.entry(seat.uid).or_default() += 1;
            }
            let most = of_each.into_iter().max_by_key(|(_, n)| *n).map(|(uid, _)| uid);
            leave(seated, newest, |seat| is_below(seat) && Some(seat.uid) == most);
        }
    }
}

/// Ends the one of these that has been idle for longest.
fn leave(seated: &mut BTreeMap<u64, Seated>, newest: u64, which: impl Fn(&Seated) -> bool) {
    let others = seated.iter().filter(|(n, seat)| **n != newest && which(seat));
    let idlest = others.min_by_key(|(_, seat)| seat.pulse.last()).map(|(n, _)| *n);
    if let Some(seat) = idlest.or(Some(newest)).and_then(|n| seated.remove(&n)) {
        seat.leaves.cancel();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.seats.0).remove(&self.n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(ms: u64) -> Mono {
        Mono(Duration::from_millis(ms))
    }

    fn open(seats: &[Seat]) -> usize {
        seats.iter().filter(|seat| !seat.leaves.is_cancelled()).count()
    }

    #[test]
    fn r42_nobody_takes_every_seat() {
        let seats = Arc::new(Seats::default());
        let mut of_each: Vec<Vec<Seat>> = Vec::new();
        for uid in 1..=20 {
            of_each.push((0..300).map(|n| seats.take(uid, Some(Role::View), at(n))).collect());
        }
        let taken: usize = of_each.iter().map(|seats| open(seats)).sum();
        assert_eq!(taken, MOST - FOR_DUTY);
        assert!(of_each.iter().all(|seats| open(seats) > 0), "nobody is turned out for another who has more");
        let duty: Vec<Seat> = (0..1000).map(|n| seats.take(100, Some(Role::Duty), at(n))).collect();
        assert_eq!(open(&duty), MOST_OF_ONE, "whoever else is there");
        let other = seats.take(101, Some(Role::Duty), at(0));
        assert!(!other.leaves.is_cancelled(), "whoever comes is seated");
        drop((of_each, duty, other));
        assert!(lock(&seats.0).is_empty());
    }

    #[test]
    fn r42_the_idlest_of_ones_own_makes_room() {
        let seats = Arc::new(Seats::default());
        let own: Vec<Seat> = (0..MOST_OF_ONE as u64).map(|n| seats.take(7, Some(Role::Duty), at(n))).collect();
        own[0].pulse.beats(at(1000));
        let next = seats.take(7, Some(Role::Duty), at(1001));
        assert!(own[1].leaves.is_cancelled() && !own[0].leaves.is_cancelled() && !next.leaves.is_cancelled());
        assert_eq!(open(&own), MOST_OF_ONE - 1);
    }

    #[test]
    fn r42_strangers_have_few_seats_and_take_none_from_who_is_known() {
        let seats = Arc::new(Seats::default());
        let officer = seats.take(1, None, at(0));
        let mut strangers: Vec<Seat> = Vec::new();
        for uid in 10..20 {
            strangers.extend((1..100).map(|n| seats.take(uid, None, at(n))));
        }
        assert_eq!(open(&strangers), MOST_OF_STRANGERS - 1);
        assert!(!officer.leaves.is_cancelled(), "though he has been idle for longest, and is not known yet");
        seats.has_role(1, Role::Duty);
        let more: Vec<Seat> =
            (0..MOST_OF_A_STRANGER as u64 + 5).map(|n| seats.take(1, Some(Role::Duty), at(n))).collect();
        assert_eq!(open(&more), more.len());
    }
}
