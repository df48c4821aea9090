//! Accounts and platforms that asked to wait, and until when.
//!
//! An emergency asks once by itself, whatever routine was told, and obeys what it is told itself. Waiting counts the
//! clock that does not step; after a restart everybody asks anew.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use super::lock;
use crate::clock::Mono;
use crate::core::accounts::AccountId;
use crate::core::announcement::Priority;

#[derive(Default)]
pub struct Pauses(Mutex<BTreeMap<Asked, Mono>>);

/// An account, or a platform by its name, that asked to wait, and whether an emergency was told so.
type Asked = (String, bool);

impl Pauses {
    /// A platform told a delivery of this priority that its account, or all of it, has to wait.
    pub fn learn(&self, who: &str, priority: Priority, wait: Duration, now: Mono) {
        let mut pauses = lock(&self.0);
        pauses.retain(|_, until| *until > now);
        let until = pauses.entry((who.to_owned(), priority == Priority::Emergency)).or_insert(now);
        *until = (*until).max(Mono(now.0 + wait));
    }

    /// The time a delivery of this priority still has to wait for its account, or for its platform.
    pub fn left(&self, account: &AccountId, priority: Priority, now: Mono) -> Option<Duration> {
        let pauses = lock(&self.0);
        let of = |who: &str, is_urgent: bool| pauses.get(&(who.to_owned(), is_urgent)).copied();
        let waits = priority != Priority::Emergency || crate::planted("routine_keeps_it_waiting");
        let told: [Option<Mono>; 4] = [
            of(account.as_str(), true),
            of(account.platform(), true),
            of(account.as_str(), false).filter(|_| waits),
            of(account.platform(), false).filter(|_| waits),
        ];
        told.into_iter().flatten().max().map(|until| until.0.saturating_sub(now.0)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emergency_waits_for_what_it_was_told_itself_and_routine_for_both() {
        let (pauses, account) = (Pauses::default(), AccountId::from("sina:shanghai"));
        let at = |seconds| Mono(Duration::from_secs(seconds));
        pauses.learn("sina:shanghai", Priority::Routine, Duration::from_secs(600), at(0));
        assert_eq!(pauses.left(&account, Priority::Emergency, at(1)), None);
        assert_eq!(pauses.left(&account, Priority::Important, at(1)), Some(Duration::from_secs(599)));
        pauses.learn("sina", Priority::Emergency, Duration::from_secs(30), at(1));
        assert_eq!(pauses.left(&account, Priority::Emergency, at(1)), Some(Duration::from_secs(30)));
        assert_eq!(
            pauses.left(&AccountId::from("sina:shanghai/metro"), Priority::Routine, at(11)),
            Some(Duration::from_secs(20))
        );
        assert_eq!(pauses.left(&account, Priority::Emergency, at(31)), None);
    }
}
