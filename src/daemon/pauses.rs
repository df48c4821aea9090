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

#[derive(Default)]
pub struct Pauses(Mutex<BTreeMap<String, Told>>);

/// Who was told to wait by an account, or by a platform of that name, and until when.
type Told = BTreeMap<Asker, Mono>;

/// A kind of request that is told to wait, and asks for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asker {
    Routine,
    Emergency,
    /// Nothing that stands wrongly stands longer because posting was told to wait.
    TakeDown,
    /// Reading a timeline; what is to be posted does not wait for what that was told.
    Look,
}

impl From<Priority> for Asker {
    fn from(priority: Priority) -> Asker {
        if priority == Priority::Emergency { Asker::Emergency } else { Asker::Routine }
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

    /// The time this one still has to wait for the account, or for its platform. Routine waits for all of them.
    pub fn left(&self, account: &AccountId, asker: Asker, now: Mono) -> Option<Duration> {
        let obeys =
            |told: Asker| told == asker || asker == Asker::Routine || crate::planted("routine_keeps_it_waiting");
        let pauses = lock(&self.0);
        let told = [account.as_str(), account.platform()].into_iter().filter_map(|who| pauses.get(who)).flatten();
        let until = told.filter(|(asker, _)| obeys(**asker)).map(|(_, until)| *until).max();
        until.map(|until| until.0.saturating_sub(now.0)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emergency_waits_for_what_it_was_told_itself_and_routine_for_both() {
        let (pauses, account) = (Pauses::default(), AccountId::from("sina:shanghai"));
        let at = |seconds| Mono(Duration::from_secs(seconds));
        pauses.learn("sina:shanghai", Asker::Routine, Duration::from_secs(600), at(0));
        assert_eq!(pauses.left(&account, Asker::Emergency, at(1)), None);
        assert_eq!(pauses.left(&account, Asker::Routine, at(1)), Some(Duration::from_secs(599)));
        pauses.learn("sina", Asker::Emergency, Duration::from_secs(30), at(1));
        assert_eq!(pauses.left(&account, Asker::Emergency, at(1)), Some(Duration::from_secs(30)));
        assert_eq!(
            pauses.left(&AccountId::from("sina:shanghai/metro"), Asker::Routine, at(11)),
            Some(Duration::from_secs(20))
        );
        assert_eq!(pauses.left(&account, Asker::Emergency, at(31)), None);
        assert_eq!(pauses.left(&account, Asker::TakeDown, at(1)), None);
        pauses.learn("sina", Asker::TakeDown, Duration::from_secs(30), at(31));
        assert_eq!(pauses.left(&account, Asker::TakeDown, at(32)), Some(Duration::from_secs(29)));
        assert_eq!(pauses.left(&account, Asker::Emergency, at(32)), None);
        pauses.learn("sina", Asker::Look, Duration::from_secs(60), at(32));
        assert_eq!(pauses.left(&account, Asker::Look, at(33)), Some(Duration::from_secs(59)));
        assert_eq!(pauses.left(&account, Asker::Emergency, at(33)), None);
    }
}
