//! Who may be connected: so many of one user, and the last seats are kept for duty.
//!
//! A local user who fills the socket takes seats from nobody but himself, and never the one that an
//! urgent post needs (R42).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::daemon::lock;

/// Connections at once; more would cost memory and files.
const MOST: usize = 512;
/// The commands use one each, a console a few.
const MOST_OF_ONE: usize = 128;
/// Seats that only the duty role and those above it take.
const FOR_DUTY: usize = 128;

/// Connections by uid.
#[derive(Default)]
pub struct Seats(Mutex<BTreeMap<u32, usize>>);

/// A connection's place; it is free again when this is dropped.
pub struct Seat {
    seats: Arc<Seats>,
    uid: u32,
}

impl Seats {
    /// A seat for this user, unless there is none. The role is looked up only when the rest is taken.
    pub fn take(self: &Arc<Self>, uid: u32, is_on_duty: impl FnOnce() -> bool) -> Option<Seat> {
        let (own, all) = {
            let taken = lock(&self.0);
            (taken.get(&uid).copied().unwrap_or(0), taken.values().sum::<usize>())
        };
        if own >= MOST_OF_ONE || all >= MOST || all >= MOST - FOR_DUTY && !is_on_duty() {
            return None;
        }
        *lock(&self.0).entry(uid).or_default() += 1;
        Some(Seat { seats: self.clone(), uid })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = lock(&self.seats.0);
        if let Some(own) = taken.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r42_nobody_takes_every_seat() {
        let seats = Arc::new(Seats::default());
        let mut taken = Vec::new();
        for uid in 1..=20 {
            taken.extend((0..1000).map_while(|_| seats.take(uid, || false)));
        }
        assert_eq!(taken.iter().filter(|s| s.uid == 1).count(), MOST_OF_ONE);
        assert_eq!(taken.len(), MOST - FOR_DUTY);
        let duty: Vec<Seat> = (0..1000).map_while(|_| seats.take(100, || true)).collect();
        assert_eq!(duty.len(), MOST_OF_ONE.min(FOR_DUTY), "whoever else is there");
        assert!(seats.take(101, || true).is_none(), "and then it is full");
        drop(duty);
        drop(taken);
        assert!(seats.take(1, || false).is_some());
        assert!(lock(&seats.0).is_empty());
    }
}
