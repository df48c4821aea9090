//! May this go now, and if not, why: holds, exemptions, confirmations, accounts that are closed.
//!
//! The gate is asked when a delivery is armed and once more, in memory, right before the first byte of its
//! request. It errs to silence: an emergency that lacks a person's confirmation never passes, and a routine post
//! that a hold came over passes only after a person has released it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;

use super::Time;
use super::accounts::AccountId;
use super::announcement::{AnnouncementId, Body, ContentHash, Priority};
use super::change::AnnouncementRow;
use super::delivery::Cause;
use super::policy::Emergency;
use super::words::{Words, words};
use serde::{Deserialize, Serialize};

/// Publishing of routine posts stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Hold {
    pub id: String,
    pub reason: String,
    #[schema(value_type = Option<chrono::DateTime<chrono::Utc>>)]
    pub until: Option<Time>,
    /// `None` holds every account.
    pub accounts: Option<BTreeSet<AccountId>>,
    /// The selectors these were named by: an account that they mean while it stands is held too.
    #[serde(skip)]
    pub named: Option<Choice>,
    /// Who began it.
    pub owner: String,
    #[schema(value_type = chrono::DateTime<chrono::Utc>)]
    pub begun: Time,
    /// The emergency's post that brought it, if one did.
    pub post: Option<AnnouncementId>,
    /// When it was ended, by a person or because its time was over.
    #[serde(skip)]
    pub ended: Option<Time>,
    /// One more with each change.
    #[serde(skip)]
    pub version: i64,
}

/// Accounts as a person names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    pub to: Vec<String>,
    pub except: Vec<String>,
}

impl Hold {
    /// Whether it stands at that moment. One that was ended never stands again.
    pub fn stands(&self, at: Time) -> bool {
        self.ended.is_none() && self.until.is_none_or(|until| at < until)
    }

    /// Whether somebody ended it before its time, and not before this moment.
    pub fn was_ended_since(&self, moment: Time) -> bool {
        self.ended.is_some_and(|ended| ended >= moment && self.until.is_none_or(|until| ended < until))
    }

    /// Whether it stands in the way of this account at that moment.
    pub fn covers(&self, account: &AccountId, at: Time) -> bool {
        self.stands(at) && self.concerns(account)
    }

    pub fn concerns(&self, account: &AccountId) -> bool {
        self.accounts.as_ref().is_none_or(|a| a.contains(account))
    }

    /// Whether it stood at any moment between these two.
    fn overlaps(&self, from: Time, to: Time) -> bool {
        let end = [self.until, self.ended].into_iter().flatten().min();
        self.begun <= to && end.is_none_or(|end| from < end)
    }
}

/// A person who confirmed, as the kernel names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub uid: u32,
    pub name: String,
}

/// The gate's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Go,
    Held {
        cause: Cause,
        until: Option<Time>,
        why: Words,
    },
    /// Its account gets nothing any more.
    Closed(Words),
}

/// Holds and confirmations, as committed changes have them; kept in memory, rebuilt from the ledger at start.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// Also those of the last weeks that are over: what they came over is not sent without a review.
    pub holds: Vec<Hold>,
    /// Who confirmed exactly this content of this announcement, in that order: the same text sent another day needs
    /// its persons anew.
    pub confirmed: BTreeMap<(AnnouncementId, ContentHash), Vec<Person>>,
}

/// A question to the gate: may this delivery go.
pub struct Asking<'a> {
    pub announcement: &'a AnnouncementId,
    pub account: &'a AccountId,
    pub content: &'a ContentHash,
    pub body: &'a Body,
    /// Its release instant.
    pub at: Time,
    /// The account is suspended or closed.
    pub is_resting: bool,
}

impl Gate {
    /// The clock may be `ahead` of the time by which holds last.
    pub fn verdict(&self, asking: &Asking<'_>, now: Time, ahead: TimeDelta, emergency: &Emergency) -> Verdict {
        if asking.is_resting && !crate::planted("closed_gets_it") {
            let account = asking.account;
            return Verdict::Closed(words!("账号 {account} 已停用", "the account {account} is suspended or closed"));
        }
        if asking.body.priority == Priority::Emergency {
            return self.confirmed_enough(asking, emergency);
        }
        if asking.body.hold_exempt.is_some() {
            return Verdict::Go;
        }
        // Of several the one that lasts longest.
        let covering = self.holds.iter().filter(|h| h.covers(asking.account, now - ahead));
        if let Some(hold) = covering.max_by_key(|h| (h.until.is_none(), h.until)) {
            let reason = &hold.reason;
            let why = words!("静默中：{reason}", "held: {reason}");
            return Verdict::Held { cause: Cause::Hold, until: hold.until.map(|until| until + ahead), why };
        }
        // Unless the configuration says that what was held goes on by itself.
        let came_over = |h: &Hold| h.concerns(asking.account) && h.overlaps(asking.at, now);
        if !emergency.resume && self.holds.iter().any(came_over) && !crate::planted("no_review") {
            let why = Words::new("静默已结束，等人放行", "the hold is over; waiting for a person to release it");
            return Verdict::Held { cause: Cause::Review, until: None, why };
        }
        Verdict::Go
    }

