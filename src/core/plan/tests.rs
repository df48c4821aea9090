use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::announcement::{Body, Content, Priority};

const NOW: &str = "2026-11-24T00:00:00Z";

fn now() -> Time {
    NOW.parse().unwrap()
}

fn announcement(id: &str, text: &str, timing: Timing) -> Announcement {
    let body = Body {
        text: text.to_owned(),
        link: None,
        images: Vec::new(),
        variants: BTreeMap::new(),
        to: vec!["**".to_owned()],
        except: Vec::new(),
        priority: Priority::Routine,
        level: None,
        timing,
        expires_after: None,
        catch_up: None,
        together: None,
        supersedes: None,
        hold_exempt: None,
        standard: false,
        persons: None,
        silence: None,
        alert_sent: None,
        follows: None,
        closing: None,
    };
    let content = Content { body, accounts: BTreeSet::from(["sina:shanghai".into()]) };
    Announcement { id: id.into(), file: "a.yaml".to_owned(), line: 1, content, saved: None }
}

fn at(id: &str, text: &str, hours: i64) -> Announcement {
    announcement(id, text, Timing::At(now() + TimeDelta::hours(hours)))
}

fn desired(list: &[Announcement]) -> Desired {
    let announcements = list.iter().map(|a| (a.id.clone(), a.clone())).collect();
    Desired { announcements, ..Desired::default() }
}

/// How the ledger knows an announcement, its deliveries in these numbers.
fn known_as(a: &Announcement, release: Time, pending: u32, ended: u32, out: u32) -> KnownAnnouncement {
    let row = AnnouncementRow {
        id: a.id.clone(),
        file: a.file.clone(),
        line: 1,
        content: a.content.hash(),
        body: a.content.body.hash(),
        edited: None,
        priority: Priority::Routine,
        supersedes: None,
        planned_to: None,
        withdrawn: None,
        first_seen: now() - TimeDelta::hours(1),
        follows: None,
        ended: None,
        version: 1,
    };
    let occurrence = KnownOccurrence { release, is_stopped: false, pending, ended, out };
    let occurrences = BTreeMap::from([(OccurrenceId::once(&a.id), occurrence)]);
    KnownAnnouncement { row, occurrences, superseded: BTreeSet::new() }
}

fn known(list: Vec<KnownAnnouncement>) -> Known {
    Known { announcements: list.into_iter().map(|k| (k.row.id.clone(), k)).collect() }
}

fn planned(desired: &Desired, known: &Known, refused: Option<&str>) -> Plan {
    let publish = Publish::default();
    let rules = Rules { publish: &publish, zone: chrono_tz::Asia::Shanghai, refused };
    plan(desired, known, now(), &rules)
}

#[test]
fn a_new_one_is_added_and_the_same_one_left_alone() {
    let a = at("a", "x", 5);
    let plan = planned(&desired(std::slice::from_ref(&a)), &Known::default(), None);
    assert!(
        matches!(plan.actions.as_slice(), [Action::Put { is_new: true, occurrences, .. }] if occurrences.len() == 1)
    );
    let again = planned(
        &desired(std::slice::from_ref(&a)),
        &known(vec![known_as(&a, now() + TimeDelta::hours(5), 1, 0, 0)]),
        None,
    );
    assert_eq!(again.actions, []);
}

#[test]
fn r03_what_is_out_is_never_published_again_and_reported_once() {
    let (old, new) = (at("a", "x", -1), at("a", "y", 3));
    let mut was = known_as(&old, now() - TimeDelta::hours(1), 0, 0, 1);
    let plan = planned(&desired(std::slice::from_ref(&new)), &known(vec![was.clone()]), None);
    assert!(matches!(plan.actions.as_slice(), [Action::EditedAfterPublication(..)]));
    was.row.edited = Some(new.content.hash());
    assert_eq!(planned(&desired(&[new]), &known(vec![was]), None).actions, []);
}

#[test]
fn r03_a_moved_announcement_is_the_same_and_a_removed_one_is_cancelled() {
    let a = at("a", "x", 5);
    let mut moved = a.clone();
    moved.file = "b.yaml".to_owned();
    let was = known_as(&a, now() + TimeDelta::hours(5), 1, 0, 0);
    assert_eq!(planned(&desired(&[moved]), &known(vec![was.clone()]), None).actions, [Action::Moved("a".into())]);
    let other = at("b", "z", 6);
    let both = known(vec![was, known_as(&other, now() + TimeDelta::hours(6), 1, 0, 0)]);
    let plan = planned(&desired(&[other]), &both, None);
    assert!(matches!(plan.actions.as_slice(), [Action::Withdraw(_)]));
}

#[test]
fn r03_an_emptied_queue_cancels_nothing_until_a_person_says_so() {
    let a = at("a", "x", 5);
    let was = known(vec![known_as(&a, now() + TimeDelta::hours(5), 1, 0, 0)]);
    let plan = planned(&Desired::default(), &was, None);
    assert_eq!(plan.actions, []);
    let blocked = plan.blocked.expect("it waits");
    let refused = planned(&Desired::default(), &was, Some(&blocked.hash));
    assert!(refused.actions.is_empty() && refused.blocked.is_none() && refused.is_refused, "it is not asked for twice");
    // Back, and gone again: that is another loss, and the refusal does not speak of it.
    let back = planned(&desired(std::slice::from_ref(&a)), &was, Some(&blocked.hash));
    assert!(!back.is_refused);
    let gone = Desired { folder_gone: true, ..Desired::default() };
    assert!(planned(&gone, &was, None).blocked.is_some());
}

