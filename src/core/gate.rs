//! May this go now, and if not, why: holds, exemptions, confirmations, withdrawals.
//!
//! The gate is looked at when a delivery is armed and once more, in memory, right before its request
//! is written. It errs to silence: an emergency that lacks a person's word never passes.

use std::collections::{BTreeMap, BTreeSet};

use super::Time;
use super::accounts::AccountId;
use super::announcement::{AnnouncementId, Body, ContentHash, Priority};
use super::delivery::DeliveryId;
use super::policy::Emergency;
use super::words::{Words, words};
use serde::Serialize;

/// Publishing of routine posts stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Hold {
    pub id: String,
    pub reason: String,
    #[schema(value_type = Option<chrono::DateTime<chrono::Utc>>)]
    pub until: Option<Time>,
    /// `None` holds every account.
    pub accounts: Option<BTreeSet<AccountId>>,
    /// Who began it.
    pub owner: String,
    #[schema(value_type = chrono::DateTime<chrono::Utc>)]
    pub begun: Time,
}

impl Hold {
    /// Whether it stands in the way of this account at that moment. One that has ended never does again.
    pub fn covers(&self, account: &AccountId, at: Time) -> bool {
        self.until.is_none_or(|until| at < until) && self.accounts.as_ref().is_none_or(|a| a.contains(account))
    }
}

/// Who gave their word, as the kernel names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub uid: u32,
    pub name: String,
}

/// The gate's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Go,
    Closed { until: Option<Time>, why: Words },
    Withdrawn,
}

/// What stands in the way, as of now; kept in memory, rebuilt from the ledger at start.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    pub holds: Vec<Hold>,
    /// Who gave their word to exactly this content of this announcement, in that order: the same words sent another
    /// day need their persons anew.
    pub confirmed: BTreeMap<(AnnouncementId, ContentHash), Vec<Person>>,
    /// Deliveries somebody withdrew after they were armed: their requests must not begin.
    pub withdrawn: BTreeSet<DeliveryId>,
}

/// What the gate looks at.
pub struct Asking<'a> {
    pub delivery: DeliveryId,
    pub announcement: &'a AnnouncementId,
    pub account: &'a AccountId,
    pub content: &'a ContentHash,
    pub body: &'a Body,
    /// When the unconfirmed are given up.
    pub released: Time,
}

impl Gate {
    pub fn verdict(&self, asking: &Asking<'_>, now: Time, emergency: &Emergency) -> Verdict {
        if self.withdrawn.contains(&asking.delivery) {
            return Verdict::Withdrawn;
        }
        if asking.body.priority == Priority::Emergency {
            return self.confirmed_enough(asking, emergency);
        }
        if asking.body.hold_exempt.is_some() {
            return Verdict::Go;
        }
        match self.holds.iter().find(|h| h.covers(asking.account, now)) {
            Some(hold) => {
                let reason = &hold.reason;
                Verdict::Closed { until: hold.until, why: words!("静默中：{reason}", "held: {reason}") }
            }
            None => Verdict::Go,
        }
    }

    /// Who gave their word.
    pub fn persons(&self, announcement: &AnnouncementId, content: &ContentHash) -> &[Person] {
        self.confirmed.get(&(announcement.clone(), content.clone())).map_or(&[], Vec::as_slice)
    }

    /// Somebody gave their word, once.
    pub fn confirm(&mut self, announcement: &AnnouncementId, content: &ContentHash, person: Person) {
        let persons = self.confirmed.entry((announcement.clone(), content.clone())).or_default();
        if !persons.iter().any(|p| p.uid == person.uid) {
            persons.push(person);
        }
    }

    /// An emergency of the queue has no sender, so all of its persons, at least one, confirm it.
    fn confirmed_enough(&self, asking: &Asking<'_>, emergency: &Emergency) -> Verdict {
        let needed = emergency.persons(asking.body);
        let have = self.persons(asking.announcement, asking.content).len();
        if have >= needed {
            return Verdict::Go;
        }
        let until = asking.released + emergency.confirm_within;
        Verdict::Closed {
            until: Some(until),
            why: words!(
                "等待确认：需要 {needed} 人，已有 {have} 人",
                "waiting for confirmation: {needed} persons needed, {have} so far"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::announcement::{Level, Timing};
    use crate::core::policy::CatchUp;
    use chrono::{TimeDelta, TimeZone, Utc};

    fn body(priority: Priority) -> Body {
        Body {
            text: "停水通知".to_owned(),
            link: None,
            images: Vec::new(),
            variants: BTreeMap::new(),
            to: vec!["**".to_owned()],
            except: Vec::new(),
            priority,
            level: (priority == Priority::Emergency).then_some(Level::Red),
            timing: Timing::Now,
            expires_after: None,
            catch_up: Some(CatchUp::None),
            together: None,
            supersedes: None,
            hold_exempt: None,
            standard: false,
            persons: None,
            silence: None,
            follows: None,
            closing: None,
        }
    }

    #[test]
    fn routine_waits_for_a_hold_and_an_emergency_for_its_persons() {
        let now = Utc.with_ymd_and_hms(2026, 11, 24, 0, 0, 0).unwrap();
        let (account, hash) = (AccountId::from("sina:shanghai"), ContentHash::from("h"));
        let announcement = AnnouncementId::from("a");
        let mut gate = Gate::default();
        let emergency = Emergency::default();
        let ask = |gate: &Gate, body: &Body| {
            let asking = Asking {
                delivery: DeliveryId(1),
                announcement: &announcement,
                account: &account,
                content: &hash,
                body,
                released: now,
            };
            gate.verdict(&asking, now, &emergency)
        };
        assert_eq!(ask(&gate, &body(Priority::Routine)), Verdict::Go);
        gate.holds.push(Hold {
            id: "h1".to_owned(),
            reason: "暴雨".to_owned(),
            until: Some(now + TimeDelta::hours(1)),
            accounts: None,
            owner: "duty(1000)".to_owned(),
            begun: now,
        });
        assert!(matches!(ask(&gate, &body(Priority::Routine)), Verdict::Closed { .. }));
        let exempt = Body { hold_exempt: Some("交通保障".to_owned()), ..body(Priority::Routine) };
        assert_eq!(ask(&gate, &exempt), Verdict::Go);

        let red = body(Priority::Emergency);
        assert!(matches!(ask(&gate, &red), Verdict::Closed { .. }), "nobody has confirmed it");
        let person = |uid: u32| Person { uid, name: format!("duty{uid}") };
        gate.confirm(&announcement, &hash, person(1000));
        gate.confirm(&announcement, &hash, person(1000));
        assert!(matches!(ask(&gate, &red), Verdict::Closed { .. }), "one of two");
        gate.confirm(&announcement, &hash, person(1001));
        assert_eq!(ask(&gate, &red), Verdict::Go);
        gate.withdrawn.insert(DeliveryId(1));
        assert_eq!(ask(&gate, &red), Verdict::Withdrawn);
    }
}