    /// Whether a hold came over a post of routine between its instant and its end, so that it was kept back; where what was
    /// held goes on by itself, one that stands.
    pub fn came_over(
        &self,
        account: &AccountId,
        body: &Body,
        (at, end): (Time, Time),
        now: Time,
        resume: bool,
    ) -> bool {
        let is_routine = body.priority != Priority::Emergency && body.hold_exempt.is_none();
        let kept = |hold: &Hold| hold.concerns(account) && hold.overlaps(at, end) && (!resume || hold.stands(now));
        at <= now && is_routine && self.holds.iter().any(kept)
    }

    /// The holds that stand now.
    pub fn standing(&self, now: Time) -> impl Iterator<Item = &Hold> {
        self.holds.iter().filter(move |hold| hold.stands(now))
    }

    /// Takes over a hold as it was committed.
    pub fn put(&mut self, hold: Hold) {
        self.holds.retain(|h| h.id != hold.id || h.begun != hold.begun);
        self.holds.push(hold);
    }

    pub fn end(&mut self, id: &str, begun: Time, at: Time) {
        for hold in self.holds.iter_mut().filter(|h| h.id == id && h.begun == begun && h.ended.is_none()) {
            hold.ended = Some(at);
        }
    }

    /// Ends that lie ahead were written by a clock that has been put back since: what was ended is over now.
    pub fn clock_is(&mut self, now: Time) {
        for hold in &mut self.holds {
            hold.ended = hold.ended.map(|ended| ended.min(now));
        }
    }

    /// Forgets holds that were over before: nothing that is still to go out is as old as that.
    pub fn forget_before(&mut self, time: Time) {
        self.holds.retain(|hold| [hold.until, hold.ended].into_iter().flatten().min().is_none_or(|end| end >= time));
    }

    /// Who confirmed.
    pub fn persons(&self, announcement: &AnnouncementId, content: &ContentHash) -> &[Person] {
        self.confirmed.get(&(announcement.clone(), content.clone())).map_or(&[], Vec::as_slice)
    }

    /// A person confirmed; once counts.
    pub fn confirm(&mut self, announcement: &AnnouncementId, content: &ContentHash, person: Person) {
        let persons = self.confirmed.entry((announcement.clone(), content.clone())).or_default();
        if !persons.iter().any(|p| p.uid == person.uid) {
            persons.push(person);
        }
    }

    /// An announcement is as this row says now. What was agreed to is void once it is not in force any more, also when it
    /// comes back: then it is asked for anew.
    pub fn in_force(&mut self, row: &AnnouncementRow) {
        if row.priority == Priority::Emergency {
            self.agreed(&row.id, row.agreed());
        }
    }

    /// Of what was agreed to about an announcement only this content is in force, or nothing.
    pub fn agreed(&mut self, about: &AnnouncementId, in_force: Option<&ContentHash>) {
        if !crate::planted("old_word_counts") {
            self.confirmed.retain(|(id, content), _| id != about || in_force == Some(content));
        }
    }

    /// An emergency of the queue has no sender, so all of its persons, at least one, confirm it.
    fn confirmed_enough(&self, asking: &Asking<'_>, emergency: &Emergency) -> Verdict {
        let needed = emergency.persons(asking.body);
        let have = self.persons(asking.announcement, asking.content).len();
        if have >= needed || have > 0 && crate::planted("one_word_is_enough") {
            return Verdict::Go;
        }
        Verdict::Held {
            cause: Cause::Confirmation,
            until: Some(asking.at + emergency.confirm_within),
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
            alert_sent: None,
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
        let ask_at = |gate: &Gate, body: &Body, at: Time| {
            let asking = Asking {
                announcement: &announcement,
                account: &account,
                content: &hash,
                body,
                at: now,
                is_resting: false,
            };
            gate.verdict(&asking, at, TimeDelta::zero(), &emergency)
        };
        let ask = |gate: &Gate, body: &Body| ask_at(gate, body, now);
        assert_eq!(ask(&gate, &body(Priority::Routine)), Verdict::Go);
        gate.put(Hold {
            id: "h1".to_owned(),
            reason: "暴雨".to_owned(),
            until: Some(now + TimeDelta::hours(1)),
            named: None,
            accounts: None,
            owner: "duty(1000)".to_owned(),
            begun: now,
            post: None,
            ended: None,
            version: 1,
        });
        let held_for = |verdict| match verdict {
            Verdict::Held { cause, .. } => Some(cause),
            _ => None,
        };
        assert_eq!(held_for(ask(&gate, &body(Priority::Routine))), Some(Cause::Hold));
        let exempt = Body { hold_exempt: Some("交通保障".to_owned()), ..body(Priority::Routine) };
        assert_eq!(ask(&gate, &exempt), Verdict::Go);
        // Its hour lay in the hold: it waits for a review, also when the hold is over, or was ended early.
        let later = ask_at(&gate, &body(Priority::Routine), now + TimeDelta::hours(2));
        assert_eq!(held_for(later), Some(Cause::Review));
        gate.end("h1", now, now + TimeDelta::minutes(1));
        assert_eq!(held_for(ask(&gate, &body(Priority::Routine))), Some(Cause::Review));

        let red = body(Priority::Emergency);
        assert_eq!(held_for(ask(&gate, &red)), Some(Cause::Confirmation), "nobody has confirmed it");
        let person = |uid: u32| Person { uid, name: format!("duty{uid}") };
        gate.confirm(&announcement, &hash, person(1000));
        gate.confirm(&announcement, &hash, person(1000));
        assert_eq!(held_for(ask(&gate, &red)), Some(Cause::Confirmation), "one of two");
        gate.confirm(&announcement, &hash, person(1001));
        assert_eq!(ask(&gate, &red), Verdict::Go);
    }
}