#[test]
fn r03_more_than_a_fifth_at_once_waits_and_fewer_go() {
    let all: Vec<Announcement> = (0..30).map(|n| at(&format!("a{n:02}"), "x", 5)).collect();
    let was = known(all.iter().map(|a| known_as(a, now() + TimeDelta::hours(5), 1, 0, 0)).collect());
    assert!(planned(&desired(&all[7..]), &was, None).blocked.is_some(), "seven of thirty");
    let plan = planned(&desired(&all[5..]), &was, None);
    assert!(plan.blocked.is_none());
    assert_eq!(plan.actions.len(), 5);
}

#[test]
fn a_file_that_cannot_be_read_leaves_its_announcements_in_force() {
    let (a, b) = (at("a", "x", 5), at("b", "y", 5));
    let was = known(vec![known_as(&a, now() + TimeDelta::hours(5), 1, 0, 0)]);
    let mut wish = desired(&[b]);
    wish.unread_files.insert("a.yaml".to_owned());
    assert!(planned(&wish, &was, None).actions.iter().all(|a| matches!(a, Action::Put { is_new: true, .. })));
    wish.unread_files.clear();
    wish.standing.insert("a".into());
    assert!(planned(&wish, &was, None).actions.iter().all(|a| matches!(a, Action::Put { is_new: true, .. })));
}

#[test]
fn what_a_person_cancelled_does_not_come_back_and_what_the_queue_did_does() {
    let a = at("a", "x", 5);
    let mut was = known_as(&a, now() + TimeDelta::hours(5), 0, 1, 0);
    was.row.withdrawn = Some(Withdrawal::Person("duty(1000)".to_owned()));
    assert_eq!(planned(&desired(&[at("a", "edited", 5)]), &known(vec![was.clone()]), None).actions, []);
    was.row.withdrawn = Some(Withdrawal::Queue);
    assert!(matches!(
        planned(&desired(&[a]), &known(vec![was]), None).actions.as_slice(),
        [Action::Put { is_new: false, .. }]
    ));
}

#[test]
fn an_at_long_past_is_put_and_expires() {
    let a = at("a", "x", -2000);
    let expiry = |a: &Announcement| a.content.body.lasts(&Publish::default());
    assert_eq!(expiry(&a), Some(Duration::from_secs(3600)));
    let plan = planned(&desired(&[a]), &Known::default(), None);
    assert!(matches!(plan.actions.as_slice(), [Action::Put { .. }]));
}

proptest! {
    /// R3: whatever is edited, nothing that is out is ever planned again.
    #[test]
    fn r03_no_edit_plans_what_is_out(
        edits in proptest::collection::vec((0u8..4, 0usize..6, -3i64..6, any::<bool>()), 1..12),
        out in proptest::collection::vec(any::<bool>(), 6),
    ) {
        let base: Vec<Announcement> = (0..6).map(|n| at(&format!("a{n}"), "x", 1 + n)).collect();
        let was = known(base.iter().zip(&out).map(|(a, out)| {
            let Timing::At(release) = a.content.body.timing else { unreachable!() };
            known_as(a, release, u32::from(!out), 0, u32::from(*out))
        }).collect());
        let mut list = base.clone();
        for (kind, which, hours, flag) in edits {
            if list.is_empty() { break; }
            let which = which % list.len();
            match kind {
                0 => { list.remove(which); }
                1 => list[which].content.body.text = format!("edited {hours}"),
                2 => list[which].content.body.timing = Timing::At(now() + TimeDelta::hours(hours)),
                _ => list[which].file = if flag { "b.yaml" } else { "c.yaml" }.to_owned(),
            }
        }
        let plan = planned(&desired(&list), &was, None);
        for action in &plan.actions {
            let touched: Vec<&AnnouncementId> = match action {
                Action::Put { id, occurrences, .. } if !occurrences.is_empty() => vec![id],
                Action::Withdraw(id) => vec![id],
                _ => vec![],
            };
            for id in touched {
                let n: usize = id.as_str()[1..].parse().unwrap();
                prop_assert!(!out[n], "{action:?}");
            }
        }
    }
}

/// A day of a repeat of every other second is written in pieces that join, with room for the rest of the folder between.
#[test]
fn a_dense_repeat_is_written_piece_by_piece() {
    let repeat = |cron: &str| {
        let repeat = super::super::announcement::Repeat {
            cron: cron.to_owned(),
            from: None,
            until: None,
            skip: BTreeSet::new(),
        };
        announcement("a", "x", Timing::Repeat(repeat))
    };
    for (cron, a_day, pieces) in [("*/2 * * * * *", 43_200, 22), ("0 8 * * *", 1, 1)] {
        let a = repeat(cron);
        let mut known = known(vec![]);
        let (mut hours, mut passes) = (Vec::new(), 0);
        loop {
            let plan = planned(&desired(std::slice::from_ref(&a)), &known, None);
            let [Action::Put { occurrences, planned_to, .. }] = plan.actions.as_slice() else {
                panic!("{:?}", plan.actions)
            };
            passes += 1;
            hours.extend(occurrences.iter().map(|(_, at)| *at));
            let mut row = known_as(&a, now(), 0, 0, 0);
            row.row.planned_to = *planned_to;
            row.occurrences.clear();
            known.announcements.insert(a.id.clone(), row);
            if !plan.actions[0].goes_on(now()) {
                break;
            }
        }
        assert_eq!((hours.len(), passes), (a_day, pieces), "{cron}");
        assert!(hours.windows(2).all(|w| w[1] - w[0] == TimeDelta::seconds(2)));
        assert_eq!(planned(&desired(&[a]), &known, None).actions, []);
    }
}
