//! Accounts and platforms that asked to wait, and until when.
//!
//! An emergency asks once by itself, whatever routine was told, and obeys what it is told itself; so do what takes a
//! post down and what looks for one. Waiting counts the clock that does not step; after a restart everybody asks anew.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use super::lock;
use crate::clock::Mono;
use crate::core::accounts::AccountId;
use crate::core::announcement::Priority;
use crate::core::delivery::Delivery;

#[derive(Default)]
pub struct Pauses(Mutex<BTreeMap<String, Told>>);

/// Who was told to wait by an account, or by a platform of that name, and until when.
type Told = BTreeMap<Asker, Mono>;

/// A kind of request that is told to wait, and asks for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asker {
    pub what: What,
    pub is_urgent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Post,
    /// Nothing that stands wrongly stands longer because posting was told to wait.
    TakeDown,
    /// Reading a timeline; what is to be posted does not wait for what that was told.
    Look,
}

impl What {
    pub fn of(self, row: &Delivery) -> Asker {
        Asker { what: self, is_urgent: row.priority == Priority::Emergency }
    }
}

impl Asker {
    /// An emergency obeys what an emergency was told that asked the same; routine what anybody was told who asked the same,
    /// and what is to be posted of it whatever was told.
    fn obeys(self, told: Asker) -> bool {
        let is_own = told.what == self.what && (told.is_urgent || !self.is_urgent);
        let is_routine = self.what == What::Post && !self.is_urgent;
        is_own || is_routine || crate::planted("routine_keeps_it_waiting")
    }
}

impl Pauses {
    /// A platform told somebody that the account, or all of it, has to wait.
    pub fn learn(&self, who: &str, asker: Asker, wait: Duration, now: Mono) {
        let mut pauses = lock(&self.0);
        pauses.retain(|_, told| told.values().any(|until| *until > now));
        let until = pauses.entry(who.to_owned()).or_default().entry(asker).or_insert(now);
        *until = (*until).max(Mono(now.0 + wait));
    }

    /// The time this one still has to wait for the account, or for its platform.
    pub fn left(&self, account: &AccountId, asker: Asker, now: Mono) -> Option<Duration> {
        let pauses = lock(&self.0);
        let told = [account.as_str(), account.platform()].into_iter().filter_map(|who| pauses.get(who)).flatten();
        let until = told.filter(|(told, _)| asker.obeys(**told)).map(|(_, until)| *until).max();
        until.map(|until| until.0.saturating_sub(now.0)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn asker(what: What, is_urgent: bool) -> Asker {
        Asker { what, is_urgent }
    }

    #[test]
    fn an_emergency_waits_for_what_an_emergency_was_told_and_routine_for_all() {
        let (pauses, account) = (Pauses::default(), AccountId::from("sina:shanghai"));
        let at = |seconds| Mono(Duration::from_secs(seconds));
        let (routine, emergency) = (asker(What::Post, false), asker(What::Post, true));
        pauses.learn("sina:shanghai", routine, Duration::from_secs(600), at(0));
        assert_eq!(pauses.left(&account, emergency, at(1)), None);
        assert_eq!(pauses.left(&account, routine, at(1)), Some(Duration::from_secs(599)));
        pauses.learn("sina", emergency, Duration::from_secs(30), at(1));
        assert_eq!(pauses.left(&account, emergency, at(1)), Some(Duration::from_secs(30)));
        let metro = AccountId::from("sina:shanghai/metro");
        assert_eq!(pauses.left(&metro, routine, at(11)), Some(Duration::from_secs(20)));
        assert_eq!(pauses.left(&account, emergency, at(31)), None);
    }

    #[test]
    fn what_reading_and_taking_down_were_told_they_obey_themselves_and_an_emergencys_neither() {
        for what in [What::TakeDown, What::Look] {
            let (pauses, account) = (Pauses::default(), AccountId::from("sina:shanghai"));
            let left = |who: Asker| pauses.left(&account, who, Mono(Duration::from_secs(1))).is_some();
            pauses.learn("sina", asker(what, false), Duration::from_secs(60), Mono(Duration::ZERO));
            assert!(left(asker(what, false)) && left(asker(What::Post, false)));
            assert!(!left(asker(what, true)) && !left(asker(What::Post, true)));
            pauses.learn("sina", asker(what, true), Duration::from_secs(60), Mono(Duration::ZERO));
            assert!(left(asker(what, true)) && !left(asker(What::Post, true)));
        }
    }
}
